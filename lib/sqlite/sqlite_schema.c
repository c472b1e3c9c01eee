/* SPDX-License-Identifier: MIT
 *
 * sqlite_schema.c - making the tables, checking them, and subscriptions.
 *
 * Migrations are numbered, applied in one write transaction, and recorded
 * with a checksum of their text: two processes that migrate at once wait for
 * each other, and a database whose history is not ours is refused.
 */
#include "sqlite_store.h"

#include "failpoint.h"

#include <stdio.h>
#include <time.h>

enum { MIGRATE_WAIT_MS = 5000 };

/* Without comments; a test knows the checksums of released versions. */
static const char *const migrations[OB_SQLITE_VERSION] = {
#include "sqlite_schema.inc"
};

static int exec(ob_sqlite *st, const char *sql, const char *doing,
                outbox_error *err)
{
    const outbox_allocator *mem = &st->base.mem;
    char *expanded = ob_sqlite_expand(st, sql);

    if (expanded == NULL)
        return ob_nomem(err);
    int rc = sqlite3_exec(st->db, expanded, NULL, NULL, NULL);
    mem->free(mem->arg, expanded);
    return rc == SQLITE_OK ? OUTBOX_OK : ob_sqlite_error(st, doing, err);
}

/* ---- migrating ------------------------------------------------------ */

/* The newest version applied; each one's checksum must be ours. */
static int applied(ob_sqlite *st, int *version, outbox_error *err)
{
    const outbox_allocator *mem = &st->base.mem;
    char *sql = ob_sqlite_expand(st, "SELECT version, checksum FROM"
                                 " main.\"outbox_migration\" ORDER BY 1");
    sqlite3_stmt *stmt = NULL;
    int rc = OUTBOX_OK, step = SQLITE_ROW;

    if (sql == NULL)
        return ob_nomem(err);
    if (sqlite3_prepare_v2(st->db, sql, -1, &stmt, NULL) != SQLITE_OK)
        rc = ob_sqlite_error(st, "migrate", err);
    mem->free(mem->arg, sql);
    *version = 0;
    while (rc == OUTBOX_OK && (step = sqlite3_step(stmt)) == SQLITE_ROW) {
        *version = sqlite3_column_int(stmt, 0);
        rc = ob_migration_check(migrations, OB_SQLITE_VERSION, *version,
                                (const char *)sqlite3_column_text(stmt, 1),
                                false, err);
    }
    if (rc == OUTBOX_OK && step != SQLITE_DONE)
        rc = ob_sqlite_error(st, "migrate", err);
    sqlite3_finalize(stmt);
    return rc;
}

static int record(ob_sqlite *st, int version, uint32_t lanes,
                  outbox_error *err)
{
    char sql[400], sum[OB_SUM_TEXT];

    ob_migration_sum(migrations[version - 1], sum);
    snprintf(sql, sizeof sql,
             "INSERT INTO main.\"outbox_migration\" VALUES (%d, '%s', %lld);"
             "INSERT INTO main.\"outbox_meta\" (one, version, lanes)"
             " VALUES (1, %d, %u)"
             " ON CONFLICT (one) DO UPDATE SET version = excluded.version",
             version, sum, (long long)ob_sqlite_now_ms(&st->base), version,
             (unsigned)lanes);
    return exec(st, sql, "migrate", err);
}

static int upgrade(ob_sqlite *st, uint32_t lanes, outbox_error *err)
{
    int version = 0, rc;

    rc = exec(st, "CREATE TABLE IF NOT EXISTS main.\"outbox_migration\" ("
              "version INTEGER PRIMARY KEY, checksum TEXT NOT NULL,"
              " applied_ms INTEGER NOT NULL)", "migrate", err);
    if (rc == OUTBOX_OK)
        rc = applied(st, &version, err);
    for (; rc == OUTBOX_OK && version < OB_SQLITE_VERSION; version++) {
        rc = exec(st, migrations[version], "migrate", err);
        OB_FAILPOINT("sqlite.migrate.mid");
        if (rc == OUTBOX_OK)
            rc = record(st, version + 1, lanes, err);
    }
    return rc;
}

static int migrate_once(ob_sqlite *st, uint32_t lanes, outbox_error *err)
{
    int rc = ob_sqlite_begin(st, SQ_BEGIN, err);

    if (rc != OUTBOX_OK)
        return rc;
    return ob_sqlite_end(st, upgrade(st, lanes, err), err);
}

/* Nothing is to be done, which needs no lock that a writer may have.  What is
 * wrong is found again, and told, under the lock. */
static bool is_current(ob_sqlite *st)
{
    outbox_error err;
    int version = 0;

    return sqlite3_get_autocommit(st->db) &&
           applied(st, &version, &err) == OUTBOX_OK &&
           version == OB_SQLITE_VERSION;
}

/* The caller's connection may have no busy handler, and cannot be asked.  In
 * a rollback-journal database COMMIT, too, is busy while another reads. */
int ob_sqlite_migrate(outbox_store *s, uint32_t lanes, outbox_error *err)
{
    int64_t until_us = outbox_monotonic_us() + MIGRATE_WAIT_MS * 1000;
    struct timespec pause = { 0, 1000000 };
    ob_sqlite *st = (ob_sqlite *)s;
    int rc = ob_sqlite_connected(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    st->checked = false;
    if (is_current(st))
        return OUTBOX_OK;
    while ((rc = migrate_once(st, lanes, err)) == OUTBOX_EBUSY &&
           outbox_monotonic_us() < until_us)
        nanosleep(&pause, NULL);
    return rc;
}

/* ---- checking ------------------------------------------------------- */

int ob_sqlite_check(ob_sqlite *st, outbox_error *err)
{
    int rc;

    if (st->checked)
        return OUTBOX_OK;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_META, &rc, err);
    if (stmt == NULL)
        return rc;
    int version = 0;
    int64_t lanes = 0;
    int step = sqlite3_step(stmt);
    if (step == SQLITE_ROW) {
        version = sqlite3_column_int(stmt, 0);
        lanes = sqlite3_column_int64(stmt, 1);
    } else if (step != SQLITE_DONE) {
        rc = ob_sqlite_error(st, "check the tables", err);
    }
    sqlite3_reset(stmt);
    if (rc != OUTBOX_OK)
        return rc;
    rc = ob_version_check(version, OB_SQLITE_VERSION, err);
    if (rc == OUTBOX_OK)
        rc = ob_lanes_check(lanes, err);
    if (rc != OUTBOX_OK)
        return rc;
    st->lanes = (uint32_t)lanes;
    st->checked = true;
    return OUTBOX_OK;
}

/* ---- subscriptions -------------------------------------------------- */

static int find_sub(ob_sqlite *st, outbox_subscription *sub,
                    int64_t *keep_ms, outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_FIND_SUB, &rc, err);

    if (stmt == NULL)
        return rc;
    sub->sub = 0;
    sqlite3_bind_text(stmt, 1, sub->name, -1, SQLITE_STATIC);
    int step = sqlite3_step(stmt);
    if (step == SQLITE_ROW) {
        sub->sub = sqlite3_column_int64(stmt, 0);
        *keep_ms = sqlite3_column_int64(stmt, 1);
        sub->paused = sqlite3_column_int(stmt, 2);
        sub->generation = sqlite3_column_int64(stmt, 3);
    } else if (step != SQLITE_DONE) {
        rc = ob_sqlite_error(st, "find the subscription", err);
    }
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return rc;
}

/* Where a subscription begins: at zero, or after the newest event. */
static int newest(ob_sqlite *st, outbox_cursor *at, outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_NEWEST, &rc, err);

    if (stmt == NULL)
        return rc;
    int step = sqlite3_step(stmt);
    if (step == SQLITE_ROW) {
        at->position = sqlite3_column_int64(stmt, 0);
        const void *id = sqlite3_column_blob(stmt, 1);
        if (id != NULL && sqlite3_column_bytes(stmt, 1) == 16)
            memcpy(at->id, id, 16);
    } else if (step != SQLITE_DONE) {
        rc = ob_sqlite_error(st, "find the newest event", err);
    }
    sqlite3_reset(stmt);
    return rc;
}

static int add_lanes(ob_sqlite *st, int64_t sub, const outbox_cursor *at,
                     outbox_error *err)
{
    outbox_bytes anchor = { at->position > 0 ? at->id : NULL, 16 };
    int rc = OUTBOX_OK;

    for (uint32_t lane = 0; lane < st->lanes && rc == OUTBOX_OK; lane++) {
        sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_ADD_LANE, &rc, err);
        if (stmt == NULL)
            break;
        sqlite3_bind_int64(stmt, 1, sub);
        sqlite3_bind_int64(stmt, 2, lane);
        sqlite3_bind_int64(stmt, 3, at->position);
        ob_sqlite_bind_bytes(st, stmt, 4, &anchor, false);
        rc = ob_sqlite_run(st, stmt, "add a lane", err);
    }
    return rc;
}

static int add(ob_sqlite *st, outbox_subscription *sub, outbox_error *err)
{
    outbox_cursor at = { 0 };
    int rc = OUTBOX_OK;

    if (sub->start == OUTBOX_START_NOW)
        rc = newest(st, &at, err);
    if (rc != OUTBOX_OK)
        return rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_ADD_SUB, &rc, err);
    if (stmt == NULL)
        return rc;
    sqlite3_bind_text(stmt, 1, sub->name, -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 2, sub->keep_ms);
    rc = ob_sqlite_run(st, stmt, "add the subscription", err);
    if (rc != OUTBOX_OK)
        return rc;
    sub->sub = sqlite3_last_insert_rowid(st->db);
    return add_lanes(st, sub->sub, &at, err);
}

static int keep(ob_sqlite *st, const outbox_subscription *sub,
                outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_KEEP_SUB, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub->sub);
    sqlite3_bind_int64(stmt, 2, sub->keep_ms);
    return ob_sqlite_run(st, stmt, "note keep_ms", err);
}

/* Two relays may start at once: look again under the write lock. */
static int subscribe(ob_sqlite *st, outbox_subscription *sub,
                     outbox_error *err)
{
    int64_t keep_ms = 0;
    int rc = ob_sqlite_begin(st, SQ_BEGIN, err);

    if (rc != OUTBOX_OK)
        return rc;
    rc = find_sub(st, sub, &keep_ms, err);
    if (rc == OUTBOX_OK && sub->sub == 0)
        rc = add(st, sub, err);
    else if (rc == OUTBOX_OK && keep_ms != sub->keep_ms)
        rc = keep(st, sub, err);
    return ob_sqlite_end(st, rc, err);
}

int ob_sqlite_attach(outbox_store *s, outbox_subscription *sub,
                     outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int64_t keep_ms = 0;
    int rc = ob_sqlite_connected(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    st->checked = false;
    rc = ob_sqlite_check(st, err);
    if (rc == OUTBOX_OK)
        rc = find_sub(st, sub, &keep_ms, err);
    if (rc == OUTBOX_OK && sub->sub == 0 && !sub->create)
        return outbox_error_set(err, OUTBOX_ENOENT,
                                "the subscription %.100s was removed",
                                sub->name);
    if (rc == OUTBOX_OK && (sub->sub == 0 || keep_ms != sub->keep_ms))
        rc = subscribe(st, sub, err);
    sub->lanes = st->lanes;
    return rc;
}

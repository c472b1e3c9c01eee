/* SPDX-License-Identifier: MIT
 *
 * sqlite_admin.c - what people do to subscriptions, each in one transaction.
 *
 * Rare statements are prepared when they are needed, and not kept.
 */
#include "sqlite_store.h"

static int admin_prepare(ob_sqlite *st, const char *sql, sqlite3_stmt **stmt,
                         outbox_error *err)
{
    const outbox_allocator *mem = &st->base.mem;
    char *expanded = ob_sqlite_expand(st, sql);

    if (expanded == NULL)
        return ob_nomem(err);
    int rc = sqlite3_prepare_v2(st->db, expanded, -1, stmt, NULL);
    mem->free(mem->arg, expanded);
    return rc == SQLITE_OK ? OUTBOX_OK : ob_sqlite_error(st, "prepare", err);
}

/* ?1 is the subscription, ?2 an id or NULL, ?3 a number.  Returns the rows
 * that were changed. */
static int admin_run(ob_sqlite *st, const char *sql, int64_t sub,
                     const outbox_admin_arg *arg, outbox_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = admin_prepare(st, sql, &stmt, err);

    if (rc != OUTBOX_OK)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub);
    if (arg->id != NULL)
        sqlite3_bind_blob(stmt, 2, arg->id, 16, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 3, arg->value);
    int step = sqlite3_step(stmt);
    if (step != SQLITE_DONE && step != SQLITE_ROW)
        rc = ob_sqlite_error(st, "administer", err);
    else
        rc = sqlite3_changes(st->db);
    sqlite3_finalize(stmt);
    return rc;
}

/* The last to die comes first to the head, so that the first ends up there. */
static const char *const revive_sql[] = {
    "INSERT INTO main.\"outbox_parked\" (sub, lane, chain, seq, position, id,"
    " topic, type, key, content_type, headers, payload, published_ms,"
    " expires_ms, attempts, delay_ms, why) SELECT d.sub, d.lane, d.chain,"
    " (SELECT coalesce(min(p.seq), 4294967296) FROM main.\"outbox_parked\" p"
    " WHERE p.sub = d.sub AND p.lane = d.lane AND p.chain = d.chain)"
    " - row_number() OVER (PARTITION BY d.chain ORDER BY d.rowid DESC),"
    " d.position, d.id, d.topic, d.type, d.key, d.content_type, d.headers,"
    " d.payload, d.published_ms, d.expires_ms, 0, 0, d.why"
    " FROM main.\"outbox_dead\" d"
    " WHERE d.sub = ?1 AND (?2 IS NULL OR d.id = ?2)",
    "DELETE FROM main.\"outbox_dead\""
    " WHERE sub = ?1 AND (?2 IS NULL OR id = ?2)",
    "UPDATE main.\"outbox_subscription\" SET generation = generation + 1"
    " WHERE sub = ?1",
};

#define FORGET_PASSED \
    "DELETE FROM main.\"outbox_discarded\" AS x WHERE sub = ?1" \
    " AND position <= (SELECT position FROM main.\"outbox_lane\" l" \
    " WHERE l.sub = x.sub AND l.lane = x.lane)"

/* Of those that the cursor has not passed yet a row remains that says so. */
static const char *const discard_sql[] = {
    FORGET_PASSED,
    "INSERT OR IGNORE INTO main.\"outbox_discarded\" (sub, lane, position, id)"
    " SELECT d.sub, d.lane, d.position, d.id FROM main.\"outbox_dead\" d"
    " JOIN main.\"outbox_lane\" l ON l.sub = d.sub AND l.lane = d.lane"
    " WHERE d.sub = ?1 AND (?2 IS NULL OR d.id = ?2)"
    " AND d.position > l.position",
    "DELETE FROM main.\"outbox_dead\""
    " WHERE sub = ?1 AND (?2 IS NULL OR id = ?2)",
    "UPDATE main.\"outbox_subscription\" SET generation = generation + 1"
    " WHERE sub = ?1",
};

static const char *const pause_sql[] = {
    "UPDATE main.\"outbox_subscription\" SET paused = ?3 WHERE sub = ?1",
};

/* The cursor goes to the event before the first that is wanted; when none is
 * older, before all.  The lanes lose their owners, so that nobody saves an
 * older idea of the cursor over it. */
static const char *const replay_sql[] = {
    FORGET_PASSED,
    "UPDATE main.\"outbox_lane\" SET owner = NULL, token = token + 1,"
    " crashes = 0, trying = NULL, (position, anchor) ="
    " (SELECT coalesce(max(position), 0), id FROM main.\"outbox_log\""
    " WHERE position < (SELECT min(position) FROM main.\"outbox_log\""
    " WHERE published_ms >= ?3))"
    " WHERE sub = ?1 AND position >= (SELECT min(position)"
    " FROM main.\"outbox_log\" WHERE published_ms >= ?3)",
};

static const char *const unsubscribe_sql[] = {
    "DELETE FROM main.\"outbox_subscription\" WHERE sub = ?1",
    "DELETE FROM main.\"outbox_lane\" WHERE sub = ?1",
    "DELETE FROM main.\"outbox_relay\" WHERE sub = ?1",
    "DELETE FROM main.\"outbox_parked\" WHERE sub = ?1",
    "DELETE FROM main.\"outbox_dead\" WHERE sub = ?1",
    "DELETE FROM main.\"outbox_discarded\" WHERE sub = ?1",
};

typedef struct sql_list {
    const char *const *sql;
    size_t             n, counts;       /* counts: whose rows are returned */
} sql_list;

#define SQL_COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const sql_list admin_sql[] = {
    [OUTBOX_ADMIN_REVIVE] = { revive_sql, SQL_COUNT(revive_sql), 0 },
    [OUTBOX_ADMIN_DISCARD] = { discard_sql, SQL_COUNT(discard_sql), 2 },
    [OUTBOX_ADMIN_PAUSE] = { pause_sql, SQL_COUNT(pause_sql), 0 },
    [OUTBOX_ADMIN_REPLAY] = { replay_sql, SQL_COUNT(replay_sql), 1 },
    [OUTBOX_ADMIN_UNSUBSCRIBE] = { unsubscribe_sql,
                                   SQL_COUNT(unsubscribe_sql), 0 },
};

static int admin_all(ob_sqlite *st, const sql_list *list, int64_t sub,
                     const outbox_admin_arg *arg, outbox_error *err)
{
    int count = 0, rc = 0;

    for (size_t i = 0; i < list->n && rc >= 0; i++) {
        rc = admin_run(st, list->sql[i], sub, arg, err);
        if (i == list->counts)
            count = rc;
    }
    return rc < 0 ? rc : count;
}

int ob_sqlite_admin(outbox_store *s, int64_t sub, enum outbox_admin what,
                    const outbox_admin_arg *arg, outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    const sql_list *list = &admin_sql[what];
    st->busy_ms = OB_SQLITE_PATIENT_MS;
    int rc = ob_sqlite_begin(st, SQ_BEGIN, err);

    if (rc != OUTBOX_OK)
        return rc;
    rc = admin_all(st, list, sub, arg, err);
    return ob_sqlite_end(st, rc, err);
}

int ob_sqlite_find(outbox_store *s, const char *name, int64_t *sub,
                   outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int rc = ob_sqlite_connected(st, err);

    if (rc == OUTBOX_OK)
        rc = ob_sqlite_check(st, err);
    if (rc != OUTBOX_OK)
        return rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_FIND_SUB, &rc, err);
    if (stmt == NULL)
        return rc;
    sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
    int step = sqlite3_step(stmt);
    if (step == SQLITE_ROW)
        *sub = sqlite3_column_int64(stmt, 0);
    else if (step == SQLITE_DONE)
        rc = outbox_error_set(err, OUTBOX_ENOENT,
                              "there is no subscription %.100s", name);
    else
        rc = ob_sqlite_error(st, "find the subscription", err);
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return rc;
}

static const char dead_sql[] =
    "SELECT position, id, topic, type, key, content_type, headers, payload,"
    " published_ms, expires_ms, lane, chain, attempts, why, died_ms"
    " FROM main.\"outbox_dead\" WHERE sub = ?1 ORDER BY rowid LIMIT ?2";

int ob_sqlite_dead(outbox_store *s, int64_t sub, int limit, outbox_sink *sink,
                   void *arg, outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    sqlite3_stmt *stmt = NULL;
    outbox_row row;
    int n = 0, step, rc = admin_prepare(st, dead_sql, &stmt, err);

    if (rc != OUTBOX_OK)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub);
    sqlite3_bind_int(stmt, 2, limit);
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        if (!ob_sqlite_row(stmt, &row)) {
            step = SQLITE_NOMEM;
            break;
        }
        row.lane = (uint32_t)sqlite3_column_int(stmt, 10);
        row.chain = (uint64_t)sqlite3_column_int64(stmt, 11);
        row.attempts = (uint32_t)sqlite3_column_int64(stmt, 12);
        row.why = (const char *)sqlite3_column_text(stmt, 13);
        row.died_ms = sqlite3_column_int64(stmt, 14);
        if (sink(arg, &row) != 0)
            break;
        n++;
    }
    rc = step == SQLITE_DONE || step == SQLITE_ROW
       ? n : ob_sqlite_error(st, "read dead events", err);
    sqlite3_finalize(stmt);
    return rc;
}

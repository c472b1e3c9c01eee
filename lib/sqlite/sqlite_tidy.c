/* SPDX-License-Identifier: MIT
 *
 * sqlite_tidy.c - what a relay does beside delivering: scheduled events into
 * the log, old events out of it, and counting.
 */
#include "sqlite_store.h"

#include "failpoint.h"

/* ---- scheduled events ----------------------------------------------- */

static int next_due(ob_sqlite *st, int64_t *due_ms, outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_NEXT_DUE, &rc, err);

    if (stmt == NULL)
        return rc;
    *due_ms = -1;
    if (sqlite3_step(stmt) != SQLITE_ROW)
        rc = ob_sqlite_error(st, "look for scheduled events", err);
    else if (sqlite3_column_type(stmt, 0) != SQLITE_NULL)
        *due_ms = sqlite3_column_int64(stmt, 0);
    sqlite3_reset(stmt);
    return rc;
}

static int limited(ob_sqlite *st, enum ob_sqlite_stmt which, int64_t now_ms,
                   int limit, outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, which, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, now_ms);
    sqlite3_bind_int(stmt, 2, limit);
    rc = ob_sqlite_run(st, stmt, "tidy up", err);
    return rc == OUTBOX_OK ? sqlite3_changes(st->db) : rc;
}

/* Our own commit does not change our data_version: what it brings into the
 * log must be synced all the same before it is sent. */
static int promote(ob_sqlite *st, int64_t now_ms, int limit,
                   outbox_error *err)
{
    int rc = ob_sqlite_begin(st, SQ_BEGIN, err);

    if (rc != OUTBOX_OK)
        return rc;
    int moved = limited(st, SQ_PROMOTE, now_ms, limit, err);
    rc = moved < 0 ? moved
                   : limited(st, SQ_PROMOTED, now_ms, limit, err);
    if (rc >= 0 && rc != moved)
        rc = outbox_error_set(err, OUTBOX_EDB,
                              "%d scheduled events were moved, %d deleted",
                              moved, rc);
    st->synced_version = -1;
    return ob_sqlite_end(st, rc, err);
}

int ob_sqlite_promote(outbox_store *s, int limit, int64_t *next_ms,
                      outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int64_t due_ms = -1, now_ms = ob_sqlite_now_ms(s);
    int moved = 0, rc = next_due(st, &due_ms, err);

    if (rc == OUTBOX_OK && due_ms >= 0 && due_ms <= now_ms) {
        moved = rc = promote(st, now_ms, limit, err);
        if (rc >= 0)
            rc = next_due(st, &due_ms, err);
    }
    if (rc < 0)
        return rc;
    *next_ms = due_ms < 0 ? -1 : due_ms > now_ms ? due_ms - now_ms : 0;
    return moved;
}

/* ---- trimming and counting ------------------------------------------ */

static int anything_to_trim(ob_sqlite *st, outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_TRIM_ANY, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, ob_sqlite_now_ms(&st->base));
    int step = sqlite3_step(stmt);
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        rc = ob_sqlite_error(st, "trim", err);
    sqlite3_reset(stmt);
    return rc == OUTBOX_OK ? step == SQLITE_ROW : rc;
}

int ob_sqlite_trim(outbox_store *s, int limit, outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int rc = anything_to_trim(st, err);

    ob_sqlite_keep_wal_short(st);
    if (rc <= 0)
        return rc;
    rc = ob_sqlite_begin(st, SQ_BEGIN, err);
    if (rc != OUTBOX_OK)
        return rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_TRIM, &rc, err);
    if (stmt != NULL) {
        sqlite3_bind_int64(stmt, 1, ob_sqlite_now_ms(s));
        sqlite3_bind_int(stmt, 2, limit);
        rc = ob_sqlite_run(st, stmt, "trim", err);
    }
    OB_FAILPOINT("sqlite.trim.mid");
    int n = rc == OUTBOX_OK ? sqlite3_changes(st->db) : rc;
    if (rc == OUTBOX_OK)
        rc = limited(st, SQ_TRIM_DEDUP, ob_sqlite_now_ms(s) - OB_DEDUP_KEEP_MS,
                     limit, err);
    rc = ob_sqlite_end(st, rc, err);
    return rc < 0 ? rc : n;
}

int ob_sqlite_count(outbox_store *s, int64_t sub, outbox_counts *out,
                    outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_COUNT, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub);
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        out->parked = sqlite3_column_int64(stmt, 0);
        out->dead = sqlite3_column_int64(stmt, 1);
        out->behind = sqlite3_column_int64(stmt, 2);
        out->oldest_ms = sqlite3_column_int64(stmt, 3);
        out->scheduled = sqlite3_column_int64(stmt, 4);
        out->paused = sqlite3_column_int(stmt, 5);
        out->holds_log = sqlite3_column_int(stmt, 6);
    } else {
        rc = ob_sqlite_error(st, "count", err);
    }
    sqlite3_reset(stmt);
    return rc;
}

/* SPDX-License-Identifier: MIT
 *
 * sqlite_save.c - progress and the fate of events, in one fenced transaction.
 *
 * Invariants, and the tests that show them:
 *  1. Nothing is written unless every lane in it still has its owner's token
 *     (tests/contract: one_lost_lease_saves_nothing,
 *     one_that_slept_cannot_save; tests/torture: mutant no-fence).
 *  2. A cursor passes an event in the transaction that parks or buries it, or
 *     after its delivery (tests/torture: mutants save-in-two, park-forgets,
 *     dead-forgets).
 */
#include "sqlite_store.h"

#include "failpoint.h"

static int save_lane(ob_sqlite *st, int64_t sub, const uint8_t me[16],
                     outbox_lane *lane, outbox_error *err)
{
    const outbox_cursor *c = &lane->cursor;
    outbox_bytes anchor = { c->position > 0 ? c->id : NULL, 16 };
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_SAVE, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub);
    sqlite3_bind_int64(stmt, 2, lane->lane);
    sqlite3_bind_blob(stmt, 3, me, 16, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 4, lane->token);
    sqlite3_bind_int64(stmt, 5, c->position);
    ob_sqlite_bind_bytes(st, stmt, 6, &anchor, false);
    sqlite3_bind_int(stmt, 7, lane->release);
    sqlite3_bind_int(stmt, 8, lane->on_trial);
    return ob_sqlite_lane_update(st, stmt, "save progress", &lane->held, err);
}

/* Every lane is tried, so that held is right for each. */
static int save_lanes(ob_sqlite *st, int64_t sub, const uint8_t me[16],
                      outbox_lane *lanes, uint32_t n, outbox_error *err)
{
    int rc = OUTBOX_OK;
    bool all = true;

    for (uint32_t i = 0; i < n && rc == OUTBOX_OK; i++) {
        rc = save_lane(st, sub, me, &lanes[i], err);
        all = all && lanes[i].held;
    }
    if (rc == OUTBOX_OK && !all)
        rc = outbox_error_set(err, OUTBOX_ESTALE, "a lease is lost");
    return rc;
}

static void bind_why(sqlite3_stmt *stmt, int at, const char *why)
{
    if (why != NULL)
        sqlite3_bind_text(stmt, at, why, -1, SQLITE_STATIC);
    else
        sqlite3_bind_null(stmt, at);
}

/* Parameters 1 to 15, which parked and dead rows share. */
static void bind_row(ob_sqlite *st, sqlite3_stmt *stmt, int64_t sub,
                     const outbox_row *row)
{
    outbox_bytes payload = row->payload;

    if (payload.ptr == NULL)
        payload.ptr = "";
    ob_sqlite_bind_bytes(st, stmt, 2, &row->topic, true);
    ob_sqlite_bind_bytes(st, stmt, 3, &row->type, true);
    ob_sqlite_bind_bytes(st, stmt, 4, &row->key, true);
    ob_sqlite_bind_bytes(st, stmt, 5, &row->content_type, true);
    ob_sqlite_bind_bytes(st, stmt, 6, &row->headers, true);
    ob_sqlite_bind_bytes(st, stmt, 7, &payload, false);
    sqlite3_bind_int64(stmt, 8, row->published_ms);
    if (row->expires_ms != 0)
        sqlite3_bind_int64(stmt, 9, row->expires_ms);
    sqlite3_bind_int64(stmt, 10, sub);
    sqlite3_bind_int64(stmt, 11, row->lane);
    sqlite3_bind_int64(stmt, 12, (int64_t)row->chain);
    sqlite3_bind_int64(stmt, 13, row->position);
    sqlite3_bind_int64(stmt, 14, row->attempts);
    bind_why(stmt, 15, row->why);
    sqlite3_bind_blob(stmt, 1, row->id, 16, SQLITE_STATIC);
}

static void bind_parked(sqlite3_stmt *stmt, int64_t sub, const outbox_row *row)
{
    sqlite3_bind_int64(stmt, 1, sub);
    sqlite3_bind_int64(stmt, 2, row->lane);
    sqlite3_bind_int64(stmt, 3, (int64_t)row->chain);
    sqlite3_bind_int64(stmt, 4, row->seq);
}

static int parked_remove(ob_sqlite *st, int64_t sub, const outbox_row *row,
                         outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_UNPARK, &rc, err);

    if (stmt == NULL)
        return rc;
    bind_parked(stmt, sub, row);
    return ob_sqlite_run(st, stmt, "unpark", err);
}

static int parked_add(ob_sqlite *st, int64_t sub, const outbox_row *row,
                      outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_PARK, &rc, err);

    if (stmt == NULL)
        return rc;
    bind_row(st, stmt, sub, row);
    sqlite3_bind_int64(stmt, 16, row->delay_ms);
    return ob_sqlite_run(st, stmt, "park", err);
}

static int parked_failed(ob_sqlite *st, int64_t sub, const outbox_row *row,
                         outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_AGAIN, &rc, err);

    if (stmt == NULL)
        return rc;
    bind_parked(stmt, sub, row);
    sqlite3_bind_int64(stmt, 5, row->attempts);
    sqlite3_bind_int64(stmt, 6, row->delay_ms);
    bind_why(stmt, 7, row->why);
    return ob_sqlite_run(st, stmt, "note a failure", err);
}

static int dead_add(ob_sqlite *st, int64_t sub, const outbox_change *c,
                    outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_BURY, &rc, err);

    if (stmt == NULL)
        return rc;
    bind_row(st, stmt, sub, &c->row);
    sqlite3_bind_int(stmt, 16, c->blocks);
    sqlite3_bind_int64(stmt, 17, ob_sqlite_now_ms(&st->base));
    rc = ob_sqlite_run(st, stmt, "bury", err);
    if (rc == OUTBOX_OK && c->row.seq != 0)
        rc = parked_remove(st, sub, &c->row, err);
    return rc;
}

static int save_change(ob_sqlite *st, int64_t sub, const outbox_change *c,
                       outbox_error *err)
{
    switch (c->kind) {
    case OUTBOX_PARK:
        return parked_add(st, sub, &c->row, err);
    case OUTBOX_AGAIN:
        return parked_failed(st, sub, &c->row, err);
    case OUTBOX_UNPARK:
        return parked_remove(st, sub, &c->row, err);
    case OUTBOX_BURY:
        return dead_add(st, sub, c, err);
    }
    return outbox_error_set(err, OUTBOX_EINVAL, "unknown change");
}

int ob_sqlite_save(outbox_store *s, int64_t sub, const uint8_t me[16],
                   outbox_lane *lanes, uint32_t n,
                   const outbox_change *changes, size_t n_changes,
                   outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int rc = ob_sqlite_begin(st, SQ_BEGIN, err);

    if (rc != OUTBOX_OK)
        return rc;
    rc = save_lanes(st, sub, me, lanes, n, err);
    OB_FAILPOINT("sqlite.save.mid");
    for (size_t i = 0; i < n_changes && rc == OUTBOX_OK; i++)
        rc = save_change(st, sub, &changes[i], err);
    return ob_sqlite_end(st, rc, err);
}

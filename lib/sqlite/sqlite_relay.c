/* SPDX-License-Identifier: MIT
 *
 * sqlite_relay.c - what a relay does, in short transactions of its own.
 *
 * SQLite has one writer at a time, so positions are given in commit order: a
 * cursor that is a position loses nothing.  A cursor is saved as (position,
 * anchor), the id of the event there.  Trimming deletes below the lowest
 * cursor only, so the row at every cursor exists; when it does not, or has
 * another id, the log is not the one that was read.
 *
 * Invariants (tests/contract: anchors, trim; tests/torture: mutants):
 *  1. The row at every lane's cursor is in the log, unless somebody else
 *     changed it; the newest row is never deleted, so no position comes twice.
 *  2. A lane's cursor is written only with the token of its owner.
 *  3. No statement is left running: no read transaction outlives a call.
 */
#include "sqlite_store.h"

#include "failpoint.h"

/* A week: how long a dedup_key is remembered at least. */
#define DEDUP_KEEP_MS INT64_C(604800000)

static const uint8_t *blob16(sqlite3_stmt *stmt, int column)
{
    const void *p = sqlite3_column_blob(stmt, column);

    return sqlite3_column_bytes(stmt, column) == 16 ? p : NULL;
}

static outbox_bytes text_at(sqlite3_stmt *stmt, int column)
{
    outbox_bytes b = { sqlite3_column_text(stmt, column), 0 };

    if (b.ptr != NULL)
        b.len = (size_t)sqlite3_column_bytes(stmt, column);
    return b;
}

/* ---- leases -------------------------------------------------------------------- */

static int beat_write(ob_sqlite *st, int64_t sub, const uint8_t me[16],
                      int want, outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_BEAT, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub);
    sqlite3_bind_blob(stmt, 2, me, 16, SQLITE_STATIC);
    sqlite3_bind_int(stmt, 3, want);
    return ob_sqlite_run(st, stmt, "beat", err);
}

static int lanes_read(ob_sqlite *st, int64_t sub, outbox_lane *lanes,
                      uint32_t n_lanes, outbox_error *err)
{
    uint32_t n = 0;
    int rc, step;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_LANES, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub);
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW && n < n_lanes) {
        const uint8_t *owner = blob16(stmt, 1);
        lanes[n].lane = (uint32_t)sqlite3_column_int(stmt, 0);
        memset(lanes[n].owner, 0, 16);
        if (owner != NULL)
            memcpy(lanes[n].owner, owner, 16);
        lanes[n].token = sqlite3_column_int64(stmt, 2);
        lanes[n].beat = sqlite3_column_int64(stmt, 3);
        if (lanes[n].lane >= n_lanes)
            break;
        n++;
    }
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        rc = ob_sqlite_error(st, "read the lanes", err);
    else if (n != n_lanes || step == SQLITE_ROW)
        rc = outbox_error_set(err, OUTBOX_ESCHEMA,
                              "the subscription has not the %u lanes that it "
                              "should", (unsigned)n_lanes);
    sqlite3_reset(stmt);
    return rc;
}

static int relays_read(ob_sqlite *st, int64_t sub, outbox_beat *relays,
                       int max, outbox_error *err)
{
    int n = 0, rc, step;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_RELAYS, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub);
    sqlite3_bind_int(stmt, 2, max);
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW && n < max) {
        const uint8_t *id = blob16(stmt, 0);
        if (id == NULL)
            continue;
        memset(&relays[n], 0, sizeof relays[n]);
        memcpy(relays[n].id, id, 16);
        relays[n].beat = sqlite3_column_int64(stmt, 1);
        relays[n++].want = (uint32_t)sqlite3_column_int(stmt, 2);
    }
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        rc = ob_sqlite_error(st, "read the relays", err);
    sqlite3_reset(stmt);
    return rc == OUTBOX_OK ? n : rc;
}

static int state_read(ob_sqlite *st, outbox_subscription *sub,
                      outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_SUB_STATE, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub->sub);
    int step = sqlite3_step(stmt);
    if (step == SQLITE_ROW) {
        sub->paused = sqlite3_column_int(stmt, 0);
        sub->generation = sqlite3_column_int64(stmt, 1);
    } else if (step == SQLITE_DONE) {
        rc = outbox_error_set(err, OUTBOX_ENOENT,
                              "the subscription %.100s was removed",
                              sub->name);
    } else {
        rc = ob_sqlite_error(st, "read the subscription", err);
    }
    sqlite3_reset(stmt);
    return rc;
}

int ob_sqlite_beat(outbox_store *s, outbox_subscription *sub,
                   const uint8_t me[16], int want, outbox_lane *lanes,
                   uint32_t n_lanes, outbox_beat *relays, int max,
                   outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int rc = ob_sqlite_begin(st, want >= 0 ? SQ_BEGIN : SQ_BEGIN_READ, err);

    if (rc != OUTBOX_OK)
        return rc;
    rc = state_read(st, sub, err);
    if (rc == OUTBOX_OK && want >= 0)
        rc = beat_write(st, sub->sub, me, want, err);
    if (rc == OUTBOX_OK)
        rc = lanes_read(st, sub->sub, lanes, n_lanes, err);
    if (rc == OUTBOX_OK)
        rc = relays_read(st, sub->sub, relays, max, err);
    return ob_sqlite_end(st, rc, err);
}

static int lane_update(ob_sqlite *st, sqlite3_stmt *stmt, const char *doing,
                       int32_t *held, outbox_error *err)
{
    int rc = ob_sqlite_run(st, stmt, doing, err);

    *held = rc == OUTBOX_OK && sqlite3_changes(st->db) == 1;
    return rc;
}

static int cursor_read(ob_sqlite *st, int64_t sub, outbox_lane *lane,
                       outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_CURSOR, &rc, err);

    if (stmt == NULL)
        return rc;
    memset(&lane->cursor, 0, sizeof lane->cursor);
    sqlite3_bind_int64(stmt, 1, sub);
    sqlite3_bind_int64(stmt, 2, lane->lane);
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        const uint8_t *anchor = blob16(stmt, 2);
        lane->token = sqlite3_column_int64(stmt, 0);
        lane->cursor.position = sqlite3_column_int64(stmt, 1);
        lane->crashes = sqlite3_column_int(stmt, 3);
        lane->on_trial = sqlite3_column_int(stmt, 4);
        if (anchor != NULL)
            memcpy(lane->cursor.id, anchor, 16);
    } else {
        rc = ob_sqlite_error(st, "read a cursor", err);
    }
    sqlite3_reset(stmt);
    return rc;
}

static int anchor_found(ob_sqlite *st, const outbox_cursor *c, bool *found,
                        outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_ANCHOR, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, c->position);
    sqlite3_bind_blob(stmt, 2, c->id, 16, SQLITE_STATIC);
    int step = sqlite3_step(stmt);
    *found = step == SQLITE_ROW;
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        rc = ob_sqlite_error(st, "look for an anchor", err);
    sqlite3_reset(stmt);
    return rc;
}

/* In the same transaction, so that no trim believes the old cursor. */
static int rewind_lane(ob_sqlite *st, int64_t sub, outbox_lane *lane,
                       outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_REWIND, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub);
    sqlite3_bind_int64(stmt, 2, lane->lane);
    memset(&lane->cursor, 0, sizeof lane->cursor);
    lane->rescan = 1;
    return ob_sqlite_run(st, stmt, "rewind a lane", err);
}

static int take_lane(ob_sqlite *st, int64_t sub, const uint8_t me[16],
                     outbox_lane *lane, outbox_error *err)
{
    bool found = true;
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_TAKE, &rc, err);

    if (stmt == NULL)
        return rc;
    lane->rescan = 0;
    sqlite3_bind_int64(stmt, 1, sub);
    sqlite3_bind_int64(stmt, 2, lane->lane);
    sqlite3_bind_blob(stmt, 3, me, 16, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 4, lane->token);
    sqlite3_bind_int64(stmt, 5, lane->beat);
    rc = lane_update(st, stmt, "take a lane", &lane->held, err);
    if (rc != OUTBOX_OK || !lane->held)
        return rc;
    OB_FAILPOINT("sqlite.acquire.mid");
    rc = cursor_read(st, sub, lane, err);
    if (rc == OUTBOX_OK && lane->cursor.position > 0)
        rc = anchor_found(st, &lane->cursor, &found, err);
    return rc == OUTBOX_OK && !found ? rewind_lane(st, sub, lane, err) : rc;
}

int ob_sqlite_acquire(outbox_store *s, int64_t sub, const uint8_t me[16],
                      outbox_lane *lanes, uint32_t n, outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int rc = ob_sqlite_begin(st, SQ_BEGIN, err);

    if (rc != OUTBOX_OK)
        return rc;
    for (uint32_t i = 0; i < n && rc == OUTBOX_OK; i++)
        rc = take_lane(st, sub, me, &lanes[i], err);
    return ob_sqlite_end(st, rc, err);
}

int ob_sqlite_leave(outbox_store *s, int64_t sub, const uint8_t me[16],
                    outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int rc = ob_sqlite_begin(st, SQ_BEGIN, err);

    if (rc != OUTBOX_OK)
        return rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_LEAVE, &rc, err);
    if (stmt != NULL) {
        sqlite3_bind_int64(stmt, 1, sub);
        sqlite3_bind_blob(stmt, 2, me, 16, SQLITE_STATIC);
        rc = ob_sqlite_run(st, stmt, "leave", err);
    }
    return ob_sqlite_end(st, rc, err);
}

/* ---- reading --------------------------------------------------------------------- */

/* A row whose id is not 16 bytes was not written by us; its id becomes zero,
 * and it is delivered. */
void ob_sqlite_row(sqlite3_stmt *stmt, outbox_row *row)
{
    const uint8_t *id = blob16(stmt, 1);

    memset(row, 0, sizeof *row);
    row->position = sqlite3_column_int64(stmt, 0);
    if (id != NULL)
        memcpy(row->id, id, 16);
    row->topic = text_at(stmt, 2);
    row->type = text_at(stmt, 3);
    row->key = text_at(stmt, 4);
    row->content_type = text_at(stmt, 5);
    row->headers = text_at(stmt, 6);
    row->payload.ptr = sqlite3_column_blob(stmt, 7);
    row->payload.len = (size_t)sqlite3_column_bytes(stmt, 7);
    row->published_ms = sqlite3_column_int64(stmt, 8);
    row->expires_ms = sqlite3_column_int64(stmt, 9);
}

static const outbox_cursor *lowest(const outbox_lane *lanes, uint32_t n)
{
    const outbox_cursor *low = &lanes[0].cursor;

    for (uint32_t i = 1; i < n; i++) {
        if (lanes[i].cursor.position < low->position)
            low = &lanes[i].cursor;
    }
    return low;
}

/* The first row must be the one where the last read ended. */
static int anchor_step(ob_sqlite *st, sqlite3_stmt *stmt,
                       const outbox_cursor *from, outbox_error *err)
{
    if (from->position == 0)
        return OUTBOX_OK;
    int step = sqlite3_step(stmt);
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        return ob_sqlite_error(st, "read the log", err);
    const uint8_t *id = step == SQLITE_ROW ? blob16(stmt, 1) : NULL;
    if (step == SQLITE_ROW && sqlite3_column_int64(stmt, 0) == from->position
        && id != NULL && memcmp(id, from->id, 16) == 0)
        return OUTBOX_OK;
    return outbox_error_set(err, OUTBOX_ESTALE,
                            "the event at position %lld is not the one that "
                            "was read there: the log was emptied or restored",
                            (long long)from->position);
}

static int rows_read(ob_sqlite *st, sqlite3_stmt *stmt, int limit,
                     outbox_cursor *at, outbox_sink *sink, void *arg,
                     outbox_error *err)
{
    outbox_row row;
    int n = 0, step = SQLITE_ROW;

    while (n < limit && (step = sqlite3_step(stmt)) == SQLITE_ROW) {
        ob_sqlite_row(stmt, &row);
        n++;
        if (sink(arg, &row) != 0)
            return n;
        at->position = row.position;
        memcpy(at->id, row.id, 16);
    }
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        return ob_sqlite_error(st, "read the log", err);
    return n;
}

/* Nothing new by others since the last time: it is synced already. */
static int make_durable(ob_sqlite *st, int64_t version, int rows,
                        outbox_error *err)
{
    if (rows == 0 || version == st->synced_version)
        return rows;
    int rc = ob_sqlite_sync(st, err);
    if (rc != OUTBOX_OK)
        return rc;
    st->synced_version = version;
    return rows;
}

int ob_sqlite_read(outbox_store *s, int64_t sub, outbox_lane *lanes,
                   uint32_t n, int limit, outbox_sink *sink, void *arg,
                   outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    outbox_cursor at = *lowest(lanes, n);
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_READ, &rc, err);

    (void)sub;
    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, at.position > 0 ? at.position : INT64_MIN);
    sqlite3_bind_int(stmt, 2, limit + 1);
    rc = anchor_step(st, stmt, &at, err);
    if (rc == OUTBOX_OK)
        rc = rows_read(st, stmt, limit, &at, sink, arg, err);
    int64_t version = rc > 0 ? ob_sqlite_data_version(st) : 0;
    sqlite3_reset(stmt);
    if (rc > 0)
        rc = make_durable(st, version, rc, err);
    for (uint32_t i = 0; i < n && rc > 0; i++) {
        if (lanes[i].cursor.position < at.position)
            lanes[i].cursor = at;
    }
    return rc;
}

static int parked_rows(ob_sqlite *st, sqlite3_stmt *stmt, uint64_t chain,
                       outbox_sink *sink, void *arg, outbox_error *err)
{
    outbox_row row;
    int n = 0, step;

    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        ob_sqlite_row(stmt, &row);
        row.chain = chain;
        row.lane = (uint32_t)(chain % st->lanes);
        row.seq = sqlite3_column_int64(stmt, 10);
        row.attempts = (uint32_t)sqlite3_column_int64(stmt, 11);
        row.delay_ms = sqlite3_column_int64(stmt, 12);
        if (sink(arg, &row) != 0)
            return n;
        n++;
    }
    return step == SQLITE_DONE ? n
                               : ob_sqlite_error(st, "read parked", err);
}

int ob_sqlite_parked(outbox_store *s, int64_t sub, uint64_t chain, int limit,
                     outbox_sink *sink, void *arg, outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_PARKED, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub);
    sqlite3_bind_int64(stmt, 2, (int64_t)(chain % st->lanes));
    sqlite3_bind_int64(stmt, 3, (int64_t)chain);
    sqlite3_bind_int(stmt, 4, limit);
    rc = parked_rows(st, stmt, chain, sink, arg, err);
    sqlite3_reset(stmt);
    return rc;
}

int ob_sqlite_blocked(outbox_store *s, int64_t sub, uint32_t lane,
                      outbox_sink *sink, void *arg, outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    outbox_row row = { .lane = lane };
    int rc, step;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_BLOCKED, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub);
    sqlite3_bind_int64(stmt, 2, lane);
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        row.chain = (uint64_t)sqlite3_column_int64(stmt, 0);
        row.seq = sqlite3_column_int64(stmt, 1);
        row.attempts = (uint32_t)sqlite3_column_int64(stmt, 2);
        row.delay_ms = sqlite3_column_int64(stmt, 3);
        if (sink(arg, &row) != 0) {
            rc = outbox_error_set(err, OUTBOX_ENOMEM, "out of memory");
            break;
        }
    }
    if (rc == OUTBOX_OK && step != SQLITE_DONE)
        rc = ob_sqlite_error(st, "read blocked chains", err);
    sqlite3_reset(stmt);
    return rc;
}

/* ---- saving ----------------------------------------------------------------------- */

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
    ob_sqlite_bind_bytes(stmt, 6, &anchor, false);
    sqlite3_bind_int(stmt, 7, lane->release);
    sqlite3_bind_int(stmt, 8, lane->on_trial);
    return lane_update(st, stmt, "save progress", &lane->held, err);
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
static void bind_row(sqlite3_stmt *stmt, int64_t sub, const outbox_row *row)
{
    outbox_bytes payload = row->payload;

    if (payload.ptr == NULL)
        payload.ptr = "";
    ob_sqlite_bind_bytes(stmt, 2, &row->topic, true);
    ob_sqlite_bind_bytes(stmt, 3, &row->type, true);
    ob_sqlite_bind_bytes(stmt, 4, &row->key, true);
    ob_sqlite_bind_bytes(stmt, 5, &row->content_type, true);
    ob_sqlite_bind_bytes(stmt, 6, &row->headers, true);
    ob_sqlite_bind_bytes(stmt, 7, &payload, false);
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
    bind_row(stmt, sub, row);
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
    bind_row(stmt, sub, &c->row);
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

/* ---- trials ---------------------------------------------------------------------- */

int ob_sqlite_trial(outbox_store *s, int64_t sub, const uint8_t me[16],
                    const outbox_lane *lane, int64_t position,
                    outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int starts = 0, rc = ob_sqlite_begin(st, SQ_BEGIN, err);

    if (rc != OUTBOX_OK)
        return rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_TRIAL, &rc, err);
    if (stmt != NULL) {
        sqlite3_bind_int64(stmt, 1, sub);
        sqlite3_bind_int64(stmt, 2, lane->lane);
        sqlite3_bind_blob(stmt, 3, me, 16, SQLITE_STATIC);
        sqlite3_bind_int64(stmt, 4, lane->token);
        sqlite3_bind_int64(stmt, 5, position);
        if (sqlite3_step(stmt) == SQLITE_ROW)
            starts = sqlite3_column_int(stmt, 0);
        rc = ob_sqlite_run(st, stmt, "note a trial", err);
    }
    if (rc == OUTBOX_OK && starts == 0)
        rc = outbox_error_set(err, OUTBOX_ESTALE, "a lease is lost");
    rc = ob_sqlite_end(st, rc, err);
    return rc == OUTBOX_OK ? starts : rc;
}

/* ---- scheduled events ---------------------------------------------------------------- */

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

static int limited(ob_sqlite *st, enum ob_sqlite_stmt which,
                        int64_t now_ms, int limit, outbox_error *err)
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
    int64_t due_ms, now_ms = ob_sqlite_now_ms(s);
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

/* ---- trimming and counting --------------------------------------------------------- */

static int anything_to_trim(ob_sqlite *st, outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_TRIM_ANY, &rc, err);

    if (stmt == NULL)
        return rc;
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
        rc = limited(st, SQ_TRIM_DEDUP,
                          ob_sqlite_now_ms(s) - DEDUP_KEEP_MS, limit, err);
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

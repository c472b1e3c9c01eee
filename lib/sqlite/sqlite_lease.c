/* SPDX-License-Identifier: MIT
 *
 * sqlite_lease.c - beats, lanes and trials.
 *
 * A lane's row is written with the token of its owner in the statement, or,
 * by a rival, with the token and beat that it saw standing still: nothing else
 * makes a lease (tests/contract: taking_compares_token_and_beat,
 * one_that_beats_is_not_robbed, crashes_are_counted_until_progress).
 */
#include "sqlite_store.h"

#include "failpoint.h"

const uint8_t *ob_sqlite_blob16(sqlite3_stmt *stmt, int column)
{
    const void *p = sqlite3_column_blob(stmt, column);

    return sqlite3_column_bytes(stmt, column) == 16 ? p : NULL;
}

int ob_sqlite_lane_update(ob_sqlite *st, sqlite3_stmt *stmt,
                          const char *doing, int32_t *held,
                          outbox_error *err)
{
    int rc = ob_sqlite_run(st, stmt, doing, err);

    *held = rc == OUTBOX_OK && sqlite3_changes(st->db) == 1;
    return rc;
}

/* ---- leases --------------------------------------------------------- */

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
        const uint8_t *owner = ob_sqlite_blob16(stmt, 1);
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
        const uint8_t *id = ob_sqlite_blob16(stmt, 0);
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
        const uint8_t *anchor = ob_sqlite_blob16(stmt, 2);
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
    rc = ob_sqlite_lane_update(st, stmt, "take a lane", &lane->held, err);
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

/* ---- trials --------------------------------------------------------- */

/* No row: the lease is lost.  A failure is not tried twice, or its second
 * try would look like that. */
static int trial_run(ob_sqlite *st, sqlite3_stmt *stmt, int *starts,
                     outbox_error *err)
{
    int rc = OUTBOX_OK, step = sqlite3_step(stmt);

    if (step == SQLITE_ROW) {
        *starts = sqlite3_column_int(stmt, 0);
        return ob_sqlite_run(st, stmt, "note a trial", err);
    }
    if (step != SQLITE_DONE)
        rc = ob_sqlite_error(st, "note a trial", err);
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return rc;
}

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
        rc = trial_run(st, stmt, &starts, err);
    }
    if (rc == OUTBOX_OK && starts == 0)
        rc = outbox_error_set(err, OUTBOX_ESTALE, "a lease is lost");
    rc = ob_sqlite_end(st, rc, err);
    return rc == OUTBOX_OK ? starts : rc;
}

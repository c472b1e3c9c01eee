/* SPDX-License-Identifier: MIT
 *
 * pg_lease.c - beats, lanes and trials.
 *
 * Invariants, and the tests that show them:
 *  1. A lane's row is written with the token of its owner in the statement,
 *     or, by a rival, with the token and beat that it saw standing still
 *     (tests/contract: taking_compares_token_and_beat,
 *     one_that_beats_is_not_robbed, an_owner_is_not_removed).
 *  2. A rival first locks the row and then reads the cursor, in a statement of
 *     its own: what the last owner saved under that lock is visible to it
 *     (tests/pg/storm).
 *  3. What is known of a cursor is what the table says, and starts are counted
 *     until there is progress (tests/contract:
 *     crashes_are_counted_until_progress; tests/pg/restore.c:
 *     an_older_copy_is_put_back_and_grows, mutant cursor-kept).
 */
#include "pg_store.h"

#include "failpoint.h"

/* ---- beats ---------------------------------------------------------- */

static int beat_note(ob_pg *st, int64_t sub, const uint8_t me[16], int want,
                      outbox_error *err)
{
    ob_pg_params p = { 0 };

    ob_pg_int8(&p, sub);
    ob_pg_uuid(&p, me);
    ob_pg_int4(&p, want);
    int64_t rc = ob_pg_do(st, PG_BEAT, &p, "beat", err);
    return rc < 0 ? (int)rc : OUTBOX_OK;
}

enum { LOOK_SUB, LOOK_LANE, LOOK_RELAY };

static void lane_seen_row(const PGresult *res, int i, outbox_lane *lane)
{
    lane->lane = (uint32_t)ob_pg_get_int8(res, i, 1);
    lane->token = ob_pg_get_int8(res, i, 2);
    lane->beat = ob_pg_get_int8(res, i, 3);
    ob_pg_get_uuid(res, i, 4, lane->owner);
}

static void relay_seen_row(const PGresult *res, int i, outbox_beat *relay)
{
    memset(relay, 0, sizeof *relay);
    relay->beat = ob_pg_get_int8(res, i, 1);
    relay->want = (uint32_t)ob_pg_get_int8(res, i, 2);
    ob_pg_get_uuid(res, i, 4, relay->id);
}

/* The number of relays. */
static int look_rows(const PGresult *res, outbox_subscription *sub,
                     outbox_lane *lanes, uint32_t n_lanes,
                     outbox_beat *relays, outbox_error *err)
{
    uint32_t seen = 0, known = 0;
    int n = 0;

    for (int i = 0; i < PQntuples(res); i++) {
        switch (ob_pg_get_int(res, i, 0)) {
        case LOOK_SUB:
            sub->generation = ob_pg_get_int8(res, i, 1);
            sub->paused = ob_pg_get_int8(res, i, 2) != 0;
            known++;
            break;
        case LOOK_LANE:
            if (seen < n_lanes)
                lane_seen_row(res, i, &lanes[seen]);
            if (seen >= n_lanes || lanes[seen].lane == seen)
                seen++;
            break;
        default:
            relay_seen_row(res, i, &relays[n++]);
        }
    }
    if (known == 0)
        return outbox_error_set(err, OUTBOX_ENOENT,
                                "the subscription %.100s was removed",
                                sub->name);
    if (seen != n_lanes)
        return outbox_error_set(err, OUTBOX_ESCHEMA,
                                "the subscription has not the %u lanes that "
                                "it should", (unsigned)n_lanes);
    return n;
}

int ob_pg_beat(outbox_store *s, outbox_subscription *sub,
               const uint8_t me[16], int want, outbox_lane *lanes,
               uint32_t n_lanes, outbox_beat *relays, int max,
               outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    ob_pg_params p = { 0 };
    int rc = ob_pg_alone(st, err);

    if (rc == OUTBOX_OK && want >= 0)
        rc = beat_note(st, sub->sub, me, want, err);
    if (rc != OUTBOX_OK)
        return rc;
    ob_pg_int8(&p, sub->sub);
    ob_pg_int4(&p, max);
    PGresult *res = ob_pg_run(st, PG_LOOK, &p, "read the lanes", &rc, err);
    if (res == NULL)
        return rc;
    rc = look_rows(res, sub, lanes, n_lanes, relays, err);
    PQclear(res);
    return rc;
}

/* ---- taking --------------------------------------------------------- */

/* The one that column 0 names: it was asked for. */
static outbox_lane *lane_of(outbox_lane *lanes, uint32_t n,
                            const PGresult *res, int row)
{
    uint32_t lane = (uint32_t)ob_pg_get_int(res, row, 0), i = 0;

    while (i + 1 < n && lanes[i].lane != lane)
        i++;
    return &lanes[i];
}

/* Which of them are to be had, with their rows locked. */
static int lanes_lock(ob_pg *st, int64_t sub, const uint8_t me[16],
                      outbox_lane *lanes, uint32_t n, outbox_error *err)
{
    ob_pg_array lane = { 0 }, token = { 0 }, beat = { 0 };
    ob_pg_params p = { 0 };
    int rc;

    ob_pg_array_begin(&lane, OB_PG_INT2);
    ob_pg_array_begin(&token, OB_PG_INT8);
    ob_pg_array_begin(&beat, OB_PG_INT8);
    for (uint32_t i = 0; i < n; i++) {
        ob_pg_array_int(st, &lane, lanes[i].lane);
        ob_pg_array_int(st, &token, lanes[i].token);
        ob_pg_array_int(st, &beat, lanes[i].beat);
        lanes[i].held = lanes[i].rescan = 0;
    }
    ob_pg_int8(&p, sub);
    ob_pg_uuid(&p, me);
    PGresult *res = NULL;
    if ((rc = ob_pg_param_array(st, &p, &lane, err)) == OUTBOX_OK &&
        (rc = ob_pg_param_array(st, &p, &token, err)) == OUTBOX_OK &&
        (rc = ob_pg_param_array(st, &p, &beat, err)) == OUTBOX_OK)
        res = ob_pg_run(st, PG_LOCK, &p, "lock lanes", &rc, err);
    for (int i = 0; res != NULL && i < PQntuples(res); i++)
        lane_of(lanes, n, res, i)->held = 1;
    rc = res != NULL ? PQntuples(res) : rc;
    PQclear(res);
    ob_pg_array_free(st, &lane);
    ob_pg_array_free(st, &token);
    ob_pg_array_free(st, &beat);
    return rc;
}

static void lane_taken_row(const PGresult *res, int i, outbox_lane *lane)
{
    memset(&lane->cursor, 0, sizeof lane->cursor);
    lane->token = ob_pg_get_int8(res, i, 1);
    lane->cursor.window = ob_pg_get_int8(res, i, 2);
    lane->cursor.position = ob_pg_get_int8(res, i, 3);
    lane->crashes = ob_pg_get_int(res, i, 4);
    lane->on_trial = ob_pg_get_bool(res, i, 5);
}

static int lanes_take(ob_pg *st, int64_t sub, const uint8_t me[16],
                      outbox_lane *lanes, uint32_t n, outbox_error *err)
{
    ob_pg_array lane = { 0 };
    ob_pg_params p = { 0 };
    PGresult *res = NULL;

    ob_pg_array_begin(&lane, OB_PG_INT2);
    for (uint32_t i = 0; i < n; i++) {
        if (lanes[i].held)
            ob_pg_array_int(st, &lane, lanes[i].lane);
    }
    ob_pg_int8(&p, sub);
    ob_pg_uuid(&p, me);
    int rc = ob_pg_param_array(st, &p, &lane, err);
    if (rc == OUTBOX_OK)
        res = ob_pg_run(st, PG_TAKE, &p, "take lanes", &rc, err);
    for (int i = 0; res != NULL && i < PQntuples(res); i++)
        lane_taken_row(res, i, lane_of(lanes, n, res, i));
    PQclear(res);
    ob_pg_array_free(st, &lane);
    return rc;
}

/* A cursor in a window that is not there: the log is not the one that was
 * read.  In the same transaction, so that no trim believes the old one. */
static int lanes_rewind(ob_pg *st, int64_t sub, outbox_lane *lanes,
                        uint32_t n, outbox_error *err)
{
    int64_t rc = ob_pg_windows_look(st, err);

    for (uint32_t i = 0; i < n && rc >= 0; i++) {
        if (!lanes[i].held || ob_pg_windows_have(st, &lanes[i].cursor))
            continue;
        ob_pg_params p = { 0 };
        ob_pg_int8(&p, sub);
        ob_pg_int2(&p, (int)lanes[i].lane);
        rc = ob_pg_do(st, PG_REWIND, &p, "rewind a lane", err);
        memset(&lanes[i].cursor, 0, sizeof lanes[i].cursor);
        lanes[i].rescan = 1;
    }
    return rc < 0 ? (int)rc : OUTBOX_OK;
}

int ob_pg_acquire(outbox_store *s, int64_t sub, const uint8_t me[16],
                  outbox_lane *lanes, uint32_t n, outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    int rc = ob_pg_begin(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    rc = lanes_lock(st, sub, me, lanes, n, err);
    if (rc > 0)
        rc = lanes_take(st, sub, me, lanes, n, err);
    OB_FAILPOINT("pg.acquire.mid");
    if (rc == OUTBOX_OK)
        rc = lanes_rewind(st, sub, lanes, n, err);
    return ob_pg_end(st, rc, err);
}

int ob_pg_leave(outbox_store *s, int64_t sub, const uint8_t me[16],
                outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    ob_pg_params p = { 0 };

    int64_t rc = ob_pg_alone(st, err);

    if (rc != OUTBOX_OK)
        return (int)rc;
    ob_pg_disarm(st);
    ob_pg_int8(&p, sub);
    ob_pg_uuid(&p, me);
    rc = ob_pg_do(st, PG_LEAVE, &p, "leave", err);
    return rc < 0 ? (int)rc : OUTBOX_OK;
}

/* ---- trials --------------------------------------------------------- */

int ob_pg_trial(outbox_store *s, int64_t sub, const uint8_t me[16],
                const outbox_lane *lane, int64_t position,
                outbox_error *err)
{
    ob_pg_params p = { 0 };
    int rc = ob_pg_alone((ob_pg *)s, err);

    if (rc != OUTBOX_OK)
        return rc;
    ob_pg_int8(&p, sub);
    ob_pg_int2(&p, (int)lane->lane);
    ob_pg_uuid(&p, me);
    ob_pg_int8(&p, lane->token);
    ob_pg_int8(&p, position);
    PGresult *res = ob_pg_run((ob_pg *)s, PG_TRIAL, &p, "note a trial", &rc,
                              err);
    if (res == NULL)
        return rc;
    rc = PQntuples(res) == 1
       ? ob_pg_get_int(res, 0, 0)
       : outbox_error_set(err, OUTBOX_ESTALE, "a lease is lost");
    PQclear(res);
    return rc;
}

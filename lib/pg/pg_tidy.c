/* SPDX-License-Identifier: MIT
 *
 * pg_tidy.c - what a relay does beside delivering: scheduled events into the
 * log, old events out of it, and counting.
 *
 * The log is a ring of segments.  One is emptied, by TRUNCATE, when every
 * event in it is past every cursor and old enough, which is asked again when
 * its lock is held: then nobody is writing into it.  Locks are never waited
 * for: behind one that waits, publishers would queue.  One that was refused is
 * not tried again at once, for each time is a line in the server's log.  The
 * log of cursors has two segments, and what counts is carried from one to the
 * other.
 *
 * TRUNCATE empties a segment for older snapshots, too.  So the cursors are
 * only read in statements whose snapshot is taken after their locks, as it
 * is in READ COMMITTED.
 *
 * Invariants, and the tests that show them (tests/pg/trim.c, if no other is
 * named):
 *  1. A segment is emptied when every cursor is past all of it, which is seen
 *     under its lock (the_slowest_subscription_keeps_it,
 *     what_is_in_flight_keeps_it, committed_between_the_look_and_the_lock;
 *     mutant trim-without-a-second-look).
 *  2. Nobody waits for one who trims, or he for anybody
 *     (an_open_transaction_keeps_its_segment).
 *  3. A rotation of the log of cursors keeps the newest of each lane
 *     (cursors_survive_their_rotation).
 *  4. What is due goes into the log once, in the order of its times, and with
 *     its row in one transaction (tests/contract: two_relays_move_it_once,
 *     in_the_order_of_their_times, it_survives_a_crash_when_it_is_due).
 *  5. A dedup_key is remembered for a week (tests/contract:
 *     keys_are_remembered_for_a_week).
 */
#include "pg_window.h"

#include "failpoint.h"

#include <stdio.h>

enum { SEGMENT_BYTES = 64 << 20, ACK_BYTES = 1 << 20, TIDY_US = 200000,
       LOCK_AGAIN_US = 10000000,
       KEY_PROMOTE = 2, KEY_TIDY = 3, SEGMENT_OLD_MS = 3600000,
       COUNT_MOST = 10000 };

/* ---- scheduled events ----------------------------------------------- */

static int due_next(ob_pg *st, int64_t *due_ms, int64_t *now_ms,
                    outbox_error *err)
{
    int rc;
    PGresult *res = ob_pg_run(st, PG_NEXT_DUE, NULL,
                              "look for scheduled events", &rc, err);

    if (res == NULL)
        return rc;
    *due_ms = ob_pg_get_int8(res, 0, 0);
    *now_ms = ob_pg_get_int8(res, 0, 1);
    PQclear(res);
    return OUTBOX_OK;
}

int ob_pg_promote(outbox_store *s, int limit, int64_t *next_ms,
                  outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    int64_t due_ms = -1, now_ms = 0, moved = 0;
    ob_pg_params p = { 0 };
    int rc = ob_pg_alone(st, err);

    if (rc == OUTBOX_OK)
        rc = due_next(st, &due_ms, &now_ms, err);
    if (rc == OUTBOX_OK && due_ms >= 0 && due_ms <= now_ms) {
        ob_pg_int4(&p, limit);
        ob_pg_int8(&p, st->doorbell ^ KEY_PROMOTE);
        moved = ob_pg_do(st, PG_PROMOTE, &p, "move scheduled events", err);
        rc = moved < 0 ? (int)moved
                       : due_next(st, &due_ms, &now_ms, err);
    }
    if (rc != OUTBOX_OK)
        return rc;
    *next_ms = due_ms < 0 ? -1 : due_ms > now_ms ? due_ms - now_ms : 0;
    return (int)moved;
}

/* ---- segments ------------------------------------------------------- */

/* True: everything in segment %1$d is past every lane, and old enough.  Both
 * are asked of the index, for a segment can be long.  Of each transaction the
 * newest event is looked at, from the newest transaction down to those that
 * had ended when a tick was taken: their events are older than the tick.  So
 * no more is left than its own transaction and those that ran beside it.  Of
 * some ticks, for a transaction may look with an old snapshot. */
#define TIDY_LOG "\"outbox\".log_%1$d"
#define TIDY_NEWEST "ORDER BY xid DESC, position DESC LIMIT 1"
static const char over_sql[] =
    "WITH RECURSIVE p AS MATERIALIZED (SELECT w.hi, k.keep_ms, " PG_NOW_MS
    " - k.keep_ms AS young FROM " PG_PASSED " p"
    " JOIN \"outbox\".\"window\" w ON w.n = p.n CROSS JOIN"
    " (SELECT max(keep_ms) AS keep_ms FROM \"outbox\".subscription) k),"
    " t AS MATERIALIZED (SELECT * FROM (SELECT xid, tick FROM " TIDY_LOG
    " WHERE tick IS NOT NULL ORDER BY position DESC LIMIT 20) t"
    " ORDER BY pg_snapshot_xmax(tick) DESC LIMIT 1),"
    " r AS ((SELECT xid, published_ms FROM " TIDY_LOG " " TIDY_NEWEST ")"
    " UNION ALL SELECT n.* FROM r, LATERAL (SELECT xid, published_ms FROM "
    TIDY_LOG " WHERE xid < r.xid AND xid >= coalesce((SELECT"
    " pg_snapshot_xmax(tick) FROM t), '0') " TIDY_NEWEST ") n"
    " WHERE r.published_ms <= (SELECT young FROM p)),"
    " b AS (SELECT n.published_ms FROM (SELECT xid FROM t UNION"
    " SELECT pg_snapshot_xip(tick) FROM t) x, LATERAL (SELECT published_ms"
    " FROM " TIDY_LOG " l WHERE l.xid = x.xid " TIDY_NEWEST ") n)"
    " SELECT p.hi IS NOT NULL AND NOT EXISTS (SELECT FROM " TIDY_LOG
    " WHERE xid >= pg_snapshot_xmax(p.hi)) AND NOT EXISTS (SELECT FROM "
    TIDY_LOG " WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(p.hi))))"
    " AND (p.keep_ms = 0 OR NOT EXISTS (SELECT FROM r"
    " WHERE published_ms > p.young) AND NOT EXISTS (SELECT FROM b"
    " WHERE published_ms > p.young)) FROM p";

static int segment_over(ob_pg *st, int seg, bool *over, outbox_error *err)
{
    char sql[sizeof over_sql + 60];     /* for any int, six times */
    int rc;

    snprintf(sql, sizeof sql, over_sql, seg);
    PGresult *res = ob_pg_once(st, sql, NULL, "trim", &rc, err);
    if (res == NULL)
        return rc;
    *over = PQntuples(res) == 1 && ob_pg_get_bool(res, 0, 0);
    PQclear(res);
    return OUTBOX_OK;
}

static int segment_empty(ob_pg *st, int seg, bool *over, outbox_error *err)
{
    char lock[200], truncate[80];

    snprintf(lock, sizeof lock,
             "LOCK TABLE \"outbox\".subscription IN SHARE MODE NOWAIT;"
             "LOCK TABLE \"outbox\".log_%d IN ACCESS EXCLUSIVE MODE NOWAIT",
             seg);
    snprintf(truncate, sizeof truncate, "TRUNCATE \"outbox\".log_%d", seg);
    int rc = ob_pg_exec(st, lock, "trim", err);
    if (rc == OUTBOX_OK)
        rc = segment_over(st, seg, over, err);
    OB_FAILPOINT("pg.trim.mid");
    if (rc == OUTBOX_OK && *over)
        rc = ob_pg_exec(st, truncate, "trim", err);
    return rc;
}

/* 1: it was emptied. */
static int segment_trim(ob_pg *st, int seg, outbox_error *err)
{
    bool over = false;
    int rc = OUTBOX_OK;

    if (outbox_monotonic_us() >= st->trim_us[seg])
        rc = segment_over(st, seg, &over, err);
    if (rc != OUTBOX_OK || !over)
        return rc;
    OB_FAILPOINT("pg.trim.lock");
    rc = ob_pg_begin(st, err);
    if (rc != OUTBOX_OK)
        return rc;
    rc = ob_pg_end(st, segment_empty(st, seg, &over, err), err);
    if (rc == OUTBOX_EBUSY) {           /* somebody writes: another time */
        st->trim_us[seg] = outbox_monotonic_us() + LOCK_AGAIN_US;
        return OUTBOX_OK;
    }
    return rc == OUTBOX_OK ? over : rc;
}

/* Is its first row, which is one of the oldest, from long ago? */
static int segment_old(ob_pg *st, int seg, bool *old, outbox_error *err)
{
    char sql[160];
    int rc;

    snprintf(sql, sizeof sql, "SELECT published_ms FROM \"outbox\".log_%d"
             " LIMIT 1", seg);
    PGresult *res = ob_pg_once(st, sql, NULL, "trim", &rc, err);
    if (res == NULL)
        return rc;
    *old = PQntuples(res) == 1 &&
           ob_pg_get_int8(res, 0, 0) < ob_pg_now_ms(&st->base) -
                                       SEGMENT_OLD_MS;
    PQclear(res);
    return OUTBOX_OK;
}

static int segment_next(ob_pg *st, int seg, int64_t bytes, outbox_error *err)
{
    bool full = bytes >= SEGMENT_BYTES;
    ob_pg_params p = { 0 };
    int rc = OUTBOX_OK;

    if (!full && bytes > 0)
        rc = segment_old(st, seg, &full, err);
    if (rc != OUTBOX_OK || !full)
        return rc;
    ob_pg_int2(&p, seg);
    ob_pg_int2(&p, (seg + 1) % OB_PG_SEGMENTS);
    int64_t n = ob_pg_do(st, PG_SEGMENT, &p, "change the segment", err);
    return n < 0 ? (int)n : OUTBOX_OK;
}

/* ---- cursors -------------------------------------------------------- */

/* What counts is carried over while nobody can save, and the lock is there
 * already: whoever reads cursors later waits, and sees the new ones. */
static int ack_carry(ob_pg *st, int seg, outbox_error *err)
{
    ob_pg_params key = { 0 }, p = { 0 };
    char lock[160], truncate[80];
    int rc;

    ob_pg_int8(&key, st->doorbell ^ KEY_TIDY);
    PGresult *res = ob_pg_run(st, PG_TRY_LOCK, &key, "tidy up", &rc, err);
    if (res == NULL)
        return rc;
    bool got = ob_pg_get_bool(res, 0, 0);
    PQclear(res);
    if (!got)
        return outbox_error_set(err, OUTBOX_EBUSY, "another relay tidies up");
    snprintf(lock, sizeof lock,
             "LOCK TABLE \"outbox\".ack_%d IN ACCESS EXCLUSIVE MODE NOWAIT",
             seg);
    snprintf(truncate, sizeof truncate, "TRUNCATE \"outbox\".ack_%d", seg);
    rc = ob_pg_exec(st, lock, "tidy up", err);
    int64_t n = rc;
    if (n >= 0)
        n = ob_pg_do(st, PG_LOCK_LANES, NULL, "tidy up", err);
    if (n >= 0)
        n = ob_pg_do(st, PG_CARRY, NULL, "tidy up", err);
    if (n >= 0)
        n = ob_pg_exec(st, truncate, "tidy up", err);
    ob_pg_int2(&p, seg);
    if (n >= 0)
        n = ob_pg_do(st, PG_ACK_SEGMENT, &p, "tidy up", err);
    return n < 0 ? (int)n : OUTBOX_OK;
}

static int ack_rotate(ob_pg *st, int seg, outbox_error *err)
{
    int rc = ob_pg_begin(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    rc = ob_pg_end(st, ack_carry(st, seg, err), err);
    return rc == OUTBOX_EBUSY ? OUTBOX_OK : rc;
}

/* ---- together ------------------------------------------------------- */

typedef struct tidy_state {
    int     seg, ack_seg;
    bool    passed;             /* there is something that all are past */
    int64_t log[OB_PG_SEGMENTS], ack[2];        /* bytes */
} tidy_state;

static int tidy_look(ob_pg *st, tidy_state *t, outbox_error *err)
{
    int rc;
    PGresult *res = ob_pg_run(st, PG_TIDY, NULL, "trim", &rc, err);

    if (res == NULL)
        return rc;
    t->seg = ob_pg_get_int(res, 0, 0);
    t->ack_seg = ob_pg_get_int(res, 0, 1);
    t->passed = !PQgetisnull(res, 0, 2) && ob_pg_get_int8(res, 0, 2) > 0;
    for (int i = 0; i < OB_PG_SEGMENTS; i++)
        t->log[i] = ob_pg_get_int8(res, 0, 3 + i);
    for (int i = 0; i < 2; i++)
        t->ack[i] = ob_pg_get_int8(res, 0, 3 + OB_PG_SEGMENTS + i);
    PQclear(res);
    return OUTBOX_OK;
}

static int log_tidy(ob_pg *st, const tidy_state *t, outbox_error *err)
{
    int next = (t->seg + 1) % OB_PG_SEGMENTS, emptied = 0, rc = OUTBOX_OK;

    for (int i = 0; i < OB_PG_SEGMENTS && rc == OUTBOX_OK; i++) {
        if (i == t->seg || t->log[i] == 0 || !t->passed)
            continue;
        rc = segment_trim(st, i, err);
        emptied += rc > 0;
        rc = rc > 0 ? OUTBOX_OK : rc;
    }
    if (rc == OUTBOX_OK && t->log[next] == 0)
        rc = segment_next(st, t->seg, t->log[t->seg], err);
    return rc < 0 ? rc : emptied;
}

static int small_things(ob_pg *st, int limit, outbox_error *err)
{
    ob_pg_params p = { 0 };
    int64_t n = ob_pg_do(st, PG_DROP_WINDOWS, NULL, "trim", err);

    ob_pg_int8(&p, OB_DEDUP_KEEP_MS);
    ob_pg_int4(&p, limit);
    if (n >= 0)
        n = ob_pg_do(st, PG_TRIM_DEDUP, &p, "trim", err);
    return n < 0 ? (int)n : OUTBOX_OK;
}

/* By segments: how many were emptied. */
int ob_pg_trim(outbox_store *s, int limit, outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    int64_t now_us = outbox_monotonic_us();
    tidy_state t = { 0 };

    if (now_us < st->rotate_us)
        return 0;
    st->rotate_us = now_us + TIDY_US;
    int emptied = 0, rc = ob_pg_alone(st, err);
    if (rc == OUTBOX_OK)
        rc = tidy_look(st, &t, err);
    if (rc == OUTBOX_OK)
        emptied = rc = log_tidy(st, &t, err);
    if (rc >= 0 && t.ack[t.ack_seg] >= ACK_BYTES)
        rc = ack_rotate(st, 1 - t.ack_seg, err);
    if (rc >= 0 && t.passed)
        rc = small_things(st, limit, err);
    return rc < 0 ? rc : emptied;
}

int ob_pg_count(outbox_store *s, int64_t sub, outbox_counts *out,
                outbox_error *err)
{
    ob_pg_params p = { 0 };
    int rc;

    ob_pg_int8(&p, sub);
    ob_pg_int8(&p, COUNT_MOST);
    PGresult *res = ob_pg_run((ob_pg *)s, PG_COUNT, &p, "count", &rc, err);
    if (res == NULL)
        return rc;
    out->parked = ob_pg_get_int8(res, 0, 0);
    out->dead = ob_pg_get_int8(res, 0, 1);
    out->behind = ob_pg_get_int8(res, 0, 2);
    out->oldest_ms = ob_pg_get_int8(res, 0, 3);
    out->scheduled = ob_pg_get_int8(res, 0, 4);
    out->paused = ob_pg_get_bool(res, 0, 5);
    out->holds_log = ob_pg_get_bool(res, 0, 6);
    PQclear(res);
    return OUTBOX_OK;
}

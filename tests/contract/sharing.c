/* SPDX-License-Identifier: MIT
 *
 * sharing.c - any number of relays of one subscription: even shares of the
 * lanes, take-over after lease_ms and not before, and a fence behind those
 * that slept.
 */
#include "kit.h"

#include <core.h>

#include "memory/memory_store.h"

#include <stdio.h>
#include <string.h>

enum { MOST = 6, LANES = 16, LEASE_MS = 4000, LOOK_MS = 250, KEYS = 200 };

typedef struct crowd {
    world           w;
    int             n;
    sink            s[MOST];
    plan            p[MOST];
    vclock          clock[MOST];        /* of each: they need not agree */
    sut_link        link[MOST];
    outbox_relay_t *r[MOST];
    uint32_t        max_lanes[MOST], settle_ms[MOST];
    bool            hangs[MOST];        /* it takes no turn */
    bool            frozen[MOST];       /* nor does its clock move on */
    long            next;               /* number to publish */
} crowd;

static void crowd_join(crowd *c, int i)
{
    outbox_relay_options opt = relay_options(&c->w);

    opt.clock_arg = &c->clock[i];
    opt.lease_ms = LEASE_MS;
    opt.settle_ms = c->settle_ms[i];
    opt.max_lanes = c->max_lanes[i];
    opt.retry_max_ms = 400;
    opt.flush_ms = 10;
    c->r[i] = relay_open(&c->w, &c->s[i], &opt, &c->link[i]);
}

static void crowd_open(crowd *c, int which, int n)
{
    memset(c, 0, sizeof *c);
    world_open(&c->w, which);
    c->n = n;
    for (int i = 0; i < MOST; i++) {
        sink_init(&c->s[i], NULL, NULL);
        plan_use(&c->s[i], &c->p[i]);
        c->clock[i].ms = 1000000 * (i + 1);
    }
}

static void crowd_run(crowd *c, int64_t ms)
{
    for (int64_t at = 0; at < ms; at += 50) {
        for (int i = 0; i < c->n; i++) {
            if (c->frozen[i])
                continue;
            vclock_advance(&c->clock[i], 50);
            if (c->r[i] != NULL && !c->hangs[i])
                steps(c->r[i], 2);
        }
    }
}

static void crowd_close(crowd *c)
{
    for (int i = 0; i < MOST; i++) {
        if (c->r[i] != NULL)
            relay_drop(c->r[i]);
        sink_release(&c->s[i]);
    }
    world_close(&c->w);
}

/* One event on each key; every lane has some. */
static void crowd_publish(crowd *c)
{
    outbox_error err;

    ck_ok(c->w.sut->begin(c->w.app));
    for (long i = 0; i < KEYS; i++)
        ck_ok(publish_number(c->w.ob, key_of(i), c->next++ % PLAN_SIZE, &err));
    ck_ok(c->w.sut->commit(c->w.app));
}

static int lane_of(const char *key)
{
    return (int)(outbox_hash(key, strlen(key)) % LANES);
}

static void forget_all(crowd *c)
{
    for (int i = 0; i < c->n; i++)
        sink_forget(&c->s[i]);
}

static int lanes_served(crowd *c, int i)
{
    bool seen[LANES] = { false };
    int n = 0;

    for (size_t k = 0; k < sink_count(&c->s[i]); k++) {
        bool *lane = &seen[lane_of(sink_at(&c->s[i], k)->event.key)];
        n += !*lane;
        *lane = true;
    }
    return n;
}

static size_t all_sent(crowd *c)
{
    size_t n = 0;

    for (int i = 0; i < c->n; i++)
        n += sink_count(&c->s[i]);
    return n;
}

/* Publish, deliver, and look who served how many lanes; each event comes
 * once. */
static void measure(crowd *c, int shares[MOST])
{
    forget_all(c);
    crowd_publish(c);
    crowd_run(c, 200);
    ck_assert_uint_eq(all_sent(c), KEYS);
    for (int i = 0; i < c->n; i++)
        shares[i] = lanes_served(c, i);
}

/* n relays have 16 / n lanes each, some of them one more. */
static void shared_evenly(int which, int n)
{
    crowd c;
    int shares[MOST], sum = 0;

    crowd_open(&c, which, n);
    for (int i = 0; i < n; i++)
        crowd_join(&c, i);
    crowd_run(&c, 2 * LEASE_MS);
    measure(&c, shares);
    for (int i = 0; i < n; i++) {
        ck_assert_int_ge(shares[i], LANES / n);
        ck_assert_int_le(shares[i], (LANES + n - 1) / n);
        ck_assert_uint_eq(stats_of(c.r[i]).leases_lost, 0);
        ck_assert_int_eq(stats_of(c.r[i]).leader, 1);
        sum += shares[i];
    }
    ck_assert_int_eq(sum, LANES);
    crowd_close(&c);
}

START_TEST(two_three_and_five_share_evenly)
{
    shared_evenly(_i, 2);
    shared_evenly(_i, 3);
    shared_evenly(_i, 5);
}
END_TEST

/* One wants two lanes at most, one five: the third has the rest. */
START_TEST(those_that_want_less_leave_the_rest)
{
    crowd c;
    int shares[MOST];

    crowd_open(&c, _i, 3);
    c.max_lanes[0] = 2;
    c.max_lanes[1] = 5;
    for (int i = 0; i < 3; i++)
        crowd_join(&c, i);
    crowd_run(&c, 2 * LEASE_MS);
    measure(&c, shares);
    ck_assert_int_eq(shares[0], 2);
    ck_assert_int_eq(shares[1], 5);
    ck_assert_int_eq(shares[2], 9);
    crowd_close(&c);
}
END_TEST

/* Together they want less than all: the rest waits for others. */
START_TEST(what_nobody_wants_waits)
{
    crowd c;

    crowd_open(&c, _i, 3);
    c.max_lanes[0] = c.max_lanes[1] = 3;
    crowd_join(&c, 0);
    crowd_join(&c, 1);
    crowd_publish(&c);
    crowd_run(&c, 3 * LEASE_MS);
    ck_assert_int_eq(lanes_served(&c, 0), 3);
    ck_assert_int_eq(lanes_served(&c, 1), 3);
    ck_assert_uint_lt(all_sent(&c), KEYS);
    crowd_join(&c, 2);
    crowd_run(&c, LEASE_MS);
    ck_assert_int_eq(lanes_served(&c, 2), 10);
    ck_assert_uint_eq(all_sent(&c), KEYS);
    crowd_close(&c);
}
END_TEST

/* One after the other they come, and then they go: nobody ever waits for a
 * lease, and nothing is sent twice. */
START_TEST(coming_and_going)
{
    crowd c;
    outbox_error err;
    int shares[MOST];

    crowd_open(&c, _i, 5);
    for (int i = 0; i < 5; i++) {
        crowd_join(&c, i);
        crowd_run(&c, LEASE_MS);
        measure(&c, shares);
        for (int k = 0; k <= i; k++)
            ck_assert_int_ge(shares[k], LANES / (i + 1));
    }
    for (int i = 0; i < 4; i++) {
        ck_ok(outbox_relay_stop(c.r[i], 1000, &err));
        outbox_relay_free(c.r[i]);
        c.r[i] = NULL;
        crowd_run(&c, 2 * LOOK_MS);
        measure(&c, shares);
        for (int k = i + 1; k < 5; k++)
            ck_assert_int_ge(shares[k], LANES / (4 - i));
    }
    ck_assert_uint_eq(stats_of(c.r[4]).leases_lost, 0);
    ck_assert_int_eq(c.w.sut->count(c.w.db, SUT_RELAYS), 1);
    crowd_close(&c);
}
END_TEST

/* With events in flight when another one comes: the lane changes hands when
 * they are settled, and none of them is sent by both. */
START_TEST(a_lane_in_flight_changes_hands_when_settled)
{
    crowd c;

    crowd_open(&c, _i, 2);
    memset(c.p[0].pending, 1, sizeof c.p[0].pending);
    crowd_join(&c, 0);
    crowd_publish(&c);
    crowd_run(&c, 500);
    ck_assert_uint_eq(sink_count(&c.s[0]), KEYS);
    crowd_join(&c, 1);
    crowd_run(&c, 2 * LEASE_MS);
    crowd_publish(&c);
    crowd_run(&c, 500);
    ck_assert_uint_eq(sink_count(&c.s[1]), 0);
    memset(c.p[0].pending, 0, sizeof c.p[0].pending);
    for (size_t i = 0; i < KEYS; i++)
        sink_settle(&c.s[0], i, OUTBOX_ACK);
    crowd_run(&c, 1000);
    ck_assert_uint_eq(all_sent(&c), 2 * KEYS);
    ck_assert_int_eq(lanes_served(&c, 1), LANES / 2);
    crowd_close(&c);
}
END_TEST

/* ---- taking over ---------------------------------------------------- */

/* By the rival's clock, from its last sight of the other's beat. */
START_TEST(taken_over_after_the_lease_and_not_before)
{
    crowd c;

    crowd_open(&c, _i, 2);
    crowd_join(&c, 0);
    crowd_run(&c, 2000);
    crowd_join(&c, 1);
    relay_crash(&c.w, c.r[0], &c.link[0]);
    c.r[0] = NULL;
    crowd_publish(&c);
    vclock_advance(&c.clock[1], 1);
    settle_down(c.r[1]);                /* sees the lanes for the first time */
    vclock_advance(&c.clock[1], LEASE_MS - 1);
    settle_down(c.r[1]);
    ck_assert_uint_eq(sink_count(&c.s[1]), 0);
    vclock_advance(&c.clock[1], 1);
    settle_down(c.r[1]);
    vclock_advance(&c.clock[1], LOOK_MS);
    settle_down(c.r[1]);
    ck_assert_uint_eq(sink_count(&c.s[1]), KEYS);
    crowd_close(&c);
}
END_TEST

/* Each beat begins the lease anew, however slow it is. */
START_TEST(a_slow_beat_is_a_beat)
{
    crowd c;

    crowd_open(&c, _i, 2);
    memset(c.p[0].pending, 1, sizeof c.p[0].pending);
    c.settle_ms[0] = 30 * LEASE_MS;     /* in flight, so its lanes stay */
    crowd_join(&c, 0);
    crowd_publish(&c);
    crowd_run(&c, 500);
    crowd_join(&c, 1);
    for (int i = 0; i < 20; i++) {      /* a turn each 3 of 4 s */
        c.hangs[0] = true;
        crowd_run(&c, LEASE_MS * 3 / 4);
        c.hangs[0] = false;
        crowd_run(&c, 50);
    }
    ck_assert_uint_eq(stats_of(c.r[0]).leases_lost, 0);
    ck_assert_uint_eq(sink_count(&c.s[1]), 0);
    crowd_close(&c);
}
END_TEST

/* Its beats are not written, though all else is: others take over. */
static void freeze_beats(crowd *c)
{
    c->w.sut->freeze_beats(c->w.db, &c->link[0]);
}

START_TEST(a_frozen_beat_loses_the_lanes)
{
    crowd c;

    crowd_open(&c, _i, 2);
    crowd_join(&c, 0);
    crowd_run(&c, 500);
    freeze_beats(&c);
    crowd_join(&c, 1);
    crowd_run(&c, LEASE_MS - 500);
    ck_assert_uint_eq(stats_of(c.r[0]).leases_lost, 0);
    crowd_run(&c, 1500);
    ck_assert_uint_ge(stats_of(c.r[0]).leases_lost, 1);
    crowd_publish(&c);
    crowd_run(&c, 1000);
    ck_assert_uint_eq(all_sent(&c), KEYS);
    ck_assert_uint_ge(sink_count(&c.s[1]), KEYS / 3);
    crowd_close(&c);
}
END_TEST

/* It is frozen with events in flight while the other takes over and delivers.
 * Then its verdicts come, and its clock says that the lease is good.  What it
 * may write is: nothing. */
static void slept(crowd *c, int which)
{
    crowd_open(c, which, 2);
    memset(c->p[0].pending, 1, sizeof c->p[0].pending);
    crowd_join(c, 0);
    crowd_publish(c);
    crowd_run(c, 500);
    ck_assert_uint_eq(sink_count(&c->s[0]), KEYS);
    c->frozen[0] = true;
    crowd_join(c, 1);
    crowd_run(c, 2 * LEASE_MS);
    ck_assert_uint_eq(sink_count(&c->s[1]), KEYS);
    c->frozen[0] = false;
}

/* Long enough to save, too short to look at the leases. */
static void wake_up(crowd *c)
{
    steps(c->r[0], 2);
    vclock_advance(&c->clock[0], 11);
    steps(c->r[0], 2);
}

static void a_sleeper_writes_nothing(int which, outbox_verdict verdict)
{
    crowd c;

    slept(&c, which);
    sink_settle(&c.s[0], 0, OUTBOX_ACK);
    for (size_t i = 1; i < KEYS; i++)
        sink_settle(&c.s[0], i, verdict);
    wake_up(&c);
    ck_assert_uint_ge(stats_of(c.r[0]).leases_lost, 1);
    ck_assert_int_eq(c.w.sut->count(c.w.db, SUT_DEAD), 0);
    ck_assert_int_eq(c.w.sut->count(c.w.db, SUT_PARKED), 0);
    memset(c.p[0].pending, 0, sizeof c.p[0].pending);
    crowd_run(&c, 2 * LEASE_MS);        /* it has its share again */
    forget_all(&c);
    crowd_publish(&c);
    crowd_run(&c, 500);
    ck_assert_uint_eq(all_sent(&c), KEYS);
    ck_assert_int_eq(lanes_served(&c, 0), LANES / 2);
    ck_assert_int_eq(c.w.sut->count(c.w.db, SUT_DEAD), 0);
    crowd_close(&c);
}

START_TEST(one_that_slept_acks_nothing)
{
    a_sleeper_writes_nothing(_i, OUTBOX_ACK);
}
END_TEST

START_TEST(one_that_slept_buries_nothing)
{
    a_sleeper_writes_nothing(_i, OUTBOX_REJECT);
}
END_TEST

START_TEST(one_that_slept_parks_nothing)
{
    a_sleeper_writes_nothing(_i, OUTBOX_RETRY);
}
END_TEST

/* The same, but the rival has everything in flight and then dies: if one of
 * the sleeper's ACKs had moved a cursor, the third would miss events. */
START_TEST(one_that_slept_moves_no_cursor)
{
    crowd c;

    crowd_open(&c, _i, 3);
    for (int i = 0; i < 2; i++)
        memset(c.p[i].pending, 1, sizeof c.p[i].pending);
    crowd_join(&c, 0);
    crowd_publish(&c);
    crowd_run(&c, 500);
    c.frozen[0] = true;
    crowd_join(&c, 1);
    crowd_run(&c, 2 * LEASE_MS);
    ck_assert_uint_eq(sink_count(&c.s[1]), KEYS);
    for (size_t i = 0; i < KEYS; i++)
        sink_settle(&c.s[0], i, OUTBOX_ACK);
    wake_up(&c);
    relay_crash(&c.w, c.r[1], &c.link[1]);
    relay_crash(&c.w, c.r[0], &c.link[0]);
    c.r[0] = c.r[1] = NULL;
    crowd_join(&c, 2);
    crowd_run(&c, 3 * LEASE_MS);
    ck_assert_uint_eq(sink_count(&c.s[2]), KEYS);
    crowd_close(&c);
}
END_TEST

/* Parked events go with their lanes, and wait in order at the new owner. */
START_TEST(parked_events_change_hands)
{
    crowd c;

    crowd_open(&c, _i, 2);
    crowd_join(&c, 0);
    c.p[0].of[1] = c.p[1].of[1] = OUTBOX_RETRY;
    publish_numbers(&c.w, "k", 1, 50);
    for (int i = 0; i < 10; i++) {
        publish_numbers(&c.w, NULL, 100, 1);
        crowd_run(&c, 100);
    }
    ck_assert_int_eq(c.w.sut->count(c.w.db, SUT_PARKED), 50);
    relay_crash(&c.w, c.r[0], &c.link[0]);
    c.r[0] = NULL;
    publish_numbers(&c.w, "k", 51, 10);
    c.p[1].of[1] = OUTBOX_ACK;
    crowd_join(&c, 1);
    crowd_run(&c, 3 * LEASE_MS);
    ck_assert(once_in_order(&c.s[1], 1, 60));
    ck_assert_int_eq(c.w.sut->count(c.w.db, SUT_PARKED), 0);
    crowd_close(&c);
}
END_TEST

/* ---- lanes that nobody takes ---------------------------------------- */

/* How often lanes have changed hands so far. */
static int64_t hands_changed(crowd *c)
{
    outbox_subscription sub = { .name = "default" };
    static const uint8_t nobody[16] = "only looks";
    outbox_lane lanes[LANES];
    outbox_beat beats[MOST];
    outbox_error err;
    outbox_t *ob;
    int64_t sum = 0;

    memset(lanes, 0, sizeof lanes);
    ck_ok(c->w.sut->connect(&ob, c->w.db, NULL, NULL, &err));
    outbox_store *st = ob->h.store;
    ck_ok(st->ops->attach(st, &sub, &err));
    ck_assert_int_ge(st->ops->beat(st, &sub, nobody, -1, lanes, LANES, beats,
                                   MOST, &err), 0);
    for (int i = 0; i < LANES; i++)
        sum += lanes[i].token;
    outbox_close(ob);
    return sum;
}

/* Two share; a third is seen, and dies before it has taken a lane. */
static void newcomer_dies(crowd *c, int which)
{
    crowd_open(c, which, 3);
    crowd_join(c, 0);
    crowd_join(c, 1);
    crowd_run(c, 2 * LEASE_MS);
    crowd_join(c, 2);
    steps(c->r[2], 1);
    relay_crash(&c->w, c->r[2], &c->link[2]);
    c->r[2] = NULL;
}

static void stop_first(crowd *c)
{
    outbox_error err;

    ck_ok(outbox_relay_stop(c->r[0], 1000, &err));
    outbox_relay_free(c->r[0]);
    c->r[0] = NULL;
}

/* What they leave to it is theirs again at once, and then stays so. */
START_TEST(nothing_waits_for_a_newcomer_that_died)
{
    crowd c;
    int shares[MOST];
    int64_t before;

    newcomer_dies(&c, _i);
    crowd_run(&c, 2 * LOOK_MS);
    measure(&c, shares);
    ck_assert_int_ge(shares[0], LANES / 3);
    ck_assert_int_ge(shares[1], LANES / 3);
    before = hands_changed(&c);
    crowd_run(&c, 2 * LEASE_MS);
    ck_assert_int_le(hands_changed(&c) - before, LANES / 2);
    measure(&c, shares);
    ck_assert_int_eq(shares[0], LANES / 2);
    ck_assert_int_eq(shares[1], LANES / 2);
    crowd_close(&c);
}
END_TEST

START_TEST(what_a_stopped_one_leaves_does_not_wait_for_a_dead_one)
{
    crowd c;
    int shares[MOST];
    int64_t before;

    newcomer_dies(&c, _i);
    stop_first(&c);
    crowd_run(&c, 2 * LOOK_MS);
    before = hands_changed(&c);
    measure(&c, shares);
    ck_assert_int_eq(shares[1], LANES);
    crowd_run(&c, 2 * LEASE_MS);
    ck_assert_int_eq(hands_changed(&c), before);
    crowd_close(&c);
}
END_TEST

/* Of three one dies, with its lanes, and another one stops. */
START_TEST(only_its_own_lanes_wait_for_a_dead_one)
{
    crowd c;

    crowd_open(&c, _i, 3);
    for (int i = 0; i < 3; i++)
        crowd_join(&c, i);
    crowd_run(&c, 2 * LEASE_MS);
    relay_crash(&c.w, c.r[2], &c.link[2]);
    c.r[2] = NULL;
    stop_first(&c);
    crowd_run(&c, 2 * LOOK_MS);
    crowd_publish(&c);
    crowd_run(&c, 200);
    ck_assert_int_ge(lanes_served(&c, 1), LANES - (LANES + 2) / 3);
    crowd_run(&c, LEASE_MS);
    ck_assert_int_eq(lanes_served(&c, 1), LANES);
    ck_assert_uint_eq(all_sent(&c), KEYS);
    crowd_close(&c);
}
END_TEST

/* One that was merely slow has its share as soon as it moves again. */
START_TEST(a_slow_one_has_its_share_back)
{
    crowd c;
    int shares[MOST];

    crowd_open(&c, _i, 3);
    crowd_join(&c, 0);
    crowd_join(&c, 1);
    crowd_run(&c, 2 * LEASE_MS);
    crowd_join(&c, 2);
    steps(c.r[2], 1);
    c.hangs[2] = true;
    stop_first(&c);
    crowd_run(&c, 2 * LOOK_MS);
    measure(&c, shares);
    ck_assert_int_eq(shares[1], LANES);
    c.hangs[2] = false;
    crowd_run(&c, LEASE_MS / 2);
    measure(&c, shares);
    ck_assert_int_eq(shares[1], LANES / 2);
    ck_assert_int_eq(shares[2], LANES / 2);
    crowd_close(&c);
}
END_TEST

/* While it cannot take even its own share, what lies free says nothing about
 * another one, which therefore need not wait for its next beat. */
START_TEST(who_lacks_lanes_itself_takes_no_others)
{
    crowd c;
    int shares[MOST];

    crowd_open(&c, _i, 2);
    crowd_join(&c, 0);
    crowd_join(&c, 1);
    mem_fail(c.w.db, MEM_ACQUIRE, 0, 1000, OUTBOX_EBUSY);
    crowd_run(&c, 100);
    c.hangs[1] = true;
    crowd_run(&c, 200);
    mem_fail(c.w.db, MEM_ACQUIRE, 0, 0, OUTBOX_OK);
    c.hangs[1] = false;
    for (int i = 0; i < 2; i++) {
        vclock_advance(&c.clock[i], 50);
        steps(c.r[i], 2);
    }
    measure(&c, shares);
    ck_assert_int_eq(shares[0], LANES / 2);
    ck_assert_int_eq(shares[1], LANES / 2);
    crowd_close(&c);
}
END_TEST

/* While the first drains, time passes 50 ms at a time. */
typedef struct ending {
    crowd  *c;
    int     slices;
    int64_t before, after;      /* lanes that had changed hands */
} ending;

static ending the_end;

static void others_go_on(void *ctx, int timeout_ms)
{
    ending *e = &the_end;

    (void)ctx;
    if (e->c == NULL || timeout_ms == 0)
        return;
    e->slices++;
    crowd_run(e->c, 50);
    if (e->slices == 20)
        e->before = hands_changed(e->c);
    if (e->slices < 20 + 2 * LEASE_MS / 50)
        return;
    e->after = hands_changed(e->c);
    crowd_publish(e->c);
    crowd_run(e->c, 200);
    sink_settle(&e->c->s[0], 0, OUTBOX_ACK);
    e->c = NULL;
}

/* One that drains beats, and takes nothing; one lane is its own until the
 * verdict on what it had sent. */
START_TEST(nothing_waits_for_one_that_drains)
{
    outbox_error err;
    crowd c;

    crowd_open(&c, _i, 3);
    memset(c.p[0].pending, 1, sizeof c.p[0].pending);
    c.settle_ms[0] = 30 * LEASE_MS;
    c.s[0].transport.poll = others_go_on;
    crowd_join(&c, 0);
    publish_numbers(&c.w, "k", c.next++, 1);
    crowd_run(&c, 500);
    ck_assert_uint_eq(sink_count(&c.s[0]), 1);
    crowd_join(&c, 1);
    crowd_join(&c, 2);
    crowd_run(&c, 2 * LEASE_MS);
    the_end = (ending){ .c = &c };
    c.hangs[0] = true;                  /* it is the one that calls */
    ck_ok(outbox_relay_stop(c.r[0], 10000, &err));
    ck_assert_int_eq(the_end.after, the_end.before);
    ck_assert_int_eq(lanes_served(&c, 1) + lanes_served(&c, 2), LANES - 1);
    crowd_run(&c, 2 * LOOK_MS);
    ck_assert_uint_eq(all_sent(&c), 1 + KEYS);
    crowd_close(&c);
}
END_TEST

/* ---- a lost connection ---------------------------------------------- */

/* The relay's connection breaks once; the next one works. */
static void lose_connection(crowd *c)
{
    outbox_error err;
    int rc = 0;

    if (!c->w.sut->is_file)
        mem_fail(c->w.db, MEM_BEAT, 0, 1, OUTBOX_EDB);
    else
        c->w.sut->sever(&c->link[0]);
    for (int i = 0; i < 100 && rc >= 0; i++) {
        vclock_advance(&c->clock[0], 50);
        rc = outbox_relay_step(c->r[0], 0, &err);
    }
    ck_assert_int_lt(rc, 0);
    c->link[0].severed = false;
}

/* What was in flight is sent again: memory is not believed after that, and
 * verdicts on what was sent before hit nothing. */
START_TEST(after_a_lost_connection_all_is_read_again)
{
    crowd c;

    crowd_open(&c, _i, 1);
    for (long i = 0; i < 50; i++)
        c.p[0].pending[i] = true;
    crowd_join(&c, 0);
    publish_numbers(&c.w, NULL, 0, 50);
    publish_numbers(&c.w, "k", 60, 10);
    c.p[0].of[60] = OUTBOX_RETRY;
    crowd_run(&c, 100);
    lose_connection(&c);
    for (size_t i = 0; i < 50; i++)
        ck_assert_int_eq(sink_settle(&c.s[0], i, OUTBOX_ACK), OUTBOX_ESTALE);
    memset(&c.p[0], 0, sizeof c.p[0]);
    forget_all(&c);
    crowd_run(&c, 15000);
    ck_assert(sink_at_least(&c.s[0], 0, 50));
    ck_assert(once_in_order(&c.s[0], 60, 10));
    ck_assert_uint_eq(sink_count(&c.s[0]), 60);
    ck_assert_uint_eq(stats_of(c.r[0]).reconnects, 1);
    crowd_close(&c);
}
END_TEST

/* Whatever happened to the cursors meanwhile: they are read again, too. */
START_TEST(after_a_lost_connection_cursors_are_read_again)
{
    crowd c;
    outbox_error err;
    outbox_relay_options opt;

    crowd_open(&c, _i, 1);
    opt = relay_options(&c.w);
    opt.clock_arg = &c.clock[0];
    opt.lease_ms = LEASE_MS;
    opt.keep_ms = 3600000;
    c.r[0] = relay_open(&c.w, &c.s[0], &opt, &c.link[0]);
    publish_numbers(&c.w, "k", 0, 50);
    crowd_run(&c, 500);
    ck_assert(sink_exactly(&c.s[0], 0, 50));
    lose_connection(&c);
    ck_ok(outbox_replay(c.w.ob, "default", 0, &err));
    forget_all(&c);
    crowd_run(&c, 15000);
    ck_assert(sink_exactly(&c.s[0], 0, 50));
    crowd_close(&c);
}
END_TEST

START_TEST(a_lease_must_outlast_what_is_in_flight)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r = NULL;
    outbox_error err;
    outbox_t *ob;

    world_open(&w, _i);
    ck_ok(w.sut->connect(&ob, w.db, NULL, NULL, &err));
    opt = relay_options(&w);
    opt.lease_ms = 5000;
    w.sink.transport.max_inflight_ms = 5001;
    ck_refused(outbox_relay_new(&r, ob, &w.sink.transport, &opt, &err),
               OUTBOX_EINVAL, "lease_ms is 5000", "max_inflight_ms, 5001");
    w.sink.transport.max_inflight_ms = 5000;
    ck_refused(outbox_relay_new(&r, ob, &w.sink.transport, &opt, &err),
               OUTBOX_EINVAL, "lease_ms is 5000", "max_inflight_ms, 5000");
    w.sink.transport.max_inflight_ms = 4999;
    ck_ok(outbox_relay_new(&r, ob, &w.sink.transport, &opt, &err));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

void add_sharing_tests(Suite *s)
{
    TCase *tc = suite_case(s, "sharing");

    tcase_add_loop_test(tc, two_three_and_five_share_evenly, 0, n_suts);
    tcase_add_loop_test(tc, those_that_want_less_leave_the_rest, 0, n_suts);
    tcase_add_loop_test(tc, what_nobody_wants_waits, 0, n_suts);
    tcase_add_loop_test(tc, coming_and_going, 0, n_suts);
    tcase_add_loop_test(tc, a_lane_in_flight_changes_hands_when_settled, 0,
                        n_suts);
    tcase_add_loop_test(tc, taken_over_after_the_lease_and_not_before, 0,
                        n_suts);
    tcase_add_loop_test(tc, a_slow_beat_is_a_beat, 0, n_suts);
    tcase_add_loop_test(tc, a_frozen_beat_loses_the_lanes, 0, n_suts);
    tcase_add_loop_test(tc, one_that_slept_acks_nothing, 0, n_suts);
    tcase_add_loop_test(tc, one_that_slept_buries_nothing, 0, n_suts);
    tcase_add_loop_test(tc, one_that_slept_parks_nothing, 0, n_suts);
    tcase_add_loop_test(tc, one_that_slept_moves_no_cursor, 0, n_suts);
    tcase_add_loop_test(tc, parked_events_change_hands, 0, n_suts);
    tcase_add_loop_test(tc, nothing_waits_for_a_newcomer_that_died, 0, n_suts);
    tcase_add_loop_test(tc,
                        what_a_stopped_one_leaves_does_not_wait_for_a_dead_one,
                        0, n_suts);
    tcase_add_loop_test(tc, only_its_own_lanes_wait_for_a_dead_one, 0, n_suts);
    tcase_add_loop_test(tc, a_slow_one_has_its_share_back, 0, n_suts);
    tcase_add_loop_test(tc, who_lacks_lanes_itself_takes_no_others, 0, 1);
    tcase_add_loop_test(tc, nothing_waits_for_one_that_drains, 0, n_suts);
    tcase_add_loop_test(tc, after_a_lost_connection_all_is_read_again, 0,
                        n_suts);
    tcase_add_loop_test(tc, after_a_lost_connection_cursors_are_read_again, 0,
                        n_suts);
    tcase_add_loop_test(tc, a_lease_must_outlast_what_is_in_flight, 0, n_suts);
}

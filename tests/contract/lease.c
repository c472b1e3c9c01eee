/* SPDX-License-Identifier: MIT
 *
 * lease.c - two relays of one subscription: they share, they take over, and
 * the one that slept too long writes nothing any more.
 */
#include "contract.h"

#include "memory/memory_store.h"

#include <stdio.h>
#include <string.h>

typedef struct pair {                   /* two relays, two sinks, two clocks */
    world           w;
    sink            sink[2];
    vclock          clock[2];
    sut_link        link[2];
    outbox_relay_t *r[2];
} pair;

static void pair_open(pair *p, int which)
{
    world_open(&p->w, which);
    for (int i = 0; i < 2; i++) {
        sink_init(&p->sink[i], NULL, NULL);
        p->clock[i].ms = 500000 * (i + 1);      /* clocks need not agree */
        p->r[i] = NULL;
    }
}

static outbox_relay_options pair_options(pair *p, int i)
{
    outbox_relay_options opt = relay_options(&p->w);

    opt.clock_arg = &p->clock[i];
    opt.lease_ms = 4000;
    return opt;
}

static void pair_start(pair *p, int i)
{
    outbox_relay_options opt = pair_options(p, i);

    p->r[i] = relay_open(&p->w, &p->sink[i], &opt, &p->link[i]);
}

static void pair_close(pair *p)
{
    for (int i = 0; i < 2; i++) {
        relay_drop(p->r[i]);
        sink_release(&p->sink[i]);
    }
    world_close(&p->w);
}

/* Both run; time passes for both. */
static void pair_run(pair *p, int64_t ms)
{
    for (int64_t at = 0; at < ms; at += 100) {
        for (int i = 0; i < 2; i++) {
            vclock_advance(&p->clock[i], 100);
            if (p->r[i] != NULL)
                settle_down(p->r[i]);
        }
    }
}

static void publish_keys(pair *p, int from, int n)
{
    outbox_error err;
    char key[16];

    ck_ok(p->w.sut->begin(p->w.app));
    for (int i = from; i < from + n; i++) {
        snprintf(key, sizeof key, "key %d", i % 50);
        ck_ok(publish_number(p->w.ob, key, i, &err));
    }
    ck_ok(p->w.sut->commit(p->w.app));
}

static size_t together(pair *p)
{
    return sink_count(&p->sink[0]) + sink_count(&p->sink[1]);
}

static bool each_somewhere(pair *p, long from, long n)
{
    for (long i = from; i < from + n; i++) {
        if (sink_times(&p->sink[0], i) + sink_times(&p->sink[1], i) == 0)
            return false;
    }
    return true;
}

START_TEST(two_share_the_lanes)
{
    pair p;

    pair_open(&p, _i);
    pair_start(&p, 0);
    pair_start(&p, 1);
    pair_run(&p, 10000);
    publish_keys(&p, 0, 300);
    pair_run(&p, 5000);
    ck_assert(each_somewhere(&p, 0, 300));
    ck_assert_uint_eq(together(&p), 300);
    ck_assert_uint_ge(sink_count(&p.sink[0]), 75);
    ck_assert_uint_ge(sink_count(&p.sink[1]), 75);
    ck_assert(sink_in_order(&p.sink[0]) && sink_in_order(&p.sink[1]));
    ck_assert_uint_eq(stats_of(p.r[0]).leases_lost, 0);
    ck_assert_uint_eq(stats_of(p.r[1]).leases_lost, 0);
    pair_close(&p);
}
END_TEST

START_TEST(one_that_comes_later_gets_its_share)
{
    pair p;

    pair_open(&p, _i);
    pair_start(&p, 0);
    publish_keys(&p, 0, 100);
    pair_run(&p, 2000);
    ck_assert_uint_eq(sink_count(&p.sink[0]), 100);
    pair_start(&p, 1);
    for (int i = 0; i < 20; i++) {
        publish_keys(&p, 100 + 20 * i, 20);
        pair_run(&p, 500);
    }
    ck_assert(each_somewhere(&p, 0, 500));
    ck_assert_uint_eq(together(&p), 500);       /* handing over repeats none */
    ck_assert_uint_ge(sink_count(&p.sink[1]), 50);
    pair_close(&p);
}
END_TEST

START_TEST(a_clean_stop_hands_over_at_once)
{
    pair p;
    outbox_error err;

    pair_open(&p, _i);
    pair_start(&p, 0);
    pair_start(&p, 1);
    pair_run(&p, 10000);
    ck_ok(outbox_relay_stop(p.r[0], 1000, &err));
    outbox_relay_free(p.r[0]);
    p.r[0] = NULL;
    publish_keys(&p, 0, 100);
    pair_run(&p, 1500);                 /* much less than the lease */
    ck_assert(sink_exactly(&p.sink[1], 0, 100));
    ck_assert_uint_eq(sink_count(&p.sink[0]), 0);
    pair_close(&p);
}
END_TEST

START_TEST(the_second_takes_over_after_a_crash)
{
    pair p;

    pair_open(&p, _i);
    pair_start(&p, 0);
    publish_keys(&p, 0, 50);
    pair_run(&p, 1000);
    relay_crash(&p.w, p.r[0], &p.link[0]);
    p.r[0] = NULL;
    publish_keys(&p, 50, 50);
    pair_start(&p, 1);
    pair_run(&p, 3500);
    ck_assert_uint_eq(sink_count(&p.sink[1]), 0);       /* too early */
    pair_run(&p, 2000);
    ck_assert(sink_exactly(&p.sink[1], 50, 50));
    pair_close(&p);
}
END_TEST

START_TEST(one_that_beats_is_not_robbed)
{
    pair p;

    pair_open(&p, _i);
    pair_start(&p, 0);
    p.sink[0].rule = sink_pending;
    publish_keys(&p, 0, 20);
    pair_run(&p, 1000);
    pair_start(&p, 1);
    pair_run(&p, 60000);
    ck_assert_uint_eq(stats_of(p.r[0]).leases_lost, 0);
    ck_assert_uint_eq(stats_of(p.r[1]).leases_lost, 0);
    pair_close(&p);
}
END_TEST

/* The first hangs (its clock stands still, it takes no turn) with everything
 * in flight; the second takes over and holds everything in flight, too.  Then
 * the first wakes up, gets its verdicts and tries to save.  If that went
 * through, the third relay would miss the events. */
START_TEST(one_that_slept_cannot_save)
{
    pair p;
    outbox_relay_options opt;
    outbox_relay_t *sleeper;

    pair_open(&p, _i);
    p.sink[0].rule = p.sink[1].rule = sink_pending;
    pair_start(&p, 0);
    publish_keys(&p, 0, 20);
    settle_down(p.r[0]);
    size_t n = sink_count(&p.sink[0]);
    ck_assert_uint_eq(n, 20);
    sleeper = p.r[0];
    p.r[0] = NULL;
    pair_start(&p, 1);
    for (int i = 0; i < 80; i++) {
        vclock_advance(&p.clock[1], 100);
        settle_down(p.r[1]);
    }
    ck_assert(sink_exactly(&p.sink[1], 0, 20));
    for (size_t i = 0; i < n; i++)
        sink_settle(&p.sink[0], i, OUTBOX_ACK);
    settle_down(sleeper);
    vclock_advance(&p.clock[0], 100);   /* its flush_ms; its lease is "good" */
    settle_down(sleeper);
    ck_assert_uint_ge(stats_of(sleeper).leases_lost, 1);
    p.r[0] = sleeper;
    relay_crash(&p.w, p.r[1], &p.link[1]);
    p.r[1] = NULL;
    relay_drop(p.r[0]);
    p.r[0] = NULL;
    opt = pair_options(&p, 0);
    opt.clock_arg = &p.w.clock;
    drain_after_crash(&p.w, &p.w.sink, &opt);
    ck_assert(sink_at_least(&p.w.sink, 0, 20));
    pair_close(&p);
}
END_TEST

START_TEST(one_that_slept_goes_on_with_what_is_left)
{
    pair p;

    pair_open(&p, _i);
    p.sink[0].rule = sink_pending;
    pair_start(&p, 0);
    publish_keys(&p, 0, 20);
    settle_down(p.r[0]);
    pair_start(&p, 1);
    for (int i = 0; i < 80; i++) {
        vclock_advance(&p.clock[1], 100);
        settle_down(p.r[1]);
    }
    ck_assert(sink_exactly(&p.sink[1], 0, 20));
    p.sink[0].rule = NULL;
    vclock_advance(&p.clock[0], 8000);
    pair_run(&p, 10000);
    publish_keys(&p, 20, 200);
    pair_run(&p, 5000);
    ck_assert(each_somewhere(&p, 20, 200));
    ck_assert_uint_eq(together(&p), 40 + 200);
    ck_assert_uint_ge(sink_count(&p.sink[0]), 20 + 25);
    pair_close(&p);
}
END_TEST

/* An owner that cannot renew its lease must stop sending before a rival may
 * begin, even if everything else works. */
START_TEST(no_sending_without_a_lease)
{
    pair p;

    pair_open(&p, 0);
    pair_start(&p, 0);
    settle_down(p.r[0]);
    vclock_advance(&p.clock[0], 100);
    mem_fail(p.w.db, MEM_BEAT, 0, 1000, OUTBOX_EBUSY);
    publish_keys(&p, 0, 5);
    settle_down(p.r[0]);
    ck_assert_uint_eq(sink_count(&p.sink[0]), 5);       /* still valid */
    for (int i = 0; i < 60; i++) {
        vclock_advance(&p.clock[0], 100);
        settle_down(p.r[0]);
    }
    publish_keys(&p, 5, 5);
    settle_down(p.r[0]);
    ck_assert_uint_eq(sink_count(&p.sink[0]), 5);
    mem_fail(p.w.db, MEM_BEAT, 0, 0, OUTBOX_OK);
    pair_run(&p, 1000);
    ck_assert(sink_exactly(&p.sink[0], 0, 10));
    pair_close(&p);
}
END_TEST

static int64_t racing(void *arg)
{
    vclock *clock = arg;

    vclock_advance(clock, 20);
    return vclock_now(clock);
}

/* Every look at the clock finds that half of the lease is over: by the
 * time that the lease is written and the event read, it is too late. */
START_TEST(no_sending_after_a_lease_that_came_late)
{
    pair p;
    outbox_relay_options opt;

    pair_open(&p, _i);
    opt = pair_options(&p, 0);
    opt.lease_ms = 40;
    opt.flush_ms = 5;
    opt.clock_ms = racing;
    p.r[0] = relay_open(&p.w, &p.sink[0], &opt, &p.link[0]);
    publish_keys(&p, 0, 20);
    steps(p.r[0], 50);
    ck_assert_uint_eq(sink_count(&p.sink[0]), 0);
    pair_close(&p);
}
END_TEST

START_TEST(a_frozen_beat_loses_its_lanes)
{
    pair p;

    pair_open(&p, 0);
    pair_start(&p, 0);
    settle_down(p.r[0]);
    mem_freeze_beats(p.link[0].conn, 1);
    pair_start(&p, 1);
    pair_run(&p, 6000);
    publish_keys(&p, 0, 100);
    pair_run(&p, 1000);
    ck_assert_uint_ge(stats_of(p.r[0]).leases_lost, 1);
    ck_assert(each_somewhere(&p, 0, 100));
    ck_assert_uint_ge(sink_count(&p.sink[1]), 50);
    pair_close(&p);
}
END_TEST

START_TEST(max_lanes_leaves_the_rest)
{
    pair p;
    outbox_relay_options opt;

    pair_open(&p, _i);
    opt = pair_options(&p, 0);
    opt.max_lanes = 4;
    p.r[0] = relay_open(&p.w, &p.sink[0], &opt, &p.link[0]);
    publish_keys(&p, 0, 100);
    pair_run(&p, 5000);
    size_t alone = sink_count(&p.sink[0]);
    ck_assert_uint_gt(alone, 0);
    ck_assert_uint_lt(alone, 60);
    pair_start(&p, 1);
    pair_run(&p, 10000);
    ck_assert(each_somewhere(&p, 0, 100));
    ck_assert_uint_eq(together(&p), 100);
    pair_close(&p);
}
END_TEST

START_TEST(the_dead_are_forgotten)
{
    pair p;

    pair_open(&p, _i);
    for (int i = 0; i < 3; i++) {
        pair_start(&p, 0);
        settle_down(p.r[0]);
        relay_crash(&p.w, p.r[0], &p.link[0]);
    }
    p.r[0] = NULL;
    ck_assert_int_eq(p.w.sut->count(p.w.db, SUT_RELAYS), 3);
    pair_start(&p, 1);
    pair_run(&p, 40000);
    ck_assert_int_eq(p.w.sut->count(p.w.db, SUT_RELAYS), 1);
    pair_close(&p);
}
END_TEST

void add_lease_tests(Suite *s)
{
    TCase *tc = suite_case(s, "lease");

    tcase_add_loop_test(tc, two_share_the_lanes, 0, n_suts);
    tcase_add_loop_test(tc, one_that_comes_later_gets_its_share, 0, n_suts);
    tcase_add_loop_test(tc, a_clean_stop_hands_over_at_once, 0, n_suts);
    tcase_add_loop_test(tc, the_second_takes_over_after_a_crash, 0, n_suts);
    tcase_add_loop_test(tc, one_that_beats_is_not_robbed, 0, n_suts);
    tcase_add_loop_test(tc, one_that_slept_cannot_save, 0, n_suts);
    tcase_add_loop_test(tc, one_that_slept_goes_on_with_what_is_left, 0,
                        n_suts);
    tcase_add_test(tc, no_sending_without_a_lease);
    tcase_add_loop_test(tc, no_sending_after_a_lease_that_came_late, 0,
                        n_suts);
    tcase_add_test(tc, a_frozen_beat_loses_its_lanes);
    tcase_add_loop_test(tc, max_lanes_leaves_the_rest, 0, n_suts);
    tcase_add_loop_test(tc, the_dead_are_forgotten, 0, n_suts);
}

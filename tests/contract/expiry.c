/* SPDX-License-Identifier: MIT
 *
 * expiry.c - events that are of no use after their time: counted, logged and
 * dropped, wherever they wait; never delivered, never silently lost.
 */
#include "kit.h"

#include <stdio.h>
#include <string.h>

static void publish_until(site *t, const char *key, long number, int64_t in_ms)
{
    outbox_event ev = numbered(key, number);

    ev.expires_ms = wall_ms() + in_ms;
    publish_event(&t->w, &ev);
}

START_TEST(in_time_it_is_delivered)
{
    site t;

    site_open(&t, _i);
    publish_until(&t, "k", 1, 1000);
    wall_pass(&t.w, 999);
    site_relay(&t);
    ck_assert(sink_exactly(&t.w.sink, 1, 1));
    ck_assert_int_eq(sink_at(&t.w.sink, 0)->event.expires_ms, wall_ms() + 1);
    time_pass(&t.w, t.r, 5000, 100);
    ck_assert_uint_eq(stats_of(t.r).expired, 0);
    site_close(&t);
}
END_TEST

/* At its time, not only after it. */
START_TEST(at_its_time_it_is_dropped)
{
    site t;
    static journal j;

    memset(&j, 0, sizeof j);
    site_open(&t, _i);
    t.opt.log = journal_write;
    t.opt.log_arg = &j;
    publish_until(&t, "k", 1, 1000);
    char id[40];
    strcpy(id, outbox_last_id(t.w.ob));
    publish_numbers(&t.w, "k", 2, 1);
    wall_pass(&t.w, 1000);
    site_relay(&t);
    time_pass(&t.w, t.r, 1500, 100);
    ck_assert(sink_exactly(&t.w.sink, 2, 1));
    ck_assert_uint_eq(stats_of(t.r).expired, 1);
    ck_assert_uint_eq(stats_of(t.r).acked, 1);
    ck_assert_uint_eq(stats_of(t.r).sent, 1);
    ck_assert_int_eq(journal_has(&j, id), 1);
    ck_assert_int_eq(journal_has(&j, "expired"), 1);
    ck_assert_uint_eq(database_stats(&t.w, NULL).lag, 0);
    ck_assert_int_eq(dead_count(&t.w, NULL), 0);
    site_close(&t);
}
END_TEST

/* Dropping is progress: it is saved, and the log is trimmed behind it. */
START_TEST(dropped_once_and_for_all)
{
    site t;

    site_open(&t, _i);
    for (long i = 1; i <= 50; i++)
        publish_until(&t, key_of(i % 7), i, 1000);
    publish_numbers(&t.w, NULL, 51, 1);
    wall_pass(&t.w, 2000);
    site_relay(&t);
    time_pass(&t.w, t.r, 3000, 100);
    ck_assert_uint_eq(stats_of(t.r).expired, 50);
    ck_log_left(&t.w, 1);
    site_end_relay(&t);
    site_relay(&t);
    ck_assert_uint_eq(stats_of(t.r).expired, 0);
    ck_assert_uint_eq(sink_count(&t.w.sink), 1);
    site_close(&t);
}
END_TEST

START_TEST(expired_while_it_is_parked)
{
    site t;

    site_open(&t, _i);
    t.opt.max_attempts = 1000;
    t.p.of[1] = OUTBOX_RETRY;
    publish_until(&t, "k", 1, 5000);
    publish_numbers(&t.w, "k", 2, 1);
    publish_until(&t, "k", 3, 3000);
    publish_numbers(&t.w, "k", 4, 1);
    site_relay(&t);
    run_among_others(&t.w, t.r, 500, 50);
    ck_assert_int_eq(site_parked(&t), 4);
    wall_pass(&t.w, 4999);
    run_among_others(&t.w, t.r, 300, 50);
    ck_assert_int_eq(site_parked(&t), 4);
    size_t tries = sink_times(&t.w.sink, 1);
    ck_assert_uint_ge(tries, 4);
    wall_pass(&t.w, 1);
    run_among_others(&t.w, t.r, 500, 50);
    ck_assert_uint_eq(sink_times(&t.w.sink, 1), tries);
    ck_assert_uint_eq(sink_times(&t.w.sink, 2), 1);
    ck_assert_uint_eq(sink_times(&t.w.sink, 3), 0);
    ck_assert_uint_eq(sink_times(&t.w.sink, 4), 1);
    ck_assert_uint_gt(first_of(&t.w.sink, 4), first_of(&t.w.sink, 2));
    ck_assert_uint_eq(stats_of(t.r).expired, 2);
    ck_assert_int_eq(site_parked(&t), 0);
    publish_numbers(&t.w, "k", 5, 1);   /* the key is free */
    settle_down(t.r);
    ck_assert_uint_eq(sink_times(&t.w.sink, 5), 1);
    site_close(&t);
}
END_TEST

/* In memory, behind one that is in flight, or waiting for its next try. */
START_TEST(expired_in_the_window)
{
    site t;

    site_open(&t, _i);
    t.opt.settle_ms = 100000;
    t.p.pending[1] = true;
    publish_numbers(&t.w, "k", 1, 1);
    publish_until(&t, "k", 2, 1000);
    publish_numbers(&t.w, "k", 3, 1);
    t.p.of[4] = OUTBOX_RETRY;
    publish_until(&t, NULL, 4, 1000);
    site_relay(&t);
    ck_assert_uint_eq(sink_count(&t.w.sink), 2);
    wall_pass(&t.w, 1000);
    run_for(&t.w, t.r, 1000, 100);
    ck_assert_uint_eq(sink_count(&t.w.sink), 2);
    ck_assert_uint_eq(stats_of(t.r).expired, 1);        /* 4 */
    ck_ok(sink_settle(&t.w.sink, first_of(&t.w.sink, 1), OUTBOX_ACK));
    settle_down(t.r);
    ck_assert_uint_eq(stats_of(t.r).expired, 2);
    ck_assert_uint_eq(sink_times(&t.w.sink, 2), 0);
    ck_assert_uint_eq(sink_times(&t.w.sink, 3), 1);
    site_close(&t);
}
END_TEST

/* What is in flight when its time comes was sent in time. */
START_TEST(in_flight_it_counts_as_sent)
{
    site t;

    site_open(&t, _i);
    t.p.pending[1] = true;
    publish_until(&t, "k", 1, 1000);
    site_relay(&t);
    wall_pass(&t.w, 5000);
    run_for(&t.w, t.r, 1000, 100);
    ck_ok(sink_settle(&t.w.sink, 0, OUTBOX_ACK));
    settle_down(t.r);
    ck_assert_uint_eq(stats_of(t.r).acked, 1);
    ck_assert_uint_eq(stats_of(t.r).expired, 0);
    site_close(&t);
}
END_TEST

/* The destination is away, and what expires meanwhile is not used to find out
 * whether it is back. */
START_TEST(expired_during_an_outage)
{
    site t;

    site_open(&t, _i);
    t.p.down = true;
    t.opt.breaker_failures = 5;
    for (long i = 1; i <= 10; i++)
        publish_until(&t, key_of(i), i, 10000);
    site_relay(&t);
    ck_assert_int_eq(stats_of(t.r).breaker_open, 1);
    for (long i = 11; i <= 20; i++)     /* some have not been tried yet */
        publish_until(&t, key_of(i), i, 10000);
    publish_numbers(&t.w, NULL, 21, 3);
    time_pass(&t.w, t.r, 9900, 100);
    sink_forget(&t.w.sink);
    time_pass(&t.w, t.r, 600000, 1000);
    for (long i = 1; i <= 20; i++)
        ck_assert_msg(sink_times(&t.w.sink, i) == 0, "%ld was sent late", i);
    t.p.down = false;
    time_pass(&t.w, t.r, 60000, 1000);
    ck_assert_uint_eq(stats_of(t.r).expired, 20);
    ck_assert_uint_eq(stats_of(t.r).acked, 3);
    ck_assert_int_eq(stats_of(t.r).breaker_open, 0);
    ck_assert_uint_eq(database_stats(&t.w, NULL).lag, 0);
    site_close(&t);
}
END_TEST

/* Nothing else is left: the breaker must not wait for a probe that cannot
 * come, and what is published later goes out. */
START_TEST(an_outage_in_which_all_expire)
{
    site t;

    site_open(&t, _i);
    t.p.down = true;
    t.opt.breaker_failures = 5;
    for (long i = 1; i <= 20; i++)
        publish_until(&t, key_of(i), i, 5000);
    site_relay(&t);
    time_pass(&t.w, t.r, 60000, 500);
    ck_assert_uint_eq(stats_of(t.r).expired, 20);
    t.p.down = false;
    sink_forget(&t.w.sink);
    publish_numbers(&t.w, "k", 100, 3);
    time_pass(&t.w, t.r, 40000, 500);
    ck_assert(sink_exactly(&t.w.sink, 100, 3));
    ck_assert_int_eq(stats_of(t.r).breaker_open, 0);
    site_close(&t);
}
END_TEST

/* Nothing was delivered by dropping: it is no proof against those that fail,
 * and does not say that the destination is alive. */
START_TEST(dropping_is_no_success)
{
    site t;

    site_open(&t, _i);
    t.p.of[1] = OUTBOX_RETRY;
    publish_numbers(&t.w, "k", 1, 1);
    site_relay(&t);
    for (long i = 10; i < 60; i++) {
        publish_until(&t, NULL, i, 1);
        wall_pass(&t.w, 1);
        settle_down(t.r);               /* while 1 waits for its next try */
        ck_assert_int_eq(site_parked(&t), 0);
        run_for(&t.w, t.r, 100, 100);
    }
    ck_assert_uint_eq(stats_of(t.r).expired, 50);
    ck_assert_int_eq(site_parked(&t), 0);
    ck_assert_int_eq(dead_count(&t.w, NULL), 0);
    site_close(&t);
}
END_TEST

/* Due later, and over before a relay was there to send it. */
START_TEST(due_and_expired)
{
    site t;
    outbox_event ev = numbered("k", 1);

    site_open(&t, _i);
    site_relay(&t);
    ev.due_ms = wall_ms() + 1000;
    ev.expires_ms = wall_ms() + 2000;
    publish_event(&t.w, &ev);
    site_end_relay(&t);
    wall_pass(&t.w, 5000);
    site_relay(&t);
    time_pass(&t.w, t.r, 2000, 100);
    ck_assert_uint_eq(sink_count(&t.w.sink), 0);
    ck_assert_uint_eq(stats_of(t.r).expired, 1);
    ck_assert_uint_eq(database_stats(&t.w, NULL).scheduled, 0);
    ck_assert_uint_eq(database_stats(&t.w, NULL).lag, 0);
    site_close(&t);
}
END_TEST

/* A dead one keeps its time: revived too late, it is dropped. */
START_TEST(revived_too_late)
{
    site t;
    outbox_error err;

    site_open(&t, _i);
    t.p.of[1] = OUTBOX_REJECT;
    publish_until(&t, "k", 1, 5000);
    publish_numbers(&t.w, "k", 2, 1);
    site_relay(&t);
    ck_assert_int_eq(dead_count(&t.w, NULL), 1);
    wall_pass(&t.w, 6000);
    run_for(&t.w, t.r, 1000, 100);
    ck_assert_int_eq(dead_count(&t.w, NULL), 1);        /* for people */
    ck_assert_int_eq(outbox_dead_revive(t.w.ob, "default", NULL, &err), 1);
    run_for(&t.w, t.r, 1000, 100);
    ck_assert_uint_eq(sink_times(&t.w.sink, 1), 1);
    ck_assert_uint_eq(sink_times(&t.w.sink, 2), 1);
    ck_assert_uint_eq(stats_of(t.r).expired, 1);
    site_close(&t);
}
END_TEST

void add_expiry_tests(Suite *s)
{
    TCase *tc = suite_case(s, "expiry");

    tcase_add_loop_test(tc, in_time_it_is_delivered, 0, n_suts);
    tcase_add_loop_test(tc, at_its_time_it_is_dropped, 0, n_suts);
    tcase_add_loop_test(tc, dropped_once_and_for_all, 0, n_suts);
    tcase_add_loop_test(tc, expired_while_it_is_parked, 0, n_suts);
    tcase_add_loop_test(tc, expired_in_the_window, 0, n_suts);
    tcase_add_loop_test(tc, in_flight_it_counts_as_sent, 0, n_suts);
    tcase_add_loop_test(tc, expired_during_an_outage, 0, n_suts);
    tcase_add_loop_test(tc, an_outage_in_which_all_expire, 0, n_suts);
    tcase_add_loop_test(tc, dropping_is_no_success, 0, n_suts);
    tcase_add_loop_test(tc, due_and_expired, 0, n_suts);
    tcase_add_loop_test(tc, revived_too_late, 0, n_suts);
}

/* SPDX-License-Identifier: MIT
 *
 * replay.c - history that is kept can be delivered again from a time on, to
 * one subscription, without losing what it had not had yet.
 */
#include "kit.h"

#include <string.h>

enum { HOUR_MS = 3600000 };

/* One event per minute, 1 to n, all delivered; returns the time of the
 * first. */
static int64_t an_hour_of_history(site *t, int which, long n)
{
    site_open(t, which);
    t->opt.keep_ms = HOUR_MS;
    site_relay(t);
    int64_t start_ms = wall_ms();
    for (long i = 1; i <= n; i++) {
        publish_numbers(&t->w, key_of(i % 5), i, 1);
        time_pass(&t->w, t->r, 60000, 15000);
    }
    ck_assert(sink_exactly(&t->w.sink, 1, n));
    sink_forget(&t->w.sink);
    return start_ms;
}

START_TEST(from_a_time_on)
{
    site t;
    outbox_error err;
    int64_t start_ms = an_hour_of_history(&t, _i, 30);

    ck_ok(outbox_replay(t.w.ob, "default", start_ms + 20 * 60000, &err));
    time_pass(&t.w, t.r, 1000, 50);
    ck_assert(sink_exactly(&t.w.sink, 21, 10));         /* that one, too */
    ck_assert(sink_in_order(&t.w.sink));
    sink_forget(&t.w.sink);
    ck_ok(outbox_replay(t.w.ob, "default", start_ms + 20 * 60000 + 1, &err));
    time_pass(&t.w, t.r, 1000, 50);
    ck_assert(sink_exactly(&t.w.sink, 22, 9));
    publish_numbers(&t.w, "k", 31, 1);  /* and life goes on */
    time_pass(&t.w, t.r, 1000, 50);
    ck_assert(sink_exactly(&t.w.sink, 22, 10));
    site_close(&t);
}
END_TEST

START_TEST(from_the_beginning)
{
    site t;
    outbox_error err;

    an_hour_of_history(&t, _i, 30);
    ck_ok(outbox_replay(t.w.ob, "default", 0, &err));
    time_pass(&t.w, t.r, 1000, 50);
    ck_assert(sink_exactly(&t.w.sink, 1, 30));
    ck_ok(outbox_replay(t.w.ob, "default", 0, &err));   /* and again */
    time_pass(&t.w, t.r, 1000, 50);
    ck_assert_uint_eq(sink_count(&t.w.sink), 60);
    site_close(&t);
}
END_TEST

START_TEST(from_a_time_to_come)
{
    site t;
    outbox_error err;

    an_hour_of_history(&t, _i, 10);
    ck_ok(outbox_replay(t.w.ob, "default", wall_ms() + 1000, &err));
    ck_ok(outbox_replay(t.w.ob, "default", INT64_MAX, &err));
    publish_numbers(&t.w, "k", 11, 1);
    time_pass(&t.w, t.r, 1000, 50);
    ck_assert(sink_exactly(&t.w.sink, 11, 1));
    site_close(&t);
}
END_TEST

/* What was trimmed is gone: it gives what is there. */
START_TEST(only_what_is_kept)
{
    site t;
    outbox_error err;
    int64_t start_ms = an_hour_of_history(&t, _i, 90);
    int64_t kept = t.w.sut->count(t.w.db, SUT_LOG);

    ck_assert_int_ge(kept, 59);
    ck_log_left(&t.w, 61);
    ck_ok(outbox_replay(t.w.ob, "default", start_ms, &err));
    time_pass(&t.w, t.r, 1000, 50);
    ck_assert(sink_exactly(&t.w.sink, 91 - kept, kept));
    site_close(&t);
}
END_TEST

START_TEST(while_no_relay_runs)
{
    site t;
    outbox_error err;
    int64_t start_ms = an_hour_of_history(&t, _i, 10);

    site_end_relay(&t);
    ck_ok(outbox_replay(t.w.ob, "default", start_ms + 5 * 60000, &err));
    site_relay(&t);
    ck_assert(sink_exactly(&t.w.sink, 6, 5));
    site_close(&t);
}
END_TEST

/* A replay never moves a cursor forward: what it had not had yet comes, too,
 * though it is older than the time. */
START_TEST(what_was_not_delivered_yet_still_comes)
{
    site t;
    outbox_error err;

    an_hour_of_history(&t, _i, 5);
    ck_ok(outbox_pause(t.w.ob, "default", 1, &err));
    time_pass(&t.w, t.r, 1000, 250);
    for (long i = 6; i <= 20; i++) {
        publish_numbers(&t.w, key_of(i % 5), i, 1);
        time_pass(&t.w, t.r, 60000, 15000);
    }
    ck_ok(outbox_replay(t.w.ob, "default", wall_ms() - 5 * 60000, &err));
    ck_ok(outbox_pause(t.w.ob, "default", 0, &err));
    time_pass(&t.w, t.r, 1000, 50);
    ck_assert(sink_exactly(&t.w.sink, 6, 15));
    site_close(&t);
}
END_TEST

/* Verdicts on what was in flight when the replay began must not save the old
 * cursor over the new one. */
START_TEST(with_events_in_flight)
{
    site t;
    outbox_error err;

    an_hour_of_history(&t, _i, 10);
    for (long i = 11; i <= 20; i++)
        t.p.pending[i] = true;
    publish_numbers(&t.w, NULL, 11, 10);
    settle_down(t.r);
    ck_ok(outbox_replay(t.w.ob, "default", 0, &err));
    for (size_t i = 0; i < 10; i++)
        sink_settle(&t.w.sink, i, OUTBOX_ACK);
    steps(t.r, 1);
    memset(t.p.pending, 0, sizeof t.p.pending);
    time_pass(&t.w, t.r, 1000, 50);
    ck_assert(sink_at_least(&t.w.sink, 1, 20));
    ck_assert_uint_eq(database_stats(&t.w, NULL).lag, 0);
    site_close(&t);
}
END_TEST

/* The lanes are its own again when what was in flight is let go of: that must
 * not move the new cursor, or a crash would lose what it went back for. */
START_TEST(in_flight_and_then_a_crash)
{
    world w;
    sut_link link;
    outbox_relay_options opt;
    outbox_error err;

    world_open(&w, _i);
    opt = relay_options(&w);
    opt.keep_ms = HOUR_MS;
    opt.lease_ms = 1000;
    publish_numbers(&w, NULL, 0, 10);
    outbox_relay_t *r = relay_open(&w, NULL, &opt, &link);
    run_for(&w, r, 200, 50);
    w.sink.rule = sink_pending;
    publish_numbers(&w, NULL, 10, 10);
    settle_down(r);
    ck_ok(outbox_replay(w.ob, "default", 0, &err));
    run_for(&w, r, 2000, 50);
    ck_assert_uint_eq(sink_count(&w.sink), 40);
    relay_crash(&w, r, &link);
    w.sink.rule = NULL;
    sink_forget(&w.sink);
    drain_after_crash(&w, NULL, &opt);
    ck_assert(sink_at_least(&w.sink, 0, 20));
    world_close(&w);
}
END_TEST

START_TEST(one_subscription_only)
{
    site t;
    sink s;
    outbox_error err;
    outbox_relay_options opt;

    an_hour_of_history(&t, _i, 10);
    sink_init(&s, NULL, NULL);
    opt = t.opt;
    opt.subscription = "other";
    outbox_relay_t *r = relay_open(&t.w, &s, &opt, NULL);
    settle_down(r);
    run_for(&t.w, r, 500, 50);          /* saved, too */
    ck_assert(sink_exactly(&s, 1, 10));
    ck_ok(outbox_replay(t.w.ob, "default", 0, &err));
    time_pass(&t.w, t.r, 1000, 50);
    settle_down(r);
    ck_assert(sink_exactly(&t.w.sink, 1, 10));
    ck_assert_uint_eq(sink_count(&s), 10);
    ck_assert_uint_eq(stats_of(r).leases_lost, 0);
    outbox_relay_free(r);
    sink_release(&s);
    site_close(&t);
}
END_TEST

/* History is kept for the one that asks for most. */
START_TEST(kept_for_the_one_that_wants_most)
{
    site t;
    sink s;
    outbox_relay_options opt;
    outbox_error err;

    an_hour_of_history(&t, _i, 10);
    sink_init(&s, NULL, NULL);
    opt = t.opt;
    opt.subscription = "other";
    opt.keep_ms = 0;
    outbox_relay_t *r = relay_open(&t.w, &s, &opt, NULL);
    settle_down(r);
    time_pass(&t.w, t.r, 5000, 500);
    run_for(&t.w, r, 5000, 500);
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_LOG), 10);
    ck_ok(outbox_unsubscribe(t.w.ob, "default", &err));
    run_for(&t.w, r, 5000, 500);
    ck_log_left(&t.w, 1);
    relay_drop(t.r);
    t.r = NULL;
    outbox_relay_free(r);
    sink_release(&s);
    site_close(&t);
}
END_TEST

/* Parked and dead events stay what they are; the key is not delivered past
 * them by the replay. */
START_TEST(behind_a_dead_one)
{
    site t;
    outbox_error err;

    an_hour_of_history(&t, _i, 3);
    t.p.of[11] = OUTBOX_REJECT;
    publish_numbers(&t.w, "k", 10, 4);
    settle_down(t.r);
    ck_assert_int_eq(dead_count(&t.w, NULL), 1);
    ck_assert_int_eq(site_parked(&t), 2);
    sink_forget(&t.w.sink);
    ck_ok(outbox_replay(t.w.ob, "default", 0, &err));
    time_pass(&t.w, t.r, 1000, 50);
    ck_assert_int_eq(dead_count(&t.w, NULL), 1);
    ck_assert_uint_eq(sink_times(&t.w.sink, 12), 0);
    ck_assert_uint_eq(sink_times(&t.w.sink, 13), 0);
    for (long i = 1; i <= 3; i++)
        ck_assert_uint_eq(sink_times(&t.w.sink, i), 1);
    t.p.of[11] = OUTBOX_ACK;
    ck_assert_int_eq(outbox_dead_revive(t.w.ob, "default", NULL, &err), 1);
    time_pass(&t.w, t.r, 1000, 50);
    for (long i = 10; i < 14; i++)
        ck_assert_uint_ge(sink_times(&t.w.sink, i), 1);
    ck_assert_uint_lt(first_of(&t.w.sink, 11), first_of(&t.w.sink, 12));
    ck_assert_uint_lt(first_of(&t.w.sink, 12), first_of(&t.w.sink, 13));
    ck_assert_int_eq(site_parked(&t), 0);
    site_close(&t);
}
END_TEST

void add_replay_tests(Suite *s)
{
    TCase *tc = suite_case(s, "replay");

    tcase_add_loop_test(tc, from_a_time_on, 0, n_suts);
    tcase_add_loop_test(tc, from_the_beginning, 0, n_suts);
    tcase_add_loop_test(tc, from_a_time_to_come, 0, n_suts);
    tcase_add_loop_test(tc, only_what_is_kept, 0, n_suts);
    tcase_add_loop_test(tc, while_no_relay_runs, 0, n_suts);
    tcase_add_loop_test(tc, what_was_not_delivered_yet_still_comes, 0, n_suts);
    tcase_add_loop_test(tc, with_events_in_flight, 0, n_suts);
    tcase_add_loop_test(tc, in_flight_and_then_a_crash, 0, n_suts);
    tcase_add_loop_test(tc, one_subscription_only, 0, n_suts);
    tcase_add_loop_test(tc, kept_for_the_one_that_wants_most, 0, n_suts);
    tcase_add_loop_test(tc, behind_a_dead_one, 0, n_suts);
}

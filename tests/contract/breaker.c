/* SPDX-License-Identifier: MIT
 *
 * breaker.c - a destination that is away: a pause, one probe at a time, and
 * nothing held against the events.
 */
#include "kit.h"

#include <stdlib.h>
#include <string.h>

static outbox_relay_options five_failures(world *w)
{
    outbox_relay_options opt = relay_options(w);

    opt.breaker_failures = 5;
    opt.breaker_ms = 1000;
    opt.retry_min_ms = 10;
    opt.retry_max_ms = 100;
    opt.max_attempts = 3;
    return opt;
}

START_TEST(it_opens_and_nothing_is_sent)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;         /* so that failures come one by one */
    opt = five_failures(&w);
    publish_numbers(&w, NULL, 0, 50);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    w.sink.rule = sink_retry;
    for (size_t i = 0; i < 50; i++)
        ck_ok(sink_settle(&w.sink, i, OUTBOX_RETRY));
    settle_down(r);
    ck_assert_int_eq(stats_of(r).breaker_open, 1);
    size_t before = sink_count(&w.sink);
    run_for(&w, r, 900, 50);
    ck_assert_uint_eq(sink_count(&w.sink), before);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(a_sync_transport_is_asked_no_more)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_retry;
    opt = five_failures(&w);
    publish_numbers(&w, NULL, 0, 500);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    ck_assert_int_eq(stats_of(r).breaker_open, 1);
    ck_assert_uint_ge(sink_count(&w.sink), 5);
    ck_assert_uint_le(sink_count(&w.sink), 64);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

static outbox_verdict is_closed(sink *s, const outbox_event *ev,
                                outbox_token token, outbox_error *why)
{
    (void)s, (void)ev, (void)token;
    strcpy(why->text, "the harbour is closed");
    return OUTBOX_RETRY;
}

START_TEST(its_line_in_the_log_says_why)
{
    world w;
    journal j = { .n = 0 };
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = is_closed;
    opt = five_failures(&w);
    opt.log = journal_write;
    opt.log_arg = &j;
    publish_numbers(&w, NULL, 0, 50);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    ck_assert_int_eq(journal_has(&j, "breaker open"), 1);
    ck_assert_int_eq(journal_has(&j, "failed, the last: the harbour is closed"),
                     1);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(half_open_means_one_probe)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_retry;
    opt = five_failures(&w);
    publish_numbers(&w, NULL, 0, 50);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    size_t before = sink_count(&w.sink);
    vclock_advance(&w.clock, 1000);
    settle_down(r);
    ck_assert_uint_eq(sink_count(&w.sink), before + 1);
    run_for(&w, r, 1000, 100);          /* the second pause is longer */
    ck_assert_uint_eq(sink_count(&w.sink), before + 1);
    run_for(&w, r, 1100, 100);
    ck_assert_uint_eq(sink_count(&w.sink), before + 2);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(a_probe_without_a_verdict_is_the_only_one)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_retry;
    opt = five_failures(&w);
    publish_numbers(&w, NULL, 0, 50);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    w.sink.rule = sink_pending;
    size_t before = sink_count(&w.sink);
    run_for(&w, r, 5000, 100);
    ck_assert_uint_eq(sink_count(&w.sink), before + 1);
    w.sink.rule = NULL;
    ck_ok(sink_settle(&w.sink, before, OUTBOX_ACK));
    settle_down(r);
    run_for(&w, r, 500, 50);
    ck_assert_int_eq(stats_of(r).breaker_open, 0);
    ck_assert(sink_at_least(&w.sink, 0, 50));
    ck_assert_uint_eq(stats_of(r).acked, 50);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

/* An outage of an hour: far more failed probes than max_attempts. */
START_TEST(no_attempts_are_burned)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_retry;
    opt = five_failures(&w);
    publish_numbers(&w, "a", 0, 20);
    publish_numbers(&w, NULL, 20, 20);
    publish_numbers(&w, "b", 40, 20);
    r = relay_open(&w, NULL, &opt, NULL);
    run_for(&w, r, 3600000, 2000);
    ck_assert_int_eq(stats_of(r).breaker_open, 1);
    ck_assert_int_eq(w.sut->count(w.db, SUT_DEAD), 0);
    ck_assert_int_eq(w.sut->count(w.db, SUT_PARKED), 0);
    sink_forget(&w.sink);
    w.sink.rule = NULL;
    run_for(&w, r, 60000, 1000);
    ck_assert_int_eq(stats_of(r).breaker_open, 0);
    ck_assert(sink_exactly(&w.sink, 0, 60));
    ck_assert(sink_in_order(&w.sink));
    ck_assert_int_eq(w.sut->count(w.db, SUT_DEAD), 0);
    ck_assert_int_eq(w.sut->count(w.db, SUT_PARKED), 0);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(a_single_event_does_not_open_it)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_retry;
    opt = five_failures(&w);
    publish_numbers(&w, "k", 0, 1);
    r = relay_open(&w, NULL, &opt, NULL);
    run_for(&w, r, 5000, 20);
    ck_assert_int_eq(stats_of(r).breaker_open, 0);
    ck_assert_uint_ge(sink_count(&w.sink), 10);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

/* One event in three fails, on keys of its own.  They must not be taken for
 * an outage, as long as each round has its successes. */
static outbox_verdict fail_every_third(sink *s, const outbox_event *ev,
                                       outbox_token token, outbox_error *why)
{
    (void)s, (void)token, (void)why;
    return event_number(ev) % 3 == 2 ? OUTBOX_RETRY : OUTBOX_ACK;
}

START_TEST(failures_among_successes_do_not_open_it)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;
    bool opened = false;

    world_open(&w, _i);
    w.sink.rule = fail_every_third;
    opt = five_failures(&w);
    r = relay_open(&w, NULL, &opt, NULL);
    for (long i = 0; i < 4; i++) {
        publish_numbers(&w, NULL, 3 * i, 3);
        settle_down(r);
        opened = opened || stats_of(r).breaker_open;
        vclock_advance(&w.clock, 200);
    }
    ck_assert(!opened);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

static outbox_verdict fail_under_200(sink *s, const outbox_event *ev,
                                        outbox_token token, outbox_error *why)
{
    (void)s, (void)token, (void)why;
    return event_number(ev) < 200 ? OUTBOX_RETRY : OUTBOX_ACK;
}

/* More bad events in a row than open the breaker, and a good destination:
 * those behind them must get through, and soon go on undisturbed. */
START_TEST(bad_events_at_the_head_do_not_look_like_an_outage_for_ever)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = fail_under_200;
    opt = five_failures(&w);
    publish_numbers(&w, NULL, 0, 200);
    publish_numbers(&w, NULL, 200, 100);
    r = relay_open(&w, NULL, &opt, NULL);
    run_for(&w, r, 600000, 500);
    ck_assert(sink_at_least(&w.sink, 200, 100));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(the_outage_survives_a_restart)
{
    world w;
    outbox_relay_options opt;
    outbox_error err;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_retry;
    opt = five_failures(&w);
    publish_numbers(&w, "k", 0, 10);
    publish_numbers(&w, NULL, 10, 10);
    for (int i = 0; i < 6; i++) {
        r = relay_open(&w, NULL, &opt, NULL);
        run_for(&w, r, 2000, 100);
        ck_ok(outbox_relay_stop(r, 1000, &err));
        outbox_relay_free(r);
    }
    ck_assert_int_eq(w.sut->count(w.db, SUT_DEAD), 0);
    sink_forget(&w.sink);
    w.sink.rule = NULL;
    drain_after_crash(&w, &w.sink, &opt);
    ck_assert(sink_exactly(&w.sink, 0, 20));
    ck_assert(sink_in_order(&w.sink));
    world_close(&w);
}
END_TEST

/* 1 is parked in a lane whose owner died; it and 2 fail, nothing else is
 * there, and 2 heals: each of the two must have its turn as the probe. */
START_TEST(a_parked_one_is_not_every_probe)
{
    site t;
    sut_link link;

    site_open(&t, _i);
    t.opt.breaker_failures = 1;
    t.opt.breaker_ms = 10;
    t.opt.max_attempts = 1000;
    t.p.of[1] = t.p.of[2] = OUTBOX_RETRY;
    publish_numbers(&t.w, "bad", 1, 1);
    t.r = relay_open(&t.w, NULL, &t.opt, &link);
    for (int i = 0; i < 20 && site_parked(&t) == 0; i++)
        run_among_others(&t.w, t.r, 100, 50);
    ck_assert_int_eq(site_parked(&t), 1);
    relay_crash(&t.w, t.r, &link);
    publish_numbers(&t.w, "good", 2, 1);
    site_relay(&t);
    run_for(&t.w, t.r, 15000, 50);
    ck_assert_int_eq(stats_of(t.r).breaker_open, 1);
    t.p.of[2] = OUTBOX_ACK;
    sink_forget(&t.w.sink);
    run_for(&t.w, t.r, 4000, 50);
    ck_assert_uint_eq(sink_times(&t.w.sink, 2), 1);
    ck_assert_uint_ge(sink_times(&t.w.sink, 1), 1);
    site_close(&t);
}
END_TEST

START_TEST(a_transport_that_does_not_open)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.open_failures = 8;
    opt = five_failures(&w);
    publish_numbers(&w, "k", 0, 5);
    r = relay_open(&w, NULL, &opt, NULL);
    run_for(&w, r, 60000, 100);
    ck_assert_uint_eq(w.sink.opens, 9);
    ck_assert(sink_exactly(&w.sink, 0, 5));
    ck_assert_int_eq(w.sut->count(w.db, SUT_DEAD), 0);
    outbox_relay_free(r);
    ck_assert_uint_eq(w.sink.closes, 1);
    world_close(&w);
}
END_TEST

void add_breaker_tests(Suite *s)
{
    TCase *tc = suite_case(s, "breaker");

    tcase_add_loop_test(tc, it_opens_and_nothing_is_sent, 0, n_suts);
    tcase_add_loop_test(tc, a_sync_transport_is_asked_no_more, 0, n_suts);
    tcase_add_loop_test(tc, its_line_in_the_log_says_why, 0, n_suts);
    tcase_add_loop_test(tc, half_open_means_one_probe, 0, n_suts);
    tcase_add_loop_test(tc, a_probe_without_a_verdict_is_the_only_one, 0,
                        n_suts);
    tcase_add_loop_test(tc, no_attempts_are_burned, 0, n_suts);
    tcase_add_loop_test(tc, a_single_event_does_not_open_it, 0, n_suts);
    tcase_add_loop_test(tc, failures_among_successes_do_not_open_it, 0,
                        n_suts);
    tcase_add_loop_test(
        tc, bad_events_at_the_head_do_not_look_like_an_outage_for_ever, 0,
        n_suts);
    tcase_add_loop_test(tc, the_outage_survives_a_restart, 0, n_suts);
    tcase_add_loop_test(tc, a_parked_one_is_not_every_probe, 0, n_suts);
    tcase_add_loop_test(tc, a_transport_that_does_not_open, 0, n_suts);
}

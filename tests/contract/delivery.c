/* SPDX-License-Identifier: MIT
 *
 * delivery.c - a relay delivers everything, in order, once when nothing goes
 * wrong; each subscription by itself.
 */
#include "contract.h"

#include <stdio.h>
#include <string.h>

START_TEST(everything_in_order)
{
    static const char *const keys[] = { "a", "b", NULL };
    world w;
    outbox_relay_t *r;
    int64_t last[3] = { 0, 0, 0 };

    world_open(&w, _i);
    for (int i = 0; i < 12; i++)
        publish_numbers(&w, keys[i % 3], 50 * i, 50);
    r = relay_open(&w, NULL, NULL, NULL);
    ck_assert_int_eq(settle_down(r), 600);
    ck_assert(sink_exactly(&w.sink, 0, 600));
    ck_assert(sink_in_order(&w.sink));
    for (size_t i = 0; i < 600; i++) {
        int64_t *at = &last[sink_number(&w.sink, i) / 50 % 3];
        ck_assert_int_gt(sink_at(&w.sink, i)->event.position, *at);
        *at = sink_at(&w.sink, i)->event.position;
    }
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(nothing_twice_while_it_runs)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, _i);
    r = relay_open(&w, NULL, NULL, NULL);
    for (int i = 0; i < 20; i++) {
        publish_numbers(&w, "k", i, 1);
        run_for(&w, r, 40, 20);
    }
    run_for(&w, r, 60000, 1000);
    ck_assert(sink_exactly(&w.sink, 0, 20));
    ck_assert(sink_in_order(&w.sink));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(small_batches_make_no_difference)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    publish_numbers(&w, "k", 0, 25);
    opt = relay_options(&w);
    opt.batch = 3;
    r = relay_open(&w, NULL, &opt, NULL);
    ck_assert_int_eq(settle_down(r), 25);
    ck_assert(sink_exactly(&w.sink, 0, 25));
    ck_assert(sink_in_order(&w.sink));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(nothing_again_after_stop)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    world_open(&w, _i);
    publish_numbers(&w, "k", 0, 10);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_ok(outbox_relay_stop(r, 1000, &err));
    outbox_relay_free(r);
    publish_numbers(&w, "k", 10, 5);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_assert(sink_exactly(&w.sink, 0, 15));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(nothing_again_after_free_alone)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, _i);
    for (int i = 0; i < 3; i++) {
        publish_numbers(&w, "k", 10 * i, 10);
        r = relay_open(&w, NULL, NULL, NULL);
        settle_down(r);
        outbox_relay_free(r);
    }
    ck_assert(sink_exactly(&w.sink, 0, 30));
    ck_assert_int_eq(w.sut->count(w.db, SUT_RELAYS), 0);
    world_close(&w);
}
END_TEST

START_TEST(stop_without_a_step)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    world_open(&w, _i);
    r = relay_open(&w, NULL, NULL, NULL);
    ck_ok(outbox_relay_stop(r, 100, &err));
    outbox_relay_free(r);
    ck_assert_uint_eq(sink_count(&w.sink), 0);
    world_close(&w);
}
END_TEST

START_TEST(step_after_stop_goes_on)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    world_open(&w, _i);
    r = relay_open(&w, NULL, NULL, NULL);
    for (int i = 0; i < 3; i++) {
        publish_numbers(&w, "k", 5 * i, 5);
        settle_down(r);
        ck_ok(outbox_relay_stop(r, 1000, &err));
    }
    ck_assert(sink_exactly(&w.sink, 0, 15));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(each_subscription_gets_all)
{
    world w;
    sink other;
    outbox_relay_options opt;
    outbox_relay_t *a, *b;

    world_open(&w, _i);
    sink_init(&other, NULL, NULL);
    opt = relay_options(&w);
    opt.subscription = "other";
    publish_numbers(&w, "k", 0, 10);
    a = relay_open(&w, NULL, NULL, NULL);
    b = relay_open(&w, &other, &opt, NULL);
    settle_down(a);
    publish_numbers(&w, "k", 10, 10);
    settle_down(b);
    vclock_advance(&w.clock, 2000);
    settle_down(a);
    ck_assert(sink_exactly(&w.sink, 0, 20));
    ck_assert(sink_exactly(&other, 0, 20));
    ck_assert_int_eq(w.sut->count(w.db, SUT_SUBSCRIPTIONS), 2);
    outbox_relay_free(a);
    outbox_relay_free(b);
    sink_release(&other);
    world_close(&w);
}
END_TEST

START_TEST(one_that_starts_now_sees_no_history)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    publish_numbers(&w, "k", 0, 5);
    opt = relay_options(&w);
    opt.subscription = "late";
    opt.start = OUTBOX_START_NOW;
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    publish_numbers(&w, "k", 5, 3);
    vclock_advance(&w.clock, 2000);
    settle_down(r);
    ck_assert(sink_exactly(&w.sink, 5, 3));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(starting_now_counts_only_once)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    opt = relay_options(&w);
    opt.start = OUTBOX_START_NOW;
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    outbox_relay_free(r);
    publish_numbers(&w, "k", 0, 3);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    ck_assert(sink_exactly(&w.sink, 0, 3));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(stats_tell_what_happened)
{
    world w;
    outbox_relay_t *r;
    outbox_stats st;

    world_open(&w, _i);
    publish_numbers(&w, "k", 0, 10);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    run_for(&w, r, 5000, 1000);
    st = stats_of(r);
    ck_assert_uint_eq(st.sent, 10);
    ck_assert_uint_eq(st.acked, 10);
    ck_assert_uint_eq(st.retried, 0);
    ck_assert_uint_eq(st.rejected, 0);
    ck_assert_uint_eq(st.lag, 0);
    ck_assert_uint_eq(st.inflight, 0);
    ck_assert_uint_eq(st.parked, 0);
    ck_assert_uint_eq(st.dead, 0);
    ck_assert_uint_eq(st.leases_lost, 0);
    ck_assert_int_eq(st.breaker_open, 0);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(stats_know_the_backlog)
{
    world w;
    outbox_relay_t *r;
    outbox_stats st;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    publish_numbers(&w, NULL, 0, 10);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    run_for(&w, r, 2000, 500);
    st = stats_of(r);
    ck_assert_uint_eq(st.inflight, 10);
    ck_assert_uint_eq(st.lag, 10);
    ck_assert_int_ge(st.lag_ms, 0);
    st.size = 0;
    ck_assert_int_eq(outbox_relay_stats(r, &st), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_relay_stats(r, NULL), OUTBOX_EINVAL);
    relay_drop(r);
    world_close(&w);
}
END_TEST

START_TEST(the_transport_is_opened_flushed_and_closed)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, _i);
    r = relay_open(&w, NULL, NULL, NULL);
    publish_numbers(&w, "k", 0, 3);
    settle_down(r);
    ck_assert_uint_eq(w.sink.opens, 1);
    ck_assert_uint_ge(w.sink.flushes, 1);
    ck_assert_ptr_eq(w.sink.relay, r);
    outbox_relay_free(r);
    ck_assert_uint_eq(w.sink.closes, 1);
    world_close(&w);
}
END_TEST

static void log_line(void *arg, int level, const char *line)
{
    unsigned *lines = arg;

    ck_assert_int_ge(level, 0);
    ck_assert_int_le(level, 7);
    ck_assert_ptr_null(strchr(line, '\n'));
    ++*lines;
}

START_TEST(what_goes_wrong_is_logged_in_lines)
{
    world w;
    unsigned lines = 0;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    opt = relay_options(&w);
    opt.log = log_line;
    opt.log_arg = &lines;
    w.sink.rule = sink_reject;
    publish_numbers(&w, "k", 0, 1);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    ck_assert_uint_ge(lines, 1);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(many_keys_in_many_lanes)
{
    world w;
    outbox_error err;
    char key[16];
    outbox_relay_t *r;

    world_open(&w, _i);
    ck_ok(w.sut->begin(w.app));
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "key %d", i % 37);
        ck_ok(publish_number(w.ob, key, i, &err));
    }
    ck_ok(w.sut->commit(w.app));
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_assert(sink_exactly(&w.sink, 0, 300));
    ck_assert(sink_in_order(&w.sink));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

static void with_lanes(int which, uint32_t lanes)
{
    world w;
    outbox_error err;
    outbox_options opt = { .size = sizeof opt, .lanes = lanes };
    outbox_relay_t *r;

    world_open_bare(&w, which);
    outbox_close(w.ob);
    ck_ok(w.sut->outbox(&w.ob, w.app, &opt, &err));
    ck_ok(outbox_migrate(w.ob, &err));
    publish_numbers(&w, "a", 0, 20);
    publish_numbers(&w, NULL, 20, 20);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_assert(sink_exactly(&w.sink, 0, 40));
    outbox_relay_free(r);
    world_close(&w);
}

START_TEST(any_number_of_lanes)
{
    with_lanes(_i, 1);
    with_lanes(_i, 3);
    with_lanes(_i, OUTBOX_MAX_LANES);
}
END_TEST

void add_delivery_tests(Suite *s)
{
    TCase *tc = suite_case(s, "delivery");

    tcase_add_loop_test(tc, everything_in_order, 0, n_suts);
    tcase_add_loop_test(tc, nothing_twice_while_it_runs, 0, n_suts);
    tcase_add_loop_test(tc, small_batches_make_no_difference, 0, n_suts);
    tcase_add_loop_test(tc, nothing_again_after_stop, 0, n_suts);
    tcase_add_loop_test(tc, nothing_again_after_free_alone, 0, n_suts);
    tcase_add_loop_test(tc, stop_without_a_step, 0, n_suts);
    tcase_add_loop_test(tc, step_after_stop_goes_on, 0, n_suts);
    tcase_add_loop_test(tc, each_subscription_gets_all, 0, n_suts);
    tcase_add_loop_test(tc, one_that_starts_now_sees_no_history, 0, n_suts);
    tcase_add_loop_test(tc, starting_now_counts_only_once, 0, n_suts);
    tcase_add_loop_test(tc, stats_tell_what_happened, 0, n_suts);
    tcase_add_loop_test(tc, stats_know_the_backlog, 0, n_suts);
    tcase_add_loop_test(tc, the_transport_is_opened_flushed_and_closed, 0,
                        n_suts);
    tcase_add_loop_test(tc, what_goes_wrong_is_logged_in_lines, 0, n_suts);
    tcase_add_loop_test(tc, many_keys_in_many_lanes, 0, n_suts);
    tcase_add_loop_test(tc, any_number_of_lanes, 0, n_suts);
}

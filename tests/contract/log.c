/* SPDX-License-Identifier: MIT
 *
 * log.c - the log is trimmed behind its readers, keeps what is asked, and may
 * be emptied or restored behind a relay's back.
 */
#include "contract.h"

#include <string.h>

START_TEST(the_log_is_trimmed_but_for_the_newest)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, _i);
    r = relay_open(&w, NULL, NULL, NULL);
    for (int i = 0; i < 4; i++) {
        publish_numbers(&w, NULL, 500 * i, 500);
        settle_down(r);
        run_for(&w, r, 2000, 50);
    }
    ck_assert_int_ge(w.sut->count(w.db, SUT_LOG), 1);
    ck_log_left(&w, 10);
    ck_assert(sink_exactly(&w.sink, 0, 2000));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(positions_are_never_used_again)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;
    int64_t last = 0;

    world_open(&w, _i);
    for (long i = 0; i < 6; i++) {
        publish_numbers(&w, NULL, 2 * i, 2);
        ck_ok(w.sut->begin(w.app));
        ck_ok(publish_number(w.ob, NULL, 999, &err));
        ck_ok(w.sut->rollback(w.app));
        r = relay_open(&w, NULL, NULL, NULL);
        settle_down(r);
        run_for(&w, r, 1000, 50);
        outbox_relay_free(r);
    }
    ck_assert(sink_exactly(&w.sink, 0, 12));
    for (size_t i = 0; i < 12; i++) {
        ck_assert_int_gt(sink_at(&w.sink, i)->event.position, last);
        last = sink_at(&w.sink, i)->event.position;
    }
    world_close(&w);
}
END_TEST

START_TEST(what_one_subscription_needs_stays)
{
    world w;
    sink slow;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    sink_init(&slow, NULL, NULL);
    opt = relay_options(&w);
    opt.subscription = "slow";
    r = relay_open(&w, &slow, &opt, NULL);
    settle_down(r);
    outbox_relay_free(r);
    publish_numbers(&w, NULL, 0, 100);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    run_for(&w, r, 2000, 50);
    outbox_relay_free(r);
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 100);
    r = relay_open(&w, &slow, &opt, NULL);
    settle_down(r);
    run_for(&w, r, 2000, 50);
    outbox_relay_free(r);
    ck_assert(sink_exactly(&slow, 0, 100));
    ck_log_left(&w, 10);
    sink_release(&slow);
    world_close(&w);
}
END_TEST

START_TEST(what_is_in_flight_stays)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    publish_numbers(&w, NULL, 0, 50);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    for (size_t i = 10; i < 50; i++)
        ck_ok(sink_settle(&w.sink, i, OUTBOX_ACK));
    settle_down(r);
    run_for(&w, r, 2000, 50);
    ck_assert_int_ge(w.sut->count(w.db, SUT_LOG), 40);
    relay_drop(r);
    world_close(&w);
}
END_TEST

START_TEST(without_a_subscription_nothing_is_lost)
{
    world w;

    world_open(&w, _i);
    publish_numbers(&w, NULL, 0, 300);
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 300);
    drain_after_crash(&w, &w.sink, NULL);
    ck_assert(sink_exactly(&w.sink, 0, 300));
    world_close(&w);
}
END_TEST

START_TEST(history_is_kept_as_long_as_asked)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    opt = relay_options(&w);
    opt.keep_ms = 3600000;
    publish_numbers(&w, NULL, 0, 50);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    run_for(&w, r, 2000, 50);
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 50);
    w.sut->age(w.db, 3600000 + 60000);
    publish_numbers(&w, NULL, 50, 10);
    run_for(&w, r, 2000, 50);
    ck_log_left(&w, 11);
    ck_assert_int_ge(w.sut->count(w.db, SUT_LOG), 10);
    ck_assert(sink_exactly(&w.sink, 0, 60));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

/* ---- behind the relay's back ---------------------------------------- */

static void emptied(int which, long before, long after, bool running)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    world_open(&w, which);
    publish_numbers(&w, NULL, 0, before);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    run_for(&w, r, 2000, 50);
    if (!running) {
        ck_ok(outbox_relay_stop(r, 1000, &err));
        outbox_relay_free(r);
    }
    w.sut->empty_log(w.db);
    publish_numbers(&w, NULL, before, after);
    if (!running)
        r = relay_open(&w, NULL, NULL, NULL);
    run_for(&w, r, 5000, 50);
    ck_assert(sink_exactly(&w.sink, 0, before + after));
    publish_numbers(&w, NULL, before + after, 5);
    run_for(&w, r, 5000, 50);
    ck_assert(sink_exactly(&w.sink, 0, before + after + 5));
    outbox_relay_free(r);
    world_close(&w);
}

START_TEST(a_log_emptied_while_it_runs)
{
    emptied(_i, 10, 3, true);           /* the cursor is past the end */
    emptied(_i, 10, 10, true);          /* at another event */
    emptied(_i, 10, 30, true);          /* in the middle */
}
END_TEST

START_TEST(a_log_emptied_while_it_is_away)
{
    emptied(_i, 10, 3, false);
    emptied(_i, 10, 10, false);
    emptied(_i, 10, 30, false);
}
END_TEST

/* Two subscriptions have read far; the log is emptied; new events come.  The
 * first relay goes back, delivers, and trims.  The second, which was away,
 * must still find everything that it has not seen. */
START_TEST(emptied_and_trimmed_before_the_other_came_back)
{
    world w;
    sink other;
    outbox_relay_options opt;
    outbox_relay_t *a, *b;

    world_open(&w, _i);
    sink_init(&other, NULL, NULL);
    opt = relay_options(&w);
    opt.subscription = "other";
    publish_numbers(&w, NULL, 0, 100);
    a = relay_open(&w, NULL, NULL, NULL);
    b = relay_open(&w, &other, &opt, NULL);
    settle_down(a);
    settle_down(b);
    run_for(&w, a, 1000, 50);
    outbox_relay_free(b);
    w.sut->empty_log(w.db);
    publish_numbers(&w, NULL, 100, 40);
    run_for(&w, a, 5000, 50);
    ck_assert(sink_exactly(&w.sink, 0, 140));
    outbox_relay_free(a);
    b = relay_open(&w, &other, &opt, NULL);
    settle_down(b);
    run_for(&w, b, 5000, 50);
    ck_assert(sink_exactly(&other, 0, 140));
    outbox_relay_free(b);
    sink_release(&other);
    world_close(&w);
}
END_TEST

START_TEST(emptied_with_events_in_flight)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    publish_numbers(&w, NULL, 0, 20);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    w.sut->empty_log(w.db);
    publish_numbers(&w, NULL, 20, 20);
    for (size_t i = 0; i < 20; i++)
        sink_settle(&w.sink, i, OUTBOX_ACK);
    w.sink.rule = NULL;
    run_for(&w, r, 5000, 50);
    ck_assert(sink_at_least(&w.sink, 20, 20));
    relay_drop(r);
    sink_forget(&w.sink);
    drain_after_crash(&w, &w.sink, NULL);
    ck_assert_uint_eq(sink_count(&w.sink), 0);
    world_close(&w);
}
END_TEST

/* Positions begin anew: those of dead events say nothing about new ones. */
START_TEST(emptied_with_dead_ones)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_reject;
    publish_numbers(&w, NULL, 0, 10);
    r = relay_open(&w, NULL, NULL, NULL);
    run_for(&w, r, 1000, 50);
    ck_assert_int_eq(w.sut->count(w.db, SUT_DEAD), 10);
    w.sut->empty_log(w.db);
    w.sink.rule = NULL;
    publish_numbers(&w, NULL, 10, 10);
    run_for(&w, r, 5000, 50);
    ck_assert(sink_exactly(&w.sink, 0, 20));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

void add_log_tests(Suite *s)
{
    TCase *tc = suite_case(s, "log");

    tcase_add_loop_test(tc, the_log_is_trimmed_but_for_the_newest, 0, n_suts);
    tcase_add_loop_test(tc, positions_are_never_used_again, 0, n_suts);
    tcase_add_loop_test(tc, what_one_subscription_needs_stays, 0, n_suts);
    tcase_add_loop_test(tc, what_is_in_flight_stays, 0, n_suts);
    tcase_add_loop_test(tc, without_a_subscription_nothing_is_lost, 0, n_suts);
    tcase_add_loop_test(tc, history_is_kept_as_long_as_asked, 0, n_suts);
    tcase_add_loop_test(tc, a_log_emptied_while_it_runs, 0, n_suts);
    tcase_add_loop_test(tc, a_log_emptied_while_it_is_away, 0, n_suts);
    tcase_add_loop_test(tc, emptied_and_trimmed_before_the_other_came_back, 0,
                        n_suts);
    tcase_add_loop_test(tc, emptied_with_events_in_flight, 0, n_suts);
    tcase_add_loop_test(tc, emptied_with_dead_ones, 0, n_suts);
}

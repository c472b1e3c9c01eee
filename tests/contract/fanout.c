/* SPDX-License-Identifier: MIT
 *
 * fanout.c - several subscriptions over one log: each has its own cursor,
 * failures, pauses and start, and none waits for another.
 */
#include "kit.h"

#include <string.h>

enum { SUBS = 3 };

typedef struct fan {                    /* "a", "b" and "c", a relay each */
    world           w;
    plan            p[SUBS];
    sink            s[SUBS];
    outbox_relay_t *r[SUBS];
} fan;

static const char *const names[SUBS] = { "a", "b", "c" };

static outbox_relay_options fan_options(fan *f, int i)
{
    outbox_relay_options opt = relay_options(&f->w);

    opt.subscription = names[i];
    opt.retry_min_ms = opt.retry_max_ms = 100;
    opt.breaker_failures = 5;
    opt.max_attempts = 3;
    return opt;
}

static void fan_relay(fan *f, int i)
{
    outbox_relay_options opt = fan_options(f, i);

    f->r[i] = relay_open(&f->w, &f->s[i], &opt, NULL);
    settle_down(f->r[i]);
}

static void fan_open(fan *f, int which, int n)
{
    memset(f, 0, sizeof *f);
    timed_open(&f->w, which);
    for (int i = 0; i < SUBS; i++) {
        sink_init(&f->s[i], NULL, NULL);
        plan_use(&f->s[i], &f->p[i]);
        if (i < n)
            fan_relay(f, i);
    }
}

static void fan_run(fan *f, int64_t ms)
{
    for (int64_t at = 0; at < ms; at += 50) {
        vclock_advance(&f->w.clock, 50);
        for (int i = 0; i < SUBS; i++) {
            if (f->r[i] != NULL)
                settle_down(f->r[i]);
        }
    }
}

static void fan_end(fan *f, int i)
{
    relay_drop(f->r[i]);
    f->r[i] = NULL;
}

static void fan_close(fan *f)
{
    for (int i = 0; i < SUBS; i++) {
        if (f->r[i] != NULL)
            fan_end(f, i);
        sink_release(&f->s[i]);
    }
    timed_close(&f->w);
}

START_TEST(each_gets_all_in_order)
{
    fan f;

    fan_open(&f, _i, 3);
    for (long i = 0; i < 60; i++)
        publish_numbers(&f.w, key_of(i % 4), i, 1);
    fan_run(&f, 500);
    for (int i = 0; i < SUBS; i++) {
        ck_assert(sink_exactly(&f.s[i], 0, 60));
        ck_assert(sink_in_order(&f.s[i]));
        ck_assert_uint_eq(database_stats(&f.w, names[i]).lag, 0);
        ck_assert_str_eq(sink_at(&f.s[i], 0)->event.id,
                         sink_at(&f.s[0], 0)->event.id);
    }
    fan_close(&f);
}
END_TEST

/* One is away, one fails a key, one is never answered; each of the others
 * does not notice, within the same turn. */
START_TEST(failures_of_one_do_not_delay_another)
{
    fan f;

    fan_open(&f, _i, 3);
    f.p[0].down = true;
    f.p[1].of[0] = OUTBOX_RETRY;
    for (long i = 0; i < 100; i++)
        publish_numbers(&f.w, key_of(i % 10), i, 1);
    for (int i = 0; i < SUBS; i++)
        settle_down(f.r[i]);
    ck_assert(sink_exactly(&f.s[2], 0, 100));
    for (long i = 0; i < 100; i++) {
        if (i % 10 != 0)
            ck_assert_uint_eq(sink_times(&f.s[1], i), 1);
    }
    ck_assert_int_eq(stats_of(f.r[0]).breaker_open, 1);
    fan_run(&f, 20000);
    ck_assert_uint_eq(sink_count(&f.s[2]), 100);
    ck_assert_int_eq(stats_of(f.r[1]).breaker_open, 0);
    ck_assert_uint_eq(database_stats(&f.w, "a").parked, 0);
    ck_assert_uint_eq(database_stats(&f.w, "a").dead, 0);
    ck_assert_uint_eq(database_stats(&f.w, "a").lag, 100);
    ck_assert_uint_eq(database_stats(&f.w, "b").parked, 10);
    ck_assert_uint_eq(database_stats(&f.w, "c").parked, 0);
    f.p[0].down = false;
    fan_run(&f, 40000);
    ck_assert(sink_at_least(&f.s[0], 0, 100));
    ck_assert(sink_in_order(&f.s[0]));
    fan_close(&f);
}
END_TEST

START_TEST(attempts_and_deaths_are_each_ones_own)
{
    fan f;
    letter l[2];

    fan_open(&f, _i, 3);
    f.p[0].of[1] = OUTBOX_RETRY;
    f.p[1].of[1] = OUTBOX_REJECT;
    publish_numbers(&f.w, "k", 1, 3);
    for (long i = 0; i < 20; i++) {
        publish_numbers(&f.w, NULL, 100 + i, 1);
        fan_run(&f, 100);
    }
    ck_assert_int_eq(letters_of(&f.w, "a", l, 2), 1);
    ck_assert_int_eq(l[0].attempt, 3);
    ck_assert_int_eq(letters_of(&f.w, "b", l, 2), 1);
    ck_assert_int_eq(l[0].attempt, 1);
    ck_assert_int_eq(letters_of(&f.w, "c", l, 2), 0);
    ck_assert(once_in_order(&f.s[2], 1, 3));
    ck_assert_uint_eq(sink_times(&f.s[0], 2) + sink_times(&f.s[1], 2), 0);
    fan_close(&f);
}
END_TEST

START_TEST(a_pause_is_for_one)
{
    fan f;
    outbox_error err;

    fan_open(&f, _i, 2);
    ck_ok(outbox_pause(f.w.ob, "a", 1, &err));
    fan_run(&f, 300);
    publish_numbers(&f.w, "k", 0, 10);
    fan_run(&f, 1000);
    ck_assert_uint_eq(sink_count(&f.s[0]), 0);
    ck_assert(sink_exactly(&f.s[1], 0, 10));
    ck_assert_int_eq(database_stats(&f.w, "b").paused, 0);
    fan_close(&f);
}
END_TEST

/* What was there is history; what is published before its first step, but
 * after it was made, is not. */
START_TEST(starting_now)
{
    fan f;
    outbox_relay_options opt;

    fan_open(&f, _i, 1);
    publish_numbers(&f.w, "k", 0, 10);
    fan_run(&f, 100);
    opt = fan_options(&f, 1);
    opt.start = OUTBOX_START_NOW;
    f.r[1] = relay_open(&f.w, &f.s[1], &opt, NULL);
    settle_down(f.r[1]);
    ck_assert_uint_eq(sink_count(&f.s[1]), 0);
    ck_assert_uint_eq(database_stats(&f.w, "b").lag, 0);
    publish_numbers(&f.w, "k", 10, 5);
    fan_run(&f, 100);
    ck_assert(sink_exactly(&f.s[1], 10, 5));
    fan_end(&f, 1);
    publish_numbers(&f.w, "k", 15, 5);
    f.r[1] = relay_open(&f.w, &f.s[1], &opt, NULL);     /* it exists */
    settle_down(f.r[1]);
    ck_assert(sink_exactly(&f.s[1], 10, 10));
    fan_close(&f);
}
END_TEST

START_TEST(starting_now_in_an_empty_log)
{
    fan f;
    outbox_relay_options opt;

    fan_open(&f, _i, 0);
    opt = fan_options(&f, 0);
    opt.start = OUTBOX_START_NOW;
    f.r[0] = relay_open(&f.w, &f.s[0], &opt, NULL);
    settle_down(f.r[0]);
    publish_numbers(&f.w, "k", 0, 5);
    fan_run(&f, 100);
    ck_assert(sink_exactly(&f.s[0], 0, 5));
    fan_close(&f);
}
END_TEST

/* The newest event is still in the log, and is not sent again to one that
 * begins with it as the last that it has not seen. */
START_TEST(starting_at_the_oldest_that_is_kept)
{
    fan f;

    fan_open(&f, _i, 1);
    publish_numbers(&f.w, "k", 0, 10);
    fan_run(&f, 2000);
    int64_t left = f.w.sut->count(f.w.db, SUT_LOG);
    ck_assert_int_ge(left, 1);
    ck_log_left(&f.w, 1);
    fan_relay(&f, 1);
    ck_assert(sink_exactly(&f.s[1], 10 - left, left));
    fan_close(&f);
}
END_TEST

START_TEST(holds_log_names_the_one_that_nobody_serves)
{
    fan f;

    fan_open(&f, _i, 3);
    fan_end(&f, 2);
    publish_numbers(&f.w, "k", 0, 100);
    wall_pass(&f.w, 7000);
    fan_run(&f, 2000);
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_LOG), 100);
    ck_assert_int_eq(database_stats(&f.w, "c").holds_log, 1);
    ck_assert_uint_eq(database_stats(&f.w, "c").lag, 100);
    ck_assert_int_eq(database_stats(&f.w, "c").lag_ms, 7000);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(database_stats(&f.w, names[i]).holds_log, 0);
        ck_assert_int_eq(stats_of(f.r[i]).holds_log, 0);
        ck_assert_uint_eq(stats_of(f.r[i]).lag, 0);
        ck_assert_int_eq(stats_of(f.r[i]).lag_ms, 0);
    }
    fan_relay(&f, 2);
    fan_run(&f, 2000);
    ck_log_left(&f.w, 1);
    for (int i = 0; i < SUBS; i++)      /* nobody is further behind */
        ck_assert_int_eq(stats_of(f.r[i]).holds_log, 1);
    fan_close(&f);
}
END_TEST

/* With its own topics each; what one does not want is not kept for it. */
START_TEST(each_with_its_own_topics)
{
    fan f;
    static const char *const lists[SUBS] = { "orders", "bills.*", NULL };
    static const size_t counts[SUBS] = { 10, 10, 30 };

    fan_open(&f, _i, 0);
    for (int i = 0; i < SUBS; i++) {
        outbox_relay_options opt = fan_options(&f, i);
        opt.topics = lists[i];
        f.r[i] = relay_open(&f.w, &f.s[i], &opt, NULL);
        settle_down(f.r[i]);
    }
    for (long i = 0; i < 10; i++) {
        publish_topic(&f.w, "orders", 3 * i);
        publish_topic(&f.w, "bills.paid", 3 * i + 1);
        publish_topic(&f.w, "bills", 3 * i + 2);
    }
    fan_run(&f, 2000);
    for (int i = 0; i < SUBS; i++)
        ck_assert_uint_eq(sink_count(&f.s[i]), counts[i]);
    ck_log_left(&f.w, 1);
    fan_close(&f);
}
END_TEST

void add_fanout_tests(Suite *s)
{
    TCase *tc = suite_case(s, "fanout");

    tcase_add_loop_test(tc, each_gets_all_in_order, 0, n_suts);
    tcase_add_loop_test(tc, failures_of_one_do_not_delay_another, 0, n_suts);
    tcase_add_loop_test(tc, attempts_and_deaths_are_each_ones_own, 0, n_suts);
    tcase_add_loop_test(tc, a_pause_is_for_one, 0, n_suts);
    tcase_add_loop_test(tc, starting_now, 0, n_suts);
    tcase_add_loop_test(tc, starting_now_in_an_empty_log, 0, n_suts);
    tcase_add_loop_test(tc, starting_at_the_oldest_that_is_kept, 0, n_suts);
    tcase_add_loop_test(tc, holds_log_names_the_one_that_nobody_serves, 0,
                        n_suts);
    tcase_add_loop_test(tc, each_with_its_own_topics, 0, n_suts);
}

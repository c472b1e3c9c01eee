/* SPDX-License-Identifier: MIT
 *
 * admin.c - what a person does to a whole subscription: pause it, end it,
 * ask how it is.
 */
#include "kit.h"

#include <stddef.h>
#include <string.h>

/* ---- pause ---------------------------------------------------------- */

START_TEST(paused_it_sends_nothing_until_it_goes_on)
{
    site t;
    outbox_error err;

    site_open(&t, _i);
    publish_numbers(&t.w, "k", 0, 10);
    site_relay(&t);
    ck_ok(outbox_pause(t.w.ob, "default", 1, &err));
    ck_ok(outbox_pause(t.w.ob, "default", 7, &err));    /* is what it was */
    ck_assert_int_eq(database_stats(&t.w, NULL).paused, 1);
    time_pass(&t.w, t.r, 300, 50);
    publish_numbers(&t.w, "k", 10, 10);
    publish_numbers(&t.w, NULL, 20, 10);
    time_pass(&t.w, t.r, 60000, 250);
    ck_assert(sink_exactly(&t.w.sink, 0, 10));
    ck_assert_int_eq(stats_of(t.r).paused, 1);
    ck_assert_uint_eq(stats_of(t.r).leases_lost, 0);
    ck_assert_uint_eq(database_stats(&t.w, NULL).lag, 20);
    ck_ok(outbox_pause(t.w.ob, "default", 0, &err));
    time_pass(&t.w, t.r, 300, 50);
    ck_assert(sink_exactly(&t.w.sink, 0, 30));
    ck_assert(sink_in_order(&t.w.sink));
    ck_assert_int_eq(database_stats(&t.w, NULL).paused, 0);
    site_close(&t);
}
END_TEST

START_TEST(a_pause_outlives_its_relays)
{
    site t;
    outbox_error err;

    site_open(&t, _i);
    site_relay(&t);
    outbox_relay_free(t.r);
    ck_ok(outbox_pause(t.w.ob, "default", 1, &err));
    publish_numbers(&t.w, "k", 0, 10);
    site_relay(&t);
    time_pass(&t.w, t.r, 1000, 50);
    ck_assert_uint_eq(sink_count(&t.w.sink), 0);
    ck_ok(outbox_pause(t.w.ob, "default", 0, &err));
    time_pass(&t.w, t.r, 300, 50);
    ck_assert(sink_exactly(&t.w.sink, 0, 10));
    site_close(&t);
}
END_TEST

/* What is in flight when the pause begins is settled, and saved. */
START_TEST(a_pause_settles_what_is_in_flight)
{
    site t;
    outbox_error err;

    site_open(&t, _i);
    for (long i = 0; i < 10; i++)
        t.p.pending[i] = true;
    publish_numbers(&t.w, NULL, 0, 10);
    publish_numbers(&t.w, "k", 10, 1);
    site_relay(&t);
    ck_ok(outbox_pause(t.w.ob, "default", 1, &err));
    time_pass(&t.w, t.r, 300, 50);
    for (size_t i = 0; i < 10; i++)
        ck_ok(sink_settle(&t.w.sink, i, OUTBOX_ACK));
    time_pass(&t.w, t.r, 300, 50);
    ck_assert_uint_eq(database_stats(&t.w, NULL).lag, 0);
    site_close(&t);
}
END_TEST

/* Retries, parked events and scheduled ones wait, too. */
START_TEST(a_pause_holds_retries_too)
{
    site t;
    outbox_error err;

    site_open(&t, _i);
    t.p.of[1] = OUTBOX_RETRY;
    t.opt.max_attempts = 1000;
    publish_numbers(&t.w, "k", 1, 1);
    site_relay(&t);
    run_among_others(&t.w, t.r, 500, 50);
    ck_ok(outbox_pause(t.w.ob, "default", 1, &err));
    time_pass(&t.w, t.r, 300, 50);
    sink_forget(&t.w.sink);
    time_pass(&t.w, t.r, 10000, 100);
    ck_assert_uint_eq(sink_count(&t.w.sink), 0);
    t.p.of[1] = OUTBOX_ACK;
    ck_ok(outbox_pause(t.w.ob, "default", 0, &err));
    time_pass(&t.w, t.r, 500, 50);
    ck_assert_uint_eq(sink_times(&t.w.sink, 1), 1);
    site_close(&t);
}
END_TEST

/* ---- unsubscribe ---------------------------------------------------- */

START_TEST(unsubscribed_it_is_forgotten)
{
    site t;
    outbox_error err;

    site_with_a_dead_one(&t, _i);
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_PARKED), 3);
    ck_ok(outbox_unsubscribe(t.w.ob, "default", &err));
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_SUBSCRIPTIONS), 0);
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_PARKED), 0);
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_DEAD), 0);
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_RELAYS), 0);
    ck_assert_int_eq(outbox_unsubscribe(t.w.ob, "default", &err),
                     OUTBOX_ENOENT);
    site_close(&t);
}
END_TEST

START_TEST(its_relay_ends_with_enoent)
{
    site t;
    outbox_error err;
    int rc = 0;

    site_with_a_dead_one(&t, _i);
    ck_ok(outbox_unsubscribe(t.w.ob, "default", &err));
    publish_numbers(&t.w, "other", 50, 5);
    for (int i = 0; i < 10 && rc >= 0; i++) {
        vclock_advance(&t.w.clock, 50);
        rc = outbox_relay_step(t.r, 0, &err);
    }
    ck_assert_int_eq(rc, OUTBOX_ENOENT);
    ck_assert_ptr_nonnull(strstr(err.text, "default"));
    sink_forget(&t.w.sink);
    for (int i = 0; i < 100; i++) {     /* it does not make it again */
        vclock_advance(&t.w.clock, 100);
        rc = outbox_relay_step(t.r, 0, &err);
        ck_assert(rc == OUTBOX_OK || rc == OUTBOX_ENOENT);
    }
    ck_assert_uint_eq(sink_count(&t.w.sink), 0);
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_SUBSCRIPTIONS), 0);
    relay_drop(t.r);
    site_relay(&t);                   /* a new one does, from the oldest */
    ck_assert_uint_eq(sink_times(&t.w.sink, 54), 1);
    site_close(&t);
}
END_TEST

static bool has_let_go(void *relay)
{
    return stats_of(relay).leader == 0;
}

/* A relay with a thread: it ends, and stop says why. */
START_TEST(its_thread_ends_with_enoent)
{
    site t;
    outbox_error err;

    site_open(&t, _i);
    t.opt.clock_ms = NULL;
    site_relay(&t);
    ck_assert(!has_let_go(t.r));
    ck_ok(outbox_relay_start(t.r, &err));
    ck_ok(outbox_unsubscribe(t.w.ob, "default", &err));
    ck_assert(within(5000, has_let_go, t.r));
    ck_refused(outbox_relay_stop(t.r, 1000, &err), OUTBOX_ENOENT, "default",
               "");
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_SUBSCRIPTIONS), 0);
    site_close(&t);
}
END_TEST

START_TEST(the_log_is_trimmed_afterwards)
{
    site t;
    outbox_error err;
    outbox_relay_options opt;
    sink s;

    site_open(&t, _i);
    sink_init(&s, sink_retry, NULL);
    opt = t.opt;
    opt.subscription = "slow";
    outbox_relay_t *slow = relay_open(&t.w, &s, &opt, NULL);
    publish_numbers(&t.w, NULL, 1, 200);
    settle_down(slow);
    relay_drop(slow);
    site_relay(&t);
    time_pass(&t.w, t.r, 5000, 100);
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_LOG), 200);
    ck_assert_int_eq(database_stats(&t.w, "slow").holds_log, 1);
    ck_assert_int_eq(database_stats(&t.w, NULL).holds_log, 0);
    ck_ok(outbox_unsubscribe(t.w.ob, "slow", &err));
    time_pass(&t.w, t.r, 5000, 100);
    ck_log_left(&t.w, 1);
    ck_assert_int_eq(database_stats(&t.w, NULL).holds_log, 1);
    ck_assert(sink_exactly(&t.w.sink, 1, 200));
    sink_release(&s);
    site_close(&t);
}
END_TEST

/* ---- stats ---------------------------------------------------------- */

START_TEST(stats_of_a_subscription_that_nobody_serves)
{
    site t;
    outbox_event later = numbered(NULL, 90);

    site_with_a_dead_one(&t, _i);
    outbox_relay_free(t.r);
    t.r = NULL;
    wall_pass(&t.w, 1000);
    publish_numbers(&t.w, "other", 10, 20);
    wall_pass(&t.w, 4000);
    later.due_ms = wall_ms() + 1000;
    publish_event(&t.w, &later);
    outbox_stats st = database_stats(&t.w, NULL);
    ck_assert_uint_eq(st.lag, 20 + 3);
    ck_assert_int_eq(st.lag_ms, 5000);  /* of those parked */
    ck_assert_uint_eq(st.parked, 3);
    ck_assert_uint_eq(st.dead, 1);
    ck_assert_uint_eq(st.scheduled, 1);
    ck_assert_int_eq(st.holds_log, 1);
    ck_assert_int_eq(st.paused, 0);
    ck_assert_uint_eq(st.sent + st.acked + st.inflight + st.blocked_keys, 0);
    ck_assert_int_eq(st.leader + st.breaker_open, 0);
    site_close(&t);
}
END_TEST

/* Nothing is behind in the log, but a key waits: that is lag, and it has an
 * age.  What is dead is not. */
START_TEST(what_is_parked_grows_old)
{
    site t;
    outbox_error err;

    site_with_a_dead_one(&t, _i);
    time_pass(&t.w, t.r, 60000, 1000);
    outbox_stats st = stats_of(t.r);
    ck_assert_uint_eq(st.parked, 3);
    ck_assert_uint_eq(st.lag, 3);
    ck_assert_int_ge(st.lag_ms, 59000);         /* as of the last look */
    ck_assert_int_eq(database_stats(&t.w, NULL).lag_ms, 60000);
    ck_assert_int_eq(outbox_dead_discard(t.w.ob, "default", NULL, &err), 1);
    time_pass(&t.w, t.r, 2000, 100);
    ck_assert_uint_eq(stats_of(t.r).lag, 0);
    ck_assert_int_eq(stats_of(t.r).lag_ms, 0);
    site_close(&t);
}
END_TEST

/* An older program knows a shorter struct: the rest is not written. */
START_TEST(stats_for_an_older_program)
{
    site t;
    outbox_error err;
    outbox_stats st;

    site_with_a_dead_one(&t, _i);
    memset(&st, 0x55, sizeof st);
    st.size = offsetof(outbox_stats, dead) + sizeof st.dead;
    ck_ok(outbox_subscription_stats(t.w.ob, "default", &st, &err));
    ck_assert_uint_eq(st.dead, 1);
    ck_assert_uint_eq(st.blocked_keys, UINT64_C(0x5555555555555555));
    site_close(&t);
}
END_TEST

/* ---- a handle without a relay --------------------------------------- */

/* Each time that it is asked, until it is connected again. */
START_TEST(asked_after_a_lost_connection_it_connects_again)
{
    world w;
    sut_link link;
    outbox_error err;
    outbox_stats st = { .size = sizeof st };
    outbox_t *ob;

    world_open(&w, _i);
    outbox_relay_t *r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_ok(w.sut->connect(&ob, w.db, NULL, &link, &err));
    ck_ok(outbox_subscription_stats(ob, "default", &st, &err));
    w.sut->sever(&link);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(outbox_subscription_stats(ob, "default", &st, &err),
                         OUTBOX_EDB);
    ck_assert_int_lt(outbox_migrate(ob, &err), 0);
    ck_assert_int_lt(publish_number(ob, "k", 1, &err), 0);
    link.severed = false;
    ck_ok(outbox_subscription_stats(ob, "default", &st, &err));
    ck_ok(outbox_pause(ob, "default", 1, &err));
    ck_assert_int_eq(database_stats(&w, NULL).paused, 1);
    w.sut->sever(&link);
    ck_assert_int_lt(outbox_pause(ob, "default", 0, &err), 0);
    link.severed = false;
    ck_ok(outbox_migrate(ob, &err));
    outbox_close(ob);
    relay_drop(r);
    world_close(&w);
}
END_TEST

void add_admin_tests(Suite *s)
{
    TCase *tc = suite_case(s, "admin");

    tcase_add_loop_test(tc, paused_it_sends_nothing_until_it_goes_on, 0,
                        n_suts);
    tcase_add_loop_test(tc, a_pause_outlives_its_relays, 0, n_suts);
    tcase_add_loop_test(tc, a_pause_settles_what_is_in_flight, 0, n_suts);
    tcase_add_loop_test(tc, a_pause_holds_retries_too, 0, n_suts);
    tcase_add_loop_test(tc, unsubscribed_it_is_forgotten, 0, n_suts);
    tcase_add_loop_test(tc, its_relay_ends_with_enoent, 0, n_suts);
    tcase_add_loop_test(tc, its_thread_ends_with_enoent, 0, n_suts);
    tcase_add_loop_test(tc, the_log_is_trimmed_afterwards, 0, n_suts);
    tcase_add_loop_test(tc, stats_of_a_subscription_that_nobody_serves, 0,
                        n_suts);
    tcase_add_loop_test(tc, what_is_parked_grows_old, 0, n_suts);
    tcase_add_loop_test(tc, stats_for_an_older_program, 0, n_suts);
    tcase_add_loop_test(tc, asked_after_a_lost_connection_it_connects_again,
                        1, n_suts);     /* the first has no connection */
}

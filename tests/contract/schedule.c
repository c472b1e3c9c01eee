/* SPDX-License-Identifier: MIT
 *
 * schedule.c - events that are due later: not before their time, in the order
 * of their times, and never forgotten.
 */
#include "kit.h"

#include <string.h>

enum { MINUTE_MS = 60000 };

/* Due so many ms from now. */
static void publish_due(site *t, const char *key, long number, int64_t in_ms)
{
    outbox_event ev = numbered(key, number);

    ev.due_ms = wall_ms() + in_ms;
    publish_event(&t->w, &ev);
}

START_TEST(not_before_its_time)
{
    site t;

    site_open(&t, _i);
    site_relay(&t);
    publish_due(&t, "k", 1, 10000);
    settle_down(t.r);
    ck_assert_uint_eq(database_stats(&t.w, NULL).scheduled, 1);
    ck_assert_uint_eq(database_stats(&t.w, NULL).lag, 0);
    time_pass(&t.w, t.r, 9950, 50);
    site_end_relay(&t);                 /* a new one looks at once */
    site_relay(&t);
    ck_assert_uint_eq(sink_count(&t.w.sink), 0);
    ck_assert_uint_eq(database_stats(&t.w, NULL).scheduled, 1);
    time_pass(&t.w, t.r, 300, 50);
    ck_assert(sink_exactly(&t.w.sink, 1, 1));
    ck_assert_uint_eq(database_stats(&t.w, NULL).scheduled, 0);
    time_pass(&t.w, t.r, MINUTE_MS, 1000);
    ck_assert_uint_eq(sink_count(&t.w.sink), 1);
    site_close(&t);
}
END_TEST

/* It is the database's clock that says when, not the relay's. */
START_TEST(by_the_clock_of_the_database)
{
    site t;

    site_open(&t, _i);
    site_relay(&t);
    publish_due(&t, "k", 1, 10000);
    run_for(&t.w, t.r, MINUTE_MS, 1000);
    ck_assert_uint_eq(sink_count(&t.w.sink), 0);
    wall_pass(&t.w, 10000);
    run_for(&t.w, t.r, 300, 50);
    ck_assert(sink_exactly(&t.w.sink, 1, 1));
    site_close(&t);
}
END_TEST

START_TEST(a_time_that_is_past_is_at_once)
{
    site t;
    outbox_event ev = numbered("k", 1);

    site_open(&t, _i);
    site_relay(&t);
    ev.due_ms = 1;
    publish_event(&t.w, &ev);
    publish_due(&t, "k", 2, -1);
    publish_due(&t, "k", 3, 0);
    ck_assert_uint_eq(database_stats(&t.w, NULL).scheduled, 0);
    settle_down(t.r);
    ck_assert(once_in_order(&t.w.sink, 1, 3));
    site_close(&t);
}
END_TEST

/* In the order of their times, whatever the order of publishing; those of the
 * same time in that order.  More than are moved in one go. */
START_TEST(in_the_order_of_their_times)
{
    site t;
    outbox_error err;

    site_open(&t, _i);
    ck_ok(t.w.sut->begin(t.w.app));
    for (long i = 0; i < 1200; i++) {
        outbox_event ev = numbered("k", 1199 - i);
        ev.due_ms = wall_ms() + 1000 + 10 * (1199 - i);
        ck_ok(outbox_publish(t.w.ob, &ev, &err));
    }
    for (long i = 1200; i < 1210; i++) {
        outbox_event ev = numbered("k", i);
        ev.due_ms = wall_ms() + 100000;
        ck_ok(outbox_publish(t.w.ob, &ev, &err));
    }
    ck_ok(t.w.sut->commit(t.w.app));
    wall_pass(&t.w, 200000);
    site_relay(&t);
    time_pass(&t.w, t.r, 2000, 100);
    ck_assert_uint_eq(sink_count(&t.w.sink), 1210);
    for (size_t i = 0; i < 1210; i++)
        ck_assert_int_eq(sink_number(&t.w.sink, i), (long)i);
    site_close(&t);
}
END_TEST

/* Its place in the order of its key is when it is due. */
START_TEST(it_holds_up_nothing)
{
    site t;

    site_open(&t, _i);
    site_relay(&t);
    publish_due(&t, "k", 1, 5000);
    publish_numbers(&t.w, "k", 2, 3);
    settle_down(t.r);
    ck_assert(once_in_order(&t.w.sink, 2, 3));
    time_pass(&t.w, t.r, 6000, 100);
    publish_numbers(&t.w, "k", 5, 1);
    settle_down(t.r);
    ck_assert_uint_eq(sink_count(&t.w.sink), 5);
    ck_assert_int_eq(sink_number(&t.w.sink, 3), 1);
    ck_assert_int_eq(sink_number(&t.w.sink, 4), 5);
    site_close(&t);
}
END_TEST

/* Behind a failing one of its key it waits as any other. */
START_TEST(due_behind_a_parked_one)
{
    site t;

    site_open(&t, _i);
    t.opt.max_attempts = 1000;
    site_relay(&t);
    t.p.of[1] = OUTBOX_RETRY;
    publish_numbers(&t.w, "k", 1, 1);
    publish_due(&t, "k", 2, 1000);
    run_among_others(&t.w, t.r, 500, 50);
    wall_pass(&t.w, 2000);
    run_among_others(&t.w, t.r, 500, 50);
    ck_assert_uint_eq(sink_times(&t.w.sink, 2), 0);
    ck_assert_int_eq(site_parked(&t), 2);
    t.p.of[1] = OUTBOX_ACK;
    run_among_others(&t.w, t.r, 500, 50);
    ck_assert_uint_gt(first_of(&t.w.sink, 2), last_of_number(&t.w.sink, 1));
    site_close(&t);
}
END_TEST

START_TEST(it_arrives_whole)
{
    static const outbox_header h = { "correlation-id", "c-1" };
    site t;
    outbox_event ev = numbered("the key", 1);

    site_open(&t, _i);
    ev.topic = "later";
    ev.type = "reminder";
    ev.content_type = "text/plain";
    ev.headers = &h;
    ev.n_headers = 1;
    ev.due_ms = wall_ms() + 1000;
    ev.expires_ms = wall_ms() + 5000;
    ev.id = "0190c2a8-7b1c-7cc3-98c4-dc0c0c07398f";
    publish_event(&t.w, &ev);
    ck_assert_str_eq(outbox_last_id(t.w.ob), ev.id);
    wall_pass(&t.w, 1000);
    site_relay(&t);
    const outbox_event *got = &sink_at(&t.w.sink, 0)->event;
    ck_assert_str_eq(got->topic, "later");
    ck_assert_str_eq(got->type, "reminder");
    ck_assert_str_eq(got->key, "the key");
    ck_assert_str_eq(got->content_type, "text/plain");
    ck_assert_str_eq(got->id, ev.id);
    ck_assert_uint_eq(got->n_headers, 1);
    ck_assert_str_eq(got->headers[0].value, "c-1");
    ck_assert_int_eq(got->expires_ms, ev.expires_ms);
    ck_assert_int_eq(got->published_ms, ev.due_ms);
    ck_assert_int_gt(got->position, 0);
    site_close(&t);
}
END_TEST

START_TEST(it_survives_restarts)
{
    site t;

    site_open(&t, _i);
    site_relay(&t);
    publish_due(&t, "k", 1, MINUTE_MS);
    publish_due(&t, NULL, 2, 2 * MINUTE_MS);
    time_pass(&t.w, t.r, 1000, 100);
    site_end_relay(&t);
    time_pass(&t.w, NULL, 90000, 1000);
    ck_assert_uint_eq(database_stats(&t.w, NULL).scheduled, 2);
    site_relay(&t);
    ck_assert(sink_exactly(&t.w.sink, 1, 1));
    time_pass(&t.w, t.r, MINUTE_MS, 1000);
    ck_assert(sink_exactly(&t.w.sink, 1, 2));
    site_end_relay(&t);
    sink_forget(&t.w.sink);
    site_relay(&t);
    ck_assert_uint_eq(sink_count(&t.w.sink), 0);
    site_close(&t);
}
END_TEST

/* A relay that is killed between moving it and sending it. */
START_TEST(it_survives_a_crash_when_it_is_due)
{
    site t;
    sut_link link;

    site_open(&t, _i);
    t.p.pending[1] = true;
    t.opt.lease_ms = 1000;
    publish_due(&t, "k", 1, 100);
    t.r = relay_open(&t.w, NULL, &t.opt, &link);
    time_pass(&t.w, t.r, 500, 50);
    ck_assert_uint_eq(sink_count(&t.w.sink), 1);
    relay_crash(&t.w, t.r, &link);
    t.p.pending[1] = false;
    t.r = relay_open(&t.w, NULL, &t.opt, NULL);
    time_pass(&t.w, t.r, 2000, 50);
    ck_assert_uint_eq(sink_count(&t.w.sink), 2);
    ck_assert_uint_eq(stats_of(t.r).acked, 1);
    ck_assert_uint_eq(database_stats(&t.w, NULL).lag, 0);
    site_close(&t);
}
END_TEST

START_TEST(it_belongs_to_the_transaction)
{
    site t;
    outbox_error err;
    outbox_event ev[3];

    site_open(&t, _i);
    site_relay(&t);
    for (long i = 0; i < 3; i++) {
        ev[i] = numbered("k", i);
        ev[i].due_ms = wall_ms() + 1000;
    }
    ck_ok(t.w.sut->begin(t.w.app));
    ck_ok(outbox_publish(t.w.ob, &ev[0], &err));
    ck_ok(t.w.sut->rollback(t.w.app));
    ck_ok(t.w.sut->begin(t.w.app));
    ck_ok(t.w.sut->work(t.w.app));
    ck_ok(t.w.sut->savepoint(t.w.app));
    ck_ok(outbox_publish(t.w.ob, &ev[1], &err));
    ck_ok(t.w.sut->rollback_to(t.w.app));
    ck_ok(outbox_publish(t.w.ob, &ev[2], &err));
    ck_ok(t.w.sut->commit(t.w.app));
    ck_assert_uint_eq(database_stats(&t.w, NULL).scheduled, 1);
    time_pass(&t.w, t.r, 5000, 100);
    ck_assert_uint_eq(sink_count(&t.w.sink), 1);
    ck_assert_int_eq(sink_number(&t.w.sink, 0), 2);
    site_close(&t);
}
END_TEST

/* One that is refused takes those that are due later with it. */
START_TEST(many_with_times_are_all_or_none)
{
    site t;
    outbox_error err;
    outbox_event ev[4];
    const outbox_event *at[4];

    site_open(&t, _i);
    for (long i = 0; i < 4; i++) {
        ev[i] = numbered("k", i);
        ev[i].due_ms = i % 2 == 0 ? wall_ms() + 1000 + i : 0;
        at[i] = &ev[i];
    }
    site_relay(&t);
    ck_ok(t.w.sut->begin(t.w.app));
    ev[3].topic = "";
    ck_assert_int_eq(outbox_publish_many(t.w.ob, at, 4, &err), OUTBOX_EINVAL);
    ck_ok(t.w.sut->commit(t.w.app));
    ck_assert_uint_eq(database_stats(&t.w, NULL).scheduled, 0);
    ev[3].topic = "numbers";
    ck_ok(t.w.sut->begin(t.w.app));
    ck_ok(outbox_publish_commit(t.w.ob, at, 4, &err));
    ck_assert_uint_eq(database_stats(&t.w, NULL).scheduled, 2);
    time_pass(&t.w, t.r, 3000, 100);
    ck_assert(sink_exactly(&t.w.sink, 0, 4));
    site_close(&t);
}
END_TEST

/* Every subscription gets it once, also one that began after it was
 * published, whoever moved it into the log. */
START_TEST(every_subscription_gets_it)
{
    site t;
    sink s;
    outbox_relay_options opt;

    site_open(&t, _i);
    sink_init(&s, NULL, NULL);
    site_relay(&t);
    publish_due(&t, "k", 1, 1000);
    publish_numbers(&t.w, "k", 2, 1);
    settle_down(t.r);
    opt = t.opt;
    opt.subscription = "new";
    opt.start = OUTBOX_START_NOW;
    outbox_relay_t *r = relay_open(&t.w, &s, &opt, NULL);
    settle_down(r);
    time_pass(&t.w, t.r, 2000, 100);
    settle_down(r);
    ck_assert(sink_exactly(&t.w.sink, 1, 2));
    ck_assert(sink_exactly(&s, 1, 1));
    outbox_relay_free(r);
    sink_release(&s);
    site_close(&t);
}
END_TEST

/* Two relays of one subscription: one of them moves it, once. */
START_TEST(two_relays_move_it_once)
{
    site t;
    sink s;

    site_open(&t, _i);
    sink_init(&s, NULL, NULL);
    site_relay(&t);
    outbox_relay_t *r = relay_open(&t.w, &s, &t.opt, NULL);
    for (long i = 1; i <= 50; i++)
        publish_due(&t, key_of(i), i, 1000 + i);
    for (int i = 0; i < 300; i++) {
        time_pass(&t.w, t.r, 50, 50);
        settle_down(r);
    }
    ck_assert_uint_eq(sink_count(&s) + sink_count(&t.w.sink), 50);
    ck_assert_uint_gt(sink_count(&s), 0);
    ck_assert_uint_gt(sink_count(&t.w.sink), 0);
    outbox_relay_free(r);
    sink_release(&s);
    site_close(&t);
}
END_TEST

START_TEST(times_that_are_refused)
{
    site t;
    outbox_error err;
    outbox_event ev = numbered("k", 1);

    site_open(&t, _i);
    ev.due_ms = -1;
    ck_refused(publish_one(&t.w, &ev, &err), OUTBOX_EINVAL, "due_ms",
               "negative");
    ev.due_ms = wall_ms() + 1000;
    ev.expires_ms = ev.due_ms;
    ck_refused(publish_one(&t.w, &ev, &err), OUTBOX_EINVAL, "expires_ms",
               "due_ms");
    ev.expires_ms = ev.due_ms - 1;
    ck_refused(publish_one(&t.w, &ev, &err), OUTBOX_EINVAL, "expires_ms",
               "due_ms");
    ev.expires_ms = ev.due_ms + 1;
    ck_ok(publish_one(&t.w, &ev, &err));
    site_relay(&t);
    ck_assert_uint_eq(database_stats(&t.w, NULL).scheduled, 1);
    site_close(&t);
}
END_TEST

void add_schedule_tests(Suite *s)
{
    TCase *tc = suite_case(s, "schedule");

    tcase_add_loop_test(tc, not_before_its_time, 0, n_ways);
    tcase_add_loop_test(tc, by_the_clock_of_the_database, 0, n_ways);
    tcase_add_loop_test(tc, a_time_that_is_past_is_at_once, 0, n_ways);
    tcase_add_loop_test(tc, in_the_order_of_their_times, 0, n_ways);
    tcase_add_loop_test(tc, it_holds_up_nothing, 0, n_ways);
    tcase_add_loop_test(tc, due_behind_a_parked_one, 0, n_ways);
    tcase_add_loop_test(tc, it_arrives_whole, 0, n_ways);
    tcase_add_loop_test(tc, it_survives_restarts, 0, n_ways);
    tcase_add_loop_test(tc, it_survives_a_crash_when_it_is_due, 0, n_ways);
    tcase_add_loop_test(tc, it_belongs_to_the_transaction, 0, n_ways);
    tcase_add_loop_test(tc, many_with_times_are_all_or_none, 0, n_ways);
    tcase_add_loop_test(tc, every_subscription_gets_it, 0, n_ways);
    tcase_add_loop_test(tc, two_relays_move_it_once, 0, n_ways);
    tcase_add_loop_test(tc, times_that_are_refused, 0, n_ways);
}

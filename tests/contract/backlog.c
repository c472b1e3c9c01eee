/* SPDX-License-Identifier: MIT
 *
 * backlog.c - max_backlog: publishing stops before the log eats the disk, and
 * goes on when the slowest subscription has caught up.
 */
#include "kit.h"

#include <string.h>

/* A handle of its own, which stops at 10. */
typedef struct limited {
    site      t;
    void     *conn;
    outbox_t *ob;
} limited;

static void limited_open(limited *l, int which)
{
    outbox_options opt = { .size = sizeof opt, .max_backlog = 10 };
    outbox_error err;

    site_open(&l->t, which);
    l->conn = l->t.w.sut->conn_open(l->t.w.db);
    ck_ok(l->t.w.sut->outbox(&l->ob, l->conn, &opt, &err));
}

static void limited_close(limited *l)
{
    outbox_close(l->ob);
    l->t.w.sut->conn_close(l->conn);
    site_close(&l->t);
}

/* In the transaction that is open on the connection. */
static int put(limited *l, long number, outbox_error *err)
{
    return publish_number(l->ob, "k", number, err);
}

/* In one of its own: how many of these are taken? */
static int fill(limited *l, long from, int n)
{
    outbox_error err;
    int taken = 0;

    ck_ok(l->t.w.sut->begin(l->conn));
    for (long i = from; i < from + n; i++) {
        int rc = put(l, i, &err);
        ck_assert(rc == OUTBOX_OK || rc == OUTBOX_EFULL);
        taken += rc == OUTBOX_OK;
    }
    ck_ok(l->t.w.sut->commit(l->conn));
    return taken;
}

START_TEST(full_at_the_limit)
{
    limited l;
    outbox_error err;

    limited_open(&l, _i);
    ck_ok(l.t.w.sut->begin(l.conn));
    for (long i = 1; i <= 10; i++)
        ck_ok(put(&l, i, &err));
    ck_refused(put(&l, 100, &err), OUTBOX_EFULL, "max_backlog is 10", "10");
    ck_assert_int_eq(publish_number(l.ob, "k", 100, NULL), OUTBOX_EFULL);
    ck_ok(l.t.w.sut->work(l.conn));     /* the transaction is as good */
    ck_ok(l.t.w.sut->commit(l.conn));
    ck_assert_int_eq(l.t.w.sut->count(l.t.w.db, SUT_LOG), 10);
    ck_assert_int_eq(l.t.w.sut->count(l.t.w.db, SUT_WORK), 1);
    site_relay(&l.t);
    ck_assert(sink_exactly(&l.t.w.sink, 1, 10));
    limited_close(&l);
}
END_TEST

/* Handles without a limit do not mind, and what they wrote counts. */
START_TEST(the_limit_is_the_handles)
{
    limited l;
    outbox_error err;

    limited_open(&l, _i);
    publish_numbers(&l.t.w, "k", 1, 20);
    ck_assert_int_eq(fill(&l, 100, 1), 0);
    ck_ok(l.t.w.sut->begin(l.conn));
    ck_refused(put(&l, 100, &err), OUTBOX_EFULL, "20 events",
               "max_backlog is 10");
    ck_ok(l.t.w.sut->rollback(l.conn));
    publish_numbers(&l.t.w, "k", 21, 1);
    limited_close(&l);
}
END_TEST

START_TEST(it_lets_go_when_delivered)
{
    limited l;

    limited_open(&l, _i);
    ck_assert_int_eq(fill(&l, 1, 12), 10);
    site_relay(&l.t);
    run_for(&l.t.w, l.t.r, 500, 50);
    ck_assert_int_eq(fill(&l, 11, 12), 10);
    run_for(&l.t.w, l.t.r, 2000, 50);   /* trimmed, too */
    ck_assert_int_eq(fill(&l, 21, 12), 10);
    run_for(&l.t.w, l.t.r, 500, 50);
    ck_assert(sink_exactly(&l.t.w.sink, 1, 30));
    limited_close(&l);
}
END_TEST

START_TEST(a_rollback_makes_room)
{
    limited l;
    outbox_error err;

    limited_open(&l, _i);
    ck_ok(l.t.w.sut->begin(l.conn));
    for (long i = 100; i < 110; i++)
        ck_ok(put(&l, i, &err));
    ck_assert_int_eq(put(&l, 110, &err), OUTBOX_EFULL);
    ck_ok(l.t.w.sut->rollback(l.conn));
    ck_assert_int_eq(fill(&l, 1, 12), 10);
    limited_close(&l);
}
END_TEST

START_TEST(many_fit_or_none_is_written)
{
    limited l;
    outbox_error err;
    outbox_event ev[11];
    const outbox_event *at[11];

    limited_open(&l, _i);
    for (long i = 0; i < 11; i++) {
        ev[i] = numbered("k", i + 1);
        at[i] = &ev[i];
    }
    ev[0].dedup_key = "a";
    ck_ok(l.t.w.sut->begin(l.conn));
    ck_refused(outbox_publish_many(l.ob, at, 11, &err), OUTBOX_EFULL,
               "max_backlog is 10", "0 events");
    ck_ok(outbox_publish_many(l.ob, at, 10, &err));     /* "a" is free */
    ck_ok(outbox_publish_many(l.ob, at, 0, &err));
    ck_ok(l.t.w.sut->commit(l.conn));
    ck_assert_int_eq(l.t.w.sut->count(l.t.w.db, SUT_LOG), 10);
    limited_close(&l);
}
END_TEST

START_TEST(publish_commit_leaves_the_transaction_open)
{
    limited l;
    outbox_error err;
    outbox_event ev = numbered("k", 100);
    const outbox_event *at = &ev;

    limited_open(&l, _i);
    ck_assert_int_eq(fill(&l, 1, 10), 10);
    ck_ok(l.t.w.sut->begin(l.conn));
    ck_ok(l.t.w.sut->work(l.conn));
    ck_assert_int_eq(outbox_publish_commit(l.ob, &at, 1, &err), OUTBOX_EFULL);
    ck_assert(l.t.w.sut->in_transaction(l.conn));
    ck_assert_int_eq(l.t.w.sut->count(l.t.w.db, SUT_WORK), 0);
    ck_ok(l.t.w.sut->commit(l.conn));
    ck_assert_int_eq(l.t.w.sut->count(l.t.w.db, SUT_LOG), 10);
    limited_close(&l);
}
END_TEST

START_TEST(scheduled_events_count)
{
    limited l;
    outbox_error err;

    limited_open(&l, _i);
    for (long i = 1; i <= 6; i++) {
        outbox_event ev = numbered("k", i);
        ev.due_ms = wall_ms() + 1000;
        publish_event(&l.t.w, &ev);
    }
    ck_assert_int_eq(fill(&l, 7, 12), 4);
    site_relay(&l.t);
    run_for(&l.t.w, l.t.r, 500, 50);
    ck_assert_int_eq(fill(&l, 11, 12), 4);
    ck_ok(l.t.w.sut->begin(l.conn));
    outbox_event ev = numbered("k", 100);
    ev.due_ms = wall_ms() + 1000;
    run_for(&l.t.w, l.t.r, 500, 50);
    ck_assert_int_eq(outbox_publish(l.ob, &ev, &err), OUTBOX_OK);
    ck_ok(l.t.w.sut->rollback(l.conn));
    time_pass(&l.t.w, l.t.r, 2000, 50);
    ck_assert(sink_exactly(&l.t.w.sink, 1, 14));
    limited_close(&l);
}
END_TEST

START_TEST(the_slowest_subscription_counts)
{
    limited l;
    sink s;
    outbox_relay_options opt;
    outbox_error err;

    limited_open(&l, _i);
    sink_init(&s, sink_pending, NULL);
    opt = l.t.opt;
    opt.subscription = "slow";
    outbox_relay_t *r = relay_open(&l.t.w, &s, &opt, NULL);
    settle_down(r);
    site_relay(&l.t);
    ck_assert_int_eq(fill(&l, 1, 12), 10);
    settle_down(r);
    run_for(&l.t.w, l.t.r, 500, 50);
    ck_assert(sink_exactly(&l.t.w.sink, 1, 10));
    ck_assert_int_eq(fill(&l, 100, 1), 0);
    relay_drop(r);
    ck_assert_int_eq(fill(&l, 100, 1), 0);
    ck_ok(outbox_unsubscribe(l.t.w.ob, "slow", &err));
    ck_assert_int_eq(fill(&l, 11, 12), 10);
    sink_release(&s);
    limited_close(&l);
}
END_TEST

/* Parked and dead events are out of the log: a bad key does not stop the
 * publishers of the others. */
START_TEST(parked_and_dead_ones_do_not_count)
{
    limited l;

    limited_open(&l, _i);
    l.t.p.of[3] = OUTBOX_REJECT;
    ck_assert_int_eq(fill(&l, 1, 10), 10);
    site_relay(&l.t);
    run_for(&l.t.w, l.t.r, 500, 50);
    ck_assert_int_eq(site_parked(&l.t), 7);
    ck_assert_int_eq(fill(&l, 11, 12), 10);
    limited_close(&l);
}
END_TEST

START_TEST(a_limit_that_is_refused)
{
    site t;
    outbox_options opt = { .size = sizeof opt, .max_backlog = -1 };
    outbox_error err;
    outbox_t *ob = (void *)&t;

    site_open(&t, _i);
    ck_refused(t.w.sut->outbox(&ob, t.w.app, &opt, &err), OUTBOX_EINVAL,
               "max_backlog", "negative");
    ck_assert_ptr_null(ob);
    site_close(&t);
}
END_TEST

void add_backlog_tests(Suite *s)
{
    TCase *tc = suite_case(s, "backlog");

    tcase_add_loop_test(tc, full_at_the_limit, 0, n_ways);
    tcase_add_loop_test(tc, the_limit_is_the_handles, 0, n_ways);
    tcase_add_loop_test(tc, it_lets_go_when_delivered, 0, n_ways);
    tcase_add_loop_test(tc, a_rollback_makes_room, 0, n_ways);
    tcase_add_loop_test(tc, many_fit_or_none_is_written, 0, n_ways);
    tcase_add_loop_test(tc, publish_commit_leaves_the_transaction_open, 0,
                        n_ways);
    tcase_add_loop_test(tc, scheduled_events_count, 0, n_ways);
    tcase_add_loop_test(tc, the_slowest_subscription_counts, 0, n_ways);
    tcase_add_loop_test(tc, parked_and_dead_ones_do_not_count, 0, n_ways);
    tcase_add_loop_test(tc, a_limit_that_is_refused, 0, n_ways);
}

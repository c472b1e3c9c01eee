/* SPDX-License-Identifier: MIT
 *
 * publish.c - events live and die with the caller's transaction.
 */
#include "contract.h"

#include <string.h>

START_TEST(commits_with_the_transaction)
{
    world w;
    outbox_error err;

    world_open(&w, _i);
    ck_ok(w.sut->begin(w.app));
    ck_ok(w.sut->work(w.app));
    ck_ok(publish_number(w.ob, "k", 1, &err));
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 0);
    ck_ok(w.sut->commit(w.app));
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 1);
    ck_assert_int_eq(w.sut->count(w.db, SUT_WORK), 1);
    world_close(&w);
}
END_TEST

START_TEST(vanishes_with_a_rollback)
{
    world w;
    outbox_error err;

    world_open(&w, _i);
    ck_ok(w.sut->begin(w.app));
    ck_ok(w.sut->work(w.app));
    ck_ok(publish_number(w.ob, "k", 1, &err));
    ck_ok(w.sut->rollback(w.app));
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 0);
    ck_assert_int_eq(w.sut->count(w.db, SUT_WORK), 0);
    world_close(&w);
}
END_TEST

START_TEST(vanishes_with_its_savepoint)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    world_open(&w, _i);
    ck_ok(w.sut->begin(w.app));
    ck_ok(publish_number(w.ob, "k", 1, &err));
    ck_ok(w.sut->savepoint(w.app));
    ck_ok(publish_number(w.ob, "k", 2, &err));
    ck_ok(w.sut->rollback_to(w.app));
    ck_ok(publish_number(w.ob, "k", 3, &err));
    ck_ok(w.sut->commit(w.app));
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_assert_uint_eq(sink_count(&w.sink), 2);
    ck_assert_int_eq(sink_number(&w.sink, 0), 1);
    ck_assert_int_eq(sink_number(&w.sink, 1), 3);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(is_not_sent_before_the_commit)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    world_open(&w, _i);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_ok(w.sut->begin(w.app));
    ck_ok(publish_number(w.ob, "k", 1, &err));
    steps(r, 3);
    ck_assert_uint_eq(sink_count(&w.sink), 0);
    ck_ok(w.sut->commit(w.app));
    vclock_advance(&w.clock, 2000);
    settle_down(r);
    ck_assert_uint_eq(sink_count(&w.sink), 1);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

static void array_of(outbox_event *events, const outbox_event **at, size_t n)
{
    static const char digits[] = "0123456789";

    for (size_t i = 0; i < n; i++) {
        events[i] = (outbox_event){ .size = sizeof events[i],
                                    .topic = "many",
                                    .key = "k",
                                    .payload = &digits[i % 10],
                                    .payload_len = 1 };
        at[i] = &events[i];
    }
}

START_TEST(many_keep_the_order_of_the_array)
{
    world w;
    outbox_error err;
    outbox_event events[10];
    const outbox_event *at[10];
    outbox_relay_t *r;

    world_open(&w, _i);
    array_of(events, at, 10);
    ck_ok(w.sut->begin(w.app));
    ck_ok(outbox_publish_many(w.ob, at, 10, &err));
    ck_ok(w.sut->commit(w.app));
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_assert_uint_eq(sink_count(&w.sink), 10);
    for (size_t i = 0; i < 10; i++)
        ck_assert_int_eq(sink_number(&w.sink, i), (long)i);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(many_are_all_or_none)
{
    world w;
    outbox_error err;
    outbox_event events[5];
    const outbox_event *at[5];

    world_open(&w, _i);
    array_of(events, at, 5);
    events[3].topic = "";
    ck_ok(w.sut->begin(w.app));
    ck_assert_int_eq(outbox_publish_many(w.ob, at, 5, &err), OUTBOX_EINVAL);
    events[3].topic = "many";
    at[4] = NULL;
    ck_assert_int_eq(outbox_publish_many(w.ob, at, 5, &err), OUTBOX_EINVAL);
    ck_ok(outbox_publish_many(w.ob, at, 1, &err));
    ck_ok(w.sut->commit(w.app));
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 1);
    world_close(&w);
}
END_TEST

START_TEST(none_of_many_is_nothing)
{
    world w;
    outbox_error err;

    world_open(&w, _i);
    ck_ok(w.sut->begin(w.app));
    ck_ok(outbox_publish_many(w.ob, NULL, 0, &err));
    ck_assert_str_eq(outbox_last_id(w.ob), "");
    ck_ok(w.sut->commit(w.app));
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 0);
    world_close(&w);
}
END_TEST

START_TEST(publish_commit_commits_everything)
{
    world w;
    outbox_error err;
    outbox_event events[3];
    const outbox_event *at[3];

    world_open(&w, _i);
    array_of(events, at, 3);
    ck_ok(w.sut->begin(w.app));
    ck_ok(w.sut->work(w.app));
    ck_ok(outbox_publish_commit(w.ob, at, 3, &err));
    ck_assert(!w.sut->in_transaction(w.app));
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 3);
    ck_assert_int_eq(w.sut->count(w.db, SUT_WORK), 1);
    world_close(&w);
}
END_TEST

START_TEST(publish_commit_refused_leaves_the_transaction_open)
{
    world w;
    outbox_error err;
    outbox_event events[2];
    const outbox_event *at[2];

    world_open(&w, _i);
    array_of(events, at, 2);
    events[1].id = "nonsense";
    ck_ok(w.sut->begin(w.app));
    ck_ok(w.sut->work(w.app));
    ck_assert_int_eq(outbox_publish_commit(w.ob, at, 2, &err), OUTBOX_EINVAL);
    ck_assert(w.sut->in_transaction(w.app));
    ck_assert_int_eq(w.sut->count(w.db, SUT_WORK), 0);
    ck_ok(outbox_publish_commit(w.ob, at, 1, &err));
    ck_assert_int_eq(w.sut->count(w.db, SUT_WORK), 1);
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 1);
    world_close(&w);
}
END_TEST

START_TEST(needs_a_transaction)
{
    world w;
    outbox_error err;
    outbox_event ev = { .size = sizeof ev, .topic = "t" };
    const outbox_event *at = &ev;

    world_open(&w, _i);
    ck_assert_int_eq(outbox_publish(w.ob, &ev, &err), OUTBOX_ENOTX);
    ck_assert_int_eq(err.code, OUTBOX_ENOTX);
    ck_assert_int_eq(outbox_publish_many(w.ob, &at, 1, &err), OUTBOX_ENOTX);
    ck_assert_int_eq(outbox_publish_commit(w.ob, &at, 1, NULL), OUTBOX_ENOTX);
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 0);
    ck_assert_str_eq(outbox_last_id(w.ob), "");
    world_close(&w);
}
END_TEST

START_TEST(refuses_when_the_transaction_is_gone)
{
    world w;
    outbox_error err;
    int rc;

    world_open(&w, _i);
    ck_ok(w.sut->begin(w.app));
    ck_ok(w.sut->work(w.app));
    ck_ok(w.sut->lose_transaction(w.app));
    rc = publish_number(w.ob, "k", 1, &err);
    ck_assert(rc == OUTBOX_ENOTX || rc == OUTBOX_EABORTED);
    w.sut->commit(w.app);
    ck_assert_int_eq(w.sut->count(w.db, SUT_WORK), 0);
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 0);
    world_close(&w);
}
END_TEST

START_TEST(last_id_is_that_of_the_last_event)
{
    world w;
    outbox_error err;
    char first[40];
    outbox_relay_t *r;

    world_open(&w, _i);
    ck_assert_str_eq(outbox_last_id(w.ob), "");
    ck_ok(w.sut->begin(w.app));
    ck_ok(publish_number(w.ob, "k", 1, &err));
    strcpy(first, outbox_last_id(w.ob));
    ck_ok(publish_number(w.ob, "k", 2, &err));
    ck_assert_str_ne(first, outbox_last_id(w.ob));
    ck_assert_int_lt(publish_number(w.ob, "\xff", 3, &err), 0);
    ck_ok(w.sut->commit(w.app));
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_assert_str_eq(sink_at(&w.sink, 0)->event.id, first);
    ck_assert_str_eq(sink_at(&w.sink, 1)->event.id, outbox_last_id(w.ob));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(read_only_is_refused)
{
    world w;
    outbox_error err;
    outbox_t *ob;
    void *conn;

    world_open(&w, _i);
    conn = w.sut->conn_read_only(w.db);
    ck_ok(w.sut->outbox(&ob, conn, NULL, &err));
    ck_ok(w.sut->begin(conn));
    ck_assert_int_eq(publish_number(ob, "k", 1, &err), OUTBOX_EREADONLY);
    ck_assert_int_eq(err.code, OUTBOX_EREADONLY);
    ck_ok(w.sut->rollback(conn));
    outbox_close(ob);
    w.sut->conn_close(conn);
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 0);
    world_close(&w);
}
END_TEST

START_TEST(two_publishers_share_one_log)
{
    world w;
    outbox_error err;
    outbox_t *other;
    void *conn;

    world_open(&w, _i);
    conn = w.sut->conn_open(w.db);
    ck_ok(w.sut->outbox(&other, conn, NULL, &err));
    publish_numbers(&w, "k", 1, 1);
    ck_ok(w.sut->begin(conn));
    ck_ok(publish_number(other, "k", 2, &err));
    ck_ok(w.sut->commit(conn));
    drain_after_crash(&w, &w.sink, NULL);
    ck_assert(sink_exactly(&w.sink, 1, 2));
    ck_assert(sink_in_order(&w.sink));
    outbox_close(other);
    w.sut->conn_close(conn);
    world_close(&w);
}
END_TEST

void add_publish_tests(Suite *s)
{
    TCase *tc = suite_case(s, "publish");

    tcase_add_loop_test(tc, commits_with_the_transaction, 0, n_ways);
    tcase_add_loop_test(tc, vanishes_with_a_rollback, 0, n_ways);
    tcase_add_loop_test(tc, vanishes_with_its_savepoint, 0, n_ways);
    tcase_add_loop_test(tc, is_not_sent_before_the_commit, 0, n_ways);
    tcase_add_loop_test(tc, many_keep_the_order_of_the_array, 0, n_ways);
    tcase_add_loop_test(tc, many_are_all_or_none, 0, n_ways);
    tcase_add_loop_test(tc, none_of_many_is_nothing, 0, n_ways);
    tcase_add_loop_test(tc, publish_commit_commits_everything, 0, n_ways);
    tcase_add_loop_test(tc, publish_commit_refused_leaves_the_transaction_open,
                        0, n_ways);
    tcase_add_loop_test(tc, needs_a_transaction, 0, n_ways);
    tcase_add_loop_test(tc, refuses_when_the_transaction_is_gone, 0, n_ways);
    tcase_add_loop_test(tc, last_id_is_that_of_the_last_event, 0, n_ways);
    tcase_add_loop_test(tc, read_only_is_refused, 0, n_ways);
    tcase_add_loop_test(tc, two_publishers_share_one_log, 0, n_ways);
}

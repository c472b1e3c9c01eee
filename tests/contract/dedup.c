/* SPDX-License-Identifier: MIT
 *
 * dedup.c - an event with a dedup_key is published once, and the key belongs
 * to the transaction as the event does.
 */
#include "kit.h"

#include "common/sut_sqlite.h"

#include <string.h>

static const int64_t day_ms = 86400000;

static outbox_event once(const char *dedup_key, long number)
{
    outbox_event ev = numbered("k", number);

    ev.dedup_key = dedup_key;
    return ev;
}

/* In the transaction that is open. */
static int put(site *t, const char *dedup_key, long number)
{
    outbox_event ev = once(dedup_key, number);
    outbox_error err;
    int rc = outbox_publish(t->w.ob, &ev, &err);

    ck_assert_msg(rc >= 0, "publish: %d %s", rc, err.text);
    return rc;
}

/* In one of its own. */
static int put_alone(site *t, const char *dedup_key, long number)
{
    ck_ok(t->w.sut->begin(t->w.app));
    int rc = put(t, dedup_key, number);
    ck_ok(t->w.sut->commit(t->w.app));
    return rc;
}

static void delivered(site *t, long n)
{
    site_relay(t);
    ck_assert_msg(sink_exactly(&t->w.sink, 1, n), "%zu came, not 1 to %ld",
                  sink_count(&t->w.sink), n);
}

START_TEST(again_in_the_same_transaction)
{
    site t;

    site_open(&t, _i);
    ck_ok(t.w.sut->begin(t.w.app));
    ck_ok(put(&t, "a", 1));
    ck_assert_int_eq(put(&t, "a", 100), OUTBOX_DUPLICATE);
    ck_ok(put(&t, "b", 2));             /* the transaction goes on */
    ck_assert_int_eq(put(&t, "b", 100), OUTBOX_DUPLICATE);
    ck_ok(t.w.sut->commit(t.w.app));
    delivered(&t, 2);
    site_close(&t);
}
END_TEST

START_TEST(again_in_another_transaction)
{
    site t;

    site_open(&t, _i);
    ck_ok(put_alone(&t, "a", 1));
    ck_assert_int_eq(put_alone(&t, "a", 100), OUTBOX_DUPLICATE);
    delivered(&t, 1);
    run_for(&t.w, t.r, 2000, 100);      /* delivered, and trimmed */
    ck_assert_int_eq(put_alone(&t, "a", 100), OUTBOX_DUPLICATE);
    ck_ok(put_alone(&t, "A", 2));       /* not the same */
    ck_ok(put_alone(&t, "a ", 3));
    settle_down(t.r);
    ck_assert(sink_exactly(&t.w.sink, 1, 3));
    site_close(&t);
}
END_TEST

/* Without a key there is no check, whatever else is the same. */
START_TEST(without_a_key_nothing_is_left_out)
{
    site t;
    outbox_event ev = numbered("k", 1);

    site_open(&t, _i);
    ev.id = "0190c2a8-7b1c-7cc3-98c4-dc0c0c07398f";
    publish_event(&t.w, &ev);
    publish_event(&t.w, &ev);
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_LOG), 2);
    site_close(&t);
}
END_TEST

START_TEST(another_connection_sees_it)
{
    site t;
    outbox_error err;
    outbox_t *ob;
    outbox_event ev = once("a", 100);

    site_open(&t, _i);
    ck_ok(put_alone(&t, "a", 1));
    void *conn = t.w.sut->conn_open(t.w.db);
    ck_ok(t.w.sut->outbox(&ob, conn, NULL, &err));
    ck_ok(t.w.sut->begin(conn));
    ck_assert_int_eq(outbox_publish(ob, &ev, &err), OUTBOX_DUPLICATE);
    ck_ok(t.w.sut->commit(conn));
    outbox_close(ob);
    t.w.sut->conn_close(conn);
    delivered(&t, 1);
    site_close(&t);
}
END_TEST

START_TEST(a_rollback_frees_the_key)
{
    site t;

    site_open(&t, _i);
    ck_ok(t.w.sut->begin(t.w.app));
    ck_ok(put(&t, "a", 100));
    ck_ok(t.w.sut->rollback(t.w.app));
    ck_ok(t.w.sut->begin(t.w.app));
    ck_ok(put(&t, "b", 1));
    ck_ok(t.w.sut->savepoint(t.w.app));
    ck_ok(put(&t, "c", 101));
    ck_ok(t.w.sut->rollback_to(t.w.app));
    ck_assert_int_eq(put(&t, "b", 102), OUTBOX_DUPLICATE);
    ck_ok(put(&t, "a", 2));
    ck_ok(put(&t, "c", 3));
    ck_ok(t.w.sut->commit(t.w.app));
    delivered(&t, 3);
    site_close(&t);
}
END_TEST

/* a, b, a again, one without a key, b again: three of five are written, in
 * order, and the id is that of the last of them. */
START_TEST(many_with_duplicates)
{
    static const char *const keys[] = { "a", "b", "a", NULL, "b" };
    site t;
    outbox_event ev[5];
    const outbox_event *at[5];
    outbox_error err;
    char id[40];

    site_open(&t, _i);
    for (long i = 0; i < 5; i++) {
        ev[i] = once(keys[i], i < 2 ? i + 1 : i == 3 ? 3 : 100 + i);
        at[i] = &ev[i];
    }
    ev[3].id = "0190c2a8-7b1c-7cc3-98c4-dc0c0c07398f";
    ck_ok(t.w.sut->begin(t.w.app));
    ck_assert_int_eq(outbox_publish_many(t.w.ob, at, 5, &err),
                     OUTBOX_DUPLICATE);
    strcpy(id, outbox_last_id(t.w.ob));
    ck_assert_str_eq(id, ev[3].id);
    ck_assert_int_eq(outbox_publish_many(t.w.ob, at, 3, &err),
                     OUTBOX_DUPLICATE);         /* all of them left out */
    ck_assert_str_eq(outbox_last_id(t.w.ob), id);
    ck_ok(t.w.sut->commit(t.w.app));
    delivered(&t, 3);
    ck_assert(once_in_order(&t.w.sink, 1, 3));
    site_close(&t);
}
END_TEST

START_TEST(publish_commit_commits_with_duplicates)
{
    site t;
    outbox_event ev[2] = { once("a", 100), once("b", 2) };
    const outbox_event *at[2] = { &ev[0], &ev[1] };
    outbox_error err;

    site_open(&t, _i);
    ck_ok(put_alone(&t, "a", 1));
    ck_ok(t.w.sut->begin(t.w.app));
    ck_ok(t.w.sut->work(t.w.app));
    ck_assert_int_eq(outbox_publish_commit(t.w.ob, at, 2, &err),
                     OUTBOX_DUPLICATE);
    ck_assert(!t.w.sut->in_transaction(t.w.app));
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_WORK), 1);
    ck_ok(t.w.sut->begin(t.w.app));     /* nothing but duplicates */
    ck_ok(t.w.sut->work(t.w.app));
    ck_assert_int_eq(outbox_publish_commit(t.w.ob, at, 2, &err),
                     OUTBOX_DUPLICATE);
    ck_assert(!t.w.sut->in_transaction(t.w.app));
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_WORK), 2);
    delivered(&t, 2);
    site_close(&t);
}
END_TEST

/* What was refused has taken no key, nor has what stood before it. */
START_TEST(a_refused_publish_takes_no_key)
{
    site t;
    outbox_event ev[2] = { once("a", 100), once("b", 101) };
    const outbox_event *at[2] = { &ev[0], &ev[1] };
    outbox_error err;

    site_open(&t, _i);
    ev[1].topic = "two words";
    ck_ok(t.w.sut->begin(t.w.app));
    ck_assert_int_eq(outbox_publish_many(t.w.ob, at, 2, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_publish(t.w.ob, &ev[1], &err), OUTBOX_EINVAL);
    ck_ok(put(&t, "a", 1));
    ck_ok(put(&t, "b", 2));
    ck_ok(t.w.sut->commit(t.w.app));
    delivered(&t, 2);
    site_close(&t);
}
END_TEST

/* The same when it is the database that refuses one of several. */
START_TEST(a_failed_publish_takes_no_key)
{
    site t;
    outbox_event ev[3] = { once("a", 100), once("b", 101), once("c", 102) };
    const outbox_event *at[3] = { &ev[0], &ev[1], &ev[2] };
    outbox_error err;

    site_open(&t, 1);
    ck_assert_int_eq(sqlite_exec(t.w.app,
                                 "CREATE TRIGGER no BEFORE INSERT"
                                 " ON outbox_log WHEN NEW.topic = 'bad'"
                                 " BEGIN SELECT RAISE(ABORT, 'no'); END"),
                     SQLITE_OK);
    ev[1].due_ms = wall_ms() + 1000;
    ev[2].topic = "bad";
    ck_ok(t.w.sut->begin(t.w.app));
    ck_assert_int_lt(outbox_publish_many(t.w.ob, at, 3, &err), 0);
    ck_assert_int_lt(outbox_publish(t.w.ob, &ev[2], &err), 0);
    ck_ok(put(&t, "a", 1));
    ck_ok(put(&t, "b", 2));
    ck_ok(put(&t, "c", 3));
    ck_ok(t.w.sut->commit(t.w.app));
    ck_assert_uint_eq(sqlite_number(t.w.app,
                                    "SELECT count(*) FROM outbox_scheduled"),
                      0);
    delivered(&t, 3);
    site_close(&t);
}
END_TEST

START_TEST(one_that_is_due_later_counts_from_now)
{
    site t;
    outbox_event ev = once("a", 1);

    site_open(&t, _i);
    ev.due_ms = wall_ms() + 10000;
    publish_event(&t.w, &ev);
    ck_assert_int_eq(put_alone(&t, "a", 100), OUTBOX_DUPLICATE);
    site_relay(&t);
    ck_assert_uint_eq(sink_count(&t.w.sink), 0);
    time_pass(&t.w, t.r, 11000, 500);
    ck_assert_int_eq(put_alone(&t, "a", 100), OUTBOX_DUPLICATE);
    settle_down(t.r);
    ck_assert(sink_exactly(&t.w.sink, 1, 1));
    site_close(&t);
}
END_TEST

/* A store may tidy up only so often in real time, too. */
static bool forgotten(void *arg)
{
    site *t = arg;

    time_pass(&t->w, t->r, 5000, 500);
    return put_alone(t, "a", 10) == OUTBOX_OK;
}

/* For a week at least, and not for ever. */
START_TEST(keys_are_remembered_for_a_week)
{
    site t;

    site_open(&t, _i);
    site_relay(&t);
    ck_ok(put_alone(&t, "a", 1));
    for (long i = 2; i <= 7; i++) {
        time_pass(&t.w, t.r, day_ms, day_ms / 8);
        publish_numbers(&t.w, NULL, i, 1);
        time_pass(&t.w, t.r, 5000, 500);
        ck_assert_int_eq(put_alone(&t, "a", 100), OUTBOX_DUPLICATE);
    }
    time_pass(&t.w, t.r, 2 * day_ms, day_ms / 8);
    publish_numbers(&t.w, NULL, 8, 2);  /* something to tidy up */
    ck_assert(within(5000, forgotten, &t));
    settle_down(t.r);
    ck_assert(sink_exactly(&t.w.sink, 1, 10));
    site_close(&t);
}
END_TEST

START_TEST(keys_that_are_refused)
{
    static char long_key[OUTBOX_MAX_TEXT_BYTES + 2];
    site t;
    outbox_error err;
    outbox_event ev = once(long_key, 100);

    site_open(&t, _i);
    memset(long_key, 'x', sizeof long_key - 1);
    ck_refused(publish_one(&t.w, &ev, &err), OUTBOX_EINVAL, "dedup_key",
               "1024");
    ev.dedup_key = "caf\xe9";
    ck_refused(publish_one(&t.w, &ev, &err), OUTBOX_EINVAL, "dedup_key",
               "UTF-8");
    long_key[OUTBOX_MAX_TEXT_BYTES] = '\0';
    ck_ok(put_alone(&t, long_key, 1));
    ck_assert_int_eq(put_alone(&t, long_key, 100), OUTBOX_DUPLICATE);
    ck_ok(put_alone(&t, "", 2));        /* a key like any other */
    ck_assert_int_eq(put_alone(&t, "", 100), OUTBOX_DUPLICATE);
    ck_ok(put_alone(&t, "caf\xc3\xa9", 3));
    delivered(&t, 3);
    site_close(&t);
}
END_TEST

void add_dedup_tests(Suite *s)
{
    TCase *tc = suite_case(s, "dedup");

    tcase_add_loop_test(tc, again_in_the_same_transaction, 0, n_ways);
    tcase_add_loop_test(tc, again_in_another_transaction, 0, n_ways);
    tcase_add_loop_test(tc, without_a_key_nothing_is_left_out, 0, n_ways);
    tcase_add_loop_test(tc, another_connection_sees_it, 0, n_ways);
    tcase_add_loop_test(tc, a_rollback_frees_the_key, 0, n_ways);
    tcase_add_loop_test(tc, many_with_duplicates, 0, n_ways);
    tcase_add_loop_test(tc, publish_commit_commits_with_duplicates, 0, n_ways);
    tcase_add_loop_test(tc, a_refused_publish_takes_no_key, 0, n_ways);
    tcase_add_test(tc, a_failed_publish_takes_no_key);
    tcase_add_loop_test(tc, one_that_is_due_later_counts_from_now, 0, n_ways);
    tcase_add_loop_test(tc, keys_are_remembered_for_a_week, 0, n_ways);
    tcase_add_loop_test(tc, keys_that_are_refused, 0, n_ways);
}

/* SPDX-License-Identifier: MIT
 *
 * trim.c - segments of the log are emptied when all are past them, and at no
 * other time; so are windows and old cursors.
 */
#include "pg.h"

#include <string.h>
#include <time.h>

#define TWO_HOURS INT64_C(7200000)

typedef struct yard {
    world           w;
    writer          a;
    outbox_relay_t *r;
} yard;

static void yard_open(yard *y)
{
    world_open(&y->w, WHICH);
    writer_open(&y->a, &y->w, NULL, 0);
    y->r = relay_at_rest(&y->w, NULL);
}

static void yard_close(yard *y)
{
    at_failpoint = NULL;
    relay_drop(y->r);
    writer_close(&y->a);
    world_close(&y->w);
}

/* Steps until the database says so; a relay tidies up some times a second, of
 * true time. */
static bool steps_until(yard *y, const char *sql)
{
    for (int64_t end = real_ms() + 20000; real_ms() < end;) {
        run_for(&y->w, y->r, 200, 50);
        if (pg_ask(y->w.db, sql) == 1)
            return true;
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
    }
    return false;
}

/* As often as it takes to look at all there is to tidy. */
static void tidy_all(yard *y)
{
    for (int64_t end = real_ms() + 1500; real_ms() < end;) {
        run_for(&y->w, y->r, 200, 50);
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
    }
}

/* A segment in which everything is old is left for the next one. */
static void rotate(yard *y)
{
    y->w.sut->age(y->w.db, TWO_HOURS);
    ck_assert(steps_until(y, "SELECT seg FROM outbox.meta"));
}

/* A publisher that knows the old one goes on writing into it for a while. */
START_TEST(a_segment_is_emptied)
{
    yard y;
    writer b;

    yard_open(&y);
    for (int i = 0; i < 20; i++)
        writer_commit_one(&y.a, "k", i);
    settle_down(y.r);
    rotate(&y);
    ck_assert(steps_until(&y, "SELECT (pg_relation_size('outbox.log_0') = 0)"
                              "::int"));
    writer_commit_one(&y.a, "k", 20);
    writer_open(&b, &y.w, NULL, 0);
    writer_commit_one(&b, "k", 21);
    settle_down(y.r);
    ck_assert(sink_exactly(&y.w.sink, 0, 22));
    ck_assert_int_ge(pg_ask(y.w.db, "SELECT count(*) FROM outbox.log_1"), 1);
    ck_assert(steps_until(&y, "SELECT (pg_relation_size('outbox.log_0') = 0)"
                              "::int"));
    writer_close(&b);
    yard_close(&y);
}
END_TEST

START_TEST(an_open_transaction_keeps_its_segment)
{
    yard y;
    writer b;

    yard_open(&y);
    writer_open(&b, &y.w, NULL, 0);
    writer_do(&b, "BEGIN");
    writer_publish(&b, "b", 100);
    writer_commit_one(&y.a, "k", 0);
    settle_down(y.r);
    rotate(&y);
    for (int i = 1; i < 5; i++) {
        writer_commit_one(&y.a, "k", i);
        tidy_all(&y);
    }
    writer_do(&b, "COMMIT");
    run_for(&y.w, y.r, 2000, 50);
    ck_assert_uint_eq(sink_times(&y.w.sink, 100), 1);
    ck_assert(steps_until(&y, "SELECT (pg_relation_size('outbox.log_0') = 0)"
                              "::int"));
    writer_close(&b);
    yard_close(&y);
}
END_TEST

static int locks_tried;

static void count_locks(const char *name)
{
    locks_tried += strcmp(name, "pg.trim.lock") == 0;
}

/* Each time is a line in the server's log. */
START_TEST(a_refused_lock_is_not_tried_at_once)
{
    yard y;
    writer b;

    yard_open(&y);
    writer_open(&b, &y.w, NULL, 0);
    writer_do(&b, "BEGIN");
    writer_do(&b, "LOCK TABLE outbox.log_0 IN ROW EXCLUSIVE MODE");
    writer_commit_one(&y.a, "k", 0);
    settle_down(y.r);
    at_failpoint = count_locks;
    rotate(&y);
    tidy_all(&y);
    tidy_all(&y);
    ck_assert_int_eq(locks_tried, 1);
    writer_do(&b, "COMMIT");
    ck_assert(steps_until(&y, "SELECT (pg_relation_size('outbox.log_0') = 0)"
                              "::int"));
    writer_close(&b);
    yard_close(&y);
}
END_TEST

/* ---- between a look and its lock ------------------------------------ */

static writer *late;            /* commits at a fail point */

static void commit_now(const char *name)
{
    if (late == NULL || strcmp(name, "pg.trim.lock") != 0)
        return;
    writer_do(late, "COMMIT");
    late = NULL;
}

START_TEST(committed_between_the_look_and_the_lock)
{
    yard y;
    writer b;

    yard_open(&y);
    writer_open(&b, &y.w, NULL, 0);
    writer_do(&b, "BEGIN");
    writer_publish(&b, "b", 100);
    writer_commit_one(&y.a, "k", 0);
    settle_down(y.r);
    late = &b;
    at_failpoint = commit_now;
    rotate(&y);
    tidy_all(&y);
    ck_assert_ptr_null(late);
    run_for(&y.w, y.r, 2000, 50);
    ck_assert_uint_eq(sink_times(&y.w.sink, 100), 1);
    writer_close(&b);
    yard_close(&y);
}
END_TEST

/* ---- who needs it still --------------------------------------------- */

START_TEST(the_slowest_subscription_keeps_it)
{
    yard y;
    sink slow;
    outbox_relay_options opt;

    yard_open(&y);
    sink_init(&slow, NULL, NULL);
    opt = relay_options(&y.w);
    opt.subscription = "slow";
    outbox_relay_t *r = relay_open(&y.w, &slow, &opt, NULL);
    settle_down(r);
    relay_drop(r);
    for (int i = 0; i < 20; i++)
        writer_commit_one(&y.a, "k", i);
    settle_down(y.r);
    rotate(&y);
    tidy_all(&y);
    ck_assert_int_eq(y.w.sut->count(y.w.db, SUT_LOG), 20);
    r = relay_open(&y.w, &slow, &opt, NULL);
    settle_down(r);
    run_for(&y.w, r, 2000, 50);
    ck_assert(sink_exactly(&slow, 0, 20));
    ck_assert(steps_until(&y, "SELECT (pg_relation_size('outbox.log_0') = 0)"
                              "::int"));
    relay_drop(r);
    sink_release(&slow);
    yard_close(&y);
}
END_TEST

START_TEST(what_is_in_flight_keeps_it)
{
    yard y;

    yard_open(&y);
    y.w.sink.rule = sink_pending;
    for (int i = 0; i < 20; i++)
        writer_commit_one(&y.a, NULL, i);
    settle_down(y.r);
    for (size_t i = 0; i < 19; i++)
        ck_ok(sink_settle(&y.w.sink, i, OUTBOX_ACK));
    y.w.sut->age(y.w.db, TWO_HOURS);
    tidy_all(&y);
    ck_assert_int_eq(pg_ask(y.w.db, "SELECT count(*) FROM outbox.log_0"), 20);
    yard_close(&y);
}
END_TEST

/* ---- what is to be kept --------------------------------------------- */

/* Two hours old, to be kept for one, but for this event. */
static const char *const young_ones[] = {
    /* the newest; another one since the newest tick */
    "position = (SELECT max(position) FROM outbox.log)",
    "xid = (SELECT xid FROM outbox.log ORDER BY xid DESC OFFSET 2 LIMIT 1)",
    /* of the transaction with the tick; of one that was open then */
    "position = (SELECT max(position) FROM outbox.log WHERE xid = (SELECT xid"
    " FROM outbox.log WHERE tick IS NOT NULL ORDER BY position DESC LIMIT 1))",
    "xid = (SELECT xid FROM outbox.log ORDER BY xid LIMIT 1)",
};

/* A tick in a transaction that has written before, and behind whose number
 * others have ended; as behind that of b. */
static void publish_beside(yard *y, long n)
{
    writer b, c;

    writer_open(&b, &y->w, NULL, 0);
    writer_open(&c, &y->w, NULL, 0);
    writer_do(&b, "BEGIN");
    writer_publish(&b, "b", 100000);
    writer_do(&y->a, "BEGIN");
    writer_publish(&y->a, "k", n);
    writer_commit_one(&c, "c", 100001);
    writer_publish_many(&y->a, "k", 0, n);
    writer_do(&y->a, "COMMIT");
    for (int i = 1; i < 5; i++)
        writer_commit_one(&y->a, "k", n + i);
    writer_do(&b, "COMMIT");
    writer_close(&b);
    writer_close(&c);
    settle_down(y->r);
    run_for(&y->w, y->r, 1000, 50);
}

static void one_is_young(const char *which, long n)
{
    yard y;

    yard_open(&y);
    pg_tamper(y.w.db, "UPDATE outbox.subscription SET keep_ms = 3600000");
    publish_beside(&y, n);
    ck_assert_int_eq(pg_ask(y.w.db, "SELECT count(*) FROM outbox.log_0"),
                     n + 7);
    y.w.sut->age(y.w.db, TWO_HOURS);
    pg_tamper(y.w.db,
              "UPDATE outbox.log SET published_ms = published_ms + %lld"
              " WHERE %s",
              (long long)TWO_HOURS, which);
    pg_tamper(y.w.db, "UPDATE outbox.meta SET seg = 1");
    tidy_all(&y);
    ck_assert_int_eq(pg_ask(y.w.db, "SELECT count(*) FROM outbox.log_0"),
                     n + 7);
    y.w.sut->age(y.w.db, TWO_HOURS);
    ck_assert(steps_until(&y, "SELECT (pg_relation_size('outbox.log_0') = 0)"
                              "::int"));
    yard_close(&y);
}

START_TEST(one_young_event_keeps_it)
{
    one_is_young(young_ones[_i], 5000);
}
END_TEST

START_TEST(one_young_event_keeps_a_short_one)
{
    one_is_young(young_ones[_i], 10);
}
END_TEST

/* An event that was due long ago enters the log behind them. */
START_TEST(an_overdue_event_says_nothing_of_others)
{
    yard y;

    yard_open(&y);
    pg_tamper(y.w.db, "UPDATE outbox.subscription SET keep_ms = 3600000");
    for (int i = 0; i < 5; i++)
        writer_commit_one(&y.a, "k", i);
    settle_down(y.r);
    pg_tamper(y.w.db, "SELECT setval('outbox.position', 4095)");
    pg_tamper(y.w.db, "INSERT INTO outbox.scheduled (due_ms, lane, id, topic,"
                      " type, key, payload, published_ms) SELECT published_ms"
                      " - %lld, lane, gen_random_uuid(), topic, type, key,"
                      " payload, 0 FROM outbox.log LIMIT 1",
              (long long)TWO_HOURS);
    run_for(&y.w, y.r, 2000, 50);
    ck_assert_int_eq(pg_ask(y.w.db, "SELECT max(position) FROM outbox.log_0"),
                     4096);
    pg_tamper(y.w.db, "UPDATE outbox.meta SET seg = 1");
    tidy_all(&y);
    ck_assert_int_eq(pg_ask(y.w.db, "SELECT count(*) FROM outbox.log_0"), 6);
    yard_close(&y);
}
END_TEST

/* ---- cursors and windows -------------------------------------------- */

/* Old cursors, as after days of saving; what counts is carried over. */
START_TEST(cursors_survive_their_rotation)
{
    yard y;
    outbox_error err;

    yard_open(&y);
    for (int i = 0; i < 40; i++)
        writer_commit_one(&y.a, i % 2 ? "k" : "l", i);
    settle_down(y.r);
    run_for(&y.w, y.r, 1000, 50);
    for (int turn = 0; turn < 4; turn++) {
        pg_tamper(y.w.db,
                  "INSERT INTO outbox.ack (aseg, seq, sub, lane, token,"
                  " \"window\", position) SELECT m.ack_seg, -i, l.sub, l.lane,"
                  " 0, 0, 0 FROM generate_series(1, 2000) i, outbox.lane l,"
                  " outbox.meta m");
        ck_assert(steps_until(&y, turn % 2 ? "SELECT 1 - ack_seg FROM"
                                             " outbox.meta"
                                           : "SELECT ack_seg FROM"
                                             " outbox.meta"));
        writer_commit_one(&y.a, "k", 40 + turn);
        settle_down(y.r);
        run_for(&y.w, y.r, 1000, 50);
    }
    ck_ok(outbox_relay_stop(y.r, 1000, &err));
    outbox_relay_free(y.r);
    y.r = relay_at_rest(&y.w, NULL);
    run_for(&y.w, y.r, 1000, 50);
    ck_assert(sink_exactly(&y.w.sink, 0, 44));
    ck_assert_int_le(pg_ask(y.w.db, "SELECT count(*) FROM outbox.ack"),
                     2 * 33000);
    yard_close(&y);
}
END_TEST

START_TEST(windows_behind_all_are_removed)
{
    yard y;

    yard_open(&y);
    for (int i = 0; i < 100; i++) {
        writer_commit_one(&y.a, "k", i);
        settle_down(y.r);
    }
    ck_assert_int_ge(pg_ask(y.w.db, "SELECT max(n) FROM outbox.\"window\""),
                     100);
    rotate(&y);
    ck_assert(steps_until(&y, "SELECT (count(*) < 10)::int"
                              " FROM outbox.\"window\""));
    writer_commit_one(&y.a, "k", 100);
    settle_down(y.r);
    ck_assert(sink_exactly(&y.w.sink, 0, 101));
    yard_close(&y);
}
END_TEST

/* Delivering writes nothing to an event. */
START_TEST(no_event_is_ever_a_dead_row)
{
    yard y;

    yard_open(&y);
    for (int i = 0; i < 50; i++) {
        writer_commit_one(&y.a, "k", i);
        settle_down(y.r);
    }
    run_for(&y.w, y.r, 2000, 50);
    ck_assert_int_eq(pg_ask(y.w.db,
                            "SELECT count(*) FROM outbox.log"
                            " WHERE xmax <> 0"), 0);
    pg_tamper(y.w.db, "CREATE EXTENSION IF NOT EXISTS pgstattuple");
    ck_assert_int_eq(pg_ask(y.w.db,
                            "SELECT dead_tuple_count"
                            " FROM pgstattuple('outbox.log_0')"), 0);
    yard_close(&y);
}
END_TEST

void add_trim_tests(Suite *s)
{
    TCase *tc = suite_case(s, "trim");

    tcase_add_test(tc, a_segment_is_emptied);
    tcase_add_test(tc, an_open_transaction_keeps_its_segment);
    tcase_add_test(tc, committed_between_the_look_and_the_lock);
    tcase_add_test(tc, the_slowest_subscription_keeps_it);
    tcase_add_test(tc, what_is_in_flight_keeps_it);
    tcase_add_loop_test(tc, one_young_event_keeps_it, 0, 4);
    tcase_add_loop_test(tc, one_young_event_keeps_a_short_one, 0, 2);
    tcase_add_test(tc, an_overdue_event_says_nothing_of_others);
    tcase_add_test(tc, a_refused_lock_is_not_tried_at_once);
    tcase_add_test(tc, cursors_survive_their_rotation);
    tcase_add_test(tc, windows_behind_all_are_removed);
    tcase_add_test(tc, no_event_is_ever_a_dead_row);
}

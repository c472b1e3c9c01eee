/* SPDX-License-Identifier: MIT
 *
 * tick.c - a long backlog is cut into windows by the snapshots that every
 * 4096th event brings.
 */
#include "pg.h"

#include <stdio.h>

enum { TICK_EVERY = 4096, EACH = 512 };

/* n events of one key, from..from + n - 1. */
static void backlog(writer *a, long from, long n)
{
    for (long at = from; at < from + n; at += EACH) {
        writer_do(a, "BEGIN");
        writer_publish_many(a, "backlog", at, EACH);
        writer_do(a, "COMMIT");
    }
}

/* Those, each once, in their order, among others. */
static void ck_backlog(world *w, long from, long n)
{
    long next = from;

    for (size_t i = 0; i < sink_count(&w->sink); i++) {
        long number = sink_number(&w->sink, i);
        if (number < from || number >= from + n)
            continue;
        ck_assert_int_eq(number, next);
        next++;
    }
    ck_assert_int_eq(next, from + n);
}

START_TEST(a_long_backlog_is_cut_into_windows)
{
    world w;
    writer a;

    world_open(&w, WHICH);
    writer_open(&a, &w, NULL, 0);
    outbox_relay_t *r = relay_at_rest(&w, NULL);
    backlog(&a, 0, 8 * TICK_EVERY);
    settle_down(r);
    ck_backlog(&w, 0, 8 * TICK_EVERY);
    ck_assert_uint_eq(sink_count(&w.sink), 8 * TICK_EVERY);
    ck_assert_int_ge(pg_ask(w.db, "SELECT max(n) FROM outbox.\"window\""), 8);
    relay_drop(r);
    writer_close(&a);
    world_close(&w);
}
END_TEST

/* The tick of a transaction that goes on after it: what it publishes later is
 * not older than what others have committed meanwhile. */
static void a_tick_in_an_open_transaction(const char *level)
{
    world w;
    writer a, b;
    char sql[100];

    world_open(&w, WHICH);
    writer_open(&a, &w, NULL, 0);
    writer_open(&b, &w, NULL, 0);
    snprintf(sql, sizeof sql,
             "BEGIN ISOLATION LEVEL %s; INSERT INTO work VALUES (1)", level);
    writer_do(&a, sql);
    for (int i = 0; i < 3; i++)
        writer_do(&b, "INSERT INTO work VALUES (1)");
    writer_publish_many(&a, "a", 10, TICK_EVERY + 100);
    writer_commit_one(&b, "k", 1);
    backlog(&b, 10000, 3 * TICK_EVERY);
    writer_publish(&a, "k", 2);
    writer_do(&a, "COMMIT");
    writer_commit_one(&b, "k", 3);
    outbox_relay_t *r = relay_at_rest(&w, NULL);
    ck_backlog(&w, 1, 3);
    ck_backlog(&w, 10, TICK_EVERY + 100);
    ck_backlog(&w, 10000, 3 * TICK_EVERY);
    ck_assert_uint_eq(sink_count(&w.sink), 4 * TICK_EVERY + 103);
    relay_drop(r);
    writer_close(&a);
    writer_close(&b);
    world_close(&w);
}

START_TEST(a_tick_of_read_committed)
{
    a_tick_in_an_open_transaction("READ COMMITTED");
}
END_TEST

/* It is older than it looks. */
START_TEST(a_tick_of_repeatable_read)
{
    a_tick_in_an_open_transaction("REPEATABLE READ");
}
END_TEST

START_TEST(a_tick_that_is_never_committed)
{
    world w;
    writer a, b;

    world_open(&w, WHICH);
    writer_open(&a, &w, NULL, 0);
    writer_open(&b, &w, NULL, 0);
    writer_do(&a, "BEGIN");
    writer_publish_many(&a, "backlog", 10, TICK_EVERY);
    backlog(&b, 10000, 2 * TICK_EVERY);
    writer_do(&a, "ROLLBACK");
    outbox_relay_t *r = relay_at_rest(&w, NULL);
    ck_backlog(&w, 10000, 2 * TICK_EVERY);
    relay_drop(r);
    writer_close(&a);
    writer_close(&b);
    world_close(&w);
}
END_TEST

/* One that was open all the time, behind many windows. */
START_TEST(a_straggler_behind_a_long_backlog)
{
    world w;
    writer a, b;

    world_open(&w, WHICH);
    writer_open(&a, &w, NULL, 0);
    writer_open(&b, &w, NULL, 0);
    writer_do(&a, "BEGIN");
    writer_publish(&a, "a", 1);
    backlog(&b, 10000, 5 * TICK_EVERY);
    outbox_relay_t *r = relay_at_rest(&w, NULL);
    ck_backlog(&w, 10000, 5 * TICK_EVERY);
    writer_do(&a, "COMMIT");
    run_for(&w, r, 1000, 50);
    ck_assert_uint_eq(sink_times(&w.sink, 1), 1);
    ck_assert_uint_eq(sink_count(&w.sink), 5 * TICK_EVERY + 1);
    relay_drop(r);
    writer_close(&a);
    writer_close(&b);
    world_close(&w);
}
END_TEST

void add_tick_tests(Suite *s)
{
    TCase *tc = suite_case(s, "tick");

    tcase_add_test(tc, a_long_backlog_is_cut_into_windows);
    tcase_add_test(tc, a_tick_of_read_committed);
    tcase_add_test(tc, a_tick_of_repeatable_read);
    tcase_add_test(tc, a_tick_that_is_never_committed);
    tcase_add_test(tc, a_straggler_behind_a_long_backlog);
}

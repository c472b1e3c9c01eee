/* SPDX-License-Identifier: MIT
 *
 * order.c - nothing is lost and nothing is turned around, whichever way
 * transactions overlap.
 */
#include "pg.h"

#include <string.h>

/* Two writers, a and b, and a relay that has looked already. */
typedef struct pair {
    world           w;
    writer          a, b;
    outbox_relay_t *r;
} pair;

static void pair_open(pair *p)
{
    world_open(&p->w, WHICH);
    writer_open(&p->a, &p->w, NULL, 0);
    writer_open(&p->b, &p->w, NULL, 0);
    p->r = relay_at_rest(&p->w, NULL);
}

static void pair_close(pair *p)
{
    relay_drop(p->r);
    writer_close(&p->a);
    writer_close(&p->b);
    world_close(&p->w);
}

/* ---- loss ----------------------------------------------------------- */

START_TEST(a_lower_position_that_commits_later)
{
    pair p;

    pair_open(&p);
    writer_do(&p.a, "BEGIN");
    writer_publish(&p.a, "a", 1);
    writer_commit_one(&p.b, "b", 2);
    settle_down(p.r);
    ck_delivered(&p.w, 2, -1);
    writer_do(&p.a, "COMMIT");
    run_for(&p.w, p.r, 1000, 50);
    ck_delivered(&p.w, 2, 1, -1);
    pair_close(&p);
}
END_TEST

/* The number of a subtransaction is in no snapshot's list. */
START_TEST(published_in_a_savepoint_and_committed_later)
{
    pair p;

    pair_open(&p);
    writer_do(&p.a, "BEGIN; INSERT INTO work VALUES (1); SAVEPOINT s");
    writer_publish(&p.a, "a", 1);
    writer_do(&p.a, "RELEASE s");
    writer_commit_one(&p.b, "b", 2);
    settle_down(p.r);
    ck_delivered(&p.w, 2, -1);
    writer_do(&p.a, "COMMIT");
    run_for(&p.w, p.r, 1000, 50);
    ck_delivered(&p.w, 2, 1, -1);
    pair_close(&p);
}
END_TEST

START_TEST(a_savepoint_that_is_rolled_back)
{
    pair p;

    pair_open(&p);
    writer_do(&p.a, "BEGIN");
    writer_publish(&p.a, "a", 1);
    writer_do(&p.a, "SAVEPOINT s");
    writer_publish(&p.a, "a", 2);
    writer_do(&p.a, "ROLLBACK TO s");
    writer_publish(&p.a, "a", 3);
    writer_do(&p.a, "COMMIT");
    run_for(&p.w, p.r, 1000, 50);
    ck_delivered(&p.w, 1, 3, -1);
    pair_close(&p);
}
END_TEST

/* Its snapshot is older than windows that were cut since. */
static void with_an_old_snapshot(const char *level)
{
    pair p;
    char sql[80];

    pair_open(&p);
    strcpy(sql, "BEGIN ISOLATION LEVEL ");
    writer_do(&p.a, strcat(sql, level));
    writer_do(&p.a, "SELECT count(*) FROM work");
    for (int i = 0; i < 5; i++) {
        writer_commit_one(&p.b, "b", i);
        settle_down(p.r);
    }
    writer_publish(&p.a, "a", 10);
    writer_commit_one(&p.b, "b", 5);
    settle_down(p.r);
    ck_delivered(&p.w, 0, 1, 2, 3, 4, 5, -1);
    writer_do(&p.a, "COMMIT");
    run_for(&p.w, p.r, 1000, 50);
    ck_delivered(&p.w, 0, 1, 2, 3, 4, 5, 10, -1);
    pair_close(&p);
}

START_TEST(repeatable_read)
{
    with_an_old_snapshot("REPEATABLE READ");
}
END_TEST

START_TEST(serializable)
{
    with_an_old_snapshot("SERIALIZABLE");
}
END_TEST

START_TEST(prepared)
{
    pair p;
    writer quiet;

    pair_open(&p);
    writer_open(&quiet, &p.w, NULL, OUTBOX_QUIET);
    writer_do(&quiet, "BEGIN");
    writer_publish(&quiet, "a", 1);
    writer_do(&quiet, "PREPARE TRANSACTION 'one'; BEGIN");
    writer_publish(&quiet, "a", 2);
    writer_do(&quiet, "PREPARE TRANSACTION 'two'");
    writer_commit_one(&p.b, "b", 3);
    settle_down(p.r);
    ck_delivered(&p.w, 3, -1);
    writer_do(&p.b, "ROLLBACK PREPARED 'one'");
    writer_do(&p.b, "COMMIT PREPARED 'two'");
    run_for(&p.w, p.r, 1000, 50);
    ck_delivered(&p.w, 3, 2, -1);
    writer_close(&quiet);
    pair_close(&p);
}
END_TEST

/* A relay that comes later, and one that goes between two windows. */
START_TEST(an_open_transaction_while_relays_change)
{
    pair p;
    outbox_error err;

    pair_open(&p);
    writer_do(&p.a, "BEGIN");
    writer_publish(&p.a, "a", 1);
    writer_commit_one(&p.b, "b", 2);
    settle_down(p.r);
    ck_ok(outbox_relay_stop(p.r, 1000, &err));
    outbox_relay_free(p.r);
    writer_commit_one(&p.b, "b", 3);
    p.r = relay_at_rest(&p.w, NULL);
    ck_delivered(&p.w, 2, 3, -1);
    writer_do(&p.a, "COMMIT");
    run_for(&p.w, p.r, 1000, 50);
    ck_delivered(&p.w, 2, 3, 1, -1);
    pair_close(&p);
}
END_TEST

/* ---- order ---------------------------------------------------------- */

/* The first to begin is the last to publish. */
START_TEST(a_lower_transaction_that_publishes_later)
{
    pair p;

    pair_open(&p);
    writer_do(&p.a, "BEGIN; INSERT INTO work VALUES (1)");
    writer_commit_one(&p.b, "k", 1);
    writer_publish(&p.a, "k", 2);
    writer_do(&p.a, "COMMIT");
    settle_down(p.r);
    ck_delivered(&p.w, 1, 2, -1);
    pair_close(&p);
}
END_TEST

/* One window and three connections, each of which would have numbers of its
 * own in a sequence's cache. */
START_TEST(taking_turns)
{
    pair p;

    pair_open(&p);
    for (int i = 0; i < 12; i++)
        writer_commit_one(i % 3 == 0 ? &p.a : &p.b, "k", i);
    settle_down(p.r);
    ck_delivered(&p.w, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, -1);
    pair_close(&p);
}
END_TEST

START_TEST(a_cached_sequence_is_refused)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;
    outbox_t *ob;

    world_open(&w, WHICH);
    pg_tamper(w.db, "ALTER SEQUENCE outbox.position CACHE 20");
    ck_ok(w.sut->connect(&ob, w.db, NULL, NULL, &err));
    ck_ok(outbox_relay_new(&r, ob, &w.sink.transport, NULL, &err));
    ck_assert_int_eq(outbox_relay_start(r, &err), OUTBOX_ESCHEMA);
    ck_assert_msg(strstr(err.text, "CACHE") != NULL, "%s", err.text);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

/* A snapshot that is taken when the transaction has a number already tells
 * others that it has ended.  The number is given to a row as it is written,
 * after its triggers. */
START_TEST(a_window_is_cut_before_its_transaction_has_a_number)
{
    pair p;

    pair_open(&p);
    pg_tamper(p.w.db,
              "CREATE FUNCTION numbered() RETURNS trigger LANGUAGE plpgsql"
              " AS $$BEGIN IF pg_current_xact_id_if_assigned() IS NOT NULL"
              " THEN RAISE 'numbered before'; END IF; RETURN NEW; END$$;"
              "CREATE TRIGGER numbered BEFORE INSERT ON outbox.\"window\""
              " FOR EACH ROW EXECUTE FUNCTION numbered()");
    for (int i = 0; i < 3; i++) {
        writer_commit_one(&p.a, "k", i);
        settle_down(p.r);
    }
    ck_delivered(&p.w, 0, 1, 2, -1);
    ck_assert_int_ge(pg_ask(p.w.db, "SELECT max(n) FROM outbox.\"window\""),
                     3);
    pair_close(&p);
}
END_TEST

START_TEST(nothing_new_cuts_no_window)
{
    pair p;

    pair_open(&p);
    writer_commit_one(&p.a, "k", 0);
    settle_down(p.r);
    int64_t n = pg_ask(p.w.db, "SELECT max(n) FROM outbox.\"window\"");
    for (int i = 0; i < 10; i++) {
        writer_do(&p.a, "INSERT INTO work VALUES (1)");
        run_for(&p.w, p.r, 1000, 100);
    }
    ck_assert_int_eq(pg_ask(p.w.db, "SELECT max(n) FROM outbox.\"window\""),
                     n);
    pair_close(&p);
}
END_TEST

void add_order_tests(Suite *s)
{
    TCase *tc = suite_case(s, "order");

    tcase_add_test(tc, a_lower_position_that_commits_later);
    tcase_add_test(tc, published_in_a_savepoint_and_committed_later);
    tcase_add_test(tc, a_savepoint_that_is_rolled_back);
    tcase_add_test(tc, repeatable_read);
    tcase_add_test(tc, serializable);
    tcase_add_test(tc, prepared);
    tcase_add_test(tc, an_open_transaction_while_relays_change);
    tcase_add_test(tc, a_lower_transaction_that_publishes_later);
    tcase_add_test(tc, taking_turns);
    tcase_add_test(tc, a_cached_sequence_is_refused);
    tcase_add_test(tc, a_window_is_cut_before_its_transaction_has_a_number);
    tcase_add_test(tc, nothing_new_cuts_no_window);
}

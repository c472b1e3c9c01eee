/* SPDX-License-Identifier: MIT
 *
 * guards.c - what is seen before anything is sent, so that the caller's
 * transaction, results and settings stay as they are.
 */
#include "caller.h"

#include <stdio.h>

/* Everything that needs a transaction is refused, and then what was refused
 * is possible after all. */
static void refused_now(place *p, int code, const char *words)
{
    outbox_event ev = event("k");
    const outbox_event *at = &ev;
    int rc;

    rc = outbox_publish(p->ob, &ev, &p->err);
    ck_says(&p->err, rc, code, "", words);
    rc = outbox_publish_commit(p->ob, &at, 1, &p->err);
    ck_says(&p->err, rc, code, "", words);
    rc = inbox_accept(p->ib, "c", "i", &p->err);
    ck_says(&p->err, rc, code, "", words);
}

START_TEST(results_that_are_not_read)
{
    place p;
    PGresult *res;
    outbox_event ev = event("k");

    place_open(&p, NULL);
    sql(p.conn, "BEGIN");
    ck_assert(PQsendQuery(p.conn, "SELECT generate_series(1, 3)"));
    refused_now(&p, OUTBOX_EINVAL, "results not read");
    int rc = inbox_commit(p.ib, &p.err);
    ck_says(&p.err, rc, OUTBOX_EINVAL, "", "results not read");
    res = PQgetResult(p.conn);
    ck_assert_int_eq(PQntuples(res), 3);        /* still there */
    PQclear(res);
    ck_assert_ptr_null(PQgetResult(p.conn));
    ck_ok(outbox_publish(p.ob, &ev, &p.err));
    sql(p.conn, "COMMIT");
    ck_assert_int_eq(logged(&p), 1);
    place_close(&p);
}
END_TEST

START_TEST(in_the_middle_of_copy)
{
    place p;
    outbox_event ev = event("k");

    place_open(&p, NULL);
    sql(p.conn, "BEGIN");
    PQclear(PQexec(p.conn, "COPY work FROM STDIN"));
    refused_now(&p, OUTBOX_EINVAL, "COPY");
    ck_assert_int_eq(PQputCopyData(p.conn, "7\n", 2), 1);
    ck_assert_int_eq(PQputCopyEnd(p.conn, NULL), 1);
    PQclear(PQgetResult(p.conn));
    ck_assert_ptr_null(PQgetResult(p.conn));
    ck_ok(outbox_publish(p.ob, &ev, &p.err));
    sql(p.conn, "COMMIT");
    ck_assert_int_eq(pg_ask(p.db, "SELECT sum(x) FROM work"), 7);
    place_close(&p);
}
END_TEST

START_TEST(in_pipeline_mode)
{
    place p;
    outbox_event ev = event("k");

    place_open(&p, NULL);
    sql(p.conn, "BEGIN");
    ck_assert(PQenterPipelineMode(p.conn));
    refused_now(&p, OUTBOX_EINVAL, "pipeline mode");
    ck_assert(PQexitPipelineMode(p.conn));
    ck_ok(outbox_publish(p.ob, &ev, &p.err));
    sql(p.conn, "COMMIT");
    ck_assert_int_eq(logged(&p), 1);
    place_close(&p);
}
END_TEST

START_TEST(in_an_aborted_transaction)
{
    place p;

    place_open(&p, NULL);
    sql(p.conn, "BEGIN");
    ck_assert_int_eq(pg_exec(p.conn, "SELECT 1 / 0"), -1);
    refused_now(&p, OUTBOX_EABORTED, "roll");
    ck_assert_int_eq(PQtransactionStatus(p.conn), PQTRANS_INERROR);
    int rc = inbox_commit(p.ib, &p.err);
    ck_says(&p.err, rc, OUTBOX_EABORTED, "", "rolled back");
    ck_assert_int_eq(PQtransactionStatus(p.conn), PQTRANS_IDLE);
    place_close(&p);
}
END_TEST

START_TEST(another_encoding)
{
    place p;
    outbox_event ev = event("caf\xc3\xa9");

    place_open(&p, NULL);
    ck_ok(PQsetClientEncoding(p.conn, "LATIN1"));
    sql(p.conn, "BEGIN");
    refused_now(&p, OUTBOX_EINVAL, "client_encoding is LATIN1");
    ck_ok(PQsetClientEncoding(p.conn, "UTF8"));
    ck_ok(outbox_publish(p.ob, &ev, &p.err));
    sql(p.conn, "COMMIT");
    ck_assert_int_eq(pg_ask(p.db, "SELECT octet_length(key)"
                                  " FROM outbox.log"), 5);
    place_close(&p);
}
END_TEST

static void no_letter(void *arg, const outbox_event *ev, const char *why,
                      int64_t died_ms)
{
    (void)arg, (void)ev, (void)why, (void)died_ms;
}

/* Names of subscriptions are UTF-8, too, and so is what dead events say. */
START_TEST(another_encoding_for_people)
{
    place p;
    outbox_stats stats = { .size = sizeof stats };

    place_open(&p, NULL);
    for (int utf8 = 0; utf8 < 2; utf8++) {
        const char *words = utf8 ? "no subscription"
                                 : "client_encoding is LATIN1";
        int code = utf8 ? OUTBOX_ENOENT : OUTBOX_EINVAL;
        ck_ok(PQsetClientEncoding(p.conn, utf8 ? "UTF8" : "LATIN1"));
        int rc = outbox_pause(p.ob, "m\xc3\xbcll", 1, &p.err);
        ck_says(&p.err, rc, code, "", words);
        rc = outbox_dead_each(p.ob, "m\xc3\xbcll", 1, no_letter, NULL,
                              &p.err);
        ck_says(&p.err, rc, code, "", words);
        rc = outbox_subscription_stats(p.ob, "m\xc3\xbcll", &stats, &p.err);
        ck_says(&p.err, rc, code, "", words);
    }
    place_close(&p);
}
END_TEST

/* A schema on the path before pg_catalog, with tables of our names. */
START_TEST(a_search_path_changes_nothing)
{
    place p;
    outbox_event ev = event("k"), rare = event("k");
    const outbox_event *at[] = { &ev, &rare };

    rare.dedup_key = "d";
    place_open(&p, NULL);
    sql(p.conn,
        "CREATE SCHEMA evil;"
        "CREATE TABLE evil.log (LIKE outbox.log);"
        "CREATE TABLE evil.meta (LIKE outbox.meta);"
        "CREATE FUNCTION evil.unnest(anyarray) RETURNS SETOF anyelement"
        " LANGUAGE sql AS 'SELECT $1[1] WHERE false';"
        "CREATE FUNCTION evil.pg_notify(text, text) RETURNS void"
        " LANGUAGE sql AS 'SELECT 1 / 0';"
        "CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz"
        " LANGUAGE sql AS $$SELECT 'epoch'::timestamptz$$;"
        "CREATE FUNCTION evil.no(text, text) RETURNS bool"
        " LANGUAGE sql AS 'SELECT false';"
        "CREATE OPERATOR evil.= (FUNCTION = evil.no, LEFTARG = text,"
        " RIGHTARG = text);"
        "CREATE FUNCTION evil.not_int(int, int) RETURNS bool"
        " LANGUAGE sql AS 'SELECT false';"
        "CREATE OPERATOR evil.= (FUNCTION = evil.not_int, LEFTARG = int,"
        " RIGHTARG = int);"
        "CREATE DOMAIN evil.text AS pg_catalog.text CHECK (false);"
        "CREATE DOMAIN evil.uuid AS pg_catalog.uuid CHECK (false);"
        "SET search_path = evil, pg_catalog, outbox");
    sql(p.conn, "BEGIN");
    ck_ok(outbox_publish_many(p.ob, at, 2, &p.err));
    ck_ok(outbox_publish_many(p.ob, at, 1, &p.err));
    ck_assert_int_eq(inbox_accept(p.ib, "c", "i", &p.err), 1);
    ck_ok(inbox_commit(p.ib, &p.err));
    ck_assert_int_eq(logged(&p), 3);
    ck_assert_int_eq(pg_ask(p.db, "SELECT count(*) FROM evil.log"), 0);
    ck_assert_int_eq(pg_ask(p.db, "SELECT count(*) FROM outbox.log"
                                  " WHERE published_ms = 0"), 0);
    place_close(&p);
}
END_TEST

START_TEST(a_schema_of_ones_own)
{
    static const char *const names[] = { "x", "Events of \"sales\"", "\xc3\xa9",
        "a23456789 b23456789 c23456789 d23456789 e23456789 f23456789 123" };

    for (size_t i = 0; i < 4; i++) {
        outbox_options opt = { .size = sizeof opt, .schema = names[i] };
        outbox_event ev = event("k");
        place p;
        char ask[300], *quoted;

        place_open(&p, &opt);
        ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
        quoted = PQescapeIdentifier(p.conn, names[i], strlen(names[i]));
        snprintf(ask, sizeof ask, "SELECT count(*) FROM %s.log", quoted);
        ck_assert_int_eq(pg_ask(p.db, ask), 1);
        PQfreemem(quoted);
        place_close(&p);
    }
}
END_TEST

START_TEST(a_schema_that_is_refused)
{
    static const char *const names[] = { "", "a'b", "a\\b", "a\nb",
        "a23456789 b23456789 c23456789 d23456789 e23456789 f23456789 1234" };
    PGconn *conn = PQconnectStart("host=/nowhere");
    outbox_error err;
    outbox_t *ob;

    for (size_t i = 0; i < 5; i++) {
        outbox_options opt = { .size = sizeof opt, .schema = names[i] };
        int rc = outbox_pg_open(&ob, conn, &opt, &err);
        ck_says(&err, rc, OUTBOX_EINVAL, "", "outbox_options.schema");
        ck_assert_ptr_null(ob);
    }
    int rc = outbox_pg_open(&ob, NULL, NULL, &err);
    ck_says(&err, rc, OUTBOX_EINVAL, "", "conn is NULL");
    PQfinish(conn);
}
END_TEST

/* Two handles of one schema prepare a statement once; PQreset() and DEALLOCATE
 * are noticed. */
START_TEST(prepared_once_for_a_connection)
{
    place p;
    outbox_t *more;
    outbox_event ev = event("k");
    static const char ask[] = "SELECT count(*) FROM pg_prepared_statements";

    place_open(&p, NULL);
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    int64_t n = pg_number(p.conn, ask);
    ck_assert_int_gt(n, 0);
    for (int i = 0; i < 5; i++) {
        ck_ok(outbox_pg_open(&more, p.conn, NULL, &p.err));
        ck_ok(publish_alone(p.conn, more, &ev, &p.err));
        outbox_close(more);
    }
    ck_assert_int_eq(pg_number(p.conn, ask), n);
    PQreset(p.conn);
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    sql(p.conn, "DEALLOCATE ALL");
    int rc = publish_alone(p.conn, p.ob, &ev, &p.err);
    ck_says(&p.err, rc, OUTBOX_EBUSY, "26000", "OUTBOX_POOLED");
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    ck_assert_int_eq(logged(&p), 8);
    place_close(&p);
}
END_TEST

/* What was prepared again after a DEALLOCATE is still there when another
 * statement is found to be gone. */
START_TEST(some_of_what_was_prepared_is_gone)
{
    outbox_event ev = event("k");
    const outbox_event *at[] = { &ev, &ev };
    place p;

    place_open(&p, NULL);
    sql(p.conn, "BEGIN");
    ck_ok(outbox_publish_commit(p.ob, at, 1, &p.err));
    sql(p.conn, "DEALLOCATE ALL");
    sql(p.conn, "BEGIN");
    int rc = outbox_publish_commit(p.ob, at, 2, &p.err);
    ck_says(&p.err, rc, OUTBOX_EBUSY, "26000", "run the transaction again");
    sql(p.conn, "ROLLBACK");
    for (int i = 0; i < 3; i++) {
        sql(p.conn, "BEGIN");
        ck_ok(outbox_publish_commit(p.ob, at, 2, &p.err));
    }
    ck_assert_int_eq(logged(&p), 7);
    place_close(&p);
}
END_TEST

/* An event in a lane that there is not would never be read. */
START_TEST(made_anew_with_other_lanes)
{
    static const char most[] = "SELECT max(lane) FROM outbox.log";
    outbox_options four = { .size = sizeof four, .lanes = 4 };
    const outbox_event *at[40];
    outbox_event ev[40];
    char key[40][8];
    outbox_t *ob;
    place p;

    for (int i = 0; i < 40; i++) {
        snprintf(key[i], sizeof key[i], "k%d", i);
        ev[i] = event(key[i]);
        at[i] = &ev[i];
    }
    place_open(&p, NULL);
    sql(p.conn, "BEGIN");
    ck_ok(outbox_publish_commit(p.ob, at, 40, &p.err));
    ck_assert_int_gt(pg_ask(p.db, most), 3);
    PGconn *other = pg_open(p.db, NULL);
    sql(other, "DROP SCHEMA outbox CASCADE");
    ck_ok(outbox_pg_open(&ob, other, &four, &p.err));
    ck_ok(outbox_migrate(ob, &p.err));
    outbox_close(ob);
    PQfinish(other);
    sql(p.conn, "BEGIN");
    int rc = outbox_publish_commit(p.ob, at, 40, &p.err);
    ck_says(&p.err, rc, OUTBOX_EBUSY, "23514", "made anew");
    sql(p.conn, "ROLLBACK; BEGIN");
    ck_ok(outbox_publish_commit(p.ob, at, 40, &p.err));
    ck_assert_int_eq(logged(&p), 40);
    ck_assert_int_eq(pg_ask(p.db, most), 3);
    place_close(&p);
}
END_TEST

START_TEST(dropped_and_made_anew_with_other_lanes)
{
    outbox_options one = { .size = sizeof one, .lanes = 1 };
    outbox_event ev = event("k");
    outbox_t *ob;
    place p;

    place_open(&p, NULL);
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    sql(p.db->conn, "DROP SCHEMA outbox CASCADE");
    int rc = publish_alone(p.conn, p.ob, &ev, &p.err);
    ck_says(&p.err, rc, OUTBOX_ESCHEMA, "42P01", "outbox_migrate()");
    PGconn *other = pg_open(p.db, NULL);
    ck_ok(outbox_pg_open(&ob, other, &one, &p.err));
    ck_ok(outbox_migrate(ob, &p.err));
    outbox_close(ob);
    PQfinish(other);
    for (int i = 0; i < 20; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%d", i);
        ev = event(key);
        ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    }
    ck_assert_int_eq(pg_ask(p.db, "SELECT max(lane) FROM outbox.log"), 0);
    place_close(&p);
}
END_TEST

/* Once it took a minute: as the square of their number. */
START_TEST(many_dedup_keys_at_once)
{
    enum { N = 20000 };
    static const outbox_event *at[N];
    static outbox_event ev[N];
    static char key[N][12];
    place p;

    for (int i = 0; i < N; i++) {
        snprintf(key[i], sizeof key[i], "d%d", i % (N - 5));
        ev[i] = event("k");
        ev[i].dedup_key = key[i];
        at[i] = &ev[i];
    }
    place_open(&p, NULL);
    sql(p.conn, "SET statement_timeout = '10s'; BEGIN");
    ck_assert_int_eq(outbox_publish_commit(p.ob, at, N, &p.err),
                     OUTBOX_DUPLICATE);
    ck_assert_int_eq(logged(&p), N - 5);
    place_close(&p);
}
END_TEST

START_TEST(pooled_leaves_no_session_state)
{
    outbox_options opt = { .size = sizeof opt, .flags = OUTBOX_POOLED };
    outbox_event ev = event("k");
    const outbox_event *at[] = { &ev, &ev };
    place p;

    place_open(&p, &opt);
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    sql(p.conn, "DISCARD ALL");
    sql(p.conn, "BEGIN");
    ck_ok(outbox_publish_commit(p.ob, at, 2, &p.err));
    sql(p.conn, "DISCARD ALL");
    sql(p.conn, "BEGIN");
    ck_assert_int_eq(inbox_accept(p.ib, "c", "i", &p.err), 1);
    ck_ok(inbox_commit(p.ib, &p.err));
    ck_assert_int_eq(pg_number(p.conn, "SELECT count(*)"
                                       " FROM pg_prepared_statements"), 0);
    ck_assert_int_eq(pg_number(p.conn, "SELECT count(*) FROM pg_locks"
                                       " WHERE locktype = 'advisory'"), 0);
    ck_assert_int_eq(logged(&p), 3);
    place_close(&p);
}
END_TEST

/* NOTIFY and PREPARE TRANSACTION exclude each other. */
START_TEST(quiet_can_be_prepared)
{
    outbox_options opt = { .size = sizeof opt, .flags = OUTBOX_QUIET };
    outbox_event ev = event("k");
    place p;

    place_open(&p, &opt);
    sql(p.conn, "BEGIN");
    ck_ok(outbox_publish(p.ob, &ev, &p.err));
    sql(p.conn, "PREPARE TRANSACTION 'x'");
    ck_assert_int_eq(logged(&p), 0);
    sql(p.conn, "COMMIT PREPARED 'x'");
    ck_assert_int_eq(logged(&p), 1);
    place_close(&p);
}
END_TEST

/* A mark is durable whatever the session says, and whoever commits it; and
 * the session says it again afterwards. */
static void commit_durably(int by_hand)
{
    place p;

    place_open(&p, NULL);
    sql(p.conn, "SET synchronous_commit = off");
    sql(p.conn, "BEGIN");
    ck_assert_int_eq(inbox_accept(p.ib, "c", "i", &p.err), 1);
    int64_t written = pg_number(p.conn, "SELECT pg_wal_lsn_diff("
                                        "pg_current_wal_insert_lsn(), '0/0')");
    if (by_hand)
        sql(p.conn, "COMMIT");
    else
        ck_ok(inbox_commit(p.ib, &p.err));
    ck_assert_int_ge(pg_number(p.conn, "SELECT pg_wal_lsn_diff("
                                       "pg_current_wal_flush_lsn(), '0/0')"),
                     written);
    ck_assert_int_eq(pg_number(p.conn,
                               "SELECT (current_setting("
                               "'synchronous_commit') = 'off')::int"), 1);
    place_close(&p);
}

START_TEST(the_inbox_commits_durably)
{
    commit_durably(0);
    commit_durably(1);
}
END_TEST

/* Databases carry this number: a migration that was released never changes, a
 * new one is added. */
START_TEST(the_first_migration_is_what_it_was)
{
    place p;

    place_open(&p, NULL);
    PGresult *res = PQexec(p.conn, "SELECT checksum FROM outbox.migration"
                                   " WHERE version = 1");
    ck_assert_int_eq(PQntuples(res), 1);
    ck_assert_str_eq(PQgetvalue(res, 0, 0), "67d29ddfd4d50221");
    PQclear(res);
    place_close(&p);
}
END_TEST

void add_guard_tests(Suite *s)
{
    TCase *tc = suite_case(s, "guards");

    tcase_add_test(tc, results_that_are_not_read);
    tcase_add_test(tc, in_the_middle_of_copy);
    tcase_add_test(tc, in_pipeline_mode);
    tcase_add_test(tc, in_an_aborted_transaction);
    tcase_add_test(tc, another_encoding);
    tcase_add_test(tc, another_encoding_for_people);
    tcase_add_test(tc, a_search_path_changes_nothing);
    tcase_add_test(tc, a_schema_of_ones_own);
    tcase_add_test(tc, a_schema_that_is_refused);
    tcase_add_test(tc, prepared_once_for_a_connection);
    tcase_add_test(tc, some_of_what_was_prepared_is_gone);
    tcase_add_test(tc, made_anew_with_other_lanes);
    tcase_add_test(tc, dropped_and_made_anew_with_other_lanes);
    tcase_add_test(tc, many_dedup_keys_at_once);
    tcase_add_test(tc, pooled_leaves_no_session_state);
    tcase_add_test(tc, quiet_can_be_prepared);
    tcase_add_test(tc, the_inbox_commits_durably);
    tcase_add_test(tc, the_first_migration_is_what_it_was);
}

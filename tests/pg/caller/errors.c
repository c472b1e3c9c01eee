/* SPDX-License-Identifier: MIT
 *
 * errors.c - what the server refuses: its SQLSTATE, our code, and a sentence
 * that says what to do.
 */
#include "caller.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* A trigger that has the server say what it says when a disk is full. */
static void raise_state(place *p, const char *state)
{
    sql(p->conn,
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE EXCEPTION 'could not extend file'"
        " USING ERRCODE = '%s'; END$$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON outbox.log_0"
        " FOR EACH ROW EXECUTE FUNCTION public.refuse()", state);
}

static const struct {
    const char *state;
    int         code;
    const char *words;
} states[] = {
    { "53100", OUTBOX_EABORTED, "disk is full: make room; then roll back" },
    { "53200", OUTBOX_EABORTED, "out of memory; then roll back" },
    { "57014", OUTBOX_EABORTED, "timeout" },
    { "40001", OUTBOX_EBUSY, "run the transaction again" },
    { "40P01", OUTBOX_EBUSY, "run the transaction again" },
    { "55P03", OUTBOX_EBUSY, "run the transaction again" },
    { "25006", OUTBOX_EREADONLY, "primary" },
    { "42501", OUTBOX_EABORTED, "outbox_pg(3)" },
    { "42P01", OUTBOX_ESCHEMA, "outbox_migrate()" },
    { "3F000", OUTBOX_ESCHEMA, "outbox_migrate()" },
    { "XX000", OUTBOX_EABORTED, "then roll back" },
};

START_TEST(each_state)
{
    place p;
    outbox_event ev = event("k");
    const outbox_event *at = &ev;

    place_open(&p, NULL);
    raise_state(&p, states[_i].state);
    int rc = publish_alone(p.conn, p.ob, &ev, &p.err);
    ck_says(&p.err, rc, states[_i].code, states[_i].state, states[_i].words);
    ck_says(&p.err, rc, states[_i].code, states[_i].state,
            "publish: could not extend file");
    sql(p.conn, "BEGIN");
    rc = outbox_publish_commit(p.ob, &at, 1, &p.err);
    ck_says(&p.err, rc, states[_i].code, states[_i].state, states[_i].words);
    ck_assert_int_eq(PQtransactionStatus(p.conn), PQTRANS_INERROR);
    sql(p.conn, "ROLLBACK; DROP TRIGGER refuse ON outbox.log_0");
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    ck_assert_int_eq(logged(&p), 1);
    place_close(&p);
}
END_TEST

/* No file of the server's process that serves conn grows beyond so many bytes
 * ("unlimited": as before).  To PostgreSQL it is a disk that is full: of what
 * it writes not all arrives. */
static void file_limit(PGconn *conn, const char *bytes)
{
    char command[200];

    snprintf(command, sizeof command,
             "sh \"$OUTBOX_PG_CLUSTER\" as \"$OUTBOX_TEST_PGDIR\""
             " prlimit --pid %d --fsize=%s:", PQbackendPID(conn), bytes);
    ck_assert_msg(system(command) == 0, "%s", command);
}

/* What does not compress. */
static void noise(char *to, size_t n)
{
    uint64_t x = 88172645463325252u;

    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        to[i] = (char)(x >> 32);
    }
}

/* Beyond 20 MiB, so that the log's files of 16 MiB are not concerned; to write
 * that one without room stops any PostgreSQL.  From 16 on a server tells a
 * limit of files from a full disk. */
START_TEST(a_disk_that_is_full)
{
    enum { MB = 1000000, MOST = 30 };
    static char payload[MB];
    place p;
    outbox_event ev = event("k");
    const outbox_event *at = &ev;
    int rc = OUTBOX_OK, n = 0;

    noise(payload, MB);
    ev.payload = payload;
    ev.payload_len = MB;
    place_open(&p, NULL);
    bool tells = PQserverVersion(p.conn) >= 160000;
    const char *state = tells ? "XX000" : "53100";
    const char *words = tells ? "File too large; then roll back"
                              : "disk is full: make room; then roll back";
    file_limit(p.conn, "20975616");
    while (n < MOST && rc == OUTBOX_OK) {
        rc = publish_alone(p.conn, p.ob, &ev, &p.err);
        n += rc == OUTBOX_OK;
    }
    ck_says(&p.err, rc, OUTBOX_EABORTED, state, words);
    ck_assert_int_gt(n, 15);
    sql(p.conn, "BEGIN");
    rc = outbox_publish_commit(p.ob, &at, 1, &p.err);
    ck_says(&p.err, rc, OUTBOX_EABORTED, state, words);
    sql(p.conn, "ROLLBACK");
    ck_assert_int_eq(logged(&p), n);
    file_limit(p.conn, "unlimited");
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    ck_assert_int_eq(logged(&p), n + 1);
    place_close(&p);
}
END_TEST

/* Whoever publishes, accepts or counts is told what is missing. */
START_TEST(without_tables)
{
    place p;
    outbox_event ev = event("k");

    place_open(&p, NULL);
    sql(p.conn, "DROP SCHEMA outbox CASCADE");
    PGconn *conn = pg_open(p.db, NULL);
    outbox_t *ob;
    ck_ok(outbox_pg_open(&ob, conn, NULL, &p.err));
    int rc = publish_alone(conn, ob, &ev, &p.err);
    ck_says(&p.err, rc, OUTBOX_ESCHEMA, "", "run outbox_migrate()");
    ck_ok(outbox_migrate(ob, &p.err));
    ck_ok(publish_alone(conn, ob, &ev, &p.err));
    sql(p.conn, "UPDATE outbox.meta SET version = version + 1");
    outbox_close(ob);
    PQreset(conn);
    ck_ok(outbox_pg_open(&ob, conn, NULL, &p.err));
    rc = publish_alone(conn, ob, &ev, &p.err);
    ck_says(&p.err, rc, OUTBOX_ESCHEMA, "", "newer library");
    outbox_close(ob);
    PQfinish(conn);
    place_close(&p);
}
END_TEST

START_TEST(a_statement_timeout)
{
    place p;
    outbox_event ev = event("k");

    place_open(&p, NULL);
    PGconn *other = pg_open(p.db, NULL);
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    sql(other, "BEGIN; LOCK TABLE outbox.log_0 IN ACCESS EXCLUSIVE MODE");
    sql(p.conn, "SET statement_timeout = 50");
    int rc = publish_alone(p.conn, p.ob, &ev, &p.err);
    ck_says(&p.err, rc, OUTBOX_EABORTED, "57014", "raise the timeout");
    sql(p.conn, "SET statement_timeout = 0; SET lock_timeout = 50");
    rc = publish_alone(p.conn, p.ob, &ev, &p.err);
    ck_says(&p.err, rc, OUTBOX_EBUSY, "55P03", "run the transaction again");
    PQfinish(other);
    place_close(&p);
}
END_TEST

/* The second claim of a key that another has committed meanwhile. */
START_TEST(a_serialization_failure)
{
    place p;
    outbox_t *ob;
    outbox_event ev = event("k");

    ev.dedup_key = "once";
    place_open(&p, NULL);
    PGconn *other = pg_open(p.db, NULL);
    ck_ok(outbox_pg_open(&ob, other, NULL, &p.err));
    sql(p.conn, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    ck_assert_int_eq(inbox_accept(p.ib, "c", "i", &p.err), 1);
    ck_ok(publish_alone(other, ob, &ev, &p.err));
    int rc = outbox_publish(p.ob, &ev, &p.err);
    ck_says(&p.err, rc, OUTBOX_EBUSY, "40001", "run the transaction again");
    sql(p.conn, "ROLLBACK");
    sql(p.conn, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    ck_assert_int_eq(outbox_publish(p.ob, &ev, &p.err), OUTBOX_DUPLICATE);
    sql(p.conn, "COMMIT");
    outbox_close(ob);
    PQfinish(other);
    place_close(&p);
}
END_TEST

/* Serializable transactions that read what the other writes: one of them is
 * refused at its COMMIT, and then none is open any more. */
START_TEST(refused_at_the_commit)
{
    place p;
    outbox_event ev = event("k");
    const outbox_event *at = &ev;

    place_open(&p, NULL);
    PGconn *other = pg_open(p.db, NULL);
    sql(p.conn, "CREATE TABLE a (x int); CREATE TABLE b (x int)");
    sql(p.conn, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM a;"
                "INSERT INTO b VALUES (1)");
    ck_assert_int_eq(inbox_accept(p.ib, "c", "i", &p.err), 1);
    sql(other, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM b;"
               "INSERT INTO a VALUES (1); COMMIT");
    int rc = outbox_publish_commit(p.ob, &at, 1, &p.err);
    ck_assert(rc == OUTBOX_EABORTED || rc == OUTBOX_EBUSY);
    ck_says(&p.err, rc, rc, "40001", "run the transaction again");
    if (rc == OUTBOX_EABORTED)
        ck_assert_int_eq(PQtransactionStatus(p.conn), PQTRANS_IDLE);
    ck_assert_int_eq(logged(&p), 0);
    PQfinish(other);
    place_close(&p);
}
END_TEST

START_TEST(a_deferred_constraint_at_the_commit)
{
    place p;
    outbox_event ev = event("k");
    const outbox_event *at = &ev;

    place_open(&p, NULL);
    sql(p.conn, "CREATE TABLE a (x int UNIQUE DEFERRABLE INITIALLY DEFERRED);"
                "INSERT INTO a VALUES (1)");
    sql(p.conn, "BEGIN; INSERT INTO a VALUES (1)");
    int rc = outbox_publish_commit(p.ob, &at, 1, &p.err);
    ck_says(&p.err, rc, OUTBOX_EABORTED, "23505", "commit: duplicate key");
    ck_assert_int_eq(PQtransactionStatus(p.conn), PQTRANS_IDLE);
    sql(p.conn, "BEGIN; INSERT INTO a VALUES (1)");
    rc = inbox_commit(p.ib, &p.err);
    ck_says(&p.err, rc, OUTBOX_EABORTED, "23505", "commit: duplicate key");
    ck_assert_int_eq(logged(&p), 0);
    place_close(&p);
}
END_TEST

/* Its state is that of an event in tables that were made anew. */
START_TEST(a_check_of_the_caller_at_the_commit)
{
    place p;
    outbox_event ev = event("k");
    const outbox_event *at = &ev;

    place_open(&p, NULL);
    sql(p.conn, "CREATE TABLE a (x int);"
                "CREATE FUNCTION public.check_a() RETURNS trigger"
                " LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no x'"
                " USING ERRCODE = '23514'; END$$;"
                "CREATE CONSTRAINT TRIGGER a AFTER INSERT ON a DEFERRABLE"
                " INITIALLY DEFERRED FOR EACH ROW"
                " EXECUTE FUNCTION public.check_a();"
                "BEGIN; INSERT INTO a VALUES (1)");
    int rc = outbox_publish_commit(p.ob, &at, 1, &p.err);
    ck_says(&p.err, rc, OUTBOX_EABORTED, "23514", "no x");
    ck_assert_ptr_null(strstr(p.err.text, "made anew"));
    place_close(&p);
}
END_TEST

typedef struct locker {
    PGconn      *conn;
    outbox_t    *ob;
    const char  *first, *second;
    pthread_barrier_t *gate;
    int          rc;
    outbox_error err;
} locker;

static void *lock_both(void *arg)
{
    locker *l = arg;
    outbox_event one = event(l->first), two = event(l->second);

    pg_exec(l->conn, "BEGIN");
    l->rc = outbox_publish(l->ob, &one, &l->err);
    pthread_barrier_wait(l->gate);
    if (l->rc == OUTBOX_OK)
        l->rc = outbox_publish(l->ob, &two, &l->err);
    pg_exec(l->conn, l->rc == OUTBOX_OK ? "COMMIT" : "ROLLBACK");
    return NULL;
}

/* OUTBOX_LOCK_KEYS, in opposite orders; one call would sort them. */
START_TEST(a_deadlock)
{
    outbox_options opt = { .size = sizeof opt, .flags = OUTBOX_LOCK_KEYS };
    place p;
    pthread_barrier_t gate;
    pthread_t threads[2];
    locker l[2] = { { .first = "a", .second = "b", .gate = &gate },
                    { .first = "b", .second = "a", .gate = &gate } };

    place_open(&p, &opt);
    pthread_barrier_init(&gate, NULL, 2);
    for (int i = 0; i < 2; i++) {
        l[i].conn = pg_open(p.db, "-c deadlock_timeout=100ms");
        ck_ok(outbox_pg_open(&l[i].ob, l[i].conn, &opt, &p.err));
        pthread_create(&threads[i], NULL, lock_both, &l[i]);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    const locker *lost = l[0].rc != OUTBOX_OK ? &l[0] : &l[1];
    ck_says(&lost->err, lost->rc, OUTBOX_EBUSY, "40P01",
            "run the transaction again");
    ck_ok(l[lost == &l[0] ? 1 : 0].rc);
    ck_assert_int_eq(logged(&p), 2);
    for (int i = 0; i < 2; i++) {
        outbox_close(l[i].ob);
        PQfinish(l[i].conn);
    }
    place_close(&p);
}
END_TEST

/* A writer of the same key waits for the other's end, so that the events are
 * in the order of the commits; one of another key, or none, does not wait,
 * nor does anybody without the flag. */
START_TEST(one_writer_of_a_key_at_a_time)
{
    outbox_options opt = { .size = sizeof opt, .flags = OUTBOX_LOCK_KEYS };
    outbox_event a = event("a"), b = event("b"), none = event(NULL);
    place p;
    outbox_t *locks, *plain;

    place_open(&p, &opt);
    PGconn *conn = pg_open(p.db, "-c lock_timeout=100ms");
    ck_ok(outbox_pg_open(&locks, conn, &opt, &p.err));
    ck_ok(outbox_pg_open(&plain, conn, NULL, &p.err));
    sql(p.conn, "BEGIN");
    ck_ok(outbox_publish(p.ob, &a, &p.err));
    ck_ok(outbox_publish(p.ob, &none, &p.err));
    int rc = publish_alone(conn, locks, &a, &p.err);
    ck_says(&p.err, rc, OUTBOX_EBUSY, "55P03", "run the transaction again");
    ck_ok(publish_alone(conn, locks, &b, &p.err));
    ck_ok(publish_alone(conn, locks, &none, &p.err));
    ck_ok(publish_alone(conn, plain, &a, &p.err));
    sql(p.conn, "COMMIT");
    ck_ok(publish_alone(conn, locks, &a, &p.err));
    ck_assert_int_eq(logged(&p), 6);
    outbox_close(plain);
    outbox_close(locks);
    PQfinish(conn);
    place_close(&p);
}
END_TEST

START_TEST(text_that_the_database_cannot_hold)
{
    place p;
    outbox_t *ob;
    outbox_event ev = event("10 \xe2\x82\xac");         /* a euro */

    place_open(&p, NULL);
    sql(p.conn, "CREATE DATABASE %s_latin1 ENCODING LATIN1 LOCALE 'C'"
                " TEMPLATE template0", p.db->name);
    pg_db latin1 = { .conn = NULL };
    snprintf(latin1.conninfo, sizeof latin1.conninfo,
             "%s dbname=%s_latin1 client_encoding=UTF8",
             getenv("OUTBOX_TEST_PG"), p.db->name);
    PGconn *conn = pg_open(&latin1, NULL);
    ck_ok(outbox_pg_open(&ob, conn, NULL, &p.err));
    ck_ok(outbox_migrate(ob, &p.err));
    int rc = publish_alone(conn, ob, &ev, &p.err);
    ck_says(&p.err, rc, OUTBOX_EINVAL, "22P05", "encoding");
    ev.key = "caf\xc3\xa9";
    ck_ok(publish_alone(conn, ob, &ev, &p.err));
    outbox_close(ob);
    PQfinish(conn);
    sql(p.conn, "DROP DATABASE %s_latin1", p.db->name);
    place_close(&p);
}
END_TEST

/* Longer than the server takes: it would end the connection. */
START_TEST(a_payload_of_a_gibibyte)
{
    outbox_options opt = { .size = sizeof opt,
                           .max_payload_bytes = (size_t)2 << 30 };
    outbox_event ev = event("k");
    size_t n = (size_t)1 << 30;
    char *big = calloc(1, n);
    place p;

    ck_assert_ptr_nonnull(big);
    place_open(&p, &opt);
    ev.payload = big;
    ev.payload_len = n;
    sql(p.conn, "BEGIN");
    int rc = outbox_publish(p.ob, &ev, &p.err);
    ck_says(&p.err, rc, OUTBOX_EINVAL, "", "publish a reference");
    ev.payload_len = 1000;
    ck_ok(outbox_publish(p.ob, &ev, &p.err));   /* it goes on */
    sql(p.conn, "COMMIT");
    ck_assert_int_eq(logged(&p), 1);
    free(big);
    place_close(&p);
}
END_TEST

/* Written by somebody's trigger, or not at all. */
START_TEST(a_trigger_that_swallows_events)
{
    place p;
    outbox_event ev = event("k");
    const outbox_event *at[] = { &ev, &ev };

    place_open(&p, NULL);
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    sql(p.conn, "CREATE FUNCTION public.swallow() RETURNS trigger"
                " LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;"
                "CREATE TRIGGER swallow BEFORE INSERT ON outbox.log_0"
                " FOR EACH ROW EXECUTE FUNCTION public.swallow()");
    int rc = publish_alone(p.conn, p.ob, &ev, &p.err);
    ck_says(&p.err, rc, OUTBOX_EDB, "", "0 of 1");
    sql(p.conn, "BEGIN");
    rc = outbox_publish_many(p.ob, at, 2, &p.err);
    ck_says(&p.err, rc, OUTBOX_EDB, "", "0 of 2");
    sql(p.conn, "ROLLBACK");
    place_close(&p);
}
END_TEST

/* A loop test: 1 behind a pooler. */
static void swallow_place(place *p, outbox_options *opt, int pooled)
{
    *opt = (outbox_options){ .size = sizeof *opt,
                             .flags = pooled ? OUTBOX_POOLED : 0 };
    place_open(p, opt);
    sql(p->conn, "CREATE FUNCTION public.swallow() RETURNS trigger"
                 " LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$");
}

static void swallow(place *p)
{
    sql(p->conn, "CREATE TRIGGER swallow BEFORE INSERT ON outbox.log_0"
                 " FOR EACH ROW EXECUTE FUNCTION public.swallow()");
}

/* With the COMMIT, too: as long as anything listens to the tables, it is sent
 * after the answer. */
START_TEST(no_commit_without_its_events)
{
    place p;
    outbox_options opt;
    outbox_event ev = event("k");
    const outbox_event *at[] = { &ev, &ev };

    swallow_place(&p, &opt, _i);
    swallow(&p);
    for (size_t n = 1; n <= 2; n++) {
        sql(p.conn, "BEGIN; INSERT INTO work VALUES (1)");
        int rc = outbox_publish_commit(p.ob, at, n, &p.err);
        ck_says(&p.err, rc, OUTBOX_EDB, "", n == 1 ? "0 of 1" : "0 of 2");
        ck_assert_int_eq(PQtransactionStatus(p.conn), PQTRANS_INTRANS);
        sql(p.conn, "ROLLBACK");
    }
    ck_assert_int_eq(pg_ask(p.db, "SELECT count(*) FROM work"), 0);
    sql(p.conn, "DROP TRIGGER swallow ON outbox.log_0; BEGIN");
    ck_ok(outbox_publish_commit(p.ob, at, 2, &p.err));
    ck_assert_int_eq(PQtransactionStatus(p.conn), PQTRANS_IDLE);
    ck_assert_int_eq(logged(&p), 2);
    place_close(&p);
}
END_TEST

/* Made after the connection looked, it is found too late; which is said. */
START_TEST(a_trigger_that_came_later)
{
    place p;
    outbox_options opt;
    outbox_event ev = event("k");
    const outbox_event *at[] = { &ev };

    swallow_place(&p, &opt, _i);
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    swallow(&p);
    sql(p.conn, "BEGIN; INSERT INTO work VALUES (1)");
    int rc = outbox_publish_commit(p.ob, at, 1, &p.err);
    ck_says(&p.err, rc, OUTBOX_EINDOUBT, "", "is committed");
    ck_says(&p.err, rc, OUTBOX_EINDOUBT, "", "0 of 1");
    ck_assert_int_eq(PQtransactionStatus(p.conn), PQTRANS_IDLE);
    ck_assert_int_eq(pg_ask(p.db, "SELECT count(*) FROM work"), 1);
    ck_assert_int_eq(logged(&p), 1);
    place_close(&p);
}
END_TEST

void add_error_tests(Suite *s)
{
    TCase *tc = suite_case(s, "errors");

    tcase_add_loop_test(tc, each_state, 0,
                        (int)(sizeof states / sizeof *states));
    tcase_add_test(tc, a_disk_that_is_full);
    tcase_add_test(tc, without_tables);
    tcase_add_test(tc, a_statement_timeout);
    tcase_add_test(tc, a_serialization_failure);
    tcase_add_test(tc, refused_at_the_commit);
    tcase_add_test(tc, a_deferred_constraint_at_the_commit);
    tcase_add_test(tc, a_check_of_the_caller_at_the_commit);
    tcase_add_test(tc, a_deadlock);
    tcase_add_test(tc, one_writer_of_a_key_at_a_time);
    tcase_add_test(tc, text_that_the_database_cannot_hold);
    tcase_add_test(tc, a_payload_of_a_gibibyte);
    tcase_add_test(tc, a_trigger_that_swallows_events);
    tcase_add_loop_test(tc, no_commit_without_its_events, 0, 2);
    tcase_add_loop_test(tc, a_trigger_that_came_later, 0, 2);
}

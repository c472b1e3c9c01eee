/* SPDX-License-Identifier: MIT
 *
 * encoding.c - a database that is not in UTF-8 and cannot hold all of it.
 * What it holds itself it can send; what a transport says comes from outside.
 */
#include "pg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct harbour {                /* a database in Latin-1 */
    pg_db    *neighbour;
    pg_db     db;
    PGconn   *conn;
    outbox_t *ob;
} harbour;

static void harbour_open(harbour *h)
{
    outbox_error err;

    h->neighbour = pg_create();
    h->db.conn = NULL;
    snprintf(h->db.name, sizeof h->db.name, "%.50s_latin1",
             h->neighbour->name);
    snprintf(h->db.conninfo, sizeof h->db.conninfo,
             "%s dbname=%s client_encoding=UTF8", getenv("OUTBOX_TEST_PG"),
             h->db.name);
    pg_tamper(h->neighbour, "CREATE DATABASE %s ENCODING LATIN1 LOCALE 'C'"
                            " TEMPLATE template0", h->db.name);
    h->conn = pg_open(&h->db, NULL);
    ck_ok(outbox_pg_open(&h->ob, h->conn, NULL, &err));
    ck_ok(outbox_migrate(h->ob, &err));
}

static void harbour_close(harbour *h)
{
    outbox_close(h->ob);
    PQfinish(h->conn);
    pg_tamper(h->neighbour, "DROP DATABASE %s", h->db.name);
    pg_destroy(h->neighbour);
}

static void publish_five(harbour *h)
{
    outbox_error err;

    ck_assert_int_eq(pg_exec(h->conn, "BEGIN"), 0);
    for (long i = 1; i <= 5; i++)
        ck_ok(publish_number(h->ob, NULL, i, &err));
    ck_assert_int_eq(pg_exec(h->conn, "COMMIT"), 0);
}

/* An arrow, which is UTF-8 and is not in Latin-1. */
static outbox_verdict refuse_the_second(sink *s, const outbox_event *ev,
                                        outbox_token token, outbox_error *why)
{
    (void)s, (void)token;
    if (event_number(ev) != 2)
        return OUTBOX_ACK;
    strcpy(why->text, "quai \xe2\x86\x92 ferm\xc3\xa9");
    return OUTBOX_REJECT;
}

static void ck_reason(void *arg, const outbox_event *ev,
                      const char *last_error, int64_t died_ms)
{
    (void)ev, (void)died_ms;
    ck_assert_str_eq(last_error, "quai ? ferm?");
    ++*(int *)arg;
}

START_TEST(a_reason_that_the_database_cannot_hold)
{
    harbour h;
    sink s;
    outbox_t *ob;
    outbox_relay_t *r;
    outbox_error err;
    int n = 0;

    harbour_open(&h);
    publish_five(&h);
    sink_init(&s, refuse_the_second, NULL);
    ck_ok(outbox_pg_connect(&ob, h.db.conninfo, NULL, &err));
    ck_ok(outbox_relay_new(&r, ob, &s.transport, NULL, &err));
    for (int i = 0; i < 10; i++) {
        int rc = outbox_relay_step(r, 0, &err);
        ck_assert_msg(rc >= 0, "step: %d %s", rc, err.text);
    }
    outbox_relay_free(r);
    ck_assert(sink_exactly(&s, 1, 5));
    ck_assert_int_eq(outbox_dead_each(h.ob, "default", 9, ck_reason, &n, &err),
                     1);
    ck_assert_int_eq(n, 1);
    sink_release(&s);
    harbour_close(&h);
}
END_TEST

void add_encoding_tests(Suite *s)
{
    TCase *tc = suite_case(s, "encoding");

    tcase_add_test(tc, a_reason_that_the_database_cannot_hold);
}

/* SPDX-License-Identifier: MIT
 *
 * main.c - the suite, and what its files share.
 */
#include "caller.h"

#include <stdarg.h>
#include <stdio.h>

void sql(PGconn *conn, const char *format, ...)
{
    char text[4000];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ck_assert_msg(pg_exec(conn, text) == 0, "%s: %s", text,
                  PQerrorMessage(conn));
}

void place_open(place *p, const outbox_options *opt)
{
    memset(p, 0, sizeof *p);
    p->db = pg_create();
    p->conn = pg_open(p->db, NULL);
    ck_ok(outbox_pg_open(&p->ob, p->conn, opt, &p->err));
    ck_ok(inbox_pg_open(&p->ib, p->conn, opt, &p->err));
    ck_assert_msg(outbox_migrate(p->ob, &p->err) == OUTBOX_OK, "%s",
                  p->err.text);
}

void place_close(place *p)
{
    outbox_close(p->ob);
    inbox_close(p->ib);
    PQfinish(p->conn);
    pg_destroy(p->db);
}

outbox_event event(const char *key)
{
    return (outbox_event){ .size = sizeof(outbox_event),
                           .topic = "t",
                           .key = key,
                           .payload = "1",
                           .payload_len = 1 };
}

int publish_alone(PGconn *conn, outbox_t *ob, const outbox_event *ev,
                  outbox_error *err)
{
    sql(conn, "BEGIN");
    int rc = outbox_publish(ob, ev, err);

    sql(conn, rc >= 0 ? "COMMIT" : "ROLLBACK");
    return rc;
}

int64_t logged(place *p)
{
    return pg_ask(p->db, "SELECT count(*) FROM outbox.log");
}

void ck_says(const outbox_error *err, int rc, int code, const char *state,
             const char *words)
{
    ck_assert_msg(rc == code, "%d, not %d: %s", rc, code, err->text);
    ck_assert_int_eq(err->code, code);
    ck_assert_msg(strcmp(err->sqlstate, state) == 0, "%s, not %s: %s",
                  err->sqlstate, state, err->text);
    ck_assert_msg(strstr(err->text, words) != NULL, "\"%s\" says no %s",
                  err->text, words);
    ck_assert_ptr_null(strchr(err->text, '\n'));
}

int main(void)
{
    Suite *s = suite_create("caller");

    add_guard_tests(s);
    add_error_tests(s);
    add_send_tests(s);
    add_server_tests(s);
    add_grant_tests(s);
    add_plan_tests(s);
    return suite_main(s);
}

/* SPDX-License-Identifier: MIT
 *
 * kit.c - what pg.h promises.
 */
#include "pg.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void ob_failpoint(const char *name);

void (*at_failpoint)(const char *name);

void ob_failpoint(const char *name)
{
    if (at_failpoint != NULL)
        at_failpoint(name);
}

/* ---- who publishes -------------------------------------------------- */

void writer_open(writer *a, world *w, const char *options, uint32_t flags)
{
    outbox_options opt = {.size = sizeof opt, .flags = flags};
    outbox_error err;

    a->conn = pg_open(w->db, options);
    ck_ok(outbox_pg_open(&a->ob, a->conn, &opt, &err));
}

void writer_close(writer *a)
{
    outbox_close(a->ob);
    PQfinish(a->conn);
}

void writer_do(writer *a, const char *sql)
{
    ck_assert_msg(pg_exec(a->conn, sql) == 0, "%s: %s", sql,
                  PQerrorMessage(a->conn));
}

void writer_publish(writer *a, const char *key, long number)
{
    outbox_error err;

    ck_assert_msg(publish_number(a->ob, key, number, &err) == OUTBOX_OK,
                  "publish: %d %s", err.code, err.text);
}

void writer_publish_many(writer *a, const char *key, long from, long n)
{
    outbox_event *ev = calloc((size_t)n, sizeof *ev);
    const outbox_event **at = calloc((size_t)n, sizeof *at);
    char(*text)[24] = calloc((size_t)n, sizeof *text);
    outbox_error err;

    for (long i = 0; i < n; i++) {
        int len = snprintf(text[i], sizeof text[i], "%ld", from + i);
        ev[i] = (outbox_event){.size = sizeof *ev,
                               .topic = "numbers",
                               .key = key,
                               .payload = text[i],
                               .payload_len = (size_t)len};
        at[i] = &ev[i];
    }
    ck_assert_msg(outbox_publish_many(a->ob, at, (size_t)n, &err) == OUTBOX_OK,
                  "publish: %d %s", err.code, err.text);
    free(text);
    free(at);
    free(ev);
}

void writer_commit_one(writer *a, const char *key, long number)
{
    writer_do(a, "BEGIN");
    writer_publish(a, key, number);
    writer_do(a, "COMMIT");
}

/* ---- what is delivered ---------------------------------------------- */

outbox_relay_t *relay_at_rest(world *w, sut_link *link)
{
    outbox_relay_t *r = relay_open(w, NULL, NULL, link);

    settle_down(r);
    return r;
}

void ck_delivered(world *w, ...)
{
    va_list args;
    size_t n = 0;
    int number;

    va_start(args, w);
    while ((number = va_arg(args, int)) != -1) {
        ck_assert_msg(n < sink_count(&w->sink), "%d was not delivered", number);
        ck_assert_int_eq(sink_number(&w->sink, n), number);
        n++;
    }
    va_end(args);
    ck_assert_uint_eq(sink_count(&w->sink), n);
}

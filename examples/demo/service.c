/* SPDX-License-Identifier: MIT
 *
 * service.c - a shop: each order is placed, paid and shipped, in a transaction
 *             of its own that also publishes the event about it.
 *
 * It may be killed at any moment.  Started again, it reads in its table how
 * far each order had come, and goes on from there; what was committed and not
 * yet acknowledged, the relay delivers again.
 */
#include "demo.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LEASE_MS = 1000,        /* so long the work of a killed relay waits */
    STOP_MS = 5000
};

static const char tables[] =
    "CREATE TABLE IF NOT EXISTS orders ("
    "    id TEXT PRIMARY KEY, customer TEXT NOT NULL,"
    "    total_cents INTEGER NOT NULL, state TEXT NOT NULL)";

static const struct step {
    const char *event, *sql;            /* parameters: order, customer, cents */
} steps[] = {
    {"order.placed", "INSERT INTO orders VALUES ($1, $2, $3, 'placed')"},
    {"order.paid", "UPDATE orders SET state = 'paid' WHERE id = $1"},
    {"order.shipped", "UPDATE orders SET state = 'shipped' WHERE id = $1"},
};

static const char steps_done[] =
    "SELECT CASE state WHEN 'placed' THEN 1 WHEN 'paid' THEN 2 ELSE 3 END"
    " FROM orders WHERE id = $1";

struct order {
    const char *id, *customer;
    char cents[24];
    char *json;                         /* as it came, on one line */
};

struct service {
    db_t *db;
    outbox_t *ob;
    outbox_relay_t *relay;
    struct link link;
    outbox_error err;
};

/* ---- business -------------------------------------------------------- */

/* For whoever reports it, before ROLLBACK changes the database's words. */
static int failed(struct service *s, const char *why)
{
    if (s->err.code == OUTBOX_OK)
        snprintf(s->err.text, sizeof s->err.text, "%s", why);
    return -1;
}

static int transact(struct service *s, const struct step *step,
                    const struct order *o)
{
    const outbox_event ev = {
        .size = sizeof ev,
        .topic = "orders",
        .type = step->event,
        .key = o->id,
        .payload = o->json,
        .payload_len = strlen(o->json),
    };

    if (db_begin(s->db) == 0 &&
        db_run(s->db, step->sql, o->id, o->customer, o->cents, NULL) == 1 &&
        outbox_publish(s->ob, &ev, &s->err) == OUTBOX_OK &&
        db_commit(s->db) == 0)
        return 0;
    failed(s, db_error(s->db));
    db_rollback(s->db);
    return -1;
}

static int handle_order(struct service *s, const struct order *o)
{
    int64_t done = db_int(s->db, steps_done, o->id, NULL);

    if (done < 0)
        return failed(s, db_error(s->db));
    for (; done < 3; done++)
        if (transact(s, &steps[done], o) < 0)
            return -1;
    return 0;
}

static int handle_line(struct service *s, const char *line)
{
    struct order o;
    json_error_t bad;
    json_int_t cents;
    json_t *root = json_loads(line, 0, &bad);
    int rc = -1;

    if (root == NULL ||
        json_unpack_ex(root, &bad, 0, "{s:s, s:s, s:I}", "order", &o.id,
                       "customer", &o.customer, "total_cents", &cents)) {
        failed(s, bad.text);
        goto out;
    }
    snprintf(o.cents, sizeof o.cents, "%" JSON_INTEGER_FORMAT, cents);
    o.json = json_dumps(root, JSON_COMPACT);
    rc = o.json ? handle_order(s, &o) : failed(s, "no memory");
    free(o.json);
out:
    json_decref(root);
    return rc;
}

static int handle_orders(struct service *s, const char *path)
{
    FILE *in = fopen(path, "r");
    char *line = NULL;
    size_t size = 0;
    long n;
    int rc = 0;

    if (in == NULL) {
        fprintf(stderr, "%s: ", path);
        return failed(s, strerror(errno));
    }
    for (n = 1; rc == 0 && getline(&line, &size, in) > 0; n++)
        if (line[0] != '\n')
            rc = handle_line(s, line);
    if (rc < 0)
        fprintf(stderr, "%s:%ld: ", path, n - 1);
    free(line);
    fclose(in);
    return rc;
}

/* ---- the process ----------------------------------------------------- */

/* The relay delivers meanwhile.  The driver holds the other end of standard
 * input, a person at a terminal says Ctrl-D. */
static void await_end_of_input(void)
{
    char ignored[64];
    ssize_t n;

    do
        n = read(STDIN_FILENO, ignored, sizeof ignored);
    while (n > 0 || (n < 0 && errno == EINTR));
}

static void log_line(void *arg, int level, const char *line)
{
    (void)arg;
    fprintf(stderr, "service: <%d> %s\n", level, line);
}

static int start(struct service *s, const char *db, const char *socket)
{
    const outbox_transport link = link_transport(&s->link, socket);
    const outbox_relay_options opt = {
        .size = sizeof opt,
        .lease_ms = LEASE_MS,
        .max_inflight = LINK_WINDOW,
        .poll_ms = 100,
        .retry_min_ms = 20,
        .breaker_ms = 100,
        .keep_ms = 24 * 3600 * 1000,    /* for the comparison at the end */
        .log = log_line,
    };
    outbox_t *own;

    if (db_open(&s->db, db, tables) < 0)
        return failed(s, db_error(s->db));
    if (db_outbox(s->db, &s->ob, &s->err) ||
        outbox_migrate(s->ob, &s->err) ||
        db_relay_outbox(db, &own, &s->err))
        return -1;
    if (outbox_relay_new(&s->relay, own, &link, &opt, &s->err)) {
        outbox_close(own);
        return -1;
    }
    return outbox_relay_start(s->relay, &s->err);
}

int service_main(const char *db, const char *socket, const char *orders)
{
    struct service s = {0};
    int bad = start(&s, db, socket) < 0 || handle_orders(&s, orders) < 0;

    if (!bad) {
        await_end_of_input();
        bad = outbox_relay_stop(s.relay, STOP_MS, &s.err) < 0;
    }
    if (bad)
        fprintf(stderr, "service: %s\n", s.err.text);
    outbox_relay_free(s.relay);
    outbox_close(s.ob);
    db_close(s.db);
    return bad;
}

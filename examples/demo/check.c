/* SPDX-License-Identifier: MIT
 *
 * check.c - do the two databases agree?  Asked in SQL, of the databases
 *           alone: nothing that a process counted or remembered is believed.
 */
#include "demo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct both {
    db_t *service, *consumer;
};

/* Numbers that both sides must have alike. */
static const struct {
    const char *what, *service, *consumer;
} pairs[] = {
    {"orders shipped",
     "SELECT count(*) FROM orders WHERE state = 'shipped'",
     "SELECT count(*) FROM order_state WHERE state = 'shipped'"},
    {"events committed; effects applied",
     "SELECT count(*) FROM event",
     "SELECT count(*) FROM delivery WHERE first = 1"},
    {"turnover in cents",
     "SELECT coalesce(sum(total_cents), 0) FROM orders",
     "SELECT coalesce(sum(cents), 0) FROM turnover"},
};

/* Lists that both must have alike, line by line: the sums above could hide two
 * errors that cancel out. */
static const struct {
    const char *what, *service, *consumer;
} lists[] = {
    {"events lost, or marked in the inbox from nowhere",
     "SELECT id FROM event ORDER BY id",
     "SELECT id FROM mark ORDER BY id"},
    {"events without effect, with two, or out of their order's order",
     "SELECT key, id, type FROM event ORDER BY key, position",
     "SELECT key, replace(event, '-', ''), type FROM delivery"
     " WHERE first = 1 ORDER BY key, seq"},
    {"orders in another state at the consumer",
     "SELECT id, state FROM orders ORDER BY id",
     "SELECT id, state FROM order_state ORDER BY id"},
    {"customers with another turnover there",
     "SELECT customer, sum(total_cents) FROM orders GROUP BY customer"
     " ORDER BY customer",
     "SELECT customer, cents FROM turnover ORDER BY customer"},
};

/* Placed, paid and shipped, in this order; and no event of anything else. */
static const char steps_missing[] =
    "SELECT (SELECT count(*) FROM orders WHERE 3 <> (SELECT count(*)"
    " FROM event WHERE key = orders.id AND type IN ('order.placed',"
    " 'order.paid', 'order.shipped')) OR (SELECT position FROM event"
    " WHERE key = orders.id AND type = 'order.paid') NOT BETWEEN"
    " (SELECT position FROM event WHERE key = orders.id"
    " AND type = 'order.placed') AND (SELECT position FROM event"
    " WHERE key = orders.id AND type = 'order.shipped')) +"
    " (SELECT count(*) FROM event WHERE key NOT IN (SELECT id FROM orders))";

static const char deliveries[] = "SELECT count(*) FROM delivery";
static const char duplicates[] =
    "SELECT count(*) FROM delivery WHERE first = 0";

/* ---- comparing ------------------------------------------------------- */

static int check_pairs(const struct both *b, long orders)
{
    int bad = 0;
    size_t i;

    printf("\n%-36s %9s %9s\n", "what the two databases say", "service",
           "consumer");
    for (i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        int64_t s = db_int(b->service, pairs[i].service, NULL);
        int64_t c = db_int(b->consumer, pairs[i].consumer, NULL);
        int wrong = s < 0 || s != c || (i == 0 && s != orders);

        printf("%-36s %9lld %9lld%s\n", pairs[i].what, (long long)s,
               (long long)c, wrong ? "  WRONG" : "");
        bad += wrong;
    }
    return bad;
}

/* A query's rows as text; NULL: it failed. */
static char *rows_of(db_t *db, const char *sql)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    int rc = out != NULL ? db_print(db, sql, out) : -1;

    if (out != NULL && fclose(out) == 0 && rc == 0)
        return text;
    free(text);
    return NULL;
}

/* How many lines differ, counted in pairs. */
static int64_t differences(const char *a, const char *b)
{
    int64_t n = 0;

    while (*a != '\0' || *b != '\0') {
        size_t x = strcspn(a, "\n"), y = strcspn(b, "\n");

        n += x != y || memcmp(a, b, x) != 0;
        a += x + (a[x] == '\n');
        b += y + (b[y] == '\n');
    }
    return n;
}

static int64_t compare_lists(const struct both *b, size_t i)
{
    char *s = rows_of(b->service, lists[i].service);
    char *c = rows_of(b->consumer, lists[i].consumer);
    int64_t n = s != NULL && c != NULL ? differences(s, c) : -1;

    free(s);
    free(c);
    return n;
}

static int none_of(int64_t n, const char *what)
{
    printf("%4lld %s%s\n", (long long)n, what, n ? "  WRONG" : "");
    return n != 0;
}

static int ask_subscription(const struct both *b, outbox_stats *st)
{
    outbox_t *ob = NULL;
    outbox_error err;
    int rc = db_outbox(b->service, &ob, &err);

    *st = (outbox_stats){.size = sizeof *st};
    if (rc == OUTBOX_OK)
        rc = outbox_subscription_stats(ob, "default", st, &err);
    if (rc != OUTBOX_OK)
        fprintf(stderr, "demo: %s\n", err.text);
    outbox_close(ob);
    return rc;
}

static int check_faults(const struct both *b)
{
    outbox_stats st;
    int bad = none_of(db_int(b->service, steps_missing, NULL),
                      "orders whose three events are not there, once each");
    size_t i;

    for (i = 0; i < sizeof lists / sizeof lists[0]; i++)
        bad += none_of(compare_lists(b, i), lists[i].what);
    if (ask_subscription(b, &st) != OUTBOX_OK)
        return bad + 1;
    bad += none_of((int64_t)(st.lag + st.parked), "events not acknowledged");
    return bad + none_of((int64_t)st.dead, "events given up");
}

/* ---- both databases -------------------------------------------------- */

static int open_both(struct both *b, const char *service, const char *consumer)
{
    *b = (struct both){NULL, NULL};
    if (db_inspect(&b->service, service) < 0)
        fprintf(stderr, "demo: %s: %s\n", service, db_error(b->service));
    else if (db_inspect(&b->consumer, consumer) < 0)
        fprintf(stderr, "demo: %s: %s\n", consumer, db_error(b->consumer));
    else
        return 0;
    return -1;
}

static void close_both(struct both *b)
{
    db_close(b->service);
    db_close(b->consumer);
}

int check_glance(const char *service_db, const char *consumer_db,
                 struct glance *g)
{
    struct both b;
    outbox_stats st;
    int rc = open_both(&b, service_db, consumer_db);

    if (rc == 0) {
        g->shipped = db_int(b.service, pairs[0].service, NULL);
        g->committed = db_int(b.service, pairs[1].service, NULL);
        g->applied = db_int(b.consumer, pairs[1].consumer, NULL);
        rc = ask_subscription(&b, &st) == OUTBOX_OK ? 0 : -1;
        g->unacknowledged = (int64_t)(st.lag + st.parked);
    }
    close_both(&b);
    return rc;
}

int check_databases(const char *service_db, const char *consumer_db,
                    long orders)
{
    struct both b;
    int bad = open_both(&b, service_db, consumer_db);

    if (bad == 0) {
        bad = check_pairs(&b, orders) + check_faults(&b);
        printf("%lld deliveries, %lld of them duplicates: the inbox stopped "
               "them all\n",
               (long long)db_int(b.consumer, deliveries, NULL),
               (long long)db_int(b.consumer, duplicates, NULL));
    }
    close_both(&b);
    return bad;
}

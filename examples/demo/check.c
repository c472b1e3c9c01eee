/* SPDX-License-Identifier: MIT
 *
 * check.c - do the two databases agree?  Asked in SQL, of the files alone:
 *           nothing that a process counted or remembered is believed.
 */
#include "demo.h"

#include <stdio.h>

/* Rows that only one of two queries has. */
#define DIFFERENCE(a, b)                                                      \
    "SELECT count(*) FROM (SELECT * FROM (" a " EXCEPT " b ") UNION ALL "     \
    "SELECT * FROM (" b " EXCEPT " a "))"

/* Numbers that both sides must have alike. */
static const struct {
    const char *what, *service, *consumer;
} pairs[] = {
    {"orders shipped",
     "SELECT count(*) FROM main.orders WHERE state = 'shipped'",
     "SELECT count(*) FROM far.order_state WHERE state = 'shipped'"},
    {"events committed; effects applied",
     "SELECT count(*) FROM main.outbox_log",
     "SELECT count(*) FROM far.delivery WHERE first"},
    {"turnover in cents",
     "SELECT coalesce(sum(total_cents), 0) FROM main.orders",
     "SELECT coalesce(sum(cents), 0) FROM far.turnover"},
};

/* Parked ones wait for a retry; and a lane's position in the log is the last
 * one up to which it has nothing left to deliver. */
static const char unacknowledged[] =
    "SELECT count(*) + (SELECT count(*) FROM main.outbox_parked)"
    " FROM main.outbox_log"
    " WHERE position > (SELECT min(position) FROM main.outbox_lane)";

/* What there must be none of; the sums above could hide two errors that
 * cancel out, row by row nothing hides. */
static const struct {
    const char *what, *sql;
} faults[] = {
    {"orders whose three events are not there, once each",
     DIFFERENCE("SELECT id, column1, 1 FROM main.orders, (VALUES"
                " ('order.placed'), ('order.paid'), ('order.shipped'))",
                "SELECT key, type, count(*) FROM main.outbox_log"
                " GROUP BY key, type")},
    {"events lost, or marked in the inbox from nowhere",
     DIFFERENCE("SELECT hex(id) FROM main.outbox_log",
                "SELECT hex(id) FROM far.outbox_inbox"
                " WHERE consumer = 'accounts'")},
    {"effects without a mark, or twice",
     DIFFERENCE("SELECT hex(id), 1 FROM far.outbox_inbox",
                "SELECT upper(replace(event, '-', '')), count(*)"
                " FROM far.delivery WHERE first GROUP BY event")},
    {"orders in another state at the consumer",
     DIFFERENCE("SELECT id, state FROM main.orders",
                "SELECT id, state FROM far.order_state")},
    {"customers with another turnover there",
     DIFFERENCE("SELECT customer, sum(total_cents) FROM main.orders"
                " GROUP BY customer",
                "SELECT customer, cents FROM far.turnover")},
    {"events delivered before an earlier one of their order",
     "WITH taken AS MATERIALIZED (SELECT seq, upper(replace(event, '-', ''))"
     " AS id FROM far.delivery WHERE first)"
     "SELECT count(*) FROM (SELECT position,"
     " max(position) OVER (PARTITION BY key ORDER BY seq) AS latest"
     " FROM main.outbox_log AS log JOIN taken ON taken.id = hex(log.id))"
     " WHERE position < latest"},
    {"events not acknowledged", unacknowledged},
    {"events given up", "SELECT count(*) FROM main.outbox_dead"},
};

static const char deliveries[] = "SELECT count(*) FROM far.delivery";
static const char duplicates[] =
    "SELECT count(*) FROM far.delivery WHERE NOT first";

static int check_pairs(sqlite3 *db, long orders)
{
    int bad = 0;
    size_t i;

    printf("\n%-36s %9s %9s\n", "what the two files say", "service",
           "consumer");
    for (i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        int64_t a = db_int(db, pairs[i].service, NULL);
        int64_t b = db_int(db, pairs[i].consumer, NULL);
        int wrong = a < 0 || a != b || (i == 0 && a != orders);

        printf("%-36s %9lld %9lld%s\n", pairs[i].what, (long long)a,
               (long long)b, wrong ? "  WRONG" : "");
        bad += wrong;
    }
    return bad;
}

static int check_faults(sqlite3 *db)
{
    int bad = 0;
    size_t i;

    for (i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        int64_t n = db_int(db, faults[i].sql, NULL);

        printf("%4lld %s%s\n", (long long)n, faults[i].what,
               n ? "  WRONG" : "");
        bad += n != 0;
        if (n < 0)
            printf("     %s\n", sqlite3_errmsg(db));
    }
    return bad;
}

/* Read only: this connection changes nothing, not even by closing. */
static int open_both(sqlite3 **db, const char *service, const char *consumer)
{
    if (sqlite3_open_v2(service, db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK &&
        sqlite3_busy_timeout(*db, 5000) == SQLITE_OK &&
        db_run(*db, "ATTACH ?1 AS far", consumer, NULL) >= 0)
        return 0;
    fprintf(stderr, "%s: %s\n", service, sqlite3_errmsg(*db));
    return -1;
}

int check_glance(const char *service_db, const char *consumer_db,
                 struct glance *g)
{
    sqlite3 *db;
    int rc = open_both(&db, service_db, consumer_db);

    if (rc == 0) {
        g->shipped = db_int(db, pairs[0].service, NULL);
        g->committed = db_int(db, pairs[1].service, NULL);
        g->applied = db_int(db, pairs[1].consumer, NULL);
        g->unacknowledged = db_int(db, unacknowledged, NULL);
    }
    sqlite3_close(db);
    return rc;
}

int check_databases(const char *service_db, const char *consumer_db,
                    long orders)
{
    sqlite3 *db;
    int bad = open_both(&db, service_db, consumer_db);

    if (bad == 0) {
        bad = check_pairs(db, orders) + check_faults(db);
        printf("%lld deliveries, %lld of them duplicates: the inbox stopped "
               "them all\n",
               (long long)db_int(db, deliveries, NULL),
               (long long)db_int(db, duplicates, NULL));
    }
    sqlite3_close(db);
    return bad;
}

/* SPDX-License-Identifier: MIT
 *
 * quickstart_pg.c - the quick start, on PostgreSQL: one order and its event
 * in a transaction, and a thread that brings the event to deliver().
 *
 *   quickstart_pg [conninfo]     without one, what PGHOST and so on say
 */
#define _POSIX_C_SOURCE 200809L
#include <libpq-fe.h>
#include <outbox/pg.h>
#include <semaphore.h>
#include <stdio.h>

static outbox_verdict deliver(void *ctx, const outbox_event *ev,
                              outbox_token token, outbox_error *why)
{
    (void)token, (void)why;
    printf("%s of %s: %.*s\n", ev->type, ev->key, (int)ev->payload_len,
           (const char *)ev->payload);
    sem_post(ctx);
    return OUTBOX_ACK;                  /* after OUTBOX_RETRY it comes again */
}

static int sql(PGconn *db, const char *text)
{
    PGresult *res = PQexec(db, text);
    int bad = PQresultStatus(res) != PGRES_COMMAND_OK;

    PQclear(res);
    return bad;
}

int main(int argc, char **argv)
{
    const char *conninfo = argc > 1 ? argv[1] : "";
    sem_t delivered;
    outbox_transport to = {.size = sizeof to, .ctx = &delivered,
                           .send = deliver};
    outbox_event ev = {.size = sizeof ev, .topic = "orders",
                       .type = "order.placed", .key = "c-7",
                       .payload = "{\"item\":\"tea\"}", .payload_len = 14};
    const outbox_event *all[] = {&ev};
    outbox_t *ob = NULL, *for_relay = NULL;
    outbox_relay_t *relay = NULL;
    outbox_error err = {0};
    PGconn *db = PQconnectdb(conninfo);

    int bad = PQstatus(db) != CONNECTION_OK ||
        sem_init(&delivered, 0, 0) ||
        sql(db, "SET client_min_messages = warning") ||
        sql(db, "CREATE TABLE IF NOT EXISTS orders (customer text, item "
                "text)") ||
        outbox_pg_open(&ob, db, NULL, &err) ||
        outbox_migrate(ob, &err) ||
        outbox_pg_connect(&for_relay, conninfo, NULL, &err) ||
        outbox_relay_new(&relay, for_relay, &to, NULL, &err) ||
        outbox_relay_start(relay, &err) ||
        sql(db, "BEGIN") ||
        sql(db, "INSERT INTO orders VALUES ('c-7', 'tea')") ||
        outbox_publish_commit(ob, all, 1, &err) ||  /* one round trip */
        sem_wait(&delivered) ||
        outbox_relay_stop(relay, 5000, &err);

    if (bad)
        fprintf(stderr, "%s\n", err.code ? err.text : PQerrorMessage(db));
    if (relay == NULL)
        outbox_close(for_relay);        /* else the relay owns it */
    outbox_relay_free(relay);
    outbox_close(ob);
    PQfinish(db);
    return bad;
}

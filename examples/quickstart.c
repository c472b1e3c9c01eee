/* SPDX-License-Identifier: MIT
 *
 * quickstart.c - an order and its event, committed together; a thread that
 *                brings the event to deliver().
 */
#define _POSIX_C_SOURCE 200809L
#include <outbox/sqlite.h>
#include <semaphore.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static outbox_verdict deliver(void *ctx, const outbox_event *ev,
                              outbox_token token, outbox_error *why)
{
    (void)token, (void)why;
    printf("%s of %s: %.*s\n", ev->type, ev->key, (int)ev->payload_len,
           (const char *)ev->payload);
    sem_post(ctx);
    return OUTBOX_ACK;                  /* after OUTBOX_RETRY it comes again */
}

static int sql(sqlite3 *db, const char *text)
{
    return sqlite3_exec(db, text, NULL, NULL, NULL);
}

int main(int argc, char **argv)
{
    char mine[] = "/tmp/quickstart-XXXXXX";
    const char *path = argc > 1 ? argv[1] : mine;
    sem_t delivered;
    outbox_transport to = {.size = sizeof to, .ctx = &delivered,
                           .send = deliver};
    outbox_event ev = {.size = sizeof ev, .topic = "orders",
                       .type = "order.placed", .key = "c-7",
                       .payload = "{\"item\":\"tea\"}", .payload_len = 14};
    outbox_t *ob = NULL, *for_relay = NULL;
    outbox_relay_t *relay = NULL;
    outbox_error err = {0};
    sqlite3 *db = NULL;

    int bad = (path == mine && close(mkstemp(mine))) ||
        sem_init(&delivered, 0, 0) ||
        sqlite3_open(path, &db) || sqlite3_busy_timeout(db, 5000) ||
        sql(db, "PRAGMA journal_mode = WAL") ||
        sql(db, "CREATE TABLE IF NOT EXISTS orders (customer, item)") ||
        outbox_sqlite_open(&ob, db, NULL, &err) ||
        outbox_migrate(ob, &err) ||
        outbox_sqlite_connect(&for_relay, path, NULL, &err) ||
        outbox_relay_new(&relay, for_relay, &to, NULL, &err) ||
        outbox_relay_start(relay, &err) ||
        sql(db, "BEGIN IMMEDIATE") ||
        sql(db, "INSERT INTO orders VALUES ('c-7', 'tea')") ||
        outbox_publish(ob, &ev, &err) ||
        sql(db, "COMMIT") ||
        sem_wait(&delivered) ||
        outbox_relay_stop(relay, 5000, &err);

    if (bad)
        fprintf(stderr, "%s\n", err.code ? err.text : sqlite3_errmsg(db));
    if (relay == NULL)
        outbox_close(for_relay);        /* else the relay owns it */
    outbox_relay_free(relay);
    outbox_close(ob);
    sqlite3_close(db);
    if (path == mine)
        unlink(mine);
    return bad;
}

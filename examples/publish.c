/* SPDX-License-Identifier: MIT
 *
 * publish.c - the smallest publisher: a row of ours and an event about it,
 *             both or neither.  A relay delivers later what was committed.
 */
#define _POSIX_C_SOURCE 200809L
#include <outbox/sqlite.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int sql(sqlite3 *db, const char *text)
{
    return sqlite3_exec(db, text, NULL, NULL, NULL);
}

static int place_order(sqlite3 *db, outbox_t *ob, const char *insert,
                       const char *json)
{
    const outbox_event placed = {.size = sizeof placed, .topic = "orders",
                                 .type = "order.placed", .payload = json,
                                 .payload_len = strlen(json)};
    outbox_error err = {0};

    if (sql(db, "BEGIN IMMEDIATE") == SQLITE_OK &&
        outbox_publish(ob, &placed, &err) == OUTBOX_OK &&
        sql(db, insert) == SQLITE_OK && sql(db, "COMMIT") == SQLITE_OK) {
        printf("committed %s as event %s\n", json, outbox_last_id(ob));
        return 0;
    }
    printf("no order, so no event: %s\n",
           err.code ? err.text : sqlite3_errmsg(db));
    sql(db, "ROLLBACK");
    return -1;
}

int main(int argc, char **argv)
{
    char mine[] = "/tmp/publish-XXXXXX";
    const char *path = argc > 1 ? argv[1] : mine;
    outbox_error err = {0};
    outbox_t *ob = NULL;
    sqlite3 *db = NULL;

    int bad = (path == mine && close(mkstemp(mine))) ||
        sqlite3_open(path, &db) || sqlite3_busy_timeout(db, 5000) ||
        sql(db, "PRAGMA journal_mode = WAL") ||
        sql(db, "CREATE TABLE IF NOT EXISTS orders (item TEXT NOT NULL)") ||
        outbox_sqlite_open(&ob, db, NULL, &err) ||
        outbox_migrate(ob, &err);
    if (bad)
        fprintf(stderr, "%s\n", err.code ? err.text : sqlite3_errmsg(db));
    else
        bad = place_order(db, ob, "INSERT INTO orders VALUES ('tea')",
                          "{\"item\":\"tea\"}") != 0 ||
            place_order(db, ob, "INSERT INTO orders VALUES (NULL)",
                        "{\"item\":null}") == 0;
    outbox_close(ob);
    sqlite3_close(db);
    if (path == mine)
        unlink(mine);
    return bad;
}

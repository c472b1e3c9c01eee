/* SPDX-License-Identifier: MIT
 *
 * loop.c - a relay in an event loop of the program's own, without a thread.
 *
 * The loop sleeps in poll(2) on what the program waits for anyway, here a
 * pipe with requests, and on a bell.  The bell is a pipe too; SQLite's commit
 * hook rings it, so that whatever part of the program commits an event, the
 * relay has its turn at once.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <outbox/sqlite.h>
#include <poll.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A relay that hears nothing still needs a turn now and then: its lease,
 * retries, and commits of other processes, whose bell this is not. */
enum { TICK_MS = 200 };

struct loop {
    sqlite3 *db;
    outbox_t *ob;
    outbox_relay_t *relay;
    outbox_error err;
    int requests;                       /* one byte is one order; -1: no more */
    int bell[2];
    int placed, delivered;
};

static int sql(sqlite3 *db, const char *text)
{
    return sqlite3_exec(db, text, NULL, NULL, NULL);
}

static outbox_verdict deliver(void *ctx, const outbox_event *ev,
                              outbox_token token, outbox_error *why)
{
    struct loop *l = ctx;

    (void)token, (void)why;
    l->delivered++;
    printf("  delivered %s\n", ev->key);
    return OUTBOX_ACK;
}

/* Called within COMMIT; the loop hears the bell after it. */
static int ring(void *arg)
{
    struct loop *l = arg;

    (void)!write(l->bell[1], "", 1);    /* full: it is ringing already */
    return 0;
}

static int place_order(struct loop *l)
{
    char key[16];
    const outbox_event placed = {.size = sizeof placed, .topic = "orders",
                                 .type = "order.placed", .key = key,
                                 .payload = "{}", .payload_len = 2};

    snprintf(key, sizeof key, "o-%d", ++l->placed);
    printf("placing %s\n", key);
    if (sql(l->db, "BEGIN IMMEDIATE") == SQLITE_OK &&
        sql(l->db, "INSERT INTO orders VALUES ('tea')") == SQLITE_OK &&
        outbox_publish(l->ob, &placed, &l->err) == OUTBOX_OK &&
        sql(l->db, "COMMIT") == SQLITE_OK)
        return 0;
    sql(l->db, "ROLLBACK");
    return -1;
}

/* One request a turn: what is left makes poll() return at once. */
static int serve_request(struct loop *l)
{
    char request;
    ssize_t n = read(l->requests, &request, 1);

    if (n == 1)
        return place_order(l);
    if (n < 0)
        return errno == EINTR ? 0 : -1;
    close(l->requests);                 /* the last client has gone */
    l->requests = -1;
    return 0;
}

static int loop_run(struct loop *l)
{
    char rung[64];
    int timeout = 0, settled;

    while (l->requests >= 0 || l->delivered < l->placed) {
        struct pollfd fds[] = {{.fd = l->requests, .events = POLLIN},
                               {.fd = l->bell[0], .events = POLLIN}};

        if (poll(fds, 2, timeout) < 0 && errno != EINTR)
            return -1;
        if (fds[0].revents && serve_request(l) < 0)
            return -1;
        while (read(l->bell[0], rung, sizeof rung) > 0)
            ;
        settled = outbox_relay_step(l->relay, 0, &l->err);
        if (settled < 0)
            return -1;
        timeout = settled > 0 ? 0 : TICK_MS;    /* it may have more to do */
    }
    return 0;
}

/* ---- the program ------------------------------------------------------ */

/* Three clients have written their requests and left. */
static int make_pipes(struct loop *l)
{
    int requests[2];

    if (pipe(requests) < 0)
        return -1;
    l->requests = requests[0];
    if (write(requests[1], "abc", 3) != 3 || close(requests[1]) < 0 ||
        pipe(l->bell) < 0)
        return -1;
    return fcntl(l->bell[0], F_SETFL, O_NONBLOCK) < 0 ||
        fcntl(l->bell[1], F_SETFL, O_NONBLOCK) < 0;
}

static int make_relay(struct loop *l, const char *path)
{
    const outbox_transport to = {
        .size = sizeof to, .name = "print", .ctx = l, .send = deliver};
    outbox_t *own;

    if (outbox_sqlite_connect(&own, path, NULL, &l->err))
        return -1;
    if (outbox_relay_new(&l->relay, own, &to, NULL, &l->err) == OUTBOX_OK)
        return 0;
    outbox_close(own);
    return -1;
}

int main(int argc, char **argv)
{
    char mine[] = "/tmp/loop-XXXXXX";
    const char *path = argc > 1 ? argv[1] : mine;
    struct loop l = {.requests = -1, .bell = {-1, -1}};

    int bad = (path == mine && close(mkstemp(mine))) || make_pipes(&l) ||
        sqlite3_open(path, &l.db) || sqlite3_busy_timeout(l.db, 5000) ||
        sql(l.db, "PRAGMA journal_mode = WAL") ||
        sql(l.db, "CREATE TABLE IF NOT EXISTS orders (item TEXT)") ||
        outbox_sqlite_open(&l.ob, l.db, NULL, &l.err) ||
        outbox_migrate(l.ob, &l.err) || make_relay(&l, path);
    if (!bad) {
        sqlite3_commit_hook(l.db, ring, &l);
        bad = loop_run(&l) || outbox_relay_stop(l.relay, 5000, &l.err);
    }
    if (bad)
        fprintf(stderr, "%s\n", l.err.code ? l.err.text
                                           : sqlite3_errmsg(l.db));
    outbox_relay_free(l.relay);
    outbox_close(l.ob);
    sqlite3_close(l.db);
    if (path == mine)
        unlink(mine);
    return bad;
}

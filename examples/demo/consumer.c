/* SPDX-License-Identifier: MIT
 *
 * consumer.c - the accounts: turnover per customer, and the state of each
 *              order, in a database of their own.
 *
 * Events arrive at least once.  The inbox mark, the effect and the note of
 * the delivery are one transaction, and only after its COMMIT the answer goes
 * out; so each event takes effect once, wherever the process is killed.
 */
#include "demo.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static const char tables[] =
    "CREATE TABLE IF NOT EXISTS turnover ("
    "    customer TEXT PRIMARY KEY, cents INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS order_state ("
    "    id TEXT PRIMARY KEY, state TEXT NOT NULL);"
    "CREATE TABLE IF NOT EXISTS delivery ("
    "    seq INTEGER PRIMARY KEY, event TEXT NOT NULL, key TEXT NOT NULL,"
    "    type TEXT NOT NULL, first INTEGER NOT NULL)";

static const char note_delivery[] =
    "INSERT INTO delivery SELECT coalesce(max(seq), 0) + 1, $1, $2, $3,"
    " CAST($4 AS INTEGER) FROM delivery";

struct consumer {
    db_t *db;
    inbox_t *inbox;
    int listener, line;
    outbox_error err;
    struct frame frame;
};

/* ---- effects --------------------------------------------------------- */

static int add_turnover(struct consumer *c, const outbox_event *ev)
{
    char cents[24];
    const char *customer;
    json_int_t total;
    json_t *order = json_loads(ev->payload, 0, NULL);
    int n = -1;

    if (json_unpack(order, "{s:s, s:I}", "customer", &customer, "total_cents",
                    &total) == 0) {
        snprintf(cents, sizeof cents, "%" JSON_INTEGER_FORMAT, total);
        n = db_run(c->db,
                   "INSERT INTO turnover VALUES ($1, $2) ON CONFLICT (customer)"
                   " DO UPDATE SET cents = turnover.cents + excluded.cents",
                   customer, cents, NULL);
    }
    json_decref(order);
    return n == 1 ? 0 : -1;
}

/* An event out of turn changes no row, and is an error like any other. */
static int take_effect(struct consumer *c, const outbox_event *ev)
{
    const char *sql;

    if (strcmp(ev->type, "order.placed") == 0)
        sql = "INSERT INTO order_state VALUES ($1, 'placed')";
    else if (strcmp(ev->type, "order.paid") == 0)
        sql = "UPDATE order_state SET state = 'paid'"
              " WHERE id = $1 AND state = 'placed'";
    else if (strcmp(ev->type, "order.shipped") == 0)
        sql = "UPDATE order_state SET state = 'shipped'"
              " WHERE id = $1 AND state = 'paid'";
    else
        return -1;
    if (db_run(c->db, sql, ev->key, NULL) != 1)
        return -1;
    return strcmp(ev->type, "order.paid") == 0 ? add_turnover(c, ev) : 0;
}

static void complain(struct consumer *c, const outbox_event *ev)
{
    const char *why = "it is out of turn";

    if (c->err.code != OUTBOX_OK)
        why = c->err.text;
    else if (db_error(c->db)[0] != '\0')
        why = db_error(c->db);
    fprintf(stderr, "consumer: %s of %s: %s\n", ev->type, ev->key, why);
}

/* Returns what to answer. */
static outbox_verdict receive(struct consumer *c, const outbox_event *ev)
{
    int first;

    c->err = (outbox_error){0};
    if (db_begin(c->db) < 0) {
        complain(c, ev);
        return OUTBOX_RETRY;
    }
    first = inbox_accept(c->inbox, "accounts", ev->id, &c->err);
    if (first >= 0 && (first == 0 || take_effect(c, ev) == 0) &&
        db_run(c->db, note_delivery, ev->id, ev->key, ev->type,
               first ? "1" : "0", NULL) == 1 &&
        inbox_commit(c->inbox, &c->err) == OUTBOX_OK) {
        putchar(first ? CONSUMER_APPLIED : CONSUMER_DUPLICATE);
        fflush(stdout);
        return OUTBOX_ACK;
    }
    complain(c, ev);
    db_rollback(c->db);
    return OUTBOX_RETRY;
}

/* ---- the process ----------------------------------------------------- */

static void hang_up(struct consumer *c)
{
    if (c->line >= 0)
        close(c->line);
    c->line = -1;
}

static void answer_frame(struct consumer *c)
{
    outbox_event ev;
    unsigned char verdict;

    if (frame_read(c->line, &c->frame) != 1 ||
        frame_unpack(&c->frame, &ev) < 0) {
        hang_up(c);                     /* the service is gone, or confused */
        return;
    }
    verdict = (unsigned char)receive(c, &ev);
    if (send(c->line, &verdict, 1, MSG_NOSIGNAL) != 1)
        hang_up(c);
}

static void answer_call(struct consumer *c)
{
    const struct timeval patience = {.tv_sec = 5};  /* with half a frame */

    c->line = accept(c->listener, NULL, NULL);
    if (c->line >= 0 &&
        setsockopt(c->line, SOL_SOCKET, SO_RCVTIMEO, &patience,
                   sizeof patience) < 0)
        hang_up(c);
}

/* Until standard input ends: the driver holds its other end, and so does a
 * person at a terminal, with Ctrl-D.  One service at a time: while it is on
 * the line, others wait in the listener's queue. */
static int serve(struct consumer *c)
{
    char ignored[64];

    for (;;) {
        struct pollfd fds[] = {
            {.fd = STDIN_FILENO, .events = POLLIN},
            {.fd = c->line >= 0 ? c->line : c->listener, .events = POLLIN}};

        if (poll(fds, 2, -1) < 0) {
            if (errno != EINTR)
                return -1;
        } else if (fds[0].revents &&
                   read(STDIN_FILENO, ignored, sizeof ignored) <= 0) {
            return 0;
        } else if (fds[1].revents) {
            if (c->line >= 0)
                answer_frame(c);
            else
                answer_call(c);
        }
    }
}

static int listen_at(struct consumer *c, const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof at.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(at.sun_path, path, strlen(path) + 1);
    unlink(path);                       /* of one that was killed */
    c->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (c->listener < 0 ||
        bind(c->listener, (const struct sockaddr *)&at, sizeof at) < 0)
        return -1;
    return listen(c->listener, 4);
}

static int migrate(struct consumer *c)
{
    outbox_t *ob;
    int rc = db_outbox(c->db, &ob, &c->err);

    if (rc < 0)
        return rc;
    rc = outbox_migrate(ob, &c->err);
    outbox_close(ob);
    return rc;
}

static int start(struct consumer *c, const char *db, const char *socket)
{
    if (db_open(&c->db, db, tables) < 0) {
        fprintf(stderr, "%s: %s\n", db, db_error(c->db));
        return -1;
    }
    if (migrate(c) || db_inbox(c->db, &c->inbox, &c->err)) {
        fprintf(stderr, "%s: %s\n", db, c->err.text);
        return -1;
    }
    if (listen_at(c, socket) < 0) {
        fprintf(stderr, "%s: %s\n", socket, strerror(errno));
        return -1;
    }
    putchar(CONSUMER_READY);
    fflush(stdout);
    return 0;
}

int consumer_main(const char *db, const char *socket)
{
    struct consumer c = {.line = -1, .listener = -1};
    int bad = start(&c, db, socket) < 0 || serve(&c) < 0;

    hang_up(&c);
    if (c.listener >= 0) {
        close(c.listener);
        unlink(socket);
    }
    inbox_close(c.inbox);
    db_close(c.db);
    return bad;
}

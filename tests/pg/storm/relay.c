/* SPDX-License-Identifier: MIT
 *
 * relay.c - a relay, its destination, which writes down what it gets, and
 * behind it a consumer with an inbox.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storm.h"

typedef struct destination {
    const task *job;
    rng         rnd;
    int         fd;
    PGconn     *conn;           /* of the consumer */
    inbox_t    *ib;
} destination;

/* ---- the consumer ------------------------------------------------------- */

static bool consumer_ready(destination *d)
{
    outbox_error err;

    if (d->conn != NULL && PQstatus(d->conn) == CONNECTION_OK)
        return true;
    if (d->ib != NULL)
        inbox_close(d->ib);
    d->ib = NULL;
    PQfinish(d->conn);
    d->conn = db_try();
    return d->conn != NULL &&
           inbox_pg_open(&d->ib, d->conn, NULL, &err) == OUTBOX_OK;
}

static bool effect(destination *d, const char *id, const record *rec)
{
    outbox_error err;
    char sql[100];
    int rc = -1;

    if (!consumer_ready(d) || !db_exec(d->conn, "BEGIN"))
        return false;
    if (rng_below(&d->rnd, 4) == 0)
        db_exec(d->conn, "SET LOCAL synchronous_commit = off");
    rc = inbox_accept(d->ib, "consumer", id, &err);
    snprintf(sql, sizeof sql, "INSERT INTO effect VALUES (%u, %u)",
             (unsigned)rec->key, (unsigned)rec->version);
    if (rc == 1 && !db_exec(d->conn, sql))
        rc = -1;
    if (rc >= 0)
        rc = inbox_commit(d->ib, &err);
    if (rc < 0)
        db_exec(d->conn, "ROLLBACK");
    return rc >= 0;
}

/* ---- the destination ---------------------------------------------------- */

static outbox_verdict on_send(void *ctx, const outbox_event *ev,
                              outbox_token token, outbox_error *why)
{
    destination *d = ctx;
    record rec = { .run = (uint16_t)d->job->run,
                   .attempt = (uint16_t)ev->attempt };
    char text[64] = "";

    (void)token;
    if (ev->payload_len < sizeof text)
        memcpy(text, ev->payload, ev->payload_len);
    if (sscanf(text, "%u %u %u", &rec.key, &rec.version, &rec.nonce) != 3)
        die("altered payload", text);
    if (rng_below(&d->rnd, 20000) == 0 ||
        (rec.key % EFFECT_EVERY == 0 && rec.version % 8 == 0 &&
         !effect(d, ev->id, &rec))) {
        snprintf(why->text, sizeof why->text, "not now");
        return OUTBOX_RETRY;
    }
    if (write(d->fd, &rec, sizeof rec) != sizeof rec)
        die("history", "short write");
    return OUTBOX_ACK;
}

static void log_line(void *arg, int level, const char *line)
{
    const task *job = arg;
    FILE *file = level <= 4 ? file_open(job->dir, "log", "ae") : NULL;

    if (file == NULL)
        return;
    fprintf(file, "run %d: %d: %s\n", job->run, level, line);
    fclose(file);
}

/* ---- the relay ---------------------------------------------------------- */

static outbox_relay_t *relay_open(destination *d)
{
    outbox_transport transport = { .size = sizeof transport,
                                   .name = "storm", .ctx = d,
                                   .send = on_send };
    outbox_relay_options opt = {
        .size = sizeof opt, .subscription = SUBSCRIPTION,
        .poll_ms = 50, .lease_ms = 1000, .retry_min_ms = 5,
        .retry_max_ms = 50, .max_attempts = 1000000000, .breaker_ms = 20,
        .log = log_line, .log_arg = (void *)(uintptr_t)d->job,
    };
    outbox_relay_t *r = NULL;
    outbox_error err;
    outbox_t *ob;
    int rc;

    while ((rc = outbox_pg_connect(&ob, conninfo(), NULL, &err)) ==
           OUTBOX_EDB && !told_to_stop)
        pause_ms(20);
    if (rc < 0 && told_to_stop)
        return NULL;
    if (rc < 0 || (rc = outbox_relay_new(&r, ob, &transport, &opt, &err)) < 0)
        die("relay", err.text);
    return r;
}

/* A connection that is lost is the storm's doing; anything else is not. */
static void look(int rc, const outbox_error *err)
{
    if (rc >= 0 || rc == OUTBOX_EBUSY || rc == OUTBOX_ESTALE ||
        rc == OUTBOX_EDB)
        return;
    fprintf(stderr, "violation: relay: %d %s %s\n", rc, err->sqlstate,
            err->text);
    exit(3);
}

int relay_main(const task *job)
{
    destination d = { .job = job, .rnd = { job->seed } };
    outbox_error err;

    d.fd = history_open(job->dir);
    outbox_relay_t *r = relay_open(&d);
    bool threaded = job->slot % 2 == 0;
    int rc = OUTBOX_EDB;
    while (threaded && rc < 0 && !told_to_stop && r != NULL) {
        rc = outbox_relay_start(r, &err);
        look(rc, &err);
        if (rc < 0)
            pause_ms(20);
    }
    while (!told_to_stop) {
        if (threaded) {
            pause_ms(20);
            continue;
        }
        rc = outbox_relay_step(r, 20, &err);
        look(rc, &err);
        if (rc < 0)
            pause_ms(5);
    }
    if (r == NULL)
        return 0;
    rc = outbox_relay_stop(r, 5000, &err);
    look(rc, &err);
    outbox_relay_free(r);
    return 0;
}

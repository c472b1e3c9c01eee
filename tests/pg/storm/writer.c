/* SPDX-License-Identifier: MIT
 *
 * writer.c - business transactions of every kind, one after the other.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "storm.h"

enum { MOST_EVENTS = 600, MOST_STEPS = 4 };

/* How a transaction ends. */
enum ending { COMMITS, PUBLISH_COMMITS, ROLLS_BACK, PREPARES };

typedef struct writer {
    const task *job;
    rng         rnd;
    PGconn     *conn;
    outbox_t   *ob, *quiet;     /* both through conn */
    uint32_t    nonce;
    int         gids, most;
} writer;

typedef struct style {
    int         isolation;
    bool        async, savepoint, own_keys;
    int         early_ms, late_ms;      /* open before and after its events */
    int         steps;
    enum ending ending;
} style;

static void forget(writer *w)
{
    if (w->ob != NULL)
        outbox_close(w->ob);
    if (w->quiet != NULL)
        outbox_close(w->quiet);
    w->ob = w->quiet = NULL;
}

/* By a new connection, or by PQreset(), with the same handles. */
static bool connected(writer *w)
{
    outbox_options quiet = { .size = sizeof quiet, .flags = OUTBOX_QUIET };
    outbox_error err;
    char prefix[16];

    if (w->conn != NULL && PQstatus(w->conn) == CONNECTION_OK)
        return true;
    if (w->conn != NULL && rng_below(&w->rnd, 2)) {
        PQreset(w->conn);
        if (PQstatus(w->conn) != CONNECTION_OK) {
            pause_ms(20);
            return false;
        }
        db_exec(w->conn, "SET lock_timeout = '2s'");
        return true;
    }
    forget(w);
    PQfinish(w->conn);
    w->conn = db_open();
    if (w->conn == NULL)
        return false;
    if (outbox_pg_open(&w->ob, w->conn, NULL, &err) < 0 ||
        outbox_pg_open(&w->quiet, w->conn, &quiet, &err) < 0)
        die("outbox_pg_open", err.text);
    snprintf(prefix, sizeof prefix, "w%d_", w->job->slot);
    db_settle_prepared(w->conn, prefix, &w->rnd);
    return true;
}

/* ---- one transaction ---------------------------------------------------- */

static style style_make(writer *w)
{
    rng *r = &w->rnd;
    style s = { .isolation = rng_below(r, 4), .steps = 1 };
    int end = rng_below(r, 100);

    s.async = rng_permille(r, 300);
    s.savepoint = rng_permille(r, 250);
    s.ending = end < 40 ? COMMITS : end < 75 ? PUBLISH_COMMITS
             : end < 90 ? ROLLS_BACK : PREPARES;
    s.own_keys = rng_permille(r, 300);
    if (rng_permille(r, 400))
        s.steps = 1 + rng_below(r, MOST_STEPS);
    if (rng_permille(r, 20))
        s.early_ms = rng_below(r, 300);
    if (rng_permille(r, 10))
        s.late_ms = rng_below(r, 200);
    /* One of them is open while others fill segments. */
    if (w->job->slot == 0 && rng_permille(r, 50)) {
        s.own_keys = true;
        *(rng_below(r, 2) ? &s.early_ms : &s.late_ms) =
            1000 + rng_below(r, 8000);
    }
    return s;
}

static void linger(int ms)
{
    for (int64_t end = now_ms() + ms; now_ms() < end && !told_to_stop;)
        pause_ms(10);
}

static bool begin(writer *w, const style *s)
{
    static const char *const levels[] = {
        "READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"
    };
    char sql[160];

    snprintf(sql, sizeof sql, "BEGIN ISOLATION LEVEL %s%s%s",
             levels[s->isolation],
             s->async ? "; SET LOCAL synchronous_commit = off" : "",
             s->early_ms > 0 ? "; SELECT count(*) FROM counter" : "");
    if (!db_exec(w->conn, sql))
        return false;
    linger(s->early_ms);
    return true;
}

/* The next n versions of a key; returns the last, or 0. */
static uint32_t draw(writer *w, int key, int n)
{
    char sql[300];

    snprintf(sql, sizeof sql,
             "WITH c AS (UPDATE counter SET version = version + %d"
             " WHERE key = %d RETURNING version)"
             " INSERT INTO business SELECT %d, version - %d, version, %" PRIu32
             " FROM c RETURNING last", n, key, key, n - 1, w->nonce);
    return (uint32_t)db_number(w->conn, sql, 0);
}

static int fail(writer *w, const char *what, int rc, const outbox_error *err)
{
    bool lost = PQstatus(w->conn) != CONNECTION_OK;

    if (rc == OUTBOX_EBUSY || rc == OUTBOX_EINDOUBT || rc == OUTBOX_EABORTED ||
        (rc == OUTBOX_EDB && lost) || strcmp(err->sqlstate, "57P01") == 0)
        return rc;
    fprintf(stderr, "violation: %s: %d %s %s\n", what, rc, err->sqlstate,
            err->text);
    exit(3);
}

typedef struct batch {
    outbox_event        ev[MOST_EVENTS];
    const outbox_event *at[MOST_EVENTS];
    char                text[MOST_EVENTS][40], key[16];
    int                 n;
} batch;

/* Draws versions, and describes their events; b->n 0 on failure. */
static void batch_fill(writer *w, const style *s, batch *b)
{
    int own = SHARED_KEYS + w->job->slot * OWN_KEYS;
    int key = s->own_keys ? own + rng_below(&w->rnd, OWN_KEYS)
                          : rng_below(&w->rnd, SHARED_KEYS);
    int n = rng_below(&w->rnd, 2) ? 1 : 1 + rng_below(&w->rnd, w->most);
    uint32_t last = draw(w, key, n);

    b->n = last == 0 ? 0 : n;
    snprintf(b->key, sizeof b->key, "key %d", key);
    for (int i = 0; i < b->n; i++) {
        int len = snprintf(b->text[i], sizeof b->text[i], "%d %" PRIu32 " %"
                           PRIu32, key, last - (uint32_t)(n - 1 - i),
                           w->nonce);
        b->ev[i] = (outbox_event){ .size = sizeof b->ev[i], .topic = "storm",
                                   .key = b->key, .payload = b->text[i],
                                   .payload_len = (size_t)len };
        b->at[i] = &b->ev[i];
    }
}

static int step(writer *w, const style *s, bool last)
{
    static batch b;
    outbox_t *ob = s->ending == PREPARES ? w->quiet : w->ob;
    outbox_error err;
    int rc;

    batch_fill(w, s, &b);
    if (b.n == 0)
        return OUTBOX_EDB;
    if (last && s->ending == PUBLISH_COMMITS)
        rc = outbox_publish_commit(ob, b.at, (size_t)b.n, &err);
    else if (b.n == 1)
        rc = outbox_publish(ob, b.at[0], &err);
    else
        rc = outbox_publish_many(ob, b.at, (size_t)b.n, &err);
    return rc < 0 ? fail(w, "publish", rc, &err) : rc;
}

/* Events of a savepoint that is rolled back are never heard of. */
static int steps(writer *w, const style *s)
{
    int rc = OUTBOX_OK;

    for (int i = 0; i < s->steps && rc >= 0; i++) {
        bool undo = s->savepoint && rng_below(&w->rnd, 2);
        if (s->savepoint && !db_exec(w->conn, "SAVEPOINT s"))
            return OUTBOX_EDB;
        if (undo) {
            rc = step(w, s, false);
            if (!db_exec(w->conn, "ROLLBACK TO s"))
                return OUTBOX_EDB;
        }
        rc = step(w, s, i == s->steps - 1);
        if (rc >= 0 && i == s->steps - 1)
            break;
        if (rc >= 0 && s->savepoint && !db_exec(w->conn, "RELEASE s"))
            return OUTBOX_EDB;
    }
    return rc;
}

static void end_prepared(writer *w)
{
    char sql[80];
    int gid = ++w->gids;

    snprintf(sql, sizeof sql, "PREPARE TRANSACTION 'w%d_%d_%d'",
             w->job->slot, w->job->run, gid);
    if (!db_exec(w->conn, sql))
        return;
    pause_ms(rng_below(&w->rnd, 5));
    snprintf(sql, sizeof sql, "%s PREPARED 'w%d_%d_%d'",
             rng_below(&w->rnd, 4) ? "COMMIT" : "ROLLBACK", w->job->slot,
             w->job->run, gid);
    db_exec(w->conn, sql);
}

static void transaction(writer *w)
{
    style s = style_make(w);
    int rc = OUTBOX_EDB;

    w->nonce = (uint32_t)rng_next(&w->rnd);
    if (begin(w, &s))
        rc = steps(w, &s);
    if (rc >= 0 && s.ending != PUBLISH_COMMITS)
        linger(s.late_ms);
    if (rc >= 0 && s.ending == COMMITS)
        db_exec(w->conn, "COMMIT");
    else if (rc >= 0 && s.ending == PREPARES)
        end_prepared(w);
    if (PQstatus(w->conn) == CONNECTION_OK &&
        PQtransactionStatus(w->conn) != PQTRANS_IDLE)
        db_exec(w->conn, "ROLLBACK");
}

int writer_main(const task *job)
{
    writer w = { .job = job, .rnd = { job->seed } };

    w.most = job->events > 1000000 ? MOST_EVENTS : 60;
    while (!told_to_stop) {
        if (connected(&w))
            transaction(&w);
    }
    forget(&w);
    PQfinish(w.conn);
    return 0;
}

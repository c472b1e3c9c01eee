/* SPDX-License-Identifier: MIT
 *
 * sink.c - the transport and what is behind it: the history of a destination
 * and, where there is one, a consumer with its own database and an inbox.
 *
 * The history is written before the verdict is given.  A verdict comes from
 * send itself, or later, out of order, from a thread.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <outbox/store.h>

#include "torture.h"

enum { OUTAGE_PERMILLE = 2, MUTE_PERMILLE = 2, MAX_ITEMS = 4096,
       MAX_KEYS = 64 };

typedef struct item {           /* sent, not settled */
    record rec;
    outbox_token token;
    int batch;
} item;

/* What an ordered transport owes for a key: having failed this version, it
 * fails the later ones that were sent before the relay could know of it. */
typedef struct debt {
    int64_t version;
    int batch;                  /* the last of those */
    bool unknown;               /* no verdict was given yet */
} debt;

struct sink {
    const task *job;
    int history;
    sqlite3 *db;                /* the consumer's; NULL: none */
    inbox_t *ib;
    sqlite3_stmt *effect;
    pthread_mutex_t working;    /* around a delivery, and rnd */
    rng rnd, dice;              /* dice: of the thread */
    int outage;                 /* deliveries still to be answered RETRY */
    atomic_int batch;           /* flushes so far */
    debt debts[MAX_KEYS];

    outbox_relay_t *relay;
    pthread_t thread;
    bool threaded, closing;
    pthread_mutex_t lock;       /* around the items */
    pthread_cond_t more;
    item items[MAX_ITEMS];
    int n;
};

/* ---- the consumer ---- */

static bool effect_write(sink *s, const record *rec)
{
    int rc;

    sqlite3_bind_text(s->effect, 1, rec->id, -1, SQLITE_TRANSIENT);
    sqlite3_bind_text(s->effect, 2, rec->key, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int64(s->effect, 3, rec->version);
    sqlite3_bind_int(s->effect, 4, rec->run);
    rc = sqlite3_step(s->effect);
    sqlite3_reset(s->effect);
    return rc == SQLITE_DONE;
}

/* Accept, effect, commit.  False: not now. */
static bool consume(sink *s, const record *rec)
{
    outbox_error err = { 0 };
    int rc;

    if (db_exec(s->db, "BEGIN IMMEDIATE") != SQLITE_OK)
        return false;
    rc = inbox_accept(s->ib, "torture", rec->id, &err);
    if (rc == 1 && !effect_write(s, rec))
        rc = OUTBOX_EBUSY;
    ob_failpoint("test.before_effect");
    if (rc >= 0)
        rc = inbox_commit(s->ib, &err);
    if (rc < 0 && !sqlite3_get_autocommit(s->db))
        db_exec(s->db, "ROLLBACK");
    if (rc < 0 && rc != OUTBOX_EBUSY)
        die("inbox", err.text);
    ob_failpoint("test.after_effect");
    return rc >= 0;
}

/* ---- the destination ---- */

/* The same answer each time for the same event. */
static int trait(const record *rec)
{
    return (int)(outbox_hash(rec->id, strlen(rec->id)) % 1000);
}

static bool not_now(sink *s, const record *rec)
{
    const plan *p = &s->job->plan;

    if (p->retry == 0 || p->drain)
        return false;
    if (s->outage > 0 || rng_permille(&s->rnd, OUTAGE_PERMILLE)) {
        s->outage += s->outage > 0 ? -1 : 5 + rng_below(&s->rnd, 40);
        return true;
    }
    if (1000 - trait(rec) <= p->retry && rec->attempt <= 3)
        return true;
    return rng_permille(&s->rnd, p->retry);
}

static debt *debt_of(sink *s, const record *rec)
{
    if (!s->job->plan.ordered || rec->key[0] != 'k')
        return NULL;
    return &s->debts[atoi(rec->key + 1) % MAX_KEYS];
}

static bool owed(const debt *d, const item *it)
{
    return it->rec.version > d->version &&
           (d->unknown || it->batch <= d->batch);
}

static void incur(debt *d, const item *it)
{
    if (!owed(d, it))
        d->version = it->rec.version;
    d->unknown = true;
}

static outbox_verdict hand_over(sink *s, record *rec)
{
    outbox_verdict verdict = OUTBOX_ACK;

    if (trait(rec) < s->job->plan.reject) {
        rec->kind = REFUSED;
        verdict = OUTBOX_REJECT;
    }
    ob_failpoint("test.before_history");
    record_append(s->history, rec);
    ob_failpoint("test.after_history");
    if (verdict == OUTBOX_ACK && s->db != NULL && !consume(s, rec))
        verdict = OUTBOX_RETRY;
    if (verdict == OUTBOX_ACK && not_now(s, rec))
        verdict = OUTBOX_RETRY;         /* it has it; the answer is lost */
    return verdict;
}

static outbox_verdict deliver(sink *s, item *it)
{
    outbox_verdict verdict = OUTBOX_RETRY;
    debt *d;

    pthread_mutex_lock(&s->working);
    d = debt_of(s, &it->rec);
    if ((d == NULL || !owed(d, it)) && !not_now(s, &it->rec))
        verdict = hand_over(s, &it->rec);
    if (d != NULL && verdict == OUTBOX_RETRY)
        incur(d, it);
    pthread_mutex_unlock(&s->working);
    return verdict;
}

/* The relay has the verdict, and heeds it from its next batch on. */
static void relay_knows(sink *s, const item *it)
{
    debt *d;

    pthread_mutex_lock(&s->working);
    d = debt_of(s, &it->rec);
    if (d != NULL && d->unknown) {
        d->unknown = false;
        d->batch = s->batch;
    }
    pthread_mutex_unlock(&s->working);
}

static void record_of(const sink *s, const outbox_event *ev, record *rec)
{
    *rec = (record){ .kind = DELIVERED,
                     .run = s->job->run,
                     .number = ev->position,
                     .pid = (int)getpid(),
                     .attempt = ev->attempt };
    snprintf(rec->id, sizeof rec->id, "%s", ev->id);
    snprintf(rec->key, sizeof rec->key, "%s", ev->key ? ev->key : "-");
    if (!payload_read(ev->payload, ev->payload_len, &rec->version) ||
        strcmp(ev->topic, "torture") != 0 ||
        strcmp(ev->type, "torture.changed") != 0 ||
        strcmp(ev->content_type, "text/plain") != 0 || ev->n_headers != 1 ||
        strtoll(ev->headers[0].value, NULL, 10) != rec->version)
        rec->kind = ALTERED;
}

/* ---- verdicts from a thread ---- */

/* Any of them, or the oldest where order is promised. */
static void take(sink *s, item *out)
{
    int i;

    while (s->n == 0 && !s->closing)
        pthread_cond_wait(&s->more, &s->lock);
    if (s->closing)
        return;
    i = s->job->plan.ordered ? 0 : rng_below(&s->dice, s->n);
    *out = s->items[i];
    s->n--;
    memmove(&s->items[i], &s->items[i + 1],
            (size_t)(s->n - i) * sizeof *s->items);
}

static void *settle_all(void *arg)
{
    sink *s = arg;
    item it;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        outbox_verdict verdict;
        bool mute;

        take(s, &it);
        if (s->closing)
            break;
        pthread_mutex_unlock(&s->lock);
        /* Now and then a pause that lets more come. */
        if (rng_below(&s->dice, 4) == 0)
            pause_us(rng_below(&s->dice, 1000));
        mute = !s->job->plan.drain && rng_permille(&s->dice, MUTE_PERMILLE);
        verdict = deliver(s, &it);
        if (!mute || verdict != OUTBOX_ACK)
            outbox_settle(s->relay, it.token, verdict, "torture");
        relay_knows(s, &it);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static int sink_open(void *ctx, outbox_relay_t *relay, outbox_error *err)
{
    sink *s = ctx;

    s->relay = relay;
    if (s->threaded || !s->job->plan.async)
        return OUTBOX_OK;
    if (pthread_create(&s->thread, NULL, settle_all, s) != 0)
        return outbox_error_set(err, OUTBOX_ENOMEM, "no thread");
    s->threaded = true;
    return OUTBOX_OK;
}

static void sink_close(void *ctx)
{
    sink *s = ctx;

    if (!s->threaded)
        return;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    s->threaded = s->closing = false;
    s->n = 0;
}

static outbox_verdict sink_send(void *ctx, const outbox_event *ev,
                                outbox_token token, outbox_error *why)
{
    sink *s = ctx;
    item it = { .token = token, .batch = s->batch };
    bool queued;

    record_of(s, ev, &it.rec);
    if (!s->threaded) {
        outbox_verdict verdict = deliver(s, &it);

        relay_knows(s, &it);
        return verdict;
    }
    pthread_mutex_lock(&s->lock);
    queued = s->n < MAX_ITEMS;
    if (queued)
        s->items[s->n++] = it;
    pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&s->lock);
    if (queued)
        return OUTBOX_PENDING;
    outbox_error_set(why, OUTBOX_EBUSY, "queue full");
    return OUTBOX_RETRY;
}

static void sink_flush(void *ctx)
{
    sink *s = ctx;

    s->batch++;
}

/* ---- as a whole ---- */

static void consumer_open(sink *s)
{
    outbox_error err;

    s->db = db_open(s->job->dir, "effects.db", s->job->plan.durable, false);
    s->effect = db_prepare(s->db, "INSERT INTO effect(id, key, version, run)"
                                  " VALUES(?1, ?2, ?3, ?4)");
    if (inbox_sqlite_open(&s->ib, s->db, NULL, &err) < 0)
        die("inbox_sqlite_open", err.text);
}

sink *sink_new(const task *job, bool consumer)
{
    sink *s = calloc(1, sizeof *s);

    if (s == NULL)
        die("sink", "no memory");
    s->job = job;
    s->batch = 1;               /* later than any debt */
    s->rnd.state = ~job->seed;
    s->dice.state = rng_next(&s->rnd);
    s->history = record_open(job->dir, consumer ? "history.relay"
                                                : "history.sink");
    pthread_mutex_init(&s->working, NULL);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->more, NULL);
    if (consumer)
        consumer_open(s);
    return s;
}

void sink_transport(sink *s, outbox_transport *out)
{
    *out = (outbox_transport){ .size = sizeof *out,
                               .name = "torture",
                               .ctx = s,
                               .max_inflight_ms =
                                   s->job->plan.async ? 50 : 0,
                               .flags = s->job->plan.ordered ? OUTBOX_ORDERED
                                                             : 0,
                               .flush = sink_flush,
                               .open = sink_open,
                               .send = sink_send,
                               .close = sink_close };
}

void sink_free(sink *s)
{
    if (s->db != NULL) {
        sqlite3_finalize(s->effect);
        inbox_close(s->ib);
        sqlite3_close(s->db);
    }
    close(s->history);
    free(s);
}

/* SPDX-License-Identifier: MIT
 *
 * async.c - a transport that answers later, from a thread of its own.
 *
 * send() copies the event into a queue and says OUTBOX_PENDING; the thread
 * empties the queue and settles each event by its token.  A client library
 * with callbacks has the same shape: its thread takes the place of ours.
 */
#define _POSIX_C_SOURCE 200809L
#include <outbox/sqlite.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { QUEUE = 8, ORDERS = 20, STOP_MS = 5000 };

/* ---- the transport --------------------------------------------------- */

struct letter {                         /* an event, after send() returned */
    outbox_token token;
    int attempt;
    char *key, *payload;                /* payload with a NUL of ours */
};

struct sender {
    outbox_relay_t *relay;
    pthread_t thread;
    pthread_mutex_t lock;               /* guards what follows */
    pthread_cond_t changed;
    struct letter queue[QUEUE];
    unsigned head, count, arrived;
    int closing;
};

static void letter_free(struct letter *l)
{
    free(l->key);
    free(l->payload);
}

static int letter_copy(struct letter *l, const outbox_event *ev,
                       outbox_token token)
{
    l->token = token;
    l->attempt = ev->attempt;
    l->key = strdup(ev->key ? ev->key : "");
    l->payload = strndup(ev->payload, ev->payload_len);
    if (l->key && l->payload)
        return 0;
    letter_free(l);
    return -1;
}

/* Where a network would be.  It loses one letter, the first time. */
static outbox_verdict post(const struct letter *l)
{
    if (l->attempt == 1 && strcmp(l->key, "o-7") == 0)
        return OUTBOX_RETRY;
    printf("%s%s ", l->key, l->attempt == 1 ? "" : " (second attempt)");
    return OUTBOX_ACK;
}

static void *sender_run(void *arg)
{
    struct sender *s = arg;
    struct letter l;
    outbox_verdict verdict;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (s->count == 0 && !s->closing)
            pthread_cond_wait(&s->changed, &s->lock);
        if (s->closing)
            break;
        l = s->queue[s->head];
        s->head = (s->head + 1) % QUEUE;
        s->count--;
        pthread_cond_broadcast(&s->changed);    /* there is room */
        pthread_mutex_unlock(&s->lock);     /* never held in foreign code */
        verdict = post(&l);
        outbox_settle(s->relay, l.token, verdict, "lost in the post");
        letter_free(&l);
        pthread_mutex_lock(&s->lock);
        s->arrived += verdict == OUTBOX_ACK;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static int sender_open(void *ctx, outbox_relay_t *relay, outbox_error *err)
{
    struct sender *s = ctx;

    s->relay = relay;
    s->closing = 0;
    if (pthread_create(&s->thread, NULL, sender_run, s) == 0)
        return OUTBOX_OK;
    err->code = OUTBOX_ENOMEM;
    snprintf(err->text, sizeof err->text, "no thread for the sender");
    return OUTBOX_ENOMEM;
}

/* Copying is cheap, waking a thread is not: flush() wakes it for the batch.
 * A full queue makes the relay wait, which is all the back pressure needed. */
static outbox_verdict sender_send(void *ctx, const outbox_event *ev,
                                  outbox_token token, outbox_error *why)
{
    struct sender *s = ctx;
    struct letter l;

    if (letter_copy(&l, ev, token) < 0) {
        snprintf(why->text, sizeof why->text, "no memory for a copy");
        return OUTBOX_RETRY;
    }
    pthread_mutex_lock(&s->lock);
    while (s->count == QUEUE) {
        pthread_cond_broadcast(&s->changed);
        pthread_cond_wait(&s->changed, &s->lock);
    }
    s->queue[(s->head + s->count++) % QUEUE] = l;
    pthread_mutex_unlock(&s->lock);
    return OUTBOX_PENDING;
}

static void sender_flush(void *ctx)
{
    struct sender *s = ctx;

    pthread_mutex_lock(&s->lock);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* What is still queued stays unsettled, and the next relay sends it again. */
static void sender_close(void *ctx)
{
    struct sender *s = ctx;

    pthread_mutex_lock(&s->lock);
    s->closing = 1;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    for (; s->count > 0; s->count--) {
        letter_free(&s->queue[s->head]);
        s->head = (s->head + 1) % QUEUE;
    }
}

/* ---- the program ----------------------------------------------------- */

static int sql(sqlite3 *db, const char *text)
{
    return sqlite3_exec(db, text, NULL, NULL, NULL);
}

static int publish_orders(sqlite3 *db, outbox_t *ob, outbox_error *err)
{
    char key[16];
    outbox_event ev = {.size = sizeof ev, .topic = "orders",
                       .type = "order.placed", .key = key,
                       .payload = "{}", .payload_len = 2};
    int i;

    if (sql(db, "BEGIN IMMEDIATE"))
        return -1;
    for (i = 1; i <= ORDERS; i++) {
        snprintf(key, sizeof key, "o-%d", i);
        if (outbox_publish(ob, &ev, err))
            return -1;
    }
    return sql(db, "COMMIT");
}

static int start_relay(outbox_relay_t **relay, struct sender *s,
                       const char *path, outbox_error *err)
{
    const outbox_transport post_office = {
        .size = sizeof post_office,
        .name = "post",
        .ctx = s,
        .max_inflight_ms = 1000,        /* a letter is lost or there by then */
        .open = sender_open,
        .send = sender_send,
        .flush = sender_flush,
        .close = sender_close,
    };
    const outbox_relay_options opt = {.size = sizeof opt, .retry_min_ms = 20};
    outbox_t *own;

    if (outbox_sqlite_connect(&own, path, NULL, err))
        return -1;
    if (outbox_relay_new(relay, own, &post_office, &opt, err)) {
        outbox_close(own);
        return -1;
    }
    return outbox_relay_start(*relay, err);
}

static void await_arrivals(struct sender *s, unsigned n)
{
    pthread_mutex_lock(&s->lock);
    while (s->arrived < n)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

int main(int argc, char **argv)
{
    char mine[] = "/tmp/async-XXXXXX";
    const char *path = argc > 1 ? argv[1] : mine;
    struct sender s = {.lock = PTHREAD_MUTEX_INITIALIZER,
                       .changed = PTHREAD_COND_INITIALIZER};
    outbox_stats st = {.size = sizeof st};
    outbox_relay_t *relay = NULL;
    outbox_error err = {0};
    outbox_t *ob = NULL;
    sqlite3 *db = NULL;

    int bad = (path == mine && close(mkstemp(mine))) ||
        sqlite3_open(path, &db) || sqlite3_busy_timeout(db, 5000) ||
        sql(db, "PRAGMA journal_mode = WAL") ||
        outbox_sqlite_open(&ob, db, NULL, &err) ||
        outbox_migrate(ob, &err) ||
        start_relay(&relay, &s, path, &err) ||
        publish_orders(db, ob, &err);
    if (!bad) {
        await_arrivals(&s, ORDERS);
        bad = outbox_relay_stop(relay, STOP_MS, &err) ||
            outbox_relay_stats(relay, &st);
    }
    if (bad)
        fprintf(stderr, "%s\n", err.code ? err.text : sqlite3_errmsg(db));
    else
        printf("\n%llu sent, %llu acknowledged, %llu tried again\n",
               (unsigned long long)st.sent, (unsigned long long)st.acked,
               (unsigned long long)st.retried);
    outbox_relay_free(relay);
    outbox_close(ob);
    sqlite3_close(db);
    if (path == mine)
        unlink(mine);
    return bad;
}

/* SPDX-License-Identifier: MIT
 *
 * crowd.c - ten thousand keys that fail, beside a steady stream of others:
 * what do these notice?  The crowd comes little by little, between the
 * others, or all at once, and fills the window.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "failover.h"

enum { CROWD = 10000, PACE_US = 2000, HEALTHY_KEYS = 500, BAD_MS = 1500,
       WAIT_MS = 60000, MORE_P50_US = 10000, MORE_P99_US = 100000,
       PATIENCE = 3 };      /* of the small dose: it runs beside others */

static struct {
    atomic_bool mended;         /* the crowd passes from now on */
    atomic_int healthy, crowd, refused;
    samples latency;            /* of the healthy; the relay's thread's own */
} gate;

static outbox_verdict crowd_send(void *ctx, const outbox_event *ev,
                                 outbox_token token, outbox_error *why)
{
    char text[32] = "";

    (void)ctx;
    (void)token;
    (void)why;
    if (ev->key[0] == 'b' && !gate.mended) {
        gate.refused++;
        return OUTBOX_RETRY;
    }
    if (ev->key[0] == 'b') {
        gate.crowd++;
        return OUTBOX_ACK;
    }
    memcpy(text, ev->payload,
           ev->payload_len < sizeof text ? ev->payload_len : sizeof text - 1);
    samples_add(&gate.latency, now_us() - strtoll(text, NULL, 10));
    gate.healthy++;
    return OUTBOX_ACK;
}

/* ---- publishing ---- */

/* Role: so many transactions, at a steady pace. */
int steady_main(const task *job)
{
    char key[16], text[32];
    int64_t due = now_us(), left;
    writer w;

    writer_open(&w, job->dir, 0);
    for (int i = 0; i < job->plan.count; i++, due += PACE_US) {
        left = due - now_us();
        if (left > 0)
            pause_us((int)left);
        snprintf(key, sizeof key, "h%d", i % HEALTHY_KEYS);
        snprintf(text, sizeof text, "%lld", (long long)now_us());
        writer_one(&w, key, text);
    }
    writer_close(&w);
    return 0;
}

static void publish_crowd(const char *dir, int per_transaction)
{
    char key[16];
    outbox_event ev = { .size = sizeof ev, .topic = "failover", .key = key,
                        .payload = "x", .payload_len = 1 };
    writer w;

    writer_open(&w, dir, 0);
    for (int i = 0; i < CROWD; i += per_transaction) {
        writer_begin(&w);
        for (int k = i; k < i + per_transaction; k++) {
            snprintf(key, sizeof key, "b%d", k);
            writer_put(&w, &ev);
        }
        writer_commit(&w);
        pause_us(PACE_US / 2);
    }
    writer_close(&w);
}

/* ---- measuring ---- */

static bool reaches(const atomic_int *counter, int value)
{
    int64_t end = now_ms() + WAIT_MS;

    while (*counter < value && now_ms() < end)
        pause_us(1000);
    return *counter >= value;
}

typedef struct figures {
    int64_t p50_us, p99_us, most_us;
} figures;

/* One stretch of the steady stream; with a crowd if per_transaction > 0. */
static figures stretch(const task *job, int per_transaction)
{
    figures f;
    child c;

    samples_free(&gate.latency);
    gate.healthy = 0;
    child_start(&c, "steady", job, NULL, NULL);
    if (per_transaction > 0) {
        pause_us(300000);
        publish_crowd(job->dir, per_transaction);
        pause_us(BAD_MS * 1000);
        gate.mended = true;
    }
    if (child_wait(&c, WAIT_MS) != ENDED ||
        !reaches(&gate.healthy, job->plan.count))
        row_just("all of the others were delivered", 0, "", 1);
    f.p50_us = samples_at(&gate.latency, 500);
    f.p99_us = samples_at(&gate.latency, 990);
    f.most_us = samples_at(&gate.latency, 1000);
    return f;
}

static void row_ms(const char *name, const char *what, int64_t us,
                   int64_t limit_us)
{
    char text[96];

    snprintf(text, sizeof text, "10,000 keys fail, %s: %s", name, what);
    row_most(text, (double)us / 1000, "ms",
             limit_us < 0 ? NO_LIMIT : (double)limit_us / 1000);
}

static void report(const char *name, const figures *calm, const figures *f,
                   int patience)
{
    char text[96];

    row_ms(name, "p50 of others without", calm->p50_us, NO_LIMIT);
    row_ms(name, "p50 of others", f->p50_us,
           calm->p50_us + patience * MORE_P50_US);
    row_ms(name, "p99 of others without", calm->p99_us, NO_LIMIT);
    row_ms(name, "p99 of others", f->p99_us,
           calm->p99_us + patience * MORE_P99_US);
    row_ms(name, "longest of others", f->most_us, NO_LIMIT);
    snprintf(text, sizeof text, "10,000 keys fail, %s: refusals", name);
    row_most(text, gate.refused, "", NO_LIMIT);
    snprintf(text, sizeof text, "10,000 keys fail, %s: peak memory", name);
    row_most(text, (double)memory_peak() / (1 << 20), "MB", 32);
}

static void recovered(outbox_relay_t *r, const char *name)
{
    int64_t since = now_ms();
    char text[96];

    reaches(&gate.crowd, CROWD);
    snprintf(text, sizeof text, "10,000 keys fail, %s: delivered at last",
             name);
    row_just(text, gate.crowd, "", CROWD);
    snprintf(text, sizeof text, "10,000 keys fail, %s: after", name);
    row_most(text, (double)(now_ms() - since) / 1000, "s", NO_LIMIT);
    snprintf(text, sizeof text, "10,000 keys fail, %s: dead", name);
    row_just(text, (double)relay_look(r).dead, "", 0);
}

int crowd_main(const task *job)
{
    outbox_transport tp = { .size = sizeof tp, .send = crowd_send };
    outbox_relay_options opt = { .retry_max_ms = 2000 };
    outbox_relay_t *r = relay_make(job->dir, &tp, opt);
    bool lump = job->plan.async;
    const char *name = lump ? "at once" : "mixed";
    figures calm, f;
    outbox_error err;

    if (outbox_relay_start(r, &err) < 0)
        die("outbox_relay_start", err.text);
    calm = stretch(job, 0);
    memory_peak_reset();
    f = stretch(job, lump ? CROWD : 10);
    report(name, &calm, &f, job->plan.step ? PATIENCE : 1);
    recovered(r, name);
    relay_end(r);
    samples_free(&gate.latency);
    return rows_failed() > 0;
}

static void play(const dose *d, int async)
{
    field f;

    field_make(&f, d->seed);
    f.job.plan.count = d->small ? 1200 : 5000;
    f.job.plan.async = async;   /* the plan has no words for these */
    f.job.plan.step = d->small;
    play_apart("crowd", &f);
}

void crowd_play(const dose *d)
{
    play(d, 0);
    if (!d->small)
        play(d, 1);
}

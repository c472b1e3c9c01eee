/* SPDX-License-Identifier: MIT
 *
 * pile.c - one key with a hundred thousand events, the first of which fails:
 * all wait behind it, in the table of the parked, while other keys go on;
 * and come in order when it passes at last.
 */
#include <stdlib.h>
#include <string.h>

#include "failover.h"

enum { PER_TRANSACTION = 1000, WAIT_MS = 60000, PARK_S = 30, DRAIN_S = 30,
       PEAK_MB = 24 };

static struct {
    bool mended;
    int64_t next;               /* of the pile */
    int64_t disorder, others, refused;
} heap;

/* The plan has no word for it. */
static bool between(const task *job)
{
    return !job->plan.async;
}

static outbox_verdict pile_send(void *ctx, const outbox_event *ev,
                                outbox_token token, outbox_error *why)
{
    int64_t number;
    char text[24] = "";

    (void)ctx;
    (void)token;
    (void)why;
    if (strcmp(ev->key, "pile") != 0) {
        heap.others++;
        return OUTBOX_ACK;
    }
    if (!heap.mended) {
        heap.refused++;
        return OUTBOX_RETRY;
    }
    memcpy(text, ev->payload,
           ev->payload_len < sizeof text ? ev->payload_len : sizeof text - 1);
    number = strtoll(text, NULL, 10);
    heap.disorder += number != heap.next;
    heap.next = number + 1;
    return OUTBOX_ACK;
}

static void put(writer *w, const char *key, int64_t number)
{
    char text[24];
    outbox_event ev = { .size = sizeof ev, .topic = "failover", .key = key,
                        .payload = text };

    ev.payload_len = (size_t)snprintf(text, sizeof text, "%lld",
                                      (long long)number);
    writer_put(w, &ev);
}

/* Events of another key come between those of the pile, or behind it. */
static void publish_pile(const task *job)
{
    int events = job->plan.count;
    writer w;

    writer_open(&w, job->dir, 0);
    for (int i = 0; i < events; i += PER_TRANSACTION) {
        writer_begin(&w);
        for (int k = i; k < i + PER_TRANSACTION; k++)
            put(&w, "pile", k);
        if (between(job))
            put(&w, "other", i);
        writer_commit(&w);
    }
    for (int i = 0; i < events && !between(job); i += PER_TRANSACTION)
        writer_one(&w, "other", "0");
    writer_close(&w);
}

static int64_t wait_parked(outbox_relay_t *r, uint64_t events)
{
    int64_t start = now_ms(), end = start + WAIT_MS;

    while (relay_look(r).parked < events && now_ms() < end)
        relay_steps(r, 20);
    return now_ms() - start;
}

static int64_t wait_drained(outbox_relay_t *r, int64_t events)
{
    int64_t start = now_ms(), end = start + WAIT_MS;

    heap.mended = true;
    while (heap.next < events && now_ms() < end)
        relay_steps(r, 20);
    return now_ms() - start;
}

static void row_of(const task *job, const char *what, double figure,
                   const char *unit, double limit)
{
    char text[96];

    snprintf(text, sizeof text, "%d events of a key%s: %s", job->plan.count,
             between(job) ? "" : ", in front", what);
    row_most(text, figure, unit, limit);
}

int pile_main(const task *job)
{
    outbox_transport tp = { .size = sizeof tp, .send = pile_send };
    outbox_relay_options opt = { .max_attempts = 1000000,
                                 .retry_max_ms = 1000 };
    int64_t events = job->plan.count, parking, draining;
    outbox_relay_t *r = relay_make(job->dir, &tp, opt);
    uint64_t parked, dead;

    publish_pile(job);
    memory_peak_reset();
    parking = wait_parked(r, (uint64_t)events);
    parked = relay_look(r).parked;
    row_of(job, "others not delivered meanwhile",
           (double)(events / PER_TRANSACTION - heap.others), "", 0);
    row_of(job, "not parked", (double)events - (double)parked, "", 0);
    row_of(job, "time to park", (double)parking / 1000, "s", PARK_S);
    draining = wait_drained(r, events);
    dead = relay_look(r).dead;
    row_of(job, "not delivered afterwards", (double)(events - heap.next), "",
           0);
    row_of(job, "out of order, or dead", (double)heap.disorder + (double)dead,
           "", 0);
    row_of(job, "time to deliver", (double)draining / 1000, "s", DRAIN_S);
    row_of(job, "peak of resident memory",
           (double)memory_peak() / (1 << 20), "MB", PEAK_MB);
    relay_end(r);
    return rows_failed() > 0;
}

static void play(const dose *d, int async)
{
    field f;

    field_make(&f, d->seed);
    f.job.plan.count = d->small ? 20000 : 100000;
    f.job.plan.async = async;
    play_apart("pile", &f);
}

void pile_play(const dose *d)
{
    if (!d->small)
        play(d, 0);
    play(d, 1);
}

/* SPDX-License-Identifier: MIT
 *
 * notice.c - a process that commits now and then, and a relay in another
 * that sleeps in between: it must be woken by the write, each time anew.
 * Otherwise it finds an event when it next looks after its leases, some tens
 * of milliseconds late.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "failover.h"

enum { PAUSE_MS = 250, POLL_MS = 60000, LATE_MS = 15, WAIT_MS = 60000 };

static struct {
    samples latency;            /* the relay's thread's own */
    atomic_int arrived;
} ear;

static outbox_verdict ear_send(void *ctx, const outbox_event *ev,
                               outbox_token token, outbox_error *why)
{
    char text[32] = "";

    (void)ctx;
    (void)token;
    (void)why;
    memcpy(text, ev->payload,
           ev->payload_len < sizeof text ? ev->payload_len : sizeof text - 1);
    samples_add(&ear.latency, now_us() - strtoll(text, NULL, 10));
    ear.arrived++;
    return OUTBOX_ACK;
}

/* Role: so many transactions, with a lull before each. */
int seldom_main(const task *job)
{
    rng rnd = { job->seed };
    char text[32];
    writer w;

    writer_open(&w, job->dir, 0);
    for (int i = 0; i < job->plan.count; i++) {
        pause_us((PAUSE_MS + rng_below(&rnd, PAUSE_MS)) * 1000);
        snprintf(text, sizeof text, "%lld", (long long)now_us());
        writer_one(&w, "k", text);
    }
    writer_close(&w);
    return 0;
}

int notice_main(const task *job)
{
    outbox_transport tp = { .size = sizeof tp, .send = ear_send };
    outbox_relay_options opt = { .poll_ms = POLL_MS };
    outbox_relay_t *r = relay_make(job->dir, &tp, opt);
    int64_t end = now_ms() + WAIT_MS;
    outbox_error err;

    if (outbox_relay_start(r, &err) < 0)
        die("outbox_relay_start", err.text);
    if (!child_complete("seldom", job, WAIT_MS))
        return 1;
    while (ear.arrived < job->plan.count && now_ms() < end)
        pause_us(1000);
    relay_end(r);
    row_just("commits of another process: delivered", ear.arrived, "",
             job->plan.count);
    row_most("commits of another process: p50 after a lull",
             (double)samples_at(&ear.latency, 500) / 1000, "ms", LATE_MS);
    row_most("commits of another process: longest",
             (double)samples_at(&ear.latency, 1000) / 1000, "ms", NO_LIMIT);
    samples_free(&ear.latency);
    return rows_failed() > 0;
}

void notice_play(const dose *d)
{
    field f;

    field_make(&f, d->seed);
    f.job.plan.count = d->small ? 6 : 40;
    play_apart("notice", &f);
}

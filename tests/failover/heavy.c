/* SPDX-License-Identifier: MIT
 *
 * heavy.c - a thousand payloads of one megabyte through a window of eight.
 * The destination is slow to answer, so that the window is always full.
 */
#include <stdlib.h>
#include <string.h>

#include "failover.h"

enum { MB = 1 << 20, WINDOW = 8 * MB, SLACK = 4 * MB, MAX_TOKENS = 64,
       WARM_EVENTS = 50, WAIT_MS = 120000 };

static struct {
    outbox_relay_t *relay;
    outbox_token tokens[MAX_TOKENS];
    int n, most;
    int64_t arrived, wrong;
} scale;

static int heavy_open(void *ctx, outbox_relay_t *relay, outbox_error *err)
{
    (void)ctx;
    (void)err;
    scale.relay = relay;
    return OUTBOX_OK;
}

static outbox_verdict heavy_send(void *ctx, const outbox_event *ev,
                                 outbox_token token, outbox_error *why)
{
    const char *p = ev->payload;

    (void)ctx;
    (void)why;
    scale.arrived++;
    if (ev->payload_len == MB && (p[0] != 'm' || p[MB - 1] != 'm'))
        scale.wrong++;
    if (scale.n == MAX_TOKENS)
        return OUTBOX_ACK;
    scale.tokens[scale.n++] = token;
    if (scale.n > scale.most)
        scale.most = scale.n;
    return OUTBOX_PENDING;
}

static void heavy_answer(void)
{
    for (int i = 0; i < scale.n; i++)
        outbox_settle(scale.relay, scale.tokens[i], OUTBOX_ACK, NULL);
    scale.n = 0;
}

/* False: not in time. */
static bool deliver_until(outbox_relay_t *r, int64_t count)
{
    int64_t end = now_ms() + WAIT_MS;

    while (scale.arrived < count && now_ms() < end) {
        relay_steps(r, 1);
        heavy_answer();
    }
    relay_steps(r, 1);
    return scale.arrived == count;
}

/* Role: publish so many events of a megabyte. */
int megabytes_main(const task *job)
{
    char *payload = malloc(MB + 1), key[16];
    writer w;

    if (payload == NULL)
        die("megabytes", "no memory");
    memset(payload, 'm', MB);
    payload[MB] = '\0';
    writer_open(&w, job->dir, MB);
    for (int i = 0; i < job->plan.count; i++) {
        snprintf(key, sizeof key, "k%d", i % 100);
        writer_one(&w, key, payload);
        if (i % 50 == 49)
            db_exec(w.db, "PRAGMA wal_checkpoint(TRUNCATE)");
    }
    writer_close(&w);
    free(payload);
    return 0;
}

static void warm_up(const task *job, outbox_relay_t *r)
{
    writer w;

    writer_open(&w, job->dir, 0);
    for (int i = 0; i < WARM_EVENTS; i++)
        writer_one(&w, "small", "small");
    writer_close(&w);
    deliver_until(r, WARM_EVENTS);
}

/* What the window costs is what it adds to a relay that has seen none of
 * the payloads. */
int heavy_main(const task *job)
{
    outbox_transport tp = { .size = sizeof tp,
                            .open = heavy_open,
                            .send = heavy_send };
    outbox_relay_options opt = { .max_inflight_bytes = WINDOW };
    outbox_relay_t *r = relay_make(job->dir, &tp, opt);
    int64_t base, started;
    bool all;

    warm_up(job, r);
    base = memory_now();
    memory_peak_reset();
    if (!child_complete("megabytes", job, WAIT_MS))
        return 1;
    started = now_ms();
    all = deliver_until(r, WARM_EVENTS + job->plan.count);
    row_just("payloads of 1 MB: delivered",
             (double)(scale.arrived - WARM_EVENTS), "", job->plan.count);
    row_just("payloads of 1 MB: damaged", (double)scale.wrong, "", 0);
    row_most("payloads of 1 MB: time", (double)(now_ms() - started) / 1000,
             "s", NO_LIMIT);
    row_most("payloads of 1 MB: in flight at most", scale.most, "",
             WINDOW / MB);
    row_most("payloads of 1 MB: peak of resident memory",
             (double)memory_peak() / MB, "MB",
             (double)(base + WINDOW + SLACK) / MB);
    if (all)
        relay_end(r);
    return rows_failed() > 0;
}

void heavy_play(const dose *d)
{
    field f;

    field_make(&f, d->seed);
    f.job.plan.count = d->small ? 100 : 1000;
    play_apart("heavy", &f);
}

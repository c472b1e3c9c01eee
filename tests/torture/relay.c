/* SPDX-License-Identifier: MIT
 *
 * relay.c - a real relay in front of a sink: its own thread, or steps.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <outbox/store.h>

#include "torture.h"

/* Nobody else is at work when a relay drains: its time may fly. */
enum { HASTE = 10 };

struct engine {
    const task *job;
    sink *sink;
    outbox_relay_t *relay;
    bool threaded;
    rng rnd;
};

static int64_t hasty_clock(void *arg)
{
    (void)arg;
    return outbox_monotonic_us() * HASTE / 1000;
}

static void log_line(void *arg, int level, const char *line)
{
    const task *job = arg;
    char path[PATH_BYTES];
    FILE *file;

    if (level > 4)
        return;
    path_join(path, job->dir, "log");
    file = fopen(path, "ae");
    if (file == NULL)
        return;
    fprintf(file, "run %d: %d: %s\n", job->run, level, line);
    fclose(file);
}

static void relay_open(engine *e, bool consumer)
{
    const plan *p = &e->job->plan;
    uint32_t haste = p->drain ? HASTE : 1;
    outbox_relay_options opt = {
        .size = sizeof opt,
        .subscription = consumer ? "relay" : "sink",
        .batch = (uint32_t)p->batch,
        .max_inflight = (uint32_t)p->inflight,
        .poll_ms = 50,
        .lease_ms = (uint32_t)p->lease_ms * haste,
        .settle_ms = 150 * haste,
        .flush_ms = (uint32_t)p->flush_ms,
        .retry_min_ms = 1,
        .retry_max_ms = 20,
        .max_attempts = 1000000000,
        .breaker_ms = 10,
        .keep_ms = p->keep_ms,
        .on_dead = OUTBOX_DEAD_SKIPS,
        .clock_ms = p->drain ? hasty_clock : NULL,
        .log = log_line,
        .log_arg = (void *)(uintptr_t)e->job,
    };
    outbox_transport transport;
    char path[PATH_BYTES];
    outbox_error err;
    outbox_t *ob;
    int rc;

    /* Busy: somebody recovers the WAL of one who was killed. */
    path_join(path, e->job->dir, "app.db");
    while ((rc = outbox_sqlite_connect(&ob, path, NULL, &err)) ==
           OUTBOX_EBUSY)
        pause_us(1000);
    if (rc < 0)
        die("outbox_sqlite_connect", err.text);
    sink_transport(e->sink, &transport);
    if (outbox_relay_new(&e->relay, ob, &transport, &opt, &err) < 0)
        die("outbox_relay_new", err.text);
}

static void relay_start(engine *e)
{
    outbox_error err;
    int rc = OUTBOX_EBUSY;

    while (rc == OUTBOX_EBUSY && !told_to_stop)
        rc = outbox_relay_start(e->relay, &err);
    if (rc < 0 && rc != OUTBOX_EBUSY)
        die("outbox_relay_start", err.text);
}

engine *engine_start(const task *job, bool consumer)
{
    engine *e = calloc(1, sizeof *e);

    if (e == NULL)
        die("relay", "no memory");
    e->job = job;
    e->rnd.state = job->seed * 3;
    e->sink = sink_new(job, consumer);
    relay_open(e, consumer);
    e->threaded = !job->plan.step && !job->plan.drain;
    if (e->threaded)
        relay_start(e);
    return e;
}

void engine_turn(engine *e)
{
    outbox_error err;
    int rc, wait_ms = rng_below(&e->rnd, e->job->plan.drain ? 5 : 20);

    if (e->threaded) {
        pause_us(wait_ms * 1000);
        if (rng_below(&e->rnd, 4) == 0)
            outbox_relay_wake(e->relay);
        return;
    }
    rc = outbox_relay_step(e->relay, wait_ms, &err);
    if (rc < 0 && rc != OUTBOX_EBUSY && rc != OUTBOX_ESTALE)
        die("outbox_relay_step", err.text);
}

/* It says so itself; whether it is true, the checker will see. */
bool engine_drained(engine *e)
{
    outbox_stats st = { .size = sizeof st };

    return outbox_relay_stats(e->relay, &st) == OUTBOX_OK && st.leader &&
           st.lag == 0 && st.inflight == 0 && st.parked == 0;
}

bool engine_stop(engine *e)
{
    outbox_error err;
    int rc = outbox_relay_stop(e->relay, 5000, &err);

    if (rc < 0)
        fprintf(stderr, "torture: run %d: outbox_relay_stop: %d: %s\n",
                e->job->run, rc, err.text);
    outbox_relay_free(e->relay);
    sink_free(e->sink);
    free(e);
    return rc >= 0 || rc == OUTBOX_EBUSY;       /* a stalled one has the lock */
}

int relay_main(const task *job, bool consumer)
{
    engine *e = engine_start(job, consumer);

    while (!told_to_stop && !(job->plan.drain && engine_drained(e)))
        engine_turn(e);
    return engine_stop(e) ? 0 : 1;
}

/* SPDX-License-Identifier: MIT
 *
 * outage.c - a destination that is down for hours of a simulated clock: it
 * refuses every event, or does not even open.
 */
#include "failover.h"

enum { BEFORE = 500, KEYS = 50, STEP_MS = 1000, MINUTE_MS = 60000,
       MAX_TURNS = 1000,
       BACK_S = 310 };              /* the longest pause, and some turns */

typedef struct place {
    int64_t clock_ms;
    bool down, shut;            /* refuses; does not open */
    int64_t next[KEYS], arrived, disorder, refused;
} place;

static place far;

static int64_t simulated_ms(void *arg)
{
    (void)arg;
    return far.clock_ms;
}

static int outage_open(void *ctx, outbox_relay_t *relay, outbox_error *err)
{
    (void)ctx;
    (void)relay;
    (void)err;
    far.refused += far.shut;
    return far.shut ? OUTBOX_ETIMEOUT : OUTBOX_OK;
}

static outbox_verdict outage_send(void *ctx, const outbox_event *ev,
                                  outbox_token token, outbox_error *why)
{
    int number, key;

    (void)ctx;
    (void)token;
    (void)why;
    if (far.down) {
        far.refused++;
        return OUTBOX_RETRY;
    }
    if (sscanf(ev->payload, "%d %d", &key, &number) != 2 ||
        number != far.next[key])
        far.disorder++;
    else
        far.next[key]++;
    far.arrived++;
    return OUTBOX_ACK;
}

static void publish(writer *w, int i)
{
    char key[16], text[32];

    snprintf(key, sizeof key, "k%d", i % KEYS);
    snprintf(text, sizeof text, "%d %d ", i % KEYS, i / KEYS);
    writer_one(w, key, text);
}

static void turns(outbox_relay_t *r, int64_t ms, int64_t until)
{
    int64_t end_ms = far.clock_ms + ms;
    outbox_error err;

    while (far.clock_ms < end_ms && far.arrived < until) {
        far.clock_ms += STEP_MS;
        if (outbox_relay_step(r, 0, &err) < 0)
            die("outbox_relay_step", err.text);
    }
}

/* A backlog is there when it begins, and another event comes each minute. */
static void suffer(const field *f, outbox_relay_t *r, int hours)
{
    writer w;

    writer_open(&w, f->dir, 0);
    for (int i = 0; i < BEFORE; i++)
        publish(&w, i);
    for (int i = 0; i < hours * 60; i++) {
        turns(r, MINUTE_MS, INT64_MAX);
        publish(&w, BEFORE + i);
    }
    writer_close(&w);
}

typedef struct findings {
    int hours;
    const char *what;
    int64_t harm, events, back_ms;
} findings;

static void row_of(const findings *f, const char *what, int64_t figure,
                   int64_t expected)
{
    char text[96];

    snprintf(text, sizeof text, "%d h %s: %s", f->hours, f->what, what);
    if (expected < 0)
        row_most(text, (double)figure, "", NO_LIMIT);
    else
        row_just(text, (double)figure, "", (double)expected);
}

static void report(const findings *f)
{
    char text[96];

    row_of(f, "dead or parked at the end", f->harm, 0);
    row_of(f, "tries", far.refused, NO_LIMIT);
    row_of(f, "delivered afterwards", far.arrived, f->events);
    row_of(f, "out of order", far.disorder, 0);
    snprintf(text, sizeof text, "%d h %s: simulated time to recover",
             f->hours, f->what);
    row_most(text, (double)f->back_ms / 1000, "s", BACK_S);
}

static void play(const dose *d, const char *what, bool shut)
{
    outbox_transport tp = { .size = sizeof tp,
                            .open = outage_open,
                            .send = outage_send };
    outbox_relay_options opt = { .clock_ms = simulated_ms };
    findings found = { .hours = d->small ? 2 : 12, .what = what };
    int before = rows_failed();
    outbox_relay_t *r;
    int64_t up_ms;
    field f;

    far = (place){ .clock_ms = 1000000, .down = !shut, .shut = shut };
    field_make(&f, d->seed);
    r = relay_make(f.dir, &tp, opt);
    suffer(&f, r, found.hours);
    found.events = BEFORE + found.hours * 60;
    found.harm = field_number(&f, "SELECT (SELECT count(*) FROM outbox_dead)"
                                  " + (SELECT count(*) FROM outbox_parked)");
    up_ms = far.clock_ms;
    far.down = far.shut = false;
    turns(r, MAX_TURNS * STEP_MS, found.events);
    found.back_ms = far.clock_ms - up_ms;
    report(&found);
    relay_end(r);
    field_clear(&f, rows_failed() - before);
}

void outage_play(const dose *d)
{
    play(d, "of refusals", false);
    play(d, "without a destination", true);
}

/* SPDX-License-Identifier: MIT
 *
 * outage.c - a destination that is down for twelve hours of a simulated
 * clock: it refuses every event, or does not even open.
 */
#include "failover.h"

enum { MINUTES = 12 * 60, BEFORE = 500, EVENTS = BEFORE + MINUTES,
       KEYS = 50, STEP_MS = 1000, MINUTE_MS = 60000, MAX_TURNS = 1000,
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

/* Half of a backlog is there when it begins, and an event comes a minute. */
static void suffer(const field *f, outbox_relay_t *r)
{
    writer w;

    writer_open(&w, f->dir, 0);
    for (int i = 0; i < BEFORE; i++)
        publish(&w, i);
    for (int i = 0; i < MINUTES; i++) {
        turns(r, MINUTE_MS, EVENTS);
        publish(&w, BEFORE + i);
    }
    writer_close(&w);
}

static void report(const char *what, int64_t harm, int64_t back_ms)
{
    char text[96];

    snprintf(text, sizeof text, "%s: dead or parked at the end", what);
    row_just(text, (double)harm, "", 0);
    snprintf(text, sizeof text, "%s: tries", what);
    row_most(text, (double)far.refused, "", NO_LIMIT);
    snprintf(text, sizeof text, "%s: delivered afterwards", what);
    row_just(text, (double)far.arrived, "", EVENTS);
    snprintf(text, sizeof text, "%s: out of order", what);
    row_just(text, (double)far.disorder, "", 0);
    snprintf(text, sizeof text, "%s: simulated time to recover", what);
    row_most(text, (double)back_ms / 1000, "s", BACK_S);
}

static void play(const dose *d, const char *what, bool shut)
{
    outbox_transport tp = { .size = sizeof tp,
                            .open = outage_open,
                            .send = outage_send };
    outbox_relay_options opt = { .clock_ms = simulated_ms };
    int before = rows_failed();
    int64_t up_ms, harm;
    outbox_relay_t *r;
    field f;

    far = (place){ .clock_ms = 1000000, .down = !shut, .shut = shut };
    field_make(&f, d->seed);
    r = relay_make(f.dir, &tp, opt);
    suffer(&f, r);
    harm = field_number(&f, "SELECT (SELECT count(*) FROM outbox_dead)"
                            " + (SELECT count(*) FROM outbox_parked)");
    up_ms = far.clock_ms;
    far.down = far.shut = false;
    turns(r, MAX_TURNS * STEP_MS, EVENTS);
    report(what, harm, far.clock_ms - up_ms);
    relay_end(r);
    field_clear(&f, rows_failed() - before);
}

void outage_play(const dose *d)
{
    play(d, "12 h of refusals", false);
    play(d, "12 h without a destination", true);
}

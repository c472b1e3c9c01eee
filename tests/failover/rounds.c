/* SPDX-License-Identifier: MIT
 *
 * rounds.c - four relays share one file while two publishers write; round by
 * round one of the relays is killed, stopped for longer than its lease, or
 * told to end, and the others must take over what it had.
 */
#include <string.h>

#include "failover.h"

enum { RELAYS = 4, PUBLISHERS = 2, LEASE_MS = 400, TAKEOVER_MS = 500,
       HANDOVER_MS = 100, GIVE_UP_MS = 5000, STOP_MS = 10000 };

/* In us; raw: with the time in which the machine stood still. */
typedef struct delays {
    samples net, raw;
} delays;

typedef struct theatre {
    field f;
    child relays[RELAYS], pubs[PUBLISHERS], pulse;
    board b;
    rng rnd;
    int kills, stalls, stops, locked, troubles;
    int64_t blow_us;            /* when one was last killed or stopped, */
    bool blow_held;             /* which held up all writers */
    delays takeover, recovery, handover;
} theatre;

static int64_t trouble(theatre *t, const char *what, int run)
{
    fprintf(stderr, "violation: %s (run %d)\n", what, run);
    return ++t->troubles;
}

static void pass_time(theatre *t, int ms)
{
    int64_t end = now_ms() + ms;

    while (now_ms() < end) {
        board_follow(&t->b, NULL);
        pause_us(2000);
    }
}

/* Until all of the watched lanes have gone to others. */
static bool taken_up(theatre *t, watch *w, int ms)
{
    int64_t end = now_ms() + ms;

    board_follow(&t->b, w);
    while (w->waiting > 0 && now_ms() < end) {
        pause_us(500);
        board_follow(&t->b, w);
    }
    return w->waiting == 0;
}

static void note_delay(const theatre *t, delays *d, int64_t from_us,
                       int64_t to_us)
{
    int64_t raw = to_us > from_us ? to_us - from_us : 0;

    samples_add(&d->raw, raw);
    samples_add(&d->net, raw - pulse_halted(t->f.dir, from_us, to_us));
}

/* Lanes that had nothing to deliver until the lease was over say nothing. */
static void note_takeover(const theatre *t, delays *out, const delivery *d,
                          int64_t from_us)
{
    if (d->lane >= 0 && d->published_us < from_us + LEASE_MS * 1000)
        note_delay(t, out, from_us, d->at_us);
}

static void note_takeovers(const theatre *t, delays *out, const watch *w,
                           int64_t from_us)
{
    for (int i = 0; i < LANES; i++)
        note_takeover(t, out, &w->next[i], from_us);
}

static void play_kill(theatre *t, child *c)
{
    int64_t from_us = now_us();
    watch w;

    t->blow_us = from_us;
    t->blow_held = false;
    child_kill(c);
    board_follow(&t->b, NULL);
    board_watch(&t->b, &w, c->run);
    t->kills++;
    if (!taken_up(t, &w, LEASE_MS + GIVE_UP_MS))
        trouble(t, "nobody took the lanes of a killed relay", c->run);
    note_takeovers(t, &t->takeover, &w, from_us);
}

/* A relay that was stopped while it wrote holds SQLite's lock, and one that
 * was stopped while it read holds up the publishers' checkpoints, which hold
 * that lock: everybody waits until it goes on, and no lease can help. */
static bool lock_is_held(const theatre *t)
{
    sqlite3 *db = db_open(t->f.dir, "app.db", false, false);
    bool held;

    sqlite3_busy_timeout(db, 200);
    held = db_exec(db, "BEGIN IMMEDIATE") != SQLITE_OK;
    sqlite3_close(db);
    return held;
}

static void play_stall(theatre *t, child *c)
{
    int64_t from_us = now_us(), left;
    bool locked, taken = false;
    watch w;

    t->blow_us = from_us;
    kill(c->pid, SIGSTOP);
    if (child_wait(c, GIVE_UP_MS) != STOPPED) {
        trouble(t, "a relay does not stop", c->run);
        return;
    }
    board_follow(&t->b, NULL);
    board_watch(&t->b, &w, c->run);
    t->stalls++;
    locked = lock_is_held(t);
    if (!locked)
        taken = taken_up(t, &w, LEASE_MS + GIVE_UP_MS);
    locked = locked || (!taken && lock_is_held(t));
    t->locked += locked;
    t->blow_held = locked;
    if (!taken && !locked)
        trouble(t, "nobody took the lanes of a stopped relay", c->run);
    left = LEASE_MS + rng_below(&t->rnd, LEASE_MS) -
           (now_us() - from_us) / 1000;
    if (left > 0)
        pass_time(t, (int)left);
    kill(c->pid, SIGCONT);
    if (!locked)
        note_takeovers(t, &t->recovery, &w, from_us);
}

/* A lane of which nothing was delivered since one was struck down may have
 * been that one's, a newcomer that had come to nothing yet; it says nothing
 * when that one held up everybody. */
static void note_handovers(theatre *t, const watch *w)
{
    for (int i = 0; i < LANES; i++) {
        const delivery *d = &w->next[i];
        int64_t from_us = w->stopped_us;

        if (d->lane < 0)
            continue;
        if (w->last_us[i] <= t->blow_us) {
            if (!t->blow_held)
                note_takeover(t, &t->takeover, d, t->blow_us);
            continue;
        }
        if (d->published_us > from_us)
            from_us = d->published_us;
        note_delay(t, &t->handover, from_us, d->at_us);
    }
}

static void play_stop(theatre *t, child *c)
{
    int64_t end = now_ms() + STOP_MS;
    fate f = RUNNING;
    watch w;

    board_follow(&t->b, NULL);
    board_watch(&t->b, &w, c->run);
    kill(c->pid, SIGTERM);
    t->stops++;
    while (f == RUNNING && now_ms() < end) {
        f = child_wait(c, 1);
        board_follow(&t->b, &w);
    }
    if (f != ENDED) {
        trouble(t, "a relay does not end well", c->run);
        child_kill(c);
    }
    if (!taken_up(t, &w, GIVE_UP_MS))
        trouble(t, "nobody took the lanes of a relay that ended", c->run);
    else if (w.stopped_us == 0)
        trouble(t, "a relay ended without a word", c->run);
    else
        note_handovers(t, &w);
}

static void play_round(theatre *t)
{
    child *c = &t->relays[rng_below(&t->rnd, RELAYS)];

    switch (rng_below(&t->rnd, 3)) {
    case 0:
        play_kill(t, c);
        break;
    case 1:
        play_stall(t, c);
        break;
    default:
        play_stop(t, c);
    }
    pass_time(t, rng_below(&t->rnd, 100));
    if (c->pid == 0)
        child_start(c, "server", &t->f.job, NULL, NULL);
    /* Now and then the newcomer is left to settle down, now and then not. */
    pass_time(t, rng_below(&t->rnd, LEASE_MS));
}

/* ---- before and after ---- */

static void theatre_open(theatre *t, uint64_t seed)
{
    plan *p = &t->f.job.plan;

    memset(t, 0, sizeof *t);
    t->rnd.state = seed;
    field_make(&t->f, seed);
    p->lease_ms = LEASE_MS;
    p->keys = 64;
    p->undo = 50;
    p->async = 1;
    p->pace_us = 12000;
    p->batch = p->inflight = 1000;
    board_open(&t->b, t->f.dir);
    child_start(&t->pulse, "pulse", &t->f.job, NULL, NULL);
    for (int i = 0; i < RELAYS; i++)
        child_start(&t->relays[i], "server", &t->f.job, NULL, NULL);
    for (int i = 0; i < PUBLISHERS; i++)
        child_start(&t->pubs[i], "publisher", &t->f.job, NULL, NULL);
    pass_time(t, 3 * LEASE_MS);
}

static void theatre_close(theatre *t)
{
    for (int i = 0; i < PUBLISHERS; i++)
        t->troubles += !child_stop(&t->pubs[i], "publisher");
    for (int i = 0; i < RELAYS; i++)
        t->troubles += !child_stop(&t->relays[i], "relay");
    t->troubles += !field_drain(&t->f);
    child_kill(&t->pulse);
    board_close(&t->b);
}

static void ms_row(const char *what, const char *which, int64_t us,
                   double limit_ms)
{
    char text[96];

    snprintf(text, sizeof text, "%s, %s", what, which);
    row_most(text, (double)us / 1000, "ms", limit_ms);
}

static void ms_rows(delays *d, const char *what, double limit_ms)
{
    char which[64];

    snprintf(which, sizeof which, "longest of %zu lanes", d->net.n);
    ms_row(what, "p50", samples_at(&d->net, 500), NO_LIMIT);
    ms_row(what, "p99", samples_at(&d->net, 990), limit_ms);
    ms_row(what, which, samples_at(&d->net, 1000), limit_ms);
    ms_row(what, "with halts of the machine", samples_at(&d->raw, 1000),
           NO_LIMIT);
    samples_free(&d->net);
    samples_free(&d->raw);
}

static void report(theatre *t, const verdicts *v)
{
    row_most("relays killed", t->kills, "", NO_LIMIT);
    row_most("relays stopped for longer than their lease", t->stalls, "",
             NO_LIMIT);
    row_most("  of these while they held up SQLite's writers", t->locked, "",
             NO_LIMIT);
    row_most("relays ended cleanly", t->stops, "", NO_LIMIT);
    row_most("events", (double)v->events, "", NO_LIMIT);
    row_most("duplicates", (double)v->duplicates, "", NO_LIMIT);
    row_just("lost, invented, altered, turned around", (double)v->violations,
             "", 0);
    row_just("processes that misbehaved", t->troubles, "", 0);
    ms_rows(&t->takeover, "takeover after SIGKILL", LEASE_MS + TAKEOVER_MS);
    ms_rows(&t->recovery, "takeover after SIGSTOP", LEASE_MS + TAKEOVER_MS);
    ms_rows(&t->handover, "hand-over at a clean end", HANDOVER_MS);
}

void rounds_play(const dose *d)
{
    int before = rows_failed();
    verdicts v;
    theatre t;

    theatre_open(&t, d->seed);
    for (int i = 0; i < d->rounds && t.troubles == 0; i++)
        play_round(&t);
    theatre_close(&t);
    judge(&t.f, &v);
    report(&t, &v);
    field_clear(&t.f, rows_failed() - before);
}

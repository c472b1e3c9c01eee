/* SPDX-License-Identifier: MIT
 *
 * ending.c - what must come true when faults have stopped.
 *
 *   calm       nothing is published any more.  Everything is delivered that
 *              can be: all but events that always fail, and what waits behind
 *              them or behind dead ones.
 *   canaries   harmless events pass now and then.  So what always fails is
 *              found out, and dies.
 *   healed     nothing fails any more; people revive or discard the dead.
 *              Everything is delivered, and nothing is left in the tables.
 *
 * Each within a time that follows from the options.
 */
#include "sim.h"

#include <stdio.h>

enum { CANARIES = 320 };        /* in one phase, about: see FIRST_CANARY */

/* ---- patience -------------------------------------------------------- */

static int64_t bad_events(const sim *w, int s)
{
    int64_t n = 1;

    for (int e = 0; e < w->n_events; e++)
        n += w->events[e].views[s].fate != FATE_GOOD;
    return n;
}

static int64_t sub_patience_ms(const sim *w, int s)
{
    const sub_plan *sp = w->subs[s].plan;
    const outbox_relay_options *o = &sp->opt;
    int64_t attempt_ms = (int64_t)o->retry_max_ms + o->settle_ms +
                         32 * (int64_t)o->breaker_ms + o->poll_ms + 100;
    int64_t death_ms = 4 * (int64_t)o->lease_ms + 250;

    return 10000 + 20 * death_ms + 4 * attempt_ms +
           bad_events(w, s) * (o->max_attempts + 8) *
               (attempt_ms + (sp->killer > 0 ? death_ms : 0)) +
           ((int64_t)w->n_events + CANARIES) * (2 * sp->latency_ms + 20);
}

int64_t patience_ms(const sim *w)
{
    int64_t most = 0;

    for (int s = 0; s < w->plan.subs; s++) {
        int64_t ms = sub_patience_ms(w, s);
        most = ms > most ? ms : most;
    }
    return 2 * most;
}

/* ---- what is left ---------------------------------------------------- */

static bool is_settled(const sim *w, int s, int e)
{
    const view *v = &w->events[e].views[s];

    if (v->dead > 0)
        return w->phase != PHASE_HEALED;
    if (v->parked > 0 && w->phase == PHASE_HEALED)
        return false;
    return (v->arrivals > 0 && v->arrived_ms >= v->needed_ms) ||
           v->discarded || event_expired(w, e);
}

/* With so many the breaker never closes for long enough to find out. */
static bool is_crowd(const sim *w, int s)
{
    uint32_t n = 0;

    for (int i = 0; i < w->n_log; i++) {
        const view *v = &w->events[w->log[i]].views[s];
        n += v->fate == FATE_POISON && !is_settled(w, s, w->log[i]);
    }
    return n >= w->subs[s].plan->opt.breaker_failures;
}

/* It fails always, which nobody can know yet. */
static bool is_hopeless(const sim *w, int s, int e)
{
    const view *v = &w->events[e].views[s];

    if (w->phase == PHASE_HEALED || v->fate != FATE_POISON ||
        (is_settled(w, s, e) && v->parked == 0))
        return false;
    return w->phase == PHASE_CALM || is_crowd(w, s);
}

static bool is_blocked(const sim *w, int s, int e)
{
    int key = w->events[e].key;
    bool blocks = w->subs[s].plan->opt.on_dead == OUTBOX_DEAD_BLOCKS_KEY;

    for (int q = key >= 0 ? w->last_of_key[key] : -1; q >= 0;
         q = w->events[q].before) {
        if (blocks && w->events[q].views[s].dead > 0)
            return true;
        const view *v = &w->events[q].views[s];
        bool ahead = w->events[q].order < w->events[e].order ||
                     ((w->subs[s].replayed || v->was_dead) && v->parked > 0);
        if (q != e && ahead && event_wanted(w, s, q) && is_hopeless(w, s, q))
            return true;
    }
    return false;
}

/* At its limit of parked events a relay reads no more. */
static bool is_full(const sim *w, int s)
{
    uint32_t n = 0, most = w->subs[s].plan->opt.max_parked;

    if (most == 0 || w->phase == PHASE_HEALED)
        return false;
    for (int i = 0; i < w->n_log; i++)
        n += (uint32_t)w->events[w->log[i]].views[s].parked;
    return n >= most;
}

static bool is_left(const sim *w, int s, int e)
{
    return event_wanted(w, s, e) && !is_settled(w, s, e) &&
           !is_hopeless(w, s, e) && !is_blocked(w, s, e);
}

/* In the end every cursor is where the log ends. */
static bool is_behind(const sim *w, int s, char *text, size_t size)
{
    int64_t end = w->n_log > 0
                ? w->events[w->log[w->n_log - 1]].position : 0;

    for (int i = 0; i < w->plan.lanes; i++) {
        if (w->phase != PHASE_HEALED ||
            w->subs[s].lanes[i].position >= end)
            continue;
        snprintf(text, size, "lane %d of subscription %d is at %lld, the log "
                             "ends at %lld", i, s,
                 (long long)w->subs[s].lanes[i].position, (long long)end);
        return true;
    }
    return false;
}

bool unresolved(const sim *w, char *text, size_t size)
{
    bool served = false;

    for (int s = 0; s < w->plan.subs; s++) {
        const subscriber *at = &w->subs[s];
        if (at->gone)
            continue;
        served = true;
        if (!at->exists) {
            snprintf(text, size, "nobody has made subscription %d", s);
            return true;
        }
        if (is_behind(w, s, text, size))
            return true;
        for (int i = at->first; i < w->n_log; i++) {
            int e = w->log[i];
            const view *v = &w->events[e].views[s];
            if (!is_left(w, s, e) || is_full(w, s))
                continue;
            snprintf(text, size, "subscription %d has not had event %d, key "
                                 "%d, lane %u: parked %d, dead %d, fate %d",
                     s, e, w->events[e].key, (unsigned)w->events[e].lane,
                     v->parked, v->dead, v->fate);
            return true;
        }
    }
    snprintf(text, size, "%d scheduled events are not in the log",
             w->n_scheduled);
    return served && w->n_scheduled > 0;
}

/* ---- when all is done ------------------------------------------------ */

/* History that is not kept goes. */
bool log_is_long(const sim *w, char *text, size_t size)
{
    int64_t left = mem_count(w->db, MEM_LOG);
    bool served = false;

    for (int s = 0; s < w->plan.subs; s++) {
        if (w->subs[s].gone || w->subs[s].plan->opt.keep_ms > 0)
            return false;       /* or made again, before all had noticed */
        served = true;
    }
    snprintf(text, size, "%lld events are still in the log", (long long)left);
    return served && left > 1;
}

void judge_ending(sim *w)
{
    for (int s = 0; s < w->plan.subs; s++) {
        const subscriber *at = &w->subs[s];
        char name[2] = { (char)('a' + s), '\0' };
        outbox_stats st = { .size = sizeof st };
        if (at->gone)
            continue;
        int rc = outbox_subscription_stats(w->admin, name, &st, NULL);
        if (rc != OUTBOX_OK || st.lag > 0 || st.parked > 0 || st.dead > 0)
            violation(w, "rest", "subscription %d: %d, lag %llu, parked "
                                 "%llu, dead %llu", s, rc,
                      (unsigned long long)st.lag,
                      (unsigned long long)st.parked,
                      (unsigned long long)st.dead);
    }
}

/* SPDX-License-Identifier: MIT
 *
 * plan.c - what a seed is about.
 *
 * Not everything at once: each seed draws which faults it has at all and how
 * often, so that rare meetings of two of them are not drowned by the rest.
 * Few lanes, few keys, small windows and short times make corners likely.
 */
#include "sim.h"

#include <stdio.h>
#include <string.h>

const char *const sim_topics[3] = { "orders", "billing.a", "billing.b" };

static const struct {
    const char *text;
    unsigned    topics;         /* bits of sim_topics */
} filters[] = {
    { NULL, 7 },
    { "orders", 1 },
    { "billing.*", 6 },
    { "orders,billing.b", 5 },
};

bool plan_matches(const sub_plan *s, int topic)
{
    return (filters[s->filter].topics >> topic & 1) != 0;
}

/* Small values as likely as large ones. */
static uint32_t spread(rng *g, uint32_t least, uint32_t most)
{
    uint32_t top = least;

    while (top < most && rng_chance(g, 600))
        top = top * 2 + 1;
    return (uint32_t)rng_between(g, least, top < most ? top : most);
}

static uint32_t sometimes(rng *g, uint32_t permille, uint32_t most)
{
    return rng_chance(g, permille) ? 1 + rng_below(g, most) : 0;
}

/* Each bit of set with the same chance. */
static uint32_t some_of(rng *g, uint32_t set, uint32_t permille)
{
    uint32_t out = 0;

    for (uint32_t bit = 1; bit != 0; bit <<= 1) {
        if ((set & bit) != 0 && rng_chance(g, permille))
            out |= bit;
    }
    return out;
}

/* ---- a subscription -------------------------------------------------- */

static void plan_window(outbox_relay_options *o, rng *g)
{
    o->batch = spread(g, 1, 100);
    o->max_inflight = rng_chance(g, 150) ? spread(g, 1, 8)
                                         : 8 + rng_below(g, 120);
    o->max_inflight_bytes = 4096u << rng_below(g, 5);
    if (rng_chance(g, 100))
        o->max_parked = 1 + rng_below(g, 12);
}

static void plan_times(outbox_relay_options *o, uint32_t lease_ms, rng *g)
{
    o->lease_ms = lease_ms + rng_below(g, lease_ms);
    o->flush_ms = spread(g, 1, o->lease_ms < 100 ? o->lease_ms : 100);
    o->poll_ms = spread(g, o->lease_ms / 12, 1000);
    o->settle_ms = spread(g, 30, 3000);
    o->retry_min_ms = spread(g, 1, 100);
    o->retry_max_ms = o->retry_min_ms + spread(g, 1, 2000);
    o->breaker_ms = spread(g, 5, 500);
}

static void plan_destination(sub_plan *s, rng *g)
{
    s->async = rng_chance(g, 600);
    if (rng_chance(g, 300))
        s->flags = OUTBOX_ORDERED;
    s->polled = s->async && rng_chance(g, 300);
    s->latency_ms = s->async ? spread(g, 1, s->opt.settle_ms) : 0;
    s->noise = sometimes(g, 300, 120);
    s->doubt = s->noise > 0 ? sometimes(g, 500, 300) : 0;
    s->lost = s->async ? sometimes(g, 300, 60) : 0;
    s->twice = s->async ? sometimes(g, 300, 200) : 0;
    s->early = sometimes(g, 300, 300);
    s->no_open = sometimes(g, 150, 600);
    s->flaky = sometimes(g, 400, 200);
    s->poison = sometimes(g, 350, 80);
    s->reject = sometimes(g, 350, 80);
    s->killer = sometimes(g, 200, 30);
}

static void plan_sub(sub_plan *s, const plan *p, rng *g)
{
    outbox_relay_options *o = &s->opt;

    o->size = sizeof *o;
    plan_window(o, g);
    plan_times(o, p->lease_ms, g);
    o->max_attempts = 1 + rng_below(g, 5);
    o->breaker_failures = rng_chance(g, 100) ? 1 : 2 + rng_below(g, 9);
    o->on_dead = rng_chance(g, 500) ? OUTBOX_DEAD_SKIPS
                                    : OUTBOX_DEAD_BLOCKS_KEY;
    o->start = rng_chance(g, 200) ? OUTBOX_START_NOW : OUTBOX_START_OLDEST;
    if (rng_chance(g, 400) || (p->people & DO_REPLAY))
        o->keep_ms = spread(g, 10, 10000);
    if (p->publish & PUB_TOPICS)
        s->filter = (int)rng_below(g, 4);
    o->topics = filters[s->filter].text;
    plan_destination(s, g);
    s->relays = 1 + (rng_chance(g, 450) ? (int)rng_below(g, 3) : 0);
    for (int i = 0; i < s->relays; i++)
        s->lanes[i] = i > 0 ? sometimes(g, 200, (uint32_t)p->lanes) : 0;
}

/* ---- the whole ------------------------------------------------------- */

static void plan_outages(plan *p, rng *g)
{
    for (int i = 0; i < p->subs; i++) {
        sub_plan *s = &p->sub[i];
        if (!rng_chance(g, 250))
            continue;
        s->down_ms = rng_between(g, 0, p->chaos_ms * 3 / 4);
        s->up_ms = s->down_ms + rng_between(g, 1, p->chaos_ms);
        if (s->up_ms > p->chaos_ms)
            s->up_ms = p->chaos_ms;
    }
}

/* A destination that is down for hours, and little else: long leases and
 * rare steps, or a run would take too long. */
static void plan_hours(plan *p, rng *g)
{
    p->chaos_ms = rng_between(g, 3600000, 4 * 3600000);
    p->faults &= FAULT_CRASH | FAULT_STOP | FAULT_ERRORS;
    p->crash_ms = (uint32_t)(p->chaos_ms / 5);
    p->gap_ms = p->chaos_ms / (4 + rng_below(g, 20));
    p->publish &= ~(uint32_t)(PUB_DUE | PUB_EXPIRES | PUB_HOLD);
    p->sleeps = false;
    for (int i = 0; i < p->subs; i++) {
        sub_plan *s = &p->sub[i];
        s->opt.lease_ms = 60000 + rng_below(g, 240000);
        s->opt.breaker_ms = 1000 + rng_below(g, 60000);
        s->opt.retry_min_ms = 1000;
        s->opt.retry_max_ms = 1000 + rng_below(g, 600000);
        s->killer = 0;
        s->down_ms = rng_between(g, 0, p->chaos_ms / 8);
        s->up_ms = p->chaos_ms - rng_between(g, 0, p->chaos_ms / 8);
    }
}

static void plan_calm(plan *p)
{
    p->faults = 0;
    p->people = 0;
    for (int i = 0; i < p->subs; i++) {
        sub_plan *s = &p->sub[i];
        s->noise = s->lost = s->twice = s->no_open = 0;
        s->down_ms = s->up_ms = 0;
    }
}

static void plan_sizes(plan *p, rng *g)
{
    p->lanes = 1 + (int)rng_below(g, rng_chance(g, 500) ? 3 : SIM_LANES);
    p->keys = (int)spread(g, 1, SIM_KEYS);
    p->publishers = 1 + (int)rng_below(g, SIM_PUBLISHERS);
    p->events = 10 + (int)rng_below(g, rng_chance(g, 150) ? 200 : 60);
    p->subs = rng_chance(g, 350) ? 2 + (int)rng_below(g, 2) : 1;
    p->keyless = p->publish & PUB_KEYLESS ? rng_below(g, 900) : 0;
    p->max_backlog = p->publish & PUB_BACKLOG ? 5 + rng_below(g, 40) : 0;
}

static void plan_limit_relays(plan *p)
{
    int left = SIM_RELAYS - p->subs;    /* one each at least */

    for (int i = 0; i < p->subs; i++) {
        sub_plan *s = &p->sub[i];
        if (s->relays - 1 > left)
            s->relays = 1 + left;
        left -= s->relays - 1;
    }
}

void plan_make(plan *p, rng *g)
{
    memset(p, 0, sizeof *p);
    p->faults = some_of(g, 255, 350);
    p->publish = some_of(g, 8191, 350);
    p->people = rng_chance(g, 400) ? some_of(g, 31, 400) : 0;
    if (!rng_chance(g, 150))
        p->people &= ~(uint32_t)DO_UNSUBSCRIBE;
    if (p->publish & (PUB_DUE | PUB_EXPIRES | PUB_DEDUP) ||
        p->people & DO_REPLAY)
        p->faults &= ~(uint32_t)FAULT_SKEW;
    plan_sizes(p, g);
    p->lease_ms = spread(g, 40, 1500);
    for (int i = 0; i < p->subs; i++)
        plan_sub(&p->sub[i], p, g);
    p->chaos_ms = 50 + rng_between(g, 4, 16) * p->lease_ms;
    if (p->chaos_ms > 8000)
        p->chaos_ms = 8000;
    p->gap_ms = p->chaos_ms * p->publishers * 3 / p->events + 1;
    p->crash_ms = (uint32_t)rng_between(g, p->lease_ms / 2, 6 * p->lease_ms);
    p->sleeps = rng_chance(g, 500);
    p->notices = rng_chance(g, 700);
    p->poked = rng_chance(g, 500);
    p->heals = rng_chance(g, 600);
    plan_outages(p, g);
    if (rng_chance(g, 12))
        plan_hours(p, g);
    else if (rng_chance(g, 60))
        plan_calm(p);
    plan_limit_relays(p);
}

/* ---- leaving things out, to find out which one it takes -------------- */

typedef struct part {
    const char *name;
    uint32_t    faults, publish, people;
} part;

static const part parts[] = {
    { "crash", FAULT_CRASH, 0, 0 },
    { "points", FAULT_POINTS, 0, 0 },
    { "stop", FAULT_STOP, 0, 0 },
    { "slow", FAULT_SLOW, 0, 0 },
    { "clock", FAULT_CLOCK, 0, 0 },
    { "errors", FAULT_ERRORS, 0, 0 },
    { "answers", FAULT_ANSWERS, 0, 0 },
    { "skew", FAULT_SKEW, 0, 0 },
    { "due", 0, PUB_DUE, 0 },
    { "expires", 0, PUB_EXPIRES, 0 },
    { "hold", 0, PUB_HOLD, 0 },
    { "pause", 0, 0, DO_PAUSE },
    { "replay", 0, 0, DO_REPLAY },
    { "revive", 0, 0, DO_REVIVE },
    { "discard", 0, 0, DO_DISCARD },
    { "unsubscribe", 0, 0, DO_UNSUBSCRIBE },
    { "ordered", 0, 0, 0 },
    { "async", 0, 0, 0 },
    { "noise", 0, 0, 0 },
    { "lost", 0, 0, 0 },
    { "flaky", 0, 0, 0 },
    { "poison", 0, 0, 0 },
    { "reject", 0, 0, 0 },
    { "killer", 0, 0, 0 },
    { "outage", 0, 0, 0 },
    { "window", 0, 0, 0 },
    { "parked", 0, 0, 0 },
};

static void sub_without(sub_plan *s, const char *name)
{
    const struct { const char *name; uint32_t *value; } rates[] = {
        { "noise", &s->noise }, { "lost", &s->lost }, { "flaky", &s->flaky },
        { "poison", &s->poison }, { "reject", &s->reject },
        { "killer", &s->killer }, { "ordered", &s->flags },
        { "parked", &s->opt.max_parked },
    };

    for (size_t i = 0; i < OB_COUNT(rates); i++) {
        if (strcmp(name, rates[i].name) == 0)
            *rates[i].value = 0;
    }
    if (strcmp(name, "async") == 0)
        s->async = s->polled = false;
    if (strcmp(name, "outage") == 0)
        s->down_ms = s->up_ms = 0;
    if (strcmp(name, "window") == 0) {
        s->opt.max_inflight = 2 * SIM_EVENTS;
        s->opt.max_inflight_bytes = 1 << 20;
    }
}

bool plan_part(const char *name)
{
    for (size_t i = 0; i < OB_COUNT(parts); i++) {
        if (strcmp(parts[i].name, name) == 0)
            return true;
    }
    return false;
}

void plan_without(plan *p, const char *name)
{
    for (size_t i = 0; i < OB_COUNT(parts); i++) {
        if (strcmp(parts[i].name, name) != 0)
            continue;
        p->faults &= ~parts[i].faults;
        p->publish &= ~parts[i].publish;
        p->people &= ~parts[i].people;
    }
    for (int i = 0; i < p->subs; i++)
        sub_without(&p->sub[i], name);
}

/* ---- for people ------------------------------------------------------ */

static void print_sub(const sub_plan *s, int nth)
{
    const outbox_relay_options *o = &s->opt;

    printf("subscription %d: %d relays, %s%s%s, topics %s, %s, %s, keep %lld\n"
           "    batch %u, window %u (%zu bytes), parked %u, lease %u, flush "
           "%u, poll %u, settle %u\n"
           "    retry %u to %u, attempts %u, breaker %u and %u ms, latency "
           "%u\n"
           "    noise %u, doubt %u, lost %u, twice %u, early %u, no open %u, "
           "flaky %u, poison %u, reject %u, killer %u, down %lld to %lld\n",
           nth, s->relays, s->async ? "async" : "sync",
           s->flags != 0 ? ", ordered" : "", s->polled ? ", polled" : "",
           o->topics != NULL ? o->topics : "all",
           o->on_dead == OUTBOX_DEAD_SKIPS ? "skips" : "blocks",
           o->start == OUTBOX_START_NOW ? "from now" : "from the oldest",
           (long long)o->keep_ms, o->batch, o->max_inflight,
           o->max_inflight_bytes, o->max_parked, o->lease_ms, o->flush_ms,
           o->poll_ms, o->settle_ms, o->retry_min_ms, o->retry_max_ms,
           o->max_attempts, o->breaker_failures, o->breaker_ms,
           s->latency_ms, s->noise, s->doubt, s->lost, s->twice, s->early,
           s->no_open, s->flaky, s->poison, s->reject, s->killer,
           (long long)s->down_ms, (long long)s->up_ms);
}

void plan_print(const plan *p)
{
    printf("faults %#x, publishing %#x, people %#x, %d lanes, %d keys, %d "
           "publishers, %d events, chaos for %lld ms, crashes each %u ms\n"
           "steps %s, commits %s noticed, publishers %s\n", p->faults,
           p->publish, p->people, p->lanes, p->keys, p->publishers, p->events,
           (long long)p->chaos_ms, p->crash_ms,
           p->sleeps ? "sleep" : "do not sleep", p->notices ? "are" : "not",
           p->poked ? "in the same process" : "elsewhere");
    for (int i = 0; i < p->subs; i++)
        print_sub(&p->sub[i], i);
}

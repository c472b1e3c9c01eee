/* SPDX-License-Identifier: MIT
 *
 * plan.c - chance, and the knobs of a round as text on a command line.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "torture.h"

/* ---- chance ---- */

uint64_t rng_next(rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int rng_below(rng *r, int n)
{
    return n > 0 ? (int)(rng_next(r) % (uint64_t)n) : 0;
}

bool rng_permille(rng *r, int n)
{
    return rng_below(r, 1000) < n;
}

void rng_uuid(rng *r, char out[ID_BYTES])
{
    uint64_t a = rng_next(r), b = rng_next(r);

    snprintf(out, ID_BYTES, "%08x-%04x-4%03x-8%03x-%012llx",
             (unsigned)(a >> 32), (unsigned)(a >> 16 & 0xffff),
             (unsigned)(a & 0xfff), (unsigned)(b >> 48 & 0xfff),
             (unsigned long long)(b & 0xffffffffffffu));
}

/* ---- plans ---- */

static const struct knob {
    const char *name;
    size_t at;
    int value;          /* by default */
} knobs[] = {
    { "full", offsetof(plan, full), 0 },
    { "durable", offsetof(plan, durable), 0 },
    { "pubs", offsetof(plan, pubs), 1 },
    { "embed", offsetof(plan, embed), 0 },
    { "relays", offsetof(plan, relays), 1 },
    { "sinks", offsetof(plan, sinks), 0 },
    { "async", offsetof(plan, async), 0 },
    { "ordered", offsetof(plan, ordered), 0 },
    { "step", offsetof(plan, step), 0 },
    { "drain", offsetof(plan, drain), 0 },
    { "count", offsetof(plan, count), 0 },
    { "keys", offsetof(plan, keys), 10 },
    { "pace_us", offsetof(plan, pace_us), 0 },
    { "undo", offsetof(plan, undo), 0 },
    { "retry", offsetof(plan, retry), 0 },
    { "reject", offsetof(plan, reject), 0 },
    { "keep_ms", offsetof(plan, keep_ms), 0 },
    { "autockpt", offsetof(plan, autockpt), 0 },
    { "lease_ms", offsetof(plan, lease_ms), 120 },
    { "flush_ms", offsetof(plan, flush_ms), 20 },
    { "batch", offsetof(plan, batch), 100 },
    { "inflight", offsetof(plan, inflight), 100 },
};

enum { KNOBS = sizeof knobs / sizeof knobs[0] };

static int *knob_of(plan *p, const struct knob *k)
{
    return (int *)(void *)((char *)p + k->at);
}

void plan_default(plan *p)
{
    for (int i = 0; i < KNOBS; i++)
        *knob_of(p, &knobs[i]) = knobs[i].value;
}

void plan_random(plan *p, rng *r)
{
    static const int sizes[] = { 1, 3, 20, 100, 1000 };

    plan_default(p);
    p->full = rng_below(r, 2);
    p->durable = rng_below(r, 2);
    p->pubs = 1 + rng_below(r, 2);
    p->embed = rng_below(r, 4) == 0;
    p->relays = 1 + rng_below(r, 2);
    p->sinks = rng_below(r, 2);
    p->async = rng_below(r, 2);
    p->ordered = rng_below(r, 3) == 0;
    p->step = rng_below(r, 2);
    p->keys = 1 + rng_below(r, rng_below(r, 2) ? 4 : 40);
    p->pace_us = 500 + rng_below(r, 3000);
    p->undo = 100 + rng_below(r, 300);
    p->retry = rng_below(r, 2) ? 0 : rng_below(r, 60);
    p->reject = rng_below(r, 3) ? 0 : 10;
    p->keep_ms = rng_below(r, 3) ? 0 : rng_below(r, 500);
    /* See db_open(): SQLite's own default is safe with one writer that
     * checkpoints, so one publisher has it now and then. */
    p->autockpt = p->pubs == 1 && rng_below(r, 2);
    p->lease_ms = 100 + rng_below(r, 60);
    p->flush_ms = 1 + rng_below(r, 50);
    p->batch = sizes[1 + rng_below(r, 4)];
    p->inflight = sizes[rng_below(r, 5)];
}

void plan_format(const plan *p, char out[PLAN_BYTES])
{
    size_t used = 0;
    plan copy = *p;

    for (int i = 0; i < KNOBS && used < PLAN_BYTES; i++)
        used += (size_t)snprintf(out + used, PLAN_BYTES - used, "%s%s=%d",
                                 i ? " " : "", knobs[i].name,
                                 *knob_of(&copy, &knobs[i]));
}

bool plan_parse(plan *p, const char *text)
{
    char copy[PLAN_BYTES], *rest = NULL;

    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok_r(copy, " ", &rest); word != NULL;
         word = strtok_r(NULL, " ", &rest)) {
        size_t len = strcspn(word, "=");
        int i = 0;

        while (i < KNOBS && (strncmp(word, knobs[i].name, len) != 0 ||
                             knobs[i].name[len] != '\0'))
            i++;
        if (i == KNOBS || word[len] != '=')
            return false;
        *knob_of(p, &knobs[i]) = atoi(word + len + 1);
    }
    return true;
}

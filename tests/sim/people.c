/* SPDX-License-Identifier: MIT
 *
 * people.c - a person at the controls: pause, replay, revive, discard,
 * unsubscribe, while everything runs.
 */
#include "sim.h"

#include <string.h>

static void name_of(int s, char name[2])
{
    name[0] = (char)('a' + s);
    name[1] = '\0';
}

static void set_paused(sim *w, int s, bool paused)
{
    char name[2];

    name_of(s, name);
    int rc = outbox_pause(w->admin, name, paused, NULL);
    record(w, M_PERSON, DO_PAUSE, s, paused, rc);
    if (rc != OUTBOX_OK)
        return;
    if (paused && !w->subs[s].paused) {
        w->subs[s].paused_ms = w->now;
        w->subs[s].paused_tick = ++w->ticks;
        tally(w, T_PAUSED);
    }
    w->subs[s].paused = paused;
}

static void replay(sim *w, int s)
{
    int64_t since_ms = wall_ms(w) - rng_below(&w->chance, 3000);
    char name[2];

    name_of(s, name);
    int rc = outbox_replay(w->admin, name, since_ms, NULL);
    record(w, M_PERSON, DO_REPLAY, s, since_ms, rc);
    if (rc != OUTBOX_OK)
        return;
    tally(w, T_REPLAYED);
    judge_replayed(w, s, since_ms);
}

/* One of the dead, or -1. */
static int some_dead(sim *w, int s)
{
    int n = 0, chosen = -1;

    for (int i = 0; i < w->n_log; i++) {
        if (w->events[w->log[i]].views[s].dead > 0 &&
            rng_below(&w->chance, (uint32_t)++n) == 0)
            chosen = w->log[i];
    }
    return chosen;
}

static int revive(sim *w, int s, int e)
{
    char name[2];

    name_of(s, name);
    int rc = outbox_dead_revive(w->admin, name,
                                e < 0 ? NULL : w->events[e].text, NULL);
    record(w, M_PERSON, DO_REVIVE, s, e, rc);
    if (rc >= 0)
        judge_revived(w, s, e, rc);
    return rc;
}

static int discard(sim *w, int s, int e)
{
    char name[2];

    name_of(s, name);
    int rc = outbox_dead_discard(w->admin, name,
                                 e < 0 ? NULL : w->events[e].text, NULL);
    record(w, M_PERSON, DO_DISCARD, s, e, rc);
    if (rc >= 0)
        judge_discarded(w, s, e, rc);
    return rc;
}

static void unsubscribe(sim *w, int s)
{
    char name[2];

    name_of(s, name);
    int rc = outbox_unsubscribe(w->admin, name, NULL);
    record(w, M_PERSON, DO_UNSUBSCRIBE, s, 0, rc);
    if (rc != OUTBOX_OK)
        return;
    tally(w, T_UNSUBSCRIBED);
    w->subs[s].gone = true;
}

static void act(sim *w, int s, uint32_t what)
{
    int e = rng_chance(&w->chance, 300) ? -1 : some_dead(w, s);
    bool all = rng_chance(&w->chance, 200);

    if (what == DO_PAUSE)
        set_paused(w, s, !w->subs[s].paused);
    else if (what == DO_REPLAY)
        replay(w, s);
    else if (what == DO_REVIVE && (e >= 0 || all))
        revive(w, s, e);
    else if (what == DO_DISCARD && (e >= 0 || all))
        discard(w, s, e);
    else if (what == DO_UNSUBSCRIBE && all)
        unsubscribe(w, s);
}

void person_run(sim *w)
{
    int s = (int)rng_below(&w->chance, (uint32_t)w->plan.subs);
    uint32_t what = 1u << rng_below(&w->chance, 5);

    w->person_ms = w->now + rng_between(&w->chance, 1, w->plan.chaos_ms / 12);
    if (!w->chaos) {
        w->person_ms = INT64_MAX;
        return;
    }
    if ((w->plan.people & what) != 0 && w->subs[s].exists && !w->subs[s].gone)
        act(w, s, what);
}

void people_unpause(sim *w)
{
    for (int s = 0; s < w->plan.subs; s++) {
        if (w->subs[s].paused && !w->subs[s].gone)
            set_paused(w, s, false);
    }
}

bool people_end(sim *w)
{
    bool some = false;

    for (int s = 0; s < w->plan.subs; s++) {
        if (!w->subs[s].exists || w->subs[s].gone || some_dead(w, s) < 0)
            continue;
        some = true;
        if (w->plan.heals)
            revive(w, s, -1);
        else
            discard(w, s, -1);
    }
    return some;
}

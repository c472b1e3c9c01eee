/* SPDX-License-Identifier: MIT
 *
 * world.c - one run: who goes on next, when faults happen, and when it ends.
 */
#include "relay.h"
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Canaries: 300 in a phase, each gap a bit longer than the one before. */
enum { MOST_TURNS = 2000000, FIRST_CANARY = 6600, GAP_GROWS = 64 };

static const int64_t EPOCH_MS = 1700000000000;

int64_t wall_ms(const sim *w)
{
    return EPOCH_MS + w->now + w->skew;
}

process *process_of(sim *w, uint32_t incarnation)
{
    for (int i = 0; i < w->n_processes; i++) {
        if (incarnation != 0 && w->processes[i].incarnation == incarnation)
            return &w->processes[i];
    }
    return NULL;
}

/* ---- faults from outside --------------------------------------------- */

static void skew(sim *w)
{
    static const int64_t most = INT64_C(366) * 86400000;

    w->skew = rng_chance(&w->chance, 500)
            ? 0 : rng_between(&w->chance, -most, most);
    mem_set_now(w->db, wall_ms(w));
}

static void chaos_run(sim *w)
{
    process *p = &w->processes[rng_below(&w->chance,
                                         (uint32_t)w->n_processes)];
    uint32_t what = 1u << rng_below(&w->chance, 8);

    w->chaos_ms = w->now + rng_between(&w->chance, 1,
                                       2 * (int64_t)w->plan.crash_ms / 3 + 1);
    if (!w->chaos) {
        w->chaos_ms = INT64_MAX;
        return;
    }
    what &= w->plan.faults;
    if (what == FAULT_SKEW)
        skew(w);
    if (p->incarnation == 0 || p->leaving || p->dying)
        return;
    if (what == FAULT_CRASH) {
        process_crash(p);
    } else if (what == FAULT_STOP) {
        p->leaving = true;
        process_wake(p);
    }
}

/* ---- phases ---------------------------------------------------------- */

static void phase_begin(sim *w, int phase)
{
    int64_t patience = patience_ms(w);

    w->phase = phase;
    w->phase_ms = w->now + patience;
    w->director_ms = w->now + 1;
    w->director_gap_ms = 2;
    w->canary_ms = phase == PHASE_CANARIES ? w->now : INT64_MAX;
    w->canary_gap_ms = patience / FIRST_CANARY + 1;
    record(w, M_PHASE, phase, patience, 0, 0);
}

static void calm(sim *w)
{
    w->chaos = false;
    phase_begin(w, PHASE_CALM);
}

/* People insist, when the database is busy. */
static bool settled(sim *w, char *text, size_t size)
{
    people_unpause(w);
    if (!publishers_rest(w)) {
        snprintf(text, size, "a publisher goes on");
        return false;
    }
    if (w->phase == PHASE_HEALED && people_end(w)) {
        snprintf(text, size, "events go on dying");
        return false;
    }
    if (unresolved(w, text, size))
        return false;
    return w->phase != PHASE_HEALED || !log_is_long(w, text, size);
}

static void stop_all(sim *w)
{
    w->stopping = true;
    for (int i = 0; i < w->n_processes; i++) {
        process *p = &w->processes[i];
        p->leaving = true;
        process_wake(p);
        if (p->incarnation == 0)
            p->wake_ms = INT64_MAX;
    }
}

static bool all_stopped(sim *w)
{
    for (int i = 0; i < w->n_processes; i++) {
        if (w->processes[i].incarnation != 0)
            return false;
    }
    return true;
}

static void stopping_run(sim *w)
{
    if (all_stopped(w)) {
        judge_ending(w);
        w->over = true;
    } else if (w->now > w->phase_ms) {
        violation(w, "stuck", "a relay does not stop");
    }
    w->director_ms = w->now + 20;
}

static void director_run(sim *w)
{
    char text[SIM_TEXT] = "";

    if (w->phase == PHASE_CHAOS) {
        calm(w);
        return;
    }
    if (w->stopping) {
        stopping_run(w);
        return;
    }
    if (settled(w, text, sizeof text)) {
        if (w->phase == PHASE_HEALED) {
            stop_all(w);
            return;
        }
        w->healed = w->phase == PHASE_CANARIES;
        phase_begin(w, w->phase + 1);
    } else if (w->now > w->phase_ms) {
        violation(w, "stuck", "phase %d: %s", w->phase, text);
    }
    if (w->now >= w->canary_ms) {
        publish_canary(w);
        w->canary_ms = w->now + w->canary_gap_ms;
        w->canary_gap_ms += w->canary_gap_ms / GAP_GROWS + 1;
    }
    if (w->director_gap_ms < w->canary_gap_ms / 4)
        w->director_gap_ms += w->director_gap_ms / 2;
    w->director_ms = w->now + w->director_gap_ms;
    if (w->director_ms > w->canary_ms)
        w->director_ms = w->canary_ms;
}

/* ---- who is next ----------------------------------------------------- */

/* Sleepers are woken by their relay's bell, and by commits. */
static void wake_sleepers(sim *w)
{
    for (int i = 0; i < w->n_processes; i++) {
        process *p = &w->processes[i];
        if (!p->asleep || p->relay == NULL || p->wake_ms <= w->now)
            continue;
        if (atomic_load(&p->relay->waker.bits) != 0 ||
            (w->plan.notices && p->commits != w->commits))
            p->wake_ms = w->now;
    }
}

typedef struct turn {
    int64_t ms;
    int     who;
} turn;

static void offer(sim *w, turn *best, int64_t ms, int who, int *ties)
{
    if (ms > best->ms)
        return;
    *ties = ms == best->ms ? *ties + 1 : 1;
    if (rng_below(&w->chance, (uint32_t)*ties) != 0)
        return;
    *best = (turn){ ms, who };
}

enum { NETWORK = 100, CHAOS, PERSON, DIRECTOR, PUBLISHER = 200 };

static turn next_turn(sim *w)
{
    turn best = { INT64_MAX, -1 };
    int ties = 0;

    for (int i = 0; i < w->n_processes; i++)
        offer(w, &best, w->processes[i].wake_ms, i, &ties);
    for (int i = 0; i < w->plan.publishers; i++)
        offer(w, &best, w->publishers[i].wake_ms, PUBLISHER + i, &ties);
    offer(w, &best, w->network_ms, NETWORK, &ties);
    offer(w, &best, w->chaos_ms, CHAOS, &ties);
    offer(w, &best, w->person_ms, PERSON, &ties);
    offer(w, &best, w->director_ms, DIRECTOR, &ties);
    return best;
}

static void take_turn(sim *w, int who)
{
    if (who >= PUBLISHER)
        publisher_run(&w->publishers[who - PUBLISHER]);
    else if (who == NETWORK)
        network_run(w);
    else if (who == CHAOS)
        chaos_run(w);
    else if (who == PERSON)
        person_run(w);
    else if (who == DIRECTOR)
        director_run(w);
    else
        process_run(&w->processes[who]);
}

static void loop(sim *w)
{
    for (long turns = 0; !w->over; turns++) {
        wake_sleepers(w);
        turn next = next_turn(w);
        if (next.ms > w->now) {
            w->now = next.ms;
            mem_set_now(w->db, wall_ms(w));
        }
        take_turn(w, next.who);
        if (turns > MOST_TURNS)
            violation(w, "spins", "%d turns, and no end", MOST_TURNS);
    }
}

/* ---- a run ----------------------------------------------------------- */

static void open_database(sim *w)
{
    outbox_options opt = { .size = sizeof opt,
                           .lanes = (uint32_t)w->plan.lanes };
    outbox_error err;

    w->db = mem_db_new();
    w->admin_conn = w->db != NULL ? mem_conn_new(w->db) : NULL;
    if (w->admin_conn == NULL)
        abort();
    mem_set_now(w->db, wall_ms(w));
    if (mem_outbox_open(&w->admin, w->admin_conn, &opt, &err) != OUTBOX_OK ||
        outbox_migrate(w->admin, &err) != OUTBOX_OK)
        violation(w, "setup", "no tables: %s", err.text);
}

static void begin(sim *w, uint64_t seed)
{
    w->seed = seed;
    w->chance.state = seed * 0xd1342543de82ef95u + 1;
    plan_make(&w->plan, &w->chance);
    for (const char *const *name = w->without; name != NULL && *name != NULL;
         name++)
        plan_without(&w->plan, *name);
    if (w->verbose)
        plan_print(&w->plan);
    w->now = w->skew = 0;
    w->chaos = true;
    w->healed = w->over = w->stopping = false;
    w->n_events = w->n_log = w->trimmed = w->n_scheduled = w->n_copies = 0;
    w->commits = w->incarnations = 0;
    w->ticks = w->sends = 0;
    w->canaries = 0;
    w->hash = seed;
    w->rule[0] = w->text[0] = '\0';
    memset(w->dedup, 0, sizeof w->dedup);
    memset(w->subs, 0, sizeof w->subs);
    for (int i = 0; i < SIM_KEYS; i++)
        w->last_of_key[i] = -1;
    open_database(w);
    w->n_processes = 0;
    for (int s = 0; s < w->plan.subs; s++) {
        w->subs[s].plan = &w->plan.sub[s];
        for (int i = 0; i < w->plan.sub[s].relays; i++)
            process_init(w, s, i);
    }
    for (int i = 0; i < w->plan.publishers; i++)
        publisher_init(w, i);
    w->network_ms = w->canary_ms = INT64_MAX;
    w->phase = PHASE_CHAOS;
    w->director_ms = w->plan.chaos_ms;
    w->chaos_ms = w->plan.crash_ms;
    w->person_ms = w->plan.people != 0 ? 1 : INT64_MAX;
}

static void finish(sim *w)
{
    for (int i = 0; i < w->n_processes; i++)
        process_free(&w->processes[i]);
    for (int i = 0; i < w->plan.publishers; i++)
        publisher_free(&w->publishers[i]);
    outbox_close(w->admin);
    mem_conn_free(w->admin_conn);
    mem_db_free(w->db);
    record(w, M_END, w->n_events, w->n_log, 0, 0);
}

bool sim_run(sim *w, uint64_t seed)
{
    begin(w, seed);
    loop(w);
    finish(w);
    for (int s = 0; s < w->plan.subs; s++) {
        if (w->plan.sub[s].up_ms == 0)
            continue;
        tally(w, w->plan.chaos_ms > 3600000 ? T_HOURS : T_OUTAGES);
    }
    return w->rule[0] == '\0';
}

sim *sim_new(void)
{
    return calloc(1, sizeof(sim));
}

void sim_free(sim *w)
{
    for (int i = 0; i < SIM_RELAYS; i++)
        coro_free(w->processes[i].co);
    for (int i = 0; i < SIM_PUBLISHERS; i++)
        coro_free(w->publishers[i].co);
    free(w);
}

/* SPDX-License-Identifier: MIT
 *
 * process.c - processes that run a relay: they start, step, hang, stop, die.
 *
 * A process that dies is a coroutine that is never resumed.  Its memory was
 * all allocated through its handle, and goes at once; its connection is
 * closed by the store, as a database notices.  Nothing of the library runs.
 */
#include "relay.h"
#include "sim.h"

#include <stdlib.h>
#include <string.h>

enum { SPIN_STEPS = 100, SPIN_MS = 50, FOREVER_MS = 1000000000 };

/* ---- memory ---------------------------------------------------------- */

typedef struct block {
    struct block *next, *prev;
} block;

static void block_link(process *p, block *b)
{
    b->prev = NULL;
    b->next = p->blocks;
    if (b->next != NULL)
        b->next->prev = b;
    p->blocks = b;
}

static void block_unlink(process *p, block *b)
{
    if (b->next != NULL)
        b->next->prev = b->prev;
    if (b->prev != NULL)
        b->prev->next = b->next;
    else
        p->blocks = b->next;
}

static void *own_malloc(void *arg, size_t n)
{
    block *b = malloc(sizeof *b + n);

    if (b == NULL)
        abort();
    block_link(arg, b);
    return b + 1;
}

static void own_free(void *arg, void *at)
{
    if (at == NULL)
        return;
    block_unlink(arg, (block *)at - 1);
    free((block *)at - 1);
}

static void *own_realloc(void *arg, void *at, size_t n)
{
    if (at == NULL)
        return own_malloc(arg, n);
    block_unlink(arg, (block *)at - 1);
    block *b = realloc((block *)at - 1, sizeof *b + n);
    if (b == NULL)
        abort();
    block_link(arg, b);
    return b + 1;
}

static void memory_free(process *p)
{
    while (p->blocks != NULL)
        own_free(p, (block *)p->blocks + 1);
}

/* ---- suspended, hung, dead ------------------------------------------- */

void process_suspend(process *p, int64_t ms)
{
    p->wake_ms = p->w->now + (ms > 0 ? ms : 0);
    coro_yield();
}

void process_wake(process *p)
{
    if (p->asleep && p->wake_ms > p->w->now)
        p->wake_ms = p->w->now;
}

void process_die(process *p)
{
    p->dying = true;
    p->wake_ms = p->w->now;
    coro_yield();
}

static void hang(process *p)
{
    int64_t lease_ms = p->w->subs[p->sub].plan->opt.lease_ms;
    int64_t ms = rng_between(&p->w->chance, lease_ms / 4, 3 * lease_ms);

    record(p->w, M_HANG, p->incarnation, ms, 0, 0);
    tally(p->w, T_HANGS);
    process_suspend(p, ms);
}

void process_point(process *p)
{
    sim *w = p->w;
    uint32_t draw;

    if (!w->chaos || (w->plan.faults & (FAULT_POINTS | FAULT_SLOW)) == 0)
        return;
    draw = rng_below(&w->chance, 100000);
    if ((w->plan.faults & FAULT_POINTS) && draw < 120) {
        if (draw < 60)
            hang(p);
        else
            process_die(p);
    } else if ((w->plan.faults & FAULT_SLOW) && draw > 98000) {
        process_suspend(p, 1 + rng_below(&w->chance, draw > 99800 ? 60 : 6));
    }
}

/* ---- what it gives to its relay -------------------------------------- */

static int64_t own_clock(void *arg)
{
    process *p = arg;
    sim *w = p->w;
    int64_t ms = w->now;

    p->clock_ms = ms;
    if (w->chaos && (w->plan.faults & FAULT_CLOCK) &&
        rng_chance(&w->chance, 4)) {
        int64_t lease_ms = w->subs[p->sub].plan->opt.lease_ms;
        process_suspend(p, rng_between(&w->chance, 1, 2 * lease_ms));
    }
    return p->clock_base + ms;
}

static void own_log(void *arg, int level, const char *line)
{
    process *p = arg;

    (void)level;
    record_line(p->w, p, line);
    if (strncmp(line, "breaker open", 12) == 0)
        tally(p->w, T_BREAKER);
    if (strstr(line, "has expired") != NULL)
        tally(p->w, T_EXPIRED);
}

static void start(process *p)
{
    sim *w = p->w;
    const sub_plan *sp = w->subs[p->sub].plan;
    outbox_relay_options opt = sp->opt;
    outbox_transport transport = destination_transport(p);
    char name[2] = { (char)('a' + p->sub), '\0' };
    outbox_allocator own = { sizeof own, p, own_malloc, own_realloc,
                             own_free };
    outbox_options options = { .size = sizeof options, .allocator = &own,
                               .max_payload_bytes = SIM_PAYLOAD };
    outbox_error err;
    outbox_t *ob = NULL;

    opt.subscription = name;
    opt.max_lanes = sp->lanes[p->nth];
    opt.log = own_log;
    opt.log_arg = opt.clock_arg = p;
    opt.clock_ms = own_clock;
    int rc = store_connect(p, &ob, &options, &err);
    if (rc == OUTBOX_OK)
        rc = outbox_relay_new(&p->relay, ob, &transport, &opt, &err);
    if (rc != OUTBOX_OK)
        violation(w, "setup", "no relay: %s", err.text);
}

/* ---- its life -------------------------------------------------------- */

static int step(process *p)
{
    sim *w = p->w;
    outbox_error err;

    p->step++;
    p->step_ms = w->now;
    p->sends = 0;
    p->passed_before = p->passed || (p->busy && p->passed_before);
    p->passed = p->busy = false;
    p->breaker = p->relay->stats.breaker_open != 0;
    int rc = outbox_relay_step(p->relay, w->plan.sleeps ? 1000 : 0, &err);
    tally(w, T_STEPS);
    if (rc != 0)
        record(w, M_STEP, p->incarnation, rc, 0, 0);
    judge_step(p, rc);
    return rc;
}

/* Without sleeping steps: soon after one that did something, ever more slowly
 * after those that did not. */
static void rest(process *p, int rc)
{
    int64_t most = p->w->subs[p->sub].plan->opt.lease_ms / 6;

    p->gap_ms = rc > 0 || p->gap_ms == 0 ? 1 : p->gap_ms * 2;
    if (p->gap_ms > most)
        p->gap_ms = most;
    process_suspend(p, rng_between(&p->w->chance, 1, p->gap_ms + 1));
}

static void leave(process *p)
{
    sim *w = p->w;
    int patience_ms = rng_chance(&w->chance, 300) ? 0 : FOREVER_MS;
    outbox_error err;

    record(w, M_STOP, p->incarnation, patience_ms, 0, 0);
    int rc = outbox_relay_stop(p->relay, patience_ms, &err);
    record(w, M_STOPPED, p->incarnation, rc, 0, 0);
    tally(w, T_STOPS);
    judge_stopped(p, rc);
    outbox_relay_free(p->relay);
    p->relay = NULL;
}

/* Many steps at one moment, again and again, are a loop that waits for time
 * to pass. */
void process_count_spins(process *p)
{
    sim *w = p->w;

    if (p->spin_ms != w->now) {
        if (p->spins < SPIN_STEPS)
            p->spun_ms = 0;
        p->spins = 0;
        p->spin_ms = w->now;
    }
    if (++p->spins < SPIN_STEPS)
        return;
    if (++p->spun_ms > SPIN_MS)
        violation(w, "spins", "relay %u steps and never sleeps",
                  (unsigned)p->incarnation);
    process_suspend(p, 1);
}

static void process_main(void *arg)
{
    process *p = arg;
    sim *w = p->w;
    int rc = 0;

    start(p);
    while (!p->leaving && !w->over && !w->subs[p->sub].gone &&
           rc != OUTBOX_ENOENT) {
        rc = step(p);
        if (w->plan.sleeps)
            process_count_spins(p);
        else
            rest(p, rc);
    }
    if (!w->over)
        leave(p);
}

static void begin(process *p)
{
    sim *w = p->w;
    void *blocks = p->blocks;
    process fresh = { .w = w, .slot = p->slot, .sub = p->sub, .nth = p->nth,
                      .co = p->co, .blocks = blocks };

    *p = fresh;
    p->incarnation = ++w->incarnations;
    for (int i = 0; i < SIM_KEYS; i++)
        p->last_arrival[i] = -1;
    p->entropy.state = w->seed ^ (uint64_t)p->incarnation << 48;
    p->clock_base = rng_between(&w->chance, 1, 1000000);
    p->quiet_ms = INT64_MAX;
    p->wake_ms = w->now;
    record(w, M_START, p->incarnation, p->sub, p->slot, 0);
    coro_begin(p->co, process_main, p);
}

/* As the kernel cleans up after a process, but for the list of those whom
 * publishers wake: in truth each process has its own. */
void process_free(process *p)
{
    if (p->relay != NULL)
        ob_waker_unlist(&p->relay->waker);
    mem_conn_free(p->link);
    memory_free(p);
    p->relay = NULL;
    p->link = NULL;
    p->incarnation = 0;
}

/* Another one takes its place after a while. */
static void ended(process *p)
{
    sim *w = p->w;
    int64_t lease_ms = w->subs[p->sub].plan->opt.lease_ms;

    network_gone(p);
    process_free(p);
    p->wake_ms = w->now + rng_between(&w->chance, 1,
                                      w->chaos ? 2 * lease_ms : lease_ms / 4);
    if (w->stopping)
        p->wake_ms = INT64_MAX;
}

void process_crash(process *p)
{
    record(p->w, M_CRASH, p->incarnation, 0, 0, 0);
    tally(p->w, T_CRASHES);
    judge_death(p);
    ended(p);
}

void process_run(process *p)
{
    if (p->incarnation == 0) {
        if (p->w->subs[p->sub].gone)
            p->wake_ms = INT64_MAX;
        else
            begin(p);
        return;
    }
    if (!p->dying)
        coro_resume(p->co);
    if (p->dying)
        process_crash(p);
    else if (coro_ended(p->co))
        ended(p);
}

void process_init(sim *w, int sub, int nth)
{
    process *p = &w->processes[w->n_processes];
    coro *co = p->co != NULL ? p->co : coro_new();

    if (co == NULL)
        abort();
    *p = (process){ .w = w, .slot = w->n_processes++, .sub = sub, .nth = nth,
                    .co = co };
    p->wake_ms = rng_between(&w->chance, 0, w->plan.chaos_ms / 5);
    if (sub == 0 && nth == 0)
        p->wake_ms = 0;
}

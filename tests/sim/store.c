/* SPDX-License-Identifier: MIT
 *
 * store.c - what stands between a relay and the store in memory: points where
 * the process may be suspended or die, errors, lost answers, and the judge.
 */
#include "sim.h"

#include <string.h>

static process *process_at(outbox_store *st)
{
    return ((sim_store *)st)->p;
}

static outbox_store *inner_of(outbox_store *st)
{
    return ((sim_store *)st)->inner;
}

#define INNER(st) inner_of(st)->ops

/* ---- before and after ------------------------------------------------ */

static bool strikes(const sim *w, uint32_t fault)
{
    return w->chaos && (w->plan.faults & fault) != 0;
}

static int failed(process *p, enum mem_op op, int rc)
{
    sim *w = p->w;

    if (rc == OUTBOX_EBUSY) {           /* it has waited for the lock */
        tally(w, T_BUSY);
        p->busy = true;
        process_suspend(p, 1 + rng_below(&w->chance, 4));
        return rc;
    }
    record(w, M_ERROR, p->incarnation, op, rc, 0);
    if (rc == OUTBOX_ESTALE && op == MEM_SAVE) {
        tally(w, T_STALE);
        p->activity++;                  /* again, without those lanes */
    } else {
        judge_forget(p);
    }
    return rc;
}

static int enter(outbox_store *st, outbox_error *err)
{
    process *p = process_at(st);
    sim *w = p->w;

    process_point(p);
    if (!strikes(w, FAULT_ERRORS) || !rng_chance(&w->chance, 8))
        return OUTBOX_OK;
    tally(w, T_ERRORS);
    record(w, M_FAULT, 0, 0, 0, 0);
    return outbox_error_set(err, rng_chance(&w->chance, 300) ? OUTBOX_EBUSY
                                                             : OUTBOX_EDB,
                            "by order");
}

static int leave(outbox_store *st, enum mem_op op, int rc, outbox_error *err)
{
    process *p = process_at(st);
    sim *w = p->w;

    if (rc >= 0 && strikes(w, FAULT_ANSWERS) && rng_chance(&w->chance, 6)) {
        tally(w, T_ANSWERS);
        record(w, M_FAULT, 1, 0, 0, 0);
        rc = outbox_error_set(err, OUTBOX_EDB, "the answer is lost");
    }
    if (rc < 0)
        failed(p, op, rc);
    process_point(p);
    return rc;
}

/* ---- leases ---------------------------------------------------------- */

static int sim_attach(outbox_store *st, outbox_subscription *sub,
                      outbox_error *err)
{
    int rc = enter(st, err);

    if (rc == OUTBOX_OK)
        rc = INNER(st)->attach(inner_of(st), sub, err);
    if (rc == OUTBOX_OK)
        judge_attach(process_at(st));
    return leave(st, MEM_ATTACH, rc, err);
}

static int sim_beat(outbox_store *st, outbox_subscription *sub,
                    const uint8_t me[16], int want, outbox_lane *lanes,
                    uint32_t n_lanes, outbox_beat *relays, int max,
                    outbox_error *err)
{
    process *p = process_at(st);
    int rc = enter(st, err);

    if (rc == OUTBOX_OK)
        rc = INNER(st)->beat(inner_of(st), sub, me, want, lanes, n_lanes,
                             relays, max, err);
    if (rc >= 0)
        p->looked = ++p->w->ticks;
    return leave(st, MEM_BEAT, rc, err);
}

static int sim_acquire(outbox_store *st, int64_t sub, const uint8_t me[16],
                       outbox_lane *lanes, uint32_t n, outbox_error *err)
{
    int rc = enter(st, err);

    if (rc == OUTBOX_OK)
        rc = INNER(st)->acquire(inner_of(st), sub, me, lanes, n, err);
    if (rc == OUTBOX_OK)
        judge_acquire(process_at(st), lanes, n);
    return leave(st, MEM_ACQUIRE, rc, err);
}

static int sim_leave(outbox_store *st, int64_t sub, const uint8_t me[16],
                     outbox_error *err)
{
    process *p = process_at(st);
    int rc = enter(st, err);

    if (rc == OUTBOX_OK)
        rc = INNER(st)->leave(inner_of(st), sub, me, err);
    if (rc == OUTBOX_OK)
        record(p->w, M_LEAVE, p->incarnation, 0, 0, 0);
    return leave(st, MEM_LEAVE, rc, err);
}

/* ---- the log --------------------------------------------------------- */

static const outbox_cursor *lowest(const outbox_lane *lanes, uint32_t n)
{
    const outbox_cursor *low = &lanes[0].cursor;

    for (uint32_t i = 1; i < n; i++) {
        if (lanes[i].cursor.position < low->position)
            low = &lanes[i].cursor;
    }
    return low;
}

/* As a store in a database reads: every row from the lowest cursor on, also
 * those of lanes that were not asked for. */
static int read_wide(outbox_store *st, int64_t sub, outbox_lane *lanes,
                     uint32_t n, int limit, outbox_sink *sink, void *arg,
                     outbox_error *err)
{
    outbox_lane all[SIM_LANES];
    uint32_t n_all = (uint32_t)process_at(st)->w->plan.lanes;
    outbox_cursor from = *lowest(lanes, n);

    for (uint32_t i = 0; i < n_all; i++)
        all[i] = (outbox_lane){ .lane = i, .cursor = from };
    int rc = INNER(st)->read(inner_of(st), sub, all, n_all, limit, sink, arg,
                             err);
    for (uint32_t i = 0; i < n && rc >= 0; i++) {
        if (lanes[i].cursor.position < all[0].cursor.position)
            lanes[i].cursor = all[0].cursor;
    }
    return rc;
}

static int sim_read(outbox_store *st, int64_t sub, outbox_lane *lanes,
                    uint32_t n, int limit, outbox_sink *sink, void *arg,
                    outbox_error *err)
{
    int rc = enter(st, err);

    if (rc == OUTBOX_OK && (process_at(st)->incarnation & 1) != 0)
        rc = read_wide(st, sub, lanes, n, limit, sink, arg, err);
    else if (rc == OUTBOX_OK)
        rc = INNER(st)->read(inner_of(st), sub, lanes, n, limit, sink, arg,
                             err);
    return leave(st, MEM_READ, rc, err);
}

static int sim_save(outbox_store *st, int64_t sub, const uint8_t me[16],
                    outbox_lane *lanes, uint32_t n,
                    const outbox_change *changes, size_t n_changes,
                    outbox_error *err)
{
    int rc = enter(st, err);

    if (rc == OUTBOX_OK) {
        rc = INNER(st)->save(inner_of(st), sub, me, lanes, n, changes,
                             n_changes, err);
        if (rc == OUTBOX_EDB)
            violation(process_at(st)->w, "save", "%s", err->text);
    }
    if (rc == OUTBOX_OK)
        judge_save(process_at(st), lanes, n, changes, n_changes);
    return leave(st, MEM_SAVE, rc, err);
}

static int sim_trial(outbox_store *st, int64_t sub, const uint8_t me[16],
                     const outbox_lane *of, int64_t position,
                     outbox_error *err)
{
    process *p = process_at(st);
    int rc = enter(st, err);

    if (rc == OUTBOX_OK)
        rc = INNER(st)->trial(inner_of(st), sub, me, of, position, err);
    if (rc >= 0) {
        record(p->w, M_TRIAL, p->incarnation, of->lane, position, rc);
        tally(p->w, T_TRIALS);
        judge_start(p, position);
    }
    return leave(st, MEM_TRIAL, rc, err);
}

static int sim_parked(outbox_store *st, int64_t sub, uint64_t chain,
                      int limit, outbox_sink *sink, void *arg,
                      outbox_error *err)
{
    int rc = enter(st, err);

    if (rc == OUTBOX_OK)
        rc = INNER(st)->parked(inner_of(st), sub, chain, limit, sink, arg,
                               err);
    return leave(st, MEM_PARKED, rc, err);
}

static int sim_blocked(outbox_store *st, int64_t sub, uint32_t nth,
                       outbox_sink *sink, void *arg, outbox_error *err)
{
    int rc = enter(st, err);

    if (rc == OUTBOX_OK)
        rc = INNER(st)->blocked(inner_of(st), sub, nth, sink, arg, err);
    return leave(st, MEM_BLOCKED, rc, err);
}

static int sim_trim(outbox_store *st, int limit, outbox_error *err)
{
    int rc = enter(st, err);

    if (rc == OUTBOX_OK)
        rc = INNER(st)->trim(inner_of(st), limit, err);
    if (rc > 0)
        judge_trim(process_at(st)->w, rc);
    return leave(st, MEM_TRIM, rc, err);
}

static int sim_promote(outbox_store *st, int limit, int64_t *next_ms,
                       outbox_error *err)
{
    int rc = enter(st, err);

    if (rc == OUTBOX_OK)
        rc = INNER(st)->promote(inner_of(st), limit, next_ms, err);
    if (rc > 0)
        judge_promote(process_at(st)->w, rc);
    return leave(st, MEM_PROMOTE, rc, err);
}

static int sim_count(outbox_store *st, int64_t sub, outbox_counts *out,
                     outbox_error *err)
{
    int rc = enter(st, err);

    if (rc == OUTBOX_OK)
        rc = INNER(st)->count(inner_of(st), sub, out, err);
    return leave(st, MEM_COUNT, rc, err);
}

/* ---- without a transaction ------------------------------------------- */

/* Sleeps until its time is over or somebody wakes it; a store that notices
 * commits says so. */
static int sim_wait(outbox_store *st, int wake_fd, int hint, int timeout_ms)
{
    process *p = process_at(st);
    sim *w = p->w;

    (void)wake_fd;
    (void)hint;
    bool notices = w->plan.notices;
    if (timeout_ms == 0)
        process_count_spins(p);
    if (timeout_ms > 0 && !(notices && p->commits != w->commits)) {
        p->asleep = true;
        process_suspend(p, timeout_ms);
        p->asleep = false;
    }
    bool noticed = notices && p->commits != w->commits;
    p->commits = w->commits;
    return noticed;
}

static int64_t sim_now_ms(outbox_store *st)
{
    return wall_ms(process_at(st)->w);
}

static int sim_entropy(outbox_store *st, void *out, size_t n)
{
    process *p = process_at(st);
    char *to = out;

    while (n > 0) {
        uint64_t draw = rng_next(&p->entropy);
        size_t some = n < sizeof draw ? n : sizeof draw;
        memcpy(to, &draw, some);
        to += some;
        n -= some;
    }
    return 0;
}

static void sim_close(outbox_store *st)
{
    process_at(st)->link = NULL;
    INNER(st)->close(inner_of(st));
}

/* ---- connecting ------------------------------------------------------ */

static const outbox_store_ops sim_ops = {
    .size = sizeof sim_ops,
    .name = "simulated",
    .attach = sim_attach,
    .beat = sim_beat,
    .acquire = sim_acquire,
    .read = sim_read,
    .save = sim_save,
    .trial = sim_trial,
    .parked = sim_parked,
    .blocked = sim_blocked,
    .trim = sim_trim,
    .promote = sim_promote,
    .count = sim_count,
    .leave = sim_leave,
    .wait = sim_wait,
    .now_ms = sim_now_ms,
    .entropy = sim_entropy,
    .close = sim_close,
};

int store_connect(process *p, outbox_t **ob, const outbox_options *opt,
                  outbox_error *err)
{
    int rc = mem_outbox_connect(ob, p->w->db, opt, &p->link, err);

    if (rc != OUTBOX_OK)
        return rc;
    sim_store *s = &p->store;
    s->p = p;
    s->inner = (*ob)->h.store;
    s->base = *s->inner;
    s->base.ops = &sim_ops;
    if (!p->w->plan.poked)
        s->base.database = 0;           /* publishers are elsewhere */
    (*ob)->h.store = &s->base;
    (*ob)->rnd = (ob_random){ .entropy = sim_entropy, .store = &s->base };
    return OUTBOX_OK;
}

/* SPDX-License-Identifier: MIT
 *
 * progress.c - what survives a crash: cursors, and the fate of those events
 * that did not pass.
 *
 * Progress is saved flush_ms after the first event that is worth it, and
 * when a relay stops; a crash sends again what was settled since.  A lane's
 * cursor is the last event up to which all of the lane's are settled; with
 * none unsettled it is as far as was read, whatever lanes that crossed.  Slots
 * retire in the order of reading, but one that is slow holds up the cursor of
 * its own lane only, and a parked one none: it has a row of its own.
 *
 * Invariants (tests/contract: progress, ops; tests/torture: mutants
 * ack-before-send, cursor-past-unsettled; tests/sim: mutants ack-early,
 * prefix-not-contiguous):
 *  1. A cursor never passes an event of its lane that is not DONE; and an
 *     event is DONE only when the destination has it, or in the same
 *     transaction that parks or buries it.
 *  2. A saved cursor never goes back, but by a person's replay: the row where
 *     it was may be trimmed.
 *  3. One transaction writes cursors and fates together, with the token of
 *     every lane concerned in it.
 */
#include "relay.h"
#include "failpoint.h"

#include <syslog.h>

enum { TRIM_MS = 10 };

bool ob_cursor_follows(const outbox_cursor *c, const outbox_cursor *other)
{
    if (c->window != other->window)
        return c->window > other->window;
    return c->position > other->position;
}

/* Of its lane's present lease, and from the log. */
static bool holds_cursor(const outbox_relay_t *r, const ob_slot *s)
{
    const ob_lane *l = &r->lanes[s->lane];

    return l->mine && s->lease == l->lease && s->seq == 0;
}

/* Called with the lock held. */
void ob_progress_retire(outbox_relay_t *r)
{
    ob_slot *s;

    while ((s = ob_window_oldest_finished(&r->win)) != NULL) {
        ob_lane *l = &r->lanes[s->lane];
        if (holds_cursor(r, s)) {
            if (ob_cursor_follows(&s->cursor, &l->done))
                l->done = s->cursor;
            r->dirty = true;
        }
        r->retired += s->state == OB_DONE;
        ob_window_retire(&r->win);
        r->log_idle = r->log_idle && !r->full;
        r->full = false;
    }
    if (r->win.doomed > 0)
        r->dirty = true;
    if (r->dirty && r->save_ms == INT64_MAX)
        r->save_ms = r->now_ms + r->opt.flush_ms;
}

bool ob_progress_on_trial(const outbox_relay_t *r)
{
    bool any = false;

    for (uint32_t i = 0; i < r->sub.lanes && !any; i++)
        any = r->lanes[i].mine && r->lanes[i].on_trial;
    return any;
}

/* Doomed events hold up their chains: with nothing else to do, at once. */
bool ob_progress_due(const outbox_relay_t *r)
{
    if (r->win.inflight == 0 && ob_progress_on_trial(r))
        return true;
    if (!r->dirty)
        return false;
    return r->now_ms >= r->save_ms || r->closing ||
           (r->win.doomed > 0 && r->win.inflight == 0 && !r->more);
}

/* How far a lane has come, and what keeps it. */
typedef struct reach {
    outbox_cursor to;
    bool          stops;        /* at an event that is not settled */
    bool          busy;         /* with what was sent, or must be saved */
    bool          changed;      /* a change of this save is in it */
} reach;

/* The changes of this save are settled by it: the first n that are doomed. */
static void reach_all(outbox_relay_t *r, reach *lanes, size_t n_changes)
{
    for (uint32_t i = 0; i < r->sub.lanes; i++)
        lanes[i].to = r->lanes[i].done;
    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        const ob_slot *s = ob_window_nth(&r->win, i);
        reach *lane = &lanes[s->lane];
        bool saved_now = s->state == OB_DOOMED && n_changes > 0;
        n_changes -= saved_now;
        lane->busy |= s->state == OB_SENT || s->state == OB_DOOMED;
        if (!holds_cursor(r, s))
            continue;
        lane->stops |= s->state < OB_DONE && !saved_now;
        if (!lane->stops && ob_cursor_follows(&s->cursor, &lane->to))
            lane->to = s->cursor;
    }
    for (uint32_t i = 0; i < r->sub.lanes; i++) {
        if (!lanes[i].stops)
            lanes[i].to = r->lanes[i].read;
    }
}

/* Everything that follows a parked event in its chain, but for what is still
 * with an ordered transport, or has a late ACK. */
static void doom_followers(outbox_relay_t *r, ob_slot *s)
{
    ob_slot *after = ob_window_at(&r->win, s->next);

    if (s->fate == OUTBOX_PARK && after != NULL && after->state < OB_SENT &&
        after->verdict == 0)
        ob_window_doom(&r->win, after, OUTBOX_PARK);
}

static void change_of(const outbox_relay_t *r, const ob_slot *s,
                      outbox_change *c)
{
    c->kind = (enum outbox_change_kind)s->fate;
    c->blocks = r->opt.on_dead == OUTBOX_DEAD_BLOCKS_KEY && ob_slot_has_key(s);
    ob_slot_row(s, &c->row);
    c->row.delay_ms = s->when_ms;
}

/* In the order of reading, so that parked rows are in order. */
static size_t collect_changes(outbox_relay_t *r, reach *lanes)
{
    size_t n = 0;

    if (r->win.doomed == 0)
        return 0;
    for (uint64_t i = 0; i < ob_window_used(&r->win) && n < OB_MAX_CHANGES;
         i++) {
        ob_slot *s = ob_window_nth(&r->win, i);
        if (s->state != OB_DOOMED)
            continue;
        doom_followers(r, s);
        change_of(r, s, &r->changes[n]);
        r->changed[n++] = s;
        lanes[s->lane].changed = true;
    }
    return n;
}

static uint32_t collect_lanes(const outbox_relay_t *r, const reach *lanes,
                              outbox_lane *io)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < r->sub.lanes; i++) {
        const ob_lane *l = &r->lanes[i];
        bool moved = ob_cursor_follows(&lanes[i].to, &l->saved);
        bool leaves = l->leaving && (!lanes[i].busy || r->closing);
        bool acquitted = l->on_trial && (r->win.inflight == 0 || r->closing);
        if (!l->mine || !(moved || lanes[i].changed || leaves || acquitted))
            continue;
        memset(&io[n], 0, sizeof io[n]);
        io[n].lane = i;
        io[n].token = l->token;
        io[n].release = leaves;
        io[n].on_trial = acquitted;
        memcpy(io[n].owner, r->id, 16);
        io[n++].cursor = lanes[i].to;
    }
    return n;
}

/* ---- after the save ------------------------------------------------- */

static void chain_saved(outbox_relay_t *r, const ob_slot *s,
                        const outbox_change *c)
{
    ob_blocked *b = ob_blocked_find(r, s->chain);

    if (b == NULL)
        return;
    b->head_passed = c->kind == OUTBOX_UNPARK ||
                (c->kind == OUTBOX_PARK && b->head_passed);
    if (c->kind == OUTBOX_UNPARK)
        b->loaded -= b->loaded > 0;
    else if (s->seq != 0)
        b->loaded = 0;
    if (c->kind == OUTBOX_BURY && c->blocks)
        b->dead = true;
    else if (s->when_ms > 0)
        ob_blocked_due(r, b, r->now_ms + s->when_ms);
    else if (b->loaded == 0)            /* its time may have been passed by */
        ob_blocked_due(r, b, b->due_ms == INT64_MAX ? r->now_ms : b->due_ms);
}

static void log_fate(outbox_relay_t *r, const ob_slot *s)
{
    char id[OB_UUID_TEXT];

    if (s->fate != OUTBOX_BURY)
        return;
    ob_uuid_format(s->cursor.id, id);
    ob_relay_log(r, LOG_ERR, "event %s is dead, attempts: %u, the last: %s",
                 id, (unsigned)s->attempts, ob_slot_reason(s));
}

static void start_ends(outbox_relay_t *r, const ob_slot *s)
{
    for (uint32_t i = 0; i < OB_STARTS && i < r->n_starts; i++) {
        if (r->starts[i].position == s->cursor.position)
            r->starts[i].position = 0;
    }
}

/* They are still in the table of the parked.  Those that an ordered transport
 * has with it stay until their verdicts, and those that have one until it is
 * applied: the ACK was accepted. */
static void drop_followers(outbox_relay_t *r, const ob_slot *s)
{
    ob_slot *after = ob_window_at(&r->win, s->next);

    while (after != NULL) {
        ob_slot *next = ob_window_at(&r->win, after->next);
        if (after->state != OB_SENT && after->state < OB_DOOMED &&
            after->verdict == 0)
            ob_window_finish(&r->win, after, OB_GONE, false);
        after = next;
    }
}

static void changes_saved(outbox_relay_t *r, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ob_slot *s = r->changed[i];
        r->parked += s->fate == OUTBOX_PARK;
        log_fate(r, s);
        chain_saved(r, s, &r->changes[i]);
        if (s->seq != 0)
            drop_followers(r, s);
        if (s->precounted)
            start_ends(r, s);
        ob_window_finish(&r->win, s, OB_DONE,
                         ob_blocked_find(r, s->chain) != NULL);
    }
}

static void lanes_saved(outbox_relay_t *r, const outbox_lane *io, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        ob_lane *l = &r->lanes[io[i].lane];
        l->done = l->saved = io[i].cursor;      /* it never goes back */
        if (io[i].on_trial)
            l->on_trial = false;
        if (!io[i].release)
            continue;
        ob_lease_lost(r, io[i].lane);
        l->seen_ms = 0;
    }
}

static void save_refused(outbox_relay_t *r, const outbox_lane *io, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (io[i].held)
            continue;
        ob_lease_taken(r, io[i].lane);
    }
}

int ob_progress_save(outbox_relay_t *r, outbox_error *err)
{
    outbox_lane io[OUTBOX_MAX_LANES];
    reach lanes[OUTBOX_MAX_LANES] = { 0 };

    pthread_mutex_lock(&r->lock);
    size_t n_changes = collect_changes(r, lanes);
    reach_all(r, lanes, n_changes);
    uint32_t n = collect_lanes(r, lanes, io);
    pthread_mutex_unlock(&r->lock);
    r->dirty = false;
    r->save_ms = INT64_MAX;
    if (n == 0)
        return OUTBOX_OK;
    OB_FAILPOINT("relay.before_save");
    int rc = r->store->ops->save(r->store, r->sub.sub, r->id, io, n,
                                 r->changes, n_changes, err);
    OB_FAILPOINT("relay.after_save");
    pthread_mutex_lock(&r->lock);
    if (rc >= 0) {
        changes_saved(r, n_changes);
        lanes_saved(r, io, n);
        r->dirty = r->dirty || n_changes > 0;   /* cursors may move now */
        r->want_trim = true;
    } else if (rc == OUTBOX_ESTALE) {
        save_refused(r, io, n);
        rc = OUTBOX_OK;
        r->dirty = true;
    } else {
        r->dirty = true;
    }
    ob_progress_retire(r);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

/* In short transactions, and for a while only: publishers wait for them. */
int ob_progress_trim(outbox_relay_t *r, outbox_error *err)
{
    int64_t start_ms = r->now_ms;
    int rc;

    if (!r->want_trim || r->now_ms < r->trim_ms)
        return OUTBOX_OK;
    do {
        rc = r->store->ops->trim(r->store, OB_TRIM_ROWS, err);
    } while (rc == OB_TRIM_ROWS && ob_relay_clock(r) - start_ms < TRIM_MS);
    if (rc < 0)
        return rc;
    r->want_trim = rc == OB_TRIM_ROWS;
    bool idle = r->log_idle && !r->more && r->win.inflight == 0;
    r->trim_ms = r->now_ms + (idle ? 0 : r->opt.flush_ms);
    return OUTBOX_OK;
}

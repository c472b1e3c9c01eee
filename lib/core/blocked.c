/* SPDX-License-Identifier: MIT
 *
 * blocked.c - the chains that wait behind a failed event.
 *
 * A chain is in this set exactly while it has parked rows, or a dead event
 * that blocks it, or slots that the next save will park.  While it is, what
 * is read of it joins its parked rows instead of being sent (tests/contract:
 * kinds, letters; tests/sim: mutants parked-key-not-blocking, aside-forgotten,
 * revival-unnoticed).
 *
 * The happy path asks an empty set, which costs one comparison.
 */
#include "relay.h"

ob_blocked *ob_blocked_find(const outbox_relay_t *r, uint64_t chain)
{
    return (ob_blocked *)ob_table_find(&r->blocked, chain);
}

/* Finds or adds; NULL without memory. */
ob_blocked *ob_blocked_add(outbox_relay_t *r, uint64_t chain, uint32_t lane)
{
    ob_blocked *b = ob_blocked_find(r, chain);

    if (b != NULL || (b = ob_alloc(&r->mem, sizeof *b)) == NULL)
        return b;
    b->node.key = chain;
    b->lane = lane;
    b->due_ms = INT64_MAX;
    if (ob_table_add(&r->blocked, &r->mem, &b->node))
        return b;
    ob_free(&r->mem, b);
    return NULL;
}

void ob_blocked_remove(outbox_relay_t *r, uint64_t chain)
{
    ob_blocked *b = ob_blocked_find(r, chain);

    if (b == NULL)
        return;
    ob_table_remove(&r->blocked, &b->node);
    ob_free(&r->mem, b);
}

static ob_blocked *blocked_next(const ob_blocked *b)
{
    return (ob_blocked *)b->node.next;
}

static ob_blocked *blocked_bucket(const outbox_relay_t *r, uint32_t i)
{
    return (ob_blocked *)r->blocked.buckets[i];
}

void ob_blocked_due(outbox_relay_t *r, ob_blocked *b, int64_t due_ms)
{
    b->due_ms = due_ms;
    if (due_ms < r->blocked_due_ms)
        r->blocked_due_ms = due_ms;
}

void ob_blocked_at(ob_blocked *b, int64_t position)
{
    if (b->position == position)
        return;
    b->position = position;
    b->open_case = b->forgiven = false;
    b->tries = 0;
}

void ob_blocked_forgive(outbox_relay_t *r)
{
    for (uint32_t i = 0; i < r->blocked.size; i++) {
        for (ob_blocked *b = blocked_bucket(r, i); b != NULL;
             b = blocked_next(b)) {
            if (!b->open_case || b->forgiven)
                continue;
            b->forgiven = true;
            b->open_case = false;
            if (b->due_ms != INT64_MAX)
                ob_blocked_due(r, b, r->now_ms);
        }
    }
}

/* ---- set aside -----------------------------------------------------------
 *
 * Events that are parked, dead or discarded although the lane's cursor is
 * still before them: that was saved while an older one was under way, and then
 * an owner went.  Each is passed over once, when it is read, and forgotten when
 * its lane is read past it; after a replay there may be as many as ever died.
 */

enum { SET_ASIDE = -2 };

static ob_aside *aside_find(const outbox_relay_t *r, const outbox_row *row)
{
    ob_node *n = ob_table_find(&r->aside, (uint64_t)row->position);

    while (n != NULL && memcmp(((ob_aside *)n)->id, row->id, 16) != 0)
        n = ob_table_again(n);
    return (ob_aside *)n;
}

bool ob_aside_has(outbox_relay_t *r, const outbox_row *row)
{
    ob_aside *a = aside_find(r, row);

    if (a == NULL)
        return false;
    a->at = (outbox_cursor){ .window = row->window,
                             .position = row->position };
    if (!a->met) {
        a->met = true;
        a->next_met = r->aside_met;
        r->aside_met = a;
    }
    return true;
}

/* A read may have failed, or ended before one that it met. */
void ob_aside_passed(outbox_relay_t *r)
{
    while (r->aside_met != NULL) {
        ob_aside *a = r->aside_met;
        r->aside_met = a->next_met;
        a->met = false;
        if (ob_cursor_follows(&a->at, &r->lanes[a->lane].read))
            continue;
        ob_table_remove(&r->aside, &a->node);
        ob_free(&r->mem, a);
    }
}

static bool aside_add(outbox_relay_t *r, const outbox_row *row)
{
    ob_aside *a = aside_find(r, row);

    if (a != NULL) {
        a->load = r->aside_load;
        return true;
    }
    if ((a = ob_alloc(&r->mem, sizeof *a)) == NULL)
        return false;
    a->node.key = (uint64_t)row->position;
    memcpy(a->id, row->id, sizeof a->id);
    a->lane = row->lane;
    a->load = r->aside_load;
    if (ob_table_add(&r->aside, &r->mem, &a->node))
        return true;
    ob_free(&r->mem, a);
    return false;
}

static bool aside_is_old(const ob_node *n, const void *load)
{
    return ((const ob_aside *)n)->load != *(const uint32_t *)load;
}

static bool aside_of_lane(const ob_node *n, const void *lane)
{
    return ((const ob_aside *)n)->lane == *(const uint32_t *)lane;
}

static bool blocked_of_lane(const ob_node *n, const void *lane)
{
    return ((const ob_blocked *)n)->lane == *(const uint32_t *)lane;
}

void ob_blocked_drop_lane(outbox_relay_t *r, uint32_t lane)
{
    ob_table_sweep(&r->blocked, &r->mem, blocked_of_lane, &lane);
    ob_table_sweep(&r->aside, &r->mem, aside_of_lane, &lane);
}

void ob_blocked_clear(outbox_relay_t *r)
{
    ob_table_sweep(&r->blocked, &r->mem, NULL, NULL);
    ob_table_sweep(&r->aside, &r->mem, NULL, NULL);
    r->blocked_hand = 0;
    r->blocked_due_ms = INT64_MAX;
}

/* ---- from the store ------------------------------------------------------ */

typedef struct load_ctx {
    outbox_relay_t *r;
    bool            nomem;
} load_ctx;

static int blocked_sink(void *arg, const outbox_row *row)
{
    load_ctx *ctx = arg;

    if (ctx->nomem)
        return 1;               /* said before; a store may not have heard */
    if (row->delay_ms == SET_ASIDE) {
        ctx->nomem = !aside_add(ctx->r, row);
        return ctx->nomem;
    }
    ob_blocked *b = ob_blocked_add(ctx->r, row->chain, row->lane);
    ctx->nomem = b == NULL;
    if (b == NULL)
        return 1;
    if (row->delay_ms < 0)
        b->dead = true;
    else if (b->due_ms == INT64_MAX && b->loaded == 0)
        ob_blocked_due(ctx->r, b, ctx->r->now_ms + row->delay_ms);
    return 0;
}

/* Half a set would be worse than none: events would overtake parked ones. */
int ob_blocked_load(outbox_relay_t *r, uint32_t lane, outbox_error *err)
{
    load_ctx ctx = { r, false };
    int rc = r->store->ops->blocked(r->store, r->sub.sub, lane, blocked_sink,
                                    &ctx, err);

    if (ctx.nomem)
        return ob_nomem(err);
    return rc < 0 ? rc : OUTBOX_OK;
}

/* A chain that was free and is blocked now: what the window holds of it goes
 * behind what is parked, but for what the transport has. */
static void park_blocked(outbox_relay_t *r)
{
    pthread_mutex_lock(&r->lock);
    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        ob_slot *s = ob_window_nth(&r->win, i);
        if (s->seq == 0 && s->prev == OB_NONE && s->verdict == 0 &&
            (s->state == OB_READY || s->state == OB_WAITING) &&
            ob_blocked_find(r, s->chain) != NULL)
            ob_window_doom(&r->win, s, OUTBOX_PARK);
    }
    ob_verdict_recall(r);
    pthread_mutex_unlock(&r->lock);
}

/* What was blocked by a dead event may be so no longer, and one that is revived
 * goes before those that are here.  A chain that turns out to have nothing
 * parked is let go when its turn comes. */
int ob_blocked_reload(outbox_relay_t *r, outbox_error *err)
{
    int rc = OUTBOX_OK;

    for (uint32_t i = 0; i < r->blocked.size; i++) {
        for (ob_blocked *b = blocked_bucket(r, i); b != NULL;
             b = blocked_next(b)) {
            b->recalled = b->loaded > 0;
            if (!b->dead)
                continue;
            b->dead = false;
            ob_blocked_due(r, b, r->now_ms);
        }
    }
    r->aside_load++;
    for (uint32_t i = 0; i < r->sub.lanes && rc == OUTBOX_OK; i++) {
        if (r->lanes[i].mine)
            rc = ob_blocked_load(r, i, err);
    }
    if (rc == OUTBOX_OK)
        ob_table_sweep(&r->aside, &r->mem, aside_is_old, &r->aside_load);
    park_blocked(r);
    return rc;
}

static bool is_due(const ob_blocked *b, int64_t now_ms)
{
    return b->due_ms <= now_ms && b->loaded == 0 && !b->dead;
}

/* The one of a bucket that has been due for longest, or NULL. */
static ob_blocked *bucket_due(ob_blocked *b, int64_t now_ms, int64_t *next_ms)
{
    ob_blocked *first = NULL;

    for (; b != NULL; b = blocked_next(b)) {
        if (is_due(b, now_ms) && (first == NULL || b->due_ms < first->due_ms))
            first = b;
        if (b->loaded == 0 && !b->dead && b->due_ms < *next_ms)
            *next_ms = b->due_ms;
    }
    return first;
}

/* One that is due, or NULL and the time of the next one is known.  The search
 * goes on behind the last one that was found, as many may be due at once, and
 * that one soon again. */
ob_blocked *ob_blocked_next_due(outbox_relay_t *r)
{
    int64_t next = INT64_MAX;

    if (r->blocked_due_ms > r->now_ms)
        return NULL;
    for (uint32_t i = 1; i <= r->blocked.size; i++) {
        uint32_t at = (r->blocked_hand + i) & (r->blocked.size - 1);
        ob_blocked *b = bucket_due(blocked_bucket(r, at), r->now_ms, &next);
        if (b != NULL) {
            r->blocked_hand = at;
            return b;
        }
    }
    r->blocked_due_ms = next;
    return NULL;
}

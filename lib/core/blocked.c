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

static ob_blocked **bucket_of(const ob_blocked_set *set, uint64_t chain)
{
    return &set->buckets[chain >> 7 & (set->size - 1)];
}

ob_blocked *ob_blocked_find(const outbox_relay_t *r, uint64_t chain)
{
    if (r->blocked.count == 0)
        return NULL;
    ob_blocked *b = *bucket_of(&r->blocked, chain);
    while (b != NULL && b->chain != chain)
        b = b->next;
    return b;
}

static bool blocked_grow(outbox_relay_t *r)
{
    ob_blocked_set *set = &r->blocked;
    ob_blocked_set bigger = *set;

    if (set->count < set->size)
        return true;
    bigger.size = set->size == 0 ? 64 : set->size * 2;
    bigger.buckets = ob_alloc(&r->mem, bigger.size * sizeof *bigger.buckets);
    if (bigger.buckets == NULL)
        return set->size > 0;           /* fuller, slower, still right */
    for (uint32_t i = 0; i < set->size; i++) {
        while (set->buckets[i] != NULL) {
            ob_blocked *b = set->buckets[i];
            set->buckets[i] = b->next;
            b->next = *bucket_of(&bigger, b->chain);
            *bucket_of(&bigger, b->chain) = b;
        }
    }
    ob_free(&r->mem, set->buckets);
    *set = bigger;
    return true;
}

/* Finds or adds; NULL without memory. */
ob_blocked *ob_blocked_add(outbox_relay_t *r, uint64_t chain, uint32_t lane)
{
    ob_blocked *b = ob_blocked_find(r, chain);

    if (b != NULL)
        return b;
    if (!blocked_grow(r) || (b = ob_alloc(&r->mem, sizeof *b)) == NULL)
        return NULL;
    b->chain = chain;
    b->lane = lane;
    b->due_ms = INT64_MAX;
    b->next = *bucket_of(&r->blocked, chain);
    *bucket_of(&r->blocked, chain) = b;
    r->blocked.count++;
    return b;
}

void ob_blocked_remove(outbox_relay_t *r, uint64_t chain)
{
    if (r->blocked.count == 0)
        return;
    ob_blocked **at = bucket_of(&r->blocked, chain);
    while (*at != NULL && (*at)->chain != chain)
        at = &(*at)->next;
    if (*at == NULL)
        return;
    ob_blocked *b = *at;
    *at = b->next;
    ob_free(&r->mem, b);
    r->blocked.count--;
}

static void blocked_sweep(outbox_relay_t *r, uint32_t lane, bool all)
{
    for (uint32_t i = 0; i < r->blocked.size; i++) {
        ob_blocked **at = &r->blocked.buckets[i];
        while (*at != NULL) {
            ob_blocked *b = *at;
            if (!all && b->lane != lane) {
                at = &b->next;
                continue;
            }
            *at = b->next;
            ob_free(&r->mem, b);
            r->blocked.count--;
        }
    }
}

void ob_blocked_due(outbox_relay_t *r, ob_blocked *b, int64_t due_ms)
{
    b->due_ms = due_ms;
    if (due_ms < r->blocked.next_due_ms)
        r->blocked.next_due_ms = due_ms;
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
        for (ob_blocked *b = r->blocked.buckets[i]; b != NULL; b = b->next) {
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
 * an owner went.  They are few, and each is passed over once, when it is
 * read. */

enum { SET_ASIDE = -2 };

bool ob_aside_has(const outbox_relay_t *r, const outbox_row *row)
{
    const ob_aside *a = r->aside;

    while (a != NULL && (a->position != row->position ||
                         memcmp(a->id, row->id, sizeof a->id) != 0))
        a = a->next;
    return a != NULL;
}

static bool aside_add(outbox_relay_t *r, const outbox_row *row)
{
    if (ob_aside_has(r, row))
        return true;
    ob_aside *a = ob_alloc(&r->mem, sizeof *a);
    if (a == NULL)
        return false;
    a->position = row->position;
    memcpy(a->id, row->id, sizeof a->id);
    a->lane = row->lane;
    a->next = r->aside;
    r->aside = a;
    return true;
}

static void aside_drop(outbox_relay_t *r, uint32_t lane, bool all)
{
    ob_aside **at = &r->aside;

    while (*at != NULL) {
        ob_aside *a = *at;
        if (!all && a->lane != lane) {
            at = &a->next;
            continue;
        }
        *at = a->next;
        ob_free(&r->mem, a);
    }
}

void ob_blocked_drop_lane(outbox_relay_t *r, uint32_t lane)
{
    blocked_sweep(r, lane, false);
    aside_drop(r, lane, false);
}

void ob_blocked_clear(outbox_relay_t *r)
{
    blocked_sweep(r, 0, true);
    aside_drop(r, 0, true);
    ob_free(&r->mem, r->blocked.buckets);
    memset(&r->blocked, 0, sizeof r->blocked);
    r->blocked.next_due_ms = INT64_MAX;
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
        for (ob_blocked *b = r->blocked.buckets[i]; b != NULL; b = b->next) {
            b->recalled = b->loaded > 0;
            if (!b->dead)
                continue;
            b->dead = false;
            ob_blocked_due(r, b, r->now_ms);
        }
    }
    for (uint32_t i = 0; i < r->sub.lanes && rc == OUTBOX_OK; i++) {
        if (r->lanes[i].mine)
            rc = ob_blocked_load(r, i, err);
    }
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

    for (; b != NULL; b = b->next) {
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
    ob_blocked_set *set = &r->blocked;
    int64_t next = INT64_MAX;

    if (set->next_due_ms > r->now_ms)
        return NULL;
    for (uint32_t i = 1; i <= set->size; i++) {
        uint32_t at = (set->hand + i) & (set->size - 1);
        ob_blocked *b = bucket_due(set->buckets[at], r->now_ms, &next);
        if (b != NULL) {
            set->hand = at;
            return b;
        }
    }
    set->next_due_ms = next;
    return NULL;
}

/* SPDX-License-Identifier: MIT
 *
 * admin.c - what a person does to a subscription: look, revive, discard,
 * pause, replay, unsubscribe.
 *
 * None of it talks to the relays.  They notice at their next look at the
 * leases: a replay takes their lanes away, a revival changes a number.
 */
#include "core.h"

static int subscription_find(outbox_t *ob, const char *name, int64_t *sub,
                             outbox_error *err)
{
    size_t n;
    int rc = ob_handle_check(ob != NULL ? &ob->h : NULL, "outbox_t", err);

    if (rc == OUTBOX_OK && name == NULL)
        rc = outbox_error_set(err, OUTBOX_EINVAL, "subscription is NULL");
    if (rc == OUTBOX_OK)
        rc = ob_text_check(name, OUTBOX_MAX_TEXT_BYTES, "subscription", &n,
                           err);
    if (rc != OUTBOX_OK)
        return rc;
    return ob->h.store->ops->find(ob->h.store, name, sub, err);
}

static int admin(outbox_t *ob, const char *name, enum outbox_admin what,
                 const outbox_admin_arg *arg, outbox_error *err)
{
    outbox_error own;
    int64_t sub;

    if (err == NULL)
        err = &own;
    int rc = subscription_find(ob, name, &sub, err);
    if (rc != OUTBOX_OK)
        return rc;
    return ob->h.store->ops->admin(ob->h.store, sub, what, arg, err);
}

static int admin_letter(outbox_t *ob, const char *name,
                        enum outbox_admin what, const char *id,
                        outbox_error *err)
{
    uint8_t uuid[16];
    outbox_admin_arg arg = { id != NULL ? uuid : NULL, 0 };

    if (id != NULL && !ob_uuid_parse(id, uuid))
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "id is not a UUID of the form 8-4-4-4-12");
    int rc = admin(ob, name, what, &arg, err);
    if (rc == 0 && id != NULL)
        return outbox_error_set(err, OUTBOX_ENOENT,
                                "no dead event of this subscription has the "
                                "id %s", id);
    return rc;
}

int outbox_dead_revive(outbox_t *ob, const char *sub, const char *id,
                       outbox_error *err)
{
    int rc = admin_letter(ob, sub, OUTBOX_ADMIN_REVIVE, id, err);

    if (rc > 0)
        ob_wake_database(ob->h.store->database, OB_WAKE_NOW, 0);
    return rc;
}

int outbox_dead_discard(outbox_t *ob, const char *sub, const char *id,
                        outbox_error *err)
{
    int rc = admin_letter(ob, sub, OUTBOX_ADMIN_DISCARD, id, err);

    if (rc > 0)
        ob_wake_database(ob->h.store->database, OB_WAKE_NOW, 0);
    return rc;
}

static int admin_value(outbox_t *ob, const char *sub, enum outbox_admin what,
                       int64_t value, outbox_error *err)
{
    outbox_admin_arg arg = { NULL, value };
    int rc = admin(ob, sub, what, &arg, err);

    if (rc < 0)
        return rc;
    ob_wake_database(ob->h.store->database, OB_WAKE_NOW, 0);
    return OUTBOX_OK;
}

int outbox_pause(outbox_t *ob, const char *sub, int paused, outbox_error *err)
{
    return admin_value(ob, sub, OUTBOX_ADMIN_PAUSE, paused != 0, err);
}

int outbox_replay(outbox_t *ob, const char *sub, int64_t since_ms,
                  outbox_error *err)
{
    if (since_ms < 0)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "since_ms is negative: it counts from 1970");
    return admin_value(ob, sub, OUTBOX_ADMIN_REPLAY, since_ms, err);
}

int outbox_unsubscribe(outbox_t *ob, const char *sub, outbox_error *err)
{
    return admin_value(ob, sub, OUTBOX_ADMIN_UNSUBSCRIBE, 0, err);
}

/* ---- looking -------------------------------------------------------- */

static int stats_check(const outbox_stats *st, outbox_error *err)
{
    if (st == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "outbox_stats is NULL");
    if (st->size < sizeof st->size)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "outbox_stats.size is %zu: set it to sizeof "
                                "the struct", st->size);
    return OUTBOX_OK;
}

int ob_stats_copy(outbox_stats *st, const outbox_stats *from,
                  outbox_error *err)
{
    int rc = stats_check(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    size_t size = st->size;
    memset(st, 0, size);
    memcpy(st, from, size < sizeof *from ? size : sizeof *from);
    st->size = size;
    return OUTBOX_OK;
}

void ob_stats_count(outbox_stats *st, const outbox_counts *c, int64_t now_ms)
{
    st->parked = (uint64_t)c->parked;
    st->dead = (uint64_t)c->dead;
    st->scheduled = (uint64_t)c->scheduled;
    st->lag = (uint64_t)(c->behind + c->parked);
    st->lag_ms = c->oldest_ms > 0 && now_ms > c->oldest_ms
               ? now_ms - c->oldest_ms : 0;
    st->paused = c->paused;
    st->holds_log = c->holds_log;
}

int outbox_subscription_stats(outbox_t *ob, const char *sub, outbox_stats *st,
                              outbox_error *err)
{
    outbox_stats now = { .size = sizeof now };
    outbox_counts c = { 0 };
    outbox_error own;
    int64_t number;

    if (err == NULL)
        err = &own;
    int rc = stats_check(st, err);
    if (rc == OUTBOX_OK)
        rc = subscription_find(ob, sub, &number, err);
    if (rc != OUTBOX_OK)
        return rc;
    outbox_store *store = ob->h.store;
    rc = store->ops->count(store, number, &c, err);
    if (rc != OUTBOX_OK)
        return rc;
    ob_stats_count(&now, &c, store->ops->now_ms(store));
    return ob_stats_copy(st, &now, err);
}

/* ---- dead letters --------------------------------------------------- */

typedef struct letters {
    const outbox_allocator *mem;
    outbox_letter_fn       *fn;
    void                   *arg;
    ob_scratch              scratch;
    bool                    nomem;
} letters;

static int letter_sink(void *arg, const outbox_row *row)
{
    letters *l = arg;
    char id[OB_UUID_TEXT];
    outbox_event ev;

    if (ob_event_of_row(l->mem, &l->scratch, row, &ev, id) != OUTBOX_OK) {
        l->nomem = true;
        return 1;
    }
    ev.attempt = (int32_t)row->attempts;
    l->fn(l->arg, &ev, row->why != NULL ? row->why : "", row->died_ms);
    return 0;
}

int outbox_dead_each(outbox_t *ob, const char *sub, int limit,
                     outbox_letter_fn *fn, void *arg, outbox_error *err)
{
    letters l = { .fn = fn, .arg = arg };
    outbox_error own;
    int64_t number;

    if (err == NULL)
        err = &own;
    if (fn == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "fn is NULL");
    if (limit <= 0)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "limit is %d: it must be positive", limit);
    int rc = subscription_find(ob, sub, &number, err);
    if (rc != OUTBOX_OK)
        return rc;
    outbox_store *store = ob->h.store;
    l.mem = &store->mem;
    rc = store->ops->dead(store, number, limit, letter_sink, &l, err);
    ob_scratch_free(l.mem, &l.scratch);
    return l.nomem ? ob_nomem(err) : rc;
}

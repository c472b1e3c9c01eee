/* SPDX-License-Identifier: MIT
 *
 * memory_admin.c - tidying up, counting, and what people do: trimming,
 * scheduled events, dead letters, pauses, replays.
 */
#include "memory_db.h"

#include <stdlib.h>
#include <string.h>

#define DEDUP_KEEP_MS INT64_C(604800000)        /* a week */

/* ---- trimming and scheduling ---------------------------------------- */

static void forget_dedup_keys(mem_db *db, int limit)
{
    for (int n = 0; n < limit && db->dedups.n > 0; n++) {
        mem_dedup *d = MEM_AT(&db->dedups, mem_dedup, 0);
        if (db->now_ms - d->published_ms <= DEDUP_KEEP_MS)
            return;
        free(d->key);
        mem_remove(&db->dedups, sizeof *d, 0);
    }
}

static int64_t longest_keep(const mem_db *db)
{
    int64_t keep = 0;

    for (size_t i = 0; i < db->subs.n; i++) {
        const mem_sub *s = MEM_AT(&db->subs, mem_sub, i);
        if (s->keep_ms > keep)
            keep = s->keep_ms;
    }
    return keep;
}

int mem_op_trim(outbox_store *st, int limit, outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int n = 0, rc = mem_enter_ours(st, MEM_TRIM, true, err);

    if (rc != OUTBOX_OK)
        return rc;
    if (db->subs.n == 0)
        return mem_exit(st, MEM_TRIM, 0, err);
    forget_dedup_keys(db, limit);
    int64_t least = mem_hindmost(db, 0), keep = longest_keep(db);
    while (n < limit && db->log.n > 1) {
        mem_record *r = MEM_AT(&db->log, mem_record, 0);
        if (r->row.position >= least
            || (keep > 0 && db->now_ms - r->row.published_ms < keep))
            break;
        mem_record_free(r);
        mem_remove(&db->log, sizeof *r, 0);
        n++;
    }
    return mem_exit(st, MEM_TRIM, n, err);
}

static int64_t count_of(const mem_array *a, int64_t sub)
{
    int64_t n = 0;

    for (size_t i = 0; i < a->n; i++)
        n += MEM_AT(a, mem_record, i)->sub == sub;
    return n;
}

int mem_op_count(outbox_store *st, int64_t sub, outbox_counts *out,
                 outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int rc = mem_enter_ours(st, MEM_COUNT, false, err);

    if (rc != OUTBOX_OK)
        return rc;
    int64_t least = mem_hindmost(db, sub);
    size_t first = mem_first_past(db, least), end = mem_log_visible(db);
    *out = (outbox_counts){
        .parked = count_of(&db->parked, sub),
        .dead = count_of(&db->dead, sub),
        .scheduled = (int64_t)(db->scheduled.n
                               - mem_pending(db, MEM_UNDO_SCHEDULED)),
        .behind = (int64_t)(end - first),
        .holds_log = least <= mem_hindmost(db, 0),
    };
    if (first < end)
        out->oldest_ms = MEM_AT(&db->log, mem_record, first)->row.published_ms;
    for (size_t i = 0; i < db->parked.n; i++) {
        const mem_record *r = MEM_AT(&db->parked, mem_record, i);
        int64_t t = r->row.published_ms;
        if (r->sub == sub && (out->oldest_ms == 0 || t < out->oldest_ms))
            out->oldest_ms = t;
    }
    for (size_t i = 0; i < db->subs.n; i++) {
        const mem_sub *s = MEM_AT(&db->subs, mem_sub, i);
        if (s->sub == sub)
            out->paused = s->paused;
    }
    return mem_exit(st, MEM_COUNT, OUTBOX_OK, err);
}

static mem_record *first_due(const mem_db *db)
{
    mem_record *best = NULL;

    for (size_t i = 0; i < db->scheduled.n; i++) {
        mem_record *r = MEM_AT(&db->scheduled, mem_record, i);
        if (best == NULL || r->row.due_ms < best->row.due_ms)
            best = r;
    }
    return best;
}

int mem_op_promote(outbox_store *st, int limit, int64_t *next_ms,
                   outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int n = 0, rc = mem_enter_ours(st, MEM_PROMOTE, true, err);
    mem_record *r;

    if (rc != OUTBOX_OK)
        return rc;
    while ((r = first_due(db)) != NULL && r->row.due_ms <= db->now_ms
           && n < limit) {
        if (r->row.published_ms < r->row.due_ms)
            r->row.published_ms = r->row.due_ms;
        if (mem_log_push(db, &r->row) != OUTBOX_OK)
            return mem_exit(st, MEM_PROMOTE, mem_nomem(err), err);
        mem_record_free(r);
        mem_remove(&db->scheduled, sizeof *r,
                   (size_t)(r - (mem_record *)db->scheduled.at));
        n++;
    }
    *next_ms = r == NULL ? -1 : r->row.due_ms - db->now_ms;
    if (r != NULL && *next_ms < 0)
        *next_ms = 0;
    return mem_exit(st, MEM_PROMOTE, n, err);
}

/* ---- people --------------------------------------------------------- */

int mem_op_find(outbox_store *st, const char *name, int64_t *sub,
                outbox_error *err)
{
    int rc = mem_enter_ours(st, MEM_FIND, false, err);

    if (rc != OUTBOX_OK)
        return rc;
    const mem_sub *s = mem_find_sub(mem_db_of(st), name);
    if (s == NULL)
        rc = outbox_error_set(err, OUTBOX_ENOENT, "no subscription %.100s",
                              name);
    else
        *sub = s->sub;
    return mem_exit(st, MEM_FIND, rc, err);
}

int mem_op_dead(outbox_store *st, int64_t sub, int limit, outbox_sink *sink,
                void *arg, outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int n = 0, rc = mem_enter_ours(st, MEM_DEAD, false, err);

    if (rc != OUTBOX_OK)
        return rc;
    for (size_t i = 0; i < db->dead.n && n < limit; i++) {
        const mem_record *r = MEM_AT(&db->dead, mem_record, i);
        if (r->sub != sub)
            continue;
        if (sink(arg, &r->row) != 0)
            break;
        n++;
    }
    return mem_exit(st, MEM_DEAD, n, err);
}

static bool is_meant(const mem_record *r, int64_t sub,
                     const outbox_admin_arg *arg)
{
    return r->sub == sub
        && (arg->id == NULL || memcmp(r->row.id, arg->id, 16) == 0);
}

static bool is_past(mem_db *db, const mem_record *r)
{
    const mem_lane *l = mem_find_lane(db, r->sub, r->row.lane);

    return l == NULL || r->row.position <= l->cursor.position;
}

static void forget_passed(mem_db *db, int64_t sub)
{
    for (size_t i = db->discarded.n; i-- > 0;) {
        const mem_record *r = MEM_AT(&db->discarded, mem_record, i);
        if (r->sub == sub && is_past(db, r))
            mem_remove(&db->discarded, sizeof *r, i);
    }
}

/* What remains of one that the cursor has not passed yet. */
static int bury_deeper(mem_db *db, const mem_record *dead)
{
    mem_record *r = mem_push(&db->discarded, sizeof *r);

    if (r == NULL)
        return OUTBOX_ENOMEM;
    r->sub = dead->sub;
    r->row.lane = dead->row.lane;
    r->row.position = dead->row.position;
    memcpy(r->row.id, dead->row.id, sizeof r->row.id);
    return OUTBOX_OK;
}

static int discard(mem_db *db, int64_t sub, const outbox_admin_arg *arg)
{
    int n = 0, rc = OUTBOX_OK;

    forget_passed(db, sub);
    for (size_t i = db->dead.n; i-- > 0 && rc == OUTBOX_OK;) {
        mem_record *r = MEM_AT(&db->dead, mem_record, i);
        if (!is_meant(r, sub, arg))
            continue;
        if (!is_past(db, r))
            rc = bury_deeper(db, r);
        mem_record_free(r);
        mem_remove(&db->dead, sizeof *r, i);
        n++;
    }
    return rc == OUTBOX_OK ? n : rc;
}

/* The last to die comes to the head first, so that the first ends up there. */
static int revive(mem_db *db, int64_t sub, const outbox_admin_arg *arg)
{
    int n = 0;

    for (size_t i = db->dead.n; i-- > 0;) {
        mem_record r = *MEM_AT(&db->dead, mem_record, i), *head;
        if (!is_meant(&r, sub, arg))
            continue;
        if (mem_push(&db->parked, sizeof r) == NULL)
            return OUTBOX_ENOMEM;
        head = MEM_AT(&db->parked, mem_record, 0);
        memmove(head + 1, head, (db->parked.n - 1) * sizeof r);
        r.row.seq = db->first_seq--;
        r.row.attempts = 0;
        r.row.delay_ms = 0;
        r.blocks = 0;
        *head = r;
        mem_remove(&db->dead, sizeof r, i);
        n++;
    }
    return n;
}

/* The cursor goes to the event before the first that is wanted. */
static int replay(mem_db *db, int64_t sub, int64_t since_ms)
{
    size_t end = mem_log_visible(db), first = 0;
    outbox_cursor to = { 0 };
    int n = 0;

    while (first < end
           && MEM_AT(&db->log, mem_record, first)->row.published_ms < since_ms)
        first++;
    if (first == end)
        return 0;
    if (first > 0)
        to = mem_cursor_at(MEM_AT(&db->log, mem_record, first - 1));
    forget_passed(db, sub);
    for (size_t i = 0; i < db->lane_rows.n; i++) {
        mem_lane *l = MEM_AT(&db->lane_rows, mem_lane, i);
        if (l->sub != sub || l->cursor.position <= to.position)
            continue;
        l->cursor = to;
        l->token++;
        l->crashes = l->starts = 0;
        l->trying = 0;
        memset(l->owner, 0, sizeof l->owner);
        n++;
    }
    return n;
}

static void remove_records(mem_array *a, int64_t sub)
{
    for (size_t i = a->n; i-- > 0;) {
        mem_record *r = MEM_AT(a, mem_record, i);
        if (r->sub != sub)
            continue;
        mem_record_free(r);
        mem_remove(a, sizeof *r, i);
    }
}

static int unsubscribe(mem_db *db, mem_sub *s)
{
    int64_t sub = s->sub;

    remove_records(&db->parked, sub);
    remove_records(&db->dead, sub);
    remove_records(&db->discarded, sub);
    for (size_t i = db->lane_rows.n; i-- > 0;) {
        if (MEM_AT(&db->lane_rows, mem_lane, i)->sub == sub)
            mem_remove(&db->lane_rows, sizeof(mem_lane), i);
    }
    for (size_t i = db->relays.n; i-- > 0;) {
        if (MEM_AT(&db->relays, mem_relay, i)->sub == sub)
            mem_remove(&db->relays, sizeof(mem_relay), i);
    }
    free(s->name);
    mem_remove(&db->subs, sizeof *s, (size_t)(s - (mem_sub *)db->subs.at));
    return 1;
}

static int administer(mem_db *db, mem_sub *s, enum outbox_admin what,
                      const outbox_admin_arg *arg)
{
    switch (what) {
    case OUTBOX_ADMIN_REVIVE:
        s->generation++;
        return revive(db, s->sub, arg);
    case OUTBOX_ADMIN_DISCARD:
        s->generation++;
        return discard(db, s->sub, arg);
    case OUTBOX_ADMIN_PAUSE:
        s->paused = arg->value != 0;
        return 1;
    case OUTBOX_ADMIN_REPLAY:
        return replay(db, s->sub, arg->value);
    case OUTBOX_ADMIN_UNSUBSCRIBE:
        return unsubscribe(db, s);
    }
    return OUTBOX_EINVAL;
}

int mem_op_admin(outbox_store *st, int64_t sub, enum outbox_admin what,
                 const outbox_admin_arg *arg, outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int rc = mem_enter_ours(st, MEM_ADMIN, true, err);

    if (rc != OUTBOX_OK)
        return rc;
    for (size_t i = 0; i < db->subs.n; i++) {
        mem_sub *s = MEM_AT(&db->subs, mem_sub, i);
        if (s->sub != sub)
            continue;
        rc = administer(db, s, what, arg);
        if (rc < 0)
            outbox_error_set(err, rc, "out of memory");
        return mem_exit(st, MEM_ADMIN, rc, err);
    }
    rc = outbox_error_set(err, OUTBOX_ENOENT, "the subscription is gone");
    return mem_exit(st, MEM_ADMIN, rc, err);
}

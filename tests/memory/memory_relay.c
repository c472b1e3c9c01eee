/* SPDX-License-Identifier: MIT
 *
 * memory_relay.c - the operations that a relay asks for, each a transaction
 * of its own under the lock.
 */
#include "memory_db.h"

#include <stdlib.h>
#include <string.h>

/* ---- the relay's side: subscriptions and lanes ---------------------- */

int mem_op_migrate(outbox_store *st, uint32_t lanes, outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int rc = mem_enter_ours(st, MEM_MIGRATE, false, err);

    if (rc != OUTBOX_OK)
        return rc;
    if (db->version > MEM_VERSION || db->changed_checksum)
        rc = outbox_error_set(err, OUTBOX_ESCHEMA, "tables of another make");
    else if (db->version < MEM_VERSION && db->writer != NULL)
        rc = outbox_error_set(err, OUTBOX_EBUSY, "another one is writing");
    else if (db->lanes == 0)
        db->lanes = lanes;
    if (rc == OUTBOX_OK)
        db->version = MEM_VERSION;
    return mem_exit(st, MEM_MIGRATE, rc, err);
}

mem_sub *mem_find_sub(mem_db *db, const char *name)
{
    for (size_t i = 0; i < db->subs.n; i++) {
        mem_sub *s = MEM_AT(&db->subs, mem_sub, i);
        if (strcmp(s->name, name) == 0)
            return s;
    }
    return NULL;
}

mem_lane *mem_find_lane(mem_db *db, int64_t sub, uint32_t lane)
{
    for (size_t i = 0; i < db->lane_rows.n; i++) {
        mem_lane *l = MEM_AT(&db->lane_rows, mem_lane, i);
        if (l->sub == sub && l->lane == lane)
            return l;
    }
    return NULL;
}

outbox_cursor mem_cursor_at(const mem_record *r)
{
    outbox_cursor c = { .window = 0, .position = r->row.position };

    memcpy(c.id, r->row.id, sizeof c.id);
    return c;
}

static outbox_cursor newest(mem_db *db)
{
    size_t n = mem_log_visible(db);

    return n == 0 ? (outbox_cursor){ 0 }
                  : mem_cursor_at(MEM_AT(&db->log, mem_record, n - 1));
}

static mem_sub *make_sub(mem_db *db, const outbox_subscription *sub)
{
    char *name = strdup(sub->name);
    mem_sub *s = name != NULL ? mem_push(&db->subs, sizeof *s) : NULL;

    if (s == NULL) {
        free(name);
        return NULL;
    }
    s->name = name;
    s->sub = ++db->last_sub;
    for (uint32_t i = 0; i < db->lanes; i++) {
        mem_lane *l = mem_push(&db->lane_rows, sizeof *l);
        if (l == NULL)
            return NULL;
        l->sub = s->sub;
        l->lane = i;
        if (sub->start == OUTBOX_START_NOW)
            l->cursor = newest(db);
    }
    return s;
}

static int gone(const char *name, outbox_error *err)
{
    return outbox_error_set(err, OUTBOX_ENOENT, "no subscription %.100s",
                            name);
}

int mem_op_attach(outbox_store *st, outbox_subscription *sub,
                  outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int rc = mem_enter_ours(st, MEM_ATTACH, true, err);

    if (rc != OUTBOX_OK)
        return rc;
    mem_sub *s = mem_find_sub(db, sub->name);
    if (s == NULL && !sub->create)
        return mem_exit(st, MEM_ATTACH, gone(sub->name, err), err);
    if (s == NULL)
        s = make_sub(db, sub);
    if (s == NULL)
        return mem_exit(st, MEM_ATTACH, mem_nomem(err), err);
    s->keep_ms = sub->keep_ms;
    sub->sub = s->sub;
    sub->lanes = db->lanes;
    sub->paused = s->paused;
    sub->generation = s->generation;
    return mem_exit(st, MEM_ATTACH, OUTBOX_OK, err);
}

static mem_relay *find_relay(mem_db *db, int64_t sub, const uint8_t id[16])
{
    for (size_t i = 0; i < db->relays.n; i++) {
        mem_relay *r = MEM_AT(&db->relays, mem_relay, i);
        if (r->sub == sub && memcmp(r->beat.id, id, 16) == 0)
            return r;
    }
    return NULL;
}

static int64_t beat_of(mem_db *db, int64_t sub, const uint8_t id[16])
{
    const mem_relay *r = find_relay(db, sub, id);

    return r != NULL ? r->beat.beat : -1;
}

static void show_lane(mem_db *db, const mem_lane *l, outbox_lane *out)
{
    *out = (outbox_lane){ .lane = l->lane, .token = l->token };
    memcpy(out->owner, l->owner, sizeof out->owner);
    out->beat = beat_of(db, l->sub, l->owner);
}

static int by_id(const void *a, const void *b)
{
    const outbox_beat *left = a, *right = b;

    return memcmp(left->id, right->id, sizeof left->id);
}

static int list_relays(mem_db *db, int64_t sub, outbox_beat *relays, int max)
{
    int n = 0;

    for (size_t i = 0; i < db->relays.n && n < max; i++) {
        const mem_relay *r = MEM_AT(&db->relays, mem_relay, i);
        if (r->sub == sub)
            relays[n++] = r->beat;
    }
    qsort(relays, (size_t)n, sizeof *relays, by_id);
    return n;
}

static mem_relay *count_beat(mem_db *db, int64_t sub, const uint8_t me[16],
                             uint32_t want, bool frozen)
{
    mem_relay *r = find_relay(db, sub, me);

    if (r == NULL) {
        r = mem_push(&db->relays, sizeof *r);
        if (r == NULL)
            return NULL;
        r->sub = sub;
        memcpy(r->beat.id, me, sizeof r->beat.id);
    }
    r->beat.beat += !frozen;
    r->beat.want = want;
    return r;
}

static mem_sub *sub_of(mem_db *db, int64_t sub)
{
    for (size_t i = 0; i < db->subs.n; i++) {
        mem_sub *s = MEM_AT(&db->subs, mem_sub, i);
        if (s->sub == sub)
            return s;
    }
    return NULL;
}

int mem_op_beat(outbox_store *st, outbox_subscription *sub,
                const uint8_t me[16], int want, outbox_lane *lanes,
                uint32_t n_lanes, outbox_beat *relays, int max,
                outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    bool frozen = mem_conn_of(st)->frozen;
    int rc = mem_enter_ours(st, MEM_BEAT, want >= 0, err);

    if (rc != OUTBOX_OK)
        return rc;
    const mem_sub *s = sub_of(db, sub->sub);
    if (s == NULL)
        return mem_exit(st, MEM_BEAT, gone(sub->name, err), err);
    if (want >= 0
        && count_beat(db, s->sub, me, (uint32_t)want, frozen) == NULL)
        return mem_exit(st, MEM_BEAT, mem_nomem(err), err);
    sub->paused = s->paused;
    sub->generation = s->generation;
    for (uint32_t i = 0; i < n_lanes; i++) {
        const mem_lane *l = mem_find_lane(db, s->sub, i);
        if (l != NULL)
            show_lane(db, l, &lanes[i]);
    }
    rc = list_relays(db, s->sub, relays, max);
    return mem_exit(st, MEM_BEAT, rc, err);
}

size_t mem_first_past(const mem_db *db, int64_t position)
{
    size_t low = 0, high = mem_log_visible(db);

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (MEM_AT(&db->log, mem_record, mid)->row.position <= position)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool anchored(const mem_db *db, const outbox_cursor *c)
{
    size_t i = mem_first_past(db, c->position);

    if (c->position == 0)
        return true;
    if (i == 0)
        return false;
    const outbox_row *row = &MEM_AT(&db->log, mem_record, i - 1)->row;
    return row->position == c->position
        && memcmp(row->id, c->id, sizeof c->id) == 0;
}

int64_t mem_hindmost(const mem_db *db, int64_t sub)
{
    int64_t least = INT64_MAX;

    for (size_t i = 0; i < db->lane_rows.n; i++) {
        const mem_lane *l = MEM_AT(&db->lane_rows, mem_lane, i);
        if (sub != 0 && l->sub != sub)
            continue;
        int64_t at = anchored(db, &l->cursor) ? l->cursor.position : 0;
        if (at < least)
            least = at;
    }
    return least;
}

static bool is_free(const mem_lane *l)
{
    static const uint8_t nobody[16];

    return memcmp(l->owner, nobody, sizeof nobody) == 0;
}

static void take_lane(mem_db *db, mem_lane *l, const uint8_t me[16],
                      outbox_lane *out)
{
    if (is_free(l))
        l->crashes = 0;
    else if (memcmp(l->owner, me, sizeof l->owner) != 0)
        l->crashes++;
    memcpy(l->owner, me, sizeof l->owner);
    l->token++;
    if (!anchored(db, &l->cursor)) {
        l->cursor = (outbox_cursor){ 0 };
        out->rescan = 1;
    }
    out->held = 1;
    out->token = l->token;
    out->cursor = l->cursor;
    out->crashes = l->crashes;
    out->on_trial = l->trying != 0;
    memcpy(out->owner, me, sizeof out->owner);
}

int mem_op_acquire(outbox_store *st, int64_t sub, const uint8_t me[16],
                       outbox_lane *lanes, uint32_t n, outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int rc = mem_enter_ours(st, MEM_ACQUIRE, true, err);

    if (rc != OUTBOX_OK)
        return rc;
    for (uint32_t i = 0; i < n; i++) {
        mem_lane *l = mem_find_lane(db, sub, lanes[i].lane);
        lanes[i].held = lanes[i].rescan = 0;
        if (l != NULL && l->token == lanes[i].token
            && beat_of(db, sub, l->owner) == lanes[i].beat)
            take_lane(db, l, me, &lanes[i]);
    }
    return mem_exit(st, MEM_ACQUIRE, OUTBOX_OK, err);
}

/* ---- reading -------------------------------------------------------- */

static size_t first_after(const mem_db *db, const outbox_lane *lanes,
                          uint32_t n)
{
    int64_t least = n != 0 ? lanes[0].cursor.position : 0;

    for (uint32_t k = 1; k < n; k++) {
        if (lanes[k].cursor.position < least)
            least = lanes[k].cursor.position;
    }
    return mem_first_past(db, least);
}

/* Rows of lanes that were not asked for, and rows before the cursor of their
 * lane, are looked at but not given. */
static bool wanted(const outbox_row *row, const outbox_lane *lanes, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++) {
        if (lanes[k].lane == row->lane)
            return row->position > lanes[k].cursor.position;
    }
    return false;
}

static void advance(outbox_lane *lanes, uint32_t n, const mem_record *last)
{
    for (uint32_t k = 0; k < n; k++) {
        if (lanes[k].cursor.position < last->row.position)
            lanes[k].cursor = mem_cursor_at(last);
    }
}

static int read_rows(mem_db *db, outbox_lane *lanes, uint32_t n, int limit,
                     outbox_sink *sink, void *arg)
{
    size_t end = mem_log_visible(db);
    const mem_record *last = NULL;
    int seen = 0;

    for (size_t i = first_after(db, lanes, n); i < end && seen < limit; i++) {
        const mem_record *r = MEM_AT(&db->log, mem_record, i);
        if (wanted(&r->row, lanes, n) && sink(arg, &r->row) != 0)
            break;
        last = r;
        seen++;
    }
    if (last != NULL)
        advance(lanes, n, last);
    return seen;
}

int mem_op_read(outbox_store *st, int64_t sub, outbox_lane *lanes,
                    uint32_t n, int limit, outbox_sink *sink, void *arg,
                    outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int rc = mem_enter_ours(st, MEM_READ, false, err);

    (void)sub;
    if (rc != OUTBOX_OK)
        return rc;
    for (uint32_t k = 0; k < n && rc == OUTBOX_OK; k++) {
        if (!anchored(db, &lanes[k].cursor))
            rc = outbox_error_set(err, OUTBOX_ESTALE, "not the log it was");
    }
    if (rc == OUTBOX_OK)
        rc = read_rows(db, lanes, n, limit, sink, arg);
    return mem_exit(st, MEM_READ, rc, err);
}

/* ---- saving --------------------------------------------------------- */

static size_t find_parked(const mem_db *db, int64_t sub, int64_t seq)
{
    size_t i = 0;

    while (i < db->parked.n) {
        const mem_record *r = MEM_AT(&db->parked, mem_record, i);
        if (r->sub == sub && r->row.seq == seq)
            break;
        i++;
    }
    return i;
}

static int add_record(mem_db *db, mem_array *to, int64_t sub,
                      const outbox_row *row, outbox_error *err)
{
    mem_record *r = mem_push(to, sizeof *r);

    if (r == NULL || !mem_record_copy(r, row)) {
        to->n -= r != NULL;
        return mem_nomem(err);
    }
    r->sub = sub;
    r->row.lane = (uint32_t)(row->chain % db->lanes);
    return OUTBOX_OK;
}

static int park(mem_db *db, int64_t sub, const outbox_row *row,
                outbox_error *err)
{
    int rc = add_record(db, &db->parked, sub, row, err);

    if (rc == OUTBOX_OK)
        MEM_AT(&db->parked, mem_record, db->parked.n - 1)->row.seq =
            ++db->last_seq;
    return rc;
}

static int again(mem_db *db, int64_t sub, const outbox_row *row,
                 outbox_error *err)
{
    size_t i = find_parked(db, sub, row->seq);

    if (i == db->parked.n)
        return outbox_error_set(err, OUTBOX_EDB, "no such parked row");
    mem_record *old = MEM_AT(&db->parked, mem_record, i), copy;
    outbox_row changed = old->row;
    changed.attempts = row->attempts;
    changed.delay_ms = row->delay_ms;
    changed.why = row->why;
    if (!mem_record_copy(&copy, &changed))
        return mem_nomem(err);
    free(old->block);
    old->row = copy.row;
    old->block = copy.block;
    return OUTBOX_OK;
}

static int unpark(mem_db *db, int64_t sub, int64_t seq, outbox_error *err)
{
    size_t i = find_parked(db, sub, seq);

    if (i == db->parked.n)
        return outbox_error_set(err, OUTBOX_EDB, "no such parked row");
    mem_record_free(MEM_AT(&db->parked, mem_record, i));
    mem_remove(&db->parked, sizeof(mem_record), i);
    return OUTBOX_OK;
}

static int bury(mem_db *db, int64_t sub, const outbox_change *ch,
                outbox_error *err)
{
    outbox_row row = ch->row;
    int rc;

    if (row.seq != 0) {
        size_t i = find_parked(db, sub, row.seq);
        if (i == db->parked.n)
            return outbox_error_set(err, OUTBOX_EDB, "no such parked row");
        row = MEM_AT(&db->parked, mem_record, i)->row;
        row.attempts = ch->row.attempts;
        row.why = ch->row.why;
    }
    row.died_ms = db->now_ms;
    rc = add_record(db, &db->dead, sub, &row, err);
    if (rc != OUTBOX_OK)
        return rc;
    MEM_AT(&db->dead, mem_record, db->dead.n - 1)->blocks = ch->blocks;
    return row.seq != 0 ? unpark(db, sub, row.seq, err) : OUTBOX_OK;
}

static int apply(mem_db *db, int64_t sub, const outbox_change *ch,
                 outbox_error *err)
{
    switch (ch->kind) {
    case OUTBOX_PARK:
        return park(db, sub, &ch->row, err);
    case OUTBOX_AGAIN:
        return again(db, sub, &ch->row, err);
    case OUTBOX_UNPARK:
        return unpark(db, sub, ch->row.seq, err);
    case OUTBOX_BURY:
        return bury(db, sub, ch, err);
    }
    return outbox_error_set(err, OUTBOX_EINVAL, "no such change");
}

static bool still_held(mem_db *db, int64_t sub, const uint8_t me[16],
                       outbox_lane *lanes, uint32_t n)
{
    bool all = true;

    for (uint32_t k = 0; k < n; k++) {
        const mem_lane *l = mem_find_lane(db, sub, lanes[k].lane);
        lanes[k].held = l != NULL && l->token == lanes[k].token
                     && memcmp(l->owner, me, 16) == 0;
        all = all && lanes[k].held;
    }
    return all;
}

static void move_cursor(mem_lane *l, const outbox_lane *to)
{
    if (l->cursor.position != to->cursor.position || to->release)
        l->crashes = 0;
    if (to->on_trial || to->release)
        l->trying = l->starts = 0;
    l->cursor = to->cursor;
    if (to->release)
        memset(l->owner, 0, sizeof l->owner);
}

/* A change that cannot be applied is a defect of the caller, and all that can
 * fail besides is malloc: so nothing here needs undoing in earnest. */
int mem_op_save(outbox_store *st, int64_t sub, const uint8_t me[16],
                    outbox_lane *lanes, uint32_t n,
                    const outbox_change *changes, size_t n_changes,
                    outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    bool gives_back = false;
    int rc = mem_enter_ours(st, MEM_SAVE, true, err);

    if (rc != OUTBOX_OK)
        return rc;
    if (!still_held(db, sub, me, lanes, n))
        rc = outbox_error_set(err, OUTBOX_ESTALE, "a lease is lost");
    for (size_t i = 0; i < n_changes && rc == OUTBOX_OK; i++)
        rc = apply(db, sub, &changes[i], err);
    for (uint32_t k = 0; k < n && rc == OUTBOX_OK; k++) {
        move_cursor(mem_find_lane(db, sub, lanes[k].lane), &lanes[k]);
        gives_back = gives_back || lanes[k].release;
    }
    if (gives_back && rc == OUTBOX_OK)
        mem_ring_bells(db);
    return mem_exit(st, MEM_SAVE, rc, err);
}

int mem_op_trial(outbox_store *st, int64_t sub, const uint8_t me[16],
                 const outbox_lane *lane, int64_t position, outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int rc = mem_enter_ours(st, MEM_TRIAL, true, err);

    if (rc != OUTBOX_OK)
        return rc;
    mem_lane *l = mem_find_lane(db, sub, lane->lane);
    if (l == NULL || l->token != lane->token
        || memcmp(l->owner, me, sizeof l->owner) != 0) {
        rc = outbox_error_set(err, OUTBOX_ESTALE, "a lease is lost");
        return mem_exit(st, MEM_TRIAL, rc, err);
    }
    if (l->trying != position)
        l->starts = 1;
    else if (memcmp(l->trier, me, sizeof l->trier) != 0)
        l->starts++;
    l->trying = position;
    memcpy(l->trier, me, sizeof l->trier);
    return mem_exit(st, MEM_TRIAL, l->starts, err);
}

/* ---- parked and dead ------------------------------------------------ */

int mem_op_parked(outbox_store *st, int64_t sub, uint64_t chain, int limit,
                      outbox_sink *sink, void *arg, outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int given = 0, rc = mem_enter_ours(st, MEM_PARKED, false, err);

    if (rc != OUTBOX_OK)
        return rc;
    for (size_t i = 0; i < db->parked.n && given < limit; i++) {
        const mem_record *r = MEM_AT(&db->parked, mem_record, i);
        if (r->sub != sub || r->row.chain != chain)
            continue;
        if (sink(arg, &r->row) != 0)
            break;
        given++;
    }
    return mem_exit(st, MEM_PARKED, given, err);
}

/* Is r the first of its chain, among the parked or among the blocking dead? */
static bool heads_chain(const mem_array *a, const mem_record *r)
{
    for (size_t i = 0; i < a->n; i++) {
        const mem_record *other = MEM_AT(a, mem_record, i);
        if (other == r)
            return true;
        if (other->sub == r->sub && other->row.chain == r->row.chain
            && other->blocks == r->blocks)
            return false;
    }
    return false;
}

static bool dead_blocks(const mem_db *db, int64_t sub, uint64_t chain)
{
    for (size_t i = 0; i < db->dead.n; i++) {
        const mem_record *r = MEM_AT(&db->dead, mem_record, i);
        if (r->sub == sub && r->row.chain == chain && r->blocks)
            return true;
    }
    return false;
}

static int give_heads(mem_db *db, const mem_array *a, int64_t sub,
                      uint32_t lane, outbox_sink *sink, void *arg)
{
    bool dead = a == &db->dead;
    int n = 0;

    for (size_t i = 0; i < a->n; i++) {
        const mem_record *r = MEM_AT(a, mem_record, i);
        outbox_row row = r->row;
        if (r->sub != sub || row.lane != lane || !heads_chain(a, r)
            || (dead ? !r->blocks : dead_blocks(db, sub, row.chain)))
            continue;
        if (dead)
            row.delay_ms = -1;
        if (sink(arg, &row) != 0)
            break;
        n++;
    }
    return n;
}

/* What the log still has past the cursor, though it is parked, dead or
 * discarded. */
static int give_aside(mem_db *db, const mem_array *a, int64_t sub,
                      uint32_t lane, outbox_sink *sink, void *arg)
{
    const mem_lane *l = mem_find_lane(db, sub, lane);
    int n = 0;

    for (size_t i = 0; l != NULL && i < a->n; i++) {
        const mem_record *r = MEM_AT(a, mem_record, i);
        outbox_row row = { .lane = lane, .delay_ms = -2,
                           .position = r->row.position };
        memcpy(row.id, r->row.id, sizeof row.id);
        if (r->sub != sub || r->row.lane != lane
            || row.position <= l->cursor.position)
            continue;
        if (sink(arg, &row) != 0)
            break;
        n++;
    }
    return n;
}

int mem_op_blocked(outbox_store *st, int64_t sub, uint32_t lane,
                       outbox_sink *sink, void *arg, outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int rc = mem_enter_ours(st, MEM_BLOCKED, false, err);

    if (rc != OUTBOX_OK)
        return rc;
    rc = give_heads(db, &db->dead, sub, lane, sink, arg)
       + give_heads(db, &db->parked, sub, lane, sink, arg)
       + give_aside(db, &db->parked, sub, lane, sink, arg)
       + give_aside(db, &db->dead, sub, lane, sink, arg)
       + give_aside(db, &db->discarded, sub, lane, sink, arg);
    return mem_exit(st, MEM_BLOCKED, rc, err);
}

/* ---- leaving -------------------------------------------------------- */

static bool owns_lane(mem_db *db, int64_t sub, const uint8_t id[16])
{
    bool owns = false;

    for (uint32_t i = 0; i < OUTBOX_MAX_LANES && !owns; i++) {
        const mem_lane *l = mem_find_lane(db, sub, i);
        owns = l != NULL && memcmp(l->owner, id, sizeof l->owner) == 0;
    }
    return owns;
}

int mem_op_leave(outbox_store *st, int64_t sub, const uint8_t me[16],
                     outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int rc = mem_enter_ours(st, MEM_LEAVE, true, err);

    if (rc != OUTBOX_OK)
        return rc;
    mem_relay *r = find_relay(db, sub, me);
    if (r != NULL && !owns_lane(db, sub, me))
        mem_remove(&db->relays, sizeof *r,
                   (size_t)(r - (mem_relay *)db->relays.at));
    return mem_exit(st, MEM_LEAVE, OUTBOX_OK, err);
}

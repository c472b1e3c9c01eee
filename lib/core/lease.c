/* SPDX-License-Identifier: MIT
 *
 * lease.c - which lanes are ours, without trusting any wall clock.
 *
 * Each relay counts its beat up every lease_ms / 4.  A rival watches (token,
 * beat) of a lane's owner by its own monotonic clock; when nothing has moved
 * for lease_ms, it takes the lane by compare-and-swap, and the token grows.
 * Every save carries the token in the statement that writes, so an owner that
 * was only asleep writes nothing any more.
 *
 * Invariants (tests/contract: lease, sharing; mutants no-fence, stale-lease,
 * lease-not-checked):
 *  1. Progress of a lane is written by the owner of its newest token alone.
 *  2. Nothing is sent later than lease_ms minus an eighth after the moment
 *     just before the last beat was written: before any rival may take over,
 *     unless the process is stopped between that check and the send.
 *  3. What is forgotten with a lane is read again by its next owner.
 *
 * Sharing: every relay sees the same living relays and shares the lanes out
 * in the order of their ids, so all come to the same answer without talking.
 * Lanes that are free, and that one does not take which has less than its
 * share, go to the others at once, for it may have died (tests/contract:
 * what_a_stopped_one_leaves_does_not_wait_for_a_dead_one); when its beat
 * moves they give them back (a_slow_one_has_its_share_back).
 */
#include "relay.h"

#include <syslog.h>

enum { LOOK_MS = 250, HURRY_MS = 20, MAX_MISSED = 5 };

static int64_t margin_ms(const outbox_relay_t *r)
{
    return r->opt.lease_ms / 8 + 1;
}

bool ob_lease_valid(const outbox_relay_t *r, int64_t now_ms)
{
    return now_ms < r->lease_until_ms;
}

uint32_t ob_lease_count(const outbox_relay_t *r)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < r->sub.lanes; i++)
        n += r->lanes[i].mine;
    return n;
}

/* Called with the lock held. */
void ob_lease_lost(outbox_relay_t *r, uint32_t lane)
{
    ob_lane *l = &r->lanes[lane];

    if (!l->mine)
        return;
    l->mine = l->leaving = false;
    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        ob_slot *s = ob_window_nth(&r->win, i);
        if (s->lane == lane && s->lease == l->lease && s->state < OB_DONE)
            ob_window_finish(&r->win, s, OB_GONE, false);
    }
    ob_blocked_drop_lane(r, lane);
}

void ob_lease_taken(outbox_relay_t *r, uint32_t lane)
{
    ob_relay_log(r, LOG_WARNING, "lane %u was taken over, by another relay or "
                 "for a replay", (unsigned)lane);
    r->stats.leases_lost++;
    ob_lease_lost(r, lane);
}

/* ---- watching others ------------------------------------------------ */

static void watch(outbox_relay_t *r, const outbox_lane *seen)
{
    ob_lane *l = &r->lanes[seen->lane];

    if (l->seen_ms != 0 && memcmp(l->owner, seen->owner, 16) == 0 &&
        l->seen_token == seen->token && l->seen_beat == seen->beat)
        return;
    memcpy(l->owner, seen->owner, 16);
    l->seen_token = seen->token;
    l->seen_beat = seen->beat;
    l->seen_ms = r->now_ms;
}

static bool may_take(const outbox_relay_t *r, const ob_lane *l)
{
    if (l->mine)
        return false;
    return ob_uuid_is_zero(l->owner) || memcmp(l->owner, r->id, 16) == 0 ||
           r->now_ms - l->seen_ms >= (int64_t)r->opt.lease_ms;
}

static void watch_peers(outbox_relay_t *r, const outbox_beat *beats, int n)
{
    ob_peer now[OB_MAX_PEERS];

    for (int i = 0; i < n; i++) {
        now[i] = (ob_peer){ .beat = beats[i], .seen_ms = r->now_ms };
        for (int k = 0; k < r->n_peers; k++) {
            const ob_peer *p = &r->peers[k];
            if (memcmp(p->beat.id, beats[i].id, 16) != 0)
                continue;
            now[i].missed = p->missed;
            if (p->beat.beat != beats[i].beat)
                continue;
            now[i].seen_ms = p->seen_ms;
            now[i].absent = p->absent;
        }
    }
    memcpy(r->peers, now, (size_t)n * sizeof *now);
    r->n_peers = n;
}

/* ---- sharing -------------------------------------------------------- */

static bool is_me(const outbox_relay_t *r, const ob_peer *p)
{
    return memcmp(p->beat.id, r->id, 16) == 0;
}

static bool peer_alive(const outbox_relay_t *r, const ob_peer *p)
{
    return is_me(r, p) || r->now_ms - p->seen_ms < (int64_t)r->opt.lease_ms;
}

/* One lane to each in turn, in the order of ids, until none is left or all
 * have what they want. */
static void share_out(const outbox_relay_t *r, uint32_t share[OB_MAX_PEERS])
{
    uint32_t left = r->sub.lanes;
    bool moved = true;

    memset(share, 0, OB_MAX_PEERS * sizeof *share);
    while (left > 0 && moved) {
        moved = false;
        for (int i = 0; i < r->n_peers && left > 0; i++) {
            const ob_peer *p = &r->peers[i];
            if (p->absent || !peer_alive(r, p) || share[i] >= p->beat.want)
                continue;
            share[i]++;
            left--;
            moved = true;
        }
    }
}

static uint32_t fair_share(const outbox_relay_t *r)
{
    uint32_t share[OB_MAX_PEERS];

    share_out(r, share);
    for (int i = 0; i < r->n_peers; i++) {
        if (is_me(r, &r->peers[i]))
            return share[i];
    }
    return 0;
}

/* Who drains takes nothing more. */
static uint32_t want(const outbox_relay_t *r)
{
    uint32_t most = r->opt.max_lanes;

    if (r->draining)
        return 0;
    return most == 0 || most > r->sub.lanes ? r->sub.lanes : most;
}

static uint32_t lanes_of(const outbox_relay_t *r, const uint8_t id[16])
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < r->sub.lanes; i++)
        n += memcmp(r->lanes[i].owner, id, 16) == 0;
    return n;
}

/* For how long a lane has been free that nobody takes; 0: none is. */
static int64_t lying_free_ms(const outbox_relay_t *r)
{
    int64_t longest = 0;

    for (uint32_t i = 0; i < r->sub.lanes; i++) {
        const ob_lane *l = &r->lanes[i];
        if (l->mine || !ob_uuid_is_zero(l->owner) || l->seen_ms == 0)
            continue;
        int64_t since = l->seen_ms > r->dealt_ms ? l->seen_ms : r->dealt_ms;
        if (r->now_ms - since >= longest)
            longest = r->now_ms - since + 1;
    }
    return longest;
}

static uint32_t staying(const outbox_relay_t *r)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < r->sub.lanes; i++)
        n += r->lanes[i].mine && !r->lanes[i].leaving;
    return n;
}

/* Who has less than its share while lanes lie free may have died just now:
 * the others share them without it, until its beat moves.  If it was merely
 * slow, it is given more time at the next such occasion. */
static void note_absent(outbox_relay_t *r)
{
    int64_t free_ms = lying_free_ms(r);
    uint32_t share[OB_MAX_PEERS];

    if (free_ms <= 2 * HURRY_MS)
        return;
    if (staying(r) < fair_share(r)) {   /* they were kept from us, too */
        r->dealt_ms = r->now_ms;
        return;
    }
    share_out(r, share);
    for (int i = 0; i < r->n_peers; i++) {
        ob_peer *p = &r->peers[i];
        if (is_me(r, p) || p->absent)
            continue;
        if (lanes_of(r, p->beat.id) >= share[i]) {
            p->missed = 0;
        } else if (free_ms > 2 * HURRY_MS << p->missed) {
            p->absent = true;
            p->missed += p->missed < MAX_MISSED;
            r->dealt_ms = r->now_ms;
        }
    }
}

/* ---- taking --------------------------------------------------------- */

static int lane_taken(outbox_relay_t *r, const outbox_lane *got,
                      outbox_error *err)
{
    ob_lane *l = &r->lanes[got->lane];

    memcpy(l->owner, r->id, sizeof l->owner);
    l->mine = true;
    l->leaving = false;
    l->lease++;
    l->token = got->token;
    l->read = l->done = l->saved = got->cursor;
    if (got->rescan)
        ob_relay_log(r, LOG_WARNING,
                     "lane %u: the log is not the one that was read before; "
                     "delivering again from its oldest event",
                     (unsigned)got->lane);
    l->on_trial = false;                /* the dead owner's, not ours */
    l->trials = got->on_trial || got->crashes > 1 ? OB_TRIAL_EVENTS : 0;
    l->precounts = got->crashes > 0 ? OB_TRIAL_EVENTS : 0;
    if (l->trials > 0)
        ob_relay_log(r, LOG_WARNING,
                     "lane %u: its owner died %d times at the same place; "
                     "sending one event at a time", (unsigned)got->lane,
                     (int)got->crashes);
    r->log_idle = false;
    int rc = ob_blocked_load(r, got->lane, err);
    l->mine = rc == OUTBOX_OK;          /* else events would overtake */
    return rc;
}

/* Ours in the table, and forgotten here: nobody else may take it, so we do,
 * whatever our share is. */
static bool owns(const outbox_relay_t *r, const ob_lane *l)
{
    return !l->mine && memcmp(l->owner, r->id, 16) == 0;
}

uint32_t ob_lease_forgotten(const outbox_relay_t *r)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < r->sub.lanes; i++)
        n += owns(r, &r->lanes[i]);
    return n;
}

static int take(outbox_relay_t *r, uint32_t n, outbox_error *err)
{
    outbox_lane io[OUTBOX_MAX_LANES];
    uint32_t wanted = 0, others = 0;

    for (uint32_t i = 0; i < r->sub.lanes; i++) {
        const ob_lane *l = &r->lanes[i];
        if (!may_take(r, l) || (!owns(r, l) && others >= n))
            continue;
        others += !owns(r, l);
        memset(&io[wanted], 0, sizeof io[wanted]);
        io[wanted].lane = i;
        io[wanted].token = l->seen_token;
        io[wanted].beat = l->seen_beat;
        memcpy(io[wanted].owner, l->owner, 16);
        wanted++;
    }
    if (wanted == 0)
        return OUTBOX_OK;
    int rc = r->store->ops->acquire(r->store, r->sub.sub, r->id, io, wanted,
                                    err);
    for (uint32_t i = 0; i < wanted && rc >= 0; i++) {
        r->lanes[io[i].lane].seen_ms = 0;
        if (io[i].held)
            rc = lane_taken(r, &io[i], err);
    }
    return rc < 0 ? rc : OUTBOX_OK;
}

/* Give back what is over our share, the last lanes first. */
static void give_back(outbox_relay_t *r, uint32_t n)
{
    for (uint32_t i = r->sub.lanes; i-- > 0 && n > 0;) {
        ob_lane *l = &r->lanes[i];
        if (l->mine && !l->leaving) {
            l->leaving = true;
            r->dirty = true;            /* the save lets it go */
            r->save_ms = r->now_ms;
            n--;
        }
    }
}

static void lane_seen(outbox_relay_t *r, const outbox_lane *seen)
{
    const ob_lane *l = &r->lanes[seen->lane];

    if (l->mine && (l->token != seen->token ||
                    memcmp(seen->owner, r->id, 16) != 0))
        ob_lease_taken(r, seen->lane);
    watch(r, seen);
}

/* ---- the turn ------------------------------------------------------- */

static int look(outbox_relay_t *r, bool beats, outbox_error *err)
{
    outbox_lane io[OUTBOX_MAX_LANES];
    outbox_beat peers[OB_MAX_PEERS];
    int64_t before_ms = r->now_ms;
    bool held = r->sub.paused || !ob_lease_valid(r, before_ms);

    memset(io, 0, sizeof io);
    int n = r->store->ops->beat(r->store, &r->sub, r->id,
                                beats ? (int)want(r) : -1, io, r->sub.lanes,
                                peers, OB_MAX_PEERS, err);
    if (n < 0)
        return n;
    /* What was seen may have been written only just now: a rival's lease is
     * counted from after the look, ours from before it. */
    r->now_ms = ob_relay_clock(r);
    r->looked_ms = r->now_ms;
    if (beats) {
        r->beat_ms = before_ms + r->opt.lease_ms / 4;
        r->lease_until_ms = before_ms + r->opt.lease_ms - margin_ms(r);
    }
    r->log_idle = r->log_idle && !held;     /* read again, if we may now */
    watch_peers(r, peers, n);
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < r->sub.lanes; i++)
        lane_seen(r, &io[i]);
    pthread_mutex_unlock(&r->lock);
    return OUTBOX_OK;
}

/* Look again when the first foreign lease may have run out, and often enough
 * to notice a beat soon after it was written; often, where a lane is about to
 * change hands. */
static void plan_next_look(outbox_relay_t *r, bool lacking)
{
    bool hurry = lacking ||
                 (lying_free_ms(r) > 0 && staying(r) < want(r));
    int64_t next = r->now_ms + (hurry ? HURRY_MS : LOOK_MS);

    if (next > r->beat_ms)
        next = r->beat_ms;
    for (uint32_t i = 0; lacking && i < r->sub.lanes; i++) {
        const ob_lane *l = &r->lanes[i];
        int64_t out = l->seen_ms + r->opt.lease_ms;
        if (!l->mine && out < next)
            next = out;
    }
    r->look_ms = next > r->now_ms ? next : r->now_ms + 1;
}

/* A commit by somebody else may have been a relay letting go of lanes.  Who
 * does not sleep is not told of any. */
static bool look_due(const outbox_relay_t *r)
{
    if (r->now_ms >= r->look_ms || r->now_ms >= r->beat_ms)
        return true;
    return (r->woken || (!r->slept && r->n_peers > 1)) &&
           r->now_ms >= r->looked_ms + HURRY_MS;
}

/* A relay whose row stands still is not coming back under that id, or makes a
 * new row if it does.  Without the row a newcomer does not take it for living
 * and leave it a share; while it owns a lane the row is what tells that it is
 * dead, and who takes the lane counts that death. */
static int forget_dead_peers(outbox_relay_t *r, outbox_error *err)
{
    int rc = OUTBOX_OK;

    for (int i = 0; i < r->n_peers && rc == OUTBOX_OK; i++) {
        const ob_peer *p = &r->peers[i];
        if (!peer_alive(r, p) && lanes_of(r, p->beat.id) == 0)
            rc = r->store->ops->leave(r->store, r->sub.sub, p->beat.id, err);
    }
    return rc;
}

static int dead_changed(outbox_relay_t *r, outbox_error *err)
{
    if (r->generation == r->sub.generation)
        return OUTBOX_OK;
    r->log_idle = false;
    int rc = ob_blocked_reload(r, err);
    if (rc == OUTBOX_OK)
        r->generation = r->sub.generation;
    return rc;
}

int ob_lease_turn(outbox_relay_t *r, outbox_error *err)
{
    if (!look_due(r))
        return OUTBOX_OK;
    bool beats = r->now_ms >= r->beat_ms;
    int rc = look(r, beats, err);
    r->woken = r->slept = false;
    if (rc == OUTBOX_OK && beats)
        rc = forget_dead_peers(r, err);
    if (rc == OUTBOX_OK)
        rc = dead_changed(r, err);
    if (rc != OUTBOX_OK)
        return rc;
    note_absent(r);
    uint32_t share = r->draining ? 0 : fair_share(r), have = staying(r);
    if (have > share)
        give_back(r, have - share);
    if ((have < share || ob_lease_forgotten(r) > 0) &&
        ob_lease_valid(r, r->now_ms))
        rc = take(r, have < share ? share - have : 0, err);
    if (rc == OUTBOX_OK)                /* else it is due still */
        plan_next_look(r, ob_lease_count(r) < share);
    return rc;
}

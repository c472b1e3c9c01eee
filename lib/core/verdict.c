/* SPDX-License-Identifier: MIT
 *
 * verdict.c - what a verdict does: failures in three kinds.
 *
 * A RETRY alone does not tell whether the event or the destination is to
 * blame.  So the event becomes a suspect, waits, and is tried again without
 * anything being counted against it.  When another event passes, or is
 * rejected by a destination that is plainly alive, every suspect is found to
 * have failed by itself: that counts, it is parked, and after max_attempts
 * it is dead.  When breaker_failures events are suspect at once, it is
 * probably the destination: the breaker opens, nothing is sent but one probe
 * after each pause, and nothing is counted.
 *
 * Probably: bad events may come in crowds.  An event whose chain has passed
 * lately is a witness: it is sent at once, pause or no pause, and if it
 * passes, the crowd is guilty; if it fails, the pause is real.  Without a
 * witness the probe is an event that has not failed yet, by chance; and when it
 * has failed and the window is full, the crowd is set aside, uncounted, until
 * a witness is read.  What failed before a real pause is forgiven, but only
 * once.
 *
 *   CLOSED --- breaker_failures suspects ---> OPEN --- pause ---> HALF_OPEN
 *     ^                                         ^                    |
 *     |            an event passes              +--- probe fails ----+
 *     +----------------------------------------------- probe passes -+
 *
 * Invariants (tests/contract: retry, breaker, kinds; tests/sim: mutants
 * counts-without-others, breaker-burns-attempts, late-retry-counts):
 *  1. While nothing passes, no attempt is counted, whatever the number of
 *     sends.  What send_precounted() has written down before a send, for the
 *     case that it kills, is taken back when it fails.
 *  2. An event is not charged for the first outage that it meets.
 */
#include "relay.h"

#include <syslog.h>

enum { MAX_PAUSE_FACTOR = 32 };

/* The store's source is for ids: its code must not run with our lock held.
 * This is xorshift64*, which is good enough to keep relays apart. */
static uint64_t draw_chance(outbox_relay_t *r)
{
    uint64_t x = r->chance != 0 ? r->chance : 1;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    r->chance = x;
    return x * 0x2545f4914f6cdd1du >> 32;
}

/* Uniform between 1 ms and min * 2^(failures - 1), at most max: full jitter
 * keeps failed keys from coming back all at once. */
int64_t ob_backoff(outbox_relay_t *r, uint32_t failures)
{
    uint64_t limit = r->opt.retry_min_ms;
    uint32_t shift = failures > 0 ? failures - 1 : 0;

    limit = shift < 32 ? limit << shift : r->opt.retry_max_ms;
    if (limit > r->opt.retry_max_ms)
        limit = r->opt.retry_max_ms;
    return (int64_t)(1 + draw_chance(r) % limit);
}

static void deadline_note(outbox_relay_t *r, int64_t when_ms)
{
    if (when_ms < r->deadline_ms)
        r->deadline_ms = when_ms;
}

/* ---- the breaker --------------------------------------------------------- */

static bool is_witness(const outbox_relay_t *r, const ob_slot *s)
{
    return r->records[s->chain % OB_RECORDS] == s->chain && !s->suspect;
}

static void note_pass(outbox_relay_t *r, const ob_slot *s)
{
    r->records[s->chain % OB_RECORDS] = s->chain;
    r->has_records = true;
}

static void breaker_open(outbox_relay_t *r, const ob_slot *s, bool longer)
{
    int64_t most = (int64_t)r->opt.breaker_ms * MAX_PAUSE_FACTOR;

    if (r->breaker == OB_CLOSED) {
        r->breaker_pause_ms = r->opt.breaker_ms;
        r->doubtful = r->room_owed = true;
        ob_relay_log(r, LOG_WARNING,
                     "breaker open: %u events in a row failed, the last: %s",
                     (unsigned)r->win.suspects, ob_slot_reason(s));
    } else if (longer) {
        r->breaker_pause_ms *= 2;
    }
    if (r->breaker_pause_ms > most)
        r->breaker_pause_ms = most;
    r->breaker = OB_OPEN;
    r->breaker_until_ms = r->now_ms + r->breaker_pause_ms;
    r->stats.breaker_open = 1;
}

/* The probe failed.  A stranger's failure proves little where others are known
 * to pass. */
static void probe_failed(outbox_relay_t *r, const ob_slot *s, bool witness)
{
    r->doubtful = r->doubtful && !witness;
    r->room_owed = true;
    breaker_open(r, s, witness || !r->has_records);
}

/* Those that are not forgiven stay suspect, and are convicted next. */
static void breaker_close(outbox_relay_t *r)
{
    ob_relay_log(r, LOG_NOTICE, "breaker closed: an event has passed");
    r->breaker = OB_CLOSED;
    r->stats.breaker_open = 0;
    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        ob_slot *s = ob_window_nth(&r->win, i);
        if (!s->suspect || s->forgiven || r->doubtful)
            continue;
        s->forgiven = 1;
        ob_window_set_suspect(&r->win, s, false);
        if (s->state == OB_WAITING)
            ob_window_ready(&r->win, s);
    }
    if (!r->doubtful)
        ob_blocked_forgive(r);
}

/* The first of its chain, and of a lane that is not about to leave. */
static bool is_head(const outbox_relay_t *r, const ob_slot *s)
{
    return s->prev == OB_NONE && !r->lanes[s->lane].leaving;
}

/* It failed, is not with the transport again, and no late ACK has come. */
static bool is_waiting_suspect(const outbox_relay_t *r, const ob_slot *s)
{
    return s->suspect && is_head(r, s) && s->verdict == 0 &&
           (s->state == OB_WAITING || s->state == OB_READY);
}

static ob_slot *find_witness(outbox_relay_t *r)
{
    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        ob_slot *s = ob_window_nth(&r->win, i);
        if (s->state == OB_READY && is_head(r, s) && is_witness(r, s))
            return s;
    }
    return NULL;
}

/* Any event that has not failed yet, by chance: bad ones come in crowds, and
 * to try those first would make them look like an outage.  When all have
 * failed, the one that has waited longest, so that each has its turn. */
static ob_slot *find_stranger(outbox_relay_t *r)
{
    ob_slot *oldest = NULL, *fresh = NULL;
    uint32_t n = 0;

    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        ob_slot *s = ob_window_nth(&r->win, i);
        if (!is_head(r, s))
            continue;
        if (is_waiting_suspect(r, s) &&
            (oldest == NULL || s->when_ms < oldest->when_ms))
            oldest = s;
        if (s->suspect || s->state != OB_READY)
            continue;
        if (draw_chance(r) % ++n == 0)
            fresh = s;
    }
    return fresh != NULL ? fresh : oldest;
}

bool ob_breaker_allows(outbox_relay_t *r, ob_slot **probe)
{
    *probe = NULL;
    if (r->breaker == OB_CLOSED)
        return true;
    if (r->breaker == OB_HALF_OPEN && r->win.inflight > 0)
        return false;
    bool paused = r->breaker == OB_OPEN && r->now_ms < r->breaker_until_ms;
    if (paused && !r->doubtful)
        return false;
    *probe = find_witness(r);
    if (*probe == NULL && paused)
        return false;
    if (*probe == NULL) {
        r->doubtful = false;            /* this pause was a real one */
        *probe = find_stranger(r);
    }
    r->breaker = OB_HALF_OPEN;
    return true;
}

/* ---- verdicts ------------------------------------------------------- */

/* Its cursor may, though others lag; or it may leave. */
static void lane_goes_on(outbox_relay_t *r, const ob_slot *s)
{
    r->dirty = true;
    if (r->lanes[s->lane].leaving)
        r->save_ms = r->now_ms;
}

static void settle(outbox_relay_t *r, ob_slot *s)
{
    lane_goes_on(r, s);
    if (s->seq != 0)
        ob_window_doom(&r->win, s, OUTBOX_UNPARK);
    else
        ob_window_finish(&r->win, s, OB_DONE,
                         ob_blocked_find(r, s->chain) != NULL);
}

static void settled(outbox_relay_t *r, ob_slot *s)
{
    r->stats.acked++;
    r->answers++;
    note_pass(r, s);
    settle(r, s);
}

void ob_verdict_expired(outbox_relay_t *r, ob_slot *s)
{
    char id[OB_UUID_TEXT];

    ob_uuid_format(s->cursor.id, id);
    ob_relay_log(r, LOG_NOTICE, "event %s has expired undelivered", id);
    r->stats.expired++;
    settle(r, s);
}

/* A parked row under way, and one of its chain has failed: that is saved, and
 * the chain begins anew. */
static bool is_orphan(const outbox_relay_t *r, const ob_slot *s)
{
    const ob_blocked *b = ob_blocked_find(r, s->chain);

    return s->seq != 0 && b != NULL && b->loaded == 0;
}

/* Without memory for the set the event stays in the window and waits; the
 * next success tries again. */
static void park(outbox_relay_t *r, ob_slot *s, uint32_t counted)
{
    ob_blocked *b = ob_blocked_add(r, s->chain, s->lane);

    if (b == NULL)
        return;
    ob_blocked_at(b, s->cursor.position);
    b->open_case = counted == 0 && (s->suspect || s->state == OB_SENT);
    b->others = s->suspect ? s->others : r->answers;
    b->forgiven = s->forgiven;
    b->tries = counted ? 0 : b->tries + s->tries;
    s->attempts += counted;
    ob_window_doom(&r->win, s, s->seq != 0 ? OUTBOX_AGAIN : OUTBOX_PARK);
    s->when_ms = ob_backoff(r, counted ? s->attempts : b->tries);
}

static void bury(outbox_relay_t *r, ob_slot *s)
{
    bool blocks = r->opt.on_dead == OUTBOX_DEAD_BLOCKS_KEY &&
                  ob_slot_has_key(s);

    if (blocks && ob_blocked_add(r, s->chain, s->lane) == NULL) {
        ob_window_wait(&r->win, s, r->now_ms + ob_backoff(r, s->tries));
        deadline_note(r, s->when_ms);
        return;
    }
    s->attempts++;
    ob_window_doom(&r->win, s, OUTBOX_BURY);
}

static void rejected(outbox_relay_t *r, ob_slot *s)
{
    r->stats.rejected++;
    r->unflushed = true;
    r->answers++;
    bury(r, s);
}

/* An ordered transport failed it because it failed one before it. */
static bool fails_behind(outbox_relay_t *r, ob_slot *s)
{
    return s->seq == 0 && s->prev == OB_NONE &&
           ob_blocked_find(r, s->chain) != NULL;
}

static bool is_recalled(const outbox_relay_t *r, const ob_slot *s)
{
    const ob_blocked *b = ob_blocked_find(r, s->chain);

    return s->seq != 0 && b != NULL && b->recalled;
}

/* It failed while others passed. */
static void convict(outbox_relay_t *r, ob_slot *s)
{
    if (s->attempts + 1 >= r->opt.max_attempts)
        bury(r, s);
    else
        park(r, s, 1);
}

static void failed(outbox_relay_t *r, ob_slot *s)
{
    bool witness = is_witness(r, s);

    r->stats.retried++;
    r->unflushed = true;
    if (r->lanes[s->lane].leaving)
        lane_goes_on(r, s);
    if (fails_behind(r, s)) {
        ob_window_doom(&r->win, s, OUTBOX_PARK);
        return;
    }
    if (is_orphan(r, s)) {
        ob_window_finish(&r->win, s, OB_GONE, false);
        return;
    }
    if (s->prev != OB_NONE) {
        ob_window_behind(&r->win, s);   /* ordered: once the one before it has
                                           passed, it is tried by itself */
        return;
    }
    if (s->suspect && s->others != r->answers && r->breaker == OB_CLOSED) {
        convict(r, s);                  /* of its failure before this one */
        return;
    }
    if (s->precounted || is_recalled(r, s)) {
        park(r, s, 0);                  /* writes the count back, too */
        if (r->breaker == OB_HALF_OPEN)
            probe_failed(r, s, witness);
        return;
    }
    ob_window_wait(&r->win, s, r->now_ms + ob_backoff(r, s->tries));
    ob_window_halt(&r->win, s);
    ob_window_set_suspect(&r->win, s, true);
    s->others = r->answers;
    deadline_note(r, s->when_ms);
    if (r->breaker == OB_HALF_OPEN)
        probe_failed(r, s, witness);
    else if (r->breaker == OB_CLOSED &&
             r->win.suspects >= r->opt.breaker_failures)
        breaker_open(r, s, false);
}

/* Called with the lock held, as all of this file. */
void ob_verdict_apply(outbox_relay_t *r, ob_slot *s, outbox_verdict v)
{
    if (s->state == OB_DONE || s->state == OB_GONE || s->state == OB_DOOMED)
        return;
    if (v == OUTBOX_ACK)
        settled(r, s);
    else if (v == OUTBOX_REJECT && s->state == OB_SENT)
        rejected(r, s);
    else if (v == OB_CONDEMNED && s->state == OB_SENT)
        bury(r, s);                     /* nobody has answered */
    else if (s->state == OB_SENT)
        failed(r, s);
}

/* Others have passed since: these suspects failed by themselves.  What passed
 * before a failure says nothing about it. */
static void convict_all(outbox_relay_t *r)
{
    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        ob_slot *s = ob_window_nth(&r->win, i);
        if (is_waiting_suspect(r, s) && s->others != r->answers)
            convict(r, s);
    }
}

/* A suspect that was parked meanwhile is worth another try, too. */
bool ob_verdict_has_fresh(outbox_relay_t *r)
{
    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        const ob_slot *s = ob_window_nth(&r->win, i);
        if (s->state == OB_READY && is_head(r, s) &&
            (!s->suspect || s->tries == 0))
            return true;
    }
    return false;
}

static ob_slot *oldest_suspect(outbox_relay_t *r)
{
    ob_slot *oldest = NULL;

    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        ob_slot *s = ob_window_nth(&r->win, i);
        if (is_waiting_suspect(r, s) &&
            (oldest == NULL || s->when_ms < oldest->when_ms))
            oldest = s;
    }
    return oldest;
}

/* With the breaker open, one for each probe that failed. */
static bool may_set_aside(outbox_relay_t *r)
{
    return r->win.inflight == 0 &&
           (r->breaker == OB_CLOSED || r->room_owed);
}

/* It stays a suspect: if others pass before its next try, its failure counts
 * after all. */
void ob_verdict_set_aside(outbox_relay_t *r, ob_slot *s)
{
    if (!may_set_aside(r))
        return;
    r->room_owed = false;
    park(r, s, 0);
}

/* The window is full of strangers, and a witness may stand behind them in the
 * log: they make room by the batch, until one is read.  It is tried at once. */
static bool seek_witness(outbox_relay_t *r)
{
    uint64_t most = OB_MAX_CHANGES;

    if (r->parked + most > r->opt.max_parked)
        return false;
    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        ob_slot *s = ob_window_nth(&r->win, i);
        if (r->win.doomed < most && s->seq == 0 && is_head(r, s) &&
            s->verdict == 0 && r->lanes[s->lane].trials == 0 &&
            (s->state == OB_READY || s->state == OB_WAITING))
            park(r, s, 0);
    }
    r->doubtful = r->doubtful || r->win.doomed > 0;
    return r->win.doomed > 0;
}

/* The window is full of suspects and of what waits behind them, so that nobody
 * else can be read who might pass. */
void ob_verdict_make_room(outbox_relay_t *r)
{
    if (!may_set_aside(r))
        return;
    if (r->breaker != OB_CLOSED && r->full && r->has_records &&
        find_witness(r) == NULL && seek_witness(r))
        return;
    ob_slot *s = ob_verdict_has_fresh(r) ? NULL : oldest_suspect(r);
    if (s != NULL)
        ob_verdict_set_aside(r, s);
}

/* The head of a chain that was parked without a count, and is back: as suspect
 * as it was when it left. */
void ob_verdict_resume(outbox_relay_t *r, ob_slot *s, uint32_t others)
{
    ob_window_set_suspect(&r->win, s, true);
    s->when_ms = r->now_ms;             /* others have waited longer */
    s->others = others;
    if (others != r->answers)
        convict(r, s);
}

void ob_verdict_recall(outbox_relay_t *r)
{
    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        ob_slot *s = ob_window_nth(&r->win, i);
        if (is_head(r, s) && is_recalled(r, s) && s->verdict == 0 &&
            (s->state == OB_WAITING || s->state == OB_READY))
            park(r, s, 0);
    }
}

void ob_verdict_take_back(outbox_relay_t *r)
{
    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        ob_slot *s = ob_window_nth(&r->win, i);
        if (s->precounted && s->state < OB_DOOMED && s->verdict == 0)
            park(r, s, 0);
    }
}

/* Events whose time has come: to be sent again, or given up as unsettled. */
static void deadlines(outbox_relay_t *r)
{
    int64_t next = INT64_MAX;

    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        ob_slot *s = ob_window_nth(&r->win, i);
        if (s->state != OB_WAITING && s->state != OB_SENT)
            continue;
        if (s->when_ms > r->now_ms || s->verdict != 0) {
            if (s->when_ms < next && s->verdict == 0)
                next = s->when_ms;
        } else if (s->state == OB_WAITING) {
            ob_window_ready(&r->win, s);
        } else if (s->when_ms != 0) {
            ob_slot_why(&r->win, s, "no verdict within settle_ms");
            failed(r, s);
            next = s->when_ms < next ? s->when_ms : next;
        }
    }
    r->deadline_ms = next;
}

void ob_verdict_turn(outbox_relay_t *r)
{
    outbox_verdict v;
    ob_slot *s;

    while ((s = ob_window_next_judged(&r->win, &v)) != NULL)
        ob_verdict_apply(r, s, v);
    if (r->now_ms >= r->deadline_ms)
        deadlines(r);
    if (r->answers == r->answers_seen)
        return;
    r->answers_seen = r->answers;
    if (r->breaker != OB_CLOSED)
        breaker_close(r);
    if (r->win.suspects > 0)
        convict_all(r);
}

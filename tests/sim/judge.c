/* SPDX-License-Identifier: MIT
 *
 * judge.c - what must hold of every history, checked as it happens.
 *
 * The judge sees commits, deliveries, verdicts and what the store has been
 * asked to write.  It keeps its own picture of cursors, leases and parked
 * rows, and asks the library nothing, but for two things: whether its breaker
 * is open, and for good reason, which decides whether a failure was forgiven;
 * and whether it knows of a pause.
 *
 * Rules, by the names that violations have:
 *   phantom    what is delivered was committed, and is what was published
 *   unwanted   it passes the filter and follows the subscription's start
 *   early      not before it is due;  expired: not after its time
 *   order      first deliveries of a key, in the order of the log
 *   together   never two of a key in flight, unless OUTBOX_ORDERED
 *   lost       no cursor passes, no row is forgotten, what is not delivered,
 *              parked, dead or expired
 *   again      nothing is sent again that was acknowledged and not forgotten,
 *              or that a saved cursor has passed: duplicates come from what
 *              was unsaved, and from nothing else
 *   unsaved    a relay with nothing to do has saved all it knows
 *   lease      nothing is sent in a lane that another holds
 *   unfenced   nothing is saved in a lane that another holds
 *   attempts   no more are counted than failed while others passed
 *   dead       what dies was rejected, or has failed, or was at work when
 *              its process died, max_attempts times
 *   blocked    nothing follows a dead event of its key that blocks
 *   kills      an event kills a bounded number of processes
 *   verdict    verdicts in time count, others do not
 *   queue      parked rows of a key are in order
 *   breaker    while it is open, one event is tried at a time
 *   paused     nothing is sent while a person wants it so
 *
 * Where they give way, a page says why:
 *   outbox_admin(3)  A pause is noticed within 250 ms.  A replay reaches behind
 *              OUTBOX_START_NOW, and what it brings finds newer events of its
 *              key delivered, under way or parked.  A discarded event need not
 *              come any more, and when it is replayed comes after others.
 *   outbox_relay(3)  Behind an event that was not settled what was saved may
 *              come again.  An outage forgives an event once.  Starts that
 *              kill are counted in a row, and anew when the cursor moves.  An
 *              attempt that was counted ahead stays when the store fails and
 *              the relay gives the lane back then.
 *              A process that is stopped between a look at its lease and the
 *              send may send in another's lane.
 */
#include "relay.h"
#include "sim.h"

#include <stdio.h>
#include <string.h>

/* ---- what is asked often --------------------------------------------- */

static lane *lane_of(sim *w, int s, int e)
{
    return &w->subs[s].lanes[w->events[e].lane];
}

static view *view_of(sim *w, int s, int e)
{
    return &w->events[e].views[s];
}

bool event_wanted(const sim *w, int s, int e)
{
    const event *ev = &w->events[e];

    return ev->order >= w->subs[s].first &&
           plan_matches(w->subs[s].plan, ev->topic);
}

bool event_expired(const sim *w, int e)
{
    return w->events[e].expires_ms != 0 &&
           w->events[e].expires_ms <= wall_ms(w);
}

static bool is_delivered(const view *v)
{
    return v->arrivals > 0 && v->arrived_ms >= v->needed_ms;
}

static int event_by_id(const sim *w, const uint8_t id[16])
{
    int e = id[14] << 8 | id[15];

    return e < w->n_events && memcmp(w->events[e].id, id, 16) == 0 ? e : -1;
}

static bool unsettled_has(const process *p, int e)
{
    int i = 0;

    while (i < p->n_unsettled && p->unsettled[i] != e)
        i++;
    return i < p->n_unsettled;
}

void unsettled_add(process *p, int e)
{
    if (!unsettled_has(p, e))
        p->unsettled[p->n_unsettled++] = e;
}

void unsettled_remove(process *p, int e)
{
    for (int i = 0; i < p->n_unsettled; i++) {
        if (p->unsettled[i] == e) {
            p->unsettled[i] = p->unsettled[--p->n_unsettled];
            return;
        }
    }
}

/* ---- the log --------------------------------------------------------- */

static void log_add(sim *w, int e)
{
    event *ev = &w->events[e];

    if (w->n_log > 0 &&
        w->events[w->log[w->n_log - 1]].position >= ev->position)
        violation(w, "phantom", "event %d has no new position", e);
    ev->order = w->n_log;
    ev->before = ev->key >= 0 ? w->last_of_key[ev->key] : -1;
    if (ev->key >= 0)
        w->last_of_key[ev->key] = e;
    w->log[w->n_log++] = e;
    record(w, M_COMMIT, e, ev->key, ev->topic, ev->order);
}

/* Scheduled events are kept in the order of their times. */
static void schedule_add(sim *w, int e)
{
    int i = w->n_scheduled++;

    while (i > 0 &&
           w->events[w->scheduled[i - 1]].due_ms > w->events[e].due_ms) {
        w->scheduled[i] = w->scheduled[i - 1];
        i--;
    }
    w->scheduled[i] = e;
    tally(w, T_SCHEDULED);
}

void judge_commit(sim *w, const int *events, int n)
{
    for (int i = 0; i < n; i++) {
        const event *ev = &w->events[events[i]];
        if (ev->dedup >= 0)
            w->dedup[ev->dedup] = true;
        if (ev->later)
            schedule_add(w, events[i]);
        else
            log_add(w, events[i]);
        tally(w, T_EVENTS);
    }
    w->commits++;
}

void judge_promote(sim *w, int n)
{
    int64_t position = mem_last_position(w->db) - n;

    record(w, M_PROMOTE, n, 0, 0, 0);
    for (int i = 0; i < n && i < w->n_scheduled; i++) {
        int e = w->scheduled[i];
        if (w->events[e].due_ms > wall_ms(w))
            violation(w, "early", "event %d is promoted %lld ms too early", e,
                      (long long)(w->events[e].due_ms - wall_ms(w)));
        w->events[e].position = ++position;
        if (w->events[e].published_ms < w->events[e].due_ms)
            w->events[e].published_ms = w->events[e].due_ms;
        log_add(w, e);
    }
    w->n_scheduled -= n;
    memmove(w->scheduled, w->scheduled + n,
            (size_t)w->n_scheduled * sizeof *w->scheduled);
    w->commits++;
}

void judge_trim(sim *w, int n)
{
    w->trimmed += n;
    record(w, M_TRIM, n, w->trimmed, 0, 0);
    w->tallies[T_TRIMMED] += (uint64_t)n;
    const event *last = &w->events[w->log[w->trimmed - 1]];
    for (int s = 0; s < w->plan.subs; s++) {
        const subscriber *at = &w->subs[s];
        if (!at->exists || at->gone)
            continue;
        for (int i = 0; i < w->plan.lanes; i++) {
            if (at->lanes[i].position <= last->position)
                violation(w, "lost", "trimmed to %lld, lane %d is at %lld",
                          (long long)last->position, i,
                          (long long)at->lanes[i].position);
        }
        if (at->plan->opt.keep_ms > 0 &&
            wall_ms(w) - last->published_ms < at->plan->opt.keep_ms)
            violation(w, "lost", "trimmed before keep_ms was over");
    }
}

/* ---- leases ---------------------------------------------------------- */

void judge_attach(process *p)
{
    sim *w = p->w;
    subscriber *s = &w->subs[p->sub];
    int64_t position = 0;

    p->attached = true;
    if (s->exists)
        return;
    s->exists = true;
    s->first = w->trimmed;
    if (s->plan->opt.start == OUTBOX_START_NOW) {
        s->first = w->n_log;
        if (w->n_log > 0)
            position = w->events[w->log[w->n_log - 1]].position;
    }
    s->start = s->first;
    for (int i = 0; i < w->plan.lanes; i++) {
        s->lanes[i].position = position;
        s->lanes[i].at = s->first;
        s->lanes[i].trying = -1;
    }
}

/* Sent by it, or about to be, and that had no end. */
static bool was_at_work(const view *v, uint32_t incarnation)
{
    return !v->covered &&
           (v->sent_by == incarnation || v->ahead_by == incarnation);
}

/* The lane's events are the next owner's; what this one sent may have been
 * what it died of. */
static void lane_lost(sim *w, int s, int nth, uint32_t owner)
{
    process *p = process_of(w, owner);

    for (int i = 0; i < w->n_log; i++) {
        int e = w->log[i];
        view *v = view_of(w, s, e);
        if (w->events[e].lane != (uint32_t)nth || !was_at_work(v, owner))
            continue;
        v->deaths++;
        if (p != NULL)
            unsettled_remove(p, e);
    }
}

/* What it knew of the lane, it knows no more. */
static void lane_forgotten(process *p, int nth)
{
    sim *w = p->w;

    for (int i = 0; i < w->n_copies; i++) {
        copy *c = &w->copies[i];
        if (c->incarnation == p->incarnation &&
            w->events[c->event].lane == (uint32_t)nth)
            c->open = false;
    }
    for (int i = 0; i < w->n_log; i++) {
        view *v = view_of(w, p->sub, w->log[i]);
        if (w->events[w->log[i]].lane != (uint32_t)nth)
            continue;
        if (v->acked_by == p->incarnation)
            v->acked_by = 0;
        unsettled_remove(p, w->log[i]);
    }
}

void judge_acquire(process *p, const outbox_lane *lanes, uint32_t n)
{
    sim *w = p->w;

    if (w->subs[p->sub].gone)
        return;                 /* another one of that name */
    for (uint32_t i = 0; i < n; i++) {
        lane *l = &w->subs[p->sub].lanes[lanes[i].lane];
        if (!lanes[i].held)
            continue;
        record(w, M_ACQUIRE, p->incarnation, lanes[i].lane, lanes[i].token,
               lanes[i].cursor.position);
        if (l->owner == 0)
            l->moves++;
        else if (l->owner != p->incarnation) {
            tally(w, T_TAKEOVERS);
            lane_lost(w, p->sub, (int)lanes[i].lane, l->owner);
        }
        if (lanes[i].cursor.position != l->position)
            violation(w, "lost", "lane %u begins at %lld, saved was %lld",
                      (unsigned)lanes[i].lane,
                      (long long)lanes[i].cursor.position,
                      (long long)l->position);
        l->owner = p->incarnation;
        l->token = lanes[i].token;
        lane_forgotten(p, (int)lanes[i].lane);
    }
    p->activity++;
}

void judge_start(process *p, int64_t position)
{
    sim *w = p->w;

    for (int i = 0; i < w->n_log; i++) {
        int e = w->log[i];
        if (w->events[e].position != position)
            continue;
        view_of(w, p->sub, e)->ahead_by = p->incarnation;
        lane_of(w, p->sub, e)->trying = e;
    }
}

void judge_forget(process *p)
{
    sim *w = p->w;

    p->attached = false;
    p->n_unsettled = 0;
    p->activity++;
    for (int i = 0; i < w->n_copies; i++) {
        if (w->copies[i].incarnation == p->incarnation)
            w->copies[i].open = false;
    }
    for (int i = 0; i < w->n_log; i++) {
        view *v = view_of(w, p->sub, w->log[i]);
        if (v->acked_by == p->incarnation)
            v->acked_by = 0;
    }
}

void judge_death(process *p)
{
    sim *w = p->w;

    for (int i = 0; i < w->n_log; i++) {
        view *v = view_of(w, p->sub, w->log[i]);
        if (was_at_work(v, p->incarnation))
            v->deaths++;
    }
}

void judge_kill(process *p, int e)
{
    sim *w = p->w;
    view *v = view_of(w, p->sub, e);
    const lane *l = lane_of(w, p->sub, e);

    if (v->moves != l->moves)
        v->kills = 0;           /* the count of deaths began anew */
    v->moves = l->moves;
    if (++v->kills > w->subs[p->sub].plan->opt.max_attempts + 3)
        violation(w, "kills", "event %d has killed %u processes in a row", e,
                  (unsigned)v->kills);
}

/* ---- saves ----------------------------------------------------------- */

static void passed_by(sim *w, int s, int e)
{
    view *v = view_of(w, s, e);
    bool past = w->events[e].position <= lane_of(w, s, e)->position;

    if (!event_wanted(w, s, e) || v->parked > 0 || v->dead > 0)
        return;
    if (!is_delivered(v) && !event_expired(w, e) && !v->discarded)
        violation(w, "lost", "event %d is passed by the cursor of %d, "
                             "undelivered", e, s);
    v->covered = past;
}

/* The event on trial was sent and did not kill: outbox_relay(3) counts starts
 * in a row. */
static void trial_ends(sim *w, int s, lane *l)
{
    if (l->trying >= 0)
        view_of(w, s, l->trying)->kills = 0;
    l->trying = -1;
}

/* An attempt that was counted ahead, and that the store did not let it take
 * back, stays when it has not read the row again (outbox_relay(3)). */
static void ahead_stays(process *p, uint32_t nth)
{
    for (int i = 0; i < p->w->n_log; i++) {
        int e = p->w->log[i];
        view *v = view_of(p->w, p->sub, e);
        if (p->w->events[e].lane == nth && v->ahead_by == p->incarnation)
            v->failures += v->ahead > v->failures + v->deaths;
    }
}

static void cursor_moves(process *p, const outbox_lane *to)
{
    sim *w = p->w;
    subscriber *s = &w->subs[p->sub];
    lane *l = &s->lanes[to->lane];

    if (l->owner != p->incarnation || l->token != to->token)
        violation(w, "unfenced", "relay %u saves in lane %u, which is %u's",
                  (unsigned)p->incarnation, (unsigned)to->lane,
                  (unsigned)l->owner);
    if (to->cursor.position < l->position)
        violation(w, "lost", "the cursor of lane %u goes back",
                  (unsigned)to->lane);
    if (to->cursor.position != l->position)
        record(w, M_CURSOR, to->lane, p->sub, l->position,
               to->cursor.position);
    if (to->cursor.position != l->position || to->release)
        l->moves++;
    if (to->on_trial)
        trial_ends(w, p->sub, l);
    l->position = to->cursor.position;
    while (l->at < w->n_log &&
           w->events[w->log[l->at]].position <= l->position) {
        int e = w->log[l->at++];
        if (w->events[e].lane == to->lane)
            passed_by(w, p->sub, e);
    }
    if (!to->release)
        return;
    record(w, M_RELEASE, to->lane, 0, 0, 0);
    ahead_stays(p, to->lane);
    lane_forgotten(p, (int)to->lane);
    l->owner = 0;
}

/* A row joins the end of its key's queue. */
static void check_queue(sim *w, int s, int e)
{
    int key = w->events[e].key;

    if (view_of(w, s, e)->parked > 0 || view_of(w, s, e)->dead > 0)
        violation(w, "again", "event %d is parked, and was before, or is "
                              "dead", e);
    if (view_of(w, s, e)->arrivals > 0 || view_of(w, s, e)->forsaken ||
        w->events[e].order < w->subs[s].start || event_expired(w, e))
        return;                 /* comes again: the queue was formed before */
    for (int q = key < 0 ? -1 : w->last_of_key[key]; q >= 0 && q != e;
         q = w->events[q].before) {
        if (view_of(w, s, q)->parked > 0)
            violation(w, "queue", "event %d is parked behind %d, which "
                                  "follows it", e, q);
    }
}

/* In a lane whose owner died a parked event is counted before it is sent. */
static void check_attempts(process *p, int e, const outbox_change *c)
{
    sim *w = p->w;
    const view *v = view_of(w, p->sub, e);
    bool late = w->now >= v->sent_ms + w->subs[p->sub].plan->opt.settle_ms;
    bool ahead = c->kind == OUTBOX_AGAIN &&
                 (v->failed || late || !unsettled_has(p, e));

    if (c->row.attempts > v->failures + v->deaths + ahead)
        violation(w, "attempts", "event %d: %u are counted, %u times it "
                                 "failed while others passed, %u owners died",
                  e, (unsigned)c->row.attempts, (unsigned)v->failures,
                  (unsigned)v->deaths);
}

static void check_burial(process *p, int e, const outbox_change *c)
{
    sim *w = p->w;
    const view *v = view_of(w, p->sub, e);
    const outbox_row *row = &c->row;
    uint32_t most = w->subs[p->sub].plan->opt.max_attempts;

    if (v->dead > 0)
        violation(w, "again", "event %d dies, and was dead", e);
    if (row->why != NULL && strstr(row->why, "process died") != NULL) {
        tally(w, T_CONDEMNED);
        if (v->deaths + v->failures < most)
            violation(w, "dead", "event %d is condemned for %u deaths and %u "
                                 "failures", e, (unsigned)v->deaths,
                      (unsigned)v->failures);
    } else if (!v->rejected) {
        check_attempts(p, e, c);
        if (row->attempts < most)
            violation(w, "dead", "event %d dies after %u attempts", e,
                      (unsigned)row->attempts);
    }
}

/* It failed, nothing was counted, and it makes room for others: if they pass,
 * that will count. */
static void note_room(process *p, int e)
{
    view *v = view_of(p->w, p->sub, e);

    if (!unsettled_has(p, e) || v->counted)
        return;
    v->room_by = p->incarnation;
    p->rooms++;
}

static void change(process *p, const outbox_change *c)
{
    sim *w = p->w;
    int e = event_by_id(w, c->row.id);

    if (e < 0) {
        violation(w, "phantom", "a change of an event that is not one");
        return;
    }
    record(w, M_CHANGE, c->kind, e, c->row.attempts, c->row.delay_ms);
    view *v = view_of(w, p->sub, e);
    switch (c->kind) {
    case OUTBOX_PARK:
        tally(w, T_PARKED);
        check_attempts(p, e, c);
        check_queue(w, p->sub, e);
        note_room(p, e);
        v->parked++;
        v->covered = false;
        break;
    case OUTBOX_AGAIN:
        tally(w, T_AGAIN);
        check_attempts(p, e, c);
        note_room(p, e);
        v->ahead_by = p->incarnation;
        v->ahead = c->row.attempts;
        break;
    case OUTBOX_UNPARK:
        tally(w, T_UNPARKED);
        v->parked--;
        v->acked_by = 0;        /* that much is saved */
        passed_by(w, p->sub, e);
        break;
    case OUTBOX_BURY:
        tally(w, T_DEAD);
        check_burial(p, e, c);
        v->parked -= c->row.seq != 0;
        v->dead++;
        v->was_dead = true;
        v->covered = false;
        break;
    }
    unsettled_remove(p, e);
}

void judge_save(process *p, const outbox_lane *lanes, uint32_t n,
                const outbox_change *changes, size_t n_changes)
{
    sim *w = p->w;

    if (w->subs[p->sub].gone)
        return;
    tally(w, T_SAVES);
    record(w, M_SAVE, p->incarnation, n, (int64_t)n_changes, 0);
    p->activity++;
    for (size_t i = 0; i < n_changes; i++)
        change(p, &changes[i]);
    for (uint32_t i = 0; i < n; i++)
        cursor_moves(p, &lanes[i]);
}

/* ---- what people do -------------------------------------------------- */

static bool meant(const sim *w, int s, int i, int e)
{
    return (e < 0 || w->log[i] == e) &&
           w->events[w->log[i]].views[s].dead > 0;
}

void judge_revived(sim *w, int s, int e, int rc)
{
    int n = 0;

    for (int i = 0; i < w->n_log; i++) {
        view *v = view_of(w, s, w->log[i]);
        if (!meant(w, s, i, e))
            continue;
        n += v->dead;
        v->parked += v->dead;
        v->dead = 0;
        v->rejected = v->covered = false;
        v->failures = v->acked_by = 0;
        v->needed_ms = is_delivered(v) ? w->now : v->needed_ms;
        tally(w, T_REVIVED);
    }
    if (n != rc)
        violation(w, "dead", "%d rows were dead, %d are revived", n, rc);
}

void judge_discarded(sim *w, int s, int e, int rc)
{
    int n = 0;

    for (int i = 0; i < w->n_log; i++) {
        view *v = view_of(w, s, w->log[i]);
        if (!meant(w, s, i, e))
            continue;
        n += v->dead;
        v->dead = 0;
        v->discarded = v->forsaken = true;
        tally(w, T_DISCARDED);
    }
    if (n != rc)
        violation(w, "dead", "%d rows were dead, %d are discarded", n, rc);
}

static void lane_replayed(sim *w, int s, int nth, int first, int64_t position)
{
    lane *l = &w->subs[s].lanes[nth];

    if (l->position <= position)
        return;
    if (l->owner != 0)
        lane_lost(w, s, nth, l->owner);         /* taken from it, as it was */
    for (int i = first; i < l->at; i++) {
        view *v = view_of(w, s, w->log[i]);
        if (w->events[w->log[i]].lane != (uint32_t)nth)
            continue;
        v->needed_ms = w->now;
        v->covered = v->discarded = false;
        v->acked_by = 0;
    }
    l->owner = 0;
    l->taken = w->ticks;
    l->moves++;
    l->token++;
    l->position = position;
    l->at = first;
}

/* From the first event that is kept and was published since then on. */
void judge_replayed(sim *w, int s, int64_t since_ms)
{
    int first = w->trimmed;
    int64_t position = 0;

    w->subs[s].replayed = true;
    w->ticks++;
    while (first < w->n_log &&
           w->events[w->log[first]].published_ms < since_ms)
        first++;
    if (first == w->n_log)
        return;
    if (first > w->trimmed)
        position = w->events[w->log[first - 1]].position;
    if (first < w->subs[s].first)
        w->subs[s].first = first;       /* it may reach behind the start */
    for (int i = 0; i < w->plan.lanes; i++)
        lane_replayed(w, s, i, first, position);
}

/* SPDX-License-Identifier: MIT
 *
 * judge_send.c - the rules of judge.c about sends, deliveries and verdicts.
 */
#include "relay.h"
#include "sim.h"

#include <stdio.h>
#include <string.h>

static bool is_same(const char *a, const char *b)
{
    return a != NULL && strcmp(a, b) == 0;
}

static void check_content(sim *w, int e, const outbox_event *ev)
{
    const event *is = &w->events[e];
    const unsigned char *payload = ev->payload;
    char key[8];

    snprintf(key, sizeof key, "k%d", is->key);
    bool right = is_same(ev->id, is->text) &&
                 is_same(ev->topic, sim_topics[is->topic]) &&
                 is_same(ev->type, "happened") &&
                 (is->key < 0 ? ev->key == NULL : is_same(ev->key, key)) &&
                 ev->payload_len == is->len && ev->n_headers == 1 &&
                 is_same(ev->headers[0].value, is->text) &&
                 ev->published_ms == is->published_ms;
    for (uint32_t i = sizeof(uint32_t); i < is->len && right; i++)
        right = payload[i] == (unsigned char)(e + (int)i);
    if (!right)
        violation(w, "phantom", "event %d is not what was published", e);
}

static void check_wanted(process *p, int e, const outbox_event *ev)
{
    sim *w = p->w;
    const event *is = &w->events[e];
    int64_t since_ms = w->now - p->step_ms;

    if (is->order < 0)
        violation(w, "phantom", "event %d was not committed", e);
    else if (is->position != ev->position)
        violation(w, "phantom", "event %d is not at %lld", e,
                  (long long)ev->position);
    else if (!event_wanted(w, p->sub, e))
        violation(w, "unwanted", "event %d is not for subscription %d", e,
                  p->sub);
    else if (is->due_ms > wall_ms(w))
        violation(w, "early", "event %d is sent %lld ms early", e,
                  (long long)(is->due_ms - wall_ms(w)));
    else if (is->expires_ms != 0 && is->expires_ms <= wall_ms(w) - since_ms)
        violation(w, "expired", "event %d had expired before this step", e);
}

/* If no time has passed since the clock was read, the lease is ours. */
static void check_lease(process *p, int e)
{
    sim *w = p->w;
    const lane *l = &w->subs[p->sub].lanes[w->events[e].lane];

    if (l->owner != p->incarnation && p->looked > l->taken &&
        p->clock_ms == w->now)
        violation(w, "lease", "relay %u sends event %d in lane %u, which is "
                              "%u's", (unsigned)p->incarnation, e,
                  (unsigned)w->events[e].lane, (unsigned)l->owner);
}

static void check_paused(process *p, int e)
{
    const subscriber *s = &p->w->subs[p->sub];

    if (s->paused && (p->looked > s->paused_tick ||
                      p->step_ms > s->paused_ms + 251))
        violation(p->w, "paused", "event %d is sent, %lld ms after the pause",
                  e, (long long)(p->w->now - s->paused_ms));
}

static void check_again(process *p, int e)
{
    const view *v = &p->w->events[e].views[p->sub];

    if (v->dead > 0)
        violation(p->w, "again", "event %d is sent, and it is dead", e);

    if (v->covered)
        violation(p->w, "again", "event %d is sent again, though its delivery "
                                 "was saved", e);
    if (v->acked_by == p->incarnation && v->acked_step < p->step)
        violation(p->w, "again", "event %d is sent again by relay %u, which "
                                 "knows that it was delivered", e,
                  (unsigned)p->incarnation);
}

static void check_together(process *p, int e)
{
    sim *w = p->w;
    const sub_plan *s = w->subs[p->sub].plan;
    bool ordered = (s->flags & OUTBOX_ORDERED) != 0;
    int key = w->events[e].key;

    for (int i = 0; i < w->n_copies; i++) {
        const copy *c = &w->copies[i];
        if (c->incarnation != p->incarnation || !c->open || c->echo ||
            w->now >= c->sent_ms + s->opt.settle_ms)
            continue;
        if (c->event == e)
            violation(w, "together", "event %d is in flight already", e);
        else if (key >= 0 && w->events[c->event].key == key && !ordered)
            violation(w, "together", "events %d and %d of key %d are in "
                                     "flight", c->event, e, key);
    }
}

static void check_blocked(process *p, int e)
{
    sim *w = p->w;
    int key = w->events[e].key;

    if (key < 0 ||
        w->subs[p->sub].plan->opt.on_dead != OUTBOX_DEAD_BLOCKS_KEY)
        return;
    for (int q = w->last_of_key[key]; q >= 0; q = w->events[q].before) {
        if (w->events[q].order < w->events[e].order &&
            w->events[q].views[p->sub].dead > 0)
            violation(w, "blocked", "event %d is sent, and event %d of its "
                                    "key is dead", e, q);
    }
}

static void check_breaker(process *p, int e)
{
    if (p->breaker && p->sends > 0 && !p->passed && !p->passed_before)
        violation(p->w, "breaker", "event %d is the second that is tried", e);
}

/* No verdict of these matters any more. */
static void copies_close(process *p, int e)
{
    for (int i = 0; i < p->w->n_copies; i++) {
        copy *c = &p->w->copies[i];
        if (c->incarnation == p->incarnation && c->event == e)
            c->open = false;
    }
}

static void sent(process *p, int e)
{
    sim *w = p->w;
    view *v = &w->events[e].views[p->sub];

    copies_close(p, e);
    p->rooms -= v->room_by == p->incarnation;
    v->room_by = 0;
    v->serial = ++w->sends;
    v->sent_by = p->incarnation;
    v->sent_step = p->step;
    v->sent_ms = p->sent_ms;
    v->suspect = (v->suspect || v->failed) && !v->counted;
    v->failed = v->counted = false;
    if (p->passed || p->passed_before) {
        v->failures++;          /* it may turn out to have failed before */
        v->counted = true;
    }
    unsettled_add(p, e);
    p->sends++;
    p->activity++;
}

void judge_send(process *p, int e, const outbox_event *ev, outbox_token token)
{
    sim *w = p->w;
    const lane *l = &w->subs[p->sub].lanes[w->events[e].lane];
    bool held = l->owner == p->incarnation;

    record(w, M_SEND, p->incarnation, e, ev->attempt, held);
    if (token.serial <= p->token_serial || token.position != ev->position)
        violation(w, "verdict", "event %d: its token is not new", e);
    p->token_serial = token.serial;
    check_content(w, e, ev);
    if (!w->subs[p->sub].gone) {
        check_wanted(p, e, ev);
        check_lease(p, e);
        check_paused(p, e);
    }
    if (held && !w->subs[p->sub].gone) {
        check_again(p, e);
        check_together(p, e);
        check_blocked(p, e);
        check_breaker(p, e);
    }
    sent(p, e);
}

/* ---- deliveries ------------------------------------------------------ */

/* Earlier events of the key have been delivered, or need not be.  What is
 * older than the subscription is delivered by a replay only, which finds newer
 * ones delivered, or under way. */
static void check_order(sim *w, int s, int e)
{
    bool skips = w->subs[s].plan->opt.on_dead == OUTBOX_DEAD_SKIPS;

    for (int q = w->events[e].before; q >= 0; q = w->events[q].before) {
        const view *v = &w->events[q].views[s];
        if (!event_wanted(w, s, q) || v->forsaken ||
            w->events[q].order < w->subs[s].start ||
            (v->was_dead && skips) || event_expired(w, q))
            continue;
        if (v->arrivals == 0)
            violation(w, "order", "event %d is delivered to %d before %d", e,
                      s, q);
        return;
    }
}

void judge_arrival(sim *w, int s, int e)
{
    view *v = &w->events[e].views[s];

    if (v->arrivals == 0 && !w->subs[s].gone)
        check_order(w, s, e);
    tally(w, v->arrivals > 0 ? T_DUPLICATES : T_DELIVERED);
    v->arrivals++;
    v->arrived_ms = w->now;
    record(w, M_ARRIVE, s, e, v->arrivals, 0);
}

/* ---- verdicts -------------------------------------------------------- */

/* In the first outage that it meets a failure is forgiven; when the event is
 * under way again, that one may fail and count. */
static void excuse_or_count(view *v, uint32_t forgiver)
{
    bool forgiven = forgiver != 0 && v->forgiven_by != forgiver &&
                    (v->failed || v->suspect);

    if (forgiven)
        v->forgiven_by = forgiver;
    if (v->counted)
        return;                 /* when it was sent, to be sure */
    v->failures += !forgiven;
    v->counted = !forgiven || v->failed;
    v->suspect = false;
}

/* Another event has passed: what had failed before, had failed by itself,
 * unless it was an outage, and the first that the event has met. */
static void others_passed(process *p, int e)
{
    sim *w = p->w;
    bool outage = p->relay->stats.breaker_open != 0 && !p->relay->doubtful;

    p->passed = true;
    for (int i = 0; p->rooms > 0 && i < w->n_log; i++) {
        view *v = &w->events[w->log[i]].views[p->sub];
        if (v->room_by != p->incarnation || w->log[i] == e)
            continue;
        v->room_by = 0;
        v->failures++;          /* or forgiven: but then not the next */
        if (outage)
            v->forgiven_by = p->incarnation;
        p->rooms--;
    }
    for (int i = 0; i < p->n_unsettled; i++) {
        view *v = &w->events[p->unsettled[i]].views[p->sub];
        if (p->unsettled[i] != e)
            excuse_or_count(v, outage ? p->incarnation : 0);
    }
}

void judge_verdict(process *p, int e, outbox_verdict verdict)
{
    view *v = &p->w->events[e].views[p->sub];

    p->activity++;
    if (verdict == OUTBOX_RETRY) {
        v->failed = true;
        return;
    }
    if (verdict == OUTBOX_ACK) {
        unsettled_remove(p, e);
        copies_close(p, e);
        if (v->sent_by == p->incarnation) {
            v->acked_by = p->incarnation;
            v->acked_step = p->step;
        }
    } else {
        v->rejected = true;
    }
    others_passed(p, e);
}

/* The relay must still be waiting for it.  Behind one of its key that failed
 * an ordered transport's failures may have been foreseen. */
static bool is_awaited(const process *p, const copy *c)
{
    const sim *w = p->w;
    const subscriber *s = &w->subs[p->sub];
    const view *v = &w->events[c->event].views[p->sub];
    const lane *l = &s->lanes[w->events[c->event].lane];
    bool foreseen = (s->plan->flags & OUTBOX_ORDERED) != 0 &&
                    c->verdict != OUTBOX_ACK;

    return c->open && !c->echo && !foreseen && !s->gone &&
           c->serial == v->serial && v->acked_by != p->incarnation &&
           l->owner == p->incarnation && c->lease == l->token &&
           w->now < c->sent_ms + s->plan->opt.settle_ms;
}

void judge_answer(process *p, const copy *c, int rc)
{
    sim *w = p->w;
    const view *v = &w->events[c->event].views[p->sub];
    bool older = v->sent_by == p->incarnation && c->serial != v->serial;

    if (rc == OUTBOX_OK && c->verdict != OUTBOX_ACK && (older || c->echo))
        violation(w, "verdict", "event %d: verdict %d of an older send "
                                "counts", c->event, c->verdict);
    if (rc != OUTBOX_OK && is_awaited(p, c))
        violation(w, "verdict", "event %d: verdict %d is refused", c->event,
                  c->verdict);
    if (rc == OUTBOX_OK)
        judge_verdict(p, c->event, (outbox_verdict)c->verdict);
}

/* ---- steps ----------------------------------------------------------- */

/* Everything that it knows to be delivered, up to the first event that is
 * not.  One that has expired is dropped when it would be sent: not while
 * the subscription is paused. */
static void check_saved(process *p)
{
    sim *w = p->w;
    bool paused = w->subs[p->sub].paused || p->relay->sub.paused;

    for (int i = w->trimmed; i < w->n_log; i++) {
        int e = w->log[i];
        const view *v = &w->events[e].views[p->sub];
        const lane *l = &w->subs[p->sub].lanes[w->events[e].lane];
        if (l->owner != p->incarnation || !event_wanted(w, p->sub, e) ||
            v->covered || v->dead > 0 || (event_expired(w, e) && !paused))
            continue;
        if (v->acked_by == p->incarnation)
            violation(w, "unsaved", "event %d was delivered by relay %u, "
                                    "which has not saved that", e,
                      (unsigned)p->incarnation);
        else if (v->parked == 0)
            return;
    }
}

void judge_step(process *p, int rc)
{
    sim *w = p->w;
    const subscriber *s = &w->subs[p->sub];

    if (rc < 0)
        judge_forget(p);        /* verdicts that came since the store failed */
    if (p->activity != p->activity_seen || p->n_unsettled > 0 || rc < 0 ||
        p->busy || s->gone || !p->open || p->relay->stats.breaker_open != 0) {
        p->activity_seen = p->activity;
        p->quiet_ms = INT64_MAX;
    } else if (p->quiet_ms == INT64_MAX) {
        p->quiet_ms = w->now;           /* it has seen all there is */
    } else if (p->step_ms > p->quiet_ms + s->plan->opt.flush_ms) {
        check_saved(p);
    }
}

void judge_stopped(process *p, int rc)
{
    sim *w = p->w;
    const subscriber *s = &w->subs[p->sub];

    if (rc != OUTBOX_OK || !p->attached || s->gone)
        return;
    for (int i = 0; i < w->plan.lanes; i++) {
        if (s->lanes[i].owner == p->incarnation)
            violation(w, "release", "relay %u has stopped and holds lane %d",
                      (unsigned)p->incarnation, i);
    }
}

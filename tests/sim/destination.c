/* SPDX-License-Identifier: MIT
 *
 * destination.c - the transport of a simulated relay, and the network.
 *
 * A send becomes a copy with two times: when it arrives and when its verdict
 * comes back; either may be never.  What is decided at the send: outages,
 * what the event does to its destination, and noise.  With OUTBOX_ORDERED the
 * promise of outbox_transport(3) is kept: what fails takes all later ones of
 * its key with it, until flush; what is lost is not overtaken.
 */
#include "sim.h"

#include <stdio.h>
#include <string.h>

typedef struct outcome {
    outbox_verdict verdict;     /* PENDING: it never comes */
    bool           arrives;
} outcome;

static const sub_plan *plan_of(const process *p)
{
    return p->w->subs[p->sub].plan;
}

static bool is_down(const process *p)
{
    const sub_plan *s = plan_of(p);

    return p->w->chaos && p->w->now >= s->down_ms && p->w->now < s->up_ms;
}

/* ---- what becomes of a send ------------------------------------------ */

/* An earlier one of its key was lost by this connection, and has not been
 * sent again. */
static bool is_behind_lost(const process *p, int e)
{
    const sim *w = p->w;

    for (int q = w->events[e].before; q >= 0; q = w->events[q].before) {
        const view *v = &w->events[q].views[p->sub];
        if (v->lost_by[p->slot] == p->incarnation && v->arrivals == 0 &&
            !v->was_dead && !event_expired(w, q))
            return true;
    }
    return false;
}

static outcome fate_of(process *p, view *v)
{
    static const outcome good = { OUTBOX_ACK, true };

    if (p->w->healed)
        return good;
    switch ((enum fate)v->fate) {
    case FATE_FLAKY:
        if (v->left == 0)
            return good;
        v->left--;
        return (outcome){ OUTBOX_RETRY, false };
    case FATE_POISON:
        return (outcome){ OUTBOX_RETRY, false };
    case FATE_REJECT:
        return (outcome){ OUTBOX_REJECT, false };
    default:
        return good;
    }
}

static outcome noise(process *p, outcome out)
{
    const sub_plan *s = plan_of(p);
    rng *g = &p->w->chance;

    if (!p->w->chaos)
        return out;
    if (rng_chance(g, s->noise))
        return (outcome){ OUTBOX_RETRY,
                          out.arrives && rng_chance(g, s->doubt) };
    if (rng_chance(g, s->lost))
        return (outcome){ OUTBOX_PENDING, out.arrives && rng_chance(g, 500) };
    return out;
}

static outcome decide(process *p, int e)
{
    const sub_plan *s = plan_of(p);
    view *v = &p->w->events[e].views[p->sub];
    int key = p->w->events[e].key;
    bool ordered = (s->flags & OUTBOX_ORDERED) != 0 && key >= 0;

    v->lost_by[p->slot] = 0;
    if (ordered && p->fails[key])
        return (outcome){ OUTBOX_RETRY, false };
    if (ordered && is_behind_lost(p, e))
        return (outcome){ OUTBOX_PENDING, false };
    if (is_down(p))
        return (outcome){ s->async && rng_chance(&p->w->chance, 200)
                              ? OUTBOX_PENDING : OUTBOX_RETRY, false };
    return noise(p, fate_of(p, v));
}

static void remember(process *p, int e, outcome out)
{
    view *v = &p->w->events[e].views[p->sub];
    int key = p->w->events[e].key;

    if (out.verdict == OUTBOX_PENDING) {
        tally(p->w, T_TIMEOUTS);
        if (!out.arrives)
            v->lost_by[p->slot] = p->incarnation;
    }
    if (out.verdict == OUTBOX_RETRY)
        tally(p->w, T_RETRIES);
    if (key >= 0 && (out.verdict == OUTBOX_RETRY ||
                     out.verdict == OUTBOX_REJECT)) {
        p->fails[key] = true;
        p->failing[key]++;
    }
}

static void reported(process *p, int e, outbox_verdict v)
{
    int key = p->w->events[e].key;

    if (key >= 0 && (v == OUTBOX_RETRY || v == OUTBOX_REJECT) &&
        p->failing[key] > 0)
        p->failing[key]--;
}

/* ---- the network ----------------------------------------------------- */

static void network_note(sim *w, int64_t ms)
{
    if (ms >= 0 && ms < w->network_ms)
        w->network_ms = ms;
}

static copy *copy_new(process *p, int e, outbox_token token)
{
    sim *w = p->w;

    if (w->n_copies == SIM_COPIES)
        return NULL;
    copy *c = &w->copies[w->n_copies++];
    *c = (copy){ .event = e, .slot = p->slot, .incarnation = p->incarnation,
                 .token = token, .sent_ms = p->sent_ms,
                 .serial = w->events[e].views[p->sub].serial,
                 .lease = w->subs[p->sub].lanes[w->events[e].lane].token,
                 .arrive_ms = -1, .answer_ms = -1 };
    return c;
}

/* Its relay waits for the verdict, and no other has come first. */
static bool answer(sim *w, copy *c)
{
    process *p = process_of(w, c->incarnation);

    c->answer_ms = -1;
    if (p == NULL || !p->open)
        return false;
    if (!c->echo)
        reported(p, c->event, (outbox_verdict)c->verdict);
    record(w, M_SETTLE, c->incarnation, c->verdict, c->event,
           c->token.serial);
    int rc = outbox_settle(p->relay, c->token, (outbox_verdict)c->verdict,
                           "as scripted");
    record(w, M_SETTLED, rc, 0, 0, 0);
    if (rc != OUTBOX_OK)
        tally(w, T_LATE);
    judge_answer(p, c, rc);
    return true;
}

/* The transport says something again about a send, perhaps another thing. */
static void echo(sim *w, const copy *c)
{
    const sub_plan *s = w->subs[w->processes[c->slot].sub].plan;
    process *p = process_of(w, c->incarnation);

    if (p == NULL || !w->chaos || c->echo || !rng_chance(&w->chance, s->twice))
        return;
    copy *again = copy_new(p, c->event, c->token);
    if (again == NULL)
        return;
    tally(w, T_TWICE);
    again->serial = c->serial;
    again->echo = true;
    again->verdict = c->verdict == OUTBOX_ACK
                   ? (uint8_t)(1 + rng_below(&w->chance, 3)) : OUTBOX_RETRY;
    again->answer_ms = w->now + rng_below(&w->chance, s->latency_ms + 1);
}

static void sweep(sim *w)
{
    w->network_ms = INT64_MAX;
    for (int i = 0; i < w->n_copies; i++) {
        copy *c = &w->copies[i];
        if (c->arrive_ms < 0 && c->answer_ms < 0 && !c->open) {
            *c = w->copies[--w->n_copies];
            i--;
            continue;
        }
        network_note(w, c->arrive_ms);
        if (!w->subs[w->processes[c->slot].sub].plan->polled)
            network_note(w, c->answer_ms);
    }
}

static void arrivals(sim *w)
{
    for (;;) {
        copy *first = NULL;
        for (int i = 0; i < w->n_copies; i++) {
            copy *c = &w->copies[i];
            if (c->arrive_ms >= 0 && c->arrive_ms <= w->now &&
                (first == NULL || c->arrive_ms < first->arrive_ms ||
                 (c->arrive_ms == first->arrive_ms &&
                  c->serial < first->serial)))
                first = c;
        }
        if (first == NULL)
            return;
        first->arrive_ms = -1;
        judge_arrival(w, w->processes[first->slot].sub, first->event);
    }
}

static void answers(sim *w, const process *only)
{
    int n = w->n_copies;        /* echoes come later */

    for (int i = 0; i < n; i++) {
        copy *c = &w->copies[i];
        const subscriber *s = &w->subs[w->processes[c->slot].sub];
        if (c->answer_ms < 0 || c->answer_ms > w->now)
            continue;
        if (only != NULL ? c->incarnation != only->incarnation
                         : s->plan->polled)
            continue;
        copy was = *c;
        if (answer(w, c))
            echo(w, &was);
        c = &w->copies[i];
        c->open = false;
    }
}

void network_run(sim *w)
{
    arrivals(w);
    answers(w, NULL);
    sweep(w);
}

/* What is under way from a process that is gone may arrive still. */
void network_gone(process *p)
{
    sim *w = p->w;
    bool ordered = (plan_of(p)->flags & OUTBOX_ORDERED) != 0;
    bool all = rng_chance(&w->chance, 500);

    for (int i = 0; i < w->n_copies; i++) {
        copy *c = &w->copies[i];
        if (c->incarnation != p->incarnation)
            continue;
        c->answer_ms = -1;
        c->open = false;
        if (ordered ? !all : rng_chance(&w->chance, 500))
            c->arrive_ms = -1;
    }
    sweep(w);
}

/* ---- the transport --------------------------------------------------- */

static int event_of(const sim *w, const outbox_event *ev)
{
    uint32_t e;

    if (ev->payload_len < sizeof e)
        return -1;
    memcpy(&e, ev->payload, sizeof e);
    return e < (uint32_t)w->n_events ? (int)e : -1;
}

static void kill_by(process *p, int e)
{
    view *v = &p->w->events[e].views[p->sub];

    if (v->fate != FATE_KILLER || v->left == 0 || p->w->healed || is_down(p))
        return;
    if (v->left != UINT8_MAX)
        v->left--;
    record(p->w, M_KILL, p->incarnation, e, 0, 0);
    tally(p->w, T_KILLS);
    judge_kill(p, e);
    if ((plan_of(p)->flags & OUTBOX_ORDERED) == 0 &&
        rng_chance(&p->w->chance, 200))
        judge_arrival(p->w, p->sub, e);
    process_die(p);
}

/* Under way: with ORDERED not before what was sent earlier. */
static outbox_verdict send_copy(process *p, int e, outbox_token token,
                                outcome out)
{
    sim *w = p->w;
    uint32_t most = plan_of(p)->latency_ms;
    int key = w->events[e].key;
    copy *c = copy_new(p, e, token);

    if (c == NULL)
        return OUTBOX_RETRY;
    c->open = w->events[e].views[p->sub].acked_by != p->incarnation;
    c->verdict = (uint8_t)out.verdict;
    int64_t at_ms = w->now + rng_below(&w->chance, most + 1);
    if (key >= 0 && at_ms < p->last_arrival[key])
        at_ms = p->last_arrival[key];
    if (out.arrives)
        c->arrive_ms = at_ms;
    if (out.arrives && key >= 0 && (plan_of(p)->flags & OUTBOX_ORDERED) != 0)
        p->last_arrival[key] = at_ms;
    if (out.verdict != OUTBOX_PENDING)
        c->answer_ms = at_ms + rng_below(&w->chance, most / 2 + 1);
    network_note(w, c->arrive_ms);
    if (!plan_of(p)->polled)
        network_note(w, c->answer_ms);
    return OUTBOX_PENDING;
}

/* The verdict is there when send returns, or a little before that; then what
 * send returns does not count. */
static outbox_verdict send_now(process *p, int e, outbox_token token,
                               outcome out)
{
    sim *w = p->w;

    if (out.arrives)
        judge_arrival(w, p->sub, e);
    reported(p, e, out.verdict);
    if (!rng_chance(&w->chance, plan_of(p)->early)) {
        record(w, M_SETTLE, p->incarnation, out.verdict, e, token.serial);
        judge_verdict(p, e, out.verdict);
        return out.verdict;
    }
    int rc = outbox_settle(p->relay, token, out.verdict, "before return");
    record(w, M_SETTLE, p->incarnation, out.verdict, e, token.serial);
    record(w, M_SETTLED, rc, 0, 0, 0);
    if (rc == OUTBOX_OK)
        judge_verdict(p, e, out.verdict);
    else if (w->events[e].views[p->sub].acked_by != p->incarnation)
        violation(w, "verdict", "event %d: a verdict within send is refused",
                  e);
    return rng_chance(&w->chance, 500) ? OUTBOX_PENDING : OUTBOX_RETRY;
}

static outbox_verdict own_send(void *ctx, const outbox_event *ev,
                               outbox_token token, outbox_error *why)
{
    process *p = ctx;
    sim *w = p->w;
    int e = event_of(w, ev);

    if (e < 0) {
        violation(w, "phantom", "nobody published position %lld",
                  (long long)ev->position);
        return OUTBOX_ACK;
    }
    p->sent_ms = p->clock_ms;
    judge_send(p, e, ev, token);
    kill_by(p, e);
    outcome out = decide(p, e);
    remember(p, e, out);
    snprintf(why->text, sizeof why->text, "as scripted");
    process_point(p);
    int key = w->events[e].key;
    bool at_once = !plan_of(p)->async || rng_chance(&w->chance, 100);
    if (key >= 0 && p->last_arrival[key] >= w->now)
        at_once = false;        /* not before those that are under way */
    if (out.verdict == OUTBOX_PENDING || !at_once)
        return send_copy(p, e, token, out);
    return send_now(p, e, token, out);
}

static int own_open(void *ctx, outbox_relay_t *relay, outbox_error *err)
{
    process *p = ctx;
    rng *g = &p->w->chance;

    (void)relay;
    process_point(p);
    bool fails = is_down(p) ? rng_chance(g, 500)
               : p->w->chaos && rng_chance(g, plan_of(p)->no_open);
    record(p->w, M_OPEN, p->incarnation, !fails, 0, 0);
    p->open = !fails;
    return fails ? outbox_error_set(err, OUTBOX_EDB, "does not open")
                 : OUTBOX_OK;
}

static void own_flush(void *ctx)
{
    process *p = ctx;

    for (int i = 0; i < SIM_KEYS; i++)
        p->fails[i] = p->failing[i] > 0;
    process_point(p);
}

static int64_t next_answer_ms(const process *p)
{
    int64_t next = INT64_MAX;

    for (int i = 0; i < p->w->n_copies; i++) {
        const copy *c = &p->w->copies[i];
        if (c->incarnation == p->incarnation && c->answer_ms >= 0 &&
            c->answer_ms < next)
            next = c->answer_ms;
    }
    return next;
}

static void own_poll(void *ctx, int timeout_ms)
{
    process *p = ctx;
    sim *w = p->w;

    if (timeout_ms > 0) {
        int64_t ms = next_answer_ms(p) - w->now;
        process_suspend(p, ms < 1 ? 1 : ms < timeout_ms ? ms : timeout_ms);
    }
    arrivals(w);
    answers(w, p);
    sweep(w);
}

static void own_close(void *ctx)
{
    process *p = ctx;
    sim *w = p->w;

    p->open = false;
    for (int i = 0; i < w->n_copies; i++) {
        if (w->copies[i].incarnation != p->incarnation)
            continue;
        w->copies[i].answer_ms = -1;
        w->copies[i].open = false;
    }
}

outbox_transport destination_transport(process *p)
{
    return (outbox_transport){
        .size = sizeof(outbox_transport),
        .name = "simulated",
        .ctx = p,
        .flags = plan_of(p)->flags,
        .open = own_open,
        .send = own_send,
        .flush = own_flush,
        .poll = plan_of(p)->polled ? own_poll : NULL,
        .close = own_close,
    };
}

/* SPDX-License-Identifier: MIT
 *
 * deliver.c - from the log and from the parked rows to the transport.
 *
 * The completion contract: a slot is SENT before send() is called, so that a
 * broker's thread may settle it before send() returns; the first verdict of a
 * token wins, whether it was returned or settled; no lock is held while the
 * transport runs; and what send() was given is valid until it returns
 * (tests/contract: settle, order; tests/sim: mutant second-verdict-wins).
 */
#include "relay.h"
#include "failpoint.h"

#include <syslog.h>

enum { SEND_MS = 20,            /* then look after leases and progress */
       PROMOTE_MS = 250 };      /* between two looks at the scheduled */

/* ---- reading -------------------------------------------------------- */

typedef struct read_ctx {
    outbox_relay_t *r;
    bool            full;
} read_ctx;

static int read_sink(void *arg, const outbox_row *row)
{
    read_ctx *ctx = arg;
    outbox_relay_t *r = ctx->r;
    uint64_t chain = ob_row_chain(row);
    uint32_t lane = (uint32_t)(chain % r->sub.lanes);
    outbox_cursor at = { .window = row->window, .position = row->position };
    const ob_lane *l = &r->lanes[lane];

    if (!l->mine || l->leaving || !ob_cursor_follows(&at, &l->read) ||
        (r->aside.count > 0 && ob_aside_has(r, row)) ||
        !ob_filter_match(r->opt.topics, &row->topic))
        return 0;
    if (ob_window_add(&r->win, row, chain, lane, l->lease) != NULL)
        return 0;
    ctx->full = true;
    return 1;
}

/* Called with the lock held. */
static void show_all(outbox_relay_t *r)
{
    ob_slot *s;

    while ((s = ob_window_unshown(&r->win, 0)) != NULL)
        ob_window_show(&r->win, s, ob_blocked_find(r, s->chain) != NULL);
    if (r->win.doomed > 0)
        r->dirty = true;
}

static uint32_t lanes_to_read(const outbox_relay_t *r, outbox_lane *io)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < r->sub.lanes; i++) {
        const ob_lane *l = &r->lanes[i];
        if (!l->mine || l->leaving)
            continue;
        memset(&io[n], 0, sizeof io[n]);
        io[n].lane = i;
        io[n].token = l->token;
        io[n++].cursor = l->read;
    }
    return n;
}

/* A read that moved nothing but cursors is progress to be saved, too. */
static void read_done(outbox_relay_t *r, const outbox_lane *io, uint32_t n)
{
    pthread_mutex_lock(&r->lock);
    show_all(r);
    for (uint32_t i = 0; i < n; i++) {
        ob_lane *l = &r->lanes[io[i].lane];
        if (l->read.position != io[i].cursor.position ||
            l->read.window != io[i].cursor.window)
            r->dirty = true;
        l->read = io[i].cursor;
    }
    pthread_mutex_unlock(&r->lock);
}

int ob_deliver_read(outbox_relay_t *r, outbox_error *err)
{
    outbox_lane io[OUTBOX_MAX_LANES];
    read_ctx ctx = { r, false };
    uint32_t room = ob_window_room(&r->win);
    uint32_t limit = r->opt.batch < room ? r->opt.batch : room;
    uint32_t n = lanes_to_read(r, io);

    if (r->parked + r->win.doomed >= r->opt.max_parked)
        limit = 0;                      /* lanes are held */
    r->full = r->log_first = room == 0;
    r->log_idle = true;                 /* until there is room, or a lane */
    if (limit == 0 || n == 0)
        return OUTBOX_OK;
    OB_FAILPOINT("relay.read");
    r->store->durable = ob_waker_durable(&r->waker);
    int rc = r->store->ops->read(r->store, r->sub.sub, io, n, (int)limit,
                                 read_sink, &ctx, err);
    if (rc < 0)
        ob_window_drop_unshown(&r->win);
    else
        read_done(r, io, n);
    ob_aside_passed(r);
    if (rc < 0)
        return rc;
    r->full = ctx.full;
    r->log_idle = (uint32_t)rc < limit || ctx.full;
    r->more = r->more || !r->log_idle;
    if (ctx.full && r->win.nomem && ob_window_used(&r->win) == 0)
        return ob_nomem(err);
    return OUTBOX_OK;
}

/* ---- parked rows ---------------------------------------------------- */

/* We are alive, so that start is not to be counted, though the store failed
 * before its verdict was saved. */
static void recall_start(const outbox_relay_t *r, ob_slot *s)
{
    for (uint32_t i = 0; i < OB_STARTS && i < r->n_starts; i++) {
        const ob_start *start = &r->starts[i];
        if (start->position != s->cursor.position ||
            start->attempts + 1 != s->attempts)
            continue;
        s->attempts = start->attempts;
        s->precounted = 1;
        return;
    }
}

static int parked_sink(void *arg, const outbox_row *row)
{
    read_ctx *ctx = arg;
    outbox_relay_t *r = ctx->r;
    uint32_t lane = (uint32_t)(row->chain % r->sub.lanes);
    ob_slot *s = ob_window_add(&r->win, row, row->chain, lane,
                               r->lanes[lane].lease);

    ctx->full = s == NULL;
    if (s == NULL)
        return 1;
    recall_start(r, s);
    return 0;
}

static void show_parked(outbox_relay_t *r, ob_blocked *b)
{
    ob_slot *head = ob_window_unshown(&r->win, 0);

    ob_blocked_at(b, head->cursor.position);
    bool open_case = b->open_case;
    pthread_mutex_lock(&r->lock);
    show_all(r);
    head->forgiven = b->forgiven;
    b->open_case = false;
    if (open_case)
        ob_verdict_resume(r, head, b->others);
    r->dirty = r->dirty || r->win.doomed > 0;
    pthread_mutex_unlock(&r->lock);
}

/* From the log, or in an ordered window beside a parked one that failed. */
static bool under_way(outbox_relay_t *r, uint64_t chain)
{
    uint64_t n = r->win.ordered ? ob_window_used(&r->win) : 0;

    if (ob_window_chain_has(&r->win, chain, OB_SENT))
        return true;
    for (uint64_t i = 0; i < n; i++) {
        const ob_slot *s = ob_window_nth(&r->win, i);
        if (s->seq != 0 && s->state < OB_DONE && s->chain == chain)
            return true;
    }
    return false;
}

static int load_chain(outbox_relay_t *r, ob_blocked *b, outbox_error *err)
{
    read_ctx ctx = { r, false };
    uint64_t before = r->win.head;

    if (under_way(r, b->node.key)) {
        ob_blocked_due(r, b, r->now_ms + 1);    /* one of a chain at a time */
        return OUTBOX_OK;
    }
    uint32_t room = ob_window_room(&r->win), most = OB_LOAD_ROWS;
    if (!b->head_passed || r->lanes[b->lane].precounts > 0)
        most = 1;                       /* leave room for those who may pass */
    int rc = r->store->ops->parked(r->store, r->sub.sub, b->node.key,
                                   (int)(room < most ? room : most),
                                   parked_sink, &ctx, err);

    if (rc < 0) {
        ob_window_drop_unshown(&r->win);
        return rc;
    }
    b->loaded = (uint32_t)(r->win.head - before);
    b->recalled = false;
    b->due_ms = INT64_MAX;
    if (b->loaded > 0) {
        show_parked(r, b);
    } else if (ctx.full) {
        r->cramped = true;
        ob_blocked_due(r, b, r->now_ms + 1);
    } else if (!ob_window_chain_has(&r->win, b->node.key, OB_DOOMED)) {
        ob_blocked_remove(r, b->node.key);  /* its parked rows are gone */
    }
    return OUTBOX_OK;
}

/* With the breaker open only to find a probe, when the window has none that
 * has not failed. */
bool ob_deliver_loads(outbox_relay_t *r)
{
    if (ob_window_room(&r->win) == 0)
        return false;
    if (r->breaker == OB_CLOSED)
        return true;
    return r->now_ms >= r->breaker_until_ms && r->win.inflight == 0 &&
           !ob_verdict_has_fresh(r);
}

int ob_deliver_parked(outbox_relay_t *r, outbox_error *err)
{
    ob_blocked *b;
    int rc = OUTBOX_OK;

    for (int n = 0; rc == OUTBOX_OK && n < OB_LOAD_CHAINS; n++) {
        if (!ob_deliver_loads(r))
            break;
        b = ob_blocked_next_due(r);
        if (b == NULL)
            break;
        rc = load_chain(r, b, err);
    }
    return rc;
}

/* ---- scheduled events ----------------------------------------------- */

int ob_deliver_scheduled(outbox_relay_t *r, outbox_error *err)
{
    int64_t next_ms = -1;

    if (r->now_ms < r->promote_ms)
        return OUTBOX_OK;
    int rc = r->store->ops->promote(r->store, OB_PROMOTE_ROWS, &next_ms, err);
    if (rc < 0)
        return rc;
    if (rc > 0)
        r->log_idle = false;
    if (next_ms < 0 || next_ms > PROMOTE_MS)
        next_ms = PROMOTE_MS;           /* something sooner may be published */
    r->promote_ms = r->now_ms + next_ms;
    return OUTBOX_OK;
}

/* ---- sending -------------------------------------------------------- */

static bool transport_open(outbox_relay_t *r)
{
    outbox_error why = { .code = 0 };

    if (r->opened || r->now_ms < r->open_ms)
        return r->opened;
    if (r->tp.open == NULL || r->tp.open(r->tp.ctx, r, &why) == OUTBOX_OK) {
        r->opened = true;
        r->failures = 0;
        return true;
    }
    r->open_ms = r->now_ms + ob_backoff(r, ++r->failures);
    ob_relay_log(r, LOG_WARNING, "transport %s does not open: %s", r->tp.name,
                 why.text);
    return false;
}

static bool goes_on_trial(const outbox_relay_t *r, const ob_slot *s)
{
    return s->seq == 0 && r->lanes[s->lane].trials > 0;
}

static bool expired(const outbox_relay_t *r, const ob_slot *s)
{
    return s->expires_ms != 0 && s->expires_ms <= r->store_ms;
}

static bool has_trials(const outbox_relay_t *r)
{
    bool any = false;

    for (uint32_t i = 0; i < r->sub.lanes && !any; i++)
        any = r->lanes[i].mine && r->lanes[i].trials > 0;
    return any;
}

/* Is another event of its lane ready behind the nth slot? */
static bool holds_up(outbox_relay_t *r, const ob_slot *s, uint64_t nth)
{
    while (++nth < ob_window_used(&r->win)) {
        const ob_slot *other = ob_window_nth(&r->win, nth);
        if (other->lane == s->lane && other->state == OB_READY)
            return true;
    }
    return false;
}

/* One that has not failed, or the one that has waited for longest. */
static bool tries_before(const ob_slot *s, const ob_slot *other)
{
    return other->suspect && (!s->suspect || s->when_ms < other->when_ms);
}

/* An event on trial is sent alone, and nothing else until the save that ends
 * the trial: so there is one culprit, and its count is not lost.  Its lane
 * goes in the order of the log, so that after a crash the next owner, who
 * begins at the cursor, tries that very event first. */
static uint32_t pick_trial(outbox_relay_t *r, ob_slot **batch)
{
    bool seen[OUTBOX_MAX_LANES] = { false };
    ob_slot *first = NULL;

    if (r->win.inflight > 0)
        return 0;
    for (uint64_t i = 0; i < ob_window_used(&r->win); i++) {
        ob_slot *s = ob_window_nth(&r->win, i);
        if (!goes_on_trial(r, s) || s->state >= OB_DONE || seen[s->lane] ||
            r->lanes[s->lane].leaving)
            continue;
        seen[s->lane] = true;
        if (s->suspect && holds_up(r, s, i))
            ob_verdict_set_aside(r, s);         /* saved before others try */
        if (s->state == OB_READY && expired(r, s))
            ob_verdict_expired(r, s);
        if (s->state == OB_READY &&
            (first == NULL || tries_before(s, first)))
            first = s;
    }
    if (first == NULL)
        return 0;
    ob_window_send_now(&r->win, first);
    batch[0] = first;
    return 1;
}

static uint32_t pick_ready(outbox_relay_t *r, ob_slot **batch, uint32_t n,
                           uint32_t most)
{
    while (n < most) {
        ob_slot *s = ob_window_next_ready(&r->win);
        if (s == NULL)
            break;
        if (expired(r, s)) {
            ob_verdict_expired(r, s);
            continue;
        }
        if (goes_on_trial(r, s) || r->lanes[s->lane].leaving)
            ob_window_set_back(&r->win, s);     /* pick_trial() finds it, or
                                                   the next owner */
        else
            batch[n++] = s;
    }
    return n;
}

/* Called with the lock held: mark a batch as sent. */
static uint32_t pick(outbox_relay_t *r, ob_slot **batch)
{
    ob_slot *probe;
    uint32_t n = 0, most = OB_SEND_BATCH;

    if (ob_progress_on_trial(r) || !ob_breaker_allows(r, &probe))
        return 0;
    if (r->breaker != OB_CLOSED)
        most = 1;
    if (probe != NULL && expired(r, probe)) {
        ob_verdict_expired(r, probe);
        probe = NULL;
    }
    if (probe != NULL && goes_on_trial(r, probe))
        probe = NULL;                   /* in the order of its lane, below */
    if (probe != NULL) {
        ob_window_send_now(&r->win, probe);
        batch[n++] = probe;
    }
    if (n == 0 && has_trials(r))
        n = pick_trial(r, batch);
    if (n == 0 || !goes_on_trial(r, batch[0]))
        n = pick_ready(r, batch, n, most);
    for (uint32_t i = 0; i < n; i++) {
        batch[i]->tries++;
        batch[i]->when_ms = 0;
        batch[i]->last_send = ++r->serial;
        if (batch[i]->first_send == 0)
            batch[i]->first_send = r->serial;
    }
    return n;
}

enum { CONDEMNED = 1 };

/* The event is one of those after which an owner may have died.  That it is
 * started is written down before it is sent, and enough starts are proof. */
static int send_on_trial(outbox_relay_t *r, const ob_slot *s,
                         outbox_error *err)
{
    ob_lane *l = &r->lanes[s->lane];
    outbox_lane io = { .lane = s->lane, .token = l->token };

    int starts = r->store->ops->trial(r->store, r->sub.sub, r->id, &io,
                                      s->cursor.position, err);
    if (starts < 0)
        return starts;
    l->on_trial = true;
    if (--l->trials == 0)
        ob_window_requeue(&r->win);
    if ((uint32_t)starts <= r->opt.max_attempts)
        return OUTBOX_OK;
    outbox_error_set(err, OUTBOX_OK,
                     "it was sent %d times and the process died each time",
                     starts - 1);
    return CONDEMNED;
}

/* A parked event in a lane whose owner died: its attempt is written down
 * before the send, as the cursor may move on and tells nothing about it.  In
 * memory it is counted when it fails, as ever: the same attempt. */
static int send_precounted(outbox_relay_t *r, ob_slot *s,
                           outbox_error *err)
{
    ob_lane *l = &r->lanes[s->lane];
    outbox_lane io = { .lane = s->lane, .token = l->token,
                       .cursor = l->saved };
    outbox_change c = { .kind = OUTBOX_AGAIN };

    if (s->attempts >= r->opt.max_attempts) {
        outbox_error_set(err, OUTBOX_OK,
                         "it was sent %u times and failed, or the process "
                         "died", (unsigned)s->attempts);
        return CONDEMNED;
    }
    ob_slot_row(s, &c.row);
    c.row.attempts++;
    c.row.delay_ms = ob_backoff(r, c.row.attempts);
    l->precounts--;
    s->precounted = 1;
    r->starts[r->n_starts++ % OB_STARTS] =
        (ob_start){ s->cursor.position, s->attempts };
    int rc = r->store->ops->save(r->store, r->sub.sub, r->id, &io, 1, &c, 1,
                                 err);
    return rc < 0 ? rc : OUTBOX_OK;
}

static void why_note(outbox_relay_t *r, ob_slot *s, const char *why)
{
    pthread_mutex_lock(&r->lock);
    if (s->verdict == 0)
        ob_slot_why(&r->win, s, why);
    pthread_mutex_unlock(&r->lock);
}

/* An answer that is none counts as OUTBOX_RETRY, and is its reason. */
static outbox_verdict verdict_of(const outbox_relay_t *r, outbox_verdict v,
                                 outbox_error *why)
{
    if (v != OUTBOX_ACK && v != OUTBOX_PENDING && v != OUTBOX_RETRY &&
        v != OUTBOX_REJECT) {
        outbox_error_set(why, OUTBOX_EINVAL, "transport %s answered %d, which "
                         "is no verdict", r->tp.name, (int)v);
        v = OUTBOX_RETRY;
    }
    return v;
}

/* An error means that it was not sent, and that the store is in trouble. */
static int send_one(outbox_relay_t *r, ob_slot *s, outbox_verdict *v,
                    outbox_error *why)
{
    char id[OB_UUID_TEXT];
    outbox_event ev;
    outbox_row row;
    int rc = OUTBOX_OK;

    why->code = 0;
    why->text[0] = '\0';
    if (goes_on_trial(r, s))
        rc = send_on_trial(r, s, why);
    else if (s->seq != 0 && r->lanes[s->lane].precounts > 0)
        rc = send_precounted(r, s, why);
    ob_slot_row(s, &row);
    if (rc == OUTBOX_OK)
        rc = ob_event_of_row(&r->mem, &r->scratch, &row, &ev, id);
    if (rc < 0)
        return why->code == rc ? rc : ob_nomem(why);
    *v = OB_CONDEMNED;
    if (rc == OUTBOX_OK) {
        ev.attempt = (int32_t)(s->attempts + s->tries);
        outbox_token token = { ev.position, s->last_send };
        OB_FAILPOINT("relay.before_send");
        *v = verdict_of(r, r->tp.send(r->tp.ctx, &ev, token, why), why);
        OB_FAILPOINT("relay.after_send");
    }
    if (*v != OUTBOX_ACK && *v != OUTBOX_PENDING)
        why_note(r, s, why->text);
    return OUTBOX_OK;
}

/* Called with the lock held.  A verdict that outbox_settle() brought while
 * send() was running came first, and stands. */
static void sent(outbox_relay_t *r, ob_slot *s, outbox_verdict v)
{
    if (s->state != OB_SENT || s->verdict != 0)
        return;
    if (v != OUTBOX_PENDING) {
        ob_verdict_apply(r, s, v);
        return;
    }
    s->when_ms = r->now_ms + r->opt.settle_ms;
    if (s->when_ms < r->deadline_ms)
        r->deadline_ms = s->when_ms;
}

/* What became of a batch: the first done were sent, the others were not. */
static void batch_done(outbox_relay_t *r, ob_slot **batch,
                       const outbox_verdict *verdicts, uint32_t done,
                       uint32_t n)
{
    pthread_mutex_lock(&r->lock);
    r->stats.sent += done;
    for (uint32_t i = n; i-- > done;) {     /* first: a failure halts them */
        batch[i]->tries--;
        ob_window_unsend(&r->win, batch[i]);
    }
    for (uint32_t i = 0; i < done; i++)
        sent(r, batch[i], verdicts[i]);
    ob_progress_retire(r);
    pthread_mutex_unlock(&r->lock);
}

/* What an ordered transport has failed, it must have again before anything
 * later of that chain. */
static bool in_order(outbox_relay_t *r, ob_slot **batch,
                     const outbox_verdict *verdicts, uint32_t done)
{
    for (uint32_t i = 0; i < done; i++) {
        if (batch[i]->chain == batch[done]->chain &&
            (verdicts[i] == OUTBOX_RETRY || verdicts[i] == OUTBOX_REJECT))
            return false;
    }
    pthread_mutex_lock(&r->lock);
    bool ok = ob_window_still_in_order(&r->win, batch[done]);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static int send_batch(outbox_relay_t *r, ob_slot **batch, uint32_t n,
                      int64_t start_ms, uint32_t *total, outbox_error *err)
{
    outbox_verdict verdicts[OB_SEND_BATCH];
    outbox_error why;
    uint32_t done = 0;
    int rc = OUTBOX_OK;

    for (; done < n && rc == OUTBOX_OK; done += rc == OUTBOX_OK) {
        r->now_ms = ob_relay_clock(r);
        if (!ob_lease_valid(r, r->now_ms) || r->now_ms - start_ms > SEND_MS ||
            (r->win.ordered && !in_order(r, batch, verdicts, done)))
            break;
        rc = send_one(r, batch[done], &verdicts[done], &why);
    }
    batch_done(r, batch, verdicts, done, n);
    *total += done;
    if (rc != OUTBOX_OK && err != NULL)
        *err = why;
    return rc == OUTBOX_OK ? (int)done : rc;
}

static void flush(outbox_relay_t *r)
{
    r->unflushed = false;
    if (r->tp.flush != NULL)
        r->tp.flush(r->tp.ctx);
}

/* Until a flush an ordered transport refuses the keys it has failed: what it
 * was sent before it reported the failure may have been flushed long ago. */
static int send_all(outbox_relay_t *r, uint32_t *total, outbox_error *err)
{
    ob_slot *batch[OB_SEND_BATCH];
    int64_t start_ms = r->now_ms;
    uint32_t n;
    int done;

    do {
        r->store_ms = r->store->ops->now_ms(r->store);
        pthread_mutex_lock(&r->lock);
        n = pick(r, batch);
        pthread_mutex_unlock(&r->lock);
        if (n > 0 && r->win.ordered && r->unflushed)
            flush(r);
        done = send_batch(r, batch, n, start_ms, total, err);
        if (done < 0)
            return done;
    } while (n > 0 && (uint32_t)done == n && r->breaker == OB_CLOSED);
    return OUTBOX_OK;
}

int ob_deliver_send(outbox_relay_t *r, outbox_error *err)
{
    uint32_t total = 0;

    if (r->win.ready.first == OB_NONE && r->breaker == OB_CLOSED &&
        !has_trials(r))
        return OUTBOX_OK;
    if (r->sub.paused || !transport_open(r))
        return OUTBOX_OK;
    int rc = send_all(r, &total, err);
    if (total > 0)
        flush(r);
    r->more = r->more || total > 0;
    return rc;
}

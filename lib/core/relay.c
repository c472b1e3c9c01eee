/* SPDX-License-Identifier: MIT
 *
 * relay.c - the relay, one turn at a time.
 *
 * A turn looks after leases, judges, reads, sends, saves and trims, each
 * bounded, and never waits; a step is a turn and, when there was nothing to
 * do, a sleep and another turn; the thread (thread.c) is a loop of steps.
 * One thread at a time steps; the store is that thread's alone.  lock guards
 * what outbox_settle() and outbox_relay_stats() touch from other threads.
 *
 * On any error of the store but "busy" everything in memory is forgotten and
 * read again after a pause: after a lost connection or a restored file,
 * memory is the one thing that is certainly wrong.
 */
#include "relay.h"

#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>

enum { COUNT_MS = 1000, MAX_RECONNECT_MS = 5000, POLL_MIN_MS = 1,
       TRANSPORT_POLL_MS = 10 };

int64_t ob_relay_clock(const outbox_relay_t *r)
{
    if (r->opt.clock_ms != NULL)
        return r->opt.clock_ms(r->opt.clock_arg);
    return outbox_monotonic_us() / 1000;
}

void ob_relay_log(outbox_relay_t *r, int level, const char *format, ...)
{
    va_list ap;

    if (r->opt.log == NULL || r->n_lines++ >= OB_LINES)
        return;
    va_start(ap, format);
    vsnprintf(r->lines[r->n_lines - 1], OB_LINE, format, ap);
    va_end(ap);
    r->levels[r->n_lines - 1] = level;
}

void ob_relay_log_flush(outbox_relay_t *r)
{
    unsigned n = r->n_lines < OB_LINES ? r->n_lines : OB_LINES;
    char more[OB_LINE];

    for (unsigned i = 0; i < n; i++)
        r->opt.log(r->opt.log_arg, r->levels[i], r->lines[i]);
    if (r->n_lines > OB_LINES) {
        snprintf(more, sizeof more, "%u more lines in this turn",
                 r->n_lines - OB_LINES);
        r->opt.log(r->opt.log_arg, LOG_NOTICE, more);
    }
    r->n_lines = 0;
}

/* ---- attaching ------------------------------------------------------ */

void ob_relay_forget(outbox_relay_t *r)
{
    pthread_mutex_lock(&r->lock);
    ob_window_clear(&r->win);
    memset(r->lanes, 0, sizeof r->lanes);
    r->stats.breaker_open = 0;
    r->stats.leader = 0;
    pthread_mutex_unlock(&r->lock);
    ob_blocked_clear(r);
    ob_waker_forget(&r->waker);         /* it may be another log */
    r->n_peers = 0;
    r->attached = r->log_idle = r->dirty = r->full = false;
    r->breaker = OB_CLOSED;
    r->beat_ms = r->look_ms = r->lease_until_ms = r->promote_ms = 0;
    r->save_ms = r->deadline_ms = INT64_MAX;
}

static void log_notices(outbox_relay_t *r)
{
    char text[OB_LINE];

    for (int i = 0; r->store->ops->notice != NULL &&
                    r->store->ops->notice(r->store, i, text, sizeof text) > 0;
         i++)
        ob_relay_log(r, LOG_WARNING, "%s", text);
}

int ob_relay_attach(outbox_relay_t *r, outbox_error *err)
{
    ob_relay_forget(r);
    r->sub.name = r->opt.subscription;
    r->sub.start = r->opt.start;
    r->sub.keep_ms = r->opt.keep_ms;
    r->sub.create = !r->known;
    int rc = r->store->ops->attach(r->store, &r->sub, err);
    if (rc == OUTBOX_OK)
        rc = ob_lanes_check(r->sub.lanes, err);
    if (rc != OUTBOX_OK) {
        r->sub.lanes = 0;               /* it may be more than there is room */
        return rc;
    }
    if (!r->known)
        log_notices(r);
    r->attached = r->known = true;
    r->generation = r->sub.generation;
    r->count_ms = 0;
    return OUTBOX_OK;
}

static int attach_turn(outbox_relay_t *r, outbox_error *err)
{
    if (r->now_ms < r->again_ms)
        return OUTBOX_OK;
    int rc = ob_relay_attach(r, err);
    if (rc == OUTBOX_OK && r->lost) {
        r->lost = false;
        pthread_mutex_lock(&r->lock);
        r->stats.reconnects++;
        pthread_mutex_unlock(&r->lock);
    }
    return rc;
}

/* ---- the turn ------------------------------------------------------- */

static void judge(outbox_relay_t *r)
{
    pthread_mutex_lock(&r->lock);
    ob_verdict_turn(r);
    ob_progress_retire(r);
    pthread_mutex_unlock(&r->lock);
}

int ob_relay_count(outbox_relay_t *r, outbox_error *err)
{
    outbox_counts c = { 0 };

    int rc = r->store->ops->count(r->store, r->sub.sub, &c, err);
    if (rc != OUTBOX_OK)
        return rc;
    int64_t store_ms = r->store->ops->now_ms(r->store);
    r->count_ms = r->now_ms + COUNT_MS;
    r->want_trim = true;                /* history grows old by itself */
    pthread_mutex_lock(&r->lock);
    r->parked = (uint64_t)c.parked;
    ob_stats_count(&r->stats, &c, store_ms);
    r->stats.blocked_keys = r->blocked.count;
    r->stats.leader = ob_lease_count(r) > 0;
    pthread_mutex_unlock(&r->lock);
    return OUTBOX_OK;
}

static bool held(const outbox_relay_t *r)
{
    return r->sub.paused || !ob_lease_valid(r, r->now_ms);
}

static int read_log(outbox_relay_t *r, outbox_error *err)
{
    return r->log_idle ? OUTBOX_OK : ob_deliver_read(r, err);
}

static void make_room(outbox_relay_t *r)
{
    pthread_mutex_lock(&r->lock);
    ob_verdict_make_room(r);
    r->dirty = r->dirty || r->win.doomed > 0;
    pthread_mutex_unlock(&r->lock);
}

/* Parked rows first: they are older than what the log still has.  But where
 * they left it no room, in turns. */
static int deliver(outbox_relay_t *r, outbox_error *err)
{
    if (held(r)) {
        r->log_idle = true;             /* until the look that ends it */
        return OUTBOX_OK;
    }
    r->cramped = false;
    int rc = ob_deliver_scheduled(r, err);
    if (rc == OUTBOX_OK && r->log_first)
        rc = read_log(r, err);
    if (rc == OUTBOX_OK)
        rc = ob_deliver_parked(r, err);
    if (rc == OUTBOX_OK)
        rc = read_log(r, err);
    if (rc == OUTBOX_OK && (r->full || r->cramped))
        make_room(r);
    return rc == OUTBOX_OK ? ob_deliver_send(r, err) : rc;
}

static int work(outbox_relay_t *r, outbox_error *err)
{
    int rc = ob_lease_turn(r, err);

    if (rc != OUTBOX_OK)
        return rc;
    judge(r);
    if (!r->draining)
        rc = deliver(r, err);
    if (rc != OUTBOX_OK)
        return rc;
    judge(r);
    if (ob_progress_due(r))
        rc = ob_progress_save(r, err);
    if (rc == OUTBOX_OK)
        rc = ob_progress_trim(r, err);
    if (rc == OUTBOX_OK && r->now_ms >= r->count_ms)
        rc = ob_relay_count(r, err);
    return rc;
}

static void lose(outbox_relay_t *r, int rc, const outbox_error *err)
{
    int64_t pause_ms = ob_backoff(r, ++r->failures);

    ob_relay_log(r, LOG_ERR, "store: %s", err->text);
    if (rc == OUTBOX_ESTALE)
        pause_ms = 0;                   /* re-read at once */
    r->lost = r->lost || r->attached;
    ob_relay_forget(r);
    r->again_ms = r->now_ms +
                  (pause_ms < MAX_RECONNECT_MS ? pause_ms : MAX_RECONNECT_MS);
}

int ob_relay_turn(outbox_relay_t *r, outbox_error *err)
{
    int rc = OUTBOX_OK;

    r->now_ms = ob_relay_clock(r);
    r->retired = 0;
    r->more = false;
    if (!r->attached)
        rc = attach_turn(r, err);
    if (rc == OUTBOX_OK && r->attached)
        rc = work(r, err);
    if (rc == OUTBOX_EBUSY) {           /* a lock: next turn, nothing lost */
        r->busy_ms = r->now_ms + 1;
        ob_relay_log_flush(r);
        return OUTBOX_OK;
    }
    if (rc < 0)
        lose(r, rc, err);
    else if (r->attached)
        r->failures = r->opened ? 0 : r->failures;
    ob_relay_log_flush(r);
    return rc;
}

/* ---- sleeping ------------------------------------------------------- */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* When deliver() has something to do. */
static int64_t next_delivery_ms(outbox_relay_t *r)
{
    int64_t next = r->promote_ms;

    if (r->draining || held(r))
        return INT64_MAX;
    if (r->breaker == OB_OPEN)
        next = earlier(next, r->breaker_until_ms);
    if (ob_deliver_loads(r))
        next = earlier(next, r->blocked_due_ms);
    if (!r->opened && r->win.ready.first != OB_NONE)
        next = earlier(next, r->open_ms);
    return next;
}

/* When something is due without anybody waking us. */
static int64_t next_event_ms(outbox_relay_t *r)
{
    int64_t next = earlier(r->poll_due_ms, next_delivery_ms(r));

    if (!r->attached)
        return r->again_ms;
    next = earlier(next, earlier(r->look_ms, r->beat_ms));
    next = earlier(next, earlier(r->deadline_ms, r->count_ms));
    if (r->dirty)
        next = earlier(next, r->save_ms);
    if (r->want_trim)
        next = earlier(next, r->trim_ms);
    return next > r->busy_ms ? next : r->busy_ms;
}

static int sleep_ms(outbox_relay_t *r, int timeout_ms)
{
    int64_t left = next_event_ms(r) - ob_relay_clock(r);

    if (left < 0)
        left = 0;
    return left < timeout_ms ? (int)left : timeout_ms;
}

/* With nothing to read, look again after 1, 2, 4 ... poll_ms; a wake-up
 * starts over. */
static void poll_later(outbox_relay_t *r)
{
    if (r->now_ms < r->poll_due_ms && r->log_idle)
        return;
    r->poll_ms = r->log_idle ? r->poll_ms * 2 : POLL_MIN_MS;
    if (r->poll_ms > (int64_t)r->opt.poll_ms)
        r->poll_ms = r->opt.poll_ms;
    if (r->poll_ms < POLL_MIN_MS)
        r->poll_ms = POLL_MIN_MS;
    r->poll_due_ms = r->now_ms + r->poll_ms;
}

static void wait_for_store(outbox_relay_t *r, int ms)
{
    unsigned bits = ob_waker_take(&r->waker);
    int hint = (bits & OB_WAKE_HINT) != 0 || r->hinted;

    r->hinted = false;
    if (bits & (OB_WAKE_NOW | OB_WAKE_VERDICT)) {
        r->log_idle = r->log_idle && (bits & OB_WAKE_NOW) == 0;
        r->hinted = hint;
        return;
    }
    unsigned listen = OB_WAKE_NOW | OB_WAKE_VERDICT;
    if (!hint)                          /* else we are on the watch already */
        listen |= OB_WAKE_HINT;
    if (!ob_waker_sleep(&r->waker, listen))
        return;
    r->slept = true;
    if (r->store->ops->wait(r->store, r->waker.fd[0], hint, ms) > 0) {
        r->log_idle = false;
        r->woken = ob_lease_count(r) < r->sub.lanes;
        r->poll_ms = 0;
    }
    ob_waker_awake(&r->waker);
}

/* A transport that must be polled is polled in short slices; what one that
 * returns at once leaves of a slice is slept, unless it brought a verdict. */
static int poll_transport(outbox_relay_t *r, int ms)
{
    int64_t until_ms;

    if (r->tp.poll == NULL || !r->opened || r->win.inflight == 0)
        return ms;
    ms = ms < TRANSPORT_POLL_MS ? ms : TRANSPORT_POLL_MS;
    until_ms = ob_relay_clock(r) + ms;
    r->tp.poll(r->tp.ctx, ms);
    ms = (int)(until_ms - ob_relay_clock(r));
    return ms > 0 ? ms : 0;
}

void ob_relay_sleep(outbox_relay_t *r, int timeout_ms)
{
    poll_later(r);
    wait_for_store(r, poll_transport(r, sleep_ms(r, timeout_ms)));
    if (ob_relay_clock(r) >= r->poll_due_ms)
        r->log_idle = false;
}

static void take_bits(outbox_relay_t *r)
{
    unsigned bits = ob_waker_take(&r->waker);

    if (bits & OB_WAKE_NOW)
        r->log_idle = false;
    r->hinted = r->hinted || (bits & OB_WAKE_HINT) != 0;
}

int ob_relay_do_step(outbox_relay_t *r, int timeout_ms, outbox_error *err)
{
    take_bits(r);
    if (timeout_ms == 0)
        r->log_idle = false;            /* the caller's loop does the waiting */
    if (r->tp.poll != NULL && r->opened)
        r->tp.poll(r->tp.ctx, 0);
    int rc = ob_relay_turn(r, err);
    if (rc < 0)
        return rc;
    uint64_t retired = r->retired;
    if (retired == 0 && !r->more && timeout_ms > 0) {
        ob_relay_sleep(r, timeout_ms);
        take_bits(r);
        rc = ob_relay_turn(r, err);
        retired = r->retired;
    }
    if (rc < 0)
        return rc;
    return retired < INT32_MAX ? (int)retired : INT32_MAX;
}

/* SPDX-License-Identifier: MIT
 *
 * thread.c - making and ending relays, and the thread.  What other threads may
 * call meanwhile is in settle.c.
 *
 * Starting and stopping are handshakes: start returns when the database has
 * answered and the thread exists, stop when the thread is gone.  The thread
 * blocks all signals: they are the application's.
 */
#include "relay.h"

#include <errno.h>
#include <signal.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum { ATTACH_MS = 5000, FAREWELL_MS = 500 };

/* ---- making and ending ---------------------------------------------- */

/* The caller's strings may not outlive the call. */
static int own_names(outbox_relay_t *r)
{
    const char **names[] = { &r->opt.subscription, &r->tp.name,
                             &r->opt.topics };
    size_t n = 0;

    for (size_t i = 0; i < OB_COUNT(names); i++)
        n += *names[i] != NULL ? strlen(*names[i]) + 1 : 0;
    char *p = r->names = r->mem.malloc(r->mem.arg, n);
    if (p == NULL)
        return OUTBOX_ENOMEM;
    for (size_t i = 0; i < OB_COUNT(names); i++) {
        if (*names[i] == NULL)
            continue;
        size_t len = strlen(*names[i]) + 1;
        *names[i] = memcpy(p, *names[i], len);
        p += len;
    }
    return OUTBOX_OK;
}

static int sync_init(outbox_relay_t *r)
{
    pthread_condattr_t attr;

    if (pthread_mutex_init(&r->lock, NULL) != 0)
        return OUTBOX_ENOMEM;
    int rc = pthread_condattr_init(&attr);
    if (rc == 0) {
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        rc = pthread_cond_init(&r->ended, &attr);
        pthread_condattr_destroy(&attr);
    }
    if (rc != 0)
        pthread_mutex_destroy(&r->lock);
    return rc == 0 ? OUTBOX_OK : OUTBOX_ENOMEM;
}

static void relay_memory_free(outbox_relay_t *r)
{
    outbox_allocator mem = r->mem;

    ob_blocked_clear(r);
    ob_window_free(&r->win);
    ob_free(&mem, r->names);
    ob_free(&mem, r->lines);
    ob_free(&mem, r->levels);
    ob_free(&mem, r->changes);
    ob_free(&mem, r->changed);
    ob_scratch_free(&mem, &r->scratch);
    ob_free(&mem, r);
}

static int relay_memory(outbox_relay_t *r, outbox_error *err)
{
    r->changes = ob_alloc(&r->mem, OB_MAX_CHANGES * sizeof *r->changes);
    r->changed = ob_alloc(&r->mem, OB_MAX_CHANGES * sizeof(ob_slot *));
    r->lines = ob_alloc(&r->mem, OB_LINES * sizeof *r->lines);
    r->levels = ob_alloc(&r->mem, OB_LINES * sizeof *r->levels);
    if (r->changes == NULL || r->changed == NULL || r->lines == NULL ||
        r->levels == NULL ||
        own_names(r) != OUTBOX_OK ||
        ob_window_init(&r->win, &r->mem, r->opt.max_inflight,
                       r->opt.max_inflight_bytes) != OUTBOX_OK)
        return ob_nomem(err);
    r->win.ordered = (r->tp.flags & OUTBOX_ORDERED) != 0;
    return OUTBOX_OK;
}

static int relay_init(outbox_relay_t *r, outbox_error *err)
{
    int rc = relay_memory(r, err);

    if (rc != OUTBOX_OK)
        return rc;
    ob_random rnd = { .entropy = r->store->ops->entropy, .store = r->store };
    if (ob_random_bytes(&rnd, r->id, sizeof r->id) != OUTBOX_OK ||
        ob_random_bytes(&rnd, &r->chance, sizeof r->chance) != OUTBOX_OK)
        return outbox_error_set(err, OUTBOX_EDB,
                                "the system gives no random bytes");
    rc = ob_waker_init(&r->waker, r->store->database, err);
    if (rc != OUTBOX_OK)
        return rc;
    rc = sync_init(r);
    if (rc != OUTBOX_OK) {
        ob_waker_release(&r->waker);
        return ob_nomem(err);
    }
    ob_relay_forget(r);
    return OUTBOX_OK;
}

static int relay_allowed(const outbox_t *ob, outbox_error *err)
{
    int rc = ob_handle_check(ob != NULL ? &ob->h : NULL, "outbox_t", err);

    if (rc == OUTBOX_OK && !ob->h.store->relayable)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "a relay needs a connection of its own: open "
                                "one with outbox_*_connect()");
    return rc;
}

int outbox_relay_new(outbox_relay_t **out, outbox_t *ob,
                     const outbox_transport *transport,
                     const outbox_relay_options *opt, outbox_error *err)
{
    if (out == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "out is NULL");
    *out = NULL;
    int rc = relay_allowed(ob, err);
    if (rc != OUTBOX_OK)
        return rc;
    outbox_relay_t *r = ob_alloc(&ob->h.store->mem, sizeof *r);
    if (r == NULL)
        return ob_nomem(err);
    r->ob = ob;
    r->store = ob->h.store;
    r->mem = ob->h.store->mem;
    r->pid = getpid();
    rc = ob_relay_options(r, transport, opt, err);
    if (rc == OUTBOX_OK)
        rc = relay_init(r, err);
    if (rc != OUTBOX_OK) {
        relay_memory_free(r);
        return rc;
    }
    ob_waker_list(&r->waker);
    *out = r;
    return OUTBOX_OK;
}

int ob_relay_check(const outbox_relay_t *r, outbox_error *err)
{
    if (r == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "relay is NULL");
    if (r->pid != getpid())
        return outbox_error_set(err, OUTBOX_EFORK,
                                "the relay was made in process %ld: make one "
                                "in this process", (long)r->pid);
    return OUTBOX_OK;
}

static bool is_in_use(outbox_relay_t *r)
{
    pthread_mutex_lock(&r->lock);
    bool in_use = r->running || r->stepping;
    pthread_mutex_unlock(&r->lock);
    return in_use;
}

void outbox_relay_free(outbox_relay_t *r)
{
    if (r == NULL || r->pid != getpid())
        return;
    while (outbox_relay_stop(r, 1000, NULL) == OUTBOX_ETIMEOUT && is_in_use(r))
        continue;                       /* the transport's callback has it */
    if (is_in_use(r))
        return;                         /* and that is who calls us */
    ob_waker_unlist(&r->waker);
    ob_waker_release(&r->waker);
    pthread_cond_destroy(&r->ended);
    pthread_mutex_destroy(&r->lock);
    outbox_t *ob = r->ob;
    relay_memory_free(r);
    outbox_close(ob);
}

/* ---- who steps ------------------------------------------------------ */

static int step_enter(outbox_relay_t *r, bool thread, outbox_error *err)
{
    int rc = OUTBOX_OK;

    pthread_mutex_lock(&r->lock);
    if (r->stepping || (r->running && !thread))
        rc = outbox_error_set(err, OUTBOX_EBUSY,
                              r->running ? "a thread was started to step this "
                                         "relay: stop it first"
                                         : "another call steps the relay");
    else
        r->stepping = true;
    pthread_mutex_unlock(&r->lock);
    return rc;
}

static void step_leave(outbox_relay_t *r)
{
    pthread_mutex_lock(&r->lock);
    r->stepping = false;
    pthread_mutex_unlock(&r->lock);
}

int outbox_relay_step(outbox_relay_t *r, int timeout_ms, outbox_error *err)
{
    outbox_error own;
    int rc = ob_relay_check(r, err);

    if (rc == OUTBOX_OK && timeout_ms < 0)
        rc = outbox_error_set(err, OUTBOX_EINVAL,
                              "timeout_ms is negative: give 0 or more");
    if (rc == OUTBOX_OK)
        rc = step_enter(r, false, err);
    if (rc != OUTBOX_OK)
        return rc;
    rc = ob_relay_do_step(r, timeout_ms, err != NULL ? err : &own);
    step_leave(r);
    return rc;
}

/* ---- stopping ------------------------------------------------------- */

static bool drained(outbox_relay_t *r)
{
    pthread_mutex_lock(&r->lock);
    bool done = r->win.inflight == 0;
    pthread_mutex_unlock(&r->lock);
    return done;
}

/* Wait for verdicts on what is in flight; send nothing more. */
static int drain(outbox_relay_t *r, int64_t until_ms, outbox_error *err)
{
    int rc = OUTBOX_OK;

    while (r->attached && rc == OUTBOX_OK) {
        rc = ob_relay_turn(r, err);
        if (rc < 0 || drained(r))
            break;
        int64_t left = until_ms - outbox_monotonic_us() / 1000;
        if (left <= 0)
            return outbox_error_set(err, OUTBOX_ETIMEOUT,
                                    "%u events are in flight without a "
                                    "verdict", (unsigned)r->win.inflight);
        ob_relay_sleep(r, left < 10 ? (int)left : 10);
    }
    return rc;
}

/* A store that is busy may say so without having waited. */
static bool is_busy(int rc)
{
    if (rc == OUTBOX_EBUSY)
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    return rc == OUTBOX_EBUSY;
}

/* What the store has as ours and we have forgotten, as an error of it made us
 * begin anew, is taken back, that it may be given up. */
static int find_own_lanes(outbox_relay_t *r, int64_t until_ms,
                          outbox_error *err)
{
    int rc = OUTBOX_OK;

    while (r->attached && (r->look_ms == 0 || ob_lease_forgotten(r) > 0) &&
           (rc == OUTBOX_OK || is_busy(rc)) &&
           outbox_monotonic_us() / 1000 < until_ms) {
        r->now_ms = ob_relay_clock(r);
        r->look_ms = 0;                 /* now */
        rc = ob_lease_turn(r, err);
    }
    return rc == OUTBOX_EBUSY ? OUTBOX_OK : rc;
}

/* Give the lanes back with the progress made, and say goodbye.  A database
 * that does not answer is given up until the same time as the drain: its
 * leases run out by themselves. */
static int farewell(outbox_relay_t *r, int64_t until_ms, outbox_error *err)
{
    int64_t least_ms = outbox_monotonic_us() / 1000 + FAREWELL_MS;
    int rc = OUTBOX_OK;

    if (until_ms < least_ms)            /* the drain has had it all */
        until_ms = least_ms;
    rc = find_own_lanes(r, until_ms, err);
    for (uint32_t i = 0; i < r->sub.lanes; i++)
        r->lanes[i].leaving = r->lanes[i].mine;
    r->closing = true;
    pthread_mutex_lock(&r->lock);
    ob_verdict_take_back(r);
    pthread_mutex_unlock(&r->lock);
    while ((rc == OUTBOX_OK || is_busy(rc)) && r->attached &&
           ob_lease_count(r) > 0) {
        r->now_ms = ob_relay_clock(r);
        rc = ob_progress_save(r, err);
        if (rc == OUTBOX_EBUSY && outbox_monotonic_us() / 1000 >= until_ms)
            break;
    }
    while (rc == OUTBOX_OK && r->attached) {
        rc = r->store->ops->leave(r->store, r->sub.sub, r->id, err);
        if (!is_busy(rc) || outbox_monotonic_us() / 1000 >= until_ms)
            break;
        rc = OUTBOX_OK;
    }
    if (rc == OUTBOX_OK && r->attached)
        rc = ob_relay_count(r, err);
    r->closing = r->draining = false;
    ob_relay_forget(r);
    if (r->opened && r->tp.close != NULL)
        r->tp.close(r->tp.ctx);
    r->opened = false;
    ob_relay_log_flush(r);
    return rc;
}

static int shut(outbox_relay_t *r, int timeout_ms, outbox_error *err)
{
    int64_t until_ms = outbox_monotonic_us() / 1000 + timeout_ms;
    outbox_error own;
    r->draining = true;
    int rc = drain(r, until_ms, err);
    int rc2 = farewell(r, until_ms, rc == OUTBOX_OK ? err : &own);

    return rc != OUTBOX_OK ? rc : rc2;
}

/* ---- the thread ----------------------------------------------------- */

static bool going_on(outbox_relay_t *r)
{
    pthread_mutex_lock(&r->lock);
    bool go = !r->stopping;
    pthread_mutex_unlock(&r->lock);
    return go;
}

static void *thread_main(void *arg)
{
    outbox_relay_t *r = arg;
    outbox_error err;
    int rc = OUTBOX_OK;

    while (going_on(r) && rc != OUTBOX_ENOENT) {
        if (step_enter(r, true, &err) != OUTBOX_OK)
            continue;
        rc = ob_relay_do_step(r, (int)r->opt.poll_ms, &err);
        step_leave(r);
    }
    outbox_error own = { .code = OUTBOX_OK };
    pthread_mutex_lock(&r->lock);
    int stop_ms = r->stop_ms;
    pthread_mutex_unlock(&r->lock);
    int end = shut(r, stop_ms, &own);
    if (rc != OUTBOX_ENOENT) {
        rc = end;
        err = own;
    }
    pthread_mutex_lock(&r->lock);
    r->stop_rc = rc;
    r->stop_err = err;
    r->returned = true;
    pthread_cond_broadcast(&r->ended);
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static int thread_create(outbox_relay_t *r, outbox_error *err)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&r->thread, NULL, thread_main, r);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        return outbox_error_set(err, OUTBOX_EDB, "no thread: %s",
                                strerror(rc));
    return OUTBOX_OK;
}

/* A publisher may hold the write lock while the subscription is made. */
static int attach_patiently(outbox_relay_t *r, outbox_error *err)
{
    int64_t until_us = outbox_monotonic_us() + ATTACH_MS * 1000;
    int rc;

    do {
        rc = ob_relay_attach(r, err);
    } while (is_busy(rc) && outbox_monotonic_us() < until_us);
    return rc;
}

int outbox_relay_start(outbox_relay_t *r, outbox_error *err)
{
    outbox_error own;
    int rc = ob_relay_check(r, err);

    if (rc == OUTBOX_OK)
        rc = step_enter(r, false, err);
    if (rc != OUTBOX_OK)
        return rc;
    r->now_ms = ob_relay_clock(r);
    if (!r->attached)
        rc = attach_patiently(r, err != NULL ? err : &own);
    pthread_mutex_lock(&r->lock);
    r->stepping = r->stopping = r->returned = false;
    if (rc == OUTBOX_OK)
        rc = thread_create(r, err);
    r->running = rc == OUTBOX_OK;
    r->runs += r->running;
    pthread_mutex_unlock(&r->lock);
    return rc;
}

static struct timespec deadline_of(int timeout_ms)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += timeout_ms / 1000;
    t.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000L;
    }
    return t;
}

/* Several may stop it at once: one of them joins, the others wait until that
 * is done.  Then it may have been started again already. */
static bool is_over(const outbox_relay_t *r, unsigned run)
{
    return !r->running || r->runs != run;
}

/* Called with the lock held. */
static void thread_join(outbox_relay_t *r)
{
    r->joining = true;
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    pthread_mutex_lock(&r->lock);
    r->joining = r->running = false;
    pthread_cond_broadcast(&r->ended);
}

/* Called with the lock held, and a thread running.  The thread has the given
 * time to drain, and as much again plus a second to write its farewell, before
 * we give up waiting for it. */
static int thread_stop(outbox_relay_t *r, int timeout_ms, outbox_error *err)
{
    struct timespec until = deadline_of(timeout_ms < INT32_MAX / 2 - 1000
                                        ? timeout_ms * 2 + 1000
                                        : timeout_ms);
    unsigned run = r->runs;
    int rc = 0;

    if (!r->stopping)
        r->stop_ms = timeout_ms;
    r->stopping = true;
    ob_waker_signal(&r->waker, OB_WAKE_NOW);
    while (!is_over(r, run) && (!r->returned || r->joining) && rc == 0)
        rc = pthread_cond_timedwait(&r->ended, &r->lock, &until);
    if (!is_over(r, run) && r->returned && !r->joining)
        thread_join(r);
    if (!is_over(r, run))
        return outbox_error_set(err, OUTBOX_ETIMEOUT,
                                "the transport's callback has not returned; "
                                "the relay stops when it does");
    if (err != NULL)
        *err = r->stop_err;
    return r->stop_rc < 0 ? r->stop_rc : OUTBOX_OK;
}

int outbox_relay_stop(outbox_relay_t *r, int timeout_ms, outbox_error *err)
{
    outbox_error own;
    int rc = ob_relay_check(r, err);

    if (rc != OUTBOX_OK)
        return rc;
    if (timeout_ms < 0)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "timeout_ms is negative: give 0 or more");
    pthread_mutex_lock(&r->lock);
    bool running = r->running;
    if (running && pthread_equal(pthread_self(), r->thread))
        rc = outbox_error_set(err, OUTBOX_EBUSY,
                              "the relay's own thread cannot stop it: do not "
                              "call this from a transport");
    else if (running)
        rc = thread_stop(r, timeout_ms, err);
    pthread_mutex_unlock(&r->lock);
    if (running)
        return rc;
    rc = step_enter(r, false, err);
    if (rc != OUTBOX_OK)
        return rc;
    rc = shut(r, timeout_ms, err != NULL ? err : &own);
    step_leave(r);
    return rc < 0 ? rc : OUTBOX_OK;
}

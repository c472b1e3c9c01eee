/* SPDX-License-Identifier: MIT
 *
 * pg_wait.c - sleeping until something may have been committed.
 *
 * The bell: a relay that is about to sleep holds an advisory lock, shared
 * with other relays.  publish() tries that lock exclusively, gives it back at
 * once, and NOTIFYs only when it could not have it: NOTIFY lets one commit
 * at a time pass, so it is never sent for the sake of a relay that is awake.
 *
 * Invariants (tests/contract/thread.c: publish_commit_wakes_it,
 * a_plain_commit_is_noticed, another_process_wakes_it; tests/contract/ops.c:
 * a_lane_given_back_wakes_who_sleeps):
 *  1. A publisher that tries the lock after a relay took it NOTIFYs.
 *  2. Having taken the lock, a relay looks once more before it sleeps.  What
 *     that misses was published before and committed after: the caller's
 *     poll finds it, which begins anew with each wake-up and grows, so that
 *     this costs no more time than the transaction took itself.  So nobody's
 *     long transaction keeps a relay from sleeping.
 *  3. A relay that is woken without pause gives the lock back, and looks
 *     once in a while instead, until it finds nothing.
 */
#include "pg_window.h"

#include <poll.h>
#include <time.h>

enum { BELL_ALERT_US = 1000000, BELL_REST_US = 1000, SHORT_US = 300, HOT = 16 };

int ob_pg_notice(outbox_store *s, int nth, char *text, size_t size)
{
    (void)s;
    (void)nth;
    (void)text;
    (void)size;
    return 0;
}

/* ---- the bell ------------------------------------------------------- */

static bool bell_ask(ob_pg *st, enum ob_pg_stmt which)
{
    ob_pg_params p = { 0 };
    outbox_error err;
    int rc;

    ob_pg_int8(&p, st->doorbell);
    PGresult *res = ob_pg_run(st, which, &p, "sleep", &rc, &err);
    bool yes = res != NULL && ob_pg_get_bool(res, 0, 0);
    PQclear(res);
    return yes;
}

void ob_pg_disarm(ob_pg *st)
{
    if (st->asleep && !st->broken)
        bell_ask(st, PG_DISARM);
    st->asleep = false;
}

static void arm(ob_pg *st)
{
    outbox_error err;
    char listen[sizeof st->channel + 16];

    if (!st->listening) {
        memcpy(listen, "LISTEN ", 8);
        memcpy(listen + 7, st->channel, strlen(st->channel) + 1);
        st->listening = ob_pg_exec(st, listen, "listen", &err) == OUTBOX_OK;
    }
    if (st->listening)
        st->asleep = bell_ask(st, PG_ARM);
}

/* Somebody has rung, or the connection has something else to say. */
static bool rung(ob_pg *st)
{
    bool any = !PQconsumeInput(st->conn);
    PGnotify *note;

    while ((note = PQnotifies(st->conn)) != NULL) {
        PQfreemem(note);
        any = true;
    }
    return any;
}

/* ---- looking -------------------------------------------------------- */

/* An error is news, too: the next read tells what it is. */
static bool news(ob_pg *st)
{
    ob_pg_params p = { 0 };
    outbox_error err;
    int rc;

    if (st->windows == NULL)
        return false;
    ob_pg_int8(&p, ob_pg_windows_head(st));
    PGresult *res = ob_pg_run(st, PG_NEWS, &p, "look for events", &rc, &err);
    bool yes = res == NULL || ob_pg_get_bool(res, 0, 0);
    PQclear(res);
    return yes;
}

static void pause_for(const ob_pg *st, int wake_fd, int64_t us, bool *woken,
                      bool *rings)
{
    struct pollfd p[2] = { { .fd = wake_fd, .events = POLLIN },
                           { .fd = PQsocket(st->conn), .events = POLLIN } };
    struct timespec pause = { us / 1000000, us % 1000000 * 1000 };
    int n = ppoll(p, 2, &pause, NULL);

    *woken = n > 0 && p[0].revents != 0;
    *rings = n > 0 && p[1].revents != 0;
}

/* How long to sleep: announced events are looked for, after a tenth of a
 * millisecond at first, then after half as long again as it has been. */
static int64_t nap_us(ob_pg *st, int64_t now_us, int64_t until_us)
{
    int64_t age_us = now_us - st->alert_us;
    int64_t least_us = st->asleep ? BELL_REST_US : BELL_REST_US / 10;
    int64_t nap = age_us / 2 > least_us ? age_us / 2 : least_us;

    if (st->alert_us != 0 && age_us > BELL_ALERT_US)
        st->alert_us = 0;
    if (st->alert_us == 0 || nap > until_us - now_us)
        nap = until_us - now_us;
    return nap;
}

static int sleep_until(ob_pg *st, int wake_fd, int64_t until_us)
{
    int64_t now_us = outbox_monotonic_us();
    bool woken, rings;

    while (now_us < until_us) {
        pause_for(st, wake_fd, nap_us(st, now_us, until_us), &woken, &rings);
        if (rings && rung(st))
            return 1;
        if (woken)
            return 0;
        now_us = outbox_monotonic_us();
        if (st->alert_us != 0 && now_us < until_us && news(st))
            return 1;
    }
    return 0;
}

/* ---- waiting -------------------------------------------------------- */

/* Woken again and again as soon as it sleeps. */
static void temperature(ob_pg *st, int64_t slept_us)
{
    if (slept_us >= SHORT_US)
        st->hot = 0;
    else if (++st->hot >= HOT)
        ob_pg_disarm(st);
}

/* Without the bell: publishers have better things to do. */
static int rest_awhile(ob_pg *st, int wake_fd, int64_t until_us)
{
    int64_t now_us = outbox_monotonic_us();
    bool woken = false, rings;

    if (until_us > now_us + BELL_REST_US)
        until_us = now_us + BELL_REST_US;
    while (now_us < until_us) {
        pause_for(st, wake_fd, until_us - now_us, &woken, &rings);
        if (rings)
            rung(st);
        if (woken)
            break;
        now_us = outbox_monotonic_us();
    }
    return !woken;
}

int ob_pg_wait(outbox_store *s, int wake_fd, int hint, int timeout_ms)
{
    ob_pg *st = (ob_pg *)s;
    int64_t start_us = outbox_monotonic_us();
    int64_t until_us = start_us + (int64_t)timeout_ms * 1000;

    if (st->conn == NULL || st->broken) {
        struct pollfd p = { .fd = wake_fd, .events = POLLIN };
        poll(&p, 1, timeout_ms);
        return 0;
    }
    if (st->ahead)
        ob_pg_windows_collect(st);
    if (hint)
        st->alert_us = start_us;
    if (st->hot >= HOT && st->found)
        return rest_awhile(st, wake_fd, until_us);
    if (st->hot >= HOT)
        st->hot = 0;
    int rings = rung(st);
    if (!rings && !st->asleep && !st->quiet && timeout_ms > 0) {
        arm(st);
        rings = news(st);
    }
    if (!rings)
        rings = sleep_until(st, wake_fd, until_us);
    if (rings) {
        st->alert_us = 0;
        temperature(st, outbox_monotonic_us() - start_us);
    }
    return rings;
}

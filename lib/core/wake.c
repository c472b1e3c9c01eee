/* SPDX-License-Identifier: MIT
 *
 * wake.c - how a publisher finds the relays of its process, and wakes one.
 *
 * This is the library's only global state: a list of the relays that listen,
 * guarded by one mutex which is held for a walk over it and nothing else.
 * A child of fork starts with an empty list: the relays are its parent's.
 *
 * No wake-up is lost: the sleeper says that it is asleep and then looks at
 * the bits; the waker sets a bit and then looks whether anyone is asleep.
 * Both are sequentially consistent, so one of the two sees the other
 * (tests/contract: thread).
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static pthread_mutex_t wakers_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t wakers_once = PTHREAD_ONCE_INIT;
static ob_waker *wakers;

static void wakers_prepare(void)
{
    pthread_mutex_lock(&wakers_lock);
}

static void wakers_parent(void)
{
    pthread_mutex_unlock(&wakers_lock);
}

static void wakers_child(void)
{
    wakers = NULL;
    pthread_mutex_unlock(&wakers_lock);
}

static void wakers_init(void)
{
    pthread_atfork(wakers_prepare, wakers_parent, wakers_child);
}

int ob_waker_init(ob_waker *w, uint64_t database, outbox_error *err)
{
    pthread_once(&wakers_once, wakers_init);
    w->next = NULL;
    w->database = database;
    atomic_init(&w->bits, 0);
    atomic_init(&w->asleep, 0);
    w->durable = 0;
    if (pipe2(w->fd, O_CLOEXEC | O_NONBLOCK) != 0) {
        w->fd[0] = w->fd[1] = -1;
        return outbox_error_set(err, OUTBOX_EDB,
                                "no pipe for wake-ups: %s", strerror(errno));
    }
    return OUTBOX_OK;
}

void ob_waker_release(ob_waker *w)
{
    for (int i = 0; i < 2; i++) {
        if (w->fd[i] >= 0)
            close(w->fd[i]);
        w->fd[i] = -1;
    }
}

void ob_waker_signal(ob_waker *w, unsigned bit)
{
    int saved = errno;

    if ((atomic_fetch_or(&w->bits, bit) & bit) == 0 &&
        (atomic_load(&w->asleep) & bit) != 0 && w->fd[1] >= 0) {
        ssize_t n = write(w->fd[1], "", 1);
        (void)n;                /* full: it is being woken already */
    }
    errno = saved;
}

unsigned ob_waker_take(ob_waker *w)
{
    return atomic_exchange(&w->bits, 0);
}

bool ob_waker_sleep(ob_waker *w, unsigned bits)
{
    atomic_store(&w->asleep, (int)bits);
    if ((atomic_load(&w->bits) & bits) == 0)
        return true;
    atomic_store(&w->asleep, 0);
    return false;
}

/* A byte written after this costs one short sleep, no more. */
void ob_waker_awake(ob_waker *w)
{
    char sink[64];

    atomic_store(&w->asleep, 0);
    while (w->fd[0] >= 0 && read(w->fd[0], sink, sizeof sink) > 0)
        continue;
}

void ob_waker_list(ob_waker *w)
{
    pthread_mutex_lock(&wakers_lock);
    w->next = wakers;
    wakers = w;
    pthread_mutex_unlock(&wakers_lock);
}

void ob_waker_unlist(ob_waker *w)
{
    pthread_mutex_lock(&wakers_lock);
    for (ob_waker **at = &wakers; *at != NULL; at = &(*at)->next) {
        if (*at == w) {
            *at = w->next;
            break;
        }
    }
    pthread_mutex_unlock(&wakers_lock);
}

int64_t ob_waker_durable(ob_waker *w)
{
    pthread_mutex_lock(&wakers_lock);
    int64_t durable = w->durable;
    pthread_mutex_unlock(&wakers_lock);
    return durable;
}

void ob_waker_forget(ob_waker *w)
{
    pthread_mutex_lock(&wakers_lock);
    w->durable = 0;
    pthread_mutex_unlock(&wakers_lock);
}

void ob_wake_database(uint64_t database, unsigned bit, int64_t durable)
{
    if (database == 0)
        return;
    pthread_mutex_lock(&wakers_lock);
    for (ob_waker *w = wakers; w != NULL; w = w->next) {
        if (w->database != database)
            continue;
        if (w->durable < durable)
            w->durable = durable;
        ob_waker_signal(w, bit);
    }
    pthread_mutex_unlock(&wakers_lock);
}

/* SPDX-License-Identifier: MIT
 *
 * clock.h - a monotonic clock that moves only when the test says so.
 */
#ifndef TESTS_CLOCK_H
#define TESTS_CLOCK_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct vclock { _Atomic int64_t ms; } vclock;

static inline int64_t vclock_now(void *arg)
{
    return atomic_load(&((vclock *)arg)->ms);
}

static inline void vclock_advance(vclock *c, int64_t ms)
{
    atomic_fetch_add(&c->ms, ms);
}

#endif

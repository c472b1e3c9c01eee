/* SPDX-License-Identifier: MIT
 *
 * clock.c - the monotonic clock that leases and backoff run on.
 *
 * Where there is a clock that goes on while the machine is suspended, it is
 * that one: a relay that slept through its lease must know it.
 */
#include "base.h"

#include <time.h>

#ifdef CLOCK_BOOTTIME
#define OB_CLOCK CLOCK_BOOTTIME
#else
#define OB_CLOCK CLOCK_MONOTONIC
#endif

int64_t outbox_monotonic_us(void)
{
    struct timespec t;

    clock_gettime(OB_CLOCK, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t ob_realtime_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

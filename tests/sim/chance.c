/* SPDX-License-Identifier: MIT
 *
 * chance.c - splitmix64; and what is replaced in this program, so that a run
 * depends on its seed alone and costs no system calls.
 */
#include "sim.h"

#include <unistd.h>

uint64_t rng_next(rng *g)
{
    uint64_t z = (g->state += 0x9e3779b97f4a7c15u);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint32_t rng_below(rng *g, uint32_t n)
{
    return (uint32_t)((rng_next(g) >> 32) * n >> 32);
}

int64_t rng_between(rng *g, int64_t least, int64_t most)
{
    return least + (int64_t)(rng_next(g) % (uint64_t)(most - least + 1));
}

bool rng_chance(rng *g, uint32_t permille)
{
    return rng_below(g, 1000) < permille;
}

/* ---- instead of the C library's -------------------------------------- */

int pipe2(int fd[2], int flags);

/* Wake-ups are seen in the relay's memory: nobody waits on a descriptor. */
int pipe2(int fd[2], int flags)
{
    (void)flags;
    fd[0] = fd[1] = -1;
    return 0;
}

/* The library asks at each call whether it is in the process that made the
 * handle.  Here no handle crosses a fork. */
pid_t getpid(void)
{
    return 1;
}

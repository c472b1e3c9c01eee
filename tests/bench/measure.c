/* SPDX-License-Identifier: MIT
 *
 * measure.c - time, order statistics, and contenders that take turns.
 */
#include "bench.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

double bench_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

double bench_cpu(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return seconds(u.ru_utime) + seconds(u.ru_stime);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double bench_percentile(double *v, int n, double p)
{
    int i = (int)((double)n * p / 100);

    qsort(v, (size_t)n, sizeof *v, by_size);
    return v[i < n ? i : n - 1];
}

double bench_median(double *v, int n)
{
    double high = bench_percentile(v, n, 50);

    return n % 2 ? high : (v[n / 2 - 1] + high) / 2;
}

void bench_duel(bench_side *side, int n, int rounds, int turns)
{
    for (int r = 0; r < rounds; r++) {
        for (int i = 0; i < n; i++)
            side[i].work = side[i].seconds = 0;
        for (int t = 0; t < turns; t++) {
            for (int i = 0; i < n; i++) {
                bench_side *s = &side[(i + t + r) % n];

                s->run(s);
            }
        }
        for (int i = 0; i < n; i++)
            side[i].rate[r] = side[i].work / side[i].seconds;
    }
}

double bench_rate(const bench_side *side, int rounds)
{
    double v[BENCH_MAX_ROUNDS];

    for (int r = 0; r < rounds; r++)
        v[r] = side->rate[r];
    return bench_median(v, rounds);
}

bench_ratio bench_compare(const bench_side *side, const bench_side *base,
                          int rounds)
{
    double v[BENCH_MAX_ROUNDS];
    bench_ratio ratio;

    for (int r = 0; r < rounds; r++)
        v[r] = side->rate[r] / base->rate[r];
    ratio.median = bench_median(v, rounds);
    ratio.min = v[0];
    ratio.max = v[rounds - 1];
    return ratio;
}

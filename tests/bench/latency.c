/* SPDX-License-Identifier: MIT
 *
 * latency.c - from COMMIT to the callback, at 200 events a second: in one
 *             process with publish_commit and with a plain COMMIT, and from
 *             another process; and what an idle relay costs.
 *
 * Both processes use CLOCK_MONOTONIC, which is one for the machine, and keep
 * their times in a shared map.  A wait counts from the return of the commit;
 * a callback that comes before it counts as 0.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INTERVAL_NS = 5000000 };

static void publish_all(bench_samples *s, const char *path, int n,
                        int with_commit)
{
    struct timespec at;
    shop here;

    shop_open(&here, path, "FULL");
    clock_gettime(CLOCK_MONOTONIC, &at);
    for (int32_t i = 0; i < n; i++) {
        bench_sleep_to(&at, INTERVAL_NS);
        memcpy(here.payload, &i, sizeof i);
        shop_begin(&here);
        shop_business(&here);
        if (with_commit) {
            shop_publish_commit(&here);
        } else {
            shop_publish(&here);
            shop_commit(&here);
        }
        s->committed[i] = bench_now();
    }
    shop_close(&here);
}

/* ---- the other process ------------------------------------------------- */

/* bench --publisher database map n */
int bench_publisher_main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    publish_all(bench_samples_map(argv[1]), argv[0], atoi(argv[2]), 0);
    return 0;
}

static void publish_elsewhere(const char *path, const char *map, int n)
{
    char count[16];
    const char *const argv[] = { bench_program, "--publisher", path, map,
                                 count, NULL };

    snprintf(count, sizeof count, "%d", n);
    bench_run_again(argv);
}

/* ------------------------------------------------------------------------ */

static outbox_relay_t *start(const char *path, bench_samples *s)
{
    outbox_relay_t *relay = bench_relay(path, bench_stamp, s, NULL, 0, NULL);

    bench_start(relay);
    return relay;
}

static void one_process(const char *what, int n, int with_commit, double goal)
{
    static bench_samples s;
    const char *path = bench_file("latency.db");
    outbox_relay_t *relay;

    memset(&s, 0, sizeof s);
    shop_create(path);
    relay = start(path, &s);
    publish_all(&s, path, n, with_commit);
    bench_await(&s, n);
    bench_stop(relay);
    bench_delay_row(&s, n, what, goal);
    bench_remove(path);
}

/* Here this process is nothing but a relay: its CPU time is the relay's. */
static void two_processes(int n)
{
    const char *path = bench_file("latency.db"), *map = bench_file("map");
    bench_samples *s = bench_samples_map(map);
    outbox_relay_t *relay;
    double cpu, from;

    shop_create(path);
    relay = start(path, s);
    from = bench_now();
    cpu = bench_cpu();
    publish_elsewhere(path, map, n);
    bench_await(s, n);
    cpu = (bench_cpu() - cpu) / (bench_now() - from);
    bench_stop(relay);
    bench_delay_row(s, n, "another process, COMMIT", 1e-3);
    bench_row("  CPU of that relay", bench_text("%.1f %%", cpu * 100), "", "",
              BENCH_INFO);
    bench_samples_unmap(s, map);
    bench_remove(path);
}

static void idle(double seconds)
{
    static bench_samples s;
    const char *path = bench_file("latency.db");
    struct timespec nap = { .tv_sec = (time_t)seconds };
    outbox_relay_t *relay;
    double cpu;

    memset(&s, 0, sizeof s);
    shop_create(path);
    relay = start(path, &s);
    publish_all(&s, path, 20, 0);
    bench_await(&s, 20);
    /* What follows the last event, such as saving, is not idling. */
    nanosleep(&(struct timespec){ .tv_nsec = 500000000 }, NULL);
    cpu = bench_cpu();
    nanosleep(&nap, NULL);
    cpu = (bench_cpu() - cpu) / seconds * 100;
    bench_stop(relay);
    bench_row("CPU of an idle relay", bench_text("%.2f %%", cpu), "", "< 1 %",
              cpu < 1 ? BENCH_OK : BENCH_MISS);
    bench_remove(path);
}

/* Nothing is sent before it is durable, so the disk is part of each figure,
 * and a busy one drowns the rest. */
static void disk(void)
{
    double dirty, clean;

    bench_place_sync(&dirty, &clean);
    bench_row("fdatasync, now", bench_time(dirty),
              bench_text("clean %s", bench_time(clean)), "", BENCH_INFO);
}

void bench_latency(void)
{
    int n = bench_quick ? 300 : BENCH_SAMPLES;

    bench_title(bench_text("latency from commit to callback, p50 of %d", n));
    disk();
    one_process("outbox_publish_commit", n, 1, 100e-6);
    one_process("outbox_publish, COMMIT", n, 0, 1e-3);
    two_processes(n);
    disk();
    idle(bench_quick ? 2 : 5);
}

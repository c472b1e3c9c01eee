/* SPDX-License-Identifier: MIT
 *
 * latency.c - from COMMIT's return to the callback, at 100 and at 500 events
 *             a second, in one process and across two; what an empty poll and
 *             an idle relay cost; and what becomes of all that beside a
 *             transaction that is idle and a snapshot that is old.
 */
#include "store.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void publish_all(bench_samples *s, int n, int per_second,
                        int with_commit)
{
    struct timespec at;
    pgshop here;

    pgshop_open(&here, 0);
    clock_gettime(CLOCK_MONOTONIC, &at);
    for (int32_t i = 0; i < n; i++) {
        bench_sleep_to(&at, 1000000000L / per_second);
        memcpy(here.payload, &i, sizeof i);
        pgshop_begin(&here);
        pgshop_business(&here);
        if (with_commit) {
            pgshop_publish_commit(&here);
        } else {
            pgshop_publish(&here);
            pgshop_commit(&here);
        }
        s->committed[i] = bench_now();
    }
    pgshop_close(&here);
}

/* ---- the other process ------------------------------------------------- */

/* bench-pg --publisher map n rate */
int pgbench_publisher_main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    publish_all(bench_samples_map(argv[0]), atoi(argv[1]), atoi(argv[2]), 0);
    return 0;
}

static void publish_elsewhere(const char *map, int n, int per_second)
{
    char count[16], rate[16];
    const char *const argv[] = { bench_program, "--publisher", map, count,
                                 rate, NULL };

    snprintf(count, sizeof count, "%d", n);
    snprintf(rate, sizeof rate, "%d", per_second);
    bench_run_again(argv);
}

/* ------------------------------------------------------------------------ */

static outbox_relay_t *start(bench_samples *s)
{
    outbox_relay_t *relay = pg_relay(bench_stamp, s, NULL, 0);

    bench_start(relay);
    return relay;
}

static void one_process(const char *what, int n, int per_second,
                        int with_commit)
{
    static bench_samples s;

    memset(&s, 0, sizeof s);
    pgshop_create();
    outbox_relay_t *relay = start(&s);
    publish_all(&s, n, per_second, with_commit);
    bench_await(&s, n);
    bench_stop(relay);
    bench_delay_row(&s, n, what, 0.3e-3);
}

static void two_processes(const char *what, int n, int per_second)
{
    const char *map = bench_file("map");
    bench_samples *s = bench_samples_map(map);

    pgshop_create();
    outbox_relay_t *relay = start(s);
    double from = bench_now(), cpu = bench_cpu();
    publish_elsewhere(map, n, per_second);
    bench_await(s, n);
    cpu = (bench_cpu() - cpu) / (bench_now() - from);
    bench_stop(relay);
    bench_delay_row(s, n, what, 0.3e-3);
    bench_row("  CPU of that relay", bench_text("%.1f %%", cpu * 100), "", "",
              BENCH_INFO);
    bench_samples_unmap(s, map);
}

/* The relay's own, and that of its backend. */
static void idle(double seconds)
{
    static bench_samples s;
    struct timespec nap = { .tv_sec = (time_t)seconds };
    pgshop watch;

    memset(&s, 0, sizeof s);
    pgshop_create();
    pgshop_open(&watch, 0);
    outbox_relay_t *relay = start(&s);
    publish_all(&s, 20, 100, 0);
    bench_await(&s, 20);
    nanosleep(&(struct timespec){ .tv_sec = 1 }, NULL);
    double cpu = bench_cpu() + pg_backend_cpu(&watch);
    nanosleep(&nap, NULL);
    cpu = (bench_cpu() + pg_backend_cpu(&watch) - cpu) / seconds * 100;
    bench_stop(relay);
    pgshop_close(&watch);
    bench_row("CPU of an idle relay", bench_text("%.2f %%", cpu), "", "< 1 %",
              cpu < 1 ? BENCH_OK : BENCH_MISS);
}

/* A step that looks for news and finds none. */
static void empty_poll(int n)
{
    static bench_samples s;
    double v[BENCH_SAMPLES];

    memset(&s, 0, sizeof s);
    pgshop_create();
    outbox_relay_t *relay = pg_relay(bench_stamp, &s, NULL, 0);
    for (int i = -200; i < n; i++) {
        outbox_relay_wake(relay);
        double from = bench_now();
        pg_step(relay, 0);
        if (i >= 0)
            v[i] = bench_now() - from;
    }
    outbox_relay_free(relay);
    double p50 = bench_percentile(v, n, 50);
    bench_row("an empty poll", bench_time(p50),
              bench_text("p99 %s", bench_time(bench_percentile(v, n, 99))),
              "< 300 us", p50 < 0.3e-3 ? BENCH_OK : BENCH_MISS);
}

void pgbench_latency(void)
{
    int n = bench_quick ? 300 : 1000;

    bench_title(bench_text("latency from COMMIT to callback, p50 of %d", n));
    empty_poll(n);
    one_process("publish_commit, 100/s", n, 100, 1);
    one_process("publish_commit, 500/s", n, 500, 1);
    one_process("COMMIT, 100/s", n, 100, 0);
    one_process("COMMIT, 500/s", n, 500, 0);
    two_processes("another process, 100/s", n, 100);
    two_processes("another process, 500/s", n, 500);
    idle(bench_quick ? 3 : 10);
}

/* ---- beside an old snapshot -------------------------------------------- */

typedef struct figures {
    double latency, save, publish;      /* seconds each */
} figures;

/* The median of a save's statement, as the relay's steps show it. */
static double save_cost(int n)
{
    static bench_samples s;
    double v[BENCH_SAMPLES];
    pgshop till;

    memset(&s, 0, sizeof s);
    pgshop_open(&till, 0);
    outbox_relay_t *relay = pg_relay(bench_stamp, &s, "saver", 0);
    for (int i = 0; i < 20; i++)
        pg_step(relay, 0);
    memset(till.payload, 0xff, sizeof(int32_t));        /* no sample's */
    for (int i = 0; i < n; i++) {
        pgshop_begin(&till);
        pgshop_publish_commit(&till);
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        double from = bench_now();
        for (int k = 0; k < 4; k++)
            pg_step(relay, 0);
        v[i] = bench_now() - from;
    }
    outbox_relay_free(relay);
    pgshop_close(&till);
    return bench_percentile(v, n, 50);
}

static figures measure(int n)
{
    static bench_samples s;
    figures f;
    double v[BENCH_SAMPLES];
    pgshop till;

    memset(&s, 0, sizeof s);
    outbox_relay_t *relay = start(&s);
    publish_all(&s, n, 200, 0);
    bench_await(&s, n);
    bench_stop(relay);
    f.latency = bench_delays(&s, n, v);
    f.save = save_cost(n);
    pgshop_open(&till, 0);
    for (int i = 0; i < n; i++) {
        double from = bench_now();
        pgshop_begin(&till);
        pgshop_publish_commit(&till);
        v[i] = bench_now() - from;
    }
    pgshop_close(&till);
    f.publish = bench_percentile(v, n, 50);
    return f;
}

static void compare(const char *what, double *with, double *without, int n)
{
    double ratio[BENCH_MAX_ROUNDS], w = bench_median(with, n);

    for (int i = 0; i < n; i++)
        ratio[i] = with[i] / without[i];
    double r = bench_median(ratio, n);
    bench_row(what, bench_time(w), bench_text("%.2f", r), "<= 1.20",
              r <= 1.2 ? BENCH_OK : BENCH_MISS);
}

/* A publisher idle in its transaction and a REPEATABLE READ snapshot, both
 * held for the whole round. */
void pgbench_old(void)
{
    int rounds = bench_quick ? 3 : 7, n = bench_quick ? 200 : 500;
    double with[3][BENCH_MAX_ROUNDS], without[3][BENCH_MAX_ROUNDS];
    pgshop idle_one, reader;

    pgshop_create();
    pgshop_open(&idle_one, 0);
    pgshop_open(&reader, 0);
    for (int r = 0; r < rounds; r++) {
        for (int k = 0; k < 2; k++) {
            bool held = (r + k) % 2;
            if (held) {
                pgshop_begin(&idle_one);
                pgshop_publish(&idle_one);
                pgshop_do(&reader, "BEGIN ISOLATION LEVEL REPEATABLE READ;"
                                   "SELECT count(*) FROM account");
            }
            figures f = measure(n);
            (held ? with : without)[0][r] = f.latency;
            (held ? with : without)[1][r] = f.save;
            (held ? with : without)[2][r] = f.publish;
            if (held) {
                pgshop_commit(&idle_one);
                pgshop_do(&reader, "ROLLBACK");
            }
        }
    }
    bench_title("beside an idle publisher and an old snapshot");
    compare("latency of others", with[0], without[0], rounds);
    compare("a turn that reads and saves", with[1], without[1], rounds);
    compare("publish and commit", with[2], without[2], rounds);
    int64_t dead = pgshop_ask(&reader, "SELECT coalesce(sum(n_dead_tup), 0)"
                                       " FROM pg_stat_user_tables"
                                       " WHERE relname LIKE 'log\\_%'");
    bench_row("dead rows in the log", bench_count((double)dead, ""), "", "0",
              dead == 0 ? BENCH_OK : BENCH_MISS);
    pgshop_close(&idle_one);
    pgshop_close(&reader);
}

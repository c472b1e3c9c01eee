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

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SAMPLES = 2000, INTERVAL_NS = 5000000 };

typedef struct samples {
    double     committed[MAX_SAMPLES], received[MAX_SAMPLES];
    atomic_int n_received;
} samples;

/* The sequence number is the head of the payload. */
static outbox_verdict stamp(void *ctx, const outbox_event *ev,
                            outbox_token token, outbox_error *why)
{
    samples *s = ctx;
    int32_t i;

    (void)token, (void)why;
    memcpy(&i, ev->payload, sizeof i);
    if (i >= 0 && i < MAX_SAMPLES && !(s->received[i] > 0)) {
        s->received[i] = bench_now();
        atomic_fetch_add(&s->n_received, 1);
    }
    return OUTBOX_ACK;
}

static void sleep_to(struct timespec *at, long ns)
{
    at->tv_nsec += ns;
    if (at->tv_nsec >= 1000000000) {
        at->tv_nsec -= 1000000000;
        at->tv_sec++;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, at, NULL) == EINTR)
        ;
}

static void publish_all(samples *s, const char *path, int n, int with_commit)
{
    struct timespec at;
    shop here;

    shop_open(&here, path, "FULL");
    clock_gettime(CLOCK_MONOTONIC, &at);
    for (int32_t i = 0; i < n; i++) {
        sleep_to(&at, INTERVAL_NS);
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

static samples *map_samples(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    void *p;

    if (fd < 0 || ftruncate(fd, sizeof(samples)) != 0)
        bench_die("%s: %s", path, strerror(errno));
    p = mmap(NULL, sizeof(samples), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        bench_die("mmap: %s", strerror(errno));
    close(fd);
    return p;
}

/* bench --publisher database map n */
int bench_publisher_main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    publish_all(map_samples(argv[1]), argv[0], atoi(argv[2]), 0);
    return 0;
}

static void publish_elsewhere(const char *path, const char *map, int n)
{
    char count[16];
    int status = 0;
    pid_t pid;

    snprintf(count, sizeof count, "%d", n);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        execlp(bench_program, bench_program, "--publisher", path, map, count,
               (char *)NULL);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        bench_die("the publisher process failed: status %d", status);
}

/* ------------------------------------------------------------------------ */

static void await(samples *s, int n)
{
    double until = bench_now() + 10;
    struct timespec tick = { .tv_nsec = 1000000 };

    while (atomic_load(&s->n_received) < n) {
        if (bench_now() > until)
            bench_die("%d of %d events came", atomic_load(&s->n_received), n);
        nanosleep(&tick, NULL);
    }
}

static void report(const samples *s, int n, const char *what, double goal)
{
    double v[MAX_SAMPLES], p50;

    for (int i = 0; i < n; i++) {
        v[i] = s->received[i] - s->committed[i];
        if (v[i] < 0)
            v[i] = 0;
    }
    p50 = bench_percentile(v, n, 50);
    bench_row(what, bench_time(p50),
              bench_text("p99 %s", bench_time(bench_percentile(v, n, 99))),
              bench_text("< %s", bench_time(goal)),
              p50 < goal ? BENCH_OK : BENCH_MISS);
}

static outbox_relay_t *start(const char *path, samples *s)
{
    outbox_error err = { 0 };
    outbox_relay_t *relay = bench_relay(path, stamp, s, NULL, 0, NULL);

    bench_check(outbox_relay_start(relay, &err), &err, "start");
    return relay;
}

static void stop(outbox_relay_t *relay)
{
    outbox_error err = { 0 };

    bench_check(outbox_relay_stop(relay, 10000, &err), &err, "stop");
    outbox_relay_free(relay);
}

static void one_process(const char *what, int n, int with_commit, double goal)
{
    static samples s;
    const char *path = bench_file("latency.db");
    outbox_relay_t *relay;

    memset(&s, 0, sizeof s);
    shop_create(path);
    relay = start(path, &s);
    publish_all(&s, path, n, with_commit);
    await(&s, n);
    stop(relay);
    report(&s, n, what, goal);
    bench_remove(path);
}

/* Here this process is nothing but a relay: its CPU time is the relay's. */
static void two_processes(int n)
{
    const char *path = bench_file("latency.db"), *map = bench_file("map");
    samples *s = map_samples(map);
    outbox_relay_t *relay;
    double cpu, from;

    shop_create(path);
    relay = start(path, s);
    from = bench_now();
    cpu = bench_cpu();
    publish_elsewhere(path, map, n);
    await(s, n);
    cpu = (bench_cpu() - cpu) / (bench_now() - from);
    stop(relay);
    report(s, n, "another process, COMMIT", 1e-3);
    bench_row("  CPU of that relay", bench_text("%.1f %%", cpu * 100), "", "",
              BENCH_INFO);
    munmap(s, sizeof *s);
    bench_remove(path);
    bench_remove(map);
}

static void idle(double seconds)
{
    static samples s;
    const char *path = bench_file("latency.db");
    struct timespec nap = { .tv_sec = (time_t)seconds };
    outbox_relay_t *relay;
    double cpu;

    memset(&s, 0, sizeof s);
    shop_create(path);
    relay = start(path, &s);
    publish_all(&s, path, 20, 0);
    await(&s, 20);
    /* What follows the last event, such as saving, is not idling. */
    nanosleep(&(struct timespec){ .tv_nsec = 500000000 }, NULL);
    cpu = bench_cpu();
    nanosleep(&nap, NULL);
    cpu = (bench_cpu() - cpu) / seconds * 100;
    stop(relay);
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
    int n = bench_quick ? 300 : MAX_SAMPLES;

    bench_title(bench_text("latency from commit to callback, p50 of %d", n));
    disk();
    one_process("outbox_publish_commit", n, 1, 100e-6);
    one_process("outbox_publish, COMMIT", n, 0, 1e-3);
    two_processes(n);
    disk();
    idle(bench_quick ? 2 : 5);
}

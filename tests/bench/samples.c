/* SPDX-License-Identifier: MIT
 *
 * samples.c - how long it takes from a commit to the callback, of events that
 *             are published here or by another process.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

outbox_verdict bench_stamp(void *ctx, const outbox_event *ev,
                           outbox_token token, outbox_error *why)
{
    bench_samples *s = ctx;
    int32_t i;

    (void)token, (void)why;
    memcpy(&i, ev->payload, sizeof i);
    if (i >= 0 && i < BENCH_SAMPLES && !(s->received[i] > 0)) {
        s->received[i] = bench_now();
        __atomic_add_fetch(&s->n_received, 1, __ATOMIC_SEQ_CST);
    }
    return OUTBOX_ACK;
}

void bench_sleep_to(struct timespec *at, long ns)
{
    at->tv_nsec += ns;
    if (at->tv_nsec >= 1000000000) {
        at->tv_nsec -= 1000000000;
        at->tv_sec++;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, at, NULL) == EINTR)
        ;
}

/* ---- the other process ------------------------------------------------- */

bench_samples *bench_samples_map(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    void *p;

    if (fd < 0 || ftruncate(fd, sizeof(bench_samples)) != 0)
        bench_die("%s: %s", path, strerror(errno));
    p = mmap(NULL, sizeof(bench_samples), PROT_READ | PROT_WRITE, MAP_SHARED,
             fd, 0);
    if (p == MAP_FAILED)
        bench_die("mmap: %s", strerror(errno));
    close(fd);
    return p;
}

void bench_samples_unmap(bench_samples *s, const char *path)
{
    munmap(s, sizeof *s);
    bench_remove(path);
}

void bench_run_again(const char *const argv[])
{
    int status = 0;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        execvp(bench_program, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        bench_die("the publisher process failed: status %d", status);
}

/* ---- waiting, and what came of it -------------------------------------- */

void bench_await(bench_samples *s, int n)
{
    double until = bench_now() + 20;
    int have;

    while ((have = __atomic_load_n(&s->n_received, __ATOMIC_SEQ_CST)) < n) {
        if (bench_now() > until)
            bench_die("%d of %d events came", have, n);
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
}

double bench_delays(const bench_samples *s, int n, double v[BENCH_SAMPLES])
{
    for (int i = 0; i < n; i++) {
        v[i] = s->received[i] - s->committed[i];
        if (v[i] < 0)
            v[i] = 0;
    }
    return bench_percentile(v, n, 50);
}

void bench_delay_row(const bench_samples *s, int n, const char *what,
                     double goal)
{
    double v[BENCH_SAMPLES], p50 = bench_delays(s, n, v);

    bench_row(what, bench_time(p50),
              bench_text("p99 %s", bench_time(bench_percentile(v, n, 99))),
              bench_text("< %s", bench_time(goal)),
              p50 < goal ? BENCH_OK : BENCH_MISS);
}

void bench_start(outbox_relay_t *relay)
{
    outbox_error err = { 0 };

    bench_check(outbox_relay_start(relay, &err), &err, "start");
}

void bench_stop(outbox_relay_t *relay)
{
    outbox_error err = { 0 };

    bench_check(outbox_relay_stop(relay, 10000, &err), &err, "stop");
    outbox_relay_free(relay);
}

/* SPDX-License-Identifier: MIT
 *
 * main.c - which seeds are run, and what is printed.
 *
 *   sim                             what make check runs: 2,000 seeds, and
 *                                   10,000 if CI is true; fewer with
 *                                   sanitizers
 *   sim --seeds FROM COUNT [--jobs N]
 *   sim --seed N [--verbose]        one seed; with its whole history
 *   sim --twice FROM COUNT          each seed twice: the histories are equal
 *   ... --keep-going                after a violation, too
 *   ... --without PART              leaves something out of every run, such as
 *                                   crash, replay, ordered: see plan.c
 *
 * Exits with 1 at the first violation, after printing its seed.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE             /* SA_ONSTACK */
#endif

#include "sim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_JOBS = 64, MAX_PARTS = 16, HANG_S = 60, CHECK_TWICE = 50 };

typedef struct options {
    uint64_t from, count;
    int      jobs;
    bool     verbose, twice, keep_going;
    const char *without[MAX_PARTS + 1];
    int      n_without;
} options;

/* Shared by all jobs. */
typedef struct board {
    uint64_t tallies[MAX_JOBS][TALLIES];
    uint64_t seeds[MAX_JOBS];
} board;

static volatile uint64_t current_seed;

/* ---- when the library itself breaks down ----------------------------- */

static void print_seed(int sig)
{
    char line[128];
    int n = snprintf(line, sizeof line,
                     "violation: %s: seed %llu\nagain with: sim --seed %llu "
                     "--verbose\n", sig == SIGALRM ? "hangs" : "crashes",
                     (unsigned long long)current_seed,
                     (unsigned long long)current_seed);
    if (n > 0 && write(STDOUT_FILENO, line, (size_t)n) < 0)
        _exit(3);
    _exit(2);
}

static void watch_signals(void)
{
    static char stack[64 * 1024];
    static const int signals[] = { SIGALRM, SIGSEGV, SIGBUS, SIGABRT, SIGFPE };
    stack_t alt = { .ss_sp = stack, .ss_size = sizeof stack };
    struct sigaction sa = { .sa_handler = print_seed,
                            .sa_flags = SA_ONSTACK };

    sigaltstack(&alt, NULL);
    sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < OB_COUNT(signals); i++)
        sigaction(signals[i], &sa, NULL);
}

/* ---- seeds ----------------------------------------------------------- */

static bool run_seed(sim *w, uint64_t seed, const options *o)
{
    current_seed = seed;
    alarm(HANG_S);
    bool good = sim_run(w, seed);
    uint64_t hash = w->hash;
    if (good && o->twice) {
        good = sim_run(w, seed);
        if (good && hash != w->hash) {
            snprintf(w->rule, sizeof w->rule, "differs");
            snprintf(w->text, sizeof w->text, "two runs, two histories");
            good = false;
        }
    }
    if (!good)
        printf("violation: %s: seed %llu: %s\nagain with: sim --seed %llu "
               "--verbose\n", w->rule, (unsigned long long)seed, w->text,
               (unsigned long long)seed);
    fflush(stdout);
    return good;
}

static int run_job(int job, const options *o, board *b)
{
    sim *w = sim_new();
    int status = 0;

    if (w == NULL)
        return 3;
    watch_signals();
    w->verbose = o->verbose;
    w->without = o->without;
    w->tallies = b->tallies[job];
    for (uint64_t i = (uint64_t)job;
         i < o->count && (status == 0 || o->keep_going);
         i += (uint64_t)o->jobs) {
        if (!run_seed(w, o->from + i, o))
            status = 1;
        b->seeds[job]++;
    }
    alarm(0);
    if (o->verbose)
        printf("history %016llx\n", (unsigned long long)w->hash);
    sim_free(w);
    return status;
}

static int run_jobs(const options *o, board *b)
{
    int worst = 0, status;

    if (o->jobs == 1)
        return run_job(0, o, b);
    fflush(stdout);
    for (int job = 0; job < o->jobs; job++) {
        pid_t pid = fork();
        if (pid < 0)
            return 3;
        if (pid == 0) {
            status = run_job(job, o, b);
            fflush(stdout);
            _exit(status);
        }
    }
    while (wait(&status) > 0) {
        int code = WIFEXITED(status) ? WEXITSTATUS(status) : 2;
        worst = code > worst ? code : worst;
    }
    return worst;
}

/* ---- what is printed ------------------------------------------------- */

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void summary(const options *o, const board *b, double took)
{
    uint64_t seeds = 0;

    for (int job = 0; job < o->jobs; job++)
        seeds += b->seeds[job];
    for (int i = 0; i < TALLIES; i++) {
        uint64_t n = 0;
        for (int job = 0; job < o->jobs; job++)
            n += b->tallies[job][i];
        printf("%12llu  %s\n", (unsigned long long)n, tally_names[i]);
    }
    printf("%12llu  seeds from %llu%s, %.1f s, %.0f per second\n",
           (unsigned long long)seeds, (unsigned long long)o->from,
           o->twice ? ", each twice" : "", took, (double)seeds / took);
}

static int run(const options *o)
{
    board *b = mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double start = seconds();

    if (b == MAP_FAILED)
        return 3;
    int status = run_jobs(o, b);
    if (!o->verbose)
        summary(o, b, seconds() - start);
    munmap(b, sizeof *b);
    return status;
}

/* ---- arguments ------------------------------------------------------- */

static bool number(const char *text, uint64_t *out)
{
    char *end;

    if (text == NULL || *text == '\0' || *text == '-')
        return false;
    *out = strtoull(text, &end, 10);
    return *end == '\0';
}

static bool parse(char **arg, options *o)
{
    uint64_t jobs;

    for (; *arg != NULL; arg++) {
        if (strcmp(*arg, "--verbose") == 0) {
            o->verbose = true;
        } else if (strcmp(*arg, "--keep-going") == 0) {
            o->keep_going = true;
        } else if (strcmp(*arg, "--seed") == 0 && number(arg[1], &o->from)) {
            o->count = 1;
            arg++;
        } else if ((strcmp(*arg, "--seeds") == 0 ||
                    strcmp(*arg, "--twice") == 0) &&
                   number(arg[1], &o->from) && number(arg[2], &o->count)) {
            o->twice = strcmp(*arg, "--twice") == 0;
            arg += 2;
        } else if (strcmp(*arg, "--without") == 0 && arg[1] != NULL &&
                   plan_part(arg[1]) && o->n_without < MAX_PARTS) {
            o->without[o->n_without++] = *++arg;
        } else if (strcmp(*arg, "--jobs") == 0 && number(arg[1], &jobs) &&
                   jobs >= 1 && jobs <= MAX_JOBS) {
            o->jobs = (int)jobs;
            arg++;
        } else {
            return false;
        }
    }
    return true;
}

static uint64_t check_seeds(void)
{
    const char *ci = getenv("CI");
    uint64_t seeds = ci != NULL && strcmp(ci, "true") == 0 ? 10000 : 2000;

    return coro_slow() ? seeds / 10 : seeds;
}

int main(int argc, char **argv)
{
    options o = { .from = 1, .count = check_seeds(), .jobs = 1 };
    options twice = { .from = 1, .count = CHECK_TWICE, .jobs = 1,
                      .twice = true };

    if (!parse(argv + 1, &o)) {
        fprintf(stderr, "usage: sim [--seeds FROM COUNT] [--jobs N] "
                        "[--seed N [--verbose]] [--twice FROM COUNT] "
                        "[--keep-going] [--without PART]...\n");
        return 2;
    }
    int status = run(&o);
    if (status == 0 && argc == 1)
        status = run(&twice);
    return status;
}

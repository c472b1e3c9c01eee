/* SPDX-License-Identifier: MIT
 *
 * bench.c - the benchmark's command line: bench [--quick] [part ...]
 */
#include "bench.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int bench_quick;
const char *bench_program;

static const struct part {
    const char *name;
    void (*run)(void);
    const char *what;
} parts[] = {
    { "publish", bench_publish, "cost of an event in a transaction" },
    { "drain", bench_drain, "a backlog of 1,000,000 events" },
    { "steady", bench_steady, "busy publishers beside a relay" },
    { "latency", bench_latency, "from commit to callback; idle CPU" },
    { "alloc", bench_alloc, "allocations per event relayed" },
};

enum { N_PARTS = sizeof parts / sizeof *parts };

void bench_die(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    fflush(stdout);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

void bench_check(int rc, const outbox_error *err, const char *what)
{
    if (rc < 0)
        bench_die("%s: %s: %s", what, outbox_strerror(rc), err->text);
}

static void usage(FILE *to)
{
    fputs("usage: bench [--quick] [part ...]\n", to);
    for (int i = 0; i < N_PARTS; i++)
        fprintf(to, "  %-8s  %s\n", parts[i].name, parts[i].what);
    fputs("The files are made in $BENCH_DIR, or else on a disk.\n", to);
}

static int find_part(const char *name)
{
    for (int i = 0; i < N_PARTS; i++) {
        if (!strcmp(parts[i].name, name))
            return i;
    }
    return -1;
}

/* Which parts to run, as bits; 0: none were named. */
static unsigned read_arguments(int argc, char **argv)
{
    unsigned wanted = 0;

    for (int i = 1; i < argc; i++) {
        int p = find_part(argv[i]);

        if (!strcmp(argv[i], "--help")) {
            usage(stdout);
            exit(0);
        } else if (!strcmp(argv[i], "--quick")) {
            bench_quick = 1;
        } else if (p >= 0) {
            wanted |= 1u << p;
        } else {
            usage(stderr);
            exit(2);
        }
    }
    return wanted;
}

int main(int argc, char **argv)
{
    unsigned wanted;

    bench_program = argv[0];
    if (argc > 1 && !strcmp(argv[1], "--publisher"))
        return bench_publisher_main(argc - 2, argv + 2);
    wanted = read_arguments(argc, argv);
    bench_place_open();
    bench_head();
    for (int i = 0; i < N_PARTS; i++) {
        if (!wanted || wanted & 1u << i)
            parts[i].run();
    }
    bench_foot();
    return 0;
}

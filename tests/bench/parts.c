/* SPDX-License-Identifier: MIT
 *
 * parts.c - a benchmark's command line: [--quick] [part ...]
 */
#include "bench.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int bench_quick;
const char *bench_program;

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

static void usage(FILE *to, const bench_part *parts)
{
    fputs("usage: bench [--quick] [part ...]\n", to);
    for (; parts->name != NULL; parts++)
        fprintf(to, "  %-8s  %s\n", parts->name, parts->what);
    fputs("Files are made in $BENCH_DIR, or else on a disk.\n", to);
}

static int find_part(const bench_part *parts, const char *name)
{
    for (int i = 0; parts[i].name != NULL; i++) {
        if (strcmp(parts[i].name, name) == 0)
            return i;
    }
    return -1;
}

/* Which parts to run, as bits; 0: none were named. */
static unsigned read_arguments(const bench_part *parts, int argc, char **argv)
{
    unsigned wanted = 0;

    for (int i = 1; i < argc; i++) {
        int p = find_part(parts, argv[i]);

        if (strcmp(argv[i], "--help") == 0) {
            usage(stdout, parts);
            exit(0);
        } else if (strcmp(argv[i], "--quick") == 0) {
            bench_quick = 1;
        } else if (p >= 0) {
            wanted |= 1u << p;
        } else {
            usage(stderr, parts);
            exit(2);
        }
    }
    return wanted;
}

int bench_main(const bench_part *parts, void (*head)(void), int argc,
               char **argv)
{
    unsigned wanted = read_arguments(parts, argc, argv);

    bench_program = argv[0];
    bench_place_open();
    head();
    for (int i = 0; parts[i].name != NULL; i++) {
        if (wanted == 0 || wanted & 1u << i)
            parts[i].run();
    }
    bench_foot();
    return 0;
}

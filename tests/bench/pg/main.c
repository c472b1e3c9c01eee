/* SPDX-License-Identifier: MIT
 *
 * main.c - the benchmark's command line: bench-pg [--quick] [part ...], inside
 *          tests/bin/pg-cluster.
 */
#include "store.h"

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
    { "publish", pgbench_publish, "cost of an event in a transaction" },
    { "many", pgbench_many, "publish_many against COPY" },
    { "inbox", pgbench_inbox, "accept against INSERT ... ON CONFLICT" },
    { "latency", pgbench_latency, "from COMMIT to callback; idle CPU" },
    { "old", pgbench_old, "beside an old snapshot and an idle transaction" },
    { "drain", pgbench_drain, "a backlog of 1,000,000 events" },
    { "long", pgbench_long, "1,000,000 events in one transaction" },
    { "backlog", pgbench_backlog, "one of 10,000,000, first to last page" },
};

enum { N_PARTS = sizeof parts / sizeof *parts };

void bench_die(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    fflush(stdout);
    fputs("bench-pg: ", stderr);
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

static int usage(FILE *to)
{
    fputs("usage: bench-pg [--quick] [part ...]\n", to);
    for (int i = 0; i < N_PARTS; i++)
        fprintf(to, "  %-8s  %s\n", parts[i].name, parts[i].what);
    return to == stderr ? 2 : 0;
}

static int find_part(const char *name)
{
    for (int i = 0; i < N_PARTS; i++) {
        if (strcmp(parts[i].name, name) == 0)
            return i;
    }
    return -1;
}

static void head(void)
{
    pgshop s = { .conn = PQconnectdb(pg_conninfo()) };

    if (PQstatus(s.conn) != CONNECTION_OK)
        bench_die("%s", PQerrorMessage(s.conn));
    int version = PQserverVersion(s.conn);
    bench_head();
    printf("PostgreSQL %d.%d over a unix socket, its own cluster\n",
           version / 10000, version % 10000);
    PQfinish(s.conn);
}

int main(int argc, char **argv)
{
    unsigned wanted = 0;

    bench_program = argv[0];
    if (argc > 1 && strcmp(argv[1], "--publisher") == 0)
        return pgbench_publisher_main(argc - 2, argv + 2);
    for (int i = 1; i < argc; i++) {
        int p = find_part(argv[i]);
        if (strcmp(argv[i], "--quick") == 0)
            bench_quick = 1;
        else if (p >= 0)
            wanted |= 1u << p;
        else
            return usage(strcmp(argv[i], "--help") == 0 ? stdout : stderr);
    }
    bench_place_open();
    head();
    for (int i = 0; i < N_PARTS; i++) {
        if (wanted == 0 || wanted & 1u << i)
            parts[i].run();
    }
    bench_foot();
    return 0;
}

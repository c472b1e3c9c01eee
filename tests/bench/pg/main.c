/* SPDX-License-Identifier: MIT
 *
 * main.c - the parts of the benchmark of the PostgreSQL store; runs inside
 *          tests/bin/pg-cluster.
 */
#include "store.h"

#include <stdio.h>
#include <string.h>

static const bench_part pg_parts[] = {
    { "publish", pgbench_publish, "cost of an event in a transaction" },
    { "many", pgbench_many, "publish_many against COPY" },
    { "inbox", pgbench_inbox, "accept against INSERT ... ON CONFLICT" },
    { "latency", pgbench_latency, "from COMMIT to callback; idle CPU" },
    { "old", pgbench_old, "beside an old snapshot and an idle transaction" },
    { "drain", pgbench_drain, "a backlog of 1,000,000 events" },
    { "long", pgbench_long, "1,000,000 events in one transaction" },
    { "backlog", pgbench_backlog, "one of 10,000,000, first to last page" },
    { 0 }
};

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
    if (argc > 1 && strcmp(argv[1], "--publisher") == 0)
        return pgbench_publisher_main(argc - 2, argv + 2);
    return bench_main(pg_parts, head, argc, argv);
}

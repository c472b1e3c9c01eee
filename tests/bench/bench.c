/* SPDX-License-Identifier: MIT
 *
 * bench.c - the parts of the benchmark of the SQLite store.
 */
#include "bench.h"

#include <string.h>

static const bench_part bench_parts[] = {
    { "publish", bench_publish, "cost of an event in a transaction" },
    { "drain", bench_drain, "a backlog of 1,000,000 events" },
    { "steady", bench_steady, "busy publishers beside a relay" },
    { "latency", bench_latency, "from commit to callback; idle CPU" },
    { "alloc", bench_alloc, "allocations per event relayed" },
    { 0 }
};

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--publisher") == 0)
        return bench_publisher_main(argc - 2, argv + 2);
    return bench_main(bench_parts, bench_head, argc, argv);
}

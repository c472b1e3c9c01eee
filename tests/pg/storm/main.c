/* SPDX-License-Identifier: MIT
 *
 * main.c - storm EVENTS SEED, inside tests/bin/pg-cluster.  The driver starts
 * the others itself: ROLE DIR SLOT RUN SEED EVENTS.
 */
#include <stdlib.h>
#include <string.h>

#include "storm.h"

static void on_term(int sig)
{
    (void)sig;
    told_to_stop = 1;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 3)
        return driver_main(strtoll(argv[1], NULL, 10),
                           strtoull(argv[2], NULL, 10));
    if (argc != 7) {
        fprintf(stderr, "usage: storm EVENTS SEED\n");
        return 2;
    }
    task job = { .dir = argv[2],
                 .slot = atoi(argv[3]),
                 .run = atoi(argv[4]),
                 .seed = strtoull(argv[5], NULL, 10),
                 .events = strtoll(argv[6], NULL, 10) };
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_term);
    return strcmp(argv[1], "writer") == 0 ? writer_main(&job)
                                          : relay_main(&job);
}

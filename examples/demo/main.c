/* SPDX-License-Identifier: MIT
 *
 * main.c - the demo: which role is asked for.
 */
#include "demo.h"

#include <stdio.h>
#include <string.h>

static int usage(void)
{
    fputs("usage: demo [--keep] ORDERS      the whole story; -: from stdin\n"
          "   or: demo service DB SOCKET ORDERS\n"
          "   or: demo consumer DB SOCKET   both until their stdin ends\n",
          stderr);
    return 2;
}

int main(int argc, char **argv)
{
    const char *role = argc > 1 ? argv[1] : "";

    if (strcmp(role, "service") == 0 && argc == 5)
        return service_main(argv[2], argv[3], argv[4]);
    if (strcmp(role, "consumer") == 0 && argc == 4)
        return consumer_main(argv[2], argv[3]);
    if (strcmp(role, "--keep") == 0 && argc == 3)
        return driver_main(argv[0], argv[2], 1);
    if (argc == 2 && (role[0] != '-' || role[1] == '\0'))
        return driver_main(argv[0], argv[1], 0);
    return usage();
}

/* SPDX-License-Identifier: MIT
 *
 * main.c - failover ROUNDS DOSE SEED [PART]: all parts, or one of them.
 *
 *   DOSE     full, or small: a taste, for every change
 *   PART     rounds, clocks, poison, crowd, pile, heavy, outage, notice
 *
 * The driver starts the other processes itself: ROLE DIR RUN SEED PLAN.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "failover.h"

volatile sig_atomic_t told_to_stop;

/* ---- roles ---- */

static void on_term(int sig)
{
    (void)sig;
    told_to_stop = 1;
}

static void listen_to_term(void)
{
    struct sigaction act = { .sa_handler = on_term };
    sigset_t term;

    sigaction(SIGTERM, &act, NULL);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_UNBLOCK, &term, NULL);
}

static int talkative_main(const task *job)
{
    listen_to_term();
    return publisher_main(job, false);
}

static const struct role {
    const char *name;
    int (*play)(const task *job);
} roles[] = {
    { "publisher", talkative_main },
    { "server", server_main },
    { "drainer", drainer_main },
    { "poisoned", poisoned_main },
    { "timed", timed_main },
    { "pulse", pulse_main },
    { "crowd", crowd_main },
    { "steady", steady_main },
    { "pile", pile_main },
    { "heavy", heavy_main },
    { "megabytes", megabytes_main },
    { "notice", notice_main },
    { "seldom", seldom_main },
};

static int play_role(const char *name, const task *job)
{
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (strcmp(roles[i].name, name) == 0)
            return roles[i].play(job);
    die(name, "no such role");
    return 2;
}

/* ---- parts ---- */

static const struct part {
    const char *name;
    void (*play)(const dose *d);
} parts[] = {
    { "rounds", rounds_play }, { "clocks", clocks_play },
    { "poison", poison_play }, { "crowd", crowd_play },
    { "pile", pile_play },     { "heavy", heavy_play },
    { "outage", outage_play }, { "notice", notice_play },
};

static int play_parts(const dose *d, const char *only)
{
    int found = 0;

    table_head();
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (only != NULL && strcmp(only, parts[i].name) != 0)
            continue;
        found++;
        parts[i].play(d);
    }
    if (found == 0)
        die(only, "no such part");
    return rows_failed() > 0;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 6) {
        task job = { .dir = argv[2],
                     .run = atoi(argv[3]),
                     .seed = strtoull(argv[4], NULL, 10) };

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (plan_parse(&job.plan, argv[5]))
            return play_role(argv[1], &job);
    } else if (argc == 4 || argc == 5) {
        dose d = { .rounds = atoi(argv[1]),
                   .small = strcmp(argv[2], "small") == 0,
                   .seed = strtoull(argv[3], NULL, 10) };

        return play_parts(&d, argv[4]);
    }
    fprintf(stderr, "usage: failover ROUNDS full|small SEED [PART]\n");
    return 2;
}

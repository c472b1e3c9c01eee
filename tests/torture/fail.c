/* SPDX-License-Identifier: MIT
 *
 * fail.c - where this process shall die, or be stopped, as the environment
 * says: TORTURE_KILL and TORTURE_STOP are lists of "name:nth", with commas
 * between.  Each is counted from the start of the process.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "torture.h"

enum { MAX_POINTS = 8 };

static struct point {
    char name[48];
    int left;
    int sig;
} points[MAX_POINTS];

static int n_points;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void read_list(const char *variable, int sig)
{
    const char *list = getenv(variable);

    while (list != NULL && *list != '\0' && n_points < MAX_POINTS) {
        struct point *p = &points[n_points++];
        int used = 0;

        p->sig = sig;
        if (sscanf(list, "%47[^:]:%d%n", p->name, &p->left, &used) != 2)
            die(variable, list);
        list += used + (list[used] == ',');
    }
}

static void read_environment(void)
{
    read_list("TORTURE_KILL", SIGKILL);
    read_list("TORTURE_STOP", SIGSTOP);
}

/* raise() and not kill(): this very thread does not get past it. */
void ob_failpoint(const char *name)
{
    int sig = 0;

    pthread_once(&once, read_environment);
    if (n_points == 0)
        return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n_points; i++)
        if (strcmp(points[i].name, name) == 0 && --points[i].left == 0)
            sig = points[i].sig;
    pthread_mutex_unlock(&lock);
    if (sig != 0)
        raise(sig);
}

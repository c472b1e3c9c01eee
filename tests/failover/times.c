/* SPDX-License-Identifier: MIT
 *
 * times.c - a file of deliveries with their times, appended to by the relays
 * and followed by the driver: for measuring only, the judge does not read it.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "failover.h"

int times_open(const char *dir)
{
    char path[PATH_BYTES];
    int fd;

    path_join(path, dir, "times");
    fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        die(path, "cannot append");
    return fd;
}

void times_append(int fd, const delivery *d)
{
    if (write(fd, d, sizeof *d) != sizeof *d)
        die("times", "short write");
}

void board_open(board *b, const char *dir)
{
    memset(b, 0, sizeof *b);
    b->fd = times_open(dir);
}

void board_close(board *b)
{
    close(b->fd);
}

static void watch_note(watch *w, const delivery *d)
{
    if (d->lane < 0) {
        if (d->run == w->run)
            w->stopped_us = d->at_us;
        return;
    }
    if (d->run == w->run || w->next[d->lane].lane != -1)
        return;
    w->next[d->lane] = *d;
    w->waiting--;
}

static void board_note(board *b, const delivery *d)
{
    if (d->lane < 0)
        return;
    b->last[d->lane] = *d;
    b->deliveries++;
    if (b->last_us != 0 && d->at_us - b->last_us > b->longest_us)
        b->longest_us = d->at_us - b->last_us;
    if (d->at_us > b->last_us)
        b->last_us = d->at_us;
}

/* w may be NULL. */
void board_follow(board *b, watch *w)
{
    delivery d[128];
    ssize_t got;

    while ((got = pread(b->fd, d, sizeof d, b->offset)) >=
           (ssize_t)sizeof d[0]) {
        size_t n = (size_t)got / sizeof d[0];

        for (size_t i = 0; i < n; i++) {
            board_note(b, &d[i]);
            if (w != NULL)
                watch_note(w, &d[i]);
        }
        b->offset += (int64_t)(n * sizeof d[0]);
    }
}

/* The lanes of which this run has made the last delivery. */
void board_watch(const board *b, watch *w, int run)
{
    memset(w, 0, sizeof *w);
    w->run = run;
    for (int i = 0; i < LANES; i++) {
        bool his = b->last[i].run == run;

        w->next[i].lane = his ? -1 : -2;
        w->last_us[i] = b->last[i].at_us;
        w->waiting += his;
    }
}

/* SPDX-License-Identifier: MIT
 *
 * pulse.c - how long the machine itself stands still: a process that commits
 * to a file of its own, durably, every few ms, and writes down when that took
 * long.  A relay that could not write because nobody could is not late.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "failover.h"

enum { BEAT_US = 10000, LONG_US = 40000, MAX_HALTS = 4096 };

typedef struct halt {
    int64_t from_us, to_us;
} halt;

static int halts_open(const char *dir)
{
    char path[PATH_BYTES];
    int fd;

    path_join(path, dir, "halts");
    fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        die(path, "cannot append");
    return fd;
}

static void beat(sqlite3 *db)
{
    if (db_exec(db, "INSERT OR REPLACE INTO pulse VALUES(1, random())") !=
        SQLITE_OK)
        die("pulse", sqlite3_errmsg(db));
}

/* Role: until it is killed. */
int pulse_main(const task *job)
{
    sqlite3 *db = db_open(job->dir, "pulse.db", true, true);
    int fd = halts_open(job->dir);
    halt h = { .from_us = now_us() };

    db_exec(db, "CREATE TABLE pulse(one INTEGER PRIMARY KEY, v)");
    for (;;) {
        pause_us(BEAT_US);
        beat(db);
        h.to_us = now_us();
        if (h.to_us - h.from_us > LONG_US &&
            write(fd, &h, sizeof h) != sizeof h)
            die("halts", "short write");
        h.from_us = h.to_us;
    }
}

/* How much of this time the machine stood still. */
int64_t pulse_halted(const char *dir, int64_t from_us, int64_t to_us)
{
    halt h[MAX_HALTS];
    int fd = halts_open(dir);
    ssize_t got = pread(fd, h, sizeof h, 0);
    int64_t sum = 0;

    for (ssize_t i = 0; i < got / (ssize_t)sizeof h[0]; i++) {
        int64_t a = h[i].from_us > from_us ? h[i].from_us : from_us;
        int64_t b = h[i].to_us < to_us ? h[i].to_us : to_us;

        if (b > a)
            sum += b - a;
    }
    close(fd);
    return sum;
}

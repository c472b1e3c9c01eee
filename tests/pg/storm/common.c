/* SPDX-License-Identifier: MIT
 *
 * common.c - what every role of storm needs.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "storm.h"

volatile sig_atomic_t told_to_stop;

void die(const char *what, const char *why)
{
    fprintf(stderr, "storm: %s: %s\n", what, why);
    _exit(2);
}

int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void pause_ms(int ms)
{
    nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000L }, NULL);
}

/* ---- chance ------------------------------------------------------------- */

uint64_t rng_next(rng *r)               /* splitmix64 */
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

int rng_below(rng *r, int n)
{
    return n <= 1 ? 0 : (int)(rng_next(r) % (uint64_t)n);
}

bool rng_permille(rng *r, int n)
{
    return rng_below(r, 1000) < n;
}

/* ---- files -------------------------------------------------------------- */

FILE *file_open(const char *dir, const char *name, const char *mode)
{
    char path[400];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return fopen(path, mode);
}

int history_open(const char *dir)
{
    char path[400];

    snprintf(path, sizeof path, "%s/history", dir);
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        die(path, "cannot append");
    return fd;
}

/* ---- databases ---------------------------------------------------------- */

const char *conninfo(void)
{
    const char *text = getenv("OUTBOX_TEST_PG");

    if (text == NULL)
        die("OUTBOX_TEST_PG", "not set: run me in tests/bin/pg-cluster");
    return text;
}

static void silence(void *arg, const PGresult *res)
{
    (void)arg;
    (void)res;
}

PGconn *db_try(void)
{
    PGconn *conn = PQconnectdb(conninfo());

    if (PQstatus(conn) != CONNECTION_OK) {
        PQfinish(conn);
        return NULL;
    }
    PQsetNoticeReceiver(conn, silence, NULL);
    db_exec(conn, "SET lock_timeout = '2s'");
    return conn;
}

PGconn *db_open(void)
{
    PGconn *conn;

    while ((conn = db_try()) == NULL && !told_to_stop)
        pause_ms(20);
    return conn;
}

bool db_exec(PGconn *conn, const char *sql)
{
    PGresult *res = PQexec(conn, sql);
    ExecStatusType status = PQresultStatus(res);

    PQclear(res);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

int64_t db_number(PGconn *conn, const char *sql, int64_t otherwise)
{
    PGresult *res = PQexec(conn, sql);
    int64_t n = otherwise;

    if (PQresultStatus(res) == PGRES_TUPLES_OK && PQntuples(res) > 0 &&
        !PQgetisnull(res, 0, 0))
        n = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    return n;
}

void db_settle_prepared(PGconn *conn, const char *prefix, rng *r)
{
    char sql[200];

    snprintf(sql, sizeof sql, "SELECT gid FROM pg_prepared_xacts WHERE"
                              " starts_with(gid, '%s')", prefix);
    PGresult *res = PQexec(conn, sql);
    for (int i = 0; i < PQntuples(res); i++) {
        snprintf(sql, sizeof sql, "%s PREPARED '%s'",
                 rng_below(r, 2) ? "COMMIT" : "ROLLBACK",
                 PQgetvalue(res, i, 0));
        db_exec(conn, sql);
    }
    PQclear(res);
}

/* ---- fail points -------------------------------------------------------- */

/* Nobody dies at one here: the driver kills from outside. */
void ob_failpoint(const char *name)
{
    (void)name;
}

/* SPDX-License-Identifier: MIT
 *
 * files.c - records, databases and payloads, as every role needs them.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "torture.h"

void die(const char *what, const char *why)
{
    fprintf(stderr, "torture: %s: %s\n", what, why);
    _exit(2);
}

int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void pause_us(int us)
{
    struct timespec ts = { us / 1000000, (long)(us % 1000000) * 1000 };

    nanosleep(&ts, NULL);
}

/* ---- records ---- */

void path_join(char out[PATH_BYTES], const char *dir, const char *name)
{
    if (snprintf(out, PATH_BYTES, "%s/%s", dir, name) >= PATH_BYTES)
        die(dir, "path too long");
}

int record_open(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    int fd;

    path_join(path, dir, name);
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        die(path, "cannot append");
    return fd;
}

void record_append(int fd, const record *rec)
{
    char line[RECORD_BYTES];
    int n = snprintf(line, sizeof line,
                     "%c %6d %9" PRId64 " %-36s %-8s %6" PRId64 " %7d %3d",
                     rec->kind, rec->run, rec->number,
                     rec->id[0] ? rec->id : "-", rec->key[0] ? rec->key : "-",
                     rec->version, rec->pid, rec->attempt);

    if (n < 0 || n >= RECORD_BYTES)
        die("history", "a record too long");
    memset(line + n, ' ', (size_t)(RECORD_BYTES - n));
    line[RECORD_BYTES - 1] = '\n';
    if (write(fd, line, RECORD_BYTES) != RECORD_BYTES)
        die("history", "short write");
}

bool record_read(FILE *file, record *rec)
{
    char line[RECORD_BYTES + 1];
    size_t got = fread(line, 1, RECORD_BYTES, file);

    if (got == 0)
        return false;
    line[got] = '\0';
    if (got != RECORD_BYTES || line[RECORD_BYTES - 1] != '\n' ||
        sscanf(line,
               "%c %d %" SCNd64 " %36s %23s %" SCNd64 " %d %d",
               &rec->kind, &rec->run, &rec->number, rec->id, rec->key,
               &rec->version, &rec->pid, &rec->attempt) != 8)
        die("history", "a torn record");
    return true;
}

/* ---- databases ---- */

/* Before 3.51.3, SQLite can corrupt a WAL database when two connections
 * checkpoint; so our own checkpoints are TRUNCATE ones, which lock writers
 * out, and autockpt is only for a publisher that is alone. */
sqlite3 *db_open(const char *dir, const char *name, bool full, bool autockpt)
{
    char path[PATH_BYTES];
    sqlite3 *db;
    int rc;

    path_join(path, dir, name);
    if (sqlite3_open(path, &db) != SQLITE_OK)
        die(path, sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 10000);
    /* Here the busy handler is not asked. */
    while ((rc = db_exec(db, "PRAGMA journal_mode=WAL")) == SQLITE_BUSY)
        pause_us(1000);
    if (rc != SQLITE_OK ||
        db_exec(db, full ? "PRAGMA synchronous=FULL"
                         : "PRAGMA synchronous=NORMAL") != SQLITE_OK)
        die(path, sqlite3_errmsg(db));
    if (!autockpt) {
        sqlite3_wal_autocheckpoint(db, 0);
        sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    }
    return db;
}

int db_exec(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

sqlite3_stmt *db_prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *st;

    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK)
        die(sql, sqlite3_errmsg(db));
    return st;
}

int64_t db_number(sqlite3 *db, const char *sql, int64_t otherwise)
{
    sqlite3_stmt *st = db_prepare(db, sql);
    int64_t n = otherwise;

    if (sqlite3_step(st) == SQLITE_ROW)
        n = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return n;
}

/* ---- payloads ---- */

/* Of many sizes, some of them larger than a database page. */
size_t payload_make(char out[PAYLOAD_BYTES], int64_t version)
{
    size_t head = (size_t)snprintf(out, PAYLOAD_BYTES, "%" PRId64 " ", version);
    size_t body = (size_t)(version * 37 % 300);

    if (version % 40 == 39)
        body = 6000;
    memset(out + head, 'a' + (int)(version % 26), body);
    return head + body;
}

bool payload_read(const void *payload, size_t len, int64_t *version)
{
    char want[PAYLOAD_BYTES], head[24] = "";

    memcpy(head, payload, len < sizeof head - 1 ? len : sizeof head - 1);
    *version = strtoll(head, NULL, 10);
    return *version > 0 && payload_make(want, *version) == len &&
           memcmp(want, payload, len) == 0;
}

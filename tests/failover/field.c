/* SPDX-License-Identifier: MIT
 *
 * field.c - a database to work on, and those who write to it and read from
 * it in the process of a scenario.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "failover.h"

enum { APART_MS = 600000 };

/* ---- making ---- */

static void migrate(const char *dir)
{
    sqlite3 *db = db_open(dir, "app.db", true, false);
    outbox_error err;
    outbox_t *ob;

    if (db_exec(db, "CREATE TABLE counter(key PRIMARY KEY,"
                    " version INTEGER NOT NULL);"
                    "CREATE TABLE business(n INTEGER PRIMARY KEY,"
                    " key TEXT NOT NULL, version INTEGER NOT NULL,"
                    " id TEXT NOT NULL UNIQUE, UNIQUE(key, version));"
                    "CREATE TABLE taken(one INTEGER PRIMARY KEY);"
                    "INSERT INTO taken VALUES(1)") != SQLITE_OK)
        die("app.db", sqlite3_errmsg(db));
    if (outbox_sqlite_open(&ob, db, NULL, &err) < 0 ||
        outbox_migrate(ob, &err) < 0)
        die("outbox_migrate", err.text);
    outbox_close(ob);
    sqlite3_close(db);
}

void field_make(field *f, uint64_t seed)
{
    const char *tmp = getenv("TMPDIR");

    memset(f, 0, sizeof *f);
    path_join(f->dir, tmp != NULL && *tmp != '\0' ? tmp : "/tmp",
              "failover.XXXXXX");
    if (mkdtemp(f->dir) == NULL)
        die(f->dir, "cannot make a directory");
    plan_default(&f->job.plan);
    f->job.seed = seed;
    f->job.dir = f->dir;
    migrate(f->dir);
}

void field_clear(field *f, int64_t failures)
{
    if (failures == 0)
        ground_clear(f->dir);
    else
        fprintf(stderr, "kept in %s\n", f->dir);
}

/* In a process of its own, whose memory is its own; it prints its rows. */
void play_apart(const char *role, field *f)
{
    child c;
    fate end;

    child_start(&c, role, &f->job, NULL, NULL);
    end = child_wait(&c, APART_MS);
    if (end == RUNNING)
        child_kill(&c);
    if (end != ENDED)
        row_failed();
    field_clear(f, end != ENDED);
}

int64_t field_number(const field *f, const char *sql)
{
    sqlite3 *db = db_open(f->dir, "app.db", false, false);
    int64_t n = db_number(db, sql, -1);

    sqlite3_close(db);
    return n;
}

/* ---- writing ---- */

void writer_open(writer *w, const char *dir, size_t max_payload)
{
    outbox_options opt = { .size = sizeof opt,
                           .max_payload_bytes = max_payload };
    outbox_error err;

    w->db = db_open(dir, "app.db", false, false);
    if (outbox_sqlite_open(&w->ob, w->db, &opt, &err) < 0)
        die("outbox_sqlite_open", err.text);
}

void writer_close(writer *w)
{
    outbox_close(w->ob);
    sqlite3_close(w->db);
}

static void writer_exec(writer *w, const char *sql)
{
    if (db_exec(w->db, sql) != SQLITE_OK)
        die(sql, sqlite3_errmsg(w->db));
}

void writer_begin(writer *w)
{
    writer_exec(w, "BEGIN IMMEDIATE");
}

void writer_commit(writer *w)
{
    writer_exec(w, "COMMIT");
}

void writer_put(writer *w, const outbox_event *ev)
{
    outbox_error err;

    if (outbox_publish(w->ob, ev, &err) != OUTBOX_OK)
        die("outbox_publish", err.text);
}

void writer_one(writer *w, const char *key, const char *payload)
{
    outbox_event ev = { .size = sizeof ev,
                        .topic = "failover",
                        .key = key,
                        .content_type = "text/plain",
                        .payload = payload,
                        .payload_len = strlen(payload) };

    writer_begin(w);
    writer_put(w, &ev);
    writer_commit(w);
}

/* ---- relaying ---- */

outbox_relay_t *relay_make(const char *dir, const outbox_transport *tp,
                           outbox_relay_options opt)
{
    outbox_relay_t *relay;
    char path[PATH_BYTES];
    outbox_error err;
    outbox_t *ob;

    opt.size = sizeof opt;
    opt.subscription = "failover";
    path_join(path, dir, "app.db");
    if (outbox_sqlite_connect(&ob, path, NULL, &err) < 0)
        die("outbox_sqlite_connect", err.text);
    if (outbox_relay_new(&relay, ob, tp, &opt, &err) < 0)
        die("outbox_relay_new", err.text);
    return relay;
}

void relay_steps(outbox_relay_t *r, int ms)
{
    int64_t end = now_ms() + ms, left;
    outbox_error err;

    while ((left = end - now_ms()) > 0)
        if (outbox_relay_step(r, left < 20 ? (int)left : 20, &err) < 0)
            die("outbox_relay_step", err.text);
}

void relay_end(outbox_relay_t *r)
{
    outbox_error err;

    if (outbox_relay_stop(r, 10000, &err) < 0)
        die("outbox_relay_stop", err.text);
    outbox_relay_free(r);
}

outbox_stats relay_look(outbox_relay_t *r)
{
    outbox_stats st = { .size = sizeof st };

    if (outbox_relay_stats(r, &st) < 0)
        die("outbox_relay_stats", "failed");
    return st;
}

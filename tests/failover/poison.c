/* SPDX-License-Identifier: MIT
 *
 * poison.c - events that kill the process that sends them.  The driver starts
 * the relay again each time, as a supervisor would, and counts.
 */
#include <string.h>

#include "failover.h"

enum { MAX_ATTEMPTS = 3, LIFE_MS = 60000, LEASE_MS = 200,
       PATIENCE = 30 };

/* What its lanes remember of starts on trial is counted by the database. */
static void count_trials(const field *f)
{
    sqlite3 *db = db_open(f->dir, "app.db", true, false);

    if (db_exec(db, "CREATE TABLE trials(lane INTEGER);"
                    "CREATE TRIGGER trial AFTER UPDATE ON outbox_lane"
                    " WHEN new.trying IS NOT NULL"
                    " AND new.starts IS NOT old.starts"
                    " BEGIN INSERT INTO trials VALUES(new.lane); END") !=
        SQLITE_OK)
        die("trigger", sqlite3_errmsg(db));
    sqlite3_close(db);
}

static bool publish_some(const field *f, int transactions)
{
    task some = f->job;

    some.plan.count = transactions;
    return child_complete("publisher", &some, 30000);
}

static void publish_poison(const field *f, const char *key)
{
    char payload[PAYLOAD_BYTES];
    writer w;

    payload[payload_make(payload, 1)] = '\0';
    writer_open(&w, f->dir, 0);
    writer_one(&w, key, payload);
    writer_close(&w);
}

static void poison_field(field *f, uint64_t seed)
{
    field_make(f, seed);
    f->job.plan.lease_ms = LEASE_MS;
    f->job.plan.keys = 64;
    f->job.plan.batch = f->job.plan.inflight = 1000;
    count_trials(f);
}

/* How often the relay dies until all is done, which it cannot be while a
 * publisher is at work; limit: it never is. */
static int deaths_until_done(const field *f, child *pub, int limit)
{
    child c;
    fate end;
    int n = 0;

    while (n < limit) {
        bool last = pub == NULL || child_wait(pub, 0) != RUNNING;

        if (last)
            pub = NULL;
        child_start(&c, "poisoned", &f->job, NULL, NULL);
        end = child_wait(&c, LIFE_MS);
        if (end == ENDED && last)
            return n;
        if (end == RUNNING)
            child_kill(&c);
        n += end != ENDED;
    }
    return n;
}

static void poison_rows(field *f, const char *what, int deaths, int poisons)
{
    int before = rows_failed();
    char text[96];
    verdicts v;

    snprintf(text, sizeof text, "%s: deaths of the process", what);
    row_most(text, deaths, "", 2 + poisons * MAX_ATTEMPTS);
    snprintf(text, sizeof text, "%s: in the dead letters", what);
    row_just(text, (double)field_number(f, "SELECT count(*) FROM outbox_dead"
                                           " WHERE key LIKE 'poison%'"),
             "", poisons);
    judge(f, &v);
    snprintf(text, sizeof text, "%s: of %lld others, amiss", what,
             (long long)v.events);
    row_just(text, (double)v.violations, "", 0);
    field_clear(f, rows_failed() - before);
}

static void play_poisons(const dose *d, const char *what, int poisons)
{
    int limit = 4 * (2 + poisons * MAX_ATTEMPTS);
    char key[24];
    field f;

    poison_field(&f, d->seed);
    publish_some(&f, 100);
    for (int i = 0; i < poisons; i++) {
        snprintf(key, sizeof key, "poison-%d", i);
        publish_poison(&f, key);
        publish_some(&f, 50);
    }
    poison_rows(&f, what, deaths_until_done(&f, NULL, limit), poisons);
}

/* It is parked first, and kills when it is tried again, while the cursor of
 * its lane moves on with newer events. */
static void play_parked_poison(const dose *d)
{
    field f;
    child pub;
    int deaths;

    poison_field(&f, d->seed);
    publish_some(&f, 20);
    publish_poison(&f, "poison-later");
    f.job.plan.pace_us = 4000;
    f.job.plan.count = d->small ? 500 : 1500;
    child_start(&pub, "publisher", &f.job, NULL, NULL);
    deaths = deaths_until_done(&f, &pub, PATIENCE);
    if (pub.pid != 0)
        child_kill(&pub);
    poison_rows(&f, "a poison that was parked", deaths, 1);
}

/* Starts and clean ends, and not one row about trials. */
static void play_happily(const dose *d)
{
    int before = rows_failed();
    verdicts v;
    field f;

    poison_field(&f, d->seed);
    for (int i = 0; i < 3; i++) {
        publish_some(&f, 100);
        if (!field_drain(&f))
            row_just("a relay ends", 0, "", 1);
    }
    judge(&f, &v);
    row_just("without a crash: trials written down",
             (double)field_number(&f, "SELECT count(*) FROM trials"), "", 0);
    row_just("without a crash: events amiss", (double)v.violations, "", 0);
    field_clear(&f, rows_failed() - before);
}

void poison_play(const dose *d)
{
    play_happily(d);
    play_poisons(d, "one poison", 1);
    if (!d->small)
        play_poisons(d, "three poisons", 3);
    play_parked_poison(d);
}

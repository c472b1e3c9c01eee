/* SPDX-License-Identifier: MIT
 *
 * clocks.c - wall clocks that are wrong, stand still or jump, in all the
 * processes or in one of two relays.  Nothing of this may be noticed, but
 * for due_ms and expires_ms, which are times of day.
 *
 * The library that lies is faketime's, preloaded; the monotonic clocks are
 * left alone.  FAILOVER_PRELOAD says where it is: see run.sh.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "failover.h"

enum { LEASE_MS = 400, STALL_MS = 1500, DAWDLE_MS = 1000, STEP_MS = 600,
       WAIT_MS = 10000, HOUR_MS = 3600000, MINUTE_MS = 60000 };

static const char stepping[] = "stepping", frozen[] = "2024-01-01 00:00:00";

/* What faketime is told; NULL: the truth. */
static const struct wrong {
    bool small;                 /* part of the small dose */
    const char *name, *relay, *other, *publisher;
} wrongs[] = {
    { false, "right clocks", NULL, NULL, NULL },
    { false, "one relay an hour back", "-1h", NULL, NULL },
    { true, "one relay a year ahead", "+365d", NULL, NULL },
    { false, "one relay's clock frozen", frozen, NULL, NULL },
    { true, "one relay's clock stepping", stepping, NULL, NULL },
    { true, "all an hour back", "-1h", "-1h", "-1h" },
    { false, "all a year ahead", "+365d", "+365d", "+365d" },
    { false, "all clocks frozen", frozen, frozen, frozen },
    { false, "all clocks stepping", stepping, stepping, stepping },
    { false, "publisher an hour back", NULL, NULL, "-1h" },
    { false, "publisher stepping", NULL, NULL, stepping },
};

/* ---- lying ---- */

/* A file that the processes look into at each question. */
static void clock_file(const field *f, char path[PATH_BYTES], bool ahead)
{
    char other[PATH_BYTES];
    FILE *file;

    path_join(path, f->dir, "clock");
    path_join(other, f->dir, "clock.new");
    file = fopen(other, "we");
    if (file == NULL || fputs(ahead ? "+1h\n" : "-1h\n", file) == EOF ||
        fclose(file) != 0 || rename(other, path) != 0)
        die(path, "cannot be written");
}

static void put(const char *name, const char *value)
{
    if (value == NULL)
        unsetenv(name);
    else
        setenv(name, value, 1);
}

/* Without the last one faketime 0.9.10 lets a wait for a condition time out
 * at once. */
static void lying_start(child *c, const char *role, const field *f,
                        const char *spec)
{
    char path[PATH_BYTES];

    if (spec == stepping) {
        clock_file(f, path, false);
        put("FAKETIME_TIMESTAMP_FILE", path);
        put("FAKETIME_NO_CACHE", "1");
    } else {
        put("FAKETIME", spec);
    }
    if (spec != NULL)
        put("LD_PRELOAD", getenv("FAILOVER_PRELOAD"));
    put("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    put("FAKETIME_FORCE_MONOTONIC_FIX", "0");
    child_start(c, role, &f->job, NULL, NULL);
    put("LD_PRELOAD", NULL);
    put("FAKETIME", NULL);
    put("FAKETIME_TIMESTAMP_FILE", NULL);
    put("FAKETIME_NO_CACHE", NULL);
}

/* ---- unnoticed ---- */

static void until_ended(const field *f, board *b, child *pub)
{
    char path[PATH_BYTES];
    int64_t next = now_ms();
    bool ahead = false;
    fate end = RUNNING;

    while (end == RUNNING) {
        if (now_ms() >= next) {
            clock_file(f, path, ahead = !ahead);
            next += STEP_MS;
        }
        end = child_wait(pub, 5);
        board_follow(b, NULL);
    }
    if (end != ENDED)
        row_just("a publisher ends well", 0, "", 1);
}

/* How long it takes until nothing is missing. */
static int64_t dawdle(const field *f)
{
    int64_t start = now_ms(), end = start + WAIT_MS;

    while (judge_missing(f) > 0 && now_ms() < end)
        pause_us(5000);
    return now_ms() - start;
}

static void report(const field *f, const char *name, const board *b,
                   int64_t late_ms)
{
    char text[96];
    verdicts v;

    judge(f, &v);
    snprintf(text, sizeof text, "%s: lanes taken over", name);
    row_just(text, (double)endings_lost(f), "", 0);
    snprintf(text, sizeof text, "%s: of %lld events, amiss", name,
             (long long)v.events);
    row_just(text, (double)v.violations, "", 0);
    snprintf(text, sizeof text, "%s: longest pause", name);
    row_most(text, (double)b->longest_us / 1000, "ms", STALL_MS);
    snprintf(text, sizeof text, "%s: last event late by", name);
    row_most(text, (double)late_ms, "ms", DAWDLE_MS);
}

static void play_wrong(const dose *d, const struct wrong *w)
{
    int before = rows_failed();
    child relay, other, pub;
    int64_t late_ms;
    field f;
    board b;

    field_make(&f, d->seed);
    f.job.plan.lease_ms = LEASE_MS;
    f.job.plan.keys = 64;
    f.job.plan.pace_us = 6000;
    f.job.plan.count = d->small ? 300 : 2000;
    board_open(&b, f.dir);
    lying_start(&relay, "server", &f, w->relay);
    lying_start(&other, "server", &f, w->other);
    pause_us(LEASE_MS * 1000);
    lying_start(&pub, "publisher", &f, w->publisher);
    until_ended(&f, &b, &pub);
    late_ms = dawdle(&f);
    board_follow(&b, NULL);
    if (!child_stop(&relay, "relay") || !child_stop(&other, "relay"))
        row_just("both relays end well", 0, "", 1);
    report(&f, w->name, &b, late_ms);
    board_close(&b);
    field_clear(&f, rows_failed() - before);
}

/* ---- times of day ---- */

/* Which of the five arrive, and how many expire. */
static const struct hour {
    bool small;
    const char *name, *relay, *publisher;
    bool due, far, soon, late;
    int expired;
} hours[] = {
    { false, "right clocks", NULL, NULL, true, false, true, false, 1 },
    { true, "relay an hour back", "-1h", NULL, false, false, true, true, 0 },
    { true, "relay a year ahead", "+365d", NULL, true, true, false, false,
      2 },
    { false, "relay's clock frozen", frozen, NULL, false, false, true, true,
      0 },
    { false, "publisher an hour back", NULL, "-1h", true, false, true, false,
      1 },
    { false, "publisher a year ahead", NULL, "+365d", false, false, true,
      true, 0 },
};

static int64_t time_of_day_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void timed_put(writer *w, const char *key, int64_t due_ms,
                      int64_t expires_ms)
{
    char payload[PAYLOAD_BYTES];
    outbox_event ev = { .size = sizeof ev,
                        .topic = "failover",
                        .key = key,
                        .payload = payload,
                        .payload_len = payload_make(payload, 1),
                        .due_ms = due_ms,
                        .expires_ms = expires_ms };

    writer_put(w, &ev);
}

/* Role: five events, by the clock that this process sees. */
int timed_main(const task *job)
{
    int64_t now = time_of_day_ms();
    writer w;

    writer_open(&w, job->dir, 0);
    writer_begin(&w);
    timed_put(&w, "due", now + 200, 0);
    timed_put(&w, "far", now + 2 * HOUR_MS, 0);
    timed_put(&w, "soon", 0, now + 2 * HOUR_MS);
    timed_put(&w, "late", 0, now - 10 * MINUTE_MS);
    timed_put(&w, "plain", 0, 0);
    writer_commit(&w);
    writer_close(&w);
    return 0;
}

static bool arrived(const field *f, const char *key)
{
    char path[PATH_BYTES];
    bool found = false;
    record rec;
    FILE *file;

    path_join(path, f->dir, "history");
    file = fopen(path, "re");
    if (file == NULL)
        return false;
    while (!found && record_read(file, &rec))
        found = strcmp(rec.key, key) == 0;
    fclose(file);
    return found;
}

static bool arrives(const field *f, const char *key)
{
    int64_t end = now_ms() + WAIT_MS;

    while (!arrived(f, key) && now_ms() < end)
        pause_us(5000);
    return arrived(f, key);
}

/* One whose clock is right puts things straight. */
static int set_right(const field *f)
{
    child c;
    int wrong;

    child_start(&c, "server", &f->job, NULL, NULL);
    wrong = !arrives(f, "due");
    return wrong + !child_stop(&c, "relay");
}

static void play_hour(const dose *d, const struct hour *h)
{
    int before = rows_failed(), wrong;
    child relay, pub;
    char text[96];
    field f;

    field_make(&f, d->seed);
    f.job.plan.lease_ms = LEASE_MS;
    lying_start(&relay, "server", &f, h->relay);
    lying_start(&pub, "timed", &f, h->publisher);
    wrong = child_wait(&pub, WAIT_MS) != ENDED;
    wrong += !arrives(&f, "plain") + (h->due && !arrives(&f, "due"));
    pause_us(700000);           /* what is not to come has had its chance */
    wrong += (arrived(&f, "due") != h->due) + (arrived(&f, "far") != h->far) +
             (arrived(&f, "soon") != h->soon) +
             (arrived(&f, "late") != h->late);
    if (!h->due && h->publisher == NULL)
        wrong += set_right(&f);
    wrong += !child_stop(&relay, "relay");
    wrong += endings_expired(&f) != h->expired;
    snprintf(text, sizeof text, "due and expiring, %s: wrong", h->name);
    row_just(text, wrong, "", 0);
    field_clear(&f, rows_failed() - before);
}

void clocks_play(const dose *d)
{
    const char *ci = getenv("CI");

    if (getenv("FAILOVER_PRELOAD") == NULL) {
        bool must = ci != NULL && strcmp(ci, "true") == 0;

        printf("clocks: skipped, for faketime is not installed\n");
        if (must)
            row_just("clocks that were tried", 0, "", 1);
        return;
    }
    for (size_t i = 0; i < sizeof wrongs / sizeof wrongs[0]; i++)
        if (!d->small || wrongs[i].small)
            play_wrong(d, &wrongs[i]);
    for (size_t i = 0; i < sizeof hours / sizeof hours[0]; i++)
        if (!d->small || hours[i].small)
            play_hour(d, &hours[i]);
}

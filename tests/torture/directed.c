/* SPDX-License-Identifier: MIT
 *
 * directed.c - what chaos meets too rarely, step by step: a relay that sleeps
 * through its lease, a log that was emptied, a subscription far behind.
 */
#include <string.h>

#include "torture.h"

enum { WAIT_MS = 20000 };

static bool publish(const task *job, int transactions)
{
    task some = *job;

    some.plan.count = transactions;
    return child_complete("publisher", &some, WAIT_MS);
}

static bool quiet(const task *job)
{
    if (!drain(job))
        return false;
    quiet_mark(job);
    return true;
}

/* ---- a relay that sleeps through its lease ---- */

/* It wakes up in front of a save of progress that is no longer its own, and
 * dies when it is through with it. */
static bool sleeper(const task *job, const char *stop_at)
{
    task other = *job;
    child c;
    bool ok;

    other.plan.sinks = 0;       /* the sink lags behind, and keeps the log */
    if (!publish(job, 60))
        return false;
    child_start(&c, "relay", job, NULL, stop_at);
    ok = child_wait(&c, WAIT_MS) == STOPPED;
    if (!ok)
        fprintf(stderr, "violation: no relay came to %s\n", stop_at);
    ok = ok && quiet(&other);
    if (c.pid != 0) {
        kill(c.pid, SIGCONT);
        child_wait(&c, 4 * job->plan.lease_ms);
    }
    child_kill(&c);
    return ok && quiet(&other) && publish(job, 10) && quiet(job);
}

static bool fence(task *job)
{
    return sleeper(job, "relay.before_save:1,relay.after_save:1");
}

static bool fence_reading(task *job)
{
    return sleeper(job, "relay.read:2");
}

static bool fence_sending(task *job)
{
    return sleeper(job, "relay.before_send:15");
}

/* What it would save is who failed, and is to be parked. */
static bool fence_parking(task *job)
{
    job->plan.retry = 100;
    job->plan.lease_ms = job->plan.flush_ms = 500;  /* nor anything else */
    return sleeper(job, "relay.before_save:1,relay.after_save:1");
}

/* ---- the others ---- */

/* An administrator empties the log; SQLite begins again at position 1. */
static bool emptied(task *job)
{
    return publish(job, 40) && quiet(job) &&
           child_complete("empty", job, WAIT_MS) && publish(job, 5) &&
           quiet(job);
}

/* One subscription is done, and trims; the other has not begun. */
static bool late(task *job)
{
    task first = *job;

    first.plan.sinks = 0;
    for (int i = 0; i < 3; i++)
        if (!publish(job, 100) || !quiet(&first))
            return false;
    return quiet(job);
}

/* Few keys, many events, verdicts in any order. */
static bool order(task *job)
{
    job->plan.async = 1;
    job->plan.keys = 2;
    job->plan.batch = job->plan.inflight = 1000;
    return publish(job, 200) && quiet(job);
}

/* The destination fails now and then: what failed must not be overtaken. */
static bool failing(task *job)
{
    task calm = *job;
    child c;
    bool ok;

    job->plan.keys = 3;
    job->plan.retry = 100;
    job->plan.undo = 300;
    ok = publish(job, 150);
    child_start(&c, "relay", job, NULL, NULL);
    ok = publish(job, 100) && ok;
    ok = child_stop(&c, "relay") && ok;
    return ok && quiet(&calm);
}

static const struct scenario {
    const char *name;
    bool (*run)(task *job);
} scenarios[] = {
    { "fence", fence },
    { "fence-reading", fence_reading },
    { "fence-sending", fence_sending },
    { "fence-parking", fence_parking },
    { "emptied", emptied },
    { "late", late },
    { "order", order },
    { "failing", failing },
};

static int64_t run_scenario(const struct scenario *s, uint64_t seed)
{
    char dir[PATH_BYTES];
    task job = { .seed = seed };
    int64_t violations;
    totals t;

    plan_default(&job.plan);
    job.plan.sinks = 1;
    job.plan.batch = job.plan.inflight = 10;
    violations = ground_make(dir, &job) < 0 || !s->run(&job);
    job.plan.sinks = 1;
    if (!check_apart(dir, 0, &t))
        violations++;
    else
        violations += t.violations;
    printf("%-16s %s\n", s->name, violations ? "VIOLATED" : "ok");
    if (violations == 0)
        ground_clear(dir);
    else
        fprintf(stderr, "kept in %s\n", dir);
    return violations;
}

int directed_main(const char *name, uint64_t seed)
{
    int64_t violations = 0;
    int found = 0;

    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        const struct scenario *s = &scenarios[i];

        if (strcmp(name, "all") != 0 && strcmp(name, s->name) != 0)
            continue;
        found++;
        violations += run_scenario(s, seed);
    }
    if (found == 0)
        die(name, "no such scenario");
    return violations == 0 ? 0 : 1;
}

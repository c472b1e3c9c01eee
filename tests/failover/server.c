/* SPDX-License-Identifier: MIT
 *
 * server.c - a relay in a process of its own, and the destination behind it,
 * which writes down what it got before it says so.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <outbox/store.h>

#include "failover.h"

enum { MAX_LATE = 4096, LATE_US = 20000, POLL_US = 2000 };

typedef struct owed {
    outbox_token token;
    int64_t due_us;
} owed;

typedef struct destination {
    const task *job;
    int history, times;
    int64_t wall_us;            /* what to take from a time of day */
    bool poisoned;
    bool late;                  /* verdicts come later, in any order */
    outbox_relay_t *relay;
    rng rnd;
    owed owed[MAX_LATE];
    int n;
} destination;

/* ---- the destination ---- */

static void note_record(destination *d, const outbox_event *ev)
{
    record rec = { .kind = DELIVERED,
                   .run = d->job->run,
                   .number = now_us(),
                   .pid = (int)getpid(),
                   .attempt = ev->attempt };

    snprintf(rec.id, sizeof rec.id, "%s", ev->id);
    snprintf(rec.key, sizeof rec.key, "%s", ev->key ? ev->key : "-");
    if (!payload_read(ev->payload, ev->payload_len, &rec.version))
        rec.kind = ALTERED;
    record_append(d->history, &rec);
}

static void note_time(destination *d, const outbox_event *ev)
{
    delivery t = { .run = d->job->run,
                   .published_us = ev->published_ms * 1000 - d->wall_us,
                   .at_us = now_us() };

    if (ev->key == NULL)
        return;
    t.lane = (int32_t)(outbox_hash(ev->key, strlen(ev->key)) % LANES);
    times_append(d->times, &t);
}

/* A poison takes the process with it: each second one by its own hand. */
static void take_poison(const destination *d, const outbox_event *ev)
{
    struct rlimit none = { 0, 0 };

    if (!d->poisoned || ev->key == NULL || strncmp(ev->key, "poison", 6) != 0)
        return;
    if (strcmp(ev->key, "poison-later") == 0 && ev->attempt == 1)
        return;
    setrlimit(RLIMIT_CORE, &none);
    if (d->job->run % 2)
        raise(SIGKILL);
    abort();
}

static outbox_verdict dest_send(void *ctx, const outbox_event *ev,
                                outbox_token token, outbox_error *why)
{
    destination *d = ctx;

    take_poison(d, ev);
    if (d->poisoned && ev->key != NULL &&
        strcmp(ev->key, "poison-later") == 0) {
        outbox_error_set(why, OUTBOX_EBUSY, "not the first time");
        return OUTBOX_RETRY;
    }
    note_record(d, ev);
    note_time(d, ev);
    if (!d->late || d->n == MAX_LATE)
        return OUTBOX_ACK;
    d->owed[d->n++] =
        (owed){ token, now_us() + rng_below(&d->rnd, LATE_US) };
    return OUTBOX_PENDING;
}

static void dest_poll(void *ctx, int timeout_ms)
{
    destination *d = ctx;
    int64_t now;

    if (timeout_ms > 0)
        pause_us(POLL_US);
    now = now_us();
    for (int i = 0; i < d->n;) {
        if (d->owed[i].due_us > now) {
            i++;
            continue;
        }
        outbox_settle(d->relay, d->owed[i].token, OUTBOX_ACK, NULL);
        d->owed[i] = d->owed[--d->n];
    }
}

static int dest_open(void *ctx, outbox_relay_t *relay, outbox_error *err)
{
    destination *d = ctx;

    (void)err;
    d->relay = relay;
    return OUTBOX_OK;
}

static int64_t wall_minus_monotonic_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000 - now_us();
}

static destination *dest_new(const task *job, bool poisoned)
{
    destination *d = calloc(1, sizeof *d);

    if (d == NULL)
        die("destination", "no memory");
    d->job = job;
    d->poisoned = poisoned;
    d->late = job->plan.async && job->run % 2;
    d->history = record_open(job->dir, "history");
    d->times = times_open(job->dir);
    d->rnd.state = job->seed;
    d->wall_us = wall_minus_monotonic_us();
    return d;
}

static void dest_free(destination *d)
{
    close(d->history);
    close(d->times);
    free(d);
}

/* ---- the relay ---- */

static void log_line(void *arg, int level, const char *line)
{
    const task *job = arg;
    char path[PATH_BYTES];
    FILE *file;

    if (level > 5)
        return;
    path_join(path, job->dir, "log");
    file = fopen(path, "ae");
    if (file == NULL)
        return;
    fprintf(file, "%lld run %d: %d: %s\n", (long long)now_us(), job->run,
            level, line);
    fclose(file);
}

static outbox_relay_t *server_open(const task *job, destination *d)
{
    const plan *p = &job->plan;
    outbox_transport tp = { .size = sizeof tp,
                            .name = "failover",
                            .ctx = d,
                            .max_inflight_ms = d->late ? LATE_US / 1000 : 0,
                            .open = dest_open,
                            .send = dest_send,
                            .poll = d->late ? dest_poll : NULL };
    outbox_relay_options opt = {
        .batch = (uint32_t)p->batch,
        .max_inflight = (uint32_t)p->inflight,
        .lease_ms = (uint32_t)p->lease_ms,
        .flush_ms = (uint32_t)p->flush_ms,
        .retry_min_ms = 10,
        .retry_max_ms = 200,
        .max_attempts = d->poisoned ? 3 : 0,
        .on_dead = OUTBOX_DEAD_SKIPS,
        .log = log_line,
        .log_arg = (void *)(uintptr_t)job,
    };

    return relay_make(job->dir, &tp, opt);
}

static void server_start(outbox_relay_t *relay)
{
    outbox_error err;
    int rc;

    do
        rc = outbox_relay_start(relay, &err);
    while (rc == OUTBOX_EBUSY);
    if (rc < 0)
        die("outbox_relay_start", err.text);
}

static void note_ending(const task *job, outbox_relay_t *relay)
{
    outbox_stats st = relay_look(relay);
    ending e = { .run = job->run,
                 .lost = (int64_t)st.leases_lost,
                 .expired = (int64_t)st.expired,
                 .parked = (int64_t)st.parked,
                 .dead = (int64_t)st.dead };
    char path[PATH_BYTES];
    int fd;

    path_join(path, job->dir, "endings");
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, &e, sizeof e) != sizeof e)
        die(path, "cannot append");
    close(fd);
}

/* SIGTERM is blocked since before the process was made. */
static bool told_within(int ms)
{
    struct timespec most = { ms / 1000, ms % 1000 * 1000000L };
    sigset_t term;

    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    return sigtimedwait(&term, NULL, &most) == SIGTERM;
}

static bool all_done(outbox_relay_t *relay)
{
    outbox_stats st = relay_look(relay);

    return st.leader && st.lag == 0 && st.inflight == 0 && st.parked == 0;
}

/* drain: ends by itself when it holds all and all is delivered. */
static int serve(const task *job, bool drain, bool poisoned)
{
    destination *d = dest_new(job, poisoned);
    outbox_relay_t *relay = server_open(job, d);
    delivery stopped = { .run = job->run, .lane = -1 };
    outbox_error err;
    int rc;

    server_start(relay);
    while (!told_within(drain ? 10 : 10000) && !(drain && all_done(relay)))
        continue;
    rc = outbox_relay_stop(relay, 5000, &err);
    stopped.at_us = now_us();
    times_append(d->times, &stopped);
    if (rc < 0)
        fprintf(stderr, "failover: run %d: outbox_relay_stop: %d: %s\n",
                job->run, rc, err.text);
    note_ending(job, relay);
    outbox_relay_free(relay);
    dest_free(d);
    return rc < 0;
}

int server_main(const task *job)
{
    return serve(job, false, false);
}

int drainer_main(const task *job)
{
    return serve(job, true, false);
}

int poisoned_main(const task *job)
{
    return serve(job, true, true);
}

/* ---- asked by the driver ---- */

static ending endings_sum(const field *f)
{
    ending e, sum = { 0 };
    char path[PATH_BYTES];
    FILE *file;

    path_join(path, f->dir, "endings");
    file = fopen(path, "re");
    if (file == NULL)
        die(path, "no relay has ended");
    while (fread(&e, sizeof e, 1, file) == 1) {
        sum.lost += e.lost;
        sum.expired += e.expired;
    }
    fclose(file);
    return sum;
}

int64_t endings_lost(const field *f)
{
    return endings_sum(f).lost;
}

int64_t endings_expired(const field *f)
{
    return endings_sum(f).expired;
}

bool field_drain(const field *f)
{
    return child_complete("drainer", &f->job, 60000);
}

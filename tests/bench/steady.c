/* SPDX-License-Identifier: MIT
 *
 * steady.c - publishers that write one transaction after the other, without
 *            and with a relay beside them: what they lose, and whether the
 *            relay keeps up.
 */
#include "bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { MAX_PUBLISHERS = 4 };

typedef struct scene {
    const char *synchronous;
    int         publishers, relayed;
    double      length;                 /* seconds of a turn */
    atomic_int  stop;
    atomic_llong published, delivered;
    double      backlog_end, backlog_max, catch_up;     /* out: the worst */
} scene;

typedef struct publisher {
    scene     *scene;
    shop       shop;
    pthread_t  thread;
} publisher;

static void *publish_on(void *arg)
{
    publisher *p = arg;

    while (!atomic_load_explicit(&p->scene->stop, memory_order_relaxed)) {
        shop_begin(&p->shop);
        shop_business(&p->shop);
        shop_publish(&p->shop);
        shop_commit(&p->shop);
        atomic_fetch_add(&p->scene->published, 1);
    }
    return NULL;
}

static outbox_verdict take(void *ctx, const outbox_event *ev,
                           outbox_token token, outbox_error *why)
{
    (void)ev, (void)token, (void)why;
    atomic_fetch_add(&((scene *)ctx)->delivered, 1);
    return OUTBOX_ACK;
}

static double backlog(scene *s)
{
    double delivered = (double)atomic_load(&s->delivered);
    double behind = (double)atomic_load(&s->published) - delivered;

    return behind > 0 ? behind : 0;
}

static void nap(double seconds)
{
    struct timespec t = { .tv_sec = (time_t)seconds };

    t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
    nanosleep(&t, NULL);
}

static void watch(scene *s, double until)
{
    while (bench_now() < until) {
        nap(0.01);
        if (s->relayed && backlog(s) > s->backlog_max)
            s->backlog_max = backlog(s);
    }
}

/* After the publishers stopped: everything must come, and soon. */
static void catch_up(scene *s)
{
    double from = bench_now(), behind = backlog(s);

    while (backlog(s) > 0) {
        if (bench_now() - from > 30)
            bench_die("%.0f events still missing after 30 s", backlog(s));
        nap(0.0005);
    }
    if (behind > s->backlog_end)
        s->backlog_end = behind;
    if (bench_now() - from > s->catch_up)
        s->catch_up = bench_now() - from;
}

static void run_publishers(scene *s, bench_side *side, publisher *p)
{
    double from = bench_now();

    for (int i = 0; i < s->publishers; i++) {
        if (pthread_create(&p[i].thread, NULL, publish_on, &p[i]) != 0)
            bench_die("no thread");
    }
    watch(s, from + s->length);
    side->work += (double)atomic_load(&s->published);
    side->seconds += bench_now() - from;
    atomic_store(&s->stop, 1);
    for (int i = 0; i < s->publishers; i++)
        pthread_join(p[i].thread, NULL);
}

static outbox_relay_t *start_relay(scene *s, const char *path)
{
    outbox_error err = { 0 };
    outbox_relay_t *relay = bench_relay(path, take, s, NULL, 0, NULL);

    bench_check(outbox_relay_start(relay, &err), &err, "start");
    return relay;
}

static void stop_relay(scene *s, outbox_relay_t *relay)
{
    outbox_error err = { 0 };

    catch_up(s);
    bench_check(outbox_relay_stop(relay, 10000, &err), &err, "stop");
    outbox_relay_free(relay);
    if (atomic_load(&s->delivered) != atomic_load(&s->published))
        bench_die("%lld deliveries of %lld events",
                  (long long)atomic_load(&s->delivered),
                  (long long)atomic_load(&s->published));
}

/* One turn, in a fresh file. */
static void run_scene(bench_side *side)
{
    static publisher p[MAX_PUBLISHERS];
    scene *s = side->arg;
    const char *path = bench_file("steady.db");
    outbox_relay_t *relay = NULL;

    atomic_store(&s->stop, 0);
    atomic_store(&s->published, 0);
    atomic_store(&s->delivered, 0);
    shop_create(path);
    for (int i = 0; i < s->publishers; i++) {
        shop_open(&p[i].shop, path, s->synchronous);
        p[i].scene = s;
    }
    if (s->relayed)
        relay = start_relay(s, path);
    run_publishers(s, side, p);
    if (s->relayed)
        stop_relay(s, relay);
    for (int i = 0; i < s->publishers; i++)
        shop_close(&p[i].shop);
    bench_remove(path);
}

/* Bounded: a second of publishing at most, and gone within a second. */
static void report_backlog(const scene *s, double rate)
{
    int kept_up = s->backlog_max < rate && s->catch_up < 1;

    bench_row("  backlog: most, at the end",
              bench_text("%.0f, %.0f", s->backlog_max, s->backlog_end),
              bench_text("gone in %s", bench_time(s->catch_up)), "< 1 s",
              kept_up ? BENCH_OK : BENCH_MISS);
}

static void compare(const char *synchronous, int publishers, int rounds,
                    double length)
{
    scene alone = { .synchronous = synchronous, .publishers = publishers,
                    .length = length };
    scene relayed = { .synchronous = synchronous, .publishers = publishers,
                      .length = length, .relayed = 1 };
    bench_side side[] = { { .run = run_scene, .arg = &alone },
                          { .run = run_scene, .arg = &relayed } };

    bench_duel(side, 2, rounds, 1);
    bench_title(bench_text("steady, synchronous=%s, %d busy publisher%s",
                           synchronous, publishers,
                           publishers > 1 ? "s" : ""));
    bench_rate_row("no relay", "tx/s", &side[0], &side[0], rounds, 0);
    bench_rate_row("relay thread beside", "tx/s", &side[1], &side[0], rounds,
                   0.9);
    report_backlog(&relayed, bench_rate(&side[1], rounds));
}

void bench_steady(void)
{
    int rounds = bench_quick ? 5 : 15;
    double length = bench_quick ? 0.2 : 0.6;

    compare("FULL", 1, rounds, length);
    compare("FULL", 4, rounds, length);
    compare("NORMAL", 1, rounds, length);
    compare("NORMAL", 4, rounds, length);
}

/* SPDX-License-Identifier: MIT
 *
 * alloc.c - how often a relay that is warm asks for memory: from its
 *           allocator table, per event, in a backlog and one by one.
 */
#include "bench.h"

#include <stdlib.h>

typedef struct meter {
    int64_t calls;                      /* of malloc and realloc */
    int64_t seen;
} meter;

static void *count_malloc(void *arg, size_t n)
{
    ((meter *)arg)->calls++;
    return malloc(n);
}

static void *count_realloc(void *arg, void *p, size_t n)
{
    ((meter *)arg)->calls++;
    return realloc(p, n);
}

static void count_free(void *arg, void *p)
{
    (void)arg;
    free(p);
}

static outbox_verdict count_event(void *ctx, const outbox_event *ev,
                                  outbox_token token, outbox_error *why)
{
    (void)ev, (void)token, (void)why;
    ((meter *)ctx)->seen++;
    return OUTBOX_ACK;
}

static void publish_n(shop *s, int n)
{
    shop_begin(s);
    for (int i = 0; i < n; i++) {
        s->n++;
        shop_publish(s);
    }
    shop_commit(s);
}

static void step_to(outbox_relay_t *relay, meter *m, int64_t n)
{
    double patience = bench_now() + 60;

    while (m->seen < n) {
        bench_step(relay, 10);
        if (bench_now() > patience)
            bench_die("%lld events of %lld in a minute", (long long)m->seen,
                      (long long)n);
    }
}

static void report(const char *what, int64_t calls, int64_t events)
{
    bench_row(what, bench_text("%.4f", (double)calls / (double)events),
              bench_text("%lld in %lld", (long long)calls, (long long)events),
              "0", calls == 0 ? BENCH_OK : BENCH_MISS);
}

static void trickle(shop *s, outbox_relay_t *relay, meter *m, int n)
{
    for (int i = 0; i < n; i++) {
        publish_n(s, 1);
        step_to(relay, m, m->seen + 1);
    }
}

/* Warm is who has slept, saved, trimmed and read on. */
static void one_by_one(shop *s, outbox_relay_t *relay, meter *m)
{
    double until = bench_now() + 1.5;
    int n = bench_quick ? 500 : 5000;
    int64_t calls;

    while (bench_now() < until) {
        trickle(s, relay, m, 10);
        bench_step(relay, 100);
    }
    calls = m->calls;
    trickle(s, relay, m, n);
    report("one by one", m->calls - calls, n);
}

/* All of it is there before the relay reads on; the first fifth fills the
 * window, which grows once. */
static void backlog(shop *s, outbox_relay_t *relay, meter *m)
{
    int64_t warm, calls, n = bench_quick ? 20000 : 100000;
    int64_t end = m->seen + n + n / 4;

    for (int64_t i = 0; i < n + n / 4; i += 1000)
        publish_n(s, 1000);
    step_to(relay, m, end - n);
    warm = m->seen;
    calls = m->calls;
    step_to(relay, m, end);
    report("a backlog", m->calls - calls, m->seen - warm);
}

void bench_alloc(void)
{
    meter m = { 0 };
    outbox_allocator table = { .size = sizeof table, .arg = &m,
                               .malloc = count_malloc,
                               .realloc = count_realloc, .free = count_free };
    const char *path = bench_file("alloc.db");
    outbox_relay_t *relay;
    shop s;

    bench_title("allocations per event, in a relay that is warm");
    shop_create(path);
    shop_open(&s, path, "NORMAL");
    relay = bench_relay(path, count_event, &m, NULL, 0, &table);
    one_by_one(&s, relay, &m);
    backlog(&s, relay, &m);
    outbox_relay_free(relay);
    shop_close(&s);
    bench_remove(path);
}

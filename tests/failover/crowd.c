/* SPDX-License-Identifier: MIT
 *
 * crowd.c - ten thousand keys that fail at once, beside a steady stream of
 * others: what do these notice?
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "failover.h"

enum { PACE_US = 2000, HEALTHY_KEYS0 = 500 };
#define HEALTHY_KEYS (getenv("HK") ? atoi(getenv("HK")) : 500)
enum { dummy = 1 };

static struct {
    atomic_bool mended;         /* the crowd passes from now on */
    atomic_int healthy, crowd, refused;
    samples latency;            /* of the healthy; the relay's thread's own */
} dest;

static outbox_verdict crowd_send(void *ctx, const outbox_event *ev,
                                 outbox_token token, outbox_error *why)
{
    char text[32] = "";

    (void)ctx;
    (void)token;
    (void)why;
    if (ev->key[0] == 'b') {
        if (!dest.mended) {
            dest.refused++;
            return OUTBOX_RETRY;
        }
        dest.crowd++;
        return OUTBOX_ACK;
    }
    memcpy(text, ev->payload,
           ev->payload_len < sizeof text ? ev->payload_len : sizeof text - 1);
    samples_add(&dest.latency, now_us() - strtoll(text, NULL, 10));
    dest.healthy++;
    return OUTBOX_ACK;
}

/* Role: so many transactions, at a steady pace. */
int steady_main(const task *job)
{
    char key[16], text[32];
    int64_t due = now_us();
    writer w;

    writer_open(&w, job->dir, 0);
    for (int i = 0; i < job->plan.count; i++, due += PACE_US) {
        if (due > now_us())
            pause_us((int)(due - now_us()));
        snprintf(key, sizeof key, "h%d", i % HEALTHY_KEYS);
        snprintf(text, sizeof text, "%lld", (long long)now_us());
        writer_one(&w, key, text);
    }
    writer_close(&w);
    return 0;
}

static void publish_crowd(const char *dir, int keys, int per_transaction)
{
    outbox_event ev = { .size = sizeof ev, .topic = "failover",
                        .payload = "x", .payload_len = 1 };
    char key[16];
    writer w;

    ev.key = key;
    writer_open(&w, dir, 0);
    for (int i = 0; i < keys; i++) {
        if (i % per_transaction == 0)
            writer_begin(&w);
        snprintf(key, sizeof key, "b%d", i);
        writer_put(&w, &ev);
        if ((i + 1) % per_transaction == 0 || i + 1 == keys)
            { writer_commit(&w); if (getenv("GAP")) pause_us(atoi(getenv("GAP"))); }
    }
    writer_close(&w);
}

static void logit(void *arg, int level, const char *line) { (void)arg; if (getenv("LOG")) printf("%lld %d %s\n", (long long)now_ms(), level, line); }
static bool wait_count(const atomic_int *counter, int until, int ms)
{
    int64_t end = now_ms() + ms;

    while (*counter < until && now_ms() < end)
        pause_us(1000);
    return *counter >= until;
}

int crowd_main(const task *job)
{
    outbox_transport tp = { .size = sizeof tp, .send = crowd_send };
    outbox_relay_options opt = { .log = logit, .max_inflight = getenv("INFL") ? (uint32_t)atoi(getenv("INFL")) : 0 };
    outbox_relay_t *r = relay_make(job->dir, &tp, opt);
    outbox_error err;
    task steady = *job;
    child c;
    const char *mode = getenv("CROWD");
    int keys = 10000;

    steady.plan.count = 2500;
    if (outbox_relay_start(r, &err) < 0)
        die("start", err.text);
    child_start(&c, "steady", &steady, NULL, NULL);
    child_wait(&c, 60000);
    wait_count(&dest.healthy, 2500, 5000);
    printf("A: n %zu p50 %lld p99 %lld max %lld\n", dest.latency.n, (long long)samples_at(&dest.latency, 500), (long long)samples_at(&dest.latency, 990), (long long)samples_at(&dest.latency, 1000));
    samples_free(&dest.latency);
    dest.healthy = 0;
    memory_peak_reset();
    int64_t t0 = now_ms();
    child_start(&c, "steady", &steady, NULL, NULL);
    pause_us(300000);
    publish_crowd(job->dir, keys, mode ? atoi(mode) : 10);
    printf("published after %lld ms\n", (long long)(now_ms()-t0));
    pause_us(3000000 );
    outbox_stats st = relay_look(r);
    printf("refused %d parked %lld breaker %d healthy %d at %lld\n", dest.refused, (long long)st.parked, st.breaker_open, dest.healthy, (long long)(now_ms()-t0));
    dest.mended = true;
    int64_t t1 = now_ms();
    child_wait(&c, 60000);
    wait_count(&dest.healthy, 2500, 60000);
    printf("healthy done at %lld\n", (long long)(now_ms()-t0));
    wait_count(&dest.crowd, keys, 60000);
    printf("crowd done %d, after mended %lld\n", dest.crowd, (long long)(now_ms()-t1));
    st = relay_look(r);
    printf("dead %lld\n", (long long)st.dead);
    printf("B: n %zu p50 %lld p99 %lld max %lld rss %lld\n", dest.latency.n, (long long)samples_at(&dest.latency, 500), (long long)samples_at(&dest.latency, 990), (long long)samples_at(&dest.latency, 1000), (long long)memory_peak());
    relay_end(r);
    return 0;
}
void crowd_play(const dose *d)
{
    field f; child c;
    field_make(&f, d->seed);
    child_start(&c, "crowd", &f.job, NULL, NULL);
    child_wait(&c, 200000);
    field_clear(&f, 0);
}

/* SPDX-License-Identifier: MIT
 *
 * world.c - what nearly every test of the contract needs around it.
 */
#include "sut.h"

#include <stdio.h>
#include <string.h>

const sut *const suts[] = { &sut_memory, &sut_sqlite,
#ifdef WITH_PG
                            &sut_pg, &sut_pooled
#endif
};
const int n_ways = sizeof suts / sizeof suts[0];
#ifdef WITH_PG
int n_suts = sizeof suts / sizeof suts[0] - 1;
#else
int n_suts = sizeof suts / sizeof suts[0];
#endif

void world_open_bare(world *w, int which)
{
    outbox_error err;

    memset(w, 0, sizeof *w);
    w->sut = suts[which];
    w->clock.ms = 1000000;
    w->db = w->sut->create();
    w->app = w->sut->conn_open(w->db);
    ck_assert_ptr_nonnull(w->app);
    ck_ok(w->sut->outbox(&w->ob, w->app, NULL, &err));
    sink_init(&w->sink, NULL, NULL);
}

void world_open(world *w, int which)
{
    outbox_error err;

    world_open_bare(w, which);
    ck_ok(outbox_migrate(w->ob, &err));
}

void world_close(world *w)
{
    outbox_close(w->ob);
    w->sut->conn_close(w->app);
    w->sut->destroy(w->db);
    sink_release(&w->sink);
}

void ck_log_left(world *w, int64_t n)
{
    int64_t left = w->sut->count(w->db, SUT_LOG);

    ck_assert_msg(w->sut->by_segments || left <= n, "%lld events are left",
                  (long long)left);
}

int publish_number(outbox_t *ob, const char *key, long number,
                   outbox_error *err)
{
    char payload[24];
    int n = snprintf(payload, sizeof payload, "%ld", number);
    outbox_event ev = { .size = sizeof ev,
                        .topic = "numbers",
                        .key = key,
                        .payload = payload,
                        .payload_len = (size_t)n };

    return outbox_publish(ob, &ev, err);
}

void publish_numbers(world *w, const char *key, long from, long n)
{
    outbox_error err;

    ck_ok(w->sut->begin(w->app));
    for (long i = from; i < from + n; i++)
        ck_assert_msg(publish_number(w->ob, key, i, &err) == OUTBOX_OK,
                      "publish: %d %s", err.code, err.text);
    ck_ok(w->sut->commit(w->app));
}

outbox_relay_options relay_options(world *w)
{
    return (outbox_relay_options){ .size = sizeof(outbox_relay_options),
                                   .clock_ms = vclock_now,
                                   .clock_arg = &w->clock };
}

outbox_relay_t *relay_open(world *w, sink *s, const outbox_relay_options *opt,
                           sut_link *link)
{
    outbox_relay_options o = relay_options(w);
    outbox_relay_t *r = NULL;
    outbox_error err;
    outbox_t *ob;

    ck_ok(w->sut->connect(&ob, w->db, NULL, link, &err));
    int rc = outbox_relay_new(&r, ob, s != NULL ? &s->transport
                                                : &w->sink.transport,
                              opt != NULL ? opt : &o, &err);
    ck_assert_msg(rc == OUTBOX_OK, "relay: %d %s", rc, err.text);
    return r;
}

void relay_drop(outbox_relay_t *r)
{
    outbox_error err;

    outbox_relay_stop(r, 0, &err);
    outbox_relay_free(r);
}

void relay_crash(world *w, outbox_relay_t *r, sut_link *link)
{
    w->sut->sever(link);
    relay_drop(r);
}

int steps(outbox_relay_t *r, int n)
{
    outbox_error err;
    int sum = 0;

    for (int i = 0; i < n; i++) {
        int rc = outbox_relay_step(r, 0, &err);
        ck_assert_msg(rc >= 0 || rc == OUTBOX_EBUSY || rc == OUTBOX_ESTALE,
                      "step: %d %s", rc, err.text);
        sum += rc > 0 ? rc : 0;
    }
    return sum;
}

enum { QUIET_STEPS = 3, MOST_STEPS = 20000 };

int settle_down(outbox_relay_t *r)
{
    int sum = 0, quiet = 0;

    for (int i = 0; i < MOST_STEPS && quiet < QUIET_STEPS; i++) {
        int n = steps(r, 1);
        quiet = n == 0 ? quiet + 1 : 0;
        sum += n;
    }
    ck_assert_msg(quiet == QUIET_STEPS, "the relay does not come to rest");
    return sum;
}

void run_for(world *w, outbox_relay_t *r, int64_t ms, int64_t slice)
{
    for (int64_t at = 0; at < ms; at += slice) {
        vclock_advance(&w->clock, slice);
        settle_down(r);
    }
}

void drain_after_crash(world *w, sink *s, const outbox_relay_options *opt)
{
    outbox_relay_options o = opt != NULL ? *opt : relay_options(w);
    int64_t lease = o.lease_ms != 0 ? o.lease_ms : 10000;
    outbox_error err;
    outbox_relay_t *r = relay_open(w, s, &o, NULL);

    settle_down(r);
    run_for(w, r, 2 * lease, lease / 8);
    ck_ok(outbox_relay_stop(r, 1000, &err));
    outbox_relay_free(r);
}

outbox_stats stats_of(outbox_relay_t *r)
{
    outbox_stats st = { .size = sizeof st };

    ck_ok(outbox_relay_stats(r, &st));
    return st;
}

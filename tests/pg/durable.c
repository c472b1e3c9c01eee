/* SPDX-License-Identifier: MIT
 *
 * durable.c - what is sent survives a crash of the server, though its
 * transaction was committed asynchronously.
 */
#include "pg.h"
#include "plug.h"

/* The log reaches the disk by the relay, or not at all. */
#define LAZY "wal_writer_delay=10s autovacuum=off checkpoint_timeout=1h"

typedef struct scene {
    world w;
    plug  p;
    int   pulls;                /* at the first event of that number */
} scene;

static outbox_verdict pull_the_plug(sink *s, const outbox_event *ev,
                                    outbox_token token, outbox_error *why)
{
    scene *sc = s->arg;

    (void)token;
    (void)why;
    if (event_number(ev) != sc->pulls)
        return OUTBOX_ACK;
    sc->pulls = -1;
    plug_crash(&sc->p);
    return OUTBOX_ACK;
}

static void reconnect(world *w)
{
    PQreset(((pg_db *)w->db)->conn);
    PQreset(w->app);
    ck_assert_int_eq(PQstatus(w->app), CONNECTION_OK);
}

/* Steps, whatever they say, until n deliveries are there. */
static void step_until(world *w, outbox_relay_t *r, size_t n)
{
    outbox_error err = { .text = "" };
    int n_steps = 0;

    for (int i = 0; i < 2000 && sink_count(&w->sink) < n; i++) {
        vclock_advance(&w->clock, 50);
        n_steps += outbox_relay_step(r, 0, &err) >= 0;
    }
    ck_assert_msg(sink_count(&w->sink) >= n, "%zu deliveries, %d good steps:"
                  " %s", sink_count(&w->sink), n_steps, err.text);
}

static void crash_at(scene *sc, int number)
{
    writer a;

    plug_in(&sc->p, LAZY);
    world_open(&sc->w, WHICH);
    sc->w.sink.rule = pull_the_plug;
    sc->w.sink.arg = sc;
    sc->pulls = number;
    writer_open(&a, &sc->w, "-c synchronous_commit=off", 0);
    outbox_relay_t *r = relay_at_rest(&sc->w, NULL);
    for (int i = 1; i <= number; i++) {
        writer_commit_one(&a, "k", i);
        step_until(&sc->w, r, (size_t)i);
    }
    ck_assert_int_eq(sc->pulls, -1);
    plug_start(&sc->p);
    reconnect(&sc->w);
    ck_assert_int_eq(sc->w.sut->count(sc->w.db, SUT_LOG), number);
    writer_close(&a);
    relay_drop(r);
    world_close(&sc->w);
    plug_pull(&sc->p);
}

START_TEST(the_first_event_survives)
{
    scene sc;

    crash_at(&sc, 1);
}
END_TEST

START_TEST(a_later_event_survives)
{
    scene sc;

    crash_at(&sc, 4);
}
END_TEST

/* What was lost is lost everywhere: its row, its event, its delivery. */
START_TEST(the_relay_goes_on_after_a_crash)
{
    scene sc = { .pulls = -1 };

    plug_in(&sc.p, "fsync=off");
    world_open(&sc.w, WHICH);
    outbox_relay_t *r = relay_at_rest(&sc.w, NULL);
    for (long i = 0; i < 3; i++) {
        publish_numbers(&sc.w, "k", 10 * i, 10);
        step_until(&sc.w, r, (size_t)(10 * i + 5));
        plug_crash(&sc.p);
        plug_start(&sc.p);
        reconnect(&sc.w);
    }
    publish_numbers(&sc.w, "k", 30, 10);
    for (int i = 0; i < 2000 && sink_times(&sc.w.sink, 39) == 0; i++)
        step_until(&sc.w, r, sink_count(&sc.w.sink) + 1);
    ck_assert(sink_at_least(&sc.w.sink, 0, 40));
    ck_assert(sink_in_order(&sc.w.sink));
    relay_drop(r);
    world_close(&sc.w);
    plug_pull(&sc.p);
}
END_TEST

void add_durable_tests(Suite *s)
{
    TCase *tc = suite_case(s, "durable");

    tcase_add_test(tc, the_first_event_survives);
    tcase_add_test(tc, a_later_event_survives);
    tcase_add_test(tc, the_relay_goes_on_after_a_crash);
}

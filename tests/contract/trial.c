/* SPDX-License-Identifier: MIT
 *
 * trial.c - an event that kills the process that sends it: it dies after
 * max_attempts starts, nothing else does, and nobody else pays for it.
 */
#include "kit.h"

#include <outbox/store.h>

#include "memory/memory_store.h"

#include <string.h>

enum { MOST = 300, LEASE_MS = 1000, SLICE_MS = 50, LIVES = 40 };

typedef struct mortal {                 /* a relay whose process may die */
    world                w;
    outbox_relay_options opt;
    sut_link             link;
    outbox_relay_t      *r;
    bool                 kills[MOST];   /* sending it is the end */
    bool                 gone;
    int                  starts[MOST], deaths;
    long                 slow_poison;   /* kills 200 ms after its send */
    int64_t              end_ms;        /* by which the process dies */
    bool                 late;          /* ACK after each step, not in send */
    size_t               settled;       /* of the sink's list */
    outbox_verdict       verdict[MOST];
} mortal;

/* What is sent after the end is not sent at all: the process is gone. */
static outbox_verdict fatal(sink *s, const outbox_event *ev,
                            outbox_token token, outbox_error *why)
{
    mortal *m = s->arg;
    long n = event_number(ev);

    (void)token, (void)why;
    if (m->gone)
        return OUTBOX_PENDING;
    m->starts[n]++;
    if (m->kills[n]) {
        m->gone = true;
        m->w.sut->sever(&m->link);
    }
    if (m->slow_poison != 0 && n == m->slow_poison) {
        m->end_ms = vclock_now(&m->w.clock) + 200;
        return OUTBOX_PENDING;
    }
    return m->gone || m->late ? OUTBOX_PENDING : m->verdict[n];
}

static void mortal_open(mortal *m, int which)
{
    memset(m, 0, sizeof *m);
    world_open(&m->w, which);
    m->w.sink.rule = fatal;
    m->w.sink.arg = m;
    for (int i = 0; i < MOST; i++)
        m->verdict[i] = OUTBOX_ACK;
    m->opt = relay_options(&m->w);
    m->opt.lease_ms = LEASE_MS;
    m->opt.max_attempts = 3;
    m->opt.on_dead = OUTBOX_DEAD_SKIPS;
}

static void mortal_step(mortal *m)
{
    outbox_error err;

    if (m->end_ms != 0 && vclock_now(&m->w.clock) >= m->end_ms) {
        m->gone = true;
        m->w.sut->sever(&m->link);
        return;
    }
    int rc = outbox_relay_step(m->r, 0, &err);
    ck_assert_msg(rc >= 0 || m->gone, "step: %d %s", rc, err.text);
    while (m->late && !m->gone && m->settled < sink_count(&m->w.sink))
        sink_settle(&m->w.sink, m->settled++, OUTBOX_ACK);
}

/* For so long at most.  Did it survive? */
static bool live_more(mortal *m, int64_t ms)
{
    for (int64_t at = 0; at < ms && !m->gone; at += SLICE_MS) {
        vclock_advance(&m->w.clock, SLICE_MS);
        for (int i = 0; i < 4 && !m->gone; i++)
            mortal_step(m);
    }
    m->deaths += m->gone;
    return !m->gone;
}

/* The same for a new process. */
static bool live(mortal *m, int64_t ms)
{
    m->gone = false;
    m->end_ms = 0;
    m->settled = sink_count(&m->w.sink);
    m->r = relay_open(&m->w, NULL, &m->opt, &m->link);
    return live_more(m, ms);
}

static void crash(mortal *m)
{
    relay_crash(&m->w, m->r, &m->link);
    m->r = NULL;
}

/* Processes until one survives, which is left running. */
static void live_on(mortal *m, int64_t ms)
{
    for (int i = 0; i < LIVES; i++) {
        if (live(m, ms))
            return;
        crash(m);
    }
    ck_abort_msg("it still dies after %d lives; %d starts", m->deaths,
                 m->starts[50]);
}

static void mortal_close(mortal *m)
{
    if (m->r != NULL)
        relay_drop(m->r);
    world_close(&m->w);
}

static void publish_on_lanes(mortal *m, long from, long n)
{
    for (long i = from; i < from + n; i++)
        publish_numbers(&m->w, key_of(i % 40), i, 1);
}

START_TEST(it_dies_and_the_others_do_not)
{
    mortal m;
    letter l[8];

    mortal_open(&m, _i);
    m.kills[50] = true;
    publish_on_lanes(&m, 1, 100);
    live_on(&m, 3000);
    ck_assert_int_eq(letters_of(&m.w, NULL, l, 8), 1);
    ck_assert_int_eq(l[0].number, 50);
    ck_assert_ptr_nonnull(strstr(l[0].why, "3 times"));
    for (int i = 1; i <= 100; i++)
        ck_assert_msg(m.starts[i] > 0, "%d was not sent", i);
    ck_assert_int_eq(m.starts[50], 2 + 3);
    ck_assert_int_eq(m.deaths, 2 + 3);
    mortal_close(&m);
}
END_TEST

/* Innocent events before it, of its own lane and of others, are sent again in
 * each life: that is no proof against them. */
START_TEST(those_before_it_are_not_blamed)
{
    mortal m;
    letter l[8];

    mortal_open(&m, _i);
    m.opt.flush_ms = LEASE_MS;          /* nothing is saved in between */
    m.opt.max_attempts = 4;
    m.kills[50] = true;
    for (long i = 1; i <= 60; i++)
        publish_numbers(&m.w, key_of(i % 2), i, 1);
    live_on(&m, 5000);
    ck_assert_int_eq(letters_of(&m.w, NULL, l, 8), 1);
    ck_assert_int_eq(l[0].number, 50);
    for (int i = 1; i <= 60; i++)
        ck_assert_msg(m.starts[i] > 0, "%d was not sent", i);
    ck_assert_int_le(m.deaths, 2 + 4 + 1);
    mortal_close(&m);
}
END_TEST

START_TEST(an_asynchronous_one_dies_too)
{
    mortal m;
    letter l[8];

    mortal_open(&m, _i);
    m.kills[50] = true;
    m.late = true;
    publish_on_lanes(&m, 40, 20);
    live_on(&m, 3000);
    ck_assert_int_eq(letters_of(&m.w, NULL, l, 8), 1);
    ck_assert_int_eq(l[0].number, 50);
    ck_assert_int_eq(m.starts[50], 2 + 3);
    mortal_close(&m);
}
END_TEST

/* With nobody to settle, all that is sent is in flight: many at once before
 * the second death, one at a time after it. */
static size_t in_flight_after(int which, int deaths)
{
    mortal m;

    mortal_open(&m, which);
    m.kills[50] = true;
    publish_numbers(&m.w, "k", 50, 1);
    for (int i = 0; i < deaths; i++) {
        ck_assert(!live(&m, 3000));
        crash(&m);
    }
    m.kills[50] = false;
    m.w.sink.rule = sink_pending;
    sink_forget(&m.w.sink);
    publish_numbers(&m.w, "k", 51, 1);
    publish_on_lanes(&m, 52, 48);
    ck_assert(live(&m, 3000));
    size_t n = sink_count(&m.w.sink);
    mortal_close(&m);
    return n;
}

START_TEST(no_trial_before_the_second_death)
{
    ck_assert_uint_ge(in_flight_after(_i, 0), 40);
    ck_assert_uint_ge(in_flight_after(_i, 1), 40);
    ck_assert_uint_eq(in_flight_after(_i, 2), 1);
}
END_TEST

static uint64_t lane_of(const char *key)
{
    return outbox_hash(key, strlen(key)) % 16;
}

/* A key in the same lane, or in another. */
static const char *neighbour(const char *key, bool same)
{
    long n = 0;

    while ((lane_of(key_of(n)) == lane_of(key)) != same)
        n++;
    return key_of(n);
}

/* It kills a while after its send.  Meanwhile others of its lane are dealt
 * with and that is saved, though the cursor stands: no reason to forgive. */
START_TEST(a_slow_poison)
{
    mortal m;
    letter l[LIVES];
    int n;

    mortal_open(&m, _i);
    m.slow_poison = 50;
    publish_numbers(&m.w, "k", 50, 1);
    for (long i = 100; i < 120; i++) {
        m.verdict[i] = OUTBOX_REJECT;
        publish_numbers(&m.w, neighbour("k", true), i, 1);
        if (live(&m, 5000))
            break;
        crash(&m);
    }
    ck_assert(!m.gone);
    ck_assert_int_eq(m.deaths, 2 + 3);
    n = letters_of(&m.w, NULL, l, LIVES);
    ck_assert_int_eq(n, 1 + 6);
    for (int i = 0; i < n; i++)
        ck_assert(l[i].number >= 100 || l[i].number == 50);
    mortal_close(&m);
}
END_TEST

static int64_t trials_noted(mortal *m)
{
    return m->w.sut->trials(m->w.db);
}

START_TEST(without_a_crash_no_trial_is_written)
{
    mortal m;

    mortal_open(&m, _i);
    publish_on_lanes(&m, 1, 100);
    ck_assert(live(&m, 3000));
    ck_assert_int_eq(trials_noted(&m), 0);
    crash(&m);                          /* once is not twice */
    publish_on_lanes(&m, 101, 100);
    ck_assert(live(&m, 3000));
    ck_assert_int_eq(trials_noted(&m), 0);
    ck_assert_int_eq(m.starts[200], 1);
    mortal_close(&m);
}
END_TEST

/* Deaths at other places, with progress in between, prove nothing. */
START_TEST(progress_between_deaths_forgives)
{
    mortal m;

    mortal_open(&m, _i);
    for (long i = 1; i <= 6; i++) {
        ck_assert(live(&m, 3000));      /* now the one before passes */
        m.kills[i] = true;
        publish_numbers(&m.w, "k", i, 1);
        ck_assert(!live_more(&m, 3000));
        crash(&m);
        m.kills[i] = false;
    }
    ck_assert_int_eq(trials_noted(&m), 0);
    ck_assert_int_eq(dead_count(&m.w, NULL), 0);
    mortal_close(&m);
}
END_TEST

/* It kills now and then only: a trial that ends well is forgotten. */
START_TEST(a_trial_that_ends_well_is_forgotten)
{
    mortal m;

    mortal_open(&m, _i);
    m.kills[50] = true;
    publish_numbers(&m.w, "k", 50, 1);
    publish_numbers(&m.w, "k", 51, 1);
    for (int i = 0; i < 4; i++) {       /* two deaths, two trials */
        ck_assert(!live(&m, 3000));
        crash(&m);
    }
    m.kills[50] = false;
    ck_assert(live(&m, 3000));
    ck_assert_int_eq(m.starts[51], 1);
    ck_assert_int_eq(dead_count(&m.w, NULL), 0);
    m.kills[52] = true;                 /* another one begins from nothing */
    publish_numbers(&m.w, "k", 52, 1);
    crash(&m);
    live_on(&m, 3000);
    ck_assert_int_ge(m.starts[52], 3);
    ck_assert_int_eq(dead_count(&m.w, NULL), 1);
    mortal_close(&m);
}
END_TEST

/* Two processes have died of something else.  While the destination is away
 * the event is tried many times, and no process dies of it. */
START_TEST(an_outage_during_a_trial_kills_nothing)
{
    mortal m;

    mortal_open(&m, _i);
    m.opt.retry_max_ms = 1000;
    m.opt.breaker_failures = 2;
    m.opt.breaker_ms = 100;
    m.kills[50] = true;
    publish_numbers(&m.w, "k", 50, 2);
    publish_numbers(&m.w, NULL, 60, 2);
    for (int i = 0; i < 2; i++) {
        ck_assert(!live(&m, 3000));
        crash(&m);
    }
    m.kills[50] = false;
    for (int i = 0; i < MOST; i++)
        m.verdict[i] = OUTBOX_RETRY;
    ck_assert(live(&m, 120000));
    ck_assert_uint_gt(sink_count(&m.w.sink), 30);       /* whichever it was */
    ck_assert_int_eq(dead_count(&m.w, NULL), 0);
    for (int i = 0; i < MOST; i++)      /* set aside, perhaps, not counted */
        m.verdict[i] = OUTBOX_ACK;
    sink_forget(&m.w.sink);
    ck_assert(live_more(&m, 60000));
    ck_assert_uint_eq(sink_count(&m.w.sink), 4);
    mortal_close(&m);
}
END_TEST

/* Its key waits behind it as behind any other dead one. */
START_TEST(a_condemned_one_blocks_its_key)
{
    mortal m;
    outbox_error err;

    mortal_open(&m, _i);
    m.opt.on_dead = OUTBOX_DEAD_BLOCKS_KEY;
    m.kills[50] = true;
    for (long i = 49; i < 53; i++)
        publish_numbers(&m.w, "k", i, 1);
    publish_numbers(&m.w, "other", 60, 1);
    live_on(&m, 3000);
    ck_assert_int_eq(dead_count(&m.w, NULL), 1);
    ck_assert_int_eq(m.starts[51] + m.starts[52], 0);
    ck_assert_int_ge(m.starts[60], 1);
    m.kills[50] = false;                /* mended, and a person revives it */
    ck_assert_int_eq(outbox_dead_revive(m.w.ob, "default", NULL, &err), 1);
    run_for(&m.w, m.r, 2000, SLICE_MS);
    ck_assert_int_eq(m.starts[50], 2 + 3 + 1);
    ck_assert_int_eq(m.starts[51], 1);
    ck_assert_int_eq(m.starts[52], 1);
    mortal_close(&m);
}
END_TEST

/* One that fails stands before it in its lane, and nothing else could pass
 * that would show who is to blame: the count of the other goes on all the
 * same, and those behind are not held up. */
START_TEST(a_failing_neighbour_hides_nothing)
{
    mortal m;
    letter l[8];

    mortal_open(&m, _i);
    m.kills[50] = true;
    m.verdict[60] = OUTBOX_RETRY;
    publish_numbers(&m.w, neighbour("k", true), 60, 1);
    publish_numbers(&m.w, "k", 50, 10);
    live_on(&m, 20000);
    ck_assert_int_eq(letters_of(&m.w, NULL, l, 8), 1);
    ck_assert_int_eq(l[0].number, 50);
    for (int i = 51; i < 60; i++)
        ck_assert_int_ge(m.starts[i], 1);
    mortal_close(&m);
}
END_TEST

/* It was not sent, so nobody has answered: the destination may still be away,
 * and what else has failed counts no more than before. */
START_TEST(a_condemned_one_is_no_answer)
{
    mortal m;

    mortal_open(&m, _i);
    m.kills[50] = true;
    m.verdict[60] = OUTBOX_RETRY;
    publish_numbers(&m.w, neighbour("k", false), 60, 1);
    publish_numbers(&m.w, "k", 50, 1);
    live_on(&m, 3000);
    ck_assert_int_eq(dead_count(&m.w, NULL), 1);
    ck_assert(live_more(&m, 10000));
    ck_assert_int_eq(m.w.sut->count(m.w.db, SUT_PARKED), 0);
    ck_assert_uint_eq(stats_of(m.r).rejected, 0);
    mortal_close(&m);
}
END_TEST

/* First it fails, and is parked; then each retry kills. */
START_TEST(a_parked_one_that_kills)
{
    mortal m;
    letter l[8];

    mortal_open(&m, _i);
    m.opt.retry_max_ms = 500;
    m.verdict[50] = OUTBOX_RETRY;
    publish_numbers(&m.w, "k", 50, 1);
    publish_on_lanes(&m, 1, 30);
    ck_assert(live(&m, 100));
    ck_assert_int_eq(m.w.sut->count(m.w.db, SUT_PARKED), 1);
    m.kills[50] = true;
    crash(&m);
    live_on(&m, 5000);
    ck_assert_int_eq(letters_of(&m.w, NULL, l, 8), 1);
    ck_assert_int_eq(l[0].number, 50);
    ck_assert_int_eq(m.w.sut->count(m.w.db, SUT_PARKED), 0);
    mortal_close(&m);
}
END_TEST

/* The same, but its lane goes on between the deaths: there is always new
 * traffic, and progress is saved before the retry kills. */
START_TEST(a_parked_one_that_kills_among_traffic)
{
    mortal m;
    long next = 100;

    mortal_open(&m, _i);
    m.opt.retry_min_ms = m.opt.retry_max_ms = 5000;
    m.verdict[50] = OUTBOX_RETRY;
    publish_numbers(&m.w, "k", 50, 1);
    publish_on_lanes(&m, 1, 30);
    ck_assert(live(&m, 100));
    m.kills[50] = true;
    do {
        crash(&m);
        publish_on_lanes(&m, next++, 1);
        ck_assert_msg(m.deaths < LIVES, "it kills for ever");
    } while (!live(&m, 20000));
    ck_assert_int_eq(dead_count(&m.w, NULL), 1);
    mortal_close(&m);
}
END_TEST

/* The destination is away, and somebody kills the relay again and again, as if
 * that could help.  No event is to blame, parked or not. */
START_TEST(killed_by_hand_during_an_outage)
{
    mortal m;

    mortal_open(&m, _i);
    m.opt.retry_max_ms = 500;
    m.verdict[50] = OUTBOX_RETRY;
    publish_numbers(&m.w, "k", 50, 3);
    publish_on_lanes(&m, 1, 5);
    ck_assert(live(&m, 100));
    ck_assert_int_eq(m.w.sut->count(m.w.db, SUT_PARKED), 3);
    for (int i = 0; i < MOST; i++)
        m.verdict[i] = OUTBOX_RETRY;
    publish_on_lanes(&m, 6, 2);
    for (int i = 0; i < 10; i++) {
        ck_assert(live_more(&m, 10000));
        crash(&m);
        ck_assert(live(&m, 3000));
    }
    ck_assert_int_eq(dead_count(&m.w, NULL), 0);
    for (int i = 0; i < MOST; i++)
        m.verdict[i] = OUTBOX_ACK;
    ck_assert(live_more(&m, 60000));
    ck_assert_uint_eq(database_stats(&m.w, NULL).lag, 0);
    ck_assert_int_eq(dead_count(&m.w, NULL), 0);
    mortal_close(&m);
}
END_TEST

void add_trial_tests(Suite *s)
{
    TCase *tc = suite_case(s, "trial");

    tcase_add_loop_test(tc, it_dies_and_the_others_do_not, 0, n_suts);
    tcase_add_loop_test(tc, those_before_it_are_not_blamed, 0, n_suts);
    tcase_add_loop_test(tc, an_asynchronous_one_dies_too, 0, n_suts);
    tcase_add_loop_test(tc, no_trial_before_the_second_death, 0, n_suts);
    tcase_add_loop_test(tc, a_slow_poison, 0, n_suts);
    tcase_add_loop_test(tc, without_a_crash_no_trial_is_written, 0, n_suts);
    tcase_add_loop_test(tc, progress_between_deaths_forgives, 0, n_suts);
    tcase_add_loop_test(tc, a_trial_that_ends_well_is_forgotten, 0, n_suts);
    tcase_add_loop_test(tc, an_outage_during_a_trial_kills_nothing, 0, n_suts);
    tcase_add_loop_test(tc, a_condemned_one_blocks_its_key, 0, n_suts);
    tcase_add_loop_test(tc, a_failing_neighbour_hides_nothing, 0, n_suts);
    tcase_add_loop_test(tc, a_condemned_one_is_no_answer, 0, n_suts);
    tcase_add_loop_test(tc, a_parked_one_that_kills, 0, n_suts);
    tcase_add_loop_test(tc, a_parked_one_that_kills_among_traffic, 0, n_suts);
    tcase_add_loop_test(tc, killed_by_hand_during_an_outage, 0, n_suts);
}

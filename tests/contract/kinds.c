/* SPDX-License-Identifier: MIT
 *
 * kinds.c - the three kinds of failure, and what each of them counts: the
 * destination is away, this event fails, this event can never pass.
 */
#include "kit.h"

#include <stdio.h>
#include <string.h>

enum { HOUR_MS = 3600000 };

static void kinds_open(site *t, int which)
{
    site_open(t, which);
    t->opt.retry_min_ms = 100;
    t->opt.retry_max_ms = 400;
    t->opt.breaker_failures = 5;
    t->opt.max_attempts = 4;
}

static void kinds_restart(site *t)
{
    site_end_relay(t);
    site_relay(t);
}

/* ---- this event fails ----------------------------------------------- */

START_TEST(three_keys_fail_and_the_others_flow)
{
    site t;

    kinds_open(&t, _i);
    for (long i = 1; i <= 200; i++)
        publish_numbers(&t.w, key_of(i % 20), i, 1);
    for (long i = 1; i <= 200; i++) {
        if (i % 20 < 3)
            t.p.of[i] = OUTBOX_RETRY;
    }
    site_relay(&t);
    run_for(&t.w, t.r, 1500, 50);
    for (long i = 1; i <= 200; i++) {
        if (i % 20 >= 3)
            ck_assert_uint_eq(sink_times(&t.w.sink, i), 1);
        else if (i > 20)
            ck_assert_uint_eq(sink_times(&t.w.sink, i), 0);
    }
    ck_assert_int_eq(site_parked(&t), 30);
    ck_assert_uint_eq(stats_of(t.r).blocked_keys, 3);
    ck_assert_int_eq(stats_of(t.r).breaker_open, 0);
    plan_range(&t.p, 1, 200, OUTBOX_ACK);
    run_for(&t.w, t.r, 2000, 50);
    for (long i = 21; i <= 200; i++) {
        if (i % 20 < 3)
            ck_assert_uint_eq(sink_times(&t.w.sink, i), 1);
    }
    ck_assert_int_eq(site_parked(&t), 0);
    ck_assert_uint_eq(stats_of(t.r).blocked_keys, 0);
    ck_assert(sink_in_order(&t.w.sink));
    site_close(&t);
}
END_TEST

/* Others pass after each try, so each counts: four tries, no more. */
START_TEST(each_failure_counts_once)
{
    site t;
    letter l[2];

    kinds_open(&t, _i);
    t.opt.retry_min_ms = t.opt.retry_max_ms = 100;
    t.p.of[1] = OUTBOX_RETRY;
    publish_numbers(&t.w, "k", 1, 1);
    site_relay(&t);
    for (size_t tries = 1; tries <= 4; tries++) {
        ck_assert_uint_eq(sink_times(&t.w.sink, 1), tries);
        ck_assert_int_eq(dead_count(&t.w, NULL), 0);
        publish_numbers(&t.w, NULL, 0, 1);
        settle_down(t.r);               /* convicted, without time passing */
        run_for(&t.w, t.r, 101, 101);   /* tried again */
    }
    ck_assert_uint_eq(sink_times(&t.w.sink, 1), 4);
    ck_assert_int_eq(letters_of(&t.w, NULL, l, 2), 1);
    ck_assert_int_eq(l[0].attempt, 4);
    ck_assert_str_eq(l[0].why, "number 1, attempt 4");
    ck_assert_uint_eq(stats_of(t.r).retried, 4);
    ck_assert_uint_eq(stats_of(t.r).rejected, 0);
    site_close(&t);
}
END_TEST

/* Attempts that counted are durable: each process makes one try of four. */
START_TEST(attempts_are_counted_over_restarts)
{
    site t;
    letter l[2];

    kinds_open(&t, _i);
    t.p.of[1] = OUTBOX_RETRY;
    publish_numbers(&t.w, "k", 1, 1);
    for (int32_t life = 1; life <= 4; life++) {
        ck_assert_int_eq(life == 1 ? 0 : dead_count(&t.w, NULL), 0);
        t.r = relay_open(&t.w, NULL, &t.opt, NULL);
        size_t before = sink_times(&t.w.sink, 1);
        for (int i = 0; sink_times(&t.w.sink, 1) == before; i++) {
            ck_assert_int_lt(i, 1000);
            vclock_advance(&t.w.clock, 10);
            steps(t.r, 1);
        }
        const sent *s = sink_at(&t.w.sink, last_of_number(&t.w.sink, 1));
        ck_assert_int_eq(s->event.attempt, life);
        publish_numbers(&t.w, NULL, 0, 1);
        steps(t.r, 2);
        outbox_relay_free(t.r);
    }
    t.r = NULL;
    ck_assert_int_eq(letters_of(&t.w, NULL, l, 2), 1);
    ck_assert_int_eq(l[0].attempt, 4);
    site_close(&t);
}
END_TEST

/* An event that fails alone may be the destination's fault: nothing counts,
 * however often, until another passes. */
START_TEST(alone_it_is_never_counted)
{
    site t;

    kinds_open(&t, _i);
    t.p.of[1] = OUTBOX_RETRY;
    publish_numbers(&t.w, "k", 1, 1);
    site_relay(&t);
    run_for(&t.w, t.r, HOUR_MS, 2000);
    ck_assert_uint_ge(sink_times(&t.w.sink, 1), 100);
    ck_assert_int_eq(site_parked(&t), 0);
    ck_assert_int_eq(dead_count(&t.w, NULL), 0);
    kinds_restart(&t);
    settle_down(t.r);
    size_t at = last_of_number(&t.w.sink, 1);
    ck_assert_int_eq(sink_at(&t.w.sink, at)->event.attempt, 1);
    site_close(&t);
}
END_TEST

/* More followers than are loaded at a time; some fail themselves. */
START_TEST(many_parked_followers_pass_in_order)
{
    site t;

    kinds_open(&t, _i);
    t.opt.max_attempts = 1000;
    t.p.of[1] = t.p.of[120] = t.p.of[121] = OUTBOX_RETRY;
    publish_numbers(&t.w, "k", 1, 350);
    site_relay(&t);
    run_among_others(&t.w, t.r, 500, 50);
    ck_assert_int_eq(site_parked(&t), 350);
    publish_numbers(&t.w, "k", 351, 50);
    run_among_others(&t.w, t.r, 200, 50);
    ck_assert_int_eq(site_parked(&t), 400);
    t.p.of[1] = OUTBOX_ACK;
    run_among_others(&t.w, t.r, 2000, 50);
    ck_assert(once_in_order(&t.w.sink, 2, 118));
    ck_assert_uint_eq(sink_times(&t.w.sink, 121), 0);
    ck_assert_int_eq(site_parked(&t), 400 - 119);
    t.p.of[120] = t.p.of[121] = OUTBOX_ACK;
    run_among_others(&t.w, t.r, 2000, 50);
    ck_assert(once_in_order(&t.w.sink, 121, 280));
    ck_assert(sink_in_order(&t.w.sink));
    ck_assert_int_eq(site_parked(&t), 0);
    site_close(&t);
}
END_TEST

/* At the cap it reads no more, whatever the key, and forgets nothing; below it
 * again, it goes on. */
START_TEST(max_parked_holds_the_lanes_and_lets_go)
{
    site t;

    kinds_open(&t, _i);
    t.opt.max_parked = 20;
    t.opt.max_inflight = 16;
    t.opt.max_attempts = 1000;
    t.p.of[1] = OUTBOX_RETRY;
    publish_numbers(&t.w, "bad", 1, 1);
    publish_numbers(&t.w, NULL, 200, 5);
    publish_numbers(&t.w, "bad", 2, 100);
    publish_numbers(&t.w, NULL, 300, 50);
    site_relay(&t);
    run_for(&t.w, t.r, 5000, 50);
    ck_assert_int_ge(site_parked(&t), 20);
    ck_assert_int_le(site_parked(&t), 20 + 16);
    ck_assert_uint_eq(sink_times(&t.w.sink, 300), 0);
    ck_assert_uint_ge(stats_of(t.r).lag, 120);
    t.p.of[1] = OUTBOX_ACK;
    run_for(&t.w, t.r, 10000, 50);
    ck_assert_int_eq(site_parked(&t), 0);
    ck_assert(once_in_order(&t.w.sink, 2, 100));
    for (long i = 300; i < 350; i++)
        ck_assert_uint_eq(sink_times(&t.w.sink, i), 1);
    site_close(&t);
}
END_TEST

/* ---- this event can never pass -------------------------------------- */

START_TEST(a_reject_is_one_attempt_and_the_end)
{
    site t;
    letter l[2];

    kinds_open(&t, _i);
    t.p.of[1] = OUTBOX_REJECT;
    publish_numbers(&t.w, "k", 1, 1);
    site_relay(&t);                   /* alone, and at once */
    ck_assert_int_eq(letters_of(&t.w, NULL, l, 2), 1);
    ck_assert_int_eq(l[0].attempt, 1);
    ck_assert_str_eq(l[0].why, "number 1, attempt 1");
    run_for(&t.w, t.r, 5000, 100);
    ck_assert_uint_eq(sink_count(&t.w.sink), 1);
    ck_assert_uint_eq(stats_of(t.r).rejected, 1);
    ck_assert_uint_eq(stats_of(t.r).retried, 0);
    ck_assert_uint_eq(stats_of(t.r).lag, 0);
    site_close(&t);
}
END_TEST

/* Without a key there is nothing that could wait behind it. */
START_TEST(a_dead_one_without_a_key_blocks_nobody)
{
    site t;

    kinds_open(&t, _i);
    t.p.of[1] = OUTBOX_REJECT;
    publish_numbers(&t.w, NULL, 1, 5);
    publish_numbers(&t.w, "", 10, 5);   /* the empty key is another */
    site_relay(&t);
    run_for(&t.w, t.r, 1000, 100);
    ck_assert(once_in_order(&t.w.sink, 10, 5));
    for (long i = 1; i < 6; i++)
        ck_assert_uint_eq(sink_times(&t.w.sink, i), 1);
    ck_assert_uint_eq(stats_of(t.r).blocked_keys, 0);
    site_close(&t);
}
END_TEST

/* It dies in the middle of its key, both ways. */
static void dies_in_the_middle(int which, outbox_on_dead on_dead, bool passes)
{
    site t;

    kinds_open(&t, which);
    t.opt.on_dead = on_dead;
    t.p.of[3] = OUTBOX_REJECT;
    publish_numbers(&t.w, "k", 1, 5);
    publish_numbers(&t.w, "other", 10, 5);
    site_relay(&t);
    run_for(&t.w, t.r, 1000, 100);
    ck_assert(once_in_order(&t.w.sink, 1, 3));
    ck_assert(once_in_order(&t.w.sink, 10, 5));
    ck_assert(once_in_order(&t.w.sink, 4, 2) == passes);
    ck_assert_uint_eq(sink_times(&t.w.sink, 4), passes);
    kinds_restart(&t);
    publish_numbers(&t.w, "k", 6, 1);
    run_for(&t.w, t.r, 1000, 100);
    ck_assert_uint_eq(sink_times(&t.w.sink, 3), 1);
    ck_assert_uint_eq(sink_times(&t.w.sink, 6), passes);
    ck_assert_int_eq(site_parked(&t), passes ? 0 : 3);
    site_close(&t);
}

START_TEST(dying_in_the_middle_of_a_key)
{
    dies_in_the_middle(_i, OUTBOX_DEAD_BLOCKS_KEY, false);
    dies_in_the_middle(_i, OUTBOX_DEAD_SKIPS, true);
}
END_TEST

/* A REJECT says that the destination is alive: it convicts, and it closes
 * the breaker. */
START_TEST(a_reject_is_an_answer)
{
    site t;

    kinds_open(&t, _i);
    t.p.of[1] = OUTBOX_RETRY;
    t.p.of[2] = OUTBOX_REJECT;
    publish_numbers(&t.w, "k", 1, 1);
    site_relay(&t);
    ck_assert_int_eq(site_parked(&t), 0);
    publish_numbers(&t.w, NULL, 2, 1);
    settle_down(t.r);
    ck_assert_int_eq(site_parked(&t), 1);
    ck_assert_int_eq(dead_count(&t.w, NULL), 1);
    site_close(&t);
}
END_TEST

/* ---- the destination is away ---------------------------------------- */

START_TEST(away_for_hours_nothing_counts)
{
    site t;
    letter l[2];

    kinds_open(&t, _i);
    t.p.down = true;
    publish_numbers(&t.w, "a", 1, 50);
    publish_numbers(&t.w, "b", 101, 50);
    publish_numbers(&t.w, NULL, 201, 50);
    site_relay(&t);
    run_for(&t.w, t.r, 9 * HOUR_MS, 8000);
    ck_assert_int_eq(stats_of(t.r).breaker_open, 1);
    ck_assert_uint_gt(sink_count(&t.w.sink), 1000);
    ck_assert_int_eq(dead_count(&t.w, NULL), 0);
    ck_assert_int_eq(site_parked(&t), 0);
    kinds_restart(&t);                   /* nothing of it was written down */
    sink_forget(&t.w.sink);
    t.p.down = false;
    t.p.of[1] = OUTBOX_RETRY;           /* this one is to blame */
    run_among_others(&t.w, t.r, 20000, 100);
    ck_assert_uint_eq(sink_times(&t.w.sink, 1), 4);
    ck_assert_int_eq(letters_of(&t.w, NULL, l, 2), 1);
    ck_assert_int_eq(l[0].attempt, 4);
    ck_assert_int_eq(l[0].number, 1);
    ck_assert(once_in_order(&t.w.sink, 101, 50));
    site_close(&t);
}
END_TEST

/* What failed before the outage keeps its count; the outage adds none. */
START_TEST(an_outage_adds_nothing_to_a_parked_one)
{
    site t;
    letter l[2];

    kinds_open(&t, _i);
    t.p.of[1] = OUTBOX_RETRY;
    publish_numbers(&t.w, "k", 1, 3);
    site_relay(&t);
    publish_numbers(&t.w, NULL, 0, 1);
    settle_down(t.r);
    ck_assert_int_eq(site_parked(&t), 3);    /* one attempt has counted */
    t.p.down = true;
    publish_numbers(&t.w, NULL, 100, 20);
    run_for(&t.w, t.r, 2 * HOUR_MS, 4000);
    ck_assert_int_eq(dead_count(&t.w, NULL), 0);
    ck_assert_int_eq(site_parked(&t), 3);
    sink_forget(&t.w.sink);
    t.p.down = false;
    for (int i = 0; stats_of(t.r).breaker_open; i++) {
        ck_assert_int_lt(i, 33000 / 100);       /* the longest pause */
        run_for(&t.w, t.r, 100, 100);
    }
    run_among_others(&t.w, t.r, 5000, 100);
    ck_assert_int_eq(letters_of(&t.w, NULL, l, 2), 1);
    ck_assert_int_eq(l[0].attempt, 4);
    ck_assert_uint_ge(sink_times(&t.w.sink, 1), 3);
    ck_assert_uint_le(sink_times(&t.w.sink, 1), 4);     /* one as a probe */
    site_close(&t);
}
END_TEST

/* When was each delivery made?  By the relay's clock. */
typedef struct stamps {
    world  *w;
    int64_t at[PLAN_SIZE];
    size_t  n;
    bool    up;
} stamps;

static outbox_verdict stamp(sink *s, const outbox_event *ev,
                            outbox_token token, outbox_error *why)
{
    stamps *st = s->arg;

    (void)ev, (void)token, (void)why;
    ck_assert_uint_lt(st->n, PLAN_SIZE);
    st->at[st->n++] = vclock_now(&st->w->clock);
    return st->up ? OUTBOX_ACK : OUTBOX_RETRY;
}

/* Each pause is twice the one before, up to 32 times the first, and each ends
 * with one probe; an event that passes makes them short again. */
START_TEST(the_pauses_grow_and_begin_anew)
{
    site t;
    stamps st = { .w = &t.w };
    static const int64_t pauses[] = { 1000, 2000, 4000, 8000, 16000, 32000,
                                      32000, 32000 };

    kinds_open(&t, _i);
    t.w.sink.rule = stamp;
    t.w.sink.arg = &st;
    publish_numbers(&t.w, NULL, 1, 40);
    site_relay(&t);
    size_t burst = st.n;
    int64_t before = st.at[burst - 1];
    run_for(&t.w, t.r, 130000, 50);
    ck_assert_uint_eq(st.n, burst + 8);
    for (size_t i = 0; i < 8; i++) {
        int64_t pause = st.at[burst + i] - before;
        ck_assert_int_ge(pause, pauses[i]);
        ck_assert_int_le(pause, pauses[i] + 100);
        before = st.at[burst + i];
    }
    st.up = true;
    run_for(&t.w, t.r, 33000, 100);
    ck_assert_uint_eq(stats_of(t.r).acked, 40);
    st.up = false;
    publish_numbers(&t.w, NULL, 100, 40);
    settle_down(t.r);
    burst = st.n;
    run_for(&t.w, t.r, 1200, 10);
    ck_assert_uint_eq(st.n, burst + 1);
    site_close(&t);
}
END_TEST

/* Half open, one event is with the destination, however long it takes; the
 * rest of the thousand goes when it has passed, and in order. */
START_TEST(a_probe_that_passes_lets_all_go)
{
    site t;

    kinds_open(&t, _i);
    t.p.down = true;
    publish_numbers(&t.w, "a", 1, 500);
    publish_numbers(&t.w, "b", 501, 500);
    publish_numbers(&t.w, NULL, 1001, 10);
    site_relay(&t);
    run_for(&t.w, t.r, 100, 10);
    for (long i = 0; i < PLAN_SIZE; i++)
        t.p.pending[i] = true;
    t.p.down = false;
    sink_forget(&t.w.sink);
    run_for(&t.w, t.r, 20000, 100);
    ck_assert_uint_eq(sink_count(&t.w.sink), 1);
    memset(t.p.pending, 0, sizeof t.p.pending);
    ck_ok(sink_settle(&t.w.sink, 0, OUTBOX_ACK));
    run_for(&t.w, t.r, 500, 100);
    ck_assert_int_eq(stats_of(t.r).breaker_open, 0);
    ck_assert(sink_exactly(&t.w.sink, 1, 1010));
    ck_assert(once_in_order(&t.w.sink, 1, 500));
    ck_assert(once_in_order(&t.w.sink, 501, 500));
    site_close(&t);
}
END_TEST

/* A probe that is rejected is dead, and was an answer all the same. */
START_TEST(a_probe_that_is_rejected_closes_it_too)
{
    site t;

    kinds_open(&t, _i);
    t.p.down = true;
    publish_numbers(&t.w, NULL, 1, 20);
    site_relay(&t);
    ck_assert_int_eq(stats_of(t.r).breaker_open, 1);
    t.p.down = false;
    plan_range(&t.p, 1, 20, OUTBOX_REJECT);
    run_for(&t.w, t.r, 2000, 100);
    ck_assert_int_eq(stats_of(t.r).breaker_open, 0);
    ck_assert_int_eq(dead_count(&t.w, NULL), 20);
    site_close(&t);
}
END_TEST

void add_kinds_tests(Suite *s)
{
    TCase *tc = suite_case(s, "kinds");

    tcase_add_loop_test(tc, three_keys_fail_and_the_others_flow, 0, n_suts);
    tcase_add_loop_test(tc, each_failure_counts_once, 0, n_suts);
    tcase_add_loop_test(tc, attempts_are_counted_over_restarts, 0, n_suts);
    tcase_add_loop_test(tc, alone_it_is_never_counted, 0, n_suts);
    tcase_add_loop_test(tc, many_parked_followers_pass_in_order, 0, n_suts);
    tcase_add_loop_test(tc, max_parked_holds_the_lanes_and_lets_go, 0, n_suts);
    tcase_add_loop_test(tc, a_reject_is_one_attempt_and_the_end, 0, n_suts);
    tcase_add_loop_test(tc, a_dead_one_without_a_key_blocks_nobody, 0, n_suts);
    tcase_add_loop_test(tc, dying_in_the_middle_of_a_key, 0, n_suts);
    tcase_add_loop_test(tc, a_reject_is_an_answer, 0, n_suts);
    tcase_add_loop_test(tc, away_for_hours_nothing_counts, 0, n_suts);
    tcase_add_loop_test(tc, an_outage_adds_nothing_to_a_parked_one, 0, n_suts);
    tcase_add_loop_test(tc, the_pauses_grow_and_begin_anew, 0, n_suts);
    tcase_add_loop_test(tc, a_probe_that_passes_lets_all_go, 0, n_suts);
    tcase_add_loop_test(tc, a_probe_that_is_rejected_closes_it_too, 0, n_suts);
}

/* SPDX-License-Identifier: MIT
 *
 * progress.c - what a crash sends again: what was not saved, and no more.
 */
#include "contract.h"

#include "memory/memory_store.h"

#include <string.h>

/* Publish n, deliver them to a transport that keeps them in flight. */
static outbox_relay_t *in_flight(world *w, long n, sut_link *link)
{
    outbox_relay_t *r;

    w->sink.rule = sink_pending;
    publish_numbers(w, NULL, 0, n);
    r = relay_open(w, NULL, NULL, link);
    settle_down(r);
    ck_assert_uint_eq(sink_count(&w->sink), (size_t)n);
    return r;
}

/* What a relay that comes after a crash sends. */
static void resent(world *w, outbox_relay_t *r, sut_link *link)
{
    relay_crash(w, r, link);
    sink_forget(&w->sink);
    w->sink.rule = NULL;
    drain_after_crash(w, &w->sink, NULL);
}

START_TEST(nothing_settled_all_sent_again)
{
    world w;
    sut_link link;
    outbox_relay_t *r;

    world_open(&w, _i);
    r = in_flight(&w, 10, &link);
    resent(&w, r, &link);
    ck_assert(sink_exactly(&w.sink, 0, 10));
    world_close(&w);
}
END_TEST

START_TEST(what_was_saved_is_not_sent_again)
{
    world w;
    sut_link link;
    outbox_relay_t *r;

    world_open(&w, _i);
    r = in_flight(&w, 10, &link);
    for (size_t i = 0; i < 4; i++)
        ck_ok(sink_settle(&w.sink, i, OUTBOX_ACK));
    settle_down(r);
    run_for(&w, r, 100, 10);            /* longer than flush_ms */
    resent(&w, r, &link);
    /* A lane's cursor stops at its first hole: what lies behind may come
     * again, what lies before does not. */
    ck_assert(sink_at_least(&w.sink, 4, 6));
    ck_assert_uint_le(sink_count(&w.sink), 10);
    world_close(&w);
}
END_TEST

/* One lane makes the prefix exact. */
static void open_one_lane(world *w, int which)
{
    outbox_options opt = { .size = sizeof opt, .lanes = 1 };
    outbox_error err;

    world_open_bare(w, which);
    outbox_close(w->ob);
    ck_ok(w->sut->outbox(&w->ob, w->app, &opt, &err));
    ck_ok(outbox_migrate(w->ob, &err));
}

START_TEST(saved_is_the_contiguous_prefix)
{
    static const size_t acked[] = { 7, 2, 0, 1, 5, 9 };
    world w;
    sut_link link;
    outbox_relay_t *r;

    open_one_lane(&w, _i);
    r = in_flight(&w, 10, &link);
    for (size_t i = 0; i < 6; i++)
        ck_ok(sink_settle(&w.sink, acked[i], OUTBOX_ACK));
    settle_down(r);
    run_for(&w, r, 100, 10);
    resent(&w, r, &link);
    ck_assert(sink_exactly(&w.sink, 3, 7));
    world_close(&w);
}
END_TEST

START_TEST(saving_is_lazy)
{
    world w;
    sut_link link;
    outbox_relay_t *r;

    open_one_lane(&w, _i);
    r = in_flight(&w, 10, &link);
    for (size_t i = 0; i < 4; i++)
        ck_ok(sink_settle(&w.sink, i, OUTBOX_ACK));
    settle_down(r);
    run_for(&w, r, 100, 10);
    for (size_t i = 4; i < 8; i++)
        ck_ok(sink_settle(&w.sink, i, OUTBOX_ACK));
    steps(r, 3);                        /* no time passes: not yet saved */
    resent(&w, r, &link);
    ck_assert(sink_exactly(&w.sink, 4, 6));
    world_close(&w);
}
END_TEST

START_TEST(a_stop_saves_at_once)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    open_one_lane(&w, _i);
    r = in_flight(&w, 10, NULL);
    for (size_t i = 0; i < 10; i++)
        ck_ok(sink_settle(&w.sink, i, OUTBOX_ACK));
    ck_ok(outbox_relay_stop(r, 1000, &err));
    outbox_relay_free(r);
    sink_forget(&w.sink);
    drain_after_crash(&w, &w.sink, NULL);
    ck_assert_uint_eq(sink_count(&w.sink), 0);
    world_close(&w);
}
END_TEST

START_TEST(a_stop_in_flight_saves_the_prefix)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    open_one_lane(&w, _i);
    r = in_flight(&w, 10, NULL);
    for (size_t i = 0; i < 4; i++)
        ck_ok(sink_settle(&w.sink, i, OUTBOX_ACK));
    ck_assert_int_eq(outbox_relay_stop(r, 20, &err), OUTBOX_ETIMEOUT);
    outbox_relay_free(r);
    sink_forget(&w.sink);
    w.sink.rule = NULL;
    drain_after_crash(&w, &w.sink, NULL);
    ck_assert(sink_exactly(&w.sink, 4, 6));
    world_close(&w);
}
END_TEST

START_TEST(an_idle_relay_has_saved_everything)
{
    world w;
    sut_link link;
    outbox_relay_t *r;

    world_open(&w, _i);
    publish_numbers(&w, NULL, 0, 50);
    r = relay_open(&w, NULL, NULL, &link);
    settle_down(r);
    run_for(&w, r, 200, 20);
    resent(&w, r, &link);
    ck_assert_uint_eq(sink_count(&w.sink), 0);
    world_close(&w);
}
END_TEST

START_TEST(a_crash_before_the_first_save)
{
    world w;
    sut_link link;
    outbox_relay_t *r;

    world_open(&w, _i);
    for (int i = 0; i < 5; i++) {
        publish_numbers(&w, "k", 10 * i, 10);
        r = relay_open(&w, NULL, NULL, &link);
        settle_down(r);
        relay_crash(&w, r, &link);
        vclock_advance(&w.clock, 20000);
    }
    drain_after_crash(&w, &w.sink, NULL);
    ck_assert(sink_at_least(&w.sink, 0, 50));
    ck_assert(sink_in_order(&w.sink));
    world_close(&w);
}
END_TEST

/* Only the store in memory counts its calls: a thousand events are a few
 * saves, not a thousand. */
START_TEST(a_thousand_events_are_few_writes)
{
    world w;
    outbox_relay_t *r;
    unsigned before;

    world_open(&w, 0);
    ck_assert_str_eq(w.sut->name, "memory");
    publish_numbers(&w, NULL, 0, 1000);
    r = relay_open(&w, NULL, NULL, NULL);
    before = mem_calls(w.db, MEM_SAVE);
    settle_down(r);
    run_for(&w, r, 1000, 10);
    ck_assert(sink_exactly(&w.sink, 0, 1000));
    ck_assert_uint_ge(mem_calls(w.db, MEM_SAVE) - before, 1);
    ck_assert_uint_le(mem_calls(w.db, MEM_SAVE) - before, 5);
    before = mem_calls(w.db, MEM_SAVE);
    run_for(&w, r, 60000, 500);         /* idle: nothing to save */
    ck_assert_uint_eq(mem_calls(w.db, MEM_SAVE), before);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

void add_progress_tests(Suite *s)
{
    TCase *tc = suite_case(s, "progress");

    tcase_add_loop_test(tc, nothing_settled_all_sent_again, 0, n_suts);
    tcase_add_loop_test(tc, what_was_saved_is_not_sent_again, 0, n_suts);
    tcase_add_loop_test(tc, saved_is_the_contiguous_prefix, 0, n_suts);
    tcase_add_loop_test(tc, saving_is_lazy, 0, n_suts);
    tcase_add_loop_test(tc, a_stop_saves_at_once, 0, n_suts);
    tcase_add_loop_test(tc, a_stop_in_flight_saves_the_prefix, 0, n_suts);
    tcase_add_loop_test(tc, an_idle_relay_has_saved_everything, 0, n_suts);
    tcase_add_loop_test(tc, a_crash_before_the_first_save, 0, n_suts);
    tcase_add_test(tc, a_thousand_events_are_few_writes);
}

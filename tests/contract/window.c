/* SPDX-License-Identifier: MIT
 *
 * window.c - what is in flight is bounded, by count and by bytes.
 */
#include "contract.h"

#include <stdlib.h>
#include <string.h>

START_TEST(bounded_by_count)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    opt = relay_options(&w);
    opt.max_inflight = 7;
    publish_numbers(&w, NULL, 0, 30);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    ck_assert_uint_eq(sink_count(&w.sink), 7);
    ck_assert_uint_eq(stats_of(r).inflight, 7);
    ck_ok(sink_settle(&w.sink, 0, OUTBOX_ACK));
    settle_down(r);
    ck_assert_uint_eq(sink_count(&w.sink), 8);
    ck_assert_uint_eq(stats_of(r).inflight, 7);
    relay_drop(r);
    world_close(&w);
}
END_TEST

START_TEST(a_hole_does_not_stop_the_rest_at_once)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    opt = relay_options(&w);
    opt.max_inflight = 10;
    publish_numbers(&w, NULL, 0, 60);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    for (size_t i = 1; i < sink_count(&w.sink); i++) {
        sink_settle(&w.sink, i, OUTBOX_ACK);
        settle_down(r);
        ck_assert_uint_le(stats_of(r).inflight, 10);
    }
    ck_assert_uint_ge(sink_count(&w.sink), 10);
    ck_ok(sink_settle(&w.sink, 0, OUTBOX_ACK));
    settle_down(r);
    for (size_t i = 1; i < 60; i++) {
        if (i < sink_count(&w.sink))
            sink_settle(&w.sink, i, OUTBOX_ACK);
        settle_down(r);
    }
    ck_assert(sink_exactly(&w.sink, 0, 60));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

static void publish_big(world *w, outbox_t *ob, int n, size_t size)
{
    char *payload = calloc(1, size);
    outbox_event ev = { .size = sizeof ev, .topic = "big",
                        .payload = payload, .payload_len = size };
    outbox_error err;

    ck_ok(w->sut->begin(w->app));
    for (int i = 0; i < n; i++)
        ck_ok(outbox_publish(ob, &ev, &err));
    ck_ok(w->sut->commit(w->app));
    free(payload);
}

START_TEST(bounded_by_bytes)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    opt = relay_options(&w);
    opt.max_inflight_bytes = 2 << 20;
    publish_big(&w, w.ob, 20, 300000);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    size_t first = sink_count(&w.sink);
    ck_assert_uint_ge(first, 1);
    ck_assert_uint_le(first * 300000, 2 << 20);
    for (size_t i = 0; i < first; i++)
        ck_ok(sink_settle(&w.sink, i, OUTBOX_ACK));
    settle_down(r);
    ck_assert_uint_gt(sink_count(&w.sink), first);
    ck_assert_uint_le((sink_count(&w.sink) - first) * 300000, 2 << 20);
    relay_drop(r);
    world_close(&w);
}
END_TEST

/* A publisher with a greater limit than the relay knows of. */
START_TEST(an_event_larger_than_the_bound_passes_alone)
{
    outbox_options big = { .size = sizeof big, .max_payload_bytes = 4 << 20 };
    world w;
    outbox_error err;
    outbox_t *ob;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    opt = relay_options(&w);
    opt.max_inflight_bytes = 1 << 20;
    ck_ok(w.sut->outbox(&ob, w.app, &big, &err));
    publish_big(&w, ob, 3, 3 << 20);
    outbox_close(ob);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    ck_assert_uint_eq(sink_count(&w.sink), 3);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(a_window_of_one)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    opt = relay_options(&w);
    opt.max_inflight = 1;
    opt.batch = 1;
    publish_numbers(&w, "k", 0, 12);
    publish_numbers(&w, NULL, 12, 12);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    ck_assert(sink_exactly(&w.sink, 0, 24));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

/* All events of one key behind one that is in flight: the window is full of
 * what may not be sent, and yet everything comes through. */
START_TEST(one_key_fills_the_window)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    opt = relay_options(&w);
    opt.max_inflight = 5;
    publish_numbers(&w, "k", 0, 20);
    r = relay_open(&w, NULL, &opt, NULL);
    for (size_t i = 0; i < 20; i++) {
        settle_down(r);
        ck_assert_uint_eq(sink_count(&w.sink), i + 1);
        ck_ok(sink_settle(&w.sink, i, OUTBOX_ACK));
    }
    settle_down(r);
    ck_assert_uint_eq(stats_of(r).acked, 20);
    ck_assert(sink_in_order(&w.sink));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

static outbox_verdict retry_the_first(sink *s, const outbox_event *ev,
                                      outbox_token token, outbox_error *why)
{
    (void)s, (void)token, (void)why;
    return event_number(ev) == 0 ? OUTBOX_RETRY : OUTBOX_ACK;
}

/* The head of that key fails: it makes room, for another key might pass. */
START_TEST(one_that_fails_with_a_window_full_behind_it)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = retry_the_first;
    opt = relay_options(&w);
    opt.max_inflight = 5;
    opt.retry_max_ms = 1000;
    publish_numbers(&w, "k", 0, 20);
    publish_numbers(&w, "other", 20, 1);
    r = relay_open(&w, NULL, &opt, NULL);
    run_for(&w, r, 20000, 50);
    ck_assert_uint_eq(sink_times(&w.sink, 20), 1);
    ck_assert_uint_eq(sink_times(&w.sink, 1), 0);
    ck_assert_int_eq(w.sut->count(w.db, SUT_DEAD), 0);
    relay_drop(r);
    world_close(&w);
}
END_TEST

void add_window_tests(Suite *s)
{
    TCase *tc = suite_case(s, "window");

    tcase_add_loop_test(tc, bounded_by_count, 0, n_suts);
    tcase_add_loop_test(tc, a_hole_does_not_stop_the_rest_at_once, 0, n_suts);
    tcase_add_loop_test(tc, bounded_by_bytes, 0, n_suts);
    tcase_add_loop_test(tc, an_event_larger_than_the_bound_passes_alone, 0,
                        n_suts);
    tcase_add_loop_test(tc, a_window_of_one, 0, n_suts);
    tcase_add_loop_test(tc, one_key_fills_the_window, 0, n_suts);
    tcase_add_loop_test(tc, one_that_fails_with_a_window_full_behind_it, 0,
                        n_suts);
}

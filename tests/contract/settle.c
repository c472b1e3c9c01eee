/* SPDX-License-Identifier: MIT
 *
 * settle.c - verdicts that come later, in any order, from any thread, twice,
 * or never.
 */
#include "contract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a transport that settles out of order -------------------------- */

typedef struct flights {                /* what a sink knows of them */
    size_t sent_first;                  /* in the sink's list, all unsettled */
    bool   pending[2000];
    bool   together;                    /* two of one key were seen in flight */
} flights;

static bool key_in_flight(sink *s, flights *f, const char *key, size_t upto)
{
    for (size_t i = 0; i < upto; i++) {
        const char *other = sink_at(s, i)->event.key;
        if (f->pending[i] && other != NULL && strcmp(other, key) == 0)
            return true;
    }
    return false;
}

static outbox_verdict watch_keys(sink *s, const outbox_event *ev,
                                 outbox_token token, outbox_error *why)
{
    flights *f = s->arg;
    size_t me = sink_count(s) - 1;

    (void)token, (void)why;
    if (ev->key != NULL && key_in_flight(s, f, ev->key, me))
        f->together = true;
    f->pending[me] = true;
    return OUTBOX_PENDING;
}

/* Settle all that is in flight in a shuffled order; how many they were. */
static size_t settle_shuffled(sink *s, flights *f, unsigned *seed)
{
    size_t order[2000], n = 0, count = sink_count(s);

    for (size_t i = 0; i < count; i++) {
        if (f->pending[i])
            order[n++] = i;
    }
    for (size_t i = n; i > 1; i--) {
        *seed = *seed * 1103515245 + 12345;
        size_t k = (*seed >> 8) % i, swap = order[i - 1];
        order[i - 1] = order[k];
        order[k] = swap;
    }
    for (size_t i = 0; i < n; i++) {
        f->pending[order[i]] = false;
        ck_ok(sink_settle(s, order[i], OUTBOX_ACK));
    }
    return n;
}

static void publish_on_keys(world *w, int n, int keys)
{
    outbox_error err;
    char key[16];

    ck_ok(w->sut->begin(w->app));
    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof key, "key %d", i * 7 % keys);
        ck_ok(publish_number(w->ob, key, i, &err));
    }
    ck_ok(w->sut->commit(w->app));
}

static void shuffled(int which, uint32_t flags, flights *f)
{
    world w;
    unsigned seed = 42;
    outbox_relay_t *r;

    world_open(&w, which);
    w.sink.rule = watch_keys;
    w.sink.arg = f;
    w.sink.transport.flags = flags;
    publish_on_keys(&w, 200, 9);
    r = relay_open(&w, NULL, NULL, NULL);
    do {
        settle_down(r);
    } while (settle_shuffled(&w.sink, f, &seed) > 0);
    ck_assert(sink_exactly(&w.sink, 0, 200));
    ck_assert(sink_in_order(&w.sink));
    outbox_relay_free(r);
    world_close(&w);
}

START_TEST(keys_are_never_two_in_flight)
{
    flights f = { 0 };

    shuffled(_i, 0, &f);
    ck_assert(!f.together);
}
END_TEST

START_TEST(keys_fly_together_when_the_transport_is_ordered)
{
    flights f = { 0 };

    shuffled(_i, OUTBOX_ORDERED, &f);
    ck_assert(f.together);
}
END_TEST

START_TEST(events_without_a_key_fly_together)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    publish_numbers(&w, NULL, 0, 50);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_assert(sink_exactly(&w.sink, 0, 50));
    relay_drop(r);
    world_close(&w);
}
END_TEST

/* ---- settling within send ------------------------------------------- */

static void *settle_now(void *arg)
{
    sink *s = arg;

    return (void *)(intptr_t)sink_settle(s, sink_count(s) - 1, OUTBOX_ACK);
}

static outbox_verdict settle_in_thread(sink *s, const outbox_event *ev,
                                       outbox_token token, outbox_error *why)
{
    pthread_t thread;
    void *rc;

    (void)ev, (void)token, (void)why;
    ck_assert_int_eq(pthread_create(&thread, NULL, settle_now, s), 0);
    ck_assert_int_eq(pthread_join(thread, &rc), 0);
    ck_assert_ptr_null(rc);
    return OUTBOX_PENDING;
}

static outbox_verdict settle_at_once(sink *s, const outbox_event *ev,
                                     outbox_token token, outbox_error *why)
{
    outbox_stats st = { .size = sizeof st };
    outbox_error err;

    (void)ev, (void)why;
    ck_ok(outbox_settle(s->relay, token, OUTBOX_ACK, NULL));
    ck_ok(outbox_relay_stats(s->relay, &st));
    outbox_relay_wake(s->relay);
    ck_assert_int_eq(outbox_relay_step(s->relay, 0, &err), OUTBOX_EBUSY);
    return *(outbox_verdict *)s->arg;
}

static void settled_within(int which, sink_rule *rule, outbox_verdict verdict)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, which);
    w.sink.rule = rule;
    w.sink.arg = &verdict;
    publish_numbers(&w, "k", 0, 20);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_assert(sink_exactly(&w.sink, 0, 20));
    ck_assert_uint_eq(stats_of(r).acked, 20);
    ck_assert_uint_eq(stats_of(r).inflight, 0);
    outbox_relay_free(r);
    world_close(&w);
}

START_TEST(settled_before_send_returns)
{
    settled_within(_i, settle_in_thread, OUTBOX_PENDING);
    settled_within(_i, settle_at_once, OUTBOX_PENDING);
}
END_TEST

START_TEST(the_first_of_two_verdicts_wins)
{
    settled_within(_i, settle_at_once, OUTBOX_ACK);
    settled_within(_i, settle_at_once, OUTBOX_RETRY);
    settled_within(_i, settle_at_once, OUTBOX_REJECT);
}
END_TEST

/* ---- late, double, unknown ------------------------------------------ */

START_TEST(a_second_verdict_is_stale)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    publish_numbers(&w, NULL, 0, 2);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_ok(sink_settle(&w.sink, 1, OUTBOX_ACK));
    ck_assert_int_eq(sink_settle(&w.sink, 1, OUTBOX_RETRY), OUTBOX_ESTALE);
    ck_assert_int_eq(sink_settle(&w.sink, 1, OUTBOX_REJECT), OUTBOX_ESTALE);
    settle_down(r);
    ck_assert_int_eq(sink_settle(&w.sink, 1, OUTBOX_RETRY), OUTBOX_ESTALE);
    ck_ok(sink_settle(&w.sink, 0, OUTBOX_ACK));
    settle_down(r);
    ck_assert_int_eq(sink_settle(&w.sink, 0, OUTBOX_REJECT), OUTBOX_ESTALE);
    run_for(&w, r, 60000, 5000);
    ck_assert(sink_exactly(&w.sink, 0, 2));
    ck_assert_uint_eq(stats_of(r).acked, 2);
    ck_assert_uint_eq(stats_of(r).dead, 0);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(tokens_that_were_never_given)
{
    world w;
    outbox_token token;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    publish_numbers(&w, NULL, 0, 1);
    r = relay_open(&w, NULL, NULL, NULL);
    token = (outbox_token){ 12345, 1 };
    ck_assert_int_eq(outbox_settle(r, token, OUTBOX_ACK, NULL),
                     OUTBOX_ESTALE);
    settle_down(r);
    ck_assert_int_eq(outbox_settle(r, token, OUTBOX_RETRY, NULL),
                     OUTBOX_ESTALE);
    token = (outbox_token){ -1, -1 };
    ck_assert_int_eq(outbox_settle(r, token, OUTBOX_ACK, NULL),
                     OUTBOX_ESTALE);
    token = sink_at(&w.sink, 0)->token;
    token.serial += 7;
    ck_assert_int_eq(outbox_settle(r, token, OUTBOX_RETRY, NULL),
                     OUTBOX_ESTALE);
    ck_assert_uint_eq(stats_of(r).inflight, 1);
    relay_drop(r);
    world_close(&w);
}
END_TEST

START_TEST(verdicts_that_are_none)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    publish_numbers(&w, NULL, 0, 1);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_assert_int_eq(sink_settle(&w.sink, 0, OUTBOX_PENDING), OUTBOX_EINVAL);
    ck_assert_int_eq(sink_settle(&w.sink, 0, (outbox_verdict)4),
                     OUTBOX_EINVAL);
    ck_ok(sink_settle(&w.sink, 0, OUTBOX_ACK));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

/* An alternating rule: events with an even number are acknowledged at once,
 * so that those that fail are the exception. */
static outbox_verdict pend_the_odd(sink *s, const outbox_event *ev,
                                   outbox_token token, outbox_error *why)
{
    (void)s, (void)token, (void)why;
    return event_number(ev) % 2 ? OUTBOX_PENDING : OUTBOX_ACK;
}

START_TEST(no_verdict_in_time_is_a_retry)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = pend_the_odd;
    opt = relay_options(&w);
    opt.settle_ms = 3000;
    opt.retry_min_ms = opt.retry_max_ms = 100;
    publish_numbers(&w, NULL, 0, 10);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    run_for(&w, r, 2900, 100);
    ck_assert(sink_exactly(&w.sink, 0, 10));
    run_for(&w, r, 1000, 50);
    for (long i = 0; i < 10; i++)
        ck_assert_uint_eq(sink_times(&w.sink, i), i % 2 ? 2 : 1);
    relay_drop(r);
    world_close(&w);
}
END_TEST

START_TEST(a_late_ack_still_counts)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = pend_the_odd;
    opt = relay_options(&w);
    opt.settle_ms = 1000;
    opt.retry_min_ms = opt.retry_max_ms = 200000;
    publish_numbers(&w, NULL, 0, 2);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    vclock_advance(&w.clock, 1001);
    steps(r, 1);                        /* given up; the retry is far away */
    ck_assert_int_eq(sink_settle(&w.sink, 1, OUTBOX_REJECT), OUTBOX_ESTALE);
    ck_assert_int_eq(sink_settle(&w.sink, 1, OUTBOX_RETRY), OUTBOX_ESTALE);
    sink_settle(&w.sink, 1, OUTBOX_ACK);
    run_for(&w, r, 400000, 10000);
    ck_assert_uint_eq(sink_times(&w.sink, 0), 1);
    ck_assert_uint_eq(stats_of(r).dead, 0);
    ck_assert_uint_le(sink_times(&w.sink, 1), 2);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(a_late_ack_ends_a_second_flight)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = pend_the_odd;
    opt = relay_options(&w);
    opt.settle_ms = 1000;
    opt.retry_min_ms = opt.retry_max_ms = 10;
    publish_numbers(&w, NULL, 0, 2);
    r = relay_open(&w, NULL, &opt, NULL);
    settle_down(r);
    run_for(&w, r, 1200, 20);
    ck_assert_uint_eq(sink_times(&w.sink, 1), 2);
    ck_assert_int_ge(sink_settle(&w.sink, 1, OUTBOX_ACK), 0);
    run_for(&w, r, 20000, 100);
    ck_assert_uint_eq(sink_times(&w.sink, 1), 2);
    ck_assert_uint_eq(stats_of(r).inflight, 0);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

/* All flights of an event but its last are refused; that says nothing about
 * the last. */
static void reject_all_but_the_last(sink *s, long number)
{
    size_t n = sink_count(s), times = sink_times(s, number), seen = 0;

    for (size_t i = 0; i < n; i++) {
        if (sink_number(s, i) == number && ++seen < times)
            ck_assert_int_eq(sink_settle(s, i, OUTBOX_REJECT), OUTBOX_ESTALE);
    }
}

/* No verdict comes in time, again and again: at first while nothing passes,
 * which is not counted, then while others pass, which is. */
START_TEST(a_late_reject_does_not_touch_a_later_flight)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = pend_the_odd;
    opt = relay_options(&w);
    opt.settle_ms = 1000;
    opt.retry_min_ms = opt.retry_max_ms = 10;
    publish_numbers(&w, "odd", 1, 1);
    r = relay_open(&w, NULL, &opt, NULL);
    run_for(&w, r, 2500, 20);
    for (long i = 0; i < 150; i++) {
        publish_numbers(&w, NULL, 2 * i, 1);
        run_for(&w, r, 20, 20);
        reject_all_but_the_last(&w.sink, 1);
    }
    ck_assert_uint_ge(sink_times(&w.sink, 1), 5);
    run_for(&w, r, 100, 20);
    ck_assert_uint_eq(stats_of(r).rejected, 0);
    ck_assert_int_eq(w.sut->count(w.db, SUT_DEAD), 0);
    relay_drop(r);
    world_close(&w);
}
END_TEST

/* ---- from many threads ---------------------------------------------- */

typedef struct settler {
    sink  *sink;
    size_t from;
} settler;

static void *settle_a_quarter(void *arg)
{
    settler *t = arg;

    for (size_t i = t->from; i < 1000; i += 4)
        ck_ok(sink_settle(t->sink, i, OUTBOX_ACK));
    return NULL;
}

START_TEST(four_threads_settle_while_it_steps)
{
    world w;
    pthread_t threads[4];
    settler args[4];
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    publish_numbers(&w, NULL, 0, 1000);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_assert_uint_eq(sink_count(&w.sink), 1000);
    for (size_t i = 0; i < 4; i++) {
        args[i] = (settler){ &w.sink, i };
        pthread_create(&threads[i], NULL, settle_a_quarter, &args[i]);
    }
    steps(r, 20);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    settle_down(r);
    ck_assert_uint_eq(stats_of(r).acked, 1000);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

void add_settle_tests(Suite *s)
{
    TCase *tc = suite_case(s, "settle");

    tcase_add_loop_test(tc, keys_are_never_two_in_flight, 0, n_suts);
    tcase_add_loop_test(tc, keys_fly_together_when_the_transport_is_ordered, 0,
                        n_suts);
    tcase_add_loop_test(tc, events_without_a_key_fly_together, 0, n_suts);
    tcase_add_loop_test(tc, settled_before_send_returns, 0, n_suts);
    tcase_add_loop_test(tc, the_first_of_two_verdicts_wins, 0, n_suts);
    tcase_add_loop_test(tc, a_second_verdict_is_stale, 0, n_suts);
    tcase_add_loop_test(tc, tokens_that_were_never_given, 0, n_suts);
    tcase_add_loop_test(tc, verdicts_that_are_none, 0, n_suts);
    tcase_add_loop_test(tc, no_verdict_in_time_is_a_retry, 0, n_suts);
    tcase_add_loop_test(tc, a_late_ack_still_counts, 0, n_suts);
    tcase_add_loop_test(tc, a_late_ack_ends_a_second_flight, 0, n_suts);
    tcase_add_loop_test(tc, a_late_reject_does_not_touch_a_later_flight, 0,
                        n_suts);
    tcase_add_loop_test(tc, four_threads_settle_while_it_steps, 0, n_suts);
}

/* SPDX-License-Identifier: MIT
 *
 * order.c - the order of a key, whatever the verdicts and whenever they come:
 * one at a time without OUTBOX_ORDERED, back to back with it.
 */
#include "kit.h"

#include <string.h>

enum { EVENTS = 90, KEYS = 6, SEEDS = 12, ROUNDS = 3000 };

typedef struct chaos {                  /* verdicts by chance */
    site     t;
    unsigned seed;
    bool     acked[EVENTS];
    long     published;
    /* A destination that keeps order: what it took since the last flush. */
    size_t   queue[ROUNDS];
    size_t   n_queue;
    long     last[KEYS];                /* delivered, per key */
    bool     broken[KEYS];
} chaos;

static unsigned roll(chaos *c, unsigned sides)
{
    c->seed = c->seed * 1103515245 + 12345;
    return (c->seed >> 16) % sides;
}

static void chaos_open(chaos *c, int which, unsigned seed)
{
    memset(c, 0, sizeof *c);
    c->seed = seed;
    site_open(&c->t, which);
    c->t.w.sink.arg = c;
    c->t.opt.max_attempts = 1000000;
    c->t.opt.breaker_failures = 4;
    c->t.opt.breaker_ms = 100;
    c->t.opt.retry_min_ms = 10;
    c->t.opt.retry_max_ms = 200;
    c->t.opt.settle_ms = 300;
    for (int i = 0; i < KEYS; i++)
        c->last[i] = -1;
}

/* The rest is published while these are on their way. */
static void publish_up_to(chaos *c, long n)
{
    for (; c->published < n && c->published < EVENTS; c->published++)
        publish_numbers(&c->t.w, key_of(c->published % KEYS), c->published,
                        1);
}

static bool all_acked(const chaos *c)
{
    int n = 0;

    for (int i = 0; i < EVENTS; i++)
        n += c->acked[i];
    return n == EVENTS;
}

/* Everything before it in its key is acknowledged, or it came too early. */
static outbox_verdict one_at_a_time(sink *s, const outbox_event *ev,
                                    outbox_token token, outbox_error *why)
{
    chaos *c = s->arg;
    long n = event_number(ev);

    (void)why;
    for (long i = n - KEYS; i >= 0; i -= KEYS)
        ck_assert_msg(c->acked[i], "seed %u: %ld sent before %ld passed",
                      c->seed, n, i);
    switch (roll(c, 8)) {
    case 0:
        return OUTBOX_RETRY;
    case 1:
        c->acked[n] = outbox_settle(s->relay, token, OUTBOX_ACK, NULL) == 0;
        return OUTBOX_RETRY;            /* it comes second */
    case 2:
        c->acked[n] = true;
        return OUTBOX_ACK;
    default:
        return OUTBOX_PENDING;
    }
}

/* One verdict on one of the deliveries so far, often a stale one. */
static void settle_something(chaos *c)
{
    sink *s = &c->t.w.sink;
    size_t n = sink_count(s);

    if (n == 0)
        return;
    size_t i = n - 1 - roll(c, n < 20 ? (unsigned)n : 20);
    long number = sink_number(s, i);
    outbox_token token = sink_at(s, i)->token;
    switch (roll(c, 4)) {
    case 0:
        outbox_settle(s->relay, token, OUTBOX_RETRY, "by chance");
        break;
    case 1:
        token.serial += 1 + roll(c, 3);         /* one that is not yet */
        ck_assert_int_ne(outbox_settle(s->relay, (outbox_token){
                             token.position + 1000, token.serial },
                             OUTBOX_ACK, NULL), OUTBOX_OK);
        break;
    default:
        if (outbox_settle(s->relay, token, OUTBOX_ACK, NULL) == OUTBOX_OK)
            c->acked[number] = true;
    }
}

START_TEST(any_verdict_at_any_time)
{
    static chaos c;

    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        chaos_open(&c, _i, seed);
        c.t.w.sink.rule = one_at_a_time;
        publish_up_to(&c, EVENTS / 2);
        site_relay(&c.t);
        for (int i = 0; i < ROUNDS && !all_acked(&c); i++) {
            publish_up_to(&c, EVENTS / 2 + i);
            settle_something(&c);
            vclock_advance(&c.t.w.clock, roll(&c, 20));
            steps(c.t.r, 1);
        }
        ck_assert_msg(all_acked(&c), "seed %u: no end", seed);
        run_for(&c.t.w, c.t.r, 2000, 100);
        ck_assert_uint_eq(database_stats(&c.t.w, NULL).lag, 0);
        ck_assert_int_eq(dead_count(&c.t.w, NULL), 0);
        ck_assert(sink_in_order(&c.t.w.sink));
        site_close(&c.t);
    }
}
END_TEST

/* ---- a destination that keeps order --------------------------------- */

static outbox_verdict queue_it(sink *s, const outbox_event *ev,
                               outbox_token token, outbox_error *why)
{
    chaos *c = s->arg;

    (void)ev, (void)token, (void)why;
    ck_assert_uint_lt(c->n_queue, ROUNDS);
    c->queue[c->n_queue++] = sink_count(s) - 1;
    return OUTBOX_PENDING;
}

static void deliver_queued(chaos *c, size_t i)
{
    sink *s = &c->t.w.sink;
    long n = sink_number(s, i);
    int key = (int)(n % KEYS);

    if (c->broken[key] || roll(c, 6) == 0) {
        c->broken[key] = true;          /* and all that follow of its key */
        outbox_settle(s->relay, sink_at(s, i)->token, OUTBOX_RETRY, "broken");
        return;
    }
    ck_assert_msg(n <= c->last[key] + KEYS, "seed %u: %ld overtakes, after "
                  "%ld", c->seed, n, c->last[key]);
    if (n > c->last[key])
        c->last[key] = n;
    if (outbox_settle(s->relay, sink_at(s, i)->token, OUTBOX_ACK, NULL) == 0)
        c->acked[n] = true;
}

/* A flush: all that was taken, in order; what fails breaks its key until the
 * end of it. */
static void flush_queue(void *ctx)
{
    sink *s = ctx;
    chaos *c = s->arg;

    for (size_t i = 0; i < c->n_queue; i++)
        deliver_queued(c, c->queue[i]);
    c->n_queue = 0;
    memset(c->broken, 0, sizeof c->broken);
}

START_TEST(an_ordered_destination_is_never_overtaken)
{
    static chaos c;

    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        chaos_open(&c, _i, seed);
        c.t.w.sink.rule = queue_it;
        c.t.w.sink.transport.flags = OUTBOX_ORDERED;
        c.t.w.sink.transport.flush = flush_queue;
        c.t.opt.settle_ms = 100000;
        publish_up_to(&c, EVENTS - 20);
        site_relay(&c.t);
        for (int i = 0; i < ROUNDS && !all_acked(&c); i++) {
            publish_up_to(&c, EVENTS - 20 + i);
            vclock_advance(&c.t.w.clock, roll(&c, 20));
            steps(c.t.r, 1);
        }
        ck_assert_msg(all_acked(&c), "seed %u: no end", seed);
        ck_assert_int_eq(dead_count(&c.t.w, NULL), 0);
        site_close(&c.t);
    }
}
END_TEST

/* 1 to 10 of one key, 101 to 110 of another, sent back to back; 4 does not
 * pass.  What of 5 to 10 may be sent now? */
static void fails_in_a_batch(site *t, int which, outbox_verdict verdict,
                             bool settles)
{
    site_open(t, which);
    t->w.sink.transport.flags = OUTBOX_ORDERED;
    t->p.of[4] = verdict;
    t->p.settles[4] = settles;
    publish_numbers(&t->w, "k", 1, 10);
    publish_numbers(&t->w, "other", 101, 10);
    site_relay(t);
    ck_assert(once_in_order(&t->w.sink, 1, 4));
    ck_assert(once_in_order(&t->w.sink, 101, 10));
}

static void nothing_follows(int which, bool settles)
{
    site t;

    fails_in_a_batch(&t, which, OUTBOX_RETRY, settles);
    for (long i = 5; i <= 10; i++)
        ck_assert_uint_eq(sink_times(&t.w.sink, i), 0);
    t.p.of[4] = OUTBOX_ACK;
    sink_forget(&t.w.sink);
    run_for(&t.w, t.r, 1000, 50);
    ck_assert_uint_eq(sink_count(&t.w.sink), 7);
    ck_assert(once_in_order(&t.w.sink, 4, 7));
    ck_assert_int_eq(site_parked(&t), 0);
    site_close(&t);
}

START_TEST(a_sync_retry_in_a_batch_stops_its_key)
{
    nothing_follows(_i, false);
}
END_TEST

START_TEST(a_retry_settled_inside_send_stops_its_key)
{
    nothing_follows(_i, true);
}
END_TEST

START_TEST(a_reject_in_a_batch_stops_its_key)
{
    for (int settles = 0; settles < 2; settles++) {
        site t;

        fails_in_a_batch(&t, _i, OUTBOX_REJECT, settles);
        run_for(&t.w, t.r, 1000, 50);
        for (long i = 5; i <= 10; i++)
            ck_assert_uint_eq(sink_times(&t.w.sink, i), 0);
        ck_assert_int_eq(site_parked(&t), 6);
        ck_assert_int_eq(dead_count(&t.w, NULL), 1);
        site_close(&t);
    }
}
END_TEST

static void put_pending(plan *p, long from, long n, bool pending)
{
    for (long i = from; i < from + n; i++)
        p->pending[i] = pending;
}

/* The third of ten in flight fails, those behind it are failed with it: they
 * do not count as failures of their own, and come again in order. */
START_TEST(those_behind_a_failure_are_not_blamed)
{
    site t;
    outbox_error err;

    site_open(&t, _i);
    t.w.sink.transport.flags = OUTBOX_ORDERED;
    t.opt.max_attempts = 2;
    t.opt.breaker_failures = 3;
    put_pending(&t.p, 1, 10, true);
    publish_numbers(&t.w, "k", 1, 10);
    site_relay(&t);
    ck_assert_uint_eq(sink_count(&t.w.sink), 10);       /* back to back */
    for (size_t i = 0; i < 2; i++)
        ck_ok(sink_settle(&t.w.sink, i, OUTBOX_ACK));
    for (size_t i = 2; i < 10; i++)
        ck_ok(sink_settle(&t.w.sink, i, OUTBOX_RETRY));
    settle_down(t.r);
    ck_assert_int_eq(stats_of(t.r).breaker_open, 0);    /* one has failed */
    publish_numbers(&t.w, NULL, 0, 1);  /* the destination is alive */
    settle_down(t.r);
    ck_ok(outbox_relay_stop(t.r, 1000, &err));
    outbox_relay_free(t.r);
    put_pending(&t.p, 1, 10, false);
    sink_forget(&t.w.sink);
    site_relay(&t);
    run_for(&t.w, t.r, 1000, 50);
    ck_assert_uint_eq(sink_count(&t.w.sink), 8);
    ck_assert(once_in_order(&t.w.sink, 3, 8));
    ck_assert_int_eq(sink_at(&t.w.sink, 0)->event.attempt, 2);
    ck_assert_int_eq(sink_at(&t.w.sink, 7)->event.attempt, 1);
    ck_assert_int_eq(dead_count(&t.w, NULL), 0);
    site_close(&t);
}
END_TEST

static outbox_verdict note_flushes(sink *s, const outbox_event *ev,
                                   outbox_token token, outbox_error *why)
{
    unsigned *flushes = s->arg;

    (void)ev;
    (void)token;
    (void)why;
    *flushes = s->flushes;
    return OUTBOX_ACK;
}

/* A transport that refuses a key until flush, and says so late, would else
 * refuse it for ever: its own flush came before it had said so. */
START_TEST(flush_comes_between_a_late_failure_and_the_next_try)
{
    site t;
    unsigned flushes = 0;

    site_open(&t, _i);
    t.w.sink.transport.flags = OUTBOX_ORDERED;
    put_pending(&t.p, 1, 1, true);
    publish_numbers(&t.w, "k", 1, 1);
    site_relay(&t);
    ck_assert_uint_eq(t.w.sink.flushes, 1);
    ck_ok(sink_settle(&t.w.sink, 0, OUTBOX_RETRY));
    t.w.sink.rule = note_flushes;
    t.w.sink.arg = &flushes;
    run_for(&t.w, t.r, 1000, 50);
    ck_assert_uint_eq(sink_times(&t.w.sink, 1), 2);
    ck_assert_uint_eq(flushes, 2);
    site_close(&t);
}
END_TEST

/* Acknowledged out of order, with the first one missing for long: progress
 * stays before it. */
START_TEST(an_ordered_transport_may_ack_in_any_order)
{
    site t;
    sut_link link;

    site_open(&t, _i);
    t.w.sink.transport.flags = OUTBOX_ORDERED;
    put_pending(&t.p, 1, 10, true);
    publish_numbers(&t.w, "k", 1, 10);
    t.r = relay_open(&t.w, NULL, &t.opt, &link);
    settle_down(t.r);
    for (size_t i = 10; i-- > 3;)
        ck_ok(sink_settle(&t.w.sink, i, OUTBOX_ACK));
    run_for(&t.w, t.r, 500, 50);
    ck_assert_uint_eq(stats_of(t.r).inflight, 3);
    relay_crash(&t.w, t.r, &link);
    put_pending(&t.p, 1, 10, false);
    sink_forget(&t.w.sink);
    t.r = relay_open(&t.w, NULL, &t.opt, NULL);
    run_for(&t.w, t.r, 12000, 250);
    ck_assert(once_in_order(&t.w.sink, 1, 10));
    site_close(&t);
}
END_TEST

/* Verdicts that come when the relay has stopped, or lost the lane, say so and
 * change nothing. */
START_TEST(a_verdict_after_the_end_is_stale)
{
    site t;
    sut_link link;

    site_open(&t, _i);
    put_pending(&t.p, 1, 3, true);
    publish_numbers(&t.w, NULL, 1, 3);
    t.r = relay_open(&t.w, NULL, &t.opt, &link);
    settle_down(t.r);
    outbox_error err;
    ck_assert_int_eq(outbox_relay_stop(t.r, 0, &err), OUTBOX_ETIMEOUT);
    for (size_t i = 0; i < 3; i++)
        ck_assert_int_eq(sink_settle(&t.w.sink, i, OUTBOX_ACK), OUTBOX_ESTALE);
    put_pending(&t.p, 1, 3, false);
    sink_forget(&t.w.sink);
    settle_down(t.r);                   /* a stopped relay may go on */
    ck_assert(sink_exactly(&t.w.sink, 1, 3));
    ck_assert_uint_eq(stats_of(t.r).acked, 3);
    site_close(&t);
}
END_TEST

void add_order_tests(Suite *s)
{
    TCase *tc = suite_case(s, "order");

    tcase_add_loop_test(tc, any_verdict_at_any_time, 0, n_suts);
    tcase_add_loop_test(tc, an_ordered_destination_is_never_overtaken, 0,
                        n_suts);
    tcase_add_loop_test(tc, a_sync_retry_in_a_batch_stops_its_key, 0, n_suts);
    tcase_add_loop_test(tc, a_retry_settled_inside_send_stops_its_key, 0,
                        n_suts);
    tcase_add_loop_test(tc, a_reject_in_a_batch_stops_its_key, 0, n_suts);
    tcase_add_loop_test(tc, those_behind_a_failure_are_not_blamed, 0, n_suts);
    tcase_add_loop_test(tc,
                        flush_comes_between_a_late_failure_and_the_next_try,
                        0, n_suts);
    tcase_add_loop_test(tc, an_ordered_transport_may_ack_in_any_order, 0,
                        n_suts);
    tcase_add_loop_test(tc, a_verdict_after_the_end_is_stale, 0, n_suts);
}

/* SPDX-License-Identifier: MIT
 *
 * fault.c - the database fails at every call in turn, or does what it is
 * asked and loses the answer: no event is lost, no key out of order, and the
 * relay comes to rest.
 *
 * Only the store in memory can be told to fail.
 */
#include "contract.h"

#include "memory/memory_store.h"

#include <stdio.h>
#include <stdlib.h>

enum { EVENTS = 24, CALLS = 12 };

static const int codes[] = { OUTBOX_EBUSY, OUTBOX_EDB, OUTBOX_ESTALE,
                             OUTBOX_ENOMEM };

/* Every fifth event fails until s->arg says that it may pass. */
static outbox_verdict fail_some(sink *s, const outbox_event *ev,
                                outbox_token token, outbox_error *why)
{
    (void)token, (void)why;
    return event_number(ev) % 5 == 3 && *(bool *)s->arg ? OUTBOX_RETRY
                                                          : OUTBOX_ACK;
}

static void publish_mixed(world *w)
{
    outbox_error err;
    char key[8];

    ck_ok(w->sut->begin(w->app));
    for (long i = 0; i < EVENTS; i++) {
        snprintf(key, sizeof key, "%ld", i % 7);
        ck_ok(publish_number(w->ob, i % 3 ? key : NULL, i, &err));
    }
    ck_ok(w->sut->commit(w->app));
}

/* As settle_down and run_for, but steps may fail. */
static void run_through(world *w, outbox_relay_t *r, int64_t ms)
{
    outbox_error err;

    for (int64_t at = 0; at < ms; at += 100) {
        vclock_advance(&w->clock, 100);
        for (int i = 0; i < 6; i++) {
            int rc = outbox_relay_step(r, 0, &err);
            ck_assert_msg(rc > OUTBOX_EINDOUBT - 1, "step: %d", rc);
        }
    }
}

static void with_fault(enum mem_op op, unsigned nth, int code, bool lost)
{
    world w;
    outbox_relay_options opt;
    outbox_relay_t *r;
    bool failing = true;

    world_open(&w, 0);
    w.sink.rule = fail_some;
    w.sink.arg = &failing;
    opt = relay_options(&w);
    opt.retry_min_ms = 50;
    opt.retry_max_ms = 200;
    publish_mixed(&w);
    (lost ? mem_lose_answer : mem_fail)(w.db, op, nth, 2, code);
    r = relay_open(&w, NULL, &opt, NULL);
    run_through(&w, r, 1500);
    publish_numbers(&w, NULL, EVENTS, 1);       /* the destination lives */
    failing = false;
    run_through(&w, r, 15000);
    mem_fail(w.db, op, 0, 0, OUTBOX_OK);        /* it may not have struck */
    ck_assert_msg(sink_at_least(&w.sink, 0, EVENTS + 1),
                  "op %d, call %u, code %d: an event is lost", op, nth, code);
    ck_assert_msg(sink_in_order(&w.sink),
                  "op %d, call %u, code %d: out of order", op, nth, code);
    ck_assert_int_eq(mem_count(w.db, MEM_PARKED_ROWS), 0);
    ck_assert_int_eq(mem_count(w.db, MEM_DEAD_ROWS), 0);
    ck_assert_uint_eq(stats_of(r).inflight, 0);
    outbox_relay_free(r);
    size_t n = sink_count(&w.sink);
    drain_after_crash(&w, &w.sink, &opt);
    ck_assert_msg(sink_count(&w.sink) == n || lost || code != OUTBOX_EBUSY,
                  "op %d, call %u, code %d: sent again", op, nth, code);
    ck_assert(sink_at_least(&w.sink, 0, EVENTS + 1));
    world_close(&w);
}

static const enum mem_op ops[] = { MEM_ATTACH, MEM_BEAT, MEM_ACQUIRE, MEM_READ,
                                   MEM_SAVE, MEM_PARKED, MEM_BLOCKED, MEM_TRIM,
                                   MEM_COUNT, MEM_LEAVE };

START_TEST(each_operation_fails)
{
    for (unsigned nth = 0; nth < CALLS; nth++) {
        for (size_t c = 0; c < sizeof codes / sizeof *codes; c++)
            with_fault(ops[_i], nth, codes[c], false);
    }
}
END_TEST

START_TEST(each_answer_is_lost)
{
    for (unsigned nth = 0; nth < CALLS; nth++) {
        with_fault(ops[_i], nth, OUTBOX_EDB, true);
        with_fault(ops[_i], nth, OUTBOX_EBUSY, true);
    }
}
END_TEST

START_TEST(a_commit_whose_answer_is_lost_is_in_doubt)
{
    world w;
    outbox_error err;
    outbox_event ev = { .size = sizeof ev, .topic = "t", .payload = "7",
                        .payload_len = 1 };
    const outbox_event *at = &ev;

    world_open(&w, 0);
    mem_lose_answer(w.db, MEM_COMMIT, 0, 1, OUTBOX_EINDOUBT);
    ck_ok(w.sut->begin(w.app));
    ck_assert_int_eq(outbox_publish_commit(w.ob, &at, 1, &err),
                     OUTBOX_EINDOUBT);
    ck_assert_int_eq(mem_count(w.db, MEM_LOG), 1);
    mem_fail(w.db, MEM_COMMIT, 0, 1, OUTBOX_EINDOUBT);
    ck_ok(w.sut->begin(w.app));
    ck_assert_int_eq(outbox_publish_commit(w.ob, &at, 1, &err),
                     OUTBOX_EINDOUBT);
    ck_assert_int_eq(mem_count(w.db, MEM_LOG), 1);
    world_close(&w);
}
END_TEST

START_TEST(a_commit_that_fails_leaves_the_transaction)
{
    world w;
    outbox_error err;
    outbox_event ev = { .size = sizeof ev, .topic = "t", .payload = "7",
                        .payload_len = 1 };
    const outbox_event *at = &ev;

    world_open(&w, 0);
    mem_fail(w.db, MEM_COMMIT, 0, 1, OUTBOX_EBUSY);
    ck_ok(w.sut->begin(w.app));
    ck_ok(w.sut->work(w.app));
    ck_assert_int_eq(outbox_publish_commit(w.ob, &at, 1, &err), OUTBOX_EBUSY);
    ck_assert(w.sut->in_transaction(w.app));
    ck_ok(outbox_publish_commit(w.ob, &at, 1, &err));
    ck_assert_int_eq(mem_count(w.db, MEM_LOG), 1);
    ck_assert_int_eq(mem_count(w.db, MEM_WORK), 1);
    world_close(&w);
}
END_TEST

START_TEST(an_append_that_fails_writes_nothing)
{
    world w;
    outbox_error err;

    world_open(&w, 0);
    for (size_t c = 0; c < sizeof codes / sizeof *codes; c++) {
        mem_fail(w.db, MEM_APPEND, 0, 1, codes[c]);
        ck_ok(w.sut->begin(w.app));
        ck_assert_int_eq(publish_number(w.ob, "k", 1, &err), codes[c]);
        ck_ok(publish_number(w.ob, "k", 2, &err));
        ck_ok(w.sut->commit(w.app));
        ck_assert_int_eq(mem_count(w.db, MEM_LOG), (int64_t)c + 1);
    }
    world_close(&w);
}
END_TEST

START_TEST(an_aborted_transaction_is_said_to_be_lost)
{
    world w;
    outbox_error err;
    mem_conn *conn;
    outbox_t *ob;

    world_open(&w, 0);
    conn = mem_conn_new(w.db);
    ck_ok(mem_outbox_open(&ob, conn, NULL, &err));
    mem_begin(conn);
    mem_abort(conn);
    ck_assert_int_eq(publish_number(ob, "k", 1, &err), OUTBOX_EABORTED);
    mem_rollback(conn);
    mem_begin(conn);
    ck_ok(publish_number(ob, "k", 1, &err));
    ck_ok(mem_commit(conn));
    outbox_close(ob);
    mem_conn_free(conn);
    world_close(&w);
}
END_TEST

/* A store that says at once that it is busy is not asked as fast as it can
 * answer: a hundred times take a hundred pauses. */
START_TEST(a_busy_store_is_given_time)
{
    static const enum mem_op at_end[] = { MEM_SAVE, MEM_LEAVE };
    world w;
    outbox_error err;

    world_open(&w, 0);
    publish_mixed(&w);
    outbox_relay_t *r = relay_open(&w, NULL, NULL, NULL);
    mem_fail(w.db, MEM_ATTACH, 0, 100, OUTBOX_EBUSY);
    int64_t before = real_ms();
    ck_ok(outbox_relay_start(r, &err));
    ck_assert_int_ge(real_ms() - before, 90);
    ck_assert(sink_wait(&w.sink, EVENTS, 10000));
    for (size_t i = 0; i < 2; i++)
        mem_fail(w.db, at_end[i], 0, 100, OUTBOX_EBUSY);
    before = real_ms();
    ck_ok(outbox_relay_stop(r, 10000, &err));
    ck_assert_int_ge(real_ms() - before, 180);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

void add_fault_tests(Suite *s)
{
    TCase *tc = suite_case(s, "fault");
    int n = sizeof ops / sizeof *ops;

    tcase_add_loop_test(tc, each_operation_fails, 0, n);
    tcase_add_loop_test(tc, each_answer_is_lost, 0, n);
    tcase_add_test(tc, a_commit_whose_answer_is_lost_is_in_doubt);
    tcase_add_test(tc, a_commit_that_fails_leaves_the_transaction);
    tcase_add_test(tc, an_append_that_fails_writes_nothing);
    tcase_add_test(tc, an_aborted_transaction_is_said_to_be_lost);
    tcase_add_test(tc, a_busy_store_is_given_time);
}

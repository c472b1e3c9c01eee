/* SPDX-License-Identifier: MIT
 *
 * retry.c - events that fail while others pass: backoff, parking, the dead.
 */
#include "kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Numbers of 1000 and more fail as s->arg says; the rest pass. */
static outbox_verdict fail_the_big(sink *s, const outbox_event *ev,
                                   outbox_token token, outbox_error *why)
{
    (void)token;
    if (event_number(ev) < 1000)
        return OUTBOX_ACK;
    if (why != NULL)
        snprintf(why->text, sizeof why->text, "too big");
    return *(outbox_verdict *)s->arg;
}

typedef struct failing {                /* a world in which some fail */
    world                w;
    outbox_verdict       verdict;       /* of the big ones */
    outbox_relay_options opt;
    outbox_relay_t      *r;
    long                 small;         /* the next that will pass */
} failing;

static void failing_open(failing *f, int which)
{
    world_open(&f->w, which);
    f->verdict = OUTBOX_RETRY;
    f->small = 0;
    f->w.sink.rule = fail_the_big;
    f->w.sink.arg = &f->verdict;
    f->opt = relay_options(&f->w);
    f->opt.retry_min_ms = 100;
    f->opt.retry_max_ms = 1000;
}

/* Let ms pass, in which others pass all the time, so that the destination is
 * plainly alive. */
static void failing_run(failing *f, int64_t ms)
{
    if (f->r == NULL)
        f->r = relay_open(&f->w, NULL, &f->opt, NULL);
    settle_down(f->r);
    for (int64_t at = 0; at < ms; at += 50) {
        publish_numbers(&f->w, NULL, f->small++ % 100, 1);
        run_for(&f->w, f->r, 50, 50);
    }
}

static void failing_close(failing *f)
{
    outbox_relay_free(f->r);
    world_close(&f->w);
}

static size_t last_of(sink *s, long number)
{
    size_t i = sink_count(s);

    while (i > 0 && sink_number(s, i - 1) != number)
        i--;
    ck_assert_uint_gt(i, 0);
    return i - 1;
}

START_TEST(it_is_tried_again_and_passes)
{
    failing f = { .r = NULL };

    failing_open(&f, _i);
    publish_numbers(&f.w, "bad", 1000, 1);
    failing_run(&f, 3000);
    ck_assert_uint_ge(sink_times(&f.w.sink, 1000), 2);
    f.verdict = OUTBOX_ACK;
    failing_run(&f, 3000);
    size_t times = sink_times(&f.w.sink, 1000);
    failing_run(&f, 10000);
    ck_assert_uint_eq(sink_times(&f.w.sink, 1000), times);
    ck_assert_uint_eq(stats_of(f.r).dead, 0);
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_PARKED), 0);
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_DEAD), 0);
    failing_close(&f);
}
END_TEST

START_TEST(other_keys_go_on)
{
    failing f = { .r = NULL };

    failing_open(&f, _i);
    publish_numbers(&f.w, "bad", 1000, 1);
    publish_numbers(&f.w, "good", 100, 50);
    failing_run(&f, 500);
    for (long i = 100; i < 150; i++)
        ck_assert_uint_eq(sink_times(&f.w.sink, i), 1);
    failing_close(&f);
}
END_TEST

START_TEST(later_events_of_its_key_wait)
{
    failing f = { .r = NULL };

    failing_open(&f, _i);
    publish_numbers(&f.w, "bad", 1000, 1);
    publish_numbers(&f.w, "bad", 100, 5);
    failing_run(&f, 3000);
    publish_numbers(&f.w, "bad", 105, 5);       /* and what comes afterwards */
    failing_run(&f, 3000);
    for (long i = 100; i < 110; i++)
        ck_assert_uint_eq(sink_times(&f.w.sink, i), 0);
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_PARKED), 11);
    ck_assert_uint_eq(stats_of(f.r).blocked_keys, 1);
    f.verdict = OUTBOX_ACK;
    failing_run(&f, 3000);
    size_t at = last_of(&f.w.sink, 1000);
    for (long i = 100; i < 110; i++) {
        ck_assert_uint_eq(sink_times(&f.w.sink, i), 1);
        ck_assert_uint_gt(last_of(&f.w.sink, i), at);
        at = last_of(&f.w.sink, i);
    }
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_PARKED), 0);
    publish_numbers(&f.w, "bad", 110, 1);       /* the key is free again */
    failing_run(&f, 500);
    ck_assert_uint_eq(sink_times(&f.w.sink, 110), 1);
    failing_close(&f);
}
END_TEST

START_TEST(after_max_attempts_it_is_dead)
{
    failing f = { .r = NULL };

    failing_open(&f, _i);
    f.opt.max_attempts = 4;
    publish_numbers(&f.w, "bad", 1000, 1);
    failing_run(&f, 20000);
    size_t times = sink_times(&f.w.sink, 1000);
    ck_assert_uint_ge(times, 4);
    ck_assert_uint_le(times, 8);        /* some may not count */
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_DEAD), 1);
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_PARKED), 0);
    ck_assert_uint_eq(stats_of(f.r).dead, 1);
    failing_run(&f, 20000);
    ck_assert_uint_eq(sink_times(&f.w.sink, 1000), times);
    failing_close(&f);
}
END_TEST

/* Of a transport that hands on what its broker said. */
static void answers(int which, int answer)
{
    failing f = { .r = NULL };
    char words[40];
    letter l[2];

    snprintf(words, sizeof words, "answered %d, which is no verdict", answer);
    failing_open(&f, which);
    f.verdict = (outbox_verdict)answer;
    f.opt.max_attempts = 4;
    publish_numbers(&f.w, "k", 1000, 1);
    failing_run(&f, 20000);
    ck_assert_uint_ge(sink_times(&f.w.sink, 1000), 4);
    ck_assert_int_eq(letters_of(&f.w, NULL, l, 2), 1);
    ck_assert_msg(strstr(l[0].why, words) != NULL, "%s", l[0].why);
    ck_assert_uint_eq(stats_of(f.r).rejected, 0);
    failing_close(&f);
}

START_TEST(an_answer_that_is_no_verdict_is_a_retry)
{
    answers(_i, 4);
    answers(_i, 42);
}
END_TEST

START_TEST(attempts_are_numbered)
{
    failing f = { .r = NULL };
    int32_t last = 0;
    int64_t serial = 0;

    failing_open(&f, _i);
    publish_numbers(&f.w, "bad", 1000, 1);
    f.r = relay_open(&f.w, NULL, &f.opt, NULL);
    run_for(&f.w, f.r, 500, 20);        /* alone: these are not counted */
    failing_run(&f, 5000);
    for (size_t i = 0; i < sink_count(&f.w.sink); i++) {
        const sent *s = sink_at(&f.w.sink, i);
        if (sink_number(&f.w.sink, i) != 1000)
            continue;
        if (last == 0)
            ck_assert_int_eq(s->event.attempt, 1);
        else
            ck_assert_int_ge(s->event.attempt, 2);
        ck_assert_int_gt(s->token.serial, serial);
        serial = s->token.serial;
        ck_assert_int_eq(s->token.position, s->event.position);
        last = s->event.attempt;
    }
    ck_assert_int_ge(last, 3);
    failing_close(&f);
}
END_TEST

START_TEST(a_rejected_one_is_dead_at_once)
{
    failing f = { .r = NULL };

    failing_open(&f, _i);
    f.verdict = OUTBOX_REJECT;
    publish_numbers(&f.w, "bad", 1000, 1);
    failing_run(&f, 5000);
    ck_assert_uint_eq(sink_times(&f.w.sink, 1000), 1);
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_DEAD), 1);
    ck_assert_uint_eq(stats_of(f.r).rejected, 1);
    ck_assert_uint_eq(stats_of(f.r).dead, 1);
    failing_close(&f);
}
END_TEST

START_TEST(a_dead_one_blocks_its_key)
{
    failing f = { .r = NULL };
    outbox_error err;

    failing_open(&f, _i);
    f.verdict = OUTBOX_REJECT;
    publish_numbers(&f.w, "bad", 1000, 1);
    publish_numbers(&f.w, "bad", 100, 3);
    failing_run(&f, 5000);
    ck_ok(outbox_relay_stop(f.r, 1000, &err));
    outbox_relay_free(f.r);
    f.r = NULL;                         /* a fresh relay knows it, too */
    publish_numbers(&f.w, "bad", 103, 3);
    failing_run(&f, 5000);
    for (long i = 100; i < 106; i++)
        ck_assert_uint_eq(sink_times(&f.w.sink, i), 0);
    ck_assert_uint_eq(sink_times(&f.w.sink, 1000), 1);
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_PARKED), 6);
    ck_assert_uint_eq(stats_of(f.r).blocked_keys, 1);
    failing_close(&f);
}
END_TEST

START_TEST(a_dead_one_is_skipped_if_so_wished)
{
    failing f = { .r = NULL };

    failing_open(&f, _i);
    f.verdict = OUTBOX_REJECT;
    f.opt.on_dead = OUTBOX_DEAD_SKIPS;
    publish_numbers(&f.w, "bad", 1000, 1);
    publish_numbers(&f.w, "bad", 100, 3);
    failing_run(&f, 5000);
    ck_assert_uint_eq(sink_times(&f.w.sink, 1000), 1);
    for (long i = 100; i < 103; i++)
        ck_assert_uint_eq(sink_times(&f.w.sink, i), 1);
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_DEAD), 1);
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_PARKED), 0);
    failing_close(&f);
}
END_TEST

START_TEST(one_that_dies_parked_lets_the_rest_pass)
{
    failing f = { .r = NULL };

    failing_open(&f, _i);
    f.opt.max_attempts = 3;
    f.opt.on_dead = OUTBOX_DEAD_SKIPS;
    publish_numbers(&f.w, "bad", 1000, 1);
    publish_numbers(&f.w, "bad", 100, 5);
    failing_run(&f, 20000);
    for (long i = 100; i < 105; i++)
        ck_assert_uint_eq(sink_times(&f.w.sink, i), 1);
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_DEAD), 1);
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_PARKED), 0);
    failing_close(&f);
}
END_TEST

START_TEST(a_key_fails_twice_in_a_row)
{
    failing f = { .r = NULL };

    failing_open(&f, _i);
    publish_numbers(&f.w, "bad", 1000, 2);
    publish_numbers(&f.w, "bad", 100, 1);
    failing_run(&f, 5000);
    ck_assert_uint_eq(sink_times(&f.w.sink, 1001), 0);
    f.verdict = OUTBOX_ACK;
    failing_run(&f, 5000);
    ck_assert_uint_eq(sink_times(&f.w.sink, 1001), 1);
    ck_assert_uint_eq(sink_times(&f.w.sink, 100), 1);
    ck_assert_uint_gt(last_of(&f.w.sink, 1001), last_of(&f.w.sink, 1000));
    ck_assert_uint_gt(last_of(&f.w.sink, 100), last_of(&f.w.sink, 1001));
    failing_close(&f);
}
END_TEST

START_TEST(parked_events_survive_a_crash)
{
    failing f = { .r = NULL };
    sut_link link;

    failing_open(&f, _i);
    publish_numbers(&f.w, "bad", 1000, 1);
    publish_numbers(&f.w, "bad", 100, 3);
    f.r = relay_open(&f.w, NULL, &f.opt, &link);
    failing_run(&f, 3000);
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_PARKED), 4);
    relay_crash(&f.w, f.r, &link);
    f.verdict = OUTBOX_ACK;
    f.r = NULL;
    failing_run(&f, 30000);             /* the lease, and the backoff */
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_PARKED), 0);
    ck_assert_uint_gt(last_of(&f.w.sink, 100), last_of(&f.w.sink, 1000));
    for (long i = 100; i < 103; i++)
        ck_assert_uint_eq(sink_times(&f.w.sink, i), 1);
    ck_assert(last_of(&f.w.sink, 102) > last_of(&f.w.sink, 101)
              && last_of(&f.w.sink, 101) > last_of(&f.w.sink, 100));
    failing_close(&f);
}
END_TEST

START_TEST(parked_events_are_delivered_whole)
{
    static const outbox_header h[] = { { "a", "1" }, { "b", "" } };
    outbox_event ev = { .size = sizeof ev, .topic = "t", .type = "ty",
                        .key = "bad", .content_type = "x/y",
                        .payload = "1000\0\xff", .payload_len = 6,
                        .headers = h, .n_headers = 2 };
    failing f = { .r = NULL };
    outbox_error err;
    char id[40];

    failing_open(&f, _i);
    ck_ok(f.w.sut->begin(f.w.app));
    ck_ok(outbox_publish(f.w.ob, &ev, &err));
    strcpy(id, outbox_last_id(f.w.ob));
    ck_ok(f.w.sut->commit(f.w.app));
    failing_run(&f, 3000);
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_PARKED), 1);
    const outbox_event *first = &sink_at(&f.w.sink, 0)->event;
    const outbox_event *got =
        &sink_at(&f.w.sink, last_of(&f.w.sink, 1000))->event;
    ck_assert_int_gt(got->attempt, first->attempt);
    ck_assert_str_eq(got->topic, "t");
    ck_assert_str_eq(got->type, "ty");
    ck_assert_str_eq(got->key, "bad");
    ck_assert_str_eq(got->content_type, "x/y");
    ck_assert_str_eq(got->id, id);
    ck_assert_uint_eq(got->payload_len, 6);
    ck_assert_mem_eq(got->payload, "1000\0\xff", 6);
    ck_assert_uint_eq(got->n_headers, 2);
    ck_assert_str_eq(got->headers[1].name, "b");
    ck_assert_int_eq(got->position, first->position);
    ck_assert_int_eq(got->published_ms, first->published_ms);
    failing_close(&f);
}
END_TEST

/* Forty keys fail on and on.  The time between the tries of each grows, and
 * is not the same for all. */
START_TEST(the_backoff_grows_and_differs)
{
    failing f = { .r = NULL };
    outbox_error err;
    char key[16];
    size_t early, late;

    failing_open(&f, _i);
    f.opt.retry_min_ms = 100;
    f.opt.retry_max_ms = 100000;
    f.opt.breaker_failures = 1000;
    ck_ok(f.w.sut->begin(f.w.app));
    for (long i = 0; i < 40; i++) {
        snprintf(key, sizeof key, "bad %ld", i);
        ck_ok(publish_number(f.w.ob, key, 1000 + i, &err));
    }
    ck_ok(f.w.sut->commit(f.w.app));
    failing_run(&f, 2000);
    early = sink_count(&f.w.sink) - (size_t)f.small;
    failing_run(&f, 10000);
    size_t before = sink_count(&f.w.sink), small = (size_t)f.small;
    failing_run(&f, 2000);
    late = sink_count(&f.w.sink) - before - ((size_t)f.small - small);
    ck_assert_uint_ge(early, 120);      /* with 100 ms at first: some tries */
    ck_assert_uint_lt(late, early / 3);
    size_t least = SIZE_MAX, most = 0;
    for (long i = 0; i < 40; i++) {
        size_t at = last_of(&f.w.sink, 1000 + i);
        least = at < least ? at : least;
        most = at > most ? at : most;
    }
    ck_assert_uint_gt(most - least, 40);        /* not all in one burst */
    failing_close(&f);
}
END_TEST

START_TEST(an_ordered_transport_fails_those_behind)
{
    failing f = { .r = NULL };

    failing_open(&f, _i);
    f.w.sink.transport.flags = OUTBOX_ORDERED;
    publish_numbers(&f.w, "bad", 1000, 4);
    failing_run(&f, 5000);
    f.verdict = OUTBOX_ACK;
    sink_forget(&f.w.sink);
    failing_run(&f, 10000);
    for (long i = 1000; i < 1004; i++)
        ck_assert_uint_ge(sink_times(&f.w.sink, i), 1);
    for (long i = 1001; i < 1004; i++)
        ck_assert_uint_gt(last_of(&f.w.sink, i), last_of(&f.w.sink, i - 1));
    ck_assert_int_eq(f.w.sut->count(f.w.db, SUT_PARKED), 0);
    failing_close(&f);
}
END_TEST

START_TEST(asynchronous_failures_are_the_same)
{
    failing f = { .r = NULL };

    failing_open(&f, _i);
    f.verdict = OUTBOX_PENDING;
    publish_numbers(&f.w, "bad", 1000, 1);
    publish_numbers(&f.w, "bad", 100, 2);
    failing_run(&f, 500);
    ck_ok(sink_settle(&f.w.sink, last_of(&f.w.sink, 1000), OUTBOX_RETRY));
    failing_run(&f, 3000);
    ck_assert_uint_ge(sink_times(&f.w.sink, 1000), 2);
    ck_assert_uint_eq(sink_times(&f.w.sink, 100), 0);
    ck_ok(sink_settle(&f.w.sink, last_of(&f.w.sink, 1000), OUTBOX_ACK));
    failing_run(&f, 1000);
    ck_assert_uint_eq(sink_times(&f.w.sink, 100), 1);
    ck_assert_uint_eq(sink_times(&f.w.sink, 101), 1);
    failing_close(&f);
}
END_TEST

void add_retry_tests(Suite *s)
{
    TCase *tc = suite_case(s, "retry");

    tcase_add_loop_test(tc, it_is_tried_again_and_passes, 0, n_suts);
    tcase_add_loop_test(tc, other_keys_go_on, 0, n_suts);
    tcase_add_loop_test(tc, later_events_of_its_key_wait, 0, n_suts);
    tcase_add_loop_test(tc, after_max_attempts_it_is_dead, 0, n_suts);
    tcase_add_loop_test(tc, an_answer_that_is_no_verdict_is_a_retry, 0,
                        n_suts);
    tcase_add_loop_test(tc, attempts_are_numbered, 0, n_suts);
    tcase_add_loop_test(tc, a_rejected_one_is_dead_at_once, 0, n_suts);
    tcase_add_loop_test(tc, a_dead_one_blocks_its_key, 0, n_suts);
    tcase_add_loop_test(tc, a_dead_one_is_skipped_if_so_wished, 0, n_suts);
    tcase_add_loop_test(tc, one_that_dies_parked_lets_the_rest_pass, 0,
                        n_suts);
    tcase_add_loop_test(tc, a_key_fails_twice_in_a_row, 0, n_suts);
    tcase_add_loop_test(tc, parked_events_survive_a_crash, 0, n_suts);
    tcase_add_loop_test(tc, parked_events_are_delivered_whole, 0, n_suts);
    tcase_add_loop_test(tc, the_backoff_grows_and_differs, 0, n_suts);
    tcase_add_loop_test(tc, an_ordered_transport_fails_those_behind, 0,
                        n_suts);
    tcase_add_loop_test(tc, asynchronous_failures_are_the_same, 0, n_suts);
}

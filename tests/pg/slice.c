/* SPDX-License-Identifier: MIT
 *
 * slice.c - a window with more events than can be had at once, for there is a
 * very long transaction in it, is read in slices by position.
 */
#include "pg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONG = 20000, LONG_PAYLOAD = 20000 };

/* Event from + i is the nth of those between from and from + n: each once, in
 * order, whatever comes between them. */
static void ck_run(world *w, long from, long n)
{
    long next = from;

    for (size_t i = 0; i < sink_count(&w->sink); i++) {
        long number = sink_number(&w->sink, i);
        if (number < from || number >= from + n)
            continue;
        ck_assert_int_eq(number, next);
        next++;
    }
    ck_assert_int_eq(next, from + n);
}

/* Of many keys, and so of all lanes. */
static void publish_spread(writer *a, long from, long n)
{
    char key[24];

    for (long at = from; at < from + n; at += 500) {
        snprintf(key, sizeof key, "key-%ld", at);
        writer_publish_many(a, key, at, 500);
    }
}

/* One transaction was open before the window, one began within it; short ones
 * of the same key are before, between and behind their events. */
START_TEST(very_long_transactions)
{
    world w;
    writer a, b, c;

    world_open(&w, WHICH);
    writer_open(&a, &w, NULL, 0);
    writer_open(&b, &w, NULL, 0);
    writer_open(&c, &w, NULL, 0);
    outbox_relay_t *r = relay_at_rest(&w, NULL);
    writer_do(&a, "BEGIN; INSERT INTO work VALUES (1)");
    writer_commit_one(&c, "k", 1);
    settle_down(r);                     /* a window without a's */
    writer_do(&b, "BEGIN");
    for (long i = 0; i < LONG; i += 1000) {
        publish_spread(&a, 100000 + i, 1000);
        writer_publish_many(&b, "b", 200000 + i, 1000);
        writer_commit_one(&c, "k", 2 + i / 1000);
    }
    writer_publish(&a, "k", 2 + LONG / 1000);
    writer_do(&b, "COMMIT");
    writer_do(&a, "COMMIT");
    writer_commit_one(&c, "k", 3 + LONG / 1000);
    settle_down(r);
    ck_run(&w, 1, 3 + LONG / 1000);
    ck_run(&w, 200000, LONG);
    for (long i = 0; i < LONG; i += 500)
        ck_run(&w, 100000 + i, 500);
    ck_assert_uint_eq(sink_count(&w.sink), 2 * LONG + 3 + LONG / 1000);
    relay_drop(r);
    writer_close(&a);
    writer_close(&b);
    writer_close(&c);
    world_close(&w);
}
END_TEST

/* The next relay begins within the window. */
START_TEST(a_relay_stops_within_a_slice)
{
    world w;
    writer a;
    outbox_error err;

    world_open(&w, WHICH);
    writer_open(&a, &w, NULL, 0);
    outbox_relay_t *r = relay_at_rest(&w, NULL);
    writer_do(&a, "BEGIN");
    writer_publish_many(&a, "a", 0, LONG);
    writer_do(&a, "COMMIT");
    for (int i = 0; i < 200 && sink_count(&w.sink) < LONG / 2; i++)
        ck_assert_int_ge(outbox_relay_step(r, 0, &err), 0);
    ck_assert_uint_ge(sink_count(&w.sink), LONG / 2);
    ck_assert_uint_lt(sink_count(&w.sink), LONG);
    relay_drop(r);
    r = relay_at_rest(&w, NULL);
    ck_assert(sink_in_order(&w.sink));
    for (size_t i = 0, next = 0; next < LONG; i++) {
        ck_assert_uint_lt(i, sink_count(&w.sink));
        next += sink_number(&w.sink, i) == (long)next;
    }
    ck_assert_uint_lt(sink_count(&w.sink), LONG + LONG / 2);
    relay_drop(r);
    writer_close(&a);
    world_close(&w);
}
END_TEST

static void publish_long(writer *a, long number)
{
    char *text = malloc(LONG_PAYLOAD);
    outbox_event ev = { .size = sizeof ev, .topic = "numbers", .key = "a",
                        .payload = text, .payload_len = LONG_PAYLOAD };
    outbox_error err;

    memset(text, ' ', LONG_PAYLOAD);
    snprintf(text, 24, "%ld", number);
    ck_ok(outbox_publish(a->ob, &ev, &err));
    free(text);
}

START_TEST(long_payloads_within_a_long_transaction)
{
    world w;
    writer a;

    world_open(&w, WHICH);
    writer_open(&a, &w, NULL, 0);
    outbox_relay_t *r = relay_at_rest(&w, NULL);
    writer_do(&a, "BEGIN");
    writer_publish_many(&a, "a", 0, LONG - 1000);
    for (long i = LONG - 1000; i < LONG - 500; i++)
        publish_long(&a, i);
    writer_publish_many(&a, "a", LONG - 500, 500);
    writer_do(&a, "COMMIT");
    settle_down(r);
    ck_run(&w, 0, LONG);
    ck_assert_uint_eq(sink_count(&w.sink), LONG);
    for (size_t i = LONG - 1000; i < LONG - 500; i++)
        ck_assert_uint_eq(sink_at(&w.sink, i)->event.payload_len,
                          LONG_PAYLOAD);
    relay_drop(r);
    writer_close(&a);
    world_close(&w);
}
END_TEST

void add_slice_tests(Suite *s)
{
    TCase *tc = suite_case(s, "slice");

    tcase_add_test(tc, very_long_transactions);
    tcase_add_test(tc, a_relay_stops_within_a_slice);
    tcase_add_test(tc, long_payloads_within_a_long_transaction);
}

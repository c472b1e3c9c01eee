/* SPDX-License-Identifier: MIT
 *
 * filter.c - which topics a subscription is given, and lists of topics that
 * are refused because they could not mean anything.
 */
#include "kit.h"

#include <stdio.h>
#include <string.h>

static const char *const topics[] = {
    "orders", "orders.paid", "orders.", "ordersx", "order", "billing",
    "billing.card", "billing.card.refused", "Orders", "o", "x",
    "caf\xc3\xa9",
};

enum { TOPICS = sizeof topics / sizeof *topics };

/* The relay gets those whose letter in wanted is 1, once, and moves on past
 * the others for good. */
static void filters(int which, const char *list, const char *wanted)
{
    site t;

    site_open(&t, which);
    t.opt.topics = list;
    for (long i = 0; i < TOPICS; i++)
        publish_topic(&t.w, topics[i], i + 1);
    site_relay(&t);
    time_pass(&t.w, t.r, 1500, 100);
    for (long i = 0; i < TOPICS; i++)
        ck_assert_msg(sink_times(&t.w.sink, i + 1)
                      == (size_t)(wanted[i] == '1'), "\"%s\" and %s: %zu",
                      list, topics[i], sink_times(&t.w.sink, i + 1));
    ck_assert_uint_eq(database_stats(&t.w, NULL).lag, 0);
    ck_log_left(&t.w, 1);
    site_close(&t);
}

START_TEST(exact)
{
    filters(_i, "orders", "100000000000");
    filters(_i, "caf\xc3\xa9", "000000000001");
    filters(_i, "nothing.of.this", "000000000000");
}
END_TEST

START_TEST(a_star_at_the_end)
{
    filters(_i, "orders.*", "011000000000");
    filters(_i, "orders*", "111100000000");
    filters(_i, "*", "111111111111");
    filters(_i, "billing.card*", "000000110000");
}
END_TEST

START_TEST(several)
{
    filters(_i, "orders,billing.*", "100000110000");
    filters(_i, "x,o,order", "000010000110");
    filters(_i, "orders,orders,orders*", "111100000000");
}
END_TEST

START_TEST(no_list_means_all)
{
    filters(_i, NULL, "111111111111");
}
END_TEST

/* As long as a topic may be, alone and with the star behind it. */
START_TEST(a_topic_of_full_length)
{
    char topic[OUTBOX_MAX_TEXT_BYTES + 1], list[OUTBOX_MAX_TEXT_BYTES + 2];

    memset(topic, 'x', sizeof topic - 1);
    topic[sizeof topic - 1] = '\0';
    for (int star = 0; star < 2; star++) {
        site t;

        site_open(&t, _i);
        snprintf(list, sizeof list, "%s%s", topic, star ? "*" : "");
        t.opt.topics = list;
        publish_topic(&t.w, topic, 1);
        publish_topic(&t.w, "x", 2);
        site_relay(&t);
        ck_assert(sink_exactly(&t.w.sink, 1, 1));
        site_close(&t);
    }
}
END_TEST

/* The library keeps its own copy. */
START_TEST(the_list_may_go)
{
    site t;
    char list[] = "orders,x";

    site_open(&t, _i);
    t.opt.topics = list;
    t.r = relay_open(&t.w, NULL, &t.opt, NULL);
    memset(list, '?', sizeof list - 1);
    for (long i = 0; i < TOPICS; i++)
        publish_topic(&t.w, topics[i], i + 1);
    settle_down(t.r);
    ck_assert_uint_eq(sink_count(&t.w.sink), 2);
    site_close(&t);
}
END_TEST

/* Long stretches of what is not wanted: they are passed over, not kept. */
START_TEST(little_among_much)
{
    site t;
    outbox_error err;

    site_open(&t, _i);
    t.opt.topics = "wanted";
    t.opt.batch = 50;
    t.opt.max_inflight = 20;
    ck_ok(t.w.sut->begin(t.w.app));
    for (long i = 0; i < 1900; i++) {
        outbox_event ev = numbered("k", i);
        ev.topic = i % 500 == 7 ? "wanted" : "other";
        ck_ok(outbox_publish(t.w.ob, &ev, &err));
    }
    ck_ok(t.w.sut->commit(t.w.app));
    site_relay(&t);
    steps(t.r, 150);                    /* most of which settle nothing */
    ck_assert_uint_eq(sink_count(&t.w.sink), 4);
    for (size_t i = 0; i < 4; i++)
        ck_assert_int_eq(sink_number(&t.w.sink, i), 500 * (long)i + 7);
    run_for(&t.w, t.r, 500, 50);
    ck_assert_uint_eq(database_stats(&t.w, NULL).lag, 0);
    site_close(&t);
}
END_TEST

/* What is not wanted does not wait behind a parked key, nor is it parked. */
START_TEST(what_is_not_wanted_is_not_parked)
{
    site t;

    site_open(&t, _i);
    t.opt.topics = "numbers";
    t.opt.max_attempts = 1000;
    t.p.of[1] = OUTBOX_RETRY;
    publish_numbers(&t.w, "k", 1, 2);
    site_relay(&t);
    run_among_others(&t.w, t.r, 500, 50);
    outbox_event ev = numbered("k", 3);
    ev.topic = "other";
    publish_event(&t.w, &ev);
    run_among_others(&t.w, t.r, 500, 50);
    ck_assert_int_eq(site_parked(&t), 2);
    site_close(&t);
}
END_TEST

START_TEST(lists_that_are_refused)
{
    static const char *const bad[] = {
        "", ",", ",orders", "orders,", "orders,,billing", "*orders", "a*b",
        "**", "orders.*.paid", "orders, billing", " orders", "orders ",
        "a\tb", "a\nb", "a\x7f", "\x01", "caf\xe9", "orders,caf\xe9",
    };
    site t;
    outbox_error err;
    outbox_t *ob;

    site_open(&t, _i);
    ck_ok(t.w.sut->connect(&ob, t.w.db, NULL, NULL, &err));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        outbox_relay_t *r = (void *)&t;
        t.opt.topics = bad[i];
        ck_refused(outbox_relay_new(&r, ob, &t.w.sink.transport, &t.opt, &err),
                   OUTBOX_EINVAL, "topics", "");
        ck_assert_ptr_null(r);
    }
    outbox_close(ob);
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_SUBSCRIPTIONS), 0);
    ck_assert_uint_eq(t.w.sink.opens, 0);
    site_close(&t);
}
END_TEST

/* One byte more than a topic may have: it could not match. */
START_TEST(an_entry_that_is_too_long_is_refused)
{
    static char list[OUTBOX_MAX_TEXT_BYTES + 3];
    site t;
    outbox_error err;
    outbox_t *ob;
    outbox_relay_t *r = NULL;

    site_open(&t, _i);
    memset(list, 'x', OUTBOX_MAX_TEXT_BYTES + 1);
    t.opt.topics = list;
    ck_ok(t.w.sut->connect(&ob, t.w.db, NULL, NULL, &err));
    ck_refused(outbox_relay_new(&r, ob, &t.w.sink.transport, &t.opt, &err),
               OUTBOX_EINVAL, "topics", "1024");
    list[OUTBOX_MAX_TEXT_BYTES + 1] = '*';
    ck_refused(outbox_relay_new(&r, ob, &t.w.sink.transport, &t.opt, &err),
               OUTBOX_EINVAL, "topics", "1024");
    outbox_close(ob);
    site_close(&t);
}
END_TEST

void add_filter_tests(Suite *s)
{
    TCase *tc = suite_case(s, "filter");

    tcase_add_loop_test(tc, exact, 0, n_suts);
    tcase_add_loop_test(tc, a_star_at_the_end, 0, n_suts);
    tcase_add_loop_test(tc, several, 0, n_suts);
    tcase_add_loop_test(tc, no_list_means_all, 0, n_suts);
    tcase_add_loop_test(tc, a_topic_of_full_length, 0, n_suts);
    tcase_add_loop_test(tc, the_list_may_go, 0, n_suts);
    tcase_add_loop_test(tc, little_among_much, 0, n_suts);
    tcase_add_loop_test(tc, what_is_not_wanted_is_not_parked, 0, n_suts);
    tcase_add_loop_test(tc, lists_that_are_refused, 0, n_suts);
    tcase_add_loop_test(tc, an_entry_that_is_too_long_is_refused, 0, n_suts);
}

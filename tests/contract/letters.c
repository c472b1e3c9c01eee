/* SPDX-License-Identifier: MIT
 *
 * letters.c - the dead, and what a person decides about them: look, revive,
 * discard; and what is unknown to them.
 */
#include "kit.h"

#include <stdio.h>
#include <string.h>

static const char unknown_id[] = "0190c2a8-7b1c-7cc3-98c4-dc0c0c07398f";

/* ---- dead letters --------------------------------------------------- */

START_TEST(a_letter_tells_everything)
{
    static const outbox_header h[] = { { "traceparent", "00-ab-cd-01" },
                                       { "b", "" } };
    site t;
    letter l[2];
    outbox_event ev = numbered("some key", 7);

    site_open(&t, _i);
    ev.topic = "bills";
    ev.type = "bill.sent";
    ev.content_type = "text/plain";
    ev.id = unknown_id;
    ev.headers = h;
    ev.n_headers = 2;
    ev.expires_ms = wall_ms() + 1000000;
    publish_event(&t.w, &ev);
    t.p.of[7] = OUTBOX_REJECT;
    wall_pass(&t.w, 500);
    site_relay(&t);
    ck_assert_int_eq(letters_of(&t.w, NULL, l, 2), 1);
    ck_assert_str_eq(l[0].id, unknown_id);
    ck_assert_str_eq(l[0].topic, "bills");
    ck_assert_str_eq(l[0].type, "bill.sent");
    ck_assert_str_eq(l[0].key, "some key");
    ck_assert_str_eq(l[0].content_type, "text/plain");
    ck_assert_uint_eq(l[0].n_headers, 2);
    ck_assert_str_eq(l[0].header, "traceparent: 00-ab-cd-01");
    ck_assert_int_eq(l[0].number, 7);
    ck_assert_int_eq(l[0].attempt, 1);
    ck_assert_str_eq(l[0].why, "number 7, attempt 1");
    ck_assert_int_eq(l[0].died_ms, wall_ms());
    ck_assert_int_eq(l[0].published_ms, wall_ms() - 500);
    ck_assert_int_eq(l[0].expires_ms, ev.expires_ms);
    ck_assert_int_eq(l[0].position, sink_at(&t.w.sink, 0)->event.position);
    site_close(&t);
}
END_TEST

static void count_letter(void *arg, const outbox_event *ev,
                         const char *last_error, int64_t died_ms)
{
    (void)ev, (void)died_ms;
    ck_assert_ptr_nonnull(last_error);
    ++*(int *)arg;
}

/* Number 1 is refused in Latin-1, and with a beep; 2 at great length, in
 * characters of two bytes behind one of one; 3 with neither. */
static outbox_verdict refuse_badly(sink *s, const outbox_event *ev,
                                   outbox_token token, outbox_error *why)
{
    long number = event_number(ev);
    char text[3002] = "x";

    if (number != 2) {
        strcpy(why->text, number == 1 ? "Schl\xfcssel\a\xe2\x86"
                                      : "\xe2\x86\x92 closed");
        return OUTBOX_REJECT;
    }
    for (int i = 1; i < 3001; i += 2)
        memcpy(&text[i], "\xc3\xa9", 2);
    ck_ok(outbox_settle(s->relay, token, OUTBOX_REJECT, text));
    return OUTBOX_PENDING;
}

typedef struct reasons { char of[4][4096]; } reasons;

static void keep_reason(void *arg, const outbox_event *ev,
                        const char *last_error, int64_t died_ms)
{
    reasons *r = arg;

    (void)died_ms;
    snprintf(r->of[event_number(ev)], sizeof r->of[0], "%s", last_error);
}

/* A database that refuses the text would be asked again for ever. */
START_TEST(a_reason_may_be_any_bytes)
{
    site t;
    reasons r = { 0 };
    outbox_error err;

    site_open(&t, _i);
    publish_numbers(&t.w, NULL, 1, 3);
    t.w.sink.rule = refuse_badly;
    site_relay(&t);
    time_pass(&t.w, t.r, 500, 50);
    ck_assert_int_eq(outbox_dead_each(t.w.ob, "default", 9, keep_reason, &r,
                                      &err), 3);
    ck_assert_uint_eq(sink_count(&t.w.sink), 3);
    ck_assert_str_eq(r.of[1], "Schl?ssel???");
    ck_assert_uint_eq(strlen(r.of[2]), 1023);   /* not half a character */
    ck_assert_str_eq(&r.of[2][1019], "\xc3\xa9\xc3\xa9");
    ck_assert_str_eq(r.of[3], "\xe2\x86\x92 closed");
    site_close(&t);
}
END_TEST

START_TEST(letters_come_oldest_first_and_no_more_than_asked)
{
    site t;
    outbox_error err;
    letter l[20];
    int n = 0;

    site_open(&t, _i);
    plan_range(&t.p, 1, 10, OUTBOX_REJECT);
    site_relay(&t);
    for (long i = 10; i >= 1; i--) {
        publish_numbers(&t.w, key_of(i), i, 1);
        time_pass(&t.w, t.r, 100, 100);
    }
    ck_assert_int_eq(letters_of(&t.w, NULL, l, 20), 10);
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(l[i].number, 10 - i);
        ck_assert(i == 0 || l[i].died_ms > l[i - 1].died_ms);
    }
    ck_assert_int_eq(outbox_dead_each(t.w.ob, "default", 4, count_letter, &n,
                                      &err), 4);
    ck_assert_int_eq(n, 4);
    site_close(&t);
}
END_TEST

START_TEST(a_revived_one_goes_before_those_that_wait)
{
    site t;
    outbox_error err;
    letter l[2];

    site_with_a_dead_one(&t, _i);
    publish_numbers(&t.w, "k", 7, 3);
    settle_down(t.r);
    ck_assert_uint_eq(sink_times(&t.w.sink, 4), 0);
    ck_assert_int_eq(letters_of(&t.w, NULL, l, 2), 1);
    ck_assert_int_eq(outbox_dead_revive(t.w.ob, "default", l[0].id, &err), 1);
    ck_assert_int_eq(dead_count(&t.w, NULL), 0);
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_DEAD), 0);
    sink_forget(&t.w.sink);
    time_pass(&t.w, t.r, 300, 50);
    ck_assert(once_in_order(&t.w.sink, 3, 7));
    ck_assert_int_eq(sink_at(&t.w.sink, 0)->event.attempt, 1);
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_PARKED), 0);
    ck_assert_uint_eq(database_stats(&t.w, NULL).lag, 0);
    site_close(&t);
}
END_TEST

/* With the attempts that it had it would be dead at once. */
START_TEST(a_revived_one_has_all_its_attempts)
{
    site t;
    outbox_error err;
    letter l[2];

    site_open(&t, _i);
    t.p.of[1] = OUTBOX_RETRY;
    publish_numbers(&t.w, "k", 1, 1);
    site_relay(&t);
    run_among_others(&t.w, t.r, 1000, 50);
    ck_assert_int_eq(letters_of(&t.w, NULL, l, 2), 1);
    ck_assert_int_eq(l[0].attempt, 3);
    ck_assert_int_eq(outbox_dead_revive(t.w.ob, "default", NULL, &err), 1);
    sink_forget(&t.w.sink);
    run_among_others(&t.w, t.r, 2000, 50);
    ck_assert_uint_eq(sink_times(&t.w.sink, 1), 3);
    ck_assert_int_eq(letters_of(&t.w, NULL, l, 2), 1);
    ck_assert_int_eq(l[0].attempt, 3);
    site_close(&t);
}
END_TEST

START_TEST(a_discarded_one_is_gone_and_its_key_goes_on)
{
    site t;
    outbox_error err;
    letter l[2];

    site_with_a_dead_one(&t, _i);
    ck_assert_int_eq(letters_of(&t.w, NULL, l, 2), 1);
    ck_assert_int_eq(outbox_dead_discard(t.w.ob, "default", l[0].id, &err), 1);
    time_pass(&t.w, t.r, 1500, 50);
    ck_assert(once_in_order(&t.w.sink, 4, 3));
    ck_assert_uint_eq(sink_times(&t.w.sink, 3), 1);     /* when it died */
    ck_assert_int_eq(dead_count(&t.w, NULL), 0);
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_PARKED), 0);
    ck_assert_uint_eq(stats_of(t.r).blocked_keys, 0);
    publish_numbers(&t.w, "k", 7, 1);
    settle_down(t.r);
    ck_assert_uint_eq(sink_times(&t.w.sink, 7), 1);
    site_close(&t);
}
END_TEST

static void publish_keys(world *w, long from, long n)
{
    for (long i = from; i < from + n; i++) {
        outbox_event ev = numbered(key_of(i), i);
        publish_event(w, &ev);
    }
}

/* The cursors of all lanes wait for one that is in flight, then the owner
 * dies: the log still has what was discarded, and nobody takes it. */
START_TEST(a_discarded_one_is_not_read_again)
{
    site t;
    sut_link link;
    outbox_error err;

    site_open(&t, _i);
    for (long i = 1; i <= 200; i++)
        t.p.pending[i] = true;
    plan_range(&t.p, 301, 20, OUTBOX_REJECT);
    publish_keys(&t.w, 1, 200);
    publish_keys(&t.w, 301, 20);
    t.r = relay_open(&t.w, NULL, &t.opt, &link);
    time_pass(&t.w, t.r, 500, 50);
    ck_assert_int_eq(outbox_dead_discard(t.w.ob, "default", NULL, &err), 20);
    relay_crash(&t.w, t.r, &link);
    memset(t.p.pending, 0, sizeof t.p.pending);
    plan_range(&t.p, 301, 20, OUTBOX_ACK);
    sink_forget(&t.w.sink);
    site_relay(&t);
    time_pass(&t.w, t.r, 15000, 250);
    ck_assert_uint_eq(sink_count(&t.w.sink), 200);
    ck_assert(sink_exactly(&t.w.sink, 1, 200));
    sink_forget(&t.w.sink);
    publish_keys(&t.w, 301, 20);        /* their keys go on */
    time_pass(&t.w, t.r, 500, 50);
    ck_assert(sink_exactly(&t.w.sink, 301, 20));
    site_close(&t);
}
END_TEST

/* Those behind it have gone on without it, and one of them is in flight: the
 * revived one comes when that is settled, and before the next. */
START_TEST(a_revived_one_waits_for_what_is_in_flight)
{
    site t;
    outbox_error err;

    site_open(&t, _i);
    t.opt.on_dead = OUTBOX_DEAD_SKIPS;
    t.p.of[1] = OUTBOX_REJECT;
    t.p.pending[2] = true;
    publish_numbers(&t.w, "k", 1, 4);
    site_relay(&t);
    ck_assert_uint_eq(sink_count(&t.w.sink), 2);
    t.p.of[1] = OUTBOX_ACK;
    ck_assert_int_eq(outbox_dead_revive(t.w.ob, "default", NULL, &err), 1);
    time_pass(&t.w, t.r, 1000, 50);
    ck_assert_uint_eq(sink_count(&t.w.sink), 2);
    ck_ok(sink_settle(&t.w.sink, 1, OUTBOX_ACK));
    sink_forget(&t.w.sink);
    time_pass(&t.w, t.r, 1000, 50);
    ck_assert_uint_eq(sink_count(&t.w.sink), 3);
    ck_assert_int_eq(sink_number(&t.w.sink, 0), 1);
    ck_assert_int_eq(sink_number(&t.w.sink, 1), 3);
    ck_assert_int_eq(sink_number(&t.w.sink, 2), 4);
    ck_assert_int_eq(site_parked(&t), 0);
    site_close(&t);
}
END_TEST

/* In front of one that was parked later, which fails on. */
START_TEST(a_revived_one_goes_before_a_parked_one)
{
    site t;
    outbox_error err;

    site_open(&t, _i);
    t.opt.on_dead = OUTBOX_DEAD_SKIPS;
    t.opt.max_attempts = 1000;
    t.p.of[1] = OUTBOX_REJECT;
    t.p.of[2] = OUTBOX_RETRY;
    publish_numbers(&t.w, "k", 1, 4);
    site_relay(&t);
    run_among_others(&t.w, t.r, 500, 50);
    ck_assert_int_eq(site_parked(&t), 3);
    t.p.of[1] = OUTBOX_RETRY;
    ck_assert_int_eq(outbox_dead_revive(t.w.ob, "default", NULL, &err), 1);
    run_among_others(&t.w, t.r, 500, 50);
    sink_forget(&t.w.sink);
    run_among_others(&t.w, t.r, 500, 50);
    ck_assert_uint_ge(sink_times(&t.w.sink, 1), 1);
    ck_assert_uint_eq(sink_times(&t.w.sink, 2), 0);
    memset(&t.p, 0, sizeof t.p);
    sink_forget(&t.w.sink);
    run_among_others(&t.w, t.r, 500, 50);
    ck_assert(once_in_order(&t.w.sink, 1, 4));
    site_close(&t);
}
END_TEST

START_TEST(decided_while_no_relay_runs)
{
    site t;
    outbox_error err;

    site_with_a_dead_one(&t, _i);
    outbox_relay_free(t.r);
    ck_assert_int_eq(outbox_dead_revive(t.w.ob, "default", NULL, &err), 1);
    publish_numbers(&t.w, "k", 7, 1);
    sink_forget(&t.w.sink);
    site_relay(&t);
    ck_assert(once_in_order(&t.w.sink, 3, 5));
    ck_assert_uint_eq(sink_count(&t.w.sink), 5);
    site_close(&t);
}
END_TEST

/* Five keys with two dead each (a dead one is skipped), and an event that is
 * alive in each. */
static void site_with_ten_dead(site *t, int which)
{
    site_open(t, which);
    t->opt.on_dead = OUTBOX_DEAD_SKIPS;
    for (long i = 0; i < 20; i++) {
        t->p.of[i] = i < 10 ? OUTBOX_REJECT : OUTBOX_ACK;
        publish_numbers(&t->w, key_of(i % 5), i, 1);
    }
    site_relay(t);
    ck_assert_int_eq(dead_count(&t->w, NULL), 10);
    for (long i = 10; i < 20; i++)
        ck_assert_uint_eq(sink_times(&t->w.sink, i), 1);
    plan_range(&t->p, 0, 10, OUTBOX_ACK);
    sink_forget(&t->w.sink);
}

START_TEST(all_are_revived_in_the_order_of_death)
{
    site t;
    outbox_error err;

    site_with_ten_dead(&t, _i);
    ck_assert_int_eq(outbox_dead_revive(t.w.ob, "default", NULL, &err), 10);
    ck_assert_int_eq(outbox_dead_revive(t.w.ob, "default", NULL, &err), 0);
    time_pass(&t.w, t.r, 300, 50);
    ck_assert(sink_exactly(&t.w.sink, 0, 10));
    ck_assert(sink_in_order(&t.w.sink));
    ck_assert_int_eq(dead_count(&t.w, NULL), 0);
    site_close(&t);
}
END_TEST

START_TEST(all_are_discarded)
{
    site t;
    outbox_error err;

    site_with_ten_dead(&t, _i);
    ck_assert_int_eq(outbox_dead_discard(t.w.ob, "default", NULL, &err), 10);
    ck_assert_int_eq(outbox_dead_discard(t.w.ob, "default", NULL, &err), 0);
    time_pass(&t.w, t.r, 300, 50);
    ck_assert_uint_eq(sink_count(&t.w.sink), 0);
    ck_assert_int_eq(dead_count(&t.w, NULL), 0);
    site_close(&t);
}
END_TEST

START_TEST(one_is_revived_one_discarded_the_rest_stays)
{
    site t;
    outbox_error err;
    letter l[20];

    site_with_ten_dead(&t, _i);
    ck_assert_int_eq(letters_of(&t.w, NULL, l, 20), 10);
    ck_assert_int_eq(outbox_dead_revive(t.w.ob, "default", l[4].id, &err), 1);
    ck_assert_int_eq(outbox_dead_discard(t.w.ob, "default", l[6].id, &err), 1);
    time_pass(&t.w, t.r, 300, 50);
    ck_assert_uint_eq(sink_count(&t.w.sink), 1);
    ck_assert_int_eq(sink_number(&t.w.sink, 0), l[4].number);
    ck_assert_int_eq(dead_count(&t.w, NULL), 8);
    site_close(&t);
}
END_TEST

/* ---- unknown things ------------------------------------------------- */

START_TEST(an_unknown_id)
{
    site t;
    outbox_error err;
    outbox_t *ob;

    site_with_a_dead_one(&t, _i);
    ob = t.w.ob;
    ck_refused(outbox_dead_revive(ob, "default", unknown_id, &err),
               OUTBOX_ENOENT, unknown_id, "dead");
    ck_refused(outbox_dead_discard(ob, "default", unknown_id, &err),
               OUTBOX_ENOENT, unknown_id, "dead");
    ck_refused(outbox_dead_revive(ob, "default", "3", &err), OUTBOX_EINVAL,
               "id", "UUID");
    ck_refused(outbox_dead_discard(ob, "default", "", &err), OUTBOX_EINVAL,
               "id", "UUID");
    /* One that was delivered is not among the dead, either. */
    ck_refused(outbox_dead_revive(ob, "default",
                                  sink_at(&t.w.sink, 0)->event.id, &err),
               OUTBOX_ENOENT, sink_at(&t.w.sink, 0)->event.id, "dead");
    ck_assert_int_eq(outbox_dead_discard(ob, "default", unknown_id, NULL),
                     OUTBOX_ENOENT);
    time_pass(&t.w, t.r, 500, 50);
    ck_assert_int_eq(dead_count(&t.w, NULL), 1);
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_PARKED), 3);
    ck_assert_uint_eq(sink_count(&t.w.sink), 3);
    site_close(&t);
}
END_TEST

/* Each function of this file, once; n of them. */
static int ask(outbox_t *ob, int n, const char *sub, outbox_error *err)
{
    outbox_stats st = { .size = sizeof st };
    int count = 0;

    switch (n) {
    case 0:
        return outbox_subscription_stats(ob, sub, &st, err);
    case 1:
        return outbox_dead_each(ob, sub, 1, count_letter, &count, err);
    case 2:
        return outbox_dead_revive(ob, sub, NULL, err);
    case 3:
        return outbox_dead_discard(ob, sub, unknown_id, err);
    case 4:
        return outbox_pause(ob, sub, 1, err);
    case 5:
        return outbox_replay(ob, sub, 0, err);
    default:
        return outbox_unsubscribe(ob, sub, err);
    }
}

enum { ASKS = 7 };

START_TEST(an_unknown_subscription)
{
    static char long_name[OUTBOX_MAX_TEXT_BYTES + 2];
    site t;
    outbox_error err;

    memset(long_name, 'x', sizeof long_name - 1);
    site_with_a_dead_one(&t, _i);
    for (int i = 0; i < ASKS; i++) {
        ck_refused(ask(t.w.ob, i, "nobody", &err), OUTBOX_ENOENT, "nobody",
                   "subscription");
        ck_refused(ask(t.w.ob, i, NULL, &err), OUTBOX_EINVAL, "subscription",
                   "NULL");
        ck_refused(ask(t.w.ob, i, long_name, &err), OUTBOX_EINVAL,
                   "subscription", "1024");
        ck_refused(ask(t.w.ob, i, "caf\xe9", &err), OUTBOX_EINVAL,
                   "subscription", "UTF-8");
        ck_refused(ask(NULL, i, "default", &err), OUTBOX_EINVAL, "outbox_t",
                   "NULL");
        ck_assert_int_eq(ask(t.w.ob, i, "Default", NULL), OUTBOX_ENOENT);
    }
    ck_assert_int_eq(t.w.sut->count(t.w.db, SUT_SUBSCRIPTIONS), 1);
    ck_assert_int_eq(dead_count(&t.w, NULL), 1);
    site_close(&t);
}
END_TEST

START_TEST(arguments_that_are_wrong)
{
    site t;
    outbox_error err;
    outbox_stats st = { .size = 0 };
    int n = 0;

    site_with_a_dead_one(&t, _i);
    ck_refused(outbox_dead_each(t.w.ob, "default", 0, count_letter, &n, &err),
               OUTBOX_EINVAL, "limit", "positive");
    ck_refused(outbox_dead_each(t.w.ob, "default", -1, count_letter, &n, &err),
               OUTBOX_EINVAL, "limit", "positive");
    ck_refused(outbox_dead_each(t.w.ob, "default", 1, NULL, &n, &err),
               OUTBOX_EINVAL, "fn", "NULL");
    ck_refused(outbox_subscription_stats(t.w.ob, "default", &st, &err),
               OUTBOX_EINVAL, "outbox_stats.size", "sizeof");
    ck_refused(outbox_subscription_stats(t.w.ob, "nobody", NULL, &err),
               OUTBOX_EINVAL, "outbox_stats", "NULL");
    ck_refused(outbox_replay(t.w.ob, "default", -1, &err), OUTBOX_EINVAL,
               "since_ms", "negative");
    ck_assert_int_eq(n, 0);
    site_close(&t);
}
END_TEST

START_TEST(an_open_transaction_is_refused_and_untouched)
{
    site t;
    outbox_error err;

    site_with_a_dead_one(&t, _i);
    ck_ok(t.w.sut->begin(t.w.app));
    ck_ok(publish_number(t.w.ob, "other", 100, &err));
    for (int i = 2; i < ASKS; i++)
        ck_refused(ask(t.w.ob, i, "default", &err), OUTBOX_EINVAL,
                   "transaction", "open");
    ck_assert(t.w.sut->in_transaction(t.w.app));
    ck_ok(t.w.sut->commit(t.w.app));
    time_pass(&t.w, t.r, 500, 50);
    ck_assert_uint_eq(sink_times(&t.w.sink, 100), 1);
    ck_assert_int_eq(dead_count(&t.w, NULL), 1);
    ck_assert_int_eq(database_stats(&t.w, NULL).paused, 0);
    site_close(&t);
}
END_TEST

/* ---- two subscriptions ---------------------------------------------- */

START_TEST(the_dead_of_two_subscriptions_are_two)
{
    site t;
    outbox_error err;
    outbox_relay_options opt;
    letter l[2], other[2];
    sink s;

    site_open(&t, _i);
    sink_init(&s, sink_reject, NULL);
    opt = t.opt;
    opt.subscription = "other";
    outbox_relay_t *r = relay_open(&t.w, &s, &opt, NULL);
    t.p.of[3] = OUTBOX_REJECT;
    site_relay(&t);                     /* else the other would trim it all */
    publish_numbers(&t.w, "k", 1, 6);
    settle_down(r);
    settle_down(t.r);
    ck_assert_int_eq(letters_of(&t.w, NULL, l, 2), 1);
    ck_assert_int_eq(letters_of(&t.w, "other", other, 2), 1);
    ck_assert_int_eq(l[0].number, 3);
    ck_assert_int_eq(other[0].number, 1);
    ck_assert_str_eq(other[0].why, "never");
    ck_assert_int_eq(outbox_dead_revive(t.w.ob, "default", other[0].id, &err),
                     OUTBOX_ENOENT);
    ck_assert_int_eq(outbox_dead_discard(t.w.ob, "other", NULL, &err), 1);
    ck_assert_int_eq(dead_count(&t.w, NULL), 1);
    outbox_relay_free(r);
    sink_release(&s);
    site_close(&t);
}
END_TEST

void add_letters_tests(Suite *s)
{
    TCase *tc = suite_case(s, "letters");

    tcase_add_loop_test(tc, a_letter_tells_everything, 0, n_suts);
    tcase_add_loop_test(tc, a_reason_may_be_any_bytes, 0, n_suts);
    tcase_add_loop_test(tc, letters_come_oldest_first_and_no_more_than_asked, 0,
                        n_suts);
    tcase_add_loop_test(tc, a_revived_one_goes_before_those_that_wait, 0,
                        n_suts);
    tcase_add_loop_test(tc, a_revived_one_has_all_its_attempts, 0, n_suts);
    tcase_add_loop_test(tc, a_discarded_one_is_not_read_again, 0, n_suts);
    tcase_add_loop_test(tc, a_discarded_one_is_gone_and_its_key_goes_on, 0,
                        n_suts);
    tcase_add_loop_test(tc, a_revived_one_waits_for_what_is_in_flight, 0,
                        n_suts);
    tcase_add_loop_test(tc, a_revived_one_goes_before_a_parked_one, 0, n_suts);
    tcase_add_loop_test(tc, decided_while_no_relay_runs, 0, n_suts);
    tcase_add_loop_test(tc, all_are_revived_in_the_order_of_death, 0, n_suts);
    tcase_add_loop_test(tc, all_are_discarded, 0, n_suts);
    tcase_add_loop_test(tc, one_is_revived_one_discarded_the_rest_stays, 0,
                        n_suts);
    tcase_add_loop_test(tc, an_unknown_id, 0, n_suts);
    tcase_add_loop_test(tc, an_unknown_subscription, 0, n_suts);
    tcase_add_loop_test(tc, arguments_that_are_wrong, 0, n_suts);
    tcase_add_loop_test(tc, an_open_transaction_is_refused_and_untouched, 0,
                        n_suts);
    tcase_add_loop_test(tc, the_dead_of_two_subscriptions_are_two, 0, n_suts);
}

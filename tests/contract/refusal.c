/* SPDX-License-Identifier: MIT
 *
 * refusal.c - bad input: an error that names the field and the limit, nothing
 * written, and a transaction as usable as before.
 */
#include "contract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char long_text[OUTBOX_MAX_TEXT_BYTES + 2];
static char long_header[OUTBOX_MAX_HEADERS_BYTES + 2];

static const char *text_of(size_t n)
{
    memset(long_text, 'x', n);
    long_text[n] = '\0';
    return long_text;
}

/* Publishing ev is refused with words that name what is wrong; and then a good
 * event of the same transaction is stored, alone. */
static void refused(int which, const outbox_event *ev, const char *field,
                    const char *limit)
{
    world w;
    outbox_error err;

    world_open(&w, which);
    ck_ok(w.sut->begin(w.app));
    memset(&err, 0x55, sizeof err);
    ck_assert_int_eq(outbox_publish(w.ob, ev, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(err.code, OUTBOX_EINVAL);
    ck_assert_msg(strstr(err.text, field) != NULL, "\"%s\" names no %s",
                  err.text, field);
    ck_assert_msg(strstr(err.text, limit) != NULL, "\"%s\" says no %s",
                  err.text, limit);
    ck_assert_ptr_null(strchr(err.text, '\n'));
    ck_assert_int_eq(outbox_publish(w.ob, ev, NULL), OUTBOX_EINVAL);
    ck_ok(publish_number(w.ob, "k", 1, &err));
    ck_ok(w.sut->commit(w.app));
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 1);
    world_close(&w);
}

static outbox_event good(void)
{
    return (outbox_event){ .size = sizeof(outbox_event), .topic = "t" };
}

START_TEST(no_event)
{
    refused(_i, NULL, "event", "");
}
END_TEST

START_TEST(no_topic)
{
    outbox_event ev = good();

    ev.topic = NULL;
    refused(_i, &ev, "topic", "");
    ev.topic = "";
    refused(_i, &ev, "topic", "");
}
END_TEST

START_TEST(text_over_the_limit)
{
    outbox_event ev = good();

    ev.topic = text_of(1025);
    refused(_i, &ev, "topic", "1024");
    ev = good();
    ev.type = text_of(1025);
    refused(_i, &ev, "type", "1024");
    ev = good();
    ev.key = text_of(1025);
    refused(_i, &ev, "key", "1024");
    ev = good();
    ev.content_type = text_of(1025);
    refused(_i, &ev, "content_type", "1024");
}
END_TEST

static const char *const not_utf8[] = {
    "\x80",                     /* a continuation with no beginning */
    "a\xc3",                    /* cut off */
    "\xe2\x82",
    "\xf0\x9f\x98",
    "\xc0\xaf", "\xc1\xbf",     /* overlong */
    "\xe0\x80\xaf", "\xe0\x9f\xbf",
    "\xf0\x80\x80\xaf", "\xf0\x8f\xbf\xbf",
    "\xed\xa0\x80",             /* surrogates */
    "\xed\xbf\xbf",
    "\xf4\x90\x80\x80",         /* past U+10FFFF */
    "\xf5\x80\x80\x80", "\xf8\x88\x80\x80\x80", "\xfe", "\xff",
    "\xe2\x28\xa1",             /* a letter in the middle */
    "caf\xe9",                  /* Latin-1 */
    "fine \xe2\x82\xac then \xc3("
};

/* An event that is bad in one field: the n-th, counted around. */
static void refused_text(int which, size_t n, const char *text)
{
    static const char *const fields[] = { "topic", "type", "key",
                                          "content_type", "header", "header" };
    outbox_header h = { n % 6 == 4 ? text : "name", n % 6 == 5 ? text : "v" };
    outbox_event ev = good();
    const char **at[] = { &ev.topic, &ev.type, &ev.key, &ev.content_type };

    if (n % 6 < 4) {
        *at[n % 6] = text;
    } else {
        ev.headers = &h;
        ev.n_headers = 1;
    }
    refused(which, &ev, fields[n % 6], "UTF-8");
}

START_TEST(text_that_is_not_utf8)
{
    for (size_t i = 0; i < sizeof not_utf8 / sizeof *not_utf8; i++)
        refused_text(_i, i, not_utf8[i]);
}
END_TEST

START_TEST(each_malformed_sequence_in_a_key)
{
    world w;
    outbox_error err;

    world_open(&w, _i);
    ck_ok(w.sut->begin(w.app));
    for (size_t i = 0; i < sizeof not_utf8 / sizeof *not_utf8; i++)
        ck_assert_msg(publish_number(w.ob, not_utf8[i], 1, &err)
                      == OUTBOX_EINVAL, "sequence %zu was taken", i);
    ck_ok(w.sut->commit(w.app));
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 0);
    world_close(&w);
}
END_TEST

START_TEST(an_id_that_is_no_uuid)
{
    static const char *const ids[] = {
        "", "1", "nonsense", "0190c2a8-7b1c-7cc3-98c4-dc0c0c07398",
        "0190c2a8-7b1c-7cc3-98c4-dc0c0c0739811",
        "0190c2a87b1c7cc398c4dc0c0c07398f",
        "{0190c2a8-7b1c-7cc3-98c4-dc0c0c07398f}",
        "0190c2a8-7b1c-7cc3-98c4-dc0c0c07398g",
        "0190c2a8_7b1c-7cc3-98c4-dc0c0c07398f",
        "0190c2a-87b1c-7cc3-98c4-dc0c0c07398f",
        " 190c2a8-7b1c-7cc3-98c4-dc0c0c07398f",
        "0190c2a8-7b1c-7cc3-98c4-dc0c0c07398f "
    };

    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        outbox_event ev = good();
        ev.id = ids[i];
        refused(_i, &ev, "id", "UUID");
    }
}
END_TEST

START_TEST(payload_over_the_limit)
{
    outbox_event ev = good();
    char *big = calloc(1, (1 << 20) + 1);

    ev.payload = big;
    ev.payload_len = (1 << 20) + 1;
    refused(_i, &ev, "payload", "1048576");
    ev.payload = NULL;
    ev.payload_len = 1;
    refused(_i, &ev, "payload", "");
    free(big);
}
END_TEST

START_TEST(headers_that_could_not_travel)
{
    static const outbox_header bad[] = {
        { NULL, "v" }, { "", "v" }, { "a:b", "v" }, { "a b", "v" },
        { "a\tb", "v" }, { "a\nb", "v" }, { "a\x7f", "v" }, { "\x01", "v" },
        { "name", NULL }, { "name", "a\nb" }, { "name", "a\rb" },
        { "name", "\x01" }, { "name", "\x7f" }, { "name", "v\n" }
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        outbox_header h[2] = { { "fine", "yes" }, bad[i] };
        outbox_event ev = good();
        ev.headers = h;
        ev.n_headers = 2;
        refused(_i, &ev, "header", "");
    }
}
END_TEST

START_TEST(headers_without_an_array)
{
    outbox_event ev = good();

    ev.n_headers = 1;
    refused(_i, &ev, "headers", "");
}
END_TEST

START_TEST(headers_over_the_limit)
{
    outbox_header h = { "n", long_header };
    outbox_event ev = good();

    memset(long_header, 'x', OUTBOX_MAX_HEADERS_BYTES + 1);
    ev.headers = &h;
    ev.n_headers = 1;
    refused(_i, &ev, "header", "65536");
}
END_TEST

START_TEST(headers_over_the_limit_together)
{
    outbox_header h[2] = { { "a", long_header }, { "b", long_header } };
    outbox_event ev = good();

    memset(long_header, 'x', OUTBOX_MAX_HEADERS_BYTES / 2);
    long_header[OUTBOX_MAX_HEADERS_BYTES / 2] = '\0';
    ev.headers = h;
    ev.n_headers = 2;
    refused(_i, &ev, "header", "65536");
}
END_TEST

START_TEST(size_that_is_not_set)
{
    outbox_event ev = good();

    ev.size = 0;
    refused(_i, &ev, "size", "sizeof");
    ev.size = sizeof ev - 1;
    refused(_i, &ev, "size", "sizeof");
}
END_TEST

typedef struct newer_event {            /* of a program built later */
    outbox_event event;
    uint64_t     more[2];
} newer_event;

START_TEST(a_newer_callers_field)
{
    newer_event ev = { .event = good(), .more = { 0, 1 } };

    ev.event.size = sizeof ev;
    refused(_i, &ev.event, "outbox_event", "");
}
END_TEST

START_TEST(a_newer_callers_zeroes_are_fine)
{
    newer_event ev = { .event = good() };
    world w;
    outbox_error err;

    ev.event.size = sizeof ev;
    world_open(&w, _i);
    ck_ok(w.sut->begin(w.app));
    ck_ok(outbox_publish(w.ob, &ev.event, &err));
    ck_ok(w.sut->commit(w.app));
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 1);
    world_close(&w);
}
END_TEST

START_TEST(options_that_are_wrong)
{
    world w;
    outbox_error err;
    outbox_t *ob = (void *)&w;
    outbox_allocator half = { .size = sizeof half };
    outbox_options opt = { .size = 0 };

    world_open(&w, _i);
    ck_assert_int_eq(w.sut->outbox(&ob, w.app, &opt, &err), OUTBOX_EINVAL);
    ck_assert_ptr_null(ob);
    ck_assert_ptr_nonnull(strstr(err.text, "size"));
    opt = (outbox_options){ .size = sizeof opt, .lanes = 65 };
    ck_assert_int_eq(w.sut->outbox(&ob, w.app, &opt, &err), OUTBOX_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "lanes"));
    ck_assert_ptr_nonnull(strstr(err.text, "64"));
    opt = (outbox_options){ .size = sizeof opt, .allocator = &half };
    ck_assert_int_eq(w.sut->outbox(&ob, w.app, &opt, &err), OUTBOX_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "allocator"));
    world_close(&w);
}
END_TEST

START_TEST(a_handle_that_is_null)
{
    outbox_error err;
    outbox_event ev = good();
    const outbox_event *at = &ev;
    outbox_token token = { 1, 1 };
    outbox_stats st = { .size = sizeof st };
    int (*const many)(outbox_t *, const outbox_event *const *, size_t,
                      outbox_error *) = outbox_publish_many;

    (void)_i;
    ck_assert_int_eq(outbox_publish(NULL, &ev, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(many(NULL, &at, 1, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_publish_commit(NULL, &at, 1, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_migrate(NULL, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(inbox_accept(NULL, "c", "i", &err), OUTBOX_EINVAL);
    ck_assert_int_eq(inbox_prune(NULL, 1, 1, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(inbox_commit(NULL, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_relay_step(NULL, 0, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_relay_start(NULL, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_relay_stop(NULL, 0, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_relay_stats(NULL, &st), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_settle(NULL, token, OUTBOX_ACK, NULL),
                     OUTBOX_EINVAL);
    ck_assert_str_eq(outbox_last_id(NULL), "");
    outbox_relay_wake(NULL);
    outbox_relay_free(NULL);
    outbox_close(NULL);
    inbox_close(NULL);
}
END_TEST

/* Each set of relay options is refused, with words, and the outbox_t is still
 * the caller's. */
static void relay_refused(world *w, const outbox_transport *t,
                          const outbox_relay_options *opt, const char *word)
{
    outbox_error err;
    outbox_relay_t *r = (void *)w;
    outbox_t *ob;

    ck_ok(w->sut->connect(&ob, w->db, NULL, NULL, &err));
    ck_assert_int_eq(outbox_relay_new(&r, ob, t, opt, &err), OUTBOX_EINVAL);
    ck_assert_ptr_null(r);
    ck_assert_msg(strstr(err.text, word) != NULL, "\"%s\" says no %s",
                  err.text, word);
    outbox_close(ob);
}

START_TEST(a_relay_with_a_bad_transport)
{
    world w;
    outbox_transport t;

    world_open(&w, _i);
    relay_refused(&w, NULL, NULL, "transport");
    t = w.sink.transport;
    t.size = 0;
    relay_refused(&w, &t, NULL, "size");
    t = w.sink.transport;
    t.send = NULL;
    relay_refused(&w, &t, NULL, "send");
    t = w.sink.transport;
    t.max_inflight_ms = 10000;          /* as long as the lease */
    relay_refused(&w, &t, NULL, "lease_ms");
    world_close(&w);
}
END_TEST

START_TEST(a_relay_with_bad_options)
{
    world w;
    outbox_relay_options opt;

    world_open(&w, _i);
    opt = relay_options(&w);
    opt.size = 0;
    relay_refused(&w, &w.sink.transport, &opt, "size");
    opt = relay_options(&w);
    opt.subscription = "caf\xe9";
    relay_refused(&w, &w.sink.transport, &opt, "subscription");
    opt = relay_options(&w);
    opt.subscription = text_of(1025);
    relay_refused(&w, &w.sink.transport, &opt, "subscription");
    opt = relay_options(&w);
    opt.retry_min_ms = 2000;
    opt.retry_max_ms = 1000;
    relay_refused(&w, &w.sink.transport, &opt, "retry");
    opt = relay_options(&w);
    opt.keep_ms = -1;
    relay_refused(&w, &w.sink.transport, &opt, "keep_ms");
    world_close(&w);
}
END_TEST

START_TEST(a_relay_over_a_borrowed_connection)
{
    world w;
    outbox_error err;
    outbox_relay_t *r = NULL;

    world_open(&w, _i);
    ck_assert_int_eq(outbox_relay_new(&r, w.ob, &w.sink.transport, NULL, &err),
                     OUTBOX_EINVAL);
    ck_assert_ptr_null(r);
    publish_numbers(&w, "k", 1, 1);     /* the handle is as good as before */
    ck_assert_int_eq(outbox_relay_new(&r, NULL, &w.sink.transport, NULL, &err),
                     OUTBOX_EINVAL);
    world_close(&w);
}
END_TEST

void add_refusal_tests(Suite *s)
{
    TCase *tc = suite_case(s, "refusal");

    tcase_add_loop_test(tc, no_event, 0, n_ways);
    tcase_add_loop_test(tc, no_topic, 0, n_ways);
    tcase_add_loop_test(tc, text_over_the_limit, 0, n_ways);
    tcase_add_loop_test(tc, text_that_is_not_utf8, 0, n_ways);
    tcase_add_loop_test(tc, each_malformed_sequence_in_a_key, 0, n_ways);
    tcase_add_loop_test(tc, an_id_that_is_no_uuid, 0, n_ways);
    tcase_add_loop_test(tc, payload_over_the_limit, 0, n_ways);
    tcase_add_loop_test(tc, headers_that_could_not_travel, 0, n_ways);
    tcase_add_loop_test(tc, headers_without_an_array, 0, n_ways);
    tcase_add_loop_test(tc, headers_over_the_limit, 0, n_ways);
    tcase_add_loop_test(tc, headers_over_the_limit_together, 0, n_ways);
    tcase_add_loop_test(tc, size_that_is_not_set, 0, n_ways);
    tcase_add_loop_test(tc, a_newer_callers_field, 0, n_ways);
    tcase_add_loop_test(tc, a_newer_callers_zeroes_are_fine, 0, n_ways);
    tcase_add_loop_test(tc, options_that_are_wrong, 0, n_ways);
    tcase_add_test(tc, a_handle_that_is_null);
    tcase_add_loop_test(tc, a_relay_with_a_bad_transport, 0, n_ways);
    tcase_add_loop_test(tc, a_relay_with_bad_options, 0, n_ways);
    tcase_add_loop_test(tc, a_relay_over_a_borrowed_connection, 0, n_ways);
}

/* SPDX-License-Identifier: MIT
 *
 * event.c - what is published is what is delivered, to the byte.
 */
#include "contract.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Publish one event and deliver it. */
static const outbox_event *through(world *w, const outbox_event *ev)
{
    outbox_error err;
    outbox_relay_t *r;

    ck_ok(w->sut->begin(w->app));
    ck_assert_msg(outbox_publish(w->ob, ev, &err) == OUTBOX_OK, "%s",
                  err.text);
    ck_ok(w->sut->commit(w->app));
    sink_forget(&w->sink);
    r = relay_open(w, NULL, NULL, NULL);
    settle_down(r);
    ck_assert_uint_eq(sink_count(&w->sink), 1);
    ck_ok(outbox_relay_stop(r, 1000, &err));
    outbox_relay_free(r);
    return &sink_at(&w->sink, 0)->event;
}

START_TEST(every_field_arrives)
{
    static const outbox_header headers[] = {
        { "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00-01" },
        { "empty", "" },
        { "caf\xc3\xa9", "tab\there, colon: and \xe2\x82\xac" },
        { "twice", "1" }, { "twice", "2" }
    };
    outbox_event ev = {
        .size = sizeof ev,
        .topic = "orders",
        .type = "order.paid",
        .key = "order/42 \xf0\x9f\x98\x80",
        .id = "0190C2A8-7b1c-4cc3-98C4-dc0c0c07398F",
        .content_type = "text/plain; charset=utf-8",
        .payload = "one\0two",
        .payload_len = 7,
        .headers = headers,
        .n_headers = 5
    };
    world w;

    world_open(&w, _i);
    const outbox_event *got = through(&w, &ev);
    ck_assert_str_eq(got->topic, ev.topic);
    ck_assert_str_eq(got->type, ev.type);
    ck_assert_str_eq(got->key, ev.key);
    ck_assert_str_eq(got->id, "0190c2a8-7b1c-4cc3-98c4-dc0c0c07398f");
    ck_assert_str_eq(got->content_type, ev.content_type);
    ck_assert_uint_eq(got->payload_len, 7);
    ck_assert_mem_eq(got->payload, "one\0two", 7);
    ck_assert_uint_eq(got->n_headers, 5);
    for (size_t i = 0; i < 5; i++) {
        ck_assert_str_eq(got->headers[i].name, headers[i].name);
        ck_assert_str_eq(got->headers[i].value, headers[i].value);
    }
    ck_assert_int_eq(got->attempt, 1);
    ck_assert_int_gt(got->position, 0);
    ck_assert_int_gt(got->published_ms, INT64_C(1500000000000));
    ck_assert_uint_ge(got->size, sizeof *got);
    world_close(&w);
}
END_TEST

START_TEST(absent_fields_stay_absent)
{
    outbox_event ev = { .size = sizeof ev, .topic = "t" };
    world w;

    world_open(&w, _i);
    const outbox_event *got = through(&w, &ev);
    ck_assert_str_eq(got->topic, "t");
    ck_assert_ptr_null(got->type);
    ck_assert_ptr_null(got->key);
    ck_assert_str_eq(got->content_type, "application/json");
    ck_assert_uint_eq(got->payload_len, 0);
    ck_assert_ptr_nonnull(got->payload);
    ck_assert_uint_eq(got->n_headers, 0);
    world_close(&w);
}
END_TEST

START_TEST(what_publish_ignores)
{
    outbox_event ev = { .size = sizeof ev, .topic = "t", .position = 77,
                        .published_ms = 5, .attempt = 9 };
    world w;

    world_open(&w, _i);
    const outbox_event *got = through(&w, &ev);
    ck_assert_int_ne(got->position, 77);
    ck_assert_int_gt(got->published_ms, 5);
    ck_assert_int_eq(got->attempt, 1);
    world_close(&w);
}
END_TEST

START_TEST(a_new_id_is_a_uuid_of_version_7)
{
    outbox_event ev = { .size = sizeof ev, .topic = "t" };
    char before[40];
    world w;

    world_open(&w, _i);
    strcpy(before, through(&w, &ev)->id);
    const char *id = through(&w, &ev)->id;
    ck_assert_uint_eq(strlen(id), 36);
    for (int i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        ck_assert(dash ? id[i] == '-'
                       : isxdigit((unsigned char)id[i])
                         && !isupper((unsigned char)id[i]));
    }
    ck_assert_int_eq(id[14], '7');
    ck_assert_ptr_nonnull(strchr("89ab", id[19]));
    ck_assert_int_gt(strcmp(id, before), 0);
    world_close(&w);
}
END_TEST

START_TEST(new_ids_ascend_and_carry_the_time)
{
    world w;
    outbox_error err;
    char last[40] = "";

    world_open(&w, _i);
    ck_ok(w.sut->begin(w.app));
    for (int i = 0; i < 5000; i++) {
        ck_ok(publish_number(w.ob, NULL, i, &err));
        ck_assert_int_gt(strcmp(outbox_last_id(w.ob), last), 0);
        strcpy(last, outbox_last_id(w.ob));
    }
    ck_ok(w.sut->rollback(w.app));
    char digits[13] = { 0 };
    memcpy(digits, last, 8);
    memcpy(digits + 8, last + 9, 4);
    int64_t ms = strtoll(digits, NULL, 16);
    int64_t now = (int64_t)time(NULL) * 1000;
    ck_assert(ms > now - 60000 && ms < now + 60000);
    world_close(&w);
}
END_TEST

static char *filled(size_t n)
{
    char *s = malloc(n + 1);

    for (size_t i = 0; i < n; i++)
        s[i] = (char)('a' + i % 26);
    s[n] = '\0';
    return s;
}

START_TEST(everything_at_its_limit)
{
    char *text = filled(OUTBOX_MAX_TEXT_BYTES);
    char *payload = filled(1 << 20);
    char *value = filled(OUTBOX_MAX_HEADERS_BYTES - 100);
    outbox_header h = { "name", value };
    outbox_event ev = { .size = sizeof ev, .topic = text, .type = text,
                        .key = text, .content_type = text,
                        .payload = payload, .payload_len = 1 << 20,
                        .headers = &h, .n_headers = 1 };
    world w;

    for (int i = 0; i < 1 << 20; i += 7)
        payload[i] = (char)(i / 7);
    world_open(&w, _i);
    const outbox_event *got = through(&w, &ev);
    ck_assert_str_eq(got->topic, text);
    ck_assert_str_eq(got->type, text);
    ck_assert_str_eq(got->key, text);
    ck_assert_str_eq(got->content_type, text);
    ck_assert_uint_eq(got->payload_len, 1 << 20);
    ck_assert_mem_eq(got->payload, payload, 1 << 20);
    ck_assert_str_eq(got->headers[0].value, value);
    world_close(&w);
    free(text);
    free(payload);
    free(value);
}
END_TEST

START_TEST(a_payload_limit_of_ones_own)
{
    outbox_options opt = { .size = sizeof opt, .max_payload_bytes = 10 };
    outbox_event ev = { .size = sizeof ev, .topic = "t",
                        .payload = "0123456789A", .payload_len = 11 };
    world w;
    outbox_error err;
    outbox_t *ob;

    world_open(&w, _i);
    ck_ok(w.sut->outbox(&ob, w.app, &opt, &err));
    ck_ok(w.sut->begin(w.app));
    ck_assert_int_eq(outbox_publish(ob, &ev, &err), OUTBOX_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "max_payload_bytes"));
    ev.payload_len = 10;
    ck_ok(outbox_publish(ob, &ev, &err));
    ck_ok(w.sut->rollback(w.app));
    outbox_close(ob);
    world_close(&w);
}
END_TEST

START_TEST(every_byte_in_a_payload)
{
    unsigned char bytes[256];
    outbox_event ev = { .size = sizeof ev, .topic = "t", .payload = bytes,
                        .payload_len = sizeof bytes };
    world w;

    for (int i = 0; i < 256; i++)
        bytes[i] = (unsigned char)(255 - i);
    world_open(&w, _i);
    const outbox_event *got = through(&w, &ev);
    ck_assert_uint_eq(got->payload_len, 256);
    ck_assert_mem_eq(got->payload, bytes, 256);
    world_close(&w);
}
END_TEST

START_TEST(utf8_of_every_length)
{
    static const char *const good[] = {
        "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf",
        "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80",
        "\xf4\x8f\xbf\xbf", "\xef\xbb\xbf BOM"
    };
    world w;

    world_open(&w, _i);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        outbox_event ev = { .size = sizeof ev, .topic = "t", .key = good[i],
                            .type = good[i] };
        const outbox_event *got = through(&w, &ev);
        ck_assert_str_eq(got->key, good[i]);
        ck_assert_str_eq(got->type, good[i]);
    }
    world_close(&w);
}
END_TEST

START_TEST(quotes_and_percents_are_only_text)
{
    outbox_event ev = { .size = sizeof ev, .topic = "a'b\"c;--",
                        .type = "%s%n%d", .key = "'); DROP TABLE work; --" };
    world w;

    world_open(&w, _i);
    const outbox_event *got = through(&w, &ev);
    ck_assert_str_eq(got->topic, ev.topic);
    ck_assert_str_eq(got->type, ev.type);
    ck_assert_str_eq(got->key, ev.key);
    ck_assert_int_eq(w.sut->count(w.db, SUT_WORK), 0);
    world_close(&w);
}
END_TEST

void add_event_tests(Suite *s)
{
    TCase *tc = suite_case(s, "event");

    tcase_add_loop_test(tc, every_field_arrives, 0, n_ways);
    tcase_add_loop_test(tc, absent_fields_stay_absent, 0, n_ways);
    tcase_add_loop_test(tc, what_publish_ignores, 0, n_ways);
    tcase_add_loop_test(tc, a_new_id_is_a_uuid_of_version_7, 0, n_ways);
    tcase_add_loop_test(tc, new_ids_ascend_and_carry_the_time, 0, n_ways);
    tcase_add_loop_test(tc, everything_at_its_limit, 0, n_ways);
    tcase_add_loop_test(tc, a_payload_limit_of_ones_own, 0, n_ways);
    tcase_add_loop_test(tc, every_byte_in_a_payload, 0, n_ways);
    tcase_add_loop_test(tc, utf8_of_every_length, 0, n_ways);
    tcase_add_loop_test(tc, quotes_and_percents_are_only_text, 0, n_ways);
}

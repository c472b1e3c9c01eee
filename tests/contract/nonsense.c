/* SPDX-License-Identifier: MIT
 *
 * nonsense.c - relays that are asked for what cannot be: a code, words that
 * name the field and the limit, and nothing changed.
 */
#include "kit.h"

#include <stdio.h>
#include <string.h>

enum { DAY_MS = 86400000, MAX_EVENTS = 1 << 20 };

typedef struct desk {                   /* a handle that nobody takes */
    world                w;
    outbox_t            *ob;
    outbox_relay_options opt;
    outbox_transport     transport;
} desk;

static void desk_open(desk *d, int which)
{
    outbox_error err;

    world_open(&d->w, which);
    ck_ok(d->w.sut->connect(&d->ob, d->w.db, NULL, NULL, &err));
    d->opt = relay_options(&d->w);
    d->transport = d->w.sink.transport;
}

/* Refused; and good options are good again. */
static void desk_refuses(desk *d, const char *field, const char *limit)
{
    outbox_relay_t *r = (void *)d;
    outbox_error err;

    ck_refused(outbox_relay_new(&r, d->ob, &d->transport, &d->opt, &err),
               OUTBOX_EINVAL, field, limit);
    ck_assert_ptr_null(r);
    ck_assert_int_eq(outbox_relay_new(&r, d->ob, &d->transport, &d->opt, NULL),
                     OUTBOX_EINVAL);
    d->opt = relay_options(&d->w);
    d->transport = d->w.sink.transport;
}

/* The handle is still ours, and makes a relay that works. */
static void desk_close(desk *d)
{
    outbox_relay_t *r = NULL;
    outbox_error err;

    ck_assert_int_eq(d->w.sut->count(d->w.db, SUT_SUBSCRIPTIONS), 0);
    ck_assert_int_eq(d->w.sut->count(d->w.db, SUT_RELAYS), 0);
    ck_assert_uint_eq(d->w.sink.opens, 0);
    ck_ok(outbox_relay_new(&r, d->ob, &d->transport, &d->opt, &err));
    publish_numbers(&d->w, "k", 1, 3);
    settle_down(r);
    ck_assert(sink_exactly(&d->w.sink, 1, 3));
    outbox_relay_free(r);
    world_close(&d->w);
}

typedef struct bad_number {
    size_t      at;                     /* of a uint32_t in the options */
    const char *field;
    uint32_t    value;
    const char *limit;
} bad_number;

#define AT(field) offsetof(outbox_relay_options, field), #field

START_TEST(numbers_out_of_range)
{
    static const bad_number bad[] = {
        { AT(max_lanes), 65, "64" },
        { AT(max_lanes), UINT32_MAX, "64" },
        { AT(batch), MAX_EVENTS + 1, "1048576" },
        { AT(max_inflight), MAX_EVENTS + 1, "1048576" },
        { AT(poll_ms), DAY_MS + 1, "86400000" },
        { AT(lease_ms), 19, "20" },
        { AT(lease_ms), DAY_MS + 1, "86400000" },
        { AT(settle_ms), DAY_MS + 1, "86400000" },
        { AT(flush_ms), 10001, "10000" },          /* the lease */
        { AT(retry_min_ms), DAY_MS + 1, "retry_m" },
        { AT(retry_max_ms), DAY_MS + 1, "86400000" },
        { AT(max_attempts), UINT32_C(1) << 31, "2147483647" },
        { AT(breaker_failures), MAX_EVENTS + 1, "1048576" },
        { AT(breaker_ms), DAY_MS + 1, "86400000" },
    };
    desk d;

    desk_open(&d, _i);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memcpy((char *)&d.opt + bad[i].at, &bad[i].value, sizeof(uint32_t));
        desk_refuses(&d, strncmp(bad[i].limit, "retry", 5) == 0
                         ? "retry_m" : bad[i].field, bad[i].limit);
    }
    desk_close(&d);
}
END_TEST

START_TEST(choices_that_there_are_not)
{
    desk d;

    desk_open(&d, _i);
    d.opt.on_dead = (outbox_on_dead)2;
    desk_refuses(&d, "on_dead", "1");
    d.opt.start = (outbox_start)7;
    desk_refuses(&d, "start", "1");
    d.opt.keep_ms = -1;
    desk_refuses(&d, "keep_ms", "negative");
    d.opt.subscription = "";
    desk_refuses(&d, "subscription", "empty");
    desk_close(&d);
}
END_TEST

START_TEST(options_that_contradict)
{
    desk d;

    desk_open(&d, _i);
    d.opt.retry_min_ms = 2000;
    d.opt.retry_max_ms = 1999;
    desk_refuses(&d, "retry_min_ms is 2000", "1999");
    d.opt.lease_ms = 100;
    d.opt.flush_ms = 101;
    desk_refuses(&d, "flush_ms is 101", "100");
    d.opt.max_inflight_bytes = 4095;
    desk_refuses(&d, "max_inflight_bytes is 4095", "4096");
    d.opt.max_inflight_bytes = (1 << 20) - 1;   /* less than one event */
    desk_refuses(&d, "max_inflight_bytes is 1048575",
                 "max_payload_bytes, 1048576");
    d.transport.max_inflight_ms = 30000;
    d.opt.lease_ms = 20000;
    desk_refuses(&d, "lease_ms is 20000", "max_inflight_ms, 30000");
    d.transport.max_inflight_ms = 10000;        /* the lease by default */
    desk_refuses(&d, "lease_ms is 10000", "max_inflight_ms, 10000");
    desk_close(&d);
}
END_TEST

START_TEST(a_transport_that_is_none)
{
    desk d;
    outbox_relay_t *r = (void *)&d;
    outbox_error err;

    desk_open(&d, _i);
    ck_refused(outbox_relay_new(&r, d.ob, NULL, &d.opt, &err), OUTBOX_EINVAL,
               "transport", "NULL");
    ck_assert_ptr_null(r);
    ck_refused(outbox_relay_new(NULL, d.ob, &d.transport, &d.opt, &err),
               OUTBOX_EINVAL, "out", "NULL");
    ck_refused(outbox_relay_new(&r, NULL, &d.transport, &d.opt, &err),
               OUTBOX_EINVAL, "outbox_t", "NULL");
    d.transport.send = NULL;
    desk_refuses(&d, "send", "NULL");
    d.transport.size = 0;
    desk_refuses(&d, "outbox_transport", "size");
    desk_close(&d);
}
END_TEST

/* A flag of a newer header means something that we would not do. */
START_TEST(a_transport_with_flags_of_a_newer_header)
{
    desk d;

    desk_open(&d, _i);
    d.transport.flags = OUTBOX_ORDERED | 2;
    desk_refuses(&d, "outbox_transport.flags", "3");
    d.transport.flags = UINT32_C(1) << 31;
    desk_refuses(&d, "outbox_transport.flags", "80000000");
    desk_close(&d);
}
END_TEST

START_TEST(a_handle_with_flags_of_a_newer_header)
{
    world w;
    outbox_options opt = { .size = sizeof opt, .flags = 8 };
    outbox_error err;
    outbox_t *ob = (void *)&w;

    world_open(&w, _i);
    ck_refused(w.sut->outbox(&ob, w.app, &opt, &err), OUTBOX_EINVAL,
               "outbox_options.flags", "8");
    ck_assert_ptr_null(ob);
    opt.flags = OUTBOX_LOCK_KEYS | 16;
    ck_refused(w.sut->connect(&ob, w.db, &opt, NULL, &err), OUTBOX_EINVAL,
               "outbox_options.flags", "12");
    ck_assert_ptr_null(ob);
    opt.flags = OUTBOX_LOCK_KEYS;       /* which is no news */
    ck_ok(w.sut->outbox(&ob, w.app, &opt, &err));
    outbox_close(ob);
    world_close(&w);
}
END_TEST

typedef struct newer_options {          /* of a program built later */
    outbox_relay_options known;
    uint64_t             more[2];
} newer_options;

typedef struct newer_transport {
    outbox_transport known;
    void            *more[2];
} newer_transport;

START_TEST(options_of_a_newer_header)
{
    desk d;
    outbox_relay_t *r = (void *)&d;
    outbox_error err;

    desk_open(&d, _i);
    newer_options opt = { d.opt, { 0, 1 } };
    opt.known.size = sizeof opt;
    ck_refused(outbox_relay_new(&r, d.ob, &d.transport, &opt.known, &err),
               OUTBOX_EINVAL, "outbox_relay_options", "");
    ck_assert_ptr_null(r);
    newer_transport tp = { d.transport, { NULL, &d } };
    tp.known.size = sizeof tp;
    ck_refused(outbox_relay_new(&r, d.ob, &tp.known, &d.opt, &err),
               OUTBOX_EINVAL, "outbox_transport", "");
    desk_close(&d);
}
END_TEST

START_TEST(a_newer_header_that_asks_for_nothing_new)
{
    desk d;
    outbox_relay_t *r = NULL;
    outbox_error err;

    desk_open(&d, _i);
    newer_options opt = { d.opt, { 0, 0 } };
    newer_transport tp = { d.transport, { NULL, NULL } };
    opt.known.size = sizeof opt;
    tp.known.size = sizeof tp;
    ck_ok(outbox_relay_new(&r, d.ob, &tp.known, &opt.known, &err));
    publish_numbers(&d.w, "k", 1, 3);
    settle_down(r);
    ck_assert(sink_exactly(&d.w.sink, 1, 3));
    outbox_relay_free(r);
    world_close(&d.w);
}
END_TEST

START_TEST(times_that_run_backwards)
{
    world w;
    outbox_error err;

    world_open(&w, _i);
    outbox_relay_t *r = relay_open(&w, NULL, NULL, NULL);
    ck_refused(outbox_relay_step(r, -1, &err), OUTBOX_EINVAL, "timeout_ms",
               "negative");
    ck_refused(outbox_relay_stop(r, -1, &err), OUTBOX_EINVAL, "timeout_ms",
               "negative");
    outbox_stats st = { .size = 0 };
    ck_assert_int_eq(outbox_relay_stats(r, &st), OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_relay_stats(r, NULL), OUTBOX_EINVAL);
    publish_numbers(&w, "k", 1, 3);
    settle_down(r);
    ck_assert(sink_exactly(&w.sink, 1, 3));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

/* On the edge, all of these are fine. */
START_TEST(the_limits_themselves_are_allowed)
{
    desk d;
    outbox_relay_t *r = NULL;
    outbox_error err;

    desk_open(&d, _i);
    d.opt.max_lanes = 64;
    d.opt.batch = 1;
    d.opt.max_inflight = 1;
    d.opt.max_inflight_bytes = 1 << 20;
    d.opt.poll_ms = d.opt.settle_ms = d.opt.breaker_ms = DAY_MS;
    d.opt.lease_ms = d.opt.flush_ms = 20;
    d.transport.max_inflight_ms = 19;
    d.opt.retry_min_ms = d.opt.retry_max_ms = DAY_MS;
    d.opt.max_attempts = INT32_MAX;
    d.opt.breaker_failures = MAX_EVENTS;
    d.opt.keep_ms = INT64_MAX;
    ck_ok(outbox_relay_new(&r, d.ob, &d.transport, &d.opt, &err));
    publish_numbers(&d.w, "k", 1, 3);
    run_for(&d.w, r, 100, 1);
    ck_assert(sink_exactly(&d.w.sink, 1, 3));
    ck_assert_int_eq(d.w.sut->count(d.w.db, SUT_LOG), 3);
    outbox_relay_free(r);
    world_close(&d.w);
}
END_TEST

void add_nonsense_tests(Suite *s)
{
    TCase *tc = suite_case(s, "nonsense");

    tcase_add_loop_test(tc, numbers_out_of_range, 0, n_suts);
    tcase_add_loop_test(tc, choices_that_there_are_not, 0, n_suts);
    tcase_add_loop_test(tc, options_that_contradict, 0, n_suts);
    tcase_add_loop_test(tc, a_transport_that_is_none, 0, n_suts);
    tcase_add_loop_test(tc, a_transport_with_flags_of_a_newer_header, 0,
                        n_suts);
    tcase_add_loop_test(tc, a_handle_with_flags_of_a_newer_header, 0, n_suts);
    tcase_add_loop_test(tc, options_of_a_newer_header, 0, n_suts);
    tcase_add_loop_test(tc, a_newer_header_that_asks_for_nothing_new, 0,
                        n_suts);
    tcase_add_loop_test(tc, times_that_run_backwards, 0, n_suts);
    tcase_add_loop_test(tc, the_limits_themselves_are_allowed, 0, n_suts);
}

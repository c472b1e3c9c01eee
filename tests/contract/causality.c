/* SPDX-License-Identifier: MIT
 *
 * causality.c - headers that say what an event came of, through generations
 * of events that are published while another is being handled.
 */
#include "kit.h"

#include <stdio.h>
#include <string.h>

static const char parent[] =
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
static const char some_id[] = "0190c2a8-7b1c-7cc3-98c4-dc0c0c07398f";

static const char *header_value(const outbox_event *ev, const char *name)
{
    for (size_t i = 0; i < ev->n_headers; i++) {
        if (strcmp(ev->headers[i].name, name) == 0)
            return ev->headers[i].value;
    }
    return NULL;
}

START_TEST(a_first_cause_begins_a_chain)
{
    outbox_header out[4];
    outbox_event cause = { .size = sizeof cause, .id = some_id };

    memset(out, 0x55, sizeof out);
    ck_assert_uint_eq(outbox_causality(&cause, out), 2);
    ck_assert_str_eq(out[0].name, "correlation-id");
    ck_assert_str_eq(out[0].value, some_id);
    ck_assert_str_eq(out[1].name, "causation-id");
    ck_assert_str_eq(out[1].value, some_id);
    ck_assert_ptr_eq(out[1].value, cause.id);   /* points into cause */
}
END_TEST

START_TEST(what_the_cause_carries_is_passed_on)
{
    static const outbox_header all[] = {
        { "tracestate", "congo=t61" },  { "x", "y" },
        { "causation-id", "an older" }, { "correlation-id", "the first" },
        { "traceparent", parent },      { "traceparent-x", "no" },
    };
    outbox_header out[4];
    outbox_event cause = { .size = sizeof cause, .id = some_id,
                           .headers = all, .n_headers = 6 };
    outbox_event next = { .headers = out };

    next.n_headers = outbox_causality(&cause, out);
    ck_assert_uint_eq(next.n_headers, 4);
    ck_assert_str_eq(header_value(&next, "correlation-id"), "the first");
    ck_assert_str_eq(header_value(&next, "causation-id"), some_id);
    ck_assert_str_eq(header_value(&next, "traceparent"), parent);
    ck_assert_str_eq(header_value(&next, "tracestate"), "congo=t61");
    cause.n_headers = 1;                /* the state alone */
    ck_assert_uint_eq(outbox_causality(&cause, out), 3);
    cause.headers = &all[4];            /* the parent alone */
    next.n_headers = outbox_causality(&cause, out);
    ck_assert_uint_eq(next.n_headers, 3);
    ck_assert_str_eq(header_value(&next, "traceparent"), parent);
    ck_assert_ptr_null(header_value(&next, "tracestate"));
    ck_assert_str_eq(header_value(&next, "correlation-id"), some_id);
}
END_TEST

/* Names of headers know no case: whoever published it may write as HTTP
 * libraries do. */
START_TEST(names_of_headers_in_any_case)
{
    static const outbox_header all[] = {
        { "Correlation-Id", "the first" }, { "TRACEPARENT", parent },
        { "TraceState", "congo=t61" },
    };
    outbox_header out[4];
    outbox_event cause = { .size = sizeof cause, .id = some_id,
                           .headers = all, .n_headers = 3 };
    outbox_event next = { .headers = out };

    next.n_headers = outbox_causality(&cause, out);
    ck_assert_uint_eq(next.n_headers, 4);
    ck_assert_str_eq(header_value(&next, "correlation-id"), "the first");
    ck_assert_str_eq(header_value(&next, "causation-id"), some_id);
    ck_assert_str_eq(header_value(&next, "traceparent"), parent);
    ck_assert_str_eq(header_value(&next, "tracestate"), "congo=t61");
}
END_TEST

START_TEST(nothing_comes_of_nothing)
{
    outbox_header out[4] = { { "untouched", "yes" } };
    outbox_event cause = { .size = sizeof cause };

    ck_assert_uint_eq(outbox_causality(NULL, out), 0);
    ck_assert_uint_eq(outbox_causality(&cause, out), 0);
    ck_assert_str_eq(out[0].name, "untouched");
}
END_TEST

/* A handler: each event of generation 1 to 3 causes the next, published over
 * another connection, while it is being sent. */
typedef struct handler {
    site      t;
    void     *conn;
    outbox_t *ob;
} handler;

static outbox_verdict handle(sink *s, const outbox_event *ev,
                             outbox_token token, outbox_error *why)
{
    handler *h = s->arg;
    outbox_header headers[4];
    outbox_event next = numbered(ev->key, event_number(ev) + 1);
    outbox_error err;

    (void)token, (void)why;
    if (event_number(ev) >= 4)
        return OUTBOX_ACK;
    next.headers = headers;
    next.n_headers = outbox_causality(ev, headers);
    ck_ok(h->t.w.sut->begin(h->conn));
    ck_ok(outbox_publish(h->ob, &next, &err));
    ck_ok(h->t.w.sut->commit(h->conn));
    return OUTBOX_ACK;
}

static void generations(int which, const outbox_header *first, size_t n)
{
    handler h;
    outbox_error err;
    outbox_event ev = numbered("k", 1);

    site_open(&h.t, which);
    h.conn = h.t.w.sut->conn_open(h.t.w.db);
    ck_ok(h.t.w.sut->outbox(&h.ob, h.conn, NULL, &err));
    h.t.w.sink.rule = handle;
    h.t.w.sink.arg = &h;
    ev.headers = first;
    ev.n_headers = n;
    publish_event(&h.t.w, &ev);
    site_relay(&h.t);
    run_for(&h.t.w, h.t.r, 500, 50);
    ck_assert(once_in_order(&h.t.w.sink, 1, 4));
    const char *root = n > 1 ? "root" : sink_at(&h.t.w.sink, 0)->event.id;
    for (size_t i = 1; i < 4; i++) {
        const outbox_event *got = &sink_at(&h.t.w.sink, i)->event;
        const outbox_event *cause = &sink_at(&h.t.w.sink, i - 1)->event;
        ck_assert_str_eq(header_value(got, "correlation-id"), root);
        ck_assert_str_eq(header_value(got, "causation-id"), cause->id);
        ck_assert_str_ne(got->id, cause->id);
        ck_assert_str_eq(header_value(got, "traceparent"), parent);
        ck_assert_uint_eq(got->n_headers, 3);
    }
    outbox_close(h.ob);
    h.t.w.sut->conn_close(h.conn);
    site_close(&h.t);
}

START_TEST(the_correlation_outlives_generations)
{
    static const outbox_header first[] = { { "traceparent", parent },
                                           { "correlation-id", "root" } };

    generations(_i, first, 1);
    generations(_i, first, 2);
}
END_TEST

/* Parked, dead, revived: the headers are still there. */
START_TEST(headers_survive_the_dead_letters)
{
    static const outbox_header first[] = {
        { "traceparent", parent }, { "tracestate", "a=b,c=d" },
        { "correlation-id", "root" }, { "causation-id", some_id },
    };
    site t;
    outbox_error err;
    outbox_header out[4];
    outbox_event ev = numbered("k", 1);

    site_open(&t, _i);
    ev.headers = first;
    ev.n_headers = 4;
    t.p.of[1] = OUTBOX_RETRY;
    publish_event(&t.w, &ev);
    site_relay(&t);
    run_among_others(&t.w, t.r, 1000, 50);
    ck_assert_int_eq(dead_count(&t.w, NULL), 1);
    t.p.of[1] = OUTBOX_ACK;
    ck_assert_int_eq(outbox_dead_revive(t.w.ob, "default", NULL, &err), 1);
    sink_forget(&t.w.sink);
    run_for(&t.w, t.r, 500, 50);
    const outbox_event *got = &sink_at(&t.w.sink, 0)->event;
    ck_assert_uint_eq(got->n_headers, 4);
    for (size_t i = 0; i < 4; i++) {
        ck_assert_str_eq(got->headers[i].name, first[i].name);
        ck_assert_str_eq(got->headers[i].value, first[i].value);
    }
    ck_assert_uint_eq(outbox_causality(got, out), 4);
    ck_assert_str_eq(out[0].value, "root");
    site_close(&t);
}
END_TEST

void add_causality_tests(Suite *s)
{
    TCase *tc = suite_case(s, "causality");

    tcase_add_test(tc, a_first_cause_begins_a_chain);
    tcase_add_test(tc, what_the_cause_carries_is_passed_on);
    tcase_add_test(tc, names_of_headers_in_any_case);
    tcase_add_test(tc, nothing_comes_of_nothing);
    tcase_add_loop_test(tc, the_correlation_outlives_generations, 0, n_ways);
    tcase_add_loop_test(tc, headers_survive_the_dead_letters, 0, n_ways);
}

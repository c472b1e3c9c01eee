/* SPDX-License-Identifier: MIT
 *
 * cloudevents.h - what the tests of CloudEvents share.
 *
 * Rules are quoted by the section of CloudEvents 1.0.2 that makes them: CE is
 * the core, JSON the event format, HTTP and AMQP the bindings.  jansson is
 * the referee: what it reads of our JSON, and whether a text is JSON at all.
 */
#ifndef TESTS_CLOUDEVENTS_H
#define TESTS_CLOUDEVENTS_H

#include "common/suite.h"

#include <jansson.h>
#include <outbox/cloudevents.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ID "018bcfe5-6800-7000-8000-0123456789ab"
#define SOURCE "https://shop.example/orders"
#define TRACE "00-0af7651916cd43dd8448eb211c80319c-b9c7c989f97918e1-01"

/* A whole event; what follows comes last, and so may be wrong. */
#define BARE "\"specversion\":\"1.0\",\"id\":\"A\",\"source\":\"/s\""
#define WITH(more) "{" BARE ",\"type\":\"t\"," more "}"

static const outbox_header paid_headers[] = {
    { "traceparent", TRACE },
    { "tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE" },
    { "correlation-id", "c-1" },
    { "causation-id", "e-0" },
    { "X-Tenant.Name", "Euro \xe2\x82\xac \xf0\x9f\x98\x80" },
};

static inline outbox_event paid(void)
{
    static const char payload[] = "{ \"total\": 1.10 }";

    return (outbox_event){
        .size = sizeof(outbox_event),
        .topic = "orders",
        .type = "order.paid",
        .key = "customer 7",
        .id = ID,
        .payload = payload,
        .payload_len = sizeof payload - 1,
        .headers = paid_headers,
        .n_headers = COUNT(paid_headers),
        .published_ms = 1700000000123,
    };
}

/* Read a message that ends where its memory ends, so that a sanitizer sees
 * every byte too many. */
static inline int parse(const outbox_header *headers, size_t n,
                        const void *body, size_t len, outbox_event **ev,
                        const char **source, outbox_error *err)
{
    char *copy = malloc(len > 0 ? len : 1);
    int rc;

    ck_assert_ptr_nonnull(copy);
    memcpy(copy, body, len);
    *ev = (outbox_event *)copy;
    rc = outbox_cloudevents_parse(headers, n, copy, len, ev, source, err);
    free(copy);
    ck_assert((rc == OUTBOX_OK) == (*ev != NULL));
    return rc;
}

static inline outbox_event *parse_ok(const outbox_header *headers, size_t n,
                                     const void *body, size_t len)
{
    outbox_event *ev;
    outbox_error err = { .code = 0 };
    int rc = parse(headers, n, body, len, &ev, NULL, &err);

    ck_assert_msg(rc == OUTBOX_OK, "%.300s: %s", (const char *)body, err.text);
    return ev;
}

static inline outbox_event *json_ok(const char *json)
{
    return parse_ok(NULL, 0, json, strlen(json));
}

/* The error says this, in one line of ASCII. */
static inline void refused(int rc, const outbox_error *err, const char *says,
                           const char *what)
{
    ck_assert_msg(rc == OUTBOX_EINVAL, "%s: %d", what, rc);
    ck_assert_int_eq(err->code, OUTBOX_EINVAL);
    ck_assert_msg(strstr(err->text, says) != NULL, "%s: \"%s\" without \"%s\"",
                  what, err->text, says);
    for (const char *c = err->text; *c != '\0'; c++)
        ck_assert(*c >= ' ' && *c <= '~');
}

static inline void json_refused(const char *json, size_t len, const char *says)
{
    outbox_event *ev;
    outbox_error err;
    const char *source = json;
    int rc = parse(NULL, 0, json, len, &ev, &source, &err);

    refused(rc, &err, says, json);
    ck_assert_ptr_null(source);
}

static inline const char *header_of(const outbox_header *h, size_t n,
                                    const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(h[i].name, name) == 0)
            return h[i].value;
    }
    return NULL;
}

static inline const char *header_in(const outbox_event *ev, const char *name)
{
    return header_of(ev->headers, ev->n_headers, name);
}

/* What jansson reads of the event in structured mode; *json too if asked. */
static inline json_t *structured(const outbox_event *ev, char **json)
{
    json_t *object;
    char *text;
    size_t len;
    outbox_error err = { .code = 0 };
    int rc = outbox_cloudevents_structured(ev, SOURCE, &text, &len, &err);

    ck_assert_msg(rc == OUTBOX_OK, "%s", err.text);
    ck_assert_uint_eq(strlen(text), len);
    object = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    ck_assert_msg(object != NULL || json != NULL, "%.300s", text);
    if (json != NULL)
        *json = text;
    else
        outbox_cloudevents_free(text);
    return object;
}

static inline const char *member(json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static inline outbox_header *binary(const outbox_event *ev,
                                    outbox_binding binding, size_t *n)
{
    outbox_header *h;
    outbox_error err = { .code = 0 };
    int rc = outbox_cloudevents_binary(ev, SOURCE, binding, &h, n, &err);

    ck_assert_msg(rc == OUTBOX_OK, "%s", err.text);
    return h;
}

/* A message in binary mode that has what is required, at each spelling that
 * HTTP allows, with one header more. */
enum { MESSAGE = 6 };

static inline void message(outbox_header h[MESSAGE], const char *name,
                           const char *value)
{
    static const outbox_header required[] = {
        { "Content-Type", " text/plain " }, { "CE-Id", "A" },
        { "ce-source", "/s" }, { "Ce-SpecVersion", "1.0" },
        { "ce-type", "t" },
    };

    memcpy(h, required, sizeof required);
    h[MESSAGE - 1] = (outbox_header){ name, value };
}

#define EACH(tc, test, table) tcase_add_loop_test(tc, test, 0, COUNT(table))

#endif

/* SPDX-License-Identifier: MIT
 *
 * test_cloudevents_write.c - writing CloudEvents, and what cannot be one.
 */
#include "cloudevents.h"

/* ---- what is written ---------------------------------------------------- */

START_TEST(structured_to_the_letter)
{
    outbox_event ev = paid();
    char *json;

    json_decref(structured(&ev, &json));
    ck_assert_str_eq(json,
        "{\"datacontenttype\":\"application/json\",\"specversion\":\"1.0\","
        "\"id\":\"" ID "\",\"source\":\"" SOURCE "\",\"type\":\"order.paid\","
        "\"time\":\"2023-11-14T22:13:20.123Z\","
        "\"partitionkey\":\"customer 7\",\"traceparent\":\"" TRACE "\","
        "\"tracestate\":\"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE\","
        "\"correlationid\":\"c-1\",\"causationid\":\"e-0\","
        "\"xtenantname\":\"Euro \xe2\x82\xac \xf0\x9f\x98\x80\","
        "\"subject\":\"customer 7\",\"data\":{ \"total\": 1.10 }}");
    outbox_cloudevents_free(json);
}
END_TEST

static const struct {
    const char *type, *prefix, *spaced, *euro;
} bindings[] = {
    [OUTBOX_BINDING_HTTP] = { "content-type", "ce-", "customer%207",
                              "Euro%20%E2%82%AC%20%F0%9F%98%80" },
    [OUTBOX_BINDING_NATS] = { "ce-datacontenttype", "ce-", "customer%207",
                              "Euro%20%E2%82%AC%20%F0%9F%98%80" },
    [OUTBOX_BINDING_KAFKA] = { "content-type", "ce_", "customer 7",
                               "Euro \xe2\x82\xac \xf0\x9f\x98\x80" },
    [OUTBOX_BINDING_AMQP] = { "content-type", "cloudEvents:", "customer 7",
                              "Euro \xe2\x82\xac \xf0\x9f\x98\x80" },
};

START_TEST(binary_to_the_letter)
{
    const char *expected[][2] = {
        { "specversion", "1.0" }, { "id", ID }, { "source", SOURCE },
        { "type", "order.paid" }, { "time", "2023-11-14T22:13:20.123Z" },
        { "partitionkey", bindings[_i].spaced }, { "traceparent", TRACE },
        { "tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE" },
        { "correlationid", "c-1" }, { "causationid", "e-0" },
        { "xtenantname", bindings[_i].euro },
        { "subject", bindings[_i].spaced },
    };
    outbox_event ev = paid();
    size_t n;
    outbox_header *h = binary(&ev, (outbox_binding)_i, &n);

    ck_assert_uint_eq(n, COUNT(expected) + 1);
    ck_assert_str_eq(h[0].name, bindings[_i].type);
    ck_assert_str_eq(h[0].value, "application/json");
    for (size_t i = 0; i < COUNT(expected); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s%s", bindings[_i].prefix,
                 expected[i][0]);
        ck_assert_str_eq(h[i + 1].name, name);
        ck_assert_str_eq(h[i + 1].value, expected[i][1]);
    }
    outbox_cloudevents_free(h);
}
END_TEST

/* HTTP 3.1.3.2: what must be percent-encoded, byte by byte. */
START_TEST(percent_encoding)
{
    for (unsigned c = 0x20; c < 0x7f; c++) {
        char key[] = { 'a', (char)c, 'b', '\0' }, is[8];
        outbox_event ev = paid();
        ev.key = key;
        bool encode = c == ' ' || c == '"' || c == '%';
        snprintf(is, sizeof is, encode ? "a%%%02Xb" : "a%cb", c);
        size_t n;
        outbox_header *h = binary(&ev, OUTBOX_BINDING_HTTP, &n);
        ck_assert_str_eq(header_of(h, n, "ce-subject"), is);
        outbox_cloudevents_free(h);
    }
}
END_TEST

/* HTTP 3.1.1: Content-Type is not encoded; NATS has an attribute like any
 * other. */
START_TEST(content_type_as_it_is)
{
    outbox_event ev = paid();
    size_t n;

    ev.content_type = "text/plain; charset=\"utf-8\"";
    outbox_header *h = binary(&ev, OUTBOX_BINDING_HTTP, &n);
    ck_assert_str_eq(h[0].value, ev.content_type);
    outbox_cloudevents_free(h);
    h = binary(&ev, OUTBOX_BINDING_NATS, &n);
    ck_assert_str_eq(h[0].value, "text/plain;%20charset=%22utf-8%22");
    outbox_cloudevents_free(h);
}
END_TEST

/* Without a time, a header of that name does not become one. */
START_TEST(least_event)
{
    static const outbox_header h[] = { { "time", "noon" }, { "data", "x" } };
    outbox_event ev = { .size = sizeof ev, .topic = "orders", .id = ID,
                        .key = "", .type = "", .content_type = "",
                        .headers = h, .n_headers = COUNT(h) };
    char *json;

    json_decref(structured(&ev, &json));
    ck_assert_str_eq(json, "{\"datacontenttype\":\"application/json\","
                           "\"specversion\":\"1.0\",\"id\":\"" ID "\","
                           "\"source\":\"" SOURCE "\",\"type\":\"orders\"}");
    outbox_cloudevents_free(json);
}
END_TEST

/* Headers that have no attribute, or whose attribute is taken. */
START_TEST(headers_left_out)
{
    static char longest[257], shorter[256];
    const outbox_header h[] = {
        { "Id", "x" }, { "s-o-u-r-c-e", "x" }, { "specversion", "9" },
        { "type", "x" }, { "time", "x" }, { "data", "x" },
        { "content-type", "text/html" }, { "DataContentType", "x" },
        { "partitionkey", "x" }, { "a", "first" }, { "A", "second" },
        { "b/c", "x" }, { "\xc3\xa4", "x" }, { "-", "x" }, { "empty", "" },
        { longest, "x" }, { shorter, "y" }, { "subject", "mine" },
        { "dataschema", "urn:x" }, { "data_base64", "z" },
    };
    outbox_event ev = paid();

    memset(longest, 'l', sizeof longest - 1);
    memset(shorter, 's', sizeof shorter - 1);
    ev.headers = h;
    ev.n_headers = COUNT(h);
    json_t *object = structured(&ev, NULL);
    ck_assert_uint_eq(json_object_size(object), 14);
    ck_assert_str_eq(member(object, "id"), ID);
    ck_assert_str_eq(member(object, "source"), SOURCE);
    ck_assert_str_eq(member(object, "type"), "order.paid");
    ck_assert_str_eq(member(object, "datacontenttype"), "application/json");
    ck_assert_str_eq(member(object, "contenttype"), "text/html");
    ck_assert_str_eq(member(object, "partitionkey"), "customer 7");
    ck_assert_str_eq(member(object, "a"), "first");
    ck_assert_str_eq(member(object, shorter), "y");
    ck_assert_str_eq(member(object, "subject"), "mine");
    ck_assert_str_eq(member(object, "dataschema"), "urn:x");
    ck_assert_str_eq(member(object, "database64"), "z");
    json_decref(object);
}
END_TEST

/* ---- what is refused ---------------------------------------------------- */

typedef void spoiler(outbox_event *ev, const char **source);

#define SPOIL(name, change)                                                    \
    static void name(outbox_event *ev, const char **source)                    \
    {                                                                          \
        (void)source;                                                          \
        change;                                                                \
    }

static const outbox_header no_name[] = { { NULL, "x" } };
static const outbox_header tabbed[] = { { "a", "b" }, { "b", "c\td" } };
static const outbox_header relative[] = { { "dataschema", "a" } };

SPOIL(no_id, ev->id = NULL)
SPOIL(empty_id, ev->id = "")
SPOIL(bad_id, ev->id = "a\nb")
SPOIL(no_source, *source = NULL; (void)ev)
SPOIL(empty_source, *source = ""; (void)ev)
SPOIL(bad_source, *source = "no uri"; (void)ev)
SPOIL(no_type, ev->type = ev->topic = NULL)
SPOIL(bad_type, ev->type = "\xff")
SPOIL(bad_topic, ev->type = ""; ev->topic = "\x7f")
SPOIL(bad_key, ev->key = "a\x01")
SPOIL(noncharacter_key, ev->key = "\xf4\x8f\xbf\xbf")
SPOIL(bad_content_type, ev->content_type = "json")
SPOIL(late, ev->published_ms = 253402300800000)
SPOIL(early, ev->published_ms = -62167219200001)
SPOIL(never, ev->published_ms = INT64_MAX)
SPOIL(null_headers, ev->headers = NULL)
SPOIL(null_payload, ev->payload = NULL)
SPOIL(null_name, ev->headers = no_name; ev->n_headers = 1)
SPOIL(tab, ev->headers = tabbed; ev->n_headers = 2)
SPOIL(bad_schema, ev->headers = relative; ev->n_headers = 1)
SPOIL(no_size, ev->size = 0)

static const struct {
    spoiler    *spoil;
    const char *says;
} spoilers[] = {
    { no_id, "id is empty" },
    { empty_id, "id is empty" },
    { bad_id, "id has a control character" },
    { no_source, "source is empty" },
    { empty_source, "source is empty" },
    { bad_source, "source is no URI reference" },
    { no_type, "type and topic are empty" },
    { bad_type, "type is not UTF-8; the attribute type" },
    { bad_topic, "topic has a control character; the attribute type" },
    { bad_key, "key has a control character; the attribute partitionkey" },
    { noncharacter_key, "key has a noncharacter" },
    { bad_content_type, "content_type is no media type" },
    { late, "published_ms is outside" },
    { early, "published_ms is outside" },
    { never, "published_ms is outside" },
    { null_headers, "headers is NULL and n_headers is 5" },
    { null_payload, "payload is NULL and payload_len is 17" },
    { null_name, "headers[0] has no name or no value" },
    { tab, "headers[1] has a control character; the attribute b" },
    { bad_schema, "headers[0], dataschema, is no absolute URI" },
    { no_size, "event.size is 0" },
};

START_TEST(refused_event)
{
    outbox_event ev = paid();
    const char *source = SOURCE;
    char *json = (char *)&ev;
    outbox_header *h = (outbox_header *)&ev;
    size_t n = 1;
    outbox_error err;

    spoilers[_i].spoil(&ev, &source);
    int rc = outbox_cloudevents_structured(&ev, source, &json, &n, &err);
    refused(rc, &err, spoilers[_i].says, "structured");
    ck_assert(json == NULL && n == 0);
    n = 1;
    rc = outbox_cloudevents_binary(&ev, source, OUTBOX_BINDING_AMQP, &h, &n,
                                   &err);
    refused(rc, &err, spoilers[_i].says, "binary");
    ck_assert(h == NULL && n == 0);
    ck_assert_int_eq(outbox_cloudevents_structured(&ev, source, &json, &n,
                                                   NULL), OUTBOX_EINVAL);
}
END_TEST

START_TEST(refused_arguments)
{
    outbox_event ev = paid(), *back;
    const outbox_header no_value[] = { { "ce-id", NULL } };
    outbox_header *h;
    char *json;
    size_t n;
    outbox_error err;

    refused(outbox_cloudevents_structured(NULL, SOURCE, &json, &n, &err), &err,
            "event is NULL", "event");
    refused(outbox_cloudevents_structured(&ev, SOURCE, NULL, &n, &err), &err,
            "json or len is NULL", "json");
    refused(outbox_cloudevents_binary(&ev, SOURCE, 0, &h, NULL, &err), &err,
            "headers or n is NULL", "n");
    refused(outbox_cloudevents_binary(&ev, SOURCE, (outbox_binding)4, &h, &n,
                                      &err), &err, "binding is 4", "binding");
    refused(outbox_cloudevents_parse(NULL, 1, "", 0, &back, NULL, &err), &err,
            "headers is NULL", "headers");
    refused(outbox_cloudevents_parse(NULL, 0, NULL, 1, &back, NULL, &err),
            &err, "body is NULL", "body");
    refused(outbox_cloudevents_parse(NULL, 0, NULL, 0, &back, NULL, &err),
            &err, "no JSON object", "nothing");
    refused(outbox_cloudevents_parse(no_value, 1, "", 0, &back, NULL, &err),
            &err, "headers[0] has no name or no value", "value");
    refused(outbox_cloudevents_parse(NULL, 0, "{}", 2, NULL, NULL, &err), &err,
            "ev is NULL", "ev");
    outbox_cloudevents_free(NULL);
}
END_TEST

/* A content type that would make binary mode look structured: HTTP 3. */
START_TEST(refused_envelope)
{
    outbox_event ev = paid();
    outbox_header *h;
    size_t n;
    outbox_error err;

    ev.content_type = "Application/CloudEvents+json";
    refused(outbox_cloudevents_binary(&ev, SOURCE, 0, &h, &n, &err), &err,
            "content_type begins with application/cloudevents", "binary");
    json_decref(structured(&ev, NULL));
}
END_TEST

/* A caller of an older outbox.h, and one of a newer. */
START_TEST(event_of_another_size)
{
    struct {
        outbox_event ev;
        char         more[16];
    } newer = { paid(), { 0 } };
    outbox_event old = paid();
    char *json;
    size_t n;
    outbox_error err;

    newer.ev.size = sizeof newer;
    json_decref(structured(&newer.ev, NULL));
    newer.more[15] = 1;
    refused(outbox_cloudevents_structured(&newer.ev, SOURCE, &json, &n, &err),
            &err, "is older than the program", "newer");
    old.size = offsetof(outbox_event, position);
    json_t *object = structured(&old, NULL);
    ck_assert_ptr_null(member(object, "time"));
    json_decref(object);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cloudevents_write");
    TCase *tc = suite_case(s, "written");

    tcase_add_test(tc, structured_to_the_letter);
    EACH(tc, binary_to_the_letter, bindings);
    tcase_add_test(tc, percent_encoding);
    tcase_add_test(tc, content_type_as_it_is);
    tcase_add_test(tc, least_event);
    tcase_add_test(tc, headers_left_out);
    tc = suite_case(s, "refused");
    EACH(tc, refused_event, spoilers);
    tcase_add_test(tc, refused_arguments);
    tcase_add_test(tc, refused_envelope);
    tcase_add_test(tc, event_of_another_size);
    return suite_main(s);
}

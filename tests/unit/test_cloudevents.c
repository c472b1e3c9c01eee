/* SPDX-License-Identifier: MIT
 *
 * test_cloudevents.c - the mapping to CloudEvents 1.0.2, rule by rule.
 *
 * Rules are quoted by the section of the specification that makes them: CE is
 * the core, JSON the event format, HTTP, AMQP the bindings.  jansson is the
 * referee: what it reads of our JSON, and whether a text is JSON at all.
 */
#include "common/suite.h"

#include <inttypes.h>
#include <jansson.h>
#include <outbox/cloudevents.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ID "018bcfe5-6800-7000-8000-0123456789ab"
#define SOURCE "https://shop.example/orders"
#define TRACE "00-0af7651916cd43dd8448eb211c80319c-b9c7c989f97918e1-01"

/* ---- helpers ------------------------------------------------------------- */

static const outbox_header paid_headers[] = {
    { "traceparent", TRACE },
    { "tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE" },
    { "correlation-id", "c-1" },
    { "causation-id", "e-0" },
    { "X-Tenant.Name", "Euro \xe2\x82\xac \xf0\x9f\x98\x80" },
};

static outbox_event paid(void)
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
static int parse(const outbox_header *headers, size_t n, const void *body,
                 size_t len, outbox_event **ev, const char **source,
                 outbox_error *err)
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

static outbox_event *parse_ok(const outbox_header *headers, size_t n,
                              const void *body, size_t len)
{
    outbox_event *ev;
    outbox_error err = { .code = 0 };
    int rc = parse(headers, n, body, len, &ev, NULL, &err);

    ck_assert_msg(rc == OUTBOX_OK, "%.300s: %s", (const char *)body, err.text);
    return ev;
}

static outbox_event *json_ok(const char *json)
{
    return parse_ok(NULL, 0, json, strlen(json));
}

/* The error says this, in one line of ASCII. */
static void refused(int rc, const outbox_error *err, const char *says,
                    const char *what)
{
    ck_assert_msg(rc == OUTBOX_EINVAL, "%s: %d", what, rc);
    ck_assert_int_eq(err->code, OUTBOX_EINVAL);
    ck_assert_msg(strstr(err->text, says) != NULL, "%s: \"%s\" without \"%s\"",
                  what, err->text, says);
    for (const char *c = err->text; *c != '\0'; c++)
        ck_assert(*c >= ' ' && *c <= '~');
}

static void json_refused(const char *json, size_t len, const char *says)
{
    outbox_event *ev;
    outbox_error err;
    const char *source = json;
    int rc = parse(NULL, 0, json, len, &ev, &source, &err);

    refused(rc, &err, says, json);
    ck_assert_ptr_null(source);
}

static const char *header_of(const outbox_header *h, size_t n,
                             const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(h[i].name, name) == 0)
            return h[i].value;
    }
    return NULL;
}

static const char *header_in(const outbox_event *ev, const char *name)
{
    return header_of(ev->headers, ev->n_headers, name);
}

/* What jansson reads of the event in structured mode; *json too if asked. */
static json_t *structured(const outbox_event *ev, char **json)
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

static const char *member(json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

/* ---- rules of structured events ------------------------------------------ */

/* A whole event; what follows comes last, and so may be wrong. */
#define BARE "\"specversion\":\"1.0\",\"id\":\"A\",\"source\":\"/s\""
#define WITH(more) "{" BARE ",\"type\":\"t\"," more "}"

static const struct rule {
    const char *section, *good, *bad, *says;
} rules[] = {
    { "CE id: required",
      "{\"id\":\"A\",\"specversion\":\"1.0\",\"source\":\"/s\",\"type\":\"t\"}",
      "{\"specversion\":\"1.0\",\"source\":\"/s\",\"type\":\"t\"}",
      "id is missing" },
    { "CE id: a non-empty string", WITH("\"a\":\"b\""),
      "{\"specversion\":\"1.0\",\"id\":\"\",\"source\":\"s\",\"type\":\"t\"}",
      "id is empty" },
    { "CE id: String", WITH("\"a\":5"),
      "{\"specversion\":\"1.0\",\"id\":5,\"source\":\"s\",\"type\":\"t\"}",
      "id is not a string" },
    { "CE source: required", WITH("\"a\":\"b\""),
      "{\"specversion\":\"1.0\",\"id\":\"A\",\"type\":\"t\"}",
      "source is missing" },
    { "CE source: non-empty", WITH("\"a\":\"b\""),
      "{\"specversion\":\"1.0\",\"id\":\"A\",\"source\":\"\",\"type\":\"t\"}",
      "source is empty" },
    { "CE specversion: required", WITH("\"a\":\"b\""),
      "{\"id\":\"A\",\"source\":\"/s\",\"type\":\"t\"}",
      "specversion is missing" },
    { "CE specversion: 1.0", WITH("\"a\":\"b\""),
      "{\"specversion\":\"0.3\",\"id\":\"A\",\"source\":\"s\",\"type\":\"t\"}",
      "specversion is \"0.3\"" },
    { "CE specversion: String", WITH("\"a\":\"b\""),
      "{\"specversion\":1.0,\"id\":\"A\",\"source\":\"s\",\"type\":\"t\"}",
      "specversion is not a string" },
    { "CE type: required", WITH("\"a\":\"b\""), "{" BARE "}",
      "type is missing" },
    { "CE type: non-empty", WITH("\"a\":\"b\""), "{" BARE ",\"type\":\"\"}",
      "type is empty" },
    { "CE subject: non-empty", WITH("\"subject\":\"x\""),
      WITH("\"subject\":\"\""), "subject is empty" },
    { "CE subject: String", WITH("\"subject\":\"1\""), WITH("\"subject\":1"),
      "subject is not a string" },
    { "CE time: RFC 3339", WITH("\"time\":\"2018-04-05T17:31:00Z\""),
      WITH("\"time\":\"yesterday\""), "time is not as in RFC 3339" },
    { "CE datacontenttype: RFC 2046", WITH("\"datacontenttype\":\"text/xml\""),
      WITH("\"datacontenttype\":\"xml\""), "datacontenttype is no media type" },
    { "CE dataschema: URI", WITH("\"dataschema\":\"https://x.example/a\""),
      WITH("\"dataschema\":\"/a\""), "dataschema is no absolute URI" },
    { "CE dataschema: non-empty", WITH("\"dataschema\":\"a:\""),
      WITH("\"dataschema\":\"\""), "dataschema is empty" },
    { "CE dataschema: not a Boolean", WITH("\"dataschema\":\"a:b\""),
      WITH("\"dataschema\":true"), "dataschema is not a string" },
    { "Partitioning: a non-empty string", WITH("\"partitionkey\":\"k\""),
      WITH("\"partitionkey\":\"\""), "partitionkey is empty" },
    { "CE naming: lower-case letters", WITH("\"comexample\":\"\""),
      WITH("\"comExample\":\"\""), "\"comExample\": a name has letters" },
    { "CE naming: or digits", WITH("\"1a2\":\"\""), WITH("\"a_2\":\"\""),
      "\"a_2\": a name has letters" },
    { "CE naming: at least one", WITH("\"a\":\"\""), WITH("\"\":\"\""),
      "\"\": a name has letters" },
    { "CE naming: of ASCII", WITH("\"ae\":\"\""), WITH("\"\xc3\xa4\":\"\""),
      "\"??\": a name has letters" },
    { "CE naming: also when unset", WITH("\"a\":null"), WITH("\"A\":null"),
      "\"A\": a name has letters" },
    { "JSON strings: a name has no NUL", WITH("\"\\u0061\":\"\""),
      WITH("\"a\\u0000\":\"\""), "has a NUL" },
    { "CE naming: each attribute once", WITH("\"a\":\"b\",\"b\":\"b\""),
      WITH("\"a\":\"b\",\"\\u0061\":\"b\""), "a is there twice" },
    { "CE naming: also of the required", WITH("\"ids\":\"A\""),
      WITH("\"id\":\"A\""), "id is there twice" },
    { "CE naming: also of the renamed", WITH("\"correlationid\":\"b\""),
      WITH("\"causationid\":\"b\",\"causationid\":\"b\""),
      "causation-id is there twice" },
    { "CE types: Integer, at most", WITH("\"a\":2147483647"),
      WITH("\"a\":2147483648"), "no integer of 32 bits" },
    { "CE types: Integer, at least", WITH("\"a\":-2147483648"),
      WITH("\"a\":-2147483649"), "no integer of 32 bits" },
    { "CE types: Integer, of any length", WITH("\"a\":0"),
      WITH("\"a\":18446744073709551617"), "no integer of 32 bits" },
    { "CE types: Integer component only", WITH("\"a\":-1"),
      WITH("\"a\":1.0"), "no integer of 32 bits" },
    { "CE types: Integer, no exponent", WITH("\"a\":10"), WITH("\"a\":1e1"),
      "no integer of 32 bits" },
    { "CE types: no maps", WITH("\"a\":true"), WITH("\"a\":{}"),
      "a is an object or an array" },
    { "CE types: no lists", WITH("\"a\":false"), WITH("\"a\":[1]"),
      "a is an object or an array" },
    { "CE types: String, U+0000", WITH("\"a\":\"\\u0020\""),
      WITH("\"a\":\"b\\u0000c\""), "a has a control character" },
    { "CE types: String, to U+001F", WITH("\"a\":\"\\u0020\""),
      WITH("\"a\":\"\\u001f\""), "a has a control character" },
    { "CE types: String, U+007F", WITH("\"a\":\"~\""),
      WITH("\"a\":\"\x7f\""), "a has a control character" },
    { "CE types: String, to U+009F", WITH("\"a\":\"\\u00a0\""),
      WITH("\"a\":\"\\u009f\""), "a has a control character" },
    { "CE types: String, also in the id", WITH("\"a\":\"\\u00a0\""),
      "{\"id\":\"A\\n\",\"specversion\":\"1.0\",\"source\":\"/s\"}",
      "id has a control character" },
    { "CE types: String, U+FDD0", WITH("\"a\":\"\\ufdcf\\ufdf0\""),
      WITH("\"a\":\"\\ufdd0\""), "a has a noncharacter" },
    { "CE types: String, U+FDEF", WITH("\"a\":\"\\ufdf0\""),
      WITH("\"a\":\"\xef\xb7\xaf\""), "a has a noncharacter" },
    { "CE types: String, U+FFFE", WITH("\"a\":\"\\ufffd\""),
      WITH("\"a\":\"\\ufffe\""), "a has a noncharacter" },
    { "CE types: String, U+1FFFF", WITH("\"a\":\"\\ud83f\\udffd\""),
      WITH("\"a\":\"\\ud83f\\udfff\""), "a has a noncharacter" },
    { "CE types: String, paired surrogates", WITH("\"a\":\"\\uD800\\uDEAD\""),
      WITH("\"a\":\"\\uDEAD\""), "no JSON object: see byte" },
    { "CE types: String, both halves", WITH("\"a\":\"\\uD800\\uDEAD\""),
      WITH("\"a\":\"\\uD800\\uD800\""), "no JSON object: see byte" },
    { "JSON 2.2: null is unset", WITH("\"subject\":null"),
      "{" BARE ",\"type\":null}", "type is missing" },
    { "JSON 3.1.1: data and data_base64", WITH("\"data\":1"),
      WITH("\"data\":1,\"data_base64\":\"MQ==\""), "exclude each other" },
    { "JSON 3.1.1: data once", WITH("\"data\":[1,1]"),
      WITH("\"data\":1,\"data\":1"), "a data member is there twice" },
    { "JSON 3.1.1: a data of null is data",
      WITH("\"data\":null,\"data_base64\":null"),
      WITH("\"data\":null,\"data_base64\":\"MQ==\""), "exclude each other" },
    { "JSON 3.1.1: data_base64 is a string", WITH("\"data_base64\":\"\""),
      WITH("\"data_base64\":5"), "data_base64 is not a string" },
    { "JSON 3.1.2: data of text is a string",
      WITH("\"datacontenttype\":\"text/plain\",\"data\":\"5\""),
      WITH("\"datacontenttype\":\"text/plain\",\"data\":5"),
      "data is not a string" },
    { "JSON 3: one object", " " WITH("\"a\":1") "\n", "[" WITH("\"a\":1") "]",
      "no JSON object: see byte 0" },
    { "JSON 3: and nothing else", WITH("\"a\":1"), WITH("\"a\":1") ",",
      "no JSON object: see byte" },
};

START_TEST(rule_of_structured)
{
    const struct rule *r = &rules[_i];

    outbox_cloudevents_free(json_ok(r->good));
    json_refused(r->bad, strlen(r->bad), r->says);
}
END_TEST

/* The specification's own examples: JSON, 3.2. */
START_TEST(specification_examples)
{
    static const char head[] =
        "{ \"specversion\" : \"1.0\", \"type\" : \"com.example.someevent\","
        " \"source\" : \"/mycontext\", \"subject\": null,"
        " \"id\" : \"C234-1234-1234\", \"time\" : \"2018-04-05T17:31:00Z\","
        " \"comexampleextension1\" : \"value\","
        " \"comexampleothervalue\" : 5, \"unsetextension\": null, ";
    static const struct {
        const char *tail, *content_type, *payload;
    } examples[] = {
        { "\"datacontenttype\" : \"application/vnd.apache.thrift.binary\","
          " \"data_base64\" : \"Zm9vYg==\" }",
          "application/vnd.apache.thrift.binary", "foob" },
        { "\"datacontenttype\" : \"application/xml\","
          " \"data\" : \"<much wow=\\\"xml\\\"/>\" }",
          "application/xml", "<much wow=\"xml\"/>" },
        { "\"datacontenttype\" : \"application/json\","
          " \"data\" : { \"appinfoA\" : \"abc\", \"appinfoB\" : 123 } }",
          "application/json", "{ \"appinfoA\" : \"abc\", \"appinfoB\" : 123 }" },
        { "\"data\" : \"I'm just a string\" }", "application/json",
          "\"I'm just a string\"" },
        { "\"data\" : null }", "application/json", "null" },
        { "\"data_base64\" : \"eyAieHl6IjogMTIzIH0=\" }", NULL,
          "{ \"xyz\": 123 }" },
        { "\"more\" : \"no data at all\" }", NULL, "" },
    };

    for (size_t i = 0; i < COUNT(examples); i++) {
        char json[1024];
        snprintf(json, sizeof json, "%s%s", head, examples[i].tail);
        outbox_event *ev = json_ok(json);
        ck_assert_str_eq(ev->id, "C234-1234-1234");
        ck_assert_str_eq(ev->type, "com.example.someevent");
        ck_assert_ptr_null(ev->topic);
        ck_assert_ptr_null(ev->key);
        ck_assert_int_eq(ev->published_ms, 1522949460000);
        ck_assert_pstr_eq(ev->content_type, examples[i].content_type);
        ck_assert_uint_eq(ev->payload_len, strlen(examples[i].payload));
        ck_assert_str_eq(ev->payload, examples[i].payload);
        ck_assert_str_eq(header_in(ev, "comexampleextension1"), "value");
        ck_assert_str_eq(header_in(ev, "comexampleothervalue"), "5");
        ck_assert_ptr_null(header_in(ev, "unsetextension"));
        outbox_cloudevents_free(ev);
    }
}
END_TEST

/* ---- values of each type --------------------------------------------------- */

/* CE types: Timestamp, with what it is worth; INT64_MIN: it is none. */
static const struct {
    const char *text;
    int64_t     ms;
} times[] = {
    { "1970-01-01T00:00:00Z", 0 },
    { "1969-12-31T23:59:59.999Z", -1 },
    { "2018-04-05T17:31:00Z", 1522949460000 },
    { "2018-04-05t17:31:00z", 1522949460000 },
    { "2018-04-05T19:31:00+02:00", 1522949460000 },
    { "2018-04-05T13:01:00-04:30", 1522949460000 },
    { "2018-04-05T17:31:00-00:00", 1522949460000 },
    { "2018-04-05T17:31:00.5Z", 1522949460500 },
    { "2018-04-05T17:31:00.1239999999999Z", 1522949460123 },
    { "2000-02-29T00:00:00Z", 951782400000 },
    { "1900-03-01T00:00:00Z", -2203891200000 },
    { "0000-01-01T00:00:00Z", -62167219200000 },
    { "9999-12-31T23:59:59.999Z", 253402300799999 },
    { "2016-12-31T23:59:60Z", 1483228800000 },
    { "2016-12-31T18:29:60-05:30", 1483228800000 },
    { "2016-12-31T23:58:60Z", INT64_MIN },
    { "1900-02-29T00:00:00Z", INT64_MIN },
    { "2018-02-29T00:00:00Z", INT64_MIN },
    { "2018-04-31T00:00:00Z", INT64_MIN },
    { "2018-13-01T00:00:00Z", INT64_MIN },
    { "2018-00-01T00:00:00Z", INT64_MIN },
    { "2018-04-00T00:00:00Z", INT64_MIN },
    { "2018-04-05T24:00:00Z", INT64_MIN },
    { "2018-04-05T17:60:00Z", INT64_MIN },
    { "2018-04-05T17:31:61Z", INT64_MIN },
    { "2018-04-05T17:31:00", INT64_MIN },
    { "2018-04-05T17:31:00.Z", INT64_MIN },
    { "2018-04-05T17:31:00,5Z", INT64_MIN },
    { "2018-04-05T17:31:00+0200", INT64_MIN },
    { "2018-04-05T17:31:00+24:00", INT64_MIN },
    { "2018-04-05T17:31:00+02:60", INT64_MIN },
    { "2018-04-05T17:31:00Zx", INT64_MIN },
    { "2018-04-05T17:31:00+02:00 ", INT64_MIN },
    { "2018-04-05 17:31:00Z", INT64_MIN },
    { "2018-4-5T17:31:00Z", INT64_MIN },
    { "+018-04-05T17:31:00Z", INT64_MIN },
    { "2018-04-05", INT64_MIN },
};

START_TEST(timestamps)
{
    char json[256];

    snprintf(json, sizeof json, WITH("\"time\":\"%s\""), times[_i].text);
    if (times[_i].ms == INT64_MIN) {
        json_refused(json, strlen(json), "time is not as in RFC 3339");
        return;
    }
    outbox_event *ev = json_ok(json);
    ck_assert_int_eq(ev->published_ms, times[_i].ms);
    outbox_cloudevents_free(ev);
}
END_TEST

/* Both ways: each day and some from year 0 to 9999. */
START_TEST(timestamps_both_ways)
{
    outbox_event ev = paid();

    for (int64_t ms = -62167219200000; ms <= 253402300799999;
         ms += INT64_C(86400000) * 61 + 7777777) {
        char *json;
        ev.published_ms = ms;
        json_decref(structured(&ev, &json));
        outbox_event *back = json_ok(json);
        ck_assert_int_eq(back->published_ms, ms);
        outbox_cloudevents_free(back);
        outbox_cloudevents_free(json);
    }
}
END_TEST

/* CE types: URI-reference and URI, RFC 3986, 4.1 and 4.3. */
static const struct {
    const char *text;
    bool        reference, absolute;
} uris[] = {
    { "https://github.com/cloudevents", true, true },
    { "mailto:cncf-wg-serverless@lists.cncf.io", true, true },
    { "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66", true, true },
    { "/sensors/tn-1234567/alerts", true, false },
    { "1-555-123-4567", true, false },
    { "cloudevents/spec/pull/123", true, false },
    { "//host/path?query#fragment", true, false },
    { "http://[2001:db8::7]/c=GB?one", true, true },
    { "a+b-c.1:x", true, true },
    { "?a:b", true, false },
    { "./a:b", true, false },
    { "http://a/%7e", true, true },
    { "http://a/#b", true, false },
    { "http://a/#b#c", false, false },
    { "http://a/%7", false, false },
    { "http://a/%zz", false, false },
    { "http://a b", false, false },
    { "http://a/<b>", false, false },
    { "http://a/\\\\b", false, false },
    { "http://a/[b]", false, false },
    { "http://a/\xc3\xa4", false, false },
    { "1a:b", false, false },
    { ":b", false, false },
    { "a_b:c", false, false },
};

START_TEST(uri_values)
{
    char json[256];

    snprintf(json, sizeof json, "{\"specversion\":\"1.0\",\"id\":\"A\","
             "\"type\":\"t\",\"source\":\"%s\"}", uris[_i].text);
    if (uris[_i].reference)
        outbox_cloudevents_free(json_ok(json));
    else
        json_refused(json, strlen(json), "source is no URI reference");
    snprintf(json, sizeof json, WITH("\"dataschema\":\"%s\""), uris[_i].text);
    if (uris[_i].absolute)
        outbox_cloudevents_free(json_ok(json));
    else
        json_refused(json, strlen(json), "dataschema is no absolute URI");
}
END_TEST

/* What declares JSON: JSON 3.1.1. */
static const struct {
    const char *text;
    bool        ok, json;
} media_types[] = {
    { "application/json", true, true },
    { "text/json; charset=utf-8", true, true },
    { "APPLICATION/Vnd.API+Json ;q=\\\"1 2\\\"", true, true },
    { "application/json-seq", true, false },
    { "application/+json", true, false },
    { "text/plain", true, false },
    { "application/jsonx", true, false },
    { "json", false, false },
    { "/json", false, false },
    { "application/", false, false },
    { "application/json charset=utf-8", false, false },
    { "application/json;charset=\xc3\xa4", false, false },
    { "application /json", false, false },
};

START_TEST(media_type_values)
{
    char json[256];
    const char *format = WITH("\"datacontenttype\":\"%s\",\"data\":\"x\"");

    snprintf(json, sizeof json, format, media_types[_i].text);
    if (!media_types[_i].ok) {
        json_refused(json, strlen(json), "datacontenttype is no media type");
        return;
    }
    outbox_event *ev = json_ok(json);
    ck_assert_str_eq(ev->payload, media_types[_i].json ? "\"x\"" : "x");
    outbox_cloudevents_free(ev);
}
END_TEST

/* CE types: Binary, RFC 4648: the vectors of its section 10, and what is not
 * to the letter. */
static const struct {
    const char *text, *bytes;
} base64s[] = {
    { "", "" },          { "Zg==", "f" },     { "Zm8=", "fo" },
    { "Zm9v", "foo" },   { "Zm9vYg==", "foob" }, { "Zm9vYmE=", "fooba" },
    { "Zm9vYmFy", "foobar" }, { "fn5+fz8/", "~~~\x7f??" },
    { "Zg", NULL },      { "Zg=", NULL },     { "Zg===", NULL },
    { "Zh==", NULL },    { "Zm9=", NULL },    { "Z===", NULL },
    { "====", NULL },    { "Zg==Zg==", NULL }, { "Zm9v\\n", NULL },
    { " Zm9v", NULL },   { "Zm9v\\u0000", NULL }, { "Zm-_", NULL },
    { "=Zm9", NULL },    { "Zm 9v===", NULL },
};

START_TEST(base64_values)
{
    char json[256];

    snprintf(json, sizeof json, WITH("\"data_base64\":\"%s\""),
             base64s[_i].text);
    if (base64s[_i].bytes == NULL) {
        json_refused(json, strlen(json), "data_base64 is no Base64");
        return;
    }
    outbox_event *ev = json_ok(json);
    ck_assert_uint_eq(ev->payload_len, strlen(base64s[_i].bytes));
    ck_assert_str_eq(ev->payload, base64s[_i].bytes);
    outbox_cloudevents_free(ev);
}
END_TEST

/* CE types: String.  Each code point that there is, and each byte that begins
 * no character. */
START_TEST(all_characters)
{
    const char *format = WITH("\"a\":\"\\u%04x\"");
    char json[256];

    for (unsigned c = 1; c < 0x10000; c++) {
        bool control = c < 0x20 || (c >= 0x7f && c <= 0x9f);
        bool surrogate = c >= 0xd800 && c <= 0xdfff;
        bool none = c >= 0xfffe || (c >= 0xfdd0 && c <= 0xfdef);
        int len = snprintf(json, sizeof json, format, c);
        if (control || surrogate || none)
            json_refused(json, (size_t)len, surrogate ? "see byte" : control
                         ? "control" : "noncharacter");
        else
            outbox_cloudevents_free(json_ok(json));
    }
    for (unsigned c = 0x80; c < 0x100; c++) {
        int len = snprintf(json, sizeof json, WITH("\"a\":\"%c\""), (int)c);
        json_refused(json, (size_t)len, "not UTF-8");
    }
}
END_TEST

START_TEST(utf8_of_the_body)
{
    static const char *const bad[] = {
        "\xc0\xa0", "\xe0\x82\xac", "\xf0\x82\x82\xac", "\xed\xa0\x80",
        "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xe2\x82", "\xe2\x82z",
    };
    char json[256];

    for (size_t i = 0; i < COUNT(bad); i++) {
        int len = snprintf(json, sizeof json, WITH("\"data\":\"%s\""), bad[i]);
        json_refused(json, (size_t)len, "not UTF-8");
    }
    json_refused("\xe2\x82", 2, "not UTF-8");
    json_refused("", 0, "no JSON object: see byte 0");
}
END_TEST

/* ---- rules of binary mode -------------------------------------------------- */

/* HTTP 3.1.3.2, as a value of ce-a; NULL: refused, and that is why. */
static const struct {
    const char *value, *is, *says;
} values[] = {
    { "Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro \xe2\x82\xac \xf0\x9f\x98\x80",
      NULL },
    { "%e2%82%ac", "\xe2\x82\xac", NULL },
    { "%41%7e", "A~", NULL },
    { "%2541", "%41", NULL },
    { "", "", NULL },
    { " \t a b \t ", "a b", NULL },
    { "\"a  b\"", "a  b", NULL },
    { "\"a\\\"b\\\\c\\d\"", "a\"b\\cd", NULL },
    { "\"%20\" x", "  x", NULL },
    { "a\\b", "a\\b", NULL },
    { "%C0%A0", NULL, "is not UTF-8" },
    { "%E2%82", NULL, "is not UTF-8" },
    { "\xe2\x82", NULL, "is not UTF-8" },
    { "%00", NULL, "has a control character" },
    { "a%0D%0Ab", NULL, "has a control character" },
    { "a\tb", NULL, "has a control character" },
    { "%C2%85", NULL, "has a control character" },
    { "%EF%BF%BF", NULL, "has a noncharacter" },
    { "100%", NULL, "has a % without" },
    { "%4", NULL, "has a % without" },
    { "%4g", NULL, "has a % without" },
    { "%-1", NULL, "has a % without" },
    { "\"a", NULL, "quote that is not closed" },
    { "\"a\\", NULL, "quote that is not closed" },
    { "\"a\\\"", NULL, "quote that is not closed" },
};

#define REQUIRED_HEADERS                                                       \
    { "Content-Type", " text/plain " }, { "CE-Id", "A" },                      \
    { "ce-source", "/s" }, { "Ce-SpecVersion", "1.0" }, { "ce-type", "t" }

START_TEST(header_values)
{
    outbox_header h[] = { REQUIRED_HEADERS, { "ce-a", values[_i].value } };
    outbox_event *ev;
    outbox_error err;

    if (values[_i].is == NULL) {
        int rc = parse(h, COUNT(h), "", 0, &ev, NULL, &err);
        refused(rc, &err, values[_i].says, values[_i].value);
        ck_assert_ptr_nonnull(strstr(err.text, "attribute a "));
        return;
    }
    ev = parse_ok(h, COUNT(h), "body", 4);
    ck_assert_str_eq(header_in(ev, "a"), values[_i].is);
    ck_assert_str_eq(ev->content_type, "text/plain");
    ck_assert_str_eq(ev->payload, "body");
    outbox_cloudevents_free(ev);
}
END_TEST

/* One header more, good or bad. */
static const struct {
    const char *section, *name, *value, *says;
} headers[] = {
    { "HTTP 3.1.3.1: case-insensitive", "CE-A1", "b", NULL },
    { "HTTP 3.1.3: others are not ours", "x-ce-a", "\xff", NULL },
    { "Tracing: the hop's own", "traceparent", TRACE, NULL },
    { "CE naming: letters and digits", "ce-a-b", "c", "\"a-b\": a name" },
    { "CE naming: at least one", "ce-", "c", "\"\": a name" },
    { "CE naming: not data", "ce-data", "c", "cannot be named data" },
    { "HTTP 3.1.1: no ce-datacontenttype", "ce-datacontenttype", "text/plain",
      "datacontenttype is there twice" },
    { "HTTP 3.1.1: one Content-Type", "content-type", "text/plain",
      "datacontenttype is there twice" },
    { "CE: each attribute once", "ce-id", "A", "id is there twice" },
    { "CE: once, in whatever prefix", "ce_id", "A", "id is there twice" },
    { "CE subject: non-empty", "ce-subject", "\"\"", "subject is empty" },
    { "CE time: RFC 3339", "ce-time", "now", "time is not as in RFC 3339" },
    { "CE dataschema: URI", "ce-dataschema", "x", "dataschema is no absolute" },
};

START_TEST(rule_of_binary)
{
    outbox_header h[]
        = { REQUIRED_HEADERS, { headers[_i].name, headers[_i].value } };
    outbox_event *ev;
    outbox_error err = { .code = 0 };
    int rc = parse(h, COUNT(h), "", 0, &ev, NULL, &err);

    if (headers[_i].says != NULL) {
        refused(rc, &err, headers[_i].says, headers[_i].section);
        return;
    }
    ck_assert_msg(rc == OUTBOX_OK, "%s", err.text);
    ck_assert_uint_eq(ev->n_headers, strcmp(headers[_i].name, "CE-A1") == 0);
    outbox_cloudevents_free(ev);
}
END_TEST

START_TEST(required_headers)
{
    static const char *const names[] = { "id", "source", "specversion",
                                         "type" };
    const outbox_header all[] = { REQUIRED_HEADERS };

    for (size_t i = 0; i < COUNT(names); i++) {
        outbox_header h[COUNT(all)];
        outbox_event *ev;
        outbox_error err;
        char says[64];
        memcpy(h, all, sizeof h);
        h[i + 1] = all[0];
        h[i + 1].name = "Other";
        snprintf(says, sizeof says, "%s is missing", names[i]);
        refused(parse(h, COUNT(h), "", 0, &ev, NULL, &err), &err, says, says);
    }
}
END_TEST

/* Values of Kafka and AMQP are UTF-8 as it stands; AMQP has had two prefixes
 * (AMQP 3.1.3.1). */
START_TEST(other_bindings)
{
    static const char *const prefixes[] = { "ce_", "cloudEvents:",
                                            "cloudEvents_" };
    static const char *const names[] = { "id", "source", "specversion", "type",
                                         "a" };
    static const char *const is[] = { "A", "/s", "1.0", "t", "\"%41 \"" };

    for (size_t i = 0; i < COUNT(prefixes); i++) {
        outbox_header h[COUNT(names)];
        char text[COUNT(names)][32];
        for (size_t k = 0; k < COUNT(names); k++) {
            snprintf(text[k], sizeof text[k], "%s%s", prefixes[i], names[k]);
            h[k] = (outbox_header){ text[k], is[k] };
        }
        outbox_event *ev = parse_ok(h, COUNT(h), "{}", 2);
        ck_assert_str_eq(header_in(ev, "a"), "\"%41 \"");
        ck_assert_ptr_null(ev->content_type);
        outbox_cloudevents_free(ev);
    }
}
END_TEST

/* HTTP 3: the content type says which mode it is. */
static const struct {
    const char *content_type, *says;
} modes[] = {
    { "application/cloudevents+json", NULL },
    { "Application/CloudEvents+JSON; charset=UTF-8", NULL },
    { " application/cloudevents+json ", NULL },
    { "application/cloudevents-batch+json", "is a batch" },
    { "application/cloudevents+avro", "a format other than" },
    { "application/cloudevents+jsonx", "a format other than" },
    { "application/cloudevents", "a format other than" },
    { "application/json", "specversion is missing" },
};

START_TEST(mode_of_a_message)
{
    static const char json[] = WITH("\"data\":1");
    outbox_header h[] = { { "ce-id", "other" }, { "ce-source", "/other" },
                          { "CONTENT-TYPE", modes[_i].content_type } };
    outbox_event *ev;
    outbox_error err = { .code = 0 };
    const char *source = NULL;
    int rc = parse(h, COUNT(h), json, sizeof json - 1, &ev, &source, &err);

    if (modes[_i].says != NULL) {
        refused(rc, &err, modes[_i].says, modes[_i].content_type);
        return;
    }
    ck_assert_msg(rc == OUTBOX_OK, "%s", err.text);
    ck_assert_str_eq(ev->id, "A");
    ck_assert_str_eq(source, "/s");
    outbox_cloudevents_free(ev);
}
END_TEST

/* ---- what is written ---------------------------------------------------------- */

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

static outbox_header *binary(const outbox_event *ev, outbox_binding binding,
                             size_t *n)
{
    outbox_header *h;
    outbox_error err = { .code = 0 };
    int rc = outbox_cloudevents_binary(ev, SOURCE, binding, &h, n, &err);

    ck_assert_msg(rc == OUTBOX_OK, "%s", err.text);
    return h;
}

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

START_TEST(least_event)
{
    outbox_event ev = { .size = sizeof ev, .topic = "orders", .id = ID,
                        .key = "", .type = "", .content_type = "" };
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

/* ---- what is refused ------------------------------------------------------------ */

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

/* ---- data --------------------------------------------------------------------- */

/* JSON 3.1.1.  Embedded as it was written, or as bytes. */
static const struct {
    const char *content_type, *payload;
    bool        embedded;
} payloads[] = {
    { NULL, "{\"a\":[1,true,null,\"x\"]}", true },
    { "application/json", " [ 1 ,\n 2 ] ", true },
    { "application/vnd.x+json; v=1", "\"text\"", true },
    { "text/json", "null", true },
    { NULL, "[0.1,1.10,1E2,-0,-0.0e+00]", true },
    { NULL, "18446744073709551616123456789.123456789012345678901", true },
    { NULL, "1e400", true },
    { NULL, "{\"a\":1,\"a\":2,\"\\u0000\":\"\\ud83d\\ude00\"}", true },
    { NULL, "hello", false },
    { NULL, "{\"a\":1", false },
    { NULL, "1}", false },
    { NULL, "1,\"id\":\"forged\"", false },
    { NULL, "01", false },
    { NULL, " ", false },
    { NULL, "\"\\ud83d\"", false },
    { NULL, "\"\xff\"", false },
    { NULL, "\xef\xbb\xbf{}", false },
    { "text/plain", "5", false },
    { "application/octet-stream", "{}", false },
};

START_TEST(payload_in_json)
{
    outbox_event ev = paid();
    const char *payload = payloads[_i].payload;
    char *json, expected[256];

    ev.content_type = payloads[_i].content_type;
    ev.payload = payload;
    ev.payload_len = strlen(payload);
    json_t *object = structured(&ev, &json);
    snprintf(expected, sizeof expected, ",\"data\":%s}", payload);
    if (payloads[_i].embedded) {
        size_t tail = strlen(json) - strlen(expected);
        ck_assert_str_eq(json + tail, expected);
    } else {
        ck_assert_ptr_null(json_object_get(object, "data"));
        ck_assert_ptr_nonnull(member(object, "data_base64"));
        ck_assert_str_eq(member(object, "id"), ID);
    }
    outbox_event *back = json_ok(json);
    ck_assert_uint_eq(back->payload_len, strlen(payload)
                      - (payload[0] == ' ' && payload[1] != '\0' ? 2 : 0));
    ck_assert_ptr_nonnull(strstr(payload, back->payload));
    outbox_cloudevents_free(back);
    outbox_cloudevents_free(json);
    json_decref(object);
}
END_TEST

/* All bytes, in all lengths modulo 3; a bit pattern is what it was. */
START_TEST(binary_payloads)
{
    unsigned char bytes[256];
    outbox_event ev = paid();

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(255 - i);
    ev.content_type = "application/octet-stream";
    for (ev.payload_len = 0; ev.payload_len <= sizeof bytes;
         ev.payload_len++) {
        char *json;
        ev.payload = bytes + sizeof bytes - ev.payload_len;
        json_decref(structured(&ev, &json));
        outbox_event *back = json_ok(json);
        ck_assert_uint_eq(back->payload_len, ev.payload_len);
        ck_assert_mem_eq(back->payload, ev.payload, ev.payload_len);
        ck_assert((strstr(json, "data_base64") != NULL) == (back->payload_len
                                                            > 0));
        outbox_cloudevents_free(back);
        outbox_cloudevents_free(json);
    }
}
END_TEST

static void huge(char *payload, size_t len, const char *name)
{
    outbox_event ev = paid();
    char *json;
    size_t n;

    ev.payload = payload;
    ev.payload_len = len;
    ck_assert_int_eq(outbox_cloudevents_structured(&ev, SOURCE, &json, &n,
                                                   NULL), OUTBOX_OK);
    ck_assert_ptr_nonnull(strstr(json, name));
    outbox_event *back = parse_ok(NULL, 0, json, n);
    ck_assert_uint_eq(back->payload_len, len);
    ck_assert_mem_eq(back->payload, payload, len);
    outbox_cloudevents_free(back);
    outbox_cloudevents_free(json);
}

START_TEST(huge_payloads)
{
    const size_t len = (size_t)16 << 20;
    char *payload = malloc(len);

    ck_assert_ptr_nonnull(payload);
    memset(payload, 'x', len);
    huge(payload, len, "\"data_base64\":\"eHh4");
    payload[0] = payload[len - 1] = '"';
    huge(payload, len, "\"data\":\"xxx");
    memset(payload, '[', len);
    huge(payload, len, "\"data_base64\":\"W1tb");
    free(payload);
}
END_TEST

/* 1024 levels are JSON, one more is not; on both sides the same. */
START_TEST(depth)
{
    for (size_t n = 1023; n <= 1025; n++) {
        char payload[2 * 1025], json[sizeof payload + 100];
        memset(payload, '[', n);
        memset(payload + n, ']', n);
        huge(payload, 2 * n, n > 1024 ? "data_base64" : "\"data\":[[[");
        int len = snprintf(json, sizeof json, WITH("\"data\":%.*s"),
                           (int)(2 * n), payload);
        if (n > 1024)
            json_refused(json, (size_t)len, "no JSON object");
    }
}
END_TEST

/* ---- both ways ------------------------------------------------------------------ */

static void same(const outbox_event *is, const outbox_event *was)
{
    ck_assert_pstr_eq(is->id, was->id);
    ck_assert_pstr_eq(is->type, was->type);
    ck_assert_pstr_eq(is->key, was->key);
    ck_assert_int_eq(is->published_ms, was->published_ms);
    ck_assert_uint_eq(is->payload_len, was->payload_len);
    ck_assert_mem_eq(is->payload, was->payload, was->payload_len);
    ck_assert_uint_eq(is->n_headers, was->n_headers);
    for (size_t i = 0; i < was->n_headers; i++) {
        if (strcmp(was->headers[i].name, "X-Tenant.Name") != 0)
            ck_assert_str_eq(is->headers[i].name, was->headers[i].name);
        ck_assert_str_eq(is->headers[i].value, was->headers[i].value);
    }
}

/* Written again, what was read is what was written. */
START_TEST(there_and_back_structured)
{
    outbox_event ev = paid(), *back;
    char *json, *again;
    const char *source;

    json_decref(structured(&ev, &json));
    ck_assert_int_eq(parse(NULL, 0, json, strlen(json), &back, &source, NULL),
                     OUTBOX_OK);
    ck_assert_str_eq(source, SOURCE);
    same(back, &ev);
    ck_assert_uint_eq(back->size, sizeof *back);
    ck_assert_str_eq(back->content_type, "application/json");
    json_decref(structured(back, &again));
    ck_assert_str_eq(again, json);
    outbox_cloudevents_free(again);
    outbox_cloudevents_free(back);
    outbox_cloudevents_free(json);
}
END_TEST

START_TEST(there_and_back_binary)
{
    outbox_event ev = paid(), *back;
    const char *source;
    size_t n, n_again;

    ev.content_type = "text/plain";
    outbox_header *h = binary(&ev, (outbox_binding)_i, &n);
    ck_assert_int_eq(parse(h, n, ev.payload, ev.payload_len, &back, &source,
                           NULL), OUTBOX_OK);
    ck_assert_str_eq(source, SOURCE);
    same(back, &ev);
    ck_assert_str_eq(back->content_type, "text/plain");
    outbox_header *again = binary(back, (outbox_binding)_i, &n_again);
    ck_assert_uint_eq(n_again, n);
    for (size_t i = 0; i < n; i++) {
        ck_assert_str_eq(again[i].name, h[i].name);
        ck_assert_str_eq(again[i].value, h[i].value);
    }
    outbox_cloudevents_free(again);
    outbox_cloudevents_free(back);
    outbox_cloudevents_free(h);
}
END_TEST

START_TEST(subject_and_key)
{
    outbox_event *ev = json_ok(WITH("\"subject\":\"s\",\"partitionkey\":\"k\""));
    ck_assert_str_eq(ev->key, "k");
    ck_assert_str_eq(header_in(ev, "subject"), "s");
    json_t *object = structured(ev, NULL);
    ck_assert_str_eq(member(object, "subject"), "s");
    ck_assert_str_eq(member(object, "partitionkey"), "k");
    json_decref(object);
    outbox_cloudevents_free(ev);
    ev = json_ok(WITH("\"subject\":\"s\""));
    ck_assert_str_eq(ev->key, "s");
    ck_assert_uint_eq(ev->n_headers, 0);
    ck_assert_ptr_null(ev->headers);
    outbox_cloudevents_free(ev);
}
END_TEST

/* ---- jansson as the referee ------------------------------------------------------ */

static uint64_t chance(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static size_t spoil_text(char *text, size_t len, uint64_t *seed)
{
    static const char bytes[] = "{}[]:,\"\\/bfnrtu0123456789dDeE+-. \ttrue"
                                "falsenull\x01\x7f\xc3\xa4\xed\xa0\x80\xff";

    for (uint64_t n = chance(seed) % 3 + 1; n > 0 && len > 1; n--) {
        size_t at = chance(seed) % len;
        char c = bytes[chance(seed) % (sizeof bytes - 1)];
        if (chance(seed) % 3 == 0)
            memmove(text + at, text + at + 1, --len - at);
        else
            text[at] = c;
    }
    return len;
}

/* Is it JSON?  -1: jansson has limits that are not JSON's. */
static int referee(const char *text, size_t len)
{
    json_error_t e;
    json_t *json = json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL
                              | JSON_DECODE_INT_AS_REAL, &e);
    enum json_error_code code = json_error_code(&e);

    json_decref(json);
    if (json == NULL && (code == json_error_numeric_overflow
                         || code == json_error_null_byte_in_key))
        return -1;
    return json != NULL;
}

START_TEST(json_or_not)
{
    static const char text[] =
        "{\"a\":[1,-2.5e+10,0,true,false,null,{},[ ]],\"b\\n\\u00e4\":"
        "\"\\ud83d\\ude00\xc3\xa4\\\"\\\\\\/\"}";
    uint64_t seed = 42;
    int verdicts[2] = { 0, 0 };

    for (int i = 0; i < 100000; i++) {
        char payload[sizeof text];
        memcpy(payload, text, sizeof text);
        outbox_event ev = paid();
        ev.payload = payload;
        ev.payload_len = spoil_text(payload, sizeof text - 1, &seed);
        int verdict = referee(payload, ev.payload_len);
        if (verdict < 0)
            continue;
        char *json;
        size_t len;
        ck_assert_int_eq(outbox_cloudevents_structured(&ev, SOURCE, &json,
                                                       &len, NULL), OUTBOX_OK);
        verdicts[verdict]++;
        ck_assert_msg((strstr(json, ",\"data\":") != NULL) == verdict,
                      "%d: %.*s", verdict, (int)ev.payload_len, payload);
        outbox_cloudevents_free(json);
    }
    ck_assert_int_gt(verdicts[0], 1000);
    ck_assert_int_gt(verdicts[1], 1000);
}
END_TEST

/* Whatever comes, it is refused, or it can be written and read again. */
START_TEST(any_envelope)
{
    static const char text[] =
        WITH("\"time\":\"2018-04-05T17:31:00.5+02:00\",\"subject\":\"x\","
             "\"partitionkey\":\"\\u20ac\",\"ext\":-5,\"flag\":true,"
             "\"correlationid\":\"c\",\"datacontenttype\":\"a/json\","
             "\"data\":{\"a\":[1]}");
    uint64_t seed = 7;
    int accepted = 0, rejected = 0;

    for (int i = 0; i < 100000; i++) {
        char body[sizeof text];
        outbox_event *ev, *back;
        outbox_error err = { .code = 0 };
        memcpy(body, text, sizeof text);
        size_t len = spoil_text(body, sizeof text - 1, &seed);
        if (parse(NULL, 0, body, len, &ev, NULL, &err) != OUTBOX_OK) {
            ck_assert_int_eq(err.code, OUTBOX_EINVAL);
            rejected++;
            continue;
        }
        accepted++;
        ck_assert_int_ne(referee(body, len), 0);
        char *json;
        json_decref(structured(ev, &json));
        back = json_ok(json);
        same(back, ev);
        outbox_cloudevents_free(back);
        outbox_cloudevents_free(json);
        outbox_cloudevents_free(ev);
    }
    ck_assert_int_gt(accepted, 1000);
    ck_assert_int_gt(rejected, 1000);
}
END_TEST

/* ---- out of memory ------------------------------------------------------------ */

static long calls, fail_at, outstanding;

static void *failing_malloc(size_t n)
{
    void *p = ++calls == fail_at ? NULL : malloc(n);

    outstanding += p != NULL;
    return p;
}

static void counting_free(void *p)
{
    outstanding -= p != NULL;
    free(p);
}

static int oom_structured(outbox_error *err)
{
    outbox_event ev = paid();
    char *json;
    size_t len;
    int rc = outbox_cloudevents_structured(&ev, SOURCE, &json, &len, err);

    ck_assert((json != NULL) == (rc == OUTBOX_OK));
    outbox_cloudevents_free(json);
    return rc;
}

static int oom_binary(outbox_error *err)
{
    outbox_event ev = paid();
    outbox_header *h;
    size_t n;
    int rc = outbox_cloudevents_binary(&ev, SOURCE, 0, &h, &n, err);

    ck_assert((h != NULL) == (rc == OUTBOX_OK));
    outbox_cloudevents_free(h);
    return rc;
}

static int oom_parse_structured(outbox_error *err)
{
    static const char json[] = WITH("\"a\":\"b\",\"data\":{\"c\":[1,2]}");
    outbox_event *ev;
    int rc = parse(NULL, 0, json, sizeof json - 1, &ev, NULL, err);

    outbox_cloudevents_free(ev);
    return rc;
}

static int oom_parse_binary(outbox_error *err)
{
    const outbox_header h[] = { REQUIRED_HEADERS };
    outbox_event *ev;
    int rc = parse(h, COUNT(h), "body", 4, &ev, NULL, err);

    outbox_cloudevents_free(ev);
    return rc;
}

/* The n-th allocation fails, for every n. */
START_TEST(out_of_memory)
{
    static int (*const ways[])(outbox_error *) = {
        oom_structured, oom_binary, oom_parse_structured, oom_parse_binary
    };
    static const long least[] = { 20, 20, 1, 1 };
    int rc = OUTBOX_ENOMEM;

    json_set_alloc_funcs(failing_malloc, counting_free);
    for (fail_at = 1; rc != OUTBOX_OK; fail_at++) {
        outbox_error err = { .code = 0 };
        calls = 0;
        rc = ways[_i](&err);
        ck_assert_int_eq(outstanding, 0);
        if (rc == OUTBOX_OK) {
            ck_assert_int_lt(calls, fail_at);
            break;
        }
        ck_assert_int_eq(rc, OUTBOX_ENOMEM);
        ck_assert_int_eq(err.code, OUTBOX_ENOMEM);
        ck_assert_str_eq(err.text, "out of memory");
    }
    json_set_alloc_funcs(malloc, free);
    ck_assert_int_gt(fail_at, least[_i]);
}
END_TEST

/* ---- the suite ---------------------------------------------------------------- */

#define EACH(tc, test, table) tcase_add_loop_test(tc, test, 0, COUNT(table))

static void reading(Suite *s)
{
    TCase *tc = suite_case(s, "reading");

    EACH(tc, rule_of_structured, rules);
    tcase_add_test(tc, specification_examples);
    EACH(tc, timestamps, times);
    EACH(tc, uri_values, uris);
    EACH(tc, media_type_values, media_types);
    EACH(tc, base64_values, base64s);
    tcase_add_test(tc, all_characters);
    tcase_add_test(tc, utf8_of_the_body);
    EACH(tc, header_values, values);
    EACH(tc, rule_of_binary, headers);
    tcase_add_test(tc, required_headers);
    tcase_add_test(tc, other_bindings);
    EACH(tc, mode_of_a_message, modes);
}

static void writing(Suite *s)
{
    TCase *tc = suite_case(s, "writing");

    tcase_add_test(tc, structured_to_the_letter);
    EACH(tc, binary_to_the_letter, bindings);
    tcase_add_test(tc, percent_encoding);
    tcase_add_test(tc, content_type_as_it_is);
    tcase_add_test(tc, least_event);
    tcase_add_test(tc, headers_left_out);
    EACH(tc, refused_event, spoilers);
    tcase_add_test(tc, refused_arguments);
    tcase_add_test(tc, refused_envelope);
    tcase_add_test(tc, event_of_another_size);
}

static void both(Suite *s)
{
    TCase *tc = suite_case(s, "both ways");

    EACH(tc, payload_in_json, payloads);
    tcase_add_test(tc, binary_payloads);
    tcase_add_test(tc, huge_payloads);
    tcase_add_test(tc, depth);
    tcase_add_test(tc, timestamps_both_ways);
    tcase_add_test(tc, there_and_back_structured);
    EACH(tc, there_and_back_binary, bindings);
    tcase_add_test(tc, subject_and_key);
    tcase_add_test(tc, json_or_not);
    tcase_add_test(tc, any_envelope);
    tcase_add_loop_test(tc, out_of_memory, 0, 4);
}

int main(void)
{
    Suite *s = suite_create("cloudevents");

    reading(s);
    writing(s);
    both(s);
    return suite_main(s);
}

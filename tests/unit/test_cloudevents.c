/* SPDX-License-Identifier: MIT
 *
 * test_cloudevents.c - reading CloudEvents, rule by rule.
 */
#include "cloudevents.h"

/* ---- rules of structured events ----------------------------------------- */

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
          "application/json",
          "{ \"appinfoA\" : \"abc\", \"appinfoB\" : 123 }" },
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

/* ---- values of each type ------------------------------------------------ */

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

/* As many extensions as are read, and one more. */
START_TEST(many_extensions)
{
    static char json[16384];

    for (int n = 512; n <= 513; n++) {
        int len = snprintf(json, sizeof json, "{" BARE ",\"type\":\"t\"");
        for (int i = 0; i < n; i++)
            len += snprintf(json + len, sizeof json - (size_t)len,
                            ",\"a%d\":%d", i, i);
        json[len++] = '}';
        json[len] = '\0';
        if (n > 512) {
            json_refused(json, (size_t)len, "more than 512 extension");
            continue;
        }
        outbox_event *ev = json_ok(json);
        ck_assert_uint_eq(ev->n_headers, 512);
        ck_assert_str_eq(header_in(ev, "a511"), "511");
        outbox_cloudevents_free(ev);
    }
}
END_TEST

/* ---- rules of binary mode ----------------------------------------------- */

/* HTTP 3.1.3.2, as a value of ce-a: what it is (NULL: unset), or what is said
 * when it is refused. */
static const struct {
    const char *value, *is, *says;
} values[] = {
    { "Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro \xe2\x82\xac \xf0\x9f\x98\x80",
      NULL },
    { "%e2%82%ac", "\xe2\x82\xac", NULL },
    { "%41%7e", "A~", NULL },
    { "%2541", "%41", NULL },
    { "", NULL, NULL },
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

START_TEST(header_values)
{
    outbox_header h[MESSAGE];
    outbox_event *ev;
    outbox_error err;

    message(h, "ce-a", values[_i].value);
    if (values[_i].says != NULL) {
        int rc = parse(h, COUNT(h), "", 0, &ev, NULL, &err);
        refused(rc, &err, values[_i].says, values[_i].value);
        ck_assert_ptr_nonnull(strstr(err.text, "attribute a "));
        return;
    }
    ev = parse_ok(h, COUNT(h), "body", 4);
    ck_assert_pstr_eq(header_in(ev, "a"), values[_i].is);
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
    outbox_header h[MESSAGE];
    outbox_event *ev;
    outbox_error err = { .code = 0 };
    int rc;

    message(h, headers[_i].name, headers[_i].value);
    rc = parse(h, COUNT(h), "", 0, &ev, NULL, &err);
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

    for (size_t i = 0; i < COUNT(names); i++) {
        outbox_header h[MESSAGE];
        outbox_event *ev;
        outbox_error err;
        char says[64];
        message(h, "other", "");
        h[i + 1].name = "other";
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

int main(void)
{
    Suite *s = suite_create("cloudevents");
    TCase *tc = suite_case(s, "structured");

    EACH(tc, rule_of_structured, rules);
    tcase_add_test(tc, specification_examples);
    EACH(tc, timestamps, times);
    EACH(tc, uri_values, uris);
    EACH(tc, media_type_values, media_types);
    EACH(tc, base64_values, base64s);
    tcase_add_test(tc, all_characters);
    tcase_add_test(tc, utf8_of_the_body);
    tcase_add_test(tc, many_extensions);
    tc = suite_case(s, "binary");
    EACH(tc, header_values, values);
    EACH(tc, rule_of_binary, headers);
    tcase_add_test(tc, required_headers);
    tcase_add_test(tc, other_bindings);
    EACH(tc, mode_of_a_message, modes);
    return suite_main(s);
}

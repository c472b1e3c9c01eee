/* SPDX-License-Identifier: MIT
 *
 * test_cloudevents_both.c - data, both ways, and out of memory.
 */
#include "cloudevents.h"

/* ---- data --------------------------------------------------------------- */

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
    for (size_t n = 0; n <= sizeof bytes; n++) {
        char *json;
        ev.payload = bytes + sizeof bytes - n;
        ev.payload_len = n;
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

/* ---- both ways ---------------------------------------------------------- */

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
    outbox_event *ev
        = json_ok(WITH("\"subject\":\"s\",\"partitionkey\":\"k\""));
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

/* ---- jansson as the referee --------------------------------------------- */

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

/* Whatever comes, it is refused, or it can be written and read again; nothing
 * is left behind. */
START_TEST(any_envelope)
{
    static const char text[] =
        WITH("\"time\":\"2018-04-05T17:31:00.5+02:00\",\"subject\":\"x\","
             "\"partitionkey\":\"\\u20ac\",\"ext\":-5,\"flag\":true,"
             "\"correlationid\":\"c\",\"datacontenttype\":\"a/json\","
             "\"data\":{\"a\":[1]}");
    uint64_t seed = 7;
    int accepted = 0, rejected = 0;

    json_set_alloc_funcs(failing_malloc, counting_free);
    for (int i = 0; i < 100000; i++) {
        char body[sizeof text];
        outbox_event *ev, *back;
        outbox_error err = { .code = 0 };
        memcpy(body, text, sizeof text);
        size_t len = spoil_text(body, sizeof text - 1, &seed);
        if (parse(NULL, 0, body, len, &ev, NULL, &err) != OUTBOX_OK) {
            ck_assert_int_eq(err.code, OUTBOX_EINVAL);
            ck_assert_int_eq(outstanding, 0);
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
        ck_assert_int_eq(outstanding, 0);
    }
    ck_assert_int_gt(accepted, 1000);
    ck_assert_int_gt(rejected, 1000);
}
END_TEST

/* ---- out of memory ------------------------------------------------------ */

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
    outbox_header h[MESSAGE];
    outbox_event *ev;
    int rc;

    message(h, "ce-a", "b");
    rc = parse(h, COUNT(h), "body", 4, &ev, NULL, err);
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

int main(void)
{
    Suite *s = suite_create("cloudevents_both");
    TCase *tc = suite_case(s, "data");

    EACH(tc, payload_in_json, payloads);
    tcase_add_test(tc, binary_payloads);
    tcase_add_test(tc, huge_payloads);
    tcase_add_test(tc, depth);
    tc = suite_case(s, "both ways");
    tcase_add_test(tc, timestamps_both_ways);
    tcase_add_test(tc, there_and_back_structured);
    tcase_add_loop_test(tc, there_and_back_binary, OUTBOX_BINDING_HTTP,
                        OUTBOX_BINDING_AMQP + 1);
    tcase_add_test(tc, subject_and_key);
    tcase_add_test(tc, json_or_not);
    tcase_add_test(tc, any_envelope);
    tc = suite_case(s, "out of memory");
    tcase_add_loop_test(tc, out_of_memory, 0, 4);
    return suite_main(s);
}

/* SPDX-License-Identifier: MIT
 *
 * cloudevents_parse.c - a CloudEvent 1.0 as an event.
 *
 * One block is allocated, as large as it can get, and filled from front to
 * back: the event, its headers, and each text behind the one before.
 */
#include "cloudevents_impl.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- a block for what is read ------------------------------------------- */

enum {
    CE_ID, CE_SOURCE, CE_SPECVERSION, CE_TYPE, CE_REQUIRED,
    CE_SUBJECT = CE_REQUIRED, CE_TIME, CE_CONTENT_TYPE, CE_KEY, CE_SLOTS
};

/* Each is compared with all before it, and a stranger may have sent them. */
enum { CE_EXTENSIONS = 512 };

static const char *const ce_slot_names[CE_SLOTS] = {
    [CE_ID] = "id",           [CE_SOURCE] = "source",
    [CE_TYPE] = "type",       [CE_SPECVERSION] = "specversion",
    [CE_TIME] = "time",       [CE_CONTENT_TYPE] = "datacontenttype",
    [CE_SUBJECT] = "subject", [CE_KEY] = "partitionkey",
};

typedef struct ce_parse {
    outbox_event  *ev;
    outbox_header *headers;
    size_t         n;
    char          *at;                  /* where the next text goes */
    const char    *slots[CE_SLOTS];
    ob_ce_span     data, base64;        /* members of a structured event */
} ce_parse;

static int ce_begin(ce_parse *p, size_t headers, size_t text,
                    outbox_error *err)
{
    size_t size = sizeof *p->ev + (headers + 1) * sizeof *p->headers + text;

    p->ev = ob_ce_alloc(size);
    if (p->ev == NULL)
        return ob_ce_nomem(err);
    memset(p->ev, 0, sizeof *p->ev);
    p->headers = (outbox_header *)(p->ev + 1);
    p->at = (char *)(p->headers + headers + 1);
    return OUTBOX_OK;
}

static int ce_slot(const char *name)
{
    int slot = 0;

    while (slot < CE_SLOTS && strcmp(name, ce_slot_names[slot]) != 0)
        slot++;
    return slot;
}

static int ce_check_name(const char *name, outbox_error *err)
{
    if (!ob_ce_name_ok(name))
        return ob_ce_invalid(err, "attribute \"%.60s\": a name has letters a "
                                  "to z and digits only", name);
    if (strcmp(name, "data") == 0)
        return ob_ce_invalid(err, "an attribute cannot be named data");
    return OUTBOX_OK;
}

/* The outbox's own names for what the CloudEvents extensions call so. */
static const char *ce_header_name(const char *name)
{
    if (strcmp(name, "correlationid") == 0)
        return "correlation-id";
    return strcmp(name, "causationid") == 0 ? "causation-id" : name;
}

/* Both texts are in the block. */
static int ce_keep(ce_parse *p, const char *name, const char *value,
                   size_t len, outbox_error *err)
{
    const char *fault = ob_ce_string_fault(value, len);
    int slot = ce_slot(name);

    if (fault != NULL)
        return ob_ce_invalid(err, "attribute %.60s %s", name, fault);
    if (len == 0 && (slot < CE_SLOTS || strcmp(name, "dataschema") == 0))
        return ob_ce_invalid(err, "attribute %s is empty", name);
    if (slot < CE_SLOTS) {
        if (p->slots[slot] != NULL)
            return ob_ce_invalid(err, "attribute %s is there twice", name);
        p->slots[slot] = value;
        return OUTBOX_OK;
    }
    if (strcmp(name, "dataschema") == 0 && !ob_ce_uri_ok(value, true))
        return ob_ce_invalid(err, "attribute dataschema is no absolute URI "
                                  "(RFC 3986, 4.3)");
    if (len == 0)
        return OUTBOX_OK;
    name = ce_header_name(name);
    if (p->n == CE_EXTENSIONS)
        return ob_ce_invalid(err, "more than %d extension attributes",
                             CE_EXTENSIONS);
    for (size_t i = 0; i < p->n; i++) {
        if (strcmp(p->headers[i].name, name) == 0)
            return ob_ce_invalid(err, "attribute %.60s is there twice", name);
    }
    p->headers[p->n++] = (outbox_header){ name, value };
    return OUTBOX_OK;
}

static int ce_check_slots(const ce_parse *p, outbox_error *err)
{
    const char *const *s = p->slots;

    for (int i = 0; i < CE_REQUIRED; i++) {
        if (s[i] == NULL)
            return ob_ce_invalid(err, "attribute %s is missing, and is "
                                      "required", ce_slot_names[i]);
    }
    if (strcmp(s[CE_SPECVERSION], "1.0") != 0)
        return ob_ce_invalid(err, "specversion is \"%.20s\"; only 1.0 is known "
                                  "here", s[CE_SPECVERSION]);
    if (!ob_ce_uri_ok(s[CE_SOURCE], false))
        return ob_ce_invalid(err, "attribute source is no URI reference "
                                  "(RFC 3986, 4.1)");
    if (s[CE_TIME] != NULL
        && !ob_ce_time_parse(s[CE_TIME], &p->ev->published_ms))
        return ob_ce_invalid(err, "attribute time is not as in RFC 3339: "
                                  "\"%.40s\"", s[CE_TIME]);
    if (s[CE_CONTENT_TYPE] != NULL && !ob_ce_media_type_ok(s[CE_CONTENT_TYPE]))
        return ob_ce_invalid(err, "attribute datacontenttype is no media type "
                                  "(RFC 2046)");
    return OUTBOX_OK;
}

/* The event has no place for a subject besides the key. */
static void ce_end(ce_parse *p)
{
    const char *subject = p->slots[CE_SUBJECT], *key = p->slots[CE_KEY];
    outbox_event *ev = p->ev;

    if (subject != NULL && key != NULL && strcmp(subject, key) != 0)
        p->headers[p->n++] = (outbox_header){ "subject", subject };
    ev->size = sizeof *ev;
    ev->id = p->slots[CE_ID];
    ev->type = p->slots[CE_TYPE];
    ev->key = key != NULL ? key : subject;
    ev->content_type = p->slots[CE_CONTENT_TYPE];
    ev->headers = p->n > 0 ? p->headers : NULL;
    ev->n_headers = p->n;
}

/* ---- reading a structured event ----------------------------------------- */

/* true, false or a number, of which only integers are attributes. */
static int ce_literal(const char *name, const char *text, outbox_error *err)
{
    size_t sign = *text == '-';
    size_t digits = strspn(text + sign, "0123456789");
    long long v;

    if (ce_slot(name) < CE_SLOTS || strcmp(name, "dataschema") == 0)
        return ob_ce_invalid(err, "attribute %s is not a string", name);
    if (*text == 't' || *text == 'f')
        return OUTBOX_OK;
    v = digits > 10 ? LLONG_MAX : strtoll(text, NULL, 10);
    if (text[sign + digits] != '\0' || v < INT32_MIN || v > INT32_MAX)
        return ob_ce_invalid(err, "attribute %.60s is a number, and no "
                                  "integer of 32 bits", name);
    return OUTBOX_OK;
}

/* A member in which data is given; null as Base64 is none. */
static int ce_data_member(ob_ce_span *kept, ob_ce_span value,
                          outbox_error *err)
{
    if (kept->at != NULL)
        return ob_ce_invalid(err, "a data member is there twice");
    *kept = value;
    return OUTBOX_OK;
}

static char *ce_copy(char *out, ob_ce_span s)
{
    memcpy(out, s.at, (size_t)(s.end - s.at));
    return out + (s.end - s.at);
}

/* name and value are JSON; null is unset. */
static int ce_member(ce_parse *p, ob_ce_span name, ob_ce_span value,
                     outbox_error *err)
{
    char *key = p->at, *end = ob_ce_json_unquote(key, name);
    int rc;

    *end = '\0';
    if (strcmp(key, "data") == 0)
        return ce_data_member(&p->data, value, err);
    if (strcmp(key, "data_base64") == 0)
        return *value.at == 'n' ? OUTBOX_OK
                                : ce_data_member(&p->base64, value, err);
    rc = strlen(key) == (size_t)(end - key) ? ce_check_name(key, err)
       : ob_ce_invalid(err, "the name of an attribute has a NUL");
    if (rc != OUTBOX_OK || *value.at == 'n')
        return rc;
    char *text = end + 1;
    end = *value.at == '"' ? ob_ce_json_unquote(text, value)
                           : ce_copy(text, value);
    *end = '\0';
    p->at = end + 1;
    if (*value.at == '{' || *value.at == '[')
        return ob_ce_invalid(err, "attribute %.60s is an object or an array",
                             key);
    rc = *value.at == '"' ? OUTBOX_OK : ce_literal(key, text, err);
    if (rc == OUTBOX_OK)
        rc = ce_keep(p, key, text, (size_t)(end - text), err);
    return rc;
}

/* Bytes of Base64; JSON as it was written; else the text that a string is. */
static int ce_data(ce_parse *p, outbox_error *err)
{
    char *end = p->at;

    p->ev->payload = p->at;
    if (p->base64.at != NULL) {
        if (p->data.at != NULL)
            return ob_ce_invalid(err, "data and data_base64 exclude each "
                                      "other");
        if (*p->base64.at != '"')
            return ob_ce_invalid(err, "data_base64 is not a string");
        end = ob_ce_json_unquote(p->at, p->base64);
        end = ob_ce_base64_decode(p->at, p->at, (size_t)(end - p->at));
        if (end == NULL)
            return ob_ce_invalid(err, "data_base64 is no Base64 (RFC 4648, "
                                      "4)");
    } else if (p->data.at != NULL) {
        if (p->slots[CE_CONTENT_TYPE] == NULL)
            p->slots[CE_CONTENT_TYPE] = "application/json";
        if (ob_ce_media_type_is_json(p->slots[CE_CONTENT_TYPE]))
            end = ce_copy(p->at, p->data);
        else if (*p->data.at == '"')
            end = ob_ce_json_unquote(p->at, p->data);
        else
            return ob_ce_invalid(err, "data is not a string, and "
                                      "datacontenttype not JSON");
    }
    *end = '\0';
    p->ev->payload_len = (size_t)(end - p->at);
    return OUTBOX_OK;
}

/* How many members; a negative code if the body is not one object. */
static int ce_count(const char *body, size_t len, size_t *n,
                    outbox_error *err)
{
    ob_ce_span text = { body, body + len }, name, value;
    bool first = true;
    int more;

    *n = 0;
    if (!ob_ce_utf8_ok(body, len))
        return ob_ce_invalid(err, "the event is not UTF-8");
    while ((more = ob_ce_json_member(&text, &first, &name, &value)) > 0)
        ++*n;
    if (more < 0)
        return ob_ce_invalid(err, "the event is no JSON object: see byte %zu",
                             (size_t)(text.at - body));
    return OUTBOX_OK;
}

/* Texts never get longer by being read, and the quotes and signs between make
 * room for the NULs. */
static int ce_read_structured(ce_parse *p, const char *body, size_t len,
                              outbox_error *err)
{
    ob_ce_span text = { body, body + len }, name, value;
    bool first = true;
    size_t n;
    int rc = ce_count(body, len, &n, err);

    if (rc == OUTBOX_OK)
        rc = ce_begin(p, n, len + 1, err);
    while (rc == OUTBOX_OK
           && ob_ce_json_member(&text, &first, &name, &value) > 0)
        rc = ce_member(p, name, value, err);
    if (rc == OUTBOX_OK)
        rc = ce_check_slots(p, err);
    if (rc == OUTBOX_OK)
        rc = ce_data(p, err);
    return rc;
}

/* ---- reading a message in binary mode ----------------------------------- */

static const char *ce_attribute_of(const char *header, bool *percent)
{
    const char *name = NULL;

    for (int i = 0; name == NULL && i < OB_CE_BINDINGS; i++) {
        name = ob_ce_after(header, ob_ce_bindings[i].prefix);
        *percent = ob_ce_bindings[i].percent;
    }
    return name;
}

/* Headers that are not of CloudEvents are passed over. */
static int ce_header(ce_parse *p, const outbox_header *h, outbox_error *err)
{
    bool percent;
    const char *name = ce_attribute_of(h->name, &percent);
    const char *fault = NULL;
    char *key = p->at, *text;
    int rc;

    if (name == NULL)
        return OUTBOX_OK;
    for (; *name != '\0'; name++)
        *p->at++ = (char)(*name >= 'A' && *name <= 'Z' ? *name - 'A' + 'a'
                                                       : *name);
    *p->at++ = '\0';
    rc = ce_check_name(key, err);
    if (rc != OUTBOX_OK)
        return rc;
    text = p->at;
    if (percent)
        fault = ob_ce_percent_decode(&p->at, h->value);
    else
        p->at = ce_copy(p->at, (ob_ce_span){ h->value, strchr(h->value, 0) });
    if (fault != NULL)
        return ob_ce_invalid(err, "attribute %.60s %s", key, fault);
    *p->at++ = '\0';
    return ce_keep(p, key, text, (size_t)(p->at - text) - 1, err);
}

static int ce_content_type(ce_parse *p, const char *value, outbox_error *err)
{
    size_t len = strlen(value += strspn(value, " \t"));
    char *text = p->at;

    while (len > 0 && strchr(" \t", value[len - 1]) != NULL)
        len--;
    p->at = ce_copy(text, (ob_ce_span){ value, value + len });
    *p->at++ = '\0';
    return ce_keep(p, "datacontenttype", text, len, err);
}

static int ce_read_binary(ce_parse *p, const outbox_header *headers, size_t n,
                          ob_ce_span body, outbox_error *err)
{
    size_t size = (size_t)(body.end - body.at) + 1;
    int rc;

    for (size_t i = 0; i < n; i++)
        size += strlen(headers[i].name) + strlen(headers[i].value) + 2;
    rc = ce_begin(p, n, size, err);
    for (size_t i = 0; rc == OUTBOX_OK && i < n; i++) {
        if (strcasecmp(headers[i].name, "content-type") == 0)
            rc = ce_content_type(p, headers[i].value, err);
        else
            rc = ce_header(p, &headers[i], err);
    }
    if (rc == OUTBOX_OK)
        rc = ce_check_slots(p, err);
    if (rc != OUTBOX_OK)
        return rc;
    *ce_copy(p->at, body) = '\0';
    p->ev->payload = p->at;
    p->ev->payload_len = (size_t)(body.end - body.at);
    return OUTBOX_OK;
}

/* ---- which mode is it --------------------------------------------------- */

static int ce_check_message(const outbox_header *headers, size_t n,
                            const void *body, size_t len, outbox_error *err)
{
    if (n > 0 && headers == NULL)
        return ob_ce_invalid(err, "headers is NULL and n is %zu", n);
    if (len > 0 && body == NULL)
        return ob_ce_invalid(err, "body is NULL and len is %zu", len);
    for (size_t i = 0; i < n; i++) {
        if (headers[i].name == NULL || headers[i].value == NULL)
            return ob_ce_invalid(err, "headers[%zu] has no name or no value",
                                 i);
    }
    return OUTBOX_OK;
}

/* 1: structured, 0: binary (HTTP binding, 3). */
static int ce_mode(const outbox_header *headers, size_t n, outbox_error *err)
{
    const char *rest = NULL;

    for (size_t i = 0; rest == NULL && i < n; i++) {
        const char *value = headers[i].value;
        if (strcasecmp(headers[i].name, "content-type") == 0)
            rest = ob_ce_after(value + strspn(value, " \t"),
                               OB_CE_MEDIA_TYPE);
    }
    if (rest == NULL)
        return n == 0;
    if (ob_ce_after(rest, "-batch") != NULL)
        return ob_ce_invalid(err, "content-type says that it is a batch, and "
                                  "only one event is read here");
    rest = ob_ce_after(rest, "+json");
    if (rest == NULL || strchr("; \t", *rest) == NULL)
        return ob_ce_invalid(err, "content-type says that it is an event in a "
                                  "format other than " OUTBOX_CLOUDEVENTS_JSON);
    return 1;
}

int outbox_cloudevents_parse(const outbox_header *headers, size_t n,
                             const void *body, size_t len, outbox_event **ev,
                             const char **source, outbox_error *err)
{
    const char *at = body != NULL ? body : "";
    ce_parse p = { .ev = NULL };
    int rc;

    if (source != NULL)
        *source = NULL;
    if (ev == NULL)
        return ob_ce_invalid(err, "ev is NULL");
    *ev = NULL;
    rc = ce_check_message(headers, n, body, len, err);
    if (rc == OUTBOX_OK)
        rc = ce_mode(headers, n, err);
    if (rc > 0)
        rc = ce_read_structured(&p, at, len, err);
    else if (rc == 0)
        rc = ce_read_binary(&p, headers, n, (ob_ce_span){ at, at + len }, err);
    if (rc != OUTBOX_OK) {
        outbox_cloudevents_free(p.ev);
        return rc;
    }
    ce_end(&p);
    *ev = p.ev;
    if (source != NULL)
        *source = p.slots[CE_SOURCE];
    return OUTBOX_OK;
}

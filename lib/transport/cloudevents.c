/* SPDX-License-Identifier: MIT
 *
 * cloudevents.c - an event as a CloudEvent 1.0.
 *
 * The attributes go into an object of jansson, which keeps their order and
 * writes them; data is spliced in as it is.
 */
#include <outbox/cloudevents.h>

#include "cloudevents_impl.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const ob_ce_binding ob_ce_bindings[OB_CE_BINDINGS] = {
    [OUTBOX_BINDING_HTTP] = { "ce-", true, true },
    [OUTBOX_BINDING_NATS] = { "ce-", false, true },
    [OUTBOX_BINDING_KAFKA] = { "ce_", true, false },
    [OUTBOX_BINDING_AMQP] = { "cloudEvents:", true, false },
    /* Later versions of the AMQP binding prefer it; for reading only. */
    { "cloudEvents_", true, false },
};

/* ---- errors, memory ----------------------------------------------------- */

void ob_ce_say(outbox_error *err, int code, const char *format, ...)
{
    va_list ap;

    if (err == NULL)
        return;
    memset(err, 0, sizeof *err);
    err->code = code;
    va_start(ap, format);
    vsnprintf(err->text, sizeof err->text, format, ap);
    va_end(ap);
    /* Parts of it may have come over the network. */
    for (char *c = err->text; *c != '\0'; c++) {
        if (*c < ' ' || *c > '~')
            *c = '?';
    }
}

void *ob_ce_alloc(size_t n)
{
    json_malloc_t alloc;

    json_get_alloc_funcs(&alloc, NULL);
    return alloc(n);
}

void outbox_cloudevents_free(void *p)
{
    json_free_t release;

    json_get_alloc_funcs(NULL, &release);
    if (p != NULL)
        release(p);
}

/* ---- the attributes of an event ----------------------------------------- */

/* Unset, that is NULL or empty, is left out.  field is what the caller knows
 * the value as. */
static int ce_set(json_t *attrs, const char *name, const char *field,
                  const char *value, outbox_error *err)
{
    const char *fault;

    if (value == NULL || *value == '\0')
        return OUTBOX_OK;
    fault = ob_ce_string_fault(value, strlen(value));
    if (fault != NULL)
        return ob_ce_invalid(err, "%s %s; the attribute %s cannot hold it",
                             field, fault, name);
    if (json_object_set_new_nocheck(attrs, name, json_string_nocheck(value)))
        return ob_ce_nomem(err);
    return OUTBOX_OK;
}

static int ce_set_content_type(json_t *attrs, const char *type,
                               outbox_error *err)
{
    if (type == NULL || *type == '\0')
        type = "application/json";
    if (!ob_ce_media_type_ok(type))
        return ob_ce_invalid(err, "content_type is no media type: "
                                  "type/subtype, then parameters in "
                                  "printable ASCII");
    return ce_set(attrs, "datacontenttype", "content_type", type, err);
}

static int ce_set_required(json_t *attrs, const outbox_event *ev,
                           const char *source, outbox_error *err)
{
    bool typed = ev->type != NULL && *ev->type != '\0';
    const char *type = typed ? ev->type : ev->topic;
    int rc;

    if (ev->id == NULL || *ev->id == '\0')
        return ob_ce_invalid(err, "id is empty, and is required");
    if (source == NULL || *source == '\0')
        return ob_ce_invalid(err, "source is empty, and is required");
    if (!ob_ce_uri_ok(source, false))
        return ob_ce_invalid(err, "source is no URI reference (RFC 3986, 4.1)");
    if (type == NULL || *type == '\0')
        return ob_ce_invalid(err, "type and topic are empty, and a type is "
                                  "required");
    rc = ce_set(attrs, "specversion", "specversion", "1.0", err);
    if (rc == OUTBOX_OK)
        rc = ce_set(attrs, "id", "id", ev->id, err);
    if (rc == OUTBOX_OK)
        rc = ce_set(attrs, "source", "source", source, err);
    if (rc == OUTBOX_OK)
        rc = ce_set(attrs, "type", typed ? "type" : "topic", type, err);
    return rc;
}

static int ce_set_time(json_t *attrs, int64_t ms, outbox_error *err)
{
    char time[OB_CE_TIME];

    if (ms == 0)
        return OUTBOX_OK;
    if (!ob_ce_time_format(ms, time))
        return ob_ce_invalid(err, "published_ms is outside of the years 0 to "
                                  "9999");
    return ce_set(attrs, "time", "published_ms", time, err);
}

/* The attribute that a header becomes: its name in lower case, without the
 * signs that names of headers are parted by.  False: there is no such. */
static bool ce_attribute_name(char *out, size_t size, const char *name)
{
    size_t n = 0;

    for (; *name != '\0'; name++) {
        if (strchr("-_.", *name) != NULL)
            continue;
        if (n + 1 == size)
            return false;
        out[n++] = (char)(*name >= 'A' && *name <= 'Z' ? *name - 'A' + 'a'
                                                       : *name);
    }
    out[n] = '\0';
    return ob_ce_name_ok(out);
}

static int ce_set_header(json_t *attrs, const outbox_event *ev, size_t i,
                         outbox_error *err)
{
    const outbox_header *h = &ev->headers[i];
    char name[256], field[32];

    if (h->name == NULL || h->value == NULL)
        return ob_ce_invalid(err, "headers[%zu] has no name or no value", i);
    if (!ce_attribute_name(name, sizeof name, h->name)
        || strcmp(name, "time") == 0 || strcmp(name, "data") == 0
        || json_object_get(attrs, name) != NULL)
        return OUTBOX_OK;
    if (strcmp(name, "dataschema") == 0 && *h->value != '\0'
        && !ob_ce_uri_ok(h->value, true))
        return ob_ce_invalid(err, "headers[%zu], dataschema, is no absolute "
                                  "URI (RFC 3986, 4.3)", i);
    snprintf(field, sizeof field, "headers[%zu]", i);
    return ce_set(attrs, name, field, h->value, err);
}

static int ce_set_all(json_t *attrs, const outbox_event *ev,
                      const char *source, outbox_error *err)
{
    int rc = ce_set_content_type(attrs, ev->content_type, err);

    if (rc == OUTBOX_OK)
        rc = ce_set_required(attrs, ev, source, err);
    if (rc == OUTBOX_OK)
        rc = ce_set_time(attrs, ev->published_ms, err);
    if (rc == OUTBOX_OK)
        rc = ce_set(attrs, "partitionkey", "key", ev->key, err);
    for (size_t i = 0; rc == OUTBOX_OK && i < ev->n_headers; i++)
        rc = ce_set_header(attrs, ev, i, err);
    /* Last: a header may say what the subject is. */
    if (rc == OUTBOX_OK && json_object_get(attrs, "subject") == NULL)
        rc = ce_set(attrs, "subject", "key", ev->key, err);
    return rc;
}

/* Of whatever size the caller knows; see outbox.h. */
static int ce_event_read(outbox_event *out, const outbox_event *ev,
                         outbox_error *err)
{
    const unsigned char *bytes = (const unsigned char *)ev;

    if (ev == NULL)
        return ob_ce_invalid(err, "event is NULL");
    if (ev->size < offsetof(outbox_event, position))
        return ob_ce_invalid(err, "event.size is %zu: set it to sizeof the "
                                  "struct", ev->size);
    for (size_t i = sizeof *out; i < ev->size; i++) {
        if (bytes[i] != 0)
            return ob_ce_invalid(err, "event.size is %zu and a field beyond "
                                      "%zu is set: this library is older than "
                                      "the program", ev->size, sizeof *out);
    }
    memset(out, 0, sizeof *out);
    memcpy(out, ev, ev->size < sizeof *out ? ev->size : sizeof *out);
    if (out->payload == NULL && out->payload_len > 0)
        return ob_ce_invalid(err, "payload is NULL and payload_len is %zu",
                          out->payload_len);
    if (out->headers == NULL && out->n_headers > 0)
        return ob_ce_invalid(err, "headers is NULL and n_headers is %zu",
                          out->n_headers);
    return OUTBOX_OK;
}

/* An object of strings, with datacontenttype first. */
static int ce_attributes(json_t **out, outbox_event *copy,
                         const outbox_event *ev, const char *source,
                         outbox_error *err)
{
    int rc = ce_event_read(copy, ev, err);

    *out = NULL;
    if (rc != OUTBOX_OK)
        return rc;
    *out = json_object();
    if (*out == NULL)
        return ob_ce_nomem(err);
    return ce_set_all(*out, copy, source, err);
}

/* ---- structured mode ---------------------------------------------------- */

static char *ce_put(char *out, const char *s)
{
    size_t n = strlen(s);

    memcpy(out, s, n);
    return out + n;
}

/* What says that it is JSON and is not goes as bytes: it was committed, and
 * to judge it is the receiver's part. */
static char *ce_put_data(char *out, const outbox_event *ev, const char *type)
{
    const char *payload = ev->payload;
    size_t len = ev->payload_len;

    if (len == 0)
        return out;
    if (ob_ce_media_type_is_json(type) && ob_ce_json_valid(payload, len)) {
        out = ce_put(out, ",\"data\":");
        memcpy(out, payload, len);
        return out + len;
    }
    out = ce_put(out, ",\"data_base64\":\"");
    out = ob_ce_base64_encode(out, payload, len);
    return ce_put(out, "\"");
}

static int ce_structured(json_t *attrs, const outbox_event *ev, char **json,
                         size_t *len, outbox_error *err)
{
    const char *type
        = json_string_value(json_object_get(attrs, "datacontenttype"));
    size_t flags = JSON_COMPACT | JSON_EMBED;
    size_t n = json_dumpb(attrs, NULL, 0, flags);
    char *end;

    if (n == 0 || ev->payload_len > SIZE_MAX / 2 - n)
        return ob_ce_nomem(err);
    *json = ob_ce_alloc(n + ev->payload_len / 3 * 4 + 64);
    if (*json == NULL)
        return ob_ce_nomem(err);
    end = ce_put(*json, "{");
    if (json_dumpb(attrs, end, n, flags) != n) {
        outbox_cloudevents_free(*json);
        *json = NULL;
        return ob_ce_nomem(err);
    }
    end = ce_put_data(end + n, ev, type);
    end = ce_put(end, "}");
    *end = '\0';
    *len = (size_t)(end - *json);
    return OUTBOX_OK;
}

int outbox_cloudevents_structured(const outbox_event *ev, const char *source,
                                  char **json, size_t *len, outbox_error *err)
{
    outbox_event copy;
    json_t *attrs;
    int rc;

    if (json == NULL || len == NULL)
        return ob_ce_invalid(err, "json or len is NULL");
    *json = NULL;
    *len = 0;
    rc = ce_attributes(&attrs, &copy, ev, source, err);
    if (rc == OUTBOX_OK)
        rc = ce_structured(attrs, &copy, json, len, err);
    json_decref(attrs);
    return rc;
}

/* ---- binary mode -------------------------------------------------------- */

static size_t ce_headers_size(json_t *attrs)
{
    size_t size = 0;
    const char *name;
    json_t *value;

    json_object_foreach(attrs, name, value)
    {
        size += sizeof(outbox_header) + sizeof "cloudEvents:" + strlen(name)
              + 3 * json_string_length(value) + 1;
    }
    return size;
}

static char *ce_put_header(char *at, const ob_ce_binding *to,
                           const char *name, const char *value,
                           outbox_header *h)
{
    bool plain = to->content_type && strcmp(name, "datacontenttype") == 0;

    h->name = at;
    if (plain)
        at = ce_put(at, "content-type");
    else
        at = ce_put(ce_put(at, to->prefix), name);
    *at++ = '\0';
    h->value = at;
    if (to->percent && !plain)
        at = ob_ce_percent_encode(at, value);
    else
        at = ce_put(at, value);
    *at++ = '\0';
    return at;
}

static int ce_binary(json_t *attrs, const ob_ce_binding *to,
                     outbox_header **headers, size_t *n, outbox_error *err)
{
    outbox_header *h;
    const char *name;
    json_t *value;
    char *at;

    /* A receiver tells the modes apart by this: HTTP binding, 3. */
    if (ob_ce_after(json_string_value(json_object_get(attrs,
                                                      "datacontenttype")),
                    OB_CE_MEDIA_TYPE))
        return ob_ce_invalid(err, "content_type begins with " OB_CE_MEDIA_TYPE
                                  ": in binary mode it would be taken for the "
                                  "event itself");
    *headers = ob_ce_alloc(ce_headers_size(attrs));
    if (*headers == NULL)
        return ob_ce_nomem(err);
    h = *headers;
    *n = json_object_size(attrs);
    at = (char *)(h + *n);
    json_object_foreach(attrs, name, value)
        at = ce_put_header(at, to, name, json_string_value(value), h++);
    return OUTBOX_OK;
}

int outbox_cloudevents_binary(const outbox_event *ev, const char *source,
                              outbox_binding binding, outbox_header **headers,
                              size_t *n, outbox_error *err)
{
    outbox_event copy;
    json_t *attrs;
    int rc;

    if (headers == NULL || n == NULL)
        return ob_ce_invalid(err, "headers or n is NULL");
    *headers = NULL;
    *n = 0;
    if ((unsigned)binding > OUTBOX_BINDING_AMQP)
        return ob_ce_invalid(err, "binding is %d, which is none", (int)binding);
    rc = ce_attributes(&attrs, &copy, ev, source, err);
    if (rc == OUTBOX_OK)
        rc = ce_binary(attrs, &ob_ce_bindings[binding], headers, n, err);
    json_decref(attrs);
    return rc;
}

/* SPDX-License-Identifier: MIT
 *
 * event.c - is an event fit to be stored, and what does it look like there.
 *
 * Headers are stored as lines, "name: value\n", so that a person can read
 * them in the table and no header can smuggle in another.
 */
#include "core.h"

#include <stdio.h>
#include <strings.h>

/* ---- headers -------------------------------------------------------- */

static bool header_name_ok(const char *s)
{
    for (; *s != '\0'; s++) {
        if ((unsigned char)*s <= ' ' || *s == ':' || *s == 0x7f)
            return false;
    }
    return true;
}

static bool header_value_ok(const char *s)
{
    for (; *s != '\0'; s++) {
        if (((unsigned char)*s < ' ' && *s != '\t') || *s == 0x7f)
            return false;
    }
    return true;
}

static int header_check(const outbox_header *h, size_t i, size_t *bytes,
                        outbox_error *err)
{
    char field[48];
    size_t name, value;

    if (h->name == NULL || *h->name == '\0')
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "headers[%zu].name is empty", i);
    if (h->value == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "headers[%zu].value is NULL", i);
    snprintf(field, sizeof field, "headers[%zu].name", i);
    int rc = ob_text_check(h->name, OUTBOX_MAX_HEADERS_BYTES, field, &name,
                           err);
    snprintf(field, sizeof field, "headers[%zu].value", i);
    if (rc == OUTBOX_OK)
        rc = ob_text_check(h->value, OUTBOX_MAX_HEADERS_BYTES, field, &value,
                           err);
    if (rc != OUTBOX_OK)
        return rc;
    if (!header_name_ok(h->name))
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "headers[%zu].name has a colon, space or "
                                "control character", i);
    if (!header_value_ok(h->value))
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "headers[%zu].value has a control character",
                                i);
    *bytes += name + value + 3;
    return OUTBOX_OK;
}

int ob_headers_check(const outbox_event *ev, size_t *bytes, outbox_error *err)
{
    *bytes = 0;
    if (ev->n_headers > 0 && ev->headers == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "headers is NULL and n_headers is %zu",
                                ev->n_headers);
    for (size_t i = 0; i < ev->n_headers; i++) {
        int rc = header_check(&ev->headers[i], i, bytes, err);
        if (rc != OUTBOX_OK)
            return rc;
        if (*bytes > OUTBOX_MAX_HEADERS_BYTES)
            return outbox_error_set(err, OUTBOX_EINVAL,
                                    "headers are longer than %d bytes, names "
                                    "and values and 3 for each header",
                                    OUTBOX_MAX_HEADERS_BYTES);
    }
    return OUTBOX_OK;
}

static char *put(char *out, const char *s)
{
    size_t n = strlen(s);

    memcpy(out, s, n);
    return out + n;
}

char *ob_headers_encode(const outbox_event *ev, char *out)
{
    for (size_t i = 0; i < ev->n_headers; i++) {
        out = put(out, ev->headers[i].name);
        out = put(out, ": ");
        out = put(out, ev->headers[i].value);
        *out++ = '\n';
    }
    *out++ = '\0';
    return out;
}

size_t ob_headers_count(const char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += text[i] == '\n';
    return n;
}

/* A line that we did not write is passed over: the row may have been edited
 * by hand, and a crash or a lost event would be a poor answer to that. */
size_t ob_headers_decode(char *text, outbox_header *out, size_t max)
{
    size_t n = 0;

    while (n < max && *text != '\0') {
        char *end = strchr(text, '\n');
        char *colon = strstr(text, ": ");
        if (end == NULL)
            break;
        *end = '\0';
        if (colon != NULL && colon < end) {
            *colon = '\0';
            out[n++] = (outbox_header){ text, colon + 2 };
        }
        text = end + 1;
    }
    return n;
}

/* ---- events --------------------------------------------------------- */

int ob_event_read(outbox_event *out, const outbox_event *ev,
                  outbox_error *err)
{
    if (ev == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "event is NULL");
    return ob_struct_read(out, sizeof *out, sizeof *out, ev, "outbox_event",
                          err);
}

static int text_field(outbox_bytes *out, const char *s, const char *field,
                      outbox_error *err)
{
    *out = (outbox_bytes){ s, 0 };
    if (s == NULL)
        return OUTBOX_OK;
    return ob_text_check(s, OUTBOX_MAX_TEXT_BYTES, field, &out->len, err);
}

/* Commas and stars are the grammar of a subscription's topic list. */
static int topic_check(const char *topic, outbox_error *err)
{
    if (topic == NULL || *topic == '\0')
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "topic is empty: say where the event goes");
    for (const char *c = topic; *c != '\0'; c++) {
        if ((unsigned char)*c <= ' ' || *c == ',' || *c == '*' || *c == 0x7f)
            return outbox_error_set(err, OUTBOX_EINVAL,
                                    "topic has a space, comma, star or "
                                    "control character");
    }
    return OUTBOX_OK;
}

static int row_times(outbox_row *row, const outbox_event *ev,
                     outbox_error *err)
{
    if (ev->due_ms < 0 || ev->expires_ms < 0)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "%s is negative: it counts from 1970",
                                ev->due_ms < 0 ? "due_ms" : "expires_ms");
    if (ev->expires_ms != 0 && ev->expires_ms <= ev->due_ms)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "expires_ms is not after due_ms: the event "
                                "would never be delivered");
    row->due_ms = ev->due_ms;
    row->expires_ms = ev->expires_ms;
    return OUTBOX_OK;
}

static int row_texts(outbox_row *row, const outbox_event *ev,
                     outbox_error *err)
{
    int rc = text_field(&row->topic, ev->topic, "topic", err);

    if (rc == OUTBOX_OK)
        rc = topic_check(ev->topic, err);
    if (rc == OUTBOX_OK)
        rc = text_field(&row->type, ev->type, "type", err);
    if (rc == OUTBOX_OK)
        rc = text_field(&row->key, ev->key, "key", err);
    if (rc == OUTBOX_OK)
        rc = text_field(&row->content_type, ev->content_type, "content_type",
                        err);
    if (rc == OUTBOX_OK)
        rc = text_field(&row->dedup_key, ev->dedup_key, "dedup_key", err);
    return rc;
}

static int row_payload(outbox_row *row, const outbox_event *ev,
                       size_t max_payload, outbox_error *err)
{
    if (ev->payload == NULL && ev->payload_len > 0)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "payload is NULL and payload_len is %zu",
                                ev->payload_len);
    if (ev->payload_len > max_payload)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "payload of %zu bytes is longer than "
                                "max_payload_bytes, %zu: store it elsewhere "
                                "and publish a reference", ev->payload_len,
                                max_payload);
    row->payload.ptr = ev->payload != NULL ? ev->payload : "";
    row->payload.len = ev->payload_len;
    return OUTBOX_OK;
}

static int row_id(outbox_row *row, const outbox_event *ev, ob_random *rnd,
                  outbox_error *err)
{
    if (ev->id == NULL) {
        if (ob_uuid_v7(rnd, (uint64_t)ob_realtime_ms(), row->id) == OUTBOX_OK)
            return OUTBOX_OK;
        return outbox_error_set(err, OUTBOX_EDB,
                                "the system gives no random bytes");
    }
    if (!ob_uuid_parse(ev->id, row->id))
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "id is not a UUID of the form 8-4-4-4-12");
    return OUTBOX_OK;
}

uint64_t ob_row_chain(const outbox_row *row)
{
    if (row->key.ptr != NULL)
        return outbox_hash(row->key.ptr, row->key.len);
    return outbox_hash(row->id, sizeof row->id);
}

int ob_event_row(outbox_row *row, const outbox_event *ev, size_t max_payload,
                 ob_random *rnd, outbox_error *err)
{
    memset(row, 0, sizeof *row);
    int rc = row_texts(row, ev, err);
    if (rc == OUTBOX_OK)
        rc = row_times(row, ev, err);
    if (rc == OUTBOX_OK)
        rc = row_payload(row, ev, max_payload, err);
    if (rc == OUTBOX_OK)
        rc = ob_headers_check(ev, &row->headers.len, err);
    if (rc == OUTBOX_OK)
        rc = row_id(row, ev, rnd, err);
    if (rc == OUTBOX_OK)
        row->chain = ob_row_chain(row);
    return rc;
}

/* ---- delivery ------------------------------------------------------- */

void *ob_grow(const outbox_allocator *mem, void *p, size_t *size, size_t need)
{
    size_t want = need < 256 ? 256 : need;

    if (p != NULL && *size >= need)
        return p;
    p = mem->realloc(mem->arg, p, want);
    if (p != NULL)
        *size = want;
    return p;
}

void ob_scratch_free(const outbox_allocator *mem, ob_scratch *scratch)
{
    ob_free(mem, scratch->headers);
    ob_free(mem, scratch->text);
    memset(scratch, 0, sizeof *scratch);
}

static int event_headers(const outbox_allocator *mem, ob_scratch *scratch,
                         const outbox_bytes *headers, outbox_event *ev)
{
    size_t n = ob_headers_count(headers->ptr, headers->len);
    outbox_header *all = ob_grow(mem, scratch->headers,
                                 &scratch->headers_size,
                                 (n + 1) * sizeof *scratch->headers);
    if (all == NULL)
        return OUTBOX_ENOMEM;
    scratch->headers = all;
    char *text = ob_grow(mem, scratch->text, &scratch->text_size,
                         headers->len + 1);
    if (text == NULL)
        return OUTBOX_ENOMEM;
    scratch->text = text;
    memcpy(scratch->text, headers->ptr, headers->len);
    scratch->text[headers->len] = '\0';
    ev->headers = scratch->headers;
    ev->n_headers = ob_headers_decode(scratch->text, scratch->headers, n);
    return OUTBOX_OK;
}

int ob_event_of_row(const outbox_allocator *mem, ob_scratch *scratch,
                    const outbox_row *row, outbox_event *ev,
                    char id[OB_UUID_TEXT])
{
    ob_uuid_format(row->id, id);
    *ev = (outbox_event){
        .size = sizeof *ev,
        .topic = row->topic.ptr != NULL ? row->topic.ptr : "",
        .type = row->type.ptr,
        .key = row->key.ptr,
        .id = id,
        .content_type = row->content_type.ptr != NULL ? row->content_type.ptr
                                                      : "application/json",
        .payload = row->payload.ptr != NULL ? row->payload.ptr : "",
        .payload_len = row->payload.len,
        .expires_ms = row->expires_ms,
        .position = row->position,
        .published_ms = row->published_ms,
    };
    if (row->headers.len == 0)
        return OUTBOX_OK;
    return event_headers(mem, scratch, &row->headers, ev);
}

/* ---- causality ------------------------------------------------------ */

static const char *header_of(const outbox_event *ev, const char *name)
{
    for (size_t i = 0; i < ev->n_headers; i++) {
        if (strcasecmp(ev->headers[i].name, name) == 0)
            return ev->headers[i].value;
    }
    return NULL;
}

size_t outbox_causality(const outbox_event *cause, outbox_header out[4])
{
    static const char *const traces[] = { "traceparent", "tracestate" };
    size_t n = 0;

    if (cause == NULL || cause->id == NULL || out == NULL)
        return 0;
    const char *correlation = header_of(cause, "correlation-id");
    out[n++] = (outbox_header){ "correlation-id", correlation != NULL
                                                  ? correlation : cause->id };
    out[n++] = (outbox_header){ "causation-id", cause->id };
    for (size_t i = 0; i < OB_COUNT(traces); i++) {
        const char *value = header_of(cause, traces[i]);
        if (value != NULL)
            out[n++] = (outbox_header){ traces[i], value };
    }
    return n;
}

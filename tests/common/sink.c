/* SPDX-License-Identifier: MIT
 *
 * sink.c - the recording transport.
 */
#include "sink.h"
#include "suite.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- copying an event ----------------------------------------------- */

static size_t text_room(const char *s)
{
    return s != NULL ? strlen(s) + 1 : 0;
}

static size_t event_room(const outbox_event *ev)
{
    size_t n = text_room(ev->topic) + text_room(ev->type)
             + text_room(ev->key) + text_room(ev->id)
             + text_room(ev->content_type) + ev->payload_len + 1
             + ev->n_headers * sizeof(outbox_header);

    for (size_t i = 0; i < ev->n_headers; i++)
        n += text_room(ev->headers[i].name) + text_room(ev->headers[i].value);
    return n;
}

static const char *put_text(char **at, const char *s)
{
    char *to = *at;

    if (s == NULL)
        return NULL;
    *at += strlen(s) + 1;
    return strcpy(to, s);
}

static void copy_event(sent *to, const outbox_event *ev)
{
    char *at = to->block = malloc(event_room(ev));
    outbox_header *headers = to->block;

    to->event = *ev;
    at += ev->n_headers * sizeof *headers;
    for (size_t i = 0; i < ev->n_headers; i++) {
        headers[i].name = put_text(&at, ev->headers[i].name);
        headers[i].value = put_text(&at, ev->headers[i].value);
    }
    to->event.headers = ev->n_headers > 0 ? headers : NULL;
    to->event.topic = put_text(&at, ev->topic);
    to->event.type = put_text(&at, ev->type);
    to->event.key = put_text(&at, ev->key);
    to->event.id = put_text(&at, ev->id);
    to->event.content_type = put_text(&at, ev->content_type);
    to->event.payload = ev->payload != NULL ? at : NULL;
    if (ev->payload_len > 0)
        memcpy(at, ev->payload, ev->payload_len);
    at[ev->payload_len] = '\0';
}

/* ---- the transport -------------------------------------------------- */

static int sink_open(void *ctx, outbox_relay_t *relay, outbox_error *err)
{
    sink *s = ctx;
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    s->opens++;
    s->relay = relay;
    if (s->open_failures > 0) {
        s->open_failures--;
        rc = OUTBOX_EDB;
        if (err != NULL) {
            err->code = rc;
            strcpy(err->text, "the sink is shut");
        }
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static void keep(sink *s, const outbox_event *ev, outbox_token token)
{
    pthread_mutex_lock(&s->lock);
    if (s->n == s->cap) {
        s->cap = s->cap != 0 ? 2 * s->cap : 64;
        s->list = realloc(s->list, s->cap * sizeof *s->list);
    }
    copy_event(&s->list[s->n], ev);
    s->list[s->n++].token = token;
    pthread_mutex_unlock(&s->lock);
}

static outbox_verdict sink_send(void *ctx, const outbox_event *ev,
                                outbox_token token, outbox_error *why)
{
    sink *s = ctx;

    keep(s, ev, token);
    return s->rule != NULL ? s->rule(s, ev, token, why) : OUTBOX_ACK;
}

static void sink_flush(void *ctx)
{
    ((sink *)ctx)->flushes++;
}

static void sink_poll(void *ctx, int timeout_ms)
{
    struct timespec t = { .tv_nsec = timeout_ms % 1000 * 1000000L };

    ((sink *)ctx)->polls++;
    if (timeout_ms > 0)
        nanosleep(&t, NULL);
}

static void sink_close(void *ctx)
{
    ((sink *)ctx)->closes++;
}

void sink_init(sink *s, sink_rule *rule, void *arg)
{
    *s = (sink){ .rule = rule, .arg = arg };
    pthread_mutex_init(&s->lock, NULL);
    s->transport = (outbox_transport){
        .size = sizeof s->transport,
        .name = "sink",
        .ctx = s,
        .open = sink_open,
        .send = sink_send,
        .flush = sink_flush,
        .poll = sink_poll,
        .close = sink_close,
    };
}

void sink_forget(sink *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->n > 0)
        free(s->list[--s->n].block);
    pthread_mutex_unlock(&s->lock);
}

void sink_release(sink *s)
{
    sink_forget(s);
    free(s->list);
    pthread_mutex_destroy(&s->lock);
}

long event_number(const outbox_event *ev)
{
    const char *digits = ev->payload;
    long n = 0;

    for (size_t i = 0; i < ev->payload_len && isdigit((unsigned char)digits[i]);
         i++)
        n = 10 * n + (digits[i] - '0');
    return n;
}

/* ---- rules ---------------------------------------------------------- */

outbox_verdict sink_pending(sink *s, const outbox_event *ev,
                            outbox_token token, outbox_error *why)
{
    (void)s, (void)ev, (void)token, (void)why;
    return OUTBOX_PENDING;
}

outbox_verdict sink_retry(sink *s, const outbox_event *ev, outbox_token token,
                          outbox_error *why)
{
    (void)s, (void)ev, (void)token;
    if (why != NULL)
        strcpy(why->text, "not now");
    return OUTBOX_RETRY;
}

outbox_verdict sink_reject(sink *s, const outbox_event *ev,
                           outbox_token token, outbox_error *why)
{
    (void)s, (void)ev, (void)token;
    if (why != NULL)
        strcpy(why->text, "never");
    return OUTBOX_REJECT;
}

/* ---- looking -------------------------------------------------------- */

size_t sink_count(sink *s)
{
    pthread_mutex_lock(&s->lock);
    size_t n = s->n;
    pthread_mutex_unlock(&s->lock);
    return n;
}

sent *sink_at(sink *s, size_t i)
{
    pthread_mutex_lock(&s->lock);
    sent *at = i < s->n ? &s->list[i] : NULL;
    pthread_mutex_unlock(&s->lock);
    return at;
}

long sink_number(sink *s, size_t i)
{
    pthread_mutex_lock(&s->lock);
    long n = i < s->n ? strtol(s->list[i].event.payload, NULL, 10) : -1;
    pthread_mutex_unlock(&s->lock);
    return n;
}

size_t sink_times(sink *s, long number)
{
    size_t times = 0, n = sink_count(s);

    for (size_t i = 0; i < n; i++)
        times += sink_number(s, i) == number;
    return times;
}

int sink_settle(sink *s, size_t i, outbox_verdict verdict)
{
    return outbox_settle(s->relay, sink_at(s, i)->token, verdict, "settled");
}

bool sink_wait(sink *s, size_t n, int ms)
{
    int64_t end = real_ms() + ms;

    while (sink_count(s) < n) {
        if (real_ms() > end)
            return false;
        struct timespec t = { .tv_nsec = 500000 };
        nanosleep(&t, NULL);
    }
    return true;
}

static bool seen_before(sink *s, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (strcmp(s->list[k].event.id, s->list[i].event.id) == 0)
            return true;
    }
    return false;
}

static bool same_key(const sent *a, const sent *b)
{
    return a->event.key != NULL && b->event.key != NULL
        && strcmp(a->event.key, b->event.key) == 0;
}

/* The first delivery of an event before this one, of its key, with a greater
 * number, is one that came too early. */
bool sink_in_order(sink *s)
{
    size_t n = sink_count(s);

    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            if (same_key(&s->list[k], &s->list[i])
                && sink_number(s, k) > sink_number(s, i) && !seen_before(s, i))
                return false;
        }
    }
    return true;
}

bool sink_exactly(sink *s, long from, long n)
{
    return sink_count(s) == (size_t)n && sink_at_least(s, from, n);
}

bool sink_at_least(sink *s, long from, long n)
{
    for (long i = from; i < from + n; i++) {
        if (sink_times(s, i) == 0)
            return false;
    }
    return true;
}

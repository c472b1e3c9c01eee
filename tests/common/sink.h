/* SPDX-License-Identifier: MIT
 *
 * sink.h - a transport for tests: it keeps a copy of all that it is sent, and
 * a rule decides what becomes of it.
 */
#ifndef TESTS_SINK_H
#define TESTS_SINK_H

#include <outbox/outbox.h>
#include <pthread.h>
#include <stdbool.h>

typedef struct sink sink;

typedef struct sent {                   /* one delivery, as it was seen */
    outbox_event event;                 /* a deep copy */
    outbox_token token;
    void        *block;
} sent;

/* Called without a lock; the delivery is in the list already. */
typedef outbox_verdict sink_rule(sink *s, const outbox_event *ev,
                                 outbox_token token, outbox_error *why);

struct sink {
    outbox_transport transport;
    outbox_relay_t  *relay;             /* set when it opens the transport */
    sink_rule       *rule;              /* NULL: OUTBOX_ACK */
    void            *arg;
    pthread_mutex_t  lock;
    sent            *list;
    size_t           n, cap;
    unsigned         opens, closes, flushes, polls;
    unsigned         open_failures;     /* fail that many times first */
};

void sink_init(sink *s, sink_rule *rule, void *arg);
void sink_release(sink *s);
void sink_forget(sink *s);              /* empty the list */

sink_rule sink_pending, sink_retry, sink_reject;

/* Its payload, which ends without a NUL, read as a number. */
long event_number(const outbox_event *ev);

/* All below from any thread. */
size_t sink_count(sink *s);
sent  *sink_at(sink *s, size_t i);      /* good until the next is sent */
long   sink_number(sink *s, size_t i);  /* its payload, read as a number */
size_t sink_times(sink *s, long number);    /* deliveries of that payload */
int    sink_settle(sink *s, size_t i, outbox_verdict verdict);
/* Wait for n deliveries, at most ms. */
bool   sink_wait(sink *s, size_t n, int ms);
/* Do the first deliveries of each key ascend by number? */
bool   sink_in_order(sink *s);
/* Was each number from..from + n - 1 delivered exactly / at least once? */
bool   sink_exactly(sink *s, long from, long n);
bool   sink_at_least(sink *s, long from, long n);

#endif

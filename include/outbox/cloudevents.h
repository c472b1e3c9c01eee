/* SPDX-License-Identifier: MIT
 *
 * cloudevents.h - events as CloudEvents 1.0, and back: for transports and
 *                 for consumers.
 *
 * Pure functions: no handle, no state, any thread.  What they return is one
 * block of memory, freed with outbox_cloudevents_free(); it comes from the
 * allocator of jansson, see json_set_alloc_funcs().  On an error they set
 * what they would have returned to NULL.  Errors: OUTBOX_EINVAL, with a text
 * that names the attribute and the rule, and OUTBOX_ENOMEM.
 */
#ifndef OUTBOX_CLOUDEVENTS_H
#define OUTBOX_CLOUDEVENTS_H

#include <outbox/outbox.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Media type of a structured event. */
#define OUTBOX_CLOUDEVENTS_JSON "application/cloudevents+json"

typedef enum outbox_binding {           /* what binary mode calls the id */
    OUTBOX_BINDING_HTTP  = 0,           /* ce-id; values percent-encoded */
    OUTBOX_BINDING_NATS  = 1,           /* ce-id; ce-datacontenttype */
    OUTBOX_BINDING_KAFKA = 2,           /* ce_id */
    OUTBOX_BINDING_AMQP  = 3            /* cloudEvents:id */
} outbox_binding;

/* Structured mode: *json is the whole event, of *len bytes, with a NUL
 * behind.  source, a URI reference, says whose event it is. */
OUTBOX_MUST int outbox_cloudevents_structured(const outbox_event *ev,
                                              const char *source,
                                              char **json, size_t *len,
                                              outbox_error *err);
/* Binary mode: *headers are the *n headers to send beside the payload, which
 * is the body as it stands.  The first is the content type. */
OUTBOX_MUST int outbox_cloudevents_binary(const outbox_event *ev,
                                          const char *source,
                                          outbox_binding binding,
                                          outbox_header **headers, size_t *n,
                                          outbox_error *err);
/* A message that was received, of either mode and any binding; without
 * headers the body is a structured event.  *ev keeps nothing of what was
 * given; *source, which may be NULL, lives as long as *ev.  The topic is
 * NULL: where a message came from is the receiver's to know. */
OUTBOX_MUST int outbox_cloudevents_parse(const outbox_header *headers,
                                         size_t n, const void *body,
                                         size_t len, outbox_event **ev,
                                         const char **source,
                                         outbox_error *err);
/* The json, the headers or the event; NULL is ignored. */
OUTBOX_API void outbox_cloudevents_free(void *p);

#ifdef __cplusplus
}
#endif
#endif

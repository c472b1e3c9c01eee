/* SPDX-License-Identifier: MIT
 *
 * cloudevents_impl.h - what the files of CloudEvents share.
 */
#ifndef OB_CLOUDEVENTS_IMPL_H
#define OB_CLOUDEVENTS_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <outbox/cloudevents.h>

/* ---- cloudevents.c ------------------------------------------------------ */

#define OB_CE_MEDIA_TYPE "application/cloudevents"

typedef struct ob_ce_binding {
    const char *prefix;
    bool        content_type;   /* has a header for it that is everybody's */
    bool        percent;        /* encodes values; else they are UTF-8 */
} ob_ce_binding;

enum { OB_CE_BINDINGS = OUTBOX_BINDING_AMQP + 2 };

/* Macros, so that whoever analyses a caller sees what they return. */
#define ob_ce_invalid(err, ...)                                                \
    (ob_ce_say(err, OUTBOX_EINVAL, __VA_ARGS__), OUTBOX_EINVAL)
#define ob_ce_nomem(err)                                                       \
    (ob_ce_say(err, OUTBOX_ENOMEM, "out of memory"), OUTBOX_ENOMEM)

extern const ob_ce_binding ob_ce_bindings[OB_CE_BINDINGS];

void ob_ce_say(outbox_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void *ob_ce_alloc(size_t n);

/* ---- cloudevents_rules.c: the types of CloudEvents, as text ------------- */

enum { OB_CE_TIME = 40, OB_CE_JSON_DEPTH = 1024 };

/* What keeps it from being a String, as the end of a sentence; or NULL. */
const char *ob_ce_string_fault(const char *s, size_t len);
bool ob_ce_utf8_ok(const char *s, size_t len);
bool ob_ce_name_ok(const char *name);           /* of an attribute */
bool ob_ce_uri_ok(const char *s, bool absolute);
bool ob_ce_media_type_ok(const char *s);
bool ob_ce_media_type_is_json(const char *s);
/* What follows prefix in s, of whatever case; NULL: not the prefix of s. */
const char *ob_ce_after(const char *s, const char *prefix);

bool ob_ce_time_format(int64_t ms, char out[OB_CE_TIME]);
bool ob_ce_time_parse(const char *s, int64_t *ms);

/* Both return the end of what they wrote; decode may write where it reads,
 * and returns NULL when s is not Base64 to the letter. */
char *ob_ce_base64_encode(char *out, const void *bytes, size_t len);
char *ob_ce_base64_decode(char *out, const char *s, size_t len);

/* Percent-encode as HTTP headers want it; returns the end. */
char *ob_ce_percent_encode(char *out, const char *s);
/* Take off the quotes, the backslashes and one round of percent-encoding;
 * returns what is wrong with s, or NULL. */
const char *ob_ce_percent_decode(char **out, const char *s);

/* ---- cloudevents_json.c: JSON as text, which is UTF-8 ------------------- */

typedef struct ob_ce_span { const char *at, *end; } ob_ce_span;

/* Step over one value and the blanks around it; value is its text. */
bool ob_ce_json_value(ob_ce_span *text, ob_ce_span *value);
bool ob_ce_json_valid(const char *s, size_t len);
/* The members of the object that text is, one at a time, name in its quotes:
 * 1; 0 at the end; -1 where it is not JSON, and text->at says where.  Begin
 * with first true. */
int ob_ce_json_member(ob_ce_span *text, bool *first, ob_ce_span *name,
                      ob_ce_span *value);
/* The string whose text, in its quotes, is s; returns the end. */
char *ob_ce_json_unquote(char *out, ob_ce_span s);

#endif

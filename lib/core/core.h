/* SPDX-License-Identifier: MIT
 *
 * core.h - the handles, and what the files of the core share.
 */
#ifndef OB_CORE_H
#define OB_CORE_H

#include "base.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

/* What both handles are made of. */
typedef struct ob_handle {
    outbox_store *store;
    pid_t         pid;          /* of the process that made it */
} ob_handle;

struct outbox {
    ob_handle    h;
    uint32_t     lanes;
    size_t       max_payload_bytes;
    int64_t      max_backlog;
    ob_random    rnd;
    char         last_id[OB_UUID_TEXT];
    outbox_row  *rows;          /* of the call being made; kept for the next */
    size_t       rows_size;
    char        *text;          /* its encoded headers */
    size_t       text_size;
};

struct inbox {
    ob_handle h;
};

/* NULL handle, or one from before a fork. */
int ob_handle_check(const ob_handle *h, const char *name, outbox_error *err);

/* p, or a larger one in its place, with room for need bytes; NULL without
 * memory: then p is what it was. */
void *ob_grow(const outbox_allocator *mem, void *p, size_t *size,
              size_t need);

/* ---- event.c -------------------------------------------------------- */

/* Bytes that the headers of ev take when encoded, after checking them. */
int ob_headers_check(const outbox_event *ev, size_t *bytes,
                     outbox_error *err);
char *ob_headers_encode(const outbox_event *ev, char *out);
/* Split "name: value\n"s in place; returns how many, at most max. */
size_t ob_headers_decode(char *text, outbox_header *out, size_t max);
size_t ob_headers_count(const char *text, size_t len);

/* Check ev and describe it as a row; headers are the caller's to encode. */
int ob_event_read(outbox_event *out, const outbox_event *ev,
                  outbox_error *err);
int ob_event_row(outbox_row *row, const outbox_event *ev, size_t max_payload,
                 ob_random *rnd, outbox_error *err);
uint64_t ob_row_chain(const outbox_row *row);

/* Room for the headers of one event, kept from one to the next. */
typedef struct ob_scratch {
    outbox_header *headers;
    char          *text;
    size_t         headers_size, text_size;
} ob_scratch;

/* The event as its receiver sees it; it points into row, id and scratch. */
int  ob_event_of_row(const outbox_allocator *mem, ob_scratch *scratch,
                     const outbox_row *row, outbox_event *ev,
                     char id[OB_UUID_TEXT]);
void ob_scratch_free(const outbox_allocator *mem, ob_scratch *scratch);

/* ---- filter.c ------------------------------------------------------- */

int  ob_filter_check(const char *topics, outbox_error *err);
bool ob_filter_match(const char *topics, const outbox_bytes *topic);

/* ---- admin.c -------------------------------------------------------- */

void ob_stats_count(outbox_stats *st, const outbox_counts *c, int64_t now_ms);
int  ob_stats_copy(outbox_stats *st, const outbox_stats *from,
                   outbox_error *err);

/* ---- wake.c --------------------------------------------------------- */

enum { OB_WAKE_HINT = 1, OB_WAKE_NOW = 2, OB_WAKE_VERDICT = 4 };

typedef struct ob_waker {
    struct ob_waker *next;
    uint64_t         database;
    int              fd[2];     /* the reading end becomes readable */
    atomic_uint      bits;
    int64_t          durable;   /* the log up to here needs no sync; guarded
                                   by the list's lock, as not every machine
                                   has atomics of 64 bits */
    atomic_int       asleep;
} ob_waker;

int      ob_waker_init(ob_waker *w, uint64_t database, outbox_error *err);
void     ob_waker_release(ob_waker *w);
unsigned ob_waker_take(ob_waker *w);            /* the bits, once */
/* False: one of the bits is set.  The others do not wake the sleeper. */
bool     ob_waker_sleep(ob_waker *w, unsigned bits);
void     ob_waker_awake(ob_waker *w);
void     ob_waker_signal(ob_waker *w, unsigned bit);    /* signal-safe */
int64_t ob_waker_durable(ob_waker *w);
void    ob_waker_forget(ob_waker *w);           /* what is durable */
/* Relays of this process listen between these two. */
void ob_waker_list(ob_waker *w);
void ob_waker_unlist(ob_waker *w);
void ob_wake_database(uint64_t database, unsigned bit, int64_t durable);

#endif

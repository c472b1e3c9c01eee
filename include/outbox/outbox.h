/* SPDX-License-Identifier: MIT
 *
 * outbox.h - write an event in the database transaction that makes it true;
 *            have it delivered, at least once and in order, afterwards.
 *
 * Rules for the whole API
 *
 *  - What can fail returns OUTBOX_OK (0) or more, or a negative OUTBOX_E*
 *    code, and, when err is not NULL, says why in *err.
 *  - Types ending in _t are opaque, made and freed by the library.  Other
 *    structs are plain and yours: zero them, set .size = sizeof x, leave zero
 *    what you do not care about.  The library copies what it keeps.
 *  - An outbox_t or inbox_t borrows one connection of yours and obeys that
 *    connection's rules: one thread at a time, never across fork().  A relay
 *    may be used from any thread.
 *  - Text is UTF-8.  Times are milliseconds since 1970-01-01 UTC; durations
 *    are milliseconds; sizes are bytes.
 */
#ifndef OUTBOX_OUTBOX_H
#define OUTBOX_OUTBOX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OUTBOX_API  __attribute__((visibility("default")))
#define OUTBOX_MUST __attribute__((visibility("default"), warn_unused_result))

#define OUTBOX_VERSION 0x000100                 /* 0.1.0 */
OUTBOX_API int outbox_version(void);            /* of the library loaded */

typedef struct outbox       outbox_t;           /* through one connection */
typedef struct inbox        inbox_t;            /* through one connection */
typedef struct outbox_relay outbox_relay_t;

/* ---- errors: each code says what to do next ------------------------- */

enum {
    OUTBOX_OK        = 0,
    OUTBOX_ENOMEM    = -1,
    OUTBOX_EINVAL    = -2,   /* fix the call; nothing was written */
    OUTBOX_ENOTX     = -3,   /* no transaction is open: BEGIN first */
    OUTBOX_EABORTED  = -4,   /* the transaction is lost: roll it back */
    OUTBOX_EREADONLY = -5,   /* the transaction or database is read-only */
    OUTBOX_EBUSY     = -6,   /* lock or serialization conflict: run it again */
    OUTBOX_ESCHEMA   = -7,   /* tables missing or of another version: migrate */
    OUTBOX_EFULL     = -8,   /* the backlog is at its limit */
    OUTBOX_EDB       = -9,   /* anything else the database said */
    OUTBOX_ESTALE    = -10,  /* token settled before, lease lost, or log
                                replaced */
    OUTBOX_ETIMEOUT  = -11,
    OUTBOX_EFORK     = -12,  /* the handle was made in another process */
    OUTBOX_ENOENT    = -13,  /* no such subscription or dead event */
    OUTBOX_EINDOUBT  = -14   /* COMMIT was sent, its answer never came */
};

typedef struct outbox_error {                   /* 256 bytes, for ever */
    int  code;                                  /* OUTBOX_E*; 0: none */
    int  native;                                /* SQLite extended code */
    char sqlstate[8];                           /* "40001"; "" in SQLite */
    char text[240];                             /* one line, no newline */
} outbox_error;

OUTBOX_API const char *outbox_strerror(int code);

/* ---- events --------------------------------------------------------- */

/* A name has no colon, space or control character; a value no control
 * character but tab: so a header survives HTTP, AMQP and Kafka alike. */
typedef struct outbox_header { const char *name, *value; } outbox_header;

typedef struct outbox_event {
    size_t      size;
    const char *topic;                  /* required: where it goes, "orders";
                                           no space, comma, star, control */
    const char *type;                   /* what happened, "order.paid" */
    const char *key;                    /* same key: delivered in order */
    const char *id;                     /* UUID; NULL: a new UUIDv7 */
    const char *content_type;           /* NULL: application/json */
    const void *payload;
    size_t      payload_len;
    const outbox_header *headers;       /* traceparent, correlation-id, ... */
    size_t      n_headers;
    const char *dedup_key;              /* publish at most once per key, over
                                           all topics: "rating:" and an id */
    int64_t     due_ms;                 /* not before; 0: at once */
    int64_t     expires_ms;             /* not after; 0: never expires */
    /* Filled in by the library on delivery; ignored by publish. */
    int64_t     position;               /* identity in the log, not order */
    int64_t     published_ms;           /* database clock; due_ms if that was
                                           later */
    int32_t     attempt;                /* 1 on the first delivery, more on
                                           others: a hint, not an identity */
    int32_t     reserved;
} outbox_event;

enum {                                  /* limits, in bytes without the NUL */
    OUTBOX_MAX_TEXT_BYTES    = 1024,    /* topic, type, key, content_type,
                                           dedup_key, subscription,
                                           consumer and the id that it had */
    OUTBOX_MAX_HEADERS_BYTES = 65536,   /* all names and values together, and
                                           3 more for each header */
    OUTBOX_MAX_LANES         = 64
};

/* ---- publishing, inside your transaction ---------------------------- */

/* All three or none.  Called from any thread that uses a handle made with it,
 * so they must be thread-safe, as malloc is. */
typedef struct outbox_allocator {
    size_t size;
    void  *arg;
    void *(*malloc)(void *arg, size_t n);
    void *(*realloc)(void *arg, void *p, size_t n);
    void  (*free)(void *arg, void *p);
} outbox_allocator;

typedef struct outbox_options {
    size_t      size;
    const char *prefix;                 /* SQLite table prefix, "outbox_" */
    const char *schema;                 /* PostgreSQL schema, "outbox" */
    size_t      max_payload_bytes;      /* 0: 1 MiB */
    int64_t     max_backlog;            /* 0: no limit; else EFULL beyond it */
    uint32_t    flags;                  /* OUTBOX_POOLED, ... */
    uint32_t    lanes;                  /* fixed by the first migrate; 16 */
    int       (*on_connect)(void *arg, void *db);   /* sqlite3 * or PGconn *;
                                           not 0: fail */
    void       *arg;
    const outbox_allocator *allocator;  /* NULL: malloc, realloc, free */
} outbox_options;

enum {                          /* for PostgreSQL: see outbox_pg(3) */
    OUTBOX_POOLED    = 1,       /* behind a pooler: keep no session state */
    OUTBOX_LOCK_KEYS = 2,       /* publish() serialises writers of one key */
    OUTBOX_QUIET     = 4        /* never NOTIFY: for two-phase commit */
};

/* OUTBOX_OK, or OUTBOX_DUPLICATE when dedup_key was published before and the
 * event was left out; the transaction goes on. */
enum { OUTBOX_DUPLICATE = 1 };

OUTBOX_MUST int outbox_publish(outbox_t *ob, const outbox_event *ev,
                               outbox_error *err);
/* All n or none, but for duplicates; in the order of the array. */
OUTBOX_MUST int outbox_publish_many(outbox_t *ob, const outbox_event *const *ev,
                                    size_t n, outbox_error *err);
/* Publish and COMMIT, then wake the relays of this process.  This is the one
 * call that ends your transaction: on OUTBOX_OK and OUTBOX_DUPLICATE it is
 * committed, on any error it is as open as before, unless the error is
 * OUTBOX_EABORTED (roll back) or OUTBOX_EINDOUBT.  In PostgreSQL roll it back
 * after OUTBOX_EBUSY and OUTBOX_EREADONLY, too. */
OUTBOX_MUST int outbox_publish_commit(outbox_t *ob,
                                      const outbox_event *const *ev, size_t n,
                                      outbox_error *err);
/* Id of the event published last through this handle; "" before the first.
 * Valid until the next publish. */
OUTBOX_API const char *outbox_last_id(const outbox_t *ob);
/* Headers for events that are published because cause is being handled:
 * correlation-id (cause's, or its id), causation-id (its id), and its
 * traceparent and tracestate.  They point into cause.  Returns how many of
 * the four were filled in. */
OUTBOX_API size_t outbox_causality(const outbox_event *cause,
                                   outbox_header out[4]);
/* Create or upgrade the tables of outbox and inbox, in a transaction of its
 * own.  A handle opens without them; using it then gives OUTBOX_ESCHEMA. */
OUTBOX_MUST int outbox_migrate(outbox_t *ob, outbox_error *err);
OUTBOX_API void outbox_close(outbox_t *ob);

/* ---- consuming once, inside your transaction ------------------------ */

/* 1: first time, do the work.  0: seen before, skip it.  < 0: error.
 * The mark belongs to your transaction: roll back and it is gone. */
OUTBOX_MUST int inbox_accept(inbox_t *ib, const char *consumer,
                             const char *id, outbox_error *err);
/* Forget marks older than keep_ms, the oldest limit marks at most; returns
 * how many.  A redelivery after that is accepted again: keep_ms must exceed
 * the longest time that any event can come late. */
OUTBOX_MUST int inbox_prune(inbox_t *ib, int64_t keep_ms, int limit,
                            outbox_error *err);
/* COMMIT, and make sure that it was one and is durable: a COMMIT of an
 * aborted transaction "succeeds" as a ROLLBACK.  Acknowledge to the broker
 * only after OUTBOX_OK; not after OUTBOX_EABORTED or OUTBOX_ENOTX, mark and
 * work are gone, nor after OUTBOX_EINDOUBT, they may be. */
OUTBOX_MUST int inbox_commit(inbox_t *ib, outbox_error *err);
OUTBOX_API void inbox_close(inbox_t *ib);

/* ---- transports ----------------------------------------------------- */

typedef enum outbox_verdict {
    OUTBOX_PENDING = 0,                 /* outbox_settle() follows */
    OUTBOX_ACK     = 1,                 /* the destination has it */
    OUTBOX_RETRY   = 2,                 /* not now: back off, try again */
    OUTBOX_REJECT  = 3                  /* never: to the dead letters */
} outbox_verdict;

/* Names one send: serial counts a relay's sends and never comes twice, so that
 * a verdict that is late, even by a restored database, hits nothing else. */
typedef struct outbox_token { int64_t position, serial; } outbox_token;

enum { OUTBOX_ORDERED = 1 };    /* transport flag: see outbox_transport(3) */

typedef struct outbox_transport {       /* send is the only one required */
    size_t      size;
    const char *name;
    void       *ctx;                    /* first argument of each below */
    uint32_t    flags;                  /* OUTBOX_ORDERED */
    uint32_t    max_inflight_ms;        /* a lease must outlast it; 0: sync */
    int  (*open)(void *ctx, outbox_relay_t *relay, outbox_error *err);
    outbox_verdict (*send)(void *ctx, const outbox_event *ev,
                           outbox_token token, outbox_error *why);
    void (*flush)(void *ctx);           /* end of a batch */
    void (*poll)(void *ctx, int timeout_ms);    /* serve the client library */
    void (*close)(void *ctx);           /* no settling after it */
} outbox_transport;

/* From any thread.  Per token the first verdict wins; a late ACK still counts
 * while the relay has the event in memory, a late RETRY or REJECT does not:
 * OUTBOX_ESTALE. */
OUTBOX_API int outbox_settle(outbox_relay_t *relay, outbox_token token,
                             outbox_verdict verdict, const char *why);

/* ---- relaying ------------------------------------------------------- */

typedef enum outbox_on_dead {           /* later events of a dead one's key */
    OUTBOX_DEAD_BLOCKS_KEY = 0,         /* wait: until revived or discarded */
    OUTBOX_DEAD_SKIPS      = 1          /* go on without it */
} outbox_on_dead;

typedef enum outbox_start {             /* a new subscription begins ... */
    OUTBOX_START_OLDEST = 0,            /* at the oldest event kept */
    OUTBOX_START_NOW    = 1
} outbox_start;

typedef struct outbox_relay_options {
    size_t         size;
    const char    *subscription;        /* "default"; one cursor per name */
    const char    *topics;              /* "orders,billing.*"; NULL: all */
    uint32_t       max_lanes;           /* share of the keys; 0: all */
    uint32_t       max_parked;          /* then it reads no more  1000000 */
    uint32_t       batch;               /* events per read             1000 */
    uint32_t       max_inflight;        /* unsettled at most          10000 */
    uint32_t       poll_ms;             /* longest sleep when idle     1000 */
    size_t         max_inflight_bytes;  /*                           64 MiB */
    uint32_t       lease_ms;            /* failover after            10000 */
    uint32_t       settle_ms;           /* unsettled: retry          30000 */
    uint32_t       flush_ms;            /* progress is saved every      50 */
    uint32_t       retry_min_ms, retry_max_ms;  /* backoff   200, 300000 */
    uint32_t       max_attempts;        /* then dead; 0: 20 */
    uint32_t       breaker_failures;    /* in a row, then pause; 0: 10 */
    uint32_t       breaker_ms;          /* first pause                1000 */
    outbox_on_dead on_dead;
    outbox_start   start;
    int64_t        keep_ms;             /* history kept for replay; 0: none */
    void         (*log)(void *arg, int level, const char *line);
    void          *log_arg;             /* level as in syslog(3) */
    int64_t      (*clock_ms)(void *arg);    /* monotonic; NULL: the system's */
    void          *clock_arg;           /* for tests and simulated time */
} outbox_relay_options;

/* On success the relay owns ob, which must come from a *_connect(). */
OUTBOX_MUST int outbox_relay_new(outbox_relay_t **out, outbox_t *ob,
                                 const outbox_transport *transport,
                                 const outbox_relay_options *opt,
                                 outbox_error *err);
/* The relay itself: one turn, and when there was nothing to do a sleep of at
 * most timeout_ms and another; returns events settled.
 * OUTBOX_EBUSY while another thread is in it or a thread was started. */
OUTBOX_MUST int outbox_relay_step(outbox_relay_t *r, int timeout_ms,
                                  outbox_error *err);
/* A thread that steps.  start returns when it runs and the database has
 * answered.  stop sends nothing more, waits for verdicts on what is in flight
 * for timeout_ms (twice that and 1 s, when a callback or the database is slow),
 * saves, gives the lanes back and joins the thread; what was not sent stays for
 * the next relay.  OUTBOX_ETIMEOUT: a verdict did not come (the event will be
 * sent again), or the transport's callback has not returned (stop again).
 * Without a thread stop does the same by itself. */
OUTBOX_MUST int outbox_relay_start(outbox_relay_t *r, outbox_error *err);
OUTBOX_API int  outbox_relay_stop(outbox_relay_t *r, int timeout_ms,
                                  outbox_error *err);
OUTBOX_API void outbox_relay_wake(outbox_relay_t *r);  /* signal-safe */
/* Stops it if need be; closes the outbox_t that it owns. */
OUTBOX_API void outbox_relay_free(outbox_relay_t *r);

typedef struct outbox_stats {
    size_t   size;
    uint64_t sent, acked, retried, rejected, expired;   /* so far */
    uint64_t lag;                       /* committed, not yet acknowledged */
    int64_t  lag_ms;                    /* age of the oldest of those */
    uint64_t inflight, parked, dead, blocked_keys, scheduled;
    uint64_t leases_lost, reconnects;
    int32_t  leader, breaker_open;      /* 0 or 1 */
    int32_t  paused;
    int32_t  holds_log;                 /* what keeps the log from trimming:
                                           no subscription is further behind */
} outbox_stats;
/* As of the relay's last look at the database; asks the database nothing. */
OUTBOX_API int outbox_relay_stats(outbox_relay_t *r, outbox_stats *st);

/* ---- operating: on any handle, in transactions of its own ----------- */

/* What the database knows: lag, lag_ms, parked, dead, scheduled, paused and
 * holds_log; the rest is 0.  OUTBOX_ENOENT: no such subscription, for all of
 * these. */
OUTBOX_MUST int outbox_subscription_stats(outbox_t *ob, const char *sub,
                                          outbox_stats *st, outbox_error *err);

typedef void outbox_letter_fn(void *arg, const outbox_event *ev,
                              const char *last_error, int64_t died_ms);

/* The dead letters, the oldest first, at most limit; returns how many.  fn
 * must not use ob; what it is given is valid during the call. */
OUTBOX_MUST int outbox_dead_each(outbox_t *ob, const char *sub, int limit,
                                 outbox_letter_fn *fn, void *arg,
                                 outbox_error *err);
/* Back to the head of its key, with no attempt counted; or away for good.
 * id NULL: all of them.  Both return how many; an id that is not among the
 * dead is OUTBOX_ENOENT. */
OUTBOX_MUST int outbox_dead_revive(outbox_t *ob, const char *sub,
                                   const char *id, outbox_error *err);
OUTBOX_MUST int outbox_dead_discard(outbox_t *ob, const char *sub,
                                    const char *id, outbox_error *err);
/* Its relays send nothing more, within 250 ms, until paused is 0 again. */
OUTBOX_MUST int outbox_pause(outbox_t *ob, const char *sub, int paused,
                             outbox_error *err);
/* Deliver again everything kept since then (published_ms >= since_ms). */
OUTBOX_MUST int outbox_replay(outbox_t *ob, const char *sub, int64_t since_ms,
                              outbox_error *err);
/* Forget the subscription with its cursors, parked and dead events.  A relay
 * of it that still runs ends with OUTBOX_ENOENT. */
OUTBOX_MUST int outbox_unsubscribe(outbox_t *ob, const char *sub,
                                   outbox_error *err);

#ifdef __cplusplus
}
#endif
#endif

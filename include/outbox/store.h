/* SPDX-License-Identifier: MIT
 *
 * store.h - what a database must do for the outbox: for authors of stores.
 *
 * A store is one const table of operations over a struct that begins with
 * outbox_store.  The library calls it from one thread at a time, holds no
 * lock meanwhile, and passes only what it has checked.  An operation returns
 * OUTBOX_OK (0) or more, or a negative OUTBOX_E* code with its reason in err,
 * which is never NULL here.  After an error nothing has changed, unless the
 * slot says otherwise.  outbox_store(3) tells the whole story; users of the
 * library do not need this header, and it may change with a minor version.
 */
#ifndef OUTBOX_STORE_H
#define OUTBOX_STORE_H

#include <outbox/outbox.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct outbox_bytes {           /* ptr NULL: SQL NULL */
    const void *ptr;
    size_t      len;
} outbox_bytes;

/* A place in reading order: after the event at position in window.  Stores
 * that read in position order leave window 0.  id is the event there: the
 * anchor, by which a log that was emptied or restored is told from ours.
 * All zero: before the first event. */
typedef struct outbox_cursor {
    int64_t window, position;
    uint8_t id[16];
} outbox_cursor;

/* One event as stored.  Text is UTF-8 and NUL-terminated after len bytes. */
typedef struct outbox_row {
    int64_t      window, position;
    uint8_t      id[16];
    uint64_t     chain;         /* events of one chain are delivered in order:
                                   hash of the key, without one of the id */
    uint32_t     lane;          /* chain modulo the number of lanes */
    uint32_t     attempts;      /* failures that counted */
    int64_t      published_ms;  /* set by the store */
    int64_t      due_ms;        /* append: not into the log before; 0: now */
    int64_t      expires_ms;    /* 0: never */
    outbox_bytes topic, type, key, content_type;
    outbox_bytes headers;       /* "name: value\n" for each, in order */
    outbox_bytes payload;
    outbox_bytes dedup_key;     /* append */
    int64_t      seq;           /* parked rows: place within the chain */
    int64_t      delay_ms;      /* parked rows: pause before the next try */
    int64_t      died_ms;       /* dead rows */
    const char  *why;           /* parked, dead: the last error, or NULL */
} outbox_row;

/* Takes one row, valid only during the call.  Not 0: stop reading, the row
 * was not taken. */
typedef int outbox_sink(void *arg, const outbox_row *row);

typedef struct outbox_subscription {
    const char  *name;
    outbox_start start;         /* only for one that does not exist yet */
    int64_t      keep_ms;       /* trim spares what is younger */
    int32_t      create;        /* 0: ENOENT when it does not exist */
    int32_t      paused;        /* out of attach and beat */
    int64_t      generation;    /* out, too: changes when a person has revived
                                   or discarded dead events */
    int64_t      sub;           /* out of attach: its number */
    uint32_t     lanes;         /* out of attach: lanes of this log */
    uint32_t     reserved;
} outbox_subscription;

/* A lane as a relay sees it. */
typedef struct outbox_lane {
    uint32_t      lane;
    int32_t       held;         /* out of acquire, save: it is ours */
    int64_t       token;        /* fencing number; acquire makes it one more */
    int64_t       beat;         /* of its owner; -1: the owner has no row */
    uint8_t       owner[16];    /* all zero: free */
    outbox_cursor cursor;       /* out of acquire; in of read and save */
    int32_t       release;      /* save: give it up in the same breath */
    int32_t       rescan;       /* acquire: the anchor was not found, cursor
                                   is back at the oldest event */
    int32_t       crashes;      /* acquire: owners in a row that went without
                                   goodbye and without moving the cursor */
    int32_t       on_trial;     /* acquire: the last one went during a trial;
                                   save: the trial is over */
} outbox_lane;

typedef struct outbox_beat {            /* one relay of a subscription */
    uint8_t  id[16];
    int64_t  beat;
    uint32_t want;              /* lanes it would take at most */
    uint32_t reserved;
} outbox_beat;

enum outbox_change_kind {
    OUTBOX_PARK,                /* from the log to the end of its chain */
    OUTBOX_AGAIN,               /* parked seq failed again: attempts, delay */
    OUTBOX_UNPARK,              /* parked seq was delivered: forget it */
    OUTBOX_BURY                 /* to the dead; from parked if seq is not 0 */
};

typedef struct outbox_change {
    enum outbox_change_kind kind;
    int32_t                 blocks;     /* BURY: its chain waits behind it */
    outbox_row              row;
} outbox_change;

typedef struct outbox_counts {          /* of one subscription */
    int64_t parked, dead, scheduled;
    int64_t behind;             /* in the log, past the last lane's cursor */
    int64_t oldest_ms;          /* the oldest of these and of the parked was
                                   published; 0: there is none */
    int32_t paused;
    int32_t holds_log;          /* no other subscription is further behind */
} outbox_counts;

enum outbox_admin {
    OUTBOX_ADMIN_REVIVE,        /* id, or all: to the head of its chain */
    OUTBOX_ADMIN_DISCARD,       /* id, or all */
    OUTBOX_ADMIN_PAUSE,         /* value: 1 or 0 */
    OUTBOX_ADMIN_REPLAY,        /* value: published_ms to begin at */
    OUTBOX_ADMIN_UNSUBSCRIBE
};

typedef struct outbox_admin_arg {
    const uint8_t *id;          /* 16 bytes; NULL: all */
    int64_t        value;
} outbox_admin_arg;

typedef struct outbox_store     outbox_store;
typedef struct outbox_store_ops outbox_store_ops;

struct outbox_store {
    const outbox_store_ops *ops;
    outbox_allocator        mem;        /* complete: use these three */
    uint64_t                database;   /* same database and tables: same
                                           number, by which a publisher finds
                                           the relays to wake; 0: none */
    int                     relayable;  /* has a connection of its own */
    int64_t                 durable;    /* out of append with commit: the log
                                           up to this position survives a
                                           power loss; 0: not known.  Before
                                           read: how far publishers of this
                                           process have brought it */
};

struct outbox_store_ops {
    size_t      size;
    const char *name;

    /* -- in the caller's transaction, on the caller's connection.  Refuse
     * when there is none (ENOTX), when it is aborted (EABORTED) or read-only
     * (EREADONLY).  After an error the transaction is as usable as before,
     * and none of the n rows is in it. */

    /* Write n rows in order; then COMMIT if commit is not 0.  Rows with a
     * dedup_key that is known are left out, rows that are due later wait
     * outside the log.  OUTBOX_OK, or OUTBOX_DUPLICATE when one was left out;
     * its position is set to 0, and that of any other to something else,
     * which need not be where it is.  EINDOUBT: the COMMIT's answer never
     * came. */
    int (*append)(outbox_store *st, outbox_row *rows, size_t n, int commit,
                  outbox_error *err);
    /* 1: marked now.  0: was marked before.  id is text, or the 16 bytes of a
     * UUID, which are never taken for one another. */
    int (*accept)(outbox_store *st, const char *consumer,
                  const outbox_bytes *id, int is_uuid, outbox_error *err);
    /* Events that the slowest subscription has not passed, and those that
     * are scheduled. */
    int (*backlog)(outbox_store *st, int64_t *events, outbox_error *err);
    /* COMMIT, durably; EABORTED when it turned out to be a ROLLBACK. */
    int (*commit)(outbox_store *st, outbox_error *err);
    /* Forget old marks; in the caller's transaction if one is open. */
    int (*prune)(outbox_store *st, int64_t keep_ms, int limit,
                 outbox_error *err);

    /* -- in a transaction of its own.  EINVAL when the caller has one open
     * on this connection.  EBUSY: try again soon, nothing is lost.  Any other
     * error: the relay forgets all it knows and calls attach again. */

    int (*migrate)(outbox_store *st, uint32_t lanes, outbox_error *err);
    /* Connect again if need be, check the tables, make the subscription and
     * its lanes if they are missing. */
    int (*attach)(outbox_store *st, outbox_subscription *sub,
                  outbox_error *err);
    /* Count relay me's beat up by one and note what it wants (want < 0: only
     * look, write nothing), then report every lane (cursor unset) and at
     * most max relays of this subscription in the order of their ids;
     * returns the number of relays.  ENOENT: the subscription is gone. */
    int (*beat)(outbox_store *st, outbox_subscription *sub,
                const uint8_t me[16], int want, outbox_lane *lanes,
                uint32_t n_lanes, outbox_beat *relays, int max,
                outbox_error *err);
    /* Take each lane whose token, and whose owner's beat, are still those
     * given.  held says which; token and cursor are set for those. */
    int (*acquire)(outbox_store *st, int64_t sub, const uint8_t me[16],
                   outbox_lane *lanes, uint32_t n, outbox_error *err);
    /* Give to the sink, in order, the rows that follow each lane's cursor,
     * looking at limit rows at most; move the cursors past what was looked
     * at and taken.  The sink takes and ignores rows of other lanes, and rows
     * that do not follow their lane's cursor, so these may be given too.
     * chain and lane need not be set, seq and attempts are 0.  Returns the
     * number of rows given; less than limit: the end was reached, unless the
     * sink stopped it.  When it returns, what it gave is durable, and no
     * transaction is open.  ESTALE: an anchor is not where it was. */
    int (*read)(outbox_store *st, int64_t sub, outbox_lane *lanes,
                uint32_t n, int limit, outbox_sink *sink, void *arg,
                outbox_error *err);
    /* Write cursors and changes, in order, if and only if every lane still
     * has its token; else change nothing, say in held which ones have it,
     * and return ESTALE.  Never moves a cursor of another owner.  When a lane
     * is given up, whoever waits should be woken. */
    int (*save)(outbox_store *st, int64_t sub, const uint8_t me[16],
                outbox_lane *lanes, uint32_t n, const outbox_change *changes,
                size_t n_changes, outbox_error *err);
    /* An event of this lane, which is held, will be sent on trial: note its
     * position and who sends it, durably.  Returns how many relays in a row
     * have noted it without a save that ended the trial or gave up the lane.
     * ESTALE: the lease is lost. */
    int (*trial)(outbox_store *st, int64_t sub, const uint8_t me[16],
                 const outbox_lane *lane, int64_t position,
                 outbox_error *err);
    /* The parked rows of one chain, in order, at most limit. */
    int (*parked)(outbox_store *st, int64_t sub, uint64_t chain, int limit,
                  outbox_sink *sink, void *arg, outbox_error *err);
    /* One row for each chain of a lane with parked rows, with chain, attempts
     * and delay_ms of its head; one with delay_ms -1 for each that a dead event
     * blocks; then one with delay_ms -2, chain 0, position and id for each
     * event, parked, dead or discarded, past the lane's saved cursor: the log
     * still has it, and it must not be taken from there again. */
    int (*blocked)(outbox_store *st, int64_t sub, uint32_t lane,
                   outbox_sink *sink, void *arg, outbox_error *err);
    /* Delete at most limit events that every subscription is past and that
     * are older than the longest keep_ms; never one at a cursor, never the
     * newest.  Returns how many; without a subscription 0. */
    int (*trim)(outbox_store *st, int limit, outbox_error *err);
    /* Move scheduled events whose time has come into the log, at most limit,
     * those due first first, as published when they were due; returns how
     * many.  *next_ms: how long until the next one is due; -1: none is. */
    int (*promote)(outbox_store *st, int limit, int64_t *next_ms,
                   outbox_error *err);
    int (*count)(outbox_store *st, int64_t sub, outbox_counts *out,
                 outbox_error *err);
    /* Remove relay me's row, unless it owns a lane: it may be another that
     * seemed dead, and has come back. */
    int (*leave)(outbox_store *st, int64_t sub, const uint8_t me[16],
                 outbox_error *err);

    /* -- for people, on any connection, in a transaction of its own */

    /* The number of a subscription, or ENOENT. */
    int (*find)(outbox_store *st, const char *name, int64_t *sub,
                outbox_error *err);
    /* Give dead rows to the sink, the oldest first. */
    int (*dead)(outbox_store *st, int64_t sub, int limit, outbox_sink *sink,
                void *arg, outbox_error *err);
    /* Returns how many events or lanes it concerned.  What moves a cursor
     * also takes the lane from its owner, token and all. */
    int (*admin)(outbox_store *st, int64_t sub, enum outbox_admin what,
                 const outbox_admin_arg *arg, outbox_error *err);

    /* -- without a transaction */

    /* Sleep until something may have been committed, until wake_fd becomes
     * readable, or for timeout_ms.  hint not 0: a publisher of this process
     * has announced something, which its COMMIT will bring soon.  Returns 1
     * when it is worth reading, else 0. */
    int (*wait)(outbox_store *st, int wake_fd, int hint, int timeout_ms);
    /* The database's clock, in ms since 1970, without asking the server. */
    int64_t (*now_ms)(outbox_store *st);
    /* The nth thing that an operator should know about this database or its
     * library, from 0 on: 1, or 0 when there is no more.  Logged by a relay
     * that starts; NULL: nothing ever. */
    int (*notice)(outbox_store *st, int nth, char *text, size_t size);
    /* Chance, for ids and backoff; NULL: the system's.  A simulated store has
     * its own, so that a run can be repeated.  0: done. */
    int (*entropy)(outbox_store *st, void *out, size_t n);
    void (*close)(outbox_store *st);
};

/* ---- what the library offers to a store ----------------------------- */

/* Make the handle for a store, which is its from then on; on error, too, it
 * is: the store has been closed. */
OUTBOX_MUST int outbox_from_store(outbox_t **out, outbox_store *st,
                                  const outbox_options *opt,
                                  outbox_error *err);
OUTBOX_MUST int inbox_from_store(inbox_t **out, outbox_store *st,
                                 const outbox_options *opt, outbox_error *err);
/* Check and copy options, of whatever size the caller knows; NULL gives the
 * defaults.  Strings are borrowed. */
OUTBOX_MUST int outbox_options_read(outbox_options *out,
                                    const outbox_options *opt,
                                    outbox_allocator *mem, outbox_error *err);
/* Fill *err if it is not NULL and return code. */
OUTBOX_API int outbox_error_set(outbox_error *err, int code,
                                const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Fingerprint for outbox_store.database and for checksums: 64-bit, the same
 * on every machine. */
OUTBOX_API uint64_t outbox_hash(const void *bytes, size_t len);
OUTBOX_API int64_t outbox_monotonic_us(void);   /* goes on during suspend */

#ifdef __cplusplus
}
#endif
#endif

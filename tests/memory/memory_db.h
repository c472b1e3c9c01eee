/* SPDX-License-Identifier: MIT
 *
 * memory_db.h - the tables of the store in memory: plain arrays behind one
 * mutex.  Only tests/memory includes this.
 */
#ifndef TESTS_MEMORY_DB_H
#define TESTS_MEMORY_DB_H

#include <pthread.h>
#include <stdbool.h>

#include "memory_store.h"

typedef struct mem_array {
    void  *at;
    size_t n, cap;
} mem_array;

typedef struct mem_record {             /* in the log, parked, dead, or
                                           what is left of a discarded one */
    outbox_row row;                     /* points into block */
    void      *block;
    int64_t    sub;
    int        blocks;                  /* dead: its chain waits behind it */
} mem_record;

typedef struct mem_sub {
    int64_t sub, keep_ms, generation;
    int     paused;
    char   *name;
} mem_sub;

typedef struct mem_lane {
    int64_t       sub, token;
    uint32_t      lane;
    int32_t       crashes, starts;
    int64_t       trying;               /* position on trial; 0: none */
    uint8_t       trier[16];            /* who noted that last */
    uint8_t       owner[16];
    outbox_cursor cursor;
} mem_lane;

typedef struct mem_relay {
    int64_t     sub;
    outbox_beat beat;
} mem_relay;

typedef struct mem_mark {               /* of the inbox */
    int64_t number, accepted_ms;
    char   *consumer;
    void   *id;
    size_t  id_len;
    int     is_uuid;
} mem_mark;

typedef struct mem_dedup {
    char   *key;
    int64_t published_ms;
} mem_dedup;

enum mem_undo_kind { MEM_UNDO_EVENT, MEM_UNDO_SCHEDULED, MEM_UNDO_DEDUP,
                     MEM_UNDO_WORK, MEM_UNDO_MARK, MEM_UNDO_PRUNE };

typedef struct mem_undo {
    enum mem_undo_kind kind;
    mem_mark           mark;            /* MARK: its number; PRUNE: all */
} mem_undo;

typedef struct mem_fault {
    unsigned skip, times;
    int      code;
    bool     after;                     /* done, but the answer is lost */
} mem_fault;

struct mem_db {
    pthread_mutex_t lock;
    uint64_t  number;
    int       version;
    bool      changed_checksum;
    uint32_t  lanes;
    int64_t   now_ms, last_position, last_sub, last_mark;
    int64_t   first_seq, last_seq;      /* of parked rows */
    int64_t   work;                     /* business rows */
    uint64_t  chance;
    mem_array log, scheduled, parked, dead, discarded;  /* mem_record */
    mem_array subs, lane_rows, relays, marks, dedups;
    mem_array conns;                    /* mem_conn *: whom a commit wakes */
    mem_conn *writer;                   /* whose transaction has written */
    mem_array undo;                     /* mem_undo, of that transaction */
    mem_fault faults[MEM_OPS];
    unsigned  calls[MEM_OPS];
};

struct mem_conn {
    mem_db *db;
    bool    open, aborted, read_only, severed, frozen;
    int     bell[2];                    /* a pipe that a commit writes to; -1 */
};

void *mem_push(mem_array *a, size_t size);      /* zeroed; NULL: no memory */
void  mem_remove(mem_array *a, size_t size, size_t i);
#define MEM_AT(array, type, i) (&((type *)(array)->at)[i])

bool mem_record_copy(mem_record *to, const outbox_row *row);
void mem_record_free(mem_record *r);

/* Below: with db->lock held. */

/* Rows of the log, marks, work that everyone sees. */
bool    mem_bell_open(mem_conn *c);
void    mem_ring_bells(mem_db *db);
size_t  mem_log_visible(const mem_db *db);
size_t  mem_pending(const mem_db *db, enum mem_undo_kind kind);
bool    mem_mark_visible(const mem_db *db, const mem_mark *m);
/* c becomes the writer, or EBUSY. */
int     mem_take_write_lock(mem_conn *c, outbox_error *err);
mem_undo *mem_note(mem_db *db, enum mem_undo_kind kind);
int     mem_end(mem_conn *c, bool commit);
void    mem_undo_to(mem_db *db, size_t n);
void    mem_mark_free(mem_mark *m);

/* ---- between the two files of operations ---------------------------- */

typedef struct mem_store {
    outbox_store base;
    mem_conn    *conn;
    bool         owns;
} mem_store;

mem_db   *mem_db_of(outbox_store *st);
mem_conn *mem_conn_of(outbox_store *st);
/* Begin an operation in a transaction of its own: with the lock held on
 * OUTBOX_OK, without it otherwise.  mem_exit() gives it back. */
int mem_enter_ours(outbox_store *st, enum mem_op op, bool writes,
                   outbox_error *err);
int mem_exit(outbox_store *st, enum mem_op op, int rc, outbox_error *err);
int mem_nomem(outbox_error *err);

int mem_op_migrate(outbox_store *st, uint32_t lanes, outbox_error *err);
int mem_op_attach(outbox_store *st, outbox_subscription *sub,
                  outbox_error *err);
int mem_op_beat(outbox_store *st, outbox_subscription *sub,
                const uint8_t me[16], int want, outbox_lane *lanes,
                uint32_t n_lanes, outbox_beat *relays, int max,
                outbox_error *err);
int mem_op_acquire(outbox_store *st, int64_t sub, const uint8_t me[16],
                   outbox_lane *lanes, uint32_t n, outbox_error *err);
int mem_op_read(outbox_store *st, int64_t sub, outbox_lane *lanes, uint32_t n,
                int limit, outbox_sink *sink, void *arg, outbox_error *err);
int mem_op_save(outbox_store *st, int64_t sub, const uint8_t me[16],
                outbox_lane *lanes, uint32_t n, const outbox_change *changes,
                size_t n_changes, outbox_error *err);
int mem_op_trial(outbox_store *st, int64_t sub, const uint8_t me[16],
                 const outbox_lane *lane, int64_t position, outbox_error *err);
int mem_op_parked(outbox_store *st, int64_t sub, uint64_t chain, int limit,
                  outbox_sink *sink, void *arg, outbox_error *err);
int mem_op_blocked(outbox_store *st, int64_t sub, uint32_t lane,
                   outbox_sink *sink, void *arg, outbox_error *err);
int mem_op_trim(outbox_store *st, int limit, outbox_error *err);
int mem_op_promote(outbox_store *st, int limit, int64_t *next_ms,
                   outbox_error *err);
int mem_op_count(outbox_store *st, int64_t sub, outbox_counts *out,
                 outbox_error *err);
int mem_op_leave(outbox_store *st, int64_t sub, const uint8_t me[16],
                 outbox_error *err);
int mem_op_find(outbox_store *st, const char *name, int64_t *sub,
                outbox_error *err);
int mem_op_dead(outbox_store *st, int64_t sub, int limit, outbox_sink *sink,
                void *arg, outbox_error *err);
int mem_op_admin(outbox_store *st, int64_t sub, enum outbox_admin what,
                 const outbox_admin_arg *arg, outbox_error *err);

/* ---- shared by the relay's side and the people's -------------------- */

mem_lane *mem_find_lane(mem_db *db, int64_t sub, uint32_t lane);
mem_sub *mem_find_sub(mem_db *db, const char *name);
/* Index of the first committed row past position; positions ascend. */
size_t   mem_first_past(const mem_db *db, int64_t position);
/* The lowest cursor of a subscription, or of all of them if sub is 0.  One
 * whose anchor is gone will go back to the oldest event: it holds all. */
int64_t  mem_hindmost(const mem_db *db, int64_t sub);
outbox_cursor mem_cursor_at(const mem_record *r);
/* To the end of the log: its position is set. */
int      mem_log_push(mem_db *db, const outbox_row *row);

#endif

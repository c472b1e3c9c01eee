/* SPDX-License-Identifier: MIT
 *
 * memory_store.h - a store in memory: it shows that the table of operations
 * is enough to be a store, and it can fail in every way on request.
 *
 * One mem_db is what a database file is: many connections of one process see
 * it.  As in SQLite there is one writer at a time; unlike there, who comes
 * second gets OUTBOX_EBUSY at once, so that a run depends on nothing but its
 * calls.  Everything is safe between threads; one connection belongs to one
 * thread at a time.  Time stands still until mem_set_now() moves it, and
 * chance comes from a seed.
 */
#ifndef TESTS_MEMORY_STORE_H
#define TESTS_MEMORY_STORE_H

#include <outbox/store.h>

typedef struct mem_db   mem_db;
typedef struct mem_conn mem_conn;

enum { MEM_VERSION = 1 };               /* of the tables: 0 is none */

mem_db *mem_db_new(void);               /* without tables: migrate first */
void    mem_db_free(mem_db *db);        /* after all its connections */

/* ---- connections ---------------------------------------------------- */

mem_conn *mem_conn_new(mem_db *db);
void      mem_conn_free(mem_conn *c);

/* Borrow, as outbox_sqlite_open() does. */
int mem_outbox_open(outbox_t **out, mem_conn *c, const outbox_options *opt,
                    outbox_error *err);
int mem_inbox_open(inbox_t **out, mem_conn *c, const outbox_options *opt,
                   outbox_error *err);
/* Own: a connection of the handle's own.  *link, when asked for, is that
 * connection, for the faults below; it dies with the handle. */
int mem_outbox_connect(outbox_t **out, mem_db *db, const outbox_options *opt,
                       mem_conn **link, outbox_error *err);

/* ---- the caller's transaction --------------------------------------- */

int    mem_begin(mem_conn *c);
int    mem_commit(mem_conn *c);         /* EABORTED: it was a rollback */
void   mem_rollback(mem_conn *c);
size_t mem_savepoint(mem_conn *c);
void   mem_rollback_to(mem_conn *c, size_t savepoint);
int    mem_in_transaction(mem_conn *c);
/* A business row, in the open transaction. */
int    mem_work(mem_conn *c);
/* The database gives up the transaction: noisily, so that it must be rolled
 * back first, or silently, so that none is open any more. */
void   mem_abort(mem_conn *c);
void   mem_abort_silently(mem_conn *c);
void   mem_read_only(mem_conn *c, int on);

/* ---- faults --------------------------------------------------------- */

enum mem_op {
    MEM_APPEND, MEM_ACCEPT, MEM_BACKLOG, MEM_COMMIT, MEM_PRUNE, MEM_MIGRATE,
    MEM_ATTACH, MEM_BEAT, MEM_ACQUIRE, MEM_READ, MEM_SAVE, MEM_TRIAL,
    MEM_PARKED, MEM_BLOCKED, MEM_TRIM, MEM_PROMOTE, MEM_COUNT, MEM_LEAVE,
    MEM_FIND, MEM_DEAD, MEM_ADMIN, MEM_OPS
};

/* After skip more calls of op, the next times calls fail with code and change
 * nothing.  A later call replaces an earlier one for the same op. */
void mem_fail(mem_db *db, enum mem_op op, unsigned skip, unsigned times,
              int code);
/* The same, but what was asked is done: only the answer is lost. */
void mem_lose_answer(mem_db *db, enum mem_op op, unsigned skip,
                     unsigned times, int code);
/* How often op has been called. */
unsigned mem_calls(mem_db *db, enum mem_op op);
/* From now on nothing reaches the database through c: its process died. */
void mem_sever(mem_conn *c);
/* The beats of c are answered but not counted, as if it hung. */
void mem_freeze_beats(mem_conn *c, int on);

/* ---- looking in, and tampering -------------------------------------- */

enum mem_table {
    MEM_LOG, MEM_SCHEDULED_ROWS, MEM_PARKED_ROWS, MEM_DEAD_ROWS, MEM_MARKS,
    MEM_WORK, MEM_RELAYS, MEM_SUBSCRIPTIONS, MEM_DEDUP_KEYS
};

int64_t mem_count(mem_db *db, enum mem_table table);    /* committed rows */
int64_t mem_last_position(mem_db *db);                  /* given out so far */
void    mem_set_now(mem_db *db, int64_t ms);            /* since 1970 */
void    mem_set_seed(mem_db *db, uint64_t seed);        /* of ids and jitter */
/* Make everything that carries a time ms older. */
void    mem_age(mem_db *db, int64_t ms);
/* Remove the log, and let positions begin anew: as a restore does. */
void    mem_empty_log(mem_db *db);
/* Pretend that the tables are of this version, or that an applied migration
 * was another than ours. */
void    mem_set_version(mem_db *db, int version);
void    mem_set_lanes(mem_db *db, uint32_t lanes);
void    mem_change_checksum(mem_db *db);

#endif

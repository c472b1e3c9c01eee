/* SPDX-License-Identifier: MIT
 *
 * torture.h - one program, many roles: publishers, relays, sinks, a checker,
 * and a driver that kills the first three and asks the fourth.
 *
 * What the destination has seen, and what the publishers were told, is
 * appended to files as records of fixed size, one write(2) each.  The checker
 * compares these with the business tables; it asks the library nothing.
 */
#ifndef TORTURE_H
#define TORTURE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <outbox/sqlite.h>
#include <sqlite3.h>

/* ---- chance ------------------------------------------------------------- */

typedef struct rng {
    uint64_t state;
} rng;

enum { ID_BYTES = 37, KEY_BYTES = 24, PATH_BYTES = 512, PLAN_BYTES = 1024 };

uint64_t rng_next(rng *r);
int rng_below(rng *r, int n);
bool rng_permille(rng *r, int n);
void rng_uuid(rng *r, char out[ID_BYTES]);

/* ---- the plan of a round ------------------------------------------------ */

typedef struct plan {
    int full;           /* publishers: synchronous=FULL, else NORMAL */
    int durable;        /* consumer: synchronous=FULL, else NORMAL */
    int pubs;           /* publisher processes */
    int embed;          /* the first of them has a relay thread inside */
    int relays, sinks;  /* with a consumer behind them, and without */
    int async;          /* verdicts from another thread, out of order */
    int ordered;        /* a transport that promises OUTBOX_ORDERED */
    int step;           /* outbox_relay_step() instead of a thread */
    int drain;          /* a relay ends by itself when all is delivered */
    int count;          /* a publisher ends after so many transactions */
    int keys;           /* 1 event in 8 has none */
    int pace_us;        /* longest pause between transactions */
    int undo;           /* permille of transactions that go wrong */
    int retry;          /* permille of deliveries answered with RETRY */
    int reject;         /* permille of events that the destination refuses */
    int keep_ms;        /* of the log, for replay */
    int autockpt;       /* publishers checkpoint as SQLite does by default */
    int lease_ms, flush_ms, batch, inflight;
} plan;

void plan_default(plan *p);
void plan_random(plan *p, rng *r);
void plan_format(const plan *p, char out[PLAN_BYTES]);
/* Changes what text names: "pubs=2 async=1". */
bool plan_parse(plan *p, const char *text);

/* What a role gets on its command line. */
typedef struct task {
    const char *dir;
    int run;            /* counts the processes of a driver: 1, 2, ... */
    uint64_t seed;
    plan plan;
} task;

/* ---- records ------------------------------------------------------------ */

enum record_kind {
    DELIVERED = 'D',    /* history: the destination has it */
    REFUSED = 'X',      /* history: the destination will never take it */
    ALTERED = 'B',      /* history: not what was published */
    QUIET = 'Q',        /* history: all is delivered and all relays ended */
    COMMITTED = 'C',    /* ledger: the publisher was told so */
    UNDONE = 'R',       /* ledger: rolled back, as far as it knows */
    FAILED = 'F'        /* ledger: an error that had no reason to be */
};

/* A power of two, so that no record spans two pages of the file: a SIGKILL
 * may cut a write(2) short between pages. */
enum { RECORD_BYTES = 128 };

typedef struct record {
    char kind;
    int run;
    int64_t number;             /* position; transaction in the ledger */
    char id[ID_BYTES], key[KEY_BYTES];
    int64_t version;
    int pid, attempt;
} record;

int record_open(const char *dir, const char *name);
void record_append(int fd, const record *rec);
bool record_read(FILE *file, record *rec);

/* ---- files -------------------------------------------------------------- */

void path_join(char out[PATH_BYTES], const char *dir, const char *name);
sqlite3 *db_open(const char *dir, const char *name, bool full, bool autockpt);
int db_exec(sqlite3 *db, const char *sql);
sqlite3_stmt *db_prepare(sqlite3 *db, const char *sql);
int64_t db_number(sqlite3 *db, const char *sql, int64_t otherwise);
int64_t now_ms(void);
void pause_us(int us);
void die(const char *what, const char *why);

/* What a payload must be, for a key's version: written by the publisher,
 * compared by the sink. */
enum { PAYLOAD_BYTES = 8192 };
size_t payload_make(char out[PAYLOAD_BYTES], int64_t version);
bool payload_read(const void *payload, size_t len, int64_t *version);

/* ---- fail points -------------------------------------------------------- */

/* Also called by the roles themselves, with names that begin with "test.". */
void ob_failpoint(const char *name);

/* ---- roles -------------------------------------------------------------- */

extern volatile sig_atomic_t told_to_stop;

int publisher_main(const task *job, bool with_relay);
int relay_main(const task *job, bool consumer);

typedef struct engine engine;   /* a relay and its transport */
engine *engine_start(const task *job, bool consumer);
void engine_turn(engine *e);
bool engine_drained(engine *e);
bool engine_stop(engine *e);

typedef struct sink sink;
sink *sink_new(const task *job, bool consumer);
void sink_transport(sink *s, outbox_transport *out);
void sink_free(sink *s);

/* ---- the checker -------------------------------------------------------- */

typedef struct totals {
    int64_t committed, rolled_back;     /* transactions */
    int64_t events, deliveries, duplicates, refused, effects;
    int64_t violations;
    int64_t missing;                    /* not yet where they belong */
} totals;

enum { CHECK_MISSING = 1, CHECK_QUIETLY = 2 };
/* Everything that must hold when all has been delivered, or with
 * CHECK_MISSING how much has not. */
void check(const char *dir, int flags, totals *out);
/* The same in a process of its own, as the driver has no files open. */
bool check_apart(const char *dir, int flags, totals *out);

/* ---- children ----------------------------------------------------------- */

typedef enum fate {
    RUNNING,
    STOPPED,            /* by SIGSTOP */
    KILLED,             /* by SIGKILL */
    ENDED,              /* with status 0 */
    CRASHED             /* anything else */
} fate;

typedef struct child {
    pid_t pid;          /* 0: none */
    int run;
    bool doomed;        /* may kill itself at any time */
    int status;         /* of wait(2), when it is dead */
} child;

/* kill_at, stop_at: "name:nth" or NULL. */
void child_start(child *c, const char *role, const task *job,
                 const char *kill_at, const char *stop_at);
/* Waits at most timeout_ms for something else than RUNNING. */
fate child_wait(child *c, int timeout_ms);
void child_kill(child *c);
int child_runs(void);           /* how many were started */

/* ---- the driver --------------------------------------------------------- */

/* False, with a message, when it does not end well in time. */
bool child_complete(const char *role, const task *job, int timeout_ms);
bool child_stop(child *c, const char *role);        /* by SIGTERM */
void child_accuse(const child *c, const char *role, fate f);
/* Relays run until they say that all is delivered; the mark holds them to
 * it: nothing from before it is sent again by a relay started after it. */
bool drain(const task *job);
void quiet_mark(const task *job);
/* A directory, migrated and subscribed to; returns the kills that it took,
 * or -1. */
int ground_make(char dir[PATH_BYTES], task *job);
void ground_clear(const char *dir);

int chaos_main(int kills, uint64_t seed);
int directed_main(const char *name, uint64_t seed);

#endif

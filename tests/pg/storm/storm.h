/* SPDX-License-Identifier: MIT
 *
 * storm.h - one program, many roles, one PostgreSQL server: writers that use
 * every kind of transaction, relays, and a driver that kills them, stops
 * them, ends their connections and crashes the server; then a judge.
 *
 * An event is the version of a key, drawn from a counter row which the
 * transaction keeps locked until it ends, so that versions of a key commit in
 * order.  The transaction also writes a business row with the versions and a
 * nonce of its own.  What the destination has seen is appended to a file
 * before it says ACK; some events have an effect behind the inbox.  The judge
 * compares these; it asks the library nothing.
 */
#ifndef STORM_H
#define STORM_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <libpq-fe.h>
#include <outbox/pg.h>

enum {
    WRITERS = 10, RELAYS = 3, SLOTS = WRITERS + RELAYS,
    SHARED_KEYS = 40, OWN_KEYS = 8,     /* of all writers, and of each */
    KEYS = SHARED_KEYS + WRITERS * OWN_KEYS,
    EFFECT_EVERY = 16                   /* keys with effects */
};

#define SUBSCRIPTION "storm"

/* ---- chance ------------------------------------------------------------- */

typedef struct rng {
    uint64_t state;
} rng;

uint64_t rng_next(rng *r);
int  rng_below(rng *r, int n);
bool rng_permille(rng *r, int n);

/* ---- what all roles need ------------------------------------------------ */

typedef struct task {
    const char *dir;            /* history and logs */
    int         slot;
    int         run;            /* counts the processes of a driver */
    uint64_t    seed;
    int64_t     events;         /* that the driver wants */
} task;

typedef struct record {         /* of history: 16 bytes, one write(2) */
    uint32_t key, version, nonce;
    uint16_t run;
    uint16_t attempt;
} record;

extern volatile sig_atomic_t told_to_stop;

void    die(const char *what, const char *why);
int64_t now_ms(void);
void    pause_ms(int ms);
FILE   *file_open(const char *dir, const char *name, const char *mode);
int     history_open(const char *dir);          /* for appending */

const char *conninfo(void);
/* NULL: not now. */
PGconn *db_try(void);
PGconn *db_open(void);                          /* waits until it works */
bool    db_exec(PGconn *conn, const char *sql);
int64_t db_number(PGconn *conn, const char *sql, int64_t otherwise);
/* Commits or rolls back the prepared transactions whose names begin so. */
void    db_settle_prepared(PGconn *conn, const char *prefix, rng *r);

/* Called by the library, which is built with fail points. */
void ob_failpoint(const char *name);

/* ---- roles -------------------------------------------------------------- */

int writer_main(const task *job);
int relay_main(const task *job);
int driver_main(int64_t events, uint64_t seed);

/* ---- the judge ---------------------------------------------------------- */

typedef struct verdicts {
    int64_t events, deliveries, duplicates, effects;
    int64_t lost, phantom, inversions, twice, effect_lost, effect_phantom;
    int64_t broken;             /* the test's own tables */
} verdicts;

void judge(const char *dir, PGconn *conn, verdicts *out);

#endif

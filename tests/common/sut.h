/* SPDX-License-Identifier: MIT
 *
 * sut.h - the stores under test.  Each test of the contract runs once for
 * every store in the table; what the public header leaves to the store (where
 * a database lives, how a transaction begins) is asked of the table.
 */
#ifndef TESTS_SUT_H
#define TESTS_SUT_H

#include "clock.h"
#include "sink.h"
#include "suite.h"

/* The connection of a relay, by which a test can make it die. */
typedef struct sut_link {
    void *conn;
    bool  severed;
} sut_link;

enum sut_table { SUT_LOG, SUT_PARKED, SUT_DEAD, SUT_MARKS, SUT_WORK,
                 SUT_RELAYS, SUT_SUBSCRIPTIONS };

typedef struct sut {
    const char *name;
    bool        is_file;                /* other processes can open it */
    bool        by_segments;            /* trims many events or none */

    void *(*create)(void);              /* a database without our tables */
    void  (*destroy)(void *db);

    /* An application's connection, and handles that borrow it. */
    void *(*conn_open)(void *db);
    void *(*conn_read_only)(void *db);
    void  (*conn_close)(void *conn);
    int   (*outbox)(outbox_t **out, void *conn, const outbox_options *opt,
                    outbox_error *err);
    int   (*inbox)(inbox_t **out, void *conn, const outbox_options *opt,
                   outbox_error *err);
    /* A handle with a connection of its own; link may be NULL. */
    int   (*connect)(outbox_t **out, void *db, const outbox_options *opt,
                     sut_link *link, outbox_error *err);
    /* From now on nothing reaches the database through it: its process has
     * died, as far as the others can tell. */
    void  (*sever)(sut_link *link);

    int  (*begin)(void *conn);          /* 0, as the others */
    int  (*work)(void *conn);           /* write a business row */
    int  (*commit)(void *conn);
    int  (*rollback)(void *conn);
    int  (*savepoint)(void *conn);
    int  (*rollback_to)(void *conn);
    bool (*in_transaction)(void *conn);
    /* The database gives up the transaction while we look away. */
    int  (*lose_transaction)(void *conn);

    int64_t (*count)(void *db, enum sut_table table);   /* committed rows */
    void    (*age)(void *db, int64_t ms);       /* all that carries a time */
    void    (*empty_log)(void *db);     /* positions may begin anew */
    void    (*newer_schema)(void *db);
    void    (*claim_lanes)(void *db, int lanes);        /* in the tables */
    void    (*change_checksum)(void *db);
    /* Its clock stands still there; NULL: the test moves it otherwise. */
    void    (*set_now)(void *db, int64_t ms);
    /* Beats of the relays that are there are not written any more. */
    void    (*freeze_beats)(void *db, sut_link *link);
    int64_t (*trials)(void *db);        /* noted and not over */
} sut;

extern const sut sut_memory, sut_sqlite, sut_pg, sut_pooled;
/* The first of them trim their logs row by row, and know a place in it by the
 * id of its event. */
enum { SUTS_BY_ROW = 2 };
extern const sut *const suts[];
extern int n_suts;
/* The stores, and one of them behind a pooler: for tests of those who publish
 * or consume. */
extern const int n_ways;

/* ---- one world for one test ----------------------------------------- */

typedef struct world {
    const sut *sut;
    void      *db, *app;                /* a migrated database; who publishes */
    outbox_t  *ob;                      /* through app */
    vclock     clock;                   /* of all relays that it makes */
    sink       sink;
} world;

void world_open(world *w, int which);
void world_open_bare(world *w, int which);      /* not migrated */
void world_close(world *w);

/* At most n events are left in the log, where a store trims one by one. */
void ck_log_left(world *w, int64_t n);

/* Publish an event whose payload is the number, in an open transaction. */
int  publish_number(outbox_t *ob, const char *key, long number,
                    outbox_error *err);
/* n events, from..from + n - 1, in a transaction of their own. */
void publish_numbers(world *w, const char *key, long from, long n);

outbox_relay_options relay_options(world *w);   /* with the clock in it */
/* All arguments but w may be NULL: the world's sink, those options. */
outbox_relay_t *relay_open(world *w, sink *s, const outbox_relay_options *opt,
                           sut_link *link);
/* Free it without waiting for verdicts that nobody is going to give. */
void relay_drop(outbox_relay_t *r);
/* As if its process died: nothing is saved, nothing released. */
void relay_crash(world *w, outbox_relay_t *r, sut_link *link);

/* n steps; the sum of what they settled.  EBUSY means once more, and ESTALE
 * that the relay goes back to what is there. */
int  steps(outbox_relay_t *r, int n);
/* Step until nothing more happens, without letting time pass. */
int  settle_down(outbox_relay_t *r);
/* Let time pass in slices, with a few steps after each. */
void run_for(world *w, outbox_relay_t *r, int64_t ms, int64_t slice);
/* A fresh relay that takes over whatever was left, and stops cleanly. */
void drain_after_crash(world *w, sink *s, const outbox_relay_options *opt);

outbox_stats stats_of(outbox_relay_t *r);

#define ck_ok(call) ck_assert_int_eq(call, OUTBOX_OK)

#endif

/* SPDX-License-Identifier: MIT
 *
 * kit.h - tools for tests of failures, schedules and subscriptions: a wall
 * clock that the test moves, events with every field, a destination that
 * follows a plan, and dead letters as values.
 */
#ifndef TESTS_CONTRACT_KIT_H
#define TESTS_CONTRACT_KIT_H

#include "contract.h"

/* ---- the database's clock ------------------------------------------- */

/* As world_open(), but the database's clock stands still until it is moved:
 * in SQLite by a VFS, else by the store under test.  One at a time. */
void    timed_open(world *w, int which);
void    timed_close(world *w);
int64_t wall_ms(void);
void    wall_pass(world *w, int64_t ms);
/* Both clocks, the database's and the relays', in slices; a few steps of r
 * (which may be NULL) after each. */
void    time_pass(world *w, outbox_relay_t *r, int64_t ms, int64_t slice);

/* ---- publishing ----------------------------------------------------- */

/* The n-th key of a test: "key n".  Good for the next 31 calls. */
const char *key_of(long n);
/* Topic "numbers" and the number as payload, which is good for the next 63
 * calls. */
outbox_event numbered(const char *key, long number);
/* In a transaction of its own, which is committed whatever comes back. */
int  publish_one(world *w, const outbox_event *ev, outbox_error *err);
/* The same, and it must be stored. */
void publish_event(world *w, const outbox_event *ev);
void publish_topic(world *w, const char *topic, long number);

/* ---- a destination that follows a plan ------------------------------ */

enum { PLAN_SIZE = 2000 };

/* What becomes of each number; zeroed, all are acknowledged. */
typedef struct plan {
    outbox_verdict of[PLAN_SIZE];
    bool           pending[PLAN_SIZE];  /* no verdict from send() */
    bool           settles[PLAN_SIZE];  /* by outbox_settle() inside send() */
    bool           down;                /* RETRY to everything */
} plan;

sink_rule follow_plan;
void plan_use(sink *s, plan *p);
void plan_range(plan *p, long from, long n, outbox_verdict verdict);

/* A timed world, a plan, and one relay of "default" with short times. */
typedef struct site {
    world                w;
    plan                 p;
    outbox_relay_options opt;           /* change it before site_relay() */
    outbox_relay_t      *r;             /* NULL: none */
} site;

void    site_open(site *t, int which);
void    site_relay(site *t);            /* and let it come to rest */
void    site_end_relay(site *t);        /* cleanly */
void    site_close(site *t);
int64_t site_parked(site *t);           /* rows */
/* Opened, with a relay: of 1 to 6, key "k", 3 is dead and would now pass. */
void    site_with_a_dead_one(site *t, int which);

/* Other events pass all the time, so that what fails is plainly to blame:
 * one of number 0 without a key in each slice. */
void run_among_others(world *w, outbox_relay_t *r, int64_t ms, int64_t slice);

/* Index in the sink's list; it must be there. */
size_t first_of(sink *s, long number);
size_t last_of_number(sink *s, long number);
/* Were from..from + n - 1 delivered once each, in this order? */
bool   once_in_order(sink *s, long from, long n);

/* ---- looking -------------------------------------------------------- */

typedef struct letter {
    char    id[40], topic[40], type[40], key[40], content_type[40];
    char    why[240];
    long    number;
    int32_t attempt;
    size_t  n_headers;
    char    header[80];                 /* the first, "name: value" */
    int64_t died_ms, position, published_ms, expires_ms;
} letter;

/* Dead letters of a subscription ("default" if NULL), the oldest first. */
int  letters_of(world *w, const char *sub, letter *out, int max);
int  dead_count(world *w, const char *sub);
/* What the database knows of a subscription. */
outbox_stats database_stats(world *w, const char *sub);

/* Lines of a relay's log that contain a word. */
typedef struct journal { char text[64][256]; int n; } journal;

void journal_write(void *arg, int level, const char *line);
int  journal_has(const journal *j, const char *word);

/* The call gives code, and words that name each of the two. */
#define ck_refused(call, wanted, one, two)                                   \
    do {                                                                     \
        memset(&err, 0x55, sizeof err);                                      \
        ck_assert_int_eq(call, wanted);                                      \
        ck_assert_int_eq(err.code, wanted);                                  \
        ck_assert_msg(strstr(err.text, one) != NULL, "\"%s\" names no %s",   \
                      err.text, one);                                        \
        ck_assert_msg(strstr(err.text, two) != NULL, "\"%s\" says no %s",    \
                      err.text, two);                                        \
        ck_assert_ptr_null(strchr(err.text, '\n'));                          \
    } while (0)

#endif

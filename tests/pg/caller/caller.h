/* SPDX-License-Identifier: MIT
 *
 * caller.h - tests of what PostgreSQL adds to the contract on the caller's
 * side: guards, errors with their SQLSTATE, privileges.
 */
#ifndef TESTS_PG_CALLER_H
#define TESTS_PG_CALLER_H

#include "common/sut.h"
#include "common/sut_pg.h"

#include <outbox/pg.h>
#include <string.h>

typedef struct place {
    pg_db       *db;
    PGconn      *conn;                  /* of an application */
    outbox_t    *ob;
    inbox_t     *ib;
    outbox_error err;
} place;

void place_open(place *p, const outbox_options *opt);   /* and migrate */
void place_close(place *p);

/* Statements of the test itself; they must succeed. */
void sql(PGconn *conn, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

outbox_event event(const char *key);
/* In a transaction of its own, which is rolled back after an error. */
int publish_alone(PGconn *conn, outbox_t *ob, const outbox_event *ev,
                  outbox_error *err);
int64_t logged(place *p);               /* events in the log */

/* The error has this code and state, and these words. */
void ck_says(const outbox_error *err, int rc, int code, const char *state,
             const char *words);

void add_guard_tests(Suite *s);
void add_error_tests(Suite *s);
void add_send_tests(Suite *s);
void add_server_tests(Suite *s);
void add_grant_tests(Suite *s);
void add_plan_tests(Suite *s);

#endif

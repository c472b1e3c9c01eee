/* SPDX-License-Identifier: MIT
 *
 * sut_pg.h - small conveniences over libpq, for tests that need SQL, and the
 * clock of the databases that sut_pg makes.
 */
#ifndef TESTS_SUT_PG_H
#define TESTS_SUT_PG_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

/* A database of the cluster that tests/bin/pg-cluster runs us in. */
typedef struct pg_db {
    char    name[64];
    char    conninfo[600];
    PGconn *conn;               /* for looking in and tampering */
} pg_db;

/* A database without our tables, fresh from a template with a table work. */
pg_db  *pg_create(void);
void    pg_destroy(pg_db *db);
/* Fails the test when it cannot connect.  options: NULL, or as in libpq's
 * "options", "-c name=value". */
PGconn *pg_open(const pg_db *db, const char *options);
int     pg_exec(PGconn *conn, const char *sql);         /* 0, or -1 */
int64_t pg_number(PGconn *conn, const char *sql);       /* -1: no answer */
/* Through the database's own connection; must succeed. */
void    pg_tamper(pg_db *db, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
int64_t pg_ask(pg_db *db, const char *sql);

#endif

/* SPDX-License-Identifier: MIT
 *
 * pg.h - directed tests of the PostgreSQL store: what only a database with
 * concurrent transactions, crashes and standbys can do to an outbox.  Built
 * with the library's fail points.
 */
#ifndef TESTS_PG_H
#define TESTS_PG_H

#include "common/sut.h"
#include "common/sut_pg.h"

#include <outbox/pg.h>

enum { WHICH = 2 };                     /* of suts[]: PostgreSQL */

void add_order_tests(Suite *s);
void add_tick_tests(Suite *s);
void add_slice_tests(Suite *s);
void add_trim_tests(Suite *s);
void add_durable_tests(Suite *s);
void add_restore_tests(Suite *s);
void add_silence_tests(Suite *s);
void add_encoding_tests(Suite *s);

/* ---- who publishes -------------------------------------------------- */

typedef struct writer {
    PGconn   *conn;
    outbox_t *ob;
} writer;

void writer_open(writer *a, world *w, const char *options, uint32_t flags);
void writer_close(writer *a);
void writer_do(writer *a, const char *sql);     /* must succeed */
void writer_publish(writer *a, const char *key, long number);
/* numbers from..from + n - 1, with one call. */
void writer_publish_many(writer *a, const char *key, long from, long n);
/* In a transaction of its own. */
void writer_commit_one(writer *a, const char *key, long number);

/* ---- what is delivered ---------------------------------------------- */

/* A relay of the world's database that has come to rest. */
outbox_relay_t *relay_at_rest(world *w, sut_link *link);
/* The numbers that the sink has, in their order, end with -1. */
void ck_delivered(world *w, ...);

/* Called at each fail point of the library, when it is set. */
extern void (*at_failpoint)(const char *name);

#endif

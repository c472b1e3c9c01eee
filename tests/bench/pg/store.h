/* SPDX-License-Identifier: MIT
 *
 * store.h - the benchmark of the PostgreSQL store: a shop on a PGconn, and
 *           what its parts share.  Time, duels and the table are bench.h's.
 */
#ifndef BENCH_PG_STORE_H
#define BENCH_PG_STORE_H

#include "../bench.h"

#include <libpq-fe.h>
#include <outbox/pg.h>

/* ---- the shop: business on one connection ------------------------------ */

enum { PG_ACCOUNTS = 10000 };

typedef struct pgshop {
    PGconn   *conn;
    outbox_t *ob;
    uint64_t  n, random;
    char      key[24], amount[24], account[24];
    unsigned char payload[BENCH_PAYLOAD];
} pgshop;

const char *pg_conninfo(void);
/* Drops and makes all tables. */
void pgshop_create(void);
void pgshop_open(pgshop *s, uint32_t flags);
void pgshop_close(pgshop *s);
void pgshop_do(pgshop *s, const char *sql);
int64_t pgshop_ask(pgshop *s, const char *sql);
void pgshop_begin(pgshop *s);
void pgshop_business(pgshop *s);        /* one UPDATE, one INSERT */
void pgshop_commit(pgshop *s);
void pgshop_fill(pgshop *s, outbox_event *ev);
void pgshop_publish(pgshop *s);
void pgshop_publish_commit(pgshop *s);
/* What one would write without a library: an INSERT; and one with COMMIT in
 * the same round trip. */
void pgshop_hand(pgshop *s);
void pgshop_hand_commit(pgshop *s, const char *insert);
/* n events in one call, of the keys that follow. */
void pgshop_publish_many(pgshop *s, int n);
/* A prepared statement without parameters. */
void pgshop_prepared(pgshop *s, const char *name);

outbox_relay_t *pg_relay(bench_send *send, void *ctx, const char *sub,
                         int64_t keep_ms);
int pg_step(outbox_relay_t *relay, int timeout_ms);
/* Of the only backend beside watch's: a relay's. */
double pg_backend_cpu(pgshop *watch);

/* ---- the parts --------------------------------------------------------- */

void pgbench_publish(void);
void pgbench_many(void);
void pgbench_inbox(void);
void pgbench_drain(void);
void pgbench_long(void);
void pgbench_backlog(void);
void pgbench_latency(void);
void pgbench_old(void);
int  pgbench_publisher_main(int argc, char **argv);

#endif

/* SPDX-License-Identifier: MIT
 *
 * pg.h - the outbox and the inbox in a PostgreSQL database, in a schema
 *        beside the tables that they must agree with.
 *
 * Needs PostgreSQL 13 or newer, and libpq 14 or newer.  outbox_pg(3) has the
 * grants, what a pooler changes, and what a relay does to the server.
 */
#ifndef OUTBOX_PG_H
#define OUTBOX_PG_H

#include <outbox/outbox.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pg_conn;                         /* PGconn */

/* Borrow: conn stays yours, must outlive the handle, and is finished by you
 * after outbox_close() or inbox_close().  Neither asks the server for
 * anything.  opt may be NULL.  Errors: OUTBOX_EINVAL (no connection, a schema
 * name that is too long), OUTBOX_ENOMEM. */
OUTBOX_MUST int outbox_pg_open(outbox_t **out, struct pg_conn *conn,
                               const outbox_options *opt, outbox_error *err);
OUTBOX_MUST int inbox_pg_open(inbox_t **out, struct pg_conn *conn,
                              const outbox_options *opt, outbox_error *err);

/* Own: a connection of the handle's own, by a conninfo string or URI, for a
 * relay or for administration.  It is made here, and again whenever it is
 * lost; each statement on it has a deadline.  OUTBOX_EINVAL: conninfo cannot
 * be parsed.  OUTBOX_EDB: the server refuses, cannot be reached, or is too
 * old; the text never has the password. */
OUTBOX_MUST int outbox_pg_connect(outbox_t **out, const char *conninfo,
                                  const outbox_options *opt,
                                  outbox_error *err);

#ifdef __cplusplus
}
#endif
#endif

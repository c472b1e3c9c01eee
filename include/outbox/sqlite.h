/* SPDX-License-Identifier: MIT
 *
 * sqlite.h - the outbox and the inbox in an SQLite database, beside the
 *            tables that they must agree with.
 *
 * Needs SQLite 3.35 or newer.  outbox_sqlite(3) tells which connection
 * settings matter, and why a relay never checkpoints passively.
 */
#ifndef OUTBOX_SQLITE_H
#define OUTBOX_SQLITE_H

#include <outbox/outbox.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;

/* Borrow: db stays yours, must outlive the handle, and is closed by you after
 * outbox_close() or inbox_close().  Neither touches the file.  opt may be
 * NULL.  Errors: OUTBOX_EINVAL, OUTBOX_ENOMEM. */
OUTBOX_MUST int outbox_sqlite_open(outbox_t **out, struct sqlite3 *db,
                                   const outbox_options *opt,
                                   outbox_error *err);
OUTBOX_MUST int inbox_sqlite_open(inbox_t **out, struct sqlite3 *db,
                                  const outbox_options *opt,
                                  outbox_error *err);

/* Own: a connection of the handle's own to an existing file, by path or
 * "file:" URI, for a relay or for administration.  Refused with
 * OUTBOX_EINVAL: ":memory:" and "", which no second connection can see, and
 * an SQLite without threads.  OUTBOX_EDB: no such file, not a database, no
 * permission.  OUTBOX_EBUSY: locked for 1 s.  OUTBOX_EREADONLY: it needs
 * recovery and cannot be written.  OUTBOX_ENOMEM. */
OUTBOX_MUST int outbox_sqlite_connect(outbox_t **out, const char *path,
                                      const outbox_options *opt,
                                      outbox_error *err);

#ifdef __cplusplus
}
#endif
#endif

/* SPDX-License-Identifier: MIT
 *
 * sqlite_store.h - the SQLite store, shared by its files: sqlite_open.c opens,
 * sqlite_stmt.c has the statements and maps errors, sqlite_schema.c migrates
 * and attaches, sqlite_publish.c works in the caller's transaction; for the
 * relay, sqlite_lease.c, _read.c, _save.c and _tidy.c work in its own, and
 * sqlite_wait.c watches the file and makes it durable; sqlite_admin.c serves
 * people.
 */
#ifndef OB_SQLITE_STORE_H
#define OB_SQLITE_STORE_H

#include "base.h"

#include <sqlite3.h>
#if SQLITE_VERSION_NUMBER < 3035000
#error "SQLite 3.35 or newer is needed: RETURNING"
#endif

#include <outbox/sqlite.h>

enum { OB_SQLITE_VERSION = 1, OB_PREFIX_MAX = 32, OB_SQLITE_BUSY_MS = 3,
       OB_SQLITE_PATIENT_MS = 1000 };

/* One entry for each statement of sqlite_statements[], in its order. */
enum ob_sqlite_stmt {
    SQ_BEGIN, SQ_BEGIN_READ, SQ_COMMIT, SQ_ROLLBACK, SQ_DATA_VERSION,
    SQ_SYNCHRONOUS, SQ_JOURNAL, SQ_LOCK, SQ_META, SQ_APPEND, SQ_UNAPPEND,
    SQ_SCHEDULE, SQ_UNSCHEDULE, SQ_DEDUP, SQ_UNDEDUP, SQ_BACKLOG, SQ_ACCEPT,
    SQ_PRUNE, SQ_FIND_SUB, SQ_ADD_SUB, SQ_KEEP_SUB, SQ_ADD_LANE, SQ_NEWEST,
    SQ_BEAT, SQ_LANES, SQ_RELAYS, SQ_LEAVE, SQ_TAKE, SQ_CURSOR,
    SQ_ANCHOR, SQ_REWIND, SQ_READ, SQ_SAVE, SQ_PARK, SQ_AGAIN, SQ_UNPARK,
    SQ_BURY, SQ_PARKED, SQ_BLOCKED, SQ_TRIM_ANY, SQ_TRIM, SQ_TRIM_DEDUP,
    SQ_TRIAL, SQ_NEXT_DUE, SQ_PROMOTE, SQ_PROMOTED, SQ_SUB_STATE, SQ_COUNT,
    SQ_COUNT_STMTS
};

typedef struct ob_sqlite {
    outbox_store  base;
    sqlite3      *db;
    bool          own, broken, checked;
    char          prefix[OB_PREFIX_MAX + 1];
    char         *path;         /* own: to connect again */
    int         (*on_connect)(void *arg, void *db);
    void         *on_connect_arg;
    sqlite3_vfs  *vfs;          /* whose clock is the database's */
    uint32_t      lanes;
    int           unbound;      /* why a value of the next run is missing */
    int64_t       busy_until_us, busy_ms, alert_us, found_us;
    int64_t       wait_version, synced_version;
    int64_t       wal_check_us;
    int           notify_fd, notify_watch;
    sqlite3_stmt *stmts[SQ_COUNT_STMTS];
} ob_sqlite;

/* ---- sqlite_open.c -------------------------------------------------- */

/* If it is our own and an error has put it in doubt, connect again. */
int  ob_sqlite_connected(ob_sqlite *st, outbox_error *err);
void ob_sqlite_disconnect(ob_sqlite *st);
int64_t ob_sqlite_now_ms(outbox_store *st);

/* ---- sqlite_stmt.c -------------------------------------------------- */

/* What the database said last, in our terms. */
int  ob_sqlite_error(ob_sqlite *st, const char *doing, outbox_error *err);
/* sql with the store's prefix for every "outbox_; the caller's to free. */
char *ob_sqlite_expand(const ob_sqlite *st, const char *sql);
/* A statement that is not running; NULL and *rc set on failure. */
sqlite3_stmt *ob_sqlite_stmt(ob_sqlite *st, enum ob_sqlite_stmt which, int *rc,
                             outbox_error *err);
/* Run to the end, whatever it returns, and forget its values; OUTBOX_OK or an
 * error, also when a value could not be bound. */
int ob_sqlite_run(ob_sqlite *st, sqlite3_stmt *stmt, const char *doing,
                  outbox_error *err);
/* Begin a transaction of our own; EINVAL when the caller has one open. */
int ob_sqlite_begin(ob_sqlite *st, enum ob_sqlite_stmt how,
                    outbox_error *err);
/* Commit when rc is not an error, else roll back; returns what came out. */
int ob_sqlite_end(ob_sqlite *st, int rc, outbox_error *err);
/* What cannot be bound, too long or without memory to convert it, would be
 * NULL, and an event without its key is out of order: the run then fails. */
void ob_sqlite_bind_bytes(ob_sqlite *st, sqlite3_stmt *stmt, int at,
                          const outbox_bytes *b, bool text);

/* ---- sqlite_schema.c ------------------------------------------------ */

int ob_sqlite_migrate(outbox_store *s, uint32_t lanes, outbox_error *err);
int ob_sqlite_attach(outbox_store *s, outbox_subscription *sub,
                     outbox_error *err);
/* The tables are there, and of our version; asked once. */
int ob_sqlite_check(ob_sqlite *st, outbox_error *err);

/* ---- sqlite_publish.c ----------------------------------------------- */

int ob_sqlite_append(outbox_store *s, outbox_row *rows, size_t n, int commit,
                     outbox_error *err);
int ob_sqlite_backlog(outbox_store *s, int64_t *events, outbox_error *err);
int ob_sqlite_accept(outbox_store *s, const char *consumer,
                     const outbox_bytes *id, int is_uuid,
                     outbox_error *err);
int ob_sqlite_commit(outbox_store *s, outbox_error *err);
int ob_sqlite_prune(outbox_store *s, int64_t keep_ms, int limit,
                    outbox_error *err);

/* ---- sqlite_lease.c, sqlite_read.c, sqlite_save.c, sqlite_tidy.c ---- */

/* The 16 bytes in a column, or NULL. */
const uint8_t *ob_sqlite_blob16(sqlite3_stmt *stmt, int column);
/* Run an update of one lane; *held: one row was changed. */
int ob_sqlite_lane_update(ob_sqlite *st, sqlite3_stmt *stmt,
                          const char *doing, int32_t *held,
                          outbox_error *err);
int ob_sqlite_beat(outbox_store *s, outbox_subscription *sub,
                   const uint8_t me[16], int want, outbox_lane *lanes,
                   uint32_t n_lanes, outbox_beat *relays, int max,
                   outbox_error *err);
int ob_sqlite_trial(outbox_store *s, int64_t sub, const uint8_t me[16],
                    const outbox_lane *lane, int64_t position,
                    outbox_error *err);
int ob_sqlite_acquire(outbox_store *s, int64_t sub, const uint8_t me[16],
                      outbox_lane *lanes, uint32_t n, outbox_error *err);
int ob_sqlite_read(outbox_store *s, int64_t sub, outbox_lane *lanes,
                   uint32_t n, int limit, outbox_sink *sink, void *arg,
                   outbox_error *err);
int ob_sqlite_save(outbox_store *s, int64_t sub, const uint8_t me[16],
                   outbox_lane *lanes, uint32_t n,
                   const outbox_change *changes, size_t n_changes,
                   outbox_error *err);
int ob_sqlite_parked(outbox_store *s, int64_t sub, uint64_t chain, int limit,
                     outbox_sink *sink, void *arg, outbox_error *err);
int ob_sqlite_blocked(outbox_store *s, int64_t sub, uint32_t lane,
                      outbox_sink *sink, void *arg, outbox_error *err);
int ob_sqlite_trim(outbox_store *s, int limit, outbox_error *err);
int ob_sqlite_promote(outbox_store *s, int limit, int64_t *next_ms,
                      outbox_error *err);
int ob_sqlite_count(outbox_store *s, int64_t sub, outbox_counts *out,
                    outbox_error *err);
int ob_sqlite_leave(outbox_store *s, int64_t sub, const uint8_t me[16],
                    outbox_error *err);

/* Columns 0 to 9 of the log, of parked and of dead rows.  False: there was no
 * memory to convert a text, in a database in UTF-16, and it is missing. */
bool ob_sqlite_row(sqlite3_stmt *stmt, outbox_row *row);

/* ---- sqlite_admin.c ------------------------------------------------- */

int ob_sqlite_find(outbox_store *s, const char *name, int64_t *sub,
                   outbox_error *err);
int ob_sqlite_dead(outbox_store *s, int64_t sub, int limit, outbox_sink *sink,
                   void *arg, outbox_error *err);
int ob_sqlite_admin(outbox_store *s, int64_t sub, enum outbox_admin what,
                    const outbox_admin_arg *arg, outbox_error *err);

/* ---- sqlite_wait.c -------------------------------------------------- */

int  ob_sqlite_notice(outbox_store *s, int nth, char *text, size_t size);
int  ob_sqlite_wait(outbox_store *s, int wake_fd, int hint, int timeout_ms);
void ob_sqlite_unwatch(ob_sqlite *st);
/* Changes whenever another connection commits; -1 on error. */
int64_t ob_sqlite_data_version(ob_sqlite *st);
/* What other connections have committed survives a power loss after this;
 * needs no lock of the database. */
int ob_sqlite_sync(ob_sqlite *st, outbox_error *err);
void ob_sqlite_keep_wal_short(ob_sqlite *st);

#endif

/* SPDX-License-Identifier: MIT
 *
 * pg_store.h - the PostgreSQL store, shared by its files: pg_open.c opens and
 * connects, pg_exec.c runs statements and maps errors, pg_schema.c migrates
 * and attaches, pg_publish.c and pg_inbox.c work in the caller's transaction;
 * for the relay, pg_lease.c, _read.c, _save.c and _tidy.c work in its own,
 * and pg_wait.c sleeps; pg_admin.c serves people.
 */
#ifndef OB_PG_STORE_H
#define OB_PG_STORE_H

#include <stdbool.h>
#include <string.h>

#include <libpq-fe.h>

#include <outbox/pg.h>
#include <outbox/store.h>

enum {
    OB_PG_VERSION     = 1,
    OB_PG_SCHEMA_MAX  = 63,             /* NAMEDATALEN - 1 */
    OB_PG_TICK_EVERY  = 4096,           /* as in schema.sql */
    OB_PG_SEGMENTS    = 4,
    OB_PG_PARAMS_MAX  = 20,
    OB_PG_DEADLINE_MS = 10000           /* for a statement of a relay */
};

/* One entry for each statement of pg_statements[], in its order: see
 * pg_exec.c.  Statements of the caller's connection come first. */
enum ob_pg_stmt {
    PG_STMT_NONE,
#define OB_PG_STATEMENT(name, sql) name,
#include "pg_statements.h"
#undef OB_PG_STATEMENT
    PG_COUNT_STMTS
};

/* The parameters of one statement; all are sent in binary.  Text and bytes
 * are borrowed until it has run. */
typedef struct ob_pg_params {
    int         n;
    const char *value[OB_PG_PARAMS_MAX];
    int         length[OB_PG_PARAMS_MAX], format[OB_PG_PARAMS_MAX];
    uint64_t    number[OB_PG_PARAMS_MAX];       /* big endian */
} ob_pg_params;

typedef struct ob_pg {
    outbox_store  base;
    PGconn       *conn;
    bool          own, pooled, quiet, lock_keys, broken, checked, in_tx;
    char          schema[2 * OB_PG_SCHEMA_MAX + 3];     /* quoted */
    char         *conninfo;             /* own: to connect again */
    int         (*on_connect)(void *arg, void *db);
    void         *on_connect_arg;
    uint32_t      lanes;
    bool          prepared[PG_COUNT_STMTS];
    int           backend;              /* pid: another one knows none */
    int64_t       doorbell;             /* key of the sleep lock */
    char          channel[32];          /* of NOTIFY */
    int64_t       clock_offset_ms;      /* server's clock, less monotonic */
    struct ob_pg_windows *windows;      /* pg_read.c: those known */
    bool          listening, asleep;    /* pg_wait.c */
    int64_t       synced_lsn, rotate_us;
} ob_pg;

/* ---- pg_open.c ------------------------------------------------------ */

int  ob_pg_reconnect(ob_pg *st, outbox_error *err);
void ob_pg_disconnect(ob_pg *st);
int64_t ob_pg_now_ms(outbox_store *st);

/* ---- pg_exec.c ------------------------------------------------------ */

void ob_pg_int2(ob_pg_params *p, int v);
void ob_pg_int4(ob_pg_params *p, int v);
void ob_pg_int8(ob_pg_params *p, int64_t v);
void ob_pg_bool(ob_pg_params *p, bool v);
void ob_pg_null(ob_pg_params *p);
void ob_pg_uuid(ob_pg_params *p, const uint8_t id[16]);
/* Text and bytea alike; ptr NULL: SQL NULL. */
void ob_pg_bytes(ob_pg_params *p, const outbox_bytes *b);
void ob_pg_text(ob_pg_params *p, const char *s);        /* or NULL */

/* What a result, or without one the connection, says, in our terms.  The
 * result is still the caller's. */
int ob_pg_error(ob_pg *st, const PGresult *res, const char *doing,
                outbox_error *err);
/* Run a statement; prepared once per connection, unnamed under POOLED.  Binary
 * result, PQclear() is the caller's; NULL and *rc on failure.  p may be
 * NULL.  On a connection of our own there is a deadline. */
PGresult *ob_pg_run(ob_pg *st, enum ob_pg_stmt which, const ob_pg_params *p,
                    const char *doing, int *rc, outbox_error *err);
/* The same, when the result does not matter: number of rows it concerned, or
 * an error. */
int64_t ob_pg_do(ob_pg *st, enum ob_pg_stmt which, const ob_pg_params *p,
             const char *doing, outbox_error *err);
/* Text without parameters, "outbox" being the schema. */
int ob_pg_exec(ob_pg *st, const char *sql, const char *doing,
               outbox_error *err);
/* Text of a statement with the store's schema for every "outbox"; free it. */
char *ob_pg_expand(const ob_pg *st, const char *sql);
/* Begin a transaction of our own; EINVAL when the caller has one open. */
int ob_pg_begin(ob_pg *st, outbox_error *err);
/* Commit when rc is not an error, else roll back; returns what came out. */
int ob_pg_end(ob_pg *st, int rc, outbox_error *err);

/* Columns of a binary result. */
int     ob_pg_get_bool(const PGresult *res, int row, int col);
int32_t ob_pg_get_int(const PGresult *res, int row, int col); /* int2, int4 */
int64_t ob_pg_get_int8(const PGresult *res, int row, int col);
/* ptr NULL: SQL NULL.  Text and bytea have a NUL behind them, by libpq. */
outbox_bytes ob_pg_get_bytes(const PGresult *res, int row, int col);
/* 16 bytes; all zero for SQL NULL. */
void    ob_pg_get_uuid(const PGresult *res, int row, int col, uint8_t id[16]);

/* ---- pg_schema.c ---------------------------------------------------- */

int ob_pg_migrate(outbox_store *s, uint32_t lanes, outbox_error *err);
int ob_pg_attach(outbox_store *s, outbox_subscription *sub,
                 outbox_error *err);
/* The tables are there, and of our version; asked once per connection. */
int ob_pg_check(ob_pg *st, outbox_error *err);

/* ---- pg_publish.c, pg_inbox.c --------------------------------------- */

int ob_pg_append(outbox_store *s, outbox_row *rows, size_t n, int commit,
                 outbox_error *err);
int ob_pg_backlog(outbox_store *s, int64_t *events, outbox_error *err);
/* A transaction is open and can write: else ENOTX, EABORTED, EREADONLY, or
 * EINVAL with results unread, in COPY. */
int ob_pg_transaction(ob_pg *st, outbox_error *err);
int ob_pg_accept(outbox_store *s, const char *consumer,
                 const outbox_bytes *id, int is_uuid, outbox_error *err);
int ob_pg_commit(outbox_store *s, outbox_error *err);
int ob_pg_prune(outbox_store *s, int64_t keep_ms, int limit,
                outbox_error *err);

/* ---- pg_lease.c, pg_read.c, pg_save.c, pg_tidy.c -------------------- */

int ob_pg_beat(outbox_store *s, outbox_subscription *sub,
               const uint8_t me[16], int want, outbox_lane *lanes,
               uint32_t n_lanes, outbox_beat *relays, int max,
               outbox_error *err);
int ob_pg_acquire(outbox_store *s, int64_t sub, const uint8_t me[16],
                  outbox_lane *lanes, uint32_t n, outbox_error *err);
int ob_pg_leave(outbox_store *s, int64_t sub, const uint8_t me[16],
                outbox_error *err);
int ob_pg_trial(outbox_store *s, int64_t sub, const uint8_t me[16],
                const outbox_lane *lane, int64_t position,
                outbox_error *err);
int ob_pg_read(outbox_store *s, int64_t sub, outbox_lane *lanes, uint32_t n,
               int limit, outbox_sink *sink, void *arg, outbox_error *err);
/* Forget the windows: of a connection that is gone. */
void ob_pg_windows_forget(ob_pg *st);
/* Columns 0 to 11 of a result: window, position, id, topic, type, key,
 * content_type, headers, payload, published_ms, expires_ms, lane. */
void ob_pg_row(const PGresult *res, int i, outbox_row *row);
int ob_pg_save(outbox_store *s, int64_t sub, const uint8_t me[16],
               outbox_lane *lanes, uint32_t n, const outbox_change *changes,
               size_t n_changes, outbox_error *err);
int ob_pg_parked(outbox_store *s, int64_t sub, uint64_t chain, int limit,
                 outbox_sink *sink, void *arg, outbox_error *err);
int ob_pg_blocked(outbox_store *s, int64_t sub, uint32_t lane,
                  outbox_sink *sink, void *arg, outbox_error *err);
int ob_pg_trim(outbox_store *s, int limit, outbox_error *err);
int ob_pg_promote(outbox_store *s, int limit, int64_t *next_ms,
                  outbox_error *err);
int ob_pg_count(outbox_store *s, int64_t sub, outbox_counts *out,
                outbox_error *err);

/* ---- pg_admin.c, pg_wait.c ------------------------------------------ */

int ob_pg_find(outbox_store *s, const char *name, int64_t *sub,
               outbox_error *err);
int ob_pg_dead(outbox_store *s, int64_t sub, int limit, outbox_sink *sink,
               void *arg, outbox_error *err);
int ob_pg_admin(outbox_store *s, int64_t sub, enum outbox_admin what,
                const outbox_admin_arg *arg, outbox_error *err);
int ob_pg_wait(outbox_store *s, int wake_fd, int hint, int timeout_ms);
int ob_pg_notice(outbox_store *s, int nth, char *text, size_t size);

#endif

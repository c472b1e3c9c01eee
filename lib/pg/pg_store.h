/* SPDX-License-Identifier: MIT
 *
 * pg_store.h - the PostgreSQL store, shared by its files: pg_open.c opens and
 * connects, pg_exec.c runs statements, pg_param.c has their values, pg_error.c
 * maps errors, pg_schema.c migrates and attaches, pg_publish.c and pg_inbox.c
 * work in the caller's transaction; for the relay, pg_lease.c, _read.c,
 * _window.c, _save.c and _tidy.c work in its own, pg_wait.c sleeps, and
 * pg_rebase.c makes a moved log its server's; pg_admin.c serves people.
 */
#ifndef OB_PG_STORE_H
#define OB_PG_STORE_H

#include "base.h"

#include <libpq-fe.h>

#include <outbox/pg.h>

enum {
    OB_PG_VERSION     = 1,
    OB_PG_SCHEMA_MAX  = 63,             /* NAMEDATALEN - 1 */
    OB_PG_TICK_EVERY  = 4096,           /* as in schema.sql */
    OB_PG_SEGMENTS    = 4,
    OB_PG_PARAMS_MAX  = 20,
    OB_PG_NAME_MAX    = 64,
    OB_PG_SERVER_LEAST = 130000,
    OB_PG_MESSAGE_MAX = 1000000000,     /* the server takes 1 GiB less 1 */
    OB_PG_DEADLINE_MS = 10000           /* of silence, for a relay */
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

/* An array as one parameter, built up element by element; kept and used
 * again.  Zero it first. */
enum ob_pg_type {                       /* the server's numbers */
    OB_PG_BOOL = 16, OB_PG_BYTEA = 17, OB_PG_INT8 = 20, OB_PG_INT2 = 21,
    OB_PG_INT4 = 23, OB_PG_TEXT = 25, OB_PG_UUID = 2950
};

typedef struct ob_pg_array {
    char           *at;
    size_t          len, size;
    int             n;
    bool            nulls, failed;
    enum ob_pg_type type;
} ob_pg_array;

/* What is known of a schema through one connection. */
typedef struct ob_pg_session {
    struct ob_pg_session *next;
    char     schema[2 * OB_PG_SCHEMA_MAX + 3];
    bool     checked;                   /* the tables are ours */
    bool     watched;                   /* by somebody's trigger or rule */
    uint32_t lanes;
    uint64_t database;
    uint64_t name;                      /* of all that is prepared */
    bool     prepared[PG_COUNT_STMTS];
} ob_pg_session;

typedef struct ob_pg {
    outbox_store  base;
    PGconn       *conn;
    ob_pg_session *session;             /* the connection's, for schema */
    bool          own, pooled, quiet, lock_keys, broken;
    bool          in_tx;                /* one of ours is open */
    bool          standby;              /* as of the connect */
    int           deadline_ms;          /* own: for each statement */
    char          schema[2 * OB_PG_SCHEMA_MAX + 3];     /* quoted */
    char          name[OB_PG_SCHEMA_MAX + 1];           /* not quoted */
    int64_t       max_backlog;
    char         *conninfo;             /* own: to connect again */
    int         (*on_connect)(void *arg, void *db);
    void         *on_connect_arg;
    uint32_t      lanes;
    int64_t       doorbell;             /* key of the sleep lock */
    char          channel[32];          /* of NOTIFY */
    int64_t       clock_offset_ms;      /* server's clock, less monotonic */
    struct ob_pg_windows *windows;      /* pg_window.c: those known */
    bool          ahead;                /* sent and not received */
    bool          listening, asleep;    /* pg_wait.c: asleep, the bell is on */
    bool          found;                /* by the last read */
    int           hot;                  /* woken so often without a pause */
    int64_t       alert_us;             /* something was announced then */
    int64_t       synced_lsn, rotate_us;
    int64_t       trim_us[OB_PG_SEGMENTS];      /* not before */
    struct ob_pg_publish *publish;      /* pg_publish.c: its arrays */
} ob_pg;

/* ---- pg_open.c ------------------------------------------------------ */

/* If it is our own and an error has put it in doubt, connect again. */
int  ob_pg_connected(ob_pg *st, outbox_error *err);
void ob_pg_disconnect(ob_pg *st);
int64_t ob_pg_now_ms(outbox_store *st);
int  ob_pg_version_check(const ob_pg *st, outbox_error *err);

/* ---- pg_param.c ------------------------------------------------------ */

void ob_pg_int2(ob_pg_params *p, int v);
void ob_pg_int4(ob_pg_params *p, int v);
void ob_pg_int8(ob_pg_params *p, int64_t v);
void ob_pg_int8_or_null(ob_pg_params *p, int64_t v);    /* 0: NULL */
void ob_pg_bool(ob_pg_params *p, bool v);
void ob_pg_null(ob_pg_params *p);
void ob_pg_uuid(ob_pg_params *p, const uint8_t id[16]);
/* Text and bytea alike; ptr NULL: SQL NULL. */
void ob_pg_bytes(ob_pg_params *p, const outbox_bytes *b);
void ob_pg_text(ob_pg_params *p, const char *s);        /* or NULL */

/* What cannot be had (memory, more than 1 GB) is told by the last call. */
void ob_pg_array_begin(ob_pg_array *a, enum ob_pg_type type);
void ob_pg_array_int(ob_pg *st, ob_pg_array *a, int64_t v); /* and bool */
void ob_pg_array_null(ob_pg *st, ob_pg_array *a);
void ob_pg_array_bytes(ob_pg *st, ob_pg_array *a, const outbox_bytes *b);
void ob_pg_array_text(ob_pg *st, ob_pg_array *a, const char *s);
void ob_pg_array_uuid(ob_pg *st, ob_pg_array *a, const uint8_t id[16]);
int  ob_pg_param_array(ob_pg *st, ob_pg_params *p, ob_pg_array *a,
                       outbox_error *err);
void ob_pg_array_free(ob_pg *st, ob_pg_array *a);

/* Columns of a binary result. */
int     ob_pg_get_bool(const PGresult *res, int row, int col);
int32_t ob_pg_get_int(const PGresult *res, int row, int col); /* int2, int4 */
int64_t ob_pg_get_int8(const PGresult *res, int row, int col);
/* ptr NULL: SQL NULL.  Text and bytea have a NUL behind them, by libpq. */
outbox_bytes ob_pg_get_bytes(const PGresult *res, int row, int col);
/* 16 bytes; all zero for SQL NULL. */
void    ob_pg_get_uuid(const PGresult *res, int row, int col, uint8_t id[16]);

/* ---- pg_error.c ----------------------------------------------------- */

/* What a result, or without one the connection, says, in our terms.  The
 * result is still the caller's. */
int ob_pg_error(ob_pg *st, const PGresult *res, const char *doing,
                outbox_error *err);
/* The same for a connection that was not made. */
int ob_pg_connect_error(ob_pg *st, outbox_error *err);
/* There is no connection any more. */
int ob_pg_lost(ob_pg *st, outbox_error *err);

/* ---- pg_exec.c ------------------------------------------------------ */

/* st->session for this connection. */
int ob_pg_session_find(ob_pg *st, outbox_error *err);
/* A statement can be sent: else EINVAL, or the connection is lost. */
int ob_pg_ready(ob_pg *st, outbox_error *err);
/* Prepare everything anew, by other names: some of what has the old ones may
 * still be there. */
void ob_pg_session_renew(ob_pg_session *s);
/* The name under which a statement is prepared, and preparing it. */
void ob_pg_name(const ob_pg *st, enum ob_pg_stmt which,
                char name[OB_PG_NAME_MAX]);
char *ob_pg_text_of(ob_pg *st, enum ob_pg_stmt which, int *rc,
                    outbox_error *err);         /* free it */
int ob_pg_prepare(ob_pg *st, enum ob_pg_stmt which, const char *doing,
                  outbox_error *err);
/* Run text with parameters once, without preparing it. */
PGresult *ob_pg_once(ob_pg *st, const char *sql, const ob_pg_params *p,
                     const char *doing, int *rc, outbox_error *err);
/* Run a statement; prepared once per connection, unnamed under POOLED.  Binary
 * result, PQclear() is the caller's; NULL and *rc on failure.  p may be
 * NULL.  On a connection of our own there is a deadline. */
PGresult *ob_pg_run(ob_pg *st, enum ob_pg_stmt which, const ob_pg_params *p,
                    const char *doing, int *rc, outbox_error *err);
/* The two halves of it, on a connection of our own: before any other statement
 * ob_pg_windows_collect() receives. */
int ob_pg_send(ob_pg *st, enum ob_pg_stmt which, const ob_pg_params *p,
               const char *doing, outbox_error *err);
PGresult *ob_pg_receive(ob_pg *st, const char *doing, int *rc,
                        outbox_error *err);
/* The same, when the result does not matter: number of rows it concerned, or
 * an error. */
int64_t ob_pg_do(ob_pg *st, enum ob_pg_stmt which, const ob_pg_params *p,
             const char *doing, outbox_error *err);
/* Text without parameters, "outbox" being the schema. */
int ob_pg_exec(ob_pg *st, const char *sql, const char *doing,
               outbox_error *err);
/* Text of a statement with the store's schema for every "outbox"; free it. */
char *ob_pg_expand(const ob_pg *st, const char *sql);
/* EINVAL when the caller has a transaction open. */
int ob_pg_alone(ob_pg *st, outbox_error *err);
/* Begin a transaction of our own; EINVAL when the caller has one open. */
int ob_pg_begin(ob_pg *st, outbox_error *err);
/* Commit when rc is not an error, else roll back; returns what came out. */
int ob_pg_end(ob_pg *st, int rc, outbox_error *err);

/* ---- pg_schema.c ---------------------------------------------------- */

int ob_pg_migrate(outbox_store *s, uint32_t lanes, outbox_error *err);
int ob_pg_attach(outbox_store *s, outbox_subscription *sub,
                 outbox_error *err);
/* The tables are there, and of our version; asked once per connection. */
int ob_pg_check(ob_pg *st, outbox_error *err);
/* base.database, which relays and publishers of a process must agree in. */
int ob_pg_identify(ob_pg *st, outbox_error *err);

/* ---- pg_publish.c, pg_inbox.c --------------------------------------- */

int ob_pg_append(outbox_store *s, outbox_row *rows, size_t n, int commit,
                 outbox_error *err);
void ob_pg_publish_free(ob_pg *st);
int ob_pg_backlog(outbox_store *s, int64_t *events, outbox_error *err);
/* A transaction is open and can write: else ENOTX, EABORTED, EREADONLY, or
 * EINVAL with results unread, in COPY. */
int ob_pg_transaction(ob_pg *st, outbox_error *err);
/* That, and the tables are ours: before anything is written. */
int ob_pg_write_check(ob_pg *st, outbox_error *err);
/* Bytes of another encoding would be stored as if they were UTF-8. */
int ob_pg_encoding(const ob_pg *st, outbox_error *err);
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

/* ---- pg_window.c ---------------------------------------------------- */

/* Forget the windows: of a connection that is gone. */
void ob_pg_windows_forget(ob_pg *st);
/* Receive what was asked for ahead of time. */
void ob_pg_windows_collect(ob_pg *st);
/* Which windows are kept, and whether a cursor stands in one of them. */
int  ob_pg_windows_look(ob_pg *st, outbox_error *err);
bool ob_pg_windows_have(const ob_pg *st, const outbox_cursor *at);
int64_t ob_pg_windows_head(const ob_pg *st);
/* Cut a window at the head, if there is anything to put in it: for attach,
 * outside of a transaction.  A subscription that begins now then stands at
 * (newest window, INT64_MAX).  It is in the same transaction as its row in
 * "outbox".subscription: whoever trims takes SHARE MODE of that table (NOWAIT)
 * first, or it could truncate what such a one has yet to see. */
int ob_pg_window_cut(ob_pg *st, outbox_error *err);

/* ---- pg_rebase.c ---------------------------------------------------- */

/* The log was restored in another cluster: give all of it this one's
 * transaction number, and begin anew.  For attach, no transaction is open. */
int ob_pg_rebase(ob_pg *st, outbox_error *err);

/* ---- pg_admin.c, pg_wait.c ------------------------------------------ */

int ob_pg_find(outbox_store *s, const char *name, int64_t *sub,
               outbox_error *err);
int ob_pg_dead(outbox_store *s, int64_t sub, int limit, outbox_sink *sink,
               void *arg, outbox_error *err);
int ob_pg_admin(outbox_store *s, int64_t sub, enum outbox_admin what,
                const outbox_admin_arg *arg, outbox_error *err);
int ob_pg_wait(outbox_store *s, int wake_fd, int hint, int timeout_ms);
/* Publishers need not ring any more. */
void ob_pg_disarm(ob_pg *st);
int ob_pg_notice(outbox_store *s, int nth, char *text, size_t size);

#endif

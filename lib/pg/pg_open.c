/* SPDX-License-Identifier: MIT
 *
 * pg_open.c - borrowed connections and connections of our own.
 *
 * A borrowed connection stays as it is: no setting, no transaction and no
 * result of its owner's is touched, and opening a handle asks the server
 * nothing.
 *
 * One of our own is made with a deadline, keeps alive, and is set so that the
 * planner walks the log by its index whatever the statistics say.  When it is
 * lost, everything that was learned through it is forgotten.
 */
#include "pg_store.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

enum { CONNECT_MS = 10000 };

int64_t ob_pg_now_ms(outbox_store *s)
{
    return outbox_monotonic_us() / 1000 + ((ob_pg *)s)->clock_offset_ms;
}

/* ---- opening -------------------------------------------------------- */

static const outbox_store_ops pg_ops;

/* Quoted, as an identifier. */
static int schema_set(ob_pg *st, const char *schema, outbox_error *err)
{
    char *to = st->schema;

    if (schema == NULL)
        schema = "outbox";
    size_t n = strnlen(schema, OB_PG_SCHEMA_MAX + 1);
    if (n == 0 || n > OB_PG_SCHEMA_MAX)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "outbox_options.schema is empty or longer "
                                "than %d bytes", OB_PG_SCHEMA_MAX);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)schema[i] < 0x20 || schema[i] == '\\' ||
            schema[i] == '\'')
            return outbox_error_set(err, OUTBOX_EINVAL,
                                    "outbox_options.schema may not hold "
                                    "control characters, ' or \\");
    }
    memcpy(st->name, schema, n + 1);
    *to++ = '"';
    for (; *schema != '\0'; schema++) {
        if (*schema == '"')
            *to++ = '"';
        *to++ = *schema;
    }
    memcpy(to, "\"", 2);
    return OUTBOX_OK;
}

/* One number for each schema of a database: of the lock that says that a relay
 * sleeps, and in the name of the channel that wakes it. */
static void names_set(ob_pg *st)
{
    char bell[sizeof st->schema + 8];

    int n = snprintf(bell, sizeof bell, "outbox %s", st->schema);
    uint64_t hash = outbox_hash(bell, (size_t)n);
    st->doorbell = (int64_t)hash;
    snprintf(st->channel, sizeof st->channel, "outbox_%016llx",
             (unsigned long long)hash);
}

static int pg_store_new(ob_pg **out, const outbox_options *opt,
                     outbox_error *err)
{
    outbox_options o;
    outbox_allocator mem;
    int rc = outbox_options_read(&o, opt, &mem, err);

    if (rc != OUTBOX_OK)
        return rc;
    ob_pg *st = mem.malloc(mem.arg, sizeof *st);
    if (st == NULL)
        return ob_nomem(err);
    memset(st, 0, sizeof *st);
    st->base.ops = &pg_ops;
    st->base.mem = mem;
    st->on_connect = o.on_connect;
    st->on_connect_arg = o.arg;
    st->pooled = o.flags & OUTBOX_POOLED;
    st->quiet = o.flags & (OUTBOX_QUIET | OUTBOX_POOLED);
    st->lock_keys = o.flags & OUTBOX_LOCK_KEYS;
    st->max_backlog = o.max_backlog;
    st->deadline_ms = OB_PG_DEADLINE_MS;
    rc = schema_set(st, o.schema, err);
    if (rc != OUTBOX_OK) {
        mem.free(mem.arg, st);
        return rc;
    }
    names_set(st);
    *out = st;
    return OUTBOX_OK;
}

void ob_pg_disconnect(ob_pg *st)
{
    ob_pg_windows_forget(st);
    if (st->own && st->conn != NULL)
        PQfinish(st->conn);
    st->conn = NULL;
    st->session = NULL;
    st->in_tx = st->listening = st->asleep = st->ahead = false;
}

static void pg_store_close(outbox_store *s)
{
    ob_pg *st = (ob_pg *)s;
    outbox_allocator mem = st->base.mem;

    ob_pg_disconnect(st);
    ob_pg_publish_free(st);
    if (st->conninfo != NULL)
        mem.free(mem.arg, st->conninfo);
    mem.free(mem.arg, st);
}

static int borrow_conn(ob_pg **out, struct pg_conn *conn,
                  const outbox_options *opt, outbox_error *err)
{
    if (conn == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "conn is NULL");
    int rc = pg_store_new(out, opt, err);
    if (rc == OUTBOX_OK)
        (*out)->conn = conn;
    return rc;
}

int outbox_pg_open(outbox_t **out, struct pg_conn *conn,
                   const outbox_options *opt, outbox_error *err)
{
    ob_pg *st = NULL;

    if (out == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "out is NULL");
    *out = NULL;
    int rc = borrow_conn(&st, conn, opt, err);
    return rc == OUTBOX_OK ? outbox_from_store(out, &st->base, opt, err) : rc;
}

int inbox_pg_open(inbox_t **out, struct pg_conn *conn,
                  const outbox_options *opt, outbox_error *err)
{
    ob_pg *st = NULL;

    if (out == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "out is NULL");
    *out = NULL;
    int rc = borrow_conn(&st, conn, opt, err);
    return rc == OUTBOX_OK ? inbox_from_store(out, &st->base, opt, err) : rc;
}

/* ---- a connection of our own ---------------------------------------- */

/* What the caller's conninfo says goes first, but for the encoding.
 * tcp_user_timeout bounds a connect(2) too: then the next host is tried. */
static PGconn *connect_start(const char *conninfo)
{
    static const char *const names[] = {
        "keepalives_idle", "keepalives_interval", "keepalives_count",
        "tcp_user_timeout", "fallback_application_name", "dbname",
        "client_encoding", NULL
    };
    const char *values[] = {
        "10", "5", "3", "5000", "outbox", conninfo, "UTF8", NULL
    };

    return PQconnectStartParams(names, values, 1);
}

static int connect_wait(ob_pg *st, outbox_error *err)
{
    int64_t until_us = outbox_monotonic_us() + CONNECT_MS * 1000LL;
    PostgresPollingStatusType want = PGRES_POLLING_WRITING;

    if (PQstatus(st->conn) == CONNECTION_BAD)
        return ob_pg_connect_error(st, err);
    PQsetErrorVerbosity(st->conn, PQERRORS_VERBOSE);
    while (want != PGRES_POLLING_OK) {
        if (want == PGRES_POLLING_FAILED)
            return ob_pg_connect_error(st, err);
        struct pollfd fd = { PQsocket(st->conn), want == PGRES_POLLING_READING
                                                     ? POLLIN : POLLOUT, 0 };
        int64_t left = (until_us - outbox_monotonic_us()) / 1000;
        int n = left > 0 ? poll(&fd, 1, (int)left) : 0;
        if (n == 0)
            return outbox_error_set(err, OUTBOX_EDB,
                                    "connect: no answer from %.80s within "
                                    "%d ms", PQhost(st->conn), CONNECT_MS);
        if (n > 0 || errno != EINTR)
            want = PQconnectPoll(st->conn);
    }
    PQsetErrorVerbosity(st->conn, PQERRORS_DEFAULT);
    return OUTBOX_OK;
}

static void say_nothing(void *arg, const PGresult *res)
{
    (void)arg;
    (void)res;
}

int ob_pg_version_check(const ob_pg *st, outbox_error *err)
{
    int version = PQserverVersion(st->conn);

    if (version >= OB_PG_SERVER_LEAST)
        return OUTBOX_OK;
    return outbox_error_set(err, OUTBOX_EDB,
                            "the server is PostgreSQL %d, older than %d: "
                            "upgrade it", version / 10000,
                            OB_PG_SERVER_LEAST / 10000);
}

/* The server ends by itself what we have given up.  Behind a pooler the
 * settings would stay with the next user of its connection. */
static int own_settings(ob_pg *st, outbox_error *err)
{
    /* First of all: it may set a role. */
    if (st->on_connect != NULL &&
        st->on_connect(st->on_connect_arg, st->conn) != 0)
        return outbox_error_set(err, OUTBOX_EDB, "on_connect refused");
    PQsetNoticeReceiver(st->conn, say_nothing, NULL);
    PQsetnonblocking(st->conn, 1);
    if (st->pooled)
        return OUTBOX_OK;
    return ob_pg_exec(st, "SET enable_seqscan = off;"
                      /* A log is read in the order of its pages: the system
                       * reads ahead by itself. */
                      "SET effective_io_concurrency = 0;"
                      "SET plan_cache_mode = force_generic_plan;"
                      "SET jit = off;"
                      "SET max_parallel_workers_per_gather = 0;"
                      "SET statement_timeout = '30s';"
                      "SET lock_timeout = '5s';"
                      "SET idle_in_transaction_session_timeout = '30s';"
                      "SET default_transaction_isolation = 'read committed';"
                      "SET default_transaction_deferrable = off;"
                      "SET default_transaction_read_only = off;"
                      /* What it makes durable for others must be. */
                      "SELECT pg_catalog.set_config('synchronous_commit',"
                      " 'on', false) WHERE pg_catalog.current_setting("
                      "'synchronous_commit') = 'off';"
                      "SET search_path = pg_catalog", "connect", err);
}

/* Who the server is, and what time it has. */
static int ask_who(ob_pg *st, outbox_error *err)
{
    int rc;
    PGresult *res = ob_pg_once(
        st, "SELECT (extract(epoch FROM pg_catalog.clock_timestamp())"
        " * 1000)::bigint, pg_catalog.pg_is_in_recovery()", NULL, "connect",
        &rc, err);

    if (res == NULL)
        return rc;
    st->clock_offset_ms = ob_pg_get_int8(res, 0, 0) -
                          outbox_monotonic_us() / 1000;
    st->standby = ob_pg_get_bool(res, 0, 1);
    PQclear(res);
    return ob_pg_identify(st, err);
}

static int connect_again(ob_pg *st, outbox_error *err)
{
    ob_pg_disconnect(st);
    st->broken = false;
    st->conn = connect_start(st->conninfo);
    if (st->conn == NULL)
        return ob_nomem(err);
    int rc = connect_wait(st, err);
    if (rc == OUTBOX_OK)
        rc = ob_pg_version_check(st, err);
    if (rc == OUTBOX_OK)
        rc = own_settings(st, err);
    if (rc == OUTBOX_OK)
        rc = ask_who(st, err);
    if (rc != OUTBOX_OK)
        ob_pg_disconnect(st);
    return rc;
}

int ob_pg_connected(ob_pg *st, outbox_error *err)
{
    return st->own && (st->broken || st->conn == NULL)
         ? connect_again(st, err) : OUTBOX_OK;
}

/* libpq's own words about a conninfo may quote a password. */
static int own_conninfo(ob_pg *st, const char *conninfo, outbox_error *err)
{
    const outbox_allocator *mem = &st->base.mem;
    char *why = NULL;
    PQconninfoOption *parsed = PQconninfoParse(conninfo, &why);
    size_t n = strlen(conninfo) + 1;

    PQfreemem(why);
    if (parsed == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "conninfo cannot be parsed: give keyword = "
                                "value pairs, or postgresql://user@host/"
                                "database");
    PQconninfoFree(parsed);
    st->conninfo = mem->malloc(mem->arg, n);
    if (st->conninfo == NULL)
        return ob_nomem(err);
    memcpy(st->conninfo, conninfo, n);
    return OUTBOX_OK;
}

int outbox_pg_connect(outbox_t **out, const char *conninfo,
                      const outbox_options *opt, outbox_error *err)
{
    ob_pg *st = NULL;

    if (out == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "out is NULL");
    *out = NULL;
    if (conninfo == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "conninfo is NULL");
    int rc = pg_store_new(&st, opt, err);
    if (rc != OUTBOX_OK)
        return rc;
    st->own = true;
    st->base.relayable = 1;
    rc = own_conninfo(st, conninfo, err);
    if (rc == OUTBOX_OK)
        rc = connect_again(st, err);
    if (rc == OUTBOX_OK)
        return outbox_from_store(out, &st->base, opt, err);
    pg_store_close(&st->base);
    return rc;
}

static const outbox_store_ops pg_ops = {
    .size = sizeof pg_ops,
    .name = "pg",
    .append = ob_pg_append,
    .accept = ob_pg_accept,
    .backlog = ob_pg_backlog,
    .commit = ob_pg_commit,
    .prune = ob_pg_prune,
    .migrate = ob_pg_migrate,
    .attach = ob_pg_attach,
    .beat = ob_pg_beat,
    .acquire = ob_pg_acquire,
    .read = ob_pg_read,
    .save = ob_pg_save,
    .trial = ob_pg_trial,
    .parked = ob_pg_parked,
    .blocked = ob_pg_blocked,
    .trim = ob_pg_trim,
    .promote = ob_pg_promote,
    .count = ob_pg_count,
    .leave = ob_pg_leave,
    .find = ob_pg_find,
    .dead = ob_pg_dead,
    .admin = ob_pg_admin,
    .wait = ob_pg_wait,
    .now_ms = ob_pg_now_ms,
    .notice = ob_pg_notice,
    .close = pg_store_close,
};

/* SPDX-License-Identifier: MIT
 *
 * sut_pg.c - real PostgreSQL databases, as a store under test.
 *
 * Each test has a database of its own, from a template whose clock_timestamp
 * is ours: it looks at a sequence, which is visible to all at once, and tells
 * the true time as long as that is 1.  The store's idea of the server's clock
 * is replaced in the same way.  A test that passed leaves its database, swept,
 * to the next one: to make one and drop it takes longer than most tests.
 *
 * A relay's connection dies by shutdown(2) of its socket, which is what the
 * server sees of a killed process.
 *
 * sut_pooled is the same with a pooler between the server and all who publish
 * or consume; relays, and the test itself, go past it.
 */
#include "sut.h"
#include "sut_pg.h"

#include "core.h"

#include <outbox/pg.h>
#include <outbox/store.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static _Atomic int64_t wall;            /* 0: the true time */

/* ---- small conveniences --------------------------------------------- */

int pg_exec(PGconn *conn, const char *sql)
{
    PGresult *res = PQexec(conn, sql);
    ExecStatusType status = PQresultStatus(res);

    PQclear(res);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ? 0 : -1;
}

int64_t pg_number(PGconn *conn, const char *sql)
{
    PGresult *res = PQexec(conn, sql);
    int64_t n = -1;

    if (PQresultStatus(res) == PGRES_TUPLES_OK && PQntuples(res) > 0
        && !PQgetisnull(res, 0, 0))
        n = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    return n;
}

static void must(PGconn *conn, const char *sql)
{
    ck_assert_msg(pg_exec(conn, sql) == 0, "%s: %s", sql,
                  PQerrorMessage(conn));
}

static void silence(void *arg, const PGresult *res)
{
    (void)arg;
    (void)res;
}

static PGconn *connect_to(const char *conninfo, const char *options)
{
    char all[900];

    snprintf(all, sizeof all, "%s options='%s'", conninfo,
             options != NULL ? options : "");
    PGconn *conn = PQconnectdb(all);
    ck_assert_msg(PQstatus(conn) == CONNECTION_OK, "%s",
                  PQerrorMessage(conn));
    PQsetNoticeReceiver(conn, silence, NULL);
    return conn;
}

PGconn *pg_open(const pg_db *db, const char *options)
{
    return connect_to(db->conninfo, options);
}

void pg_tamper(pg_db *db, const char *format, ...)
{
    char sql[2000];
    va_list args;

    va_start(args, format);
    vsnprintf(sql, sizeof sql, format, args);
    va_end(args);
    must(db->conn, sql);
}

int64_t pg_ask(pg_db *db, const char *sql)
{
    int64_t n = pg_number(db->conn, sql);

    ck_assert_msg(n != -1, "%s: %s", sql, PQerrorMessage(db->conn));
    return n;
}

/* ---- databases ------------------------------------------------------ */

#define TEMPLATE "outbox_template"

static const char *setting(const char *name, const char *script)
{
    const char *value = getenv(name);

    ck_assert_msg(value != NULL, "no %s in the environment: run this inside "
                                 "tests/bin/%s", name, script);
    return value;
}

static const char *cluster(void)
{
    return setting("OUTBOX_TEST_PG", "pg-cluster");
}

/* The last dbname counts. */
static void conninfo_of(pg_db *db)
{
    snprintf(db->conninfo, sizeof db->conninfo, "%s dbname=%s", cluster(),
             db->name);
}

/* The server runs a function of its own list by its number, whatever the
 * catalog says of it; so the true one is renamed. */
static const char clock_sql[] =
    "CREATE TABLE work (x int);"
    "CREATE SCHEMA still;"
    "CREATE SEQUENCE still.ms;"
    "UPDATE pg_catalog.pg_proc SET proname = 'true_timestamp'"
    " WHERE proname = 'clock_timestamp';"
    "CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz"
    " LANGUAGE sql VOLATILE SECURITY DEFINER AS"
    " $$SELECT CASE WHEN last_value = 1 THEN true_timestamp()"
    "          ELSE to_timestamp(last_value / 1000.0) END FROM still.ms$$;";

static void make_template(PGconn *conn)
{
    char sql[200];
    pg_db db;

    snprintf(db.name, sizeof db.name, "outbox_making_%ld", (long)getpid());
    conninfo_of(&db);
    snprintf(sql, sizeof sql, "CREATE DATABASE %s", db.name);
    must(conn, sql);
    db.conn = pg_open(&db, NULL);
    must(db.conn, clock_sql);
    PQfinish(db.conn);
    snprintf(sql, sizeof sql, "ALTER DATABASE %s RENAME TO " TEMPLATE,
             db.name);
    must(conn, sql);
}

static void make_database(PGconn *conn, char name[64])
{
    static unsigned count;
    char sql[200];

    must(conn, "SELECT pg_advisory_lock(0)");
    if (pg_number(conn, "SELECT count(*) FROM pg_database"
                        " WHERE datname = '" TEMPLATE "'") == 0)
        make_template(conn);
    snprintf(name, 64, "test_%ld_%u", (long)getpid(), count++);
    snprintf(sql, sizeof sql, "CREATE DATABASE %s TEMPLATE " TEMPLATE, name);
    must(conn, sql);
}

/* One that was swept, if there is one. */
static bool take_database(PGconn *conn, char name[64])
{
    PGresult *res = PQexec(conn, "DELETE FROM swept WHERE name IN (SELECT name"
                                 " FROM swept LIMIT 1 FOR UPDATE SKIP LOCKED)"
                                 " RETURNING name");
    bool found = PQntuples(res) > 0;    /* no table: none */

    if (found)
        snprintf(name, 64, "%s", PQgetvalue(res, 0, 0));
    PQclear(res);
    return found;
}

static pg_db *db_make(bool fresh)
{
    pg_db *db = calloc(1, sizeof *db);
    PGconn *conn = connect_to(cluster(), NULL);

    if (fresh || !take_database(conn, db->name))
        make_database(conn, db->name);
    PQfinish(conn);
    conninfo_of(db);
    db->conn = pg_open(db, NULL);
    return db;
}

pg_db *pg_create(void)
{
    return db_make(true);
}

void pg_destroy(pg_db *db)
{
    PGconn *conn = connect_to(cluster(), NULL);
    char sql[200];

    PQfinish(db->conn);
    snprintf(sql, sizeof sql, "DROP DATABASE %s WITH (FORCE)", db->name);
    must(conn, sql);
    PQfinish(conn);
    free(db);
}

static void *base_create(void)
{
    wall = 0;
    return db_make(false);
}

/* As the template was. */
static const char sweep_sql[] =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid();"
    "DO $$DECLARE name text; BEGIN"
    " FOR name IN SELECT quote_ident(nspname) FROM pg_namespace"
    "  WHERE nspname !~ '^pg_'"
    "  AND nspname NOT IN ('still', 'information_schema')"
    " LOOP EXECUTE 'DROP SCHEMA ' || name || ' CASCADE'; END LOOP; END$$;"
    "CREATE SCHEMA public;"
    "CREATE TABLE public.work (x int);"
    "ALTER SEQUENCE still.ms RESTART;";

static void base_destroy(void *arg)
{
    pg_db *db = arg;
    PGconn *conn = connect_to(cluster(), NULL);
    char sql[200];

    must(db->conn, sweep_sql);
    PQfinish(db->conn);
    snprintf(sql, sizeof sql, "SELECT pg_advisory_lock(0);"
             "CREATE TABLE IF NOT EXISTS swept (name text);"
             "INSERT INTO swept VALUES ('%s')", db->name);
    must(conn, sql);
    PQfinish(conn);
    free(db);
}

/* ---- connections ---------------------------------------------------- */

static void *base_conn_open(void *db)
{
    return pg_open(db, NULL);
}

static void *base_conn_read_only(void *db)
{
    return pg_open(db, "-c default_transaction_read_only=on");
}

static void *pooled_open(const pg_db *db, const char *user)
{
    char conninfo[600];

    snprintf(conninfo, sizeof conninfo, "%s dbname=%s user=%s",
             setting("OUTBOX_TEST_PGPOOL", "pg-pooler"), db->name, user);
    return connect_to(conninfo, NULL);
}

static void *pooled_conn_open(void *db)
{
    return pooled_open(db, "postgres");
}

static void *pooled_conn_read_only(void *db)
{
    return pooled_open(db, "reader");
}

static void base_conn_close(void *conn)
{
    PQfinish(conn);
}

static int64_t (*true_now)(outbox_store *st);

static int64_t still_now(outbox_store *st)
{
    int64_t ms = wall;

    return ms != 0 ? ms : true_now(st);
}

/* The store's clock is ours from now on. */
static int stand_still(outbox_store *st, int rc)
{
    static outbox_store_ops ops;

    if (rc != OUTBOX_OK || st->ops == &ops)
        return rc;
    ops = *st->ops;
    true_now = ops.now_ms;
    ops.now_ms = still_now;
    st->ops = &ops;
    return rc;
}

static int base_outbox(outbox_t **out, void *conn, const outbox_options *opt,
                       outbox_error *err)
{
    int rc = outbox_pg_open(out, conn, opt, err);

    return rc == OUTBOX_OK ? stand_still((*out)->h.store, rc) : rc;
}

static int base_inbox(inbox_t **out, void *conn, const outbox_options *opt,
                      outbox_error *err)
{
    return inbox_pg_open(out, conn, opt, err);
}

/* Beside the test's own flags, if they are any that can be. */
static const outbox_options *pooled_options(const outbox_options *opt,
                                            outbox_options *to)
{
    *to = (outbox_options){ .size = sizeof *to };
    if (opt != NULL)
        *to = *opt;
    if (to->flags <= (OUTBOX_LOCK_KEYS | OUTBOX_QUIET | OUTBOX_POOLED))
        to->flags |= OUTBOX_POOLED;
    return to;
}

static int pooled_outbox(outbox_t **out, void *conn, const outbox_options *opt,
                         outbox_error *err)
{
    outbox_options o;

    return base_outbox(out, conn, pooled_options(opt, &o), err);
}

static int pooled_inbox(inbox_t **out, void *conn, const outbox_options *opt,
                        outbox_error *err)
{
    outbox_options o;

    return base_inbox(out, conn, pooled_options(opt, &o), err);
}

static int note_conn(void *arg, void *conn)
{
    sut_link *link = arg;

    PQsetNoticeReceiver(conn, silence, NULL);
    if (link == NULL)
        return 0;
    link->conn = conn;
    return link->severed;
}

static int base_connect(outbox_t **out, void *db, const outbox_options *opt,
                        sut_link *link, outbox_error *err)
{
    outbox_options o = { .size = sizeof o };

    if (opt != NULL)
        o = *opt;
    if (link != NULL)
        *link = (sut_link){ NULL, false };
    o.on_connect = note_conn;
    o.arg = link;
    int rc = outbox_pg_connect(out, ((pg_db *)db)->conninfo, &o, err);
    return rc == OUTBOX_OK ? stand_still((*out)->h.store, rc) : rc;
}

static void base_sever(sut_link *link)
{
    link->severed = true;
    shutdown(PQsocket(link->conn), SHUT_RDWR);
}

/* ---- transactions --------------------------------------------------- */

static int base_begin(void *conn)
{
    return pg_exec(conn, "BEGIN");
}

static int base_work(void *conn)
{
    return pg_exec(conn, "INSERT INTO work VALUES (1)");
}

/* A COMMIT of an aborted transaction "succeeds" as a ROLLBACK. */
static int base_commit(void *conn)
{
    PGresult *res = PQexec(conn, "COMMIT");
    int rc = strcmp(PQcmdStatus(res), "COMMIT");

    PQclear(res);
    return rc;
}

static int base_rollback(void *conn)
{
    return pg_exec(conn, "ROLLBACK");
}

static int base_savepoint(void *conn)
{
    return pg_exec(conn, "SAVEPOINT s");
}

static int base_rollback_to(void *conn)
{
    return pg_exec(conn, "ROLLBACK TO s");
}

static bool base_in_transaction(void *conn)
{
    return PQtransactionStatus(conn) != PQTRANS_IDLE;
}

static int base_lose(void *conn)
{
    pg_exec(conn, "SELECT 1 / 0");
    return PQtransactionStatus(conn) != PQTRANS_INERROR;
}

/* ---- looking in, and tampering -------------------------------------- */

static int64_t base_count(void *db, enum sut_table table)
{
    static const char *const queries[] = {
        [SUT_LOG] = "SELECT count(*) FROM outbox.log",
        [SUT_PARKED] = "SELECT count(*) FROM outbox.parked",
        [SUT_DEAD] = "SELECT count(*) FROM outbox.dead",
        [SUT_MARKS] = "SELECT count(*) FROM outbox.inbox",
        [SUT_WORK] = "SELECT count(*) FROM work",
        [SUT_RELAYS] = "SELECT count(*) FROM outbox.relay",
        [SUT_SUBSCRIPTIONS] = "SELECT count(*) FROM outbox.subscription",
    };

    return pg_number(((pg_db *)db)->conn, queries[table]);
}

static void base_age(void *db, int64_t ms)
{
    pg_tamper(db, "UPDATE outbox.log SET published_ms = published_ms - %lld;"
                  "UPDATE outbox.inbox SET accepted_ms = accepted_ms - %lld",
              (long long)ms, (long long)ms);
}

static void base_empty_log(void *db)
{
    pg_tamper(db, "TRUNCATE outbox.log;"
                  "ALTER SEQUENCE outbox.position RESTART");
}

static void base_newer_schema(void *db)
{
    pg_tamper(db, "UPDATE outbox.meta SET version = version + 1;"
                  "INSERT INTO outbox.migration SELECT max(version) + 1,"
                  " '0123456789abcdef', 0 FROM outbox.migration");
}

/* Ours has a CHECK; who made the tables by hand may not. */
static void base_claim_lanes(void *db, int lanes)
{
    pg_tamper(db, "ALTER TABLE outbox.meta DROP CONSTRAINT IF EXISTS"
                  " meta_lanes_check; UPDATE outbox.meta SET lanes = %d",
              lanes);
}

static void base_change_checksum(void *db)
{
    pg_tamper(db, "UPDATE outbox.migration SET checksum = 'no'");
}

static void base_set_now(void *db, int64_t ms)
{
    char sql[80];

    wall = ms;
    snprintf(sql, sizeof sql, "SELECT setval('still.ms', %lld)",
             (long long)ms);
    pg_ask(db, sql);
}

static void base_freeze_beats(void *db, sut_link *link)
{
    (void)link;
    pg_tamper(db, "CREATE TABLE frozen AS SELECT relay FROM outbox.relay;"
                  "CREATE FUNCTION hold_beat() RETURNS trigger LANGUAGE plpgsql"
                  " AS $$BEGIN IF EXISTS (SELECT FROM public.frozen"
                  " WHERE relay = NEW.relay) THEN RETURN OLD; END IF;"
                  " RETURN NEW; END$$;"
                  "CREATE TRIGGER hold_beat BEFORE UPDATE ON outbox.relay"
                  " FOR EACH ROW EXECUTE FUNCTION hold_beat()");
}

static int64_t base_trials(void *db)
{
    return pg_ask(db, "SELECT sum(starts) FROM outbox.lane");
}

/* What the two have in common. */
#define BASE                                                                \
    .is_file = true, .by_segments = true, .create = base_create,            \
    .destroy = base_destroy, .conn_close = base_conn_close,                 \
    .connect = base_connect, .sever = base_sever, .begin = base_begin,      \
    .work = base_work, .commit = base_commit, .rollback = base_rollback,    \
    .savepoint = base_savepoint, .rollback_to = base_rollback_to,           \
    .in_transaction = base_in_transaction, .lose_transaction = base_lose,   \
    .count = base_count, .age = base_age, .empty_log = base_empty_log,      \
    .newer_schema = base_newer_schema, .claim_lanes = base_claim_lanes,     \
    .change_checksum = base_change_checksum, .set_now = base_set_now,       \
    .freeze_beats = base_freeze_beats, .trials = base_trials

const sut sut_pg = {
    .name = "pg",
    .conn_open = base_conn_open,
    .conn_read_only = base_conn_read_only,
    .outbox = base_outbox,
    .inbox = base_inbox,
    BASE
};

const sut sut_pooled = {
    .name = "pooled",
    .conn_open = pooled_conn_open,
    .conn_read_only = pooled_conn_read_only,
    .outbox = pooled_outbox,
    .inbox = pooled_inbox,
    BASE
};

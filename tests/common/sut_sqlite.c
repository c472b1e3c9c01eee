/* SPDX-License-Identifier: MIT
 *
 * sut_sqlite.c - real SQLite files, as a store under test.
 *
 * A relay's connection dies by hooks of SQLite itself: no commit goes through
 * and no statement gets far, which is what others see of a killed process,
 * except that its locks go when the relay is freed.
 */
#include "sut.h"
#include "sut_sqlite.h"

#include <outbox/sqlite.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- databases ------------------------------------------------------ */

int sqlite_exec(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

int64_t sqlite_number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *st = NULL;
    int64_t n = -1;

    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) == SQLITE_OK
        && sqlite3_step(st) == SQLITE_ROW)
        n = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return n;
}

sqlite3 *sqlite_open(const char *path)
{
    sqlite3 *db = NULL;

    ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 10000);
    sqlite_exec(db, "PRAGMA synchronous = OFF");       /* no power is lost */
    return db;
}

static void *db_create(void)
{
    char *path = strdup(tmp_new("db"));
    sqlite3 *db = sqlite_open(path);

    ck_assert_int_eq(sqlite_exec(db, "PRAGMA journal_mode = WAL;"
                                     "CREATE TABLE work(x);"), SQLITE_OK);
    sqlite3_close(db);
    return path;
}

static void db_destroy(void *db)
{
    static const char *const parts[] = { "", "-wal", "-shm", "-journal" };
    char path[300];

    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s%s", (char *)db, parts[i]);
        unlink(path);
    }
    free(db);
}

/* ---- connections ---------------------------------------------------- */

static void *db_conn_open(void *db)
{
    return sqlite_open(db);
}

static void *db_conn_read_only(void *db)
{
    char uri[300];
    sqlite3 *conn = NULL;

    snprintf(uri, sizeof uri, "file:%s?mode=ro", (char *)db);
    sqlite3_open_v2(uri, &conn, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
    return conn;
}

static void db_conn_close(void *conn)
{
    ck_assert_int_eq(sqlite3_close(conn), SQLITE_OK);
}

static int db_outbox(outbox_t **out, void *conn, const outbox_options *opt,
                     outbox_error *err)
{
    return outbox_sqlite_open(out, conn, opt, err);
}

static int db_inbox(inbox_t **out, void *conn, const outbox_options *opt,
                    outbox_error *err)
{
    return inbox_sqlite_open(out, conn, opt, err);
}

static int refuse(void *arg)
{
    (void)arg;
    return 1;
}

static int note_link(void *arg, void *db)
{
    sut_link *link = arg;

    sqlite_exec(db, "PRAGMA synchronous = OFF");
    if (link == NULL)
        return 0;
    link->conn = db;
    return link->severed;
}

static int db_connect(outbox_t **out, void *db, const outbox_options *opt,
                      sut_link *link, outbox_error *err)
{
    outbox_options o = { .size = sizeof o };

    if (opt != NULL)
        o = *opt;
    if (link != NULL)
        *link = (sut_link){ NULL, false };
    o.on_connect = note_link;
    o.arg = link;
    return outbox_sqlite_connect(out, db, &o, err);
}

static void db_sever(sut_link *link)
{
    link->severed = true;
    sqlite3_commit_hook(link->conn, refuse, NULL);
    sqlite3_progress_handler(link->conn, 1, refuse, NULL);
}

/* ---- transactions --------------------------------------------------- */

static int db_begin(void *conn)
{
    return sqlite_exec(conn, "BEGIN");
}

static int db_work(void *conn)
{
    return sqlite_exec(conn, "INSERT INTO work VALUES (1)");
}

static int db_commit(void *conn)
{
    return sqlite_exec(conn, "COMMIT");
}

static int db_rollback(void *conn)
{
    return sqlite_exec(conn, "ROLLBACK");
}

static int db_savepoint(void *conn)
{
    return sqlite_exec(conn, "SAVEPOINT s");
}

static int db_rollback_to(void *conn)
{
    return sqlite_exec(conn, "ROLLBACK TO s");
}

static bool db_in_transaction(void *conn)
{
    return !sqlite3_get_autocommit(conn);
}

/* A conflict that rolls back the whole transaction, as a full disk may. */
static int db_lose(void *conn)
{
    sqlite_exec(conn, "CREATE TEMP TABLE once(x UNIQUE);"
                      "INSERT INTO once VALUES (1);"
                      "INSERT OR ROLLBACK INTO once VALUES (1);");
    return !sqlite3_get_autocommit(conn);
}

/* ---- looking in, and tampering -------------------------------------- */

static int64_t db_count(void *db, enum sut_table table)
{
    static const char *const queries[] = {
        [SUT_LOG] = "SELECT count(*) FROM outbox_log",
        [SUT_PARKED] = "SELECT count(*) FROM outbox_parked",
        [SUT_DEAD] = "SELECT count(*) FROM outbox_dead",
        [SUT_MARKS] = "SELECT count(*) FROM outbox_inbox",
        [SUT_WORK] = "SELECT count(*) FROM work",
        [SUT_RELAYS] = "SELECT count(*) FROM outbox_relay",
        [SUT_SUBSCRIPTIONS] = "SELECT count(*) FROM outbox_subscription",
    };
    sqlite3 *conn = sqlite_open(db);
    int64_t n = sqlite_number(conn, queries[table]);

    sqlite3_close(conn);
    return n;
}

void sqlite_tamper(const char *path, const char *sql)
{
    sqlite3 *conn = sqlite_open(path);

    ck_assert_int_eq(sqlite_exec(conn, sql), SQLITE_OK);
    sqlite3_close(conn);
}

static void db_age(void *db, int64_t ms)
{
    char sql[200];

    snprintf(sql, sizeof sql,
             "UPDATE outbox_log SET published_ms = published_ms - %lld;"
             "UPDATE outbox_inbox SET accepted_ms = accepted_ms - %lld",
             (long long)ms, (long long)ms);
    sqlite_tamper(db, sql);
}

static void db_empty_log(void *db)
{
    sqlite_tamper(db, "DELETE FROM outbox_log");
}

static void db_newer_schema(void *db)
{
    sqlite_tamper(db, "UPDATE outbox_meta SET version = version + 1;"
                      "INSERT INTO outbox_migration SELECT max(version) + 1,"
                      " '0123456789abcdef', 0 FROM outbox_migration");
}

static void db_claim_lanes(void *db, int lanes)
{
    char sql[80];

    snprintf(sql, sizeof sql, "UPDATE outbox_meta SET lanes = %d", lanes);
    sqlite_tamper(db, sql);
}

static void db_change_checksum(void *db)
{
    sqlite_tamper(db, "UPDATE outbox_migration SET checksum = 'no'");
}

static void db_freeze_beats(void *db, sut_link *link)
{
    (void)link;
    sqlite_tamper(db,
                  "CREATE TABLE frozen AS SELECT relay FROM outbox_relay;"
                  "CREATE TRIGGER freeze BEFORE UPDATE ON outbox_relay"
                  " WHEN NEW.relay IN (SELECT relay FROM frozen)"
                  " BEGIN SELECT RAISE(IGNORE); END");
}

static int64_t db_trials(void *db)
{
    sqlite3 *conn = sqlite_open(db);
    int64_t n = sqlite_number(conn, "SELECT sum(starts) FROM outbox_lane");

    sqlite3_close(conn);
    return n;
}

const sut sut_sqlite = {
    .name = "sqlite",
    .is_file = true,
    .create = db_create,
    .destroy = db_destroy,
    .conn_open = db_conn_open,
    .conn_read_only = db_conn_read_only,
    .conn_close = db_conn_close,
    .outbox = db_outbox,
    .inbox = db_inbox,
    .connect = db_connect,
    .sever = db_sever,
    .begin = db_begin,
    .work = db_work,
    .commit = db_commit,
    .rollback = db_rollback,
    .savepoint = db_savepoint,
    .rollback_to = db_rollback_to,
    .in_transaction = db_in_transaction,
    .lose_transaction = db_lose,
    .count = db_count,
    .age = db_age,
    .empty_log = db_empty_log,
    .newer_schema = db_newer_schema,
    .claim_lanes = db_claim_lanes,
    .change_checksum = db_change_checksum,
    .freeze_beats = db_freeze_beats,
    .trials = db_trials,
};

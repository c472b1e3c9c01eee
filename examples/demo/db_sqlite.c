/* SPDX-License-Identifier: MIT
 *
 * db_sqlite.c - the databases of the demo, as SQLite files.
 */
#include "demo.h"

#include <outbox/sqlite.h>

#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct db {
    sqlite3 *conn;
};

/* ---- a database ------------------------------------------------------ */

int db_make(char name[DB_NAME], const char *dir, const char *owner)
{
    int n = snprintf(name, DB_NAME, "%s/%s.db", dir, owner);

    return n > 0 && n < DB_NAME ? 0 : -1;
}

void db_remove(const char *name)
{
    (void)name;                         /* it goes with its directory */
}

static int open_with(db_t **db, const char *name, int flags)
{
    *db = calloc(1, sizeof **db);
    if (*db == NULL ||
        sqlite3_open_v2(name, &(*db)->conn, flags, NULL) != SQLITE_OK)
        return -1;
    return sqlite3_busy_timeout((*db)->conn, 5000) == SQLITE_OK ? 0 : -1;
}

static int run_all(db_t *db, const char *sql)
{
    return sqlite3_exec(db->conn, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : -1;
}

int db_open(db_t **db, const char *name, const char *tables)
{
    if (open_with(db, name, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) < 0 ||
        run_all(*db, "PRAGMA journal_mode = WAL;"
                     "PRAGMA synchronous = FULL") < 0)
        return -1;
    return run_all(*db, tables);
}

/* Read only: this connection changes nothing, not even by closing. */
int db_inspect(db_t **db, const char *name)
{
    if (open_with(db, name, SQLITE_OPEN_READONLY) < 0)
        return -1;
    return run_all(*db, "CREATE TEMP VIEW event AS SELECT position,"
                        " lower(hex(id)) AS id, key, type FROM outbox_log;"
                        "CREATE TEMP VIEW mark AS SELECT lower(hex(id)) AS id"
                        " FROM outbox_inbox WHERE consumer = 'accounts'");
}

void db_close(db_t *db)
{
    if (db != NULL)
        sqlite3_close(db->conn);
    free(db);
}

const char *db_error(db_t *db)
{
    if (db == NULL || sqlite3_errcode(db->conn) == SQLITE_NOMEM)
        return "no memory";
    return sqlite3_errcode(db->conn) == SQLITE_OK ? ""
                                                  : sqlite3_errmsg(db->conn);
}

/* ---- the library's handles ------------------------------------------- */

int db_outbox(db_t *db, outbox_t **ob, outbox_error *err)
{
    return outbox_sqlite_open(ob, db->conn, NULL, err);
}

int db_inbox(db_t *db, inbox_t **inbox, outbox_error *err)
{
    return inbox_sqlite_open(inbox, db->conn, NULL, err);
}

int db_relay_outbox(const char *name, outbox_t **ob, outbox_error *err)
{
    return outbox_sqlite_connect(ob, name, NULL, err);
}

/* ---- statements ------------------------------------------------------ */

static sqlite3_stmt *prepare(sqlite3 *conn, const char *sql, va_list texts)
{
    sqlite3_stmt *stmt;
    const char *text;
    int i, n;

    if (sqlite3_prepare_v2(conn, sql, -1, &stmt, NULL) != SQLITE_OK)
        return NULL;
    n = sqlite3_bind_parameter_count(stmt);
    for (i = 1; i <= n && (text = va_arg(texts, const char *)) != NULL; i++)
        if (sqlite3_bind_text(stmt, i, text, -1, SQLITE_STATIC) != SQLITE_OK) {
            sqlite3_finalize(stmt);
            return NULL;
        }
    return stmt;
}

int db_run(db_t *db, const char *sql, ...)
{
    sqlite3_stmt *stmt;
    va_list texts;

    va_start(texts, sql);
    stmt = prepare(db->conn, sql, texts);
    va_end(texts);
    if (stmt == NULL)
        return -1;
    sqlite3_step(stmt);                 /* finalize reports how it went */
    return sqlite3_finalize(stmt) == SQLITE_OK ? sqlite3_changes(db->conn)
                                               : -1;
}

int64_t db_int(db_t *db, const char *sql, ...)
{
    sqlite3_stmt *stmt;
    int64_t value = 0;
    va_list texts;

    va_start(texts, sql);
    stmt = prepare(db->conn, sql, texts);
    va_end(texts);
    if (stmt == NULL)
        return -1;
    if (sqlite3_step(stmt) == SQLITE_ROW)
        value = sqlite3_column_int64(stmt, 0);
    return sqlite3_finalize(stmt) == SQLITE_OK ? value : -1;
}

static void print_row(FILE *out, sqlite3_stmt *stmt)
{
    int i, n = sqlite3_column_count(stmt);

    for (i = 0; i < n; i++)
        fprintf(out, "%s%c", (const char *)sqlite3_column_text(stmt, i),
                i + 1 < n ? ' ' : '\n');
}

int db_print(db_t *db, const char *sql, FILE *out)
{
    sqlite3_stmt *stmt;

    if (sqlite3_prepare_v2(db->conn, sql, -1, &stmt, NULL) != SQLITE_OK)
        return -1;
    while (sqlite3_step(stmt) == SQLITE_ROW)
        print_row(out, stmt);
    return sqlite3_finalize(stmt) == SQLITE_OK ? 0 : -1;
}

/* With the right to write: one that cannot get it later would have to begin
 * again. */
int db_begin(db_t *db)
{
    return db_run(db, "BEGIN IMMEDIATE", NULL) < 0 ? -1 : 0;
}

int db_commit(db_t *db)
{
    return db_run(db, "COMMIT", NULL) < 0 ? -1 : 0;
}

void db_rollback(db_t *db)
{
    run_all(db, "ROLLBACK");
}

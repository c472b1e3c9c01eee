/* SPDX-License-Identifier: MIT
 *
 * db.c - SQLite in few words, for the demo.
 */
#include "demo.h"

#include <stdarg.h>

int db_open(sqlite3 **db, const char *path, const char *tables)
{
    static const char settings[] = "PRAGMA busy_timeout = 5000;"
                                   "PRAGMA journal_mode = WAL;"
                                   "PRAGMA synchronous = FULL";

    if (sqlite3_open(path, db) != SQLITE_OK ||
        sqlite3_exec(*db, settings, NULL, NULL, NULL) != SQLITE_OK)
        return -1;
    return sqlite3_exec(*db, tables, NULL, NULL, NULL) == SQLITE_OK ? 0 : -1;
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql, va_list texts)
{
    sqlite3_stmt *stmt;
    const char *text;
    int i, n;

    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
        return NULL;
    n = sqlite3_bind_parameter_count(stmt);
    for (i = 1; i <= n && (text = va_arg(texts, const char *)) != NULL; i++)
        if (sqlite3_bind_text(stmt, i, text, -1, SQLITE_STATIC) != SQLITE_OK) {
            sqlite3_finalize(stmt);
            return NULL;
        }
    return stmt;
}

int db_run(sqlite3 *db, const char *sql, ...)
{
    sqlite3_stmt *stmt;
    va_list texts;

    va_start(texts, sql);
    stmt = prepare(db, sql, texts);
    va_end(texts);
    if (stmt == NULL)
        return -1;
    sqlite3_step(stmt);                 /* finalize reports how it went */
    return sqlite3_finalize(stmt) == SQLITE_OK ? sqlite3_changes(db) : -1;
}

int64_t db_int(sqlite3 *db, const char *sql, ...)
{
    sqlite3_stmt *stmt;
    int64_t value = 0;
    va_list texts;

    va_start(texts, sql);
    stmt = prepare(db, sql, texts);
    va_end(texts);
    if (stmt == NULL)
        return -1;
    if (sqlite3_step(stmt) == SQLITE_ROW)
        value = sqlite3_column_int64(stmt, 0);
    return sqlite3_finalize(stmt) == SQLITE_OK ? value : -1;
}

/* SPDX-License-Identifier: MIT
 *
 * sut_sqlite.h - small conveniences over sqlite3, for tests that need SQL.
 */
#ifndef TESTS_SUT_SQLITE_H
#define TESTS_SUT_SQLITE_H

#include <sqlite3.h>
#include <stdint.h>

sqlite3 *sqlite_open(const char *path);
int      sqlite_exec(sqlite3 *db, const char *sql);
int64_t  sqlite_number(sqlite3 *db, const char *sql);   /* -1: no answer */
/* Through a connection of its own. */
void     sqlite_tamper(const char *path, const char *sql);

#endif

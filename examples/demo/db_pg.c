/* SPDX-License-Identifier: MIT
 *
 * db_pg.c - the databases of the demo, in the PostgreSQL cluster that PGHOST
 * and so on say; their names are conninfo strings.
 */
#include "demo.h"

#include <outbox/pg.h>

#include <libpq-fe.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PARAMS_MAX = 9 };

struct db {
    PGconn *conn;
};

/* ---- a database ------------------------------------------------------ */

static int run_once(const char *sql)
{
    PGconn *conn = PQconnectdb("");
    PGresult *res = PQexec(conn, sql);
    int rc = PQresultStatus(res) == PGRES_COMMAND_OK ? 0 : -1;

    if (rc < 0)
        fprintf(stderr, "demo: %s", PQerrorMessage(conn));
    PQclear(res);
    PQfinish(conn);
    return rc;
}

int db_make(char name[DB_NAME], const char *dir, const char *owner)
{
    char sql[DB_NAME + 20];
    int n = snprintf(name, DB_NAME, "dbname=outbox_%s_%ld", owner,
                     (long)getpid());

    (void)dir;
    if (n < 0 || n >= DB_NAME)
        return -1;
    snprintf(sql, sizeof sql, "CREATE DATABASE %s", strchr(name, '=') + 1);
    if (run_once(sql) == 0)
        return 0;
    name[0] = '\0';
    return -1;
}

/* Killed processes may still have a connection there. */
void db_remove(const char *name)
{
    char sql[DB_NAME + 40];

    snprintf(sql, sizeof sql, "DROP DATABASE %s WITH (FORCE)",
             strchr(name, '=') + 1);
    run_once(sql);
}

static int run_all(db_t *db, const char *sql)
{
    PGresult *res = PQexec(db->conn, sql);
    int rc = PQresultStatus(res) == PGRES_COMMAND_OK ? 0 : -1;

    PQclear(res);
    return rc;
}

int db_open(db_t **db, const char *name, const char *tables)
{
    *db = calloc(1, sizeof **db);
    if (*db == NULL)
        return -1;
    (*db)->conn = PQconnectdb(name);
    if (PQstatus((*db)->conn) != CONNECTION_OK ||
        run_all(*db, "SET client_min_messages = warning") < 0)
        return -1;
    return run_all(*db, tables);
}

int db_inspect(db_t **db, const char *name)
{
    return db_open(db, name,
                   "CREATE TEMP VIEW event AS SELECT position,"
                   " replace(id::text, '-', '') AS id, key, type"
                   " FROM outbox.log;"
                   "CREATE TEMP VIEW mark AS SELECT encode(id, 'hex') AS id"
                   " FROM outbox.inbox WHERE consumer = 'accounts'");
}

void db_close(db_t *db)
{
    if (db != NULL)
        PQfinish(db->conn);
    free(db);
}

const char *db_error(db_t *db)
{
    return db == NULL ? "no memory" : PQerrorMessage(db->conn);
}

/* ---- the library's handles ------------------------------------------- */

int db_outbox(db_t *db, outbox_t **ob, outbox_error *err)
{
    return outbox_pg_open(ob, db->conn, NULL, err);
}

int db_inbox(db_t *db, inbox_t **inbox, outbox_error *err)
{
    return inbox_pg_open(inbox, db->conn, NULL, err);
}

int db_relay_outbox(const char *name, outbox_t **ob, outbox_error *err)
{
    return outbox_pg_connect(ob, name, NULL, err);
}

/* ---- statements ------------------------------------------------------ */

/* As many of the texts as there are parameters. */
static PGresult *run(db_t *db, const char *sql, va_list texts)
{
    const char *values[PARAMS_MAX];
    char name[3] = "$1";
    int n;

    for (n = 0; n < PARAMS_MAX && strstr(sql, name) != NULL; n++, name[1]++)
        values[n] = va_arg(texts, const char *);
    return PQexecParams(db->conn, sql, n, NULL, values, NULL, NULL, 0);
}

int db_run(db_t *db, const char *sql, ...)
{
    PGresult *res;
    va_list texts;
    int n = -1;

    va_start(texts, sql);
    res = run(db, sql, texts);
    va_end(texts);
    if (PQresultStatus(res) == PGRES_COMMAND_OK)
        n = (int)strtol(PQcmdTuples(res), NULL, 10);
    PQclear(res);
    return n;
}

int64_t db_int(db_t *db, const char *sql, ...)
{
    PGresult *res;
    va_list texts;
    int64_t value = -1;

    va_start(texts, sql);
    res = run(db, sql, texts);
    va_end(texts);
    if (PQresultStatus(res) == PGRES_TUPLES_OK)
        value = PQntuples(res) ? strtoll(PQgetvalue(res, 0, 0), NULL, 10) : 0;
    PQclear(res);
    return value;
}

int db_print(db_t *db, const char *sql, FILE *out)
{
    PGresult *res = PQexec(db->conn, sql);
    int i, col, cols = PQnfields(res);
    int rc = PQresultStatus(res) == PGRES_TUPLES_OK ? 0 : -1;

    for (i = 0; i < PQntuples(res); i++)
        for (col = 0; col < cols; col++)
            fprintf(out, "%s%c", PQgetvalue(res, i, col),
                    col + 1 < cols ? ' ' : '\n');
    PQclear(res);
    return rc;
}

int db_begin(db_t *db)
{
    return run_all(db, "BEGIN");
}

/* The COMMIT of a transaction that had failed "succeeds" as a ROLLBACK. */
int db_commit(db_t *db)
{
    PGresult *res = PQexec(db->conn, "COMMIT");
    int rc = strcmp(PQcmdStatus(res), "COMMIT") == 0 ? 0 : -1;

    PQclear(res);
    return rc;
}

void db_rollback(db_t *db)
{
    run_all(db, "ROLLBACK");
}

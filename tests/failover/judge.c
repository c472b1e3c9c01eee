/* SPDX-License-Identifier: MIT
 *
 * judge.c - what several relays together have lost, invented, altered or
 * turned around: from their common history, the publishers' ledgers and the
 * business rows.  It asks the library nothing.
 */
#include <string.h>

#include "failover.h"

enum { EXAMPLES = 3 };

static const char schema[] =
    "CREATE TABLE seen(n INTEGER PRIMARY KEY, kind, run INTEGER, id, key,"
    " version INTEGER);"
    "CREATE TABLE ledger(n INTEGER PRIMARY KEY, kind, run INTEGER, id, key,"
    " version INTEGER);";

static const char indexes[] =
    "CREATE INDEX seen_id ON seen(id);"
    "CREATE TEMP VIEW first AS SELECT id, key, version, run, min(n) AS n"
    " FROM seen GROUP BY id;"
    "CREATE TEMP VIEW missing AS SELECT key, version, id FROM app.business"
    " WHERE id NOT IN (SELECT id FROM seen)";

static const struct rule {
    const char *name, *sql;
} rules[] = {
    { "lost", "SELECT key, version, id FROM missing" },
    { "out of order",
      "SELECT * FROM (SELECT key, version, id, run, n, lag(version) OVER"
      " (PARTITION BY key ORDER BY n) AS before FROM first"
      " WHERE key <> '-') WHERE before > version" },
    { "phantom",
      "SELECT DISTINCT key, version, id FROM seen"
      " WHERE id NOT IN (SELECT id FROM app.business)" },
    { "altered",
      "SELECT s.key, s.version, s.id FROM seen s"
      " JOIN app.business b ON b.id = s.id WHERE s.kind <> 'D'"
      " OR b.key <> s.key OR b.version <> s.version" },
    { "lost commit",
      "SELECT run, key, version, id FROM ledger WHERE kind = 'C'"
      " AND id NOT IN (SELECT id FROM app.business)" },
    { "undone but delivered",
      "SELECT run, key, version, id FROM ledger WHERE kind = 'R'"
      " AND id IN (SELECT id FROM seen)" },
    { "publish failed",
      "SELECT run, key, version, id FROM ledger WHERE kind = 'F'" },
    { "dead without cause", "SELECT hex(id), key, why FROM app.outbox_dead"
                             " WHERE coalesce(key, '') NOT LIKE 'poison%'" },
    { "damaged file", "SELECT integrity_check FROM pragma_integrity_check"
                      " WHERE schema = 'app' AND integrity_check <> 'ok'" },
};

static void load(sqlite3 *db, const char *dir, const char *name,
                 const char *table)
{
    char path[PATH_BYTES], sql[96];
    sqlite3_stmt *st;
    record rec;
    FILE *file;

    path_join(path, dir, name);
    file = fopen(path, "re");
    if (file == NULL)
        return;
    snprintf(sql, sizeof sql, "INSERT INTO %s VALUES(NULL, ?, ?, ?, ?, ?)",
             table);
    st = db_prepare(db, sql);
    while (record_read(file, &rec)) {
        sqlite3_bind_text(st, 1, &rec.kind, 1, SQLITE_STATIC);
        sqlite3_bind_int(st, 2, rec.run);
        sqlite3_bind_text(st, 3, rec.id, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 4, rec.key, -1, SQLITE_STATIC);
        sqlite3_bind_int64(st, 5, rec.version);
        if (sqlite3_step(st) != SQLITE_DONE)
            die(path, sqlite3_errmsg(db));
        sqlite3_reset(st);
    }
    sqlite3_finalize(st);
    fclose(file);
}

static sqlite3 *evidence(const field *f)
{
    char path[PATH_BYTES], *sql;
    sqlite3 *db;

    path_join(path, f->dir, "app.db");
    if (sqlite3_open(":memory:", &db) != SQLITE_OK)
        die("judge", sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 10000);
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sql = sqlite3_mprintf("ATTACH %Q AS app", path);
    if (sql == NULL || db_exec(db, sql) != SQLITE_OK ||
        db_exec(db, "PRAGMA temp_store=MEMORY; BEGIN") != SQLITE_OK ||
        db_exec(db, schema) != SQLITE_OK)
        die("judge", sqlite3_errmsg(db));
    sqlite3_free(sql);
    load(db, f->dir, "history", "seen");
    load(db, f->dir, "ledger", "ledger");
    if (db_exec(db, indexes) != SQLITE_OK)
        die("judge", sqlite3_errmsg(db));
    return db;
}

static void show(const struct rule *rule, sqlite3_stmt *st)
{
    fprintf(stderr, "violation: %s:", rule->name);
    for (int i = 0; i < sqlite3_column_count(st); i++) {
        const unsigned char *text = sqlite3_column_text(st, i);

        fprintf(stderr, " %s", text ? (const char *)text : "NULL");
    }
    fputc('\n', stderr);
}

static int64_t judge_rule(sqlite3 *db, const struct rule *rule)
{
    sqlite3_stmt *st = db_prepare(db, rule->sql);
    int64_t n = 0;
    int rc;

    while ((rc = sqlite3_step(st)) == SQLITE_ROW)
        if (n++ < EXAMPLES)
            show(rule, st);
    if (rc != SQLITE_DONE) {
        fprintf(stderr, "violation: %s: %s\n", rule->name, sqlite3_errmsg(db));
        n++;
    }
    sqlite3_finalize(st);
    return n;
}

void judge(const field *f, verdicts *out)
{
    sqlite3 *db = evidence(f);

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        out->violations += judge_rule(db, &rules[i]);
    out->events = db_number(db, "SELECT count(*) FROM app.business", 0);
    out->deliveries = db_number(db, "SELECT count(*) FROM seen", 0);
    out->duplicates = out->deliveries -
                      db_number(db, "SELECT count(*) FROM first", 0);
    sqlite3_close(db);
}

int64_t judge_missing(const field *f)
{
    sqlite3 *db = evidence(f);
    int64_t n = db_number(db, "SELECT count(*) FROM missing", -1);

    sqlite3_close(db);
    return n;
}

/* SPDX-License-Identifier: MIT
 *
 * checker.c - decides from histories, ledger and business tables alone what
 * was lost, invented, repeated or turned around.  (Of the library's tables it
 * reads one: an event that the destination refused must be kept in the dead
 * letters.)
 *
 * The files are read into a database in memory, and each promise is a query
 * that finds what breaks it.
 */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "torture.h"

enum { EXAMPLES = 3 };

/* Temporary views, for others may not look into attached databases. */
static const char schema[] =
    "CREATE TABLE seen(n INTEGER PRIMARY KEY, sub, kind, run INTEGER,"
    " number INTEGER, id, key, version INTEGER, pid, attempt);"
    "CREATE INDEX seen_id ON seen(sub, id);"
    "CREATE TABLE ledger(n INTEGER PRIMARY KEY, sub, kind, run INTEGER,"
    " number INTEGER, id, key, version INTEGER, pid, attempt);"
    "CREATE TABLE subs(sub);"
    "CREATE TEMP VIEW first AS SELECT sub, id, key, version, min(n) AS n"
    " FROM seen WHERE kind IN ('D', 'X') GROUP BY sub, id;"
    "CREATE TEMP VIEW missing AS SELECT s.sub, b.key, b.version, b.id"
    " FROM subs s, app.business b WHERE NOT EXISTS"
    " (SELECT 1 FROM seen WHERE sub = s.sub AND id = b.id"
    "  AND kind IN ('D', 'X'));";

static const char effect_schema[] =
    "CREATE TEMP VIEW no_effect AS SELECT b.key, b.version, b.id"
    " FROM app.business b"
    " WHERE b.id NOT IN (SELECT id FROM eff.effect)"
    " AND b.id NOT IN (SELECT id FROM seen WHERE kind = 'X')";

static const struct rule {
    const char *name, *sql;
} rules[] = {
    { "lost", "SELECT sub, key, version, id FROM missing" },
    { "lost commit",
      "SELECT run, key, version, id FROM ledger WHERE kind = 'C'"
      " AND id NOT IN (SELECT id FROM app.business)" },
    { "phantom",
      "SELECT DISTINCT sub, key, version, id FROM seen"
      " WHERE kind <> 'Q' AND id NOT IN (SELECT id FROM app.business)" },
    { "undone but there",
      "SELECT run, key, version, id FROM ledger WHERE kind = 'R'"
      " AND (id IN (SELECT id FROM app.business)"
      " OR id IN (SELECT id FROM seen) AND id <> '-')" },
    { "altered",
      "SELECT s.sub, s.key, s.version, s.id FROM seen s"
      " LEFT JOIN app.business b ON b.id = s.id WHERE s.kind = 'B'"
      " OR b.key <> s.key OR b.version <> s.version" },
    { "out of order",
      "SELECT * FROM (SELECT sub, key, version, id, n, lag(version) OVER"
      " (PARTITION BY sub, key ORDER BY n) AS before FROM first"
      " WHERE key <> '-') WHERE before > version" },
    /* After all was delivered and every relay had ended well, a relay that
     * was started later sends old events again. */
    { "went back",
      "SELECT d.sub, d.key, d.version, d.id, d.run FROM seen q"
      " JOIN seen d ON d.sub = q.sub AND d.n > q.n AND d.run > q.run"
      " AND d.kind IN ('D', 'X')"
      " WHERE q.kind = 'Q' AND EXISTS (SELECT 1 FROM seen e"
      " WHERE e.sub = d.sub AND e.id = d.id AND e.n < q.n)" },
    { "publish failed",
      "SELECT run, key, version, id FROM ledger WHERE kind = 'F'" },
    { "business gap",
      "SELECT key, count(*), max(version) FROM app.business"
      " GROUP BY key HAVING count(*) <> max(version)" },
    { "refused but not kept",
      "SELECT DISTINCT sub, key, version, id FROM seen WHERE kind = 'X'"
      " AND replace(id, '-', '') NOT IN"
      " (SELECT lower(hex(id)) FROM app.outbox_dead)" },
    { "effect lost", "SELECT key, version, id FROM no_effect" },
    { "effect twice",
      "SELECT key, version, id, count(*) FROM eff.effect GROUP BY id"
      " HAVING count(*) > 1" },
    { "effect phantom",
      "SELECT key, version, id FROM eff.effect"
      " WHERE id NOT IN (SELECT id FROM app.business)" },
    { "effect out of order",
      "SELECT * FROM (SELECT key, version, id, lag(version) OVER"
      " (PARTITION BY key ORDER BY n) AS before FROM eff.effect"
      " WHERE key <> '-') WHERE before > version" },
    { "damaged file", "PRAGMA app.integrity_check" },
    { "damaged file", "PRAGMA eff.integrity_check" },
};

/* ---- reading ---- */

static bool load(sqlite3 *db, const char *dir, const char *name,
                 const char *sql, const char *sub)
{
    sqlite3_stmt *st;
    char path[PATH_BYTES];
    record rec;
    FILE *file;

    path_join(path, dir, name);
    file = fopen(path, "re");
    if (file == NULL)
        return false;
    st = db_prepare(db, sql);
    while (record_read(file, &rec)) {
        sqlite3_bind_text(st, 1, sub, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 2, &rec.kind, 1, SQLITE_STATIC);
        sqlite3_bind_int(st, 3, rec.run);
        sqlite3_bind_int64(st, 4, rec.number);
        sqlite3_bind_text(st, 5, rec.id, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 6, rec.key, -1, SQLITE_STATIC);
        sqlite3_bind_int64(st, 7, rec.version);
        sqlite3_bind_int(st, 8, rec.pid);
        sqlite3_bind_int(st, 9, rec.attempt);
        if (sqlite3_step(st) != SQLITE_DONE)
            die(path, sqlite3_errmsg(db));
        sqlite3_reset(st);
    }
    sqlite3_finalize(st);
    fclose(file);
    return true;
}

static void load_history(sqlite3 *db, const char *dir, const char *sub)
{
    char name[64], sql[96];

    snprintf(name, sizeof name, "history.%s", sub);
    if (!load(db, dir, name,
              "INSERT INTO seen VALUES(NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", sub))
        return;
    snprintf(sql, sizeof sql, "INSERT INTO subs VALUES('%s')", sub);
    db_exec(db, sql);
}

static void attach(sqlite3 *db, const char *dir, const char *name,
                   const char *as)
{
    char path[PATH_BYTES], *sql;

    path_join(path, dir, name);
    sql = sqlite3_mprintf("ATTACH %Q AS %s", path, as);
    if (sql == NULL || db_exec(db, sql) != SQLITE_OK)
        die(path, sqlite3_errmsg(db));
    sqlite3_free(sql);
}

static sqlite3 *evidence(const char *dir, bool ledger)
{
    sqlite3 *db;

    if (sqlite3_open(":memory:", &db) != SQLITE_OK)
        die("checker", sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 10000);
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    attach(db, dir, "app.db", "app");
    attach(db, dir, "effects.db", "eff");
    if (db_exec(db, "PRAGMA temp_store=MEMORY") != SQLITE_OK ||
        db_exec(db, schema) != SQLITE_OK ||
        db_exec(db, effect_schema) != SQLITE_OK ||
        db_exec(db, "BEGIN") != SQLITE_OK)
        die("checker", sqlite3_errmsg(db));
    load_history(db, dir, "relay");
    load_history(db, dir, "sink");
    if (ledger)
        load(db, dir, "ledger",
             "INSERT INTO ledger VALUES(NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", "");
    return db;
}

/* ---- judging ---- */

static void show(const struct rule *rule, sqlite3_stmt *st)
{
    fprintf(stderr, "violation: %s:", rule->name);
    for (int i = 0; i < sqlite3_column_count(st); i++) {
        const unsigned char *text = sqlite3_column_text(st, i);

        fprintf(stderr, " %s", text ? (const char *)text : "NULL");
    }
    fputc('\n', stderr);
}

/* All that an integrity check has to say of a sound file. */
static bool says_ok(sqlite3_stmt *st)
{
    return sqlite3_column_count(st) == 1 &&
           strcmp((const char *)sqlite3_column_text(st, 0), "ok") == 0;
}

static int64_t judge_rule(sqlite3 *db, const struct rule *rule, bool quietly)
{
    sqlite3_stmt *st = db_prepare(db, rule->sql);
    int64_t n = 0;
    int rc;

    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        if (says_ok(st))
            continue;
        if (n++ < EXAMPLES && !quietly)
            show(rule, st);
    }
    if (rc != SQLITE_DONE) {
        fprintf(stderr, "violation: %s: %s\n", rule->name, sqlite3_errmsg(db));
        n++;
    }
    if (n > EXAMPLES && !quietly)
        fprintf(stderr, "violation: %s: %lld in all\n", rule->name,
                (long long)n);
    sqlite3_finalize(st);
    return n;
}

static int64_t total(sqlite3 *db, const char *sql)
{
    return db_number(db, sql, 0);
}

static void check_all(const char *dir, bool quietly, totals *out)
{
    sqlite3 *db = evidence(dir, true);

    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        out->violations += judge_rule(db, &rules[i], quietly);
    out->committed = total(db, "SELECT count(DISTINCT run * 1000000 + number)"
                               " FROM ledger WHERE kind = 'C'");
    out->rolled_back =
        total(db, "SELECT count(*) FROM (SELECT 1 FROM ledger"
                  " GROUP BY run, number HAVING max(kind = 'C') = 0)");
    out->events = total(db, "SELECT count(*) FROM app.business");
    out->deliveries = total(db, "SELECT count(*) FROM seen WHERE kind = 'D'");
    out->refused = total(db, "SELECT count(*) FROM first f JOIN seen s"
                             " ON s.n = f.n WHERE s.kind = 'X'");
    out->duplicates = out->deliveries + out->refused -
                      total(db, "SELECT count(*) FROM first");
    out->effects = total(db, "SELECT count(*) FROM eff.effect");
    sqlite3_close(db);
}

static void check_missing(const char *dir, totals *out)
{
    sqlite3 *db = evidence(dir, false);

    out->missing = total(db, "SELECT (SELECT count(*) FROM missing)"
                             " + (SELECT count(*) FROM no_effect)");
    sqlite3_close(db);
}

void check(const char *dir, int flags, totals *out)
{
    memset(out, 0, sizeof *out);
    if (flags & CHECK_MISSING)
        check_missing(dir, out);
    else
        check_all(dir, flags & CHECK_QUIETLY, out);
}

/* ---- in a process of its own ---- */

bool check_apart(const char *dir, int flags, totals *out)
{
    int pipes[2], status;
    ssize_t got;
    pid_t pid = -1;

    fflush(NULL);
    if (pipe(pipes) == 0)
        pid = fork();
    if (pid < 0)
        die("checker", "no process");
    if (pid == 0) {
        check(dir, flags, out);
        _exit(write(pipes[1], out, sizeof *out) == sizeof *out ? 0 : 2);
    }
    close(pipes[1]);
    got = read(pipes[0], out, sizeof *out);
    close(pipes[0]);
    return waitpid(pid, &status, 0) == pid && status == 0 &&
           got == sizeof *out;
}

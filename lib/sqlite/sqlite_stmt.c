/* SPDX-License-Identifier: MIT
 *
 * sqlite_stmt.c - every statement of the store, how they are prepared and
 * run, and what their errors mean.
 */
#include "sqlite_store.h"

static const char *const sqlite_statements[SQ_COUNT_STMTS] = {
    [SQ_BEGIN] = "BEGIN IMMEDIATE",
    [SQ_BEGIN_READ] = "BEGIN",
    [SQ_COMMIT] = "COMMIT",
    [SQ_ROLLBACK] = "ROLLBACK",
    [SQ_DATA_VERSION] = "PRAGMA main.data_version",
    [SQ_SYNCHRONOUS] = "PRAGMA main.synchronous",
    [SQ_JOURNAL] = "PRAGMA main.journal_mode",
    [SQ_LOCK] = "DELETE FROM main.\"outbox_meta\" WHERE 0",
    [SQ_META] = "SELECT version, lanes FROM main.\"outbox_meta\"",
    [SQ_APPEND] =
        "INSERT INTO main.\"outbox_log\" (id, topic, type, key, content_type,"
        " headers, payload, published_ms, expires_ms)"
        " VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)",
    [SQ_UNAPPEND] = "DELETE FROM main.\"outbox_log\" WHERE position = ?1",
    [SQ_SCHEDULE] =
        "INSERT INTO main.\"outbox_scheduled\" (id, topic, type, key,"
        " content_type, headers, payload, published_ms, expires_ms, due_ms)"
        " VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)",
    [SQ_UNSCHEDULE] =
        "DELETE FROM main.\"outbox_scheduled\" WHERE seq = ?1",
    [SQ_DEDUP] =
        "INSERT INTO main.\"outbox_dedup\" (dedup_key, published_ms)"
        " VALUES (?1,?2) ON CONFLICT DO NOTHING",
    [SQ_UNDEDUP] =
        "DELETE FROM main.\"outbox_dedup\" WHERE dedup_key = ?1",
    [SQ_BACKLOG] =
        "SELECT max(0, coalesce((SELECT max(position)"
        " FROM main.\"outbox_log\"), 0) - max(coalesce((SELECT min(position)"
        " FROM main.\"outbox_lane\"), 0), coalesce((SELECT min(position)"
        " FROM main.\"outbox_log\"), 1) - 1)) +"
        " (SELECT count(*) FROM main.\"outbox_scheduled\")",
    [SQ_ACCEPT] =
        "INSERT INTO main.\"outbox_inbox\" (consumer, id, accepted_ms)"
        " VALUES (?1,?2,?3) ON CONFLICT DO NOTHING",
    [SQ_PRUNE] =
        "DELETE FROM main.\"outbox_inbox\" WHERE accepted_ms < ?1 AND mark IN"
        " (SELECT mark FROM main.\"outbox_inbox\" ORDER BY mark LIMIT ?2)",
    [SQ_FIND_SUB] =
        "SELECT sub, keep_ms, paused, generation"
        " FROM main.\"outbox_subscription\""
        " WHERE name = ?1",
    [SQ_ADD_SUB] =
        "INSERT INTO main.\"outbox_subscription\" (name, keep_ms)"
        " VALUES (?1,?2)",
    [SQ_KEEP_SUB] =
        "UPDATE main.\"outbox_subscription\" SET keep_ms = ?2"
        " WHERE sub = ?1",
    [SQ_ADD_LANE] =
        "INSERT INTO main.\"outbox_lane\" (sub, lane, position, anchor)"
        " VALUES (?1,?2,?3,?4)",
    [SQ_NEWEST] =
        "SELECT position, id FROM main.\"outbox_log\""
        " ORDER BY position DESC LIMIT 1",
    [SQ_BEAT] =
        "INSERT INTO main.\"outbox_relay\" (sub, relay, beat, want)"
        " VALUES (?1,?2,1,?3) ON CONFLICT (sub, relay)"
        " DO UPDATE SET beat = beat + 1, want = ?3",
    [SQ_LANES] =
        "SELECT l.lane, l.owner, l.token, coalesce(r.beat, -1)"
        " FROM main.\"outbox_lane\" l LEFT JOIN main.\"outbox_relay\" r"
        " ON r.sub = l.sub AND r.relay = l.owner"
        " WHERE l.sub = ?1 ORDER BY l.lane",
    [SQ_RELAYS] =
        "SELECT relay, beat, want FROM main.\"outbox_relay\""
        " WHERE sub = ?1 ORDER BY relay LIMIT ?2",
    [SQ_LEAVE] =
        "DELETE FROM main.\"outbox_relay\" WHERE sub = ?1 AND relay = ?2"
        " AND NOT EXISTS (SELECT 1 FROM main.\"outbox_lane\" WHERE sub = ?1"
        " AND owner = ?2)",
    [SQ_TAKE] =
        "UPDATE main.\"outbox_lane\" AS l SET owner = ?3, token = token + 1,"
        " crashes = CASE WHEN owner IS NULL THEN 0 WHEN owner = ?3"
        " THEN crashes ELSE crashes + 1 END"
        " WHERE sub = ?1 AND lane = ?2 AND token = ?4 AND"
        " (owner IS NULL OR owner = ?3 OR NOT EXISTS"
        " (SELECT 1 FROM main.\"outbox_relay\" r WHERE r.sub = ?1"
        " AND r.relay = l.owner AND r.beat <> ?5))",
    [SQ_CURSOR] =
        "SELECT token, position, anchor, crashes, trying IS NOT NULL"
        " FROM main.\"outbox_lane\""
        " WHERE sub = ?1 AND lane = ?2",
    [SQ_ANCHOR] =
        "SELECT 1 FROM main.\"outbox_log\" WHERE position = ?1 AND id = ?2",
    [SQ_REWIND] =
        "UPDATE main.\"outbox_lane\" SET position = 0, anchor = NULL"
        " WHERE sub = ?1 AND lane = ?2",
    [SQ_READ] =
        "SELECT position, id, topic, type, key, content_type, headers,"
        " payload, published_ms, expires_ms FROM main.\"outbox_log\""
        " WHERE position >= ?1 ORDER BY position LIMIT ?2",
    [SQ_SAVE] =
        "UPDATE main.\"outbox_lane\" SET position = ?5, anchor = ?6,"
        " owner = CASE WHEN ?7 THEN NULL ELSE owner END,"
        " crashes = CASE WHEN position <> ?5 OR ?7 THEN 0 ELSE crashes END,"
        " trying = CASE WHEN ?7 OR ?8 THEN NULL ELSE trying END"
        " WHERE sub = ?1 AND lane = ?2 AND owner = ?3 AND token = ?4",
    [SQ_PARK] =
        "INSERT INTO main.\"outbox_parked\" (id, topic, type, key,"
        " content_type, headers, payload, published_ms, expires_ms, sub, lane,"
        " chain, position, attempts, why, delay_ms, seq)"
        " SELECT ?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,"
        " coalesce(max(seq), 4294967296) + 1 FROM main.\"outbox_parked\""
        " WHERE sub = ?10 AND lane = ?11 AND chain = ?12",
    [SQ_AGAIN] =
        "UPDATE main.\"outbox_parked\" SET attempts = ?5, delay_ms = ?6,"
        " why = ?7 WHERE sub = ?1 AND lane = ?2 AND chain = ?3 AND seq = ?4",
    [SQ_UNPARK] =
        "DELETE FROM main.\"outbox_parked\" WHERE sub = ?1 AND lane = ?2"
        " AND chain = ?3 AND seq = ?4",
    [SQ_BURY] =
        "INSERT INTO main.\"outbox_dead\" (id, topic, type, key,"
        " content_type, headers, payload, published_ms, expires_ms, sub, lane,"
        " chain, position, attempts, why, blocks, died_ms) VALUES"
        " (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)",
    [SQ_PARKED] =
        "SELECT position, id, topic, type, key, content_type, headers,"
        " payload, published_ms, expires_ms, seq, attempts, delay_ms"
        " FROM main.\"outbox_parked\""
        " WHERE sub = ?1 AND lane = ?2 AND chain = ?3 ORDER BY seq LIMIT ?4",
    [SQ_BLOCKED] =
        "SELECT chain, min(seq), attempts, delay_ms, 0, NULL"
        " FROM main.\"outbox_parked\" WHERE sub = ?1 AND lane = ?2"
        " GROUP BY chain UNION ALL"
        " SELECT chain, 0, attempts, -1, 0, NULL FROM main.\"outbox_dead\""
        " WHERE sub = ?1 AND lane = ?2 AND blocks = 1 UNION ALL"
        " SELECT 0, 0, 0, -2, position, id FROM (SELECT position, id"
        " FROM main.\"outbox_parked\" WHERE sub = ?1 AND lane = ?2 UNION ALL"
        " SELECT position, id FROM main.\"outbox_dead\""
        " WHERE sub = ?1 AND lane = ?2 UNION ALL"
        " SELECT position, id FROM main.\"outbox_discarded\""
        " WHERE sub = ?1 AND lane = ?2) WHERE position > (SELECT position"
        " FROM main.\"outbox_lane\" WHERE sub = ?1 AND lane = ?2)",
    [SQ_TRIM_ANY] =
        "SELECT 1 FROM (SELECT position, published_ms"
        " FROM main.\"outbox_log\" ORDER BY position LIMIT 1)"
        " WHERE position < (SELECT min(position) FROM main.\"outbox_lane\")"
        " AND published_ms <= ?1 - (SELECT max(keep_ms)"
        " FROM main.\"outbox_subscription\")",
    /* Only the first rows are looked at: with a long history a search for
     * old ones among all would cost more than it frees.  A cursor whose
     * anchor is gone belongs to another log: it says nothing about this. */
    [SQ_TRIM] =
        "DELETE FROM main.\"outbox_log\" WHERE position IN"
        " (SELECT position FROM (SELECT position, published_ms"
        " FROM main.\"outbox_log\" WHERE position <"
        " (SELECT min(position) FROM main.\"outbox_lane\")"
        " ORDER BY position LIMIT ?2) WHERE published_ms <= ?1 -"
        " (SELECT max(keep_ms) FROM main.\"outbox_subscription\"))"
        " AND NOT EXISTS"
        " (SELECT 1 FROM main.\"outbox_lane\" l WHERE l.position > 0 AND NOT"
        " EXISTS (SELECT 1 FROM main.\"outbox_log\" e WHERE"
        " e.position = l.position AND e.id = l.anchor))",
    [SQ_TRIM_DEDUP] =
        "DELETE FROM main.\"outbox_dedup\" WHERE published_ms < ?1 AND mark"
        " IN (SELECT mark FROM main.\"outbox_dedup\" ORDER BY mark LIMIT ?2)",
    [SQ_TRIAL] =
        "UPDATE main.\"outbox_lane\" SET trying = ?5, trier = ?3, starts ="
        " CASE WHEN trying IS NOT ?5 THEN 1 WHEN trier = ?3 THEN starts"
        " ELSE starts + 1 END"
        " WHERE sub = ?1 AND lane = ?2 AND owner = ?3 AND token = ?4"
        " RETURNING starts",
    [SQ_NEXT_DUE] = "SELECT min(due_ms) FROM main.\"outbox_scheduled\"",
    [SQ_PROMOTE] =
        "INSERT INTO main.\"outbox_log\" (id, topic, type, key, content_type,"
        " headers, payload, published_ms, expires_ms)"
        " SELECT id, topic, type, key, content_type, headers, payload,"
        " max(published_ms, due_ms), expires_ms"
        " FROM main.\"outbox_scheduled\""
        " WHERE due_ms <= ?1 ORDER BY due_ms, seq LIMIT ?2",
    [SQ_PROMOTED] =
        "DELETE FROM main.\"outbox_scheduled\" WHERE seq IN"
        " (SELECT seq FROM main.\"outbox_scheduled\" WHERE due_ms <= ?1"
        " ORDER BY due_ms, seq LIMIT ?2)",
    [SQ_SUB_STATE] =
        "SELECT paused, generation FROM main.\"outbox_subscription\""
        " WHERE sub = ?1",
    [SQ_COUNT] =
        "SELECT (SELECT count(*) FROM main.\"outbox_parked\" WHERE sub = ?1),"
        " (SELECT count(*) FROM main.\"outbox_dead\" WHERE sub = ?1),"
        " max(0, coalesce((SELECT max(position) FROM main.\"outbox_log\"), 0)"
        " - max(p, coalesce((SELECT min(position)"
        " FROM main.\"outbox_log\"), 1) - 1)), coalesce((SELECT min(t) FROM"
        " (SELECT t FROM (SELECT published_ms AS t FROM main.\"outbox_log\""
        " WHERE position > p ORDER BY position LIMIT 1) UNION ALL"
        " SELECT min(published_ms) FROM main.\"outbox_parked\""
        " WHERE sub = ?1)), 0),"
        " (SELECT count(*) FROM main.\"outbox_scheduled\"),"
        " (SELECT paused FROM main.\"outbox_subscription\" WHERE sub = ?1),"
        " p <= (SELECT min(position) FROM main.\"outbox_lane\") FROM"
        " (SELECT coalesce(min(position), 0) AS p FROM main.\"outbox_lane\""
        " WHERE sub = ?1)",
};

/* ---- errors --------------------------------------------------------- */

static bool lacks_tables(sqlite3 *db)
{
    const char *text = sqlite3_errmsg(db);

    return strncmp(text, "no such table", 13) == 0 ||
           strncmp(text, "no such column", 14) == 0 ||
           strstr(text, "has no column named") != NULL;
}

static int code_of(ob_sqlite *st, int native)
{
    switch (native & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return OUTBOX_EBUSY;
    case SQLITE_READONLY:
        return OUTBOX_EREADONLY;
    case SQLITE_NOMEM:
        return OUTBOX_ENOMEM;
    case SQLITE_TOOBIG:
        return OUTBOX_EINVAL;
    case SQLITE_ERROR:
        return lacks_tables(st->db) ? OUTBOX_ESCHEMA : OUTBOX_EDB;
    default:
        return OUTBOX_EDB;
    }
}

static const char *remedy(const ob_sqlite *st, int code)
{
    if (code == OUTBOX_ESCHEMA)
        return ": run outbox_migrate()";
    if (code == OUTBOX_EBUSY)
        return sqlite3_get_autocommit(st->db)
                   ? ": try again"
                   : ": roll back and run the transaction again";
    return "";
}

/* The limit is the connection's own: the application may have lowered it. */
static int report(ob_sqlite *st, int native, const char *text,
                  const char *doing, outbox_error *err)
{
    int code = code_of(st, native);

    if ((native & 0xff) == SQLITE_TOOBIG)
        outbox_error_set(err, code, "%s: %s: the connection's "
                         "SQLITE_LIMIT_LENGTH is %d bytes", doing, text,
                         sqlite3_limit(st->db, SQLITE_LIMIT_LENGTH, -1));
    else
        outbox_error_set(err, code, "%s: %s%s", doing, text,
                         remedy(st, code));
    if (err != NULL)
        err->native = native;
    /* After these the connection itself is in doubt; read-only may mean that
     * the file was moved away. */
    if ((code == OUTBOX_EDB && (native & 0xff) != SQLITE_FULL) ||
        code == OUTBOX_EREADONLY)
        st->broken = true;
    return code;
}

int ob_sqlite_error(ob_sqlite *st, const char *doing, outbox_error *err)
{
    return report(st, sqlite3_extended_errcode(st->db),
                  sqlite3_errmsg(st->db), doing, err);
}

/* ---- statements ----------------------------------------------------- */

char *ob_sqlite_expand(const ob_sqlite *st, const char *sql)
{
    char quoted[sizeof st->prefix + 1];

    quoted[0] = '"';
    memcpy(quoted + 1, st->prefix, sizeof st->prefix);
    return ob_text_replace(&st->base.mem, sql, "\"outbox_", quoted);
}

static int prepare(ob_sqlite *st, enum ob_sqlite_stmt which,
                   outbox_error *err)
{
    const outbox_allocator *mem = &st->base.mem;
    char *sql = ob_sqlite_expand(st, sqlite_statements[which]);

    if (sql == NULL)
        return ob_nomem(err);
    int rc = sqlite3_prepare_v3(st->db, sql, -1, SQLITE_PREPARE_PERSISTENT,
                                &st->stmts[which], NULL);
    mem->free(mem->arg, sql);
    return rc == SQLITE_OK ? OUTBOX_OK
                           : ob_sqlite_error(st, "prepare", err);
}

sqlite3_stmt *ob_sqlite_stmt(ob_sqlite *st, enum ob_sqlite_stmt which, int *rc,
                             outbox_error *err)
{
    *rc = OUTBOX_OK;
    if (st->stmts[which] == NULL)
        *rc = prepare(st, which, err);
    return *rc == OUTBOX_OK ? st->stmts[which] : NULL;
}

static int step_to_end(ob_sqlite *st, sqlite3_stmt *stmt, const char *doing,
                       outbox_error *err)
{
    int rc, unbound = st->unbound;

    st->unbound = SQLITE_OK;
    if (unbound != SQLITE_OK)
        return report(st, unbound, sqlite3_errstr(unbound), doing, err);
    do {
        rc = sqlite3_step(stmt);
    } while (rc == SQLITE_ROW);
    return rc == SQLITE_DONE ? OUTBOX_OK : ob_sqlite_error(st, doing, err);
}

int ob_sqlite_run(ob_sqlite *st, sqlite3_stmt *stmt, const char *doing,
                  outbox_error *err)
{
    int out = step_to_end(st, stmt, doing, err);

    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return out;
}

static int run_plain(ob_sqlite *st, enum ob_sqlite_stmt which,
                     const char *doing, outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, which, &rc, err);

    return stmt != NULL ? ob_sqlite_run(st, stmt, doing, err) : rc;
}

int ob_sqlite_begin(ob_sqlite *st, enum ob_sqlite_stmt how,
                    outbox_error *err)
{
    if (!sqlite3_get_autocommit(st->db))
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "a transaction is open on this connection: "
                                "end it first");
    /* What ends it is made ready first: there may be no memory later. */
    int rc;
    if (ob_sqlite_stmt(st, SQ_ROLLBACK, &rc, err) == NULL ||
        ob_sqlite_stmt(st, SQ_COMMIT, &rc, err) == NULL)
        return rc;
    return run_plain(st, how, "begin", err);
}

int ob_sqlite_end(ob_sqlite *st, int rc, outbox_error *err)
{
    if (rc >= 0) {
        int end = run_plain(st, SQ_COMMIT, "commit", err);
        if (end == OUTBOX_OK) {
            st->busy_ms = OB_SQLITE_BUSY_MS;
            return rc;
        }
        rc = end;
    }
    if (!sqlite3_get_autocommit(st->db) &&
        run_plain(st, SQ_ROLLBACK, "rollback", NULL) != OUTBOX_OK) {
        st->broken = true;
        rc = outbox_error_set(err, OUTBOX_EABORTED,
                              "there is no memory even to roll back: do it "
                              "when there is");
    }
    return rc;
}

/* Bytes outlive the statement's run: nothing is copied. */
void ob_sqlite_bind_bytes(ob_sqlite *st, sqlite3_stmt *stmt, int at,
                          const outbox_bytes *b, bool text)
{
    int rc;

    if (b->ptr == NULL)
        rc = sqlite3_bind_null(stmt, at);
    else if (text)
        rc = sqlite3_bind_text64(stmt, at, b->ptr, b->len, SQLITE_STATIC,
                                 SQLITE_UTF8);
    else
        rc = sqlite3_bind_blob64(stmt, at, b->ptr, b->len, SQLITE_STATIC);
    if (rc != SQLITE_OK)
        st->unbound = rc;
}

/* SPDX-License-Identifier: MIT
 *
 * sqlite_publish.c - what runs in the caller's transaction: events in, marks
 * in, and the COMMIT that must be one.
 *
 * Before every write sqlite3_get_autocommit() must say that a transaction is
 * open.  It is not enough that the caller began one: an I/O error, a full
 * disk or ON CONFLICT ROLLBACK ends it behind his back, and the next INSERT
 * would commit alone - an event without its cause.
 *
 * The caller's last_insert_rowid is put back: his INSERT came before ours.
 *
 * Invariants, and the tests that show them:
 *  1. Nothing is written outside of a transaction of the caller
 *     (tests/contract: insert_or_rollback_leaves_no_lone_event,
 *     a_full_disk_leaves_no_lone_event; tests/torture: mutant
 *     no-autocommit-check).
 *  2. After an error none of the rows is in it, and it goes on, or it is said
 *     to be lost (a_row_that_fails_takes_the_others_with_it,
 *     a_row_that_rolls_back_is_said_to,
 *     a_commit_that_is_busy_can_be_tried_again).
 *  3. The first thing asked of the database is a write
 *     (the_first_statement_is_the_insert).
 *  4. A mark is on the disk when inbox_commit() says so
 *     (tests/unit/test_sqlite.c: an_effect_is_on_the_disk).
 */
#include "sqlite_store.h"

static int no_transaction(outbox_error *err)
{
    return outbox_error_set(err, OUTBOX_ENOTX,
                            "no transaction is open: BEGIN first, or an "
                            "error has rolled yours back");
}

static int transaction_check(ob_sqlite *st, outbox_error *err)
{
    if (st->db == NULL || sqlite3_get_autocommit(st->db))
        return no_transaction(err);
    if (sqlite3_db_readonly(st->db, "main") == 1)
        return outbox_error_set(err, OUTBOX_EREADONLY,
                                "the database was opened read-only");
    return OUTBOX_OK;
}

/* A deferred transaction whose first statement reads has a snapshot, and if
 * another connection commits before it writes, nothing helps but to roll
 * back.  So nothing is read here before the write lock is held. */
static int tables_check(ob_sqlite *st, outbox_error *err)
{
    int rc = OUTBOX_OK;

    if (st->checked)
        return rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_LOCK, &rc, err);
    if (stmt != NULL)
        rc = ob_sqlite_run(st, stmt, "lock", err);
    return rc == OUTBOX_OK ? ob_sqlite_check(st, err) : rc;
}

/* The transaction did not survive what we did in it. */
static int if_aborted(ob_sqlite *st, int rc, outbox_error *err)
{
    if (rc >= 0 || !sqlite3_get_autocommit(st->db))
        return rc;
    outbox_error was = *err;
    outbox_error_set(err, OUTBOX_EABORTED, "rolled back by SQLite: %.200s",
                     was.text);
    err->native = was.native;
    return OUTBOX_EABORTED;
}

/* A transaction is open and can write, and the tables are ours. */
static int write_check(ob_sqlite *st, outbox_error *err)
{
    int rc = transaction_check(st, err);

    return rc == OUTBOX_OK ? if_aborted(st, tables_check(st, err), err) : rc;
}

/* ---- events --------------------------------------------------------- */

/* 1: the key is new, and taken.  0: it was published before. */
static int dedup(ob_sqlite *st, const outbox_row *row, outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_DEDUP, &rc, err);

    if (stmt == NULL)
        return rc;
    ob_sqlite_bind_bytes(st, stmt, 1, &row->dedup_key, true);
    sqlite3_bind_int64(stmt, 2, row->published_ms);
    rc = ob_sqlite_run(st, stmt, "publish", err);
    return rc == OUTBOX_OK ? sqlite3_changes(st->db) : rc;
}

static int undedup(ob_sqlite *st, const outbox_row *row, outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_UNDEDUP, &rc, err);

    if (stmt == NULL)
        return rc;
    ob_sqlite_bind_bytes(st, stmt, 1, &row->dedup_key, true);
    return ob_sqlite_run(st, stmt, "take back", err);
}

/* Rows that wait outside the log have a position below zero here, for
 * unappend() to tell them by; left out: zero. */
static int insert(ob_sqlite *st, outbox_row *row, outbox_error *err)
{
    outbox_bytes id = { row->id, 16 };
    bool later = row->due_ms > row->published_ms;
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, later ? SQ_SCHEDULE : SQ_APPEND,
                                        &rc, err);

    if (stmt == NULL)
        return rc;
    ob_sqlite_bind_bytes(st, stmt, 1, &id, false);
    ob_sqlite_bind_bytes(st, stmt, 2, &row->topic, true);
    ob_sqlite_bind_bytes(st, stmt, 3, &row->type, true);
    ob_sqlite_bind_bytes(st, stmt, 4, &row->key, true);
    ob_sqlite_bind_bytes(st, stmt, 5, &row->content_type, true);
    ob_sqlite_bind_bytes(st, stmt, 6, &row->headers, true);
    ob_sqlite_bind_bytes(st, stmt, 7, &row->payload, false);
    sqlite3_bind_int64(stmt, 8, row->published_ms);
    if (row->expires_ms != 0)
        sqlite3_bind_int64(stmt, 9, row->expires_ms);
    if (later)
        sqlite3_bind_int64(stmt, 10, row->due_ms);
    rc = ob_sqlite_run(st, stmt, "publish", err);
    if (rc != OUTBOX_OK)
        return rc;
    int64_t rowid = sqlite3_last_insert_rowid(st->db);
    row->position = later ? -rowid : rowid;
    return OUTBOX_OK;
}

static int append_one(ob_sqlite *st, outbox_row *row, outbox_error *err)
{
    outbox_error again;
    int rc = 1;

    row->position = 0;
    row->published_ms = ob_sqlite_now_ms(&st->base);
    if (row->dedup_key.ptr != NULL)
        rc = dedup(st, row, err);
    if (rc <= 0)
        return rc == 0 ? OUTBOX_DUPLICATE : rc;
    rc = insert(st, row, err);
    if (rc != OUTBOX_OK && row->dedup_key.ptr != NULL &&
        undedup(st, row, &again) != OUTBOX_OK)
        rc = OUTBOX_EABORTED;
    return rc;
}

static int take_back(ob_sqlite *st, const outbox_row *row, outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, row->position > 0 ? SQ_UNAPPEND
                                                              : SQ_UNSCHEDULE,
                                        &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, row->position > 0 ? row->position
                                                  : -row->position);
    rc = ob_sqlite_run(st, stmt, "take back", err);
    if (rc != OUTBOX_OK || row->dedup_key.ptr == NULL)
        return rc;
    return undedup(st, row, err);
}

/* Take back the first n rows of a publish that failed. */
static int unappend(ob_sqlite *st, const outbox_row *rows, size_t n,
                    outbox_error *err)
{
    int rc = OUTBOX_OK;

    for (size_t i = 0; i < n && rc == OUTBOX_OK; i++) {
        if (rows[i].position != 0)
            rc = take_back(st, &rows[i], err);
    }
    return rc;
}

static int commit_now(ob_sqlite *st, outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_COMMIT, &rc, err);

    return stmt == NULL ? rc : ob_sqlite_run(st, stmt, "commit", err);
}

/* What takes rows back is made ready first: there may be no memory later. */
static int prepare_way_back(ob_sqlite *st, const outbox_row *rows, size_t n,
                            int commit, outbox_error *err)
{
    bool undoes = n > 1 || commit || !st->checked;
    int rc = OUTBOX_OK;

    for (size_t i = 0; i < n && rc == OUTBOX_OK; i++) {
        if (rows[i].dedup_key.ptr != NULL)
            ob_sqlite_stmt(st, SQ_UNDEDUP, &rc, err);
        if (rc == OUTBOX_OK && undoes)
            ob_sqlite_stmt(st, rows[i].due_ms > 0 ? SQ_UNSCHEDULE
                                                  : SQ_UNAPPEND, &rc, err);
    }
    if (rc == OUTBOX_OK && undoes && n > 0)
        ob_sqlite_stmt(st, SQ_UNAPPEND, &rc, err);
    return rc;
}

static int synchronous(ob_sqlite *st, int *level, outbox_error *err)
{
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_SYNCHRONOUS, &rc, err);

    if (stmt == NULL)
        return rc;
    if (sqlite3_step(stmt) == SQLITE_ROW)
        *level = sqlite3_column_int(stmt, 0);
    sqlite3_reset(stmt);
    return OUTBOX_OK;
}

/* A COMMIT at synchronous=FULL has synced all that was committed before it, by
 * whomever: positions are given in the order of commits. */
static void durable_note(ob_sqlite *st, const outbox_row *rows, size_t n,
                         int level)
{
    st->base.durable = 0;
    for (size_t i = 0; level >= 2 && i < n; i++) {
        if (rows[i].position > st->base.durable)
            st->base.durable = rows[i].position;
    }
}

int ob_sqlite_append(outbox_store *s, outbox_row *rows, size_t n, int commit,
                     outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    outbox_error again;
    size_t done = 0, left_out = 0;
    int level = 0;
    int rc = transaction_check(st, err);

    if (rc == OUTBOX_OK)
        rc = prepare_way_back(st, rows, n, commit, err);
    if (rc != OUTBOX_OK)
        return rc;
    sqlite3_int64 last = sqlite3_last_insert_rowid(st->db);
    for (; done < n && rc >= 0; done++) {
        rc = append_one(st, &rows[done], err);
        left_out += rc == OUTBOX_DUPLICATE;
    }
    if (rc >= 0)
        rc = ob_sqlite_check(st, err);  /* the write lock is held by now */
    if (rc >= 0 && commit)
        rc = synchronous(st, &level, err);
    if (rc >= 0)
        rc = commit ? commit_now(st, err) : OUTBOX_OK;
    if (rc < 0 && !sqlite3_get_autocommit(st->db) &&
        unappend(st, rows, done, &again) != OUTBOX_OK)
        rc = outbox_error_set(err, OUTBOX_EABORTED,
                              "part of the events could not be taken back: "
                              "%.150s", again.text);
    sqlite3_set_last_insert_rowid(st->db, last);
    durable_note(st, rows, rc == OUTBOX_OK ? n : 0, level);
    if (rc == OUTBOX_OK)
        return left_out > 0 ? OUTBOX_DUPLICATE : OUTBOX_OK;
    return if_aborted(st, rc, err);
}

int ob_sqlite_backlog(outbox_store *s, int64_t *events, outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int rc = write_check(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_BACKLOG, &rc, err);
    if (stmt == NULL)
        return rc;
    if (sqlite3_step(stmt) == SQLITE_ROW)
        *events = sqlite3_column_int64(stmt, 0);
    else
        rc = ob_sqlite_error(st, "count the backlog", err);
    sqlite3_reset(stmt);
    return if_aborted(st, rc, err);
}

/* ---- marks ---------------------------------------------------------- */

int ob_sqlite_accept(outbox_store *s, const char *consumer,
                     const outbox_bytes *id, int is_uuid,
                     outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int rc = write_check(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_ACCEPT, &rc, err);
    if (stmt == NULL)
        return rc;
    sqlite3_int64 last = sqlite3_last_insert_rowid(st->db);
    sqlite3_bind_text(stmt, 1, consumer, -1, SQLITE_STATIC);
    ob_sqlite_bind_bytes(st, stmt, 2, id, !is_uuid);        /* types differ */
    sqlite3_bind_int64(stmt, 3, ob_sqlite_now_ms(s));
    rc = ob_sqlite_run(st, stmt, "accept", err);
    int first = rc == OUTBOX_OK && sqlite3_changes(st->db) == 1;
    sqlite3_set_last_insert_rowid(st->db, last);
    return rc == OUTBOX_OK ? first : if_aborted(st, rc, err);
}

/* An effect that the broker thinks was had must survive a power loss: below
 * synchronous=FULL the WAL is synced here. */
int ob_sqlite_commit(outbox_store *s, outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int level = 0;

    if (sqlite3_get_autocommit(st->db))
        return no_transaction(err);
    int rc = synchronous(st, &level, err);
    if (rc == OUTBOX_OK)
        rc = commit_now(st, err);
    if (rc != OUTBOX_OK)
        return if_aborted(st, rc, err);
    if (level < 2 && ob_sqlite_sync(st, err) != OUTBOX_OK)
        return outbox_error_set(err, OUTBOX_EINDOUBT,
                                "committed, but the file could not be "
                                "synced: a power loss may undo it");
    return OUTBOX_OK;
}

int ob_sqlite_prune(outbox_store *s, int64_t keep_ms, int limit,
                    outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    bool inside = !sqlite3_get_autocommit(st->db);
    int rc = inside ? if_aborted(st, tables_check(st, err), err)
                    : ob_sqlite_check(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_PRUNE, &rc, err);
    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, ob_sqlite_now_ms(s) - keep_ms);
    sqlite3_bind_int(stmt, 2, limit);
    rc = ob_sqlite_run(st, stmt, "prune", err);
    if (rc != OUTBOX_OK)
        return inside ? if_aborted(st, rc, err) : rc;
    return sqlite3_changes(st->db);
}

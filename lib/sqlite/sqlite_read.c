/* SPDX-License-Identifier: MIT
 *
 * sqlite_read.c - the log and the parked rows, for the relay.
 *
 * SQLite has one writer at a time, so positions are given in commit order: a
 * cursor that is a position loses nothing.  A cursor is saved as (position,
 * anchor), the id of the event there.  Trimming deletes below the lowest
 * cursor only, so the row at every cursor exists; when it does not, or has
 * another id, the log is not the one that was read.
 *
 * Invariants, and the tests that show them:
 *  1. The row at every lane's cursor is in the log, unless somebody else
 *     changed it; the newest row is never deleted, so no position comes twice
 *     (tests/contract: trimming_spares_cursors_and_the_newest,
 *     reading_checks_every_anchor; tests/torture: mutants no-anchor and
 *     trim-blind).
 *  2. What a read has given is on the disk when it returns
 *     (tests/unit/test_sqlite.c: what_is_sent_is_on_the_disk).
 *  3. No statement is left running: no read transaction outlives a call.
 */
#include "sqlite_store.h"

static outbox_bytes text_at(sqlite3_stmt *stmt, int column)
{
    outbox_bytes b = { sqlite3_column_text(stmt, column), 0 };

    if (b.ptr != NULL)
        b.len = (size_t)sqlite3_column_bytes(stmt, column);
    return b;
}

/* A row whose id is not 16 bytes was not written by us; its id becomes zero,
 * and it is delivered. */
bool ob_sqlite_row(sqlite3_stmt *stmt, outbox_row *row)
{
    const uint8_t *id = ob_sqlite_blob16(stmt, 1);

    memset(row, 0, sizeof *row);
    row->position = sqlite3_column_int64(stmt, 0);
    if (id != NULL)
        memcpy(row->id, id, 16);
    row->topic = text_at(stmt, 2);
    row->type = text_at(stmt, 3);
    row->key = text_at(stmt, 4);
    row->content_type = text_at(stmt, 5);
    row->headers = text_at(stmt, 6);
    row->payload.ptr = sqlite3_column_blob(stmt, 7);
    row->payload.len = (size_t)sqlite3_column_bytes(stmt, 7);
    row->published_ms = sqlite3_column_int64(stmt, 8);
    row->expires_ms = sqlite3_column_int64(stmt, 9);
    return sqlite3_errcode(sqlite3_db_handle(stmt)) != SQLITE_NOMEM;
}

static const outbox_cursor *lowest(const outbox_lane *lanes, uint32_t n)
{
    const outbox_cursor *low = &lanes[0].cursor;

    for (uint32_t i = 1; i < n; i++) {
        if (lanes[i].cursor.position < low->position)
            low = &lanes[i].cursor;
    }
    return low;
}

static bool uneven(const outbox_lane *lanes, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        if (lanes[i].cursor.position != lanes[0].cursor.position)
            return true;
    }
    return false;
}

typedef struct log_scan {
    ob_sqlite         *st;
    sqlite3_stmt      *stmt;
    const outbox_lane *lanes;
    uint32_t           n;
    bool               uneven;  /* cursors differ: more anchors on the way */
    outbox_cursor      at;
} log_scan;

static int anchor_lost(int64_t position, outbox_error *err)
{
    return outbox_error_set(err, OUTBOX_ESTALE,
                            "the event at position %lld is not the one that "
                            "was read there: the log was emptied or restored",
                            (long long)position);
}

/* The first row must be the one where the last read ended. */
static int anchor_first(const log_scan *scan, outbox_error *err)
{
    const outbox_cursor *from = &scan->at;

    if (from->position == 0)
        return OUTBOX_OK;
    int step = sqlite3_step(scan->stmt);
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        return ob_sqlite_error(scan->st, "read the log", err);
    const uint8_t *id = step == SQLITE_ROW ? ob_sqlite_blob16(scan->stmt, 1)
                                           : NULL;
    if (id != NULL && memcmp(id, from->id, 16) == 0 &&
        sqlite3_column_int64(scan->stmt, 0) == from->position)
        return OUTBOX_OK;
    return anchor_lost(from->position, err);
}

/* Between the last row and this one, or the end (NULL), no lane may have its
 * cursor; at this one only with this id. */
static int anchors_between(const log_scan *scan, const outbox_row *row,
                           outbox_error *err)
{
    for (uint32_t i = 0; i < scan->n; i++) {
        const outbox_cursor *c = &scan->lanes[i].cursor;
        if (c->position <= scan->at.position ||
            (row != NULL && c->position > row->position))
            continue;
        if (row == NULL || c->position < row->position ||
            memcmp(c->id, row->id, 16) != 0)
            return anchor_lost(c->position, err);
    }
    return OUTBOX_OK;
}

static int rows_read(log_scan *scan, int limit, outbox_sink *sink, void *arg,
                     outbox_error *err)
{
    outbox_row row;
    int n = 0, rc = OUTBOX_OK, step = SQLITE_ROW;

    while (n < limit && (step = sqlite3_step(scan->stmt)) == SQLITE_ROW) {
        if (!ob_sqlite_row(scan->stmt, &row))
            rc = ob_sqlite_error(scan->st, "read the log", err);
        else if (scan->uneven)
            rc = anchors_between(scan, &row, err);
        if (rc != OUTBOX_OK)
            return rc;
        n++;
        if (sink(arg, &row) != 0)
            return n;
        scan->at.position = row.position;
        memcpy(scan->at.id, row.id, 16);
    }
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        return ob_sqlite_error(scan->st, "read the log", err);
    if (step == SQLITE_DONE && scan->uneven)
        rc = anchors_between(scan, NULL, err);
    return rc == OUTBOX_OK ? n : rc;
}

/* Nothing new by others since the last time: it is synced already. */
static int make_durable(ob_sqlite *st, int64_t version, int64_t position,
                        int rows, outbox_error *err)
{
    if (rows == 0 || (version >= 0 && version == st->synced_version) ||
        position <= st->base.durable)
        return rows;
    int rc = ob_sqlite_sync(st, err);
    if (rc != OUTBOX_OK)
        return rc;
    st->synced_version = version;
    return rows;
}

int ob_sqlite_read(outbox_store *s, int64_t sub, outbox_lane *lanes,
                   uint32_t n, int limit, outbox_sink *sink, void *arg,
                   outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    log_scan scan = { .st = st, .lanes = lanes, .n = n };
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_READ, &rc, err);

    (void)sub;
    if (stmt == NULL)
        return rc;
    scan.stmt = stmt;
    scan.at = *lowest(lanes, n);
    scan.uneven = uneven(lanes, n);
    sqlite3_bind_int64(stmt, 1, scan.at.position > 0 ? scan.at.position
                                                     : INT64_MIN);
    sqlite3_bind_int(stmt, 2, limit + 1);
    rc = anchor_first(&scan, err);
    if (rc == OUTBOX_OK)
        rc = rows_read(&scan, limit, sink, arg, err);
    int64_t version = rc > 0 ? ob_sqlite_data_version(st) : 0;
    sqlite3_reset(stmt);
    if (rc > 0)
        rc = make_durable(st, version, scan.at.position, rc, err);
    for (uint32_t i = 0; i < n && rc > 0; i++) {
        if (lanes[i].cursor.position < scan.at.position)
            lanes[i].cursor = scan.at;
    }
    return rc;
}

static int parked_rows(ob_sqlite *st, sqlite3_stmt *stmt, uint64_t chain,
                       outbox_sink *sink, void *arg, outbox_error *err)
{
    outbox_row row;
    int n = 0, step;

    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        if (!ob_sqlite_row(stmt, &row))
            break;
        row.chain = chain;
        row.lane = (uint32_t)(chain % st->lanes);
        row.seq = sqlite3_column_int64(stmt, 10);
        row.attempts = (uint32_t)sqlite3_column_int64(stmt, 11);
        row.delay_ms = sqlite3_column_int64(stmt, 12);
        if (sink(arg, &row) != 0)
            return n;
        n++;
    }
    return step == SQLITE_DONE ? n
                               : ob_sqlite_error(st, "read parked", err);
}

int ob_sqlite_parked(outbox_store *s, int64_t sub, uint64_t chain, int limit,
                     outbox_sink *sink, void *arg, outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_PARKED, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub);
    sqlite3_bind_int64(stmt, 2, (int64_t)(chain % st->lanes));
    sqlite3_bind_int64(stmt, 3, (int64_t)chain);
    sqlite3_bind_int(stmt, 4, limit);
    rc = parked_rows(st, stmt, chain, sink, arg, err);
    sqlite3_reset(stmt);
    return rc;
}

int ob_sqlite_blocked(outbox_store *s, int64_t sub, uint32_t lane,
                      outbox_sink *sink, void *arg, outbox_error *err)
{
    ob_sqlite *st = (ob_sqlite *)s;
    static const uint8_t nobody[16];
    outbox_row row = { .lane = lane };
    int rc, step;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_BLOCKED, &rc, err);

    if (stmt == NULL)
        return rc;
    sqlite3_bind_int64(stmt, 1, sub);
    sqlite3_bind_int64(stmt, 2, lane);
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        row.chain = (uint64_t)sqlite3_column_int64(stmt, 0);
        row.seq = sqlite3_column_int64(stmt, 1);
        row.attempts = (uint32_t)sqlite3_column_int64(stmt, 2);
        row.delay_ms = sqlite3_column_int64(stmt, 3);
        row.position = sqlite3_column_int64(stmt, 4);
        const uint8_t *id = ob_sqlite_blob16(stmt, 5);
        memcpy(row.id, id != NULL ? id : nobody, sizeof row.id);
        if (sink(arg, &row) != 0)
            break;
    }
    if (step != SQLITE_DONE && step != SQLITE_ROW)
        rc = ob_sqlite_error(st, "read blocked chains", err);
    sqlite3_reset(stmt);
    return rc;
}

/* SPDX-License-Identifier: MIT
 *
 * pg_read.c - the log and the parked rows, for the relay.
 *
 * All lanes are read together, from the lowest cursor on; what a lane has
 * behind it already is passed over by the caller.
 */
#include "pg_window.h"

/* The columns of PG_COLUMNS, from col on, but for position. */
static void event_of(const PGresult *res, int i, int col, outbox_row *row)
{
    memset(row, 0, sizeof *row);
    ob_pg_get_uuid(res, i, col + 1, row->id);
    row->topic = ob_pg_get_bytes(res, i, col + 2);
    row->type = ob_pg_get_bytes(res, i, col + 3);
    row->key = ob_pg_get_bytes(res, i, col + 4);
    row->content_type = ob_pg_get_bytes(res, i, col + 5);
    row->headers = ob_pg_get_bytes(res, i, col + 6);
    row->payload = ob_pg_get_bytes(res, i, col + 7);
    row->published_ms = ob_pg_get_int8(res, i, col + 8);
    row->expires_ms = ob_pg_get_int8(res, i, col + 9);
}

void ob_pg_row(const PGresult *res, int i, outbox_row *row)
{
    event_of(res, i, 1, row);
    row->window = ob_pg_get_int8(res, i, 0);
    row->position = ob_pg_get_int8(res, i, 1);
    row->lane = (uint32_t)ob_pg_get_int(res, i, 11);
}

/* ---- the log -------------------------------------------------------- */

static bool behind(const outbox_cursor *a, const outbox_cursor *b)
{
    return a->window < b->window ||
           (a->window == b->window && a->position < b->position);
}

/* Where to read: a lane that has read nothing begins at the oldest window,
 * or what is left of it. */
static outbox_cursor read_from(const ob_pg_windows *w, const outbox_lane *lanes,
                            uint32_t n)
{
    outbox_cursor low = lanes[0].cursor;

    for (uint32_t i = 1; i < n; i++) {
        if (behind(&lanes[i].cursor, &low))
            low = lanes[i].cursor;
    }
    if (low.window <= w->low)
        low = (outbox_cursor){ .window = w->low + 1 };
    return low;
}

/* Rows of the chunk to the sink: how many it took. */
static int hand_out(ob_pg_windows *w, int most, outbox_sink *sink, void *arg,
                    outbox_cursor *at, bool *stopped)
{
    outbox_row row;
    int n = 0;

    for (; n < most && w->at < w->rows; w->at++, n++) {
        event_of(w->res, w->place[w->at].row, 0, &row);
        row.window = w->place[w->at].window;
        row.position = w->place[w->at].position;
        *stopped = sink(arg, &row) != 0;
        if (*stopped)
            return n + 1;
        at->window = row.window;
        at->position = row.position;
    }
    if (w->at == w->rows)
        *at = w->end;
    return n;
}

static void cursors_move(outbox_lane *lanes, uint32_t n,
                         const outbox_cursor *at)
{
    for (uint32_t i = 0; i < n; i++) {
        if (behind(&lanes[i].cursor, at))
            lanes[i].cursor = *at;
    }
}

/* What was taken stays taken when a later chunk fails: it is given back as an
 * error, and all of it is read again. */
int ob_pg_read(outbox_store *s, int64_t sub, outbox_lane *lanes, uint32_t n,
               int limit, outbox_sink *sink, void *arg, outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    bool stopped = false, newest = false;
    int given = 0, rc = st->ahead ? OUTBOX_OK : ob_pg_alone(st, err);

    (void)sub;
    if (rc == OUTBOX_OK && (st->windows == NULL || !st->windows->looked))
        rc = ob_pg_windows_look(st, err);
    if (rc < 0)
        return rc;
    ob_pg_windows *w = st->windows;
    if (st->ahead)
        PQconsumeInput(st->conn);       /* make room for more */
    outbox_cursor at = read_from(w, lanes, n);
    while (given < limit && !stopped && !newest) {
        rc = ob_pg_chunk(st, &at, lanes, n, err);
        if (rc <= 0)
            break;
        given += hand_out(w, limit - given, sink, arg, &at, &stopped);
        newest = w->newest && w->at == w->rows &&
                 w->end.position == 0;
        cursors_move(lanes, n, &at);
        if (w->at == w->rows)
            ob_pg_chunk_drop(w);
    }
    st->found = given > 0;
    return rc < 0 ? rc : given;
}

/* ---- parked rows ---------------------------------------------------- */

int ob_pg_parked(outbox_store *s, int64_t sub, uint64_t chain, int limit,
                 outbox_sink *sink, void *arg, outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    ob_pg_params p = { 0 };
    outbox_row row;
    int n = 0, rc = ob_pg_check(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    ob_pg_int8(&p, sub);
    ob_pg_int2(&p, (int)(chain % st->lanes));
    ob_pg_int8(&p, (int64_t)chain);
    ob_pg_int4(&p, limit);
    PGresult *res = ob_pg_run(st, PG_PARKED, &p, "read parked", &rc, err);
    if (res == NULL)
        return rc;
    for (; n < PQntuples(res); n++) {
        ob_pg_row(res, n, &row);
        row.chain = chain;
        row.seq = ob_pg_get_int8(res, n, 12);
        row.attempts = (uint32_t)ob_pg_get_int(res, n, 13);
        row.delay_ms = ob_pg_get_int8(res, n, 14);
        if (sink(arg, &row) != 0)
            break;
    }
    PQclear(res);
    return n;
}

int ob_pg_blocked(outbox_store *s, int64_t sub, uint32_t lane,
                  outbox_sink *sink, void *arg, outbox_error *err)
{
    ob_pg_params p = { 0 };
    outbox_row row = { .lane = lane };
    int rc;

    ob_pg_int8(&p, sub);
    ob_pg_int2(&p, (int)lane);
    PGresult *res = ob_pg_run((ob_pg *)s, PG_BLOCKED, &p,
                              "read blocked chains", &rc, err);
    for (int i = 0; res != NULL && i < PQntuples(res); i++) {
        row.chain = (uint64_t)ob_pg_get_int8(res, i, 0);
        row.seq = ob_pg_get_int8(res, i, 1);
        row.attempts = (uint32_t)ob_pg_get_int(res, i, 2);
        row.delay_ms = ob_pg_get_int8(res, i, 3);
        row.position = ob_pg_get_int8(res, i, 4);
        ob_pg_get_uuid(res, i, 5, row.id);
        if (sink(arg, &row) != 0)
            break;
    }
    PQclear(res);
    return rc;
}

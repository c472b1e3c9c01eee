/* SPDX-License-Identifier: MIT
 *
 * pg_window.c - cutting the log into windows, and fetching their rows.
 *
 * Positions are given at the INSERT, and commits come in another order: a
 * cursor that is a position would pass events that are not visible yet.  So
 * the log is cut into windows by snapshots: window n holds what is visible
 * in its hi and not in that of window n - 1, which is the same set whenever
 * and by whomever it is read.
 *
 * Invariants (tests/pg: order and its mutants):
 *  1. hi grows: a window is cut by a statement that sees the newest one, so
 *     its snapshot is newer than that one's; n is unique, so of two relays
 *     that cut at once one has cut, and the other reads what it did.
 *  2. hi is taken in a transaction that has no number yet: its own number is
 *     in no window.  A snapshot that a publisher took on the way (a tick)
 *     counts its own transaction as running.
 *  3. Snapshots of one server are ordered by the number of transactions that
 *     have ended in them; a tick that is not newer than the newest window is
 *     passed over.
 *  4. A window is visible only when its events are durable: it is committed
 *     without waiting only if nothing was left to be flushed.
 *  5. Windows are removed from the old end, and never above a cursor's.
 *
 * Rows are fetched in chunks of some MB, and handed out from there.  A chunk
 * belongs to a connection and a cursor: with the connection it is forgotten.
 */
#include "pg_window.h"

#include <stdlib.h>
#include <time.h>

enum { CHUNK_BYTES = 16 << 20, FIRST_ROWS = 1024,
       SPAN_MOST = 256, SLOW_US = 10000, SLOW_TIMES = 5,
       AHEAD_US = 100000, LARGE_ROWS = 64,
       GATHER_US = 50, GATHER_TIMES = 100 };

static bool before(const outbox_cursor *a, const outbox_cursor *b)
{
    if (a->window != b->window)
        return a->window < b->window;
    return a->position < b->position;
}

void ob_pg_chunk_drop(ob_pg_windows *w)
{
    PQclear(w->res);
    w->res = NULL;
    w->rows = w->at = 0;
}

void ob_pg_windows_forget(ob_pg *st)
{
    if (st->windows == NULL)
        return;
    ob_pg_chunk_drop(st->windows);
    PQclear(st->windows->ahead);
    st->base.mem.free(st->base.mem.arg, st->windows);
    st->windows = NULL;
}

/* ---- which there are ------------------------------------------------ */

static int windows_make(ob_pg *st, outbox_error *err)
{
    const outbox_allocator *mem = &st->base.mem;

    if (st->windows != NULL)
        return OUTBOX_OK;
    st->windows = mem->malloc(mem->arg, sizeof *st->windows);
    if (st->windows == NULL)
        return ob_nomem(err);
    memset(st->windows, 0, sizeof *st->windows);
    st->windows->limit = FIRST_ROWS;
    st->windows->span = 1;
    return OUTBOX_OK;
}

int ob_pg_windows_look(ob_pg *st, outbox_error *err)
{
    int rc = windows_make(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    PGresult *res = ob_pg_run(st, PG_WINDOWS, NULL, "look for windows", &rc,
                              err);
    if (res == NULL)
        return rc;
    ob_pg_windows *w = st->windows;
    w->low = ob_pg_get_int8(res, 0, 0);
    w->head = ob_pg_get_int8(res, 0, 1);
    w->tick = ob_pg_get_int8(res, 0, 2);
    PQclear(res);
    w->looked = true;
    ob_pg_chunk_drop(w);
    if (w->head < 0)
        return outbox_error_set(err, OUTBOX_ESCHEMA,
                                "there is no window: run outbox_migrate()");
    return OUTBOX_OK;
}

bool ob_pg_windows_have(const ob_pg *st, const outbox_cursor *at)
{
    const ob_pg_windows *w = st->windows;

    return at->window == 0 ||
           (at->window > w->low - (at->position == INT64_MAX) &&
            at->window <= w->head + 1);
}

int64_t ob_pg_windows_head(const ob_pg *st)
{
    return st->windows->head;
}

static int log_changed(ob_pg_windows *w, outbox_error *err)
{
    w->looked = false;
    return outbox_error_set(err, OUTBOX_ESTALE,
                            "the newest window is older than the one that "
                            "was read: the log was emptied or restored");
}

/* ---- cutting -------------------------------------------------------- */

static int cut_by_ticks(ob_pg *st, outbox_error *err)
{
    ob_pg_windows *w = st->windows;
    ob_pg_params p = { 0 };
    int rc;

    ob_pg_int8(&p, w->tick);
    PGresult *res = ob_pg_run(st, PG_TICKS, &p, "cut windows", &rc, err);
    if (res == NULL)
        return rc;
    int64_t tick = ob_pg_get_int8(res, 0, 0);
    int64_t wanted = ob_pg_get_int8(res, 0, 1);
    bool won = ob_pg_get_int8(res, 0, 2) > 0;
    int64_t head = PQgetisnull(res, 0, 3) ? -1 : ob_pg_get_int8(res, 0, 3);
    PQclear(res);
    if (head < w->head)
        return log_changed(w, err);
    w->head = head;
    if (wanted == 0 || won)
        w->tick = tick;
    if (won)
        w->head += wanted;
    return OUTBOX_OK;
}

/* What a cut's result says besides the rows. */
static int cut_told(ob_pg_windows *w, const PGresult *res, bool *again,
                    outbox_error *err)
{
    enum { C_WINDOW = OB_PG_COL_WINDOW, C_HEAD, C_TICK, C_TICKS, C_RIVAL,
           C_MANY };

    int64_t head = PQntuples(res) > 0 ? ob_pg_get_int8(res, 0, C_HEAD) : -1;
    if (head < w->head)
        return log_changed(w, err);
    int64_t tick = ob_pg_get_int8(res, 0, C_TICK);
    *again = head > w->head || ob_pg_get_bool(res, 0, C_TICKS) ||
             ob_pg_get_bool(res, 0, C_RIVAL);
    w->ticks = ob_pg_get_bool(res, 0, C_TICKS);
    w->head = head;
    if (tick > w->tick)
        w->tick = tick;
    w->many = ob_pg_get_bool(res, 0, C_MANY);
    w->cut = !PQgetisnull(res, 0, C_WINDOW);
    w->head += w->cut;
    return OUTBOX_OK;
}

/* The newest events: cut a window and have its rows, in one go.  Without an
 * event there is none; but when it took long again and again to find that
 * out, for there are many rows of a transaction that is running or was rolled
 * back, an empty one lets the next look begin behind them. */
static PGresult *cut(ob_pg *st, uint64_t lanes, bool *again, int *rc,
                     outbox_error *err)
{
    ob_pg_windows *w = st->windows;
    ob_pg_params p = { 0 };
    int64_t start_us = outbox_monotonic_us();

    ob_pg_int8(&p, w->head);
    ob_pg_int8(&p, w->tick);
    ob_pg_int8(&p, (int64_t)lanes);
    ob_pg_int8(&p, w->limit + 1);
    ob_pg_bool(&p, w->slow >= SLOW_TIMES);
    PGresult *res = ob_pg_run(st, PG_CUT, &p, "cut a window", rc, err);
    if (res == NULL)
        return NULL;
    *rc = cut_told(w, res, again, err);
    if (w->cut || *again || outbox_monotonic_us() - start_us < SLOW_US)
        w->slow = 0;
    else
        w->slow++;
    if (*rc == OUTBOX_OK)
        return res;
    PQclear(res);
    return NULL;
}

/* ---- chunks --------------------------------------------------------- */

static uint64_t lanes_before(const outbox_lane *lanes, uint32_t n,
                             int64_t window)
{
    uint64_t bits = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (lanes[i].cursor.window <= window)
            bits |= UINT64_C(1) << lanes[i].lane;
    }
    return bits;
}

/* How much to ask for the next time: rows for some MB, */
static void pace(ob_pg_windows *w, const PGresult *res)
{
    size_t bytes = PQresultMemorySize(res), rows = (size_t)PQntuples(res);
    int64_t most = w->large ? LARGE_ROWS : OB_PG_CHUNK_ROWS;
    int64_t fit = rows > 0 ? (int64_t)(CHUNK_BYTES / (bytes / rows + 1))
                           : w->limit;

    if (fit > w->limit * 8)
        fit = w->limit * 8;
    if (fit > most)
        fit = most;
    w->limit = fit < 1 ? 1 : fit;
}

/* and as many windows as fill that. */
static void widen(ob_pg_windows *w, int64_t windows)
{
    if (w->rows * 3 < w->limit && w->span == windows && w->span < SPAN_MOST)
        w->span *= 2;
}

/* A long payload that was left out: fewer rows are asked for. */
static bool left_out(ob_pg_windows *w, const PGresult *res, int rows)
{
    int i = 0;

    while (i < rows && !PQgetisnull(res, i, OB_PG_COL_PAYLOAD))
        i++;
    if (i == rows)
        return false;
    w->large = true;
    w->span = 1;
    w->limit = LARGE_ROWS / 4;
    return true;
}

static int place_compare(const void *a, const void *b)
{
    const ob_pg_place *x = a, *y = b;

    if (x->window != y->window)
        return x->window < y->window ? -1 : 1;
    return x->position < y->position ? -1 : x->position > y->position;
}

/* Rows come in the order of transactions, which is nearly ours; those of a
 * single window do not say which it is. */
static void places_set(ob_pg_windows *w)
{
    bool in_order = true, many = PQnfields(w->res) > OB_PG_COL_WINDOW;

    for (int i = 0; i < w->rows; i++) {
        ob_pg_place *at = &w->place[i];
        at->window = many ? ob_pg_get_int8(w->res, i, OB_PG_COL_WINDOW)
                          : w->from.window;
        at->position = ob_pg_get_int8(w->res, i, 0);
        at->row = i;
        in_order = in_order && (i == 0 || place_compare(at - 1, at) < 0);
    }
    if (!in_order)
        qsort(w->place, (size_t)w->rows, sizeof *w->place, place_compare);
    w->placed = true;
}

/* The rows are those of lanes from the cursor to the end of window last. */
static void chunk_set(ob_pg_windows *w, PGresult *res, int rows,
                      const outbox_cursor *from, int64_t last,
                      uint64_t lanes)
{
    ob_pg_chunk_drop(w);
    w->res = res;
    w->rows = rows;
    w->placed = false;
    w->from = *from;
    w->lanes = lanes;
    w->end = (outbox_cursor){ .window = last + 1 };
}

/* Part of a window: a slice says how many positions it spans, and none is
 * empty but the last; else there are all rows up to the last one. */
static void chunk_cut_short(ob_pg_windows *w, const ob_pg_ask *ask)
{
    bool slice = ask->how != PG_READ_SOME;

    places_set(w);
    if (w->rows == 0 || (!slice && w->rows < ask->limit)) {
        w->sliced = w->large = false;
        return;
    }
    w->end.window = ask->last;
    w->end.position = slice ? w->place[0].position + ask->limit - 1
                            : w->place[w->rows - 1].position;
}

static enum ob_pg_stmt reads(const ob_pg_windows *w, const ob_pg_ask *ask,
                             bool all_lanes)
{
    if (ask->last > ask->from.window)
        return PG_READ_MANY;
    if (w->sliced)
        return w->large ? PG_READ_LARGE : PG_READ_SLICE;
    if (w->large)
        return PG_READ_SOME;
    return all_lanes ? PG_READ : PG_READ_LANES;
}

static bool reads_all(const ob_pg_ask *ask)
{
    return ask->how == PG_READ || ask->how == PG_READ_LANES ||
           ask->how == PG_READ_MANY;
}

/* Windows that fit are fetched whole, and put in order here: that costs the
 * server half of the work.  When they do not, fewer of them are tried, and
 * one that is too long is read in slices. */
static void ask_for(const ob_pg *st, const outbox_cursor *from,
                    const outbox_lane *lanes, uint32_t n, ob_pg_ask *ask,
                    ob_pg_params *p)
{
    const ob_pg_windows *w = st->windows;
    bool part = w->sliced || w->large;
    int64_t last = from->window + (part ? 1 : w->span) - 1;

    memset(ask, 0, sizeof *ask);
    ask->from.window = from->window;
    ask->from.position = from->position;
    ask->last = last < w->head ? last : w->head;
    ask->lanes = lanes_before(lanes, n, ask->last);
    ask->limit = w->limit;
    bool all = ask->lanes == UINT64_MAX >> (64 - st->lanes);
    ask->how = reads(w, ask, all);
    ob_pg_int8(p, ask->from.window);
    ob_pg_int8(p, ask->from.position);
    ob_pg_int8(p, ask->limit + reads_all(ask));
    if (ask->how != PG_READ)
        ob_pg_int8(p, all ? -1 : (int64_t)ask->lanes);
    if (ask->how == PG_READ_MANY)
        ob_pg_int8(p, ask->last);
}

/* More rows than were asked for: fewer windows next time, and of one that is
 * too long, slices. */
static void too_many(ob_pg_windows *w, const PGresult *res,
                     const ob_pg_ask *ask)
{
    pace(w, res);
    w->sliced = ask->last == ask->from.window;
    w->span = w->span > 1 ? w->span / 2 : 1;
}

static void got(ob_pg_windows *w, PGresult *res, const ob_pg_ask *ask)
{
    int rows = PQntuples(res);
    bool whole = ask->how == PG_READ_SOME || ask->how == PG_READ_LARGE;

    w->newest = false;
    if (rows > ask->limit)
        too_many(w, res, ask);
    if (rows > ask->limit || (!whole && left_out(w, res, rows))) {
        PQclear(res);
        return;
    }
    chunk_set(w, res, rows, &ask->from, ask->last, ask->lanes);
    if (reads_all(ask))
        widen(w, ask->last - ask->from.window + 1);
    else
        chunk_cut_short(w, ask);
    pace(w, res);
}

static int chunk_read(ob_pg *st, const outbox_cursor *from,
                      const outbox_lane *lanes, uint32_t n,
                      outbox_error *err)
{
    ob_pg_windows *w = st->windows;
    ob_pg_params p = { 0 };
    ob_pg_ask ask;
    int rc = OUTBOX_OK;

    ask_for(st, from, lanes, n, &ask, &p);
    if (st->ahead)
        ob_pg_windows_collect(st);
    PGresult *res = w->ahead;
    w->ahead = NULL;
    if (res == NULL || memcmp(&ask, &w->next, sizeof ask) != 0) {
        PQclear(res);
        res = ob_pg_run(st, ask.how, &p, "read the log", &rc, err);
    }
    if (res != NULL)
        got(w, res, &ask);
    return rc;
}

/* ---- ahead of time -------------------------------------------------------
 *
 * While a chunk is delivered the server finds the next one and sends it.  Not
 * for a destination that is slow, for the statement that sends is open. */

/* A server wakes whoever waits for each 8 kB that it sends, which costs it more
 * than to send them: so wait a little each time, and take what has come. */
static void rows_gather(ob_pg *st)
{
    struct timespec rest = { 0, GATHER_US * 1000 };

    for (int i = 0; i < GATHER_TIMES && PQisBusy(st->conn); i++) {
        nanosleep(&rest, NULL);
        if (!PQconsumeInput(st->conn))
            break;
    }
}

void ob_pg_windows_collect(ob_pg *st)
{
    ob_pg_windows *w = st->windows;
    outbox_error err;
    int rc;

    PQclear(w->ahead);
    rows_gather(st);
    w->ahead = ob_pg_receive(st, "read the log", &rc, &err);
}

static void chunk_ahead(ob_pg *st, const outbox_lane *lanes, uint32_t n)
{
    ob_pg_windows *w = st->windows;
    int64_t now_us = outbox_monotonic_us();
    bool fast = now_us - w->read_us < AHEAD_US;
    ob_pg_params p = { 0 };
    outbox_error err;

    w->read_us = now_us;
    if (!fast || !st->own || st->pooled || w->end.window > w->head)
        return;
    ask_for(st, &w->end, lanes, n, &w->next, &p);
    ob_pg_send(st, w->next.how, &p, "read the log", &err);
}

/* 1: there is a chunk, 0: there is nothing new. */
static int chunk_cut(ob_pg *st, const outbox_cursor *from,
                     const outbox_lane *lanes, uint32_t n, bool *again,
                     outbox_error *err)
{
    ob_pg_windows *w = st->windows;
    uint64_t bits = lanes_before(lanes, n, INT64_MAX);
    int rc;
    PGresult *res = cut(st, bits, again, &rc, err);

    if (res == NULL)
        return rc;
    if (!w->cut) {
        PQclear(res);
        return *again && w->ticks ? cut_by_ticks(st, err) : OUTBOX_OK;
    }
    int rows = PQgetisnull(res, 0, 0) ? 0 : PQntuples(res);
    if (w->many || left_out(w, res, rows)) {
        PQclear(res);                   /* too many: read it in parts */
        *again = true;
        return OUTBOX_OK;
    }
    chunk_set(w, res, rows, from, w->head, bits);
    widen(w, 1);
    pace(w, res);
    w->newest = true;
    return 1;
}

static bool chunk_has(const ob_pg_windows *w, const outbox_cursor *from,
                      const outbox_lane *lanes, uint32_t n)
{
    return w->res != NULL && !before(from, &w->from) &&
           before(from, &w->end) &&
           (lanes_before(lanes, n, w->end.window - (w->end.position == 0)) &
            ~w->lanes) == 0;
}

/* The first row behind the cursor: mostly the one that comes next. */
static void chunk_seek(ob_pg_windows *w, const outbox_cursor *from)
{
    ob_pg_place at = { from->window, from->position, 0 };
    int low = 0, high = w->rows;

    while (low < high) {
        int mid = low + (high - low) / 2;
        if (place_compare(&at, &w->place[mid]) < 0)
            high = mid;
        else
            low = mid + 1;
    }
    w->at = low;
}

int ob_pg_chunk(ob_pg *st, outbox_cursor *from, const outbox_lane *lanes,
                uint32_t n, outbox_error *err)
{
    ob_pg_windows *w = st->windows;
    bool again = true;
    int rc = OUTBOX_OK;

    bool had = chunk_has(w, from, lanes, n);
    if (!had)
        ob_pg_chunk_drop(w);
    while (w->res == NULL && rc == OUTBOX_OK && again) {
        again = false;
        if (from->window > w->head + 1)
            return log_changed(w, err);
        if (from->window <= w->head) {
            rc = chunk_read(st, from, lanes, n, err);
            again = true;               /* perhaps with fewer windows */
        } else {
            rc = chunk_cut(st, from, lanes, n, &again, err);
        }
    }
    if (rc < 0 || w->res == NULL)
        return rc;
    if (!had)
        chunk_ahead(st, lanes, n);      /* the server goes on at once */
    if (!w->placed)
        places_set(w);
    chunk_seek(w, from);
    return 1;
}

/* ---- for a subscription that begins now ----------------------------- */

int ob_pg_window_cut(ob_pg *st, outbox_error *err)
{
    int rc = ob_pg_windows_look(st, err);
    bool again = true;

    while (rc == OUTBOX_OK && again) {
        PQclear(cut(st, 0, &again, &rc, err));
        if (rc == OUTBOX_OK && again && st->windows->ticks)
            rc = cut_by_ticks(st, err);
    }
    return rc;
}

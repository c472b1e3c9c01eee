/* SPDX-License-Identifier: MIT
 *
 * pg_window.h - what a connection knows of the windows, and the rows that it
 * has fetched and not handed out yet.
 */
#ifndef OB_PG_WINDOW_H
#define OB_PG_WINDOW_H

#include "pg_store.h"

enum { OB_PG_CHUNK_ROWS = 8192,
       OB_PG_COL_PAYLOAD = 7, OB_PG_COL_WINDOW = 10 };  /* of PG_COLUMNS */

typedef struct ob_pg_place {
    int64_t window, position;
    int     row;                /* of the result */
} ob_pg_place;

/* What was asked of the log. */
typedef struct ob_pg_ask {
    outbox_cursor from;
    int64_t  last, limit;       /* window, rows */
    uint64_t lanes;
    enum ob_pg_stmt how;
} ob_pg_ask;

typedef struct ob_pg_windows {
    bool      looked;
    int64_t   low, head;        /* the oldest and newest that are kept */
    int64_t   tick;             /* ticks up to this position were looked at */
    bool      ticks, cut, many; /* what the last cut found */
    int       slow;             /* so often in a row it took long */
    int64_t   limit, span;      /* rows and windows to ask for */
    PGresult *res;              /* the chunk: rows of lanes, a bit for each, */
    int       rows, at;
    bool      placed;           /* in order, in place[] */
    outbox_cursor from, end;    /* behind from, and up to end */
    uint64_t  lanes;
    ob_pg_ask next;             /* asked for ahead of time, and */
    PGresult *ahead;            /* what came */
    bool      waiting;          /* for it */
    int64_t   read_us;          /* when rows were fetched last */
    bool      newest;           /* nothing was behind it when it was read */
    bool      sliced;           /* the next window is too long for us, or */
    bool      large;            /* has long payloads */
    ob_pg_place place[OB_PG_CHUNK_ROWS + 1];    /* of the rows, in order */
} ob_pg_windows;

void ob_pg_chunk_drop(ob_pg_windows *w);
/* Rows behind the cursor, from w->at on; none is possible: then all up to
 * w->end was looked at.  0: there is nothing new.  from is a real one. */
int ob_pg_chunk(ob_pg *st, outbox_cursor *from, const outbox_lane *lanes,
                uint32_t n, outbox_error *err);

#endif

/* SPDX-License-Identifier: MIT
 *
 * pg_window.h - what a connection knows of the windows, and the rows that it
 * has fetched and not handed out yet.
 */
#ifndef OB_PG_WINDOW_H
#define OB_PG_WINDOW_H

#include "pg_store.h"

typedef struct ob_pg_windows {
    bool      looked;
    int64_t   low, head;        /* the oldest and newest that are kept */
    int64_t   tick;             /* ticks up to this position were looked at */
    bool      ticks, cut;       /* what the last cut found */
    int       slow;             /* so often in a row it took long */
    int64_t   limit, span;      /* rows and windows to ask for */
    PGresult *res;              /* the chunk: rows of lanes, a bit for each, */
    int       rows, at;
    outbox_cursor from, end;    /* behind from, and up to end */
    uint64_t  lanes;
    bool      newest;           /* nothing was behind it when it was read */
} ob_pg_windows;

void ob_pg_chunk_drop(ob_pg_windows *w);
/* Rows behind the cursor, from w->at on; none is possible: then all up to
 * w->end was looked at.  0: there is nothing new.  from is a real one. */
int ob_pg_chunk(ob_pg *st, outbox_cursor *from, const outbox_lane *lanes,
                uint32_t n, outbox_error *err);

#endif

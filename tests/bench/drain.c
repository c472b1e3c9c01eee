/* SPDX-License-Identifier: MIT
 *
 * drain.c - a backlog: how fast a relay reads it into a callback that does
 *           nothing, against a bare SELECT over the same columns; then the
 *           same with every event deleted afterwards.
 */
#include "bench.h"

#include <stdio.h>

enum { CHUNK = 1000, TRIM = 500 };

typedef struct tank {
    const char *full, *copy;            /* the backlog; one to be emptied */
    int64_t n;
    int     turn;                       /* makes subscription names */
} tank;

static outbox_verdict swallow(void *ctx, const outbox_event *ev,
                              outbox_token token, outbox_error *why)
{
    (void)ev, (void)token, (void)why;
    ++*(int64_t *)ctx;
    return OUTBOX_ACK;
}

static void publish_chunk(shop *s, int n)
{
    static outbox_event ev[CHUNK];
    static char key[CHUNK][24];
    const outbox_event *list[CHUNK];
    outbox_error err = { 0 };

    shop_begin(s);
    for (int i = 0; i < n; i++) {
        s->n++;
        shop_fill(s, &ev[i]);
        for (size_t k = 0; k < sizeof key[i]; k++)
            key[i][k] = s->key[k];
        ev[i].key = key[i];
        list[i] = &ev[i];
    }
    bench_check(outbox_publish_many(s->ob, list, (size_t)n, &err), &err,
                "publish_many");
    shop_commit(s);
}

static void fill(const char *path, int64_t n)
{
    shop s;

    shop_create(path);
    shop_open(&s, path, "NORMAL");
    for (int64_t done = 0; done < n; done += CHUNK)
        publish_chunk(&s, n - done < CHUNK ? (int)(n - done) : CHUNK);
    shop_close(&s);
}

/* ---- the bare loops ---------------------------------------------------- */

static sqlite3_stmt *select_rows(shop *s, const char *where)
{
    sqlite3_stmt *st;
    char sql[256];

    snprintf(sql, sizeof sql, "SELECT position, id, topic, type, key,"
             " content_type, headers, payload, published_ms, expires_ms"
             " FROM outbox_log %s", where);
    if (sqlite3_prepare_v2(s->db, sql, -1, &st, NULL) != SQLITE_OK)
        bench_die("%s: %s", sql, sqlite3_errmsg(s->db));
    return st;
}

/* Use every column as a relay must: a pointer and a length. */
static int64_t look_at_row(sqlite3_stmt *st)
{
    int64_t position = sqlite3_column_int64(st, 0);

    for (int i = 1; i < 8; i++) {
        if (i == 1 || i == 7)
            sqlite3_column_blob(st, i);
        else
            sqlite3_column_text(st, i);
        sqlite3_column_bytes(st, i);
    }
    sqlite3_column_int64(st, 8);
    sqlite3_column_int64(st, 9);
    return position;
}

static void run_select(bench_side *side)
{
    tank *t = side->arg;
    sqlite3_stmt *st;
    int64_t rows = 0;
    double from;
    shop s;

    shop_open(&s, t->full, "FULL");
    from = bench_now();
    for (st = select_rows(&s, "ORDER BY position");
         sqlite3_step(st) == SQLITE_ROW; rows++)
        look_at_row(st);
    sqlite3_finalize(st);
    side->seconds += bench_now() - from;
    side->work += (double)rows;
    shop_close(&s);
    if (rows != t->n)
        bench_die("SELECT saw %lld rows of %lld", (long long)rows,
                  (long long)t->n);
}

static void delete_to(shop *s, sqlite3_stmt *del, int64_t position)
{
    shop_begin(s);
    sqlite3_bind_int64(del, 1, position);
    if (sqlite3_step(del) != SQLITE_DONE)
        bench_die("DELETE: %s", sqlite3_errmsg(s->db));
    sqlite3_reset(del);
    shop_commit(s);
}

/* Read TRIM rows, delete them, until the table is empty. */
static int64_t empty_by_hand(shop *s)
{
    sqlite3_stmt *st = select_rows(s, "WHERE position > ?1"
                                   " ORDER BY position LIMIT 500");
    sqlite3_stmt *del;
    int64_t rows = 0, at = 0, before;

    if (sqlite3_prepare_v2(s->db, "DELETE FROM outbox_log WHERE"
                           " position <= ?1", -1, &del, NULL) != SQLITE_OK)
        bench_die("%s", sqlite3_errmsg(s->db));
    do {
        before = rows;
        sqlite3_bind_int64(st, 1, at);
        for (; sqlite3_step(st) == SQLITE_ROW; rows++)
            at = look_at_row(st);
        sqlite3_reset(st);
        delete_to(s, del, at);
    } while (rows - before == TRIM);
    sqlite3_finalize(st);
    sqlite3_finalize(del);
    return rows;
}

static void run_delete(bench_side *side)
{
    tank *t = side->arg;
    double from;
    shop s;

    bench_copy(t->full, t->copy);
    shop_open(&s, t->copy, "FULL");
    from = bench_now();
    side->work += (double)empty_by_hand(&s);
    side->seconds += bench_now() - from;
    shop_close(&s);
}

/* ---- the relay --------------------------------------------------------- */

/* Steps until n events came; more than a minute without one is an error. */
static void step_until(outbox_relay_t *relay, const int64_t *seen, int64_t n)
{
    double patience = bench_now() + 60;
    int64_t last = *seen;

    while (*seen < n) {
        bench_step(relay, 0);
        if (*seen != last)
            patience = bench_now() + 60;
        else if (bench_now() > patience)
            bench_die("%lld events of %lld, then none for a minute",
                      (long long)*seen, (long long)n);
        last = *seen;
    }
}

static void run_relay(bench_side *side)
{
    tank *t = side->arg;
    int64_t seen = 0;
    outbox_relay_t *relay;
    double from;

    relay = bench_relay(t->full, swallow, &seen,
                        bench_text("drain%d", t->turn++), BENCH_KEEP, NULL);
    from = bench_now();
    step_until(relay, &seen, t->n);
    side->seconds += bench_now() - from;
    side->work += (double)t->n;
    outbox_relay_free(relay);
    if (seen != t->n)
        bench_die("%lld deliveries of %lld events", (long long)seen,
                  (long long)t->n);
}

/* Until nothing is left that a trim may take; the newest always stays, and
 * with it at most one chunk. */
static void step_until_trimmed(outbox_relay_t *relay, shop *watch)
{
    double patience = bench_now() + 120;

    while (shop_ask(watch, "SELECT max(position) - min(position)"
                    " FROM outbox_log") >= TRIM) {
        for (int i = 0; i < 20; i++)
            bench_step(relay, 0);
        if (bench_now() > patience)
            bench_die("still not trimmed after two minutes");
    }
}

static void run_relay_trim(bench_side *side)
{
    tank *t = side->arg;
    int64_t seen = 0;
    outbox_relay_t *relay;
    double from;
    shop watch;

    bench_copy(t->full, t->copy);
    shop_open(&watch, t->copy, "FULL");
    relay = bench_relay(t->copy, swallow, &seen, "trim", 0, NULL);
    from = bench_now();
    step_until(relay, &seen, t->n);
    step_until_trimmed(relay, &watch);
    side->seconds += bench_now() - from;
    side->work += (double)t->n;
    outbox_relay_free(relay);
    shop_close(&watch);
}

/* ------------------------------------------------------------------------ */

static void rate_goal(const bench_side *side, int rounds)
{
    double rate = bench_rate(side, rounds);

    bench_row("the relay's rate", bench_count(rate, "events/s"), "",
              "> 500 k", rate > 500000 ? BENCH_OK : BENCH_MISS);
}

void bench_drain(void)
{
    tank t = { .full = bench_file("full.db"), .copy = bench_file("copy.db"),
               .n = bench_quick ? 200000 : 1000000 };
    bench_side keep[] = { { .run = run_select, .arg = &t },
                          { .run = run_relay, .arg = &t } };
    bench_side trim[] = { { .run = run_delete, .arg = &t },
                          { .run = run_relay_trim, .arg = &t } };
    int rounds = bench_quick ? 5 : 7, trims = bench_quick ? 3 : 5;

    bench_title(bench_text("drain, %s of %d bytes",
                           bench_count((double)t.n, "events"),
                           BENCH_PAYLOAD));
    fill(t.full, t.n);
    bench_duel(trim, 2, trims, 1);
    bench_duel(keep, 2, rounds, 1);
    bench_rate_row("bare SELECT", "events/s", &keep[0], &keep[0], rounds, 0);
    bench_rate_row("relay, history kept", "events/s", &keep[1], &keep[0],
                   rounds, 0.5);
    rate_goal(&keep[1], rounds);
    bench_rate_row("SELECT, DELETE by hand", "events/s", &trim[0], &trim[0],
                   trims, 0);
    bench_rate_row("relay, trimmed to the end", "events/s", &trim[1],
                   &trim[0], trims, 0);
    bench_remove(t.full);
    bench_remove(t.copy);
}

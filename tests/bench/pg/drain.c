/* SPDX-License-Identifier: MIT
 *
 * drain.c - a backlog: how fast a relay reads it into a callback that does
 *           nothing, against a bare SELECT of the same table and against a
 *           queue table with SKIP LOCKED and DELETE by hand.
 */
#include "store.h"

#include <stdio.h>
#include <sys/resource.h>

enum { CHUNK = 1000, DECILES = 10 };

typedef struct tank {
    int64_t n;
    int     turn;                       /* makes subscription names */
} tank;

/* n events, so many in a transaction. */
static void fill(int64_t n, int64_t each)
{
    pgshop s;

    pgshop_create();
    pgshop_open(&s, 0);
    pgshop_do(&s, "SET synchronous_commit = off");
    for (int64_t done = 0; done < n; done += CHUNK) {
        if (done % each == 0)
            pgshop_begin(&s);
        pgshop_publish_many(&s, CHUNK);
        if ((done + CHUNK) % each == 0)
            pgshop_commit(&s);
    }
    pgshop_do(&s, "VACUUM outbox.log");
    pgshop_do(&s, "CHECKPOINT");
    pgshop_close(&s);
}

/* ---- by hand ----------------------------------------------------------- */

#define COLUMNS                                                              \
    "position, id, topic, type, key, content_type, headers, payload,"        \
    " published_ms, expires_ms"

static int64_t look_at(const PGresult *res)
{
    int64_t sum = 0;

    for (int i = 0; i < PQntuples(res); i++) {
        for (int c = 0; c < 10; c++)
            sum += PQgetvalue(res, i, c)[0] + PQgetlength(res, i, c);
    }
    return sum;
}

static void run_select(bench_side *side)
{
    tank *t = side->arg;
    int64_t rows = 0;
    PGresult *res;
    pgshop s;

    pgshop_open(&s, 0);
    double from = bench_now();
    if (!PQsendQueryParams(s.conn, "SELECT " COLUMNS " FROM outbox.log", 0,
                           NULL, NULL, NULL, NULL, 1) ||
        !PQsetSingleRowMode(s.conn))
        bench_die("SELECT: %s", PQerrorMessage(s.conn));
    while ((res = PQgetResult(s.conn)) != NULL) {
        rows += PQntuples(res);
        look_at(res);
        PQclear(res);
    }
    side->seconds += bench_now() - from;
    side->work += (double)rows;
    pgshop_close(&s);
    if (rows != t->n)
        bench_die("SELECT saw %lld rows of %lld", (long long)rows,
                  (long long)t->n);
}

static void queue_fill(pgshop *s, int64_t n)
{
    char sql[400];

    snprintf(sql, sizeof sql,
             "DROP TABLE IF EXISTS queue; CREATE TABLE queue AS SELECT "
             COLUMNS " FROM outbox.log LIMIT %lld;"
             "ALTER TABLE queue ADD PRIMARY KEY (position)", (long long)n);
    pgshop_do(s, sql);
    pgshop_do(s, "VACUUM ANALYZE queue");
}

/* A tenth of the events: its rate does not depend on their number. */
static void run_queue(bench_side *side)
{
    tank *t = side->arg;
    int64_t rows = 0, n;
    pgshop s;

    pgshop_open(&s, 0);
    queue_fill(&s, t->n / 10);
    PQclear(PQprepare(s.conn, "take",
                      "DELETE FROM queue WHERE position = ANY (ARRAY(SELECT"
                      " position FROM queue ORDER BY position LIMIT 1000"
                      " FOR UPDATE SKIP LOCKED)) RETURNING " COLUMNS, 0,
                      NULL));
    double from = bench_now();
    do {
        PGresult *res = PQexecPrepared(s.conn, "take", 0, NULL, NULL, NULL, 1);
        if (PQresultStatus(res) != PGRES_TUPLES_OK)
            bench_die("take: %s", PQerrorMessage(s.conn));
        n = PQntuples(res);
        rows += n;
        look_at(res);
        PQclear(res);
    } while (n > 0);
    side->seconds += bench_now() - from;
    side->work += (double)rows;
    pgshop_close(&s);
}

/* ---- the relay --------------------------------------------------------- */

static outbox_verdict swallow(void *ctx, const outbox_event *ev,
                              outbox_token token, outbox_error *why)
{
    (void)ev, (void)token, (void)why;
    ++*(int64_t *)ctx;
    return OUTBOX_ACK;
}

static void step_until(outbox_relay_t *relay, const int64_t *seen, int64_t n)
{
    double patience = bench_now() + 60;
    int64_t last = *seen;

    while (*seen < n) {
        pg_step(relay, 0);
        if (*seen != last)
            patience = bench_now() + 60;
        else if (bench_now() > patience)
            bench_die("%lld events of %lld, then none for a minute",
                      (long long)*seen, (long long)n);
        last = *seen;
    }
}

/* The first drain cuts the windows; later ones read them. */
static void run_relay(bench_side *side)
{
    tank *t = side->arg;
    int64_t seen = 0;
    outbox_relay_t *relay = pg_relay(
        swallow, &seen, bench_text("drain%d", t->turn++), BENCH_KEEP);

    double from = bench_now();
    step_until(relay, &seen, t->n);
    side->seconds += bench_now() - from;
    side->work += (double)t->n;
    outbox_relay_free(relay);
    if (seen != t->n)
        bench_die("%lld deliveries of %lld events", (long long)seen,
                  (long long)t->n);
}

void pgbench_drain(void)
{
    tank t = { .n = bench_quick ? 200000 : 1000000 };
    bench_side side[] = { { .run = run_select, .arg = &t },
                          { .run = run_relay, .arg = &t },
                          { .run = run_queue, .arg = &t } };
    int rounds = bench_quick ? 3 : 5;

    bench_title(bench_text("drain, %s of %d bytes",
                           bench_count((double)t.n, "events"),
                           BENCH_PAYLOAD));
    fill(t.n, CHUNK);
    bench_duel(side, 3, rounds, 1);
    bench_rate_row("bare SELECT, row by row", "events/s", &side[0], &side[0],
                   rounds, 0);
    bench_rate_row("relay", "events/s", &side[1], &side[0], rounds, 0.7);
    bench_rate_row("SKIP LOCKED, DELETE", "events/s", &side[2], &side[2],
                   rounds, 0);
    bench_rate_row("relay", "events/s", &side[1], &side[2], rounds, 3);
}

/* ---- in one transaction ------------------------------------------------- */

/* From the first step on, with the cutting of the windows. */
static double rate_of(int64_t n, int64_t each)
{
    int64_t seen = 0;

    fill(n, each);
    outbox_relay_t *relay = pg_relay(swallow, &seen, "long", BENCH_KEEP);
    double from = bench_now();
    step_until(relay, &seen, n);
    double rate = (double)n / (bench_now() - from);
    outbox_relay_free(relay);
    return rate;
}

static double peak_mb(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1024;
}

void pgbench_long(void)
{
    int64_t n = bench_quick ? 200000 : 1000000;

    bench_title(bench_text("one transaction of %s",
                           bench_count((double)n, "events")));
    double usual = rate_of(n, CHUNK), before = peak_mb();
    double rate = rate_of(n, n), peak = peak_mb();
    bench_row(bench_text("transactions of %d", CHUNK),
              bench_count(usual, "events/s"), "", "", BENCH_INFO);
    bench_row("all in one", bench_count(rate, "events/s"),
              bench_text("%.2f", rate / usual), ">= 0.70",
              rate >= 0.7 * usual ? BENCH_OK : BENCH_MISS);
    bench_row("  peak memory of that process", bench_text("%.0f MB", peak),
              bench_text("%.2f", peak / before), "<= 1.50",
              peak <= 1.5 * before ? BENCH_OK : BENCH_MISS);
}

/* ---- ten times as long ------------------------------------------------- */

/* CPU, too, for it depends less on what else the machine does. */
void pgbench_backlog(void)
{
    int64_t n = bench_quick ? 500000 : 10000000, seen = 0;
    double rate[DECILES], cost[DECILES];
    pgshop watch;

    bench_title(bench_text("a backlog of %s",
                           bench_count((double)n, "events")));
    fill(n, CHUNK);
    pgshop_open(&watch, 0);
    outbox_relay_t *relay = pg_relay(swallow, &seen, "backlog", BENCH_KEEP);
    for (int i = 0; i < DECILES; i++) {
        int64_t before = seen;
        double from = bench_now(), cpu = bench_cpu() + pg_backend_cpu(&watch);
        step_until(relay, &seen, n * (i + 1) / DECILES);
        rate[i] = (double)(seen - before) / (bench_now() - from);
        cost[i] = (bench_cpu() + pg_backend_cpu(&watch) - cpu) /
                  (double)(seen - before);
    }
    outbox_relay_free(relay);
    pgshop_close(&watch);
    for (int i = 0; i < DECILES; i += DECILES - 1)
        bench_row(i == 0 ? "first tenth" : "last tenth",
                  bench_count(rate[i], "events/s"),
                  bench_text("%.2f", rate[i] / rate[0]),
                  i == 0 ? "" : ">= 0.90",
                  i == 0 ? BENCH_INFO
                         : rate[i] >= 0.9 * rate[0] ? BENCH_OK : BENCH_MISS);
    bench_row("  CPU of an event, relay and server, first tenth",
              bench_text("%.2f us", cost[0] * 1e6), "", "", BENCH_INFO);
    bench_row("  last tenth",
              bench_text("%.2f us", cost[DECILES - 1] * 1e6),
              bench_text("%.2f", cost[DECILES - 1] / cost[0]), "",
              BENCH_INFO);
    double slowest = bench_percentile(rate, DECILES, 0);
    bench_row("slowest tenth", bench_count(slowest, "events/s"), "", "",
              BENCH_INFO);
}

/* SPDX-License-Identifier: MIT
 *
 * publish.c - what an event costs the business transaction, with 1, 4 and 8
 *             clients at once; what many cost against COPY; and what the inbox
 *             costs against its own statement written by hand.
 */
#include "store.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MOST_CLIENTS = 8 };

/* ---- clients at once --------------------------------------------------- */

typedef void transaction(pgshop *s);

/* One contender: clients that do the same for some time. */
typedef struct crowd {
    transaction *tx;
    int          n;
    double       seconds;
    pgshop       shop[MOST_CLIENTS];
    double       end;
    atomic_long  done;
} crowd;

typedef struct member {
    crowd *c;
    pgshop *s;
} member;

static void *work(void *arg)
{
    member *m = arg;
    long n = 0;

    while (bench_now() < m->c->end) {
        m->c->tx(m->s);
        n++;
    }
    atomic_fetch_add(&m->c->done, n);
    return NULL;
}

static void run_crowd(bench_side *side)
{
    crowd *c = side->arg;
    pthread_t thread[MOST_CLIENTS];
    member m[MOST_CLIENTS];
    double from = bench_now();

    c->done = 0;
    c->end = from + c->seconds;
    for (int i = 0; i < c->n; i++) {
        m[i] = (member){ c, &c->shop[i] };
        if (pthread_create(&thread[i], NULL, work, &m[i]) != 0)
            bench_die("no thread");
    }
    for (int i = 0; i < c->n; i++)
        pthread_join(thread[i], NULL);
    side->seconds += bench_now() - from;
    side->work += (double)c->done;
}

static void crowd_open(crowd *c, bench_side *side, transaction *tx, int n,
                       uint32_t flags)
{
    memset(c, 0, sizeof *c);
    c->tx = tx;
    c->n = n;
    c->seconds = 0.1;
    for (int i = 0; i < n; i++) {
        pgshop_open(&c->shop[i], flags);
        tx(&c->shop[i]);                /* prepares what is to be prepared */
    }
    *side = (bench_side){ .run = run_crowd, .arg = c };
}

static void crowd_close(crowd *c)
{
    for (int i = 0; i < c->n; i++)
        pgshop_close(&c->shop[i]);
}

/* ---- one event --------------------------------------------------------- */

static void plain(pgshop *s)
{
    pgshop_begin(s);
    pgshop_business(s);
    pgshop_commit(s);
}

static void published(pgshop *s)
{
    pgshop_begin(s);
    pgshop_business(s);
    pgshop_publish(s);
    pgshop_commit(s);
}

static void published_and_committed(pgshop *s)
{
    pgshop_begin(s);
    pgshop_business(s);
    pgshop_publish_commit(s);
}

static void by_hand(pgshop *s)
{
    pgshop_begin(s);
    pgshop_business(s);
    pgshop_hand(s);
    pgshop_commit(s);
}

static void by_hand_with_commit(pgshop *s)
{
    pgshop_begin(s);
    pgshop_business(s);
    pgshop_hand_commit(s, "hand");
}

/* The least that a database can be asked for: no index, no default. */
static void bare(pgshop *s)
{
    pgshop_begin(s);
    pgshop_business(s);
    pgshop_hand_commit(s, "bare");
}

/* Short ones: the machine is not the same from one second to the next. */
static int turns(void)
{
    return bench_quick ? 4 : 10;
}

/* Those by hand tell what is to be had on this machine. */
static const struct {
    const char  *name;
    transaction *tx;
    double       goal;
} ways[] = {
    { "no outbox",                     plain,                   0 },
    { "outbox_publish",                published,               0.85 },
    { "outbox_publish_commit",         published_and_committed, 0.95 },
    { "INSERT by hand",                by_hand,                 0 },
    { "INSERT and COMMIT by hand",     by_hand_with_commit,     0 },
    { "the same without an index",     bare,                    0 },
};

static void clients(int n, int rounds)
{
    enum { WAYS = sizeof ways / sizeof *ways };
    static crowd c[WAYS];
    bench_side side[WAYS];

    pgshop_create();
    for (int i = 0; i < WAYS; i++)
        crowd_open(&c[i], &side[i], ways[i].tx, n, 0);
    bench_duel(side, WAYS, rounds, turns());
    bench_title(bench_text("publish, %d client%s, one event", n,
                           n > 1 ? "s" : ""));
    for (int i = 0; i < WAYS; i++) {
        bench_rate_row(ways[i].name, "tx/s", &side[i], &side[0], rounds,
                       ways[i].goal);
        crowd_close(&c[i]);
    }
}

/* With and without the doorbell, which nobody sleeps behind. */
static void doorbell(int rounds)
{
    static crowd c[2];
    bench_side side[2];

    pgshop_create();
    crowd_open(&c[0], &side[0], published_and_committed, MOST_CLIENTS,
               OUTBOX_QUIET);
    crowd_open(&c[1], &side[1], published_and_committed, MOST_CLIENTS, 0);
    bench_duel(side, 2, rounds, turns());
    bench_title("the sleep lock, 8 busy clients");
    bench_rate_row("OUTBOX_QUIET", "tx/s", &side[0], &side[0], rounds, 0);
    bench_rate_row("with the sleep lock", "tx/s", &side[1], &side[0], rounds,
                   0.97);
    crowd_close(&c[0]);
    crowd_close(&c[1]);
}

void pgbench_publish(void)
{
    static const int n[] = { 1, 4, MOST_CLIENTS };
    int rounds = bench_quick ? 5 : 11;

    for (int i = 0; i < 3; i++)
        clients(n[i], rounds);
    doorbell(rounds);
}

/* ---- many events, and COPY --------------------------------------------- */

enum { MANY = 1000 };

static void many(pgshop *s)
{
    pgshop_begin(s);
    pgshop_publish_many(s, MANY);
    pgshop_commit(s);
}

static char *put(char *at, const void *bytes, uint32_t n)
{
    uint32_t len = htonl(n);

    memcpy(at, &len, 4);
    memcpy(at + 4, bytes, n);
    return at + 4 + n;
}

/* seg, lane, id, topic, type, key, payload: the rest has defaults. */
static char *put_row(pgshop *s, char *at)
{
    uint16_t fields = htons(7), seg = 0, lane = htons((uint16_t)(s->n % 16));
    unsigned char id[16];
    outbox_event ev;

    s->n++;
    pgshop_fill(s, &ev);
    for (int i = 0; i < 16; i++) {
        s->random = s->random * 6364136223846793005u + 1442695040888963407u;
        id[i] = (unsigned char)(s->random >> 56);
    }
    memcpy(at, &fields, 2);
    at = put(at + 2, &seg, 2);
    at = put(at, &lane, 2);
    at = put(at, id, 16);
    at = put(at, ev.topic, (uint32_t)strlen(ev.topic));
    at = put(at, ev.type, (uint32_t)strlen(ev.type));
    at = put(at, ev.key, (uint32_t)strlen(ev.key));
    return put(at, ev.payload, (uint32_t)ev.payload_len);
}

static void copied(pgshop *s)
{
    static char row[1000];
    static const char head[19] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0";

    pgshop_begin(s);
    PQclear(PQexec(s->conn, "COPY outbox.log (seg, lane, id, topic, type,"
                            " key, payload) FROM STDIN (FORMAT binary)"));
    PQputCopyData(s->conn, head, sizeof head);
    for (int i = 0; i < MANY; i++)
        PQputCopyData(s->conn, row, (int)(put_row(s, row) - row));
    PQputCopyData(s->conn, "\377\377", 2);
    PQputCopyEnd(s->conn, NULL);
    PGresult *res = PQgetResult(s->conn);
    if (PQresultStatus(res) != PGRES_COMMAND_OK)
        bench_die("COPY: %s", PQerrorMessage(s->conn));
    PQclear(res);
    PQclear(PQgetResult(s->conn));
    pgshop_commit(s);
}

void pgbench_many(void)
{
    static crowd c[2];
    bench_side side[2];
    int rounds = bench_quick ? 5 : 9;

    pgshop_create();
    crowd_open(&c[0], &side[0], copied, 1, 0);
    crowd_open(&c[1], &side[1], many, 1, 0);
    bench_duel(side, 2, rounds, 1);
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < 2; i++)
            side[i].rate[r] *= MANY;
    bench_title(bench_text("publish, %d events in a transaction", MANY));
    bench_rate_row("COPY of the same rows", "events/s", &side[0], &side[0],
                   rounds, 0);
    bench_rate_row("outbox_publish_many", "events/s", &side[1], &side[0],
                   rounds, 0.7);
    crowd_close(&c[0]);
    crowd_close(&c[1]);
}

/* ---- the inbox --------------------------------------------------------- */

static inbox_t *inboxes[1];

static const char *next_id(pgshop *s, char id[40])
{
    uint64_t a = s->random += 0x9e3779b97f4a7c15u, b = a * 0xbf58476d1ce4e5b9u;

    snprintf(id, 40, "%08x-%04x-7%03x-8%03x-%012llx", (unsigned)(a >> 32),
             (unsigned)(a >> 16 & 0xffff), (unsigned)(a & 0xfff),
             (unsigned)(b & 0xfff), (unsigned long long)(b >> 16));
    return id;
}

static void accepted(pgshop *s)
{
    outbox_error err = { 0 };
    char id[40];

    pgshop_begin(s);
    int rc = inbox_accept(inboxes[0], "bench", next_id(s, id), &err);
    bench_check(rc, &err, "accept");
    pgshop_business(s);
    bench_check(inbox_commit(inboxes[0], &err), &err, "commit");
}

static void accepted_by_hand(pgshop *s)
{
    char id[40];
    const char *values[] = { "bench", next_id(s, id) };

    pgshop_begin(s);
    PGresult *res = PQexecPrepared(s->conn, "mark", 2, values, NULL, NULL, 1);
    if (PQresultStatus(res) != PGRES_COMMAND_OK)
        bench_die("mark: %s", PQerrorMessage(s->conn));
    PQclear(res);
    pgshop_business(s);
    pgshop_commit(s);
}

void pgbench_inbox(void)
{
    static crowd c[2];
    bench_side side[2];
    outbox_error err = { 0 };
    int rounds = bench_quick ? 5 : 11;

    pgshop_create();
    crowd_open(&c[0], &side[0], plain, 1, 0);
    crowd_open(&c[1], &side[1], plain, 1, 0);
    c[0].tx = accepted_by_hand;
    c[1].tx = accepted;
    pgshop_do(&c[0].shop[0],
              "DROP TABLE IF EXISTS mark; CREATE TABLE mark (consumer text,"
              " id uuid, accepted timestamptz DEFAULT now(),"
              " PRIMARY KEY (consumer, id));"
              "CREATE INDEX ON mark (accepted)");
    PQclear(PQprepare(c[0].shop[0].conn, "mark",
                      "INSERT INTO mark (consumer, id) VALUES ($1, $2::uuid)"
                      " ON CONFLICT DO NOTHING", 0, NULL));
    bench_check(inbox_pg_open(&inboxes[0], c[1].shop[0].conn, NULL, &err),
                &err, "inbox");
    bench_duel(side, 2, rounds, turns());
    bench_title("inbox, in the handler's transaction");
    bench_rate_row("INSERT ... ON CONFLICT", "tx/s", &side[0], &side[0],
                   rounds, 0);
    bench_rate_row("inbox_accept", "tx/s", &side[1], &side[0], rounds, 0.95);
    inbox_close(inboxes[0]);
    crowd_close(&c[0]);
    crowd_close(&c[1]);
}

/* SPDX-License-Identifier: MIT
 *
 * shop.c - the business in PostgreSQL: accounts that pay and orders that are
 *          placed, by statements that are prepared, as a careful application
 *          has them; and a relay on the same database.
 */
#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *pg_conninfo(void)
{
    const char *text = getenv("OUTBOX_TEST_PG");

    if (text == NULL)
        bench_die("no OUTBOX_TEST_PG: run me in tests/bin/pg-cluster");
    return text;
}

static void silence(void *arg, const PGresult *res)
{
    (void)arg;
    (void)res;
}

static void look(pgshop *s, PGresult *res, const char *what)
{
    ExecStatusType status = PQresultStatus(res);

    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
        bench_die("%s: %s", what, PQerrorMessage(s->conn));
    PQclear(res);
}

void pgshop_do(pgshop *s, const char *sql)
{
    look(s, PQexec(s->conn, sql), sql);
}

void pgshop_prepared(pgshop *s, const char *name)
{
    look(s, PQexecPrepared(s->conn, name, 0, NULL, NULL, NULL, 1), name);
}

int64_t pgshop_ask(pgshop *s, const char *sql)
{
    PGresult *res = PQexec(s->conn, sql);

    if (PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1)
        bench_die("%s: %s", sql, PQerrorMessage(s->conn));
    int64_t n = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
    PQclear(res);
    return n;
}

static void connect_shop(pgshop *s)
{
    static uint64_t seed;

    memset(s, 0, sizeof *s);
    s->random = __atomic_add_fetch(&seed, 1, __ATOMIC_RELAXED);
    s->n = s->random * 1009;
    s->conn = PQconnectdb(pg_conninfo());
    if (PQstatus(s->conn) != CONNECTION_OK)
        bench_die("%s", PQerrorMessage(s->conn));
    PQsetNoticeReceiver(s->conn, silence, NULL);
}

void pgshop_create(void)
{
    outbox_error err = { 0 };
    pgshop s;
    char sql[1000];

    connect_shop(&s);
    snprintf(sql, sizeof sql,
             "DROP SCHEMA IF EXISTS outbox CASCADE;"
             "DROP TABLE IF EXISTS account, orders, hand, bare;"
             "CREATE TABLE account (id int PRIMARY KEY, paid bigint)"
             " WITH (fillfactor = 50);"
             "CREATE TABLE orders (id bigserial PRIMARY KEY, account int,"
             " amount int, state text);"
             "CREATE TABLE hand (id bigserial PRIMARY KEY, event uuid NOT NULL"
             " DEFAULT gen_random_uuid(), topic text NOT NULL, type text,"
             " key text, payload bytea NOT NULL, published timestamptz"
             " NOT NULL DEFAULT now());"
             "CREATE TABLE bare (key text, payload bytea);"
             "INSERT INTO account SELECT i, 0 FROM generate_series(0, %d) i",
             PG_ACCOUNTS - 1);
    pgshop_do(&s, sql);
    pgshop_do(&s, "VACUUM ANALYZE account");
    bench_check(outbox_pg_open(&s.ob, s.conn, NULL, &err), &err, "open");
    bench_check(outbox_migrate(s.ob, &err), &err, "migrate");
    pgshop_do(&s, "CHECKPOINT");
    pgshop_close(&s);
}

static void prepare(pgshop *s, const char *name, const char *sql)
{
    look(s, PQprepare(s->conn, name, sql, 0, NULL), sql);
}

void pgshop_open(pgshop *s, uint32_t flags)
{
    outbox_options opt = { .size = sizeof opt, .flags = flags };
    outbox_error err = { 0 };

    connect_shop(s);
    prepare(s, "begin", "BEGIN");
    prepare(s, "commit", "COMMIT");
    prepare(s, "pay", "UPDATE account SET paid = paid + $2::int"
                      " WHERE id = $1::int");
    prepare(s, "order", "INSERT INTO orders (account, amount, state)"
                        " VALUES ($1::int, $2::int, 'paid')");
    prepare(s, "hand", "INSERT INTO hand (topic, type, key, payload)"
                       " VALUES ('orders', 'order.paid', $1, $2)");
    prepare(s, "bare", "INSERT INTO bare (key, payload) VALUES ($1, $2)");
    bench_check(outbox_pg_open(&s->ob, s->conn, &opt, &err), &err, "open");
    for (int i = 0; i < BENCH_PAYLOAD; i++)
        s->payload[i] = (unsigned char)('a' + i % 26);
}

void pgshop_close(pgshop *s)
{
    outbox_close(s->ob);
    PQfinish(s->conn);
}

void pgshop_begin(pgshop *s)
{
    s->n++;
    pgshop_prepared(s, "begin");
}

void pgshop_commit(pgshop *s)
{
    pgshop_prepared(s, "commit");
}

void pgshop_business(pgshop *s)
{
    const char *values[] = { s->account, s->amount };

    snprintf(s->account, sizeof s->account, "%d",
             (int)(s->n * 7919 % PG_ACCOUNTS));
    snprintf(s->amount, sizeof s->amount, "%d", 25);
    look(s, PQexecPrepared(s->conn, "pay", 2, values, NULL, NULL, 1), "pay");
    look(s, PQexecPrepared(s->conn, "order", 2, values, NULL, NULL, 1),
         "order");
}

void pgshop_fill(pgshop *s, outbox_event *ev)
{
    snprintf(s->key, sizeof s->key, "account-%04u",
             (unsigned)(s->n * 7919 % PG_ACCOUNTS));
    *ev = (outbox_event){ .size = sizeof *ev, .topic = "orders",
                          .type = "order.paid", .key = s->key,
                          .payload = s->payload,
                          .payload_len = sizeof s->payload };
}

void pgshop_publish(pgshop *s)
{
    outbox_error err = { 0 };
    outbox_event ev;

    pgshop_fill(s, &ev);
    bench_check(outbox_publish(s->ob, &ev, &err), &err, "publish");
}

void pgshop_publish_commit(pgshop *s)
{
    outbox_error err = { 0 };
    outbox_event ev;
    const outbox_event *list = &ev;

    pgshop_fill(s, &ev);
    bench_check(outbox_publish_commit(s->ob, &list, 1, &err), &err,
                "publish_commit");
}

void pgshop_hand(pgshop *s)
{
    outbox_event ev;

    pgshop_fill(s, &ev);
    const char *values[] = { s->key, (const char *)s->payload };
    const int lengths[] = { 0, sizeof s->payload }, formats[] = { 0, 1 };
    look(s, PQexecPrepared(s->conn, "hand", 2, values, lengths, formats, 1),
         "hand");
}

void pgshop_hand_commit(pgshop *s, const char *insert)
{
    outbox_event ev;

    pgshop_fill(s, &ev);
    const char *values[] = { s->key, (const char *)s->payload };
    const int lengths[] = { 0, sizeof s->payload }, formats[] = { 0, 1 };
    if (!PQenterPipelineMode(s->conn) ||
        !PQsendQueryPrepared(s->conn, insert, 2, values, lengths, formats,
                             1) ||
        !PQsendQueryPrepared(s->conn, "commit", 0, NULL, NULL, NULL, 1) ||
        !PQpipelineSync(s->conn))
        bench_die("hand: %s", PQerrorMessage(s->conn));
    for (int i = 0; i < 2; i++) {
        look(s, PQgetResult(s->conn), "hand");
        PQclear(PQgetResult(s->conn));
    }
    PQclear(PQgetResult(s->conn));      /* the end of the pipeline */
    if (!PQexitPipelineMode(s->conn))
        bench_die("hand: %s", PQerrorMessage(s->conn));
}

void pgshop_publish_many(pgshop *s, int n)
{
    enum { MOST = 4096 };
    static _Thread_local outbox_event ev[MOST];
    static _Thread_local const outbox_event *list[MOST];
    static _Thread_local char key[MOST][24];
    outbox_error err = { 0 };

    for (int i = 0; i < n; i++) {
        s->n++;
        pgshop_fill(s, &ev[i]);
        memcpy(key[i], s->key, sizeof key[i]);
        ev[i].key = key[i];
        list[i] = &ev[i];
    }
    bench_check(outbox_publish_many(s->ob, list, (size_t)n, &err), &err,
                "publish_many");
}

/* ---- the relay --------------------------------------------------------- */

static void show_log(void *arg, int level, const char *line)
{
    (void)arg;
    if (level <= 3 || getenv("BENCH_LOG"))
        fprintf(stderr, "relay: %s\n", line);
}

outbox_relay_t *pg_relay(bench_send *send, void *ctx, const char *sub,
                         int64_t keep_ms)
{
    outbox_transport transport = { .size = sizeof transport,
                                   .name = "bench", .ctx = ctx, .send = send };
    outbox_relay_options how = { .size = sizeof how, .subscription = sub,
                                 .keep_ms = keep_ms, .log = show_log };
    outbox_error err = { 0 };
    outbox_relay_t *relay;
    outbox_t *ob;

    bench_check(outbox_pg_connect(&ob, pg_conninfo(), NULL, &err), &err,
                "connect");
    bench_check(outbox_relay_new(&relay, ob, &transport, &how, &err), &err,
                "relay");
    return relay;
}

int pg_step(outbox_relay_t *relay, int timeout_ms)
{
    outbox_error err = { 0 };
    int n = outbox_relay_step(relay, timeout_ms, &err);

    if (n != OUTBOX_EBUSY)
        bench_check(n, &err, "step");
    return n > 0 ? n : 0;
}

double pg_backend_cpu(pgshop *watch)
{
    char path[40], text[400] = "";
    unsigned long user = 0, system = 0;

    snprintf(path, sizeof path, "/proc/%d/stat",
             (int)pgshop_ask(watch, "SELECT max(pid) FROM pg_stat_activity"
                                    " WHERE backend_type = 'client backend'"
                                    " AND pid <> pg_backend_pid()"));
    FILE *f = fopen(path, "r");
    size_t n = f != NULL ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = '\0';
    const char *rest = strrchr(text, ')');      /* behind the name */
    if (rest == NULL ||
        sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u"
                         " %lu %lu", &user, &system) != 2)
        bench_die("%s: cannot read it", path);
    fclose(f);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

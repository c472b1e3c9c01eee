/* SPDX-License-Identifier: MIT
 *
 * shop.c - the business: accounts that pay and orders that are placed, each
 *          transaction one UPDATE and one INSERT, with or without an event;
 *          and a relay on the same file.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N_ACCOUNTS = 1000 };

static void run_sql(sqlite3 *db, const char *sql)
{
    char *why = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
        bench_die("%s: %s", sql, why ? why : "out of memory");
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *st = NULL;

    if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL)
        != SQLITE_OK)
        bench_die("%s: %s", sql, sqlite3_errmsg(db));
    return st;
}

static void run(shop *s, sqlite3_stmt *st)
{
    if (sqlite3_step(st) != SQLITE_DONE)
        bench_die("%s: %s", sqlite3_sql(st), sqlite3_errmsg(s->db));
    sqlite3_reset(st);
}

static sqlite3 *open_file(const char *path, const char *synchronous)
{
    sqlite3 *db = NULL;
    char sql[64];

    if (sqlite3_open(path, &db) != SQLITE_OK)
        bench_die("%s: %s", path, db ? sqlite3_errmsg(db) : "out of memory");
    sqlite3_busy_timeout(db, 10000);
    run_sql(db, "PRAGMA journal_mode=WAL");
    snprintf(sql, sizeof sql, "PRAGMA synchronous=%s", synchronous);
    run_sql(db, sql);
    return db;
}

void shop_create(const char *path)
{
    outbox_error err = { 0 };
    sqlite3 *db;
    outbox_t *ob;
    char sql[256];

    bench_remove(path);
    db = open_file(path, "NORMAL");
    run_sql(db, "CREATE TABLE account(id INTEGER PRIMARY KEY, paid INTEGER);"
            "CREATE TABLE orders(id INTEGER PRIMARY KEY, account INTEGER,"
            " amount INTEGER, state TEXT)");
    snprintf(sql, sizeof sql, "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL"
             " SELECT i + 1 FROM n WHERE i < %d)"
             " INSERT INTO account SELECT i, 0 FROM n", N_ACCOUNTS - 1);
    run_sql(db, sql);
    bench_check(outbox_sqlite_open(&ob, db, NULL, &err), &err, "open");
    bench_check(outbox_migrate(ob, &err), &err, "migrate");
    outbox_close(ob);
    sqlite3_close(db);
}

void shop_open(shop *s, const char *path, const char *synchronous)
{
    static uint64_t seed;
    outbox_error err = { 0 };

    memset(s, 0, sizeof *s);
    s->random = ++seed * UINT64_C(0x9e3779b97f4a7c15);
    s->db = open_file(path, synchronous);
    bench_check(outbox_sqlite_open(&s->ob, s->db, NULL, &err), &err, "open");
    s->begin = prepare(s->db, "BEGIN IMMEDIATE");
    s->commit = prepare(s->db, "COMMIT");
    s->pay = prepare(s->db, "UPDATE account SET paid = paid + ?2"
                     " WHERE id = ?1");
    s->order = prepare(s->db, "INSERT INTO orders(account, amount, state)"
                       " VALUES(?1, ?2, 'paid')");
    s->event = prepare(s->db, "INSERT INTO outbox_log(id, topic, type, key,"
                       " content_type, headers, payload, published_ms)"
                       " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
    for (int i = 0; i < BENCH_PAYLOAD; i++)
        s->payload[i] = (unsigned char)('a' + i % 26);
}

void shop_close(shop *s)
{
    outbox_close(s->ob);
    sqlite3_finalize(s->begin);
    sqlite3_finalize(s->commit);
    sqlite3_finalize(s->pay);
    sqlite3_finalize(s->order);
    sqlite3_finalize(s->event);
    if (sqlite3_close(s->db) != SQLITE_OK)
        bench_die("close: %s", sqlite3_errmsg(s->db));
}

void shop_begin(shop *s)
{
    int rc;

    do {
        rc = sqlite3_step(s->begin);
        sqlite3_reset(s->begin);
    } while ((rc & 255) == SQLITE_BUSY);
    if (rc != SQLITE_DONE)
        bench_die("BEGIN: %s", sqlite3_errmsg(s->db));
    s->n++;
}

void shop_business(shop *s)
{
    int64_t account = (int64_t)(s->n * 7919 % N_ACCOUNTS);

    sqlite3_bind_int64(s->pay, 1, account);
    sqlite3_bind_int64(s->pay, 2, 25);
    run(s, s->pay);
    sqlite3_bind_int64(s->order, 1, account);
    sqlite3_bind_int64(s->order, 2, 25);
    run(s, s->order);
}

void shop_commit(shop *s)
{
    run(s, s->commit);
}

static void next_key(shop *s)
{
    snprintf(s->key, sizeof s->key, "account-%04u",
             (unsigned)(s->n * 7919 % N_ACCOUNTS));
}

void shop_fill(shop *s, outbox_event *ev)
{
    next_key(s);
    memset(ev, 0, sizeof *ev);
    ev->size = sizeof *ev;
    ev->topic = "orders";
    ev->type = "order.paid";
    ev->key = s->key;
    ev->payload = s->payload;
    ev->payload_len = sizeof s->payload;
}

void shop_publish(shop *s)
{
    outbox_error err = { 0 };
    outbox_event ev;

    shop_fill(s, &ev);
    bench_check(outbox_publish(s->ob, &ev, &err), &err, "publish");
}

void shop_publish_commit(shop *s)
{
    outbox_error err = { 0 };
    outbox_event ev;
    const outbox_event *list = &ev;

    shop_fill(s, &ev);
    bench_check(outbox_publish_commit(s->ob, &list, 1, &err), &err,
                "publish_commit");
}

/* A version 7 UUID as a careful hand would make it: time, then random. */
static int64_t make_id(shop *s, unsigned char id[16])
{
    struct timespec t;
    uint64_t ms;

    clock_gettime(CLOCK_REALTIME, &t);
    ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    for (int i = 0; i < 6; i++)
        id[i] = (unsigned char)(ms >> (40 - 8 * i));
    id[6] = (unsigned char)(0x70 | (s->n >> 8 & 15));
    id[7] = (unsigned char)s->n;
    memcpy(id + 8, &s->random, 8);
    id[8] = (unsigned char)(0x80 | (id[8] & 0x3f));
    return (int64_t)ms;
}

static void bind_text(sqlite3_stmt *st, int at, const char *text)
{
    sqlite3_bind_text(st, at, text, -1, SQLITE_STATIC);
}

void shop_insert_event(shop *s)
{
    unsigned char id[16];
    int64_t ms = make_id(s, id);

    next_key(s);
    sqlite3_bind_blob(s->event, 1, id, sizeof id, SQLITE_STATIC);
    bind_text(s->event, 2, "orders");
    bind_text(s->event, 3, "order.paid");
    bind_text(s->event, 4, s->key);
    sqlite3_bind_null(s->event, 5);     /* as the library stores defaults */
    sqlite3_bind_null(s->event, 6);
    sqlite3_bind_blob(s->event, 7, s->payload, sizeof s->payload,
                      SQLITE_STATIC);
    sqlite3_bind_int64(s->event, 8, ms);
    run(s, s->event);
}

int64_t shop_ask(shop *s, const char *sql)
{
    sqlite3_stmt *st = prepare(s->db, sql);
    int64_t n = 0;

    if (sqlite3_step(st) == SQLITE_ROW)
        n = sqlite3_column_int64(st, 0);
    else
        bench_die("%s: %s", sql, sqlite3_errmsg(s->db));
    sqlite3_finalize(st);
    return n;
}

/* ---- the relay --------------------------------------------------------- */

/* Errors always; the rest, such as advice on the SQLite version, on demand. */
static void show_log(void *arg, int level, const char *line)
{
    (void)arg;
    if (level <= 3 || getenv("BENCH_LOG"))
        fprintf(stderr, "relay: %s\n", line);
}

outbox_relay_t *bench_relay(const char *path, bench_send *send, void *ctx,
                            const char *subscription, int64_t keep_ms,
                            const outbox_allocator *allocator)
{
    outbox_options options = { .size = sizeof options,
                               .allocator = allocator };
    outbox_transport transport = { .size = sizeof transport,
                                   .name = "bench", .ctx = ctx, .send = send };
    outbox_relay_options how = { .size = sizeof how,
                                 .subscription = subscription,
                                 .keep_ms = keep_ms, .log = show_log };
    outbox_error err = { 0 };
    outbox_relay_t *relay = NULL;
    outbox_t *ob = NULL;

    bench_check(outbox_sqlite_connect(&ob, path, &options, &err), &err,
                "connect");
    bench_check(outbox_relay_new(&relay, ob, &transport, &how, &err), &err,
                "relay");
    return relay;
}

int bench_step(outbox_relay_t *relay, int timeout_ms)
{
    outbox_error err = { 0 };
    int rc = outbox_relay_step(relay, timeout_ms, &err);

    bench_check(rc, &err, "step");
    return rc;
}

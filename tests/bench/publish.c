/* SPDX-License-Identifier: MIT
 *
 * publish.c - what an event costs the business transaction: the library's
 *             row against the same row written by hand into the same table,
 *             each contender in a file of its own.
 */
#include "bench.h"

enum { BATCH = 100 };

typedef struct contest {
    shop shop;
    int  turn;                          /* transactions per turn */
} contest;

static void run_plain(bench_side *side)
{
    contest *c = side->arg;
    double from = bench_now();

    for (int i = 0; i < c->turn; i++) {
        shop_begin(&c->shop);
        shop_business(&c->shop);
        shop_commit(&c->shop);
    }
    side->seconds += bench_now() - from;
    side->work += c->turn;
}

static void run_by_hand(bench_side *side)
{
    contest *c = side->arg;
    double from = bench_now();

    for (int i = 0; i < c->turn; i++) {
        shop_begin(&c->shop);
        shop_business(&c->shop);
        shop_insert_event(&c->shop);
        shop_commit(&c->shop);
    }
    side->seconds += bench_now() - from;
    side->work += c->turn;
}

static void run_publish(bench_side *side)
{
    contest *c = side->arg;
    double from = bench_now();

    for (int i = 0; i < c->turn; i++) {
        shop_begin(&c->shop);
        shop_business(&c->shop);
        shop_publish(&c->shop);
        shop_commit(&c->shop);
    }
    side->seconds += bench_now() - from;
    side->work += c->turn;
}

static void run_publish_commit(bench_side *side)
{
    contest *c = side->arg;
    double from = bench_now();

    for (int i = 0; i < c->turn; i++) {
        shop_begin(&c->shop);
        shop_business(&c->shop);
        shop_publish_commit(&c->shop);
    }
    side->seconds += bench_now() - from;
    side->work += c->turn;
}

static void run_batch_by_hand(bench_side *side)
{
    contest *c = side->arg;
    double from = bench_now();

    for (int i = 0; i < c->turn; i++) {
        shop_begin(&c->shop);
        shop_business(&c->shop);
        for (int k = 0; k < BATCH; k++)
            shop_insert_event(&c->shop);
        shop_commit(&c->shop);
    }
    side->seconds += bench_now() - from;
    side->work += (double)c->turn * BATCH;
}

static void publish_batch(shop *s)
{
    static outbox_event ev[BATCH];
    const outbox_event *list[BATCH];
    outbox_error err = { 0 };

    for (int k = 0; k < BATCH; k++) {
        shop_fill(s, &ev[k]);
        list[k] = &ev[k];
    }
    bench_check(outbox_publish_many(s->ob, list, BATCH, &err), &err,
                "publish_many");
}

static void run_batch(bench_side *side)
{
    contest *c = side->arg;
    double from = bench_now();

    for (int i = 0; i < c->turn; i++) {
        shop_begin(&c->shop);
        shop_business(&c->shop);
        publish_batch(&c->shop);
        shop_commit(&c->shop);
    }
    side->seconds += bench_now() - from;
    side->work += (double)c->turn * BATCH;
}

/* The files of the last contest are gone; each begins with an empty one. */
static void compete(bench_side *side, int n, int turn, int rounds, int turns,
                    const char *synchronous)
{
    static contest contests[4];
    static const char *const names[] = { "a.db", "b.db", "c.db", "d.db" };

    for (int i = 0; i < n; i++) {
        shop_create(bench_file(names[i]));
        shop_open(&contests[i].shop, bench_file(names[i]), synchronous);
        contests[i].turn = turn;
        side[i].arg = &contests[i];
    }
    bench_duel(side, n, rounds, turns);
    for (int i = 0; i < n; i++)
        shop_close(&contests[i].shop);
}

static void single_events(const char *synchronous, int turn, int rounds)
{
    bench_side side[] = {
        { .run = run_plain }, { .run = run_by_hand },
        { .run = run_publish }, { .run = run_publish_commit },
    };

    compete(side, 4, turn, rounds, 8, synchronous);
    bench_title(bench_text("publish, synchronous=%s, one event", synchronous));
    bench_rate_row("no outbox", "tx/s", &side[0], &side[1], rounds, 0);
    bench_rate_row("INSERT by hand", "tx/s", &side[1], &side[1], rounds, 0);
    bench_rate_row("outbox_publish", "tx/s", &side[2], &side[1], rounds, 0.95);
    bench_rate_row("outbox_publish_commit", "tx/s", &side[3], &side[1],
                   rounds, 0);
}

static void many_events(const char *synchronous, int turn, int rounds)
{
    bench_side side[] = { { .run = run_batch_by_hand }, { .run = run_batch } };

    compete(side, 2, turn, rounds, 4, synchronous);
    bench_title(bench_text("publish, synchronous=%s, %d events", synchronous,
                           BATCH));
    bench_rate_row("INSERT by hand", "events/s", &side[0], &side[0], rounds,
                   0);
    bench_rate_row("outbox_publish_many", "events/s", &side[1], &side[0],
                   rounds, 0);
}

void bench_publish(void)
{
    int rounds = bench_quick ? 5 : 15;
    int scale = bench_quick ? 2 : 1;

    single_events("FULL", 100 / scale, rounds);
    single_events("NORMAL", 600 / scale, rounds);
    many_events("FULL", 50 / scale, rounds);
    many_events("NORMAL", 50 / scale, rounds);
}

/* SPDX-License-Identifier: MIT
 *
 * bench.h - what the parts of the benchmark share: time, a duel of
 *           contenders in turn, the table, the files, and a small shop that
 *           makes business transactions to hang events on.
 *
 * The machine's speed drifts by a factor of two within an hour, so a figure
 * alone says little.  Contenders run in short turns, one after the other, and
 * each round gives one ratio; the median of the rounds is what counts.
 */
#ifndef BENCH_H
#define BENCH_H

#include <outbox/sqlite.h>

#include <sqlite3.h>
#include <stdint.h>
#include <time.h>

enum { BENCH_MAX_ROUNDS = 16, BENCH_PAYLOAD = 256 };

extern int bench_quick;         /* a tenth of the work, rough figures */
extern const char *bench_program;           /* argv[0] */

/* Ends with one without a name. */
typedef struct bench_part {
    const char *name;
    void (*run)(void);
    const char *what;
} bench_part;

int bench_main(const bench_part *parts, void (*head)(void), int argc,
               char **argv);

/* What cannot be measured ends the program; a goal missed does not. */
void bench_die(const char *format, ...)
    __attribute__((noreturn, format(printf, 1, 2)));
void bench_check(int rc, const outbox_error *err, const char *what);

/* ---- time and figures -------------------------------------------------- */

double bench_now(void);                         /* seconds, monotonic */
double bench_cpu(void);                         /* seconds of this process */
double bench_percentile(double *v, int n, double p);    /* sorts v */
double bench_median(double *v, int n);                  /* sorts v */

/* One contender.  run does one turn and adds to work and seconds. */
typedef struct bench_side bench_side;
struct bench_side {
    void (*run)(bench_side *side);
    void  *arg;
    double work, seconds;                   /* in this round */
    double rate[BENCH_MAX_ROUNDS];          /* out: work per second */
};

typedef struct bench_ratio { double median, min, max; } bench_ratio;

/* In each round every side has turns turns, in changing order. */
void bench_duel(bench_side *side, int n, int rounds, int turns);
double bench_rate(const bench_side *side, int rounds);
bench_ratio bench_compare(const bench_side *side, const bench_side *base,
                          int rounds);

/* ---- the table --------------------------------------------------------- */

enum bench_result { BENCH_INFO, BENCH_OK, BENCH_MISS };

/* Text in one of a few static buffers, for the arguments below. */
const char *bench_text(const char *format, ...)
    __attribute__((format(printf, 1, 2)));
const char *bench_count(double n, const char *unit);    /* "12,345 tx/s" */
const char *bench_time(double seconds);                 /* "87 us" */

void bench_head(void);
void bench_title(const char *title);
void bench_row(const char *what, const char *figure, const char *ratio,
               const char *goal, enum bench_result result);
/* A rate, its ratio to base's, and a goal for the ratio (0: none). */
void bench_rate_row(const char *what, const char *unit, const bench_side *side,
                    const bench_side *base, int rounds, double goal);
void bench_foot(void);

/* ---- files ------------------------------------------------------------- */

void bench_place_open(void);                /* a directory of our own */
const char *bench_place(void);
const char *bench_place_kind(void);         /* "ext4" */
/* Median seconds of an fdatasync after 4 KiB, and of one after nothing. */
void bench_place_sync(double *dirty, double *clean);
/* A path in it, removed with its -wal and -shm at the end. */
const char *bench_file(const char *name);
void bench_remove(const char *path);        /* with its -wal and -shm */
void bench_copy(const char *from, const char *to);

/* ---- the shop: business on one connection ------------------------------ */

typedef struct shop {
    sqlite3 *db;
    sqlite3_stmt *begin, *commit, *pay, *order, *event;
    outbox_t *ob;
    uint64_t n, random;                     /* transactions so far; ids */
    char key[24];
    unsigned char payload[BENCH_PAYLOAD];
} shop;

void shop_create(const char *path);         /* tables; replaces the file */
void shop_open(shop *s, const char *path, const char *synchronous);
void shop_close(shop *s);
void shop_begin(shop *s);                   /* retries while busy */
void shop_business(shop *s);                /* one UPDATE, one INSERT */
void shop_commit(shop *s);
void shop_fill(shop *s, outbox_event *ev);  /* the next event, borrowed */
void shop_publish(shop *s);
void shop_publish_commit(shop *s);
void shop_insert_event(shop *s);            /* the same row, by hand */
int64_t shop_ask(shop *s, const char *sql); /* one number */

/* A relay on path that hands its events to send(ctx, ...). */
typedef outbox_verdict bench_send(void *ctx, const outbox_event *ev,
                                  outbox_token token, outbox_error *why);
outbox_relay_t *bench_relay(const char *path, bench_send *send, void *ctx,
                            const char *subscription, int64_t keep_ms,
                            const outbox_allocator *allocator);
int bench_step(outbox_relay_t *relay, int timeout_ms);
/* Ten years: nothing is trimmed. */
#define BENCH_KEEP (INT64_C(10) * 365 * 86400 * 1000)

/* ---- samples: from a commit to its event's callback --------------------- */

enum { BENCH_SAMPLES = 2000 };

/* Events are told apart by an int32_t at the head of the payload. */
typedef struct bench_samples {
    double committed[BENCH_SAMPLES], received[BENCH_SAMPLES];
    int    n_received;                      /* atomic */
} bench_samples;

bench_send bench_stamp;                     /* ctx: the samples */
/* Sleeps until ns after *at, which then is now. */
void bench_sleep_to(struct timespec *at, long ns);
/* Shared with another process, by a file; and gone again. */
bench_samples *bench_samples_map(const char *path);
void bench_samples_unmap(bench_samples *s, const char *path);
/* This program once more, as the other process; argv ends with NULL. */
void bench_run_again(const char *const argv[]);
void bench_await(bench_samples *s, int n);
/* Seconds from commit to callback; returns the median. */
double bench_delays(const bench_samples *s, int n, double v[BENCH_SAMPLES]);
void bench_delay_row(const bench_samples *s, int n, const char *what,
                     double goal);
void bench_start(outbox_relay_t *relay);
void bench_stop(outbox_relay_t *relay);     /* and free */

/* ---- the parts --------------------------------------------------------- */

void bench_publish(void);
void bench_drain(void);
void bench_steady(void);
void bench_latency(void);
void bench_alloc(void);

/* The other process of the latency part. */
int bench_publisher_main(int argc, char **argv);

#endif

/* SPDX-License-Identifier: MIT
 *
 * failover.h - what happens to real processes: relays that are killed,
 * stopped and restarted, clocks that lie, loads of odd shapes, events that
 * kill.  Each finding is a row of one table, with the limit it is held to.
 *
 * Records, children, publishers and payloads are those of tests/torture.
 */
#ifndef FAILOVER_H
#define FAILOVER_H

#include <stddef.h>

#include "torture/torture.h"

enum { LANES = 16 };                    /* of a database made by migrate */

/* ---- the table (table.c) ------------------------------------------------ */

enum { NO_LIMIT = -1 };

/* At most limit; exactly expected. */
void row_most(const char *what, double figure, const char *unit, double limit);
void row_just(const char *what, double figure, const char *unit,
              double expected);
void row_failed(void);          /* one that was printed elsewhere */
int rows_failed(void);
void table_head(void);

typedef struct samples {
    int64_t *v;
    size_t n, size;
} samples;

void samples_add(samples *s, int64_t v);
int64_t samples_at(samples *s, int permille);   /* 1000: the greatest */
void samples_free(samples *s);

int64_t now_us(void);           /* CLOCK_MONOTONIC, as now_ms() */
int64_t memory_now(void);       /* resident, in bytes */
int64_t memory_peak(void);
void memory_peak_reset(void);

/* ---- a database to work on (field.c) ------------------------------------ */

typedef struct field {
    char dir[PATH_BYTES];
    task job;
} field;

void field_make(field *f, uint64_t seed);
/* Removes it, or keeps it, and says where, if failures is not 0. */
void field_clear(field *f, int64_t failures);
/* A role, in a process whose memory is its own; it prints its rows. */
void play_apart(const char *role, field *f);
int64_t field_number(const field *f, const char *sql);

/* A writer of this process, for events that a scenario chooses itself. */
typedef struct writer {
    sqlite3 *db;
    outbox_t *ob;
} writer;

void writer_open(writer *w, const char *dir, size_t max_payload);
void writer_close(writer *w);
void writer_begin(writer *w);
void writer_put(writer *w, const outbox_event *ev);
void writer_commit(writer *w);
/* One event with a payload, in a transaction of its own. */
void writer_one(writer *w, const char *key, const char *payload);

/* A relay of this process.  Zero options mean those of the subscription
 * "failover". */
outbox_relay_t *relay_make(const char *dir, const outbox_transport *tp,
                           outbox_relay_options opt);
void relay_steps(outbox_relay_t *r, int ms);    /* until ms have passed */
void relay_end(outbox_relay_t *r);
outbox_stats relay_look(outbox_relay_t *r);

/* ---- a relay in a process of its own (server.c) ------------------------- */

/* Roles: ends at SIGTERM, or when all has been delivered. */
int server_main(const task *job);
int drainer_main(const task *job);
int poisoned_main(const task *job);

/* What the relays of a run had counted when they ended. */
typedef struct ending {
    int32_t run, pad;
    int64_t lost, expired, parked, dead;
} ending;

int64_t endings_lost(const field *f);
int64_t endings_expired(const field *f);
bool field_drain(const field *f);       /* a relay runs until all is done */

/* ---- who delivered what, and when (times.c) ----------------------------- */

typedef struct delivery {
    int32_t run, lane;          /* lane -1: the relay has stopped cleanly */
    int64_t published_us, at_us, pad;
} delivery;

int times_open(const char *dir);
void times_append(int fd, const delivery *d);

/* The lanes of a victim, and who had them next. */
typedef struct watch {
    int run;                    /* the victim's */
    int64_t stopped_us;         /* 0: has not said so */
    int waiting;                /* lanes that nobody has taken up yet */
    delivery next[LANES];       /* lane -2: not concerned, -1: waiting */
    int64_t last_us[LANES];     /* the victim's own last delivery */
} watch;

typedef struct board {
    int fd;
    int64_t offset, deliveries, longest_us;
    delivery last[LANES];
    int64_t last_us;
} board;

void board_open(board *b, const char *dir);
void board_follow(board *b, watch *w);
void board_watch(const board *b, watch *w, int run);
void board_close(board *b);

/* ---- the machine's own pauses (pulse.c) --------------------------------- */

int pulse_main(const task *job);
int64_t pulse_halted(const char *dir, int64_t from_us, int64_t to_us);

/* ---- the judge (judge.c) ------------------------------------------------ */

typedef struct verdicts {
    int64_t events, deliveries, duplicates, violations;
} verdicts;

/* From the history, the ledger and the business rows alone. */
void judge(const field *f, verdicts *out);
int64_t judge_missing(const field *f);

/* ---- scenarios ---------------------------------------------------------- */

typedef struct dose {
    int rounds;
    bool small;                 /* a taste of each, for every change */
    uint64_t seed;
} dose;

void rounds_play(const dose *d);
void clocks_play(const dose *d);
void poison_play(const dose *d);
void crowd_play(const dose *d);
void pile_play(const dose *d);
void heavy_play(const dose *d);
void outage_play(const dose *d);
void notice_play(const dose *d);

/* Roles: the relay of a scenario, in a process of its own, and publishers. */
int crowd_main(const task *job);
int pile_main(const task *job);
int heavy_main(const task *job);
int steady_main(const task *job);
int timed_main(const task *job);
int megabytes_main(const task *job);
int notice_main(const task *job);
int seldom_main(const task *job);

#endif

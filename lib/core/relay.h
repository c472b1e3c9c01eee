/* SPDX-License-Identifier: MIT
 *
 * relay.h - the relay's state, shared by the files that are its parts:
 * relay.c takes turns, lease.c holds lanes, deliver.c reads and sends,
 * verdict.c judges, blocked.c keeps chains apart (in tables, table.c),
 * progress.c saves, options.c checks what was asked, thread.c runs it, settle.c
 * is for other threads.
 */
#ifndef OB_RELAY_H
#define OB_RELAY_H

#include "core.h"
#include "table.h"
#include "window.h"

enum {
    OB_SEND_BATCH = 64,         /* sent between two looks at the rest */
    OB_MAX_CHANGES = 1000,      /* in one transaction of ours */
    OB_MAX_PEERS = 64,          /* relays of one subscription */
    OB_TRIM_ROWS = 500,         /* in one transaction of ours */
    OB_LOAD_ROWS = 100,         /* parked rows of a chain, at a time */
    OB_LOAD_CHAINS = 64,        /* in one turn, for others wait meanwhile */
    OB_PROMOTE_ROWS = 500,      /* scheduled events, at a time */
    OB_TRIAL_EVENTS = 1000,     /* of a lane that killed its owners */
    OB_RECORDS = 4096,
    OB_STARTS = 256,
    OB_LINE = 256, OB_LINES = 32    /* of the log, in one turn */
};

typedef struct ob_lane {
    bool          mine, leaving;
    uint32_t      lease;        /* counts our leases of it: slots carry it */
    int64_t       token;
    uint32_t      trials;       /* left to be sent on trial, one by one */
    uint32_t      precounts;    /* parked ones left whose attempt is counted
                                   before the send */
    bool          on_trial;     /* a start was noted that no save ended */
    outbox_cursor read;         /* what the next read follows */
    outbox_cursor done;         /* saved, or its last slot that was retired */
    outbox_cursor saved;
    /* Of another's lease: what was last seen, and since when. */
    uint8_t       owner[16];
    int64_t       seen_token, seen_beat, seen_ms;
} ob_lane;

typedef struct ob_peer {
    outbox_beat beat;
    int64_t     seen_ms;
    bool        absent;         /* takes nothing, though lanes lie free */
    int         missed;         /* how often so, in a row */
} ob_peer;

/* A chain whose events go to the parked rows, behind the one that failed. */
typedef struct ob_blocked {
    ob_node  node;              /* by chain */
    int64_t  due_ms;            /* try its parked rows again */
    uint32_t lane;
    uint32_t loaded;            /* of its parked rows, in the window */
    bool     dead;              /* waits for a person */
    bool     head_passed;       /* load more than that */
    bool     recalled;          /* it may have another head by now */
    /* Of the parked event that failed last, at this position. */
    int64_t  position;
    bool     open_case;         /* it failed, and that was not counted */
    bool     forgiven;          /* it was, once */
    uint32_t others;            /* answered before it failed */
    uint32_t tries;             /* since its last count */
} ob_blocked;

/* An event that the log has past a cursor, and that is parked, dead or
 * discarded. */
typedef struct ob_aside {
    ob_node  node;              /* by position */
    uint8_t  id[16];            /* positions are another's in another log */
    uint32_t lane;
    uint32_t load;              /* which has found it last */
    bool     met;               /* by the read that is going on, there: */
    outbox_cursor    at;
    struct ob_aside *next_met;
} ob_aside;

/* A parked event whose attempt this process has counted before the send, and
 * what it had before. */
typedef struct ob_start {
    int64_t  position;
    uint32_t attempts;
} ob_start;

/* A verdict of our own: not sent, for it has killed too often. */
#define OB_CONDEMNED ((outbox_verdict)4)

enum ob_breaker { OB_CLOSED, OB_OPEN, OB_HALF_OPEN };

struct outbox_relay {
    outbox_t            *ob;
    outbox_store        *store;
    outbox_allocator     mem;
    outbox_transport     tp;
    outbox_relay_options opt;
    char                *names; /* of the subscription and the transport */
    uint8_t              id[16];
    uint64_t             chance;        /* of jitter and probes */
    pid_t                pid;
    ob_waker             waker;

    /* Guarded by lock. */
    pthread_mutex_t lock;
    pthread_cond_t  ended;
    ob_window       win;
    outbox_stats    stats;
    bool            stepping, running, stopping;
    bool            returned;   /* the thread has, and can be joined */
    bool            joining;    /* by one of those who stop it */
    unsigned        runs;       /* of threads, so far */
    int             stop_ms, stop_rc;
    outbox_error    stop_err;
    pthread_t       thread;

    /* The stepping thread's own. */
    outbox_subscription sub;
    bool      attached, opened, dirty;
    bool      log_idle;         /* not to be read until there is a wake-up, a
                                   poll, room or a lane */
    uint32_t  answers_seen;     /* by the last turn */
    uint32_t  failures;         /* of attach or open, in a row */
    int64_t   now_ms;
    int64_t   store_ms;         /* of the database, for what expires */
    int64_t   again_ms, open_ms;        /* not before: attach; open */
    int64_t   beat_ms, look_ms, lease_until_ms, save_ms, count_ms, trim_ms;
    int64_t   promote_ms;       /* the next scheduled event is due */
    int64_t   generation;       /* of the dead that is known here */
    int64_t   serial;           /* of the last send */
    uint64_t  parked;           /* rows of this subscription, about */
    uint32_t  answers;          /* events that passed, or were rejected */
    int64_t   deadline_ms;      /* the earliest when_ms in the window */
    uint64_t  retired;          /* events settled in this turn */
    bool      want_trim, more;  /* more: the turn should be followed by one */
    bool      full;             /* the window had no room for more */
    bool      log_first;        /* it had none for the log: its turn now */
    bool      cramped;          /* nor for a parked chain, in this turn */
    bool      unflushed;        /* an event has failed since the last flush */
    bool      draining;         /* nothing new is taken or sent */
    bool      closing;          /* the next save gives every lane back */
    bool      hinted;           /* a publisher announced something */
    bool      woken;            /* somebody committed */
    bool      slept;            /* since the last look at the leases */
    bool      lost;             /* was attached before */
    bool      known;            /* the subscription exists, or did */
    int64_t   looked_ms, poll_ms, poll_due_ms, busy_ms;
    ob_lane   lanes[OUTBOX_MAX_LANES];
    ob_peer   peers[OB_MAX_PEERS];
    int       n_peers;
    int64_t   dealt_ms;         /* lying free counts from then on */
    ob_table  blocked;          /* of ob_blocked */
    uint32_t  blocked_hand;     /* bucket that was looked at last */
    int64_t   blocked_due_ms;   /* none is due before */
    ob_table  aside;            /* of ob_aside */
    ob_aside *aside_met;
    uint32_t  aside_load;       /* the last one of all lanes */
    enum ob_breaker breaker;
    bool      doubtful;         /* open, but no witness has failed yet */
    bool      has_records;
    bool      room_owed;        /* by a probe that failed: one of a full
                                   window may be set aside */
    /* Starts noted by this process: not forgotten with the rest. */
    ob_start  starts[OB_STARTS];
    uint32_t  n_starts;         /* the oldest make room for more */
    uint64_t  records[OB_RECORDS];      /* chains that have passed lately */
    int64_t   breaker_until_ms, breaker_pause_ms;
    char         (*lines)[OB_LINE]; /* to be logged when no lock is held */
    int           *levels;
    unsigned       n_lines;     /* more than OB_LINES: some were dropped */
    outbox_change *changes;
    ob_slot      **changed;
    ob_scratch     scratch;     /* for the event being sent */
};

/* ---- relay.c -------------------------------------------------------- */

int64_t ob_relay_clock(const outbox_relay_t *r);
/* Logged at the end of the turn: the callback is never called with a lock
 * held.  The stepping thread only. */
void ob_relay_log(outbox_relay_t *r, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void ob_relay_log_flush(outbox_relay_t *r);
/* Whatever was in memory is read again, by us or by the next owner. */
void ob_relay_forget(outbox_relay_t *r);
/* One turn that does not wait; r->retired counts what it settled. */
int ob_relay_turn(outbox_relay_t *r, outbox_error *err);
int ob_relay_count(outbox_relay_t *r, outbox_error *err);
int ob_relay_attach(outbox_relay_t *r, outbox_error *err);
void ob_relay_sleep(outbox_relay_t *r, int timeout_ms);
int ob_relay_do_step(outbox_relay_t *r, int timeout_ms, outbox_error *err);

/* ---- thread.c ------------------------------------------------------- */

/* NULL, or from before a fork. */
int ob_relay_check(const outbox_relay_t *r, outbox_error *err);

/* ---- options.c ------------------------------------------------------ */

/* Check and copy both into r, with defaults for what is zero. */
int ob_relay_options(outbox_relay_t *r, const outbox_transport *tp,
                     const outbox_relay_options *opt, outbox_error *err);

/* ---- lease.c -------------------------------------------------------- */

int  ob_lease_turn(outbox_relay_t *r, outbox_error *err);
bool ob_lease_valid(const outbox_relay_t *r, int64_t now_ms);
void ob_lease_lost(outbox_relay_t *r, uint32_t lane);
void ob_lease_taken(outbox_relay_t *r, uint32_t lane);  /* by others */
uint32_t ob_lease_count(const outbox_relay_t *r);
/* Lanes that are ours in the store, and not here. */
uint32_t ob_lease_forgotten(const outbox_relay_t *r);

/* ---- deliver.c ------------------------------------------------------ */

int ob_deliver_read(outbox_relay_t *r, outbox_error *err);
int ob_deliver_parked(outbox_relay_t *r, outbox_error *err);
bool ob_deliver_loads(outbox_relay_t *r);
int ob_deliver_send(outbox_relay_t *r, outbox_error *err);
/* Move scheduled events into the log when they are due. */
int ob_deliver_scheduled(outbox_relay_t *r, outbox_error *err);

/* ---- verdict.c ------------------------------------------------------ */

void ob_verdict_apply(outbox_relay_t *r, ob_slot *s, outbox_verdict v);
void ob_verdict_turn(outbox_relay_t *r);
/* Is one ready that has not failed since it was read? */
bool ob_verdict_has_fresh(outbox_relay_t *r);
/* For a window that is full and stands still. */
void ob_verdict_make_room(outbox_relay_t *r);
void ob_verdict_resume(outbox_relay_t *r, ob_slot *s, uint32_t others);
/* Parked rows that wait here go back to their table, which has changed. */
void ob_verdict_recall(outbox_relay_t *r);
/* It holds up others: to the parked rows, without a count. */
void ob_verdict_set_aside(outbox_relay_t *r, ob_slot *s);
/* What was counted before a send that will have no verdict: the next save
 * takes it back. */
void ob_verdict_take_back(outbox_relay_t *r);
/* Its time is over: settled without having been delivered. */
void ob_verdict_expired(outbox_relay_t *r, ob_slot *s);
/* May events be sent now?  *probe: only one, this one. */
bool ob_breaker_allows(outbox_relay_t *r, ob_slot **probe);
int64_t ob_backoff(outbox_relay_t *r, uint32_t failures);

/* ---- blocked.c ------------------------------------------------------ */

ob_blocked *ob_blocked_find(const outbox_relay_t *r, uint64_t chain);
ob_blocked *ob_blocked_add(outbox_relay_t *r, uint64_t chain, uint32_t lane);
void ob_blocked_remove(outbox_relay_t *r, uint64_t chain);
void ob_blocked_drop_lane(outbox_relay_t *r, uint32_t lane);
/* Is it set aside?  Then it is forgotten by passed(), which ends each read,
 * when its lane has been read past it. */
bool ob_aside_has(outbox_relay_t *r, const outbox_row *row);
void ob_aside_passed(outbox_relay_t *r);
void ob_blocked_due(outbox_relay_t *r, ob_blocked *b, int64_t due_ms);
ob_blocked *ob_blocked_next_due(outbox_relay_t *r);
/* What is known of the event that failed holds for this one only. */
void ob_blocked_at(ob_blocked *b, int64_t position);
/* An outage is over: what failed in it is forgiven, once, and due now. */
void ob_blocked_forgive(outbox_relay_t *r);
void ob_blocked_clear(outbox_relay_t *r);
/* Ask the store again which chains of our lanes are blocked. */
int ob_blocked_reload(outbox_relay_t *r, outbox_error *err);
int ob_blocked_load(outbox_relay_t *r, uint32_t lane, outbox_error *err);

/* ---- progress.c ----------------------------------------------------- */

bool ob_cursor_follows(const outbox_cursor *c, const outbox_cursor *other);
void ob_progress_retire(outbox_relay_t *r);
/* A start was noted that no save has ended. */
bool ob_progress_on_trial(const outbox_relay_t *r);
bool ob_progress_due(const outbox_relay_t *r);
int  ob_progress_save(outbox_relay_t *r, outbox_error *err);
int  ob_progress_trim(outbox_relay_t *r, outbox_error *err);

#endif

/* SPDX-License-Identifier: MIT
 *
 * sim.h - the simulator: a whole deployment in one thread, driven by one seed.
 *
 * A run is publishers, relays, destinations, people and faults over one store
 * in memory, each a task with a time at which it goes on.  Time is virtual:
 * it jumps to the next task.  A relay is a coroutine that may be suspended, or
 * die, at every operation of its store and at every call of its transport, so
 * that relays interleave where processes would.  Everything is drawn from the
 * seed; a seed replays exactly.
 *
 * What happens is told to the judge (judge.c), which knows from outside what
 * was committed, delivered and saved, and says what must not have been.
 */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core.h"
#include "memory/memory_store.h"

enum {
    SIM_EVENTS = 640,           /* of one run, with canaries */
    SIM_KEYS = 12,
    SIM_SUBS = 3,
    SIM_RELAYS = 5,             /* processes */
    SIM_PUBLISHERS = 3,
    SIM_LANES = 8,
    SIM_COPIES = 1024,          /* under way at once */
    SIM_TX = 24,                /* events of one transaction */
    SIM_PAYLOAD = 2048,
    SIM_TEXT = 256
};

typedef struct sim sim;
typedef struct process process;

/* ---- chance ---------------------------------------------------------- */

typedef struct rng { uint64_t state; } rng;

uint64_t rng_next(rng *g);
uint32_t rng_below(rng *g, uint32_t n);             /* 0 when n is 0 */
int64_t  rng_between(rng *g, int64_t least, int64_t most);
bool     rng_chance(rng *g, uint32_t permille);

/* ---- coroutines ------------------------------------------------------ */

typedef struct coro coro;

coro *coro_new(void);
void  coro_free(coro *c);
/* The next resume begins at fn, whatever ran in it before. */
void  coro_begin(coro *c, void (*fn)(void *arg), void *arg);
/* Returns when it yields or has ended. */
void  coro_resume(coro *c);
void  coro_yield(void);
bool  coro_ended(const coro *c);
bool  coro_slow(void);          /* a sanitizer watches */

/* ---- the plan of a run ----------------------------------------------- */

enum {                          /* what may go wrong */
    FAULT_CRASH = 1,            /* a process dies between two steps, or... */
    FAULT_POINTS = 2,           /* ... within one, or hangs there */
    FAULT_STOP = 4,             /* clean stops */
    FAULT_SLOW = 8,             /* operations take time */
    FAULT_CLOCK = 16,           /* the process is preempted as it reads it */
    FAULT_ERRORS = 32,          /* the store fails */
    FAULT_ANSWERS = 64,         /* the store does it, and its answer is lost */
    FAULT_SKEW = 128            /* the wall clock jumps */
};

enum {                          /* how it is published */
    PUB_ROLLBACK = 1, PUB_SAVEPOINT = 2, PUB_MANY = 4, PUB_COMMIT = 8,
    PUB_DOUBT = 16, PUB_DUE = 32, PUB_EXPIRES = 64, PUB_DEDUP = 128,
    PUB_KEYLESS = 256, PUB_BACKLOG = 512, PUB_HOLD = 1024, PUB_TOPICS = 2048,
    PUB_BIG = 4096
};

enum {                          /* what people do */
    DO_PAUSE = 1, DO_REPLAY = 2, DO_REVIVE = 4, DO_DISCARD = 8,
    DO_UNSUBSCRIBE = 16
};

/* What an event does to a destination. */
enum fate { FATE_GOOD, FATE_FLAKY, FATE_POISON, FATE_REJECT, FATE_KILLER };

typedef struct sub_plan {
    outbox_relay_options opt;   /* of all its relays */
    int      relays;
    uint32_t lanes[SIM_RELAYS]; /* max_lanes of each */
    uint32_t flags;             /* of the transport */
    bool     async, polled;     /* polled: settles in poll only */
    uint32_t latency_ms;        /* at most */
    /* Per thousand sends: failures, failures of what was delivered, verdicts
     * that never come, second verdicts, verdicts before send returns. */
    uint32_t noise, doubt, lost, twice, early;
    uint32_t no_open;           /* per thousand opens that fail */
    /* Per thousand events. */
    uint32_t flaky, poison, reject, killer;
    int64_t  down_ms, up_ms;    /* unreachable from, until */
    int      filter;            /* index of topic_filters */
} sub_plan;

typedef struct plan {
    uint32_t faults, publish, people;
    int      lanes, keys, publishers, subs, events;
    uint32_t keyless;           /* per thousand */
    int64_t  chaos_ms;          /* then faults stop */
    int64_t  gap_ms;            /* between two transactions of a publisher */
    int64_t  max_backlog;
    uint32_t lease_ms;          /* of all relays, at least */
    uint32_t crash_ms;          /* between two crashes or stops, about */
    bool     sleeps, notices;   /* relays sleep in steps; notice commits */
    bool     poked;             /* publishers share a process with relays */
    bool     heals;             /* at the end people revive, else discard */
    sub_plan sub[SIM_SUBS];
} plan;

void plan_make(plan *p, rng *g);
bool plan_matches(const sub_plan *s, int topic);
/* Leave a part out, without another draw. */
void plan_without(plan *p, const char *name);
bool plan_part(const char *name);       /* is there one of that name? */
void plan_print(const plan *p);
extern const char *const sim_topics[3];

/* ---- what there is --------------------------------------------------- */

/* What one subscription has made of one event. */
typedef struct view {
    uint8_t  fate, left;        /* FLAKY, KILLER: how often still */
    bool     covered;           /* settled, and that is saved */
    bool     was_dead, rejected;
    bool     discarded, forsaken;       /* forsaken: once, though replayed */
    bool     counted;           /* its last failure may have been */
    bool     failed;            /* the relay knows that its last send failed */
    bool     suspect;           /* an earlier one had failed, uncounted */
    int      arrivals, parked, dead;
    int64_t  sent_ms, arrived_ms;       /* last */
    int64_t  needed_ms;         /* to be delivered since then */
    uint32_t failures, deaths, kills, moves;
    uint32_t sent_by, acked_by, forgiven_by;    /* incarnations */
    uint32_t lost_by[SIM_RELAYS];       /* its last send vanished */
    uint32_t room_by;           /* parked by it, and not counted yet */
    uint32_t ahead_by, ahead;   /* counted by it before a send: so many */
    uint64_t sent_step, acked_step;
    uint64_t serial;            /* of its last send */
} view;

typedef struct event {
    uint8_t  id[16];
    char     text[OB_UUID_TEXT];
    int      key, topic, dedup; /* -1: none */
    uint32_t lane, len;
    uint64_t chain;
    int64_t  due_ms, expires_ms, published_ms, position;
    bool     later;             /* waits outside the log at first */
    int      order;             /* in the log; -1: not in it */
    int      before;            /* the one of its key before it; -1 */
    bool     canary;
    view     views[SIM_SUBS];
} event;

typedef struct lane {
    int64_t  token, position;
    uint32_t owner;             /* incarnation; 0: free */
    uint32_t moves;             /* of the cursor, and releases */
    int      trying;            /* event on trial; -1: none */
    int      at;                /* events of the log that it is past */
    uint64_t taken;             /* by a person, at that tick */
} lane;

typedef struct subscriber {
    const sub_plan *plan;
    bool    exists, gone, paused, replayed;
    int     first;              /* in the log that it must deliver */
    int     start;              /* the same, but for replays */
    int64_t paused_ms;
    uint64_t paused_tick;
    lane    lanes[SIM_LANES];
} subscriber;

/* A store that stands before the one in memory. */
typedef struct sim_store {
    outbox_store  base;         /* first */
    outbox_store *inner;
    process      *p;
} sim_store;

struct process {
    sim      *w;
    int       slot, sub, nth;   /* nth: of its subscription */
    uint32_t  incarnation;      /* 0: not running */
    coro     *co;
    int64_t   wake_ms, gap_ms;
    bool      asleep;           /* in wait: wake-ups end it */
    bool      dying, leaving;
    bool      open;             /* its transport */
    outbox_relay_t *relay;
    mem_conn *link;
    sim_store store;
    void     *blocks;           /* all memory of the library's */
    rng       entropy;
    int64_t   clock_base, clock_ms;     /* clock_ms: when it was read last */
    uint32_t  commits;          /* that it has noticed */
    /* This step. */
    uint64_t  step;
    int64_t   step_ms, sent_ms; /* sent_ms: clock before this send */
    int64_t   token_serial;     /* of the last send */
    uint64_t  looked;           /* tick of its last look at the leases */
    bool      passed, passed_before, breaker, busy, attached;
    int       sends;
    int64_t   spin_ms;          /* spins: steps at that moment */
    int       spins, spun_ms;
    /* Since when nothing has happened, as of the end of a step. */
    int64_t   quiet_ms;
    uint64_t  activity, activity_seen;
    int       unsettled[SIM_EVENTS], n_unsettled;       /* sent */
    int       rooms;            /* events that made room */
    int       failing[SIM_KEYS];        /* ORDERED: failures not reported */
    bool      fails[SIM_KEYS];          /* until flush */
    int64_t   last_arrival[SIM_KEYS];   /* ORDERED: planned; -1 */
};

/* One send, under way. */
typedef struct copy {
    int          event, slot;
    uint32_t     incarnation;
    outbox_token token;
    uint64_t     serial;        /* of the send */
    int64_t      lease;         /* token of its lane then */
    int64_t      sent_ms, arrive_ms, answer_ms; /* -1: not, or not any more */
    uint8_t      verdict;
    bool         open;          /* the relay waits for it */
    bool         echo;          /* a second verdict */
} copy;

typedef struct publisher {
    sim      *w;
    int       nth;
    coro     *co;
    int64_t   wake_ms;
    mem_conn *conn;
    outbox_t *ob;
    int       tx[SIM_TX], n_tx; /* events of the open transaction */
} publisher;

enum tally {
    T_EVENTS, T_ROLLED_BACK, T_DELIVERED, T_DUPLICATES, T_STEPS, T_SAVES,
    T_STALE, T_CRASHES, T_KILLS, T_HANGS, T_STOPS, T_TAKEOVERS, T_ERRORS,
    T_ANSWERS, T_BUSY, T_RETRIES, T_TIMEOUTS, T_LATE, T_TWICE, T_PARKED,
    T_AGAIN, T_UNPARKED, T_DEAD, T_REVIVED, T_DISCARDED, T_BREAKER, T_TRIALS,
    T_CONDEMNED, T_EXPIRED, T_SCHEDULED, T_DEDUPED, T_FULL, T_PAUSED,
    T_REPLAYED, T_UNSUBSCRIBED, T_OUTAGES, T_TRIMMED, T_HOURS, TALLIES
};
extern const char *const tally_names[TALLIES];

struct sim {
    uint64_t  seed;
    const char *const *without;         /* parts; NULL ends them */
    rng       chance;
    plan      plan;
    int64_t   now, skew;        /* virtual ms; wall clock minus that */
    bool      chaos;            /* faults happen */
    bool      healed;           /* every event is good */
    bool      over, stopping;
    mem_db   *db;
    event     events[SIM_EVENTS];
    int       n_events;
    int       log[SIM_EVENTS], n_log, trimmed;
    int       scheduled[SIM_EVENTS], n_scheduled;
    int       last_of_key[SIM_KEYS];
    bool      dedup[SIM_EVENTS];        /* keys that are taken */
    uint32_t  commits, incarnations;
    uint64_t  ticks, sends;
    subscriber subs[SIM_SUBS];
    process   processes[SIM_RELAYS];
    int       n_processes;
    publisher publishers[SIM_PUBLISHERS];
    copy      copies[SIM_COPIES];
    int       n_copies;
    int64_t   network_ms, chaos_ms, person_ms, director_ms;
    outbox_t *admin;
    mem_conn *admin_conn;
    int       phase;
    int64_t   phase_ms, canary_ms;      /* deadline; the next one */
    int64_t   canary_gap_ms, director_gap_ms;
    int       canaries;
    /* The history. */
    uint64_t  hash;
    bool      verbose;
    char      rule[24], text[SIM_TEXT]; /* of the first violation */
    uint64_t *tallies;
};

/* ---- history.c ------------------------------------------------------- */

enum mark {
    M_BEGIN, M_COMMIT, M_ROLLBACK, M_SEND, M_ARRIVE, M_SETTLE, M_SETTLED,
    M_START, M_CRASH, M_KILL, M_HANG, M_STOP, M_STOPPED, M_STEP, M_ERROR,
    M_FAULT, M_ACQUIRE, M_SAVE, M_CURSOR, M_CHANGE, M_TRIAL, M_TRIM,
    M_PROMOTE, M_PERSON, M_PHASE, M_OPEN, M_TIMEOUT, M_LEAVE, M_RELEASE,
    M_END, MARKS
};

void record(sim *w, enum mark m, int64_t a, int64_t b, int64_t c, int64_t d);
void record_line(sim *w, const process *p, const char *line);
void tally(sim *w, enum tally t);
/* The first one counts; the run ends soon after. */
void violation(sim *w, const char *rule, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- world.c --------------------------------------------------------- */

sim *sim_new(void);
void sim_free(sim *w);
/* One seed from beginning to end; false: a violation. */
bool sim_run(sim *w, uint64_t seed);
int64_t wall_ms(const sim *w);
process *process_of(sim *w, uint32_t incarnation);

/* ---- process.c ------------------------------------------------------- */

void process_init(sim *w, int sub, int nth);
void process_run(process *p);           /* its time has come */
void process_wake(process *p);
void process_crash(process *p);         /* not from its own coroutine */
void process_free(process *p);
void process_suspend(process *p, int64_t ms);
/* Here a process may be suspended, hang or die. */
void process_point(process *p);
/* Dies here and now. */
void process_die(process *p);
/* A step, or a sleep of no time: too many at one moment are a busy loop. */
void process_count_spins(process *p);

/* ---- store.c --------------------------------------------------------- */

int  store_connect(process *p, outbox_t **ob, const outbox_options *opt,
                   outbox_error *err);

/* ---- destination.c --------------------------------------------------- */

outbox_transport destination_transport(process *p);
void network_run(sim *w);
void network_gone(process *p);          /* its process has ended */

/* ---- publisher.c ----------------------------------------------------- */

void publisher_init(sim *w, int nth);
void publisher_run(publisher *b);
void publisher_free(publisher *b);
bool publishers_rest(const sim *w);
void publish_canary(sim *w);

/* ---- people.c -------------------------------------------------------- */

void person_run(sim *w);
/* Everything that is dead is revived, or discarded; true: some was. */
bool people_end(sim *w);
void people_unpause(sim *w);

/* ---- judge.c: what happened ------------------------------------------ */

void judge_commit(sim *w, const int *events, int n);
void judge_promote(sim *w, int n);
void judge_trim(sim *w, int n);
void judge_attach(process *p);
void judge_acquire(process *p, const outbox_lane *lanes, uint32_t n);
void judge_save(process *p, const outbox_lane *lanes, uint32_t n,
                const outbox_change *changes, size_t n_changes);
/* A start was noted, whether it is made or not. */
void judge_start(process *p, int64_t position);
void judge_forget(process *p);          /* the store failed it */
void judge_death(process *p);
void judge_step(process *p, int rc);
void judge_stopped(process *p, int rc);
void judge_send(process *p, int e, const outbox_event *ev,
                outbox_token token);
void judge_arrival(sim *w, int s, int e);
void unsettled_add(process *p, int e);
void unsettled_remove(process *p, int e);
/* A verdict that counts: first of its send, or a late ACK. */
void judge_verdict(process *p, int e, outbox_verdict v);
/* What outbox_settle() made of one. */
void judge_answer(process *p, const copy *c, int rc);
void judge_kill(process *p, int e);
void judge_revived(sim *w, int s, int e, int rc);
void judge_discarded(sim *w, int s, int e, int rc);
void judge_replayed(sim *w, int s, int64_t since_ms);

/* ---- ending.c: what must have happened in the end -------------------- */

enum phase { PHASE_CHAOS, PHASE_CALM, PHASE_CANARIES, PHASE_HEALED };

/* Describes an event that is still to be delivered; false: none is. */
bool unresolved(const sim *w, char *text, size_t size);
int64_t patience_ms(const sim *w);
bool event_wanted(const sim *w, int s, int e);
bool event_expired(const sim *w, int e);
bool log_is_long(const sim *w, char *text, size_t size);
void judge_ending(sim *w);

#endif

/* SPDX-License-Identifier: MIT
 *
 * chaos.c - rounds of publishers, relays and sinks that are killed at random
 * and at fail points, and started again at once.  Twice in a round all is
 * brought to rest, and the checker is asked.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "torture.h"

enum { KILLS_PER_LEG = 20, LEGS = 2, MAX_SLOTS = 8, COVERAGE_FROM = 400 };

enum role_bits { PUBLISHES = 1, RELAYS = 2, CONSUMES = 4 };

static struct spot {            /* where a process may be killed */
    const char *name;
    int roles;
    int deep;                   /* the nth pass, at most */
    int tries, kills;
} spots[] = {
    { "publish.before_append", PUBLISHES, 200, 0, 0 },
    { "publish.after_append", PUBLISHES, 200, 0, 0 },
    { "publish.after_commit", PUBLISHES, 40, 0, 0 },
    { "test.before_commit", PUBLISHES, 100, 0, 0 },
    { "relay.read", RELAYS, 10, 0, 0 },
    { "relay.before_send", RELAYS, 60, 0, 0 },
    { "relay.after_send", RELAYS, 60, 0, 0 },
    { "relay.before_save", RELAYS, 4, 0, 0 },
    { "relay.after_save", RELAYS, 4, 0, 0 },
    { "sqlite.save.mid", RELAYS, 4, 0, 0 },
    { "sqlite.acquire.mid", RELAYS, 16, 0, 0 },
    { "sqlite.trim.mid", RELAYS, 2, 0, 0 },
    { "test.before_history", RELAYS, 60, 0, 0 },
    { "test.after_history", RELAYS, 60, 0, 0 },
    { "test.before_effect", CONSUMES, 60, 0, 0 },
    { "test.after_effect", CONSUMES, 60, 0, 0 },
};

enum { SPOTS = sizeof spots / sizeof spots[0] };

static const struct role {
    const char *name;
    int bits;
} roles[] = {
    { "publisher", PUBLISHES },
    { "both", PUBLISHES | RELAYS | CONSUMES },
    { "relay", RELAYS | CONSUMES },
    { "sink", RELAYS },
};

enum { PUBLISHER, BOTH, RELAY, SINK };

typedef struct slot {
    child c;
    const struct role *role;
    struct spot *spot;          /* NULL: random */
    int64_t due;                /* then it is killed, come what may */
    int64_t stall, resume;      /* SIGSTOP, SIGCONT; 0: no */
} slot;

typedef struct round {
    task job;
    rng rnd;
    slot slots[MAX_SLOTS];
    int n;
} round_state;

static struct {
    int kills, random, stalls, migrate;
    totals sum;
} score;

/* ---- one process ---- */

/* The one tried least, so that few kills reach all of them. */
static struct spot *next_spot(int bits)
{
    struct spot *best = NULL;

    for (int i = 0; i < SPOTS; i++)
        if ((spots[i].roles & bits) &&
            (best == NULL || spots[i].tries < best->tries))
            best = &spots[i];
    best->tries++;
    return best;
}

/* A relay has to wait for the leases of its dead predecessor first. */
static void slot_start(round_state *r, slot *s)
{
    bool slow = s->role->bits & RELAYS;
    int lease = r->job.plan.lease_ms;
    int64_t now = now_ms();
    char at[64];

    s->stall = s->resume = 0;
    s->spot = rng_below(&r->rnd, 2) ? next_spot(s->role->bits) : NULL;
    if (s->spot != NULL) {
        snprintf(at, sizeof at, "%s:%d", s->spot->name,
                 1 + rng_below(&r->rnd, s->spot->deep));
        s->due = now + 3 * lease + 600;
    } else {
        s->due = now + 1 + rng_below(&r->rnd, slow ? lease + 200 : 400);
    }
    if (slow && rng_below(&r->rnd, 10) == 0) {
        s->stall = now + lease + rng_below(&r->rnd, 100);
        s->resume = s->stall + rng_below(&r->rnd, 3 * lease);
        s->due = s->resume + rng_below(&r->rnd, 2 * lease);
    }
    child_start(&s->c, s->role->name, &r->job, s->spot ? at : NULL, NULL);
}

static void slot_stall(slot *s)
{
    int64_t now = now_ms();

    if (s->stall != 0 && now >= s->stall) {
        kill(s->c.pid, SIGSTOP);
        s->stall = 0;
        score.stalls++;
    }
    if (s->stall == 0 && s->resume != 0 && now >= s->resume) {
        kill(s->c.pid, SIGCONT);
        s->resume = 0;
    }
}

/* False: it ended by itself, which it must not. */
static bool slot_look(round_state *r, slot *s)
{
    fate f = child_wait(&s->c, 0);

    if (s->c.pid != 0)
        slot_stall(s);
    if (f == RUNNING && now_ms() >= s->due) {
        child_kill(&s->c);
        s->spot = NULL;
        f = KILLED;
    }
    if (f == RUNNING || f == STOPPED)
        return true;
    if (f != KILLED) {
        child_accuse(&s->c, s->role->name, f);
        return false;
    }
    score.kills++;
    *(s->spot != NULL ? &s->spot->kills : &score.random) += 1;
    slot_start(r, s);
    return true;
}

/* ---- one round ---- */

static void add_slots(round_state *r, int n, int role)
{
    for (; n > 0 && r->n < MAX_SLOTS; n--)
        r->slots[r->n++].role = &roles[role];
}

static bool stop_all(round_state *r)
{
    bool ok = true;

    for (int i = 0; i < r->n; i++)
        ok = child_stop(&r->slots[i].c, r->slots[i].role->name) && ok;
    return ok;
}

static bool leg(round_state *r, int until)
{
    bool ok = true;

    for (int i = 0; i < r->n; i++)
        slot_start(r, &r->slots[i]);
    while (ok && score.kills < until) {
        for (int i = 0; i < r->n && ok; i++)
            ok = slot_look(r, &r->slots[i]);
        pause_us(500);
    }
    ok = stop_all(r) && ok;
    return drain(&r->job) && ok;
}

static void add_totals(totals *sum, const totals *t)
{
    sum->committed += t->committed;
    sum->rolled_back += t->rolled_back;
    sum->events += t->events;
    sum->deliveries += t->deliveries;
    sum->duplicates += t->duplicates;
    sum->refused += t->refused;
    sum->effects += t->effects;
}

/* Returns the violations. */
static int64_t play(round_state *r, int kills)
{
    totals t = { 0 };
    int64_t violations = 0;

    for (int i = 1; i <= LEGS && violations == 0; i++) {
        int left = kills - score.kills;
        int until = score.kills + left / (LEGS + 1 - i);

        violations += !leg(r, until);
        violations += !check_apart(r->job.dir, 0, &t);
        violations += t.violations;
        if (violations == 0)
            quiet_mark(&r->job);
    }
    add_totals(&score.sum, &t);
    return violations;
}

static int64_t one_round(uint64_t seed, int kills)
{
    round_state r = { .rnd = { seed }, .job = { .seed = seed } };
    char dir[PATH_BYTES], text[PLAN_BYTES];
    const char *wish = getenv("PLAN");
    int64_t violations;
    int migrated;

    plan_random(&r.job.plan, &r.rnd);
    if (wish != NULL && !plan_parse(&r.job.plan, wish))
        die("PLAN", wish);
    add_slots(&r, r.job.plan.embed, BOTH);
    add_slots(&r, r.job.plan.pubs - r.job.plan.embed, PUBLISHER);
    add_slots(&r, r.job.plan.relays, RELAY);
    add_slots(&r, r.job.plan.sinks, SINK);
    migrated = ground_make(dir, &r.job);
    if (migrated > 0)
        score.kills += migrated, score.migrate += migrated;
    violations = migrated < 0 ? 1 : play(&r, kills);
    if (violations == 0) {
        ground_clear(dir);
        return 0;
    }
    plan_format(&r.job.plan, text);
    fprintf(stderr, "kept in %s\nseed of the round: %" PRIu64 "\nplan: %s\n",
            dir, seed, text);
    return violations;
}

/* ---- all of them ---- */

static int report(int64_t started, int64_t violations)
{
    const totals *t = &score.sum;
    int missed = score.migrate == 0;

    printf("kills         %d in %.1f s\n", score.kills,
           (double)(now_ms() - started) / 1000);
    printf("  %-24s %6d\n", "at random", score.random);
    printf("  %-24s %6d\n", "sqlite.migrate.mid", score.migrate);
    for (int i = 0; i < SPOTS; i++) {
        printf("  %-24s %6d\n", spots[i].name, spots[i].kills);
        missed += spots[i].kills == 0;
    }
    printf("stalls        %d\n", score.stalls);
    printf("transactions  %" PRId64 " committed, %" PRId64 " rolled back\n",
           t->committed, t->rolled_back);
    printf("events        %" PRId64 "\n", t->events);
    printf("deliveries    %" PRId64 ", of these %" PRId64 " duplicates\n",
           t->deliveries, t->duplicates);
    printf("refused       %" PRId64 "\n", t->refused);
    printf("effects       %" PRId64 "\n", t->effects);
    printf("violations    %" PRId64 "\n", violations);
    if (violations == 0 && missed > 0 && score.kills >= COVERAGE_FROM) {
        fprintf(stderr, "torture: %d fail points were never reached\n",
                missed);
        return 1;
    }
    return violations == 0 ? 0 : 1;
}

int chaos_main(int kills, uint64_t seed)
{
    int64_t started = now_ms(), violations = 0;
    rng rnd = { seed };

    while (score.kills < kills && violations == 0) {
        int until = score.kills + LEGS * KILLS_PER_LEG;

        violations = one_round(rng_next(&rnd), until < kills ? until : kills);
    }
    return report(started, violations);
}

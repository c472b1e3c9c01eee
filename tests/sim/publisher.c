/* SPDX-License-Identifier: MIT
 *
 * publisher.c - business transactions with events in them, which commit, roll
 * back, are cut in half, or never hear whether they were committed.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 8 };

static bool publishes(const sim *w, uint32_t what)
{
    return (w->plan.publish & what) != 0;
}

/* ---- events ---------------------------------------------------------- */

static void choose_fate(sim *w, view *v, const sub_plan *s)
{
    uint32_t draw = rng_below(&w->chance, 1000);

    v->fate = FATE_GOOD;
    if (draw < s->flaky)
        v->fate = FATE_FLAKY;
    else if ((draw -= s->flaky) < s->poison)
        v->fate = FATE_POISON;
    else if ((draw -= s->poison) < s->reject)
        v->fate = FATE_REJECT;
    else if ((draw -= s->reject) < s->killer)
        v->fate = FATE_KILLER;
    v->left = (uint8_t)(1 + rng_below(&w->chance, 4));
    if (v->fate == FATE_KILLER && rng_chance(&w->chance, 500))
        v->left = UINT8_MAX;
}

static void choose_times(sim *w, event *ev)
{
    int64_t now_ms = wall_ms(w);

    if (publishes(w, PUB_DUE) && rng_chance(&w->chance, 250))
        ev->due_ms = now_ms + rng_between(&w->chance, -50, 800);
    if (!publishes(w, PUB_EXPIRES) || !rng_chance(&w->chance, 300))
        return;
    ev->expires_ms = ev->due_ms > now_ms ? ev->due_ms : now_ms;
    ev->expires_ms += rng_chance(&w->chance, 500)
                    ? 86400000 : rng_between(&w->chance, 1, 500);
}

static void choose_id(sim *w, event *ev, int e)
{
    uint64_t a = rng_next(&w->chance), b = rng_next(&w->chance);

    memcpy(ev->id, &a, 8);
    memcpy(ev->id + 8, &b, 8);
    ev->id[14] = (uint8_t)(e >> 8);
    ev->id[15] = (uint8_t)e;
    ob_uuid_format(ev->id, ev->text);
}

static void choose_chain(sim *w, event *ev)
{
    char key[8];

    snprintf(key, sizeof key, "k%d", ev->key);
    ev->chain = ev->key >= 0 ? outbox_hash(key, strlen(key))
                             : outbox_hash(ev->id, sizeof ev->id);
    ev->lane = (uint32_t)(ev->chain % (uint64_t)w->plan.lanes);
}

/* Canaries go to each lane in turn, under each topic. */
static void choose_place(sim *w, event *ev, int e)
{
    int n = w->canaries++;

    do {
        choose_id(w, ev, e);
        choose_chain(w, ev);
    } while (ev->lane != (uint32_t)(n % w->plan.lanes));
    ev->topic = publishes(w, PUB_TOPICS) ? n / w->plan.lanes % 3 : 0;
}

static int event_new(sim *w, bool canary)
{
    int e = w->n_events++;
    event *ev = &w->events[e];
    rng *g = &w->chance;

    memset(ev, 0, sizeof *ev);
    ev->order = ev->before = ev->dedup = -1;
    ev->canary = canary;
    ev->key = canary || rng_chance(g, w->plan.keyless)
            ? -1 : (int)rng_below(g, (uint32_t)w->plan.keys);
    ev->topic = publishes(w, PUB_TOPICS) ? (int)rng_below(g, 3) : 0;
    ev->len = 4 + rng_below(g, publishes(w, PUB_BIG) &&
                                   rng_chance(g, 200) ? 1500 : 24);
    if (canary) {
        choose_place(w, ev, e);
        return e;
    }
    choose_id(w, ev, e);
    choose_chain(w, ev);
    choose_times(w, ev);
    if (publishes(w, PUB_DEDUP) && rng_chance(g, 300))
        ev->dedup = (int)rng_below(g, 12);
    for (int s = 0; s < w->plan.subs; s++)
        choose_fate(w, &ev->views[s], &w->plan.sub[s]);
    return e;
}

/* ---- what publish() is given ----------------------------------------- */

typedef struct parcel {
    outbox_event  event;
    outbox_header header;
    char          key[8], dedup[16];
    unsigned char payload[SIM_PAYLOAD];
} parcel;

static void pack(const sim *w, int e, parcel *to)
{
    const event *ev = &w->events[e];
    uint32_t number = (uint32_t)e;

    snprintf(to->key, sizeof to->key, "k%d", ev->key);
    snprintf(to->dedup, sizeof to->dedup, "dedup %d", ev->dedup);
    for (uint32_t i = sizeof number; i < ev->len; i++)
        to->payload[i] = (unsigned char)(e + (int)i);
    memcpy(to->payload, &number, sizeof number);
    to->header = (outbox_header){ "id", ev->text };
    to->event = (outbox_event){
        .size = sizeof to->event,
        .topic = sim_topics[ev->topic],
        .type = "happened",
        .key = ev->key >= 0 ? to->key : NULL,
        .id = ev->text,
        .payload = to->payload,
        .payload_len = ev->len,
        .headers = &to->header,
        .n_headers = 1,
        .dedup_key = ev->dedup >= 0 ? to->dedup : NULL,
        .due_ms = ev->due_ms > 0 ? ev->due_ms : 0,
        .expires_ms = ev->expires_ms,
    };
}

static bool is_duplicate(const publisher *b, int e)
{
    const sim *w = b->w;
    int dedup = w->events[e].dedup;

    if (dedup < 0)
        return false;
    for (int i = 0; i < b->n_tx; i++) {
        if (w->events[b->tx[i]].dedup == dedup)
            return true;
    }
    return w->dedup[dedup];
}

/* They are in the transaction now. */
static int accepted(publisher *b, const int *events, int n)
{
    sim *w = b->w;
    int first = b->n_tx, duplicates = 0;
    int64_t position = mem_last_position(w->db);

    for (int i = 0; i < n; i++) {
        event *ev = &w->events[events[i]];
        if (is_duplicate(b, events[i])) {
            duplicates++;
            tally(w, T_DEDUPED);
            continue;
        }
        ev->published_ms = wall_ms(w);
        ev->later = ev->due_ms > ev->published_ms;
        b->tx[b->n_tx++] = events[i];
    }
    for (int i = b->n_tx; i-- > first;) {
        if (!w->events[b->tx[i]].later)
            w->events[b->tx[i]].position = position--;
    }
    return duplicates;
}

/* ---- a transaction --------------------------------------------------- */

static void pause_for(publisher *b, int64_t ms)
{
    b->wake_ms = b->w->now + ms;
    coro_yield();
}

/* The answer of the COMMIT to come is lost: 1 with the commit, -1 without,
 * 0 not. */
static int doubt(sim *w, bool commit)
{
    uint32_t draw = rng_below(&w->chance, 1000);

    if (!commit || !publishes(w, PUB_DOUBT) || draw >= 200)
        return 0;
    if (draw < 100)
        mem_lose_answer(w->db, MEM_COMMIT, 0, 1, OUTBOX_EINDOUBT);
    else
        mem_fail(w->db, MEM_COMMIT, 0, 1, OUTBOX_EINDOUBT);
    return draw < 100 ? 1 : -1;
}

static int publish(publisher *b, const int *events, int n, bool commit)
{
    static parcel parcels[MANY];
    const outbox_event *given[MANY];
    sim *w = b->w;
    outbox_error err;
    int rc;

    for (int i = 0; i < n; i++) {
        pack(w, events[i], &parcels[i]);
        given[i] = &parcels[i].event;
    }
    int lost = doubt(w, commit);
    if (commit)
        rc = outbox_publish_commit(b->ob, given, (size_t)n, &err);
    else if (n == 1)
        rc = outbox_publish(b->ob, given[0], &err);
    else
        rc = outbox_publish_many(b->ob, given, (size_t)n, &err);
    mem_fail(w->db, MEM_COMMIT, 0, 0, 0);
    if (rc < 0 && rc != OUTBOX_EBUSY && rc != OUTBOX_EFULL &&
        rc != OUTBOX_EINDOUBT)
        violation(w, "publish", "%s", err.text);
    if (rc == OUTBOX_EFULL)
        tally(w, T_FULL);
    if (rc < 0 && !(rc == OUTBOX_EINDOUBT && lost == 1))
        return rc;
    int duplicates = accepted(b, events, n);
    if (rc >= 0 && (rc == OUTBOX_DUPLICATE) != (duplicates > 0))
        violation(w, "duplicate", "%d known keys, and publish says %d",
                  duplicates, rc);
    return OUTBOX_OK;
}

static void rolled_back(publisher *b)
{
    record(b->w, M_ROLLBACK, b->nth, b->n_tx, 0, 0);
    b->w->tallies[T_ROLLED_BACK] += (uint64_t)b->n_tx;
    b->n_tx = 0;
}

static void committed(publisher *b)
{
    judge_commit(b->w, b->tx, b->n_tx);
    b->n_tx = 0;
}

static void open_handle(publisher *b)
{
    sim *w = b->w;
    outbox_options opt = { .size = sizeof opt,
                           .max_payload_bytes = SIM_PAYLOAD,
                           .max_backlog = w->plan.max_backlog };
    outbox_error err;

    b->conn = mem_conn_new(w->db);
    if (b->conn == NULL)
        abort();
    if (mem_outbox_open(&b->ob, b->conn, &opt, &err) != OUTBOX_OK)
        violation(w, "setup", "no publisher: %s", err.text);
}

static void close_handle(publisher *b)
{
    outbox_close(b->ob);
    mem_conn_free(b->conn);
    b->ob = NULL;
    b->conn = NULL;
}

/* By its own wish, or because the process died. */
static void roll_back(publisher *b)
{
    if (rng_chance(&b->w->chance, 250)) {
        close_handle(b);
        open_handle(b);
    } else {
        mem_rollback(b->conn);
    }
    rolled_back(b);
}

/* One call, perhaps undone again; false: the transaction has ended. */
static bool publish_some(publisher *b, int n, bool last)
{
    sim *w = b->w;
    int events[MANY], before = b->n_tx;
    bool commit = last && publishes(w, PUB_COMMIT) &&
                  rng_chance(&w->chance, 600);
    size_t savepoint = mem_savepoint(b->conn);

    for (int i = 0; i < n; i++)
        events[i] = event_new(w, false);
    int rc = publish(b, events, n, commit);
    if (rc == OUTBOX_EINDOUBT)
        rolled_back(b);
    else if (rc != OUTBOX_OK)
        roll_back(b);
    else if (commit)
        committed(b);
    if (rc != OUTBOX_OK || commit)
        return false;
    if (publishes(w, PUB_SAVEPOINT) && rng_chance(&w->chance, 150)) {
        mem_rollback_to(b->conn, savepoint);
        b->n_tx = before;
    }
    if (publishes(w, PUB_HOLD) && rng_chance(&w->chance, 150))
        pause_for(b, 1 + rng_below(&w->chance, rng_chance(&w->chance, 100)
                                                   ? 200 : 15));
    return true;
}

static void transact(publisher *b)
{
    sim *w = b->w;
    int left = 1 + (int)rng_below(&w->chance, publishes(w, PUB_MANY) ? 10 : 4);

    mem_begin(b->conn);
    record(w, M_BEGIN, b->nth, 0, 0, 0);
    while (left > 0) {
        int n = publishes(w, PUB_MANY) && rng_chance(&w->chance, 400)
              ? 1 + (int)rng_below(&w->chance,
                                   (uint32_t)(left < MANY ? left : MANY))
              : 1;
        left -= n;
        if (!publish_some(b, n, left == 0))
            return;
    }
    if (publishes(w, PUB_ROLLBACK) && rng_chance(&w->chance, 150)) {
        roll_back(b);
        return;
    }
    int rc = mem_commit(b->conn);
    if (rc != OUTBOX_OK)
        violation(w, "publish", "commit says %d", rc);
    committed(b);
}

static void publisher_main(void *arg)
{
    publisher *b = arg;
    sim *w = b->w;

    while (!w->over) {
        pause_for(b, rng_between(&w->chance, 1, w->plan.gap_ms));
        if (!w->chaos || w->n_events >= w->plan.events)
            break;
        transact(b);
    }
    b->wake_ms = INT64_MAX;
}

/* ---- from outside ---------------------------------------------------- */

void publisher_run(publisher *b)
{
    coro_resume(b->co);
    if (coro_ended(b->co))
        b->wake_ms = INT64_MAX;
}

void publisher_init(sim *w, int nth)
{
    publisher *b = &w->publishers[nth];
    coro *co = b->co != NULL ? b->co : coro_new();

    if (co == NULL)
        abort();
    *b = (publisher){ .w = w, .nth = nth, .co = co };
    open_handle(b);
    coro_begin(co, publisher_main, b);
    b->wake_ms = rng_between(&w->chance, 0, w->plan.gap_ms);
}

void publisher_free(publisher *b)
{
    close_handle(b);
}

bool publishers_rest(const sim *w)
{
    for (int i = 0; i < w->plan.publishers; i++) {
        if (w->publishers[i].wake_ms != INT64_MAX)
            return false;
    }
    return true;
}

/* An event that does no harm: those that failed see that others pass.  It goes
 * through a handle without a limit. */
void publish_canary(sim *w)
{
    publisher b = { .w = w, .conn = w->admin_conn, .ob = w->admin };
    int e;

    if (w->n_events >= SIM_EVENTS || mem_begin(b.conn) != OUTBOX_OK)
        return;
    e = event_new(w, true);
    if (publish(&b, &e, 1, true) == OUTBOX_OK)
        committed(&b);
    else
        mem_rollback(b.conn);
}

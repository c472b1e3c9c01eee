/* SPDX-License-Identifier: MIT
 *
 * oom.c - the life that test_oom.c and test_oom_sqlite.c lead.
 */
#include "oom.h"

#include <string.h>

enum { EVENTS = 16 };

typedef struct life {
    const oom *o;
    world      w;
    bool       committed[EVENTS];
    bool       done[EVENTS];            /* the destination took it */
    bool       failing;                 /* some events fail as yet */
    bool       warming;                 /* and nothing stays in flight */
    bool       aborted;                 /* the transaction is said to be lost */
    sink       sink;
    outbox_options opt;
} life;

/* ---- calls that may fail -------------------------------------------- */

static void arm(const oom *o, bool on)
{
    if (o->arm != NULL)
        o->arm(on);
}

/* What a call for want of memory may say. */
static int allowed(const oom *o, int rc)
{
    ck_assert_msg(rc >= 0 || rc == OUTBOX_ENOMEM || rc == OUTBOX_EABORTED
                  || (o->any_code && rc >= OUTBOX_EINDOUBT), "code %d", rc);
    return rc;
}

#define TRY(l, call) \
    (arm((l)->o, true), oom_rc = (call), arm((l)->o, false), \
     allowed((l)->o, oom_rc))

static int oom_rc;

/* ---- publishing ----------------------------------------------------- */

static const outbox_header headers[] = {
    { "traceparent",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" },
    { "note", "long enough to outgrow the first buffer: "
              "0123456789012345678901234567890123456789012345678901234567890"
              "0123456789012345678901234567890123456789012345678901234567890"
              "0123456789012345678901234567890123456789012345678901234567890" }
};

static const char *const keys[] = { "a", "b", "c", NULL };

static outbox_event event_of(int number)
{
    static const char *const numbers[EVENTS] = {
        "0", "1", "2",  "3",  "4",  "5",  "6",  "7",
        "8", "9", "10", "11", "12", "13", "14", "15"
    };

    return (outbox_event){ .size = sizeof(outbox_event),
                           .topic = "oom",
                           .key = keys[number % 4],
                           .payload = numbers[number],
                           .payload_len = strlen(numbers[number]),
                           .headers = headers,
                           .n_headers = (size_t)number % 3 };
}

/* End the transaction, which a failure may have ended already, or spoiled:
 * then it must be rolled back.  The events from..to - 1 of which ok says so
 * are committed if that worked. */
static void end(life *l, int from, int to, const bool *ok)
{
    bool committed = l->w.sut->in_transaction(l->w.app) && !l->aborted
                  && l->w.sut->commit(l->w.app) == 0;

    if (l->w.sut->in_transaction(l->w.app))
        l->w.sut->rollback(l->w.app);
    l->aborted = false;
    for (int i = from; i < to; i++)
        l->committed[i] = committed && ok[i];
}

static void publish_singly(life *l, outbox_t *ob)
{
    bool ok[EVENTS] = { false };
    outbox_error err;

    ck_ok(l->w.sut->begin(l->w.app));
    for (int i = 0; i < 4; i++) {
        outbox_event ev = event_of(i);
        int rc = TRY(l, outbox_publish(ob, &ev, &err));
        ok[i] = rc == OUTBOX_OK;
        l->aborted = rc == OUTBOX_EABORTED;
        if (l->aborted || !l->w.sut->in_transaction(l->w.app))
            break;
    }
    end(l, 0, 4, ok);
}

static void publish_together(life *l, outbox_t *ob)
{
    outbox_event ev[4];
    const outbox_event *at[4];
    bool ok[EVENTS] = { false };
    outbox_error err;

    for (int i = 0; i < 4; i++) {
        ev[i] = event_of(4 + i);
        at[i] = &ev[i];
    }
    ck_ok(l->w.sut->begin(l->w.app));
    int rc = TRY(l, outbox_publish_many(ob, at, 4, &err));
    l->aborted = rc == OUTBOX_EABORTED;
    if (rc == OUTBOX_OK)
        memset(ok + 4, true, 4);
    end(l, 4, 8, ok);
}

static void publish_and_commit(life *l, outbox_t *ob)
{
    outbox_event ev[4];
    const outbox_event *at[4];
    outbox_error err;

    for (int i = 0; i < 4; i++) {
        ev[i] = event_of(8 + i);
        at[i] = &ev[i];
    }
    ck_ok(l->w.sut->begin(l->w.app));
    int rc = TRY(l, outbox_publish_commit(ob, at, 4, &err));
    for (int i = 8; i < 12; i++)
        l->committed[i] = rc == OUTBOX_OK;
    if (l->w.sut->in_transaction(l->w.app))
        l->w.sut->rollback(l->w.app);
    ck_assert(rc != OUTBOX_OK || !l->w.sut->in_transaction(l->w.app));
}

static void publish_all(life *l)
{
    outbox_t *ob = NULL;
    outbox_error err;
    int rc = TRY(l, l->w.sut->outbox(&ob, l->w.app, &l->opt, &err));

    ck_assert((rc == OUTBOX_OK) == (ob != NULL));
    if (rc == OUTBOX_OK)
        TRY(l, outbox_migrate(ob, &err));
    if (l->w.sut->in_transaction(l->w.app))     /* no memory to roll back */
        l->w.sut->rollback(l->w.app);
    ck_ok(outbox_migrate(l->w.ob, &err));       /* with memory it works */
    if (rc != OUTBOX_OK)
        return;
    publish_singly(l, ob);
    publish_together(l, ob);
    publish_and_commit(l, ob);
    outbox_close(ob);
}

/* ---- the inbox ------------------------------------------------------ */

static void accept_one(life *l, inbox_t *ib, const char *id)
{
    outbox_error err;
    int rc, again;

    ck_ok(l->w.sut->begin(l->w.app));
    rc = TRY(l, inbox_accept(ib, "c", id, &err));
    int end = TRY(l, inbox_commit(ib, &err));
    if (l->w.sut->in_transaction(l->w.app))
        l->w.sut->rollback(l->w.app);
    ck_ok(l->w.sut->begin(l->w.app));
    again = TRY(l, inbox_accept(ib, "c", id, &err));
    if (again >= 0)                     /* marked if and only if committed */
        ck_assert_int_eq(again, !(rc == 1 && end == OUTBOX_OK));
    if (l->w.sut->in_transaction(l->w.app))
        l->w.sut->rollback(l->w.app);
}

static void accept_all(life *l)
{
    inbox_t *ib = NULL;
    outbox_error err;
    int rc = TRY(l, l->w.sut->inbox(&ib, l->w.app, &l->opt, &err));

    ck_assert((rc == OUTBOX_OK) == (ib != NULL));
    if (rc != OUTBOX_OK)
        return;
    accept_one(l, ib, "0190c2a8-7b1c-7cc3-98c4-dc0c0c07398f");
    accept_one(l, ib, "text");
    TRY(l, inbox_prune(ib, 1000, 10, &err));
    inbox_close(ib);
}

/* ---- the relay ------------------------------------------------------ */

/* Of four events one passes at once, one waits for a verdict, one fails for a
 * while, one is rejected. */
static outbox_verdict mixed(sink *s, const outbox_event *ev,
                            outbox_token token, outbox_error *why)
{
    life *l = s->arg;
    long number = event_number(ev);

    (void)token;
    if (number % 4 == 1 && l->failing && !l->warming)
        return OUTBOX_PENDING;
    if (number % 4 == 2 && l->failing) {
        strcpy(why->text, "a reason that has to be copied somewhere");
        return OUTBOX_RETRY;
    }
    l->done[number] = true;
    return number == 10 ? OUTBOX_REJECT : OUTBOX_ACK;
}

static void settle_pending(life *l, outbox_relay_t *r)
{
    size_t n = sink_count(&l->sink);

    for (size_t i = 0; i < n; i++) {
        long number = sink_number(&l->sink, i);
        if (number % 4 != 1)
            continue;
        arm(l->o, true);
        int rc = outbox_settle(r, sink_at(&l->sink, i)->token,
                               number == 5 ? OUTBOX_RETRY : OUTBOX_ACK,
                               "a reason, again");
        arm(l->o, false);
        if (rc == OUTBOX_OK && number != 5)
            l->done[number] = true;
    }
}

static void relay_steps(life *l, outbox_relay_t *r, int n)
{
    outbox_error err;

    for (int i = 0; i < n; i++) {
        vclock_advance(&l->w.clock, 40);
        int rc = TRY(l, outbox_relay_step(r, 0, &err));
        ck_assert_msg(rc >= 0 || err.code == rc, "%d, but %d %s", rc, err.code,
                      err.text);
    }
}

static outbox_relay_options options_of(life *l)
{
    outbox_relay_options opt = relay_options(&l->w);

    opt.retry_min_ms = 20;
    opt.retry_max_ms = 50;
    opt.on_dead = OUTBOX_DEAD_SKIPS;
    opt.max_inflight = 64;
    return opt;
}

/* With memory. */
static void publish_plainly(life *l, int from, int to)
{
    outbox_error err;

    ck_ok(l->w.sut->begin(l->w.app));
    for (int i = from; i < to; i++) {
        outbox_event ev = event_of(i);
        ck_ok(outbox_publish(l->w.ob, &ev, &err));
        l->committed[i] = true;
    }
    ck_ok(l->w.sut->commit(l->w.app));
}

/* With memory, while some fail; after them one passes, so they are parked
 * with those of their keys behind them. */
static void relay_before(life *l)
{
    outbox_relay_options opt = options_of(l);
    outbox_relay_t *r = relay_open(&l->w, &l->sink, &opt, NULL);

    l->warming = true;
    run_for(&l->w, r, 60, 20);
    publish_plainly(l, EVENTS - 1, EVENTS);
    run_for(&l->w, r, 100, 20);
    relay_drop(r);
    l->warming = false;
}

static outbox_relay_t *relay_made(life *l, outbox_t *ob)
{
    outbox_relay_options opt = options_of(l);
    outbox_relay_t *r = NULL;
    outbox_error err;
    int rc = TRY(l, outbox_relay_new(&r, ob, &l->sink.transport, &opt, &err));
    ck_assert((rc == OUTBOX_OK) == (r != NULL));
    return r;
}

static void relay_all(life *l)
{
    outbox_t *ob = NULL;
    outbox_error err;
    int rc = TRY(l, l->w.sut->connect(&ob, l->w.db, &l->opt, NULL, &err));

    ck_assert((rc == OUTBOX_OK) == (ob != NULL));
    if (rc != OUTBOX_OK)
        return;
    outbox_relay_t *r = relay_made(l, ob);
    if (r == NULL) {
        outbox_close(ob);
        return;
    }
    relay_steps(l, r, 6);
    settle_pending(l, r);
    relay_steps(l, r, 4);
    l->failing = false;
    settle_pending(l, r);
    relay_steps(l, r, 4);
    arm(l->o, true);
    outbox_relay_stop(r, 0, &err);
    outbox_relay_free(r);
    arm(l->o, false);
}

/* ---- afterwards ----------------------------------------------------- */

/* When it was delivered first, counting through both sinks. */
static size_t first_time(life *l, int number)
{
    sink *sinks[] = { &l->sink, &l->w.sink };
    size_t before = 0;

    for (int k = 0; k < 2; k++) {
        size_t n = sink_count(sinks[k]);
        for (size_t i = 0; i < n; i++) {
            if (sink_number(sinks[k], i) == number)
                return before + i;
        }
        before += n;
    }
    return SIZE_MAX;
}

static bool overtaken(life *l, int number)
{
    size_t first = first_time(l, number);

    for (int later = number + 4; later < EVENTS; later += 4) {
        if (keys[number % 4] != NULL && l->committed[later]
            && first_time(l, later) < first)
            return true;
    }
    return false;
}

static void check_nothing_lost(life *l)
{
    drain_after_crash(&l->w, &l->w.sink, NULL);
    for (int i = 0; i < EVENTS; i++) {
        size_t times = sink_times(&l->w.sink, i);
        ck_assert_msg(!l->committed[i] || l->done[i] || times > 0,
                      "event %d is lost", i);
        ck_assert_msg(l->committed[i]
                      || (times == 0 && sink_times(&l->sink, i) == 0),
                      "event %d was never committed", i);
        ck_assert_msg(!l->committed[i] || !overtaken(l, i),
                      "event %d was overtaken", i);
    }
}

void oom_live(const oom *o)
{
    life l = { .o = o, .failing = true };

    l.opt = (outbox_options){ .size = sizeof l.opt, .allocator = o->table };
    world_open_bare(&l.w, o->which);
    sink_init(&l.sink, mixed, &l);
    publish_all(&l);
    accept_all(&l);
    if (o->warm)
        relay_before(&l);
    publish_plainly(&l, 12, EVENTS - 1);
    relay_all(&l);
    check_nothing_lost(&l);
    sink_release(&l.sink);
    world_close(&l.w);
}

/* SPDX-License-Identifier: MIT
 *
 * kit.c - what kit.h promises.
 */
#include "kit.h"

#include "common/sut_sqlite.h"

#include <stdio.h>
#include <string.h>

/* ---- the database's clock ------------------------------------------- */

#define EPOCH_JULIAN_MS INT64_C(210866760000000)

static _Atomic int64_t wall;
static sqlite3_vfs still_vfs;           /* the default one, with our clock */

static int still_time(sqlite3_vfs *vfs, sqlite3_int64 *out)
{
    (void)vfs;
    *out = wall + EPOCH_JULIAN_MS;
    return SQLITE_OK;
}

static int still_days(sqlite3_vfs *vfs, double *out)
{
    (void)vfs;
    *out = (double)(wall + EPOCH_JULIAN_MS) / 86400000.0;
    return SQLITE_OK;
}

void timed_open(world *w, int which)
{
    wall = INT64_C(1700000000000);
    still_vfs = *sqlite3_vfs_find(NULL);
    still_vfs.pNext = NULL;
    still_vfs.zName = "still";
    still_vfs.xCurrentTime = still_days;
    still_vfs.xCurrentTimeInt64 = still_time;
    ck_assert_int_eq(sqlite3_vfs_register(&still_vfs, 1), SQLITE_OK);
    world_open(w, which);
    if (w->sut->set_now != NULL)
        w->sut->set_now(w->db, wall);
}

void timed_close(world *w)
{
    world_close(w);
    sqlite3_vfs_unregister(&still_vfs);
}

int64_t wall_ms(void)
{
    return wall;
}

void wall_pass(world *w, int64_t ms)
{
    wall += ms;
    if (w->sut->set_now != NULL)
        w->sut->set_now(w->db, wall);
}

void time_pass(world *w, outbox_relay_t *r, int64_t ms, int64_t slice)
{
    for (int64_t at = 0; at < ms; at += slice) {
        vclock_advance(&w->clock, slice);
        wall_pass(w, slice);
        if (r != NULL)
            settle_down(r);
    }
}

/* ---- publishing ----------------------------------------------------- */

const char *key_of(long n)
{
    static char text[32][32];
    static unsigned at;
    char *key = text[at++ % 32];

    snprintf(key, sizeof text[0], "key %ld", n);
    return key;
}

outbox_event numbered(const char *key, long number)
{
    static char text[64][24];
    static unsigned at;
    char *payload = text[at++ % 64];
    int n = snprintf(payload, sizeof text[0], "%ld", number);

    return (outbox_event){ .size = sizeof(outbox_event),
                           .topic = "numbers",
                           .key = key,
                           .payload = payload,
                           .payload_len = (size_t)n };
}

int publish_one(world *w, const outbox_event *ev, outbox_error *err)
{
    ck_ok(w->sut->begin(w->app));
    int rc = outbox_publish(w->ob, ev, err);
    ck_ok(w->sut->commit(w->app));
    return rc;
}

void publish_event(world *w, const outbox_event *ev)
{
    outbox_error err;
    int rc = publish_one(w, ev, &err);

    ck_assert_msg(rc == OUTBOX_OK, "publish: %d %s", rc, err.text);
}

void publish_topic(world *w, const char *topic, long number)
{
    outbox_event ev = numbered(NULL, number);

    ev.topic = topic;
    publish_event(w, &ev);
}

/* ---- a destination that follows a plan ------------------------------ */

outbox_verdict follow_plan(sink *s, const outbox_event *ev, outbox_token token,
                           outbox_error *why)
{
    const plan *p = s->arg;
    long number = event_number(ev);

    ck_assert_int_lt(number, PLAN_SIZE);
    outbox_verdict v = p->of[number];
    if (v == OUTBOX_PENDING)
        v = OUTBOX_ACK;
    if (p->down)
        v = OUTBOX_RETRY;
    snprintf(why->text, sizeof why->text, "number %ld, attempt %d", number,
             (int)ev->attempt);
    if (p->pending[number])
        return OUTBOX_PENDING;
    if (!p->settles[number])
        return v;
    ck_ok(outbox_settle(s->relay, token, v, "settled inside send"));
    return OUTBOX_PENDING;
}

void plan_use(sink *s, plan *p)
{
    memset(p, 0, sizeof *p);
    s->rule = follow_plan;
    s->arg = p;
}

void plan_range(plan *p, long from, long n, outbox_verdict verdict)
{
    for (long i = from; i < from + n; i++)
        p->of[i] = verdict;
}

void site_open(site *t, int which)
{
    timed_open(&t->w, which);
    plan_use(&t->w.sink, &t->p);
    t->r = NULL;
    t->opt = relay_options(&t->w);
    t->opt.retry_min_ms = t->opt.retry_max_ms = 100;
    t->opt.max_attempts = 3;
}

void site_relay(site *t)
{
    t->r = relay_open(&t->w, NULL, &t->opt, NULL);
    settle_down(t->r);
}

void site_end_relay(site *t)
{
    outbox_error err;

    ck_ok(outbox_relay_stop(t->r, 1000, &err));
    outbox_relay_free(t->r);
    t->r = NULL;
}

void site_close(site *t)
{
    if (t->r != NULL)
        relay_drop(t->r);
    timed_close(&t->w);
}

int64_t site_parked(site *t)
{
    return t->w.sut->count(t->w.db, SUT_PARKED);
}

void site_with_a_dead_one(site *t, int which)
{
    site_open(t, which);
    t->p.of[3] = OUTBOX_REJECT;
    publish_numbers(&t->w, "k", 1, 6);
    site_relay(t);
    ck_assert_int_eq(dead_count(&t->w, NULL), 1);
    t->p.of[3] = OUTBOX_ACK;
}

void run_among_others(world *w, outbox_relay_t *r, int64_t ms, int64_t slice)
{
    settle_down(r);
    for (int64_t at = 0; at < ms; at += slice) {
        publish_numbers(w, NULL, 0, 1);
        run_for(w, r, slice, slice);
    }
}

size_t first_of(sink *s, long number)
{
    size_t n = sink_count(s), i = 0;

    while (i < n && sink_number(s, i) != number)
        i++;
    ck_assert_msg(i < n, "%ld was not delivered", number);
    return i;
}

size_t last_of_number(sink *s, long number)
{
    size_t i = sink_count(s);

    while (i > 0 && sink_number(s, i - 1) != number)
        i--;
    ck_assert_msg(i > 0, "%ld was not delivered", number);
    return i - 1;
}

bool once_in_order(sink *s, long from, long n)
{
    size_t at = 0;

    for (long i = from; i < from + n; i++) {
        if (sink_times(s, i) != 1 || (i > from && first_of(s, i) < at))
            return false;
        at = first_of(s, i);
    }
    return true;
}

/* ---- looking -------------------------------------------------------- */

typedef struct collector {
    letter *out;
    int     n, max;
} collector;

static void copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from != NULL ? from : "(null)");
}

static void collect(void *arg, const outbox_event *ev, const char *last_error,
                    int64_t died_ms)
{
    collector *c = arg;
    letter *l = &c->out[c->n];

    ck_assert_int_lt(c->n++, c->max);
    copy_text(l->id, sizeof l->id, ev->id);
    copy_text(l->topic, sizeof l->topic, ev->topic);
    copy_text(l->type, sizeof l->type, ev->type);
    copy_text(l->key, sizeof l->key, ev->key);
    copy_text(l->content_type, sizeof l->content_type, ev->content_type);
    copy_text(l->why, sizeof l->why, last_error);
    l->number = event_number(ev);
    l->attempt = ev->attempt;
    l->n_headers = ev->n_headers;
    if (ev->n_headers > 0)
        snprintf(l->header, sizeof l->header, "%s: %s", ev->headers[0].name,
                 ev->headers[0].value);
    l->died_ms = died_ms;
    l->position = ev->position;
    l->published_ms = ev->published_ms;
    l->expires_ms = ev->expires_ms;
}

int letters_of(world *w, const char *sub, letter *out, int max)
{
    collector c = { out, 0, max };
    outbox_error err;
    int n = outbox_dead_each(w->ob, sub != NULL ? sub : "default", max,
                             collect, &c, &err);

    ck_assert_msg(n >= 0, "dead letters: %d %s", n, err.text);
    ck_assert_int_eq(n, c.n);
    return n;
}

int dead_count(world *w, const char *sub)
{
    return (int)database_stats(w, sub).dead;
}

outbox_stats database_stats(world *w, const char *sub)
{
    outbox_stats st = { .size = sizeof st };
    outbox_error err;
    int rc = outbox_subscription_stats(w->ob, sub != NULL ? sub : "default",
                                       &st, &err);

    ck_assert_msg(rc == OUTBOX_OK, "stats: %d %s", rc, err.text);
    return st;
}

void journal_write(void *arg, int level, const char *line)
{
    journal *j = arg;

    (void)level;
    if (j->n < 64)
        snprintf(j->text[j->n++], sizeof j->text[0], "%s", line);
}

int journal_has(const journal *j, const char *word)
{
    int n = 0;

    for (int i = 0; i < j->n; i++)
        n += strstr(j->text[i], word) != NULL;
    return n;
}

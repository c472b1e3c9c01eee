/* SPDX-License-Identifier: MIT
 *
 * publisher.c - business transactions, in all the ways in which they go well
 * or wrong.  Each event has a business row, written in the same transaction;
 * each key has a counter, read and raised in it, so that versions rise in the
 * order of commits.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "torture.h"

enum { MAX_DRAFTS = 40, CHECKPOINT_EVERY = 100 };

typedef struct draft {          /* an event, and what becomes of it */
    outbox_event ev;
    outbox_header header;
    char id[ID_BYTES], key[KEY_BYTES], version_text[24];
    int64_t version;
    bool gone;                  /* undone, whatever the transaction does */
    char payload[PAYLOAD_BYTES];
} draft;

typedef struct publisher {
    const task *job;
    sqlite3 *db;
    outbox_t *ob;
    sqlite3_stmt *bump, *row;
    int ledger;
    rng rnd;
    int64_t number;             /* of the transaction */
    int n;
    draft drafts[MAX_DRAFTS];
} publisher;

typedef enum outcome {
    WANTS_COMMIT,
    DONE,                       /* committed, and told so */
    WANTS_ROLLBACK,
    UNKNOWN,                    /* the answer never came */
    BROKEN                      /* an error that had no reason to be */
} outcome;

static outcome complain(const publisher *p, const char *what, int code,
                        const char *why)
{
    fprintf(stderr, "torture: run %d: %s: %d: %s\n", p->job->run, what, code,
            why);
    return BROKEN;
}

/* Of a statement of the business. */
static outcome judge_sql(publisher *p, const char *what, int rc)
{
    if (rc == SQLITE_OK || rc == SQLITE_DONE)
        return WANTS_COMMIT;
    if ((rc & 0xff) == SQLITE_BUSY)
        return WANTS_ROLLBACK;
    return complain(p, what, sqlite3_extended_errcode(p->db),
                    sqlite3_errmsg(p->db));
}

static outcome judge(publisher *p, int rc, const outbox_error *err)
{
    if (rc >= 0)
        return WANTS_COMMIT;
    if (rc == OUTBOX_EBUSY)
        return WANTS_ROLLBACK;
    return complain(p, "publish", rc, err->text);
}

/* ---- drafts ---- */

static void choose_key(publisher *p, char key[KEY_BYTES])
{
    if (rng_below(&p->rnd, 8) == 0)
        snprintf(key, KEY_BYTES, "-");
    else
        snprintf(key, KEY_BYTES, "k%d",
                 rng_below(&p->rnd, p->job->plan.keys));
}

static outcome next_version(publisher *p, draft *d)
{
    int rc;

    sqlite3_bind_text(p->bump, 1, d->key, -1, SQLITE_TRANSIENT);
    rc = sqlite3_step(p->bump);
    if (rc == SQLITE_ROW) {
        d->version = sqlite3_column_int64(p->bump, 0);
        rc = sqlite3_step(p->bump);
    }
    sqlite3_reset(p->bump);
    return judge_sql(p, "counter", rc);
}

/* own_id: ours; else the library will make one. */
static void draft_fill(publisher *p, draft *d, bool own_id)
{
    if (own_id)
        rng_uuid(&p->rnd, d->id);
    snprintf(d->version_text, sizeof d->version_text, "%" PRId64, d->version);
    d->header = (outbox_header){ "version", d->version_text };
    d->ev = (outbox_event){
        .size = sizeof d->ev,
        .topic = "torture",
        .type = "torture.changed",
        .key = d->key[0] == '-' ? NULL : d->key,
        .id = own_id ? d->id : NULL,
        .content_type = "text/plain",
        .payload = d->payload,
        .payload_len = payload_make(d->payload, d->version),
        .headers = &d->header,
        .n_headers = 1,
    };
}

static outcome draft_make(publisher *p, bool own_id, draft **out)
{
    draft *d = *out = &p->drafts[p->n];
    outcome o;

    memset(d, 0, offsetof(draft, payload));
    choose_key(p, d->key);
    o = next_version(p, d);
    if (o != WANTS_COMMIT)
        return o;
    p->n++;
    draft_fill(p, d, own_id);
    return WANTS_COMMIT;
}

/* Has no business row, and must never be seen. */
static draft *draft_vain(publisher *p)
{
    draft *d = &p->drafts[p->n++];

    memset(d, 0, offsetof(draft, payload));
    choose_key(p, d->key);
    d->version = 1;
    d->gone = true;
    draft_fill(p, d, true);
    return d;
}

static outcome draft_row(publisher *p, const draft *d)
{
    int rc;

    sqlite3_bind_text(p->row, 1, d->key, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int64(p->row, 2, d->version);
    sqlite3_bind_text(p->row, 3, d->id, -1, SQLITE_TRANSIENT);
    rc = sqlite3_step(p->row);
    sqlite3_reset(p->row);
    return judge_sql(p, "business row", rc);
}

static outcome draft_publish(publisher *p, draft *d)
{
    outbox_error err;
    outcome o = judge(p, outbox_publish(p->ob, &d->ev, &err), &err);

    if (o == WANTS_COMMIT && d->ev.id == NULL)
        snprintf(d->id, sizeof d->id, "%s", outbox_last_id(p->ob));
    return o;
}

static outcome one_event(publisher *p)
{
    draft *d;
    outcome o = draft_make(p, rng_below(&p->rnd, 2), &d);

    if (o == WANTS_COMMIT)
        o = draft_publish(p, d);
    if (o == WANTS_COMMIT)
        o = draft_row(p, d);
    return o;
}

/* n drafts with their rows; pointers to their events in list. */
static outcome some_rows(publisher *p, int n, const outbox_event **list)
{
    outcome o = WANTS_COMMIT;

    for (int i = 0; i < n && o == WANTS_COMMIT; i++) {
        draft *d;

        o = draft_make(p, true, &d);
        if (o == WANTS_COMMIT)
            o = draft_row(p, d);
        list[i] = &d->ev;
    }
    return o;
}

/* ---- transactions ---- */

static outcome plain(publisher *p)
{
    outcome o = WANTS_COMMIT;

    for (int n = 1 + rng_below(&p->rnd, 3); n > 0 && o == WANTS_COMMIT; n--)
        o = one_event(p);
    return o;
}

static outcome many(publisher *p)
{
    const outbox_event *list[MAX_DRAFTS];
    int n = 1 + rng_below(&p->rnd, rng_below(&p->rnd, 10) ? 6 : MAX_DRAFTS);
    outcome o = some_rows(p, n, list);
    outbox_error err;

    if (o == WANTS_COMMIT)
        o = judge(p, outbox_publish_many(p->ob, list, (size_t)n, &err), &err);
    return o;
}

static outcome with_commit(publisher *p)
{
    const outbox_event *list[4];
    int n = 1 + rng_below(&p->rnd, 4), rc;
    outcome o = some_rows(p, n, list);
    outbox_error err;

    if (o != WANTS_COMMIT)
        return o;
    ob_failpoint("test.before_commit");
    rc = outbox_publish_commit(p->ob, list, (size_t)n, &err);
    if (rc == OUTBOX_EINDOUBT)
        return UNKNOWN;
    if (rc == OUTBOX_EABORTED)
        return WANTS_ROLLBACK;
    o = judge(p, rc, &err);
    return o == WANTS_COMMIT ? DONE : o;
}

static outcome undone(publisher *p)
{
    outcome o = rng_below(&p->rnd, 2) ? plain(p) : many(p);

    return o == WANTS_COMMIT ? WANTS_ROLLBACK : o;
}

/* What was published inside a savepoint goes with it, the rest stays. */
static outcome half_undone(publisher *p)
{
    outcome o = rng_below(&p->rnd, 2) ? one_event(p) : WANTS_COMMIT;
    int first = p->n;

    if (o == WANTS_COMMIT)
        o = judge_sql(p, "savepoint", db_exec(p->db, "SAVEPOINT s"));
    if (o == WANTS_COMMIT)
        o = plain(p);
    if (o == WANTS_COMMIT)
        o = judge_sql(p, "savepoint",
                      db_exec(p->db, "ROLLBACK TO s; RELEASE s"));
    if (o != WANTS_COMMIT)
        return o;
    for (int i = first; i < p->n; i++)
        p->drafts[i].gone = true;
    return one_event(p);
}

/* A statement fails and takes the transaction with it.  This application did
 * not look, and goes on to publish. */
static outcome lost_silently(publisher *p)
{
    const outbox_event *list[4];
    outcome o = some_rows(p, 2, list);
    outbox_error err;
    int rc;

    if (o != WANTS_COMMIT)
        return o;
    db_exec(p->db, "INSERT OR ROLLBACK INTO taken(one) VALUES(1)");
    switch (rng_below(&p->rnd, 3)) {
    case 0:
        rc = outbox_publish(p->ob, list[0], &err);
        break;
    case 1:
        rc = outbox_publish_many(p->ob, list, 2, &err);
        break;
    default:
        rc = outbox_publish_commit(p->ob, list, 2, &err);
    }
    /* Success is not complained of here: finding it is the checker's part. */
    if (rc < 0 && rc != OUTBOX_ENOTX)
        return complain(p, "publish after a lost transaction", rc, err.text);
    return WANTS_ROLLBACK;
}

/* An event that is refused takes those of its call with it, and no more. */
static outcome one_bad(publisher *p)
{
    const outbox_event *list[4];
    outcome o = one_event(p);
    int first = p->n, rc;
    outbox_error err;

    if (o != WANTS_COMMIT)
        return o;
    for (int i = 0; i < 3; i++)
        list[i] = &draft_vain(p)->ev;
    p->drafts[first + 1 + rng_below(&p->rnd, 2)].ev.topic = NULL;
    rc = outbox_publish_many(p->ob, list, 3, &err);
    if (rc != OUTBOX_EINVAL)
        return complain(p, "a bad event was taken", rc, err.text);
    return one_event(p);
}

static outcome (*choose(publisher *p))(publisher *p)
{
    static outcome (*const good[])(publisher *) = { plain, many, with_commit };
    static outcome (*const bad[])(publisher *) = { undone, half_undone,
                                                   lost_silently, one_bad };

    if (rng_permille(&p->rnd, p->job->plan.undo))
        return bad[rng_below(&p->rnd, 4)];
    return good[rng_below(&p->rnd, 3)];
}

/* ---- around them ---- */

static outcome begin(publisher *p)
{
    int kind = rng_below(&p->rnd, 10);
    int rc = db_exec(p->db, kind < 7 ? "BEGIN IMMEDIATE" : "BEGIN");

    /* Reading first makes an upgrade, which another writer can forestall. */
    if (rc == SQLITE_OK && kind == 9)
        rc = db_exec(p->db, "SELECT count(*) FROM counter");
    return judge_sql(p, "begin", rc);
}

static outcome end(publisher *p, outcome o)
{
    if (o == WANTS_COMMIT) {
        ob_failpoint("test.before_commit");
        o = judge_sql(p, "commit", db_exec(p->db, "COMMIT"));
        if (o == WANTS_COMMIT)
            return DONE;
    }
    if (o != DONE && !sqlite3_get_autocommit(p->db))
        db_exec(p->db, "ROLLBACK");
    return o;
}

/* What this process knows for certain about its transaction. */
static void note(publisher *p, outcome o)
{
    for (int i = 0; i < p->n; i++) {
        const draft *d = &p->drafts[i];
        record rec = { .run = p->job->run,
                       .number = p->number,
                       .version = d->version,
                       .pid = (int)getpid() };

        if (o == BROKEN)
            rec.kind = FAILED;
        else if (d->gone || o == WANTS_ROLLBACK)
            rec.kind = UNDONE;
        else if (o == DONE)
            rec.kind = COMMITTED;
        else
            continue;
        memcpy(rec.id, d->id, sizeof rec.id);
        memcpy(rec.key, d->key, sizeof rec.key);
        record_append(p->ledger, &rec);
    }
}

static void transaction(publisher *p)
{
    outcome o;

    p->n = 0;
    p->number++;
    o = begin(p);
    if (o == WANTS_COMMIT)
        o = choose(p)(p);
    o = end(p, o);
    note(p, o);
    if (o == BROKEN)
        die("publisher", "cannot go on");
    if (!p->job->plan.autockpt && p->number % CHECKPOINT_EVERY == 0)
        db_exec(p->db, "PRAGMA wal_checkpoint(TRUNCATE)");
    if (p->job->plan.pace_us > 0)
        pause_us(rng_below(&p->rnd, p->job->plan.pace_us));
}

static publisher *publisher_open(const task *job)
{
    publisher *p = calloc(1, sizeof *p);
    outbox_error err;

    if (p == NULL)
        die("publisher", "no memory");
    p->job = job;
    p->rnd.state = job->seed;
    p->db = db_open(job->dir, "app.db", job->plan.full, job->plan.autockpt);
    p->ledger = record_open(job->dir, "ledger");
    p->bump = db_prepare(p->db, "INSERT INTO counter VALUES(?1, 1)"
                                " ON CONFLICT(key) DO UPDATE"
                                " SET version = version + 1"
                                " RETURNING version");
    p->row = db_prepare(p->db, "INSERT INTO business(key, version, id)"
                               " VALUES(?1, ?2, ?3)");
    if (outbox_sqlite_open(&p->ob, p->db, NULL, &err) < 0)
        die("outbox_sqlite_open", err.text);
    return p;
}

static void publisher_close(publisher *p)
{
    sqlite3_finalize(p->bump);
    sqlite3_finalize(p->row);
    outbox_close(p->ob);
    sqlite3_close(p->db);
    close(p->ledger);
    free(p);
}

int publisher_main(const task *job, bool with_relay)
{
    publisher *p = publisher_open(job);
    engine *e = with_relay ? engine_start(job, true) : NULL;
    int count = job->plan.count;

    while (!told_to_stop && (count == 0 || p->number < count))
        transaction(p);
    if (e != NULL && !engine_stop(e))
        return 1;
    publisher_close(p);
    return 0;
}

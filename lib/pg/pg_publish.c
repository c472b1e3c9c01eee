/* SPDX-License-Identifier: MIT
 *
 * pg_publish.c - events into the caller's transaction, in one round trip, and
 * with its COMMIT in the same one.
 *
 * After any error of a statement PostgreSQL has aborted the transaction; a
 * savepoint around ours would save it, for two more round trips.  So what can
 * be known before is checked before: that a transaction is open and well,
 * that nothing of the caller's is unread, that the tables are there and of
 * our version.  Only then is something sent.
 *
 * Invariants, and the tests in tests/pg/caller that show them:
 *  1. Outside of an open transaction, in an aborted one, and among the
 *     caller's own results nothing is sent (results_that_are_not_read,
 *     in_the_middle_of_copy, in_pipeline_mode, in_an_aborted_transaction).
 *  2. A COMMIT is sent behind events only if nobody was seen who could leave
 *     them out, and if one did, that is said (no_commit_without_its_events,
 *     a_trigger_that_came_later).
 *  3. The code tells what became of the transaction: it is open, or to be
 *     rolled back, or gone, or in doubt (each_state, refused_at_the_commit,
 *     a_deferred_constraint_at_the_commit, gone_with_the_commit,
 *     no_event_is_sent, no_commit_is_sent, no_end_is_sent).
 *  4. An event is written into the segment that was current less than
 *     SEGMENT_FRESH_US ago, in tables that have the lanes which it was told
 *     (made_anew_with_other_lanes; tests/pg: a_segment_is_emptied).
 *  5. With OUTBOX_LOCK_KEYS a key has one writer at a time
 *     (one_writer_of_a_key_at_a_time).
 */
#include "pg_store.h"

#include <stdlib.h>

/* The arrays of publish_many, kept for the next. */
enum { A_LANE, A_ID, A_TOPIC, A_TYPE, A_KEY, A_CONTENT_TYPE, A_HEADERS,
       A_PAYLOAD, A_EXPIRES, A_DEDUP, A_DUE, A_COUNT };

/* A segment that was current so long ago is asked for again.  An event in one
 * that is not current any more is as good: a segment is emptied only when
 * all that is in it was delivered. */
enum { SEGMENT_FRESH_US = 1000000 };

typedef struct ob_pg_publish {
    ob_pg_array arrays[A_COUNT];
    int64_t     counted, counted_us;    /* the backlog, and when */
    int         segment;                /* the current one ... */
    int64_t     segment_us;             /* ... and when; 0: not known */
} ob_pg_publish;

void ob_pg_publish_free(ob_pg *st)
{
    if (st->publish == NULL)
        return;
    for (int i = 0; i < A_COUNT; i++)
        ob_pg_array_free(st, &st->publish->arrays[i]);
    st->base.mem.free(st->base.mem.arg, st->publish);
    st->publish = NULL;
}

static int publish_make(ob_pg *st, outbox_error *err)
{
    if (st->publish != NULL)
        return OUTBOX_OK;
    st->publish = st->base.mem.malloc(st->base.mem.arg, sizeof *st->publish);
    if (st->publish == NULL)
        return ob_nomem(err);
    memset(st->publish, 0, sizeof *st->publish);
    return OUTBOX_OK;
}

/* ---- the transaction ------------------------------------------------ */

static bool status_is(const ob_pg *st, const char *name, const char *value)
{
    const char *s = PQparameterStatus(st->conn, name);

    return s != NULL && strcmp(s, value) == 0;
}

int ob_pg_encoding(const ob_pg *st, outbox_error *err)
{
    if (status_is(st, "client_encoding", "UTF8") ||
        (status_is(st, "client_encoding", "SQL_ASCII") &&
         status_is(st, "server_encoding", "SQL_ASCII")))
        return OUTBOX_OK;
    const char *is = PQparameterStatus(st->conn, "client_encoding");
    return outbox_error_set(err, OUTBOX_EINVAL,
                            "the connection's client_encoding is %.40s: set "
                            "it to UTF8, with PQsetClientEncoding()",
                            is != NULL ? is : "not known");
}

int ob_pg_transaction(ob_pg *st, outbox_error *err)
{
    int rc = ob_pg_ready(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    switch (PQtransactionStatus(st->conn)) {
    case PQTRANS_INTRANS:
        break;
    case PQTRANS_INERROR:
        return outbox_error_set(err, OUTBOX_EABORTED,
                                "the transaction is aborted: roll it back");
    default:
        return outbox_error_set(err, OUTBOX_ENOTX,
                                "no transaction is open: BEGIN first");
    }
    if (status_is(st, "in_hot_standby", "on"))
        return outbox_error_set(err, OUTBOX_EREADONLY,
                                "the server is a standby: publish on the "
                                "primary");
    return ob_pg_encoding(st, err);
}

int ob_pg_write_check(ob_pg *st, outbox_error *err)
{
    int rc = ob_pg_transaction(st, err);

    return rc == OUTBOX_OK ? ob_pg_check(st, err) : rc;
}

/* ---- parameters ----------------------------------------------------- */

/* The doorbell's key and channel; not rung under OUTBOX_QUIET. */
static void bell_params(ob_pg *st, ob_pg_params *p)
{
    if (st->quiet)
        ob_pg_null(p);
    else
        ob_pg_int8(p, st->doorbell);
    ob_pg_text(p, st->channel);
}

static void event_params(ob_pg *st, ob_pg_params *p, const outbox_row *row)
{
    ob_pg_int2(p, (int)(row->chain % st->lanes));
    ob_pg_uuid(p, row->id);
    ob_pg_bytes(p, &row->topic);
    ob_pg_bytes(p, &row->type);
    ob_pg_bytes(p, &row->key);
    ob_pg_bytes(p, &row->content_type);
    ob_pg_bytes(p, &row->headers);
    ob_pg_bytes(p, &row->payload);
    ob_pg_int8_or_null(p, row->expires_ms);
    bell_params(st, p);
}

static void int_or_null(ob_pg *st, ob_pg_array *a, int64_t v)
{
    if (v != 0)
        ob_pg_array_int(st, a, v);
    else
        ob_pg_array_null(st, a);
}

static void arrays_row(ob_pg *st, ob_pg_array *a, const outbox_row *row)
{
    ob_pg_array_int(st, &a[A_LANE], (int64_t)(row->chain % st->lanes));
    ob_pg_array_uuid(st, &a[A_ID], row->id);
    ob_pg_array_bytes(st, &a[A_TOPIC], &row->topic);
    ob_pg_array_bytes(st, &a[A_TYPE], &row->type);
    ob_pg_array_bytes(st, &a[A_KEY], &row->key);
    ob_pg_array_bytes(st, &a[A_CONTENT_TYPE], &row->content_type);
    ob_pg_array_bytes(st, &a[A_HEADERS], &row->headers);
    ob_pg_array_bytes(st, &a[A_PAYLOAD], &row->payload);
    int_or_null(st, &a[A_EXPIRES], row->expires_ms);
    ob_pg_array_bytes(st, &a[A_DEDUP], &row->dedup_key);
    int_or_null(st, &a[A_DUE], row->due_ms);
}

static int arrays_params(ob_pg *st, ob_pg_params *p, const outbox_row *rows,
                         size_t n, bool rare, outbox_error *err)
{
    static const enum ob_pg_type types[A_COUNT] = {
        OB_PG_INT2, OB_PG_UUID, OB_PG_TEXT, OB_PG_TEXT, OB_PG_TEXT,
        OB_PG_TEXT, OB_PG_TEXT, OB_PG_BYTEA, OB_PG_INT8, OB_PG_TEXT,
        OB_PG_INT8
    };
    ob_pg_array *a = st->publish->arrays;
    int rc = OUTBOX_OK;

    for (int i = 0; i < A_COUNT; i++)
        ob_pg_array_begin(&a[i], types[i]);
    for (size_t i = 0; i < n; i++)
        arrays_row(st, a, &rows[i]);
    for (int i = 0; i <= A_EXPIRES && rc == OUTBOX_OK; i++)
        rc = ob_pg_param_array(st, p, &a[i], err);
    bell_params(st, p);
    ob_pg_int4(p, (int)st->lanes);
    for (int i = A_DEDUP; i < A_COUNT && rare && rc == OUTBOX_OK; i++)
        rc = ob_pg_param_array(st, p, &a[i], err);
    return rc;
}

/* A message has 1 GiB at most, and a longer one ends the connection. */
static int size_check(const ob_pg_params *p, outbox_error *err)
{
    size_t all = 0;

    for (int i = 0; i < p->n; i++)
        all += (size_t)p->length[i] + 4;
    if (all <= OB_PG_MESSAGE_MAX)
        return OUTBOX_OK;
    return outbox_error_set(err, OUTBOX_EINVAL,
                            "%zu bytes at once are more than PostgreSQL "
                            "takes, %d: publish less at once, or store it "
                            "elsewhere and publish a reference", all,
                            OB_PG_MESSAGE_MAX);
}

static enum ob_pg_stmt append_kind(const ob_pg_publish *p,
                                   const outbox_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (rows[i].dedup_key.ptr != NULL || rows[i].due_ms != 0)
            return PG_APPEND_RARE;
    }
    if (n != 1)
        return PG_APPEND_MANY;
    bool fresh = p->segment_us != 0 &&
                 outbox_monotonic_us() - p->segment_us < SEGMENT_FRESH_US;
    return fresh ? PG_APPEND_0 + (unsigned)p->segment : PG_APPEND;
}

static void segment_note(ob_pg_publish *p, const PGresult *res)
{
    int segment = ob_pg_get_int(res, 0, 0);

    if (segment < 0 || segment >= OB_PG_SEGMENTS)
        return;
    p->segment = segment;
    p->segment_us = outbox_monotonic_us();
}

static int append_params(ob_pg *st, enum ob_pg_stmt which, ob_pg_params *p,
                         const outbox_row *rows, size_t n, outbox_error *err)
{
    int rc = OUTBOX_OK;

    if (which == PG_APPEND_MANY || which == PG_APPEND_RARE)
        rc = arrays_params(st, p, rows, n, which == PG_APPEND_RARE, err);
    else
        event_params(st, p, &rows[0]);
    if (which == PG_APPEND)
        ob_pg_int4(p, (int)st->lanes);
    return rc == OUTBOX_OK ? size_check(p, err) : rc;
}

/* ---- what came of it ------------------------------------------------ */

/* Notes which rows are in; OUTBOX_DUPLICATE when some were left out. */
static int appended(ob_pg *st, enum ob_pg_stmt which, PGresult *res,
                    outbox_row *rows, size_t n, outbox_error *err)
{
    bool rare = which == PG_APPEND_RARE;
    size_t in = rare ? (size_t)PQntuples(res) : n;
    unsigned long long written = strtoull(PQcmdTuples(res), NULL, 10);

    if (rare)
        written = in > 0 ? (unsigned long long)ob_pg_get_int8(res, 0, 1) : 0;
    if (written != in)
        return outbox_error_set(err, OUTBOX_EDB, "publish: %llu of %zu "
                                "events were written: is there a rule or "
                                "trigger on the log?", written, in);
    if (which == PG_APPEND)
        segment_note(st->publish, res);
    for (size_t i = 0; i < n; i++)
        rows[i].position = !rare;
    for (size_t i = 0; rare && i < in; i++)
        rows[ob_pg_get_int8(res, (int)i, 0) - 1].position = 1;
    return in < n ? OUTBOX_DUPLICATE : OUTBOX_OK;
}

static int append_only(ob_pg *st, enum ob_pg_stmt which,
                       const ob_pg_params *p, outbox_row *rows, size_t n,
                       outbox_error *err)
{
    int rc;
    PGresult *res = ob_pg_run(st, which, p, "publish", &rc, err);

    if (res == NULL)
        return rc;
    rc = appended(st, which, res, rows, n, err);
    PQclear(res);
    return rc;
}

/* ---- with the COMMIT ------------------------------------------------ */

static bool is_commit(const PGresult *res)
{
    return PQresultStatus(res) == PGRES_COMMAND_OK &&
           strcmp(PQcmdStatus((PGresult *)(uintptr_t)res), "COMMIT") == 0;
}

static int in_doubt(outbox_error *err)
{
    return outbox_error_set(err, OUTBOX_EINDOUBT,
                            "COMMIT was sent, its answer never came: connect "
                            "again and ask pg_xact_status()");
}

/* What a COMMIT's answer means.  After a bad one no transaction is left. */
static int commit_code(ob_pg *st, const PGresult *res, const char *doing,
                       outbox_error *err)
{
    if (is_commit(res))
        return OUTBOX_OK;
    if (res == NULL || PQstatus(st->conn) == CONNECTION_BAD)
        return in_doubt(err);
    if (PQresultStatus(res) == PGRES_COMMAND_OK)
        return outbox_error_set(err, OUTBOX_EABORTED,
                                "%s: the transaction was aborted, and is now "
                                "rolled back", doing);
    int rc = ob_pg_error(st, res, doing, err);
    if (PQtransactionStatus(st->conn) != PQTRANS_IDLE)
        return rc;                      /* it was not even tried */
    if (err != NULL)
        err->code = OUTBOX_EABORTED;
    return OUTBOX_EABORTED;
}

/* text: without a name, behind a pooler. */
static int pipeline_put(ob_pg *st, enum ob_pg_stmt which, const char *text,
                        const ob_pg_params *p)
{
    char name[OB_PG_NAME_MAX];

    if (text != NULL)
        return PQsendQueryParams(st->conn, text, p->n, NULL, p->value,
                                 p->length, p->format, 1);
    ob_pg_name(st, which, name);
    return PQsendQueryPrepared(st->conn, name, p->n, p->value, p->length,
                               p->format, 1);
}

/* The next statement's result; NULL when the connection is lost. */
static PGresult *pipeline_result(ob_pg *st)
{
    PGresult *res = PQgetResult(st->conn), *end;

    while (res != NULL && (end = PQgetResult(st->conn)) != NULL)
        PQclear(end);
    return res;
}

static void pipeline_leave(ob_pg *st)
{
    PGresult *res;
    int nothing = 0;

    while (PQstatus(st->conn) == CONNECTION_OK && nothing < 2) {
        res = PQgetResult(st->conn);
        nothing = res == NULL ? nothing + 1 : 0;
        bool end = PQresultStatus(res) == PGRES_PIPELINE_SYNC;
        PQclear(res);
        if (end)
            break;
    }
    PQexitPipelineMode(st->conn);
}

/* A trigger or rule that came after we looked for one. */
static int committed_without(outbox_error *err)
{
    outbox_error was = *err;

    return outbox_error_set(err, OUTBOX_EINDOUBT,
                            "the transaction is committed, its events are "
                            "not all: %.160s", was.text);
}

static int pipeline_read(ob_pg *st, enum ob_pg_stmt which, outbox_row *rows,
                         size_t n, outbox_error *err)
{
    PGresult *put = pipeline_result(st), *end = NULL;
    bool good = PQresultStatus(put) == PGRES_TUPLES_OK ||
                PQresultStatus(put) == PGRES_COMMAND_OK;
    int rc;

    if (put != NULL)
        end = pipeline_result(st);
    pipeline_leave(st);
    if (!is_commit(end) && !good && put != NULL &&
        PQstatus(st->conn) == CONNECTION_OK)
        rc = ob_pg_error(st, put, "publish", err);
    else
        rc = commit_code(st, end, "commit", err);
    if (rc == OUTBOX_OK) {
        rc = good ? appended(st, which, put, rows, n, err)
                  : ob_pg_error(st, put, "publish", err);
        rc = rc < 0 ? committed_without(err) : rc;
    }
    PQclear(put);
    PQclear(end);
    return rc;
}

/* The event may have been sent; was the COMMIT?  If the server can still be
 * asked, it tells by what it waits for. */
static int commit_not_sent(ob_pg *st, outbox_error *err)
{
    if (!PQpipelineSync(st->conn)) {
        PQexitPipelineMode(st->conn);   /* without waiting for anything */
        return in_doubt(err);
    }
    pipeline_leave(st);
    PGTransactionStatusType status = PQtransactionStatus(st->conn);
    if (status != PQTRANS_INTRANS && status != PQTRANS_INERROR)
        return in_doubt(err);
    return outbox_error_set(err, OUTBOX_EABORTED,
                            "there was no memory to send COMMIT: the event "
                            "may be in the transaction, roll it back");
}

static int pipeline_run(ob_pg *st, enum ob_pg_stmt which, const char *text,
                        const ob_pg_params *p, outbox_row *rows, size_t n,
                        outbox_error *err)
{
    static const ob_pg_params none;

    if (!PQenterPipelineMode(st->conn))
        return outbox_error_set(err, OUTBOX_EINVAL, "publish: %s",
                                PQerrorMessage(st->conn));
    if (!pipeline_put(st, which, text, p)) {
        int rc = ob_pg_error(st, NULL, "publish", err);
        PQexitPipelineMode(st->conn);   /* nothing is to come */
        return rc;
    }
    if (!pipeline_put(st, PG_COMMIT, text != NULL ? "COMMIT" : NULL, &none) ||
        !PQpipelineSync(st->conn))
        return commit_not_sent(st, err);
    return pipeline_read(st, which, rows, n, err);
}

static int append_commit(ob_pg *st, enum ob_pg_stmt which,
                         const ob_pg_params *p, outbox_row *rows, size_t n,
                         outbox_error *err)
{
    char *text = NULL;
    int rc = OUTBOX_OK;

    if (st->pooled)
        text = ob_pg_text_of(st, which, &rc, err);
    else if ((rc = ob_pg_prepare(st, which, "publish", err)) == OUTBOX_OK)
        rc = ob_pg_prepare(st, PG_COMMIT, "publish", err);
    if (rc == OUTBOX_OK)
        rc = pipeline_run(st, which, text, p, rows, n, err);
    if (text != NULL)
        st->base.mem.free(st->base.mem.arg, text);
    return rc;
}

/* With a trigger or rule on the tables it is not known before the answer
 * whether the events are in, and a COMMIT must not be under way by then. */
static int append_then_commit(ob_pg *st, enum ob_pg_stmt which,
                              const ob_pg_params *p, outbox_row *rows,
                              size_t n, outbox_error *err)
{
    int rc = append_only(st, which, p, rows, n, err);

    if (rc < 0)
        return rc;
    int end = ob_pg_commit(&st->base, err);
    return end < 0 ? end : rc;
}

/* ---- publish -------------------------------------------------------- */

static int compare_keys(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* OUTBOX_LOCK_KEYS: one writer of a key at a time, until its commit.  In one
 * order, or two publishers would wait for each other. */
static int keys_lock(ob_pg *st, const outbox_row *rows, size_t n,
                     outbox_error *err)
{
    const outbox_allocator *mem = &st->base.mem;
    ob_pg_array *a = &st->publish->arrays[A_DUE];
    ob_pg_params p = { 0 };
    size_t keys = 0;
    int64_t *key = mem->malloc(mem->arg, n * sizeof *key);

    if (key == NULL)
        return ob_nomem(err);
    for (size_t i = 0; i < n; i++) {
        if (rows[i].key.ptr != NULL)
            key[keys++] = (int64_t)(rows[i].chain + (uint64_t)st->doorbell);
    }
    qsort(key, keys, sizeof *key, compare_keys);
    ob_pg_array_begin(a, OB_PG_INT8);
    for (size_t i = 0; i < keys; i++)
        ob_pg_array_int(st, a, key[i]);
    mem->free(mem->arg, key);
    int rc = ob_pg_param_array(st, &p, a, err);
    if (rc != OUTBOX_OK || keys == 0)
        return rc;
    int64_t done = ob_pg_do(st, PG_LOCK_KEYS, &p, "lock keys", err);
    return done < 0 ? (int)done : OUTBOX_OK;
}

int ob_pg_append(outbox_store *s, outbox_row *rows, size_t n, int commit,
                 outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    enum ob_pg_stmt which = PG_APPEND;
    ob_pg_params p = { 0 };
    int rc = ob_pg_write_check(st, err);

    if (rc == OUTBOX_OK && n == 0)
        return commit ? ob_pg_commit(s, err) : OUTBOX_OK;
    if (rc == OUTBOX_OK)
        rc = publish_make(st, err);
    if (rc == OUTBOX_OK && st->lock_keys)
        rc = keys_lock(st, rows, n, err);
    if (rc == OUTBOX_OK) {
        which = append_kind(st->publish, rows, n);
        rc = append_params(st, which, &p, rows, n, err);
    }
    if (rc != OUTBOX_OK)
        return rc;
    if (!commit)
        return append_only(st, which, &p, rows, n, err);
    return st->session->watched
               ? append_then_commit(st, which, &p, rows, n, err)
               : append_commit(st, which, &p, rows, n, err);
}

/* ---- the backlog ---------------------------------------------------- */

enum { BACKLOG_FEW = 10000, BACKLOG_FRESH_US = 200000 };

/* Counting costs as much as there is to count, up to the limit; so a large
 * number is good for a moment, unless it is near the limit. */
static bool count_is_fresh(const ob_pg *st)
{
    const ob_pg_publish *p = st->publish;

    return st->max_backlog > BACKLOG_FEW && p->counted_us != 0 &&
           p->counted < st->max_backlog / 8 * 7 &&
           outbox_monotonic_us() - p->counted_us < BACKLOG_FRESH_US;
}

int ob_pg_backlog(outbox_store *s, int64_t *events, outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    ob_pg_params p = { 0 };
    int rc = ob_pg_write_check(st, err);

    if (rc == OUTBOX_OK)
        rc = publish_make(st, err);
    if (rc != OUTBOX_OK)
        return rc;
    if (!count_is_fresh(st)) {
        ob_pg_int8(&p, st->max_backlog + BACKLOG_FEW);
        PGresult *res = ob_pg_run(st, PG_BACKLOG, &p, "count the backlog",
                                  &rc, err);
        if (res == NULL)
            return rc;
        st->publish->counted = ob_pg_get_int8(res, 0, 0);
        st->publish->counted_us = outbox_monotonic_us();
        PQclear(res);
    }
    *events = st->publish->counted;
    return OUTBOX_OK;
}

/* ---- commit --------------------------------------------------------- */

/* In an aborted transaction it is a ROLLBACK, which says so. */
int ob_pg_commit(outbox_store *s, outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    int rc = ob_pg_transaction(st, err);

    if (rc != OUTBOX_OK &&
        PQtransactionStatus(st->conn) != PQTRANS_INERROR)
        return rc;
    PGresult *res = PQexec(st->conn, "COMMIT");
    rc = commit_code(st, res, "commit", err);
    PQclear(res);
    return rc;
}

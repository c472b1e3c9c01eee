/* SPDX-License-Identifier: MIT
 *
 * pg_exec.c - running statements: parameters and results in binary, prepared
 * once per connection, and on a connection of our own never without a
 * deadline.
 *
 * What is prepared on a connection is noted at the connection, by way of
 * libpq's events: handles that come and go on a borrowed one share it, and
 * PQreset() forgets it.
 */
#include "pg_store.h"

#include <errno.h>
#include <libpq-events.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const pg_statements[PG_COUNT_STMTS] = {
#define OB_PG_STATEMENT(name, sql) [name] = sql,
#include "pg_statements.h"
#undef OB_PG_STATEMENT
};

/* ---- what a connection knows of us ---------------------------------- */

/* Lives as long as the connection, so it is malloc()'s, like libpq's own. */
typedef struct pg_sessions {
    ob_pg_session *first;
} pg_sessions;

static void sessions_free(pg_sessions *all)
{
    while (all->first != NULL) {
        ob_pg_session *s = all->first;
        all->first = s->next;
        free(s);
    }
    free(all);
}

static void session_forget(ob_pg_session *s)
{
    s->checked = false;
    memset(s->prepared, 0, sizeof s->prepared);
}

static int session_event(PGEventId id, void *info, void *arg)
{
    (void)arg;
    if (id == PGEVT_CONNRESET) {
        PGconn *conn = ((PGEventConnReset *)info)->conn;
        pg_sessions *all = PQinstanceData(conn, session_event);
        for (ob_pg_session *s = all->first; s != NULL; s = s->next)
            session_forget(s);
    } else if (id == PGEVT_CONNDESTROY) {
        PGconn *conn = ((PGEventConnDestroy *)info)->conn;
        sessions_free(PQinstanceData(conn, session_event));
    }
    return 1;
}

static pg_sessions *sessions_of(PGconn *conn)
{
    pg_sessions *all = PQinstanceData(conn, session_event);

    if (all != NULL)
        return all;
    all = calloc(1, sizeof *all);
    if (all == NULL)
        return NULL;
    if (!PQregisterEventProc(conn, session_event, "outbox", NULL)) {
        free(all);
        return NULL;
    }
    PQsetInstanceData(conn, session_event, all);
    return all;
}

/* Hashed from where it lives, which no other schema's on this connection does,
 * be it of another copy of this library. */
void ob_pg_session_renew(ob_pg_session *s)
{
    const uint64_t mix[] = { s->name, (uintptr_t)s };

    s->name = outbox_hash(mix, sizeof mix);
    memset(s->prepared, 0, sizeof s->prepared);
}

int ob_pg_session_find(ob_pg *st, outbox_error *err)
{
    pg_sessions *all = sessions_of(st->conn);

    for (st->session = all != NULL ? all->first : NULL; st->session != NULL;
         st->session = st->session->next) {
        if (strcmp(st->session->schema, st->schema) == 0)
            return OUTBOX_OK;
    }
    ob_pg_session *s = all != NULL ? calloc(1, sizeof *s) : NULL;
    if (s == NULL)
        return ob_nomem(err);
    memcpy(s->schema, st->schema, sizeof s->schema);
    ob_pg_session_renew(s);
    s->next = all->first;
    all->first = st->session = s;
    return OUTBOX_OK;
}

/* ---- waiting, on a connection of our own ---------------------------- */

static int no_answer(ob_pg *st, const char *doing, outbox_error *err)
{
    st->broken = true;
    return outbox_error_set(err, OUTBOX_EDB,
                            "%s: no answer from the server for %d ms", doing,
                            st->deadline_ms);
}

/* 1: the socket is ready; 0: the time is over. */
static int socket_wait(ob_pg *st, short events, int64_t until_us)
{
    struct pollfd fd = { PQsocket(st->conn), events, 0 };

    for (;;) {
        int64_t left = (until_us - outbox_monotonic_us() + 999) / 1000;
        int n = poll(&fd, 1, left > 0 ? (int)left : 0);
        if (n > 0 || (n < 0 && errno != EINTR))
            return 1;               /* libpq finds out what is wrong */
        if (n == 0 && left <= 0)
            return 0;
    }
}

/* The deadline is for a silence: a large event may take its time. */
static int64_t deadline_us(const ob_pg *st)
{
    return outbox_monotonic_us() + st->deadline_ms * 1000LL;
}

/* 1: something came or went; 0: the time is over; -1: no connection. */
static int exchange(ob_pg *st, short events, int64_t *until_us)
{
    if (!socket_wait(st, events, *until_us))
        return 0;
    *until_us = deadline_us(st);
    return PQconsumeInput(st->conn) ? 1 : -1;
}

/* What was sent has left, and an answer is there.  -1: no connection. */
static int answer_wait(ob_pg *st, int64_t *until_us)
{
    int rest, rc;

    while ((rest = PQflush(st->conn)) == 1) {
        rc = exchange(st, POLLIN | POLLOUT, until_us);
        if (rc != 1)
            return rc;
    }
    while (rest == 0 && PQisBusy(st->conn)) {
        rc = exchange(st, POLLIN, until_us);
        if (rc != 1)
            return rc;
    }
    return rest == 0 ? 1 : -1;
}

/* The last result, or the first that is an error: a server that ends the
 * connection says why, and then libpq says that it is gone. */
static PGresult *better(PGresult *last, PGresult *res)
{
    if (PQresultStatus(last) == PGRES_FATAL_ERROR && last != NULL) {
        PQclear(res);
        return last;
    }
    PQclear(last);
    return res;
}

/* The same on the caller's connection, for as long as it takes. */
static PGresult *callers(ob_pg *st, int sent)
{
    PGresult *last = NULL, *res;

    while (sent && (res = PQgetResult(st->conn)) != NULL)
        last = better(last, res);
    return last;
}

/* NULL: ask the connection, or *rc, when the time was over. */
static PGresult *answer(ob_pg *st, const char *doing, int *rc,
                        outbox_error *err)
{
    int64_t until_us = deadline_us(st);
    PGresult *last = NULL, *res;

    for (;;) {
        if (answer_wait(st, &until_us) == 0) {
            *rc = no_answer(st, doing, err);
            PQclear(last);
            return NULL;
        }
        res = PQgetResult(st->conn);
        if (res == NULL || PQresultStatus(res) == PGRES_COPY_OUT)
            break;
        last = better(last, res);
    }
    return last;
}

/* ---- running -------------------------------------------------------- */

char *ob_pg_expand(const ob_pg *st, const char *sql)
{
    return ob_text_replace(&st->base.mem, sql, "\"outbox\"", st->schema);
}

/* Unread results would be thrown away by the next statement. */
int ob_pg_ready(ob_pg *st, outbox_error *err)
{
    if (st->ahead)
        ob_pg_windows_collect(st);
    if (st->conn == NULL || st->broken || PQstatus(st->conn) != CONNECTION_OK)
        return ob_pg_lost(st, err);
    if (PQpipelineStatus(st->conn) != PQ_PIPELINE_OFF)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "the connection is in pipeline mode: leave it "
                                "with PQexitPipelineMode() first");
    if (PQtransactionStatus(st->conn) == PQTRANS_ACTIVE)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "a statement of yours runs on this "
                                "connection, COPY or results not read: end "
                                "it first");
    return st->session != NULL ? OUTBOX_OK : ob_pg_session_find(st, err);
}

static char *put_hex(char *at, uint64_t v)
{
    do {
        *at++ = "0123456789abcdef"[v & 15];
        v >>= 4;
    } while (v != 0);
    return at;
}

/* By hand, for each publish does it twice; the digits come backwards. */
void ob_pg_name(const ob_pg *st, enum ob_pg_stmt which,
                char name[OB_PG_NAME_MAX])
{
    char *at = name;

    memcpy(at, "outbox_", 7);
    at = put_hex(at + 7, st->session->name);
    *at++ = '_';
    at = put_hex(at, which);
    *at = '\0';
}

static PGresult *result_of(ob_pg *st, int ok, const char *doing, int *rc,
                      outbox_error *err)
{
    PGresult *res = ok ? answer(st, doing, rc, err) : NULL;

    if (res == NULL && *rc == OUTBOX_OK)
        *rc = ob_pg_error(st, NULL, doing, err);
    return res;
}

static PGresult *run_text(ob_pg *st, const char *sql, const ob_pg_params *p,
                          const char *doing, int *rc, outbox_error *err)
{
    int sent = PQsendQueryParams(st->conn, sql, p->n, NULL, p->value,
                                 p->length, p->format, 1);

    return st->own ? result_of(st, sent, doing, rc, err) : callers(st, sent);
}

static PGresult *run_prepared(ob_pg *st, const char *name,
                              const ob_pg_params *p, const char *doing,
                              int *rc, outbox_error *err)
{
    int sent = PQsendQueryPrepared(st->conn, name, p->n, p->value, p->length,
                                   p->format, 1);

    return st->own ? result_of(st, sent, doing, rc, err) : callers(st, sent);
}

static PGresult *prepare_text(ob_pg *st, const char *name, const char *sql,
                              const char *doing, int *rc, outbox_error *err)
{
    int sent = PQsendPrepare(st->conn, name, sql, 0, NULL);

    return st->own ? result_of(st, sent, doing, rc, err) : callers(st, sent);
}

/* The result when it is a good one; else NULL, with *rc. */
static PGresult *good(ob_pg *st, PGresult *res, const char *doing, int *rc,
                      outbox_error *err)
{
    ExecStatusType status = PQresultStatus(res);

    if (*rc != OUTBOX_OK)
        return NULL;
    if (res != NULL && (status == PGRES_TUPLES_OK ||
                        status == PGRES_COMMAND_OK))
        return res;
    *rc = ob_pg_error(st, res, doing, err);
    PQclear(res);
    return NULL;
}

char *ob_pg_text_of(ob_pg *st, enum ob_pg_stmt which, int *rc,
                    outbox_error *err)
{
    char *sql = ob_pg_expand(st, pg_statements[which]);

    *rc = sql != NULL ? OUTBOX_OK : ob_nomem(err);
    return sql;
}

int ob_pg_prepare(ob_pg *st, enum ob_pg_stmt which, const char *doing,
                  outbox_error *err)
{
    const outbox_allocator *mem = &st->base.mem;
    char name[OB_PG_NAME_MAX];
    int rc = OUTBOX_OK;

    if (st->pooled || st->session->prepared[which])
        return OUTBOX_OK;
    char *sql = ob_pg_text_of(st, which, &rc, err);
    if (sql == NULL)
        return rc;
    ob_pg_name(st, which, name);
    PGresult *res = good(st, prepare_text(st, name, sql, doing, &rc, err),
                         doing, &rc, err);
    mem->free(mem->arg, sql);
    if (res != NULL)
        st->session->prepared[which] = true;
    PQclear(res);
    return rc;
}

PGresult *ob_pg_once(ob_pg *st, const char *sql, const ob_pg_params *p,
                     const char *doing, int *rc, outbox_error *err)
{
    static const ob_pg_params none;
    const outbox_allocator *mem = &st->base.mem;

    *rc = ob_pg_ready(st, err);
    if (*rc != OUTBOX_OK)
        return NULL;
    char *text = ob_pg_expand(st, sql);
    if (text == NULL) {
        *rc = ob_nomem(err);
        return NULL;
    }
    PGresult *res = good(st, run_text(st, text, p != NULL ? p : &none, doing,
                                      rc, err), doing, rc, err);
    mem->free(mem->arg, text);
    return res;
}

PGresult *ob_pg_run(ob_pg *st, enum ob_pg_stmt which, const ob_pg_params *p,
                    const char *doing, int *rc, outbox_error *err)
{
    static const ob_pg_params none;
    char name[OB_PG_NAME_MAX];

    if (st->pooled)
        return ob_pg_once(st, pg_statements[which], p, doing, rc, err);
    *rc = ob_pg_ready(st, err);
    if (*rc == OUTBOX_OK)
        *rc = ob_pg_prepare(st, which, doing, err);
    if (*rc != OUTBOX_OK)
        return NULL;
    ob_pg_name(st, which, name);
    return good(st, run_prepared(st, name, p != NULL ? p : &none, doing, rc,
                                 err), doing, rc, err);
}

int ob_pg_send(ob_pg *st, enum ob_pg_stmt which, const ob_pg_params *p,
               const char *doing, outbox_error *err)
{
    char name[OB_PG_NAME_MAX];
    int rc = ob_pg_ready(st, err);

    if (rc == OUTBOX_OK)
        rc = ob_pg_prepare(st, which, doing, err);
    if (rc != OUTBOX_OK)
        return rc;
    ob_pg_name(st, which, name);
    if (!PQsendQueryPrepared(st->conn, name, p->n, p->value, p->length,
                             p->format, 1))
        return ob_pg_error(st, NULL, doing, err);
    PQflush(st->conn);                  /* what is left goes with receive */
    st->ahead = true;
    return OUTBOX_OK;
}

PGresult *ob_pg_receive(ob_pg *st, const char *doing, int *rc,
                        outbox_error *err)
{
    *rc = OUTBOX_OK;
    st->ahead = false;
    return good(st, result_of(st, 1, doing, rc, err), doing, rc, err);
}

int64_t ob_pg_do(ob_pg *st, enum ob_pg_stmt which, const ob_pg_params *p,
                 const char *doing, outbox_error *err)
{
    int rc;
    PGresult *res = ob_pg_run(st, which, p, doing, &rc, err);

    if (res == NULL)
        return rc;
    const char *n = PQcmdTuples(res);
    int64_t concerned = *n != '\0' ? strtoll(n, NULL, 10) : 0;
    PQclear(res);
    return concerned;
}

/* A text without names of ours goes as it is: what ends a transaction must not
 * need memory. */
int ob_pg_exec(ob_pg *st, const char *sql, const char *doing,
               outbox_error *err)
{
    const outbox_allocator *mem = &st->base.mem;
    char *text = NULL;
    int rc = ob_pg_ready(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    if (strstr(sql, "\"outbox\"") != NULL) {
        text = ob_pg_expand(st, sql);
        if (text == NULL)
            return ob_nomem(err);
        sql = text;
    }
    PGresult *res = st->own ? result_of(st, PQsendQuery(st->conn, sql), doing,
                                        &rc, err)
                            : PQexec(st->conn, sql);
    if (text != NULL)
        mem->free(mem->arg, text);
    res = good(st, res, doing, &rc, err);
    PQclear(res);
    return rc;
}

/* ---- transactions of our own ---------------------------------------- */

int ob_pg_alone(ob_pg *st, outbox_error *err)
{
    int rc = ob_pg_ready(st, err);

    if (rc == OUTBOX_OK && PQtransactionStatus(st->conn) != PQTRANS_IDLE)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "a transaction is open on this connection: "
                                "end it first");
    return rc;
}

int ob_pg_begin(ob_pg *st, outbox_error *err)
{
    int rc = ob_pg_alone(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    st->in_tx = true;
    rc = ob_pg_exec(st, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
                    "begin", err);
    if (rc != OUTBOX_OK)
        st->in_tx = false;
    return rc;
}

int ob_pg_end(ob_pg *st, int rc, outbox_error *err)
{
    if (rc >= 0) {
        int end = ob_pg_exec(st, "COMMIT", "commit", err);
        rc = end == OUTBOX_OK ? rc : end;
    }
    if (rc < 0 && !st->broken &&
        PQtransactionStatus(st->conn) != PQTRANS_IDLE &&
        ob_pg_exec(st, "ROLLBACK", "rollback", NULL) != OUTBOX_OK)
        st->broken = st->own;
    st->in_tx = false;
    return rc;
}

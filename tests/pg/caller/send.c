/* SPDX-License-Identifier: MIT
 *
 * send.c - the client has no memory to send what outbox_publish_commit()
 * sends at once: what is said of it is what is known.
 */
#define _GNU_SOURCE                     /* RTLD_NEXT */
#include "caller.h"

#include <dlfcn.h>
#include <stdio.h>

/* These stand before libpq's, and fail when their count comes to zero. */
static int sends, syncs_failing;

OUTBOX_API int PQsendQueryPrepared(PGconn *conn, const char *name, int n,
                                   const char *const *values,
                                   const int *lengths, const int *formats,
                                   int format)
{
    int (*next)(PGconn *, const char *, int, const char *const *,
                const int *, const int *, int);

    *(void **)&next = dlsym(RTLD_NEXT, "PQsendQueryPrepared");
    if (sends > 0 && --sends == 0)
        return 0;
    return next(conn, name, n, values, lengths, formats, format);
}

OUTBOX_API int PQpipelineSync(PGconn *conn)
{
    int (*next)(PGconn *);

    *(void **)&next = dlsym(RTLD_NEXT, "PQpipelineSync");
    if (syncs_failing > 0 && syncs_failing-- > 0)
        return 0;
    return next(conn);
}

static int publish_one(place *p)
{
    outbox_event ev = event("k");
    const outbox_event *at = &ev;

    sql(p->conn, "BEGIN");
    return outbox_publish_commit(p->ob, &at, 1, &p->err);
}

/* Nothing was sent: the transaction goes on. */
START_TEST(no_event_is_sent)
{
    place p;
    outbox_event ev = event("k");

    place_open(&p, NULL);
    ck_ok(publish_one(&p));
    sends = 1;
    int rc = publish_one(&p);
    ck_says(&p.err, rc, OUTBOX_EDB, "", "publish: ");
    ck_assert_int_eq(PQpipelineStatus(p.conn), PQ_PIPELINE_OFF);
    ck_assert_int_eq(PQtransactionStatus(p.conn), PQTRANS_INTRANS);
    ck_ok(outbox_publish(p.ob, &ev, &p.err));
    sql(p.conn, "COMMIT");
    ck_assert_int_eq(logged(&p), 2);
    place_close(&p);
}
END_TEST

/* The event was, its COMMIT was not. */
START_TEST(no_commit_is_sent)
{
    place p;

    place_open(&p, NULL);
    ck_ok(publish_one(&p));
    sends = 2;
    int rc = publish_one(&p);
    ck_says(&p.err, rc, OUTBOX_EABORTED, "", "roll it back");
    ck_assert_int_eq(PQpipelineStatus(p.conn), PQ_PIPELINE_OFF);
    ck_assert_int_eq(PQtransactionStatus(p.conn), PQTRANS_INTRANS);
    sql(p.conn, "ROLLBACK");
    ck_ok(publish_one(&p));
    ck_assert_int_eq(logged(&p), 2);
    place_close(&p);
}
END_TEST

/* The COMMIT was, and what would bring its answer was not. */
START_TEST(no_end_is_sent)
{
    place p;

    place_open(&p, NULL);
    ck_ok(publish_one(&p));
    syncs_failing = 1;
    int rc = publish_one(&p);
    ck_says(&p.err, rc, OUTBOX_EINDOUBT, "", "COMMIT was sent");
    ck_assert_int_eq(PQpipelineStatus(p.conn), PQ_PIPELINE_OFF);
    ck_assert_int_eq(PQtransactionStatus(p.conn), PQTRANS_IDLE);
    ck_ok(publish_one(&p));
    ck_assert_int_eq(logged(&p), 3);
    syncs_failing = 2;                  /* it is not waited for, either */
    rc = publish_one(&p);
    ck_says(&p.err, rc, OUTBOX_EINDOUBT, "", "COMMIT was sent");
    place_close(&p);
}
END_TEST

void add_send_tests(Suite *s)
{
    TCase *tc = suite_case(s, "send");

    tcase_add_test(tc, no_event_is_sent);
    tcase_add_test(tc, no_commit_is_sent);
    tcase_add_test(tc, no_end_is_sent);
}

/* SPDX-License-Identifier: MIT
 *
 * schema.c - migrating, and tables that are missing or of another make.
 */
#include "contract.h"

#include <stdio.h>
#include <string.h>

START_TEST(without_tables_everything_says_so)
{
    world w;
    outbox_error err;
    inbox_t *ib;

    world_open_bare(&w, _i);
    ck_ok(w.sut->inbox(&ib, w.app, NULL, &err));
    ck_ok(w.sut->begin(w.app));
    ck_assert_int_eq(publish_number(w.ob, "k", 1, &err), OUTBOX_ESCHEMA);
    ck_assert_int_eq(err.code, OUTBOX_ESCHEMA);
    ck_assert_ptr_nonnull(strstr(err.text, "migrate"));
    ck_assert_int_eq(inbox_accept(ib, "c", "id", &err), OUTBOX_ESCHEMA);
    ck_assert_int_eq(inbox_prune(ib, 1, 1, &err), OUTBOX_ESCHEMA);
    ck_ok(w.sut->work(w.app));          /* and the transaction goes on */
    ck_ok(w.sut->commit(w.app));
    ck_assert_int_eq(w.sut->count(w.db, SUT_WORK), 1);
    ck_ok(outbox_migrate(w.ob, &err));
    publish_numbers(&w, "k", 1, 1);     /* the same handle, afterwards */
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 1);
    inbox_close(ib);
    world_close(&w);
}
END_TEST

START_TEST(migrating_again_changes_nothing)
{
    world w;
    outbox_error err;

    world_open(&w, _i);
    publish_numbers(&w, "k", 0, 3);
    ck_ok(outbox_migrate(w.ob, &err));
    ck_ok(outbox_migrate(w.ob, NULL));
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 3);
    drain_after_crash(&w, &w.sink, NULL);
    ck_assert(sink_exactly(&w.sink, 0, 3));
    world_close(&w);
}
END_TEST

/* At every start a service says so, whoever writes. */
START_TEST(migrating_again_waits_for_no_writer)
{
    world w;
    outbox_error err;

    world_open(&w, _i);
    void *busy = w.sut->conn_open(w.db);
    ck_ok(w.sut->begin(busy));
    ck_ok(w.sut->work(busy));
    ck_ok(outbox_migrate(w.ob, &err));
    ck_ok(w.sut->commit(busy));
    w.sut->conn_close(busy);
    world_close(&w);
}
END_TEST

START_TEST(migrating_refuses_an_open_transaction)
{
    world w;
    outbox_error err;

    world_open_bare(&w, _i);
    ck_ok(w.sut->begin(w.app));
    ck_ok(w.sut->work(w.app));
    ck_assert_int_eq(outbox_migrate(w.ob, &err), OUTBOX_EINVAL);
    ck_assert(w.sut->in_transaction(w.app));
    ck_ok(w.sut->commit(w.app));
    ck_assert_int_eq(w.sut->count(w.db, SUT_WORK), 1);
    ck_ok(outbox_migrate(w.ob, &err));
    world_close(&w);
}
END_TEST

START_TEST(a_newer_schema_is_refused)
{
    world w;
    outbox_error err;
    outbox_relay_t *r = NULL;
    outbox_t *fresh;
    void *conn;

    world_open(&w, _i);
    w.sut->newer_schema(w.db);
    conn = w.sut->conn_open(w.db);
    ck_ok(w.sut->outbox(&fresh, conn, NULL, &err));
    ck_ok(w.sut->begin(conn));
    ck_assert_int_eq(publish_number(fresh, "k", 1, &err), OUTBOX_ESCHEMA);
    ck_assert_ptr_nonnull(strstr(err.text, "version"));
    ck_ok(w.sut->rollback(conn));
    ck_assert_int_eq(outbox_migrate(fresh, &err), OUTBOX_ESCHEMA);
    outbox_close(fresh);
    w.sut->conn_close(conn);
    ck_ok(w.sut->connect(&fresh, w.db, NULL, NULL, &err));
    int rc = outbox_relay_new(&r, fresh, &w.sink.transport, NULL, &err);
    if (rc == OUTBOX_OK)
        rc = outbox_relay_start(r, &err);
    ck_assert_int_eq(rc, OUTBOX_ESCHEMA);
    if (r != NULL)
        outbox_relay_free(r);
    else
        outbox_close(fresh);
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 0);
    world_close(&w);
}
END_TEST

/* A number of lanes that no library gives: nothing is made of it. */
static void lanes_refused(world *w, int lanes)
{
    char words[40];
    outbox_error err;
    outbox_relay_t *r;
    outbox_t *own;

    w->sut->claim_lanes(w->db, lanes);
    ck_ok(w->sut->connect(&own, w->db, NULL, NULL, &err));
    ck_ok(outbox_relay_new(&r, own, &w->sink.transport, NULL, &err));
    ck_assert_int_eq(outbox_relay_step(r, 0, &err), OUTBOX_ESCHEMA);
    snprintf(words, sizeof words, "%d lanes", lanes);
    ck_assert_msg(strstr(err.text, words) != NULL, "%s", err.text);
    if (w->sut == &sut_memory)          /* it leaves that to the relay */
        ck_ok(outbox_unsubscribe(w->ob, "default", &err));
    ck_assert_int_eq(w->sut->count(w->db, SUT_SUBSCRIPTIONS), 0);
    outbox_relay_stop(r, 100, &err);    /* it says goodbye to no lane */
    outbox_relay_free(r);
}

START_TEST(lanes_that_cannot_be_are_refused)
{
    static const int lanes[] = { 0, OUTBOX_MAX_LANES + 1, 1000, 1000000 };
    world w;

    world_open(&w, _i);
    for (size_t i = 0; i < sizeof lanes / sizeof *lanes; i++)
        lanes_refused(&w, lanes[i]);
    w.sut->claim_lanes(w.db, 16);
    publish_numbers(&w, "k", 0, 3);
    drain_after_crash(&w, &w.sink, NULL);
    ck_assert(sink_exactly(&w.sink, 0, 3));
    world_close(&w);
}
END_TEST

START_TEST(a_migration_that_was_another_is_refused)
{
    world w;
    outbox_error err;

    world_open(&w, _i);
    w.sut->change_checksum(w.db);
    ck_assert_int_eq(outbox_migrate(w.ob, &err), OUTBOX_ESCHEMA);
    ck_assert_int_eq(err.code, OUTBOX_ESCHEMA);
    ck_assert_str_ne(err.text, "");
    world_close(&w);
}
END_TEST

/* ---- at once -------------------------------------------------------- */

enum { MIGRATORS = 6 };

typedef struct migrator {
    world             *w;
    pthread_barrier_t *gate;
    int                rc;
    outbox_error       err;
} migrator;

static void *migrate_once(void *arg)
{
    migrator *m = arg;
    outbox_t *ob;
    void *conn = m->w->sut->conn_open(m->w->db);

    m->rc = m->w->sut->outbox(&ob, conn, NULL, &m->err);
    pthread_barrier_wait(m->gate);
    if (m->rc == OUTBOX_OK)
        m->rc = outbox_migrate(ob, &m->err);
    outbox_close(ob);
    m->w->sut->conn_close(conn);
    return NULL;
}

START_TEST(many_migrate_at_once)
{
    world w;
    pthread_barrier_t gate;
    pthread_t threads[MIGRATORS];
    migrator m[MIGRATORS];

    world_open_bare(&w, _i);
    pthread_barrier_init(&gate, NULL, MIGRATORS);
    for (int i = 0; i < MIGRATORS; i++) {
        m[i] = (migrator){ .w = &w, .gate = &gate };
        pthread_create(&threads[i], NULL, migrate_once, &m[i]);
    }
    for (int i = 0; i < MIGRATORS; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_msg(m[i].rc == OUTBOX_OK, "%d: %d %s", i, m[i].rc,
                      m[i].err.text);
    }
    pthread_barrier_destroy(&gate);
    publish_numbers(&w, "k", 0, 3);
    drain_after_crash(&w, &w.sink, NULL);
    ck_assert(sink_exactly(&w.sink, 0, 3));
    world_close(&w);
}
END_TEST

START_TEST(the_first_migration_fixes_the_lanes)
{
    outbox_options four = { .size = sizeof four, .lanes = 4 };
    outbox_options eight = { .size = sizeof eight, .lanes = 8 };
    world w;
    outbox_error err;
    outbox_t *ob;

    world_open_bare(&w, _i);
    ck_ok(w.sut->outbox(&ob, w.app, &four, &err));
    ck_ok(outbox_migrate(ob, &err));
    outbox_close(ob);
    ck_ok(w.sut->outbox(&ob, w.app, &eight, &err));
    ck_ok(outbox_migrate(ob, &err));
    outbox_close(ob);
    publish_numbers(&w, NULL, 0, 40);
    publish_numbers(&w, "k", 40, 10);
    drain_after_crash(&w, &w.sink, NULL);
    ck_assert(sink_exactly(&w.sink, 0, 50));
    world_close(&w);
}
END_TEST

void add_schema_tests(Suite *s)
{
    TCase *tc = suite_case(s, "schema");

    tcase_add_loop_test(tc, without_tables_everything_says_so, 0, n_ways);
    tcase_add_loop_test(tc, migrating_again_changes_nothing, 0, n_ways);
    tcase_add_loop_test(tc, migrating_again_waits_for_no_writer, 0, n_ways);
    tcase_add_loop_test(tc, migrating_refuses_an_open_transaction, 0, n_ways);
    tcase_add_loop_test(tc, a_newer_schema_is_refused, 0, n_ways);
    tcase_add_loop_test(tc, lanes_that_cannot_be_are_refused, 0, n_suts);
    tcase_add_loop_test(tc, a_migration_that_was_another_is_refused, 0,
                        n_ways);
    tcase_add_loop_test(tc, many_migrate_at_once, 0, n_ways);
    tcase_add_loop_test(tc, the_first_migration_fixes_the_lanes, 0, n_ways);
}

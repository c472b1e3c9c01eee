/* SPDX-License-Identifier: MIT
 *
 * restore.c - a database that is not what it was: restored from a copy,
 * dumped into another cluster, a standby that was promoted.  Nothing of what
 * is there is lost; some of it may come twice.
 */
#include "pg.h"
#include "plug.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void reconnect(world *w)
{
    PQreset(((pg_db *)w->db)->conn);
    PQreset(w->app);
    ck_assert_int_eq(PQstatus(w->app), CONNECTION_OK);
}

/* Whatever the steps say, until each of from..from + n - 1 has come. */
static void step_until(world *w, outbox_relay_t *r, long from, long n)
{
    outbox_error err = { .text = "" };
    int n_steps = 0;

    for (int i = 0; i < 3000 && !sink_at_least(&w->sink, from, n); i++) {
        vclock_advance(&w->clock, 50);
        n_steps += outbox_relay_step(r, 0, &err) >= 0;
    }
    ck_assert_msg(sink_at_least(&w->sink, from, n), "not all came in %d good"
                  " steps: %s", n_steps, err.text);
}

/* Windows are cut for all; afterwards there are as many as there once were,
 * of other events. */
static void let_another_read(world *w, long from, long n)
{
    outbox_relay_options opt = relay_options(w);
    sink s;

    opt.subscription = "other";
    sink_init(&s, NULL, NULL);
    outbox_relay_t *r = relay_open(w, &s, &opt, NULL);
    for (long i = from; i < from + n; i++) {
        publish_numbers(w, "k", i, 1);
        settle_down(r);
    }
    run_for(w, r, 1000, 50);
    ck_assert(sink_at_least(&s, from, n));
    relay_drop(r);
    sink_release(&s);
}

/* As an operator who puts back yesterday's copy while relays are up. */
static void an_older_copy(bool another_reads)
{
    plug p;
    world w;

    plug_in(&p, "fsync=off");
    world_open(&w, WHICH);
    outbox_relay_t *r = relay_at_rest(&w, NULL);
    publish_numbers(&w, "k", 0, 5);
    settle_down(r);
    run_for(&w, r, 1000, 50);
    plug_stop(&p);
    plug_save(&p);
    plug_start(&p);
    reconnect(&w);
    for (long i = 5; i < 15; i++) {
        publish_numbers(&w, "k", i, 1);
        step_until(&w, r, 0, i + 1);
    }
    run_for(&w, r, 1000, 50);
    plug_stop(&p);
    plug_restore(&p);
    plug_start(&p);
    reconnect(&w);
    if (another_reads)
        let_another_read(&w, 100, 30);
    else
        publish_numbers(&w, "k", 100, 30);
    step_until(&w, r, 100, 30);
    publish_numbers(&w, "k", 130, 3);
    step_until(&w, r, 130, 3);
    ck_assert(sink_in_order(&w.sink));
    relay_drop(r);
    world_close(&w);
    plug_pull(&p);
}

START_TEST(an_older_copy_is_put_back)
{
    an_older_copy(false);
}
END_TEST

START_TEST(an_older_copy_is_put_back_and_grows)
{
    an_older_copy(true);
}
END_TEST

/* ---- another cluster ------------------------------------------------ */

/* In a new cluster transaction numbers begin anew: those of the dump are of
 * times to come. */
static void dump(const pg_db *db, const plug *from, const plug *to)
{
    plug_run("psql -q -h '%s' -c 'CREATE DATABASE %s'", to->dir, db->name);
    plug_run("pg_dump -h '%s' %s | psql -q -v ON_ERROR_STOP=1 -h '%s' -d %s"
             " >/dev/null", from->dir, db->name, to->dir, db->name);
}

static void move(world *w, const plug *to)
{
    pg_db *db = w->db;

    PQfinish(db->conn);
    outbox_close(w->ob);
    PQfinish(w->app);
    snprintf(db->conninfo, sizeof db->conninfo, "%s dbname=%s", to->conninfo,
             db->name);
    db->conn = pg_open(db, NULL);
    w->app = pg_open(db, NULL);
    outbox_error err;
    ck_ok(w->sut->outbox(&w->ob, w->app, NULL, &err));
    setenv("OUTBOX_TEST_PG", to->conninfo, 1);
}

static void moved(bool upgrade, bool publish_first)
{
    plug a, b;
    world w;

    if (upgrade)
        plug_in_old(&a, "fsync=off");
    else
        plug_in(&a, "fsync=off");
    world_open(&w, WHICH);
    for (int i = 0; i < 300; i++)
        ck_ok(w.sut->work(w.app));      /* numbers that the new one lacks */
    outbox_relay_t *r = relay_at_rest(&w, NULL);
    publish_numbers(&w, "k", 0, 5);
    run_for(&w, r, 1000, 50);
    relay_drop(r);
    publish_numbers(&w, "k", 5, 5);
    if (upgrade) {
        plug_upgrade(&b, &a, "fsync=off");
    } else {
        plug_in(&b, "fsync=off");
        dump(w.db, &a, &b);
    }
    move(&w, &b);
    plug_pull(&a);
    if (publish_first)
        publish_numbers(&w, "k", 10, 5);
    r = relay_open(&w, NULL, NULL, NULL);
    run_for(&w, r, 30000, 500);         /* the old lease goes */
    if (!publish_first)
        publish_numbers(&w, "k", 10, 5);
    step_until(&w, r, 0, 15);
    publish_numbers(&w, "k", 15, 1);
    step_until(&w, r, 15, 1);
    run_for(&w, r, 1000, 50);
    ck_assert_uint_eq(sink_times(&w.sink, 15), 1);
    ck_assert(sink_in_order(&w.sink));
    relay_drop(r);
    world_close(&w);
    plug_pull(&b);
}

START_TEST(dumped_into_another_cluster)
{
    moved(false, false);
}
END_TEST

START_TEST(dumped_and_published_before_the_relay)
{
    moved(false, true);
}
END_TEST

START_TEST(upgraded_to_another_cluster)
{
    moved(true, false);
}
END_TEST

/* The same data and numbers, another identifier. */
static void another_identifier(const char *before)
{
    world w;

    world_open(&w, WHICH);
    pg_tamper(w.db, "%s", before);
    outbox_relay_t *r = relay_at_rest(&w, NULL);
    publish_numbers(&w, "k", 0, 5);
    run_for(&w, r, 1000, 50);
    relay_drop(r);
    publish_numbers(&w, "k", 5, 5);
    pg_tamper(w.db, "UPDATE outbox.meta SET system = system + 1");
    r = relay_open(&w, NULL, NULL, NULL);
    run_for(&w, r, 30000, 500);
    step_until(&w, r, 0, 10);
    publish_numbers(&w, "k", 10, 5);
    step_until(&w, r, 10, 5);
    ck_assert(sink_in_order(&w.sink));
    ck_assert_uint_eq(sink_times(&w.sink, 14), 1);
    relay_drop(r);
    world_close(&w);
}

START_TEST(another_system_identifier)
{
    another_identifier("SELECT");
}
END_TEST

/* A publication needs to know which row it is that was updated. */
START_TEST(all_tables_are_published)
{
    another_identifier("CREATE PUBLICATION everything FOR ALL TABLES");
}
END_TEST

/* ---- standbys ------------------------------------------------------- */

static int relay_refused(world *w, const plug *p, outbox_error *err)
{
    outbox_relay_t *r = NULL;
    char conninfo[600];
    outbox_t *ob;

    snprintf(conninfo, sizeof conninfo, "%s dbname=%s", p->conninfo,
             ((pg_db *)w->db)->name);
    int rc = outbox_pg_connect(&ob, conninfo, NULL, err);
    if (rc == OUTBOX_OK)
        rc = outbox_relay_new(&r, ob, &w->sink.transport, NULL, err);
    if (rc == OUTBOX_OK)
        rc = outbox_relay_start(r, err);
    if (r != NULL)
        outbox_relay_free(r);
    return rc;
}

START_TEST(a_standby_is_refused)
{
    plug a, b;
    world w;
    outbox_error err;

    plug_in(&a, "fsync=off");
    world_open(&w, WHICH);
    publish_numbers(&w, "k", 0, 5);
    plug_standby(&b, &a);
    ck_assert_int_lt(relay_refused(&w, &b, &err), 0);
    ck_assert_msg(strstr(err.text, "standby") != NULL, "%s", err.text);
    ck_assert_uint_eq(sink_count(&w.sink), 0);
    world_close(&w);
    plug_pull(&b);
    plug_pull(&a);
}
END_TEST

/* A subscription that a standby has not heard of is one that was removed. */
static void standby_has_heard(const plug *standby, const pg_db *db)
{
    static const char sql[] = "SELECT count(*) FROM outbox.subscription";
    char conninfo[300];

    snprintf(conninfo, sizeof conninfo, "host=%s user=postgres dbname=%s",
             standby->dir, db->name);
    PGconn *conn = PQconnectdb(conninfo);
    for (int i = 0; i < 1000 && pg_number(conn, sql) != 1; i++)
        poll(NULL, 0, 10);
    ck_assert_int_eq(pg_number(conn, sql), 1);
    PQfinish(conn);
}

/* The relay knows of events, windows and cursors that the promoted standby
 * never had; the same positions and numbers come again for others. */
START_TEST(a_lagging_standby_is_promoted)
{
    plug a, b;
    world w;

    plug_in(&a, "fsync=off");
    world_open(&w, WHICH);
    pg_db *db = w.db;
    publish_numbers(&w, "k", 0, 5);
    plug_standby(&b, &a);
    snprintf(db->conninfo, sizeof db->conninfo,
             "host=%s,%s user=postgres dbname=%s"
             " target_session_attrs=read-write", a.dir, b.dir, db->name);
    outbox_relay_t *r = relay_at_rest(&w, NULL);
    run_for(&w, r, 1000, 50);
    standby_has_heard(&b, db);
    plug_stop(&b);
    for (long i = 5; i < 15; i++) {
        publish_numbers(&w, "k", i, 1);
        step_until(&w, r, 0, i + 1);
    }
    run_for(&w, r, 1000, 50);
    plug_crash(&a);
    plug_start(&b);
    plug_promote(&b);
    setenv("OUTBOX_TEST_PG", b.conninfo, 1);
    PQfinish(db->conn);
    outbox_close(w.ob);
    PQfinish(w.app);
    db->conn = pg_open(db, NULL);
    w.app = pg_open(db, NULL);
    outbox_error err;
    ck_ok(w.sut->outbox(&w.ob, w.app, NULL, &err));
    publish_numbers(&w, "k", 100, 10);
    step_until(&w, r, 100, 10);
    publish_numbers(&w, "k", 110, 10);
    step_until(&w, r, 110, 10);
    ck_assert(sink_in_order(&w.sink));
    relay_drop(r);
    world_close(&w);
    plug_pull(&b);
    plug_pull(&a);
}
END_TEST

void add_restore_tests(Suite *s)
{
    TCase *tc = suite_case(s, "restore");

    tcase_add_test(tc, an_older_copy_is_put_back);
    tcase_add_test(tc, an_older_copy_is_put_back_and_grows);
    tcase_add_test(tc, dumped_into_another_cluster);
    tcase_add_test(tc, dumped_and_published_before_the_relay);
    tcase_add_test(tc, upgraded_to_another_cluster);
    tcase_add_test(tc, another_system_identifier);
    tcase_add_test(tc, all_tables_are_published);
    tcase_add_test(tc, a_standby_is_refused);
    tcase_add_test(tc, a_lagging_standby_is_promoted);
}

/* SPDX-License-Identifier: MIT
 *
 * sqlite.c - transactions as only SQLite ends them: silent rollbacks, commits
 * that fail and stay open, stale snapshots, read-only connections.
 */
#include "contract.h"
#include "common/sut_sqlite.h"

#include <outbox/sqlite.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

enum { WHICH = 1 };                     /* of suts[]: this one */

static void sqlite_world(world *w)
{
    world_open(w, WHICH);
    ck_assert_str_eq(w->sut->name, "sqlite");
}

/* ---- transactions that end by themselves ---------------------------- */

START_TEST(insert_or_rollback_leaves_no_lone_event)
{
    world w;
    outbox_error err;

    sqlite_world(&w);
    sqlite_exec(w.app, "CREATE TABLE u(x UNIQUE); INSERT INTO u VALUES (1)");
    ck_ok(w.sut->begin(w.app));
    ck_ok(w.sut->work(w.app));
    ck_assert_int_eq(sqlite_exec(w.app, "INSERT OR ROLLBACK INTO u VALUES (1)"),
                     SQLITE_CONSTRAINT);
    ck_assert_int_eq(publish_number(w.ob, "k", 1, &err), OUTBOX_ENOTX);
    ck_assert_int_eq(sqlite_exec(w.app, "COMMIT"), SQLITE_ERROR);
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 0);
    ck_assert_int_eq(w.sut->count(w.db, SUT_WORK), 0);
    world_close(&w);
}
END_TEST

/* The disk is full for the business statement, which rolls back everything,
 * and has room again for the event. */
START_TEST(a_full_disk_leaves_no_lone_event)
{
    world w;
    outbox_error err;
    struct rlimit limit, old;
    int silent = 0;

    signal(SIGXFSZ, SIG_IGN);
    sqlite_world(&w);
    sqlite_exec(w.app, "PRAGMA cache_size = 5");
    getrlimit(RLIMIT_FSIZE, &old);
    for (rlim_t most = 20000; most < 500000; most += 40000) {
        limit = (struct rlimit){ most, old.rlim_max };
        ck_ok(sqlite_exec(w.app, "BEGIN IMMEDIATE"));
        setrlimit(RLIMIT_FSIZE, &limit);
        sqlite_exec(w.app, "INSERT INTO work VALUES (randomblob(400000))");
        setrlimit(RLIMIT_FSIZE, &old);
        bool open = w.sut->in_transaction(w.app);
        int rc = publish_number(w.ob, "k", 1, &err);
        ck_assert_int_eq(rc, open ? OUTBOX_OK : OUTBOX_ENOTX);
        silent += !open;
        sqlite_exec(w.app, "ROLLBACK");
        ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 0);
    }
    ck_assert_int_ge(silent, 3);
    world_close(&w);
}
END_TEST

static void trigger(world *w, const char *action)
{
    char sql[200];

    snprintf(sql, sizeof sql,
             "CREATE TRIGGER t AFTER INSERT ON outbox_log WHEN new.key = 'boom'"
             " BEGIN SELECT RAISE(%s, 'boom'); END", action);
    ck_assert_int_eq(sqlite_exec(w->app, sql), SQLITE_OK);
}

static int publish_three(world *w, bool commit, outbox_error *err)
{
    outbox_event ev[3];
    const outbox_event *at[3] = { &ev[0], &ev[1], &ev[2] };

    for (int i = 0; i < 3; i++)
        ev[i] = (outbox_event){ .size = sizeof *ev, .topic = "t",
                                .key = i == 2 ? "boom" : "fine" };
    return commit ? outbox_publish_commit(w->ob, at, 3, err)
                  : outbox_publish_many(w->ob, at, 3, err);
}

START_TEST(a_row_that_fails_takes_the_others_with_it)
{
    world w;
    outbox_error err;

    sqlite_world(&w);
    trigger(&w, "ABORT");
    for (int commit = 0; commit < 2; commit++) {
        ck_ok(w.sut->begin(w.app));
        ck_ok(w.sut->work(w.app));
        ck_assert_int_eq(publish_three(&w, commit, &err), OUTBOX_EDB);
        ck_assert_int_eq(err.native & 0xff, SQLITE_CONSTRAINT);
        ck_assert(w.sut->in_transaction(w.app));
        ck_ok(publish_number(w.ob, "k", 1, &err));
        ck_ok(w.sut->commit(w.app));
        ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), commit + 1);
        ck_assert_int_eq(w.sut->count(w.db, SUT_WORK), commit + 1);
    }
    world_close(&w);
}
END_TEST

START_TEST(a_row_that_rolls_back_is_said_to)
{
    world w;
    outbox_error err;

    sqlite_world(&w);
    trigger(&w, "ROLLBACK");
    for (int commit = 0; commit < 2; commit++) {
        ck_ok(w.sut->begin(w.app));
        ck_ok(w.sut->work(w.app));
        ck_assert_int_eq(publish_three(&w, commit, &err), OUTBOX_EABORTED);
        ck_assert(!w.sut->in_transaction(w.app));
        ck_assert_int_eq(publish_number(w.ob, "k", 1, &err), OUTBOX_ENOTX);
        ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 0);
        ck_assert_int_eq(w.sut->count(w.db, SUT_WORK), 0);
    }
    world_close(&w);
}
END_TEST

/* COMMIT fails over a deferred constraint, the transaction stays open: the
 * events of the call must not be in it. */
START_TEST(a_commit_that_fails_can_be_tried_again)
{
    world w;
    outbox_error err;
    outbox_event ev = { .size = sizeof ev, .topic = "t" };
    const outbox_event *at = &ev;

    sqlite_world(&w);
    sqlite_exec(w.app, "PRAGMA foreign_keys = ON;"
                       "CREATE TABLE parent(id INTEGER PRIMARY KEY);"
                       "CREATE TABLE child(id REFERENCES parent"
                       " DEFERRABLE INITIALLY DEFERRED);");
    ck_ok(w.sut->begin(w.app));
    ck_ok(sqlite_exec(w.app, "INSERT INTO child VALUES (1)"));
    ck_assert_int_eq(outbox_publish_commit(w.ob, &at, 1, &err), OUTBOX_EDB);
    ck_assert_int_eq(err.native & 0xff, SQLITE_CONSTRAINT);
    ck_assert(w.sut->in_transaction(w.app));
    ck_assert_int_eq(sqlite_number(w.app, "SELECT count(*) FROM outbox_log"),
                     0);
    ck_ok(sqlite_exec(w.app, "INSERT INTO parent VALUES (1)"));
    ck_ok(outbox_publish_commit(w.ob, &at, 1, &err));
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 1);
    world_close(&w);
}
END_TEST

START_TEST(an_inbox_commit_that_fails_says_so)
{
    world w;
    outbox_error err;
    inbox_t *ib;

    sqlite_world(&w);
    ck_ok(inbox_sqlite_open(&ib, w.app, NULL, &err));
    sqlite_exec(w.app, "PRAGMA foreign_keys = ON;"
                       "CREATE TABLE parent(id INTEGER PRIMARY KEY);"
                       "CREATE TABLE child(id REFERENCES parent"
                       " DEFERRABLE INITIALLY DEFERRED);");
    ck_ok(w.sut->begin(w.app));
    ck_assert_int_eq(inbox_accept(ib, "c", "id", &err), 1);
    ck_ok(sqlite_exec(w.app, "INSERT INTO child VALUES (1)"));
    ck_assert_int_eq(inbox_commit(ib, &err), OUTBOX_EDB);
    ck_assert_int_eq(w.sut->count(w.db, SUT_MARKS), 0);
    ck_assert(w.sut->in_transaction(w.app));
    ck_ok(sqlite_exec(w.app, "INSERT INTO parent VALUES (1)"));
    ck_ok(inbox_commit(ib, &err));
    ck_assert_int_eq(w.sut->count(w.db, SUT_MARKS), 1);
    inbox_close(ib);
    world_close(&w);
}
END_TEST

START_TEST(a_commit_that_is_busy_can_be_tried_again)
{
    world w;
    outbox_error err;
    outbox_event ev = { .size = sizeof ev, .topic = "t" };
    const outbox_event *at = &ev;
    sqlite3 *reader;

    sqlite_world(&w);
    ck_ok(sqlite_exec(w.app, "PRAGMA journal_mode = DELETE"));
    sqlite3_busy_timeout(w.app, 1);
    reader = sqlite_open(w.db);
    ck_ok(sqlite_exec(reader, "BEGIN"));
    ck_assert_int_eq(sqlite_number(reader, "SELECT count(*) FROM work"), 0);
    ck_ok(w.sut->begin(w.app));
    ck_ok(w.sut->work(w.app));
    ck_assert_int_eq(outbox_publish_commit(w.ob, &at, 1, &err), OUTBOX_EBUSY);
    ck_assert(w.sut->in_transaction(w.app));
    sqlite3_close(reader);
    ck_ok(outbox_publish_commit(w.ob, &at, 1, &err));
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 1);
    ck_assert_int_eq(w.sut->count(w.db, SUT_WORK), 1);
    world_close(&w);
}
END_TEST

START_TEST(a_locked_database_is_busy_and_recovers)
{
    world w;
    outbox_error err;
    sqlite3 *writer;

    sqlite_world(&w);
    sqlite3_busy_timeout(w.app, 1);
    writer = sqlite_open(w.db);
    ck_ok(sqlite_exec(writer, "BEGIN IMMEDIATE"));
    ck_ok(w.sut->begin(w.app));
    ck_assert_int_eq(publish_number(w.ob, "k", 1, &err), OUTBOX_EBUSY);
    ck_ok(sqlite_exec(writer, "COMMIT"));
    ck_ok(publish_number(w.ob, "k", 1, &err));
    ck_ok(w.sut->commit(w.app));
    ck_assert_int_eq(w.sut->count(w.db, SUT_LOG), 1);
    sqlite3_close(writer);
    world_close(&w);
}
END_TEST

/* A snapshot that another writer has overtaken cannot be written through. */
START_TEST(a_stale_snapshot_is_busy)
{
    world w;
    outbox_error err;

    sqlite_world(&w);
    sqlite3_busy_timeout(w.app, 1);
    ck_ok(w.sut->begin(w.app));
    sqlite_number(w.app, "SELECT count(*) FROM work");
    sqlite_tamper(w.db, "INSERT INTO work VALUES (1)");
    ck_assert_int_eq(publish_number(w.ob, "k", 1, &err), OUTBOX_EBUSY);
    ck_assert_int_eq(err.native, SQLITE_BUSY_SNAPSHOT);
    ck_ok(w.sut->rollback(w.app));
    world_close(&w);
}
END_TEST

static int write_elsewhere(unsigned what, void *ctx, void *stmt, void *sql)
{
    (void)what, (void)stmt;
    if (strstr(sql, "INSERT") != NULL && strstr(sql, "outbox_log") != NULL)
        sqlite_tamper(ctx, "INSERT INTO work VALUES (1)");
    return 0;
}

/* Publishing is the first thing that a deferred transaction does, and another
 * connection writes at the worst moment.  Had the library read something
 * before, the snapshot would be stale, and no busy handler could help. */
START_TEST(the_first_statement_is_the_insert)
{
    world w;
    outbox_error err;

    sqlite_world(&w);
    ck_ok(w.sut->begin(w.app));
    sqlite3_trace_v2(w.app, SQLITE_TRACE_STMT, write_elsewhere, w.db);
    ck_ok(publish_number(w.ob, "k", 1, &err));
    sqlite3_trace_v2(w.app, 0, NULL, NULL);
    ck_ok(w.sut->commit(w.app));
    world_close(&w);
}
END_TEST

/* If another connection can write then, it does. */
static int try_elsewhere(unsigned what, void *ctx, void *stmt, void *sql)
{
    (void)what, (void)stmt;
    if (strstr(sql, "DELETE FROM main.\"outbox_inbox") != NULL) {
        sqlite3 *other = sqlite_open(ctx);
        sqlite_exec(other, "INSERT INTO work VALUES (1)");
        sqlite3_close(other);
    }
    return 0;
}

/* As with publishing, though the tables are checked here, too. */
START_TEST(pruning_holds_the_lock_before_it_reads)
{
    world w;
    outbox_error err;
    inbox_t *ib;

    sqlite_world(&w);
    ck_ok(inbox_sqlite_open(&ib, w.app, NULL, &err));
    ck_ok(w.sut->begin(w.app));
    sqlite3_trace_v2(w.app, SQLITE_TRACE_STMT, try_elsewhere, w.db);
    ck_ok(inbox_prune(ib, 1, 1, &err));
    sqlite3_trace_v2(w.app, 0, NULL, NULL);
    ck_ok(w.sut->commit(w.app));
    inbox_close(ib);
    world_close(&w);
}
END_TEST

/* What the caller inserted last is what he asks for. */
START_TEST(the_callers_last_rowid_is_kept)
{
    world w;
    outbox_error err;
    inbox_t *ib;

    sqlite_world(&w);
    publish_numbers(&w, "k", 0, 7);
    ck_ok(inbox_sqlite_open(&ib, w.app, NULL, &err));
    ck_ok(w.sut->begin(w.app));
    sqlite_exec(w.app, "INSERT INTO work(rowid, x) VALUES (4711, 1)");
    ck_ok(publish_number(w.ob, "k", 7, &err));
    ck_assert_int_eq(sqlite3_last_insert_rowid(w.app), 4711);
    ck_assert_int_eq(inbox_accept(ib, "c", "id", &err), 1);
    ck_assert_int_eq(sqlite3_last_insert_rowid(w.app), 4711);
    ck_ok(w.sut->commit(w.app));
    inbox_close(ib);
    world_close(&w);
}
END_TEST

/* ---- read-only ------------------------------------------------------ */

START_TEST(query_only_is_read_only)
{
    world w;
    outbox_error err;

    sqlite_world(&w);
    sqlite_exec(w.app, "PRAGMA query_only = ON");
    ck_ok(w.sut->begin(w.app));
    ck_assert_int_eq(publish_number(w.ob, "k", 1, &err), OUTBOX_EREADONLY);
    ck_ok(w.sut->rollback(w.app));
    sqlite_exec(w.app, "PRAGMA query_only = OFF");
    world_close(&w);
}
END_TEST

void add_sqlite_tests(Suite *s)
{
    TCase *tc = suite_case(s, "sqlite");

    tcase_add_test(tc, insert_or_rollback_leaves_no_lone_event);
    tcase_add_test(tc, a_full_disk_leaves_no_lone_event);
    tcase_add_test(tc, a_row_that_fails_takes_the_others_with_it);
    tcase_add_test(tc, a_row_that_rolls_back_is_said_to);
    tcase_add_test(tc, a_commit_that_fails_can_be_tried_again);
    tcase_add_test(tc, an_inbox_commit_that_fails_says_so);
    tcase_add_test(tc, a_commit_that_is_busy_can_be_tried_again);
    tcase_add_test(tc, a_locked_database_is_busy_and_recovers);
    tcase_add_test(tc, a_stale_snapshot_is_busy);
    tcase_add_test(tc, the_first_statement_is_the_insert);
    tcase_add_test(tc, pruning_holds_the_lock_before_it_reads);
    tcase_add_test(tc, the_callers_last_rowid_is_kept);
    tcase_add_test(tc, query_only_is_read_only);
}

/* SPDX-License-Identifier: MIT
 *
 * sqlite.c - what only SQLite can do: silent rollbacks, read-only files,
 * private databases, paths that are no database, prefixes.
 */
#include "contract.h"
#include "common/sut_sqlite.h"

#include <outbox/sqlite.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* ---- connecting ----------------------------------------------------- */

static void no_connection(const char *path, int code, const char *word)
{
    outbox_t *ob = (void *)&ob;
    outbox_error err;

    ck_assert_msg(outbox_sqlite_connect(&ob, path, NULL, &err) == code,
                  "\"%s\": %d %s, not %d", path, err.code, err.text, code);
    ck_assert_ptr_null(ob);
    ck_assert_int_eq(err.code, code);
    ck_assert_msg(strstr(err.text, word) != NULL, "\"%s\" says no %s",
                  err.text, word);
    ck_assert_int_eq(outbox_sqlite_connect(&ob, path, NULL, NULL), code);
}

START_TEST(private_databases_are_refused)
{
    outbox_error err;
    outbox_t *ob;

    no_connection(":memory:", OUTBOX_EINVAL, "memory");
    no_connection("", OUTBOX_EINVAL, "");
    no_connection("file::memory:", OUTBOX_EINVAL, "memory");
    no_connection("file:x?mode=memory", OUTBOX_EINVAL, "memory");
    no_connection("file:x?mode=memory&cache=shared", OUTBOX_EINVAL, "memory");
    ck_assert_int_eq(outbox_sqlite_connect(&ob, NULL, NULL, &err),
                     OUTBOX_EINVAL);
}
END_TEST

static void write_file(const char *path, const char *text, size_t n)
{
    FILE *f = fopen(path, "wb");

    for (size_t i = 0; i < n; i++)
        fputs(text, f);
    fclose(f);
}

START_TEST(what_is_no_database)
{
    const char *path = tmp_new("text");
    char uri[300], missing[300];

    write_file(path, "this is not a database\n", 200);
    no_connection(path, OUTBOX_EDB, "");
    snprintf(uri, sizeof uri, "file:%s", path);
    no_connection(uri, OUTBOX_EDB, "");
    snprintf(missing, sizeof missing, "%s.missing", path);
    no_connection(missing, OUTBOX_EDB, "");
    ck_assert_int_ne(access(missing, F_OK), 0);         /* nothing was made */
    no_connection("/", OUTBOX_EDB, "");
    no_connection("/nonexistent/dir/file.db", OUTBOX_EDB, "");
    no_connection("file:/tmp/x?mode=nonsense", OUTBOX_EDB, "");
}
END_TEST

START_TEST(a_path_may_be_a_uri)
{
    world w;
    outbox_error err;
    outbox_t *ob;
    outbox_relay_t *r;
    outbox_relay_options opt;
    char uri[300];

    sqlite_world(&w);
    publish_numbers(&w, "k", 0, 2);
    snprintf(uri, sizeof uri, "file:%s?mode=rw", (char *)w.db);
    ck_ok(outbox_sqlite_connect(&ob, uri, NULL, &err));
    opt = relay_options(&w);
    ck_ok(outbox_relay_new(&r, ob, &w.sink.transport, &opt, &err));
    settle_down(r);
    ck_assert(sink_exactly(&w.sink, 0, 2));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(a_relay_over_a_read_only_file)
{
    world w;
    outbox_error err;
    outbox_t *ob;
    outbox_relay_t *r = NULL;
    char uri[300];

    sqlite_world(&w);
    snprintf(uri, sizeof uri, "file:%s?mode=ro", (char *)w.db);
    int rc = outbox_sqlite_connect(&ob, uri, NULL, &err);
    if (rc == OUTBOX_OK) {
        rc = outbox_relay_new(&r, ob, &w.sink.transport, NULL, &err);
        if (rc == OUTBOX_OK)
            rc = outbox_relay_start(r, &err);
        if (r == NULL)
            outbox_close(ob);
        outbox_relay_free(r);
    }
    ck_assert_int_eq(rc, OUTBOX_EREADONLY);
    world_close(&w);
}
END_TEST

static int refuse_connection(void *arg, void *db)
{
    ck_assert_ptr_nonnull(db);
    ++*(int *)arg;
    return 1;
}

START_TEST(on_connect_may_refuse)
{
    world w;
    outbox_error err;
    outbox_t *ob;
    int calls = 0;
    outbox_options opt = { .size = sizeof opt,
                           .on_connect = refuse_connection,
                           .arg = &calls };

    sqlite_world(&w);
    ck_assert_int_lt(outbox_sqlite_connect(&ob, w.db, &opt, &err), 0);
    ck_assert_ptr_null(ob);
    ck_assert_int_eq(calls, 1);
    world_close(&w);
}
END_TEST

/* An application on :memory: may publish; it is only the relay, with its own
 * connection, that can never see it. */
START_TEST(publishing_into_memory_works)
{
    outbox_error err;
    outbox_t *ob;
    sqlite3 *db = sqlite_open(":memory:");

    ck_ok(outbox_sqlite_open(&ob, db, NULL, &err));
    ck_ok(outbox_migrate(ob, &err));
    ck_ok(sqlite_exec(db, "BEGIN"));
    ck_ok(publish_number(ob, "k", 1, &err));
    ck_ok(sqlite_exec(db, "COMMIT"));
    ck_assert_int_eq(sqlite_number(db, "SELECT count(*) FROM outbox_log"), 1);
    outbox_close(ob);
    sqlite3_close(db);
}
END_TEST

/* ---- prefixes ------------------------------------------------------- */

START_TEST(two_prefixes_are_two_outboxes)
{
    world w;
    outbox_error err;
    outbox_t *mine, *ob;
    outbox_relay_t *r;
    outbox_options opt = { .size = sizeof opt, .prefix = "mine_" };
    outbox_relay_options ro;

    sqlite_world(&w);
    ck_ok(outbox_sqlite_open(&mine, w.app, &opt, &err));
    ck_ok(outbox_migrate(mine, &err));
    publish_numbers(&w, "k", 0, 2);
    ck_ok(w.sut->begin(w.app));
    ck_ok(publish_number(mine, "k", 100, &err));
    ck_ok(w.sut->commit(w.app));
    ck_assert_int_eq(sqlite_number(w.app,
                                   "SELECT count(*) FROM mine_log"), 1);
    ck_ok(outbox_sqlite_connect(&ob, w.db, &opt, &err));
    ro = relay_options(&w);
    ck_ok(outbox_relay_new(&r, ob, &w.sink.transport, &ro, &err));
    settle_down(r);
    ck_assert(sink_exactly(&w.sink, 100, 1));
    outbox_relay_free(r);
    outbox_close(mine);
    world_close(&w);
}
END_TEST

START_TEST(prefixes_that_are_refused)
{
    static const char *const bad[] = { "a\"b", "", "a b;", "caf\xe9" };
    world w;
    outbox_error err;
    outbox_t *ob;

    sqlite_world(&w);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        outbox_options opt = { .size = sizeof opt, .prefix = bad[i] };
        int rc = outbox_sqlite_open(&ob, w.app, &opt, &err);
        if (rc == OUTBOX_OK) {          /* then it must work as a name */
            ck_ok(outbox_migrate(ob, &err));
            ck_ok(w.sut->begin(w.app));
            ck_ok(publish_number(ob, "k", 1, &err));
            ck_ok(w.sut->commit(w.app));
            outbox_close(ob);
        } else {
            ck_assert_int_eq(rc, OUTBOX_EINVAL);
            ck_assert_ptr_nonnull(strstr(err.text, "prefix"));
        }
    }
    ck_assert_int_eq(sqlite_number(w.app, "SELECT count(*) FROM work"), 0);
    world_close(&w);
}
END_TEST

/* ---- what happens to the file --------------------------------------- */

START_TEST(the_file_stays_sound)
{
    world w;
    char text[16] = "";
    sqlite3_stmt *st;

    sqlite_world(&w);
    for (long i = 0; i < 5; i++) {
        publish_numbers(&w, "k", 100 * i, 100);
        drain_after_crash(&w, &w.sink, NULL);
    }
    ck_assert_int_eq(sqlite3_prepare_v2(w.app, "PRAGMA integrity_check", -1,
                                        &st, NULL), SQLITE_OK);
    ck_assert_int_eq(sqlite3_step(st), SQLITE_ROW);
    snprintf(text, sizeof text, "%s",
             (const char *)sqlite3_column_text(st, 0));
    sqlite3_finalize(st);
    ck_assert_str_eq(text, "ok");
    ck_assert(sink_exactly(&w.sink, 0, 500));
    world_close(&w);
}
END_TEST

/* A relay killed in the middle of things, for real. */
START_TEST(a_killed_process_loses_nothing)
{
    world w;
    int status, ready[2];
    char byte;

    sqlite_world(&w);
    publish_numbers(&w, "k", 0, 10);
    publish_numbers(&w, NULL, 10, 10);
    ck_assert_int_eq(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        w.sink.rule = sink_pending;
        outbox_relay_t *r = relay_open(&w, NULL, NULL, NULL);
        settle_down(r);
        for (size_t i = 0; i < sink_count(&w.sink); i++)
            sink_settle(&w.sink, i, OUTBOX_ACK);
        steps(r, 1);
        ck_assert_int_eq(write(ready[1], "", 1), 1);
        pause();
        _exit(0);
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    kill(child, SIGKILL);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    drain_after_crash(&w, &w.sink, NULL);
    ck_assert(sink_at_least(&w.sink, 0, 20));
    ck_assert(sink_in_order(&w.sink));
    close(ready[0]);
    close(ready[1]);
    world_close(&w);
}
END_TEST

/* ---- silence -------------------------------------------------------- */

static void noisy_things(sink_rule *rule)
{
    world *w = &(world){ .sut = NULL };
    outbox_error err;
    outbox_t *ob;

    sqlite_world(w);
    publish_number(w->ob, "k", 1, &err);        /* no transaction */
    ck_assert_int_lt(outbox_publish(w->ob, NULL, &err), 0);
    publish_numbers(w, "k", 0, 5);
    w->sink.rule = rule;
    outbox_relay_t *r = relay_open(w, NULL, NULL, NULL);
    run_for(w, r, 20000, 500);
    w->sut->empty_log(w->db);
    publish_numbers(w, "k", 5, 5);
    run_for(w, r, 20000, 500);
    outbox_relay_free(r);
    if (outbox_sqlite_connect(&ob, "/nonexistent", NULL, &err) == OUTBOX_OK)
        outbox_close(ob);
    world_close(w);
}

START_TEST(nothing_is_ever_printed)
{
    const char *path = tmp_new("output");
    pid_t child = fork();
    int status;

    if (child == 0) {
        if (freopen(path, "w", stdout) == NULL
            || freopen(path, "a", stderr) == NULL)
            _exit(1);
        noisy_things(sink_retry);
        noisy_things(sink_reject);
        fflush(stdout);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    char line[200] = "";
    ck_assert_msg(fgets(line, sizeof line, f) == NULL, "printed: %s", line);
    fclose(f);
    ck_assert_int_eq(status, 0);
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
    tcase_add_test(tc, a_commit_that_is_busy_can_be_tried_again);
    tcase_add_test(tc, a_locked_database_is_busy_and_recovers);
    tcase_add_test(tc, a_stale_snapshot_is_busy);
    tcase_add_test(tc, the_first_statement_is_the_insert);
    tcase_add_test(tc, the_callers_last_rowid_is_kept);
    tcase_add_test(tc, query_only_is_read_only);
    tcase_add_test(tc, private_databases_are_refused);
    tcase_add_test(tc, what_is_no_database);
    tcase_add_test(tc, a_path_may_be_a_uri);
    tcase_add_test(tc, a_relay_over_a_read_only_file);
    tcase_add_test(tc, on_connect_may_refuse);
    tcase_add_test(tc, publishing_into_memory_works);
    tcase_add_test(tc, two_prefixes_are_two_outboxes);
    tcase_add_test(tc, prefixes_that_are_refused);
    tcase_add_test(tc, the_file_stays_sound);
    tcase_add_test(tc, a_killed_process_loses_nothing);
    tcase_add_test(tc, nothing_is_ever_printed);
}

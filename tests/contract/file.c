/* SPDX-License-Identifier: MIT
 *
 * file.c - SQLite files as a relay meets them: paths and URIs, private
 * databases, prefixes, a killed process; and that nothing is ever printed.
 */
#include "contract.h"
#include "common/sut_sqlite.h"

#include <outbox/sqlite.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WHICH = 1 };                     /* of suts[]: SQLite */

static void file_world(world *w)
{
    world_open(w, WHICH);
    ck_assert_str_eq(w->sut->name, "sqlite");
}

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

    file_world(&w);
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

    file_world(&w);
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

    file_world(&w);
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

    file_world(&w);
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

    file_world(&w);
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

    file_world(&w);
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

    file_world(&w);
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

    file_world(w);
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

void add_file_tests(Suite *s)
{
    TCase *tc = suite_case(s, "file");

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

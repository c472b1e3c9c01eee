/* SPDX-License-Identifier: MIT
 *
 * test_sqlite.c - connections with settings of their own.  SQLITE_LIMIT_LENGTH
 * lowered, as SQLite's hardening guide advises: what does not fit is refused,
 * never left out of the row.  A rollback journal, where COMMIT is busy, too.
 * What is said about a file that does not open, or opens badly set.  And what
 * is on the disk before anybody hears of it.
 */
#define _GNU_SOURCE                     /* syscall */
#include "common/suite.h"
#include "common/sut_sqlite.h"

#include <outbox/sqlite.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#define UNIX_MS "SELECT (julianday('now') - 2440587.5) * 86400000"

enum { SHORT = 300, LONG = 400 };

static char long_text[LONG + 1];

typedef struct shop {
    sqlite3  *db;
    outbox_t *ob;
    inbox_t  *ib;
} shop;

static void shop_open(shop *s)
{
    memset(long_text, 'x', LONG);
    s->db = sqlite_open(tmp_new("limits"));
    ck_assert_int_eq(outbox_sqlite_open(&s->ob, s->db, NULL, NULL), 0);
    ck_assert_int_eq(inbox_sqlite_open(&s->ib, s->db, NULL, NULL), 0);
    ck_assert_int_eq(outbox_migrate(s->ob, NULL), 0);
    ck_assert_int_eq(sqlite_exec(s->db, "BEGIN IMMEDIATE"), SQLITE_OK);
}

static void shop_close(shop *s)
{
    inbox_close(s->ib);
    outbox_close(s->ob);
    sqlite3_close(s->db);
}

static void refused(shop *s, const outbox_event *ev)
{
    const outbox_event fits = { .size = sizeof fits, .topic = "t" };
    const outbox_event *both[] = { &fits, ev };
    outbox_error err = { 0 };
    int old = sqlite3_limit(s->db, SQLITE_LIMIT_LENGTH, SHORT);

    ck_assert_int_eq(outbox_publish(s->ob, ev, &err), OUTBOX_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "SQLITE_LIMIT_LENGTH is 300"));
    ck_assert_int_eq(err.native & 0xff, SQLITE_TOOBIG);
    ck_assert_int_eq(outbox_publish_many(s->ob, both, 2, &err),
                     OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_publish_commit(s->ob, both, 2, &err),
                     OUTBOX_EINVAL);
    ck_assert_int_eq(sqlite3_get_autocommit(s->db), 0);
    ck_assert_int_eq(sqlite_number(s->db, "SELECT count(*) FROM outbox_log"),
                     0);
    ck_assert_int_eq(sqlite_number(s->db, "SELECT count(*) FROM outbox_dedup"),
                     0);
    ck_assert_int_eq(outbox_publish(s->ob, &fits, &err), OUTBOX_OK);
    sqlite3_limit(s->db, SQLITE_LIMIT_LENGTH, old);
    sqlite_exec(s->db, "ROLLBACK; BEGIN IMMEDIATE");
}

START_TEST(no_value_is_left_out)
{
    const outbox_header header = { "h", long_text };
    outbox_event ev[] = {
        { .key = long_text },
        { .type = long_text },
        { .content_type = long_text },
        { .headers = &header, .n_headers = 1 },
        { .payload = long_text, .payload_len = LONG },
        { .dedup_key = long_text },
        { .key = long_text, .dedup_key = "d" },
        { .key = long_text, .due_ms = INT64_C(1) << 50 },
    };
    shop s;

    shop_open(&s);
    for (size_t i = 0; i < sizeof ev / sizeof *ev; i++) {
        ev[i].size = sizeof *ev;
        ev[i].topic = "t";
        refused(&s, &ev[i]);
    }
    shop_close(&s);
}
END_TEST

START_TEST(no_mark_of_half_an_id)
{
    outbox_error err;
    shop s;

    shop_open(&s);
    sqlite3_limit(s.db, SQLITE_LIMIT_LENGTH, SHORT);
    ck_assert_int_eq(inbox_accept(s.ib, "c", long_text, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(inbox_accept(s.ib, "c", "fits", &err), 1);
    ck_assert_int_eq(inbox_accept(s.ib, "c", "fits", &err), 0);
    shop_close(&s);
}
END_TEST

typedef struct crowd {
    sqlite3 *reader;
    int      begins;
} crowd;

/* The reader goes when the migration is begun for the second time. */
static int on_statement(unsigned what, void *arg, void *stmt, void *text)
{
    crowd *c = arg;

    (void)what, (void)stmt;
    if (strcmp(text, "BEGIN IMMEDIATE") == 0 && ++c->begins == 2)
        sqlite_exec(c->reader, "COMMIT");
    return 0;
}

START_TEST(a_migration_outlasts_a_reader)
{
    const char *path = tmp_new("rollback");
    sqlite3 *db = sqlite_open(path);
    crowd c = { .reader = sqlite_open(path) };
    outbox_error err = { 0 };
    outbox_t *ob;

    ck_assert_int_eq(sqlite_exec(db, "PRAGMA journal_mode = DELETE;"
                                 "CREATE TABLE t(x)"), SQLITE_OK);
    sqlite3_busy_timeout(db, 0);
    ck_assert_int_eq(sqlite_exec(c.reader, "BEGIN; SELECT * FROM t"),
                     SQLITE_OK);
    sqlite3_trace_v2(db, SQLITE_TRACE_STMT, on_statement, &c);
    ck_assert_int_eq(outbox_sqlite_open(&ob, db, NULL, &err), OUTBOX_OK);
    ck_assert_msg(outbox_migrate(ob, &err) == OUTBOX_OK, "%s", err.text);
    ck_assert_int_eq(c.begins, 2);
    outbox_close(ob);
    sqlite3_close(c.reader);
    sqlite3_close(db);
}
END_TEST

START_TEST(an_open_that_fails_names_the_file)
{
    char uri[200], *path = uri + 5;
    outbox_error err;
    outbox_t *ob;

    snprintf(uri, sizeof uri, "file:%s?key=secret", tmp_new("missing"));
    ck_assert_int_eq(outbox_sqlite_connect(&ob, uri, NULL, &err), OUTBOX_EDB);
    ck_assert_ptr_null(strstr(err.text, "secret"));
    *strchr(path, '?') = '\0';
    ck_assert_ptr_nonnull(strstr(err.text, path));
    ck_assert_int_eq(outbox_sqlite_connect(&ob, path, NULL, &err),
                     OUTBOX_EDB);
    ck_assert_ptr_nonnull(strstr(err.text, path));
}
END_TEST

static int keep_statement(void *arg, void *db)
{
    return sqlite3_prepare_v2(db, "SELECT * FROM t", -1, arg, NULL);
}

static int descriptors(const char *path)
{
    char link[64], to[300];
    int n = 0;

    for (int fd = 0; fd < 100; fd++) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t len = readlink(link, to, sizeof to - 1);
        if (len < 0)
            continue;
        to[len] = '\0';
        n += strcmp(to, path) == 0;
    }
    return n;
}

/* on_connect may have made a statement that the application still has when
 * the handle is closed: the connection goes with it, and asks nothing of the
 * handle that is gone. */
START_TEST(a_statement_that_on_connect_kept)
{
    sqlite3_stmt *kept = NULL;
    const outbox_options opt = { .size = sizeof opt, .arg = &kept,
                                 .on_connect = keep_statement };
    const char *path = tmp_new("kept");
    sqlite3 *db = sqlite_open(path);
    outbox_t *ob;

    sqlite_exec(db, "PRAGMA journal_mode = DELETE; CREATE TABLE t(x)");
    int before = descriptors(path);
    ck_assert_int_gt(before, 0);
    ck_assert_int_eq(outbox_sqlite_connect(&ob, path, &opt, NULL), OUTBOX_OK);
    ck_assert_int_eq(descriptors(path), before + 1);
    ck_assert_int_eq(sqlite3_step(kept), SQLITE_DONE);
    sqlite3_reset(kept);
    outbox_close(ob);
    sqlite_exec(db, "BEGIN EXCLUSIVE");
    ck_assert_int_eq(sqlite3_step(kept), SQLITE_BUSY);
    sqlite_exec(db, "COMMIT");
    sqlite3_finalize(kept);
    ck_assert_int_eq(descriptors(path), before);
    sqlite3_close(db);
}
END_TEST

static void note_word(void *arg, int level, const char *line)
{
    const char *words[] = { "may corrupt a WAL", "not in WAL mode" };
    int *seen = arg;

    for (int i = 0; i < 2; i++)
        seen[i] += level == LOG_WARNING && strstr(line, words[i]) != NULL;
}

static outbox_verdict take(void *ctx, const outbox_event *ev,
                           outbox_token token, outbox_error *why)
{
    (void)ctx, (void)ev, (void)token, (void)why;
    return OUTBOX_ACK;
}

/* A loop test: 0 without, 1 with a WAL. */
START_TEST(a_relay_warns_of_what_it_starts_on)
{
    const outbox_transport to = { .size = sizeof to, .send = take };
    const char *path = tmp_new("warned");
    int seen[2] = { 0 };
    const outbox_relay_options opt = { .size = sizeof opt, .log = note_word,
                                       .log_arg = seen };
    sqlite3 *db = sqlite_open(path);
    outbox_relay_t *relay;
    outbox_t *ob, *own;

    sqlite_exec(db, _i ? "PRAGMA journal_mode = WAL"
                       : "PRAGMA journal_mode = DELETE");
    ck_assert_int_eq(outbox_sqlite_open(&ob, db, NULL, NULL), OUTBOX_OK);
    ck_assert_int_eq(outbox_migrate(ob, NULL), OUTBOX_OK);
    ck_assert_int_eq(outbox_sqlite_connect(&own, path, NULL, NULL), OUTBOX_OK);
    ck_assert_int_eq(outbox_relay_new(&relay, own, &to, &opt, NULL),
                     OUTBOX_OK);
    ck_assert_int_ge(outbox_relay_step(relay, 0, NULL), 0);
    ck_assert_int_eq(outbox_relay_stop(relay, 1000, NULL), OUTBOX_OK);
    ck_assert_int_eq(seen[0],
                     _i == 1 && sqlite3_libversion_number() < 3051003);
    ck_assert_int_eq(seen[1], _i == 0);
    outbox_relay_free(relay);
    outbox_close(ob);
    sqlite3_close(db);
}
END_TEST

/* ---- on the disk before it is told -------------------------------------
 *
 * These stand before the C library's, for SQLite too, and count. */

static int syncs;

OUTBOX_API int fsync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fsync, fd);
}

OUTBOX_API int fdatasync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fdatasync, fd);
}

typedef struct proof {
    int committed;              /* syncs when the last COMMIT had returned */
    int sent, early;
    bool blind;
} proof;

static outbox_verdict check_synced(void *ctx, const outbox_event *ev,
                                   outbox_token token, outbox_error *why)
{
    proof *p = ctx;

    (void)ev, (void)token, (void)why;
    p->sent++;
    p->early += syncs == p->committed;
    return OUTBOX_ACK;
}

/* What a relay moves into the log itself is not on the disk by that. */
static int on_moved(unsigned what, void *arg, void *stmt, void *text)
{
    proof *p = arg;

    (void)what, (void)stmt;
    if (strstr(text, "outbox_scheduled") != NULL)
        p->committed = syncs;
    return 0;
}

/* A relay that may not ask whether anybody has committed. */
static int deny_version(void *arg, int what, const char *name, const char *to,
                        const char *base, const char *trigger)
{
    (void)arg, (void)to, (void)base, (void)trigger;
    return what == SQLITE_PRAGMA && strcmp(name, "data_version") == 0
               ? SQLITE_DENY : SQLITE_OK;
}

static int watch(void *arg, void *db)
{
    if (((proof *)arg)->blind)
        sqlite3_set_authorizer(db, deny_version, NULL);
    return sqlite3_trace_v2(db, SQLITE_TRACE_STMT, on_moved, arg);
}

static outbox_relay_t *proven_relay(const char *path, proof *p)
{
    const outbox_transport to = { .size = sizeof to, .ctx = p,
                                  .send = check_synced };
    const outbox_options opt = { .size = sizeof opt, .on_connect = watch,
                                 .arg = p };
    outbox_relay_t *relay;
    outbox_t *own;

    ck_assert_int_eq(outbox_sqlite_connect(&own, path, &opt, NULL), OUTBOX_OK);
    ck_assert_int_eq(outbox_relay_new(&relay, own, &to, NULL, NULL),
                     OUTBOX_OK);
    return relay;
}

/* The publisher's connection does not sync: the relay must.  One event of two
 * is due a little later, when nobody has committed since the last sync.  A
 * loop test: 1 with a relay that cannot ask for PRAGMA data_version. */
START_TEST(what_is_sent_is_on_the_disk)
{
    outbox_event ev = { .size = sizeof ev, .topic = "t" }, later = ev;
    const outbox_event *both[] = { &ev, &later };
    const char *path = tmp_new("durable");
    sqlite3 *db = sqlite_open(path);
    proof p = { .blind = _i };
    outbox_t *ob;

    sqlite_exec(db, "PRAGMA journal_mode = WAL");
    ck_assert_int_eq(outbox_sqlite_open(&ob, db, NULL, NULL), OUTBOX_OK);
    ck_assert_int_eq(outbox_migrate(ob, NULL), OUTBOX_OK);
    outbox_relay_t *relay = proven_relay(path, &p);
    for (int i = 2; i <= 8; i += 2) {
        int before = syncs;
        later.due_ms = sqlite_number(db, UNIX_MS) + 100;
        sqlite_exec(db, "BEGIN IMMEDIATE");
        ck_assert_int_eq(outbox_publish_many(ob, both, 2, NULL), OUTBOX_OK);
        ck_assert_int_eq(sqlite_exec(db, "COMMIT"), SQLITE_OK);
        ck_assert_int_eq(syncs, before);
        p.committed = syncs;
        for (int n = 0; p.sent < i && n < 1000; n++)
            ck_assert_int_ge(outbox_relay_step(relay, 10, NULL), 0);
        ck_assert_int_eq(p.sent, i);
    }
    ck_assert_int_eq(p.early, 0);
    outbox_relay_free(relay);
    outbox_close(ob);
    sqlite3_close(db);
}
END_TEST

/* Databases carry this number: a migration that was released never changes,
 * a new one is added. */
START_TEST(the_first_migration_is_what_it_was)
{
    shop s;
    sqlite3_stmt *stmt;

    shop_open(&s);
    ck_assert_int_eq(sqlite3_prepare_v2(s.db, "SELECT checksum FROM"
                                        " outbox_migration WHERE version = 1",
                                        -1, &stmt, NULL), SQLITE_OK);
    ck_assert_int_eq(sqlite3_step(stmt), SQLITE_ROW);
    ck_assert_str_eq((const char *)sqlite3_column_text(stmt, 0),
                     "3766f25105b03fc3");
    sqlite3_finalize(stmt);
    shop_close(&s);
}
END_TEST

START_TEST(an_effect_is_on_the_disk)
{
    shop s;
    outbox_error err;

    shop_open(&s);
    sqlite_exec(s.db, "COMMIT; PRAGMA journal_mode = WAL; BEGIN IMMEDIATE");
    ck_assert_int_eq(inbox_accept(s.ib, "c", "1", &err), 1);
    int before = syncs;
    ck_assert_int_eq(inbox_commit(s.ib, &err), OUTBOX_OK);
    ck_assert_int_gt(syncs, before);
    shop_close(&s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sqlite");
    TCase *tc = suite_case(s, "connections");

    tcase_add_test(tc, no_value_is_left_out);
    tcase_add_test(tc, no_mark_of_half_an_id);
    tcase_add_test(tc, a_migration_outlasts_a_reader);
    tcase_add_test(tc, an_open_that_fails_names_the_file);
    tcase_add_test(tc, a_statement_that_on_connect_kept);
    tcase_add_loop_test(tc, a_relay_warns_of_what_it_starts_on, 0, 2);
    tcase_add_loop_test(tc, what_is_sent_is_on_the_disk, 0, 2);
    tcase_add_test(tc, the_first_migration_is_what_it_was);
    tcase_add_test(tc, an_effect_is_on_the_disk);
    return suite_main(s);
}

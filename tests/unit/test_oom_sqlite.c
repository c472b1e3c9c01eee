/* SPDX-License-Identifier: MIT
 *
 * test_oom_sqlite.c - SQLite itself runs out of memory, at every allocation
 * that it makes within a call of the library.
 *
 * Its allocator is set once for the whole program, which is why this is one.
 */
#include "common/oom.h"
#include "common/sut_sqlite.h"

#include <core.h>
#include <outbox/sqlite.h>
#include <stdlib.h>
#include <string.h>

enum { SQLITE = 1, MOST = 200000 };

static sqlite3_mem_methods real;
static struct {
    bool armed, ever_after;
    long calls, fail_at, failed;
} state;

static bool refuse(void)
{
    if (!state.armed || state.fail_at == 0)
        return false;
    long n = ++state.calls;
    bool no = state.ever_after ? n >= state.fail_at : n == state.fail_at;
    state.failed += no;
    return no;
}

static void *failing_malloc(int n)
{
    return refuse() ? NULL : real.xMalloc(n);
}

static void *failing_realloc(void *p, int n)
{
    return refuse() ? NULL : real.xRealloc(p, n);
}

static void arm(bool on)
{
    state.armed = on;
}

static void install(void)
{
    sqlite3_mem_methods failing;

    sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0);  /* ask us for everything */
    sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real);
    failing = real;
    failing.xMalloc = failing_malloc;
    failing.xRealloc = failing_realloc;
    sqlite3_config(SQLITE_CONFIG_MALLOC, &failing);
}

/* Calls that allocate come in long rows of a kind: after the first hundreds
 * every step-th is enough, and the steps of two loops share no factor. */
static void every_allocation(bool warm, bool ever_after, long step)
{
    oom o = { .which = SQLITE, .arm = arm, .any_code = true, .warm = warm };
    long n = 0;

    do {
        n += n < 50 ? 1 : step;
        state.calls = state.failed = 0;
        state.fail_at = n;
        state.ever_after = ever_after;
        oom_live(&o);
        ck_assert_int_lt(n, MOST);
    } while (state.failed > 0);
    ck_assert_int_gt(n, 200);
}

START_TEST(one_fails)
{
    every_allocation(_i, false, 37);
}
END_TEST

START_TEST(all_fail_from_then_on)
{
    every_allocation(_i, true, 41);
}
END_TEST

/* ---- texts that are converted ----------------------------------------
 *
 * In a database in UTF-16 each text that goes in or comes out takes memory of
 * its own, and where there is none SQLite gives NULL in its place. */

static const outbox_event whole = { .size = sizeof whole, .topic = "orders",
                                    .type = "order.placed", .key = "k",
                                    .content_type = "text/plain" };

static bool same(const char *a, const char *b)
{
    return a != NULL && strcmp(a, b) == 0;
}

static outbox_verdict look(void *ctx, const outbox_event *ev,
                           outbox_token token, outbox_error *why)
{
    int *seen = ctx;

    (void)token, (void)why;
    seen[same(ev->topic, whole.topic) && same(ev->type, whole.type) &&
         same(ev->key, whole.key) &&
         same(ev->content_type, whole.content_type)]++;
    return OUTBOX_ACK;
}

static int64_t clock_read(void *now_ms)
{
    return *(int64_t *)now_ms;
}

static outbox_relay_t *utf16_relay(const char *path, int seen[2],
                                   int64_t *now_ms)
{
    const outbox_transport to = { .size = sizeof to, .ctx = seen,
                                  .send = look };
    const outbox_relay_options opt = { .size = sizeof opt,
                                       .clock_ms = clock_read,
                                       .clock_arg = now_ms,
                                       .batch = 1 };    /* no step after */
    outbox_relay_t *relay;
    outbox_t *own;

    ck_ok(outbox_sqlite_connect(&own, path, NULL, NULL));
    ck_ok(outbox_relay_new(&relay, own, &to, &opt, NULL));
    return relay;
}

static void publish_whole(sqlite3 *db, outbox_t *ob, long fail_at)
{
    outbox_error err;

    ck_assert_int_eq(sqlite_exec(db, "BEGIN IMMEDIATE"), SQLITE_OK);
    state.calls = state.failed = 0;
    state.fail_at = fail_at;
    state.ever_after = false;
    arm(true);
    int rc = outbox_publish(ob, &whole, &err);
    arm(false);
    ck_assert(rc == OUTBOX_OK || (rc < 0 && state.failed > 0));
    if (sqlite_exec(db, "COMMIT") != SQLITE_OK)
        sqlite_exec(db, "ROLLBACK");
}

START_TEST(converted_texts_are_whole)
{
    const char *path = tmp_new("utf16");
    sqlite3 *db = sqlite_open(path);
    int seen[2] = { 0 };
    int64_t now_ms = 0;
    outbox_error err;
    bool failed;
    outbox_t *ob;
    long n = 0;

    sqlite_exec(db, "PRAGMA encoding = 'UTF-16'; PRAGMA journal_mode = WAL");
    ck_ok(outbox_sqlite_open(&ob, db, NULL, NULL));
    ck_ok(outbox_migrate(ob, NULL));
    do
        publish_whole(db, ob, ++n);
    while (state.failed > 0);
    ck_assert_int_gt(n, 10);
    ck_assert_int_eq(sqlite_number(db, "SELECT count(*) FROM outbox_log WHERE"
                                   " type IS NULL OR key IS NULL OR"
                                   " content_type IS NULL"), 0);
    outbox_relay_t *relay = utf16_relay(path, seen, &now_ms);
    n = 0;
    do {
        int before = seen[1];
        now_ms += 6000;                 /* over every pause */
        state.calls = state.failed = 0;
        state.fail_at = ++n;
        arm(true);
        (void)!outbox_relay_step(relay, 0, &err);
        arm(false);
        ck_assert_msg(seen[0] == 0, "step %ld", n);
        failed = state.failed > 0;
        if (seen[1] > before)
            publish_whole(db, ob, 0);
    } while (failed || seen[1] == 0);
    ck_assert_int_gt(n, 10);
    outbox_relay_free(relay);
    outbox_close(ob);
    sqlite3_close(db);
}
END_TEST

/* ---- a trial --------------------------------------------------------- */

/* Note a trial where the n-th allocation fails; the lease is not lost. */
static void try_one(outbox_store *st, int64_t sub, const uint8_t me[16],
                    const outbox_lane *lane, long n)
{
    outbox_error err;

    state.calls = state.failed = 0;
    state.fail_at = n;
    state.ever_after = false;
    arm(true);
    int rc = st->ops->trial(st, sub, me, lane, 1, &err);
    arm(false);
    ck_assert_msg(rc > 0 || state.failed > 0, "%ld: %s", n, err.text);
    ck_assert_msg(rc != OUTBOX_ESTALE, "%ld: %s", n, err.text);
}

START_TEST(a_trial_without_memory_loses_no_lease)
{
    static const uint8_t me[16] = "the only relay";
    const char *path = tmp_new("trial");
    outbox_subscription sub = { .name = "s", .create = 1 };
    outbox_lane lanes[OUTBOX_MAX_LANES] = { { 0 } };
    outbox_beat beats[1];
    sqlite3 *db = sqlite_open(path);
    outbox_error err;
    outbox_t *ob;
    long n = 0;

    ck_ok(outbox_sqlite_open(&ob, db, NULL, NULL));
    ck_ok(outbox_migrate(ob, NULL));
    outbox_close(ob);
    ck_ok(outbox_sqlite_connect(&ob, path, NULL, NULL));
    outbox_store *st = ob->h.store;
    ck_ok(st->ops->attach(st, &sub, &err));
    ck_assert_int_eq(st->ops->beat(st, &sub, me, 16, lanes, sub.lanes, beats,
                                   1, &err), 1);
    ck_ok(st->ops->acquire(st, sub.sub, me, lanes, 1, &err));
    ck_assert_int_eq(lanes[0].held, 1);
    do
        try_one(st, sub.sub, me, &lanes[0], ++n);
    while (state.failed > 0);
    ck_assert_int_gt(n, 5);
    outbox_close(ob);
    sqlite3_close(db);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("oom_sqlite");
    TCase *tc = suite_case(s, "sqlite");

    install();
    tcase_add_loop_test(tc, one_fails, 0, 2);
    tcase_add_loop_test(tc, all_fail_from_then_on, 0, 2);
    tcase_add_test(tc, converted_texts_are_whole);
    tcase_add_test(tc, a_trial_without_memory_loses_no_lease);
    return suite_main(s);
}

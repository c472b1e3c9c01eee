/* SPDX-License-Identifier: MIT
 *
 * fork.c - a handle belongs to the process that made it.
 */
#include "contract.h"

#include <sys/wait.h>
#include <unistd.h>

#define EFORK_OR(n, call) \
    do { \
        if ((call) != OUTBOX_EFORK) \
            return n; \
    } while (0)

/* What the child sees; 0 when every function refuses. */
static int all_refuse(world *w, inbox_t *ib, outbox_relay_t *r)
{
    outbox_event ev = { .size = sizeof ev, .topic = "t" };
    const outbox_event *at = &ev;
    outbox_stats st = { .size = sizeof st };
    outbox_token token = { 1, 1 };
    outbox_relay_t *other;
    outbox_error err;

    EFORK_OR(1, outbox_publish(w->ob, &ev, &err));
    if (err.code != OUTBOX_EFORK || err.text[0] == '\0')
        return 2;
    EFORK_OR(3, outbox_publish_many(w->ob, &at, 1, &err));
    EFORK_OR(4, outbox_publish_commit(w->ob, &at, 1, NULL));
    EFORK_OR(5, outbox_migrate(w->ob, &err));
    EFORK_OR(6, inbox_accept(ib, "c", "id", &err));
    EFORK_OR(7, inbox_prune(ib, 1, 1, &err));
    EFORK_OR(8, inbox_commit(ib, &err));
    EFORK_OR(9, outbox_relay_step(r, 0, &err));
    EFORK_OR(10, outbox_relay_start(r, &err));
    EFORK_OR(11, outbox_relay_stop(r, 0, &err));
    EFORK_OR(12, outbox_relay_stats(r, &st));
    EFORK_OR(13, outbox_settle(r, token, OUTBOX_ACK, NULL));
    EFORK_OR(14, outbox_relay_new(&other, w->ob, &w->sink.transport, NULL,
                                  &err));
    return 0;
}

static int in_child(world *w, inbox_t *ib, outbox_relay_t *r)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        int rc = all_refuse(w, ib, r);
        outbox_relay_wake(r);
        outbox_relay_free(r);           /* these must not harm the parent */
        inbox_close(ib);
        outbox_close(w->ob);
        _exit(rc);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

START_TEST(a_child_is_refused_and_the_parent_goes_on)
{
    world w;
    outbox_error err;
    inbox_t *ib;
    outbox_relay_t *r;

    world_open(&w, _i);
    ck_ok(w.sut->inbox(&ib, w.app, NULL, &err));
    r = relay_open(&w, NULL, NULL, NULL);
    publish_numbers(&w, "k", 0, 3);
    settle_down(r);
    ck_ok(w.sut->begin(w.app));
    ck_ok(publish_number(w.ob, "k", 3, &err));
    ck_assert_int_eq(in_child(&w, ib, r), 0);
    ck_ok(publish_number(w.ob, "k", 4, &err));
    ck_assert_int_eq(inbox_accept(ib, "c", "id", &err), 1);
    ck_ok(w.sut->commit(w.app));
    run_for(&w, r, 3000, 100);
    ck_assert(sink_exactly(&w.sink, 0, 5));
    inbox_close(ib);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(a_child_is_refused_while_the_thread_runs)
{
    world w;
    outbox_error err;
    inbox_t *ib;
    outbox_relay_t *r;

    world_open(&w, _i);
    ck_ok(w.sut->inbox(&ib, w.app, NULL, &err));
    r = relay_open(&w, NULL, &(outbox_relay_options){
                       .size = sizeof(outbox_relay_options) }, NULL);
    ck_ok(outbox_relay_start(r, &err));
    ck_assert_int_eq(in_child(&w, ib, r), 0);
    publish_numbers(&w, "k", 0, 3);
    ck_assert(sink_wait(&w.sink, 3, 10000));
    ck_ok(outbox_relay_stop(r, 10000, &err));
    ck_assert(sink_exactly(&w.sink, 0, 3));
    inbox_close(ib);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

/* The parent's handles are of no use to the child, but it can make its own:
 * publishing must not look for relays that are its parent's. */
START_TEST(a_child_can_open_its_own)
{
    world w;
    outbox_error err;
    outbox_t *ob;
    outbox_relay_t *r;
    int status;

    world_open(&w, _i);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    pid_t child = w.sut->is_file ? fork() : -1;
    if (child == 0) {
        void *conn = w.sut->conn_open(w.db);
        int rc = w.sut->outbox(&ob, conn, NULL, &err);
        rc |= w.sut->begin(conn);
        rc |= publish_number(ob, "k", 0, &err);
        rc |= w.sut->commit(conn);
        _exit(rc != 0);
    }
    if (child > 0) {
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_int_eq(status, 0);
        run_for(&w, r, 3000, 100);
        ck_assert(sink_exactly(&w.sink, 0, 1));
    }
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

void add_fork_tests(Suite *s)
{
    TCase *tc = suite_case(s, "fork");

    tcase_add_loop_test(tc, a_child_is_refused_and_the_parent_goes_on, 0,
                        n_ways);
    tcase_add_loop_test(tc, a_child_is_refused_while_the_thread_runs, 0,
                        n_ways);
    tcase_add_loop_test(tc, a_child_can_open_its_own, 0, n_ways);
}

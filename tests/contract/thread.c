/* SPDX-License-Identifier: MIT
 *
 * thread.c - the relay's own thread: it starts, wakes, drains and stops.
 *
 * Real time passes here, but nothing is measured by sleeping: a test waits
 * for what must happen, and a poll_ms of ten minutes shows that it was the
 * wake-up which made it happen.
 */
#include "contract.h"

#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SOON = 10000, POLL = 600000 };

static outbox_relay_options sleepy(void)
{
    return (outbox_relay_options){ .size = sizeof(outbox_relay_options),
                                   .poll_ms = POLL };
}

static outbox_relay_t *started(world *w, sut_link *link)
{
    outbox_relay_options opt = sleepy();
    outbox_relay_t *r = relay_open(w, NULL, &opt, link);
    outbox_error err;

    ck_ok(outbox_relay_start(r, &err));
    return r;
}

START_TEST(what_is_there_is_delivered)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    world_open(&w, _i);
    publish_numbers(&w, "k", 0, 100);
    r = started(&w, NULL);
    ck_assert(sink_wait(&w.sink, 100, SOON));
    ck_ok(outbox_relay_stop(r, SOON, &err));
    ck_assert(sink_exactly(&w.sink, 0, 100));
    ck_assert(sink_in_order(&w.sink));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

static bool asleep(void *arg)
{
    struct timespec cpu;
    static int64_t last;
    static int still;
    int64_t now;

    (void)arg;                          /* no CPU used for 30 looks */
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    now = cpu.tv_sec * 1000 + cpu.tv_nsec / 1000000;
    still = now - last <= 1 ? still + 1 : 0;
    last = now;
    return still >= 30;
}

static void fall_asleep(void)
{
    within(SOON, asleep, NULL);
}

START_TEST(publish_commit_wakes_it)
{
    world w;
    outbox_error err;
    outbox_event ev = { .size = sizeof ev, .topic = "t", .payload = "1",
                        .payload_len = 1 };
    const outbox_event *at = &ev;
    outbox_relay_t *r;

    world_open(&w, _i);
    r = started(&w, NULL);
    fall_asleep();
    for (size_t i = 1; i <= 5; i++) {
        ck_ok(w.sut->begin(w.app));
        ck_ok(outbox_publish_commit(w.ob, &at, 1, &err));
        ck_assert(sink_wait(&w.sink, i, SOON));
    }
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(a_plain_commit_is_noticed)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, _i);
    r = started(&w, NULL);
    fall_asleep();
    for (long i = 0; i < 5; i++) {
        publish_numbers(&w, "k", i, 1);
        ck_assert(sink_wait(&w.sink, (size_t)i + 1, SOON));
    }
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(wake_wakes_it)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, _i);
    r = started(&w, NULL);
    fall_asleep();
    publish_numbers(&w, "k", 0, 1);
    outbox_relay_wake(r);
    ck_assert(sink_wait(&w.sink, 1, SOON));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

/* The child is made before any thread is, waits for a byte, then opens the
 * file for itself. */
static pid_t publisher_process(const world *w, int gate)
{
    pid_t child = fork();
    outbox_error err;
    outbox_t *ob;
    char byte;

    if (child != 0)
        return child;
    if (read(gate, &byte, 1) != 1)
        _exit(2);
    void *conn = w->sut->conn_open(w->db);
    if (w->sut->outbox(&ob, conn, NULL, &err) != OUTBOX_OK
        || w->sut->begin(conn) != 0
        || publish_number(ob, "k", 1, &err) != OUTBOX_OK
        || w->sut->commit(conn) != 0)
        _exit(3);
    outbox_close(ob);
    w->sut->conn_close(conn);
    _exit(0);
}

START_TEST(another_process_wakes_it)
{
    world w;
    outbox_relay_t *r;
    int gate[2], status;

    world_open(&w, _i);
    if (w.sut->is_file) {
        ck_assert_int_eq(pipe(gate), 0);
        pid_t child = publisher_process(&w, gate[0]);
        r = started(&w, NULL);
        fall_asleep();
        ck_assert_int_eq(write(gate[1], "", 1), 1);
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_int_eq(status, 0);
        ck_assert(sink_wait(&w.sink, 1, SOON));
        outbox_relay_free(r);
        close(gate[0]);
        close(gate[1]);
    }
    world_close(&w);
}
END_TEST

/* ---- start and stop ------------------------------------------------- */

START_TEST(step_is_refused_while_it_runs)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    world_open(&w, _i);
    r = started(&w, NULL);
    ck_assert_int_eq(outbox_relay_step(r, 0, &err), OUTBOX_EBUSY);
    ck_assert_int_eq(outbox_relay_start(r, &err), OUTBOX_EBUSY);
    ck_ok(outbox_relay_stop(r, SOON, &err));
    ck_assert_int_ge(outbox_relay_step(r, 0, &err), 0);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(stop_drains_what_is_in_flight)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    publish_numbers(&w, NULL, 0, 10);
    r = started(&w, NULL);
    ck_assert(sink_wait(&w.sink, 10, SOON));
    for (size_t i = 0; i < 10; i++)
        ck_ok(sink_settle(&w.sink, i, OUTBOX_ACK));
    ck_ok(outbox_relay_stop(r, SOON, &err));
    ck_assert_uint_eq(stats_of(r).acked, 10);
    outbox_relay_free(r);
    sink_forget(&w.sink);
    drain_after_crash(&w, &w.sink, NULL);
    ck_assert_uint_eq(sink_count(&w.sink), 0);
    world_close(&w);
}
END_TEST

static void *settle_all_later(void *arg)
{
    sink *s = arg;

    for (size_t i = 0; i < 10; i++) {
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
        sink_settle(s, 9 - i, OUTBOX_ACK);
    }
    return NULL;
}

START_TEST(stop_waits_for_verdicts)
{
    world w;
    outbox_error err;
    pthread_t thread;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    publish_numbers(&w, NULL, 0, 10);
    r = started(&w, NULL);
    ck_assert(sink_wait(&w.sink, 10, SOON));
    pthread_create(&thread, NULL, settle_all_later, &w.sink);
    ck_ok(outbox_relay_stop(r, SOON, &err));
    ck_assert_uint_eq(stats_of(r).acked, 10);
    pthread_join(thread, NULL);
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(stop_is_bounded_and_start_works_again)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = sink_pending;
    publish_numbers(&w, NULL, 0, 3);
    r = started(&w, NULL);
    ck_assert(sink_wait(&w.sink, 3, SOON));
    int64_t before = real_ms();
    ck_assert_int_eq(outbox_relay_stop(r, 50, &err), OUTBOX_ETIMEOUT);
    ck_assert_int_ge(real_ms() - before, 49);
    ck_assert_int_le(real_ms() - before, 5000);
    w.sink.rule = NULL;
    ck_ok(outbox_relay_start(r, &err));
    publish_numbers(&w, NULL, 3, 3);
    for (size_t i = 0; i < 3; i++)
        sink_settle(&w.sink, i, OUTBOX_ACK);
    /* The first three once more: nobody waits for their verdicts now. */
    ck_assert(sink_wait(&w.sink, 9, SOON));
    ck_ok(outbox_relay_stop(r, SOON, &err));
    ck_assert(sink_at_least(&w.sink, 0, 6));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(start_and_stop_many_times)
{
    world w;
    outbox_error err;
    outbox_relay_options opt = sleepy();
    outbox_relay_t *r;

    world_open(&w, _i);
    r = relay_open(&w, NULL, &opt, NULL);
    for (long i = 0; i < 20; i++) {
        publish_numbers(&w, "k", i, 1);
        ck_ok(outbox_relay_start(r, &err));
        ck_assert(sink_wait(&w.sink, (size_t)i + 1, SOON));
        ck_ok(outbox_relay_stop(r, SOON, &err));
    }
    ck_assert(sink_exactly(&w.sink, 0, 20));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

typedef struct stopper {
    outbox_relay_t    *r;
    pthread_barrier_t *gate;
    int                rc;
} stopper;

static void *stop_at_the_gate(void *arg)
{
    stopper *s = arg;
    outbox_error err;

    pthread_barrier_wait(s->gate);
    s->rc = outbox_relay_stop(s->r, SOON, &err);
    return NULL;
}

static void stop_twice(outbox_relay_t *r)
{
    pthread_barrier_t gate;
    stopper s[2] = { { r, &gate, -1 }, { r, &gate, -1 } };
    pthread_t threads[2];

    ck_assert_int_eq(pthread_barrier_init(&gate, NULL, 2), 0);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, stop_at_the_gate, &s[i]);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        ck_ok(s[i].rc);
    }
    pthread_barrier_destroy(&gate);
}

/* As a signal's watcher and the end of main() may. */
START_TEST(two_threads_stop_it_at_once)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    world_open(&w, _i);
    r = started(&w, NULL);
    for (long i = 0; i < 10; i++) {
        publish_numbers(&w, "k", i, 1);
        ck_assert(sink_wait(&w.sink, (size_t)i + 1, SOON));
        stop_twice(r);
        ck_assert_int_ge(outbox_relay_step(r, 0, &err), 0);
        ck_ok(outbox_relay_start(r, &err));
    }
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(free_alone_stops_it)
{
    world w;
    outbox_relay_t *r;

    world_open(&w, _i);
    publish_numbers(&w, "k", 0, 10);
    r = started(&w, NULL);
    ck_assert(sink_wait(&w.sink, 10, SOON));
    outbox_relay_free(r);
    ck_assert_uint_eq(w.sink.closes, 1);
    drain_after_crash(&w, &w.sink, NULL);
    ck_assert(sink_exactly(&w.sink, 0, 10));
    world_close(&w);
}
END_TEST

static outbox_verdict free_it(sink *s, const outbox_event *ev,
                              outbox_token token, outbox_error *why)
{
    (void)ev, (void)token, (void)why;
    outbox_relay_free(s->relay);
    return OUTBOX_ACK;
}

/* It would free what it runs in: nothing happens. */
START_TEST(a_transport_cannot_free_its_relay)
{
    world w;
    outbox_error err;
    outbox_relay_t *r;

    world_open(&w, _i);
    w.sink.rule = free_it;
    publish_numbers(&w, "k", 0, 2);
    r = relay_open(&w, NULL, NULL, NULL);
    settle_down(r);
    ck_assert(sink_exactly(&w.sink, 0, 2));
    ck_ok(outbox_relay_start(r, &err));
    publish_numbers(&w, "k", 2, 2);
    ck_assert(sink_wait(&w.sink, 4, SOON));
    ck_ok(outbox_relay_stop(r, SOON, &err));
    ck_assert(sink_exactly(&w.sink, 0, 4));
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

START_TEST(start_says_when_the_tables_are_missing)
{
    world w;
    outbox_error err;
    outbox_relay_t *r = NULL;
    outbox_t *ob;

    world_open_bare(&w, _i);
    ck_ok(w.sut->connect(&ob, w.db, NULL, NULL, &err));
    int rc = outbox_relay_new(&r, ob, &w.sink.transport, NULL, &err);
    if (rc == OUTBOX_OK)
        rc = outbox_relay_start(r, &err);
    ck_assert_int_eq(rc, OUTBOX_ESCHEMA);
    if (r != NULL)
        outbox_relay_free(r);
    else
        outbox_close(ob);
    ck_assert_uint_eq(sink_count(&w.sink), 0);
    world_close(&w);
}
END_TEST

/* ---- busy ----------------------------------------------------------- */

typedef struct busy {
    world *w;
    long   from;
    int    failed;
} busy;

static void *publish_busily(void *arg)
{
    busy *b = arg;
    void *conn = b->w->sut->conn_open(b->w->db);
    outbox_error err;
    outbox_t *ob;

    b->failed = b->w->sut->outbox(&ob, conn, NULL, &err);
    for (long i = 0; i < 100 && b->failed == 0; i++) {
        int rc;
        do {                            /* the two of us may collide */
            b->failed = b->w->sut->begin(conn);
            rc = publish_number(ob, NULL, b->from + i, &err);
            b->failed |= rc == OUTBOX_OK ? b->w->sut->commit(conn)
                                         : b->w->sut->rollback(conn);
        } while (rc == OUTBOX_EBUSY);
        b->failed |= rc;
    }
    outbox_close(ob);
    b->w->sut->conn_close(conn);
    return NULL;
}

START_TEST(two_publishing_threads_and_a_relay)
{
    world w;
    busy b[2];
    pthread_t threads[2];
    outbox_relay_t *r;

    world_open(&w, _i);
    r = started(&w, NULL);
    for (int i = 0; i < 2; i++) {
        b[i] = (busy){ &w, 1000 * i, 0 };
        pthread_create(&threads[i], NULL, publish_busily, &b[i]);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_int_eq(b[i].failed, 0);
    }
    ck_assert(sink_wait(&w.sink, 200, SOON));
    outbox_relay_free(r);
    ck_assert_uint_eq(sink_count(&w.sink), 200);
    ck_assert(sink_at_least(&w.sink, 0, 100));
    ck_assert(sink_at_least(&w.sink, 1000, 100));
    world_close(&w);
}
END_TEST

void add_thread_tests(Suite *s)
{
    TCase *tc = suite_case(s, "thread");

    tcase_add_loop_test(tc, what_is_there_is_delivered, 0, n_ways);
    tcase_add_loop_test(tc, publish_commit_wakes_it, 0, n_ways);
    tcase_add_loop_test(tc, a_plain_commit_is_noticed, 0, n_ways);
    tcase_add_loop_test(tc, wake_wakes_it, 0, n_ways);
    tcase_add_loop_test(tc, another_process_wakes_it, 0, n_ways);
    tcase_add_loop_test(tc, step_is_refused_while_it_runs, 0, n_ways);
    tcase_add_loop_test(tc, stop_drains_what_is_in_flight, 0, n_ways);
    tcase_add_loop_test(tc, stop_waits_for_verdicts, 0, n_ways);
    tcase_add_loop_test(tc, stop_is_bounded_and_start_works_again, 0, n_ways);
    tcase_add_loop_test(tc, start_and_stop_many_times, 0, n_ways);
    tcase_add_loop_test(tc, two_threads_stop_it_at_once, 0, n_ways);
    tcase_add_loop_test(tc, free_alone_stops_it, 0, n_ways);
    tcase_add_loop_test(tc, a_transport_cannot_free_its_relay, 0, n_suts);
    tcase_add_loop_test(tc, start_says_when_the_tables_are_missing, 0, n_ways);
    tcase_add_loop_test(tc, two_publishing_threads_and_a_relay, 0, n_ways);
}

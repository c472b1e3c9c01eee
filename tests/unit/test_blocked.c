/* SPDX-License-Identifier: MIT
 *
 * test_blocked.c - the sets that lib/core/blocked.c keeps, when a replay goes
 * over very many dead events: each costs what the first did, and is forgotten
 * when it has been passed.
 */
#include "common/alloc.h"
#include "common/suite.h"

#include <relay.h>
#include <time.h>

enum { MANY = 100000, LANES = 4 };

typedef struct ward {                   /* a relay that owns all lanes */
    test_alloc       alloc;
    outbox_store_ops ops;
    outbox_store     store;
    outbox_relay_t   r;
} ward;

static outbox_row dead_row(int64_t position)
{
    outbox_row row = { .position = position, .delay_ms = -2,
                       .lane = (uint32_t)(position % LANES) };

    memcpy(row.id, &position, sizeof position);
    return row;
}

static int many_dead(outbox_store *st, int64_t sub, uint32_t lane,
                     outbox_sink *sink, void *arg, outbox_error *err)
{
    int rc = 0;

    (void)st, (void)sub, (void)err;
    for (int64_t i = 1; i <= MANY && rc == 0; i++) {
        outbox_row row = dead_row(i);
        if (row.lane == lane)
            rc = sink(arg, &row);
    }
    return OUTBOX_OK;
}

static void ward_open(ward *w)
{
    memset(w, 0, sizeof *w);
    test_alloc_init(&w->alloc, 0, false);
    w->ops = (outbox_store_ops){ .size = sizeof w->ops,
                                 .blocked = many_dead };
    w->store.ops = &w->ops;
    w->r.store = &w->store;
    w->r.mem = w->alloc.table;
    w->r.sub.lanes = LANES;
    for (int i = 0; i < LANES; i++)
        w->r.lanes[i].mine = true;
    ck_assert_int_eq(pthread_mutex_init(&w->r.lock, NULL), 0);
}

static void ward_close(ward *w)
{
    ob_blocked_clear(&w->r);
    ck_assert_int_eq(w->alloc.outstanding, 0);
    pthread_mutex_destroy(&w->r.lock);
}

static int64_t cpu_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

/* Reads from..to of the log, of which each is dead. */
static void read_dead(ward *w, int64_t from, int64_t to)
{
    for (int64_t i = from; i <= to; i++) {
        outbox_row row = dead_row(i);
        if (!ob_aside_has(&w->r, &row))
            ck_abort_msg("%lld is not set aside", (long long)i);
    }
}

static void cursors_at(ward *w, int64_t position)
{
    for (int i = 0; i < LANES; i++)
        w->r.lanes[i].read.position = position;
}

/* Where each looks at all the others this takes minutes: the bound is wide
 * enough for any sanitizer. */
START_TEST(a_hundred_thousand_cost_what_they_are)
{
    static ward w;
    outbox_error err;
    int64_t before = cpu_ms();

    ward_open(&w);
    for (uint32_t i = 0; i < LANES; i++)
        ck_assert_int_eq(ob_blocked_load(&w.r, i, &err), OUTBOX_OK);
    for (int64_t i = 1; i <= MANY; i += 500) {
        read_dead(&w, i, i + 499);
        cursors_at(&w, i + 499);
        ob_aside_passed(&w.r);
    }
    ck_assert_int_lt(cpu_ms() - before, 3000);
    ward_close(&w);
}
END_TEST

START_TEST(what_is_passed_is_forgotten)
{
    static ward w;
    outbox_error err;

    ward_open(&w);
    ck_assert_int_eq(ob_blocked_reload(&w.r, &err), OUTBOX_OK);
    ck_assert_uint_eq(w.r.aside.count, MANY);
    read_dead(&w, 1, 1000);
    ob_aside_passed(&w.r);              /* the read has failed */
    ck_assert_uint_eq(w.r.aside.count, MANY);
    read_dead(&w, 1, 1000);
    cursors_at(&w, 600);                /* or had no room for the rest */
    ob_aside_passed(&w.r);
    ck_assert_uint_eq(w.r.aside.count, MANY - 600);
    read_dead(&w, 601, MANY);
    cursors_at(&w, MANY);
    ob_aside_passed(&w.r);
    ck_assert_uint_eq(w.r.aside.count, 0);
    ward_close(&w);
}
END_TEST

static int none_dead(outbox_store *st, int64_t sub, uint32_t lane,
                     outbox_sink *sink, void *arg, outbox_error *err)
{
    (void)st, (void)sub, (void)lane, (void)sink, (void)arg, (void)err;
    return OUTBOX_OK;
}

START_TEST(loading_again_is_loading_anew)
{
    static ward w;
    outbox_error err;

    ward_open(&w);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(ob_blocked_reload(&w.r, &err), OUTBOX_OK);
    ck_assert_uint_eq(w.r.aside.count, MANY);
    ob_blocked_drop_lane(&w.r, 1);
    ck_assert_uint_eq(w.r.aside.count, MANY - MANY / LANES);
    w.ops.blocked = none_dead;
    ck_assert_int_eq(ob_blocked_reload(&w.r, &err), OUTBOX_OK);
    ck_assert_uint_eq(w.r.aside.count, 0);
    ward_close(&w);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("blocked");
    TCase *tc = suite_case(s, "blocked");

    tcase_add_test(tc, a_hundred_thousand_cost_what_they_are);
    tcase_add_test(tc, what_is_passed_is_forgotten);
    tcase_add_test(tc, loading_again_is_loading_anew);
    return suite_main(s);
}

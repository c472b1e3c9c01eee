/* SPDX-License-Identifier: MIT
 *
 * test_window.c - the relay's window under random use, against the invariants
 * that lib/core/window.c begins with.
 */
#include "common/alloc.h"
#include "common/suite.h"

#include <stdio.h>
#include <string.h>
#include <window.h>

enum { COUNT = 40, BYTES = 64 * 1024, CHAINS = 6, STEPS = 4000,
       SEEDS = 100 };

typedef struct bench {                  /* a window and what we know of it */
    test_alloc alloc;
    ob_window  w;
    uint64_t   seed;
    int64_t    last;                    /* position added */
    int64_t    retired;                 /* position retired */
    bool       small;                   /* no event larger than a block */
} bench;

static uint32_t draw(bench *b, uint32_t below)
{
    b->seed = b->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(b->seed >> 33) % below;
}

static void bench_open(bench *b, uint64_t seed, bool ordered)
{
    memset(b, 0, sizeof *b);
    b->seed = seed;
    test_alloc_init(&b->alloc, 0, false);
    ck_assert_int_eq(ob_window_init(&b->w, &b->alloc.table, COUNT, BYTES),
                     OUTBOX_OK);
    b->w.ordered = ordered;
}

static void bench_close(bench *b)
{
    ob_window_free(&b->w);
    ck_assert_int_eq(b->alloc.outstanding, 0);
}

/* ---- the invariants ------------------------------------------------- */

/* Each libcheck assertion writes to a file: here they are counted up. */
static bool slot_is_sound(bench *b, const ob_slot *s,
                          const ob_slot *last_sent[])
{
    bool sound = s->state >= OB_DONE
              || s->first_send == 0
              || ob_window_find(&b->w, s->cursor.position, s->last_send) == s;

    if (s->state == OB_SENT) {
        sound = sound && (b->w.ordered || last_sent[s->chain] == NULL);
        last_sent[s->chain] = s;
    }
    return sound;
}

static bool is_sound(bench *b)
{
    const ob_slot *last_sent[CHAINS] = { NULL };
    bool waits[CHAINS] = { false }, sound = true;
    uint32_t inflight = 0, doomed = 0;

    for (uint64_t i = 0; i < ob_window_used(&b->w); i++) {
        const ob_slot *s = ob_window_nth(&b->w, i);
        sound = sound && slot_is_sound(b, s, last_sent);
        inflight += s->state == OB_SENT;
        doomed += s->state == OB_DOOMED;
        /* Nothing of a chain is sent behind one that is not. */
        sound = sound && (s->state != OB_SENT || !waits[s->chain]);
        if (s->state == OB_WAITING || s->state == OB_READY
            || s->state == OB_BEHIND)
            waits[s->chain] = true;
    }
    return sound && inflight == b->w.inflight && doomed == b->w.doomed
        && b->w.head - b->w.tail <= COUNT
        && (b->w.bytes <= BYTES || b->w.head - b->w.tail <= 1
            || b->w.bytes <= b->w.block_size);
}

static void check(bench *b)
{
    if (!is_sound(b))
        ck_abort_msg("not sound after %lld events", (long long)b->last);
}

/* ---- random use ----------------------------------------------------- */

static void add_some(bench *b)
{
    static char payload[9000];
    outbox_row row = { .topic = { "t", 1 } };

    for (uint32_t n = draw(b, 5); n > 0; n--) {
        row.position = b->last + 1;
        uint32_t chain = draw(b, CHAINS);
        row.payload = (outbox_bytes){ payload, draw(b, 10) == 0 && !b->small
                                       ? sizeof payload : 10 };
        if (ob_window_add(&b->w, &row, chain, chain % 2, 1) == NULL)
            break;
        b->last++;
    }
    if (draw(b, 10) == 0) {             /* the read failed after all */
        b->last -= (int64_t)(b->w.head - b->w.shown);
        ob_window_drop_unshown(&b->w);
    }
    for (ob_slot *s; (s = ob_window_unshown(&b->w, 0)) != NULL;)
        ob_window_show(&b->w, s, false);
}

static void send_some(bench *b)
{
    for (uint32_t n = draw(b, 6); n > 0; n--) {
        ob_slot *s = ob_window_next_ready(&b->w);
        if (s == NULL)
            return;
        if (s->state != OB_SENT)
            ck_abort_msg("ready, but not sent");
        if (!b->w.ordered && draw(b, 8) == 0)
            ob_window_unsend(&b->w, s);
    }
}

static ob_slot *any(bench *b, ob_state state)
{
    uint64_t used = ob_window_used(&b->w);

    for (uint64_t k = 0, from = used > 0 ? draw(b, (uint32_t)used) : 0;
         k < used; k++) {
        ob_slot *s = ob_window_nth(&b->w, (from + k) % used);
        if (s->state == state && s->verdict == 0)
            return s;
    }
    return NULL;
}

static void judge_some(bench *b)
{
    for (uint32_t n = draw(b, 6); n > 0; n--) {
        ob_slot *s = any(b, OB_SENT);
        if (s != NULL)
            ob_window_judge(&b->w, s, draw(b, 4) == 0 ? OUTBOX_RETRY
                                                      : OUTBOX_ACK);
    }
}

static void apply_verdicts(bench *b)
{
    outbox_verdict v;
    ob_slot *s;

    while ((s = ob_window_next_judged(&b->w, &v)) != NULL) {
        if (s->state != OB_SENT)
            continue;                   /* it was lost meanwhile */
        if (v == OUTBOX_ACK || b->w.ordered)
            ob_window_finish(&b->w, s, OB_DONE, false);
        else
            ob_window_wait(&b->w, s, 0);
    }
}

static void retire_some(bench *b)
{
    ob_slot *s;

    while ((s = ob_window_oldest_finished(&b->w)) != NULL) {
        if (s->cursor.position != ++b->retired)
            ck_abort_msg("retired out of order");
        ob_window_retire(&b->w);
    }
}

static void lose_lane(bench *b, uint32_t lane)
{
    for (uint64_t i = 0; i < ob_window_used(&b->w); i++) {
        ob_slot *s = ob_window_nth(&b->w, i);
        if (s->lane == lane && s->state < OB_DONE)
            ob_window_finish(&b->w, s, OB_GONE, false);
    }
}

static void wait_is_over(bench *b)
{
    ob_slot *s = any(b, OB_WAITING);

    if (s != NULL)
        ob_window_ready(&b->w, s);
}

static void lose_sometimes(bench *b)
{
    if (draw(b, 20) == 0)
        lose_lane(b, draw(b, 2));
}

static void one_step(bench *b)
{
    static void (*const things[])(bench *) = {
        add_some, add_some, add_some, send_some, send_some, send_some,
        judge_some, judge_some, judge_some, apply_verdicts, wait_is_over,
        lose_sometimes
    };

    things[draw(b, sizeof things / sizeof *things)](b);
    retire_some(b);
}

/* Let everything pass: the window must come to be empty. */
static void drain(bench *b)
{
    ob_slot *s;

    for (int i = 0; i < 10 * COUNT && ob_window_used(&b->w) > 0; i++) {
        while ((s = any(b, OB_WAITING)) != NULL)
            ob_window_ready(&b->w, s);
        while (ob_window_next_ready(&b->w) != NULL)
            continue;
        while ((s = any(b, OB_SENT)) != NULL)
            ob_window_judge(&b->w, s, OUTBOX_ACK);
        apply_verdicts(b);
        retire_some(b);
        check(b);
    }
    ck_assert_uint_eq(ob_window_used(&b->w), 0);
    ck_assert_int_eq(b->retired, b->last);
}

static void random_use(bool ordered)
{
    bench b;

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        bench_open(&b, seed, ordered);
        for (int i = 0; i < STEPS; i++) {
            one_step(&b);
            check(&b);
        }
        drain(&b);
        ck_assert_int_gt(b.last, 100);
        bench_close(&b);
    }
}

START_TEST(one_of_a_chain_at_a_time)
{
    random_use(false);
}
END_TEST

START_TEST(ordered_chains_fly_together)
{
    random_use(true);
}
END_TEST

START_TEST(no_allocation_in_the_steady_state)
{
    bench b;
    long calls = 0;

    bench_open(&b, 7, false);
    b.small = true;
    for (int i = 0; i < 2000; i++) {
        if (i == 500)
            calls = b.alloc.calls;
        add_some(&b);
        drain(&b);
    }
    ck_assert_int_eq(b.alloc.calls, calls);
    bench_close(&b);
}
END_TEST

static ob_slot *add_of_one_key(bench *b, int64_t position)
{
    outbox_row row = { .topic = { "t", 1 }, .key = { "k", 1 },
                       .position = position };
    ob_slot *s = ob_window_add(&b->w, &row, 1, 0, 1);

    ck_assert_ptr_nonnull(s);
    ob_window_show(&b->w, s, false);
    return s;
}

/* Two of a key were sent to an ordered transport and failed; while a save
 * parks the first, the ACK of the second comes after all.  It was accepted:
 * that one must not be parked, too. */
START_TEST(a_late_ack_outlives_the_save_of_the_one_before)
{
    bench b;
    outbox_verdict v;

    bench_open(&b, 1, true);
    ob_slot *first = add_of_one_key(&b, 1), *second = add_of_one_key(&b, 2);
    while (ob_window_next_ready(&b.w) != NULL)
        continue;
    ob_window_behind(&b.w, second);
    ob_window_doom(&b.w, first, OUTBOX_PARK);
    ob_window_judge(&b.w, second, OUTBOX_ACK);
    ob_window_finish(&b.w, first, OB_DONE, true);
    ck_assert_int_eq(second->state, OB_BEHIND);
    ck_assert_uint_eq(b.w.doomed, 0);
    ck_assert_ptr_eq(ob_window_next_judged(&b.w, &v), second);
    ck_assert_int_eq(v, OUTBOX_ACK);
    bench_close(&b);
}
END_TEST

START_TEST(what_goes_in_comes_out)
{
    outbox_row in = { .position = 5, .published_ms = 7,
                      .attempts = 2, .seq = 0,
                      .topic = { "topic", 5 }, .key = { "", 0 },
                      .headers = { "a: b\n", 5 },
                      .payload = { "pay\0load", 8 } };
    outbox_row out;
    bench b;

    bench_open(&b, 1, false);
    ob_slot *s = ob_window_add(&b.w, &in, 3, 1, 1);
    ob_slot_why(&b.w, s, "because");
    ob_slot_row(s, &out);
    ck_assert_int_eq(out.position, 5);
    ck_assert_int_eq(out.published_ms, 7);
    ck_assert_uint_eq(out.chain, 3);
    ck_assert_uint_eq(out.attempts, 2);
    ck_assert_str_eq(out.topic.ptr, "topic");
    ck_assert_ptr_null(out.type.ptr);
    ck_assert_str_eq(out.key.ptr, "");
    ck_assert_ptr_null(out.content_type.ptr);
    ck_assert_uint_eq(out.headers.len, 5);
    ck_assert_uint_eq(out.payload.len, 8);
    ck_assert_mem_eq(out.payload.ptr, "pay\0load", 8);
    ck_assert_str_eq(out.why, "because");
    bench_close(&b);
}
END_TEST

START_TEST(the_last_allocation_may_fail)
{
    test_alloc a;
    ob_window w;

    for (long n = 1; n <= 3; n++) {
        test_alloc_init(&a, n, false);
        ck_assert_int_eq(ob_window_init(&w, &a.table, COUNT, BYTES),
                         OUTBOX_ENOMEM);
        ck_assert_int_eq(a.outstanding, 0);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("window");
    TCase *tc = suite_case(s, "window");

    tcase_add_test(tc, one_of_a_chain_at_a_time);
    tcase_add_test(tc, ordered_chains_fly_together);
    tcase_add_test(tc, no_allocation_in_the_steady_state);
    tcase_add_test(tc, a_late_ack_outlives_the_save_of_the_one_before);
    tcase_add_test(tc, what_goes_in_comes_out);
    tcase_add_test(tc, the_last_allocation_may_fail);
    return suite_main(s);
}

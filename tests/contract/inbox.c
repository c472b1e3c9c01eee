/* SPDX-License-Identifier: MIT
 *
 * inbox.c - the duplicate check in the handler's own transaction.
 */
#include "contract.h"

#include <stdio.h>
#include <string.h>

#define UUID "0190c2a8-7b1c-7cc3-98c4-dc0c0c07398f"

typedef struct handler {                /* a world with an inbox on its app */
    world    w;
    inbox_t *ib;
} handler;

static void handler_open(handler *h, int which)
{
    outbox_error err;

    world_open(&h->w, which);
    ck_ok(h->w.sut->inbox(&h->ib, h->w.app, NULL, &err));
}

static void handler_close(handler *h)
{
    inbox_close(h->ib);
    world_close(&h->w);
}

/* Accept id in a transaction of its own; commit on the way out. */
static int accepted(handler *h, const char *consumer, const char *id)
{
    outbox_error err;

    ck_ok(h->w.sut->begin(h->w.app));
    int rc = inbox_accept(h->ib, consumer, id, &err);
    ck_ok(inbox_commit(h->ib, &err));
    return rc;
}

START_TEST(first_time_and_again)
{
    handler h;

    handler_open(&h, _i);
    ck_assert_int_eq(accepted(&h, "c", UUID), 1);
    ck_assert_int_eq(accepted(&h, "c", UUID), 0);
    ck_assert_int_eq(accepted(&h, "c", UUID), 0);
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_MARKS), 1);
    handler_close(&h);
}
END_TEST

START_TEST(again_within_one_transaction)
{
    handler h;
    outbox_error err;

    handler_open(&h, _i);
    ck_ok(h.w.sut->begin(h.w.app));
    ck_assert_int_eq(inbox_accept(h.ib, "c", UUID, &err), 1);
    ck_assert_int_eq(inbox_accept(h.ib, "c", UUID, &err), 0);
    ck_ok(inbox_commit(h.ib, &err));
    handler_close(&h);
}
END_TEST

START_TEST(a_rollback_takes_the_mark_with_it)
{
    handler h;
    outbox_error err;

    handler_open(&h, _i);
    ck_ok(h.w.sut->begin(h.w.app));
    ck_ok(h.w.sut->work(h.w.app));
    ck_assert_int_eq(inbox_accept(h.ib, "c", UUID, &err), 1);
    ck_ok(h.w.sut->rollback(h.w.app));
    ck_assert_int_eq(accepted(&h, "c", UUID), 1);
    ck_ok(h.w.sut->begin(h.w.app));
    ck_ok(h.w.sut->savepoint(h.w.app));
    ck_assert_int_eq(inbox_accept(h.ib, "c", "other", &err), 1);
    ck_ok(h.w.sut->rollback_to(h.w.app));
    ck_assert_int_eq(inbox_accept(h.ib, "c", "other", &err), 1);
    ck_ok(inbox_commit(h.ib, &err));
    handler_close(&h);
}
END_TEST

START_TEST(consumers_do_not_share)
{
    handler h;

    handler_open(&h, _i);
    ck_assert_int_eq(accepted(&h, "mail", UUID), 1);
    ck_assert_int_eq(accepted(&h, "stock", UUID), 1);
    ck_assert_int_eq(accepted(&h, "Mail", UUID), 1);
    ck_assert_int_eq(accepted(&h, "mail", UUID), 0);
    ck_assert_int_eq(accepted(&h, "stock", UUID), 0);
    handler_close(&h);
}
END_TEST

START_TEST(ids_that_are_text)
{
    handler h;

    handler_open(&h, _i);
    ck_assert_int_eq(accepted(&h, "c", "order-1"), 1);
    ck_assert_int_eq(accepted(&h, "c", "order-10"), 1);
    ck_assert_int_eq(accepted(&h, "c", "ORDER-1"), 1);
    ck_assert_int_eq(accepted(&h, "c", "order-1 "), 1);
    ck_assert_int_eq(accepted(&h, "c", "1"), 1);
    ck_assert_int_eq(accepted(&h, "c", "1.0"), 1);
    ck_assert_int_eq(accepted(&h, "c", "01"), 1);
    ck_assert_int_eq(accepted(&h, "c", "order-1"), 0);
    ck_assert_int_eq(accepted(&h, "c", "1"), 0);
    handler_close(&h);
}
END_TEST

START_TEST(uuids_in_either_case_are_one)
{
    handler h;

    handler_open(&h, _i);
    ck_assert_int_eq(accepted(&h, "c", "0190c2a8-7b1c-7cc3-98c4-dc0c0c07398f"),
                     1);
    ck_assert_int_eq(accepted(&h, "c", "0190C2A8-7B1C-7CC3-98C4-DC0C0C07398F"),
                     0);
    ck_assert_int_eq(accepted(&h, "c", "0190C2a8-7b1c-7cc3-98c4-dc0c0c07398F"),
                     0);
    handler_close(&h);
}
END_TEST

/* Sixteen letters, and the UUID whose bytes are those letters. */
START_TEST(text_is_never_taken_for_a_uuid)
{
    handler h;

    handler_open(&h, _i);
    ck_assert_int_eq(accepted(&h, "c", "abcdefghijklmnop"), 1);
    ck_assert_int_eq(accepted(&h, "c", "61626364-6566-6768-696a-6b6c6d6e6f70"),
                     1);
    handler_close(&h);
}
END_TEST

START_TEST(bad_input_is_refused)
{
    handler h;
    outbox_error err;
    char text[OUTBOX_MAX_TEXT_BYTES + 2];

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    handler_open(&h, _i);
    ck_ok(h.w.sut->begin(h.w.app));
    ck_assert_int_eq(inbox_accept(h.ib, NULL, UUID, &err), OUTBOX_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "consumer"));
    ck_assert_int_eq(inbox_accept(h.ib, "", UUID, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(inbox_accept(h.ib, "c", NULL, &err), OUTBOX_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "id"));
    ck_assert_int_eq(inbox_accept(h.ib, "c", "", &err), OUTBOX_EINVAL);
    ck_assert_int_eq(inbox_accept(h.ib, "c\xff", UUID, &err), OUTBOX_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "UTF-8"));
    ck_assert_int_eq(inbox_accept(h.ib, "c", "\xc0\x80", &err),
                     OUTBOX_EINVAL);
    ck_assert_int_eq(inbox_accept(h.ib, text, UUID, &err), OUTBOX_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "1024"));
    ck_assert_int_eq(inbox_accept(h.ib, "c", text, &err), OUTBOX_EINVAL);
    text[OUTBOX_MAX_TEXT_BYTES] = '\0';
    ck_assert_int_eq(inbox_accept(h.ib, text, text, &err), 1);
    ck_ok(inbox_commit(h.ib, &err));
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_MARKS), 1);
    handler_close(&h);
}
END_TEST

START_TEST(accepting_needs_a_transaction)
{
    handler h;
    outbox_error err;

    handler_open(&h, _i);
    ck_assert_int_eq(inbox_accept(h.ib, "c", UUID, &err), OUTBOX_ENOTX);
    ck_assert_int_eq(inbox_commit(h.ib, &err), OUTBOX_ENOTX);
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_MARKS), 0);
    handler_close(&h);
}
END_TEST

START_TEST(a_lost_transaction_is_not_committed)
{
    handler h;
    outbox_error err;
    int rc;

    handler_open(&h, _i);
    ck_ok(h.w.sut->begin(h.w.app));
    ck_assert_int_eq(inbox_accept(h.ib, "c", UUID, &err), 1);
    ck_ok(h.w.sut->work(h.w.app));
    ck_ok(h.w.sut->lose_transaction(h.w.app));
    rc = inbox_commit(h.ib, &err);
    ck_assert(rc == OUTBOX_ENOTX || rc == OUTBOX_EABORTED);
    h.w.sut->rollback(h.w.app);         /* where that is still to be done */
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_MARKS), 0);
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_WORK), 0);
    ck_assert_int_eq(accepted(&h, "c", UUID), 1);
    handler_close(&h);
}
END_TEST

START_TEST(commit_commits_the_effect_too)
{
    handler h;
    outbox_error err;

    handler_open(&h, _i);
    ck_ok(h.w.sut->begin(h.w.app));
    ck_assert_int_eq(inbox_accept(h.ib, "c", UUID, &err), 1);
    ck_ok(h.w.sut->work(h.w.app));
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_WORK), 0);
    ck_ok(inbox_commit(h.ib, &err));
    ck_assert(!h.w.sut->in_transaction(h.w.app));
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_WORK), 1);
    handler_close(&h);
}
END_TEST

static void accept_numbers(handler *h, int from, int n)
{
    outbox_error err;
    char id[16];

    ck_ok(h->w.sut->begin(h->w.app));
    for (int i = from; i < from + n; i++) {
        snprintf(id, sizeof id, "%d", i);
        ck_assert_int_eq(inbox_accept(h->ib, "c", id, &err), 1);
    }
    ck_ok(inbox_commit(h->ib, &err));
}

START_TEST(pruning_forgets_the_old)
{
    handler h;
    outbox_error err;

    handler_open(&h, _i);
    accept_numbers(&h, 0, 20);
    h.w.sut->age(h.w.db, 100000);
    accept_numbers(&h, 20, 5);
    ck_assert_int_eq(inbox_prune(h.ib, 200000, 100, &err), 0);
    ck_assert_int_eq(inbox_prune(h.ib, 50000, 8, &err), 8);
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_MARKS), 17);
    ck_assert_int_eq(inbox_prune(h.ib, 50000, 100, &err), 12);
    ck_assert_int_eq(inbox_prune(h.ib, 50000, 100, &err), 0);
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_MARKS), 5);
    ck_assert_int_eq(accepted(&h, "c", "0"), 1);        /* forgotten */
    ck_assert_int_eq(accepted(&h, "c", "20"), 0);       /* not */
    handler_close(&h);
}
END_TEST

START_TEST(pruning_in_a_transaction_belongs_to_it)
{
    handler h;
    outbox_error err;

    handler_open(&h, _i);
    accept_numbers(&h, 0, 10);
    h.w.sut->age(h.w.db, 100000);
    ck_ok(h.w.sut->begin(h.w.app));
    ck_assert_int_eq(inbox_prune(h.ib, 50000, 100, &err), 10);
    ck_assert(h.w.sut->in_transaction(h.w.app));
    ck_ok(h.w.sut->rollback(h.w.app));
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_MARKS), 10);
    ck_assert_int_eq(accepted(&h, "c", "0"), 0);
    handler_close(&h);
}
END_TEST

START_TEST(pruning_refuses_nonsense)
{
    handler h;
    outbox_error err;

    handler_open(&h, _i);
    accept_numbers(&h, 0, 1);
    ck_assert_int_eq(inbox_prune(h.ib, -1, 10, &err), OUTBOX_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "keep_ms"));
    ck_assert_int_eq(inbox_prune(h.ib, 0, 0, &err), OUTBOX_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "limit"));
    ck_assert_int_eq(inbox_prune(h.ib, 0, -5, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(inbox_prune(h.ib, INT64_MAX, 10, &err), 0);
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_MARKS), 1);
    handler_close(&h);
}
END_TEST

/* The whole chain: a relay that repeats everything after a crash, and a
 * handler behind the inbox in which each effect happens once. */
START_TEST(effects_happen_once)
{
    handler h;
    outbox_error err;
    sut_link link;

    handler_open(&h, _i);
    publish_numbers(&h.w, NULL, 0, 20);
    outbox_relay_t *r = relay_open(&h.w, NULL, NULL, &link);
    settle_down(r);
    relay_crash(&h.w, r, &link);
    drain_after_crash(&h.w, &h.w.sink, NULL);
    ck_assert_uint_gt(sink_count(&h.w.sink), 20);
    for (size_t i = 0; i < sink_count(&h.w.sink); i++) {
        ck_ok(h.w.sut->begin(h.w.app));
        int rc = inbox_accept(h.ib, "c", sink_at(&h.w.sink, i)->event.id,
                              &err);
        ck_assert_int_ge(rc, 0);
        if (rc == 1)
            ck_ok(h.w.sut->work(h.w.app));
        ck_ok(inbox_commit(h.ib, &err));
    }
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_WORK), 20);
    handler_close(&h);
}
END_TEST

START_TEST(outbox_and_inbox_in_one_transaction)
{
    handler h;
    outbox_error err;

    handler_open(&h, _i);
    ck_ok(h.w.sut->begin(h.w.app));
    ck_assert_int_eq(inbox_accept(h.ib, "c", UUID, &err), 1);
    ck_ok(publish_number(h.w.ob, "k", 7, &err));
    ck_ok(inbox_commit(h.ib, &err));
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_MARKS), 1);
    ck_assert_int_eq(h.w.sut->count(h.w.db, SUT_LOG), 1);
    handler_close(&h);
}
END_TEST

void add_inbox_tests(Suite *s)
{
    TCase *tc = suite_case(s, "inbox");

    tcase_add_loop_test(tc, first_time_and_again, 0, n_ways);
    tcase_add_loop_test(tc, again_within_one_transaction, 0, n_ways);
    tcase_add_loop_test(tc, a_rollback_takes_the_mark_with_it, 0, n_ways);
    tcase_add_loop_test(tc, consumers_do_not_share, 0, n_ways);
    tcase_add_loop_test(tc, ids_that_are_text, 0, n_ways);
    tcase_add_loop_test(tc, uuids_in_either_case_are_one, 0, n_ways);
    tcase_add_loop_test(tc, text_is_never_taken_for_a_uuid, 0, n_ways);
    tcase_add_loop_test(tc, bad_input_is_refused, 0, n_ways);
    tcase_add_loop_test(tc, accepting_needs_a_transaction, 0, n_ways);
    tcase_add_loop_test(tc, a_lost_transaction_is_not_committed, 0, n_ways);
    tcase_add_loop_test(tc, commit_commits_the_effect_too, 0, n_ways);
    tcase_add_loop_test(tc, pruning_forgets_the_old, 0, n_ways);
    tcase_add_loop_test(tc, pruning_in_a_transaction_belongs_to_it, 0, n_ways);
    tcase_add_loop_test(tc, pruning_refuses_nonsense, 0, n_ways);
    tcase_add_loop_test(tc, effects_happen_once, 0, n_ways);
    tcase_add_loop_test(tc, outbox_and_inbox_in_one_transaction, 0, n_ways);
}

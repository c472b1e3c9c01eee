/* SPDX-License-Identifier: MIT
 *
 * test_lock.c - a store's code may take long, or ask for the relay's figures:
 * the relay holds no lock while it runs, as outbox/store.h promises.
 */
#include "common/sut.h"

#include <relay.h>

static const outbox_store_ops *real_ops;
static outbox_relay_t *watched;         /* NULL: not yet */
static unsigned looks, seen_locked;

static void look(void)
{
    if (watched == NULL)
        return;
    looks++;
    if (pthread_mutex_trylock(&watched->lock) != 0)
        seen_locked++;
    else
        pthread_mutex_unlock(&watched->lock);
}

static int64_t watched_now_ms(outbox_store *st)
{
    look();
    return real_ops->now_ms(st);
}

static int watched_entropy(outbox_store *st, void *out, size_t n)
{
    look();
    return real_ops->entropy(st, out, n);
}

static void publish_expiring(world *w, int n)
{
    outbox_event ev = { .size = sizeof ev, .topic = "t", .payload = "1",
                        .payload_len = 1, .expires_ms = INT64_MAX };
    outbox_error err;

    ck_ok(w->sut->begin(w->app));
    for (int i = 0; i < n; i++)
        ck_ok(outbox_publish(w->ob, &ev, &err));
    ck_ok(w->sut->commit(w->app));
}

/* Everything fails, so that there is jitter to draw and a probe to choose. */
START_TEST(no_lock_is_held_while_the_store_runs)
{
    world w;
    outbox_store_ops ops;
    outbox_relay_options opt;
    outbox_error err;
    outbox_t *ob;

    world_open(&w, 0);
    w.sink.rule = sink_retry;
    publish_expiring(&w, 200);
    ck_ok(w.sut->connect(&ob, w.db, NULL, NULL, &err));
    real_ops = ob->h.store->ops;
    ops = *real_ops;
    ops.now_ms = watched_now_ms;
    ops.entropy = watched_entropy;
    ob->h.store->ops = &ops;
    opt = relay_options(&w);
    opt.breaker_failures = 100;
    ck_ok(outbox_relay_new(&watched, ob, &w.sink.transport, &opt, &err));
    run_for(&w, watched, 20000, 100);
    ck_assert_int_eq(stats_of(watched).breaker_open, 1);
    ck_assert_uint_gt(sink_count(&w.sink), 110);
    ck_assert_uint_gt(looks, 0);
    ck_assert_uint_eq(seen_locked, 0);
    outbox_relay_t *r = watched;
    watched = NULL;
    outbox_relay_free(r);
    world_close(&w);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lock");
    TCase *tc = suite_case(s, "lock");

    tcase_add_test(tc, no_lock_is_held_while_the_store_runs);
    return suite_main(s);
}

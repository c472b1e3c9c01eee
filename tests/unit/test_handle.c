/* SPDX-License-Identifier: MIT
 *
 * test_handle.c - whose a store is: the handle's, and without one it is
 * closed, once.
 */
#include "common/alloc.h"
#include "common/suite.h"

#include <outbox/store.h>

typedef struct closed {
    outbox_store base;
    int          times;
} closed;

static void closed_close(outbox_store *st)
{
    ((closed *)st)->times++;
}

static const outbox_store_ops closed_ops = {
    .size = sizeof closed_ops,
    .name = "closed",
    .close = closed_close,
};

/* Both kinds of handle; *made: there is one. */
static int handle_of(closed *c, int which, const outbox_options *opt,
                     void **made)
{
    outbox_t *ob = (void *)c;
    inbox_t *ib = (void *)c;
    int rc = which == 0 ? outbox_from_store(&ob, &c->base, opt, NULL)
                        : inbox_from_store(&ib, &c->base, opt, NULL);

    *made = which == 0 ? (void *)ob : (void *)ib;
    if (rc == OUTBOX_OK) {
        ck_assert_int_eq(c->times, 0);
        if (which == 0)
            outbox_close(ob);
        else
            inbox_close(ib);
    }
    return rc;
}

START_TEST(a_store_is_closed_once)
{
    const outbox_options bad = { .size = sizeof bad,
                                 .lanes = OUTBOX_MAX_LANES + 1 };
    void *made;

    for (long fail_at = 0; fail_at < 2; fail_at++) {
        test_alloc a;
        test_alloc_init(&a, fail_at, false);
        closed c = { .base = { .ops = &closed_ops, .mem = a.table } };
        ck_assert_int_eq(handle_of(&c, _i, NULL, &made),
                         fail_at == 0 ? OUTBOX_OK : OUTBOX_ENOMEM);
        ck_assert((made == NULL) == (fail_at != 0));
        ck_assert_int_eq(c.times, 1);
        ck_assert_int_eq(a.outstanding, 0);
        c.times = 0;
        ck_assert_int_eq(handle_of(&c, _i, &bad, &made), OUTBOX_EINVAL);
        ck_assert_ptr_null(made);
        ck_assert_int_eq(c.times, 1);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("handle");
    TCase *tc = suite_case(s, "store");

    tcase_add_loop_test(tc, a_store_is_closed_once, 0, 2);
    return suite_main(s);
}

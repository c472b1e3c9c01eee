/* SPDX-License-Identifier: MIT
 *
 * test_oom.c - the n-th allocation through the caller's table fails, for every
 * n there is: once, and from then on.
 */
#include "common/alloc.h"
#include "common/oom.h"

enum { MOST = 20000 };

/* Loops run over the stores, each cold and warm. */
static oom life_of(int loop, const outbox_allocator *table)
{
    return (oom){ .which = loop / 2, .warm = loop % 2, .table = table };
}

/* But only some where a life takes long, as in a server's database. */
static void every_allocation(int loop, bool ever_after)
{
    long stride = suts[loop / 2]->by_segments ? 11 : 1, n = 0;
    test_alloc a;

    do {
        n += stride;
        test_alloc_init(&a, n, ever_after);
        oom o = life_of(loop, &a.table);
        oom_live(&o);
        ck_assert_msg(a.outstanding == 0, "%ld leaked with failure at %ld",
                      a.outstanding, n);
        ck_assert_int_lt(n, MOST);
    } while (a.failed > 0);
    ck_assert_int_gt(n, 20);            /* else the table is not used */
}

START_TEST(one_fails)
{
    every_allocation(_i, false);
}
END_TEST

START_TEST(all_fail_from_then_on)
{
    every_allocation(_i, true);
}
END_TEST

START_TEST(with_enough_memory_nothing_fails)
{
    test_alloc a;

    test_alloc_init(&a, 0, false);
    oom o = life_of(_i, &a.table);
    oom_live(&o);
    ck_assert_int_eq(a.outstanding, 0);
    ck_assert_int_gt(a.calls, 20);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("oom");
    TCase *tc = suite_case(s, "allocator");

    tcase_add_loop_test(tc, with_enough_memory_nothing_fails, 0, 2 * n_suts);
    tcase_add_loop_test(tc, one_fails, 0, 2 * n_suts);
    tcase_add_loop_test(tc, all_fail_from_then_on, 0, 2 * n_suts);
    return suite_main(s);
}

/* SPDX-License-Identifier: MIT
 *
 * test_oom_sqlite.c - SQLite itself runs out of memory, at every allocation
 * that it makes within a call of the library.
 *
 * Its allocator is set once for the whole program, which is why this is one.
 */
#include "common/oom.h"

#include <sqlite3.h>
#include <stdlib.h>

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

int main(void)
{
    Suite *s = suite_create("oom_sqlite");
    TCase *tc = suite_case(s, "sqlite");

    install();
    tcase_add_loop_test(tc, one_fails, 0, 2);
    tcase_add_loop_test(tc, all_fail_from_then_on, 0, 2);
    return suite_main(s);
}

/* SPDX-License-Identifier: MIT
 *
 * alloc.c - the failing allocator.
 */
#include "alloc.h"

#include <stdlib.h>

static bool refuse(test_alloc *a)
{
    long n = atomic_fetch_add(&a->calls, 1) + 1;
    bool no = a->fail_at != 0
           && (a->ever_after ? n >= a->fail_at : n == a->fail_at);

    if (no)
        atomic_fetch_add(&a->failed, 1);
    return no;
}

static void *test_malloc(void *arg, size_t n)
{
    test_alloc *a = arg;
    void *p = refuse(a) ? NULL : malloc(n != 0 ? n : 1);

    if (p != NULL)
        atomic_fetch_add(&a->outstanding, 1);
    return p;
}

static void *test_realloc(void *arg, void *p, size_t n)
{
    test_alloc *a = arg;
    void *q = refuse(a) ? NULL : realloc(p, n != 0 ? n : 1);

    if (q != NULL && p == NULL)
        atomic_fetch_add(&a->outstanding, 1);
    return q;
}

static void test_free(void *arg, void *p)
{
    test_alloc *a = arg;

    if (p != NULL)
        atomic_fetch_sub(&a->outstanding, 1);
    free(p);
}

void test_alloc_init(test_alloc *a, long fail_at, bool ever_after)
{
    a->table = (outbox_allocator){
        .size = sizeof a->table,
        .arg = a,
        .malloc = test_malloc,
        .realloc = test_realloc,
        .free = test_free,
    };
    atomic_init(&a->calls, 0);
    atomic_init(&a->outstanding, 0);
    atomic_init(&a->failed, 0);
    a->fail_at = fail_at;
    a->ever_after = ever_after;
}

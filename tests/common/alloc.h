/* SPDX-License-Identifier: MIT
 *
 * alloc.h - an allocator that counts what is out, and fails when told to.
 */
#ifndef TESTS_ALLOC_H
#define TESTS_ALLOC_H

#include <outbox/outbox.h>
#include <stdatomic.h>
#include <stdbool.h>

typedef struct test_alloc {
    outbox_allocator table;
    atomic_long      calls;             /* that may fail, so far */
    atomic_long      outstanding;
    atomic_long      failed;
    long             fail_at;           /* the n-th call, from 1; 0: never */
    bool             ever_after;        /* and each one that follows */
} test_alloc;

void test_alloc_init(test_alloc *a, long fail_at, bool ever_after);

#endif

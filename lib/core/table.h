/* SPDX-License-Identifier: MIT
 *
 * table.h - nodes found by a number.
 */
#ifndef OB_TABLE_H
#define OB_TABLE_H

#include "base.h"

/* The first member of what is kept in a table. */
typedef struct ob_node {
    struct ob_node *next;
    uint64_t        key;
} ob_node;

typedef struct ob_table {
    ob_node **buckets;
    uint32_t  size, count;      /* size: a power of two, or 0 */
} ob_table;

/* The first of that key, or NULL; and those after it. */
ob_node *ob_table_find(const ob_table *t, uint64_t key);
ob_node *ob_table_again(const ob_node *n);
/* n has its key already.  False without memory. */
bool ob_table_add(ob_table *t, const outbox_allocator *mem, ob_node *n);
void ob_table_remove(ob_table *t, ob_node *n);
/* Free each that drops() says; with NULL all of them, and the buckets. */
void ob_table_sweep(ob_table *t, const outbox_allocator *mem,
                    bool (*drops)(const ob_node *n, const void *arg),
                    const void *arg);

#endif

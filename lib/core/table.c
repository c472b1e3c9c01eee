/* SPDX-License-Identifier: MIT
 *
 * table.c - nodes found by a number: chains that are blocked, positions that
 * are set aside.  There may be none of them, which costs one comparison, or a
 * hundred thousand (tests/unit/test_blocked.c).
 */
#include "table.h"

static ob_node **table_bucket(const ob_table *t, uint64_t key)
{
    uint64_t mixed = key * 0x9e3779b97f4a7c15u >> 32;

    return &t->buckets[mixed & (t->size - 1)];
}

ob_node *ob_table_find(const ob_table *t, uint64_t key)
{
    if (t->count == 0)
        return NULL;
    ob_node *n = *table_bucket(t, key);
    while (n != NULL && n->key != key)
        n = n->next;
    return n;
}

ob_node *ob_table_again(const ob_node *n)
{
    uint64_t key = n->key;
    ob_node *other = n->next;

    while (other != NULL && other->key != key)
        other = other->next;
    return other;
}

static void table_put(ob_table *t, ob_node *n)
{
    ob_node **bucket = table_bucket(t, n->key);

    n->next = *bucket;
    *bucket = n;
}

static bool table_grow(ob_table *t, const outbox_allocator *mem)
{
    ob_table bigger = *t;

    if (t->count < t->size)
        return true;
    bigger.size = t->size == 0 ? 64 : t->size * 2;
    bigger.buckets = ob_alloc(mem, bigger.size * sizeof *bigger.buckets);
    if (bigger.buckets == NULL)
        return t->size > 0;             /* fuller, slower, still right */
    for (uint32_t i = 0; i < t->size; i++) {
        while (t->buckets[i] != NULL) {
            ob_node *n = t->buckets[i];
            t->buckets[i] = n->next;
            table_put(&bigger, n);
        }
    }
    ob_free(mem, t->buckets);
    *t = bigger;
    return true;
}

bool ob_table_add(ob_table *t, const outbox_allocator *mem, ob_node *n)
{
    if (!table_grow(t, mem))
        return false;
    table_put(t, n);
    t->count++;
    return true;
}

void ob_table_remove(ob_table *t, ob_node *n)
{
    ob_node **at = table_bucket(t, n->key);

    while (*at != n)
        at = &(*at)->next;
    *at = n->next;
    t->count--;
}

void ob_table_sweep(ob_table *t, const outbox_allocator *mem,
                    bool (*drops)(const ob_node *n, const void *arg),
                    const void *arg)
{
    for (uint32_t i = 0; i < t->size && t->count > 0; i++) {
        ob_node **at = &t->buckets[i];
        while (*at != NULL) {
            ob_node *n = *at;
            if (drops != NULL && !drops(n, arg)) {
                at = &n->next;
                continue;
            }
            *at = n->next;
            t->count--;
            ob_free(mem, n);
        }
    }
    if (drops != NULL)
        return;
    ob_free(mem, t->buckets);
    memset(t, 0, sizeof *t);
}

/* SPDX-License-Identifier: MIT
 *
 * handle.c - outbox_t and inbox_t: a store, and the process it belongs to.
 */
#include "core.h"

#include <unistd.h>

int ob_handle_check(const ob_handle *h, const char *name, outbox_error *err)
{
    if (h == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "%s is NULL", name);
    if (h->pid != getpid())
        return outbox_error_set(err, OUTBOX_EFORK,
                                "%s was opened in process %ld: open one in "
                                "this process", name, (long)h->pid);
    return OUTBOX_OK;
}

enum { DEFAULT_LANES = 16, DEFAULT_PAYLOAD = 1 << 20,
       KNOWN_FLAGS = OUTBOX_POOLED | OUTBOX_LOCK_KEYS | OUTBOX_QUIET };

int outbox_options_read(outbox_options *out, const outbox_options *opt,
                        outbox_allocator *mem, outbox_error *err)
{
    static const outbox_options none = { .size = sizeof none };
    int rc = ob_struct_read(out, sizeof *out, sizeof *out,
                            opt != NULL ? opt : &none, "outbox_options", err);

    if (rc == OUTBOX_OK)
        rc = ob_mem_init(mem, out->allocator, err);
    if (rc != OUTBOX_OK)
        return rc;
    if (out->lanes == 0)
        out->lanes = DEFAULT_LANES;
    if (out->lanes > OUTBOX_MAX_LANES)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "outbox_options.lanes is %u, more than %d",
                                (unsigned)out->lanes, OUTBOX_MAX_LANES);
    if (out->max_backlog < 0)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "outbox_options.max_backlog is negative");
    if ((out->flags & ~(uint32_t)KNOWN_FLAGS) != 0)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "outbox_options.flags has bits that this "
                                "library does not know: 0x%x",
                                (unsigned)out->flags);
    if (out->max_payload_bytes == 0)
        out->max_payload_bytes = DEFAULT_PAYLOAD;
    return OUTBOX_OK;
}

/* A handle of this size; NULL, *rc, and the store closed. */
static void *handle_new(outbox_store *st, size_t size, outbox_options *o,
                        const outbox_options *opt, int *rc, outbox_error *err)
{
    outbox_allocator mem;
    ob_handle *h = NULL;

    *rc = outbox_options_read(o, opt, &mem, err);
    if (*rc == OUTBOX_OK) {
        h = ob_alloc(&st->mem, size);
        *rc = h != NULL ? OUTBOX_OK : ob_nomem(err);
    }
    if (h == NULL) {
        st->ops->close(st);
        return NULL;
    }
    h->store = st;
    h->pid = getpid();
    return h;
}

int outbox_from_store(outbox_t **out, outbox_store *st,
                      const outbox_options *opt, outbox_error *err)
{
    outbox_options o;
    int rc;
    outbox_t *ob = *out = handle_new(st, sizeof *ob, &o, opt, &rc, err);

    if (ob == NULL)
        return rc;
    ob->lanes = o.lanes;
    ob->max_payload_bytes = o.max_payload_bytes;
    ob->max_backlog = o.max_backlog;
    ob->rnd.entropy = st->ops->entropy;
    ob->rnd.store = st;
    return OUTBOX_OK;
}

int inbox_from_store(inbox_t **out, outbox_store *st,
                     const outbox_options *opt, outbox_error *err)
{
    outbox_options o;
    int rc;

    *out = handle_new(st, sizeof **out, &o, opt, &rc, err);
    return rc;
}

/* After a fork the connection belongs to the parent: closing it here could
 * break the parent's locks, so the child leaks the handle instead. */
static bool is_ours(const ob_handle *h)
{
    return h->pid == getpid();
}

void outbox_close(outbox_t *ob)
{
    if (ob == NULL || !is_ours(&ob->h))
        return;
    outbox_allocator mem = ob->h.store->mem;
    ob_free(&mem, ob->rows);
    ob_free(&mem, ob->text);
    ob->h.store->ops->close(ob->h.store);
    ob_free(&mem, ob);
}

void inbox_close(inbox_t *ib)
{
    if (ib == NULL || !is_ours(&ib->h))
        return;
    outbox_allocator mem = ib->h.store->mem;
    ib->h.store->ops->close(ib->h.store);
    ob_free(&mem, ib);
}

int outbox_migrate(outbox_t *ob, outbox_error *err)
{
    outbox_error own;
    int rc = ob_handle_check(ob != NULL ? &ob->h : NULL, "outbox_t", err);

    if (rc != OUTBOX_OK)
        return rc;
    return ob->h.store->ops->migrate(ob->h.store, ob->lanes,
                                     err != NULL ? err : &own);
}

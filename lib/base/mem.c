/* SPDX-License-Identifier: MIT
 *
 * mem.c - the allocator table, and reading structs of another version's size.
 */
#include "base.h"

#include <stdlib.h>

static void *default_malloc(void *arg, size_t n)
{
    (void)arg;
    return malloc(n);
}

static void *default_realloc(void *arg, void *p, size_t n)
{
    (void)arg;
    return realloc(p, n);
}

static void default_free(void *arg, void *p)
{
    (void)arg;
    free(p);
}

int ob_mem_init(outbox_allocator *mem, const outbox_allocator *from,
                outbox_error *err)
{
    *mem = (outbox_allocator){
        .size = sizeof *mem,
        .malloc = default_malloc,
        .realloc = default_realloc,
        .free = default_free,
    };
    if (from == NULL)
        return OUTBOX_OK;
    int rc = ob_struct_read(mem, sizeof *mem, sizeof *mem, from,
                            "outbox_allocator", err);
    if (rc != OUTBOX_OK)
        return rc;
    if (mem->malloc == NULL || mem->realloc == NULL || mem->free == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "outbox_allocator: set malloc, realloc and "
                                "free, all three");
    return OUTBOX_OK;
}

void *ob_alloc(const outbox_allocator *mem, size_t n)
{
    void *p = mem->malloc(mem->arg, n);

    if (p != NULL)
        memset(p, 0, n);
    return p;
}

void ob_free(const outbox_allocator *mem, void *p)
{
    if (p != NULL)
        mem->free(mem->arg, p);
}

char *ob_strdup(const outbox_allocator *mem, const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = mem->malloc(mem->arg, n);

    return p != NULL ? memcpy(p, s, n) : NULL;
}

int ob_nomem(outbox_error *err)
{
    return outbox_error_set(err, OUTBOX_ENOMEM, "out of memory");
}

int ob_struct_read(void *out, size_t known, size_t least, const void *in,
                   const char *what, outbox_error *err)
{
    size_t size;

    memcpy(&size, in, sizeof size);
    if (size < least)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "%s.size is %zu, less than %zu: set it to "
                                "sizeof the struct", what, size, least);
    for (size_t i = known; i < size; i++) {
        if (((const unsigned char *)in)[i] != 0)
            return outbox_error_set(err, OUTBOX_EINVAL,
                                    "%s.size is %zu and a field beyond %zu "
                                    "is set: this library is older than the "
                                    "program", what, size, known);
    }
    memset(out, 0, known);
    memcpy(out, in, size < known ? size : known);
    return OUTBOX_OK;
}

/* SPDX-License-Identifier: MIT
 *
 * pg_param.c - values to and from the server, in binary: big endian, arrays
 * with a header of dimension, NULLs, element type, length and lower bound.
 */
#include "pg_store.h"

#include <limits.h>

static void put_int(void *to, uint64_t v, int bytes)
{
    uint8_t *p = to;

    for (int i = bytes - 1; i >= 0; i--) {
        p[i] = (uint8_t)v;
        v >>= 8;
    }
}

static uint64_t get_int(const char *from, int bytes)
{
    const uint8_t *p = (const uint8_t *)from;
    uint64_t v = 0;

    for (int i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

/* ---- parameters ----------------------------------------------------- */

static void param(ob_pg_params *p, const void *value, size_t length)
{
    p->value[p->n] = value;
    p->length[p->n] = length <= INT_MAX ? (int)length : INT_MAX;
    p->format[p->n] = 1;
    p->n++;
}

static void param_int(ob_pg_params *p, uint64_t v, int bytes)
{
    put_int(&p->number[p->n], v, bytes);
    param(p, &p->number[p->n], (size_t)bytes);
}

void ob_pg_int2(ob_pg_params *p, int v)
{
    param_int(p, (uint64_t)v, 2);
}

void ob_pg_int4(ob_pg_params *p, int v)
{
    param_int(p, (uint64_t)v, 4);
}

void ob_pg_int8(ob_pg_params *p, int64_t v)
{
    param_int(p, (uint64_t)v, 8);
}

void ob_pg_int8_or_null(ob_pg_params *p, int64_t v)
{
    if (v != 0)
        ob_pg_int8(p, v);
    else
        ob_pg_null(p);
}

void ob_pg_bool(ob_pg_params *p, bool v)
{
    param_int(p, v, 1);
}

void ob_pg_null(ob_pg_params *p)
{
    param(p, NULL, 0);
}

void ob_pg_uuid(ob_pg_params *p, const uint8_t id[16])
{
    param(p, id, 16);
}

void ob_pg_bytes(ob_pg_params *p, const outbox_bytes *b)
{
    param(p, b->ptr, b->len);
}

void ob_pg_text(ob_pg_params *p, const char *s)
{
    param(p, s, s != NULL ? strlen(s) : 0);
}

/* ---- arrays --------------------------------------------------------- */

enum { ARRAY_HEAD = 20, ARRAY_LEAST = 1024 };

void ob_pg_array_begin(ob_pg_array *a, enum ob_pg_type type)
{
    a->len = 0;
    a->n = 0;
    a->nulls = a->failed = false;
    a->type = type;
}

void ob_pg_array_free(ob_pg *st, ob_pg_array *a)
{
    if (a->at != NULL)
        st->base.mem.free(st->base.mem.arg, a->at);
    memset(a, 0, sizeof *a);
}

static char *array_room(ob_pg *st, ob_pg_array *a, size_t n)
{
    const outbox_allocator *mem = &st->base.mem;
    size_t used = a->n == 0 ? ARRAY_HEAD : a->len;

    if (a->failed || n > OB_PG_MESSAGE_MAX - used) {
        a->failed = true;
        return NULL;
    }
    if (used + n > a->size) {
        size_t size = (used + n) * 2 + ARRAY_LEAST;
        char *at = mem->realloc(mem->arg, a->at, size);
        if (at == NULL) {
            a->failed = true;
            return NULL;
        }
        a->at = at;
        a->size = size;
    }
    a->len = used + n;
    a->n++;
    return a->at + used;
}

static void array_int(ob_pg *st, ob_pg_array *a, uint64_t v, int bytes)
{
    char *at = array_room(st, a, 4 + (size_t)bytes);

    if (at == NULL)
        return;
    put_int(at, (uint64_t)bytes, 4);
    put_int(at + 4, v, bytes);
}

static int width_of(enum ob_pg_type type)
{
    switch (type) {
    case OB_PG_BOOL:
        return 1;
    case OB_PG_INT2:
        return 2;
    case OB_PG_INT4:
        return 4;
    default:
        return 8;
    }
}

void ob_pg_array_int(ob_pg *st, ob_pg_array *a, int64_t v)
{
    array_int(st, a, (uint64_t)v, width_of(a->type));
}

void ob_pg_array_null(ob_pg *st, ob_pg_array *a)
{
    char *at = array_room(st, a, 4);

    a->nulls = true;
    if (at != NULL)
        put_int(at, UINT32_MAX, 4);
}

void ob_pg_array_bytes(ob_pg *st, ob_pg_array *a, const outbox_bytes *b)
{
    if (b->ptr == NULL) {
        ob_pg_array_null(st, a);
        return;
    }
    char *at = array_room(st, a, b->len <= OB_PG_MESSAGE_MAX - 4
                                     ? 4 + b->len : SIZE_MAX);
    if (at == NULL)
        return;
    put_int(at, b->len, 4);
    memcpy(at + 4, b->ptr, b->len);
}

void ob_pg_array_text(ob_pg *st, ob_pg_array *a, const char *s)
{
    outbox_bytes b = { s, s != NULL ? strlen(s) : 0 };

    ob_pg_array_bytes(st, a, &b);
}

void ob_pg_array_uuid(ob_pg *st, ob_pg_array *a, const uint8_t id[16])
{
    outbox_bytes b = { id, 16 };

    ob_pg_array_bytes(st, a, &b);
}

/* An array without elements has no dimension. */
int ob_pg_param_array(ob_pg *st, ob_pg_params *p, ob_pg_array *a,
                      outbox_error *err)
{
    if (a->n == 0 && array_room(st, a, 0) != NULL)
        a->n = 0;
    if (a->failed)
        return outbox_error_set(err, OUTBOX_ENOMEM,
                                "out of memory, or more than 1 GB at once");
    put_int(a->at, a->n > 0, 4);
    put_int(a->at + 4, a->nulls, 4);
    put_int(a->at + 8, (uint64_t)a->type, 4);
    put_int(a->at + 12, (uint64_t)a->n, 4);
    put_int(a->at + 16, 1, 4);
    param(p, a->at, a->n > 0 ? a->len : 12);
    return OUTBOX_OK;
}

/* ---- columns -------------------------------------------------------- */

int ob_pg_get_bool(const PGresult *res, int row, int col)
{
    return PQgetlength(res, row, col) == 1 && *PQgetvalue(res, row, col) != 0;
}

int32_t ob_pg_get_int(const PGresult *res, int row, int col)
{
    int n = PQgetlength(res, row, col);
    uint64_t v = n <= 4 ? get_int(PQgetvalue(res, row, col), n) : 0;

    return n == 2 ? (int16_t)v : (int32_t)v;
}

int64_t ob_pg_get_int8(const PGresult *res, int row, int col)
{
    return PQgetlength(res, row, col) == 8
         ? (int64_t)get_int(PQgetvalue(res, row, col), 8)
         : ob_pg_get_int(res, row, col);
}

outbox_bytes ob_pg_get_bytes(const PGresult *res, int row, int col)
{
    size_t len = (size_t)PQgetlength(res, row, col);

    if (len == 0 && PQgetisnull(res, row, col))
        return (outbox_bytes){ NULL, 0 };
    return (outbox_bytes){ PQgetvalue(res, row, col), len };
}

void ob_pg_get_uuid(const PGresult *res, int row, int col, uint8_t id[16])
{
    if (PQgetlength(res, row, col) == 16)
        memcpy(id, PQgetvalue(res, row, col), 16);
    else
        memset(id, 0, 16);
}

/* SPDX-License-Identifier: MIT
 *
 * base.h - what the core and the stores share: memory, text, what is found in
 * tables, UUIDs, clocks.
 *
 * Included first by every file of theirs, so that the feature macro is set
 * before any system header.
 */
#ifndef OB_BASE_H
#define OB_BASE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE                     /* getentropy, pipe2 */
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <outbox/store.h>

#define OB_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- memory --------------------------------------------------------- */

/* The default table, or a checked copy of *from. */
int ob_mem_init(outbox_allocator *mem, const outbox_allocator *from,
                outbox_error *err);
void *ob_alloc(const outbox_allocator *mem, size_t n);      /* zeroed */
void  ob_free(const outbox_allocator *mem, void *p);
char *ob_strdup(const outbox_allocator *mem, const char *s);
int   ob_nomem(outbox_error *err);

/* Copy a struct whose first field is the size that the caller compiled with:
 * shorter than ours, the rest stays zero; longer, the surplus must be zero,
 * for it asks for something that this library does not know. */
int ob_struct_read(void *out, size_t known, size_t least, const void *in,
                   const char *what, outbox_error *err);

/* ---- text ----------------------------------------------------------- */

/* Length of s when it is UTF-8 of at most max bytes; else an error that names
 * the field. */
int ob_text_check(const char *s, size_t max, const char *field, size_t *len,
                  outbox_error *err);
bool ob_utf8_valid(const char *s, size_t len);
enum { OB_WHY_MAX = 1024 };             /* bytes of the reason of a failure */
/* A copy that any database can hold, at most max bytes and cut between two
 * characters: '?' for what is not UTF-8, and for control characters.  NULL
 * without memory. */
char *ob_text_tame(const outbox_allocator *mem, const char *s, size_t max);

/* A copy with "with" in every place of mark; NULL without memory. */
char *ob_text_replace(const outbox_allocator *mem, const char *text,
                      const char *mark, const char *with);

/* ---- tables --------------------------------------------------------- */

/* A week: how long a dedup_key is remembered at least. */
#define OB_DEDUP_KEEP_MS INT64_C(604800000)

/* Of a migration's text. */
enum { OB_SUM_TEXT = 17 };              /* with the NUL */
void ob_migration_sum(const char *sql, char out[OB_SUM_TEXT]);
/* Is a version with this checksum the one of these n?  by_hand: a person may
 * have run the file, who notes none.  Else ESCHEMA. */
int ob_migration_check(const char *const *migrations, int n, int version,
                       const char *sum, bool by_hand, outbox_error *err);
/* The tables are of the version that is known; else ESCHEMA. */
int ob_version_check(int version, int known, outbox_error *err);
/* As many as a relay has room for; else ESCHEMA. */
int ob_lanes_check(int64_t lanes, outbox_error *err);

/* ---- UUIDs and chance ----------------------------------------------- */

enum { OB_UUID_TEXT = 37 };             /* with the NUL */

/* A buffered source, per handle; entropy NULL: the system's. */
typedef struct ob_random {
    int    (*entropy)(outbox_store *st, void *out, size_t n);
    outbox_store *store;
    uint8_t  bytes[256];
    size_t   left;
    uint64_t last_ms;
    uint32_t counter;
} ob_random;

int  ob_random_bytes(ob_random *rnd, void *out, size_t n);
int  ob_uuid_v7(ob_random *rnd, uint64_t now_ms, uint8_t out[16]);
bool ob_uuid_parse(const char *text, uint8_t out[16]);
void ob_uuid_format(const uint8_t id[16], char out[OB_UUID_TEXT]);
bool ob_uuid_is_zero(const uint8_t id[16]);

/* ---- clocks --------------------------------------------------------- */

int64_t ob_realtime_ms(void);           /* for the time in UUIDs only */

#endif

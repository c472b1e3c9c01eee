/* SPDX-License-Identifier: MIT
 *
 * hash.c - the one hash: of keys into chains and lanes, and of names.
 *
 * FNV-1a over the bytes, then the finalizer of MurmurHash3, because lanes are
 * taken from the low bits.  Lanes are stored, so this function can never
 * change; tests/unit/test_hash.c holds its golden vectors.
 */
#include "base.h"

uint64_t outbox_hash(const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}

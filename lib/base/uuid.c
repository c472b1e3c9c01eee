/* SPDX-License-Identifier: MIT
 *
 * uuid.c - UUIDs of version 7 (RFC 9562, 5.7), and chance.
 *
 * Ids made through one handle ascend: their time order is what makes the
 * inbox's index cheap.  Chance comes from the system, 256 bytes at a time
 * into the handle: a handle is never used on both sides of a fork, so two
 * processes never share the rest of a buffer.
 */
#include "base.h"

#include <unistd.h>

static int refill(ob_random *rnd)
{
    if (rnd->entropy != NULL)
        return rnd->entropy(rnd->store, rnd->bytes, sizeof rnd->bytes);
    return getentropy(rnd->bytes, sizeof rnd->bytes);
}

int ob_random_bytes(ob_random *rnd, void *out, size_t n)
{
    if (n > sizeof rnd->bytes)
        return OUTBOX_EINVAL;
    if (rnd->left < n) {
        if (refill(rnd) != 0)
            return OUTBOX_EDB;
        rnd->left = sizeof rnd->bytes;
    }
    rnd->left -= n;
    memcpy(out, rnd->bytes + rnd->left, n);
    return OUTBOX_OK;
}

/* The 12 bits after the time count up within a millisecond (RFC 9562, 6.2,
 * method 1); they start in the lower half, and carry into the time. */
int ob_uuid_v7(ob_random *rnd, uint64_t now_ms, uint8_t out[16])
{
    int rc = ob_random_bytes(rnd, out, 16);

    if (rc != OUTBOX_OK)
        return rc;
    if (now_ms > rnd->last_ms) {
        rnd->last_ms = now_ms;
        rnd->counter = (uint32_t)(out[6] << 8 | out[7]) & 0x7ff;
    } else if (++rnd->counter > 0xfff) {
        rnd->last_ms++;
        rnd->counter = 0;
    }
    for (int i = 0; i < 6; i++)
        out[i] = (uint8_t)(rnd->last_ms >> (40 - 8 * i));
    out[6] = (uint8_t)(0x70 | rnd->counter >> 8);
    out[7] = (uint8_t)rnd->counter;
    out[8] = (uint8_t)(0x80 | (out[8] & 0x3f));
    return OUTBOX_OK;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* 8-4-4-4-12 digits, in either case; nothing else. */
bool ob_uuid_parse(const char *text, uint8_t out[16])
{
    size_t at = 0;

    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            if (text[at++] != '-')
                return false;
        }
        int high = hex_digit(text[at]);
        int low = high < 0 ? -1 : hex_digit(text[at + 1]);
        if (low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
        at += 2;
    }
    return text[at] == '\0';
}

void ob_uuid_format(const uint8_t id[16], char out[OB_UUID_TEXT])
{
    static const char digits[] = "0123456789abcdef";
    static const uint8_t at[16] = { 0,  2,  4,  6,  9,  11, 14, 16,
                                    19, 21, 24, 26, 28, 30, 32, 34 };

    for (int i = 0; i < 16; i++) {
        out[at[i]] = digits[id[i] >> 4];
        out[at[i] + 1] = digits[id[i] & 15];
    }
    out[8] = out[13] = out[18] = out[23] = '-';
    out[36] = '\0';
}

bool ob_uuid_is_zero(const uint8_t id[16])
{
    static const uint8_t zero[16];

    return memcmp(id, zero, 16) == 0;
}

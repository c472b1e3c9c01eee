/* SPDX-License-Identifier: MIT
 *
 * text.c - is it UTF-8, and not too long; text that is made so; names in the
 * place of others.
 */
#include "base.h"

/* Length of the sequence at s, or 0.  The ranges of the second byte shut out
 * overlong forms, surrogates and what lies past U+10FFFF (RFC 3629, 4). */
static size_t utf8_sequence(const unsigned char *s, size_t left)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2
             : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

    if (n < 2 || n > left)
        return n == 1 ? 1 : 0;
    unsigned char low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    }
    return n;
}

bool ob_utf8_valid(const char *s, size_t len)
{
    const unsigned char *p = (const unsigned char *)s;

    while (len > 0) {
        size_t n = utf8_sequence(p, len);
        if (n == 0)
            return false;
        p += n;
        len -= n;
    }
    return true;
}

int ob_text_check(const char *s, size_t max, const char *field, size_t *len,
                  outbox_error *err)
{
    size_t n = strnlen(s, max + 1);

    if (n > max)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "%s is longer than %zu bytes", field, max);
    if (!ob_utf8_valid(s, n))
        return outbox_error_set(err, OUTBOX_EINVAL, "%s is not UTF-8", field);
    *len = n;
    return OUTBOX_OK;
}

/* A character that begins within max may end behind it: that one is cut. */
enum { MOST_BEHIND = 3 };

char *ob_text_tame(const outbox_allocator *mem, const char *s, size_t max)
{
    size_t len = strnlen(s, max + MOST_BEHIND), at = 0;
    char *out = ob_alloc(mem, (len < max ? len : max) + 1);

    if (out == NULL)
        return NULL;
    while (at < len && at < max) {
        size_t n = utf8_sequence((const unsigned char *)&s[at], len - at);
        if (at + n > max)
            break;
        if (n == 0 || (unsigned char)s[at] < ' ' || s[at] == 0x7f) {
            out[at++] = '?';
            continue;
        }
        memcpy(&out[at], &s[at], n);
        at += n;
    }
    return out;                         /* it was zeroed */
}

char *ob_text_replace(const outbox_allocator *mem, const char *text,
                      const char *mark, const char *with)
{
    size_t n = strlen(text) + 1, mark_len = strlen(mark);
    size_t with_len = strlen(with);
    const char *at = text;

    for (; (at = strstr(at, mark)) != NULL; at += mark_len)
        n += with_len;
    char *out = mem->malloc(mem->arg, n), *to = out;
    if (out == NULL)
        return NULL;
    while ((at = strstr(text, mark)) != NULL) {
        memcpy(to, text, (size_t)(at - text));
        to += at - text;
        memcpy(to, with, with_len);
        to += with_len;
        text = at + mark_len;
    }
    memcpy(to, text, strlen(text) + 1);
    return out;
}

/* SPDX-License-Identifier: MIT
 *
 * filter.c - which topics a subscription wants: "orders,billing.*".
 *
 * A comma-separated list of topics; a star may stand at the end of one and
 * means whatever follows.  What a topic may not contain, no entry may
 * contain either: it could never match.
 */
#include "core.h"

static int entry_check(const char *s, size_t n, outbox_error *err)
{
    if (n == 0)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "topics has an empty entry: remove the "
                                "comma, or leave topics NULL for all");
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c <= ' ' || c == 0x7f)
            return outbox_error_set(err, OUTBOX_EINVAL,
                                    "topics has a space or control "
                                    "character: no topic has, so it could "
                                    "not match");
        if (c == '*' && i + 1 < n)
            return outbox_error_set(err, OUTBOX_EINVAL,
                                    "topics has a star inside an entry: it "
                                    "may only end one");
    }
    if (n - (s[n - 1] == '*') > OUTBOX_MAX_TEXT_BYTES)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "topics has an entry longer than %d bytes, "
                                "the most that a topic may have",
                                OUTBOX_MAX_TEXT_BYTES);
    return OUTBOX_OK;
}

int ob_filter_check(const char *topics, outbox_error *err)
{
    int rc = OUTBOX_OK;

    if (topics == NULL)
        return OUTBOX_OK;
    if (!ob_utf8_valid(topics, strlen(topics)))
        return outbox_error_set(err, OUTBOX_EINVAL, "topics is not UTF-8");
    for (;;) {
        size_t n = strcspn(topics, ",");
        rc = entry_check(topics, n, err);
        if (rc != OUTBOX_OK || topics[n] == '\0')
            return rc;
        topics += n + 1;
    }
}

bool ob_filter_match(const char *topics, const outbox_bytes *topic)
{
    while (topics != NULL) {
        size_t n = strcspn(topics, ",");
        if (n > 0 && topics[n - 1] == '*') {
            if (topic->len >= n - 1 && memcmp(topics, topic->ptr, n - 1) == 0)
                return true;
        } else if (topic->len == n && memcmp(topics, topic->ptr, n) == 0) {
            return true;
        }
        if (topics[n] == '\0')
            return false;
        topics += n + 1;
    }
    return true;
}

/* SPDX-License-Identifier: MIT
 *
 * inbox.c - the duplicate check, in the handler's own transaction.
 */
#include "core.h"

static int inbox_check(const inbox_t *ib, outbox_error *err)
{
    return ob_handle_check(ib != NULL ? &ib->h : NULL, "inbox_t", err);
}

static int text_required(const char *s, const char *field, size_t *len,
                         outbox_error *err)
{
    if (s == NULL || *s == '\0')
        return outbox_error_set(err, OUTBOX_EINVAL, "%s is empty", field);
    return ob_text_check(s, OUTBOX_MAX_TEXT_BYTES, field, len, err);
}

/* A UUID is stored as its 16 bytes, so that case does not tell ids apart;
 * anything else as the text that it is. */
int inbox_accept(inbox_t *ib, const char *consumer, const char *id,
                 outbox_error *err)
{
    outbox_error own;
    outbox_bytes bytes = { id, 0 };
    uint8_t uuid[16];
    size_t n;
    int rc = inbox_check(ib, err);

    if (rc == OUTBOX_OK)
        rc = text_required(consumer, "consumer", &n, err);
    if (rc == OUTBOX_OK)
        rc = text_required(id, "id", &bytes.len, err);
    if (rc != OUTBOX_OK)
        return rc;
    int is_uuid = ob_uuid_parse(id, uuid);
    if (is_uuid)
        bytes = (outbox_bytes){ uuid, sizeof uuid };
    return ib->h.store->ops->accept(ib->h.store, consumer, &bytes,
                                    is_uuid, err != NULL ? err : &own);
}

int inbox_prune(inbox_t *ib, int64_t keep_ms, int limit, outbox_error *err)
{
    outbox_error own;
    int rc = inbox_check(ib, err);

    if (rc != OUTBOX_OK)
        return rc;
    if (keep_ms < 0)
        return outbox_error_set(err, OUTBOX_EINVAL, "keep_ms is negative");
    if (limit <= 0)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "limit is %d: say how many marks one call "
                                "may forget", limit);
    return ib->h.store->ops->prune(ib->h.store, keep_ms, limit,
                                   err != NULL ? err : &own);
}

int inbox_commit(inbox_t *ib, outbox_error *err)
{
    outbox_error own;
    int rc = inbox_check(ib, err);

    if (rc != OUTBOX_OK)
        return rc;
    return ib->h.store->ops->commit(ib->h.store, err != NULL ? err : &own);
}

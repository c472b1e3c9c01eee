/* SPDX-License-Identifier: MIT
 *
 * pg_inbox.c - marks in the handler's transaction, and forgetting old ones.
 *
 * Of two handlers that have the same event at once, the second waits in its
 * INSERT for the fate of the first.
 */
#include "pg_store.h"

int ob_pg_accept(outbox_store *s, const char *consumer,
                 const outbox_bytes *id, int is_uuid, outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    ob_pg_params p = { 0 };
    int rc = ob_pg_write_check(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    ob_pg_text(&p, consumer);
    ob_pg_bytes(&p, id);
    ob_pg_bool(&p, is_uuid != 0);
    return (int)ob_pg_do(st, PG_ACCEPT, &p, "accept", err);
}

int ob_pg_prune(outbox_store *s, int64_t keep_ms, int limit,
                outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    ob_pg_params p = { 0 };
    int rc = ob_pg_ready(st, err);

    if (rc == OUTBOX_OK)                /* of its own, if none is open */
        rc = PQtransactionStatus(st->conn) == PQTRANS_IDLE
                 ? ob_pg_check(st, err) : ob_pg_write_check(st, err);
    if (rc != OUTBOX_OK)
        return rc;
    ob_pg_int8(&p, keep_ms);
    ob_pg_int8(&p, limit);
    return (int)ob_pg_do(st, PG_PRUNE, &p, "prune", err);
}

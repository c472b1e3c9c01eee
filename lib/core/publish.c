/* SPDX-License-Identifier: MIT
 *
 * publish.c - events into the caller's transaction.
 *
 * Everything is checked before anything is written, so that a refused event
 * leaves the transaction as it was.  Buffers stay with the handle: a publish
 * allocates nothing once they fit.
 */
#include "core.h"
#include "failpoint.h"

static int rows_check(outbox_t *ob, const outbox_event *const *ev, size_t n,
                      size_t *text_bytes, outbox_error *err)
{
    const outbox_allocator *mem = &ob->h.store->mem;
    outbox_event e;

    if (ev == NULL && n > 0)
        return outbox_error_set(err, OUTBOX_EINVAL, "events is NULL");
    if (n > SIZE_MAX / sizeof *ob->rows)
        return ob_nomem(err);
    outbox_row *rows = ob_grow(mem, ob->rows, &ob->rows_size,
                               n * sizeof *ob->rows);
    if (rows == NULL)
        return ob_nomem(err);
    ob->rows = rows;
    int rc = OUTBOX_OK;
    *text_bytes = 0;
    for (size_t i = 0; i < n && rc == OUTBOX_OK; i++) {
        rc = ob_event_read(&e, ev[i], err);
        if (rc == OUTBOX_OK)
            rc = ob_event_row(&ob->rows[i], &e, ob->max_payload_bytes,
                              &ob->rnd, err);
        if (rc == OUTBOX_OK)
            *text_bytes += ob->rows[i].headers.len + 1;
    }
    return rc;
}

static void rows_encode_headers(outbox_t *ob, const outbox_event *const *ev,
                                size_t n)
{
    char *text = ob->text;

    for (size_t i = 0; i < n; i++) {
        if (ob->rows[i].headers.len == 0)
            continue;
        ob->rows[i].headers.ptr = text;
        text = ob_headers_encode(ev[i], text);
    }
}

/* A limit, not a fence: publishers at the same moment may pass it together. */
static int backlog_check(outbox_t *ob, size_t n, outbox_error *err)
{
    int64_t events = 0;

    if (ob->max_backlog == 0)
        return OUTBOX_OK;
    int rc = ob->h.store->ops->backlog(ob->h.store, &events, err);
    if (rc != OUTBOX_OK)
        return rc;
    if (events + (int64_t)n <= ob->max_backlog)
        return OUTBOX_OK;
    return outbox_error_set(err, OUTBOX_EFULL,
                            "%lld events are not delivered yet and "
                            "max_backlog is %lld: see to the slowest "
                            "subscription, or publish later",
                            (long long)events, (long long)ob->max_backlog);
}

/* Of the last event that was not left out as a duplicate. */
static void last_id_note(outbox_t *ob, size_t n)
{
    while (n > 0 && ob->rows[n - 1].position == 0)
        n--;
    if (n > 0)
        ob_uuid_format(ob->rows[n - 1].id, ob->last_id);
}

static int publish(outbox_t *ob, const outbox_event *const *ev, size_t n,
                   int commit, outbox_error *err)
{
    outbox_error own;
    size_t text_bytes = 0;
    int rc = ob_handle_check(ob != NULL ? &ob->h : NULL, "outbox_t", err);

    if (rc == OUTBOX_OK)
        rc = rows_check(ob, ev, n, &text_bytes, err);
    if (rc != OUTBOX_OK)
        return rc;
    char *text = ob_grow(&ob->h.store->mem, ob->text, &ob->text_size,
                         text_bytes);
    if (text == NULL)
        return ob_nomem(err);
    ob->text = text;
    rows_encode_headers(ob, ev, n);
    outbox_store *st = ob->h.store;
    rc = backlog_check(ob, n, err != NULL ? err : &own);
    if (rc != OUTBOX_OK)
        return rc;
    OB_FAILPOINT("publish.before_append");
    rc = st->ops->append(st, ob->rows, n, commit, err != NULL ? err : &own);
    if (rc < 0)
        return rc;
    last_id_note(ob, n);
    OB_FAILPOINT(commit ? "publish.after_commit" : "publish.after_append");
    ob_wake_database(st->database, commit ? OB_WAKE_NOW : OB_WAKE_HINT,
                     commit ? st->durable : 0);
    return rc;
}

int outbox_publish(outbox_t *ob, const outbox_event *ev, outbox_error *err)
{
    return publish(ob, &ev, 1, 0, err);
}

int outbox_publish_many(outbox_t *ob, const outbox_event *const *ev, size_t n,
                        outbox_error *err)
{
    return publish(ob, ev, n, 0, err);
}

int outbox_publish_commit(outbox_t *ob, const outbox_event *const *ev,
                          size_t n, outbox_error *err)
{
    return publish(ob, ev, n, 1, err);
}

const char *outbox_last_id(const outbox_t *ob)
{
    return ob != NULL ? ob->last_id : "";
}

/* SPDX-License-Identifier: MIT
 *
 * sut_memory.c - the store in memory, as a store under test.
 */
#include "sut.h"

#include "memory/memory_store.h"

#include <stdlib.h>

typedef struct app {                    /* a connection, and its savepoint */
    mem_conn *conn;
    size_t    savepoint;
} app;

static void *memory_create(void)
{
    return mem_db_new();
}

static void memory_destroy(void *db)
{
    mem_db_free(db);
}

static void *memory_conn_open(void *db)
{
    app *a = calloc(1, sizeof *a);

    a->conn = mem_conn_new(db);
    return a;
}

static void *memory_conn_read_only(void *db)
{
    app *a = memory_conn_open(db);

    mem_read_only(a->conn, 1);
    return a;
}

static void memory_conn_close(void *conn)
{
    app *a = conn;

    mem_conn_free(a->conn);
    free(a);
}

static int memory_outbox(outbox_t **out, void *conn, const outbox_options *opt,
                         outbox_error *err)
{
    return mem_outbox_open(out, ((app *)conn)->conn, opt, err);
}

static int memory_inbox(inbox_t **out, void *conn, const outbox_options *opt,
                        outbox_error *err)
{
    return mem_inbox_open(out, ((app *)conn)->conn, opt, err);
}

static int memory_connect(outbox_t **out, void *db, const outbox_options *opt,
                          sut_link *link, outbox_error *err)
{
    mem_conn *c = NULL;
    int rc = mem_outbox_connect(out, db, opt, &c, err);

    if (link != NULL)
        *link = (sut_link){ c, false };
    return rc;
}

static void memory_sever(sut_link *link)
{
    mem_sever(link->conn);
}

static int memory_begin(void *conn)
{
    return mem_begin(((app *)conn)->conn);
}

static int memory_work(void *conn)
{
    return mem_work(((app *)conn)->conn);
}

static int memory_commit(void *conn)
{
    return mem_commit(((app *)conn)->conn);
}

static int memory_rollback(void *conn)
{
    mem_rollback(((app *)conn)->conn);
    return 0;
}

static int memory_savepoint(void *conn)
{
    app *a = conn;

    a->savepoint = mem_savepoint(a->conn);
    return 0;
}

static int memory_rollback_to(void *conn)
{
    app *a = conn;

    mem_rollback_to(a->conn, a->savepoint);
    return 0;
}

static bool memory_in_transaction(void *conn)
{
    return mem_in_transaction(((app *)conn)->conn);
}

static int memory_lose(void *conn)
{
    mem_abort_silently(((app *)conn)->conn);
    return 0;
}

static int64_t memory_count(void *db, enum sut_table table)
{
    static const enum mem_table tables[] = {
        [SUT_LOG] = MEM_LOG,
        [SUT_PARKED] = MEM_PARKED_ROWS,
        [SUT_DEAD] = MEM_DEAD_ROWS,
        [SUT_MARKS] = MEM_MARKS,
        [SUT_WORK] = MEM_WORK,
        [SUT_RELAYS] = MEM_RELAYS,
        [SUT_SUBSCRIPTIONS] = MEM_SUBSCRIPTIONS,
    };

    return mem_count(db, tables[table]);
}

static void memory_age(void *db, int64_t ms)
{
    mem_age(db, ms);
}

static void memory_empty_log(void *db)
{
    mem_empty_log(db);
}

static void memory_newer_schema(void *db)
{
    mem_set_version(db, MEM_VERSION + 1);
}

static void memory_claim_lanes(void *db, int lanes)
{
    mem_set_lanes(db, (uint32_t)lanes);
}

static void memory_change_checksum(void *db)
{
    mem_change_checksum(db);
}

static void memory_set_now(void *db, int64_t ms)
{
    mem_set_now(db, ms);
}

static void memory_freeze_beats(void *db, sut_link *link)
{
    (void)db;
    mem_freeze_beats(link->conn, 1);
}

static int64_t memory_trials(void *db)
{
    return mem_calls(db, MEM_TRIAL);
}

const sut sut_memory = {
    .name = "memory",
    .create = memory_create,
    .destroy = memory_destroy,
    .conn_open = memory_conn_open,
    .conn_read_only = memory_conn_read_only,
    .conn_close = memory_conn_close,
    .outbox = memory_outbox,
    .inbox = memory_inbox,
    .connect = memory_connect,
    .sever = memory_sever,
    .begin = memory_begin,
    .work = memory_work,
    .commit = memory_commit,
    .rollback = memory_rollback,
    .savepoint = memory_savepoint,
    .rollback_to = memory_rollback_to,
    .in_transaction = memory_in_transaction,
    .lose_transaction = memory_lose,
    .count = memory_count,
    .age = memory_age,
    .empty_log = memory_empty_log,
    .newer_schema = memory_newer_schema,
    .claim_lanes = memory_claim_lanes,
    .change_checksum = memory_change_checksum,
    .set_now = memory_set_now,
    .freeze_beats = memory_freeze_beats,
    .trials = memory_trials,
};

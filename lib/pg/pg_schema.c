/* SPDX-License-Identifier: MIT
 *
 * pg_schema.c - making the tables, checking them, and subscriptions.
 *
 * Migrations are numbered, applied in one transaction under a lock, and
 * recorded with a checksum of their text: two processes that migrate at once
 * wait for each other, and a database whose history is not ours is refused.
 */
#include "pg_store.h"

#include "failpoint.h"
#include <stdio.h>

enum { MIGRATE_MS = 300000 };

/* Without comments; a test knows the checksums of released versions. */
static const char *const pg_migrations[OB_PG_VERSION] = {
#include "pg_schema.inc"
};

/* ---- migrating ------------------------------------------------------ */

/* Does the name stand for something?  Asked of pg_catalog, for a role that may
 * not use the schema. */
static int exists(ob_pg *st, const char *table, bool *is, outbox_error *err)
{
    ob_pg_params p = { 0 };
    int rc;

    ob_pg_text(&p, st->name);
    ob_pg_text(&p, table);
    PGresult *res = ob_pg_once(
        st, "SELECT 1 FROM pg_catalog.pg_namespace n"
        " LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND"
        " c.relname = $2::text WHERE n.nspname = $1::text"
        " AND ($2 IS NULL OR c.oid IS NOT NULL)", &p, "migrate", &rc, err);
    if (res == NULL)
        return rc;
    *is = PQntuples(res) > 0;
    PQclear(res);
    return OUTBOX_OK;
}

/* The newest version applied; each one's checksum must be ours, unless a
 * person ran the file. */
static int applied_version(ob_pg *st, int *version, outbox_error *err)
{
    int rc;
    PGresult *res = ob_pg_once(
        st, "SELECT version, checksum FROM \"outbox\".migration ORDER BY 1",
        NULL, "migrate", &rc, err);

    if (res == NULL)
        return rc;
    for (int i = 0; i < PQntuples(res) && rc == OUTBOX_OK; i++) {
        *version = ob_pg_get_int(res, i, 0);
        rc = ob_migration_check(pg_migrations, OB_PG_VERSION, *version,
                                PQgetvalue(res, i, 1), true, err);
    }
    PQclear(res);
    return rc;
}

/* A schema that is there may be another's, on whose database ours may make
 * none. */
static const char *without_schema(const char *sql)
{
    const char *at = strstr(sql, "CREATE SCHEMA");

    return strchr(at, ';') + 1;
}

static int apply(ob_pg *st, int version, uint32_t lanes, bool has_schema,
                 outbox_error *err)
{
    const char *sql = pg_migrations[version - 1];
    char note[300], sum[OB_SUM_TEXT];
    int rc;

    if (version == 1 && has_schema)
        sql = without_schema(sql);
    rc = ob_pg_exec(st, sql, "migrate", err);
    if (rc != OUTBOX_OK)
        return rc;
    OB_FAILPOINT("pg.migrate.mid");
    ob_migration_sum(pg_migrations[version - 1], sum);
    snprintf(note, sizeof note,
             "UPDATE \"outbox\".migration SET checksum = '%s'"
             " WHERE version = %d", sum, version);
    rc = ob_pg_exec(st, note, "migrate", err);
    if (rc != OUTBOX_OK || version != 1)
        return rc;
    snprintf(note, sizeof note, "UPDATE \"outbox\".meta SET lanes = %u",
             (unsigned)lanes);
    return ob_pg_exec(st, note, "migrate", err);
}

static int upgrade_tables(ob_pg *st, uint32_t lanes, outbox_error *err)
{
    bool has_schema = false, has_tables = false;
    int version = 0;
    int rc = exists(st, NULL, &has_schema, err);

    if (rc == OUTBOX_OK)
        rc = exists(st, "migration", &has_tables, err);
    if (rc == OUTBOX_OK && has_tables)
        rc = applied_version(st, &version, err);
    for (; rc == OUTBOX_OK && version < OB_PG_VERSION; version++)
        rc = apply(st, version + 1, lanes, has_schema, err);
    return rc;
}

/* Names in the file are found in pg_catalog, whatever the caller's path. */
static int migrate_lock(ob_pg *st, outbox_error *err)
{
    char sql[300];

    snprintf(sql, sizeof sql,
             "SET LOCAL search_path = pg_catalog;"
             "SET LOCAL statement_timeout = '%d';"
             "SET LOCAL lock_timeout = '%d';"
             "SET LOCAL client_min_messages = 'error';"
             "SELECT pg_advisory_xact_lock(%lld)", MIGRATE_MS, MIGRATE_MS,
             (long long)st->doorbell ^ 1);
    return ob_pg_exec(st, sql, "migrate", err);
}

/* Nothing is to be done, which a role that only publishes may hear, too: it
 * can read meta.  What is wrong is found again, and told, under the lock. */
static bool pg_is_current(ob_pg *st, outbox_error *err)
{
    bool has_tables;
    int version = 0;

    if (exists(st, "migration", &has_tables, err) != OUTBOX_OK || !has_tables)
        return false;
    int rc = applied_version(st, &version, err);
    if (rc == OUTBOX_OK)
        return version == OB_PG_VERSION;
    return strcmp(err->sqlstate, "42501") == 0 &&
           ob_pg_check(st, err) == OUTBOX_OK;
}

int ob_pg_migrate(outbox_store *s, uint32_t lanes, outbox_error *err)
{
    outbox_error why = { 0 };
    ob_pg *st = (ob_pg *)s;
    int rc = ob_pg_connected(st, err);

    if (rc == OUTBOX_OK)
        rc = ob_pg_ready(st, err);
    if (rc == OUTBOX_OK)
        rc = ob_pg_version_check(st, err);
    if (rc == OUTBOX_OK)
        rc = ob_pg_alone(st, err);
    if (rc != OUTBOX_OK)
        return rc;
    st->session->checked = false;
    if (pg_is_current(st, &why))
        return OUTBOX_OK;
    if (st->broken || PQstatus(st->conn) == CONNECTION_BAD) {
        if (err != NULL)
            *err = why;
        return why.code;
    }
    rc = ob_pg_begin(st, err);
    if (rc != OUTBOX_OK)
        return rc;
    st->deadline_ms = MIGRATE_MS;
    rc = migrate_lock(st, err);
    if (rc == OUTBOX_OK)
        rc = upgrade_tables(st, lanes, err);
    rc = ob_pg_end(st, rc, err);
    st->deadline_ms = OB_PG_DEADLINE_MS;
    return rc;
}

/* ---- checking ------------------------------------------------------- */

static uint64_t database_number(const ob_pg *st, const PGresult *res)
{
    struct { int64_t system, oid; char schema[sizeof st->schema]; } id;

    memset(&id, 0, sizeof id);
    id.system = ob_pg_get_int8(res, 0, 2);
    id.oid = ob_pg_get_int8(res, 0, 3);
    memcpy(id.schema, st->schema, strlen(st->schema));
    return outbox_hash(&id, sizeof id);
}

static PGresult *ask_tables(ob_pg *st, int *rc, outbox_error *err)
{
    ob_pg_params p = { 0 };

    ob_pg_text(&p, st->name);
    PGresult *res = ob_pg_run(st, PG_TABLES, &p, "find the tables", rc, err);
    if (res == NULL)
        return NULL;
    st->base.database = st->session->database = database_number(st, res);
    st->session->watched = ob_pg_get_bool(res, 0, 4);
    return res;
}

int ob_pg_identify(ob_pg *st, outbox_error *err)
{
    int rc;

    PQclear(ask_tables(st, &rc, err));
    return rc;
}

/* Before the tables are touched, for a transaction would not survive it. */
static int may_look(ob_pg *st, outbox_error *err)
{
    int rc;
    PGresult *res = ask_tables(st, &rc, err);

    if (res == NULL)
        return rc;
    if (!PQgetisnull(res, 0, 0) && !ob_pg_get_bool(res, 0, 0))
        rc = outbox_error_set(err, OUTBOX_EDB,
                              "permission denied: GRANT USAGE ON SCHEMA "
                              "%.70s", st->schema);
    else if (PQgetisnull(res, 0, 1))
        rc = outbox_error_set(err, OUTBOX_ESCHEMA,
                              "schema %.70s has no tables of ours: run "
                              "outbox_migrate()", st->schema);
    else if (!ob_pg_get_bool(res, 0, 1))
        rc = outbox_error_set(err, OUTBOX_EDB,
                              "permission denied: GRANT SELECT ON %.70s.meta, "
                              "and what else outbox_pg(3) lists", st->schema);
    if (rc == OUTBOX_EDB && err != NULL)
        memcpy(err->sqlstate, "42501", 6);
    PQclear(res);
    return rc;
}

static int meta_check(ob_pg *st, outbox_error *err)
{
    int version = 0, lanes = 0, rc;
    PGresult *res = ob_pg_run(st, PG_META, NULL, "check the tables", &rc,
                              err);

    if (res == NULL)
        return rc;
    if (PQntuples(res) == 1) {
        version = ob_pg_get_int(res, 0, 0);
        lanes = ob_pg_get_int(res, 0, 1);
    }
    PQclear(res);
    rc = ob_version_check(version, OB_PG_VERSION, err);
    if (rc == OUTBOX_OK)
        rc = ob_lanes_check(lanes, err);
    if (rc != OUTBOX_OK)
        return rc;
    st->session->lanes = (uint32_t)lanes;
    st->session->checked = true;
    return OUTBOX_OK;
}

int ob_pg_check(ob_pg *st, outbox_error *err)
{
    int rc = ob_pg_ready(st, err);

    if (rc == OUTBOX_OK && !st->session->checked) {
        rc = ob_pg_version_check(st, err);
        if (rc == OUTBOX_OK)
            rc = may_look(st, err);
        if (rc == OUTBOX_OK)
            rc = meta_check(st, err);
    }
    if (rc != OUTBOX_OK)
        return rc;
    st->lanes = st->session->lanes;
    st->base.database = st->session->database;
    return OUTBOX_OK;
}

/* ---- subscriptions -------------------------------------------------- */

static int find_row(ob_pg *st, outbox_subscription *sub, int64_t *keep_ms,
                    outbox_error *err)
{
    ob_pg_params p = { 0 };
    int rc;

    sub->sub = 0;
    ob_pg_text(&p, sub->name);
    PGresult *res = ob_pg_run(st, PG_FIND_SUB, &p, "find the subscription",
                              &rc, err);
    if (res == NULL)
        return rc;
    if (PQntuples(res) > 0) {
        sub->sub = ob_pg_get_int8(res, 0, 0);
        *keep_ms = ob_pg_get_int8(res, 0, 1);
        sub->paused = ob_pg_get_bool(res, 0, 2);
        sub->generation = ob_pg_get_int8(res, 0, 3);
    }
    PQclear(res);
    return OUTBOX_OK;
}

/* The row is there before the newest window is looked up: from then on nothing
 * past it is trimmed. */
static int add_row(ob_pg *st, outbox_subscription *sub, outbox_error *err)
{
    ob_pg_params p = { 0 }, lanes = { 0 };
    int rc;

    ob_pg_text(&p, sub->name);
    ob_pg_int8(&p, sub->keep_ms);
    PGresult *res = ob_pg_run(st, PG_ADD_SUB, &p, "add the subscription", &rc,
                              err);
    if (res == NULL)
        return rc;
    sub->sub = PQntuples(res) > 0 ? ob_pg_get_int8(res, 0, 0) : 0;
    PQclear(res);
    if (sub->sub == 0)
        return OUTBOX_OK;               /* another relay was first */
    ob_pg_int8(&lanes, sub->sub);
    ob_pg_int4(&lanes, (int)st->lanes);
    ob_pg_bool(&lanes, sub->start == OUTBOX_START_NOW);
    int64_t n = ob_pg_do(st, PG_ADD_LANES, &lanes, "add the lanes", err);
    return n < 0 ? (int)n : OUTBOX_OK;
}

static int keep_note(ob_pg *st, const outbox_subscription *sub,
                     outbox_error *err)
{
    ob_pg_params p = { 0 };

    ob_pg_int8(&p, sub->sub);
    ob_pg_int8(&p, sub->keep_ms);
    int64_t n = ob_pg_do(st, PG_KEEP_SUB, &p, "note keep_ms", err);
    return n < 0 ? (int)n : OUTBOX_OK;
}

/* A window is cut in a transaction of its own, so it cannot be done later. */
static int subscribe_to(ob_pg *st, outbox_subscription *sub,
                        outbox_error *err)
{
    int64_t keep_ms = 0;
    int rc = OUTBOX_OK;

    if (sub->sub == 0 && sub->start == OUTBOX_START_NOW)
        rc = ob_pg_window_cut(st, err);
    if (rc == OUTBOX_OK)
        rc = ob_pg_begin(st, err);
    if (rc != OUTBOX_OK)
        return rc;
    if (sub->sub == 0)
        rc = add_row(st, sub, err);
    else
        rc = keep_note(st, sub, err);
    rc = ob_pg_end(st, rc, err);
    return rc == OUTBOX_OK ? find_row(st, sub, &keep_ms, err) : rc;
}

/* Is this a server that a relay can work on, and is the log its own? */
static int server_check(ob_pg *st, outbox_error *err)
{
    int rc;
    PGresult *res = ob_pg_run(st, PG_ATTACH, NULL, "attach", &rc, err);

    if (res == NULL)
        return rc;
    bool moved = ob_pg_get_int8(res, 0, 0) != ob_pg_get_int8(res, 0, 1);
    bool standby = ob_pg_get_bool(res, 0, 2);
    int64_t cache = ob_pg_get_int8(res, 0, 3);
    PQclear(res);
    if (standby) {
        st->broken = true;              /* it may be promoted */
        return outbox_error_set(err, OUTBOX_EREADONLY,
                                "the server is a standby: a relay works on "
                                "the primary");
    }
    if (cache != 1)
        return outbox_error_set(err, OUTBOX_ESCHEMA,
                                "the sequence %.70s.position has CACHE %lld, "
                                "which breaks the order of events: ALTER "
                                "SEQUENCE ... CACHE 1", st->schema,
                                (long long)cache);
    return moved ? ob_pg_rebase(st, err) : OUTBOX_OK;
}

int ob_pg_attach(outbox_store *s, outbox_subscription *sub,
                 outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    int64_t keep_ms = 0;
    int rc = ob_pg_connected(st, err);

    if (rc == OUTBOX_OK)
        rc = ob_pg_ready(st, err);
    if (rc != OUTBOX_OK)
        return rc;
    st->session->checked = false;
    rc = ob_pg_check(st, err);
    if (rc == OUTBOX_OK)
        rc = server_check(st, err);
    if (rc == OUTBOX_OK)
        rc = find_row(st, sub, &keep_ms, err);
    if (rc == OUTBOX_OK && sub->sub == 0 && !sub->create)
        return outbox_error_set(err, OUTBOX_ENOENT,
                                "the subscription %.100s was removed",
                                sub->name);
    if (rc == OUTBOX_OK && (sub->sub == 0 || keep_ms != sub->keep_ms))
        rc = subscribe_to(st, sub, err);
    sub->lanes = st->lanes;
    return rc;
}

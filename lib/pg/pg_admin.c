/* SPDX-License-Identifier: MIT
 *
 * pg_admin.c - what people do to subscriptions, each in one transaction.
 *
 * Rare statements are not prepared.
 */
#include "pg_store.h"

#include <stdlib.h>

enum { ADMIN_MS = 60000 };

/* Parameters are the subscription, then an id (or NULL) and a number for
 * those that take them. */
typedef struct pg_admin_sql {
    const char *sql;
    bool        id, value, counts;      /* its rows are what is returned */
} pg_admin_sql;

/* The last to die comes first to the head, so that the first ends up there. */
static const pg_admin_sql pg_revive_sql[] = {
    { .sql = "WITH d AS (DELETE FROM \"outbox\".dead WHERE sub = $1"
      " AND ($2::uuid IS NULL OR id = $2) RETURNING *)"
      " INSERT INTO \"outbox\".parked (sub, lane, chain, seq, \"window\","
      " position, id, topic, type, key, content_type, headers, payload,"
      " published_ms, expires_ms, attempts, delay_ms, why)"
      " SELECT d.sub, d.lane, d.chain, (SELECT coalesce(min(p.seq),"
      " 4294967296) FROM \"outbox\".parked p WHERE p.sub = d.sub"
      " AND p.lane = d.lane AND p.chain = d.chain)"
      " - row_number() OVER (PARTITION BY d.chain ORDER BY d.seq DESC),"
      " d.\"window\", d.position, d.id, d.topic, d.type, d.key,"
      " d.content_type, d.headers, d.payload, d.published_ms, d.expires_ms,"
      " 0, 0, d.why FROM d", .id = true, .counts = true },
    { .sql = "UPDATE \"outbox\".subscription SET generation = generation + 1"
      " WHERE sub = $1" },
    { .sql = NULL },
};

#define PG_FORGET_PASSED \
    "DELETE FROM \"outbox\".discarded d WHERE sub = $1" \
    " AND (d.\"window\", d.position) <= (SELECT c.\"window\", c.position" \
    " FROM " PG_CURSOR("d.sub", "d.lane") " c)"

/* Of those that the cursor has not passed yet a row remains that says so. */
static const pg_admin_sql pg_discard_sql[] = {
    { .sql = PG_FORGET_PASSED },
    { .sql = "INSERT INTO \"outbox\".discarded (sub, lane, \"window\","
      " position, id) SELECT d.sub, d.lane, d.\"window\", d.position, d.id"
      " FROM \"outbox\".dead d LEFT JOIN LATERAL "
      PG_CURSOR("d.sub", "d.lane") " c ON true WHERE d.sub = $1"
      " AND ($2::uuid IS NULL OR d.id = $2) AND (d.\"window\", d.position) >"
      " (coalesce(c.\"window\", 0), coalesce(c.position, 0))"
      " ON CONFLICT DO NOTHING", .id = true },
    { .sql = "DELETE FROM \"outbox\".dead WHERE sub = $1"
      " AND ($2::uuid IS NULL OR id = $2)", .id = true, .counts = true },
    { .sql = "UPDATE \"outbox\".subscription SET generation = generation + 1"
      " WHERE sub = $1" },
    { .sql = NULL },
};

static const pg_admin_sql pg_pause_sql[] = {
    { .sql = "UPDATE \"outbox\".subscription SET paused = $2::bigint <> 0"
      " WHERE sub = $1", .value = true, .counts = true },
    { .sql = NULL },
};

/* The cursor goes to before the first event that is wanted.  The lanes lose
 * their owners, so that nobody saves an older idea of the cursor over it.
 * The subscription's row is locked against whoever trims meanwhile, and the
 * lanes before their cursors are looked at. */
static const pg_admin_sql pg_replay_sql[] = {
    { .sql = "UPDATE \"outbox\".subscription SET paused = paused"
      " WHERE sub = $1" },
    { .sql = "SELECT FROM \"outbox\".lane WHERE sub = $1 ORDER BY lane"
      " FOR UPDATE" },
    { .sql = PG_FORGET_PASSED },
    { .sql = "WITH f AS MATERIALIZED (SELECT w.n, l.position"
      " FROM \"outbox\".\"window\" w"
      " JOIN \"outbox\".\"window\" p ON p.n = w.n - 1 CROSS JOIN LATERAL "
      PG_BETWEEN("p.hi", "w.hi") " l WHERE l.published_ms >= $2"
      " ORDER BY w.n, l.position LIMIT 1),"
      " t AS (UPDATE \"outbox\".lane l SET owner = NULL, token = token + 1,"
      " crashes = 0, trying = NULL FROM f WHERE l.sub = $1 AND EXISTS"
      " (SELECT FROM " PG_CURSOR("$1", "l.lane") " c"
      " WHERE (c.\"window\", c.position) >= (f.n, f.position))"
      " RETURNING l.lane, l.token)"
      " INSERT INTO \"outbox\".ack (aseg, sub, lane, token, \"window\","
      " position) SELECT m.ack_seg, $1, t.lane, t.token, f.n, f.position - 1"
      " FROM t, f, \"outbox\".meta m", .value = true, .counts = true },
    { .sql = NULL },
};

/* Its cursors are left behind at the next rotation. */
static const pg_admin_sql pg_unsubscribe_sql[] = {
    { .sql = "DELETE FROM \"outbox\".subscription WHERE sub = $1",
      .counts = true },
    { .sql = "DELETE FROM \"outbox\".lane WHERE sub = $1" },
    { .sql = "DELETE FROM \"outbox\".relay WHERE sub = $1" },
    { .sql = "DELETE FROM \"outbox\".parked WHERE sub = $1" },
    { .sql = "DELETE FROM \"outbox\".dead WHERE sub = $1" },
    { .sql = "DELETE FROM \"outbox\".discarded WHERE sub = $1" },
    { .sql = NULL },
};

static const pg_admin_sql *const admin_lists[] = {
    [OUTBOX_ADMIN_REVIVE] = pg_revive_sql,
    [OUTBOX_ADMIN_DISCARD] = pg_discard_sql,
    [OUTBOX_ADMIN_PAUSE] = pg_pause_sql,
    [OUTBOX_ADMIN_REPLAY] = pg_replay_sql,
    [OUTBOX_ADMIN_UNSUBSCRIBE] = pg_unsubscribe_sql,
};

/* Rows that it changed. */
static int admin_one(ob_pg *st, const pg_admin_sql *what, int64_t sub,
                     const outbox_admin_arg *arg, outbox_error *err)
{
    ob_pg_params p = { 0 };
    int rc;

    ob_pg_int8(&p, sub);
    if (what->id && arg->id != NULL)
        ob_pg_uuid(&p, arg->id);
    else if (what->id)
        ob_pg_null(&p);
    if (what->value)
        ob_pg_int8(&p, arg->value);
    PGresult *res = ob_pg_once(st, what->sql, &p, "administer", &rc, err);
    if (res == NULL)
        return rc;
    rc = (int)strtol(PQcmdTuples(res), NULL, 10);
    PQclear(res);
    return rc;
}

int ob_pg_admin(outbox_store *s, int64_t sub, enum outbox_admin what,
                const outbox_admin_arg *arg, outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    int n = 0, rc = ob_pg_begin(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    st->deadline_ms = ADMIN_MS;
    for (const pg_admin_sql *one = admin_lists[what];
         one->sql != NULL && rc >= 0; one++) {
        rc = admin_one(st, one, sub, arg, err);
        if (one->counts)
            n = rc;
    }
    rc = ob_pg_end(st, rc < 0 ? rc : n, err);
    st->deadline_ms = OB_PG_DEADLINE_MS;
    return rc;
}

int ob_pg_find(outbox_store *s, const char *name, int64_t *sub,
               outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    ob_pg_params p = { 0 };
    int rc = ob_pg_connected(st, err);

    if (rc == OUTBOX_OK)
        rc = ob_pg_check(st, err);
    if (rc == OUTBOX_OK)                /* all of them come by here */
        rc = ob_pg_encoding(st, err);
    if (rc != OUTBOX_OK)
        return rc;
    ob_pg_text(&p, name);
    PGresult *res = ob_pg_run(st, PG_FIND_SUB, &p, "find the subscription",
                              &rc, err);
    if (res == NULL)
        return rc;
    if (PQntuples(res) > 0)
        *sub = ob_pg_get_int8(res, 0, 0);
    else
        rc = outbox_error_set(err, OUTBOX_ENOENT,
                              "there is no subscription %.100s", name);
    PQclear(res);
    return rc;
}

static const char pg_dead_sql[] =
    "SELECT \"window\", " PG_ROW ", chain, attempts, why, died_ms"
    " FROM \"outbox\".dead WHERE sub = $1 ORDER BY seq LIMIT $2::integer";

int ob_pg_dead(outbox_store *s, int64_t sub, int limit, outbox_sink *sink,
               void *arg, outbox_error *err)
{
    ob_pg_params p = { 0 };
    outbox_row row;
    int n = 0, rc;

    ob_pg_int8(&p, sub);
    ob_pg_int4(&p, limit);
    PGresult *res = ob_pg_once((ob_pg *)s, pg_dead_sql, &p, "read dead events",
                               &rc, err);
    if (res == NULL)
        return rc;
    for (; n < PQntuples(res); n++) {
        ob_pg_row(res, n, &row);
        row.chain = (uint64_t)ob_pg_get_int8(res, n, 12);
        row.attempts = (uint32_t)ob_pg_get_int(res, n, 13);
        row.why = ob_pg_get_bytes(res, n, 14).ptr;
        row.died_ms = ob_pg_get_int8(res, n, 15);
        if (sink(arg, &row) != 0)
            break;
    }
    PQclear(res);
    return n;
}

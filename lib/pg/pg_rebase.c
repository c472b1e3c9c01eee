/* SPDX-License-Identifier: MIT
 *
 * pg_rebase.c - what becomes of a log that was moved to another cluster.
 *
 * Transaction numbers of another cluster mean nothing here; those below the
 * first that this one has given mean "ended" to every snapshot.  So the log
 * is renumbered in the order of positions, in pieces of the size of a window
 * as long as there are numbers, and is read from its beginning: nothing is
 * lost, some events come again (tests/pg/restore.c:
 * dumped_into_another_cluster, upgraded_to_another_cluster,
 * another_system_identifier).
 */
#include "pg_store.h"

/* No temporary table is made, for a role may not be allowed to; and no plan
 * joins all rows with all. */
static const char rebase_sql[] =
    "SET LOCAL enable_seqscan = on; SET LOCAL enable_nestloop = off;"
    "LOCK TABLE \"outbox\".meta, \"outbox\".\"window\","
    " \"outbox\".subscription IN EXCLUSIVE MODE;"
    "LOCK TABLE \"outbox\".lane IN EXCLUSIVE MODE;"
    "DELETE FROM \"outbox\".\"window\" USING \"outbox\".meta m,"
    " pg_control_system() s WHERE m.system <> s.system_identifier;"
    "WITH r AS MATERIALIZED (SELECT l.tableoid AS t, l.ctid AS c,"
    " (row_number() OVER (ORDER BY position) - 1) / greatest(4096, count(*)"
    " OVER () / (pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 5)"
    " + 1) AS n FROM \"outbox\".log l, \"outbox\".meta m,"
    " pg_control_system() s WHERE m.system <> s.system_identifier),"
    " u AS (UPDATE \"outbox\".log l SET tick = NULL,"
    " xid = ((3 + r.n)::text)::xid8 FROM r"
    " WHERE l.tableoid = r.t AND l.ctid = r.c)"
    " INSERT INTO \"outbox\".\"window\" (n, hi) SELECT n, CASE n WHEN 0"
    " THEN '1:1:' ELSE (3 + n) || ':' || (3 + n) || ':' END::pg_snapshot"
    " FROM \"outbox\".meta m, pg_control_system() s, generate_series(0,"
    " coalesce((SELECT max(n) + 1 FROM r), 0)) n"
    " WHERE m.system <> s.system_identifier;"
    "UPDATE \"outbox\".lane SET owner = NULL, token = token + 1, crashes = 0"
    " FROM \"outbox\".meta m, pg_control_system() s"
    " WHERE m.system <> s.system_identifier;"
    "INSERT INTO \"outbox\".ack (aseg, sub, lane, token, \"window\","
    " position) SELECT m.ack_seg, l.sub, l.lane, l.token, 0, 0"
    " FROM \"outbox\".lane l, \"outbox\".meta m, pg_control_system() s"
    " WHERE m.system <> s.system_identifier;"
    "UPDATE \"outbox\".meta SET system = s.system_identifier"
    " FROM pg_control_system() s WHERE system <> s.system_identifier";

enum { REBASE_MS = 3600000 };

int ob_pg_rebase(ob_pg *st, outbox_error *err)
{
    int rc = ob_pg_begin(st, err);

    if (rc != OUTBOX_OK)
        return rc;
    st->deadline_ms = REBASE_MS;
    ob_pg_windows_forget(st);
    rc = ob_pg_exec(st, "SET LOCAL statement_timeout = 0;"
                    "SET LOCAL lock_timeout = 0", "rebase", err);
    if (rc == OUTBOX_OK)
        rc = ob_pg_exec(st, rebase_sql, "rebase", err);
    rc = ob_pg_end(st, rc, err);
    st->deadline_ms = OB_PG_DEADLINE_MS;
    return rc;
}

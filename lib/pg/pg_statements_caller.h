/* SPDX-License-Identifier: MIT
 *
 * pg_statements_caller.h - statements on the caller's connection, and those
 * with which a handle finds its tables.
 *
 * Functions, types and operators are qualified: the caller's search_path is
 * not ours.  unnest() of many is the parser's own.
 */

#define PG_EQ " OPERATOR(pg_catalog.=) "

#define PG_NOW_MS \
    "(extract(epoch FROM pg_catalog.clock_timestamp())" \
    " OPERATOR(pg_catalog.*) 1000)::bigint"

/* Cannot fail, so that the caller's transaction outlives the answer.  The last
 * column: there is a trigger or rule on what a publisher writes. */
OB_PG_STATEMENT(PG_TABLES,
    "SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE'),"
    " pg_catalog.has_table_privilege(c.oid, 'SELECT'),"
    " s.system_identifier, (SELECT d.oid::bigint"
    " FROM pg_catalog.pg_database d"
    " WHERE d.datname" PG_EQ "pg_catalog.current_database()),"
    " (SELECT pg_catalog.bool_or(w.relhastriggers OR w.relhasrules)"
    " FROM pg_catalog.pg_class w WHERE w.relnamespace" PG_EQ "n.oid"
    " AND w.relname" PG_EQ "ANY ('{log, log_0, log_1, log_2, log_3,"
    " scheduled, dedup}'::pg_catalog.name[]))"
    " FROM pg_catalog.pg_control_system() s"
    " LEFT JOIN pg_catalog.pg_namespace n"
    " ON n.nspname" PG_EQ "$1::pg_catalog.text"
    " LEFT JOIN pg_catalog.pg_class c"
    " ON c.relnamespace" PG_EQ "n.oid AND c.relname" PG_EQ "'meta'")

OB_PG_STATEMENT(PG_META, "SELECT version, lanes FROM \"outbox\".meta")

/* value, and the bell: relays that sleep hold the lock (see pg_wait.c).  It is
 * given back at once, so that a long transaction keeps none from sleeping.  A
 * key that is NULL: it is never rung.  It hides behind a value because a list
 * of RETURNING would cost a publisher as much again. */
#define PG_BELL(key, channel, value) \
    "CASE WHEN " key "::pg_catalog.int8 IS NULL THEN " value \
    " WHEN pg_catalog.pg_try_advisory_lock(" key ") THEN" \
    " CASE WHEN pg_catalog.pg_advisory_unlock(" key ")" \
    " THEN " value " ELSE " value " END" \
    " WHEN pg_catalog.pg_notify(" channel ", '') IS NULL" \
    " THEN " value " ELSE " value " END"
/* The segment that is written now; the bell rings once for all rows.  Without
 * $12 lanes it is none, and the server refuses the rows: the tables are not
 * those that were looked at. */
#define PG_SEG_NOW \
    "(SELECT " PG_BELL("$10", "$11", "seg") " FROM \"outbox\".meta" \
    " WHERE lanes" PG_EQ "$12)"

#define PG_EVENT \
    "lane, id, topic, type, key, content_type, headers, payload, expires_ms"

#define PG_EVENT_ARRAYS \
    "$1::smallint[], $2::pg_catalog.uuid[], $3::pg_catalog.text[]," \
    " $4::pg_catalog.text[], $5::pg_catalog.text[], $6::pg_catalog.text[]," \
    " $7::pg_catalog.text[], $8::pg_catalog.bytea[], $9::bigint[]"

/* Tells the segment, for those that follow; not by RETURNING seg, for which
 * a publisher would have to be allowed to read the log. */
OB_PG_STATEMENT(PG_APPEND,
    "WITH put AS (INSERT INTO \"outbox\".log (seg, " PG_EVENT ") VALUES"
    " (" PG_SEG_NOW ", $1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING 1)"
    " SELECT seg FROM \"outbox\".meta, put")

/* Into a segment that is known: no routing to a partition, and no look at
 * meta, which together cost a third of the whole. */
#define PG_APPEND_TO(seg) \
    "INSERT INTO \"outbox\".log_" seg " (seg, " PG_EVENT ") VALUES" \
    " (" PG_BELL("$10", "$11", seg) ", $1, $2, $3, $4, $5, $6, $7, $8, $9)"
OB_PG_STATEMENT(PG_APPEND_0, PG_APPEND_TO("0"))
OB_PG_STATEMENT(PG_APPEND_1, PG_APPEND_TO("1"))
OB_PG_STATEMENT(PG_APPEND_2, PG_APPEND_TO("2"))
OB_PG_STATEMENT(PG_APPEND_3, PG_APPEND_TO("3"))

/* Arrays keep their order; numbers are given as the rows come. */
OB_PG_STATEMENT(PG_APPEND_MANY,
    "INSERT INTO \"outbox\".log (seg, " PG_EVENT ")"
    " SELECT " PG_SEG_NOW ", * FROM unnest(" PG_EVENT_ARRAYS ")")

/* With keys to claim ($13) and times to wait for ($14).  Of a key that comes
 * twice the first event counts.  Keys are claimed in their own order, or two
 * publishers could wait for each other.  Tells which of the rows are in, and
 * how many were written. */
OB_PG_STATEMENT(PG_APPEND_RARE,
    "WITH given AS MATERIALIZED (SELECT *, " PG_NOW_MS " AS now_ms FROM"
    " unnest(" PG_EVENT_ARRAYS ", $13::pg_catalog.text[], $14::bigint[])"
    " WITH ORDINALITY AS g (" PG_EVENT ", dedup_key, due_ms, n)),"
    " first AS MATERIALIZED (SELECT DISTINCT ON (dedup_key) dedup_key, n"
    " FROM given WHERE dedup_key IS NOT NULL ORDER BY dedup_key, n),"
    " claimed AS (INSERT INTO \"outbox\".dedup (dedup_key)"
    " SELECT dedup_key FROM first ORDER BY 1"
    " ON CONFLICT DO NOTHING RETURNING dedup_key),"
    " fresh AS MATERIALIZED (SELECT *,"
    " coalesce(due_ms OPERATOR(pg_catalog.>) now_ms, false) AS waits"
    " FROM given WHERE dedup_key IS NULL OR"
    " (n" PG_EQ "ANY (SELECT n FROM first) AND"
    " dedup_key" PG_EQ "ANY (SELECT dedup_key FROM claimed))),"
    " logged AS (INSERT INTO \"outbox\".log (seg, " PG_EVENT ")"
    " SELECT " PG_SEG_NOW ", " PG_EVENT
    " FROM fresh WHERE NOT waits ORDER BY n RETURNING 1),"
    " waiting AS (INSERT INTO \"outbox\".scheduled (due_ms, " PG_EVENT ")"
    " SELECT due_ms, " PG_EVENT " FROM fresh WHERE waits ORDER BY n"
    " RETURNING (SELECT " PG_BELL("$10", "$11", "1") "))"
    " SELECT n, (SELECT pg_catalog.count(*) FROM logged)"
    " OPERATOR(pg_catalog.+) (SELECT pg_catalog.count(*) FROM waiting)"
    " FROM fresh")

OB_PG_STATEMENT(PG_LOCK_KEYS,
    "SELECT pg_catalog.pg_advisory_xact_lock(k)"
    " FROM pg_catalog.unnest($1::bigint[]) k")

OB_PG_STATEMENT(PG_COMMIT, "COMMIT")

/* Not yet passed by every subscription, but no more than $1: it stops
 * counting there.  A lane's cursor is (window, position): past are the windows
 * before it, and what has up to that position in it.  The planner takes a
 * range with two ends that it does not know for a small one, and so reads it
 * by its index: delivered events that are kept must not be looked at. */
#define PG_AT_WINDOW(n) \
    "(SELECT w.hi FROM \"outbox\".\"window\" w WHERE w.n" PG_EQ n ")"
#define PG_SEEN(snapshot) \
    "coalesce(pg_catalog.pg_visible_in_snapshot(e.xid, " snapshot "), false)"
#define PG_XIDS(first, last) \
    "(SELECT lane, xid, position FROM \"outbox\".log WHERE xid" \
    " OPERATOR(pg_catalog.>=) " first \
    " AND xid OPERATOR(pg_catalog.<=) " last ")"
OB_PG_STATEMENT(PG_BACKLOG,
    "WITH cursors AS MATERIALIZED (SELECT l.lane,"
    " coalesce(a.\"window\", 0) AS n, coalesce(a.position, 0) AS position"
    " FROM \"outbox\".lane l LEFT JOIN LATERAL (SELECT \"window\", position"
    " FROM \"outbox\".ack a WHERE a.sub" PG_EQ "l.sub AND a.lane" PG_EQ
    "l.lane ORDER BY seq DESC LIMIT 1) a ON true),"
    " last AS MATERIALIZED (SELECT c.lane, c.position, "
    PG_AT_WINDOW("c.n") " AS hi, "
    PG_AT_WINDOW("(c.n OPERATOR(pg_catalog.-) 1)") " AS lo"
    " FROM (SELECT DISTINCT ON (lane) * FROM cursors"
    " ORDER BY lane, n, position) c),"
    " least AS MATERIALIZED (SELECT pg_catalog.pg_snapshot_xmax("
    " coalesce(lo, '1:1:'::pg_catalog.pg_snapshot)) AS xid FROM last"
    " ORDER BY 1 LIMIT 1),"
    " late AS MATERIALIZED (SELECT DISTINCT x FROM last,"
    " pg_catalog.pg_snapshot_xip(lo) x"
    " WHERE x OPERATOR(pg_catalog.<) (SELECT xid FROM least))"
    " SELECT (SELECT pg_catalog.count(*) FROM (SELECT 1 FROM (SELECT r.*"
    " FROM " PG_XIDS("coalesce((SELECT xid FROM least),"
                     " '0'::pg_catalog.xid8)",
                     "(SELECT '18446744073709551615'::pg_catalog.xid8)") " r"
    " UNION ALL SELECT r.* FROM late, LATERAL " PG_XIDS("x", "x") " r) e"
    " LEFT JOIN last l ON l.lane" PG_EQ "e.lane"
    " WHERE NOT " PG_SEEN("l.lo") " AND NOT (" PG_SEEN("l.hi")
    " AND e.position OPERATOR(pg_catalog.<=) l.position) LIMIT $1) x)"
    " OPERATOR(pg_catalog.+) (SELECT pg_catalog.count(*) FROM"
    " (SELECT 1 FROM \"outbox\".scheduled LIMIT $1) y)")

/* An effect that the broker will think was had must survive a crash: with a
 * mark in it, the transaction commits synchronously. */
OB_PG_STATEMENT(PG_ACCEPT,
    "INSERT INTO \"outbox\".inbox (consumer, id, is_uuid) SELECT $1, $2, $3"
    " WHERE CASE WHEN pg_catalog.current_setting('synchronous_commit')"
    PG_EQ "'off' THEN"
    " pg_catalog.set_config('synchronous_commit', 'on', true)" PG_EQ "'on'"
    " ELSE true END ON CONFLICT DO NOTHING")

OB_PG_STATEMENT(PG_PRUNE,
    "DELETE FROM \"outbox\".inbox WHERE ctid" PG_EQ "ANY (ARRAY(SELECT ctid"
    " FROM \"outbox\".inbox WHERE accepted_ms OPERATOR(pg_catalog.<) ("
    PG_NOW_MS " OPERATOR(pg_catalog.-) $1) ORDER BY accepted_ms LIMIT $2))")

/* ---- attaching ------------------------------------------------------ */

/* Of the connection's own server, and of the tables that it has. */
OB_PG_STATEMENT(PG_ATTACH,
    "SELECT m.system, s.system_identifier, pg_catalog.pg_is_in_recovery(),"
    " (SELECT q.seqcache FROM pg_catalog.pg_sequence q"
    " WHERE q.seqrelid = '\"outbox\".position'::pg_catalog.regclass)"
    " FROM \"outbox\".meta m, pg_catalog.pg_control_system() s")

OB_PG_STATEMENT(PG_FIND_SUB,
    "SELECT sub, keep_ms, paused, generation FROM \"outbox\".subscription"
    " WHERE name = $1")

OB_PG_STATEMENT(PG_ADD_SUB,
    "INSERT INTO \"outbox\".subscription (name, keep_ms) VALUES ($1, $2)"
    " ON CONFLICT DO NOTHING RETURNING sub")

OB_PG_STATEMENT(PG_KEEP_SUB,
    "UPDATE \"outbox\".subscription SET keep_ms = $2 WHERE sub = $1")

/* $3: begin behind the newest window. */
OB_PG_STATEMENT(PG_ADD_LANES,
    "WITH lanes AS (INSERT INTO \"outbox\".lane (sub, lane)"
    " SELECT $1, n FROM pg_catalog.generate_series(0, $2::integer - 1) n"
    " RETURNING lane)"
    " INSERT INTO \"outbox\".ack (aseg, sub, lane, token, \"window\","
    " position) SELECT m.ack_seg, $1::bigint, l.lane, 0,"
    " CASE WHEN $3::boolean THEN"
    " (SELECT pg_catalog.max(n) FROM \"outbox\".\"window\")"
    " ELSE 0 END, CASE WHEN $3 THEN 9223372036854775807 ELSE 0 END"
    " FROM lanes l, \"outbox\".meta m")

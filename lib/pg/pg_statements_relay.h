/* SPDX-License-Identifier: MIT
 *
 * pg_statements_relay.h - statements of the relay's own connection.  An event
 * is always the ten columns of PG_COLUMNS.
 */
#define PG_COLUMNS \
    "position, id, topic, type, key, content_type, headers, payload," \
    " published_ms, expires_ms"
#define PG_ROW PG_COLUMNS ", lane"
/* Many rows at once must not be many GB: long payloads come as NULL. */
#define PG_SHORT(payload) \
    "CASE WHEN octet_length(" payload ") <= 16384 THEN " payload " END"
#define PG_COLUMNS_OF_L(payload) \
    "l.position, l.id, l.topic, l.type, l.key, l.content_type, " \
    "l.headers, " payload ", l.published_ms, l.expires_ms"

/* Where a lane's cursor is: the newest row. */
#define PG_CURSOR(sub, lane) \
    "(SELECT a.\"window\", a.position FROM \"outbox\".ack a" \
    " WHERE a.sub = " sub " AND a.lane = " lane \
    " ORDER BY a.seq DESC LIMIT 1)"

/* The rows that are visible in one snapshot and not in an older one; the
 * second half lists transactions that were running then and are not now.
 * The upper bound only spares a look at what is newer. */
#define PG_BETWEEN(lo, hi) \
    "(SELECT xid, " PG_ROW " FROM \"outbox\".log" \
    " WHERE xid >= pg_snapshot_xmax(" lo ")" \
    " AND xid < pg_snapshot_xmax(" hi ")" \
    " AND pg_visible_in_snapshot(xid, " hi ")" \
    " UNION ALL SELECT xid, " PG_ROW \
    " FROM \"outbox\".log WHERE xid = ANY (ARRAY(" \
    "SELECT x FROM pg_snapshot_xip(" lo ") x" \
    " WHERE pg_visible_in_snapshot(x, " hi "))))"

/* A window must not become visible before its events are durable.  When
 * nothing is left to be flushed they are, and this commit need not be; else
 * it is flushed, and they with it. */
#define PG_LAZY_IF_FLUSHED \
    " coalesce(CASE WHEN pg_current_wal_flush_lsn() >=" \
    " pg_current_wal_insert_lsn() THEN" \
    " set_config('synchronous_commit', 'off', true) END, '') IS NOT NULL"

/* ---- windows -------------------------------------------------------- */

OB_PG_STATEMENT(PG_WINDOWS,
    "SELECT coalesce(min(n), -1), coalesce(max(n), -1),"
    " coalesce(max(tick), 0) FROM \"outbox\".\"window\"")
/* $1 the newest window known, $2 ticks are known up to this position, $3 a
 * bit for each lane, $4 rows at most, $5 cut even when there is no event.
 * Always one row at least: the newest window, whether there are ticks, whether
 * another relay has just cut, and whether there are $4 rows, of any lane. */
OB_PG_STATEMENT(PG_CUT,
    "WITH h AS MATERIALIZED (SELECT n, hi, tick FROM \"outbox\".\"window\""
    " ORDER BY n DESC LIMIT 1), t AS MATERIALIZED (SELECT EXISTS (SELECT"
    " FROM \"outbox\".log WHERE tick IS NOT NULL AND position > $2"
    ") AS ticks), l AS MATERIALIZED (SELECT l.* FROM h, t, LATERAL "
    PG_BETWEEN("h.hi", "pg_current_snapshot()") " l"
    " WHERE h.n = $1 AND NOT t.ticks LIMIT $4),"
    " d AS MATERIALIZED (SELECT h.n FROM h, t"
    " WHERE h.n = $1 AND NOT t.ticks AND ($5 OR EXISTS (SELECT FROM l))),"
    " c AS (INSERT INTO \"outbox\".\"window\" (n, hi, tick) SELECT d.n + 1,"
    " pg_current_snapshot(), $2 FROM d WHERE" PG_LAZY_IF_FLUSHED
    " ON CONFLICT DO NOTHING RETURNING n)"
    " SELECT " PG_COLUMNS_OF_L(PG_SHORT("l.payload")) ", c.n, h.n, h.tick,"
    " t.ticks, d.n IS NOT NULL AND c.n IS NULL,"
    " (SELECT count(*) FROM l) >= $4::bigint"
    " FROM h CROSS JOIN t LEFT JOIN d ON true LEFT JOIN c ON true"
    " LEFT JOIN l ON c.n IS NOT NULL AND (1::bigint << l.lane) & $3 <> 0")
/* The snapshots that publishers took on the way, each without its own
 * transaction, in the order of how many transactions had ended: a long
 * backlog is cut by them.  $1 as $2 above.  All of these windows or none:
 * who has the first has all. */
OB_PG_STATEMENT(PG_TICKS,
    "WITH h AS MATERIALIZED (SELECT n, pg_snapshot_xmax(hi)::text::bigint"
    " - (SELECT count(*) FROM pg_snapshot_xip(hi)) AS rank"
    " FROM \"outbox\".\"window\" ORDER BY n DESC LIMIT 1),"
    " t AS MATERIALIZED (SELECT position, xid, tick FROM \"outbox\".log"
    " WHERE tick IS NOT NULL AND position > $1 ORDER BY position LIMIT 1000),"
    " x AS (SELECT pg_snapshot_xmax(t.tick)::text::bigint AS most, a.n,"
    " a.least, a.list FROM t, LATERAL (SELECT count(*) AS n, min(x) AS least,"
    " string_agg(x::text, ',' ORDER BY x) AS list FROM (SELECT"
    " x::text::bigint AS x FROM pg_snapshot_xip(t.tick) x UNION SELECT"
    " t.xid::text::bigint WHERE t.xid < pg_snapshot_xmax(t.tick)) u) a),"
    " s AS MATERIALIZED (SELECT DISTINCT ON (most - x.n) most - x.n AS rank,"
    " (coalesce(least, most) || ':' || most || ':' || coalesce(list, ''))"
    "::pg_snapshot AS hi FROM x, h WHERE most - x.n > h.rank),"
    " w AS MATERIALIZED (SELECT h.n + row_number() OVER (ORDER BY s.rank)"
    " AS n, s.hi, (SELECT max(position) FROM t) AS tick FROM s, h),"
    " f AS (INSERT INTO \"outbox\".\"window\" (n, hi, tick) SELECT w.n,"
    " w.hi, w.tick FROM w, h WHERE w.n = h.n + 1 AND" PG_LAZY_IF_FLUSHED
    " ON CONFLICT DO NOTHING RETURNING n),"
    " i AS (INSERT INTO \"outbox\".\"window\" (n, hi, tick) SELECT w.n, w.hi,"
    " w.tick FROM w, h WHERE w.n > h.n + 1 AND EXISTS (SELECT FROM f)"
    " RETURNING n)"
    " SELECT coalesce((SELECT max(position) FROM t), $1), (SELECT count(*)"
    " FROM w), (SELECT count(*) FROM f), (SELECT n FROM h)")
/* Events of window $1 behind position $2, $3 rows at most; $4 is a bit for
 * each lane, or -1 for all.  What holds for all rows is not looked at in each
 * of them: this is what the speed of a relay depends on.  So those of
 * transactions that had all ended are read by the index alone. */
#define PG_LANES(lane) \
    "($4::bigint = -1 OR (1::bigint << " lane ") & $4 <> 0)"
#define PG_WINDOW_HI(n) \
    "(SELECT hi FROM \"outbox\".\"window\" WHERE n = " n ")"
#define PG_OF_HI(f, n) "(SELECT " f "(" PG_WINDOW_HI(n) "))"
#define PG_VISIBLE_IN_HI(xid) \
    "pg_visible_in_snapshot(" xid ", " PG_WINDOW_HI("$1") ")"
#define PG_SINCE_LO \
    "xid >= " PG_OF_HI("pg_snapshot_xmax", "$1::bigint - 1")
#define PG_EARLIER \
    "ARRAY(SELECT x FROM pg_snapshot_xip(" PG_WINDOW_HI("$1::bigint - 1") \
    ") x WHERE " PG_VISIBLE_IN_HI("x") ")"
#define PG_WINDOW_ROWS(payload, lanes, which) \
    "SELECT " PG_COLUMNS_OF_L(payload) " FROM \"outbox\".log l WHERE " which \
    " AND position > $2" lanes
#define PG_ONE_WINDOW(payload, lanes) \
    PG_WINDOW_ROWS(payload, lanes, PG_SINCE_LO \
        " AND xid < " PG_OF_HI("pg_snapshot_xmin", "$1")) \
    " UNION ALL " PG_WINDOW_ROWS(payload, lanes, PG_SINCE_LO \
        " AND xid >= " PG_OF_HI("pg_snapshot_xmin", "$1") \
        " AND xid < " PG_OF_HI("pg_snapshot_xmax", "$1") \
        " AND " PG_VISIBLE_IN_HI("xid")) \
    " UNION ALL " PG_WINDOW_ROWS(payload, lanes, "xid = ANY (" PG_EARLIER ")")
/* In no order: of all lanes, and of some. */
OB_PG_STATEMENT(PG_READ,
    PG_ONE_WINDOW(PG_SHORT("l.payload"), "") " LIMIT $3")
OB_PG_STATEMENT(PG_READ_LANES,
    PG_ONE_WINDOW(PG_SHORT("l.payload"), " AND " PG_LANES("lane"))
    " LIMIT $3")
/* The first ones, with their payloads however long. */
OB_PG_STATEMENT(PG_READ_SOME,
    PG_ONE_WINDOW("l.payload", " AND " PG_LANES("lane"))
    " ORDER BY 1 LIMIT $3")
/* Windows $1 to $5, in no order. */
OB_PG_STATEMENT(PG_READ_MANY,
    "SELECT " PG_COLUMNS_OF_L(PG_SHORT("l.payload")) ", w.n"
    " FROM \"outbox\".\"window\" w"
    " JOIN \"outbox\".\"window\" p ON p.n = w.n - 1"
    " CROSS JOIN LATERAL " PG_BETWEEN("p.hi", "w.hi") " l"
    " WHERE w.n BETWEEN $1 AND $5 AND (w.n > $1 OR l.position > $2)"
    " AND " PG_LANES("l.lane") " LIMIT $3")
/* Of a window with more rows than can be had at once, for there is a very
 * long transaction in it: $3 positions from the first row on, in no order.
 * Each transaction is searched by position, so that a page costs as much as
 * its own rows, wherever in the window it is. */
#define PG_SLICE(payload) \
    "WITH RECURSIVE n (xid) AS ((SELECT xid FROM \"outbox\".log WHERE " \
    PG_SINCE_LO " ORDER BY xid LIMIT 1) UNION ALL SELECT (SELECT l.xid" \
    " FROM \"outbox\".log l WHERE l.xid > n.xid ORDER BY l.xid LIMIT 1)" \
    " FROM n WHERE n.xid < " PG_OF_HI("pg_snapshot_xmax", "$1") ")," \
    " x AS MATERIALIZED (SELECT n.xid FROM n WHERE " \
    PG_VISIBLE_IN_HI("n.xid") " UNION ALL SELECT unnest(" PG_EARLIER "))," \
    " f AS MATERIALIZED (SELECT min(r.position) AS first FROM x, LATERAL" \
    " (SELECT l.position FROM \"outbox\".log l WHERE l.xid = x.xid" \
    " AND l.position > $2 AND " PG_LANES("l.lane") \
    " ORDER BY l.xid, l.position LIMIT 1) r)" \
    " SELECT " PG_COLUMNS_OF_L(payload) " FROM f, x JOIN \"outbox\".log l" \
    " ON l.xid = x.xid WHERE l.position >= f.first" \
    " AND l.position < f.first + $3::bigint AND " PG_LANES("l.lane")
OB_PG_STATEMENT(PG_READ_SLICE, PG_SLICE(PG_SHORT("l.payload")))
OB_PG_STATEMENT(PG_READ_LARGE, PG_SLICE("l.payload"))
/* Is there anything that window $1, the newest known, does not have? */
OB_PG_STATEMENT(PG_NEWS,
    "SELECT h.n <> $1 OR EXISTS (SELECT FROM "
    PG_BETWEEN("h.hi", "pg_current_snapshot()") " l)"
    " FROM \"outbox\".\"window\" h ORDER BY h.n DESC LIMIT 1")

/* ---- leases --------------------------------------------------------- */

OB_PG_STATEMENT(PG_BEAT,
    "INSERT INTO \"outbox\".relay AS r (sub, relay, beat, want)"
    " SELECT sub, $2::uuid, 1, $3::integer FROM \"outbox\".subscription"
    " WHERE sub = $1 ON CONFLICT (sub, relay)"
    " DO UPDATE SET beat = r.beat + 1, want = excluded.want")
/* Kind 0 is the subscription, 1 a lane, 2 a relay. */
OB_PG_STATEMENT(PG_LOOK,
    "SELECT 0, generation, CASE WHEN paused THEN 1 ELSE 0 END::bigint,"
    " 0::bigint, NULL::uuid AS id FROM \"outbox\".subscription"
    " WHERE sub = $1 UNION ALL"
    " (SELECT 1, l.lane, l.token, coalesce(r.beat, -1), l.owner"
    " FROM \"outbox\".lane l LEFT JOIN \"outbox\".relay r"
    " ON r.sub = l.sub AND r.relay = l.owner"
    " WHERE l.sub = $1 ORDER BY l.lane) UNION ALL"
    " (SELECT 2, r.beat, r.want, 0, r.relay FROM \"outbox\".relay r"
    " WHERE r.sub = $1 ORDER BY r.relay LIMIT $2::integer)")
/* $1 subscription, $2 me, $3 lanes, $4 tokens, $5 beats. */
OB_PG_STATEMENT(PG_LOCK,
    "SELECT l.lane FROM \"outbox\".lane l JOIN"
    " unnest($3::smallint[], $4::bigint[], $5::bigint[])"
    " AS w (lane, token, beat) ON l.lane = w.lane AND l.token = w.token"
    " WHERE l.sub = $1 AND (l.owner IS NULL OR l.owner = $2 OR NOT EXISTS"
    " (SELECT FROM \"outbox\".relay r WHERE r.sub = $1"
    " AND r.relay = l.owner AND r.beat <> w.beat))"
    " ORDER BY l.lane FOR UPDATE OF l")
/* After the lock, for it sees what the last owner saved. */
OB_PG_STATEMENT(PG_TAKE,
    "UPDATE \"outbox\".lane l SET owner = $2, token = l.token + 1,"
    " crash_window = c.w, crash_position = c.p,"
    " crashes = CASE WHEN owner IS NULL THEN 0"
    " WHEN (crash_window, crash_position) = (c.w, c.p)"
    " THEN crashes + CASE WHEN owner = $2 THEN 0 ELSE 1 END"
    " WHEN owner = $2 THEN 0 ELSE 1 END"
    " FROM (SELECT u.lane, coalesce(a.\"window\", 0) AS w,"
    " coalesce(a.position, 0) AS p FROM unnest($3::smallint[]) AS u (lane)"
    " LEFT JOIN LATERAL " PG_CURSOR("$1", "u.lane") " a ON true) c"
    " WHERE l.sub = $1 AND l.lane = c.lane"
    " RETURNING l.lane, l.token, c.w, c.p, l.crashes, l.trying IS NOT NULL")
OB_PG_STATEMENT(PG_REWIND,
    "INSERT INTO \"outbox\".ack (aseg, sub, lane, token, \"window\","
    " position) SELECT m.ack_seg, l.sub, l.lane, l.token, 0, 0"
    " FROM \"outbox\".lane l, \"outbox\".meta m"
    " WHERE l.sub = $1 AND l.lane = $2")
OB_PG_STATEMENT(PG_LEAVE,
    "DELETE FROM \"outbox\".relay WHERE sub = $1 AND relay = $2"
    " AND NOT EXISTS (SELECT FROM \"outbox\".lane WHERE sub = $1"
    " AND owner = $2)")
OB_PG_STATEMENT(PG_TRIAL,
    "UPDATE \"outbox\".lane SET trying = $5, trier = $3, starts ="
    " CASE WHEN trying IS DISTINCT FROM $5 THEN 1 WHEN trier = $3 THEN starts"
    " ELSE starts + 1 END"
    " WHERE sub = $1 AND lane = $2 AND owner = $3 AND token = $4"
    " RETURNING starts")

/* ---- progress ------------------------------------------------------- */

/* $1 subscription, $2 me, $3 lanes, $4 tokens, $5 windows, $6 positions.
 * All of them or none; gives the lanes that are ours. */
OB_PG_STATEMENT(PG_SAVE,
    "WITH mine AS MATERIALIZED (SELECT l.lane, l.token, w.\"window\","
    " w.position FROM \"outbox\".lane l JOIN"
    " unnest($3::smallint[], $4::bigint[], $5::bigint[], $6::bigint[])"
    " AS w (lane, token, \"window\", position)"
    " ON l.lane = w.lane AND l.token = w.token"
    " WHERE l.sub = $1 AND l.owner = $2"
    " ORDER BY l.lane FOR NO KEY UPDATE OF l),"
    " saved AS (INSERT INTO \"outbox\".ack (aseg, sub, lane, token,"
    " \"window\", position) SELECT m.ack_seg, $1, mine.lane, mine.token,"
    " mine.\"window\", mine.position FROM mine, \"outbox\".meta m"
    " WHERE (SELECT count(*) FROM mine) = cardinality($3))"
    " SELECT lane FROM mine")
/* $3 lanes to give back, $4 lanes whose trial is over. */
OB_PG_STATEMENT(PG_LET_GO,
    "UPDATE \"outbox\".lane SET"
    " owner = CASE WHEN lane = ANY ($3::smallint[]) THEN NULL"
    " ELSE owner END, crashes = CASE WHEN lane = ANY ($3::smallint[]) THEN 0"
    " ELSE crashes END, trying = NULL WHERE sub = $1 AND owner = $2"
    " AND (lane = ANY ($3::smallint[]) OR lane = ANY ($4::smallint[]))")
OB_PG_STATEMENT(PG_RING, "SELECT pg_catalog.pg_notify($1, '')")
OB_PG_STATEMENT(PG_PARK,
    "INSERT INTO \"outbox\".parked (\"window\", " PG_ROW ", sub, chain,"
    " attempts, why, delay_ms, seq) SELECT $1, $2, $3, $4, $5, $6, $7, $8,"
    " $9, $10, $11, $12, $13, $14, $15::integer, $16, $17,"
    " coalesce(max(seq), 4294967296) + 1 FROM \"outbox\".parked"
    " WHERE sub = $13 AND lane = $12 AND chain = $14")
OB_PG_STATEMENT(PG_AGAIN,
    "UPDATE \"outbox\".parked SET attempts = $5, delay_ms = $6, why = $7"
    " WHERE sub = $1 AND lane = $2 AND chain = $3 AND seq = $4")
OB_PG_STATEMENT(PG_UNPARK,
    "DELETE FROM \"outbox\".parked WHERE sub = $1 AND lane = $2"
    " AND chain = $3 AND seq = $4")
OB_PG_STATEMENT(PG_BURY,
    "INSERT INTO \"outbox\".dead (\"window\", " PG_ROW ", sub, chain,"
    " attempts, why, blocks, died_ms) SELECT $1, $2, $3, $4, $5, $6, $7, $8,"
    " $9, $10, $11, $12, $13, $14, $15::integer, $16, $17, " PG_NOW_MS)
OB_PG_STATEMENT(PG_PARKED,
    "SELECT \"window\", " PG_ROW ", seq, attempts, delay_ms"
    " FROM \"outbox\".parked WHERE sub = $1 AND lane = $2 AND chain = $3"
    " ORDER BY seq LIMIT $4::integer")
OB_PG_STATEMENT(PG_BLOCKED,
    "WITH c AS (SELECT coalesce((SELECT a.\"window\" FROM "
    PG_CURSOR("$1", "$2") " a), 0) AS w, coalesce((SELECT a.position FROM "
    PG_CURSOR("$1", "$2") " a), 0) AS p)"
    " SELECT * FROM (SELECT DISTINCT ON (chain) chain, seq, attempts,"
    " delay_ms, 0::bigint, NULL::uuid FROM \"outbox\".parked"
    " WHERE sub = $1 AND lane = $2 ORDER BY chain, seq) h UNION ALL"
    " SELECT DISTINCT chain, 0::bigint, 0, -1::bigint, 0::bigint, NULL::uuid"
    " FROM \"outbox\".dead WHERE sub = $1 AND lane = $2 AND blocks UNION ALL"
    " SELECT 0, 0, 0, -2, position, id FROM (SELECT \"window\", position, id"
    " FROM \"outbox\".parked WHERE sub = $1 AND lane = $2 UNION ALL"
    " SELECT \"window\", position, id FROM \"outbox\".dead"
    " WHERE sub = $1 AND lane = $2 UNION ALL"
    " SELECT \"window\", position, id FROM \"outbox\".discarded"
    " WHERE sub = $1 AND lane = $2) x, c"
    " WHERE (x.\"window\", x.position) > (w, p)")

/* ---- tidying -------------------------------------------------------- */

OB_PG_STATEMENT(PG_NEXT_DUE,
    "SELECT coalesce(min(due_ms), -1), " PG_NOW_MS
    " FROM \"outbox\".scheduled")
/* One relay at a time, or those due first would not come first.  None brings
 * a tick: they say that they are older than they are here, and the trim takes
 * what a tick has seen to be older than the tick (pg_tidy.c). */
OB_PG_STATEMENT(PG_PROMOTE,
    "WITH l AS MATERIALIZED (SELECT FROM (SELECT"
    " pg_try_advisory_xact_lock($2) AS got OFFSET 0) t WHERE got),"
    " due AS (DELETE FROM \"outbox\".scheduled s USING (SELECT seq FROM"
    " \"outbox\".scheduled, l WHERE due_ms <= " PG_NOW_MS
    " ORDER BY due_ms, seq LIMIT $1::integer) d WHERE s.seq = d.seq"
    " RETURNING s.*)"
    " INSERT INTO \"outbox\".log (seg, tick, lane, id, topic, type, key,"
    " content_type, headers, payload, published_ms, expires_ms)"
    " SELECT m.seg, NULL, lane, id, topic, type, key, content_type, headers,"
    " payload, greatest(published_ms, due_ms), expires_ms"
    " FROM due, \"outbox\".meta m"
    " ORDER BY due_ms, seq")

/* Whoever is behind most: windows up to n are passed by all lanes.  NULL
 * without a subscription. */
#define PG_PASSED \
    "(SELECT min(CASE WHEN c.position = 9223372036854775807 THEN c.\"window\"" \
    " ELSE coalesce(c.\"window\", 0) - 1 END) AS n" \
    " FROM \"outbox\".lane l LEFT JOIN LATERAL " \
    PG_CURSOR("l.sub", "l.lane") " c ON true)"
/* The segments written now, and what there is to tidy. */
OB_PG_STATEMENT(PG_TIDY,
    "SELECT m.seg, m.ack_seg, p.n,"
    " pg_relation_size('\"outbox\".log_0'), pg_relation_size("
    "'\"outbox\".log_1'), pg_relation_size('\"outbox\".log_2'),"
    " pg_relation_size('\"outbox\".log_3'), pg_relation_size("
    "'\"outbox\".ack_0'), pg_relation_size('\"outbox\".ack_1')"
    " FROM \"outbox\".meta m, " PG_PASSED " p")
OB_PG_STATEMENT(PG_SEGMENT,
    "UPDATE \"outbox\".meta SET seg = $2 WHERE seg = $1")
/* Windows without events that all are past, but for the newest of them, which
 * is where the next one begins.  Only the oldest are looked at: when one of
 * them has events, so have those behind it. */
OB_PG_STATEMENT(PG_DROP_WINDOWS,
    "DELETE FROM \"outbox\".\"window\" WHERE n = ANY (ARRAY(SELECT w.n"
    " FROM (SELECT n FROM \"outbox\".\"window\" WHERE n < (SELECT p.n FROM "
    PG_PASSED " p) ORDER BY n LIMIT 200) w"
    " WHERE EXISTS (SELECT FROM \"outbox\".\"window\" x"
    " WHERE x.n = w.n + 1 AND pg_snapshot_xmax(x.hi) <= coalesce((SELECT xid"
    " FROM \"outbox\".log ORDER BY xid LIMIT 1),"
    " pg_snapshot_xmax(pg_current_snapshot())))))")
OB_PG_STATEMENT(PG_TRIM_DEDUP,
    "DELETE FROM \"outbox\".dedup WHERE dedup_key = ANY (ARRAY(SELECT"
    " dedup_key FROM \"outbox\".dedup WHERE published_ms < " PG_NOW_MS
    " - $1 ORDER BY published_ms LIMIT $2::integer FOR UPDATE SKIP LOCKED))")
OB_PG_STATEMENT(PG_TRY_LOCK, "SELECT pg_try_advisory_xact_lock($1)")
OB_PG_STATEMENT(PG_LOCK_LANES,
    "SELECT lane FROM \"outbox\".lane ORDER BY sub, lane FOR UPDATE")
OB_PG_STATEMENT(PG_CARRY,
    "INSERT INTO \"outbox\".ack (aseg, sub, lane, token, \"window\","
    " position) SELECT m.ack_seg, a.sub, a.lane, a.token, a.\"window\","
    " a.position FROM \"outbox\".meta m, \"outbox\".lane l"
    " CROSS JOIN LATERAL (SELECT * FROM \"outbox\".ack a"
    " WHERE a.sub = l.sub AND a.lane = l.lane ORDER BY a.seq DESC LIMIT 1) a"
    " WHERE a.aseg <> m.ack_seg")
OB_PG_STATEMENT(PG_ACK_SEGMENT, "UPDATE \"outbox\".meta SET ack_seg = $1")
/* Counted one by one only up to $2, then by positions: what window w, where
 * the lowest cursor stands, has behind p; what has begun since; and what was
 * running when w was cut, or the one before.  By an index, in its order, for
 * a long backlog must not be looked at for the sake of its first rows. */
#define PG_OF_M(column) "(SELECT " column " FROM m)"
#define PG_COUNT_ROWS(which) \
    "(SELECT position, published_ms FROM \"outbox\".log WHERE " which \
    " ORDER BY xid LIMIT $2)"
OB_PG_STATEMENT(PG_COUNT,
    "WITH c AS MATERIALIZED (SELECT l.sub, coalesce(a.\"window\", 0) AS w,"
    " coalesce(a.position, 0) AS p FROM \"outbox\".lane l LEFT JOIN LATERAL "
    PG_CURSOR("l.sub", "l.lane") " a ON true),"
    " b AS MATERIALIZED (SELECT c.w, c.p, coalesce((SELECT hi FROM"
    " \"outbox\".\"window\" WHERE n = c.w - 1), '1:1:') AS lo"
    " FROM c WHERE c.sub = $1 ORDER BY c.w, c.p LIMIT 1),"
    " m AS MATERIALIZED (SELECT b.w, b.p, b.lo, coalesce((SELECT hi FROM"
    " \"outbox\".\"window\" WHERE n = b.w), b.lo) AS hi FROM b),"
    " e AS (SELECT count(*) AS n, min(position) AS p, min(published_ms) AS t"
    " FROM (" PG_COUNT_ROWS(
        "xid >= pg_snapshot_xmax(" PG_OF_M("lo") ")"
        " AND xid < pg_snapshot_xmax(" PG_OF_M("hi") ")"
        " AND position > " PG_OF_M("p")
        " AND pg_visible_in_snapshot(xid, " PG_OF_M("hi") ")")
    " UNION ALL " PG_COUNT_ROWS(
        "xid >= pg_snapshot_xmax(" PG_OF_M("hi") ")"
        " AND pg_visible_in_snapshot(xid, pg_current_snapshot())")
    " UNION ALL SELECT r.* FROM (SELECT pg_snapshot_xip(lo) AS xid FROM m"
    " UNION SELECT pg_snapshot_xip(hi) FROM m) x, LATERAL "
    PG_COUNT_ROWS(
        "xid = x.xid AND pg_visible_in_snapshot(xid, pg_current_snapshot())"
        " AND position > (SELECT CASE WHEN pg_visible_in_snapshot(x.xid,"
        " m.hi) THEN m.p ELSE 0 END FROM m)") " r LIMIT $2) x),"
    " k AS (SELECT count(*) AS n, min(published_ms) AS t"
    " FROM \"outbox\".parked WHERE sub = $1)"
    " SELECT k.n, (SELECT count(*) FROM \"outbox\".dead WHERE sub = $1),"
    " CASE WHEN e.n < $2 THEN e.n ELSE greatest(e.n, 1 - e.p +"
    " pg_sequence_last_value('\"outbox\".position'::regclass)) END,"
    " coalesce(least(e.t, k.t), 0), (SELECT count(*)"
    " FROM \"outbox\".scheduled), coalesce((SELECT paused"
    " FROM \"outbox\".subscription WHERE sub = $1), false),"
    " coalesce((SELECT (m.w, m.p) <= (o.w, o.p) FROM m, c o"
    " ORDER BY o.w, o.p LIMIT 1), false) FROM e, k")

/* ---- waking --------------------------------------------------------- */

OB_PG_STATEMENT(PG_ARM, "SELECT pg_try_advisory_lock_shared($1)")
OB_PG_STATEMENT(PG_DISARM, "SELECT pg_advisory_unlock_shared($1)")

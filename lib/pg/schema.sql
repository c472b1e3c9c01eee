-- SPDX-License-Identifier: MIT
--
-- The tables of outbox and inbox in PostgreSQL (13 or newer), version 1.
--
-- The library writes its schema for "outbox".  Those who run migrations
-- themselves run this file in one transaction (psql -1 -f); outbox_migrate()
-- then finds the version.  outbox_pg(3) has the grants for a publisher, a relay
-- and a reader.

CREATE SCHEMA IF NOT EXISTS "outbox";

-- system tells one cluster from another: transaction numbers of a log that
-- was restored elsewhere mean nothing there.  seg and ack_seg name the
-- segments that are written now.
CREATE TABLE "outbox".meta (
    one     boolean  PRIMARY KEY DEFAULT true CHECK (one),
    version integer  NOT NULL,
    lanes   integer  NOT NULL CHECK (lanes BETWEEN 1 AND 64),
    system  bigint   NOT NULL,
    seg     smallint NOT NULL DEFAULT 0,
    ack_seg smallint NOT NULL DEFAULT 0
);

CREATE TABLE "outbox".migration (
    version    integer PRIMARY KEY,
    checksum   text    NOT NULL,
    applied_ms bigint  NOT NULL
);

-- A larger CACHE would give later numbers to earlier events.
CREATE SEQUENCE "outbox".position CACHE 1 NO CYCLE;

-- One row for each event, in segments that are emptied with TRUNCATE.  xid is
-- the top-level transaction, which the system column of a row written in a
-- subtransaction is not.  Each 4096th event, but for those that were
-- scheduled, brings the snapshot in which it was published: by these a relay
-- cuts a long backlog into windows.  A publisher is not granted position, xid
-- and tick: they are always what their defaults say.
CREATE TABLE "outbox".log (
    seg          smallint NOT NULL,
    position     bigint   NOT NULL DEFAULT nextval('"outbox".position'),
    xid          xid8     NOT NULL DEFAULT pg_current_xact_id(),
    tick         pg_snapshot DEFAULT CASE
                     WHEN currval('"outbox".position') % 4096 = 0
                     THEN pg_current_snapshot() END,
    lane         smallint NOT NULL,
    id           uuid     NOT NULL,
    topic        text     NOT NULL,
    type         text,
    key          text,
    content_type text,
    headers      text,
    payload      bytea    NOT NULL,
    published_ms bigint   NOT NULL
                 DEFAULT (date_part('epoch', clock_timestamp()) * 1000)::bigint,
    expires_ms   bigint
) PARTITION BY LIST (seg);

CREATE TABLE "outbox".log_0 PARTITION OF "outbox".log FOR VALUES IN (0)
    WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
CREATE TABLE "outbox".log_1 PARTITION OF "outbox".log FOR VALUES IN (1)
    WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
CREATE TABLE "outbox".log_2 PARTITION OF "outbox".log FOR VALUES IN (2)
    WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
CREATE TABLE "outbox".log_3 PARTITION OF "outbox".log FOR VALUES IN (3)
    WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);

-- A log that has come to another cluster is renumbered there.  Where a
-- publication is FOR ALL TABLES the server would refuse that; to an INSERT
-- this adds nothing.
ALTER TABLE "outbox".log_0 REPLICA IDENTITY FULL;
ALTER TABLE "outbox".log_1 REPLICA IDENTITY FULL;
ALTER TABLE "outbox".log_2 REPLICA IDENTITY FULL;
ALTER TABLE "outbox".log_3 REPLICA IDENTITY FULL;

-- No index on position alone: the planner would walk it from the oldest row
-- on.  It comes second for the pages of a very long transaction.
CREATE INDEX log_xid ON "outbox".log (xid, position);
CREATE INDEX log_tick ON "outbox".log (position) WHERE tick IS NOT NULL;

-- Window n holds the events that are visible in its hi and not in that of
-- window n - 1.  All relays read the same windows; a cursor is a window and a
-- position within it.  tick is where the next ticks are looked for.
CREATE TABLE "outbox"."window" (
    n    bigint      PRIMARY KEY,
    hi   pg_snapshot NOT NULL,
    tick bigint      NOT NULL DEFAULT 0
);
INSERT INTO "outbox"."window" (n, hi) VALUES (0, '1:1:');

-- Events that are due later; a relay moves them into the log in time.
CREATE TABLE "outbox".scheduled (
    seq          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    due_ms       bigint NOT NULL,
    lane         smallint NOT NULL,
    id           uuid   NOT NULL,
    topic        text   NOT NULL,
    type         text,
    key          text,
    content_type text,
    headers      text,
    payload      bytea  NOT NULL,
    published_ms bigint NOT NULL
                 DEFAULT (date_part('epoch', clock_timestamp()) * 1000)::bigint,
    expires_ms   bigint
);
CREATE INDEX scheduled_due ON "outbox".scheduled (due_ms, seq);

-- The dedup_keys of what was published.
CREATE TABLE "outbox".dedup (
    dedup_key    text   PRIMARY KEY,
    published_ms bigint NOT NULL
                 DEFAULT (date_part('epoch', clock_timestamp()) * 1000)::bigint
);
CREATE INDEX dedup_age ON "outbox".dedup (published_ms);

CREATE TABLE "outbox".subscription (
    sub        bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name       text    NOT NULL UNIQUE,
    keep_ms    bigint  NOT NULL DEFAULT 0,
    paused     boolean NOT NULL DEFAULT false,
    generation bigint  NOT NULL DEFAULT 0
);

-- Who owns a lane of a subscription.  crashes counts owners that went
-- without goodbye while the cursor stayed at crash_window, crash_position;
-- trying is an event that was started on trial, trier the last relay that did,
-- starts how many did in a row.
CREATE TABLE "outbox".lane (
    sub            bigint   NOT NULL,
    lane           smallint NOT NULL,
    owner          uuid,
    token          bigint   NOT NULL DEFAULT 0,
    crashes        integer  NOT NULL DEFAULT 0,
    crash_window   bigint   NOT NULL DEFAULT -1,
    crash_position bigint   NOT NULL DEFAULT -1,
    trying         bigint,
    trier          uuid,
    starts         integer  NOT NULL DEFAULT 0,
    PRIMARY KEY (sub, lane)
);

CREATE TABLE "outbox".relay (
    sub   bigint NOT NULL,
    relay uuid   NOT NULL,
    beat  bigint NOT NULL,
    want  integer NOT NULL,
    PRIMARY KEY (sub, relay)
);

-- Cursors, insert-only: the newest row of a lane counts.  A row that is
-- updated all the time rots as long as anybody holds an old snapshot.
CREATE SEQUENCE "outbox".ack_seq CACHE 1 NO CYCLE;
CREATE TABLE "outbox".ack (
    aseg     smallint NOT NULL,
    seq      bigint   NOT NULL DEFAULT nextval('"outbox".ack_seq'),
    sub      bigint   NOT NULL,
    lane     smallint NOT NULL,
    token    bigint   NOT NULL,
    "window" bigint   NOT NULL,
    position bigint   NOT NULL
) PARTITION BY LIST (aseg);
CREATE TABLE "outbox".ack_0 PARTITION OF "outbox".ack FOR VALUES IN (0)
    WITH (autovacuum_enabled = off);
CREATE TABLE "outbox".ack_1 PARTITION OF "outbox".ack FOR VALUES IN (1)
    WITH (autovacuum_enabled = off);
CREATE INDEX ack_newest ON "outbox".ack (sub, lane, seq DESC);

-- Events that failed, and those of the same chain behind them, in order of
-- seq.  A chain is the hash of a key.
CREATE TABLE "outbox".parked (
    sub          bigint   NOT NULL,
    lane         smallint NOT NULL,
    chain        bigint   NOT NULL,
    seq          bigint   NOT NULL,
    "window"     bigint   NOT NULL,
    position     bigint   NOT NULL,
    id           uuid     NOT NULL,
    topic        text     NOT NULL,
    type         text,
    key          text,
    content_type text,
    headers      text,
    payload      bytea    NOT NULL,
    published_ms bigint   NOT NULL,
    expires_ms   bigint,
    attempts     integer  NOT NULL,
    delay_ms     bigint   NOT NULL,
    why          text,
    PRIMARY KEY (sub, lane, chain, seq)
);

CREATE TABLE "outbox".dead (
    sub          bigint   NOT NULL,
    lane         smallint NOT NULL,
    chain        bigint   NOT NULL,
    seq          bigint   NOT NULL GENERATED ALWAYS AS IDENTITY,
    blocks       boolean  NOT NULL,
    "window"     bigint   NOT NULL,
    position     bigint   NOT NULL,
    id           uuid     NOT NULL,
    topic        text     NOT NULL,
    type         text,
    key          text,
    content_type text,
    headers      text,
    payload      bytea    NOT NULL,
    published_ms bigint   NOT NULL,
    expires_ms   bigint,
    attempts     integer  NOT NULL,
    why          text,
    died_ms      bigint   NOT NULL,
    PRIMARY KEY (sub, lane, seq)
);

-- Events that were discarded before the cursor of their lane had passed them:
-- the log still has them, and they are not taken from there again.
CREATE TABLE "outbox".discarded (
    sub      bigint   NOT NULL,
    lane     smallint NOT NULL,
    "window" bigint   NOT NULL,
    position bigint   NOT NULL,
    id       uuid     NOT NULL,
    PRIMARY KEY (sub, lane, "window", position)
);

-- id is the 16 bytes of a UUID, or text, which are never taken for one
-- another.
CREATE TABLE "outbox".inbox (
    consumer    text    NOT NULL,
    id          bytea   NOT NULL,
    is_uuid     boolean NOT NULL,
    accepted_ms bigint  NOT NULL
                DEFAULT (date_part('epoch', clock_timestamp()) * 1000)::bigint,
    PRIMARY KEY (consumer, id, is_uuid)
);
CREATE INDEX inbox_age ON "outbox".inbox (accepted_ms);

-- 16 lanes: say how many here, or never.  The library does it by its options,
-- and notes a checksum of this text.
INSERT INTO "outbox".meta (version, lanes, system)
    SELECT 1, 16, system_identifier FROM pg_control_system();
INSERT INTO "outbox".migration (version, checksum, applied_ms)
    VALUES (1, 'by hand', (extract(epoch FROM clock_timestamp()) * 1000));

-- SPDX-License-Identifier: MIT
--
-- The tables of outbox and inbox in SQLite, version 1.
--
-- They live in the application's own file, beside the business tables: that
-- is what makes an event and its cause commit together.  The library writes
-- "outbox_ as the prefix that it was opened with.  outbox(7) explains each
-- table to operators.

CREATE TABLE "outbox_meta" (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL,
    lanes   INTEGER NOT NULL
);

-- One row for each event.  Positions are never used again: trimming spares
-- the newest row, so the next one is above it.
CREATE TABLE "outbox_log" (
    position     INTEGER PRIMARY KEY,
    id           BLOB NOT NULL,
    topic        TEXT NOT NULL,
    type         TEXT,
    key          TEXT,
    content_type TEXT,
    headers      TEXT,
    payload      BLOB NOT NULL,
    published_ms INTEGER NOT NULL,
    expires_ms   INTEGER
);

-- Events that are due later; the relay moves them into the log in time.
CREATE TABLE "outbox_scheduled" (
    seq          INTEGER PRIMARY KEY,
    due_ms       INTEGER NOT NULL,
    id           BLOB NOT NULL,
    topic        TEXT NOT NULL,
    type         TEXT,
    key          TEXT,
    content_type TEXT,
    headers      TEXT,
    payload      BLOB NOT NULL,
    published_ms INTEGER NOT NULL,
    expires_ms   INTEGER
);
CREATE INDEX "outbox_scheduled_due" ON "outbox_scheduled" (due_ms, seq);

-- The dedup_keys of what was published; mark tells their age.
CREATE TABLE "outbox_dedup" (
    mark         INTEGER PRIMARY KEY,
    dedup_key    TEXT NOT NULL UNIQUE,
    published_ms INTEGER NOT NULL
);

-- Numbers are not used again: a relay of a removed subscription must not
-- take another one for its own.
CREATE TABLE "outbox_subscription" (
    sub        INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE,
    keep_ms    INTEGER NOT NULL DEFAULT 0,
    paused     INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0
);

-- Who owns a lane of a subscription, and how far it is.  anchor is the id of
-- the event at position.  crashes counts owners that went without goodbye
-- since position last moved; trying is an event that was started on trial,
-- trier the last relay that did, starts how many did in a row.
CREATE TABLE "outbox_lane" (
    sub      INTEGER NOT NULL,
    lane     INTEGER NOT NULL,
    owner    BLOB,
    token    INTEGER NOT NULL DEFAULT 0,
    position INTEGER NOT NULL DEFAULT 0,
    anchor   BLOB,
    crashes  INTEGER NOT NULL DEFAULT 0,
    trying   INTEGER,
    trier    BLOB,
    starts   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sub, lane)
) WITHOUT ROWID;

CREATE TABLE "outbox_relay" (
    sub   INTEGER NOT NULL,
    relay BLOB NOT NULL,
    beat  INTEGER NOT NULL,
    want  INTEGER NOT NULL,
    PRIMARY KEY (sub, relay)
) WITHOUT ROWID;

-- Events that failed, and those of the same chain behind them, in order of
-- seq.  A chain is the hash of a key.
CREATE TABLE "outbox_parked" (
    sub          INTEGER NOT NULL,
    lane         INTEGER NOT NULL,
    chain        INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    id           BLOB NOT NULL,
    topic        TEXT NOT NULL,
    type         TEXT,
    key          TEXT,
    content_type TEXT,
    headers      TEXT,
    payload      BLOB NOT NULL,
    published_ms INTEGER NOT NULL,
    expires_ms   INTEGER,
    attempts     INTEGER NOT NULL,
    delay_ms     INTEGER NOT NULL,
    why          TEXT,
    UNIQUE (sub, lane, chain, seq)
);

CREATE TABLE "outbox_dead" (
    sub          INTEGER NOT NULL,
    lane         INTEGER NOT NULL,
    chain        INTEGER NOT NULL,
    blocks       INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    id           BLOB NOT NULL,
    topic        TEXT NOT NULL,
    type         TEXT,
    key          TEXT,
    content_type TEXT,
    headers      TEXT,
    payload      BLOB NOT NULL,
    published_ms INTEGER NOT NULL,
    expires_ms   INTEGER,
    attempts     INTEGER NOT NULL,
    why          TEXT,
    died_ms      INTEGER NOT NULL
);
CREATE INDEX "outbox_dead_lane" ON "outbox_dead" (sub, lane);

-- Events that were discarded before the cursor of their lane had passed them:
-- the log still has them, and they are not taken from there again.
CREATE TABLE "outbox_discarded" (
    sub      INTEGER NOT NULL,
    lane     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    id       BLOB NOT NULL,
    PRIMARY KEY (sub, lane, position)
) WITHOUT ROWID;

-- Marks in the order of acceptance, so that the oldest are found at once.
-- id is the 16 bytes of a UUID, or text.
CREATE TABLE "outbox_inbox" (
    mark        INTEGER PRIMARY KEY,
    consumer    TEXT NOT NULL,
    id          BLOB NOT NULL,
    accepted_ms INTEGER NOT NULL,
    UNIQUE (consumer, id)
);

-- Whose word is trusted, what moved that trust, and how verdicts came about. The
-- JSON and the binary forms are others'. No index is over the times of events:
-- they are written with every batch of signals, and pruned machine by machine.

-- +goose Up
CREATE TABLE numbers (
  kind   TEXT NOT NULL,
  number INTEGER NOT NULL,
  name   TEXT NOT NULL,
  PRIMARY KEY (kind, number),
  UNIQUE (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE trust (
  machine INTEGER NOT NULL PRIMARY KEY,
  rank    INTEGER NOT NULL,
  changed INTEGER NOT NULL,
  data    BLOB NOT NULL
) STRICT;

CREATE TABLE behaviours (
  behaviour INTEGER NOT NULL PRIMARY KEY,
  data      BLOB NOT NULL
) STRICT;

CREATE TABLE trust_events (
  machine     INTEGER NOT NULL,
  at          INTEGER NOT NULL,
  kind        TEXT NOT NULL,
  behaviour   TEXT NOT NULL,
  source      BLOB NOT NULL,
  amount      REAL NOT NULL,
  rank_before INTEGER NOT NULL,
  rank_after  INTEGER NOT NULL,
  PRIMARY KEY (machine, at, kind, behaviour, source)
) STRICT, WITHOUT ROWID;

CREATE TABLE epochs (
  epoch INTEGER NOT NULL,
  data  BLOB NOT NULL
) STRICT;
INSERT INTO epochs (epoch, data) VALUES (0, x'');

ALTER TABLE verdicts ADD COLUMN remedy TEXT NOT NULL DEFAULT 'ban';

-- In the order of time, as it is pruned; only the small index is written in
-- places as scattered as sources are.
CREATE TABLE verdict_history (
  at       INTEGER NOT NULL,
  source   BLOB NOT NULL,
  audience TEXT NOT NULL,
  listed   INTEGER NOT NULL,
  remedy   TEXT NOT NULL,
  scenario TEXT NOT NULL,
  since    INTEGER NOT NULL,
  until    INTEGER NOT NULL,
  reasons  TEXT NOT NULL,
  PRIMARY KEY (at, source, audience)
) STRICT, WITHOUT ROWID;
CREATE INDEX verdict_history_by_source ON verdict_history (source, audience, at);

CREATE TABLE operator_verdicts (
  source     BLOB NOT NULL PRIMARY KEY,
  listed     INTEGER NOT NULL,
  until      INTEGER NOT NULL,
  reason     TEXT NOT NULL,
  by         TEXT NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;

ALTER TABLE machines ADD COLUMN honeypot INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE machines DROP COLUMN honeypot;
DROP TABLE operator_verdicts;
DROP TABLE verdict_history;
ALTER TABLE verdicts DROP COLUMN remedy;
DROP TABLE epochs;
DROP TABLE trust_events;
DROP TABLE behaviours;
DROP TABLE trust;
DROP TABLE numbers;

-- The sieve's history. Alerts stand sixteen to a block, compressed; what is
-- searched of them stands in columns, 65,536 to a chunk, and in sieve_sources,
-- whose key begins with the chunk, so that storing an alert touches the end of it
-- only. The forms of data are those of internal/history.

-- +goose Up
CREATE TABLE sieve_names (
  id   INTEGER NOT NULL PRIMARY KEY,
  kind INTEGER NOT NULL,
  name TEXT NOT NULL
) STRICT;

CREATE TABLE sieve_combos (
  id       INTEGER NOT NULL PRIMARY KEY,
  scenario INTEGER NOT NULL,
  country  INTEGER NOT NULL,
  machine  INTEGER NOT NULL
) STRICT;

-- position grows with block.
CREATE TABLE sieve_blocks (
  block    INTEGER NOT NULL PRIMARY KEY,
  position INTEGER NOT NULL,
  data     BLOB NOT NULL
) STRICT;
CREATE INDEX sieve_blocks_by_position ON sieve_blocks (position);

CREATE TABLE sieve_large (
  id   INTEGER NOT NULL PRIMARY KEY,
  data BLOB NOT NULL
) STRICT;

-- source is a hash of an address.
CREATE TABLE sieve_sources (
  chunk  INTEGER NOT NULL,
  source INTEGER NOT NULL,
  id     INTEGER NOT NULL,
  PRIMARY KEY (chunk, source, id)
) STRICT, WITHOUT ROWID;

-- marks change after the rest; what is read seldom stands last.
CREATE TABLE sieve_chunks (
  chunk   INTEGER NOT NULL PRIMARY KEY,
  marks   BLOB NOT NULL,
  columns BLOB NOT NULL,
  prints  BLOB NOT NULL,
  times   BLOB NOT NULL
) STRICT;

-- start counts hours from 1970, UTC; span is how many hours.
CREATE TABLE sieve_rollups (
  span  INTEGER NOT NULL,
  start INTEGER NOT NULL,
  data  BLOB NOT NULL,
  PRIMARY KEY (span, start)
) STRICT, WITHOUT ROWID;

-- Which signals of a record of the sieve's log the upstream accepted: a bit each.
CREATE TABLE sieve_forwarded (
  position INTEGER NOT NULL,
  part     INTEGER NOT NULL,
  at       INTEGER NOT NULL,
  signals  BLOB NOT NULL,
  PRIMARY KEY (position, part)
) STRICT, WITHOUT ROWID;

CREATE TABLE sieve_history_positions (
  part     INTEGER NOT NULL PRIMARY KEY,
  position INTEGER NOT NULL
) STRICT;

-- +goose Down
DROP TABLE sieve_history_positions;
DROP TABLE sieve_forwarded;
DROP TABLE sieve_rollups;
DROP TABLE sieve_chunks;
DROP TABLE sieve_sources;
DROP TABLE sieve_large;
DROP TABLE sieve_blocks;
DROP TABLE sieve_combos;
DROP TABLE sieve_names;

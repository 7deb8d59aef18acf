-- What the sieve's forwarder has done. A cursor is how far one engine is beyond
-- its partition's position.

-- +goose Up
CREATE TABLE spool_positions (
  part     INTEGER NOT NULL PRIMARY KEY,
  position INTEGER NOT NULL
) STRICT;

CREATE TABLE spool_cursors (
  engine   BLOB NOT NULL PRIMARY KEY,
  part     INTEGER NOT NULL,
  position INTEGER NOT NULL,
  signal   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX spool_cursors_by_position ON spool_cursors (part, position);

-- Signals that the upstream will not have.
CREATE TABLE spool_refused (
  id       INTEGER NOT NULL PRIMARY KEY,
  engine   BLOB NOT NULL,
  machine  TEXT NOT NULL,
  uuid     TEXT NOT NULL,
  received INTEGER NOT NULL,
  at       INTEGER NOT NULL,
  status   INTEGER NOT NULL,
  reason   TEXT NOT NULL,
  raw      BLOB NOT NULL
) STRICT;

-- Engines' tokens, encrypted.
CREATE TABLE spool_tokens (
  engine BLOB NOT NULL,
  token  BLOB NOT NULL,
  seen   INTEGER NOT NULL,
  sealed BLOB NOT NULL,
  PRIMARY KEY (engine, token)
) STRICT, WITHOUT ROWID;
CREATE INDEX spool_tokens_by_time ON spool_tokens (seen);

-- +goose Down
DROP TABLE spool_tokens;
DROP TABLE spool_refused;
DROP TABLE spool_cursors;
DROP TABLE spool_positions;

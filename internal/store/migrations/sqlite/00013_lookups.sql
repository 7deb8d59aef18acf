-- What was reported of sources day by day, for lookups, with how far in the
-- signal log that reaches; and the keys of programs that ask. day counts from
-- 1970, UTC; data is the binary form of internal/cti.

-- +goose Up
CREATE TABLE rollups (
  part   INTEGER NOT NULL,
  source BLOB NOT NULL,
  day    INTEGER NOT NULL,
  data   BLOB NOT NULL,
  PRIMARY KEY (part, source, day)
) STRICT, WITHOUT ROWID;
CREATE INDEX rollups_by_day ON rollups (day);

CREATE TABLE rollup_positions (
  part     INTEGER NOT NULL PRIMARY KEY,
  position INTEGER NOT NULL
) STRICT;

-- hash is the SHA-256 of a key.
CREATE TABLE lookup_keys (
  id           TEXT NOT NULL PRIMARY KEY,
  organisation TEXT NOT NULL,
  name         TEXT NOT NULL,
  hash         BLOB NOT NULL UNIQUE,
  per_day      INTEGER NOT NULL,
  per_month    INTEGER NOT NULL,
  created_at   INTEGER NOT NULL,
  created_by   TEXT NOT NULL,
  revoked_at   INTEGER NOT NULL
) STRICT;

-- Written often, and apart from what people decide.
CREATE TABLE lookup_usage (
  lookup_key TEXT NOT NULL,
  day        INTEGER NOT NULL,
  calls      INTEGER NOT NULL,
  PRIMARY KEY (lookup_key, day)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE lookup_usage;
DROP TABLE lookup_keys;
DROP TABLE rollup_positions;
DROP TABLE rollups;

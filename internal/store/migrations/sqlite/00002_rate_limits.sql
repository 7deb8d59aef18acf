-- What rate limiting keeps. Prefixes have the form of sources. What has a column
-- of its own is read from there, not from the JSON in data. No index is over the
-- ends of bans: under a flood they change all the time, and each change would
-- cost half as much again.

-- +goose Up
CREATE TABLE bans (
  prefix     BLOB NOT NULL PRIMARY KEY,
  scope      TEXT NOT NULL,
  reason     TEXT NOT NULL,
  limit_name TEXT NOT NULL,
  since      INTEGER NOT NULL,
  until      INTEGER NOT NULL,
  extend_ns  INTEGER NOT NULL,
  by         TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE limits (
  name   TEXT NOT NULL PRIMARY KEY,
  data   TEXT NOT NULL,
  set_at INTEGER NOT NULL,
  set_by TEXT NOT NULL
) STRICT;

CREATE TABLE overrides (
  id    TEXT NOT NULL PRIMARY KEY,
  data  TEXT NOT NULL,
  since INTEGER NOT NULL,
  until INTEGER NOT NULL
) STRICT;

CREATE TABLE audit (
  id      TEXT NOT NULL PRIMARY KEY,
  at      INTEGER NOT NULL,
  by      TEXT NOT NULL,
  action  TEXT NOT NULL,
  subject TEXT NOT NULL,
  reason  TEXT NOT NULL,
  detail  BLOB NOT NULL
) STRICT;
CREATE INDEX audit_by_time ON audit (at);

-- +goose Down
DROP TABLE audit;
DROP TABLE overrides;
DROP TABLE limits;
DROP TABLE bans;

-- Blocklists, who subscribes to them, and what is on those that are not chosen
-- from verdicts. feed_entries holds sources one after the other, in order.

-- +goose Up
CREATE TABLE blocklists (
  id           TEXT NOT NULL PRIMARY KEY,
  name         TEXT NOT NULL UNIQUE,
  label        TEXT NOT NULL,
  description  TEXT NOT NULL,
  kind         TEXT NOT NULL,
  organisation TEXT NOT NULL,
  shared_with  TEXT NOT NULL,
  remedy       TEXT NOT NULL,
  lifetime     INTEGER NOT NULL,
  rule         TEXT NOT NULL,
  feed         TEXT NOT NULL,
  created_at   INTEGER NOT NULL,
  created_by   TEXT NOT NULL
) STRICT;

CREATE TABLE blocklist_entries (
  list     TEXT NOT NULL,
  source   BLOB NOT NULL,
  comment  TEXT NOT NULL,
  until    INTEGER NOT NULL,
  added_at INTEGER NOT NULL,
  added_by TEXT NOT NULL,
  PRIMARY KEY (list, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX blocklist_entries_by_end ON blocklist_entries (until) WHERE until <> 0;

CREATE TABLE subscriptions (
  list         TEXT NOT NULL,
  kind         TEXT NOT NULL,
  subscriber   TEXT NOT NULL,
  organisation TEXT NOT NULL,
  remedy       TEXT NOT NULL,
  created_at   INTEGER NOT NULL,
  created_by   TEXT NOT NULL,
  PRIMARY KEY (list, kind, subscriber, organisation)
) STRICT, WITHOUT ROWID;

CREATE TABLE feeds (
  list          TEXT NOT NULL PRIMARY KEY,
  etag          TEXT NOT NULL,
  last_modified TEXT NOT NULL,
  format        TEXT NOT NULL,
  tried_at      INTEGER NOT NULL,
  good_at       INTEGER NOT NULL,
  changed_at    INTEGER NOT NULL,
  next_at       INTEGER NOT NULL,
  failures      INTEGER NOT NULL,
  problem       TEXT NOT NULL,
  size          INTEGER NOT NULL,
  skipped       INTEGER NOT NULL,
  forbidden     INTEGER NOT NULL,
  held_at       INTEGER NOT NULL,
  held_size     INTEGER NOT NULL,
  held_reason   TEXT NOT NULL
) STRICT;

CREATE TABLE feed_entries (
  list    TEXT NOT NULL,
  held    INTEGER NOT NULL,
  sources BLOB NOT NULL,
  PRIMARY KEY (list, held)
) STRICT;

CREATE TABLE blocklist_days (
  list    TEXT NOT NULL,
  day     INTEGER NOT NULL,
  size    INTEGER NOT NULL,
  added   INTEGER NOT NULL,
  removed INTEGER NOT NULL,
  PRIMARY KEY (list, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE blocklist_hits (
  list TEXT NOT NULL,
  day  INTEGER NOT NULL,
  unit TEXT NOT NULL,
  hits INTEGER NOT NULL,
  PRIMARY KEY (list, day, unit)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE blocklist_hits;
DROP TABLE blocklist_days;
DROP TABLE feed_entries;
DROP TABLE feeds;
DROP TABLE subscriptions;
DROP TABLE blocklist_entries;
DROP TABLE blocklists;

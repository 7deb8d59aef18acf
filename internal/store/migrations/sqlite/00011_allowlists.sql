-- +goose Up

-- Allowlists: the installation's (organisation '') and organisations'. The one
-- list of releases before becomes the installation's list "central".
CREATE TABLE allowlists (
  id           TEXT NOT NULL PRIMARY KEY,
  organisation TEXT NOT NULL,
  name         TEXT NOT NULL,
  description  TEXT NOT NULL,
  targets      TEXT NOT NULL,
  created_at   INTEGER NOT NULL,
  updated_at   INTEGER NOT NULL,
  created_by   TEXT NOT NULL,
  UNIQUE (organisation, name)
) STRICT;

-- value is the 17 bytes of addresses and ranges, which sorts them, and the text
-- of other kinds.
CREATE TABLE allow_items (
  list       TEXT NOT NULL,
  kind       TEXT NOT NULL,
  value      BLOB NOT NULL,
  reason     TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  by         TEXT NOT NULL,
  PRIMARY KEY (list, kind, value)
) STRICT, WITHOUT ROWID;

-- Lists that machines hold and that are not for them any more, until they are
-- known to have heard.
CREATE TABLE allow_withdrawals (
  machine TEXT NOT NULL,
  list    TEXT NOT NULL,
  name    TEXT NOT NULL,
  since   INTEGER NOT NULL,
  ordered INTEGER NOT NULL,
  PRIMARY KEY (machine, list)
) STRICT, WITHOUT ROWID;

-- What names and providers stood for when they were last asked.
CREATE TABLE allow_answers (
  name TEXT NOT NULL PRIMARY KEY,
  at   INTEGER NOT NULL,
  data BLOB NOT NULL
) STRICT;

INSERT INTO allowlists (id, organisation, name, description, targets, created_at, updated_at, created_by)
  SELECT 'central', '', 'central', '', '[]', MIN(created_at), MAX(created_at), '' FROM allowlist HAVING COUNT(*) > 0;

INSERT INTO allow_items (list, kind, value, reason, created_at, expires_at, by)
  SELECT 'central', CASE WHEN SUBSTR(source, 17) = x'80' THEN 'address' ELSE 'range' END, source, reason, created_at, expires_at, '' FROM allowlist;

DROP TABLE allowlist;

-- +goose Down

CREATE TABLE allowlist (
  source     BLOB NOT NULL PRIMARY KEY,
  reason     TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;

INSERT INTO allowlist (source, reason, created_at, expires_at)
  SELECT value, reason, created_at, expires_at FROM allow_items WHERE list = 'central' AND kind IN ('address', 'range');

DROP TABLE allow_answers;
DROP TABLE allow_withdrawals;
DROP TABLE allow_items;
DROP TABLE allowlists;

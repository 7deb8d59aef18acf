-- Bundles that were imported.

-- +goose Up
CREATE TABLE bundles (
  id          TEXT NOT NULL PRIMARY KEY,
  made_at     INTEGER NOT NULL,
  valid_until INTEGER NOT NULL,
  made_on     TEXT NOT NULL,
  version     TEXT NOT NULL,
  signed_by   TEXT NOT NULL,
  imported_at INTEGER NOT NULL,
  imported_by TEXT NOT NULL
) STRICT;

-- +goose Down
DROP TABLE bundles;

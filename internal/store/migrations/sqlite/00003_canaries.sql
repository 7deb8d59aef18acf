-- What is known to be good and never published. An id is its origin, a slash and
-- its value, so that ids in order are canaries by origin.

-- +goose Up
CREATE TABLE canaries (
  id         TEXT NOT NULL PRIMARY KEY,
  kind       TEXT NOT NULL,
  value      TEXT NOT NULL,
  origin     TEXT NOT NULL,
  reason     TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  by         TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE canaries;

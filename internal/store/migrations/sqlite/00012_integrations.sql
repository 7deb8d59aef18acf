-- What reads lists without being an engine: firewalls and bouncers. secret is
-- the SHA-256 of a password or key; addresses have the form of sources.

-- +goose Up
CREATE TABLE integrations (
  id           TEXT NOT NULL PRIMARY KEY,
  organisation TEXT NOT NULL,
  name         TEXT NOT NULL,
  kind         TEXT NOT NULL,
  format       TEXT NOT NULL,
  budget       INTEGER NOT NULL,
  collateral   REAL NOT NULL,
  no_ipv4      INTEGER NOT NULL,
  no_ipv6      INTEGER NOT NULL,
  pull_every   INTEGER NOT NULL,
  username     TEXT NOT NULL,
  secret       BLOB NOT NULL,
  created_at   INTEGER NOT NULL,
  created_by   TEXT NOT NULL,
  rotated_at   INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX integrations_by_name ON integrations (organisation, name);

-- Written often, and apart from what people decide.
CREATE TABLE integration_contacts (
  integration TEXT NOT NULL PRIMARY KEY,
  pull        INTEGER NOT NULL,
  agent       TEXT NOT NULL,
  address     BLOB NOT NULL,
  entries     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The last report of each address that a bouncer reports from.
CREATE TABLE integration_reports (
  integration TEXT NOT NULL,
  address     BLOB NOT NULL,
  at          INTEGER NOT NULL,
  body        BLOB NOT NULL,
  PRIMARY KEY (integration, address)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE integration_reports;
DROP TABLE integration_contacts;
DROP TABLE integrations;

-- Requests to be taken off the community list. line, network and asker are what
-- requests are counted by; addresses have the form of sources.

-- +goose Up
CREATE TABLE unbans (
  id          TEXT NOT NULL PRIMARY KEY,
  source      BLOB NOT NULL,
  address     BLOB NOT NULL,
  requester   BLOB NOT NULL,
  line        BLOB NOT NULL,
  network     BLOB NOT NULL,
  asker       BLOB NOT NULL,
  contact     TEXT NOT NULL,
  message     TEXT NOT NULL,
  proof       TEXT NOT NULL,
  state       TEXT NOT NULL,
  requested   INTEGER NOT NULL,
  decided     INTEGER NOT NULL,
  by          TEXT NOT NULL,
  reason      TEXT NOT NULL,
  round       INTEGER NOT NULL,
  grace_until INTEGER NOT NULL,
  delivered   INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX unbans_open ON unbans (source) WHERE state = 'waiting';
CREATE INDEX unbans_untold ON unbans (id) WHERE state = 'granted' AND delivered = 0;
CREATE INDEX unbans_granted ON unbans (decided) WHERE state = 'granted';
CREATE INDEX unbans_granted_by_network ON unbans (network, decided) WHERE state = 'granted';
CREATE INDEX unbans_by_line ON unbans (line, decided);
CREATE INDEX unbans_by_asker ON unbans (asker, requested);

-- +goose Down
DROP TABLE unbans;

-- What migrations/sqlite make, in alphabetical order. A test compares; go test -update writes it.

CREATE TABLE alerts (
  part          INTEGER NOT NULL,
  id            BLOB NOT NULL,
  at            INTEGER NOT NULL,
  received      INTEGER NOT NULL,
  organisation  TEXT NOT NULL,
  machine       TEXT NOT NULL,
  source        BLOB NOT NULL,
  scope         TEXT NOT NULL,
  value         TEXT NOT NULL,
  scenario      TEXT NOT NULL,
  scenario_hash TEXT NOT NULL,
  version       TEXT NOT NULL,
  trust         INTEGER NOT NULL,
  kind          TEXT NOT NULL,
  country       TEXT NOT NULL,
  asn           INTEGER NOT NULL,
  as_name       TEXT NOT NULL,
  flags         INTEGER NOT NULL,
  detail        BLOB NOT NULL,
  UNIQUE (at, id)
) STRICT;

CREATE INDEX alerts_by_organisation ON alerts (organisation, at);

CREATE TABLE allow_answers (
  name TEXT NOT NULL PRIMARY KEY,
  at   INTEGER NOT NULL,
  data BLOB NOT NULL
) STRICT;

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

CREATE TABLE allow_withdrawals (
  machine TEXT NOT NULL,
  list    TEXT NOT NULL,
  name    TEXT NOT NULL,
  since   INTEGER NOT NULL,
  ordered INTEGER NOT NULL,
  PRIMARY KEY (machine, list)
) STRICT, WITHOUT ROWID;

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

CREATE TABLE api_tokens (
  id         TEXT NOT NULL PRIMARY KEY,
  hash       BLOB NOT NULL UNIQUE,
  user_id    TEXT NOT NULL,
  name       TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
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

CREATE TABLE behaviours (
  behaviour INTEGER NOT NULL PRIMARY KEY,
  data      BLOB NOT NULL
) STRICT;

CREATE TABLE blocklist_days (
  list    TEXT NOT NULL,
  day     INTEGER NOT NULL,
  size    INTEGER NOT NULL,
  added   INTEGER NOT NULL,
  removed INTEGER NOT NULL,
  PRIMARY KEY (list, day)
) STRICT, WITHOUT ROWID;

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

CREATE TABLE blocklist_hits (
  list TEXT NOT NULL,
  day  INTEGER NOT NULL,
  unit TEXT NOT NULL,
  hits INTEGER NOT NULL,
  PRIMARY KEY (list, day, unit)
) STRICT, WITHOUT ROWID;

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

CREATE TABLE canaries (
  id         TEXT NOT NULL PRIMARY KEY,
  kind       TEXT NOT NULL,
  value      TEXT NOT NULL,
  origin     TEXT NOT NULL,
  reason     TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  by         TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE claims (
  machine    TEXT NOT NULL PRIMARY KEY,
  code_hash  BLOB NOT NULL UNIQUE,
  name       TEXT NOT NULL,
  tags       TEXT NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE contacts (
  machine   TEXT NOT NULL PRIMARY KEY,
  login     INTEGER NOT NULL,
  pull      INTEGER NOT NULL,
  push      INTEGER NOT NULL,
  metrics   INTEGER NOT NULL,
  poll      INTEGER NOT NULL,
  heartbeat INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE enrolment_keys (
  id           TEXT NOT NULL PRIMARY KEY,
  hash         BLOB NOT NULL UNIQUE,
  organisation TEXT NOT NULL,
  tags         TEXT NOT NULL,
  auto_accept  INTEGER NOT NULL,
  max_uses     INTEGER NOT NULL,
  uses         INTEGER NOT NULL,
  created_at   INTEGER NOT NULL,
  expires_at   INTEGER NOT NULL,
  revoked_at   INTEGER NOT NULL
) STRICT;

CREATE TABLE epochs (
  epoch INTEGER NOT NULL,
  data  BLOB NOT NULL
) STRICT;

CREATE TABLE evidence (
  part    INTEGER NOT NULL,
  source  BLOB NOT NULL,
  last_at INTEGER NOT NULL,
  data    BLOB NOT NULL,
  PRIMARY KEY (part, source)
) STRICT, WITHOUT ROWID;

CREATE TABLE feed_entries (
  list    TEXT NOT NULL,
  held    INTEGER NOT NULL,
  sources BLOB NOT NULL,
  PRIMARY KEY (list, held)
) STRICT;

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

CREATE TABLE integration_contacts (
  integration TEXT NOT NULL PRIMARY KEY,
  pull        INTEGER NOT NULL,
  agent       TEXT NOT NULL,
  address     BLOB NOT NULL,
  entries     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE integration_reports (
  integration TEXT NOT NULL,
  address     BLOB NOT NULL,
  at          INTEGER NOT NULL,
  body        BLOB NOT NULL,
  PRIMARY KEY (integration, address)
) STRICT, WITHOUT ROWID;

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

CREATE TABLE limits (
  name   TEXT NOT NULL PRIMARY KEY,
  data   TEXT NOT NULL,
  set_at INTEGER NOT NULL,
  set_by TEXT NOT NULL
) STRICT;

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

CREATE TABLE lookup_usage (
  lookup_key TEXT NOT NULL,
  day        INTEGER NOT NULL,
  calls      INTEGER NOT NULL,
  PRIMARY KEY (lookup_key, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE machine_reports (
  machine TEXT NOT NULL,
  kind    TEXT NOT NULL,
  at      INTEGER NOT NULL,
  body    BLOB NOT NULL,
  PRIMARY KEY (machine, kind)
) STRICT;

CREATE TABLE machines (
  id            TEXT NOT NULL PRIMARY KEY,
  state         TEXT NOT NULL,
  organisation  TEXT NOT NULL,
  name          TEXT NOT NULL,
  tags          TEXT NOT NULL,
  scenarios     TEXT NOT NULL,
  version       TEXT NOT NULL,
  credential    BLOB NOT NULL,
  registered_at INTEGER NOT NULL,
  enrolled_at   INTEGER NOT NULL,
  tokens_from   INTEGER NOT NULL
, honeypot INTEGER NOT NULL DEFAULT 0) STRICT;

CREATE INDEX machines_by_organisation ON machines (organisation, id);

CREATE INDEX machines_by_state ON machines (state, id);

CREATE TABLE numbers (
  kind   TEXT NOT NULL,
  number INTEGER NOT NULL,
  name   TEXT NOT NULL,
  PRIMARY KEY (kind, number),
  UNIQUE (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE operator_verdicts (
  source     BLOB NOT NULL PRIMARY KEY,
  listed     INTEGER NOT NULL,
  until      INTEGER NOT NULL,
  reason     TEXT NOT NULL,
  by         TEXT NOT NULL,
  created_at INTEGER NOT NULL
, remedy TEXT NOT NULL DEFAULT '') STRICT;

CREATE TABLE orders (
  machine    TEXT NOT NULL,
  issued_at  INTEGER NOT NULL,
  id         TEXT NOT NULL UNIQUE,
  kind       TEXT NOT NULL,
  data       BLOB NOT NULL,
  message    TEXT NOT NULL,
  issued_by  TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (machine, issued_at)
) STRICT;

CREATE INDEX orders_by_expiry ON orders (expires_at);

CREATE TABLE organisations (
  id         TEXT NOT NULL PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  plan       TEXT NOT NULL,
  fleet      TEXT NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE overrides (
  id    TEXT NOT NULL PRIMARY KEY,
  data  TEXT NOT NULL,
  since INTEGER NOT NULL,
  until INTEGER NOT NULL
) STRICT;

CREATE TABLE positions (
  part     INTEGER NOT NULL PRIMARY KEY,
  position INTEGER NOT NULL
) STRICT;

CREATE TABLE removals (
  at        INTEGER NOT NULL PRIMARY KEY,
  machine   TEXT NOT NULL,
  decisions TEXT NOT NULL
) STRICT;

CREATE TABLE rollup_positions (
  part     INTEGER NOT NULL PRIMARY KEY,
  position INTEGER NOT NULL
) STRICT;

CREATE TABLE rollups (
  part   INTEGER NOT NULL,
  source BLOB NOT NULL,
  day    INTEGER NOT NULL,
  data   BLOB NOT NULL,
  PRIMARY KEY (part, source, day)
) STRICT, WITHOUT ROWID;

CREATE INDEX rollups_by_day ON rollups (day);

CREATE TABLE secrets (
  name  TEXT NOT NULL PRIMARY KEY,
  value BLOB NOT NULL
) STRICT;

CREATE TABLE sieve_blocks (
  block    INTEGER NOT NULL PRIMARY KEY,
  position INTEGER NOT NULL,
  data     BLOB NOT NULL
) STRICT;

CREATE INDEX sieve_blocks_by_position ON sieve_blocks (position);

CREATE TABLE sieve_chunks (
  chunk   INTEGER NOT NULL PRIMARY KEY,
  marks   BLOB NOT NULL,
  columns BLOB NOT NULL,
  prints  BLOB NOT NULL,
  times   BLOB NOT NULL
) STRICT;

CREATE TABLE sieve_combos (
  id       INTEGER NOT NULL PRIMARY KEY,
  scenario INTEGER NOT NULL,
  country  INTEGER NOT NULL,
  machine  INTEGER NOT NULL
) STRICT;

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

CREATE TABLE sieve_large (
  id   INTEGER NOT NULL PRIMARY KEY,
  data BLOB NOT NULL
) STRICT;

CREATE TABLE sieve_names (
  id   INTEGER NOT NULL PRIMARY KEY,
  kind INTEGER NOT NULL,
  name TEXT NOT NULL
) STRICT;

CREATE TABLE sieve_rollups (
  span  INTEGER NOT NULL,
  start INTEGER NOT NULL,
  data  BLOB NOT NULL,
  PRIMARY KEY (span, start)
) STRICT, WITHOUT ROWID;

CREATE TABLE sieve_sources (
  chunk  INTEGER NOT NULL,
  source INTEGER NOT NULL,
  id     INTEGER NOT NULL,
  PRIMARY KEY (chunk, source, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE spool_cursors (
  engine   BLOB NOT NULL PRIMARY KEY,
  part     INTEGER NOT NULL,
  position INTEGER NOT NULL,
  signal   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX spool_cursors_by_position ON spool_cursors (part, position);

CREATE TABLE spool_positions (
  part     INTEGER NOT NULL PRIMARY KEY,
  position INTEGER NOT NULL
) STRICT;

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

CREATE TABLE spool_tokens (
  engine BLOB NOT NULL,
  token  BLOB NOT NULL,
  seen   INTEGER NOT NULL,
  sealed BLOB NOT NULL,
  PRIMARY KEY (engine, token)
) STRICT, WITHOUT ROWID;

CREATE INDEX spool_tokens_by_time ON spool_tokens (seen);

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

CREATE TABLE trust (
  machine INTEGER NOT NULL PRIMARY KEY,
  rank    INTEGER NOT NULL,
  changed INTEGER NOT NULL,
  data    BLOB NOT NULL
) STRICT;

CREATE TABLE trust_events (
  machine     INTEGER NOT NULL,
  at          INTEGER NOT NULL,
  kind        TEXT NOT NULL,
  behaviour   TEXT NOT NULL,
  source      BLOB NOT NULL,
  amount      REAL NOT NULL,
  rank_before INTEGER NOT NULL,
  rank_after  INTEGER NOT NULL,
  PRIMARY KEY (machine, at, kind, behaviour, source)
) STRICT, WITHOUT ROWID;

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

CREATE INDEX unbans_by_asker ON unbans (asker, requested);

CREATE INDEX unbans_by_line ON unbans (line, decided);

CREATE INDEX unbans_granted ON unbans (decided) WHERE state = 'granted';

CREATE INDEX unbans_granted_by_network ON unbans (network, decided) WHERE state = 'granted';

CREATE UNIQUE INDEX unbans_open ON unbans (source) WHERE state = 'waiting';

CREATE INDEX unbans_untold ON unbans (id) WHERE state = 'granted' AND delivered = 0;

CREATE TABLE users (
  id            TEXT NOT NULL PRIMARY KEY,
  name          TEXT NOT NULL UNIQUE,
  password_hash TEXT NOT NULL,
  role          TEXT NOT NULL,
  organisation  TEXT NOT NULL,
  created_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE verdict_history (
  at       INTEGER NOT NULL,
  source   BLOB NOT NULL,
  audience TEXT NOT NULL,
  listed   INTEGER NOT NULL,
  remedy   TEXT NOT NULL,
  scenario TEXT NOT NULL,
  since    INTEGER NOT NULL,
  until    INTEGER NOT NULL,
  reasons  TEXT NOT NULL,
  PRIMARY KEY (at, source, audience)
) STRICT, WITHOUT ROWID;

CREATE INDEX verdict_history_by_source ON verdict_history (source, audience, at);

CREATE TABLE verdicts (
  part     INTEGER NOT NULL,
  source   BLOB NOT NULL,
  audience TEXT NOT NULL,
  listed   INTEGER NOT NULL,
  scenario TEXT NOT NULL,
  since    INTEGER NOT NULL,
  until    INTEGER NOT NULL,
  changed  INTEGER NOT NULL,
  reasons  TEXT NOT NULL, remedy TEXT NOT NULL DEFAULT 'ban', support REAL NOT NULL DEFAULT 0, independent INTEGER NOT NULL DEFAULT 0, last INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (part, source, audience)
) STRICT, WITHOUT ROWID;

CREATE INDEX verdicts_by_change ON verdicts (changed);

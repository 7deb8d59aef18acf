package store_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pressly/goose/v3"

	"muster"
	"muster/internal/ratelimit"
	"muster/internal/store"
)

// migrator is what an administrator's goose would do with the file at path.
func migrator(t *testing.T, path string) *goose.Provider {
	t.Helper()
	p, err := goose.NewProvider(goose.DialectSQLite3, raw(t, path), os.DirFS("migrations/sqlite"), goose.WithTableName("schema_version"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A database that the first release made opens, with all that is in it, and
// takes what this one keeps.
func TestUpgradeFromTheFirstSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "muster.db")
	if _, err := migrator(t, path).UpTo(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for _, stmt := range []string{
		`INSERT INTO secrets VALUES ('jwt', x'0102')`,
		`INSERT INTO machines VALUES ('m1', 'active', 'o1', 'web', '["a"]', '[]', 'v1.7.8', x'03', 1800000000000000, 0, 0)`,
		`INSERT INTO contacts VALUES ('m1', 1800000000000001, 0, 0, 0, 0, 0)`,
		`INSERT INTO allowlist VALUES (x'00000000000000000000ffffc000020078', 'ours', 1800000000000000, 0)`,
		`UPDATE positions SET position = 7 WHERE part = 3`,
	} {
		if _, err := raw(t, path).Exec(stmt); err != nil {
			t.Fatal(err)
		}
	}

	db, ctx := open(t, "sqlite:"+path), t.Context()
	secret, err := db.Secret(ctx, "jwt")
	if err != nil || string(secret) != "\x01\x02" {
		t.Errorf("expected the secret, got %x, %v", secret, err)
	}
	first := time.UnixMicro(1_800_000_000_000_000).UTC()
	m, err := db.Machine(ctx, "m1")
	want := muster.Machine{
		ID: "m1", State: muster.Active, Organisation: "o1", Name: "web", Tags: []string{"a"}, Version: "v1.7.8",
		Credential: []byte{3}, RegisteredAt: first, Seen: muster.Contacts{Login: first.Add(time.Microsecond)},
	}
	if diff := cmp.Diff(want, m); err != nil || diff != "" {
		t.Errorf("the machine: %v %s", err, diff)
	}
	allowed, err := db.AllowEntries(ctx, first)
	if err != nil || len(allowed) != 1 || allowed[0].Source.String() != "192.0.2.0/24" {
		t.Errorf("expected the allowlist to have 192.0.2.0/24, got %v, %v", allowed, err)
	}
	lists, err := db.Allowlists(ctx)
	central := muster.Allowlist{ID: "central", Name: "central", CreatedAt: first, UpdatedAt: first}
	if diff := cmp.Diff([]muster.Allowlist{central}, lists); err != nil || diff != "" {
		t.Errorf("the allowlists: %v %s", err, diff)
	}
	positions, err := db.Positions(ctx)
	if err != nil || positions[3] != 7 {
		t.Errorf("expected partition 3 at position 7, got %v, %v", positions, err)
	}

	ban := ratelimit.Ban{Prefix: netip.MustParsePrefix("192.0.2.7/32"), Scope: ratelimit.ScopeAll, Reason: "logins", Since: first, Until: first.Add(time.Hour)}
	if err := db.ChangeBans(ctx, []ratelimit.Ban{ban}, nil, nil, muster.AuditEntry{ID: "1", Action: "ban.add"}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	bans, err := open(t, "sqlite:"+path).Bans(ctx, first)
	if err != nil || len(bans) != 1 || bans[0] != ban {
		t.Errorf("expected the ban after another start, got %v, %v", bans, err)
	}
}

// What the crowd was not told of machines and verdicts before it kept trust is
// what it would say of them: no honeypots, and bans.
func TestUpgradeToTrust(t *testing.T) {
	path := filepath.Join(t.TempDir(), "muster.db")
	if _, err := migrator(t, path).UpTo(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	for _, stmt := range []string{
		`INSERT INTO machines VALUES ('m1', 'active', 'o1', 'web', '[]', '[]', 'v1.7.8', x'03', 1800000000000000, 0, 0)`,
		`INSERT INTO contacts VALUES ('m1', 0, 0, 0, 0, 0, 0)`,
		`INSERT INTO verdicts VALUES (3, x'00000000000000000000ffffc000020780', '', 1, 'a/b', 1800000000000000, 1800000000000009, 1800000000000001,
			'{"machines":3,"organisations":2,"scenarios":["a/b"],"first":1,"last":2,"rule":"three"}')`,
	} {
		if _, err := raw(t, path).Exec(stmt); err != nil {
			t.Fatal(err)
		}
	}

	db, ctx := open(t, "sqlite:"+path), t.Context()
	first := time.UnixMicro(1_800_000_000_000_000).UTC()
	m, err := db.UpdateMachine(ctx, "m1", func(m *muster.Machine) error {
		if m.Honeypot {
			t.Error("expected that the machine is no honeypot")
		}
		m.Honeypot = true
		return nil
	})
	if err != nil || !m.Honeypot {
		t.Fatalf("expected a honeypot, got %v, %v", m, err)
	}
	listed := muster.Verdict{
		Source: source(0xc0000207), Listed: true, Remedy: muster.RemedyBan, Scenario: "a/b",
		Since: first, Until: first.Add(9 * time.Microsecond), Changed: first.Add(time.Microsecond),
		Reasons: muster.Reasons{Machines: 3, Organisations: 2, Scenarios: []string{"a/b"}, First: 1, Last: 2, Rule: "three"},
	}
	sameSource := cmp.Comparer(func(a, b muster.Source) bool { return a == b })
	// The judge of the first release is gone, and its verdicts with its evidence.
	if v, err := db.Verdict(ctx, muster.Network, listed.Source); muster.CodeOf(err) != muster.NotFound {
		t.Fatalf("the verdict: %+v, %v", v, err)
	}

	// A listing begins, goes on, which is no change, and ends, which is one.
	goesOn, ended := listed, listed
	goesOn.Changed = first.Add(time.Second)
	ended.Changed, ended.Listed = first.Add(time.Minute), false
	for _, v := range []muster.Verdict{listed, goesOn, ended} {
		if err := db.Tally(ctx, func(tx *store.TallyTx) error { return tx.PutVerdicts([]uint8{3}, []muster.Verdict{v}) }); err != nil {
			t.Fatal(err)
		}
	}
	history, err := db.VerdictHistory(ctx, listed.Source, muster.Network, 0)
	if diff := cmp.Diff([]muster.Verdict{ended, listed}, history, sameSource); err != nil || diff != "" {
		t.Fatalf("the history: %v %s", err, diff)
	}
}

// Every step can be taken back, and again.
func TestMigrationsDownAndUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "muster.db")
	p := migrator(t, path)
	for range 2 {
		if _, err := p.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.DownTo(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		var left int
		err := raw(t, path).QueryRow(`SELECT COUNT(*) FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND tbl_name <> 'schema_version'`).Scan(&left)
		if err != nil || left != 0 {
			t.Fatalf("expected nothing left of the schema, got %d tables and indexes, %v", left, err)
		}
	}
}

package roles

import (
	"bytes"
	"crypto/ed25519"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster"
	"muster/internal/bundle"
	"muster/internal/console"
	"muster/internal/ops"
	"muster/internal/store"
)

func bundleNode(t *testing.T) *bundles {
	t.Helper()
	cfg := DefaultConfig()
	cfg.DataDir = t.TempDir()
	db, err := store.Open(t.Context(), cfg.DatabaseURL(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &bundles{node: &node{cfg: cfg, db: db, registry: ops.NewRegistry(), log: slog.New(slog.DiscardHandler), now: func() time.Time { return time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC) }}}
}

func bundleOf(t *testing.T, key ed25519.PrivateKey, files map[string]string) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	m := &bundle.Manifest{ID: "0190b0a0-0000-7000-8000-000000000001", MadeAt: made, ValidUntil: made.AddDate(0, 3, 0)}
	m.Lists = []bundle.List{{Name: "ours", Remedy: muster.RemedyBan, Entries: 1}}
	var b bytes.Buffer
	if err := bundle.Pack(&b, dir, m, key, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Whatever is wrong with a bundle, signed as it is, nothing of it stays.
func TestFailedImportChangesNothing(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	const list = "{\"value\":\"9.9.9.10\"}\n"
	for name, files := range map[string]map[string]string{
		"a name that is taken": {"lists/ours.jsonl": list},
		"a line":               {"lists/ours.jsonl": "{\"value\":\"9.9.9.999\"}\n"},
		"a hub":                {"lists/ours.jsonl": list, "hub/.index.json": `{"scenarios":{"a/b":{"path":"../x"}}}`},
		"a database":           {"lists/ours.jsonl": list, "enrich/asn.mmdb": "none"},
		"a country database":   {"lists/ours.jsonl": list, "enrich/country.mmdb": ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := bundleNode(t)
			taken := muster.Blocklist{ID: "own", Name: "bundle-ours", Kind: muster.CustomList, CreatedBy: "ada"}
			if err := b.db.CreateBlocklist(t.Context(), taken); err != nil {
				t.Fatal(err)
			}
			_, err := b.Import(t.Context(), bytes.NewReader(bundleOf(t, key, files)), console.BundleImport{Key: key.Public().(ed25519.PublicKey)})
			if code := muster.CodeOf(err); code != muster.Invalid && code != muster.Exists {
				t.Fatalf("expected the bundle to be refused, got %v", err)
			}
			left, err := os.ReadDir(filepath.Join(b.cfg.DataDir, bundlesDir))
			if err != nil || len(left) != 0 {
				t.Errorf("expected no files to stay, got %v, %v", left, err)
			}
			imported, err := b.db.Bundles(t.Context(), 10)
			lists, err2 := b.db.Blocklists(t.Context())
			if err != nil || err2 != nil || len(imported) != 0 || len(lists) != 1 {
				t.Errorf("expected nothing in the database, got %v, %v, %v, %v", imported, lists, err, err2)
			}
		})
	}
}

// A crash between the database's transaction and the files' being put in force
// is made up for at the start.
func TestStartAfterACrashOfAnImport(t *testing.T) {
	b := bundleNode(t)
	dir := filepath.Join(b.cfg.DataDir, bundlesDir)
	const first, second = "0190b0a0-0000-7000-8000-000000000001", "0190b0a0-0000-7000-8000-000000000002"
	for n, id := range []string{first, second} {
		at := time.Date(2026, 5, 1+n, 0, 0, 0, 0, time.UTC)
		if err := os.MkdirAll(filepath.Join(dir, id+".1", "hub"), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := b.db.ImportBundle(t.Context(), muster.BundleContent{Bundle: muster.Bundle{ID: id, MadeAt: at, ImportedAt: at}}, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "incoming-7"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := point(dir, first+".1"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.useBundle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(filepath.Join(dir, currentBundle)); err != nil || got != second+".1" {
			t.Errorf("expected the second bundle in force, got %s, %v", got, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("expected the bundle in force alone, got %v, %v", left, err)
	}
}

// The engine's word counts only where there is no hub at all.
func TestHubDigests(t *testing.T) {
	b := bundleNode(t)
	known, taxonomy, err := b.buildHub()
	if err != nil {
		t.Fatal(err)
	}
	if !known.Knows("whatever") || taxonomy.Len() == 0 {
		t.Error("without a hub the engine's word and the built-in taxonomy count")
	}
	b.cfg.Hub.Dir = filepath.Join(t.TempDir(), "none")
	if _, _, err := b.buildHub(); err == nil {
		t.Error("expected an error about a folder that is not there")
	}
}

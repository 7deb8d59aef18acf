package store_test

import (
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/store"
)

var update = flag.Bool("update", false, "write schema.sqlite.sql anew from the migrations")

// raw opens a database behind the store's back.
func raw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// schema.sqlite.sql is for people to read; the migrations are what counts.
func TestSchemaFileIsWhatMigrationsMake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "muster.db")
	open(t, "sqlite:"+path)
	rows, err := raw(t, path).Query(`SELECT sql FROM sqlite_master
		WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' AND tbl_name <> 'schema_version' ORDER BY tbl_name, type DESC, name`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var made strings.Builder
	made.WriteString("-- What migrations/sqlite make, in alphabetical order. A test compares; go test -update writes it.\n")
	for rows.Next() {
		var stmt string
		if err := rows.Scan(&stmt); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&made, "\n%s;\n", stmt)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("schema.sqlite.sql", []byte(made.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	checked, err := os.ReadFile("schema.sqlite.sql")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(checked), made.String()); diff != "" {
		t.Fatalf("schema.sqlite.sql differs from what the migrations make; file -, made +:\n%s", diff)
	}
}

func TestOpenTellsWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "text")
	if err := os.WriteFile(file, []byte(strings.Repeat("this is no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	if err := open(t, "sqlite:"+newer).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := raw(t, newer).Exec(`INSERT INTO schema_version (version_id, is_applied) VALUES (9999, 1)`); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		url, says string
		code      muster.Code
	}{
		{"postgres://u:hunter2@localhost/muster", "PostgreSQL is not in this release", muster.Invalid},
		{"mysql://x", `got one with scheme "mysql"`, muster.Invalid},
		{"", "expected a URL like sqlite:", muster.Invalid},
		{"sqlite:", "expected the path of a file", muster.Invalid},
		{"sqlite::memory:", "expected the path of a file", muster.Invalid},
		{"sqlite:" + dir + "/none/muster.db", "none does not exist: make it first", ""},
		{"sqlite:" + file + "/muster.db", "text should be a directory and is a file", ""},
		{"sqlite:" + dir, "must be readable and writable by this user", ""},
		{"sqlite:" + file, "text is no SQLite database", ""},
		{"sqlite:" + newer, "the database has schema 9999 and this release knows", muster.Invalid},
	} {
		_, err := store.Open(t.Context(), tt.url, store.Options{})
		switch {
		case err == nil:
			t.Errorf("%s: expected an error", tt.url)
		case !strings.Contains(err.Error(), tt.says):
			t.Errorf("%s: expected an error that says %q, got: %v", tt.url, tt.says, err)
		case muster.CodeOf(err) != tt.code:
			t.Errorf("%s: expected the code %q, got %q", tt.url, tt.code, muster.CodeOf(err))
		case strings.Contains(err.Error(), "hunter2"):
			t.Errorf("the error shows a password: %v", err)
		}
	}
}

func TestOpenInReadOnlyDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), "sqlite:"+filepath.Join(dir, "muster.db"), store.Options{})
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "writable by this user") {
		t.Fatalf("expected an error about the permission to write, got %v", err)
	}
}

func TestOpenAgain(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	const name = "a b?c#d%41&é.db"
	url := "sqlite:" + name // relative
	db := open(t, url)
	if err := db.PutSecret(t.Context(), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(filepath.Join(dir, name+suffix))
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s%s: expected mode 600, because keys are in it, got %o", name, suffix, mode)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 {
		t.Errorf("expected one file after Close, with the log folded in, got %v", left)
	}
	if v, err := open(t, url).Secret(t.Context(), "k"); err != nil || string(v) != "v" {
		t.Fatalf("expected v after opening again, got %q, %v", v, err)
	}
}

// Two processes on one file (a server and an admin command) wait for each other.
func TestTwoOnOneFile(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "muster.db")
	dbs := []*store.DB{open(t, url), open(t, url)}
	errs := make(chan error)
	for i, db := range dbs {
		go func() {
			for n := range 50 {
				if err := db.PutSecret(t.Context(), fmt.Sprint(i, "-", n), nil); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range dbs {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	for i := range dbs {
		for n := range 50 {
			if _, err := dbs[1-i].Secret(t.Context(), fmt.Sprint(i, "-", n)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What was stored last is recognised after a restart and after a transaction
// that failed.
func TestRecentAlertsSurvive(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "muster.db")
	parts, batch := signals(rand.New(rand.NewPCG(1, 2)), 1000)
	for i, s := range batch {
		s.Received = time.UnixMilli(1_800_000_000_000 + int64(i)).UTC()
		s.At = s.Received
	}
	resend := func(s *muster.Signal) *muster.Signal {
		again := *s
		again.At, again.Received = s.At.Add(time.Hour), s.Received.Add(time.Hour)
		return &again
	}
	openSmall := func() *store.DB {
		db, err := store.Open(t.Context(), url, store.Options{RecentAlerts: 100})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	insert := func(db *store.DB, want bool, parts []uint8, signals []*muster.Signal, result error) {
		t.Helper()
		err := db.Tally(t.Context(), func(tx *store.TallyTx) error {
			fresh, err := tx.InsertAlerts(parts, signals)
			if err != nil {
				return err
			}
			if slices.Contains(fresh, !want) {
				return fmt.Errorf("expected fresh to be %v for all, got %v", want, fresh)
			}
			return result
		})
		if err != result {
			t.Fatal(err)
		}
	}
	db := openSmall()
	insert(db, true, parts[:900], batch[:900], nil)
	insert(db, true, parts[900:], batch[900:], errors.New("rolled back"))
	insert(db, true, parts[900:], batch[900:], nil)
	insert(db, false, parts[:900], batch[:900], nil) // exactly the same: the database knows
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openSmall()
	defer db.Close()
	for i := 900; i < 1000; i++ {
		insert(db, false, parts[:1], []*muster.Signal{resend(batch[i])}, nil)
	}
	insert(db, true, parts[:1], []*muster.Signal{resend(batch[0])}, nil) // long ago
}

package roles

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"muster"
	"muster/internal/store"
)

// An entry that has ended is no longer in force, although nobody touched the
// allowlist.
func TestAllowlistEntriesEnd(t *testing.T) {
	db, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "muster.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	source := func(text string) muster.Source {
		s, err := muster.ParseSource(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	lists := func() []muster.AllowEntry {
		entries, err := db.AllowEntries(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		return entries
	}
	a := &truth{db: db, lists: lists, fixed: []muster.Source{source("9.9.9.10")}, now: func() time.Time { return now }}
	err = db.PutAllowEntries(t.Context(), []muster.AllowEntry{
		{Source: source("1.2.3.4"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)},
		{Source: source("1.2.3.5"), CreatedAt: now, ExpiresAt: now.Add(2 * time.Hour)},
		{Source: source("1.2.3.6"), CreatedAt: now},
	})
	if err != nil {
		t.Fatal(err)
	}
	check := func(due bool, covered map[string]bool) {
		t.Helper()
		if a.due() != due {
			t.Errorf("at %s: due is %v", now.Format(time.TimeOnly), a.due())
		}
		if err := a.load(t.Context()); err != nil {
			t.Fatal(err)
		}
		for text, want := range covered {
			if got := a.covers(source(text)); got != want {
				t.Errorf("at %s: %s is covered: %v, want %v", now.Format(time.TimeOnly), text, got, want)
			}
		}
		if a.due() {
			t.Errorf("at %s: due again right after loading", now.Format(time.TimeOnly))
		}
	}
	check(false, map[string]bool{"9.9.9.10": true, "9.9.9.9": true, "1.2.3.4": true, "1.2.3.5": true, "1.2.3.6": true, "1.2.3.7": false})
	now = now.Add(time.Hour - time.Microsecond)
	check(false, map[string]bool{"1.2.3.4": true})
	now = now.Add(time.Microsecond)
	check(true, map[string]bool{"9.9.9.10": true, "9.9.9.9": true, "1.2.3.4": false, "1.2.3.5": true, "1.2.3.6": true})
	now = now.Add(time.Hour)
	check(true, map[string]bool{"9.9.9.10": true, "1.2.3.5": false, "1.2.3.6": true})
	// Canaries are covered too, and ranges around them.
	if err := db.PutCanaries(t.Context(), []muster.Canary{{ID: "x", Kind: muster.CanaryAddress, Value: "1.2.4.1", Origin: "operator"}}); err != nil {
		t.Fatal(err)
	}
	check(false, map[string]bool{"1.2.4.1": true, "1.2.4.0/24": true, "1.2.4.2": false})
	// So is what an operator says is never listed, until that ends.
	for i, w := range []muster.OperatorVerdict{
		{Source: source("1.2.5.0/24"), Until: now.Add(time.Hour), Reason: "a partner", By: "jane", CreatedAt: now},
		{Source: source("1.2.6.1"), Reason: "a partner", By: "jane", CreatedAt: now},
		{Source: source("1.2.7.1"), Listed: true, Reason: "of a later release", By: "jane", CreatedAt: now},
	} {
		if err := db.PutOperatorVerdict(t.Context(), w, muster.AuditEntry{ID: fmt.Sprint(i), At: now}); err != nil {
			t.Fatal(err)
		}
	}
	check(false, map[string]bool{"1.2.5.9": true, "1.2.6.1": true, "1.2.7.1": false})
	if reason, _ := a.current().Allowlist.Covers(source("1.2.5.9")); reason != "operator: a partner" {
		t.Errorf("the reason is %q", reason)
	}
	now = now.Add(time.Hour)
	check(true, map[string]bool{"1.2.5.9": false, "1.2.6.1": true})
}

package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"muster"
)

// A full disk fails the transaction that needs room, with words that say so,
// and nothing else: once there is room all goes on.
func TestFullDisk(t *testing.T) {
	db, err := Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "muster.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	limit := func(pages int) {
		t.Helper()
		if err := db.writer.plain(fmt.Sprint("PRAGMA max_page_count = ", pages)); err != nil {
			t.Fatal(err)
		}
	}
	signal := &muster.Signal{ID: muster.SignalID{1}, Detail: make([]byte, 1<<20)}
	store := func() (fresh []bool, err error) {
		err = db.Tally(t.Context(), func(tx *TallyTx) error {
			if err := tx.Advance(1, 0, 1); err != nil {
				return err
			}
			fresh, err = tx.InsertAlerts([]uint8{1}, []*muster.Signal{signal})
			return err
		})
		return fresh, err
	}
	limit(60)
	if _, err := store(); !errors.Is(err, muster.Unavailable) || !strings.Contains(err.Error(), "is full: make room") {
		t.Fatalf("expected an error of code unavailable about the full disk, got %v", err)
	}
	if n, err := db.CountAlerts(t.Context()); n != 0 || err != nil {
		t.Fatalf("expected no alerts, got %d, %v", n, err)
	}
	limit(1 << 20)
	if fresh, err := store(); err != nil || !fresh[0] {
		t.Fatalf("expected the alert to be stored as a new one, got %v, %v", fresh, err)
	}
}

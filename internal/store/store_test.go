package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"muster/internal/abuse"
	"muster/internal/store"
	"muster/internal/store/storetest"
)

var _ abuse.Store = (*store.DB)(nil)

func TestMain(m *testing.M) {
	if url := os.Getenv(crashURL); url != "" {
		fmt.Fprintln(os.Stderr, commitForEver(url))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, url string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) *store.DB {
		return open(t, "sqlite:"+filepath.Join(t.TempDir(), "muster.db"))
	})
}

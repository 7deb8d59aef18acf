package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster"
	"muster/internal/store"
)

func openSpool(t *testing.T) *store.DB { return open(t, "sqlite:"+t.TempDir()+"/muster.db") }

func TestSpoolProgress(t *testing.T) {
	db, ctx := openSpool(t), t.Context()
	a, b := muster.SieveEngine{1, 15: 3}, muster.SieveEngine{2, 15: 3}
	if a.Partition() != 3 || b.Partition() != 3 {
		t.Fatal("the engines are of another partition")
	}
	commit := func(p muster.SpoolProgress) {
		t.Helper()
		if err := db.CommitSpool(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	state := func(want muster.SpoolState) {
		t.Helper()
		got, err := db.SpoolState(ctx)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%v (-want +got):\n%s", err, diff)
		}
	}
	state(muster.SpoolState{})
	ahead := []muster.SpoolCursor{{Engine: a, Position: 7, Index: 2}, {Engine: b, Position: 9}}
	commit(muster.SpoolProgress{Positions: map[uint8]uint64{3: 5, 63: 9}, Cursors: ahead})
	want := muster.SpoolState{Cursors: ahead}
	want.Positions[3], want.Positions[63] = 5, 9
	state(want)

	ahead[0].Position, ahead[0].Index = 8, 40
	commit(muster.SpoolProgress{Cursors: ahead[:1]})
	state(want)

	// What the position has passed is of no use, and goes; another partition's stays.
	commit(muster.SpoolProgress{Positions: map[uint8]uint64{3: 8, 4: 100}})
	want.Positions[3], want.Positions[4], want.Cursors = 8, 100, ahead[1:]
	state(want)
}

func TestSpoolRefused(t *testing.T) {
	db, ctx := openSpool(t), t.Context()
	at := time.UnixMicro(1_800_000_000_000_000).UTC()
	var all []muster.SpoolRefusal
	for i := range 10_010 {
		all = append(all, muster.SpoolRefusal{
			Engine: muster.SieveEngine{1}, Machine: "m", UUID: fmt.Sprint(i), Received: at, At: at.Add(time.Second),
			Status: 400, Reason: "status 400: no scenario", Raw: []byte(`{}`),
		})
	}
	if err := db.CommitSpool(ctx, muster.SpoolProgress{Refused: all}); err != nil {
		t.Fatal(err)
	}
	got, err := db.SpoolRefused(ctx, 20_000)
	if err != nil || len(got) != 10_000 {
		t.Fatalf("%d are kept, %v", len(got), err)
	}
	if diff := cmp.Diff(all[len(all)-1], got[0]); diff != "" {
		t.Errorf("the latest (-want +got):\n%s", diff)
	}
}

func TestSpoolTokens(t *testing.T) {
	db, ctx := openSpool(t), t.Context()
	at := time.UnixMicro(1_800_000_000_000_000).UTC()
	token := func(engine, n byte, age time.Duration) muster.SpoolToken {
		return muster.SpoolToken{Engine: muster.SieveEngine{engine}, Token: muster.SieveToken{n}, Seen: at.Add(-age), Sealed: []byte{n}}
	}
	put := func(tokens ...muster.SpoolToken) {
		t.Helper()
		for _, tk := range tokens {
			if err := db.PutSpoolToken(ctx, tk, 2); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(token(9, 9, 31*24*time.Hour), token(2, 8, time.Hour), token(1, 1, 3*time.Minute), token(1, 2, 2*time.Minute), token(1, 3, 0), token(1, 3, 0))
	got, err := db.SpoolTokens(ctx)
	want := []muster.SpoolToken{token(2, 8, time.Hour), token(1, 2, 2*time.Minute), token(1, 3, 0)}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

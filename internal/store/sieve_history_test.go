package store

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
)

func openSieve(t *testing.T) *DB {
	t.Helper()
	db, err := Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "muster.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// The queries of the sieve's history must not read whole tables.
func TestSieveHistoryPlans(t *testing.T) {
	db := openSieve(t)
	for _, tt := range []struct {
		query, plan string
	}{
		{sieveBlocksAmong(2), `
SEARCH sieve_blocks USING INTEGER PRIMARY KEY (rowid=?)`},
		{selectSieveBlocks + ` WHERE block >= ? AND block < ? ORDER BY block`, `
SEARCH sieve_blocks USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)`},
		{selectSieveBlocksAt, `
SEARCH sieve_blocks USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)
SCALAR SUBQUERY 2
SEARCH sieve_blocks USING COVERING INDEX sieve_blocks_by_position (position=?)
SCALAR SUBQUERY 1
SEARCH sieve_blocks USING COVERING INDEX sieve_blocks_by_position (position<?)
SCALAR SUBQUERY 4
SEARCH sieve_blocks USING COVERING INDEX sieve_blocks_by_position (position=?)
SCALAR SUBQUERY 3
SEARCH sieve_blocks USING COVERING INDEX sieve_blocks_by_position (position<?)`},
		{selectSieveSource, `
SEARCH sieve_sources USING PRIMARY KEY (chunk=? AND source=?)`},
		{sieveMarksAmong(2), `
SEARCH sieve_forwarded USING PRIMARY KEY (position=? AND part=?)
LIST SUBQUERY 4
SCAN 2-ROW VALUES CLAUSE`},
		{deleteOldestSieveBlocks, `
SEARCH sieve_blocks USING INTEGER PRIMARY KEY (rowid=?)
LIST SUBQUERY 1
SEARCH sieve_blocks USING INTEGER PRIMARY KEY (rowid<?)`},
		{deleteOldestSieveSources, `
SEARCH sieve_sources USING PRIMARY KEY (chunk=? AND source=? AND id=?)
LIST SUBQUERY 2
SEARCH sieve_sources USING PRIMARY KEY (chunk<?)`},
		{deleteOldestSieveMarks, `
SEARCH sieve_forwarded USING PRIMARY KEY (position=? AND part=?)
LIST SUBQUERY 2
SEARCH sieve_forwarded USING PRIMARY KEY (position<?)`},
	} {
		if plan := explainPlan(t, db.reader, tt.query); plan != tt.plan {
			t.Errorf("%s\nexpected the plan:%s\ngot:%s", tt.query, tt.plan, plan)
		}
	}
}

func TestPutSieve(t *testing.T) {
	db, ctx := openSieve(t), t.Context()
	at := time.Date(2026, 11, 20, 12, 0, 0, 123_456_000, time.UTC)
	w := muster.SieveWrite{
		Names:   []muster.SieveName{{ID: 0, Kind: muster.SieveCountry, Name: ""}, {ID: 1, Name: "größer 🦊"}},
		Combos:  []muster.SieveCombo{{ID: 0, Scenario: 1}},
		Blocks:  []muster.SieveBlock{{Number: 1 << 20, Position: 7, Data: []byte{1}}, {Number: 1<<20 + 1, Position: 9, Data: []byte{2}}, {Number: 1<<20 + 2, Position: 9, Data: []byte{3}}, {Number: 1<<20 + 3, Position: 12}},
		Large:   []muster.SieveLarge{{ID: 1 << 24, Data: []byte{4}}},
		Sources: []muster.SieveSource{{Source: -5, ID: 1 << 24}, {Source: -5, ID: 1<<24 + 9}, {Source: -5, ID: 1<<24 + 1<<16}},
		Chunks:  []muster.SieveChunk{{Number: 256, Columns: []byte{5}, Marks: []byte{6}, Times: []byte{7}, Prints: []byte{8}}, {Number: 257}},
		Rollups: []muster.SieveRollup{{Span: 1, Start: 3, Data: []byte{9}}, {Span: 24, Start: 0}},
		Marks:   []muster.SieveMark{{Position: 7, Partition: 3, At: at, Signals: []byte{10}}, {Position: 8, Partition: 3, At: at}},
	}
	w.To[3] = 8
	if err := db.PutSieve(ctx, &w); err != nil {
		t.Fatal(err)
	}
	same := func(what string, want, got any, err error) {
		t.Helper()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v: want -, got +:\n%s", what, err, diff)
		}
	}
	var blocks []int64
	err := db.EachSieveBlock(ctx, 1<<20+1, 1<<20+3, func(b muster.SieveBlock) error { blocks = append(blocks, b.Number); return nil })
	same("blocks from one to another", []int64{1<<20 + 1, 1<<20 + 2}, blocks, err)
	for position, want := range map[uint64][]int64{6: nil, 7: {0}, 8: {0}, 9: {0, 1, 2}, 11: {2}, 12: {2, 3}} {
		found, err := db.SieveBlocksAt(ctx, position)
		var got []int64
		for _, b := range found {
			got = append(got, b.Number-1<<20)
		}
		// Before a position stands the last block that began before it.
		same("blocks at a position", want, got, err)
	}
	first, err := db.FirstSieveBlock(ctx, 0)
	same("the first block", int64(1<<20), first, err)
	about, err := db.SieveAlertsAbout(ctx, 256, -5)
	same("alerts about an address", []int64{1<<24 + 9, 1 << 24}, about, err)
	times, err := db.SieveChunkTimes(ctx, 256)
	same("times", []byte{7}, times, err)
	prints, err := db.SieveChunkPrints(ctx, 256)
	same("prints", []byte{8}, prints, err)
	marks, err := db.SieveMarksOf(ctx, []muster.SieveMark{{Position: 7, Partition: 3}, {Position: 7, Partition: 4}})
	same("marks", w.Marks[:1], marks, err)

	again := muster.SieveWrite{From: w.To, To: w.To, DropRollups: w.Rollups[1:], ChunkMarks: []muster.SieveChunk{{Number: 256, Marks: []byte{66}}}, Blocks: []muster.SieveBlock{{Number: 1<<20 + 3, Position: 99, Data: []byte{33}}}}
	again.To[3] = 9
	if err := db.PutSieve(ctx, &again); err != nil {
		t.Fatal(err)
	}
	if err := db.PutSieve(ctx, &again); !errors.Is(err, ErrFenced) {
		t.Errorf("expected that a write from another position is fenced, got %v", err)
	}
	replaced, err := db.SieveBlocks(ctx, []int64{1<<20 + 3, 5})
	same("a block that was replaced", []muster.SieveBlock{{Number: 1<<20 + 3, Position: 12, Data: []byte{33}}}, replaced, err)
	var chunks []muster.SieveChunk
	err = db.EachSieveChunk(ctx, func(c muster.SieveChunk) error { chunks = append(chunks, c); return nil })
	same("chunks", []muster.SieveChunk{{Number: 256, Columns: []byte{5}, Marks: []byte{66}}, {Number: 257}}, chunks, err)
	positions, err := db.SieveHistoryPositions(ctx)
	same("positions", again.To, positions, err)

	if err := db.PruneSieve(ctx, 1<<24+1<<16, 8); err != nil {
		t.Fatal(err)
	}
	left := map[string]int{}
	for _, table := range []string{"sieve_blocks", "sieve_large", "sieve_sources", "sieve_chunks", "sieve_forwarded", "sieve_rollups", "sieve_names"} {
		n, err := one(ctx, db.reader, table, scalar[int], `SELECT COUNT(*) FROM `+table)
		if err != nil {
			t.Fatal(err)
		}
		left[table] = n
	}
	same("what is left", map[string]int{"sieve_blocks": 0, "sieve_large": 0, "sieve_sources": 1, "sieve_chunks": 1, "sieve_forwarded": 1, "sieve_rollups": 1, "sieve_names": 2}, left, nil)
}

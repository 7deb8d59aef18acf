package storetest

import (
	"errors"
	"testing"

	"muster"
	"muster/internal/store"
)

func testRollups(t *testing.T, db *store.DB) {
	ctx := t.Context()
	type positions = [muster.Partitions]uint64
	row := func(part uint8, n int, day int64, data string) muster.RollupRow {
		return muster.RollupRow{RollupKey: muster.RollupKey{Partition: part, Source: numbered(n), Day: day}, Data: []byte(data)}
	}
	equal(t, "positions at first", must(db.RollupPositions(ctx))(t), positions{})
	all := []muster.RollupRow{row(1, 1, 10, "a"), row(1, 1, 12, "b"), row(2, 1, 12, "c"), row(1, 2, 12, "d")}
	ok(t, db.PutRollups(ctx, all, positions{}, positions{1: 5, 2: 6}))
	equal(t, "positions", must(db.RollupPositions(ctx))(t), positions{1: 5, 2: 6})
	equal(t, "those of a source", must(db.Rollups(ctx, 1, numbered(1), 10))(t), []muster.RollupRow{row(1, 1, 10, "a"), row(1, 1, 12, "b")})
	equal(t, "those of late", must(db.Rollups(ctx, 1, numbered(1), 11))(t), []muster.RollupRow{row(1, 1, 12, "b")})
	equal(t, "some days", must(db.RollupsOf(ctx, []muster.RollupKey{all[2].RollupKey, row(9, 9, 9, "").RollupKey}))(t), all[2:3])
	equal(t, "none", must(db.RollupsOf(ctx, nil))(t), nil)
	many := make([]muster.RollupKey, 450)
	for i := range many {
		many[i] = row(1, 1, int64(i), "").RollupKey
	}
	if got := must(db.RollupsOf(ctx, many))(t); len(got) != 2 {
		t.Errorf("expected two of many days, got %v", got)
	}

	ok(t, db.PutRollups(ctx, []muster.RollupRow{row(1, 1, 12, "B")}, positions{1: 5, 2: 6}, positions{1: 5, 2: 9}))
	equal(t, "replaced", must(db.Rollups(ctx, 1, numbered(1), 11))(t), []muster.RollupRow{row(1, 1, 12, "B")})
	err := db.PutRollups(ctx, []muster.RollupRow{row(1, 1, 12, "x")}, positions{1: 4, 2: 9}, positions{1: 6, 2: 9})
	if !errors.Is(err, store.ErrFenced) {
		t.Errorf("expected to be fenced off, got %v", err)
	}
	equal(t, "what the fence kept", must(db.Rollups(ctx, 1, numbered(1), 11))(t), []muster.RollupRow{row(1, 1, 12, "B")})
	equal(t, "positions in the end", must(db.RollupPositions(ctx))(t), positions{1: 5, 2: 9})

	if n := must(db.PruneRollups(ctx, 12, 10))(t); n != 1 {
		t.Errorf("expected one rollup to be pruned, got %d", n)
	}
	equal(t, "after pruning", must(db.Rollups(ctx, 1, numbered(1), 0))(t), []muster.RollupRow{row(1, 1, 12, "B")})
}

func testLookupKeys(t *testing.T, db *store.DB) {
	ctx := t.Context()
	equal(t, "at first", must(db.LookupKeys(ctx))(t), nil)
	one := muster.LookupKey{ID: "1", Name: awkward, Organisation: "o1", Hash: []byte{1}, PerDay: 50, PerMonth: 1000, CreatedAt: at(1), CreatedBy: "u"}
	two := muster.LookupKey{ID: "2", Name: "b", Hash: []byte{2}, CreatedAt: at(2)}
	ok(t, db.CreateLookupKey(ctx, one, entry(1, "lookup-key.create", "1")))
	ok(t, db.CreateLookupKey(ctx, two))
	wantCode(t, db.CreateLookupKey(ctx, one, entry(2, "lookup-key.create", "1")), muster.Exists)
	equal(t, "two", must(db.LookupKeys(ctx))(t), []muster.LookupKey{one, two})
	ok(t, db.RevokeLookupKey(ctx, "1", at(3), entry(3, "lookup-key.revoke", "1")))
	ok(t, db.RevokeLookupKey(ctx, "1", at(4)))
	wantCode(t, db.RevokeLookupKey(ctx, "3", at(4)), muster.NotFound)
	one.RevokedAt = at(3)
	equal(t, "one revoked", must(db.LookupKeys(ctx))(t), []muster.LookupKey{one, two})
	equal(t, "the audit", must(db.Audit(ctx, store.AuditQuery{}))(t), []muster.AuditEntry{entry(3, "lookup-key.revoke", "1"), entry(1, "lookup-key.create", "1")})

	ok(t, db.AddLookupUsage(ctx, []muster.LookupUsage{{Key: "1", Day: 5, Calls: 2}, {Key: "2", Day: 5, Calls: 1}}))
	ok(t, db.AddLookupUsage(ctx, []muster.LookupUsage{{Key: "1", Day: 5, Calls: 3}, {Key: "1", Day: 6, Calls: 1}}))
	equal(t, "usage", must(db.LookupUsage(ctx, 5))(t), []muster.LookupUsage{{Key: "1", Day: 5, Calls: 5}, {Key: "1", Day: 6, Calls: 1}, {Key: "2", Day: 5, Calls: 1}})
	ok(t, db.PruneLookupUsage(ctx, 6))
	equal(t, "what is left", must(db.LookupUsage(ctx, 0))(t), []muster.LookupUsage{{Key: "1", Day: 6, Calls: 1}})
}

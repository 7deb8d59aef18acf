package storetest

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"muster"
	"muster/internal/store"
)

// tally runs fn in a transaction that must hold.
func tally(t *testing.T, db *store.DB, fn func(tx *store.TallyTx) error) {
	t.Helper()
	ok(t, db.Tally(t.Context(), fn))
}

func numbersOf(t *testing.T, db *store.DB) []muster.Number {
	t.Helper()
	var all []muster.Number
	ok(t, db.EachNumber(t.Context(), func(n muster.Number) error { all = append(all, n); return nil }))
	return all
}

func testNumbers(t *testing.T, db *store.DB) {
	equal(t, "numbers at first", numbersOf(t, db), nil)
	put := func(numbers ...muster.Number) error {
		return db.Tally(t.Context(), func(tx *store.TallyTx) error { return tx.PutNumbers(numbers) })
	}
	m1 := muster.Number{Kind: muster.MachineNumber, Name: "m1", Number: 1}
	m2 := muster.Number{Kind: muster.MachineNumber, Name: "M1", Number: math.MaxUint32}
	o1 := muster.Number{Kind: muster.OrganisationNumber, Name: "m1", Number: 1}
	b1 := muster.Number{Kind: muster.BehaviourNumber, Name: awkward, Number: 7}
	ok(t, put())
	ok(t, put(m2, o1))
	ok(t, put(b1, m1))
	all := []muster.Number{b1, m1, m2, o1}
	equal(t, "all, by kind and number", numbersOf(t, db), all)
	ok(t, put(m1, o1))
	equal(t, "with some put again", numbersOf(t, db), all)

	for what, wrong := range map[string]muster.Number{
		"another number for a name": {Kind: muster.MachineNumber, Name: "m1", Number: 2},
		"another name for a number": {Kind: muster.MachineNumber, Name: "m2", Number: 1},
	} {
		fine := muster.Number{Kind: muster.MachineNumber, Name: "m3", Number: 3}
		if err := put(fine, wrong); !errors.Is(err, store.ErrFenced) {
			t.Errorf("%s: expected ErrFenced, got %v", what, err)
		}
	}
	equal(t, "after what was refused", numbersOf(t, db), all)

	// Who leaves and comes back has the past that it had.
	ok(t, db.CreateMachine(t.Context(), newMachine("m1")))
	ok(t, db.DeleteMachine(t.Context(), "m1"))
	equal(t, "after the machine was deleted", numbersOf(t, db), all)

	stop := errors.New("stop")
	if err := db.EachNumber(t.Context(), func(muster.Number) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("expected the error of the function given to EachNumber, got %v", err)
	}
}

func testTrust(t *testing.T, db *store.DB) {
	ctx := t.Context()
	all := func() (rows []muster.TrustRow) {
		t.Helper()
		ok(t, db.EachTrust(ctx, func(r muster.TrustRow) error { rows = append(rows, r); return nil }))
		return rows
	}
	equal(t, "trust at first", all(), nil)
	_, err := db.Trust(ctx, 1)
	wantCode(t, err, muster.NotFound)

	a := muster.TrustRow{Machine: 1, Rank: 3, Changed: at(0), Data: []byte{1, 0, 255}}
	b := muster.TrustRow{Machine: math.MaxUint32, Rank: 5, Changed: at(1), Data: []byte{2}}
	tally(t, db, func(tx *store.TallyTx) error { return tx.PutTrust([]muster.TrustRow{b, a}) })
	equal(t, "all, by machine", all(), []muster.TrustRow{a, b})
	a.Rank, a.Changed, a.Data = 0, at(2), []byte("struck")
	tally(t, db, func(tx *store.TallyTx) error { return tx.PutTrust([]muster.TrustRow{a}) })
	equal(t, "one replaced", all(), []muster.TrustRow{a, b})
	equal(t, "of one machine", must(db.Trust(ctx, math.MaxUint32))(t), b)

	behaviours := func() (rows []muster.BehaviourRow) {
		t.Helper()
		ok(t, db.EachBehaviour(ctx, func(r muster.BehaviourRow) error { rows = append(rows, r); return nil }))
		return rows
	}
	equal(t, "behaviours at first", behaviours(), nil)
	c, d := muster.BehaviourRow{Behaviour: 9, Data: []byte{1}}, muster.BehaviourRow{Behaviour: 2, Data: []byte{0, 1}}
	tally(t, db, func(tx *store.TallyTx) error { return tx.PutBehaviours([]muster.BehaviourRow{c, d}) })
	c.Data = []byte("twitchy")
	tally(t, db, func(tx *store.TallyTx) error { return tx.PutBehaviours([]muster.BehaviourRow{c}) })
	equal(t, "behaviours, by number", behaviours(), []muster.BehaviourRow{d, c})
}

func testEpoch(t *testing.T, db *store.DB) {
	ctx := t.Context()
	want := func(epoch uint64, data string) {
		t.Helper()
		gotEpoch, gotData, err := db.Epoch(ctx)
		ok(t, err)
		equal(t, "the epoch", gotEpoch, epoch)
		equal(t, "its data", string(gotData), data)
	}
	advance := func(from, to uint64, data string) error {
		return db.Tally(ctx, func(tx *store.TallyTx) error { return tx.AdvanceEpoch(from, to, []byte(data)) })
	}
	want(0, "")
	ok(t, advance(0, 1, "a"))
	ok(t, advance(1, 1<<40, ""))
	want(1<<40, "")
	for _, from := range []uint64{0, 1, 1<<40 - 1} {
		if err := advance(from, 1<<41, "x"); !errors.Is(err, store.ErrFenced) {
			t.Fatalf("from %d: expected ErrFenced, got %v", from, err)
		}
	}
	want(1<<40, "")
	ok(t, db.Tally(ctx, func(tx *store.TallyTx) error { return tx.AdvanceEpoch(1<<40, 1<<41, nil) }))
	want(1<<41, "")
}

func testTrustEvents(t *testing.T, db *store.DB) {
	ctx := t.Context()
	event := func(machine uint32, seconds int, kind string) muster.TrustEvent {
		return muster.TrustEvent{Machine: machine, At: at(seconds), Kind: kind, Amount: 0.25, Behaviour: awkward, Source: sources[2], RankBefore: 3, RankAfter: 4}
	}
	put := func(events ...muster.TrustEvent) {
		t.Helper()
		tally(t, db, func(tx *store.TallyTx) error { return tx.PutTrustEvents(events) })
	}
	of := func(machine uint32, since time.Time, limit int) []muster.TrustEvent {
		t.Helper()
		return must(db.TrustEvents(ctx, machine, since, limit))(t)
	}
	equal(t, "events at first", of(1, time.Time{}, 0), nil)
	first, second, other, bare := event(1, 0, "validated"), event(1, 60, "struck"), event(2, 30, "held"), muster.TrustEvent{At: at(5), Kind: "twitched"}
	put(second, first, other, bare)
	equal(t, "newest first", of(1, time.Time{}, 0), []muster.TrustEvent{second, first})
	equal(t, "since the second", of(1, at(60), 0), []muster.TrustEvent{second})
	equal(t, "since later", of(1, at(61), 0), nil)
	equal(t, "the last", of(1, time.Time{}, 1), []muster.TrustEvent{second})
	equal(t, "of another machine", of(2, time.Time{}, 0), []muster.TrustEvent{other})
	equal(t, "about no machine, by no source", of(0, time.Time{}, 0), []muster.TrustEvent{bare})

	// What differs in nothing but amount and ranks is one.
	again, alike := event(1, 0, "validated"), event(1, 0, "validated")
	again.Amount, again.RankBefore, again.RankAfter = 1.5, 4, 2
	alike.Source = muster.Source{}
	put(again, alike, again)
	first.Amount, first.RankAfter = 3.25, 2
	equal(t, "summed up", of(1, time.Time{}, 0), []muster.TrustEvent{second, first, alike})
}

func testPruneTrustEvents(t *testing.T, db *store.DB) {
	ctx := t.Context()
	left := func() (n int) {
		t.Helper()
		for machine := range uint32(4) {
			n += len(must(db.TrustEvents(ctx, machine*1000, time.Time{}, 0))(t))
		}
		return n
	}
	equal(t, "pruned, of nothing", must(db.PruneTrustEvents(ctx, at(1000), 10))(t), 0)
	var events []muster.TrustEvent
	for i := range 2000 { // of four machines; those of the last are all new
		e := muster.TrustEvent{Machine: uint32(i % 4 * 1000), At: at(i / 4), Kind: "validated"}
		if i%4 == 3 {
			e.At = at(5000 + i)
		}
		events = append(events, e)
	}
	tally(t, db, func(tx *store.TallyTx) error { return tx.PutTrustEvents(events) })
	equal(t, "stored", left(), 2000)
	equal(t, "pruned, with a limit within a machine's", must(db.PruneTrustEvents(ctx, at(400), 100))(t), 100)
	equal(t, "the oldest go first", must(db.TrustEvents(ctx, 0, time.Time{}, 0))(t)[399].At, at(100))
	equal(t, "pruned, with a limit across machines", must(db.PruneTrustEvents(ctx, at(400), 500))(t), 500)
	equal(t, "pruned, the rest", must(db.PruneTrustEvents(ctx, at(400), 100_000))(t), 600)
	equal(t, "pruned, nothing", must(db.PruneTrustEvents(ctx, at(400), 100_000))(t), 0)
	equal(t, "left", left(), 800)

	events = events[:0]
	for i := range 5000 { // over what one transaction takes
		events = append(events, muster.TrustEvent{Machine: 7, At: at(i), Kind: "validated"})
	}
	tally(t, db, func(tx *store.TallyTx) error { return tx.PutTrustEvents(events) })
	equal(t, "pruned, many", must(db.PruneTrustEvents(ctx, at(4500), 100_000))(t), 4500+3*100)
	equal(t, "the oldest left", must(db.TrustEvents(ctx, 7, time.Time{}, 0))(t)[499].At, at(4500))
}

func testVerdictHistory(t *testing.T, db *store.DB) {
	ctx := t.Context()
	of := func(audience muster.Audience, limit int) []muster.Verdict {
		t.Helper()
		return must(db.VerdictHistory(ctx, sources[2], audience, limit))(t)
	}
	v := muster.Verdict{
		Source: sources[2], Scenario: awkward, Changed: at(0),
		Reasons: muster.Reasons{Machines: 3, Scenarios: []string{"a", awkward}, Reports: []int{9, 1}, Rule: awkward, Basis: "crowd", Support: 4.2, Bands: [6]int{1, 2}, Epoch: 7},
	}
	put := func(change func()) muster.Verdict {
		t.Helper()
		change()
		putVerdicts(t, db, 5, v)
		return v
	}
	put(func() {})
	equal(t, "of what never was listed", of(muster.Network, 0), nil)

	listed := put(func() {
		v.Listed, v.Remedy, v.Since, v.Until, v.Changed = true, muster.RemedyBan, at(1), at(100), at(1)
	})
	put(func() { v.Until, v.Scenario, v.Changed = at(200), "other", at(2) })
	put(func() { v.Reasons.Machines, v.Changed = 4, at(3) })
	equal(t, "of a listing that goes on", of(muster.Network, 0), []muster.Verdict{listed})
	softer := put(func() { v.Remedy, v.Changed = muster.RemedyCaptcha, at(4) })
	ended := put(func() { v.Listed, v.Changed = false, at(5) })
	put(func() { v.Remedy, v.Changed = muster.RemedyBan, at(6) })
	again := put(func() { v.Listed, v.Changed = true, at(7) })
	equal(t, "of all that happened", of(muster.Network, 0), []muster.Verdict{again, ended, softer, listed})
	equal(t, "of what happened last", of(muster.Network, 2), []muster.Verdict{again, ended})

	// Every audience and every source has a history of its own.
	fleet := put(func() { v.Audience, v.Changed = "org-1", at(8) })
	equal(t, "of a fleet's listing", of("org-1", 0), []muster.Verdict{fleet})
	equal(t, "for nobody", of("org-2", 0), nil)
	equal(t, "of another source", must(db.VerdictHistory(ctx, sources[0], muster.Network, 0))(t), nil)
	equal(t, "the network's, still", len(of(muster.Network, 0)), 4)

	// Within one moment the last word counts.
	same := put(func() { v.Audience, v.Listed, v.Changed = muster.Network, false, at(7) })
	equal(t, "of two changes in one moment", of(muster.Network, 1), []muster.Verdict{same})

	equal(t, "pruned, with a limit", must(db.PruneVerdictHistory(ctx, at(7), 1))(t), 1)
	equal(t, "without the oldest", of(muster.Network, 0), []muster.Verdict{same, ended, softer})
	equal(t, "pruned, the rest", must(db.PruneVerdictHistory(ctx, at(7), 10))(t), 2)
	equal(t, "what is left", of(muster.Network, 0), []muster.Verdict{same})
	equal(t, "the verdict itself", must(db.Verdict(ctx, muster.Network, sources[2]))(t), same)

	parts, many := make([]uint8, 5000), make([]muster.Verdict, 5000)
	for i := range many {
		many[i] = muster.Verdict{Source: numbered(i), Listed: true, Changed: at(-i)}
	}
	tally(t, db, func(tx *store.TallyTx) error { return tx.PutVerdicts(parts, many) })
	equal(t, "pruned, many", must(db.PruneVerdictHistory(ctx, at(0), 100_000))(t), 4999)
}

func testOperatorVerdicts(t *testing.T, db *store.DB) {
	ctx := t.Context()
	of := func(seconds int) []muster.OperatorVerdict {
		t.Helper()
		return must(db.OperatorVerdicts(ctx, at(seconds)))(t)
	}
	equal(t, "at first", of(0), nil)
	network := muster.OperatorVerdict{Source: sources[1], Reason: awkward, By: "ada", CreatedAt: at(0)}
	address := muster.OperatorVerdict{Source: sources[0], Listed: true, Remedy: muster.RemedyCaptcha, Until: at(60), Reason: "a flood", By: awkward, CreatedAt: at(1)}
	for i, v := range []muster.OperatorVerdict{network, address} {
		ok(t, db.PutOperatorVerdict(ctx, v, entry(i, "verdict.set", v.Source.String())))
	}
	equal(t, "all, by address", of(0), []muster.OperatorVerdict{address, network})
	equal(t, "at the first end", of(60), []muster.OperatorVerdict{network})

	network.Listed, network.Until, network.By, network.Reason, network.CreatedAt = true, at(90), "bob", "", at(2)
	ok(t, db.PutOperatorVerdict(ctx, network, entry(3, "verdict.set", network.Source.String())))
	equal(t, "one replaced", of(60), []muster.OperatorVerdict{network})

	missing := sources[2]
	wantCode(t, db.DeleteOperatorVerdict(ctx, missing, entry(4, "verdict.delete", missing.String())), muster.NotFound)
	ok(t, db.DeleteOperatorVerdict(ctx, address.Source, entry(5, "verdict.delete", address.Source.String())))
	equal(t, "one deleted", of(0), []muster.OperatorVerdict{network})

	// A change and its audit entry are kept together or not at all.
	taken := entry(3, "verdict.set", "taken")
	changed := network
	changed.Listed = false
	wantCode(t, db.PutOperatorVerdict(ctx, changed, taken), muster.Exists)
	wantCode(t, db.DeleteOperatorVerdict(ctx, network.Source, taken), muster.Exists)
	equal(t, "after what was refused", of(0), []muster.OperatorVerdict{network})
	var audited []string
	for _, e := range must(db.Audit(ctx, store.AuditQuery{}))(t) {
		audited = append(audited, e.ID)
	}
	equal(t, "what was audited", audited, []string{entry(5, "", "").ID, entry(3, "", "").ID, entry(1, "", "").ID, entry(0, "", "").ID})
}

// All that a transaction keeps of trust goes with it.
func testTrustRollback(t *testing.T, db *store.DB) {
	ctx := t.Context()
	all := func(tx *store.TallyTx) error {
		return errors.Join(
			tx.PutNumbers([]muster.Number{{Kind: muster.MachineNumber, Name: "m1", Number: 1}}),
			tx.PutTrust([]muster.TrustRow{{Machine: 1}}),
			tx.PutBehaviours([]muster.BehaviourRow{{Behaviour: 1}}),
			tx.PutTrustEvents([]muster.TrustEvent{{Machine: 1, Kind: "struck"}}),
			tx.PutVerdicts([]uint8{1}, []muster.Verdict{{Source: sources[0], Listed: true, Remedy: muster.RemedyBan}}),
			tx.AdvanceEpoch(0, 1, nil),
		)
	}
	kept := func() string {
		t.Helper()
		n := 0
		count := func() { n++ }
		ok(t, db.EachTrust(ctx, func(muster.TrustRow) error { count(); return nil }))
		ok(t, db.EachBehaviour(ctx, func(muster.BehaviourRow) error { count(); return nil }))
		epoch, _, err := db.Epoch(ctx)
		ok(t, err)
		return fmt.Sprint(n, " rows, ", len(numbersOf(t, db)), " numbers, ", len(must(db.TrustEvents(ctx, 1, time.Time{}, 0))(t)), " events, ",
			len(must(db.VerdictHistory(ctx, sources[0], muster.Network, 0))(t)), " changes, epoch ", epoch)
	}
	stop := errors.New("stop")
	err := db.Tally(ctx, func(tx *store.TallyTx) error { return errors.Join(all(tx), stop) })
	if !errors.Is(err, stop) {
		t.Fatalf("expected the function's own error, got %v", err)
	}
	equal(t, "after a failed transaction", kept(), "0 rows, 0 numbers, 0 events, 0 changes, epoch 0")
	tally(t, db, all)
	equal(t, "after one that held", kept(), "2 rows, 1 numbers, 1 events, 1 changes, epoch 1")
}

package storetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"muster"
	"muster/internal/store"
)

// signal is report n: at second n, by one of three organisations.
func signal(n int) *muster.Signal {
	s := &muster.Signal{
		Machine: fmt.Sprint("m", n%4), Organisation: fmt.Sprint("o", n%3),
		At: at(n), Received: at(n + 1), Source: sources[n%len(sources)], Scenario: fmt.Sprint("crowdsecurity/s", n%2),
		ScenarioHash: "abcdef", Version: "0.3", Trust: muster.TrustTainted, Kind: "waf",
		Country: "DE", ASN: 4_200_000_000, ASName: awkward, Flags: muster.Counts | muster.Decided,
		Detail: []byte(`{"message":"` + "日本" + `"}`),
	}
	if !s.Source.IsValid() {
		s.Scope, s.Value = "country", awkward
	}
	hash := sha256.Sum256(fmt.Append(nil, n))
	s.ID = muster.SignalID(hash[:16])
	return s
}

func values(signals []*muster.Signal) []muster.Signal {
	var out []muster.Signal
	for _, s := range signals {
		out = append(out, *s)
	}
	return out
}

// insert stores signals in a transaction of their own.
func insert(t *testing.T, db *store.DB, parts []uint8, signals []*muster.Signal) []bool {
	t.Helper()
	var fresh []bool
	ok(t, db.Tally(t.Context(), func(tx *store.TallyTx) (err error) {
		fresh, err = tx.InsertAlerts(parts, signals)
		return err
	}))
	return fresh
}

// insertMany stores reports 0 to n-1 and returns them newest first.
func insertMany(t *testing.T, db *store.DB, n int) []*muster.Signal {
	t.Helper()
	parts, signals := make([]uint8, n), make([]*muster.Signal, n)
	for i := range n {
		parts[i], signals[n-1-i] = uint8((n-1-i)%muster.Partitions), signal(i)
	}
	insert(t, db, parts, signals)
	return signals
}

func testInsertAlerts(t *testing.T, db *store.DB) {
	ctx := t.Context()
	a, b, c := signal(1), signal(2), signal(4)
	changed := signal(1)
	changed.Scenario = "another"
	equal(t, "fresh, with repeats in one call", insert(t, db, []uint8{9, 63, 9, 9}, []*muster.Signal{a, b, changed, a}), []bool{true, true, false, false})
	equal(t, "fresh, with repeats of an earlier call", insert(t, db, []uint8{63, 0, 9}, []*muster.Signal{b, c, a}), []bool{false, true, false})
	equal(t, "fresh of nothing", insert(t, db, nil, nil), []bool{})
	again := signal(1)
	again.At, again.Received = at(500), at(501)
	equal(t, "fresh of a report that is sent again with other times", insert(t, db, []uint8{9}, []*muster.Signal{again}), []bool{false})
	equal(t, "how many alerts", must(db.CountAlerts(ctx))(t), 3)
	got := must(db.Alerts(ctx, store.AlertQuery{}))(t)
	equal(t, "the alerts", got, []muster.Signal{*c, *b, *a})

	bare := &muster.Signal{ID: muster.SignalID{255}}
	insert(t, db, []uint8{0}, []*muster.Signal{bare})
	got = must(db.Alerts(ctx, store.AlertQuery{}))(t)
	if len(got) != 4 || len(got[3].Detail) != 0 {
		t.Fatalf("expected a last alert without detail, got %v", got)
	}
	got[3].Detail = nil
	equal(t, "an alert without anything", got[3], *bare)

	// The bytes belong to the caller again, whatever it does with them next.
	d := signal(5)
	insert(t, db, []uint8{1}, []*muster.Signal{d})
	want := string(d.Detail)
	clear(d.Detail)
	equal(t, "the stored detail", string(must(db.Alerts(ctx, store.AlertQuery{Since: d.At}))(t)[0].Detail), want)

	err := db.Tally(ctx, func(tx *store.TallyTx) error {
		_, err := tx.InsertAlerts([]uint8{1}, nil)
		return err
	})
	if err == nil {
		t.Fatal("expected an error for a partition without a signal")
	}
}

func testAlertQueries(t *testing.T, db *store.DB) {
	all := insertMany(t, db, 60)
	for _, tt := range []struct {
		query store.AlertQuery
		want  func(s *muster.Signal) bool
	}{
		{store.AlertQuery{}, func(*muster.Signal) bool { return true }},
		{store.AlertQuery{Organisation: "o1"}, func(s *muster.Signal) bool { return s.Organisation == "o1" }},
		{store.AlertQuery{Machine: "m3"}, func(s *muster.Signal) bool { return s.Machine == "m3" }},
		{store.AlertQuery{Scenario: "crowdsecurity/s1"}, func(s *muster.Signal) bool { return s.Scenario == "crowdsecurity/s1" }},
		{store.AlertQuery{Source: sources[3]}, func(s *muster.Signal) bool { return s.Source == sources[3] }},
		{store.AlertQuery{Since: at(10), Until: at(20)}, func(s *muster.Signal) bool { return !s.At.Before(at(10)) && s.At.Before(at(20)) }},
		{store.AlertQuery{Organisation: "o2", Machine: "m0", Source: sources[0], Until: at(40)}, func(s *muster.Signal) bool {
			return s.Organisation == "o2" && s.Machine == "m0" && s.Source == sources[0] && s.At.Before(at(40))
		}},
		{store.AlertQuery{Organisation: "nobody"}, func(*muster.Signal) bool { return false }},
	} {
		var want []muster.Signal
		for _, s := range values(all) {
			if tt.want(&s) {
				want = append(want, s)
			}
		}
		equal(t, fmt.Sprintf("%+v", tt.query), must(db.Alerts(t.Context(), tt.query))(t), want)
	}
}

func testAlertPages(t *testing.T, db *store.DB) {
	ctx := t.Context()
	const n = 200
	parts, signals := make([]uint8, n), make([]*muster.Signal, n)
	for i := range n {
		parts[i], signals[i] = uint8(i%7), signal(i)
		signals[i].Received = at(i / 50) // many at one moment
		signals[i].At = signals[i].Received
	}
	insert(t, db, parts, signals)
	for _, organisation := range []string{"", "o1"} {
		whole := must(db.Alerts(ctx, store.AlertQuery{Organisation: organisation}))(t)
		var pages []muster.Signal
		for q := (store.AlertQuery{Organisation: organisation, Limit: 9}); ; {
			page := must(db.Alerts(ctx, q))(t)
			if len(page) == 0 {
				break
			}
			if len(page) > q.Limit {
				t.Fatalf("expected at most %d alerts, got %d", q.Limit, len(page))
			}
			pages = append(pages, page...)
			q.After = store.CursorAfter(page[len(page)-1])
			// What arrives meanwhile is newer and shifts nothing.
			insert(t, db, []uint8{0}, []*muster.Signal{signal(n + len(pages) + len(organisation)*n)})
		}
		equal(t, "pages and the whole", pages, whole)
		if organisation == "" && len(whole) != n {
			t.Fatalf("expected %d alerts, got %d", n, len(whole))
		}
	}
}

func testPruneAlerts(t *testing.T, db *store.DB) {
	ctx := t.Context()
	all := insertMany(t, db, 5000)
	equal(t, "pruned, with a limit", must(db.PruneAlerts(ctx, at(4500), 2100))(t), 2100)
	left := must(db.Alerts(ctx, store.AlertQuery{Until: at(2101)}))(t)
	equal(t, "the oldest that is left", left, values(all[5000-2101:5000-2100]))
	equal(t, "pruned, the rest", must(db.PruneAlerts(ctx, at(4500), 100_000))(t), 2400)
	equal(t, "pruned, nothing", must(db.PruneAlerts(ctx, at(4500), 100_000))(t), 0)
	equal(t, "how many are left", must(db.CountAlerts(ctx))(t), 500)
}

func evidenceOf(t *testing.T, db *store.DB) []muster.EvidenceRow {
	t.Helper()
	var all []muster.EvidenceRow
	ok(t, db.EachEvidence(t.Context(), func(e muster.EvidenceRow) error { all = append(all, e); return nil }))
	return all
}

func testEvidence(t *testing.T, db *store.DB) {
	ctx := t.Context()
	a := muster.EvidenceRow{Partition: 3, Source: sources[0], Last: at(0), Data: []byte{1, 0, 2}}
	b := muster.EvidenceRow{Partition: 3, Source: sources[2], Last: at(1), Data: []byte{3}}
	c := muster.EvidenceRow{Partition: 63, Source: sources[1], Data: []byte{4}}
	put := func(evidence ...muster.EvidenceRow) {
		t.Helper()
		ok(t, db.Tally(ctx, func(tx *store.TallyTx) error { return tx.PutEvidence(evidence) }))
	}
	put(c, b, a)
	equal(t, "all evidence", evidenceOf(t, db), []muster.EvidenceRow{a, b, c})
	a.Last, a.Data = at(9), []byte("new")
	put(a)
	equal(t, "the evidence on a source", must(db.EvidenceOf(ctx, a.Source))(t), a)
	equal(t, "the evidence on a range", must(db.EvidenceOf(ctx, c.Source))(t), c)
	_, err := db.EvidenceOf(ctx, source("192.0.2.8"))
	wantCode(t, err, muster.NotFound)
	ok(t, db.Tally(ctx, func(tx *store.TallyTx) error {
		return tx.DeleteEvidence(3, []muster.Source{b.Source, c.Source, source("192.0.2.8")})
	}))
	equal(t, "the evidence that is left", evidenceOf(t, db), []muster.EvidenceRow{a, c}) // c is of another partition

	stop := errors.New("stop")
	if err := db.EachEvidence(ctx, func(muster.EvidenceRow) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("expected the error of the function given to EachEvidence, got %v", err)
	}
}

func putVerdicts(t *testing.T, db *store.DB, part uint8, verdicts ...muster.Verdict) {
	t.Helper()
	parts := make([]uint8, len(verdicts))
	for i := range parts {
		parts[i] = part
	}
	ok(t, db.Tally(t.Context(), func(tx *store.TallyTx) error { return tx.PutVerdicts(parts, verdicts) }))
}

func verdictsOf(t *testing.T, db *store.DB, listedOnly bool) []muster.Verdict {
	t.Helper()
	var all []muster.Verdict
	ok(t, db.EachVerdict(t.Context(), listedOnly, func(v muster.Verdict) error { all = append(all, v); return nil }))
	return all
}

func testVerdicts(t *testing.T, db *store.DB) {
	ctx := t.Context()
	network := muster.Verdict{
		Source: sources[2], Listed: true, Remedy: muster.RemedyCaptcha, Scenario: "crowdsecurity/ssh-bf", Since: at(0), Until: at(100), Changed: at(1),
		Reasons: muster.Reasons{
			Machines: 3, Organisations: 2, Scenarios: []string{"crowdsecurity/ssh-bf", awkward}, First: 1, Last: 2, Rule: awkward,
			Basis: "crowd", Never: awkward, Local: true, Shared: true, Probation: true, Support: 4.2, Threshold: 7.5, Diversity: 1.1,
			Independent: 3, Needed: 2, Bands: [6]int{0, 1, 2, 3, 4, 1 << 20}, Honeypots: 1, Confirmed: true, Convictions: 255,
			Reports: []int{65_535, 1}, Epoch: 1 << 40, Parameters: 1,
		},
	}
	fleet := network
	fleet.Audience, fleet.Until = "org-1", at(50)
	lapsed := muster.Verdict{Source: sources[0], Changed: at(2)}
	putVerdicts(t, db, 5, fleet, network)
	putVerdicts(t, db, 6, lapsed)
	equal(t, "all verdicts", verdictsOf(t, db, false), []muster.Verdict{network, fleet, lapsed})
	equal(t, "the listed ones", verdictsOf(t, db, true), []muster.Verdict{network, fleet})
	var briefs []muster.Verdict
	ok(t, db.EachVerdictInBrief(ctx, func(v muster.Verdict) error { briefs = append(briefs, v); return nil }))
	equal(t, "all, in brief", briefs, []muster.Verdict{brief(network), brief(fleet), lapsed})
	equal(t, "what changed, in brief", must(db.VerdictsChangedInBrief(ctx, at(0), 10))(t), briefs)
	equal(t, "the network's verdict", must(db.Verdict(ctx, muster.Network, sources[2]))(t), network)
	equal(t, "the fleet's verdict", must(db.Verdict(ctx, "org-1", sources[2]))(t), fleet)
	_, err := db.Verdict(ctx, "org-2", sources[2])
	wantCode(t, err, muster.NotFound)

	network.Listed, network.Changed, network.Reasons = false, at(3), muster.Reasons{Rule: "lapsed"}
	putVerdicts(t, db, 5, network)
	equal(t, "the changed verdict", must(db.Verdict(ctx, muster.Network, sources[2]))(t), network)
	equal(t, "it, in brief", must(db.VerdictsChangedInBrief(ctx, at(2), 10))(t), []muster.Verdict{brief(network)})
	ok(t, db.Tally(ctx, func(tx *store.TallyTx) error {
		return tx.DeleteVerdicts([]store.VerdictKey{
			{Part: 5, Source: sources[2]},
			{Part: 6, Source: sources[0], Audience: "org-9"},
			{Part: 7, Source: sources[0]},
		})
	}))
	equal(t, "the verdicts that are left", verdictsOf(t, db, false), []muster.Verdict{fleet, lapsed})
	putVerdicts(t, db, 5, network)
	equal(t, "the verdicts on a source", must(db.VerdictsOf(ctx, sources[2]))(t), []muster.Verdict{network, fleet})
	equal(t, "the verdicts on a source that has none", must(db.VerdictsOf(ctx, sources[1]))(t), nil)

	equal(t, "how many had lapsed by then", must(db.PruneVerdicts(ctx, at(3), 10))(t), 1)
	equal(t, "the verdicts after that", verdictsOf(t, db, false), []muster.Verdict{network, fleet})
	for i := range 30 {
		putVerdicts(t, db, 1, muster.Verdict{Source: numbered(i), Changed: at(0)})
	}
	equal(t, "how many lapsed, with a limit", must(db.PruneVerdicts(ctx, at(100), 11))(t), 11)
	equal(t, "how many lapsed, the rest", must(db.PruneVerdicts(ctx, at(100), 100))(t), 20)
	equal(t, "the listed verdict stays, however old", verdictsOf(t, db, false), []muster.Verdict{fleet})

	err = db.Tally(ctx, func(tx *store.TallyTx) error { return tx.PutVerdicts(nil, []muster.Verdict{network}) })
	if err == nil {
		t.Fatal("expected an error for a verdict without a partition")
	}
}

// brief is a verdict with what it is ranked by of its reasons.
func brief(v muster.Verdict) muster.Verdict {
	v.Reasons = muster.Reasons{Support: v.Reasons.Support, Independent: v.Reasons.Independent, Last: v.Reasons.Last}
	return v
}

func testVerdictsChanged(t *testing.T, db *store.DB) {
	equal(t, "the end of an empty changelog", must(db.LastVerdict(t.Context()))(t), time.Time{})
	ctx := t.Context()
	const n = 100
	for i := range n {
		putVerdicts(t, db, uint8(i%muster.Partitions), muster.Verdict{Source: numbered(i), Changed: at(i / 12)}) // twelve a moment
	}
	for _, limit := range []int{1, 5, 12, 13, 1000} {
		seen := map[muster.Source]int{}
		since := time.Time{}
		for {
			page := must(db.VerdictsChanged(ctx, since, limit))(t)
			equal(t, "the same in brief", must(db.VerdictsChangedInBrief(ctx, since, limit))(t), page)
			if len(page) == 0 {
				break
			}
			for _, v := range page {
				seen[v.Source]++
				if v.Changed.Before(since) {
					t.Fatalf("limit %d: a verdict of %s came after %s", limit, v.Changed, since)
				}
				since = v.Changed
			}
		}
		if len(seen) != n {
			t.Fatalf("limit %d: followed %d of %d changes", limit, len(seen), n)
		}
		for s, times := range seen {
			if times != 1 {
				t.Fatalf("limit %d: saw %s %d times", limit, s, times)
			}
		}
	}
	changed := muster.Verdict{Source: numbered(0), Changed: at(1000), Listed: true}
	putVerdicts(t, db, 0, changed)
	equal(t, "a later change", must(db.VerdictsChanged(ctx, at(n), 10))(t), []muster.Verdict{changed})
	equal(t, "the end of the changelog", must(db.LastVerdict(ctx))(t), at(1000))
}

func testFencing(t *testing.T, db *store.DB) {
	ctx := t.Context()
	advance := func(part uint8, from, to uint64) error {
		return db.Tally(ctx, func(tx *store.TallyTx) error {
			if err := tx.PutEvidence([]muster.EvidenceRow{{Partition: part, Source: numbered(int(to)), Data: []byte{1}}}); err != nil {
				return err
			}
			return tx.Advance(part, from, to)
		})
	}
	var want [muster.Partitions]uint64
	equal(t, "positions at first", must(db.Positions(ctx))(t), want)
	ok(t, advance(0, 0, 5))
	ok(t, advance(63, 0, 1<<40))
	ok(t, advance(0, 5, 9))
	want[0], want[63] = 9, 1<<40
	for _, from := range []uint64{0, 5, 8, 10} {
		if err := advance(0, from, 20); !errors.Is(err, store.ErrFenced) {
			t.Fatalf("from %d: expected ErrFenced, got %v", from, err)
		}
	}
	if err := advance(64, 0, 1); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("a partition that does not exist: expected ErrFenced, got %v", err)
	}
	equal(t, "positions", must(db.Positions(ctx))(t), want)
	if n := len(evidenceOf(t, db)); n != 3 {
		t.Fatalf("expected the evidence of the 3 transactions that advanced, got %d", n)
	}

	won := 0
	for _, err := range parallel(8, func(i int) error { return advance(1, 0, uint64(i+1)) }) {
		if err == nil {
			won++
		} else if !errors.Is(err, store.ErrFenced) {
			t.Fatal(err)
		}
	}
	if won != 1 {
		t.Fatalf("expected one of 8 owners to advance, got %d", won)
	}
}

func testRollback(t *testing.T, db *store.DB) {
	ctx := t.Context()
	all := func(tx *store.TallyTx) error {
		if _, err := tx.InsertAlerts([]uint8{1}, []*muster.Signal{signal(1)}); err != nil {
			return err
		}
		if err := tx.PutEvidence([]muster.EvidenceRow{{Partition: 1, Source: sources[0], Data: []byte{1}}}); err != nil {
			return err
		}
		if err := tx.PutVerdicts([]uint8{1}, []muster.Verdict{{Source: sources[0]}}); err != nil {
			return err
		}
		return tx.Advance(1, 0, 1)
	}
	nothing := func() {
		t.Helper()
		equal(t, "alerts", must(db.CountAlerts(ctx))(t), 0)
		equal(t, "evidence", evidenceOf(t, db), nil)
		equal(t, "verdicts", verdictsOf(t, db, false), nil)
		equal(t, "position", must(db.Positions(ctx))(t)[1], 0)
	}
	stop := errors.New("stop")
	err := db.Tally(ctx, func(tx *store.TallyTx) error {
		ok(t, all(tx))
		return stop
	})
	if err != stop {
		t.Fatalf("expected the function's own error, got %v", err)
	}
	nothing()
	func() {
		defer func() {
			if recover() != "panic" {
				t.Fatal("expected the function's panic to come through")
			}
		}()
		_ = db.Tally(ctx, func(tx *store.TallyTx) error {
			ok(t, all(tx))
			panic("panic")
		})
	}()
	nothing()
	ok(t, db.Tally(ctx, all))
	equal(t, "alerts", must(db.CountAlerts(ctx))(t), 1)
	equal(t, "fresh, after failed attempts and one that held", insert(t, db, []uint8{1}, []*muster.Signal{signal(1)}), []bool{false})
}

// A reader never waits for the writer and never sees half a transaction.
func testReadersBesideWriter(t *testing.T, db *store.DB) {
	ctx := t.Context()
	const each = 50
	commit := func(round int) error {
		parts, signals := make([]uint8, each), make([]*muster.Signal, each)
		for i := range signals {
			parts[i], signals[i] = 2, signal(round*each+i)
		}
		return db.Tally(ctx, func(tx *store.TallyTx) error {
			if _, err := tx.InsertAlerts(parts, signals); err != nil {
				return err
			}
			meanwhile, err := db.CountAlerts(ctx)
			if err != nil || meanwhile != round*each {
				return fmt.Errorf("expected a reader to see %d alerts in the middle of the transaction, got %d, %w", round*each, meanwhile, err)
			}
			return tx.Advance(2, uint64(round), uint64(round+1))
		})
	}
	written := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for round := range 40 {
			if err := commit(round); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for _, err := range parallel(6, func(int) error {
		last := 0
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			n, err := db.CountAlerts(ctx)
			if err != nil {
				return err
			}
			if n%each != 0 || n < last {
				return fmt.Errorf("expected whole transactions of %d alerts, never fewer than the %d before, got %d", each, last, n)
			}
			last = n
			if err := db.EachEvidence(ctx, func(muster.EvidenceRow) error { return nil }); err != nil {
				return err
			}
		}
	}) {
		ok(t, err)
	}
	ok(t, <-written)
	equal(t, "alerts in the end", must(db.CountAlerts(ctx))(t), 40*each)
}

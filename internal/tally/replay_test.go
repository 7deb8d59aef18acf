package tally

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"muster"
)

// addrs are two addresses in each of two partitions.
var addrs = [2][2]netip.Addr{
	{netip.MustParseAddr("35.188.49.0"), netip.MustParseAddr("35.188.49.4")},
	{netip.MustParseAddr("35.188.49.1"), netip.MustParseAddr("35.188.49.5")},
}

// history draws records: signals of a few machines about a few addresses over
// some days, some of them sent twice, some for nobody's use.
func history(t *rapid.T) []muster.Entry {
	var (
		out  []muster.Entry
		sent []muster.Signal
		now  = start
	)
	for position := uint64(1); position <= uint64(rapid.IntRange(1, 40).Draw(t, "records")); position++ {
		now = now.Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "minutes")) * time.Minute)
		p := uint8(rapid.IntRange(0, 1).Draw(t, "partition"))
		var data []byte
		for range rapid.IntRange(1, 4).Draw(t, "signals") {
			m := rapid.IntRange(0, 7).Draw(t, "machine")
			s := muster.Signal{
				ID:      muster.SignalID{byte(len(sent)), byte(len(sent) >> 8)},
				Machine: fmt.Sprint("m", m), Organisation: fmt.Sprint("o", m%3),
				Source:   muster.SourceFromAddr(addrs[p][rapid.IntRange(0, 1).Draw(t, "address")]),
				Scenario: fmt.Sprint("s", rapid.IntRange(0, 2).Draw(t, "scenario")),
				Received: now, At: now.Add(-time.Duration(rapid.IntRange(0, 90).Draw(t, "delay")) * time.Minute),
				Flags: muster.SignalFlags(rapid.IntRange(0, 7).Draw(t, "flags")),
			}
			if len(sent) > 0 && rapid.IntRange(0, 4).Draw(t, "again") == 0 {
				if old := rapid.SampledFrom(sent).Draw(t, "which"); partitionOf(old.Source) == p {
					s = old
					s.Received = now
				}
			}
			sent = append(sent, s)
			data = muster.AppendSignal(data, &s)
		}
		out = append(out, muster.Entry{Partition: p, Position: position, Data: data})
	}
	return out
}

// Whatever fails and however the records come in batches, the same records
// give the same alerts, evidence and verdicts: nothing is lost, nothing counts
// twice.
func TestReplayReachesTheSameState(t *testing.T) {
	ctx := t.Context()
	rapid.Check(t, func(t *rapid.T) {
		records := history(t)
		clock := start
		load := func(l *ledger) *Worker {
			w := New(config(l, newStream(), func(c *Config) {
				c.Now = func() time.Time { clock = clock.Add(10 * time.Microsecond); return clock }
			}))
			if err := w.load(ctx); err != nil {
				t.Fatal(err)
			}
			return w
		}
		plain := newLedger()
		w := load(plain)
		for _, e := range records {
			if err := w.consume(ctx, []muster.Entry{e}); err != nil {
				t.Fatal(err)
			}
		}

		shaky := newLedger()
		what := none
		shaky.fault = func() fault { return what }
		w = load(shaky)
		for from := 0; from < len(records); {
			to := min(len(records), from+rapid.IntRange(1, 8).Draw(t, "batch"))
			what = rapid.SampledFrom([]fault{none, none, none, refused, undone, unheard}).Draw(t, "fault")
			err := w.consume(ctx, records[from:to])
			if (err != nil) != (what != none) || err != nil && !errors.Is(err, errAway) {
				t.Fatalf("fault %d: got %v", what, err)
			}
			if err != nil && what != unheard && rapid.Bool().Draw(t, "retry") {
				continue // as Run does
			}
			if what == unheard {
				what = none
				if err := w.consume(ctx, records[from:to]); !errors.Is(err, errTaken) {
					t.Fatalf("a retry of what is durable: got %v, want to be fenced off", err)
				}
			}
			if err == nil && rapid.IntRange(0, 3).Draw(t, "crash") > 0 {
				from = to
				continue
			}
			// A crash: a new worker goes on from what is durable.
			w = load(shaky)
			for from = 0; from < len(records) && records[from].Position <= shaky.state.positions[records[from].Partition]; from++ {
			}
		}
		want, got := plain.look(), shaky.look()
		same := cmp.Options{
			cmp.AllowUnexported(state{}, alertKey{}, verdictKey{}), cmpopts.EquateComparable(muster.Source{}), cmpopts.EquateEmpty(),
			cmpopts.IgnoreFields(muster.Verdict{}, "Changed"),
		}
		if diff := cmp.Diff(want, got, same); diff != "" {
			t.Fatalf("with faults (-want +got):\n%s", diff)
		}
		// What is in memory is what is stored.
		again := load(shaky)
		if diff := cmp.Diff(again.evidence, w.evidence, same); diff != "" {
			t.Fatalf("memory and store differ (-store +memory):\n%s", diff)
		}
		for _, l := range []*ledger{plain, shaky} {
			last := time.Time{}
			for i, v := range l.told {
				if v.Changed.Before(last) || !v.Changed.Equal(v.Changed.Truncate(time.Microsecond)) {
					t.Fatalf("verdict %d is stamped %s, the one before it %s", i, v.Changed, last)
				}
				last = v.Changed
			}
		}
	})
}

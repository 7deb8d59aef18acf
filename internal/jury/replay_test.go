package jury

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"muster"
	"muster/internal/crowd"
	"muster/internal/policy"
)

// canary is a source known to be good.
const canary = "35.188.60.1"

// truth knows the canary and an address that is shared.
func truth(t testing.TB) Truth {
	t.Helper()
	c, err := muster.NewCanary(muster.OriginOperator, canary)
	if err != nil {
		t.Fatal(err)
	}
	shared := source(t, "35.188.49.2")
	return Truth{
		Canaries: policy.NewCanaries([]muster.Canary{c}),
		Shared:   func(s muster.Source) bool { return s == shared },
	}
}

// fast returns parameters with which in days happens what takes months: trust is
// earned, the network grows up, evidence gets stale.
func fast() crowd.Parameters {
	p := crowd.Default()
	p.Version = 99
	p.Listing.Expiry, p.Listing.ShortExpiry, p.Listing.MaxExpiry = 12*time.Hour, 4*time.Hour, 24*time.Hour
	p.Listing.Memory, p.Listing.LongMemory, p.Listing.Grace = 18*time.Hour, 30*time.Hour, 6*time.Hour
	p.Voices.Decay = 24 * time.Hour
	p.Trust.MinTenure, p.Trust.MinValidations, p.Trust.Sigmas, p.Trust.Drift = 1, 0.2, 0.2, 0.05
	p.Trust.ValidateAfter, p.Trust.HoneypotWithin = 5*time.Hour, 8*time.Hour
	p.Trust.Caps = []crowd.Cap{{Days: 2, Weight: 2.5}, {Days: 100, Weight: 4}}
	p.Trust.SoloTenure, p.Trust.SoloValidations, p.Trust.SoloBound, p.Trust.SoloClean, p.Trust.SoloPerDay = 2, 1, 0.6, 10*time.Hour, 2
	p.Voices.Solo = 2
	p.Canary.Hold, p.Canary.Pause, p.Canary.AgainPause, p.Canary.Again = 3*time.Hour, 12*time.Hour, 24*time.Hour, 24*time.Hour
	p.Canary.ExemptAS, p.Canary.ExemptASCertain = 2, 3
	p.Suspicion.Cloud, p.Suspicion.StruckFor, p.Suspicion.ConfirmWithin = 6*time.Hour, 8*time.Hour, 3*time.Hour
	p.Small.Trusted, p.Small.Enough, p.Small.TrustedWeight, p.Small.ActiveWithin = 1, 3, 0.3, 20*time.Hour
	p.Range.MembersV4, p.Range.Groups, p.Range.OneGroup = 3, 2, 1
	return p
}

// history draws records: signals of 12 machines of 6 organisations in 4 AS about
// a few addresses over some days, some of them sent twice, some for nobody's
// use, some shots at a canary.
func history(t *rapid.T) []muster.Entry {
	addresses := [2][]string{{"35.188.49.0", "35.188.49.4", "192.168.1.8"}, {"35.188.49.1", "35.188.49.5", canary}}
	minutes := rapid.SampledFrom([]int{0, 0, 1, 5, 30, 90, 300})
	flags := rapid.SampledFrom([]muster.SignalFlags{counts, counts, counts, counts | fleet, counts | muster.Decided, fleet, muster.Decided})
	records := rapid.SampledFrom([]int{3, 20, 20, 50}).Draw(t, "records")
	machine := rapid.SampledFrom([]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}) // each as often as others, as ranges are not
	var (
		out  []muster.Entry
		sent []muster.Signal
		now  = start
	)
	for position := uint64(1); position <= uint64(records); position++ {
		now = now.Add(time.Duration(minutes.Draw(t, "minutes"))*time.Minute + time.Duration(rapid.IntRange(0, 59).Draw(t, "seconds"))*time.Second)
		p := uint8(machine.Draw(t, "partition") % 2)
		var data []byte
		for range 1 + machine.Draw(t, "signals")/3 {
			m := machine.Draw(t, "machine")
			s := muster.Signal{
				ID:      muster.SignalID{byte(len(sent)), byte(len(sent) >> 8)},
				Machine: fmt.Sprint("m", m), Organisation: fmt.Sprint("o", m%6), ReporterASN: uint32(64500 + m%4), ReporterNet: uint64(m + 1),
				Source:   muster.SourceFromAddr(netip.MustParseAddr(rapid.SampledFrom(addresses[p]).Draw(t, "address"))),
				Scenario: rapid.SampledFrom([]string{brute, brute, probing, "own/scenario"}).Draw(t, "scenario"),
				Received: now, At: now.Add(-time.Duration(rapid.IntRange(0, 90).Draw(t, "delay")) * time.Minute),
				Flags: flags.Draw(t, "flags"),
			}
			if m == 11 && s.Flags&counts != 0 {
				s.Flags |= muster.Honeypot
			}
			if len(sent) > 0 && rapid.IntRange(0, 7).Draw(t, "again") == 0 {
				if old := rapid.SampledFrom(sent).Draw(t, "which"); partitionOf(old.Source) == p {
					s = old
					s.Received = now
				}
			}
			sent = append(sent, s)
			data = muster.AppendSignal(data, &s)
		}
		out = append(out, muster.Entry{Partition: p, Position: position, Data: data})
		if position == uint64(records)-1 && records == 20 {
			now = now.Add(50 * time.Hour) // in which everything ends and gets stale
		}
	}
	return out
}

// replay is a worker under test with the log that it works through; its clock
// stands still in the past.
type replay struct {
	*rapid.T
	ctx        context.Context
	parameters crowd.Parameters
	truth      Truth
	records    []muster.Entry
}

func (r *replay) load(l *ledger) *Worker {
	w := New(config(l, newStream(), func(c *Config) { c.Parameters, c.Truth = r.parameters, r.truth }))
	if err := w.load(r.ctx); err != nil {
		r.Fatal(err)
	}
	return w
}

// undisturbed has one worker go through the log, record by record.
func (r *replay) undisturbed() (*ledger, *Worker) {
	l := newLedger()
	w := r.load(l)
	for _, e := range r.records {
		if err := w.consume(r.ctx, []muster.Entry{e}); err != nil {
			r.Fatal(err)
		}
	}
	return l, w
}

// disturbed has workers go through the log in batches, with commits that fail,
// and stops and starts them.
func (r *replay) disturbed() (*ledger, *Worker) {
	l := newLedger()
	what := none
	l.fault = func() fault { f := what; what = none; return f }
	w := r.load(l)
	for from := 0; from < len(r.records); {
		to := min(len(r.records), from+rapid.IntRange(1, 12).Draw(r.T, "batch"))
		failure := rapid.SampledFrom([]fault{none, none, none, none, refused, undone, unheard}).Draw(r.T, "fault")
		what = failure
		err := w.consume(r.ctx, r.records[from:to])
		if (err != nil) != (failure != none) || err != nil && !errors.Is(err, errAway) {
			r.Fatalf("fault %d: got %v", failure, err)
		}
		if err == nil || failure == unheard {
			from = to
			if failure == unheard { // as Run does, that cannot know
				if err := w.consume(r.ctx, r.records[:to]); err != nil {
					r.Fatalf("a retry of what is durable: %v", err)
				}
			}
		}
		if rapid.IntRange(0, 2).Draw(r.T, "restart") == 0 {
			w = r.load(l)
		}
	}
	return l, w
}

// same compares what is stored, but for the stamps of the changelog, which are
// the clock's.
var same = cmp.Options{
	cmp.AllowUnexported(stored{}, alertKey{}, verdictKey{}, numberKey{}, eventKey{}),
	cmpopts.EquateComparable(muster.Source{}), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(muster.Verdict{}, "Changed"),
	cmp.Transformer("records", func(r muster.TrustRow) any {
		var both [2]crowd.Record
		if err := decodeFixed(r.Data, &both); err != nil {
			return err
		}
		return struct {
			Machine uint32
			Rank    uint8
			Changed time.Time
			Both    [2]crowd.Record
		}{r.Machine, r.Rank, r.Changed, both}
	}),
}

// memory is what a worker knows, in a form that can be compared.
type memory struct {
	Evidence              map[string]string
	Records, Rated        []crowd.Record
	Behaviours, RatedThen []crowd.BehaviourRecord
	Tick                  int64
	Epoch                 uint64
	Held, Fallen          []uint32
	Names                 [3][]string
}

func memoryOf(w *Worker) memory {
	m := memory{
		Evidence: map[string]string{}, Records: w.records, Rated: w.rated.records, Behaviours: w.behaviours, RatedThen: w.rated.behaviours,
		Tick: w.tick, Epoch: w.epoch, Held: append([]uint32{}, w.rated.held...), Fallen: append([]uint32{}, w.fallen...),
	}
	for source, h := range w.evidence {
		m.Evidence[source.String()] = fmt.Sprintf("%x", h.ev.AppendBinary(nil))
	}
	for kind := range w.numbers {
		m.Names[kind] = w.numbers[kind].names
	}
	return m
}

// historiesOf returns every verdict that was told, by source and audience.
func historiesOf(l *ledger) map[verdictKey][]muster.Verdict {
	all := map[verdictKey][]muster.Verdict{}
	for _, v := range l.told {
		k := verdictKey{v.Audience, v.Source}
		all[k] = append(all[k], v)
	}
	return all
}

// sources are those of the log on which there was evidence.
func (r *replay) sources() map[muster.Source]bool {
	all := map[muster.Source]bool{}
	for _, e := range r.records {
		if err := muster.DecodeSignals(e.Data, func(s *muster.Signal) {
			if s.Flags&(counts|fleet) != 0 {
				all[s.Source] = true
			}
		}); err != nil {
			r.Fatal(err)
		}
	}
	return all
}

// goals are what some of the histories must come to, or they are too dull.
var goals = map[string][]string{
	"a young network":   {"listed: crowd", "listed: fleet", "held", "struck"},
	"one that grows up": {"listed: crowd", "listed: fleet", "listed: lapsed", "listed: range", "held", "struck", "validated", "confirmed", "unconfirmed", "forgotten"},
}

// Whatever fails, however the records come in batches, and however often the
// worker is stopped, the same log gives the same alerts, evidence, verdicts,
// trust and epochs: nothing is lost, nothing counts twice, and nothing depends
// on when it was done.
func TestReplayReachesTheSameState(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set("12"); err != nil { // each is days of ticks
			t.Fatal(err)
		}
		defer func() {
			if err := checks.Value.Set(checks.DefValue); err != nil {
				t.Error(err)
			}
		}()
	}
	known, ctx := truth(t), t.Context()
	for name, p := range map[string]crowd.Parameters{"a young network": crowd.Default(), "one that grows up": fast()} {
		t.Run(name, func(t *testing.T) {
			reached := map[string]int{}
			rapid.Check(t, func(t *rapid.T) {
				r := &replay{T: t, ctx: ctx, parameters: p, truth: known, records: history(t)}
				plain, _ := r.undisturbed()
				shaky, w := r.disturbed()
				want, got := plain.look(), shaky.look()
				if diff := cmp.Diff(want, got, same); diff != "" {
					t.Fatalf("disturbed (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(historiesOf(plain), historiesOf(shaky), same); diff != "" {
					t.Fatalf("the histories of sources, disturbed (-want +got):\n%s", diff)
				}
				// What is in memory is what is stored.
				if diff := cmp.Diff(memoryOf(r.load(shaky)), memoryOf(w)); diff != "" {
					t.Fatalf("memory and store differ (-store +memory):\n%s", diff)
				}
				for _, v := range plain.told {
					reached["listed: "+v.Reasons.Basis]++
				}
				for k := range want.events {
					reached[k.kind]++
				}
				reached["forgotten"] += len(r.sources()) - len(want.evidence)
			})
			for _, what := range goals[name] {
				if reached[what] == 0 {
					t.Errorf("no history came to %q: %v", what, reached)
				}
			}
		})
	}
}

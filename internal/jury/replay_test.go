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
				SourceASN: uint32(rapid.SampledFrom([]int{0, 0, 64600, 64601}).Draw(t, "source's AS")),
				Source:    muster.SourceFromAddr(netip.MustParseAddr(rapid.SampledFrom(addresses[p]).Draw(t, "address"))),
				Scenario:  rapid.SampledFrom([]string{brute, brute, probing, "own/scenario"}).Draw(t, "scenario"),
				Received:  now, At: now.Add(-time.Duration(rapid.IntRange(0, 90).Draw(t, "delay")) * time.Minute),
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

// step is what comes next: a record of the log, or what an operator does.
type step struct {
	entry muster.Entry
	do    string
	what  string // a machine, or a source
	truth int    // of truths
	at    time.Time
}

// truths are what the operator knows, one time or another: first what all know.
func truths(t testing.TB) []Truth {
	canaries := func(values ...string) *policy.Canaries {
		var list []muster.Canary
		for _, value := range values {
			c, err := muster.NewCanary(muster.OriginOperator, value)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, c)
		}
		return policy.NewCanaries(list)
	}
	first := truth(t)
	ordered := func(text string, until time.Duration) map[muster.Source]muster.OperatorVerdict {
		s := source(t, text)
		return map[muster.Source]muster.OperatorVerdict{s: {Source: s, Listed: true, Remedy: muster.RemedyBan, Until: start.Add(until), Reason: "a flood"}}
	}
	return []Truth{
		first,
		{Canaries: first.Canaries, Shared: first.Shared, Allowlist: policy.NewAllowlist([]muster.AllowEntry{{Source: source(t, "35.188.49.0/30")}})},
		{Canaries: canaries("AS64601"), Shared: first.Shared, Listed: ordered("35.188.49.0", 100*time.Hour)},
		{Canaries: canaries(canary, "*.crawler.example.org"), Shared: first.Shared, Listed: ordered("35.188.49.77", time.Hour)},
		{Canaries: canaries(canary, "*.crawler.example.org", "AS64601"), Listed: ordered("35.188.49.0/24", time.Hour)},
	}
}

// steps puts what operators do between records.
func steps(t *rapid.T, records []muster.Entry) (out []step) {
	machine := rapid.IntRange(0, 11)
	address := rapid.SampledFrom([]string{"35.188.49.0", "35.188.49.1", "35.188.49.4", "35.188.49.5", canary})
	for _, e := range records {
		out = append(out, step{entry: e})
		latest := start
		if err := muster.DecodeSignals(e.Data, func(s *muster.Signal) { latest = s.Received }); err != nil {
			t.Fatal(err)
		}
		switch do := rapid.SampledFrom([]string{"", "", "", "", "", "", "truth", "truth", "block", "admit", "unban", "named"}).Draw(t, "command"); do {
		case "":
		case "truth":
			out = append(out, step{do: do, truth: rapid.IntRange(0, 4).Draw(t, "truth")})
		case "block", "admit":
			out = append(out, step{do: do, what: fmt.Sprint("m", machine.Draw(t, "machine"))})
		default:
			out = append(out, step{do: do, what: address.Draw(t, "address"), at: latest})
		}
	}
	return out
}

// replay is a worker under test with what it works through; its clock stands
// still in the past.
type replay struct {
	*rapid.T
	ctx        context.Context
	parameters crowd.Parameters
	truths     []Truth
	steps      []step

	blocked map[string]bool // as of now
	truth   int             // likewise
}

func (r *replay) reset() { r.blocked, r.truth = map[string]bool{}, 0 }

func (r *replay) load(l *ledger) *Worker {
	w := New(config(l, newStream(), func(c *Config) {
		c.Parameters, c.Truth = r.parameters, r.truths[r.truth]
		c.Member = func(machine, organisation string) bool { return organisation != "" && !r.blocked[machine] }
		c.Name = func(netip.Addr) (string, bool) { return "", false }
	}))
	if err := w.load(r.ctx); err != nil {
		r.Fatal(err)
	}
	return w
}

// command does what an operator does.
func (r *replay) command(w *Worker, s step) error {
	switch s.do {
	case "block":
		r.blocked[s.what] = true
	case "admit":
		delete(r.blocked, s.what)
	case "truth":
		r.truth = s.truth
	}
	done := make(chan error, 1)
	go func() {
		switch s.do {
		case "block":
			done <- w.Forget(r.ctx, s.what, "")
		case "admit":
			done <- w.ForgetStrangers(r.ctx)
		case "truth":
			done <- w.SetTruth(r.ctx, r.truths[s.truth])
		case "unban":
			done <- w.Unban(r.ctx, muster.SourceFromAddr(netip.MustParseAddr(s.what)), s.at)
		case "named":
			done <- w.Named(r.ctx, netip.MustParseAddr(s.what), "a.crawler.example.org")
		}
	}()
	c := <-w.commands
	c.done <- c.do(r.ctx)
	return <-done
}

// undisturbed has one worker go through all, step by step.
func (r *replay) undisturbed() (*ledger, *Worker) {
	r.reset()
	l := newLedger()
	w := r.load(l)
	for _, s := range r.steps {
		if s.do != "" {
			if err := r.command(w, s); err != nil {
				r.Fatal(err)
			}
		} else if err := w.consume(r.ctx, []muster.Entry{s.entry}); err != nil {
			r.Fatal(err)
		}
	}
	return l, w
}

// disturbed has workers go through the log in batches, with commits that fail,
// and stops and starts them.
func (r *replay) disturbed() (*ledger, *Worker) {
	r.reset()
	l := newLedger()
	what := none
	l.fault = func() fault { f := what; what = none; return f }
	w := r.load(l)
	var records []muster.Entry // all so far
	for i := 0; i < len(r.steps); {
		failure := rapid.SampledFrom([]fault{none, none, none, none, refused, undone, unheard}).Draw(r.T, "fault")
		if s := r.steps[i]; s.do != "" {
			what = failure
			err := r.command(w, s)
			what = none // it may have had nothing to write
			if err != nil && !errors.Is(err, errAway) {
				r.Fatalf("%s with fault %d: got %v", s.do, failure, err)
			}
			// What is known at a start makes good what failed; else it is told again.
			atStart := s.do == "block" || s.do == "admit" || s.do == "truth"
			switch {
			case err == nil:
			case atStart && rapid.Bool().Draw(r.T, "restart instead"):
				w = r.load(l)
			default:
				if err := r.command(w, s); err != nil {
					r.Fatalf("%s, the second time: %v", s.do, err)
				}
			}
			i++
		} else {
			n := 1
			for limit := rapid.IntRange(1, 12).Draw(r.T, "batch"); n < limit && i+n < len(r.steps) && r.steps[i+n].do == ""; n++ {
			}
			var batch []muster.Entry
			for _, s := range r.steps[i : i+n] {
				batch = append(batch, s.entry)
			}
			what = failure
			err := w.consume(r.ctx, batch)
			if (err != nil) != (failure != none) || err != nil && !errors.Is(err, errAway) {
				r.Fatalf("fault %d: got %v", failure, err)
			}
			if err != nil { // Run does it again
				if err := w.consume(r.ctx, append(records, batch...)); err != nil {
					r.Fatalf("a retry, of what is durable or not: %v", err)
				}
			}
			records = append(records, batch...)
			i += n
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
	for h := range w.evidence.all() {
		m.Evidence[h.source().String()] = fmt.Sprintf("%x", h.appendBinary(nil))
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
	for _, st := range r.steps {
		if err := muster.DecodeSignals(st.entry.Data, func(s *muster.Signal) {
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
	"a young network":   {"listed: crowd", "listed: fleet", "listed: operator", "held", "struck"},
	"one that grows up": {"listed: crowd", "listed: fleet", "listed: operator", "listed: lapsed", "listed: range", "held", "struck", "validated", "confirmed", "unconfirmed", "forgotten"},
}

// Whatever fails, however the records come in batches, and however often the
// worker is stopped, the same log with the same commands in between gives the same alerts, evidence, verdicts,
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
	known, ctx := truths(t), t.Context()
	for name, p := range map[string]crowd.Parameters{"a young network": crowd.Default(), "one that grows up": fast()} {
		t.Run(name, func(t *testing.T) {
			reached := map[string]int{}
			rapid.Check(t, func(t *rapid.T) {
				r := &replay{T: t, ctx: ctx, parameters: p, truths: known, steps: steps(t, history(t))}
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

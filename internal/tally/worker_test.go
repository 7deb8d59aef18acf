package tally

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"muster"
	"muster/internal/consensus"
	"muster/internal/policy"
)

const (
	counts = muster.Counts
	fleet  = muster.Fleet
)

// rig is a running worker with its log and ledger, on synthetic time that
// begins at start.
type rig struct {
	*Worker
	t      *testing.T
	log    *stream
	ledger *ledger
	ended  chan error
	cancel context.CancelFunc

	mu      sync.Mutex
	blocked map[string]bool
	changed int
	text    strings.Builder // of the logger
}

// inBubble runs f on synthetic time, which it moves to the start of the test
// data, with a log and a ledger that are empty.
func inBubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		<-time.After(time.Until(start))
		r := &rig{t: t, log: newStream(), ledger: newLedger(), blocked: map[string]bool{}}
		f(t, r)
		if r.cancel != nil {
			r.stop()
		}
	})
}

// run starts a worker and waits until it has nothing to do.
func (r *rig) run(change ...func(*Config)) {
	r.t.Helper()
	cfg := config(r.ledger, r.log, func(c *Config) {
		c.Now = time.Now
		c.Member = func(machine, _ string) bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return !r.blocked[machine]
		}
		c.Changed = func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.changed++
		}
		c.Logger = slog.New(slog.NewTextHandler(&r.text, nil))
	})
	for _, f := range change {
		f(&cfg)
	}
	r.Worker = New(cfg)
	ctx, cancel := context.WithCancel(r.t.Context())
	r.cancel, r.ended = cancel, make(chan error, 1)
	go func() { r.ended <- r.Run(ctx) }()
	synctest.Wait()
}

// stop ends the worker as a shutdown does.
func (r *rig) stop() {
	r.t.Helper()
	r.cancel()
	if err := <-r.ended; err != nil {
		r.t.Errorf("Run: %v", err)
	}
	r.ended <- nil
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if r.log.opened != r.log.closed {
		r.t.Errorf("%d readers were opened and %d closed", r.log.opened, r.log.closed)
	}
}

func (r *rig) report(signals ...*muster.Signal) {
	r.log.report(signals...)
	synctest.Wait()
}

func (r *rig) wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (r *rig) wantListed(what string, want ...string) {
	r.t.Helper()
	synctest.Wait()
	want = append([]string{}, want...)
	slices.Sort(want)
	if diff := cmp.Diff(want, r.ledger.listed()); diff != "" {
		r.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// verdict returns what is stored about a source.
func (r *rig) verdict(a muster.Audience, text string) muster.Verdict {
	r.t.Helper()
	return r.ledger.look().verdicts[verdictKey{a, source(r.t, text)}]
}

const address, other = "35.188.49.176", "35.188.49.177"

func TestFromTheLogToVerdicts(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		registry := prometheus.NewRegistry()
		r.run(func(c *Config) { c.Registerer = registry })
		select {
		case <-r.Ready():
		default:
			t.Error("not ready")
		}
		q := quorum(t, address, 0)
		r.report(q[0], q[1])
		r.wantListed("two of three")
		again := *q[1]
		again.Machine = "a9" // the same identity never counts again, whatever it says
		r.report(q[0], q[1], &again)
		r.wantListed("the same two again")
		r.report(q[2], said(t, "a1", other, 0, fleet), said(t, "a1", "192.168.1.1", 0, counts|fleet), said(t, "a1", "35.188.49.178", 0, muster.Decided))
		r.wantListed("all three, and a fleet's", address, other+" for A")

		state := r.ledger.look()
		if len(state.alerts) != 6 || len(state.evidence) != 3 {
			t.Errorf("%d alerts and evidence on %d sources, want 6 and 3", len(state.alerts), len(state.evidence))
		}
		stamps := map[time.Time]bool{} // each commit with news has its own
		for _, v := range r.ledger.changes() {
			stamps[v.Changed] = true
		}
		if r.changed != len(stamps) {
			t.Errorf("Changed was called %d times for %d commits with news", r.changed, len(stamps))
		}
		if r.Applied() != 9 {
			t.Errorf("applied up to %d, want 9", r.Applied())
		}
		for outcome, want := range map[string]float64{"new": 6, "duplicate": 3} {
			if got := testutil.ToFloat64(r.signals.WithLabelValues(outcome)); got != want {
				t.Errorf("%v signals are counted as %s, want %v", got, outcome, want)
			}
		}
		if n := testutil.ToFloat64(r.sources); n != 3 {
			t.Errorf("the gauge of sources says %v", n)
		}
	})
}

func TestOneCommitForManyRecords(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for i := range 50 {
			r.log.report(said(t, "a1", address, float64(i), counts))
		}
		r.run()
		if r.ledger.committed() != 1 || len(r.ledger.look().alerts) != 50 {
			t.Errorf("%d commits for %d alerts, want one for 50", r.ledger.committed(), len(r.ledger.look().alerts))
		}
	})
}

func TestACommitIsRetriedUntilTheLedgerIsBack(t *testing.T) {
	for name, what := range map[string]fault{"it does not begin": refused, "it fails at its end": undone} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.run()
				tries := 0
				r.ledger.setFault(func() fault { tries++; return what })
				r.report(quorum(t, address, 0)...)
				r.wait(time.Hour)
				if tries < 300 || tries > 400 {
					t.Errorf("%d tries in an hour, want one each 10 s", tries)
				}
				r.wantListed("while the ledger is away")
				if r.changed != 0 || r.Applied() != 0 {
					t.Errorf("Changed was called %d times, applied up to %d", r.changed, r.Applied())
				}
				if !strings.Contains(r.text.String(), errAway.Error()) {
					t.Error("the log says nothing of it")
				}
				r.ledger.setFault(nil)
				r.wait(10 * time.Second)
				r.wantListed("when it is back", address)
				if n := len(r.ledger.look().alerts); n != 3 {
					t.Errorf("%d alerts, want 3", n)
				}
				reasons := r.verdict(muster.Network, address).Reasons
				if reasons.Machines != 3 || reasons.Organisations != 2 {
					t.Errorf("counted %d machines of %d organisations", reasons.Machines, reasons.Organisations)
				}
			})
		})
	}
}

func TestBeingFencedOffEndsRun(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.ledger.take(partitionOf(source(t, address)))
		r.report(quorum(t, address, 0)...)
		if err := <-r.ended; !errors.Is(err, errTaken) {
			t.Errorf("got %v, want to be fenced off", err)
		}
		r.ended <- nil
		r.wantListed("by a worker that was fenced off")
	})
}

// A commit that is durable although its answer was lost must not count twice:
// the worker ends, and the next one goes on from what is stored.
func TestALostAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		lose := true
		r.ledger.setFault(func() fault {
			if lose {
				lose = false
				return unheard
			}
			return none
		})
		r.report(quorum(t, address, 0)[:2]...)
		r.wait(time.Second)
		if err := <-r.ended; !errors.Is(err, errTaken) {
			t.Fatalf("got %v, want to be fenced off by its own commit", err)
		}
		r.run()
		r.report(said(t, "b1", address, 0, counts))
		r.wantListed("after a restart", address)
		if got := r.verdict(muster.Network, address).Reasons.Machines; got != 3 || len(r.ledger.look().alerts) != 3 {
			t.Errorf("%d machines, %d alerts; want 3 of both", got, len(r.ledger.look().alerts))
		}
	})
}

func TestRunEndsWithItsLog(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		broken := errors.New("the stream is gone")
		r.run()
		r.log.setFail(broken)
		if err := <-r.ended; !errors.Is(err, broken) {
			t.Errorf("a failing reader: got %v", err)
		}
		r.log.setFail(nil)
		r.run(func(c *Config) {
			c.Open = func(context.Context, [muster.Partitions]uint64) (Reader, error) { return nil, broken }
		})
		if err := <-r.ended; !errors.Is(err, broken) {
			t.Errorf("a log that cannot be opened: got %v", err)
		}
		r.ended <- nil
	})
}

func TestLoadTellsDamagedEvidence(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.ledger.state.evidence[source(t, address)] = muster.EvidenceRow{Source: source(t, address), Data: []byte{99}}
		r.run()
		if err := <-r.ended; err == nil || !strings.Contains(err.Error(), address) {
			t.Errorf("got %v, want an error that names the source", err)
		}
		select {
		case <-r.Ready():
			t.Error("ready without evidence")
		default:
		}
		r.ended <- nil
	})
}

func TestADamagedRecordIsSkipped(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		q := quorum(t, address, 0)
		p := partitionOf(q[0].Source)
		r.report(q[0])
		half := muster.AppendSignal(nil, q[1])
		whole := len(half)
		half = muster.AppendSignal(half, said(t, "a3", address, 0, counts))
		r.log.append(p, half[:whole+20])
		r.log.append(p, []byte("no record at all"))
		r.report(q[2])
		r.wantListed("with what is whole", address)
		if r.ledger.look().positions[p] != 4 {
			t.Errorf("the position is %d, want 4", r.ledger.look().positions[p])
		}
		if n := strings.Count(r.text.String(), "cannot be read and is skipped"); n != 2 || !strings.Contains(r.text.String(), "position=2") {
			t.Errorf("%d lines about it: %s", n, r.text.String())
		}
	})
}

func TestMachinesThatDoNotCount(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.blocked["a2"] = true // between sending and judging
		r.run()
		r.report(quorum(t, address, 0)...)
		r.report(said(t, "a2", other, 0, counts|fleet))
		r.wantListed("with a blocked machine among three")
		if len(r.ledger.look().alerts) != 4 {
			t.Error("its alerts are not kept for their owner")
		}
	})
}

// When it is not known which machines changed, all that no longer count are
// found.
func TestForgetStrangers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(quorum(t, address, 0)...)
		r.report(said(t, "a1", other, 0, fleet))
		r.wantListed("before", address, other+" for A")
		if err := r.ForgetStrangers(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantListed("while all are members", address, other+" for A")
		r.mu.Lock()
		r.blocked["a1"] = true
		r.mu.Unlock()
		if err := r.ForgetStrangers(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantListed("without a1")
	})
}

func TestForget(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(quorum(t, address, 0)...)
		r.report(said(t, "a1", other, 0, counts|fleet), said(t, "a2", "35.188.49.178", 0, fleet), said(t, "a1", "35.188.49.178", 0, fleet))
		r.wantListed("before", address, "35.188.49.178 for A", other+" for A")
		if err := r.Forget(t.Context(), "a1", ""); err != nil {
			t.Fatal(err)
		}
		// Two machines are no quorum: the network's listing goes with a1's word.
		r.wantListed("without a1", "35.188.49.178 for A")
		if v := r.verdict("A", other); v.Listed || !strings.Contains(v.Reasons.Rule, "no longer count") {
			t.Errorf("got %+v, want a withdrawal with its reason", v)
		}
		commits, told := r.ledger.committed(), len(r.ledger.changes())
		if err := r.Forget(t.Context(), "a1", ""); err != nil || r.ledger.committed() != commits || len(r.ledger.changes()) != told {
			t.Errorf("a second time: %v, %d more commits", err, r.ledger.committed()-commits)
		}
		for _, m := range []string{"a2", "b1"} {
			if err := r.Forget(t.Context(), m, ""); err != nil {
				t.Fatal(err)
			}
		}
		r.wantListed("with nobody left")

		// It is forgotten for good, and may speak again.
		r.stop()
		r.run()
		r.wantListed("after a restart")
		r.report(said(t, "a1", other, 0, fleet))
		r.wantListed("when it speaks again", other+" for A")
	})
}

func TestForgetFailsWithTheLedger(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(said(t, "a1", address, 0, fleet))
		r.ledger.setFault(func() fault { return undone })
		if err := r.Forget(t.Context(), "a1", ""); !errors.Is(err, errAway) {
			t.Errorf("got %v", err)
		}
		r.ledger.setFault(nil)
		r.wantListed("after a failure", address+" for A")
		if err := r.Forget(t.Context(), "a1", ""); err != nil {
			t.Error(err)
		}
		r.wantListed("after a success")
	})
}

// A machine may be blocked while nobody runs.
func TestMachinesAreAskedForAtStart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(said(t, "a1", address, 0, fleet), said(t, "a2", other, 0, fleet))
		r.stop()
		r.blocked["a1"] = true
		r.run()
		r.wantListed("after a restart", other+" for A")
		r.stop()
		r.blocked["a1"] = false
		r.run()
		r.wantListed("what it said stays forgotten", other+" for A")
	})
}

const decision = "0d5b2b6c-6a3c-4f0e-9a6f-1d2c3b4a5968"

func TestWithdraw(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		withDetail := func(s *muster.Signal, uuid string) *muster.Signal {
			s.Detail = []byte(`{"decisions":[{"uuid":"` + uuid + `","origin":"crowdsec"}]}`)
			return s
		}
		withdraw := func(machine string, at time.Duration, uuids ...string) {
			t.Helper()
			removal := muster.Removal{Machine: machine, Decisions: uuids, At: start.Add(at)}
			if err := r.Withdraw(t.Context(), strings.ToUpper(machine[:1]), removal, start.Add(-72*time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		r.run()
		for _, s := range quorum(t, address, 0) {
			s.Flags |= fleet
			r.report(withDetail(s, decision))
		}
		r.report(withDetail(said(t, "a1", other, 0, fleet), decision[:35]+"9"))
		before := []string{address, address + " for A", address + " for B", other + " for A"}
		r.wantListed("before", before...)

		withdraw("a1", time.Hour, "11111111-6a3c-4f0e-9a6f-1d2c3b4a5968")
		withdraw("a1", time.Hour, "", decision[:8], `":`)
		withdraw("a1", -time.Hour, decision)
		withdraw("a7", time.Hour, decision)
		r.wantListed("a decision that is not known, texts that are none, of before the report, of another machine", before...)

		withdraw("a1", time.Hour, "unknown", decision)
		r.wantListed("while a2 still says so", before...)
		withdraw("a2", time.Hour, decision)
		r.wantListed("when both took it back", address, address+" for B", other+" for A")
		told := len(r.ledger.changes())
		withdraw("a2", time.Hour, decision)
		if len(r.ledger.changes()) != told {
			t.Error("a removal that was told twice changed something")
		}
		r.report(said(t, "a2", address, 2, fleet))
		withdraw("a2", time.Hour, decision)
		r.wantListed("a report from after the removal stands", before...)
	})
}

func TestSetAllowlist(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		list := func(reason string, texts ...string) *policy.Allowlist {
			var entries []muster.AllowEntry
			for _, text := range texts {
				entries = append(entries, muster.AllowEntry{Source: source(t, text), Reason: reason})
			}
			return policy.NewAllowlist(entries)
		}
		set := func(a *policy.Allowlist) {
			t.Helper()
			if err := r.SetAllowlist(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		r.run(func(c *Config) { c.Allowlist = list("", "35.188.50.0/24") })
		r.report(quorum(t, address, 0)...)
		r.report(quorum(t, "35.188.50.1", 0)...)
		r.report(said(t, "a1", other, 0, fleet), said(t, "a1", "35.188.50.0/25", 0, fleet))
		r.wantListed("with the allowlist of the start", address, other+" for A")

		set(list("office", "35.188.49.0/24"))
		r.wantListed("with another", "35.188.50.0/25 for A", "35.188.50.1")
		if v := r.verdict(muster.Network, address); v.Listed || v.Reasons.Rule != "on the allowlist: office" {
			t.Errorf("got %+v, want a withdrawal with its reason", v)
		}
		r.report(said(t, "a2", address, 1, counts|fleet))
		r.wantListed("after one more report", "35.188.50.0/25 for A", "35.188.50.1")
		set(nil)
		r.wantListed("with none", address, address+" for A", "35.188.50.0/25 for A", "35.188.50.1", other+" for A")

		// A change that could not be written is made good by the next try.
		r.ledger.setFault(func() fault { return refused })
		office := list("", "35.188.49.0/24")
		if err := r.SetAllowlist(t.Context(), office); !errors.Is(err, errAway) {
			t.Fatalf("got %v", err)
		}
		r.ledger.setFault(nil)
		set(office)
		r.wantListed("at the second try", "35.188.50.0/25 for A", "35.188.50.1")
		if v := r.verdict(muster.Network, address); v.Reasons.Rule != "on the allowlist" {
			t.Errorf("without a reason: got %q", v.Reasons.Rule)
		}

		// One that changed while nobody ran.
		r.stop()
		r.run(func(c *Config) { c.Allowlist = list("", "35.188.50.1") })
		r.wantListed("after a restart")
	})
}

func TestSweepEndsListings(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(quorum(t, address, 0)...)
		r.report(said(t, "a1", other, 0, fleet))
		half := said(t, "a1", other, 0.5, fleet) // moves the end by less than is told
		r.wait(30 * time.Minute)
		r.report(half)
		r.wait(71*time.Hour + 29*time.Minute)
		r.wantListed("a minute before the end", address, other+" for A")
		r.wait(2 * time.Minute)
		r.wantListed("a minute after it", other+" for A")
		if v := r.verdict(muster.Network, address); v.Reasons.Rule != "no report within 72h0m0s" || v.Since != start.UTC() {
			t.Errorf("got %+v", v)
		}
		commits := r.ledger.committed()
		r.wait(20 * time.Minute)
		if r.ledger.committed() != commits {
			t.Errorf("%d commits for a listing that stands as told", r.ledger.committed()-commits)
		}
		r.wait(15 * time.Minute)
		r.wantListed("after the end of the other")
	})
}

func TestSweepForgets(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(said(t, "a1", address, 0, counts))
		for _, s := range quorum(t, other, 0) {
			r.report(s)
		}
		r.wait(72*time.Hour - time.Minute)
		if n := len(r.ledger.look().evidence); n != 2 {
			t.Fatalf("evidence on %d sources before anything is stale, want 2", n)
		}
		// The ledger may be away meanwhile.
		r.ledger.setFault(func() fault { return refused })
		r.wait(time.Hour)
		if n := len(r.ledger.look().evidence); n != 2 || !strings.Contains(r.text.String(), "next try at the next sweep") {
			t.Fatalf("evidence on %d sources while the ledger is away; log: %s", n, r.text.String())
		}
		r.ledger.setFault(nil)
		r.wait(2 * time.Minute)
		if n := len(r.ledger.look().evidence); n != 0 {
			t.Errorf("evidence on %d sources, want none", n)
		}
		r.wantListed("afterwards")
		r.stop() // orders what follows after the worker
		if len(r.evidence) != 0 || testutil.ToFloat64(r.sources) != 0 {
			t.Errorf("memory holds evidence on %d sources", len(r.evidence))
		}
		if n := len(r.ledger.look().alerts); n != 4 {
			t.Errorf("%d alerts are left, want all 4: they are their owners'", n)
		}
	})
}

// Partitions that had nothing move along, so that a restart reads little.
func TestIdlePartitionsMoveAlong(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		for range 10 {
			r.report(said(t, "a1", address, 0, counts))
		}
		r.wait(2 * time.Minute)
		positions := r.ledger.look().positions
		if low := slices.Min(positions[:]); low != 10 {
			t.Errorf("the lowest position is %d, want 10", low)
		}
		commits := r.ledger.committed()
		r.wait(time.Hour)
		if r.ledger.committed() != commits {
			t.Errorf("%d commits in an hour without anything to do", r.ledger.committed()-commits)
		}
		r.report(said(t, "b1", other, 0, counts))
		if got := r.ledger.look().positions[partitionOf(source(t, other))]; got != 11 {
			t.Errorf("the next record moved its partition to %d, want 11", got)
		}
	})
}

// Those who follow the changelog by its stamps would miss what a clock that was
// set back has stamped.
func TestStampsOnlyGrow(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		back := time.Duration(0)
		r.run(func(c *Config) { c.Now = func() time.Time { return time.Now().Add(-back) } })
		for i := range 20 {
			back = time.Duration(i%3) * time.Hour
			if i == 10 { // the clock is set back while nobody runs
				r.stop()
				back = 2 * time.Hour
				r.run(func(c *Config) { c.Now = func() time.Time { return time.Now().Add(-back) } })
			}
			r.report(said(t, "a1", "35.188.49."+string(rune('1'+i%9)), float64(2*i), fleet))
		}
		if len(r.ledger.changes()) < 15 {
			t.Fatalf("%d verdicts are too few for this test", len(r.ledger.changes()))
		}
		for i, v := range r.ledger.changes()[1:] {
			if !v.Changed.After(r.ledger.changes()[i].Changed) {
				t.Errorf("verdict %d is stamped %s, the one before it %s", i+1, v.Changed, r.ledger.changes()[i].Changed)
			}
		}
	})
}

// Judged is what a judge was asked.
type judged struct {
	consensus.Quorum
	at *[]time.Time
}

func (j judged) Judge(s muster.Source, ev consensus.Evidence, never string, now time.Time) (consensus.Evidence, []muster.Verdict) {
	*j.at = append(*j.at, now)
	return j.Quorum.Judge(s, ev, never, now)
}

// Evidence is judged when it was received, not when the worker gets to it: a
// backlog lists what would have been listed at once.
func TestABacklogIsJudgedAtItsTime(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.log.report(quorum(t, address, 0)...)
		r.log.report(said(t, "a1", address, 30, counts)) // the quorum of the window is long gone
		r.log.report(said(t, "a1", other, 31, counts))
		r.wait(48 * time.Hour)
		var at []time.Time
		r.run(func(c *Config) { c.Judge = judged{rule, &at} })
		r.wantListed("after a backlog of two days", address)
		v := r.verdict(muster.Network, address)
		if !v.Since.Equal(start) || !v.Until.Equal(start.Add(102*time.Hour)) || !v.Changed.Equal(start.Add(48*time.Hour)) {
			t.Errorf("since %s, until %s, changed %s", v.Since, v.Until, v.Changed)
		}
		if diff := cmp.Diff([]time.Time{start, start, start, start.Add(30 * time.Hour), start.Add(31 * time.Hour)}, at); diff != "" {
			t.Errorf("judged at (-want +got):\n%s", diff)
		}
		if r.changed != 1 || len(r.ledger.changes()) != 1 {
			t.Errorf("%d verdicts in %d commits: readers need the last one only", len(r.ledger.changes()), r.changed)
		}
	})
}

func TestCommandsEndWithTheirContext(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.Forget(ctx, "a1", ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v from a worker that does not run", err)
		}
	})
}

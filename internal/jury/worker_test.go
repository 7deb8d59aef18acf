package jury

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"muster"
	"muster/internal/crowd"
)

func TestFromTheLogToVerdicts(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		registry := prometheus.NewRegistry()
		r.run(func(c *Config) { c.Registerer = registry })
		select {
		case <-r.Ready():
		default:
			t.Error("not ready")
		}
		a, b := said(t, "a1", address, 0, counts), said(t, "b1", address, 0, counts)
		r.report(a, said(t, "a2", address, 0, counts))
		r.wantListed("two machines of one organisation")
		again := *a
		again.Machine, again.Organisation = "c1", "C" // the same identity never counts again, whatever it says
		r.report(a, &again)
		r.wantListed("the same again")
		r.report(b, said(t, "a1", other, 0, fleet), said(t, "a1", "192.168.1.1", 0, counts|fleet), said(t, "a1", "35.188.49.178", 0, muster.Decided))
		r.wantListed("another organisation, and a fleet's", address, other+" for A")

		v := r.verdict(muster.Network, address)
		if v.Scenario != brute || v.Remedy != "ban" || !v.Since.Equal(start) || !v.Until.Equal(start.Add(72*time.Hour)) {
			t.Errorf("got %+v", v)
		}
		if w := v.Reasons; w.Basis != "crowd" || w.Machines != 3 || w.Independent != 2 || !w.Local || w.Parameters != crowd.Default().Version || w.Epoch == 0 || w.Support < w.Threshold {
			t.Errorf("for reasons %+v", w)
		}
		if w := r.verdict("A", other).Reasons; w.Basis != "fleet" || w.Machines != 1 {
			t.Errorf("for a fleet: reasons %+v", w)
		}

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
		if r.Applied() != 8 {
			t.Errorf("applied up to %d, want 8", r.Applied())
		}
		for outcome, want := range map[string]float64{"new": 6, "duplicate": 2} {
			if got := testutil.ToFloat64(r.signals.WithLabelValues(outcome)); got != want {
				t.Errorf("%v signals are counted as %s, want %v", got, outcome, want)
			}
		}
		if sources, machines := testutil.ToFloat64(r.sources), testutil.ToFloat64(r.machines); sources != 3 || machines != 3 {
			t.Errorf("the gauges say %v sources, %v machines", sources, machines)
		}
	})
}

// All of a /64 is one subscriber's.
func TestAddressesOfOneSubscriberAreOneSource(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(said(t, "a1", "2a00:1450:4001:81b::1", 0, counts), said(t, "b1", "2a00:1450:4001:81b::2", 0, counts), said(t, "a1", "2a00:1450:4001:81c::1", 0, fleet))
		r.wantListed("two organisations report neighbours", "2a00:1450:4001:81b::/64", "2a00:1450:4001:81c::/64 for A")
	})
}

func TestOneCommitForManyRecords(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for i := range 50 {
			r.log.report(said(t, "a1", address, float64(i)/10, counts))
		}
		r.run()
		if r.ledger.committed() != 1 || len(r.ledger.look().alerts) != 50 {
			t.Errorf("%d commits for %d alerts, want one for 50", r.ledger.committed(), len(r.ledger.look().alerts))
		}
	})
}

// After a long silence there is much that is due: nobody else gets to write
// while one transaction does all of it.
func TestALongSilenceIsMadeGoodInParts(t *testing.T) {
	for name, wake := range map[string]func(t *testing.T, r *rig){
		"by a record":  func(t *testing.T, r *rig) { r.log.report(said(t, "b1", other, 24*10, counts)) },
		"by the clock": func(*testing.T, *rig) {},
		"by records far from each": func(t *testing.T, r *rig) {
			for day := range 11 {
				r.log.report(said(t, "b1", other, float64(24*day), counts))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.run()
				r.report(said(t, "a1", address, 0, counts))
				r.stop()
				r.wait(10 * 24 * time.Hour)
				wake(t, r)
				longest, last := time.Duration(0), start
				r.ledger.setFault(func() fault {
					if tick := r.ledger.tick(t); !tick.IsZero() {
						longest, last = max(longest, tick.Sub(last)), tick
					}
					return none
				})
				r.run()
				r.wait(time.Minute)
				r.stop()
				if last.Before(start.Add(10*24*time.Hour-time.Minute)) || longest > secondsPerCommit*time.Second {
					t.Errorf("it came to %s, by up to %s in one transaction", last, longest)
				}
			})
		})
	}
}

func TestACommitIsRetriedUntilTheLedgerIsBack(t *testing.T) {
	for name, what := range map[string]fault{"it does not begin": refused, "it fails at its end": undone} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.run()
				r.report(said(t, "a1", address, 0, counts))
				r.wait(10 * time.Second)
				tries := 0
				r.ledger.setFault(func() fault { tries++; return what })
				r.report(said(t, "b1", address, 0, counts))
				r.wait(time.Hour)
				if tries < 300 || tries > 400 {
					t.Errorf("%d tries in an hour, want one each 10 s", tries)
				}
				r.wantListed("while the ledger is away")
				if r.changed != 0 || r.Applied() != 1 {
					t.Errorf("Changed was called %d times, applied up to %d", r.changed, r.Applied())
				}
				if !strings.Contains(r.text.String(), errAway.Error()) {
					t.Error("the log says nothing of it")
				}
				r.ledger.setFault(nil)
				r.wait(10 * time.Second)
				r.wantListed("when it is back", address)
				if n := len(r.ledger.look().alerts); n != 2 {
					t.Errorf("%d alerts, want 2", n)
				}
				reasons := r.verdict(muster.Network, address).Reasons
				if reasons.Machines != 2 || reasons.Independent != 2 || !slices.Equal(reasons.Reports, []int{2}) {
					t.Errorf("counted %d machines in %d groups, %v reports", reasons.Machines, reasons.Independent, reasons.Reports)
				}
			})
		})
	}
}

// A commit that is durable although its answer was lost must not count twice.
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
		r.report(said(t, "a1", address, 0, counts))
		r.wait(time.Second)
		r.report(said(t, "b1", address, 0, counts))
		r.wantListed("afterwards", address)
		if got := r.verdict(muster.Network, address).Reasons; got.Machines != 2 || !slices.Equal(got.Reports, []int{2}) || len(r.ledger.look().alerts) != 2 {
			t.Errorf("%d machines, %v reports, %d alerts; want 2 of all", got.Machines, got.Reports, len(r.ledger.look().alerts))
		}
	})
}

// When a commit failed and the ledger cannot be read either, nothing may be
// written from half of the state.
func TestTheStateIsLoadedWholeOrNotAtAll(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(said(t, "a1", address, 0, counts), said(t, "a1", "35.188.49.178", 0, counts), said(t, "a1", other, 0, counts))
		r.stop() // orders what follows
		r.ledger.setFault(func() fault { r.ledger.fault = nil; return undone })
		left := 3
		r.ledger.unreadable = func() error {
			if left--; left < 0 && left > -4 {
				return errors.New("the disk is busy")
			}
			return nil
		}
		r.run()
		r.report(said(t, "b1", address, 0, counts), said(t, "b1", "35.188.49.178", 0, counts), said(t, "b1", other, 0, counts))
		r.wait(time.Minute)
		if !strings.Contains(r.text.String(), "the disk is busy") {
			t.Fatal("nothing could not be read: the test is out of date")
		}
		r.wantListed("when it could be read again", address, "35.188.49.178", other)
	})
}

func TestBeingFencedOffEndsRun(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.ledger.take(partitionOf(source(t, address)))
		r.report(crowdSays(t, address, 0)...)
		if err := <-r.ended; !errors.Is(err, errTaken) {
			t.Errorf("got %v, want to be fenced off", err)
		}
		r.ended <- nil
		r.wantListed("by a worker that was fenced off")
	})
}

func TestBeingFencedOffEndsRunThatIsIdle(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(said(t, "a1", address, 0, counts))
		r.ledger.mu.Lock()
		r.ledger.state.epoch += 1000
		r.ledger.mu.Unlock()
		r.wait(tickSeconds*ticksPerEpoch*time.Second + time.Minute) // it has something to write once an epoch
		select {
		case err := <-r.ended:
			if !errors.Is(err, errTaken) {
				t.Errorf("got %v, want to be fenced off", err)
			}
			r.ended <- nil
		default:
			t.Error("it goes on beside the worker that took over")
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

func TestLoadTellsWhatIsDamaged(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(*testing.T, *stored)
		want   string
	}{
		"evidence": {func(t *testing.T, s *stored) {
			s.evidence[source(t, address)] = muster.EvidenceRow{Source: source(t, address), Data: []byte{99}}
		}, address},
		"trust in nobody": {func(t *testing.T, s *stored) { s.trust[7] = muster.TrustRow{Machine: 7, Data: encodeFixed(int64(1))} }, "a machine of number 7"},
		"trust":           {func(t *testing.T, s *stored) { s.trust[1] = muster.TrustRow{Machine: 1, Data: []byte{1, 2, 3}} }, "the trust in machines"},
		"trust of a later release": {func(t *testing.T, s *stored) {
			data := slices.Clone(s.trust[1].Data)
			data[0]++
			s.trust[1] = muster.TrustRow{Machine: 1, Data: data}
		}, "another release"},
		"a behaviour": {func(t *testing.T, s *stored) { s.behaviours[1] = muster.BehaviourRow{Behaviour: 1} }, "behaviours"},
		"the epoch":   {func(t *testing.T, s *stored) { s.data = "{" }, "the epoch"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.run()
				r.report(said(t, "a1", other, 0, counts))
				r.stop()
				c.damage(t, &r.ledger.state)
				r.run()
				if err := <-r.ended; err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want an error that tells of %s", err, c.want)
				}
				select {
				case <-r.Ready():
					t.Error("ready without its state")
				default:
				}
				r.ended <- nil
			})
		})
	}
}

func TestADamagedRecordIsSkipped(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		c := crowdSays(t, address, 0)
		p := partitionOf(c[0].Source)
		half := muster.AppendSignal(nil, c[0])
		whole := len(half)
		half = muster.AppendSignal(half, said(t, "a3", address, 0, counts))
		r.log.append(p, half[:whole+20])
		r.log.append(p, []byte("no record at all"))
		r.report(c[1])
		r.wantListed("with what is whole", address)
		if r.ledger.look().positions[p] != 3 {
			t.Errorf("the position is %d, want 3", r.ledger.look().positions[p])
		}
		if n := strings.Count(r.text.String(), "cannot be read and is skipped"); n != 2 || !strings.Contains(r.text.String(), "position=1") {
			t.Errorf("%d lines about it: %s", n, r.text.String())
		}
	})
}

func TestMachinesThatDoNotCount(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.block("b1", true) // between sending and judging
		r.run()
		r.report(crowdSays(t, address, 0)...)
		r.report(said(t, "b1", other, 0, counts|fleet))
		r.wantListed("with a blocked machine among two")
		if state := r.ledger.look(); len(state.alerts) != 3 || len(state.evidence) != 1 || len(state.trust) != 1 {
			t.Errorf("%d alerts, evidence on %d sources, trust in %d machines; want 3, 1, 1", len(state.alerts), len(state.evidence), len(state.trust))
		}
	})
}

// What a machine told its fleet says nothing of whether its word counts in the
// network; a restart between the two must not change what it is worth.
func TestAMachineThatOnlySpokeToItsFleet(t *testing.T) {
	for _, restart := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.run()
			r.report(said(t, "b1", other, 0, fleet))
			r.wait(10 * time.Minute) // it has been rated
			if err := r.ForgetStrangers(t.Context()); err != nil {
				t.Fatal(err)
			}
			if restart {
				r.stop()
				r.run()
			}
			r.report(crowdSays(t, address, 0.25)...)
			r.wantListed("restarted or not", address, other+" for B")
		})
	}
}

// A machine may be blocked while nobody runs.
func TestMachinesAreAskedForAtStart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(said(t, "a1", address, 0, fleet), said(t, "a2", other, 0, fleet))
		r.stop()
		r.block("a1", true)
		r.run()
		r.wantListed("after a restart", other+" for A")
		r.stop()
		r.block("a1", false)
		r.run()
		r.wantListed("what it said stays forgotten", other+" for A")
	})
}

// What must be written at the start may fail as often as it likes.
func TestAStartThatCannotWriteEnds(t *testing.T) {
	for name, what := range map[string]fault{"it does not begin": refused, "it fails at its end": undone} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.run()
				r.report(said(t, "a1", address, 0, fleet))
				r.stop()
				r.block("a1", true)
				tries := 0
				r.ledger.setFault(func() fault {
					if tries++; tries > 1000 {
						panic("it tries for ever, ever deeper")
					}
					return what
				})
				r.run()
				if err := <-r.ended; !errors.Is(err, errAway) {
					t.Errorf("got %v", err)
				}
				r.ledger.setFault(nil)
				r.run()
				r.wantListed("at the next start")
			})
		})
	}
}

func TestListingsLapse(t *testing.T) {
	for _, c := range []struct {
		name string
		pass func(t *testing.T, r *rig, until time.Duration)
	}{
		{"by the clock, when the log has nothing", func(t *testing.T, r *rig, until time.Duration) {
			left := time.Until(start.Add(until))
			if left > time.Hour { // which it makes good when it runs again
				r.stop()
				r.wait(left - time.Minute)
				r.run()
				left = time.Minute
			}
			r.wait(left)
		}},
		{"by the log's time", func(t *testing.T, r *rig, until time.Duration) {
			r.report(said(t, "c1", "35.188.77.7", until.Hours(), counts))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.run()
				r.report(crowdSays(t, address, 0)...)
				r.report(said(t, "a1", other, 0.5, fleet))
				c.pass(t, r, 72*time.Hour-10*time.Second)
				r.wantListed("before the end", address, other+" for A")
				c.pass(t, r, 72*time.Hour+15*time.Second)
				r.wantListed("after it", other+" for A")
				if v := r.verdict(muster.Network, address); v.Reasons.Basis != "lapsed" || !v.Since.Equal(start) {
					t.Errorf("got %+v", v)
				}
				c.pass(t, r, 72*time.Hour+29*time.Minute)
				r.wantListed("before the end of the other", other+" for A")
				c.pass(t, r, 72*time.Hour+31*time.Minute)
				r.wantListed("after the end of the other")
			})
		})
	}
}

// Those who read a list are not told the same end twice.
func TestAnEndThatHardlyMovesIsNotToldAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(said(t, "a1", address, 0, fleet))
		for i := range 10 {
			r.report(said(t, "a1", address, float64(i)/10, fleet))
		}
		if n := len(r.ledger.changes()); n != 1 {
			t.Errorf("told %d times within an hour", n)
		}
		r.report(said(t, "c1", other, 72.5, counts))
		r.wantListed("after the end that was told", address+" for A")
		r.report(said(t, "c1", other, 73, counts))
		r.wantListed("after the true one")
	})
}

func TestEvidenceThatIsStaleIsForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(said(t, "a1", address, 0, counts), said(t, "a1", "35.188.49.179", 0, fleet))
		r.report(crowdSays(t, other, 0)...)
		at := func(days, hours float64) {
			r.report(said(t, "c1", "35.188.77.7", 24*days+hours, counts))
		}
		at(6, 23)
		if n := len(r.ledger.look().evidence); n != 4 {
			t.Fatalf("evidence on %d sources before anything is stale, want 4", n)
		}
		// The ledger may be away meanwhile.
		r.ledger.setFault(func() fault { return undone })
		at(7, 1)
		r.ledger.setFault(nil)
		r.wait(20 * time.Second)
		state := r.ledger.look()
		if _, kept := state.evidence[source(t, other)]; !kept || len(state.evidence) != 2 {
			t.Errorf("evidence on %d sources, want that on one that was listed and on the latest", len(state.evidence))
		}
		// What comes again in the very transaction in which it was forgotten.
		r.stop()
		for _, d := range []float64{29, 31} {
			r.log.report(said(t, "c1", "35.188.77.7", 24*d, counts))
		}
		r.log.report(said(t, "a1", other, 24*31, fleet))
		r.run()
		r.wantListed("when it is reported again", other+" for A")
		state = r.ledger.look()
		if _, kept := state.evidence[source(t, other)]; !kept || len(state.evidence) != 2 {
			t.Errorf("evidence on %d sources, want that on the two", len(state.evidence))
		}
		if v := r.verdict("A", other); v.Reasons.First != start.Add(31*24*time.Hour).Unix() {
			t.Errorf("it remembers: %+v", v.Reasons)
		}
		if n := len(state.alerts); n != 9 {
			t.Errorf("%d alerts are left, want all 9: they are their owners'", n)
		}
		r.stop() // orders what follows after the worker
		if r.evidence.count != 2 || testutil.ToFloat64(r.sources) != 2 {
			t.Errorf("memory holds evidence on %d sources", r.evidence.count)
		}
	})
}

// Evidence that nobody asks about again goes by itself after a restart too.
func TestEvidenceGetsStaleWhileNobodyRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(said(t, "a1", address, 0, counts))
		r.stop()
		r.wait(8 * 24 * time.Hour)
		r.run()
		r.wait(time.Minute)
		if n := len(r.ledger.look().evidence); n != 0 {
			t.Errorf("evidence on %d sources, want none", n)
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
		if n := r.ledger.committed() - commits; n > 3600/tickSeconds {
			t.Errorf("%d commits in an hour without anything to do, want at most one a tick", n)
		}
		r.report(said(t, "b1", other, 1, counts))
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

// Evidence is judged when it was received, not when the worker gets to it: a
// backlog lists what would have been listed at once.
func TestABacklogIsJudgedAtItsTime(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.log.report(crowdSays(t, address, 0)...)
		r.log.report(said(t, "a1", address, 30, counts)) // b1's word has lost too much by then
		r.log.report(said(t, "a1", other, 31, counts))
		r.wait(48 * time.Hour)
		r.run()
		r.wantListed("after a backlog of two days", address)
		v := r.verdict(muster.Network, address)
		if !v.Since.Equal(start) || !v.Until.Equal(start.Add(102*time.Hour)) || v.Changed.Sub(start.Add(48*time.Hour)).Abs() > time.Millisecond {
			t.Errorf("since %s, until %s, changed %s", v.Since, v.Until, v.Changed)
		}
		if n := len(r.ledger.changes()); n != 2 {
			t.Errorf("%d verdicts, want both of its history", n)
		}
	})
}

// A ledger that takes its time must not make the worker believe that the log
// has nothing: what waits there would be judged too late.
func TestTheClockWaitsForABacklog(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.log.limit = 1
		for i := range 40 {
			r.log.report(said(t, "a1", address, float64(i)/2, counts))
		}
		r.log.report(said(t, "b1", address, 19.5, counts))
		r.wait(10 * 24 * time.Hour)
		r.ledger.setFault(func() fault { <-time.After(5 * time.Second); return none })
		r.run()
		r.wait(10 * time.Minute)
		r.ledger.setFault(nil)
		r.wait(time.Minute)
		listed := slices.ContainsFunc(r.ledger.changes(), func(v muster.Verdict) bool { return v.Listed && v.Since.Equal(start.Add(19*time.Hour+30*time.Minute)) })
		if !listed {
			t.Errorf("it was not listed at its time: %+v", r.ledger.changes())
		}
	})
}

// Names get their numbers once, whatever fails and whoever runs.
func TestNumbersAreGivenOutOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(said(t, "a1", address, 0, counts), said(t, "b1", address, 0, fleet))
		fail := true
		r.ledger.setFault(func() fault {
			if fail {
				fail = false
				return undone
			}
			return none
		})
		r.report(said(t, "c1", address, 0, counts))
		r.wait(time.Second)
		r.stop()
		r.block("b1", true) // who leaves keeps the number
		r.run()
		invented := said(t, "d1", address, 0, counts)
		invented.Scenario = "own/invented"
		r.report(said(t, "b1", address, 0, counts), invented, said(t, "e1", address, 0, muster.Decided))
		r.block("b1", false)
		r.report(said(t, "b1", address, 0, counts))
		want := map[numberKey]uint32{
			{muster.MachineNumber, "a1"}: 1, {muster.MachineNumber, "b1"}: 2, {muster.MachineNumber, "c1"}: 3, {muster.MachineNumber, "d1"}: 4,
			{muster.OrganisationNumber, "A"}: 1, {muster.OrganisationNumber, "B"}: 2, {muster.OrganisationNumber, "C"}: 3, {muster.OrganisationNumber, "D"}: 4,
			{muster.BehaviourNumber, brute}: 1, {muster.BehaviourNumber, probing}: 2, {muster.BehaviourNumber, "own/invented"}: 3,
		}
		if diff := cmp.Diff(want, r.ledger.look().numbers); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Senders invent scenarios; beyond a bound those are as one.
func TestScenariosAreBounded(t *testing.T) {
	w := New(config(newLedger(), newStream()))
	w.reset()
	for i := range maxScenarios + 10 {
		w.number(scenarios, "own/"+time.Duration(i).String())
	}
	if n := len(w.numbers[scenarios].names); n != maxScenarios+1 {
		t.Errorf("%d names of scenarios, want %d and that of number 0", n, maxScenarios)
	}
	if got := w.number(scenarios, "own/one more"); got != 0 {
		t.Errorf("one more has number %d", got)
	}
	if got := w.number(scenarios, "own/1ns"); got == 0 {
		t.Error("one that is known has no number any more")
	}
}

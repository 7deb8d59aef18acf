package jury

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/internal/policy"
)

func TestForget(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(crowdSays(t, address, 0)...)
		r.report(said(t, "a1", other, 0, counts|fleet), said(t, "a2", "35.188.49.178", 0, fleet), said(t, "a1", "35.188.49.178", 0, fleet))
		r.wantListed("before", address, "35.188.49.178 for A", other+" for A")
		if err := r.Forget(t.Context(), "a1", ""); err != nil {
			t.Fatal(err)
		}
		// What stands may go on with less than it took to list it: b1 still says so.
		r.wantListed("without a1", address, "35.188.49.178 for A")
		if v := r.verdict("A", other); v.Listed || v.Reasons.Basis != "unsupported" {
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
		if v := r.verdict(muster.Network, address); v.Reasons.Basis != "unsupported" {
			t.Errorf("got %+v, want a withdrawal with its reason", v)
		}

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
		for _, what := range []fault{undone, refused} {
			r.ledger.setFault(func() fault { return what })
			if err := r.Forget(t.Context(), "a1", ""); !errors.Is(err, errAway) {
				t.Errorf("got %v", err)
			}
			r.ledger.setFault(nil)
			r.wantListed("after a failure", address+" for A")
		}
		if err := r.Forget(t.Context(), "a1", ""); err != nil {
			t.Error(err)
		}
		r.wantListed("after a success")
	})
}

// A machine that moved to another organisation takes along what it says from
// then on, and leaves nothing behind.
func TestForgetOfAnotherOrganisation(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		moved := said(t, "a1", other, 0, fleet)
		moved.Organisation = "C"
		r.report(said(t, "a1", address, 0, fleet), moved)
		r.wantListed("before", address+" for A", other+" for C")
		if err := r.Forget(t.Context(), "a1", "C"); err != nil {
			t.Fatal(err)
		}
		r.wantListed("as a member of C only", other+" for C")
		commits := r.ledger.committed()
		for _, m := range []string{"a1", "a2", "", "A"} {
			if err := r.Forget(t.Context(), m, "C"); err != nil || r.ledger.committed() != commits {
				t.Errorf("%q, who has nothing to forget: %v, %d more commits", m, err, r.ledger.committed()-commits)
			}
		}
	})
}

// When it is not known which machines changed, all that no longer count are
// found; and they are no part of the network any more.
func TestForgetStrangers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(crowdSays(t, address, 0)...)
		r.report(said(t, "a1", other, 0, fleet))
		before := []string{address, other + " for A"}
		r.wantListed("before", before...)
		commits := r.ledger.committed()
		if err := r.ForgetStrangers(t.Context()); err != nil || r.ledger.committed() != commits {
			t.Fatalf("while all are members: %v, %d more commits", err, r.ledger.committed()-commits)
		}
		r.wantListed("while all are members", before...)
		r.wait(10 * time.Minute)
		if p, newcomer, err := r.Network(t.Context()); err != nil || p.Machines != 2 || p.Organisations != 2 || newcomer < 2.9 {
			t.Errorf("the network is %+v, newcomers weigh %v: %v", p, newcomer, err)
		}
		r.block("a1", true)
		if err := r.ForgetStrangers(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantListed("without a1", address)
		r.wait(10 * time.Minute)
		if p, _, err := r.Network(t.Context()); err != nil || p.Machines != 1 || p.Organisations != 1 {
			t.Errorf("the network is %+v: %v", p, err)
		}
		r.block("b1", true)
		if err := r.ForgetStrangers(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantListed("without anybody")
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
		for _, s := range append(crowdSays(t, address, 0), said(t, "a2", address, 0, counts)) {
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
		r.stop()
		r.run()
		r.wantListed("after a restart", before...)
	})
}

func TestSetTruth(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		list := func(reason string, texts ...string) Truth {
			var entries []muster.AllowEntry
			for _, text := range texts {
				entries = append(entries, muster.AllowEntry{Source: source(t, text), Reason: reason})
			}
			return Truth{Allowlist: policy.NewAllowlist(entries)}
		}
		set := func(a Truth) {
			t.Helper()
			if err := r.SetTruth(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		r.run(func(c *Config) { c.Truth = list("", "35.188.50.0/24") })
		r.report(crowdSays(t, address, 0)...)
		r.report(crowdSays(t, "35.188.50.1", 0)...)
		r.report(said(t, "a1", other, 0, fleet), said(t, "a1", "35.188.50.0/25", 0, fleet))
		r.wantListed("with the allowlist of the start", address, other+" for A")

		set(list("office", "35.188.49.0/24"))
		r.wantListed("with another", "35.188.50.0/25 for A", "35.188.50.1")
		if v := r.verdict(muster.Network, address); v.Listed || v.Reasons.Basis != "never" || v.Reasons.Never != "on the allowlist: office" {
			t.Errorf("got %+v, want a withdrawal with its reason", v)
		}
		r.report(said(t, "a2", address, 1, counts|fleet))
		r.wantListed("after one more report", "35.188.50.0/25 for A", "35.188.50.1")
		set(Truth{})
		r.wantListed("with none", address, address+" for A", "35.188.50.0/25 for A", "35.188.50.1", other+" for A")

		// A change that could not be written is made good by the next try.
		for _, what := range []fault{refused, undone} {
			r.ledger.setFault(func() fault { return what })
			office := list("", "35.188.49.0/24")
			if err := r.SetTruth(t.Context(), office); !errors.Is(err, errAway) {
				t.Fatalf("got %v", err)
			}
			r.ledger.setFault(nil)
			set(office)
			r.wantListed("at the second try", "35.188.50.0/25 for A", "35.188.50.1")
			if v := r.verdict(muster.Network, address); v.Reasons.Never != "on the allowlist" {
				t.Errorf("without a reason: got %q", v.Reasons.Never)
			}
			set(Truth{})
		}
		set(list("", "35.188.49.0/24"))

		// One that changed while nobody ran.
		r.stop()
		r.run(func(c *Config) { c.Truth = list("", "35.188.0.0/16") })
		r.wantListed("after a restart")
	})
}

// What turns out to be good comes off every list, and those who reported it are
// judged for it.
func TestSetTruthWithACanary(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(crowdSays(t, canary, 0)...)
		r.report(said(t, "a1", canary, 0, fleet))
		r.wantListed("before anybody knows", canary, canary+" for A")
		if err := r.SetTruth(t.Context(), truth(t)); err != nil {
			t.Fatal(err)
		}
		r.wantListed("as a canary")
		if v := r.verdict(muster.Network, canary); v.Reasons.Basis != "canary" {
			t.Errorf("got %+v, want a withdrawal with its reason", v)
		}
		for _, m := range []string{"a1", "b1"} {
			if got := r.trust(m); got.Trust.Rank != 0 || !got.Trust.Paused {
				t.Errorf("%s: got %+v", m, got.Trust)
			}
		}
		if err := r.SetTruth(t.Context(), Truth{}); err != nil {
			t.Fatal(err)
		}
		if got := r.kinds(); got["held"] != 2 || got["excused"] != 2 {
			t.Errorf("when it is no canary any more: events %v, want two machines held and excused", got)
		}
		r.wait(6 * time.Minute)
		if got := r.trust("a1"); got.Trust.Paused {
			t.Errorf("an epoch later: %+v", got.Trust)
		}
		r.report(said(t, "c1", canary, 0.5, counts), said(t, "d1", canary, 0.5, counts))
		r.wantListed("when others report it", canary, canary+" for A")
	})
}

// trust asks for the trust in a machine.
func (r *rig) trust(machine string) Trust {
	r.t.Helper()
	got, err := r.Trust(r.t.Context(), machine)
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

// kinds counts the stored events about machines.
func (r *rig) kinds() map[string]int {
	kinds := map[string]int{}
	for k := range r.ledger.look().events {
		kinds[k.kind]++
	}
	return kinds
}

// Who reports a canary loses all weight at once, what stood on its word falls at
// the next tick, and a day later it is struck.
func TestACanaryReport(t *testing.T) {
	for _, restart := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			run := func() { r.run(func(c *Config) { c.Truth = truth(t) }) }
			again := func() {
				if restart {
					r.stop()
					run()
				}
			}
			run()
			r.report(crowdSays(t, address, 0)...)
			r.report(said(t, "a1", other, 0, counts), said(t, "c1", other, 0, counts), said(t, "a1", other, 0, fleet))
			r.wantListed("before", address, other, other+" for A")
			if got := r.trust("a1"); got.Trust.Rank != 1 || got.Trust.Weight < 2.9 {
				t.Errorf("a newcomer: %+v", got.Trust)
			}

			r.report(said(t, "a1", canary, 0.001, counts), said(t, "b1", canary, 0.001, counts))
			again()
			for _, m := range []string{"a1", "b1"} {
				if got := r.trust(m); got.Trust.Rank != 0 || got.Trust.Weight != 0 || !got.Trust.Paused {
					t.Errorf("%s reported a canary: %+v", m, got.Trust)
				}
			}
			if e := r.event("held", 1); e.RankBefore != 1 || e.RankAfter != 0 || e.Source != source(t, canary) || e.Behaviour != brute || e.Amount != 1 {
				t.Errorf("the event is stored as %+v", e)
			}
			if got := r.trust("c1"); got.Trust.Rank != 1 {
				t.Errorf("c1 did not report it: %+v", got.Trust)
			}
			r.tick()
			r.tick()
			// c1 still says so, but a listing that a liar helped to make has not the
			// benefit of standing. What a machine tells its own fleet is theirs to judge.
			r.wantListed("a tick later", other+" for A")
			if v := r.verdict(muster.Network, address); v.Reasons.Basis != "unsupported" {
				t.Errorf("got %+v, want a withdrawal with its reason", v)
			}
			again()
			r.wait(6 * time.Minute)
			r.wantListed("an epoch later", other+" for A")

			r.report(said(t, "a1", "35.188.49.200", 0.5, counts), said(t, "c1", "35.188.49.200", 0.5, counts), said(t, "a1", canary, 0.6, counts))
			r.wantListed("a word that is worth nothing", other+" for A")
			again()
			r.wait(25 * time.Hour)
			kinds := r.kinds()
			if kinds["held"] != 2 || kinds["struck"] != 2 {
				t.Errorf("events %v, want two machines held and struck", kinds)
			}
			if got := r.trust("a1"); got.Trust.Rank != 0 || !got.Trust.Paused || got.Record.Strikes != 1 {
				t.Errorf("a day later: %+v, %+v", got.Trust, got.Record)
			}
		})
	}
}

// event returns what is stored of a kind about a machine.
func (r *rig) event(kind string, machine uint32) (e muster.TrustEvent) {
	for k, v := range r.ledger.look().events {
		if k.kind == kind && k.machine == machine {
			e = v
		}
	}
	return e
}

// What commands write is fenced as everything else is.
func TestBeingFencedOffEndsRunAtACommand(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(crowdSays(t, address, 0)...)
		r.ledger.setFault(func() fault { return undone })
		if err := r.Unban(t.Context(), source(t, address), time.Now()); !errors.Is(err, errAway) {
			t.Errorf("got %v", err)
		}
		r.ledger.setFault(nil)
		r.wantListed("after what fails for another reason it goes on", address)
		r.report(said(t, "a1", canary, 0, counts)) // known to be one from now on: a new epoch is to be written
		r.ledger.mu.Lock()
		r.ledger.state.epoch += 1000
		r.ledger.mu.Unlock()
		if err := r.SetTruth(t.Context(), truth(t)); !errors.Is(err, errTaken) {
			t.Errorf("the command: got %v, want to be fenced off", err)
		}
		if err := <-r.ended; !errors.Is(err, errTaken) {
			t.Errorf("Run: got %v, want to be fenced off", err)
		}
		r.ended <- nil
	})
}

func TestTrustOfNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		if _, err := r.Trust(t.Context(), "a1"); !errors.Is(err, muster.NotFound) {
			t.Errorf("got %v", err)
		}
		r.report(said(t, "a1", address, 0, counts))
		if got := r.trust("a1"); got.Number != 1 || got.Record.Tenure != 1 || got.Epoch == 0 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestUnban(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(crowdSays(t, address, 0)...)
		r.report(said(t, "c1", address, 0, fleet))
		r.wantListed("before", address, address+" for C")
		r.wait(time.Hour)
		if err := r.Unban(t.Context(), source(t, address), time.Now()); err != nil {
			t.Fatal(err)
		}
		r.wantListed("it is still the fleet's to say", address+" for C")
		if v := r.verdict(muster.Network, address); v.Reasons.Basis != "cleared" {
			t.Errorf("got %+v, want a withdrawal with its reason", v)
		}
		r.stop()
		r.run()
		r.report(crowdSays(t, address, 2)...)
		r.wantListed("on probation, two are too few", address+" for C")
		r.report(said(t, "d1", address, 2, counts))
		r.wantListed("three are enough", address, address+" for C")
		if v := r.verdict(muster.Network, address); !v.Reasons.Probation {
			t.Errorf("got %+v", v.Reasons)
		}
		// One that nobody has reported, and that nobody will.
		if err := r.Unban(t.Context(), source(t, other), time.Now()); err != nil {
			t.Fatal(err)
		}
		r.ledger.setFault(func() fault { return undone })
		if err := r.Unban(t.Context(), source(t, "35.188.49.178"), time.Now()); !errors.Is(err, errAway) {
			t.Errorf("got %v", err)
		}
		r.ledger.setFault(nil)
		r.report(said(t, "d1", "35.188.77.7", 24*31+2, counts))
		if _, kept := r.ledger.look().evidence[source(t, other)]; kept {
			t.Error("the unban of a source that nobody reported is kept for ever")
		}
	})
}

func TestExplain(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run(func(c *Config) { c.Truth = truth(t) })
		explain := func(text string) Standing {
			t.Helper()
			s, err := r.Explain(t.Context(), source(t, text))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		if s := explain(address); s.Known || s.Reasons.Never != "" || !s.Due.IsZero() {
			t.Errorf("a source that nobody reported: %+v", s)
		}
		if s := explain("192.168.1.1"); s.Known || s.Reasons.Never == "" {
			t.Errorf("reserved space: %+v", s)
		}
		if s := explain(canary); s.Known || !s.Canary {
			t.Errorf("a canary: %+v", s)
		}
		r.report(said(t, "a1", address, 0, counts))
		commits := r.ledger.committed()
		if s := explain(address); !s.Known || s.Reasons.Basis != "undecided" || s.Reasons.Machines != 1 || !s.Due.Equal(start.Add(72*time.Hour)) {
			t.Errorf("one voice: %+v", s)
		}
		r.report(said(t, "b1", address, 0, counts))
		if s := explain(address); !s.Known || s.Reasons.Basis != "crowd" && s.Reasons.Basis != "standing" || s.Reasons.Convictions != 1 || !s.Due.Equal(start.Add(24*time.Hour)) {
			t.Errorf("listed: %+v", s)
		}
		if n := r.ledger.committed() - commits; n != 1 {
			t.Errorf("%d commits for one report: asking changes nothing", n)
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

func TestNames(t *testing.T) {
	set := map[string]bool{decision: true}
	for detail, want := range map[string]bool{
		`{"decisions":[{"uuid":"` + decision + `"}]}`:                  true,
		`{"decisions":[{"uuid": "x"}, {"uuid": "` + decision + `" }]}`: true,
		`{"message":"a \" quote","uuid":"` + decision + `"}`:           true,
		`{"message":"it says \\","uuid":"` + decision + `"}`:           true,
		`{"message":"of ` + decision + ` it says nothing"}`:            false,
		`{"uuid":"` + decision[:35] + `"}`:                             false,
		`{"uuid":"` + strings.ToUpper(decision) + `"}`:                 false,
		`{"uuid":"` + decision:                                         false,
		``:                                                             false,
		`"`:                                                            false,
	} {
		if got := names([]byte(detail), set); got != want {
			t.Errorf("%s: got %t, want %t", detail, got, want)
		}
	}
}

// Every string of a document is found, whatever stands around it.
func TestNamesFindsEveryString(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.SliceOf(rapid.String()).Draw(t, "before")
		doc, err := json.Marshal(map[string]any{"before": before, "uuid": decision, "zz": rapid.String().Draw(t, "after")})
		if err != nil {
			t.Fatal(err)
		}
		if !names(doc, map[string]bool{decision: true}) {
			t.Fatalf("not found in %s", doc)
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add(`{"uuid":"`+decision+`"}`, decision)
	f.Add(`"a\"b"`, "b")
	f.Fuzz(func(t *testing.T, detail, word string) {
		if got := names([]byte(detail), map[string]bool{word: true}); got && !strings.Contains(detail, `"`+word+`"`) {
			t.Errorf("%q is no string of %q", word, detail)
		}
	})
}

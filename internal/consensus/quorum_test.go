package consensus

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"muster"
)

var (
	start    = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	attacker = muster.SourceFromAddr(netip.MustParseAddr("35.188.49.176"))
	rule     = Quorum{Machines: 3, Organisations: 2, Window: 24 * time.Hour, Expiry: 72 * time.Hour}
)

// report is one signal: machine m of organisation o, hours after start.
func report(m, o string, hours float64, flags muster.SignalFlags) *muster.Signal {
	return &muster.Signal{
		Machine: m, Organisation: o, Source: attacker, Scenario: "crowdsecurity/ssh-bf",
		At: start.Add(time.Duration(hours * float64(time.Hour))), Flags: flags,
	}
}

// listed folds signals one after the other, judging each time as the worker
// does, and returns who has the source listed at the end.
func listed(t *testing.T, now float64, signals ...*muster.Signal) []muster.Audience {
	t.Helper()
	var ev Evidence
	for _, s := range signals {
		ev = Fold(ev, s)
		ev, _ = rule.Judge(attacker, ev, "", s.At)
	}
	ev, _ = rule.Judge(attacker, ev, "", start.Add(time.Duration(now*float64(time.Hour))))
	audiences := []muster.Audience{}
	for _, st := range ev.Standing {
		audiences = append(audiences, st.Audience)
	}
	return audiences
}

func TestWhoGetsASourceListed(t *testing.T) {
	const c, f = muster.Counts, muster.Fleet
	check := func(name string, want, got []muster.Audience) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	none := []muster.Audience{}
	network := []muster.Audience{muster.Network}
	check("three machines of two organisations", network,
		listed(t, 1, report("a1", "A", 0, c), report("a2", "A", 0.5, c), report("b1", "B", 1, c)))
	check("two machines are too few", none,
		listed(t, 1, report("a1", "A", 0, c), report("b1", "B", 1, c)))
	check("one organisation is one voice", none,
		listed(t, 1, report("a1", "A", 0, c), report("a2", "A", 0, c), report("a3", "A", 0, c), report("a4", "A", 1, c)))
	check("one machine again and again is one machine", none,
		listed(t, 1, report("a1", "A", 0, c), report("a1", "A", 0.1, c), report("a1", "A", 0.2, c), report("b1", "B", 1, c)))
	check("reports further apart than the window", none,
		listed(t, 49, report("a1", "A", 0, c), report("a2", "A", 24.5, c), report("b1", "B", 49, c)))
	check("listed until 72 h after the last report", network,
		listed(t, 72.9, report("a1", "A", 0, c), report("a2", "A", 0.5, c), report("b1", "B", 1, c)))
	check("lapsed 72 h after the last report", none,
		listed(t, 73, report("a1", "A", 0, c), report("a2", "A", 0.5, c), report("b1", "B", 1, c)))
	check("one report keeps a listing alive", network,
		listed(t, 100, report("a1", "A", 0, c), report("a2", "A", 0, c), report("b1", "B", 0, c), report("a1", "A", 60, c)))
	check("after it lapsed one report is not enough", none,
		listed(t, 81, report("a1", "A", 0, c), report("a2", "A", 0, c), report("b1", "B", 0, c), report("a1", "A", 80, c)))
	check("a fleet needs one report", []muster.Audience{"A"}, listed(t, 1, report("a1", "A", 1, c|f)))
	check("a fleet listing lapses too", none, listed(t, 73, report("a1", "A", 1, c|f)))
	check("network and two fleets", []muster.Audience{muster.Network, "A", "B"},
		listed(t, 1, report("a1", "A", 0, c|f), report("a2", "A", 0, c), report("b1", "B", 1, c|f)))
	check("what neither counts nor goes to a fleet is nothing", none,
		listed(t, 1, report("a1", "A", 0, muster.Decided), report("a2", "A", 0, 0), report("b1", "B", 1, muster.Decided)))
}

func TestJudgeTellsOnlyWhatChanged(t *testing.T) {
	var ev Evidence
	for _, s := range []*muster.Signal{report("a1", "A", 0, muster.Counts), report("a2", "A", 0, muster.Counts), report("b1", "B", 0, muster.Counts)} {
		ev = Fold(ev, s)
	}
	ev, vs := rule.Judge(attacker, ev, "", start)
	want := []muster.Verdict{{
		Source: attacker, Audience: muster.Network, Listed: true, Scenario: "crowdsecurity/ssh-bf",
		Since: start, Until: start.Add(72 * time.Hour), Changed: start,
		Reasons: muster.Reasons{
			Machines: 3, Organisations: 2, Scenarios: []string{"crowdsecurity/ssh-bf"}, First: start.Unix(), Last: start.Unix(),
			Rule: "3 machines of 2 organisations reported it within 24h0m0s (needed: 3 of 2)",
		},
	}}
	if diff := cmp.Diff(want, vs, cmpopts.EquateComparable(muster.Source{})); diff != "" {
		t.Fatalf("first judgement (-want +got):\n%s", diff)
	}
	ev = Fold(ev, report("a1", "A", 0.5, muster.Counts))
	if ev, vs = rule.Judge(attacker, ev, "", start.Add(30*time.Minute)); len(vs) != 0 {
		t.Errorf("an end that moved by half an hour was told again: %+v", vs)
	}
	ev = Fold(ev, report("a1", "A", 1, muster.Counts))
	ev, vs = rule.Judge(attacker, ev, "", start.Add(time.Hour))
	if len(vs) != 1 || !vs[0].Until.Equal(start.Add(73*time.Hour)) || !vs[0].Since.Equal(start) {
		t.Errorf("want the new end, 73 h after the start, told once with the old beginning; got %+v", vs)
	}
	ev, vs = rule.Judge(attacker, ev, "on the allowlist: our own", start.Add(2*time.Hour))
	if len(vs) != 1 || vs[0].Listed || vs[0].Reasons.Rule != "on the allowlist: our own" || !vs[0].Until.Equal(start.Add(73*time.Hour)) {
		t.Errorf("want one withdrawal with its reason and the end that readers know; got %+v", vs)
	}
	if _, vs = rule.Judge(attacker, ev, "on the allowlist: our own", start.Add(3*time.Hour)); len(vs) != 0 {
		t.Errorf("the withdrawal was told twice: %+v", vs)
	}
}

func TestForgetAndWithdraw(t *testing.T) {
	var ev Evidence
	for _, s := range []*muster.Signal{
		report("a1", "A", 0, muster.Counts|muster.Fleet), report("a2", "A", 0, muster.Counts), report("b1", "B", 0, muster.Counts),
	} {
		ev = Fold(ev, s)
	}
	ev, _ = rule.Judge(attacker, ev, "", start)
	if ev.Withdraw("a1", start.Add(-time.Second)) {
		t.Error("a deletion from before the report withdrew it")
	}
	if !ev.Withdraw("a1", start) {
		t.Error("the fleet's report was not withdrawn")
	}
	ev, vs := rule.Judge(attacker, ev, "", start)
	if len(vs) != 1 || vs[0].Audience != "A" || vs[0].Listed {
		t.Errorf("want A's listing withdrawn and the network's kept; got %+v", vs)
	}
	of := func(machine string) func(Voice) bool {
		return func(v Voice) bool { return v.Machine == machine }
	}
	if !ev.Forget(of("b1")) || ev.Forget(of("b1")) {
		t.Error("Forget must say whether there was something to forget")
	}
	// The only machine of the second organisation is gone, and with it the quorum
	// that the listing stood on.
	if _, vs = rule.Judge(attacker, ev, "", start); len(vs) != 1 || vs[0].Audience != muster.Network || vs[0].Listed {
		t.Errorf("want the network's listing withdrawn; got %+v", vs)
	}
}

// signals draws reports by a few machines of a few organisations.
func signals(t *rapid.T) []*muster.Signal {
	var out []*muster.Signal
	for range rapid.IntRange(1, 120).Draw(t, "n") {
		m := rapid.IntRange(0, 90).Draw(t, "machine")
		s := report(fmt.Sprint("m", m), fmt.Sprint("o", m%7), rapid.Float64Range(0, 100).Draw(t, "hours"),
			muster.SignalFlags(rapid.IntRange(0, 7).Draw(t, "flags")))
		s.Scenario = fmt.Sprint("s", rapid.IntRange(0, 12).Draw(t, "scenario"))
		out = append(out, s)
	}
	return out
}

func TestEvidenceIsBoundedAndSurvivesItsBinaryForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ev Evidence
		for _, s := range signals(t) {
			ev = Fold(ev, s)
			ev, _ = rule.Judge(attacker, ev, "", s.At)
		}
		if len(ev.Voices) > MaxVoices || len(ev.Scenarios) > maxScenarios {
			t.Fatalf("%d voices and %d scenarios are remembered", len(ev.Voices), len(ev.Scenarios))
		}
		back, err := EvidenceFromBinary(ev.AppendBinary(nil))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ev, back, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("after a round trip (-want +got):\n%s", diff)
		}
	})
}

func TestSameSignalsSameVerdicts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := signals(t)
		judge := func() (all []muster.Verdict) {
			var ev Evidence
			for _, s := range in {
				var vs []muster.Verdict
				ev = Fold(ev, s)
				ev, vs = rule.Judge(attacker, ev, "", s.At)
				all = append(all, vs...)
			}
			return all
		}
		if diff := cmp.Diff(judge(), judge(), cmpopts.EquateComparable(muster.Source{})); diff != "" {
			t.Fatalf("two runs differ:\n%s", diff)
		}
	})
}

// A network listing never stands without a quorum at some moment, whatever the
// order of reports: the property that the first rule is for.
func TestNoListingWithoutQuorum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := signals(t)
		machines, orgs := map[string]bool{}, map[string]bool{}
		var ev Evidence
		for _, s := range in {
			if s.Flags&muster.Counts != 0 {
				machines[s.Machine], orgs[s.Organisation] = true, true
			}
			ev = Fold(ev, s)
			var vs []muster.Verdict
			ev, vs = rule.Judge(attacker, ev, "", s.At)
			for _, v := range vs {
				if v.Listed && v.Audience == muster.Network && (len(machines) < rule.Machines || len(orgs) < rule.Organisations) {
					t.Fatalf("listed after %d machines of %d organisations", len(machines), len(orgs))
				}
			}
		}
	})
}

func FuzzEvidenceFromBinary(f *testing.F) {
	ev := Fold(Evidence{}, report("a1", "A", 0, muster.Counts|muster.Fleet))
	ev, _ = rule.Judge(attacker, ev, "", start)
	f.Add(ev.AppendBinary(nil))
	f.Add([]byte{evidenceVersion})
	f.Fuzz(func(t *testing.T, data []byte) {
		ev, err := EvidenceFromBinary(data)
		if err == nil && len(ev.AppendBinary(nil)) == 0 {
			t.Error("evidence without a binary form")
		}
	})
}

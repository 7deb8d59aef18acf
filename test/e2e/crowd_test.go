package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/internal/testkit"
)

// Sources of attacks in TestCrowd, public addresses all but one.
var (
	seenByTwo  = netip.MustParseAddr("185.220.101.70") // a and b report it
	together   = netip.MustParseAddr("185.220.101.71") // a and c, before c reports a canary
	afterwards = netip.MustParseAddr("185.220.101.72") // a and c, after that
	control    = netip.MustParseAddr("185.220.101.73") // a and b, after that
	edited     = netip.MustParseAddr("185.220.101.74") // d with an edited scenario, and b
	fleetOnly  = netip.MustParseAddr("185.220.101.75") // the same, when d's fleet takes everything

	aCanary = netip.MustParseAddr("185.220.101.60")
	builtIn = netip.MustParseAddr("9.9.9.9") // a canary that every server has
	aFriend = netip.MustParseAddr("185.220.102.61")
	indoors = netip.MustParseAddr("192.168.77.7")

	friends = netip.MustParsePrefix("185.220.102.56/29") // on the allowlist
)

// crowd is Muster with the engines of three organisations. Engines reach it
// through relays that keep all answers.
//
//	a, d  of the first; d has an edited scenario for ssh
//	b     of the second
//	c     of the third; it reports a canary
type crowd struct {
	network
	third string
	c, d  *testkit.Engine
}

// TestCrowd is about who is believed: independent organisations are, liars and
// edited scenarios are not; and what is known to be good never leaves, whoever
// reports it. Its steps build on one another.
func TestCrowd(t *testing.T) {
	if testing.Short() {
		t.Skip("real engines take minutes: skipped with -short")
	}
	t.Parallel()
	hub := testkit.StartHub(t)
	kit := testkit.Crowdsec{Hub: hub, Guard: testkit.StartGuard(t)}
	n := &crowd{c: kit.NewEngine(t, "c"), d: kit.NewEngine(t, "d")}
	n.a, n.b = kit.NewEngine(t, "a"), kit.NewEngine(t, "b")
	n.muster = testkit.NewMuster(t, "MUSTER_HUB__INDEX="+hub.Index)
	n.muster.Start(t)
	n.first, n.second, n.third = n.muster.Organisation(t, "First"), n.muster.Organisation(t, "Second"), n.muster.Organisation(t, "Third")
	n.muster.Admin(t, "admin", "allow", "add", friends.String(), "--reason", "a friend's")
	edit(t, n.d, "ssh-bf.yaml")
	for i, m := range []struct {
		engine       *testkit.Engine
		organisation string
	}{{n.a, n.first}, {n.b, n.second}, {n.c, n.third}, {n.d, n.first}} {
		m.engine.Relay = testkit.NewRelay(t, n.muster, fmt.Sprintf("127.0.0.%d", 21+i))
		n.muster.Join(t, m.engine, "--key", n.muster.EnrolmentKey(t, m.organisation))
		m.engine.Start(t)
	}

	for _, step := range []struct {
		name string
		run  func(*crowd, *testing.T)
	}{
		{"what two organisations report reaches a third", believed},
		{"who reports a canary is believed no more", canaryReported},
		{"an edited scenario changes no verdict of the network", editedScenario},
		{"but protects its owner's fleet, when that is the owner's will", editedForTheFleet},
		{"what stood on its word is withdrawn", withdrawn},
		{"nothing that is known to be good, or private, has left", nothingGoodLeft},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(n, t) }) {
			return
		}
		n.goodIsNowhere(t)
	}
}

// edit changes an installed scenario as people do who find it too slow.
func edit(t *testing.T, e *testkit.Engine, file string) {
	t.Helper()
	path := filepath.Join(e.Dir, "scenarios", file)
	text, err := os.ReadFile(path)
	if err == nil {
		changed := strings.ReplaceAll(string(text), "capacity: 5", "capacity: 4")
		if changed == string(text) {
			t.Fatalf("there is nothing to edit in:\n%s", text)
		}
		err = os.WriteFile(path, []byte(changed), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	expect(t, e.Cscli(t, "scenarios", "list"), "tainted")
}

// attack lets sources try passwords on engines.
func attack(t *testing.T, sources []netip.Addr, engines ...*testkit.Engine) {
	t.Helper()
	recorded := testkit.AttackLog(t, "ssh-bf.log", netip.Addr{}, time.Now())
	for _, e := range engines {
		for _, source := range sources {
			var lines []string
			for _, line := range recorded {
				lines = append(lines, strings.ReplaceAll(line, sshAttacker.String(), source.String()))
			}
			e.Feed(t, testkit.AuthLog, lines)
		}
	}
}

// reported waits until what organisation says about source is stored, and
// returns it.
func (n *crowd) reported(t *testing.T, source netip.Addr, organisation string) (found alert) {
	t.Helper()
	testkit.Eventually(t, 60*time.Second, fmt.Sprintf("a report about %s is stored", source), func() string {
		all := n.alerts(t)
		i := slices.IndexFunc(all, func(a alert) bool {
			return a.Source == source.String() && a.Scenario == "crowdsecurity/ssh-bf" && a.Organisation == organisation
		})
		if i < 0 {
			return fmt.Sprintf("%d other alerts", len(all))
		}
		found = all[i]
		return ""
	})
	return found
}

type verdict struct {
	Audience string
	Listed   bool
	Reasons  muster.Reasons
}

// verdicts returns the verdicts about a source by audience, "" being everybody:
// those in force, and what became of those that were.
func (n *crowd) verdicts(t *testing.T, source netip.Addr) map[string]verdict {
	t.Helper()
	var why struct{ Verdicts []verdict }
	n.muster.Query(t, &why, "admin", "explain", source.String())
	all := map[string]verdict{}
	for _, v := range why.Verdicts {
		all[v.Audience] = v
	}
	return all
}

// neverPublic expects that a source has never been listed for everybody.
func (n *crowd) neverPublic(t *testing.T, source netip.Addr) {
	t.Helper()
	if _, was := n.verdicts(t, source)[""]; was {
		t.Errorf("%s is, or was, listed for everybody:\n%s", source, n.muster.Admin(t, "admin", "explain", source.String()))
	}
}

// goodIsNowhere expects that what is known to be good, and the private, is on
// nobody's list, and never was.
func (n *crowd) goodIsNowhere(t *testing.T) {
	t.Helper()
	for _, source := range []netip.Addr{aCanary, builtIn, aFriend, indoors} {
		if all := n.verdicts(t, source); len(all) > 0 {
			t.Errorf("expected that %s is listed for nobody, and never was, got %v", source, all)
		}
	}
}

// lacks expects that an engine has no decision on a source from its Central API.
func lacks(t *testing.T, e *testkit.Engine, source netip.Addr) {
	t.Helper()
	for _, d := range e.Decisions(t) {
		if d.Value == source.String() && d.Origin == "CAPI" {
			t.Errorf("expected %s not to have %s from its Central API, got %+v", e.Name, source, d)
		}
	}
}

func believed(n *crowd, t *testing.T) {
	good := []netip.Addr{aFriend, indoors}
	attack(t, append(good, seenByTwo, together), n.a)
	attack(t, append(good, seenByTwo), n.b)
	attack(t, append(good, together), n.c)
	for organisation, sources := range map[string][]netip.Addr{
		n.first: {seenByTwo, together}, n.second: {seenByTwo}, n.third: {together},
	} {
		for _, source := range sources {
			n.arrives(t, source, "crowdsecurity/ssh-bf", organisation)
		}
		for _, source := range good {
			n.reported(t, source, organisation)
		}
	}
	n.listed(t, seenByTwo, "")
	n.listed(t, together, "")
	r := n.verdicts(t, seenByTwo)[""].Reasons
	if r.Basis != "crowd" || r.Machines != 2 || r.Independent != 2 || r.Needed != 2 || r.Support < r.Threshold || !r.Local ||
		!slices.Contains(r.Scenarios, "crowdsecurity/ssh-bf") {
		t.Errorf("expected that two independent machines are the reason, as local evidence, got %+v", r)
	}
	expect(t, n.muster.Admin(t, "admin", "explain", seenByTwo.String()),
		seenByTwo.String()+" is on the community list, to be banned, since ", "enough independent machines have reported it",
		"2 machines reported it: 2 newcomers", "local evidence", "crowdsecurity/ssh-bf")
	n.muster.Admin(t, "order", "pull", "--machine", "c")
	has(t, n.c, seenByTwo)
	n.muster.Admin(t, "order", "pull", "--machine", "b")
	has(t, n.b, together)
}

func canaryReported(n *crowd, t *testing.T) {
	n.muster.Admin(t, "admin", "canary", "add", aCanary.String(), "--reason", "our own scanner")
	attack(t, []netip.Addr{aCanary, builtIn}, n.c)
	n.arrives(t, aCanary, "crowdsecurity/ssh-bf", n.third)
	n.arrives(t, builtIn, "crowdsecurity/ssh-bf", n.third)
	testkit.Eventually(t, 10*time.Second, "c is held for both", func() string {
		if held := n.muster.Metric(t, `muster_trust_events_total{kind="held"}`); held != 2 {
			return fmt.Sprintf("%v events", held)
		}
		return ""
	})
	for machine, want := range map[string]int{"a": 1, "b": 1, "c": 0} {
		m := struct{ Rank int }{-1}
		if n.muster.Query(t, &m, "admin", "machine", "show", machine); m.Rank != want {
			t.Errorf("expected %s to be of rank %d, got %d", machine, want, m.Rank)
		}
	}
	expect(t, n.muster.Admin(t, "admin", "explain", aCanary.String()), "not on the community list", "known to be good", "our own scanner")

	attack(t, []netip.Addr{afterwards}, n.c)
	n.arrives(t, afterwards, "crowdsecurity/ssh-bf", n.third)
	attack(t, []netip.Addr{afterwards, control}, n.a)
	attack(t, []netip.Addr{control}, n.b)
	n.arrives(t, afterwards, "crowdsecurity/ssh-bf", n.first)
	n.arrives(t, control, "crowdsecurity/ssh-bf", n.first)
	n.arrives(t, control, "crowdsecurity/ssh-bf", n.second)
	n.listed(t, control, "")
	// Both were judged: they protect their own fleets.
	n.listed(t, afterwards, n.first)
	n.listed(t, afterwards, n.third)
	n.neverPublic(t, afterwards)
	n.muster.Admin(t, "order", "pull", "--machine", "b")
	lacks(t, n.b, afterwards)
}

func withdrawn(n *crowd, t *testing.T) {
	// a's word is enough for a listing to go on, until c is rated as a liar: that
	// is done every five minutes.
	testkit.Eventually(t, 330*time.Second, "what c had a hand in is withdrawn", func() string {
		if v := n.verdicts(t, together)[""]; v.Listed {
			return fmt.Sprintf("%+v", v)
		}
		return ""
	})
	for _, source := range []netip.Addr{seenByTwo, control} {
		if v := n.verdicts(t, source)[""]; !v.Listed {
			t.Errorf("expected that %s stays, in which c had no hand, got %+v", source, v)
		}
	}
	if v := n.verdicts(t, together)[""]; v.Reasons.Basis != "unsupported" {
		t.Errorf("expected the withdrawal to be for lack of support, got %+v", v)
	}
	expect(t, n.muster.Admin(t, "admin", "explain", together.String()), together.String(), "the reports that supported it no longer count")
	n.muster.Admin(t, "order", "pull", "--machine", "b")
	testkit.Eventually(t, 60*time.Second, "b drops it", func() string {
		for _, d := range n.b.Decisions(t) {
			if d.Value == together.String() {
				return fmt.Sprintf("%+v", d)
			}
		}
		return ""
	})
}

// tainted waits for d's report about source, and checks what it may influence.
func (n *crowd) tainted(t *testing.T, source netip.Addr, fleet bool) {
	t.Helper()
	if a := n.reported(t, source, n.first); a.Trust != "tainted" || a.Counts || a.Fleet != fleet {
		t.Errorf("expected a report of an edited scenario that does not count for the network, and for the fleet: %t; got %+v", fleet, a)
	}
}

func editedScenario(n *crowd, t *testing.T) {
	attack(t, []netip.Addr{edited}, n.d, n.b)
	n.tainted(t, edited, false)
	n.arrives(t, edited, "crowdsecurity/ssh-bf", n.second)
	n.listed(t, edited, n.second)
	if all := n.verdicts(t, edited); len(all) != 1 {
		t.Errorf("expected a listing for the second organisation only, got %v", all)
	}
}

func editedForTheFleet(n *crowd, t *testing.T) {
	n.muster.Admin(t, "admin", "org", "set", n.first, "--fleet", "all")
	attack(t, []netip.Addr{fleetOnly}, n.d, n.b)
	n.tainted(t, fleetOnly, true)
	n.arrives(t, fleetOnly, "crowdsecurity/ssh-bf", n.second)
	n.listed(t, fleetOnly, n.first)
	n.listed(t, fleetOnly, n.second)
	n.neverPublic(t, fleetOnly)
	for _, e := range []*testkit.Engine{n.a, n.c} {
		n.muster.Admin(t, "order", "pull", "--machine", e.Name)
	}
	has(t, n.a, fleetOnly)
	has(t, n.c, control) // it has pulled since
	lacks(t, n.c, fleetOnly)
}

// nothingGoodLeft reads all that Muster has sent to engines, and what they have.
func nothingGoodLeft(n *crowd, t *testing.T) {
	engines := []*testkit.Engine{n.a, n.b, n.c, n.d}
	for _, e := range engines {
		e.Restart(t) // whereupon it pulls
	}
	for _, e := range engines {
		has(t, e, seenByTwo)
		for _, d := range e.Decisions(t) {
			if d.Origin == "CAPI" && d.Scope != companionScope {
				expectBad(t, e.Name+" has", d.Value)
			}
		}
	}
	for _, e := range engines {
		pulls, useful := 0, false
		for _, x := range e.Relay.Exchanges(t) {
			for _, source := range []netip.Addr{aCanary, builtIn, aFriend, indoors} {
				if strings.Contains(string(x.Body), source.String()) {
					t.Errorf("%s of %s was answered with %s:\n%s", x.Path, e.Name, source, x.Body)
				}
			}
			if !strings.HasSuffix(x.Path, "/decisions/stream") {
				continue
			}
			if x.Status != 200 {
				continue // it comes without a token at first
			}
			pulls++
			for _, value := range streamed(t, x.Body) {
				expectBad(t, "a pull of "+e.Name+" had", value)
				useful = useful || value == seenByTwo.String()
			}
		}
		t.Logf("%s pulled %d times", e.Name, pulls)
		if pulls < 2 || !useful {
			t.Errorf("expected at least two pulls of %s to be kept, one with %s, got %d", e.Name, seenByTwo, pulls)
		}
	}
}

// streamed returns what a pull adds, without the companion of short lists.
func streamed(t *testing.T, body []byte) (values []string) {
	t.Helper()
	var answer struct {
		New []struct {
			Scope     string
			Decisions []struct{ Value string }
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	for _, group := range answer.New {
		if group.Scope == companionScope {
			continue
		}
		for _, d := range group.Decisions {
			values = append(values, d.Value)
		}
	}
	return values
}

// expectBad expects a source that holds nothing private, and nothing that is
// known to be good.
func expectBad(t *testing.T, what, value string) {
	t.Helper()
	source, err := muster.ParseSource(value)
	if err != nil {
		t.Fatal(err)
	}
	p := source.Prefix()
	if source.IsReserved() || p.Overlaps(friends) || p.Contains(aCanary) || p.Contains(builtIn) {
		t.Errorf("%s %s", what, value)
	}
}

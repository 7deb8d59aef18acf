// Package e2e runs Muster as a process with real engines, as people run them.
package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/internal/testkit"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testkit.RemoveMuster()
	os.Exit(code)
}

// Attackers. All are public addresses, for Muster publishes no others; nothing
// is ever sent to them.
var (
	sshAttacker   = netip.MustParseAddr("35.188.49.176") // as recorded in ssh-bf.log
	httpAttacker  = netip.MustParseAddr("185.220.101.42")
	caddyAttacker = netip.MustParseAddr("185.220.101.43")
	lateAttacker  = netip.MustParseAddr("185.220.101.44")
	ordered       = netip.MustParseAddr("185.220.101.45")
	uncounted     = netip.MustParseAddr("185.220.101.46")
)

// network is Muster with the engines of two organisations:
//
//	a, b    engines 1.7.8 of the first, joined with its key
//	debian  Debian's engine 1.4.6 of the second
//	new     an engine 1.7.8 that is registered and not enrolled
type network struct {
	muster            *testkit.Muster
	first, second     string // organisations
	key               string // of the first
	a, b, debian, new *testkit.Engine
}

// TestEngines is the main job, on real input: what one engine sees reaches the
// others. Its steps build on one another.
func TestEngines(t *testing.T) {
	if testing.Short() {
		t.Skip("real engines take two minutes: skipped with -short")
	}
	t.Parallel()
	hub := testkit.StartHub(t)
	kit := testkit.Crowdsec{Hub: hub, Guard: testkit.StartGuard(t)}
	n := &network{
		a: kit.NewEngine(t, "a"), b: kit.NewEngine(t, "b"), new: kit.NewEngine(t, "new"),
		debian: kit.NewDebianEngine(t, "debian"),
	}
	// Two machines of two organisations make an address public here, so that two
	// engines that report can show it.
	n.muster = testkit.NewMuster(t,
		"MUSTER_HUB__INDEX="+hub.Index, "MUSTER_LOG__LEVEL=debug")
	n.muster.Start(t)
	n.first, n.second = n.muster.Organisation(t, "First"), n.muster.Organisation(t, "Second")
	n.key = n.muster.EnrolmentKey(t, n.first)
	n.muster.Join(t, n.a, "--key", n.key)
	n.muster.Join(t, n.b, "--key", n.key, "--tag", "web")
	n.muster.Join(t, n.debian, "--key", n.muster.EnrolmentKey(t, n.second))
	for _, e := range []*testkit.Engine{n.a, n.b, n.debian} {
		e.Start(t)
	}
	now := time.Now()
	ssh := testkit.AttackLog(t, "ssh-bf.log", netip.Addr{}, now)
	n.a.Feed(t, testkit.AuthLog, ssh)
	n.a.Feed(t, testkit.ApacheLog, testkit.AttackLog(t, "apache-http-probing.log", httpAttacker, now))
	n.a.Feed(t, testkit.CaddyLog, testkit.AttackLog(t, "caddy-basic-auth-bf.log", caddyAttacker, now))
	// Its parser does not know one of the six lines (sshd-session): twice over it
	// is an attack for it too.
	n.debian.Feed(t, testkit.AuthLog, append(ssh, ssh...))

	for _, step := range []struct {
		name string
		run  func(*network, *testing.T)
	}{
		{"the signals of an ssh and two http attacks arrive", signalsArrive},
		{"the next pull of another engine has the attackers", otherEnginePulls},
		{"cscli capi status and papi status", statuses},
		{"an order adds a decision and another deletes it", orders},
		{"the old engine reports and pulls over v2", oldEngine},
		{"an engine that is not enrolled pulls what is public", notEnrolled},
		{"cscli console enroll", consoleEnroll},
		{"a machine that waits for a person counts nowhere", personAccepts},
		{"an engine without a key is claimed", claimed},
		{"an order makes an engine log in again", loggedInAgain},
		{"nothing is lost when Muster is killed", killed},
		{"muster leave puts the old credentials back", leave},
	} {
		t.Run(step.name, func(t *testing.T) { step.run(n, t) })
	}
}

type alert struct {
	Machine, Organisation, Source, Scope, Scenario, Trust string
	Counts, Fleet                                         bool
}

func (n *network) alerts(t *testing.T) []alert {
	t.Helper()
	var alerts []alert
	n.muster.Query(t, &alerts, "admin", "alert", "list")
	return alerts
}

// arrives waits for a signal about source with scenario from organisation.
func (n *network) arrives(t *testing.T, source netip.Addr, scenario, organisation string) {
	t.Helper()
	// Engines send every 10 s, Debian's every 30 s and at first after 15 to 45 s.
	testkit.Eventually(t, 90*time.Second, fmt.Sprintf("%s of %s is stored", scenario, source), func() string {
		all := n.alerts(t)
		for _, a := range all {
			if a.Source == source.String() && a.Scenario == scenario && a.Organisation == organisation {
				if !a.Counts || !a.Fleet {
					t.Fatalf("expected a signal that counts, for the network and the fleet, got %+v", a)
				}
				return ""
			}
		}
		return fmt.Sprintf("%d other alerts: %+v", len(all), all)
	})
}

// has waits for an engine to have a ban from its Central API.
func has(t *testing.T, e *testkit.Engine, source netip.Addr) {
	t.Helper()
	testkit.Eventually(t, 60*time.Second, fmt.Sprintf("%s has a ban of %s from its Central API", e.Name, source), func() string {
		all := e.Decisions(t)
		if slices.ContainsFunc(all, func(d testkit.Decision) bool {
			return d.Value == source.String() && d.Origin == "CAPI" && d.Type == "ban" && d.Scope == "Ip"
		}) {
			return ""
		}
		return fmt.Sprintf("it has %+v", all)
	})
}

// listed waits until Muster lists source for audience ("" = everybody).
func (n *network) listed(t *testing.T, source netip.Addr, audience string) {
	t.Helper()
	testkit.Eventually(t, 10*time.Second, fmt.Sprintf("%s is listed for %q", source, audience), func() string {
		var why struct {
			Verdicts []struct {
				Audience string
				Listed   bool
			}
		}
		n.muster.Query(t, &why, "admin", "explain", source.String())
		for _, v := range why.Verdicts {
			if v.Audience == audience && v.Listed {
				return ""
			}
		}
		return fmt.Sprintf("%+v", why)
	})
}

func expect(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("expected %q in:\n%s", part, text)
		}
	}
}

func signalsArrive(n *network, t *testing.T) {
	n.arrives(t, sshAttacker, "crowdsecurity/ssh-bf", n.first)
	n.arrives(t, httpAttacker, "crowdsecurity/http-probing", n.first)
	n.arrives(t, caddyAttacker, "crowdsecurity/http-generic-bf", n.first)
}

func otherEnginePulls(n *network, t *testing.T) {
	for _, attacker := range []netip.Addr{sshAttacker, httpAttacker, caddyAttacker} {
		n.listed(t, attacker, n.first)
	}
	// An engine pulls by itself every two hours.
	n.muster.Admin(t, "order", "pull", "--machine", "b")
	for _, attacker := range []netip.Addr{sshAttacker, httpAttacker, caddyAttacker} {
		has(t, n.b, attacker)
	}
	expect(t, n.b.Cscli(t, "decisions", "list", "-a"), sshAttacker.String(), httpAttacker.String(), "CAPI", "crowdsecurity/http-probing")
}

func statuses(n *network, t *testing.T) {
	expect(t, n.b.Cscli(t, "capi", "status"),
		"You can successfully interact with Central API (CAPI)",
		"Your instance is enrolled in the console",
		"Subscription type: ENTERPRISE")
	status, err := n.b.TryCscli(t, "papi", "status")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, status, "You can successfully interact with Polling API (PAPI)")

	var machines []struct {
		Name, State, Organisation, Version string
		Tags                               []string
	}
	n.muster.Query(t, &machines, "admin", "machine", "list", "--search", "b")
	for _, m := range machines {
		if m.Name == "b" {
			if m.State != "active" || m.Organisation != n.first || !slices.Equal(m.Tags, []string{"web"}) || !strings.Contains(m.Version, "1.7.8") {
				t.Errorf("expected b to be active in the first organisation with its tag and version, got %+v", m)
			}
			return
		}
	}
	t.Errorf("b is not among the machines: %+v", machines)
}

func orders(n *network, t *testing.T) {
	find := func() (testkit.Decision, bool) {
		for _, d := range n.b.Decisions(t) {
			if d.Value == ordered.String() {
				return d, true
			}
		}
		return testkit.Decision{}, false
	}
	// The order names the decision that it adds: cscli shows no uuids.
	var order struct {
		Data struct{ Decisions []struct{ UUID string } }
	}
	n.muster.Query(t, &order, "order", "add", "--machine", "b", "--ip", ordered.String(), "--duration", "1h", "--type", "ban", "--reason", "seen by a person")
	if len(order.Data.Decisions) != 1 {
		t.Fatalf("expected an order with one decision, got %+v", order)
	}
	var added testkit.Decision
	testkit.Eventually(t, 15*time.Second, "the order's decision is on b", func() string {
		d, ok := find()
		if !ok {
			return "it is not there"
		}
		added = d
		return ""
	})
	if added.Origin != "console" || added.Type != "ban" || added.Scope != "Ip" || added.Scenario != "seen by a person" {
		t.Errorf("expected a ban by the console with its reason, got %+v", added)
	}
	n.muster.Admin(t, "order", "delete", "--machine", "b", "--decision", order.Data.Decisions[0].UUID)
	testkit.Eventually(t, 15*time.Second, "the order's decision is gone from b", func() string {
		if d, ok := find(); ok {
			return fmt.Sprintf("it is there: %+v", d)
		}
		return ""
	})
	// The acknowledgement comes as a signal, and must never be evidence.
	testkit.Eventually(t, 30*time.Second, "b acknowledges the order", func() string {
		for _, a := range n.alerts(t) {
			if a.Source == ordered.String() {
				if a.Counts || a.Fleet {
					t.Fatalf("the acknowledgement of an order counts as evidence: %+v", a)
				}
				return ""
			}
		}
		return "not yet"
	})
}

func oldEngine(n *network, t *testing.T) {
	n.arrives(t, sshAttacker, "crowdsecurity/ssh-bf", n.second)
	n.listed(t, sshAttacker, "")
	n.debian.Restart(t)
	has(t, n.debian, sshAttacker)
	for _, d := range n.debian.Decisions(t) {
		if d.Value == httpAttacker.String() {
			t.Errorf("an address that one organisation reported reached another: %+v", d)
		}
	}
	out, err := n.debian.TryCscli(t, "capi", "status")
	if err != nil {
		t.Errorf("cscli capi status of the old engine: %v\n%s", err, out)
	}
}

func notEnrolled(n *network, t *testing.T) {
	n.muster.Join(t, n.new)
	status := n.new.Cscli(t, "capi", "status")
	expect(t, status, "You can successfully interact with Central API (CAPI)")
	if strings.Contains(status, "enrolled") {
		t.Errorf("expected an engine that is not enrolled, got:\n%s", status)
	}
	n.new.Start(t)
	has(t, n.new, sshAttacker)
	for _, d := range n.new.Decisions(t) {
		if d.Value == httpAttacker.String() {
			t.Errorf("an organisation's own address reached a stranger: %+v", d)
		}
	}
}

func consoleEnroll(n *network, t *testing.T) {
	_, err := n.new.TryCscli(t, "console", "enroll", "nosuchkey")
	if err == nil || !strings.Contains(err.Error(), "attachment key provided is not valid") {
		t.Errorf("expected cscli to say that the key is not valid, got %v", err)
	}
	n.new.Cscli(t, "console", "enroll", "--name", "new", "--tags", "db", n.key)
	expect(t, n.new.Cscli(t, "capi", "status"), "Your instance is enrolled in the console", "Subscription type: ENTERPRISE")

	// Now it is of the first organisation, and takes orders.
	n.new.Restart(t)
	n.muster.Admin(t, "order", "pull", "--machine", "new")
	has(t, n.new, httpAttacker)
}

func personAccepts(n *network, t *testing.T) {
	n.muster.Admin(t, "admin", "machine", "release", "new")
	key := n.muster.Admin(t, "admin", "key", "create", "--org", n.first, "--json")
	var made struct{ Key string }
	if err := json.Unmarshal([]byte(key), &made); err != nil {
		t.Fatal(err)
	}
	expect(t, n.muster.Join(t, n.new, "--key", made.Key), "in use already", "A person must accept it", "needs no change")
	if status := n.new.Cscli(t, "capi", "status"); strings.Contains(status, "enrolled") {
		t.Errorf("expected an engine that waits, got:\n%s", status)
	}

	const refused = `muster_signals_refused_total{reason="not_enrolled"}`
	before := n.muster.Metric(t, refused)
	n.new.Feed(t, testkit.ApacheLog, testkit.AttackLog(t, "apache-http-probing.log", uncounted, time.Now()))
	testkit.Eventually(t, 30*time.Second, "the waiting engine's signal is refused", func() string {
		if n.muster.Metric(t, refused) > before {
			return ""
		}
		return "not yet"
	})
	for _, a := range n.alerts(t) {
		if a.Source == uncounted.String() {
			t.Errorf("a waiting machine's signal was stored: %+v", a)
		}
	}

	n.muster.Admin(t, "admin", "machine", "accept", "new")
	expect(t, n.new.Cscli(t, "capi", "status"), "Your instance is enrolled in the console")
	n.new.Feed(t, testkit.CaddyLog, testkit.AttackLog(t, "caddy-basic-auth-bf.log", uncounted, time.Now()))
	n.arrives(t, uncounted, "crowdsecurity/http-generic-bf", n.first)
}

// claimCode is the end of the link that cscli prints.
var claimCode = regexp.MustCompile(`/enroll/([a-z0-9]+)`)

func claimed(n *network, t *testing.T) {
	n.muster.Admin(t, "admin", "machine", "release", "new")
	said := n.new.CscliLog(t, "console", "enroll", "--quick")
	code := claimCode.FindStringSubmatch(said)
	if code == nil {
		t.Fatalf("expected a link of this server, got:\n%s", said)
	}
	if status := n.new.Cscli(t, "capi", "status"); strings.Contains(status, "enrolled") {
		t.Errorf("expected an engine that nobody has claimed yet, got:\n%s", status)
	}
	n.muster.Admin(t, "admin", "machine", "claim", code[1], "--org", n.first)
	expect(t, n.new.Cscli(t, "capi", "status"), "Your instance is enrolled in the console")
}

func loggedInAgain(n *network, t *testing.T) {
	login := func() time.Time {
		var m struct{ Seen struct{ Login time.Time } }
		n.muster.Query(t, &m, "admin", "machine", "show", "b")
		return m.Seen.Login
	}
	before := login()
	n.muster.Admin(t, "order", "reauth", "--machine", "b")
	// The poll that is under way when the order comes has the old token still;
	// whatever the engine sends next needs a new one.
	n.muster.Admin(t, "order", "pull", "--machine", "b")
	testkit.Eventually(t, 60*time.Second, "b logs in again", func() string {
		if after := login(); after.After(before) {
			return ""
		}
		return "last at " + before.String()
	})
}

func killed(n *network, t *testing.T) {
	before := n.alerts(t)
	n.muster.Kill()
	n.muster.Start(t)
	if after := n.alerts(t); len(after) != len(before) {
		t.Errorf("expected %d alerts after the kill, got %d", len(before), len(after))
	}
	n.a.Feed(t, testkit.ApacheLog, testkit.AttackLog(t, "apache-http-probing.log", lateAttacker, time.Now()))
	n.arrives(t, lateAttacker, "crowdsecurity/http-probing", n.first)
	n.listed(t, lateAttacker, n.first)
	n.muster.Admin(t, "order", "pull", "--machine", "b") // b's poll comes back by itself
	has(t, n.b, lateAttacker)
}

func leave(n *network, t *testing.T) {
	path := filepath.Join(n.a.Dir, "online_api_credentials.yaml")
	joined, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, string(joined), "url: "+n.muster.URL+"/\n", "papi_url: "+n.muster.URL+"/\n")
	n.muster.Run(t, "leave", "--crowdsec-config", n.a.Config)
	if old, err := os.ReadFile(path); err != nil || len(old) != 0 {
		t.Errorf("expected the empty file from before, got %q, %v", old, err)
	}
	// The engine starts without a Central API.
	n.a.Restart(t)
}

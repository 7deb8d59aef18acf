package system

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"muster"
	"muster/internal/roles"
)

// network is three machines of two organisations, which make a quorum, and two
// readers of a third one.
type network struct {
	a1, a2, b1      *client
	reader, reader2 *client // v3 and v2; they report nothing
}

func newNetwork(t *testing.T, s *server) network {
	t.Helper()
	a, b, c := s.organisation(t), s.organisation(t), s.organisation(t)
	return network{
		a1: s.member(t, engine178, a), a2: s.member(t, engine178, a), b1: s.member(t, engine178, b),
		reader: s.member(t, engine178, c), reader2: s.member(t, engine146, c),
	}
}

// report lets the quorum report sources.
func (n network) report(t *testing.T, sources ...string) {
	t.Helper()
	for _, c := range []*client{n.a1, n.a2, n.b1} {
		var batch []signal
		for _, source := range sources {
			batch = append(batch, attack(source))
		}
		c.push(t, batch...)
	}
}

// judged waits until as many reports of a source as given have been judged.
func (s *server) judged(t *testing.T, source string, reports int) {
	t.Helper()
	eventually(t, "judging "+source, func() string {
		if n := len(s.alertsOf(t, source)); n != reports {
			return fmt.Sprintf("%d reports of %d are judged", n, reports)
		}
		return ""
	})
}

func TestCrowdReachesEverybody(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	n := newNetwork(t, s)
	v4, wide := address(), fmt.Sprintf("45.84.%d.0/24", serial.Add(1)%250)
	n.report(t, v4, "2a0f:5380::"+fmt.Sprint(serial.Add(1)), wide)
	const v6 = "2a0f:5380::/64" // a subscriber has all of it
	reported := time.Now()
	eventually(t, "the next pull", func() string { return n.reader.pull(t, "").lacks(v4, v6, wide) })
	t.Logf("from the last report to the list: %s", time.Since(reported).Round(time.Millisecond))
	stranger := s.registered(t, python) // pending machines are readers too
	for _, c := range []*client{n.reader, n.reader2, n.a1, stranger} {
		var got blocklist
		eventually(t, "the list of "+c.name, func() string {
			got = c.pull(t, "?startup=true")
			return got.lacks(v4, v6, wide)
		})
		for value, scope := range map[string]string{v4: "ip", v6: "range", wide: "range"} {
			e := got.new[value]
			if e.scope != scope || e.scenario != "crowdsecurity/ssh-bf" || e.duration < 70*time.Hour || e.duration > 72*time.Hour {
				t.Errorf("%s is sent as %+v", value, e)
			}
		}
	}
}

// In a small network two machines convict when they are of two organisations;
// one organisation is one voice, however many machines it has.
func TestOneOrganisationIsOneVoice(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	org, other := s.organisation(t), s.organisation(t)
	a1, a2, a3 := s.member(t, engine178, org), s.member(t, engine178, org), s.member(t, engine178, org)
	b1 := s.member(t, engine178, other)

	twoOrganisations, oneOrganisation, oneMachine := address(), address(), address()
	a1.push(t, attack(twoOrganisations), attack(oneOrganisation), attack(oneMachine), attack(oneMachine), attack(oneMachine))
	a2.push(t, attack(oneOrganisation))
	a3.push(t, attack(oneOrganisation))
	b1.push(t, attack(twoOrganisations))
	s.judged(t, twoOrganisations, 2)
	s.judged(t, oneOrganisation, 3)
	s.judged(t, oneMachine, 3)
	eventually(t, "two voices", func() string { return s.registered(t, engine178).pull(t, "").lacks(twoOrganisations) })
	for _, source := range []string{oneOrganisation, oneMachine} {
		if got := s.listedFor(t, source); slices.Contains(got, "") || !slices.Contains(got, org) {
			t.Errorf("%s is listed for %q", source, got)
		}
	}
	if wrong := s.registered(t, engine178).pull(t, "").has(oneOrganisation, oneMachine); wrong != "" {
		t.Error(wrong)
	}
	b1.push(t, attack(oneOrganisation))
	eventually(t, "the second voice", func() string { return s.registered(t, engine178).pull(t, "").lacks(oneOrganisation) })
}

func TestFleetListIsForItsOwnOrganisation(t *testing.T) {
	t.Parallel()
	s := shared(t)
	org := s.organisation(t)
	sender, sibling, old := s.member(t, engine178, org), s.member(t, phpCurl, org), s.member(t, engine146, org)
	neighbour, stranger := s.member(t, engine178, s.organisation(t)), s.registered(t, engine178)
	source := address()
	sender.push(t, attack(source))
	for _, c := range []*client{sender, sibling, old} {
		eventually(t, "the fleet list of "+c.name, func() string { return c.pull(t, "").lacks(source) })
	}
	for _, c := range []*client{neighbour, stranger} {
		if wrong := c.pull(t, "").has(source); wrong != "" {
			t.Error("outside of the organisation " + wrong)
		}
	}
}

func TestNeverPublished(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	n := newNetwork(t, s)
	listed, allowed, inRange := address(), address(), fmt.Sprintf("45.85.%d.7", serial.Add(1)%250)
	s.admin(t, "POST", "/allowlist", map[string]any{"values": []string{allowed, inRange[:len(inRange)-1] + "0/24"}, "reason": "ours"}, nil)
	never := []string{
		allowed, inRange, "10.1.2.3", "192.168.7.7", "172.16.9.9", "127.0.0.1", "169.254.1.1", "100.64.3.3",
		"192.0.2.1", "198.51.100.7", "203.0.113.9", "224.0.0.5", "255.255.255.255", "0.0.0.0",
		"::1", "::", "fe80::1", "fc00::1", "ff02::1", "2001:db8::1", "::ffff:10.1.2.3", "10.0.0.0/8", "45.0.0.0/8", "0.0.0.0/0",
	}
	n.report(t, append(never, listed)...)
	s.judged(t, listed, 3)
	s.judged(t, allowed, 3)
	eventually(t, "the control", func() string { return n.reader.pull(t, "").lacks(listed) })
	for _, c := range []*client{n.reader, n.reader2, n.a1, n.b1} {
		got := c.pull(t, "?startup=true")
		if wrong := got.has(append(never, "10.1.2.3")...); wrong != "" {
			t.Error(wrong)
		}
	}
	for _, source := range never {
		if got := s.listedFor(t, source); len(got) > 0 {
			t.Errorf("%s is listed for %q", source, got)
		}
	}
}

func TestAllowlistWithdraws(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	n := newNetwork(t, s)
	source, other := address(), address()
	n.report(t, source, other)
	eventually(t, "the listing", func() string { return n.reader.pull(t, "").lacks(source, other) })
	s.admin(t, "POST", "/allowlist", map[string]any{"values": []string{source}, "reason": "a customer"}, nil)
	for _, c := range []*client{n.reader, n.reader2, n.a1} {
		var got blocklist
		eventually(t, "the withdrawal for "+c.name, func() string {
			got = c.pull(t, "")
			if got.deleted[source] != "ip" {
				return "it is not in deleted"
			}
			return got.has(source)
		})
		if wrong := got.lacks(other); wrong != "" || got.deleted[other] != "" {
			t.Errorf("the other address suffered: %s, deleted %q", wrong, got.deleted[other])
		}
	}
	// Reports go on; the address stays off.
	n.report(t, source)
	s.judged(t, source, 6)
	if got := s.listedFor(t, source); len(got) > 0 {
		t.Errorf("listed again for %q", got)
	}
	// Off the allowlist, the standing reports list it again.
	s.admin(t, "DELETE", "/allowlist/"+source, nil, nil)
	eventually(t, "the listing after the allowlist", func() string {
		got := n.reader.pull(t, "")
		if got.deleted[source] != "" {
			return "it is still in deleted"
		}
		return got.lacks(source)
	})
}

func TestSameReportTwiceCountsOnce(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.member(t, engine178, s.organisation(t))
	source, marker := address(), address()
	sig := attack(source)
	c.push(t, sig)
	c.push(t, sig)
	c.push(t, sig.with("message", "sent again, with other words"))
	// Twice in one batch: the second one is refused, which is said.
	a := c.post(t, "/signals", []signal{sig, sig, attack(marker)}).status(t, 200)
	if a.number(t, "accepted") != 2 || a.number(t, "refused") != 1 {
		t.Errorf("%s", a.body)
	}
	// Two machines may use the same uuid.
	other := s.member(t, engine178, c.org)
	other.push(t, sig)
	s.judged(t, marker, 1)
	eventually(t, "both machines' reports", func() string {
		if got := s.alertsOf(t, source); len(got) != 2 {
			return fmt.Sprintf("%d are kept", len(got))
		}
		return ""
	})
	// Old engines send no uuid: the same content is the same report.
	old := s.member(t, engine146, c.org)
	plain, marker := attack(address()).v2(), address()
	old.push(t, plain)
	old.push(t, plain)
	old.push(t, attack(marker).v2())
	s.judged(t, marker, 1)
	if got := s.alerts(t, "machine="+old.id); len(got) != 2 {
		t.Errorf("%d reports of the old engine are kept, expected 2", len(got))
	}
}

func TestDeletedDecisionLeavesTheFleetList(t *testing.T) {
	t.Parallel()
	s := shared(t)
	org := s.organisation(t)
	sender, sibling := s.member(t, engine178, org), s.member(t, engine178, org)
	kept, taken := attack(address()), attack(address())
	value := func(sig signal) string { return sig["source"].(map[string]any)["value"].(string) }
	sender.push(t, kept, taken)
	eventually(t, "the fleet list", func() string { return sibling.pull(t, "").lacks(value(kept), value(taken)) })

	// Somebody else's word does not withdraw it.
	sibling.post(t, "/decisions/delete", []string{taken.decision()}).ok(t)
	sender.post(t, "/decisions/delete", []string{"", taken.decision()}).ok(t)
	eventually(t, "the withdrawal", func() string {
		got := sibling.pull(t, "")
		if got.deleted[value(taken)] == "" {
			return "it is not in deleted"
		}
		return got.has(value(taken))
	})
	if wrong := sibling.pull(t, "").lacks(value(kept)); wrong != "" {
		t.Error(wrong)
	}
	// A new attack lists it again.
	sender.push(t, attack(value(taken)))
	eventually(t, "the new listing", func() string { return sibling.pull(t, "").lacks(value(taken)) })
}

func TestPendingMachinesHaveNoWord(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	n := newNetwork(t, s)
	source := address()
	pending := s.registered(t, engine178)
	waiting := s.registered(t, engine178) // enrolled with a key that needs a person
	waiting.enrol(t, s.key(t, s.organisation(t), false)).status(t, 201)
	for _, c := range []*client{pending, waiting} {
		a := c.post(t, "/signals", []signal{attack(source)}).status(t, 200) // never an error: SDKs would loop
		if a.number(t, "accepted") != 0 || a.number(t, "refused") != 1 {
			t.Errorf("a pending machine's signal: %s", a.body)
		}
		c.pull(t, "?startup=true")
		c.post(t, "/metrics/", map[string]any{"bouncers": []any{}, "machines": []any{}}).ok(t)
		c.post(t, "/decisions/delete", []string{newUUID()}).ok(t)
		c.get(t, "/v1/permissions").status(t, 402)
	}
	n.a1.push(t, attack(source))
	n.a2.push(t, attack(source))
	s.judged(t, source, 2) // the pending ones' were not even kept
	if got := s.listedFor(t, source); slices.Contains(got, "") {
		t.Error("pending machines are a voice")
	}
	// Accepted by a person, its old token ends and its word counts.
	s.admin(t, "POST", "/machines/"+waiting.id+"/accept", map[string]any{}, nil)
	waiting.get(t, "/v3/decisions/stream").status(t, 401)
	waiting.login(t)
	waiting.push(t, attack(source))
	eventually(t, "the second voice, of the accepted one", func() string { return n.reader.pull(t, "").lacks(source) })
}

// TestOrderReachesAWaitingPoll holds a poll for longer than the test may take:
// only the order can end it.
func TestOrderReachesAWaitingPoll(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.member(t, engine178, s.organisation(t))
	since := time.Now().Add(-time.Minute).UnixMilli()
	got := make(chan []event, 1)
	go func() {
		defer close(got)
		got <- c.poll(t, since, 45)
	}()
	eventually(t, "the poll", func() string {
		if s.machine(t, c.id).Seen.Poll == nil {
			return "it has not come yet"
		}
		return ""
	})
	s.admin(t, "POST", "/machines/"+c.id+"/orders", map[string]any{"kind": "alert/add", "source": address(), "duration": "7d", "message": "by hand"}, nil)
	select {
	case events := <-got:
		if len(events) != 1 || events[0].kind != "alert/add" || events[0].message != "by hand" {
			t.Errorf("events %+v", events)
		}
	case <-time.After(15 * time.Second):
		t.Error("the order has not ended the poll")
	}
}

// TestRestartKeepsEverything stops the server and starts it on the same data.
func TestRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *roles.Config) { c.Publish.Allowlist = []muster.Source{mustSource(t, "45.86.0.0/16")} })
	n := newNetwork(t, s)
	listed, withdrawn, fleet := address(), address(), address()
	n.report(t, listed, withdrawn, "45.86.1.1")
	n.a1.push(t, attack(fleet))
	eventually(t, "the listing", func() string {
		if wrong := n.reader.pull(t, "").lacks(listed, withdrawn); wrong != "" {
			return wrong
		}
		return n.a2.pull(t, "").lacks(fleet)
	})
	s.admin(t, "POST", "/allowlist", map[string]any{"values": []string{withdrawn}}, nil)
	s.admin(t, "POST", "/machines/"+n.a1.id+"/orders", map[string]any{"kind": "management/reauth"}, nil)
	pending := s.registered(t, python)
	blocked := s.member(t, engine178, n.a1.org)
	s.admin(t, "POST", "/machines/"+blocked.id+"/block", nil, nil)
	stored := s.stored(t)

	// A poll that waits at the stop is answered like any timeout, never cut: a
	// closed connection costs the engine a login.
	var waiting sync.WaitGroup
	since := time.Now().UnixMilli()
	waiting.Go(func() {
		if got := n.b1.poll(t, since, 45); len(got) != 0 {
			t.Errorf("events %v", got)
		}
	})
	eventually(t, "the poll", func() string {
		if s.machine(t, n.b1.id).Seen.Poll == nil {
			return "it has not come yet"
		}
		return ""
	})
	s.restart(t)
	waiting.Wait()

	if got := s.stored(t); got != stored {
		t.Errorf("%d signals are kept, %d were", got, stored)
	}
	for _, c := range []*client{n.reader, n.reader2, pending} { // with the tokens of before
		got := c.pull(t, "?startup=true")
		if wrong := got.lacks(listed); wrong != "" {
			t.Error(wrong)
		}
		if wrong := got.has(withdrawn, fleet, "45.86.1.1"); wrong != "" {
			t.Error(wrong)
		}
		if got.deleted[withdrawn] == "" {
			t.Errorf("after the restart, %s is not in deleted any more", withdrawn)
		}
	}
	if wrong := n.a2.pull(t, "").lacks(listed, fleet); wrong != "" {
		t.Error(wrong)
	}
	if got := n.a1.poll(t, firstContact, 45); len(got) != 1 || got[0].kind != "management/reauth" {
		t.Errorf("orders after the restart: %v", got)
	}
	blocked.tryLogin(t).status(t, 403)
	pending.login(t)
	if parseToken(t, pending.token).enrolled {
		t.Error("a pending machine was accepted by the restart")
	}
	// Reports of before count together with those of after.
	half := address()
	n.a1.push(t, attack(half))
	n.a2.push(t, attack(half))
	s.judged(t, half, 2)
	s.restart(t)
	n.b1.push(t, attack(half))
	eventually(t, "the quorum over a restart", func() string { return n.reader.pull(t, "").lacks(half) })
}

func mustSource(t *testing.T, text string) muster.Source {
	t.Helper()
	source, err := muster.ParseSource(text)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

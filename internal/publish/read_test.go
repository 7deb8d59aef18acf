package publish

import (
	"net/netip"
	"testing"
	"time"

	"muster"
)

func TestLookup(t *testing.T) {
	r := newRig()
	for text, scenario := range map[string]string{
		"35.188.49.1": "address", "45.9.20.0/24": "range", "45.9.20.7": "member", "2a01:4f8:c17:b012::/64": "line", "2a01:4f8:c17:b000::/56": "site", "46.0.0.1": "allowed",
	} {
		r.judge(t, network, text, scenario, 72, true)
	}
	r.judge(t, network, "45.9.20.8", "lapsed", -1, true)
	r.judge(t, "A", "35.188.50.1", "fleet", 72, true)
	r.read(t)
	allowed, err := muster.ParseSource("46.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	r.allowed[allowed] = true
	for _, tc := range []struct {
		audience           muster.Audience
		address, want, rng string
	}{
		{network, "35.188.49.1", "address", "35.188.49.1"},
		{network, "::ffff:35.188.49.1", "address", "35.188.49.1"},
		{network, "35.188.49.2", "", ""},
		{network, "45.9.20.1", "range", "45.9.20.0/24"},
		{network, "45.9.20.7", "member", "45.9.20.7"},
		{network, "45.9.20.8", "range", "45.9.20.0/24"},
		{network, "2a01:4f8:c17:b012::1", "line", "2a01:4f8:c17:b012::/64"},
		{network, "2a01:4f8:c17:b013::1", "site", "2a01:4f8:c17:b000::/56"},
		{network, "2a01:4f8:c17:b112::1", "", ""},
		{network, "46.0.0.1", "", ""},
		{network, "35.188.50.1", "", ""},
		{"A", "35.188.50.1", "fleet", "35.188.50.1"},
		{"A", "35.188.49.1", "", ""},
		{"B", "35.188.50.1", "", ""},
	} {
		e, ok := r.Lookup(tc.audience, netip.MustParseAddr(tc.address))
		if ok != (tc.want != "") || ok && !e.Since.Equal(start.Add(-2*time.Hour)) || e.Scenario != tc.want || ok && e.Source.String() != tc.rng {
			t.Errorf("%q for %q: %+v, %t", tc.address, tc.audience, e, ok)
		}
	}
	if _, ok := r.Lookup(network, netip.Addr{}); ok {
		t.Error("no address is listed")
	}
	addr := netip.MustParseAddr("45.9.20.1")
	if n := testing.AllocsPerRun(100, func() { r.Lookup(network, addr) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestEach(t *testing.T) {
	r := example(t)
	list := map[string]muster.ListEntry{}
	r.Each(network, func(e muster.ListEntry) bool {
		r.Count(network) // may call the publisher
		list[e.Source.String()] = e
		return true
	})
	if e := list["35.188.49.176"]; len(list) != 5 || e.Scenario != "crowdsecurity/ssh-bf" || e.Remedy != muster.RemedyBan || !e.Since.Equal(start.Add(-2*time.Hour)) || !e.Until.Equal(start.Add(72*time.Hour)) || e.Score <= 0 {
		t.Errorf("%d entries; %+v", len(list), e)
	}
	n := 0
	r.Each(network, func(muster.ListEntry) bool { n++; return false })
	r.Each("nobody", func(muster.ListEntry) bool { n++; return true })
	if n != 1 {
		t.Errorf("called %d times, want once", n)
	}
}

// Half the score is left after two days.
func TestScore(t *testing.T) {
	v := muster.Verdict{Reasons: muster.Reasons{Support: 7, Independent: 4, Last: start.Unix()}}
	for age, want := range map[time.Duration]float32{0: 8, 48 * time.Hour: 4, 96 * time.Hour: 2} {
		if got := score(rankOf(&v), start.Add(age)); got < want*0.99 || got > want*1.01 {
			t.Errorf("after %s: %v, want %v", age, got, want)
		}
	}
}

func TestVersion(t *testing.T) {
	r := newRig()
	seen := map[uint64]bool{}
	step := func(what string) {
		t.Helper()
		r.read(t)
		if v := r.Version(network); seen[v] {
			t.Errorf("%s: the version did not grow", what)
		} else {
			seen[v] = true
		}
	}
	step("at first")
	r.judge(t, network, "35.188.49.1", "x", 72, true)
	step("a listing")
	r.judge(t, network, "35.188.49.1", "x", 80, true)
	step("a later end")
	r.Invalidate()
	step("another allowlist")
	r.judge(t, network, "35.188.49.1", "x", 80, false)
	step("a withdrawal")
	before := r.Version(network)
	r.judge(t, "A", "35.188.49.1", "x", 80, true)
	r.read(t)
	if r.Version(network) != before || r.Version("A") == 0 || r.Version("B") != r.Version("C") {
		t.Error("a fleet's listing is another audience's")
	}
}

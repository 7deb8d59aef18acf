package jury

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/internal/policy"
)

func canaries(t testing.TB, values ...string) Truth {
	t.Helper()
	var list []muster.Canary
	for _, value := range values {
		c, err := muster.NewCanary(muster.OriginOperator, value)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return Truth{Canaries: policy.NewCanaries(list)}
}

func (r *rig) set(truth Truth) {
	r.t.Helper()
	if err := r.SetTruth(r.t.Context(), truth); err != nil {
		r.t.Fatal(err)
	}
}

// in says in which AS the sources of signals are.
func in(asn uint32, signals ...*muster.Signal) []*muster.Signal {
	for _, s := range signals {
		s.SourceASN = asn
	}
	return signals
}

// A whole AS can be a canary: by what the operator's database said when the
// report came, which a restart knows too. What the reporter says is nothing.
func TestAnASIsACanary(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		run := func() { r.run(func(c *Config) { c.Truth = canaries(t, "AS64600") }) }
		run()
		lying := crowdSays(t, other, 0)
		for _, s := range lying {
			s.ASN = 64600
		}
		r.report(lying...)
		r.report(in(64601, crowdSays(t, "35.188.49.178", 0)...)...)
		r.report(in(64600, said(t, "c1", address, 0, counts|fleet))...)
		r.wantListed("with one report of it", other, "35.188.49.178")
		r.stop()
		run()
		r.report(said(t, "d1", address, 0, counts), said(t, "e1", address, 0, counts)) // from before the upgrade
		r.wantListed("with more, that do not say in which AS it is", other, "35.188.49.178")
		if got := r.kinds(); got["held"] != 3 {
			t.Errorf("events %v, want three machines held", got)
		}
		s, err := r.Explain(t.Context(), source(t, address))
		if err != nil || !s.Canary || s.ASN != 64600 {
			t.Errorf("explained as %+v, %v", s, err)
		}
		r.set(Truth{})
		r.wait(6 * time.Minute)
		r.report(said(t, "a2", address, 0.2, counts), said(t, "b2", address, 0.2, counts))
		r.wantListed("when it is no canary any more", other, "35.188.49.178", address, address+" for C")
	})
}

// What changes while nobody runs, or cannot be written, is made good: what is
// allowed comes off, what is no longer allowed comes back.
func TestATruthThatCouldNotBeWritten(t *testing.T) {
	allowed := func(t *testing.T) Truth {
		return Truth{Allowlist: policy.NewAllowlist([]muster.AllowEntry{{Source: source(t, address)}})}
	}
	for name, make := range map[string]func(t *testing.T, r *rig, truth Truth){
		"it is told again": func(t *testing.T, r *rig, truth Truth) {
			if err := r.SetTruth(t.Context(), truth); !errors.Is(err, errAway) {
				t.Errorf("got %v", err)
			}
			r.ledger.setFault(nil)
			r.set(truth)
		},
		"the clock goes on": func(t *testing.T, r *rig, truth Truth) {
			if err := r.SetTruth(t.Context(), truth); !errors.Is(err, errAway) {
				t.Errorf("got %v", err)
			}
			r.ledger.setFault(nil)
			r.wait(5 * time.Second)
		},
		"it is known at the next start": func(t *testing.T, r *rig, truth Truth) {
			if err := r.SetTruth(t.Context(), truth); !errors.Is(err, errAway) {
				t.Errorf("got %v", err)
			}
			r.stop()
			r.ledger.setFault(nil)
			r.run(func(c *Config) { c.Truth = truth })
		},
	} {
		for fails, what := range map[string]fault{"refused": refused, "undone": undone} {
			t.Run(name+", "+fails, func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					r.run()
					r.report(crowdSays(t, address, 0)...)
					for range 2 {
						r.ledger.setFault(func() fault { return what })
						make(t, r, allowed(t))
						r.wantListed("when it is allowed")
						r.ledger.setFault(func() fault { return what })
						make(t, r, Truth{})
						r.wantListed("when it is no longer", address)
					}
				})
			})
		}
	}
}

// listed is a truth with one operator's verdict on top of another truth.
func listed(t testing.TB, truth Truth, text string, until time.Duration, remedy muster.Remedy) Truth {
	s := source(t, text)
	truth.Listed = map[muster.Source]muster.OperatorVerdict{s: {Source: s, Listed: true, Remedy: remedy, Until: start.Add(until)}}
	return truth
}

// An operator lists what nobody has reported, for as long as it is told.
func TestAnOperatorsListing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.set(listed(t, Truth{}, address, 1000*time.Hour, muster.RemedyCaptcha))
		r.wantListed("nobody reported it", address)
		v := r.verdict(muster.Network, address)
		if v.Reasons.Basis != muster.BasisOperator || v.Remedy != muster.RemedyCaptcha || !v.Since.Equal(start) || !v.Until.Equal(start.Add(1000*time.Hour)) || v.Scenario == "" {
			t.Errorf("got %+v", v)
		}
		told := len(r.ledger.changes())
		r.set(listed(t, Truth{}, address, 1000*time.Hour, muster.RemedyCaptcha))
		r.wait(40 * 24 * time.Hour)
		r.stop()
		r.run(func(c *Config) { c.Truth = listed(t, Truth{}, address, 1000*time.Hour, muster.RemedyCaptcha) })
		if n := len(r.ledger.changes()) - told; n != 0 {
			t.Errorf("%d more verdicts while nothing changed", n)
		}
		r.set(listed(t, Truth{}, address, 2000*time.Hour, muster.RemedyBan))
		if v := r.verdict(muster.Network, address); v.Remedy != muster.RemedyBan || !v.Since.Equal(start) || !v.Until.Equal(start.Add(2000*time.Hour)) {
			t.Errorf("when it is another: got %+v", v)
		}
		r.stop()
		r.run() // it ended while nobody ran
		r.wantListed("when it has ended")
		if v := r.verdict(muster.Network, address); v.Listed || v.Reasons.Basis != muster.BasisOperator {
			t.Errorf("got %+v", v)
		}
		if n := len(r.ledger.look().evidence); n != 0 {
			t.Errorf("evidence on %d sources is kept", n)
		}
	})
}

// What the crowd says meanwhile is not told, and holds again afterwards.
func TestAnOperatorsListingAndTheCrowds(t *testing.T) {
	for _, restart := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			now := listed(t, Truth{}, address, 1000*time.Hour, muster.RemedyBan)
			again := func() {
				if restart {
					r.stop()
					r.run(func(c *Config) { c.Truth = now })
				}
			}
			r.run()
			r.set(now)
			r.report(crowdSays(t, address, 0)...)
			r.report(said(t, "a1", address, 0, fleet))
			again()
			r.wantListed("both", address, address+" for A")
			if v := r.verdict(muster.Network, address); v.Reasons.Basis != muster.BasisOperator {
				t.Errorf("both: got %+v", v)
			}
			now = Truth{}
			r.set(now)
			again()
			r.wantListed("the crowd alone", address, address+" for A")
			if v := r.verdict(muster.Network, address); v.Reasons.Basis == muster.BasisOperator || !v.Until.Equal(start.Add(72*time.Hour)) || len(v.Reasons.Scenarios) != 1 {
				t.Errorf("the crowd alone: got %+v", v)
			}
			now = listed(t, Truth{}, address, 1000*time.Hour, muster.RemedyBan)
			r.set(now)
			again()
			r.wait(80 * time.Hour)
			r.wantListed("the operator alone", address)
			now = Truth{}
			r.set(now)
			again()
			r.wantListed("nobody")
		})
	}
}

// Nothing that must not be listed is, whoever says so.
func TestAnOperatorsListingOfWhatIsGood(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		for name, truth := range map[string]Truth{
			"a canary":            listed(t, canaries(t, address), address, time.Hour, muster.RemedyBan),
			"a canary inside":     listed(t, canaries(t, address), "35.188.49.0/24", time.Hour, muster.RemedyBan),
			"inside of a canary":  listed(t, canaries(t, "35.188.0.0/16"), address, time.Hour, muster.RemedyBan),
			"reserved space":      listed(t, Truth{}, "192.168.1.1", time.Hour, muster.RemedyBan),
			"allowed by a person": listed(t, Truth{Allowlist: policy.NewAllowlist([]muster.AllowEntry{{Source: source(t, address)}})}, "35.188.49.0/24", time.Hour, muster.RemedyBan),
		} {
			r.set(truth)
			r.wantListed(name)
		}
		r.set(listed(t, Truth{}, address, time.Hour, muster.RemedyBan))
		r.wantListed("before it is known", address)
		r.set(listed(t, canaries(t, address), address, time.Hour, muster.RemedyBan))
		r.wantListed("when it is known")
		if v := r.verdict(muster.Network, address); v.Reasons.Basis != "canary" {
			t.Errorf("got %+v", v)
		}
		r.set(listed(t, Truth{}, address, time.Hour, muster.RemedyBan))
		r.wantListed("when it is no canary any more", address)
	})
}

// A range that is listed for its members and at an operator's word is listed
// until neither holds.
func TestAnOperatorsListingOfAConvictedRange(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const whole = "35.188.49.0/24"
		run := func(c *Config) { c.Parameters = fast() }
		r.run(run)
		for i := range 4 {
			at := netip.AddrFrom4([4]byte{35, 188, 49, byte(10 + i)}).String()
			for _, m := range []string{"a1", "b1", "c1", "d1"}[i%2 : i%2+2] {
				r.report(said(t, m, at, 0, counts))
			}
		}
		r.tick()
		if v := r.verdict(muster.Network, whole); !v.Listed || v.Reasons.Basis != "range" {
			t.Fatalf("the range is not convicted: %+v", v)
		}
		r.set(listed(t, Truth{}, whole, 1000*time.Hour, muster.RemedyBan))
		r.tick()
		if v := r.verdict(muster.Network, whole); !v.Listed || v.Reasons.Basis != muster.BasisOperator {
			t.Errorf("at an operator's word: %+v", v)
		}
		r.set(Truth{})
		r.tick()
		if v := r.verdict(muster.Network, whole); !v.Listed || v.Reasons.Basis != "range" {
			t.Errorf("for its members again: %+v", v)
		}
		r.set(listed(t, Truth{}, whole, 1000*time.Hour, muster.RemedyBan))
		r.wait(30 * time.Hour)
		r.wantListed("when its members have lapsed", whole)
		r.set(Truth{})
		r.tick()
		r.wantListed("when nothing holds")
	})
}

// resolver is a Config.Name that knows what it is told.
type resolver struct {
	mu      sync.Mutex
	asked   []string
	answers map[string]string
}

func (n *resolver) name(a netip.Addr) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, a.String())
	name, ok := n.answers[a.String()]
	return name, ok
}

// questions returns what was asked so far.
func (n *resolver) questions() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

func (n *resolver) answer(addr, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[addr] = name
}

// Before a source is listed it is asked for its name, once, and its judgement
// waits a moment for the answer.
func TestNamesAreAskedForBeforeAListing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		names := &resolver{answers: map[string]string{"35.188.49.180": "", "35.188.49.181": "a.crawler.example.org"}}
		run := func() {
			r.run(func(c *Config) { c.Truth, c.Name = canaries(t, "*.crawler.example.org"), names.name })
		}
		wantAsked := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, names.questions()); diff != "" {
				t.Errorf("%s: asked for (-want +got):\n%s", what, diff)
			}
		}
		run()
		r.report(said(t, "a1", address, 0, counts))
		wantAsked("with too little for a listing")
		r.report(said(t, "b1", address, 0, counts))
		wantAsked("with enough", address)
		r.wantListed("without an answer")
		r.report(said(t, "b1", address, 0, counts|fleet))
		r.stop()
		run()
		r.wantListed("without an answer, and after a restart")
		r.wait(25 * time.Second)
		r.wantListed("when none came", address, address+" for B")

		r.report(crowdSays(t, "35.188.49.180", 0.01)...)
		r.wantListed("when it is known to own no such name", address, address+" for B", "35.188.49.180")
		r.report(crowdSays(t, "35.188.49.181", 0.01)...)
		r.tick()
		r.wantListed("when it is known to be a crawler", address, address+" for B", "35.188.49.180")
		if got := r.kinds(); got["held"] != 2 {
			t.Errorf("events %v, want two machines held", got)
		}
	})
}

// The answer may come late: then the listing ends, and its reporters are judged.
func TestANameMakesACanary(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		names := &resolver{}
		run := func() {
			r.run(func(c *Config) { c.Truth, c.Name = canaries(t, "*.crawler.example.org"), names.name })
		}
		const v6 = "2a00:1450:4001:81b::1"
		run()
		r.report(crowdSays(t, address, 0)...)
		r.report(crowdSays(t, v6, 0)...)
		r.wait(25 * time.Second)
		r.wantListed("without an answer", address, "2a00:1450:4001:81b::/64")
		if diff := cmp.Diff([]string{address, v6}, names.questions()); diff != "" {
			t.Errorf("asked for (-want +got):\n%s", diff)
		}
		r.ledger.setFault(func() fault { return undone })
		if err := r.Named(t.Context(), netip.MustParseAddr(address), "a.crawler.example.org"); !errors.Is(err, errAway) {
			t.Errorf("got %v", err)
		}
		r.ledger.setFault(nil)
		for addr, name := range map[string]string{address: "a.crawler.example.org", v6: "b.crawler.example.org", other: "c.crawler.example.org"} {
			if err := r.Named(t.Context(), netip.MustParseAddr(addr), name); err != nil {
				t.Fatal(err)
			}
		}
		r.wantListed("with one")
		if v := r.verdict(muster.Network, address); v.Reasons.Basis != "canary" {
			t.Errorf("got %+v", v)
		}
		s, err := r.Explain(t.Context(), source(t, address))
		if err != nil || !s.Canary || s.Name != "a.crawler.example.org" {
			t.Errorf("explained as %+v, %v", s, err)
		}
		r.stop()
		run()
		if s, err := r.Explain(t.Context(), source(t, address)); err != nil || !s.Canary {
			t.Errorf("after a restart explained as %+v, %v", s, err)
		}

		// It is believed for some days, and asked for again meanwhile.
		r.report(said(t, "c1", address, 25, counts))
		if n := len(names.questions()); n != 4 {
			t.Errorf("asked for %d names, want those of both once more a day later", n)
		}
		r.wait(80 * time.Hour)
		if s, err := r.Explain(t.Context(), source(t, address)); err != nil || s.Canary || s.Name != "" {
			t.Errorf("days later explained as %+v, %v", s, err)
		}
	})
}

// When other names matter, all are asked for again.
func TestOtherNamesMatter(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		names := &resolver{answers: map[string]string{address: ""}}
		r.run(func(c *Config) { c.Truth, c.Name = canaries(t, "*.crawler.example.org"), names.name })
		r.report(crowdSays(t, address, 0)...)
		r.report(said(t, "a1", address, 0.1, counts))
		if len(names.questions()) != 1 {
			t.Errorf("asked for %v", names.questions())
		}
		r.set(canaries(t, "*.crawler.example.org", "*.bot.example.org"))
		names.answer(address, "x.bot.example.org")
		r.report(said(t, "a1", address, 0.2, counts))
		r.wantListed("with the pattern that it owns a name of")
		r.set(canaries(t, "*.crawler.example.org"))
		r.wait(6 * time.Minute)
		r.report(said(t, "c1", address, 0.4, counts), said(t, "d1", address, 0.4, counts))
		r.wantListed("without it", address)
	})
}

// What is kept beside evidence survives its stored form; evidence alone is read
// as before.
func TestHeldSurvivesItsStoredForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h held
		h.asn, h.known = rapid.Uint32().Draw(t, "asn"), known(rapid.IntRange(0, 7).Draw(t, "known"))
		if rapid.Bool().Draw(t, "order") {
			h.more().order = order{rapid.Int64Range(1, 4e9).Draw(t, "since"), rapid.Int64().Draw(t, "until"), rapid.Bool().Draw(t, "captcha")}
		}
		if rapid.Bool().Draw(t, "name") {
			h.more().name = naming{
				rapid.StringN(0, 20, 254).Draw(t, "text"), rapid.Int64().Draw(t, "until"), rapid.Int64().Draw(t, "asked"),
				rapid.Uint32().Draw(t, "patterns"), rapid.Bool().Draw(t, "waits"), rapid.Uint64().Draw(t, "host"),
			}
		}
		data := h.appendBinary(nil)
		var got held
		if err := got.unmarshal(data); err != nil {
			t.Fatal(err)
		}
		if got.asn != h.asn || got.known != h.known || got.order() != h.order() || got.name() != h.name() {
			t.Fatalf("got %+v, want %+v", got, h)
		}
		if err := got.unmarshal(h.ev.AppendBinary(nil)); err != nil || got.asn != 0 || got.rare != nil {
			t.Fatalf("evidence alone: %+v, %v", got, err)
		}
		for cut := range data {
			if err := got.unmarshal(data[:cut]); err == nil {
				t.Fatalf("cut at %d of %d: no error", cut, len(data))
			}
		}
	})
}

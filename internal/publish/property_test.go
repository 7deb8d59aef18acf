package publish

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/internal/policy"
)

// world is a publisher beside what a simple reading of the rules says.
type world struct {
	*rig
	network, fleet map[muster.Source]muster.Verdict // newest verdicts
	central, own   *policy.Allowlist                // own is that of organisation A
	ownVersion     uint64
	preferred      []muster.Source
	favoured       uint64
	ranked         []muster.Source // for everybody
	tier           Tier
	bodies         map[string]string // by ETag
}

var (
	propertyScenarios = []string{"crowdsecurity/ssh-bf", "crowdsecurity/ssh-slow-bf", "crowdsecurity/http-probing", "crowdsecurity/telnet-bf", "mine/own"}
	propertySources   = func() (all []muster.Source) {
		for _, base := range []string{"45.9.20.0", "45.9.21.0", "185.220.101.0", "2a01:4f8:c17:b000::", "2a01:4f8:c17:c000::"} {
			addr := netip.MustParseAddr(base)
			if addr.Is4() {
				all = append(all, muster.SourceFromPrefix(netip.PrefixFrom(addr, 24)))
			} else {
				all = append(all, muster.SourceFromPrefix(netip.PrefixFrom(addr, 56)))
			}
			for i := range 9 {
				if addr.Is4() {
					a := addr.As4()
					a[3] = byte(i * 20)
					all = append(all, muster.SourceFromAddr(netip.AddrFrom4(a)))
					continue
				}
				a := addr.As16()
				a[7] = byte(i)
				all = append(all, muster.SourceFromPrefix(netip.PrefixFrom(netip.AddrFrom16(a), 64)))
			}
		}
		for _, text := range []string{"10.0.0.1", "192.168.1.0/24", "2001:db8::1", "8.8.0.0/16", "2a01:4f8:c17:b001::9"} {
			s, err := muster.ParseSource(text)
			if err != nil {
				panic(err)
			}
			all = append(all, s)
		}
		return all
	}()
)

func newWorld() *world {
	w := &world{network: map[muster.Source]muster.Verdict{}, fleet: map[muster.Source]muster.Verdict{}, bodies: map[string]string{}}
	w.rig = newRig(func(c *Config) {
		c.Behaviour = behaviourOf
		c.Allowed = func(s muster.Source) bool { _, ok := w.central.Covers(s); return ok }
		c.Allowlist = func(r *Reader) (Allowlist, uint64) {
			if w.own.Len() == 0 || r.Organisation != "A" {
				return nil, 0
			}
			return w.own, w.ownVersion
		}
		c.Preferred = func(*Reader) ([]muster.Source, uint64) { return w.preferred, w.favoured }
		c.Rankings = NewRankings(RankingsConfig{Now: c.Now})
		c.Tier = func(*Reader) Tier { return w.tier }
	})
	w.Publisher.network.most = 4 // so that there are many blocks
	return w
}

// decide puts a verdict in, as the judge would.
func (w *world) decide(t *rapid.T, a muster.Audience, s muster.Source, listed bool) {
	w.stamp = w.stamp.Add(time.Microsecond)
	v := muster.Verdict{
		Source: s, Audience: a, Listed: listed, Changed: w.stamp,
		Scenario: rapid.SampledFrom(propertyScenarios).Draw(t, "scenario"),
		// Half hours, so that seconds of the clock change no duration.
		Until:   w.clock.now().Truncate(time.Hour).Add(time.Duration(rapid.IntRange(0, 9).Draw(t, "hours"))*time.Hour + 50*time.Minute),
		Reasons: muster.Reasons{Last: start.Unix(), Support: float32(rapid.IntRange(1, 64).Draw(t, "support"))},
	}
	if listed && rapid.IntRange(0, 9).Draw(t, "remedy") == 0 {
		v.Remedy = muster.RemedyCaptcha
	}
	w.log.put(v)
	if a == network {
		w.network[s] = v
	} else {
		w.fleet[s] = v
	}
}

// naive is what a reader of unlimited lists must get: "scope value duration
// scenario".
func (w *world) naive(organisation string) map[string]muster.Verdict {
	now := w.clock.now()
	forbidden := func(s muster.Source) bool {
		if s.IsReserved() || w.cfg.Allowed(s) {
			return true
		}
		_, own := w.own.Covers(s)
		return own && organisation == "A"
	}
	bans := func(all map[muster.Source]muster.Verdict) map[muster.Source]muster.Verdict {
		out := map[muster.Source]muster.Verdict{}
		for s, v := range all {
			if v.Listed && v.Remedy != muster.RemedyCaptcha {
				out[s] = v
			}
		}
		return out
	}
	listed := bans(w.network)
	ranges := maps.Clone(listed)
	if organisation == "A" {
		for s, v := range bans(w.fleet) {
			if other, both := listed[s]; !both || !other.Until.After(v.Until) {
				listed[s] = v
			}
		}
	}
	lines := map[string]muster.Verdict{}
	for s, v := range listed {
		left := v.Until.Sub(now)
		if left < time.Hour || forbidden(s) {
			continue
		}
		bits := 24
		if s.Addr().Is6() {
			bits = 56
		}
		if s.Prefix().Bits() > bits {
			around := muster.SourceFromPrefix(netip.PrefixFrom(s.Addr(), bits))
			if r, ok := ranges[around]; ok && !r.Until.Before(v.Until) && !forbidden(around) {
				continue
			}
		}
		lines[fmt.Sprintf("%s %s %s %s", s.Scope(), s, left.Truncate(time.Hour), v.Scenario)] = v
	}
	return lines
}

// check pulls in every way and compares.
func (w *world) check(t *rapid.T, organisation string) {
	want := w.naive(organisation)
	reader := &Reader{Organisation: organisation, Scenarios: propertyScenarios[:2], Footprint: 1, Machine: "m"}
	g := w.pull(reader, wanted)
	if body, ok := w.bodies[g.ETag]; ok && body != string(g.Identity) {
		t.Fatalf("one tag for two answers:\n%s\n%s", body, g.Identity)
	}
	w.bodies[g.ETag] = string(g.Identity)
	in := bytes.NewReader(g.Gzip)
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	z.Multistream(false)
	if body, err := io.ReadAll(z); err != nil || !bytes.Equal(body, g.Identity) || in.Len() != 0 {
		t.Fatalf("decompressed to %d bytes of %d, %d left: %v", len(body), len(g.Identity), in.Len(), err)
	}
	sent := linesOf(t, g)
	if len(sent) != g.Entries || len(slices.Compact(slices.Sorted(slices.Values(sent)))) != len(sent) {
		t.Fatalf("%d entries announced, %d sent: %q", g.Entries, len(sent), sent)
	}
	values := map[string]bool{}
	for _, l := range sent {
		var scope, value, rest string
		_, _ = fmt.Sscan(l, &scope, &value, &rest) // checked by the comparison
		if values[value] {
			t.Fatalf("%s stands twice: %q", value, sent)
		}
		values[value] = true
		if _, ok := want[l]; !ok {
			t.Fatalf("size %d: %s must not be sent; expected %q", w.tier.Size, l, slices.Sorted(maps.Keys(want)))
		}
	}
	if n := len(want); w.tier.Size == 0 || n <= w.tier.Size {
		if diff := gocmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(slices.Values(sent))); diff != "" {
			t.Fatalf("size %d (-want +got):\n%s", w.tier.Size, diff)
		}
	} else if len(sent) != w.tier.Size {
		t.Fatalf("%d of %d sent, the size is %d", len(sent), n, w.tier.Size)
	}
	if organisation == "A" {
		w.checkOwn(t, want, values)
	}
	if organisation != "" && w.tier.Tailoring != TailorNone {
		w.checkRanked(t, organisation, want, values)
	}
	flat := w.pull(reader, Want{Version: V2, Community: true})
	if f := flatLines(t, flat); len(f) != len(sent) || w.tier.Size == 0 && !slices.Equal(slices.Sorted(slices.Values(f)), slices.Sorted(slices.Values(sent))) {
		t.Fatalf("v2 has %q, v3 %q", f, sent)
	}
}

// checkOwn sees that a list of limited length holds what is the organisation's own.
func (w *world) checkOwn(t *rapid.T, want map[string]muster.Verdict, values map[string]bool) {
	must := map[string]bool{}
	ranked := len(w.ranked) > 0 && w.tier.Tailoring != TailorNone // then what is preferred has no first word
	for _, v := range want {
		f := w.fleet[v.Source]
		if f.Listed && f.Remedy != muster.RemedyCaptcha && f.Until.After(w.clock.now()) || !ranked && slices.Contains(w.preferred, v.Source) {
			must[v.Source.String()] = true
		}
	}
	if w.tier.Size > 0 && len(must) > w.tier.Size {
		return
	}
	for value := range must {
		if !values[value] {
			t.Fatalf("size %d: %s is the organisation's own, and is not sent: %v", w.tier.Size, value, values)
		}
	}
}

// checkRanked sees that what is ranked for an organisation comes before what
// nobody asked for.
func (w *world) checkRanked(t *rapid.T, organisation string, want map[string]muster.Verdict, values map[string]bool) {
	missing := ""
	for _, v := range want {
		if slices.Contains(w.ranked, v.Source) && !v.Source.IsRange() && !values[v.Source.String()] {
			missing = v.Source.String()
		}
	}
	if missing == "" {
		return
	}
	for _, v := range want {
		f := w.fleet[v.Source]
		asked := v.Source.IsRange() || slices.Contains(w.ranked, v.Source) || slices.Contains(w.preferred, v.Source) || organisation == "A" && f.Listed
		if values[v.Source.String()] && !asked {
			t.Fatalf("size %d: %s is ranked and is not sent, while %s is: %v", w.tier.Size, missing, v.Source, values)
		}
	}
}

// rank has a list of sources ranked for everybody.
func (w *world) rank(sources []muster.Source) {
	w.ranked = sources
	w.cfg.Rankings.count++
	l := &rankedList{at: w.clock.now(), version: w.cfg.Rankings.count}
	for _, s := range sources {
		l.sources = append(l.sources, keyOf(s))
	}
	for _, organisation := range []string{"A", "B"} {
		w.cfg.Rankings.of(organisation, 1, w.clock.now())
	}
	w.cfg.Rankings.lists.each(func(_ string, r *ranked) { r.last.Store(l) })
}

func linesOf(t *rapid.T, g *got) (lines []string) {
	var doc struct {
		New []struct {
			Scenario, Scope string
			Decisions       []struct{ Value, Duration string }
		}
	}
	if err := json.Unmarshal(g.Identity, &doc); err != nil {
		t.Fatalf("%v: %s", err, g.Identity)
	}
	for _, group := range doc.New {
		if len(group.Decisions) == 0 {
			t.Fatalf("an empty group: %s", g.Identity)
		}
		for _, d := range group.Decisions {
			lines = append(lines, group.Scope+" "+d.Value+" "+d.Duration+" "+group.Scenario)
		}
	}
	return lines
}

func flatLines(t *rapid.T, g *got) (lines []string) {
	var doc struct {
		New []struct{ Scenario, Scope, Value, Duration string }
	}
	if err := json.Unmarshal(g.Identity, &doc); err != nil {
		t.Fatalf("%v: %s", err, g.Identity)
	}
	for _, d := range doc.New {
		lines = append(lines, d.Scope+" "+d.Value+" "+d.Duration+" "+d.Scenario)
	}
	return lines
}

func drawAllowlist(t *rapid.T, name string) *policy.Allowlist {
	var entries []muster.AllowEntry
	for _, s := range rapid.SliceOfN(rapid.SampledFrom(propertySources), 0, 3).Draw(t, name) {
		entries = append(entries, muster.AllowEntry{Source: s})
	}
	return policy.NewAllowlist(entries)
}

// Whatever is judged, allowed, preferred and asked for, in whatever order: an
// answer holds what a simple reading of the rules says, each address once.
func TestCompositionEqualsNaiveList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.IntRange(0, 12).Draw(t, "step") {
			case 0, 1, 2, 3, 4:
				for range rapid.IntRange(1, 12).Draw(t, "verdicts") {
					a := rapid.SampledFrom([]muster.Audience{network, network, "A"}).Draw(t, "audience")
					w.decide(t, a, rapid.SampledFrom(propertySources).Draw(t, "source"), rapid.IntRange(0, 3).Draw(t, "listed") > 0)
				}
				if err := w.follow(t.Context()); err != nil {
					t.Fatal(err)
				}
			case 5:
				w.arrange()
			case 6:
				w.clock.advance(2 * time.Hour)
				w.prune()
			case 7:
				w.central = drawAllowlist(t, "central")
				w.Invalidate()
			case 8:
				w.own = drawAllowlist(t, "own")
				w.ownVersion++
			case 9:
				w.preferred = rapid.SliceOfNDistinct(rapid.SampledFrom(propertySources), 0, 5, func(s muster.Source) string { return s.String() }).Draw(t, "preferred")
				w.favoured++
			case 10:
				w.rank(rapid.SliceOfNDistinct(rapid.SampledFrom(propertySources), 0, 12, func(s muster.Source) string { return s.String() }).Draw(t, "ranked"))
			default:
				w.tier = Tier{
					Size:      rapid.SampledFrom([]int{0, 1, 3, 10, 20, 30}).Draw(t, "size"),
					Tailoring: rapid.SampledFrom([]Tailoring{TailorNone, TailorInstalled}).Draw(t, "tailoring"),
				}
			}
			w.clock.advance(coalesce)
			w.check(t, rapid.SampledFrom([]string{"", "A", "B"}).Draw(t, "organisation"))
		}
	})
}

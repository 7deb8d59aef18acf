package firewall

import (
	"flag"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

var update = flag.Bool("update", false, "write the golden files anew")

func prefixes(texts ...string) []netip.Prefix {
	list := []netip.Prefix{}
	for _, text := range texts {
		s, err := muster.ParseSource(text)
		if err != nil {
			panic(err)
		}
		list = append(list, s.Prefix())
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return list
}

func entries(texts ...string) []Entry {
	var list []Entry
	for _, p := range prefixes(texts...) {
		list = append(list, Entry{Source: muster.SourceFromPrefix(p)})
	}
	return list
}

// What each product reads of one and the same list is in testdata.
func TestGolden(t *testing.T) {
	list := entries("45.9.20.7", "45.9.20.64/30", "45.9.21.0/24", "45.9.22.8", "45.9.22.9", "91.92.0.0/16",
		"2a06:98c0:3600::103", "2a06:98c0:3600:1::/64", "2a06:98c0:3601::a", "2a06:98c0:3601::b")
	for _, f := range Formats() {
		t.Run(f.Name, func(t *testing.T) {
			c := Choose(list, nil, Needs{NoIPv6: !f.IPv6, NoRanges: !f.Ranges})
			got := string(f.Append(nil, c.Entries, "office"))
			path := filepath.Join("testdata", f.Name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if diff := cmp.Diff(string(want), got); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}
			if named, err := Of(f.Name); err != nil || named.Label != f.Label || f.Notes == "" || f.Budget <= 0 || f.Max > 0 && f.Budget > f.Max {
				t.Errorf("incomplete or not found: %+v, %v", f, err)
			}
		})
	}
	if _, err := Of("sonicwall"); muster.CodeOf(err) != muster.Invalid {
		t.Errorf("expected that there is no such format, got %v", err)
	}
}

func TestAggregate(t *testing.T) {
	never := func(s muster.Source) bool { return s.Prefix().Contains(netip.MustParseAddr("45.9.20.2")) }
	for _, tt := range []struct {
		name       string
		in, want   []netip.Prefix
		collateral float64
		forbidden  func(muster.Source) bool
	}{
		{name: "nothing", in: prefixes(), want: prefixes()},
		{name: "neighbours", in: prefixes("45.9.20.0", "45.9.20.1"), want: prefixes("45.9.20.0/31")},
		{name: "neighbours in different ranges", in: prefixes("45.9.20.1", "45.9.20.2"), want: prefixes("45.9.20.1", "45.9.20.2")},
		{name: "inside", in: prefixes("45.9.20.0/24", "45.9.20.1", "45.9.20.128/25"), want: prefixes("45.9.20.0/24")},
		{name: "several steps", in: prefixes("45.9.20.0/25", "45.9.20.128/26", "45.9.20.192/26"), want: prefixes("45.9.20.0/24")},
		{name: "families", in: prefixes("45.9.20.0", "45.9.20.1", "2a06::", "2a06::1"), want: prefixes("45.9.20.0/31", "2a06::/127")},
		{name: "all there is", in: prefixes("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"), want: prefixes("0.0.0.0/0", "::/0")},
		{name: "three of four", in: prefixes("45.9.20.0", "45.9.20.1", "45.9.20.3"), want: prefixes("45.9.20.0/31", "45.9.20.3")},
		{name: "three of four with collateral", in: prefixes("45.9.20.0", "45.9.20.1", "45.9.20.3"), collateral: 0.25, want: prefixes("45.9.20.0/30")},
		{name: "three of four with less", in: prefixes("45.9.20.0", "45.9.20.1", "45.9.20.3"), collateral: 0.24, want: prefixes("45.9.20.0/31", "45.9.20.3")},
		{name: "three of four, the fourth forbidden", in: prefixes("45.9.20.0", "45.9.20.1", "45.9.20.3"), collateral: 0.5, forbidden: never, want: prefixes("45.9.20.0/31", "45.9.20.3")},
		{name: "no collateral for nothing", in: prefixes("45.9.20.0"), collateral: 0.5, want: prefixes("45.9.20.0")},
		{name: "no collateral for several customers", in: prefixes("45.9.20.0/24", "45.9.21.1"), collateral: 0.5, want: prefixes("45.9.20.0/24", "45.9.21.1")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Aggregate([]netip.Prefix{}, tt.in, Aggregation{tt.collateral, tt.forbidden})
			if !slices.Equal(got, tt.want) {
				t.Errorf("expected %v, got %v", tt.want, got)
			}
		})
	}
}

// A range of which all but one address is listed is not taken for all of it,
// however large it is.
func TestAggregateIsExact(t *testing.T) {
	var list []netip.Prefix
	addr := netip.MustParseAddr("2a06:98c0:3600:1::")
	for bits := 65; bits <= 128; bits++ { // the upper halves: all but the first address
		raw := addr.As16()
		raw[(bits-1)/8] |= 1 << (7 - (bits-1)%8)
		list = append(list, netip.PrefixFrom(netip.AddrFrom16(raw), bits).Masked())
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	if got := Aggregate(nil, list, Aggregation{}); !slices.Equal(got, list) {
		t.Errorf("expected %d ranges, got %v", len(list), got)
	}
}

func drawSources(t *rapid.T, label string, most int) []muster.Source {
	one := rapid.Custom(func(t *rapid.T) muster.Source {
		bits := rapid.SampledFrom([]int{32, 32, 32, 31, 30, 29, 28}).Draw(t, "bits")
		last := rapid.ByteRange(0, 40).Draw(t, "last")
		if rapid.IntRange(0, 4).Draw(t, "family") == 0 {
			addr := netip.MustParseAddr("2a06:98c0:3600::").As16()
			addr[15] = last
			return muster.SourceFromPrefix(netip.PrefixFrom(netip.AddrFrom16(addr), bits+96))
		}
		return muster.SourceFromPrefix(netip.PrefixFrom(netip.AddrFrom4([4]byte{45, 9, 20, last}), bits))
	})
	return rapid.SliceOfN(one, 0, most).Draw(t, label)
}

// each calls fn with every address of a small range.
func each(p netip.Prefix, fn func(netip.Addr)) {
	for addr := p.Addr(); p.Contains(addr); addr = addr.Next() {
		fn(addr)
	}
}

func addresses(list []netip.Prefix) map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for _, p := range list {
		each(p, func(a netip.Addr) { all[a] = true })
	}
	return all
}

// Aggregation covers all that is listed; beyond it, of each range at most the
// share that is allowed, and never what is forbidden. Without collateral it
// covers nothing else, in the fewest ranges.
func TestAggregateProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []netip.Prefix
		for _, s := range drawSources(t, "list", 40) {
			list = append(list, s.Prefix())
		}
		slices.SortFunc(list, netip.Prefix.Compare)
		listed := addresses(list)
		good := map[netip.Addr]bool{}
		for _, s := range drawSources(t, "good", 5) {
			each(s.Prefix(), func(a netip.Addr) { good[a] = !listed[a] })
		}
		a := Aggregation{
			Collateral: rapid.SampledFrom([]float64{0, 0.1, 0.25, 0.5}).Draw(t, "collateral"),
			Forbidden: func(s muster.Source) (found bool) {
				each(s.Prefix(), func(a netip.Addr) { found = found || good[a] })
				return found
			},
		}
		got := Aggregate(nil, list, a)
		covered := addresses(got)
		for addr := range listed {
			if !covered[addr] {
				t.Fatalf("%v covers %v without %s", got, list, addr)
			}
		}
		for i, p := range got {
			if i > 0 && (got[i-1].Compare(p) >= 0 || got[i-1].Overlaps(p)) {
				t.Fatalf("%v is out of order", got)
			}
			beyond := 0
			each(p, func(addr netip.Addr) {
				if !listed[addr] {
					beyond++
				}
				if good[addr] {
					t.Fatalf("%s covers %s, which is forbidden", p, addr)
				}
			})
			size := 1 << (p.Addr().BitLen() - p.Bits())
			if big.NewRat(int64(beyond), int64(size)).Cmp(new(big.Rat).SetFloat64(a.Collateral)) > 0 {
				t.Fatalf("%s covers %d addresses of %d that are not listed", p, beyond, size)
			}
		}
		if a.Collateral > 0 {
			return
		}
		for i := 1; i < len(got); i++ { // two that make one are none too many only if they are not there
			if p, q := got[i-1], got[i]; p.Bits() == q.Bits() && p.Addr().BitLen() == q.Addr().BitLen() && common(p, q).Bits() == p.Bits()-1 {
				t.Fatalf("%s and %s make %s", p, q, common(p, q))
			}
		}
	})
}

// A choice fits, has nothing forbidden in it, and the best that there is room
// for.
func TestChooseProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []Entry
		for _, s := range drawSources(t, "list", 60) {
			list = append(list, Entry{Source: s, Own: rapid.Bool().Draw(t, "own"), Score: float32(rapid.IntRange(0, 5).Draw(t, "score"))})
		}
		bad := map[muster.Source]bool{}
		for _, s := range drawSources(t, "forbidden", 5) {
			bad[s] = true
		}
		overlaps := func(s muster.Source) bool {
			for f := range bad {
				if f.Prefix().Overlaps(s.Prefix()) {
					return true
				}
			}
			return false
		}
		needs := Needs{
			Max:    rapid.IntRange(0, 30).Draw(t, "max"),
			NoIPv4: rapid.IntRange(0, 9).Draw(t, "v4") == 0, NoIPv6: rapid.Bool().Draw(t, "no v6"), NoRanges: rapid.Bool().Draw(t, "no ranges"),
			Separate:   rapid.Bool().Draw(t, "separate"),
			Collateral: rapid.SampledFrom([]float64{0, 0, 0.25, 0.5}).Draw(t, "collateral"), Forbidden: overlaps,
		}
		var held map[muster.Source]struct{}
		for range 2 {
			c := Choose(list, held, needs)
			if needs.Max > 0 && len(c.Entries) > needs.Max {
				t.Fatalf("%d entries, over %d", len(c.Entries), needs.Max)
			}
			covered := addresses(c.Entries)
			for addr := range covered {
				s := muster.SourceFromAddr(addr)
				if overlaps(s) || addr.Is4() && needs.NoIPv4 || addr.Is6() && needs.NoIPv6 {
					t.Fatalf("%s is covered", addr)
				}
			}
			for _, p := range c.Entries {
				if needs.NoRanges && !p.IsSingleIP() {
					t.Fatalf("%s is a range", p)
				}
			}
			for s := range c.Holds {
				each(s.Prefix(), func(addr netip.Addr) {
					if !covered[addr] {
						t.Fatalf("%s is held and not covered", addr)
					}
				})
			}
			held = c.Holds
		}
	})
}

func TestChooseRanks(t *testing.T) {
	var list []Entry
	for i := range byte(200) { // no two make a range
		list = append(list, Entry{Source: muster.SourceFromAddr(netip.AddrFrom4([4]byte{45, 9, i, 1})), Score: float32(i)})
	}
	list = append(list, Entry{Source: muster.SourceFromAddr(netip.MustParseAddr("91.92.1.1")), Own: true})
	rank := func(i int) netip.Prefix { return list[200-i].Source.Prefix() } // from 1; 0 is the own
	needs := Needs{Max: 100}
	first := Choose(list, nil, needs)
	if len(first.Entries) != 90 || !slices.Contains(first.Entries, rank(0)) || !slices.Contains(first.Entries, rank(89)) || slices.Contains(first.Entries, rank(90)) {
		t.Fatalf("expected the best 90, got %d: %v", len(first.Entries), first.Entries)
	}
	// The last but one falls by five ranks, and by thirty.
	fallen := slices.Clone(list)
	fallen[200-88].Score -= 5.5
	if c := Choose(fallen, first.Holds, needs); len(c.Entries) != 91 || !slices.Contains(c.Entries, rank(88)) || !slices.Contains(c.Entries, rank(90)) {
		t.Errorf("expected that who was there stays, got %d: %v", len(c.Entries), c.Entries)
	}
	fallen[200-88].Score -= 30
	if c := Choose(fallen, first.Holds, needs); slices.Contains(c.Entries, rank(88)) {
		t.Errorf("expected that nothing stays beyond the limit, got %v", c.Entries)
	}
	if c := Choose(list, nil, Needs{Max: 201}); len(c.Entries) != 201 || c.Holds != nil {
		t.Errorf("expected all while all fit, got %d", len(c.Entries))
	}
}

// Scores that wander a little make no entry come and go.
func TestChooseDoesNotFlap(t *testing.T) {
	var list []Entry
	for i := range 3000 {
		list = append(list, Entry{Source: muster.SourceFromAddr(netip.AddrFrom4([4]byte{45, byte(i >> 8), byte(i), 1})), Score: float32(i)})
	}
	changes := func(wander func(i, pull int) float32, keep bool) (n int) {
		var held map[muster.Source]struct{}
		var before []netip.Prefix
		for pull := range 20 {
			for i := range list {
				list[i].Score = float32(i) + wander(i, pull)
			}
			if !keep {
				held = nil
			}
			c := Choose(list, held, Needs{Max: 1000})
			for _, p := range c.Entries {
				if _, was := slices.BinarySearchFunc(before, p, netip.Prefix.Compare); !was && pull > 3 {
					n++
				}
			}
			held, before = c.Holds, c.Entries
		}
		return n
	}
	wander := func(i, pull int) float32 { return float32((i*7+pull*13)%40 - 20) }
	with, without := changes(wander, true), changes(wander, false)
	t.Logf("entries that came anew in 16 pulls: %d with hysteresis, %d without", with, without)
	if without < 100 || with > without/20 {
		t.Errorf("expected few to come anew, got %d with hysteresis and %d without", with, without)
	}
}

func BenchmarkChoose(b *testing.B) {
	var list []Entry
	for i := range 50_000 {
		h := uint32(i) * 2654435761
		list = append(list, Entry{Source: muster.SourceFromAddr(netip.AddrFrom4([4]byte{byte(1 + h>>24%200), byte(h >> 16), byte(h >> 8), byte(h)})), Score: float32(h % 997)})
	}
	for _, n := range []int{0, 10_000} {
		b.Run(map[int]string{0: "all", 10_000: "budget"}[n], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Choose(list, nil, Needs{Max: n})
			}
		})
	}
}

// Every product is told what it needs: who it is, where to fetch and with what.
func TestSetup(t *testing.T) {
	a := Access{Name: "office", URL: "https://muster.example/m/v1/integrations/0123/content", User: "user7", Password: "PASS7"}
	texts := map[string]string{"bouncer": BouncerSetup(a)}
	for _, f := range Formats() {
		texts[f.Name] = f.Setup(a)
	}
	for name, text := range texts {
		for _, part := range []string{"muster.example", "/m/v1/integrations/0123/content", "PASS7"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s: no %q in\n%s", name, part, text)
			}
		}
		if name != "bouncer" && !strings.Contains(text, "user7") || regexp.MustCompile(`\{[a-z]+\}`).MatchString(text) {
			t.Errorf("%s: incomplete:\n%s", name, text)
		}
	}
}

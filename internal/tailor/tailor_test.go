package tailor

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

var start = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

func source(t testing.TB, s string) muster.Source {
	t.Helper()
	src, err := muster.ParseSource(s)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// nth returns addresses that share no /24.
func nth(i int) muster.Source {
	return muster.SourceFromAddr(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 7}))
}

// sight is a sighting at a time in days after start.
func sight(victim string, s muster.Source, days float64) Sighting {
	return Sighting{Victim: victim, Source: s, Behaviour: "ssh-bf", At: start.Add(time.Duration(days * float64(day)))}
}

func modelOf(p Parameters, sightings ...Sighting) *Model {
	m := New(p)
	for _, s := range sightings {
		m.Observe(s)
	}
	return m
}

func rank(m *Model, reader string, n int, now time.Time, sources ...muster.Source) (names []string) {
	var candidates []Candidate
	for _, s := range sources {
		candidates = append(candidates, Candidate{Source: s})
	}
	for _, r := range m.Board(candidates, now).For(reader).First(n, nil) {
		names = append(names, r.Source.String())
	}
	return names
}

func TestRanking(t *testing.T) {
	a, b, never := source(t, "80.1.1.1"), source(t, "80.2.2.2"), source(t, "80.9.9.9")
	for _, tt := range []struct {
		name   string
		given  []Sighting
		aged   bool
		better muster.Source
		worse  muster.Source
	}{
		{
			"what the reader saw comes before what another saw",
			[]Sighting{sight("me", a, 0), sight("other", b, 0)},
			false, a, b,
		},
		{
			"what anybody saw comes before what nobody saw",
			[]Sighting{sight("other", a, 0)},
			false, a, never,
		},
		{
			"the recent before the old",
			[]Sighting{sight("other", b, 0), sight("other", a, 0.9)},
			false, a, b,
		},
		{
			"who comes hour after hour before who came once",
			[]Sighting{sight("me", a, 0.1), sight("me", a, 0.2), sight("me", a, 0.3), sight("me", b, 0.3)},
			false, a, b,
		},
		{
			"several reports in one hour count once, so that the later one wins",
			[]Sighting{sight("me", b, 0.501), sight("me", b, 0.502), sight("me", b, 0.503), sight("me", a, 0.55)},
			false, a, b,
		},
		{
			"who is in a network that the reader was visited from",
			[]Sighting{sight("me", source(t, "80.1.1.200"), 0.5), sight("x", a, 0.5), sight("x", b, 0.5)},
			false, a, b,
		},
		{
			"what a reader saw that shares visitors, before what one saw that shares none",
			slices.Concat(together("me", "twin", 0), together("stranger", "friend", 100),
				[]Sighting{sight("twin", a, 0.9), sight("stranger", b, 0.9)}), true, a, b,
		},
		{
			"what behaves as those do that come back",
			[]Sighting{
				{Victim: "x", Source: nth(1), Behaviour: "stays", At: start.Add(-3 * day)},
				{Victim: "x", Source: nth(1), Behaviour: "stays", At: start.Add(-2 * day)},
				{Victim: "x", Source: nth(2), Behaviour: "goes", At: start.Add(-2 * day)},
				{Victim: "x", Source: nth(3), Behaviour: "goes", At: start.Add(-2 * day)},
				{Victim: "x", Source: a, Behaviour: "stays", At: start},
				{Victim: "x", Source: b, Behaviour: "goes", At: start},
			},
			false, a, b,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := modelOf(Parameters{}, tt.given...)
			if tt.aged {
				m.Age(start.Add(day))
			}
			got := rank(m, "me", 2, start.Add(day), tt.worse, tt.better)
			if want := []string{tt.better.String(), tt.worse.String()}; !slices.Equal(got, want) {
				t.Errorf("expected %v, got %v", want, got)
			}
		})
	}
}

// together gives two victims thirty visitors in common.
func together(a, b string, from int) (list []Sighting) {
	for i := range 30 {
		list = append(list, sight(a, nth(from+i), 0.2), sight(b, nth(from+i), 0.3))
	}
	return list
}

func TestScoreOfTheNetworkCounts(t *testing.T) {
	m := modelOf(Parameters{}, sight("x", nth(1), 0), sight("x", nth(2), 0))
	r := m.Board([]Candidate{{nth(1), 0.5}, {nth(2), 1}}, start).For("me").First(2, nil)
	if r[0].Source != nth(2) || math.Abs(r[0].Score-r[1].Score-math.Ln2) > 1e-9 {
		t.Errorf("expected half the score to be half the odds, got %v", r)
	}
}

func TestFeatures(t *testing.T) {
	m := modelOf(Parameters{}, sight("me", nth(1), 0), sight("me", nth(1), 0.5), sight("other", nth(1), 1))
	_, f := m.Board([]Candidate{{Source: nth(1)}}, start.Add(3*day)).Features("me", 0)
	days := func(first, second, halfLife float64) float64 {
		return math.Log1p(math.Exp2(-first/halfLife) + math.Exp2(-second/halfLife))
	}
	want := Features{
		Own:     days(3, 2.5, 2),
		Habit:   math.Log1p(math.Exp2(-3. / 40)), // two hours of one day
		Met:     1,
		Age:     math.Log(2.1),
		Lasting: math.Log1p((1 + math.Exp2(-0.5/40)) * math.Exp2(-2./40)),
		Overdue: math.Log(2.5 / 2), // seen on two days in a row, the last of them two days ago
		Network: math.Log1p(math.Exp2(-3. / 3)),
		Return:  math.Log((1 + 5*0.5) / (2 + 5 - (1 + 5*0.5))), // two visits, one return; half of all return
	}
	want.Waning = want.Age * want.Lasting
	close := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-4 })
	if diff := cmp.Diff(want, f, close); diff != "" {
		t.Errorf("features (-want +got):\n%s", diff)
	}
}

func TestHysteresis(t *testing.T) {
	sightings := []Sighting{sight("x", nth(1), 0.50), sight("x", nth(2), 0.51), sight("x", nth(3), 0.95)}
	candidates := []Candidate{{Source: nth(1)}, {Source: nth(2)}, {Source: nth(3)}}
	for _, tt := range []struct {
		name       string
		hysteresis float64
		want       []muster.Source
	}{
		{"the listed one stays against one that is hardly better", 0, []muster.Source{nth(3), nth(1)}},
		{"and goes when nothing holds it", -1, []muster.Source{nth(3), nth(2)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := modelOf(Parameters{Hysteresis: tt.hysteresis}, sightings...)
			ranking := m.Board(candidates, start.Add(day)).For("me")
			var got []muster.Source
			for _, r := range ranking.First(2, []muster.Source{nth(1), nth(99)}) {
				got = append(got, r.Source)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("expected %v, got %v", tt.want, got)
			}
		})
	}
}

// The network's scores wobble by a few percent from hour to hour: hysteresis
// keeps the list as it is.
func TestListsDoNotFlap(t *testing.T) {
	changes := func(hysteresis float64) (n int) {
		m := New(Parameters{Hysteresis: hysteresis})
		for i := range 60 {
			m.Observe(sight("x", nth(i), 0))
		}
		var list []muster.Source
		for hour := range 100 {
			candidates := make([]Candidate, 60)
			for i := range candidates {
				candidates[i] = Candidate{nth(i), 1 + 0.04*math.Mod(float64((hour+1)*(i+1))*math.Phi, 1)}
			}
			now := start.Add(time.Duration(hour) * time.Hour)
			next := sources(m.Board(candidates, now).For("me").First(20, list))
			for _, s := range next {
				if hour > 0 && !slices.Contains(list, s) {
					n++
				}
			}
			list = next
		}
		return n
	}
	if n := changes(0); n != 0 {
		t.Errorf("expected no change with hysteresis, got %d", n)
	}
	if n := changes(-1); n < 100 {
		t.Errorf("expected many changes without hysteresis, got %d: does this test say anything?", n)
	}
}

func sources(ranked []Ranked) (list []muster.Source) {
	for _, r := range ranked {
		list = append(list, r.Source)
	}
	return list
}

func drawSightings(t *rapid.T) []Sighting {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Sighting {
		return Sighting{
			Victim:    fmt.Sprint("v", rapid.IntRange(0, 6).Draw(t, "victim")),
			Source:    drawSource(t),
			Behaviour: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "behaviour"),
			At:        start.Add(time.Duration(rapid.IntRange(0, 60*24*20).Draw(t, "minutes")) * time.Minute),
			Weight:    rapid.Float64Range(0, 1).Draw(t, "weight"),
		}
	}), 0, 200).Draw(t, "sightings")
}

func drawSource(t *rapid.T) muster.Source {
	if rapid.Bool().Draw(t, "v4") {
		return muster.SourceFromAddr(netip.AddrFrom4([4]byte{80, 1, byte(rapid.IntRange(0, 2).Draw(t, "net")), byte(rapid.IntRange(0, 5).Draw(t, "host"))}))
	}
	a := netip.MustParseAddr("2a00:1450::").As16()
	a[7], a[15] = byte(rapid.IntRange(0, 2).Draw(t, "net")), byte(rapid.IntRange(0, 3).Draw(t, "host"))
	return muster.SourceFromPrefix(netip.PrefixFrom(netip.AddrFrom16(a), rapid.SampledFrom([]int{128, 64, 40}).Draw(t, "bits")))
}

func TestListProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Parameters{
			MaxSources: rapid.IntRange(1, 40).Draw(t, "sources"), MaxVictims: rapid.IntRange(1, 8).Draw(t, "victims"),
			MaxSightings: rapid.IntRange(1, 4).Draw(t, "per source"),
		}
		sightings := drawSightings(t)
		m := modelOf(p, sightings...)
		aged := rapid.Bool().Draw(t, "aged")
		now := start.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "days")) * day)
		if aged {
			m.Age(now)
		}
		if m.Sources() > p.MaxSources {
			t.Fatalf("expected at most %d sources, got %d", p.MaxSources, m.Sources())
		}
		for _, e := range m.sources.entries {
			if len(e.sightings) > p.MaxSightings {
				t.Fatalf("expected at most %d sightings of a source, got %d", p.MaxSightings, len(e.sightings))
			}
		}
		var candidates []Candidate
		for _, s := range rapid.SliceOfN(rapid.Custom(drawSource), 0, 60).Draw(t, "candidates") {
			candidates = append(candidates, Candidate{Source: s})
		}
		n := rapid.IntRange(0, 50).Draw(t, "n")
		reader := fmt.Sprint("v", rapid.IntRange(0, 9).Draw(t, "reader"))
		var listed []muster.Source
		if len(candidates) > 0 {
			listed = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) muster.Source {
				return candidates[rapid.IntRange(0, len(candidates)-1).Draw(t, "which")].Source
			}), 0, 10).Draw(t, "listed")
		}
		list := m.Board(candidates, now).For(reader).First(n, listed)

		offered := map[muster.Source]bool{}
		for _, c := range candidates {
			offered[c.Source] = true
		}
		if want := min(n, len(offered)); len(list) != want {
			t.Fatalf("expected %d entries, got %d", want, len(list))
		}
		for _, r := range list {
			if !offered[r.Source] {
				t.Fatalf("%v is on the list twice, or was no candidate", r.Source)
			}
			delete(offered, r.Source)
			if math.IsNaN(r.Score) || math.IsInf(r.Score, 0) {
				t.Fatalf("%v has the score %v", r.Source, r.Score)
			}
		}

		// The same again, from the same sightings and candidates in another order.
		slices.Reverse(candidates)
		twin := modelOf(p, sightings...)
		if aged {
			twin.Age(now)
		}
		if diff := cmp.Diff(list, twin.Board(candidates, now).For(reader).First(n, listed), equal); diff != "" {
			t.Fatalf("the same sightings gave another list:\n%s", diff)
		}
	})
}

var equal = cmp.Comparer(func(a, b muster.Source) bool { return a == b })

func TestTopIsTheStartOfTheSorted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.Permutation(seq(rapid.IntRange(0, 100).Draw(t, "how many"))).Draw(t, "all")
		n := rapid.IntRange(0, 110).Draw(t, "n")
		got := Top(slices.Clone(all), n, func(a, b int) int { return a - b })
		if want := seq(min(n, len(all))); !slices.Equal(got, want) {
			t.Fatalf("expected %v, got %v", want, got)
		}
	})
}

func seq(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

func TestFullTableForgetsTheLongestUnseen(t *testing.T) {
	m := New(Parameters{MaxSources: 16})
	for i := range 17 {
		m.Observe(sight("x", nth(i), float64(i)))
	}
	if e := m.sources.find(keyOf(nth(0))); e != nil {
		t.Error("expected the first to be forgotten")
	}
	for i := range 17 {
		if i >= 2 && m.sources.find(keyOf(nth(i))) == nil {
			t.Errorf("source %d was forgotten", i)
		}
	}
}

func TestAgeForgets(t *testing.T) {
	m := modelOf(Parameters{}, sight("old", nth(1), 0), sight("new", nth(2), 30))
	m.Age(start.Add(60 * day))
	if m.Sources() != 2 {
		t.Errorf("expected two sources after exactly 60 days, got %d", m.Sources())
	}
	m.Age(start.Add(61 * day))
	if m.Sources() != 1 || m.sources.find(keyOf(nth(2))) == nil {
		t.Errorf("expected the newer source alone, got %d", m.Sources())
	}
	if _, ok := m.victims["old"]; ok {
		t.Error("a victim that sees nothing any more keeps its place")
	}
	if len(m.networks.index) != 1 {
		t.Errorf("expected one network, got %d", len(m.networks.index))
	}
}

func TestLateSightingsChangeNothing(t *testing.T) {
	m := modelOf(Parameters{}, sight("me", nth(1), 5), sight("other", nth(2), 5))
	before := m.Board([]Candidate{{Source: nth(1)}, {Source: nth(2)}}, start.Add(6*day)).For("me").First(2, nil)
	m.Observe(sight("me", nth(1), 4))
	m.Observe(Sighting{Victim: "me", At: start}) // no source
	after := m.Board([]Candidate{{Source: nth(1)}, {Source: nth(2)}}, start.Add(6*day)).For("me").First(2, nil)
	if diff := cmp.Diff(before, after, equal); diff != "" {
		t.Errorf("the list changed:\n%s", diff)
	}
}

func TestFit(t *testing.T) {
	truth := Weights{Bias: -2, Own: 1.5, Neighbours: 0.5, Age: -0.7, Return: 0.3}
	var samples []Sample
	for i := range 20_000 {
		u := func(k int) float64 { return math.Mod(float64(i*k)*0.618033988749895, 1) }
		f := Features{Own: 2 * u(1), Neighbours: u(3), Age: 3 * u(7), Return: u(11) - 0.5}
		p := 1 / (1 + math.Exp(-truth.Score(&f)))
		samples = append(samples, Sample{f, true, p}, Sample{f, false, 1 - p}) // what is to be expected, exactly
	}
	near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 0.02 })
	if diff := cmp.Diff(truth, Fit(samples, Weights{}, 0.1), near); diff != "" {
		t.Errorf("fitted weights (-want +got):\n%s", diff)
	}
	prior := DefaultWeights()
	if got := Fit(nil, prior, 1); got != prior {
		t.Errorf("expected the prior without samples, got %+v", got)
	}
	if got := Fit(samples[:10], prior, 1e6); math.Abs(got.Own-prior.Own) > 0.01 {
		t.Errorf("expected a strong prior to hold, got %+v", got)
	}
}

// filled is a model of a busy network: most sources at one or two victims.
func filled(sources int) (*Model, []Candidate) {
	m := New(Parameters{MaxSources: sources})
	candidates := make([]Candidate, sources)
	for i := range candidates {
		candidates[i].Source = nth(i)
		for k := range 1 + i%3 {
			m.Observe(sight(fmt.Sprint("v", (i*7+k*13)%997), nth(i), float64(i%100)/25))
		}
	}
	m.Age(start.Add(4 * day))
	return m, candidates
}

func BenchmarkObserve(b *testing.B) {
	m, candidates := filled(200_000)
	at := start.Add(4 * day)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if i%1000 == 0 {
			at = at.Add(time.Minute)
		}
		m.Observe(Sighting{Victim: "v5", Source: candidates[i*7919%len(candidates)].Source, Behaviour: "ssh-bf", At: at})
	}
}

// A list of 15,000 out of 50,000 candidates.
func BenchmarkList(b *testing.B) {
	m, candidates := filled(50_000)
	board := m.Board(candidates, start.Add(5*day))
	listed := sources(board.For("v5").First(15_000, nil))
	b.ReportAllocs()
	for b.Loop() {
		board.For("v5").First(15_000, listed)
	}
}

func BenchmarkBoard(b *testing.B) {
	m, candidates := filled(50_000)
	b.ReportAllocs()
	for b.Loop() {
		m.Board(candidates, start.Add(5*day))
	}
}

func BenchmarkAge(b *testing.B) {
	m, _ := filled(200_000)
	b.ReportAllocs()
	for b.Loop() {
		m.Age(start.Add(5 * day))
	}
}

package publish

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"muster"
)

// ranking is a crowded publisher with rankings that know a report of each of the
// first sources by some of a hundred organisations.
func ranking(published, reported, size int) (*rig, *Rankings) {
	r := crowded(published, size)
	m := NewRankings(RankingsConfig{Sources: 1_000_000, Now: r.clock.now})
	r.cfg.Rankings = m
	random := rand.New(rand.NewPCG(3, 3))
	for i, v := range verdictsOf(max(reported, published), 7)[:reported] {
		for range 1 + random.IntN(3) {
			m.Observe(report(fmt.Sprint("o", random.IntN(100)), v.Source, v.Scenario, v.Changed.Add(-time.Duration(i%7)*time.Hour)))
		}
	}
	m.Ready()
	return r, m
}

func report(organisation string, s muster.Source, scenario string, at time.Time) *muster.Signal {
	return &muster.Signal{Organisation: organisation, Source: s, Scenario: scenario, At: at, Received: at, Flags: muster.Counts}
}

// busy is a publisher of ten addresses of which readers get five, with rankings.
func busy(t *testing.T) (*rig, *Rankings) {
	t.Helper()
	r := newRig(func(c *Config) {
		c.Tier = func(*Reader) Tier { return Tier{Size: 5, Tailoring: TailorReported} }
		c.Rankings = NewRankings(RankingsConfig{Now: c.Now})
	})
	for i := range 10 {
		r.judge(t, network, fmt.Sprintf("35.188.49.%d", i), "ssh", 72, true)
	}
	r.read(t)
	return r, r.cfg.Rankings
}

func address(t testing.TB, text string) muster.Source {
	t.Helper()
	s, err := muster.ParseSource(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// names are the addresses that an organisation's reader is sent.
func (r *rig) names(t *testing.T, organisation string) (names []string) {
	t.Helper()
	list, _ := sent(t, r.Edition(organisation, V3, false))
	for _, line := range list {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestRankedListsFollowReports(t *testing.T) {
	r, m := busy(t)
	shared := r.names(t, "")
	saw := []string{"35.188.49.6", "35.188.49.8"}
	holds := func(organisation string) bool {
		names := r.names(t, organisation)
		if len(names) != 5 {
			t.Fatalf("%d entries: %q", len(names), names)
		}
		return slices.Contains(names, saw[0]) && slices.Contains(names, saw[1])
	}
	if slices.Contains(shared, saw[0]) || slices.Contains(shared, saw[1]) {
		t.Fatalf("%q shows nothing: choose others", shared)
	}
	for _, text := range saw {
		m.Observe(report("A", address(t, text), "ssh", r.clock.now()))
		s := report("B", address(t, text), "ssh", r.clock.now())
		s.Flags = muster.Fleet
		m.Observe(s)
	}
	r.Rank()
	if holds("A") {
		t.Error("ranked before anybody had asked")
	}
	r.Rank()
	if holds("A") {
		t.Error("ranked before the log was read")
	}
	m.Ready()
	for _, organisation := range []string{"A", "B", "C"} {
		holds(organisation)
	}
	r.Rank()
	if !holds("A") {
		t.Errorf("A saw %q, and gets %q", saw, r.names(t, "A"))
	}
	for _, organisation := range []string{"B", "C"} {
		if diff := gocmp.Diff(shared, r.names(t, organisation)); diff != "" {
			t.Errorf("%s, of which nothing is known that counts (-shared +own):\n%s", organisation, diff)
		}
	}
	if diff := gocmp.Diff(shared, r.names(t, "")); diff != "" {
		t.Errorf("readers without an organisation (-before +after):\n%s", diff)
	}

	first := m.of("A", 5, r.clock.now())
	m.Observe(report("A", address(t, "35.188.49.9"), "ssh", r.clock.now()))
	r.clock.advance(rankEvery - time.Minute)
	r.Rank()
	if m.of("A", 5, r.clock.now()) != first {
		t.Error("ranked anew too early")
	}
	r.clock.advance(time.Minute)
	r.Rank()
	second := m.of("A", 5, r.clock.now())
	if second.version == first.version || !slices.Contains(r.names(t, "A"), "35.188.49.9") {
		t.Errorf("A saw one more, and gets %q", r.names(t, "A"))
	}
	r.clock.advance(rankEvery)
	r.Rank()
	if third := m.of("A", 5, r.clock.now()); third == second || third.version != second.version {
		t.Error("expected a new list with the version of the last, which says the same")
	}
	r.clock.advance(rankFor + time.Minute)
	at := m.lists.get("A", nil, nil).last.Load().at
	r.Rank()
	if m.lists.get("A", nil, nil).last.Load().at != at {
		t.Error("ranked although nobody asks any more")
	}
}

// Where everything fits into every list, and where nothing shall be tailored,
// nothing is learnt, ranked or made for one organisation alone.
func TestNothingIsRankedWithoutNeed(t *testing.T) {
	for name, tier := range map[string]Tier{
		"unlimited": {Tailoring: TailorReported}, "all fits": {Size: 10, Tailoring: TailorReported}, "the best of all": {Size: 5, Tailoring: TailorNone},
	} {
		r, m := busy(t)
		reports := NewReports(time.Hour, r.clock.now)
		r.cfg.Reported = reports.Scenarios
		if tier.Tailoring != TailorNone {
			r.cfg.Preferred = func(reader *Reader) ([]muster.Source, uint64) { return reports.Sources(reader.Organisation) }
		}
		r.cfg.Tier = func(*Reader) Tier { return tier }
		r.Edition("A", V3, false)
		select {
		case <-reports.Asked():
			t.Errorf("%s: somebody asked what was reported", name)
		default:
		}
		if n := m.lists.len(); n > 0 {
			t.Errorf("%s: %d lists are kept", name, n)
		}
		r.cfg.Tier = func(*Reader) Tier { return Tier{Size: 5, Tailoring: TailorReported} }
		r.Edition("A", V3, false)
		select {
		case <-reports.Asked():
		default:
			t.Errorf("%s: nobody asked when not all fitted", name)
		}
	}
}

func TestRankingsAreBounded(t *testing.T) {
	m := NewRankings(RankingsConfig{Now: func() time.Time { return start }})
	for i := range 3 * maxRankings {
		m.of(fmt.Sprint("o", i), 10_000_000, start.Add(time.Duration(i)*time.Second))
	}
	if n := m.lists.len(); n > maxRankings || n < maxRankings*3/4 {
		t.Errorf("%d lists, expected about %d", n, maxRankings)
	}
	m.lists.each(func(_ string, r *ranked) {
		if n := r.size.Load(); n != maxRanked {
			t.Fatalf("a list of %d, expected %d", n, maxRanked)
		}
	})
}

// An organisation's machines pull while its list is made and reports come in.
func TestPullsWhileRanking(t *testing.T) {
	r, m := ranking(2_000, 2_000, 500)
	vs := verdictsOf(2_000, 7)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 200 {
				organisation := fmt.Sprint("o", (i+j)%5)
				if i == 0 {
					m.Observe(report(organisation, vs[j].Source, vs[j].Scenario, r.clock.now()))
				}
				if n := r.Pull(&Reader{Organisation: organisation}, wanted).Entries; n > 500 {
					t.Errorf("%d entries", n)
				}
			}
		})
	}
	for range 10 {
		r.clock.advance(rankEvery)
		r.Rank()
	}
	wg.Wait()
}

func BenchmarkRankingsObserve(b *testing.B) {
	_, m := ranking(1_000, 100_000, 100)
	vs := verdictsOf(100_000, 7)
	at := start
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i++; i%100 == 0 {
			at = at.Add(time.Second)
		}
		m.Observe(report("o5", vs[i*7919%len(vs)].Source, "crowdsecurity/ssh-bf", at))
	}
}

// BenchmarkRank is the ranking of 50,000 published sources for so many
// organisations.
func BenchmarkRank(b *testing.B) {
	for _, organisations := range []int{1, 10} {
		b.Run(fmt.Sprint(organisations), func(b *testing.B) {
			r, m := ranking(50_000, 100_000, 15_000)
			for i := range organisations {
				m.of(fmt.Sprint("o", i), 15_000, r.clock.now())
			}
			r.Rank()
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				m.idle = time.Time{}
				m.lists.each(func(_ string, l *ranked) { l.last.Store(&rankedList{sources: l.last.Load().sources}) })
				b.StartTimer()
				r.Rank()
			}
		})
	}
}

// BenchmarkRankedBuild is an edition for an organisation with a list of its own,
// as it is after one address changed.
func BenchmarkRankedBuild(b *testing.B) {
	r, m := ranking(50_000, 100_000, 15_000)
	reader := footprintsOf(1)[0]
	reader.Organisation = "o1"
	m.of("o1", 15_000, r.clock.now())
	r.Rank()
	a := r.Pull(reader, wanted)
	more := verdictsOf(60_000, 8)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		b.StopTimer()
		r.mu.Lock()
		r.apply(&more[i%len(more)])
		r.mu.Unlock()
		r.clock.advance(coalesce)
		i++
		b.StartTimer()
		a = r.Pull(reader, wanted)
	}
	b.ReportMetric(float64(a.Entries), "entries")
}

// What a million remembered sources take.
func TestMillionRemembered(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("takes some seconds, and minutes with the race detector")
	}
	const n = 1_000_000
	vs := verdictsOf(n, 7)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m := NewRankings(RankingsConfig{Sources: n, Now: func() time.Time { return start }})
	random := rand.New(rand.NewPCG(3, 3))
	begun := time.Now()
	reports := 0
	for i := range vs {
		for range 1 + random.IntN(3) {
			m.Observe(report(fmt.Sprint("o", random.IntN(100)), vs[i].Source, "crowdsecurity/ssh-bf", vs[i].Changed))
			reports++
		}
	}
	took := time.Since(begun)
	begun = time.Now()
	m.age(start)
	aged := time.Since(begun)
	runtime.GC()
	runtime.ReadMemStats(&after)
	mb := float64(after.HeapAlloc-before.HeapAlloc) / 1e6
	t.Logf("%.0f MB; %s for each of %d reports; %s to age", mb, took/time.Duration(reports), reports, aged)
	if mb > 600 {
		t.Errorf("%.0f MB, expected less than 600", mb)
	}
	runtime.KeepAlive(vs)
	runtime.KeepAlive(m)
}

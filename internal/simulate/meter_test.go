package simulate

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/internal/crowd"
)

// at is so many seconds after the beginning of the traces.
func at(seconds int64) int64 { return begins + 10*daySeconds + seconds }

func TestFirstAndThirdReport(t *testing.T) {
	var s source
	for i, m := range []uint32{7, 7, 8, 7, 8, 9, 10} {
		s.heardBy(m, at(int64(i)))
	}
	if s.first != at(0) || s.third != at(5) {
		t.Errorf("first report after %d s, third machine's after %d s; expected 0 and 5", s.first-at(0), s.third-at(0))
	}
}

func TestDelaysOfATrace(t *testing.T) {
	s := Scenario{Days: 20, MeasureFrom: 10}
	end := begins + 20*daySeconds
	m := newMeter(&s)
	for _, x := range []struct {
		name string
		s    source
	}{
		{"listed a minute after the third", source{truth: bad, first: at(0), third: at(600), listedAt: at(660)}},
		{"listed before the third", source{truth: bad, first: at(0), third: at(600), listedAt: at(30)}},
		{"never listed", source{truth: bad, first: at(0), third: at(600)}},
		{"seen by two", source{truth: bad, first: at(0), listedAt: at(30)}},
		{"no attacker", source{truth: good, first: at(0), third: at(600), listedAt: at(660)}},
		{"too early", source{truth: bad, first: at(-1), third: at(600), listedAt: at(660)}},
	} {
		m.sum(&x.s, end)
	}
	never := float64(10 * daySeconds)
	want := Delays{First: []float64{660, 30, never}, Third: []float64{60, pipeline, never - 600}}
	if diff := cmp.Diff(want, m.delays); diff != "" {
		t.Error(diff)
	}
}

func TestListingsOfATrace(t *testing.T) {
	m := newMeter(&Scenario{Days: 20})
	m.targets = 2
	washed := source{truth: washer, listedAt: at(0), washedAt: at(10), againAt: at(100)}
	for _, s := range []*source{
		{truth: bad},
		{truth: bad},
		{truth: canary},
		{truth: good},
		{truth: invented},
		{truth: good, target: true},
		{truth: good, target: true, published: true},
		&washed,
	} {
		m.listed(s, at(400))
	}
	got := []int{m.published, m.wrong, m.wrongCanaries, m.targetsListed, m.today.Wrong, m.today.Published}
	if diff := cmp.Diff([]int{8, 1, 1, 1, 5, 8}, got); diff != "" {
		t.Error("published, wrong, canaries, targets, wrong today, published today:", diff)
	}
	if diff := cmp.Diff([]float64{300 + pipeline}, m.relisted); diff != "" || washed.washedAt != 0 {
		t.Error("listed again after:", diff)
	}
}

func TestBlockingOfATrace(t *testing.T) {
	m := newMeter(&Scenario{Days: 20, MeasureFrom: 10})
	listed, known, new := &source{first: at(0), onList: true}, &source{first: at(0)}, &source{}
	for _, s := range []*source{listed, known, new} {
		m.attacked(s, at(-1000)) // before anything counts
		m.attacked(s, at(0))     // the oracle's list is no faster than the pipeline
		m.attacked(s, at(60))
	}
	m.cut = 5 // the oracle's list is full
	m.attacked(&source{first: at(0), rate: 4}, at(60))
	m.attacked(&source{first: at(0), rate: 6}, at(60))
	got := []int{m.events, m.blocked, m.oracle, m.today.Events}
	if diff := cmp.Diff([]int{8, 2, 3, 11}, got); diff != "" {
		t.Error("attacks, blocked, blocked by the oracle, attacks today:", diff)
	}
}

func TestLiarsAndBombedOfATrace(t *testing.T) {
	s := tiny(t)
	r := newRun(&s, crowd.Default(), 1)
	m := &r.meter
	m.lied(1, crowd.Trust{Rank: 4}, at(0))
	m.lied(1, crowd.Trust{Rank: 4}, at(50))
	m.lied(2, crowd.Trust{Rank: 1}, at(0)) // a newcomer has nothing to lose
	m.lied(3, crowd.Trust{Rank: 2}, at(0))
	m.liars[1].exposed = at(2 * hourSeconds)
	m.bombed, m.ranks, m.ranksSince, m.daysBombed = []uint32{1, 2}, []float64{5, 4}, []float64{9, 8}, 2
	m.delays = Delays{First: []float64{1, 2, 100}, Third: nil}
	got := m.samples(r)
	value := func(name string) float64 {
		i, _ := measureNamed(name)
		return got[i].Value()
	}
	for name, want := range map[string]float64{
		"exposed_within_h":       (float64(r.end()-at(0)) / hourSeconds), // machine 3, never
		"exposed_share":          0.5,
		"rank_lost":              0.5,
		"first_report_to_list_s": 2,
		"third_report_to_list_s": math.NaN(),
		"target_published_rate":  math.NaN(),
		"relisted_after_s":       math.NaN(),
		"canaries_published":     0,
	} {
		if v := value(name); v != want && !(math.IsNaN(v) && math.IsNaN(want)) {
			t.Errorf("%s is %v; expected %v", name, v, want)
		}
	}
}

func TestListHasRoomForSoMany(t *testing.T) {
	e := newEngine(crowd.Default(), 2, 2, newQueue())
	a, b, c, d := e.newSource(source{}), e.newSource(source{}), e.newSource(source{}), e.newSource(source{})
	set := func(src uint32, listed bool) {
		e.sources[src].listed = listed
		e.enter(src)
	}
	on := func() (all []uint32) {
		for i := range e.sources {
			if e.sources[i].onList {
				all = append(all, uint32(i))
			}
		}
		return all
	}
	set(a, true)
	set(b, true)
	set(c, true)
	set(d, true)
	if diff := cmp.Diff([]uint32{a, b}, on()); diff != "" {
		t.Error("four in room for two:", diff)
	}
	set(c, false) // gives up waiting
	set(a, false)
	if diff := cmp.Diff([]uint32{b, d}, on()); diff != "" {
		t.Error("after one left:", diff)
	}
	set(b, false)
	set(d, false)
	if e.onList != 0 || len(on()) != 0 {
		t.Errorf("%d on the list in the end", e.onList)
	}
}

func TestQueueKeepsOrder(t *testing.T) {
	q := newQueue()
	q.plan(begins+30, event{source: 1})
	q.plan(begins+hourSeconds+5, event{source: 2})
	q.begin(0)
	q.add(event{second: 30, source: 3})
	q.add(event{second: 10, source: 4})
	q.plan(begins+20, event{source: 5}) // too late for this hour
	q.plan(begins+1000*daySeconds, event{source: 6})
	order := func() (got []uint32) {
		for _, e := range q.inOrder() {
			got = append(got, e.source)
		}
		return got
	}
	if diff := cmp.Diff([]uint32{4, 1, 3}, order()); diff != "" {
		t.Error("the first hour:", diff)
	}
	q.begin(1)
	if diff := cmp.Diff([]uint32{5, 2}, order()); diff != "" {
		t.Error("the second hour:", diff)
	}
	for hour := int32(2); hour < horizon; hour++ {
		q.begin(hour)
	}
	if diff := cmp.Diff([]uint32{6}, order()); diff != "" {
		t.Error("what is beyond the horizon comes up there:", diff)
	}
}

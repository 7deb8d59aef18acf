package simulate

import (
	"math"
	"slices"

	"muster/internal/crowd"
)

// Day is the state of the network at the end of a simulated day.
type Day struct {
	Listed    int     // lines of the list
	Attackers int     // of those, attackers
	Published int     // listed on this day
	Wrong     int     // of those, good addresses
	Events    int     // attacks at honest watchers
	Blocked   int     // of those, by sources on the list
	Oracle    int     // … on the oracle's list
	Reports   uint64  // since the beginning
	Live      int     // sources with evidence
	Newcomer  float64 // weight of a machine that nobody knows
	Clouded   int     // AS
	Weight    [classes]float64
	Ranks     [classes][6]int
}

// Delays are seconds from the first and third report of attackers to their
// listing; a listing that never came counts as one at the end.
type Delays struct{ First, Third []float64 }

// meter takes the measures of a run.
type meter struct {
	from   int64 // delays and blocking count from here on
	days   []Day
	today  Day
	delays Delays

	published, wrong, wrongCanaries int // network listings, from the first day
	targets, targetsListed          int
	events, blocked, oracle         int
	relisted                        []float64
	largest                         int
	cut                             float64 // the oracle's list ends at this rate, 0 = there is room for all
	canariesFound                   int
	liars                           map[uint32]*liar
	bombed                          []uint32
	ranks                           []float64 // of the bombed, before
	ranksSince                      []float64 // sum, by day
	daysBombed                      int
	end                             int64
}

// liar is a machine of the adversary that has weight and lied.
type liar struct{ since, exposed int64 }

func newMeter(s *Scenario) meter {
	return meter{
		from: begins + int64(s.MeasureFrom)*daySeconds, days: make([]Day, 0, s.Days), liars: map[uint32]*liar{},
		end: begins + int64(s.Days)*daySeconds,
	}
}

// attacked counts an attack at an honest watcher.
func (m *meter) attacked(s *source, at int64) {
	m.today.Events++
	known := s.first > 0 && at > s.first+pipeline && (s.rate == 0 || s.rate >= m.cut)
	if s.onList {
		m.today.Blocked++
	}
	if known {
		m.today.Oracle++
	}
	if at < m.from {
		return
	}
	m.events++
	if s.onList {
		m.blocked++
	}
	if known {
		m.oracle++
	}
}

// listed counts a listing.
func (m *meter) listed(s *source, at int64) {
	m.today.Published++
	m.published++
	if s.target && !s.published {
		s.published = true
		m.targetsListed++
	}
	switch s.truth {
	case canary:
		m.wrongCanaries++
		m.today.Wrong++
	case good:
		m.today.Wrong++
		if !s.target {
			m.wrong++
		}
	case nobody, invented:
		m.today.Wrong++
	case washer:
		if s.washedAt > 0 && s.againAt > 0 {
			m.relisted = append(m.relisted, float64(at+pipeline-s.againAt))
			s.washedAt, s.againAt = 0, 0
		}
	case bad, accuser, truths:
	}
	if s.listedAt == 0 {
		s.listedAt = at + pipeline
	}
}

// sum notes what became of an attacker, when it is forgotten or all is over.
func (m *meter) sum(s *source, end int64) {
	if s.truth == washer && s.againAt > 0 { // never listed again
		m.relisted = append(m.relisted, float64(end-s.againAt))
	}
	if s.truth != bad || s.third == 0 || s.first < m.from {
		return
	}
	at := s.listedAt
	if at == 0 {
		at = m.end
	}
	m.delays.First = append(m.delays.First, max(pipeline, float64(at-s.first)))
	m.delays.Third = append(m.delays.Third, max(pipeline, float64(at-s.third)))
}

// lied notes that a machine of the adversary has lied.
func (m *meter) lied(machine uint32, t crowd.Trust, at int64) {
	if _, known := m.liars[machine]; !known && t.Rank >= 2 {
		m.liars[machine] = &liar{since: at}
	}
}

// watch looks for liars that have been exposed.
func (m *meter) watch(r *run, at int64) {
	for machine, l := range m.liars {
		if l.exposed == 0 && r.engine.table.Of(machine).Rank == 0 {
			l.exposed = at
		}
	}
}

// bomb notes the rank of those who will be bombed.
func (m *meter) bomb(t *crowd.TrustTable, machines []uint32) {
	m.bombed = machines
	for _, b := range machines {
		m.ranks = append(m.ranks, float64(t.Of(b).Rank))
	}
	m.ranksSince = make([]float64, len(machines))
}

// endDay closes a day.
func (m *meter) endDay(r *run) {
	d, e := &m.today, r.engine
	for i := range e.sources {
		s := &e.sources[i]
		if s.ev.Last() > 0 {
			d.Live++
		}
		if s.onList && (s.truth == bad || s.truth == washer || s.truth == accuser) {
			d.Attackers++
		}
	}
	d.Listed, d.Reports = e.onList, e.reports
	d.Newcomer, d.Clouded = float64(e.table.Newcomer), len(e.table.Clouded)
	var count [classes]int
	hour := r.queue.hour
	for i := 1; i < len(r.world.machines); i++ {
		mc := &r.world.machines[i]
		if mc.joins > hour {
			continue
		}
		t := e.table.Of(uint32(i))
		count[mc.class]++
		d.Weight[mc.class] += float64(t.Weight)
		d.Ranks[mc.class][min(t.Rank, 5)]++
	}
	for c := range count {
		d.Weight[c] /= float64(max(count[c], 1))
	}
	m.cutOracle(r)
	m.largest = max(m.largest, d.Listed)
	for i, b := range m.bombed {
		m.ranksSince[i] += float64(e.table.Of(b).Rank)
	}
	if len(m.bombed) > 0 {
		m.daysBombed++
	}
	m.days = append(m.days, *d)
	m.today = Day{}
}

// cutOracle finds the rate at which the oracle's list ends: it holds the
// busiest of the attackers that there are.
func (m *meter) cutOracle(r *run) {
	m.cut = 0
	rates := make([]float64, len(r.world.attackers))
	for i := range r.world.attackers {
		a := &r.world.attackers[i]
		rates[i] = a.rate
		r.engine.sources[a.source].rate = a.rate
	}
	if over := len(rates) - r.scenario.World.ListLines; over > 0 {
		slices.Sort(rates)
		m.cut = rates[over]
	}
}

// trace closes the run.
func (m *meter) trace(r *run) *Trace {
	for i := range r.engine.sources {
		if s := &r.engine.sources[i]; s.owned || s.ev.Last() > 0 {
			m.sum(s, m.end)
		}
	}
	slices.Sort(m.delays.First)
	slices.Sort(m.delays.Third)
	samples := m.samples(r)
	return &Trace{Samples: samples, Days: m.days, Delays: Delays{thin(m.delays.First), thin(m.delays.Third)}, Reports: r.engine.reports}
}

// samples works out the measures.
func (m *meter) samples(r *run) Samples {
	s := Samples{}
	s.put("canaries_published", float64(m.wrongCanaries), 1)
	s.put("benign_published_rate", float64(m.wrong), float64(m.published))
	s.put("target_published_rate", float64(m.targetsListed), float64(m.targets))
	s.put("third_report_to_list_s", quantile(m.delays.Third, 0.5), has(len(m.delays.Third)))
	s.put("first_report_to_list_s", quantile(m.delays.First, 0.5), has(len(m.delays.First)))
	s.put("blocked_share", float64(m.blocked), float64(m.events))
	s.put("blocked_share_of_oracle", float64(m.blocked), float64(m.oracle))
	if len(m.liars) > 0 {
		worst, exposed := 0.0, 0
		for _, l := range m.liars {
			until := l.exposed
			if until == 0 {
				until = m.end
			} else {
				exposed++
			}
			worst = max(worst, float64(until-l.since)/hourSeconds)
		}
		s.put("exposed_within_h", worst, 1)
		s.put("exposed_share", float64(exposed), float64(len(m.liars)))
	}
	if m.daysBombed > 0 {
		lost := 0.0
		for i := range m.bombed {
			lost = max(lost, m.ranks[i]-m.ranksSince[i]/float64(m.daysBombed))
		}
		s.put("rank_lost", lost, 1)
	}
	slices.Sort(m.relisted)
	s.put("relisted_after_s", quantile(m.relisted, 0.5), has(len(m.relisted)))
	if r.adversary.Aim == Probe {
		s.put("canaries_found", float64(m.canariesFound), 1)
	}
	s.put("list_lines", float64(m.largest), 1)
	s.put("reports", float64(r.engine.reports), 1)
	return s
}

// plotted is how many delays of one run are enough to plot them.
const plotted = 1000

// thin returns so many of sorted values that they are spread as all are.
func thin(sorted []float64) []float64 {
	if len(sorted) <= plotted {
		return sorted
	}
	some := make([]float64, plotted)
	for i := range some {
		some[i] = sorted[(2*i+1)*len(sorted)/(2*plotted)]
	}
	return some
}

func has(n int) float64 { return float64(min(n, 1)) }

// quantile returns the value below which a share of sorted values lies; NaN of
// none.
func quantile(sorted []float64, share float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

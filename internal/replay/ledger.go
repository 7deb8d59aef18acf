package replay

import (
	"cmp"
	"math"
	"slices"

	"muster/internal/tailor"
)

// ledger keeps what the baselines rank by, and who came on which day.
type ledger struct {
	rec     *Recording
	visits  [][]visit // by day, each source and victim once
	cells   [][]cell  // by source
	last    []int     // day on which a source was seen last; -1: never
	common  []float64 // victims × victims: sources seen by both
	victims int
	today   int
}

// visit is a day on which a source came to a victim.
type visit struct {
	source, victim int32
	reports        float64
	lastHour       int64
	faded          [len(fadings)]float64 // what it counts at the end of the day
}

// cell is what one victim saw of a source up to yesterday.
type cell struct {
	victim  int32
	reports float64
	faded   [len(fadings)]float64
}

// fading is one way to let reports fade; a baseline takes the one that does best
// on the days to fit on.
type fading struct {
	halfLife float64 // days
	counts   counting
}

type counting int

const (
	days     counting = iota // each day with reports once
	hours                    // each hour with reports once
	presence                 // the last report alone
)

var fadings = [...]fading{{2, days}, {3, days}, {1, hours}, {2, hours}, {2, presence}, {4, presence}}

// likeness is one way to say how alike two sensors are, by their sets of sources.
type likeness func(common, a, b float64) float64

var likenesses = [...]likeness{
	func(common, a, b float64) float64 { return common / math.Sqrt(a*b) },   // cosine
	func(common, a, b float64) float64 { return common / (a + b - common) }, // Jaccard
}

func newLedger(rec *Recording) *ledger {
	l := &ledger{
		rec: rec, visits: make([][]visit, rec.Days()), cells: make([][]cell, len(rec.Sources)),
		last: make([]int, len(rec.Sources)), victims: len(rec.Victims),
	}
	l.common = make([]float64, l.victims*l.victims)
	for i := range l.last {
		l.last[i] = -1
	}
	place := map[[2]int32]int{} // of a visit in today's
	today := 0
	for _, e := range rec.Events {
		d := rec.day(e)
		if d != today {
			clear(place)
			today = d
		}
		v := visit{source: e.Source, victim: e.Victim, reports: 1, lastHour: e.At / 3600}
		for k, f := range fadings {
			v.faded[k] = 1
			if f.counts != days {
				v.faded[k] = math.Exp2(-float64(rec.start(d+1)-e.At) / secondsPerDay / f.halfLife)
			}
		}
		if i, ok := place[[2]int32{e.Source, e.Victim}]; ok {
			l.visits[d][i].add(&v)
			continue
		}
		place[[2]int32{e.Source, e.Victim}] = len(l.visits[d])
		l.visits[d] = append(l.visits[d], v)
	}
	return l
}

// add adds a later report of the same day to v.
func (v *visit) add(later *visit) {
	for k, f := range fadings {
		switch {
		case f.counts == presence:
			v.faded[k] = later.faded[k]
		case f.counts == hours && v.lastHour != later.lastHour:
			v.faded[k] += later.faded[k]
		}
	}
	v.reports++
	v.lastHour = later.lastHour
}

// nextDay adds today's visits to what the baselines know.
func (l *ledger) nextDay() {
	var left [len(fadings)]float64
	for k, f := range fadings {
		left[k] = math.Exp2(-1 / f.halfLife)
	}
	for _, cells := range l.cells {
		for i := range cells {
			for k := range left {
				cells[i].faded[k] *= left[k]
			}
		}
	}
	for i := range l.visits[l.today] {
		v := &l.visits[l.today][i]
		c := l.cell(v)
		c.reports += v.reports
		for k, f := range fadings {
			if f.counts == presence {
				c.faded[k] = 0
			}
			c.faded[k] += v.faded[k]
		}
		l.last[v.source] = l.today
	}
	l.today++
}

func (l *ledger) cell(v *visit) *cell {
	cells := l.cells[v.source]
	if i := slices.IndexFunc(cells, func(c cell) bool { return c.victim == v.victim }); i >= 0 {
		return &cells[i]
	}
	n := int32(l.victims)
	for _, c := range cells {
		l.common[c.victim*n+v.victim]++
		l.common[v.victim*n+c.victim]++
	}
	l.common[v.victim*n+v.victim]++
	l.cells[v.source] = append(cells, cell{victim: v.victim})
	return &l.cells[v.source][len(cells)]
}

// came returns the sources that come to a victim today.
func (l *ledger) came(victim int32) stamps {
	var set []int32
	for i := range l.visits[l.today] {
		if v := &l.visits[l.today][i]; v.victim == victim {
			set = append(set, v.source)
		}
	}
	return newStamps(len(l.cells), set)
}

// plain ranks by reports at all sensors together.
func (l *ledger) plain(source int32) (sum float64) {
	for _, c := range l.cells[source] {
		sum += c.reports
	}
	return sum
}

// local ranks by reports at the reader itself.
func (l *ledger) local(reader int32) func(source int32) float64 {
	return func(source int32) float64 {
		for _, c := range l.cells[source] {
			if c.victim == reader {
				return c.reports
			}
		}
		return 0
	}
}

// similar ranks by faded reports, each times how alike the reader and the
// reporter are.
func (l *ledger) similar(reader int32, fading int, like likeness) func(source int32) float64 {
	alike := make([]float64, l.victims)
	n := int32(l.victims)
	for v := range n {
		if own, other := l.common[reader*n+reader], l.common[v*n+v]; own > 0 && other > 0 {
			alike[v] = like(l.common[reader*n+v], own, other)
		}
	}
	return func(source int32) (sum float64) {
		for _, c := range l.cells[source] {
			sum += alike[c.victim] * c.faded[fading]
		}
		return sum
	}
}

// decayed ranks by faded reports at all sensors together.
func (l *ledger) decayed(fading int) func(source int32) float64 {
	return func(source int32) (sum float64) {
		for _, c := range l.cells[source] {
			sum += c.faded[fading]
		}
		return sum
	}
}

// top returns the n sources with the highest positive scores, best first; among
// equals those seen last, which does these baselines a favour.
func (l *ledger) top(n int, from []int32, score func(source int32) float64) []int32 {
	type scored struct {
		score  float64
		source int32
	}
	all := make([]scored, 0, len(from))
	for _, i := range from {
		if s := score(i); s > 0 {
			all = append(all, scored{s, i})
		}
	}
	all = tailor.Top(all, n, func(a, b scored) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return cmp.Or(cmp.Compare(l.last[b.source], l.last[a.source]), cmp.Compare(a.source, b.source))
	})
	best := make([]int32, len(all))
	for i := range best {
		best[i] = all[i].source
	}
	return best
}

// seen returns the sources seen before today, not longer than so many days ago.
func (l *ledger) seen(days int) (sources []int32) {
	for i, last := range l.last {
		if last >= 0 && last >= l.today-days {
			sources = append(sources, int32(i))
		}
	}
	return sources
}

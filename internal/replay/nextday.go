package replay

import (
	"context"
	"hash/fnv"
	"slices"
	"time"

	"muster"
	"muster/internal/tailor"
)

// method is a way to rank that is measured.
type method int

const (
	ours method = iota
	plainCount
	localCount
	decay
	similarityDecay
	methods
)

// series holds one number per day of the recording.
type series []float64

// nextDay measures, for every day from warm on, how many of the sources that
// come to a reader on that day are on the list made at its first moment.
type nextDay struct {
	cfg     Config
	rec     *Recording
	readers []int32
	warm    int // first day that is measured
	fit     int // first day that nothing was fitted on

	hits    [methods][]series // by place in cfg.N: mean over readers
	options [2][][]series     // the same for every way to decay, and for similarityDecay
	chosen  [2][]int          // of them, by place in cfg.N
	churn   []series          // share of entries that were not on the list of the day before
	known   series            // share of those who come that were seen anywhere before
	weights tailor.Weights
}

// observe shows the model one event.
func (r *Recording) observe(m *tailor.Model, e Event) {
	m.Observe(tailor.Sighting{
		Victim: r.Victims[e.Victim], Source: r.Sources[e.Source], Behaviour: r.Behaviours[e.Behaviour],
		At: time.Unix(e.At, 0).UTC(),
	})
}

// fitWeights fits the weights on the days before fit, on the sources that a
// model knows at each midnight. Of those that do not come only few are taken,
// for there are hundreds for each that does.
func (n *nextDay) fitWeights(ctx context.Context) error {
	// One in so many is taken, by a fixed rule instead of at random.
	const enough = 2_000_000
	every := uint32(1 + n.fit*len(n.readers)*len(n.rec.Sources)/enough)
	hashes := hashesOf(n.rec.Sources)
	// strength is the weight of the prior: like that of some days of one sensor.
	const strength = 50
	var samples []tailor.Sample
	m, l, next := tailor.New(n.cfg.Parameters), newLedger(n.rec), 0
	for d := range n.fit {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.Age(n.rec.midnight(d))
		if d >= n.warm {
			ids := l.seen(n.forgetDays())
			board := n.board(m, ids, d)
			for _, reader := range n.readers {
				came := l.came(reader)
				for i, id := range ids {
					if !came.has(id) && (hashes[id]+uint32(d))%every != 0 {
						continue
					}
					s := tailor.Sample{Came: came.has(id), Weight: 1}
					if !s.Came {
						s.Weight = float64(every)
					}
					_, s.Features = board.Features(n.rec.Victims[reader], i)
					samples = append(samples, s)
				}
			}
		}
		for ; next < len(n.rec.Events) && n.rec.day(n.rec.Events[next]) == d; next++ {
			n.rec.observe(m, n.rec.Events[next])
		}
		l.nextDay()
	}
	n.weights = tailor.Fit(samples, m.Parameters().Weights, strength)
	return nil
}

// hashesOf spreads sources evenly, wherever they stand in a recording.
func hashesOf(sources []muster.Source) []uint32 {
	list := make([]uint32, len(sources))
	var key [muster.SourceSize]byte
	for i, s := range sources {
		h := fnv.New32a()
		_, _ = h.Write(s.AppendBinary(key[:0])) // a hash.Hash never returns an error
		list[i] = h.Sum32()
	}
	return list
}

// board prepares what the model knows at the first moment of a day.
func (n *nextDay) board(m *tailor.Model, sources []int32, d int) *tailor.Board {
	candidates := make([]tailor.Candidate, len(sources))
	for i, s := range sources {
		candidates[i].Source = n.rec.Sources[s]
	}
	return m.Board(candidates, n.rec.midnight(d))
}

func (n *nextDay) forgetDays() int {
	return int(tailor.New(n.cfg.Parameters).Parameters().Forget / (24 * time.Hour))
}

// run measures all methods.
func (n *nextDay) run(ctx context.Context) error {
	p := n.cfg.Parameters
	p.Weights = n.weights
	m, l, next := tailor.New(p), newLedger(n.rec), 0
	ids := make(map[muster.Source]int32, len(n.rec.Sources))
	for i, s := range n.rec.Sources {
		ids[s] = int32(i)
	}
	listed := make([][][]int32, len(n.readers)) // by reader and place in cfg.N
	for i := range listed {
		listed[i] = make([][]int32, len(n.cfg.N))
	}
	n.prepare()
	forget := n.forgetDays()
	for d := range n.rec.Days() {
		if err := ctx.Err(); err != nil {
			return err
		}
		n.cfg.progress("ranking", d, n.rec.Days())
		m.Age(n.rec.midnight(d))
		if d >= n.warm {
			if d == n.fit {
				n.choose()
			}
			ever, recent := l.seen(d), l.seen(forget)
			board := n.board(m, recent, d)
			global := n.measureGlobal(l, ever, recent)
			for i, reader := range n.readers {
				came := l.came(reader)
				n.measureKnown(l, came)
				n.measureBaselines(l, reader, ever, recent, global, came)
				ranking := board.For(n.rec.Victims[reader])
				for k, size := range n.cfg.N {
					list := n.list(ranking, size, listed[i][k], ids)
					n.add(n.hits[ours][k], d, count(list, came))
					n.add(n.churn[k], d, replaced(listed[i][k], list, len(n.rec.Sources)))
					listed[i][k] = list
				}
			}
		}
		for ; next < len(n.rec.Events) && n.rec.day(n.rec.Events[next]) == d; next++ {
			n.rec.observe(m, n.rec.Events[next])
		}
		l.nextDay()
	}
	return nil
}

// list ranks for a reader whose list is old.
func (n *nextDay) list(r *tailor.Ranking, size int, old []int32, ids map[muster.Source]int32) []int32 {
	listed := make([]muster.Source, len(old))
	for i, id := range old {
		listed[i] = n.rec.Sources[id]
	}
	ranked := r.First(size, listed)
	list := make([]int32, len(ranked))
	for i, s := range ranked {
		list[i] = ids[s.Source]
	}
	return list
}

func (n *nextDay) prepare() {
	table := func() []series {
		t := make([]series, len(n.cfg.N))
		for i := range t {
			t[i] = make(series, n.rec.Days())
		}
		return t
	}
	for i := range n.hits {
		n.hits[i] = table()
	}
	n.churn, n.known = table(), make(series, n.rec.Days())
	for range fadings {
		n.options[0] = append(n.options[0], table())
		for range likenesses {
			n.options[1] = append(n.options[1], table())
		}
	}
}

// add adds one reader's number to a day's mean.
func (n *nextDay) add(s series, day int, x float64) { s[day] += x / float64(len(n.readers)) }

func (n *nextDay) measureKnown(l *ledger, came stamps) {
	seen := 0
	for _, source := range came.set {
		if l.last[source] >= 0 {
			seen++
		}
	}
	if len(came.set) > 0 {
		n.add(n.known, l.today, float64(seen)/float64(len(came.set)))
	}
}

// global holds the lists of the baselines that give every reader the same.
type global struct {
	plain []int32
	decay [len(fadings)][]int32
}

func (n *nextDay) measureGlobal(l *ledger, ever, recent []int32) (g global) {
	g.plain = l.top(n.largest(), ever, l.plain)
	for f := range fadings {
		if n.wanted(decay, f, l.today) {
			g.decay[f] = l.top(n.largest(), recent, l.decayed(f))
		}
	}
	return g
}

func (n *nextDay) measureBaselines(l *ledger, reader int32, ever, recent []int32, g global, came stamps) {
	measure := func(into []series, list []int32) {
		for k, size := range n.cfg.N {
			n.add(into[k], l.today, count(list[:min(size, len(list))], came))
		}
	}
	measure(n.hits[plainCount], g.plain)
	measure(n.hits[localCount], l.top(n.largest(), ever, l.local(reader)))
	for f := range fadings {
		if n.wanted(decay, f, l.today) {
			measure(n.options[0][f], g.decay[f])
		}
		for i, like := range likenesses {
			option := f*len(likenesses) + i
			if n.wanted(similarityDecay, option, l.today) {
				measure(n.options[1][option], l.top(n.largest(), recent, l.similar(reader, f, like)))
			}
		}
	}
}

func (n *nextDay) largest() int { return n.cfg.N[len(n.cfg.N)-1] }

// wanted says whether an option is to be measured: on the days to fit on all
// are, then those that were chosen.
func (n *nextDay) wanted(m method, option, day int) bool {
	return day < n.fit || slices.Contains(n.chosen[m-decay], option)
}

// choose takes for the fading baselines and each N what did best on the days to
// fit on.
func (n *nextDay) choose() {
	for i, options := range n.options {
		n.chosen[i] = make([]int, len(n.cfg.N))
		for k := range n.cfg.N {
			best, most := 0, -1.0
			for o := range options {
				if x := mean(options[o][k][n.warm:n.fit]); x > most {
					best, most = o, x
				}
			}
			n.chosen[i][k] = best
			n.hits[decay+method(i)][k] = options[best][k]
		}
	}
}

// stamps is a set of sources.
type stamps struct {
	in  []bool // by source
	set []int32
}

func newStamps(sources int, set []int32) stamps {
	s := stamps{make([]bool, sources), set}
	for _, i := range set {
		s.in[i] = true
	}
	return s
}

func (s stamps) has(source int32) bool { return s.in[source] }

func count(list []int32, came stamps) float64 {
	hits := 0
	for _, s := range list {
		if came.has(s) {
			hits++
		}
	}
	return float64(hits)
}

// replaced is the share of list that was not on old.
func replaced(old, list []int32, sources int) float64 {
	if len(list) == 0 {
		return 0
	}
	return 1 - count(list, newStamps(sources, old))/float64(len(list))
}

func mean(s []float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sum := 0.0
	for _, x := range s {
		sum += x
	}
	return sum / float64(len(s))
}

package tailor

import (
	"bytes"
	"math"
	"slices"
	"time"

	"muster"
)

// Candidate is a source that may be listed.
type Candidate struct {
	Source muster.Source
	// Score is what the network makes of it for this kind of reader: the
	// consensus score times the share of the reader's footprint that the
	// source's behaviours touch. 0: 1. It must not be negative.
	Score float64
}

// Ranked is a source on a list. Score is the log-odds that it comes to the
// reader within a day (of an average honeypot, so use it for order alone).
type Ranked struct {
	Source muster.Source
	Score  float64
}

// Board holds candidates prepared at one moment, to be ranked for many readers.
// It must not outlive the next Age of its Model, and knows nothing of what is
// observed after it was made.
type Board struct {
	model *Model
	rows  []row
	marks []mark
	index map[key]int32
}

// row is a candidate; its features lack those that depend on the reader.
type row struct {
	source        muster.Source
	key           key
	features      Features
	from, mid, to int32 // marks of the source, then those of its network
}

// mark is a sighting faded to the moment of the board.
type mark struct {
	victim                  uint16
	presence, recent, habit float32
}

// Board prepares candidates for ranking; those that are invalid or stood
// earlier in candidates are left out.
func (m *Model) Board(candidates []Candidate, now time.Time) *Board {
	at, overall := minuteOf(now), m.overallReturn()
	b := &Board{model: m, rows: make([]row, 0, len(candidates)), index: make(map[key]int32, len(candidates))}
	for _, c := range candidates {
		k := keyOf(c.Source)
		if _, twice := b.index[k]; twice || !c.Source.IsValid() {
			continue
		}
		b.index[k] = int32(len(b.rows))
		r := row{source: c.Source, key: k, from: int32(len(b.marks))}
		f := &r.features
		if c.Score > 0 {
			f.Global = math.Log(c.Score)
		}
		var seen entry
		unseen, unseenDays := m.p.Forget, m.p.Forget.Hours()/24
		if e := m.sources.find(k); e != nil {
			seen = *e
			unseen, unseenDays = at.since(e.last), float64(max(at, e.last).day()-e.last.day())
			b.add(e, at, m.p.OwnHalfLife, m.p.HabitHalfLife)
		}
		r.mid = int32(len(b.marks))
		if e := m.networks.find(keyOf(muster.SourceFromPrefix(network(c.Source)))); e != nil {
			b.add(e, at, m.p.NetworkHalfLife, m.p.NetworkHalfLife)
		}
		r.to = int32(len(b.marks))
		f.Age = math.Log(0.1 + unseen.Hours()/24)
		f.Lasting = math.Log1p(float64(seen.days) * halved(unseen, m.p.HabitHalfLife))
		f.Waning = f.Age * f.Lasting
		f.Overdue = math.Log((0.5 + unseenDays) / (1 + float64(seen.gap)))
		if seen.gap == 0 {
			f.Once = 1
		}
		f.Return = m.returnOdds(seen.behaviour, overall)
		b.rows = append(b.rows, r)
	}
	return b
}

func (b *Board) add(e *entry, at minute, recent, habit time.Duration) {
	for _, s := range e.sightings {
		presence := halved(at.since(s.last), b.model.p.NeighbourHalfLife)
		s.fade(at, recent, habit)
		b.marks = append(b.marks, mark{s.victim, float32(presence), s.recent, s.habit})
	}
}

// Len returns how many candidates there are.
func (b *Board) Len() int { return len(b.rows) }

// Features returns what is known of the candidate at place i for a reader.
func (b *Board) Features(reader string, i int) (muster.Source, Features) {
	return b.rows[i].source, b.features(&b.rows[i], b.model.reader(reader))
}

func (b *Board) features(r *row, reader int) Features {
	f := r.features
	var others float32
	for _, s := range b.marks[r.from:r.mid] {
		if int(s.victim) == reader {
			f.Own, f.Habit, f.Met = math.Log1p(float64(s.recent)), math.Log1p(float64(s.habit)), 1
		} else {
			others += b.model.similarity.at(reader, s.victim) * s.presence
		}
	}
	if others > 0 {
		f.Neighbours = math.Log1p(float64(others))
	}
	for _, s := range b.marks[r.mid:r.to] {
		if int(s.victim) == reader {
			f.Network = math.Log1p(float64(s.recent))
		}
	}
	return f
}

// Ranking holds the scores of a board's candidates for one reader.
type Ranking struct {
	board  *Board
	scores []float64
}

// For scores all candidates for a reader.
func (b *Board) For(reader string) *Ranking {
	place := b.model.reader(reader)
	r := &Ranking{b, make([]float64, len(b.rows))}
	for i := range b.rows {
		f := b.features(&b.rows[i], place)
		r.scores[i] = b.model.p.Weights.Score(&f)
	}
	return r
}

// Adjust adds to the scores of candidates, by their places on the board. Scores
// are log-odds.
func (r *Ranking) Adjust(by func(i int) float64) {
	for i := range r.scores {
		r.scores[i] += by(i)
	}
}

// First returns at most n sources, best first, each once; equal ones in the
// order of their addresses. listed is what the reader's list holds now: it keeps
// its place against what is hardly better (Hysteresis), without changing the
// scores returned.
func (r *Ranking) First(n int, listed []muster.Source) []Ranked {
	if n <= 0 {
		return nil
	}
	all := make([]scored, len(r.scores))
	for i, s := range r.scores {
		all[i] = scored{s, int32(i)}
	}
	for _, s := range listed {
		if i, ok := r.board.index[keyOf(s)]; ok {
			all[i].order = r.scores[i] + r.board.model.p.Hysteresis
		}
	}
	all = Top(all, n, r.board.compare)
	list := make([]Ranked, len(all))
	for i, s := range all {
		list[i] = Ranked{r.board.rows[s.row].source, r.scores[s.row]}
	}
	return list
}

type scored struct {
	order float64
	row   int32
}

func (b *Board) compare(x, y scored) int {
	switch {
	case x.order > y.order:
		return -1
	case x.order < y.order:
		return 1
	}
	return bytes.Compare(b.rows[x.row].key[:], b.rows[y.row].key[:])
}

// Top returns the first n of all in order, rearranging all: by quickselect, for
// lists are short beside what they are chosen from. No two of all may be equal.
func Top[T any](all []T, n int, compare func(a, b T) int) []T {
	for lo, hi := 0, len(all)-1; n < len(all) && lo < hi; {
		pivot := all[lo+(hi-lo)/2]
		i, j := lo, hi
		for i <= j {
			for compare(all[i], pivot) < 0 {
				i++
			}
			for compare(all[j], pivot) > 0 {
				j--
			}
			if i <= j {
				all[i], all[j] = all[j], all[i]
				i, j = i+1, j-1
			}
		}
		if n <= j {
			hi = j
		} else if n >= i {
			lo = i
		} else {
			break
		}
	}
	all = all[:min(n, len(all))]
	slices.SortFunc(all, compare)
	return all
}

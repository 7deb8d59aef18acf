package tailor

import (
	"bytes"
	"cmp"
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
// It must not outlive the next Observe or Age of its Model.
type Board struct {
	model *Model
	rows  []row
	marks []mark
	index map[key]int32
}

// row is a candidate with all features that are the same for every reader.
type row struct {
	source           muster.Source
	key              key
	age, back, total float64
	from, mid, to    int32 // marks of the source, then those of its network
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
		if c.Score > 0 {
			r.total = math.Log(c.Score)
		}
		var behaviour uint16
		unseen := m.p.Forget
		if e := m.sources.find(k); e != nil {
			unseen, behaviour = at.since(e.last), e.behaviour
			b.add(e, at, m.p.OwnHalfLife, m.p.HabitHalfLife)
		}
		r.mid = int32(len(b.marks))
		if e := m.networks.find(keyOf(muster.SourceFromPrefix(network(c.Source)))); e != nil {
			b.add(e, at, m.p.NetworkHalfLife, m.p.NetworkHalfLife)
		}
		r.to = int32(len(b.marks))
		r.age = math.Log(0.1 + unseen.Hours()/24)
		r.back = m.returnOdds(behaviour, overall)
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

func (b *Board) features(r *row, reader int) (f Features) {
	f.Age, f.Return, f.Global = r.age, r.back, r.total
	var others float32
	for _, s := range b.marks[r.from:r.mid] {
		if int(s.victim) == reader {
			f.Own, f.Habit = math.Log1p(float64(s.recent)), math.Log1p(float64(s.habit))
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

// Rank returns at most n sources for a reader, best first, each once; equal
// ones in the order of their addresses. listed is what the reader's list holds
// now: it keeps its place against what is hardly better (Hysteresis), without
// changing the scores returned.
func (b *Board) Rank(reader string, n int, listed []muster.Source) []Ranked {
	if n <= 0 {
		return nil
	}
	var bonus []bool
	if len(listed) > 0 && b.model.p.Hysteresis > 0 {
		bonus = make([]bool, len(b.rows))
		for _, s := range listed {
			if i, ok := b.index[keyOf(s)]; ok {
				bonus[i] = true
			}
		}
	}
	place := b.model.reader(reader)
	all := make([]scored, len(b.rows))
	for i := range b.rows {
		f := b.features(&b.rows[i], place)
		s := b.model.p.Weights.Score(f)
		all[i] = scored{score: s, order: s, row: int32(i)}
		if bonus != nil && bonus[i] {
			all[i].order += b.model.p.Hysteresis
		}
	}
	best := b.top(all, n)
	list := make([]Ranked, len(best))
	for i, s := range best {
		list[i] = Ranked{b.rows[s.row].source, s.score}
	}
	return list
}

type scored struct {
	order, score float64
	row          int32
}

func (b *Board) before(x, y scored) int {
	if c := cmp.Compare(y.order, x.order); c != 0 {
		return c
	}
	return bytes.Compare(b.rows[x.row].key[:], b.rows[y.row].key[:])
}

// top returns the first n of all in order. It rearranges all, by quickselect:
// lists are short beside what they are chosen from.
func (b *Board) top(all []scored, n int) []scored {
	for lo, hi := 0, len(all)-1; n < len(all) && lo < hi; {
		pivot := all[lo+(hi-lo)/2]
		i, j := lo, hi
		for i <= j {
			for b.before(all[i], pivot) < 0 {
				i++
			}
			for b.before(all[j], pivot) > 0 {
				j--
			}
			if i <= j {
				all[i], all[j] = all[j], all[i]
				i, j = i+1, j-1
			}
		}
		switch {
		case n <= j:
			hi = j
		case n >= i:
			lo = i
		default:
			lo = hi // all between are equal
		}
	}
	all = all[:min(n, len(all))]
	slices.SortFunc(all, b.before)
	return all
}

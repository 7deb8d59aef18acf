package tailor

import (
	"cmp"
	"math"
	"slices"
	"time"

	"muster"
)

// minute counts minutes since 1970: half the memory of a time.Time's seconds,
// and as exact as half-lives of days need.
type minute uint32

func minuteOf(t time.Time) minute {
	return minute(min(max(t.Unix()/60, 0), math.MaxUint32))
}

func (m minute) hour() minute { return m / 60 }
func (m minute) day() minute  { return m / (24 * 60) }

// since is the time from an earlier minute, never negative.
func (m minute) since(earlier minute) time.Duration {
	if earlier >= m {
		return 0
	}
	return time.Duration(m-earlier) * time.Minute
}

// halved is what is left of 1 after d.
func halved(d, halfLife time.Duration) float64 {
	return math.Exp2(-float64(d) / float64(halfLife))
}

// key is a source as a map key without pointers, so that the garbage collector
// has nothing to look for in a map of a million.
type key [muster.SourceSize]byte

func keyOf(s muster.Source) (k key) {
	s.AppendBinary(k[:0])
	return k
}

// sighting sums up what one victim saw of a source, as of the last time.
type sighting struct {
	recent float32 // hours with reports, faded
	habit  float32 // days with reports, faded
	last   minute
	victim uint16
}

// fade brings s to the time at.
func (s *sighting) fade(at minute, recent, habit time.Duration) {
	d := at.since(s.last)
	s.recent *= float32(halved(d, recent))
	s.habit *= float32(halved(d, habit))
	s.last = max(s.last, at)
}

// entry is what is remembered of a source or network.
type entry struct {
	key       key
	used      bool
	behaviour uint16  // of the last sighting
	last      minute  // of all sightings
	days      float32 // with sightings, faded as of last
	gap       float32 // usual, between such days, in days; 0 when there was one alone
	sightings []sighting
}

// visited notes that e was seen at a time on a day that is later than its last.
func (e *entry) visited(at minute, habit time.Duration) {
	const recent = 0.3 // weight of the latest gap
	if gap := float32(at.day() - e.last.day()); e.gap == 0 {
		e.gap = gap
	} else {
		e.gap += recent * (gap - e.gap)
	}
	e.days = e.days*float32(halved(at.since(e.last), habit)) + 1
}

// at returns victim's sighting, making room for a new one at the expense of the
// oldest when there are limit.
func (e *entry) at(victim uint16, now minute, limit int) *sighting {
	oldest := 0
	for i := range e.sightings {
		if e.sightings[i].victim == victim {
			return &e.sightings[i]
		}
		if e.sightings[i].last < e.sightings[oldest].last {
			oldest = i
		}
	}
	fresh := sighting{victim: victim, last: now}
	if len(e.sightings) == limit {
		e.sightings[oldest] = fresh
		return &e.sightings[oldest]
	}
	if len(e.sightings) == cap(e.sightings) { // append would double, and most have one or two
		e.sightings = slices.Grow(slices.Clip(e.sightings), 1+len(e.sightings)/2)
	}
	e.sightings = append(e.sightings, fresh)
	return &e.sightings[len(e.sightings)-1]
}

// table keeps entries in an order that depends on nothing but the sightings,
// unlike that of a map.
type table struct {
	index   map[key]int32
	entries []entry
	free    []int32
	limit   int
}

func newTable(limit int) table { return table{index: map[key]int32{}, limit: limit} }

// get returns the entry for k, a new one if there is none; known says which. It
// is valid until the next call.
func (t *table) get(k key) (e *entry, known bool) {
	if i, ok := t.index[k]; ok {
		return &t.entries[i], true
	}
	if len(t.index) >= t.limit {
		t.makeRoom()
	}
	i := int32(len(t.entries))
	if n := len(t.free); n > 0 {
		i, t.free = t.free[n-1], t.free[:n-1]
	} else {
		t.entries = append(t.entries, entry{})
	}
	t.index[k] = i
	t.entries[i] = entry{key: k, used: true, days: 1, sightings: t.entries[i].sightings[:0]}
	return &t.entries[i], false
}

// find returns the entry for k, or nil.
func (t *table) find(k key) *entry {
	if i, ok := t.index[k]; ok {
		return &t.entries[i]
	}
	return nil
}

func (t *table) remove(i int32) {
	delete(t.index, t.entries[i].key)
	t.entries[i] = entry{sightings: t.entries[i].sightings[:0]}
	t.free = append(t.free, i)
}

func (t *table) forget(now minute, after time.Duration) {
	for i := range t.entries {
		if e := &t.entries[i]; e.used && now.since(e.last) > after {
			t.remove(int32(i))
		}
	}
}

// makeRoom drops a sixteenth of the entries, those not seen for longest, so that
// a full table costs little per newcomer.
func (t *table) makeRoom() {
	oldest := make([]int32, 0, len(t.index))
	for i := range t.entries {
		if t.entries[i].used {
			oldest = append(oldest, int32(i))
		}
	}
	slices.SortFunc(oldest, func(a, b int32) int {
		return cmp.Or(cmp.Compare(t.entries[a].last, t.entries[b].last), cmp.Compare(a, b))
	})
	for _, i := range oldest[:len(oldest)/16+1] {
		t.remove(i)
	}
}

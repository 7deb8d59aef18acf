package history

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"

	"muster"
)

// chunkAlerts is how many alerts a chunk has.
const chunkAlerts = 1 << muster.SieveChunkBits

// columns are what is searched of all alerts, in memory: two bytes and two bits of
// each. A search that finds little goes through all of them, which for five
// million takes some milliseconds; no set of indexes can bound that for every
// combination of filters.
type columns struct {
	mu     sync.RWMutex
	chunks []*chunk // by number
	first  int64    // alerts below are on their way out
}

// chunk is the columns of some alerts behind each other.
type chunk struct {
	number     int64
	dict       []uint32 // combos that occur
	rows       []uint16 // of each alert the place of its combo in dict
	filtered   bitmap
	forwarded  bitmap
	replicated bitmap
	min, max   int64 // received
	sealed     bool  // it is stored

	// Of chunks that were begun last.
	places map[uint32]uint16 // of combos in dict
	times  []int64           // received
	refs   []ref
	prints []uint64
}

// bitmap has a bit for each alert of a chunk, or none at all.
type bitmap []uint64

func (b bitmap) has(i int) bool { return i>>6 < len(b) && b[i>>6]&(1<<(i&63)) != 0 }

func (b *bitmap) set(i int) {
	for len(*b) <= i>>6 {
		*b = append(*b, 0)
	}
	(*b)[i>>6] |= 1 << (i & 63)
}

func (b bitmap) word(i int) uint64 {
	if i < len(b) {
		return b[i]
	}
	return 0
}

func newChunk(number int64) *chunk {
	return &chunk{number: number, places: map[uint32]uint16{}}
}

// id returns the number of an alert by its place.
func (c *chunk) id(row int) int64 { return c.number<<muster.SieveChunkBits + int64(row) }

// add appends an alert.
func (c *chunk) add(s *stored, print uint64) {
	row := len(c.rows)
	place, ok := c.places[s.combo]
	if !ok {
		place = uint16(len(c.dict)) // there are no more combos than alerts
		c.places[s.combo] = place
		c.dict = append(c.dict, s.combo)
	}
	c.rows = append(c.rows, place)
	if s.flags&flagFiltered != 0 {
		c.filtered.set(row)
	}
	if s.forwarded != 0 {
		c.forwarded.set(row)
	}
	if s.flags&flagReplicated != 0 {
		c.replicated.set(row)
	}
	if row == 0 || s.received < c.min {
		c.min = s.received
	}
	if row == 0 || s.received > c.max {
		c.max = s.received
	}
	c.times = append(c.times, s.received)
	c.refs = append(c.refs, s.ref)
	c.prints = append(c.prints, print)
}

// forget lets go of what only the latest chunks need.
func (c *chunk) forget() { c.places, c.times, c.refs, c.prints = nil, nil, nil, nil }

// filter is what alerts are searched for; nil and zero select all.
type filter struct {
	combos       []bool // by number
	filtered     *bool
	forwarded    *bool
	since, until int64 // received, both inclusive; until 0 = no end
}

// overlaps reports whether a chunk can have what is searched for, and whether the
// times of its alerts must be looked at.
func (f *filter) overlaps(c *chunk) (may, times bool) {
	if len(c.rows) == 0 || c.max < f.since || f.until != 0 && c.min > f.until {
		return false, false
	}
	return true, c.min < f.since || f.until != 0 && c.max > f.until
}

// places returns which places of the chunk's dict are searched for; nil = all, and
// any is false when there is none.
func (f *filter) places(c *chunk) (wanted []bool, any bool) {
	if f.combos == nil {
		return nil, true
	}
	wanted = make([]bool, len(c.dict))
	for i, combo := range c.dict {
		if int(combo) < len(f.combos) && f.combos[combo] {
			wanted[i], any = true, true
		}
	}
	return wanted, any
}

// word returns which of 64 alerts have the flags and times searched for. Alerts
// that came after times were taken are left out.
func (f *filter) word(c *chunk, w int, times []int64) uint64 {
	m, n := ^uint64(0), len(c.rows)
	if times != nil {
		n = min(n, len(times))
	}
	if left := n - w<<6; left <= 0 {
		return 0
	} else if left < 64 {
		m = 1<<left - 1
	}
	if f.filtered != nil {
		if *f.filtered {
			m &= c.filtered.word(w)
		} else {
			m &^= c.filtered.word(w)
		}
	}
	if f.forwarded != nil {
		if *f.forwarded {
			m &= c.forwarded.word(w)
		} else {
			m &^= c.forwarded.word(w)
		}
	}
	if times != nil && m != 0 {
		for i, at := range times[w<<6 : min(w<<6+64, n)] {
			if at < f.since || f.until != 0 && at > f.until {
				m &^= 1 << i
			}
		}
	}
	return m
}

// page is which of the alerts that are found are wanted.
type page struct {
	skip, limit int
	ids         []int64
}

func (p *page) full() bool { return len(p.ids) >= p.limit }

func (p *page) add(id int64) {
	if p.skip > 0 {
		p.skip--
		return
	}
	p.ids = append(p.ids, id)
}

// search adds the alerts of a chunk that are searched for, latest first.
func (f *filter) search(c *chunk, times []int64, first int64, p *page) {
	wanted, any := f.places(c)
	if !any {
		return
	}
	for w := (len(c.rows) - 1) >> 6; w >= 0 && !p.full(); w-- {
		m := f.word(c, w, times)
		if id := c.id(w << 6); id < first {
			if id+63 < first {
				return
			}
			m &= ^uint64(0) << (first - id)
		}
		if wanted == nil && p.skip >= 64 { // a page far down
			p.skip -= bits.OnesCount64(m)
			continue
		}
		for ; m != 0 && !p.full(); m &^= 1 << (bits.Len64(m) - 1) {
			row := w<<6 + bits.Len64(m) - 1
			if wanted == nil || wanted[c.rows[row]] {
				p.add(c.id(row))
			}
		}
	}
}

// among adds those of ids, latest first, that are searched for.
func (f *filter) among(c *chunk, ids []int64, times []int64, first int64, p *page) {
	wanted, any := f.places(c)
	if !any {
		return
	}
	for _, id := range ids {
		row := int(id & (chunkAlerts - 1))
		if id < first || row >= len(c.rows) || p.full() {
			continue
		}
		if f.word(c, row>>6, times)&(1<<(row&63)) != 0 && (wanted == nil || wanted[c.rows[row]]) {
			p.add(id)
		}
	}
}

// chunkOf returns the chunk of an alert, nil when there is none.
func (cs *columns) chunkOf(id int64) *chunk {
	number := id >> muster.SieveChunkBits
	lo, hi := 0, len(cs.chunks)
	for lo < hi {
		if mid := (lo + hi) / 2; cs.chunks[mid].number < number {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(cs.chunks) && cs.chunks[lo].number == number {
		return cs.chunks[lo]
	}
	return nil
}

// insert puts a chunk in its place.
func (cs *columns) insert(c *chunk) {
	i := len(cs.chunks)
	for i > 0 && cs.chunks[i-1].number > c.number {
		i--
	}
	cs.chunks = append(cs.chunks, nil)
	copy(cs.chunks[i+1:], cs.chunks[i:])
	cs.chunks[i] = c
}

// has reports whether there is an alert of a number.
func (cs *columns) has(id int64) bool {
	c := cs.chunkOf(id)
	return c != nil && id >= cs.first && int(id&(chunkAlerts-1)) < len(c.rows)
}

// chunkVersion leads the stored form of a chunk.
const chunkVersion = 1

// encode returns the stored form of a chunk whose times and prints are known.
func (c *chunk) encode(p *packer) muster.SieveChunk {
	b := []byte{chunkVersion}
	b = binary.AppendVarint(b, c.min)
	b = binary.AppendVarint(b, c.max)
	b = binary.AppendUvarint(b, uint64(len(c.dict)))
	for _, combo := range c.dict {
		b = binary.AppendUvarint(b, uint64(combo))
	}
	b = binary.AppendUvarint(b, uint64(len(c.rows)))
	for _, place := range c.rows {
		b = binary.LittleEndian.AppendUint16(b, place)
	}
	b = appendBitmap(b, c.filtered)
	var times, prints []byte
	last := int64(0)
	for _, at := range c.times {
		times = binary.AppendVarint(times, at-last)
		last = at
	}
	for _, print := range c.prints {
		prints = binary.LittleEndian.AppendUint64(prints, print)
	}
	return muster.SieveChunk{Number: c.number, Columns: p.pack(b), Marks: c.encodeMarks(p), Times: p.pack(times), Prints: prints}
}

func (c *chunk) encodeMarks(p *packer) []byte {
	return p.pack(appendBitmap(appendBitmap([]byte{chunkVersion}, c.forwarded), c.replicated))
}

func appendBitmap(b []byte, m bitmap) []byte {
	b = binary.AppendUvarint(b, uint64(len(m)))
	for _, word := range m {
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	return b
}

func (c *cursor) varint() int64 {
	n, size := binary.Varint(c.data)
	if c.bad || size <= 0 {
		c.bad = true
		return 0
	}
	c.data = c.data[size:]
	return n
}

func (c *cursor) bitmap() bitmap {
	n := c.uvarint()
	if n > chunkAlerts/64 {
		c.bad = true
		return nil
	}
	m := make(bitmap, n)
	for i := range m {
		if b := c.take(8); len(b) == 8 {
			m[i] = binary.LittleEndian.Uint64(b)
		}
	}
	return m
}

// decodeChunk is the reverse of encode, without times and prints.
func decodeChunk(stored muster.SieveChunk, p *packer) (*chunk, error) {
	plain, err := p.unpack(stored.Columns, nil)
	if err != nil {
		return nil, err
	}
	marks, err := p.unpack(stored.Marks, nil)
	if err != nil {
		return nil, err
	}
	c := &chunk{number: stored.Number, sealed: true}
	from, marked := cursor{data: plain}, cursor{data: marks}
	if v, w := from.byte(), marked.byte(); v != chunkVersion || w != chunkVersion {
		return nil, fmt.Errorf("expected a chunk of alerts of version %d, got %d and %d: written by a newer release?", chunkVersion, v, w)
	}
	c.min, c.max = from.varint(), from.varint()
	n := min(from.uvarint(), chunkAlerts)
	c.dict = make([]uint32, n)
	for i := range c.dict {
		c.dict[i] = uint32(from.uvarint())
	}
	n = min(from.uvarint(), chunkAlerts)
	rows := from.take(2 * n)
	c.rows = make([]uint16, len(rows)/2)
	for i := range c.rows {
		c.rows[i] = binary.LittleEndian.Uint16(rows[2*i:])
		from.bad = from.bad || int(c.rows[i]) >= len(c.dict)
	}
	c.filtered = from.bitmap()
	c.forwarded, c.replicated = marked.bitmap(), marked.bitmap()
	if from.bad || marked.bad || len(c.rows) == 0 {
		return nil, fmt.Errorf("the chunk %d of alerts is damaged", stored.Number)
	}
	return c, nil
}

// decodeTimes is the reverse of encode for times.
func decodeTimes(data []byte, n int, p *packer) ([]int64, error) {
	plain, err := p.unpack(data, nil)
	if err != nil {
		return nil, err
	}
	from, last := cursor{data: plain}, int64(0)
	times := make([]int64, n)
	for i := range times {
		last += from.varint()
		times[i] = last
	}
	if from.bad || len(from.data) > 0 {
		return nil, fmt.Errorf("the times of %d alerts are damaged", n)
	}
	return times, nil
}

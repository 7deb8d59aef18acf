package publish

import (
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"muster"
)

// set is what is published for one audience: rows in one dense slice, found by
// the binary form of their source, so that a million of them cost little and hold
// no pointers. Rows that are sent stand in the blocks of their bucket. A set is
// guarded by Publisher.mu.
type set struct {
	most  int // rows in a block
	rows  []row
	free  []uint32       // slots of rows that are not used
	index map[key]uint32 // slots
	masks [129]uint32    // listed rows by prefix length of the 128-bit form: what a look-up must try

	buckets     map[bucketKey]uint32
	bucketList  []*bucket
	freeBuckets []uint32
	blocks      []*block
	freeBlocks  []uint32

	withdrawn map[key]withdrawal
	layout    uint64 // grows when rows change their blocks
	ranges    uint64 // grows when a range changes that may stand for others

	// These are read without the mutex.
	bans        atomic.Int64  // rows that engines are sent
	version     atomic.Uint64 // grows with every change of what is published or withdrawn
	withdrawals atomic.Uint64 // grows with every change of what is withdrawn
}

// key is the binary form of a source.
type key [muster.SourceSize]byte

func keyOf(s muster.Source) (k key) {
	s.AppendBinary(k[:0])
	return k
}

func (k *key) source() muster.Source {
	s, err := muster.SourceFromBinary(k[:])
	if err != nil {
		panic(err) // only keyOf makes keys
	}
	return s
}

// bits is the prefix length in the 128-bit form; 0 is no source that is
// published.
func (k *key) bits() int { return int(k[muster.SourceSize-1]) }

// is4 reports whether the source is an IPv4 one.
func (k *key) is4() bool {
	return [12]byte(k[:12]) == [12]byte{10: 0xff, 11: 0xff}
}

// around returns the range around k that may stand for it: the /24 of an
// address, the /56 of a v6 /64.
func (k key) around() (key, bool) {
	bits := 56
	if k.is4() {
		bits = 96 + 24
	}
	if k.bits() <= bits {
		return key{}, false
	}
	return k.masked(bits), true
}

// masked returns the range of bits (of the 128-bit form) around k.
func (k key) masked(bits int) key {
	for i := range 16 {
		switch left := bits - 8*i; {
		case left <= 0:
			k[i] = 0
		case left < 8:
			k[i] &= 0xff << (8 - left)
		}
	}
	k[16] = byte(bits)
	return k
}

// row is one listed source.
type row struct {
	key    key
	bucket uint32
	block  uint32 // noBlock for what is not sent to engines
	since  uint32 // when it was listed, Unix seconds, rounded down; 0 = not known
	until  uint32 // the end, likewise
	rank   float32
}

const noBlock = math.MaxUint32

// bucketKey is what the rows of a bucket have in common.
type bucketKey struct {
	scenario string
	wide     bool // ranges
	remedy   muster.Remedy
}

// bucket holds the rows of one scenario, scope and remedy in blocks, best first;
// the first may be one of newcomers.
type bucket struct {
	bucketKey
	behaviour, service string
	rows               int
	blocks             []uint32
	moved              bool // has changed since the last ranking
}

// sent reports whether engines are sent the rows of b: the decision stream
// carries bans alone.
func (b *bucket) sent() bool { return b.remedy == muster.RemedyBan }

func (b *bucket) scope() string {
	if b.wide {
		return "range"
	}
	return "ip"
}

// withdrawal is a source that was withdrawn before the end that readers were told.
type withdrawal struct {
	until uint32 // when engines drop it by themselves, Unix seconds, rounded up
	at    uint32 // since when it is withdrawn
}

func newSet(most int) *set {
	return &set{most: most, index: map[key]uint32{}, buckets: map[bucketKey]uint32{}, withdrawn: map[key]withdrawal{}}
}

// rankHalfLife is how much older the last report on a source of double the points
// may be for both to rank the same.
const rankHalfLife = 48 * time.Hour

var rankEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// rankOf weighs a verdict: the binary logarithm of its points, the support and a
// quarter for each independent group, plus the half-lives between an epoch and its
// last report. As that fades all scores alike, an order by rank never changes by
// time alone, and only what was judged anew needs another place.
func rankOf(v *muster.Verdict) float32 {
	last := v.Changed
	if v.Reasons.Last > 0 {
		last = time.Unix(v.Reasons.Last, 0)
	}
	points := max(float64(v.Reasons.Support)+0.25*float64(v.Reasons.Independent), 1)
	return float32(math.Log2(points) + last.Sub(rankEpoch).Hours()/rankHalfLife.Hours())
}

// score is what is left at now of the points that a rank was made of.
func score(rank float32, now time.Time) float32 {
	return float32(math.Exp2(float64(rank) - now.Sub(rankEpoch).Hours()/rankHalfLife.Hours()))
}

// put lists or changes a source; it reports whether anything is different.
func (s *set) put(k key, b bucketKey, since, until uint32, rank float32) bool {
	slot, known := s.index[k]
	if known {
		r := &s.rows[slot]
		r.since = since
		if s.bucketList[r.bucket].bucketKey == b {
			if r.until == until {
				s.rerank(r, rank)
				return false
			}
			s.rerank(r, rank)
			r.until = until
			s.touch(r)
			return true
		}
		s.remove(k)
	}
	if n := len(s.free); n > 0 {
		slot, s.free = s.free[n-1], s.free[:n-1]
	} else {
		slot = uint32(len(s.rows))
		s.rows = append(s.rows, row{})
	}
	id := s.bucketFor(b)
	s.rows[slot] = row{key: k, bucket: id, block: noBlock, since: since, until: until, rank: rank}
	s.index[k] = slot
	s.masks[k.bits()]++
	bk := s.bucketList[id]
	bk.rows++
	if bk.sent() {
		s.bans.Add(1)
		s.addFresh(id, slot)
	}
	return true
}

// remove takes a source off; it reports whether it was listed.
func (s *set) remove(k key) bool {
	slot, ok := s.index[k]
	if !ok {
		return false
	}
	r := &s.rows[slot]
	id, b := r.bucket, s.bucketList[r.bucket]
	if r.block != noBlock {
		s.blocks[r.block].drop(slot, r.rank)
		s.bans.Add(-1)
		b.moved = true
	}
	delete(s.index, k)
	s.masks[k.bits()]--
	*r = row{block: noBlock}
	s.free = append(s.free, slot)
	if b.rows--; b.rows == 0 {
		for _, id := range b.blocks {
			s.freeBlock(id)
		}
		delete(s.buckets, b.bucketKey)
		s.bucketList[id] = nil
		s.freeBuckets = append(s.freeBuckets, id)
	}
	return true
}

func (s *set) bucketFor(k bucketKey) uint32 {
	id, ok := s.buckets[k]
	if ok {
		return id
	}
	b := &bucket{bucketKey: k}
	if n := len(s.freeBuckets); n > 0 {
		id, s.freeBuckets = s.freeBuckets[n-1], s.freeBuckets[:n-1]
		s.bucketList[id] = b
	} else {
		id = uint32(len(s.bucketList))
		s.bucketList = append(s.bucketList, b)
	}
	s.buckets[k] = id
	return id
}

// touch makes what holds r be encoded anew.
func (s *set) touch(r *row) {
	if r.block != noBlock {
		s.blocks[r.block].changes++
	}
}

// listed returns the row of a source, nil when there is none.
func (s *set) listed(k key) *row {
	if slot, ok := s.index[k]; ok {
		return &s.rows[slot]
	}
	return nil
}

// standsFor returns the row of the range that says as much as r in one line: it
// is around r, is sent, and lasts as long.
func (s *set) standsFor(r *row) *row {
	k, ok := r.key.around()
	if !ok || s.masks[k.bits()] == 0 {
		return nil
	}
	if wide := s.listed(k); wide != nil && wide.block != noBlock && wide.until >= r.until {
		return wide
	}
	return nil
}

// touchMembers makes the blocks be encoded anew that hold members of ranges.
func (s *set) touchMembers(ranges map[key]struct{}) {
	s.ranges++
	for i := range s.rows {
		r := &s.rows[i]
		if r.block == noBlock {
			continue
		}
		if k, ok := r.key.around(); ok {
			if _, changed := ranges[k]; changed {
				s.touch(r)
			}
		}
	}
}

// find returns the row of an address, or of the narrowest listed range around it
// for which take says yes.
func (s *set) find(addr netip.Addr, take func(*row) bool) *row {
	k := keyOf(muster.SourceFromAddr(addr))
	least := 1
	if k.is4() {
		least = 96
	}
	for bits := 128; bits >= least; bits-- {
		if s.masks[bits] == 0 {
			continue
		}
		if r := s.listed(k.masked(bits)); r != nil && take(r) {
			return r
		}
	}
	return nil
}

// lapse takes off what ended by now, and forgets withdrawals that do not matter
// any more; it reports whether there were any.
func (s *set) lapse(now time.Time) bool {
	at, changed := uint32(now.Unix()), false
	for i := range s.rows {
		if r := &s.rows[i]; r.key != (key{}) && r.until <= at {
			s.remove(r.key)
			changed = true
		}
	}
	for k, w := range s.withdrawn {
		if w.until <= at {
			delete(s.withdrawn, k)
			s.withdrawals.Add(1)
			changed = true
		}
	}
	return changed
}

// wide reports whether k may stand for others.
func (k *key) wide() bool {
	if k.is4() {
		return k.bits() == 96+24
	}
	return k.bits() == 56
}

package misuse

import (
	"encoding/binary"
	"math/bits"
	"sync"
)

const shardCount = 64

// table is a bounded map in shards, each of which knows the order in which its
// records were last touched, to within a 16th of the window: to move a record
// costs more than all else that a contact does.
type table[K comparable, V any] struct {
	shards [shardCount]shard[K, V]
}

type shard[K comparable, V any] struct {
	mu      sync.Mutex
	records map[K]*record[K, V]
	ends    record[K, V] // its next is the newest record, its prev the oldest
	max     int
	evicted uint64

	_ [64]byte // keeps neighbours' locks off the same cache line
}

type record[K comparable, V any] struct {
	last  int64 // Unix ms of the last contact
	moved int64 // that at which it last became the newest
	key   K
	v     V

	prev, next *record[K, V]
}

func newTable[K comparable, V any](limit int) *table[K, V] {
	t := &table[K, V]{}
	for i := range t.shards {
		s := &t.shards[i]
		s.max = (limit + shardCount - 1) / shardCount
		s.records = make(map[K]*record[K, V])
		s.ends.prev, s.ends.next = &s.ends, &s.ends
	}
	return t
}

func (t *table[K, V]) shard(hash uint64) *shard[K, V] { return &t.shards[hash%shardCount] }

// get returns the record of key, or nil.
func (s *shard[K, V]) get(key K) *record[K, V] { return s.records[key] }

// add makes a record for key, which has none. Two records whose last contact
// was before expired go with each that comes, so that memory follows need; when
// the shard is full, the oldest goes whatever its age.
func (s *shard[K, V]) add(key K, expired int64) *record[K, V] {
	for range 2 {
		if oldest := s.ends.prev; oldest != &s.ends && oldest.last < expired {
			s.remove(oldest)
		}
	}
	if len(s.records) >= s.max {
		s.remove(s.ends.prev)
		s.evicted++
	}
	r := &record[K, V]{key: key}
	s.records[key] = r
	s.link(r)
	return r
}

// touch notes a contact and returns the time to reckon with: that of
// the last contact when the clock has gone back a little; by more than the
// window, and the record starts afresh.
func (r *record[K, V]) touch(s *shard[K, V], at, window int64) int64 {
	switch {
	case r.last-at > window && r.last != 0:
		var none V
		r.v = none
	case at < r.last:
		at = r.last
	}
	r.last = at
	if d := at - r.moved; d > window/16 || d < 0 {
		r.moved = at
		r.unlink()
		s.link(r)
	}
	return at
}

func (s *shard[K, V]) link(r *record[K, V]) {
	r.prev, r.next = &s.ends, s.ends.next
	r.prev.next, r.next.prev = r, r
}

func (r *record[K, V]) unlink() {
	r.prev.next, r.next.prev = r.next, r.prev
}

func (s *shard[K, V]) remove(r *record[K, V]) {
	r.unlink()
	delete(s.records, r.key)
}

// each calls f with each record, from the newest to the oldest of a shard,
// whose lock it holds meanwhile. f may remove the record.
func (t *table[K, V]) each(f func(*shard[K, V], *record[K, V])) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for r := s.ends.next; r != &s.ends; {
			next := r.next
			f(s, r)
			r = next
		}
		s.mu.Unlock()
	}
}

func (t *table[K, V]) stats() (kept int, evicted uint64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		kept, evicted = kept+len(s.records), evicted+s.evicted
		s.mu.Unlock()
	}
	return kept, evicted
}

// hashString spreads names over the shards by a secret.
func hashString(seed uint64, name string) uint64 {
	h := seed ^ uint64(len(name))
	for ; len(name) >= 8; name = name[8:] {
		h = mix(h, binary.LittleEndian.Uint64([]byte(name[:8])))
	}
	var rest [8]byte
	copy(rest[:], name)
	return mix(h, binary.LittleEndian.Uint64(rest[:]))
}

func mix(h, x uint64) uint64 {
	hi, lo := bits.Mul64(h^0x9e3779b97f4a7c15, x^0xd1b54a32d192ed03)
	return hi ^ lo
}

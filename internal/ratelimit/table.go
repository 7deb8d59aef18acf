package ratelimit

import (
	"math/bits"
	"net/netip"
	"sync"
)

// ExactThreshold is the highest threshold that is counted to the millisecond,
// by the time of each event. Above it events are counted in slices of a 23rd of
// the window: never more than the threshold passes in any window, but an event
// counts up to one slice (4.4 %) longer than the window.
const ExactThreshold = cells

const (
	shardCount = 256
	chunkSize  = 64 // slots allocated at a time
	groupSize  = 8  // slots looked at together for one to give up; divides chunkSize
	cells      = 24

	noSlot = ^uint32(0)
)

// counterKey names a counter: which limit's, and whose. Addresses stand as they
// are, so that Forget finds them; names by a SHA-256 cut to what fits.
type counterKey struct {
	hi, lo uint64
	id     uint32
	family family
}

type family uint8

const (
	byName family = iota + 1 // no address in the key
	byV4                     // hi is a v4 address
	byV6                     // hi is a v6 /64
)

// slot is one counter: 128 bytes, two cache lines, no pointers. The fields of
// its key stand apart because a counterKey would be padded.
type slot struct {
	hi, lo  uint64
	id      uint32
	family  family // 0: free, and lo is the next free slot
	head, n uint8  // exact: the ring of times in cell
	weight  uint8  // nearness to the threshold at the last event, 255 = reached
	ends    int64  // Unix ms at which its last event stops to count
	cell    [cells]uint32
}

func (s *slot) key() counterKey { return counterKey{s.hi, s.lo, s.id, s.family} }

// shard is a part of the table: an index by open addressing into slots. All
// its work is bounded: growing or shrinking moves a few thousand entries.
type shard struct {
	mu      sync.Mutex
	index   []uint32 // 16 bits of hash, 16 bits of slot number plus one; 0: empty
	chunks  [][]slot
	free    uint32 // head of the list of free slots
	live    int
	hand    int // next group to look through
	evicted uint64

	_ [32]byte // keeps neighbours' locks off the same cache line
}

// table holds at most shardCount × perShard counters.
//
// When a shard is full, a newcomer takes the place of another counter: a hand
// goes round the groups of eight slots, and in the group at hand an expired
// counter goes, or else the one farthest from its threshold, among equals the
// oldest. So a flood of addresses that come once pushes out its own kind, first
// in first out, and to displace a client that is at n of its events, each of
// seven other addresses in its group must have spent n too. What the policy
// cannot do: under a flood faster than the table's size per interval between a
// client's events, a client that comes that seldom is never counted past one.
type table struct {
	shards   [shardCount]shard
	perShard int
	seed     uint64
}

func newTable(maxKeys int, seed uint64) *table {
	t := &table{
		// The index has 16 bits for a slot's number plus one.
		perShard: min(max((maxKeys+shardCount-1)/shardCount, groupSize), 1<<16-chunkSize),
		seed:     seed,
	}
	for i := range t.shards {
		t.shards[i].free = noSlot
	}
	return t
}

// hash spreads keys by a secret, so that nobody can aim at one shard.
func (t *table) hash(k *counterKey) uint64 {
	h, l := bits.Mul64(k.hi^t.seed^0x9e3779b97f4a7c15, k.lo^bits.RotateLeft64(t.seed, 32)^0xd1b54a32d192ed03)
	h, l = bits.Mul64(h^l^uint64(k.id)^uint64(k.family)<<32, t.seed|1)
	h ^= l
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>32
}

func (t *table) shard(hash uint64) *shard { return &t.shards[hash>>56] }

func (s *shard) at(i uint32) *slot { return &s.chunks[i/chunkSize][i%chunkSize] }

func tag(hash uint64) uint32 { return uint32(hash>>32) << 16 }

// lookup returns the position in the index and the slot of k, or noSlot.
func (s *shard) lookup(k *counterKey, hash uint64) (pos int, found uint32) {
	if len(s.index) == 0 {
		return 0, noSlot
	}
	mask := len(s.index) - 1
	for pos = int(hash) & mask; ; pos = (pos + 1) & mask {
		e := s.index[pos]
		if e == 0 {
			return pos, noSlot
		}
		if e&0xffff0000 == tag(hash) {
			if i := e&0xffff - 1; s.at(i).key() == *k {
				return pos, i
			}
		}
	}
}

// insert gives k, which is not there, a zero slot.
func (t *table) insert(s *shard, k *counterKey, hash uint64, nowMs int64) *slot {
	t.makeRoom(s, nowMs)
	if (s.live+1)*4 > len(s.index)*3 {
		t.reindex(s, max(16, len(s.index)*2))
	}
	i := s.free
	sl := s.at(i)
	s.free = uint32(sl.lo)
	*sl = slot{hi: k.hi, lo: k.lo, id: k.id, family: k.family}
	pos, _ := s.lookup(k, hash)
	s.index[pos] = tag(hash) | (i + 1)
	s.live++
	return sl
}

// makeRoom sees to it that a slot is free, and gives back what has expired in
// one group on the way.
func (t *table) makeRoom(s *shard, nowMs int64) {
	victim := t.look(s, nowMs)
	switch {
	case s.free != noSlot:
	case len(s.chunks)*chunkSize < t.perShard:
		s.chunks = append(s.chunks, make([]slot, chunkSize))
		s.link(len(s.chunks) - 1)
	default:
		t.remove(s, victim)
		s.evicted++
	}
}

// look frees what has expired in the group at hand, moves the hand on, and
// returns the slot of the group that is to go if one must.
func (t *table) look(s *shard, nowMs int64) (victim uint32) {
	groups := len(s.chunks) * chunkSize / groupSize
	if groups == 0 {
		return noSlot
	}
	s.hand = (s.hand + 1) % groups
	victim = noSlot
	for i := uint32(s.hand * groupSize); i < uint32((s.hand+1)*groupSize); i++ {
		sl := s.at(i)
		switch {
		case sl.family == 0:
		case sl.ends <= nowMs:
			t.remove(s, i)
		case victim == noSlot, sl.weight < s.at(victim).weight,
			sl.weight == s.at(victim).weight && sl.ends < s.at(victim).ends:
			victim = i
		}
	}
	return victim
}

// link puts the slots of a new chunk on the free list, the first one first.
func (s *shard) link(chunk int) {
	for i := chunkSize - 1; i >= 0; i-- {
		s.chunks[chunk][i].lo = uint64(s.free)
		s.free = uint32(chunk*chunkSize + i)
	}
}

// remove frees slot i. What stands behind it in the index moves up, so that no
// gap ends a search too early.
func (t *table) remove(s *shard, i uint32) {
	key := s.at(i).key()
	gap, _ := s.lookup(&key, t.hash(&key))
	mask := len(s.index) - 1
	for pos := (gap + 1) & mask; s.index[pos] != 0; pos = (pos + 1) & mask {
		key := s.at(s.index[pos]&0xffff - 1).key()
		home := int(t.hash(&key)) & mask
		if (pos-home)&mask >= (pos-gap)&mask {
			s.index[gap], gap = s.index[pos], pos
		}
	}
	s.index[gap] = 0
	*s.at(i) = slot{lo: uint64(s.free)}
	s.free = i
	s.live--
}

func (t *table) reindex(s *shard, size int) {
	old := s.index
	s.index = make([]uint32, size)
	for _, e := range old {
		if e != 0 {
			key := s.at(e&0xffff - 1).key()
			pos, _ := s.lookup(&key, t.hash(&key)) // every key is another: it stops at a gap
			s.index[pos] = e
		}
	}
}

// sweep frees what has expired in one shard, and its memory when three quarters
// of it are free.
func (t *table) sweep(s *shard, nowMs int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range len(s.chunks) * chunkSize / groupSize {
		t.look(s, nowMs)
	}
	if len(s.chunks) == 0 || s.live*4 > len(s.chunks)*chunkSize || s.live > 0 && len(s.chunks) == 1 {
		return
	}
	old := s.chunks
	s.chunks, s.index, s.free, s.live, s.hand = nil, nil, noSlot, 0, 0
	for _, chunk := range old {
		for i := range chunk {
			if chunk[i].family == 0 {
				continue
			}
			key := chunk[i].key()
			*t.insert(s, &key, t.hash(&key), nowMs) = chunk[i]
		}
	}
}

// forget frees the counters of the addresses in p.
func (t *table) forget(p netip.Prefix) {
	fam := byV6
	if p.Addr().Is4() {
		fam = byV4
	}
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for j := range uint32(len(s.chunks) * chunkSize) {
			if k := s.at(j).key(); k.family == fam && p.Contains(k.addr()) {
				t.remove(s, j)
			}
		}
		s.mu.Unlock()
	}
}

// addr returns the address, or the first of the /64, of a key that has one.
func (k *counterKey) addr() netip.Addr {
	if k.family == byV4 {
		return netip.AddrFrom4([4]byte{byte(k.hi >> 24), byte(k.hi >> 16), byte(k.hi >> 8), byte(k.hi)})
	}
	var b [16]byte
	for i := range 8 {
		b[i] = byte(k.hi >> (56 - 8*i))
	}
	return netip.AddrFrom16(b)
}

package ratelimit

import (
	"iter"
	"maps"
	"math/bits"
	"net/netip"
	"sync/atomic"
)

// exactBans finds bans by address.
type exactBans [banShards]atomic.Pointer[exactTable]

// exactTable is an open-addressed table that is never written after it was
// stored. Beside a Go map it costs two cache misses less, which is half.
type exactTable struct {
	slots []exactSlot // a power of two of them, at most three quarters are taken
}

type exactSlot struct {
	key uint64
	ban *liveBan // nil: free
}

// newExactTable freezes m; nil stands for the empty table.
func newExactTable(m map[uint64]*liveBan) *exactTable {
	if len(m) == 0 {
		return nil
	}
	t := &exactTable{slots: make([]exactSlot, 1<<bits.Len(uint(len(m)+len(m)/3)))}
	for key, ban := range m {
		i := t.home(key)
		for t.slots[i].ban != nil {
			i = (i + 1) & (len(t.slots) - 1)
		}
		t.slots[i] = exactSlot{key, ban}
	}
	return t
}

func (t *exactTable) home(key uint64) int {
	return int(key*0x9e3779b97f4a7c15>>32) & (len(t.slots) - 1)
}

func (t *exactTable) find(key uint64) *liveBan {
	if t == nil {
		return nil
	}
	for i := t.home(key); ; i = (i + 1) & (len(t.slots) - 1) {
		if s := &t.slots[i]; s.ban == nil || s.key == key {
			return s.ban
		}
	}
}

// all yields the bans by their keys.
func (t *exactTable) all() iter.Seq2[uint64, *liveBan] {
	return func(yield func(uint64, *liveBan) bool) {
		if t == nil {
			return
		}
		for _, s := range t.slots {
			if s.ban != nil && !yield(s.key, s.ban) {
				return
			}
		}
	}
}

// edit gathers changes to Bans, so that many of them copy each table once and
// build each search structure once. Whoever makes it holds mu until commit,
// with which requests begin to see the changes.
type edit struct {
	bans             *Bans
	fresh            map[*atomic.Pointer[exactTable]]map[uint64]*liveBan
	ranges4, ranges6 bool // have changed
}

func (b *Bans) edit() *edit {
	return &edit{bans: b, fresh: map[*atomic.Pointer[exactTable]]map[uint64]*liveBan{}}
}

// isExact reports whether p is one v4 address or one v6 /64.
func isExact(p netip.Prefix) bool { return p.Bits() == min(p.Addr().BitLen(), 64) }

// at returns where an exact ban is kept.
func (e *edit) at(p netip.Prefix) (at *atomic.Pointer[exactTable], key uint64) {
	key = exactKey(p.Addr())
	if p.Addr().Is4() {
		return &e.bans.v4[e.bans.shard(key)], key
	}
	return &e.bans.v6[e.bans.shard(key)], key
}

// get returns the ban of exactly the range p, or nil.
func (e *edit) get(p netip.Prefix) *liveBan {
	if !isExact(p) {
		return e.bans.wide[p]
	}
	at, key := e.at(p)
	if m, ok := e.fresh[at]; ok {
		return m[key]
	}
	return at.Load().find(key)
}

// set puts next in the place of old; nil stands for none.
func (e *edit) set(p netip.Prefix, old, next *liveBan) {
	e.bans.tally(old, -1)
	e.bans.tally(next, 1)
	if !isExact(p) {
		if next == nil {
			delete(e.bans.wide, p)
		} else {
			e.bans.wide[p] = next
		}
		e.ranges4 = e.ranges4 || p.Addr().Is4()
		e.ranges6 = e.ranges6 || p.Addr().Is6()
		return
	}
	at, key := e.at(p)
	m, ok := e.fresh[at]
	if !ok {
		m = maps.Collect(at.Load().all())
		e.fresh[at] = m
	}
	if next == nil {
		delete(m, key)
	} else {
		m[key] = next
	}
}

func (e *edit) commit() {
	for at, m := range e.fresh {
		at.Store(newExactTable(m))
	}
	if e.ranges4 {
		e.bans.ranges4.Store(rangesOf(e.bans.wide, true))
	}
	if e.ranges6 {
		e.bans.ranges6.Store(rangesOf(e.bans.wide, false))
	}
}

// tally counts bans, and those that the limiter made.
func (b *Bans) tally(live *liveBan, n int) {
	if live == nil {
		return
	}
	b.count += n
	if live.By == "" {
		b.limits += n
	}
}

package ratelimit

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"

	"muster"
)

// Event is something that a client did, or is about to do.
//
// Say only what is proven: before its password is checked, a login's plan,
// organisation and class are claims, and belong left out. And count every login
// as KindLogin whatever comes of it: the limit on wrong passwords has a counter
// for each pair of machine and address, so that without the other one a single
// address could make as many counters as it invents machines.
type Event struct {
	Kind         string
	Addr         netip.Addr
	Machine      string
	Organisation string
	Class        Class
	Plan         muster.Plan
}

// Verdict is the answer to an Event.
type Verdict struct {
	Allowed    bool
	Limit      string        // refused: the limit that did it; allowed: the one nearest to its threshold, "" when none holds
	Count      int           // of events within that limit's window, with this one
	Threshold  int           // what that limit allows
	RetryAfter time.Duration // refused: until it may be allowed; with a ban, until the ban ends
	Ban        *Ban          // refused, and the limit bans: for the caller to Put and to share
}

// LimiterConfig configures a Limiter. The zero value limits nothing.
type LimiterConfig struct {
	Rules *Rules
	// MaxKeys bounds the counters that are kept, over all limits, and so the
	// memory: about 140 bytes each. 0: 1,000,000; at most 16,760,832.
	MaxKeys int
	// Seed is a secret of this process, so that nobody can choose addresses
	// that crowd each other out.
	Seed uint64
}

// Limiter counts events against the limits. It is safe for concurrent use.
type Limiter struct {
	rules atomic.Pointer[Rules]
	table *table
	swept atomic.Uint32
}

// NewLimiter returns a Limiter that has counted nothing.
func NewLimiter(c LimiterConfig) *Limiter {
	if c.MaxKeys == 0 {
		c.MaxKeys = 1_000_000
	}
	l := &Limiter{table: newTable(c.MaxKeys, c.Seed)}
	l.Use(c.Rules)
	return l
}

// Use puts other rules in force from the next event on. nil limits nothing.
func (l *Limiter) Use(r *Rules) {
	if r == nil {
		r = &Rules{}
	}
	l.rules.Store(r)
}

// Spend counts e against every limit that it falls under, and says whether all
// of them allow it. Of several that do not, the verdict is that of the longest
// wait. It works on a copy of the client's word alone, so there is nothing to
// cancel: call it with the request, and a client that hangs up has still paid.
//
// It allocates only when it refuses.
func (l *Limiter) Spend(now time.Time, e Event) Verdict {
	verdict := Verdict{Allowed: true}
	rules := l.rules.Load()
	e.Addr = e.Addr.Unmap()
	for _, rule := range rules.kinds[e.Kind] {
		if !rule.Counted.matches(e.Class) {
			continue
		}
		threshold, holds := rules.threshold(now, &rule.Limit, &e)
		if !holds {
			continue
		}
		w := windowOf(rule.Window, threshold)
		key, ok := keyOf(rule, w, &e)
		if !ok {
			continue
		}
		count, allowed, wait := l.count(&key, w, now.UnixMilli())
		switch {
		case allowed:
			if verdict.Allowed && count*max(verdict.Threshold, 1) >= verdict.Count*threshold {
				verdict.Limit, verdict.Count, verdict.Threshold = rule.Name, count, threshold
			}
		default:
			refusal := rule.refuse(now, &e, threshold, time.Duration(wait)*time.Millisecond)
			refusal.Count = count
			if verdict.Allowed || refusal.RetryAfter > verdict.RetryAfter {
				verdict = refusal
			}
		}
	}
	return verdict
}

func (l *Limiter) count(k *counterKey, w window, nowMs int64) (count int, allowed bool, waitMs int64) {
	hash := l.table.hash(k)
	s := l.table.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	var sl *slot
	if _, i := s.lookup(k, hash); i != noSlot {
		sl = s.at(i)
	} else {
		sl = l.table.insert(s, k, hash, nowMs)
	}
	return w.add(sl, nowMs)
}

func (r *rule) refuse(now time.Time, e *Event, threshold int, wait time.Duration) Verdict {
	v := Verdict{Limit: r.Name, Threshold: threshold, RetryAfter: wait}
	if r.Penalty.Ban == 0 || !e.Addr.IsValid() {
		return v
	}
	v.RetryAfter = r.Penalty.Ban
	v.Ban = &Ban{
		Prefix: PrefixOf(e.Addr),
		Scope:  r.Penalty.Scope,
		Reason: r.reason(threshold),
		Limit:  r.Name,
		Since:  now.UTC(),
		Until:  now.Add(r.Penalty.Ban).UTC(),
	}
	if r.Penalty.ExtendOnRetry {
		v.Ban.Extend = r.Penalty.Ban
	}
	return v
}

// keyOf returns whose counter e is for, and false when e does not say.
func keyOf(r *rule, w window, e *Event) (counterKey, bool) {
	k := counterKey{id: r.coarse, family: byName}
	if w.exact {
		k.id = r.exact
	}
	var name string
	switch r.Per {
	case PerAddress, PerMachineAddress:
		if !e.Addr.IsValid() {
			return k, false
		}
		k.hi, k.family = exactKey(e.Addr), byV6
		if e.Addr.Is4() {
			k.family = byV4
		}
		if r.Per == PerAddress {
			return k, true
		}
		_, k.lo = fingerprint(e.Machine)
		return k, e.Machine != ""
	case PerMachine:
		name = e.Machine
	case PerOrganisation:
		name = e.Organisation
	}
	k.hi, k.lo = fingerprint(name)
	return k, name != ""
}

// fingerprint stands for a name whose length the client chose. Nobody can make
// a second name with the fingerprint of a given one.
func fingerprint(name string) (hi, lo uint64) {
	var short [muster.MaxMachineID]byte
	sum := sha256.Sum256(append(short[:0], name...)) // no allocation up to MaxMachineID
	return binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])
}

// Forget drops what was counted for the addresses in p, under every limit with
// an address: with the lift of a ban it lets them begin anew. It looks through
// the whole table, a shard at a time (80 ms for a million counters).
func (l *Limiter) Forget(p netip.Prefix) error {
	p, err := canonical(p)
	if err != nil {
		return err
	}
	l.table.forget(p)
	return nil
}

// Sweep frees what has expired in the next few of 256 shards, and memory that
// a flood has left behind. The lock of a shard is held for less than a
// millisecond at the default MaxKeys. Without it memory is bounded all the same,
// and every new counter clears a little; call it, say, for 8 shards each
// second.
func (l *Limiter) Sweep(now time.Time, shards int) {
	for range min(shards, shardCount) {
		l.table.sweep(&l.table.shards[l.swept.Add(1)%shardCount], now.UnixMilli())
	}
}

// LimiterStats is for metrics.
type LimiterStats struct {
	Keys    int    // counters kept, expired ones that were not yet freed too
	MaxKeys int    // the bound on Keys
	Evicted uint64 // counters given up before their time, for newer ones
	Bytes   int    // memory of the table
}

// Stats sums up the table.
func (l *Limiter) Stats() LimiterStats {
	var sum LimiterStats
	for i := range l.table.shards {
		s := &l.table.shards[i]
		s.mu.Lock()
		sum.Keys += s.live
		sum.Evicted += s.evicted
		sum.Bytes += len(s.chunks)*chunkSize*slotSize + len(s.index)*4
		s.mu.Unlock()
	}
	chunks := (l.table.perShard + chunkSize - 1) / chunkSize
	sum.MaxKeys = chunks * chunkSize * shardCount
	return sum
}

const slotSize = 128 // of a slot, held by a test

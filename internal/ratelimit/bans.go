package ratelimit

import (
	"cmp"
	"iter"
	"maps"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"muster"
)

// BansConfig configures Bans; its zero value is useful.
type BansConfig struct {
	// Max bounds the bans that are kept. 0: 250,000. The last sixteenth is kept
	// for people: when the limiter has filled the rest, its further bans are
	// refused until others expire. Whoever is not banned for that reason is
	// still refused by the limit itself, which goes on counting.
	Max int
	// ReportEvery is how far a ban may be extended by retries before Sink
	// learns of it again; other nodes, and this one after a restart, may end
	// it that much too early. 0: 30 s.
	ReportEvery time.Duration
	Sink        Sink // nil: nobody is told
	// Seed is a secret of this process, so that nobody can choose addresses
	// whose bans are expensive to add.
	Seed uint64
}

const (
	banShards    = 1024
	maxBanRanges = 10_000 // every change to a range rebuilds the search for all of them
	forever      = math.MaxInt64
)

// Bans holds the bans in force. Check takes no lock: bans of one address (or
// one v6 /64) are in 1024 small tables, each of which is replaced when it
// changes, ranges in a search structure that is replaced as a whole. Retries extend a ban in
// place. It is safe for concurrent use.
type Bans struct {
	config  BansConfig
	version atomic.Uint64
	v4, v6  exactBans
	ranges4 atomic.Pointer[ranges[*liveBan]]
	ranges6 atomic.Pointer[ranges[*liveBan]]

	mu     sync.Mutex // held by all who change anything but an end
	wide   map[netip.Prefix]*liveBan
	count  int // of all bans
	limits int // of those that the limiter made
}

// liveBan is a ban in force; its Ban.Until is not used. Only its end moves, and
// bans that become one share it, so that no extension is lost.
type liveBan struct {
	end *banEnd
	own banEnd // where end points, unless the ban was joined to an older one: one cache miss less
	Ban
}

type banEnd struct {
	until    atomic.Int64 // Unix ns, or forever
	reported atomic.Int64 // until as Sink last heard it
}

func newLive(ban Ban, until int64) *liveBan {
	l := &liveBan{Ban: ban}
	l.end = &l.own
	l.end.until.Store(until)
	l.end.reported.Store(until)
	return l
}

// NewBans returns a table without bans.
func NewBans(c BansConfig) *Bans {
	c.Max = cmp.Or(c.Max, 250_000)
	c.ReportEvery = cmp.Or(c.ReportEvery, 30*time.Second)
	return &Bans{config: c, wide: map[netip.Prefix]*liveBan{}}
}

// Check reports whether a request from addr is refused, and by which ban. login
// says that it is one that bans from logins refuse too. A refused request is a
// retry: it extends the ban, if the ban is of that sort. Of several bans the
// widest scope decides, then the narrowest range.
func (b *Bans) Check(now time.Time, addr netip.Addr, login bool) (Ban, bool) {
	nanos := now.UnixNano()
	found := b.find(nanos, addr, login)
	if found == nil {
		return Ban{}, false
	}
	if found.Extend > 0 {
		b.extend(found, nanos)
	}
	return found.current(), true
}

// Lookup returns the ban that would refuse a login from addr, for showing it:
// it does not count as a retry.
func (b *Bans) Lookup(now time.Time, addr netip.Addr) (Ban, bool) {
	if found := b.find(now.UnixNano(), addr, true); found != nil {
		return found.current(), true
	}
	return Ban{}, false
}

func (b *Bans) find(nanos int64, addr netip.Addr, login bool) *liveBan {
	if !addr.IsValid() {
		return nil
	}
	addr = addr.Unmap()
	exact, wide := &b.v6, &b.ranges6
	if addr.Is4() {
		exact, wide = &b.v4, &b.ranges4
	}
	key := exactKey(addr)
	var best *liveBan
	if found := exact[b.shard(key)].Load().find(key); found != nil && nanos < found.end.until.Load() {
		if found.Scope == ScopeAll {
			return found
		}
		if login {
			best = found
		}
	}
	for in := wide.Load().find(key); in != nil; in = in.wider {
		if found := in.value; nanos < found.end.until.Load() {
			if found.Scope == ScopeAll {
				return found
			}
			if login && best == nil {
				best = found
			}
		}
	}
	return best
}

func (b *Bans) shard(key uint64) int {
	h, l := bits.Mul64(key^b.config.Seed^0x9e3779b97f4a7c15, b.config.Seed|0xd1b54a32d192ed03)
	return int((h ^ l) % banShards)
}

// extend moves the end of a ban on after a retry.
func (b *Bans) extend(found *liveBan, nanos int64) {
	if until := nanos + int64(found.Extend); found.end.raise(until) {
		b.report(found, until)
	}
}

// report tells Sink of a ban's new end, unless it heard of about that one.
func (b *Bans) report(found *liveBan, until int64) {
	if b.config.Sink == nil {
		return
	}
	reported := found.end.reported.Load()
	if until-reported >= int64(b.config.ReportEvery) && found.end.reported.CompareAndSwap(reported, until) {
		b.version.Add(1)
		b.config.Sink.BanChanged(found.current(), Extended)
	}
}

// raise moves an end to until unless it is there or later already.
func (e *banEnd) raise(until int64) bool {
	for {
		old := e.until.Load()
		if old >= until {
			return false
		}
		if e.until.CompareAndSwap(old, until) {
			return true
		}
	}
}

// current returns the ban with its end as of now.
func (l *liveBan) current() Ban {
	ban := l.Ban
	if until := l.end.until.Load(); until != forever {
		ban.Until = time.Unix(0, until).UTC()
	}
	return ban
}

func nanosOf(until time.Time) int64 {
	if until.IsZero() {
		return forever
	}
	return until.UnixNano()
}

// Put adds a ban that was decided here and tells Sink. Where its range is
// banned already the two become one, which Put returns: a person's newer word
// replaces what there was and holds against the limiter; two bans by the
// limiter give the later end and the wider scope. Errors are of code Invalid,
// and Unavailable when the table is full.
func (b *Bans) Put(now time.Time, ban Ban) (Ban, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.edit()
	defer e.commit()
	return b.put(e, now, ban, true)
}

// Learn adds bans that other nodes decided, or that were kept from before a
// restart; it tells nobody. Those that have ended are passed over. It returns
// how many could not be taken, and why the last one could not; the others are
// in force. Nodes that are told the same bans, in any order, agree on who is
// banned from what until when.
func (b *Bans) Learn(now time.Time, bans ...Ban) (refused int, last error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.edit()
	defer e.commit()
	for _, ban := range bans {
		if nanosOf(ban.Until) <= now.UnixNano() {
			continue
		}
		if _, err := b.put(e, now, ban, false); err != nil {
			refused, last = refused+1, err
		}
	}
	return refused, last
}

func (b *Bans) put(e *edit, now time.Time, ban Ban, tell bool) (Ban, error) {
	if err := ban.Validate(); err != nil {
		return Ban{}, err
	}
	until := nanosOf(ban.Until)
	ban.Prefix, _ = canonical(ban.Prefix) // validated
	ban.Since, ban.Until = ban.Since.UTC().Round(0), time.Time{}
	next := newLive(ban, until)
	old := e.get(ban.Prefix)
	if old == nil || old.end.until.Load() <= now.UnixNano() {
		if err := b.room(ban, old); err != nil {
			return Ban{}, err
		}
		e.set(ban.Prefix, old, next)
		b.changed(next, Added, tell)
		return next.current(), nil
	}
	switch joined, later := join(old, next); {
	case joined != old:
		joined.end.reported.Store(joined.end.until.Load())
		e.set(ban.Prefix, old, joined)
		b.changed(joined, Changed, tell)
		return joined.current(), nil
	case later && tell:
		b.report(old, until)
	case later:
		old.end.reported.Store(until)
		b.version.Add(1)
	}
	return old.current(), nil
}

// join makes one of two bans of the same range; later says that old's end was
// moved to next's.
func join(old, next *liveBan) (joined *liveBan, later bool) {
	if old.By != next.By || !old.Since.Equal(next.Since) {
		newer := cmp.Or(next.Since.Compare(old.Since), cmp.Compare(next.By, old.By)) > 0
		switch {
		case next.By != "" && (old.By == "" || newer):
			return next, false
		case old.By != "":
			return old, false
		}
	}
	// One ban heard of twice, or two by the limiter.
	later = old.end.raise(next.end.until.Load())
	both := old.Ban
	if later {
		both = next.Ban
	}
	both.Extend = max(old.Extend, next.Extend)
	if both.Since = old.Since; next.Since.Before(old.Since) {
		both.Since = next.Since
	}
	if old.Scope == ScopeAll || next.Scope == ScopeAll {
		both.Scope = ScopeAll
	}
	if both == old.Ban {
		return old, later
	}
	return &liveBan{Ban: both, end: old.end}, later
}

// room reports whether one more ban, or one in place of old, may be kept.
func (b *Bans) room(ban Ban, old *liveBan) error {
	switch {
	case old != nil:
		return nil
	case !isExact(ban.Prefix) && len(b.wide) >= maxBanRanges:
		return muster.Errorf(muster.Unavailable, "%d ranges are banned already: lift some, or ban wider ranges", maxBanRanges)
	case ban.By == "" && b.limits >= b.config.Max-b.config.Max/16, b.count >= b.config.Max:
		return muster.Errorf(muster.Unavailable, "the table of bans is full (%d): the limits go on refusing; raise its size, or ban the ranges that the clients are in", b.count)
	}
	return nil
}

// Lift ends a ban by a person's decision, tells Sink, and returns the ban as it
// was; false when that range has no ban of its own.
func (b *Bans) Lift(now time.Time, p netip.Prefix) (Ban, bool) {
	return b.drop(now, p, true)
}

// Forget ends a ban that another node lifted; it tells nobody.
func (b *Bans) Forget(now time.Time, p netip.Prefix) {
	b.drop(now, p, false)
}

func (b *Bans) drop(now time.Time, p netip.Prefix, tell bool) (Ban, bool) {
	p, err := canonical(p)
	if err != nil {
		return Ban{}, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.edit()
	defer e.commit()
	old := e.get(p)
	if old == nil || old.end.until.Load() <= now.UnixNano() {
		return Ban{}, false
	}
	ban := old.current()
	e.set(p, old, nil)
	b.changed(old, Lifted, tell)
	return ban, true
}

// Expire removes the bans that have ended and tells Sink of each. Ended bans
// refuse nobody before that; they only take up room. Call it every few seconds.
func (b *Bans) Expire(now time.Time) (expired int) {
	nanos := now.UnixNano()
	var ended []*liveBan
	for live := range b.live() {
		if live.end.until.Load() <= nanos {
			ended = append(ended, live)
		}
	}
	for some := range slices.Chunk(ended, 1000) { // let others have the lock in between
		expired += b.expire(nanos, some)
	}
	return expired
}

func (b *Bans) expire(nanos int64, ended []*liveBan) (expired int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.edit()
	defer e.commit()
	for _, old := range ended {
		if e.get(old.Prefix) == old && old.end.until.Load() <= nanos { // it may have been replaced
			e.set(old.Prefix, old, nil)
			b.changed(old, Expired, true)
			expired++
		}
	}
	return expired
}

// All yields the bans in force, in no order, each as of when it is met.
func (b *Bans) All(now time.Time) iter.Seq[Ban] {
	return func(yield func(Ban) bool) {
		for live := range b.live() {
			if now.UnixNano() < live.end.until.Load() && !yield(live.current()) {
				return
			}
		}
	}
}

// Len returns the number of bans that are kept, ended ones that were not yet
// removed included.
func (b *Bans) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

// Version grows with every change; with extensions, when they are reported or
// learned.
func (b *Bans) Version() uint64 { return b.version.Load() }

// live yields every ban without holding a lock while it does.
func (b *Bans) live() iter.Seq[*liveBan] {
	return func(yield func(*liveBan) bool) {
		for _, exact := range []*exactBans{&b.v4, &b.v6} {
			for i := range exact {
				for _, live := range exact[i].Load().all() {
					if !yield(live) {
						return
					}
				}
			}
		}
		b.mu.Lock()
		wide := maps.Clone(b.wide)
		b.mu.Unlock()
		for _, live := range wide {
			if !yield(live) {
				return
			}
		}
	}
}

// changed counts a change and tells Sink of it. The caller holds mu.
func (b *Bans) changed(live *liveBan, what Change, tell bool) {
	b.version.Add(1)
	if tell && b.config.Sink != nil {
		b.config.Sink.BanChanged(live.current(), what)
	}
}

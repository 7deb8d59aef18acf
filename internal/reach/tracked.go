package reach

import (
	"context"
	"math"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"muster"
	"muster/internal/ops"
)

// item is one line of a list, as bouncers are told.
type item struct {
	source   muster.Source
	scenario string // of a list other than the network's, its name
	until    int64  // as told, Unix seconds
	changed  int64  // since when it is so, Unix nanoseconds
	score    float32
	network  bool // the network's verdict, or the own fleet's
	own      bool // the own fleet's
	captcha  bool
	open     bool // has no end: until is moved on
}

// gone is an item that is no more.
type gone struct {
	item
	at int64 // since when, Unix nanoseconds
}

// snapshot is a list at one moment, with what has gone from it before.
type snapshot struct {
	items   []item // in order of the sources
	gone    []gone // in order of time
	since   int64  // from when on gone has everything
	changed int64  // when the last item changed
	made    int64  // stamp of the snapshot itself
	due     int64  // when an item ends or has to be moved on, Unix seconds
	version any    // of what it was made from
	lengths []int  // prefix lengths of ranges in it, IPv4's counted as their own
}

// tracked is a list that is read, with its changes.
type tracked struct {
	// load returns the entries, and a comparable version of them; nil and have when
	// that is still the version.
	load func(ctx context.Context, have any) ([]item, any, error)
	life time.Duration // of entries without an end

	mu         sync.Mutex // held while it is made anew
	checked    atomic.Int64
	generation atomic.Uint64
	now        atomic.Pointer[snapshot]
}

const (
	// fresh is for how long a list is not looked at again.
	fresh = int64(500 * time.Millisecond)
	// remember is how long, and rememberMost how many at most, items are known that
	// are gone.
	remember     = int64(24 * time.Hour)
	rememberMost = 200_000
	// slack is how much an end may move without that readers are told.
	slack = int64(5 * time.Minute / time.Second)
	// unused is after what time a list that nobody reads is forgotten.
	unused = int64(time.Hour)
	// defaultLife is how long readers keep an entry that has no end, when its list
	// does not say.
	defaultLife = 24 * time.Hour
)

// snapshot returns the list as it is now. An error leaves what was known before
// in force, if anything was.
func (s *Service) snapshot(ctx context.Context, t *tracked) (*snapshot, error) {
	now, generation := s.cfg.Now(), s.generation.Load()
	have := t.now.Load()
	stale := t.generation.Load() != generation // what is forbidden may be in it
	if have != nil && !stale && now.UnixNano()-t.checked.Load() < fresh && now.Unix() < have.due {
		return have, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	have = t.now.Load()
	stale = t.generation.Load() != generation
	if have != nil && !stale && now.UnixNano()-t.checked.Load() < fresh && now.Unix() < have.due {
		return have, nil // somebody else has just made it
	}
	var version any
	if have != nil && !stale && now.Unix() < have.due {
		version = have.version
	}
	items, newVersion, err := t.load(ctx, version)
	switch {
	case err != nil && (have == nil || stale):
		return nil, err
	case err != nil:
		s.cfg.Logger.Warn("a list could not be read; integrations get it as it was before", ops.KeyError, err)
		return have, nil
	case version == nil || newVersion != version:
		have = t.merge(have, s.guarded(items, s.cfg.Now()), s.cfg.Now())
		have.version = newVersion
		t.now.Store(have)
	}
	t.generation.Store(generation)
	t.checked.Store(now.UnixNano())
	return have, nil
}

// guarded leaves out what must not be sent, and brings the rest in order.
func (s *Service) guarded(items []item, now time.Time) []item {
	kept := items[:0]
	for _, it := range items {
		if it.source.IsValid() && !it.source.IsReserved() && (it.open || it.until > now.Unix()) && !s.cfg.Forbidden(it.source) {
			kept = append(kept, it)
		}
	}
	slices.SortStableFunc(kept, func(a, b item) int { return a.source.Compare(b.source) })
	return slices.CompactFunc(kept, func(a, b item) bool { return a.source == b.source })
}

// merge makes the snapshot that follows have, which may be nil, from what is on
// the list at now.
func (t *tracked) merge(have *snapshot, items []item, now time.Time) *snapshot {
	at := now.UnixNano()
	next := &snapshot{items: items, made: at, since: at, due: math.MaxInt64}
	var old []item
	first := have == nil // of which nobody can have been told anything before
	if !first {
		next.made = max(at, have.made+1)
		next.gone, next.since, next.changed, old = have.gone, have.since, have.changed, have.items
	}
	life := int64(t.life / time.Second)
	for i := range items {
		it := &items[i]
		for len(old) > 0 && old[0].source.Compare(it.source) < 0 {
			next.gone, next.changed, old = append(next.gone, gone{old[0], at}), at, old[1:]
		}
		var was *item
		if len(old) > 0 && old[0].source == it.source {
			was, old = &old[0], old[1:]
		}
		if it.open {
			it.until = now.Unix() + life
		}
		switch {
		case first:
		case was == nil:
			it.changed, next.changed = at, at
		case was.scenario == it.scenario && was.captcha == it.captcha && was.network == it.network && was.stays(it, now.Unix(), life):
			it.until, it.changed = was.until, was.changed
		default:
			if was.captcha != it.captcha {
				next.gone = append(next.gone, gone{*was, at})
			}
			it.changed, next.changed = at, at
		}
		end := it.until
		if it.open {
			end -= life / 2
		}
		next.due = min(next.due, end)
		if it.source.IsRange() {
			if bits := it.source.Prefix().Bits(); !slices.Contains(next.lengths, bits) {
				next.lengths = append(next.lengths, bits)
			}
		}
	}
	for _, it := range old {
		next.gone, next.changed = append(next.gone, gone{it, at}), at
	}
	slices.Sort(next.lengths)
	next.trim(at)
	return next
}

// stays reports whether readers who were told was need not be told it.
func (was *item) stays(it *item, now, life int64) bool {
	if was.open != it.open || was.until <= now {
		return false
	}
	if it.open {
		return was.until-now > life/2
	}
	return was.until-it.until <= slack && it.until-was.until <= slack
}

// trim forgets what went long ago.
func (n *snapshot) trim(now int64) {
	drop := sort.Search(len(n.gone), func(i int) bool { return n.gone[i].at > now-remember })
	drop = max(drop, len(n.gone)-max(rememberMost, len(n.items)))
	if drop > 0 {
		n.since = max(n.since, n.gone[drop-1].at+1)
		n.gone = n.gone[drop:]
	}
}

// find returns the item of exactly a source.
func (n *snapshot) find(source muster.Source) (*item, bool) {
	i, ok := slices.BinarySearchFunc(n.items, source, func(it item, s muster.Source) int { return it.source.Compare(s) })
	if !ok {
		return nil, false
	}
	return &n.items[i], true
}

// covering calls fn with every item that covers all of p, the widest first.
func (n *snapshot) covering(p netip.Prefix, fn func(*item)) {
	for _, bits := range n.lengths {
		if bits < p.Bits() {
			if it, ok := n.find(muster.SourceFromPrefix(netip.PrefixFrom(p.Addr(), bits))); ok {
				fn(it)
			}
		}
	}
	if it, ok := n.find(muster.SourceFromPrefix(p)); ok {
		fn(it)
	}
}

// inside calls fn with every item that p covers.
func (n *snapshot) inside(p netip.Prefix, fn func(*item)) {
	first := sort.Search(len(n.items), func(i int) bool { return n.items[i].source.Prefix().Compare(p.Masked()) >= 0 })
	for i := first; i < len(n.items) && p.Contains(n.items[i].source.Addr()); i++ {
		fn(&n.items[i])
	}
}

package allow

import (
	"cmp"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"

	"muster"
	"muster/internal/policy"
)

// snapshot is everything that is covered, immutable save for what is made of it
// on demand.
type snapshot struct {
	tenants map[string]*tenant // by organisation, "" = the installation
	byID    map[string]*table
	next    time.Time // when the first of all items ends; zero = none does
}

// tenant is the lists of one owner.
type tenant struct {
	tables []*table  // at most muster.MaxAllowlists, so that a mask of 64 bits names any of them
	next   time.Time // when the first item ends

	mu     sync.RWMutex
	merged map[uint64]*merged // by mask
	former map[uint64]*merged // of the tenant before, to go on with where nothing differs
}

// merged is some of a tenant's lists in one.
type merged struct {
	list    *policy.Allowlist // nil when empty
	version uint64
	cover   uint64 // fingerprint of what it was made from
	links   atomic.Pointer[hourLinks]
}

// maxMerged bounds how many masks are kept merged; fleets have a few.
const maxMerged = 1024

// mask returns which of the lists are for a reader.
func (t *tenant) mask(reader string, tags []string) uint64 {
	if reader == "" {
		return t.all()
	}
	var mask uint64
	for i, l := range t.tables {
		if l.For(reader, l.Organisation, tags) {
			mask |= 1 << i
		}
	}
	return mask
}

func (t *tenant) all() uint64 { return 1<<len(t.tables) - 1 }

func (t *tenant) chosen(mask uint64) []*table {
	var out []*table
	for i, l := range t.tables {
		if mask&(1<<i) != 0 {
			out = append(out, l)
		}
	}
	return out
}

// merge returns the lists of a mask in one.
func (t *tenant) merge(mask uint64, next *atomic.Uint64) *merged {
	t.mu.RLock()
	m := t.merged[mask]
	t.mu.RUnlock()
	if m != nil {
		return m
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.merged[mask]; m != nil {
		return m
	}
	if len(t.merged) >= maxMerged {
		clear(t.merged)
	}
	m = t.build(mask, next)
	t.merged[mask] = m
	return m
}

func (t *tenant) build(mask uint64, next *atomic.Uint64) *merged {
	h, empty := xxh3.New(), true
	var b []byte
	for _, l := range t.chosen(mask) {
		b = binary.BigEndian.AppendUint64(append(b[:0], l.ID...), l.cover)
		_, _ = h.Write(b) // never fails
		empty = empty && len(l.entries) == 0
	}
	if empty {
		return &merged{}
	}
	m := &merged{cover: h.Sum64()}
	if was := t.former[mask]; was != nil && was.version != 0 && was.cover == m.cover {
		m.list, m.version = was.list, was.version
		return m
	}
	m.list, m.version = policy.NewAllowlist(t.entries(mask)), next.Add(1)
	return m
}

// entries returns what the lists of a mask cover.
func (t *tenant) entries(mask uint64) []muster.AllowEntry {
	var out []muster.AllowEntry
	for _, l := range t.chosen(mask) {
		for _, e := range l.entries {
			out = append(out, muster.AllowEntry{
				Source: muster.SourceFromPrefix(e.prefix), Reason: e.reason(), CreatedAt: e.item.CreatedAt, ExpiresAt: e.until,
			})
		}
	}
	return out
}

// table is one list as it stands at a time: addresses and ranges alone.
type table struct {
	muster.Allowlist
	entries  []entry // in order, each prefix once
	cover    uint64  // fingerprint of prefixes and reasons
	ends     uint64  // fingerprint of their ends
	next     time.Time
	modified time.Time // when any of it last changed, in this process's life

	made sync.Once // body, on demand
	body body
}

// entry is one address or range.
type entry struct {
	prefix netip.Prefix
	until  time.Time         // zero = never
	item   *muster.AllowItem // on whose word
}

// reason says why, and of what item when that is no address.
func (e *entry) reason() string {
	if e.item.Kind == muster.AllowAddress || e.item.Kind == muster.AllowRange {
		return e.item.Reason
	}
	if e.item.Reason == "" {
		return e.item.Value
	}
	return e.item.Reason + " (" + e.item.Value + ")"
}

// compile expands a list; was is what it was before, or nil.
func (k *known) compile(l *list, was *table, now time.Time) *table {
	t := &table{Allowlist: l.Allowlist, modified: now}
	for i := range l.items {
		item := &l.items[i]
		if !item.ExpiresAt.IsZero() && !now.Before(item.ExpiresAt) {
			continue
		}
		k.expand(item, func(p netip.Prefix, until time.Time) {
			if until = earlier(until, item.ExpiresAt); until.IsZero() || now.Before(until) {
				t.entries = append(t.entries, entry{p, until, item})
			}
		})
	}
	slices.SortStableFunc(t.entries, func(a, b entry) int {
		return cmp.Or(a.prefix.Compare(b.prefix), later(b.until, a.until))
	})
	t.entries = slices.CompactFunc(t.entries, func(a, b entry) bool { return a.prefix == b.prefix })
	cover, ends := xxh3.New(), xxh3.New()
	var b []byte
	for i := range t.entries {
		e := &t.entries[i]
		t.next = earlier(t.next, e.until)
		b = append(muster.SourceFromPrefix(e.prefix).AppendBinary(b[:0]), e.reason()...)
		_, _ = cover.Write(append(b, 0)) // never fails
		_, _ = ends.Write(binary.BigEndian.AppendUint64(b[:0], uint64(e.until.Unix())))
	}
	t.cover, t.ends = cover.Sum64(), ends.Sum64()
	if was != nil && was.cover == t.cover && was.ends == t.ends {
		t.modified = was.modified
	}
	return t
}

// earlier returns the earlier of two ends, zero being never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// later compares ends, zero being never and so the last.
func later(a, b time.Time) int {
	switch {
	case a.Equal(b):
		return 0
	case a.IsZero():
		return 1
	case b.IsZero():
		return -1
	}
	return a.Compare(b)
}

// rebuildLocked compiles the lists of ids anew and reports whether something
// else is covered, and whether that is so for everybody; s.mu is held.
func (s *Service) rebuildLocked(now time.Time, ids []string) (central, any bool) {
	was := s.snap.Load()
	if len(ids) == 0 {
		return false, false
	}
	fresh := &snapshot{tenants: make(map[string]*tenant, len(was.tenants)), byID: make(map[string]*table, len(s.lists))}
	maps.Copy(fresh.byID, was.byID)
	touched := map[string]bool{}
	for _, id := range ids {
		old, differs, owner := was.byID[id], false, ""
		switch l := s.lists[id]; {
		case l != nil:
			t := s.known.compile(l, old, now)
			fresh.byID[id], owner = t, l.Organisation
			differs = old == nil && len(t.entries) > 0 || old != nil && (old.cover != t.cover || !slices.Equal(old.Targets, t.Targets))
		case old != nil:
			delete(fresh.byID, id)
			differs, owner = len(old.entries) > 0, old.Organisation
		default:
			continue
		}
		touched[owner] = true
		any = any || differs
		central = central || differs && owner == ""
	}
	for org, t := range was.tenants {
		if !touched[org] {
			fresh.tenants[org] = t
		}
	}
	for _, t := range fresh.byID {
		if !touched[t.Organisation] {
			continue
		}
		own := fresh.tenants[t.Organisation]
		if own == nil {
			own = &tenant{merged: map[uint64]*merged{}}
			if former := was.tenants[t.Organisation]; former != nil {
				former.mu.RLock()
				own.former = maps.Clone(former.merged)
				former.mu.RUnlock()
			}
			fresh.tenants[t.Organisation] = own
		}
		own.tables = append(own.tables, t)
		own.next = earlier(own.next, t.next)
	}
	for org, t := range fresh.tenants {
		if touched[org] {
			slices.SortFunc(t.tables, func(a, b *table) int { return cmp.Compare(a.ID, b.ID) })
		}
		fresh.next = earlier(fresh.next, t.next)
	}
	s.snap.Store(fresh)
	ring(s.wakeTell) // which waits for the next end
	return central, any
}

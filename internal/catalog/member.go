package catalog

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/xxh3"

	"muster"
	"muster/internal/policy"
)

// slotKey names what is put together once: a list, and of lists of what an
// organisation has seen the organisation.
type slotKey struct{ list, organisation string }

// slot holds the last form of a list.
type slot struct {
	mu   sync.Mutex // held by whoever puts the list together
	last *membership
	used time.Time            // when it was asked for last
	seen map[uint64]time.Time // allowlists by version: when each was first met
}

// membership is what is on a list, without what nobody may be sent. It is not
// changed, save for the readings that are added.
type membership struct {
	entries []muster.ListEntry // in order of the addresses
	updated time.Time          // when it last came to differ
	digest  uint64

	network  uint64    // version of what the network had convicted
	revision uint64    // of the list and its entries
	guard    uint64    // of what is forbidden
	again    time.Time // not before: another look at the network
	ends     time.Time // when the first entry does; zero = none does
	failed   bool      // it is as it was before, because it could not be put together

	readings *readings
}

// readings is what readers get of a membership, by the version of their
// allowlist.
type readings struct {
	mu sync.Mutex
	by map[uint64]*reading
}

// reading is a membership without what a reader's allowlist covers.
type reading struct {
	entries []muster.ListEntry
	ranges  int // how many of them are ranges
	version uint64
	updated time.Time
	last    time.Time // when the last entry ends; zero = never

	once                sync.Once
	addresses, networks text
}

// text is what a link answers with, and its compressed form.
type text struct{ plain, gzip []byte }

// slow is how long a list that does not follow the network's version alone is
// good for.
const slow = time.Minute

// patience is how long putting a list together may take.
const patience = 10 * time.Second

// members returns what is on a list now.
func (s *Service) members(ctx context.Context, l *muster.Blocklist, organisation string) (*slot, *membership, error) {
	if !l.Rule.Own {
		organisation = ""
	}
	key := slotKey{l.ID, organisation}
	found, ok := s.slots.Load(key)
	if !ok {
		found, _ = s.slots.LoadOrStore(key, &slot{seen: map[uint64]time.Time{}})
	}
	at := found.(*slot)
	at.mu.Lock()
	defer at.mu.Unlock()
	at.used = s.cfg.Now()
	if at.last != nil && s.fresh(at.last, l, organisation) {
		return at, at.last, nil
	}
	// Whoever comes first puts it together for all, and may go meanwhile.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	m, err := s.build(ctx, l, organisation)
	if err != nil {
		if at.last == nil {
			return at, nil, err
		}
		// What was there is better than nothing, without what is forbidden by now.
		s.log.Warn("a blocklist could not be brought up to date: it stays as it was", "list", l.Name, "error", err)
		m = s.guarded(l, at.last.entries)
		m.again, m.failed = s.cfg.Now().Add(slow), true
	}
	s.date(m, at.last, l)
	at.last = m
	return at, m, nil
}

// glance returns what is on a list for the operators, without keeping it: most
// lists have no subscribers.
func (s *Service) glance(ctx context.Context, l *muster.Blocklist) ([]muster.ListEntry, error) {
	if found, ok := s.slots.Load(slotKey{list: l.ID}); ok {
		at := found.(*slot)
		at.mu.Lock()
		defer at.mu.Unlock()
		if at.last != nil && s.fresh(at.last, l, "") {
			return at.last.entries, nil
		}
	}
	m, err := s.build(ctx, l, "")
	if err != nil {
		return nil, err
	}
	return m.entries, nil
}

// unused is how long a list is kept in memory that nobody asks for; engines ask
// every two hours.
const unused = 6 * time.Hour

// forget lets go of lists that nobody asks for.
func (s *Service) forget() {
	before := s.cfg.Now().Add(-unused)
	s.slots.Range(func(key, found any) bool {
		at := found.(*slot)
		at.mu.Lock()
		defer at.mu.Unlock()
		if at.used.Before(before) {
			s.slots.Delete(key)
		}
		return true
	})
}

// fresh reports whether m is what the list has now.
func (s *Service) fresh(m *membership, l *muster.Blocklist, organisation string) bool {
	now := s.cfg.Now()
	switch {
	case m.guard != s.guard.Load() || !m.ends.IsZero() && !now.Before(m.ends):
		return false
	case m.failed:
		return now.Before(m.again)
	case m.revision != s.state.Load().revisions[l.ID]:
		return false
	case l.Kind != muster.RuleList || now.Before(m.again):
		return true
	case l.Rule.Own || l.Rule.Since > 0:
		return false // the network's version does not tell
	}
	return m.network == s.networkVersion(l, organisation)
}

func (s *Service) networkVersion(l *muster.Blocklist, organisation string) uint64 {
	v := s.cfg.Network.Version(muster.Network)
	if l.Rule.Own && organisation != "" {
		v += s.cfg.Network.Version(muster.Audience(organisation)) // both only grow
	}
	return v
}

// build puts a list together.
func (s *Service) build(ctx context.Context, l *muster.Blocklist, organisation string) (*membership, error) {
	start := s.cfg.Now()
	// Taken before what they stand for, so that what changes meanwhile is met by
	// the next look.
	guard, network, revision := s.guard.Load(), uint64(0), s.state.Load().revisions[l.ID]
	var entries []muster.ListEntry
	var err error
	again := time.Time{}
	switch l.Kind {
	case muster.RuleList:
		network = s.networkVersion(l, organisation)
		if entries, err = s.chosen(ctx, l, organisation, start); err != nil {
			return nil, err
		}
		wait := s.cfg.Coalesce
		if l.Rule.Own || l.Rule.Since > 0 {
			wait = max(slow, wait)
		}
		again = start.Add(max(wait, 20*s.cfg.Now().Sub(start))) // a twentieth of a processor at most
	case muster.CustomList:
		err = s.cfg.Store.EachCustomEntry(ctx, l.ID, func(e muster.CustomEntry) error {
			entries = append(entries, muster.ListEntry{Source: e.Source, Remedy: l.Remedy, Until: e.Until})
			return nil
		})
	case muster.FeedList:
		entries, err = s.fetched(ctx, l, start)
	}
	if err != nil {
		return nil, err
	}
	m := s.guarded(l, entries)
	m.guard, m.network, m.revision, m.again = guard, network, revision, again
	if l.Kind == muster.FeedList && len(m.entries) > 0 {
		m.ends = s.feedEnds(l)
	}
	return m, nil
}

// chosen is what a rule chooses.
func (s *Service) chosen(ctx context.Context, l *muster.Blocklist, organisation string, now time.Time) ([]muster.ListEntry, error) {
	m, err := s.matcher(ctx, l, organisation, now)
	if err != nil {
		return nil, err
	}
	var entries []muster.ListEntry
	take := func(e muster.ListEntry) bool {
		if m.chooses(&e) {
			entries = append(entries, e)
		}
		return true
	}
	s.cfg.Network.Each(muster.Network, take)
	if l.Rule.Own && organisation != "" {
		m.rule.Own = false // its own fleet convicted it
		s.cfg.Network.Each(muster.Audience(organisation), take)
	}
	if l.Rule.Top > 0 {
		entries = best(s.permitted(l, entries), l.Rule.Top)
	}
	return entries, nil
}

// permitted leaves out what nobody may be sent and what has ended.
func (s *Service) permitted(l *muster.Blocklist, entries []muster.ListEntry) []muster.ListEntry {
	now, withheld := s.cfg.Now(), 0
	kept := make([]muster.ListEntry, 0, len(entries))
	for _, e := range entries {
		switch {
		case !e.Until.IsZero() && !e.Until.After(now):
		case e.Source.IsReserved() || s.cfg.Forbidden(e.Source):
			withheld++
		default:
			kept = append(kept, e)
		}
	}
	if withheld > 0 {
		s.withheld.WithLabelValues(l.Name).Add(float64(withheld))
	}
	return kept
}

// guarded makes a membership of what may be sent.
func (s *Service) guarded(l *muster.Blocklist, entries []muster.ListEntry) *membership {
	m := &membership{guard: s.guard.Load(), readings: &readings{by: map[uint64]*reading{}}}
	m.entries = s.permitted(l, entries)
	slices.SortStableFunc(m.entries, func(a, b muster.ListEntry) int { return a.Source.Compare(b.Source) })
	m.entries = slices.CompactFunc(m.entries, func(a, b muster.ListEntry) bool { return a.Source == b.Source })
	for i := range m.entries {
		e := &m.entries[i]
		if l.Kind != muster.RuleList || e.Remedy == "" {
			e.Remedy = l.Remedy
		}
		if !e.Until.IsZero() && (m.ends.IsZero() || e.Until.Before(m.ends)) {
			m.ends = e.Until
		}
	}
	return m
}

// date says since when m is as it is: readers that have seen it need not read
// it again.
func (s *Service) date(m, former *membership, l *muster.Blocklist) {
	h := xxh3.New()
	var b []byte
	for i := range m.entries {
		b = m.entries[i].Source.AppendBinary(b[:0])
		_, _ = h.Write(b) // never fails
	}
	_, _ = h.WriteString(string(l.Remedy) + l.Lifetime.String())
	m.digest = h.Sum64()
	switch {
	case former != nil && former.digest == m.digest:
		m.updated = former.updated
		if sameEnds(former.entries, m.entries) {
			m.readings = former.readings
		}
	case former == nil && l.Kind == muster.FeedList:
		m.updated = s.FeedState(l.ID).ChangedAt
	default:
		m.updated = s.instant()
	}
}

// sameEnds reports whether entries of the same sources are the same in all else.
func sameEnds(a, b []muster.ListEntry) bool {
	return slices.EqualFunc(a, b, func(a, b muster.ListEntry) bool {
		return a.Source == b.Source && a.Until.Equal(b.Until) && a.Remedy == b.Remedy && a.Scenario == b.Scenario && a.Score == b.Score
	})
}

// maxReadings bounds what is kept for readers with allowlists of their own.
const maxReadings = 256

// read returns a list as a reader of an organisation gets it.
func (s *Service) read(ctx context.Context, l *muster.Blocklist, organisation string) (*reading, error) {
	at, m, err := s.members(ctx, l, organisation)
	if err != nil {
		return nil, err
	}
	var allowed *policy.Allowlist
	var version uint64
	if organisation != "" {
		allowed, version = s.cfg.Allowlist(organisation)
	}
	m.readings.mu.Lock()
	defer m.readings.mu.Unlock()
	if r := m.readings.by[version]; r != nil {
		return r, nil
	}
	if len(m.readings.by) >= maxReadings {
		clear(m.readings.by)
	}
	r := &reading{entries: m.entries, version: s.versions.Add(1), updated: m.updated}
	if version != 0 {
		// What an allowlist no longer covers has to be read.
		if met := at.met(version, s.instant()); met.After(r.updated) {
			r.updated = met
		}
		r.entries = without(m.entries, allowed)
	}
	for i := range r.entries {
		if r.entries[i].Source.IsRange() {
			r.ranges++
		}
	}
	for i := range r.entries {
		until := r.entries[i].Until
		if until.IsZero() {
			r.last = until
			break
		}
		if until.After(r.last) {
			r.last = until
		}
	}
	m.readings.by[version] = r
	return r, nil
}

// met returns when an allowlist was first met by this list.
func (at *slot) met(version uint64, now time.Time) time.Time {
	at.mu.Lock()
	defer at.mu.Unlock()
	met, ok := at.seen[version]
	if !ok {
		if len(at.seen) >= maxReadings {
			clear(at.seen)
		}
		met = now
		at.seen[version] = met
	}
	return met
}

// without leaves out what an allowlist covers.
func without(entries []muster.ListEntry, allowed *policy.Allowlist) []muster.ListEntry {
	covered := func(e muster.ListEntry) bool {
		_, ok := allowed.Covers(e.Source)
		return ok
	}
	if !slices.ContainsFunc(entries, covered) {
		return entries
	}
	return slices.DeleteFunc(slices.Clone(entries), covered)
}

// bodies returns what the link of a scope answers with: a value on each line, and
// nothing else, because engines reject a whole list for a blank line.
func (r *reading) bodies(scope string) (plain, zipped []byte) {
	r.once.Do(func() {
		r.addresses.plain = make([]byte, 0, 16*(len(r.entries)-r.ranges))
		for i := range r.entries {
			if source := r.entries[i].Source; source.IsRange() {
				r.networks.plain = append(source.Prefix().AppendTo(r.networks.plain), '\n')
			} else {
				r.addresses.plain = append(source.Addr().AppendTo(r.addresses.plain), '\n')
			}
		}
		r.addresses.zip()
		r.networks.zip()
	})
	if scope == scopeRange {
		return r.networks.plain, r.networks.gzip
	}
	return r.addresses.plain, r.addresses.gzip
}

func (t *text) zip() {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(t.plain) // to memory
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		t.gzip = b.Bytes()
	}
}

// lasts returns for how long the last of the entries does, up to a lifetime:
// nobody keeps a list beyond what is on it.
func (r *reading) lasts(lifetime time.Duration, now time.Time) time.Duration {
	if r.last.IsZero() {
		return lifetime
	}
	return max(min(lifetime, r.last.Sub(now)), time.Minute)
}

// Entries returns what is on a list for a reader of an organisation ("" = the
// operators), without anything that is reserved, a canary or allowlisted, also
// by that organisation; in order of the addresses. The slice is shared: do not
// change it. The version changes with the content. Errors are of code NotFound
// for a list that is not there, or not for that organisation.
func (s *Service) Entries(ctx context.Context, list, organisation string) (entries []muster.ListEntry, version uint64, err error) {
	l, err := s.listFor(list, organisation)
	if err != nil {
		return nil, 0, err
	}
	r, err := s.read(ctx, l, organisation)
	if err != nil {
		return nil, 0, err
	}
	return r.entries, r.version, nil
}

// listFor finds a list by its id that an organisation may read.
func (s *Service) listFor(id, organisation string) (*muster.Blocklist, error) {
	l := s.state.Load().lists[id]
	if l == nil || !MayRead(l, organisation) {
		return nil, muster.Errorf(muster.NotFound, "there is no blocklist %q for this organisation", clip(id))
	}
	return l, nil
}

// MayRead reports whether an organisation ("" = the operators) may subscribe to
// a list: its own, those shared with it, and those of the installation that are
// shared with nobody in particular.
func MayRead(l *muster.Blocklist, organisation string) bool {
	return organisation == "" || l.Organisation == organisation || l.Organisation == "" && len(l.SharedWith) == 0 ||
		slices.Contains(l.SharedWith, organisation) || slices.Contains(l.SharedWith, "*")
}

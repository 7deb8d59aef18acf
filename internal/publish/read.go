package publish

import (
	"net/netip"
	"slices"
	"time"

	"muster"
)

// Each calls fn for everything that is listed for an audience, in no order,
// until fn returns false. It is a snapshot: fn may take its time and may call
// the publisher. What Allowed refuses and what has lapsed is left out; ranges
// and their members are both given, and so is what engines are not told because
// its remedy is no ban.
func (p *Publisher) Each(a muster.Audience, fn func(muster.ListEntry) bool) {
	now := p.cfg.Now()
	p.mu.RLock()
	s := p.audience(a)
	rows := slices.Clone(s.rows)
	buckets := make([]bucketKey, len(s.bucketList))
	for i, b := range s.bucketList {
		if b != nil {
			buckets[i] = b.bucketKey
		}
	}
	p.mu.RUnlock()
	for i := range rows {
		r := &rows[i]
		if r.key == (key{}) || !p.readable(r, now) {
			continue
		}
		if !fn(entryOf(r, &buckets[r.bucket], now)) {
			return
		}
	}
}

// readable reports whether a row is given to others.
func (p *Publisher) readable(r *row, now time.Time) bool {
	return int64(r.until) > now.Unix() && !p.cfg.Allowed(r.key.source())
}

func entryOf(r *row, b *bucketKey, now time.Time) muster.ListEntry {
	e := muster.ListEntry{
		Source: r.key.source(), Scenario: b.scenario, Remedy: b.remedy,
		Until: time.Unix(int64(r.until), 0).UTC(), Score: score(r.rank, now),
	}
	if r.since > 0 {
		e.Since = time.Unix(int64(r.since), 0).UTC()
	}
	return e
}

// Lookup returns the listing of an address for an audience: its own, or that of
// the narrowest listed range around it. It allocates nothing.
func (p *Publisher) Lookup(a muster.Audience, addr netip.Addr) (muster.ListEntry, bool) {
	if !addr.IsValid() {
		return muster.ListEntry{}, false
	}
	now, s := p.cfg.Now(), p.network
	if a != muster.Network {
		if s = p.fleet(string(a)); s == nil {
			return muster.ListEntry{}, false
		}
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	r := s.find(addr, func(r *row) bool { return p.readable(r, now) })
	if r == nil {
		return muster.ListEntry{}, false
	}
	return entryOf(r, &s.bucketList[r.bucket].bucketKey, now), true
}

// Version returns a number that grows whenever what Each and Lookup say of an
// audience may have changed other than by time.
func (p *Publisher) Version(a muster.Audience) uint64 {
	return p.audience(a).version.Load() + p.truth.Load()
}

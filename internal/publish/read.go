package publish

import (
	"net/netip"

	"muster"
)

// Each calls fn for everything that is listed for an audience, in no order,
// until fn returns false. It is a snapshot: fn may take its time and may call
// the publisher. What Allowed refuses and what has lapsed is left out; ranges
// and their members are both given.
func (p *Publisher) Each(a muster.Audience, fn func(muster.ListEntry) bool) {
	now := p.cfg.Now()
	p.mu.RLock()
	set := p.audience(a)
	entries := make([]muster.ListEntry, 0, len(set.listed))
	for s, l := range set.listed {
		if l.until.After(now) {
			entries = append(entries, muster.ListEntry{Source: s, Scenario: l.scenario, Remedy: muster.RemedyBan, Until: l.until})
		}
	}
	p.mu.RUnlock()
	for _, e := range entries {
		if e.Source.IsReserved() || p.cfg.Allowed(e.Source) {
			continue
		}
		if !fn(e) {
			return
		}
	}
}

// Lookup returns the listing of an address for an audience: its own, or that of
// the narrowest listed range around it. It allocates nothing.
func (p *Publisher) Lookup(a muster.Audience, addr netip.Addr) (muster.ListEntry, bool) {
	now := p.cfg.Now()
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return muster.ListEntry{}, false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	set := p.audience(a)
	for bits := addr.BitLen(); bits >= 8; bits-- {
		s := muster.SourceFromPrefix(netip.PrefixFrom(addr, bits))
		l, ok := set.listed[s]
		if !ok || !l.until.After(now) || s.IsReserved() || p.cfg.Allowed(s) {
			continue
		}
		return muster.ListEntry{Source: s, Scenario: l.scenario, Remedy: muster.RemedyBan, Until: l.until}, true
	}
	return muster.ListEntry{}, false
}

// Version returns a number that grows whenever what Each and Lookup say of an
// audience may have changed other than by time.
func (p *Publisher) Version(a muster.Audience) uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.audience(a).version
}

package publish

import (
	"bytes"
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"muster"
)

// deletions is the deleted part of answers, for readers who were here last at
// about the same time.
type deletions struct {
	mu       sync.Mutex
	used     atomic.Int64
	fragment *fragment // nil when there are none
	basis    basis
	made     time.Time
}

type deletionsKey struct {
	organisation string
	hour         int64 // since when, in hours since 1970; 0 = ever
	version      Version
}

const (
	// repeat is for how long before its last pull a reader is told again what was
	// withdrawn: the answer may have been lost on the way, and the one before.
	// Engines pull every two hours.
	repeat = 4*time.Hour + 30*time.Minute
	// maxWithdrawn bounds the deletions in an answer: engines make a database query
	// of each (protocol.md 3.2).
	maxWithdrawn = 5_000
)

// deleted returns the deletions for a reader, nil when there are none.
func (p *Publisher) deleted(r *Reader, fleet *set, v Version, now time.Time) *fragment {
	if p.network.withdrawals.Load() == 0 && (fleet == nil || fleet.withdrawals.Load() == 0) {
		return nil
	}
	k := deletionsKey{version: v}
	if fleet != nil {
		k.organisation = r.Organisation
	}
	if !r.Startup && !r.LastPull.IsZero() && r.LastPull.Before(now) {
		k.hour = r.LastPull.Add(-repeat).Unix() / 3600
	}
	d := p.deletions.get(k, func() *deletions { return new(deletions) }, func(d *deletions) int64 { return d.used.Load() })
	d.used.Store(now.Unix())
	b := basis{network: p.network.withdrawals.Load()}
	if fleet != nil {
		b.fleet, b.network = fleet.version.Load(), p.network.version.Load()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	age := now.Sub(d.made)
	if !d.made.IsZero() && age >= 0 && age < time.Hour && (d.basis == b || age < coalesce) {
		return d.fragment
	}
	d.fragment, d.basis, d.made = p.collectDeleted(k, fleet, now), b, now
	return d.fragment
}

// collectDeleted encodes the withdrawals since an hour that are still good for
// something.
func (p *Publisher) collectDeleted(k deletionsKey, fleet *set, now time.Time) *fragment {
	p.mu.RLock()
	defer p.mu.RUnlock()
	since, at := uint32(k.hour*3600), uint32(now.Unix())
	type found struct {
		key key
		at  uint32
	}
	var all []found
	collect := func(from, other *set) {
		for k, w := range from.withdrawn {
			if w.until <= at || w.at < since {
				continue
			}
			if other != nil {
				if r := other.listed(k); r != nil && r.block != noBlock {
					continue
				}
			}
			all = append(all, found{k, w.at})
		}
	}
	if fleet != nil {
		collect(fleet, p.network)
	}
	collect(p.network, fleet)
	if len(all) > maxWithdrawn {
		p.cfg.Logger.Warn("more addresses were withdrawn than one pull tells; engines hold the others until their ends",
			"count", len(all), "told", maxWithdrawn)
		slices.SortFunc(all, func(a, b found) int { return cmp.Or(cmp.Compare(b.at, a.at), bytes.Compare(a.key[:], b.key[:])) })
		all = all[:maxWithdrawn]
	}
	slices.SortFunc(all, func(a, b found) int { return bytes.Compare(a.key[:], b.key[:]) })
	all = slices.CompactFunc(all, func(a, b found) bool { return a.key == b.key })
	sources := make([]muster.Source, len(all))
	for i := range all {
		sources[i] = all[i].key.source()
	}
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	f, dropped := e.encodeDeleted(sources, k.version)
	if dropped > 0 {
		p.dropped.Add(float64(dropped))
		p.cfg.Logger.Error("the outbound guard kept deletions off the blocklist that engines would choke on", "count", dropped)
	}
	return f
}

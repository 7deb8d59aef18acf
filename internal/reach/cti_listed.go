package reach

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sort"
	"time"

	"muster"
)

// listing is what stands on the network's list at a moment, in order and in
// little memory: counted around an address, and given page by page.
type listing struct {
	version uint64
	at      time.Time
	v4      []uint32           // addresses
	lines   []muster.ListEntry // of IPv6: addresses and /64s
	ranges  []muster.ListEntry
}

// listingKeep is how long a listing is used although the list has changed.
const listingKeep = 10 * time.Second

// listed returns what is listed now, or was a moment ago.
func (l *Lookups) listed() *listing {
	now, version := l.cfg.Now(), l.cfg.Community.Version(muster.Network)
	l.listingMu.Lock()
	defer l.listingMu.Unlock()
	if have := l.listing; have != nil && (have.version == version && now.Sub(have.at) < time.Hour || now.Sub(have.at) < listingKeep) {
		return have
	}
	n := &listing{version: version, at: now}
	l.cfg.Community.Each(muster.Network, func(e muster.ListEntry) bool {
		switch {
		case e.Remedy == muster.RemedyCaptcha || l.forbidden(e.Source):
		case !single(e.Source):
			n.ranges = append(n.ranges, e)
		case e.Source.Addr().Is4():
			n.v4 = append(n.v4, number4(e.Source.Addr()))
		default:
			n.lines = append(n.lines, e)
		}
		return true
	})
	slices.Sort(n.v4)
	bySource := func(a, b muster.ListEntry) int { return a.Source.Compare(b.Source) }
	slices.SortFunc(n.lines, bySource)
	slices.SortFunc(n.ranges, bySource)
	l.listing = n
	return n
}

func number4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func addr4(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// size is how many lines there are, ranges left out.
func (n *listing) size() int { return len(n.v4) + len(n.lines) }

// page returns addresses in order, those of lines for lines.
func (n *listing) page(skip, limit int) []netip.Addr {
	var addrs []netip.Addr
	for i := skip; i < min(skip+limit, n.size()); i++ {
		if i < len(n.v4) {
			addrs = append(addrs, addr4(n.v4[i]))
		} else {
			addrs = append(addrs, n.lines[i-len(n.v4)].Source.Addr())
		}
	}
	return addrs
}

// within counts the lines in a range.
func (n *listing) within(p netip.Prefix) int {
	p = p.Masked()
	if p.Addr().Is4() {
		first := number4(p.Addr())
		last := first | uint32(uint64(1)<<(32-p.Bits())-1)
		from, _ := slices.BinarySearch(n.v4, first)
		to := sort.Search(len(n.v4), func(i int) bool { return n.v4[i] > last })
		return to - from
	}
	from := sort.Search(len(n.lines), func(i int) bool { return n.lines[i].Source.Addr().Compare(p.Addr()) >= 0 })
	return sort.Search(len(n.lines)-from, func(i int) bool { return !p.Contains(n.lines[from+i].Source.Addr()) })
}

// each calls fn with everything that is listed and may still be told, in order:
// addresses, lines of IPv6, ranges.
func (l *Lookups) each(n *listing, fn func(muster.ListEntry) error) error {
	now := l.cfg.Now()
	for _, number := range n.v4 {
		addr := addr4(number)
		e, ok := l.cfg.Community.Lookup(muster.Network, addr)
		if !ok || e.Source.IsRange() || e.Remedy == muster.RemedyCaptcha || l.forbidden(e.Source) {
			continue // it left the list a moment ago
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	for _, list := range [...][]muster.ListEntry{n.lines, n.ranges} {
		for _, e := range list {
			if !e.Until.After(now) || l.forbidden(e.Source) {
				continue
			}
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetAfter is how long what nobody asks for is kept.
const forgetAfter = 15 * time.Minute

// forget lets go of what nobody has asked for of late.
func (l *Lookups) forget() {
	now := l.cfg.Now()
	l.listingMu.Lock()
	if l.listing != nil && now.Sub(l.listing.at) > time.Hour {
		l.listing = nil
	}
	l.listingMu.Unlock()
	l.dumpMu.Lock()
	defer l.dumpMu.Unlock()
	for format, d := range l.dumps {
		if now.Sub(d.used) > forgetAfter {
			delete(l.dumps, format)
		}
	}
}

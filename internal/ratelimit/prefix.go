package ratelimit

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"muster"
)

// PrefixOf returns what stands for one client on the network: a v4 address
// itself (v4-mapped ones unmapped), a v6 address's /64, because a subscriber
// line has all of it. Whoever has more, as hosters do with a /48 or a /32, has
// as many clients: what bounds the harm is the Limiter's fixed memory, and an
// operator can ban the whole range.
func PrefixOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	p, _ := addr.Prefix(min(addr.BitLen(), 64)) // the zero Addr gives the zero Prefix
	return p
}

// ParsePrefix reads an address or a range in CIDR form, in the form in which
// bans and overrides know it: masked, v4-mapped unmapped, and a v6 address or a
// v6 range longer than /64 as its /64. Errors are of code Invalid.
func ParsePrefix(text string) (netip.Prefix, error) {
	text = strings.TrimSpace(text)
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, muster.Errorf(muster.Invalid, "expected an address or a range like 198.51.100.0/24, got %q", clip(text))
		}
		return PrefixOf(addr), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, muster.Errorf(muster.Invalid, "expected an address or a range like 198.51.100.0/24, got %q", clip(text))
	}
	return canonical(p)
}

// canonical is ParsePrefix for what is parsed already.
func canonical(p netip.Prefix) (netip.Prefix, error) {
	addr, bits := p.Addr(), p.Bits()
	switch {
	case !p.IsValid():
		return netip.Prefix{}, muster.Errorf(muster.Invalid, "expected an address or a range, got none")
	case addr.Is4In6() && bits < 96:
		return netip.Prefix{}, muster.Errorf(muster.Invalid, "the range %s is part v4, part v6: write the v4 part as 0.0.0.0/0", p)
	case addr.Is4In6():
		addr, bits = addr.Unmap(), bits-96
	}
	return netip.PrefixFrom(addr.WithZone(""), min(bits, 64)).Masked(), nil
}

// exactKey returns the v4 address, or the first half of the v6 address.
func exactKey(addr netip.Addr) uint64 {
	if addr.Is4() {
		b := addr.As4()
		return uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := addr.As16()
	return binary.BigEndian.Uint64(b[:8])
}

// ranges finds the prefixes that an address is in, for one address family. The
// prefixes, nested as they may be, are cut into spans in order of address, each
// with the narrowest prefix over it: a lookup is one binary search, then a walk
// outwards. It is immutable.
type ranges[T any] struct {
	starts []uint64
	over   []*inRange[T] // parallel to starts; nil: no prefix
}

type inRange[T any] struct {
	first, last uint64
	value       T
	wider       *inRange[T] // the narrowest prefix around this one
}

// rangesOf builds ranges for the canonical prefixes of one family in m.
func rangesOf[T any](m map[netip.Prefix]T, v4 bool) *ranges[T] {
	var all []*inRange[T]
	for p, value := range m {
		if p.Addr().Is4() != v4 {
			continue
		}
		width := 64 // of a v6 range only the first half counts: none is longer than /64
		if v4 {
			width = 32
		}
		first := exactKey(p.Addr())
		span := uint64(1)<<(width-p.Bits()) - 1 // 1<<64 is 0: all ones for ::/0
		all = append(all, &inRange[T]{first: first, last: first | span, value: value})
	}
	slices.SortFunc(all, func(a, b *inRange[T]) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(b.last, a.last))
	})
	r := &ranges[T]{}
	var open *inRange[T]
	for _, next := range all {
		for open != nil && open.last < next.first {
			r.cut(open.last+1, open.wider)
			open = open.wider
		}
		next.wider, open = open, next
		r.cut(next.first, next)
	}
	for ; open != nil && open.last+1 != 0; open = open.wider {
		r.cut(open.last+1, open.wider)
	}
	return r
}

// cut starts a span; the last of several that start at one address holds.
func (r *ranges[T]) cut(start uint64, over *inRange[T]) {
	if n := len(r.starts); n > 0 && r.starts[n-1] == start {
		r.over[n-1] = over
		return
	}
	r.starts, r.over = append(r.starts, start), append(r.over, over)
}

// find returns the narrowest prefix around key, or nil.
func (r *ranges[T]) find(key uint64) *inRange[T] {
	if r == nil || len(r.starts) == 0 {
		return nil
	}
	i, found := slices.BinarySearch(r.starts, key)
	if !found {
		i--
	}
	if i < 0 {
		return nil
	}
	return r.over[i]
}

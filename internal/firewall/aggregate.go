package firewall

import (
	"math"
	"net/netip"
	"sort"

	"muster"
)

// Aggregation says how neighbours are put together into ranges.
type Aggregation struct {
	// Collateral is the largest share of a range's addresses that may be covered
	// without being listed: 0 puts together only what covers exactly the same
	// addresses; muster.MaxCollateral at most. Ranges wider than /24 and, of IPv6,
	// /64, which can belong to several customers, are made without collateral only.
	Collateral float64
	// Forbidden reports whether any address of a range must never be covered. Only
	// ranges with collateral are asked about.
	Forbidden func(muster.Source) bool
}

// Aggregate appends to out the fewest ranges that cover all of sorted, in order,
// each of them within a's terms. sorted is in the order of netip.Prefix.Compare;
// one may be inside another.
func Aggregate(out, sorted []netip.Prefix, a Aggregation) []netip.Prefix {
	v6 := sort.Search(len(sorted), func(i int) bool { return sorted[i].Addr().Is6() })
	for _, family := range [][]netip.Prefix{sorted[:v6], sorted[v6:]} {
		if len(family) > 0 {
			out, _ = a.put(out, family)
		}
	}
	return out
}

// span is the narrowest range around some entries.
type span struct {
	netip.Prefix
	full   bool    // every address of it is listed
	listed float64 // the share of its addresses that is; full does not depend on its rounding
}

// put appends what covers list, which is not empty and of one family.
func (a Aggregation) put(out, list []netip.Prefix) ([]netip.Prefix, span) {
	around := span{Prefix: list[0], full: true, listed: 1}
	if len(list) > 1 {
		around.Prefix = common(list[0], list[len(list)-1])
	}
	if around.Bits() == list[0].Bits() {
		return append(out, around.Prefix), around // the rest is inside it
	}
	// Both halves have entries, or a narrower range would be around them.
	half := sort.Search(len(list), func(i int) bool { return bitOf(list[i].Addr(), around.Bits()) })
	mark := len(out)
	around.listed = 0
	for _, part := range [][]netip.Prefix{list[:half], list[half:]} {
		var inner span
		out, inner = a.put(out, part)
		around.full = around.full && inner.full && inner.Bits() == around.Bits()+1
		around.listed += math.Ldexp(inner.listed, around.Bits()-inner.Bits())
	}
	if around.full || a.Collateral > 0 && around.listed >= 1-a.Collateral && a.mayRound(around.Prefix) {
		out = append(out[:mark], around.Prefix)
	}
	return out, around
}

// mayRound reports whether p may be covered without being listed as a whole.
func (a Aggregation) mayRound(p netip.Prefix) bool {
	if p.Bits() < 24 || p.Addr().Is6() && p.Bits() < 64 {
		return false
	}
	s := muster.SourceFromPrefix(p)
	return !s.IsReserved() && (a.Forbidden == nil || !a.Forbidden(s))
}

// common returns the narrowest range around two of one family.
func common(a, b netip.Prefix) netip.Prefix {
	x, y := a.Addr().As16(), b.Addr().As16()
	skip := 128 - a.Addr().BitLen()
	bits := min(a.Bits(), b.Bits())
	for i := range bits {
		if at := skip + i; (x[at/8]^y[at/8])&(1<<(7-at%8)) != 0 {
			bits = i
			break
		}
	}
	return netip.PrefixFrom(a.Addr(), bits).Masked()
}

func bitOf(addr netip.Addr, bit int) bool {
	raw := addr.As16()
	at := 128 - addr.BitLen() + bit
	return raw[at/8]&(1<<(7-at%8)) != 0
}

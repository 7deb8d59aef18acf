package firewall

import (
	"net/netip"
	"slices"

	"muster"
)

// Aggregation says how neighbours are put together into ranges.
type Aggregation struct {
	// Collateral is the largest share of a range's addresses that may be covered
	// without being listed: 0 puts together only what covers exactly the same
	// addresses; muster.MaxCollateral at most.
	Collateral float64
	// Forbidden reports whether any address of a range must never be covered. Only
	// ranges with collateral are asked about.
	Forbidden func(muster.Source) bool
}

// Aggregate returns the fewest ranges that cover all of sorted, in order, under
// a's terms for each of them. sorted is in the order of netip.Prefix.Compare; one
// may be inside another. The ranges are appended to out.
func Aggregate(out, sorted []netip.Prefix, a Aggregation) []netip.Prefix {
	split, _ := slices.BinarySearchFunc(sorted, 32, func(p netip.Prefix, bits int) int { return p.Addr().BitLen() - bits - 1 })
	for _, family := range [][]netip.Prefix{sorted[:split], sorted[split:]} {
		if len(family) > 0 {
			out, _, _ = a.put(out, family)
		}
	}
	return out
}

// put appends what covers list, which is not empty and of one family, and
// returns the narrowest range around all of it, with the share of it that is
// listed. That share is exact while the range is at most 2^53 times as large as
// its smallest part, and with that whenever it matters: all or half of it.
func (a Aggregation) put(out, list []netip.Prefix) ([]netip.Prefix, netip.Prefix, float64) {
	around := list[0]
	if len(list) > 1 {
		around = common(around, list[len(list)-1])
	}
	if around.Bits() == list[0].Bits() {
		return append(out, around), around, 1 // the rest is inside it
	}
	// The two halves of around both have entries.
	half, _ := slices.BinarySearchFunc(list, around.Bits(), func(p netip.Prefix, bit int) int {
		if bitOf(p.Addr(), bit) {
			return 1
		}
		return -1
	})
	mark, listed := len(out), 0.0
	for _, part := range [][]netip.Prefix{list[:half], list[half:]} {
		var inner netip.Prefix
		var share float64
		out, inner, share = a.put(out, part)
		for range inner.Bits() - around.Bits() {
			share /= 2
		}
		listed += share
	}
	if listed == 1 || a.Collateral > 0 && listed >= 1-a.Collateral && !a.forbidden(around) {
		out = append(out[:mark], around)
	}
	return out, around, listed
}

func (a Aggregation) forbidden(p netip.Prefix) bool {
	s := muster.SourceFromPrefix(p)
	return s.IsReserved() || a.Forbidden != nil && a.Forbidden(s)
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

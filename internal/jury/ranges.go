package jury

import (
	"net/netip"
	"slices"

	"muster"
	"muster/internal/crowd"
)

// A range is convicted when enough of its members are, by voices of which none
// had a hand in most convictions: whoever holds the range moves within it. Then
// it is listed beside its members, and readers are sent it in their place.

// convicted is a range that is listed for the network.
type convicted struct {
	Range string `json:"range"`
	Since int64  `json:"since"`
	Until int64  `json:"until"` // as told
}

// The sizes of ranges and of their members.
const (
	rangeBits4, memberBits4 = 24, 32
	rangeBits6, memberBits6 = 56, 64
)

// rangeAround returns the range that a source is a member of; false when it is
// no member of any.
func rangeAround(s muster.Source) (muster.Source, bool) {
	p := s.Prefix()
	switch {
	case p.Addr().Is4() && p.Bits() == memberBits4:
		return muster.SourceFromPrefix(netip.PrefixFrom(p.Addr(), rangeBits4)), true
	case p.Addr().Is6() && p.Bits() == memberBits6:
		return muster.SourceFromPrefix(netip.PrefixFrom(p.Addr(), rangeBits6)), true
	}
	return muster.Source{}, false
}

// members yields the 256 places of a range where there is evidence.
func (w *Worker) members(r muster.Source, yield func(muster.Source, *held)) {
	p := r.Prefix()
	raw, place, bits := p.Addr().AsSlice(), 3, memberBits4
	if p.Addr().Is6() {
		place, bits = 7, memberBits6
	}
	for i := range 256 {
		raw[place] = byte(i)
		addr, _ := netip.AddrFromSlice(raw) // of the length that it had
		s := muster.SourceFromPrefix(netip.PrefixFrom(addr, bits))
		if h := w.evidence.get(s); h != nil {
			yield(s, h)
		}
	}
}

// touch notes that a member of a range was listed or withdrawn.
func (w *Worker) touch(s muster.Source) {
	if r, ok := rangeAround(s); ok && !w.touched[r] {
		w.touched[r] = true
		w.change.timed = true
	}
}

// touchSelf notes that a range was listed for another reason, and is no longer.
func (w *Worker) touchSelf(r muster.Source) {
	p := r.Prefix()
	if p.Addr().Is4() && p.Bits() == rangeBits4 || p.Addr().Is6() && p.Bits() == rangeBits6 {
		w.touched[r] = true
		w.change.timed = true
	}
}

// judgeRanges judges the ranges whose members changed since the last tick.
func (w *Worker) judgeRanges() {
	if len(w.touched) == 0 {
		return
	}
	ranges := make([]muster.Source, 0, len(w.touched))
	for r := range w.touched {
		ranges = append(ranges, r)
	}
	clear(w.touched)
	slices.SortFunc(ranges, muster.Source.Compare)
	for _, r := range ranges {
		w.judgeRange(r)
	}
}

func (w *Worker) judgeRange(r muster.Source) {
	var members []crowd.Member
	until, first, last := int64(0), int64(0), int64(0)
	scenario := uint16(0)
	w.members(r, func(_ muster.Source, h *held) {
		end, listed := h.ev.Listed(crowd.Network)
		if !listed {
			return
		}
		members = append(members, crowd.Member{Supporters: w.table.Supporters(&h.ev, w.tick, nil)})
		until, last = max(until, end), max(last, h.ev.Last())
		if first == 0 || h.ev.First() < first {
			first = h.ev.First()
		}
		if b := h.ev.Behaviours(); len(b) > 0 && scenario == 0 {
			scenario = b[0].Index
		}
	})
	before, was := w.ranges[r]
	// What is reported about the range itself is judged by its own evidence. That
	// somebody good is inside is asked last, because it takes longest to find out.
	rule := w.cfg.Parameters.Range
	is := w.evidence.get(r) == nil && rule.ConvictRange(r.Addr().Is6(), false, members) &&
		rule.ConvictRange(r.Addr().Is6(), w.goodInside(r), members)
	const granularity = 60 * 60 // as of listings: their ends are told when they move by an hour
	switch {
	case !was && !is, was && is && until-before.Until < granularity && until >= before.Until:
		return
	case !is:
		delete(w.ranges, r)
	case was:
		before.Until = until
		w.ranges[r] = before
	default:
		before = convicted{r.String(), w.tick, until}
		w.ranges[r] = before
	}
	w.change.timed = true
	if h := w.evidence.get(r); h != nil && h.order().since != 0 {
		return // it stays listed, at an operator's word
	}
	name := w.numbers[scenarios].name(uint32(scenario))
	w.tell(muster.Verdict{
		Source: r, Audience: muster.Network, Listed: is, Remedy: muster.RemedyBan, Scenario: name,
		Since: instant(before.Since), Until: instant(before.Until),
		Reasons: muster.Reasons{
			Machines: len(members), Scenarios: []string{name}, First: first, Last: last,
			Rule: rangeRule(is), Basis: "range", Epoch: w.epoch, Parameters: w.cfg.Parameters.Version,
		},
	})
}

// goodInside reports whether a range must not be listed as a whole: it is known
// to be good, or shared, or one in it was let off lately.
func (w *Worker) goodInside(r muster.Source) bool {
	facts := w.facts(r, nil)
	good := facts.Never != "" || facts.Canary || facts.Shared
	w.members(r, func(s muster.Source, h *held) {
		f := w.facts(s, h) // its AS and its name are known with it alone
		good = good || f.Canary || w.table.Explain(&h.ev, w.tick, f).Probation
	})
	return good
}

func rangeRule(listed bool) string {
	if listed {
		return "listed: so many of its addresses were convicted, by independent voices, that it is listed as a whole"
	}
	return "ended: too few of its addresses are convicted by independent voices"
}

package crowd

import (
	"math"
	"slices"
)

// Member is a convicted address (v4) or /64 (v6) of a range.
type Member struct {
	// Supporters are the groups behind its conviction, see TrustTable.Supporters.
	Supporters []uint32
}

// Supporters appends the independent groups (AS, or organisations while the
// network is small) above suspicion that support a listing of the source.
func (t *TrustTable) Supporters(ev *Evidence, now int64, groups []uint32) []uint32 {
	at := max(clock(now), 1)
	from := len(groups)
	var c choir
	c.gather(t, ev, at)
	for i := range c.parts[:c.n] {
		m := &c.parts[i]
		group := m.as
		if t.small {
			group = ev.voices[m.voice].organisation
		}
		if m.clear && m.points >= t.minVoice && !slices.Contains(groups[from:], group) {
			groups = append(groups, group)
		}
	}
	return groups
}

// ConvictRange reports whether a /24 (v4) or /56 (v6) is to be listed in place
// of its convicted members: enough of them, convicted by groups of which none
// had a hand in most convictions. good says that a canary, an allowlisted or an
// unbanned address is inside: then never.
func (p Range) ConvictRange(v6, good bool, members []Member) bool {
	needed := p.MembersV4
	if v6 {
		needed = p.MembersV6
	}
	if good || len(members) < needed {
		return false
	}
	hands := map[uint32]int{}
	for _, m := range members {
		for i, g := range m.Supporters {
			if !slices.Contains(m.Supporters[:i], g) {
				hands[g]++
			}
		}
	}
	most := int(math.Floor(p.OneGroup * float64(len(members))))
	for _, n := range hands {
		if n > most {
			return false
		}
	}
	return len(hands) >= p.Groups
}

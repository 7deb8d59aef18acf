package firewall

import (
	"cmp"
	"net/netip"
	"slices"

	"muster"
)

// Entry is something that a reader may be told to keep out.
type Entry struct {
	Source muster.Source
	Own    bool    // the reader's own organisation met it
	Score  float32 // more is more certain
	Until  int64   // when it ends, Unix seconds; of the same score, what was met later ends later
}

// Needs is what one reader can use.
type Needs struct {
	Max    int  // most entries; 0 = no limit
	NoIPv4 bool // it reads none
	NoIPv6 bool
	// NoRanges writes ranges of up to 256 addresses as addresses, and leaves wider
	// ones out.
	NoRanges   bool
	Separate   bool                     // nothing is put together
	Collateral float64                  // see Aggregation
	Forbidden  func(muster.Source) bool // what must never be covered; nil = nothing but what is reserved
}

// Choice is what a reader is given.
type Choice struct {
	Entries []netip.Prefix // in order of the addresses
	Of      int            // how many there were to choose from, after ranges were written as addresses
	Chosen  int            // how many of those are covered by Entries because they were chosen
	Wide    int            // ranges that were left out, see Needs.NoRanges
	// Holds are the sources that were chosen, when there was not room for all: what
	// the next Choose is to be given.
	Holds map[muster.Source]struct{}
}

// headroom is the share of a reader's limit that is only for entries that it had
// before: an entry has to rank above it to come in, and stays until it is beyond
// the limit. So nothing comes and goes with every pull because it ranks at the
// edge, and a reader that adds what is new before it removes what is old has
// room for that.
const headroom = 0.1

// widest is the prefix length of the widest IPv4 range that is written as
// addresses; of IPv6 ranges it is /120.
const widest = 24

// Choose returns the most useful entries that fit, its own organisation's first,
// then by score, then what was met last. held are the Holds of the choice before. Nothing that is
// reserved or forbidden is ever in a choice.
func Choose(entries []Entry, held map[muster.Source]struct{}, needs Needs) Choice {
	c := &chooser{needs: needs}
	c.admit(entries)
	choice := Choice{Of: len(c.able), Wide: c.wide}
	everybody := func(*candidate) bool { return true }
	all := c.fit(len(c.able), everybody)
	if needs.Max <= 0 || len(all) <= needs.Max {
		choice.Entries, choice.Chosen = slices.Clone(all), len(c.able)
		return choice
	}
	c.rank(held)
	// The best that fill what is not reserved for those that are held, and of
	// those that are held the best that still fit.
	room := needs.Max - int(float64(needs.Max)*headroom)
	in := most(0, len(c.able), room, func(rank int) int { return len(c.fit(rank, everybody)) })
	out := most(in, len(c.able), needs.Max, func(rank int) int { return len(c.fit(rank, everybody)) })
	stays := func(e *candidate) bool { return e.rank < in || e.held }
	out = most(in, out, needs.Max, func(rank int) int { return len(c.fit(rank, stays)) })
	choice.Entries = slices.Clone(c.fit(out, stays))
	choice.Holds = make(map[muster.Source]struct{}, needs.Max)
	for i := range c.able {
		if e := &c.able[i]; e.rank < out && stays(e) {
			choice.Holds[e.Source] = struct{}{}
		}
	}
	choice.Chosen = len(choice.Holds)
	return choice
}

// candidate is an entry with its place among all.
type candidate struct {
	Entry
	rank int // from 0, the best; before they are ranked 0 for all
	held bool
}

// chooser holds the memory of a choice, which looks at the same entries several
// times.
type chooser struct {
	needs  Needs
	able   []candidate // in order of the addresses
	wide   int
	picked []netip.Prefix
	merged []netip.Prefix
}

// admit takes what the reader can use, each source once.
func (c *chooser) admit(entries []Entry) {
	c.able = make([]candidate, 0, len(entries))
	for _, e := range entries {
		p := e.Source.Prefix()
		switch {
		case !p.IsValid(), p.Addr().Is4() && c.needs.NoIPv4, p.Addr().Is6() && c.needs.NoIPv6, c.forbidden(e.Source):
		case !e.Source.IsRange() || !c.needs.NoRanges:
			c.able = append(c.able, candidate{Entry: e})
		case p.Addr().BitLen()-p.Bits() > 32-widest:
			c.wide++
		default:
			for addr := p.Addr(); p.Contains(addr); addr = addr.Next() {
				one := e
				one.Source = muster.SourceFromAddr(addr)
				c.able = append(c.able, candidate{Entry: one})
			}
		}
	}
	slices.SortFunc(c.able, func(a, b candidate) int { return cmp.Or(a.Source.Compare(b.Source), a.before(&b)) })
	c.able = slices.CompactFunc(c.able, func(a, b candidate) bool { return a.Source == b.Source })
}

// before orders entries by their use to the reader.
func (e *candidate) before(other *candidate) int {
	switch {
	case e.Own != other.Own:
		if e.Own {
			return -1
		}
		return 1
	case e.Score != other.Score:
		return cmp.Compare(other.Score, e.Score)
	}
	return cmp.Compare(other.Until, e.Until)
}

// rank gives every entry its rank; of the same use, the lower address is first.
func (c *chooser) rank(held map[muster.Source]struct{}) {
	order := make([]*candidate, len(c.able))
	for i := range c.able {
		order[i] = &c.able[i]
		_, order[i].held = held[order[i].Source]
	}
	slices.SortStableFunc(order, func(a, b *candidate) int { return a.before(b) })
	for rank, e := range order {
		e.rank = rank
	}
}

func (c *chooser) forbidden(s muster.Source) bool {
	return s.IsReserved() || c.needs.Forbidden != nil && c.needs.Forbidden(s)
}

// fit returns what covers those that rank above rank and that keep wants. The
// slice is the chooser's, until the next fit.
func (c *chooser) fit(rank int, keep func(*candidate) bool) []netip.Prefix {
	c.picked = c.picked[:0]
	for i := range c.able {
		if e := &c.able[i]; e.rank < rank && keep(e) {
			c.picked = append(c.picked, e.Source.Prefix())
		}
	}
	if c.needs.NoRanges || c.needs.Separate {
		return c.picked
	}
	c.merged = Aggregate(c.merged[:0], c.picked, Aggregation{c.needs.Collateral, c.needs.Forbidden})
	return c.merged
}

// most returns a rank from low to high up to which entries fit into limit, as
// size says of it; up to low they do. One entry more is one line more at most, so
// as many as there is room for can be added at once.
func most(low, high, limit int, size func(rank int) int) int {
	for rank := low; ; {
		room := limit - size(rank)
		if room <= 0 || rank == high {
			return rank
		}
		rank = min(rank+room, high)
	}
}

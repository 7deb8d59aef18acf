package misuse

import (
	"net/netip"
	"slices"
	"strings"
)

// machine is what one machine id did, from all its addresses. What each contact
// looks at stands first, close together.
type machine struct {
	homes  []home  // at most maxHomes
	one    [1]home // what homes starts with: nearly all machines have one
	logins *logins // nil before the first
	lasts  addrKey // where all is known about the last login: whatever follows says nothing new
	moves  moves

	organisation string
}

// home is an address of a machine.
type home struct {
	key         addrKey
	first, last int64 // Unix ms, of contacts each within a window of the one before
	contacts    uint32
}

// moves counts changes of address within one family, each within a window of
// the one before. A dual-stack host that alternates between its v4 and its v6
// address changes neither.
type moves struct {
	latest      [2]addrKey // one of each family
	changes     int        // to another address than the one before
	returns     int        // of these, to one that the machine was at within the window
	lastReturn  int64
	first, last int64 // change
}

func (m *machine) join(organisation string) {
	if organisation != "" && organisation != m.organisation {
		m.organisation = strings.Clone(organisation)
	}
}

// visit notes a contact from key, and reports whether it is the first one there
// within the window, or follows one from elsewhere.
func (m *machine) visit(at int64, key addrKey, window int64) (news bool) {
	h := m.home(key)
	if h == nil {
		h = m.addHome(key, at-window)
	}
	fresh := h.contacts == 0 || at-h.last > window
	if fresh {
		h.first, h.contacts = at, 0
	}
	h.last = at
	h.contacts++

	latest := &m.moves.latest[key.family-v4]
	moved := *latest != addrKey{} && *latest != key
	if moved {
		m.moves.add(at, !fresh, window)
	}
	*latest = key
	return fresh || moved
}

func (mv *moves) add(at int64, back bool, window int64) {
	if at-mv.last > window {
		mv.changes, mv.returns, mv.first = 0, 0, at
	}
	mv.changes++
	mv.last = at
	if !back {
		return
	}
	if at-mv.lastReturn > window {
		mv.returns = 0
	}
	mv.returns++
	mv.lastReturn = at
}

func (m *machine) home(key addrKey) *home {
	for i := range m.homes {
		if m.homes[i].key == key {
			return &m.homes[i]
		}
	}
	return nil
}

// addHome gives key a home: in place of one that was left before expired, else
// a new one, else the one left longest ago.
func (m *machine) addHome(key addrKey, expired int64) *home {
	if m.homes == nil {
		m.homes = m.one[:0:1]
	}
	oldest := 0
	for i := range m.homes {
		if m.homes[i].last < m.homes[oldest].last {
			oldest = i
		}
	}
	if n := len(m.homes); n < maxHomes && (n == 0 || m.homes[oldest].last >= expired) {
		m.homes = append(m.homes, home{key: key})
		return &m.homes[n]
	}
	m.homes[oldest] = home{key: key}
	return &m.homes[oldest]
}

// liveAt reports whether the machine was there by a time, and within the window
// before it.
func (h *home) liveAt(at, window int64) bool { return h.first <= at && h.last > at-window }

// live counts the addresses of each family that were live at a time.
func (m *machine) live(at, window int64) (n [2]int) {
	for i := range m.homes {
		if m.homes[i].liveAt(at, window) {
			n[m.homes[i].key.family-v4]++
		}
	}
	return n
}

// roaming is what a finding of shared credentials says.
type roaming struct {
	found       bool
	addresses   int // within a window of the last change
	first, last int64
}

// roaming judges as of the last change of address: what held then holds for a
// window.
func (m *machine) roaming(c *Config, window int64) roaming {
	mv := &m.moves
	if mv.changes == 0 {
		return roaming{}
	}
	n := m.live(mv.last, window)
	interleaved := mv.returns >= c.Returns && mv.last-mv.lastReturn <= window
	return roaming{
		found:     interleaved || max(n[0], n[1]) >= c.Homes,
		addresses: n[0] + n[1], first: mv.first, last: mv.last,
	}
}

// wasIn reports whether an address of m is in p.
func (m *machine) wasIn(p netip.Prefix) bool {
	return slices.ContainsFunc(m.homes, func(h home) bool { return h.key.in(p) })
}

package misuse

import (
	"cmp"
	"encoding/binary"
	"net/netip"
)

// addrKey stands for one client on the network, as ratelimit.PrefixOf does: a
// v4 address, or the first half of a v6 address.
type addrKey struct {
	hi     uint64
	family family
}

type family uint8

const (
	v4 family = 1 // 0: no address
	v6 family = 2
)

func keyOf(addr netip.Addr) addrKey {
	if addr = addr.Unmap(); addr.Is4() {
		b := addr.As4()
		return addrKey{uint64(binary.BigEndian.Uint32(b[:])), v4}
	}
	b := addr.As16()
	return addrKey{binary.BigEndian.Uint64(b[:8]), v6}
}

func (k addrKey) prefix() netip.Prefix {
	if k.family == v4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(k.hi))
		return netip.PrefixFrom(netip.AddrFrom4(b), 32)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], k.hi)
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// in reports whether k is in p, or p in k.
func (k addrKey) in(p netip.Prefix) bool { return k.prefix().Overlaps(p) }

// unmapped returns p with a v4-mapped range as the v4 range.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

func (k addrKey) hash(seed uint64) uint64 { return mix(mix(seed, k.hi), uint64(k.family)) }

// tag names an address among those of one machine: its family and 31 bits.
func (k addrKey) tag() uint32 {
	t := uint32(k.hash(0)) &^ 1
	if k.family == v4 {
		return t | 1
	}
	return t
}

func (k addrKey) compare(other addrKey) int {
	return cmp.Or(cmp.Compare(k.family, other.family), cmp.Compare(k.hi, other.hi))
}

// address is the machines that logged in from one address.
type address struct {
	lastLogin int64
	machines  []neighbour // at most maxNeighbours
}

type neighbour struct {
	machine string
	last    int64 // Unix ms of its last login from here
}

func (a *address) login(at int64, machine string) {
	a.lastLogin = at
	oldest := 0
	for i := range a.machines {
		if a.machines[i].machine == machine {
			a.machines[i].last = at
			return
		}
		if a.machines[i].last < a.machines[oldest].last {
			oldest = i
		}
	}
	if len(a.machines) < maxNeighbours {
		a.machines = append(a.machines, neighbour{machine, at})
		return
	}
	a.machines[oldest] = neighbour{machine, at}
}

// crowd is what an address's findings say.
type crowd struct {
	machines    int
	first, last int64
}

// judge counts the machines that logged in within a window of the last login.
func (a *address) judge(window int64) crowd {
	c := crowd{first: a.lastLogin, last: a.lastLogin}
	for _, n := range a.machines {
		if n.last > a.lastLogin-window {
			c.machines++
			c.first = min(c.first, n.last)
		}
	}
	return c
}

package unban

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// asks counts what strangers ask for on one day (UTC), by network, in memory
// that never grows: two rows of counters under different hashes, of which the
// lower one is believed. Networks that share both of theirs are counted
// together: under a flood it refuses too many, never too few.
type asks struct {
	most uint16 // a day, for a /24 or /64
	seed maphash.Seed

	mu    sync.Mutex
	today int64 // days since 1970
	cells [2][1 << 15]uint16
}

func newAsks(most int) *asks { return &asks{most: uint16(most), seed: maphash.MakeSeed()} }

// level is a network that addr is in, and how many times what is allowed to a
// line it may ask for.
type level struct {
	network netip.Prefix
	times   uint16
}

// levels: whoever has a v6 address has 2^64 of them, and many have a /48 or more;
// they must not use up everybody's counters.
func levels(addr netip.Addr) []level {
	at := func(bits int, times uint16) level {
		p, _ := addr.Prefix(bits) // bits are right for addr
		return level{p, times}
	}
	if addr.Is4() {
		return []level{at(24, 1)}
	}
	return []level{at(64, 1), at(48, 4), at(32, 16)}
}

// spend counts one more by addr and returns how long it must wait, 0 = not at
// all. What is refused does not count.
func (a *asks) spend(now time.Time, addr netip.Addr) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if today := now.Unix() / int64(day/time.Second); today != a.today {
		a.today, a.cells = today, [2][1 << 15]uint16{}
	}
	var counters [3][2]*uint16
	all := levels(addr)
	for i, l := range all {
		hash := maphash.Comparable(a.seed, l.network)
		for row := range a.cells {
			counters[i][row] = &a.cells[row][hash>>(32*row)%uint64(len(a.cells[row]))]
		}
		if min(*counters[i][0], *counters[i][1]) >= a.most*l.times {
			return time.Unix((a.today+1)*int64(day/time.Second), 0).Sub(now)
		}
	}
	for i := range all {
		low := min(*counters[i][0], *counters[i][1]) + 1
		for _, c := range counters[i] {
			*c = max(*c, low)
		}
	}
	return 0
}

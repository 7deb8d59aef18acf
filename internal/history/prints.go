package history

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/zeebo/xxh3"
)

// prints are the fingerprints of uuids that came last: those of at least size
// signals, and of at most twice as many. An index of all uuids on disk would cost
// a random page for each alert.
type prints struct {
	size           int
	younger, older printSet
}

// printOf returns the fingerprint of a uuid, 0 for none. It is stored, so it must
// not change.
func printOf(uuid string) uint64 {
	if uuid == "" {
		return 0
	}
	return max(1, xxh3.HashString(uuid))
}

func (p *prints) has(print uint64) bool { return p.younger.has(print) || p.older.has(print) }

func (p *prints) add(print uint64) {
	if print == 0 || p.has(print) {
		return
	}
	if p.younger.n >= p.size {
		p.younger, p.older = p.older, p.younger
		clear(p.younger.slots)
		p.younger.n = 0
	}
	p.younger.add(print)
}

// printSet is a hash set of numbers other than 0, at most two thirds full: a third
// of what a map takes.
type printSet struct {
	slots []uint64 // a power of two, or none
	n     int
}

// placeSeed keeps senders from choosing uuids that crowd in one place.
var placeSeed = maphash.MakeSeed()

func (s *printSet) find(print uint64) int {
	var key [8]byte
	binary.LittleEndian.PutUint64(key[:], print)
	mask := len(s.slots) - 1
	i := int(maphash.Bytes(placeSeed, key[:])) & mask
	for s.slots[i] != 0 && s.slots[i] != print {
		i = (i + 1) & mask
	}
	return i
}

func (s *printSet) has(print uint64) bool {
	return len(s.slots) > 0 && s.slots[s.find(print)] == print
}

func (s *printSet) add(print uint64) {
	if 3*(s.n+1) > 2*len(s.slots) {
		old := s.slots
		s.slots = make([]uint64, max(64, 2*len(old)))
		for _, p := range old {
			if p != 0 {
				s.slots[s.find(p)] = p
			}
		}
	}
	if i := s.find(print); s.slots[i] == 0 {
		s.slots[i] = print
		s.n++
	}
}

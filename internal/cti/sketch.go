package cti

import (
	"math"
	"math/bits"
	"slices"
)

// How many are counted exactly, and registers for more: the error is then about
// a tenth.
const (
	exactMembers = 16
	registers    = 128
)

// sketch counts distinct members in bounded memory: exactly while they are few,
// then by HyperLogLog. Sketches of several days can be joined. The zero sketch is
// empty.
type sketch struct {
	few  []uint32 // sorted hashes; nil when there are many
	many []byte   // registers; nil while there are few
}

// mix spreads a hash, so that numbers can be members as they are.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

func (s *sketch) add(member uint64) { s.addHash(uint32(mix(member))) }

// widen goes over to registers.
func (s *sketch) widen() {
	if s.many != nil {
		return
	}
	s.many = make([]byte, registers)
	for _, h := range s.few {
		s.register(h)
	}
	s.few = nil
}

func (s *sketch) register(h uint32) {
	h = uint32(mix(uint64(h) + 1)) // members arrive as 32 bits, whatever they were
	i := h % registers
	rank := byte(bits.LeadingZeros32(h|(registers-1))) + 1
	s.many[i] = max(s.many[i], rank)
}

// join makes s count the members of both.
func (s *sketch) join(other *sketch) {
	if other.many == nil {
		for _, h := range other.few {
			s.addHash(h)
		}
		return
	}
	s.widen()
	for i, r := range other.many {
		s.many[i] = max(s.many[i], r)
	}
}

// addHash adds a member by the hash that few keeps.
func (s *sketch) addHash(h uint32) {
	if s.many != nil {
		s.register(h)
		return
	}
	if at, found := slices.BinarySearch(s.few, h); !found {
		if len(s.few) == exactMembers {
			s.widen()
			s.register(h)
			return
		}
		s.few = slices.Insert(s.few, at, h)
	}
}

// count returns how many members there are.
func (s *sketch) count() int {
	if s.many == nil {
		return len(s.few)
	}
	sum, empty := 0., 0
	for _, r := range s.many {
		sum += math.Ldexp(1, -int(r))
		if r == 0 {
			empty++
		}
	}
	n := 0.7213 / (1 + 1.079/registers) * registers * registers / sum
	if n < 2.5*registers && empty > 0 {
		n = registers * math.Log(registers/float64(empty)) // linear counting
	}
	return max(exactMembers+1, int(n+0.5))
}

// appendBinary appends a sketch; readSketch reads it.
func (s *sketch) appendBinary(b []byte) []byte {
	if s.many != nil {
		b = append(b, 255)
		return append(b, s.many...)
	}
	b = append(b, byte(len(s.few)))
	for _, h := range s.few {
		b = append(b, byte(h), byte(h>>8), byte(h>>16), byte(h>>24))
	}
	return b
}

func (d *decoder) sketch() (s sketch) {
	n := int(d.byte())
	if n == 255 {
		s.many = slices.Clone(d.take(registers))
		return s
	}
	if n > exactMembers {
		d.fail("a set of %d", n)
		return s
	}
	for range n {
		b := d.take(4)
		if len(b) < 4 {
			return sketch{}
		}
		s.few = append(s.few, uint32(b[0])|uint32(b[1])<<8|uint32(b[2])<<16|uint32(b[3])<<24)
	}
	return s
}

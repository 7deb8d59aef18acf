package muster

import (
	"encoding/binary"
	"net/netip"
)

// NetworkOf returns the network that addr is in, as a number: the /24 of an
// IPv4 address (also of one mapped into IPv6), the /48 of an IPv6 address.
// Those are about what one customer is given, so who reports from one network
// may be one party.
//
// The number is a 1 followed by the bits of the prefix: networks of the two
// families never meet, none is 0, and all are under 2^49. It is stored, so it
// never changes. An invalid address gives 0.
func NetworkOf(addr netip.Addr) uint64 {
	switch addr = addr.Unmap(); {
	case addr.Is4():
		a := addr.As4()
		return 1<<24 | uint64(binary.BigEndian.Uint32(a[:])>>8)
	case addr.Is6():
		a := addr.As16()
		return 1<<48 | binary.BigEndian.Uint64(a[:8])>>16
	default:
		return 0
	}
}

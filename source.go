package muster

import (
	"fmt"
	"net/netip"
	"strings"
)

// Source is where a signal says that an attack came from, in canonical form:
// an address or a range of addresses, v4-mapped IPv6 unmapped, ranges masked.
// The zero Source is invalid; it stands for scopes that are no address
// (a country, a user name). Source is comparable and works as a map key.
type Source struct {
	prefix netip.Prefix
}

// SourceFromAddr returns the source for one address.
func SourceFromAddr(addr netip.Addr) Source {
	addr = addr.Unmap().WithZone("")
	return Source{netip.PrefixFrom(addr, addr.BitLen())}
}

// SourceFromPrefix returns the source for a range; a range of one address is
// that address.
func SourceFromPrefix(p netip.Prefix) Source {
	addr, bits := p.Addr(), p.Bits()
	if addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	return Source{netip.PrefixFrom(addr.WithZone(""), bits).Masked()}
}

// ParseSource reads an address ("192.0.2.7", "2001:db8::1") or a range in CIDR
// form, as engines send them under the scopes ip and range; both forms are
// taken under either scope, because engines mix them. Errors are of code
// Invalid and quote at most 64 bytes of the input.
func ParseSource(value string) (Source, error) {
	value = strings.TrimSpace(value)
	if strings.IndexByte(value, '/') >= 0 {
		p, err := netip.ParsePrefix(value)
		if err != nil {
			return Source{}, Errorf(Invalid, "expected an address or a range like 198.51.100.0/24, got %q", clip(value))
		}
		return SourceFromPrefix(p), nil
	}
	addr, err := netip.ParseAddr(value)
	if err != nil || addr.Zone() != "" {
		return Source{}, Errorf(Invalid, "expected an IPv4 or IPv6 address, got %q", clip(value))
	}
	return SourceFromAddr(addr), nil
}

// IsValid reports whether s is an address or a range.
func (s Source) IsValid() bool { return s.prefix.IsValid() }

// Prefix returns the addresses that s covers.
func (s Source) Prefix() netip.Prefix { return s.prefix }

// Addr returns the address, or the first address of a range.
func (s Source) Addr() netip.Addr { return s.prefix.Addr() }

// IsRange reports whether s covers more than one address.
func (s Source) IsRange() bool { return s.IsValid() && !s.prefix.IsSingleIP() }

// Scope returns "ip" or "range", the spelling of the v3 decision stream.
func (s Source) Scope() string {
	if s.IsRange() {
		return "range"
	}
	return "ip"
}

// String returns the value as engines expect it: an address, or a CIDR range.
func (s Source) String() string {
	switch {
	case !s.IsValid():
		return "invalid source"
	case s.IsRange():
		return s.prefix.String()
	default:
		return s.prefix.Addr().String()
	}
}

// Compare orders sources by address, then the wider range first.
func (s Source) Compare(other Source) int { return s.prefix.Compare(other.prefix) }

// MarshalText writes what String does; nothing for the zero Source.
func (s Source) MarshalText() ([]byte, error) {
	if !s.IsValid() {
		return nil, nil
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads what ParseSource does; nothing is the zero Source.
func (s *Source) UnmarshalText(text []byte) (err error) {
	*s = Source{}
	if len(text) > 0 {
		*s, err = ParseSource(string(text))
	}
	return err
}

// Group returns the prefix that decides the partition: a v4 address itself, a
// v6 address its /64 (one subscriber line owns all of it), a range itself or,
// for v6 ranges longer than /64, their /64.
func (s Source) Group() netip.Prefix {
	if s.prefix.Addr().Is6() && s.prefix.Bits() > 64 {
		return netip.PrefixFrom(s.prefix.Addr(), 64).Masked()
	}
	return s.prefix
}

// SourceSize is the length of a Source's binary form.
const SourceSize = 17

// everyV6 stands in the binary form for the prefix length of ::/0, because 17
// zeros are the zero Source.
const everyV6 = 255

// AppendBinary appends 16 bytes of address (v4 in its mapped form) and one byte
// of prefix length counted in that 128-bit form. The zero Source is 17 zeros.
func (s Source) AppendBinary(b []byte) []byte {
	if !s.IsValid() {
		return append(b, make([]byte, SourceSize)...)
	}
	a := s.prefix.Addr().As16()
	bits := s.prefix.Bits()
	if s.prefix.Addr().Is4() {
		bits += 96
	}
	if bits == 0 {
		bits = everyV6
	}
	return append(append(b, a[:]...), byte(bits))
}

// SourceFromBinary reads what AppendBinary wrote.
func SourceFromBinary(b []byte) (Source, error) {
	if len(b) != SourceSize {
		return Source{}, fmt.Errorf("source: expected %d bytes, got %d", SourceSize, len(b))
	}
	bits := int(b[16])
	addr := netip.AddrFrom16([16]byte(b[:16]))
	switch {
	case bits == 0 && addr.IsUnspecified():
		return Source{}, nil
	case bits == everyV6 && addr.IsUnspecified():
		bits = 0
	case bits > 128:
		return Source{}, fmt.Errorf("source: prefix length %d is over 128", bits)
	}
	return SourceFromPrefix(netip.PrefixFrom(addr, bits)), nil
}

// reserved is space that no attacker on the Internet can be in, after the IANA
// special-purpose registries (RFC 6890 and successors). The shared space of
// carrier NAT (100.64/10) is in it: behind it are many, none reachable.
var reserved = func() []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"::/128", "::1/128", "::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32",
		"3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
	} {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}()

// IsReserved reports whether any address of s is private, reserved, shared,
// documentation or multicast space: such a source is never published.
func (s Source) IsReserved() bool {
	if !s.IsValid() {
		return true
	}
	for _, p := range reserved {
		if p.Overlaps(s.prefix) {
			return true
		}
	}
	return false
}

// clip shortens what a caller sent before it is quoted back or logged.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

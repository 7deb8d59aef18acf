package filter

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gaissmai/bart"
)

// parseAddr reads an address as CrowdSieve 0.6.6 does: IPv4 without leading
// zeros, IPv6 without its zone; ::ffff:192.0.2.1 is IPv6. It returns the
// invalid address for anything else.
func parseAddr(s string) netip.Addr {
	if !strings.ContainsAny(s[:min(len(s), 5)], ".:") {
		return netip.Addr{} // most values that are no address, without building an error
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	if zone := addr.Zone(); zone != "" {
		for i := range len(zone) {
			c := zone[i]
			if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '.' && c != ':' {
				return netip.Addr{}
			}
		}
		addr = addr.WithZone("")
	}
	return addr
}

// parseNetwork reads a network as CrowdSieve 0.6.6 does: spaces around it are
// trimmed, bits behind the prefix are ignored, an address alone is itself.
func parseNetwork(s string) (netip.Prefix, error) {
	base, length, hasLength := strings.Cut(strings.TrimSpace(s), "/")
	addr := parseAddr(base)
	if !addr.IsValid() {
		return netip.Prefix{}, fmt.Errorf("expected an address or network like 192.0.2.0/24, got %q", s)
	}
	if !hasLength {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	bits, err := strconv.ParseUint(length, 10, 8)
	if err != nil || int(bits) > addr.BitLen() || length != strconv.FormatUint(bits, 10) {
		return netip.Prefix{}, fmt.Errorf("expected a prefix length of 0 to %d without leading zeros, got %q", addr.BitLen(), s)
	}
	// A network written as IPv4-mapped IPv6 stays IPv6: Masked keeps the family.
	return netip.PrefixFrom(addr, int(bits)).Masked(), nil
}

// smallList is how many networks are compared one by one rather than looked up.
const smallList = 6

// networks is a set of networks whose families never cross.
type networks struct {
	all   []netip.Prefix // in the rule's order
	texts []string       // as written, for reasons
	table *bart.Lite     // for long lists
	// mapped holds IPv4-mapped IPv6 networks, which tables know as IPv4.
	mapped []netip.Prefix
}

func (n *networks) add(p netip.Prefix, text string) {
	n.all = append(n.all, p)
	n.texts = append(n.texts, text)
}

// build makes the table, once all is added.
func (n *networks) build() {
	if len(n.all) <= smallList {
		return
	}
	n.table = new(bart.Lite)
	for _, p := range n.all {
		if p.Addr().Is4In6() {
			n.mapped = append(n.mapped, p)
		} else {
			n.table.Insert(p)
		}
	}
}

func (n *networks) contains(addr netip.Addr) bool {
	if !addr.IsValid() {
		return false
	}
	if n.table == nil || addr.Is4In6() {
		return n.first(addr) >= 0
	}
	if n.table.Lookup(addr) {
		return true
	}
	for _, p := range n.mapped {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// first returns the index of the first network in the rule's order that holds
// addr, or -1.
func (n *networks) first(addr netip.Addr) int {
	for i, p := range n.all {
		if p.Contains(addr) {
			return i
		}
	}
	return -1
}

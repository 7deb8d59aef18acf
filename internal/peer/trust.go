// Package peer says who a client really is when proxies stand between it and
// this server: the HTTP headers that trusted proxies write (Trust), and the
// PROXY protocol that they speak below HTTP and TLS (Listener). What anybody
// else writes changes nothing.
package peer

import (
	"net/http"
	"net/netip"
	"slices"

	"muster"
)

// Header names the one request header that is believed. A proxy maintains the
// header that it knows and passes the other on as the client wrote it. So
// neither can stand in for the other: of a proxy that writes Forwarded, a
// client could name itself in X-Forwarded-For, and the other way round.
// Whoever runs the proxies knows which one they write; guessing is an opening.
type Header string

// The headers that can be believed. Others that name a client, like X-Real-IP,
// are not: they hold one address and do not tell who wrote it.
const (
	XForwardedFor Header = "X-Forwarded-For"
	Forwarded     Header = "Forwarded" // RFC 7239
)

// What is looked at of a header, at most. A longer chain ends at the last hop
// that was read.
const (
	maxHops    = 32
	maxElement = 512 // bytes of one hop, with all of its parameters
)

// Trust knows the proxies whose word on their clients is taken. The zero Trust
// trusts nobody. It is immutable and safe for concurrent use.
type Trust struct {
	proxies []netip.Prefix // disjoint and sorted
	header  Header
}

// NewTrust returns the trust in the proxies of these ranges, which may overlap,
// and in the header that they write; an empty header is X-Forwarded-For. A
// range of v6 addresses holds no v4 address, save that ::ffff:192.0.2.0/120 is
// 192.0.2.0/24. Every proxy of a chain must be in a range: the first hop that
// is not is taken for the client. An error is of code Invalid: an invalid range,
// one of all addresses (each client could then name itself), or another header.
func NewTrust(proxies []netip.Prefix, header Header) (Trust, error) {
	t := Trust{header: Header(http.CanonicalHeaderKey(string(header)))}
	switch t.header {
	case XForwardedFor, Forwarded:
	case "":
		t.header = XForwardedFor
	default:
		return Trust{}, muster.Errorf(muster.Invalid, "the header of trusted proxies: expected %s or %s, got %q", XForwardedFor, Forwarded, header)
	}
	var sorted []netip.Prefix
	for _, p := range proxies {
		if !p.IsValid() {
			return Trust{}, muster.Errorf(muster.Invalid, "trusted proxies: expected ranges like 10.0.0.0/8, got an invalid one")
		}
		p = muster.SourceFromPrefix(p).Prefix()
		if p.Bits() == 0 {
			return Trust{}, muster.Errorf(muster.Invalid, "trusted proxies: %s trusts every client to name its own address; name the ranges of the proxies", p)
		}
		sorted = append(sorted, p)
	}
	slices.SortFunc(sorted, netip.Prefix.Compare)
	for _, p := range sorted { // a range comes before those inside it
		if n := len(t.proxies); n == 0 || !t.proxies[n-1].Contains(p.Addr()) {
			t.proxies = append(t.proxies, p)
		}
	}
	return t, nil
}

// trusts reports whether a plain address is a trusted proxy's.
func (t Trust) trusts(addr netip.Addr) bool {
	i, exact := slices.BinarySearchFunc(t.proxies, addr, func(p netip.Prefix, a netip.Addr) int {
		return p.Addr().Compare(a)
	})
	return exact || i > 0 && t.proxies[i-1].Contains(addr)
}

// Addr returns the address of the client that made a request, v4-mapped
// addresses unmapped and without zone. It is the connection's own unless that
// is a trusted proxy's: then the header is read from the right, all of its
// lines in their order, past the hops that are trusted proxies; the first that
// is none is the client. When all are, the client is the first proxy of the
// chain.
//
// Where a hop cannot be read (junk, "unknown", an obfuscated identifier, an
// empty element, over the bounds) the last one that could stands for the
// client: what is further left has nobody's word. That is the proxy which did
// not say whom it serves.
//
// The zero Addr means that the connection has no address, as on a Unix socket
// or when the PROXY header named none; no header is believed then.
func (t Trust) Addr(r *http.Request) netip.Addr {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	client := plain(remote.Addr())
	if !t.trusts(client) {
		return client
	}
	parse := parseNode
	if t.header == Forwarded {
		parse = parseForwarded
	}
	lines := r.Header[string(t.header)]
	hops := 0
	for i := len(lines) - 1; i >= 0; i-- {
		rest, more := lines[i], true
		for more {
			if hops++; hops > maxHops {
				return client
			}
			var element string
			var ok bool
			rest, element, more, ok = cutLast(rest, t.header == Forwarded)
			if !ok {
				return client
			}
			hop, ok := parse(element)
			if !ok {
				return client
			}
			client = hop
			if !t.trusts(hop) {
				return client
			}
		}
	}
	return client
}

// Direct reports whether a request's connection is a client's own and not a
// trusted proxy's: then all that comes on it is that client's.
func (t Trust) Direct(r *http.Request) bool {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && !t.trusts(plain(remote.Addr()))
}

// Unheard reports whether a request names a client in one of the headers while
// its connection is none of a trusted proxy: either a client tries to pass for
// another, or a proxy is missing among the trusted ones.
func (t Trust) Unheard(r *http.Request) bool {
	if len(r.Header[string(XForwardedFor)]) == 0 && len(r.Header[string(Forwarded)]) == 0 {
		return false
	}
	return t.Direct(r)
}

// plain is an address as Trust compares it.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

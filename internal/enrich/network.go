package enrich

import (
	"net/netip"
	"runtime/debug"
)

// Network returns the range around addr of which the file says one thing, which
// is about what is routed there; the zero Prefix when the file says nothing.
func (a *ASN) Network(addr netip.Addr) (network netip.Prefix) {
	if a == nil {
		return netip.Prefix{}
	}
	db := a.db.Load()
	if db == nil {
		return netip.Prefix{}
	}
	defer catchFault(debug.SetPanicOnFault(true), func(error) { network = netip.Prefix{} })
	found := db.reader.Lookup(addr.Unmap())
	if !found.Found() || found.Err() != nil {
		return netip.Prefix{}
	}
	return found.Prefix().Masked()
}

package enrich

import (
	"fmt"
	"net/netip"
	"runtime/debug"

	"github.com/oschwald/maxminddb-golang/v2"
)

// Prefixes returns the ranges that each of some autonomous systems announces, in
// order, as the file has them; an AS that is not in it has no entry. It goes
// through the whole file, which takes up to a second.
func (a *ASN) Prefixes(numbers []uint32) (map[uint32][]netip.Prefix, error) {
	if a == nil {
		return nil, nil
	}
	return prefixes(&a.file, numbers, func(network maxminddb.Result) (uint32, error) {
		var r record
		err := network.Decode(&r)
		return r.number, err
	})
}

// Prefixes returns the ranges that are in each of some countries, as that of ASN
// does. Codes are upper case.
func (c *Country) Prefixes(codes []string) (map[string][]netip.Prefix, error) {
	if c == nil {
		return nil, nil
	}
	return prefixes(&c.file, codes, func(network maxminddb.Result) (string, error) {
		var p place
		err := network.Decode(&p)
		return p.code(), err
	})
}

// prefixes returns the networks of a file by what of says of each, for those of
// wanted.
func prefixes[K comparable](f *file, wanted []K, of func(maxminddb.Result) (K, error)) (found map[K][]netip.Prefix, err error) {
	db := f.db.Load()
	if db == nil {
		return nil, nil
	}
	defer catchFault(debug.SetPanicOnFault(true), func(fault error) {
		found, err = nil, fmt.Errorf("%s: the file was cut short while it was read: %w", f.setting, fault)
	})
	var none K
	found = make(map[K][]netip.Prefix, len(wanted))
	for _, k := range wanted {
		if k != none {
			found[k] = nil
		}
	}
	for network := range db.reader.Networks() {
		k, err := of(network)
		if err != nil {
			return nil, fmt.Errorf("%s: looking for ranges: %w", f.setting, err)
		}
		if ps, ok := found[k]; ok {
			found[k] = append(ps, network.Prefix())
		}
	}
	for k, ps := range found {
		if ps == nil {
			delete(found, k)
		}
	}
	return found, nil
}

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
	db := a.db.Load()
	if db == nil {
		return nil, nil
	}
	wanted := make(map[uint32]bool, len(numbers))
	for _, n := range numbers {
		wanted[n] = n != 0
	}
	found := map[uint32][]netip.Prefix{}
	var r record
	err := eachNetwork(db.reader, func(network maxminddb.Result) error {
		r = record{}
		if err := network.Decode(&r); err != nil {
			return err
		}
		if wanted[r.number] {
			found[r.number] = append(found[r.number], network.Prefix())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: looking for the ranges of AS: %w", a.setting, err)
	}
	return found, nil
}

// eachNetwork calls fn with every network of a file, in order, until it fails.
func eachNetwork(reader *maxminddb.Reader, fn func(maxminddb.Result) error) (err error) {
	defer catchFault(debug.SetPanicOnFault(true), func(fault error) {
		err = fmt.Errorf("the file was cut short while it was read: %w", fault)
	})
	for network := range reader.Networks() {
		if err := network.Err(); err != nil {
			return err
		}
		if err := fn(network); err != nil {
			return err
		}
	}
	return nil
}

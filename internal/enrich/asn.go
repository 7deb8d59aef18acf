// Package enrich adds to an address what files on this host know about it. It
// looks nothing up over the network.
package enrich

import (
	"net/netip"
	"runtime/debug"
	"sync"

	"github.com/oschwald/maxminddb-golang/v2"
)

// ASN tells which autonomous system announces an address, from a file in
// MaxMind DB form: GeoLite2-ASN and GeoIP2-ISP, DB-IP ASN Lite, IPinfo Lite, or
// one of the same fields. The file is mapped into memory, not read.
//
// All methods may be called concurrently. A nil *ASN knows no address.
type ASN struct{ file }

// asnFile is what the setting enrich.asn names.
var asnFile = kind{
	setting:  "enrich.asn",
	expected: "a database of AS numbers in MMDB form (GeoLite2-ASN, DB-IP ASN Lite, IPinfo Lite)",
	fields:   "autonomous_system_number nor asn",
	has: func(result maxminddb.Result) (bool, error) {
		var r record
		err := result.Decode(&r)
		return r.number != 0, err
	},
}

// Open maps the file at path and checks that it holds AS numbers. Close it in
// the end.
//
// Whoever updates the file must put another in its place by renaming, as
// geoipupdate does, and call Reload. While a file is overwritten in place,
// answers are missing or wrong until the Reload after it.
func Open(path string) (*ASN, error) {
	a := &ASN{file{kind: &asnFile, path: path}}
	if err := a.open(); err != nil {
		return nil, err
	}
	return a, nil
}

// Of returns the number and the name of the autonomous system that announces
// addr, or 0 and "" when the file does not tell. IPv4 addresses may be mapped
// into IPv6. Names are those of the file, unchanged: show them as foreign text.
func (a *ASN) Of(addr netip.Addr) (asn uint32, name string) {
	if a == nil {
		return 0, ""
	}
	db := a.db.Load()
	if db == nil {
		return 0, ""
	}
	defer catchFault(debug.SetPanicOnFault(true), func(error) { asn, name = 0, "" })

	r := records.Get().(*record)
	defer records.Put(r)
	*r = record{}
	if err := db.reader.Lookup(addr.Unmap()).Decode(r); err != nil || r.number == 0 {
		return 0, ""
	}
	return r.number, r.organisation()
}

// records keeps Of from allocating: what Decode is given escapes.
var records = sync.Pool{New: func() any { return new(record) }}

// Reload opens the file again when another is in its place or its size or time
// of change differ, and tells whether it did. After an error the former file
// stays in use, and the next call tries again.
func (a *ASN) Reload() (changed bool, err error) {
	if a == nil {
		return false, nil
	}
	return a.reload()
}

// Close lets go of the file; addresses are unknown from then on.
func (a *ASN) Close() error {
	if a == nil {
		return nil
	}
	a.close()
	return nil
}

// Package enrich adds to an address what files on this host know about it. It
// looks nothing up over the network.
package enrich

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/oschwald/maxminddb-golang/v2"
)

// asnSetting is the setting that names the file, for errors.
const asnSetting = "enrich.asn"

// ASN tells which autonomous system announces an address, from a file in
// MaxMind DB form: GeoLite2-ASN and GeoIP2-ISP, DB-IP ASN Lite, IPinfo Lite, or
// one of the same fields. The file is mapped into memory, not read.
//
// All methods may be called concurrently. A nil *ASN knows no address.
type ASN struct {
	path string
	db   atomic.Pointer[database]

	mu     sync.Mutex // held by whoever replaces db
	closed bool
}

// database is one opened file. Nobody closes its reader, since a lookup may be
// under way: it unmaps the file when the last user has let go of it.
type database struct {
	reader *maxminddb.Reader
	info   os.FileInfo // from before it was opened
}

// Open maps the file at path and checks that it holds AS numbers. Close it in
// the end.
//
// Whoever updates the file must put another in its place by renaming, as
// geoipupdate does, and call Reload. While a file is overwritten in place,
// answers are missing or wrong until the Reload after it.
func Open(path string) (*ASN, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, openError(err)
	}
	db, err := open(path, info)
	if err != nil {
		return nil, openError(err)
	}
	a := &ASN{path: path}
	a.db.Store(db)
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
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false, fmt.Errorf("%s: reload of %s: %w", asnSetting, a.path, os.ErrClosed)
	}
	info, err := os.Stat(a.path)
	if err != nil {
		return false, reloadError(err)
	}
	if was := a.db.Load().info; os.SameFile(was, info) && was.Size() == info.Size() && was.ModTime().Equal(info.ModTime()) {
		return false, nil
	}
	db, err := open(a.path, info)
	if err != nil {
		return false, reloadError(err)
	}
	a.db.Store(db)
	return true, nil
}

// Close lets go of the file; addresses are unknown from then on.
func (a *ASN) Close() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.db.Store(nil)
	return nil
}

// probes is how many of a file's first records may lack an AS number before it
// is taken for another kind of database.
const probes = 1000

// open maps the file that info describes and checks that it holds AS numbers.
func open(path string, info os.FileInfo) (db *database, err error) {
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file (%s)", path, info.Mode())
	}
	defer catchFault(debug.SetPanicOnFault(true), func(fault error) {
		db, err = nil, fmt.Errorf("%s was cut short while it was read: %w", path, fault)
	})
	reader, err := maxminddb.Open(path)
	if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%s is no complete MMDB file: %w", path, err)
	}
	if err := holdsNumbers(reader); err != nil {
		_ = reader.Close() // the reason for it is what matters
		return nil, fmt.Errorf("%s, of type %q, %w", path, reader.Metadata.DatabaseType, err)
	}
	return &database{reader, info}, nil
}

// holdsNumbers looks at the records themselves: types of databases have as many
// names as there are vendors.
func holdsNumbers(reader *maxminddb.Reader) error {
	n := 0
	for result := range reader.Networks() {
		var r record
		if err := result.Decode(&r); err != nil {
			return fmt.Errorf("has an unreadable record: %w", err)
		}
		if r.number != 0 {
			return nil
		}
		if n++; n == probes {
			break
		}
	}
	return fmt.Errorf("has neither autonomous_system_number nor asn in its first %d records", n)
}

func openError(err error) error {
	return fmt.Errorf("%s: expected a database of AS numbers in MMDB form (GeoLite2-ASN, DB-IP ASN Lite, IPinfo Lite): %w", asnSetting, err)
}

func reloadError(err error) error {
	return fmt.Errorf("%w; the former one stays in use", openError(err))
}

// catchFault is deferred around reads of a mapped file. Where its bytes cannot
// be had, because somebody has cut it short or the disk fails, reading them
// would end the process; instead it hands the fault to handle. Its first
// argument is the goroutine's former setting.
func catchFault(former bool, handle func(fault error)) {
	debug.SetPanicOnFault(former)
	switch p := recover().(type) {
	case nil:
	case interface { // what the runtime panics with on a fault
		error
		Addr() uintptr
	}:
		handle(p)
	default:
		panic(p)
	}
}

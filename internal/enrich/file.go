package enrich

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/oschwald/maxminddb-golang/v2"
)

// kind is what a file must hold, and how errors speak of it.
type kind struct {
	setting  string // that names the file
	expected string // what it should be, in words
	fields   string // of which it has neither, when it is something else
	has      func(maxminddb.Result) (bool, error)
}

// file is a database that can be replaced while it is used.
type file struct {
	*kind
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

// open maps the file.
func (f *file) open() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return f.openError(err)
	}
	db, err := f.mapped(info)
	if err != nil {
		return f.openError(err)
	}
	f.db.Store(db)
	return nil
}

func (f *file) reload() (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false, fmt.Errorf("%s: reload of %s: %w", f.setting, f.path, os.ErrClosed)
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return false, f.reloadError(err)
	}
	if was := f.db.Load().info; os.SameFile(was, info) && was.Size() == info.Size() && was.ModTime().Equal(info.ModTime()) {
		return false, nil
	}
	db, err := f.mapped(info)
	if err != nil {
		return false, f.reloadError(err)
	}
	f.db.Store(db)
	return true, nil
}

func (f *file) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.db.Store(nil)
}

// probes is how many of a file's first records may lack what is wanted before it
// is taken for another kind of database.
const probes = 1000

// mapped maps the file that info describes and checks that it holds what is
// wanted.
func (f *file) mapped(info os.FileInfo) (db *database, err error) {
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file (%s)", f.path, info.Mode())
	}
	defer catchFault(debug.SetPanicOnFault(true), func(fault error) {
		db, err = nil, fmt.Errorf("%s was cut short while it was read: %w", f.path, fault)
	})
	reader, err := maxminddb.Open(f.path)
	if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%s is no complete MMDB file: %w", f.path, err)
	}
	if err := f.holds(reader); err != nil {
		_ = reader.Close() // the reason for it is what matters
		return nil, fmt.Errorf("%s, of type %q, %w", f.path, reader.Metadata.DatabaseType, err)
	}
	return &database{reader, info}, nil
}

// holds looks at the records themselves: types of databases have as many names
// as there are vendors.
func (f *file) holds(reader *maxminddb.Reader) error {
	n := 0
	for result := range reader.Networks() {
		found, err := f.has(result)
		if err != nil {
			return fmt.Errorf("has an unreadable record: %w", err)
		}
		if found {
			return nil
		}
		if n++; n == probes {
			break
		}
	}
	return fmt.Errorf("has neither %s in its first %d records", f.fields, n)
}

func (f *file) openError(err error) error {
	return fmt.Errorf("%s: expected %s: %w", f.setting, f.expected, err)
}

func (f *file) reloadError(err error) error {
	return fmt.Errorf("%w; the former one stays in use", f.openError(err))
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

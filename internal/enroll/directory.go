package enroll

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"muster"
)

// directory holds every machine in memory. Reading is a map look-up under a
// shared lock and one pointer; nothing on that way waits for I/O.
type directory struct {
	seed       maphash.Seed
	shards     [64]shard
	footprints footprints

	mu      sync.Mutex // guards the counts
	counts  map[muster.MachineState]int
	members map[string]int // active machines by organisation
	dirty   []*entry       // to be written by the next flush, see markDirty
}

type shard struct {
	mu      sync.RWMutex
	entries map[string]*entry
	// changing is held over store and memory while a machine of this shard is
	// changed or reloaded, so that memory never falls back behind the store.
	changing sync.Mutex
}

// entry is one machine. The record is replaced, never changed.
type entry struct {
	record atomic.Pointer[record]
	seen   [contactKinds]atomic.Int64 // Unix microseconds, 0 = never
	saved  [contactKinds]atomic.Int64 // what the store holds of seen
	dirty  atomic.Bool                // is in directory.dirty

	mu      sync.Mutex // held to replace the record
	unsaved unsaved    // guarded by mu
}

// unsaved is what a machine told about itself and the store does not know yet.
type unsaved struct {
	version   string
	scenarios []string
}

// record is an immutable machine. Its Seen is not kept up, see entry.seen, and
// its Scenarios are footprint's: neither must be changed.
type record struct {
	muster.Machine
	epoch     int64 // TokensFrom as tokens carry it
	footprint *footprint
	entry     *entry
}

func newDirectory() *directory {
	d := &directory{seed: maphash.MakeSeed(), counts: make(map[muster.MachineState]int), members: make(map[string]int)}
	for i := range d.shards {
		d.shards[i].entries = make(map[string]*entry)
	}
	d.footprints.held = make(map[[sha256.Size]byte]*footprint)
	return d
}

func (d *directory) shard(id string) *shard {
	return &d.shards[maphash.String(d.seed, id)%uint64(len(d.shards))]
}

// entry returns the entry of a machine, or nil. Its record is nil while the
// machine is being put for the first time.
func (d *directory) entry(id string) *entry {
	s := d.shard(id)
	s.mu.RLock()
	e := s.entries[id]
	s.mu.RUnlock()
	return e
}

// record returns what is known about a machine, or nil.
func (d *directory) record(id string) *record {
	if e := d.entry(id); e != nil {
		return e.record.Load()
	}
	return nil
}

// unsavedOf returns what has not reached the store about a machine. Take it
// before reading the store and give it to put, so that a flush in between does
// not make the older row win.
func (d *directory) unsavedOf(id string) unsaved {
	e := d.entry(id)
	if e == nil {
		return unsaved{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.unsaved
}

// put takes a machine as the store has it, with what was unsaved before it was
// read there.
func (d *directory) put(m muster.Machine, before unsaved) *record {
	s := d.shard(m.ID)
	s.mu.Lock()
	e := s.entries[m.ID]
	if e == nil {
		e = &entry{}
		s.entries[m.ID] = e
	}
	s.mu.Unlock()

	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard(m.Seen)
	m.Seen = muster.Contacts{}
	if version := cmp.Or(e.unsaved.version, before.version); version != "" {
		m.Version = version
	}
	if e.unsaved.scenarios != nil {
		m.Scenarios = e.unsaved.scenarios
	} else if before.scenarios != nil {
		m.Scenarios = before.scenarios
	}
	return d.replace(e, m)
}

// replace is called with e.mu held.
func (d *directory) replace(e *entry, m muster.Machine) *record {
	f := d.footprints.take(m.Scenarios)
	m.Scenarios = f.scenarios()
	r := &record{Machine: m, epoch: epochOf(m.TokensFrom), footprint: f, entry: e}
	old := e.record.Swap(r)
	if old == nil {
		old = &record{}
	}
	d.footprints.drop(old.footprint)
	d.recount(&old.Machine, &r.Machine)
	return r
}

// remove forgets a machine that the store does not have any more.
func (d *directory) remove(id string) {
	s := d.shard(id)
	s.mu.Lock()
	e := s.entries[id]
	delete(s.entries, id)
	s.mu.Unlock()
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.record.Load(); r != nil {
		d.footprints.drop(r.footprint)
		d.recount(&r.Machine, &muster.Machine{})
	}
}

// missing returns the machines in memory that are not in stored.
func (d *directory) missing(stored map[string]struct{}) []string {
	var ids []string
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.RLock()
		for id := range s.entries {
			if _, ok := stored[id]; !ok {
				ids = append(ids, id)
			}
		}
		s.mu.RUnlock()
	}
	return ids
}

// declare notes what a machine said about itself at login or in its metrics:
// its version unless "" and its scenarios unless none. It reports whether
// something is new and is to be saved.
func (d *directory) declare(e *entry, version string, scenarios []string) bool {
	news := func(m *muster.Machine) (newVersion, newScenarios bool) {
		return version != "" && version != m.Version, len(scenarios) > 0 && !slices.Equal(scenarios, m.Scenarios)
	}
	if v, s := news(&e.record.Load().Machine); !v && !s {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.record.Load().Machine
	newVersion, newScenarios := news(&m)
	if newVersion {
		m.Version = version
	}
	if newScenarios {
		m.Scenarios = scenarios
	}
	r := d.replace(e, m)
	if newVersion {
		e.unsaved.version = version
	}
	if newScenarios && r.Scenarios != nil {
		e.unsaved.scenarios = r.Scenarios
	}
	return true
}

// recount moves one machine between the counts.
func (d *directory) recount(old, now *muster.Machine) {
	if old.State == now.State && old.Organisation == now.Organisation {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if old.State != "" {
		d.counts[old.State]--
	}
	if now.State != "" {
		d.counts[now.State]++
	}
	if old.State == muster.Active {
		if d.members[old.Organisation]--; d.members[old.Organisation] == 0 {
			delete(d.members, old.Organisation)
		}
	}
	if now.State == muster.Active {
		d.members[now.Organisation]++
	}
}

func (d *directory) count() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Counts{
		Pending:       d.counts[muster.Pending],
		Active:        d.counts[muster.Active],
		Blocked:       d.counts[muster.Blocked],
		Organisations: len(d.members),
	}
}

// epochOf is the form of Machine.TokensFrom in tokens: microseconds, as the
// store keeps times.
func epochOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// footprint is one declared set of scenarios, shared by all machines that
// declare it. Thousands of machines have a few hundred distinct sets.
type footprint struct {
	key   [sha256.Size]byte
	names []string
	bytes int
	refs  int // guarded by footprints.mu
}

func (f *footprint) scenarios() []string {
	if f == nil {
		return nil
	}
	return f.names
}

// number stands for the set: 0 for none.
func (f *footprint) number() uint64 {
	if f == nil {
		return 0
	}
	return binary.BigEndian.Uint64(f.key[:])
}

// maxFootprints bounds the memory of all distinct footprints, in bytes. Real
// fleets need a few megabytes; beyond this, somebody makes them up.
const maxFootprints = 64 << 20

// footprints holds each distinct footprint once, as long as machines have it.
type footprints struct {
	mu    sync.Mutex
	held  map[[sha256.Size]byte]*footprint
	bytes int
}

// take returns the shared form of a canonical list, to be dropped when it is
// not used any more; nil when the list is empty or the bound is reached.
func (t *footprints) take(scenarios []string) *footprint {
	if len(scenarios) == 0 {
		return nil
	}
	var buf [8192]byte
	joined, size := buf[:0], 0
	for _, name := range scenarios {
		joined = append(append(joined, name...), 0)
		size += len(name) + 16
	}
	key := sha256.Sum256(joined)
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.held[key]
	if f == nil {
		if t.bytes+size > maxFootprints {
			return nil
		}
		f = &footprint{key: key, names: scenarios, bytes: size}
		t.held[key] = f
		t.bytes += size
	}
	f.refs++
	return f
}

func (t *footprints) drop(f *footprint) {
	if f == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.refs--; f.refs == 0 {
		delete(t.held, f.key)
		t.bytes -= f.bytes
	}
}

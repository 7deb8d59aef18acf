package enroll

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"muster"
)

// Contact is a kind of contact, see muster.Contacts.
type Contact uint8

// The kinds of contact.
const (
	ContactLogin Contact = iota
	ContactPull
	ContactPush
	ContactMetrics
	ContactPoll
	ContactHeartbeat
	contactKinds
)

// saveAfter is how much newer a contact must be than the stored one to be
// written at once. Memory is exact; a clean end writes the rest; a crash
// loses at most this much. It keeps 100,000 engines that push every ten
// seconds at 1,700 writes a second instead of 10,000.
const saveAfter = time.Minute

// Touch notes that a machine was heard just now. version is an engine's, as in
// its user agent after "crowdsec/" or in its metrics, or "". It does no I/O;
// Run writes it.
func (s *Service) Touch(machineID string, kind Contact, version string) {
	e := s.directory.entry(machineID)
	if e == nil || kind >= contactKinds || e.record.Load() == nil {
		return
	}
	s.touch(e, kind)
	if version != "" && s.directory.declare(e, engineVersion(version), nil) {
		s.directory.markDirty(e)
	}
}

func (s *Service) touch(e *entry, kind Contact) {
	now := s.now().UnixMicro()
	raise(&e.seen[kind], now)
	if now-e.saved[kind].Load() >= saveAfter.Microseconds() {
		s.directory.markDirty(e)
	}
}

// heard takes the contacts that the store knows, which are those of all nodes.
func (e *entry) heard(c muster.Contacts) {
	for i, at := range kinds(c) {
		if !at.IsZero() {
			raise(&e.seen[i], at.UnixMicro())
			raise(&e.saved[i], at.UnixMicro())
		}
	}
}

// kinds lists contacts in the order of the Contact constants.
func kinds(c muster.Contacts) [contactKinds]time.Time {
	return [contactKinds]time.Time{c.Login, c.Pull, c.Push, c.Metrics, c.Poll, c.Heartbeat}
}

// raise sets v to at least to.
func raise(v *atomic.Int64, to int64) {
	for {
		if old := v.Load(); old >= to || v.CompareAndSwap(old, to) {
			return
		}
	}
}

func (e *entry) contacts() (c muster.Contacts) {
	for i, t := range [contactKinds]*time.Time{&c.Login, &c.Pull, &c.Push, &c.Metrics, &c.Poll, &c.Heartbeat} {
		if us := e.seen[i].Load(); us != 0 {
			*t = time.UnixMicro(us).UTC()
		}
	}
	return c
}

// markDirty queues an entry for the next flush, once.
func (d *directory) markDirty(e *entry) {
	if e.dirty.Swap(true) {
		return
	}
	d.mu.Lock()
	d.dirty = append(d.dirty, e)
	d.mu.Unlock()
}

// takeDirty empties the queue.
func (d *directory) takeDirty() []*entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	queue := d.dirty
	d.dirty = nil
	return queue
}

// markUnsaved queues every entry that has a contact which is not stored.
func (d *directory) markUnsaved() {
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.RLock()
		for _, e := range s.entries {
			for kind := range e.seen {
				if e.seen[kind].Load() > e.saved[kind].Load() {
					d.markDirty(e)
					break
				}
			}
		}
		s.mu.RUnlock()
	}
}

// flushBatch is how many machines are written in one transaction.
const flushBatch = 1000

// flush writes what Touch and Login noted. What cannot be written stays queued.
func (s *Service) flush(ctx context.Context) error {
	queue := s.directory.takeDirty()
	for len(queue) > 0 {
		batch := queue[:min(len(queue), flushBatch)]
		touches := make([]muster.MachineTouch, 0, len(batch))
		for _, e := range batch {
			e.dirty.Store(false) // before reading, so that a later touch queues it again
			touches = append(touches, e.pending())
		}
		if err := s.store.TouchMachines(ctx, touches); err != nil {
			for _, e := range queue {
				e.dirty.Store(false)
				s.directory.markDirty(e)
			}
			return fmt.Errorf("writing the contacts of %d machines: %w", len(queue), err)
		}
		for i, e := range batch {
			e.written(touches[i])
		}
		queue = queue[len(batch):]
	}
	return nil
}

// pending returns what is to be written about an entry.
func (e *entry) pending() muster.MachineTouch {
	e.mu.Lock()
	defer e.mu.Unlock()
	return muster.MachineTouch{
		ID:        e.record.Load().ID,
		Seen:      e.contacts(),
		Version:   e.unsaved.version,
		Scenarios: e.unsaved.scenarios,
	}
}

// written notes that t is in the store.
func (e *entry) written(t muster.MachineTouch) {
	for i, at := range kinds(t.Seen) {
		if !at.IsZero() {
			raise(&e.saved[i], at.UnixMicro())
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.unsaved.version == t.Version {
		e.unsaved.version = ""
	}
	if len(t.Scenarios) > 0 && len(e.unsaved.scenarios) > 0 && &e.unsaved.scenarios[0] == &t.Scenarios[0] {
		e.unsaved.scenarios = nil
	}
}

// versionOf reads the version from a user agent: "crowdsec/v1.7.8-linux" gives
// "v1.7.8"; other clients keep their product's name.
func versionOf(userAgent string) string {
	if version, ok := strings.CutPrefix(userAgent, "crowdsec/"); ok {
		return engineVersion(version)
	}
	return word(userAgent)
}

// engineVersion brings the spellings of user agents and metrics to one form,
// without tag and platform: "v1.4.6-6~deb12u1+b1-linux-debian" is "v1.4.6".
func engineVersion(version string) string {
	version, _, _ = strings.Cut(word(version), "-")
	return version
}

// word returns what stands before the first character that is no printable
// ASCII, at most 64 bytes.
func word(s string) string {
	s = s[:min(len(s), 64)]
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' {
			return s[:i]
		}
	}
	return s
}

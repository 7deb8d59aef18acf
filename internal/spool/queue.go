package spool

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"muster"
)

// item is one signal that is to be sent.
type item struct {
	position       uint64
	index          uint32
	given, v2      bool
	received       time.Time
	raw            []byte
	uuid           string
	machine, agent string
}

// place is where an engine stands.
type place uint8

const (
	idle   place = iota // nothing in memory to send
	queued              // in Forwarder.ready
	asleep              // in Forwarder.asleep
	busy                // a call is on its way, or its commit
)

// engine is the queue of one engine.
type engine struct {
	id    muster.SieveEngine
	place place
	queue []item
	bytes int

	// What follows the queue when memory is short is in the log only.
	spilled uint64    // position of the first of it; 0: nothing
	skipped int       // how many signals that is
	since   time.Time // when the first of it was received

	done       muster.SpoolCursor
	notBefore  time.Time // of a sleeper; zero: until it has a token
	failures   int       // in a row
	limit      int       // signals of its next call; 0: as many as may be
	aside      int       // signals set aside in a row
	doubt      bool      // the first of its queue may have arrived
	doubtSince time.Time
	token      muster.SieveToken // that was tried last
	why        string            // why it waits
}

func (e *engine) pending() int { return len(e.queue) + e.skipped }

// first returns the position of the first signal that is not settled.
func (e *engine) first() (position uint64, received time.Time, ok bool) {
	switch {
	case len(e.queue) > 0:
		return e.queue[0].position, e.queue[0].received, true
	case e.spilled > 0:
		return e.spilled, e.since, true
	}
	return 0, time.Time{}, false
}

// next returns what fits one call: signals of one version and user agent.
func (e *engine) next(most, bytes int) []item {
	if e.limit > 0 {
		most = min(most, e.limit)
	}
	n, size := 0, 0
	for n < len(e.queue) && n < most {
		it := &e.queue[n]
		size += len(it.raw) + 64
		if n > 0 && (size > bytes || it.v2 != e.queue[0].v2 || it.agent != e.queue[0].agent) {
			break
		}
		n++
	}
	return e.queue[:n:n]
}

// rouse puts an engine where it belongs when it is not busy any more: in line,
// or out of memory.
func (f *Forwarder) rouse(e *engine) {
	delete(f.asleep, e)
	e.notBefore, e.why = time.Time{}, ""
	switch {
	case len(e.queue) > 0:
		e.place = queued
		f.ready = append(f.ready, e)
	case e.spilled > 0:
		e.place = idle
	default:
		delete(f.engines, e.id)
	}
}

// sleep lets an engine wait until then, or with zero until it has a token.
func (f *Forwarder) sleep(e *engine, until time.Time) {
	e.place, e.notBefore = asleep, until
	f.asleep[e] = struct{}{}
}

// newTokens wakes those that have a token that was not tried.
func (f *Forwarder) newTokens() {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.cfg.Now()
	for e := range f.asleep {
		if _, id, ok := f.cfg.Vault.latest(e.id, now); ok && id != e.token {
			e.failures = 0
			f.rouse(e)
		}
	}
}

// take queues what was read.
func (f *Forwarder) take(r read) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, entry := range r.entries {
		err := eachItem(entry, func(id muster.SieveEngine, it item) { f.add(id, it) })
		if err != nil {
			return fmt.Errorf("the sieve's log at position %d: %w", entry.Position, err)
		}
	}
	f.read = max(f.read, r.position)
	return nil
}

// eachItem calls yield for every signal of an entry that is to be forwarded.
func eachItem(entry muster.Entry, yield func(muster.SieveEngine, item)) error {
	index := uint32(0)
	return muster.DecodeSievedBatches(entry.Data, func(b *muster.SievedBatch) {
		for i := range b.Signals {
			if s := &b.Signals[i]; b.Fate == muster.SieveQueued && !s.Withheld {
				yield(b.Engine, item{
					position: entry.Position, index: index, given: s.Given, v2: b.V2, received: b.Received,
					raw: s.Raw, uuid: s.UUID, machine: b.Machine, agent: b.UserAgent,
				})
			}
			index++
		}
	})
}

func (f *Forwarder) add(id muster.SieveEngine, it item) {
	if c, ok := f.cursors[id]; ok {
		if it.position < c.Position || it.position == c.Position && it.index <= c.Index {
			return // settled by the process before
		}
		if it.position > c.Position {
			delete(f.cursors, id)
		}
	}
	e := f.engines[id]
	if e == nil {
		e = &engine{id: id}
		if it.received.Before(f.started) {
			e.doubt, e.doubtSince = true, f.started
		}
		f.engines[id] = e
	}
	// An entry is queued as a whole or not at all.
	full := f.bytes+len(it.raw) > f.cfg.Memory && len(e.queue) > 0 && e.queue[len(e.queue)-1].position != it.position
	if e.spilled == 0 && full {
		e.spilled, e.since = it.position, it.received
	}
	if e.spilled > 0 {
		e.skipped++
		return
	}
	f.push(e, it)
}

func (f *Forwarder) push(e *engine, it item) {
	e.queue = append(e.queue, it)
	e.bytes += len(it.raw)
	f.bytes += len(it.raw)
	if e.place == idle {
		e.place = queued
		f.ready = append(f.ready, e)
	}
}

// pop takes the first n signals out of an engine's queue.
func (f *Forwarder) pop(e *engine, n int) {
	for i := range e.queue[:n] {
		size := len(e.queue[i].raw)
		e.bytes -= size
		f.bytes -= size
		e.queue[i].raw = nil
	}
	last := &e.queue[n-1]
	e.done = muster.SpoolCursor{Engine: e.id, Position: last.position, Index: last.index}
	if e.queue = e.queue[n:]; len(e.queue) == 0 {
		e.queue = nil
	}
}

// refill is what was read anew for engines that were short of memory.
type refill struct {
	err   error
	found map[muster.SieveEngine]*found
}

type found struct {
	from    uint64 // position of what is wanted first
	items   []item
	bytes   int
	stopped uint64 // position of the first entry that was left in the log; 0: none
	since   time.Time
}

// startRefill reads the log again for engines that have nothing left in memory,
// when there is room.
func (f *Forwarder) startRefill(ctx context.Context, now time.Time) {
	if f.refilling || f.bytes > f.cfg.Memory/2 || now.Before(f.refillNot) {
		return
	}
	wanted := map[muster.SieveEngine]*found{}
	lowest := f.read
	for id, e := range f.engines {
		if e.spilled > 0 && e.place == idle {
			wanted[id] = &found{from: e.spilled}
			lowest = min(lowest, e.spilled)
		}
	}
	if len(wanted) == 0 {
		return
	}
	f.refilling = true
	share, to := (f.cfg.Memory-f.bytes)/len(wanted), f.read
	f.work.Go(func() {
		r := refill{found: wanted, err: f.reread(ctx, wanted, lowest-1, to, share)}
		select {
		case f.refilled <- r:
		case <-ctx.Done():
		}
	})
}

// rereadTime bounds the wait for an entry that is there.
const rereadTime = 30 * time.Second

// reread collects what is wanted above a position, up to another, and at least
// one entry for each engine, else no more than share bytes.
func (f *Forwarder) reread(ctx context.Context, wanted map[muster.SieveEngine]*found, above, to uint64, share int) error {
	ctx, cancel := context.WithTimeout(ctx, rereadTime)
	defer cancel()
	var from [muster.Partitions]uint64
	for i := range from {
		from[i] = above
	}
	reader, err := f.cfg.Read(ctx, everyPartition(), from)
	if err != nil {
		return err
	}
	defer reader.Close()
	open := len(wanted)
	for position := above; position < to && open > 0; position = reader.Position() {
		entries, err := reader.Next(ctx, 64)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if entry.Position > to {
				break
			}
			err := eachItem(entry, func(id muster.SieveEngine, it item) {
				w := wanted[id]
				if w == nil || w.stopped > 0 || it.position < w.from {
					return
				}
				if n := len(w.items); n > 0 && w.bytes+len(it.raw) > share && w.items[n-1].position != it.position {
					w.stopped, w.since = it.position, it.received
					open--
					return
				}
				w.items = append(w.items, it)
				w.bytes += len(it.raw)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// refill queues what was read anew.
func (f *Forwarder) refill(r refill) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refilling = false
	if r.err != nil {
		f.refillNot = f.cfg.Now().Add(f.cfg.Backoff.Wait(3, 0))
		f.cfg.Logger.Warn("what waits in the sieve's log could not be read, trying again", "error", r.err)
		return
	}
	for _, id := range slices.SortedFunc(maps.Keys(r.found), func(a, b muster.SieveEngine) int {
		return slices.Compare(a[:], b[:])
	}) {
		w, e := r.found[id], f.engines[id]
		e.spilled, e.since = w.stopped, w.since
		if e.skipped -= len(w.items); w.stopped == 0 {
			e.skipped = 0
		}
		for _, it := range w.items {
			f.push(e, it)
		}
		if e.pending() == 0 { // the log has dropped it by age
			delete(f.engines, id)
		}
	}
}

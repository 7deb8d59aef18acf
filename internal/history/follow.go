package history

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster"
)

// What bounds one transaction, which is in memory as a whole, several times over:
// about a thousand signals.
const (
	entriesAtOnce  = 512
	bytesPerCommit = 1 << 20
)

// Run follows the log and prunes until ctx ends. After an error it goes on where
// the ledger is, so that nothing is stored twice or left out.
func (s *Service) Run(ctx context.Context) error {
	pruned := make(chan struct{})
	go func() {
		defer close(pruned)
		s.keepPruned(ctx)
	}()
	defer func() { <-pruned }()
	wait := time.Second
	for {
		began := s.cfg.Now()
		err := s.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if s.cfg.Now().Sub(began) > time.Minute {
			wait = time.Second
		}
		s.cfg.Logger.Error("the history does not follow the sieve's log; it is tried again", "error", err, "wait", wait)
		if !rest(ctx, wait) {
			return nil
		}
		wait = min(2*wait, time.Minute)
	}
}

// rest waits and reports whether ctx goes on.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Service) follow(ctx context.Context) error {
	s.writing.Lock()
	from := s.applied
	s.writing.Unlock()
	r, err := s.cfg.Open(ctx, from)
	if err != nil {
		return fmt.Errorf("opening the sieve's log: %w", err)
	}
	defer r.Close()
	for {
		entries, err := r.Next(ctx, entriesAtOnce)
		if err != nil {
			return fmt.Errorf("reading the sieve's log: %w", err)
		}
		for len(entries) > 0 {
			some, passed := stepOf(entries), uint64(0)
			if entries = entries[len(some):]; len(entries) == 0 {
				passed = r.Position()
			}
			if err := s.take(ctx, some, passed); err != nil {
				return err
			}
		}
	}
}

// stepOf returns the first of entries, as many as are stored at once.
func stepOf(entries []muster.Entry) []muster.Entry {
	size := 0
	for i := range entries {
		if size += len(entries[i].Data); size >= bytesPerCommit {
			return entries[:i+1]
		}
	}
	return entries
}

// take stores the alerts of some entries. All partitions have come to passed
// then, if it is not 0.
func (s *Service) take(ctx context.Context, entries []muster.Entry, passed uint64) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	w := muster.SieveWrite{From: s.applied, To: s.applied}
	var alerts []arrival
	duplicates := 0
	fresh := map[uint64]struct{}{} // prints of this step
	for _, e := range entries {
		if e.Position <= w.To[e.Partition] {
			continue
		}
		w.To[e.Partition] = e.Position
		at := ref{position: e.Position, part: e.Partition}
		err := muster.DecodeSievedBatches(e.Data, func(b *muster.SievedBatch) {
			some := s.arrivals(b, at)
			at.index += uint16(len(some))
			for _, a := range some {
				if _, again := fresh[a.print]; a.print != 0 && (again || s.recent.has(a.print)) {
					duplicates++
					continue
				}
				fresh[a.print] = struct{}{}
				alerts = append(alerts, a)
			}
		})
		if err != nil {
			s.cfg.Logger.Error("a record of the sieve's log cannot be read and is skipped",
				"partition", e.Partition, "position", e.Position, "error", err)
		}
	}
	for p := range w.To {
		w.To[p] = max(w.To[p], passed)
	}
	if err := s.put(ctx, &s.live, alerts, &w); err != nil {
		return fmt.Errorf("storing alerts: %w", err)
	}
	s.applied = w.To
	s.position.Store(slices.Max(w.To[:]))
	for key := range s.pending {
		if key.position <= s.applied[key.part] {
			delete(s.pending, key)
		}
	}
	s.alerts.WithLabelValues("stored").Add(float64(len(alerts)))
	s.alerts.WithLabelValues("duplicate").Add(float64(duplicates))
	return nil
}

// arrivals returns the signals of a batch as they are stored; at is where the
// first is.
func (s *Service) arrivals(b *muster.SievedBatch, at ref) []arrival {
	raws, geos := make([][]byte, len(b.Signals)), make([]*muster.SieveGeo, len(b.Signals))
	for i := range b.Signals {
		raws[i], geos[i] = b.Signals[i].Raw, &b.Signals[i].Geo
	}
	all := arrivalsOf(raws, geos)
	for i := range all {
		a, signal := &all[i], &b.Signals[i]
		a.ref, a.received, a.reasons = at, millis(b.Received), reasonsJSON(signal.Reasons)
		if signal.Withheld {
			a.flags |= flagFiltered
		}
		if signal.Given {
			a.given = strings.Clone(signal.UUID)
		} else {
			a.print = printOf(signal.UUID)
		}
		if b.Fate == muster.SieveSent && !signal.Withheld {
			a.forwarded = a.received
		}
		if len(s.pending) > 0 && a.forwarded == 0 {
			if m, ok := s.pending[markKey{at.position, at.part}]; ok && hasBit(m.Signals, at.index) {
				a.forwarded = millis(m.At)
			}
		}
		at.index++
	}
	return all
}

func hasBit(bits []byte, i uint16) bool {
	return int(i>>3) < len(bits) && bits[i>>3]&(1<<(i&7)) != 0
}

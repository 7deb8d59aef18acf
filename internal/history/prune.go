package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster"
)

func (s *Service) keepPruned(ctx context.Context) {
	for rest(ctx, s.cfg.PruneEvery) {
		if err := s.Prune(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Error("old alerts could not be deleted; it is tried again", "error", err)
		}
	}
}

// Prune deletes alerts that are older than they are kept, and puts the counts of
// hours of more than a month ago together by day. Run calls it.
func (s *Service) Prune(ctx context.Context) error {
	now := s.cfg.Now()
	if err := s.pruneAlerts(ctx, millis(now.Add(-s.cfg.Retention))); err != nil {
		return fmt.Errorf("deleting old alerts: %w", err)
	}
	if err := s.pruneCounts(ctx, now); err != nil {
		return fmt.Errorf("putting counts together: %w", err)
	}
	return nil
}

// errEnough ends a look at blocks.
var errEnough = errors.New("enough")

// pruneAlerts deletes the first blocks whose alerts were all received before a
// time.
func (s *Service) pruneAlerts(ctx context.Context, cutoff int64) error {
	s.cols.mu.RLock()
	first, last := s.cols.first, s.last
	s.cols.mu.RUnlock()
	keep, position, oldest := first, uint64(0), int64(0)
	err := s.cfg.Ledger.EachSieveBlock(ctx, first>>muster.SieveBlockBits, (last+1)>>muster.SieveBlockBits, func(b muster.SieveBlock) error {
		alerts, err := s.packer.unpackBlock(b.Data)
		if err != nil {
			return err
		}
		latest := int64(0)
		for i := range alerts {
			latest = max(latest, alerts[i].received)
		}
		if latest >= cutoff {
			keep, position, oldest = b.Number<<muster.SieveBlockBits, b.Position, alerts[0].received
			return errEnough
		}
		keep = (b.Number + 1) << muster.SieveBlockBits
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if keep == first {
		return nil
	}
	s.writing.Lock() // nobody marks what goes
	s.cols.mu.Lock()
	s.cols.first = keep
	if oldest != 0 {
		s.oldest = oldest
	}
	for len(s.cols.chunks) > 0 {
		c := s.cols.chunks[0]
		if c.id(chunkAlerts) > keep || c == s.live.tail || c == s.live.before || c == s.imported.tail || c == s.imported.before {
			break
		}
		s.cols.chunks = s.cols.chunks[1:]
	}
	s.cols.mu.Unlock()
	s.writing.Unlock()
	return s.cfg.Ledger.PruneSieve(ctx, keep, position)
}

// pruneCounts puts the hours of days that ended more than keptHours ago together,
// and forgets days that are counted no longer.
func (s *Service) pruneCounts(ctx context.Context, now time.Time) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	before := floorDiv(hourOf(millis(now))-keptHours, 24) * 24
	forget := floorDiv(hourOf(millis(now.Add(-s.cfg.RollupRetention))), 24) * 24
	days := map[int64]*tally{}
	w := muster.SieveWrite{From: s.applied, To: s.applied}
	for start, hour := range s.rollups.hours {
		if start >= before {
			continue
		}
		day := floorDiv(start, 24) * 24
		if days[day] == nil {
			days[day] = newTally()
		}
		days[day].add(hour, start)
		w.DropRollups = append(w.DropRollups, muster.SieveRollup{Span: 1, Start: start})
	}
	forgotten := false
	err := s.cfg.Ledger.EachSieveRollup(ctx, 24, func(row muster.SieveRollup) error {
		if row.Start < forget {
			w.DropRollups = append(w.DropRollups, row)
			forgotten = true
		}
		if day := days[row.Start]; day != nil {
			was, err := decodeTally(row.Data, s.packer)
			if err != nil {
				return err
			}
			day.add(was, row.Start)
		}
		return nil
	})
	if err != nil || len(w.DropRollups) == 0 {
		return err
	}
	for start, day := range days {
		if start >= forget {
			w.Rollups = append(w.Rollups, muster.SieveRollup{Span: 24, Start: start, Data: day.encode(s.packer)})
		} else {
			forgotten = true
		}
	}
	if err := s.cfg.Ledger.PutSieve(ctx, &w); err != nil {
		return err
	}
	kept := s.rollups
	if forgotten {
		if kept, err = s.loadRollups(func(span int64, yield func(muster.SieveRollup) error) error {
			return s.cfg.Ledger.EachSieveRollup(ctx, span, yield)
		}); err != nil {
			return err
		}
	}
	s.cols.mu.Lock()
	defer s.cols.mu.Unlock()
	s.rollups = kept
	for start := range s.rollups.hours {
		if start < before {
			delete(s.rollups.hours, start)
		}
	}
	return nil
}

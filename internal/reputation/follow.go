package reputation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"muster"
	"muster/internal/cti"
)

// entriesAtOnce bounds one look at the log; records hold a few to a few hundred
// signals each.
const entriesAtOnce = 512

// follower is one attempt at following the log: after an error it is thrown away.
type follower struct {
	*Service
	rollups map[muster.RollupKey]*rollup
	changed []muster.RollupKey
	from    [muster.Partitions]uint64 // positions as they are stored
	to      [muster.Partitions]uint64 // and as they are
	written time.Time                 // when the ledger was last written to
	recent  recent
	ranks   map[string]ranked
	arena   []byte
}

// rollup is one in memory.
type rollup struct {
	day     cti.Day
	changed bool
}

// ranked is how far a machine was trusted when that was asked last.
type ranked struct {
	rank  uint8
	asked time.Time
}

func (s *Service) follow(ctx context.Context) error {
	f := &follower{Service: s, rollups: map[muster.RollupKey]*rollup{}, ranks: map[string]ranked{}, written: s.cfg.Now()}
	var err error
	if f.from, err = s.cfg.Ledger.RollupPositions(ctx); err != nil {
		return fmt.Errorf("reading the positions of rollups: %w", err)
	}
	f.to = f.from
	r, err := s.cfg.Open(ctx, f.from)
	if err != nil {
		return fmt.Errorf("opening the signal log: %w", err)
	}
	defer r.Close()
	for {
		due := f.written.Add(s.cfg.Every)
		entries, err := next(ctx, r, due.Sub(s.cfg.Now()))
		if err != nil {
			return fmt.Errorf("reading the signal log: %w", err)
		}
		for more := len(entries) == entriesAtOnce; len(entries) > 0; {
			began := s.cfg.Now()
			some := stepOf(entries)
			if err := f.add(ctx, some); err != nil {
				return err
			}
			if entries = entries[len(some):]; len(f.changed) >= s.cfg.Rows {
				if err := f.write(ctx); err != nil {
					return err
				}
			}
			if more || len(entries) > 0 { // others first
				if err := rest(ctx, time.Duration(s.cfg.Rest*float64(s.cfg.Now().Sub(began)))); err != nil {
					return err
				}
			}
		}
		for p := range f.to { // those that had nothing are as far
			f.to[p] = max(f.to[p], r.Position())
		}
		if !s.cfg.Now().Before(due) {
			if err := f.write(ctx); err != nil {
				return err
			}
		}
	}
}

// stepBytes is about three thousand signals.
const stepBytes = 512 << 10

// stepOf returns the first of entries, as many as are counted before something is
// written.
func stepOf(entries []muster.Entry) []muster.Entry {
	size := 0
	for i := range entries {
		if size += len(entries[i].Data); size >= stepBytes {
			return entries[:i+1]
		}
	}
	return entries
}

// next waits for entries, and no longer than within.
func next(ctx context.Context, r Reader, within time.Duration) ([]muster.Entry, error) {
	limited, cancel := context.WithTimeout(ctx, max(within, time.Millisecond))
	defer cancel()
	entries, err := r.Next(limited, entriesAtOnce)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	return entries, err
}

func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// add counts the signals of some entries.
func (f *follower) add(ctx context.Context, entries []muster.Entry) error {
	var signals []*muster.Signal
	var keys []muster.RollupKey
	passed, duplicate := 0, 0
	for _, e := range entries {
		if e.Position <= f.to[e.Partition] {
			continue
		}
		err := muster.DecodeSignals(e.Data, func(s *muster.Signal) {
			switch {
			case !f.counts(s):
				passed++
			case !f.recent.add(s.ID):
				duplicate++
			default:
				subject := muster.SourceFromPrefix(s.Source.Group())
				signals = append(signals, s)
				keys = append(keys, muster.RollupKey{Partition: f.cfg.Partition(subject), Source: subject, Day: cti.DayOf(s.At)})
			}
		})
		if err != nil { // the judge passes over it too
			f.cfg.Logger.Error("a record of the signal log cannot be read and is skipped",
				"partition", e.Partition, "position", e.Position, "error", err)
		}
		f.to[e.Partition] = e.Position
	}
	if err := f.load(ctx, keys); err != nil {
		return err
	}
	f.askRanks(ctx, signals)
	for i, s := range signals {
		r := f.rollups[keys[i]]
		r.day.Add(&cti.Sighting{
			At: s.At, Machine: s.Machine, Organisation: s.Organisation, Scenario: s.Scenario,
			ASN: s.ReporterASN, Country: f.country(s.ReporterNet),
			Rank: f.ranks[s.Machine].rank, Honeypot: s.Flags&muster.Honeypot != 0,
		})
		if !r.changed {
			r.changed = true
			f.changed = append(f.changed, keys[i])
		}
	}
	f.signals.WithLabelValues("counted").Add(float64(len(signals)))
	f.signals.WithLabelValues("passed").Add(float64(passed))
	f.signals.WithLabelValues("duplicate").Add(float64(duplicate))
	return nil
}

// counts reports whether a signal may influence the network and is about a
// source that anybody may look up.
func (f *follower) counts(s *muster.Signal) bool {
	if s.Flags&muster.Counts == 0 || !s.Source.IsValid() || s.Source.IsReserved() {
		return false
	}
	if s.Source.Addr().Is4() && s.Source.IsRange() {
		return false
	}
	return f.cfg.Member(s.Machine, s.Organisation)
}

func (f *follower) country(network uint64) string {
	if addr := addrOf(network); addr.IsValid() {
		return f.cfg.Country(addr)
	}
	return ""
}

// load brings rollups into memory.
func (f *follower) load(ctx context.Context, keys []muster.RollupKey) error {
	var missing []muster.RollupKey
	for _, k := range keys {
		if f.rollups[k] == nil {
			f.rollups[k] = &rollup{}
			missing = append(missing, k)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	rows, err := f.cfg.Ledger.RollupsOf(ctx, missing)
	if err != nil {
		return fmt.Errorf("reading rollups: %w", err)
	}
	for _, row := range rows {
		r := f.rollups[row.RollupKey]
		if r == nil {
			continue // nobody asked for it
		}
		if err := r.day.UnmarshalBinary(row.Data); err != nil {
			f.cfg.Logger.Error("a rollup cannot be read; it begins anew", "source", row.Source, "day", row.Day, "error", err)
			r.day = cti.Day{}
		}
	}
	return nil
}

// How long a rank is believed, how many are kept, and how long the judge is
// waited for.
const (
	rankKeep = 5 * time.Minute
	maxRanks = 100_000
	rankWait = 2 * time.Second
)

// newcomer is the rank of who is not known yet.
const newcomer = 1

// askRanks asks how far the machines of signals are trusted, unless that is
// known. When nobody answers they are taken for what they were, or for newcomers.
func (f *follower) askRanks(ctx context.Context, signals []*muster.Signal) {
	now := f.cfg.Now()
	if len(f.ranks) > maxRanks {
		clear(f.ranks)
	}
	var unknown []string
	for _, s := range signals {
		known, ok := f.ranks[s.Machine]
		if ok && now.Sub(known.asked) < rankKeep {
			continue
		}
		if !ok {
			known.rank = newcomer
		}
		known.asked = now
		machine := string([]byte(s.Machine)) // of a record's text, which it would keep alive
		f.ranks[machine] = known
		unknown = append(unknown, machine)
	}
	if len(unknown) == 0 {
		return
	}
	limited, cancel := context.WithTimeout(ctx, rankWait)
	defer cancel()
	ranks, err := f.cfg.Ranks(limited, unknown)
	if err != nil {
		if ctx.Err() == nil {
			f.cfg.Logger.Warn("how far machines are trusted could not be asked; they are taken for what they were", "machines", len(unknown), "error", err)
		}
		return
	}
	for machine, rank := range ranks {
		f.ranks[machine] = ranked{min(rank, 5), now}
	}
}

// write makes durable what has changed, with how far in the log that reaches, and
// lets go of what has not changed when there is too much.
func (f *follower) write(ctx context.Context) error {
	f.written = f.cfg.Now()
	if f.to == f.from {
		return nil
	}
	rows := make([]muster.RollupRow, len(f.changed))
	arena := f.arena[:0]
	for i, k := range f.changed {
		r := f.rollups[k]
		r.changed = false
		start := len(arena)
		arena = r.day.AppendBinary(arena)
		rows[i] = muster.RollupRow{RollupKey: k, Data: arena[start:len(arena):len(arena)]}
	}
	f.arena = arena
	if err := f.cfg.Ledger.PutRollups(ctx, rows, f.from, f.to); err != nil {
		return fmt.Errorf("writing rollups: %w", err)
	}
	f.commits.Observe(f.cfg.Now().Sub(f.written).Seconds())
	f.from, f.changed = f.to, f.changed[:0]
	f.applied.Store(slices.Max(f.to[:]))
	for k := range f.rollups { // in no order, which is as good as any
		if len(f.rollups) <= f.cfg.Cache {
			break
		}
		delete(f.rollups, k)
	}
	f.cached.Set(float64(len(f.rollups)))
	return nil
}

// maxRecent is how many signals are recognised for certain when they are sent
// again; up to twice as many are. More would be counted again, which raises how
// many signals there were and nothing that is computed from who reported when.
const maxRecent = 1 << 15

// recent remembers the signals that came last.
type recent struct {
	young, old map[muster.SignalID]struct{}
}

// add reports whether id is new.
func (r *recent) add(id muster.SignalID) bool {
	if _, ok := r.young[id]; ok {
		return false
	}
	if _, ok := r.old[id]; ok {
		return false
	}
	if len(r.young) >= maxRecent || r.young == nil {
		r.old, r.young = r.young, make(map[muster.SignalID]struct{}, maxRecent)
	}
	r.young[id] = struct{}{}
	return true
}

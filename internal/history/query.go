package history

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"muster"
)

// Query selects alerts; zero fields select all.
type Query struct {
	Filtered, Forwarded *bool
	Scenario            string     // a part of it; ASCII letters of either case
	Country             string     // exactly
	Machine             string     // exactly
	Addr                netip.Addr // the source's address or value
	Since, Until        time.Time  // received, both inclusive, to the millisecond
	Offset, Limit       int        // Limit 0 means 100
}

// DefaultLimit and MaxLimit bound a page of alerts.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Alerts returns a page of alerts, latest first.
func (s *Service) Alerts(ctx context.Context, q Query) ([]muster.SieveAlert, error) {
	if q.Limit == 0 {
		q.Limit = DefaultLimit
	}
	ids, err := s.find(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("searching alerts: %w", err)
	}
	return s.fetch(ctx, ids)
}

// find returns the numbers of the alerts of a page.
func (s *Service) find(ctx context.Context, q Query) ([]int64, error) {
	s.cols.mu.RLock()
	f := filter{combos: s.names.matching(q.Scenario, q.Country, q.Machine), filtered: q.Filtered, forwarded: q.Forwarded}
	chunks, first := append([]*chunk(nil), s.cols.chunks...), s.cols.first
	s.cols.mu.RUnlock()
	if !q.Since.IsZero() {
		f.since = millis(q.Since.Add(time.Millisecond - 1)) // what is stored has no smaller parts
	}
	if !q.Until.IsZero() {
		f.until = millis(q.Until)
	}
	p := page{skip: q.Offset, limit: min(q.Limit, MaxLimit)}
	for i := len(chunks) - 1; i >= 0 && !p.full(); i-- {
		if err := s.findIn(ctx, chunks[i], &f, q.Addr, first, &p); err != nil {
			return nil, err
		}
	}
	return p.ids, nil
}

// findIn adds what is found in one chunk.
func (s *Service) findIn(ctx context.Context, c *chunk, f *filter, addr netip.Addr, first int64, p *page) error {
	s.cols.mu.RLock()
	may, timed := f.overlaps(c)
	times, n := c.times, len(c.rows)
	s.cols.mu.RUnlock()
	if !may {
		return nil
	}
	var about []int64
	var err error
	if addr.IsValid() {
		if about, err = s.cfg.Ledger.SieveAlertsAbout(ctx, c.number, sourceOf(addr.Unmap().String())); err != nil || len(about) == 0 {
			return err
		}
	}
	switch {
	case !timed:
		times = nil
	case len(times) < n:
		data, err := s.cfg.Ledger.SieveChunkTimes(ctx, c.number)
		if err != nil {
			return err
		}
		if times, err = decodeTimes(data, n, s.packer); err != nil {
			return err
		}
	}
	s.cols.mu.RLock()
	defer s.cols.mu.RUnlock()
	if addr.IsValid() {
		f.among(c, about, times, first, p)
	} else {
		f.search(c, times, first, p)
	}
	return nil
}

// Alert returns one alert; code muster.NotFound when there is none of that number.
func (s *Service) Alert(ctx context.Context, id int64) (muster.SieveAlert, error) {
	s.cols.mu.RLock()
	has := s.cols.has(id)
	s.cols.mu.RUnlock()
	if has {
		alerts, err := s.fetch(ctx, []int64{id})
		if err != nil {
			return muster.SieveAlert{}, err
		}
		if len(alerts) == 1 {
			return alerts[0], nil
		}
	}
	return muster.SieveAlert{}, muster.Errorf(muster.NotFound, "there is no alert %d", id)
}

// HasNewer reports whether an alert was received after a time.
func (s *Service) HasNewer(than time.Time) bool {
	s.cols.mu.RLock()
	defer s.cols.mu.RUnlock()
	ms := millis(than)
	for _, c := range s.cols.chunks {
		if len(c.rows) > 0 && c.max > ms {
			return true
		}
	}
	return false
}

// Last returns the number of the alert that came last, 0 when there is none.
func (s *Service) Last() int64 {
	s.cols.mu.RLock()
	defer s.cols.mu.RUnlock()
	return s.last
}

// Wait blocks until there is an alert of a number above after, or ctx ends.
func (s *Service) Wait(ctx context.Context, after int64) error {
	for {
		s.cols.mu.RLock()
		last, newer := s.last, s.newer
		s.cols.mu.RUnlock()
		if last > after {
			return nil
		}
		select {
		case <-newer:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// After returns alerts of numbers above one, in the order in which they came, at
// most limit: who works through all of them keeps the number of the last that is
// done. Alerts that were pruned meanwhile are passed over.
func (s *Service) After(ctx context.Context, id int64, limit int) ([]muster.SieveAlert, error) {
	var ids []int64
	s.cols.mu.RLock()
	for _, c := range s.cols.chunks {
		row := max(0, max(id+1, s.cols.first)-c.id(0))
		for ; row < int64(len(c.rows)) && len(ids) < limit; row++ {
			ids = append(ids, c.id(int(row)))
		}
	}
	s.cols.mu.RUnlock()
	return s.fetch(ctx, ids)
}

// EachLatest calls yield with the n alerts that came last, latest first, until it
// fails.
func (s *Service) EachLatest(ctx context.Context, n int, yield func(muster.SieveAlert) error) error {
	for offset, before := 0, s.cfg.Now(); offset < n; offset += MaxLimit {
		alerts, err := s.Alerts(ctx, Query{Until: before, Offset: offset, Limit: min(MaxLimit, n-offset)})
		if err != nil || len(alerts) == 0 {
			return err
		}
		for _, a := range alerts {
			if err := yield(a); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetchAtOnce bounds how many alerts' blocks are in memory.
const fetchAtOnce = 200

// fetch returns the alerts of some numbers that are there, in the order given.
func (s *Service) fetch(ctx context.Context, ids []int64) ([]muster.SieveAlert, error) {
	alerts := make([]muster.SieveAlert, 0, len(ids))
	for some := range slices.Chunk(ids, fetchAtOnce) {
		found, err := s.fetchSome(ctx, some)
		if err != nil {
			return nil, fmt.Errorf("reading alerts: %w", err)
		}
		alerts = append(alerts, found...)
	}
	return alerts, nil
}

func (s *Service) fetchSome(ctx context.Context, ids []int64) ([]muster.SieveAlert, error) {
	places := map[int64][]int{} // in ids, by block
	var numbers []int64
	for i, id := range ids {
		number := id >> muster.SieveBlockBits
		if places[number] == nil {
			numbers = append(numbers, number)
		}
		places[number] = append(places[number], i)
	}
	blocks, err := s.cfg.Ledger.SieveBlocks(ctx, numbers)
	if err != nil {
		return nil, err
	}
	alerts := make([]muster.SieveAlert, len(ids))
	forwarded := map[markKey][]int{} // places in alerts, of those whose time is to be read
	var plain []byte
	for _, b := range blocks {
		if plain, err = s.packer.unpack(b.Data, plain[:0]); err != nil {
			return nil, err
		}
		wanted := places[b.Number]
		block, err := decodeBlock(plain, func(i int) bool {
			return slices.ContainsFunc(wanted, func(place int) bool { return int(ids[place]&(blockAlerts-1)) == i })
		})
		if err != nil {
			return nil, err
		}
		for _, place := range wanted {
			id := ids[place]
			if int(id&(blockAlerts-1)) >= len(block) {
				continue // it cannot be: it was found
			}
			a := &block[id&(blockAlerts-1)]
			if a.flags&flagLarge != 0 {
				if a.raw, err = s.large(ctx, id); err != nil {
					return nil, err
				}
			}
			alerts[place] = alertOf(id, a)
			s.addMarks(&alerts[place])
			if alerts[place].ForwardedToCAPI && alerts[place].ForwardedAt == nil {
				key := markKey{a.ref.position, a.ref.part}
				forwarded[key] = append(forwarded[key], place)
			}
		}
	}
	if err := s.addTimes(ctx, alerts, forwarded); err != nil {
		return nil, err
	}
	// Those whose block was pruned since they were found have no number.
	return slices.DeleteFunc(alerts, func(a muster.SieveAlert) bool { return a.ID == 0 }), nil
}

func (s *Service) large(ctx context.Context, id int64) ([]byte, error) {
	data, err := s.cfg.Ledger.SieveLarge(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.packer.unpack(data, nil)
}

// addMarks adds what became of an alert since it was stored.
func (s *Service) addMarks(a *muster.SieveAlert) {
	s.cols.mu.RLock()
	defer s.cols.mu.RUnlock()
	c := s.cols.chunkOf(a.ID)
	if c == nil {
		return
	}
	row := int(a.ID & (chunkAlerts - 1))
	a.ForwardedToCAPI = a.ForwardedToCAPI || c.forwarded.has(row)
	a.Replicated = a.Replicated || c.replicated.has(row)
}

// addTimes adds when alerts were forwarded.
func (s *Service) addTimes(ctx context.Context, alerts []muster.SieveAlert, forwarded map[markKey][]int) error {
	if len(forwarded) == 0 {
		return nil
	}
	records := make([]muster.SieveMark, 0, len(forwarded))
	for key := range forwarded {
		records = append(records, muster.SieveMark{Position: key.position, Partition: key.part})
	}
	marks, err := s.cfg.Ledger.SieveMarksOf(ctx, records)
	if err != nil {
		return err
	}
	for _, m := range marks {
		at := m.At.Truncate(time.Millisecond)
		for _, i := range forwarded[markKey{m.Position, m.Partition}] {
			alerts[i].ForwardedAt = &at
		}
	}
	return nil
}

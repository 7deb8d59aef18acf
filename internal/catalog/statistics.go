package catalog

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"muster"
	"muster/internal/wire"
)

// keepDays is how long statistics are kept.
const keepDays = 90 * 24 * time.Hour

// statistics is what is counted in memory.
type statistics struct {
	mu    sync.Mutex
	seen  map[string][]uint64        // by list: a hash of each entry, in order, at the last look
	today map[string]muster.ListDay  // by list
	hits  map[muster.ListHits]uint64 // not stored yet, by list, day and unit
}

func (c *statistics) init() {
	c.seen, c.today, c.hits = map[string][]uint64{}, map[string]muster.ListDay{}, map[muster.ListHits]uint64{}
}

// Observe looks at all lists and counts what came and went since the last look.
// Call it a few times an hour, on one node.
func (s *Service) Observe(ctx context.Context) error {
	day := s.instant().Truncate(24 * time.Hour)
	s.forget()
	var days []muster.ListDay
	for _, l := range s.Lists() {
		if l.Rule.Own {
			continue // another for each organisation
		}
		entries, err := s.glance(ctx, &l)
		if err != nil {
			return err
		}
		d, err := s.count(ctx, l.ID, day, hashes(entries))
		if err != nil {
			return err
		}
		days = append(days, d)
	}
	if err := s.cfg.Store.PutListDays(ctx, days); err != nil {
		return err
	}
	return s.cfg.Store.PruneListDays(ctx, day.Add(-keepDays))
}

// count brings a list's day up to date.
func (s *Service) count(ctx context.Context, list string, day time.Time, now []uint64) (muster.ListDay, error) {
	c := &s.statistics
	c.mu.Lock()
	before, looked := c.seen[list]
	d, ok := c.today[list]
	c.mu.Unlock()
	if !ok || !d.Day.Equal(day) {
		d = muster.ListDay{List: list, Day: day}
		if !looked { // since this process began
			stored, err := s.cfg.Store.ListDays(ctx, list, day)
			if err != nil {
				return d, err
			}
			if len(stored) > 0 {
				d = stored[0]
			}
		}
	}
	if d.Size = len(now); looked {
		same := common(before, now)
		d.Added += len(now) - same
		d.Removed += len(before) - same
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[list], c.today[list] = now, d
	return d, nil
}

// hashes stand for entries, in order.
func hashes(entries []muster.ListEntry) []uint64 {
	all := make([]uint64, len(entries))
	var b []byte
	for i := range entries {
		b = entries[i].Source.AppendBinary(b[:0])
		all[i] = xxh3.Hash(b)
	}
	slices.Sort(all)
	return all
}

// common counts what is in both of two lists in order.
func common(a, b []uint64) (n int) {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] < b[0]:
			a = a[1:]
		case a[0] > b[0]:
			b = b[1:]
		default:
			n++
			a, b = a[1:], b[1:]
		}
	}
	return n
}

// Overlap is how much of a list is on another.
type Overlap struct {
	List    string // id of the other
	Entries int    // on both
}

// ListStatistics tells about one list.
type ListStatistics struct {
	Size               int
	Subscriptions      int
	Added2, Removed2   int // within 2 days, today among them
	Added30, Removed30 int // within 30 days
	Overlaps           []Overlap
	Hits               []muster.ListHits // of the last 30 days, by unit; their Day is the first of them
	Days               []muster.ListDay  // the last 30, earliest first
}

// Statistics returns those of a list, found by id or name. Overlaps are of the
// last look, which there may not have been yet.
func (s *Service) Statistics(ctx context.Context, ref string) (ListStatistics, error) {
	var out ListStatistics
	l, err := s.List(ref)
	if err != nil {
		return out, err
	}
	day := s.instant().Truncate(24 * time.Hour)
	month, two := day.AddDate(0, 0, -29), day.AddDate(0, 0, -1)
	entries, err := s.glance(ctx, &l)
	if err != nil {
		return out, err
	}
	out.Size, out.Subscriptions = len(entries), len(s.state.Load().subscribers[l.ID])
	if out.Days, err = s.cfg.Store.ListDays(ctx, l.ID, month); err != nil {
		return out, err
	}
	for _, d := range out.Days {
		out.Added30, out.Removed30 = out.Added30+d.Added, out.Removed30+d.Removed
		if !d.Day.Before(two) {
			out.Added2, out.Removed2 = out.Added2+d.Added, out.Removed2+d.Removed
		}
	}
	hits, err := s.cfg.Store.ListHits(ctx, l.ID, month)
	if err != nil {
		return out, err
	}
	for _, h := range hits {
		i := slices.IndexFunc(out.Hits, func(o muster.ListHits) bool { return o.Unit == h.Unit })
		if i < 0 {
			i = len(out.Hits)
			out.Hits = append(out.Hits, muster.ListHits{List: l.ID, Day: month, Unit: h.Unit})
		}
		out.Hits[i].Count += h.Count
	}
	out.Overlaps = s.overlaps(l.ID, hashes(entries))
	return out, nil
}

func (s *Service) overlaps(list string, own []uint64) []Overlap {
	c := &s.statistics
	c.mu.Lock()
	others := make(map[string][]uint64, len(c.seen))
	for id, seen := range c.seen {
		others[id] = seen
	}
	c.mu.Unlock()
	var all []Overlap
	for id, seen := range others {
		if n := common(own, seen); id != list && n > 0 {
			all = append(all, Overlap{id, n})
		}
	}
	slices.SortFunc(all, func(a, b Overlap) int {
		return cmp.Or(cmp.Compare(b.Entries, a.Entries), cmp.Compare(a.List, b.List))
	})
	return all
}

// originPrefix begins the origin of what comes from blocklists, in the metrics of
// remediation components; the list's name follows.
const originPrefix = "lists:"

// CountHits adds what a machine's usage metrics say that blocklists kept out. A
// report that is sent again is counted again; a crash loses up to a minute.
func (s *Service) CountHits(report []byte) {
	if !bytes.Contains(report, []byte(originPrefix)) {
		return
	}
	metrics, err := wire.DecodeUsageMetrics(report)
	if err != nil {
		return // the edge has told the sender
	}
	day, names := s.instant().Truncate(24*time.Hour), s.state.Load().names
	c := &s.statistics
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, component := range metrics.RemediationComponents {
		for _, window := range component.Metrics {
			for _, item := range window.Items {
				name, ok := strings.CutPrefix(item.Labels["origin"], originPrefix)
				list := names[strings.TrimSuffix(name, RangesSuffix)]
				if !ok || list == "" || item.Name != "dropped" || !(item.Value > 0 && item.Value < 1e15) {
					continue
				}
				if unit := item.Unit; unit == "packet" || unit == "byte" || unit == "request" {
					c.hits[muster.ListHits{List: list, Day: day, Unit: unit}] += uint64(item.Value)
				}
			}
		}
	}
}

// keepHits stores what was counted.
func (s *Service) keepHits(ctx context.Context) {
	c := &s.statistics
	c.mu.Lock()
	counted := c.hits
	c.hits = map[muster.ListHits]uint64{}
	c.mu.Unlock()
	if len(counted) == 0 {
		return
	}
	hits := make([]muster.ListHits, 0, len(counted))
	for h, n := range counted {
		h.Count = int64(n)
		hits = append(hits, h)
	}
	if err := s.cfg.Store.AddListHits(ctx, hits); err != nil {
		s.log.Warn("hits of blocklists could not be stored; they are stored later", "error", err)
		c.mu.Lock()
		defer c.mu.Unlock()
		for h, n := range counted {
			c.hits[h] += n
		}
	}
}

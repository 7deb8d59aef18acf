package history

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"time"

	"muster"
)

// found is an alert that is to be marked.
type found struct {
	chunk    *chunk
	row      int
	index    uint16
	received int64
}

// recentOf returns the alerts of a record that are among the latest. The caller
// holds s.writing.
func (s *Service) recentOf(position uint64, part uint8) (all []found) {
	for _, c := range []*chunk{s.live.before, s.live.tail} {
		if c == nil {
			continue
		}
		row := sort.Search(len(c.refs), func(i int) bool { return c.refs[i].position >= position })
		for ; row < len(c.refs) && c.refs[row].position == position; row++ {
			if r := c.refs[row]; r.part == part && r.index != noIndex {
				all = append(all, found{chunk: c, row: row, index: r.index, received: c.times[row]})
			}
		}
	}
	return all
}

// noIndex is the index of what did not come through the log.
const noIndex = 1<<16 - 1

// olderOf returns the alerts of a record that are not among the latest.
func (s *Service) olderOf(ctx context.Context, position uint64, part uint8) (all []found, err error) {
	blocks, err := s.cfg.Ledger.SieveBlocksAt(ctx, position)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		alerts, err := s.packer.unpackBlock(b.Data)
		if err != nil {
			return nil, err
		}
		for i := range alerts {
			id := b.Number<<muster.SieveBlockBits + int64(i)
			a, c := &alerts[i], s.cols.chunkOf(id)
			if a.ref.position != position || a.ref.part != part || a.ref.index == noIndex || c == nil {
				continue
			}
			all = append(all, found{chunk: c, row: int(id & (chunkAlerts - 1)), index: a.ref.index, received: a.received})
		}
	}
	return all, nil
}

// MarkForwarded notes that the upstream has accepted signals of the log. It
// returns when that is durable. Signals that are not stored yet will be marked
// when they are; those that are no longer stored, or were duplicates, do not
// matter. Marked again, a signal keeps its first time.
func (s *Service) MarkForwarded(ctx context.Context, signals []muster.SieveRef, at time.Time) error {
	if len(signals) == 0 {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	marks, err := s.marksWith(ctx, signals, at)
	if err != nil {
		return fmt.Errorf("marking alerts as forwarded: %w", err)
	}
	w := muster.SieveWrite{Marks: marks, From: s.applied, To: s.applied}
	hours := map[int64]*tally{}
	var rows []found
	for i := range marks {
		m := &marks[i]
		if m.Position > s.applied[m.Partition] {
			continue
		}
		all := s.recentOf(m.Position, m.Partition)
		if !s.coversRecent(m.Position) {
			if all, err = s.olderOf(ctx, m.Position, m.Partition); err != nil {
				return fmt.Errorf("marking alerts as forwarded: %w", err)
			}
		}
		for _, f := range all {
			if hasBit(m.Signals, f.index) && !f.chunk.forwarded.has(f.row) {
				rows = append(rows, f)
				s.hour(hours, f.received).forwarded++
			}
		}
	}
	for start, t := range hours {
		if s.rollups.hours[start] == nil { // it is counted by day already
			delete(hours, start)
			continue
		}
		w.Rollups = append(w.Rollups, muster.SieveRollup{Span: 1, Start: start, Data: t.encode(s.packer)})
	}
	s.markChunks(rows, &w, func(c *chunk) *bitmap { return &c.forwarded })
	if err := s.cfg.Ledger.PutSieve(ctx, &w); err != nil {
		return fmt.Errorf("marking alerts as forwarded: %w", err)
	}
	s.cols.mu.Lock()
	defer s.cols.mu.Unlock()
	for _, f := range rows {
		f.chunk.forwarded.set(f.row)
	}
	s.replace(hours)
	for _, m := range marks {
		if m.Position > s.applied[m.Partition] {
			s.pending[markKey{m.Position, m.Partition}] = m
		}
	}
	return nil
}

// coversRecent reports whether all alerts of a position are among the latest.
func (s *Service) coversRecent(position uint64) bool {
	for _, c := range []*chunk{s.live.before, s.live.tail} {
		if c != nil && len(c.refs) > 0 {
			return c.refs[0].position < position || c.number<<muster.SieveChunkBits == firstLive
		}
	}
	return false
}

// marksWith returns the marks of the records of signals, with them.
func (s *Service) marksWith(ctx context.Context, signals []muster.SieveRef, at time.Time) ([]muster.SieveMark, error) {
	byRecord := map[markKey][]byte{}
	var records []muster.SieveMark
	for _, r := range signals {
		if r.Index < 0 || r.Index >= noIndex {
			return nil, muster.Errorf(muster.Invalid, "expected the index of a signal, 0 to %d, got %d", noIndex-1, r.Index)
		}
		key := markKey{r.Position, r.Partition}
		bits, known := byRecord[key]
		if !known {
			records = append(records, muster.SieveMark{Position: r.Position, Partition: r.Partition})
		}
		for len(bits) <= r.Index>>3 {
			bits = append(bits, 0)
		}
		bits[r.Index>>3] |= 1 << (r.Index & 7)
		byRecord[key] = bits
	}
	before, err := s.cfg.Ledger.SieveMarksOf(ctx, records)
	if err != nil {
		return nil, err
	}
	times := map[markKey]time.Time{}
	for _, m := range before {
		key := markKey{m.Position, m.Partition}
		bits := byRecord[key]
		for len(bits) < len(m.Signals) {
			bits = append(bits, 0)
		}
		for i, b := range m.Signals {
			bits[i] |= b
		}
		byRecord[key], times[key] = bits, m.At
	}
	for i := range records {
		r := &records[i]
		key := markKey{r.Position, r.Partition}
		r.Signals, r.At = byRecord[key], at
		if was, ok := times[key]; ok {
			r.At = was
		}
	}
	slices.SortFunc(records, func(a, b muster.SieveMark) int {
		return cmp.Or(cmp.Compare(a.Position, b.Position), cmp.Compare(a.Partition, b.Partition))
	})
	return records, nil
}

// markChunks adds the marks of stored chunks, with those of rows, to w.
func (s *Service) markChunks(rows []found, w *muster.SieveWrite, which func(*chunk) *bitmap) {
	changed := map[*chunk]*chunk{}
	for _, f := range rows {
		if !f.chunk.sealed {
			continue
		}
		c := changed[f.chunk]
		if c == nil {
			c = &chunk{number: f.chunk.number, forwarded: slices.Clone(f.chunk.forwarded), replicated: slices.Clone(f.chunk.replicated)}
			changed[f.chunk] = c
		}
		which(c).set(f.row)
	}
	for _, c := range changed {
		w.ChunkMarks = append(w.ChunkMarks, muster.SieveChunk{Number: c.number, Marks: c.encodeMarks(s.packer)})
	}
}

// SetReplicated notes that the decisions of alerts were pushed to the other
// LAPIs. It returns when that is durable; alerts that are gone do not matter.
func (s *Service) SetReplicated(ctx context.Context, ids []int64) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var rows []found
	blocks := map[int64]struct{}{}
	for _, id := range ids {
		if c := s.cols.chunkOf(id); s.cols.has(id) && !c.replicated.has(int(id&(chunkAlerts-1))) {
			rows = append(rows, found{chunk: c, row: int(id & (chunkAlerts - 1))})
			if !c.sealed {
				blocks[id>>muster.SieveBlockBits] = struct{}{}
			}
		}
	}
	if len(rows) == 0 {
		return nil
	}
	w := muster.SieveWrite{From: s.applied, To: s.applied}
	s.markChunks(rows, &w, func(c *chunk) *bitmap { return &c.replicated })
	if err := s.replicatedBlocks(ctx, blocks, rows, &w); err != nil {
		return fmt.Errorf("marking alerts as replicated: %w", err)
	}
	if err := s.cfg.Ledger.PutSieve(ctx, &w); err != nil {
		return fmt.Errorf("marking alerts as replicated: %w", err)
	}
	s.cols.mu.Lock()
	defer s.cols.mu.Unlock()
	for _, f := range rows {
		f.chunk.replicated.set(f.row)
		if id := f.chunk.id(f.row); f.chunk == s.live.tail && id >= s.live.next-int64(len(s.live.open)) {
			s.live.open[id&(blockAlerts-1)].flags |= flagReplicated
		}
	}
	return nil
}

// replicatedBlocks adds the blocks of alerts in chunks that are not stored yet,
// from which they would be read again, with the mark in them.
func (s *Service) replicatedBlocks(ctx context.Context, blocks map[int64]struct{}, rows []found, w *muster.SieveWrite) error {
	numbers := make([]int64, 0, len(blocks))
	for n := range blocks {
		numbers = append(numbers, n)
	}
	stored, err := s.cfg.Ledger.SieveBlocks(ctx, numbers)
	if err != nil {
		return err
	}
	for _, b := range stored {
		alerts, err := s.packer.unpackBlock(b.Data)
		if err != nil {
			return err
		}
		for _, f := range rows {
			if id := f.chunk.id(f.row); id>>muster.SieveBlockBits == b.Number && int(id&(blockAlerts-1)) < len(alerts) {
				alerts[id&(blockAlerts-1)].flags |= flagReplicated
			}
		}
		b.Data = s.packer.packBlock(alerts, &s.buf)
		w.Blocks = append(w.Blocks, b)
	}
	return nil
}

// AuditRow is what a person did, to be kept among the alerts.
type AuditRow struct {
	Scenario string // crowdsieve/unban, crowdsieve/manual
	Message  string
	Actor    string // "" when it is not known; muster.MaxActor characters are kept
	Scope    string // Ip or Range
	Value    string // the address or range
	Reason   string // "" for none
}

// AddAudit stores what a person did as an alert that is withheld, never forwarded
// and in no statistics. It returns the alert's number when it is durable.
func (s *Service) AddAudit(ctx context.Context, row AuditRow) (int64, error) {
	now := s.cfg.Now().UTC()
	source := map[string]string{"scope": row.Scope, "value": row.Value}
	if addressOf(row.Value).IsValid() {
		source["ip"] = row.Value
	}
	raw, err := json.Marshal(map[string]any{
		"scenario": row.Scenario, "message": row.Message, "source": source,
		"created_at": now.Format(time.RFC3339), "start_at": now.Format(time.RFC3339), "stop_at": now.Format(time.RFC3339),
	})
	if err != nil {
		return 0, fmt.Errorf("writing an audit row: %w", err)
	}
	a := arrivalsOf([][]byte{raw}, []*muster.SieveGeo{{}})[0]
	a.flags |= flagFiltered | flagLocal
	a.received, a.actor = millis(now), clipActor(row.Actor)
	if row.Reason != "" {
		a.reasons = reasonsJSON([]string{row.Reason})
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	a.ref = ref{position: s.position.Load(), index: noIndex}
	id := s.live.next
	w := muster.SieveWrite{From: s.applied, To: s.applied}
	if err := s.put(ctx, &s.live, []arrival{a}, &w); err != nil {
		return 0, fmt.Errorf("storing an audit row: %w", err)
	}
	return id, nil
}

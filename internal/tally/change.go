package tally

import (
	"context"
	"maps"
	"slices"
	"time"

	"muster"
	"muster/internal/consensus"
)

// change is what one transaction will do to the evidence, kept beside it until
// the transaction is durable.
type change struct {
	evidence map[muster.Source]consensus.Evidence
	heard    map[muster.Source]time.Time // what is to be judged, and at which time
	verdicts map[told]muster.Verdict     // the latest on each
}

// told is what a reader follows: a source on one list.
type told struct {
	audience muster.Audience
	source   muster.Source
}

func (w *Worker) newChange(size int) *change {
	return &change{
		evidence: make(map[muster.Source]consensus.Evidence, size),
		heard:    make(map[muster.Source]time.Time),
		verdicts: make(map[told]muster.Verdict),
	}
}

// of returns a private copy of the evidence on source.
func (c *change) of(w *Worker, source muster.Source) consensus.Evidence {
	if ev, ok := c.evidence[source]; ok {
		return ev
	}
	return w.evidence[source].Clone()
}

func (w *Worker) fold(ch *change, s *muster.Signal) {
	if !s.Source.IsValid() || s.Flags&(muster.Counts|muster.Fleet) == 0 || !w.cfg.Member(s.Machine, s.Organisation) {
		return
	}
	s.Machine, s.Organisation = w.intern(s.Machine), w.intern(s.Organisation)
	if len(w.names) < w.maxNames { // senders invent scenarios, machines and organisations they cannot
		s.Scenario = w.intern(s.Scenario)
	}
	ch.evidence[s.Source] = consensus.Fold(ch.of(w, s.Source), s)
	ch.heard[s.Source] = s.Received
}

// judge judges every source that was heard since the last time. Evidence is
// judged after each record of the log and at the time its latest signal was
// received, so that a replay gives the same verdicts however many records it
// takes at once; what is told to readers is stamped with changed, the clock of
// the changelog.
func (w *Worker) judge(ch *change, changed time.Time) {
	for source, at := range ch.heard {
		ev, vs := w.cfg.Judge.Judge(source, ch.evidence[source], w.never(source), at)
		ch.evidence[source] = ev
		for _, v := range vs {
			v.Changed = changed
			ch.verdicts[told{v.Audience, source}] = v
		}
	}
	clear(ch.heard)
}

// stamp returns the time for the changelog, which only grows: those who follow
// it would miss what a clock that was set back has stamped.
func (w *Worker) stamp() time.Time {
	now := w.cfg.Now().UTC().Truncate(time.Microsecond)
	if !now.After(w.stamped) {
		now = w.stamped.Add(time.Microsecond)
	}
	w.stamped = now
	return now
}

// never says why source must not be published, or "".
func (w *Worker) never(source muster.Source) string {
	if source.IsReserved() {
		return "reserved or private address space is never listed"
	}
	if reason, ok := w.allow.Covers(source); ok {
		if reason == "" {
			return "on the allowlist"
		}
		return "on the allowlist: " + reason
	}
	return ""
}

// maxArena bounds what is kept of the memory that evidence is written from.
const maxArena = 16 << 20

func (w *Worker) write(tx Tx, ch *change) error {
	rows := make([]muster.EvidenceRow, 0, len(ch.evidence))
	arena := w.arena[:0]
	for source, ev := range ch.evidence {
		start := len(arena)
		arena = ev.AppendBinary(arena)
		rows = append(rows, muster.EvidenceRow{
			Partition: w.cfg.Partition(source), Source: source,
			Last: time.UnixMicro(ev.Last).UTC(), Data: arena[start:len(arena):len(arena)],
		})
	}
	if cap(arena) <= maxArena {
		w.arena = arena
	}
	if err := tx.PutEvidence(rows); err != nil {
		return err
	}
	if len(ch.verdicts) == 0 {
		return nil
	}
	return tx.PutVerdicts(slices.Collect(maps.Values(ch.verdicts)))
}

// install makes a durable change the state in memory.
func (w *Worker) install(ch *change) {
	for source, ev := range ch.evidence {
		w.evidence[source] = ev
	}
	w.sources.Set(float64(len(w.evidence)))
	if len(ch.verdicts) > 0 {
		w.verdicts.Add(float64(len(ch.verdicts)))
		w.cfg.Changed()
	}
}

// rejudge judges sources again without new signals and commits what changed.
func (w *Worker) rejudge(ctx context.Context, sources []muster.Source) error {
	if len(sources) == 0 {
		return nil
	}
	ch := w.newChange(len(sources))
	for _, s := range sources {
		ch.evidence[s] = ch.of(w, s)
	}
	return w.commitChange(ctx, ch)
}

func (w *Worker) commitChange(ctx context.Context, ch *change) error {
	changed := w.stamp()
	for source := range ch.evidence {
		ch.heard[source] = changed
	}
	w.judge(ch, changed)
	if err := w.cfg.Ledger.Commit(ctx, func(tx Tx) error { return w.write(tx, ch) }); err != nil {
		return err
	}
	w.install(ch)
	return nil
}

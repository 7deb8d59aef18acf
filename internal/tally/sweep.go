package tally

import (
	"context"
	"time"

	"muster"
	"muster/internal/consensus"
)

// sweep ends listings that lapsed and forgets sources that nobody has reported
// for so long that nothing about them can matter.
func (w *Worker) sweep(ctx context.Context) error {
	now := w.cfg.Now()
	w.forgetNames()
	var lapsed []muster.Source
	for source, ev := range w.evidence {
		if w.lapsed(source, ev, now) {
			lapsed = append(lapsed, source)
		}
	}
	if err := w.rejudge(ctx, lapsed); err != nil {
		return err
	}
	if err := w.catchUp(ctx); err != nil {
		return err
	}
	stale := map[uint8][]muster.Source{}
	for source, ev := range w.evidence {
		if w.cfg.Judge.Stale(ev, now) {
			p := w.cfg.Partition(source)
			stale[p] = append(stale[p], source)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	err := w.cfg.Ledger.Commit(ctx, func(tx Tx) error {
		for p, sources := range stale {
			if err := tx.DeleteEvidence(p, sources); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, sources := range stale {
		for _, s := range sources {
			delete(w.evidence, s)
		}
	}
	w.sources.Set(float64(len(w.evidence)))
	return nil
}

// lapsed reports whether a listing of source has come to its end. The end that
// was told may be a little early; until the true one, nothing is to be written.
func (w *Worker) lapsed(source muster.Source, ev consensus.Evidence, now time.Time) bool {
	for _, st := range ev.Standing {
		if st.Until <= now.UnixMicro() {
			_, vs := w.cfg.Judge.Judge(source, ev.Clone(), w.never(source), now)
			return len(vs) > 0
		}
	}
	return false
}

// catchUp moves the positions of idle partitions, so that a restart need not
// read the whole log for the sake of one that had nothing.
func (w *Worker) catchUp(ctx context.Context) error {
	idle := false
	for _, pos := range w.positions {
		idle = idle || pos < w.passed
	}
	if !idle {
		return nil
	}
	err := w.cfg.Ledger.Commit(ctx, func(tx Tx) error {
		for p, pos := range w.positions {
			if pos < w.passed {
				if err := tx.Advance(uint8(p), pos, w.passed); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for p := range w.positions {
		w.positions[p] = max(w.positions[p], w.passed)
	}
	return nil
}

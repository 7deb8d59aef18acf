package jury

import (
	"bytes"
	"context"
	"time"

	"muster"
	"muster/internal/crowd"
)

// do runs f on the worker's goroutine.
func (w *Worker) do(ctx context.Context, f func(ctx context.Context) error) error {
	c := command{do: f, done: make(chan error, 1)}
	select {
	case w.commands <- c:
		return <-c.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// now is as of when commands judge: the log's time, or the clock's when the log
// has had nothing for a while.
func (w *Worker) now() int64 { return max(w.tick, w.cfg.Now().Unix()) }

// Forget drops what machine said as a member of any organisation but one ("" =
// of all): it was blocked, released, or has moved.
func (w *Worker) Forget(ctx context.Context, machine, but string) error {
	return w.do(ctx, func(ctx context.Context) error {
		number, known := w.numbers[machines].of[machine]
		if !known {
			return nil
		}
		stays := w.numbers[organisations].of[but] // 0 when it has never been heard of
		return w.forget(ctx, func(m, organisation uint32) bool {
			return m == number && (but == "" || organisation != stays)
		})
	})
}

// ForgetStrangers drops what every machine said that is no active member of the
// organisation that it spoke for. It asks for every voice, so it is for when
// nobody knows which machines changed.
func (w *Worker) ForgetStrangers(ctx context.Context) error {
	return w.do(ctx, func(ctx context.Context) error {
		return w.forget(ctx, func(m, organisation uint32) bool { return !w.isMember(m, organisation) })
	})
}

// forget drops the voices that gone picks, and judges again what they spoke of.
// Machines that count nowhere any more are left out of the network's numbers.
func (w *Worker) forget(ctx context.Context, gone func(machine, organisation uint32) bool) error {
	sources := w.spokenOf(gone)
	var blocked []uint32
	for machine := 1; machine < len(w.records); machine++ {
		if m := uint32(machine); w.records[m].Blocked == w.counts(m) {
			blocked = append(blocked, m)
		}
	}
	if len(sources)+len(blocked) == 0 && !w.owes() {
		return nil
	}
	return w.commit(ctx, func(Tx) error {
		for _, m := range blocked {
			w.move(m).Blocked = !w.counts(m)
		}
		for _, source := range sources {
			w.of(source).ev.Forget(gone)
		}
		w.rejudge(sources, w.now())
		return nil
	})
}

// removalScan bounds how many of a machine's stored signals are looked through
// for a decision that its operator deleted.
const removalScan = 20_000

// Withdraw takes decisions that a machine's operator deleted off its fleet's
// list. Reports made after the removal stand. It may be told the same removal
// twice.
func (w *Worker) Withdraw(ctx context.Context, organisation string, r muster.Removal, since time.Time) error {
	reports, err := w.cfg.Ledger.Reports(ctx, organisation, r.Machine, since, removalScan)
	if err != nil {
		return err
	}
	deleted := make(map[string]bool, len(r.Decisions))
	for _, uuid := range r.Decisions {
		deleted[uuid] = true
	}
	var sources []muster.Source
	for _, s := range reports {
		if s.Flags&muster.Fleet != 0 && names(s.Detail, deleted) {
			sources = append(sources, SubjectOf(s.Source))
		}
	}
	if len(sources) == 0 {
		return nil
	}
	return w.do(ctx, func(ctx context.Context) error {
		number, known := w.numbers[machines].of[r.Machine]
		if !known {
			return nil
		}
		return w.commit(ctx, func(Tx) error {
			var changed []muster.Source
			for _, source := range sources {
				if h := w.evidence.get(source); h != nil && h.ev.Withdraw(number, r.At.Unix()) {
					w.of(source)
					changed = append(changed, source)
				}
			}
			w.rejudge(changed, w.now())
			return nil
		})
	})
}

// Unban mutes what was said about a source so far, at the word of an operator
// or of the unban service: it comes off the network's list, and for a while more
// is asked for to list it again.
func (w *Worker) Unban(ctx context.Context, source muster.Source, at time.Time) error {
	source = SubjectOf(source)
	return w.do(ctx, func(ctx context.Context) error {
		return w.commit(ctx, func(Tx) error {
			w.of(source).ev.Unban(at.Unix())
			w.rejudge([]muster.Source{source}, w.now())
			return nil
		})
	})
}

// Standing is what is known about a source now.
type Standing struct {
	Known   bool // there is evidence
	Reasons muster.Reasons
	Canary  bool
	ASN     uint32    // as noted with its last report, 0 = not known
	Name    string    // that it was found to own, of those that canaries name
	Due     time.Time // when it is judged again without new reports; zero = never
}

// Explain says what is known about a source, listed or not.
func (w *Worker) Explain(ctx context.Context, source muster.Source) (s Standing, err error) {
	source = SubjectOf(source)
	err = w.do(ctx, func(context.Context) error {
		h := w.evidence.get(source)
		f := w.facts(source, h)
		s.Canary = f.Canary
		if h == nil {
			s.Reasons.Never = f.Never
			return nil
		}
		s.ASN = h.asn
		if n := h.name(); w.tick < n.until {
			s.Name = n.name
		}
		r := w.table.Explain(&h.ev, w.now(), f)
		s.Known, s.Reasons = true, w.reasons(&r)
		if due := w.table.Due(&h.ev); due > 0 {
			s.Due = time.Unix(due, 0).UTC()
		}
		return nil
	})
	return s, err
}

// Trust is what a machine's word is worth now.
type Trust struct {
	Number uint32 // under which its events are stored
	Record crowd.Record
	Trust  crowd.Trust
	Epoch  uint64
}

// Trust returns what is known about a machine; code NotFound: it has never
// reported.
func (w *Worker) Trust(ctx context.Context, machine string) (t Trust, err error) {
	err = w.do(ctx, func(context.Context) error {
		number, known := w.numbers[machines].of[machine]
		if !known {
			return muster.Errorf(muster.NotFound, "machine %s has not reported anything yet", machine)
		}
		t = Trust{Number: number, Record: w.records[number], Trust: w.table.Of(number), Epoch: w.epoch}
		t.Trust.Bound = crowd.Rate(&t.Record, w.now(), &w.cfg.Parameters).Bound // which tables do not keep
		return nil
	})
	return t, err
}

// Network sums up the population that thresholds scale with.
func (w *Worker) Network(ctx context.Context) (p crowd.Population, newcomer float32, err error) {
	err = w.do(ctx, func(context.Context) error {
		p, newcomer = w.table.Population, w.table.Newcomer
		return nil
	})
	return p, newcomer, err
}

// names reports whether one of the strings in a report's JSON is in set. Each is
// looked up once, however many there are in the set.
func names(detail []byte, set map[string]bool) bool {
	for {
		start := bytes.IndexByte(detail, '"')
		if start < 0 {
			return false
		}
		detail = detail[start+1:]
		end := bytes.IndexByte(detail, '"')
		if end < 0 {
			return false
		}
		if set[string(detail[:end])] {
			return true
		}
		// The closing quote may open the next string when an escaped one came
		// before: looking from it again finds every string.
		detail = detail[end:]
	}
}

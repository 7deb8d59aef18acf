package tally

import (
	"bytes"
	"context"
	"slices"
	"time"

	"muster"
	"muster/internal/consensus"
	"muster/internal/policy"
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

// Forget drops what machine said as a member of any organisation but one ("" =
// of all): it was blocked, released, or has moved.
func (w *Worker) Forget(ctx context.Context, machine, but string) error {
	return w.do(ctx, func(ctx context.Context) error {
		if _, spoke := w.names[machine]; !spoke {
			return nil
		}
		return w.forget(ctx, func(v consensus.Voice) bool {
			return v.Machine == machine && (but == "" || v.Organisation != but)
		})
	})
}

// ForgetStrangers drops what every machine said that is no active member of the
// organisation that it spoke for. It asks for every voice, so it is for when
// nobody knows which machines changed.
func (w *Worker) ForgetStrangers(ctx context.Context) error {
	return w.do(ctx, func(ctx context.Context) error {
		return w.forget(ctx, func(v consensus.Voice) bool { return !w.cfg.Member(v.Machine, v.Organisation) })
	})
}

// forget drops the voices that gone picks, and judges again what they spoke of.
func (w *Worker) forget(ctx context.Context, gone func(consensus.Voice) bool) error {
	ch := w.newChange(0)
	for source, ev := range w.evidence {
		if slices.ContainsFunc(ev.Voices, gone) {
			ev = ev.Clone()
			ev.Forget(gone)
			ch.evidence[source] = ev
		}
	}
	if len(ch.evidence) == 0 {
		return nil
	}
	return w.commitChange(ctx, ch)
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
			sources = append(sources, s.Source)
		}
	}
	if len(sources) == 0 {
		return nil
	}
	return w.do(ctx, func(ctx context.Context) error {
		ch := w.newChange(len(sources))
		for _, source := range sources {
			ev := ch.of(w, source)
			if ev.Withdraw(r.Machine, r.At) {
				ch.evidence[source] = ev
			}
		}
		return w.commitChange(ctx, ch)
	})
}

// SetAllowlist replaces the allowlist and judges again what it may concern. It
// is in force from then on, even when what is listed could not be withdrawn;
// telling it again tries that again.
func (w *Worker) SetAllowlist(ctx context.Context, a *policy.Allowlist) error {
	return w.do(ctx, func(ctx context.Context) error {
		before := w.allow
		w.allow = a
		var sources []muster.Source
		for source, ev := range w.evidence {
			_, was := before.Covers(source)
			if _, is := a.Covers(source); is && len(ev.Standing) > 0 || was && !is {
				sources = append(sources, source)
			}
		}
		return w.rejudge(ctx, sources)
	})
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

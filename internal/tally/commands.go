package tally

import (
	"bytes"
	"context"
	"time"

	"muster"
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

// Forget drops everything that machine said: it was blocked, or has left.
func (w *Worker) Forget(ctx context.Context, machine string) error {
	return w.do(ctx, func(ctx context.Context) error {
		ch := w.newChange(0)
		for source, ev := range w.evidence {
			if ev = ev.Clone(); ev.Forget(machine) {
				ch.evidence[source] = ev
			}
		}
		if len(ch.evidence) == 0 {
			return nil
		}
		return w.commitChange(ctx, ch)
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
	quoted := make([][]byte, len(r.Decisions)) // whole words of the JSON that a report's detail is
	for i, uuid := range r.Decisions {
		quoted[i] = []byte(`"` + uuid + `"`)
	}
	var sources []muster.Source
	for _, s := range reports {
		for _, uuid := range quoted {
			if s.Flags&muster.Fleet != 0 && bytes.Contains(s.Detail, uuid) {
				sources = append(sources, s.Source)
				break
			}
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

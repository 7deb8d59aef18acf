package roles

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"muster"
	"muster/internal/console"
	"muster/internal/jury"
	"muster/internal/policy"
	"muster/internal/store"
)

// truth keeps in memory what the operator knows about sources: the allowlist,
// with the operators' verdicts, and the canaries.
type truth struct {
	db    *store.DB
	fixed []muster.Source   // of the configuration's allowlist
	wide  *policy.Allowlist // sources that many people share
	now   func() time.Time

	known atomic.Pointer[jury.Truth]
	ends  atomic.Int64 // when the first of the allowlist's entries ends, Unix microseconds; 0 = none does
}

// load reads what is in force.
func (t *truth) load(ctx context.Context) error {
	entries, err := t.db.AllowEntries(ctx, t.now())
	if err != nil {
		return fmt.Errorf("reading the allowlist: %w", err)
	}
	words, err := t.db.OperatorVerdicts(ctx, t.now())
	if err != nil {
		return fmt.Errorf("reading the operators' verdicts: %w", err)
	}
	for _, w := range words {
		if !w.Listed {
			entries = append(entries, muster.AllowEntry{Source: w.Source, Reason: console.OperatorPrefix + w.Reason, CreatedAt: w.CreatedAt, ExpiresAt: w.Until})
		}
	}
	canaries := policy.BuiltInCanaries()
	err = t.db.EachCanary(ctx, func(c muster.Canary) error {
		canaries = append(canaries, c)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the canaries: %w", err)
	}
	ends := int64(0)
	for _, e := range entries {
		if at := e.ExpiresAt; !at.IsZero() && (ends == 0 || at.UnixMicro() < ends) {
			ends = at.UnixMicro()
		}
	}
	t.ends.Store(ends)
	for _, s := range t.fixed {
		entries = append(entries, muster.AllowEntry{Source: s, Reason: "publish.allowlist in the configuration"})
	}
	t.known.Store(&jury.Truth{
		Allowlist: policy.NewAllowlist(entries), Canaries: policy.NewCanaries(canaries), Shared: t.shared,
	})
	return nil
}

// due reports whether an entry of the allowlist, or an operator's verdict, has
// ended since the last load.
func (t *truth) due() bool {
	ends := t.ends.Load()
	return ends != 0 && t.now().UnixMicro() >= ends
}

func (t *truth) current() jury.Truth { return *t.known.Load() }

// covers reports whether a source must never be published.
func (t *truth) covers(s muster.Source) bool {
	known := t.known.Load()
	if _, ok := known.Allowlist.Covers(s); ok {
		return true
	}
	if _, ok := known.Canaries.Match(s, 0); ok {
		return true
	}
	return known.Canaries.Inside(s)
}

func (t *truth) shared(s muster.Source) bool {
	_, ok := t.wide.Covers(s)
	return ok
}

func entriesOf(sources []muster.Source) []muster.AllowEntry {
	entries := make([]muster.AllowEntry, len(sources))
	for i, s := range sources {
		entries[i].Source = s
	}
	return entries
}

package roles

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"muster"
	"muster/internal/console"
	"muster/internal/jury"
	"muster/internal/policy"
	"muster/internal/store"
)

// truth keeps in memory what the operator knows about sources: the allowlist,
// the operators' verdicts, and the canaries.
type truth struct {
	db    *store.DB
	lists func() []muster.AllowEntry // of the installation's allowlists
	fixed []muster.Source            // of the configuration's allowlist
	wide  *policy.Allowlist          // sources that many people share
	now   func() time.Time
	asn   func(netip.Addr) uint32 // nil without a database

	known  atomic.Pointer[jury.Truth]
	ends   atomic.Int64 // when the first entry or verdict ends, Unix microseconds; 0 = none does
	failed atomic.Bool  // the last load
}

// load reads what is in force. After an error what was read before stays so, and
// due says that it has to be read again.
func (t *truth) load(ctx context.Context) error {
	err := t.read(ctx)
	t.failed.Store(err != nil)
	return err
}

func (t *truth) read(ctx context.Context) error {
	entries := t.lists()
	words, err := t.db.OperatorVerdicts(ctx, t.now())
	if err != nil {
		return fmt.Errorf("reading the operators' verdicts: %w", err)
	}
	ends := int64(0)
	listed := map[muster.Source]muster.OperatorVerdict{}
	for _, w := range words {
		if w.Listed && !w.Until.IsZero() {
			listed[jury.SubjectOf(w.Source)] = w
			ends = earlier(ends, w.Until)
		}
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
	for _, e := range entries {
		ends = earlier(ends, e.ExpiresAt)
	}
	t.ends.Store(ends)
	for _, s := range t.fixed {
		entries = append(entries, muster.AllowEntry{Source: s, Reason: "publish.allowlist in the configuration"})
	}
	t.known.Store(&jury.Truth{
		Allowlist: policy.NewAllowlist(entries), Canaries: policy.NewCanaries(canaries), Shared: t.shared, Listed: listed,
	})
	return nil
}

// earlier returns the earlier of two times, the first in Unix microseconds; none
// is 0, and the zero time.
func earlier(ends int64, at time.Time) int64 {
	if !at.IsZero() && (ends == 0 || at.UnixMicro() < ends) {
		return at.UnixMicro()
	}
	return ends
}

// due reports whether an entry of the allowlist, or an operator's verdict, has
// ended since the last load, or that failed.
func (t *truth) due() bool {
	if t.failed.Load() {
		return true
	}
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
	asn := uint32(0)
	if t.asn != nil && known.Canaries.ASes() > 0 && s.IsValid() {
		asn = t.asn(s.Addr())
	}
	if _, ok := known.Canaries.Match(s, asn); ok {
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

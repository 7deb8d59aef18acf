package ratelimit

import (
	"errors"
	"net/netip"
	"time"

	"muster"
)

// Ban is the refusal to serve the clients in a range of addresses. It is no
// Decision: that is what engines do to attackers.
type Ban struct {
	Prefix netip.Prefix  `json:"prefix"`          // as ParsePrefix gives it
	Scope  Scope         `json:"scope"`           // which requests are refused
	Reason string        `json:"reason"`          // for the banned one to read
	Limit  string        `json:"limit,omitempty"` // the limit that was crossed, "" for a ban by a person
	Since  time.Time     `json:"since"`
	Until  time.Time     `json:"until,omitzero"`      // zero: until it is lifted
	Extend time.Duration `json:"extend_ns,omitempty"` // a refused request moves Until to at least this long after it; 0: it does not
	By     string        `json:"by,omitempty"`        // the person who decided it, "" for the limiter
}

// The widest ranges that can be banned: a slip of the pen must not shut out the
// Internet.
const (
	minV4Bits = 8
	minV6Bits = 16
)

// Validate returns every fault of b, as errors of code Invalid.
func (b Ban) Validate() error {
	p, err := canonical(b.Prefix)
	if err != nil {
		return err
	}
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, muster.Errorf(muster.Invalid, "ban of %s: "+format, append([]any{p}, args...)...))
	}
	if least := map[bool]int{true: minV4Bits, false: minV6Bits}[p.Addr().Is4()]; p.Bits() < least {
		fault("the range is too wide: expected /%d or narrower", least)
	}
	if !b.Scope.valid() {
		fault("scope: expected %q or %q, got %q", ScopeAll, ScopeLogin, clip(string(b.Scope)))
	}
	if b.Reason == "" {
		fault("reason is empty: it is what the banned one gets to read")
	}
	if b.Since.IsZero() {
		fault("since is not set")
	}
	if !b.Until.IsZero() && !b.Until.After(b.Since) {
		fault("until is not after since (%s)", b.Since.Format(time.RFC3339))
	}
	if b.Extend < 0 || b.Extend > MaxBan || b.Extend > 0 && b.Until.IsZero() {
		fault("extension: expected 0 to %s, and none for a ban without end", MaxBan)
	}
	return errors.Join(errs...)
}

// Change says what happened to a ban.
type Change string

// The changes.
const (
	Added    Change = "added"
	Changed  Change = "changed"  // replaced, or joined by a further one
	Extended Change = "extended" // by retries, so far
	Lifted   Change = "lifted"   // by a person
	Expired  Change = "expired"
)

// Sink learns of changes that were made here, not of learned ones; what it does
// with them is to tell other nodes and to make them last.
type Sink interface {
	// BanChanged is called in the order of the changes, but for Extended, with
	// locks held and on the way of requests: it must not block and must not
	// call back. Extended comes for each ban at most every ReportEvery; it is
	// to update what is shared and never to create it, or a report that crosses
	// a lift would bring the ban back.
	BanChanged(b Ban, what Change)
}

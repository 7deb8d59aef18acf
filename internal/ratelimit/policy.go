package ratelimit

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"muster"
)

// Policy is what an operator decides: limits, and who is excepted from them.
type Policy struct {
	Limits    []Limit
	Overrides []Override
}

// Override changes limits for one subject: a range of addresses, an
// organisation or a machine, exactly one of them.
type Override struct {
	ID string `json:"id,omitempty"` // UUIDv7; "" for one of the configuration

	Addresses    netip.Prefix `json:"addresses,omitzero"`
	Organisation string       `json:"organisation,omitempty"`
	Machine      string       `json:"machine,omitempty"`

	Limits    []string `json:"limits,omitempty"`    // names; empty: all limits
	Exempt    bool     `json:"exempt,omitempty"`    // not limited at all, or else
	Threshold int      `json:"threshold,omitempty"` // instead of the limit's own

	Since  time.Time `json:"since,omitzero"`
	Until  time.Time `json:"until,omitzero"` // zero: for good
	Reason string    `json:"reason"`         // for whoever reads it later; required
	By     string    `json:"by,omitempty"`   // who decided it
}

// MaxOverrides is how many overrides a policy may hold.
const MaxOverrides = 100_000

// Subject names whom o is about.
func (o Override) Subject() string {
	switch {
	case o.Machine != "":
		return "machine " + clip(o.Machine)
	case o.Organisation != "":
		return "organisation " + clip(o.Organisation)
	default:
		return o.Addresses.String()
	}
}

// Validate returns every fault of o, as errors of code Invalid.
func (o Override) Validate() error {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, muster.Errorf(muster.Invalid, "override for %s: "+format, append([]any{o.Subject()}, args...)...))
	}
	subjects := 0
	for _, set := range []bool{o.Addresses.IsValid(), o.Organisation != "", o.Machine != ""} {
		if set {
			subjects++
		}
	}
	if subjects != 1 {
		fault("expected exactly one of a range of addresses, an organisation, a machine; got %d", subjects)
	}
	if o.Addresses.IsValid() {
		if _, err := canonical(o.Addresses); err != nil {
			fault("%w", err)
		}
	}
	if o.Exempt == (o.Threshold != 0) {
		fault("expected either exempt or a threshold")
	}
	if o.Threshold < 0 || o.Threshold > MaxThreshold {
		fault("threshold: expected 1 to %d events, got %d", MaxThreshold, o.Threshold)
	}
	if o.Reason == "" {
		fault("reason is empty: say why, whoever reads it later was not there")
	}
	return errors.Join(errs...)
}

// Rules is a Policy compiled: immutable, and safe to share.
type Rules struct {
	kinds map[string][]*rule

	// An override's limits are looked at when it is found: few match.
	machines, organisations map[string][]*Override
	v4, v6                  *ranges[[]*Override]
}

// rule is one limit and the ways in which it counts.
type rule struct {
	Limit
	exact, coarse uint32 // ids of its counters, see counterID
}

// Compile checks p as a whole and makes it usable; all faults are reported, as
// errors of code Invalid. Counters are kept by a limit's name and window: they
// go on when anything else about it changes.
func Compile(p Policy) (*Rules, error) {
	var errs []error
	if len(p.Limits) > MaxLimits {
		errs = append(errs, muster.Errorf(muster.Invalid, "expected at most %d limits, got %d", MaxLimits, len(p.Limits)))
	}
	if len(p.Overrides) > MaxOverrides {
		errs = append(errs, muster.Errorf(muster.Invalid, "expected at most %d overrides, got %d: cover them by ranges or organisations", MaxOverrides, len(p.Overrides)))
	}
	r := &Rules{
		kinds:         map[string][]*rule{},
		machines:      map[string][]*Override{},
		organisations: map[string][]*Override{},
	}
	ids := map[uint32]string{}
	names := map[string]bool{}
	for _, l := range p.Limits {
		errs = append(errs, l.Validate())
		if names[l.Name] {
			errs = append(errs, muster.Errorf(muster.Invalid, "limit %q: there are two of this name", clip(l.Name)))
			continue
		}
		names[l.Name] = true
		if l.Off {
			continue
		}
		l.ExemptPlans = slices.Clone(l.ExemptPlans)
		rule := &rule{Limit: l, exact: counterID(l, "exact"), coarse: counterID(l, "coarse")}
		for _, id := range []uint32{rule.exact, rule.coarse} {
			if other, taken := ids[id]; taken { // one in a million, and then it must not merge their counts
				errs = append(errs, muster.Errorf(muster.Invalid, "limits %q and %q have the same fingerprint: rename one", clip(other), clip(l.Name)))
			}
			ids[id] = l.Name
		}
		r.kinds[l.Counted.Kind] = append(r.kinds[l.Counted.Kind], rule)
	}

	byPrefix := map[netip.Prefix][]*Override{}
	for _, o := range p.Overrides {
		if err := o.Validate(); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, name := range o.Limits {
			if !names[name] {
				errs = append(errs, muster.Errorf(muster.Invalid, "override for %s: there is no limit %q", o.Subject(), clip(name)))
			}
		}
		o.Limits = slices.Clone(o.Limits)
		switch {
		case o.Machine != "":
			r.machines[o.Machine] = append(r.machines[o.Machine], &o)
		case o.Organisation != "":
			r.organisations[o.Organisation] = append(r.organisations[o.Organisation], &o)
		default:
			prefix, _ := canonical(o.Addresses) // validated
			byPrefix[prefix] = append(byPrefix[prefix], &o)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	r.v4, r.v6 = rangesOf(byPrefix, true), rangesOf(byPrefix, false)
	return r, nil
}

// Counts reports whether any limit counts events of kind.
func (r *Rules) Counts(kind string) bool { return len(r.kinds[kind]) > 0 }

// counterID names the counters of a limit by what they can be read with.
func counterID(l Limit, how string) uint32 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%s", l.Name, l.Window, how))
	return binary.BigEndian.Uint32(sum[:4])
}

// threshold returns how many events l allows to whoever made e, and false when
// it does not hold for them. The first override that is in force and names the
// limit decides: of the machine, of the organisation, of the narrowest range.
func (r *Rules) threshold(now time.Time, l *Limit, e *Event) (int, bool) {
	if l.exempts(e.Plan) {
		return 0, false
	}
	if len(r.machines) > 0 && e.Machine != "" {
		if o := inForce(r.machines[e.Machine], now, l.Name); o != nil {
			return o.Threshold, !o.Exempt
		}
	}
	if len(r.organisations) > 0 && e.Organisation != "" {
		if o := inForce(r.organisations[e.Organisation], now, l.Name); o != nil {
			return o.Threshold, !o.Exempt
		}
	}
	if e.Addr.IsValid() {
		found := r.v6
		if e.Addr.Is4() {
			found = r.v4
		}
		for in := found.find(exactKey(e.Addr)); in != nil; in = in.wider {
			if o := inForce(in.value, now, l.Name); o != nil {
				return o.Threshold, !o.Exempt
			}
		}
	}
	return l.Threshold, true
}

func inForce(overrides []*Override, now time.Time, limit string) *Override {
	for _, o := range overrides {
		if (o.Until.IsZero() || now.Before(o.Until)) && (len(o.Limits) == 0 || slices.Contains(o.Limits, limit)) {
			return o
		}
	}
	return nil
}

// Package ratelimit decides how much a client may ask for and whom Muster
// refuses to serve. Limits and their exceptions are data (Policy), compiled to
// an immutable snapshot (Rules) that is swapped at run time; a Limiter counts
// in bounded memory; Bans holds the refusals and answers without a lock.
//
// The package is pure: it reads no clock, draws no random numbers, does no I/O.
// The time comes with each call, in any location.
//
// # Several nodes
//
// Counters are local to a process. Logins are few (a hundred thousand engines
// make about thirty a second), so nodes that share a policy tell each other
// every event of the kinds that must be exact and Spend it as their own: each
// then holds the full count, and whichever sees the threshold crossed bans.
// There is no interface behind which counters could live elsewhere: it would
// put a network between a login and its answer. Bans are shared through Sink
// and Learn, which converge in any order.
package ratelimit

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster"
)

// Kinds that the default limits count. Any other kind is the name of a route
// as the edge calls it.
const (
	KindLogin         = "login"          // every login, whatever comes of it
	KindWrongPassword = "wrong-password" // a login that was refused for its password
)

// Per says what has a counter of its own.
type Per string

// The subjects of a limit.
const (
	PerAddress        Per = "address"         // a v4 address, or the /64 of a v6 address
	PerMachine        Per = "machine"         // a machine id
	PerOrganisation   Per = "organisation"    // an organisation's id
	PerMachineAddress Per = "machine+address" // a machine id at an address
)

// Scope says which requests a ban refuses.
type Scope string

// The scopes. A ban from logins leaves established tokens working.
const (
	ScopeAll   Scope = "all"
	ScopeLogin Scope = "login"
)

// Class is what decides, by the rules of CrowdSec's Central API, under which
// login limit a watcher falls; it is read from the watcher's own record.
type Class struct {
	Sharing  bool // it has pushed signals
	Enrolled bool // it belongs to an organisation
}

// Counted selects events.
type Counted struct {
	Kind     string `json:"kind"`
	Sharing  *bool  `json:"sharing,omitempty"`  // nil: either
	Enrolled *bool  `json:"enrolled,omitempty"` // nil: either
}

func (c Counted) matches(class Class) bool {
	return (c.Sharing == nil || *c.Sharing == class.Sharing) && (c.Enrolled == nil || *c.Enrolled == class.Enrolled)
}

// Penalty is what going over a limit costs, beside the refusal of the request
// itself.
type Penalty struct {
	Ban           time.Duration `json:"ban_ns,omitempty"`          // of the source address; 0: no ban
	Scope         Scope         `json:"scope,omitempty"`           // of the ban
	ExtendOnRetry bool          `json:"extend_on_retry,omitempty"` // each request during the ban starts it again
}

// Limit allows Threshold events in any stretch of time as long as Window; the
// next one is refused and draws the Penalty. Refused events are not counted.
type Limit struct {
	Name        string        `json:"name"` // unique; lower-case letters, digits and dashes
	Counted     Counted       `json:"counted"`
	Per         Per           `json:"per"`
	Threshold   int           `json:"threshold"` // 1 to MaxThreshold; counted exactly up to ExactThreshold
	Window      time.Duration `json:"window_ns"` // 1 s to 7 days, in whole milliseconds
	Penalty     Penalty       `json:"penalty"`
	ExemptPlans []muster.Plan `json:"exempt_plans,omitempty"`
	Off         bool          `json:"off,omitempty"` // not counted

	SetAt time.Time `json:"set_at,omitzero"` // when it was changed at run time; zero: as configured
	SetBy string    `json:"set_by,omitempty"`
}

// Bounds of a limit.
const (
	MaxThreshold = 1_000_000
	MaxLimits    = 64
	MaxBan       = 366 * 24 * time.Hour

	minWindow = time.Second
	maxWindow = 7 * 24 * time.Hour
)

var limitName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// Validate returns every fault of l, as errors of code Invalid.
func (l Limit) Validate() error {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, muster.Errorf(muster.Invalid, "limit %q: "+format, append([]any{clip(l.Name)}, args...)...))
	}
	if !limitName.MatchString(l.Name) || len(l.Name) > 64 {
		fault("name: expected at most 64 lower-case letters and digits, in words joined by dashes")
	}
	if l.Counted.Kind == "" {
		fault("counted kind is empty: expected %q, %q or the name of a route", KindLogin, KindWrongPassword)
	}
	switch l.Per {
	case PerAddress, PerMachine, PerOrganisation, PerMachineAddress:
	default:
		fault("per: expected %q, %q, %q or %q, got %q", PerAddress, PerMachine, PerOrganisation, PerMachineAddress, clip(string(l.Per)))
	}
	if l.Threshold < 1 || l.Threshold > MaxThreshold {
		fault("threshold: expected 1 to %d events, got %d", MaxThreshold, l.Threshold)
	}
	if l.Window < minWindow || l.Window > maxWindow || l.Window%time.Millisecond != 0 {
		fault("window: expected 1 second to 7 days in whole milliseconds, got %s", l.Window)
	}
	if l.Penalty.Ban < 0 || l.Penalty.Ban > MaxBan {
		fault("ban: expected 0 (none) to %s, got %s", MaxBan, l.Penalty.Ban)
	}
	if l.Penalty.Ban > 0 && !l.Penalty.Scope.valid() {
		fault("ban scope: expected %q or %q, got %q", ScopeAll, ScopeLogin, clip(string(l.Penalty.Scope)))
	}
	if l.Penalty.Ban == 0 && l.Penalty.ExtendOnRetry {
		fault("extend_on_retry without a ban has no effect: set a ban duration, or turn it off")
	}
	for _, plan := range l.ExemptPlans {
		if !plan.Valid() {
			fault("exempt plan: expected %s, %s or %s, got %q", muster.Community, muster.SecOps, muster.Enterprise, clip(string(plan)))
		}
	}
	return errors.Join(errs...)
}

func (s Scope) valid() bool { return s == ScopeAll || s == ScopeLogin }

// DefaultLimits returns the limits of CrowdSec's own Central API ("Central API
// 403", crowdsec-docs): for each of the four classes of watcher more than 20
// logins in 50 minutes ban the source address for an hour, each retry starts
// the hour again, and plans that are not free are exempt. A fifth, of ours,
// slows the guessing of passwords: a machine that gets its own wrong is kept
// from logging in, while others behind the same address go on with the tokens
// that they have.
func DefaultLimits() []Limit {
	var limits []Limit
	for _, sharing := range []bool{false, true} {
		for _, enrolled := range []bool{false, true} {
			limits = append(limits, Limit{
				Name:        "login-" + not(sharing) + "sharing-" + not(enrolled) + "enrolled",
				Counted:     Counted{Kind: KindLogin, Sharing: &sharing, Enrolled: &enrolled},
				Per:         PerAddress,
				Threshold:   20,
				Window:      50 * time.Minute,
				Penalty:     Penalty{Ban: time.Hour, Scope: ScopeAll, ExtendOnRetry: true},
				ExemptPlans: []muster.Plan{muster.SecOps, muster.Enterprise},
			})
		}
	}
	return append(limits, Limit{
		Name:      "wrong-password",
		Counted:   Counted{Kind: KindWrongPassword},
		Per:       PerMachineAddress,
		Threshold: 10,
		Window:    50 * time.Minute,
		Penalty:   Penalty{Ban: time.Hour, Scope: ScopeLogin, ExtendOnRetry: true},
	})
}

func not(yes bool) string {
	if yes {
		return ""
	}
	return "not-"
}

// reason says in words what crossing l at threshold means.
func (l *Limit) reason(threshold int) string {
	what := l.Counted.Kind + " requests"
	switch l.Counted.Kind {
	case KindLogin:
		what = "logins"
	case KindWrongPassword:
		what = "wrong passwords"
	}
	whom := map[Per]string{
		PerAddress:        "from one address",
		PerMachine:        "by one machine",
		PerOrganisation:   "by one organisation",
		PerMachineAddress: "by one machine at one address",
	}[l.Per]
	return fmt.Sprintf("more than %d %s in %s %s", threshold, what, spell(l.Window), whom)
}

// spell writes a duration for people: "50 minutes", "1 hour".
func spell(d time.Duration) string {
	for _, unit := range []struct {
		name string
		is   time.Duration
	}{{"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}} {
		switch n := d / unit.is; {
		case d%unit.is != 0:
		case n == 1:
			return "1 " + unit.name
		default:
			return strconv.Itoa(int(n)) + " " + unit.name + "s"
		}
	}
	return d.String()
}

// clip keeps error texts short, whatever was sent.
func clip(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// exempts reports whether l does not hold for plan.
func (l *Limit) exempts(plan muster.Plan) bool { return slices.Contains(l.ExemptPlans, plan) }

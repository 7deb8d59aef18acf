package console

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster"
	"muster/internal/abuse"
	"muster/internal/ratelimit"
	"muster/internal/wire"
)

// limitView is a limit as the API shows it, with durations as people write them.
type limitView struct {
	Name          string          `json:"name"`
	Kind          string          `json:"kind"`     // what is counted
	Sharing       *bool           `json:"sharing"`  // null: machines that share and others
	Enrolled      *bool           `json:"enrolled"` // null: machines that are enrolled and others
	Per           ratelimit.Per   `json:"per"`
	Threshold     int             `json:"threshold"`
	Window        string          `json:"window"`
	Ban           string          `json:"ban"` // "0s": none
	Scope         ratelimit.Scope `json:"scope"`
	ExtendOnRetry bool            `json:"extend_on_retry"`
	ExemptPlans   []muster.Plan   `json:"exempt_plans"`
	Off           bool            `json:"off"`
	SetAt         *time.Time      `json:"set_at"` // null: as configured
	SetBy         string          `json:"set_by"`
}

func viewLimit(l ratelimit.Limit) limitView {
	return limitView{
		Name: l.Name, Kind: l.Counted.Kind, Sharing: l.Counted.Sharing, Enrolled: l.Counted.Enrolled, Per: l.Per,
		Threshold: l.Threshold, Window: durationText(l.Window), Ban: durationText(l.Penalty.Ban), Scope: l.Penalty.Scope,
		ExtendOnRetry: l.Penalty.ExtendOnRetry, ExemptPlans: append([]muster.Plan{}, l.ExemptPlans...), Off: l.Off,
		SetAt: orNull(l.SetAt), SetBy: l.SetBy,
	}
}

// durationText writes what wire.ParseDuration reads, without needless zeros:
// "50m", "1h", "7d".
func durationText(d time.Duration) string {
	const day = 24 * time.Hour
	days := ""
	if d >= day {
		days, d = strconv.Itoa(int(d/day))+"d", d%day
		if d == 0 {
			return days
		}
	}
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return days + text
}

func (a *API) limits(*http.Request) (any, error) {
	return struct {
		Limits []limitView `json:"limits"`
		Kinds  []string    `json:"kinds"`
	}{views(a.cfg.Abuse.Limits(), viewLimit), orEmpty(a.cfg.Abuse.Kinds())}, nil
}

// limit finds a limit by its name.
func (a *API) limit(name string) (ratelimit.Limit, bool) {
	for _, l := range a.cfg.Abuse.Limits() {
		if l.Name == name {
			return l, true
		}
	}
	return ratelimit.Limit{}, false
}

// limitChange is a limit, or the part of one that is to change. What the API
// gave may be sent back: Name must be that of the path, and who set it when is
// not read.
type limitChange struct {
	Name          *string          `json:"name"`
	Kind          *string          `json:"kind"`
	Sharing       either           `json:"sharing"`
	Enrolled      either           `json:"enrolled"`
	Per           *ratelimit.Per   `json:"per"`
	Threshold     *int             `json:"threshold"`
	Window        *string          `json:"window"`
	Ban           *string          `json:"ban"`
	Scope         *ratelimit.Scope `json:"scope"`
	ExtendOnRetry *bool            `json:"extend_on_retry"`
	ExemptPlans   *[]muster.Plan   `json:"exempt_plans"`
	Off           *bool            `json:"off"`
	SetAt         json.RawMessage  `json:"set_at"`
	SetBy         json.RawMessage  `json:"set_by"`
	Reason        string           `json:"reason"` // for the audit; may be left out
}

// either is true, false or null for both; absent is none of the three.
type either struct {
	given bool
	value *bool
}

func (e *either) UnmarshalJSON(text []byte) error {
	e.given = true
	return json.Unmarshal(text, &e.value)
}

// apply changes l by what q names.
func (q *limitChange) apply(l *ratelimit.Limit) error {
	for name, d := range map[string]struct {
		text *string
		into *time.Duration
	}{"window": {q.Window, &l.Window}, "ban": {q.Ban, &l.Penalty.Ban}} {
		if d.text == nil {
			continue
		}
		parsed, err := wire.ParseDuration(*d.text)
		if err != nil {
			return muster.Errorf(muster.Invalid, "%s: %w", name, err)
		}
		*d.into = parsed
	}
	replace(&l.Counted.Kind, q.Kind)
	replace(&l.Per, q.Per)
	replace(&l.Threshold, q.Threshold)
	replace(&l.Penalty.Scope, q.Scope)
	replace(&l.ExemptPlans, q.ExemptPlans)
	replace(&l.Off, q.Off)
	if q.Sharing.given {
		l.Counted.Sharing = q.Sharing.value
	}
	if q.Enrolled.given {
		l.Counted.Enrolled = q.Enrolled.value
	}
	if l.Penalty.Ban == 0 {
		l.Penalty.ExtendOnRetry = false // taken away with the ban; asking for it is a fault still
	} else if l.Penalty.Scope == "" {
		l.Penalty.Scope = ratelimit.ScopeAll
	}
	replace(&l.Penalty.ExtendOnRetry, q.ExtendOnRetry)
	return nil
}

func replace[T any](into *T, by *T) {
	if by != nil {
		*into = *by
	}
}

// setLimit makes a limit, or changes one: what the request leaves out stays. A
// new one counts per address, and bans like those of CrowdSec's Central API:
// from everything, each retry starting the ban again.
func (a *API) setLimit(r *http.Request) (any, error) {
	var q limitChange
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	reason, err := reasonIfAny(q.Reason)
	if err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	if q.Name != nil && *q.Name != name {
		return nil, muster.Errorf(muster.Invalid, "name: expected %q, as in the path, got %q: a limit cannot be renamed", clip(name), clip(*q.Name))
	}
	l, known := a.limit(name)
	if !known {
		if q.Kind == nil || q.Threshold == nil || q.Window == nil {
			return nil, muster.Errorf(muster.Invalid, "there is no limit %q to change: a new one needs kind, threshold and window", clip(name))
		}
		l = ratelimit.Limit{Name: name, Per: ratelimit.PerAddress, Penalty: ratelimit.Penalty{ExtendOnRetry: true}}
	}
	if err := q.apply(&l); err != nil {
		return nil, err
	}
	if kinds := a.cfg.Abuse.Kinds(); q.Kind != nil && !slices.Contains(kinds, *q.Kind) {
		return nil, muster.Errorf(muster.Invalid, "kind: expected one of %s; got %q", strings.Join(kinds, ", "), clip(*q.Kind))
	}
	if err := l.Validate(); err != nil {
		return nil, inOneLine(err)
	}
	if err := a.cfg.Abuse.SetLimit(r.Context(), l, abuse.By{User: callerOf(r), Reason: reason}); err != nil {
		return nil, err
	}
	if set, ok := a.limit(name); ok {
		l = set
	}
	return viewLimit(l), nil
}

// resetLimit answers the limit as it is configured, or nothing when the
// configuration has none of that name.
func (a *API) resetLimit(r *http.Request) (any, error) {
	reason, err := reasonIfAny(r.URL.Query().Get("reason"))
	if err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	if err := a.cfg.Abuse.ResetLimit(r.Context(), name, abuse.By{User: callerOf(r), Reason: reason}); err != nil {
		return nil, err
	}
	if l, ok := a.limit(name); ok {
		return viewLimit(l), nil
	}
	return nil, nil
}

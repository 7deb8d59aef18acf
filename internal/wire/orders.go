package wire

import (
	"encoding/json"
	"strings"
	"time"

	"muster"
)

// AlertAdd is an alert with decisions, ordered by a person or by Muster.
type AlertAdd struct {
	UUID      string    // the engine's acknowledgement over /signals carries it
	CreatedAt time.Time // decisions end Duration after it, whenever they arrive
	Decisions []AlertDecision
}

// AlertDecision is one decision of an AlertAdd; every field is mandatory.
type AlertDecision struct {
	UUID     string
	Scenario string
	Type     string // "ban", "captcha", …
	Scope    string // "Ip" and "Range" in any case; others verbatim: "Country", "AS"
	Value    Value
	Duration time.Duration // cut to whole seconds
}

// The data of orders as it is on the wire.
type (
	deleteData struct {
		Decisions []string `json:"decisions"`
	}
	alertData struct {
		UUID      string              `json:"uuid"`
		CreatedAt string              `json:"created_at"`
		StartAt   string              `json:"start_at"`
		StopAt    string              `json:"stop_at"`
		Decisions []alertDecisionData `json:"decisions"`
	}
	alertDecisionData struct {
		UUID     string `json:"uuid"`
		Origin   string `json:"origin"`
		Scenario string `json:"scenario"`
		Scope    string `json:"scope"`
		Type     string `json:"type"`
		Value    string `json:"value"`
		Duration string `json:"duration"`
	}
	pullData struct {
		Blocklist *blocklistData `json:"blocklist,omitempty"`
		Allowlist *allowlistData `json:"allowlist,omitempty"`
	}
	blocklistData struct {
		Name        string `json:"name"`
		URL         string `json:"url"`
		Remediation string `json:"remediation"`
		Scope       string `json:"scope"`
		Duration    string `json:"duration"`
	}
	allowlistData struct {
		ID          string `json:"id"`
		Name        string `json:"name"`
		Description string `json:"description"`
		URL         string `json:"url"`
		CreatedAt   string `json:"created_at"`
		UpdatedAt   string `json:"updated_at"`
	}
	unsubscribeData struct {
		ID   string `json:"id,omitempty"`
		Name string `json:"name"`
	}
)

// DecisionDeleteData makes the data of a decision/delete order from the uuids
// of the decisions.
func DecisionDeleteData(decisions []string) (json.RawMessage, error) {
	return orderData(muster.OrderDecisionDelete, deleteData{decisions})
}

// AlertAddData makes the data of an alert/add order.
func AlertAddData(a AlertAdd) (json.RawMessage, error) {
	at := a.CreatedAt.UTC().Format(time.RFC3339)
	out := alertData{UUID: a.UUID, CreatedAt: at, StartAt: at, StopAt: at}
	for i := range a.Decisions {
		d := &a.Decisions[i]
		text := d.Value.Text
		if isAddressScope(d.Scope) {
			text = d.Value.address()
		}
		out.Decisions = append(out.Decisions, alertDecisionData{
			UUID: d.UUID, Origin: "console", Scenario: d.Scenario, Scope: engineScope(d.Scope),
			Type: d.Type, Value: text, Duration: d.Duration.Truncate(time.Second).String(),
		})
	}
	return orderData(muster.OrderAlertAdd, out)
}

// ForcePullData makes the data of a management/force_pull order for everything.
func ForcePullData() json.RawMessage { return json.RawMessage(`{}`) }

// ForcePullBlocklistData makes the data of a management/force_pull order for
// one blocklist.
func ForcePullBlocklistData(l BlocklistLink) (json.RawMessage, error) {
	return orderData(muster.OrderForcePull, pullData{Blocklist: &blocklistData{
		Name: l.Name, URL: l.URL, Remediation: l.Remediation, Scope: l.Scope,
		Duration: l.Duration.Truncate(time.Second).String(),
	}})
}

// ForcePullAllowlistData makes the data of a management/force_pull order for
// one allowlist.
func ForcePullAllowlistData(l AllowlistLink) (json.RawMessage, error) {
	if l.Description == "" {
		l.Description = l.Name
	}
	return orderData(muster.OrderForcePull, pullData{Allowlist: &allowlistData{
		ID: l.ID, Name: l.Name, Description: l.Description, URL: l.URL,
		CreatedAt: l.CreatedAt.UTC().Format(time.RFC3339), UpdatedAt: l.UpdatedAt.UTC().Format(time.RFC3339),
	}})
}

// ReauthData makes the data of a management/reauth order.
func ReauthData() json.RawMessage { return json.RawMessage(`{}`) }

// BlocklistUnsubscribeData makes the data of a management/blocklist_unsubscribe
// order.
func BlocklistUnsubscribeData(name string) (json.RawMessage, error) {
	return orderData(muster.OrderBlocklistUnsubscribe, unsubscribeData{Name: name})
}

// AllowlistUnsubscribeData makes the data of a management/allowlist_unsubscribe
// order.
func AllowlistUnsubscribeData(id, name string) (json.RawMessage, error) {
	return orderData(muster.OrderAllowlistUnsubscribe, unsubscribeData{ID: id, Name: name})
}

// orderData encodes data and runs the check that EncodeEvent will run.
func orderData(kind muster.OrderKind, data any) (json.RawMessage, error) {
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	if err := checkData(kind, raw); err != nil {
		return nil, err
	}
	return raw, nil
}

// checkData refuses data that engines would crash on, or that would do nothing
// on them, in the form that they read it.
func checkData(kind muster.OrderKind, raw json.RawMessage) error {
	switch kind {
	case muster.OrderDecisionDelete:
		return decodeAndCheck(raw, (*deleteData).check)
	case muster.OrderAlertAdd:
		return decodeAndCheck(raw, (*alertData).check)
	case muster.OrderForcePull:
		if string(raw) == "null" {
			return nil
		}
		return decodeAndCheck(raw, (*pullData).check)
	case muster.OrderReauth:
		if string(raw) == "null" {
			return nil
		}
		return decodeAndCheck(raw, func(*struct{}) error { return nil })
	case muster.OrderBlocklistUnsubscribe:
		return decodeAndCheck(raw, (*unsubscribeData).check)
	case muster.OrderAllowlistUnsubscribe:
		return decodeAndCheck(raw, func(d *unsubscribeData) error {
			if isBlank(d.ID) {
				return missing("allowlist id")
			}
			return d.check()
		})
	}
	return muster.Errorf(muster.Invalid, "unknown order kind %q", clip(string(kind)))
}

func decodeAndCheck[T any](raw json.RawMessage, check func(*T) error) error {
	v, err := decodeObject[T](raw)
	if err != nil {
		return err
	}
	return check(&v)
}

func (d *deleteData) check() error {
	if len(d.Decisions) == 0 {
		return muster.Errorf(muster.Invalid, "no decision uuids: expected at least one")
	}
	for _, id := range d.Decisions {
		if !isUUID(id) {
			return muster.Errorf(muster.Invalid, "decision %q is no UUID", clip(id))
		}
	}
	return nil
}

func (d *alertData) check() error {
	switch {
	case !isUUID(d.UUID):
		return muster.Errorf(muster.Invalid, "alert uuid %q is no UUID", clip(d.UUID))
	case len(d.Decisions) == 0:
		return muster.Errorf(muster.Invalid, "the alert has no decisions: expected at least one")
	}
	for _, at := range []string{d.CreatedAt, d.StartAt, d.StopAt} {
		if t, err := time.Parse(time.RFC3339, at); err != nil || t.IsZero() {
			return muster.Errorf(muster.Invalid, "alert time %q is not in RFC 3339 or never was", clip(at))
		}
	}
	for i := range d.Decisions {
		if err := d.Decisions[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func (d *alertDecisionData) check() error {
	switch {
	case !isUUID(d.UUID):
		return muster.Errorf(muster.Invalid, "decision uuid %q is no UUID", clip(d.UUID))
	case d.Origin != "console":
		return muster.Errorf(muster.Invalid, "decision origin is %q: expected console", clip(d.Origin))
	case isBlank(d.Scenario):
		return missing("decision scenario")
	case isBlank(d.Type):
		return missing("decision type")
	case isBlank(d.Scope):
		return missing("decision scope")
	case d.Scope != engineScope(d.Scope):
		return muster.Errorf(muster.Invalid, "decision scope is %q: engines only match %q", clip(d.Scope), engineScope(d.Scope))
	case isBlank(d.Value):
		return muster.Errorf(muster.Invalid, "decision value is empty, or no address or range under scope %s", clip(d.Scope))
	}
	if isAddressScope(d.Scope) {
		src, err := muster.ParseSource(d.Value)
		if err != nil {
			return err
		}
		if src.String() != d.Value {
			return muster.Errorf(muster.Invalid, "decision value is %q: expected the canonical %q", clip(d.Value), src)
		}
	}
	return checkDuration(d.Duration)
}

// checkDuration takes Go's syntax only.
func checkDuration(text string) error {
	if d, err := time.ParseDuration(text); err != nil || d < time.Second {
		return muster.Errorf(muster.Invalid, "duration is %q: expected a second or more", clip(text))
	}
	return nil
}

func (d *pullData) check() error {
	switch {
	case d.Blocklist != nil && d.Allowlist != nil:
		return muster.Errorf(muster.Invalid, "expected one list to pull, got a blocklist and an allowlist")
	case d.Blocklist != nil:
		duration, _ := time.ParseDuration(d.Blocklist.Duration) // zero is refused below
		return (&BlocklistLink{
			Name: d.Blocklist.Name, URL: d.Blocklist.URL, Remediation: d.Blocklist.Remediation,
			Scope: d.Blocklist.Scope, Duration: duration,
		}).check()
	case d.Allowlist != nil:
		if isBlank(d.Allowlist.Description) {
			return missing("allowlist description")
		}
		created, _ := time.Parse(time.RFC3339, d.Allowlist.CreatedAt) // zero is refused below
		updated, _ := time.Parse(time.RFC3339, d.Allowlist.UpdatedAt)
		return (&AllowlistLink{
			ID: d.Allowlist.ID, Name: d.Allowlist.Name, URL: d.Allowlist.URL,
			CreatedAt: created, UpdatedAt: updated,
		}).check()
	}
	return nil
}

func (d *unsubscribeData) check() error {
	if isBlank(d.Name) {
		return missing("list name")
	}
	return nil
}

// address returns the canonical text of an address or range, or "" if v is
// none.
func (v *Value) address() string {
	b, ok := v.append(nil, true)
	if !ok {
		return ""
	}
	return string(b[1 : len(b)-1])
}

// engineScope spells a scope as engines and bouncers match it.
func engineScope(scope string) string {
	switch {
	case strings.EqualFold(scope, "ip"):
		return "Ip"
	case strings.EqualFold(scope, "range"):
		return "Range"
	}
	return scope
}

package wire

import (
	"encoding/json"
	"net/url"
	"time"

	"muster"
)

// Poll is the query of GET /v1/decisions/stream/poll.
type Poll struct {
	Since   time.Time     // zero on first contact: everything that has not expired
	Timeout time.Duration // how long to hold an empty answer: 1 s to 120 s
	// NewestFirst: cscli papi sync asks, and reverses what it gets; live
	// engines take events in the order given.
	NewestFirst bool
}

// ParsePoll reads the query of a poll. since_time is in milliseconds and
// negative on first contact; an absent timeout is 45 s.
func ParsePoll(q url.Values) (Poll, error) { return Poll{}, muster.Errorf(muster.Invalid, "not yet") }

// Event is one order as an engine reads it.
type Event struct {
	Timestamp int64  // milliseconds; the engine asks for later ones next time
	Category  string // "decision", "alert" or "management"
	Data      string // a JSON document
	ID        string // a UUID
}

// EncodeEvent wraps an order for PAPI. It refuses whatever makes an engine
// crash or loop: an id that is no UUID, an unknown kind, no issue time, and
// data that does not fit the kind.
func EncodeEvent(o muster.Order) (Event, error) { return Event{}, muster.Errorf(muster.Invalid, "not yet") }

// AppendEvents appends a poll answer, with the events in the order given.
func AppendEvents(b []byte, events []Event) []byte { return b }

// AppendPollTimeout appends the answer of a poll that saw no event; the engine
// then polls again with the same since_time.
func AppendPollTimeout(b []byte, at time.Time) []byte { return b }

// DecisionDeleteData makes the data of a decision/delete order for decisions
// by uuid.
func DecisionDeleteData(decisions []string) (json.RawMessage, error) { return nil, nil }

// AlertAdd is an alert with decisions, made by a person or by Muster.
type AlertAdd struct {
	UUID      string    // the engine's acknowledgement carries it
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
	Duration time.Duration
}

// AlertAddData makes the data of an alert/add order.
func AlertAddData(a AlertAdd) (json.RawMessage, error) { return nil, nil }

// ForcePullData makes the data of a management/force_pull order for everything.
func ForcePullData() json.RawMessage { return json.RawMessage(`{}`) }

// ForcePullBlocklistData makes the data of a management/force_pull order for
// one blocklist.
func ForcePullBlocklistData(l BlocklistLink) (json.RawMessage, error) { return nil, nil }

// ForcePullAllowlistData makes the data of a management/force_pull order for
// one allowlist.
func ForcePullAllowlistData(l AllowlistLink) (json.RawMessage, error) { return nil, nil }

// ReauthData makes the data of a management/reauth order.
func ReauthData() json.RawMessage { return json.RawMessage(`{}`) }

// BlocklistUnsubscribeData makes the data of a management/blocklist_unsubscribe
// order.
func BlocklistUnsubscribeData(name string) (json.RawMessage, error) { return nil, nil }

// AllowlistUnsubscribeData makes the data of a management/allowlist_unsubscribe
// order.
func AllowlistUnsubscribeData(id, name string) (json.RawMessage, error) { return nil, nil }

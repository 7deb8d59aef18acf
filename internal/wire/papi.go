package wire

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
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
// negative on first contact; timeout is in seconds, 45 when absent, and brought
// into its bounds.
func ParsePoll(q url.Values) (Poll, error) {
	p := Poll{Timeout: 45 * time.Second}
	if text := q.Get("since_time"); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return Poll{}, muster.Errorf(muster.Invalid, "since_time: expected milliseconds since 1970, got %q", clip(text))
		}
		if ms > 0 {
			p.Since = time.UnixMilli(ms).UTC()
		}
	}
	if text := q.Get("timeout"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return Poll{}, muster.Errorf(muster.Invalid, "timeout: expected seconds, got %q", clip(text))
		}
		p.NewestFirst = seconds == 1
		p.Timeout = time.Duration(min(max(seconds, 1), 120)) * time.Second
	}
	return p, nil
}

// Event is one order as an engine reads it; EncodeEvent makes it.
type Event struct {
	Timestamp int64  // milliseconds; the engine asks for later ones next time
	Category  string // "decision", "alert" or "management"
	Data      string // a JSON document
	ID        string // a UUID
}

// EncodeEvent wraps an order for PAPI. It refuses whatever makes an engine
// crash or ask for the same event for ever: an id that is no UUID, an unknown
// kind, no issue time, and data that does not fit the kind.
func EncodeEvent(o muster.Order) (Event, error) {
	data := o.Data
	if len(data) == 0 {
		data = json.RawMessage("null")
	}
	switch {
	case !isUUID(o.ID):
		return Event{}, muster.Errorf(muster.Invalid, "order id %q is no UUID: engines would ask for it for ever", clip(o.ID))
	case o.IssuedAt.UnixMilli() <= 0:
		return Event{}, muster.Errorf(muster.Invalid, "order %s has no issue time", o.ID)
	}
	if err := checkData(o.Kind, data); err != nil {
		return Event{}, muster.Errorf(muster.Invalid, "order %s: %w", o.ID, err)
	}
	typ, cmd, _ := strings.Cut(string(o.Kind), "/")
	by, message := o.IssuedBy, o.Message
	if by == "" {
		by = "muster"
	}
	if message == "" && o.Kind == muster.OrderAlertAdd {
		message = "order by " + by // becomes the alert's scenario, which must not be empty
	}
	b := append(make([]byte, 0, 256+len(data)), `{"header":{"operation_type":`...)
	b = AppendString(b, typ)
	b = append(b, `,"operation_cmd":`...)
	b = AppendString(b, cmd)
	b = append(b, `,"source":{"user":`...)
	b = AppendString(b, by)
	b = append(b, `},"timestamp":`...)
	b = appendTime(b, o.IssuedAt)
	b = append(b, `,"message":`...)
	b = AppendString(b, message)
	b = append(b, `,"uuid":`...)
	b = AppendString(b, o.ID)
	b = append(b, `},"data":`...)
	b = append(append(b, data...), '}')
	return Event{Timestamp: o.IssuedAt.UnixMilli(), Category: typ, Data: string(b), ID: o.ID}, nil
}

// AppendEvents appends a poll answer, with the events in the order given. It
// has no timestamp of its own, which would override those of the events.
func AppendEvents(b []byte, events []Event) []byte {
	b = append(b, `{"events":[`...)
	for i := range events {
		e := &events[i]
		b = append(comma(b), `{"timestamp":`...)
		b = strconv.AppendInt(b, e.Timestamp, 10)
		b = append(b, `,"category":`...)
		b = AppendString(b, e.Category)
		b = append(b, `,"data":`...)
		b = AppendString(b, e.Data)
		b = append(b, `,"id":`...)
		b = AppendString(b, e.ID)
		b = append(b, '}')
	}
	return append(b, `]}`...)
}

// AppendPollTimeout appends the answer of a poll that saw no event until at;
// the engine then polls again with the same since_time.
func AppendPollTimeout(b []byte, at time.Time) []byte {
	b = append(b, `{"error":"no events before timeout","timestamp":`...)
	b = strconv.AppendInt(b, at.UnixMilli(), 10)
	return append(b, '}')
}

// isUUID takes the canonical form only: 8-4-4-4-12 hexadecimal digits.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if hexDigit(s[i]) < 0 {
				return false
			}
		}
	}
	return true
}

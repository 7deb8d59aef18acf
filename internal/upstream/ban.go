package upstream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Ban is the refusal of an upstream to serve this address.
type Ban struct {
	Until      time.Time // by this machine's clock; zero: until somebody lifts it
	Reason     string    // for people
	Address    string    // as the upstream sees this machine, "" when not told
	LoginsOnly bool      // other calls, with a token from before, are still served
	Extends    bool      // every call during the ban starts it again
	Limit      string    // the limit that was crossed, "" when not told
	Check      []string  // what to look at, one line each
	Look       string    // where it can be read again, "" when not told
	Appeal     string    // whom to ask, "" when not told
	Assumed    bool      // the upstream said 403 and no more: length and cause are guesses
}

const (
	// assumedBan is how long a login that is refused with a plain 403 is taken
	// to be banned: that is the length at CrowdSec's own Central API.
	assumedBan = time.Hour
	// maxBan is the longest ban that is believed; the same as a Muster gives.
	maxBan = 366 * 24 * time.Hour
)

// banAnswer is Muster's answer to a banned client, and, with Banned and without
// Code, its answer about a client's standing (GET /api/v1/ban).
type banAnswer struct {
	Message    string     `json:"message"`
	Code       string     `json:"code"`
	Server     string     `json:"server"`
	Banned     bool       `json:"banned"`
	Address    string     `json:"address"`
	Until      *time.Time `json:"until"`
	RetryAfter int64      `json:"retry_after"` // seconds
	Reason     string     `json:"reason"`
	Scope      string     `json:"scope"`
	Extends    *bool      `json:"extends_on_retry"`
	Limit      string     `json:"limit"`
	Check      []string   `json:"check"`
	Look       string     `json:"look"`
	Appeal     string     `json:"appeal"`
}

// ban makes a Ban of what was told.
func (a *banAnswer) ban(h http.Header, now time.Time) Ban {
	b := Ban{
		Reason: oneLine(a.Reason, 500), Address: oneLine(a.Address, 64), LoginsOnly: a.Scope == "login", Extends: a.Extends == nil || *a.Extends,
		Limit: oneLine(a.Limit, 100), Look: oneLine(a.Look, 500), Appeal: oneLine(a.Appeal, 500),
	}
	for _, c := range a.Check[:min(len(a.Check), 8)] {
		b.Check = append(b.Check, oneLine(c, 500))
	}
	if b.Reason == "" {
		b.Reason = oneLine(strings.TrimPrefix(a.Message, "banned: "), 500)
	}
	if b.Reason == "" {
		b.Reason = "no reason given"
	}
	// What is left of it counts from now, so that a clock that is wrong here or
	// there changes nothing; the date is for answers without it.
	var left time.Duration
	header, told := RetryAfter(h, now)
	switch {
	case a.RetryAfter > 0:
		left = time.Duration(min(a.RetryAfter, int64(maxBan/time.Second))) * time.Second
	case a.Until != nil:
		sent := now
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			sent = date
		}
		left = min(a.Until.Sub(sent), maxBan)
	case a.Extends == nil && told: // not the answer of a Muster that says "until: null"
		left = header
	default:
		return b
	}
	b.Until = now.Add(max(left, 0))
	return b
}

// BanIn reports whether an answer refuses this address, and for how long. That
// is Muster's answer of code "banned" to any call, and, to a login, a 403 of
// another server that does not say that the password is wrong.
func BanIn(r *Response, login bool, now time.Time) (Ban, bool) {
	if r.Status != http.StatusForbidden && r.Status != http.StatusTooManyRequests {
		return Ban{}, false
	}
	var a banAnswer
	isJSON := json.Unmarshal(r.Body, &a) == nil
	if isJSON && a.Code == "banned" {
		return a.ban(r.Header, now), true
	}
	if !login || r.Status != http.StatusForbidden || wrongPassword(a.Message) {
		return Ban{}, false
	}
	length := assumedBan
	if told, ok := RetryAfter(r.Header, now); ok && told > 0 {
		length = told
	}
	return Ban{
		Until: now.Add(length), Extends: true, Assumed: true,
		Reason: "the login was refused with status 403 and no explanation, as after too many logins from one address",
	}, true
}

// wrongPassword: CrowdSec's Central API says "The machine_id or password is
// incorrect", with 401 or 403.
func wrongPassword(message string) bool {
	return strings.Contains(strings.ToLower(message), "password")
}

// Advice says in a sentence or two how b ends.
func (b Ban) Advice() string {
	when := "until somebody lifts it"
	if !b.Until.IsZero() {
		when = "until " + b.Until.UTC().Format(time.RFC3339)
	}
	text := "do not log in " + when
	if b.Extends {
		text = "stop whatever calls it " + when + ", because every retry starts the ban again"
	}
	text += "; first mend the cause: a restart loop, a health check that runs cscli capi status, or several engines with the same credentials or behind one address"
	if b.Appeal != "" {
		text += ". To have it lifted, ask " + b.Appeal
	}
	return text
}

// BannedError says that a call was not made, or was refused, because of a ban.
type BannedError struct {
	Ban  Ban
	Sent bool // the call was made and refused; false: it was not made
}

func (e *BannedError) Error() string {
	until := ""
	if !e.Ban.Until.IsZero() {
		until = " until " + e.Ban.Until.UTC().Format(time.RFC3339)
		if e.Ban.Assumed {
			until += " (assumed)"
		}
	}
	return fmt.Sprintf("this address is banned there%s: %s; %s", until, e.Ban.Reason, e.Ban.Advice())
}

// oneLine makes text of a stranger fit to be logged and shown: one line, no
// control characters, at most n bytes.
func oneLine(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r), r == utf8.RuneError:
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.TrimSpace(s)
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}

package abuse

import (
	"net/netip"
	"strconv"
	"time"

	"muster/internal/ratelimit"
	"muster/internal/wire"
)

// Answer says to banned clients what has happened to them. Its fields are the
// operator's.
type Answer struct {
	Look   string // URL where a client can ask about its ban without prolonging it
	Appeal string // mail address or URL of who can lift it; "" = not said
}

// Checks is what a banned client should look at first; these are the causes of
// nearly all bans ("Central API 403", crowdsec-docs).
var Checks = []string{
	"Is the engine in a restart loop? Look at: journalctl -u crowdsec -n 100 (or docker logs), and mend that first. Keep its data directory on a volume: it holds the token that saves a login.",
	"Does a health check run cscli capi status? Every run is a login: use cscli lapi status.",
	"Do several engines share credentials, or one address? Register each by itself, or let one LAPI serve them all.",
}

// Append appends the JSON answer to a request from addr that ban refuses. In
// field ("message" in the Central API, "error" in PAPI) it has the sentence that
// engines log and cscli shows, and all of it once more for programs.
func (a Answer) Append(b []byte, field string, now time.Time, addr netip.Addr, ban *ratelimit.Ban) []byte {
	b = append(append(append(b, `{"`...), field...), `":"banned: `...)
	b = a.appendWords(b, addr, ban)
	b = append(b, `","code":"banned","address":"`...)
	b = addr.AppendTo(b)
	b = append(b, `","scope":"`...)
	b = append(b, ban.Scope...)
	b = append(b, `","until":`...)
	if ban.Until.IsZero() {
		b = append(b, `null`...)
	} else {
		b = append(b, '"')
		b = appendEnd(b, ban)
		b = append(b, `","retry_after":`...)
		b = strconv.AppendInt(b, RetryAfter(now, ban), 10)
	}
	b = append(b, `,"extends_on_retry":`...)
	b = strconv.AppendBool(b, ban.Extend > 0)
	b = append(b, `,"limit":`...)
	b = wire.AppendString(b, ban.Limit)
	b = append(b, `,"reason":`...)
	b = wire.AppendString(b, ban.Reason)
	b = append(b, checksJSON...)
	b = append(b, `,"look":`...)
	b = wire.AppendString(b, a.Look)
	if a.Appeal != "" {
		b = append(b, `,"appeal":`...)
		b = wire.AppendString(b, a.Appeal)
	}
	return append(b, '}')
}

// appendWords writes the ban for people, inside of a JSON string.
func (a Answer) appendWords(b []byte, addr netip.Addr, ban *ratelimit.Ban) []byte {
	b = addr.AppendTo(b)
	if ban.Scope == ratelimit.ScopeLogin {
		b = append(b, " may not log in"...)
	} else {
		b = append(b, " is not served"...)
	}
	if !ban.Until.IsZero() {
		b = appendEnd(append(b, " until "...), ban)
	}
	b = appendInside(append(b, ": "...), ban.Reason)
	if ban.Extend > 0 {
		b = append(b, ". Stop the engine until then: every retry begins the time anew"...)
	}
	if a.Look != "" {
		b = appendInside(append(b, ". More: "...), a.Look)
	}
	if a.Appeal != "" {
		b = appendInside(append(b, ". Appeal: "...), a.Appeal)
	}
	return b
}

// appendEnd writes when ban ends, in whole seconds, never too early: who comes
// back then may be let in.
func appendEnd(b []byte, ban *ratelimit.Ban) []byte {
	return ban.Until.UTC().Add(time.Second-1).AppendFormat(b, time.RFC3339)
}

// appendInside appends s as a part of a JSON string.
func appendInside(b []byte, s string) []byte {
	start := len(b)
	b = wire.AppendString(b, s)
	return append(b[:start], b[start+1:len(b)-1]...)
}

// checksJSON is the same in every answer.
var checksJSON = func() []byte {
	b := []byte(`,"check":[`)
	for i, c := range Checks {
		if i > 0 {
			b = append(b, ',')
		}
		b = wire.AppendString(b, c)
	}
	return append(b, ']')
}()

// RetryAfter returns the seconds until ban ends, at least 1; a day for a ban
// without end.
func RetryAfter(now time.Time, ban *ratelimit.Ban) int64 {
	if ban.Until.IsZero() {
		return 24 * 60 * 60
	}
	return max(1, int64((ban.Until.Sub(now)+time.Second-1)/time.Second))
}

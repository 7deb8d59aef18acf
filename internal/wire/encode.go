package wire

import (
	"strconv"
	"time"
	"unicode/utf8"

	"muster"
)

// OK is the success body of every CAPI call that answers nothing else.
const OK = `{"message":"OK"}`

// AppendLogin appends the answer to a login; expire is written in UTC and cut
// to the second, because engines cannot start on anything but RFC 3339.
func AppendLogin(b []byte, token string, expire time.Time) []byte {
	b = append(b, `{"code":200,"expire":`...)
	b = appendTime(b, expire)
	b = append(b, `,"token":`...)
	b = AppendString(b, token)
	return append(b, '}')
}

// AppendMessage appends {"message":…}.
func AppendMessage(b []byte, message string) []byte { return AppendError(b, message, "") }

// AppendError appends a CAPI error: always an object with message, which
// engine 1.4.6 dereferences unchecked; errors is left out when details is "".
func AppendError(b []byte, message, details string) []byte {
	b = append(b, `{"message":`...)
	b = AppendString(b, message)
	if details != "" {
		b = append(b, `,"errors":`...)
		b = AppendString(b, details)
	}
	return append(b, '}')
}

// AppendEnrolLink appends the answer to cscli console enroll --quick: where a
// person accepts the machine, and until when (in milliseconds).
func AppendEnrolLink(b []byte, url string, expire time.Time) []byte {
	b = append(b, `{"url":`...)
	b = AppendString(b, url)
	b = append(b, `,"expire_at":`...)
	b = strconv.AppendInt(b, expire.UnixMilli(), 10)
	return append(b, '}')
}

// AppendPermissions appends the answer to GET /v1/permissions of PAPI.
func AppendPermissions(b []byte, plan muster.Plan) []byte {
	b = append(b, `{"status":"OK","plan":`...)
	b = AppendString(b, planTitle(plan))
	return append(b, `,"categories":["decision","alert","management"]}`...)
}

// planTitle spells a plan as cscli papi status shows it.
func planTitle(plan muster.Plan) string {
	switch plan {
	case muster.Enterprise:
		return "Enterprise"
	case muster.SecOps:
		return "SecOps"
	case muster.Community:
		return "Community"
	}
	return string(plan)
}

// AppendPAPIError appends a PAPI error, whose field is error and not message.
func AppendPAPIError(b []byte, text string) []byte {
	b = append(b, `{"error":`...)
	b = AppendString(b, text)
	return append(b, '}')
}

// appendTime appends an RFC 3339 time in UTC to the second, in quotes.
func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, time.RFC3339)
	return append(b, '"')
}

// appendDuration appends whole seconds in Go's syntax, in quotes. Hours,
// minutes and seconds are always written: older PHP bouncers read nothing
// without minutes and seconds, and no client reads days.
func appendDuration(b []byte, d time.Duration) []byte {
	seconds := int64(d / time.Second)
	b = append(b, '"')
	b = strconv.AppendInt(b, seconds/3600, 10)
	b = append(b, 'h')
	b = strconv.AppendInt(b, seconds/60%60, 10)
	b = append(b, 'm')
	b = strconv.AppendInt(b, seconds%60, 10)
	return append(b, 's', '"')
}

// AppendString appends s as a JSON string; bytes that are no UTF-8 become
// U+FFFD.
func AppendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b = append(b, s[start:i]...)
			b = utf8.AppendRune(b, utf8.RuneError)
			start = i + 1
		}
		i += size
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

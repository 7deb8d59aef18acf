package wire

import (
	"math"
	"strconv"
	"strings"
	"time"

	"muster"
)

// ParseTime reads a time in any form that clients send: RFC 3339 with any
// fraction and with or without the colon in the offset, Go's Time.String(),
// without a zone (taken as UTC), or a bare date. The result is in UTC.
func ParseTime(s string) (time.Time, error) {
	t, ok := parseTime(s)
	if !ok {
		return time.Time{}, muster.Errorf(muster.Invalid, "expected a time like 2026-11-20T21:04:24Z, got %q", clip(s))
	}
	return t, nil
}

// parseTime is ParseTime for the hot path. It reads
//
//	YYYY-MM-DD [ (T|t|space) hh:mm:ss [(.|,)digits] [space] [Z|z|±hh[[:]mm]] [space anything] ]
//
// where anything is the zone's name and the monotonic reading of Time.String().
func parseTime(s string) (time.Time, bool) {
	s = strings.TrimSpace(s)
	if len(s) < 10 || s[4] != '-' || s[7] != '-' {
		return time.Time{}, false
	}
	year, ok1 := digits(s[:4], 9999)
	month, ok2 := digits(s[5:7], 12)
	day, ok3 := digits(s[8:10], 31)
	if !ok1 || !ok2 || !ok3 || month < 1 || day < 1 {
		return time.Time{}, false
	}
	if s = s[10:]; s == "" {
		return date(year, month, day, 0)
	}
	if len(s) < 9 || s[0] != 'T' && s[0] != 't' && s[0] != ' ' || s[3] != ':' || s[6] != ':' {
		return time.Time{}, false
	}
	hour, ok1 := digits(s[1:3], 23)
	minute, ok2 := digits(s[4:6], 59)
	second, ok3 := digits(s[7:9], 59)
	if !ok1 || !ok2 || !ok3 {
		return time.Time{}, false
	}
	since := time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second
	s = s[9:]
	if s != "" && (s[0] == '.' || s[0] == ',') {
		fraction, n := nanoseconds(s[1:])
		if n == 0 {
			return time.Time{}, false
		}
		since += fraction
		s = s[1+n:]
	}
	offset, ok := zone(s)
	if !ok {
		return time.Time{}, false
	}
	return date(year, month, day, since-offset)
}

// date refuses days that the month does not have.
func date(year, month, day int, since time.Duration) (time.Time, bool) {
	t := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	return t.Add(since), t.Day() == day
}

// zone reads what follows the clock time.
func zone(s string) (time.Duration, bool) {
	s = strings.TrimPrefix(s, " ")
	if s == "" || s == "Z" || s == "z" {
		return 0, true
	}
	if s[0] != '+' && s[0] != '-' {
		return 0, s == "UTC"
	}
	sign := time.Duration(1)
	if s[0] == '-' {
		sign = -1
	}
	s, _, _ = strings.Cut(s[1:], " ")
	if len(s) == 5 && s[2] == ':' {
		s = s[:2] + s[3:]
	}
	if len(s) == 2 {
		s += "00"
	}
	if len(s) != 4 {
		return 0, false
	}
	hours, ok1 := digits(s[:2], 24)
	minutes, ok2 := digits(s[2:], 60)
	return sign * (time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute), ok1 && ok2
}

// nanoseconds reads the digits of a fraction of a second and counts them; those
// after the ninth do not matter.
func nanoseconds(s string) (d time.Duration, n int) {
	unit := time.Second
	for n < len(s) && s[n]-'0' <= 9 {
		unit /= 10
		d += time.Duration(s[n]-'0') * unit
		n++
	}
	return d, n
}

// digits reads a number of at most 18 digits, and all of s must be digits.
func digits(s string, most int) (n int, ok bool) {
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int(c)
	}
	return n, n <= most
}

// ParseDuration reads a duration as people type it: days before Go's syntax
// ("7d", "1d12h", "4h", "90m", "1h30m0s").
func ParseDuration(s string) (time.Duration, error) {
	if d, ok := parseDuration(s); ok {
		return d, nil
	}
	return 0, muster.Errorf(muster.Invalid, "expected a duration like 4h, 90m or 7d, got %q", clip(s))
}

func parseDuration(s string) (time.Duration, bool) {
	s = strings.TrimSpace(s)
	days, rest, found := strings.Cut(s, "d")
	if !found {
		d, err := time.ParseDuration(s)
		return d, err == nil
	}
	sign := time.Duration(1)
	if strings.HasPrefix(days, "-") || strings.HasPrefix(days, "+") {
		if days[0] == '-' {
			sign = -1
		}
		days = days[1:]
	}
	n, err := strconv.ParseUint(days, 10, 32)
	if err != nil || n > math.MaxInt64/uint64(24*time.Hour) {
		return 0, false
	}
	d := time.Duration(n) * 24 * time.Hour
	if rest != "" {
		r, err := time.ParseDuration(rest)
		if err != nil || rest[0] == '-' || rest[0] == '+' || d+r < d {
			return 0, false
		}
		d += r
	}
	return sign * d, true
}

// clip shortens what a caller sent before it is quoted back.
func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

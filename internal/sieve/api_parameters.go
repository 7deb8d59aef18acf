package sieve

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"muster"
)

// parameters reads the query of a request; err is the first that is wrong with it.
// Texts of errors are those that CrowdSieve's validator has.
type parameters struct {
	values url.Values
	err    error
}

func parametersOf(rawQuery string) *parameters {
	p := &parameters{}
	var err error
	if p.values, err = url.ParseQuery(rawQuery); err != nil {
		p.err = muster.Errorf(muster.Invalid, "querystring must be URL-encoded")
	}
	return p
}

func (p *parameters) fail(name, format string, args ...any) {
	if p.err == nil {
		p.err = muster.Errorf(muster.Invalid, "querystring/%s %s", name, fmt.Sprintf(format, args...))
	}
}

// get returns a parameter that stands once.
func (p *parameters) get(name string) (value string, given bool) {
	all := p.values[name]
	if len(all) == 0 {
		return "", false
	}
	if len(all) > 1 {
		p.fail(name, "must be given once")
	}
	return all[0], true
}

// integer returns a whole number of at least lowest and at most highest.
func (p *parameters) integer(name string, byDefault, lowest, highest int) int {
	value, given := p.get(name)
	if !given {
		return byDefault
	}
	n, ok := wholeNumber(value)
	switch {
	case !ok:
		p.fail(name, "must be integer")
	case n < float64(lowest):
		p.fail(name, "must be >= %d", lowest)
	case n > float64(highest):
		p.fail(name, "must be <= %d", highest)
	default:
		return int(n)
	}
	return byDefault
}

// wholeNumber reads a number as JSON has it, and 10.0 or 1e2 with it.
func wholeNumber(value string) (float64, bool) {
	n, err := strconv.ParseFloat(value, 64)
	return n, err == nil && n == math.Trunc(n) && !math.IsInf(n, 0) && !strings.ContainsAny(value, "xX_")
}

func (p *parameters) boolean(name string) *bool {
	value, given := p.get(name)
	if !given {
		return nil
	}
	if value != "true" && value != "false" {
		p.fail(name, "must be boolean")
	}
	b := value == "true"
	return &b
}

// text returns a text of at most longest characters that pattern, unless it is
// nil, matches.
func (p *parameters) text(name string, longest int, pattern *regexp.Regexp) string {
	value, given := p.get(name)
	switch {
	case !given:
	case utf8.RuneCountInString(value) > longest:
		p.fail(name, "must NOT have more than %d characters", longest)
	case pattern != nil && !pattern.MatchString(value):
		p.fail(name, "must match pattern %q", pattern)
	}
	return value
}

// address returns an address, the zero one for an empty text.
func (p *parameters) address(name string) netip.Addr {
	value, _ := p.get(name)
	if value == "" {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(value)
	if err != nil && p.err == nil {
		p.err = muster.Errorf(muster.Invalid, "Invalid IP address format")
	}
	return addr
}

// earliest is the first time that can be asked about.
var earliest = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// time returns a time between 2020 and a day after now, the zero one when none is
// given.
func (p *parameters) time(name, called string, now time.Time) time.Time {
	value, given := p.get(name)
	if !given {
		return time.Time{}
	}
	if len(value) > 10 && (value[10] == ' ' || value[10] == 't') { // as the validator takes it
		value = value[:10] + "T" + value[11:]
	}
	t, err := time.Parse(time.RFC3339, strings.ToUpper(value))
	if err != nil {
		p.fail(name, `must match format "date-time"`)
		return time.Time{}
	}
	if (t.Before(earliest) || t.After(now.Add(24*time.Hour))) && p.err == nil {
		p.err = muster.Errorf(muster.Invalid, "%s date out of acceptable range", called)
	}
	return t
}

package filter

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// helpers are the functions of expressions: those of the engine that are pure,
// under its names, and our own. They are fields because expr calls these faster
// than methods; those that make texts count what they make, and panic with
// errWork, which expr returns as an error, when it is too much.
type helpers struct {
	Tick      func() bool               // put into every loop
	Concat    func(a, b string) string  // what + becomes between texts
	LowerText func(string) string       `expr:"lower"` // the names in expr's own library
	UpperText func(string) string       `expr:"upper"`
	InList    func(s, name string) bool // s, a text or an address, is in a named list
	IsIP      func(string) bool         // of either family
	IsIPV4    func(string) bool         // ::ffff:192.0.2.1 among them
	IsIPV6    func(string) bool
	IpInRange func(ip, network string) bool // false when either is none

	// The network of a length, as 24 or /24, around an address; "" when either is none.
	IpToRange func(ip, length string) string

	Lower, Upper, TrimSpace   func(string) string
	Trim, TrimLeft, TrimRight func(s, cut string) string
	TrimPrefix, TrimSuffix    func(s, part string) string
	Index, IndexAny           func(s, part string) int
	Fields                    func(string) []string
	Split                     func(s, separator string) []string
	Join                      func(parts []string, separator string) string
	ReplaceAll                func(s, old, replacement string) string
	Atof                      func(string) float64 // 0 when it is no number
	ToString                  func(any) string     // of a text, number or boolean; else ""

	// Whether name is what pattern says, where * stands for any number of
	// characters, / among them, and ? for one.
	Match func(pattern, name string) bool
}

func (r *run) newHelpers() helpers {
	lower := func(s string) string { r.spend(len(s)); return strings.ToLower(s) }
	upper := func(s string) string { r.spend(len(s)); return strings.ToUpper(s) }
	return helpers{
		Tick:      func() bool { r.spend(tickCost); return true },
		Concat:    func(a, b string) string { r.spend(len(a) + len(b)); return a + b },
		LowerText: lower, UpperText: upper, Lower: lower, Upper: upper,
		TrimSpace: strings.TrimSpace, Trim: strings.Trim, TrimLeft: strings.TrimLeft, TrimRight: strings.TrimRight,
		TrimPrefix: strings.TrimPrefix, TrimSuffix: strings.TrimSuffix,
		Index: strings.Index, IndexAny: strings.IndexAny,
		Fields: func(s string) []string { r.spend(16 * len(s)); return strings.Fields(s) },
		Split:  func(s, separator string) []string { r.spend(16 * (len(s) + 1)); return strings.Split(s, separator) },
		Join: func(parts []string, separator string) string {
			for _, part := range parts {
				r.spend(len(part) + len(separator))
			}
			return strings.Join(parts, separator)
		},
		ReplaceAll: func(s, old, replacement string) string {
			r.spend(len(s) + (strings.Count(s, old)+1)*len(replacement))
			return strings.ReplaceAll(s, old, replacement)
		},
		Atof: func(s string) float64 {
			f, err := strconv.ParseFloat(s, 64)
			if err != nil {
				return 0
			}
			return f
		},
		ToString:  toString,
		Match:     r.match,
		IsIP:      func(s string) bool { return helperAddr(s).IsValid() },
		IsIPV4:    func(s string) bool { return helperAddr(s).Is4() },
		IsIPV6:    func(s string) bool { return helperAddr(s).Is6() },
		IpInRange: ipInRange,
		IpToRange: ipToRange,
		InList: func(s, name string) bool {
			list, ok := lookup(r.set.lists, name)
			return ok && list.Holds(s, parseAddr(s))
		},
	}
}

var errWork = errors.New("the expression does too much for this signal")

// spend takes work from what is left.
func (r *run) spend(work int) {
	if r.left -= work; r.left < 0 {
		panic(errWork)
	}
}

func toString(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int:
		return strconv.Itoa(v)
	case float64:
		return number(v)
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

func (r *run) match(pattern, name string) bool {
	r.spend(len(pattern) + len(name))
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			r.spend(n - mark + 1)
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// helperAddr reads an address as the engine does: ::ffff:192.0.2.1 is IPv4.
func helperAddr(s string) netip.Addr { return parseAddr(s).Unmap() }

func ipInRange(ip, network string) bool {
	prefix, err := parseNetwork(network)
	return err == nil && unmapNetwork(prefix).Contains(helperAddr(ip))
}

func ipToRange(ip, length string) string {
	bits, err := strconv.Atoi(strings.TrimPrefix(length, "/"))
	if err != nil {
		return ""
	}
	prefix, err := helperAddr(ip).Prefix(bits)
	if err != nil || !prefix.IsValid() {
		return ""
	}
	return prefix.String()
}

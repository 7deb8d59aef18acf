package muster

import (
	"strconv"
	"strings"
	"time"
)

// CanaryKind says what a canary names; the form of its value tells it.
type CanaryKind string

// The kinds.
const (
	CanaryAddress CanaryKind = "address" // 192.0.2.7
	CanaryRange   CanaryKind = "range"   // 192.0.2.0/24
	CanaryAS      CanaryKind = "as"      // AS64496: whatever is announced by it
	CanaryName    CanaryKind = "name"    // *.crawler.example.org: whose reverse name is so and leads back to the address
)

// The origins of canaries that no list has brought. Those from lists are called
// "misp:" or "list:" and the list's name.
const (
	OriginBuiltIn  = "built-in"
	OriginHub      = "hub"
	OriginOperator = "operator"
)

// Canary is something known to be good: it is never published, and whoever
// reports it is judged for it.
type Canary struct {
	ID        string // Origin, a slash and Value
	Kind      CanaryKind
	Value     string // canonical, as NewCanary writes it
	Origin    string
	Reason    string // why it is good, for people
	CreatedAt time.Time
	By        string // user, "" for Muster itself
}

// CanaryQuery selects canaries; zero fields select all.
type CanaryQuery struct {
	Origin string // exactly this one
	Search string // part of the value, the origin or the reason; ASCII letters match in either case
	After  string // the last id of the page before
	Limit  int    // 1 to 1,000; anything else means 1,000
}

// The widest ranges that can be canaries: a wider one would blind whole
// registries by one wrong digit. Large holders have a /8 of IPv4, none more than
// a /16 of IPv6.
const (
	MinCanaryBits4 = 8
	MinCanaryBits6 = 16
)

// NewCanary reads an address, a range (198.51.100.0/24), an AS number (AS64496)
// or a pattern of reverse names (*.crawler.example.org). Errors are of code
// Invalid, say what was expected and quote at most 64 bytes of value: reserved
// space is never published anyway and no canary, ranges wider than /8 (IPv6:
// /16) are refused.
func NewCanary(origin, value string) (Canary, error) {
	value = strings.TrimSpace(value)
	c := Canary{Origin: origin}
	switch {
	case strings.HasPrefix(value, "*."):
		suffix, err := nameSuffix(value[len("*."):])
		if err != nil {
			return Canary{}, err
		}
		c.Kind, c.Value = CanaryName, "*."+suffix
	case len(value) > 2 && strings.EqualFold(value[:2], "AS"):
		n, err := strconv.ParseUint(value[2:], 10, 32)
		if err != nil || n == 0 {
			return Canary{}, Errorf(Invalid, "expected an AS number like AS64496, got %q", clip(value))
		}
		c.Kind, c.Value = CanaryAS, "AS"+strconv.FormatUint(n, 10)
	default:
		source, err := ParseSource(value)
		if err != nil {
			return Canary{}, Errorf(Invalid, "expected an address, a range like 198.51.100.0/24, an AS like AS64496 or a name like *.example.org, got %q", clip(value))
		}
		p := source.Prefix()
		if p.Addr().Is4() && p.Bits() < MinCanaryBits4 || p.Addr().Is6() && p.Bits() < MinCanaryBits6 {
			return Canary{}, Errorf(Invalid, "%s is too wide: expected /%d or narrower, IPv6 /%d", source, MinCanaryBits4, MinCanaryBits6)
		}
		for _, r := range reserved {
			if r.Bits() <= p.Bits() && r.Contains(p.Addr()) {
				return Canary{}, Errorf(Invalid, "%s is reserved space (%s), which is never published anyway", source, r)
			}
		}
		c.Kind, c.Value = CanaryAddress, source.String()
		if source.IsRange() {
			c.Kind = CanaryRange
		}
	}
	c.ID = origin + "/" + c.Value
	return c, nil
}

// Source returns the addresses of an address or a range, and the zero Source
// for other kinds.
func (c Canary) Source() Source {
	if c.Kind != CanaryAddress && c.Kind != CanaryRange {
		return Source{}
	}
	source, err := ParseSource(c.Value)
	if err != nil {
		return Source{}
	}
	return source
}

// nameSuffix checks and lowers what follows "*." in a pattern of names: two
// labels at least (RFC 1123, and underscores, which reverse zones have), the
// last of which is no number.
func nameSuffix(text string) (string, error) {
	suffix := strings.ToLower(strings.TrimSuffix(text, "."))
	labels := strings.Split(suffix, ".")
	last := labels[len(labels)-1]
	ok := len(labels) >= 2 && len(suffix) <= 250 && strings.Trim(last, "0123456789") != ""
	for _, label := range labels {
		ok = ok && label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-' &&
			!strings.ContainsFunc(label, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_", r) })
	}
	if !ok {
		return "", Errorf(Invalid, "expected a pattern of names like *.crawler.example.org, with two labels at least after the star, got %q", clip("*."+text))
	}
	return suffix, nil
}

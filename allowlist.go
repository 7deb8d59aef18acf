package muster

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// AllowKind says what an item of an allowlist names.
type AllowKind string

// The kinds. Engines know addresses and ranges only: the others reach them as
// what they stand for at the time.
const (
	AllowAddress AllowKind = "address" // 192.0.2.7
	AllowRange   AllowKind = "range"   // 192.0.2.0/24
	AllowAS      AllowKind = "as"      // AS64496: whatever is announced by it
	AllowCountry AllowKind = "country" // country:DE, ISO 3166 alpha-2
	AllowCloud   AllowKind = "cloud"   // cloud:aws, cloud:aws/cloudfront: ranges that a provider publishes
	AllowHost    AllowKind = "host"    // office.example.org: the addresses that it leads to
)

// Bounds on allowlists. An engine writes each item of a list into its database
// with every pull, so lists are kept short.
const (
	MaxAllowlists       = 64     // of one organisation, and of the installation
	MaxAllowItems       = 10_000 // of one list
	MaxAllowHosts       = 100    // of one list
	MaxAllowTargets     = 1_000  // of one list
	MaxAllowReason      = 500    // bytes
	MaxAllowDescription = 500    // bytes
)

// CentralAllowlist is the id and the name of the list that every installation
// has: what is on it is never published to anybody. Engines do not get it, so
// that whom they detect themselves stays their own matter.
const CentralAllowlist = "central"

// Allowlist is a named set of sources that are let through. Items match by
// containment: an address by the range around it, a range by any address in it.
type Allowlist struct {
	ID           string // UUIDv7, or CentralAllowlist; engines know the list by it
	Name         string // see CheckAllowlistName; no two lists of one engine share it
	Description  string
	Organisation string // owner's id; "" = the installation: then it is for everybody
	// Targets are whom an organisation's list is for: all of the organisation, its
	// machines with a tag, single machines, integrations. Empty = nobody yet.
	Targets   []Subscriber
	CreatedAt time.Time
	UpdatedAt time.Time // when it or its items last changed
	CreatedBy string
}

// Central reports whether l is the installation's and so for everybody.
func (l *Allowlist) Central() bool { return l.Organisation == "" }

// Delivered reports whether engines get the list.
func (l *Allowlist) Delivered() bool { return l.ID != CentralAllowlist }

// For reports whether a list is for a reader: a machine or an integration, by
// its id, with its organisation and tags.
func (l *Allowlist) For(reader, organisation string, tags []string) bool {
	if l.Central() {
		return true
	}
	if l.Organisation != organisation {
		return false
	}
	for i := range l.Targets {
		switch t := &l.Targets[i]; t.Kind {
		case SubscriberOrganisation:
			return true
		case SubscriberTag:
			for _, tag := range tags {
				if tag == t.ID {
					return true
				}
			}
		case SubscriberMachine, SubscriberIntegration:
			if t.ID == reader && reader != "" {
				return true
			}
		}
	}
	return false
}

// CheckAllowlistName refuses what cannot be a list's name: 1 to 64 lower-case
// letters, digits, "-" and "_", beginning with a letter or digit.
func CheckAllowlistName(name string) error {
	ok := name != "" && len(name) <= 64 && name[0] != '-' && name[0] != '_' &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
	if !ok {
		return Errorf(Invalid, "name: expected 1 to 64 lower-case letters, digits, - and _, as in office-berlin, got %q", clip(name))
	}
	return nil
}

// AllowItem is one line of an allowlist.
type AllowItem struct {
	List      string // Allowlist.ID
	Kind      AllowKind
	Value     string // canonical, as ParseAllowItem writes it
	Reason    string
	CreatedAt time.Time
	ExpiresAt time.Time // zero = never
	By        string    // user
}

// The widest ranges that an item can be: a wider one is a slip that would let
// everybody through, and an engine whose every decision is allowed crashes.
// Reserved space may be wider.
const (
	MinAllowBits4 = 8
	MinAllowBits6 = 16
)

// ParseAllowItem reads an address, a range (198.51.100.0/24), an AS (AS64496), a
// country (country:DE), a cloud provider's ranges (cloud:aws, or a service or
// region of it: cloud:aws/cloudfront) or a host name (office.example.org).
// Errors are of code Invalid, say what was expected and quote at most 64 bytes.
func ParseAllowItem(value string) (AllowItem, error) {
	value = strings.TrimSpace(value)
	if s, err := ParseSource(value); err == nil {
		return allowSource(s)
	}
	if kind, rest, ok := strings.Cut(value, ":"); ok {
		switch strings.ToLower(kind) {
		case "country":
			return allowCountry(rest)
		case "cloud":
			return allowCloud(rest)
		}
	}
	if len(value) > 2 && strings.EqualFold(value[:2], "AS") && strings.Trim(value[2:], "0123456789") == "" {
		n, err := strconv.ParseUint(value[2:], 10, 32)
		if err != nil || n == 0 {
			return AllowItem{}, Errorf(Invalid, "expected an AS number like AS64496, got %q", clip(value))
		}
		return AllowItem{Kind: AllowAS, Value: "AS" + strconv.FormatUint(n, 10)}, nil
	}
	if strings.Contains(value, ".") && !strings.ContainsAny(value, "*/: ") {
		if name, err := nameSuffix(value); err == nil {
			return AllowItem{Kind: AllowHost, Value: name}, nil
		}
	}
	return AllowItem{}, Errorf(Invalid, "expected an address, a range like 198.51.100.0/24, an AS like AS64496, a country like country:DE, "+
		"a provider like cloud:aws or a host name like office.example.org, got %q", clip(value))
}

func allowSource(s Source) (AllowItem, error) {
	p, least := s.Prefix(), MinAllowBits4
	if p.Addr().Is6() {
		least = MinAllowBits6
	}
	if p.Bits() < least && !withinReserved(p) {
		return AllowItem{}, Errorf(Invalid, "%s is too wide: expected /%d or narrower, IPv6 /%d", s, MinAllowBits4, MinAllowBits6)
	}
	kind := AllowAddress
	if s.IsRange() {
		kind = AllowRange
	}
	return AllowItem{Kind: kind, Value: s.String()}, nil
}

func withinReserved(p netip.Prefix) bool {
	for _, r := range reserved {
		if r.Bits() <= p.Bits() && r.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

func allowCountry(code string) (AllowItem, error) {
	code = strings.ToUpper(code)
	if len(code) != 2 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return AllowItem{}, Errorf(Invalid, "expected a country as two letters, like country:DE, got %q", clip("country:"+code))
	}
	return AllowItem{Kind: AllowCountry, Value: "country:" + code}, nil
}

func allowCloud(text string) (AllowItem, error) {
	set, part, has := strings.Cut(strings.ToLower(text), "/")
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-_."
	if set == "" || len(text) > 128 || strings.Trim(set, letters) != "" || has && (part == "" || strings.Trim(part, letters) != "") {
		return AllowItem{}, Errorf(Invalid, "expected a provider like cloud:aws, or a service or region of it like cloud:aws/cloudfront, got %q", clip("cloud:"+text))
	}
	return AllowItem{Kind: AllowCloud, Value: "cloud:" + strings.ToLower(text)}, nil
}

// Source returns the addresses of an address or a range, and the zero Source for
// other kinds.
func (i *AllowItem) Source() Source {
	if i.Kind != AllowAddress && i.Kind != AllowRange {
		return Source{}
	}
	s, err := ParseSource(i.Value)
	if err != nil {
		return Source{}
	}
	return s
}

// ASN returns the number of an AS, 0 for other kinds.
func (i *AllowItem) ASN() uint32 {
	if i.Kind != AllowAS {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(i.Value, "AS"), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// Country returns the code of a country, "" for other kinds.
func (i *AllowItem) Country() string {
	if i.Kind != AllowCountry {
		return ""
	}
	return strings.TrimPrefix(i.Value, "country:")
}

// Cloud returns the name of a provider's ranges and which service or region of
// it, "" for all; both are "" for other kinds.
func (i *AllowItem) Cloud() (set, part string) {
	if i.Kind != AllowCloud {
		return "", ""
	}
	set, part, _ = strings.Cut(strings.TrimPrefix(i.Value, "cloud:"), "/")
	return set, part
}

// AllowWithdrawal is a list that a machine has got and is not for it any more.
// The machine is told until it is known to have heard.
type AllowWithdrawal struct {
	Machine string
	List    string    // Allowlist.ID
	Name    string    // as the machine knows it
	Since   time.Time // when it ceased to be for the machine
	Ordered time.Time // when an order was last issued; zero = never
}

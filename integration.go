package muster

import (
	"net/netip"
	"time"
)

// IntegrationKind says what an integration is read by.
type IntegrationKind string

// The kinds of integrations.
const (
	FirewallIntegration IntegrationKind = "firewall" // a product that fetches a file now and then
	BouncerIntegration  IntegrationKind = "bouncer"  // a remediation component, which speaks as it does to an engine
)

// Valid reports whether k is a known kind.
func (k IntegrationKind) Valid() bool { return k == FirewallIntegration || k == BouncerIntegration }

// IntegrationPath is the path below which integrations are read.
const IntegrationPath = "/v1/integrations/"

// Bounds of an integration.
const (
	// MaxCollateral is the largest share of a range that aggregation may cover
	// without that it is listed.
	MaxCollateral = 0.5
	// MaxIntegrationInterval is the longest time that a firewall may be told to
	// stay away between two pulls.
	MaxIntegrationInterval = 24 * time.Hour
)

// Integration lets something read lists that is no engine: a firewall, or a
// bouncer without an engine.
type Integration struct {
	ID           string // UUIDv7; part of its URLs
	Name         string // of its organisation's, unique; 1 to 64 lower-case letters, digits, "-" and "_"
	Kind         IntegrationKind
	Organisation string // owner's id; "" = the installation
	Format       string // of a firewall: what internal/firewall calls its format
	Budget       int    // most entries that its reader takes; 0 = no limit
	// Collateral is the largest share of a range that may be covered without that
	// it is listed, so that more fits into the budget: 0 (none) to MaxCollateral.
	Collateral float64
	NoIPv4     bool
	NoIPv6     bool
	Interval   time.Duration // shortest time between two pulls of a firewall; 0 = any
	User       string        // of a firewall's basic authentication
	Secret     []byte        // SHA-256 of the password or key, which is shown once
	CreatedAt  time.Time
	CreatedBy  string
	RotatedAt  time.Time // when the secret was made
	Seen       IntegrationContact
}

// IntegrationContact says when an integration was last read, and by whom.
type IntegrationContact struct {
	Pull    time.Time // zero = never
	Agent   string    // the client's own words
	Addr    netip.Addr
	Entries int // how many it was given; those of a change for a bouncer that asked for changes
}

// IntegrationReport is what a bouncer last told about its work.
type IntegrationReport struct {
	Integration string
	Addr        netip.Addr // from where; an integration keeps one report of each
	At          time.Time
	Body        []byte // as it came: JSON
}

// ValidateIntegration checks what people choose of an integration, save for its
// format. Errors are of code Invalid.
func ValidateIntegration(i Integration) error {
	switch {
	case !validIntegrationName(i.Name):
		return Errorf(Invalid, "name: expected 1 to 64 lower-case letters, digits, - and _, got %q", clip(i.Name))
	case !i.Kind.Valid():
		return Errorf(Invalid, "kind: expected firewall or bouncer, got %q", clip(string(i.Kind)))
	case i.Budget < 0 || i.Budget > 10_000_000:
		return Errorf(Invalid, "budget: expected 1 to 10000000 entries, or 0 for no limit, got %d", i.Budget)
	case !(i.Collateral >= 0 && i.Collateral <= MaxCollateral):
		return Errorf(Invalid, "collateral: expected a share from 0 to %v, got %v", MaxCollateral, i.Collateral)
	case i.NoIPv4 && i.NoIPv6:
		return Errorf(Invalid, "expected IPv4, IPv6 or both, got neither")
	case i.Interval < 0 || i.Interval > MaxIntegrationInterval:
		return Errorf(Invalid, "interval: expected 0 to %s, got %s", MaxIntegrationInterval, i.Interval)
	}
	return nil
}

func validIntegrationName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

package muster

import (
	"slices"
	"strings"
	"time"
)

// MachineState is where a machine stands in its enrolment.
type MachineState string

// The states. Only active machines have any influence on what is published.
const (
	Pending MachineState = "pending" // registered, or enrolled and waiting for a person's acceptance
	Active  MachineState = "active"  // accepted into an organisation
	Blocked MachineState = "blocked" // refused by an operator; cannot log in
)

// Valid reports whether s is one of the three states.
func (s MachineState) Valid() bool { return s == Pending || s == Active || s == Blocked }

// MaxMachineID is the longest machine id accepted. cscli and PHP send 48
// characters, the Python SDK 48 and a prefix.
const MaxMachineID = 128

// ValidateMachineID checks an id that a client chose for itself.
func ValidateMachineID(id string) error {
	switch {
	case id == "":
		return Errorf(Invalid, "machine_id is empty: expected 1 to %d letters and digits", MaxMachineID)
	case len(id) > MaxMachineID:
		return Errorf(Invalid, "machine_id has %d characters: expected 1 to %d letters and digits", len(id), MaxMachineID)
	}
	for i := range len(id) {
		c := id[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') {
			return Errorf(Invalid, "machine_id %q has a character that is neither letter nor digit at position %d", clip(id), i+1)
		}
	}
	return nil
}

// Machine is a watcher: one engine (or SDK client) that reports and pulls.
type Machine struct {
	ID           string // chosen by the client, see ValidateMachineID
	State        MachineState
	Organisation string // owner's id; for a pending machine the organisation that it asked to join, or ""
	Name         string // as given at enrolment, or by a person
	Tags         []string
	Honeypot     bool     // nobody has business with it; its operator vouches for that
	Scenarios    []string // footprint: declared at login, sorted, never erased by an empty declaration
	Version      string   // engine version, from its user agent or metrics
	Credential   []byte   // verifier of its secret, see internal/enroll; never leaves the server
	RegisteredAt time.Time
	EnrolledAt   time.Time // zero before acceptance
	// TokensFrom revokes: tokens issued before it are refused with 401, which
	// makes an engine log in again and so learn of its acceptance or new plan.
	TokensFrom time.Time
	Seen       Contacts
}

// Contacts says when a machine was last heard, by kind of contact; zero means
// never.
type Contacts struct {
	Login, Pull, Push, Metrics, Poll, Heartbeat time.Time
}

// Last returns the latest contact of any kind.
func (c Contacts) Last() time.Time {
	last := c.Login
	for _, t := range []time.Time{c.Pull, c.Push, c.Metrics, c.Poll, c.Heartbeat} {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// MachineTouch is what changed about a machine by its mere contacts, written
// in batches. A time that is zero or older than the stored one, an empty
// Version and nil Scenarios leave what is stored.
type MachineTouch struct {
	ID        string
	Seen      Contacts
	Version   string
	Scenarios []string
}

// Claim is a machine's request, made without a key, to be taken over by
// whoever opens its link first.
type Claim struct {
	Hash      []byte // SHA-256 of the code in the link; the code is shown once
	Machine   string
	Name      string
	Tags      []string
	ExpiresAt time.Time
}

// CanonicalScenarios sorts a declared footprint and drops blanks and repeats;
// it keeps at most 5,000 names of at most 200 bytes.
func CanonicalScenarios(in []string) []string {
	out := make([]string, 0, len(in))
	for _, s := range in {
		if s = strings.TrimSpace(s); s != "" && len(s) <= 200 {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), 5000)]
}

// Plan is an organisation's subscription as engines read it from their token:
// they poll for orders only under Enterprise and SecOps, spelled so.
type Plan string

// The plans that engines know.
const (
	Community  Plan = "COMMUNITY"
	SecOps     Plan = "SECOPS"
	Enterprise Plan = "ENTERPRISE"
)

// Valid reports whether p is a plan that engines know.
func (p Plan) Valid() bool { return p == Community || p == SecOps || p == Enterprise }

// Orders reports whether machines under p may be sent orders (PAPI).
func (p Plan) Orders() bool { return p == SecOps || p == Enterprise }

// FleetPolicy says what one machine's reports do to the others of its
// organisation, without any consensus.
type FleetPolicy string

// The fleet policies.
const (
	FleetOff FleetPolicy = "off"
	FleetHub FleetPolicy = "hub" // reports of unmodified hub scenarios (the default)
	FleetAll FleetPolicy = "all" // custom, tainted and manual ones too
)

// Valid reports whether p is a known policy.
func (p FleetPolicy) Valid() bool { return p == FleetOff || p == FleetHub || p == FleetAll }

// Organisation owns machines and people.
type Organisation struct {
	ID        string // UUIDv7
	Name      string
	Plan      Plan
	Fleet     FleetPolicy
	CreatedAt time.Time
}

// EnrolmentKey lets machines join an organisation.
type EnrolmentKey struct {
	ID           string // UUIDv7; names the key where its text must not appear
	Hash         []byte // SHA-256 of the key's text; the text is shown once
	Organisation string
	Tags         []string // given to machines that enrol with it
	AutoAccept   bool     // active at once, no person needed
	MaxUses      int      // 0 = unlimited
	Uses         int
	CreatedAt    time.Time
	ExpiresAt    time.Time // zero = never
	RevokedAt    time.Time // zero = in force
}

// Usable returns nil, or an Error of code Gone that says why k cannot be used.
func (k EnrolmentKey) Usable(now time.Time) error {
	switch {
	case !k.RevokedAt.IsZero():
		return Errorf(Gone, "the attachment key provided is not valid: it was revoked")
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return Errorf(Gone, "the attachment key provided is not valid: it expired on %s", k.ExpiresAt.UTC().Format(time.RFC3339))
	case k.MaxUses > 0 && k.Uses >= k.MaxUses:
		return Errorf(Gone, "the attachment key provided is not valid: it was used %d of %d times", k.Uses, k.MaxUses)
	}
	return nil
}

// User is a person who steers Muster.
type User struct {
	ID           string // UUIDv7
	Name         string // login name, unique
	PasswordHash string // argon2id, PHC string
	Role         Role
	Organisation string // "" for administrators of the whole installation
	CreatedAt    time.Time
}

// Role says what a user or an API token may do.
type Role string

// Admin may do everything; further roles come with the console.
const Admin Role = "admin"

// APIToken lets a program act as a user without a password.
type APIToken struct {
	ID        string // UUIDv7
	Hash      []byte // SHA-256 of the token's text; the text is shown once
	User      string // User.ID
	Name      string
	CreatedAt time.Time
	ExpiresAt time.Time // zero = never
}

// AllowEntry is a source that is never published.
type AllowEntry struct {
	Source    Source
	Reason    string
	CreatedAt time.Time
	ExpiresAt time.Time // zero = never
}

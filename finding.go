package muster

import "time"

// FindingKind names what a Finding is about; programs branch on it.
type FindingKind string

// The kinds of misuse that a server sees by itself.
const (
	SharedCredentials FindingKind = "shared-credentials" //nolint:gosec // it is a name; one machine id from several addresses at once
	RestartLoop       FindingKind = "restart-loop"       // logins with no work between them
	StatusProbe       FindingKind = "status-probe"       // logins at a short, steady period: a health check
	SharedAddress     FindingKind = "shared-address"     // many machines behind one address
	UntrustedProxy    FindingKind = "untrusted-proxy"    // a proxy that names clients and is not trusted to
)

// Severity says how much a Finding hurts.
type Severity string

// The severities.
const (
	Info     Severity = "info"     // worth knowing
	Warning  Severity = "warning"  // will end in a ban or in wrong data
	Critical Severity = "critical" // is refused service now, or soon
)

// Finding is an observation about health or misuse, with its evidence and what
// to do about it. Findings describe; they refuse nobody.
type Finding struct {
	Kind     FindingKind `json:"kind"`
	Severity Severity    `json:"severity"`
	// Machine or Address is whom it is about; at least one is set.
	Machine      string    `json:"machine,omitempty"`
	Organisation string    `json:"organisation,omitempty"` // the machine's
	Address      Source    `json:"address,omitzero"`       // a v4 address, or the /64 of a v6 address
	Summary      string    `json:"summary"`                // one sentence, with the counts
	Evidence     []string  `json:"evidence,omitempty"`     // at most 8 lines: addresses, machines, times
	Fix          string    `json:"fix"`                    // one line: what to do
	Count        int       `json:"count"`                  // of what the summary counts
	First        time.Time `json:"first"`
	Last         time.Time `json:"last"`
}

// AuditEntry is one change that a person made.
type AuditEntry struct {
	ID      string    // UUIDv7
	At      time.Time // UTC
	By      string    // user, or "local administrator"
	Action  string    // "ban.lift", "limit.set": thing and verb
	Subject string    // what it was done to: an address, a name, an id
	Reason  string    // as the person gave it
	Detail  []byte    // JSON of what changed, nil for nothing more
}

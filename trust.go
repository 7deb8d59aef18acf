package muster

import "time"

// Number is the short name of a machine, an organisation or a behaviour, by
// which evidence and trust speak of it. It is given out once and kept for good,
// so that who leaves and comes back has the past that it had.
type Number struct {
	Kind   NumberKind
	Name   string
	Number uint32 // from 1, per kind; 0 = unknown
}

// NumberKind says what is numbered.
type NumberKind string

// The kinds.
const (
	MachineNumber      NumberKind = "machine"
	OrganisationNumber NumberKind = "organisation"
	BehaviourNumber    NumberKind = "behaviour"
)

// TrustRow is the stored form of what consensus knows about a machine.
type TrustRow struct {
	Machine uint32
	Rank    uint8     // 0 to 5
	Changed time.Time // when the rank or the data did
	Data    []byte    // consensus's own binary form
}

// BehaviourRow is the stored form of what consensus knows about a behaviour.
type BehaviourRow struct {
	Behaviour uint32
	Data      []byte // consensus's own binary form
}

// TrustEvent is something that moved the trust in a machine, kept to be shown.
type TrustEvent struct {
	Machine    uint32 // 0: it is about the behaviour
	At         time.Time
	Kind       string  // "validated", "struck"
	Amount     float64 // summed up, when several are kept as one
	Behaviour  string  // "" = none, or several
	Source     Source  // invalid = none, or several
	RankBefore uint8
	RankAfter  uint8
}

package muster

import (
	"encoding/json"
	"time"
)

// OrderKind names an instruction that a machine takes over PAPI.
type OrderKind string

// The orders, as type/command of the PAPI envelope.
const (
	OrderDecisionDelete       OrderKind = "decision/delete"
	OrderAlertAdd             OrderKind = "alert/add" // adds decisions on the machine
	OrderForcePull            OrderKind = "management/force_pull"
	OrderReauth               OrderKind = "management/reauth"
	OrderBlocklistUnsubscribe OrderKind = "management/blocklist_unsubscribe"
	OrderAllowlistUnsubscribe OrderKind = "management/allowlist_unsubscribe"
)

// Order is one instruction to one machine. Orders stay in its log until they
// expire; the machine selects by time, so delivery is at least once.
type Order struct {
	ID       string // UUIDv7; engines loop for ever on anything that is no UUID
	Machine  string
	Kind     OrderKind
	Data     json.RawMessage // exact PAPI data for the kind, built by internal/wire
	Message  string          // shown as the scenario of what it adds
	IssuedBy string          // user name, or "" for Muster itself
	// IssuedAt orders the machine's log; milliseconds on the wire, and strictly
	// increasing per machine.
	IssuedAt  time.Time
	ExpiresAt time.Time
}

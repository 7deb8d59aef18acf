package muster

import "time"

// SignalID identifies a report: 16 bytes of a hash over the sending machine
// and the signal's uuid, or over its content when it has none. The same report
// sent twice has the same id and counts once.
type SignalID [16]byte

// ScenarioTrust is what the engine claims about the scenario that fired.
type ScenarioTrust uint8

// The claims, in the engine's words.
const (
	TrustUnknown   ScenarioTrust = iota
	TrustCertified               // "certified": unmodified from the hub
	TrustCustom                  // "custom": written by the operator
	TrustTainted                 // "tainted": from the hub, edited
	TrustManual                  // "manual": a person's decision
)

// ParseScenarioTrust reads the wire word; anything else is TrustUnknown.
func ParseScenarioTrust(s string) ScenarioTrust {
	switch s {
	case "certified":
		return TrustCertified
	case "custom":
		return TrustCustom
	case "tainted":
		return TrustTainted
	case "manual":
		return TrustManual
	}
	return TrustUnknown
}

func (t ScenarioTrust) String() string {
	return [...]string{"unknown", "certified", "custom", "tainted", "manual"}[min(t, TrustManual)]
}

// SignalFlags is what admission found out about a signal. The flags are part
// of the durable record, so that a replay reaches the same verdicts.
type SignalFlags uint8

// The flags.
const (
	// Counts: may be evidence for the whole network: an active machine's report
	// of an unmodified hub scenario about a public address.
	Counts SignalFlags = 1 << iota
	// Fleet: goes to the other machines of its organisation at once: it carries
	// a ban and the organisation's fleet policy takes it.
	Fleet
	// Decided: the engine acted on it (it carries at least one decision, or came
	// over v2, which has no decisions but sends only what was acted on).
	Decided
	// Honeypot: by a machine that nobody has business with, so that whoever
	// comes is up to no good.
	Honeypot
)

// Signal is one report by one machine about one source at one time. It is
// immutable.
type Signal struct {
	ID           SignalID
	Machine      string // the account that sent it, not the log processor named inside
	Organisation string
	Received     time.Time
	At           time.Time // when it happened: stop, else start, else created, else received; never after Received
	Source       Source    // zero when the scope is no address
	Scope, Value string    // as sent; kept only when Source is zero
	Scenario     string
	ScenarioHash string // lower-case hex of the scenario file's SHA-256, or ""
	Version      string // scenario version
	Trust        ScenarioTrust
	Kind         string // "crowdsec", "waf", "bot-challenge", "cscli", "papi" or ""
	Country      string // ISO 3166 alpha-2 as the engine enriched it, or ""
	ASN          uint32 // as the engine enriched it, which may be wrong or a lie
	ASName       string
	SourceASN    uint32 // as the operator's own database has it; 0 = unknown
	// From where the machine sent it: who sits in one place is one voice.
	ReporterASN uint32 // 0 = unknown
	ReporterNet uint64 // see NetworkOf; 0 = unknown
	Flags       SignalFlags
	// Detail is a JSON object of what only the owner may see: message, context,
	// decisions. Empty when there is none.
	Detail []byte
}

// Removal tells that a machine withdrew decisions of its own (an operator
// deleted them): its reports no longer support a fleet listing.
type Removal struct {
	Machine   string
	Decisions []string // decision uuids
	At        time.Time
}

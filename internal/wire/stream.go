package wire

import (
	"net/url"
	"strings"
	"time"

	"muster"
)

// Stream is the content of one answer to GET /decisions/stream.
type Stream struct {
	New     []Group
	Deleted []DeletedGroup // keep short: an engine runs one query per value
	Links   Links          // v3 only
}

// Group is the new decisions of one scenario and scope. Engines make bans of
// them, with origin CAPI.
type Group struct {
	Scenario  string
	Scope     string // "ip", "range", or verbatim for others: "Country", "AS"
	Decisions []Entry
}

// Entry is one new decision; Duration is cut to whole seconds.
type Entry struct {
	Value
	Duration time.Duration
}

// Value is what a decision is about: Source under the scopes ip and range, or
// Text that parses as one when Source is zero; Text under all other scopes.
type Value struct {
	Source muster.Source
	Text   string
}

// DeletedGroup is values of one scope that are to be unbanned.
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
	Duration    time.Duration // cut to whole seconds
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

// The frame of both forms of the stream: StreamOpen, new groups or decisions
// with commas between them, StreamDeleted, deleted ones, and the end:
// AppendStreamEndV3 or StreamEndV2.
const (
	StreamOpen    = `{"new":[`
	StreamDeleted = `],"deleted":[`
	StreamEndV2   = `]}`
)

// AppendStreamV3 appends the grouped form of v3.
//
// It is also the outbound guard, as are the parts that it is made of and
// AppendStreamV2: whatever is known to crash an engine or make it reject a whole
// list is left out and counted in dropped: values that are no address under ip
// and range, blank scenarios, scopes and values, durations under a second, links
// with a field missing; empty groups are left out uncounted. One crash it cannot
// see: a list whose every value is allowlisted on the engine.
func AppendStreamV3(b []byte, s Stream) (out []byte, dropped int) {
	var n int
	b = append(b, StreamOpen...)
	for i := range s.New {
		b, n = appendNext(b, &s.New[i], AppendGroupV3)
		dropped += n
	}
	b = append(b, StreamDeleted...)
	for i := range s.Deleted {
		b, n = appendNext(b, &s.Deleted[i], AppendDeletedV3)
		dropped += n
	}
	b, n = AppendStreamEndV3(b, s.Links)
	return b, dropped + n
}

// AppendStreamEndV3 appends what follows the last deleted group: the links.
func AppendStreamEndV3(b []byte, links Links) (out []byte, dropped int) {
	b = append(b, `],"links":{"blocklists":[`...)
	for i := range links.Blocklists {
		if l := &links.Blocklists[i]; l.check() == nil {
			b = l.append(comma(b))
		} else {
			dropped++
		}
	}
	b = append(b, `],"allowlists":[`...)
	for i := range links.Allowlists {
		if l := &links.Allowlists[i]; l.check() == nil {
			b = l.append(comma(b))
		} else {
			dropped++
		}
	}
	return append(b, `]}}`...), dropped
}

// appendNext appends a group behind others in an array, if anything of it is
// left.
func appendNext[G any](b []byte, g *G, one func([]byte, *G) ([]byte, int)) (out []byte, dropped int) {
	before := len(b)
	b = comma(b)
	begin := len(b)
	b, dropped = one(b, g)
	if len(b) == begin {
		b = b[:before]
	}
	return b, dropped
}

// comma appends a comma unless b ends where an array has just begun.
func comma(b []byte) []byte {
	if b[len(b)-1] == '[' {
		return b
	}
	return append(b, ',')
}

// AppendGroupV3 appends one group of new decisions; nothing when none of it may
// be sent.
func AppendGroupV3(b []byte, g *Group) (out []byte, dropped int) {
	if isBlank(g.Scenario) || isBlank(g.Scope) {
		return b, len(g.Decisions)
	}
	before := len(b)
	b = append(b, `{"scenario":`...)
	b = AppendString(b, g.Scenario)
	b = append(b, `,"scope":`...)
	b = AppendString(b, g.Scope)
	b = append(b, `,"decisions":[`...)
	begin := len(b)
	address := isAddressScope(g.Scope)
	for i := range g.Decisions {
		e, end := &g.Decisions[i], len(b)
		b = append(comma(b), `{"value":`...)
		var ok bool
		if b, ok = e.Value.append(b, address); !ok || e.Duration < time.Second {
			b = b[:end]
			dropped++
			continue
		}
		b = append(b, `,"duration":`...)
		b = appendDuration(b, e.Duration)
		b = append(b, '}')
	}
	if len(b) == begin {
		return b[:before], dropped
	}
	return append(b, `]}`...), dropped
}

// AppendDeletedV3 appends one group of deleted values; nothing when none of it
// may be sent.
func AppendDeletedV3(b []byte, g *DeletedGroup) (out []byte, dropped int) {
	if isBlank(g.Scope) {
		return b, len(g.Values)
	}
	before := len(b)
	b = append(b, `{"scope":`...)
	b = AppendString(b, g.Scope)
	b = append(b, `,"decisions":[`...)
	begin := len(b)
	address := isAddressScope(g.Scope)
	for i := range g.Values {
		end := len(b)
		var ok bool
		if b, ok = g.Values[i].append(comma(b), address); !ok {
			b = b[:end]
			dropped++
		}
	}
	if len(b) == begin {
		return b[:before], dropped
	}
	return append(b, `]}`...), dropped
}

// AppendStreamV2 appends the flat form of v2 (engines up to 1.4.6), which has
// no links: s.Links is ignored. See AppendStreamV3 for what is dropped.
func AppendStreamV2(b []byte, s Stream) (out []byte, dropped int) {
	var n int
	b = append(b, StreamOpen...)
	for i := range s.New {
		b, n = appendNext(b, &s.New[i], AppendGroupV2)
		dropped += n
	}
	b = append(b, StreamDeleted...)
	for i := range s.Deleted {
		b, n = appendNext(b, &s.Deleted[i], AppendDeletedV2)
		dropped += n
	}
	return append(b, StreamEndV2...), dropped
}

// AppendGroupV2 appends the decisions of one group, with commas between them;
// nothing when none of it may be sent.
func AppendGroupV2(b []byte, g *Group) (out []byte, dropped int) {
	begin := len(b)
	for i := range g.Decisions {
		e := &g.Decisions[i]
		var ok bool
		if b, ok = appendFlat(b, begin, flat{g.Scenario, g.Scope, e.Duration, e.Value}); !ok {
			dropped++
		}
	}
	return b, dropped
}

// AppendDeletedV2 appends deleted decisions, with commas between them; nothing
// when none of it may be sent.
func AppendDeletedV2(b []byte, g *DeletedGroup) (out []byte, dropped int) {
	begin := len(b)
	for i := range g.Values {
		// Engines match on origin, type, scope and value; the other two
		// fields only have to be there.
		var ok bool
		if b, ok = appendFlat(b, begin, flat{"deleted", g.Scope, time.Second, g.Values[i]}); !ok {
			dropped++
		}
	}
	return b, dropped
}

// flat is one v2 decision.
type flat struct {
	scenario, scope string
	duration        time.Duration
	value           Value
}

// appendFlat appends one v2 decision, all six fields of which are dereferenced
// unchecked by engines, behind others that begin at begin.
func appendFlat(b []byte, begin int, f flat) ([]byte, bool) {
	if isBlank(f.scenario) || isBlank(f.scope) || f.duration < time.Second {
		return b, false
	}
	end := len(b)
	if end > begin {
		b = append(b, ',')
	}
	b = append(b, `{"duration":`...)
	b = appendDuration(b, f.duration)
	b = append(b, `,"origin":"CAPI","scenario":`...)
	b = AppendString(b, f.scenario)
	b = append(b, `,"scope":`...)
	b = AppendString(b, f.scope)
	b = append(b, `,"type":"ban","value":`...)
	b, ok := f.value.append(b, isAddressScope(f.scope))
	if !ok {
		return b[:end], false
	}
	return append(b, '}'), true
}

// append appends the value as a JSON string; false means that it must not be
// sent. address says that the scope is ip or range.
func (v *Value) append(b []byte, address bool) ([]byte, bool) {
	if !address {
		return AppendString(b, v.Text), !isBlank(v.Text)
	}
	src := v.Source
	if !src.IsValid() {
		var err error
		if src, err = muster.ParseSource(v.Text); err != nil {
			return b, false
		}
	}
	b = append(b, '"')
	if src.IsRange() {
		b = src.Prefix().AppendTo(b)
	} else {
		b = src.Addr().AppendTo(b)
	}
	return append(b, '"'), true
}

func isAddressScope(scope string) bool {
	return strings.EqualFold(scope, "ip") || strings.EqualFold(scope, "range")
}

func isBlank(s string) bool { return strings.TrimSpace(s) == "" }

// check says which field keeps engines from taking the link.
func (l *BlocklistLink) check() error {
	switch {
	case isBlank(l.Name):
		return missing("blocklist name")
	case isBlank(l.Remediation):
		return missing("blocklist remediation")
	case isBlank(l.Scope):
		return missing("blocklist scope")
	case l.Duration < time.Second:
		return muster.Errorf(muster.Invalid, "blocklist duration is %s: expected a second or more", l.Duration)
	}
	return checkURL("blocklist", l.URL)
}

func (l *BlocklistLink) append(b []byte) []byte {
	b = append(b, `{"name":`...)
	b = AppendString(b, l.Name)
	b = append(b, `,"url":`...)
	b = AppendString(b, l.URL)
	b = append(b, `,"remediation":`...)
	b = AppendString(b, l.Remediation)
	b = append(b, `,"scope":`...)
	b = AppendString(b, l.Scope)
	b = append(b, `,"duration":`...)
	b = appendDuration(b, l.Duration)
	return append(b, '}')
}

// check says which field keeps engines from taking the link.
func (l *AllowlistLink) check() error {
	switch {
	case isBlank(l.ID):
		return missing("allowlist id")
	case isBlank(l.Name):
		return missing("allowlist name")
	case !isDate(l.CreatedAt):
		return missing("allowlist created_at")
	case !isDate(l.UpdatedAt):
		return missing("allowlist updated_at")
	}
	return checkURL("allowlist", l.URL)
}

func (l *AllowlistLink) append(b []byte) []byte {
	description := l.Description
	if description == "" {
		description = l.Name
	}
	b = append(b, `{"id":`...)
	b = AppendString(b, l.ID)
	b = append(b, `,"name":`...)
	b = AppendString(b, l.Name)
	b = append(b, `,"description":`...)
	b = AppendString(b, description)
	b = append(b, `,"url":`...)
	b = AppendString(b, l.URL)
	b = append(b, `,"created_at":`...)
	b = appendTime(b, l.CreatedAt)
	b = append(b, `,"updated_at":`...)
	b = appendTime(b, l.UpdatedAt)
	return append(b, '}')
}

// isDate reports whether t is set and RFC 3339 can write it.
func isDate(t time.Time) bool { return !t.IsZero() && t.UTC().Year() > 0 && t.UTC().Year() <= 9999 }

func missing(field string) error {
	return muster.Errorf(muster.Invalid, "%s is empty: engines crash without it", field)
}

// checkURL does not quote the URL, which carries an authorisation.
func checkURL(of, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return muster.Errorf(muster.Invalid, "%s url is not an absolute http or https URL", of)
	}
	return nil
}

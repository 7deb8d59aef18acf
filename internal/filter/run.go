package filter

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/vm"
)

// run is what expressions see: its fields with the tag expr are the variables,
// its exported methods the functions. A field that is missing or of another
// type is "", 0, false or an empty list.
type run struct {
	UUID            string     `expr:"uuid"`
	Scenario        string     `expr:"scenario"`
	ScenarioHash    string     `expr:"scenario_hash"`
	ScenarioVersion string     `expr:"scenario_version"`
	ScenarioTrust   string     `expr:"scenario_trust"`
	Signal          string     `expr:"kind"`
	Message         string     `expr:"message"`
	MachineID       string     `expr:"machine_id"`
	CreatedAt       string     `expr:"created_at"`
	StartAt         string     `expr:"start_at"`
	StopAt          string     `expr:"stop_at"`
	Source          source     `expr:"source"`
	Decisions       []decision `expr:"decisions"`
	Context         []entry    `expr:"context"`

	// The names of these two in expr's own library.
	LowerText func(string) (string, error) `expr:"lower"`
	UpperText func(string) (string, error) `expr:"upper"`

	set     *Set
	vm      vm.VM
	stale   bool   // the fields are of another signal
	tooLong string // the path of a text above maxText, or ""
	left    int    // of maxWork
}

type source struct {
	Scope     string  `expr:"scope"`
	Value     string  `expr:"value"`
	IP        string  `expr:"ip"`
	Range     string  `expr:"range"`
	Country   string  `expr:"cn"`
	ASName    string  `expr:"as_name"`
	ASNumber  string  `expr:"as_number"`
	Latitude  float64 `expr:"latitude"`
	Longitude float64 `expr:"longitude"`
}

type decision struct {
	UUID      string  `expr:"uuid"`
	ID        float64 `expr:"id"`
	Origin    string  `expr:"origin"`
	Duration  string  `expr:"duration"`
	Scope     string  `expr:"scope"`
	Type      string  `expr:"type"`
	Value     string  `expr:"value"`
	Scenario  string  `expr:"scenario"`
	Simulated bool    `expr:"simulated"`
	Until     string  `expr:"until"`
}

type entry struct {
	Key   string `expr:"key"`
	Value string `expr:"value"`
}

// usedField is a field of signalFields that some expression uses.
type usedField struct{ index, slot int }

// signalFields are the variables with where they are in a signal.
var signalFields = []struct {
	path string
	set  func(r *run, f *frame, x *value)
}{
	{"uuid", func(r *run, _ *frame, x *value) { r.UUID = r.text(x, "uuid") }},
	{"scenario", func(r *run, _ *frame, x *value) { r.Scenario = r.text(x, "scenario") }},
	{"scenario_hash", func(r *run, _ *frame, x *value) { r.ScenarioHash = r.text(x, "scenario_hash") }},
	{"scenario_version", func(r *run, _ *frame, x *value) { r.ScenarioVersion = r.text(x, "scenario_version") }},
	{"scenario_trust", func(r *run, _ *frame, x *value) { r.ScenarioTrust = r.text(x, "scenario_trust") }},
	{"kind", func(r *run, _ *frame, x *value) { r.Signal = r.text(x, "kind") }},
	{"message", func(r *run, _ *frame, x *value) { r.Message = r.text(x, "message") }},
	{"machine_id", func(r *run, _ *frame, x *value) { r.MachineID = r.text(x, "machine_id") }},
	{"created_at", func(r *run, _ *frame, x *value) { r.CreatedAt = r.text(x, "created_at") }},
	{"start_at", func(r *run, _ *frame, x *value) { r.StartAt = r.text(x, "start_at") }},
	{"stop_at", func(r *run, _ *frame, x *value) { r.StopAt = r.text(x, "stop_at") }},
	{"source.scope", func(r *run, _ *frame, x *value) { r.Source.Scope = r.text(x, "source.scope") }},
	{"source.value", func(r *run, _ *frame, x *value) { r.Source.Value = r.text(x, "source.value") }},
	{"source.ip", func(r *run, _ *frame, x *value) { r.Source.IP = r.text(x, "source.ip") }},
	{"source.range", func(r *run, _ *frame, x *value) { r.Source.Range = r.text(x, "source.range") }},
	{"source.cn", func(r *run, _ *frame, x *value) { r.Source.Country = r.text(x, "source.cn") }},
	{"source.as_name", func(r *run, _ *frame, x *value) { r.Source.ASName = r.text(x, "source.as_name") }},
	{"source.as_number", func(r *run, _ *frame, x *value) {
		r.Source.ASNumber = r.text(x, "source.as_number")
		if x.kind == kindNumber { // of clients that are no engines
			r.Source.ASNumber = x.text
		}
	}},
	{"source.latitude", func(r *run, _ *frame, x *value) { r.Source.Latitude = x.number }},
	{"source.longitude", func(r *run, _ *frame, x *value) { r.Source.Longitude = x.number }},
	{"decisions", (*run).readDecisions},
	{"context", (*run).readContext},
}

func newRun(s *Set) *run {
	r := &run{set: s, stale: true, vm: vm.VM{MemoryBudget: maxElements}}
	r.LowerText, r.UpperText = r.Lower, r.Upper
	return r
}

// fill takes over the signal that f has read.
func (r *run) fill(f *frame) {
	r.stale, r.tooLong = false, ""
	for _, used := range r.set.fields {
		signalFields[used.index].set(r, f, &f.views[0].slots[used.slot])
	}
}

func (r *run) text(x *value, path string) string {
	if x.kind != kindString {
		return ""
	}
	if len(x.text) > maxText && r.tooLong == "" {
		r.tooLong = path
	}
	return x.text
}

var decisionPaths = []string{"uuid", "id", "origin", "duration", "scope", "type", "value", "scenario", "simulated", "until"}

func (r *run) readDecisions(f *frame, x *value) {
	r.Decisions = r.Decisions[:0]
	v := &f.views[r.set.decisions.index]
	for member := range x.members() {
		if member.kind != kindObject {
			continue
		}
		r.set.decisions.read(member.text, v)
		text := func(i int) string { return r.text(&v.slots[i], "decisions") }
		r.Decisions = append(r.Decisions, decision{
			UUID: text(0), ID: v.slots[1].number, Origin: text(2), Duration: text(3), Scope: text(4),
			Type: text(5), Value: text(6), Scenario: text(7), Simulated: v.slots[8].bool, Until: text(9),
		})
	}
}

var contextPaths = []string{"key", "value"}

func (r *run) readContext(f *frame, x *value) {
	r.Context = r.Context[:0]
	v := &f.views[r.set.context.index]
	for member := range x.members() {
		if member.kind != kindObject {
			continue
		}
		r.set.context.read(member.text, v)
		r.Context = append(r.Context, entry{Key: r.text(&v.slots[0], "context"), Value: r.text(&v.slots[1], "context")})
	}
}

var errWork = errors.New("the expression does too much for this signal")

// spend takes work from what is left.
func (r *run) spend(work int) error {
	if r.left -= work; r.left < 0 {
		return errWork
	}
	return nil
}

// Tick is put into every loop.
func (r *run) Tick() (bool, error) { return true, r.spend(tickCost) }

// Concat is what + becomes between texts.
func (r *run) Concat(a, b string) (string, error) {
	if err := r.spend(len(a) + len(b)); err != nil {
		return "", err
	}
	return a + b, nil
}

// The engine's helpers, as far as they are pure, under its names.

func (r *run) Lower(s string) (string, error)    { return strings.ToLower(s), r.spend(len(s)) }
func (r *run) Upper(s string) (string, error)    { return strings.ToUpper(s), r.spend(len(s)) }
func (r *run) TrimSpace(s string) string         { return strings.TrimSpace(s) }
func (r *run) Trim(s, cut string) string         { return strings.Trim(s, cut) }
func (r *run) TrimLeft(s, cut string) string     { return strings.TrimLeft(s, cut) }
func (r *run) TrimRight(s, cut string) string    { return strings.TrimRight(s, cut) }
func (r *run) TrimPrefix(s, part string) string  { return strings.TrimPrefix(s, part) }
func (r *run) TrimSuffix(s, part string) string  { return strings.TrimSuffix(s, part) }
func (r *run) Index(s, part string) int          { return strings.Index(s, part) }
func (r *run) IndexAny(s, chars string) int      { return strings.IndexAny(s, chars) }
func (r *run) Fields(s string) ([]string, error) { return strings.Fields(s), r.spend(16 * len(s)) }

// Split cuts s at each separator.
func (r *run) Split(s, separator string) ([]string, error) {
	if err := r.spend(16 * (len(s) + 1)); err != nil {
		return nil, err
	}
	return strings.Split(s, separator), nil
}

// Join writes parts with a separator between them.
func (r *run) Join(parts []string, separator string) (string, error) {
	size := 0
	for _, part := range parts {
		size += len(part) + len(separator)
	}
	if err := r.spend(size); err != nil {
		return "", err
	}
	return strings.Join(parts, separator), nil
}

// ReplaceAll replaces each old in s.
func (r *run) ReplaceAll(s, old, replacement string) (string, error) {
	if err := r.spend(len(s) + (strings.Count(s, old)+1)*len(replacement)); err != nil {
		return "", err
	}
	return strings.ReplaceAll(s, old, replacement), nil
}

// Atof reads a number; what is none is 0, as in the engine.
func (r *run) Atof(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0
	}
	return f
}

// ToString writes a text, number or boolean; anything else is "".
func (r *run) ToString(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case int, float64, bool:
		return fmt.Sprint(v), r.spend(32)
	}
	return "", nil
}

// Match tells whether name is what pattern says, where * stands for any number
// of characters, / among them, and ? for one.
func (r *run) Match(pattern, name string) (bool, error) {
	if err := r.spend(len(pattern) + len(name)); err != nil {
		return false, err
	}
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			if err := r.spend(n - mark + 1); err != nil {
				return false, err
			}
			mark++
			p, n = star+1, mark
		default:
			return false, nil
		}
	}
	return strings.Trim(pattern[p:], "*") == "", nil
}

// helperAddr reads an address as the engine does: ::ffff:192.0.2.1 is IPv4.
func helperAddr(s string) netip.Addr { return parseAddr(s).Unmap() }

// IsIP tells whether s is an address.
func (r *run) IsIP(s string) bool { return helperAddr(s).IsValid() }

// IsIPV4 tells whether s is an IPv4 address.
func (r *run) IsIPV4(s string) bool { return helperAddr(s).Is4() }

// IsIPV6 tells whether s is an IPv6 address.
func (r *run) IsIPV6(s string) bool { return helperAddr(s).Is6() }

// IpInRange tells whether an address is in a network; false when either is none.
func (r *run) IpInRange(ip, network string) bool { //nolint:revive // the engine's name
	prefix, err := parseNetwork(network)
	return err == nil && unmapNetwork(prefix).Contains(helperAddr(ip))
}

// IpToRange returns the network of a length, as 24 or /24, around an address, or
// "" when either is none.
func (r *run) IpToRange(ip, length string) string { //nolint:revive // the engine's name
	addr := helperAddr(ip)
	bits, err := strconv.Atoi(strings.TrimPrefix(length, "/"))
	if err != nil || !addr.IsValid() {
		return ""
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return ""
	}
	return prefix.String()
}

// InList tells whether s, a text or an address, is in a named list.
func (r *run) InList(s, name string) bool {
	list, ok := lookup(r.set.lists, name)
	return ok && list.Holds(s, parseAddr(s))
}

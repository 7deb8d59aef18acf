package filter

import "github.com/expr-lang/expr/vm"

// run is what expressions see: its exported fields are the variables and the
// functions. What the signal lacks, or has in another type, is "", 0, false or
// an empty list.
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

	helpers

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
	r.helpers = r.newHelpers()
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

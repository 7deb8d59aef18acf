package wire

import "time"

// Bounds of one signals request, besides the number of items that the caller
// gives.
const (
	// MaxDepth is how deep JSON may be nested, the top-level array included.
	MaxDepth = 64
	// MaxDecisions is how many decisions of one signal are materialised in
	// Signal.First; all are counted and kept raw.
	MaxDecisions = 16
)

// Signal is one report as it came over POST /signals. Absent, null and empty
// are the same for every field. Context, Decisions and strings without JSON
// escapes alias the request body: they are valid until the body is reused. First
// is valid, like the Signal itself, until the next one is decoded.
type Signal struct {
	UUID            string // the alert's uuid; any text, absent over v2
	Scenario        string
	ScenarioHash    string
	ScenarioVersion string
	ScenarioTrust   string // "certified", "custom", "tainted", "manual"; see muster.ParseScenarioTrust
	Kind            string
	Message         string
	MachineID       string    // the log processor inside the engine, not the account
	CreatedAt       time.Time // UTC; zero when absent or unreadable, like the next two
	StartAt         time.Time
	StopAt          time.Time
	Source          SignalSource
	Context         []byte // raw JSON array of {key,value}, valid UTF-8; nil when empty
	Decisions       []byte // raw JSON array, valid UTF-8; nil when empty

	DecisionCount int
	Ban           bool       // at least one decision is a ban and not simulated
	First         []Decision // the first MaxDecisions decisions
}

// SignalSource is where a signal says that the attack came from.
type SignalSource struct {
	Scope, Value string // both may be empty (imports)
	IP           string // equals Value for any scope in practice, so may be no address
	Range        string
	Country      string // "cn" on the wire
	ASName       string
	ASNumber     uint32 // zero when absent or unreadable; sent as a string or a number
}

// Decision is what an engine did about a source.
type Decision struct {
	UUID, Origin, Scope, Type, Value, Scenario string
	Duration                                   string // see ParseDuration
	Simulated                                  bool
}

// Problem says why one item of a batch is unusable.
type Problem struct {
	Code   ProblemCode
	Reason string // for the client: names the field and the JSON type that came
}

// ProblemCode is a constant fit for a metric label.
type ProblemCode string

// The problems of shape; problems of content are found by admission.
const (
	NotObject ProblemCode = "not_object" // the item is no JSON object
	WrongType ProblemCode = "wrong_type" // a field has a JSON type that it cannot have
)

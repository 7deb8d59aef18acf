package muster

import "time"

// Audience says whom a listing is for: "" is the whole network, anything else
// the organisation whose fleet it protects.
type Audience string

// Network is the audience of the community blocklist.
const Network Audience = ""

// Verdict is the judgement on one source for one audience, with its reasons.
type Verdict struct {
	Source   Source
	Audience Audience
	Listed   bool
	Scenario string    // the behaviour that weighs most, named to readers
	Since    time.Time // when it was listed
	Until    time.Time // when it lapses unless new evidence comes
	Changed  time.Time // when this judgement was made; readers follow changes by it
	Reasons  Reasons
}

// Reasons explains a verdict without naming reporters.
type Reasons struct {
	Machines      int      `json:"machines"`      // distinct machines within the window
	Organisations int      `json:"organisations"` // distinct organisations within the window
	Scenarios     []string `json:"scenarios"`     // most reported first, at most 8
	First         int64    `json:"first"`         // first report held as evidence, Unix seconds
	Last          int64    `json:"last"`          // last report, Unix seconds
	Rule          string   `json:"rule"`          // what decided, in words
}

// EvidenceRow is the stored form of what consensus remembers about a source.
type EvidenceRow struct {
	Partition uint8
	Source    Source
	Last      time.Time // latest report, for retention
	Data      []byte    // consensus's own binary form
}

package muster

import "time"

// Audience says whom a listing is for: "" is the whole network, anything else
// the organisation whose fleet it protects.
type Audience string

// Network is the audience of the community blocklist.
const Network Audience = ""

// Remedy is what readers should do with a listed source.
type Remedy string

// The remedies.
const (
	RemedyBan     Remedy = "ban"
	RemedyCaptcha Remedy = "captcha" // for sources that many people share
)

// Verdict is the judgement on one source for one audience, with its reasons.
type Verdict struct {
	Source   Source
	Audience Audience
	Listed   bool
	Remedy   Remedy    // while it is listed
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

	Basis       string  `json:"basis,omitempty"`       // what decided, as a word for programs
	Never       string  `json:"never,omitempty"`       // why it is never listed
	Local       bool    `json:"local,omitempty"`       // the network is too small or young for earned trust
	Shared      bool    `json:"shared,omitempty"`      // more was asked for: many sit behind the source
	Probation   bool    `json:"probation,omitempty"`   // more was asked for: an unban was granted lately
	Support     float32 `json:"support,omitempty"`     // points
	Threshold   float32 `json:"threshold,omitempty"`   // points that a new listing needs
	Diversity   float32 `json:"diversity,omitempty"`   // effective number of independent groups
	Independent int     `json:"independent,omitempty"` // groups above suspicion
	Needed      int     `json:"needed,omitempty"`      // of those, for a new listing
	Bands       [6]int  `json:"bands,omitzero"`        // machines by rank, 0 to 5
	Honeypots   int     `json:"honeypots,omitempty"`   // of the machines
	Confirmed   bool    `json:"confirmed,omitempty"`   // somebody new saw it after it was listed
	Convictions int     `json:"convictions,omitempty"` // how often it was listed
	Reports     []int   `json:"reports,omitempty"`     // of each of Scenarios
	Epoch       uint64  `json:"epoch,omitempty"`       // of the trust that it was judged with
	Parameters  int     `json:"parameters,omitempty"`  // version of the parameters that it was judged with
}

// BasisOperator is the basis of a listing at an operator's word.
const BasisOperator = "operator"

// OperatorVerdict is a person's word on a source: it stands against whatever
// the crowd says.
type OperatorVerdict struct {
	Source    Source
	Listed    bool      // false: never to be listed
	Remedy    Remedy    // of a listing
	Until     time.Time // zero = for good, which no listing is
	Reason    string
	By        string // user name
	CreatedAt time.Time
}

// EvidenceRow is the stored form of what consensus remembers about a source.
type EvidenceRow struct {
	Partition uint8
	Source    Source
	Last      time.Time // latest report, for retention
	Data      []byte    // consensus's own binary form
}

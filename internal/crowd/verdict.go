package crowd

// Remedy is what readers should do with a listed source.
type Remedy uint8

// The remedies.
const (
	Ban     Remedy = iota
	Captcha        // for shared sources
)

func (r Remedy) String() string {
	if r == Captcha {
		return "captcha"
	}
	return "ban"
}

// Network is the audience of the community list; any other audience is the
// number of the organisation whose fleet it protects.
const Network uint32 = 0

// Verdict is a judgement that differs from the last one for this audience.
type Verdict struct {
	Audience uint32
	Listed   bool
	Remedy   Remedy
	Since    int64 // when it was listed
	Until    int64 // when it lapses without new evidence
	Reasons  Reasons
}

// Rule says what decided a verdict.
type Rule uint8

// The rules. The first four list, the others end a listing.
const (
	ByCrowd     Rule = iota // enough independent voices
	ByHoneypot              // a honeypot and enough support
	ByTopRank               // a machine of the top rank, and an earlier witness
	ByFleet                 // a machine of the same organisation
	Lapsed                  // nobody reported it for long enough
	Unsupported             // those who supported it lost their trust, or left
	Never                   // an allowlist, reserved space
	IsCanary                // known to be good
	Cleared                 // an unban was granted
)

// maxNamed bounds the behaviours that are remembered and named per source.
const maxNamed = 6

// Reasons explains a verdict without naming reporters. Support and thresholds
// are in points: a machine of full trust that reports a certain behaviour now
// is worth 4.
type Reasons struct {
	Rule        Rule
	Never       string // for the rule Never, from Facts
	Local       bool   // local evidence: the network is too young or small for earned trust
	Shared      bool   // the source is shared: more support was asked for
	Probation   bool   // an unban was granted lately: more support was asked for
	Support     float32
	Threshold   float32 // that a new listing needs
	Diversity   float32 // effective number of independent groups (inverse Simpson)
	Independent int     // groups that count: distinct AS (organisations in a small network)
	Needed      int     // that a new listing needs
	Machines    int     // heard, about (exact up to MaxVoices)
	Bands       [6]int  // machines held as evidence, by rank
	Honeypots   int     // sightings by honeypots
	Held        bool    // support is there, but too little of it from machines above suspicion
	Behaviours  []Behaviour
	First, Last int64 // reports held as evidence
}

// Behaviour is one behaviour of a source, with how often it was reported.
type Behaviour struct {
	Index   uint16
	Reports uint16 // stops at 65535
}

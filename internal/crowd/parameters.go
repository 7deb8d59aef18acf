package crowd

import "time"

// Parameters holds every number of the engine. Support and weights are in
// points of log-odds. The zero value of a field is meant as it stands: start
// from Default.
type Parameters struct {
	// Version of the meaning of the numbers; stored with verdicts so that an old
	// one can be explained.
	Version int

	// Support.

	// Threshold is the support that a listing by the crowd needs: e^5 is odds of
	// about 150 to 1.
	Threshold float64
	// Groups is how many independent groups (AS) above suspicion must be heard.
	Groups int
	// MinVoice is the points from which a voice counts as a group or as support
	// of its own: less is an echo of old or doubtful words.
	MinVoice float64
	// SharedFactor multiplies Threshold for sources with many people behind.
	SharedFactor float64
	// ProbationFactor multiplies Threshold within UnbanGrace after an unban.
	ProbationFactor float64
	// HysteresisShare of the threshold ends a listing.
	HysteresisShare float64
	// Decay is the time in which a report's weight falls to 1/e.
	Decay time.Duration
	// SecondInAS and SecondInPrefix are what the second best voice of one AS and
	// of one /24 adds (the third that share of the second, and so on): a crowd in
	// one place is one voice. Of an organisation only the best counts.
	SecondInAS, SecondInPrefix float64
	// Honeypot is the weight of a honeypot's sighting: one is not enough alone.
	Honeypot float64
	// HoneypotSupport is what others must add to a honeypot's sighting.
	HoneypotSupport float64

	// Listings.

	Expiry        time.Duration // without evidence a listing lapses
	ShortExpiry   time.Duration // the same for shared and dynamic sources
	RepeatFactor  float64       // each earlier conviction adds this share of Expiry
	MaxExpiry     time.Duration
	UnbanGrace    time.Duration // after an unban the threshold is raised
	Memory        time.Duration // how long evidence is kept after the last report
	OffenceMemory time.Duration // the same for sources that were listed or unbanned

	// Trust of a machine: t is the lower bound of Beta(a, b), its weight the log
	// odds of t, capped by tenure.

	Prior           float64       // a and b of a machine that nobody knows
	Confidence      float64       // standard deviations below the mean that make the lower bound
	MinTenure       int           // days with reports, below which a machine weighs nothing
	MinValidations  float64       // below which a machine weighs nothing
	Caps            []Cap         // what tenure allows, shortest first
	Drift           float64       // share of the distance to the prior that a day takes
	ValidateAfter   time.Duration // from a report to the question who else saw it
	HoneypotWithin  time.Duration // a honeypot's sighting validates reports this near
	Corroboration   float64       // support by others that makes a full validation
	PartnerShare    float64       // of all that a machine earned, at most this share from one AS …
	PartnerFree     float64       // … but this much from any
	StrikeLoss      float64       // share of a that a canary takes
	StrikeDoubt     float64       // what a canary adds to b
	StrikePause     time.Duration // without any weight, after the first strike
	StrikeAgain     time.Duration // after further strikes within StrikeMemory
	StrikeMemory    time.Duration
	PardonDoubt     float64 // added to b when a crowd shot the canary
	UnbanDoubt      float64 // added to b when an unban of a source that it alone supported proved right
	CompanyDoubt    float64 // added to b when its partners in a conviction turned out liars
	SoloTenure      int     // days for publishing alone
	SoloValidations float64
	SoloBound       float64       // lower bound of t
	SoloPerDay      int           // publications alone
	SoloClean       time.Duration // without any strike

	// Canaries.

	HoldFor         time.Duration // from a report of a canary to the judgement on it
	ExemptAS        int           // independent AS that shoot the same canary are excused …
	ExemptASCertain int           // … and this many, when the behaviour is certain and cannot be forged
	TwitchCut       float64       // how fast a behaviour that shoots canaries loses confidence (cut = n/(n+TwitchCut))
	TwitchDecay     time.Duration

	// Suspicion: a machine or AS under a cloud is heard, but cannot convict
	// without voices that are above suspicion.

	CloudFor        time.Duration // after a pardon, or bad company
	CloudASShare    float64       // share of an AS's machines struck lately that clouds it …
	CloudASMin      int           // … and how many at least
	CloudASFor      time.Duration // how long a strike counts for that
	ConfirmWithin   time.Duration // after a listing, for somebody new to see the source too
	StakeDecay      time.Duration // of the account of convictions that stood and fell
	StakeRatio      float64       // an AS is clouded when this many times more of its convictions stay unconfirmed than elsewhere …
	StakeMin        float64       // … and at least so many
	LopsidedShare   float64       // of the AS that as many reporters should come from: fewer is lopsided
	LopsidedVoices  int           // that it takes to tell
	LopsidedHold    time.Duration // a lopsided crowd is believed only after that
	SmallNeed       int           // newcomers that convict in the smallest network
	SmallNeedMax    int           // and in the largest one without any trust
	SmallSize       int           // organisations up to which a network is small
	SmallTrusted    int           // organisations of earned trust at which newcomers begin to lose weight …
	EnoughTrusted   int           // … and have none any more
	TrustedWeight   float64       // points from which an organisation counts as trusted
	ActiveWithin    time.Duration // a machine heard so lately is active
	RangeMembers    int           // members that convict a /24
	RangeMembersV6  int           // /64s that convict a /56
	RangeGroups     int           // independent groups over all members
}

// Cap limits the weight of machines up to an age.
type Cap struct {
	Days   int     // of tenure, exclusive
	Weight float64 // points
}

// Default returns the parameters in force.
func Default() Parameters { panic("skeleton") }

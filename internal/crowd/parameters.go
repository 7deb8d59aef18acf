package crowd

import "time"

// Parameters holds every number of the engine. Weights and support are in
// points: log-odds, so that independent voices add up. Start from Default; no
// field's zero value means anything but zero.
type Parameters struct {
	// Version names this set of numbers; it is kept with what they decided.
	Version int

	Listing   Listing
	Voices    Voices
	Trust     Earning
	Canary    Punishment
	Suspicion Suspicion
	Small     Small
	Range     Range
}

// Listing says what it takes to be listed, and for how long.
type Listing struct {
	Threshold       float64       // points of support for a new listing; 5 are odds of 150 to 1
	Groups          int           // independent groups above suspicion that must be heard
	MinVoice        float64       // points from which a voice is a group of its own and no echo
	SharedFactor    float64       // times Threshold, for sources with many people behind
	ProbationFactor float64       // times Threshold, within Grace after an unban; in a young network one voice more is enough
	Hysteresis      float64       // share of Threshold that the voices within Expiry must have, each in full, for a listing to go on
	Expiry          time.Duration // without evidence a listing lapses
	ShortExpiry     time.Duration // the same for shared and dynamic sources
	Repeat          float64       // every earlier conviction adds this share of Expiry …
	MaxExpiry       time.Duration // … up to here
	Grace           time.Duration // probation after an unban
	Memory          time.Duration // evidence is kept so long after the last report …
	LongMemory      time.Duration // … and so long for sources that were convicted or unbanned
}

// Voices says what a report is worth and how reports add up.
type Voices struct {
	Decay          time.Duration // in which a report falls to 1/e of its weight
	Confidence     [4]float64    // factor by the confidence of the behaviour
	Spoofable      [4]float64    // factor by how easily its sender is forged
	SecondInAS     float64       // the second best voice of an AS adds this share, the third its square …
	SecondInPrefix float64       // the same within a /24 or /48; of an organisation only the best counts
	Honeypot       float64       // points of a honeypot's sighting: less than Threshold, two in two AS are enough
	Solo           float64       // points that a machine of the top rank needs to list alone
	SoloWitness    bool          // and somebody independent must have seen the source before
}

// Earning says how a machine earns trust. Its bound t is the mean of
// Beta(a, b) less Sigmas standard deviations; its weight ln(t/(1−t)), at most
// what its tenure allows, zero under MinTenure or MinValidations.
type Earning struct {
	Prior           float64       // a and b of a machine that nobody knows
	Sigmas          float64       // how cautious the bound is; 1.28 = right in nine of ten cases
	MinTenure       int           // days with reports
	MinValidations  float64       // reports that others confirmed
	Caps            []Cap         // by tenure, shortest first; the last is for everybody beyond
	Drift           float64       // share of what was earned or lost that a day takes away
	ValidateAfter   time.Duration // from a report to the question who else saw it, and the window for others
	HoneypotWithin  time.Duration // the window for honeypots
	Corroboration   float64       // points by independent others that make one full validation
	PartnerFree     float64       // validations that any one AS may give …
	PartnerShare    float64       // … and the share of all that it may give beyond: no ring raises itself
	SoloTenure      int           // days, for the top rank
	SoloValidations float64       // for the top rank
	SoloBound       float64       // t, for the top rank
	SoloClean       time.Duration // without a strike, for the top rank
	SoloPerDay      int           // listings alone
	UnbanDoubt      float64       // to b, when a source that it alone or mainly got listed was cleared and stayed quiet
	UnbanEvery      time.Duration // at most: else an attacker who gives up addresses ruins those who reported them
}

// Cap limits a weight.
type Cap struct {
	Days   int     // tenure up to and with this many days
	Weight float64 // points
}

// Punishment says what follows the report of a canary.
type Punishment struct {
	Hold            time.Duration // from the report, when the machine loses all weight, to the decision
	Loss            float64       // share of a, of tenure and of validations that a strike takes
	Doubt           float64       // to b
	Pause           time.Duration // without any weight, for a behaviour that is certain; else that share of it
	AgainPause      time.Duration // the same, after a further strike within Again
	Again           time.Duration
	ExemptAS        int     // independent AS that excuse each other: then it was the scenario, or reflected traffic …
	ExemptASCertain int     // … the same for behaviours that are certain and cannot be forged: then the canary does attack
	ExemptSpread    float64 // in any case from this share of the AS that chance would give
	ExemptDoubt     float64 // to b, for the excused
	From            float64 // confidence × (1 − spoofability) under which a shot proves little: no hold, no pause, and of the rest that share to the third
	Certain         float64 // confidence × (1 − spoofability) from which a shot is no mistake but a lie
	TwitchyAS       int     // AS in which a behaviour shoots any canaries within a day or two: then it is broken, and excused …
	TwitchyCut      float64 // … and keeps this share of its confidence meanwhile
	TwitchHalf      float64 // excused shots at which a behaviour has lost half its confidence
	TwitchDecay     time.Duration
}

// Suspicion says when a machine's word, or that of a whole AS, is under a cloud:
// it still adds support, but is no group of its own; others must be heard too.
// It is what holds against sleepers, who have earned their trust: a first lie
// that is found out (a canary) leads to the others of the ring by their AS, by
// whom they had sources listed with, and by what nobody else ever saw. All of it
// is measured against chance, so that large AS are not suspected for being large.
type Suspicion struct {
	Cloud         time.Duration // of a machine that was excused for a canary, or in telling bad company
	CompanyDoubt  float64       // to b, when those with whom it got a source listed turned out liars (once a day)
	StruckFor     time.Duration // how long a lie clouds the AS …
	StruckShare   float64       // … when at least this share of its machines of weight lied
	CompanyMin    float64       // an AS that had so many sources listed with liars is clouded …
	CompanySigmas float64       // … when that is so many standard deviations over chance
	Chance        float64       // of so many liars, or neighbours of liars, among the voices of a listed source: under it they are a gang
	ConfirmWithin time.Duration // after a listing, for somebody new to see the source too
	StakeDecay    time.Duration // of the account of listings that were confirmed or not
	StakeMin      float64       // an AS with so many unconfirmed listings is clouded …
	StakeSigmas   float64       // … when that is so many standard deviations over what is usual
	Lopsided      float64       // a crowd from less than this share of the AS that chance would give is lopsided …
	LopsidedFrom  int           // … from so many machines on …
	LopsidedHold  time.Duration // … and must wait so long
	Ring          float64       // a crowd from less than this share of the AS that chance would give is a ring …
	RingFrom      int           // … from so many machines on: all come under a cloud, and those that were under one lose all weight
	RingPause     time.Duration // for that long, as do gangs in which all are liars' neighbours
	RingDoubt     float64       // to b
	AlarmFrom     int           // AS in which machines were found to lie for the first time within AlarmFor are the tip of a ring …
	AlarmFor      time.Duration
	AlarmMax      int // … and until it is known, so many groups more must be heard, up to here, or a honeypot
}

// Small says what is different while few have earned any trust. Newcomers then
// get weight for nothing: enough that Need of them convict within a day. That
// is safe only as far as somebody chooses who may join; it ends by itself as
// trust is earned.
type Small struct {
	Size          int     // organisations up to which Need newcomers convict
	Need          int     // newcomers of different organisations
	Growth        float64 // times as many organisations ask for one newcomer more …
	NeedMax       int     // … up to here
	Margin        float64 // over Threshold that Need newcomers have together: for the time between them
	TrustedWeight float64 // points from which an organisation counts as trusted
	Trusted       int     // trusted organisations up to which newcomers have all of that weight …
	Enough        int     // … and from which on none: the network is mature
	ActiveWithin  time.Duration
}

// Range says when a whole range is convicted instead of its members.
type Range struct {
	MembersV4 int     // of a /24
	MembersV6 int     // /64s of a /56
	Groups    int     // independent groups over all members
	OneGroup  float64 // share of the members in whose conviction any one group may have a hand
}

// Default returns the numbers in force. The first five of Listing and Voices,
// Caps, Drift and the solo rule are those of the prototype that held in
// simulation; the others are chosen and say why.
func Default() Parameters {
	const day = 24 * time.Hour
	return Parameters{
		Version: 2,
		Listing: Listing{
			Threshold: 5, Groups: 2, MinVoice: 0.5, SharedFactor: 1.5, ProbationFactor: 2,
			Hysteresis: 1. / 3, Expiry: 3 * day, ShortExpiry: day,
			Repeat: 0.5, MaxExpiry: 7 * day, Grace: 7 * day,
			// A week covers the honeypots' window and the validation of the last report.
			Memory: 7 * day, LongMemory: 30 * day,
		},
		Voices: Voices{
			Decay: 3 * day,
			// Gentler than thirds: most web scenarios have confidence 1, and three
			// machines of full trust that agree on one should be enough (3 × 4 × 0.5 = 6).
			Confidence: [4]float64{0, 0.5, 0.8, 1},
			Spoofable:  [4]float64{1, 0.75, 0.5, 0.25},
			SecondInAS: 0.25, SecondInPrefix: 0,
			Honeypot: 4, Solo: 3.5, SoloWitness: true,
		},
		Trust: Earning{
			Prior: 1, Sigmas: 1.28, MinTenure: 7, MinValidations: 6,
			Caps:  []Cap{{30, 1.5}, {90, 2.5}, {120, 3.2}, {1 << 30, 4}},
			Drift: 0.003, ValidateAfter: 3 * day, HoneypotWithin: 7 * day,
			Corroboration: 2.5, PartnerFree: 5, PartnerShare: 1. / 3,
			SoloTenure: 120, SoloValidations: 100, SoloBound: 0.97, SoloClean: 120 * day, SoloPerDay: 20,
			UnbanDoubt: 3, UnbanEvery: 30 * day,
		},
		Canary: Punishment{
			Hold: day, Loss: 0.5, Doubt: 10, Pause: 30 * day, AgainPause: 120 * day, Again: 120 * day,
			// Nobody mistakes a crawler for a password guesser: such a canary must
			// really attack, and then it meets more than a few.
			ExemptAS: 3, ExemptASCertain: 12, ExemptSpread: 0.8, ExemptDoubt: 0.2, From: 0.3, Certain: 0.75, TwitchyAS: 25, TwitchyCut: 0.1, TwitchHalf: 10, TwitchDecay: 30 * day,
		},
		Suspicion: Suspicion{
			Cloud: 7 * day, CompanyDoubt: 0.1,
			StruckFor: 30 * day, StruckShare: 0.01, CompanyMin: 0.5, CompanySigmas: 1, Chance: 0.01,
			ConfirmWithin: day, StakeDecay: 7 * day, StakeMin: 5, StakeSigmas: 3,
			Lopsided: 0.5, LopsidedFrom: 8, LopsidedHold: day,
			Ring: 0.35, RingFrom: 48, RingPause: 30 * day, RingDoubt: 2,
			AlarmFrom: 3, AlarmFor: 2 * day, AlarmMax: 8,
		},
		Small: Small{
			Size: 10, Need: 2, Growth: 3, NeedMax: 6, Margin: 1.2,
			TrustedWeight: 2, Trusted: 3, Enough: 20, ActiveWithin: 30 * day,
		},
		Range: Range{MembersV4: 6, MembersV6: 4, Groups: 4, OneGroup: 2. / 3},
	}
}

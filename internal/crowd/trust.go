package crowd

import (
	"cmp"
	"math"
	"time"
)

// EventKind says what Judge found out about a machine's word.
type EventKind uint8

// The kinds, in the order in which events of one moment apply.
const (
	Validated   EventKind = iota + 1 // others saw what it reported; Amount up to 1
	Confirmed                        // a listing that it supported was confirmed by somebody new
	Unconfirmed                      // … was not
	Solo                             // it had a source listed alone
	Held                             // it reported a canary: no weight until that is judged; Amount as in Struck
	Excused                          // others shot the same canary, or a honeypot saw it
	Struck                           // the report of the canary was its own doing; Amount = how certain it said it was, up to 1
	Company                          // others with whom it had a source listed turned out liars, or a ring; Amount = what that says about it, up to 1
	Colluded                         // it is of a ring: under a cloud, it speaks with others like it and nobody else
	Disproved                        // a source that it alone or mainly had listed was cleared, and stayed quiet; Amount = its share
	Twitched                         // Behaviour (not Machine) shot a canary, excused
)

func (k EventKind) String() string {
	names := [...]string{"none", "validated", "confirmed", "unconfirmed", "solo", "held", "excused", "struck", "company", "colluded", "disproved", "twitched"}
	return names[min(int(k), len(names)-1)]
}

// TrustEvent is something that Judge found out about a machine's word.
type TrustEvent struct {
	Kind      EventKind
	Behaviour uint16
	Machine   uint32
	At        int64
	Amount    float32
	Partners  [4]uint32 // Validated: the groups (AS) that agreed most; 0 = none; honeypots are not named
}

// Compare orders events so that shards may deliver a batch in any order: sort
// the batch with it, then apply.
func Compare(a, b TrustEvent) int {
	c := cmp.Or(
		cmp.Compare(a.At, b.At), cmp.Compare(a.Machine, b.Machine), cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.Behaviour, b.Behaviour), cmp.Compare(a.Amount, b.Amount))
	for i := 0; c == 0 && i < len(a.Partners); i++ {
		c = cmp.Compare(a.Partners[i], b.Partners[i])
	}
	return c
}

// maxPartners is how many AS are remembered as those who confirmed a machine.
const maxPartners = 8

// Partner is an AS that confirmed a machine's reports.
type Partner struct {
	AS     uint32
	Earned float64 // validations that it gave, drifting like Record.Earned
}

// Record is what is known about one machine. It is plain data that the caller
// keeps; the zero Record is of a machine never heard of.
type Record struct {
	Organisation uint32
	AS           uint32 // where it was heard last
	Honeypot     bool
	Blocked      bool // pending, blocked or deleted: no influence
	Tenure       int32
	LastDay      int32 // since 1970, on which it was last heard
	LastHeard    int64
	Earned       float64 // Beta's a less the prior, as of Drifted
	Doubt        float64 // Beta's b less the prior, as of Drifted
	Drifted      int64
	Validations  float64 // all that it earned, but for what strikes took
	Partners     [maxPartners]Partner

	Strikes     int32
	LastStrike  int64
	StruckAt    float32 // its weight when it was held last
	StruckFor   float32 // how certain it said it was, up to 1
	ShotWith    uint16  // the behaviour that it was held for last
	HeldUntil   int64
	PausedUntil int64
	CloudUntil  int64
	LastCompany int64
	LastCleared int64   // last Disproved
	Stood, Fell float64 // listings that it supported and that were confirmed or not, as of Staked
	Shared      float64 // of those, with liars, as of Staked
	Staked      int64
	SoloDay     int32
	Solos       int32 // on SoloDay
}

const daySeconds = 24 * 60 * 60

// Heard notes that an eligible report of the machine arrived: its tenure grows
// on every day on which it is heard. It reports whether that was news that is
// worth keeping.
func (r *Record) Heard(organisation, as uint32, at int64) bool {
	day := int32(at / daySeconds)
	news := day > r.LastDay || organisation != r.Organisation || as != r.AS
	if day > r.LastDay {
		r.Tenure++
		r.LastDay = day
	}
	r.Organisation, r.AS, r.LastHeard = organisation, as, max(r.LastHeard, at)
	return news
}

// Apply notes an event about the machine.
func (r *Record) Apply(e TrustEvent, p *Parameters) {
	late := r.drift(e.At, p) // what an event from before Drifted has lost meanwhile
	amount := float64(e.Amount)
	switch e.Kind {
	case Validated:
		r.validate(e, late, p)
	case Confirmed, Unconfirmed:
		r.stake(e, p)
	case Solo:
		if day := int32(e.At / daySeconds); day > r.SoloDay {
			r.SoloDay, r.Solos = day, 0
		}
		r.Solos++
	case Held:
		r.enterPause(e.At, p)
		r.StruckFor, r.ShotWith = max(r.StruckFor, e.Amount), e.Behaviour
		// Twice the time, so that the decision is never late; it ends the hold.
		r.HeldUntil = max(r.HeldUntil, e.At+2*int64(p.Canary.Hold/time.Second))
	case Excused:
		r.HeldUntil = 0
		r.Doubt += p.Canary.ExemptDoubt * late
		r.CloudUntil = max(r.CloudUntil, e.At+int64(p.Suspicion.Cloud/time.Second))
	case Struck:
		r.strike(e, p)
	case Company:
		r.stake(e, p)
		if e.At-r.LastCompany >= daySeconds {
			r.Doubt += p.Suspicion.CompanyDoubt * amount * late
			r.LastCompany = e.At
		}
		if amount >= 0.5 {
			r.CloudUntil = max(r.CloudUntil, e.At+int64(p.Suspicion.Cloud/time.Second))
		}
	case Colluded:
		r.enterPause(e.At, p)
		r.Doubt += p.Suspicion.RingDoubt * late
		r.PausedUntil = max(r.PausedUntil, e.At+int64(p.Suspicion.RingPause/time.Second))
	case Disproved:
		// Not often: an attacker who gives up many addresses must not ruin those who
		// reported them.
		if e.At-r.LastCleared >= int64(p.Trust.UnbanEvery/time.Second) {
			r.Doubt += p.Trust.UnbanDoubt * amount * late
			r.LastCleared = e.At
		}
	case Twitched: // it is about a behaviour
	}
}

// enterPause notes what the machine has to lose when a pause begins.
func (r *Record) enterPause(at int64, p *Parameters) {
	trust := Rate(r, at, p)
	if !trust.Paused {
		r.StruckAt, r.StruckFor = 0, 0
	}
	r.StruckAt = max(r.StruckAt, trust.Earned)
}

// drift moves what was earned and lost toward nothing, up to a time, and
// returns what remains of something that happened then.
func (r *Record) drift(at int64, p *Parameters) float64 {
	days := float64(at-r.Drifted) / daySeconds
	if days <= 0 {
		return math.Pow(1-p.Trust.Drift, -days)
	}
	keep := math.Pow(1-p.Trust.Drift, days)
	r.Earned *= keep
	r.Doubt *= keep
	for i := range r.Partners {
		r.Partners[i].Earned *= keep
	}
	r.Drifted = at
	return 1
}

// validate adds a validation, as far as those who gave it may still give.
func (r *Record) validate(e TrustEvent, late float64, p *Parameters) {
	partners := 0
	for partners < len(e.Partners) && e.Partners[partners] != 0 {
		partners++
	}
	amount := float64(e.Amount)
	if partners == 0 { // honeypots
		r.Earned += amount * late
		r.Validations += amount
		return
	}
	part := amount / float64(partners)
	for _, as := range e.Partners[:partners] {
		partner := r.partner(as)
		limit := max(p.Trust.PartnerFree, p.Trust.PartnerShare*r.Earned)
		given := min(part*late, max(0, limit-partner.Earned))
		partner.Earned += given
		r.Earned += given
		r.Validations += given / late
	}
}

// partner returns the account of an AS, in place of the smallest when there are
// too many.
func (r *Record) partner(as uint32) *Partner {
	least := &r.Partners[0]
	for i := range r.Partners {
		if r.Partners[i].AS == as {
			return &r.Partners[i]
		}
		if r.Partners[i].Earned < least.Earned {
			least = &r.Partners[i]
		}
	}
	*least = Partner{AS: as}
	return least
}

// strike takes at once what took months to earn.
func (r *Record) strike(e TrustEvent, p *Parameters) {
	pause := p.Canary.Pause
	if r.Strikes > 0 && e.At-r.LastStrike < int64(p.Canary.Again/time.Second) {
		pause = p.Canary.AgainPause
	}
	keep := 1 - p.Canary.Loss*float64(e.Amount)
	r.Earned *= keep
	r.Validations *= keep
	for i := range r.Partners {
		r.Partners[i].Earned *= keep
	}
	r.Tenure = int32(float64(r.Tenure) * keep)
	r.Doubt += p.Canary.Doubt * float64(e.Amount)
	if float64(e.Amount) < p.Canary.From {
		return // packets may be forged: it need not have lied
	}
	r.Strikes++
	r.LastStrike = e.At
	r.HeldUntil = 0
	r.PausedUntil = max(r.PausedUntil, e.At+int64(pause.Seconds()*float64(e.Amount)))
}

// stake notes how a listing that the machine supported went.
func (r *Record) stake(e TrustEvent, p *Parameters) {
	late := 1.0
	if e.At > r.Staked {
		keep := math.Exp(-float64(e.At-r.Staked) / p.Suspicion.StakeDecay.Seconds())
		r.Stood *= keep
		r.Fell *= keep
		r.Shared *= keep
		r.Staked = e.At
	} else {
		late = math.Exp(float64(e.At-r.Staked) / p.Suspicion.StakeDecay.Seconds())
	}
	switch e.Kind {
	case Confirmed:
		r.Stood += late
	case Unconfirmed:
		r.Fell += late
	default:
		r.Shared += late
	}
}

// Trust is what a machine's word is worth at a time.
type Trust struct {
	// Rank: 0 = held, struck, distrusted or blocked; 1 = newcomer; 2 to 4 = some,
	// much, full weight; 5 = may list alone. Honeypots are of rank 5.
	Rank    uint8
	Weight  float32 // points, before the help that newcomers get in a small network
	Earned  float32 // the same, were it not for a pause
	Bound   float32 // lower bound of the probability that its word is right
	Clouded bool    // not above suspicion
	Solo    bool    // may list alone, today
	Paused  bool    // held or struck lately: no weight at all
	Liar    bool    // paused for something that is no mistake, or a neighbour of such a machine
}

// Rate returns what a machine's word is worth at a time.
func Rate(r *Record, now int64, p *Parameters) Trust {
	if r.Blocked {
		return Trust{Paused: true}
	}
	if r.Honeypot {
		return Trust{Rank: 5, Weight: float32(p.Voices.Honeypot), Earned: float32(p.Voices.Honeypot), Bound: 1}
	}
	keep := 1.0
	if days := float64(now-r.Drifted) / daySeconds; days > 0 {
		keep = math.Pow(1-p.Trust.Drift, days)
	}
	a, b := p.Trust.Prior+r.Earned*keep, p.Trust.Prior+r.Doubt*keep
	mean := a / (a + b)
	bound := mean - p.Trust.Sigmas*math.Sqrt(mean*(1-mean)/(a+b+1))
	t := Trust{Bound: float32(max(bound, 0)), Clouded: now < r.CloudUntil}
	t.Paused = now < r.HeldUntil || now < r.PausedUntil
	t.Liar = t.Paused && float64(r.StruckFor) >= p.Canary.Certain
	if mean < 0.4 { // an excuse or two do not make a newcomer a liar
		return t
	}
	t.Rank = 1
	if t.Paused {
		t.Rank = 0
	}
	if bound <= 0.5 || int(r.Tenure) < p.Trust.MinTenure || r.Validations < p.Trust.MinValidations {
		return t
	}
	weight := math.Log(bound / (1 - bound))
	for i, c := range p.Trust.Caps {
		if int(r.Tenure) <= c.Days || i == len(p.Trust.Caps)-1 {
			weight = min(weight, c.Weight)
			break
		}
	}
	t.Earned = float32(weight)
	if t.Paused {
		return t
	}
	t.Weight = t.Earned
	switch {
	case weight <= p.Trust.Caps[0].Weight:
		t.Rank = 2
	case len(p.Trust.Caps) > 1 && weight <= p.Trust.Caps[1].Weight:
		t.Rank = 3
	default:
		t.Rank = 4
	}
	if int(r.Tenure) >= p.Trust.SoloTenure && r.Validations >= p.Trust.SoloValidations && bound >= p.Trust.SoloBound &&
		(r.Strikes == 0 || now-r.LastStrike >= int64(p.Trust.SoloClean/time.Second)) {
		t.Rank = 5
		today := int32(now / daySeconds)
		t.Solo = !t.Clouded && (r.SoloDay < today || int(r.Solos) < p.Trust.SoloPerDay)
	}
	return t
}

// BehaviourRecord is what is known about one behaviour beside its prior: how
// twitchy it is.
type BehaviourRecord struct {
	Shots float64 // canaries that it shot, excused, as of At
	At    int64
}

// Apply notes a Twitched event.
func (r *BehaviourRecord) Apply(e TrustEvent, p *Parameters) {
	if e.At > r.At {
		r.Shots *= math.Exp(-float64(e.At-r.At) / p.Canary.TwitchDecay.Seconds())
		r.Shots += float64(e.Amount)
		r.At = e.At
		return
	}
	r.Shots += float64(e.Amount) * math.Exp(float64(e.At-r.At)/p.Canary.TwitchDecay.Seconds())
}

// Cut returns the share of its confidence that a behaviour keeps.
func (r BehaviourRecord) Cut(now int64, p *Parameters) float64 {
	shots := r.Shots * math.Exp(-max(0, float64(now-r.At))/p.Canary.TwitchDecay.Seconds())
	return p.Canary.TwitchHalf / (p.Canary.TwitchHalf + shots)
}

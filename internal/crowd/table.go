package crowd

import (
	"math"
	"slices"
	"time"
)

// Snapshot is what a TrustTable is made from.
type Snapshot struct {
	Epoch      uint64
	At         int64             // as of when machines are rated
	Records    []Record          // by machine number
	Behaviours []BehaviourRecord // by behaviour number, as far as there are any
	Taxonomy   Taxonomy
	Parameters Parameters
}

// Population counts who is active; what is asked for scales with it.
type Population struct {
	Machines, Organisations, AS int
	Trusted                     int // organisations whose word has earned weight
}

// TrustTable is an immutable snapshot of everybody's trust, and the only thing
// that shards share. It may be minutes old.
type TrustTable struct {
	Epoch      uint64
	At         int64
	Parameters Parameters
	Population Population
	// Newcomer is the weight that machines get before they earned any, in points;
	// 0 in a mature network.
	Newcomer float32
	// Clouded are the AS under a cloud, sorted.
	Clouded []uint32

	ratings []rating // by machine
	unknown rating   // of machines that are newer than the table
	priors  []prior  // by behaviour

	small     bool // independence is counted by organisation
	blind     bool // the caller knows no AS: prefixes stand for them
	local     bool // newcomers have weight
	decay     []uint16
	step      uint32
	inPrefix  [MaxVoices + 1]points // share of the n-th best of a prefix
	inAS      [MaxVoices + 1]points
	probation float64 // times the threshold, after an unban
	liars     float64 // share of voices that are liars or their neighbours
	alarm     int     // groups more that must be heard, while a ring is being found out
	crowd     []int   // how many AS chance gives for 8, 16, 24 … machines

	threshold, lowest, minVoice, honeypot, solo, corroboration points

	validateAfter, honeypotWithin, expiry, hold uint32
}

// rating is a machine in the table.
type rating struct {
	weight  points
	earned  points // weight, were it not for a pause
	rank    uint8
	clouded bool
	solo    bool
	paused  bool
	liar    bool // or neighbour of one
}

// prior is a behaviour in the table: factors in thousandths.
type prior struct {
	static  uint16 // by the taxonomy alone
	now     uint16 // with what it has lost by shooting canaries, and by the size of the network
	trap    uint16 // for honeypots: all that matters is whether the sender is real
	certain bool   // nobody takes it for something else, and its sender is real
	twitchy bool   // it shoots canaries everywhere these days
}

const (
	shareBits = 16
	whole     = 1 << shareBits
)

// NewTrustTable rates every machine.
func NewTrustTable(s Snapshot) *TrustTable {
	p := s.Parameters
	t := &TrustTable{
		Epoch: s.Epoch, At: s.At, Parameters: p,
		ratings:   make([]rating, len(s.Records)),
		threshold: toPoints(p.Listing.Threshold), lowest: toPoints(p.Listing.Threshold * p.Listing.Hysteresis),
		minVoice: toPoints(p.Listing.MinVoice),
		honeypot: toPoints(p.Voices.Honeypot), solo: toPoints(p.Voices.Solo), corroboration: toPoints(p.Trust.Corroboration),
		validateAfter: seconds(p.Trust.ValidateAfter), honeypotWithin: seconds(p.Trust.HoneypotWithin),
		expiry: seconds(p.Listing.Expiry), hold: seconds(p.Canary.Hold),
	}
	networks := t.rate(s)
	hardness := t.measure(s, networks)
	t.fillCrowd(networks)
	t.cloud(s, networks, hardness)
	t.weighBehaviours(s, hardness)
	t.findTwitchy(s)
	t.fillShares(hardness)
	t.fillDecay()
	return t
}

// network sums up the machines of one AS.
type network struct {
	active, trusted, liars int
	lied                   int64 // first, of the liars
	stood, fell, shared    float64
}

// rate fills the ratings and counts who is active.
func (t *TrustTable) rate(s Snapshot) map[uint32]*network {
	networks := make(map[uint32]*network, 512)
	organisations := make(map[uint32]bool, len(s.Records)) // trusted
	since := s.At - int64(t.Parameters.Small.ActiveWithin/time.Second)
	struckSince := s.At - int64(t.Parameters.Suspicion.StruckFor/time.Second)
	for i := range s.Records {
		r := &s.Records[i]
		trust := Rate(r, s.At, &t.Parameters)
		t.ratings[i] = rating{
			weight: toPoints(float64(trust.Weight)), earned: toPoints(float64(trust.Earned)), rank: trust.Rank,
			clouded: trust.Clouded, solo: trust.Solo, paused: trust.Paused, liar: trust.Liar,
		}
		if r.Blocked || r.LastHeard == 0 || r.LastHeard < since {
			continue
		}
		t.Population.Machines++
		if trusted := !r.Honeypot && float64(trust.Weight) >= t.Parameters.Small.TrustedWeight; trusted || !organisations[r.Organisation] {
			organisations[r.Organisation] = trusted
		}
		n := networks[r.AS]
		if n == nil {
			n = &network{}
			networks[r.AS] = n
		}
		n.active++
		if float64(trust.Weight) >= t.Parameters.Listing.MinVoice {
			n.trusted++
		}
		// Those who had no weight to lose say nothing about their neighbours: else
		// anybody could cloud an AS with fresh machines.
		caught := r.LastStrike > struckSince || r.HeldUntil > s.At
		if caught && float64(r.StruckAt) >= t.Parameters.Listing.MinVoice && float64(r.StruckFor) >= t.Parameters.Canary.Certain {
			n.liars++
			lied := s.At
			if r.HeldUntil > s.At {
				lied = min(lied, r.HeldUntil-2*int64(t.hold))
			}
			if r.LastStrike > struckSince {
				lied = min(lied, r.LastStrike-int64(t.hold))
			}
			if r.Strikes > 1 { // its AS is known for it
				lied = 0
			}
			if n.liars == 1 || lied < n.lied {
				n.lied = lied
			}
		}
		if r.Staked == 0 {
			continue
		}
		keep := math.Exp(-max(0, float64(s.At-r.Staked)) / t.Parameters.Suspicion.StakeDecay.Seconds())
		n.stood += r.Stood * keep
		n.fell += r.Fell * keep
		n.shared += r.Shared * keep
	}
	for _, trusted := range organisations {
		t.Population.Organisations++
		if trusted {
			t.Population.Trusted++
		}
	}
	t.Population.AS = len(networks)
	return networks
}

// measure finds out how mature the network is, from 0 to 1, and helps newcomers
// as far as it is not.
func (t *TrustTable) measure(s Snapshot, networks map[uint32]*network) (hardness float64) {
	p := &t.Parameters.Small
	hardness = ramp(float64(t.Population.Trusted), float64(p.Trusted), float64(p.Enough))
	need := float64(p.Need)
	if grown := float64(t.Population.Organisations) / float64(p.Size); grown > 1 {
		need = min(need+math.Log(grown)/math.Log(p.Growth), float64(p.NeedMax))
	}
	newcomer := (1 - hardness) * t.Parameters.Listing.Threshold * p.Margin / need
	t.Newcomer = float32(newcomer)
	// Where there may be no twice as many, one voice more is enough.
	t.probation = hardness*t.Parameters.Listing.ProbationFactor + (1-hardness)*p.Margin*(need+0.5)/need
	t.unknown = rating{weight: toPoints(newcomer), earned: toPoints(newcomer), rank: 1}
	for i := range t.ratings {
		r := &t.ratings[i]
		if s.Records[i].Strikes > 0 || s.Records[i].Blocked {
			continue
		}
		r.earned = max(r.earned, t.unknown.weight)
		if r.rank > 0 {
			r.weight = max(r.weight, t.unknown.weight)
		}
	}
	t.local = hardness < 1
	t.small = hardness < 0.5
	_, unknown := networks[0]
	t.blind = len(networks) == 0 || len(networks) == 1 && unknown
	return hardness
}

// ramp grows from 0 at from to 1 at to, by the logarithm.
func ramp(x, from, to float64) float64 {
	switch {
	case x <= from:
		return 0
	case x >= to:
		return 1
	}
	return math.Log(x/from) / math.Log(to/from)
}

// cloud puts whole AS under a cloud: those where machines of weight were struck
// lately, and those whose listings nobody else confirms.
func (t *TrustTable) cloud(s Snapshot, networks map[uint32]*network, hardness float64) {
	if hardness < 1 {
		return // a few AS may be all there is
	}
	var stood, fell float64
	for _, as := range sortedKeys(networks) {
		stood += networks[as].stood
		fell += networks[as].fell
	}
	var liars []uint32
	p := &t.Parameters.Suspicion
	caught, fresh := 0, 0
	for as, n := range networks {
		caught += n.liars
		if n.liars > 0 && n.lied > s.At-int64(p.AlarmFor/time.Second) {
			fresh++
		}
		if as != 0 && n.liars > 0 && float64(n.liars) >= p.StruckShare*float64(n.trusted+n.liars) {
			liars = append(liars, as)
		}
	}
	slices.Sort(liars)
	if fresh >= p.AlarmFrom {
		t.alarm = min(fresh, p.AlarmMax)
	}
	t.liars = max(t.shareOf(liars, networks, stood+fell), float64(caught)/float64(max(t.Population.Machines, 1)))
	for as, n := range networks {
		_, lied := slices.BinarySearch(liars, as)
		// How much more often than chance would have it they had sources listed with
		// liars, and how much more often than others what nobody confirms.
		met := min(1, 2*t.liars)
		company := n.shared >= p.CompanyMin && exceeds(n.shared, n.fell+n.shared, met, p.CompanySigmas)
		usual := (fell - n.fell + 1) / (stood + fell - n.stood - n.fell + 10)
		alone := n.fell >= p.StakeMin && exceeds(n.fell, n.stood+n.fell, usual, p.StakeSigmas)
		if as != 0 && (lied || company || alone) {
			t.Clouded = append(t.Clouded, as)
		}
	}
	slices.Sort(t.Clouded)
	for i := range t.ratings {
		if _, in := slices.BinarySearch(t.Clouded, s.Records[i].AS); in && !s.Records[i].Honeypot {
			t.ratings[i].clouded, t.ratings[i].solo = true, false
			_, lied := slices.BinarySearch(liars, s.Records[i].AS)
			t.ratings[i].liar = t.ratings[i].liar || lied
		}
	}
}

// shareOf tells how many voices are to be expected from some AS, as a share: by
// their machines, or by the listings that they had a hand in when those are more.
func (t *TrustTable) shareOf(some []uint32, networks map[uint32]*network, all float64) float64 {
	machines, listings := 0, 0.0
	for _, as := range some {
		machines += networks[as].active
		listings += networks[as].stood + networks[as].fell
	}
	return min(1, max(float64(machines)/float64(max(t.Population.Machines, 1)), listings/max(all, 1)))
}

// exceeds reports whether x of n cases are so many standard deviations more than
// expected with probability p each.
func exceeds(x, n, p, sigmas float64) bool { return x-p*n > sigmas*math.Sqrt(n*p*(1-p)) }

func sortedKeys(m map[uint32]*network) []uint32 {
	keys := make([]uint32, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (t *TrustTable) weighBehaviours(s Snapshot, hardness float64) {
	taxonomy := s.Taxonomy
	if len(taxonomy) == 0 {
		taxonomy = Taxonomy{{Confidence: 1}}
	}
	v := &t.Parameters.Voices
	t.priors = make([]prior, max(len(taxonomy), len(s.Behaviours)))
	for i := range t.priors {
		x := taxonomy[0]
		if i < len(taxonomy) {
			x = taxonomy[i]
		}
		confidence, spoofable := v.Confidence[min(x.Confidence, 3)], v.Spoofable[min(x.Spoofable, 3)]
		static := confidence * spoofable
		now := static
		// With few voices there are not enough to ask for more of them, but a
		// behaviour that means nothing stays one, and forged packets stay forged.
		if confidence > 0 {
			now = spoofable * (confidence*hardness + (1 - hardness))
		}
		if i < len(s.Behaviours) {
			now *= s.Behaviours[i].Cut(s.At, &t.Parameters)
		}
		t.priors[i] = prior{
			static: uint16(1000*static + 0.5), now: uint16(1000*now + 0.5), trap: uint16(1000*spoofable + 0.5),
			certain: x.Confidence >= 3 && x.Spoofable == 0,
		}
	}
}

// findTwitchy finds behaviours that have gone wrong everywhere: machines of
// weight are held for them in more AS than one adversary would have, and as many
// as chance would give.
func (t *TrustTable) findTwitchy(s Snapshot) {
	if t.local {
		return
	}
	type shots struct {
		machines int
		networks map[uint32]bool
	}
	held := map[uint16]*shots{}
	for i := range s.Records {
		r := &s.Records[i]
		if r.HeldUntil <= s.At || float64(r.StruckAt) < t.Parameters.Listing.MinVoice || int(r.ShotWith) >= len(t.priors) {
			continue
		}
		x := held[r.ShotWith]
		if x == nil {
			x = &shots{networks: map[uint32]bool{}}
			held[r.ShotWith] = x
		}
		x.machines++
		x.networks[r.AS] = true
	}
	p := &t.Parameters.Canary
	for behaviour, x := range held {
		if len(x.networks) >= p.TwitchyAS && !t.lopsided(x.machines, len(x.networks), p.ExemptSpread) {
			prior := &t.priors[behaviour]
			prior.twitchy = true
			prior.now = uint16(float64(prior.now) * p.TwitchyCut)
		}
	}
}

// fillShares computes what the n-th best voice of a place adds; in a small
// network, where all may sit in one place, as much as the first.
func (t *TrustTable) fillShares(hardness float64) {
	fill := func(shares *[MaxVoices + 1]points, second float64) {
		second = second*hardness + (1 - hardness)
		for n := range shares {
			shares[n] = points(whole*math.Pow(second, float64(n)) + 0.5)
		}
	}
	fill(&t.inAS, t.Parameters.Voices.SecondInAS)
	fill(&t.inPrefix, t.Parameters.Voices.SecondInPrefix)
}

// fillDecay tabulates e^(−age/Decay) down to a thousandth.
func (t *TrustTable) fillDecay() {
	const steps = 2048
	tau := t.Parameters.Voices.Decay.Seconds()
	t.step = max(1, uint32(7*tau/steps))
	t.decay = make([]uint16, steps)
	for i := range t.decay {
		t.decay[i] = uint16((whole - 1) * math.Exp(-float64(i)*float64(t.step)/tau))
	}
}

// crowdStep is the distance of the numbers of machines in TrustTable.crowd.
const crowdStep = 8

// fillCrowd computes from how many AS so many machines come by chance.
func (t *TrustTable) fillCrowd(networks map[uint32]*network) {
	t.crowd = make([]int, 33)
	machines := float64(max(t.Population.Machines, 1))
	none := make([]float64, len(networks)) // probability that an AS has none of them
	step := make([]float64, len(networks))
	for k, as := range sortedKeys(networks) {
		none[k], step[k] = 1, math.Pow(1-float64(networks[as].active)/machines, crowdStep)
	}
	for i := range t.crowd {
		expected := 0.0
		for k := range none {
			expected += 1 - none[k]
			none[k] *= step[k]
		}
		t.crowd[i] = int(expected)
	}
}

// lopsided reports whether so many machines come from fewer AS than a share of
// what chance would give.
func (t *TrustTable) lopsided(machines, as int, share float64) bool {
	if t.local || t.blind || machines < t.Parameters.Suspicion.LopsidedFrom {
		return false
	}
	expected := t.crowd[min(machines/crowdStep, len(t.crowd)-1)]
	return float64(as) < share*float64(expected)
}

// Of returns a machine's trust with all that the network makes of it: the help
// for newcomers and the cloud over its AS.
func (t *TrustTable) Of(machine uint32) Trust {
	r := t.rating(machine)
	return Trust{Rank: r.rank, Weight: r.weight.float(), Clouded: r.clouded, Solo: r.solo, Paused: r.paused, Liar: r.liar}
}

// Hold returns a table of a new epoch in which machines have no weight: what
// follows Held and Colluded events at once, before all are rated again.
func (t *TrustTable) Hold(epoch uint64, machines ...uint32) *TrustTable {
	held := *t
	held.Epoch = epoch
	held.ratings = slices.Clone(t.ratings)
	for _, m := range machines {
		for int(m) >= len(held.ratings) {
			held.ratings = append(held.ratings, t.unknown)
		}
		r := &held.ratings[m]
		r.weight, r.rank, r.solo, r.paused = 0, 0, false, true
	}
	return &held
}

// Fell reports whether a machine lost its weight, or came under a cloud, since
// an earlier table: what stands on its word must be judged again.
func (t *TrustTable) Fell(before *TrustTable, machine uint32) bool {
	is, was := t.rating(machine), before.rating(machine)
	return is.weight == 0 && was.weight > 0 || is.clouded && !was.clouded
}

func (t *TrustTable) rating(machine uint32) *rating {
	if int(machine) < len(t.ratings) {
		return &t.ratings[machine]
	}
	return &t.unknown
}

// Twitchy reports whether a behaviour shoots canaries everywhere these days.
func (t *TrustTable) Twitchy(behaviour uint16) bool { return t.prior(behaviour).twitchy }

func (t *TrustTable) prior(behaviour uint16) *prior {
	if int(behaviour) < len(t.priors) {
		return &t.priors[behaviour]
	}
	return &t.priors[0]
}

func (t *TrustTable) static(behaviour uint16) uint16 { return t.prior(behaviour).static }

// worth is what a voice was worth when it spoke.
func (t *TrustTable) worth(v *voice) points {
	r := t.rating(v.machine)
	if r.paused {
		return 0
	}
	if v.flags&honeypot != 0 {
		return t.honeypot * points(t.prior(v.behaviour).trap) / 1000
	}
	return r.weight * points(t.prior(v.behaviour).now) / 1000
}

func (t *TrustTable) decayed(p points, age uint32) points {
	i := age / t.step
	if int(i) >= len(t.decay) {
		return 0
	}
	return p * points(t.decay[i]) >> shareBits
}

// group is what a voice's independence is told by: its AS, or its prefix where
// no AS is known at all. Voices of unknown AS among known ones are one group.
func (t *TrustTable) group(v *voice) uint32 {
	switch {
	case t.blind:
		return uint32(mix(v.prefix))>>1 | 1
	case v.as == 0:
		return 1<<32 - 1
	}
	return v.as
}

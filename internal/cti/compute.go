package cti

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"muster"
)

// Compute returns what is told about an address. known is false when nobody has
// reported it for three months, it stands on no list and is nothing special.
func (p *Parameters) Compute(v *Vocabulary, e *Evidence) (item Item, known bool) {
	s := p.summarise(v, e)
	p.addVerdict(s, e)
	item = Item{
		IP: e.Addr.Unmap().String(), Reputation: Unknown, Confidence: None, BackgroundNoise: None,
		IPRange24Reputation: Unknown,
		Behaviors:           []Label{}, AttackDetails: []AttackDetail{}, MitreTechniques: []Label{}, CVEs: []string{},
		Classifications: Classifications{FalsePositives: []Label{}, Classifications: []Label{}},
		TargetCountries: map[string]int{}, References: []Label{},
	}
	item.place(e)
	item.neighbours(e)
	item.history(s, e.Now)
	if e.Good != NotGood {
		item.good(v, e)
		return item, true
	}
	listed := e.Listed.Source.IsValid()
	if s.first.IsZero() && !listed {
		return item, false
	}
	item.Scores = p.scores(v, s, e)
	item.Confidence = p.confidence(s, e)
	p.noise(&item, s, e)
	item.attacks(v, s, e)
	item.TargetCountries = p.countries(s)
	if e.banned() {
		item.Classifications.Classifications = append(item.Classifications.Classifications, Label{
			classListed, "Community blocklist", "The address is on the blocklist of this server's network.",
		})
		item.References = append(item.References, Label{"list:" + muster.CommunityList, "Community blocklist", "What the network has convicted."})
	}
	if e.Active < p.NoiseActive {
		item.Classifications.Classifications = append(item.Classifications.Classifications, own[classLocal])
	}
	item.Reputation = p.reputation(&item, s, e)
	return item, true
}

// banned reports whether the address is on the list that readers ban by.
func (e *Evidence) banned() bool {
	return e.Listed.Source.IsValid() && e.Listed.Remedy != muster.RemedyCaptcha
}

// cleared reports whether an unban was granted and nothing has been judged since:
// then nothing of before counts.
func (e *Evidence) cleared() bool {
	return e.Verdict != nil && !e.Verdict.Listed && e.Verdict.Reasons.Basis == "cleared"
}

func pointer[T any](v T) *T { return &v }

func (i *Item) place(e *Evidence) {
	if e.Place.ASN != 0 {
		i.ASNum = pointer(int(e.Place.ASN))
	}
	if e.Place.ASName != "" {
		i.ASName = pointer(e.Place.ASName)
	}
	if e.Place.Country != "" {
		i.Location.Country = pointer(e.Place.Country)
	}
	if e.ReverseDNS != "" {
		i.ReverseDNS = pointer(e.ReverseDNS)
	}
}

// neighbours grades the ranges around the address by how much of them is listed.
func (i *Item) neighbours(e *Evidence) {
	if n := e.Place.Network; n.IsValid() {
		i.IPRange = pointer(n.String())
		i.IPRangeScore = densityScore(e.Around, n)
	}
	if e.Addr.Unmap().Is4() {
		p, _ := e.Addr.Unmap().Prefix(24) // of an IPv4 address there is one
		i.IPRange24 = pointer(p.String())
	}
	i.IPRange24Score = nearScore(e.Near)
	switch {
	case i.IPRange24Score >= 4:
		i.IPRange24Reputation = Malicious
	case i.IPRange24Score >= 2:
		i.IPRange24Reputation = Suspicious
	case i.IPRange24Score == 1:
		i.IPRange24Reputation = Known
	}
}

// nearScore: one listed address makes 1; every doubling from two on adds one.
func nearScore(listed int) int {
	switch {
	case listed <= 0:
		return 0
	case listed < 2:
		return 1
	}
	return min(5, 1+int(math.Log2(float64(listed))))
}

// densityScore grades a range by what share of it is listed: of a /24 as
// nearScore does, and of wider ranges as if it were one on average, rounded up.
func densityScore(listed int, p netip.Prefix) int {
	if listed <= 0 {
		return 0
	}
	wider := float64(24 - p.Bits())
	if p.Addr().Is6() {
		wider = float64(56 - p.Bits())
	}
	return max(1, nearScore(int(math.Ceil(float64(listed)/math.Exp2(max(0, wider))))))
}

const historyForm = "2006-01-02T15:04:05+00:00"

func (i *Item) history(s *summary, now time.Time) {
	if s.first.IsZero() {
		return
	}
	days := func(d time.Duration) int { return max(0, int(d/(24*time.Hour))) }
	i.History = History{
		FirstSeen: pointer(s.first.UTC().Format(historyForm)), LastSeen: pointer(s.last.UTC().Format(historyForm)),
		FullAge: days(now.Sub(s.first)), DaysAge: days(s.last.Sub(s.first)),
	}
}

// good tells of an address that is known to be good, whatever was reported:
// nothing of that is repeated.
func (i *Item) good(v *Vocabulary, e *Evidence) {
	i.Confidence = High
	i.Reputation = Safe
	if scanner, ok := v.scannerClass(e.Why); ok && e.Good == Canary {
		i.Reputation = Benign
		i.Classifications.Classifications = append(i.Classifications.Classifications, scanner)
		return
	}
	class := v.goodClass(e.Good, e.Why)
	i.ProxyOrVPN = class.Name == "proxy:icloud-private-relay"
	i.Classifications.FalsePositives = append(i.Classifications.FalsePositives, class)
}

// addVerdict takes what the judge knew when it last judged: it has seen more of
// those who reported than days keep, and what they have in common.
func (p *Parameters) addVerdict(s *summary, e *Evidence) {
	if e.Verdict == nil || e.cleared() {
		return
	}
	r := &e.Verdict.Reasons
	if r.First > 0 && r.Last >= r.First {
		first, last := time.Unix(r.First, 0).UTC(), time.Unix(r.Last, 0).UTC()
		if oldest := e.Now.Add(-MaxAge); first.Before(oldest) {
			first = oldest
		}
		if last.After(e.Now.Add(-MaxAge)) {
			if s.first.IsZero() || first.Before(s.first) {
				s.first = first
			}
			if last.After(s.last) {
				s.last = last
			}
		}
	}
	if r.Threshold <= 0 || r.Support <= 0 {
		return
	}
	last := time.Unix(r.Last, 0)
	for w, length := range windowLengths {
		if last.Before(e.Now.Add(-length)) {
			continue
		}
		decay := math.Exp2(-max(0, e.Now.Sub(last).Hours()) / p.HalfLife[w].Hours())
		s.evidence[w] = max(s.evidence[w], float64(r.Support/r.Threshold)*decay)
		s.systems[w] = max(s.systems[w], r.Independent)
		s.counts[w] = max(s.counts[w], r.Organisations)
	}
}

func (p *Parameters) scores(v *Vocabulary, s *summary, e *Evidence) Scores {
	var scores [windows]Score
	for w := range windows {
		seen := s.counts[w] > 0
		sc := &scores[w]
		sc.Aggressiveness = p.aggressiveness(s, w)
		sc.Threat = p.threat(v, s, e, w)
		sc.Trust = p.trust(s, e, w)
		if !seen && !e.banned() {
			*sc = Score{}
			continue
		}
		sum, weights := 0., 0.
		for i, part := range [...]int{sc.Aggressiveness, sc.Threat, sc.Trust} {
			sum += p.Weights[i] * float64(part)
			weights += p.Weights[i]
		}
		if weights > 0 {
			sc.Total = min(5, sc.Trust+1, int(sum/weights+0.5))
		}
	}
	return Scores{Overall: scores[overall], LastDay: scores[day], LastWeek: scores[week], LastMonth: scores[month]}
}

func (p *Parameters) aggressiveness(s *summary, w int) int {
	if s.bouts[w] == 0 {
		return 0
	}
	grade := math.Log2(1 + s.bouts[w]/p.Bouts[w])
	if w == day {
		grade *= min(1, float64(s.hours[day])/p.SpreadHours)
	}
	return min(5, max(1, int(grade+0.5)))
}

// threat is that of the worst that was reported by two organisations, or by one
// whose word is enough; what one alone says counts for less.
func (p *Parameters) threat(v *Vocabulary, s *summary, e *Evidence, w int) int {
	worst := 0
	for i := range s.behaviours {
		a := &s.behaviours[i]
		if a.by[w] == 0 {
			continue
		}
		severity := p.severity(a.name)
		if a.by[w] < 2 && !a.believed[w] {
			severity = min(severity, p.Alone)
		}
		worst = max(worst, severity)
	}
	if e.banned() {
		for _, b := range v.scenario(e.Listed.Scenario).Behaviours {
			worst = max(worst, p.severity(b))
		}
		worst = max(worst, 1)
	}
	for i := range s.scenarios {
		if a := &s.scenarios[i]; a.by[w] >= p.MassCVE && len(v.scenario(a.name).CVEs) > 0 {
			return min(5, worst+1)
		}
	}
	return worst
}

func (p *Parameters) severity(behaviour string) int {
	if behaviour == "" {
		return p.Unclassified
	}
	if n, ok := p.Severity[behaviour]; ok {
		return n
	}
	for i := range behaviour {
		if behaviour[i] == ':' {
			if n, ok := p.Severity[behaviour[i+1:]]; ok {
				return n
			}
		}
	}
	return p.Unclassified
}

// trust grades the evidence: 5 × (1 − e^(−k·E)), where k makes what would just be
// listed TrustAtThreshold.
func (p *Parameters) trust(s *summary, e *Evidence, w int) int {
	k := -math.Log(1 - p.TrustAtThreshold/5)
	grade := int(5*(1-math.Exp(-k*s.evidence[w])) + 0.5)
	if s.systems[w] < 2 {
		grade--
	}
	if e.Now.Sub(s.first) < p.Fresh {
		grade--
	}
	if e.banned() && !s.last.Before(e.Now.Add(-windowLengths[w])) {
		grade = max(grade, int(p.TrustAtThreshold))
	}
	return min(5, max(0, grade))
}

func (p *Parameters) confidence(s *summary, e *Evidence) Level {
	best := 0.
	for w := range windows {
		best = max(best, s.evidence[w])
	}
	level := None
	for i, l := range [...]Level{Low, Medium, High} {
		if best >= p.Confident[i] {
			level = l
		}
	}
	if e.banned() && level != High {
		level = Medium
	}
	if level == High && (s.systems[overall] < 2 || e.Active < p.NoiseActive) {
		level = Medium // nobody else could contradict
	}
	return level
}

// noise grades how much an address is what everybody sees: many organisations,
// nothing worse than guessing, and steadily.
func (p *Parameters) noise(i *Item, s *summary, e *Evidence) {
	if s.counts[week] == 0 || s.hours[week] == 0 {
		return
	}
	breadth := min(1, float64(s.counts[week])/max(p.NoiseLeast, p.NoiseShare*float64(e.Active)))
	mildness := 1.
	if i.Scores.LastWeek.Threat > p.MildThreat {
		mildness = p.Unmild
	}
	steadiness := min(1, float64(s.hours[week])/max(24, s.span))
	// A scan that comes by a few times a day everywhere is steady too.
	score := int(10*breadth*mildness*math.Sqrt(steadiness) + 0.5)
	if e.Active < p.NoiseActive {
		score = min(score, 6)
	}
	i.BackgroundNoiseScore = &score
	switch {
	case score >= 7:
		i.BackgroundNoise = High
	case score >= 4:
		i.BackgroundNoise = Medium
	case score >= 1:
		i.BackgroundNoise = Low
	}
}

// maxDetails bounds the scenarios that are named.
const maxDetails = 32

func (i *Item) attacks(v *Vocabulary, s *summary, e *Evidence) {
	byWeight := func(a, b attack) int {
		return cmp.Or(cmp.Compare(b.signals, a.signals), cmp.Compare(a.name, b.name))
	}
	slices.SortFunc(s.scenarios, byWeight)
	slices.SortFunc(s.behaviours, byWeight)
	names := make([]string, 0, len(s.scenarios))
	for n := range s.scenarios {
		if s.scenarios[n].window < windows {
			names = append(names, s.scenarios[n].name)
		}
	}
	if listed := e.Listed.Scenario; listed != "" && !slices.Contains(names, listed) {
		names = append(names, listed)
	}
	names = names[:min(len(names), maxDetails)]
	addBehaviour := func(name string) {
		l := wordOf(v.behaviours, name)
		if name != "" && !slices.Contains(i.Behaviors, l) {
			i.Behaviors = append(i.Behaviors, l)
		}
	}
	for n := range s.behaviours {
		if s.behaviours[n].window < windows {
			addBehaviour(s.behaviours[n].name)
		}
	}
	for _, name := range names {
		known := v.scenario(name)
		i.AttackDetails = append(i.AttackDetails, AttackDetail{Label: known.Label, References: []string{}})
		for _, b := range known.Behaviours {
			addBehaviour(b)
		}
		for _, id := range known.Techniques {
			if l := wordOf(v.techniques, id); !slices.Contains(i.MitreTechniques, l) {
				i.MitreTechniques = append(i.MitreTechniques, l)
			}
		}
		for _, cve := range known.CVEs {
			if !slices.Contains(i.CVEs, cve) {
				i.CVEs = append(i.CVEs, cve)
			}
		}
	}
}

// countries returns from where most reported, in percent of the organisations of
// which it is known. Countries of few are left out, because who reports is
// nobody's business.
func (p *Parameters) countries(s *summary) map[string]int {
	counts, all := map[[2]byte]int{}, 0
	for i := range s.reporters {
		if c := s.reporters[i].country; c[0] != 0 {
			counts[c]++
			all++
		}
	}
	type country struct {
		code [2]byte
		n    int
	}
	var list []country
	for code, n := range counts {
		if n >= p.CountryLeast {
			list = append(list, country{code, n})
		}
	}
	slices.SortFunc(list, func(a, b country) int {
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(string(a.code[:]), string(b.code[:])))
	})
	percent := map[string]int{}
	for _, c := range list[:min(len(list), p.Countries)] {
		percent[string(c.code[:])] = (100*c.n + all/2) / all
	}
	return percent
}

func (p *Parameters) reputation(i *Item, s *summary, e *Evidence) Reputation {
	total, believed := i.Scores.Overall.Total, i.Confidence == High || i.Confidence == Medium
	switch {
	case e.banned(), total >= p.MaliciousTotal && believed:
		return Malicious
	case e.Listed.Source.IsValid(), total >= p.SuspiciousTotal, s.counts[overall] >= p.SuspiciousFrom:
		return Suspicious
	}
	return Known
}

// About returns what is known about a scenario, and how bad it is, 0 to 5.
func (v *Vocabulary) About(scenario string, p *Parameters) (known Scenario, threat int) {
	known = v.scenario(scenario)
	threat = p.Unclassified
	if len(known.Behaviours) > 0 {
		threat = 0
	}
	for _, b := range known.Behaviours {
		threat = max(threat, p.severity(b))
	}
	return known, threat
}

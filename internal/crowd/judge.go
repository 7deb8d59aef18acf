package crowd

import (
	"cmp"
	"slices"
)

// granularity is by how much a listing's end must move, in seconds, before it
// is told again: readers are sent whole hours, so every report need not rewrite
// the published list.
const granularity = 60 * 60

// Outcome collects what judgements bring about; the caller empties and reuses
// it.
type Outcome struct {
	Verdicts []Verdict
	Events   []TrustEvent
}

// Reset empties o and keeps its memory.
func (o *Outcome) Reset() { o.Verdicts, o.Events = o.Verdicts[:0], o.Events[:0] }

// Judge judges a source at a time, settles what has become due, and appends the
// verdicts that changed and the events about machines to out. It is to be asked
// after reports, at the time that Due tells, and when facts or the trust of its
// voices changed (TrustTable.Fell).
func (t *TrustTable) Judge(ev *Evidence, now int64, f Facts, out *Outcome) {
	at := max(clock(now), 1)
	t.mark(ev, f)
	t.settle(ev, at, f, out)
	var c choir
	c.gather(t, ev, at)
	d := t.decide(ev, at, f, &c)
	switch {
	case d.rule != Waiting:
		ev.reached = 0
	case ev.reached == 0:
		ev.reached = at
	}

	var wanted [MaxVoices + 2]standing
	n := 0
	if d.lists() {
		remedy := Ban
		if f.Shared {
			remedy = Captcha
		}
		wanted[0] = standing{audience: Network, until: d.until, remedy: remedy}
		n = 1
	}
	if f.Never == "" && !ev.canary {
		n = t.fleets(ev, at, &wanted, n)
	}
	t.tell(ev, at, f, &c, d, wanted[:n], out)
}

// mark notes whether the source is a canary: then every voice is kept until it
// is judged, and the crowd's opinion does not matter.
func (t *TrustTable) mark(ev *Evidence, f Facts) {
	if ev.canary && !f.Canary {
		slices.SortStableFunc(ev.voices, func(a, b voice) int { return cmp.Compare(b.counted, a.counted) })
		ev.voices = ev.voices[:min(len(ev.voices), MaxVoices)]
	}
	ev.canary = f.Canary
}

// fleets appends the organisations whose own machines reported the source,
// sorted.
func (t *TrustTable) fleets(ev *Evidence, at uint32, wanted *[MaxVoices + 2]standing, n int) int {
	network := n
	for i := range ev.voices {
		v := &ev.voices[i]
		if v.fleet == 0 || v.organisation == 0 || at >= v.fleet+t.expiry {
			continue
		}
		k := network
		for k < n && wanted[k].audience < v.organisation {
			k++
		}
		if k < n && wanted[k].audience == v.organisation {
			wanted[k].until = max(wanted[k].until, v.fleet+t.expiry)
			continue
		}
		copy(wanted[k+1:n+1], wanted[k:n])
		wanted[k] = standing{audience: v.organisation, until: v.fleet + t.expiry}
		n++
	}
	return n
}

// tell compares what is wanted with what stands, and appends what changed.
func (t *TrustTable) tell(ev *Evidence, at uint32, f Facts, c *choir, d decision, wanted []standing, out *Outcome) {
	i := 0 // in what stands
	for k := range wanted {
		w := &wanted[k]
		for i < len(ev.standing) && ev.standing[i].audience < w.audience {
			t.end(ev, &ev.standing[i], at, f, c, d, out)
			i++
		}
		if i < len(ev.standing) && ev.standing[i].audience == w.audience {
			st := &ev.standing[i]
			i++
			w.since, w.told = st.since, st.told
			if w.until >= st.told && w.until-st.told < granularity && w.remedy == st.remedy {
				continue // it stands as told
			}
		} else {
			w.since = at
			if w.audience == Network {
				t.convict(ev, at, c, d, out)
			}
		}
		w.told = w.until
		out.Verdicts = append(out.Verdicts, Verdict{
			Audience: w.audience, Listed: true, Remedy: w.remedy, Since: int64(w.since), Until: int64(w.until),
			Reasons: t.reasons(ev, f, c, d, w.audience),
		})
	}
	for ; i < len(ev.standing); i++ {
		t.end(ev, &ev.standing[i], at, f, c, d, out)
	}
	if !slices.Equal(ev.standing, wanted) {
		ev.standing = append(ev.standing[:0], wanted...)
	}
}

// convict notes who answers for a new listing of the network.
func (t *TrustTable) convict(ev *Evidence, at uint32, c *choir, d decision, out *Outcome) {
	for i := range ev.voices {
		ev.voices[i].flags &^= backed
	}
	for i := range c.parts[:c.n] {
		// Those under a cloud did not bring it about: it needed others.
		if m := &c.parts[i]; m.points >= t.minVoice && m.clear {
			ev.voices[m.voice].flags |= backed
		}
	}
	ev.confirmed, ev.tainted, ev.confirmBy = false, false, at+seconds(t.Parameters.Suspicion.ConfirmWithin)
	if ev.convictions < 255 {
		ev.convictions++
	}
	if d.rule == ByTopRank {
		out.Events = append(out.Events, TrustEvent{Kind: Solo, Machine: ev.voices[d.solo].machine, At: int64(at)})
	}
}

// end tells that a listing is over.
func (t *TrustTable) end(ev *Evidence, st *standing, at uint32, f Facts, c *choir, d decision, out *Outcome) {
	switch {
	case f.Canary:
		d.rule = IsCanary
	case f.Never != "":
		d.rule = Never
	case st.audience == Network && ev.unbanned >= st.since:
		d.rule = Cleared
	case st.until <= at:
		d.rule = Lapsed
	default:
		d.rule = Unsupported
	}
	out.Verdicts = append(out.Verdicts, Verdict{
		Audience: st.audience, Listed: false, Remedy: st.remedy, Since: int64(st.since), Until: int64(st.told),
		Reasons: t.reasons(ev, f, c, d, d.audience(st.audience)),
	})
}

// decision is what the network thinks of a source.
type decision struct {
	rule        Rule
	support     points
	threshold   points
	independent int
	needed      int
	solo        int    // for ByTopRank: the voice
	until       uint32 // when a listing would end
	probation   bool
}

func (d decision) lists() bool {
	return d.rule == ByCrowd || d.rule == ByHoneypot || d.rule == ByTopRank || d.rule == Standing
}

// audience returns whose reasons are to be told at the end of a listing: a rule
// that holds for all holds for fleets.
func (d decision) audience(of uint32) uint32 {
	if d.rule == IsCanary || d.rule == Never {
		return Network
	}
	return of
}

// decide finds out what the network thinks, without changing anything.
func (t *TrustTable) decide(ev *Evidence, at uint32, f Facts, c *choir) decision {
	p := &t.Parameters.Listing
	factor := 1.0
	if f.Shared {
		factor = p.SharedFactor
	}
	d := decision{needed: p.Groups, support: c.support(t), independent: c.groups(t, true)}
	if ev.unbanned > 0 && at < ev.unbanned+seconds(p.Grace) {
		d.probation = true
		factor *= t.probation
	}
	if !c.trapped(t) {
		d.needed += t.alarm
	}
	d.threshold = points(float64(t.threshold) * factor)
	st := ev.stand(Network)
	expiry := t.expiryOf(ev, f, st != nil)
	d.until = t.lasts(ev, c, expiry)
	switch {
	case f.Canary:
		d.rule = IsCanary
		return d
	case f.Never != "":
		d.rule = Never
		return d
	case at >= d.until, st == nil && expiry > t.expiry && at >= d.until-expiry+t.expiry:
		return d // what was convicted before is listed longer, but not again for the same reports
	}
	d.rule = t.crowdRule(ev, at, c, d)
	if d.rule == Undecided {
		if solo := t.topRank(ev, c, factor); solo >= 0 {
			d.rule, d.solo = ByTopRank, solo
		}
	}
	if !d.lists() && st != nil && at <= st.until && (!ev.tainted || ev.confirmed) {
		d.rule = Standing
	}
	return d
}

// crowdRule asks whether enough independent voices support a listing.
func (t *TrustTable) crowdRule(ev *Evidence, at uint32, c *choir, d decision) Rule {
	if d.support < d.threshold {
		return Undecided
	}
	if d.independent < d.needed {
		if c.groups(t, false) > d.independent {
			return Suspicious
		}
		return Undecided
	}
	if ev.reached == 0 || at < ev.reached+seconds(t.Parameters.Suspicion.LopsidedHold) {
		if machines, networks := t.size(ev, c); t.lopsided(machines, networks, t.Parameters.Suspicion.Lopsided) {
			return Waiting
		}
	}
	if c.trapped(t) {
		return ByHoneypot
	}
	return ByCrowd
}

// size returns how many machines of weight speak, and from how many AS.
func (t *TrustTable) size(ev *Evidence, c *choir) (machines, networks int) {
	if ev.crowded {
		return estimate(ev.machines), estimate(ev.networks)
	}
	return c.n, c.groups(t, false)
}

// topRank returns the voice of a machine that may list the source alone, or -1.
// It must be sure, and somebody independent must have seen the source before,
// however long ago: what nobody else has ever seen waits for others.
func (t *TrustTable) topRank(ev *Evidence, c *choir, factor float64) int {
	if factor > 1 || t.alarm > 0 {
		return -1
	}
	for i := range c.parts[:c.n] {
		if !c.parts[i].clear {
			return -1
		}
	}
	for i := range c.parts[:c.n] {
		m := &c.parts[i]
		if m.points < t.solo {
			break
		}
		if !t.rating(ev.voices[m.voice].machine).solo || m.honeypot {
			continue
		}
		if !t.Parameters.Voices.SoloWitness {
			return int(m.voice)
		}
		for j := range ev.voices {
			w := &ev.voices[j]
			if w.counted > ev.unbanned && t.worth(w) >= t.minVoice && !t.rating(w.machine).clouded &&
				t.independent(&ev.voices[m.voice], w) {
				return int(m.voice)
			}
		}
	}
	return -1
}

// lasts returns until when a listing stands without new reports: each voice
// counts in full for expiry, and together they must have the lower bound of the
// hysteresis. So an echo of little weight does not prolong a listing, and one
// whose supporters lost their trust ends at once. 0 = there is too little.
func (t *TrustTable) lasts(ev *Evidence, c *choir, expiry uint32) uint32 {
	var latest ranking
	for k := range c.parts[:c.n] {
		latest.add(uint64(ev.voices[c.parts[k].voice].counted), k)
	}
	var full choir
	var sum points
	for _, x := range latest.keys[:latest.n] {
		i := int(c.parts[255-x&255].voice)
		v := &ev.voices[i]
		p := t.worth(v)
		sum += p
		full.insert(t, v, i, p)
		if sum >= t.lowest && full.support(t) >= t.lowest {
			return v.counted + expiry
		}
	}
	return 0
}

// expiryOf returns how long the source is listed after its last report.
func (t *TrustTable) expiryOf(ev *Evidence, f Facts, listed bool) uint32 {
	p := &t.Parameters.Listing
	if f.Shared || f.Dynamic {
		return seconds(p.ShortExpiry)
	}
	before := float64(ev.convictions)
	if listed {
		before--
	}
	return seconds(min(p.MaxExpiry, p.Expiry+durationTimes(p.Expiry, p.Repeat*max(before, 0))))
}

// Explain returns the reasons as of a time, listed or not, without changing
// anything.
func (t *TrustTable) Explain(ev *Evidence, now int64, f Facts) Reasons {
	at := max(clock(now), 1)
	var c choir
	c.gather(t, ev, at)
	return t.reasons(ev, f, &c, t.decide(ev, at, f, &c), Network)
}

func (t *TrustTable) reasons(ev *Evidence, f Facts, c *choir, d decision, audience uint32) Reasons {
	r := Reasons{
		Rule: d.rule, Local: t.local, Shared: f.Shared, Probation: d.probation,
		Support: d.support.float(), Threshold: d.threshold.float(), Diversity: c.diversity(t),
		Independent: d.independent, Needed: d.needed, Confirmed: ev.confirmed, Convictions: int(ev.convictions),
		Behaviours: ev.behaviours, First: int64(ev.first), Last: int64(ev.last),
	}
	if r.Rule == Never {
		r.Never = f.Never
	}
	for i := range ev.voices {
		v := &ev.voices[i]
		if v.counted == 0 || v.counted <= ev.unbanned {
			continue
		}
		r.Machines++
		r.Bands[t.rating(v.machine).rank]++
		if v.flags&honeypot != 0 {
			r.Honeypots++
		}
	}
	if ev.crowded {
		r.Machines = max(r.Machines, estimate(ev.machines))
	}
	if audience != Network { // what the network thinks is not why a fleet is protected
		own := Reasons{Rule: ByFleet, Behaviours: r.Behaviours, First: r.First, Last: r.Last}
		if d.rule == Lapsed || d.rule == Unsupported {
			own.Rule = d.rule
		}
		for i := range ev.voices {
			if v := &ev.voices[i]; v.organisation == audience && v.fleet > 0 {
				own.Machines++
			}
		}
		return own
	}
	return r
}

package crowd

import (
	"math"
	"time"
)

// settle judges the reports of a source that have become old enough: others saw
// it meanwhile, or did not.
func (t *TrustTable) settle(ev *Evidence, at uint32, f Facts, out *Outcome) {
	for i := range ev.voices {
		v := &ev.voices[i]
		switch {
		case v.counted == 0:
		case f.Canary:
			t.settleCanary(ev, v, at, out)
		case v.flags&settled != 0:
		case v.flags&shot != 0: // it is no canary any more
			v.flags |= settled
			t.event(v, Excused, at, 0, out)
		case at >= v.first+t.validateAfter:
			v.flags |= settled
			t.validate(ev, i, at, out)
		}
	}
	t.blame(ev, at, out)
	t.expose(ev, at, out)
	if ev.confirmBy > 0 && at >= ev.confirmBy {
		t.settleListing(ev, at, out)
	}
	if ev.feedback && at >= ev.unbanned+seconds(t.Parameters.Listing.Grace) {
		t.settleUnban(ev, at, out)
	}
}

// event appends an event about a voice's machine. Honeypots need no trust.
func (t *TrustTable) event(v *voice, kind EventKind, at uint32, amount float32, out *Outcome) {
	if v.flags&honeypot == 0 {
		out.Events = append(out.Events, TrustEvent{Kind: kind, Machine: v.machine, Behaviour: v.behaviour, At: int64(at), Amount: amount})
	}
}

// settleCanary takes all weight from who reports a canary, and decides a day
// later whether it was its own doing.
func (t *TrustTable) settleCanary(ev *Evidence, v *voice, at uint32, out *Outcome) {
	if v.flags&shot == 0 {
		v.flags |= shot
		v.flags &^= settled
		if said := float32(t.static(v.behaviour)) / 1000; float64(said) >= t.Parameters.Canary.From {
			t.event(v, Held, at, said, out)
		}
	}
	if v.flags&settled != 0 || at < v.first+t.hold {
		return
	}
	v.flags |= settled
	prior := t.prior(v.behaviour)
	said := float32(prior.static) / 1000
	crowd, excused := t.excused(ev, v, prior)
	switch forged := float64(said) < t.Parameters.Canary.From; {
	case forged: // else anybody could ruin a machine by a packet a day
		t.event(v, Struck, at, said*said*said, out)
		crowd = max(crowd, 1)
	case !excused:
		t.event(v, Struck, at, said, out)
		return
	default:
		t.event(v, Excused, at, 0, out)
	}
	// All who shot it together make one shot. A behaviour that nothing else looks
	// like is not to blame: the canary did attack.
	if crowd > 0 && (!prior.certain || prior.twitchy) && v.flags&honeypot == 0 && t.rating(v.machine).earned >= t.minVoice {
		out.Events = append(out.Events, TrustEvent{Kind: Twitched, Behaviour: v.behaviour, At: int64(at), Amount: 1 / float32(crowd)})
	}
}

// excused reports whether the canary was shot by so many independent machines
// of weight within the same day that it is the scenario's fault, or the canary
// attacks, and how many they are. Their weight before the hold is what counts.
// A crowd from fewer AS than chance would give has come to lie.
func (t *TrustTable) excused(ev *Evidence, v *voice, prior *prior) (crowd int, excused bool) {
	if prior.twitchy {
		return 1, true
	}
	organisations, networks := make(map[uint32]bool), make(map[uint32]bool)
	for i := range ev.voices {
		w := &ev.voices[i]
		if w.counted == 0 || w.counted+t.hold < v.first || w.first > v.first+t.hold {
			continue
		}
		if w.flags&honeypot != 0 && t.prior(w.behaviour).trap >= 750 {
			return 0, true
		}
		if t.rating(w.machine).earned >= t.minVoice {
			crowd++
			organisations[w.organisation], networks[t.group(w)] = true, true
		}
	}
	groups := len(organisations)
	if !t.small {
		groups = min(groups, len(networks))
	}
	needed := t.Parameters.Canary.ExemptAS
	if prior.certain {
		needed = t.Parameters.Canary.ExemptASCertain
	}
	return crowd, groups >= needed && !t.lopsided(crowd, len(networks), t.Parameters.Canary.ExemptSpread)
}

// validate rewards voice i when independent others saw what it saw, as far as
// it was new when it came.
func (t *TrustTable) validate(ev *Evidence, i int, at uint32, out *Outcome) {
	v := &ev.voices[i]
	if v.flags&honeypot != 0 || t.rating(v.machine).paused {
		return // what a liar said is worth nothing to it
	}
	var c choir
	for j := range ev.voices {
		w := &ev.voices[j]
		window := t.validateAfter
		if w.flags&honeypot != 0 {
			window = t.honeypotWithin
		}
		if j == i || w.counted == 0 || w.counted+window < v.first || w.first > v.first+window || !t.independent(v, w) {
			continue
		}
		c.insert(t, w, j, t.worth(w))
	}
	support := min(c.support(t), t.corroboration)
	amount := float32(v.novelty) / 255 * float32(support) / float32(t.corroboration)
	if amount < 0.01 {
		return
	}
	e := TrustEvent{Kind: Validated, Machine: v.machine, Behaviour: v.behaviour, At: int64(at), Amount: amount}
	n := 0
	for k := range c.parts[:c.n] {
		m := &c.parts[k]
		if m.honeypot { // beyond suspicion: nobody's share is limited
			e.Partners, n = [4]uint32{}, 0
			break
		}
		if n < len(e.Partners) && m.points >= t.minVoice && !contains(e.Partners[:n], m.as) {
			e.Partners[n] = m.as
			n++
		}
	}
	if n == 0 && c.n > 0 && !c.parts[0].honeypot {
		e.Partners[0] = c.parts[0].as
	}
	out.Events = append(out.Events, e)
}

func contains(list []uint32, x uint32) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

// independent reports whether two voices may speak for each other.
func (t *TrustTable) independent(v, w *voice) bool {
	if v.organisation == w.organisation && w.flags&honeypot == 0 {
		return false
	}
	return t.small || t.group(v) != t.group(w) && (v.prefix == 0 || v.prefix != w.prefix)
}

// settleListing asks, some time after a listing, whether somebody new saw the
// source: those who got it listed answer for it.
func (t *TrustTable) settleListing(ev *Evidence, at uint32, out *Outcome) {
	ev.confirmBy = 0
	kind := Unconfirmed
	if ev.confirmed = ev.confirmed || t.seenByOthers(ev); ev.confirmed {
		kind = Confirmed
	}
	for i := range ev.voices {
		if v := &ev.voices[i]; v.flags&backed != 0 {
			t.event(v, kind, at, 0, out)
		}
	}
}

// seenByOthers reports whether a honeypot, or somebody above suspicion who is
// independent of all who got the source listed, saw it too.
func (t *TrustTable) seenByOthers(ev *Evidence) bool {
	for i := range ev.voices {
		w := &ev.voices[i]
		if w.flags&honeypot != 0 && w.counted > 0 && t.worth(w) >= t.minVoice {
			return true
		}
		if w.flags&backed != 0 || w.counted == 0 || t.worth(w) < t.minVoice || t.rating(w.machine).clouded {
			continue
		}
		fresh := true
		for j := range ev.voices {
			v := &ev.voices[j]
			fresh = fresh && (v.flags&backed == 0 || t.independent(v, w))
		}
		if fresh {
			return true
		}
	}
	return false
}

// blame tells of those who got a source listed together with liars: with any,
// when nobody else has confirmed it, and with more than chance explains in any
// case. The listing loses the benefit of standing.
func (t *TrustTable) blame(ev *Evidence, at uint32, out *Outcome) {
	if ev.tainted || ev.stand(Network) == nil {
		return
	}
	backers, backing, voices, liars := 0, 0, 0, 0
	var first uint32 // group of a liar
	spread := false  // liars come from more than one
	for i := range ev.voices {
		v := &ev.voices[i]
		r := t.rating(v.machine)
		if v.counted == 0 || v.flags&honeypot != 0 || r.earned < t.minVoice {
			continue
		}
		voices++
		if v.flags&backed != 0 {
			backers++
		}
		if r.liar {
			liars++
			if first == 0 {
				first = t.group(v)
			}
			spread = spread || t.group(v) != first
			if v.flags&backed != 0 {
				backing++
			}
		}
	}
	if liars == 0 {
		return
	}
	// One liar makes no gang: it picks whom it reports, and so in whose company it
	// is found. One AS makes none either: it counts as hardly more than one voice,
	// and what is seen there may be local.
	gang := spread && binomialTail(voices, liars, t.liars) < t.Parameters.Suspicion.Chance
	if !gang && (ev.confirmed || backing == 0) {
		return
	}
	if !gang && t.seenByOthers(ev) {
		ev.confirmed = true
		return
	}
	ev.tainted, ev.confirmed = true, false
	for i := range ev.voices {
		v := &ev.voices[i]
		r := t.rating(v.machine)
		switch {
		case v.counted == 0 || r.earned < t.minVoice || !gang && v.flags&backed == 0:
		case !r.liar:
			t.event(v, Company, at, float32(max(0, 1-3*t.liars)), out)
		case gang && backing > 0 && backing == backers && !r.paused:
			t.event(v, Colluded, at, 0, out)
		}
	}
}

// binomialTail is the probability that of n at least k are picked, each with
// probability p.
func binomialTail(n, k int, p float64) float64 {
	term, tail := math.Pow(1-p, float64(n)), 0.0
	for i := 0; i <= n; i++ {
		if i >= k {
			tail += term
		}
		term *= float64(n-i) / float64(i+1) * p / max(1-p, 1e-9)
	}
	return tail
}

// expose finds rings: crowds so large that they should come from everywhere,
// and come from a few AS. One AS alone is no ring but something local.
func (t *TrustTable) expose(ev *Evidence, at uint32, out *Outcome) {
	if !ev.crowded || ev.confirmed || ev.canary {
		return
	}
	machines, networks := t.size(ev, nil)
	if machines < t.Parameters.Suspicion.RingFrom || networks < 3 || !t.lopsided(machines, networks, t.Parameters.Suspicion.Ring) {
		return
	}
	ev.tainted = true
	for i := range ev.voices {
		v := &ev.voices[i]
		if v.counted == 0 || v.flags&(shot|honeypot) != 0 || t.worth(v) < t.minVoice {
			continue
		}
		v.flags |= shot | settled
		kind := Company
		if t.rating(v.machine).clouded {
			kind = Colluded
		}
		t.event(v, kind, at, 1, out)
	}
}

// settleUnban asks, at the end of the grace after an unban, whether the source
// stayed quiet: then those who alone or mainly had it listed were wrong.
func (t *TrustTable) settleUnban(ev *Evidence, at uint32, out *Outcome) {
	ev.feedback = false
	var all points
	for i := range ev.voices {
		v := &ev.voices[i]
		if v.counted > ev.unbanned && t.worth(v) >= t.minVoice {
			return // it was seen again
		}
		if v.flags&backed != 0 {
			all += t.worth(v)
		}
	}
	for i := range ev.voices {
		v := &ev.voices[i]
		if w := t.worth(v); v.flags&backed != 0 && 2*w >= all && w > 0 {
			t.event(v, Disproved, at, float32(w)/float32(all), out)
		}
	}
}

// Due returns when Judge must be asked even without new reports, in Unix
// seconds: a listing ends, or something is to be settled; 0 = never.
func (t *TrustTable) Due(ev *Evidence) int64 {
	due := ^uint32(0)
	for i := range ev.standing {
		due = min(due, ev.standing[i].until)
	}
	for i := range ev.voices {
		switch v := &ev.voices[i]; {
		case v.counted == 0 || v.flags&settled != 0:
		case v.flags&shot != 0:
			due = min(due, v.first+t.hold)
		default:
			due = min(due, v.first+t.validateAfter)
		}
	}
	if ev.confirmBy > 0 {
		due = min(due, ev.confirmBy)
	}
	if ev.reached > 0 {
		due = min(due, ev.reached+seconds(t.Parameters.Suspicion.LopsidedHold))
	}
	if ev.feedback {
		due = min(due, ev.unbanned+seconds(t.Parameters.Listing.Grace))
	}
	if due == ^uint32(0) {
		return 0
	}
	return int64(due)
}

// Stale reports whether nothing in ev can matter any more: the caller may
// forget it.
func (t *TrustTable) Stale(ev *Evidence, now int64) bool {
	memory := t.Parameters.Listing.Memory
	if ev.convictions > 0 || ev.unbanned > 0 {
		memory = t.Parameters.Listing.LongMemory
	}
	return len(ev.standing) == 0 && now-int64(max(ev.last, ev.unbanned)) > int64(memory/time.Second)
}

func durationTimes(d time.Duration, f float64) time.Duration { return time.Duration(float64(d) * f) }

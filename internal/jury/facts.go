package jury

import (
	"context"
	"net/netip"

	"muster"
	"muster/internal/crowd"
	"muster/internal/policy"
)

// Truth is what the operator knows about sources, whoever reports them. Its
// parts are immutable; nil means empty.
type Truth struct {
	Allowlist *policy.Allowlist
	Canaries  *policy.Canaries
	// Shared reports whether many people sit behind a source; nil = never.
	Shared func(muster.Source) bool
	// Listed are the operators' verdicts that list a source, by what is judged
	// (SubjectOf). The allowlist, canaries and reserved space stand over them.
	Listed map[muster.Source]muster.OperatorVerdict
}

// facts is what is known about a source beside its evidence; h is what is held
// on it, nil for nothing.
func (w *Worker) facts(source muster.Source, h *held) crowd.Facts {
	var f crowd.Facts
	if source.IsReserved() {
		f.Never = "reserved or private address space is never listed"
		return f
	}
	if reason, ok := w.truth.Allowlist.Covers(source); ok {
		f.Never = "on the allowlist"
		if reason != "" {
			f.Never += ": " + reason
		}
	}
	f.Canary = w.isCanary(source, h)
	if !f.Canary && w.truth.Canaries.Inside(source) {
		if source == SubjectOf(muster.SourceFromAddr(source.Addr())) {
			f.Canary = true // of one line
		} else if f.Never == "" {
			f.Never = "an address that is known to be good is inside"
		}
	}
	if w.truth.Shared != nil {
		f.Shared = w.truth.Shared(source)
	}
	return f
}

// isCanary asks for the source, its AS as noted in the record of its last
// report, and the name that it was found to own.
func (w *Worker) isCanary(source muster.Source, h *held) bool {
	asn, name := uint32(0), ""
	if h != nil {
		asn = h.asn
		// A name ends at a tick, as all that is due, whenever somebody asks.
		if n := h.name(); w.tick < n.until {
			name = n.name
		}
	}
	if _, ok := w.truth.Canaries.Match(source, asn); ok {
		return true
	}
	_, ok := w.truth.Canaries.MatchName(name)
	return ok
}

// SetTruth replaces what the operator knows and judges again what it concerns.
// It is in force from then on, even when what follows from it could not be
// written: that is tried again with the next commit, and at the next start.
func (w *Worker) SetTruth(ctx context.Context, t Truth) error {
	return w.do(ctx, func(ctx context.Context) error {
		w.truth = t
		for r := range w.ranges {
			w.touched[r] = true // an address inside may be of it now
		}
		for h := range w.evidence.all() {
			if source := h.source(); w.isOutdated(source, h) {
				w.again = append(w.again, source)
			}
		}
		w.orderNew()
		if !w.owes() {
			return nil
		}
		return w.commit(ctx, func(Tx) error { return nil })
	})
}

// isOutdated reports whether something else is known about a source than when
// it was judged last.
func (w *Worker) isOutdated(source muster.Source, h *held) bool {
	f := w.facts(source, h)
	return knownOf(f) != h.known || w.wanted(source, f, h.order().since) != h.order()
}

// orderNew has the sources judged that an operator has listed, and of which
// nobody has heard.
func (w *Worker) orderNew() {
	for source := range w.truth.Listed {
		if w.evidence.get(source) == nil && w.isNewOrder(source) {
			w.again = append(w.again, source)
		}
	}
}

// isNewOrder reports whether a source of which nothing is held is to be listed
// at an operator's word.
func (w *Worker) isNewOrder(source muster.Source) bool {
	if len(w.truth.Listed) == 0 {
		return false
	}
	return w.wanted(source, w.facts(source, nil), 1).since != 0
}

// wanted returns the listing that an operator's verdict stands for; the zero
// order when there is none, or something stands over it.
func (w *Worker) wanted(source muster.Source, f crowd.Facts, since int64) order {
	v, ok := w.truth.Listed[source]
	if !ok || f.Never != "" || f.Canary {
		return order{}
	}
	return order{since: since, until: v.Until.Unix(), captcha: v.Remedy == muster.RemedyCaptcha}
}

// obey tells what an operator's verdict changes. While one is in force the
// crowd's verdicts on the source are not told; it reports whether that is so.
// told is whether the crowd's verdict has just changed.
func (w *Worker) obey(source muster.Source, h *held, f crowd.Facts, at int64, told bool) bool {
	was := h.order()
	since := was.since
	if since == 0 {
		since = at
	}
	is := w.wanted(source, f, since)
	switch {
	case is == was:
		return is.since != 0
	case is.since != 0:
		h.more().order = is
		delete(w.ranges, source) // as which it need not be listed
		w.tell(w.orderVerdict(source, h, is))
		return true
	}
	h.rare.order = order{}
	w.touchSelf(source)
	switch until, listed := h.ev.Listed(crowd.Network); {
	case told: // that follows
	case listed:
		r := w.table.Explain(&h.ev, at, f)
		w.tell(w.verdict(source, &crowd.Verdict{Listed: true, Remedy: remedyOf(f), Since: was.since, Until: until, Reasons: r}))
	default:
		v := w.orderVerdict(source, h, was)
		v.Listed, v.Reasons.Rule = false, "ended: the operator's decision ended"
		if f.Canary {
			v.Reasons.Rule, v.Reasons.Basis = "known to be good", bases[crowd.IsCanary]
		} else if f.Never != "" {
			v.Reasons.Rule, v.Reasons.Basis, v.Reasons.Never = f.Never, bases[crowd.Never], f.Never
		}
		w.tell(v)
	}
	return false
}

func remedyOf(f crowd.Facts) crowd.Remedy {
	if f.Shared {
		return crowd.Captcha
	}
	return crowd.Ban
}

// orderScenario names the behaviour of a source that only an operator listed.
const orderScenario = "muster/operator"

// orderVerdict is the verdict that an operator's word stands for.
func (w *Worker) orderVerdict(source muster.Source, h *held, o order) muster.Verdict {
	v := muster.Verdict{
		Source: source, Audience: muster.Network, Listed: true, Remedy: muster.RemedyBan, Scenario: orderScenario,
		Since: instant(o.since), Until: instant(o.until),
		Reasons: muster.Reasons{
			First: h.ev.First(), Last: h.ev.Last(), Rule: "listed: an operator decided so", Basis: muster.BasisOperator,
			Epoch: w.epoch, Parameters: w.cfg.Parameters.Version,
		},
	}
	if o.captcha {
		v.Remedy = muster.RemedyCaptcha
	}
	if b := h.ev.Behaviours(); len(b) > 0 {
		v.Scenario = w.numbers[scenarios].name(uint32(b[0].Index))
		v.Reasons.Scenarios = []string{v.Scenario}
	}
	return v
}

// How names are asked for: judgement waits for the first answer so long, in
// seconds of the log's time; an answer is believed for days, because name servers
// fail, and asked for again long before that.
const (
	nameWait  = tickSeconds
	nameKeep  = 3 * 24 * 60 * 60
	nameAgain = 24 * 60 * 60
)

// waits asks for the name of a source that is about to be listed, or was listed
// long ago, and reports whether its judgement has to wait for the answer: what
// is known to be good shall not be published for a moment. It waits once.
func (w *Worker) waits(source muster.Source, h *held, at int64) bool {
	addr, ok := h.address(source)
	n, patterns := h.name(), w.truth.Canaries.NamesID()
	if !ok || w.cfg.Name == nil || w.truth.Canaries.Names() == 0 {
		if n.waits { // for an answer that matters no longer
			h.rare.name.waits = false
		}
		return false
	}
	if n.waits && n.patterns == patterns {
		h.rare.name.waits = at < n.asked+nameWait
		return h.rare.name.waits
	}
	if n.asked != 0 && n.patterns == patterns && at < n.asked+nameAgain {
		return false
	}
	_, listed := h.ev.Listed(crowd.Network)
	f := w.facts(source, h)
	if !listed && n.name == "" && !w.wouldList(h, f, at) {
		return false
	}
	name, answered := w.cfg.Name(addr)
	next := &h.more().name
	next.asked, next.patterns = at, patterns
	if name != "" {
		next.name, next.until = name, w.tick+nameKeep
	}
	next.waits = !answered && !listed && n.name == ""
	return next.waits
}

// wouldList reports whether judging would list a source.
func (w *Worker) wouldList(h *held, f crowd.Facts, at int64) bool {
	switch w.table.Explain(&h.ev, at, f).Rule {
	case crowd.ByCrowd, crowd.ByHoneypot, crowd.ByTopRank:
		return true
	default:
		return false
	}
}

// Named tells that an address was found to own a name. The source is judged
// again when that makes it a canary.
func (w *Worker) Named(ctx context.Context, addr netip.Addr, name string) error {
	source := SubjectOf(muster.SourceFromAddr(addr))
	return w.do(ctx, func(ctx context.Context) error {
		if w.evidence.get(source) == nil {
			return nil // it has been forgotten meanwhile
		}
		return w.commit(ctx, func(Tx) error {
			n := &w.of(source).more().name
			n.name, n.until, n.waits = name, w.now()+nameKeep, false
			w.rejudge([]muster.Source{source}, w.now())
			return nil
		})
	})
}

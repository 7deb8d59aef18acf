package jury

import (
	"encoding/binary"
	"slices"
	"time"

	"muster"
	"muster/internal/crowd"
)

// tickSeconds is how often what is due is done; trust is rated anew every
// ticksPerEpoch ticks.
const (
	tickSeconds   = 10
	ticksPerEpoch = 30
)

// SubjectOf returns what is judged when source is reported: itself, or the /64
// of a v6 address, because a subscriber line has all of it.
func SubjectOf(source muster.Source) muster.Source {
	if source.IsValid() && source.Addr().Is6() {
		return muster.SourceFromPrefix(source.Group())
	}
	return source
}

// fold adds a signal to the evidence on its source.
func (w *Worker) fold(s *muster.Signal) {
	if !s.Source.IsValid() || s.Flags&(muster.Counts|muster.Fleet) == 0 || !w.cfg.Member(s.Machine, s.Organisation) {
		return
	}
	r := crowd.Report{
		Machine: w.number(machines, s.Machine), Organisation: w.number(organisations, s.Organisation),
		AS: s.ReporterASN, Prefix: s.ReporterNet, Behaviour: uint16(w.number(scenarios, s.Scenario)),
		At: s.At.Unix(), Counts: s.Flags&muster.Counts != 0, Fleet: s.Flags&muster.Fleet != 0, Honeypot: s.Flags&muster.Honeypot != 0,
	}
	rec := &w.records[r.Machine]
	if r.Counts {
		last := rec.LastHeard
		if rec.Heard(r.Organisation, r.AS, s.Received.Unix()) || rec.Blocked || rec.Honeypot != r.Honeypot {
			rec.Blocked, rec.Honeypot = false, r.Honeypot
			w.move(r.Machine)
		} else {
			rec.LastHeard = last // what is not stored must not be known: a restart would judge otherwise
		}
	}
	h := w.of(SubjectOf(s.Source))
	if s.SourceASN != 0 {
		h.asn = s.SourceASN
	}
	if w.cfg.Name != nil && !s.Source.IsRange() && s.Source.Addr().Is6() {
		raw := s.Source.Addr().As16()
		h.more().name.host = binary.BigEndian.Uint64(raw[8:])
	}
	w.table.Fold(&h.ev, r)
	if h.heard == 0 {
		w.heard = append(w.heard, h)
	}
	h.heard = max(h.heard, clock(s.Received.Unix()))
}

// of returns the evidence on a source, to be changed.
func (w *Worker) of(source muster.Source) *held {
	h := w.evidence.get(source)
	if h == nil {
		h = w.evidence.add(source)
	}
	if !h.changed {
		h.changed = true
		w.change.evidence = append(w.change.evidence, h)
	}
	return h
}

// judgeHeard judges every source that was heard since the last time.
func (w *Worker) judgeHeard() {
	var out crowd.Outcome
	var events []sourced
	for _, h := range w.heard {
		at := int64(h.heard)
		h.heard = 0
		events = w.judge(h.source(), h, max(at, w.tick), &out, events)
	}
	w.heard = w.heard[:0]
	w.apply(events)
}

// sourced is an event with the source that it came from.
type sourced struct {
	crowd.TrustEvent
	source muster.Source
}

// judge judges one source and notes what changed; events about machines are
// appended, to be applied together.
func (w *Worker) judge(source muster.Source, h *held, at int64, out *crowd.Outcome, events []sourced) []sourced {
	if until := h.name().until; until != 0 && until <= w.tick {
		h.rare.name.name, h.rare.name.until = "", 0
	}
	if w.waits(source, h, at) {
		w.schedule(h)
		return events
	}
	out.Reset()
	f := w.facts(source, h)
	h.known = knownOf(f)
	w.table.Judge(&h.ev, at, f, out)
	news := slices.ContainsFunc(out.Verdicts, func(v crowd.Verdict) bool { return v.Audience == crowd.Network })
	if news {
		w.touch(source)
	}
	ordered := w.obey(source, h, f, at, news)
	for i := range out.Verdicts {
		if v := &out.Verdicts[i]; v.Audience != crowd.Network || !ordered {
			w.tell(w.verdict(source, v))
		}
	}
	for _, e := range out.Events {
		events = append(events, sourced{e, source})
	}
	w.schedule(h)
	return events
}

// due returns when a source must be judged without new reports, or is stale;
// 0 = never.
func (w *Worker) due(h *held) int64 {
	due := w.table.Due(&h.ev)
	if due == 0 && h.order().since == 0 {
		due = w.stale(&h.ev)
	}
	n := h.name()
	if n.waits {
		due = sooner(due, n.asked+nameWait)
	}
	if n.until != 0 {
		due = sooner(due, n.until)
	}
	return due
}

// sooner returns the earlier of two times, of which the first may be 0 for never.
func sooner(a, b int64) int64 {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// stale returns when evidence that nothing else is due for can be forgotten.
func (w *Worker) stale(ev *crowd.Evidence) int64 {
	l := &w.cfg.Parameters.Listing
	at := ev.Last() + int64(l.Memory/time.Second) + 1
	if !w.table.Stale(ev, at) { // it was listed, or unbanned
		at = ev.Last() + int64(l.LongMemory/time.Second) + 1
	}
	for !w.table.Stale(ev, at) { // unbanned after that
		at += 24 * 60 * 60
	}
	return at
}

// tell notes a verdict for the changelog.
func (w *Worker) tell(v muster.Verdict) {
	c := &w.change
	t := told{v.Audience, v.Source}
	before := c.told[t]
	if before == len(c.verdicts) {
		c.verdicts = append(c.verdicts, nil)
	}
	c.verdicts[before] = append(c.verdicts[before], v)
	c.told[t]++
}

// schedule puts a source into the wheel for when it must be judged again.
func (w *Worker) schedule(h *held) {
	due := w.due(h)
	if due == 0 {
		h.due = 0
		return
	}
	if was := int64(h.due); was != 0 && was <= due && was > w.tick {
		return // it is looked at before that, and put there again
	}
	h.due = clock(due)
	tick := max(w.tick+tickSeconds, (due+tickSeconds-1)/tickSeconds*tickSeconds)
	w.wheel[tick] = append(w.wheel[tick], h.slot)
}

// apply moves the trust in machines by what judgements found out, in an order
// that does not depend on that of the sources.
func (w *Worker) apply(events []sourced) {
	slices.SortStableFunc(events, func(a, b sourced) int { return crowd.Compare(a.TrustEvent, b.TrustEvent) })
	var hold []uint32
	for _, e := range events {
		w.events.WithLabelValues(e.Kind.String()).Inc()
		row := muster.TrustEvent{
			Machine: e.Machine, At: time.Unix(e.At, 0).UTC(), Kind: e.Kind.String(), Amount: float64(e.Amount),
			Behaviour: w.numbers[scenarios].name(uint32(e.Behaviour)), Source: e.source,
		}
		if e.Kind == crowd.Twitched {
			w.behaviours[e.Behaviour].Apply(e.TrustEvent, &w.cfg.Parameters)
			w.change.behaviours[e.Behaviour] = struct{}{}
			w.change.events = append(w.change.events, row)
			continue
		}
		r := w.move(e.Machine)
		row.RankBefore = crowd.Rate(r, e.At, &w.cfg.Parameters).Rank
		r.Apply(e.TrustEvent, &w.cfg.Parameters)
		row.RankAfter = crowd.Rate(r, e.At, &w.cfg.Parameters).Rank
		if e.Kind == crowd.Validated && row.RankBefore == row.RankAfter {
			row.At, row.Source, row.Behaviour = row.At.Truncate(time.Hour), muster.Source{}, "" // they come by the thousand
		}
		w.change.events = append(w.change.events, row)
		if e.Kind == crowd.Held || e.Kind == crowd.Colluded {
			hold = append(hold, e.Machine)
		}
	}
	if len(hold) > 0 {
		w.nextEpoch()
		w.table = w.table.Hold(w.epoch, hold...)
		w.rated.held = append(w.rated.held, hold...)
		w.fallen = append(w.fallen, hold...)
	}
}

func (w *Worker) nextEpoch() {
	w.epoch++
	w.change.timed = true
}

// advance does what is due up to a time, tick by tick.
func (w *Worker) advance(at int64) {
	if w.tick == 0 {
		w.tick = at / tickSeconds * tickSeconds
		w.nextEpoch()
		w.rate(w.tick)
	}
	for w.tick+tickSeconds <= at {
		w.tick += tickSeconds
		w.change.timed = true
		w.doTick()
	}
}

// pending reports whether a tick up to a time has something to do. Those that
// have nothing need no transaction of their own.
func (w *Worker) pending(at int64) bool {
	const epoch = tickSeconds * ticksPerEpoch
	if at < w.tick+tickSeconds {
		return false
	}
	if w.tick == 0 || len(w.fallen)+len(w.touched) > 0 || at >= (w.tick/epoch+1)*epoch {
		return true
	}
	for tick := w.tick + tickSeconds; tick <= at; tick += tickSeconds {
		if len(w.wheel[tick]) > 0 {
			return true
		}
	}
	return false
}

// doTick judges what is due, rates machines anew at the end of an epoch or when
// one was caught, and judges again what stood on the word of those that fell.
func (w *Worker) doTick() {
	slots := w.wheel[w.tick]
	delete(w.wheel, w.tick)
	due := make([]muster.Source, 0, len(slots))
	for _, slot := range slots {
		h := w.evidence.at(slot)
		if h.key == (key{}) || int64(h.due) > w.tick {
			continue // it stood here in vain: it was dropped, or stands elsewhere
		}
		h.due = 0
		if at := w.due(h); at == 0 || at > w.tick {
			w.schedule(h)
			continue
		}
		due = append(due, h.source())
	}
	w.rejudge(due, w.tick)
	// Who was caught is rated at once: only a new table tells which of those who
	// are held lied, and who sits beside them.
	if len(w.rated.held) > 0 || w.tick/tickSeconds%ticksPerEpoch == 0 {
		before := w.table
		w.fallen = append(w.fallen, w.rated.held...)
		w.nextEpoch()
		w.rate(w.tick)
		for machine := range w.records {
			if w.table.Fell(before, uint32(machine)) {
				w.fallen = append(w.fallen, uint32(machine))
			}
		}
	}
	w.judgeFallen()
	w.judgeRanges()
}

// judgeFallen judges again what stood on the word of machines that fell.
func (w *Worker) judgeFallen() {
	if len(w.fallen) > 0 {
		fallen := make(map[uint32]bool, len(w.fallen))
		for _, m := range w.fallen {
			fallen[m] = true
		}
		w.fallen = w.fallen[:0]
		w.rejudge(w.spokenOf(func(machine, _ uint32) bool { return fallen[machine] }), w.tick)
	}
}

// spokenOf returns the sources on which a picked voice was heard.
func (w *Worker) spokenOf(pick func(machine, organisation uint32) bool) []muster.Source {
	var sources []muster.Source
	for h := range w.evidence.all() {
		h.ev.Machines(func(machine, organisation uint32) bool {
			if pick(machine, organisation) {
				sources = append(sources, h.source())
				return false
			}
			return true
		})
	}
	return sources
}

// rejudge judges sources again without new signals, and forgets what cannot
// matter any more.
func (w *Worker) rejudge(sources []muster.Source, at int64) {
	slices.SortFunc(sources, muster.Source.Compare) // of whatever map they came
	sources = slices.Compact(sources)
	var out crowd.Outcome
	var events []sourced
	for _, source := range sources {
		if w.evidence.get(source) == nil && !w.isNewOrder(source) {
			continue
		}
		h := w.of(source)
		events = w.judge(source, h, at, &out, events)
		if h.order().since != 0 || !w.table.Stale(&h.ev, at) {
			continue
		}
		w.evidence.drop(h)
		w.change.gone = append(w.change.gone, source)
		if w.isNewOrder(source) { // what was known of it stood against that
			events = w.judge(source, w.of(source), at, &out, events)
		}
	}
	w.apply(events)
}

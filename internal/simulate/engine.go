package simulate

import (
	"slices"

	"muster/internal/crowd"
)

// truth is what a source really is, which the engine does not know.
type truth uint8

const (
	nobody   truth = iota // good, never slandered: made up by somebody
	good                  // good, and at times reported by mistake
	canary                // good, and the engine knows that it must not be listed
	bad                   // an attacker
	washer                // an attacker of the adversary, that asks for unbans
	accuser               // an attacker of the adversary that shows itself to the watchers that it bombs alone
	invented              // of a ring
	truths
)

// source is an address with its evidence and what became of it.
type source struct {
	ev        crowd.Evidence
	truth     truth
	owned     bool // somebody uses the address: its place is not given away
	listed    bool
	onList    bool // listed, and there was room
	shared    bool // the engine knows
	dynamic   bool
	target    bool // slandered
	published bool // ever, since it was slandered or became known
	scheduled int32

	generation   uint32 // another source in the same place has another
	first, third int64  // reports by machines that are not the adversary's; third: by a third one
	reporters    [3]uint32
	listedAt     int64 // first time
	washedAt     int64 // unbanned, and not listed since
	againAt      int64 // first report after that
	unbans       uint8
	rate         float64 // events an hour, for the oracle
}

// engine runs the consensus code as the worker of a server does: it folds and
// judges each report, asks again when something is due, holds machines at once,
// and makes a new trust table every epoch.
type engine struct {
	parameters crowd.Parameters
	records    []crowd.Record
	behaviours []crowd.BehaviourRecord
	table      *crowd.TrustTable
	epoch      uint64
	events     []crowd.TrustEvent
	held       []uint32 // not yet without weight
	rated      []uint32 // held since the last epoch
	out        crowd.Outcome

	sources []source
	free    []uint32
	waiting []uint32 // listed, but the list is full
	lines   int
	onList  int

	reports uint64
	// changed is told when a source is listed or is no more.
	changed func(source uint32, at int64)
	// dropped is told before a source is forgotten.
	dropped func(source uint32)
	queue   *queue
}

func newEngine(p crowd.Parameters, machines, lines int, q *queue) *engine {
	e := &engine{
		parameters: p, records: make([]crowd.Record, machines), behaviours: make([]crowd.BehaviourRecord, len(taxonomy)),
		sources: make([]source, 1), lines: lines, queue: q,
	}
	e.newEpoch(begins)
	return e
}

// newSource returns the number of a new source, never 0.
func (e *engine) newSource(s source) uint32 {
	if n := len(e.free); n > 0 {
		i := e.free[n-1]
		e.free = e.free[:n-1]
		s.ev, s.generation = e.sources[i].ev, e.sources[i].generation+1 // empty, with its memory
		e.sources[i] = s
		return i
	}
	e.sources = append(e.sources, s)
	return uint32(len(e.sources) - 1)
}

// hear takes one report.
func (e *engine) hear(m *machine, machineID, src uint32, behaviour uint16, at int64) {
	e.reports++
	e.records[machineID].Heard(m.organisation, m.as, at)
	s := &e.sources[src]
	e.table.Fold(&s.ev, crowd.Report{
		Machine: machineID, Organisation: m.organisation, AS: m.as, Prefix: m.prefix, Behaviour: behaviour,
		At: at, Counts: true, Honeypot: m.class == Honeypot,
	})
	e.judge(src, at)
}

// judge judges a source and takes the consequences.
func (e *engine) judge(src uint32, at int64) {
	s := &e.sources[src]
	e.table.Judge(&s.ev, at, crowd.Facts{Canary: s.truth == canary, Shared: s.shared, Dynamic: s.dynamic}, &e.out)
	for i := range e.out.Events {
		if k := e.out.Events[i].Kind; k == crowd.Held || k == crowd.Colluded {
			e.held = append(e.held, e.out.Events[i].Machine)
		}
	}
	e.events = append(e.events, e.out.Events...)
	told := len(e.out.Verdicts) > 0
	e.out.Reset()
	if _, listed := s.ev.Listed(crowd.Network); told && listed != s.listed {
		s.listed = listed
		e.enter(src)
		e.changed(src, at)
	}
	e.schedule(src, at)
}

// enter puts a source on the list or takes it off; those that find no room wait
// in line.
func (e *engine) enter(src uint32) {
	s := &e.sources[src]
	switch {
	case s.listed && e.onList < e.lines:
		s.onList = true
		e.onList++
	case s.listed:
		e.waiting = append(e.waiting, src)
	case s.onList:
		s.onList = false
		e.onList--
		for len(e.waiting) > 0 {
			next := &e.sources[e.waiting[0]]
			e.waiting = e.waiting[1:]
			if next.listed && !next.onList {
				next.onList = true
				e.onList++
				break
			}
		}
	}
}

// schedule has a source judged again when something is due, or forgotten.
func (e *engine) schedule(src uint32, now int64) {
	s := &e.sources[src]
	due := e.table.Due(&s.ev)
	if due == 0 {
		due = s.ev.Last() + int64(e.parameters.Listing.Memory.Seconds()) + 1
		if due <= now { // it is remembered for longer
			due = now + daySeconds
		}
	}
	due = max(due, now+1)
	hour := min(int32((due-begins)/hourSeconds), e.queue.hour+horizon-1)
	if s.scheduled > e.queue.hour && s.scheduled <= hour {
		return // looked at before
	}
	s.scheduled = max(hour, e.queue.hour+1)
	e.queue.plan(due, event{source: src, kind: settle})
}

// settle looks at a source whose time has come.
func (e *engine) settle(src uint32, at int64) {
	s := &e.sources[src]
	if s.ev.Last() == 0 {
		return // forgotten meanwhile
	}
	if due := e.table.Due(&s.ev); due > 0 && due <= at {
		e.judge(src, at)
	}
	if e.table.Stale(&s.ev, at) {
		e.forget(src)
		return
	}
	e.schedule(src, at)
}

// forget drops the evidence on a source, and its place when nobody uses it.
func (e *engine) forget(src uint32) {
	s := &e.sources[src]
	s.scheduled = 0
	s.ev.CopyFrom(&crowd.Evidence{})
	if !s.owned {
		e.dropped(src)
		e.free = append(e.free, src)
	}
}

// disown tells that nobody uses a source any more.
func (e *engine) disown(src uint32) {
	s := &e.sources[src]
	s.owned = false
	if s.ev.Last() == 0 {
		e.dropped(src)
		e.free = append(e.free, src)
	}
}

// hold takes the weight of machines that reported canaries or are of a ring, and
// judges again what stood on their word.
func (e *engine) hold(at int64) {
	if len(e.held) == 0 {
		return
	}
	e.epoch++
	e.table = e.table.Hold(e.epoch, e.held...)
	fell := make([]bool, len(e.records))
	for _, m := range e.held {
		fell[m] = true
	}
	e.rated = append(e.rated, e.held...)
	e.held = e.held[:0]
	e.judgeFallen(fell, at)
}

// newEpoch applies what was found out about machines, and rates them.
func (e *engine) newEpoch(at int64) {
	slices.SortFunc(e.events, crowd.Compare)
	for _, ev := range e.events {
		if ev.Kind == crowd.Twitched {
			e.behaviours[ev.Behaviour].Apply(ev, &e.parameters)
			continue
		}
		e.records[ev.Machine].Apply(ev, &e.parameters)
	}
	e.events = e.events[:0]
	before := e.table
	e.epoch++
	e.table = crowd.NewTrustTable(crowd.Snapshot{
		Epoch: e.epoch, At: at, Records: e.records, Behaviours: e.behaviours, Taxonomy: taxonomy, Parameters: e.parameters,
	})
	if before == nil {
		return
	}
	fell, some := make([]bool, len(e.records)), false
	for m := range fell {
		fell[m] = e.table.Fell(before, uint32(m))
		some = some || fell[m]
	}
	// Those who were held before had no weight to lose, but only this table tells
	// which of them lied.
	e.rated = append(e.rated, e.held...)
	for _, m := range e.rated {
		fell[m], some = true, true
	}
	e.held, e.rated = e.held[:0], e.rated[:0]
	if some {
		e.judgeFallen(fell, at)
	}
}

// judgeFallen judges the sources that machines without weight now have spoken of.
func (e *engine) judgeFallen(fell []bool, at int64) {
	for i := range e.sources {
		if e.sources[i].ev.HeardFrom(fell) {
			e.judge(uint32(i), at)
		}
	}
}

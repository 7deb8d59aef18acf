package simulate

import (
	"context"
	"math/rand/v2"

	"muster/internal/crowd"
)

// run is one scenario with one seed.
type run struct {
	scenario  *Scenario
	world     *world
	engine    *engine
	adversary adversary
	meter     meter
	queue     *queue
	appeals   *rand.Rand

	good            []uint32 // addresses that are reported by mistake
	canaries        []uint32 // that the engine knows
	unknownCanaries []uint32
	allCanaries     []uint32
}

// pipeline is how many seconds pass from a report to the list on a server.
const pipeline = 1

// epochMinutes is how often machines are rated; while an attack goes on in
// which minutes count, more often.
const (
	epochMinutes      = 60
	epochAttackedMins = 10
)

// Trace is what came of one run. It is written as JSON, see Config.Dir.
type Trace struct {
	Samples Samples
	Days    []Day
	Delays  Delays
	Reports uint64 // that were folded and judged
}

// once simulates a scenario with one seed. tick is called after every simulated
// day; it may be nil.
func once(ctx context.Context, s *Scenario, p crowd.Parameters, seed uint64, tick func()) (*Trace, error) {
	r := newRun(s, p, seed)
	for day := range s.Days {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for hour := range 24 {
			r.hour(day, int32(day*24+hour))
		}
		r.meter.endDay(r)
		if tick != nil {
			tick()
		}
	}
	return r.meter.trace(r), nil
}

func newRun(s *Scenario, p crowd.Parameters, seed uint64) *run {
	r := &run{scenario: s, queue: newQueue(), appeals: stream(seed, 3)}
	r.world = newWorld(s, seed)
	r.adversary = adversary{Adversary: s.Adversary, rng: stream(seed, 2)}
	if s.Adversary.Aim != Nothing {
		r.enrol()
	}
	r.engine = newEngine(p, len(r.world.machines), s.World.ListLines, r.queue)
	r.engine.changed, r.engine.dropped = r.changed, func(src uint32) { r.meter.sum(&r.engine.sources[src], r.end()) }
	for m := range r.world.machines {
		r.engine.records[m].Honeypot = r.world.machines[m].class == Honeypot
	}
	for i := range s.World.Benign {
		// A carrier's addresses are known to be one's in four of five cases.
		shared := r.world.kindOf(i) == carrier && i%5 != 4
		r.good = append(r.good, r.engine.newSource(source{truth: good, owned: true, shared: shared}))
	}
	for i := range s.World.Canaries {
		if i%2 == 0 {
			r.canaries = append(r.canaries, r.engine.newSource(source{truth: canary, owned: true}))
		} else {
			r.unknownCanaries = append(r.unknownCanaries, r.engine.newSource(source{truth: good, owned: true}))
		}
	}
	r.allCanaries = append(append(r.allCanaries, r.canaries...), r.unknownCanaries...)
	r.meter = newMeter(s)
	return r
}

// end is when the simulation is over.
func (r *run) end() int64 { return begins + int64(r.scenario.Days)*daySeconds }

// attacked reports whether the adversary's attack has begun.
func (r *run) attacked(day int) bool {
	return r.scenario.Adversary.Aim != Nothing && day >= r.scenario.Adversary.Attacks
}

func (r *run) hour(day int, hour int32) {
	if hour%24 == 0 {
		r.world.beginDay(day, func(dynamic bool) uint32 {
			return r.engine.newSource(source{truth: bad, owned: true, dynamic: dynamic})
		})
		r.world.mistakes(day, r.good, r.allCanaries, r.queue.plan)
		r.scheme(day)
	}
	r.queue.begin(hour)
	r.world.hour(hour, r.queue, r.engine.disown)

	every := int64(epochMinutes)
	if r.attacked(day) && len(r.adversary.machines) > 0 {
		every = epochAttackedMins
	}
	start := begins + int64(hour)*hourSeconds
	r.newEpoch(start)
	minute := int64(0)
	for _, e := range r.queue.inOrder() {
		for int64(e.second)/60 > minute {
			minute++
			r.hold(start + minute*60)
			if minute%every == 0 {
				r.newEpoch(start + minute*60)
			}
		}
		r.happen(&e, start+int64(e.second))
	}
	r.hold(start + hourSeconds)
}

func (r *run) newEpoch(at int64) {
	r.engine.newEpoch(at)
	r.meter.watch(r, at)
}

func (r *run) hold(at int64) {
	if len(r.engine.held) > 0 {
		r.engine.hold(at)
		r.meter.watch(r, at)
	}
}

// happen lets one event happen.
func (r *run) happen(e *event, at int64) {
	switch e.kind {
	case attack:
		r.attack(e, at)
	case report:
		r.report(e, at)
	case settle:
		r.engine.settle(e.source, at)
	case unban:
		r.grant(e.source, e.machine, at)
	}
}

// washPause is how long an unbanned attacker of the adversary stays quiet.
const washPause = 2 * hourSeconds

// attack reaches a machine, unless the list keeps it off, and is reported there.
func (r *run) attack(e *event, at int64) {
	s, m := &r.engine.sources[e.source], &r.world.machines[e.machine]
	if s.truth == washer && s.washedAt > 0 && at < s.washedAt+washPause {
		return
	}
	if m.class == Honest {
		r.meter.attacked(s, at)
	}
	if m.blocks && s.onList || !e.noticed {
		return
	}
	r.report(e, at)
}

func (r *run) report(e *event, at int64) {
	s, m := &r.engine.sources[e.source], &r.world.machines[e.machine]
	if m.class == Adverse && !e.noticed {
		r.accuse(e, s, at)
	} else if m.class != Adverse {
		s.heardBy(e.machine, at)
		if s.washedAt > 0 && s.againAt == 0 && at >= s.washedAt+washPause {
			s.againAt = at
		}
	}
	r.engine.hear(m, e.machine, e.source, e.behaviour, at)
}

// accuse notes a report of the adversary that is no truth.
func (r *run) accuse(e *event, s *source, at int64) {
	if !r.attacked(int((at-begins)/daySeconds)) || s.truth == bad || s.truth == accuser {
		return
	}
	r.meter.lied(e.machine, r.engine.table.Of(e.machine), at)
	if s.truth != canary && !s.target {
		s.target, s.published = true, s.listed
		r.meter.targets++
	}
}

// heardBy notes the first and the third machine that reported a source.
func (s *source) heardBy(m uint32, at int64) {
	if s.first == 0 {
		s.first = at
	}
	if s.third > 0 {
		return
	}
	for i, known := range s.reporters {
		switch known {
		case m:
			return
		case 0:
			s.reporters[i] = m
			if i == len(s.reporters)-1 {
				s.third = at
			}
			return
		}
	}
}

// changed takes note that a source was listed, or is no more.
func (r *run) changed(src uint32, at int64) {
	s := &r.engine.sources[src]
	if !s.listed {
		return
	}
	r.meter.listed(s, at)
	r.appeal(src, at)
}

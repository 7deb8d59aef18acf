package simulate

import (
	"math/rand/v2"
	"slices"
)

// adversary is the machines of one attacker of the network. It knows what its
// machines are told by anybody's server: the list, and their own rank.
type adversary struct {
	Adversary
	rng      *rand.Rand
	machines []uint32
	byAS     [][]uint32

	victims []uint32 // good addresses that it can think of: canaries are among them
	next    int
	tried   map[uint32]uint32 // canary probing: scout by address
	clean   []uint32          // tried, and nothing happened to the scout
	bombed  []uint32          // honest watchers
}

// enrol makes the machines of the adversary: they are in AS where honest
// watchers are too, the larger the likelier, each of an organisation of its own.
func (r *run) enrol() {
	a, w := &r.adversary, r.world
	var networks []uint32
	for len(networks) < a.Networks {
		as := uint32(1 + w.networks.draw(a.rng))
		if !slices.Contains(networks, as) {
			networks = append(networks, as)
		}
	}
	a.byAS = make([][]uint32, len(networks))
	n := r.scenario.machines()
	for i := range n {
		k := i % len(networks)
		m := machine{
			organisation: adverseOrganisation + uint32(i), as: networks[k], prefix: uint64(networks[k])<<24 | 1<<23 | uint64(a.rng.IntN(64)),
			class: Adverse, detects: 0.9, joins: int32(a.Joins * 24),
		}
		if a.Disguise == Genuine {
			m.sensors = 1<<services - 1
		}
		w.machines = append(w.machines, m)
		id := uint32(len(w.machines) - 1)
		w.expose(id)
		a.machines = append(a.machines, id)
		a.byAS[k] = append(a.byAS[k], id)
	}
	if a.Disguise == Genuine { // the attackers do not attack others the less for it
		w.share = float64(w.Watchers+n) / float64(w.Watchers)
	}
}

// scheme plans the adversary's day.
func (r *run) scheme(day int) {
	a := &r.adversary
	if a.Aim == Nothing || day < a.Joins {
		return
	}
	if a.Aim == Whitewash {
		if day >= a.Attacks {
			r.wash()
		}
		return
	}
	if day < a.Attacks {
		r.disguise(day)
		return
	}
	if day == a.Attacks {
		r.gather()
	}
	switch a.Aim {
	case Slander:
		r.slander(day, a.take(a.PerDay))
	case SlanderIt:
		r.slander(day, a.victims[:1])
	case Probe:
		r.probe(day)
	case Bomb, BombForge:
		r.bomb(day)
	case Flood:
		r.flood(day)
	case Nothing, Whitewash:
	}
}

// disguise is what the machines do meanwhile. Genuine ones are attacked like
// others, see enrol.
func (r *run) disguise(day int) {
	a := &r.adversary
	switch a.Disguise {
	case Copy:
		var list []uint32
		for i := range r.engine.sources {
			if r.engine.sources[i].onList {
				list = append(list, uint32(i))
			}
		}
		for _, m := range a.machines {
			for range min(20, len(list)) {
				r.say(day, m, list[a.rng.IntN(len(list))], shellBruteForce)
			}
		}
	case Ring:
		for range a.PerDay {
			src := r.engine.newSource(source{truth: invented})
			for _, m := range a.voters(10) {
				r.say(day, m, src, shellBruteForce)
			}
		}
	case Silent, Genuine:
	}
}

// gather picks the victims when the attack begins.
func (r *run) gather() {
	a := &r.adversary
	switch a.Aim {
	case Slander, Probe:
		a.victims = slices.Concat(r.good, r.canaries, r.unknownCanaries)
	case SlanderIt:
		a.victims = slices.Clone(r.good)
	case Bomb, BombForge:
		r.pickBombed()
	case Nothing, Flood, Whitewash:
	}
	a.rng.Shuffle(len(a.victims), func(i, j int) { a.victims[i], a.victims[j] = a.victims[j], a.victims[i] })
	a.tried = map[uint32]uint32{}
}

// take returns the next n victims, from the beginning again when all had their
// turn.
func (a *adversary) take(n int) []uint32 {
	if a.next+n > len(a.victims) {
		a.next = 0
	}
	n = min(n, len(a.victims)-a.next)
	a.next += n
	return a.victims[a.next-n : a.next]
}

// voters picks n machines of as many AS as possible; 0 = all.
func (a *adversary) voters(n int) []uint32 {
	if n == 0 || n >= len(a.machines) {
		return a.machines
	}
	picked := make([]uint32, 0, n)
	first := a.rng.IntN(len(a.byAS))
	for i := range n {
		all := a.byAS[(first+i)%len(a.byAS)]
		picked = append(picked, all[a.rng.IntN(len(all))])
	}
	return picked
}

// say plans a report at any time of the day.
func (r *run) say(day int, m, src uint32, behaviour uint16) {
	at := begins + int64(day)*daySeconds + int64(r.adversary.rng.IntN(daySeconds))
	r.queue.plan(at, event{source: src, machine: m, behaviour: behaviour, kind: report})
}

// slander has the victims reported, each within an hour.
func (r *run) slander(day int, victims []uint32) {
	a := &r.adversary
	for _, v := range victims {
		from := begins + int64(day)*daySeconds + int64(a.rng.IntN(daySeconds-hourSeconds))
		behaviour := [...]uint16{shellBruteForce, webBruteForce, webExploit, mailBruteForce}[a.rng.IntN(4)]
		for _, m := range a.voters(a.Votes) {
			r.queue.plan(from+int64(a.rng.IntN(hourSeconds)), event{source: v, machine: m, behaviour: behaviour, kind: report})
		}
	}
}

// probe has every address tried by one scout, and the day after slanders those
// that were tried with impunity: the canaries among them are none of the
// engine's.
func (r *run) probe(day int) {
	a := &r.adversary
	for _, v := range sortedKeys(a.tried) {
		if r.engine.table.Of(a.tried[v]).Rank > 0 {
			a.clean = append(a.clean, v)
		} else {
			r.meter.canariesFound++
		}
	}
	clear(a.tried)
	r.slander(day, a.clean)
	a.clean = a.clean[:0]
	for _, v := range a.take(a.PerDay) {
		scout := a.machines[a.rng.IntN(len(a.machines))]
		a.tried[v] = scout
		r.say(day, scout, v, shellBruteForce)
	}
}

// flood has every machine report as much as it can: attackers, to drive out the
// words of others, and addresses that nobody knows.
func (r *run) flood(day int) {
	a := &r.adversary
	if len(r.world.attackers) == 0 {
		return
	}
	for _, m := range a.machines {
		for i := range a.PerDay {
			src := r.world.attackers[a.rng.IntN(len(r.world.attackers))].source
			if i%2 == 0 {
				src = r.engine.newSource(source{truth: nobody, target: true})
			}
			r.say(day, m, src, portScan)
		}
	}
}

// bombs is how many honest watchers are bombed.
const bombs = 5

// pickBombed picks the honest watchers of the highest rank.
func (r *run) pickBombed() {
	a := &r.adversary
	for m := uint32(1); int(m) <= r.world.honest; m++ {
		if w := &r.world.machines[m]; w.joins <= r.queue.hour && w.watches(shell) && (a.Aim == Bomb || w.watches(scan)) {
			a.bombed = append(a.bombed, m)
		}
	}
	slices.SortStableFunc(a.bombed, func(x, y uint32) int {
		return int(r.engine.table.Of(y).Rank) - int(r.engine.table.Of(x).Rank)
	})
	a.bombed = a.bombed[:min(bombs, len(a.bombed))]
	r.meter.bomb(r.engine.table, a.bombed)
}

// bomb has addresses of the adversary attack the bombed watchers and nobody
// else. Its machines report them too, so that they are listed on the watchers'
// word; then they are unbanned and stay quiet, so that the watchers seem to be
// liars. Its machines also repeat what the watchers are known to see, and
// report a known good address each day beside. With forged packets the watchers
// report good addresses themselves.
func (r *run) bomb(day int) {
	a := &r.adversary
	start := begins + int64(day)*daySeconds
	for range a.PerDay {
		src := r.engine.newSource(source{truth: accuser, owned: true})
		for _, m := range a.bombed {
			at := start + int64(a.rng.IntN(12*hourSeconds))
			r.queue.plan(at, event{source: src, machine: m, behaviour: shellBruteForce, kind: report})
			for _, sybil := range a.voters(5) {
				r.queue.plan(at+int64(a.rng.IntN(hourSeconds)), event{source: src, machine: sybil, behaviour: shellBruteForce, kind: report})
			}
		}
		r.planUnban(start+20*hourSeconds, src)
	}
	if len(r.canaries) > 0 {
		r.say(day, a.machines[a.rng.IntN(len(a.machines))], r.canaries[a.rng.IntN(len(r.canaries))], shellBruteForce)
	}
	if a.Aim != BombForge || len(r.canaries) == 0 {
		return
	}
	for _, m := range a.bombed {
		r.say(day, m, r.canaries[a.rng.IntN(len(r.canaries))], portScan) // all else needs a handshake
	}
}

// wash sends out attackers that get themselves unbanned.
func (r *run) wash() {
	w, a := r.world, &r.adversary
	for range a.PerDay {
		src := r.engine.newSource(source{truth: washer, owned: true})
		from := r.queue.hour + int32(a.rng.IntN(24))
		w.attackers = append(w.attackers, attacker{
			source: src, campaign: -1, service: shell, rate: 12, from: from, to: from + 24*30, washes: true,
		})
	}
}

// coolDown is how long after one unban the next can be had.
var coolDown = [...]int64{0, 3 * daySeconds, 10 * daySeconds, 30 * daySeconds}

// appeal asks for an unban of a source that was just listed: attackers of the
// adversary within the hour, people whose address is wrongly listed within a
// day.
func (r *run) appeal(src uint32, at int64) {
	s := &r.engine.sources[src]
	if int(s.unbans) >= len(coolDown) {
		return
	}
	wait := coolDown[s.unbans] + hourSeconds
	switch s.truth {
	case washer:
	case good:
		wait += int64(r.appeals.IntN(daySeconds))
	case nobody, canary, bad, accuser, invented, truths:
		return
	}
	r.planUnban(at+wait, src)
}

// planUnban plans the grant of an unban; should the source be another by then,
// nothing happens.
func (r *run) planUnban(at int64, src uint32) {
	r.queue.plan(at, event{source: src, machine: r.engine.sources[src].generation, kind: unban})
}

// grant unbans a source, if it is still the one that was meant.
func (r *run) grant(src, generation uint32, at int64) {
	s := &r.engine.sources[src]
	if s.generation != generation {
		return
	}
	if s.listed {
		s.ev.Unban(at)
		s.unbans++
		s.washedAt, s.againAt = at, 0
		r.engine.judge(src, at)
	}
	if s.truth == accuser {
		r.engine.disown(src)
	}
}

func sortedKeys(m map[uint32]uint32) []uint32 {
	keys := make([]uint32, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

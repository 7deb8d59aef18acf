package crowd

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// toy is a small simulated Internet: enough to see whether a rule holds against
// an adversary, and too little to fit numbers.
type toy struct {
	honest, sleepers, honeypots int
	networks, hostile           int     // AS of all, and of those the sleepers'
	attackers                   int     // new ones a day
	benign, canaries            int     // addresses that sleepers pick from; canaries among them that are known
	noise                       float64 // reports of benign addresses by each honest machine a day
	warm, days                  int     // before and during the attack
	victims, liars              int     // victims a day, and sleepers that report each
	silent                      bool    // sleepers never report
	parameters                  Parameters
	seed                        uint64

	rand    *rand.Rand
	records []Record
	table   *TrustTable
	epoch   uint64
	twitchy []BehaviourRecord
	sources map[int]*toySource
	log     []toyReport
	lied    map[uint32]int64 // when a sleeper lied first
	fell    map[uint32]int64 // when it was of rank 0 first after that
}

type toySource struct {
	Evidence
	good, canary, victim    bool
	listed                  bool
	first, third, published int64
	reports, events, missed int
}

type toyReport struct {
	source int
	Report
}

// toyResult is what came out.
type toyResult struct {
	victims, published   int     // victims that are no canaries, and those that were listed
	benign, verdicts     int     // benign addresses listed by mistake; all listings
	canaries             int     // known canaries listed
	blocked              float64 // share of attack events after their source was listed
	toList               float64 // median minutes from the third report to the list
	early                float64 // share of sources with three reports that are listed within a minute of the third
	liars, exposed       int     // sleepers that lied, and those of rank 0 within 24 hours
	honestStruck, clouds int
}

func (r toyResult) String() string {
	return fmt.Sprintf("victims %d/%d (%.1f %%), benign %d of %d, blocked %.1f %%, third→list %.1f min (%.0f %% at once), exposed %d/%d, honest struck %d, clouded AS %d",
		r.published, r.victims, 100*float64(r.published)/float64(max(r.victims, 1)), r.benign, r.verdicts, 100*r.blocked, r.toList, 100*r.early,
		r.exposed, r.liars, r.honestStruck, r.clouds)
}

func (y *toy) run() toyResult {
	y.rand = rand.New(rand.NewPCG(y.seed, 7))
	y.sources, y.lied, y.fell = map[int]*toySource{}, map[uint32]int64{}, map[uint32]int64{}
	y.twitchy = make([]BehaviourRecord, len(taxonomy))
	y.populate()
	for day := range y.warm + y.days {
		y.plan(day)
	}
	slices.SortStableFunc(y.log, func(a, b toyReport) int { return cmp.Compare(a.At, b.At) })
	y.play()
	return y.sum()
}

// populate makes machines that have behaved for half a year.
func (y *toy) populate() {
	weights := make([]float64, y.networks)
	total := 0.0
	for i := range weights {
		weights[i] = 1 / float64(i+1)
		total += weights[i]
	}
	pick := func() uint32 {
		x := y.rand.Float64() * total
		for i, w := range weights {
			if x -= w; x < 0 {
				return uint32(i + 1)
			}
		}
		return 1
	}
	hostile := y.rand.Perm(y.networks)[:y.hostile]
	y.records = make([]Record, 1, 1+y.honest+y.sleepers+y.honeypots)
	for i := range y.honest + y.sleepers + y.honeypots {
		as := pick()
		if i >= y.honest && i < y.honest+y.sleepers {
			as = uint32(hostile[i%y.hostile] + 1)
		}
		r := veteran(uint32(i+1), as)
		r.Earned = 40 + 200*y.rand.Float64()
		r.Tenure = int32(20 + y.rand.IntN(200))
		if i >= y.honest {
			r.Tenure = 180
		}
		r.Honeypot = i >= y.honest+y.sleepers
		y.records = append(y.records, r)
	}
	y.snapshot(start)
}

func (y *toy) snapshot(at int64) {
	y.epoch++
	y.table = NewTrustTable(Snapshot{Epoch: y.epoch, At: at, Records: y.records, Behaviours: y.twitchy, Taxonomy: taxonomy, Parameters: y.parameters})
}

func (y *toy) sensor() uint32 { return uint32(1 + y.rand.IntN(len(y.records)-1)) }

func (y *toy) add(source int, machine uint32, behaviour uint16, at int64) {
	r := say(y.records, machine, behaviour, 0)
	r.At = at
	r.Prefix = 0
	y.log = append(y.log, toyReport{source, r})
}

const toyBenign = 1 << 20 // first number of benign sources

func (y *toy) plan(day int) {
	dawn := start + int64(day)*daySeconds
	for i := range y.attackers {
		source := day*y.attackers + i
		y.sources[source] = &toySource{}
		behaviour := uint16(brute)
		if y.rand.IntN(3) == 0 {
			behaviour = probing
		}
		hits := int(min(300, 2/math.Pow(y.rand.Float64()+0.001, 0.8)))
		from := dawn + y.rand.Int64N(daySeconds)
		last := 1 + y.rand.Int64N(3*daySeconds)
		for range hits {
			m, at := y.sensor(), from+y.rand.Int64N(last)
			if !y.silent || int(m) <= y.honest || int(m) > y.honest+y.sleepers {
				y.add(source, m, behaviour, at)
			}
		}
	}
	for m := range y.honest {
		if y.rand.Float64() < y.noise {
			y.add(toyBenign+y.rand.IntN(y.benign), uint32(m+1), probing, dawn+y.rand.Int64N(daySeconds))
		}
	}
	if day < y.warm {
		return
	}
	for range y.victims {
		source := toyBenign + y.rand.IntN(y.benign)
		y.source(source).victim = true
		at := dawn + y.rand.Int64N(daySeconds)
		for _, i := range y.rand.Perm(y.sleepers)[:min(y.liars, y.sleepers)] {
			m := uint32(y.honest + 1 + i)
			y.add(source, m, brute, at+y.rand.Int64N(hour))
		}
	}
}

func (y *toy) source(n int) *toySource {
	s := y.sources[n]
	if s == nil {
		s = &toySource{good: n >= toyBenign, canary: n >= toyBenign && n < toyBenign+y.canaries}
		y.sources[n] = s
	}
	return s
}

func (y *toy) play() {
	var events []TrustEvent
	due := map[int64][]int{} // sources by the hour at which they are due
	next := start
	for i := 0; i < len(y.log); {
		at := min(next, y.log[i].At)
		if at == next {
			for _, n := range due[next] {
				events = y.judge(n, next, events, due)
			}
			delete(due, next)
			y.apply(events)
			events = events[:0]
			before := y.table
			y.snapshot(next)
			for _, n := range y.resting(before) {
				events = y.judge(n, next, events, due)
			}
			y.watch(next)
			next += hour
			continue
		}
		r := y.log[i]
		i++
		s := y.source(r.source)
		if s.first == 0 {
			s.first = r.At
		}
		s.reports++
		if s.reports == 3 {
			s.third = r.At
		}
		s.events++
		if !s.listed {
			s.missed++
		}
		if s.victim && int(r.Machine) > y.honest && y.lied[r.Machine] == 0 {
			y.lied[r.Machine] = r.At
		}
		y.records[r.Machine].Heard(r.Organisation, r.AS, r.At)
		y.table.Fold(&s.Evidence, r.Report)
		events = y.judge(r.source, r.At, events, due)
	}
}

func (y *toy) judge(n int, at int64, events []TrustEvent, due map[int64][]int) []TrustEvent {
	s := y.source(n)
	var out Outcome
	y.table.Judge(&s.Evidence, at, Facts{Canary: s.canary}, &out)
	for _, v := range out.Verdicts {
		s.listed = v.Listed
		if v.Listed && s.published == 0 {
			s.published = at
		}
	}
	if d := y.table.Due(&s.Evidence); d > 0 {
		d = (max(d, at) + hour - 1) / hour * hour
		d += (start - d) % hour
		if d <= at {
			d += hour
		}
		if !slices.Contains(due[d], n) {
			due[d] = append(due[d], n)
		}
	}
	var held []uint32
	for _, e := range out.Events {
		if e.Kind == Held || e.Kind == Colluded {
			held = append(held, e.Machine)
		}
	}
	if len(held) > 0 {
		before := y.table
		y.epoch++
		y.table = before.Hold(y.epoch, held...)
		for _, m := range held {
			if y.lied[m] > 0 && y.fell[m] == 0 {
				y.fell[m] = at
			}
		}
		for _, k := range y.resting(before) {
			if k != n {
				out.Events = y.judge(k, at, out.Events, due)
			}
		}
	}
	return append(events, out.Events...)
}

// resting returns the listed sources that rest on machines that fell.
func (y *toy) resting(before *TrustTable) (sources []int) {
	for k, s := range y.sources {
		if _, on := s.Listed(Network); !on {
			continue
		}
		for m := range s.Machines {
			if y.table.Fell(before, m) {
				sources = append(sources, k)
				break
			}
		}
	}
	slices.Sort(sources)
	return sources
}

func (y *toy) apply(events []TrustEvent) {
	slices.SortFunc(events, Compare)
	for _, e := range events {
		if e.Kind == Twitched {
			y.twitchy[e.Behaviour].Apply(e, &y.parameters)
			continue
		}
		y.records[e.Machine].Apply(e, &y.parameters)
	}
}

// watch notes which liars have been found out.
func (y *toy) watch(at int64) {
	for m := range y.lied {
		if y.fell[m] == 0 && y.table.Of(m).Rank == 0 {
			y.fell[m] = at
		}
	}
}

func (y *toy) sum() (r toyResult) {
	var delays []float64
	events, missed := 0, 0
	for _, s := range y.sources {
		if s.published > 0 {
			r.verdicts++
		}
		switch {
		case s.canary:
			if s.published > 0 {
				r.canaries++
			}
		case s.victim:
			r.victims++
			if s.published > 0 {
				r.published++
			}
		case s.good:
			if s.published > 0 {
				r.benign++
			}
		default:
			events += s.events
			missed += s.missed
			if s.third > 0 {
				d := math.Inf(1)
				if s.published > 0 {
					d = max(0, float64(s.published-s.third)/60)
				}
				delays = append(delays, d)
			}
		}
	}
	r.blocked = 1 - float64(missed)/float64(max(events, 1))
	slices.Sort(delays)
	if len(delays) > 0 {
		r.toList = delays[len(delays)/2]
		at, _ := slices.BinarySearch(delays, 1.0)
		r.early = float64(at) / float64(len(delays))
	}
	for m, at := range y.lied {
		r.liars++
		if y.fell[m] > 0 && y.fell[m] <= at+daySeconds {
			r.exposed++
		}
	}
	for m := 1; m <= y.honest; m++ {
		if y.records[m].Strikes > 0 {
			r.honestStruck++
		}
	}
	r.clouds = len(y.table.Clouded)
	return r
}

// Sleepers, a third of all machines of weight, slander 20 good addresses a day.
// The simulator takes exact measures; this is its quick little brother.
func TestSleepersAreFoundOut(t *testing.T) {
	run := func(networks, liars int) toyResult {
		y := toy{
			honest: 1000, sleepers: 430, honeypots: 30, networks: 200, hostile: networks, attackers: 100, benign: 3400, canaries: 200,
			noise: 0.02, warm: 4, days: 6, victims: 20, liars: liars, parameters: Default(), seed: 1,
		}
		r := y.run()
		t.Logf("%3d liars in %2d AS: %v", liars, networks, r)
		return r
	}
	calm := run(20, 0)
	if calm.benign > 0 || calm.clouds > 0 || calm.toList > 1 {
		t.Errorf("without an attack: %v", calm)
	}
	for _, c := range []struct {
		networks, liars int
		published       float64 // share of victims at most
		exposed         float64 // share of liars at least
	}{
		{20, 430, 0.05, 0.9},
		{5, 430, 0.05, 0.9},
	} {
		r := run(c.networks, c.liars)
		if got := float64(r.published) / float64(r.victims); got > c.published {
			t.Errorf("%d liars in %d AS had %.1f %% of their victims listed", c.liars, c.networks, 100*got)
		}
		if got := float64(r.exposed) / float64(r.liars); got < c.exposed {
			t.Errorf("%d liars in %d AS: %.1f %% were exposed within a day", c.liars, c.networks, 100*got)
		}
		if r.canaries > 0 || r.benign > 0 {
			t.Errorf("%d liars in %d AS: %v", c.liars, c.networks, r)
		}
		if r.blocked < 0.75*calm.blocked { // a third of the sensors are gone
			t.Errorf("%d liars in %d AS: %.1f %% of attacks blocked, %.1f %% without them", c.liars, c.networks, 100*r.blocked, 100*calm.blocked)
		}
	}
}

package simulate

import (
	"math"
	"math/rand/v2"
	"slices"

	"muster/internal/crowd"
)

const (
	hourSeconds = 60 * 60
	daySeconds  = 24 * hourSeconds
	// begins is when every simulation begins: 2026-01-01, midnight UTC.
	begins int64 = 1767225600
)

// service is what is attacked, and what a sensor watches.
type service uint8

const (
	shell service = iota
	web
	mail
	scan
	services
)

// The behaviours of the simulated hub, by number, with priors as the hub has
// them for scenarios of their kind.
const (
	unknown uint16 = iota
	shellBruteForce
	shellSlow
	webBruteForce
	webProbing
	webCrawl
	webAgent
	webExploit
	mailBruteForce
	mailSpam
	portScan
	telnet
)

var taxonomy = crowd.Taxonomy{
	unknown:         {},
	shellBruteForce: {Confidence: 3},
	shellSlow:       {Confidence: 3},
	webBruteForce:   {Confidence: 3},
	webProbing:      {Confidence: 1},
	webCrawl:        {Confidence: 1},
	webAgent:        {Confidence: 1},
	webExploit:      {Confidence: 3},
	mailBruteForce:  {Confidence: 3},
	mailSpam:        {Confidence: 2},
	portScan:        {Confidence: 1, Spoofable: 3},
	telnet:          {Confidence: 3},
}

// seen are the behaviours in which attacks on a service show, by frequency.
var seen = [services][4]uint16{
	shell: {shellBruteForce, shellBruteForce, shellBruteForce, shellSlow},
	web:   {webProbing, webExploit, webBruteForce, webAgent},
	mail:  {mailBruteForce, mailBruteForce, mailSpam, mailSpam},
	scan:  {portScan, portScan, portScan, telnet},
}

// Class is whose machine it is.
type Class uint8

// The classes.
const (
	Honest Class = iota
	Honeypot
	Adverse
	classes
)

func (c Class) String() string { return [...]string{"honest", "honeypot", "adversary"}[c] }

// machine is one engine. Its number is that of its record.
type machine struct {
	organisation, as uint32
	prefix           uint64
	class            Class
	sensors          uint8 // bits by service
	blocks           bool  // what is listed does not reach it
	detects          float32
	mistakes         float32 // false reports a day
	joins            int32   // hour
	away             int32   // hour until which it is out of order
}

func (m *machine) watches(s service) bool { return m.sensors&(1<<s) != 0 }

// world is who is there, and the traffic among them. All of its chance is drawn
// when traffic is made, so that the same seed brings the same traffic whatever
// the engine does with it.
type world struct {
	World
	days     int
	machines []machine // from 1
	honest   int       // machines 1 to honest are the honest watchers
	pools    [services][]uint32
	share    float64 // traffic grows with the machines that the adversary adds
	rng      *rand.Rand

	networks  zipf // of honest watchers
	benign    zipf
	campaigns []campaign
	attackers []attacker
	scanners  int
}

// campaign is a botnet: its members attack one service of the same victims.
type campaign struct {
	service service
	victims []uint32
	until   int32
}

// attacker is one address that attacks.
type attacker struct {
	source   uint32
	campaign int32 // -1 = a background scanner, everybody is its victim
	service  service
	rate     float64 // events an hour while a session lasts
	from, to int32   // the session
	sessions int32   // still to come
	length   int32   // of a session, hours
	pause    int32   // between sessions at most, hours
	washes   bool    // of the adversary: gets itself unbanned
}

const (
	campaignsAtATime = 20
	// The organisations and AS of honest machines are numbered from 1, those of
	// others beyond these.
	honeypotOrganisation = 1 << 20
	adverseOrganisation  = 1 << 21
	honeypotNetwork      = 1 << 20
)

func newWorld(s *Scenario, seed uint64) *world {
	w := &world{World: s.World, days: s.Days, honest: s.World.Watchers, rng: stream(seed, 1), share: 1}
	w.networks = newZipf(w.Networks, 1)
	w.benign = newZipf(w.Benign, w.Popularity)
	w.machines = make([]machine, 1, 1+w.Watchers+w.Honeypots+s.machines())
	w.settle()
	for i := range w.Honeypots {
		w.machines = append(w.machines, machine{
			organisation: honeypotOrganisation, as: honeypotNetwork + uint32(i), prefix: uint64(honeypotNetwork+i) << 8,
			class: Honeypot, sensors: 1<<services - 1, detects: 1,
		})
	}
	for m := range w.machines {
		if m > 0 {
			w.expose(uint32(m))
		}
	}
	return w
}

// settle makes the honest watchers: organisations of Zipf sizes live in AS of
// Zipf sizes, and have kinds of sensors of their own.
func (w *world) settle() {
	owners := newZipf(w.Organisations, 0.7)
	type home struct {
		as      uint32
		sensors uint8
		blocks  bool
		noise   float64
	}
	homes := make([]home, w.Organisations+1)
	kinds := [...]uint8{1<<shell | 1<<web, 1 << shell, 1<<shell | 1<<mail, 1<<shell | 1<<scan, 1 << web, 1<<services - 1}
	for o := range homes {
		homes[o] = home{
			as: uint32(1 + w.networks.draw(w.rng)), sensors: kinds[w.rng.IntN(len(kinds))],
			blocks: w.rng.Float64() < w.Blocking,
			noise:  math.Exp(w.rng.NormFloat64() - 0.5), // mean 1
		}
		if w.Hoster > 0 && w.rng.Float64() < w.Hoster {
			homes[o].as = 1
		}
	}
	for i := range w.Watchers {
		o := uint32(1 + i) // everyone gets one machine first
		if i >= w.Organisations {
			o = uint32(1 + owners.draw(w.rng))
		}
		h := &homes[o]
		m := machine{
			organisation: o, as: h.as, prefix: uint64(h.as)<<24 | uint64(o), class: Honest, sensors: h.sensors,
			blocks: h.blocks, detects: float32(0.7 + 0.3*w.rng.Float64()), mistakes: float32(w.Mistakes * h.noise),
		}
		if w.rng.Float64() < 0.2 { // a fifth come later
			m.joins = int32(w.rng.IntN(w.days * 24))
		}
		w.machines = append(w.machines, m)
	}
}

// expose puts a machine where attackers find it.
func (w *world) expose(m uint32) {
	for s := range services {
		if w.machines[m].watches(s) {
			w.pools[s] = append(w.pools[s], m)
		}
	}
}

// beginDay renews campaigns and attackers, and lets machines fail. Every new
// attacker is given a source by make.
func (w *world) beginDay(day int, newSource func(dynamic bool) uint32) {
	hour := int32(day * 24)
	for i := 1; i <= w.honest; i++ {
		if w.rng.Float64() < 0.01 {
			w.machines[i].away = hour + int32(1+w.rng.ExpFloat64()*36)
		}
	}
	for len(w.campaigns) < campaignsAtATime {
		w.campaigns = append(w.campaigns, campaign{})
	}
	for i := range w.campaigns {
		if w.campaigns[i].until <= hour {
			w.campaigns[i] = w.newCampaign(hour)
		}
	}
	for range w.Attackers {
		w.attackers = append(w.attackers, w.newAttacker(hour, newSource))
	}
	for ; w.scanners < w.Scanners; w.scanners++ {
		from := hour + int32(w.rng.IntN(24))
		w.attackers = append(w.attackers, attacker{
			source: newSource(false), campaign: -1, service: service(w.rng.IntN(int(services))),
			rate: 4 + 8*w.rng.Float64(), from: from, to: from + int32(24*(30+w.rng.IntN(60))),
		})
	}
}

func (w *world) newCampaign(hour int32) campaign {
	c := campaign{service: [...]service{shell, shell, web, web, mail, scan}[w.rng.IntN(6)], until: hour + int32(24*(10+w.rng.IntN(30)))}
	share := 0.1 + 0.5*w.rng.Float64()
	for _, m := range w.pools[c.service] {
		if w.rng.Float64() < share {
			c.victims = append(c.victims, m)
		}
	}
	return c
}

// newAttacker makes one of four kinds: fast ones in short sessions, steady ones,
// slow ones, and members of coordinated groups with a few events each.
func (w *world) newAttacker(hour int32, newSource func(dynamic bool) uint32) attacker {
	k := w.rng.IntN(len(w.campaigns))
	from := hour + int32(w.rng.IntN(24))
	a := attacker{source: newSource(w.rng.Float64() < 0.3), campaign: int32(k), service: w.campaigns[k].service, from: from}
	switch x := w.rng.Float64(); {
	case x < 0.6:
		a.rate = 12 * math.Exp(0.6*w.rng.NormFloat64())
		a.length, a.sessions, a.pause = int32(1+w.rng.IntN(4)), int32(w.rng.IntN(5)), 36
	case x < 0.8:
		a.rate, a.length = 0.5+2.5*w.rng.Float64(), int32(12+w.rng.IntN(60))
	case x < 0.92:
		a.rate, a.length = 0.05+0.1*w.rng.Float64(), int32(24*(10+w.rng.IntN(20)))
	default:
		a.rate, a.length = 1, 5
	}
	a.to = from + a.length
	return a
}

// hour makes the attacks of an hour. ended is told the sources of attackers that
// are done.
func (w *world) hour(hour int32, q *queue, ended func(source uint32)) {
	for i := 0; i < len(w.attackers); {
		a := &w.attackers[i]
		if hour >= a.to && a.sessions > 0 {
			a.sessions--
			a.from = hour + int32(4+w.rng.IntN(int(max(a.pause, 1))))
			a.to = a.from + a.length
		}
		if hour >= a.to {
			ended(a.source)
			if a.campaign < 0 && !a.washes {
				w.scanners--
			}
			w.attackers[i] = w.attackers[len(w.attackers)-1]
			w.attackers = w.attackers[:len(w.attackers)-1]
			continue
		}
		if hour >= a.from {
			w.attack(a, hour, q)
		}
		i++
	}
}

func (w *world) attack(a *attacker, hour int32, q *queue) {
	victims := w.pools[a.service]
	if a.campaign >= 0 && len(w.campaigns[a.campaign].victims) > 0 && w.campaigns[a.campaign].service == a.service {
		victims = w.campaigns[a.campaign].victims
	}
	if len(victims) == 0 {
		return
	}
	for range poisson(w.rng, a.rate*w.Intensity*w.share) {
		m := victims[w.rng.IntN(len(victims))]
		second, behaviour, luck := uint32(w.rng.IntN(hourSeconds)), seen[a.service][w.rng.IntN(4)], w.rng.Float32()
		v := &w.machines[m]
		if hour < v.joins || hour < v.away {
			continue
		}
		q.add(event{second: second, source: a.source, machine: m, behaviour: behaviour, kind: attack, noticed: luck < v.detects})
	}
}

// mistakes makes the false reports of a day: by popularity of good addresses, at
// carrier NATs by people who mistype, at crawlers by rules against scrapers. A
// behaviour that is twitchy goes wrong everywhere. Forged packets are no
// mistake, but look like one.
func (w *world) mistakes(day int, benign, canaries []uint32, later func(at int64, e event)) {
	at := begins + int64(day)*daySeconds
	hour := int32(day * 24)
	report := func(m, source uint32, behaviour uint16) {
		if v := &w.machines[m]; hour >= v.joins && hour >= v.away {
			later(at+int64(w.rng.IntN(daySeconds)), event{source: source, machine: m, behaviour: behaviour, kind: report, noticed: true})
		}
	}
	good := func() (uint32, uint16) {
		if len(canaries) > 0 && w.rng.Float64() < 0.05 {
			return canaries[w.rng.IntN(len(canaries))], [...]uint16{webCrawl, webProbing, webAgent}[w.rng.IntN(3)]
		}
		i := w.benign.draw(w.rng)
		switch kind := w.kindOf(i); {
		case kind == crawler:
			return benign[i], [...]uint16{webCrawl, webProbing}[w.rng.IntN(2)]
		case kind == carrier && w.rng.IntN(2) == 0:
			return benign[i], [...]uint16{shellSlow, webBruteForce, mailBruteForce}[w.rng.IntN(3)]
		}
		return benign[i], [...]uint16{webProbing, webCrawl, webAgent, webBruteForce, mailSpam, shellSlow}[w.rng.IntN(6)]
	}
	for m := uint32(1); int(m) <= w.honest; m++ {
		rate := float64(w.machines[m].mistakes)
		for range poisson(w.rng, rate) {
			source, behaviour := good()
			report(m, source, behaviour)
		}
		if day == w.TwitchyDay && w.machines[m].watches(web) {
			for range poisson(w.rng, 100*rate) {
				source, _ := good()
				report(m, source, webExploit)
			}
		}
	}
	for range poisson(w.rng, w.Forged) {
		if pool := w.pools[scan]; len(pool) > 0 {
			source, _ := good()
			report(pool[w.rng.IntN(len(pool))], source, portScan)
		}
	}
}

// goodKind is what sort of good address it is.
type goodKind uint8

const (
	ordinary goodKind = iota
	carrier           // a carrier NAT
	crawler
)

// kindOf spreads the kinds over the popularity of good addresses.
func (w *world) kindOf(i int) goodKind {
	every := func(n int) bool { return n > 0 && i%max(1, w.Benign/n) == 0 && i/max(1, w.Benign/n) < n }
	switch {
	case every(w.Shared):
		return carrier
	case w.Crawlers > 0 && i%max(1, w.Benign/w.Crawlers) == 1:
		return crawler
	}
	return ordinary
}

// stream returns a source of chance of its own, so that what one part of the
// simulation draws does not move another.
func stream(seed, number uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, number)) }

// poisson draws how many events happen at a mean rate.
func poisson(rng *rand.Rand, mean float64) int {
	if mean <= 0 {
		return 0
	}
	if mean > 60 {
		return max(0, int(math.Round(mean+math.Sqrt(mean)*rng.NormFloat64())))
	}
	limit, n := math.Exp(-mean), 0
	for p := rng.Float64(); p > limit; p *= rng.Float64() {
		n++
	}
	return n
}

// zipf draws ranks from 0 with probability ∝ 1/(rank+1)^s.
type zipf struct{ upTo []float64 }

func newZipf(n int, s float64) zipf {
	z := zipf{upTo: make([]float64, n)}
	sum := 0.0
	for i := range z.upTo {
		sum += math.Pow(float64(i+1), -s)
		z.upTo[i] = sum
	}
	return z
}

func (z zipf) draw(rng *rand.Rand) int {
	x := rng.Float64() * z.upTo[len(z.upTo)-1]
	i, _ := slices.BinarySearch(z.upTo, x)
	return min(i, len(z.upTo)-1)
}

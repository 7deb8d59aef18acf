// Package tailor ranks the sources of attacks by how likely each is to come to
// one reader next, so that a list of limited length holds what that reader
// needs. It is pure: no clock, no I/O, no randomness; the same sightings in the
// same order give the same lists.
//
// A source's score is a log-odds: a weighted sum of few features of what was
// seen of it (Weights). The reader's own sightings come first, then those of
// readers that used to be visited by the same sources (highly predictive
// blacklisting: Zhang, Porras, Ullrich, USENIX Security 2008), then what its
// network and its behaviour promise. The weights were fitted on the first half
// of nine honeypots' records; what they reach on the second half is measured by
// muster replay.
//
// State is bounded: per source a short list of who saw it, per network (/24,
// /48) the same, and one matrix of similarities of MaxVictims².
package tailor

import (
	"hash/fnv"
	"math"
	"net/netip"
	"time"

	"muster"
)

// Parameters are what a Model goes by. Zero values have the defaults named with
// them; Weights are the exception: all zero stands for DefaultWeights.
type Parameters struct {
	Weights Weights

	// OwnHalfLife is how fast a reader's sightings count half: 48 h.
	OwnHalfLife time.Duration
	// HabitHalfLife is the same for the number of days with sightings: 40 days.
	// It keeps those in mind who come back week after week.
	HabitHalfLife time.Duration
	// NeighbourHalfLife is how fast the presence at other readers fades: 7 days.
	NeighbourHalfLife time.Duration
	// NetworkHalfLife is how fast sightings of others in the network fade: 3 days.
	NetworkHalfLife time.Duration
	// ReturnWindow is within what time a visit counts as a return of the last
	// one, for the rate of return of a behaviour: 7 days.
	ReturnWindow time.Duration
	// SimilarityHalfLife is how fast common visitors stop making two readers
	// similar: 30 days.
	SimilarityHalfLife time.Duration
	// Forget is after what time without sightings a source is forgotten, at
	// least a day: 60 days.
	Forget time.Duration

	// Hysteresis is added to the log-odds of a source that is on the reader's
	// list already: a newcomer must be better by that much, so that entries at
	// the end of the list do not flap. 0: 0.1; negative: none.
	Hysteresis float64

	MaxSources int // remembered, and as many networks; the longest unseen goes first: 1,000,000
	// MaxVictims is how many readers are told apart, at most 65,535; others
	// share their places by hash. 1,024.
	MaxVictims int
	// MaxSightings is how many readers are remembered per source, those of the
	// latest sightings, at most 64: 16.
	MaxSightings int
}

func (p Parameters) withDefaults() Parameters {
	const day = 24 * time.Hour
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&p.OwnHalfLife, 2 * day},
		{&p.HabitHalfLife, 40 * day},
		{&p.NeighbourHalfLife, 7 * day},
		{&p.NetworkHalfLife, 3 * day},
		{&p.ReturnWindow, 7 * day},
		{&p.SimilarityHalfLife, 30 * day},
		{&p.Forget, 60 * day},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	for _, n := range []struct {
		field *int
		value int
	}{{&p.MaxSources, 1_000_000}, {&p.MaxVictims, 1024}, {&p.MaxSightings, 16}} {
		if *n.field <= 0 {
			*n.field = n.value
		}
	}
	p.MaxVictims = min(p.MaxVictims, math.MaxUint16)
	p.MaxSightings = min(p.MaxSightings, maxSightings)
	p.Forget = max(p.Forget, day)
	switch {
	case p.Hysteresis == 0:
		p.Hysteresis = 0.1
	case p.Hysteresis < 0:
		p.Hysteresis = 0
	}
	if p.Weights == (Weights{}) {
		p.Weights = DefaultWeights()
	}
	return p
}

// Sighting is one report: a source came to a victim.
type Sighting struct {
	Victim    string // who reports, and reads lists: a machine or an organisation
	Source    muster.Source
	Behaviour string    // scenario or service aimed at; "" when not known
	At        time.Time // 1970 or later
	Weight    float64   // of the report, usually 0 to 1; 0: 1
}

// Model remembers who was visited by whom. It is not safe for concurrent use,
// save that any number of Boards may be made and used at a time while nothing is
// observed and Age is not called.
type Model struct {
	p        Parameters
	sources  table
	networks table

	victims     map[string]uint16
	victimNames []string // by place; "" is free
	freeVictims []uint16
	similarity  matrix

	behaviours map[string]uint16
	rates      []returns // by behaviour; the first is all others
	aged       minute    // when Age was called last
}

const maxSightings = 64

// maxBehaviours bounds the behaviours whose rate of return is kept.
const maxBehaviours = 4096

// returns counts visits (days on which a source was seen) and those that had a
// successor within the return window.
type returns struct{ visits, returned float64 }

// New returns a Model that knows nothing yet.
func New(p Parameters) *Model {
	p = p.withDefaults()
	return &Model{
		p:          p,
		sources:    newTable(p.MaxSources),
		networks:   newTable(p.MaxSources),
		victims:    map[string]uint16{},
		behaviours: map[string]uint16{},
		rates:      make([]returns, 1),
	}
}

// Parameters returns what the model goes by, with the defaults filled in.
func (m *Model) Parameters() Parameters { return m.p }

// Knows reports whether something is remembered of a victim, or of one that
// shares its place for want of more.
func (m *Model) Knows(victim string) bool { return m.reader(victim) != nobody }

// Sources returns how many sources are remembered.
func (m *Model) Sources() int { return len(m.sources.index) }

// Observe adds a sighting. Several within one hour count as one; one that is
// older than the last of the same source at the same victim changes nothing.
// Invalid sources are ignored. It costs about a
// microsecond.
func (m *Model) Observe(s Sighting) {
	if !s.Source.IsValid() {
		return
	}
	if s.Weight == 0 {
		s.Weight = 1
	}
	at, victim, behaviour := minuteOf(s.At), m.victim(s.Victim), m.behaviour(s.Behaviour)
	k := keyOf(s.Source)
	e, known := m.sources.get(k)
	if known && at.day() > e.last.day() {
		if at.since(e.last) <= m.p.ReturnWindow {
			m.rates[e.behaviour].returned++
		}
		e.visited(at, m.p.HabitHalfLife)
	}
	switch {
	case !known || at.day() > e.last.day():
		m.rates[behaviour].visits++
	case at >= e.last && behaviour != e.behaviour: // a visit is of its last behaviour, as its return is
		m.rates[e.behaviour].visits = max(m.rates[e.behaviour].visits-1, 0)
		m.rates[behaviour].visits++
	}
	if !known || at >= e.last {
		e.last, e.behaviour = at, behaviour
	}
	seen := e.at(victim, at, m.p.MaxSightings)
	first := seen.recent == 0
	newHour := first || at.hour() > seen.last.hour()
	newDay := first || at.day() > seen.last.day()
	if !newHour {
		return
	}
	seen.fade(at, m.p.OwnHalfLife, m.p.HabitHalfLife)
	seen.recent += float32(s.Weight)
	if !newDay {
		return
	}
	seen.habit += float32(s.Weight)
	net, _ := m.networks.get(keyOf(muster.SourceFromPrefix(network(s.Source))))
	net.last = max(net.last, at)
	near := net.at(victim, at, m.p.MaxSightings)
	near.fade(at, m.p.NetworkHalfLife, m.p.NetworkHalfLife)
	near.recent += float32(s.Weight)
}

// Age forgets what is old and learns anew which readers are similar. Call it
// once a day; its cost grows with the number of sources (under a second for a
// million).
func (m *Model) Age(now time.Time) {
	at := minuteOf(now)
	m.sources.forget(at, m.p.Forget)
	m.networks.forget(at, m.p.Forget)
	if m.aged != 0 {
		fade := halved(at.since(m.aged), m.p.SimilarityHalfLife)
		for i := range m.rates {
			m.rates[i].visits *= fade
			m.rates[i].returned *= fade
		}
	}
	m.aged = at
	m.learnSimilarity(at)
}

// victim returns the place of a victim, giving it one if there is a free one.
func (m *Model) victim(name string) uint16 {
	if v, ok := m.victims[name]; ok {
		return v
	}
	var v uint16
	switch {
	case len(m.freeVictims) > 0:
		v = m.freeVictims[len(m.freeVictims)-1]
		m.freeVictims = m.freeVictims[:len(m.freeVictims)-1]
	case len(m.victimNames) < m.p.MaxVictims:
		v = uint16(len(m.victimNames))
		m.victimNames = append(m.victimNames, "")
	default:
		return m.shared(name)
	}
	m.victims[name], m.victimNames[v] = v, name
	return v
}

// reader returns the place of a reader, or nobody when it never saw anything.
func (m *Model) reader(name string) int {
	if v, ok := m.victims[name]; ok {
		return int(v)
	}
	if len(m.freeVictims) == 0 && len(m.victimNames) == m.p.MaxVictims {
		return int(m.shared(name))
	}
	return nobody
}

const nobody = -1

func (m *Model) shared(name string) uint16 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash.Hash never returns an error
	return uint16(h.Sum32() % uint32(m.p.MaxVictims))
}

func (m *Model) behaviour(name string) uint16 {
	if name == "" {
		return 0
	}
	b, ok := m.behaviours[name]
	if !ok && len(m.rates) < maxBehaviours {
		b = uint16(len(m.rates))
		m.behaviours[name] = b
		m.rates = append(m.rates, returns{})
	}
	return b
}

// returnOdds is the log-odds that a source of behaviour b is seen again within
// the return window, drawn to all sources' as long as few of b were seen.
func (m *Model) returnOdds(b uint16, overall float64) float64 {
	const few = 5
	r := m.rates[b]
	p := (r.returned + few*overall) / (r.visits + few)
	p = min(max(p, 0.001), 0.999)
	return math.Log(p / (1 - p))
}

func (m *Model) overallReturn() float64 {
	all := returns{visits: 2, returned: 1}
	for _, r := range m.rates {
		all.visits += r.visits
		all.returned += r.returned
	}
	return all.returned / all.visits
}

// network is what addresses of one owner are likely to be in: the /24 of a v4
// address, the /48 of a v6 address; a range wider than that is its own.
func network(s muster.Source) netip.Prefix {
	p, bits := s.Prefix(), 24
	if p.Addr().Is6() {
		bits = 48
	}
	if p.Bits() <= bits {
		return p
	}
	return netip.PrefixFrom(p.Addr(), bits).Masked()
}

package cti

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"muster"
)

// Evidence is all that is known about an address at one moment.
type Evidence struct {
	Addr netip.Addr
	Now  time.Time
	Days []DatedDay // in order; those older than three months are passed over

	// Verdict is the network's on the address, or on what is judged in its place,
	// nil for none; Listed is where it stands on the network's list, the zero entry
	// for nowhere.
	Verdict *muster.Verdict
	Listed  muster.ListEntry

	Good Good
	Why  string // from where, and why, a canary is known to be good

	Place      Place
	ReverseDNS string
	// Near is how many addresses are listed in the /24 of an IPv4 address, or the
	// /56 of an IPv6 one, and Around in Place.Network.
	Near, Around int
	Active       int // organisations that take part in the network
}

// DatedDay is a Day with which it is.
type DatedDay struct {
	Number int64 // days since 1970, UTC
	*Day
}

// The windows, narrowest first; each holds the ones before.
const (
	day = iota
	week
	month
	overall
	windows
)

var windowLengths = [windows]time.Duration{24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour, MaxAge}

// MaxAge is for how long reports matter.
const MaxAge = 90 * 24 * time.Hour

// summary is what days come to.
type summary struct {
	reporters  []reporter // by organisation
	behaviours []attack
	scenarios  []attack // by name
	bouts      [windows]float64
	evidence   [windows]float64 // as a share of what a listing takes
	systems    [windows]int     // AS, or organisations of which it is not known
	hours      [windows]int     // in which it was active, those of the day and the week being exact
	span       float64          // hours from the first to the last report of the week
	counts     [windows]int     // organisations
	first      time.Time        // zero = never
	last       time.Time
}

// reporter is an organisation with what it said within each window.
type reporter struct {
	organisation uint32
	asn          uint32
	country      [2]byte
	bouts        [windows]int
	evidence     [windows]float64 // points
}

// attack is a behaviour or a scenario, with who reported it.
type attack struct {
	name     string
	signals  uint64
	window   int // the narrowest in which it was reported
	by       [windows]int
	believed [windows]bool // somebody whose word alone is enough reported it
	who      []witness
}

// witness is an organisation, and the narrowest window in which it reported an
// attack.
type witness struct {
	organisation uint32
	window       int
}

// maxWitnesses bounds those of one attack; no number in Parameters needs more.
const maxWitnesses = 64

// summarise adds days up.
func (p *Parameters) summarise(v *Vocabulary, e *Evidence) *summary {
	s := &summary{}
	at := map[uint32]int{} // reporters, by organisation
	behaviours, scenarios := map[string]int{}, map[string]int{}
	var counts [windows]sketch
	oldest := DayOf(e.Now.Add(-MaxAge))
	if e.cleared() {
		oldest = max(oldest, DayOf(e.Verdict.Changed)+1)
	}
	var firstOfWeek time.Time
	for _, d := range e.Days {
		if d.Day == nil || d.Signals == 0 || d.Number < oldest {
			continue
		}
		midnight := time.Unix(d.Number*86400, 0).UTC()
		first, last := midnight.Add(time.Duration(d.First)*time.Second), midnight.Add(time.Duration(d.Last)*time.Second)
		if s.first.IsZero() || first.Before(s.first) {
			s.first = first
		}
		if last.After(s.last) {
			s.last = last
		}
		var open [windows]uint32 // the hours that are in each window
		for w, length := range windowLengths {
			open[w] = hoursSince(d.Number, e.Now.Add(-length))
			active := hours(d.Hours & open[w])
			s.hours[w] += active
			if active > 0 {
				counts[w].join(&d.organisations)
			}
		}
		if d.Hours&open[week] != 0 && firstOfWeek.IsZero() {
			firstOfWeek = midnight.Add(time.Duration(lowestHour(d.Hours&open[week])) * time.Hour)
		}
		p.addDay(s, v, e.Now, d, open, at, behaviours, scenarios)
	}
	if !firstOfWeek.IsZero() {
		s.span = s.last.Sub(firstOfWeek).Hours() + 1
	}
	for w := range windows {
		s.counts[w] = counts[w].count()
		p.addUp(s, w)
	}
	return s
}

func lowestHour(set uint32) int {
	for h := range 24 {
		if set>>h&1 == 1 {
			return h
		}
	}
	return 0
}

// addDay adds what the voices of one day said.
func (p *Parameters) addDay(s *summary, v *Vocabulary, now time.Time, d DatedDay, open [windows]uint32, at map[uint32]int, behaviours, scenarios map[string]int) {
	midnight := time.Unix(d.Number*86400, 0)
	narrowest := make([]int, len(d.voices))
	believed := make([]bool, len(d.voices))
	worth := make([]float64, len(d.voices))
	for i := range d.scenarios {
		known := v.scenario(d.scenarios[i].name)
		w := p.Confidence[known.Confidence] * p.Spoofable[known.Spoofable]
		for b := range d.voices {
			if d.scenarios[i].by>>b&1 == 1 {
				worth[b] = max(worth[b], w)
			}
		}
	}
	for i := range d.voices {
		voice := &d.voices[i]
		n, ok := at[voice.organisation]
		if !ok {
			n = len(s.reporters)
			at[voice.organisation] = n
			s.reporters = append(s.reporters, reporter{organisation: voice.organisation})
		}
		r := &s.reporters[n]
		if voice.asn != 0 {
			r.asn = voice.asn
		}
		if voice.country[0] != 0 {
			r.country = voice.country
		}
		narrowest[i] = windows
		believed[i] = voice.honeypot || voice.rank >= p.TrustedRank
		points := p.Points[min(voice.rank, 5)]
		if voice.honeypot {
			points = max(points, p.Honeypot)
		}
		for w := range windows {
			said := hours(voice.hours & open[w])
			if said == 0 {
				continue
			}
			narrowest[i] = min(narrowest[i], w)
			r.bouts[w] += said
			age := now.Sub(midnight.Add(time.Duration(highestHour(voice.hours)+1) * time.Hour))
			decay := math.Exp2(-max(0, age.Hours()) / p.HalfLife[w].Hours())
			r.evidence[w] = max(r.evidence[w], points*worth[i]*decay)
		}
	}
	for i := range d.scenarios {
		seen := &d.scenarios[i]
		a := attackOf(&s.scenarios, scenarios, seen.name)
		a.signals += uint64(seen.signals)
		known := v.scenario(seen.name)
		list := known.Behaviours
		if len(list) == 0 {
			list = unclassified
		}
		for _, name := range list {
			attackOf(&s.behaviours, behaviours, name).signals += uint64(seen.signals)
		}
		for b := range d.voices {
			if seen.by>>b&1 == 0 || narrowest[b] == windows {
				continue
			}
			w := witness{d.voices[b].organisation, narrowest[b]}
			attackOf(&s.scenarios, scenarios, seen.name).add(w, believed[b])
			for _, name := range list {
				attackOf(&s.behaviours, behaviours, name).add(w, believed[b])
			}
		}
	}
}

// unclassified is the behaviour of scenarios that have none.
var unclassified = []string{""}

func highestHour(set uint32) int {
	for h := 23; h > 0; h-- {
		if set>>h&1 == 1 {
			return h
		}
	}
	return 0
}

func attackOf(list *[]attack, at map[string]int, name string) *attack {
	n, ok := at[name]
	if !ok {
		n = len(*list)
		at[name] = n
		*list = append(*list, attack{name: name, window: windows})
	}
	return &(*list)[n]
}

// add notes that an organisation reported an attack.
func (a *attack) add(w witness, believed bool) {
	a.window = min(a.window, w.window)
	if believed {
		for i := w.window; i < windows; i++ {
			a.believed[i] = true
		}
	}
	from := windows
	at := slices.IndexFunc(a.who, func(x witness) bool { return x.organisation == w.organisation })
	switch {
	case at >= 0:
		from = a.who[at].window
		a.who[at].window = min(from, w.window)
	case len(a.who) < maxWitnesses:
		a.who = append(a.who, w)
	default:
		return
	}
	for i := w.window; i < from; i++ {
		a.by[i]++
	}
}

// addUp counts what all said within a window. Of one AS the first counts in full,
// the next ones for ever smaller shares.
func (p *Parameters) addUp(s *summary, w int) {
	slices.SortFunc(s.reporters, func(a, b reporter) int {
		return cmp.Or(cmp.Compare(a.asn, b.asn), cmp.Compare(b.evidence[w], a.evidence[w]), cmp.Compare(a.organisation, b.organisation))
	})
	points, share, kept, asn := 0., 1., 0, uint32(0)
	for i := range s.reporters {
		r := &s.reporters[i]
		if r.bouts[w] == 0 {
			continue
		}
		share *= p.SameAS
		if r.asn == 0 || r.asn != asn {
			share, asn = 1, r.asn
			s.systems[w]++
		}
		points += share * r.evidence[w]
		s.bouts[w] += float64(r.bouts[w])
		kept++
	}
	s.evidence[w] = points / p.Threshold
	if kept > 0 && s.counts[w] > kept { // voices that were not kept said as much as those that were
		s.bouts[w] *= float64(s.counts[w]) / float64(kept)
	}
}

package simulate

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"

	"github.com/goccy/go-yaml"
)

// Scenario is a story that is simulated: a world, for so many days, with one
// adversary or none, and what is expected of the engine in it.
type Scenario struct {
	Name  string `yaml:"name"`
	About string `yaml:"about"`
	// Days are simulated; the first begins at midnight UTC with an empty network.
	Days int `yaml:"days"`
	// MeasureFrom is the day from which delays and blocking count; what is
	// published counts from the first day.
	MeasureFrom int       `yaml:"measure_from"`
	World       World     `yaml:"world"`
	Adversary   Adversary `yaml:"adversary"`
	// Targets hold measures, by name, against a limit; a limit is met by a value
	// on the good side of it or equal to it.
	Targets map[string]float64 `yaml:"targets"`
}

// World says who is there. Zero values of a scenario file stand for the
// defaults of DefaultWorld; -1 stands for none.
type World struct {
	Watchers      int     `yaml:"watchers"`      // honest machines
	Organisations int     `yaml:"organisations"` // that they belong to, Zipf sizes
	Networks      int     `yaml:"networks"`      // AS that they are in, Zipf sizes
	Hoster        float64 `yaml:"hoster"`        // share of organisations that are in the largest AS beside those by its size
	Honeypots     int     `yaml:"honeypots"`     // the operator's, in as many AS as there are
	Attackers     int     `yaml:"attackers"`     // new ones a day, beside background scanners
	Scanners      int     `yaml:"scanners"`      // background scanners at a time
	Benign        int     `yaml:"benign"`        // good addresses that get reported by mistake
	Popularity    float64 `yaml:"popularity"`    // exponent of the Zipf law by which mistakes fall on them
	Shared        int     `yaml:"shared"`        // of those: carrier NATs; the engine knows four of five
	Crawlers      int     `yaml:"crawlers"`      // of those: crawlers, which look like scrapers
	Canaries      int     `yaml:"canaries"`      // good addresses that must never be listed; the engine knows every second one
	Mistakes      float64 `yaml:"mistakes"`      // false reports per watcher and day
	Forged        float64 `yaml:"forged"`        // packets a day with a good address as their forged sender
	Blocking      float64 `yaml:"blocking"`      // share of watchers that block what is listed, and so do not report it
	Intensity     float64 `yaml:"intensity"`     // factor on the rate of every attacker
	ListLines     int     `yaml:"list_lines"`    // length of the list, the engine's and the oracle's
	// TwitchyDay is a day on which an update makes one behaviour report good
	// addresses a hundred times as often as all others; -1 = never.
	TwitchyDay int `yaml:"twitchy_day"`
}

// DefaultWorld is the world of the design. Mistakes are so many and so spread
// that listing whom three watchers report in 72 hours lists about eight good
// addresses in 160 days, as the prototype found.
func DefaultWorld() World {
	return World{
		Watchers: 2000, Organisations: 1200, Networks: 300, Honeypots: 60,
		Attackers: 400, Scanners: 40, Benign: 3000, Shared: 200, Crawlers: 30, Canaries: 400,
		Popularity: 0.4, Mistakes: 0.02, Forged: 20, Blocking: 0.7, Intensity: 1, ListLines: 15000, TwitchyDay: -1,
	}
}

// Disguise is what an adversary's machines do until they attack.
type Disguise string

// The disguises.
const (
	Silent  Disguise = "silent"  // nothing
	Genuine Disguise = "genuine" // they are attacked as others are and report it; they go on with it later
	Copy    Disguise = "copy"    // they repeat what is listed
	Ring    Disguise = "ring"    // they report invented addresses and corroborate each other
)

// Aim is what an adversary's attack is about.
type Aim string

// The aims.
const (
	Nothing   Aim = ""          // there is no adversary
	Slander   Aim = "slander"   // to get good addresses listed, other ones every day
	SlanderIt Aim = "slander-1" // to get one good address listed, every day again
	Probe     Aim = "canaries"  // to find canaries out, and to get them listed
	Bomb      Aim = "bomb"      // to ruin the trust of the most trusted honest watchers
	BombForge Aim = "bomb-forged"
	Whitewash Aim = "whitewash" // to get attackers off the list by unbans, and to go on
	Flood     Aim = "flood"     // to drown the engine in reports
)

// Adversary is the machines of one attacker of the network, and what they do.
type Adversary struct {
	Aim      Aim      `yaml:"aim"`
	Share    float64  `yaml:"share"`    // of all watchers; or
	Machines int      `yaml:"machines"` // so many
	Networks int      `yaml:"networks"` // AS that they are in, where honest watchers are too
	Joins    int      `yaml:"joins"`    // day on which they are enrolled
	Disguise Disguise `yaml:"disguise"` // until they attack
	Attacks  int      `yaml:"attacks"`  // day on which the attack begins; it lasts to the end
	// PerDay is the number of good addresses slandered, canaries tried,
	// addresses invented, attackers that whitewash, or reports per flooding
	// machine a day.
	PerDay int `yaml:"per_day"`
	Votes  int `yaml:"votes"` // machines that slander each address, of as many AS as possible; 0 = all
}

//go:embed scenarios.yaml
var builtIn []byte

// BuiltIn returns the scenarios that come with Muster.
func BuiltIn() []Scenario {
	all, err := Read(bytes.NewReader(builtIn), "scenarios.yaml")
	if err != nil {
		panic(err) // the tests read it
	}
	return all
}

// BuiltInYAML returns them as they are written.
func BuiltInYAML() []byte { return bytes.Clone(builtIn) }

// Read reads scenarios from a YAML stream of one document each. Unknown fields,
// values out of range and names given twice are errors; file names the stream
// in them.
func Read(r io.Reader, file string) ([]Scenario, error) {
	dec := yaml.NewDecoder(r, yaml.Strict())
	var all []Scenario
	for {
		s := Scenario{}
		err := dec.Decode(&s)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: scenario %d: %w", file, len(all)+1, err)
		}
		s.fill()
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("%s: scenario %d (%q): %w", file, len(all)+1, s.Name, err)
		}
		if slices.ContainsFunc(all, func(o Scenario) bool { return o.Name == s.Name }) {
			return nil, fmt.Errorf("%s: there are two scenarios of the name %q; expected different ones", file, s.Name)
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no scenario; expected at least one YAML document with name and days", file)
	}
	return all, nil
}

// fill puts defaults in place of what was left out.
func (s *Scenario) fill() {
	d := DefaultWorld()
	whole := func(v *int, def int) {
		switch {
		case *v == 0:
			*v = def
		case *v == -1:
			*v = 0
		}
	}
	broken := func(v *float64, def float64) {
		switch *v {
		case 0:
			*v = def
		case -1:
			*v = 0
		}
	}
	w := &s.World
	whole(&w.Watchers, d.Watchers)
	whole(&w.Organisations, min(d.Organisations, w.Watchers))
	whole(&w.Networks, min(d.Networks, w.Organisations))
	whole(&w.Honeypots, d.Honeypots)
	whole(&w.Attackers, d.Attackers)
	whole(&w.Scanners, d.Scanners)
	whole(&w.Benign, d.Benign)
	whole(&w.Shared, min(d.Shared, w.Benign))
	whole(&w.Crawlers, min(d.Crawlers, w.Benign))
	whole(&w.Canaries, d.Canaries)
	whole(&w.ListLines, d.ListLines)
	broken(&w.Popularity, d.Popularity)
	broken(&w.Mistakes, d.Mistakes)
	broken(&w.Forged, d.Forged)
	broken(&w.Blocking, d.Blocking)
	broken(&w.Intensity, d.Intensity)
	if w.TwitchyDay == 0 {
		w.TwitchyDay = -1
	}
	if s.Adversary.Disguise == "" {
		s.Adversary.Disguise = Silent
	}
	if s.Adversary.PerDay == 0 {
		s.Adversary.PerDay = 20
	}
}

// named is what a scenario may be called: it ends up in file names and URLs.
var named = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

func (s *Scenario) check() error {
	w, a := &s.World, &s.Adversary
	type limit struct {
		name     string
		got      float64
		from, to float64
	}
	limits := []limit{
		{"days", float64(s.Days), 1, 2000},
		{"measure_from", float64(s.MeasureFrom), 0, float64(s.Days - 1)},
		{"world.watchers", float64(w.Watchers), 1, 100_000},
		{"world.organisations", float64(w.Organisations), 1, float64(w.Watchers)},
		{"world.networks", float64(w.Networks), 1, float64(w.Organisations)},
		{"world.hoster", w.Hoster, 0, 1},
		{"world.honeypots", float64(w.Honeypots), 0, 10_000},
		{"world.attackers", float64(w.Attackers), 0, 100_000},
		{"world.scanners", float64(w.Scanners), 0, 10_000},
		{"world.benign", float64(w.Benign), 1, 1_000_000},
		{"world.shared", float64(w.Shared), 0, float64(w.Benign)},
		{"world.crawlers", float64(w.Crawlers), 0, float64(w.Benign - w.Shared)},
		{"world.canaries", float64(w.Canaries), 0, 100_000},
		{"world.popularity", w.Popularity, 0, 2},
		{"world.mistakes", w.Mistakes, 0, 100},
		{"world.forged", w.Forged, 0, 1e6},
		{"world.blocking", w.Blocking, 0, 1},
		{"world.intensity", w.Intensity, 0, 100},
		{"world.list_lines", float64(w.ListLines), 1, 10_000_000},
		{"world.twitchy_day", float64(w.TwitchyDay), -1, float64(s.Days - 1)},
	}
	if a.Aim != Nothing {
		limits = append(limits,
			limit{"adversary.share", a.Share, 0, 0.95},
			limit{"adversary.machines", float64(a.Machines), 0, 100_000},
			limit{"adversary.networks", float64(a.Networks), 1, float64(w.Networks)},
			limit{"adversary.joins", float64(a.Joins), 0, float64(a.Attacks)},
			limit{"adversary.attacks", float64(a.Attacks), float64(a.Joins), float64(s.Days - 1)},
			limit{"adversary.per_day", float64(a.PerDay), 1, 1e6},
			limit{"adversary.votes", float64(a.Votes), 0, 100_000})
	}
	if !named.MatchString(s.Name) {
		return fmt.Errorf("name is %q; expected small letters, digits and single hyphens", s.Name)
	}
	for _, l := range limits {
		if math.IsNaN(l.got) || l.got < l.from || l.got > l.to {
			return fmt.Errorf("%s is %v; expected %v to %v", l.name, l.got, l.from, l.to)
		}
	}
	if !slices.Contains([]Aim{Nothing, Slander, SlanderIt, Probe, Bomb, BombForge, Whitewash, Flood}, a.Aim) {
		return fmt.Errorf("adversary.aim is %q; expected slander, slander-1, canaries, bomb, bomb-forged, whitewash or flood", a.Aim)
	}
	if !slices.Contains([]Disguise{Silent, Genuine, Copy, Ring}, a.Disguise) {
		return fmt.Errorf("adversary.disguise is %q; expected silent, genuine, copy or ring", a.Disguise)
	}
	if a.Aim != Nothing && a.Aim != Whitewash && (a.Share > 0) == (a.Machines > 0) {
		return errors.New("expected one of adversary.share and adversary.machines over zero")
	}
	for name, limit := range s.Targets {
		if _, ok := measureNamed(name); !ok {
			return fmt.Errorf("targets: %q is no measure; expected one of %v", name, measureNames())
		}
		if math.IsNaN(limit) || math.IsInf(limit, 0) {
			return fmt.Errorf("targets: %s is %v; expected a number", name, limit)
		}
	}
	return nil
}

// Scaled returns the scenario with a world so many times as large. Rates of
// single attackers and shares stay, so that delays can be compared.
func (s Scenario) Scaled(factor float64) Scenario {
	times := func(v *int, least int) {
		if *v > 0 {
			*v = max(least, int(math.Round(float64(*v)*factor)))
		}
	}
	w, a := &s.World, &s.Adversary
	times(&w.Watchers, 1)
	times(&w.Organisations, 1)
	w.Organisations = min(w.Organisations, w.Watchers)
	times(&w.Networks, 1)
	w.Networks = min(w.Networks, w.Organisations)
	times(&w.Honeypots, 1)
	times(&w.Attackers, 1)
	times(&w.Scanners, 1)
	times(&w.Benign, 1)
	times(&w.Shared, 1)
	w.Shared = min(w.Shared, w.Benign)
	times(&w.Crawlers, 1)
	w.Crawlers = min(w.Crawlers, w.Benign-w.Shared)
	times(&w.Canaries, 2)
	w.Forged *= factor
	times(&a.Machines, 1)
	a.Networks = min(a.Networks, w.Networks)
	return s
}

// Shortened returns the scenario told in so many days: the days on which things
// happen move in proportion.
func (s Scenario) Shortened(days int) Scenario {
	if days <= 0 || days >= s.Days {
		return s
	}
	move := func(v *int) {
		if *v > 0 {
			*v = min(*v*days/s.Days, days-1)
		}
	}
	move(&s.MeasureFrom)
	move(&s.World.TwitchyDay)
	move(&s.Adversary.Joins)
	move(&s.Adversary.Attacks)
	s.Days = days
	return s
}

// machines returns how many machines the adversary has.
func (s *Scenario) machines() int {
	a := &s.Adversary
	if a.Aim == Nothing || a.Machines > 0 || a.Share <= 0 {
		return a.Machines
	}
	return int(math.Ceil(a.Share / (1 - a.Share) * float64(s.World.Watchers)))
}

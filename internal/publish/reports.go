package publish

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"muster"
)

// Reports remembers what organisations reported lately, as far as their lists
// depend on it: sources, scenarios, and how much of it counted for the network.
// Its methods are safe for concurrent use.
type Reports struct {
	window time.Duration
	now    func() time.Time

	mu            sync.Mutex
	organisations map[string]*reported
	sources       int // of all organisations

	views sync.Map // organisation → *reportedView
	asked chan struct{}
	ask   func()
}

// reported is what one organisation reported.
type reported struct {
	sources   map[key]uint32    // when last, Unix seconds
	scenarios map[string]uint32 // the same
	counted   map[uint32]int    // signals that counted, by hour since 1970
	changed   bool
}

// reportedView is what readers see of it.
type reportedView struct {
	sources   []muster.Source
	favoured  uint64 // stands for sources
	scenarios []string
	footprint uint64 // stands for scenarios
	counted   int
}

const (
	// maxOwnSources is remembered of an organisation, maxAllSources of all; more
	// are not taken until others are forgotten.
	maxOwnSources = 2_000
	maxAllSources = 500_000
	// maxReportedScenarios is remembered of an organisation.
	maxReportedScenarios = 1_000
)

// NewReports returns a memory that reaches back over a window.
func NewReports(window time.Duration, now func() time.Time) *Reports {
	asked := make(chan struct{})
	return &Reports{
		window: window, now: now, organisations: map[string]*reported{},
		asked: asked, ask: sync.OnceFunc(func() { close(asked) }),
	}
}

// Asked is closed when somebody wants to know something for the first time:
// before that nothing needs to be observed.
func (m *Reports) Asked() <-chan struct{} { return m.asked }

// Observe takes in a signal that was accepted from an organisation's machine.
func (m *Reports) Observe(s *muster.Signal) {
	if s.Organisation == "" || s.Received.Before(m.now().Add(-m.window)) {
		return
	}
	at := seconds(s.Received)
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.organisations[s.Organisation]
	if o == nil {
		o = &reported{sources: map[key]uint32{}, scenarios: map[string]uint32{}, counted: map[uint32]int{}}
		m.organisations[s.Organisation] = o
	}
	if s.Flags&muster.Counts != 0 {
		o.counted[at/3600]++
		o.changed = true
	}
	if _, known := o.scenarios[s.Scenario]; known || len(o.scenarios) < maxReportedScenarios {
		o.changed = o.changed || !known
		o.scenarios[s.Scenario] = at
	}
	if s.Source.IsReserved() {
		return
	}
	k := keyOf(s.Source)
	_, known := o.sources[k]
	if known || len(o.sources) < maxOwnSources && m.sources < maxAllSources {
		o.sources[k] = at
		if !known {
			m.sources++
			o.changed = true
		}
	}
}

// Refresh forgets what is older than the window and shows readers what is left;
// call it once a minute.
func (m *Reports) Refresh() {
	oldest := seconds(m.now().Add(-m.window))
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, o := range m.organisations {
		before := len(o.sources) + len(o.scenarios) + len(o.counted)
		had := len(o.sources)
		maps.DeleteFunc(o.sources, func(_ key, at uint32) bool { return at < oldest })
		maps.DeleteFunc(o.scenarios, func(_ string, at uint32) bool { return at < oldest })
		maps.DeleteFunc(o.counted, func(hour uint32, _ int) bool { return hour < oldest/3600 })
		m.sources -= had - len(o.sources)
		left := len(o.sources) + len(o.scenarios) + len(o.counted)
		if left == 0 {
			delete(m.organisations, name)
			m.views.Delete(name)
			continue
		}
		if o.changed || left != before {
			m.views.Store(name, o.view())
			o.changed = false
		}
	}
}

// view copies what readers are to see, the sources seen last before others.
func (o *reported) view() *reportedView {
	v := &reportedView{scenarios: slices.Sorted(maps.Keys(o.scenarios))}
	for _, n := range o.counted {
		v.counted += n
	}
	keys := slices.Collect(maps.Keys(o.sources))
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(o.sources[b], o.sources[a]), bytes.Compare(a[:], b[:]))
	})
	h := xxh3.New()
	for i := range keys {
		_, _ = h.Write(keys[i][:]) // a hash takes everything
		v.sources = append(v.sources, keys[i].source())
	}
	v.favoured = h.Sum64()
	h.Reset()
	for _, s := range v.scenarios {
		_, _ = h.WriteString(s + "\n")
	}
	v.footprint = h.Sum64()
	return v
}

func (m *Reports) of(organisation string) *reportedView {
	m.ask()
	if v, ok := m.views.Load(organisation); ok {
		return v.(*reportedView)
	}
	return &reportedView{}
}

// Sources returns what an organisation reported, as of the last Refresh, with a
// number that stands for it; it must not be changed.
func (m *Reports) Sources(organisation string) ([]muster.Source, uint64) {
	v := m.of(organisation)
	return v.sources, v.favoured
}

// Scenarios returns those that an organisation reported, as of the last Refresh,
// with a number that stands for them; they must not be changed.
func (m *Reports) Scenarios(organisation string) ([]string, uint64) {
	v := m.of(organisation)
	return v.scenarios, v.footprint
}

// Counted returns how many signals of an organisation within the window counted
// for the network, as of the last Refresh: those of unmodified hub scenarios.
func (m *Reports) Counted(organisation string) int { return m.of(organisation).counted }

package publish

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/tailor"
)

// RankingsConfig sets up Rankings. Now is required.
type RankingsConfig struct {
	Sources    int // remembered at most; 0 = 200,000. Each takes about 300 bytes
	Now        func() time.Time
	Registerer prometheus.Registerer // nil: no metrics
}

// Rankings ranks, for organisations whose readers get lists of limited length,
// what is published by how likely it comes to them next. It learns from reports;
// lists are made by Publisher.Rank, beside the pulls, which take the last one
// there is. Its methods are safe for concurrent use.
type Rankings struct {
	cfg   RankingsConfig
	lists *cache[string, *ranked] // by organisation

	mu    sync.Mutex // guards the model, which is not safe, and what is below
	model *tailor.Model
	ready bool      // what was reported before the start is known
	aged  time.Time // when the model was aged
	idle  time.Time // nothing is ranked before
	count uint64    // of lists that were made

	took prometheus.Histogram
}

// ranked is the list of an organisation.
type ranked struct {
	used atomic.Int64 // when a reader asked last, Unix seconds
	size atomic.Int64 // of the longest list that was asked for
	last atomic.Pointer[rankedList]
}

// rankedList is immutable.
type rankedList struct {
	sources []key // best first
	version uint64
	at      time.Time // when it was made
}

const (
	// maxRanked is how many places of a list are given by rank at most: beyond them
	// it hardly matters by what one chooses, and each has to be encoded for the
	// organisation alone.
	maxRanked = 3_000
	// maxRankings bounds the lists in memory, 51 KB each.
	maxRankings = 1024
	// rankEvery is how long a list is good for.
	rankEvery = 15 * time.Minute
	// rankFor is how long a list is kept up to date when nobody asks: engines do
	// every two hours.
	rankFor = 3 * time.Hour
	// ageEvery is how often similarities of organisations are learnt anew.
	ageEvery = time.Hour
	// rankShare bounds the time spent on ranking: a twentieth of a processor.
	rankShare = 20
)

// NewRankings returns Rankings that know nothing yet.
func NewRankings(cfg RankingsConfig) *Rankings {
	if cfg.Sources <= 0 {
		cfg.Sources = 200_000
	}
	m := &Rankings{
		cfg: cfg, lists: newCache[string, *ranked](maxRankings),
		model: tailor.New(tailor.Parameters{MaxSources: cfg.Sources}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_ranking_seconds", Help: "Time to rank what is published for the organisations whose turn it was.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(m.took)
	}
	return m
}

// Observe takes in a signal that was accepted from an organisation's machine. Only
// what may influence the network counts.
func (m *Rankings) Observe(s *muster.Signal) {
	if s.Organisation == "" || s.Flags&muster.Counts == 0 || !s.Source.IsValid() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.model.Observe(tailor.Sighting{
		Victim: s.Organisation, Source: muster.SourceFromPrefix(s.Source.Group()), Behaviour: s.Scenario, At: s.At,
	})
}

// Ready says that what was reported before the start has been observed: until
// then nothing is ranked.
func (m *Rankings) Ready() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready = true
}

// of returns what is ranked for an organisation, nil if nothing is yet, and has it
// ranked from now on.
func (m *Rankings) of(organisation string, size int, now time.Time) *rankedList {
	r := m.lists.get(organisation, func() *ranked { return new(ranked) }, func(r *ranked) int64 { return r.used.Load() })
	if at := now.Unix(); r.used.Load() != at {
		r.used.Store(at)
	}
	if n := int64(min(size, maxRanked)); r.size.Load() < n {
		r.size.Store(n)
	}
	return r.last.Load()
}

// due returns the organisations whose list is to be made, by name.
func (m *Rankings) due(now time.Time) map[string]*ranked {
	m.mu.Lock()
	ready := m.ready && !now.Before(m.idle)
	m.mu.Unlock()
	due := map[string]*ranked{}
	if !ready {
		return due
	}
	m.lists.each(func(organisation string, r *ranked) {
		if r.used.Load() < now.Add(-rankFor).Unix() {
			return
		}
		if l := r.last.Load(); l == nil || now.Sub(l.at) >= rankEvery {
			due[organisation] = r
		}
	})
	return due
}

// age has the model learn what changes slowly.
func (m *Rankings) age(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Sub(m.aged) >= ageEvery {
		m.model.Age(now)
		m.aged = now
	}
}

// Rank ranks what is published for the organisations whose limited readers were
// here lately, each at most every 15 minutes. Call it once a minute. With 50,000 sources
// it takes 0.1 s, and 5 ms for each organisation.
func (p *Publisher) Rank() {
	m := p.cfg.Rankings
	if m == nil {
		return
	}
	now := p.cfg.Now()
	due := m.due(now)
	if len(due) == 0 {
		return
	}
	m.age(now)
	candidates, scenarios, names := p.rankable(now)
	m.mu.Lock()
	board := m.model.Board(candidates, now)
	m.mu.Unlock()
	worths := make([]float64, len(names))
	for organisation, r := range due {
		var f *footprint
		if p.cfg.Reported != nil {
			reported, _ := p.cfg.Reported(organisation)
			f = newFootprint(reported, p.behaviour)
		}
		for i := range names {
			worths[i] = f.worth(&names[i]) * math.Ln2
		}
		m.rank(board, organisation, r, now, func(i int) float64 { return worths[scenarios[i]] })
	}
	took := p.cfg.Now().Sub(now)
	m.took.Observe(took.Seconds())
	m.mu.Lock()
	m.idle = now.Add(rankShare * took)
	m.mu.Unlock()
}

// rankable returns the addresses that engines are sent, with the place of what
// each is listed for among the names. Ranges are on every list anyway.
func (p *Publisher) rankable(now time.Time) (candidates []tailor.Candidate, scenarios []uint32, names []bucket) {
	p.mu.RLock()
	rows := slices.Clone(p.network.rows)
	names = make([]bucket, len(p.network.bucketList))
	for i, b := range p.network.bucketList {
		if b != nil {
			names[i] = bucket{bucketKey: b.bucketKey, behaviour: b.behaviour, service: b.service}
		}
	}
	p.mu.RUnlock()
	candidates = make([]tailor.Candidate, 0, len(rows))
	scenarios = make([]uint32, 0, len(rows))
	for i := range rows {
		r := &rows[i]
		if r.key == (key{}) || r.block == noBlock || names[r.bucket].wide || r.until <= seconds(now) {
			continue
		}
		candidates = append(candidates, tailor.Candidate{Source: r.key.source()})
		scenarios = append(scenarios, r.bucket)
	}
	return candidates, scenarios, names
}

// rank makes the list of an organisation. Those who never reported anything that
// is remembered get none: nothing is known that the shared lists do not go by.
func (m *Rankings) rank(board *tailor.Board, organisation string, r *ranked, now time.Time, worth func(i int) float64) {
	next := &rankedList{at: now}
	var listed []muster.Source
	last := r.last.Load()
	if last != nil {
		listed = make([]muster.Source, len(last.sources))
		for i := range last.sources {
			listed[i] = last.sources[i].source()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.model.Knows(organisation) {
		ranking := board.For(organisation)
		ranking.Adjust(worth)
		first := ranking.First(int(r.size.Load()), listed)
		next.sources = make([]key, len(first))
		for i := range first {
			next.sources[i] = keyOf(first[i].Source)
		}
	}
	if last != nil && slices.Equal(last.sources, next.sources) {
		next.version = last.version
	} else {
		m.count++
		next.version = m.count
	}
	r.last.Store(next)
}

// Package publish turns verdicts into editions: the exact bytes that a pull is
// answered with, made once per audience and copied to everybody who asks.
package publish

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
)

// Verdicts is the changelog that a Publisher follows.
type Verdicts interface {
	// Listed calls fn for every verdict that is listed, and for every one that
	// was withdrawn before the end that readers were told.
	Listed(ctx context.Context, fn func(muster.Verdict) error) error
	// Changed returns verdicts changed after since, oldest first: about limit of
	// them, and always all of one moment. Fewer than limit means that there are no
	// more.
	Changed(ctx context.Context, since time.Time, limit int) ([]muster.Verdict, error)
}

// Config sets up a Publisher.
type Config struct {
	Verdicts Verdicts
	// Overlap is how far each look at the changelog reaches back before the last
	// one: several judges may commit out of the order of their stamps. 0 fits one
	// judge, whose stamps only grow.
	Overlap    time.Duration
	Allowed    func(muster.Source) bool // last guard: true = must not be sent, whatever the verdict says
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// listing is one line of a blocklist as it is kept in memory.
type listing struct {
	scenario string
	until    time.Time
}

// audience is the published set for the whole network or one organisation.
type audience struct {
	listed    map[muster.Source]listing
	withdrawn map[muster.Source]time.Time // until when engines would still hold it
	version   uint64                      // grows with every change
}

// Publisher keeps the published sets in memory and answers pulls from prepared
// bytes. Its methods are safe for concurrent use.
type Publisher struct {
	cfg  Config
	wake chan struct{}

	mu        sync.RWMutex // guards audiences
	audiences map[muster.Audience]*audience
	followed  time.Time // changelog position; Run's own

	editions editions

	listed  prometheus.Gauge
	dropped prometheus.Counter
	built   prometheus.Histogram
}

// New returns a Publisher that publishes nothing until Load.
func New(cfg Config) *Publisher {
	p := &Publisher{
		cfg:       cfg,
		wake:      make(chan struct{}, 1),
		audiences: map[muster.Audience]*audience{},
		listed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muster_published_sources", Help: "Sources on the community blocklist.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_published_dropped_total", Help: "Entries that the outbound guard kept off an edition because engines would choke on them.",
		}),
		built: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_edition_build_seconds", Help: "Time to build one edition.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}),
	}
	p.editions.byKey = map[editionKey]*slot{}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(p.listed, p.dropped, p.built)
	}
	return p
}

// Load reads everything that is published now.
func (p *Publisher) Load(ctx context.Context) error {
	err := p.cfg.Verdicts.Listed(ctx, func(v muster.Verdict) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.apply(v)
		if v.Changed.After(p.followed) {
			p.followed = v.Changed
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the published list: %w", err)
	}
	return nil
}

// Notify tells the publisher that verdicts changed; it never blocks.
func (p *Publisher) Notify() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

const (
	// lookAnyway bounds the damage of a lost notification.
	lookAnyway = 10 * time.Second
	// maxChanges is read from the changelog at once.
	maxChanges = 1000
)

// Run follows the changelog until ctx ends.
func (p *Publisher) Run(ctx context.Context) error {
	tick := time.NewTicker(lookAnyway)
	defer tick.Stop()
	for {
		select {
		case <-p.wake:
		case <-tick.C:
			p.prune()
		case <-ctx.Done():
			return nil
		}
		if err := p.follow(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Logger.Error("the published list could not be brought up to date; editions are stale until the next try", "error", err)
		}
	}
}

// follow applies everything that changed since the last look.
func (p *Publisher) follow(ctx context.Context) error {
	since := p.followed.Add(-p.cfg.Overlap)
	for {
		vs, err := p.cfg.Verdicts.Changed(ctx, since, maxChanges)
		if err != nil {
			return err
		}
		p.mu.Lock()
		for _, v := range vs {
			p.apply(v)
		}
		p.mu.Unlock()
		if len(vs) > 0 {
			p.followed = vs[len(vs)-1].Changed
		}
		if len(vs) < maxChanges {
			return nil
		}
		since = p.followed
	}
}

// apply puts one verdict into its audience's set; p.mu is held.
func (p *Publisher) apply(v muster.Verdict) {
	a := p.audiences[v.Audience]
	if a == nil {
		a = &audience{listed: map[muster.Source]listing{}, withdrawn: map[muster.Source]time.Time{}}
		p.audiences[v.Audience] = a
	}
	old, was := a.listed[v.Source]
	switch {
	case v.Listed:
		if was && old.until.Equal(v.Until) && old.scenario == v.Scenario {
			return
		}
		a.listed[v.Source] = listing{v.Scenario, v.Until}
		delete(a.withdrawn, v.Source)
	case v.Until.After(p.cfg.Now()):
		if _, known := a.withdrawn[v.Source]; known {
			return
		}
		delete(a.listed, v.Source)
		a.withdrawn[v.Source] = v.Until
	case was:
		delete(a.listed, v.Source)
	default:
		return
	}
	a.version++
	if v.Audience == muster.Network {
		p.listed.Set(float64(len(a.listed)))
	}
}

// prune drops what lapsed by itself.
func (p *Publisher) prune() {
	now := p.cfg.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.audiences {
		for s, l := range a.listed {
			if !l.until.After(now) {
				delete(a.listed, s)
				a.version++
			}
		}
		for s, until := range a.withdrawn {
			if !until.After(now) {
				delete(a.withdrawn, s)
				a.version++
			}
		}
	}
	if a := p.audiences[muster.Network]; a != nil {
		p.listed.Set(float64(len(a.listed)))
	}
}

// Invalidate makes every edition be built anew: what Allowed says has changed.
func (p *Publisher) Invalidate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.audiences {
		a.version++
	}
}

// Count returns how many sources an audience has listed.
func (p *Publisher) Count(a muster.Audience) int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if set := p.audiences[a]; set != nil {
		return len(set.listed)
	}
	return 0
}

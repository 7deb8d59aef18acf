// Package publish turns verdicts into answers to pulls. What is published is kept
// in memory in blocks of some hundred addresses of one scenario; each is encoded
// and compressed once, when it has changed, and every answer is put together from
// such pieces: a pull copies bytes and computes nothing.
package publish

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/wire"
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

// Config sets up a Publisher. Verdicts, Allowed, Now and Logger are required. The
// functions about readers are called at every pull: they must not wait.
type Config struct {
	Verdicts Verdicts
	// Overlap is how far each look at the changelog reaches back before the last
	// one: several judges may commit out of the order of their stamps. 0 fits one
	// judge, whose stamps only grow.
	Overlap time.Duration
	Allowed func(muster.Source) bool // last guard: true = must not be sent, whatever the verdict says
	// Behaviour says what a scenario sees: "ssh:bruteforce", "" when that is not
	// known. nil: of none is.
	Behaviour func(scenario string) string

	// Tier says what a reader is entitled to. nil: everything.
	Tier func(*Reader) Tier
	// Reported returns the scenarios that an organisation reported lately, and a
	// number that stands for them. nil: nobody reported any.
	Reported func(organisation string) ([]string, uint64)
	// Allowlist returns what must not reach a member of an organisation, besides
	// what Allowed says, and a version that stands for it; nil and 0 for nothing.
	// Lists of one version have the same content. nil: there are none.
	Allowlist func(*Reader) (Allowlist, uint64)
	// Preferred returns what an organisation's readers get before all else if it is
	// listed, such as what they saw themselves, the latest first, and a version that
	// changes with it. Where there is a ranking, it decides how much most of it matters.
	// It is asked, as Reported and Rankings are, when not everything fits. nil:
	// nothing.
	Preferred func(*Reader) ([]muster.Source, uint64)
	// Rankings give places of a limited list to what comes to the reader's
	// organisation most likely. nil: all places go by points.
	Rankings *Rankings
	// Links returns what a reader is to fetch besides. nil: nothing.
	Links func(*Reader) wire.Links

	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Publisher keeps the published sets in memory and answers pulls from prepared
// bytes. Its methods are safe for concurrent use.
type Publisher struct {
	cfg  Config
	wake chan struct{}

	mu       sync.RWMutex // guards the sets
	network  *set
	fleets   sync.Map // muster.Audience → *set
	truth    atomic.Uint64
	wide     map[key]struct{} // ranges that changed, whose members have not been seen to; of writers alone
	followed time.Time        // changelog position; Run's own
	arranged time.Time        // when rows were last brought in order; Run's own

	editions  *cache[editionKey, *slot]
	chosen    *cache[editionKey, *slot] // editions for organisations that have wishes
	views     *cache[viewKey, *view]
	deletions *cache[deletionsKey, *deletions]

	listed  prometheus.Gauge
	dropped prometheus.Counter
	built   prometheus.Histogram
}

// New returns a Publisher that publishes nothing until Load.
func New(cfg Config) *Publisher {
	p := &Publisher{
		cfg:       cfg,
		wake:      make(chan struct{}, 1),
		network:   newSet(blockRows),
		wide:      map[key]struct{}{},
		editions:  newCache[editionKey, *slot](maxEditions),
		chosen:    newCache[editionKey, *slot](maxChosen),
		views:     newCache[viewKey, *view](maxViews),
		deletions: newCache[deletionsKey, *deletions](maxEditions),
		listed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muster_published_sources", Help: "Sources on the community blocklist.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_published_dropped_total", Help: "Entries that the outbound guard kept off an answer because engines would choke on them.",
		}),
		built: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_edition_build_seconds", Help: "Time to put one edition together, with the encoding of what had changed.",
			Buckets: prometheus.ExponentialBuckets(0.00003, 2, 16),
		}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(p.listed, p.dropped, p.built)
	}
	return p
}

// set returns the set of an audience, making it if need be.
func (p *Publisher) set(a muster.Audience) *set {
	if a == muster.Network {
		return p.network
	}
	if s, ok := p.fleets.Load(a); ok {
		return s.(*set)
	}
	s, _ := p.fleets.LoadOrStore(a, newSet(p.network.most))
	return s.(*set)
}

// audience returns the set of an audience, an empty one if there is none.
func (p *Publisher) audience(a muster.Audience) *set {
	if a == muster.Network {
		return p.network
	}
	if s := p.fleet(string(a)); s != nil {
		return s
	}
	return &set{}
}

// fleet returns the set of an organisation, nil if it has none.
func (p *Publisher) fleet(organisation string) *set {
	if s, ok := p.fleets.Load(muster.Audience(organisation)); ok {
		return s.(*set)
	}
	return nil
}

// Load reads everything that is published now.
func (p *Publisher) Load(ctx context.Context) error {
	err := p.cfg.Verdicts.Listed(ctx, func(v muster.Verdict) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.apply(&v)
		if v.Changed.After(p.followed) {
			p.followed = v.Changed
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the published list: %w", err)
	}
	p.mu.Lock()
	p.settle()
	p.mu.Unlock()
	p.arrange()
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
	// arrangeEvery is how often sources are brought in the order of their ranks;
	// until then newcomers stand first.
	arrangeEvery = 5 * time.Minute
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
		for i := range vs {
			p.apply(&vs[i])
		}
		p.settle()
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

// apply puts one verdict into its audience's set; p.mu is held. What is reserved
// is never published.
func (p *Publisher) apply(v *muster.Verdict) {
	now := p.cfg.Now()
	if v.Source.IsReserved() {
		return
	}
	s, k := p.set(v.Audience), keyOf(v.Source)
	old := s.listed(k)
	sent := old != nil && old.block != noBlock // engines may hold it
	changed, ended := false, true
	if v.Listed {
		remedy := v.Remedy
		if remedy == "" {
			remedy = muster.RemedyBan
		}
		b := bucketKey{scenario: v.Scenario, wide: v.Source.IsRange(), remedy: remedy}
		changed = s.put(k, b, seconds(v.Since), seconds(v.Until), rankOf(v))
		p.describe(s, b)
		ended = remedy != muster.RemedyBan
		if _, told := s.withdrawn[k]; told && !ended {
			delete(s.withdrawn, k)
			s.withdrawals.Add(1)
		}
	} else if old != nil {
		changed = s.remove(k)
	}
	// Engines are told of what ends before the time that they know; of what is not
	// listed any more always, because another process may have been told.
	if ended && v.Until.After(now) && (sent || !v.Listed) {
		if _, told := s.withdrawn[k]; !told {
			s.withdrawn[k] = withdrawal{until: secondsUp(v.Until), at: seconds(v.Changed)}
			s.withdrawals.Add(1)
			changed = true
		}
	}
	if !changed {
		return
	}
	if k.wide() && v.Audience == muster.Network {
		p.wide[k] = struct{}{}
	}
	s.version.Add(1)
	if v.Audience == muster.Network {
		p.listed.Set(float64(s.bans.Load()))
	}
}

// describe gives a new bucket what is known of its scenario.
func (p *Publisher) describe(s *set, k bucketKey) {
	if b := s.bucketList[s.buckets[k]]; b.rows == 1 && b.behaviour == "" {
		b.behaviour = p.behaviour(k.scenario)
		b.service = serviceOf(b.behaviour)
	}
}

// settle sees to the members of ranges that changed; p.mu is held.
func (p *Publisher) settle() {
	if len(p.wide) > 0 {
		p.network.touchMembers(p.wide)
		p.network.version.Add(1)
		clear(p.wide)
	}
}

// arrange brings the rows of all sets in the order of their ranks, one bucket at a
// time, so that nobody waits for long.
func (p *Publisher) arrange() {
	p.arranged = p.cfg.Now()
	for _, s := range p.sets() {
		for id := uint32(0); p.arrangeOne(s, id); id++ {
		}
	}
}

// arrangeOne arranges a bucket; false means that there are no more.
func (p *Publisher) arrangeOne(s *set, id uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(id) >= len(s.bucketList) {
		return false
	}
	before := s.layout
	if s.arrange(id); s.layout != before {
		s.version.Add(1)
	}
	return true
}

// sets returns all sets.
func (p *Publisher) sets() []*set {
	all := []*set{p.network}
	p.fleets.Range(func(_, s any) bool {
		all = append(all, s.(*set))
		return true
	})
	return all
}

// prune drops what lapsed by itself, and arranges what is left when it is time.
func (p *Publisher) prune() {
	now := p.cfg.Now()
	for _, s := range p.sets() {
		p.mu.Lock()
		if s.lapse(now) {
			s.version.Add(1)
		}
		p.mu.Unlock()
	}
	if age := now.Sub(p.arranged); age >= arrangeEvery || age < 0 {
		p.arrange()
	}
	p.listed.Set(float64(p.Count(muster.Network)))
}

// Invalidate makes everything be encoded anew: what Allowed says has changed.
func (p *Publisher) Invalidate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.truth.Add(1)
}

// Count returns how many sources an audience has engines ban.
func (p *Publisher) Count(a muster.Audience) int {
	return int(p.audience(a).bans.Load())
}

package publish

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/xxh3"

	"muster"
	"muster/internal/wire"
)

// Version is a dialect of the decision stream.
type Version uint8

// The dialects.
const (
	V2 Version = 2 // flat, engines up to 1.4
	V3 Version = 3 // grouped by scenario and scope
)

// Edition is one immutable answer to a pull.
type Edition struct {
	ETag     string // strong, quoted
	Identity []byte // the JSON document
	Gzip     []byte // the same, as one gzip member: several would break curl and httpx
	Entries  int
}

// editionKey names an edition: who it is for and in which dialect.
type editionKey struct {
	organisation string // "" for readers without a fleet list
	version      Version
	empty        bool
}

// slot holds the newest edition for a key; its mutex makes one puller build
// while the others wait for the result.
type slot struct {
	mu      sync.Mutex
	edition *Edition
	network uint64 // versions of the audiences that it was built from
	fleet   uint64
	built   time.Time
	used    time.Time
}

// editions caches prepared answers.
type editions struct {
	mu    sync.Mutex
	byKey map[editionKey]*slot
}

const (
	// maxEditions bounds the cache; the least recently used goes first. An
	// edition of 15,000 addresses takes under 1 MB.
	maxEditions = 512
	// maxWithdrawn bounds the deletions in an edition: engines make a database
	// query of each (protocol.md 3.2).
	maxWithdrawn = 5_000
	// coalesce is how long an edition is served although something changed, so
	// that a busy network does not rebuild it for every pull. A verdict still
	// reaches the next pull within a second.
	coalesce = 500 * time.Millisecond
)

// Edition returns what a machine of organisation is to be sent now, building it
// when something changed since the last time. empty asks for a document without
// entries (community_pull=false).
func (p *Publisher) Edition(organisation string, version Version, empty bool) *Edition {
	key := editionKey{version: version, empty: empty}
	now := p.cfg.Now()
	p.mu.RLock()
	var network, fleet uint64
	if a := p.audiences[muster.Network]; a != nil {
		network = a.version
	}
	if a := p.audiences[muster.Audience(organisation)]; organisation != "" && a != nil {
		fleet, key.organisation = a.version, organisation
	}
	p.mu.RUnlock()

	s := p.editions.slot(key, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	unchanged := s.edition != nil && s.network == network && s.fleet == fleet &&
		s.built.Truncate(time.Hour).Equal(now.Truncate(time.Hour)) // durations count whole hours down
	if unchanged || s.edition != nil && now.Sub(s.built) < coalesce && now.Sub(s.built) >= 0 {
		return s.edition
	}
	s.edition = p.build(key, now)
	s.network, s.fleet, s.built = network, fleet, now
	return s.edition
}

// slot returns the slot of key, making room when the cache is full.
func (e *editions) slot(key editionKey, now time.Time) *slot {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.byKey[key]
	if s == nil {
		if len(e.byKey) >= maxEditions {
			var oldest editionKey
			first := true
			for k, s := range e.byKey {
				if first || s.used.Before(e.byKey[oldest].used) {
					oldest, first = k, false
				}
			}
			delete(e.byKey, oldest)
		}
		s = new(slot)
		e.byKey[key] = s
	}
	s.used = now
	return s
}

// line is one entry on its way into an edition.
type line struct {
	source   muster.Source
	scenario string
	hours    time.Duration
}

func (p *Publisher) build(key editionKey, now time.Time) *Edition {
	var (
		stream wire.Stream
		n      int
	)
	if !key.empty {
		lines, withdrawn := p.collect(key, now)
		n = len(lines)
		stream = compose(lines, withdrawn)
	}
	var (
		body    []byte
		dropped int
	)
	if key.version == V2 {
		body, dropped = wire.AppendStreamV2(nil, stream)
	} else {
		body, dropped = wire.AppendStreamV3(nil, stream)
	}
	if dropped > 0 {
		p.dropped.Add(float64(dropped))
		p.cfg.Logger.Error("the outbound guard kept entries off the blocklist that engines would choke on", "count", dropped)
	}
	e := &Edition{Identity: body, Gzip: compress(body), Entries: n - dropped}
	sum := xxh3.Hash128(body).Bytes()
	e.ETag = `"` + hex.EncodeToString(sum[:]) + `"`
	p.built.Observe(p.cfg.Now().Sub(now).Seconds())
	return e
}

// collect copies what is to be sent out of the sets, sorted by scenario and
// address. Durations are the remaining ones in whole hours: they compress far
// better, and an entry with less than an hour left is not worth sending.
func (p *Publisher) collect(key editionKey, now time.Time) ([]line, []muster.Source) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var (
		lines     []line
		withdrawn []muster.Source
		network   = p.audience(muster.Network)
		fleet     = &audience{}
	)
	if key.organisation != "" {
		fleet = p.audience(muster.Audience(key.organisation))
	}
	add := func(s muster.Source, l listing) {
		hours := l.until.Sub(now).Truncate(time.Hour)
		if hours < time.Hour || s.IsReserved() || p.cfg.Allowed(s) {
			return
		}
		if r, listed := network.around(s, l); listed && !r.IsReserved() && !p.cfg.Allowed(r) {
			return // its range says as much in one line
		}
		lines = append(lines, line{s, l.scenario, hours})
	}
	// What is on both lists stands once, with the later end: a fleet listing that
	// is about to lapse must not hide the network's.
	for s, l := range fleet.listed {
		if other, both := network.listed[s]; !both || !other.until.After(l.until) {
			add(s, l)
		}
	}
	for s, l := range network.listed {
		if other, both := fleet.listed[s]; !both || l.until.After(other.until) {
			add(s, l)
		}
	}
	for s := range fleet.withdrawn {
		if !has(network.listed, s) {
			withdrawn = append(withdrawn, s)
		}
	}
	for s := range network.withdrawn {
		if !has(fleet.listed, s) && !has(fleet.withdrawn, s) {
			withdrawn = append(withdrawn, s)
		}
	}
	slices.SortFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.scenario, b.scenario), compareSources(a.source, b.source))
	})
	slices.SortFunc(withdrawn, compareSources)
	if len(withdrawn) > maxWithdrawn {
		p.cfg.Logger.Warn("more addresses were withdrawn than one pull tells; engines hold the others until their ends",
			"count", len(withdrawn), "told", maxWithdrawn)
		withdrawn = withdrawn[:maxWithdrawn]
	}
	return lines, withdrawn
}

// around returns the range around s, the /24 of an address or the /56 of a v6
// /64, and whether it is listed for as long as s.
func (a *audience) around(s muster.Source, l listing) (muster.Source, bool) {
	p, bits := s.Prefix(), 24
	if p.Addr().Is6() {
		bits = 56
	}
	if p.Bits() <= bits {
		return s, false
	}
	r := muster.SourceFromPrefix(netip.PrefixFrom(p.Addr(), bits))
	wide, listed := a.listed[r]
	return r, listed && !wide.until.Before(l.until)
}

// audience returns the set of a, empty when there is none; p.mu is held.
func (p *Publisher) audience(a muster.Audience) *audience {
	if set := p.audiences[a]; set != nil {
		return set
	}
	return &audience{}
}

func has[V any](m map[muster.Source]V, s muster.Source) bool {
	_, ok := m[s]
	return ok
}

func compareSources(a, b muster.Source) int {
	return cmp.Or(
		cmp.Compare(a.Scope(), b.Scope()),
		a.Addr().Compare(b.Addr()),
		cmp.Compare(a.Prefix().Bits(), b.Prefix().Bits()))
}

// compose groups sorted lines the way engines read them.
func compose(lines []line, withdrawn []muster.Source) wire.Stream {
	var s wire.Stream
	for _, l := range lines {
		if n := len(s.New); n == 0 || s.New[n-1].Scenario != l.scenario || s.New[n-1].Scope != l.source.Scope() {
			s.New = append(s.New, wire.Group{Scenario: l.scenario, Scope: l.source.Scope()})
		}
		g := &s.New[len(s.New)-1]
		g.Decisions = append(g.Decisions, wire.Entry{Value: wire.Value{Source: l.source}, Duration: l.hours})
	}
	for _, src := range withdrawn {
		if n := len(s.Deleted); n == 0 || s.Deleted[n-1].Scope != src.Scope() {
			s.Deleted = append(s.Deleted, wire.DeletedGroup{Scope: src.Scope()})
		}
		g := &s.Deleted[len(s.Deleted)-1]
		g.Values = append(g.Values, wire.Value{Source: src})
	}
	return s
}

// compress makes one gzip member. Level 6 takes a third of the time of 9 for
// 2 % more bytes.
func compress(body []byte) []byte {
	var buf bytes.Buffer
	z, err := gzip.NewWriterLevel(&buf, 6)
	if err != nil {
		panic(err) // 6 is a valid level
	}
	if _, err := z.Write(body); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

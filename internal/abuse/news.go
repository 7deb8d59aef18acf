package abuse

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/misuse"
	"muster/internal/ratelimit"
)

// news gathers what the store and the other nodes have to learn. It implements
// ratelimit.Sink.
type news struct {
	shared bool // there are other nodes

	mu     sync.Mutex
	unsaid map[netip.Prefix]banNews // for the other nodes
	unkept map[netip.Prefix]banNews // for the store
	events []sharedEvent
	seen   []misuse.Contact
	policy bool
	lost   int // events that found no room
}

// banNews is the last that happened to the ban of a range.
type banNews struct {
	Ban  ratelimit.Ban    `json:"ban"`
	What ratelimit.Change `json:"what"`
}

// sharedEvent is a login for the other nodes' counters.
type sharedEvent struct {
	At    time.Time       `json:"at"`
	Event ratelimit.Event `json:"event"`
}

// maxUnsaid bounds the events that wait for the next message. Logins are few; a
// node that has more at once is under attack, and the others learn of the bans.
const maxUnsaid = 20_000

func (n *news) init(shared bool) {
	n.shared = shared
	n.unsaid, n.unkept = map[netip.Prefix]banNews{}, map[netip.Prefix]banNews{}
}

// BanChanged implements ratelimit.Sink.
func (n *news) BanChanged(b ratelimit.Ban, what ratelimit.Change) {
	if what == ratelimit.Expired {
		return // others see for themselves, and in the store another node may have extended it
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	note(n.unkept, b, what)
	if n.shared {
		note(n.unsaid, b, what)
	}
}

// note keeps the last change of a ban; an extension of one that is not told yet
// stays its addition.
func note(m map[netip.Prefix]banNews, b ratelimit.Ban, what ratelimit.Change) {
	if before, ok := m[b.Prefix]; ok && what == ratelimit.Extended {
		if before.What == ratelimit.Lifted {
			return
		}
		what = before.What
	}
	m[b.Prefix] = banNews{b, what}
}

func (n *news) event(at time.Time, e ratelimit.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.events) >= maxUnsaid {
		n.lost++
		return
	}
	n.events = append(n.events, sharedEvent{at.UTC(), e})
}

func (n *news) contact(c misuse.Contact) {
	if !n.shared {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.seen) < maxUnsaid {
		n.seen = append(n.seen, c)
	}
}

func (n *news) policyChanged() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.policy = n.shared
}

// written reports whether the store knows everything.
func (n *news) written() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.unkept) == 0
}

// changes are what one transaction writes.
type changes struct {
	put, extended []ratelimit.Ban
	gone          []netip.Prefix
	all           map[netip.Prefix]banNews
}

func (c *changes) empty() bool { return len(c.all) == 0 }

// take removes at most limit changes for the store.
func (n *news) take(limit int) changes {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := changes{all: map[netip.Prefix]banNews{}}
	for p, b := range n.unkept {
		if len(c.all) == limit {
			break
		}
		c.all[p] = b
		delete(n.unkept, p)
		switch b.What {
		case ratelimit.Lifted:
			c.gone = append(c.gone, p)
		case ratelimit.Extended:
			c.extended = append(c.extended, b.Ban)
		default:
			c.put = append(c.put, b.Ban)
		}
	}
	return c
}

// putBack returns changes that could not be written; later ones go before them.
func (n *news) putBack(c changes) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p, b := range c.all {
		if later, ok := n.unkept[p]; ok {
			if later.What == ratelimit.Extended {
				note(c.all, later.Ban, later.What)
				n.unkept[p] = c.all[p]
			}
			continue
		}
		n.unkept[p] = b
	}
}

// message is what nodes tell each other.
type message struct {
	Node   string           `json:"node"`
	Bans   []banNews        `json:"bans,omitempty"`
	Events []sharedEvent    `json:"events,omitempty"`
	Seen   []misuse.Contact `json:"seen,omitempty"`
	Policy bool             `json:"policy,omitempty"` // the policy changed: read it again
}

// maxShared bounds the items of one kind in a message: a ban takes less than
// 1.2 KB, and a bell carries 64 KiB.
const maxShared = 40

// messages takes what the other nodes do not know yet.
func (n *news) messages(node string) []message {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []message
	m := message{Node: node, Policy: n.policy}
	add := func(items *int) {
		if *items++; *items == maxShared {
			all, m, *items = append(all, m), message{Node: node}, 0
		}
	}
	count := 0
	for b := range maps.Values(n.unsaid) {
		m.Bans = append(m.Bans, b)
		add(&count)
	}
	for _, e := range n.events {
		m.Events = append(m.Events, e)
		add(&count)
	}
	for _, c := range n.seen {
		m.Seen = append(m.Seen, c)
		add(&count)
	}
	if count > 0 || m.Policy {
		all = append(all, m)
	}
	clear(n.unsaid)
	n.events, n.seen, n.policy = nil, nil, false
	return all
}

// share tells the other nodes.
func (s *Service) share() {
	if s.cfg.Share == nil {
		return
	}
	for _, m := range s.news.messages(s.node) {
		text, err := json.Marshal(m)
		if err != nil { // of plain values: cannot be
			s.log.Error("a message to other nodes could not be written", "error", err)
			continue
		}
		s.cfg.Share(text)
	}
}

// hear does what another node did. Events count at this node as of when they
// were there, but no later than now: clocks differ.
func (s *Service) hear(ctx context.Context, text []byte) error {
	var m message
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("a message of another node: %w", err)
	}
	if m.Node == s.node {
		return nil
	}
	now := s.now()
	for _, b := range m.Bans {
		if b.What == ratelimit.Lifted {
			s.bans.Forget(now, b.Ban.Prefix)
			s.forget(b.Ban.Prefix)
			continue
		}
		s.learn([]ratelimit.Ban{b.Ban})
	}
	for _, e := range m.Events {
		// The node where it happened has banned for it, if that is due. When
		// this event is the one too many only here, the next login tells.
		s.limiter.Spend(now, e.Event)
	}
	for _, c := range m.Seen {
		s.watch.See(now, c)
	}
	if m.Policy {
		return s.loadPolicy(ctx)
	}
	return nil
}

func newAudit(at time.Time, action, subject string, by By, detail any) muster.AuditEntry {
	e := muster.AuditEntry{ID: uuid.Must(uuid.NewV7()).String(), At: at, By: by.User, Action: action, Subject: subject, Reason: by.Reason}
	if detail != nil {
		e.Detail, _ = json.Marshal(detail) // plain values
	}
	return e
}

// metrics of the service.
type metrics struct {
	refused atomic.Uint64
	over    *prometheus.CounterVec
}

func (m *metrics) init(s *Service, reg prometheus.Registerer) {
	m.over = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "muster_ratelimit_over_total", Help: "Requests over a limit, by limit."}, []string{"limit"})
	if reg == nil {
		return
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	reg.MustRegister(m.over,
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "muster_banned_requests_total", Help: "Requests answered with a ban and nothing else."},
			func() float64 { return float64(m.refused.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "muster_ratelimit_evicted_total", Help: "Counters given up before their time: raise ratelimit.max_counters when it grows."},
			func() float64 { return float64(s.limiter.Stats().Evicted) }),
		gauge("muster_bans", "Bans that are kept (ratelimit.max_bans bounds them).", func() float64 { return float64(s.bans.Len()) }),
		gauge("muster_ratelimit_counters", "Counters that are kept (ratelimit.max_counters bounds them).", func() float64 { return float64(s.limiter.Stats().Keys) }),
		gauge("muster_ratelimit_bytes", "Memory of the counters.", func() float64 { return float64(s.limiter.Stats().Bytes) }),
	)
}

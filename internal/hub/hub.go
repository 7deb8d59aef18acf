// Package hub mirrors a CrowdSec hub from local folders: a public one, and
// private items beside it. It speaks to cscli as the hub's own host does, so that
// engines need no other, and knows which scenarios are unmodified.
package hub

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/internal/policy"
)

// Types are the kinds of items, as the index and folders name them.
var Types = []string{"parsers", "postoverflows", "scenarios", "contexts", "appsec-configs", "appsec-rules", "collections"}

// Config sets up a Mirror. Zero values choose the defaults named.
type Config struct {
	// Public is a folder with a hub: .index.json, and the files that it names
	// unless they are embedded in it. A folder in it that has an .index.json too is
	// the branch of its name; without one at the top, "master" is what branches
	// without a folder get. "" = no public hub.
	Public string
	// Private is a folder with items of one's own, laid out like a hub:
	// scenarios/AUTHOR/NAME.yaml, parsers/STAGE/AUTHOR/NAME.yaml. When it has an
	// .index.json, that says what is in it. "" = none.
	Private string
	// Folders that may be absent.
	PublicOptional, PrivateOptional bool
	// History is the path of a file in which versions of private items are kept:
	// an engine takes an older one that the index does not name for modified. "" =
	// kept in memory only.
	History string
	// PrivateCounts lets Knows say yes for private scenarios too.
	PrivateCounts bool

	Now        func() time.Time      // nil = time.Now
	Logger     *slog.Logger          // nil = discarded
	Registerer prometheus.Registerer // nil = no metrics
}

// Mirror serves a hub. All methods are safe for concurrent use.
type Mirror struct {
	cfg     Config
	log     *slog.Logger
	current atomic.Pointer[snapshot]
	failure atomic.Pointer[Failure] // of the last reload; nil = it succeeded

	reloading sync.Mutex
	pending   uint64 // fingerprint seen by the last Poll, when it was a new one
	failed    uint64 // fingerprint of what could not be read, so that it is said once
	history   history

	requests *prometheus.CounterVec
}

// Failure is why what is served is older than the folders.
type Failure struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// Open reads the folders. What is damaged in them is left out and told by
// Status; it fails when a folder or an index cannot be read at all.
func Open(cfg Config) (*Mirror, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Mirror{cfg: cfg, log: cfg.Logger, requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_hub_requests_total", Help: "Requests to the hub mirror, by what was asked for and the answer.",
	}, []string{"file", "status"})}
	var err error
	if m.history, err = readHistory(cfg.History); err != nil {
		return nil, err
	}
	m.current.Store(&snapshot{})
	if err := m.Reload(); err != nil {
		return nil, err
	}
	if cfg.Registerer != nil {
		gauge := func(name, help string, of func(s *snapshot) int) prometheus.Collector {
			return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(of(m.current.Load())) })
		}
		cfg.Registerer.MustRegister(m.requests,
			gauge("muster_hub_items", "Items of the hub that are served, private ones too.", func(s *snapshot) int { return s.items() }),
			gauge("muster_hub_left_out", "Items of the hub that are damaged or malformed, and not served.", func(s *snapshot) int { return len(s.problems) }))
	}
	return m, nil
}

// Poll reads the folders again when they have changed and have then been left
// alone until the next Poll: a copy or a pull that is under way is not read.
func (m *Mirror) Poll(context.Context) error {
	m.reloading.Lock()
	defer m.reloading.Unlock()
	print := m.fingerprint()
	if print == m.current.Load().print || print == m.failed {
		m.pending = 0
		return nil
	}
	if print != m.pending {
		m.pending = print
		return nil
	}
	return m.reload()
}

// Reload reads the folders now. After an error what was served before still is.
func (m *Mirror) Reload() error {
	m.reloading.Lock()
	defer m.reloading.Unlock()
	return m.reload()
}

func (m *Mirror) reload() error {
	print := m.fingerprint()
	s, err := m.read()
	if err != nil {
		m.failed = print
		m.failure.Store(&Failure{At: m.cfg.Now().UTC(), Error: err.Error()})
		return err
	}
	m.failed, m.pending = 0, 0
	m.failure.Store(nil)
	s.print, s.at = print, m.cfg.Now().UTC()
	m.current.Store(s)
	if s.main != nil {
		m.log.Info("the hub was read", "items", s.items(), "left_out", len(s.problems), "private", s.private, "branches", len(s.branches))
	}
	for i, p := range s.problems {
		if i == maxSaid {
			m.log.Warn("more items of the hub are not served: muster admin hub verify shows them all", "count", len(s.problems)-i)
			break
		}
		m.log.Warn("an item of the hub is not served", "item", p.Item, "branch", p.Branch, "reason", p.Reason)
	}
	return nil
}

// maxSaid is how many damaged items are logged one by one.
const maxSaid = 5

// Knows reports whether hash (lower-case hex SHA-256) is a published version of
// some scenario of the public hub, or a private one when these count. Without a
// public hub it knows nothing and then takes the engine's word.
func (m *Mirror) Knows(hash string) bool {
	s := m.current.Load()
	return s.known.Knows(hash) || m.cfg.PrivateCounts && s.own != nil && s.own.Knows(hash)
}

// Taxonomy returns what the labels of the items served say about scenarios, nil
// without a hub.
func (m *Mirror) Taxonomy() *policy.Taxonomy { return m.current.Load().taxonomy }

// Status says how the mirror stands.
func (m *Mirror) Status() Status {
	s := m.current.Load()
	st := Status{
		Public: m.cfg.Public, Private: m.cfg.Private, PrivateCounts: m.cfg.PrivateCounts, Serving: s.main != nil,
		ReadAt: s.at, Items: map[string]int{}, PrivateItems: s.private, Known: s.known.Len(), Branches: s.branches,
		Problems: s.problems, Failure: m.failure.Load(),
	}
	if s.main != nil {
		st.Digest, st.Bytes, st.Compressed = s.main.index[full].digest, len(s.main.index[full].body), len(s.main.index[full].packed)
		for _, i := range s.main.list {
			st.Items[i.kind]++
		}
	}
	return st
}

// Status is how the mirror stands.
type Status struct {
	Public        string         `json:"public"`
	Private       string         `json:"private"`
	PrivateCounts bool           `json:"private_counts"`
	Serving       bool           `json:"serving"`
	ReadAt        time.Time      `json:"read_at"`
	Digest        string         `json:"digest"` // of the index with content
	Bytes         int            `json:"bytes"`  // of it
	Compressed    int            `json:"compressed"`
	Items         map[string]int `json:"items"`         // by type
	PrivateItems  int            `json:"private_items"` // among them
	Known         int            `json:"known"`         // scenarios whose reports count
	Branches      []string       `json:"branches"`      // that have a folder of their own
	Problems      []Problem      `json:"problems"`
	Failure       *Failure       `json:"failure"`
}

// Problem is an item that is not served.
type Problem struct {
	Item   string `json:"item"`             // "scenarios:crowdsecurity/ssh-bf", or a path
	Branch string `json:"branch,omitempty"` // "" = what all branches without a folder get
	Reason string `json:"reason"`
}

func (p Problem) String() string { return fmt.Sprintf("%s: %s", p.Item, p.Reason) }

// Item is what is told about an item.
type Item struct {
	Type        string `json:"type"`
	Name        string `json:"name"`
	Path        string `json:"path"`
	Version     string `json:"version"`
	Versions    int    `json:"versions"`
	Digest      string `json:"digest"`
	Description string `json:"description"`
	Private     bool   `json:"private"`
}

// Items returns the items that are served to branches without a folder of their
// own, in order of type and name.
func (m *Mirror) Items() []Item {
	s := m.current.Load()
	if s.main == nil {
		return []Item{}
	}
	items := make([]Item, len(s.main.list))
	for n, i := range s.main.list {
		items[n] = Item{i.kind, i.name, i.Path, i.Version, len(i.Versions), i.digest, i.Description, i.private}
	}
	return items
}

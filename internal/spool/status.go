package spool

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
)

// Status is how far the forwarder is.
type Status struct {
	Depth   int       `json:"depth"`            // signals that wait to be sent, on their way included
	Oldest  time.Time `json:"oldest,omitzero"`  // receipt of the oldest of them
	Engines int       `json:"engines"`          // that have signals waiting
	Until   time.Time `json:"until,omitzero"`   // no call before it
	Cause   string    `json:"cause,omitempty"`  // of the silence, or of the last failure
	Banned  bool      `json:"banned"`           // the silence is a ban
	Held    bool      `json:"held"`             // forwarding is switched off
	Waiting []Waiting `json:"waiting,omitzero"` // at most 20 engines that cannot be served, the oldest first
	// Applied is the position up to which nothing in the log is needed here.
	Applied uint64 `json:"applied"`
}

// Waiting is an engine whose signals cannot be sent now.
type Waiting struct {
	Engine muster.SieveEngine `json:"-"`
	Depth  int                `json:"depth"`
	Oldest time.Time          `json:"oldest"`
	Until  time.Time          `json:"until,omitzero"` // zero: until it logs in
	Why    string             `json:"why"`
}

const mostWaiting = 20

// Status returns how far the forwarder is.
func (f *Forwarder) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Status{Engines: len(f.engines), Cause: f.cause, Held: f.cfg.Hold, Applied: f.kept[0]}
	if f.until.After(f.cfg.Now()) {
		s.Until, s.Banned = f.until, f.banned
	}
	for _, position := range f.kept {
		s.Applied = min(s.Applied, position)
	}
	for _, e := range f.engines {
		s.Depth += e.pending()
		_, received, ok := e.first()
		if ok && (s.Oldest.IsZero() || received.Before(s.Oldest)) {
			s.Oldest = received
		}
		if e.place == asleep {
			s.Waiting = append(s.Waiting, Waiting{Engine: e.id, Depth: e.pending(), Oldest: received, Until: e.notBefore, Why: e.why})
		}
	}
	slices.SortFunc(s.Waiting, func(a, b Waiting) int {
		return cmp.Or(a.Oldest.Compare(b.Oldest), slices.Compare(a.Engine[:], b.Engine[:]))
	})
	s.Waiting = s.Waiting[:min(len(s.Waiting), mostWaiting)]
	return s
}

type metrics struct {
	sent            prometheus.Counter
	refused, failed *prometheus.CounterVec
}

func newMetrics(f *Forwarder, r prometheus.Registerer) *metrics {
	m := &metrics{
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_spool_sent_total", Help: "Signals that the upstream has taken.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_spool_refused_total", Help: "Signals that the upstream refused: set_aside here, or upstream_kept_back in an answer of success.",
		}, []string{"how"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_spool_failures_total", Help: "Answers of the upstream that were not success, by status.",
		}, []string{"status"}),
	}
	if r == nil {
		return m
	}
	gauge := func(name, help string, value func(Status) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(f.Status()) })
	}
	r.MustRegister(m.sent, m.refused, m.failed,
		gauge("muster_spool_depth_signals", "Signals that wait to be sent upstream.", func(s Status) float64 { return float64(s.Depth) }),
		gauge("muster_spool_oldest_seconds", "Age of the oldest signal that waits to be sent upstream.", func(s Status) float64 {
			if s.Oldest.IsZero() {
				return 0
			}
			return f.cfg.Now().Sub(s.Oldest).Seconds()
		}),
		gauge("muster_spool_engines_waiting", "Engines whose signals cannot be sent now, at most 20.", func(s Status) float64 { return float64(len(s.Waiting)) }),
		gauge("muster_spool_banned", "1 while the upstream bans this address.", func(s Status) float64 {
			if s.Banned {
				return 1
			}
			return 0
		}),
	)
	return m
}

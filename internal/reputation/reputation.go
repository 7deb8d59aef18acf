// Package reputation follows the signal log beside the judge and keeps, for three
// months, what was reported of each source day by day: what lookups are answered
// from. It is in no hurry: it works in large steps and rests between them, so that
// the judge is not held up.
package reputation

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/cti"
)

// Reader follows the log; jury.Reader says what each method does.
type Reader interface {
	Next(ctx context.Context, limit int) ([]muster.Entry, error)
	Position() uint64
	Close()
}

// Ledger keeps rollups, durably.
type Ledger interface {
	// RollupPositions returns up to where in the log rollups have everything.
	RollupPositions(ctx context.Context) ([muster.Partitions]uint64, error)
	// PutRollups replaces rollups and moves positions, in one transaction that is
	// durable when it returns nil. It fails when the stored positions are not from.
	PutRollups(ctx context.Context, rollups []muster.RollupRow, from, to [muster.Partitions]uint64) error
	// RollupsOf returns those of keys that are stored, in no order.
	RollupsOf(ctx context.Context, keys []muster.RollupKey) ([]muster.RollupRow, error)
	// Rollups returns those of a source since a day, earliest first.
	Rollups(ctx context.Context, partition uint8, source muster.Source, since int64) ([]muster.RollupRow, error)
}

// Config sets up a Service. Zero values choose the defaults named.
type Config struct {
	Open      func(ctx context.Context, from [muster.Partitions]uint64) (Reader, error) // required
	Ledger    Ledger                                                                    // required
	Partition func(muster.Source) uint8                                                 // required
	// Member reports whether a machine's word as a member of an organisation counts.
	// nil = always.
	Member func(machine, organisation string) bool
	// Ranks returns how far machines are trusted, 0 to 5; those that it does not
	// know are newcomers. It is asked for many at once, and seldom. nil knows none.
	Ranks func(ctx context.Context, machines []string) (map[string]uint8, error)
	// Country says in which country an address is, "" when it is not known; nil
	// knows none.
	Country func(netip.Addr) string

	Every time.Duration // how often rollups are written; 0 = 5 s
	Rows  int           // how many changed rollups are written at once; 0 = 4,000
	Cache int           // how many rollups are kept in memory; 0 = 20,000
	// Rest is how long the service rests after each step while it is behind, as a
	// multiple of what the step took; 0 = 1, so that it takes half a core at most,
	// and half of the turns to write. Negative = never.
	Rest float64

	Now        func() time.Time      // nil = time.Now
	Logger     *slog.Logger          // nil = discarded
	Registerer prometheus.Registerer // nil = no metrics
}

// Service keeps rollups while Run runs. Days may be called at any time.
type Service struct {
	cfg     Config
	applied atomic.Uint64

	signals *prometheus.CounterVec
	commits prometheus.Histogram
	cached  prometheus.Gauge
}

// New returns a Service; Run makes it work.
func New(cfg Config) *Service {
	if cfg.Member == nil {
		cfg.Member = func(string, string) bool { return true }
	}
	if cfg.Ranks == nil {
		cfg.Ranks = func(context.Context, []string) (map[string]uint8, error) { return nil, nil }
	}
	if cfg.Country == nil {
		cfg.Country = func(netip.Addr) string { return "" }
	}
	if cfg.Every == 0 {
		cfg.Every = 5 * time.Second
	}
	if cfg.Rows == 0 {
		cfg.Rows = 4000
	}
	if cfg.Cache == 0 {
		cfg.Cache = 20_000
	}
	if cfg.Rest == 0 {
		cfg.Rest = 1
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		cfg: cfg,
		signals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_reputation_signals_total", Help: "Signals that lookups have seen, by outcome (counted, passed, duplicate).",
		}, []string{"outcome"}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_reputation_commit_seconds", Help: "Time to write what lookups are answered from.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}),
		cached: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muster_reputation_cached_rollups", Help: "Rollups in memory.",
		}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(s.signals, s.commits, s.cached)
	}
	return s
}

// Applied returns the position of the log up to which lookups have seen
// everything.
func (s *Service) Applied() uint64 { return s.applied.Load() }

// SubjectOf returns what is kept of an address: itself, or the /64 of an IPv6
// address, as the judge has it.
func SubjectOf(addr netip.Addr) muster.Source {
	return muster.SourceFromPrefix(muster.SourceFromAddr(addr).Group())
}

// Days returns what was reported of an address within cti.MaxAge before now, in
// order.
func (s *Service) Days(ctx context.Context, addr netip.Addr, now time.Time) ([]cti.DatedDay, error) {
	subject := SubjectOf(addr)
	rows, err := s.cfg.Ledger.Rollups(ctx, s.cfg.Partition(subject), subject, cti.DayOf(now.Add(-cti.MaxAge)))
	if err != nil {
		return nil, err
	}
	days := make([]cti.DatedDay, len(rows))
	for i, r := range rows {
		d := &cti.Day{}
		if err := d.UnmarshalBinary(r.Data); err != nil {
			return nil, fmt.Errorf("%s, day %d: %w", subject, r.Day, err)
		}
		days[i] = cti.DatedDay{Number: r.Day, Day: d}
	}
	return days, nil
}

// Run follows the log until ctx ends. After an error it begins anew where the
// ledger is, so that nothing is counted twice or left out.
func (s *Service) Run(ctx context.Context) error {
	wait := time.Second
	for {
		began := s.cfg.Now()
		err := s.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if s.cfg.Now().Sub(began) > time.Minute {
			wait = time.Second
		}
		s.cfg.Logger.Error("what lookups are answered from does not follow the log; it is tried again", "error", err, "wait", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		wait = min(2*wait, time.Minute)
	}
}

// addrOf returns the first address of a network, as muster.NetworkOf numbers it.
func addrOf(network uint64) netip.Addr {
	switch {
	case network>>48 == 1:
		var a [16]byte
		binary.BigEndian.PutUint64(a[:8], network<<16)
		return netip.AddrFrom16(a)
	case network>>24 == 1:
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], uint32(network<<8))
		return netip.AddrFrom4(a)
	}
	return netip.Addr{}
}

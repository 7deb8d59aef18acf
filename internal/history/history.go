// Package history keeps the alerts that came through the sieve. The keeper follows
// the sieve's log and stores each alert exactly once, by its position there, and
// counts it; what is searched of alerts is in memory in columns, what is shown of
// them in compressed blocks in the database. The numbers of alerts grow with the
// order in which they came.
package history

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
)

// Reader follows the sieve's log.
type Reader interface {
	// Next blocks for at least one entry and returns up to limit, in order of their
	// positions whatever the partition, each strictly above the position it was opened
	// at.
	Next(ctx context.Context, limit int) ([]muster.Entry, error)
	// Position tells how far Next has come: every entry at or below it has been
	// returned.
	Position() uint64
	Close()
}

// Ledger keeps the history, durably.
type Ledger interface {
	SieveHistoryPositions(ctx context.Context) ([muster.Partitions]uint64, error)
	SieveNames(ctx context.Context) ([]muster.SieveName, error)
	SieveCombos(ctx context.Context) ([]muster.SieveCombo, error)
	// EachSieveChunk calls yield with all chunks in order, without Times and Prints.
	EachSieveChunk(ctx context.Context, yield func(muster.SieveChunk) error) error
	SieveChunkPrints(ctx context.Context, chunk int64) ([]byte, error)
	SieveChunkTimes(ctx context.Context, chunk int64) ([]byte, error)
	// EachSieveBlock calls yield with blocks of numbers from one up to before
	// another, in order; FirstSieveBlock returns the lowest from one on, -1 for none.
	EachSieveBlock(ctx context.Context, from, to int64, yield func(muster.SieveBlock) error) error
	FirstSieveBlock(ctx context.Context, from int64) (int64, error)
	SieveBlocks(ctx context.Context, numbers []int64) ([]muster.SieveBlock, error) // in no order
	SieveBlocksAt(ctx context.Context, position uint64) ([]muster.SieveBlock, error)
	SieveLarge(ctx context.Context, id int64) ([]byte, error)
	// SieveAlertsAbout returns the numbers of a chunk's alerts about a source, highest
	// first.
	SieveAlertsAbout(ctx context.Context, chunk, source int64) ([]int64, error)
	EachSieveRollup(ctx context.Context, span int64, yield func(muster.SieveRollup) error) error
	EachSieveMark(ctx context.Context, from uint64, yield func(muster.SieveMark) error) error
	SieveMarksOf(ctx context.Context, records []muster.SieveMark) ([]muster.SieveMark, error)
	// PutSieve makes all changes in one transaction that is durable when it returns
	// nil. It fails when the stored positions are not From.
	PutSieve(ctx context.Context, w *muster.SieveWrite) error
	// PruneSieve deletes alerts of numbers below one and marks of positions below
	// another, in short transactions.
	PruneSieve(ctx context.Context, before int64, position uint64) error
}

// Config sets up a Service. Zero values choose the defaults named.
type Config struct {
	Open   func(ctx context.Context, from [muster.Partitions]uint64) (Reader, error) // required
	Ledger Ledger                                                                    // required

	Retention       time.Duration // for how long alerts are kept; 0 = 30 days
	RollupRetention time.Duration // for how long they are counted; 0 = 400 days
	PruneEvery      time.Duration // 0 = 10 minutes
	// Recent is how many uuids are recognised for certain when they come again; 0 =
	// 262,144. Each takes up to 32 bytes.
	Recent int

	Now        func() time.Time      // nil = time.Now
	Logger     *slog.Logger          // nil = discarded
	Registerer prometheus.Registerer // nil = no metrics
}

// The first numbers of alerts that came through the sieve, and of those that were
// imported, which are older and so must be lower.
const (
	firstLive     = 1 << 24
	firstImported = 1 << muster.SieveChunkBits
)

// Service is the history. Start it before use; Run makes it follow the log. Its
// methods are safe for concurrent use.
type Service struct {
	cfg    Config
	packer *packer

	writing  sync.Mutex // held by whoever changes something
	live     lane
	imported lane
	recent   prints
	applied  [muster.Partitions]uint64
	pending  map[markKey]muster.SieveMark // of records that are not stored yet
	buf      []byte

	cols    columns // its lock is also that of what follows
	names   *names
	rollups rollups
	oldest  int64 // received, of the alerts that are kept; 0 = not known
	last    int64 // number of the alert stored last
	newer   chan struct{}

	position atomic.Uint64

	alerts  *prometheus.CounterVec
	commits prometheus.Histogram
}

// lane is where alerts are appended.
type lane struct {
	first, end int64    // its numbers
	next       int64    // of the next alert
	open       []stored // alerts of the last block, when it is not full
	tail       *chunk   // nil at first
	before     *chunk   // whose times and refs are still known
}

// markKey names a record of the log.
type markKey struct {
	position uint64
	part     uint8
}

// New returns a Service that knows nothing until Start.
func New(cfg Config) *Service {
	if cfg.Retention == 0 {
		cfg.Retention = 30 * 24 * time.Hour
	}
	if cfg.RollupRetention == 0 {
		cfg.RollupRetention = 400 * 24 * time.Hour
	}
	if cfg.PruneEvery == 0 {
		cfg.PruneEvery = 10 * time.Minute
	}
	if cfg.Recent == 0 {
		cfg.Recent = 1 << 18
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		cfg: cfg, packer: newPacker(), names: newNames(), newer: make(chan struct{}),
		live:     lane{first: firstLive, next: firstLive, end: 1 << 62},
		imported: lane{first: firstImported, next: firstImported, end: firstLive},
		recent:   prints{size: cfg.Recent},
		pending:  map[markKey]muster.SieveMark{},
		rollups:  rollups{hours: map[int64]*tally{}, all: newTally()},
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_sieve_history_alerts_total", Help: "Alerts taken from the sieve's log, by outcome (stored, duplicate).",
		}, []string{"outcome"}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_sieve_history_commit_seconds", Help: "Time to store some alerts and what is counted of them.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(s.alerts, s.commits)
	}
	return s
}

// Applied returns the position of the log up to which everything is stored.
func (s *Service) Applied() uint64 { return s.position.Load() }

// Start reads what is searched into memory: for five million alerts about a
// second. It is called once, before anything else.
func (s *Service) Start(ctx context.Context) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.cols.mu.Lock()
	defer s.cols.mu.Unlock()
	for what, load := range map[string]func(context.Context) error{
		"positions": s.loadPositions, "names": s.loadNames, "counts": s.loadCounts,
	} {
		if err := load(ctx); err != nil {
			return fmt.Errorf("reading the %s of the history: %w", what, err)
		}
	}
	if err := s.loadChunks(ctx); err != nil {
		return fmt.Errorf("reading the columns of the history: %w", err)
	}
	for _, l := range []*lane{&s.imported, &s.live} {
		if err := s.loadTail(ctx, l); err != nil {
			return fmt.Errorf("reading the latest of the history: %w", err)
		}
	}
	if err := s.loadMarks(ctx); err != nil {
		return fmt.Errorf("reading what was forwarded: %w", err)
	}
	s.last = max(s.last, s.imported.next-1)
	if s.live.next > s.live.first {
		s.last = s.live.next - 1
	}
	return s.loadFirst(ctx)
}

func (s *Service) loadPositions(ctx context.Context) (err error) {
	s.applied, err = s.cfg.Ledger.SieveHistoryPositions(ctx)
	s.position.Store(slices.Max(s.applied[:]))
	return err
}

func (s *Service) loadNames(ctx context.Context) error {
	texts, err := s.cfg.Ledger.SieveNames(ctx)
	if err != nil {
		return err
	}
	combos, err := s.cfg.Ledger.SieveCombos(ctx)
	if err != nil {
		return err
	}
	s.names.load(texts, combos)
	return nil
}

func (s *Service) loadCounts(ctx context.Context) (err error) {
	s.rollups, err = s.loadRollups(func(span int64, yield func(muster.SieveRollup) error) error {
		return s.cfg.Ledger.EachSieveRollup(ctx, span, yield)
	})
	return err
}

func (s *Service) loadChunks(ctx context.Context) error {
	err := s.cfg.Ledger.EachSieveChunk(ctx, func(stored muster.SieveChunk) error {
		c, err := decodeChunk(stored, s.packer)
		if err != nil {
			return err
		}
		s.cols.chunks = append(s.cols.chunks, c)
		return nil
	})
	if err != nil {
		return err
	}
	for i := max(0, len(s.cols.chunks)-s.cfg.Recent/chunkAlerts-1); i < len(s.cols.chunks); i++ {
		data, err := s.cfg.Ledger.SieveChunkPrints(ctx, s.cols.chunks[i].number)
		if err != nil {
			return err
		}
		for c := (cursor{data: data}); len(c.data) >= 8; {
			s.recent.add(leUint64(c.take(8)))
		}
	}
	return nil
}

// loadTail reads the alerts of a lane that are in no stored chunk.
func (s *Service) loadTail(ctx context.Context, l *lane) error {
	for _, c := range s.cols.chunks {
		if id := c.id(len(c.rows)); id > l.next && id <= l.end {
			l.next = id
		}
	}
	l.close()
	from := l.next >> muster.SieveBlockBits
	return s.cfg.Ledger.EachSieveBlock(ctx, from, l.end>>muster.SieveBlockBits, func(b muster.SieveBlock) error {
		alerts, err := s.packer.unpackBlock(b.Data)
		if err != nil {
			return err
		}
		raws, geos := make([][]byte, len(alerts)), make([]*muster.SieveGeo, len(alerts))
		for i := range alerts {
			raws[i], geos[i] = alerts[i].raw, &alerts[i].geo
		}
		read := arrivalsOf(raws, geos) // large ones are not recognised when they come again
		l.open = nil
		for i := range alerts {
			if id := b.Number<<muster.SieveBlockBits + int64(i); id != l.next {
				return fmt.Errorf("expected alert %d, found %d", l.next, id)
			}
			print := uint64(0)
			if alerts[i].given == "" {
				print = printOf(read[i].uuid)
			}
			s.recent.add(print)
			s.append(l, &alerts[i], print)
		}
		if len(alerts) < blockAlerts {
			l.open = alerts
		}
		return nil
	})
}

// append puts a stored alert in its column.
func (s *Service) append(l *lane, a *stored, print uint64) {
	number := l.next >> muster.SieveChunkBits
	if l.tail == nil || l.tail.number != number {
		if l.before != nil && l.before.sealed {
			l.before.forget()
		}
		l.before, l.tail = l.tail, newChunk(number)
		s.cols.insert(l.tail)
	}
	l.tail.add(a, print)
	l.next++
}

// loadMarks reads what was forwarded of the latest alerts, and of what is not
// stored yet.
func (s *Service) loadMarks(ctx context.Context) error {
	from := s.applied[0]
	for _, p := range s.applied {
		from = min(from, p)
	}
	for _, c := range []*chunk{s.live.before, s.live.tail} {
		if c != nil && len(c.refs) > 0 {
			from = min(from, c.refs[0].position)
		}
	}
	return s.cfg.Ledger.EachSieveMark(ctx, from, func(m muster.SieveMark) error {
		if m.Position > s.applied[m.Partition] {
			s.pending[markKey{m.Position, m.Partition}] = m
			return nil
		}
		for _, f := range s.recentOf(m.Position, m.Partition) {
			if hasBit(m.Signals, f.index) {
				f.chunk.forwarded.set(f.row)
			}
		}
		return nil
	})
}

// loadFirst finds the oldest alert that is kept.
func (s *Service) loadFirst(ctx context.Context) error {
	first, err := s.cfg.Ledger.FirstSieveBlock(ctx, 0)
	if err != nil || first < 0 {
		return err
	}
	s.cols.first = first << muster.SieveBlockBits
	return s.cfg.Ledger.EachSieveBlock(ctx, first, first+1, func(b muster.SieveBlock) error {
		alerts, err := s.packer.unpackBlock(b.Data)
		if err == nil && len(alerts) > 0 {
			s.oldest = alerts[0].received
		}
		return err
	})
}

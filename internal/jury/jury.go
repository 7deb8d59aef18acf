// Package jury consumes the signal log: it drops what it has seen, keeps alerts
// for their owners, folds evidence, judges, keeps account of whose word may be
// trusted, and commits all of it with its position in one transaction. A crash
// replays; effects are exactly once without trusting the broker.
//
// Time here is the log's: what is due at a time is done when the log has come to
// it, at whole multiples of a tick, so that a replay does the same things in the
// same order. Only when the log has nothing more does the clock go on by itself.
package jury

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/crowd"
)

// Reader follows the log of the partitions that this worker owns.
type Reader interface {
	// Next blocks for at least one entry and returns up to limit, in order per
	// partition, each strictly above the position it was opened at.
	Next(ctx context.Context, limit int) ([]muster.Entry, error)
	// Position tells how far Next has come: every entry at or below it has been
	// returned, so once those are applied it is a position for all partitions,
	// also for those that had nothing.
	Position() uint64
	Close()
}

// Ledger keeps what the worker knows, durably.
type Ledger interface {
	Positions(ctx context.Context) ([muster.Partitions]uint64, error)
	EachEvidence(ctx context.Context, fn func(muster.EvidenceRow) error) error
	EachNumber(ctx context.Context, fn func(muster.Number) error) error
	EachTrust(ctx context.Context, fn func(muster.TrustRow) error) error
	EachBehaviour(ctx context.Context, fn func(muster.BehaviourRow) error) error
	// Epoch returns the epoch of the trust and what was stored with it; 0 and
	// nothing at first.
	Epoch(ctx context.Context) (epoch uint64, data []byte, err error)
	// LastVerdict returns the latest stamp of the changelog, zero when it is empty.
	LastVerdict(ctx context.Context) (time.Time, error)
	// Commit runs fn in one transaction that is durable when it returns nil.
	Commit(ctx context.Context, fn func(Tx) error) error
	// Reports returns an organisation's stored signals of one machine since a
	// time, newest first, at most limit.
	Reports(ctx context.Context, organisation, machine string, since time.Time, limit int) ([]muster.Signal, error)
}

// Tx is one transaction of the ledger.
type Tx interface {
	// InsertAlerts stores signals and says which were new; an id that was there
	// before, or stands earlier in the same call, is not.
	InsertAlerts(partitions []uint8, signals []*muster.Signal) (fresh []bool, err error)
	// PutEvidence stores rows, whose Data is valid until it returns.
	PutEvidence(rows []muster.EvidenceRow) error
	DeleteEvidence(partition uint8, sources []muster.Source) error
	PutVerdicts(vs []muster.Verdict) error
	PutNumbers(numbers []muster.Number) error
	PutTrust(rows []muster.TrustRow) error
	PutBehaviours(rows []muster.BehaviourRow) error
	PutTrustEvents(events []muster.TrustEvent) error
	// AdvanceEpoch fails when the stored epoch is not from.
	AdvanceEpoch(from, to uint64, data []byte) error
	// Advance moves a partition's position; it fails when the stored one is not
	// from, because another worker has taken the partition over.
	Advance(partition uint8, from, to uint64) error
}

// Config sets up a Worker.
type Config struct {
	Open      func(ctx context.Context, from [muster.Partitions]uint64) (Reader, error)
	Ledger    Ledger
	Partition func(muster.Source) uint8
	// Parameters of the judgement; the zero value means crowd.Default().
	Parameters crowd.Parameters
	// Prior is what the taxonomy says about a scenario, and Scenarios are those that
	// it knows, sorted. Others are worth what Prior("") says until machines are rated
	// next.
	Prior     func(scenario string) crowd.Prior
	Scenarios []string
	Truth     Truth // in force from the start
	// Member reports whether a machine is an active member of an organisation, so
	// that its word as one counts; asked once for every voice at start, because a
	// machine may have been blocked while nobody ran.
	Member func(machine, organisation string) bool
	// Name returns the name that an address owns, of those that canaries name, and
	// whether that is known: else Named hears of it, if it owns one. It must not
	// block. nil: names are not looked up.
	Name func(netip.Addr) (name string, known bool)
	// Changed is called after verdicts changed durably; it must not block.
	Changed    func()
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Worker owns the partitions of the log and all evidence in memory. One
// goroutine (Run) touches the state; others send it commands.
type Worker struct {
	cfg      Config
	commands chan command
	ready    chan struct{} // closed when evidence is loaded

	state               // what a failed commit throws away and loads anew
	truth     Truth     // in force
	stamped   time.Time // the changelog's latest stamp
	passed    uint64    // every entry at or below it is applied, whatever its partition
	busy      time.Time // when the log had something last
	arena     []byte    // memory of evidence on its way to the ledger, used again
	positions [muster.Partitions]uint64

	applied atomic.Uint64 // the highest of positions, for those who watch the lag

	signals  *prometheus.CounterVec
	verdicts prometheus.Counter
	events   *prometheus.CounterVec
	sources  prometheus.Gauge
	machines prometheus.Gauge
	commits  prometheus.Histogram
}

// command is work for Run from another goroutine.
type command struct {
	do   func(ctx context.Context) error
	done chan error
}

// What bounds one transaction, which is in memory as a whole, several times over:
// records hold from a few signals to some thousand each.
const (
	entriesPerCommit = 2048
	bytesPerCommit   = 16 << 20
)

// New returns a Worker; Run makes it work.
func New(cfg Config) *Worker {
	if cfg.Parameters.Version == 0 {
		cfg.Parameters = crowd.Default()
	}
	w := &Worker{
		cfg: cfg, truth: cfg.Truth,
		commands: make(chan command),
		ready:    make(chan struct{}),
		signals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_tally_signals_total", Help: "Signals taken from the log, by outcome (new, duplicate).",
		}, []string{"outcome"}),
		verdicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_tally_verdicts_total", Help: "Verdicts that changed.",
		}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_trust_events_total", Help: "What moved the trust in machines, by kind.",
		}, []string{"kind"}),
		sources: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muster_tally_sources", Help: "Sources with evidence in memory.",
		}),
		machines: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muster_trust_machines", Help: "Machines of which trust is kept.",
		}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_tally_commit_seconds", Help: "Time of one transaction, judging included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(w.signals, w.verdicts, w.events, w.sources, w.machines, w.commits)
	}
	return w
}

// Applied returns the highest position of the log whose effects are durable.
func (w *Worker) Applied() uint64 { return w.applied.Load() }

// Ready is closed once the evidence is in memory.
func (w *Worker) Ready() <-chan struct{} { return w.ready }

// How the clock goes on while the log has nothing: not before it was idle for a
// moment, and a little behind, so that what is on its way comes first.
const (
	idleFor  = time.Second
	behindBy = 2 * time.Second
)

// Run loads the evidence and follows the log until ctx ends; it returns nil
// then, and an error when the log or the ledger fails in a way that retrying
// does not help.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.load(ctx); err != nil {
		return ignoreCancel(ctx, err)
	}
	close(w.ready)
	w.busy = w.cfg.Now() // the log may have something: its reader is not asked yet
	batches := make(chan batch)
	failed := make(chan error, 1)
	readCtx, stop := context.WithCancel(ctx)
	defer stop()
	from := w.positions // the reader's own: the worker's move on
	go func() { failed <- w.follow(readCtx, from, batches) }()
	defer func() { stop(); _ = <-failed }() // why it ended was told, or is of no interest any more

	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	for {
		var err error
		select {
		case b := <-batches:
			if err = w.retry(ctx, func() error { return w.consume(ctx, b.entries) }); err == nil {
				w.passed = b.position
			}
			w.busy = w.cfg.Now() // not before: while it took its time, more may have come
		case c := <-w.commands:
			failure := c.do(ctx)
			c.done <- failure
			if isFenced(failure) {
				err = failure
			}
		case <-clock.C:
			now := w.cfg.Now()
			if now.Sub(w.busy) < idleFor {
				break
			}
			if err = w.idle(ctx, now.Add(-behindBy)); err != nil && !isFenced(err) {
				w.cfg.Logger.Error("what is due could not be judged; it is tried again", "error", err)
				err = nil
			}
		case err = <-failed:
			failed <- err
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return ignoreCancel(ctx, err)
		}
	}
}

func ignoreCancel(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// fenced is implemented by errors that say that another worker took over.
type fenced interface{ Fenced() bool }

func isFenced(err error) bool {
	var off fenced
	return errors.As(err, &off) && off.Fenced()
}

// retry repeats f while the ledger is away; being fenced off is final.
func (w *Worker) retry(ctx context.Context, f func() error) error {
	wait := 100 * time.Millisecond
	for {
		err := f()
		if err == nil || ctx.Err() != nil || isFenced(err) {
			return err
		}
		w.cfg.Logger.Error("verdicts could not be committed; retrying", "error", err, "wait", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		wait = min(2*wait, 10*time.Second)
	}
}

// batch is what one look at the log returned.
type batch struct {
	entries  []muster.Entry
	position uint64 // up to which nothing comes any more
}

// follow fetches ahead of the consumer by one batch. Records are asked for in
// such numbers as make about one, going by the size of those before.
func (w *Worker) follow(ctx context.Context, from [muster.Partitions]uint64, out chan<- batch) error {
	r, err := w.cfg.Open(ctx, from)
	if err != nil {
		return fmt.Errorf("opening the signal log: %w", err)
	}
	defer r.Close()
	limit, before := muster.Partitions, r.Position()
	for {
		entries, err := r.Next(ctx, limit)
		if err != nil {
			return fmt.Errorf("reading the signal log: %w", err)
		}
		limit = limitAfter(entries)
		for len(entries) > 0 {
			n := boundary(entries)
			b := batch{entries[:n], before}
			if entries = entries[n:]; len(entries) == 0 {
				before = r.Position()
				b.position = before
			}
			select {
			case out <- b:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// limitAfter returns how many records like these one transaction takes.
func limitAfter(entries []muster.Entry) int {
	size := 1
	for i := range entries {
		size += len(entries[i].Data)
	}
	return min(max(bytesPerCommit*len(entries)/size, 1), entriesPerCommit)
}

// boundary returns how many of the records are for one transaction: at least one.
func boundary(entries []muster.Entry) int {
	size := 0
	for i := range entries {
		if size += len(entries[i].Data); i > 0 && size > bytesPerCommit {
			return i
		}
	}
	return len(entries)
}

// records are the signals of a batch, record by record.
type records struct {
	signals []*muster.Signal
	parts   []uint8
	all     []record
}

// record is one of records.
type record struct {
	partition uint8
	position  uint64
	end       int   // of its signals
	latest    int64 // when the last of them was received, Unix seconds; 0 = it has none
}

func (w *Worker) decode(entries []muster.Entry) records {
	var b records
	for _, e := range entries {
		if e.Position <= w.positions[e.Partition] {
			continue // a retry of a batch whose commit did succeed
		}
		latest := int64(0)
		err := muster.DecodeSignals(e.Data, func(s *muster.Signal) {
			b.signals, b.parts = append(b.signals, s), append(b.parts, e.Partition)
			latest = max(latest, s.Received.Unix())
		})
		if err != nil {
			// Stopping here would stop every verdict for ever; the record stays in
			// the stream for whoever looks.
			w.cfg.Logger.Error("a record of the signal log cannot be read and is skipped",
				"partition", e.Partition, "position", e.Position, "error", err)
		}
		b.all = append(b.all, record{e.Partition, e.Position, len(b.signals), latest})
	}
	return b
}

// secondsPerCommit bounds how far one transaction moves the log's time: after a
// long silence there are many ticks to be made good.
const secondsPerCommit = 6 * 60 * 60

// consume handles one batch of entries, in one transaction unless they are of a
// long time. Evidence is judged after each record of the log and as of the time
// at which its latest signal was received, so that a replay gives the same
// verdicts however many records it takes at once.
func (w *Worker) consume(ctx context.Context, entries []muster.Entry) error {
	b := w.decode(entries)
	for first := 0; first < len(b.all); {
		if err := w.catchUp(ctx, b.all[first].latest); err != nil {
			return err
		}
		from := w.tick
		if from == 0 {
			from = b.all[first].latest
		}
		end := first + 1
		for end < len(b.all) && b.all[end].latest <= from+secondsPerCommit {
			end++
		}
		if err := w.take(ctx, &b, first, end); err != nil {
			return err
		}
		first = end
	}
	return nil
}

// catchUp does what is due up to a time, but for what one more transaction may
// do.
func (w *Worker) catchUp(ctx context.Context, at int64) error {
	for w.tick > 0 && w.tick+secondsPerCommit < at {
		err := w.commit(ctx, func(Tx) error {
			w.advance(w.tick + secondsPerCommit)
			return nil
		})
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take handles some records of a batch in one transaction.
func (w *Worker) take(ctx context.Context, b *records, first, end int) error {
	start := w.cfg.Now()
	from := 0
	if first > 0 {
		from = b.all[first-1].end
	}
	to := b.all[end-1].end
	news, reached := 0, map[uint8]uint64{}
	err := w.commit(ctx, func(tx Tx) error {
		fresh, err := tx.InsertAlerts(b.parts[from:to], b.signals[from:to])
		if err != nil {
			return err
		}
		at := from
		for _, r := range b.all[first:end] {
			if r.latest != 0 {
				w.advance(r.latest)
			}
			for ; at < r.end; at++ {
				if fresh[at-from] {
					w.fold(b.signals[at])
					news++
				}
			}
			w.judgeHeard()
			reached[r.partition] = r.position
		}
		for p, pos := range reached {
			if err := tx.Advance(p, w.positions[p], pos); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for p, pos := range reached {
		w.positions[p] = pos
		w.applied.Store(max(w.applied.Load(), pos))
	}
	w.signals.WithLabelValues("new").Add(float64(news))
	w.signals.WithLabelValues("duplicate").Add(float64(to - from - news))
	w.commits.Observe(w.cfg.Now().Sub(start).Seconds())
	return nil
}

// idle does what is due up to a time while the log has nothing, and moves the
// positions of partitions that had nothing, so that a restart need not read the
// whole log for their sake.
func (w *Worker) idle(ctx context.Context, at time.Time) error {
	behind := false
	for _, pos := range w.positions {
		behind = behind || pos < w.passed
	}
	if !w.pending(at.Unix()) && !behind && !w.owes() {
		return nil
	}
	if err := w.catchUp(ctx, at.Unix()); err != nil {
		return err
	}
	err := w.commit(ctx, func(tx Tx) error {
		w.advance(at.Unix())
		for p, pos := range w.positions {
			if pos < w.passed {
				if err := tx.Advance(uint8(p), pos, w.passed); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for p := range w.positions {
		w.positions[p] = max(w.positions[p], w.passed)
	}
	return nil
}

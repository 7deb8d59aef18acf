// Package tally consumes the signal log: it drops what it has seen, keeps
// alerts for their owners, folds evidence, judges, and commits all of it with
// its position in one transaction. A crash replays; effects are exactly once
// without trusting the broker.
package tally

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/consensus"
	"muster/internal/policy"
)

// Judge is the rule that turns evidence into verdicts.
type Judge interface {
	// Judge returns the evidence with its new standing and the verdicts that
	// differ from the last. never, when not empty, says why the source must not
	// be listed for anybody.
	Judge(source muster.Source, ev consensus.Evidence, never string, now time.Time) (consensus.Evidence, []muster.Verdict)
	// Stale reports whether the evidence can be forgotten.
	Stale(ev consensus.Evidence, now time.Time) bool
}

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
	// Advance moves a partition's position; it fails when the stored one is not
	// from, because another worker has taken the partition over.
	Advance(partition uint8, from, to uint64) error
}

// Config sets up a Worker.
type Config struct {
	Open      func(ctx context.Context, from [muster.Partitions]uint64) (Reader, error)
	Ledger    Ledger
	Judge     Judge
	Partition func(muster.Source) uint8
	Allowlist *policy.Allowlist // in force from the start; nil = empty
	// Member reports whether a machine is an active member of an organisation, so
	// that its word as one counts; asked once for every voice at start, because a
	// machine may have been blocked while nobody ran.
	Member func(machine, organisation string) bool
	// Changed is called after verdicts changed durably; it must not block.
	Changed    func()
	Now        func() time.Time
	Sweep      time.Duration // how often lapsed evidence is cleared; 0 = one minute
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Worker owns the partitions of the log and all evidence in memory. One
// goroutine (Run) touches the state; others send it commands.
type Worker struct {
	cfg      Config
	commands chan command
	ready    chan struct{} // closed when evidence is loaded

	evidence  map[muster.Source]consensus.Evidence
	names     map[string]string // one copy of every machine, organisation and scenario
	maxNames  int               // at which unused ones are looked for
	positions [muster.Partitions]uint64
	passed    uint64 // every entry at or below it is applied, whatever its partition
	allow     *policy.Allowlist
	stamped   time.Time // the changelog's latest stamp
	arena     []byte    // memory of evidence on its way to the ledger, used again

	applied atomic.Uint64 // the highest of positions, for those who watch the lag

	signals  *prometheus.CounterVec
	verdicts prometheus.Counter
	sources  prometheus.Gauge
	commits  prometheus.Histogram
}

// command is work for Run from another goroutine.
type command struct {
	do   func(ctx context.Context) error
	done chan error
}

// minNames is how many ids are kept at least before unused ones are looked for.
const minNames = 1 << 18

// entriesPerCommit bounds one transaction; records hold a few to a few hundred
// signals each.
const entriesPerCommit = 2048

// New returns a Worker; Run makes it work.
func New(cfg Config) *Worker {
	if cfg.Sweep <= 0 {
		cfg.Sweep = time.Minute
	}
	w := &Worker{
		cfg:      cfg,
		commands: make(chan command),
		ready:    make(chan struct{}),
		evidence: make(map[muster.Source]consensus.Evidence),
		names:    make(map[string]string),
		maxNames: minNames,
		allow:    cfg.Allowlist,
		signals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_tally_signals_total", Help: "Signals taken from the log, by outcome (new, duplicate).",
		}, []string{"outcome"}),
		verdicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_tally_verdicts_total", Help: "Verdicts that changed.",
		}),
		sources: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muster_tally_sources", Help: "Sources with evidence in memory.",
		}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_tally_commit_seconds", Help: "Time of one transaction, judging included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(w.signals, w.verdicts, w.sources, w.commits)
	}
	return w
}

// Applied returns the highest position of the log whose effects are durable.
func (w *Worker) Applied() uint64 { return w.applied.Load() }

// Ready is closed once the evidence is in memory.
func (w *Worker) Ready() <-chan struct{} { return w.ready }

// Run loads the evidence and follows the log until ctx ends; it returns nil
// then, and an error when the log or the ledger fails in a way that retrying
// does not help.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.load(ctx); err != nil {
		return ignoreCancel(ctx, err)
	}
	close(w.ready)
	batches := make(chan batch)
	failed := make(chan error, 1)
	readCtx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		failed <- w.read(readCtx, batches)
	}()
	defer func() { stop(); _ = <-failed }() // why it ended was told, or is of no interest any more

	sweep := time.NewTicker(w.cfg.Sweep)
	defer sweep.Stop()
	for {
		var err error
		select {
		case b := <-batches:
			if err = w.retry(ctx, func() error { return w.consume(ctx, b.entries) }); err == nil {
				w.passed = b.position
			}
		case c := <-w.commands:
			c.done <- c.do(ctx)
		case <-sweep.C:
			if err := w.sweep(ctx); err != nil {
				w.cfg.Logger.Error("lapsed evidence could not be cleared; next try at the next sweep", "error", err)
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

// retry repeats f while the ledger is away; being fenced off is final.
func (w *Worker) retry(ctx context.Context, f func() error) error {
	wait := 100 * time.Millisecond
	for {
		err := f()
		var off fenced
		if err == nil || ctx.Err() != nil || errors.As(err, &off) && off.Fenced() {
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

// load reads positions and evidence; voices of machines that no longer count
// are dropped on the way.
func (w *Worker) load(ctx context.Context) error {
	var err error
	if w.positions, err = w.cfg.Ledger.Positions(ctx); err != nil {
		return fmt.Errorf("reading the log positions: %w", err)
	}
	for _, pos := range w.positions {
		w.applied.Store(max(w.applied.Load(), pos))
	}
	if w.stamped, err = w.cfg.Ledger.LastVerdict(ctx); err != nil {
		return fmt.Errorf("reading the end of the changelog: %w", err)
	}
	var again []muster.Source // what the machines and the allowlist of today judge otherwise
	err = w.cfg.Ledger.EachEvidence(ctx, func(row muster.EvidenceRow) error {
		ev, err := consensus.EvidenceFromBinary(row.Data)
		if err != nil {
			return fmt.Errorf("%s: %w", row.Source, err)
		}
		for i := range ev.Voices {
			v := &ev.Voices[i]
			v.Machine, v.Organisation = w.intern(v.Machine), w.intern(v.Organisation)
		}
		gone := ev.Forget(func(v consensus.Voice) bool { return !w.cfg.Member(v.Machine, v.Organisation) })
		if gone || len(ev.Standing) > 0 && w.never(row.Source) != "" {
			again = append(again, row.Source)
		}
		w.evidence[row.Source] = ev
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the evidence: %w", err)
	}
	w.sources.Set(float64(len(w.evidence)))
	return w.rejudge(ctx, again)
}

// batch is what one look at the log returned.
type batch struct {
	entries  []muster.Entry
	position uint64 // of the reader behind it
}

// read fetches ahead of the consumer by one batch.
func (w *Worker) read(ctx context.Context, out chan<- batch) error {
	r, err := w.cfg.Open(ctx, w.positions)
	if err != nil {
		return fmt.Errorf("opening the signal log: %w", err)
	}
	defer r.Close()
	for {
		entries, err := r.Next(ctx, entriesPerCommit)
		if err != nil {
			return fmt.Errorf("reading the signal log: %w", err)
		}
		select {
		case out <- batch{entries, r.Position()}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// consume handles one batch of entries in one transaction.
func (w *Worker) consume(ctx context.Context, entries []muster.Entry) error {
	start := w.cfg.Now()
	var (
		signals []*muster.Signal
		parts   []uint8
		ends    []int // of each record's signals
		to      = map[uint8]uint64{}
	)
	for _, e := range entries {
		if e.Position <= w.positions[e.Partition] {
			continue // a retry of a batch whose commit did succeed
		}
		to[e.Partition] = e.Position
		err := muster.DecodeSignals(e.Data, func(s *muster.Signal) {
			signals, parts = append(signals, s), append(parts, e.Partition)
		})
		if err != nil {
			// Stopping here would stop every verdict for ever; the record stays in
			// the stream for whoever looks.
			w.cfg.Logger.Error("a record of the signal log cannot be read and is skipped",
				"partition", e.Partition, "position", e.Position, "error", err)
		}
		ends = append(ends, len(signals))
	}
	var (
		ch    *change
		fresh []bool
	)
	err := w.cfg.Ledger.Commit(ctx, func(tx Tx) error {
		var err error
		if fresh, err = tx.InsertAlerts(parts, signals); err != nil {
			return err
		}
		ch = w.newChange(len(signals))
		changed := w.stamp()
		first := 0
		for _, end := range ends {
			for i, s := range signals[first:end] {
				if fresh[first+i] {
					w.fold(ch, s)
				}
			}
			w.judge(ch, changed)
			first = end
		}
		if err := w.write(tx, ch); err != nil {
			return err
		}
		for p, pos := range to {
			if err := tx.Advance(p, w.positions[p], pos); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.install(ch)
	for p, pos := range to {
		w.positions[p] = pos
		w.applied.Store(max(w.applied.Load(), pos))
	}
	news := 0
	for _, f := range fresh {
		if f {
			news++
		}
	}
	w.signals.WithLabelValues("new").Add(float64(news))
	w.signals.WithLabelValues("duplicate").Add(float64(len(fresh) - news))
	w.commits.Observe(w.cfg.Now().Sub(start).Seconds())
	return nil
}

// intern keeps one copy of a name, so that a million voices of a thousand
// machines do not hold a million strings. Every machine with a voice is in the
// table; sweep takes out what no evidence names any more.
func (w *Worker) intern(s string) string {
	if c, ok := w.names[s]; ok {
		return c
	}
	c := strings.Clone(s)
	w.names[c] = c
	return c
}

// forgetNames keeps the names that evidence holds, when there are many others.
// No change may be under way, because its names are not in the evidence yet.
func (w *Worker) forgetNames() {
	if len(w.names) < w.maxNames {
		return
	}
	clear(w.names)
	keep := func(s string) { w.names[s] = s }
	for _, ev := range w.evidence {
		for _, v := range ev.Voices {
			keep(v.Machine)
			keep(v.Organisation)
		}
		for _, t := range ev.Scenarios {
			keep(t.Scenario)
		}
	}
	w.maxNames = max(minNames, 2*len(w.names))
}

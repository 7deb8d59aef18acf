// Package tally consumes the signal log: it drops what it has seen, keeps
// alerts for their owners, folds evidence, judges, and commits all of it with
// its position in one transaction. A crash replays; effects are exactly once
// without trusting the broker.
package tally

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	Close()
}

// Ledger keeps what the worker knows, durably.
type Ledger interface {
	Positions(ctx context.Context) ([muster.Partitions]uint64, error)
	EachEvidence(ctx context.Context, fn func(muster.EvidenceRow) error) error
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
	// Active reports whether a machine's word counts; asked once for every voice
	// at start, because a machine may have been blocked while nobody ran.
	Active func(machine string) bool
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
	names     map[string]string // one copy of every machine and organisation id
	positions [muster.Partitions]uint64
	allow     *policy.Allowlist
	stamped   time.Time // the changelog's latest stamp

	applied   atomic.Uint64 // the highest of positions, for those who watch the lag

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

// entriesPerCommit bounds one transaction; records hold a few to a few hundred
// signals each.
const entriesPerCommit = 256

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
	entries := make(chan []muster.Entry)
	failed := make(chan error, 1)
	readCtx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		err := w.read(readCtx, entries)
		failed <- err
	}()
	defer func() { stop(); <-failed }()

	sweep := time.NewTicker(w.cfg.Sweep)
	defer sweep.Stop()
	for {
		var err error
		select {
		case batch := <-entries:
			err = w.retry(ctx, func() error { return w.consume(ctx, batch) })
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
		before := len(ev.Voices)
		for _, v := range ev.Clone().Voices {
			if !w.cfg.Active(v.Machine) {
				ev.Forget(v.Machine)
			}
		}
		if len(ev.Voices) < before || len(ev.Standing) > 0 && w.never(row.Source) != "" {
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

// read fetches ahead of the consumer by one batch.
func (w *Worker) read(ctx context.Context, out chan<- []muster.Entry) error {
	r, err := w.cfg.Open(ctx, w.positions)
	if err != nil {
		return fmt.Errorf("opening the signal log: %w", err)
	}
	defer r.Close()
	for {
		batch, err := r.Next(ctx, entriesPerCommit)
		if err != nil {
			return fmt.Errorf("reading the signal log: %w", err)
		}
		select {
		case out <- batch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// change is what one transaction will do to the evidence, kept beside it until
// the transaction is durable.
type change struct {
	evidence map[muster.Source]consensus.Evidence
	last     map[muster.Source]time.Time // when each source was last heard, for judging
	verdicts []muster.Verdict
}

func (w *Worker) newChange(size int) *change {
	return &change{
		evidence: make(map[muster.Source]consensus.Evidence, size),
		last:     make(map[muster.Source]time.Time, size),
	}
}

// of returns a private copy of the evidence on source.
func (c *change) of(w *Worker, source muster.Source) consensus.Evidence {
	if ev, ok := c.evidence[source]; ok {
		return ev
	}
	return w.evidence[source].Clone()
}

// consume handles one batch of entries in one transaction.
func (w *Worker) consume(ctx context.Context, entries []muster.Entry) error {
	start := w.cfg.Now()
	var (
		signals []*muster.Signal
		parts   []uint8
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
		for i, s := range signals {
			if fresh[i] {
				w.fold(ch, s)
			}
		}
		w.judge(ch, w.stamp())
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

func (w *Worker) fold(ch *change, s *muster.Signal) {
	if !s.Source.IsValid() || s.Flags&(muster.Counts|muster.Fleet) == 0 || !w.cfg.Active(s.Machine) {
		return
	}
	s.Machine, s.Organisation, s.Scenario = w.intern(s.Machine), w.intern(s.Organisation), w.intern(s.Scenario)
	ch.evidence[s.Source] = consensus.Fold(ch.of(w, s.Source), s)
	ch.last[s.Source] = s.Received
}

// judge judges every source of the change. Evidence is judged at the time its
// latest signal was received, so that a replay gives the same verdicts; what is
// told to readers is stamped with changed, the clock of the changelog.
func (w *Worker) judge(ch *change, changed time.Time) {
	for source, ev := range ch.evidence {
		at := changed
		if t, ok := ch.last[source]; ok {
			at = t
		}
		ev, vs := w.cfg.Judge.Judge(source, ev, w.never(source), at)
		ch.evidence[source] = ev
		for i := range vs {
			vs[i].Changed = changed
		}
		ch.verdicts = append(ch.verdicts, vs...)
	}
}

// stamp returns the time for the changelog, which only grows: those who follow
// it would miss what a clock that was set back has stamped.
func (w *Worker) stamp() time.Time {
	now := w.cfg.Now().UTC().Truncate(time.Microsecond)
	if !now.After(w.stamped) {
		now = w.stamped.Add(time.Microsecond)
	}
	w.stamped = now
	return now
}

// never says why source must not be published, or "".
func (w *Worker) never(source muster.Source) string {
	if source.IsReserved() {
		return "reserved or private address space is never listed"
	}
	if reason, ok := w.allow.Covers(source); ok {
		if reason == "" {
			return "on the allowlist"
		}
		return "on the allowlist: " + reason
	}
	return ""
}

func (w *Worker) write(tx Tx, ch *change) error {
	rows := make([]muster.EvidenceRow, 0, len(ch.evidence))
	var arena []byte
	for source, ev := range ch.evidence {
		start := len(arena)
		arena = ev.AppendBinary(arena)
		rows = append(rows, muster.EvidenceRow{
			Partition: w.cfg.Partition(source), Source: source,
			Last: time.UnixMicro(ev.Last).UTC(), Data: arena[start:len(arena):len(arena)],
		})
	}
	if err := tx.PutEvidence(rows); err != nil {
		return err
	}
	if len(ch.verdicts) == 0 {
		return nil
	}
	return tx.PutVerdicts(ch.verdicts)
}

// install makes a durable change the state in memory.
func (w *Worker) install(ch *change) {
	for source, ev := range ch.evidence {
		w.evidence[source] = ev
	}
	w.sources.Set(float64(len(w.evidence)))
	if len(ch.verdicts) > 0 {
		w.verdicts.Add(float64(len(ch.verdicts)))
		w.cfg.Changed()
	}
}

// rejudge judges sources again without new signals and commits what changed.
func (w *Worker) rejudge(ctx context.Context, sources []muster.Source) error {
	if len(sources) == 0 {
		return nil
	}
	ch := w.newChange(len(sources))
	for _, s := range sources {
		ch.evidence[s] = ch.of(w, s)
	}
	return w.commitChange(ctx, ch)
}

func (w *Worker) commitChange(ctx context.Context, ch *change) error {
	w.judge(ch, w.stamp())
	if err := w.cfg.Ledger.Commit(ctx, func(tx Tx) error { return w.write(tx, ch) }); err != nil {
		return err
	}
	w.install(ch)
	return nil
}

// sweep ends listings that lapsed and forgets sources that nobody has reported
// for so long that nothing about them can matter.
func (w *Worker) sweep(ctx context.Context) error {
	now := w.cfg.Now()
	var lapsed []muster.Source
	for source, ev := range w.evidence {
		for _, st := range ev.Standing {
			if st.Until <= now.UnixMicro() {
				lapsed = append(lapsed, source)
				break
			}
		}
	}
	if err := w.rejudge(ctx, lapsed); err != nil {
		return err
	}
	stale := map[uint8][]muster.Source{}
	for source, ev := range w.evidence {
		if w.cfg.Judge.Stale(ev, now) {
			p := w.cfg.Partition(source)
			stale[p] = append(stale[p], source)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	err := w.cfg.Ledger.Commit(ctx, func(tx Tx) error {
		for p, sources := range stale {
			if err := tx.DeleteEvidence(p, sources); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, sources := range stale {
		for _, s := range sources {
			delete(w.evidence, s)
		}
	}
	w.sources.Set(float64(len(w.evidence)))
	return nil
}

// intern keeps one copy of an id, so that a million voices of a thousand
// machines do not hold a million strings. The table is bounded: when it
// overflows it starts anew, which costs memory only.
func (w *Worker) intern(s string) string {
	if c, ok := w.names[s]; ok {
		return c
	}
	if len(w.names) >= 1<<18 {
		clear(w.names)
	}
	c := string(append([]byte(nil), s...))
	w.names[c] = c
	return c
}

// do runs f on the worker's goroutine.
func (w *Worker) do(ctx context.Context, f func(ctx context.Context) error) error {
	c := command{do: f, done: make(chan error, 1)}
	select {
	case w.commands <- c:
		return <-c.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Forget drops everything that machine said: it was blocked, or has left.
func (w *Worker) Forget(ctx context.Context, machine string) error {
	return w.do(ctx, func(ctx context.Context) error {
		ch := w.newChange(0)
		for source, ev := range w.evidence {
			if ev = ev.Clone(); ev.Forget(machine) {
				ch.evidence[source] = ev
			}
		}
		if len(ch.evidence) == 0 {
			return nil
		}
		return w.commitChange(ctx, ch)
	})
}

// removalScan bounds how many of a machine's stored signals are looked through
// for a decision that its operator deleted.
const removalScan = 20_000

// Withdraw takes decisions that a machine's operator deleted off its fleet's
// list. Reports made after the removal stand. It may be told the same removal
// twice.
func (w *Worker) Withdraw(ctx context.Context, organisation string, r muster.Removal, since time.Time) error {
	reports, err := w.cfg.Ledger.Reports(ctx, organisation, r.Machine, since, removalScan)
	if err != nil {
		return err
	}
	var sources []muster.Source
	for _, s := range reports {
		for _, uuid := range r.Decisions {
			if s.Flags&muster.Fleet != 0 && bytes.Contains(s.Detail, []byte(uuid)) {
				sources = append(sources, s.Source)
				break
			}
		}
	}
	if len(sources) == 0 {
		return nil
	}
	return w.do(ctx, func(ctx context.Context) error {
		ch := w.newChange(len(sources))
		for _, source := range sources {
			ev := ch.of(w, source)
			if ev.Withdraw(r.Machine, r.At) {
				ch.evidence[source] = ev
			}
		}
		return w.commitChange(ctx, ch)
	})
}

// SetAllowlist replaces the allowlist and judges again what it may concern.
func (w *Worker) SetAllowlist(ctx context.Context, a *policy.Allowlist) error {
	return w.do(ctx, func(ctx context.Context) error {
		before := w.allow
		w.allow = a
		var sources []muster.Source
		for source := range w.evidence {
			_, was := before.Covers(source)
			if _, is := a.Covers(source); is != was {
				sources = append(sources, source)
			}
		}
		return w.rejudge(ctx, sources)
	})
}

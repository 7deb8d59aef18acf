// Package spool carries signals from engines to an upstream Central API without
// losing or doubling any: an intake makes every request durable before it is
// answered, and a forwarder sends what no rule withholds, in order per engine,
// for as long as it takes.
//
// Exactly once is at least once here and once there: positions are committed
// after the upstream's answer, and what is sent again after a crash has the
// same uuids, which the upstream counts once per machine.
package spool

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/groupcommit"
)

// IntakeConfig sets up an Intake.
type IntakeConfig struct {
	Log        groupcommit.Log
	Linger     time.Duration // how long the first request of a commit waits for company; 0 = not at all
	QueueBytes int           // encoded bytes that may wait for the disk; 0 = 64 MiB
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

// Intake makes requests durable.
type Intake struct {
	group   *groupcommit.Committer
	signals prometheus.Counter
	commits prometheus.Histogram
}

// NewIntake returns an Intake; Run must be running for Put to return.
func NewIntake(cfg IntakeConfig) *Intake {
	in := &Intake{
		signals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_sieve_signals_total", Help: "Signals made durable and acknowledged.",
		}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_sieve_commit_seconds", Help: "Time of one group commit, sync included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}),
	}
	in.group = groupcommit.New(groupcommit.Config{
		Log: cfg.Log, Linger: cfg.Linger, QueueBytes: cfg.QueueBytes, Setting: "spool.queue",
		Boundary: muster.SievedBoundary, Now: cfg.Now, Logger: cfg.Logger,
		Done: func(o groupcommit.Outcome) {
			in.commits.Observe(o.Took.Seconds())
			if o.Err == nil {
				in.signals.Add(float64(o.Items))
			}
		},
	})
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(in.signals, in.commits)
	}
	return in
}

// Run commits until ctx ends.
func (in *Intake) Run(ctx context.Context) error { return in.group.Run(ctx) }

// MaxSignal is the largest signal, in bytes, that fits the log.
const MaxSignal = 6 << 20

// Put gives a uuid to signals that have none and returns when the whole batch is
// on disk. Errors: TooLarge for a signal over MaxSignal; Unavailable, with
// RetryAfter, when the disk or the log is full or does not follow: nothing is
// certain then.
func (in *Intake) Put(ctx context.Context, batch *muster.SievedBatch) error {
	if len(batch.Signals) == 0 {
		return nil
	}
	for i := range batch.Signals {
		s := &batch.Signals[i]
		if len(s.Raw) > MaxSignal {
			return muster.Errorf(muster.TooLarge, "signal %d has %d bytes: at most %d", i, len(s.Raw), MaxSignal)
		}
		if s.UUID == "" {
			s.UUID, s.Given = contentUUID(batch.Engine, s.Raw), true
		}
	}
	part := batch.Engine.Partition()
	var data []byte
	whole := batch.Signals
	defer func() { batch.Signals = whole }()
	for rest := whole; len(rest) > 0; {
		n, size := 0, 0
		for n < len(rest) && (n == 0 || size+len(rest[n].Raw) <= groupcommit.MaxRecord) {
			size += len(rest[n].Raw)
			n++
		}
		batch.Signals = rest[:n]
		data = muster.AppendSievedBatch(data, batch)
		rest = rest[n:]
	}
	return in.group.Commit(ctx, []muster.Record{{Partition: part, Data: data}}, len(whole))
}

// contentUUID derives a uuid (version 8, RFC 9562) from what was sent, so that
// an engine that sends the same again does not count twice.
func contentUUID(engine muster.SieveEngine, raw []byte) string {
	h := sha256.New()
	h.Write(engine[:])
	h.Write(raw)
	u := h.Sum(nil)[:16]
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

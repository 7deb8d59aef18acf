package ingest

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/groupcommit"
)

// Config sets up a Committer.
type Config struct {
	Log        groupcommit.Log
	Rules      Rules
	Linger     time.Duration // how long the first batch of a commit waits for company; 0 = not at all
	QueueBytes int           // encoded bytes that may wait for the disk; 0 = 64 MiB
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Committer makes whole batches durable by group commit.
type Committer struct {
	cfg     Config
	group   *groupcommit.Committer
	batches sync.Pool

	accepted prometheus.Counter
	refused  *prometheus.CounterVec
	commits  prometheus.Histogram
	commitSz prometheus.Histogram
	waiting  prometheus.Gauge
}

// NewCommitter returns a Committer; Run must be running for Commit to return.
func NewCommitter(cfg Config) *Committer {
	c := &Committer{
		cfg: cfg,
		accepted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_signals_accepted_total", Help: "Signals made durable and acknowledged.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_signals_refused_total", Help: "Signals in well-formed batches that were not taken, by reason.",
		}, []string{"reason"}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_ingest_commit_seconds", Help: "Time of one group commit, sync included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}),
		commitSz: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_ingest_commit_signals", Help: "Signals in one group commit.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 9),
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muster_ingest_queue_bytes", Help: "Encoded bytes waiting for the next group commit (ingest.queue bounds them).",
		}),
	}
	c.batches.New = func() any { return &Batch{seen: make(map[muster.SignalID]struct{}, 64)} }
	c.group = groupcommit.New(groupcommit.Config{
		Log: cfg.Log, Linger: cfg.Linger, QueueBytes: cfg.QueueBytes, Setting: "ingest.queue",
		Boundary: muster.SignalBoundary, Now: cfg.Now, Logger: cfg.Logger,
		Waiting: func(bytes int) { c.waiting.Set(float64(bytes)) },
		Done:    c.committed,
	})
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(c.accepted, c.refused, c.commits, c.commitSz, c.waiting)
	}
	return c
}

// Batch starts a batch from sender.
func (c *Committer) Batch(sender Sender) *Batch {
	b := c.batches.Get().(*Batch)
	b.committer, b.rules, b.sender, b.received = c, c.cfg.Rules, sender, c.cfg.Now().UTC()
	return b
}

// Drop releases a batch that will not be committed; nothing of it is kept.
func (b *Batch) Drop() {
	c := b.committer
	clear(b.seen)
	if cap(b.buf) > 1<<20 {
		b.buf = nil // one giant batch must not pin its memory for ever
	}
	clear(b.records) // they point into buf
	*b = Batch{buf: b.buf[:0], spans: b.spans[:0], records: b.records[:0], seen: b.seen}
	c.batches.Put(b)
}

// Commit returns when the whole batch is durable. On error the sender must be
// told that nothing is certain: code Unavailable when the queue is full or the
// log is away. A cancelled ctx stops the wait, not the write. The counters of
// the batch stay readable until Drop.
func (b *Batch) Commit(ctx context.Context) error {
	if len(b.spans) == 0 {
		return nil
	}
	for _, s := range b.spans {
		b.records = append(b.records, muster.Record{Partition: s.partition, Data: b.buf[s.start:s.end]})
	}
	return b.committer.group.Commit(ctx, b.records, len(b.records))
}

// Run writes until ctx ends, then commits what still waits and refuses the rest.
func (c *Committer) Run(ctx context.Context) error { return c.group.Run(ctx) }

func (c *Committer) committed(o groupcommit.Outcome) {
	c.commits.Observe(o.Took.Seconds())
	c.commitSz.Observe(float64(o.Items))
	if o.Err == nil {
		c.accepted.Add(float64(o.Items))
	}
}

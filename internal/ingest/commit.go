package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
)

// Log is where batches become durable.
type Log interface {
	// Append returns nil only when every record is on disk. After an error some
	// records may or may not be there: ids make a second try harmless. It is
	// called by one goroutine at a time and must not keep the records' data,
	// which is used again.
	Append(ctx context.Context, records []muster.Record) error
}

// Config sets up a Committer.
type Config struct {
	Log        Log
	Rules      Rules
	Linger     time.Duration // how long the first batch of a commit waits for company; 0 = not at all
	QueueBytes int           // encoded bytes that may wait for the disk; 0 = 64 MiB
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Committer turns many concurrent batches into few durable appends: batches
// join a pool, one writer appends the pool with one sync and releases everybody
// who waited. While one append runs, the next pool fills, so the commit rate
// adapts to the disk by itself.
type Committer struct {
	cfg  Config
	wake chan struct{} // one token: the pool is not empty

	mu     sync.Mutex
	pool   *pool
	closed bool

	batches sync.Pool
	spare   [muster.Partitions][]byte // buffers of the last pool; the writer's own

	accepted prometheus.Counter
	refused  *prometheus.CounterVec
	commits  prometheus.Histogram
	commitSz prometheus.Histogram
	waiting  prometheus.Gauge
}

// pool is what the next append will carry.
type pool struct {
	parts   [muster.Partitions][]byte
	bytes   int
	signals int
	done    chan struct{} // closed when the outcome is known
	err     error         // valid after done
}

// maxRecord is the size at which a partition's bytes are split over several
// records, well below what the stream takes in one message.
const maxRecord = 1 << 20

// NewCommitter returns a Committer; Run must be running for Commit to return.
func NewCommitter(cfg Config) *Committer {
	if cfg.QueueBytes <= 0 {
		cfg.QueueBytes = 64 << 20
	}
	c := &Committer{
		cfg:  cfg,
		wake: make(chan struct{}, 1),
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
	c.pool = &pool{done: make(chan struct{})}
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
	*b = Batch{buf: b.buf[:0], spans: b.spans[:0], seen: b.seen}
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
	c := b.committer
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return &muster.Error{Code: muster.Unavailable, Message: "this node is shutting down: try again", RetryAfter: time.Second}
	}
	p := c.pool
	if p.bytes > 0 && p.bytes+len(b.buf) > c.cfg.QueueBytes {
		c.mu.Unlock()
		return &muster.Error{
			Code: muster.Unavailable, RetryAfter: 2 * time.Second,
			Message: "too many signals are waiting for the disk: try again (setting ingest.queue)",
		}
	}
	for _, s := range b.spans {
		p.parts[s.partition] = append(p.parts[s.partition], b.buf[s.start:s.end]...)
	}
	p.bytes += len(b.buf)
	p.signals += len(b.spans)
	c.waiting.Set(float64(p.bytes))
	c.mu.Unlock()

	select {
	case c.wake <- struct{}{}:
	default: // the writer knows already
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the group commit: %w", context.Cause(ctx))
	}
}

// Run writes until ctx ends, then commits what still waits and refuses the rest.
func (c *Committer) Run(ctx context.Context) error {
	for {
		select {
		case <-c.wake:
			c.linger(ctx)
			c.flush()
		case <-ctx.Done():
			c.mu.Lock()
			c.closed = true
			c.mu.Unlock()
			c.flush()
			return nil
		}
	}
}

func (c *Committer) linger(ctx context.Context) {
	if c.cfg.Linger <= 0 {
		return
	}
	t := time.NewTimer(c.cfg.Linger)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// flush appends the current pool and tells everybody who waited on it.
func (c *Committer) flush() {
	next := &pool{done: make(chan struct{}), parts: c.spare}
	c.mu.Lock()
	p := c.pool
	if p.signals == 0 {
		c.mu.Unlock()
		return
	}
	c.pool = next
	c.waiting.Set(0)
	c.mu.Unlock()

	var records []muster.Record
	for part, data := range p.parts {
		records = appendRecords(records, uint8(part), data)
	}
	// The waiters' own contexts must not cancel a write that others share.
	start := c.cfg.Now()
	err := c.cfg.Log.Append(context.Background(), records)
	c.commits.Observe(c.cfg.Now().Sub(start).Seconds())
	c.commitSz.Observe(float64(p.signals))
	if err != nil {
		c.cfg.Logger.Error("signals could not be made durable; their senders were told", "signals", p.signals, "error", err)
		p.err = err
		if muster.CodeOf(err) == "" {
			p.err = &muster.Error{Code: muster.Unavailable, Message: "the signal log is away: try again", RetryAfter: 2 * time.Second, Cause: err}
		}
	} else {
		c.accepted.Add(float64(p.signals))
	}
	for part, data := range p.parts {
		c.spare[part] = nil
		if cap(data) <= maxRecord { // a burst must not pin its memory for ever
			c.spare[part] = data[:0]
		}
	}
	close(p.done)
}

// appendRecords splits data, which is a run of encoded signals, into records of
// about maxRecord bytes at signal boundaries.
func appendRecords(records []muster.Record, part uint8, data []byte) []muster.Record {
	for len(data) > maxRecord {
		end := muster.SignalBoundary(data, maxRecord)
		records = append(records, muster.Record{Partition: part, Data: data[:end]})
		data = data[end:]
	}
	if len(data) > 0 {
		records = append(records, muster.Record{Partition: part, Data: data})
	}
	return records
}

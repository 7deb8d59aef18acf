// Package groupcommit turns many concurrent small writes into few durable
// appends to the log. What waits joins a pool, one writer appends the pool with
// one sync and releases everybody who waited. While one append runs the next
// pool fills, so the commit rate adapts to the disk by itself.
package groupcommit

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"muster"
)

// Log is where pools become durable.
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
	Linger     time.Duration // how long the first of a commit waits for company; 0 = not at all
	QueueBytes int           // bytes that may wait for the disk; 0 = 64 MiB
	Setting    string        // the setting behind QueueBytes, for whoever is turned away
	// Boundary returns the length of the longest run of whole items at the start
	// of data that is not over limit, and at least one item.
	Boundary func(data []byte, limit int) int
	Now      func() time.Time
	Logger   *slog.Logger
	Waiting  func(bytes int) // told how much waits; nil: nobody is
	Done     func(Outcome)   // told of each append; nil: nobody is
}

// Outcome is what became of one append.
type Outcome struct {
	Items int
	Took  time.Duration
	Err   error
}

// Committer collects and commits. Make it with New; Run must be running for
// Commit to return.
type Committer struct {
	cfg  Config
	wake chan struct{} // one token: the pool is not empty

	mu     sync.Mutex
	pool   *pool
	closed bool

	spare [muster.Partitions][]byte // buffers of the last pool; the writer's own
}

// pool is what the next append will carry.
type pool struct {
	parts [muster.Partitions][]byte
	bytes int
	items int
	done  chan struct{} // closed when the outcome is known
	err   error         // valid after done
}

// MaxRecord is the size in bytes at which a partition's items are split over
// several records, well below what the stream takes in one message.
const MaxRecord = 1 << 20

// New returns a Committer.
func New(cfg Config) *Committer {
	if cfg.QueueBytes <= 0 {
		cfg.QueueBytes = 64 << 20
	}
	return &Committer{cfg: cfg, wake: make(chan struct{}, 1), pool: &pool{done: make(chan struct{})}}
}

// Commit returns when all records, which hold so many items, are durable. On
// error the sender must be told that nothing is certain: code Unavailable when
// the queue is full or the log is away. A cancelled ctx stops the wait, not the
// write. The records' data is copied before Commit waits.
func (c *Committer) Commit(ctx context.Context, records []muster.Record, items int) error {
	size := 0
	for _, r := range records {
		size += len(r.Data)
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return &muster.Error{Code: muster.Unavailable, Message: "this node is shutting down: try again", RetryAfter: time.Second}
	}
	p := c.pool
	if p.bytes > 0 && p.bytes+size > c.cfg.QueueBytes {
		c.mu.Unlock()
		return &muster.Error{
			Code: muster.Unavailable, RetryAfter: 2 * time.Second,
			Message: "too many signals are waiting for the disk: try again (setting " + c.cfg.Setting + ")",
		}
	}
	for _, r := range records {
		p.parts[r.Partition] = append(p.parts[r.Partition], r.Data...)
	}
	p.bytes += size
	p.items += items
	c.waiting(p.bytes)
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

func (c *Committer) waiting(bytes int) {
	if c.cfg.Waiting != nil {
		c.cfg.Waiting(bytes)
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
	if p.bytes == 0 {
		c.mu.Unlock()
		return
	}
	c.pool = next
	c.waiting(0)
	c.mu.Unlock()

	var records []muster.Record
	for part, data := range p.parts {
		records = c.appendRecords(records, uint8(part), data)
	}
	// The waiters' own contexts must not cancel a write that others share.
	start := c.cfg.Now()
	err := c.cfg.Log.Append(context.Background(), records)
	if c.cfg.Done != nil {
		c.cfg.Done(Outcome{Items: p.items, Took: c.cfg.Now().Sub(start), Err: err})
	}
	if err != nil {
		c.cfg.Logger.Error("signals could not be made durable; their senders were told", "signals", p.items, "error", err)
		p.err = err
		if muster.CodeOf(err) == "" {
			p.err = &muster.Error{Code: muster.Unavailable, Message: "the signal log is away: try again", RetryAfter: 2 * time.Second, Cause: err}
		}
	}
	for part, data := range p.parts {
		c.spare[part] = nil
		if cap(data) <= MaxRecord { // a burst must not pin its memory for ever
			c.spare[part] = data[:0]
		}
	}
	close(p.done)
}

// appendRecords splits data, which is a run of items, into records of about
// MaxRecord bytes at their boundaries.
func (c *Committer) appendRecords(records []muster.Record, part uint8, data []byte) []muster.Record {
	for len(data) > MaxRecord {
		end := c.cfg.Boundary(data, MaxRecord)
		records = append(records, muster.Record{Partition: part, Data: data[:end]})
		data = data[end:]
	}
	if len(data) > 0 {
		records = append(records, muster.Record{Partition: part, Data: data})
	}
	return records
}

// Package stream is the durable, partitioned log that signals travel through,
// a key-value store with watch, and bells that wake whoever listens. It runs
// NATS JetStream: inside the process by default, or as a cluster of its own.
// Nothing of NATS leaves the package.
//
// The log promises what NATS promises for one stream and no more: the position
// that a reader has applied is kept by the reader, in its own database, and is
// the truth.
package stream

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
)

// Config says where the log lives. The zero value of every field but Dir is
// usable.
type Config struct {
	URL        string                // "" = embedded, in-process, no listener; else "nats://a,b,c": a cluster, three replicas
	Dir        string                // embedded: folder of the log, made when absent; one process at a time
	MaxAge     time.Duration         // how long the log is kept; 0 = 72 h
	MaxBytes   int64                 // size of the log at which Append refuses; 0 = 8 GiB
	Floor      uint64                // positions given out are above it: pass the highest applied position, 0 for a new installation
	Registerer prometheus.Registerer // nil = no metrics
	Logger     *slog.Logger          // nil = silent
}

// Bus is an open log with its key-value buckets and bells. Its methods may be
// called from many goroutines.
type Bus struct{}

// Open starts (or connects to) the bus and makes sure that its log exists. The
// context bounds the opening only.
func Open(ctx context.Context, cfg Config) (*Bus, error) { return nil, errors.ErrUnsupported }

// Close ends all readers, watches and listeners and stops the embedded server.
func (b *Bus) Close() {}

// Append writes records and returns when all of them are synced to disk: nil
// means durable. After an error some or all may be there all the same, so the
// caller may repeat them: at least once. Errors: TooLarge for a record over
// MaxRecord, Unavailable when the log is full or away.
func (b *Bus) Append(ctx context.Context, records []muster.Record) error {
	return errors.ErrUnsupported
}

// Last returns the position of the newest record of each partition, 0 where
// there is none.
func (b *Bus) Last(ctx context.Context) ([muster.Partitions]uint64, error) {
	return [muster.Partitions]uint64{}, errors.ErrUnsupported
}

// Read starts reading the given partitions, each strictly above its position
// in from. The context bounds the start only.
func (b *Bus) Read(ctx context.Context, partitions []uint8, from [muster.Partitions]uint64) (Reader, error) {
	return nil, errors.ErrUnsupported
}

// Reader is one pass over the log. It is for one goroutine.
type Reader interface {
	// Next blocks until there is an entry, then returns up to max of those that
	// are there, in order within each partition. Only durable entries are seen.
	// It rides out hiccups of the log; an error means that ctx has ended or the
	// reader cannot go on.
	Next(ctx context.Context, max int) ([]muster.Entry, error)
	// Close releases what the reader holds. Next must not run.
	Close()
}

// Ring wakes all listeners of a bell, on all nodes. It does not wait for them
// and nothing is stored. Payload: at most 1 MiB, usually a few bytes.
func (b *Bus) Ring(ctx context.Context, bell string, payload []byte) error {
	return errors.ErrUnsupported
}

// Listen hears a bell from now on.
func (b *Bus) Listen(bell string) (*Listener, error) { return nil, errors.ErrUnsupported }

// Ring is what a listener hears.
type Ring struct {
	Payload []byte
	// Missed: rings before this one were lost, because the listener was slow or
	// the connection broke. Whoever works by payload must now look at
	// everything.
	Missed bool
}

// Listener is a subscription to one bell. At most 256 rings wait in C; beyond
// that the oldest are dropped and the newest is marked Missed.
type Listener struct {
	C <-chan Ring // closed by Close
}

// Close ends the subscription.
func (l *Listener) Close() {}

// KV opens a bucket, made when absent. Keys vanish ttl after they were last
// put; 0 keeps them. Bucket names are letters, digits, - and _.
func (b *Bus) KV(ctx context.Context, bucket string, ttl time.Duration) (KV, error) {
	return nil, errors.ErrUnsupported
}

// KV is a bucket of small values, durable when a write returns. Keys are 1 to
// 256 bytes of any text without control characters, in tokens separated by
// dots; no token is empty.
type KV interface {
	// Get returns the value and its revision, or NotFound.
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	// Put sets a value whatever was there and returns its revision.
	Put(ctx context.Context, key string, value []byte) (revision uint64, err error)
	// Create sets a value where there is none, else returns Exists.
	Create(ctx context.Context, key string, value []byte) (revision uint64, err error)
	// Delete removes a key; a key that is not there is no error.
	Delete(ctx context.Context, key string) error
	// Watch tells the current values under prefix, then one Change whose Key is
	// "", then every change (also expiry) until ctx ends, when the channel
	// closes. Prefix is "" for all, or whole tokens: "ban" hears "ban.x" but
	// neither "ban" nor "banner". Repeated changes of one key may be told as
	// the last one only.
	Watch(ctx context.Context, prefix string) (<-chan Change, error)
}

// Change is one key's new state.
type Change struct {
	Key      string // "" marks the end of the current values
	Value    []byte
	Deleted  bool // deleted or expired
	Revision uint64
}

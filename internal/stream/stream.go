// Package stream is the durable, partitioned log that signals travel through,
// a key-value store with watch, and bells that wake whoever listens. It runs
// NATS JetStream: inside the process by default, or as a cluster of its own.
// Nothing of NATS leaves the package.
//
// The log keeps no account of its readers: the position that a reader has
// applied is kept by the reader, in its own database, and is the truth.
//
// One Append is one message of the stream (a frame) that holds the records of
// all partitions: one write, one checksum, one sync. So an Append is there as
// a whole or not at all, also after a crash, and no reader can see it before
// it is durable. For 64 records of 2 kB it takes an eighth of the time of the
// server's atomic batch of 64 messages and a twelfth of 64 synced messages, on
// a disk that syncs fast; on a slower one the latter is out of the question
// (BenchmarkAlternatives).
package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"muster"
)

const (
	streamName = "SIG"
	subject    = "sig"

	// requestTimeout bounds every request to the stream that has no earlier
	// deadline of its own; a sync of a busy disk can take seconds.
	requestTimeout = 30 * time.Second
)

// Config says where the log lives. The zero value of every field but Dir is
// usable.
type Config struct {
	URL        string                // "" = embedded, in-process, no listener; else "nats://a,b,c": a cluster, three replicas
	Dir        string                // embedded: folder of the log, made when absent; one process at a time
	MaxAge     time.Duration         // how long the log is kept; 0 = 72 h
	MaxBytes   int64                 // size of the log at which Append refuses; 0 = 8 GiB
	MinFree    int64                 // embedded: free bytes of the disk below which Append refuses; 0 = 256 MiB
	Floor      uint64                // positions given out are above it: pass the highest applied position, 0 for a new installation
	Registerer prometheus.Registerer // nil = no metrics
	Logger     *slog.Logger          // nil = silent
	Section    string                // of the configuration that holds max_age and max_bytes, for messages; "" = "stream"
}

func (c Config) withDefaults() Config {
	if c.MaxAge == 0 {
		c.MaxAge = 72 * time.Hour
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 8 << 30
	}
	if c.MinFree == 0 {
		c.MinFree = 256 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Section == "" {
		c.Section = "stream"
	}
	return c
}

// Bus is an open log with its key-value buckets and bells. Its methods may be
// called from many goroutines.
type Bus struct {
	cfg      Config
	log      *slog.Logger
	server   *embedded // nil when external
	nc       *nats.Conn
	js       jetstream.JetStream
	metrics  *metrics
	maxFrame int // bytes of one encoded frame
	disk     diskGuard

	life context.Context // ends with Close
	end  context.CancelFunc
	work sync.WaitGroup // readers' and watches' goroutines

	mu        sync.Mutex
	listeners map[*Listener]struct{}
}

// Open starts (or connects to) the bus and makes sure that its log exists. The
// context bounds the opening only. Errors say which folder or address is
// meant: in use by another process, not writable, damaged, or older than the
// database (Floor).
func Open(ctx context.Context, cfg Config) (*Bus, error) {
	cfg = cfg.withDefaults()
	b := &Bus{cfg: cfg, log: cfg.Logger, listeners: map[*Listener]struct{}{}}
	b.life, b.end = context.WithCancel(context.Background())
	if err := b.open(ctx); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Bus) open(ctx context.Context) (err error) {
	if b.cfg.URL == "" {
		if b.server, err = startEmbedded(b.cfg); err != nil {
			return err
		}
		b.disk = diskGuard{dir: b.cfg.Dir, min: b.cfg.MinFree}
	}
	if b.nc, err = b.connect(); err != nil {
		return err
	}
	// The frame shares the server's limit with its subject and headers.
	b.maxFrame = int(b.nc.MaxPayload()) - 1024
	if b.js, err = jetstream.New(b.nc, jetstream.WithDefaultTimeout(requestTimeout)); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	if err = b.ensureLog(ctx); err != nil {
		return err
	}
	b.metrics, err = newMetrics(b)
	return err
}

func (b *Bus) connect() (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name("muster"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectHandler(func(*nats.Conn) {
			b.log.Warn("stream: connected again")
			b.ringMissed()
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.log.Warn("stream: connection lost", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.log.Warn("stream: client", "error", err)
			if errors.Is(err, nats.ErrSlowConsumer) {
				b.ringMissed()
			}
		}),
	}
	if b.server != nil {
		opts = append(opts, nats.InProcessServer(b.server))
	}
	nc, err := nats.Connect(b.cfg.URL, opts...)
	if err != nil {
		// The URL may hold a password, so it is not repeated here.
		return nil, muster.Errorf(muster.Unavailable, "the stream's server does not answer: check that it runs and that its address is right: %w", err)
	}
	return nc, nil
}

// ensureLog makes the log or brings its limits up to date, and holds the rule
// that positions never go back.
func (b *Bus) ensureLog(ctx context.Context) error {
	cfg := jetstream.StreamConfig{
		Name:        streamName,
		Description: "signals, one frame per group commit",
		Subjects:    []string{subject},
		Storage:     jetstream.FileStorage,
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		MaxAge:      b.cfg.MaxAge,
		MaxBytes:    b.cfg.MaxBytes,
		Replicas:    b.replicas(),
		FirstSeq:    b.cfg.Floor + 1,
		// Nothing is published under a message id, and the server would read
		// the whole window (two minutes by default) again at every start.
		Duplicates: 100 * time.Millisecond,
	}
	log, err := b.js.Stream(ctx, streamName)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		if b.server != nil && b.server.hadLog {
			return fmt.Errorf("stream: the log in %s is damaged and was not loaded (%s): restore it from a backup, or move the folder away to begin an empty log: records in it that were not yet applied are then lost", b.cfg.Dir, b.server.lastError())
		}
		log, err = b.js.CreateStream(ctx, cfg)
	case err == nil:
		cfg.FirstSeq = log.CachedInfo().Config.FirstSeq
		log, err = b.js.UpdateStream(ctx, cfg)
	}
	if err != nil {
		return fmt.Errorf("stream: setting up the log: %w", err)
	}
	state := log.CachedInfo().State
	if state.LastSeq >= b.cfg.Floor {
		return nil
	}
	if state.Msgs > 0 {
		return fmt.Errorf("stream: the log ends at position %d, but the database has applied up to %d: the log was restored from an older copy; restore the newer one, or move the log's folder away to begin an empty log: records in it that were not yet applied are then lost", state.LastSeq, b.cfg.Floor)
	}
	if err := log.Purge(ctx, jetstream.WithPurgeSequence(b.cfg.Floor+1)); err != nil {
		return fmt.Errorf("stream: moving the empty log to position %d: %w", b.cfg.Floor, err)
	}
	return nil
}

func (b *Bus) replicas() int {
	if b.server != nil {
		return 1
	}
	return 3
}

// Close ends all readers, watches and listeners and stops the embedded server.
func (b *Bus) Close() {
	b.mu.Lock()
	b.end()
	listeners := slices.Collect(maps.Keys(b.listeners))
	b.mu.Unlock()
	b.work.Wait()
	for _, l := range listeners {
		l.Close()
	}
	b.metrics.unregister()
	if b.nc != nil {
		b.nc.Close()
	}
	if b.server != nil {
		b.server.stop()
	}
}

// start runs f in a goroutine that Close waits for, or returns false when the
// bus is closed.
func (b *Bus) start(f func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.life.Err() != nil {
		return false
	}
	b.work.Go(f)
	return true
}

// within bounds a request by the bus's life and requestTimeout.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, requestTimeout)
}

var errClosed = muster.Errorf(muster.Unavailable, "the stream is closed: the server is shutting down")

package stream

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"muster"
)

// Reader is one pass over the log. It is for one goroutine, but for Position.
type Reader interface {
	// Next blocks until there is an entry, then returns up to max of those that
	// are there, in order within each partition. Only durable entries are seen.
	// It rides out hiccups of the log. An error means that ctx has ended (its
	// error, and Next may be called again) or that the reader cannot go on: a
	// record is damaged or from a newer release, or the bus was closed
	// (Unavailable).
	Next(ctx context.Context, max int) ([]muster.Entry, error)
	// Position tells how far the reader is: every entry of its partitions at or
	// below it has been returned by Next. So once those are applied, it is a
	// valid position for all of its partitions, also those that had nothing.
	Position() uint64
	// Close releases what the reader holds. Next must not run.
	Close()
}

// Prefetch: one fetch of at most these is on its way or in memory, beside the
// frames that wait for Next, which can return them together: whoever is behind
// catches up in larger steps.
const (
	fetchFrames  = 64
	fetchBytes   = 2 * maxPayload
	queuedFrames = 24
)

type frame struct {
	position uint64
	data     []byte
}

// reader implements Reader. Its pump keeps the channel filled; Next decodes.
type reader struct {
	bus    *Bus
	wanted [muster.Partitions]bool
	from   [muster.Partitions]uint64
	frames chan frame
	life   context.Context
	end    context.CancelFunc

	ready    []muster.Entry // decoded, not yet returned
	decoded  uint64         // position of the last frame in ready
	broken   error
	position atomic.Uint64
}

func (r *reader) Next(ctx context.Context, max int) ([]muster.Entry, error) {
	if max < 1 {
		return nil, muster.Errorf(muster.Invalid, "next: at most %d entries wanted: expected 1 or more", max)
	}
	for len(r.ready) == 0 {
		if r.broken != nil {
			return nil, r.broken
		}
		select {
		case f := <-r.frames:
			r.take(f)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-r.life.Done():
			return nil, errClosed
		}
	}
	for more := true; more && len(r.ready) < max && r.broken == nil; {
		select {
		case f := <-r.frames:
			r.take(f)
		default:
			more = false
		}
	}
	n := min(max, len(r.ready))
	out := r.ready[:n:n]
	if r.ready = r.ready[n:]; len(r.ready) == 0 {
		r.ready = nil
		r.position.Store(r.decoded)
	} else {
		r.position.Store(r.ready[0].Position - 1)
	}
	return out, nil
}

// take decodes a frame behind what is ready. After an error the entries before
// it are still returned, then the error, for good.
func (r *reader) take(f frame) {
	ready, err := decodeFrame(r.ready, f.data, f.position, func(p uint8) bool {
		return r.wanted[p] && f.position > r.from[p]
	})
	if err != nil {
		r.broken = fmt.Errorf("stream: the record at position %d cannot be read: %w", f.position, err)
		return
	}
	r.ready, r.decoded = ready, f.position
	if len(ready) == 0 {
		r.position.Store(f.position)
	}
}

func (r *reader) Position() uint64 { return r.position.Load() }

func (r *reader) Close() { r.end() }

// pump fetches frames into the channel until the reader ends. Whatever goes
// wrong with a cursor, the next one starts behind the last frame that came.
func (r *reader) pump() {
	last := r.position.Load()
	for r.life.Err() == nil {
		cursor, err := r.bus.consumer(r.life, last+1)
		if err == nil {
			err = r.follow(cursor, &last)
			r.drop(cursor)
		}
		if r.life.Err() != nil {
			return
		}
		r.bus.metrics.readerRestarted()
		r.bus.log.Warn("stream: reading is interrupted, trying again", "position", last, "error", err)
		select {
		case <-time.After(250 * time.Millisecond):
		case <-r.life.Done():
		}
	}
}

// follow reads from one cursor until it fails.
func (r *reader) follow(cursor jetstream.Consumer, last *uint64) error {
	maxBytes := max(fetchBytes, 2*int(r.bus.nc.MaxPayload()))
	for delivered := uint64(0); ; {
		batch, err := cursor.Fetch(fetchFrames, jetstream.FetchMaxBytes(maxBytes), jetstream.FetchContext(r.life))
		if err != nil {
			return err
		}
		for msg := range batch.Messages() {
			at, err := msg.Metadata()
			if err != nil {
				return err
			}
			// The cursor numbers what it sends: a gap is a message lost on the
			// way, since nothing is acknowledged.
			if delivered++; at.Sequence.Consumer != delivered {
				return fmt.Errorf("expected delivery %d, got %d", delivered, at.Sequence.Consumer)
			}
			select {
			case r.frames <- frame{at.Sequence.Stream, msg.Data()}:
				*last = at.Sequence.Stream
			case <-r.life.Done():
				return r.life.Err()
			}
		}
		if err := batch.Error(); err != nil {
			return err
		}
	}
}

// drop deletes a cursor that is no longer used; one that stays is forgotten by
// the server after a minute.
func (r *reader) drop(cursor jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.life), time.Second)
	defer cancel()
	_ = r.bus.js.DeleteConsumer(ctx, streamName, cursor.CachedInfo().Name)
}

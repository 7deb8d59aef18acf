package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats.go/jetstream"

	"muster"
)

// Append writes records and returns when all of them are synced to disk (on a
// cluster: on a majority of its disks): nil means durable. Records of different
// partitions that fit the server's largest message together (8 MiB embedded)
// are written and synced at once, all or nothing; a second record of the same
// partition, or more data, makes further writes. After an error some or all
// may be there all the same, so the caller may repeat them: at least once.
//
// Errors: Invalid for a partition that does not exist, TooLarge for a record
// over MaxRecord (both before anything is written), Unavailable when the log or
// its disk is full, the log is away, or ctx ended.
//
// Many goroutines may append at once; their records are in no order to each
// other.
func (b *Bus) Append(ctx context.Context, records []muster.Record) error {
	if err := b.checkRecords(records); err != nil {
		return err
	}
	if err := b.disk.check(); err != nil {
		b.metrics.appendFailed()
		return err
	}
	buf := frameBuffers.Get().(*frameBuffer)
	defer frameBuffers.Put(buf)
	for len(records) > 0 {
		n := b.frameOf(records)
		if err := b.appendFrame(ctx, buf, records[:n]); err != nil {
			b.metrics.appendFailed()
			return err
		}
		records = records[n:]
	}
	return nil
}

func (b *Bus) checkRecords(records []muster.Record) error {
	limit := min(MaxRecord, b.maxFrame-frameHead-b.maxFrame/64)
	for _, r := range records {
		if r.Partition >= muster.Partitions {
			return muster.Errorf(muster.Invalid, "append: partition %d does not exist: expected 0 to %d", r.Partition, muster.Partitions-1)
		}
		if len(r.Data) > limit {
			return muster.Errorf(muster.TooLarge, "append: a record of partition %d has %d bytes: at most %d fit the stream; split it", r.Partition, len(r.Data), limit)
		}
	}
	return nil
}

// frameOf returns how many of records, from the first, make the next frame.
func (b *Bus) frameOf(records []muster.Record) int {
	var seen [muster.Partitions]bool
	size := 0
	for i, r := range records {
		size += len(r.Data)
		if seen[r.Partition] || i > 0 && frameHead+s2.MaxEncodedLen(size) > b.maxFrame {
			return i
		}
		seen[r.Partition] = true
	}
	return len(records)
}

func (b *Bus) appendFrame(ctx context.Context, buf *frameBuffer, records []muster.Record) error {
	frame := buf.encode(records)
	ctx, cancel := within(ctx)
	defer cancel()
	start := time.Now()
	_, err := b.js.Publish(ctx, subject, frame)
	if err != nil {
		return b.appendError(err)
	}
	b.metrics.appended(time.Since(start), len(records), len(buf.joined), len(frame))
	return nil
}

// appendError words a refusal for whoever sent the signals and whoever runs
// the server.
func (b *Bus) appendError(err error) error {
	if b.life.Err() != nil {
		return errClosed
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && strings.Contains(api.Description, "maximum bytes") {
		e := muster.Errorf(muster.Unavailable, "the signal log is full: it holds %s.max_bytes (%d): raise that, or lower %s.max_age (%s): %w", b.cfg.Section, b.cfg.MaxBytes, b.cfg.Section, b.cfg.MaxAge, err)
		e.RetryAfter = time.Minute
		return e
	}
	return muster.Errorf(muster.Unavailable, "the signal log did not confirm a write, which may or may not have happened: %w", err)
}

// Last returns the position of the newest record, 0 in a new log. What a
// Reader is behind is this less its Position.
func (b *Bus) Last(ctx context.Context) (uint64, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	state, err := b.state(ctx)
	return state.LastSeq, err
}

func (b *Bus) state(ctx context.Context) (jetstream.StreamState, error) {
	log, err := b.js.Stream(ctx, streamName)
	if err != nil {
		return jetstream.StreamState{}, muster.Errorf(muster.Unavailable, "the signal log does not answer: %w", err)
	}
	return log.CachedInfo().State, nil
}

// Trim drops every record at or below position, which all readers must have
// applied, and gives its disk back; positions are not used again. Less than was
// dropped before is no error, nor is more than there is.
func (b *Bus) Trim(ctx context.Context, position uint64) error {
	ctx, cancel := within(ctx)
	defer cancel()
	log, err := b.js.Stream(ctx, streamName)
	if err == nil {
		err = log.Purge(ctx, jetstream.WithPurgeSequence(min(position, log.CachedInfo().State.LastSeq)+1))
	}
	if err != nil {
		return muster.Errorf(muster.Unavailable, "the signal log cannot be trimmed: %w", err)
	}
	return nil
}

// Read starts reading the given partitions, each strictly above its position
// in from. Positions beyond the log's end are refused with Invalid: the log is
// not the one that they were read from. The context bounds the start only.
func (b *Bus) Read(ctx context.Context, partitions []uint8, from [muster.Partitions]uint64) (Reader, error) {
	r := &reader{bus: b, from: from, frames: make(chan frame, queuedFrames)}
	lowest, highest := ^uint64(0), uint64(0)
	for _, p := range partitions {
		if p >= muster.Partitions {
			return nil, muster.Errorf(muster.Invalid, "read: partition %d does not exist: expected 0 to %d", p, muster.Partitions-1)
		}
		r.wanted[p] = true
		lowest, highest = min(lowest, from[p]), max(highest, from[p])
	}
	if len(partitions) == 0 {
		return nil, muster.Errorf(muster.Invalid, "read: no partitions given: expected at least one")
	}
	ctx, cancel := within(ctx)
	defer cancel()
	state, err := b.state(ctx)
	if err != nil {
		return nil, err
	}
	if highest > state.LastSeq {
		return nil, muster.Errorf(muster.Invalid, "read: position %d is beyond the log's end at %d: the log is not the one that was read before", highest, state.LastSeq)
	}
	if highest > 0 && highest+1 < state.FirstSeq {
		b.log.Warn("records of the log were dropped by age before they were read: raise the setting",
			"setting", b.cfg.Section+".max_age", "after", highest, "before", state.FirstSeq, "value", b.cfg.MaxAge)
	}
	r.position.Store(lowest)
	r.life, r.end = context.WithCancel(b.life)
	if !b.start(r.pump) {
		r.end()
		return nil, errClosed
	}
	return r, nil
}

// consumer makes a cursor in the log that starts at position. It acknowledges
// nothing and lives in the server's memory.
func (b *Bus) consumer(ctx context.Context, position uint64) (jetstream.Consumer, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	c, err := b.js.CreateConsumer(ctx, streamName, jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       position,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: time.Minute,
	})
	if err != nil {
		return nil, fmt.Errorf("stream: starting to read at position %d: %w", position, err)
	}
	return c, nil
}

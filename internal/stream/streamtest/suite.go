// Package streamtest is the conformance suite of the bus, and a bus in memory
// for the tests of others.
package streamtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/stream"
)

// Bus is what every form of the bus provides; *stream.Bus has the contract.
type Bus interface {
	Append(ctx context.Context, records []muster.Record) error
	Last(ctx context.Context) (uint64, error)
	Read(ctx context.Context, partitions []uint8, from [muster.Partitions]uint64) (stream.Reader, error)
	Ring(ctx context.Context, bell string, payload []byte) error
	Listen(bell string) (*stream.Listener, error)
	KV(ctx context.Context, bucket string, ttl time.Duration) (stream.KV, error)
	Close()
}

// Open opens a bus over cfg.Dir. The suite opens the same Dir again after
// Close, and expects to find what was there.
type Open func(ctx context.Context, cfg stream.Config) (Bus, error)

// Run runs the suite.
func Run(t *testing.T, open Open) {
	tests := map[string]func(*testing.T, *bench){
		"append and read":            appendAndRead,
		"read from a position":       readFrom,
		"read some partitions":       readSome,
		"next is bounded":            nextIsBounded,
		"next waits":                 nextWaits,
		"one partition twice":        onePartitionTwice,
		"records of every size":      recordsOfEverySize,
		"refusals":                   refusals,
		"a cancelled context":        cancelledContext,
		"appends at once":            appendsAtOnce,
		"a full log refuses":         fullLog,
		"reopen":                     reopen,
		"the floor of positions":     floor,
		"close ends everything":      closeEnds,
		"bells":                      bells,
		"a slow listener":            slowListener,
		"key-value":                  keyValue,
		"keys of any text":           anyKeys,
		"create at once":             createAtOnce,
		"watch":                      watch,
		"keys expire":                keysExpire,
		"key-value survives restart": keyValueReopen,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			b := &bench{T: t, ctx: ctx, open: open, cfg: stream.Config{Dir: t.TempDir()}}
			b.Bus = b.mustOpen()
			defer func() { b.Close() }()
			test(t, b)
		})
	}
}

// bench is one test's bus and how to open it again.
type bench struct {
	Bus
	*testing.T
	ctx  context.Context
	open Open
	cfg  stream.Config
}

func (b *bench) mustOpen() Bus {
	b.Helper()
	bus, err := b.open(b.ctx, b.cfg)
	if err != nil {
		b.Fatalf("open: %v", err)
	}
	return bus
}

func (b *bench) reopen() {
	b.Helper()
	b.Close()
	b.Bus = b.mustOpen()
}

func (b *bench) append(records ...muster.Record) {
	b.Helper()
	if err := b.Append(b.ctx, records); err != nil {
		b.Fatalf("Append: %v", err)
	}
}

func (b *bench) last() uint64 {
	b.Helper()
	last, err := b.Last(b.ctx)
	if err != nil {
		b.Fatalf("Last: %v", err)
	}
	return last
}

func (b *bench) read(partitions []uint8, from [muster.Partitions]uint64) stream.Reader {
	b.Helper()
	r, err := b.Read(b.ctx, partitions, from)
	if err != nil {
		b.Fatalf("Read: %v", err)
	}
	b.Cleanup(r.Close)
	return r
}

// take reads until it has n entries and checks the order in each partition.
func (b *bench) take(r stream.Reader, n int) []muster.Entry {
	b.Helper()
	var all []muster.Entry
	var last [muster.Partitions]uint64
	for len(all) < n {
		entries, err := r.Next(b.ctx, n-len(all))
		if err != nil {
			b.Fatalf("Next after %d of %d entries: %v", len(all), n, err)
		}
		if len(entries) == 0 || len(entries) > n-len(all) {
			b.Fatalf("Next(%d) returned %d entries", n-len(all), len(entries))
		}
		for _, e := range entries {
			if e.Position <= last[e.Partition] {
				b.Fatalf("partition %d: position %d after %d", e.Partition, e.Position, last[e.Partition])
			}
			last[e.Partition] = e.Position
		}
		all = append(all, entries...)
	}
	return all
}

// nothingMore shows that the reader is at the end: a sentinel comes next.
func (b *bench) nothingMore(r stream.Reader, partition uint8) {
	b.Helper()
	b.append(record(partition, "sentinel"))
	if got := b.take(r, 1)[0]; string(got.Data) != "sentinel" {
		b.Fatalf("an entry too many: partition %d, %q", got.Partition, got.Data)
	}
}

func (b *bench) wantCode(what string, err error, code muster.Code) {
	b.Helper()
	if !errors.Is(err, code) {
		b.Errorf("%s: got error %v, want code %q", what, err, code)
	}
}

// All is every partition.
func All() []uint8 {
	all := make([]uint8, muster.Partitions)
	for i := range all {
		all[i] = uint8(i)
	}
	return all
}

func record(partition uint8, data string) muster.Record {
	return muster.Record{Partition: partition, Data: []byte(data)}
}

// texts shows entries as "partition:data".
func texts(entries []muster.Entry) []string {
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = fmt.Sprintf("%d:%s", e.Partition, e.Data)
	}
	return out
}

func appendAndRead(t *testing.T, b *bench) {
	b.append()
	b.append(record(3, "a"), record(0, ""), record(63, "b"))
	b.append(record(3, "c"))
	r := b.read(All(), [muster.Partitions]uint64{})
	want := []string{"3:a", "0:", "63:b", "3:c"}
	if diff := cmp.Diff(want, texts(b.take(r, 4))); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	if got, want := r.Position(), b.last(); got != want {
		t.Errorf("after everything the reader is at %d, the log ends at %d", got, want)
	}
	b.nothingMore(r, 7)
}

func readFrom(t *testing.T, b *bench) {
	for i := range 5 {
		b.append(record(1, fmt.Sprint("a", i)), record(2, fmt.Sprint("b", i)))
	}
	all := b.take(b.read(All(), [muster.Partitions]uint64{}), 10)
	var from [muster.Partitions]uint64
	from[1], from[2] = all[2].Position, all[7].Position // a1, b3
	r := b.read([]uint8{1, 2}, from)
	want := []string{"1:a2", "1:a3", "1:a4", "2:b4"}
	if diff := cmp.Diff(want, texts(b.take(r, 4))); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	b.nothingMore(r, 2)
}

func readSome(t *testing.T, b *bench) {
	for i := range 3 {
		b.append(record(1, fmt.Sprint(i)), record(2, fmt.Sprint(i)))
		b.append(record(5, fmt.Sprint(i)))
	}
	r := b.read([]uint8{1, 5}, [muster.Partitions]uint64{})
	want := []string{"1:0", "5:0", "1:1", "5:1", "1:2", "5:2"}
	if diff := cmp.Diff(want, texts(b.take(r, 6))); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	// The position passes what is not wanted, so that a restart need not read
	// it again.
	b.append(record(2, "not wanted"))
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := r.Next(ctx, 1)
		ended <- err
	}()
	for last := b.last(); r.Position() < last; {
		select {
		case err := <-ended:
			t.Fatalf("Next ended: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v, want %v", err, context.Canceled)
	}
}

func nextIsBounded(t *testing.T, b *bench) {
	records := make([]muster.Record, muster.Partitions)
	for i := range records {
		records[i] = record(uint8(i), fmt.Sprint(i))
	}
	b.append(records...)
	b.append(records...)
	first, end := b.last()-1, b.last()
	r := b.read(All(), [muster.Partitions]uint64{})
	got := 0
	for got < 2*muster.Partitions {
		entries, err := r.Next(b.ctx, 5)
		if err != nil || len(entries) > 5 {
			t.Fatalf("Next(5): %d entries, error %v", len(entries), err)
		}
		for _, e := range entries {
			if want := fmt.Sprint(got % muster.Partitions); string(e.Data) != want {
				t.Fatalf("entry %d: %q, want %q", got, e.Data, want)
			}
			got++
		}
		switch at := r.Position(); {
		case got < muster.Partitions && at >= first,
			got < 2*muster.Partitions && at >= end,
			got == 2*muster.Partitions && at != end:
			t.Fatalf("after %d entries the reader says position %d; the log has %d and %d", got, at, first, end)
		}
	}
	_, err := r.Next(b.ctx, 0)
	b.wantCode("Next(0)", err, muster.Invalid)
}

func nextWaits(t *testing.T, b *bench) {
	r := b.read(All(), [muster.Partitions]uint64{})
	entries := make(chan []muster.Entry)
	go func() {
		got, err := r.Next(b.ctx, 10)
		if err != nil {
			t.Errorf("Next: %v", err)
		}
		entries <- got
	}()
	b.append(record(9, "x"))
	if diff := cmp.Diff([]string{"9:x"}, texts(<-entries)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func onePartitionTwice(t *testing.T, b *bench) {
	b.append(record(4, "a"), record(5, "b"), record(4, "c"), record(4, "d"))
	r := b.read(All(), [muster.Partitions]uint64{})
	want := []string{"4:a", "5:b", "4:c", "4:d"}
	if diff := cmp.Diff(want, texts(b.take(r, 4))); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func recordsOfEverySize(t *testing.T, b *bench) {
	rng := rand.NewChaCha8([32]byte{1})
	sizes := []int{0, 1, 100, 64 << 10, 1 << 20, 3 << 20, 3 << 20, 5 << 20, stream.MaxRecord}
	records := make([]muster.Record, len(sizes))
	for i, n := range sizes {
		records[i] = muster.Record{Partition: uint8(i), Data: make([]byte, n)}
		if i%2 == 0 { // the others compress well
			_, _ = rng.Read(records[i].Data) // never fails
		}
	}
	b.append(records...)
	for i, e := range b.take(b.read(All(), [muster.Partitions]uint64{}), len(records)) {
		if e.Partition != uint8(i) || string(e.Data) != string(records[i].Data) {
			t.Errorf("record %d of %d bytes came back as %d bytes of partition %d", i, sizes[i], len(e.Data), e.Partition)
		}
	}
}

func refusals(_ *testing.T, b *bench) {
	b.wantCode("Append to partition 64", b.Append(b.ctx, []muster.Record{record(64, "x")}), muster.Invalid)
	b.wantCode("Append of too large a record", b.Append(b.ctx, []muster.Record{record(1, "x"), {Partition: 2, Data: make([]byte, stream.MaxRecord+1)}}), muster.TooLarge)
	if last := b.last(); last != 0 {
		b.Errorf("refused records moved the log to position %d", last)
	}
	_, err := b.Read(b.ctx, nil, [muster.Partitions]uint64{})
	b.wantCode("Read of no partition", err, muster.Invalid)
	_, err = b.Read(b.ctx, []uint8{64}, [muster.Partitions]uint64{})
	b.wantCode("Read of partition 64", err, muster.Invalid)
	_, err = b.Read(b.ctx, []uint8{0}, [muster.Partitions]uint64{1})
	b.wantCode("Read from beyond the end", err, muster.Invalid)
	b.wantCode("Ring of a bad name", b.Ring(b.ctx, "a..b", nil), muster.Invalid)
	b.wantCode("Ring of a large payload", b.Ring(b.ctx, "a", make([]byte, 64<<10+1)), muster.TooLarge)
	_, err = b.KV(b.ctx, "a.b", 0)
	b.wantCode("a bucket of a bad name", err, muster.Invalid)
	_, err = b.KV(b.ctx, "ab", time.Millisecond)
	b.wantCode("a bucket of a millisecond", err, muster.Invalid)
}

func cancelledContext(t *testing.T, b *bench) {
	ended, cancel := context.WithCancel(b.ctx)
	cancel()
	err := b.Append(ended, []muster.Record{record(1, "maybe")})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, muster.Unavailable) {
		t.Errorf("Append: %v, want %v and code %q", err, context.Canceled, muster.Unavailable)
	}
	r := b.read([]uint8{2}, [muster.Partitions]uint64{})
	if _, err := r.Next(ended, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v, want %v", err, context.Canceled)
	}
	b.append(record(2, "a"))
	if got := b.take(r, 1); string(got[0].Data) != "a" {
		t.Errorf("after a cancelled Next the reader has %q", got[0].Data)
	}
}

func appendsAtOnce(t *testing.T, b *bench) {
	const writers, writes = 8, 40
	r := b.read(All(), [muster.Partitions]uint64{})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range writes {
				id := binary.BigEndian.AppendUint32([]byte{byte(w)}, uint32(i))
				if err := b.Append(b.ctx, []muster.Record{{Partition: 1, Data: id}, {Partition: uint8(2 + w), Data: id}}); err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	next := map[[2]uint8]uint32{} // by partition and writer
	for _, e := range b.take(r, 2*writers*writes) {
		key := [2]uint8{e.Partition, e.Data[0]}
		if i := binary.BigEndian.Uint32(e.Data[1:]); i != next[key] {
			t.Fatalf("partition %d, writer %d: record %d, want %d", e.Partition, e.Data[0], i, next[key])
		}
		next[key]++
	}
	wg.Wait()
	b.nothingMore(r, 1)
}

func fullLog(t *testing.T, b *bench) {
	b.cfg.MaxBytes = 1 << 20
	b.reopen()
	rng := rand.NewChaCha8([32]byte{2})
	data := make([]byte, 100<<10)
	_, _ = rng.Read(data) // never fails
	written := 0
	for ; written < 100; written++ {
		if err := b.Append(b.ctx, []muster.Record{{Partition: 1, Data: data}}); err != nil {
			b.wantCode("Append to a full log", err, muster.Unavailable)
			if !strings.Contains(err.Error(), "stream.max_bytes") {
				t.Errorf("the error names no setting: %v", err)
			}
			break
		}
	}
	if written < 5 || written > 10 {
		t.Errorf("a log of 1 MiB took %d records of 100 KiB", written)
	}
	b.take(b.read(All(), [muster.Partitions]uint64{}), written)
	b.cfg.MaxBytes = 2 << 20
	b.reopen()
	b.append(muster.Record{Partition: 1, Data: data})
}

func reopen(t *testing.T, b *bench) {
	b.append(record(1, "a"), record(2, "b"))
	b.append(record(1, "c"))
	before := b.take(b.read(All(), [muster.Partitions]uint64{}), 3)
	b.reopen()
	b.append(record(1, "d"))
	after := b.take(b.read(All(), [muster.Partitions]uint64{}), 4)
	if diff := cmp.Diff(before, after[:3]); diff != "" {
		t.Errorf("entries before and after (-before +after):\n%s", diff)
	}
	if after[3].Position <= before[2].Position || string(after[3].Data) != "d" {
		t.Errorf("after position %d came %q at %d", before[2].Position, after[3].Data, after[3].Position)
	}
}

func floor(t *testing.T, b *bench) {
	b.cfg.Floor = 1000
	b.reopen()
	if got := b.last(); got != 1000 {
		t.Errorf("an empty log opened with floor 1000 ends at %d", got)
	}
	var from [muster.Partitions]uint64
	from[1] = 1000
	r := b.read([]uint8{1}, from)
	b.append(record(1, "a"))
	if got := b.take(r, 1)[0]; got.Position != 1001 {
		t.Errorf("the first position above the floor of 1000 is %d", got.Position)
	}
	b.Close()
	b.cfg.Floor = 2000
	if bus, err := b.open(b.ctx, b.cfg); err == nil {
		bus.Close()
		t.Error("a log with records below the floor was opened")
	}
	b.cfg.Floor = 1001
	b.Bus = b.mustOpen()
	b.take(b.read(All(), [muster.Partitions]uint64{}), 1)
}

func closeEnds(t *testing.T, b *bench) {
	r := b.read(All(), [muster.Partitions]uint64{})
	l, err := b.Listen("bell")
	if err != nil {
		t.Fatal(err)
	}
	kv, err := b.KV(b.ctx, "bucket", 0)
	if err != nil {
		t.Fatal(err)
	}
	changes, err := kv.Watch(b.ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := r.Next(b.ctx, 1)
		ended <- err
	}()
	b.Close()
	b.wantCode("Next", <-ended, muster.Unavailable)
	if _, open := <-l.C; open {
		t.Error("the listener heard something")
	}
	for c := range changes {
		if c.Key != "" {
			t.Errorf("the watcher heard of %s", c.Key)
		}
	}
	b.wantCode("Append", b.Append(b.ctx, []muster.Record{record(1, "x")}), muster.Unavailable)
	b.wantCode("Ring", b.Ring(b.ctx, "bell", nil), muster.Unavailable)
	_, err = b.Listen("bell")
	b.wantCode("Listen", err, muster.Unavailable)
	_, err = b.Read(b.ctx, All(), [muster.Partitions]uint64{})
	b.wantCode("Read", err, muster.Unavailable)
	_, err = kv.Put(b.ctx, "k", nil)
	b.wantCode("Put", err, muster.Unavailable)
	l.Close()
	b.Close()
}

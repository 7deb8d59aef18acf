package stream

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"muster"
)

// testLog is a logger's output that can be read while it is written.
type testLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func openTest(t *testing.T) (*Bus, *testLog, context.Context) {
	t.Helper()
	log := new(testLog)
	bus, err := Open(t.Context(), Config{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(bus.Close)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return bus, log, ctx
}

func appendOne(ctx context.Context, t *testing.T, b *Bus, text string) {
	t.Helper()
	if err := b.Append(ctx, []muster.Record{{Partition: 1, Data: []byte(text)}}); err != nil {
		t.Fatalf("Append: %v", err)
	}
}

func readAll(ctx context.Context, t *testing.T, b *Bus) Reader {
	t.Helper()
	r, err := b.Read(ctx, []uint8{1}, [muster.Partitions]uint64{})
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	return r
}

func wantNext(ctx context.Context, t *testing.T, r Reader, want ...string) {
	t.Helper()
	for _, w := range want {
		entries, err := r.Next(ctx, 1)
		if err != nil || string(entries[0].Data) != w {
			t.Fatalf("Next: %v, %v, want %q", entries, err, w)
		}
	}
}

func TestReaderSurvivesLossOfItsCursor(t *testing.T) {
	bus, _, ctx := openTest(t)
	r := readAll(ctx, t, bus)
	for i := range 3 {
		appendOne(ctx, t, bus, fmt.Sprint("before ", i))
		wantNext(ctx, t, r, fmt.Sprint("before ", i))
		log, err := bus.js.Stream(ctx, streamName)
		if err != nil {
			t.Fatal(err)
		}
		dropped := 0
		for name := range log.ConsumerNames(ctx).Name() {
			if err := log.DeleteConsumer(ctx, name); err != nil {
				t.Fatal(err)
			}
			dropped++
		}
		if dropped != 1 {
			t.Fatalf("the reader has %d cursors", dropped)
		}
		appendOne(ctx, t, bus, fmt.Sprint("after ", i))
		wantNext(ctx, t, r, fmt.Sprint("after ", i))
	}
}

func TestConnectionLost(t *testing.T) {
	bus, _, ctx := openTest(t)
	r := readAll(ctx, t, bus)
	kv, err := bus.KV(ctx, "bucket", 0)
	if err != nil {
		t.Fatal(err)
	}
	changes, err := kv.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	<-changes // the end of nothing
	bell, err := bus.Listen("bell")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		text := fmt.Sprint(i)
		if err := bus.nc.ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		if ring := <-bell.C; !ring.Missed {
			t.Errorf("the listener heard %v, want to be told that it may have missed some", ring)
		}
		appendOne(ctx, t, bus, text)
		if _, err := kv.Put(ctx, "k", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := bus.Ring(ctx, "bell", []byte(text)); err != nil {
			t.Fatal(err)
		}
		wantNext(ctx, t, r, text)
		if c := <-changes; string(c.Value) != text {
			t.Errorf("the watcher was told %v, want %s", c, text)
		}
		if ring := <-bell.C; string(ring.Payload) != text {
			t.Errorf("the listener heard %v, want %s", ring, text)
		}
	}
}

func TestReaderStopsAtWhatItCannotRead(t *testing.T) {
	bus, _, ctx := openTest(t)
	appendOne(ctx, t, bus, "good")
	if _, err := bus.js.Publish(ctx, subject, []byte{frameFormat + 1, 0}); err != nil {
		t.Fatal(err)
	}
	appendOne(ctx, t, bus, "behind")
	r := readAll(ctx, t, bus)
	wantNext(ctx, t, r, "good")
	for range 2 {
		entries, err := r.Next(ctx, 10)
		if err == nil || !strings.Contains(err.Error(), "position 2") || !strings.Contains(err.Error(), "newer release") {
			t.Errorf("Next: %v, %v, want an error that names position 2 and a newer release", entries, err)
		}
	}
	if at := r.Position(); at != 1 {
		t.Errorf("the reader says position %d, want 1", at)
	}
}

func TestRecordsLostByAgeAreLogged(t *testing.T) {
	bus, text, ctx := openTest(t)
	for i := range 10 {
		appendOne(ctx, t, bus, fmt.Sprint(i))
	}
	log, err := bus.js.Stream(ctx, streamName)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Purge(ctx, jetstream.WithPurgeSequence(8)); err != nil {
		t.Fatal(err)
	}
	from := [muster.Partitions]uint64{1: 3}
	r, err := bus.Read(ctx, []uint8{0, 1}, from)
	if err != nil {
		t.Fatal(err)
	}
	wantNext(ctx, t, r, "7", "8", "9")
	if got := text.String(); !strings.Contains(got, "dropped by age") || !strings.Contains(got, "after=3 before=8") {
		t.Errorf("the log says nothing of the lost records: %s", got)
	}
}

func TestListenerMarksWhatItDropped(t *testing.T) {
	l := NewListener(func(*Listener) {})
	const rings = listenerQueue + 10
	for i := range rings {
		l.Hear(Ring{Payload: []byte{byte(i), byte(i >> 8)}})
	}
	l.Close()
	l.Hear(Ring{}) // after the end: nothing
	next := rings - listenerQueue
	for ring := range l.C {
		if got := int(ring.Payload[0]) + int(ring.Payload[1])<<8; got != next || ring.Missed != (got >= listenerQueue) {
			t.Fatalf("heard %d (missed %v), want %d", got, ring.Missed, next)
		}
		next++
	}
	if next != rings {
		t.Errorf("heard up to %d of %d", next, rings)
	}
}

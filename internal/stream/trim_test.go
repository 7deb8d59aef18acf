package stream_test

import (
	"context"
	"testing"
	"time"

	"muster"
	"muster/internal/stream"
)

// What was applied goes, what follows stays, and positions go on where they
// were, also when everything went and the process was closed.
func TestTrim(t *testing.T) {
	cfg := stream.Config{Dir: t.TempDir()}
	bus := open(t, cfg)
	for i := range uint32(10) {
		if err := bus.Append(t.Context(), batch(0, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := bus.Trim(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if err := bus.Trim(t.Context(), 3); err != nil {
		t.Errorf("less than before: %v", err)
	}
	reader, err := bus.Read(t.Context(), []uint8{0}, [muster.Partitions]uint64{})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for want := uint64(8); want <= 10; {
		entries, err := reader.Next(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		if entries[0].Position != want {
			t.Fatalf("read position %d, expected %d", entries[0].Position, want)
		}
		want++
	}
	if err := bus.Trim(t.Context(), 99); err != nil {
		t.Fatalf("more than there is: %v", err)
	}
	for range 2 {
		if last, err := bus.Last(t.Context()); last != 10 || err != nil {
			t.Fatalf("the empty log ends at %d, %v; expected 10", last, err)
		}
		bus.Close()
		bus = open(t, cfg)
	}
	if err := bus.Append(t.Context(), batch(0, 11)); err != nil {
		t.Fatal(err)
	}
	if last, err := bus.Last(t.Context()); last != 11 || err != nil {
		t.Errorf("the next position is %d, %v; expected 11", last, err)
	}
}

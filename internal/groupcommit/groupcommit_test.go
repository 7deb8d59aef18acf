package groupcommit

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"muster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func decode(t testing.TB, data []byte) []muster.Signal {
	t.Helper()
	var out []muster.Signal
	if err := muster.DecodeSignals(data, func(s *muster.Signal) { out = append(out, *s) }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRecordsAreSplitAtItems(t *testing.T) {
	var (
		data  []byte
		count int
		rng   = rand.New(rand.NewPCG(2, 3))
	)
	for len(data) < 5*MaxRecord {
		n := rng.IntN(200 << 10)
		if count%40 == 11 {
			n = MaxRecord // with its other fields larger than a record should be
		}
		data = muster.AppendSignal(data, &muster.Signal{Machine: "m", ASN: uint32(count), Detail: make([]byte, n)})
		count++
	}
	c := New(Config{Boundary: muster.SignalBoundary})
	records := c.appendRecords([]muster.Record{{Partition: 3}}, 9, data)
	if records[0].Partition != 3 {
		t.Error("the records before are gone")
	}
	var whole []byte
	next := uint32(0)
	for i, r := range records[1:] {
		list := decode(t, r.Data)
		for _, s := range list {
			if s.ASN != next {
				t.Fatalf("record %d: signal %d follows %d", i, s.ASN, next-1)
			}
			next++
		}
		if r.Partition != 9 || len(list) == 0 || len(r.Data) > MaxRecord && len(list) > 1 {
			t.Fatalf("record %d of partition %d: %d signals, %d bytes", i, r.Partition, len(list), len(r.Data))
		}
		whole = append(whole, r.Data...)
	}
	if !bytes.Equal(whole, data) {
		t.Fatalf("%d bytes in %d records, want the %d that went in", len(whole), len(records)-1, len(data))
	}
	if len(records) > 12 {
		t.Errorf("%d records for %d MiB", len(records)-1, len(data)>>20)
	}
	if got := c.appendRecords(nil, 0, nil); len(got) != 0 {
		t.Errorf("no data: %d records", len(got))
	}
}

// logFunc is a log that is one function.
type logFunc func(records []muster.Record) error

func (f logFunc) Append(_ context.Context, records []muster.Record) error { return f(records) }

// One giant commit must not pin its memory for ever.
func TestGiantBuffersAreLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := muster.AppendSignal(nil, &muster.Signal{Machine: "m", Detail: make([]byte, 3*MaxRecord)})
		c := New(Config{
			Log: logFunc(func([]muster.Record) error { return nil }), Boundary: muster.SignalBoundary,
			Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = c.Run(ctx) }() // has no errors
		for range 3 {
			if err := c.Commit(ctx, []muster.Record{{Partition: 5, Data: data}}, 1); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		held := 0
		for _, part := range c.pool.parts {
			held += cap(part)
		}
		if held > MaxRecord {
			t.Errorf("the pool holds %d bytes at rest", held)
		}
	})
}

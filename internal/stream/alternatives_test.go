package stream

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"muster"
)

// BenchmarkAlternatives is why an Append is one message: it compares the ways
// to make 64 records of 2 kB durable, one per partition. The data is the same
// and not compressed, but for the frame's trial to do so.
func BenchmarkAlternatives(b *testing.B) {
	bus, err := Open(b.Context(), Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer bus.Close()
	_, err = bus.js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "ALT", Subjects: []string{"alt.*"}, AllowAtomicPublish: true})
	if err != nil {
		b.Fatal(err)
	}
	records := make([]muster.Record, muster.Partitions)
	seed := uint64(1)
	for p := range records {
		data := make([]byte, 2000)
		for i := range data {
			seed = seed*6364136223846793005 + 1442695040888963407
			data[i] = byte(seed >> 56)
		}
		records[p] = muster.Record{Partition: uint8(p), Data: data}
	}
	for name, write := range map[string]func(*testing.B, *Bus, []muster.Record, int){
		"frame":        func(b *testing.B, bus *Bus, records []muster.Record, _ int) { mustAppend(b, bus, records) },
		"atomic batch": atomicBatch,
		"messages":     messages,
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(64 * 2000)
			for i := 0; b.Loop(); i++ {
				write(b, bus, records, i)
			}
		})
	}
}

func mustAppend(b *testing.B, bus *Bus, records []muster.Record) {
	if err := bus.Append(context.Background(), records); err != nil {
		b.Fatal(err)
	}
}

// atomicBatch publishes as ADR-50 of NATS says: the first and the last message
// are requests, and the last commits.
func atomicBatch(b *testing.B, bus *Bus, records []muster.Record, i int) {
	for k, r := range records {
		m := nats.NewMsg(fmt.Sprintf("alt.%02d", r.Partition))
		m.Data = r.Data
		m.Header = nats.Header{"Nats-Batch-Id": {strconv.Itoa(i)}, "Nats-Batch-Sequence": {strconv.Itoa(k + 1)}}
		last := k == len(records)-1
		if last {
			m.Header["Nats-Batch-Commit"] = []string{"1"}
		}
		if k > 0 && !last {
			if err := bus.nc.PublishMsg(m); err != nil {
				b.Fatal(err)
			}
			continue
		}
		reply, err := bus.nc.RequestMsg(m, 10*time.Second)
		if err != nil || last != (len(reply.Data) > 0) {
			b.Fatalf("message %d: %v, %v", k+1, reply, err)
		}
	}
}

// messages publishes without waiting, then waits for all.
func messages(b *testing.B, bus *Bus, records []muster.Record, _ int) {
	acks := make([]jetstream.PubAckFuture, len(records))
	for k, r := range records {
		var err error
		if acks[k], err = bus.js.PublishAsync(fmt.Sprintf("alt.%02d", r.Partition), r.Data, jetstream.WithStallWait(10*time.Second)); err != nil {
			b.Fatal(err)
		}
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			b.Fatal(err)
		}
	}
}

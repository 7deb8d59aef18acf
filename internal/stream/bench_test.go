package stream_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"muster"
	"muster/internal/stream"
	"muster/internal/stream/streamtest"
)

// signals makes the records of one group commit: one per partition, of so many
// bytes of real signals each.
func signals(rng *rand.Rand, partitions, size int) []muster.Record {
	records := make([]muster.Record, partitions)
	for p := range records {
		var data []byte
		for len(data) < size {
			data = muster.AppendSignal(data, signal(rng))
		}
		records[p] = muster.Record{Partition: uint8(p), Data: data}
	}
	return records
}

func signal(rng *rand.Rand) *muster.Signal {
	var src [muster.SourceSize]byte
	copy(src[:], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())})
	s := &muster.Signal{
		Machine:      fmt.Sprintf("%048x", rng.Uint64()),
		Organisation: fmt.Sprintf("01936d1c-0000-7000-8000-%012x", rng.IntN(1000)),
		Received:     time.Unix(1_790_000_000, int64(rng.IntN(1e9))),
		At:           time.Unix(1_790_000_000, int64(rng.IntN(1e9))),
		Scenario:     []string{"crowdsecurity/ssh-bf", "crowdsecurity/http-probing", "crowdsecurity/http-bad-user-agent"}[rng.IntN(3)],
		ScenarioHash: fmt.Sprintf("%064x", rng.IntN(3)),
		Version:      "0.3",
		Kind:         "crowdsec",
		Country:      "NL",
		ASN:          rng.Uint32N(70000),
		ASName:       "Some Network Ltd",
		Detail:       fmt.Appendf(nil, `{"message":"Ip %d.%d.1.1 performed 'crowdsecurity/ssh-bf' (6 events over 4s) at 2026-11-20 10:00:00 UTC"}`, rng.IntN(256), rng.IntN(256)),
	}
	for i := range s.ID {
		s.ID[i] = byte(rng.Uint32())
	}
	return s
}

func dataSize(records []muster.Record) (n int64) {
	for _, r := range records {
		n += int64(len(r.Data))
	}
	return n
}

func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ partitions, size, writers int }{{1, 300, 1}, {64, 300, 1}, {64, 2000, 1}, {64, 2000, 4}, {64, 20000, 1}} {
		b.Run(fmt.Sprintf("%dx%d,writers=%d", c.partitions, c.size, c.writers), func(b *testing.B) {
			bus := open(b, stream.Config{Dir: b.TempDir()})
			records := signals(rand.New(rand.NewPCG(1, 2)), c.partitions, c.size)
			b.SetBytes(dataSize(records))
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range c.writers {
				wg.Go(func() {
					for i := w; i < b.N; i += c.writers {
						if err := bus.Append(context.Background(), records); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkRead counts entries; they come in frames of 64, of 2 kB each.
func BenchmarkRead(b *testing.B) {
	bus := open(b, stream.Config{Dir: b.TempDir()})
	records := signals(rand.New(rand.NewPCG(1, 2)), muster.Partitions, 2000)
	const frames = 500
	for range frames {
		if err := bus.Append(b.Context(), records); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(dataSize(records) / muster.Partitions)
	b.ReportAllocs()
	b.ResetTimer()
	for read := 0; read < b.N; {
		r, err := bus.Read(b.Context(), streamtest.All(), [muster.Partitions]uint64{})
		if err != nil {
			b.Fatal(err)
		}
		for n := 0; n < frames*muster.Partitions && read < b.N; {
			entries, err := r.Next(b.Context(), 1000)
			if err != nil {
				b.Fatal(err)
			}
			n += len(entries)
			read += len(entries)
		}
		r.Close()
	}
}

func BenchmarkKVPut(b *testing.B) {
	bus := open(b, stream.Config{Dir: b.TempDir()})
	kv, err := bus.KV(b.Context(), "bench", 0)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := kv.Put(b.Context(), "ban.192.0.2.1", []byte("until tomorrow")); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenAndClose(b *testing.B) {
	dir := b.TempDir()
	bus := open(b, stream.Config{Dir: dir})
	records := signals(rand.New(rand.NewPCG(1, 2)), muster.Partitions, 2000)
	for range 1000 {
		if err := bus.Append(b.Context(), records); err != nil {
			b.Fatal(err)
		}
	}
	bus.Close()
	for b.Loop() {
		bus, err := stream.Open(b.Context(), stream.Config{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		bus.Close()
	}
}

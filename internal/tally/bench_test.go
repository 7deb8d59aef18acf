package tally

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"muster"
)

// idle is a ledger that keeps nothing, so that the worker's own work is
// measured.
type idle struct{ *ledger }

func (idle) Commit(_ context.Context, fn func(Tx) error) error { return fn(idleTx{}) }

type idleTx struct{}

func (idleTx) InsertAlerts(_ []uint8, signals []*muster.Signal) ([]bool, error) {
	fresh := make([]bool, len(signals))
	for i := range fresh {
		fresh[i] = true
	}
	return fresh, nil
}
func (idleTx) PutEvidence([]muster.EvidenceRow) error         { return nil }
func (idleTx) DeleteEvidence(uint8, []muster.Source) error    { return nil }
func (idleTx) PutVerdicts([]muster.Verdict) error             { return nil }
func (idleTx) Advance(partition uint8, from, to uint64) error { return nil }

// BenchmarkConsume folds and judges what 1,000 machines of 100 organisations
// say about 20,000 sources, a tenth of which get most of the reports.
func BenchmarkConsume(b *testing.B) {
	const batches, records, each = 8, 256, 12
	rng := rand.New(rand.NewPCG(1, 2))
	var (
		work     [batches][]muster.Entry
		position uint64
		now      = start
	)
	for i := range work {
		for range records {
			now = now.Add(20 * time.Millisecond)
			position++
			var data []byte
			for range each {
				n := rng.IntN(20_000)
				if rng.IntN(10) > 0 {
					n = rng.IntN(2_000)
				}
				m := rng.IntN(1000)
				data = muster.AppendSignal(data, &muster.Signal{
					Machine: fmt.Sprintf("machine%048d", m), Organisation: fmt.Sprintf("organisation%024d", m%100), Received: now, At: now,
					Source:   muster.SourceFromAddr(netip.AddrFrom4([4]byte{35, 188, byte(n >> 8), byte(n)})),
					Scenario: fmt.Sprint("crowdsecurity/scenario-", rng.IntN(6)), Flags: muster.Counts | muster.Fleet | muster.Decided,
				})
			}
			work[i] = append(work[i], muster.Entry{Partition: uint8(position % muster.Partitions), Position: position, Data: data})
		}
	}
	w := New(config(nil, newStream(), func(c *Config) { c.Ledger = idle{newLedger()} }))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		for p := range w.positions {
			w.positions[p] = 0 // the same records again, as if they were new
		}
		if err := w.consume(b.Context(), work[n%batches]); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n*records*each), "ns/signal")
}

package jury

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
func (idleTx) PutEvidence([]muster.EvidenceRow) error      { return nil }
func (idleTx) DeleteEvidence(uint8, []muster.Source) error { return nil }
func (idleTx) PutVerdicts([]muster.Verdict) error          { return nil }
func (idleTx) PutNumbers([]muster.Number) error            { return nil }
func (idleTx) PutTrust([]muster.TrustRow) error            { return nil }
func (idleTx) PutBehaviours([]muster.BehaviourRow) error   { return nil }
func (idleTx) PutTrustEvents([]muster.TrustEvent) error    { return nil }
func (idleTx) AdvanceEpoch(uint64, uint64, []byte) error   { return nil }
func (idleTx) Advance(uint8, uint64, uint64) error         { return nil }

// work is what 1,000 machines of 100 organisations in 50 AS say about 50,000
// sources, a tenth of which get most of the reports. Sources are spread over a
// /8, or as dense as can be.
func work(records, each int, gap time.Duration, dense bool) (entries []muster.Entry, bytes int) {
	rng := rand.New(rand.NewPCG(1, 2))
	now := start
	for position := range records {
		now = now.Add(gap)
		var data []byte
		for i := range each {
			n := rng.IntN(50_000)
			if rng.IntN(10) > 0 {
				n = rng.IntN(5_000)
			}
			if !dense {
				n = n * 11_400_709 & (1<<24 - 1)
			}
			m := rng.IntN(1000)
			data = muster.AppendSignal(data, &muster.Signal{
				ID:      muster.SignalID([]byte(fmt.Sprintf("%08d%08d", position, i))),
				Machine: fmt.Sprintf("machine%048d", m), Organisation: fmt.Sprintf("organisation%024d", m%100), Received: now, At: now,
				ReporterASN: uint32(64500 + m%50), ReporterNet: uint64(m + 1),
				Source:   muster.SourceFromAddr(netip.AddrFrom4([4]byte{35, byte(n >> 16), byte(n >> 8), byte(n)})),
				Scenario: []string{brute, probing, "own/scenario"}[rng.IntN(3)], Flags: counts | fleet | muster.Decided,
			})
		}
		bytes += len(data)
		entries = append(entries, muster.Entry{Partition: uint8(position % muster.Partitions), Position: uint64(position + 1), Data: data})
	}
	return entries, bytes
}

// BenchmarkConsume folds and judges 200,000 signals, which come within some
// hours of the log's time, or all at once.
func BenchmarkConsume(b *testing.B) {
	for _, c := range []struct {
		name  string
		gap   time.Duration // between records
		dense bool
	}{
		{"in a minute", 4 * time.Millisecond, false},
		{"in four hours", 900 * time.Millisecond, false},
		{"in four hours about whole ranges", 900 * time.Millisecond, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			const each = 12
			entries, bytes := work(200_000/each, each, c.gap, c.dense)
			b.ReportAllocs()
			b.SetBytes(int64(bytes))
			for b.Loop() {
				w := New(config(nil, newStream(), func(c *Config) { c.Ledger = idle{newLedger()} }))
				w.reset()
				w.loaded = true
				for from := 0; from < len(entries); from += entriesPerCommit {
					if err := w.consume(b.Context(), entries[from:min(from+entriesPerCommit, len(entries))]); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.N*len(entries)*each)/b.Elapsed().Seconds(), "signals/s")
		})
	}
}

// BenchmarkCatchUp lets a day pass that the log had nothing in, as after a stop:
// 8,640 ticks and 288 epochs of 10,000 machines.
func BenchmarkCatchUp(b *testing.B) {
	w := New(config(nil, newStream(), func(c *Config) { c.Ledger = idle{newLedger()} }))
	if err := w.load(b.Context()); err != nil {
		b.Fatal(err)
	}
	for m := range 10_000 {
		s := said(b, "a1", address, 0, counts)
		s.Machine, s.Organisation, s.ReporterASN = fmt.Sprint("machine", m), fmt.Sprint("organisation", m%3000), uint32(64500+m%500)
		if err := w.consume(b.Context(), []muster.Entry{{Position: uint64(m + 1), Data: muster.AppendSignal(nil, s)}}); err != nil {
			b.Fatal(err)
		}
	}
	now := start
	for b.Loop() {
		now = now.Add(24 * time.Hour)
		if err := w.idle(b.Context(), now); err != nil {
			b.Fatal(err)
		}
	}
}

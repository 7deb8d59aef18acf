package history

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"muster"
	"muster/internal/store"
)

// traffic makes signals like those of real engines: some scenarios and countries
// have most of them, addresses come again.
type traffic struct {
	rand      *rand.Rand
	scenarios *rand.Zipf
	addresses *rand.Zipf
	countries *rand.Zipf
	position  uint64
	at        time.Time
	step      time.Duration // between two signals
}

const (
	trafficMachines  = 50
	trafficScenarios = 300
)

func newTraffic(at time.Time, step time.Duration) *traffic {
	r := rand.New(rand.NewPCG(1, 2))
	return &traffic{
		rand: r, at: at, step: step,
		scenarios: rand.NewZipf(r, 1.3, 3, trafficScenarios-1), addresses: rand.NewZipf(r, 1.05, 100, 1<<22), countries: rand.NewZipf(r, 1.2, 2, 199),
	}
}

func (g *traffic) uuid() string {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], g.rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], g.rand.Uint64())
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func trafficScenario(n uint64) string { return fmt.Sprintf("crowdsecurity/attack-%03d", n) }

func trafficCountry(n uint64) string { return string([]byte{byte('A' + n/26), byte('A' + n%26)}) }

func (g *traffic) signal() muster.SievedSignal {
	g.at = g.at.Add(g.step)
	scenario, machine := trafficScenario(g.scenarios.Uint64()), g.rand.IntN(trafficMachines)
	n := g.addresses.Uint64() * 2654435761
	addr := fmt.Sprintf("%d.%d.%d.%d", 1+n>>24&127, byte(n>>16), byte(n>>8), byte(n))
	uuid, stop := g.uuid(), g.at.UTC().Format(time.RFC3339Nano)
	raw := fmt.Sprintf(`{"context":[{"key":"target_user","value":"[\"root\",\"admin%d\"]"}],"decisions":[{"duration":"%dh","id":0,"origin":"crowdsec","scenario":"%s","scope":"Ip","type":"ban","uuid":"%s","value":"%s"}],"kind":"crowdsec","machine_id":"%s","message":"Ip %s performed '%s' (%d events over %s) at %s","scenario":"%s","scenario_hash":"%064x","scenario_trust":"certified","scenario_version":"0.%d","source":{"as_name":"EXAMPLE-%d","as_number":"%d","cn":"%s","ip":"%s","latitude":52.4,"longitude":4.9,"range":"%s/16","scope":"Ip","value":"%s"},"start_at":"%s","stop_at":"%s","uuid":"%s"}`,
		g.rand.IntN(100), []int{1, 4, 4, 24, 168}[g.rand.IntN(5)], scenario, g.uuid(), addr, trafficMachine(machine), addr, scenario, 5+g.rand.IntN(20), time.Duration(g.rand.IntN(1e9)),
		stop, scenario, len(scenario)*7919+int(scenario[len(scenario)-1]), machine%5, n%5000, n%5000, trafficCountry(g.countries.Uint64()), addr, addr, addr, stop, stop, uuid)
	s := muster.SievedSignal{Raw: []byte(raw), UUID: uuid, Withheld: g.rand.IntN(5) == 0}
	if s.Withheld {
		s.Reasons = []string{"noisy: scenario"}
	}
	return s
}

func trafficMachine(n int) string { return fmt.Sprintf("%048d", n) }

// entry is a record of one request of an engine.
func (g *traffic) entry(signals int) muster.Entry {
	g.position++
	b := muster.SievedBatch{Machine: "m", UserAgent: "crowdsec/v1.7.8"}
	for range signals {
		b.Signals = append(b.Signals, g.signal())
	}
	b.Received = g.at
	return muster.Entry{Partition: uint8(g.position % muster.Partitions), Position: g.position, Data: muster.AppendSievedBatch(nil, &b)}
}

func openStore(tb testing.TB, dir string) *store.DB {
	tb.Helper()
	db, err := store.Open(tb.Context(), "sqlite:"+filepath.Join(dir, "sieve.db"), store.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

// fill stores n alerts of the last year in requests of 50, and returns how long
// storing and marking took.
func fill(tb testing.TB, s *Service, n int, end time.Time) (stored, marked time.Duration) {
	g := newTraffic(end.Add(-365*24*time.Hour), 365*24*time.Hour/time.Duration(n))
	var entries []muster.Entry
	for done := 0; done < n; done += 50 {
		entries = append(entries, g.entry(50))
		if len(entries) == 20 || done+50 >= n {
			began := time.Now()
			if err := s.take(context.Background(), entries, 0); err != nil {
				tb.Fatal(err)
			}
			stored += time.Since(began)
			began = time.Now()
			if err := s.MarkForwarded(context.Background(), forwardedOf(tb, entries), g.at); err != nil {
				tb.Fatal(err)
			}
			marked += time.Since(began)
			entries = entries[:0]
		}
	}
	return stored, marked
}

// forwardedOf returns what a spool would mark of some entries.
func forwardedOf(tb testing.TB, entries []muster.Entry) (refs []muster.SieveRef) {
	for _, e := range entries {
		i := 0
		err := muster.DecodeSievedBatches(e.Data, func(b *muster.SievedBatch) {
			for _, s := range b.Signals {
				if !s.Withheld {
					refs = append(refs, muster.SieveRef{Partition: e.Partition, Position: e.Position, Index: i})
				}
				i++
			}
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	return refs
}

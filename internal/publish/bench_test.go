package publish

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"muster"
	"muster/internal/policy"
	"muster/internal/wire"
)

// hubScenarios are names as the hub has them.
var hubScenarios = func() (names []string) {
	policy.BuiltInTaxonomy().All(func(name string, _ policy.Prior) bool {
		names = append(names, name)
		return true
	})
	return names
}()

func behaviourOf(scenario string) string { return policy.BuiltInTaxonomy().Of(scenario).Behaviour }

// verdictsOf makes n verdicts on different addresses, a few scenarios having most
// of them, as on real networks.
func verdictsOf(n int, seed uint64) []muster.Verdict {
	random := rand.New(rand.NewPCG(seed, 1))
	scenario := rand.NewZipf(random, 1.2, 3, uint64(len(hubScenarios)-1))
	vs := make([]muster.Verdict, 0, n)
	seen := map[netip.Addr]bool{}
	for len(vs) < n {
		v := random.Uint32()
		addr := netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
		s := muster.SourceFromAddr(addr)
		if seen[addr] || s.IsReserved() {
			continue
		}
		seen[addr] = true
		last := start.Add(-time.Duration(random.Float64() * 70 * float64(time.Hour)))
		vs = append(vs, muster.Verdict{
			Source: s, Listed: true, Scenario: hubScenarios[scenario.Uint64()], Changed: last,
			Until:   last.Add(72 * time.Hour),
			Reasons: muster.Reasons{Last: last.Unix(), Support: float32(3 + random.ExpFloat64()*5), Independent: 2 + random.IntN(5)},
		})
	}
	return vs
}

// footprintsOf makes n readers who have different scenarios.
func footprintsOf(n int) []*Reader {
	random := rand.New(rand.NewPCG(9, 9))
	readers := make([]*Reader, n)
	for i := range readers {
		r := &Reader{Machine: fmt.Sprint("m", i), Footprint: uint64(i + 1), LastPull: start.Add(-2 * time.Hour)}
		for range 20 + random.IntN(60) {
			r.Scenarios = append(r.Scenarios, hubScenarios[min(int(random.ExpFloat64()*60), len(hubScenarios)-1)])
		}
		r.Scenarios = muster.CanonicalScenarios(r.Scenarios)
		readers[i] = r
	}
	return readers
}

// crowded is a publisher with a large network list.
func crowded(n, size int) *rig {
	r := newRig(func(c *Config) {
		c.Behaviour = behaviourOf
		c.Tier = func(*Reader) Tier { return Tier{Size: size, Tailoring: TailorInstalled} }
	})
	vs := verdictsOf(n, 7)
	r.mu.Lock()
	for i := range vs {
		r.apply(&vs[i])
	}
	r.settle()
	r.mu.Unlock()
	r.arrange()
	return r
}

var wanted = Want{Version: V3, Community: true, Lists: true}

// BenchmarkPull is a pull when nothing has changed, all but the network: 50,000
// published, 15,000 in each answer, 200 footprints.
func BenchmarkPull(b *testing.B) {
	r, readers := crowded(50_000, 15_000), footprintsOf(200)
	for _, reader := range readers {
		r.Pull(reader, wanted)
	}
	for _, gzip := range []bool{true, false} {
		b.Run(map[bool]string{true: "gzip", false: "identity"}[gzip], func(b *testing.B) {
			b.ReportAllocs()
			i, n := 0, 0
			for b.Loop() {
				a := r.Pull(readers[i%len(readers)], wanted)
				if err := a.Write(io.Discard, gzip); err != nil {
					b.Fatal(err)
				}
				i, n = i+1, a.Length(gzip)
			}
			b.SetBytes(int64(n))
		})
	}
}

// BenchmarkNaivePull is the same without anything prepared.
func BenchmarkNaivePull(b *testing.B) {
	stream := wire.Stream{}
	for i, v := range verdictsOf(15_000, 7) {
		if i%500 == 0 {
			stream.New = append(stream.New, wire.Group{Scenario: v.Scenario, Scope: "ip"})
		}
		g := &stream.New[len(stream.New)-1]
		g.Decisions = append(g.Decisions, wire.Entry{Value: wire.Value{Source: v.Source}, Duration: 48 * time.Hour})
	}
	b.ReportAllocs()
	e := encoders.New().(*encoder)
	for b.Loop() {
		e.json, _ = wire.AppendStreamV3(e.json[:0], stream)
		b.SetBytes(int64(len(e.finish(0).deflate)))
	}
}

// BenchmarkBuild is what an edition costs: the first of all, one for a footprint
// that is new when the blocks are encoded, and one after one block changed.
func BenchmarkBuild(b *testing.B) {
	r, readers := crowded(50_000, 15_000), footprintsOf(200)
	build := func(reader *Reader) *edition {
		return r.build(new(slot), editionKey{size: 15_000, version: V3}, newFootprint(reader.Scenarios, behaviourOf), &own{}, r.clock.now())
	}
	b.Run("cold", func(b *testing.B) {
		b.ReportAllocs()
		var e *edition
		for b.Loop() {
			r.Invalidate()
			e = build(readers[0])
		}
		b.ReportMetric(float64(e.gzip)/float64(e.entries), "gzip-bytes/entry")
		b.ReportMetric(float64(len(e.fragments)), "fragments")
	})
	b.Run("warm", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			build(readers[i%len(readers)])
			i++
		}
	})
}

func BenchmarkApply(b *testing.B) {
	r, more := crowded(50_000, 15_000), verdictsOf(100_000, 8)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		r.apply(&more[i%len(more)])
		i++
	}
}

func BenchmarkLookup(b *testing.B) {
	r, vs := crowded(50_000, 15_000), verdictsOf(50_000, 7)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, ok := r.Lookup(network, vs[i%len(vs)].Source.Addr()); !ok {
			b.Fatal("not listed")
		}
		i++
	}
}

// A million published addresses, encoded for an unlimited list and pulled, take
// less than 300 MB.
func TestMillionAddresses(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("takes some seconds, and minutes with the race detector")
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r := crowded(1_000_000, 0)
	first := time.Now()
	a := r.Pull(&Reader{}, wanted)
	took := time.Since(first)
	if a.Entries < 900_000 {
		t.Errorf("%d entries", a.Entries)
	}
	for _, reader := range footprintsOf(200) {
		r.cfg.Tier = func(*Reader) Tier { return Tier{Size: 15_000, Tailoring: TailorInstalled} }
		r.Pull(reader, wanted)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	mb := float64(after.HeapAlloc-before.HeapAlloc) / 1e6
	t.Logf("%.0f MB in use, %.0f MB of heap from the system; first answer of %d entries, %d bytes, after %s", mb, float64(after.HeapSys-before.HeapSys)/1e6, a.Entries, a.Length(true), took)
	if mb > 300 {
		t.Errorf("%.0f MB, expected less than 300", mb)
	}
	runtime.KeepAlive(r)
}

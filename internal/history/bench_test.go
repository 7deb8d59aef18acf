package history

import (
	"flag"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rows is how many alerts the benchmarks of searches have.
var rows = flag.Int("rows", 1_000_000, "alerts in the history of benchmarks")

var benchEnd = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// full year of alerts in a database that is removed when the benchmark ends.
func benchHistory(b *testing.B) *Service {
	dir, err := os.MkdirTemp("", "muster-history")
	if err != nil {
		b.Fatal(err)
	}
	db := openStore(b, dir)
	b.Cleanup(func() { _ = db.Close(); _ = os.RemoveAll(dir) })
	now := func() time.Time { return benchEnd }
	s := New(Config{Ledger: db, Now: now})
	if err := s.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	storing, marking := fill(b, s, *rows, benchEnd)
	if err := s.pruneCounts(b.Context(), benchEnd); err != nil {
		b.Fatal(err)
	}
	var size int64
	for _, name := range []string{"sieve.db", "sieve.db-wal"} {
		if info, err := os.Stat(dir + "/" + name); err == nil {
			size += info.Size()
		}
	}
	b.Logf("%d alerts stored at %.0f/s, marked at %.0f/s; %d bytes each on disk", *rows, float64(*rows)/storing.Seconds(), float64(*rows)/marking.Seconds(), size/int64(*rows))
	began := time.Now()
	s = New(Config{Ledger: db, Now: now}) // and the one before is let go of
	if err := s.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	took := time.Since(began)
	debug.FreeOSMemory()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	b.Logf("started again in %s; the heap has %d MiB, %d combinations", took.Round(time.Millisecond), mem.HeapInuse>>20, len(s.names.combos))
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "VmHWM") {
				b.Log(strings.TrimSpace(line))
			}
		}
	}
	return s
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func ptr[T any](v T) *T { return &v }

// BenchmarkHistory tells how long answers take with many alerts stored: the 95th
// percentile of calls with changing filters.
func BenchmarkHistory(b *testing.B) {
	s := benchHistory(b)
	r := rand.New(rand.NewPCG(3, 4))
	g := newTraffic(benchEnd, 0)
	since := func() time.Time { return benchEnd.Add(-time.Duration(r.IntN(365*24)) * time.Hour) }
	list := func(q func() Query) func() error {
		return func() error { _, err := s.Alerts(b.Context(), q()); return err }
	}
	for _, tt := range []struct {
		name string
		call func() error
	}{
		{"latest", list(func() Query { return Query{} })},
		{"scenario", list(func() Query { return Query{Scenario: trafficScenario(r.Uint64N(trafficScenarios))} })},
		{"nothing", list(func() Query {
			return Query{Scenario: "attack", Country: trafficCountry(199), Machine: trafficMachine(7), Filtered: ptr(true), Forwarded: ptr(true)}
		})},
		{"any", list(func() Query {
			q := Query{Offset: r.IntN(2) * r.IntN(1000)}
			if r.IntN(2) == 0 {
				q.Scenario = trafficScenario(r.Uint64N(trafficScenarios))[r.IntN(20):]
			}
			if r.IntN(2) == 0 {
				q.Country = trafficCountry(r.Uint64N(200))
			}
			if r.IntN(2) == 0 {
				q.Machine = trafficMachine(r.IntN(trafficMachines))
			}
			if r.IntN(3) == 0 {
				q.Filtered = ptr(r.IntN(2) == 0)
			}
			if r.IntN(3) == 0 {
				q.Forwarded = ptr(r.IntN(2) == 0)
			}
			if r.IntN(3) == 0 {
				q.Since = since()
			}
			if r.IntN(3) == 0 {
				q.Until = since()
			}
			return q
		})},
		{"address", list(func() Query {
			var f facts
			if err := decode(g.signal().Raw, &f); err != nil {
				b.Fatal(err)
			}
			return Query{Addr: addressOf(f.Source.IP)}
		})},
		{"deep", list(func() Query { return Query{Offset: r.IntN(*rows)} })},
		{"thousand", list(func() Query { return Query{Limit: 1000} })},
		{"thousand-scattered", list(func() Query { return Query{Limit: 1000, Scenario: trafficScenario(40 + r.Uint64N(100))} })},
		{"one", func() error { _, err := s.Alert(b.Context(), firstLive+r.Int64N(int64(*rows))); return err }},
		{"stats", func() error { s.Stats(); return nil }},
		{"distribution-all", func() error { s.Distribution(time.Time{}); return nil }},
		{"distribution-30d", func() error { s.Distribution(benchEnd.AddDate(0, 0, -30)); return nil }},
		{"decisions-30d", func() error { s.DecisionStats(benchEnd.AddDate(0, 0, -30)); return nil }},
	} {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			var took, busy []time.Duration
			for b.Loop() {
				began, used := time.Now(), processorTime()
				if err := tt.call(); err != nil {
					b.Fatal(err)
				}
				took, busy = append(took, time.Since(began)), append(busy, processorTime()-used)
			}
			slices.Sort(took)
			slices.Sort(busy)
			b.ReportMetric(float64(took[len(took)*95/100])/1e6, "p95-ms")
			b.ReportMetric(float64(busy[len(busy)*95/100])/1e6, "p95-cpu-ms") // what p95 is on a machine with nothing else to do
		})
	}
}

package simulate

import (
	"slices"
	"testing"

	"muster/internal/crowd"
)

// builtInNamed returns a built-in scenario.
func builtInNamed(tb testing.TB, name string) Scenario {
	tb.Helper()
	all := BuiltIn()
	i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
	if i < 0 {
		tb.Fatalf("no built-in scenario %q", name)
	}
	return all[i]
}

// BenchmarkCalm says how fast the whole simulation goes in the world of the
// design: reports that are folded and judged per second, with all else that
// happens.
func BenchmarkCalm(b *testing.B) {
	s := builtInNamed(b, "calm").Shortened(30)
	b.ReportAllocs()
	reports := uint64(0)
	for b.Loop() {
		t, err := once(b.Context(), &s, crowd.Default(), 1, nil)
		if err != nil {
			b.Fatal(err)
		}
		reports += t.Reports
	}
	b.ReportMetric(float64(reports)/b.Elapsed().Seconds(), "reports/s")
}

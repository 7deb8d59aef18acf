package reputation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"muster"
	"muster/internal/store"
)

// BenchmarkFollow takes signals from the log into a database: ns/op is per
// signal, of 300 machines about 20,000 sources.
func BenchmarkFollow(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	l := newLog()
	const perEntry = 50
	for n := 0; n < b.N; n += perEntry {
		var batch []*muster.Signal
		for i := range perEntry {
			s := signal(n+i, fmt.Sprintf("5.%d.%d.%d", rng.IntN(2), rng.IntN(40), rng.IntN(250)), noon)
			s.Machine, s.Organisation = fmt.Sprintf("m%d", rng.IntN(300)), fmt.Sprintf("o%d", rng.IntN(60))
			batch = append(batch, s)
		}
		l.append(batch...)
	}
	db, err := store.Open(b.Context(), "sqlite:"+filepath.Join(b.TempDir(), "muster.db"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	s := New(Config{Open: l.open, Ledger: db, Partition: partition, Rest: -1})
	ctx, cancel := context.WithCancel(b.Context())
	b.ReportAllocs()
	b.ResetTimer()
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	deadline := time.Now().Add(time.Minute)
	for s.Applied() < uint64(len(l.entries)) && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signals/s")
	cancel()
	<-done
}

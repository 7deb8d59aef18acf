package reputation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"muster"
	"muster/internal/cti"
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
	if err := <-done; err != nil {
		b.Error(err)
	}
}

// BenchmarkDays reads what a lookup needs, of 20,000 sources with a week each.
func BenchmarkDays(b *testing.B) {
	db, err := store.Open(b.Context(), "sqlite:"+filepath.Join(b.TempDir(), "muster.db"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	const sources = 20_000
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{5, byte(i >> 16), byte(i >> 8), byte(i)}) }
	var rows []muster.RollupRow
	for i := range sources {
		for day := range 7 {
			var d cti.Day
			at := noon.AddDate(0, 0, -day)
			for o := range 5 {
				d.Add(&cti.Sighting{At: at, Machine: fmt.Sprint("m", o), Organisation: fmt.Sprint("o", o), Scenario: "crowdsecurity/ssh-bf", ASN: uint32(o + 1), Rank: 2})
			}
			source := muster.SourceFromAddr(addr(i))
			rows = append(rows, muster.RollupRow{RollupKey: muster.RollupKey{Partition: partition(source), Source: source, Day: cti.DayOf(at)}, Data: d.AppendBinary(nil)})
		}
	}
	if err := db.PutRollups(b.Context(), rows, positions{}, positions{0: 1}); err != nil {
		b.Fatal(err)
	}
	s := New(Config{Ledger: db, Partition: partition})
	rng := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		if days, err := s.Days(b.Context(), addr(rng.IntN(sources)), noon); err != nil || len(days) != 7 {
			b.Fatal(len(days), err)
		}
	}
}

package reputation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster"
	"muster/internal/cti"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type positions = [muster.Partitions]uint64

// ledger is one in memory that fails now and then.
type ledger struct {
	mu        sync.Mutex
	rollups   map[muster.RollupKey][]byte
	positions positions
	fails     func() error // before a write; nil = never
	late      bool         // the error comes after the write
	writes    int
	largest   int
}

func newLedger() *ledger { return &ledger{rollups: map[muster.RollupKey][]byte{}} }

func (l *ledger) RollupPositions(context.Context) (positions, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.positions, nil
}

func (l *ledger) PutRollups(_ context.Context, rows []muster.RollupRow, from, to positions) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	if l.fails != nil {
		err = l.fails()
	}
	if err != nil && !l.late {
		return err
	}
	if l.positions != from {
		return errors.New("fenced")
	}
	l.positions = to
	for _, r := range rows {
		l.rollups[r.RollupKey] = slices.Clone(r.Data)
	}
	l.writes++
	l.largest = max(l.largest, len(rows))
	return err
}

func (l *ledger) RollupsOf(_ context.Context, keys []muster.RollupKey) (rows []muster.RollupRow, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys {
		if data, ok := l.rollups[k]; ok {
			rows = append(rows, muster.RollupRow{RollupKey: k, Data: data})
		}
	}
	return rows, nil
}

func (l *ledger) Rollups(_ context.Context, part uint8, source muster.Source, since int64) (rows []muster.RollupRow, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, data := range l.rollups {
		if k.Partition == part && k.Source == source && k.Day >= since {
			rows = append(rows, muster.RollupRow{RollupKey: k, Data: data})
		}
	}
	slices.SortFunc(rows, func(a, b muster.RollupRow) int { return int(a.Day - b.Day) })
	return rows, nil
}

// log is one in memory.
type log struct {
	mu      sync.Mutex
	entries []muster.Entry
	grown   chan struct{}
}

func newLog(entries ...muster.Entry) *log { return &log{entries: entries, grown: make(chan struct{})} }

func (l *log) append(signals ...*muster.Signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	data := []byte{}
	for _, s := range signals {
		data = muster.AppendSignal(data, s)
	}
	l.entries = append(l.entries, muster.Entry{Partition: partition(signals[0].Source), Position: uint64(len(l.entries) + 1), Data: data})
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *log) open(_ context.Context, from positions) (Reader, error) {
	return &reader{log: l, at: int(slices.Min(from[:]))}, nil
}

type reader struct {
	*log
	at int
}

func (r *reader) Next(ctx context.Context, limit int) ([]muster.Entry, error) {
	for {
		r.mu.Lock()
		if r.at < len(r.entries) {
			some := r.entries[r.at:min(len(r.entries), r.at+limit)]
			r.at += len(some)
			r.mu.Unlock()
			return some, nil
		}
		grown := r.grown
		r.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *reader) Position() uint64 { return uint64(r.at) }
func (r *reader) Close()           {}

func partition(s muster.Source) uint8 { return uint8(s.Addr().As16()[15] % muster.Partitions) }

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func signal(n int, source string, at time.Time) *muster.Signal {
	s, err := muster.ParseSource(source)
	if err != nil {
		panic(err)
	}
	return &muster.Signal{
		ID: muster.SignalID{byte(n), byte(n >> 8), byte(n >> 16)}, Machine: fmt.Sprintf("m%d", n%7), Organisation: fmt.Sprintf("o%d", n%3),
		Received: at, At: at, Source: s, Scenario: "crowdsecurity/ssh-bf", Flags: muster.Counts,
		ReporterASN: uint32(64500 + n%3), ReporterNet: muster.NetworkOf(netip.MustParseAddr("1.2.3.4")),
	}
}

// run follows the log inside a bubble for a while.
func run(t *testing.T, cfg Config, during func(s *Service)) {
	t.Helper()
	cfg.Partition = partition
	s := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	during(s)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRollups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, kept := newLog(), newLedger()
		at := time.Now()
		uncounted, private, ranged := signal(4, "198.18.0.9", at), signal(5, "10.0.0.1", at), signal(6, "5.6.7.0/24", at)
		uncounted.Source, uncounted.Flags = signal(0, "5.6.7.8", at).Source, muster.Fleet
		honeypot := signal(7, "2a00:1:2:3::9", at)
		honeypot.Flags |= muster.Honeypot
		stranger := signal(8, "5.6.7.8", at)
		stranger.Machine = "blocked"
		l.append(signal(1, "5.6.7.8", at), signal(2, "5.6.7.8", at), signal(1, "5.6.7.8", at))
		l.append(uncounted, private, ranged, stranger)
		l.append(honeypot, signal(9, "2a00:1:2:3::a", at.Add(-24*time.Hour)))
		cfg := Config{
			Open: l.open, Ledger: kept,
			Member:  func(machine, _ string) bool { return machine != "blocked" },
			Ranks:   func(context.Context, []string) (map[string]uint8, error) { return map[string]uint8{"m1": 5}, nil },
			Country: func(netip.Addr) string { return "DE" },
		}
		run(t, cfg, func(s *Service) {
			time.Sleep(6 * time.Second)
			days, err := s.Days(t.Context(), netip.MustParseAddr("5.6.7.8"), at)
			if err != nil || len(days) != 1 || days[0].Signals != 2 || days[0].Machines() != 2 || days[0].Number != cti.DayOf(at) {
				t.Fatalf("expected one day with two signals of two machines, got %+v, %v", days, err)
			}
			days, err = s.Days(t.Context(), netip.MustParseAddr("2a00:1:2:3:ffff::1"), at)
			if err != nil || len(days) != 2 || days[0].Number != days[1].Number-1 {
				t.Fatalf("expected two days of the /64, got %+v, %v", days, err)
			}
			for _, never := range []string{"10.0.0.1", "5.6.7.0"} {
				if days, err = s.Days(t.Context(), netip.MustParseAddr(never), at); err != nil || len(days) != 0 {
					t.Errorf("%s: expected nothing, got %+v, %v", never, days, err)
				}
			}
			if s.Applied() != 3 || len(kept.rollups) != 3 {
				t.Errorf("expected position 3 and three rollups, got %d and %d", s.Applied(), len(kept.rollups))
			}
		})
		for _, p := range kept.positions {
			if p != 3 {
				t.Fatalf("expected all partitions at 3, got %v", kept.positions)
			}
		}
	})
}

// However often writing fails, before or after it was done, and however often
// the follower starts anew, what is kept is what counting everything once gives.
func TestExactlyOnce(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			l, kept := newLog(), newLedger()
			kept.late = late
			fate := rand.New(rand.NewPCG(3, 4)) // the ledger's own: it is another goroutine's
			kept.fails = func() error {
				if fate.IntN(3) == 0 {
					return errors.New("the disk is away")
				}
				return nil
			}
			want := map[muster.RollupKey]*cti.Day{}
			at, n := time.Now(), 0
			cfg := Config{Open: l.open, Ledger: kept, Rows: 10, Cache: 20}
			for range 6 {
				for range 20 {
					var batch []*muster.Signal
					for range 1 + rng.IntN(5) {
						n++
						s := signal(n, fmt.Sprintf("5.6.7.%d", rng.IntN(60)), at.Add(-time.Duration(rng.IntN(72))*time.Hour))
						batch = append(batch, s)
						k := muster.RollupKey{Partition: partition(s.Source), Source: s.Source, Day: cti.DayOf(s.At)}
						if want[k] == nil {
							want[k] = &cti.Day{}
						}
						want[k].Add(&cti.Sighting{At: s.At, Machine: s.Machine, Organisation: s.Organisation, Scenario: s.Scenario, ASN: s.ReporterASN, Rank: newcomer})
					}
					l.append(batch...)
				}
				run(t, cfg, func(*Service) { time.Sleep(time.Duration(rng.IntN(20)) * time.Second) })
			}
			run(t, cfg, func(s *Service) { time.Sleep(10 * time.Minute) })
			if len(kept.rollups) != len(want) {
				t.Errorf("expected %d rollups, got %d", len(want), len(kept.rollups))
			}
			for k, d := range want {
				if diff := cmp.Diff(d.AppendBinary(nil), kept.rollups[k]); diff != "" {
					t.Errorf("%v: %s", k, diff)
				}
			}
			if kept.largest > 10+5*entriesAtOnce {
				t.Errorf("one write of %d rollups", kept.largest)
			}
		})
	}
}

// It writes seldom while there is little, and does not write when there is
// nothing.
func TestWritesSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, kept := newLog(), newLedger()
		run(t, Config{Open: l.open, Ledger: kept}, func(*Service) {
			for n := range 60 {
				l.append(signal(n, "5.6.7.8", time.Now()))
				time.Sleep(time.Second)
			}
			time.Sleep(time.Minute)
		})
		if kept.writes < 10 || kept.writes > 14 {
			t.Errorf("expected a write each five seconds of the first minute, got %d", kept.writes)
		}
	})
}

// A judge that does not answer holds nothing up.
func TestRanksAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, kept := newLog(), newLedger()
		l.append(signal(1, "5.6.7.8", time.Now()))
		cfg := Config{Open: l.open, Ledger: kept, Ranks: func(ctx context.Context, _ []string) (map[string]uint8, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		run(t, cfg, func(s *Service) {
			time.Sleep(10 * time.Second)
			if s.Applied() != 1 {
				t.Errorf("expected position 1, got %d", s.Applied())
			}
		})
	})
}

func TestAddrOf(t *testing.T) {
	for addr, want := range map[string]string{"203.0.114.9": "203.0.114.0", "2a00:1:2:3::9": "2a00:1:2::", "0.0.0.1": "0.0.0.0"} {
		if got := addrOf(muster.NetworkOf(netip.MustParseAddr(addr))); got != netip.MustParseAddr(want) {
			t.Errorf("%s: expected %s, got %s", addr, want, got)
		}
	}
	if addrOf(0).IsValid() {
		t.Error("the network 0 has an address")
	}
}

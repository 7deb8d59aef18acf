package ingest

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/internal/groupcommit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	now    = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	quiet  = slog.New(slog.DiscardHandler)
	sender = Sender{Machine: "m1", Organisation: "o1", Active: true, Fleet: muster.FleetHub}
)

// fakeLog keeps copies of what is appended. Before it does, it calls enter, when
// set, and fails with its error.
type fakeLog struct {
	enter func(call int) error

	mu      sync.Mutex
	calls   int
	inside  int
	records []muster.Record
}

func (l *fakeLog) Append(_ context.Context, records []muster.Record) error {
	l.mu.Lock()
	l.calls++
	call := l.calls
	l.inside++
	alone := l.inside == 1
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.inside--
		l.mu.Unlock()
	}()
	if !alone {
		panic("Append was called by two goroutines at a time")
	}
	if l.enter != nil {
		if err := l.enter(call); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		l.records = append(l.records, muster.Record{Partition: r.Partition, Data: slices.Clone(r.Data)})
	}
	return nil
}

func (l *fakeLog) appends() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

// signals decodes everything that was appended, in order.
func (l *fakeLog) signals(t testing.TB) []muster.Signal {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []muster.Signal
	for _, r := range l.records {
		out = append(out, decode(t, r.Data)...)
	}
	return out
}

func decode(t testing.TB, data []byte) []muster.Signal {
	t.Helper()
	var out []muster.Signal
	if err := muster.DecodeSignals(data, func(s *muster.Signal) { out = append(out, *s) }); err != nil {
		t.Fatal(err)
	}
	return out
}

// newCommitter returns a committer with a clock that stands still.
func newCommitter(log groupcommit.Log, change ...func(*Config)) *Committer {
	cfg := Config{
		Log: log, Now: func() time.Time { return now }, Logger: quiet,
		Rules: Rules{MaxAge: 24 * time.Hour, MaxFuture: 5 * time.Minute},
	}
	for _, f := range change {
		f(&cfg)
	}
	return NewCommitter(cfg)
}

// ban is the item of an unmodified hub scenario that banned an address.
func ban() Item {
	return Item{
		UUID: "0d5b2b6c-6a3c-4f0e-9a6f-1d2c3b4a5968", Scenario: "crowdsecurity/ssh-bf", Hash: sshHash, Version: "0.3", Trust: "certified",
		Kind: "crowdsec", Created: now, Start: now.Add(-2 * time.Minute), Stop: now.Add(-time.Minute),
		Scope: "Ip", Value: "35.188.49.176", IP: "35.188.49.176", Country: "US", ASName: "GOOGLE-CLOUD-PLATFORM", ASN: 396982,
		Decisions: 1, Ban: true, Origin: "crowdsec", Detail: []byte(`{"message":"x"}`),
	}
}

const sshHash = "4441dcff07020f6690d998b7101e642359ba405c2abb83565bbbdcee36de280f"

func prefix(raw []byte, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte(raw)), bits)
}

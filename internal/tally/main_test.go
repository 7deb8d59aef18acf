package tally

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/internal/consensus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	rule  = consensus.Quorum{Machines: 3, Organisations: 2, Window: 24 * time.Hour, Expiry: 72 * time.Hour}
)

var (
	errAway  = errors.New("database is away")
	errTaken = takenOver{}
)

type takenOver struct{}

func (takenOver) Error() string { return "another worker owns the partition" }
func (takenOver) Fenced() bool  { return true }

type (
	alertKey struct {
		partition uint8
		id        muster.SignalID
	}
	verdictKey struct {
		audience muster.Audience
		source   muster.Source
	}
)

// state is what a ledger holds.
type state struct {
	positions [muster.Partitions]uint64
	alerts    map[alertKey]muster.Signal
	evidence  map[muster.Source]muster.EvidenceRow
	verdicts  map[verdictKey]muster.Verdict
}

func (s state) clone() state {
	s.alerts, s.evidence, s.verdicts = maps.Clone(s.alerts), maps.Clone(s.evidence), maps.Clone(s.verdicts)
	return s
}

// ledger is a Ledger in memory. Faults are told by fault, which is asked before
// every commit.
type ledger struct {
	fault func() fault

	mu      sync.Mutex
	state   state
	commits int
	told    []muster.Verdict // every verdict that was committed, in order
}

// fault is what goes wrong with one commit.
type fault int

const (
	none    fault = iota
	refused       // it does not begin
	undone        // it fails at its end, nothing of it stays
	unheard       // it is durable, but its answer is lost
)

func newLedger() *ledger {
	return &ledger{state: state{
		alerts: map[alertKey]muster.Signal{}, evidence: map[muster.Source]muster.EvidenceRow{}, verdicts: map[verdictKey]muster.Verdict{},
	}}
}

func (l *ledger) Positions(context.Context) ([muster.Partitions]uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.positions, nil
}

func (l *ledger) EachEvidence(_ context.Context, fn func(muster.EvidenceRow) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, row := range l.state.evidence {
		if err := fn(row); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) LastVerdict(context.Context) (last time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.state.verdicts {
		if v.Changed.After(last) {
			last = v.Changed
		}
	}
	return last, nil
}

func (l *ledger) Commit(_ context.Context, fn func(Tx) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	what := none
	if l.fault != nil {
		what = l.fault()
	}
	if what == refused {
		return errAway
	}
	t := &tx{state: l.state.clone()}
	if err := fn(t); err != nil {
		return err
	}
	if what == undone {
		return errAway
	}
	l.state = t.state
	l.told = append(l.told, t.told...)
	l.commits++
	if what == unheard {
		return errAway
	}
	return nil
}

func (l *ledger) Reports(_ context.Context, organisation, machine string, since time.Time, limit int) ([]muster.Signal, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []muster.Signal
	for _, s := range l.state.alerts {
		if s.Organisation == organisation && s.Machine == machine && !s.At.Before(since) && len(out) < limit {
			out = append(out, s)
		}
	}
	return out, nil
}

func (l *ledger) setFault(f func() fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = f
}

// take lets another worker move a partition's position.
func (l *ledger) take(partition uint8) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.positions[partition] += 1000
}

// committed returns how many commits there were.
func (l *ledger) committed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commits
}

// changes returns every verdict that was committed, in order.
func (l *ledger) changes() []muster.Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.told)
}

// look returns a copy of what the ledger holds.
func (l *ledger) look() state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.clone()
}

// listed returns who has which source listed: "source" for the network and
// "source for A" for a fleet, sorted.
func (l *ledger) listed() []string {
	out := []string{}
	for k, v := range l.look().verdicts {
		switch {
		case v.Listed && k.audience == muster.Network:
			out = append(out, k.source.String())
		case v.Listed:
			out = append(out, k.source.String()+" for "+string(k.audience))
		}
	}
	slices.Sort(out)
	return out
}

type tx struct {
	state state
	told  []muster.Verdict
}

func (t *tx) InsertAlerts(partitions []uint8, signals []*muster.Signal) ([]bool, error) {
	fresh := make([]bool, len(signals))
	for i, s := range signals {
		k := alertKey{partitions[i], s.ID}
		if _, was := t.state.alerts[k]; !was {
			t.state.alerts[k], fresh[i] = *s, true
		}
	}
	return fresh, nil
}

func (t *tx) PutEvidence(rows []muster.EvidenceRow) error {
	for _, r := range rows {
		r.Data = slices.Clone(r.Data)
		t.state.evidence[r.Source] = r
	}
	return nil
}

func (t *tx) DeleteEvidence(partition uint8, sources []muster.Source) error {
	for _, s := range sources {
		if t.state.evidence[s].Partition != partition {
			return fmt.Errorf("%s is not in partition %d", s, partition)
		}
		delete(t.state.evidence, s)
	}
	return nil
}

func (t *tx) PutVerdicts(vs []muster.Verdict) error {
	seen := map[verdictKey]bool{}
	for _, v := range vs {
		k := verdictKey{v.Audience, v.Source}
		if seen[k] {
			return fmt.Errorf("two verdicts on %s for %q in one call", v.Source, v.Audience)
		}
		seen[k] = true
		t.state.verdicts[k] = v
	}
	t.told = append(t.told, vs...)
	return nil
}

func (t *tx) Advance(partition uint8, from, to uint64) error {
	if t.state.positions[partition] != from {
		return fmt.Errorf("partition %d: %w", partition, errTaken)
	}
	t.state.positions[partition] = to
	return nil
}

// stream is a log in memory; positions are those of all partitions together.
type stream struct {
	mu      sync.Mutex
	entries []muster.Entry
	more    chan struct{} // closed when entries grow
	fail    error
	opened  int
	closed  int
}

func newStream() *stream { return &stream{more: make(chan struct{})} }

func (s *stream) append(partition uint8, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = append(s.entries, muster.Entry{Partition: partition, Position: uint64(len(s.entries) + 1), Data: data})
	close(s.more)
	s.more = make(chan struct{})
}

// report appends signals, one record each.
func (s *stream) report(signals ...*muster.Signal) {
	for _, sig := range signals {
		s.append(partitionOf(sig.Source), muster.AppendSignal(nil, sig))
	}
}

func (s *stream) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
	close(s.more)
	s.more = make(chan struct{})
}

func (s *stream) open(_ context.Context, from [muster.Partitions]uint64) (Reader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	return &reader{stream: s, from: from}, nil
}

type reader struct {
	stream *stream
	from   [muster.Partitions]uint64
	next   int
}

func (r *reader) Next(ctx context.Context, limit int) ([]muster.Entry, error) {
	for {
		r.stream.mu.Lock()
		var out []muster.Entry
		for r.next < len(r.stream.entries) && len(out) < limit {
			e := r.stream.entries[r.next]
			if r.next++; e.Position > r.from[e.Partition] {
				out = append(out, e)
			}
		}
		more, err := r.stream.more, r.stream.fail
		r.stream.mu.Unlock()
		if len(out) > 0 || err != nil {
			return out, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *reader) Position() uint64 { return uint64(r.next) }

func (r *reader) Close() {
	r.stream.mu.Lock()
	defer r.stream.mu.Unlock()
	r.stream.closed++
}

// partitionOf spreads sources over partitions that people can count.
func partitionOf(s muster.Source) uint8 {
	if !s.IsValid() {
		return 0
	}
	raw := s.Addr().As16()
	return raw[15] % 4
}

func source(t testing.TB, text string) muster.Source {
	t.Helper()
	s, err := muster.ParseSource(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var lastID uint64

// said is a report of machine "a1" of organisation "A", and so on, hours after
// the start; its id is new.
func said(t testing.TB, machine, address string, hours float64, flags muster.SignalFlags) *muster.Signal {
	t.Helper()
	lastID++
	at := start.Add(time.Duration(hours * float64(time.Hour)))
	return &muster.Signal{
		ID: muster.SignalID([]byte(fmt.Sprintf("%016d", lastID))), Machine: machine, Organisation: string(machine[0] - 'a' + 'A'),
		Source: source(t, address), Scenario: "crowdsecurity/ssh-bf", At: at, Received: at, Flags: flags,
	}
}

// quorum is three reports of an address by two organisations.
func quorum(t testing.TB, address string, hours float64) []*muster.Signal {
	return []*muster.Signal{
		said(t, "a1", address, hours, muster.Counts), said(t, "a2", address, hours, muster.Counts), said(t, "b1", address, hours, muster.Counts),
	}
}

// config is a Worker's configuration on a clock that stands still.
func config(l *ledger, s *stream, change ...func(*Config)) Config {
	cfg := Config{
		Open: s.open, Ledger: l, Judge: rule, Partition: partitionOf,
		Member: func(string, string) bool { return true }, Changed: func() {},
		Now: func() time.Time { return start }, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

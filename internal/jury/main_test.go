package jury

import (
	"context"
	"encoding/json"
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
	"muster/internal/crowd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is a whole tick and the end of an epoch.
var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

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
	numberKey struct {
		kind muster.NumberKind
		name string
	}
	eventKey struct {
		machine   uint32
		at        int64
		kind      string
		behaviour string
		source    muster.Source
	}
)

// stored is what a ledger holds.
type stored struct {
	positions  [muster.Partitions]uint64
	alerts     map[alertKey]muster.Signal
	evidence   map[muster.Source]muster.EvidenceRow
	verdicts   map[verdictKey]muster.Verdict
	numbers    map[numberKey]uint32
	trust      map[uint32]muster.TrustRow
	behaviours map[uint32]muster.BehaviourRow
	events     map[eventKey]muster.TrustEvent
	epoch      uint64
	data       string // stored with the epoch
}

func newStored() stored {
	return stored{
		alerts: map[alertKey]muster.Signal{}, evidence: map[muster.Source]muster.EvidenceRow{}, verdicts: map[verdictKey]muster.Verdict{},
		numbers: map[numberKey]uint32{}, trust: map[uint32]muster.TrustRow{}, behaviours: map[uint32]muster.BehaviourRow{},
		events: map[eventKey]muster.TrustEvent{},
	}
}

func (s stored) clone() stored {
	s.alerts, s.evidence, s.verdicts = maps.Clone(s.alerts), maps.Clone(s.evidence), maps.Clone(s.verdicts)
	s.numbers, s.trust, s.behaviours, s.events = maps.Clone(s.numbers), maps.Clone(s.trust), maps.Clone(s.behaviours), maps.Clone(s.events)
	return s
}

// ledger is a Ledger in memory. Faults are told by fault, which is asked before
// every commit, and by unreadable, which is asked before evidence is read.
type ledger struct {
	fault      func() fault
	unreadable func() error

	mu      sync.Mutex
	state   stored
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

func newLedger() *ledger { return &ledger{state: newStored()} }

func (l *ledger) Positions(context.Context) ([muster.Partitions]uint64, error) {
	return l.look().positions, nil
}

func (l *ledger) EachEvidence(_ context.Context, fn func(muster.EvidenceRow) error) error {
	rows := l.look().evidence
	for _, row := range rows {
		if l.unreadable != nil {
			if err := l.unreadable(); err != nil {
				return err
			}
		}
		if err := fn(row); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) EachNumber(_ context.Context, fn func(muster.Number) error) error {
	for k, n := range l.look().numbers {
		if err := fn(muster.Number{Kind: k.kind, Name: k.name, Number: n}); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) EachTrust(_ context.Context, fn func(muster.TrustRow) error) error {
	for _, row := range l.look().trust {
		if err := fn(row); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) EachBehaviour(_ context.Context, fn func(muster.BehaviourRow) error) error {
	for _, row := range l.look().behaviours {
		if err := fn(row); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) Epoch(context.Context) (uint64, []byte, error) {
	s := l.look()
	return s.epoch, []byte(s.data), nil
}

func (l *ledger) LastVerdict(context.Context) (last time.Time, err error) {
	for _, v := range l.look().verdicts {
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
	var out []muster.Signal
	for _, s := range l.look().alerts {
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

// tick returns the time that the worker has come to; its caller holds the lock,
// as faults do.
func (l *ledger) tick(t *testing.T) time.Time {
	var at epochData
	if len(l.state.data) == 0 {
		return time.Time{}
	}
	if err := json.Unmarshal([]byte(l.state.data), &at); err != nil {
		t.Error(err)
	}
	return time.Unix(at.Tick, 0)
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
func (l *ledger) look() stored {
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
	state stored
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
		if row, there := t.state.evidence[s]; there && row.Partition != partition {
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

func (t *tx) PutNumbers(numbers []muster.Number) error {
	for _, n := range numbers {
		for k, taken := range t.state.numbers {
			if k.kind == n.Kind && (k.name == n.Name) != (taken == n.Number) {
				return fmt.Errorf("%s %q shall have number %d, and %q has %d: %w", n.Kind, n.Name, n.Number, k.name, taken, errTaken)
			}
		}
		t.state.numbers[numberKey{n.Kind, n.Name}] = n.Number
	}
	return nil
}

func (t *tx) PutTrust(rows []muster.TrustRow) error {
	for _, r := range rows {
		t.state.trust[r.Machine] = r
	}
	return nil
}

func (t *tx) PutBehaviours(rows []muster.BehaviourRow) error {
	for _, r := range rows {
		t.state.behaviours[r.Behaviour] = r
	}
	return nil
}

// PutTrustEvents keeps events that are alike as one, as the store does.
func (t *tx) PutTrustEvents(events []muster.TrustEvent) error {
	for _, e := range events {
		k := eventKey{e.Machine, e.At.Unix(), e.Kind, e.Behaviour, e.Source}
		if have, ok := t.state.events[k]; ok {
			e.Amount, e.RankBefore = e.Amount+have.Amount, have.RankBefore
		}
		t.state.events[k] = e
	}
	return nil
}

func (t *tx) AdvanceEpoch(from, to uint64, data []byte) error {
	if t.state.epoch != from || to < from {
		return fmt.Errorf("epoch %d is to follow on %d: %w", to, from, errTaken)
	}
	t.state.epoch, t.state.data = to, string(data)
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
	limit int // entries that Next returns at most; 0 = as many as it is asked for

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
	if r.stream.limit > 0 {
		limit = r.stream.limit
	}
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

// The scenarios of the tests: nothing else looks like brute, probing is vague.
const (
	brute   = "crowdsecurity/ssh-bf"
	probing = "crowdsecurity/http-probing"
)

func prior(scenario string) crowd.Prior {
	switch scenario {
	case brute:
		return crowd.Prior{Confidence: 3}
	case probing:
		return crowd.Prior{Confidence: 1}
	}
	return crowd.Prior{Confidence: 1, Spoofable: 1}
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
		Source: source(t, address), Scenario: brute, At: at, Received: at, Flags: flags,
	}
}

// crowdSays is what lists an address in a network as small as that of the tests:
// reports by machines of two organisations.
func crowdSays(t testing.TB, address string, hours float64) []*muster.Signal {
	return []*muster.Signal{said(t, "a1", address, hours, muster.Counts), said(t, "b1", address, hours, muster.Counts)}
}

// config is a Worker's configuration on a clock that stands still.
func config(l *ledger, s *stream, change ...func(*Config)) Config {
	cfg := Config{
		Open: s.open, Ledger: l, Partition: partitionOf, Prior: prior, Scenarios: []string{brute, probing},
		Member: func(_, organisation string) bool { return organisation != "" }, Changed: func() {},
		Now: func() time.Time { return start }, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

package spool

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/internal/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// memoryLog is a log in memory.
type memoryLog struct {
	mu      sync.Mutex
	entries []muster.Entry
	last    uint64
	changed chan struct{}
}

func newLog() *memoryLog { return &memoryLog{changed: make(chan struct{})} }

func (l *memoryLog) Append(_ context.Context, records []muster.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	for _, r := range records {
		l.entries = append(l.entries, muster.Entry{Partition: r.Partition, Position: l.last, Data: append([]byte(nil), r.Data...)})
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

func (l *memoryLog) Read(_ context.Context, _ []uint8, from [muster.Partitions]uint64) (Reader, error) {
	lowest := from[0]
	for _, p := range from {
		lowest = min(lowest, p)
	}
	return &memoryReader{log: l, from: from, position: lowest}, nil
}

type memoryReader struct {
	log      *memoryLog
	from     [muster.Partitions]uint64
	at       int
	position uint64
}

func (r *memoryReader) Next(ctx context.Context, limit int) ([]muster.Entry, error) {
	for {
		r.log.mu.Lock()
		var out []muster.Entry
		for r.at < len(r.log.entries) && len(out) < limit {
			e := r.log.entries[r.at]
			r.at++
			r.position = max(r.position, e.Position-1)
			if r.at == len(r.log.entries) {
				r.position = e.Position
			}
			if e.Position > r.from[e.Partition] {
				out = append(out, e)
			}
		}
		changed := r.log.changed
		r.log.mu.Unlock()
		if len(out) > 0 {
			return out, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *memoryReader) Position() uint64 { return r.position }
func (r *memoryReader) Close()           {}

// memoryStore is a database in memory; before it commits it calls enter, when
// set, and fails with its error.
type memoryStore struct {
	enter func() error

	mu      sync.Mutex
	state   muster.SpoolState
	cursors map[muster.SieveEngine]muster.SpoolCursor
	refused []muster.SpoolRefusal
	marked  map[muster.SieveRef]int
	tokens  []muster.SpoolToken
}

func newStore() *memoryStore {
	return &memoryStore{cursors: map[muster.SieveEngine]muster.SpoolCursor{}, marked: map[muster.SieveRef]int{}}
}

func (s *memoryStore) SpoolState(context.Context) (muster.SpoolState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	for _, c := range s.cursors {
		state.Cursors = append(state.Cursors, c)
	}
	return state, nil
}

func (s *memoryStore) CommitSpool(_ context.Context, p muster.SpoolProgress) error {
	if s.enter != nil {
		if err := s.enter(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for part, position := range p.Positions {
		if position <= s.state.Positions[part] {
			return fmt.Errorf("partition %d moves from %d to %d", part, s.state.Positions[part], position)
		}
		s.state.Positions[part] = position
	}
	for _, c := range p.Cursors {
		s.cursors[c.Engine] = c
	}
	for id, c := range s.cursors {
		if c.Position <= s.state.Positions[id.Partition()] {
			delete(s.cursors, id)
		}
	}
	s.refused = append(s.refused, p.Refused...)
	return nil
}

func (s *memoryStore) MarkForwarded(_ context.Context, sent []muster.SieveRef, _ time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range sent {
		s.marked[m]++
	}
	return nil
}

func (s *memoryStore) SpoolTokens(context.Context) ([]muster.SpoolToken, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens, nil
}

func (s *memoryStore) PutSpoolToken(_ context.Context, t muster.SpoolToken, _ int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = append(s.tokens, t)
	return nil
}

// central is an upstream that counts a signal once per machine and uuid.
type central struct {
	// fault is asked before each call that has a good token; nil or nothing in
	// return: it goes well.
	fault   func(call int, uuids []string) *fault
	revoked map[string]bool // Authorization headers

	mu    sync.Mutex
	calls int
	times []time.Time
	order map[string][]string // uuids by machine, as they came first
	seen  map[string]int      // by machine and uuid
	wrong []string
}

// fault is what goes wrong with a call.
type fault struct {
	err    error
	status int
	header http.Header
	body   string
	slow   time.Duration
	keeps  bool // the signals are taken all the same
}

func newCentral() *central {
	return &central{revoked: map[string]bool{}, order: map[string][]string{}, seen: map[string]int{}}
}

func (c *central) Send(ctx context.Context, call Call) (*upstream.Response, error) {
	c.mu.Lock()
	c.calls++
	n := c.calls
	c.times = append(c.times, time.Now())
	revoked := c.revoked[call.Authorization]
	c.mu.Unlock()
	if revoked {
		return &upstream.Response{Status: 401, Body: []byte(`{"message":"token expired"}`)}, nil
	}
	var items []struct {
		UUID string `json:"uuid"`
	}
	if err := json.Unmarshal(call.Body, &items); err != nil || len(items) == 0 || len(items) > 250 {
		c.mu.Lock()
		c.wrong = append(c.wrong, fmt.Sprintf("call %d of %d items: %v", n, len(items), err))
		c.mu.Unlock()
	}
	uuids := make([]string, len(items))
	for i := range items {
		uuids[i] = items[i].UUID
	}
	var f *fault
	if c.fault != nil {
		f = c.fault(n, uuids)
	}
	if f == nil {
		f = &fault{status: 200, body: `{"message":"OK"}`, keeps: true}
	}
	if f.slow > 0 {
		select {
		case <-time.After(f.slow):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if f.keeps {
		c.keep(call, uuids)
	}
	if f.err != nil {
		return nil, f.err
	}
	r := &upstream.Response{Status: f.status, Header: f.header, Body: []byte(f.body)}
	if ban, banned := upstream.BanIn(r, false, time.Now()); banned {
		return nil, &upstream.BannedError{Ban: ban, Sent: true}
	}
	return r, nil
}

func (c *central) keep(call Call, uuids []string) {
	id, _ := Identify(call.Authorization)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range uuids {
		key := id.Machine + " " + u
		if c.seen[key]++; c.seen[key] == 1 {
			c.order[id.Machine] = append(c.order[id.Machine], u)
		}
	}
}

func (c *central) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, list := range c.order {
		n += len(list)
	}
	return n
}

func (c *central) callCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

func bearerOf(machine string, n int, expires time.Time) string {
	claims := fmt.Sprintf(`{"machine_id":%q,"exp":%d,"n":%d}`, machine, expires.Unix(), n)
	return "Bearer eyJhbGciOiJIUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

// rig is a sieve without its transport.
type rig struct {
	t       *testing.T
	log     *memoryLog
	store   *memoryStore
	central *central
	vault   *Vault
	intake  *Intake
	change  []func(*Config)
	auth    map[string]string
	sent    map[string][]string // uuids by machine, in the order in which they were put
}

// newRig must be called inside a bubble.
func newRig(t *testing.T, change ...func(*Config)) *rig {
	g := &rig{t: t, log: newLog(), store: newStore(), central: newCentral(), change: change, auth: map[string]string{}, sent: map[string][]string{}}
	var err error
	if g.vault, err = OpenVault(t.Context(), g.store, filepath.Join(t.TempDir(), "key")); err != nil {
		t.Fatal(err)
	}
	g.intake = NewIntake(IntakeConfig{Log: g.log, Now: time.Now, Logger: quiet})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = g.intake.Run(ctx) }() // has no errors
	t.Cleanup(func() { stop(); <-done })
	return g
}

// start runs a forwarder; stop ends it as a signal to the process would.
func (g *rig) start() (f *Forwarder, stop func()) {
	g.t.Helper()
	cfg := Config{Read: g.log.Read, Store: g.store, History: g.store, Vault: g.vault, Upstream: g.central, Now: time.Now, Logger: quiet}
	for _, change := range g.change {
		change(&cfg)
	}
	f = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	return f, func() {
		g.t.Helper()
		cancel()
		if err := <-done; err != nil {
			g.t.Errorf("the forwarder: %v", err)
		}
	}
}

// login gives a machine a token.
func (g *rig) login(machine string, life time.Duration) {
	g.t.Helper()
	g.auth[machine] = bearerOf(machine, len(g.sent[machine]), time.Now().Add(life))
	id, _ := Identify(g.auth[machine])
	if err := g.vault.Keep(context.Background(), g.auth[machine], id, time.Now()); err != nil {
		g.t.Fatal(err)
	}
}

// put takes n signals from a machine, of which every fifth is withheld.
func (g *rig) put(machine string, n int) {
	g.t.Helper()
	if g.auth[machine] == "" {
		g.login(machine, 1000*time.Hour)
	}
	id, _ := Identify(g.auth[machine])
	b := muster.SievedBatch{Engine: id.Engine, Token: id.Token, Machine: machine, Received: time.Now(), UserAgent: "crowdsec/v1.7.8-linux"}
	for i := range n {
		uuid := fmt.Sprintf("%s-%d", machine, len(g.sent[machine]))
		s := muster.SievedSignal{UUID: uuid, Raw: []byte(`{"uuid":"` + uuid + `","scenario":"crowdsecurity/ssh-bf"}`)}
		if i%5 == 4 {
			s.UUID, s.Raw, s.Withheld = "w"+uuid, []byte(`{"uuid":"w`+uuid+`"}`), true
		} else {
			g.sent[machine] = append(g.sent[machine], uuid)
		}
		b.Signals = append(b.Signals, s)
	}
	if err := g.intake.Put(context.Background(), &b); err != nil {
		g.t.Fatal(err)
	}
}

// check says whether the upstream has what was put, once and in order.
func (g *rig) check() {
	g.t.Helper()
	g.central.mu.Lock()
	defer g.central.mu.Unlock()
	for _, w := range g.central.wrong {
		g.t.Error(w)
	}
	for machine, want := range g.sent {
		got := g.central.order[machine]
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				g.t.Fatalf("%s: signal %d is %s, expected %s", machine, i, got[i], want[i])
			}
		}
		if len(got) != len(want) {
			g.t.Errorf("%s: the upstream has %d signals, expected %d", machine, len(got), len(want))
		}
	}
}

func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

// pass lets virtual time go by, and all come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

var errDown = errors.New("connection refused")

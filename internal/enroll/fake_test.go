package enroll

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore is a Store in memory. It copies what goes in and out, and fails
// with fail while that is set.
type fakeStore struct {
	mu       sync.Mutex
	machines map[string]muster.Machine
	keys     map[string]muster.EnrolmentKey
	claims   map[string]muster.Claim
	orgs     map[string]muster.Organisation
	secrets  map[string][]byte
	fail     error
	reads    int // of single machines
	writes   int // of machines, touches included
	touches  []muster.MachineTouch
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		machines: make(map[string]muster.Machine),
		keys:     make(map[string]muster.EnrolmentKey),
		claims:   make(map[string]muster.Claim),
		secrets:  make(map[string][]byte),
		orgs: map[string]muster.Organisation{
			"org-a": {ID: "org-a", Plan: muster.Enterprise, Fleet: muster.FleetHub},
			"org-b": {ID: "org-b", Plan: muster.Community, Fleet: muster.FleetOff},
		},
	}
}

func copied(m muster.Machine) muster.Machine {
	m.Tags, m.Scenarios, m.Credential = slices.Clone(m.Tags), slices.Clone(m.Scenarios), bytes.Clone(m.Credential)
	return m
}

func (f *fakeStore) CreateMachine(_ context.Context, m muster.Machine) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	if _, ok := f.machines[m.ID]; ok {
		return muster.Errorf(muster.Exists, "machine exists")
	}
	f.writes++
	f.machines[m.ID] = copied(m)
	return nil
}

func (f *fakeStore) Machine(_ context.Context, id string) (muster.Machine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	m, ok := f.machines[id]
	if f.fail != nil {
		return m, f.fail
	}
	if !ok {
		return m, muster.Errorf(muster.NotFound, "no machine")
	}
	return copied(m), nil
}

func (f *fakeStore) EachMachine(_ context.Context, yield func(muster.Machine) error) error {
	f.mu.Lock()
	all := slices.Collect(maps.Values(f.machines))
	fail := f.fail
	f.mu.Unlock()
	if fail != nil {
		return fail
	}
	for _, m := range all {
		if err := yield(copied(m)); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeStore) UpdateMachine(_ context.Context, id string, change func(*muster.Machine) error) (muster.Machine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.machines[id]
	if f.fail != nil {
		return m, f.fail
	}
	if !ok {
		return m, muster.Errorf(muster.NotFound, "no machine")
	}
	m = copied(m)
	if err := change(&m); err != nil {
		return muster.Machine{}, err
	}
	f.writes++
	f.machines[id] = copied(m)
	return m, nil
}

func (f *fakeStore) TouchMachines(_ context.Context, touches []muster.MachineTouch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	if len(touches) > flushBatch {
		return errors.New("the batch is too large")
	}
	f.touches = append(f.touches, touches...)
	for _, t := range touches {
		m, ok := f.machines[t.ID]
		if !ok {
			continue
		}
		f.writes++
		for at, stored := range map[time.Time]*time.Time{t.Seen.Login: &m.Seen.Login, t.Seen.Push: &m.Seen.Push, t.Seen.Pull: &m.Seen.Pull} {
			if at.After(*stored) {
				*stored = at
			}
		}
		if t.Version != "" {
			m.Version = t.Version
		}
		if t.Scenarios != nil {
			m.Scenarios = slices.Clone(t.Scenarios)
		}
		f.machines[t.ID] = m
	}
	return nil
}

func (f *fakeStore) CreateEnrolmentKey(_ context.Context, k muster.EnrolmentKey) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[string(k.Hash)] = k
	return f.fail
}

func (f *fakeStore) EnrolmentKeyByHash(_ context.Context, hash []byte) (muster.EnrolmentKey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k, ok := f.keys[string(hash)]
	if !ok {
		return k, muster.Errorf(muster.NotFound, "no key")
	}
	return k, f.fail
}

func (f *fakeStore) UseEnrolmentKey(_ context.Context, hash []byte, now time.Time) (muster.EnrolmentKey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.keys[string(hash)]
	if err := k.Usable(now); err != nil {
		return k, err
	}
	k.Uses++
	f.keys[string(hash)] = k
	return k, f.fail
}

func (f *fakeStore) CreateClaim(_ context.Context, c muster.Claim) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.claims[string(c.Hash)] = c
	return f.fail
}

func (f *fakeStore) Claim(_ context.Context, hash []byte) (muster.Claim, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.claims[string(hash)]
	if !ok {
		return c, muster.Errorf(muster.NotFound, "no claim")
	}
	return c, f.fail
}

func (f *fakeStore) DeleteClaim(_ context.Context, hash []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.claims, string(hash))
	return f.fail
}

func (f *fakeStore) Organisations(context.Context) ([]muster.Organisation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.orgs)), f.fail
}

func (f *fakeStore) EnsureSecret(_ context.Context, name string, value []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.secrets[name]; !ok {
		f.secrets[name] = bytes.Clone(value)
	}
	return bytes.Clone(f.secrets[name]), f.fail
}

func (f *fakeStore) ReplaceSecret(_ context.Context, name string, old, value []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !bytes.Equal(f.secrets[name], old) {
		return muster.Errorf(muster.Exists, "the secret has changed")
	}
	f.secrets[name] = bytes.Clone(value)
	return f.fail
}

func (f *fakeStore) setFail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *fakeStore) setPlan(org string, plan muster.Plan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.orgs[org]
	o.Plan = plan
	f.orgs[org] = o
}

func (f *fakeStore) uses(key string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keys[string(hashOf(key))].Uses
}

// clock is a settable clock.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 11, 20, 12, 0, 0, 123_456_000, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// rig is a service under test with its store and clock.
type rig struct {
	*Service
	t     testing.TB
	store *fakeStore
	clock *clock
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	b := &rig{t: t, store: newFakeStore(), clock: newClock()}
	b.Service = b.node(change...)
	return b
}

// node starts another service on the same store.
func (b *rig) node(change ...func(*Config)) *Service {
	b.t.Helper()
	cfg := Config{
		Store:     b.store,
		PublicURL: "https://muster.test/",
		Now:       b.clock.now,
		Rand:      func() float64 { return 0.5 },
	}
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := s.Start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return s
}

const strongPassword = "qL3vZr8TtY1uWm5XxC7bNn9KkJ2hHg4FfD6sSaApPoOiIeEdDcCbBvVnNmM0Q8z1"

const machineID = "0123456789abcdef0123456789abcdefAbCdEfGhIjKlMnOp"

func (b *rig) register(id string) {
	b.t.Helper()
	if err := b.Register(b.t.Context(), Registration{MachineID: id, Password: strongPassword}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *rig) login(id string) Token {
	b.t.Helper()
	return loginAt(b.t, b.Service, id)
}

func loginAt(t testing.TB, s *Service, id string) Token {
	t.Helper()
	token, err := s.Login(t.Context(), Login{MachineID: id, Password: strongPassword})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (b *rig) key(r KeyRequest) string {
	b.t.Helper()
	text, _, err := b.CreateKey(b.t.Context(), r)
	if err != nil {
		b.t.Fatal(err)
	}
	return text
}

// activate registers a machine and makes it a member.
func (b *rig) activate(id, organisation string) {
	b.t.Helper()
	b.register(id)
	if err := b.Accept(b.t.Context(), id, organisation); err != nil {
		b.t.Fatal(err)
	}
}

func wantIdentity(t testing.TB, s *Service, token string, want Identity) {
	t.Helper()
	got, err := s.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatalf("Authenticate: %v", err)
	}
	if got != want {
		t.Fatalf("identity: got %+v, want %+v", got, want)
	}
}

func wantRefused(t testing.TB, s *Service, token string) {
	t.Helper()
	got, err := s.Authenticate(t.Context(), token)
	if !errors.Is(err, muster.Unauthorized) {
		t.Fatalf("Authenticate: got %+v, %v; want code unauthorized", got, err)
	}
	if got != (Identity{}) {
		t.Fatalf("a refused token gave %+v", got)
	}
}

// wantError checks an error's code and part of its text; "" and "" mean none.
func wantError(t testing.TB, err error, code muster.Code, text string) {
	t.Helper()
	switch {
	case code == "" && err != nil:
		t.Fatalf("got error %q, want none", err)
	case code != "" && muster.CodeOf(err) != code:
		t.Fatalf("got error %v (code %q), want code %q", err, muster.CodeOf(err), code)
	case code != "" && !strings.Contains(err.Error(), text):
		t.Fatalf("got error %q, want it to contain %q", err, text)
	}
}

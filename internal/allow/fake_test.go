package allow

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// world is everything around a Service, in memory.
type world struct {
	mu          sync.Mutex
	now         time.Time
	lists       map[string]muster.Allowlist
	items       map[string]map[string]muster.AllowItem // by list and value
	withdrawals map[[2]string]muster.AllowWithdrawal
	answers     map[string][]byte
	secrets     map[string][]byte
	audit       []muster.AuditEntry
	machines    map[string]muster.Machine
	plans       map[string]muster.Plan
	orders      []muster.Order
	as          map[uint32][]netip.Prefix
	countries   map[string][]netip.Prefix
	names       map[string][]string // what names lead to; none = no such name
	ttl         time.Duration
	asked       int
	files       map[string]string
	fail        error // of every write
	changes     []bool
	during      func() // is called in the middle of updates
}

func newWorld() *world {
	return &world{
		now: start, lists: map[string]muster.Allowlist{}, items: map[string]map[string]muster.AllowItem{},
		withdrawals: map[[2]string]muster.AllowWithdrawal{}, answers: map[string][]byte{}, secrets: map[string][]byte{},
		machines: map[string]muster.Machine{}, plans: map[string]muster.Plan{},
		as: map[uint32][]netip.Prefix{}, countries: map[string][]netip.Prefix{}, names: map[string][]string{}, files: map[string]string{},
	}
}

// service returns a loaded Service of the world, on the world's clock.
func (w *world) service(t testing.TB, change ...func(*Config)) *Service {
	t.Helper()
	cfg := Config{
		Store: w, Machines: w, Orders: w, Ranges: w, Resolver: w, Fetcher: w,
		Clouds: map[string]string{"aws": "aws.json", "edge": "edge.txt"}, PublicURL: "https://muster.example.org/m/",
		Changed: func(central bool) { w.changes = append(w.changes, central) }, Now: w.time,
	}
	for _, c := range change {
		c(&cfg)
	}
	s := New(cfg)
	if err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *world) time() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// machine adds an active machine that waits for orders.
func (w *world) machine(id, organisation string, tags ...string) {
	w.machines[id] = muster.Machine{
		ID: id, State: muster.Active, Organisation: organisation, Tags: tags,
		Seen: muster.Contacts{Poll: w.now, Pull: w.now},
	}
	w.plans[organisation] = muster.Enterprise
}

// seen moves a machine's contacts.
func (w *world) seen(id string, poll, pull time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.machines[id]
	m.Seen.Poll, m.Seen.Pull = poll, pull
	w.machines[id] = m
}

// took returns the orders issued since it was called last, as machine and kind.
func (w *world) took() (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.orders {
		out = append(out, o.Machine+" "+strings.TrimPrefix(string(o.Kind), "management/"))
	}
	w.orders = nil
	slices.Sort(out)
	return out
}

func (w *world) EnsureSecret(_ context.Context, name string, value []byte) ([]byte, error) {
	if _, ok := w.secrets[name]; !ok {
		w.secrets[name] = value
	}
	return w.secrets[name], nil
}

func (w *world) Allowlists(context.Context) ([]muster.Allowlist, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.lists)), nil
}

func (w *world) write(audit []muster.AuditEntry) error {
	if w.fail == nil {
		w.audit = append(w.audit, audit...)
	}
	return w.fail
}

func notThere() error { return muster.Errorf(muster.NotFound, "there is no such allowlist") }

func (w *world) CreateAllowlist(_ context.Context, l muster.Allowlist, audit ...muster.AuditEntry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.write(audit); err != nil {
		return err
	}
	w.lists[l.ID], w.items[l.ID] = l, map[string]muster.AllowItem{}
	return nil
}

func (w *world) UpdateAllowlist(_ context.Context, id string, change func(*muster.Allowlist) error, audit ...muster.AuditEntry) (muster.Allowlist, error) {
	if w.during != nil {
		w.during()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l, ok := w.lists[id]
	if !ok {
		return l, notThere()
	}
	if err := cmp.Or(change(&l), w.write(audit)); err != nil {
		return l, err
	}
	w.lists[id] = l
	return l, nil
}

func (w *world) DeleteAllowlist(_ context.Context, id string, audit ...muster.AuditEntry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.lists[id]; !ok {
		return notThere()
	}
	if err := w.write(audit); err != nil {
		return err
	}
	delete(w.lists, id)
	delete(w.items, id)
	return nil
}

func (w *world) EachAllowItem(_ context.Context, list string, fn func(muster.AllowItem) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(w.items)) {
		if list != "" && id != list {
			continue
		}
		for _, value := range slices.Sorted(maps.Keys(w.items[id])) {
			if err := fn(w.items[id][value]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *world) PutAllowItems(_ context.Context, list string, _ time.Time, items []muster.AllowItem, audit ...muster.AuditEntry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.lists[list]; !ok {
		return notThere()
	}
	if err := w.write(audit); err != nil {
		return err
	}
	for _, i := range items {
		w.items[list][i.Value] = i
	}
	return nil
}

func (w *world) DeleteAllowItems(_ context.Context, list string, _ time.Time, items []muster.AllowItem, audit ...muster.AuditEntry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range items {
		if _, ok := w.items[list][i.Value]; !ok {
			return notThere()
		}
	}
	if err := w.write(audit); err != nil {
		return err
	}
	for _, i := range items {
		delete(w.items[list], i.Value)
	}
	return nil
}

func (w *world) DeleteExpiredAllowItems(_ context.Context, now time.Time) (n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, items := range w.items {
		for value, i := range items {
			if !i.ExpiresAt.IsZero() && !now.Before(i.ExpiresAt) {
				delete(items, value)
				n++
			}
		}
	}
	return n, w.fail
}

func (w *world) AllowWithdrawals(context.Context) ([]muster.AllowWithdrawal, error) {
	return slices.Collect(maps.Values(w.withdrawals)), nil
}

func (w *world) PutAllowWithdrawals(_ context.Context, ws []muster.AllowWithdrawal) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return w.fail
	}
	for _, x := range ws {
		w.withdrawals[[2]string{x.Machine, x.List}] = x
	}
	return nil
}

func (w *world) DeleteAllowWithdrawals(_ context.Context, ws []muster.AllowWithdrawal) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range ws {
		delete(w.withdrawals, [2]string{x.Machine, x.List})
	}
	return w.fail
}

func (w *world) EachAllowAnswer(_ context.Context, fn func(string, time.Time, []byte) error) error {
	for name, data := range w.answers {
		if err := fn(name, w.now, data); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) PutAllowAnswer(_ context.Context, name string, _ time.Time, data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[name] = data
	return nil
}

func (w *world) DeleteAllowAnswer(_ context.Context, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.answers, name)
	return nil
}

func (w *world) EachMachine(_ context.Context, fn func(muster.Machine) error) error {
	for _, m := range w.machines {
		if err := fn(m); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) Machine(id string) (muster.Machine, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, ok := w.machines[id]
	return m, ok
}

func (w *world) Plan(organisation string) muster.Plan { return w.plans[organisation] }

// Issue refuses what engines would choke on.
func (w *world) Issue(_ context.Context, o muster.Order) (muster.Order, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o.ID, o.IssuedAt, o.ExpiresAt = "0193a000-0000-7000-8000-000000000001", w.now, w.now.Add(time.Hour)
	if _, err := wire.EncodeEvent(o); err != nil {
		return o, err
	}
	w.orders = append(w.orders, o)
	return o, nil
}

func (w *world) ASPrefixes(numbers []uint32) (map[uint32][]netip.Prefix, error) {
	if w.as == nil {
		return nil, muster.Errorf(muster.Invalid, "expected a database of AS numbers: set enrich.asn")
	}
	out := map[uint32][]netip.Prefix{}
	for _, n := range numbers {
		if ps := w.as[n]; ps != nil {
			out[n] = slices.Clone(ps)
		}
	}
	return out, nil
}

func (w *world) CountryPrefixes(codes []string) (map[string][]netip.Prefix, error) {
	if w.countries == nil {
		return nil, muster.Errorf(muster.Invalid, "expected a database of countries: set enrich.country")
	}
	out := map[string][]netip.Prefix{}
	for _, c := range codes {
		if ps := w.countries[c]; ps != nil {
			out[c] = slices.Clone(ps)
		}
	}
	return out, nil
}

// leads makes a name lead to addresses; none = no such name.
func (w *world) leads(name string, addrs ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names[name] = addrs
}

func (w *world) Resolve(_ context.Context, name string) (addrs []netip.Addr, ttl time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	for _, a := range w.names[name] {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	if addrs == nil {
		return nil, 0, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return addrs, w.ttl, nil
}

func (w *world) Fetch(_ context.Context, source string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if text, ok := w.files[source]; ok {
		return []byte(text), nil
	}
	return nil, net.ErrClosed
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func item(t testing.TB, value string) muster.AllowItem {
	t.Helper()
	i, err := muster.ParseAllowItem(value)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func source(value string) muster.Source {
	s, err := muster.ParseSource(value)
	if err != nil {
		panic(err)
	}
	return s
}

// create makes a list with items and returns its id. Targets are "all", "tag:x",
// "machine:x" or "integration:x".
func create(t testing.TB, s *Service, organisation, name string, targets []string, values ...string) string {
	t.Helper()
	l := muster.Allowlist{Organisation: organisation, Name: name, Description: "for tests"}
	for _, text := range targets {
		kind, id, _ := strings.Cut(text, ":")
		if kind == "all" {
			kind = "organisation"
		}
		l.Targets = append(l.Targets, muster.Subscriber{Kind: muster.SubscriberKind(kind), ID: id})
	}
	made, err := s.Create(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, made.ID, values...)
	return made.ID
}

func put(t testing.TB, s *Service, id string, values ...string) {
	t.Helper()
	var items []muster.AllowItem
	for _, v := range values {
		i := item(t, v)
		i.Reason = "ours"
		items = append(items, i)
	}
	if len(items) == 0 {
		return
	}
	if _, err := s.Put(t.Context(), id, items); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, s *Service, id string, values ...string) {
	t.Helper()
	var items []muster.AllowItem
	for _, v := range values {
		items = append(items, item(t, v))
	}
	if err := s.Remove(t.Context(), id, items); err != nil {
		t.Fatal(err)
	}
}

// covers reports whether a reader must not be sent a source.
func covers(s *Service, value, reader, organisation string, tags ...string) bool {
	list, _ := s.For(reader, organisation, tags)
	_, ok := list.Covers(source(value))
	return ok
}

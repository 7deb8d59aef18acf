package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/internal/catalog/feed"
	"muster/internal/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 20, 12, 20, 0, 0, time.UTC)

func source(text string) muster.Source {
	s, err := muster.ParseSource(text)
	if err != nil {
		panic(err)
	}
	return s
}

func sourcesOf(list string) []muster.Source {
	all := []muster.Source{}
	for _, text := range strings.Fields(list) {
		all = append(all, source(text))
	}
	return all
}

func entriesOf(list string) []muster.CustomEntry {
	var all []muster.CustomEntry
	for _, s := range sourcesOf(list) {
		all = append(all, muster.CustomEntry{Source: s})
	}
	return all
}

func joined(entries []muster.ListEntry) string {
	all := make([]string, len(entries))
	for i, e := range entries {
		all[i] = e.Source.String()
	}
	return strings.Join(all, " ")
}

// memory is a Store.
type memory struct {
	mu      sync.Mutex
	fail    error
	secret  []byte
	lists   map[string]muster.Blocklist
	subs    []muster.Subscription
	entries map[string]map[muster.Source]muster.CustomEntry
	states  map[string]muster.FeedState
	fetched map[bool]map[string][]muster.Source // held or not
	days    map[string]map[time.Time]muster.ListDay
	hits    map[muster.ListHits]int64
	audits  []string
}

func newMemory() *memory {
	return &memory{
		lists: map[string]muster.Blocklist{}, entries: map[string]map[muster.Source]muster.CustomEntry{}, states: map[string]muster.FeedState{},
		fetched: map[bool]map[string][]muster.Source{true: {}, false: {}}, days: map[string]map[time.Time]muster.ListDay{}, hits: map[muster.ListHits]int64{},
	}
}

// in locks, keeps the audit and says whether the database is there.
func (m *memory) in(audit ...muster.AuditEntry) (func(), error) {
	m.mu.Lock()
	if m.fail == nil {
		for _, a := range audit {
			m.audits = append(m.audits, a.Action+" "+a.Subject+" by "+a.By)
		}
	}
	return m.mu.Unlock, m.fail
}

func (m *memory) EnsureSecret(_ context.Context, _ string, value []byte) ([]byte, error) {
	done, err := m.in()
	defer done()
	if m.secret == nil {
		m.secret = value
	}
	return m.secret, err
}

func (m *memory) Blocklists(context.Context) ([]muster.Blocklist, error) {
	done, err := m.in()
	defer done()
	return slices.Collect(maps.Values(m.lists)), err
}

func (m *memory) CreateBlocklist(_ context.Context, l muster.Blocklist, audit ...muster.AuditEntry) error {
	done, err := m.in(audit...)
	defer done()
	for _, other := range m.lists {
		if other.Name == l.Name {
			return muster.Errorf(muster.Exists, "taken")
		}
	}
	m.lists[l.ID] = l
	return err
}

func (m *memory) UpdateBlocklist(_ context.Context, l muster.Blocklist, audit ...muster.AuditEntry) error {
	done, err := m.in(audit...)
	defer done()
	m.lists[l.ID] = l
	return err
}

func (m *memory) DeleteBlocklist(_ context.Context, id string, audit ...muster.AuditEntry) error {
	done, err := m.in(audit...)
	defer done()
	delete(m.lists, id)
	m.subs = slices.DeleteFunc(m.subs, func(s muster.Subscription) bool { return s.Blocklist == id })
	return err
}

func (m *memory) Subscriptions(context.Context) ([]muster.Subscription, error) {
	done, err := m.in()
	defer done()
	return slices.Clone(m.subs), err
}

func (m *memory) PutSubscription(_ context.Context, s muster.Subscription, audit ...muster.AuditEntry) error {
	done, err := m.in(audit...)
	defer done()
	m.subs = slices.DeleteFunc(m.subs, func(o muster.Subscription) bool { return o.Blocklist == s.Blocklist && o.Subscriber == s.Subscriber })
	m.subs = append(m.subs, s)
	return err
}

func (m *memory) DeleteSubscription(_ context.Context, list string, by muster.Subscriber, audit ...muster.AuditEntry) error {
	done, err := m.in(audit...)
	defer done()
	n := len(m.subs)
	m.subs = slices.DeleteFunc(m.subs, func(o muster.Subscription) bool { return o.Blocklist == list && o.Subscriber == by })
	if len(m.subs) == n {
		return muster.Errorf(muster.NotFound, "none")
	}
	return err
}

func (m *memory) CustomEntries(ctx context.Context, list string, after muster.Source, limit int) (page []muster.CustomEntry, err error) {
	err = m.EachCustomEntry(ctx, list, func(e muster.CustomEntry) error {
		if e.Source.Compare(after) > 0 && len(page) < limit {
			page = append(page, e)
		}
		return nil
	})
	return page, err
}

func (m *memory) EachCustomEntry(_ context.Context, list string, fn func(muster.CustomEntry) error) error {
	done, err := m.in()
	defer done()
	if err != nil {
		return err
	}
	for _, s := range slices.SortedFunc(maps.Keys(m.entries[list]), muster.Source.Compare) {
		if err := fn(m.entries[list][s]); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) PutCustomEntries(_ context.Context, list string, entries []muster.CustomEntry, replace bool, most int, audit ...muster.AuditEntry) error {
	done, err := m.in(audit...)
	defer done()
	if err != nil {
		return err
	}
	if m.entries[list] == nil || replace {
		m.entries[list] = map[muster.Source]muster.CustomEntry{}
	}
	for _, e := range entries {
		m.entries[list][e.Source] = e
	}
	if len(m.entries[list]) > most {
		return muster.Errorf(muster.TooLarge, "too many")
	}
	return nil
}

func (m *memory) DeleteCustomEntries(_ context.Context, list string, sources []muster.Source, audit ...muster.AuditEntry) (int, error) {
	done, err := m.in(audit...)
	defer done()
	n := len(m.entries[list])
	for _, s := range sources {
		delete(m.entries[list], s)
	}
	return n - len(m.entries[list]), err
}

func (m *memory) DeleteEndedEntries(_ context.Context, now time.Time) (n int, err error) {
	done, err := m.in()
	defer done()
	for _, entries := range m.entries {
		for s, e := range entries {
			if !e.Until.IsZero() && !e.Until.After(now) {
				delete(entries, s)
				n++
			}
		}
	}
	return n, err
}

func (m *memory) FeedStates(context.Context) ([]muster.FeedState, error) {
	done, err := m.in()
	defer done()
	return slices.Collect(maps.Values(m.states)), err
}

func (m *memory) FeedEntries(_ context.Context, list string, held bool) ([]muster.Source, error) {
	done, err := m.in()
	defer done()
	return m.fetched[held][list], err
}

func (m *memory) PutFeed(_ context.Context, s muster.FeedState, inForce, held []muster.Source, audit ...muster.AuditEntry) error {
	done, err := m.in(audit...)
	defer done()
	if err != nil {
		return err
	}
	m.states[s.List] = s
	for isHeld, sources := range map[bool][]muster.Source{false: inForce, true: held} {
		if sources != nil {
			m.fetched[isHeld][s.List] = sources
		}
	}
	return nil
}

func (m *memory) PutListDays(_ context.Context, days []muster.ListDay) error {
	done, err := m.in()
	defer done()
	for _, d := range days {
		if m.days[d.List] == nil {
			m.days[d.List] = map[time.Time]muster.ListDay{}
		}
		m.days[d.List][d.Day] = d
	}
	return err
}

func (m *memory) ListDays(_ context.Context, list string, since time.Time) ([]muster.ListDay, error) {
	done, err := m.in()
	defer done()
	days := slices.SortedFunc(maps.Values(m.days[list]), func(a, b muster.ListDay) int { return a.Day.Compare(b.Day) })
	return slices.DeleteFunc(days, func(d muster.ListDay) bool { return d.Day.Before(since) }), err
}

func (m *memory) AddListHits(_ context.Context, hits []muster.ListHits) error {
	done, err := m.in()
	defer done()
	if err != nil {
		return err
	}
	for _, h := range hits {
		n := h.Count
		h.Count = 0
		m.hits[h] += n
	}
	return nil
}

func (m *memory) ListHits(_ context.Context, list string, since time.Time) (all []muster.ListHits, err error) {
	done, err := m.in()
	defer done()
	for h, n := range m.hits {
		if h.List == list && !h.Day.Before(since) {
			h.Count = n
			all = append(all, h)
		}
	}
	slices.SortFunc(all, func(a, b muster.ListHits) int { return cmp.Or(a.Day.Compare(b.Day), cmp.Compare(a.Unit, b.Unit)) })
	return all, err
}

func (m *memory) PruneListDays(_ context.Context, before time.Time) error {
	done, err := m.in()
	defer done()
	for _, days := range m.days {
		maps.DeleteFunc(days, func(day time.Time, _ muster.ListDay) bool { return day.Before(before) })
	}
	return err
}

// network is a Network.
type network struct {
	mu       sync.Mutex
	lists    map[muster.Audience][]muster.ListEntry
	reported map[string]map[muster.Source]struct{}
	versions map[muster.Audience]uint64
	reads    int
}

func (n *network) put(a muster.Audience, entries ...muster.ListEntry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lists[a] = entries
	n.versions[a]++
}

func (n *network) Each(a muster.Audience, fn func(muster.ListEntry) bool) {
	n.mu.Lock()
	n.reads++
	entries := n.lists[a]
	n.mu.Unlock()
	for _, e := range entries {
		if !fn(e) {
			return
		}
	}
}

func (n *network) Version(a muster.Audience) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.versions[a]
}

func (n *network) ReportedBy(_ context.Context, organisation string, _ time.Time) (map[muster.Source]struct{}, error) {
	return n.reported[organisation], nil
}

// machines is a Machines.
type machines struct {
	known map[string]muster.Machine
	plans map[string]muster.Plan
}

func (m *machines) Machine(id string) (muster.Machine, bool) {
	known, ok := m.known[id]
	return known, ok
}

func (m *machines) EachMachine(_ context.Context, fn func(muster.Machine) error) error {
	for _, known := range m.known {
		if err := fn(known); err != nil {
			return err
		}
	}
	return nil
}

func (m *machines) Plan(_ context.Context, organisation string) (muster.Plan, error) {
	return cmp.Or(m.plans[organisation], muster.Community), nil
}

// rig is a Service with its surroundings.
type rig struct {
	*Service
	store    *memory
	network  *network
	machines *machines
	orders   []string // "machine kind name", as issued
	refuse   error    // of orders
	answers  []func(feed.Request) (feed.Answer, error)
	requests []feed.Request

	mu      sync.Mutex
	now     time.Time
	forbid  map[muster.Source]bool
	allowed map[string]*policy.Allowlist
	version map[string]uint64
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{
		store:    newMemory(),
		network:  &network{lists: map[muster.Audience][]muster.ListEntry{}, versions: map[muster.Audience]uint64{}, reported: map[string]map[muster.Source]struct{}{}},
		machines: &machines{known: map[string]muster.Machine{}, plans: map[string]muster.Plan{}},
		now:      start, forbid: map[muster.Source]bool{}, allowed: map[string]*policy.Allowlist{}, version: map[string]uint64{},
	}
	r.Service = New(r.config(change...))
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) config(change ...func(*Config)) Config {
	cfg := Config{
		Store: r.store, Network: r.network, Machines: r.machines, Orders: r, Fetch: r, Now: r.clock, PublicURL: "https://muster.example.org/x/",
		Forbidden: func(s muster.Source) bool { r.mu.Lock(); defer r.mu.Unlock(); return r.forbid[s] },
		Allowlist: func(organisation string) (*policy.Allowlist, uint64) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.allowed[organisation], r.version[organisation]
		},
		Locate: func(a netip.Addr) (string, uint32) { // 11.CC.AS.x
			b := a.As4()
			return []string{"", "DE", "FR", "NL"}[b[1]%4], uint32(b[2])
		},
		Behaviour: func(scenario string) string {
			return map[string]string{"a/ssh-bf": "ssh:bruteforce", "a/ssh-cve": "ssh:exploit", "a/mail-bf": "pop3/imap:bruteforce", "b/http-scan": "http:scan"}[scenario]
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) advance(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

// allow gives an organisation an allowlist.
func (r *rig) allow(organisation, list string) {
	var entries []muster.AllowEntry
	for _, s := range sourcesOf(list) {
		entries = append(entries, muster.AllowEntry{Source: s})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.allowed[organisation] = policy.NewAllowlist(entries)
	r.version[organisation]++
}

// deny makes sources forbidden for everybody, and nothing else.
func (r *rig) deny(list string) {
	r.mu.Lock()
	clear(r.forbid)
	for _, s := range sourcesOf(list) {
		r.forbid[s] = true
	}
	r.mu.Unlock()
	r.Guarded()
}

func (r *rig) Issue(_ context.Context, o muster.Order) (muster.Order, error) {
	if r.refuse != nil {
		return o, r.refuse
	}
	r.orders = append(r.orders, fmt.Sprintf("%s %s %s", o.Machine, o.Kind, o.Message))
	return o, nil
}

// Fetch answers with what is next; when nothing is left, with an error.
func (r *rig) Fetch(_ context.Context, q feed.Request) (feed.Answer, error) {
	r.requests = append(r.requests, q)
	if len(r.answers) == 0 {
		return feed.Answer{}, errors.New("nothing to answer with")
	}
	next := r.answers[0]
	r.answers = r.answers[1:]
	return next(q)
}

// has lets the next fetch find entries.
func (r *rig) has(list, etag string) {
	r.answers = append(r.answers, func(feed.Request) (feed.Answer, error) {
		return feed.Answer{ETag: etag, Parsed: feed.Parsed{Format: feed.Plain, Sources: sourcesOf(list)}}, nil
	})
}

// carryOut does what Run does with what was enqueued, and returns the orders.
func (r *rig) carryOut(t testing.TB) []string {
	for {
		select {
		case next := <-r.tasks:
			r.tell(t.Context(), next)
		default:
			orders := r.orders
			r.orders = nil
			return orders
		}
	}
}

func (r *rig) create(t testing.TB, l muster.Blocklist) muster.Blocklist {
	t.Helper()
	made, err := r.Create(t.Context(), l, By{User: "jane"})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (r *rig) keep(t testing.TB, name, entries string) muster.Blocklist {
	t.Helper()
	l := r.create(t, muster.Blocklist{Name: name, Kind: muster.CustomList})
	if _, err := r.PutEntries(t.Context(), name, entriesOf(entries), true, By{User: "jane"}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (r *rig) machine(id, organisation string, tags ...string) {
	r.machines.known[id] = muster.Machine{ID: id, State: muster.Active, Organisation: organisation, Tags: tags}
	r.readers.mu.Lock()
	defer r.readers.mu.Unlock()
	r.readers.put(id, reader{organisation, tags})
}

func (r *rig) subscribe(t testing.TB, list string, kind muster.SubscriberKind, id, organisation string) {
	t.Helper()
	_, err := r.Subscribe(t.Context(), muster.Subscription{Blocklist: list, Subscriber: muster.Subscriber{Kind: kind, ID: id, Organisation: organisation}}, By{User: "jane"})
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) wantEntries(t testing.TB, what, list, organisation, want string) {
	t.Helper()
	l, err := r.List(list)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := r.Entries(t.Context(), l.ID, organisation)
	if err != nil {
		t.Fatal(err)
	}
	if joined(got) != want {
		t.Errorf("%s: got %q, want %q", what, joined(got), want)
	}
}

func wantCode(t testing.TB, what string, err error, code muster.Code, says string) {
	t.Helper()
	if muster.CodeOf(err) != code || !strings.Contains(fmt.Sprint(err), says) {
		t.Errorf("%s: got %v of code %q, want %q of code %q", what, err, muster.CodeOf(err), says, code)
	}
}

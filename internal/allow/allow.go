// Package allow keeps allowlists: the installation's, which nobody is ever sent
// anything of, and organisations', which hold for their own machines and
// integrations. It expands what engines do not know (AS, country, provider, host
// name) into addresses and ranges, hands lists to engines behind signed links,
// tells machines when a list of theirs changes, and takes lists back.
package allow

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"muster"
	"muster/internal/policy"
)

// Store keeps lists for all nodes. Writes are durable when they return and are
// kept together with their audit entries. What does not exist is of code
// NotFound.
type Store interface {
	Lists
	Withdrawals
	Answers
	// EnsureSecret stores value under name unless something is there already, and
	// returns what is there.
	EnsureSecret(ctx context.Context, name string, value []byte) ([]byte, error)
}

// Lists keeps lists and their items.
type Lists interface {
	Allowlists(ctx context.Context) ([]muster.Allowlist, error)
	// CreateAllowlist is of code Exists when the name is taken, TooLarge when the
	// owner has too many.
	CreateAllowlist(ctx context.Context, l muster.Allowlist, audit ...muster.AuditEntry) error
	// UpdateAllowlist lets change edit a list; code Exists when the name is taken.
	UpdateAllowlist(ctx context.Context, id string, change func(*muster.Allowlist) error, audit ...muster.AuditEntry) (muster.Allowlist, error)
	DeleteAllowlist(ctx context.Context, id string, audit ...muster.AuditEntry) error
	// EachAllowItem calls fn with every item of a list, "" = of all.
	EachAllowItem(ctx context.Context, list string, fn func(muster.AllowItem) error) error
	// PutAllowItems stores items, each in place of the one of its value; code
	// TooLarge when there would be too many.
	PutAllowItems(ctx context.Context, list string, at time.Time, items []muster.AllowItem, audit ...muster.AuditEntry) error
	// DeleteAllowItems forgets items by kind and value, all or none.
	DeleteAllowItems(ctx context.Context, list string, at time.Time, items []muster.AllowItem, audit ...muster.AuditEntry) error
	// DeleteExpiredAllowItems forgets items that have expired.
	DeleteExpiredAllowItems(ctx context.Context, now time.Time) (int, error)
}

// Withdrawals keeps which machines are to let go of which lists.
type Withdrawals interface {
	AllowWithdrawals(ctx context.Context) ([]muster.AllowWithdrawal, error)
	PutAllowWithdrawals(ctx context.Context, ws []muster.AllowWithdrawal) error
	DeleteAllowWithdrawals(ctx context.Context, ws []muster.AllowWithdrawal) error
}

// Answers keeps what names and providers stood for last, so that a restart
// without a network takes nothing off a list.
type Answers interface {
	EachAllowAnswer(ctx context.Context, fn func(name string, at time.Time, data []byte) error) error
	PutAllowAnswer(ctx context.Context, name string, at time.Time, data []byte) error
	DeleteAllowAnswer(ctx context.Context, name string) error
}

// Machines tells about machines.
type Machines interface {
	EachMachine(ctx context.Context, fn func(muster.Machine) error) error
	Machine(id string) (muster.Machine, bool) // from memory
	Plan(organisation string) muster.Plan     // from memory
}

// Orders instructs machines.
type Orders interface {
	Issue(ctx context.Context, o muster.Order) (muster.Order, error)
}

// Ranges tells which addresses AS and countries have. Without a database the
// error is of code Invalid and says how to get one. What is not in the database
// has no entry.
type Ranges interface {
	ASPrefixes(numbers []uint32) (map[uint32][]netip.Prefix, error)
	CountryPrefixes(codes []string) (map[string][]netip.Prefix, error)
}

// Resolver looks host names up.
type Resolver interface {
	// Resolve returns the addresses of a name, and for how long they hold; 0 = not
	// known. It gives up when ctx ends. Any error leaves what was known before.
	Resolve(ctx context.Context, name string) (addrs []netip.Addr, ttl time.Duration, err error)
}

// Fetcher reads the file of a provider's ranges; source is a path or a URL from
// the configuration. It bounds what it reads.
type Fetcher interface {
	Fetch(ctx context.Context, source string) ([]byte, error)
}

// Config sets up a Service. Zero values choose the defaults named.
type Config struct {
	Store    Store    // required
	Machines Machines // required
	Orders   Orders   // required
	Ranges   Ranges   // required
	Resolver Resolver // required
	Fetcher  Fetcher  // required with Clouds

	Clouds    map[string]string // path or URL of a provider's ranges, by the provider's name
	PublicURL string            // ends in "/"; links begin with it
	// Changed is told that something else is covered now; central: also for
	// everybody. It must not block.
	Changed func(central bool)
	// Ring tells other nodes to Reload; nil = there are none.
	Ring func()

	MaxRanges int           // addresses and ranges that one list may stand for; 0 = 20,000
	MaxHosts  int           // names looked up, of all lists; 0 = 2,000
	HostKeep  time.Duration // how long a name's last answer holds when none comes; 0 = 24 h
	OrderKeep time.Duration // how long orders wait for a machine; 0 = 24 h

	Now        func() time.Time // nil = time.Now
	Logger     *slog.Logger     // nil = discarded
	Registerer prometheus.Registerer
}

// Service keeps allowlists. Its methods are safe for concurrent use.
type Service struct {
	cfg  Config
	log  *slog.Logger
	key  atomic.Pointer[[]byte] // signs links; nil before Load
	snap atomic.Pointer[snapshot]
	next atomic.Uint64 // version of the next merged table

	changing sync.Mutex // held over store and memory while something is changed

	mu       sync.Mutex // guards what follows; snap is replaced under it
	lists    map[string]*list
	known    known
	readers  map[string]reader                   // active machines
	leaving  map[string][]muster.AllowWithdrawal // by machine
	leavings atomic.Int64                        // how many of them, for readers that hold no lock
	ended    struct{ any, central bool }         // what was taken off, and not told of
	untold   map[string]struct{}                 // lists that changed since machines were told
	told     map[string]time.Time                // when they were
	cleaned  time.Time                           // when expired items were last forgotten; tell's own

	wakeTell, wakeHosts, wakeClouds chan struct{}
	metrics                         metrics
}

// list is one list with its items as they are stored, expired ones too.
type list struct {
	muster.Allowlist
	items []muster.AllowItem
}

// reader is what decides which lists are for an active machine.
type reader struct {
	organisation string
	tags         []string
}

// New returns a Service without lists, until Load.
func New(cfg Config) *Service {
	if cfg.MaxRanges <= 0 {
		cfg.MaxRanges = 20_000
	}
	if cfg.MaxHosts <= 0 {
		cfg.MaxHosts = 2_000
	}
	if cfg.HostKeep <= 0 {
		cfg.HostKeep = 24 * time.Hour
	}
	if cfg.OrderKeep <= 0 {
		cfg.OrderKeep = 24 * time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Changed == nil {
		cfg.Changed = func(bool) {}
	}
	if cfg.Ring == nil {
		cfg.Ring = func() {}
	}
	s := &Service{
		cfg: cfg, log: cfg.Logger,
		lists: map[string]*list{}, known: newKnown(cfg.HostKeep), readers: map[string]reader{},
		leaving: map[string][]muster.AllowWithdrawal{}, untold: map[string]struct{}{}, told: map[string]time.Time{},
		wakeTell: make(chan struct{}, 1), wakeHosts: make(chan struct{}, 1), wakeClouds: make(chan struct{}, 1),
	}
	s.snap.Store(&snapshot{})
	s.metrics = newMetrics(s, cfg.Registerer)
	return s
}

const linkSecret = "allowlist-links"

// Load reads everything. Until it has returned, nothing is covered and links are
// refused.
func (s *Service) Load(ctx context.Context) error {
	fresh := make([]byte, 32)
	_, _ = rand.Read(fresh) // never fails
	key, err := s.cfg.Store.EnsureSecret(ctx, linkSecret, fresh)
	if err != nil {
		return fmt.Errorf("secret %s: %w", linkSecret, err)
	}
	if len(key) < 32 {
		return fmt.Errorf("secret %s: expected at least 32 bytes, got %d", linkSecret, len(key))
	}
	err = s.cfg.Machines.EachMachine(ctx, func(m muster.Machine) error {
		if m.State == muster.Active {
			s.readers[m.ID] = reader{m.Organisation, m.Tags}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the machines: %w", err)
	}
	leaving, err := s.cfg.Store.AllowWithdrawals(ctx)
	if err != nil {
		return fmt.Errorf("reading the allowlists to be withdrawn: %w", err)
	}
	s.mu.Lock()
	s.addLeaving(leaving)
	s.mu.Unlock()
	if err := s.loadAnswers(ctx); err != nil {
		return err
	}
	if err := s.Reload(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	clear(s.untold) // nothing has changed
	s.mu.Unlock()
	s.key.Store(&key)
	return nil
}

// Reload reads lists and items anew: another node, or another way into the
// database, has changed them.
func (s *Service) Reload(ctx context.Context) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	stored, err := s.cfg.Store.Allowlists(ctx)
	if err != nil {
		return fmt.Errorf("reading the allowlists: %w", err)
	}
	lists := make(map[string]*list, len(stored))
	for _, l := range stored {
		lists[l.ID] = &list{Allowlist: l}
	}
	err = s.cfg.Store.EachAllowItem(ctx, "", func(i muster.AllowItem) error {
		if l := lists[i.List]; l != nil {
			l.items = append(l.items, i)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the items of allowlists: %w", err)
	}
	s.learnRanges(lists)
	now := s.cfg.Now()
	s.mu.Lock()
	var differ []string
	for id, l := range lists {
		if was := s.lists[id]; was == nil || !was.same(l, now) {
			differ = append(differ, id)
		}
	}
	for id := range s.lists {
		if lists[id] == nil {
			differ = append(differ, id)
		}
	}
	s.lists = lists
	s.expectLocked()
	central, any := s.rebuildLocked(now, differ)
	s.untellLocked(differ)
	s.mu.Unlock()
	s.changed(central, any)
	return nil
}

// reloadList is Reload for one list, after this node has changed it; s.changing
// is held.
func (s *Service) reloadList(ctx context.Context, l muster.Allowlist, gone bool) error {
	fresh := &list{Allowlist: l}
	err := s.cfg.Store.EachAllowItem(ctx, l.ID, func(i muster.AllowItem) error {
		fresh.items = append(fresh.items, i)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the items of an allowlist: %w", err)
	}
	s.mu.Lock()
	if gone {
		delete(s.lists, l.ID)
	} else {
		s.lists[l.ID] = fresh
	}
	s.expectLocked()
	central, any := s.rebuildLocked(s.cfg.Now(), []string{l.ID})
	s.untellLocked([]string{l.ID})
	s.mu.Unlock()
	s.changed(central, any)
	s.cfg.Ring()
	return nil
}

// changed tells whoever holds what is covered.
func (s *Service) changed(central, any bool) {
	if any && s.key.Load() != nil { // not while loading
		s.cfg.Changed(central)
	}
}

// same reports whether nothing differs that machines are told: what has expired
// ends on them by itself.
func (l *list) same(other *list, now time.Time) bool {
	return l.Name == other.Name && l.Description == other.Description && slices.Equal(l.Targets, other.Targets) &&
		slices.EqualFunc(l.current(now), other.current(now), func(a, b muster.AllowItem) bool {
			return a.Value == b.Value && a.Reason == b.Reason && a.ExpiresAt.Equal(b.ExpiresAt)
		})
}

// current returns the items that have not expired.
func (l *list) current(now time.Time) []muster.AllowItem {
	var items []muster.AllowItem
	for _, i := range l.items {
		if i.ExpiresAt.IsZero() || now.Before(i.ExpiresAt) {
			items = append(items, i)
		}
	}
	return items
}

// Run keeps what names and providers stand for up to date, ends items on time
// and tells machines, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return loop(ctx, s.wakeTell, s.tell) })
	group.Go(func() error { return loop(ctx, s.wakeHosts, s.resolve) })
	group.Go(func() error { return loop(ctx, s.wakeClouds, s.fetch) })
	return group.Wait()
}

// loop calls step at once, whenever it is woken and when step said it wants to
// be called again.
func loop(ctx context.Context, wake <-chan struct{}, step func(context.Context) time.Duration) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-wake:
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		timer.Reset(step(ctx))
	}
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// For returns what must not reach a reader, a machine or an integration by its
// id, because of its own organisation's lists; nil for nothing. It knows expiry
// to the moment and does not allocate unless something has changed. The version
// stands for the content: two readers with the same version have the same list,
// 0 is the empty one. The installation's lists are not in it: they hold for
// everybody, see Central.
//
// A reader "" is what all of the organisation share, such as the body of a
// blocklist: every list of the organisation holds for it, whomever it is for.
// organisation is "" for machines that are not active.
func (s *Service) For(reader, organisation string, tags []string) (*policy.Allowlist, uint64) {
	if organisation == "" {
		return nil, 0
	}
	t := s.tenant(organisation)
	if t == nil {
		return nil, 0
	}
	m := t.merge(t.mask(reader, tags), &s.next)
	return m.list, m.version
}

// Central returns what the installation's lists cover, nil for nothing.
func (s *Service) Central() *policy.Allowlist {
	t := s.tenant("")
	if t == nil {
		return nil
	}
	return t.merge(t.all(), &s.next).list
}

// CentralEntries returns what is on the installation's lists now, each with its
// end.
func (s *Service) CentralEntries() []muster.AllowEntry {
	t := s.tenant("")
	if t == nil {
		return nil
	}
	return t.entries(t.all())
}

// tenant returns the lists of an organisation ("" = the installation), nil for
// none, without what has ended.
func (s *Service) tenant(organisation string) *tenant {
	t := s.snap.Load().tenants[organisation]
	if t == nil || t.next.IsZero() {
		return t
	}
	if now := s.cfg.Now(); !now.Before(t.next) {
		s.expire(now)
		return s.snap.Load().tenants[organisation]
	}
	return t
}

// expire takes off what has ended, and returns when the next thing does; zero =
// nothing will. Who is to be told is told by Run: whoever asks what is covered
// may hold locks.
func (s *Service) expire(now time.Time) time.Time {
	s.mu.Lock()
	var due []string
	for _, t := range s.snap.Load().tenants {
		if t.next.IsZero() || now.Before(t.next) {
			continue
		}
		for _, l := range t.tables {
			if !l.next.IsZero() && !now.Before(l.next) {
				due = append(due, l.ID)
			}
		}
	}
	central, any := s.rebuildLocked(now, due)
	s.ended.any, s.ended.central = s.ended.any || any, s.ended.central || central
	next := s.snap.Load().next
	s.mu.Unlock()
	return next
}

// tellEnded tells of what expire took off.
func (s *Service) tellEnded() {
	s.mu.Lock()
	ended := s.ended
	s.ended.any, s.ended.central = false, false
	s.mu.Unlock()
	s.changed(ended.central, ended.any)
}

// MachineChanged looks at a machine again after its organisation, tags or state
// have changed: lists that are not for it any more are withdrawn.
func (s *Service) MachineChanged(ctx context.Context, id string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	m, ok := s.cfg.Machines.Machine(id)
	var after reader
	if ok && m.State == muster.Active {
		after = reader{m.Organisation, m.Tags}
	}
	s.mu.Lock()
	before := s.readers[id]
	var gone []muster.AllowWithdrawal
	for _, l := range s.lists {
		if ok && l.reaches(id, before) && !l.reaches(id, after) {
			gone = append(gone, muster.AllowWithdrawal{Machine: id, List: l.ID, Name: l.Name, Since: s.cfg.Now().UTC()})
		}
	}
	s.mu.Unlock()
	if err := s.withdraw(ctx, gone); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if after.organisation == "" {
		delete(s.readers, id)
	} else {
		s.readers[id] = after
	}
	return nil
}

// MachinesChanged is MachineChanged for all of them.
func (s *Service) MachinesChanged(ctx context.Context) error {
	ids := map[string]struct{}{}
	err := s.cfg.Machines.EachMachine(ctx, func(m muster.Machine) error {
		ids[m.ID] = struct{}{}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	for id := range s.readers {
		ids[id] = struct{}{}
	}
	s.mu.Unlock()
	for id := range ids {
		if err := s.MachineChanged(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// reaches reports whether a list is delivered to a machine.
func (l *list) reaches(machine string, r reader) bool {
	return r.organisation != "" && l.Delivered() && l.For(machine, r.organisation, r.tags)
}

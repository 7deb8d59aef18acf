// Package catalog keeps blocklists and who subscribes to them: lists that rules
// choose from what the network has convicted, lists that people keep, and feeds
// that are fetched from others. Whatever leaves it is guarded: nothing that is
// reserved, allowlisted or known to be good is in any list.
package catalog

import (
	"cmp"
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

	"muster"
	"muster/internal/catalog/feed"
	"muster/internal/policy"
)

// Store keeps lists, their entries and subscriptions, for all nodes. Writes are
// durable when they return and are kept together with their audit entries. What
// does not exist is of code NotFound, what exists already of code Exists.
type Store interface {
	Secrets
	Lists
	Entries
	Feeds
	Statistics
}

// Secrets keeps the key that links are signed with.
type Secrets interface {
	// EnsureSecret stores value under name unless something is there already, and
	// returns what is there.
	EnsureSecret(ctx context.Context, name string, value []byte) ([]byte, error)
}

// Lists keeps lists and subscriptions.
type Lists interface {
	Blocklists(ctx context.Context) ([]muster.Blocklist, error)
	// CreateBlocklist is of code Exists when the name is taken.
	CreateBlocklist(ctx context.Context, l muster.Blocklist, audit ...muster.AuditEntry) error
	// UpdateBlocklist keeps all of l but its name, kind and creation.
	UpdateBlocklist(ctx context.Context, l muster.Blocklist, audit ...muster.AuditEntry) error
	// DeleteBlocklist deletes also entries, feed, statistics and subscriptions.
	DeleteBlocklist(ctx context.Context, id string, audit ...muster.AuditEntry) error

	Subscriptions(ctx context.Context) ([]muster.Subscription, error)
	// PutSubscription replaces the one of the same list and subscriber.
	PutSubscription(ctx context.Context, s muster.Subscription, audit ...muster.AuditEntry) error
	DeleteSubscription(ctx context.Context, list string, by muster.Subscriber, audit ...muster.AuditEntry) error
}

// Entries keeps the lines of custom lists.
type Entries interface {
	// CustomEntries returns a page in order of the sources, after being the last of
	// the page before.
	CustomEntries(ctx context.Context, list string, after muster.Source, limit int) ([]muster.CustomEntry, error)
	EachCustomEntry(ctx context.Context, list string, fn func(muster.CustomEntry) error) error
	// PutCustomEntries stores entries, each in place of the one for its source; or
	// none and an error of code TooLarge when the list would have more than most.
	// replace deletes all others.
	PutCustomEntries(ctx context.Context, list string, entries []muster.CustomEntry, replace bool, most int, audit ...muster.AuditEntry) error
	// DeleteCustomEntries returns how many of sources there were.
	DeleteCustomEntries(ctx context.Context, list string, sources []muster.Source, audit ...muster.AuditEntry) (int, error)
	// DeleteEndedEntries forgets entries that ended before now.
	DeleteEndedEntries(ctx context.Context, now time.Time) (int, error)
}

// Feeds keeps what was fetched.
type Feeds interface {
	FeedStates(ctx context.Context) ([]muster.FeedState, error)
	// FeedEntries returns what is in force, or what is held.
	FeedEntries(ctx context.Context, list string, held bool) ([]muster.Source, error)
	// PutFeed keeps the state; and entries in force or held unless they are nil.
	PutFeed(ctx context.Context, s muster.FeedState, inForce, held []muster.Source, audit ...muster.AuditEntry) error
}

// Statistics keeps counts by day.
type Statistics interface {
	PutListDays(ctx context.Context, days []muster.ListDay) error
	ListDays(ctx context.Context, list string, since time.Time) ([]muster.ListDay, error)
	// AddListHits adds to what is counted.
	AddListHits(ctx context.Context, hits []muster.ListHits) error
	ListHits(ctx context.Context, list string, since time.Time) ([]muster.ListHits, error)
	PruneListDays(ctx context.Context, before time.Time) error
}

// Network is what the network has convicted.
type Network interface {
	// Each calls fn with all that an audience has convicted, whatever the remedy,
	// until it returns false.
	Each(a muster.Audience, fn func(muster.ListEntry) bool)
	// Version changes whenever Each may give something else.
	Version(a muster.Audience) uint64
	// ReportedBy returns what an organisation's machines reported since a time.
	ReportedBy(ctx context.Context, organisation string, since time.Time) (map[muster.Source]struct{}, error)
}

// Machines tells about machines, from memory unless it says otherwise.
type Machines interface {
	Machine(id string) (muster.Machine, bool)
	// EachMachine calls fn with all machines, from the database, until it fails.
	EachMachine(ctx context.Context, fn func(muster.Machine) error) error
	// Plan returns an organisation's plan; it may ask the database.
	Plan(ctx context.Context, organisation string) (muster.Plan, error)
}

// Orders instructs machines.
type Orders interface {
	Issue(ctx context.Context, o muster.Order) (muster.Order, error)
}

// Config sets up a Service. Zero values choose the defaults named.
type Config struct {
	Store    Store    // required
	Network  Network  // required
	Machines Machines // required
	Orders   Orders   // required

	// Forbidden reports whether a source must never be sent to anybody: it is
	// allowlisted for the whole installation, or a canary. Call Guarded when it says
	// something else than before. Required.
	Forbidden func(muster.Source) bool
	// Allowlist returns what must not be sent to anybody of an organisation, beyond
	// Forbidden; the version stands for the content. nil = nothing.
	Allowlist func(organisation string) (list *policy.Allowlist, version uint64)
	// Locate tells where a source is: ISO 3166 alpha-2 and AS number, "" and 0 when
	// not known. nil = nothing is known.
	Locate          func(netip.Addr) (country string, asn uint32)
	Countries, ASNs bool // Locate knows them
	// Behaviour returns the family of a scenario ("ssh:bruteforce"), "" for none.
	Behaviour func(scenario string) string
	// Fetch fetches feeds; nil = no feed is fetched here.
	Fetch Fetcher

	MaxEntries       int                 // of one custom list; 0 = 200,000
	MaxSubscriptions map[muster.Plan]int // of one organisation; none or 0 = no limit
	PublicURL        string              // ends in "/"; links begin with it

	// Changed tells all nodes that lists, entries, feeds or subscriptions changed;
	// each then calls Refresh. nil = Refresh is called here.
	Changed    func(list string)
	Coalesce   time.Duration         // least time between two looks at what the network has convicted; 0 = 5 s
	Now        func() time.Time      // nil = time.Now
	Logger     *slog.Logger          // nil = discarded
	Registerer prometheus.Registerer // nil = no metrics
}

// Fetcher fetches and reads a feed.
type Fetcher interface {
	Fetch(ctx context.Context, q feed.Request) (feed.Answer, error)
}

// Service keeps the catalogue. All methods are safe for concurrent use.
type Service struct {
	cfg   Config
	log   *slog.Logger
	key   []byte // signs links
	state atomic.Pointer[state]
	tasks chan task // orders to issue, Run's

	loading    sync.Mutex    // of state, one at a time
	guard      atomic.Uint64 // grows whenever Forbidden says something else
	versions   atomic.Uint64 // hands out versions of content
	slots      sync.Map      // slotKey to *slot
	made       atomic.Pointer[links]
	feeding    sync.Mutex // one fetch at a time
	readers    readers
	statistics statistics

	withheld *prometheus.CounterVec
	fetches  *prometheus.CounterVec
	served   *prometheus.CounterVec
}

// state is lists and subscriptions as they were read last. It is not changed.
type state struct {
	lists       map[string]*muster.Blocklist // by id
	names       map[string]string            // ids by name
	by          map[muster.Subscriber][]muster.Subscription
	subscribers map[string][]muster.Subscription // by list
	feeds       map[string]muster.FeedState
	revisions   map[string]uint64 // by list, of its entries
}

// New returns a Service that has no lists until Load. It does no I/O.
func New(cfg Config) *Service {
	cfg.MaxEntries = cmp.Or(cfg.MaxEntries, 200_000)
	cfg.Coalesce = cmp.Or(cfg.Coalesce, 5*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Allowlist == nil {
		cfg.Allowlist = func(string) (*policy.Allowlist, uint64) { return nil, 0 }
	}
	if cfg.Locate == nil {
		cfg.Locate = func(netip.Addr) (string, uint32) { return "", 0 }
	}
	if cfg.Behaviour == nil {
		cfg.Behaviour = func(string) string { return "" }
	}
	s := &Service{
		cfg: cfg, log: cfg.Logger, tasks: make(chan task, maxTasks),
		withheld: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_blocklist_withheld_total", Help: "Entries of blocklists that were kept back, each time a list is put together: reserved, allowlisted or canaries.",
		}, []string{"list"}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_feed_fetches_total", Help: "Fetches of third-party lists by what came of them.",
		}, []string{"list", "outcome"}),
		served: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_blocklist_links_total", Help: "Requests for blocklists behind signed links, by answer.",
		}, []string{"answer"}),
	}
	s.state.Store(&state{})
	s.statistics.init()
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(s.withheld, s.fetches, s.served)
	}
	return s
}

// keyName is the secret that links are signed with.
const keyName = "blocklist-links"

// Load reads lists, subscriptions, machines and the key that links are signed
// with.
func (s *Service) Load(ctx context.Context) error {
	fresh := make([]byte, 32)
	if _, err := rand.Read(fresh); err != nil {
		return err
	}
	var err error
	if s.key, err = s.cfg.Store.EnsureSecret(ctx, keyName, fresh); err != nil {
		return fmt.Errorf("reading the key of blocklists' links: %w", err)
	}
	if err := s.loadReaders(ctx); err != nil {
		return fmt.Errorf("reading who reads blocklists: %w", err)
	}
	return s.Refresh(ctx, "")
}

// Refresh reads lists and subscriptions anew; of a list, by its id, also the
// entries, of all lists for "".
func (s *Service) Refresh(ctx context.Context, list string) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	lists, err := s.cfg.Store.Blocklists(ctx)
	if err != nil {
		return fmt.Errorf("reading the blocklists: %w", err)
	}
	subscriptions, err := s.cfg.Store.Subscriptions(ctx)
	if err != nil {
		return fmt.Errorf("reading the subscriptions: %w", err)
	}
	feeds, err := s.cfg.Store.FeedStates(ctx)
	if err != nil {
		return fmt.Errorf("reading the feeds: %w", err)
	}
	old := s.state.Load()
	st := &state{
		lists: map[string]*muster.Blocklist{}, names: map[string]string{}, by: map[muster.Subscriber][]muster.Subscription{},
		subscribers: map[string][]muster.Subscription{}, feeds: map[string]muster.FeedState{}, revisions: map[string]uint64{},
	}
	lists = append(lists, builtIn...)
	for i := range lists {
		l := &lists[i]
		st.lists[l.ID], st.names[l.Name] = l, l.ID
		st.revisions[l.ID] = old.revisions[l.ID]
		if list == "" || list == l.ID {
			st.revisions[l.ID]++
		}
	}
	for _, f := range feeds {
		st.feeds[f.List] = f
	}
	for _, sub := range subscriptions {
		if st.lists[sub.Blocklist] == nil {
			continue // a built-in list of another release
		}
		st.by[sub.Subscriber] = append(st.by[sub.Subscriber], sub)
		st.subscribers[sub.Blocklist] = append(st.subscribers[sub.Blocklist], sub)
	}
	s.state.Store(st)
	s.slots.Range(func(key, _ any) bool {
		if st.lists[key.(slotKey).list] == nil {
			s.slots.Delete(key)
		}
		return true
	})
	return nil
}

// changed makes all nodes read a list again, this one at once.
func (s *Service) changed(ctx context.Context, list string) error {
	err := s.Refresh(ctx, list)
	if s.cfg.Changed != nil {
		s.cfg.Changed(list)
	}
	return err
}

// Guarded makes every list be put together anew: Forbidden says something else
// than before.
func (s *Service) Guarded() { s.guard.Add(1) }

// Run looks at all lists once, and then issues orders and keeps counts of hits
// until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	if err := s.Observe(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("the blocklists could not be counted; they are soon", "error", err)
	}
	flush := time.NewTicker(time.Minute)
	defer flush.Stop()
	for {
		select {
		case t := <-s.tasks:
			s.tell(ctx, t)
		case <-flush.C:
			s.keepHits(ctx)
		case <-ctx.Done():
			s.keepHits(context.WithoutCancel(ctx))
			return nil
		}
	}
}

// instant is now as the store keeps times.
func (s *Service) instant() time.Time { return s.cfg.Now().UTC().Truncate(time.Microsecond) }

// Lists returns all lists in order of their names, those that Muster brings
// along last.
func (s *Service) Lists() []muster.Blocklist {
	st := s.state.Load()
	all := make([]muster.Blocklist, 0, len(st.lists))
	for _, l := range st.lists {
		all = append(all, *l)
	}
	slices.SortFunc(all, func(a, b muster.Blocklist) int {
		return cmp.Or(cmp.Compare(rank(&a), rank(&b)), cmp.Compare(a.Name, b.Name))
	})
	return all
}

func rank(l *muster.Blocklist) int {
	if BuiltIn(l.ID) {
		return 1
	}
	return 0
}

// List finds a list by its id or name; code NotFound.
func (s *Service) List(ref string) (muster.Blocklist, error) {
	st := s.state.Load()
	if l := st.lists[ref]; l != nil {
		return *l, nil
	}
	if l := st.lists[st.names[ref]]; l != nil {
		return *l, nil
	}
	return muster.Blocklist{}, muster.Errorf(muster.NotFound, "there is no blocklist %q: muster admin blocklist list shows all", clip(ref))
}

// FeedState returns how a feed stands, the zero FeedState before its first
// fetch.
func (s *Service) FeedState(list string) muster.FeedState { return s.state.Load().feeds[list] }

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

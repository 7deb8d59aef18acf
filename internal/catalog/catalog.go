// Package catalog keeps blocklists and who subscribes to them: lists that rules
// choose from what the network has convicted, lists that people keep, and feeds
// that are fetched from others. Whatever leaves it is guarded: nothing that is
// reserved, allowlisted or known to be good is in any list.
package catalog

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/policy"
	"muster/internal/wire"
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
	// Each calls fn with every entry of an audience's list until it returns false.
	Each(a muster.Audience, fn func(muster.ListEntry) bool)
	// Version changes whenever Each may give something else.
	Version(a muster.Audience) uint64
	// Softer calls fn with what is listed for the whole network with another remedy
	// than a ban.
	Softer(ctx context.Context, fn func(muster.ListEntry)) error
	// ListedSince returns what the network lists since a time or later.
	ListedSince(ctx context.Context, since time.Time) (map[muster.Source]struct{}, error)
	// ReportedBy returns what an organisation's machines reported since a time.
	ReportedBy(ctx context.Context, organisation string, since time.Time) (map[muster.Source]struct{}, error)
}

// Machines tells about machines, from memory unless it says otherwise.
type Machines interface {
	Machine(id string) (muster.Machine, bool)
	// Members returns the ids of an organisation's active machines, only those with
	// the tag unless it is empty. It may ask the database.
	Members(ctx context.Context, organisation, tag string) ([]string, error)
	// Plan returns an organisation's plan.
	Plan(organisation string) muster.Plan
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
	// allowlisted for the whole installation, or a canary. Required.
	Forbidden func(muster.Source) bool
	// Allowlist returns what must not be sent to a reader, beyond Forbidden; the
	// version changes with the content. nil = nothing.
	Allowlist func(machine, organisation string, tags []string) (list *policy.Allowlist, version uint64)
	// Locate tells where a source is: ISO 3166 alpha-2 and AS number, "" and 0 when
	// not known. nil = nothing is known.
	Locate func(netip.Addr) (country string, asn uint32)
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
	Now        func() time.Time      // nil = time.Now
	Logger     *slog.Logger          // nil = discarded
	Registerer prometheus.Registerer // nil = no metrics
}

// Fetcher fetches and reads a feed.
type Fetcher interface{}

// Service keeps the catalogue. All methods are safe for concurrent use.
type Service struct{ cfg Config }

// New returns a Service that has no lists until Load.
func New(cfg Config) (*Service, error) { return &Service{cfg: cfg}, nil }

// Load reads lists, subscriptions and the signing key.
func (s *Service) Load(ctx context.Context) error { return nil }

// Subscribed returns the lists that a subscriber itself subscribes to, with its
// remedy in place of the list's; of a machine not those of its tags and its
// organisation. The list of id muster.CommunityList may be among them.
func (s *Service) Subscribed(by muster.Subscriber) []muster.Blocklist { return nil }

// Entries returns what is on a list for a reader of an organisation ("" = the
// operators), without anything that is reserved, a canary or allowlisted, also
// by that organisation; in order of the addresses. The slice is shared: do not
// change it. The version changes with the content. Errors are of code NotFound
// for a list that is not there, or not for that organisation.
func (s *Service) Entries(ctx context.Context, list, organisation string) (entries []muster.ListEntry, version uint64, err error) {
	return nil, 0, nil
}

// Links returns the lists that a machine subscribes to, itself or by a tag or its
// organisation, for its pull. Lists that have nothing for it are left out.
func (s *Service) Links(machine, organisation string, tags []string) []wire.BlocklistLink { return nil }

// ServeLink answers GET and HEAD of /lists/{id}.
func (s *Service) ServeLink(w http.ResponseWriter, r *http.Request) {}

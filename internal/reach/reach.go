// Package reach serves what reads lists without being an engine: firewalls that
// fetch a file, and bouncers that speak as they do to an engine's local API
// (protocol.md 11).
package reach

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
)

// Store keeps integrations. Writes are durable when they return.
type Store interface {
	Integrations(ctx context.Context) ([]muster.Integration, error) // all of them
	// TouchIntegrations notes contacts by the ids of integrations; those that are
	// gone are passed over.
	TouchIntegrations(ctx context.Context, seen map[string]muster.IntegrationContact) error
	// PutIntegrationReport keeps a report in place of the one before from the same
	// address.
	PutIntegrationReport(ctx context.Context, r muster.IntegrationReport) error
}

// Community is what the network and each organisation's own fleet have
// convicted. Nothing that it returns is reserved, allowlisted for everybody or a
// canary.
type Community interface {
	// Each calls fn with every entry until it returns false.
	Each(a muster.Audience, fn func(muster.ListEntry) bool)
	// Lookup returns the entry that covers addr most narrowly.
	Lookup(a muster.Audience, addr netip.Addr) (muster.ListEntry, bool)
	// Version changes whenever Each would return something else.
	Version(a muster.Audience) uint64
}

// Catalogue knows the other lists, and who reads which.
type Catalogue interface {
	// Subscribed returns the lists of a subscriber, with the remedies that it
	// chose; the community list is muster.CommunityList. It does no I/O.
	Subscribed(s muster.Subscriber) []muster.Blocklist
	// Entries returns what is on a list for an organisation, and a version that
	// changes whenever that does. The caller does not change the slice.
	Entries(ctx context.Context, list, organisation string) ([]muster.ListEntry, uint64, error)
}

// Allowed is what one organisation allows itself.
type Allowed interface {
	Covers(s muster.Source) (reason string, ok bool)
}

// Config sets up a Service. Zero values choose the defaults named.
type Config struct {
	Store     Store     // required
	Community Community // required
	Catalogue Catalogue // required
	// Forbidden is the guard before every answer: what is allowlisted for everybody,
	// or a canary.
	Forbidden func(muster.Source) bool
	// Allowlist returns what an organisation allows itself, and a version that
	// changes whenever that does. nil = nobody allows anything.
	Allowlist func(organisation string) (Allowed, uint64)
	// WrongSecret counts a wrong password or key for an integration, which need not
	// exist. An error is what the client is answered: a ban. nil = not counted.
	WrongSecret func(addr netip.Addr, integration string) error
	// Addr says which address a client has, behind proxies too. nil = the
	// connection's.
	Addr       func(*http.Request) netip.Addr
	Now        func() time.Time // nil = time.Now
	Logger     *slog.Logger     // nil = discarded
	Registerer prometheus.Registerer
}

// Service answers integrations. Start it before use; Run keeps it.
type Service struct{ cfg Config }

// New returns a Service.
func New(cfg Config) *Service { return &Service{cfg} }

// Start reads the integrations.
func (s *Service) Start(context.Context) error { return nil }

// Run follows the lists and writes down contacts until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Refresh reads the integrations again.
func (s *Service) Refresh(context.Context) error { return nil }

// Invalidate looks at all lists again, because what is forbidden has changed.
func (s *Service) Invalidate() {}

// ServeHTTP answers everything under /v1/integrations/.
func (s *Service) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, errors.ErrUnsupported.Error(), http.StatusNotImplemented)
}

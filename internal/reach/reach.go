// Package reach serves what reads lists without being an engine: firewalls that
// fetch a file, and bouncers that speak as they do to an engine's local API
// (protocol.md 11).
package reach

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/ops"
)

// Store keeps integrations. Writes are durable when they return.
type Store interface {
	Integrations(ctx context.Context) ([]muster.Integration, error) // all of them
	// TouchIntegrations notes contacts by the ids of integrations; those that are
	// gone are passed over.
	TouchIntegrations(ctx context.Context, seen map[string]muster.IntegrationContact) error
	// PutIntegrationReport keeps a report in place of the one before from the same
	// address, from a bounded number of addresses.
	PutIntegrationReport(ctx context.Context, r muster.IntegrationReport) error
}

// Community is what the network and each organisation's own fleet have
// convicted. Nothing that it returns is reserved, allowlisted for everybody or a
// canary.
type Community interface {
	// Each calls fn with every entry until it returns false.
	Each(a muster.Audience, fn func(muster.ListEntry) bool)
	// Lookup returns the entry that covers addr most narrowly. It takes no longer
	// than a few loads from memory.
	Lookup(a muster.Audience, addr netip.Addr) (muster.ListEntry, bool)
	// Version changes whenever Each would return something else other than by time.
	Version(a muster.Audience) uint64
}

// Catalogue knows the other lists, and who reads which.
type Catalogue interface {
	// Subscribed returns the lists of a subscriber, with the remedies that it
	// chose; the network's own is muster.CommunityList. It does no I/O.
	Subscribed(s muster.Subscriber) []muster.Blocklist
	// Entries returns what is on a list for an organisation, and a version that
	// changes whenever that does. The slice is shared.
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
	// or a canary. Required.
	Forbidden func(muster.Source) bool
	// Allowlist returns what a reader's organisation allows itself, and a version
	// that changes with it; nil for nothing. nil = nobody allows anything.
	Allowlist func(integration, organisation string) (Allowed, uint64)
	// WrongSecret counts a wrong password or key for an integration, which need not
	// exist. An error is what the client is answered instead. nil = not counted.
	WrongSecret func(addr netip.Addr, integration string) error
	// Reported is given every report of a bouncer that is kept; nil = nobody is.
	Reported func(report []byte)
	// Addr says which address a client has, behind proxies too. nil = the
	// connection's.
	Addr       func(*http.Request) netip.Addr
	Now        func() time.Time      // nil = time.Now
	Logger     *slog.Logger          // nil = discarded
	Registerer prometheus.Registerer // nil = no metrics
}

// Service answers integrations. Start it before use; Run keeps it. Its methods
// are safe for concurrent use.
type Service struct {
	cfg        Config
	generation atomic.Uint64 // grows when what is forbidden may have changed

	integrations directory
	cursors      cursors

	mu      sync.Mutex
	tracked map[trackedKey]*tracked

	wrong  prometheus.Counter
	chosen prometheus.Histogram
}

// New returns a Service that knows no integrations until Start.
func New(cfg Config) *Service {
	if cfg.Allowlist == nil {
		cfg.Allowlist = func(string, string) (Allowed, uint64) { return nil, 0 }
	}
	if cfg.WrongSecret == nil {
		cfg.WrongSecret = func(netip.Addr, string) error { return nil }
	}
	if cfg.Addr == nil {
		cfg.Addr = connectionAddr
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, tracked: map[trackedKey]*tracked{}}
	s.integrations.byID = map[string]*reader{}
	s.cursors.at = map[cursorKey]cursor{}
	s.wrong = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "muster_integration_wrong_secrets_total", Help: "Requests to integrations with a wrong password or key.",
	})
	s.chosen = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "muster_firewall_build_seconds", Help: "Time to choose and write what a firewall is given, after something has changed.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
	})
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(s.wrong, s.chosen,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_integrations", Help: "Integrations."},
				func() float64 { return float64(s.integrations.size()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_bouncer_cursors", Help: "Bouncers that get what changed since their last pull."},
				func() float64 { return float64(s.cursors.size()) }))
	}
	return s
}

func connectionAddr(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.ParseAddr(host)
	return addr.Unmap()
}

// Start reads the integrations.
func (s *Service) Start(ctx context.Context) error { return s.Refresh(ctx) }

const (
	// writeEvery is how often contacts are written down.
	writeEvery = 30 * time.Second
	// lastWrite bounds the writing when the service ends.
	lastWrite = 5 * time.Second
)

// Run writes down contacts and forgets what nobody reads, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.write(ctx)
			s.forget()
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
			defer cancel()
			s.write(last)
			return nil
		}
	}
}

func (s *Service) write(ctx context.Context) {
	seen := s.integrations.seen()
	if len(seen) == 0 {
		return
	}
	if err := s.cfg.Store.TouchIntegrations(ctx, seen); err != nil {
		s.cfg.Logger.Warn("the last pulls of integrations were not written down; the next ones are", ops.KeyError, err)
	}
}

// Refresh reads the integrations again.
func (s *Service) Refresh(ctx context.Context) error {
	list, err := s.cfg.Store.Integrations(ctx)
	if err != nil {
		return err
	}
	s.integrations.replace(list)
	return nil
}

// Invalidate has all lists looked at again before the next answer, because what
// is forbidden has changed.
func (s *Service) Invalidate() { s.generation.Add(1) }

// The calls, as they are named in metrics and logs.
const (
	routeContent = "GET /v1/integrations/{id}/content"
	routeStream  = "GET /v1/integrations/{id}/v1/decisions/stream"
	routeLive    = "GET /v1/integrations/{id}/v1/decisions"
	routeUsage   = "POST /v1/integrations/{id}/v1/usage-metrics"
)

// Serves reports whether a path is below muster.IntegrationPath.
func Serves(path string) bool { return strings.HasPrefix(tidy(path)+"/", muster.IntegrationPath) }

// ServeHTTP answers everything below muster.IntegrationPath. It redirects nothing: bouncers are
// given an address with or without a slash at its end, and some double it.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, call, _ := strings.Cut(strings.TrimPrefix(tidy(r.URL.Path), muster.IntegrationPath), "/")
	rec := ops.RecordOf(r.Context())
	var serve func(http.ResponseWriter, *http.Request, string) error
	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	allow := "GET, HEAD"
	switch call {
	case "content", "content.txt": // Junos wants an address that ends in .txt
		rec.Route, serve = routeContent, s.content
	case "v1/decisions/stream":
		rec.Route, serve = routeStream, s.stream
	case "v1/decisions":
		rec.Route, serve = routeLive, s.live
	case "v1/usage-metrics":
		rec.Route, serve, allow = routeUsage, s.usage, "POST"
		get = r.Method == http.MethodPost
	default:
		rec.Route = "unknown"
		s.fail(w, r, muster.Errorf(muster.NotFound, "expected …/integrations/ID/content, or …/integrations/ID as the address of a bouncer's local API"))
		return
	}
	if !get {
		rec.Route = "other method"
		w.Header().Set("Allow", allow)
		write(w, http.StatusMethodNotAllowed, "application/json", appendMessage("expected "+allow))
		return
	}
	if err := serve(w, r, id); err != nil {
		s.fail(w, r, err)
	}
}

// tidy removes doubled slashes and one at the end.
func tidy(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return strings.TrimSuffix(path, "/")
}

// fail answers an error as an engine's local API does: {"message": …}.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	ops.RecordOf(r.Context()).Err = err
	status, message := http.StatusInternalServerError, "internal error: the server's log says more"
	var known *muster.Error
	if errors.As(err, &known) {
		message = known.Message
		if known.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((known.RetryAfter+time.Second-1)/time.Second)))
		}
		switch known.Code {
		case muster.Invalid:
			status = http.StatusUnprocessableEntity
		case muster.Unauthorized:
			status = http.StatusUnauthorized
		case muster.Forbidden, muster.Gone:
			status = http.StatusForbidden
		case muster.NotFound:
			status = http.StatusNotFound
		case muster.TooLarge:
			status = http.StatusRequestEntityTooLarge
		case muster.RateLimited:
			status = http.StatusTooManyRequests
		case muster.Unavailable:
			status = http.StatusServiceUnavailable
		}
	}
	write(w, status, "application/json", appendMessage(message))
}

func appendMessage(message string) []byte {
	return append(appendString([]byte(`{"message":`), message), '}')
}

func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that hangs up is no error here
}

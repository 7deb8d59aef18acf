// Package sieve is the filtering proxy between engines and any upstream Central
// API.
package sieve

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"muster"
	"muster/internal/history"
	"muster/internal/ops"
)

// History is what the API tells of alerts; *history.Service says what each method
// does.
type History interface {
	Alerts(ctx context.Context, q history.Query) ([]muster.SieveAlert, error)
	Alert(ctx context.Context, id int64) (muster.SieveAlert, error)
	HasNewer(than time.Time) bool
	Stats() history.Stats
	Distribution(since time.Time) history.Distribution
	DecisionStats(since time.Time) history.DecisionStats
}

// APIConfig sets up an API. Zero values choose the defaults named.
type APIConfig struct {
	History History // required
	// Key is what X-Api-Key must be. "" means one that nobody knows, so that the API
	// can be used by nobody.
	Key string
	// Addr tells the address that a request comes from; nil = the connection's.
	Addr   func(*http.Request) netip.Addr
	Now    func() time.Time // nil = time.Now
	Logger *slog.Logger     // nil = discarded
}

// APIRoutes are further endpoints, by method and pattern as http.ServeMux has
// them. What one returns is answered as JSON with status 200; an error of a code is
// answered with its message and what statusOf says, any other with 500.
type APIRoutes map[string]func(*http.Request) (any, error)

// API is the management API, compatible with that of CrowdSieve 0.5.1: /api behind
// the key, /health and /openapi.json open.
type API struct {
	cfg    APIConfig
	key    [sha256.Size]byte
	mux    *http.ServeMux
	limits strangers
}

//go:embed openapi.json
var openAPI []byte

// NewAPI returns the handler of /health, /openapi.json and /api/.
func NewAPI(cfg APIConfig, more ...APIRoutes) *API {
	if cfg.Addr == nil {
		cfg.Addr = connectionAddr
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Key == "" {
		var key [32]byte
		_, _ = rand.Read(key[:]) // it never fails
		cfg.Key = hex.EncodeToString(key[:])
		cfg.Logger.Warn("no key of the sieve's API is set, so nobody can use it: set DASHBOARD_API_KEY")
	}
	a := &API{cfg: cfg, key: sha256.Sum256([]byte(cfg.Key)), mux: http.NewServeMux()}
	a.cfg.Key = "" // it is needed no longer
	for _, routes := range append([]APIRoutes{{
		"GET /api/alerts":             a.alerts,
		"GET /api/alerts/{id}":        a.alert,
		"GET /api/stats":              a.stats,
		"GET /api/stats/distribution": a.distribution,
		"GET /api/stats/decisions":    a.decisionStats,
	}}, more...) {
		for pattern, serve := range routes {
			a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
				ops.RecordOf(r.Context()).Route = pattern
				answer, err := serve(r)
				a.answer(w, r, answer, err)
			})
		}
	}
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		ops.RecordOf(r.Context()).Route = "unknown"
		a.answer(w, r, nil, muster.Errorf(muster.NotFound, "Not found"))
	})
	return a
}

// connectionAddr is the other end of the connection.
func connectionAddr(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap()
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/health" && isRead(r):
		ops.RecordOf(r.Context()).Route = "GET /health"
		a.answer(w, r, map[string]string{"status": "ok", "timestamp": isoTime(a.cfg.Now())}, nil)
		return
	case r.URL.Path == "/openapi.json" && isRead(r):
		ops.RecordOf(r.Context()).Route = "GET /openapi.json"
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = w.Write(openAPI)
		return
	}
	if !a.knows(r.Header.Get("X-Api-Key")) {
		a.refuse(w, r)
		return
	}
	a.mux.ServeHTTP(w, r)
}

func isRead(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// knows compares in a time that tells nothing about the key, its length included.
func (a *API) knows(key string) bool {
	sum := sha256.Sum256([]byte(key))
	return subtle.ConstantTimeCompare(sum[:], a.key[:]) == 1
}

// refuse answers who has no key: so many times, then with 429.
func (a *API) refuse(w http.ResponseWriter, r *http.Request) {
	ops.RecordOf(r.Context()).Route = "unauthorized"
	if wait := a.limits.spend(a.cfg.Addr(r), a.cfg.Now()); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		a.answer(w, r, nil, muster.Errorf(muster.RateLimited, "Too many requests"))
		return
	}
	a.answer(w, r, nil, muster.Errorf(muster.Unauthorized, "Unauthorized"))
}

// statusOf returns the status that an error of the API is answered with.
func statusOf(err error) int {
	switch muster.CodeOf(err) {
	case muster.Invalid:
		return http.StatusBadRequest
	case muster.Unauthorized:
		return http.StatusUnauthorized
	case muster.Forbidden:
		return http.StatusForbidden
	case muster.NotFound:
		return http.StatusNotFound
	case muster.TooLarge:
		return http.StatusRequestEntityTooLarge
	case muster.RateLimited:
		return http.StatusTooManyRequests
	case muster.Unavailable: // a LAPI, or what an endpoint asks
		return http.StatusBadGateway
	}
	return http.StatusInternalServerError
}

// apiFailure is an error whose cause is for the log and whose message, which names
// nothing internal, for the client.
type apiFailure struct {
	message string
	cause   error
}

func (f *apiFailure) Error() string { return f.message + ": " + f.cause.Error() }
func (f *apiFailure) Unwrap() error { return f.cause }

func (a *API) answer(w http.ResponseWriter, r *http.Request, answer any, err error) {
	status := http.StatusOK
	if err != nil {
		status = statusOf(err)
		message := err.Error()
		if f := (*apiFailure)(nil); errors.As(err, &f) {
			status, message = http.StatusInternalServerError, f.message
		} else if status == http.StatusInternalServerError {
			message = "Internal server error"
		}
		if status == http.StatusInternalServerError {
			ops.RecordOf(r.Context()).Err = err
			a.cfg.Logger.Error("a request of the sieve's API failed", "path", r.URL.Path, "error", err)
		}
		answer = map[string]string{"error": message}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(answer) // the client has gone
}

// isoTime is how times are answered: UTC with three digits of a second.
func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// isoOrNull is null for the zero time.
func isoOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := isoTime(t)
	return &s
}

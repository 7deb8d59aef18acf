// Package console is the management side: the API that the command line and the
// web application speak, the web application itself, and the page where a
// machine that came without a key is claimed.
package console

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster"
	"muster/internal/enroll"
	"muster/internal/jury"
	"muster/internal/ops"
	"muster/internal/orders"
)

// Store is what the management API reads and writes. Writes are durable when
// they return; a missing thing is of code muster.NotFound.
type Store interface {
	Organisations(ctx context.Context) ([]muster.Organisation, error)
	CreateOrganisation(ctx context.Context, o muster.Organisation) error
	UpdateOrganisation(ctx context.Context, id string, change func(*muster.Organisation) error) (muster.Organisation, error)

	EnrolmentKeys(ctx context.Context, organisation string) ([]muster.EnrolmentKey, error)
	RevokeEnrolmentKey(ctx context.Context, id string, at time.Time) error

	Machines(ctx context.Context, q MachineQuery) ([]muster.Machine, error)
	MachineReport(ctx context.Context, machine, kind string) (body []byte, at time.Time, err error)

	AllowEntries(ctx context.Context, now time.Time) ([]muster.AllowEntry, error)
	PutAllowEntries(ctx context.Context, entries []muster.AllowEntry) error
	DeleteAllowEntry(ctx context.Context, source muster.Source) error

	Alerts(ctx context.Context, q AlertQuery) (alerts []muster.Signal, next string, err error)
	Verdicts(ctx context.Context, source muster.Source) ([]muster.Verdict, error)
	// VerdictHistory returns listings and ends of listings, newest first.
	VerdictHistory(ctx context.Context, source muster.Source, audience muster.Audience, limit int) ([]muster.Verdict, error)
	OperatorVerdicts(ctx context.Context, now time.Time) ([]muster.OperatorVerdict, error)
	PutOperatorVerdict(ctx context.Context, v muster.OperatorVerdict, audit muster.AuditEntry) error
	DeleteOperatorVerdict(ctx context.Context, source muster.Source, audit muster.AuditEntry) error
	// TrustEvents returns those of the machine of a number, newest first.
	TrustEvents(ctx context.Context, machine uint32, since time.Time, limit int) ([]muster.TrustEvent, error)
	Orders(ctx context.Context, machine string, since, now time.Time, limit int) ([]muster.Order, error)

	UserByName(ctx context.Context, name string) (muster.User, error)
	Users(ctx context.Context) ([]muster.User, error)
	CreateUser(ctx context.Context, u muster.User) error
	UpdateUserPassword(ctx context.Context, id, hash string) error
	// APITokenByHash returns a token with the user whom it acts for.
	APITokenByHash(ctx context.Context, hash []byte) (muster.APIToken, muster.User, error)
	CreateAPIToken(ctx context.Context, t muster.APIToken) error
	APITokens(ctx context.Context) ([]muster.APIToken, error)
	DeleteAPIToken(ctx context.Context, id string) error

	Audit(ctx context.Context, q AuditQuery) ([]muster.AuditEntry, error) // newest first
	PutAudit(ctx context.Context, entries ...muster.AuditEntry) error
}

// MachineQuery selects machines; zero fields select all.
type MachineQuery struct {
	Organisation string
	State        muster.MachineState
	Search       string // part of id or name
	After        string // id to go on after
	Limit        int
}

// AlertQuery selects stored signals; zero fields select all.
type AlertQuery struct {
	Organisation, Machine, Scenario string
	Source                          muster.Source
	Since, Until                    time.Time
	After                           string // cursor of the previous page
	Limit                           int
}

// Config sets up the API.
type Config struct {
	Store              Store
	Machines           *enroll.Service
	Orders             *orders.Service
	Abuse              Abuse
	Canaries           Canaries
	Allowlists         Allowlists
	Blocklists         Blocklists
	Unbans             Unbans // nil on a server that does not judge
	Judge              Judge  // likewise
	Integrations       Integrations
	IntegrationLists   IntegrationLists
	IntegrationContact func(id string) (muster.IntegrationContact, bool) // what this node knows of it; nil = nothing
	Lookups            Lookups
	LookupKeys         LookupKeys
	// ASN says in which AS an address is, 0 when it is not known; nil without a
	// database. Names says whether reverse names are looked up. Canaries of the kinds
	// that need them are refused without.
	ASN   func(netip.Addr) uint32
	Names bool
	// Truth is what people know about sources.
	Truth func() jury.Truth
	// Listing returns the network's listing of the narrowest source around an
	// address; code muster.NotFound for none.
	Listing func(ctx context.Context, addr netip.Addr) (muster.Verdict, error)
	Listed  func() int // how many are on the community list
	// ClientAddr tells the address that a request comes from; the zero Addr when
	// it is not known, as when it is nil.
	ClientAddr func(*http.Request) netip.Addr
	Appeal     string // whom a banned client may write to; "" for nobody
	// AllowlistChanged (which operators' verdicts are of), OrganisationsChanged and
	// CanariesChanged tell all nodes to read again.
	AllowlistChanged     func(ctx context.Context) error
	OrganisationsChanged func(ctx context.Context) error
	CanariesChanged      func(ctx context.Context) error // nil: nobody needs to know
	IntegrationsChanged  func(ctx context.Context) error // likewise
	LookupKeysChanged    func(ctx context.Context) error // likewise
	Hub                  Hub                             // nil: there is no mirror
	Bundles              Bundles                         // nil: bundles are not taken
	Status               func(ctx context.Context) any   // for GET /api/v1/status
	PublicURL            string                          // ends in "/"
	Version              string
	Now                  func() time.Time
}

// API is the management API under /api/v1.
type API struct {
	cfg Config
	mux *http.ServeMux
}

// NewAPI returns the handler.
func NewAPI(cfg Config) *API {
	a := &API{cfg: cfg, mux: http.NewServeMux()}
	for pattern, serve := range map[string]func(*http.Request) (any, error){
		"GET /api/v1/status": a.status,

		"GET /api/v1/organisations":        a.organisations,
		"POST /api/v1/organisations":       a.createOrganisation,
		"PATCH /api/v1/organisations/{id}": a.updateOrganisation,

		"GET /api/v1/keys":         a.keys,
		"POST /api/v1/keys":        a.createKey,
		"DELETE /api/v1/keys/{id}": a.revokeKey,

		"GET /api/v1/machines":                a.machines,
		"GET /api/v1/machines/{id}":           a.machine,
		"PATCH /api/v1/machines/{id}":         a.updateMachine,
		"GET /api/v1/machines/{id}/trust":     a.machineTrust,
		"POST /api/v1/machines/{id}/accept":   a.acceptMachine,
		"POST /api/v1/machines/{id}/block":    a.blockMachine,
		"POST /api/v1/machines/{id}/unblock":  a.unblockMachine,
		"POST /api/v1/machines/{id}/release":  a.releaseMachine,
		"DELETE /api/v1/machines/{id}":        a.removeMachine,
		"GET /api/v1/machines/{id}/orders":    a.ordersOf,
		"POST /api/v1/machines/{id}/orders":   a.issueOrder,
		"POST /api/v1/claims/{code}":          a.redeemClaim,
		"GET /api/v1/allowlist":               a.allowlist,
		"POST /api/v1/allowlist":              a.allow,
		"DELETE /api/v1/allowlist/{value...}": a.disallow,
		"GET /api/v1/allowlists":              a.allowlists,
		"POST /api/v1/allowlists":             a.createAllowlist,
		"GET /api/v1/allowlists/{id}":         a.allowlistNamed,
		"PATCH /api/v1/allowlists/{id}":       a.updateAllowlist,
		"DELETE /api/v1/allowlists/{id}":      a.deleteAllowlist,
		"GET /api/v1/allowlists/{id}/items":   a.allowItems,
		"POST /api/v1/allowlists/{id}/items":  a.putAllowItems,
		"GET /api/v1/allowed/{value...}":      a.allowed,
		"GET /api/v1/canaries":                a.canaries,
		"POST /api/v1/canaries":               a.addCanaries,
		"DELETE /api/v1/canaries":             a.dropCanaries,
		"POST /api/v1/canaries/import":        a.importCanaries,
		"DELETE /api/v1/canaries/{id...}":     a.removeCanary,
		"GET /api/v1/alerts":                  a.alerts,
		"GET /api/v1/sources/{value...}":      a.verdictsOn,
		"GET /api/v1/explain/{value...}":      a.explain,
		"GET /api/v1/verdicts":                a.operatorVerdicts,
		"POST /api/v1/verdicts":               a.decide,
		"DELETE /api/v1/verdicts/{value...}":  a.undecide,
		"GET /api/v1/network":                 a.network,
		"GET /api/v1/behaviours":              a.behaviours,
		"GET /api/v1/users":                   a.users,
		"POST /api/v1/users":                  a.createUser,
		"PUT /api/v1/users/{name}/password":   a.setPassword,
		"GET /api/v1/tokens":                  a.tokens,
		"POST /api/v1/tokens":                 a.createToken,
		"DELETE /api/v1/tokens/{id}":          a.deleteToken,
		"POST /api/v1/token-key/rotate":       a.rotateTokenKey,

		"DELETE /api/v1/allowlists/{id}/items/{value...}": a.removeAllowItem,

		"GET /api/v1/blocklists":                 a.blocklists,
		"POST /api/v1/blocklists":                a.createBlocklist,
		"GET /api/v1/blocklists/{id}":            a.blocklist,
		"PATCH /api/v1/blocklists/{id}":          a.updateBlocklist,
		"DELETE /api/v1/blocklists/{id}":         a.deleteBlocklist,
		"GET /api/v1/blocklists/{id}/entries":    a.blocklistEntries,
		"POST /api/v1/blocklists/{id}/entries":   a.addBlocklistEntries,
		"PUT /api/v1/blocklists/{id}/entries":    a.replaceBlocklistEntries,
		"DELETE /api/v1/blocklists/{id}/entries": a.removeBlocklistEntries,
		"POST /api/v1/blocklists/{id}/upload":    a.uploadBlocklist,
		"POST /api/v1/blocklists/{id}/fetch":     a.fetchFeed,
		"POST /api/v1/blocklists/{id}/approve":   a.approveFeed,
		"POST /api/v1/blocklists/{id}/discard":   a.discardFeed,
		"GET /api/v1/blocklists/{id}/statistics": a.blocklistStatistics,
		"GET /api/v1/subscriptions":              a.subscriptions,
		"POST /api/v1/subscriptions":             a.subscribe,
		"DELETE /api/v1/subscriptions":           a.unsubscribe,

		"GET /api/v1/integrations":              a.integrations,
		"POST /api/v1/integrations":             a.createIntegration,
		"GET /api/v1/integrations/{id}":         a.integration,
		"PATCH /api/v1/integrations/{id}":       a.updateIntegration,
		"DELETE /api/v1/integrations/{id}":      a.deleteIntegration,
		"POST /api/v1/integrations/{id}/rotate": a.rotateIntegration,
		"GET /api/v1/integration-formats":       a.integrationFormats,

		"GET /api/v1/lookup/{addr}":       a.lookUpAddress,
		"GET /api/v1/lookup-keys":         a.lookupKeys,
		"POST /api/v1/lookup-keys":        a.createLookupKey,
		"DELETE /api/v1/lookup-keys/{id}": a.revokeLookupKey,

		"GET /api/v1/hub":         a.hub,
		"GET /api/v1/hub/items":   a.hubItems,
		"POST /api/v1/hub/verify": a.verifyHub,
		"GET /api/v1/bundles":     a.bundles,

		unbanStandingRoute:                a.unbanStanding,
		unbanAskRoute:                     a.askUnban,
		"GET /api/v1/unbans":              a.listUnbans,
		"GET /api/v1/unbans/{id}":         a.showUnban,
		"POST /api/v1/unbans/{id}/grant":  a.grantUnban,
		"POST /api/v1/unbans/{id}/refuse": a.refuseUnban,

		standingRoute:                    a.standing,
		"GET /api/v1/bans":               a.bans,
		"POST /api/v1/bans":              a.addBan,
		"GET /api/v1/bans/{value...}":    a.ban,
		"DELETE /api/v1/bans/{value...}": a.liftBan,
		"GET /api/v1/limits":             a.limits,
		"PUT /api/v1/limits/{name}":      a.setLimit,
		"DELETE /api/v1/limits/{name}":   a.resetLimit,
		"GET /api/v1/overrides":          a.overrides,
		"POST /api/v1/overrides":         a.addOverride,
		"DELETE /api/v1/overrides/{id}":  a.removeOverride,
		"GET /api/v1/findings":           a.findings,
		"GET /api/v1/audit":              a.audit,
	} {
		a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			ops.RecordOf(r.Context()).Route = pattern
			answer, err := serve(r)
			a.answer(w, r, answer, err)
		})
	}
	a.mux.HandleFunc("GET "+exportPath, a.exportBundle)
	a.mux.HandleFunc("POST "+importPath, a.importBundle)
	a.mux.HandleFunc(dumpRoute, a.dump)
	a.mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		ops.RecordOf(r.Context()).Route = "unknown"
		a.answer(w, r, nil, muster.Errorf(muster.NotFound, "there is no %s %s in this API", r.Method, clip(r.URL.Path)))
	})
	return a
}

type callerKey struct{}

// Trusted serves requests that come over the administrator's socket: whoever
// can open it owns the data directory.
func (a *API) Trusted() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, "local administrator")))
	})
}

// public is what any client may ask about its own address, and for.
var public = []string{standingRoute, unbanStandingRoute, unbanAskRoute}

// ServeHTTP serves requests from the network: they need an API token, or a
// user's name and password, save for what is public.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, route := a.mux.Handler(r); slices.Contains(public, route) {
		a.mux.ServeHTTP(w, r)
		return
	}
	name, err := a.caller(r)
	if err != nil {
		if muster.CodeOf(err) == muster.Unauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="muster"`)
		}
		a.answer(w, r, nil, err)
		return
	}
	ops.RecordOf(r.Context()).User = name
	a.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, name)))
}

// caller authenticates a request. Programs use tokens; a password is taken so
// that the first administrator can make one from elsewhere.
func (a *API) caller(r *http.Request) (string, error) {
	if name, password, ok := r.BasicAuth(); ok {
		u, err := a.cfg.Store.UserByName(r.Context(), name)
		if err != nil && !errors.Is(err, muster.NotFound) {
			return "", err
		}
		// Unknown users cost the same: u.PasswordHash is empty then.
		if err := a.cfg.Machines.VerifyPassword(r.Context(), u.PasswordHash, password); err != nil {
			return "", err
		}
		return u.Name, nil
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return "", muster.Errorf(muster.Unauthorized, "expected an API token (Authorization: Bearer …): make one on the server with muster admin token create")
	}
	t, u, err := a.cfg.Store.APITokenByHash(r.Context(), hashToken(token))
	if errors.Is(err, muster.NotFound) || err == nil && !t.ExpiresAt.IsZero() && !a.cfg.Now().Before(t.ExpiresAt) {
		return "", muster.Errorf(muster.Unauthorized, "the API token is not known, or has expired")
	}
	return u.Name, err
}

func callerOf(r *http.Request) string {
	name, _ := r.Context().Value(callerKey{}).(string)
	return name
}

// answer writes a result, or an error as {"code","message"}.
func (a *API) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	status := http.StatusOK
	if err != nil {
		ops.RecordOf(r.Context()).Err = err
		status, v = problem(w, err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if v == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // the client hung up; nothing to do about it
}

func problem(w http.ResponseWriter, err error) (status int, body any) {
	var known *muster.Error
	if !errors.As(err, &known) {
		return http.StatusInternalServerError, map[string]string{"code": "internal", "message": "internal error: the server's log says more"}
	}
	if known.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(known.RetryAfter/time.Second)+1))
	}
	status = map[muster.Code]int{
		muster.Invalid: http.StatusBadRequest, muster.Unauthorized: http.StatusUnauthorized,
		muster.Forbidden: http.StatusForbidden, muster.NotFound: http.StatusNotFound,
		muster.Exists: http.StatusConflict, muster.Gone: http.StatusGone,
		muster.TooLarge: http.StatusRequestEntityTooLarge, muster.RateLimited: http.StatusTooManyRequests,
		muster.Unavailable: http.StatusServiceUnavailable, muster.Payment: http.StatusPaymentRequired,
	}[known.Code]
	if status == 0 {
		status = http.StatusInternalServerError
	}
	return status, map[string]string{"code": string(known.Code), "message": known.Message}
}

// maxBody bounds a management request; the largest is an allowlist import.
const maxBody = 8 << 20

// decode reads a JSON body strictly: an unknown field is a typing error that
// would otherwise be a silent no-op.
func decode(r *http.Request, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		var limit *http.MaxBytesError
		if errors.As(err, &limit) {
			return muster.Errorf(muster.TooLarge, "the body is larger than %d bytes", limit.Limit)
		}
		return muster.Errorf(muster.Invalid, "the body could not be read: %w", err)
	}
	if len(body) == 0 {
		return nil
	}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return muster.Errorf(muster.Invalid, "expected a JSON object: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return muster.Errorf(muster.Invalid, "expected the body to end after the JSON object, got more at byte %d", dec.InputOffset())
	}
	return nil
}

// maxTTL is 100 years in seconds; a time.Duration holds 292.
const maxTTL = 100 * 365 * 24 * 60 * 60

// lifetime reads a ttl_seconds; 0 = for ever.
func lifetime(seconds int64) (time.Duration, error) {
	if seconds < 0 || seconds > maxTTL {
		return 0, muster.Errorf(muster.Invalid, "ttl_seconds: expected 1 to %d, or 0 for no end, got %d", maxTTL, seconds)
	}
	return time.Duration(seconds) * time.Second, nil
}

// endOf returns when something with a lifetime that begins at start ends; zero =
// never.
func endOf(start time.Time, ttl time.Duration) time.Time {
	if ttl == 0 {
		return time.Time{}
	}
	return start.Add(ttl)
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

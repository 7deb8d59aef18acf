// Package edge is what engines talk to: the Central API in its versions 2 and 3
// and the polling API for orders (PAPI), with the statuses and shapes that real
// clients act on.
package edge

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster"
	"muster/internal/abuse"
	"muster/internal/enroll"
	"muster/internal/ingest"
	"muster/internal/misuse"
	"muster/internal/ops"
	"muster/internal/orders"
	"muster/internal/publish"
	"muster/internal/wire"
)

// Reports keeps what machines tell about themselves. The edge writes to it
// while the client waits, so that an acknowledged report is durable.
type Reports interface {
	// PutMachineReport keeps body as the machine's newest report of its kind,
	// "metrics" or "usage".
	PutMachineReport(ctx context.Context, machine, kind string, at time.Time, body []byte) error
	// AppendRemovals notes that a machine's operator deleted decisions, and rings
	// whoever keeps evidence.
	AppendRemovals(ctx context.Context, r muster.Removal) error
}

// Config sets up an Edge.
type Config struct {
	Machines  *enroll.Service
	Ingest    *ingest.Committer
	Publisher *publish.Publisher
	Orders    *orders.Service
	Reports   Reports
	Abuse     *abuse.Service
	Limits    Limits
	// Addr says which address a client has, behind proxies too; always a valid one.
	Addr func(*http.Request) netip.Addr
	// ASN says in which AS an address is, 0 when it is not known.
	ASN func(netip.Addr) uint32
	// Answer is what a client reads at the moment when it is banned; Gate has the
	// same for later.
	Answer abuse.Answer
	// Prefix is the path of the public URL ("/muster/"), for proxies that pass it
	// on; requests without it are served as well. "" or "/" for none.
	Prefix string
	// Fallback answers every path that is not the engines': the console.
	Fallback http.Handler
	Now      func() time.Time
}

// Limits bound every request. Zero values choose the defaults named.
type Limits struct {
	Body     int64         // bytes of a request body as sent; 0 = 16 MiB
	Decoded  int64         // bytes after decompression; 0 = 16 MiB
	Signals  int           // signals in one request; 0 = 10,000
	InFlight int64         // decoded bytes of all requests being read; 0 = 256 MiB
	Poll     time.Duration // longest long poll; 0 = 60 s
}

// Edge is the engines' HTTP handler.
type Edge struct {
	cfg       Config
	routes    map[string]map[string]route // path → method → route
	bodies    *bodies
	anonymous *bodies // of calls that need no token
}

// route is one call: its label in metrics and logs, what limits call it, and
// what serves it.
type route struct {
	name  string
	kind  string // name without the version
	serve func(http.ResponseWriter, *http.Request) error
}

// New returns the handler.
func New(cfg Config) *Edge {
	l := &cfg.Limits
	if l.Body <= 0 {
		l.Body = 16 << 20
	}
	if l.Decoded <= 0 {
		l.Decoded = 16 << 20
	}
	if l.Signals <= 0 {
		l.Signals = 10_000
	}
	if l.InFlight <= 0 {
		l.InFlight = 256 << 20
	}
	if l.Poll <= 0 {
		l.Poll = time.Minute
	}
	e := &Edge{
		cfg: cfg, routes: map[string]map[string]route{},
		bodies: newBodies(*l, cfg.Now), anonymous: newAnonymousBodies(*l, cfg.Now),
	}
	for _, version := range []publish.Version{publish.V2, publish.V3} {
		v := "/v" + strconv.Itoa(int(version))
		call := func(f func(http.ResponseWriter, *http.Request, publish.Version) error) func(http.ResponseWriter, *http.Request) error {
			return func(w http.ResponseWriter, r *http.Request) error { return f(w, r, version) }
		}
		e.handle("POST", v+"/watchers", e.register)
		e.handle("POST", v+"/watchers/login", e.login)
		e.handle("POST", v+"/watchers/enroll", e.enrol)
		e.handle("POST", v+"/watchers/reset", e.reset)
		e.handle("DELETE", v+"/watchers/self", e.unregister)
		e.handle("DELETE", v+"/watchers", e.unregister)
		e.handle("POST", v+"/signals", call(e.signals))
		e.handle("GET", v+"/decisions/stream", call(e.stream))
		e.handle("HEAD", v+"/decisions/stream", call(e.stream))
		e.handle("POST", v+"/decisions/delete", e.decisionsDelete)
		e.handle("POST", v+"/decisions/sync", e.decisionsSync)
		e.handle("POST", v+"/metrics", e.metrics)
		e.handle("POST", v+"/usage-metrics", e.usageMetrics)
		e.handle("GET", v+"/heartbeat", e.heartbeat)
		e.handle("HEAD", v+"/heartbeat", e.heartbeat)
	}
	e.handle("GET", "/v1/decisions/stream/poll", e.poll)
	e.handle("GET", "/v1/permissions", e.permissions)
	return e
}

func (e *Edge) handle(method, path string, serve func(http.ResponseWriter, *http.Request) error) {
	if e.routes[path] == nil {
		e.routes[path] = map[string]route{}
	}
	e.routes[path][method] = route{name: method + " " + path, kind: kindOf(method, path), serve: serve}
}

// kindOf names a call for limits: without the version, because a client must
// not have the double of what is allowed by using both.
func kindOf(method, path string) string {
	for _, v := range []string{"/v1", "/v2", "/v3"} {
		path = strings.TrimPrefix(path, v)
	}
	return method + " " + path
}

// Kinds returns what limits may count besides logins: every other call. A login
// is counted once its password told whose it is, as ratelimit.KindLogin.
func Kinds() []string {
	var kinds []string
	for _, methods := range New(Config{}).routes {
		for _, rt := range methods {
			if rt.kind != kindOf("POST", "/watchers/login") {
				kinds = append(kinds, rt.kind)
			}
		}
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// ServeHTTP finds the call by its exact path. There is no redirect anywhere: a
// 301 turns an engine's POST into a GET without a body, and it takes the answer
// for success (protocol.md 1.3).
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := e.path(r.URL.Path)
	methods, known := e.routes[path]
	if !known {
		if e.cfg.Fallback != nil && !isEngines(path) {
			if prefix := strings.TrimSuffix(e.cfg.Prefix, "/"); strings.HasPrefix(r.URL.Path, prefix+"/") {
				http.StripPrefix(prefix, e.cfg.Fallback).ServeHTTP(w, r)
			} else {
				e.cfg.Fallback.ServeHTTP(w, r)
			}
			return
		}
		ops.RecordOf(r.Context()).Route = "unknown"
		e.problem(w, r, muster.Errorf(muster.NotFound, "there is no %s here: this is a CrowdSec Central API, versions 2 and 3", clip(path)))
		return
	}
	rt, ok := methods[r.Method]
	if !ok {
		e.otherMethod(w, r, path, methods)
		return
	}
	rec := ops.RecordOf(r.Context())
	rec.Route = rt.name
	if e.cfg.Abuse.Counts(rt.kind) {
		r = r.WithContext(context.WithValue(r.Context(), countedKey{}, rt.kind))
	}
	if err := rt.serve(w, r); err != nil {
		e.problem(w, r, err)
	}
}

// countedKey finds the kind of a request that limits count.
type countedKey struct{}

// spend counts a request against the limits on its kind, as that of client.
func (e *Edge) spend(r *http.Request, client abuse.Client) error {
	if kind, ok := r.Context().Value(countedKey{}).(string); ok {
		return e.cfg.Abuse.Spend(kind, client)
	}
	return nil
}

// client is who makes a request, in the words of the limits.
func (e *Edge) client(r *http.Request, id *enroll.Identity) abuse.Client {
	return abuse.Client{
		Addr: e.cfg.Addr(r), Machine: id.Machine, Organisation: id.Organisation, Plan: id.Plan,
		Sharing: id.Sharing, Agent: r.UserAgent(),
	}
}

func (e *Edge) path(path string) string { return routePath(path, e.cfg.Prefix) }

// routePath brings a request's path into the form of the route table: without
// the public URL's prefix, doubled slashes and the trailing slash that Go
// engines add to /metrics/.
func routePath(path, prefix string) string {
	if p := strings.TrimSuffix(prefix, "/"); p != "" {
		if rest, ok := strings.CutPrefix(path, p); ok && strings.HasPrefix(rest, "/") {
			path = rest
		}
	}
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	return path
}

// isEngines reports whether path belongs to an engine's API, so that its errors
// must be JSON. Integrations and lookups share the versions with it, but are
// others' to answer.
func isEngines(path string) bool {
	for _, others := range []string{"/v1/integrations/", "/v2/smoke", "/v2/fire", "/v2/dump."} {
		if strings.HasPrefix(path, others) {
			return false
		}
	}
	return strings.HasPrefix(path, "/v1/") || strings.HasPrefix(path, "/v2/") || strings.HasPrefix(path, "/v3/")
}

// otherMethod answers OPTIONS, and refuses what the call does not know.
func (e *Edge) otherMethod(w http.ResponseWriter, r *http.Request, path string, methods map[string]route) {
	ops.RecordOf(r.Context()).Route = "other method"
	var allow []string
	for _, m := range []string{"GET", "HEAD", "POST", "DELETE"} {
		if _, ok := methods[m]; ok {
			allow = append(allow, m)
		}
	}
	w.Header().Set("Allow", strings.Join(append(allow, "OPTIONS"), ", "))
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	e.fail(w, path, http.StatusMethodNotAllowed, "expected "+strings.Join(allow, " or ")+" for "+path+", got "+clip(r.Method))
}

// problem answers an error. Engines act on the status, so the mapping is theirs
// (protocol.md 1.3); the text is for the person who reads their log.
func (e *Edge) problem(w http.ResponseWriter, r *http.Request, err error) {
	rec := ops.RecordOf(r.Context())
	rec.Err = err
	status, message := http.StatusInternalServerError, "internal error: the server's log says more"
	var banned *abuse.Banned
	if errors.As(err, &banned) {
		writeBan(w, e.path(r.URL.Path), e.cfg.Now(), e.cfg.Addr(r), &banned.Ban, e.cfg.Answer)
		return
	}
	var known *muster.Error
	if errors.As(err, &known) {
		status, message = statusOf(known.Code), known.Message
		if known.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((known.RetryAfter+time.Second-1)/time.Second)))
		}
	}
	if r.Context().Err() != nil && known == nil {
		// The client is gone, as at every restart of an engine that waits for
		// orders: nobody reads this, and it is no failure of ours.
		status, message, rec.Quiet = http.StatusServiceUnavailable, "the request was given up", true
	}
	e.fail(w, e.path(r.URL.Path), status, message)
}

// fail writes an error in the form of the API that path belongs to.
func (e *Edge) fail(w http.ResponseWriter, path string, status int, message string) {
	if strings.HasPrefix(path, "/v1/") {
		e.write(w, status, wire.AppendPAPIError(nil, message))
		return
	}
	e.write(w, status, wire.AppendError(nil, message, ""))
}

func statusOf(c muster.Code) int {
	switch c {
	case muster.Invalid:
		return http.StatusBadRequest
	case muster.Unauthorized:
		return http.StatusUnauthorized
	case muster.Forbidden, muster.Gone:
		return http.StatusForbidden
	case muster.NotFound:
		return http.StatusNotFound
	case muster.Exists:
		return http.StatusConflict
	case muster.TooLarge:
		return http.StatusRequestEntityTooLarge
	case muster.RateLimited:
		return http.StatusTooManyRequests
	case muster.Unavailable:
		return http.StatusServiceUnavailable
	case muster.Payment:
		return http.StatusPaymentRequired
	}
	return http.StatusInternalServerError
}

func (e *Edge) write(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A client that hangs up is the connection's business, not an error here.
	_, _ = w.Write(body)
}

func (e *Edge) ok(w http.ResponseWriter) error {
	e.write(w, http.StatusOK, okBody)
	return nil
}

var okBody = []byte(wire.OK)

// authenticate finds the machine behind a request, which is for what. SDKs send
// the raw token, engines "Bearer " before it.
func (e *Edge) authenticate(r *http.Request, what misuse.What) (enroll.Identity, error) {
	token := r.Header.Get("Authorization")
	if len(token) >= 7 && strings.EqualFold(token[:7], "bearer ") {
		token = token[7:]
	}
	id, err := e.cfg.Machines.Authenticate(r.Context(), strings.TrimSpace(token))
	client := e.client(r, &id)
	if over := e.spend(r, client); over != nil {
		return id, over
	}
	if err != nil {
		return id, err
	}
	e.cfg.Abuse.Seen(client, what)
	rec := ops.RecordOf(r.Context())
	rec.Machine, rec.Organisation = id.Machine, id.Organisation
	return id, nil
}

// authenticated finds the machine behind a request and then, for nobody else,
// reads its body; release must be called when body is no longer looked at.
func (e *Edge) authenticated(w http.ResponseWriter, r *http.Request, what misuse.What) (id enroll.Identity, body []byte, release func(), err error) {
	if id, err = e.authenticate(r, what); err != nil {
		return id, nil, nil, err
	}
	body, release, err = e.bodies.read(w, r)
	return id, body, release, err
}

// engineVersion reads the version out of "crowdsec/v1.7.8-linux"; other clients
// have none that means an engine's.
func engineVersion(r *http.Request) string {
	rest, ok := strings.CutPrefix(r.UserAgent(), "crowdsec/")
	if !ok {
		return ""
	}
	if i := strings.IndexAny(rest, " -"); i >= 0 {
		rest = rest[:i]
	}
	return clip(rest)
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

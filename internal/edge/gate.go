package edge

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster/internal/abuse"
	"muster/internal/ratelimit"
)

// GateConfig sets up a Gate.
type GateConfig struct {
	// Refuse reports whether the client of an address is banned; login, whether
	// the request is one that needs no token.
	Refuse func(addr netip.Addr, login bool) (ratelimit.Ban, bool)
	Addr   func(*http.Request) netip.Addr // the client's; must be valid
	// Direct reports whether the connection is the client's own, so that all that
	// comes on it is the client's. nil = never.
	Direct func(*http.Request) bool
	Prefix string // as in Config
	Answer abuse.Answer
	Now    func() time.Time
}

// Gate stands before everything else on the engines' listener: on every path
// of the Central API, banned clients are answered 403 here, and nothing is done
// for them: no body is read, no request recorded, no token looked at. Other
// paths pass, so that a banned client can read about its ban.
//
// The server must serve returned too: connections that the gate took over while
// their client was banned, and gives back. Closing it ends those that it has.
func Gate(next http.Handler, cfg GateConfig) (handler http.Handler, returned net.Listener) {
	g := &gate{cfg: cfg, next: next, refused: newRefused(cfg)}
	return g, g.refused
}

type gate struct {
	cfg     GateConfig
	next    http.Handler
	refused *refused
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := routePath(r.URL.Path, g.cfg.Prefix)
	if !isEngines(path) {
		g.next.ServeHTTP(w, r)
		return
	}
	addr := g.cfg.Addr(r)
	ban, refused := g.cfg.Refuse(addr, needsNoToken(path))
	if !refused {
		g.next.ServeHTTP(w, r)
		return
	}
	small := r.ContentLength >= 0 && r.ContentLength <= maxSkipped
	if small && g.cfg.Direct != nil && g.cfg.Direct(r) && g.refused.take(w, r, addr, ban) {
		return
	}
	if r.ContentLength != 0 {
		g.leaveBody(w, r)
	}
	writeBan(w, path, g.cfg.Now(), addr, &ban, g.cfg.Answer)
}

// needsNoToken reports whether a ban from logins is for this path: registering
// is but the step before.
func needsNoToken(path string) bool {
	return strings.HasSuffix(path, "/watchers/login") || strings.HasSuffix(path, "/watchers") || strings.HasSuffix(path, "/watchers/reset")
}

// Bodies up to maxSkipped bytes are skipped, so that the connection can be kept:
// a new one would cost more. It covers a login.
const (
	maxSkipped  = 32 << 10
	skipTimeout = 5 * time.Second
)

// leaveBody sees to it that a body which nobody reads is not waited for.
func (g *gate) leaveBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength < 0 || r.ContentLength > maxSkipped {
		w.Header()["Connection"] = closing
	}
	// Without a deadline a client could drip the rest for ever. It fails only on
	// connections that have none, as in tests.
	_ = http.NewResponseController(w).SetReadDeadline(g.cfg.Now().Add(skipTimeout))
}

// Header values that are the same for every answer.
var (
	closing     = []string{"close"}
	jsonContent = []string{"application/json"}
	noStore     = []string{"no-store"}
)

var banBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// writeBan answers a banned client, in the form of the API that path belongs to.
func writeBan(w http.ResponseWriter, path string, now time.Time, addr netip.Addr, ban *ratelimit.Ban, a abuse.Answer) {
	buf := banBuffers.Get().(*[]byte)
	defer banBuffers.Put(buf)
	body := a.Append((*buf)[:0], banField(strings.HasPrefix(path, "/v1/")), now, addr, ban)
	h := w.Header()
	h["Content-Type"] = jsonContent
	h["Cache-Control"] = noStore
	h["Retry-After"] = []string{strconv.FormatInt(abuse.RetryAfter(now, ban), 10)}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(http.StatusForbidden)
	_, _ = w.Write(body) // a client that hangs up has its answer
	*buf = body
}

// banField names the sentence of an error in the API that was called.
func banField(papi bool) string {
	if papi {
		return "error"
	}
	return "message"
}

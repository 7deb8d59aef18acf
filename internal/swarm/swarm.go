// Package swarm is a load generator: simulated watchers that register, log in,
// enrol, report, pull and send heartbeats over real HTTP, with bodies shaped
// like those of real engines. It talks to servers on this machine only.
//
// The generator usually shares its processors with the server that it
// measures, so what it does per request is cheap: bodies are appended from
// prepared parts, compressed at the fastest level and sent over connections of
// its own making (Conn).
//
// The loop of Run is closed: every connection sends its next request when the
// answer to the last one is there, so a slow server is offered less, and
// latencies are those of that many engines waiting at once. RunAbuse sets a
// closed loop of banned clients beside an open one of good watchers.
package swarm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Kind is what the watchers do.
type Kind string

// The kinds of load.
const (
	Ingest    Kind = "ingest"    // POST /v3/signals; the rate counts signals
	Pull      Kind = "pull"      // GET /v3/decisions/stream
	Login     Kind = "login"     // POST /v3/watchers/login
	Heartbeat Kind = "heartbeat" // GET /v3/heartbeat
	Abuse     Kind = "abuse"     // banned clients; by RunAbuse alone
	Verdict   Kind = "verdict"   // from a report to the list; by RunVerdict alone
	Live      Kind = "sources"   // evidence on many sources; by RunLive alone
)

// Valid reports whether k is a kind for Run.
func (k Kind) Valid() bool {
	return k == Ingest || k == Pull || k == Login || k == Heartbeat
}

// unit is what the rate of k counts.
func (k Kind) unit() string {
	switch k {
	case Ingest:
		return "signals/s"
	case Pull:
		return "pulls/s"
	case Login:
		return "logins/s"
	default:
		return "requests/s"
	}
}

// Config says what Run shall do. Zero values take the default named.
type Config struct {
	Kind Kind
	URL  string // of the server, "http://127.0.0.1:8600"; any path is a prefix
	Key  string // enrolment key that accepts at once

	Watchers    int           // simulated machines; 100
	Connections int           // concurrent connections, which share the watchers; 16
	Batch       int           // signals per request; 50, as engines do
	Duration    time.Duration // measured time; 10 s
	Warmup      time.Duration // load before it that is not measured; none
	List        int           // pull: addresses on the list that is pulled; 15,000
	// Published says that the server of a Pull has at least List addresses on its
	// list already, so that none have to be reported first.
	Published bool
	// Footprints are the scenarios that watchers declare, each one of these in turn;
	// none: eight that hardly differ.
	Footprints [][]string

	Sources int     // size of the pool of reported addresses; 50,000
	Skew    float64 // exponent of their popularity, over 1; 1.1
	Seed    uint64  // 0: a random one. The same seed makes the same machines

	// Usage reads what the server has used so far; nil when nobody knows.
	Usage func() (Usage, error)
	// Progress, when set, is called about once a second and at changes of phase,
	// from one goroutine.
	Progress func(Progress)
}

// Progress is a glance at a run.
type Progress struct {
	Phase   string // "enrolling", "publishing", "warming up", "measuring"
	Elapsed time.Duration
	Rate    float64 // since the phase began, in the unit of Result
	Unit    string
	Errors  int64
}

// Usage is what a process has used.
type Usage struct {
	CPU time.Duration // user and system, since it started
	RSS int64         // peak resident memory in bytes; the current one where the peak is not known
}

func (c Config) withDefaults() (Config, error) {
	if !c.Kind.Valid() {
		return c, fmt.Errorf("expected ingest, pull, login or heartbeat, got %q", c.Kind)
	}
	setDefault(&c.Watchers, 100)
	setDefault(&c.Connections, 16)
	setDefault(&c.Batch, 50)
	setDefault(&c.Duration, 10*time.Second)
	setDefault(&c.List, 15_000)
	setDefault(&c.Sources, 50_000)
	setDefault(&c.Skew, 1.1)
	switch {
	case c.Watchers < 0 || c.Watchers > 100_000:
		return c, fmt.Errorf("expected 1 to 100,000 watchers, got %d", c.Watchers)
	case c.Connections < 0 || c.Connections > 4096:
		return c, fmt.Errorf("expected 1 to 4,096 connections, got %d", c.Connections)
	case c.Batch < 0 || c.Batch > 5000:
		return c, fmt.Errorf("expected 1 to 5,000 signals per batch, got %d", c.Batch)
	case c.Duration < 0 || c.Duration > time.Hour || c.Warmup < 0 || c.Warmup > time.Hour:
		return c, fmt.Errorf("expected a duration and a warm-up of at most 1h, got %s and %s", c.Duration, c.Warmup)
	case c.List < 0 || c.List > maxSources || c.Sources < 0 || c.Sources > maxSources:
		return c, fmt.Errorf("expected at most %d sources and list entries, got %d and %d", maxSources, c.Sources, c.List)
	case c.Skew <= 1:
		return c, fmt.Errorf("expected a skew over 1, got %g", c.Skew)
	}
	return c, nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Target is a server on this machine.
type Target struct {
	addr   string // host:port to dial
	host   string // Host header
	prefix string // path before /v3, without trailing slash
}

// ErrNotLoopback refuses servers elsewhere: load is for one's own machine.
var ErrNotLoopback = errors.New("refusing to load a server that is not on this machine: expected a URL like http://127.0.0.1:8600")

// ParseTarget reads a server's URL. Only plain HTTP to a loopback address (or
// "localhost") is taken; everything else is ErrNotLoopback or a plain error.
func ParseTarget(raw string) (Target, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return Target{}, fmt.Errorf("expected a URL like http://127.0.0.1:8600, got %q", raw)
	}
	if u.Scheme != "http" {
		return Target{}, fmt.Errorf("expected a URL with http://, got %q: the generator speaks plain HTTP", raw)
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = "80"
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || !addr.IsLoopback() {
		return Target{}, fmt.Errorf("%w, got %q", ErrNotLoopback, raw)
	}
	return Target{
		addr:   net.JoinHostPort(host, port),
		host:   u.Host,
		prefix: strings.TrimRight(u.EscapedPath(), "/"),
	}, nil
}

// dial opens a TCP connection, from local when that is valid.
func (t Target) dial(ctx context.Context, local netip.Addr) (net.Conn, error) {
	d := net.Dialer{Timeout: requestTimeout}
	if local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	return d.DialContext(ctx, "tcp", t.addr)
}

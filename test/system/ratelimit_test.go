package system

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/internal/roles"
)

// limited runs a server that nobody is exempt from, behind a proxy on loopback
// that says who its clients are.
func limited(t *testing.T, change func(*roles.Config)) *server {
	t.Helper()
	return start(t, func(c *roles.Config) {
		c.RateLimit.Exempt, c.Proxies.Trusted, c.RateLimit.Appeal = nil, loopback, "abuse@muster.example"
		if change != nil {
			change(c)
		}
	})
}

// at returns a kind whose clients come from an address, through the proxy.
func at(k kind, addr string) kind {
	headers := map[string]string{"X-Forwarded-For": addr}
	for name, value := range k.headers {
		headers[name] = value
	}
	k.headers = headers
	return k
}

// banned is the answer to a banned client.
type banned struct {
	Message, Error, Code, Address, Scope, Limit, Reason, Look, Appeal string
	Until                                                             time.Time
	RetryAfter                                                        int  `json:"retry_after"`
	Extends                                                           bool `json:"extends_on_retry"`
	Check                                                             []string
}

func (a answer) banned(t *testing.T) banned {
	t.Helper()
	a.status(t, 403)
	var b banned
	if err := json.Unmarshal(a.body, &b); err != nil {
		t.Fatalf("%s: %v in %s", a.what, err, a.body)
	}
	if b.Code != "banned" || len(b.Check) == 0 || b.RetryAfter <= 0 || a.header.Get("Retry-After") != fmt.Sprint(b.RetryAfter) {
		t.Fatalf("%s: expected a ban, got %s (Retry-After %q)", a.what, a.body, a.header.Get("Retry-After"))
	}
	return b
}

// ban logs c in until it is banned, which must be at the given login.
func (c *client) loginUntilBanned(t *testing.T, at int) banned {
	t.Helper()
	for i := 1; ; i++ {
		a := c.tryLogin(t)
		if a.code == 200 && i < at {
			continue
		}
		if i != at {
			t.Fatalf("login %d: %d %s; expected the ban at login %d", i, a.code, a.body, at)
		}
		return a.banned(t)
	}
}

// The classes are read from the machine's own record. Registration logs nobody
// in; member's and registered's logins count.
func TestBanAtThe21stLogin(t *testing.T) {
	t.Parallel()
	s := limited(t, nil)
	s.admin(t, "POST", "/organisations", map[string]any{"name": "free", "plan": "COMMUNITY"}, nil)
	var orgs []struct{ ID, Name string }
	s.admin(t, "GET", "/organisations", nil, &orgs)
	free := ""
	for _, o := range orgs {
		if o.Name == "free" {
			free = o.ID
		}
	}
	for i, class := range []struct {
		name              string
		sharing, enrolled bool
	}{{"neither", false, false}, {"sharing", true, false}, {"enrolled", false, true}, {"both", true, true}} {
		t.Run(class.name, func(t *testing.T) {
			addr := fmt.Sprintf("198.51.100.%d", 10+i)
			c := s.client(at(engine178, addr))
			c.register(t).status(t, 200)
			logins := 20
			if class.enrolled || class.sharing {
				c.login(t) // of the class before
				if class.enrolled {
					c.enrol(t, s.key(t, free, true)).status(t, 201)
				}
			}
			if class.sharing {
				if class.enrolled {
					c.login(t) // enrolled, not sharing yet
				}
				c.post(t, "/signals", []signal{attack(address())}).status(t, 200) // kept from members only
			}
			b := c.loginUntilBanned(t, logins+1)
			if b.Address != addr || b.Scope != "all" || !b.Extends || !strings.HasPrefix(b.Message, "banned: "+addr+" is not served until ") ||
				!strings.Contains(b.Reason, "more than 20 logins in 50 minutes") || b.Appeal != "abuse@muster.example" {
				t.Errorf("got %+v", b)
			}
			if in := time.Until(b.Until); in < 59*time.Minute || in > time.Hour+time.Second { // told in whole seconds, rounded up
				t.Errorf("banned until %s, in %s: expected an hour", b.Until, in)
			}
		})
	}
}

// Every call of the Central API is refused to a banned address, before
// anything else is looked at, and no other path is.
func TestEveryRouteIsRefused(t *testing.T) {
	t.Parallel()
	s := limited(t, nil)
	const addr = "2001:db8:77::5"
	good := s.member(t, at(engine178, "198.51.100.77"), s.organisation(t))
	c := s.registered(t, at(engine178, addr))
	first := c.loginUntilBanned(t, 20)
	if first.Scope != "all" {
		t.Fatal(first)
	}
	for _, v := range []string{"/v2", "/v3"} {
		for _, call := range []string{
			"POST /watchers", "POST /watchers/login", "POST /watchers/enroll", "POST /watchers/reset", "DELETE /watchers/self", "DELETE /watchers",
			"POST /signals", "GET /decisions/stream", "POST /decisions/delete", "POST /decisions/sync", "POST /metrics/", "POST /usage-metrics",
			"GET /heartbeat", "GET /nothing/like/it",
		} {
			method, path, _ := strings.Cut(call, " ")
			var body []byte
			if method == "POST" {
				body = []byte("{not even JSON")
			}
			c.send(t, method, v+path, body, true).banned(t)
		}
	}
	for _, path := range []string{"/v1/permissions", "/v1/decisions/stream/poll?timeout=30"} {
		if b := c.get(t, path).banned(t); !strings.HasPrefix(b.Error, "banned: ") || b.Message != "" {
			t.Errorf("%s: expected the form of PAPI, got %+v", path, b)
		}
	}
	for _, path := range []string{"/healthz", "/api/v1/ban"} {
		c.get(t, path).status(t, 200)
	}
	// Asking about the ban does not prolong it; a request does.
	state := func() (b struct {
		Banned bool
		Until  time.Time
	},
	) {
		if err := json.Unmarshal(c.get(t, "/api/v1/ban").body, &b); err != nil || !b.Banned {
			t.Fatalf("%+v, %v", b, err)
		}
		return b
	}
	before := state()
	if again := state(); !again.Until.Equal(before.Until) {
		t.Errorf("asking moved the end from %s to %s", before.Until, again.Until)
	}
	c.get(t, "/v3/heartbeat").banned(t)
	if after := state(); !after.Until.After(before.Until) {
		t.Errorf("a retry left the end at %s", after.Until)
	}
	// Another /64 and everybody else go on.
	good.pull(t, "")
	s.registered(t, at(engine178, "2001:db8:77:1::5"))
}

// A large body is not waited for: the answer comes while the client still sends.
func TestBannedBodiesAreNotRead(t *testing.T) {
	t.Parallel()
	s := limited(t, nil)
	s.admin(t, "POST", "/bans", map[string]any{"address": "127.0.0.0/8", "reason": "test", "ttl_seconds": 3600}, nil)
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(s.url, "http://"), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /v3/signals HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: 16000000\r\n\r\n[")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 403 || !resp.Close {
		t.Errorf("answered %d, closing %t: expected 403 and the end of the connection", resp.StatusCode, resp.Close)
	}
}

func TestLiftedAndRestarted(t *testing.T) {
	t.Parallel()
	s := limited(t, nil)
	c := s.registered(t, at(engine178, "198.51.100.7"))
	c.loginUntilBanned(t, 20)
	eventually(t, "the ban is stored", func() string {
		var page struct{ Bans []struct{ Address string } }
		s.admin(t, "GET", "/bans", nil, &page)
		if len(page.Bans) != 1 {
			return fmt.Sprint(page)
		}
		return ""
	})
	s.restart(t)
	c.tryLogin(t).banned(t)
	s.admin(t, "DELETE", "/bans/198.51.100.7?reason="+url.QueryEscape("it was the health check"), nil, nil)
	c.loginUntilBanned(t, 21) // from the beginning
	var audit struct {
		Entries []struct{ Action, Subject, Reason string }
	}
	s.admin(t, "GET", "/audit", nil, &audit)
	if len(audit.Entries) != 1 || audit.Entries[0].Action != "ban.lift" || audit.Entries[0].Subject != "198.51.100.7/32" && audit.Entries[0].Subject != "198.51.100.7" ||
		audit.Entries[0].Reason != "it was the health check" {
		t.Errorf("audited: %+v", audit.Entries)
	}
	if status, text := s.tryAdmin(t, "DELETE", "/bans/203.0.113.1?reason=x", nil, nil); status != 404 {
		t.Errorf("lifting what is not banned: %d %s", status, text)
	}
}

// A fleet with a paid plan is never limited, whatever it does.
func TestEnterpriseFleetIsNeverLimited(t *testing.T) {
	t.Parallel()
	s := limited(t, nil)
	org := s.organisation(t) // ENTERPRISE
	// Its first logins, before it is enrolled, are nobody's: spread them.
	var fleet []*client
	for i := range 5 {
		fleet = append(fleet, s.member(t, at(engine178, fmt.Sprintf("198.51.100.%d", i+1)), org))
	}
	for range 20 {
		for _, c := range fleet {
			c.kind = at(engine178, "198.51.100.200") // all behind one NAT
			c.login(t)
		}
	}
}

// An override takes effect with the next login and ends by itself or by hand;
// a limit can be changed and turned off.
func TestPolicyChangesWithoutRestart(t *testing.T) {
	t.Parallel()
	s := limited(t, nil)
	c := s.registered(t, at(engine178, "198.51.100.9"))
	for range 19 { // and one when it registered
		c.login(t)
	}
	var o struct{ ID string }
	s.admin(t, "POST", "/overrides", map[string]any{"addresses": "198.51.100.0/24", "threshold": 25, "reason": "a lab"}, &o)
	c.loginUntilBanned(t, 26) // thresholds over 23 have a counter of their own
	s.admin(t, "DELETE", "/bans/198.51.100.9?reason=x", nil, nil)
	s.admin(t, "DELETE", "/overrides/"+o.ID+"?reason=x", nil, nil)
	c.loginUntilBanned(t, 21)
	s.admin(t, "DELETE", "/bans/198.51.100.9?reason=x", nil, nil)
	s.admin(t, "PUT", "/limits/login-not-sharing-not-enrolled", map[string]any{"threshold": 3}, nil)
	c.loginUntilBanned(t, 4)
	s.admin(t, "DELETE", "/bans/198.51.100.9?reason=x", nil, nil)
	s.admin(t, "PUT", "/limits/login-not-sharing-not-enrolled", map[string]any{"off": true}, nil)
	for range 50 {
		c.login(t)
	}
	// Any call can be limited: without a ban it is 429.
	s.admin(t, "PUT", "/limits/pulls", map[string]any{"kind": "GET /decisions/stream", "per": "machine", "threshold": 2, "window": "1h"}, nil)
	c.pull(t, "")
	c.pull(t, "")
	if a := c.get(t, "/v2/decisions/stream"); a.code != 429 || a.header.Get("Retry-After") == "" {
		t.Errorf("the third pull, over the other version: %d %s", a.code, a.body)
	}
	c.get(t, "/v3/heartbeat").status(t, 200)
}

func TestBanFromLoginsOnly(t *testing.T) {
	t.Parallel()
	s := limited(t, func(c *roles.Config) { c.RateLimit.Ban.Scope, c.RateLimit.Ban.ExtendOnRetry = "login", false })
	c := s.registered(t, at(engine178, "198.51.100.9"))
	b := c.loginUntilBanned(t, 20)
	if b.Scope != "login" || b.Extends {
		t.Errorf("got %+v", b)
	}
	c.pull(t, "") // with the token that it has
	c.register(t).banned(t)
	if again := c.tryLogin(t).banned(t); !again.Until.Equal(b.Until) {
		t.Errorf("a retry moved the end from %s to %s", b.Until, again.Until)
	}
}

func TestGuessedPasswords(t *testing.T) {
	t.Parallel()
	s := limited(t, nil)
	victim := s.registered(t, at(engine178, "198.51.100.9"))
	guesser := s.client(at(engine178, "203.0.113.66"))
	guesser.id = victim.id
	for range 10 {
		guesser.tryLogin(t).status(t, 401)
	}
	if b := guesser.tryLogin(t).banned(t); b.Scope != "login" || b.Limit != "wrong-password" {
		t.Errorf("got %+v", b)
	}
	victim.login(t)
}

// Headers of whoever is no trusted proxy change nothing: the connection's own
// address is counted.
func TestSpoofedHeadersDoNotHelp(t *testing.T) {
	t.Parallel()
	s := limited(t, func(c *roles.Config) { c.Proxies.Trusted = []muster.Source{loopbackNeighbour} })
	c := s.registered(t, engine178)
	for i := 2; ; i++ {
		c.kind = at(engine178, fmt.Sprintf("198.51.100.%d", i))
		c.headers["Forwarded"] = fmt.Sprintf("for=198.51.100.%d", i)
		c.headers["X-Real-IP"] = fmt.Sprintf("198.51.100.%d", i)
		a := c.tryLogin(t)
		if a.code == 200 && i <= 20 {
			continue
		}
		if b := a.banned(t); i != 21 || b.Address != "127.0.0.1" {
			t.Errorf("login %d: %+v", i, b)
		}
		return
	}
}

// loopbackNeighbour is an address on loopback that no test connects from.
var loopbackNeighbour = must(muster.ParseSource("127.99.99.99"))

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// What is behind a ban is found, and told: here a health check.
func TestFindingsExplainABan(t *testing.T) {
	t.Parallel()
	s := limited(t, nil)
	c := s.registered(t, at(engine178, "198.51.100.9"))
	b := c.loginUntilBanned(t, 20)
	var found struct {
		Findings []struct {
			Kind         muster.FindingKind
			Machine, Fix string
			Evidence     []string
		}
	}
	s.admin(t, "GET", "/findings", nil, &found)
	if len(found.Findings) == 0 || found.Findings[0].Machine != c.id || found.Findings[0].Fix == "" || len(found.Findings[0].Evidence) == 0 {
		t.Fatalf("findings: %+v", found.Findings)
	}
	var told struct {
		Findings []struct{ Summary, Fix string }
	}
	if err := json.Unmarshal(c.get(t, "/api/v1/ban").body, &told); err != nil || len(told.Findings) == 0 {
		t.Fatalf("told: %+v, %v", told, err)
	}
	if !strings.Contains(b.Reason, told.Findings[0].Summary) {
		t.Errorf("the ban says %q\nand not %q", b.Reason, told.Findings[0].Summary)
	}
	if strings.Contains(b.Reason, c.id) {
		t.Errorf("the ban names a machine to whoever is behind its address: %q", b.Reason)
	}
}

// Whatever is offered to be counted is counted: a limit on it refuses the second
// call, and one on anything else is refused itself.
func TestEveryKindCanBeLimited(t *testing.T) {
	t.Parallel()
	s := limited(t, nil)
	var offered struct{ Kinds []string }
	s.admin(t, "GET", "/limits", nil, &offered)
	if len(offered.Kinds) < 15 {
		t.Fatalf("limits can count %q", offered.Kinds)
	}
	for i, kind := range offered.Kinds {
		method, path, isCall := strings.Cut(kind, " ")
		if !isCall {
			continue // logins, which other tests count
		}
		c := s.registered(t, at(engine178, fmt.Sprintf("198.51.100.%d", i+1)))
		name := fmt.Sprintf("kind-%d", i)
		s.admin(t, "PUT", "/limits/"+name, map[string]any{"kind": kind, "per": "address", "threshold": 1, "window": "1h", "ban": "0"}, nil)
		version := "/v3"
		if strings.Contains(path, "poll") || path == "/permissions" {
			version = "/v1"
		}
		var last answer
		for range 2 {
			var body []byte
			if method == "POST" {
				body = []byte("{}")
			}
			last = c.send(t, method, version+path, body, true)
		}
		if last.code != 429 {
			t.Errorf("%s: the second call over a limit of one is answered %d", kind, last.code)
		}
		s.admin(t, "DELETE", "/limits/"+name, nil, nil)
	}
	if status, text := s.tryAdmin(t, "PUT", "/limits/no-such", map[string]any{"kind": "POST /watchers/login", "threshold": 1, "window": "1h"}, nil); status != 400 {
		t.Errorf("a limit on what is not counted: %d %s", status, text)
	}
}

package edge

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/internal/abuse"
	"muster/internal/ratelimit"
)

// gated runs a server whose gate refuses while banned is true; what passes is
// answered 200 with the request's method, path and body.
func gated(t testing.TB, direct bool) (addr string, banned *atomic.Bool, refused *refused) {
	t.Helper()
	banned = new(atomic.Bool)
	pass := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, body)
	})
	handler, returned := Gate(pass, GateConfig{
		Refuse: func(addr netip.Addr, login bool) (ratelimit.Ban, bool) {
			return ratelimit.Ban{Prefix: netip.PrefixFrom(addr, 32), Scope: ratelimit.ScopeAll, Reason: "test", Until: time.Now().Add(time.Hour)}, banned.Load()
		},
		Addr:   func(*http.Request) netip.Addr { return netip.MustParseAddr("192.0.2.1") },
		Direct: func(*http.Request) bool { return direct },
		Answer: abuse.Answer{Look: "https://m/api/v1/ban"}, Now: time.Now,
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 2)
	go func() { done <- srv.Serve(l) }()
	go func() { done <- srv.Serve(returned) }()
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-done; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		}
	})
	return l.Addr().String(), banned, returned.(*refusedConns)
}

// refusedConns names the type where a result has its name.
type refusedConns = refused

// talk sends requests on one connection and reads an answer to each.
type talk struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func dial(t testing.TB, addr string) *talk {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &talk{t, c, bufio.NewReader(c)}
}

func (k *talk) write(raw string) {
	k.t.Helper()
	if _, err := io.WriteString(k.conn, raw); err != nil {
		k.t.Fatal(err)
	}
}

// read returns the status and the body of the next answer.
func (k *talk) read() (status int, body string, closing bool) {
	k.t.Helper()
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		k.t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.Close
}

func (k *talk) want(raw string, status int, part string) {
	k.t.Helper()
	k.write(raw)
	if got, body, _ := k.read(); got != status || !strings.Contains(body, part) {
		k.t.Fatalf("%q: %d %s; expected %d with %q", raw, got, body, status, part)
	}
}

func postRaw(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: m\r\nUser-Agent: crowdsec/v1.7.8-linux\r\nContent-Length: %d\r\nAuthorization: Bearer x\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n%s", path, len(body), body)
}

func getRaw(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: m\r\nConnection: Keep-Alive\r\n\r\n"
}

// One connection all the while: refused, served when the ban is over, refused
// again; other paths served in between, and nothing lost on the way.
func TestRefusedConnection(t *testing.T) {
	addr, banned, refused := gated(t, true)
	k := dial(t, addr)
	k.want(postRaw("/v3/watchers/login", "{1}"), 200, "POST /v3/watchers/login {1}")
	banned.Store(true)
	k.want(postRaw("/v3/watchers/login", "{22}"), 403, `{"message":"banned: 192.0.2.1`)
	k.want(getRaw("/v3/decisions/stream?startup=true"), 403, `{"message":"banned: `)
	refused.mu.Lock()
	if len(refused.conns) != 1 {
		t.Errorf("%d connections taken over, expected this one", len(refused.conns))
	}
	refused.mu.Unlock()
	k.want(getRaw("/v1/permissions"), 403, `{"error":"banned: `)
	k.want(postRaw("/v2/signals/", strings.Repeat("x", maxSkipped)), 403, "banned")
	k.want(getRaw("/api/v1/ban"), 200, "GET /api/v1/ban")
	k.want(getRaw("/v3/heartbeat"), 403, "banned")
	// Two at once: the second waits in the buffer.
	k.write(getRaw("/v3/heartbeat") + postRaw("/v3/signals", "[]"))
	for range 2 {
		if status, _, _ := k.read(); status != 403 {
			t.Errorf("a pipelined request: %d", status)
		}
	}
	banned.Store(false)
	k.want(postRaw("/v3/signals", "[after]"), 200, "POST /v3/signals [after]")
	banned.Store(true)
	// What is not plain is net/http's, and refused all the same.
	k.write("HEAD /v3/decisions/stream HTTP/1.1\r\nHost: m\r\n\r\n")
	resp, err := http.ReadResponse(k.r, &http.Request{Method: http.MethodHead})
	if err != nil || resp.StatusCode != 403 {
		t.Fatalf("HEAD: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
	k.want(getRaw("/v3/heartbeat"), 403, "banned")
}

func TestWhatIsNotPlainIsRefusedToo(t *testing.T) {
	addr, banned, _ := gated(t, true)
	banned.Store(true)
	for _, raw := range []string{
		"POST /v3/signals HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
		"POST /v3/%73ignals HTTP/1.1\r\nHost: m\r\nContent-Length: 2\r\n\r\n[]",
		"POST http://m/v3/signals HTTP/1.1\r\nHost: m\r\nContent-Length: 2\r\n\r\n[]",
		"GET /v3/heartbeat HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n",
		"GET /v3/heartbeat HTTP/1.0\r\n\r\n",
		"GET /v3/heartbeat HTTP/1.1\r\nHost: m\r\nX-Long: " + strings.Repeat("x", 5000) + "\r\n\r\n",
		"POST /v3/signals HTTP/1.1\r\nHost: m\r\nContent-Length: 100000\r\n\r\n",
		"POST /v3/signals HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
	} {
		for _, before := range []string{"", getRaw("/v3/heartbeat")} { // taken over already, or not
			k := dial(t, addr)
			if before != "" {
				k.want(before, 403, "banned")
			}
			k.want(raw, 403, "banned")
		}
	}
	// Nonsense gets net/http's 400, also after a refusal.
	k := dial(t, addr)
	k.want(getRaw("/v3/heartbeat"), 403, "banned")
	k.want("NONSENSE\r\n\r\n", 400, "")
}

// Behind a proxy a connection carries many clients: none is taken over.
func TestProxiesConnectionsAreNotTakenOver(t *testing.T) {
	addr, banned, refused := gated(t, false)
	banned.Store(true)
	k := dial(t, addr)
	k.want(getRaw("/v3/heartbeat"), 403, "banned")
	refused.mu.Lock()
	defer refused.mu.Unlock()
	if len(refused.conns) != 0 {
		t.Error("taken over")
	}
}

func TestRefusedResponse(t *testing.T) {
	f := newRefused(GateConfig{Answer: abuse.Answer{Look: "https://m/"}})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ban := ratelimit.Ban{Scope: ratelimit.ScopeAll, Reason: strings.Repeat("r", 300), Until: now.Add(time.Minute)}
	raw := f.append(nil, false, now, netip.MustParseAddr("2001:db8::1"), &ban)
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || int64(len(body)) != resp.ContentLength || body[len(body)-1] != '}' {
		t.Errorf("%v; %d bytes of %d: %s", err, len(body), resp.ContentLength, body)
	}
	if resp.StatusCode != 403 || resp.Header.Get("Retry-After") != "60" || resp.Header.Get("Date") != "Sun, 01 Mar 2026 12:00:00 GMT" ||
		resp.Header.Get("Content-Type") != "application/json" || resp.Close {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

// Whatever parsePlain takes for plain, net/http reads the same way.
func FuzzPlain(f *testing.F) {
	for _, seed := range []string{
		getRaw("/v3/heartbeat"), postRaw("/v2/watchers/login", "{}"), getRaw("//v3//signals?x=1"), getRaw("/muster/v1/permissions"),
		"GET /v3/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "GET /v3/ HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
		"DELETE /v3/watchers HTTP/1.1\r\nhost:m\r\nConnection: keep-alive\r\n\r\n", "POST /v3/a HTTP/1.1\r\nHost: m\r\nContent-Length:  7 \r\n\r\n",
	} {
		f.Add([]byte(seed), "/muster/")
	}
	f.Fuzz(func(t *testing.T, raw []byte, prefix string) {
		in := bufio.NewReader(bytes.NewReader(raw))
		head, ok := peekHead(in)
		if !ok {
			return
		}
		p, ok := parsePlain(head, prefix)
		if !ok {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			t.Fatalf("plain, but %v: %q", err, head)
		}
		path := routePath(r.URL.Path, prefix)
		if r.Close || len(r.TransferEncoding) > 0 || r.ContentLength != int64(p.body) || r.ProtoMinor != 1 {
			t.Fatalf("plain with a body of %d, and net/http reads %+v", p.body, r)
		}
		if !isEngines(path) || needsNoToken(path) != p.login || strings.HasPrefix(path, "/v1/") != p.papi {
			t.Fatalf("plain as %+v, and net/http reads the path %q", p, path)
		}
	})
}

func BenchmarkRefused(b *testing.B) {
	f := newRefused(GateConfig{Answer: abuse.Answer{Look: "https://muster.example/api/v1/ban"}})
	head := []byte(strings.TrimSuffix(postRaw("/v3/watchers/login", "x"), "x"))
	now := time.Now()
	ban := ratelimit.Ban{Scope: ratelimit.ScopeAll, Reason: strings.Repeat("r", 200), Until: now.Add(time.Hour), Extend: time.Hour}
	addr := netip.MustParseAddr("192.0.2.1")
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		p, ok := parsePlain(head, "/")
		if !ok {
			b.Fatal("not plain")
		}
		out = f.append(out[:0], p.papi, now, addr, &ban)
	}
}

package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster"

	"github.com/google/go-cmp/cmp"
)

// refusals collects what a listener refuses.
type refusals struct {
	mu   sync.Mutex
	list []string
	c    chan string
}

func newRefusals() *refusals { return &refusals{c: make(chan string, 100)} }

func (r *refusals) add(from netip.Addr, reason Reason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, fmt.Sprintf("%v %s", from, reason))
	r.c <- r.list[len(r.list)-1]
}

func (r *refusals) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list
}

// whoServer answers with the client that it sees, behind a listener of mode and
// trust on loopback, with TLS on request.
func whoServer(t *testing.T, mode Mode, trust Trust, refused func(netip.Addr, Reason), overTLS bool) (addr string) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listener(inner, Config{Mode: mode, Trust: trust, Refused: refused})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, addrString(trust.Addr(r)))
	}))
	s.Listener.Close()
	s.Listener = l
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // failed handshakes are expected
	if overTLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return inner.Addr().String()
}

// dialFrom dials from an address of loopback.
func dialFrom(t *testing.T, local, to string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}, Timeout: 10 * time.Second}
	c, err := d.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Skipf("dialling from %s: %v (the whole of 127.0.0.0/8 is needed)", local, err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// ask sends a preface and a request with header lines; it returns the client
// that the server saw, or "closed".
func ask(t *testing.T, c net.Conn, preface string, lines ...string) string {
	t.Helper()
	request := "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + strings.Join(append(lines, ""), "\r\n") + "\r\n"
	if _, err := io.WriteString(c, preface+request); err != nil {
		return "closed"
	}
	answer, err := io.ReadAll(c)
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	if err != nil && len(answer) == 0 || len(answer) == 0 {
		return "closed"
	}
	if !strings.HasPrefix(head, "HTTP/1.1 200 ") {
		return head[:12]
	}
	return body
}

// TestOverLoopback: 127.0.0.3 is a trusted proxy, 127.0.0.2 is not.
func TestOverLoopback(t *testing.T) {
	trust := mustTrust(t, "", "127.0.0.3/32", "10.0.0.0/8")
	v2 := header2(0x21, 0x11, tcp4)
	const spoof = "X-Forwarded-For: 203.0.113.9"
	for _, c := range []struct {
		name    string
		mode    Mode
		from    string
		preface string
		lines   []string
		want    string
		refused string
	}{
		{name: "off", mode: Off, from: "127.0.0.3", lines: []string{spoof}, want: "203.0.113.9"},
		{name: "off, header", mode: Off, from: "127.0.0.3", preface: "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n", want: "HTTP/1.1 400"},
		{name: "off, spoofed", mode: Off, from: "127.0.0.2", lines: []string{spoof, "Forwarded: for=203.0.113.9", "X-Real-IP: 203.0.113.9"}, want: "127.0.0.2"},
		{name: "optional", mode: Optional, from: "127.0.0.3", preface: v2, want: "198.51.100.1"},
		{name: "optional, v1", mode: Optional, from: "127.0.0.3", preface: "PROXY TCP6 2001:db8::1 ::1 4711 443\r\n", want: "2001:db8::1"},
		{name: "optional, none", mode: Optional, from: "127.0.0.3", lines: []string{spoof}, want: "203.0.113.9"},
		{name: "optional, client spoofs", mode: Optional, from: "127.0.0.3", preface: v2, lines: []string{spoof}, want: "198.51.100.1"},
		{name: "optional, chain", mode: Optional, from: "127.0.0.3", preface: header2(0x21, 0x11, body2("10.0.0.2:1", "10.0.0.1:1")), lines: []string{spoof}, want: "203.0.113.9"},
		{name: "optional, local", mode: Optional, from: "127.0.0.3", preface: header2(0x20, 0, ""), want: "127.0.0.3"},
		{name: "optional, unknown client spoofs", mode: Optional, from: "127.0.0.3", preface: header2(0x21, 0, ""), lines: []string{spoof}, want: ""},
		{name: "optional, unix client spoofs", mode: Optional, from: "127.0.0.3", preface: header2(0x21, 0x31, unix), lines: []string{spoof}, want: ""},
		{name: "optional, spoofed", mode: Optional, from: "127.0.0.2", preface: v2, want: "HTTP/1.1 400"},
		{name: "optional, untrusted", mode: Optional, from: "127.0.0.2", lines: []string{spoof}, want: "127.0.0.2"},
		{name: "optional, malformed", mode: Optional, from: "127.0.0.3", preface: header2(0x21, 0x77, ""), want: "closed", refused: "127.0.0.3 malformed"},
		{name: "required", mode: Required, from: "127.0.0.3", preface: header2(0x21, 0x21, tcp6+strings.Repeat(tlvs, 99)), lines: []string{spoof}, want: "2001:db8::1"},
		{name: "required, none", mode: Required, from: "127.0.0.3", want: "closed", refused: "127.0.0.3 missing"},
		{name: "required, untrusted", mode: Required, from: "127.0.0.2", preface: v2, want: "closed", refused: "127.0.0.2 untrusted"},
		{name: "required, too large", mode: Required, from: "127.0.0.3", preface: header2(0x21, 0x11, strings.Repeat("x", maxBody2+1)), want: "closed", refused: "127.0.0.3 too_large"},
	} {
		for _, overTLS := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/tls=%v", c.name, overTLS), func(t *testing.T) {
				refused := newRefusals()
				client := dialFrom(t, c.from, whoServer(t, c.mode, trust, refused.add, overTLS))
				preface, want := c.preface, c.want
				if overTLS {
					if want == "HTTP/1.1 400" {
						t.Skip("a header before the handshake is refused by TLS")
					}
					if _, err := io.WriteString(client, preface); err != nil && want != "closed" {
						t.Fatal(err)
					}
					preface = ""
					client = tls.Client(client, &tls.Config{InsecureSkipVerify: true})
				}
				if got := ask(t, client, preface, c.lines...); got != want {
					t.Errorf("got client %q, want %q", got, want)
				}
				if c.refused != "" {
					if got := <-refused.c; got != c.refused {
						t.Errorf("got refused %q, want %q", got, c.refused)
					}
				}
				if want := strings.Fields(c.refused); len(refused.all()) != len(want)/2 {
					t.Errorf("refused %v, want %d", refused.all(), len(want)/2)
				}
			})
		}
	}
}

// TestReverseProxy: what a real HTTP proxy writes is understood, whatever the
// client sent to it.
func TestReverseProxy(t *testing.T) {
	trust := mustTrust(t, "", "127.0.0.3/32")
	backend := whoServer(t, Off, trust, nil, false)
	transport := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 3)}}).DialContext}
	defer transport.CloseIdleConnections()
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: backend})
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"] // appends to the client's, as most do
			r.SetXForwarded()
		},
	})
	defer proxy.Close()
	client := dialFrom(t, "127.0.0.2", proxy.Listener.Addr().String())
	if got := ask(t, client, "", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 127.0.0.3", "Forwarded: for=203.0.113.9"); got != "127.0.0.2" {
		t.Errorf("got client %q, want 127.0.0.2", got)
	}
}

// TestSlowPeersDoNotBlock: while many proxy connections hold their header back,
// others are served.
func TestSlowPeersDoNotBlock(t *testing.T) {
	trust := mustTrust(t, "", "127.0.0.3/32")
	addr := whoServer(t, Optional, trust, nil, false)
	slow := make([]net.Conn, 50)
	header := header2(0x21, 0x11, tcp4)
	for i := range slow {
		slow[i] = dialFrom(t, "127.0.0.3", addr)
		_, _ = io.WriteString(slow[i], header[:i%len(header)])
	}
	if got := ask(t, dialFrom(t, "127.0.0.2", addr), ""); got != "127.0.0.2" {
		t.Errorf("untrusted: got client %q", got)
	}
	if got := ask(t, dialFrom(t, "127.0.0.3", addr), header); got != "198.51.100.1" {
		t.Errorf("trusted: got client %q", got)
	}
	for i, c := range slow { // and so are they, once the rest comes
		if got := ask(t, c, header[i%len(header):]); got != "198.51.100.1" {
			t.Errorf("slow connection %d: got client %q", i, got)
		}
	}
}

// TestEarlyAnswerArrives: http.Server ends a connection with a request that it
// did not read so that the answer arrives; through the wrapper too.
func TestEarlyAnswerArrives(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listener(inner, Config{Mode: Required, Trust: mustTrust(t, "", "127.0.0.3/32")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := dialFrom(t, "127.0.0.3", inner.Addr().String())
	_, _ = io.WriteString(client, header2(0x21, 0x11, tcp4)+"hello")
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	_, _ = io.WriteString(server, "bye")
	if err := server.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(client); string(got) != "bye" || err != nil {
		t.Errorf("client: got %q, %v; want bye and the end", got, err)
	}
	_ = client.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(server); string(got) != "hello" || err != nil {
		t.Errorf("server: got %q, %v; want hello, which came behind the header", got, err)
	}
}

func TestListenerConfig(t *testing.T) {
	inner := &pipes{}
	if l, err := Listener(inner, Config{}); err != nil || l != net.Listener(inner) {
		t.Errorf("off: got %v, %v; want the listener itself", l, err)
	}
	for _, c := range []Config{{Mode: "on"}, {Mode: Optional}, {Mode: Required}} {
		if _, err := Listener(inner, c); muster.CodeOf(err) != muster.Invalid {
			t.Errorf("%+v: got error %v, want an invalid one", c, err)
		}
	}
}

// pipes accepts ends of net.Pipe that say that they come from an address.
type pipes struct{ c chan net.Conn }

func (p *pipes) Accept() (net.Conn, error) {
	c, open := <-p.c
	if !open {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p *pipes) Close() error   { return nil }
func (p *pipes) Addr() net.Addr { return unixClient }

type pipe struct {
	net.Conn
	remote net.Addr
}

func (p pipe) RemoteAddr() net.Addr { return p.remote }

// Read fails as a socket's does when this side has closed it.
func (p pipe) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if err == io.ErrClosedPipe {
		err = net.ErrClosed
	}
	return n, err
}

// accepted returns both ends of a trusted proxy's connection.
func accepted(t *testing.T, refused *refusals) (client, server net.Conn) {
	t.Helper()
	client, end := net.Pipe()
	inner := &pipes{make(chan net.Conn, 1)}
	inner.c <- pipe{end, tcpAddr(netip.MustParseAddr("10.0.0.1"), 80)}
	l, err := Listener(inner, Config{Mode: Optional, Trust: mustTrust(t, "", "10.0.0.0/8"), Timeout: 4 * time.Second, Refused: refused.add})
	if err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func TestTimeout(t *testing.T) {
	for _, sent := range []string{"", "PRO", header2(0x21, 0x11, tcp4)[:20], header2(0x21, 0x11, tcp4+tlvs)[:30]} {
		synctest.Test(t, func(t *testing.T) {
			refused := newRefusals()
			client, server := accepted(t, refused)
			go func() {
				for i := range sent { // each byte late, none late enough to wait for the next
					_, _ = io.WriteString(client, sent[i:i+1])
					time.Sleep(100 * time.Millisecond)
				}
			}()
			start := time.Now()
			if got := server.RemoteAddr().String(); got != "10.0.0.1:80" {
				t.Errorf("got address %s, want the proxy's", got)
			}
			if took := time.Since(start); took != 4*time.Second {
				t.Errorf("%q: gave up after %s, want 4s", sent, took)
			}
			if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got error %v, want a timeout", err)
			}
			if _, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("client: got error %v, want the end", err)
			}
			if diff := cmp.Diff([]string{"10.0.0.1 timeout"}, refused.all()); diff != "" {
				t.Errorf("refused (-want +got):\n%s", diff)
			}
		})
	}
}

// TestUsersDeadline: a deadline set before or while the header is read holds for
// it and for what is behind it; the header's own is forgotten.
func TestUsersDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := accepted(t, newRefusals())
		start := time.Now()
		_ = server.SetDeadline(start.Add(time.Hour))
		go func() { _, _ = io.WriteString(client, header2(0x21, 0x11, tcp4)) }()
		if got := server.RemoteAddr().String(); got != "198.51.100.1:4711" {
			t.Errorf("got address %s, want the client's", got)
		}
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Hour {
			t.Errorf("got error %v after %s, want a timeout after an hour", err, time.Since(start))
		}
		client.Close()
		server.Close()

		for _, later := range []bool{false, true} {
			client, server = accepted(t, newRefusals())
			start = time.Now()
			set := func() { _ = server.SetReadDeadline(start.Add(time.Second)) }
			if later {
				time.AfterFunc(time.Millisecond, set)
			} else {
				set()
			}
			if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("got error %v after %s, want a timeout after a second", err, time.Since(start))
			}
			client.Close()
		}
	})
}

// TestEnds: a connection that ends before its first byte is nobody's fault, as
// is one that this side closes.
func TestEnds(t *testing.T) {
	for _, c := range []struct {
		sent string
		own  bool // this side closes
		want []string
	}{
		{"", false, nil},
		{"", true, nil},
		{"PRO", true, nil},
		{"PRO", false, []string{"10.0.0.1 ended"}},
		{header2(0x21, 0x11, tcp4+strings.Repeat(tlvs, 40))[:400], false, []string{"10.0.0.1 ended"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			refused := newRefusals()
			client, server := accepted(t, refused)
			defer client.Close()
			go func() {
				_, _ = io.WriteString(client, c.sent)
				if c.own {
					server.Close()
				} else {
					client.Close()
				}
			}()
			if _, err := server.Read(make([]byte, 1)); err == nil {
				t.Errorf("%q: read without error", c.sent)
			}
			if diff := cmp.Diff(c.want, refused.all()); diff != "" {
				t.Errorf("%q: refused (-want +got):\n%s", c.sent, diff)
			}
		})
	}
}

// TestConcurrentUse: whoever asks first reads the header, all get the same
// answer, and no byte is lost or read twice.
func TestConcurrentUse(t *testing.T) {
	client, server := accepted(t, newRefusals())
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	context.AfterFunc(ctx, func() { server.Close() })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if got := server.RemoteAddr().String(); got != "198.51.100.1:4711" {
				t.Errorf("got address %s", got)
			}
		})
		wg.Go(func() { _ = server.SetReadDeadline(time.Now().Add(time.Minute)) })
	}
	sum := make(chan int, 3)
	for range cap(sum) {
		wg.Go(func() {
			total, b := 0, make([]byte, 3)
			for {
				n, err := server.Read(b)
				for _, v := range b[:n] {
					total += int(v)
				}
				if err != nil {
					if err != io.EOF {
						t.Errorf("read: %v", err)
					}
					sum <- total
					return
				}
			}
		})
	}
	_, _ = io.WriteString(client, header2(0x21, 0x11, tcp4)+strings.Repeat("\x01", 100))
	client.Close()
	wg.Wait()
	if got := <-sum + <-sum + <-sum; got != 100 {
		t.Errorf("read %d bytes behind the header, want 100", got)
	}
}

func BenchmarkConnection(b *testing.B) {
	trust := mustTrust(b, "", "10.0.0.0/8")
	remote := tcpAddr(netip.MustParseAddr("10.0.0.1"), 80)
	l := &listener{config: Config{Mode: Optional, Trust: trust, Timeout: time.Second}}
	in := header2(0x21, 0x11, tcp4) + "GET / HTTP/1.1\r\n\r\n"
	r := strings.NewReader(in)
	buf := make([]byte, 512)
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(in)
		c := &conn{Conn: memory{r, remote}, listener: l}
		c.RemoteAddr()
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// memory is a connection that has all of its bytes.
type memory struct {
	*strings.Reader
	remote net.Addr
}

func (m memory) RemoteAddr() net.Addr             { return m.remote }
func (m memory) LocalAddr() net.Addr              { return m.remote }
func (m memory) Write(b []byte) (int, error)      { return len(b), nil }
func (m memory) Close() error                     { return nil }
func (m memory) SetDeadline(time.Time) error      { return nil }
func (m memory) SetReadDeadline(time.Time) error  { return nil }
func (m memory) SetWriteDeadline(time.Time) error { return nil }

package swarm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// answering serves each connection by reading one request and writing raw, as
// often as requests come.
func answering(t testing.TB, raw string) Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 64<<10)
			for {
				if _, err := nc.Read(buf); err != nil {
					break
				}
				if _, err := io.WriteString(nc, raw); err != nil || strings.HasSuffix(raw, "\x00cut") {
					break
				}
			}
			_ = nc.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	return Target{addr: l.Addr().String(), host: "127.0.0.1"}
}

func TestConnReadsAnswers(t *testing.T) {
	for _, tc := range []struct {
		name, raw string
		want      Response
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"message\":\"OK\"}", Response{Status: 200, Body: []byte(`{"message":"OK"}`), Length: 16}},
		{"other case, gzip", "HTTP/1.1 201 Created\r\ncontent-LENGTH:3\r\nContent-Encoding: GZIP\r\n\r\nabc", Response{Status: 201, Body: []byte("abc"), Length: 3, Gzip: true}},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", Response{Status: 200, Body: []byte("abcde"), Length: 5}},
		{"more than kept", "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + strings.Repeat("abc", 10), Response{Status: 200, Body: []byte("abcabcabcabcabcabcab"), Length: 30}},
		{"more than kept, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\nabcabcabcabcabc\r\nf\r\nabcabcabcabcabc\r\n0\r\n\r\n", Response{Status: 200, Body: []byte("abcabcabcabcabcabcab"), Length: 30}},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", Response{Status: 204}},
		{"not modified with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Response{Status: 304}},
		{"continue first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Response{Status: 200}},
		{"closing", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", Response{Status: 200, Body: []byte("x"), Length: 1}},
		{"1.0", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", Response{Status: 200, Body: []byte("x"), Length: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := NewConn(answering(t, tc.raw))
			defer c.Close()
			for i := range 3 {
				got, err := c.Do(t.Context(), Request{Method: "GET", Path: "/", Keep: 20})
				if err != nil {
					t.Fatalf("request %d: %v", i, err)
				}
				if got.Status != tc.want.Status || string(got.Body) != string(tc.want.Body) || got.Length != tc.want.Length || got.Gzip != tc.want.Gzip {
					t.Fatalf("request %d: got %+v, want %+v", i, got, tc.want)
				}
			}
		})
	}
}

func TestConnRefusesBadAnswers(t *testing.T) {
	for name, raw := range map[string]string{
		"no HTTP":           "SSH-2.0-OpenSSH_9.2\r\n\r\n",
		"no status":         "HTTP/1.1 OK\r\n\r\n",
		"no length":         "HTTP/1.1 200 OK\r\n\r\n",
		"negative length":   "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"enormous length":   "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
		"enormous chunk":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
		"bad chunk":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"chunk too long":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
		"endless line":      "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 70<<10) + "\r\n\r\n",
		"too many headers":  "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", maxHeaders+1) + "\r\n",
		"cut in the body":   "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc\x00cut",
		"cut in the header": "HTTP/1.1 200 OK\r\nContent-Le\x00cut",
	} {
		t.Run(name, func(t *testing.T) {
			c := NewConn(answering(t, raw))
			defer c.Close()
			if res, err := c.Do(t.Context(), Request{Method: "GET", Path: "/", Keep: 20}); err == nil {
				t.Fatalf("got %+v, want an error", res)
			}
		})
	}
}

func TestConnSendsWhatEnginesSend(t *testing.T) {
	got := make(chan *http.Request, 1)
	body := make(chan string, 1)
	stub := newStub()
	stub.fail = func(r *http.Request) (int, string) {
		b, _ := io.ReadAll(r.Body)
		body <- string(b)
		got <- r
		return 200, ""
	}
	target, err := ParseTarget(startStub(t, stub) + "/some/prefix/")
	if err != nil {
		t.Fatal(err)
	}
	c := NewConn(target)
	defer c.Close()
	if _, err := c.Do(t.Context(), Request{Method: "POST", Path: "/v3/signals?x=1", Token: "a.b.c", Body: []byte("[]"), Gzip: true}); err != nil {
		t.Fatal(err)
	}
	if b := <-body; b != "[]" {
		t.Errorf("body %q", b)
	}
	req := <-got
	if req.URL.String() != "/some/prefix/v3/signals?x=1" || req.Host != target.host || req.ContentLength != 2 {
		t.Errorf("got %s of %s with %d bytes", req.URL, req.Host, req.ContentLength)
	}
	for name, want := range map[string]string{
		"User-Agent": "crowdsec/v1.7.8-linux", "Authorization": "Bearer a.b.c", "Content-Encoding": "gzip",
		"Content-Type": "application/json", "Accept-Encoding": "gzip",
	} {
		if v := req.Header.Get(name); v != want {
			t.Errorf("%s: got %q, want %q", name, v, want)
		}
	}
}

func TestConnEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := NewConn(answering(t, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")) // two bytes never come
	defer c.Close()
	stop := time.AfterFunc(20*time.Millisecond, cancel)
	defer stop.Stop()
	if _, err := c.Do(ctx, Request{Method: "GET", Path: "/"}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want that the context was cancelled", err)
	}
}

func TestTargetsAreLoopbackOnly(t *testing.T) {
	for raw, ok := range map[string]bool{
		"http://127.0.0.1:8600": true, "http://localhost:8600/": true, "http://[::1]:8600/x/": true, "http://127.9.9.9": true,
		"http://192.0.2.1:8600": false, "http://example.com": false, "http://0.0.0.0:8600": false, "https://127.0.0.1:8600": false,
		"127.0.0.1:8600": false, "": false, "http://localhost.example.com": false, "http://127.0.0.1@192.0.2.1/": false,
	} {
		if _, err := ParseTarget(raw); (err == nil) != ok {
			t.Errorf("%q: got %v, want accepted: %t", raw, err, ok)
		}
	}
	if _, err := Run(t.Context(), Config{Kind: Heartbeat, URL: "http://192.0.2.1:8600"}); !errors.Is(err, ErrNotLoopback) {
		t.Errorf("Run: got %v, want ErrNotLoopback", err)
	}
}

func FuzzConnRead(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"message\":\"OK\"}", 4)
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 100)
	f.Fuzz(func(t *testing.T, raw string, keep int) {
		keep = max(0, min(keep, 1<<16))
		c := NewConn(Target{})
		c.r.Reset(strings.NewReader(raw))
		res, _, err := c.read(keep)
		if err != nil {
			return
		}
		if len(res.Body) > keep || int64(len(res.Body)) > res.Length || res.Length > int64(len(raw)) || res.Status < 200 {
			t.Fatalf("read %+v of %q, keeping %d", res, raw, keep)
		}
	})
}

// BenchmarkRoundTrip compares Conn with net/http against a server in another
// process, by the processor time that this one spends per request.
func BenchmarkRoundTrip(b *testing.B) {
	s := startAsMuster(b)
	target, err := ParseTarget(s.URL)
	if err != nil {
		b.Fatal(err)
	}
	body := make([]byte, 8<<10)
	measure := func(b *testing.B, do func()) {
		b.ReportAllocs()
		before, err := ProcessUsage(os.Getpid())()
		if err != nil {
			b.Skip(err)
		}
		for b.Loop() {
			do()
		}
		after, _ := ProcessUsage(os.Getpid())()
		b.ReportMetric(float64((after.CPU-before.CPU).Microseconds())/float64(b.N), "cpu-µs/op")
	}
	b.Run("conn", func(b *testing.B) {
		c := NewConn(target)
		defer c.Close()
		measure(b, func() {
			if res, err := c.Do(b.Context(), Request{Method: "POST", Path: "/v3/signals", Body: body, Keep: keepAnswer}); err != nil || res.Status != 200 {
				b.Fatal(res, err)
			}
		})
	})
	b.Run("net-http", func(b *testing.B) {
		client := http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		measure(b, func() {
			req, err := http.NewRequestWithContext(b.Context(), "POST", s.URL+"/v3/signals", strings.NewReader(string(body)))
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer x")
			res, err := client.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		})
	})
}

func ExampleParseTarget() {
	_, err := ParseTarget("http://192.0.2.1")
	fmt.Println(err)
	// Output: refusing to load a server that is not on this machine: expected a URL like http://127.0.0.1:8600, got "http://192.0.2.1"
}

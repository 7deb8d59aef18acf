package feed

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func zipped(t testing.TB, content []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// source is a server that answers as paths say.
func source(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	text := func(path, body string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
	}
	text("/list", "11.0.0.1\n11.0.0.2\n")
	text("/page", "<html>no</html>")
	text("/huge", strings.Repeat("11.0.0.1\n", 200))
	mux.HandleFunc("/same", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Last-Modified", "Sat, 21 Nov 2026 06:00:00 GMT")
		if r.Header.Get("If-None-Match") == `"v1"` || r.Header.Get("If-Modified-Since") == "Sat, 21 Nov 2026 06:00:00 GMT" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, "11.0.0.1\n")
	})
	mux.HandleFunc("/zipped", func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			t.Error("expected that compression is asked for")
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(zipped(t, []byte("11.0.0.1\n")))
	})
	mux.HandleFunc("/list.gz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(zipped(t, []byte("11.0.0.1\n"))) })
	mux.HandleFunc("/bomb", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(zipped(t, make([]byte, 1<<20)))
	})
	mux.HandleFunc("/bomb.gz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(zipped(t, make([]byte, 1<<20))) })
	mux.HandleFunc("/busy", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "90")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	mux.HandleFunc("/gone", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	mux.HandleFunc("/unasked", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/list", http.StatusFound) })
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "11.0.0.1\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

func TestFetch(t *testing.T) {
	server := source(t)
	f := New(Config{Private: true, MaxBytes: 1000})
	for _, c := range []struct {
		path, want, problem string
		code                muster.Code
	}{
		{path: "/list", want: "11.0.0.1 11.0.0.2"},
		{path: "/zipped", want: "11.0.0.1"},
		{path: "/list.gz", want: "11.0.0.1"},
		{path: "/moved", want: "11.0.0.1 11.0.0.2"},
		{path: "/page", problem: "page in HTML", code: muster.Invalid},
		{path: "/huge", problem: "larger than 1000 bytes", code: muster.TooLarge},
		{path: "/bomb", problem: "larger than 1000 bytes", code: muster.TooLarge},
		{path: "/bomb.gz", problem: "larger than 1000 bytes", code: muster.TooLarge},
		{path: "/gone", problem: "answered with 410 Gone", code: muster.Unavailable},
		{path: "/unasked", problem: "answered with 304", code: muster.Unavailable},
		{path: "/round", problem: "redirects more than 3 times", code: muster.Invalid},
		{path: "/file", problem: "expected one like https://example.org", code: muster.Invalid},
	} {
		t.Run(c.path, func(t *testing.T) {
			got, err := f.Fetch(t.Context(), Request{URL: server.URL + c.path + "?key=secret", Max: 10})
			if c.problem == "" {
				if err != nil || joined(got.Sources) != c.want {
					t.Fatalf("got %q, %v", joined(got.Sources), err)
				}
				return
			}
			if muster.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.problem) {
				t.Errorf("got %v of code %q, want %q of code %q", err, muster.CodeOf(err), c.problem, c.code)
			}
			if strings.Contains(fmt.Sprint(err), "secret") {
				t.Errorf("the URL's key is told: %v", err)
			}
		})
	}
	_, err := New(Config{Private: true, Timeout: 100 * time.Millisecond}).Fetch(t.Context(), Request{URL: server.URL + "/slow", Max: 10})
	if muster.CodeOf(err) != muster.Unavailable || !strings.Contains(fmt.Sprint(err), "longer than 100ms") {
		t.Errorf("slow: %v", err)
	}
	_, err = f.Fetch(t.Context(), Request{URL: server.URL + "/busy", Max: 10})
	if known := (*muster.Error)(nil); !errors.As(err, &known) || known.RetryAfter != 90*time.Second {
		t.Errorf("busy: %#v", err)
	}
}

func TestFetchUnchanged(t *testing.T) {
	server := source(t)
	f := New(Config{Private: true})
	first, err := f.Fetch(t.Context(), Request{URL: server.URL + "/same", Max: 10})
	if err != nil || first.Unchanged || first.ETag != `"v1"` || first.LastModified == "" {
		t.Fatalf("%+v, %v", first, err)
	}
	for _, known := range []Request{{ETag: first.ETag}, {LastModified: first.LastModified}} {
		known.URL, known.Max = server.URL+"/same", 10
		again, err := f.Fetch(t.Context(), known)
		if err != nil || !again.Unchanged || again.ETag != known.ETag || again.LastModified != known.LastModified || again.Sources != nil {
			t.Errorf("%+v, %v", again, err)
		}
	}
}

// Nobody has this host ask its own network, by whatever name.
func TestFetchRefusesPrivate(t *testing.T) {
	server := source(t)
	f := New(Config{})
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"} {
		_, err := f.Fetch(t.Context(), Request{URL: "http://" + host + port + "/list", Max: 10})
		if muster.CodeOf(err) != muster.Forbidden && !strings.Contains(fmt.Sprint(err), "refused") {
			t.Errorf("%s: %v", host, err)
		}
	}
	for address, refused := range map[string]bool{
		"8.8.8.8:80": false, "[2a00::1]:80": false, "10.1.2.3:80": true, "169.254.169.254:80": true, "100.64.0.1:80": true,
		"[fe80::1%eth0]:80": true, "[fd00::1]:80": true, "[64:ff9b::7f00:1]:80": true, "[2002:7f00:1::]:80": true, "[2002:808:808::]:80": false, "nonsense": true,
	} {
		if err := public(address); (err != nil) != refused {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// A redirect is looked at like the URL itself: connected to by a stand-in for
// the network, a public source cannot lead to a private one.
func TestFetchRefusesRedirectInward(t *testing.T) {
	server := source(t)
	outside := httptest.NewServer(http.RedirectHandler(server.URL+"/list", http.StatusFound))
	t.Cleanup(outside.Close)
	f := New(Config{})
	transport := f.client.Transport.(*http.Transport)
	guarded := transport.DialContext
	inner := New(Config{Private: true}).client.Transport.(*http.Transport).DialContext
	t.Cleanup(transport.CloseIdleConnections)
	dials := 0
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials++; dials == 1 {
			return inner(ctx, network, address) // the outside
		}
		return guarded(ctx, network, address)
	}
	_, err := f.Fetch(t.Context(), Request{URL: outside.URL, Max: 10})
	if muster.CodeOf(err) != muster.Forbidden || dials != 2 {
		t.Errorf("%d dials, %v", dials, err)
	}
	https := httptest.NewRequest(http.MethodGet, "https://a.example/", nil)
	if err := checkRedirect(httptest.NewRequest(http.MethodGet, "http://a.example/", nil), []*http.Request{https}); err == nil {
		t.Error("expected that https does not lead to http")
	}
}

func TestCheckURL(t *testing.T) {
	for text, good := range map[string]bool{
		"https://example.org/list.txt?key=1": true, "http://[2a00::1]:81/": true, "ftp://example.org/": false, "example.org/list": false, "https://": false,
		"https://user:word@example.org/": false, "file:///etc/passwd": false, "https://example.org/" + strings.Repeat("a", 2000): false, "http://%zz/": false,
	} {
		if err := CheckURL(text); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestFetchStopsWithItsCaller(t *testing.T) {
	server := source(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the server stops"))
	if _, err := New(Config{Private: true}).Fetch(ctx, Request{URL: server.URL + "/slow", Max: 10}); err == nil || !strings.Contains(err.Error(), "the server stops") {
		t.Errorf("got %v", err)
	}
}

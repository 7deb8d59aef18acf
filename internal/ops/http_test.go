package ops

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// recorded serves one request and returns the answer, the log and the registry.
func recorded(t *testing.T, level slog.Level, req *http.Request, h http.HandlerFunc) (*httptest.ResponseRecorder, string, *prometheus.Registry) {
	t.Helper()
	var out bytes.Buffer
	reg := prometheus.NewRegistry()
	mux := http.NewServeMux()
	mux.HandleFunc("/v3/{thing}", h)
	rec := httptest.NewRecorder()
	NewHTTP(mux, HTTPConfig{Log: NewLogger(&out, level, LogJSON), Metrics: reg}).ServeHTTP(rec, req)
	return rec, out.String(), reg
}

func TestRecordBecomesOneLineAndMetrics(t *testing.T) {
	req := httptest.NewRequest("POST", "/v3/signals?secret=x", strings.NewReader("0123456789"))
	_, log, reg := recorded(t, slog.LevelDebug, req, func(w http.ResponseWriter, r *http.Request) {
		rec := RecordOf(r.Context())
		rec.Machine, rec.Organisation, rec.Accepted, rec.Refused = "m1", "o1", 7, 1
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "ok!")
	})
	for _, want := range []string{
		`"level":"DEBUG"`, `"route":"/v3/{thing}"`, `"status":201`, `"bytes_in":10`, `"bytes_out":3`,
		`"machine":"m1"`, `"organisation":"o1"`, `"accepted":7`, `"refused":1`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("log lacks %s: %s", want, log)
		}
	}
	if strings.Count(log, "\n") != 1 {
		t.Errorf("want one line, got: %s", log)
	}
	if strings.Contains(log, "secret") {
		t.Errorf("the query reached the log: %s", log)
	}
	err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP muster_http_request_bytes_total Bytes of request bodies read, before decompression.
# TYPE muster_http_request_bytes_total counter
muster_http_request_bytes_total{route="/v3/{thing}"} 10
# HELP muster_http_requests_in_flight Requests being served, long polls included.
# TYPE muster_http_requests_in_flight gauge
muster_http_requests_in_flight 0
# HELP muster_http_requests_total Requests answered, by route and status.
# TYPE muster_http_requests_total counter
muster_http_requests_total{route="/v3/{thing}",status="201"} 1
# HELP muster_http_response_bytes_total Bytes of response bodies written.
# TYPE muster_http_response_bytes_total counter
muster_http_response_bytes_total{route="/v3/{thing}"} 3
`), "muster_http_requests_total", "muster_http_request_bytes_total", "muster_http_response_bytes_total", "muster_http_requests_in_flight")
	if err != nil {
		t.Error(err)
	}
}

func TestLogLevels(t *testing.T) {
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		want    string // level, "" = no line at info
	}{
		"success": {func(http.ResponseWriter, *http.Request) {}, ""},
		"refused": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, "INFO"},
		"quiet": {func(w http.ResponseWriter, r *http.Request) {
			RecordOf(r.Context()).Quiet = true
			w.WriteHeader(403)
		}, ""},
		"failed": {func(w http.ResponseWriter, r *http.Request) {
			RecordOf(r.Context()).Err = errors.New("disk on fire")
			w.WriteHeader(503)
		}, "WARN"},
	} {
		_, log, _ := recorded(t, slog.LevelInfo, httptest.NewRequest("GET", "/v3/x", nil), tc.handler)
		if tc.want == "" && log != "" || tc.want != "" && !strings.Contains(log, `"level":"`+tc.want+`"`) {
			t.Errorf("%s: want level %q, got %q", name, tc.want, log)
		}
		if name == "failed" && !strings.Contains(log, "disk on fire") {
			t.Errorf("failed: the cause is missing: %s", log)
		}
	}
}

func TestFloodOfRefusalsIsNotLogged(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	h := NewHTTP(http.NotFoundHandler(), HTTPConfig{Log: NewLogger(&out, slog.LevelInfo, LogJSON), Now: func() time.Time { return now }})
	get := func(n int) {
		for range n {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		}
	}
	get(maxRefusalLines + 20)
	if got := strings.Count(out.String(), "\n"); got != maxRefusalLines {
		t.Errorf("logged %d lines in a second, want %d", got, maxRefusalLines)
	}
	now = now.Add(time.Second)
	out.Reset()
	get(1)
	if !strings.Contains(out.String(), `"omitted":20`) {
		t.Errorf("the next line does not tell what was left out: %s", out.String())
	}
}

func TestUnmatchedRoutesShareOneLabel(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := NewHTTP(http.NewServeMux(), HTTPConfig{Metrics: reg})
	for _, path := range []string{"/a", "/b", "/c"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	if n, err := testutil.GatherAndCount(reg, "muster_http_requests_total"); err != nil || n != 1 {
		t.Errorf("series = %d, %v, want 1", n, err)
	}
}

func TestPanicIsAnswered500(t *testing.T) {
	rec, log, _ := recorded(t, slog.LevelInfo, httptest.NewRequest("GET", "/v3/x", nil), func(http.ResponseWriter, *http.Request) {
		panic("boom")
	})
	if rec.Code != 500 || strings.Contains(rec.Body.String(), "boom") {
		t.Errorf("answered %d %q", rec.Code, rec.Body.String())
	}
	if !strings.Contains(log, "boom") || !strings.Contains(log, "http_test.go") || !strings.Contains(log, `"status":500`) {
		t.Errorf("log lacks the panic, its stack or the status: %s", log)
	}
}

func TestPanicAfterAnswerBeganCutsConnection(t *testing.T) {
	reg := prometheus.NewRegistry()
	srv := httptest.NewServer(NewHTTP(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic("boom")
	}), HTTPConfig{Metrics: reg}))
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read: %v, want an unexpected end", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestSlowBodyIsCut(t *testing.T) {
	got := make(chan error, 1)
	srv := httptest.NewServer(NewHTTP(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		got <- err
	}), HTTPConfig{Timeout: 50 * time.Millisecond}))
	defer srv.Close()
	body, feed := io.Pipe()
	go func() {
		resp, err := http.Post(srv.URL, "text/plain", body)
		if err == nil {
			resp.Body.Close()
		}
	}()
	if _, err := feed.Write([]byte("first byte")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-got:
		if err == nil {
			t.Error("the body was read to its end")
		}
	case <-time.After(10 * time.Second):
		t.Error("the handler still waits for the body")
	}
	feed.Close()
	http.DefaultClient.CloseIdleConnections()
}

func TestExtendOutlivesTheTimeout(t *testing.T) {
	h := NewHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/poll" {
			Extend(w, time.Now(), 10*time.Second)
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(150 * time.Millisecond):
		}
		_, _ = io.WriteString(w, "done")
	}), HTTPConfig{Timeout: 50 * time.Millisecond})
	srv := httptest.NewServer(h)
	defer srv.Close()
	get := func(path string) string {
		resp, err := http.Get(srv.URL + path)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	if got := get("/poll"); got != "done" {
		t.Errorf("poll answered %q", got)
	}
	if got := get("/slow"); got == "done" {
		t.Error("a request over its time was answered")
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestRecordOfNothing(t *testing.T) {
	RecordOf(context.Background()).Machine = "written and lost"
	if got := RecordOf(context.Background()).Machine; got != "" {
		t.Errorf("outside of a request the record is shared: %q", got)
	}
	if Draining(context.Background()) != nil {
		t.Error("outside of a server Draining is not nil")
	}
}

func TestMetricNames(t *testing.T) {
	reg := NewRegistry()
	h := NewHTTP(http.NotFoundHandler(), HTTPConfig{Metrics: reg, Name: "edge"})
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader("x")))
	NewHTTP(http.NotFoundHandler(), HTTPConfig{Metrics: reg, Name: "debug"}) // a second listener fits beside it
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "muster_") {
			ours++
		}
	}
	if ours < 4 {
		t.Errorf("only %d metrics of ours were linted", ours)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "muster_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// BenchmarkHTTP is what the recorder costs on top of a handler.
func BenchmarkHTTP(b *testing.B) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v3/decisions/stream", func(w http.ResponseWriter, r *http.Request) {
		RecordOf(r.Context()).Machine = "m1"
		w.WriteHeader(http.StatusNotModified)
	})
	h := NewHTTP(mux, HTTPConfig{
		Log: NewLogger(io.Discard, slog.LevelInfo, LogJSON), Metrics: prometheus.NewRegistry(),
	})
	req := httptest.NewRequest("GET", "/v3/decisions/stream", nil)
	w := &discardWriter{header: http.Header{}}
	for name, h := range map[string]http.Handler{"bare": mux, "recorded": h} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, req)
			}
		})
	}
}

func TestRecorderAllocations(t *testing.T) {
	h := NewHTTP(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }), HTTPConfig{Metrics: prometheus.NewRegistry()})
	req := httptest.NewRequest("GET", "/", nil)
	w := &discardWriter{header: http.Header{}}
	// The exchange and the copy of the request.
	if n := testing.AllocsPerRun(200, func() { h.ServeHTTP(w, req) }); n > 2 {
		t.Errorf("%.0f allocations a request, want at most 2", n)
	}
}

type discardWriter struct{ header http.Header }

func (w *discardWriter) Header() http.Header              { return w.header }
func (w *discardWriter) WriteHeader(int)                  {}
func (w *discardWriter) Write(b []byte) (int, error)      { return len(b), nil }
func (w *discardWriter) SetReadDeadline(time.Time) error  { return nil }
func (w *discardWriter) SetWriteDeadline(time.Time) error { return nil }

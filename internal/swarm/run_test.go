package swarm

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// short is a run that a test can wait for.
func short(kind Kind, url string) Config {
	return Config{
		Kind: kind, URL: url, Key: stubKey, Watchers: 5, Connections: 3, Batch: 20,
		Duration: 150 * time.Millisecond, Warmup: 30 * time.Millisecond, List: 130, Sources: 1000,
	}
}

func TestRunOfEveryKind(t *testing.T) {
	for _, kind := range []Kind{Ingest, Pull, Login, Heartbeat} {
		t.Run(string(kind), func(t *testing.T) {
			s := newStub()
			s.check = true
			cfg := short(kind, startStub(t, s))
			var phases []string
			cfg.Progress = func(p Progress) { phases = append(phases, p.Phase) }
			cfg.Usage = ProcessUsage(1 << 30) // there is no such process
			res, err := Run(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if res.Errors != 0 || res.FirstError != "" || res.Requests < 5 {
				t.Fatalf("got %+v, want some requests and no errors", res)
			}
			if res.ServerCPU != nil || res.ServerRSS != nil {
				t.Error("got figures for a server that nobody could measure")
			}
			if !(res.P50 > 0 && res.P50 <= res.P95 && res.P95 <= res.P99 && res.P99 <= res.Max) {
				t.Errorf("percentiles out of order: %+v", res)
			}
			if want := float64(res.Units) / res.Seconds; res.Rate != want || res.Seconds < 0.15 {
				t.Errorf("rate %f over %f s, want %f", res.Rate, res.Seconds, want)
			}
			if got := strings.Join(phases, ", "); !strings.HasPrefix(got, "enrolling") || !strings.Contains(got, "measuring") {
				t.Errorf("phases: %s", got)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.enrolled) != 5 {
				t.Errorf("%d machines were enrolled, want 5", len(s.enrolled))
			}
			if kind == Ingest {
				if res.Units != res.Requests*20 || int64(len(s.uuids)) < res.Units || s.badItems > 0 {
					t.Errorf("%d requests measured as %d signals; the server knows %d, %d of them bad", res.Requests, res.Units, len(s.uuids), s.badItems)
				}
				for uuid, n := range s.uuids {
					if n != 1 {
						t.Errorf("%s came %d times", uuid, n)
					}
				}
			}
			if kind == Pull && (len(s.listed) != 130 || res.Received == 0) {
				t.Errorf("%d addresses on the list, %d bytes received, want 130 and some", len(s.listed), res.Received)
			}
		})
	}
}

func TestRunCountsErrors(t *testing.T) {
	var n atomic.Int64
	refuse := func(status int, body string) func(*http.Request) (int, string) {
		return func(r *http.Request) (int, string) {
			if r.URL.Path == "/v3/signals" && n.Add(1)%2 == 0 {
				return status, body
			}
			return 0, ""
		}
	}
	for name, tc := range map[string]struct {
		status int
		body   string
	}{
		"status":          {429, `{"message":"slow down"}`},
		"refused signals": {200, `{"message":"OK","refused":3}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub()
			s.fail = refuse(tc.status, tc.body)
			res, err := Run(t.Context(), short(Ingest, startStub(t, s)))
			if err != nil {
				t.Fatal(err)
			}
			if res.Errors == 0 || res.Requests == 0 || !strings.Contains(res.FirstError, tc.body) || !strings.HasPrefix(res.FirstError, "POST /v3/signals: expected status 200") {
				t.Errorf("got %d errors of %d requests, first %q", res.Errors, res.Requests, res.FirstError)
			}
		})
	}
}

func TestRunSaysWhySetUpFailed(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config, *stub)
		want   string
	}{
		"wrong key":    {func(c *Config, _ *stub) { c.Key = "nonsense" }, "expected status 201, got 403: {\"message\":\"the attachment key provided is not valid\"}"},
		"not accepted": {func(_ *Config, s *stub) { s.fail = answer("/v3/watchers/enroll", 201) }, "the watcher is not active after enrolment"},
		"no kind":      {func(c *Config, _ *stub) { c.Kind = "dance" }, "expected ingest, pull, login or heartbeat, got \"dance\""},
		"no server":    {func(c *Config, _ *stub) { c.URL = "http://127.0.0.1:1" }, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub()
			cfg := short(Heartbeat, startStub(t, s))
			tc.change(&cfg, s)
			_, err := Run(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestRunSaysWhatToDoAboutABan(t *testing.T) {
	s := newStub()
	s.logins = 20
	cfg := short(Heartbeat, startStub(t, s))
	cfg.Watchers = 30
	_, err := Run(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "muster admin override add --address 127.0.0.0/8 --exempt") {
		t.Errorf("got %v, want how to exempt the generator", err)
	}
}

// answer makes a stub answer one path without doing anything.
func answer(path string, status int) func(*http.Request) (int, string) {
	return func(r *http.Request) (int, string) {
		if r.URL.Path == path {
			return status, `{"message":"OK"}`
		}
		return 0, ""
	}
}

func TestRunInterruptedKeepsItsFigures(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := newStub()
	cfg := short(Heartbeat, startStub(t, s))
	cfg.Duration, cfg.Warmup = time.Minute, 0
	var beats atomic.Int64
	s.fail = func(r *http.Request) (int, string) {
		if r.URL.Path == "/v3/heartbeat" && beats.Add(1) == 1000 {
			cancel()
		}
		return 0, ""
	}
	res, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !res.Interrupted || res.Seconds > 30 || res.Errors != 0 {
		t.Errorf("got %+v, want the figures until the interrupt and no errors", res)
	}
}

func TestPullOfSomethingElseIsAnError(t *testing.T) {
	s := newStub()
	s.check = true
	cfg := short(Pull, startStub(t, s))
	var pulls atomic.Int64
	s.fail = func(r *http.Request) (int, string) {
		if r.URL.Path == "/v3/decisions/stream" && pulls.Add(1) > 20 {
			return 200, "{}"
		}
		return 0, ""
	}
	res, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if res.Errors == 0 || !strings.Contains(res.FirstError, "(gzip: true), got 2 (gzip: false)") {
		t.Errorf("got %d errors, first %q", res.Errors, res.FirstError)
	}
}

func TestResultForms(t *testing.T) {
	res := Result{
		Kind: Ingest, Rate: 27123.4, Unit: "signals/s", P50: 12.34, P95: 45.6, P99: 78.9, Max: 123.4,
		ServerCPU: ptr(11.5), ServerRSS: ptr[int64](93_400_000), Seconds: 10, Requests: 5425, Units: 271250,
		Watchers: 100, Connections: 16, Batch: 50, Ready: ptr(212.0), IdleRSS: ptr[int64](61_000_000), Backlog: ptr[int64](1200), Drain: ptr(0.8),
	}
	var b bytes.Buffer
	if err := res.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	want := `|   kind | connections |             rate | p50 ms | p95 ms | p99 ms | max ms | errors | server CPU | server peak RSS | generator CPU |
|   ---- | ----------- |             ---- | ------ | ------ | ------ | ------ | ------ | ---------- | --------------- | ------------- |
| ingest |          16 | 27,123 signals/s |   12.3 |   45.6 |   78.9 |    123 |      0 | 1.15 cores |           93 MB |             ? |

5425 requests in 10.0 s by 100 watchers, 50 signals each.
Ready 212 ms after start; idle RSS 61 MB.
Backlog when the load ended: 1200 entries, counted 0.8 s later.
`
	if b.String() != want {
		t.Error(cmp.Diff(want, b.String()))
	}
	object, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"rate":27123.4`, `"p50_ms":12.34`, `"p95_ms":`, `"p99_ms":`, `"errors":0`, `"server_cpu_s":11.5`, `"server_rss_bytes":93400000`, `"client_cpu_s":null`} {
		if !strings.Contains(string(object), part) {
			t.Errorf("%s is not in %s", part, object)
		}
	}
}

// BenchmarkIngest runs the whole generator against a server that discards what
// it gets, in another process: the generator's own cost and its limit.
func BenchmarkIngest(b *testing.B) {
	s := startAsMuster(b)
	for b.Loop() {
		res, err := Run(b.Context(), Config{Kind: Ingest, URL: s.URL, Key: stubKey, Duration: 2 * time.Second, Usage: ProcessUsage(s.PID())})
		if err != nil || res.Errors > 0 || res.ClientCPU == nil {
			b.Fatal(res.FirstError, err)
		}
		b.ReportMetric(res.Rate, "signals/s")
		b.ReportMetric(*res.ClientCPU/float64(res.Units)*1e6, "cpu-µs/signal")
		b.ReportMetric(*res.ClientCPU/float64(res.Units)*25_000, "cores-at-25k/s")
		b.ReportMetric(*res.ServerCPU/res.Seconds, "server-cores")
	}
}

// BenchmarkPull is the same for pulls of 15,000 addresses.
func BenchmarkPull(b *testing.B) {
	list := newStub()
	list.check = true
	url := startStub(b, list)
	for b.Loop() {
		res, err := Run(b.Context(), Config{Kind: Pull, URL: url, Key: stubKey, Duration: 2 * time.Second})
		if err != nil || res.Errors > 0 {
			b.Fatal(res.FirstError, err)
		}
		b.ReportMetric(res.Rate, "pulls/s")
		b.ReportMetric(float64(res.Received)/float64(res.Requests), "B/pull")
	}
}

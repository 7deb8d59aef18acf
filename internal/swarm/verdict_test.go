package swarm

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// shortVerdict is a measurement that a test can wait for.
func shortVerdict(url string) VerdictConfig {
	return VerdictConfig{
		URL: url, Keys: []string{stubKey, stubKey, stubKey, stubKey}, Watchers: 6, Connections: 3, Pace: 2000, Batch: 20, Sources: 500,
		Attackers: 12, Voices: 2, Duration: 240 * time.Millisecond, Warmup: 40 * time.Millisecond, Poll: 5 * time.Millisecond, Timeout: 5 * time.Second, Seed: 7,
	}
}

func TestVerdict(t *testing.T) {
	s := newStub()
	s.check = true
	cfg := shortVerdict(startStub(t, s))
	var phases []string
	cfg.Progress = func(p Progress) { phases = append(phases, p.Phase) }
	res, err := RunVerdict(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if res.Errors != 0 || res.FirstError != "" || res.Seen != 12 || res.Missed != 0 {
		t.Fatalf("got %+v, want 12 attackers seen and no errors", res)
	}
	if !(res.P50 <= res.P95 && res.P95 <= res.P99 && res.P99 <= res.Max) || res.Max > 5000 {
		t.Errorf("latencies out of order: %+v", res)
	}
	// The pace is kept whatever the server does: 100 batches a second.
	if want := res.Seconds * 2000; float64(res.Signals) < want/2 || float64(res.Signals) > want*1.5+60 || res.Rate != float64(res.Signals)/res.Seconds {
		t.Errorf("%d signals in %.2f s, want about %.0f", res.Signals, res.Seconds, want)
	}
	if res.Pulls < 10 || res.Editions < 2 || res.Editions > res.Pulls || res.List < 12 || res.Organisations != 3 {
		t.Errorf("got %+v, want many pulls of a list that grows", res)
	}
	if got := strings.Join(phases, ", "); !strings.HasPrefix(got, "enrolling, warming up, measuring") {
		t.Errorf("phases: %s", got)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.enrolled) != 6+3+1 {
		t.Errorf("%d machines were enrolled, want 6 that report, 3 witnesses and a reader", len(s.enrolled))
	}
	all := NewSources(500+24, 1.1, 7)
	_, fresh := all.split(500)
	for i := range 12 {
		value := fresh.v4(12).Addr(i)
		if len(s.voices[value]) != 2 || s.listed[value] != "crowdsecurity/ssh-bf" {
			t.Errorf("attacker %s was reported by %d machines for %q, want 2 and ssh-bf", value, len(s.voices[value]), s.listed[value])
		}
		for machine := range s.voices[value] {
			if machine == NewWatcher(7, 3).Machine {
				t.Errorf("attacker %s was reported by the reader", value)
			}
		}
	}
}

func TestVerdictCounts(t *testing.T) {
	var pulls atomic.Int64
	for name, tc := range map[string]struct {
		fail   func(*http.Request) (int, string)
		missed int64
		want   string // of the first error
	}{
		"attackers that never appear": {fail: func(r *http.Request) (int, string) {
			if r.URL.Path == "/v3/decisions/stream" {
				return 200, `{"new":[],"deleted":[],"links":{}}`
			}
			return 0, ""
		}, missed: 12},
		"pulls that fail": {fail: func(r *http.Request) (int, string) {
			if r.URL.Path == "/v3/decisions/stream" && pulls.Add(1)%2 == 0 {
				return 503, `busy`
			}
			return 0, ""
		}, want: "GET /v3/decisions/stream?startup=true: expected status 200, got 503: busy"},
		"reports that are refused": {fail: func(r *http.Request) (int, string) {
			if r.URL.Path == "/v3/signals" && r.Header.Get("Content-Encoding") == "" {
				return 429, `slow down`
			}
			return 0, ""
		}, want: "reporting an attacker: POST /v3/signals: expected status 200, got 429: slow down"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub()
			s.check, s.fail = true, tc.fail
			cfg := shortVerdict(startStub(t, s))
			cfg.Timeout = 300 * time.Millisecond
			res, err := RunVerdict(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if res.Missed != tc.missed || res.FirstError != tc.want || (res.Errors > 0) != (tc.want != "") {
				t.Errorf("%d missed, %d errors, first %q; want %d and %q", res.Missed, res.Errors, res.FirstError, tc.missed, tc.want)
			}
		})
	}
}

func TestVerdictRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*VerdictConfig)
		want   string
	}{
		"too few organisations": {func(c *VerdictConfig) { c.Keys = c.Keys[:2] }, "expected keys of at least 3 organisations"},
		"a pace under a batch":  {func(c *VerdictConfig) { c.Pace = 19 }, "expected a pace of at least a batch of 20"},
		"a late look":           {func(c *VerdictConfig) { c.Timeout = time.Millisecond }, "expected a poll of at least 1ms and a timeout"},
		"a wrong key":           {func(c *VerdictConfig) { c.Keys[3] = "nonsense" }, "the attachment key provided is not valid"},
		"a server elsewhere":    {func(c *VerdictConfig) { c.URL = "http://192.0.2.1" }, ErrNotLoopback.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := shortVerdict(startStub(t, newStub()))
			tc.change(&cfg)
			if _, err := RunVerdict(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestVerdictReport(t *testing.T) {
	r := VerdictResult{
		Kind: Verdict, P50: 264, P95: 516, P99: 530.25, Max: 531, Seen: 199, Missed: 1, Rate: 4999.6, Signals: 100_000, Pulls: 2000, Editions: 40, List: 15_000,
		ServerCPU: ptr(10.0), ServerRSS: ptr(int64(150e6)), Seconds: 20, Attackers: 200, Voices: 2, Pace: 5000, Batch: 50, Watchers: 100, Organisations: 10, Poll: 10, FirstError: "oops",
	}
	var out bytes.Buffer
	if err := r.WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"264 / 516", "530 / 531", "199 / 1", "5,000/s", "0.50 cores, peak RSS 150 MB; generator ?", "First error: oops"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("want %q in\n%s", want, out.String())
		}
	}
	plain, err := json.Marshal(&r)
	if err != nil || !bytes.Contains(plain, []byte(`"p99_ms":530.25`)) || !bytes.Contains(plain, []byte(`"client_cpu_s":null`)) {
		t.Errorf("got %s, %v", plain, err)
	}
}

func TestPlainRefusesDamage(t *testing.T) {
	if _, err := plain(&Response{Gzip: true, Body: []byte("no gzip")}, nil); err == nil || errors.Is(err, ErrNotLoopback) {
		t.Errorf("got %v, want an error", err)
	}
	if got, err := plain(&Response{Body: []byte("b")}, []byte("a")); err != nil || string(got) != "ab" {
		t.Errorf("got %q, %v", got, err)
	}
}

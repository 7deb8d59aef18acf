package swarm

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shortAbuse is a measurement that a test can wait for.
func shortAbuse(t *testing.T, s *stub) AbuseConfig {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8 on its loopback interface")
	}
	s.logins, s.trusts = 20, true
	return AbuseConfig{
		URL: startStub(t, s), Key: stubKey, Watchers: 20, Pace: 400, Abusers: 3, Connections: 8,
		Duration: 200 * time.Millisecond, Warmup: 20 * time.Millisecond, Forged: 400, Settle: time.Millisecond,
	}
}

func TestAbuse(t *testing.T) {
	s := newStub()
	s.check = true
	cfg := shortAbuse(t, s)
	var phases []string
	cfg.Progress = func(p Progress) { phases = append(phases, p.Phase) }
	cfg.Usage = ProcessUsage(os.Getpid())
	cfg.RSS = func() (int64, error) { return CurrentRSS(os.Getpid()) }
	res, err := RunAbuse(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if res.Errors != 0 || res.FirstError != "" {
		t.Fatalf("got %d errors, first %q", res.Errors, res.FirstError)
	}
	if res.LoginsToBan != 21 {
		t.Errorf("banned at log-in %d, want 21", res.LoginsToBan)
	}
	if res.Refused < 100 || res.RefusedRate != float64(res.Refused)/res.Seconds || res.Seconds < 0.2 {
		t.Errorf("got %d refused in %f s, %f/s", res.Refused, res.Seconds, res.RefusedRate)
	}
	// Two windows of 200 ms at 400/s are 160 requests, whatever the server does.
	if res.GoodRequests < 120 || res.GoodRequests > 200 {
		t.Errorf("%d good requests, want about 160", res.GoodRequests)
	}
	if !(res.QuietP50 > 0 && res.QuietP50 <= res.QuietP99 && res.StormP50 > 0 && res.StormP50 <= res.StormP99) || res.P99Ratio != res.StormP99/res.QuietP99 {
		t.Errorf("latencies out of order: %+v", res)
	}
	// Every 17th of 400 addresses, from the first on, tries twice.
	if res.Forged != 400 || res.ForgedRequests != 424 {
		t.Errorf("%d forged clients with %d requests, want 400 with 424", res.Forged, res.ForgedRequests)
	}
	for name, v := range map[string]*int64{"idle": res.RSSIdle, "before": res.RSSBefore, "peak": res.RSSPeak, "after": res.RSSAfter} {
		if v == nil || *v < 1<<20 {
			t.Errorf("memory %s: got %v", name, v)
		}
	}
	if res.RSSGrowth == nil || *res.RSSGrowth != *res.RSSPeak-*res.RSSBefore || res.ServerCPU == nil {
		t.Errorf("got growth %v, server %v", res.RSSGrowth, res.ServerCPU)
	}
	want := "enrolling, quiet, getting banned, storm, forging"
	if got := strings.Join(phases, ", "); got != want {
		t.Errorf("phases %s, want %s", got, want)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.good) != 20 || len(s.enrolled) != 20 {
		t.Errorf("%d machines enrolled, from %d addresses, want 20 of each", len(s.enrolled), len(s.good))
	}
	forged, twice := 0, 0
	for addr, n := range s.count {
		if !addr.IsLoopback() {
			forged++
			twice += n - 1
		}
	}
	if forged != 400 || twice != 24 {
		t.Errorf("the server saw %d forged addresses, %d of them twice, want 400 and 24", forged, twice)
	}
}

func TestAbuseCountsWhatIsWrong(t *testing.T) {
	for name, tc := range map[string]struct {
		fail  func(requests int64, r *http.Request) (int, string)
		blind bool // to X-Forwarded-For
		want  string
	}{
		"a banned client is served": {
			fail: func(n int64, r *http.Request) (int, string) {
				if from(r) == "127.200.0.2" && n > 1000 {
					return 200, `{"message":"OK"}`
				}
				return 0, ""
			},
			want: `expected status 403 with code "banned", got 200: {"message":"OK"}`,
		},
		"a ban that does not say so": {
			fail: func(n int64, r *http.Request) (int, string) {
				if from(r) == "127.200.0.2" && n > 1000 {
					return 403, `{"message":"forbidden"}`
				}
				return 0, ""
			},
			want: `expected status 403 with code "banned", got 403: {"message":"forbidden"}`,
		},
		"a good one is refused": {
			fail: func(_ int64, r *http.Request) (int, string) {
				if from(r) == "127.100.0.3" && r.URL.Path == "/v3/heartbeat" {
					return 503, `busy`
				}
				return 0, ""
			},
			want: `GET /v3/heartbeat: expected status 200, got 503: busy`,
		},
		"proxies are not trusted": {blind: true, want: "proxies.trusted"},
		"a wrong password is let in": {
			fail: func(_ int64, r *http.Request) (int, string) {
				if r.Header.Get("X-Forwarded-For") != "" {
					return 200, `{"token":"x"}`
				}
				return 0, ""
			},
			want: `expected status 401 or 403, got 200`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub()
			cfg := shortAbuse(t, s)
			s.trusts = !tc.blind
			var requests atomic.Int64
			if tc.fail != nil {
				s.fail = func(r *http.Request) (int, string) { return tc.fail(requests.Add(1), r) }
			}
			res, err := RunAbuse(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if res.Errors == 0 || !strings.Contains(res.FirstError, tc.want) {
				t.Errorf("got %d errors, first %q, want %q in it", res.Errors, res.FirstError, tc.want)
			}
		})
	}
}

func from(r *http.Request) string { return netip.MustParseAddrPort(r.RemoteAddr).Addr().String() }

func TestAbuseNeedsABan(t *testing.T) {
	s := newStub()
	cfg := shortAbuse(t, s)
	s.logins = 1000
	var logins atomic.Int64
	s.fail = func(r *http.Request) (int, string) {
		if from(r) == "127.200.0.1" && r.URL.Path == "/v3/watchers/login" {
			logins.Add(1)
		}
		return 0, ""
	}
	_, err := RunAbuse(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "abuser 127.200.0.1: expected a ban") || logins.Load() != maxLogins {
		t.Errorf("got %v after %d log-ins, want an error after %d", err, logins.Load(), maxLogins)
	}

	// A refusal that is no ban is told apart.
	s.fail = answer("/v3/watchers/login", 403)
	cfg.Watchers = 1
	_, err = RunAbuse(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "expected status 200, got 403") || strings.Contains(err.Error(), "exempt") {
		t.Errorf("got %v, want the status", err)
	}
}

func TestAbuseRefuses(t *testing.T) {
	for want, cfg := range map[string]AbuseConfig{
		"not on this machine":                {URL: "http://192.0.2.1:8600"},
		"on an address of 127.0.0.0/8":       {URL: "http://[::1]:8600"},
		"expected 1 to 50,000 watchers":      {URL: "http://127.0.0.1:1", Watchers: 50_001},
		"expected 1 to 1,000 abusers":        {URL: "http://127.0.0.1:1", Abusers: -1},
		"forged addresses":                   {URL: "http://127.0.0.1:1", Forged: maxForged + 1},
		"expected 1 to 20,000 requests per":  {URL: "http://127.0.0.1:1", Pace: 20_001},
		"expected 1 to 4,096 connections":    {URL: "http://127.0.0.1:1", Connections: 4097},
		"watcher 1 of 1, from 127.100.0.1: ": {URL: "http://127.0.0.1:1", Watchers: 1},
	} {
		if _, err := RunAbuse(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestAbuseEndsWithItsContext(t *testing.T) {
	for _, phase := range []string{"enrolling", "quiet", "getting banned", "storm", "forging"} {
		t.Run(phase, func(t *testing.T) {
			cfg := shortAbuse(t, newStub())
			cfg.Duration, cfg.Forged, cfg.Settle = 300*time.Millisecond, 1_000_000, time.Hour
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cfg.Progress = func(p Progress) {
				if p.Phase == phase {
					cancel()
				}
			}
			start := time.Now()
			res, err := RunAbuse(ctx, cfg)
			if time.Since(start) > 5*time.Second {
				t.Errorf("it took %s", time.Since(start))
			}
			if phase == "forging" {
				if err != nil || !res.Interrupted || res.Refused == 0 || res.Errors != 0 {
					t.Errorf("got %+v, %v, want the figures so far", res, err)
				}
			} else if err == nil {
				t.Error("got no error")
			}
		})
	}
}

// TestSteadyCountsTheWait stalls a server once: what was due meanwhile has
// waited too, although it was not even sent.
func TestSteadyCountsTheWait(t *testing.T) {
	var stalled atomic.Bool
	const stall = 400 * time.Millisecond
	s := newStub()
	s.fail = func(r *http.Request) (int, string) {
		if stalled.CompareAndSwap(false, true) {
			<-time.After(stall)
		}
		return 200, `{"message":"OK"}`
	}
	target, err := ParseTarget(startStub(t, s))
	if err != nil {
		t.Fatal(err)
	}
	w := newGoodWatcher(NewWatcher(1, 1), NewConn(target), NewSources(100, 1.1, 1))
	st := &steady{watchers: []*goodWatcher{w}, interval: 10 * time.Millisecond, faults: &faults{}}
	win := newWindow()
	st.into.Store(win)
	st.start(t.Context())
	pause(t.Context(), 2*stall)
	st.stop()
	if n, first := st.faults.count(); n != 0 {
		t.Fatal(first)
	}
	slow := int64(0)
	for _, bar := range win.latencies.Distribution() {
		if bar.From > (stall / 4).Microseconds() {
			slow += bar.Count
		}
	}
	// 30 requests fall due in the first three quarters of the stall.
	if slow < 25 || slow > 40 {
		t.Errorf("%d requests waited over %s, want about 30 of %d", slow, stall/4, win.latencies.TotalCount())
	}
}

func TestForgedAddressesDiffer(t *testing.T) {
	seen := map[netip.Prefix]bool{}
	for i := range 200_000 {
		addr := forgedAddr(i)
		bits := 32
		if addr.Is6() {
			bits = 64
		}
		p := netip.PrefixFrom(addr, bits).Masked()
		if seen[p] {
			t.Fatalf("%s comes twice", p)
		}
		seen[p] = true
		if !netip.MustParsePrefix("32.0.0.0/4").Contains(addr) && !netip.MustParsePrefix("2a00::/16").Contains(addr) {
			t.Fatalf("%s is in neither range", addr)
		}
	}
}

func TestAbuseResultForms(t *testing.T) {
	mb := func(n int64) *int64 { return ptr(n * 1e6) }
	res := AbuseResult{
		Kind: Abuse, RefusedRate: 63123.4, QuietP50: 0.31, QuietP99: 4.2, StormP50: 1.5, StormP99: 6.93, P99Ratio: 1.65,
		QuietLate: 0.1, StormLate: 0.83, LoginsToBan: 21,
		Forged: 1_000_000, ForgedRequests: 1_058_824, ForgedRate: 11_234, RSSIdle: mb(64), RSSBefore: mb(125), RSSPeak: mb(290), RSSAfter: mb(280), RSSGrowth: mb(165),
		ServerCPU: ptr(13.0), ClientCPU: ptr(4.6), Seconds: 10, Watchers: 1000, Pace: 500, Abusers: 16, Connections: 64, Ready: ptr(98.2),
	}
	var b bytes.Buffer
	if err := res.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	want := `|                              abuse |                     here |    asked |
|                              ----- |                     ---- |    ----- |
|                            refused |                 63,123/s | 60,000/s |
| good watchers, quiet: p50 / p99 ms |              0.31 / 4.20 |          |
| good watchers, storm: p50 / p99 ms |              1.50 / 6.93 |          |
|                p99, storm to quiet |                    1.65x |       2x |
|                     forged clients |                1,000,000 |          |
|                      their log-ins |                 11,234/s |          |
|       memory before / peak / after | 125 MB / 290 MB / 280 MB |          |
|                   growth of memory |                   165 MB |   200 MB |
|                             errors |                        0 |        0 |

1000 watchers made 500 requests/s; 16 addresses were banned at log-in 21 and retried over 64 connections for 10.0 s.
During the storm: server 1.30 cores, generator 0.46 cores; the generator was late by 0.83 ms (p99), before that by 0.10 ms.
Ready 98 ms after start; idle RSS 64 MB.
`
	if b.String() != want {
		t.Error(cmp.Diff(want, b.String()))
	}
	object, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"refused_rate":63123.4`, `"quiet_p50_ms":0.31`, `"quiet_p99_ms":4.2`, `"storm_p50_ms":1.5`, `"storm_p99_ms":6.93`, `"p99_ratio":1.65`,
		`"forged":1000000`, `"forged_rate":11234`, `"rss_idle":64000000`, `"rss_before":`, `"rss_peak":`, `"rss_after":`, `"errors":0`,
	} {
		if !strings.Contains(string(object), part) {
			t.Errorf("%s is not in %s", part, object)
		}
	}
}

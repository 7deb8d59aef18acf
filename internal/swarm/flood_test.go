package swarm

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

func TestParseAnswer(t *testing.T) {
	const ban = "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"code\":\"banned\"}"
	for n := range len(ban) {
		if _, _, complete, err := parseAnswer([]byte(ban[:n])); complete || err != nil {
			t.Fatalf("of %d bytes: complete %t, %v", n, complete, err)
		}
	}
	status, body, complete, err := parseAnswer([]byte(ban))
	if status != 403 || string(body) != `{"code":"banned"}` || !complete || err != nil {
		t.Errorf("got %d, %q, %t, %v", status, body, complete, err)
	}
	for name, raw := range map[string]string{
		"more than asked for": ban + "x",
		"no length":           "HTTP/1.1 403 Forbidden\r\n\r\n",
		"chunked":             "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n",
		"negative length":     "HTTP/1.1 403 Forbidden\r\nContent-Length: -1\r\n\r\n",
		"no HTTP":             "SSH-2.0-OpenSSH_9.2\r\n\r\n",
		"no status":           "HTTP/1.1 \r\n\r\n",
		"length in the body":  "HTTP/1.1 403 Forbidden\r\n\r\n\r\nContent-Length: 0\r\n\r\n",
	} {
		if _, _, complete, err := parseAnswer([]byte(raw)); err == nil || complete {
			t.Errorf("%s: complete %t, %v, want an error", name, complete, err)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, body, complete, err := parseAnswer(b)
		if complete && (err != nil || !strings.HasSuffix(string(b), string(body))) {
			t.Fatalf("%q: body %q, %v", b, body, err)
		}
	})
}

// TestFloodGoesOnAfterACut has a server that hangs up now and then: what is lost
// by it is a fault, and the flood goes on.
func TestFloodGoesOnAfterACut(t *testing.T) {
	const each, cutEvery = 20, 7
	var served, answered atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if served.Add(1)%cutEvery == 0 {
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	target, err := ParseTarget(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	f := &flood{faults: &faults{}, answered: &answered}
	f.next = func(l *lane) []byte {
		if l.turn == each {
			return nil
		}
		return []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	f.check = func(_ *lane, status int, _ []byte) error {
		if status != 403 {
			return fmt.Errorf("got status %d", status)
		}
		return nil
	}
	f.run(t.Context(), []*lane{newLane(target, netip.Addr{}), newLane(target, netip.Addr{})})
	n, first := f.faults.count()
	if n < 2 || n > 2*each/cutEvery+2 || answered.Load()+n != 2*each {
		t.Errorf("got %d faults, first %q, and %d answers of %d requests", n, first, answered.Load(), 2*each)
	}
}

// BenchmarkFlood measures what a refused request costs the generator, against a
// server in another process.
func BenchmarkFlood(b *testing.B) {
	s := startInMode(b, "limiting")
	target, err := ParseTarget(s.URL)
	if err != nil {
		b.Fatal(err)
	}
	from := netip.AddrFrom4([4]byte{127, 200, 0, 1})
	a := &abuse{cfg: AbuseConfig{Connections: 64, Abusers: 1, Seed: 1}, target: target, abusers: []*Watcher{NewWatcher(1, 1)}}
	c := NewConnFrom(target, from)
	defer c.Close()
	if _, err := a.abusers[0].expect(b.Context(), c, a.abusers[0].registration(), http.StatusOK); err != nil {
		b.Fatal(err)
	}
	if _, err := a.loginUntilBanned(b.Context(), c, a.abusers[0]); err != nil {
		b.Fatal(err)
	}
	retry := a.retry()
	measure := func(b *testing.B, f func()) {
		b.ReportAllocs()
		before, err := ProcessUsage(os.Getpid())()
		if err != nil {
			b.Skip(err)
		}
		b.ResetTimer()
		f()
		after, _ := ProcessUsage(os.Getpid())()
		b.ReportMetric(float64((after.CPU-before.CPU).Microseconds())/float64(b.N), "cpu-µs/op")
	}
	b.Run("lanes", func(b *testing.B) {
		left := atomic.Int64{}
		left.Store(int64(b.N))
		f := &flood{faults: &faults{}, answered: &a.units, check: checkRefusal, next: func(l *lane) []byte {
			if left.Add(-1) < 0 {
				return nil
			}
			return retry(l)
		}}
		measure(b, func() {
			f.run(b.Context(), a.lanes(func(int) netip.Addr { return from }))
		})
		if n, first := f.faults.count(); n > 0 {
			b.Fatal(n, first)
		}
	})
	b.Run("conn", func(b *testing.B) {
		req := a.abusers[0].loginRequest()
		measure(b, func() {
			for range b.N {
				if res, err := c.Do(b.Context(), req); err != nil || !isBan(res.Status, res.Body) {
					b.Fatal(res, err)
				}
			}
		})
	})
}

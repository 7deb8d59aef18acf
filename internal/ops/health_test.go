package ops

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
)

func TestReadyNamesEveryCheck(t *testing.T) {
	var log bytes.Buffer
	now := time.Unix(1000, 0)
	h := NewHealth(NewLogger(&log, slog.LevelInfo, LogJSON), func() time.Time { return now })
	var store, stream error
	h.Check("database", func(context.Context) error { return store })
	h.Check("stream", func(context.Context) error { return stream })

	for _, step := range []struct {
		store, stream error
		status        int
		want          Report
	}{
		{nil, nil, 200, Report{"ready", []CheckReport{{Name: "database", Status: "ok"}, {Name: "stream", Status: "ok"}}}},
		{nil, Degraded("stream away: signals go to the local spool"), 200, Report{"degraded", []CheckReport{
			{Name: "database", Status: "ok"},
			{Name: "stream", Status: "degraded", Reason: "stream away: signals go to the local spool"},
		}}},
		{errors.New("open /secret/path: no"), Degraded("slow"), 503, Report{"unready", []CheckReport{
			{Name: "database", Status: "failed", Reason: "see the log of the server"},
			{Name: "stream", Status: "degraded", Reason: "slow"},
		}}},
		{nil, nil, 200, Report{"ready", []CheckReport{{Name: "database", Status: "ok"}, {Name: "stream", Status: "ok"}}}},
	} {
		store, stream = step.store, step.stream
		now = now.Add(time.Minute)
		rec := httptest.NewRecorder()
		h.Ready(rec, httptest.NewRequest("GET", "/readyz", nil))
		var got Report
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if rec.Code != step.status {
			t.Errorf("status %d, want %d", rec.Code, step.status)
		}
		if diff := cmp.Diff(step.want, got, cmpopts.IgnoreFields(CheckReport{}, "Since")); diff != "" {
			t.Error(diff)
		}
	}
	if !strings.Contains(log.String(), "/secret/path") || !strings.Contains(log.String(), "well again") {
		t.Errorf("the log lacks the cause or the recovery: %s", log.String())
	}
	if got := strings.Count(log.String(), "\n"); got != 5 { // three that worsen or differ, two that recover
		t.Errorf("%d lines, want one for each change, 5: %s", got, log.String())
	}
}

func TestChecksAreSharedForASecond(t *testing.T) {
	now := time.Unix(1000, 0)
	h := NewHealth(nil, func() time.Time { return now })
	runs := 0
	h.Check("database", func(context.Context) error { runs++; return nil })
	for range 100 {
		h.Report(t.Context())
	}
	if runs != 1 {
		t.Errorf("%d runs for 100 questions in the same second", runs)
	}
	now = now.Add(checkFresh)
	if h.Report(t.Context()); runs != 2 {
		t.Errorf("%d runs a second later, want 2", runs)
	}
}

func TestHangingCheckFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHealth(nil, nil)
		release := make(chan struct{})
		var runs atomic.Int32
		h.Check("database", func(context.Context) error { runs.Add(1); <-release; return nil })
		begin := time.Now()
		for range 3 { // each a little later than the last
			if got := h.Report(t.Context()).Status; got != "unready" {
				t.Errorf("status %s, want unready", got)
			}
			time.Sleep(checkFresh)
		}
		if n := runs.Load(); n != 1 {
			t.Errorf("%d runs hang, want 1", n)
		}
		if took := time.Since(begin); took > checkTimeout+3*checkFresh {
			t.Errorf("took %s", took)
		}
		close(release)
		synctest.Wait()
		if got := h.Report(t.Context()).Status; got != "ready" {
			t.Errorf("status %s after it came back, want ready", got)
		}
	})
}

func TestReadySaysThatItStops(t *testing.T) {
	drain := make(chan struct{})
	ctx := context.WithValue(t.Context(), drainKey{}, (<-chan struct{})(drain))
	h := NewHealth(nil, nil)
	ask := func() int {
		rec := httptest.NewRecorder()
		h.Ready(rec, httptest.NewRequest("GET", "/readyz", nil).WithContext(ctx))
		return rec.Code
	}
	if got := ask(); got != 200 {
		t.Errorf("before: %d", got)
	}
	close(drain)
	if got := ask(); got != 503 {
		t.Errorf("while stopping: %d, want 503", got)
	}
}

func TestDebugListener(t *testing.T) {
	reg := NewRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_test_total", Help: "x."}))
	h := NewDebug(reg, NewHealth(nil, nil))
	for path, want := range map[string]string{
		"/metrics": "muster_test_total 0", "/healthz": "alive", "/readyz": "ready",
		"/debug/pprof/": "goroutine", "/debug/pprof/cmdline": "ops.test",
	} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		if rec.Code != 200 || !strings.Contains(rec.Body.String(), want) {
			t.Errorf("%s: %d, lacks %q: %.200s", path, rec.Code, want, rec.Body.String())
		}
	}
}

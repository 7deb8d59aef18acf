package swarm

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestLive(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells the memory of another process")
	}
	server := startAsMuster(t)
	for name, size := range map[string]int{"muster.db": 3000, "stream/blocks/1": 5000, "stream/meta": 50} {
		path := filepath.Join(server.cfg.DataDir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := server.PID()
	var phases []string
	res, err := RunLive(t.Context(), LiveConfig{
		Server: server, Key: stubKey, Sources: stubSources, Voices: 2, Connections: 3, Batch: 70, Settle: time.Millisecond,
		Progress: func(p Progress) { phases = append(phases, p.Phase) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Signals != 600 || res.Database != 3000 || res.Stream != 5050 {
		t.Errorf("%d signals, %d bytes of database, %d of stream, want 600, 3000 and 5050", res.Signals, res.Database, res.Stream)
	}
	for name, n := range map[string]int64{"idle": res.RSSIdle, "peak": res.RSSPeak, "judged": res.RSS, "again": res.Again, "again's peak": res.AgainPeak} {
		if n < 1<<20 {
			t.Errorf("memory %s: got %d", name, n)
		}
	}
	if res.TakenRate < res.CountedRate || res.CountedRate <= 0 || res.PerSource != float64(res.RSS-res.RSSIdle)/stubSources {
		t.Errorf("got %+v", res)
	}
	if server.PID() == first || res.ReadyMS <= 0 || res.JudgingMS < res.ReadyMS {
		t.Errorf("process %d, before %d; ready after %f ms, judging after %f", server.PID(), first, res.ReadyMS, res.JudgingMS)
	}
	if got := strings.Join(phases, ", "); !strings.HasPrefix(got, "enrolling, reporting, judging, starting again") {
		t.Errorf("phases: %s", got)
	}
}

// TestLiveReportsEachOnce checks that every source is reported once by each
// machine, also at the ends of a pool that batches do not divide.
func TestLiveReportsEachOnce(t *testing.T) {
	s := newStub()
	s.check = true
	url := startStub(t, s)
	target, err := ParseTarget(url)
	if err != nil {
		t.Fatal(err)
	}
	l := &live{target: target, cfg: LiveConfig{Key: stubKey, Sources: 130, Voices: 3, Connections: 4, Batch: 40, Pace: 5000, Seed: 7}}
	for i := range 3 {
		w := NewWatcher(7, i)
		c := NewConn(target)
		defer c.Close()
		if err := w.Join(t.Context(), c, stubKey); err != nil {
			t.Fatal(err)
		}
		l.watchers = append(l.watchers, w)
	}
	start := time.Now()
	if err := l.report(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 80*time.Millisecond {
		t.Errorf("390 signals at 5,000/s took %s", took)
	}
	if len(s.uuids) != 390 || len(s.voices) != 130 {
		t.Fatalf("%d signals about %d sources, want 390 about 130", len(s.uuids), len(s.voices))
	}
	for value, machines := range s.voices {
		if len(machines) != 3 {
			t.Errorf("%s was reported by %d machines, want 3", value, len(machines))
		}
	}
}

func TestLiveRefuses(t *testing.T) {
	if _, err := RunLive(t.Context(), LiveConfig{Key: stubKey}); err == nil || !strings.Contains(err.Error(), "expected a server that was started for the measurement") {
		t.Errorf("got %v", err)
	}
	if runtime.GOOS != "linux" {
		return
	}
	_, err := RunLive(t.Context(), LiveConfig{
		Server: startAsMuster(t), Key: stubKey, Sources: stubSources + 1, Settle: time.Millisecond, Patience: 200 * time.Millisecond,
	})
	if err == nil || !strings.Contains(err.Error(), "judging: not within 200ms: 0 entries are not counted, and there is evidence on 300 of 301 sources") {
		t.Errorf("got %v", err)
	}
}

func TestServerOrganisation(t *testing.T) {
	t.Setenv(asMuster, "well") // for admin commands
	key, err := startAsMuster(t).Organisation(t.Context(), "first", "off")
	if err != nil || key != "key-of-org-first-off" {
		t.Errorf("got %q, %v", key, err)
	}
}

func TestLiveReport(t *testing.T) {
	r := LiveResult{Kind: Live, Sources: 1000, Voices: 1, Signals: 1000, RSSIdle: 60e6, RSSPeak: 500e6, RSS: 400e6, PerSource: 340, Again: 300e6, AgainPeak: 310e6, Database: 1_500_000, Stream: 200_000, CPU: 3}
	var out bytes.Buffer
	if err := r.WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"60 MB / 500 MB / 400 MB", "310 MB / 300 MB", "2 MB, 1500 bytes a source", "340 bytes"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("want %q in\n%s", want, out.String())
		}
	}
}

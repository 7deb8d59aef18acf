package swarm

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseProc(t *testing.T) {
	stat := "4242 (mus) ter (x) S 1 4242 4242 0 -1 4194560 1000 0 0 0 250 50 7 8 20 0 9 0 12345 1 2 3\n"
	cpu, err := parseStat([]byte(stat))
	if err != nil || cpu != 3*time.Second {
		t.Errorf("got %s, %v, want 3s", cpu, err)
	}
	if _, err := parseStat([]byte("4242 (muster) S 1")); err == nil {
		t.Error("a short line was taken")
	}
	status := []byte("Name:\tmuster\nVmHWM:\t   36868 kB\nVmRSS:\t   30000 kB\n")
	if rss, err := parseStatus(status, "VmHWM"); err != nil || rss != 36868<<10 {
		t.Errorf("got %d, %v", rss, err)
	}
	if _, err := parseStatus(status, "VmSwap"); err == nil {
		t.Error("a missing line was found")
	}
}

func TestProcessUsageOfThisProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no /proc here: ", err)
	}
	use := ProcessUsage(os.Getpid())
	before, err := use()
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(60 * time.Millisecond); time.Now().Before(until); { // use some processor
	}
	after, err := use()
	if err != nil || after.CPU <= before.CPU || after.RSS < 1<<20 {
		t.Errorf("got %+v then %+v, %v", before, after, err)
	}
	rss, err := CurrentRSS(os.Getpid())
	if err != nil || rss > after.RSS*2 || rss < 1<<20 {
		t.Errorf("current %d, peak %d, %v", rss, after.RSS, err)
	}
}

func TestParseMetrics(t *testing.T) {
	got, err := parseMetrics(strings.NewReader(`# HELP a what it is
# TYPE a gauge
a{partition="0"} 3
a{partition="1",text="with space"} 4

b 1.5e+01
`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Metrics{"a": 7, "b": 15}, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"lonely", "a b", "<html> </html>"} {
		if m, err := parseMetrics(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: got %v, want an error", bad, m)
		}
	}
}

func TestMetricsUsageKeepsThePeak(t *testing.T) {
	rss := 2e6
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "process_cpu_seconds_total 1.25\nprocess_resident_memory_bytes %g\n", rss)
		rss /= 2
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	defer func() { _ = server.Close(); <-ended }()
	use := MetricsUsage("http://" + l.Addr().String() + "/metrics")
	for range 2 {
		got, err := use()
		if err != nil || got != (Usage{CPU: 1250 * time.Millisecond, RSS: 2e6}) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if _, err := Scrape(t.Context(), "http://192.0.2.1/metrics"); err == nil {
		t.Error("a page elsewhere was asked for")
	}
}

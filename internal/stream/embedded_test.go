package stream_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"muster"
	"muster/internal/stream"
	"muster/internal/stream/streamtest"
)

// appenderDir, in the environment, makes the test binary an appender that
// writes to the log there until it is killed.
const appenderDir = "STREAM_TEST_APPENDER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(appenderDir); dir != "" {
		appendUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

func TestEmbedded(t *testing.T) {
	streamtest.Run(t, func(ctx context.Context, cfg stream.Config) (streamtest.Bus, error) {
		bus, err := stream.Open(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return bus, nil
	})
}

func open(tb testing.TB, cfg stream.Config) *stream.Bus {
	tb.Helper()
	bus, err := stream.Open(context.Background(), cfg)
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	tb.Cleanup(bus.Close)
	return bus
}

// batch makes the records of one numbered Append, one of each partition, that
// can be told from those of any other.
func batch(round, number uint32) []muster.Record {
	records := make([]muster.Record, muster.Partitions)
	for p := range records {
		data := binary.BigEndian.AppendUint32(nil, round)
		data = binary.BigEndian.AppendUint32(data, number)
		data = append(data, strings.Repeat(string(rune('a'+number%26)), int(number%500))...)
		records[p] = muster.Record{Partition: uint8(p), Data: data}
	}
	return records
}

// appendUntilKilled runs in the child process: three goroutines append, and
// what was acknowledged is printed, one "round number" a line.
func appendUntilKilled(dir string) {
	var round uint32
	if _, err := fmt.Sscan(os.Getenv("STREAM_TEST_ROUND"), &round); err != nil {
		panic(err)
	}
	bus, err := stream.Open(context.Background(), stream.Config{Dir: dir})
	if err != nil {
		panic(err)
	}
	for w := range uint32(3) {
		go func() {
			for i := w; ; i += 3 {
				if err := bus.Append(context.Background(), batch(round, i)); err != nil {
					panic(err)
				}
				fmt.Printf("%d %d\n", round, i)
			}
		}()
	}
	// Its parent kills it; if that is gone, it ends by itself.
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(3)
}

// TestKilled kills an appending process again and again, and finds every batch
// that was acknowledged once and whole.
func TestKilled(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	dir := t.TempDir()
	acknowledged := map[[2]uint32]bool{}
	for round := range uint32(rounds) {
		appendAndKill(t, dir, round, acknowledged)
	}
	bus := open(t, stream.Config{Dir: dir})
	found := readBatches(t, bus)
	for id := range acknowledged {
		if found[id] != muster.Partitions {
			t.Errorf("round %d, batch %d was acknowledged; the log has %d of its %d records", id[0], id[1], found[id], muster.Partitions)
		}
	}
	for id, n := range found {
		if n != muster.Partitions {
			t.Errorf("round %d, batch %d is torn: %d of %d records", id[0], id[1], n, muster.Partitions)
		}
	}
	t.Logf("%d kills, %d batches acknowledged, %d found", rounds, len(acknowledged), len(found))
}

// appendAndKill starts an appender, kills it at a random moment and notes what
// it had acknowledged.
func appendAndKill(t *testing.T, dir string, round uint32, acknowledged map[[2]uint32]bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), appenderDir+"="+dir, fmt.Sprint("STREAM_TEST_ROUND=", round))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	lines, before := bufio.NewScanner(stdout), len(acknowledged)
	for lines.Scan() {
		var id [2]uint32
		if n, _ := fmt.Sscan(lines.Text(), &id[0], &id[1]); n != 2 {
			continue // cut off by the kill
		}
		acknowledged[id] = true
		if len(acknowledged) == before+1 { // it runs: its end is near
			time.AfterFunc(rand.N(150*time.Millisecond), func() { _ = cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("round %d: the appender was not killed but ended: %v", round, cmd.ProcessState)
	}
}

// readBatches counts the records of each batch in the log.
func readBatches(t *testing.T, bus *stream.Bus) map[[2]uint32]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	last, err := bus.Last(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r, err := bus.Read(ctx, streamtest.All(), [muster.Partitions]uint64{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	found, once := map[[2]uint32]int{}, map[[3]uint32]bool{}
	for r.Position() < last {
		entries, err := r.Next(ctx, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			id := [2]uint32{binary.BigEndian.Uint32(e.Data), binary.BigEndian.Uint32(e.Data[4:])}
			if want := batch(id[0], id[1])[e.Partition].Data; string(e.Data) != string(want) {
				t.Fatalf("position %d, partition %d holds %d bytes that were never written", e.Position, e.Partition, len(e.Data))
			}
			if seen := [3]uint32{id[0], id[1], uint32(e.Partition)}; once[seen] {
				t.Errorf("round %d, batch %d is there twice", id[0], id[1])
			} else {
				once[seen] = true
			}
			found[id]++
		}
	}
	return found
}

func TestOpenRefuses(t *testing.T) {
	inUse := t.TempDir()
	open(t, stream.Config{Dir: inUse})

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	readOnly := t.TempDir()
	if err := os.Chmod(readOnly, 0o500); err != nil {
		t.Fatal(err)
	}

	damaged := t.TempDir()
	bus := open(t, stream.Config{Dir: damaged})
	if err := bus.Append(t.Context(), batch(0, 0)); err != nil {
		t.Fatal(err)
	}
	bus.Close()
	meta := filepath.Join(damaged, "jetstream", "$G", "streams", "SIG", "meta.inf")
	if err := os.WriteFile(meta, []byte("no longer what it was"), 0o600); err != nil {
		t.Fatal(err)
	}

	for name, c := range map[string]struct {
		dir, want string
	}{
		"no folder":   {"", "no folder"},
		"in use":      {inUse, "in use by another process"},
		"a file":      {file, "not a directory"},
		"not allowed": {readOnly, "must be writable"},
		"damaged":     {damaged, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.dir == readOnly && os.Getuid() == 0 {
				t.Skip("root may write everywhere")
			}
			bus, err := stream.Open(t.Context(), stream.Config{Dir: c.dir})
			if err == nil {
				bus.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.dir) {
				t.Errorf("error %q, want it to say %q and the folder", err, c.want)
			}
		})
	}
	if got, err := os.ReadFile(meta); err != nil || string(got) != "no longer what it was" {
		t.Errorf("opening changed the damaged log: %q, %v", got, err)
	}
}

func TestNearlyFullDiskRefuses(t *testing.T) {
	bus := open(t, stream.Config{Dir: t.TempDir(), MinFree: 1 << 60})
	err := bus.Append(t.Context(), batch(0, 0))
	if !errors.Is(err, muster.Unavailable) || !strings.Contains(err.Error(), "disk") {
		t.Errorf("Append: %v, want code %q and the disk named", err, muster.Unavailable)
	}
	if last, err := bus.Last(t.Context()); last != 0 || err != nil {
		t.Errorf("the log ends at %d, %v", last, err)
	}
}

// TestPositionsOutliveRecords shows that a log whose records have all gone by
// age goes on counting where it was, also after the process was closed.
func TestPositionsOutliveRecords(t *testing.T) {
	cfg := stream.Config{Dir: t.TempDir(), MaxAge: time.Second, Registerer: prometheus.NewRegistry()}
	bus := open(t, cfg)
	for i := range uint32(10) {
		if err := bus.Append(t.Context(), batch(0, i)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err := testutil.GatherAndCompare(cfg.Registerer.(prometheus.Gatherer), strings.NewReader(`
# HELP muster_stream_log_bytes Size of the log on disk.
# TYPE muster_stream_log_bytes gauge
muster_stream_log_bytes 0
`), "muster_stream_log_bytes"); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("records of a second are still there after twenty: %v", err)
		}
	}
	for range 2 {
		if last, err := bus.Last(t.Context()); last != 10 || err != nil {
			t.Fatalf("the empty log ends at %d, %v; want 10", last, err)
		}
		bus.Close()
		bus = open(t, cfg)
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	bus := open(t, stream.Config{Dir: t.TempDir(), Registerer: registry})
	if err := bus.Append(t.Context(), batch(0, 7)); err != nil {
		t.Fatal(err)
	}
	if err := bus.Append(t.Context(), []muster.Record{{Partition: 64}}); err == nil {
		t.Fatal("partition 64 was taken")
	}
	want := `
# HELP muster_stream_append_data_bytes_total Bytes of records written to the log, before compression.
# TYPE muster_stream_append_data_bytes_total counter
muster_stream_append_data_bytes_total 960
# HELP muster_stream_append_records_total Records written to the log.
# TYPE muster_stream_append_records_total counter
muster_stream_append_records_total 64
# HELP muster_stream_log_position Position of the newest record of the log.
# TYPE muster_stream_log_position gauge
muster_stream_log_position 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want),
		"muster_stream_append_data_bytes_total", "muster_stream_append_records_total", "muster_stream_log_position"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	bus.Close()
	if left, err := testutil.GatherAndCount(registry); left != 0 || err != nil {
		t.Errorf("after Close %d metrics are still registered, %v", left, err)
	}
}

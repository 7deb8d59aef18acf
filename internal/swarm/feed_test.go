package swarm

import (
	"bytes"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"muster"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 500, time.UTC)

const engineID = "3d1219c7c4c5404aaa1f6d2a48adfda40HFJYEfp4dfsxc6D"

func decodeBatch(t testing.TB, body []byte) []signal178 {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	var batch []signal178
	if err := d.Decode(&batch); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return batch
}

func TestBatchIsWhatAnEngineSends(t *testing.T) {
	uuid4 := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	sources := NewSources(500, 1.1, 7)
	feed := NewFeed(sources, [2]uint64{1, 2})
	body := feed.Batch(2000, engineID, noon)
	batch := decodeBatch(t, body)
	if len(batch) != 2000 || len(feed.UUIDs()) != 2000 {
		t.Fatalf("got %d signals and %d uuids, want 2000", len(batch), len(feed.UUIDs()))
	}
	if per := len(body) / len(batch); per < 950 || per > 1100 {
		t.Errorf("a signal has %d bytes, want about 1.0 kB", per)
	}
	known := map[string]scenario{}
	for _, s := range scenarios {
		known[s.name] = s
	}
	seen := map[string]bool{}
	for i, s := range batch {
		if s.UUID != feed.UUIDs()[i].String() {
			t.Fatalf("signal %d has uuid %s, UUIDs says %s", i, s.UUID, feed.UUIDs()[i])
		}
		d := s.Decisions[0]
		for _, u := range []string{s.UUID, d.UUID} {
			if !uuid4.MatchString(u) || seen[u] {
				t.Fatalf("uuid %q is no version 4 or was there before", u)
			}
			seen[u] = true
		}
		hub := known[s.Scenario]
		if hub.name == "" || s.ScenarioHash != hub.hash || s.ScenarioVersion != hub.version || s.ScenarioTrust != "certified" || d.Scenario != s.Scenario {
			t.Fatalf("signal %d is not certified as the hub has it: %+v", i, s)
		}
		if d.Type != "ban" || d.Value != s.Source.Value || s.Source.IP != s.Source.Value || d.Origin != "crowdsec" || len(s.Decisions) != 1 {
			t.Fatalf("signal %d: wrong decision: %+v", i, s)
		}
		src, err := muster.ParseSource(s.Source.Value)
		if err != nil || src.IsReserved() {
			t.Fatalf("signal %d is about %q: %v", i, s.Source.Value, err)
		}
		if p, err := netip.ParsePrefix(s.Source.Range); err != nil || !p.Contains(src.Addr()) {
			t.Fatalf("signal %d: range %q does not hold %s", i, s.Source.Range, src)
		}
		start, err1 := time.Parse(time.RFC3339Nano, s.StartAt)
		stop, err2 := time.Parse(time.RFC3339Nano, s.StopAt)
		if err1 != nil || err2 != nil || !start.Before(stop) || stop.After(noon) || noon.Sub(start) > 2*time.Second {
			t.Fatalf("signal %d: times %s to %s", i, s.StartAt, s.StopAt)
		}
		span := stop.Sub(start)
		want := "events over " + span.String() + ") at " + stop.Format("2006-01-02 15:04:05.000000000 -0700 MST")
		if got := strings.ReplaceAll(s.Message, "0ms)", "ms)"); !strings.HasPrefix(s.Message, "Ip "+d.Value+" performed '"+s.Scenario+"' (") ||
			!strings.Contains(trimZeros(got), trimZeros(want)) {
			t.Fatalf("signal %d: message %q, want it to end in %q", i, s.Message, want)
		}
		for _, c := range s.Context {
			var list []string
			if err := json.Unmarshal([]byte(c.Value), &list); err != nil || len(list) == 0 {
				t.Fatalf("signal %d: context %q is no JSON array: %v", i, c.Value, err)
			}
		}
	}
}

// trimZeros drops the zeros that end a span's milliseconds, which Go's own
// form of a duration never has.
func trimZeros(s string) string {
	return regexp.MustCompile(`0*ms`).ReplaceAllString(s, "ms")
}

// The order of keys and the header are those of a recorded request.
func TestBatchMatchesCapture(t *testing.T) {
	shared := os.Getenv("MUSTER_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	capture, err := os.ReadFile(filepath.Join(shared, "reference", "captures", "178-07-signals-certified-and-manual.http"))
	if err != nil {
		t.Skip("the recorded requests are not beside the project: ", err)
	}
	_, body, _ := bytes.Cut(capture, []byte("\n\n"))
	real := keys(t, body)
	ours := keys(t, NewFeed(NewSources(10, 1.1, 1), [2]uint64{1, 2}).Batch(1, engineID, noon))
	// The recording engine had no geolocation: ours says more about the source.
	geo := map[string]bool{"as_name": true, "as_number": true, "cn": true, "latitude": true, "longitude": true, "range": true}
	var kept []string
	for _, k := range ours {
		if !geo[k] {
			kept = append(kept, k)
		}
	}
	want := real[:len(kept)]
	got := strings.Join(dropContext(kept), " ")
	if want := strings.Join(dropContext(want), " "); !strings.HasPrefix(strings.Join(dropContext(real), " "), got) {
		t.Errorf("keys in order:\n got %s\nwant %s", got, want)
	}
}

// keys lists the keys of all objects in the order of the text.
func keys(t *testing.T, body []byte) []string {
	t.Helper()
	var all []string
	for _, m := range regexp.MustCompile(`"([a-z_]+)":`).FindAllSubmatch(body, -1) {
		all = append(all, string(m[1]))
	}
	if len(all) == 0 {
		t.Fatal("no keys")
	}
	return all
}

// dropContext leaves out the entries of context, of which there may be several.
func dropContext(keys []string) []string {
	var out []string
	for _, k := range keys {
		if k != "key" && (k != "value" || len(out) == 0 || out[len(out)-1] != "context") {
			out = append(out, k)
		}
	}
	return out
}

func TestPackCompressesLikeEngines(t *testing.T) {
	feed := NewFeed(NewSources(1000, 1.1, 1), [2]uint64{1, 2})
	small := feed.Batch(3, engineID, noon)
	if wire, gzipped := feed.Pack(small); gzipped || !bytes.Equal(wire, small) {
		t.Errorf("a body of %d bytes was compressed; engines do so from %d", len(small), gzipFrom)
	}
	body := bytes.Clone(feed.Batch(50, engineID, noon))
	for range 2 { // the second time the writer is reused
		wire, gzipped := feed.Pack(body)
		if !gzipped || len(wire) < 5000 || len(wire) > 12000 {
			t.Fatalf("a body of %d bytes became %d (compressed: %t), want 5 to 12 kB", len(body), len(wire), gzipped)
		}
		z, err := gzip.NewReader(bytes.NewReader(wire))
		if err != nil {
			t.Fatal(err)
		}
		back, err := io.ReadAll(z)
		if err != nil || !bytes.Equal(back, body) {
			t.Fatalf("does not decompress to what was packed: %v", err)
		}
	}
}

func TestRangeReportsEverySourceOnce(t *testing.T) {
	sources := NewSources(120, 1.1, 3)
	feed := NewFeed(sources, [2]uint64{5, 6})
	got := map[string]int{}
	for first := 0; first < 120; first += 50 {
		for _, s := range decodeBatch(t, feed.Range(first, min(first+50, 120), engineID, noon)) {
			got[s.Source.Value]++
		}
	}
	for i := range sources.Len() {
		if got[sources.Addr(i)] != 1 {
			t.Errorf("%s was reported %d times, want once", sources.Addr(i), got[sources.Addr(i)])
		}
	}
}

func TestSourcesAreAFewOftenAndManySeldom(t *testing.T) {
	sources := NewSources(3000, 1.1, 3)
	feed := NewFeed(sources, [2]uint64{5, 6})
	count := map[string]int{}
	v6 := 0
	const n = 8000
	for _, s := range decodeBatch(t, feed.Batch(n, engineID, noon)) {
		count[s.Source.Value]++
		if strings.Contains(s.Source.Value, ":") {
			v6++
		}
	}
	if top := count[sources.Addr(0)]; top < n/200 || top > n/20 {
		t.Errorf("the most popular address made %d of %d signals, want between 0.5 and 5 %%", top, n)
	}
	if len(count) < 1200 {
		t.Errorf("only %d of 3,000 addresses were reported, want a long tail", len(count))
	}
	if v6 == 0 {
		t.Error("no IPv6 address was reported")
	}
	again := NewSources(3000, 1.1, 3)
	if again.Addr(77) != sources.Addr(77) || NewSources(100, 1.1, 4).Addr(7) == sources.Addr(7) {
		t.Error("want the same pool for the same seed, and another for another")
	}
}

func TestBatchAllocatesNothing(t *testing.T) {
	feed := NewFeed(NewSources(1000, 1.1, 1), [2]uint64{1, 2})
	do := func() { feed.Pack(feed.Batch(50, engineID, noon)) }
	do()
	if n := testing.AllocsPerRun(20, do); n > 1 {
		t.Errorf("%v allocations per batch, want at most the compressor's own", n)
	}
}

func BenchmarkBatch(b *testing.B) {
	feed := NewFeed(NewSources(50_000, 1.1, 1), [2]uint64{1, 2})
	b.ReportAllocs()
	b.SetBytes(int64(len(feed.Batch(50, engineID, noon))))
	for b.Loop() {
		feed.Batch(50, engineID, noon)
	}
}

func BenchmarkPack(b *testing.B) {
	feed := NewFeed(NewSources(50_000, 1.1, 1), [2]uint64{1, 2})
	body := feed.Batch(50, engineID, noon)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	var wire []byte
	for b.Loop() {
		wire, _ = feed.Pack(body)
	}
	b.ReportMetric(float64(len(wire)), "packed-B")
}

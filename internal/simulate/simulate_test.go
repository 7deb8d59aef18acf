package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster/internal/crowd"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tiny is a story of a small world that is over quickly, with slander.
func tiny(t *testing.T) Scenario {
	t.Helper()
	all, err := Read(strings.NewReader(`
name: tiny
about: A small world.
days: 12
measure_from: 2
world: {watchers: 60, organisations: 40, networks: 20, honeypots: 6, attackers: 20, scanners: 3, benign: 100, shared: 10, crawlers: 3, canaries: 20, mistakes: 0.1, forged: 1}
adversary: {aim: slander, machines: 20, networks: 4, joins: 1, attacks: 8, per_day: 3}
targets: {canaries_published: 0, target_published_rate: 0.01, blocked_share_of_oracle: 0.2}
`), "tiny")
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func encode(t *testing.T, cfg Config) string {
	t.Helper()
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestSameSeedSameJSON(t *testing.T) {
	bombed := tiny(t)
	bombed.Name, bombed.Adversary.Aim, bombed.Adversary.Disguise = "bombed", Bomb, Genuine
	probe := tiny(t)
	probe.Name, probe.Adversary.Aim, probe.Adversary.Disguise = "probe", Probe, Genuine
	cfg := Config{Scenarios: []Scenario{tiny(t), bombed, probe}, Seed: 7, Seeds: 2, Parallel: 1}
	one := encode(t, cfg)
	cfg.Parallel = 4
	if diff := cmp.Diff(one, encode(t, cfg)); diff != "" {
		t.Error("four runs at a time and one after the other differ:", diff)
	}
	cfg.Seed = 8
	if one == encode(t, cfg) {
		t.Error("another seed gives the same")
	}
}

// TestTrafficIsTheSameWhateverTheEngineDoes: parameters can only be compared when
// both have seen the same attacks.
func TestTrafficIsTheSameWhateverTheEngineDoes(t *testing.T) {
	s := tiny(t)
	events := func(p crowd.Parameters) (n []int) {
		trace, err := once(t.Context(), &s, p, 3, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range trace.Days {
			n = append(n, d.Events)
		}
		return n
	}
	never := crowd.Default()
	never.Listing.Groups = 1000
	if diff := cmp.Diff(events(crowd.Default()), events(never)); diff != "" {
		t.Error("attacks a day, with and without a list:", diff)
	}
}

// TestJSONShape is about names and their order, not about how good the engine is.
func TestJSONShape(t *testing.T) {
	s := tiny(t)
	o := Outcome{scenario: &s, Settings: []Setting{{"Listing.Threshold", "4"}}}
	for k := range 2 {
		trace := &Trace{}
		for i := range trace.Samples {
			trace.Samples[i] = Sample{Num: float64(k*i + 1), Den: 100}
		}
		trace.Samples[len(trace.Samples)-1] = Sample{} // not measured
		o.traces = append(o.traces, trace)
	}
	o.finish()
	got, err := json.MarshalIndent(Result{Seed: 1, Seeds: 2, Version: 1, Scenarios: []Outcome{o}}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/result.json"
	if *update {
		if err := os.WriteFile(golden, append(got, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
		t.Error("run with -update if that is meant:", diff)
	}
}

func TestTableAndReport(t *testing.T) {
	r, err := Run(t.Context(), Config{Scenarios: []Scenario{tiny(t)}, Seed: 1, Seeds: 2})
	if err != nil {
		t.Fatal(err)
	}
	var table, page bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"tiny: A small world.", "canaries_published", "≤ 0", "of 3 targets met, over 2 seeds from 1."} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
	if err := r.WriteHTML(&page, "muster simulate <tiny>"); err != nil {
		t.Fatal(err)
	}
	text := page.String()
	for _, want := range []string{"muster simulate &lt;tiny&gt;", "prefers-color-scheme: dark", "Publication delay", "Precision", "Coverage", "Trust", "adversary"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q on the page", want)
		}
	}
	if n := strings.Count(text, "<svg"); n != 5 {
		t.Errorf("%d plots; expected 5", n)
	}
	for _, bad := range []string{"NaN", "Inf", "<script", "http://", "https://", "ZgotmplZ"} {
		if strings.Contains(text, bad) {
			t.Errorf("%q is on the page", bad)
		}
	}
	names := map[string]bool{}
	for name, svg := range r.Plots {
		names[name] = true
		var root struct {
			XMLName xml.Name
			Label   string `xml:"aria-label,attr"`
		}
		if err := xml.Unmarshal(svg, &root); err != nil || root.XMLName.Local != "svg" || !strings.HasPrefix(root.Label, "tiny: ") {
			t.Errorf("%s: got %v, %v", name, root, err)
		}
		if bytes.Contains(svg, []byte("NaN")) {
			t.Errorf("%s has points that are none", name)
		}
	}
	if len(names) != 5 || !names["tiny-coverage"] {
		t.Errorf("expected five plots, tiny-coverage among them, got %v", names)
	}
}

func TestRunStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	days := 0
	_, err := Run(ctx, Config{Scenarios: []Scenario{tiny(t)}, Seeds: 50, Parallel: 1, Progress: func(s Share) {
		if days = s.Days; days == 3 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || days > 4 {
		t.Errorf("got %v after %d days; expected it to stop on the third", err, days)
	}
}

func TestCombine(t *testing.T) {
	none := Sample{}
	for _, c := range []struct {
		name    string
		how     over
		higher  bool
		samples []Sample
		want    float64
	}{
		{"median of an odd number", median, false, []Sample{{3, 1}, {1, 1}, none, {2, 1}}, 2},
		{"median of an even number", median, false, []Sample{{3, 1}, {1, 1}}, 2},
		{"pooled", pooled, false, []Sample{{1, 10}, {0, 90}, none}, 0.01},
		{"worst, the lower the better", worst, false, []Sample{{1, 2}, {3, 4}}, 0.75},
		{"worst, the higher the better", worst, true, []Sample{{1, 2}, {3, 4}}, 0.5},
		{"total", total, false, []Sample{{1, 1}, {2, 1}}, 3},
		{"nothing", pooled, false, []Sample{none}, math.NaN()},
	} {
		m := measure{higher: c.higher}
		if got := m.combine(c.how, c.samples); got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("%s: got %v; expected %v", c.name, got, c.want)
		}
	}
}

func TestRunsAreKept(t *testing.T) {
	cfg := Config{Scenarios: []Scenario{tiny(t)}, Seed: 1, Seeds: 2, Dir: t.TempDir()}
	run := func(cfg Config) *Result {
		t.Helper()
		r, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := run(cfg)
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "tiny-*-seed-[12].json"))
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v; expected one for each of two seeds", files, err)
	}
	if diff := cmp.Diff(first.Scenarios[0].traces, run(cfg).Scenarios[0].traces); diff != "" {
		t.Error("from the files:", diff)
	}
	if err := os.WriteFile(files[0], []byte(`{"Reports": 7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run(cfg).Scenarios[0].traces[0].Reports; got != 7 {
		t.Errorf("%d reports; expected those of the file", got)
	}
	cfg.Sweeps = []Sweep{{Parameter: "Listing.Threshold", Values: []string{"4"}}}
	if run(cfg).Scenarios[0].traces[0].Reports == 7 {
		t.Error("the file of other parameters was read; expected a run of its own")
	}
}

package replay

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/internal/tailor"
	"muster/internal/testkit"
)

var update = flag.Bool("update", false, "write the golden files")

func read(t testing.TB, text string) *Recording {
	t.Helper()
	rec, err := Read(strings.NewReader(text), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func run(t testing.TB, rec *Recording, c Config) *Result {
	t.Helper()
	res, err := Run(t.Context(), rec, c)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func small(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "small.csv"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What a replay of a small invented recording says: two sensors with the same
// visitors, and a third with others.
func TestGolden(t *testing.T) {
	var got bytes.Buffer
	if err := run(t, read(t, small(t)), Config{N: []int{5, 10, 40}}).WriteTable(&got); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "small.txt")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("the table changed; if it should, run with -update (-want +got):\n%s", diff)
	}
}

const sentSignal = `{"machine_id":"m","scenario":"crowdsecurity/ssh-bf","scenario_trust":"certified","stop_at":"2026-03-01T00:00:00Z","source":{"scope":"Ip","value":"80.1.1.1"}}` + "\n"

const header = "datetime,host,src,proto,type,spt,dpt\n"

func TestReadHoneypots(t *testing.T) {
	rec := read(t, header+
		"2013-03-04 00:00:01,b,1032051418,TCP,,6000,1433\n"+
		"2013-03-03 21:57:01,a,1032051418,UDP,,5270,5060\n"+
		"2013-03-03 21:57:01,b,7,ICMP,8,,\n")
	var got []string
	for _, e := range rec.Events {
		got = append(got, fmt.Sprint(time.Unix(e.At, 0).UTC().Format(time.DateTime), " ", rec.Victims[e.Victim], " ", rec.Sources[e.Source], " ", rec.Behaviours[e.Behaviour]))
	}
	want := []string{"2013-03-03 21:57:01 a 61.131.218.218 UDP/5060", "2013-03-03 21:57:01 b 0.0.0.7 ICMP/8", "2013-03-04 00:00:01 b 61.131.218.218 TCP/1433"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestReadErrors(t *testing.T) {
	row := "2013-03-03 21:57:01,a,1032051418,UDP,,5270,5060\n"
	signal := `{"machine":"m","at":"2026-03-01T00:00:00Z","source":"80.1.1.1","scope":"ip","scenario":"s","counts":true}` + "\n"
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "expected a recording"},
		{"another file", "a,b\n1,2\n", "expected the columns"},
		{"a header alone", header, "expected events, got none"},
		{"a column too few", header + row + "2013-03-03 21:57:01,a,1,TCP,,1\n", "line 3"},
		{"a bad time", header + row + "yesterday,a,1,TCP,,1,2\n", `line 3: datetime: expected a time like 2013-03-03 21:53:59, got "yesterday"`},
		{"no host", header + "2013-03-03 21:57:01,,1,TCP,,1,2\n", "line 2: host: expected a name"},
		{"a bad source", header + "2013-03-03 21:57:01,a,1.2.3.4,TCP,,1,2\n", "line 2: src: expected an IPv4 address as an integer"},
		{"a source too large", header + "2013-03-03 21:57:01,a,4294967296,TCP,,1,2\n", "line 2: src:"},
		{"a bad port", header + "2013-03-03 21:57:01,a,1,TCP,,1,65536\n", "line 2: dpt:"},
		{"a bad ICMP type", header + "2013-03-03 21:57:01,a,1,ICMP,,,\n", "line 2: type:"},
		{"a clock gone wrong", header + row + "2033-03-03 21:57:01,a,1,TCP,,1,2\n", "is a clock wrong?"},
		{"a server's clock gone wrong", signal + strings.Replace(sentSignal, "{", `{"received":"2056-01-01T00:00:00Z",`, 1), "is a clock wrong?"},
		{"bad JSON", signal + "{\n", "line 2: expected a signal"},
		{"no machine", strings.Replace(signal, `"machine":"m",`, "", 1), "line 1: machine:"},
		{"no time", strings.Replace(signal, "2026-03-01T00:00:00Z", "0001-01-01T00:00:00Z", 1), "line 1: at:"},
		{"a list of signals", "[" + signal + "]", "one signal a line"},
		{"a bad address", signal + "\n" + strings.Replace(signal, "80.1.1.1", "80.1.1", 1), "line 3: source:"},
		{"a bad AS", strings.Replace(signal, `{`, `{"reporter_as":"ASX",`, 1), "line 1: reporter_as: expected a number"},
		{"a bad network", strings.Replace(signal, `{`, `{"reporter_network":"10.1",`, 1), "line 1: reporter_network: "},
		{"a bad field of a sent one", strings.Replace(sentSignal, `"crowdsecurity/ssh-bf"`, `7`, 1), "line 1: field scenario: expected a string"},
		{"a sent one without scenario", strings.Replace(sentSignal, `"crowdsecurity/ssh-bf"`, `""`, 1), "line 1: no_scenario: "},
		{"a sent one without a time", strings.Replace(sentSignal, `"stop_at"`, `"other"`, 1), "line 1: stop_at: expected a time"},
		{"a line without end", signal + strings.Repeat(" ", maxLine+1), "line 2: bufio.Scanner: token too long"},
		{"no gzip", "\x1f\x8bx", "gzip:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec, err := Read(strings.NewReader(tt.text), Options{MaxBad: -1})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("expected an error with %q, got %v and %v", tt.want, rec, err)
			}
		})
	}
}

func TestTruncatedGzipIsAnError(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(small(t))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := Read(bytes.NewReader(b.Bytes()), Options{})
	if err != nil || len(whole.Events) != len(read(t, small(t)).Events) {
		t.Fatalf("expected the events of the plain file, got %v and %v", whole, err)
	}
	if rec, err := Read(bytes.NewReader(b.Bytes()[:b.Len()/2]), Options{}); err == nil {
		t.Errorf("expected an error, got %d events", len(rec.Events))
	}
}

// Signals as an operator exports them say what the same events as CSV say.
func TestSignalsAreMeasuredAsHoneypotsAre(t *testing.T) {
	rec := read(t, small(t))
	var lines strings.Builder
	events := slices.Clone(rec.Events)
	slices.Reverse(events) // what happened last comes first
	for _, e := range events {
		line, err := json.Marshal(map[string]any{
			"id": "00", "machine": rec.Victims[e.Victim], "organisation": "o", "at": time.Unix(e.At, 0).UTC(), "received": time.Unix(e.At+5, 0).UTC(),
			"source": rec.Sources[e.Source].String(), "scope": "ip", "scenario": rec.Behaviours[e.Behaviour], "counts": true, "fleet": false,
		})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%s\n", line)
	}
	lines.WriteString(`{"machine":"x","at":"2013-03-01T00:00:00Z","source":"80.1.1.1","scope":"ip","scenario":"custom","counts":false}` + "\n")
	lines.WriteString(`{"machine":"x","at":"2013-03-01T00:00:00Z","source":"FR","scope":"country","scenario":"s","counts":true}` + "\n")
	got, want := run(t, read(t, lines.String()), Config{}), run(t, rec, Config{})
	if got.Skipped != 2 || got.Format != Signals {
		t.Errorf("expected two skipped signals, got %d of %s", got.Skipped, got.Format)
	}
	got.Skipped, got.Format = want.Skipped, want.Format
	near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }) // sums in another order
	if diff := cmp.Diff(want, got, near); diff != "" {
		t.Errorf("the same events gave another result:\n%s", diff)
	}
}

// Whatever happens after the days to fit on changes neither what is fitted nor
// any result before it; and what happens on the last day changes no list.
func TestNothingLooksAhead(t *testing.T) {
	rec := read(t, small(t))
	want := run(t, rec, Config{})
	changed := *rec
	changed.Events = slices.Clone(rec.Events)
	for i, e := range changed.Events {
		if rec.day(e) >= want.FitDays {
			changed.Events[i].Source = int32(i % 50)
		}
	}
	got := run(t, &changed, Config{})
	if diff := cmp.Diff(want.Weights, got.Weights); diff != "" {
		t.Errorf("weights know of the second half:\n%s", diff)
	}
	if diff := cmp.Diff(want.First, got.First); diff != "" {
		t.Errorf("the first half's results know of the second:\n%s", diff)
	}
	if cmp.Equal(want.Next, got.Next) {
		t.Error("the second half's results do not depend on it")
	}

	last := *rec
	last.Events = slices.Clone(rec.Events)
	for i, e := range last.Events {
		if rec.day(e) == rec.Days()-1 {
			last.Events[i].Source = int32(i % 50)
		}
	}
	if got := run(t, &last, Config{}); got.Replaced["hits_100"] != want.Replaced["hits_100"] {
		t.Error("a list depends on the day that it is for")
	}
}

func TestResultIsTheSameTwice(t *testing.T) {
	rec := read(t, small(t))
	if diff := cmp.Diff(run(t, rec, Config{}), run(t, rec, Config{})); diff != "" {
		t.Errorf("the same recording gave two results:\n%s", diff)
	}
}

// One attacker comes to a, then to b, then to b again; another comes once. Lists
// are too long to matter.
func TestOnline(t *testing.T) {
	text := header
	for day := 1; day <= 8; day++ { // something to fit on
		text += fmt.Sprintf("2013-03-%02d 12:00:00,a,%d,TCP,,1,22\n2013-03-%02d 12:00:00,b,%d,TCP,,1,22\n", day, 1000*day, day, 1000*day+500)
	}
	text += "2013-03-10 08:00:00,a,7,TCP,,1,22\n" + // first contact, nobody knows
		"2013-03-10 08:00:30,b,7,TCP,,1,22\n" + // too soon for the list
		"2013-03-10 08:02:00,b,7,TCP,,1,22\n" + // blocked
		"2013-03-11 08:00:00,a,9,TCP,,1,22\n" + // first contact
		"2013-03-11 09:00:00,b,9,TCP,,1,22\n" + // blocked at first contact
		"2013-03-16 09:00:00,b,9,TCP,,1,22\n" + // no longer listed
		"2013-03-30 00:00:00,a,11,TCP,,1,22\n"
	res := run(t, read(t, text), Config{FitDays: 8})
	got := []int{res.EventsOnline, res.EventsBlocked, res.FirstContacts, res.StoppedAtFirst}
	if want := []int{7, 2, 5, 1}; !slices.Equal(got, want) {
		t.Errorf("events, blocked, first contacts, stopped: expected %v, got %v", want, got)
	}
	// 7 and 9 are entered for a and b and come again; 9 is entered once more
	// after it had lapsed, and does not.
	if res.Listings != 6 || res.Precision != 4./6 {
		t.Errorf("expected 6 listings, 4 of them right, got %d, %.3f", res.Listings, res.Precision)
	}
}

func TestListsAreNeverLongerThanAsked(t *testing.T) {
	res := run(t, read(t, small(t)), Config{N: []int{5}})
	if res.ListSizeMax > 5 || res.ListSize == 0 {
		t.Errorf("expected lists of at most 5, got %d, mean %.1f", res.ListSizeMax, res.ListSize)
	}
}

func TestConfigErrors(t *testing.T) {
	rec := read(t, small(t))
	for _, c := range []Config{{N: []int{0}}, {N: []int{2_000_000}}, {FitDays: 1}, {FitDays: 15}} {
		if _, err := Run(t.Context(), rec, c); err == nil {
			t.Errorf("%+v: expected an error", c)
		}
	}
	many := *rec
	many.Victims = make([]string, maxVictims+1)
	if _, err := Run(t.Context(), &many, Config{}); err == nil || !strings.Contains(err.Error(), "machines") {
		t.Errorf("expected an error about too many machines, got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, rec, Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("expected %v, got %v", context.Canceled, err)
	}
}

func TestDefaultKeepsTheWeights(t *testing.T) {
	if got := run(t, read(t, small(t)), Config{Default: true}).Weights; got != tailor.DefaultWeights() {
		t.Errorf("expected the default weights, got %+v", got)
	}
	if got := run(t, read(t, small(t)), Config{}).Weights; got == tailor.DefaultWeights() {
		t.Error("expected fitted weights")
	}
}

func TestBootstrap(t *testing.T) {
	if got, want := bootstrap([]float64{2, 2, 2}), (Gain{2, 2, 2}); got != want {
		t.Errorf("expected %v, got %v", want, got)
	}
	var days []float64
	for i := range 100 {
		days = append(days, float64(i%2)) // standard error 0.05
	}
	if g := bootstrap(days); g.Mean != 0.5 || g.Low < 0.38 || g.Low > 0.42 || g.High < 0.58 || g.High > 0.62 {
		t.Errorf("expected about 0.4 to 0.6, got %+v", g)
	}
}

// The nine honeypots: on the days that nothing was fitted on, our lists hold
// more of the next day's attackers than those of any baseline, at every length,
// and so they would on other days.
func TestRealData(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("takes some seconds, and minutes with the race detector")
	}
	f, err := os.Open(testkit.Shared(t, "data", "honeypots", "sensors-2013-03-to-06.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	rec, err := Read(f, Options{})
	if err != nil {
		t.Fatal(err)
	}
	res := run(t, rec, Config{})
	var table strings.Builder
	if err := res.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s\nweights: %+v", table.String(), res.Weights)
	for name, gain := range map[string]map[string]Gain{
		"plain count": res.GainPlainCount, "local count": res.GainLocalCount, "decay": res.GainDecay, "similarity × decay": res.GainSimilarity,
	} {
		for n, g := range gain {
			if g.Low <= 0 {
				t.Errorf("%s: expected more hits than by %s, got a gain of %+.2f (%+.2f to %+.2f)", n, name, g.Mean, g.Low, g.High)
			}
		}
	}
	// The judge's one list is no match for lists of thousands that are made for each
	// sensor, but what is on it is right.
	j := judge(t, rec, JudgeConfig{})
	var judged strings.Builder
	if err := j.WriteTable(&judged, res); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", judged.String())
	if j.BlockedRate < 0.2 || j.Precision < 0.75 || j.Canaries.Published != 0 || j.ThirdToList == nil || *j.ThirdToList > 60 {
		t.Errorf("the judge: expected a fifth of the events to be blocked by a list of which three quarters are seen again, got:\n%s", judged.String())
	}
	// What stands in the product by default was fitted on these days.
	near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 0.03 })
	if diff := cmp.Diff(tailor.DefaultWeights(), res.Weights, near); diff != "" {
		t.Errorf("the default weights are not those fitted (-default +fitted):\n%s", diff)
	}
}

package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster"
	"muster/internal/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// history writes signals as engines send them.
type history struct {
	strings.Builder
	start time.Time
	n     int
}

func newHistory() *history {
	return &history{start: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
}

// says adds what machines, each of an organisation of its own, say about a
// source at a time since the start.
func (h *history) says(at time.Duration, source string, machines ...string) {
	for _, m := range machines {
		h.n++
		fmt.Fprintf(h, `{"uuid":"%d","machine":%q,"reporter_network":"198.51.%d.1","reporter_as":%d,"stop_at":%q,"scenario":"crowdsecurity/ssh-bf","scenario_trust":"certified","source":{"scope":"Ip","value":%q}}`+"\n",
			h.n, m, m[len(m)-1], 64496+int(m[len(m)-1]), h.start.Add(at).Format(time.RFC3339), source)
	}
}

func judge(t testing.TB, rec *Recording, c JudgeConfig) *Judged {
	t.Helper()
	res, err := Judge(t.Context(), rec, c)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func parse(t testing.TB, texts ...string) (all []muster.Source) {
	t.Helper()
	for _, text := range texts {
		s, err := muster.ParseSource(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

const (
	attacker = "80.1.1.1"
	innocent = "80.2.2.2"
	known    = "80.3.3.3" // to be good
)

// story is a day and a half of a young network of five, with a poisoner p who
// reports one that is known to be good, and then one that a did not like either.
func story(poisoned bool) *history {
	h := newHistory()
	h.says(1*time.Hour, attacker, "a")
	h.says(2*time.Hour, attacker, "b")                // listed
	h.says(2*time.Hour+30*time.Second, attacker, "c") // not yet on the readers' lists
	h.says(3*time.Hour, attacker, "c")                // blocked
	h.says(4*time.Hour, attacker, "d")                // blocked at first contact
	if poisoned {
		h.says(5*time.Hour, known, "p")
	}
	h.says(6*time.Hour, innocent, "a")
	h.says(7*time.Hour, innocent, "p")
	h.says(36*time.Hour, "80.4.4.4", "b")
	return h
}

func TestAPoisonerAndACanary(t *testing.T) {
	canary, err := muster.NewCanary(muster.OriginOperator, known)
	if err != nil {
		t.Fatal(err)
	}
	c := JudgeConfig{Canaries: policy.NewCanaries([]muster.Canary{canary}), Explain: parse(t, attacker, innocent, known)}

	res := judge(t, read(t, story(true).String()), c)
	if want := (CanaryCount{Hits: 1, Hit: 1, Machines: 1}); res.Canaries != want {
		t.Errorf("canaries: expected %+v, got %+v", want, res.Canaries)
	}
	if res.Ranks[0] != 1 || res.TrustEvents["held"] != 1 {
		t.Errorf("expected the poisoner to be held, got ranks %v, events %v", res.Ranks, res.TrustEvents)
	}
	if got := [...]int{res.Signals, res.Sources, res.Machines, res.Networks, res.Listed, res.Ended, res.SourcesListed}; got != [...]int{9, 4, 5, 5, 1, 0, 1} {
		t.Errorf("signals, sources, machines, networks, listed, ended, sources listed: got %v", got)
	}
	want := Served{
		Events: 9, Blocked: 2, BlockedRate: 2. / 9, Later: 5, LaterBlocked: 2, LaterRate: 2. / 5,
		FirstContacts: 8, StoppedAtFirst: 1, StoppedRate: 1. / 8, ListSize: 34. / 35, ListSizeMax: 1,
		FirstToList: new(float64(3600)), ThirdToList: new(float64(0)), ThirdReported: 1, ThirdListed: 1,
	}
	if diff := cmp.Diff(want, res.Served, cmp.AllowUnexported(Served{})); diff != "" {
		t.Errorf("what the list was worth (-want +got):\n%s", diff)
	}
	bad, good, canaried := res.Explained[0], res.Explained[1], res.Explained[2]
	if !bad.Listed || len(bad.History) != 1 || bad.History[0].At != time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC) {
		t.Errorf("the attacker: got %+v", bad)
	}
	if good.Listed || !good.Known || len(good.History) != 0 || canaried.Listed || !canaried.Canary {
		t.Errorf("the innocent: got %+v; the canary: %+v", good, canaried)
	}

	res = judge(t, read(t, story(false).String()), c)
	if !res.Explained[1].Listed {
		t.Errorf("without the canary nothing tells the poisoner from others: got %+v", res.Explained[1])
	}
}

// A liar that joins in when others have told already must not take down what
// stands without it, nor the honest who told it.
func TestALiarsCompanyOfItsOwnChoosing(t *testing.T) {
	canary, err := muster.NewCanary(muster.OriginOperator, known)
	if err != nil {
		t.Fatal(err)
	}
	h := newHistory()
	h.says(1*time.Hour, attacker, "a")
	h.says(2*time.Hour, attacker, "b") // listed
	h.says(3*time.Hour, attacker, "c")
	h.says(4*time.Hour, attacker, "d", "p")
	h.says(5*time.Hour, known, "p")
	h.says(36*time.Hour, "80.4.4.4", "b")

	res := judge(t, read(t, h.String()), JudgeConfig{Canaries: policy.NewCanaries([]muster.Canary{canary}), Explain: parse(t, attacker)})
	if res.Ended != 0 || res.Ranks[0] != 1 || res.TrustEvents["company"] != 0 {
		t.Errorf("expected the listing to stay and p alone to be held, got %d ended, ranks %v, events %v: %+v",
			res.Ended, res.Ranks, res.TrustEvents, res.Explained[0])
	}
}

func TestParametersAreTheJudges(t *testing.T) {
	h := newHistory()
	h.says(time.Hour, attacker, "a", "b")
	h.says(2*24*time.Hour, "80.4.4.4", "a")
	rec := read(t, h.String())
	c := JudgeConfig{Explain: parse(t, attacker)}
	if res := judge(t, rec, c); res.Listed != 1 || res.Ended != 0 {
		t.Errorf("expected one listing, got %d, of which %d ended", res.Listed, res.Ended)
	}
	c.Settings = []Setting{{"Listing.Expiry", "24h"}}
	res := judge(t, rec, c)
	ended := h.start.Add(25 * time.Hour)
	if res.Ended != 1 || res.Explained[0].History[1].At.Sub(ended).Abs() > time.Minute {
		t.Errorf("expected it to end at %s, got %+v", ended, res.Explained[0].History)
	}
	c.Settings = []Setting{{"Listing.Groups", "3"}}
	if res := judge(t, rec, c); res.Listed != 0 {
		t.Errorf("expected no listing by two of three, got %d", res.Listed)
	}
	c.Settings = []Setting{{"Listing.Nonsense", "3"}}
	if _, err := Judge(t.Context(), rec, c); err == nil {
		t.Error("expected an error for a parameter that there is not")
	}
}

// A subscriber has a whole /64; a range is listed for its members, and blocks
// those of its addresses that nobody has reported.
func TestSubscribersAndRanges(t *testing.T) {
	h := newHistory()
	h.says(time.Hour, "2a00:1::1", "a")
	h.says(2*time.Hour, "2a00:1::2", "b")
	for i := range 12 {
		h.says(3*time.Hour, fmt.Sprint("80.5.5.", i+1), "a", "b", "c", "d", "e", "f")
	}
	h.says(4*time.Hour, "80.5.5.200", "a")
	res := judge(t, read(t, h.String()), JudgeConfig{
		Explain: parse(t, "2a00:1::7", "80.5.5.200"), Settings: []Setting{{"Range.OneGroup", "1"}},
	})
	if !res.Explained[0].Listed || res.Explained[0].Subject.String() != "2a00:1::/64" {
		t.Errorf("expected the subscriber to be listed, got %+v", res.Explained[0])
	}
	if x := res.Explained[1]; res.RangesListed != 1 || !x.Listed || x.History[0].Source.String() != "80.5.5.0/24" {
		t.Errorf("expected the range to be listed, got %d and %+v", res.RangesListed, x)
	}
	if res.StoppedAtFirst != 1 {
		t.Errorf("expected one to be stopped at first contact, got %d", res.StoppedAtFirst)
	}
}

// Where nobody knows networks, organisations stand for them.
func TestWithoutNetworks(t *testing.T) {
	text := func(organisations ...string) string {
		var b strings.Builder
		for i, o := range organisations {
			fmt.Fprintf(&b, `{"machine":"m%d","organisation":%q,"at":"2026-03-01T0%d:00:00Z","source":"80.1.1.1","scope":"ip","scenario":"crowdsecurity/ssh-bf","counts":true}`+"\n", i, o, i)
		}
		return b.String()
	}
	if res := judge(t, read(t, text("o", "p")), JudgeConfig{}); res.Listed != 1 || res.Networks != 0 {
		t.Errorf("expected two organisations to be enough, got %d listings, %d networks", res.Listed, res.Networks)
	}
	if res := judge(t, read(t, text("o", "o", "o")), JudgeConfig{}); res.Listed != 0 {
		t.Errorf("expected one organisation not to be enough, got %d listings", res.Listed)
	}
}

func TestHoneypotsNeedNoTrust(t *testing.T) {
	rec := read(t, small(t))
	watchers, traps := judge(t, rec, JudgeConfig{}), judge(t, rec, JudgeConfig{Honeypots: true})
	if traps.Ranks != [6]int{5: 3} {
		t.Errorf("expected three of the top rank, got %v", traps.Ranks)
	}
	if watchers.Ranks == traps.Ranks || watchers.Listed == 0 || traps.Listed == 0 {
		t.Errorf("watchers: %v and %d listings, honeypots: %d", watchers.Ranks, watchers.Listed, traps.Listed)
	}
}

// Signals are judged in the order in which they were received, whatever their
// order in the file and the times at which they happened.
func TestJudgedAsReceived(t *testing.T) {
	lines := slices.Collect(strings.Lines(story(true).String()))
	want := judge(t, read(t, strings.Join(lines, "")), JudgeConfig{})
	slices.Reverse(lines)
	if diff := cmp.Diff(want, judge(t, read(t, strings.Join(lines, "")), JudgeConfig{}), cmp.AllowUnexported(Served{})); diff != "" {
		t.Errorf("in another order (-want +got):\n%s", diff)
	}
	late := strings.Replace(story(true).String(), `"uuid":"2",`, `"uuid":"2","received":"2026-03-01T03:30:00Z",`, 1)
	res := judge(t, read(t, late), JudgeConfig{Explain: parse(t, attacker)})
	if at := res.Explained[0].History[0].At; at.Format(time.TimeOnly) != "02:00:30" {
		t.Errorf("expected it to be listed by c, who was heard before b, got %s", at)
	}
}

func TestJudgedGolden(t *testing.T) {
	rec := read(t, small(t))
	c := JudgeConfig{Explain: []muster.Source{rec.Sources[rec.Events[0].Source]}, Settings: []Setting{{"Listing.Expiry", "48h"}}}
	var got bytes.Buffer
	if err := judge(t, rec, c).WriteTable(&got, run(t, rec, Config{N: []int{5, 10, 40}})); err != nil {
		t.Fatal(err)
	}
	h := story(true)
	if err := judge(t, read(t, h.String()), JudgeConfig{Explain: parse(t, attacker, innocent, "8.8.8.8", "2a00:1::7")}).WriteTable(&got, nil); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "judged.txt")
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
		t.Errorf("the text changed; if it should, run with -update (-want +got):\n%s", diff)
	}
}

func TestJudgeStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Judge(ctx, read(t, story(true).String()), JudgeConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("expected %v, got %v", context.Canceled, err)
	}
	if _, err := Judge(t.Context(), read(t, story(true).String()), JudgeConfig{FitDays: 2}); err == nil {
		t.Error("expected an error for more days to fit on than there are")
	}
}

func TestSettings(t *testing.T) {
	all, err := ReadSettings(strings.NewReader("Listing:\n  Threshold: 4\n  Expiry: 48h\nVoices.SoloWitness: false\nTrust:\n  Caps:\n  - Weight: 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Setting{{"Listing.Expiry", "48h"}, {"Listing.Threshold", "4"}, {"Trust.Caps.0.Weight", "1"}, {"Voices.SoloWitness", "false"}}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	p, err := Parameters(append(all, Setting{"Listing.Threshold", "6.5"}, Setting{"Listing.Groups", "4"}))
	if err != nil || p.Listing.Threshold != 6.5 || p.Listing.Groups != 4 || p.Listing.Expiry != 48*time.Hour || p.Trust.Caps[0].Weight != 1 || p.Voices.SoloWitness {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, tt := range []struct{ path, value, want string }{
		{"Nonsense", "1", "expected one of Version, Listing, "},
		{"Listing", "1", "expected one of Threshold, "},
		{"Listing.Groups", "2.5", "expected a whole number"},
		{"Listing.Expiry", "3", "expected a duration, as 72h"},
		{"Listing.Threshold", "much", "expected a number"},
		{"Voices.SoloWitness", "maybe", "expected true or false"},
		{"Trust.Caps.9.Weight", "1", "expected a number from 0 to 3"},
		{"Trust.Caps", "1", "expected a number from 0 to 3"},
		{"Listing.Groups.0", "1", "expected nothing below a int"},
	} {
		if _, err := Parameters([]Setting{{tt.path, tt.value}}); err == nil || !strings.Contains(err.Error(), tt.path) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s=%s: expected an error with %q, got %v", tt.path, tt.value, tt.want, err)
		}
	}
	for _, text := range []string{"", "Listing.Groups", "=4", "Listing.Groups="} {
		if _, err := ParseSetting(text); err == nil {
			t.Errorf("%q: expected an error", text)
		}
	}
	if _, err := ReadSettings(strings.NewReader("- 4\n")); err == nil {
		t.Error("expected an error for a list")
	}
}

func BenchmarkJudge(b *testing.B) {
	h := newHistory()
	for i := range 100_000 {
		h.says(time.Duration(i)*time.Second, fmt.Sprintf("80.%d.%d.%d", i%7, i*31%200, i*17%50), string(rune('a'+i%26)))
	}
	rec := read(b, h.String())
	b.ReportAllocs()
	for b.Loop() {
		judge(b, rec, JudgeConfig{})
	}
	b.ReportMetric(float64(b.N*len(rec.Events))/b.Elapsed().Seconds(), "signals/s")
}

func BenchmarkRead(b *testing.B) {
	h := newHistory()
	for i := range 10_000 {
		h.says(time.Duration(i)*time.Second, attacker, string(rune('a'+i%26)))
	}
	b.ReportAllocs()
	b.SetBytes(int64(h.Len()))
	for b.Loop() {
		if _, err := Read(strings.NewReader(h.String()), Options{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*10_000)/b.Elapsed().Seconds(), "signals/s")
}

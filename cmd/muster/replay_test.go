package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/internal/replay"
)

func measureReplay(t *testing.T, c replayCmd, name string) (*replayed, string) {
	t.Helper()
	f, err := os.Open("../../internal/replay/testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	c.File = name
	res, err := c.measure(t.Context(), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.print(&out, res); err != nil {
		t.Fatal(err)
	}
	return res, out.String()
}

func TestReplayPrintsATableOrOneObject(t *testing.T) {
	c := replayCmd{List: []int{10, 20}}
	f, err := os.Open("../../internal/replay/testdata/small.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	phases := map[string]bool{}
	res, err := c.measure(t.Context(), f, func(p replay.Progress) { phases[p.Phase] = true })
	if err != nil {
		t.Fatal(err)
	}
	if !phases["reading"] || !phases["ranking"] || !phases["online"] || !phases["judging"] {
		t.Errorf("expected to be told of every phase, got %v", phases)
	}

	var out bytes.Buffer
	if err := c.print(&out, res); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "similarity × decay") || !strings.Contains(out.String(), "machines by rank") || !strings.Contains(out.String(), "signals/s") {
		t.Errorf("expected both tables, got:\n%s", out.String())
	}

	out.Reset()
	c.JSON = true
	if err := c.print(&out, res); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Ours       map[string]float64 `json:"ours"`
		Plain      map[string]float64 `json:"plain_count"`
		Local      map[string]float64 `json:"local_count"`
		Similarity map[string]float64 `json:"similarity_decay"`
		Blocked    *int               `json:"events_blocked"`
		Stopped    *int               `json:"attackers_stopped_at_first_contact"`
		Size       *float64           `json:"list_size"`
		Precision  *float64           `json:"precision"`
		Judge      struct {
			Blocked  *int     `json:"events_blocked"`
			Third    *float64 `json:"third_report_to_list_s"`
			Ranks    []int    `json:"ranks"`
			Canaries struct {
				Published *int `json:"published"`
			} `json:"canaries"`
		} `json:"judge"`
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for name, hits := range map[string]map[string]float64{"ours": got.Ours, "plain": got.Plain, "local": got.Local, "similarity": got.Similarity} {
		if len(hits) != 2 || hits["hits_10"] <= 0 || hits["hits_20"] < hits["hits_10"] {
			t.Errorf("%s: expected hits_10 and hits_20, got %v", name, hits)
		}
	}
	if got.Blocked == nil || got.Stopped == nil || got.Size == nil || got.Precision == nil {
		t.Errorf("a measure of the online replay is missing in %s", out.String())
	}
	if j := got.Judge; j.Blocked == nil || j.Third == nil || len(j.Ranks) != 6 || j.Canaries.Published == nil {
		t.Errorf("a measure of the judge is missing in %s", out.String())
	}
}

// What is known to be good and what parameters are comes from files and flags.
func TestReplayOfTheJudge(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	before, _ := measureReplay(t, replayCmd{Measure: "judge"}, "small.csv")
	if before.Result != nil || before.Judge.Listed == 0 {
		t.Fatalf("expected listings by the judge alone, got %+v", before)
	}
	res, text := measureReplay(t, replayCmd{
		Measure:    "judge",
		Parameters: write("parameters.yaml", "Listing:\n  Threshold: 1000\n  Expiry: 48h\n"),
		Set:        []string{"Listing.Threshold=4"},
		Canaries:   []string{write("good.txt", "65.0.0.0/16 # all of them\n"), "some=" + write("lists.json", `{"some":["64.1.2.3"],"other":["64.1.2.4"]}`)},
	}, "small.csv")
	want := []replay.Setting{{Parameter: "Listing.Expiry", Value: "48h"}, {Parameter: "Listing.Threshold", Value: "1000"}, {Parameter: "Listing.Threshold", Value: "4"}}
	if diff := cmp.Diff(want, res.Judge.Settings); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	if res.Judge.Canaries.Hits == 0 || res.Judge.Listed >= before.Judge.Listed || !strings.Contains(text, "Listing.Threshold = 4") {
		t.Errorf("expected canaries to be hit, and fewer listings than %d, got:\n%s", before.Judge.Listed, text)
	}

	for _, c := range []replayCmd{
		{Set: []string{"Listing.Threshold"}},
		{Set: []string{"Listing.Nonsense=4"}},
		{Parameters: write("bad.yaml", "- 4\n")},
		{Canaries: []string{write("bad.txt", "nothing of use\n")}},
		{Canaries: []string{filepath.Join(dir, "missing.txt")}},
		{Hub: write("hub.json", "{}")},
	} {
		if res, err := c.measure(t.Context(), strings.NewReader(""), nil); err == nil {
			t.Errorf("%+v: expected an error, got %+v", c, res)
		}
	}
}

// Of a recording that is too short for lists to be measured, the judge's part is
// told; a bad line is no reason to give up.
func TestReplayOfAShortRecording(t *testing.T) {
	const line = `{"machine":"m","scenario":"s","scenario_trust":"certified","stop_at":"2026-03-01T00:00:00Z","source":{"value":"80.1.1.1"}}` + "\n"
	c := replayCmd{File: "-", Measure: "all", Bad: 1}
	res, err := c.measure(t.Context(), strings.NewReader(line+"nonsense\n"), nil)
	if err != nil || res.Result != nil || res.Judge == nil || res.Judge.Bad != 1 || len(res.badLines) != 1 {
		t.Errorf("got %+v, %v", res, err)
	}
	c.Bad = 0
	if _, err := c.measure(t.Context(), strings.NewReader(line+"nonsense\n"), nil); err == nil || !strings.Contains(err.Error(), "line 2: ") {
		t.Errorf("expected an error that names the line, got %v", err)
	}
	c.Bad, c.Measure = 1, "lists"
	if _, err := c.measure(t.Context(), strings.NewReader(line+"nonsense\n"), nil); err == nil || !strings.Contains(err.Error(), "days to fit on") {
		t.Errorf("expected an error about too few days, got %v", err)
	}
}

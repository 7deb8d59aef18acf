package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"muster/internal/replay"
)

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
	if !phases["reading"] || !phases["ranking"] || !phases["online"] {
		t.Errorf("expected to be told of every phase, got %v", phases)
	}

	var out bytes.Buffer
	if err := c.print(&out, res); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "similarity × decay") {
		t.Errorf("expected a table, got:\n%s", out.String())
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
}

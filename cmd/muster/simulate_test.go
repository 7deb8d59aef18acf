package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"muster/internal/simulate"
)

func parseSimulate(t *testing.T, args ...string) *simulateCmd {
	t.Helper()
	var c simulateCmd
	parser, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &c
}

func TestSimulateReadsNamesAndFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.yaml")
	if err := os.WriteFile(file, []byte("name: own\ndays: 50\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := parseSimulate(t, "calm", file, "--scale=0.5", "--days=40", "--seeds=3", "--sweep=Listing.Threshold=4,5").config()
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Scenarios) != 2 || cfg.Scenarios[0].Name != "calm" || cfg.Scenarios[1].Name != "own" || cfg.Seeds != 3 || len(cfg.Sweeps) != 1 {
		t.Fatalf("got %+v", cfg)
	}
	if s := cfg.Scenarios[1]; s.Days != 40 || s.World.Watchers != simulate.DefaultWorld().Watchers/2 {
		t.Errorf("%d days and %d watchers; expected 40 and half of the usual", s.Days, s.World.Watchers)
	}
	cfg, err = parseSimulate(t).config()
	if err != nil || len(cfg.Scenarios) != len(simulate.BuiltIn()) {
		t.Errorf("without names: %d scenarios, %v", len(cfg.Scenarios), err)
	}
}

func TestSimulateRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"a name that is none": {[]string{"clam"}, "neither a built-in scenario"},
		"no seeds":            {[]string{"calm", "--seeds=0"}, "--seeds is 0"},
		"no size":             {[]string{"calm", "--scale=0"}, "--scale is 0"},
		"days before":         {[]string{"calm", "--days=-1"}, "--days is -1"},
		"no parameter":        {[]string{"calm", "--sweep=Luck=1"}, `no field "Luck"`},
	} {
		if _, err := parseSimulate(t, tc.args...).config(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v; expected %q", name, err, tc.want)
		}
	}
}

// TestSimulateShowsWhatCanBeChanged: what is shown is what can be run.
func TestSimulateShowsWhatCanBeChanged(t *testing.T) {
	var shown, listed bytes.Buffer
	if err := parseSimulate(t, "--show").tell(&shown); err != nil {
		t.Fatal(err)
	}
	all, err := simulate.Read(&shown, "shown")
	if err != nil {
		t.Fatal(err)
	}
	if err := parseSimulate(t, "--list").tell(&listed); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if !strings.Contains(listed.String(), s.Name+" ") {
			t.Errorf("%s is not listed", s.Name)
		}
	}
}

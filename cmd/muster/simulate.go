package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/mattn/go-isatty"

	"muster/internal/simulate"
)

// simulateCmd runs the consensus through simulated worlds.
type simulateCmd struct {
	Scenarios []string `arg:"" optional:"" name:"scenario" help:"Names of built-in scenarios, or YAML files (all built-in ones if none)."`

	List     bool     `help:"List the built-in scenarios and end."`
	Show     bool     `help:"Print the built-in scenarios as YAML, to change them, and end."`
	Seeds    int      `help:"Runs per scenario, each with another seed." default:"1"`
	Seed     uint64   `help:"Seed of the first run." default:"1"`
	Parallel int      `help:"Runs at a time (default one per processor)." placeholder:"N"`
	Days     int      `help:"Tell every story in so many days at most; what happens in it moves in proportion." placeholder:"N"`
	Scale    float64  `help:"Size of the worlds, against the one described." default:"1"`
	Sweep    []string `help:"Values of a parameter to try, as Listing.Threshold=4,5,6; may be repeated, for all with all." sep:"none" placeholder:"PARAMETER=VALUE,…"`
	JSON     bool     `name:"json" help:"Print one JSON object."`
	Dir      string   `help:"Keep the outcome of every run in this directory as soon as it ends, and do not run again what is there (by the same release)." placeholder:"DIR"`
	HTML     string   `name:"html" help:"Write a report with plots to this file as well." placeholder:"FILE"`
	Plots    string   `help:"Write every plot to an SVG file in this directory as well." placeholder:"DIR"`
}

// Help is shown by muster simulate --help.
func (simulateCmd) Help() string {
	return `Runs the code that judges reports through simulated worlds, on a virtual clock:
honest watchers, attackers, good addresses, and an adversary. Prints measures
against their targets. The same seed gives the same numbers.

` + example(`muster simulate calm sybils-5 --scale 0.2
  muster simulate --seeds 20 --dir runs --html report.html --json > measures.json
  muster simulate sleepers-20 --sweep Listing.Threshold=4,5,6`)
}

// Run ends with an error when a scenario cannot be run; a missed target is none.
func (c *simulateCmd) Run() error {
	if c.List || c.Show {
		return c.tell(os.Stdout)
	}
	cfg, err := c.config()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	start := time.Now()
	if isatty.IsTerminal(os.Stderr.Fd()) {
		cfg.Progress = c.progress(start)
	}
	result, err := simulate.Run(ctx, cfg)
	if cfg.Progress != nil {
		fmt.Fprint(os.Stderr, clearLine)
	}
	if err != nil {
		return err
	}
	if c.HTML != "" {
		if err := c.report(result); err != nil {
			return err
		}
	}
	if c.Plots != "" {
		if err := c.draw(result); err != nil {
			return fmt.Errorf("--plots: %w", err)
		}
	}
	if c.JSON {
		return json.NewEncoder(os.Stdout).Encode(result)
	}
	if err := result.WriteTable(os.Stdout); err != nil {
		return err
	}
	took := time.Since(start)
	_, err = fmt.Fprintf(os.Stdout, "%d reports in %s, %.0f/s.\n", result.Reports(), took.Round(100*time.Millisecond), float64(result.Reports())/took.Seconds())
	return err
}

func (c *simulateCmd) config() (simulate.Config, error) {
	cfg := simulate.Config{Seed: c.Seed, Seeds: c.Seeds, Parallel: c.Parallel, Dir: c.Dir}
	switch {
	case c.Seeds < 1:
		return cfg, fmt.Errorf("--seeds is %d: expected 1 or more", c.Seeds)
	case !(c.Scale > 0 && c.Scale <= 20):
		return cfg, fmt.Errorf("--scale is %v: expected over 0 to 20", c.Scale)
	case c.Days < 0:
		return cfg, fmt.Errorf("--days is %d: expected 1 or more", c.Days)
	}
	for _, text := range c.Sweep {
		sweep, err := simulate.ParseSweep(text)
		if err != nil {
			return cfg, err
		}
		cfg.Sweeps = append(cfg.Sweeps, sweep)
	}
	if c.Dir != "" {
		if err := os.MkdirAll(c.Dir, 0o700); err != nil {
			return cfg, fmt.Errorf("--dir: %w", err)
		}
	}
	scenarios, err := c.read()
	if err != nil {
		return cfg, err
	}
	for _, s := range scenarios {
		if c.Scale != 1 {
			s = s.Scaled(c.Scale)
		}
		cfg.Scenarios = append(cfg.Scenarios, s.Shortened(c.Days))
	}
	return cfg, nil
}

// read finds the scenarios: what is no name of a built-in one is a file.
func (c *simulateCmd) read() ([]simulate.Scenario, error) {
	builtIn := simulate.BuiltIn()
	if len(c.Scenarios) == 0 {
		return builtIn, nil
	}
	var all []simulate.Scenario
	for _, name := range c.Scenarios {
		if i := slices.IndexFunc(builtIn, func(s simulate.Scenario) bool { return s.Name == name }); i >= 0 {
			all = append(all, builtIn[i])
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("%s is neither a built-in scenario (muster simulate --list) nor a file that can be read: %w", name, err)
		}
		some, err := simulate.Read(bytes.NewReader(data), name)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// tell lists or prints the built-in scenarios.
func (c *simulateCmd) tell(w io.Writer) error {
	if c.Show {
		_, err := w.Write(simulate.BuiltInYAML())
		return err
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range simulate.BuiltIn() {
		fmt.Fprintf(tab, "%s\t%d days\t%s\n", s.Name, s.Days, s.About)
	}
	return tab.Flush()
}

func (c *simulateCmd) report(result *simulate.Result) (err error) {
	f, err := os.Create(c.HTML)
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	return result.WriteHTML(f, "muster "+strings.Join(append([]string{"simulate"}, c.Scenarios...), " "))
}

func (c *simulateCmd) draw(result *simulate.Result) error {
	if err := os.MkdirAll(c.Plots, 0o750); err != nil {
		return err
	}
	for name, svg := range result.Plots {
		if err := os.WriteFile(filepath.Join(c.Plots, name+".svg"), svg, 0o644); err != nil { // #nosec G306 -- plots are no secret
			return err
		}
	}
	return nil
}

// progress shows how far it is, at most every 200 ms.
func (c *simulateCmd) progress(start time.Time) func(simulate.Share) {
	last := start
	return func(s simulate.Share) {
		now := time.Now()
		if now.Sub(last) < 200*time.Millisecond {
			return
		}
		last = now
		left := now.Sub(start) / time.Duration(s.Days) * time.Duration(s.AllDays-s.Days)
		fmt.Fprintf(os.Stderr, clearLine+"%d of %d simulated days, about %s left", s.Days, s.AllDays, left.Round(time.Second))
	}
}

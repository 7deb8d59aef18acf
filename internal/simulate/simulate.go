// Package simulate runs the consensus code through simulated worlds, on a
// virtual clock: honest watchers, attackers, good addresses, and an adversary
// who wants the network's list to say something else than the truth. It
// measures what comes of it. The same seed gives the same measures, byte for
// byte, however many runs go on at a time.
package simulate

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"muster/internal/crowd"
)

// Config says what is run.
type Config struct {
	Scenarios []Scenario
	Seed      uint64  // of the first run; the others follow
	Seeds     int     // runs per scenario; 0 = 1
	Parallel  int     // runs at a time; 0 = one per processor
	Sweeps    []Sweep // values of parameters to try, all with all
	// Dir keeps what comes of every run as soon as it ends, one JSON file each, and
	// is asked before one begins; "" = nothing is kept. A file is of one scenario,
	// one seed and one set of parameters, and of whatever code ran: other code
	// needs another directory.
	Dir      string
	Progress func(done Share) // is called after every simulated day, from one goroutine at a time; may be nil
}

// Share says how much of the work is done.
type Share struct {
	Days, AllDays int
	Reports       uint64 // of runs that ended
}

// Result is what came of all runs.
type Result struct {
	Seed      uint64    `json:"seed"`
	Seeds     int       `json:"seeds"`
	Version   int       `json:"parameters_version"`
	Scenarios []Outcome `json:"scenarios"`
}

// Run runs every scenario with every seed and every combination of swept
// values.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	cfg.Seeds = max(cfg.Seeds, 1)
	if cfg.Parallel < 1 {
		cfg.Parallel = runtime.GOMAXPROCS(0)
	}
	settings, err := combinations(cfg.Sweeps)
	if err != nil {
		return nil, err
	}
	result := &Result{Seed: cfg.Seed, Seeds: cfg.Seeds, Version: crowd.Default().Version}
	var progress progress
	progress.tell = cfg.Progress
	for _, s := range cfg.Scenarios {
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("scenario %q: %w", s.Name, err)
		}
		progress.share.AllDays += s.Days * cfg.Seeds * len(settings)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(cfg.Parallel)
	for i := range cfg.Scenarios {
		for _, set := range settings {
			result.Scenarios = append(result.Scenarios, Outcome{
				scenario: &cfg.Scenarios[i], Settings: set.values, traces: make([]*Trace, cfg.Seeds), parameters: set.parameters,
			})
		}
	}
	for i := range result.Scenarios {
		o := &result.Scenarios[i]
		for k := range cfg.Seeds {
			group.Go(func() (err error) {
				o.traces[k], err = o.run(ctx, cfg.Dir, cfg.Seed+uint64(k), progress.day)
				if err == nil {
					progress.reports(o.traces[k].Reports)
				}
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i := range result.Scenarios {
		result.Scenarios[i].finish()
	}
	return result, nil
}

// progress counts what is done over all runs.
type progress struct {
	mu    sync.Mutex
	share Share
	tell  func(Share)
}

func (p *progress) day() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.share.Days++
	if p.tell != nil {
		p.tell(p.share)
	}
}

func (p *progress) reports(n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.share.Reports += n
}

// Outcome is what came of one scenario over all seeds.
type Outcome struct {
	Name     string
	About    string
	Seeds    int
	Days     int
	Settings []Setting // swept values
	Values   Values    // what is held against the targets
	Median   Values    // over the seeds
	Worst    Values
	Targets  map[string]float64
	Met      map[string]bool
	traces   []*Trace

	scenario   *Scenario
	parameters crowd.Parameters
}

// finish works out the measures over the seeds.
func (o *Outcome) finish() {
	s := o.scenario
	o.Name, o.About, o.Days, o.Seeds, o.Targets = s.Name, s.About, s.Days, len(o.traces), s.Targets
	o.Met = make(map[string]bool, len(s.Targets))
	samples := make([]Sample, len(o.traces))
	for i := range measures {
		m := &measures[i]
		for k, t := range o.traces {
			samples[k] = t.Samples[i]
		}
		o.Values[i], o.Median[i], o.Worst[i] = m.combine(m.over, samples), m.combine(median, samples), m.combine(worst, samples)
		if target, ok := s.Targets[m.name]; ok && !math.IsNaN(o.Values[i]) {
			o.Met[m.name] = m.meets(o.Values[i], target)
		}
	}
}

// Missed returns how many targets were not met.
func (r *Result) Missed() int {
	n := 0
	for i := range r.Scenarios {
		for _, met := range r.Scenarios[i].Met {
			if !met {
				n++
			}
		}
	}
	return n
}

// Reports returns how many reports were folded and judged over all runs.
func (r *Result) Reports() (n uint64) {
	for i := range r.Scenarios {
		for _, t := range r.Scenarios[i].traces {
			n += t.Reports
		}
	}
	return n
}

package replay

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"muster/internal/tailor"
)

// Config says how to replay. Zero values have defaults.
type Config struct {
	N []int // lengths of lists, ascending; nil: 100, 300, 1,000, 3,000

	// FitDays is how many days at the start are there to fit weights and
	// baselines on; the results are those of the days after. 0: half of them.
	FitDays int
	// Default leaves the weights as they are in Parameters. The baselines are
	// fitted all the same.
	Default    bool
	Parameters tailor.Parameters

	// Readers bounds the readers that are measured, those with most reports on
	// the days to fit on. 0: 64.
	Readers int
	// Size is the length of the lists of the online replay. 0: the largest N.
	Size int
	// Delay is how long a report takes to be on the lists. 0: a minute.
	Delay time.Duration
	// Keep is how long a source stays listed after the last report, in the
	// online replay. 0: 72 hours.
	Keep time.Duration

	Progress func(Progress)
}

// Progress tells how far a replay is.
type Progress struct {
	Phase       string
	Done, Total int
}

func (c Config) progress(phase string, done, total int) {
	if c.Progress != nil {
		c.Progress(Progress{phase, done, total})
	}
}

func (c Config) withDefaults(days int) (Config, error) {
	if len(c.N) == 0 {
		c.N = []int{100, 300, 1000, 3000}
	}
	c.N = slices.Clone(c.N)
	slices.Sort(c.N)
	c.N = slices.Compact(c.N)
	if c.N[0] < 1 || c.N[len(c.N)-1] > 1_000_000 {
		return c, fmt.Errorf("lengths of lists: expected 1 to 1,000,000, got %v", c.N)
	}
	c.Readers = cmp.Or(c.Readers, 64)
	c.Size = cmp.Or(c.Size, slices.Max(c.N))
	c.Delay = cmp.Or(c.Delay, time.Minute)
	c.Keep = cmp.Or(c.Keep, 72*time.Hour)
	c.FitDays = cmp.Or(c.FitDays, days/2)
	if c.FitDays < 2 || c.FitDays > days-2 {
		return c, fmt.Errorf("expected 2 to %d days to fit on, of %d in the recording, got %d", days-2, days, c.FitDays)
	}
	return c, nil
}

// ListDays is how many days a recording must have for lists to be measured: two
// to fit on, and two after.
const ListDays = 4

// warmDays is how many days at the start are not measured at all: nothing is
// known yet. A shorter recording gives a quarter of the days to fit on.
const warmDays = 14

// Run replays a recording and measures. The result depends on nothing but the
// recording and the configuration.
func Run(ctx context.Context, rec *Recording, c Config) (*Result, error) {
	c, err := c.withDefaults(rec.Days())
	if err != nil {
		return nil, err
	}
	if n := len(rec.Victims); n > maxVictims {
		return nil, fmt.Errorf("expected at most %d machines, got %d: cut the recording, or have it judged alone", maxVictims, n)
	}
	n := nextDay{
		cfg: c, rec: rec, fit: c.FitDays, warm: min(warmDays, c.FitDays/4),
		readers: readers(rec, c), weights: tailor.New(c.Parameters).Parameters().Weights,
	}
	if !c.Default {
		c.progress("fitting", 0, 1)
		if err := n.fitWeights(ctx); err != nil {
			return nil, err
		}
	}
	if err := n.run(ctx); err != nil {
		return nil, err
	}
	o := online{cfg: c, rec: rec, readers: n.readers, from: c.FitDays, weights: n.weights}
	if err := o.run(ctx); err != nil {
		return nil, err
	}
	return n.result(&o), nil
}

// readers returns the victims with most reports on the days to fit on.
func readers(rec *Recording, c Config) []int32 {
	reports := make([]int, len(rec.Victims))
	for _, e := range rec.Events {
		if rec.day(e) < c.FitDays {
			reports[e.Victim]++
		}
	}
	all := make([]int32, len(reports))
	for i := range all {
		all[i] = int32(i)
	}
	slices.SortFunc(all, func(a, b int32) int {
		return cmp.Or(cmp.Compare(reports[b], reports[a]), cmp.Compare(rec.Victims[a], rec.Victims[b]))
	})
	return all[:min(len(all), c.Readers)]
}

package ops

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Job is work that repeats.
type Job struct {
	Name     string
	Interval time.Duration // from the end of one run to the start of the next
	// Jitter is added to each interval, evenly between 0 and itself, so that the
	// nodes of a cluster do not all run at once.
	Jitter time.Duration
	// Do does the work once. Its error is logged; the job goes on.
	Do  func(ctx context.Context) error
	Log *slog.Logger // nil discards
}

// Run repeats the job until ctx ends; the first run comes after one interval.
// It always returns nil, and fits Service.Run.
func (j Job) Run(ctx context.Context) error {
	log := j.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	timer := time.NewTimer(j.wait())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if err := j.Do(ctx); err != nil && ctx.Err() == nil {
			log.Warn("periodic job failed; it will be tried again",
				slog.String(KeyName, j.Name), slog.Any(KeyError, err), slog.Duration(KeyInterval, j.Interval))
		}
		timer.Reset(j.wait())
	}
}

func (j Job) wait() time.Duration {
	if j.Jitter <= 0 {
		return j.Interval
	}
	return j.Interval + rand.N(j.Jitter)
}

// Service returns the job as a part of a Group.
func (j Job) Service() Service { return Service{Name: j.Name, Run: j.Run} }

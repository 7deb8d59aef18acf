package swarm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// LiveConfig says what RunLive shall do. Zero values take the default named.
type LiveConfig struct {
	Server *Server // started for the measurement: it is stopped and started again
	Key    string  // enrolment key that accepts at once

	Sources     int           // different addresses that are reported; 1,000,000
	Voices      int           // machines of one organisation that report each of them; 1
	Connections int           // requests at a time; 16
	Batch       int           // signals per request; 500
	Pace        int           // signals per second at most; 0: as fast as the server takes them in
	Settle      time.Duration // between the last of the work and a look at the server's memory; 5 s
	Patience    time.Duration // with the server's judging, and with its reading of the evidence; 5 min
	Seed        uint64        // 0: a random one

	// Progress, when set, is called about once a second and at changes of phase,
	// from one goroutine.
	Progress func(Progress)
}

func (c LiveConfig) withDefaults() (LiveConfig, error) {
	setDefault(&c.Sources, 1_000_000)
	setDefault(&c.Voices, 1)
	setDefault(&c.Connections, 16)
	setDefault(&c.Batch, 500)
	setDefault(&c.Settle, 5*time.Second)
	setDefault(&c.Patience, 5*time.Minute)
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	switch {
	case c.Server == nil:
		return c, errors.New("expected a server that was started for the measurement, got none")
	case c.Sources < 0 || c.Sources > maxSources:
		return c, fmt.Errorf("expected 1 to %d sources, got %d", maxSources, c.Sources)
	case c.Voices < 0 || c.Voices > 24:
		return c, fmt.Errorf("expected 1 to 24 voices, got %d", c.Voices)
	case c.Connections < 0 || c.Connections > 4096:
		return c, fmt.Errorf("expected 1 to 4,096 connections, got %d", c.Connections)
	case c.Batch < 0 || c.Batch > 5000:
		return c, fmt.Errorf("expected 1 to 5,000 signals per batch, got %d", c.Batch)
	case c.Pace < 0:
		return c, fmt.Errorf("expected a pace of at least 0 signals per second, got %d", c.Pace)
	case c.Settle < 0 || c.Settle > time.Hour || c.Patience < 0 || c.Patience > time.Hour:
		return c, fmt.Errorf("expected a time to settle and a patience of at most 1h, got %s and %s", c.Settle, c.Patience)
	}
	return c, nil
}

// RunLive measures what it takes to keep evidence on many sources: machines of
// one organisation report each of them, until all is judged; then the server is
// started again. An error means that there is
// no result: something failed, or the server has not evidence on all sources in
// the end.
func RunLive(ctx context.Context, cfg LiveConfig) (LiveResult, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return LiveResult{}, err
	}
	target, err := ParseTarget(cfg.Server.URL)
	if err != nil {
		return LiveResult{}, err
	}
	l := &live{cfg: cfg, target: target, res: LiveResult{Kind: Live, Sources: cfg.Sources, Voices: cfg.Voices}}
	for _, phase := range []struct {
		name, unit string
		do         func(context.Context) error
	}{
		{"enrolling", "watchers/s", l.enrol},
		{"reporting", Ingest.unit(), l.report},
		{"judging", Ingest.unit(), l.judge},
		{"starting again", Ingest.unit(), l.restart},
	} {
		l.units.Store(0)
		start := time.Now()
		err := reporting(func() { l.progress(phase.name, phase.unit, start) }, func() error { return phase.do(ctx) })
		if err != nil {
			return LiveResult{}, fmt.Errorf("%s: %w", phase.name, err)
		}
	}
	return l.res, nil
}

// live is one call of RunLive.
type live struct {
	cfg      LiveConfig
	target   Target
	watchers []*Watcher
	start    time.Time // of the reporting
	units    atomic.Int64
	res      LiveResult
}

func (l *live) progress(phase, unit string, since time.Time) {
	if l.cfg.Progress == nil {
		return
	}
	elapsed := time.Since(since)
	l.cfg.Progress(Progress{Phase: phase, Elapsed: elapsed, Unit: unit, Rate: float64(l.units.Load()) / max(elapsed.Seconds(), 0.001)})
}

func (l *live) enrol(ctx context.Context) (err error) {
	if l.res.RSSIdle, err = CurrentRSS(l.cfg.Server.PID()); err != nil {
		return err
	}
	l.watchers, err = join(ctx, l.target, l.cfg.Seed, l.cfg.Connections, slices.Repeat([]string{l.cfg.Key}, l.cfg.Voices), &l.units)
	return err
}

// report has every source reported once by each watcher.
func (l *live) report(ctx context.Context) error {
	sources := NewSources(l.cfg.Sources, 1.1, l.cfg.Seed)
	l.start = time.Now()
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range l.cfg.Connections {
		group.Go(func() error {
			c, feed := NewConn(l.target), NewFeed(sources, [2]uint64{rand.Uint64(), rand.Uint64()})
			defer c.Close()
			for {
				first := int(next.Add(int64(l.cfg.Batch))) - l.cfg.Batch
				if l.cfg.Pace > 0 {
					pause(ctx, time.Until(l.start.Add(time.Duration(float64(first)/float64(l.cfg.Pace)*float64(time.Second)))))
				}
				w := first / roundUp(sources.Len(), l.cfg.Batch)
				if w >= len(l.watchers) {
					return nil
				}
				first %= roundUp(sources.Len(), l.cfg.Batch)
				last := min(first+l.cfg.Batch, sources.Len())
				wire, gzipped := feed.Pack(feed.Range(first, last, l.watchers[w].engine, time.Now()))
				if _, err := push(ctx, c, l.watchers[w], wire, gzipped); err != nil {
					return err
				}
				l.units.Add(int64(last - first))
			}
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	l.res.Signals = int64(l.cfg.Sources) * int64(l.cfg.Voices)
	l.res.TakenRate = float64(l.res.Signals) / time.Since(l.start).Seconds()
	return nil
}

func roundUp(n, step int) int { return (n + step - 1) / step * step }

// judge waits until all is judged, and reads what that took.
func (l *live) judge(ctx context.Context) error {
	if err := l.awaitAll(ctx); err != nil {
		return err
	}
	l.res.CountedRate = float64(l.res.Signals) / time.Since(l.start).Seconds()
	pause(ctx, l.cfg.Settle)
	pid := l.cfg.Server.PID()
	u, err := ProcessUsage(pid)()
	if err != nil {
		return err
	}
	l.res.RSSPeak, l.res.CPU = u.RSS, u.CPU.Seconds()
	if l.res.RSS, err = CurrentRSS(pid); err != nil {
		return err
	}
	l.res.PerSource = float64(l.res.RSS-l.res.RSSIdle) / float64(l.cfg.Sources)
	dir := l.cfg.Server.cfg.DataDir
	if l.res.Stream, err = sizeOf(filepath.Join(dir, "stream")); err != nil {
		return err
	}
	all, err := sizeOf(dir)
	l.res.Database = all - l.res.Stream
	return err
}

// restart measures how long the server is away, and until it judges again.
func (l *live) restart(ctx context.Context) (err error) {
	stopping := time.Now()
	if err := l.cfg.Server.Stop(); err != nil {
		return err
	}
	l.res.StopMS = float64(time.Since(stopping).Microseconds()) / 1000
	starting := time.Now()
	if err := l.cfg.Server.again(ctx); err != nil {
		return err
	}
	l.res.ReadyMS = float64(l.cfg.Server.Ready.Microseconds()) / 1000
	if err := l.awaitAll(ctx); err != nil {
		return err
	}
	l.res.JudgingMS = float64(time.Since(starting).Microseconds()) / 1000
	pause(ctx, l.cfg.Settle)
	u, err := ProcessUsage(l.cfg.Server.PID())()
	if err != nil {
		return err
	}
	l.res.AgainPeak = u.RSS
	l.res.Again, err = CurrentRSS(l.cfg.Server.PID())
	return err
}

// awaitAll waits until the server has counted all that it accepted and has
// evidence on every source.
func (l *live) awaitAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.cfg.Patience, fmt.Errorf("not within %s", l.cfg.Patience))
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	var lag, sources float64
	for {
		m, err := Scrape(ctx, l.cfg.Server.Metrics)
		switch {
		case err == nil:
			lag, sources = m["muster_tally_lag_entries"], m["muster_tally_sources"]
			if lag == 0 && sources >= float64(l.cfg.Sources) {
				return nil
			}
		case ctx.Err() == nil:
			return err
		}
		select {
		case <-poll.C:
		case <-l.cfg.Server.Exited():
			return fmt.Errorf("the server ended: %w", l.cfg.Server.ending())
		case <-ctx.Done():
			return fmt.Errorf("%w: %.0f entries are not counted, and there is evidence on %.0f of %d sources", context.Cause(ctx), lag, sources, l.cfg.Sources)
		}
	}
}

// sizeOf returns what the files under a directory take. One that is gone
// meanwhile takes nothing.
func sizeOf(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

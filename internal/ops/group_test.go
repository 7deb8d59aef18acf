package ops

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// journal notes what services do, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) service(name string) Service {
	return Service{
		Name:  name,
		Start: func(context.Context) error { j.add("start %s", name); return nil },
		Run: func(ctx context.Context) error {
			<-ctx.Done()
			j.add("end %s", name)
			return ctx.Err()
		},
		Stop: func(context.Context) error { j.add("stop %s", name); return nil },
	}
}

func TestGroupStopsInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var g Group
		g.Add(j.service("store"), j.service("stream"), j.service("edge"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- g.Run(ctx) }()
		synctest.Wait()
		j.add("up")
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		want := []string{
			"start store", "start stream", "start edge", "up",
			"stop edge", "end edge", "stop stream", "end stream", "stop store", "end store",
		}
		if diff := cmp.Diff(want, j.lines); diff != "" {
			t.Error(diff)
		}
	})
}

func TestGroupStartFails(t *testing.T) {
	var j journal
	var g Group
	broken := errors.New("no such disk")
	g.Add(j.service("store"), Service{
		Name:  "stream",
		Start: func(context.Context) error { return broken },
		Stop:  func(context.Context) error { j.add("stop stream"); return nil },
	}, j.service("edge"))
	err := g.Run(t.Context())
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "stream: start: ") {
		t.Errorf("Run: %v", err)
	}
	if diff := cmp.Diff([]string{"start store", "stop store", "end store"}, j.lines); diff != "" {
		t.Error(diff)
	}
}

func TestGroupEndsWithItsServices(t *testing.T) {
	broken := errors.New("lost the lock")
	for name, tc := range map[string]struct {
		result error
		want   string
	}{
		"with an error": {broken, "tally: lost the lock"},
		"without one":   {nil, "tally: ended though nobody stopped it"},
	} {
		var j journal
		var g Group
		g.Add(j.service("store"), Service{Name: "tally", Run: func(context.Context) error { return tc.result }})
		if err := g.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s: Run: %v, want %s", name, err, tc.want)
		}
		if len(j.lines) != 3 || j.lines[1] != "stop store" {
			t.Errorf("%s: the other service was not stopped: %v", name, j.lines)
		}
	}
}

func TestGroupLeavesLateServicesBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var g Group
		release := make(chan struct{})
		g.Add(j.service("store"), Service{
			Name:        "tally",
			Run:         func(context.Context) error { <-release; return nil },
			StopTimeout: 3 * time.Second,
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		err := g.Run(ctx)
		if err == nil || !strings.Contains(err.Error(), "tally: stop: still not stopped after 3s") {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("took %s", took)
		}
		if j.lines[len(j.lines)-1] != "end store" {
			t.Errorf("the service behind the late one was not stopped: %v", j.lines)
		}
		close(release)
	})
}

func TestGroupCancelledBeforeStart(t *testing.T) {
	var j journal
	var g Group
	g.Add(j.service("store"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
	if len(j.lines) != 0 {
		t.Errorf("started all the same: %v", j.lines)
	}
}

func TestJobRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs []time.Duration
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		job := Job{Name: "sweep", Interval: 10 * time.Minute, Jitter: time.Minute, Do: func(context.Context) error {
			runs = append(runs, time.Since(begin))
			return errors.New("fails, and goes on")
		}}
		if err := job.Run(ctx); err != nil {
			t.Error(err)
		}
		if len(runs) != 5 { // 6 only if no jitter came at all
			t.Fatalf("ran at %v, want 5 runs in an hour", runs)
		}
		last := time.Duration(0)
		for _, at := range runs {
			if gap := at - last; gap < 10*time.Minute || gap >= 11*time.Minute {
				t.Errorf("interval %s, want 10 to 11 minutes", gap)
			}
			last = at
		}
	})
}

package publish

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestLoadThenFollow(t *testing.T) {
	registry := prometheus.NewRegistry()
	r := newRig(func(c *Config) { c.Registerer = registry })
	r.judge(t, network, "35.188.49.1", "x", 72, true)
	r.judge(t, network, "35.188.49.2", "x", 72, true)
	r.judge(t, network, "35.188.49.3", "x", 72, false) // withdrawn before its end
	r.judge(t, "A", "35.188.49.4", "x", 72, true)
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := testutil.ToFloat64(r.listed); n != 2 || r.Count(network) != 2 || r.Count("A") != 1 || r.Count("B") != 0 {
		t.Errorf("after loading: the gauge says %v, the network has %d, A %d, B %d", n, r.Count(network), r.Count("A"), r.Count("B"))
	}
	r.wantSent(t, "after loading", "", []string{"35.188.49.1 72h x", "35.188.49.2 72h x"}, []string{"35.188.49.3"})
	r.judge(t, network, "35.188.49.1", "x", 72, false)
	r.read(t)
	r.wantSent(t, "after a change", "", []string{"35.188.49.2 71h x"}, []string{"35.188.49.1", "35.188.49.3"})
	if n := testutil.ToFloat64(r.listed); n != 1 {
		t.Errorf("after a change the gauge says %v", n)
	}
	before := r.log.reads
	r.read(t)
	if r.log.reads != before+1 {
		t.Errorf("%d reads for nothing new, want one", r.log.reads-before)
	}

	broken := errors.New("database is away")
	r.log.setFail(broken)
	if err := New(r.another()).Load(t.Context()); !errors.Is(err, broken) {
		t.Errorf("Load: got %v", err)
	}
}

// another is the configuration for one more publisher on the same changelog.
func (r *rig) another() Config {
	c := r.cfg
	c.Registerer = nil
	return c
}

// The changelog is read in pieces; verdicts of one moment come together.
func TestFollowReadsInPieces(t *testing.T) {
	r := newRig()
	const n = 2*maxChanges + 300
	for i := range n {
		r.judge(t, network, fmt.Sprintf("35.%d.%d.9", i>>8, i&255), "x", 72, true)
		if i > maxChanges/2 && i < 2*maxChanges-5 {
			r.stamp = r.stamp.Add(-time.Microsecond) // many verdicts of one moment
		}
	}
	r.read(t)
	if r.Count(network) != n {
		t.Errorf("%d of %d were read", r.Count(network), n)
	}
}

func TestFollowGoesOnAfterAnError(t *testing.T) {
	r := newRig()
	r.judge(t, network, "35.188.49.1", "x", 72, true)
	broken := errors.New("database is away")
	r.log.setFail(broken)
	if err := r.follow(t.Context()); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	r.log.setFail(nil)
	r.read(t)
	if r.Count(network) != 1 {
		t.Error("what changed meanwhile was not read after the error")
	}
}

// With several judges a verdict may appear behind the last look.
func TestOverlapFindsLateCommits(t *testing.T) {
	r := newRig(func(c *Config) { c.Overlap = time.Second })
	r.judge(t, network, "35.188.49.1", "x", 72, true)
	r.read(t)
	version := r.Version(network)
	r.stamp = r.stamp.Add(-500 * time.Millisecond)
	r.judge(t, network, "35.188.49.2", "x", 72, true)
	r.read(t)
	if r.Count(network) != 2 {
		t.Error("a verdict stamped half a second before the last one was missed")
	}
	r.read(t)
	r.read(t)
	if got := r.Version(network); got != version+1 {
		t.Errorf("reading the same verdicts again changed the list %d times", got-version-1)
	}
}

func TestReadingAWithdrawalAgainChangesNothing(t *testing.T) {
	r := newRig(func(c *Config) { c.Overlap = time.Hour })
	r.judge(t, network, "35.188.49.1", "x", 72, true)
	r.read(t)
	r.judge(t, network, "35.188.49.1", "x", 72, false)
	r.judge(t, network, "35.188.49.2", "x", -1, false) // lapsed, and never known here
	r.read(t)
	version := r.Version(network)
	r.read(t)
	if got := r.Version(network); got != version {
		t.Errorf("the list changed %d times", got-version)
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(func(c *Config) { c.Now = time.Now })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		listed := func(what string, want int) {
			t.Helper()
			synctest.Wait()
			if got := r.Count(network); got != want {
				t.Errorf("%s: %d listed, want %d", what, got, want)
			}
		}
		put := func(address string, lasts time.Duration) {
			t.Helper()
			r.judge(t, network, address, "x", time.Now().Add(lasts).Sub(start).Hours(), true)
		}
		put("35.188.49.1", time.Minute)
		listed("before anybody notifies", 0)
		r.Notify()
		r.Notify() // never blocks, even when nobody has looked yet
		listed("after a notification", 1)

		put("35.188.49.2", time.Hour)
		<-time.After(lookAnyway)
		listed("after a lost notification", 2)

		r.log.setFail(errors.New("database is away"))
		put("35.188.49.3", time.Hour)
		r.Notify()
		listed("while the database is away", 2)
		r.log.setFail(nil)
		<-time.After(lookAnyway)
		listed("when it is back", 3)

		<-time.After(time.Minute)
		listed("after the first one's end", 2)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

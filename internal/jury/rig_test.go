package jury

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
)

const (
	counts = muster.Counts
	fleet  = muster.Fleet
)

// rig is a running worker with its log and ledger, on synthetic time that
// begins at start.
type rig struct {
	*Worker
	t      *testing.T
	log    *stream
	ledger *ledger
	ended  chan error
	cancel context.CancelFunc

	mu      sync.Mutex
	blocked map[string]bool
	changed int
	text    strings.Builder // of the logger
}

// inBubble runs f on synthetic time, which it moves to the start of the test
// data, with a log and a ledger that are empty.
func inBubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		<-time.After(time.Until(start))
		r := &rig{t: t, log: newStream(), ledger: newLedger(), blocked: map[string]bool{}}
		f(t, r)
		if r.cancel != nil {
			r.stop()
		}
	})
}

// block says that a machine counts no more, or does again.
func (r *rig) block(machine string, blocked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocked[machine] = blocked
}

// run starts a worker and waits until it has nothing to do.
func (r *rig) run(change ...func(*Config)) {
	r.t.Helper()
	cfg := config(r.ledger, r.log, func(c *Config) {
		c.Now = time.Now
		c.Member = func(machine, organisation string) bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return organisation != "" && !r.blocked[machine]
		}
		c.Changed = func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.changed++
		}
		c.Logger = slog.New(slog.NewTextHandler(&r.text, nil))
	})
	for _, f := range change {
		f(&cfg)
	}
	r.Worker = New(cfg)
	ctx, cancel := context.WithCancel(r.t.Context())
	r.cancel, r.ended = cancel, make(chan error, 1)
	go func() { r.ended <- r.Run(ctx) }()
	synctest.Wait()
}

// stop ends the worker as a shutdown does.
func (r *rig) stop() {
	r.t.Helper()
	r.cancel()
	if err := <-r.ended; err != nil {
		r.t.Errorf("Run: %v", err)
	}
	r.ended <- nil
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if r.log.opened != r.log.closed {
		r.t.Errorf("%d readers were opened and %d closed", r.log.opened, r.log.closed)
	}
}

func (r *rig) report(signals ...*muster.Signal) {
	r.log.report(signals...)
	synctest.Wait()
}

// tick waits until what is due now has been done.
func (r *rig) tick() { r.wait(15 * time.Second) }

func (r *rig) wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (r *rig) wantListed(what string, want ...string) {
	r.t.Helper()
	synctest.Wait()
	want = append([]string{}, want...)
	slices.Sort(want)
	if diff := cmp.Diff(want, r.ledger.listed()); diff != "" {
		r.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// verdict returns what is stored about a source.
func (r *rig) verdict(a muster.Audience, text string) muster.Verdict {
	r.t.Helper()
	return r.ledger.look().verdicts[verdictKey{a, source(r.t, text)}]
}

const address, other = "35.188.49.176", "35.188.49.177"

package spool

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"muster"
)

func TestWhatIsNotWithheldArrivesInOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t)
		f, stop := g.start()
		for i := range 20 {
			g.put(fmt.Sprintf("m%d", i%3), 50)
		}
		pass(time.Minute)
		g.check()
		if s := f.Status(); s.Depth != 0 || s.Engines != 0 || !s.Oldest.IsZero() || s.Applied == 0 {
			t.Errorf("at rest: %+v", s)
		}
		stop()
		if n := len(g.store.marked); n != g.central.count() {
			t.Errorf("%d signals are marked as forwarded, expected %d", n, g.central.count())
		}
		if len(g.store.cursors) != 0 {
			t.Errorf("cursors are left: %v", g.store.cursors)
		}
	})
}

// Whatever the upstream does, and however often the process ends between its
// answer and the commit, it counts every signal once, in order per engine.
func TestExactlyOnceUnderFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		faults := rapid.SliceOfN(rapid.IntRange(0, 9), 0, 40).Draw(rt, "faults")
		crashes := rapid.SliceOfN(rapid.IntRange(0, 30), 0, 4).Draw(rt, "seconds until a crash")
		lost := rapid.SliceOfN(rapid.Bool(), 4, 4).Draw(rt, "commits lost before the crash")
		batches := rapid.SliceOfN(rapid.IntRange(0, 5), 1, 30).Draw(rt, "senders")
		memory := rapid.SampledFrom([]int{1, 3000, 1 << 20}).Draw(rt, "memory")
		bubble(t, func(t *testing.T) {
			g := newRig(t, func(c *Config) { c.Memory = memory })
			g.central.fault = func(call int, _ []string) *fault {
				if call > len(faults) {
					return nil
				}
				return [...]*fault{
					nil, nil,
					{err: errDown},
					{err: errDown, keeps: true}, // cut in the answer
					{status: 500, body: `{"message":"oops"}`},
					{status: 503, header: http.Header{"Retry-After": {"7"}}, body: `x`, keeps: true},
					{status: 429, header: http.Header{"Retry-After": {"3"}}},
					{status: 200, body: `<html>log in first</html>`},
					{status: 200, body: `{"message":"OK"}`, slow: 20 * time.Second, keeps: true},
					{status: 403, body: `{"code":"banned","retry_after":30,"reason":"too many"}`},
				}[faults[call-1]]
			}
			next := 0
			put := func(n int) {
				for ; next < min(n, len(batches)); next++ {
					g.put(fmt.Sprintf("m%d", batches[next]), 1+7*batches[next])
				}
			}
			for i, seconds := range crashes {
				if lost[i] {
					g.store.enter = func() error { return context.Canceled }
				}
				_, stop := g.start()
				put(next + 10)
				pass(time.Duration(seconds) * time.Second)
				stop()
				g.store.enter = nil
			}
			f, stop := g.start()
			put(len(batches))
			pass(6 * time.Hour)
			s := f.Status()
			stop()
			g.check()
			if s.Depth != 0 || s.Engines != 0 || len(g.store.cursors) != 0 {
				t.Errorf("at rest: %+v, cursors %v", s, g.store.cursors)
			}
			if len(g.store.marked) != g.central.count() {
				t.Errorf("%d signals are marked as forwarded, expected %d", len(g.store.marked), g.central.count())
			}
		})
		if t.Failed() {
			rt.FailNow()
		}
	})
}

// In a ban nobody calls, and afterwards one asks first.
func TestABanIsSatOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t)
		g.central.fault = func(call int, _ []string) *fault {
			if call > 1 {
				return nil
			}
			return &fault{status: 403, body: `{"code":"banned","retry_after":3600,"reason":"a login storm"}`}
		}
		f, stop := g.start()
		defer stop()
		g.put("m0", 3)
		synctest.Wait()
		for i := range 10 {
			g.put(fmt.Sprintf("m%d", i), 3)
		}
		pass(59 * time.Minute)
		if s := f.Status(); !s.Banned || s.Cause != "banned: a login storm" || s.Depth != 33 || g.central.callCount() != 1 {
			t.Fatalf("%d calls, %+v", g.central.callCount(), s)
		}
		pass(2 * time.Minute)
		g.check()
		if s := f.Status(); s.Banned || s.Depth != 0 {
			t.Errorf("after the ban: %+v", s)
		}
	})
}

func TestRetryAfterIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t)
		g.central.fault = func(call int, _ []string) *fault {
			if call > 1 {
				return nil
			}
			return &fault{status: 503, header: http.Header{"Retry-After": {"90"}}}
		}
		_, stop := g.start()
		defer stop()
		g.put("m0", 1)
		synctest.Wait() // else two calls are on their way before the answer
		g.put("m1", 1)
		pass(5 * time.Minute)
		g.check()
		if gap := g.central.times[1].Sub(g.central.times[0]); gap < 90*time.Second || gap > 3*time.Minute {
			t.Errorf("the second call came %s after the first, which was told to wait 90 s", gap)
		}
	})
}

// An engine without a token keeps nobody else up, also one of its partition.
func TestAnEngineWaitsForItsLogin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t)
		f, stop := g.start()
		g.put("m0", 10)
		pass(time.Minute)
		g.central.revoked[g.auth["m0"]] = true
		partner := samePartition("m0")
		g.put("m0", 10)
		g.put(partner, 10)
		pass(time.Hour)
		s := f.Status()
		if s.Depth != 8 || len(s.Waiting) != 1 || !s.Waiting[0].Until.IsZero() || g.central.count() != 16 {
			t.Fatalf("%d arrived, %+v", g.central.count(), s)
		}
		calls := g.central.callCount()
		stop()
		if len(g.store.cursors) != 1 {
			t.Errorf("cursors %v: expected one for the engine that is ahead", g.store.cursors)
		}
		f, stop = g.start()
		defer stop()
		pass(time.Hour)
		if got := g.central.callCount() - calls; got > 1 {
			t.Errorf("%d calls with a token that is refused", got)
		}
		g.login("m0", time.Hour)
		pass(time.Second)
		g.check()
		if s := f.Status(); s.Depth != 0 {
			t.Errorf("%+v", s)
		}
		for key, n := range g.central.seen {
			if n != 1 {
				t.Errorf("%s was sent %d times though nothing went wrong", key, n)
			}
		}
	})
}

func samePartition(machine string) string {
	want, _ := Identify(bearerOf(machine, 0, time.Time{}))
	for i := 0; ; i++ {
		name := fmt.Sprintf("p%d", i)
		if id, _ := Identify(bearerOf(name, 0, time.Time{})); id.Engine.Partition() == want.Engine.Partition() {
			return name
		}
	}
}

// ownAccount is an account whose every login gives another token.
type ownAccount struct{ logins int }

func (a *ownAccount) Authorization(context.Context) (string, error) {
	a.logins++
	return bearerOf("sieve", a.logins, time.Now().Add(time.Hour)), nil
}

func (*ownAccount) Refused(string) {}

func TestTheOwnAccountStandsIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(c *Config) { c.Account = &ownAccount{} })
		_, stop := g.start()
		defer stop()
		g.login("m0", time.Minute)
		g.put("m0", 4)
		pass(2 * time.Minute)
		g.put("m0", 4)
		pass(time.Minute)
		if len(g.central.order["m0"]) != 4 || len(g.central.order["sieve"]) != 4 {
			t.Errorf("arrived: %v", g.central.order)
		}
	})
}

// What may have arrived under the engine's token does not go under another
// account while the engine may still log in.
func TestWhatIsInDoubtWaitsForItsEngine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(c *Config) { c.Account = &ownAccount{} })
		g.central.fault = func(call int, _ []string) *fault {
			if call == 1 {
				return &fault{err: errDown, keeps: true, slow: 2 * time.Minute}
			}
			return nil
		}
		_, stop := g.start()
		defer stop()
		g.login("m0", time.Minute)
		g.put("m0", 4)
		pass(30 * time.Minute)
		g.login("m0", time.Hour)
		pass(time.Minute)
		g.check()
		if len(g.central.order["sieve"]) != 0 {
			t.Errorf("sent twice, under two machines: %v", g.central.order)
		}
	})
}

func TestAPoisonedSignalIsSetAside(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t)
		bad := map[string]bool{"m0-7": true, "m0-8": true, "m0-39": true}
		g.central.fault = func(_ int, uuids []string) *fault {
			for _, u := range uuids {
				if bad[u] {
					return &fault{status: 400, body: `{"message":"scenario is\nmissing","errors":"item"}`}
				}
			}
			return nil
		}
		f, stop := g.start()
		defer stop()
		g.put("m0", 50)
		pass(time.Minute)
		if s := f.Status(); s.Depth != 0 {
			t.Fatalf("%+v", s)
		}
		want := []string{}
		for _, u := range g.sent["m0"] {
			if !bad[u] {
				want = append(want, u)
			}
		}
		g.sent["m0"] = want
		g.check()
		if len(g.store.refused) != 3 {
			t.Fatalf("set aside: %+v", g.store.refused)
		}
		if r := g.store.refused[0]; r.UUID != "m0-7" || r.Status != 400 || r.Reason != "status 400: scenario is missing item" || len(r.Raw) == 0 || r.Machine != "m0" {
			t.Errorf("set aside: %+v", r)
		}
		if g.central.callCount() > 40 {
			t.Errorf("%d calls to find three signals among 40", g.central.callCount())
		}
	})
}

// An upstream that refuses everything is broken: it must not empty the spool.
func TestABrokenUpstreamDoesNotEmptyTheSpool(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t)
		g.central.fault = func(int, []string) *fault { return &fault{status: 400} }
		f, stop := g.start()
		defer stop()
		g.put("m0", 500)
		pass(10 * time.Minute)
		if s := f.Status(); s.Depth < 350 || len(s.Waiting) != 1 {
			t.Errorf("after ten minutes %d of 400 are left: %+v", s.Depth, s.Waiting)
		}
	})
}

func TestHeldSignalsStay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(c *Config) { c.Hold = true })
		f, stop := g.start()
		defer stop()
		g.put("m0", 5)
		pass(time.Hour)
		if s := f.Status(); s.Depth != 4 || !s.Held || g.central.callCount() != 0 {
			t.Errorf("%d calls, %+v", g.central.callCount(), s)
		}
	})
}

func TestLocalAndSentSignalsAreNotForwarded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t)
		f, stop := g.start()
		defer stop()
		for _, fate := range []muster.SieveFate{muster.SieveLocal, muster.SieveSent} {
			b := muster.SievedBatch{Fate: fate, Received: time.Now(), Signals: []muster.SievedSignal{{UUID: "u", Raw: []byte(`{}`)}}}
			if err := g.intake.Put(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Minute)
		if s := f.Status(); s.Depth != 0 || s.Applied != 2 || g.central.callCount() != 0 {
			t.Errorf("%d calls, %+v", g.central.callCount(), s)
		}
	})
}

func TestMetricsSayHowDeepAndHowOld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		g := newRig(t, func(c *Config) { c.Registerer = registry })
		g.central.fault = func(int, []string) *fault { return &fault{err: errDown} }
		_, stop := g.start()
		defer stop()
		g.put("m0", 5)
		pass(time.Minute)
		err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP muster_spool_depth_signals Signals that wait to be sent upstream.
# TYPE muster_spool_depth_signals gauge
muster_spool_depth_signals 4
# HELP muster_spool_oldest_seconds Age of the oldest signal that waits to be sent upstream.
# TYPE muster_spool_oldest_seconds gauge
muster_spool_oldest_seconds 60
`), "muster_spool_depth_signals", "muster_spool_oldest_seconds")
		if err != nil {
			t.Error(err)
		}
	})
}

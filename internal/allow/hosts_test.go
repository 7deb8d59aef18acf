package allow

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster"
)

// running runs s until the test's bubble ends.
func running(t *testing.T, s *Service) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func onTheClock(c *Config) { c.Now = time.Now }

func TestNamesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.now = time.Now()
		w.machine("m1", "o1")
		w.leads("home.example.org", "192.0.2.1")
		s := w.service(t, onTheClock)
		create(t, s, "o1", "home", []string{"all"}, "home.example.org")
		running(t, s)
		stays := func(what string, addrs ...string) {
			t.Helper()
			for _, a := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
				want := false
				for _, x := range addrs {
					want = want || x == a
				}
				if got := covers(s, a, "m1", "o1"); got != want {
					t.Errorf("%s: %s: expected %t, got %t", what, a, want, got)
				}
			}
		}
		poll := func() { w.seen("m1", time.Now(), time.Now()) }
		time.Sleep(2 * time.Second)
		wantTold(t, "at first", w.took(), "m1 force_pull")
		stays("at first", "192.0.2.1")

		// It moves: within a minute and a little the machine is told; the former address stays a while.
		poll()
		w.leads("home.example.org", "192.0.2.2")
		time.Sleep(minHostTTL + 2*time.Second)
		stays("after it moved", "192.0.2.1", "192.0.2.2")
		wantTold(t, "after it moved", w.took(), "m1 force_pull")
		time.Sleep(hostLinger)
		stays("an hour later", "192.0.2.2")
		poll()
		time.Sleep(minHostTTL)
		if got := w.took(); got != nil {
			t.Errorf("expected no order for an address that ended, got %v", got)
		}

		// It flaps between two: both stay, and nobody is told again and again.
		for n := range 60 {
			poll()
			w.leads("home.example.org", []string{"192.0.2.2", "192.0.2.3"}[n%2])
			time.Sleep(minHostTTL)
			if n >= 2 {
				stays("while it flaps", "192.0.2.2", "192.0.2.3")
			}
		}
		if got := w.took(); len(got) > 2 {
			t.Errorf("expected at most two orders while it flaps, got %v", got)
		}

		// No answer any more: the last one holds for a day, as do the ends that engines were told.
		w.leads("home.example.org")
		time.Sleep(22 * time.Hour)
		stays("without an answer", "192.0.2.3")
		if states, _ := s.Items(s.Lists("o1")[0].ID); len(states) != 1 || !strings.Contains(states[0].Problem, "there is no such name; the answer of ") {
			t.Errorf("expected to be told what is wrong, got %+v", states)
		}
		time.Sleep(3 * time.Hour)
		stays("after a day without an answer")

		w.leads("home.example.org", "192.0.2.1")
		time.Sleep(time.Hour)
		stays("when it is back", "192.0.2.1")
		if states, _ := s.Items(s.Lists("o1")[0].ID); states[0].Problem != "" || len(states[0].Addresses) != 1 {
			t.Errorf("expected nothing to be wrong, got %+v", states)
		}
	})
}

// A restart while names cannot be looked up takes nothing off a list.
func TestNamesSurviveARestart(t *testing.T) {
	w := newWorld()
	w.leads("home.example.org", "192.0.2.1")
	w.files["edge.txt"] = "198.51.100.0/24\n"
	s := w.service(t)
	create(t, s, "o1", "home", []string{"all"}, "home.example.org", "cloud:edge")
	w.leads("home.example.org")
	delete(w.files, "edge.txt")
	w.pass(time.Hour)
	s = w.service(t)
	for _, a := range []string{"192.0.2.1", "198.51.100.7"} {
		if !covers(s, a, "m1", "o1") {
			t.Errorf("expected %s to be covered from the start", a)
		}
	}
	s.resolve(t.Context())
	s.fetch(t.Context())
	for _, a := range []string{"192.0.2.1", "198.51.100.7"} {
		if !covers(s, a, "m1", "o1") {
			t.Errorf("expected %s to be covered after a failure", a)
		}
	}
}

// Names that are on no list any more are neither looked up nor kept.
func TestNamesAreForgotten(t *testing.T) {
	w := newWorld()
	w.leads("home.example.org", "192.0.2.1")
	w.files["edge.txt"] = "198.51.100.0/24\n"
	s := w.service(t)
	id := create(t, s, "o1", "home", []string{"all"}, "home.example.org", "cloud:edge")
	if len(w.answers) != 2 {
		t.Fatalf("expected two answers to be kept, got %v", w.answers)
	}
	remove(t, s, id, "home.example.org", "cloud:edge")
	asked := w.asked
	w.pass(time.Hour)
	s.resolve(t.Context())
	s.fetch(t.Context())
	if len(w.answers) != 0 || w.asked != asked {
		t.Errorf("expected them to be forgotten, got %v and %d look-ups", w.answers, w.asked-asked)
	}
}

// hanging is a resolver that never answers, and counts who waits.
type hanging struct {
	mu            sync.Mutex
	waiting, most int
}

func (h *hanging) Resolve(ctx context.Context, _ string) ([]netip.Addr, time.Duration, error) {
	h.mu.Lock()
	h.waiting++
	h.most = max(h.most, h.waiting)
	h.mu.Unlock()
	<-ctx.Done()
	h.mu.Lock()
	h.waiting--
	h.mu.Unlock()
	return nil, 0, ctx.Err()
}

func TestAResolverThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, h := newWorld(), &hanging{}
		s := w.service(t, onTheClock, func(c *Config) { c.Resolver = h })
		id := create(t, s, "o1", "home", []string{"all"}, "192.0.2.7")
		var items []muster.AllowItem
		for n := range 20 {
			items = append(items, item(t, "h"+strings.Repeat("x", n)+".example.org"))
		}
		began := time.Now()
		_, err := s.Put(t.Context(), id, items)
		if muster.CodeOf(err) != muster.Invalid {
			t.Errorf("expected the names to be refused, got %v", err)
		}
		if took := time.Since(began); took != 3*hostTimeout || h.most != hostsAtOnce {
			t.Errorf("expected %d at once for three times %s, got %d for %s", hostsAtOnce, hostTimeout, h.most, took)
		}
		if !covers(s, "192.0.2.7", "m1", "o1") {
			t.Error("expected the list to be as it was")
		}
	})
}

// Failures are tried again, ever more slowly, and not for ever more slowly.
func TestBackoff(t *testing.T) {
	h, now := newHost(), start
	var waits []time.Duration
	for range 8 {
		h.fail(errors.New("x"), now)
		waits = append(waits, h.due.Sub(now))
	}
	if waits[0] != time.Minute || waits[3] != 8*time.Minute || waits[7] != 32*time.Minute {
		t.Errorf("the waits: %v", waits)
	}
	for ttl, want := range map[time.Duration]time.Duration{0: minHostTTL, time.Second: minHostTTL, 5 * time.Minute: 5 * time.Minute, 48 * time.Hour: maxHostTTL} {
		h.answer([]netip.Addr{netip.MustParseAddr("192.0.2.1")}, ttl, now)
		if got := h.due.Sub(now); got != want {
			t.Errorf("with a TTL of %s: expected to look again after %s, got %s", ttl, want, got)
		}
	}
}

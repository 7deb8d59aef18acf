package orders

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"muster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outbox keeps orders in memory as the store does.
type outbox struct {
	mu   sync.Mutex
	all  map[string][]muster.Order
	fail error
	asks int
}

func (o *outbox) AppendOrder(_ context.Context, order muster.Order) (muster.Order, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		return order, o.fail
	}
	log := o.all[order.Machine]
	order.IssuedAt = order.IssuedAt.Truncate(time.Millisecond)
	if n := len(log); n > 0 && !order.IssuedAt.After(log[n-1].IssuedAt) {
		order.IssuedAt = log[n-1].IssuedAt.Add(time.Millisecond)
	}
	o.all[order.Machine] = append(log, order)
	return order, nil
}

func (o *outbox) Orders(_ context.Context, machine string, since, now time.Time, limit int) ([]muster.Order, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asks++
	if o.fail != nil {
		return nil, o.fail
	}
	var out []muster.Order
	for _, order := range o.all[machine] {
		if order.IssuedAt.After(since) && order.ExpiresAt.After(now) && len(out) < limit {
			out = append(out, order)
		}
	}
	return out, nil
}

func (o *outbox) looks() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asks
}

func (o *outbox) setFail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fail = err
}

// service returns a service on a new outbox whose bell rings at once.
func service(change ...func(*Config)) (*Service, *outbox) {
	o := &outbox{all: map[string][]muster.Order{}}
	var s *Service
	cfg := Config{
		Outbox: o, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		Ring: func(_ context.Context, machine string) error { s.Wake(machine); return nil },
	}
	for _, f := range change {
		f(&cfg)
	}
	s = New(cfg)
	return s, o
}

func issue(t testing.TB, s *Service, machine, message string) muster.Order {
	t.Helper()
	o, err := s.Issue(t.Context(), muster.Order{Machine: machine, Kind: muster.OrderForcePull, Data: []byte(`{}`), Message: message})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// polled is how a poll ended: with these messages, or an error, after a while.
type polled struct {
	Messages []string
	Err      error
	After    time.Duration
}

// poll waits in the background.
func poll(ctx context.Context, s *Service, machine string, since time.Time, timeout time.Duration, stop <-chan struct{}) <-chan polled {
	out := make(chan polled, 1)
	begin := time.Now()
	go func() {
		list, err := s.Wait(ctx, machine, since, timeout, stop)
		p := polled{Err: err, After: time.Since(begin)}
		for _, o := range list {
			p.Messages = append(p.Messages, o.Message)
		}
		out <- p
	}()
	return out
}

func want(t testing.TB, what string, out <-chan polled, after time.Duration, messages ...string) {
	t.Helper()
	p := <-out
	if diff := cmp.Diff(polled{Messages: messages, After: after}, p, cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) })); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

const long = 45 * time.Second

func TestIssueFillsInTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := service(func(c *Config) { c.Keep = time.Hour; c.Registerer = prometheus.NewRegistry() })
		given := muster.Order{
			Machine: "m1", Kind: muster.OrderDecisionDelete, Data: []byte(`{"decisions":[]}`), Message: "x", IssuedBy: "admin",
			ID: "not a uuid", ExpiresAt: time.Now().Add(-time.Hour),
		}
		got, err := s.Issue(t.Context(), given)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := uuid.Parse(got.ID); err != nil || id.Version() != 7 {
			t.Errorf("id %q is no UUIDv7", got.ID)
		}
		given.ID, given.IssuedAt, given.ExpiresAt = got.ID, time.Now().UTC(), time.Now().UTC().Add(time.Hour)
		if diff := cmp.Diff(given, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]muster.Order{got}, o.all["m1"]); diff != "" {
			t.Errorf("what was returned is not what is stored:\n%s", diff)
		}
		if n := testutil.ToFloat64(s.issued.WithLabelValues("decision/delete")); n != 1 {
			t.Errorf("the counter says %v", n)
		}
	})
}

func TestWaitReturnsAtOnceWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := service()
		a := issue(t, s, "m1", "a")
		b := issue(t, s, "m1", "b")
		issue(t, s, "m2", "other")
		want(t, "from the beginning", poll(t.Context(), s, "m1", time.Time{}, long, nil), 0, "a", "b")
		want(t, "a time before 1970, as engines send at first contact", poll(t.Context(), s, "m1", time.Unix(-62135596800, 0), long, nil), 0, "a", "b")
		want(t, "after the first", poll(t.Context(), s, "m1", a.IssuedAt, long, nil), 0, "b")
		want(t, "after the last", poll(t.Context(), s, "m1", b.IssuedAt, long, nil), long)
		want(t, "of another machine", poll(t.Context(), s, "m2", time.Time{}, long, nil), 0, "other")
		want(t, "of a machine without orders", poll(t.Context(), s, "m3", time.Time{}, long, nil), long)
		want(t, "without waiting", poll(t.Context(), s, "m1", time.Time{}, 0, nil), 0, "a", "b")
		want(t, "none, without waiting", poll(t.Context(), s, "m3", time.Time{}, 0, nil), 0)
	})
}

func TestWaitWakesOnIssue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := service()
		since := time.Now()
		one := poll(t.Context(), s, "m1", since, long, nil)
		two := poll(t.Context(), s, "m1", since, long, nil) // cscli papi sync, beside the engine
		other := poll(t.Context(), s, "m2", since, long, nil)
		<-time.After(10 * time.Second)
		asked := o.looks()
		issue(t, s, "m1", "now")
		want(t, "first poll", one, 10*time.Second, "now")
		want(t, "second poll", two, 10*time.Second, "now")
		synctest.Wait()
		if len(other) != 0 || o.looks() != asked+2 {
			t.Errorf("%d looks into the outbox for two polls", o.looks()-asked)
		}
		want(t, "another machine", other, long)
	})
}

// A bell without an order that the poll wants must not end it.
func TestWaitSleepsOnAfterAFalseAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := service()
		out := poll(t.Context(), s, "m1", time.Now().Add(time.Hour), long, nil)
		synctest.Wait()
		issue(t, s, "m1", "before since")
		s.Wake("m1")
		s.WakeAll()
		s.Wake("nobody")
		want(t, "poll", out, long)
	})
}

func TestWakeAllFindsWhatRingsMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := service(func(c *Config) { c.Ring = func(context.Context, string) error { return nil } })
		outs := []<-chan polled{}
		for i := range 5 {
			outs = append(outs, poll(t.Context(), s, fmt.Sprint("m", i), time.Time{}, long, nil))
		}
		synctest.Wait()
		for i := range 5 {
			issue(t, s, fmt.Sprint("m", i), "x")
		}
		<-time.After(time.Second)
		s.WakeAll()
		for _, out := range outs {
			want(t, "poll", out, time.Second, "x")
		}
	})
}

// The order is stored: its issuer must not be told otherwise because other
// nodes cannot be reached, and this node's polls get it at once.
func TestIssueWithoutABell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s, _ := service(func(c *Config) {
			c.Ring = func(context.Context, string) error { return errors.New("bus is away") }
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		out := poll(t.Context(), s, "m1", time.Time{}, long, nil)
		synctest.Wait()
		issue(t, s, "m1", "x")
		want(t, "poll", out, 0, "x")
		if !strings.Contains(log.String(), "bus is away") {
			t.Errorf("the log says nothing of it: %s", log.String())
		}
	})
}

func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		s, o := service(func(c *Config) { c.Registerer = registry })
		stop := make(chan struct{})
		stopped := poll(t.Context(), s, "m1", time.Time{}, long, stop)
		gone := errors.New("client hung up")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancelled := poll(ctx, s, "m1", time.Time{}, long, stop)
		synctest.Wait()
		if n := gauge(t, registry); n != 2 {
			t.Errorf("the gauge says %v, want 2", n)
		}
		cancel(gone)
		if p := <-cancelled; !errors.Is(p.Err, gone) || len(p.Messages) != 0 {
			t.Errorf("cancelled: got %+v", p)
		}
		close(stop)
		want(t, "drained", stopped, 0)
		want(t, "while draining", poll(t.Context(), s, "m1", time.Time{}, long, stop), 0)

		broken := errors.New("database is away")
		o.setFail(broken)
		if p := <-poll(t.Context(), s, "m1", time.Time{}, long, nil); !errors.Is(p.Err, broken) {
			t.Errorf("without a database: got %+v", p)
		}
		if _, err := s.Issue(t.Context(), muster.Order{Machine: "m1", Kind: muster.OrderReauth}); !errors.Is(err, broken) {
			t.Errorf("Issue without a database: got %v", err)
		}
		if n := gauge(t, registry); n != 0 || len(s.waiting) != 0 {
			t.Errorf("after all polls ended the gauge says %v, and %d machines are remembered", n, len(s.waiting))
		}
	})
}

func gauge(t testing.TB, g prometheus.Gatherer) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "muster_orders_waiting_polls" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("there is no such gauge")
	return 0
}

func TestPollsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := service(func(c *Config) { c.MaxWaiting = 2 })
		a := poll(t.Context(), s, "m1", time.Time{}, time.Second, nil)
		b := poll(t.Context(), s, "m2", time.Time{}, long, nil)
		synctest.Wait()
		p := <-poll(t.Context(), s, "m3", time.Time{}, long, nil)
		var e *muster.Error
		if !errors.Is(p.Err, muster.Unavailable) || !errors.As(p.Err, &e) || e.RetryAfter <= 0 || !strings.Contains(p.Err.Error(), "limits.polls") {
			t.Errorf("over the bound: got %v, want code unavailable, a time to wait and the setting", p.Err)
		}
		want(t, "the first", a, time.Second)
		c := poll(t.Context(), s, "m3", time.Time{}, time.Second, nil)
		want(t, "in the place of the first", c, time.Second)
		want(t, "the second", b, long)
	})
}

func TestExpiredOrdersAreNotDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := service(func(c *Config) { c.Keep = time.Minute })
		issue(t, s, "m1", "old")
		<-time.After(30 * time.Second)
		issue(t, s, "m1", "new")
		<-time.After(40 * time.Second)
		want(t, "poll", poll(t.Context(), s, "m1", time.Time{}, long, nil), 0, "new")
	})
}

// One answer is bounded; the machine asks again from its last order on.
func TestManyOrdersComeInPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := service()
		var sent []string
		for i := range 2*maxPerPoll + 7 {
			sent = append(sent, fmt.Sprint(i))
			issue(t, s, "m1", sent[i])
		}
		var (
			got   []string
			since time.Time
		)
		for range 3 {
			list, err := s.Wait(t.Context(), "m1", since, long, nil)
			if err != nil || len(list) > maxPerPoll {
				t.Fatalf("%d orders, %v", len(list), err)
			}
			for _, o := range list {
				got = append(got, o.Message)
				since = o.IssuedAt
			}
		}
		if diff := cmp.Diff(sent, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// No order falls between a poll's look and its sleep, whoever is faster.
func TestNoOrderFallsBetween(t *testing.T) {
	s, _ := service()
	const machines, each = 8, 50
	var wg sync.WaitGroup
	for i := range machines {
		machine := fmt.Sprint("m", i)
		wg.Go(func() {
			for n := range each {
				if _, err := s.Issue(t.Context(), muster.Order{Machine: machine, Kind: muster.OrderReauth, Message: fmt.Sprint(n)}); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			var since time.Time
			for n := 0; n < each; {
				list, err := s.Wait(t.Context(), machine, since, 10*time.Second, nil)
				if err != nil || len(list) == 0 {
					t.Errorf("%s: after %d orders a poll ended with none: %v", machine, n, err)
					return
				}
				for _, o := range list {
					if o.Message != fmt.Sprint(n) {
						t.Errorf("%s: order %s instead of %d", machine, o.Message, n)
					}
					n, since = n+1, o.IssuedAt
				}
			}
		})
	}
	wg.Wait()
	if s.count != 0 || len(s.waiting) != 0 {
		t.Errorf("%d polls of %d machines are left over", s.count, len(s.waiting))
	}
}

func BenchmarkWaitAndWake(b *testing.B) {
	s, _ := service()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Wait(context.Background(), "m1", time.Time{}, 0, nil); err != nil {
				b.Error(err)
			}
			s.Wake("m1")
		}
	})
}

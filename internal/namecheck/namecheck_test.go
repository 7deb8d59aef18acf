package namecheck

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// zone is a Resolver that knows what it is told.
type zone struct {
	mu      sync.Mutex
	names   map[string][]string // by address
	addrs   map[string][]string // by network and name
	fails   map[string]error    // by address or name
	asked   []string
	hanging bool // until the context ends
}

func (z *zone) ask(ctx context.Context, what string) error {
	z.mu.Lock()
	z.asked = append(z.asked, what)
	err, hanging := z.fails[what], z.hanging
	z.mu.Unlock()
	if hanging {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

// questions returns what was asked so far.
func (z *zone) questions() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.asked)
}

// know makes other things known.
func (z *zone) know(names map[string][]string, fails map[string]error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.names, z.fails = names, fails
}

func (z *zone) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	if err := z.ask(ctx, addr); err != nil {
		return nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if names, ok := z.names[addr]; ok {
		return names, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}
}

func (z *zone) LookupNetIP(ctx context.Context, network, host string) (out []netip.Addr, err error) {
	if err := z.ask(ctx, network+" "+host); err != nil {
		return nil, err
	}
	for _, a := range z.addrs[network+" "+host] {
		out = append(out, netip.MustParseAddr(a))
	}
	if out == nil {
		err = &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return out, err
}

func crawlers(name string) bool { return strings.HasSuffix(name, ".googlebot.com") }

func running(t *testing.T, cfg Config) *Service {
	t.Helper()
	if cfg.Wanted == nil {
		cfg.Wanted = crawlers
	}
	if cfg.Every == 0 {
		cfg.Every = -1
	}
	s := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func TestCheck(t *testing.T) {
	servfail := &net.DNSError{Err: "server misbehaving", IsTemporary: true}
	z := &zone{
		names: map[string][]string{
			"66.249.66.1":       {"Crawl-66-249-66-1.GoogleBot.com."},
			"66.249.66.2":       {"host.example.org.", "crawl-2.googlebot.com."},
			"198.51.100.1":      {"crawl-66-249-66-1.googlebot.com."}, // a lie
			"198.51.100.2":      {"host.example.org."},
			"198.51.100.3":      {"gone.googlebot.com."}, // leads nowhere
			"198.51.100.4":      {"broken.googlebot.com."},
			"198.51.100.5":      {"broken.googlebot.com.", "five.googlebot.com."},
			"198.51.100.6":      {"a.example.", "b.example.", "c.example.", "d.example.", "six.googlebot.com."}, // beyond those considered
			"2001:4860:4801::1": {"v6.googlebot.com."},
		},
		addrs: map[string][]string{
			"ip4 crawl-66-249-66-1.googlebot.com.": {"66.249.66.9", "66.249.66.1"},
			"ip4 crawl-2.googlebot.com.":           {"::ffff:66.249.66.2"},
			"ip4 host.example.org.":                {"198.51.100.2"},
			"ip4 five.googlebot.com.":              {"198.51.100.5"},
			"ip4 six.googlebot.com.":               {"198.51.100.6"},
			"ip6 v6.googlebot.com.":                {"2001:4860:4801::1"},
		},
		fails: map[string]error{"198.51.100.7": servfail, "ip4 broken.googlebot.com.": servfail},
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var confirmed []string
		registry := prometheus.NewRegistry()
		s := running(t, Config{Resolver: z, Registerer: registry, Confirmed: func(_ context.Context, addr netip.Addr, name string) {
			mu.Lock()
			defer mu.Unlock()
			confirmed = append(confirmed, addr.String()+" "+name)
		}})
		wants := map[string]struct {
			name  string
			state State
		}{
			"66.249.66.1":            {"crawl-66-249-66-1.googlebot.com", Owns},
			"::ffff:66.249.66.1":     {"crawl-66-249-66-1.googlebot.com", Owns},
			"66.249.66.2":            {"crawl-2.googlebot.com", Owns},
			"198.51.100.1":           {"", Other},
			"198.51.100.2":           {"", Other},
			"198.51.100.3":           {"", Other},
			"198.51.100.4":           {"", Unknown},
			"198.51.100.5":           {"five.googlebot.com", Owns},
			"198.51.100.6":           {"", Other},
			"198.51.100.7":           {"", Unknown},
			"198.51.100.8":           {"", Other}, // has no name
			"2001:4860:4801::1":      {"v6.googlebot.com", Owns},
			"2001:4860:4801::1%eth0": {"v6.googlebot.com", Owns},
		}
		for addr := range wants {
			if name, state := s.Check(netip.MustParseAddr(addr)); name != "" || state != Unknown {
				t.Errorf("%s, not looked up yet: got %q, %d", addr, name, state)
			}
		}
		synctest.Wait()
		for addr, want := range wants {
			if name, state := s.Check(netip.MustParseAddr(addr)); name != want.name || state != want.state {
				t.Errorf("%s: got %q, %d; want %q, %d", addr, name, state, want.name, want.state)
			}
		}
		slices.Sort(confirmed)
		want := []string{
			"198.51.100.5 five.googlebot.com", "2001:4860:4801::1 v6.googlebot.com",
			"66.249.66.1 crawl-66-249-66-1.googlebot.com", "66.249.66.2 crawl-2.googlebot.com",
		}
		if !slices.Equal(confirmed, want) {
			t.Errorf("heard of %q, want %q", confirmed, want)
		}
		if name, state := s.Check(netip.Addr{}); name != "" || state != Other {
			t.Errorf("no address: got %q, %d", name, state)
		}
		synctest.Wait()
		asked := z.questions()
		if slices.Contains(asked, "ip4 host.example.org.") {
			t.Error("a name that nobody wants was looked up")
		}
		if n := len(asked); n != 11+8 {
			t.Errorf("%d questions, want one for each of 11 addresses and 8 for their names: %q", n, asked)
		}
		for result, want := range map[string]float64{"owns": 4, "other": 5, "failed": 2} {
			if got := testutil.ToFloat64(s.lookups.WithLabelValues(result)); got != want {
				t.Errorf("%v addresses counted as %s, want %v", got, result, want)
			}
		}
	})
}

// An answer holds for its time, and on until there is another.
func TestAnswersAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		addr := netip.MustParseAddr("66.249.66.1")
		names, refused := map[string][]string{"66.249.66.1": {"a.googlebot.com."}}, map[string]error{"66.249.66.1": errors.New("refused")}
		z := &zone{names: names, fails: refused, addrs: map[string][]string{"ip4 a.googlebot.com.": {"66.249.66.1"}}}
		s := running(t, Config{Resolver: z})
		questions := func(want int) {
			t.Helper()
			synctest.Wait()
			if asked := z.questions(); len(asked) != want {
				t.Errorf("%d questions, want %d: %q", len(asked), want, asked)
			}
		}
		check := func(want State) {
			t.Helper()
			if name, state := s.Check(addr); state != want || (name != "") != (want == Owns) {
				t.Errorf("got %q, %d; want %d", name, state, want)
			}
		}
		check(Unknown)
		questions(1)
		time.Sleep(5*time.Minute - 1)
		check(Unknown)
		questions(1) // not yet asked again
		z.know(names, nil)
		time.Sleep(time.Nanosecond)
		check(Unknown)
		questions(3)
		check(Owns)
		time.Sleep(24*time.Hour - 1)
		check(Owns)
		questions(3)
		z.know(names, refused)
		time.Sleep(time.Nanosecond)
		check(Owns) // the old answer, while a new one is looked for
		questions(4)
		check(Owns) // … in vain
		z.know(nil, nil)
		time.Sleep(5 * time.Minute)
		check(Owns)
		questions(5)
		check(Other) // it is no longer its name
		z.know(names, nil)
		s.Forget()
		check(Unknown)
		questions(7)
		check(Owns)
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{hanging: true}
		s := running(t, Config{Resolver: z, Lookups: 2, Queue: 3, Answers: 4, Timeout: time.Minute})
		for i := range 100 {
			s.Check(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
			synctest.Wait()
		}
		if len(z.questions()) != 2 || len(s.queue) != 3 || len(s.answers) != 4 || s.recent.Len() != 4 {
			t.Errorf("%d looked up, %d wait, %d and %d remembered; want 2, 3, 4 and 4", len(z.questions()), len(s.queue), len(s.answers), s.recent.Len())
		}
		if left := testutil.ToFloat64(s.left); left != 95 {
			t.Errorf("%v left, want 95", left)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(z.questions()); n != 4 {
			t.Errorf("%d looked up when the first have timed out, want 4", n)
		}
	})
}

// Whatever is asked, lookups come one after the other.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{}
		s := running(t, Config{Resolver: z, Every: 100 * time.Millisecond})
		for i := range 50 {
			s.Check(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		}
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if n := len(z.questions()); n != 11 {
			t.Errorf("%d looked up within a second, want one at once and 10 more", n)
		}
		time.Sleep(10 * time.Second)
		s.Check(netip.AddrFrom4([4]byte{192, 0, 2, 99}))
		synctest.Wait()
		if n := len(z.questions()); n != 51 {
			t.Errorf("%d looked up, want all, and the last at once", n)
		}
	})
}

// What is asked while others look up, forget and answer stays consistent.
func TestConcurrently(t *testing.T) {
	z := &zone{}
	s := running(t, Config{Resolver: z, Answers: 16, Queue: 8, Keep: time.Nanosecond})
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			for i := range 2000 {
				s.Check(netip.AddrFrom4([4]byte{192, 0, byte(n & 1), byte(i)}))
				if i%100 == 0 {
					s.Forget()
				}
			}
		})
	}
	all.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.answers) != s.recent.Len() || len(s.answers) > 16 {
		t.Errorf("%d answers, %d in order, want at most 16", len(s.answers), s.recent.Len())
	}
}

func BenchmarkCheck(b *testing.B) {
	s := New(Config{Resolver: &zone{}, Wanted: crawlers})
	addr := netip.MustParseAddr("66.249.66.1")
	s.Check(addr)
	b.ReportAllocs()
	for b.Loop() {
		s.Check(addr)
	}
}

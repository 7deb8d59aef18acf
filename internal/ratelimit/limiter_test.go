package ratelimit

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

var t0 = time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func compile(t testing.TB, p Policy) *Rules {
	t.Helper()
	r, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func limiter(t testing.TB, p Policy) *Limiter {
	return NewLimiter(LimiterConfig{Rules: compile(t, p), Seed: 7})
}

func login(at string) Event {
	return Event{Kind: KindLogin, Addr: addr(at), Machine: "m1", Plan: muster.Community}
}

// spend spends e at each time and fails unless it is allowed.
func spend(t testing.TB, l *Limiter, e Event, at ...time.Time) {
	t.Helper()
	for i, now := range at {
		if v := l.Spend(now, e); !v.Allowed {
			t.Fatalf("event %d at %s: expected it to be allowed, got %+v", i+1, now.Sub(t0), v)
		}
	}
}

// times returns n times from start, a step apart.
func times(start time.Time, step time.Duration, n int) []time.Time {
	var out []time.Time
	for i := range n {
		out = append(out, start.Add(time.Duration(i)*step))
	}
	return out
}

func TestTwentyLoginsAreAllowedTheNextBans(t *testing.T) {
	for limit, class := range map[string]Class{
		"login-not-sharing-not-enrolled": {},
		"login-sharing-not-enrolled":     {Sharing: true},
		"login-not-sharing-enrolled":     {Enrolled: true},
		"login-sharing-enrolled":         {Sharing: true, Enrolled: true},
	} {
		for name, step := range map[string]time.Duration{"at once": 0, "over 50 minutes": 149 * time.Second} {
			t.Run(limit+" "+name, func(t *testing.T) {
				l := limiter(t, Policy{Limits: DefaultLimits()})
				e := login("192.0.2.7")
				e.Class = class
				spend(t, l, e, times(t0, step, 20)...)
				now := t0.Add(20 * step)
				want := Verdict{
					Limit: limit, Count: 21, Threshold: 20, RetryAfter: time.Hour,
					Ban: &Ban{
						Prefix: netip.MustParsePrefix("192.0.2.7/32"), Scope: ScopeAll, Limit: limit,
						Reason: "more than 20 logins in 50 minutes from one address",
						Since:  now, Until: now.Add(time.Hour), Extend: time.Hour,
					},
				}
				if diff := cmp.Diff(want, l.Spend(now, e), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
					t.Error(diff)
				}
				// The address has a counter of its own for each class.
				e.Class.Sharing = !e.Class.Sharing
				spend(t, l, e, now)
			})
		}
	}
}

func TestEdgesOfTheWindow(t *testing.T) {
	const window = 50 * time.Minute
	for _, tt := range []struct {
		name    string
		at      []time.Time
		now     time.Time
		allowed bool
		count   int
	}{
		{"the first is a millisecond from leaving", times(t0, time.Second, 20), t0.Add(window - time.Millisecond), false, 21},
		{"the first leaves", times(t0, time.Second, 20), t0.Add(window), true, 20},
		{"all leave but one", times(t0, time.Second, 20), t0.Add(window + 18*time.Second), true, 2},
		{"all have left", times(t0, time.Second, 20), t0.Add(window + 19*time.Second), true, 1},
		{"the clock is back by a minute", times(t0, 0, 20), t0.Add(-time.Minute), false, 21},
		{"the clock is back by a day", times(t0, 0, 20), t0.Add(-24 * time.Hour), true, 1},
		{"fewer than the threshold", times(t0, 0, 19), t0, true, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := limiter(t, Policy{Limits: DefaultLimits()})
			spend(t, l, login("192.0.2.7"), tt.at...)
			v := l.Spend(tt.now, login("192.0.2.7"))
			if v.Allowed != tt.allowed || v.Count != tt.count {
				t.Errorf("expected allowed %t, count %d; got %+v", tt.allowed, tt.count, v)
			}
		})
	}
}

func TestARefusedEventIsNotCounted(t *testing.T) {
	l := limiter(t, Policy{Limits: []Limit{{Name: "pulls", Counted: Counted{Kind: "pull"}, Per: PerMachine, Threshold: 2, Window: time.Minute}}})
	e := Event{Kind: "pull", Machine: "m1"}
	spend(t, l, e, t0, t0.Add(20*time.Second))
	want := Verdict{Limit: "pulls", Count: 3, Threshold: 2, RetryAfter: 30 * time.Second}
	for range 3 {
		if diff := cmp.Diff(want, l.Spend(t0.Add(30*time.Second), e)); diff != "" {
			t.Fatal(diff)
		}
	}
	spend(t, l, e, t0.Add(60*time.Second)) // exactly when it was told to come back
}

func TestWhoShares(t *testing.T) {
	for _, tt := range []struct {
		name   string
		per    Per
		a, b   Event
		shared bool
	}{
		{"two addresses", PerAddress, Event{Addr: addr("192.0.2.1")}, Event{Addr: addr("192.0.2.2")}, false},
		{"a v4 address and its mapped form", PerAddress, Event{Addr: addr("192.0.2.1")}, Event{Addr: addr("::ffff:192.0.2.1")}, true},
		{"two addresses of a /64", PerAddress, Event{Addr: addr("2001:db8::1")}, Event{Addr: addr("2001:db8::ffff:0:0:9")}, true},
		{"two /64", PerAddress, Event{Addr: addr("2001:db8::1")}, Event{Addr: addr("2001:db8:0:1::1")}, false},
		{"a v4 address and a /64 of the same bits", PerAddress, Event{Addr: addr("192.0.2.1")}, Event{Addr: addr("::c000:201:0:0:0:0")}, false},
		{"two machines at an address", PerAddress, Event{Addr: addr("192.0.2.1"), Machine: "a"}, Event{Addr: addr("192.0.2.1"), Machine: "b"}, true},
		{"a machine at two addresses", PerMachine, Event{Addr: addr("192.0.2.1"), Machine: "a"}, Event{Addr: addr("192.0.2.2"), Machine: "a"}, true},
		{"two machines", PerMachine, Event{Machine: "a"}, Event{Machine: "b"}, false},
		{"two machines of an organisation", PerOrganisation, Event{Machine: "a", Organisation: "o"}, Event{Machine: "b", Organisation: "o"}, true},
		{"no organisation", PerOrganisation, Event{Machine: "a"}, Event{Machine: "a"}, false},
		{"machine and address: the same", PerMachineAddress, Event{Addr: addr("192.0.2.1"), Machine: "a"}, Event{Addr: addr("192.0.2.1"), Machine: "a"}, true},
		{"machine and address: another machine", PerMachineAddress, Event{Addr: addr("192.0.2.1"), Machine: "a"}, Event{Addr: addr("192.0.2.1"), Machine: "b"}, false},
		{"machine and address: another address", PerMachineAddress, Event{Addr: addr("192.0.2.1"), Machine: "a"}, Event{Addr: addr("192.0.2.2"), Machine: "a"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := limiter(t, Policy{Limits: []Limit{{Name: "one", Counted: Counted{Kind: "x"}, Per: tt.per, Threshold: 1, Window: time.Minute}}})
			tt.a.Kind, tt.b.Kind = "x", "x"
			spend(t, l, tt.a, t0)
			if v := l.Spend(t0, tt.b); v.Allowed == tt.shared {
				t.Errorf("expected shared %t, got %+v", tt.shared, v)
			}
		})
	}
}

func TestWrongPasswordsHaveTheirOwnLimit(t *testing.T) {
	l := limiter(t, Policy{Limits: DefaultLimits()})
	e := Event{Kind: KindWrongPassword, Addr: addr("2001:db8::7"), Machine: "m1", Plan: muster.Enterprise}
	spend(t, l, e, times(t0, time.Minute, 10)...)
	v := l.Spend(t0.Add(10*time.Minute), e)
	if v.Allowed || v.Ban == nil || v.Ban.Scope != ScopeLogin || v.Ban.Prefix.String() != "2001:db8::/64" ||
		v.Ban.Reason != "more than 10 wrong passwords in 50 minutes by one machine at one address" {
		t.Errorf("expected a ban of the /64 from logins, got %+v, ban %+v", v, v.Ban)
	}
}

func TestPlansThatAreNotFreeAreExempt(t *testing.T) {
	for _, plan := range []muster.Plan{muster.SecOps, muster.Enterprise} {
		l := limiter(t, Policy{Limits: DefaultLimits()})
		e := login("192.0.2.7")
		e.Plan = plan
		spend(t, l, e, times(t0, 0, 1000)...)
		if got := l.Stats().Keys; got != 0 {
			t.Errorf("%s: expected no counter, got %d", plan, got)
		}
		// What exempt machines did does not weigh on others at their address.
		spend(t, l, login("192.0.2.7"), times(t0, 0, 20)...)
	}
}

func TestOverrides(t *testing.T) {
	for _, tt := range []struct {
		name      string
		overrides []Override
		allowed   int // logins of m1, of organisation o1, from 198.51.100.7, after which the next is refused
	}{
		{"none", nil, 20},
		{"the range", []Override{{Addresses: netip.MustParsePrefix("198.51.100.0/24"), Threshold: 30}}, 30},
		{"another range", []Override{{Addresses: netip.MustParsePrefix("198.51.101.0/24"), Threshold: 30}}, 20},
		{"a mapped range", []Override{{Addresses: netip.MustParsePrefix("::ffff:198.51.100.0/120"), Threshold: 5}}, 5},
		{"v6 has nothing to do with it", []Override{{Addresses: netip.MustParsePrefix("::/0"), Threshold: 5}}, 20},
		{"the narrowest range", []Override{
			{Addresses: netip.MustParsePrefix("0.0.0.0/0"), Exempt: true},
			{Addresses: netip.MustParsePrefix("198.51.100.0/28"), Threshold: 3},
			{Addresses: netip.MustParsePrefix("198.51.100.0/24"), Threshold: 30},
		}, 3},
		{"the narrowest range for this limit", []Override{
			{Addresses: netip.MustParsePrefix("198.51.100.0/28"), Threshold: 3, Limits: []string{"wrong-password"}},
			{Addresses: netip.MustParsePrefix("198.51.100.0/24"), Threshold: 30},
		}, 30},
		{"the narrowest range in force", []Override{
			{Addresses: netip.MustParsePrefix("198.51.100.7/32"), Threshold: 3, Until: t0},
			{Addresses: netip.MustParsePrefix("198.51.100.0/24"), Threshold: 30, Until: t0.Add(time.Second)},
		}, 30},
		{"the organisation before the range", []Override{
			{Addresses: netip.MustParsePrefix("198.51.100.0/24"), Threshold: 30},
			{Organisation: "o1", Threshold: 7},
			{Organisation: "o2", Threshold: 8},
		}, 7},
		{"the machine before the organisation", []Override{
			{Organisation: "o1", Exempt: true},
			{Machine: "m1", Threshold: 2000},
		}, 2000},
		{"several of one subject", []Override{
			{Machine: "m1", Threshold: 4, Limits: []string{"wrong-password"}},
			{Machine: "m1", Threshold: 6, Limits: []string{"wrong-password", "login-not-sharing-not-enrolled"}},
		}, 6},
		{"exempt", []Override{{Machine: "m1", Exempt: true}}, 3000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i := range tt.overrides {
				tt.overrides[i].Reason = "test"
			}
			l := limiter(t, Policy{Limits: DefaultLimits(), Overrides: tt.overrides})
			e := login("198.51.100.7")
			e.Organisation = "o1"
			n := 0
			for n < 3000 && l.Spend(t0, e).Allowed {
				n++
			}
			if n != tt.allowed {
				t.Errorf("expected %d logins to be allowed, got %d", tt.allowed, n)
			}
		})
	}
}

func TestAnOverrideEnds(t *testing.T) {
	until := t0.Add(time.Minute)
	l := limiter(t, Policy{Limits: DefaultLimits(), Overrides: []Override{{Machine: "m1", Exempt: true, Until: until, Reason: "migration"}}})
	spend(t, l, login("192.0.2.7"), times(until.Add(-time.Nanosecond), 0, 100)...)
	spend(t, l, login("192.0.2.7"), times(until, 0, 20)...)
	if l.Spend(until, login("192.0.2.7")).Allowed {
		t.Error("expected the limit to hold again")
	}
}

func TestRulesChangeWhileCountersStay(t *testing.T) {
	limits := DefaultLimits()
	l := limiter(t, Policy{Limits: limits})
	spend(t, l, login("192.0.2.7"), times(t0, 0, 15)...)
	for i := range limits {
		limits[i].Threshold = 15
	}
	l.Use(compile(t, Policy{Limits: limits}))
	if v := l.Spend(t0, login("192.0.2.7")); v.Allowed || v.Count != 16 {
		t.Errorf("expected 15 to be the threshold and counted, got %+v", v)
	}
	l.Use(nil)
	spend(t, l, login("192.0.2.7"), times(t0, 0, 100)...)
}

func TestTheWaitAfterAThresholdWasLowered(t *testing.T) {
	limits := []Limit{{Name: "pulls", Counted: Counted{Kind: "pull"}, Per: PerMachine, Threshold: 10, Window: time.Minute}}
	l := limiter(t, Policy{Limits: limits})
	e := Event{Kind: "pull", Machine: "m1"}
	spend(t, l, e, times(t0, time.Second, 10)...)
	limits[0].Threshold = 4
	l.Use(compile(t, Policy{Limits: limits}))
	now := t0.Add(10 * time.Second)
	v := l.Spend(now, e)
	if v.Allowed || v.RetryAfter != 56*time.Second { // when three are left of those at 0 to 9 s
		t.Fatalf("expected to wait until 1m6s, got %+v", v)
	}
	spend(t, l, e, now.Add(v.RetryAfter))
}

func TestOfSeveralLimitsTheStrictestDecides(t *testing.T) {
	l := limiter(t, Policy{Limits: []Limit{
		{Name: "short", Counted: Counted{Kind: "x"}, Per: PerAddress, Threshold: 2, Window: time.Second},
		{Name: "long", Counted: Counted{Kind: "x"}, Per: PerAddress, Threshold: 3, Window: time.Hour},
		{Name: "middle", Counted: Counted{Kind: "x"}, Per: PerAddress, Threshold: 3, Window: time.Minute},
	}})
	e := Event{Kind: "x", Addr: addr("192.0.2.1")}
	for i, want := range []Verdict{
		{Allowed: true, Limit: "short", Count: 1, Threshold: 2},
		{Allowed: true, Limit: "short", Count: 2, Threshold: 2},
		{Limit: "short", Count: 3, Threshold: 2, RetryAfter: time.Second},
		{Limit: "long", Count: 4, Threshold: 3, RetryAfter: time.Hour},
	} {
		if diff := cmp.Diff(want, l.Spend(t0, e)); diff != "" {
			t.Errorf("event %d: %s", i+1, diff)
		}
	}
}

func TestForgetLetsBeginAnew(t *testing.T) {
	l := limiter(t, Policy{Limits: DefaultLimits()})
	wrong := Event{Kind: KindWrongPassword, Addr: addr("192.0.2.7"), Machine: "m1"}
	spend(t, l, login("192.0.2.7"), times(t0, 0, 20)...)
	spend(t, l, login("192.0.3.7"), times(t0, 0, 20)...)
	spend(t, l, login("2001:db8::1"), times(t0, 0, 20)...)
	spend(t, l, wrong, times(t0, 0, 10)...)
	if err := l.Forget(netip.MustParsePrefix("192.0.2.0/24")); err != nil {
		t.Fatal(err)
	}
	spend(t, l, login("192.0.2.7"), t0)
	spend(t, l, wrong, t0)
	for _, other := range []string{"192.0.3.7", "2001:db8::1"} {
		if l.Spend(t0, login(other)).Allowed {
			t.Errorf("%s was forgotten too", other)
		}
	}
	if err := l.Forget(netip.MustParsePrefix("2001:db8::1/128")); err != nil {
		t.Fatal(err)
	}
	spend(t, l, login("2001:db8::1"), t0)
}

// TestNeverMoreThanTheThreshold: whatever comes when, what was allowed in any
// window is not over the threshold; and while less than it was allowed in the
// last window (and a slice), nothing is refused.
func TestNeverMoreThanTheThreshold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		threshold := rapid.OneOf(rapid.IntRange(1, 30), rapid.IntRange(31, 300)).Draw(t, "threshold")
		span := time.Duration(rapid.Int64Range(1000, 100_000).Draw(t, "window")) * time.Millisecond
		w := windowOf(span, threshold)
		slack := time.Duration(0)
		if threshold > ExactThreshold {
			slack = time.Duration(w.holdMs())*time.Millisecond - span
			if slack > span*2/23+time.Millisecond*24 {
				t.Fatalf("an event counts %s longer than the window of %s", slack, span)
			}
		}
		var s slot
		var allowed []time.Time
		now := t0
		within := func(d time.Duration) (n int) {
			for _, at := range allowed {
				if now.Sub(at) < d {
					n++
				}
			}
			return n
		}
		for range rapid.IntRange(1, 400).Draw(t, "events") {
			if rapid.IntRange(0, 5).Draw(t, "pause") == 0 {
				now = now.Add(time.Duration(rapid.Int64Range(0, 2*span.Milliseconds()).Draw(t, "long")) * time.Millisecond)
			} else {
				now = now.Add(time.Duration(rapid.Int64Range(0, 2*span.Milliseconds()/int64(threshold)).Draw(t, "short")) * time.Millisecond)
			}
			count, ok, wait := w.add(&s, now.UnixMilli())
			if ok {
				allowed = append(allowed, now)
				if n := within(span); n > threshold {
					t.Fatalf("%d events were allowed in a window, %d is the threshold", n, threshold)
				}
				continue
			}
			if n := within(span + slack); n < threshold {
				t.Fatalf("refused though only %d of %d were allowed", n, threshold)
			}
			if count != threshold+1 || wait <= 0 || wait > w.holdMs() {
				t.Fatalf("refused with count %d of %d, wait %d ms", count, threshold, wait)
			}
			// The wait is honest: not earlier, and then it is allowed.
			early, late := s, s
			if _, ok, _ := w.add(&early, now.UnixMilli()+wait-1); ok {
				t.Fatalf("allowed before the wait of %d ms was over", wait)
			}
			if _, ok, _ := w.add(&late, now.UnixMilli()+wait); !ok {
				t.Fatalf("refused after the wait of %d ms", wait)
			}
		}
	})
}

// TestTheTableIsAMap compares a table that is large enough with a plain map of
// times, under random events, sweeps and lifts.
func TestTheTableIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, err := Compile(Policy{Limits: []Limit{{Name: "x", Counted: Counted{Kind: "x"}, Per: PerAddress, Threshold: 3, Window: 10 * time.Second}}})
		if err != nil {
			t.Fatal(err)
		}
		l := NewLimiter(LimiterConfig{Rules: rules, Seed: rapid.Uint64().Draw(t, "seed")})
		model := map[netip.Addr][]time.Time{}
		now := t0
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			a := netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 40).Draw(t, "addr"))})
			switch rapid.IntRange(0, 20).Draw(t, "what") {
			case 0:
				l.Sweep(now, shardCount)
			case 1:
				if err := l.Forget(PrefixOf(a)); err != nil {
					t.Fatal(err)
				}
				delete(model, a)
			default:
				n := 0
				for _, at := range model[a] {
					if now.Sub(at) < 10*time.Second {
						n++
					}
				}
				v := l.Spend(now, Event{Kind: "x", Addr: a})
				if v.Count != n+1 || v.Allowed != (n < 3) {
					t.Fatalf("%s: expected count %d, got %+v", a, n+1, v)
				}
				if v.Allowed {
					model[a] = append(model[a], now)
				}
			}
		}
		l.Sweep(now.Add(time.Hour), shardCount)
		if s := l.Stats(); s.Keys != 0 || s.Bytes != 0 {
			t.Fatalf("expected nothing to be left, got %+v", s)
		}
	})
}

func floodAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
}

// TestAFloodStaysWithinItsBound: in a full table the bound holds, and those who
// are near their threshold outlive any number of addresses that come once.
func TestAFloodStaysWithinItsBound(t *testing.T) {
	l := NewLimiter(LimiterConfig{Rules: compile(t, Policy{Limits: DefaultLimits()}), MaxKeys: 20_000, Seed: 7})
	offenders := []string{"192.0.2.7", "192.0.2.8", "2001:db8::1"}
	for _, o := range offenders {
		spend(t, l, login(o), times(t0, 0, 3)...)
	}
	for i := range 300_000 {
		l.Spend(t0.Add(time.Duration(i)*time.Millisecond), login(floodAddr(1<<24+i).String()))
	}
	// Among those that came once, it is first in, first out.
	spend(t, l, login("192.0.2.9"), t0.Add(5*time.Minute))
	for i := range 10_000 {
		l.Spend(t0.Add(5*time.Minute+time.Duration(i)*time.Millisecond), login(floodAddr(1<<25+i).String()))
	}
	if v := l.Spend(t0.Add(6*time.Minute), login("192.0.2.9")); v.Count != 2 {
		t.Errorf("expected the newcomer to outlive half a table of newer ones, got %+v", v)
	}
	s := l.Stats()
	if s.Keys > s.MaxKeys || s.MaxKeys > 20_000+shardCount*chunkSize || s.Evicted == 0 || s.Bytes > s.MaxKeys*140 {
		t.Errorf("expected the bound to hold, got %+v", s)
	}
	for _, o := range offenders {
		if v := l.Spend(t0.Add(5*time.Minute), login(o)); v.Count != 4 {
			t.Errorf("%s: expected its 3 logins to be remembered, got %+v", o, v)
		}
	}

	// When it is over, memory comes back, though some stay.
	for i := range 1000 {
		l.Spend(t0.Add(2*time.Hour), login(floodAddr(i).String()))
	}
	l.Sweep(t0.Add(2*time.Hour), shardCount)
	after := l.Stats()
	if after.Keys != 1000 || after.Bytes*3 > s.Bytes*2 {
		t.Errorf("expected 1000 counters and less memory than %d, got %+v", s.Bytes, after)
	}
}

func TestOneMillionAddressesWithin200MB(t *testing.T) {
	if testing.Short() {
		t.Skip("fills 170 MB")
	}
	rules := compile(t, Policy{Limits: DefaultLimits()})
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapInuse)
	}
	before := heap()
	l := NewLimiter(LimiterConfig{Rules: rules, Seed: 7})
	e := login("192.0.2.1")
	for i := range 1_100_000 {
		e.Addr = floodAddr(i)
		l.Spend(t0, e)
	}
	used := heap() - before
	s := l.Stats()
	t.Logf("%d counters (%d evicted): %d MB of heap, %d MB by its own account", s.Keys, s.Evicted, used>>20, s.Bytes>>20)
	if s.Keys < 1_000_000 || used > 200_000_000 {
		t.Errorf("expected a million counters within 200 MB, got %d within %d", s.Keys, used)
	}
}

func TestASlotIsTwoCacheLines(t *testing.T) {
	if got := unsafe.Sizeof(slot{}); got != slotSize {
		t.Errorf("expected %d bytes, got %d", slotSize, got)
	}
}

// TestTheCommonPathDoesNotAllocate: neither counting nor the check of a ban.
func TestTheCommonPathDoesNotAllocate(t *testing.T) {
	l := limiter(t, Policy{Limits: DefaultLimits()})
	bans := NewBans(BansConfig{})
	put(t, bans, ban("192.0.2.7/32"))
	put(t, bans, ban("192.0.2.0/24"))
	now := t0
	good := login("192.0.2.7")
	wrong := Event{Kind: KindWrongPassword, Addr: addr("192.0.2.7"), Machine: strings.Repeat("a", muster.MaxMachineID)}
	for name, f := range map[string]func(){
		"login":          func() { l.Spend(now, good) },
		"wrong password": func() { l.Spend(now, wrong) },
		"banned":         func() { bans.Check(t0, addr("192.0.2.7"), false) },
		"range banned":   func() { bans.Check(t0, addr("192.0.2.8"), false) },
		"not banned":     func() { bans.Check(t0, addr("2001:db8::1"), false) },
	} {
		f() // the counter's own memory
		if n := testing.AllocsPerRun(100, func() { now = now.Add(time.Hour); f() }); n != 0 {
			t.Errorf("%s: expected no allocation, got %v", name, n)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	l := limiter(t, Policy{Limits: DefaultLimits()})
	var wg sync.WaitGroup
	var mu sync.Mutex
	allowed := 0
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				if l.Spend(t0, login("192.0.2.7")).Allowed {
					mu.Lock()
					allowed++
					mu.Unlock()
				}
				l.Spend(t0, login(floodAddr(i).String()))
				if i%100 == 0 {
					l.Sweep(t0, 16)
					l.Use(compile(t, Policy{Limits: DefaultLimits()}))
				}
			}
		})
	}
	wg.Wait()
	if allowed != 20 {
		t.Errorf("expected 20 of 4000 to be allowed, got %d", allowed)
	}
}

func TestFaultyPolicies(t *testing.T) {
	ok := DefaultLimits()[0]
	with := func(change func(*Limit)) Policy {
		l := ok
		change(&l)
		return Policy{Limits: []Limit{l}}
	}
	override := func(o Override) Policy { return Policy{Limits: []Limit{ok}, Overrides: []Override{o}} }
	for _, tt := range []struct {
		policy Policy
		want   string
	}{
		{with(func(l *Limit) { l.Name = "Logins!" }), "name: expected at most 64 lower-case"},
		{with(func(l *Limit) { l.Counted.Kind = "" }), "counted kind is empty"},
		{with(func(l *Limit) { l.Per = "planet" }), `got "planet"`},
		{with(func(l *Limit) { l.Threshold = 0 }), "expected 1 to 1000000 events, got 0"},
		{with(func(l *Limit) { l.Window = time.Microsecond }), "expected 1 second to 7 days in whole milliseconds, got 1µs"},
		{with(func(l *Limit) { l.Penalty.Ban = -1 }), "expected 0 (none) to 8784h0m0s"},
		{with(func(l *Limit) { l.Penalty.Scope = "" }), `ban scope: expected "all" or "login"`},
		{with(func(l *Limit) { l.Penalty.Ban = 0 }), "extend_on_retry without a ban"},
		{with(func(l *Limit) { l.ExemptPlans = []muster.Plan{"GOLD"} }), `got "GOLD"`},
		{Policy{Limits: []Limit{ok, ok}}, "there are two of this name"},
		{Policy{Limits: make([]Limit, MaxLimits+1)}, "expected at most 64 limits, got 65"},
		{override(Override{Exempt: true, Reason: "x"}), "expected exactly one of"},
		{override(Override{Machine: "m", Organisation: "o", Exempt: true, Reason: "x"}), "expected exactly one of"},
		{override(Override{Machine: "m", Exempt: true, Threshold: 3, Reason: "x"}), "expected either exempt or a threshold"},
		{override(Override{Machine: "m", Reason: "x"}), "expected either exempt or a threshold"},
		{override(Override{Machine: "m", Threshold: -3, Reason: "x"}), "expected 1 to 1000000 events, got -3"},
		{override(Override{Machine: "m", Exempt: true}), "reason is empty"},
		{override(Override{Machine: "m", Exempt: true, Reason: "x", Limits: []string{"nope"}}), `override for machine m: there is no limit "nope"`},
		{override(Override{Addresses: netip.MustParsePrefix("::ffff:0:0/80"), Exempt: true, Reason: "x"}), "part v4, part v6"},
	} {
		_, err := Compile(tt.policy)
		if err == nil || !strings.Contains(err.Error(), tt.want) || muster.CodeOf(err) != muster.Invalid {
			t.Errorf("expected %q of code invalid, got %v", tt.want, err)
		}
	}
}

func BenchmarkSpend(b *testing.B) {
	rules := compile(b, Policy{Limits: DefaultLimits(), Overrides: []Override{{Addresses: netip.MustParsePrefix("198.51.100.0/24"), Exempt: true, Reason: "x"}}})
	for _, keys := range []int{1000, 1_000_000} {
		l := NewLimiter(LimiterConfig{Rules: rules, Seed: 7})
		e := login("192.0.2.1")
		fill := func() {
			for i := range keys {
				e.Addr = floodAddr(i * 7919)
				l.Spend(t0, e)
			}
		}
		fill()
		b.Run(fmt.Sprintf("known/keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			e, now := e, t0
			for i := 0; b.Loop(); i++ {
				e.Addr = floodAddr(i % keys * 7919)
				now = now.Add(time.Hour / time.Duration(keys)) // never over the threshold
				l.Spend(now, e)
			}
		})
		b.Run(fmt.Sprintf("parallel/keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				e, now := e, t0.Add(24*time.Hour)
				for i := 0; pb.Next(); i++ {
					e.Addr = floodAddr(i % keys * 7919)
					now = now.Add(time.Hour / time.Duration(keys))
					l.Spend(now, e)
				}
			})
		})
	}
	l := NewLimiter(LimiterConfig{Rules: rules, Seed: 7})
	b.Run("flood of new addresses", func(b *testing.B) {
		b.ReportAllocs()
		e := login("192.0.2.1")
		for i := 0; b.Loop(); i++ {
			e.Addr = floodAddr(i)
			l.Spend(t0, e)
		}
	})
	b.Run("wrong password", func(b *testing.B) {
		b.ReportAllocs()
		e := Event{Kind: KindWrongPassword, Addr: addr("192.0.2.1"), Machine: strings.Repeat("a", 48)}
		now := t0
		for b.Loop() {
			now = now.Add(time.Hour)
			l.Spend(now, e)
		}
	})
	b.Run("no limit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			l.Spend(t0, Event{Kind: "pull"})
		}
	})
}

func TestLimitThatIsOff(t *testing.T) {
	limits := DefaultLimits()
	for i := range limits {
		limits[i].Off = limits[i].Name == "wrong-password"
	}
	rules, err := Compile(Policy{Limits: limits, Overrides: []Override{
		{Machine: "a", Limits: []string{"wrong-password"}, Exempt: true, Reason: "names a limit that is off"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if rules.Counts(KindWrongPassword) || !rules.Counts(KindLogin) {
		t.Errorf("counts wrong passwords %t and logins %t: expected false and true", rules.Counts(KindWrongPassword), rules.Counts(KindLogin))
	}
	limits = append(limits, Limit{Name: "wrong-password"})
	if _, err := Compile(Policy{Limits: limits}); err == nil {
		t.Error("two limits of one name are taken when the first is off")
	}
}

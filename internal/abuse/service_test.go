package abuse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/internal/ratelimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	ctx    = context.Background()
	client = netip.MustParseAddr("198.51.100.7")
	other  = netip.MustParseAddr("198.51.100.8")
	ada    = By{User: "ada", Reason: "asked by mail"}
)

// clock is a time that tests move.
type clock struct{ at time.Time }

func (c *clock) now() time.Time          { return c.at }
func (c *clock) advance(d time.Duration) { c.at = c.at.Add(d) }

func newClock() *clock { return &clock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func newService(t *testing.T, cfg Config) *Service {
	t.Helper()
	if cfg.Store == nil {
		cfg.Store = newMemory()
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

func wantBanned(t *testing.T, err error) ratelimit.Ban {
	t.Helper()
	var b *Banned
	if !errors.As(err, &b) {
		t.Fatalf("got error %v: expected a ban", err)
	}
	return b.Ban
}

// The classes of the seed ("Central API 403"): each allows 20 logins in 50
// minutes and bans at the 21st, for an hour.
func TestEveryClassAndBoundary(t *testing.T) {
	for name, class := range map[string]Client{
		"neither sharing nor enrolled": {},
		"sharing, not enrolled":        {Sharing: true},
		"enrolled, not sharing":        {Organisation: "o", Plan: muster.Community},
		"enrolled and sharing":         {Organisation: "o", Plan: muster.Community, Sharing: true},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			s := newService(t, Config{Now: clock.now})
			class.Addr, class.Machine = client, "m1"
			begin := clock.at
			for i := range 20 {
				if err := s.Login(class); err != nil {
					t.Fatalf("login %d: %v", i+1, err)
				}
				clock.advance(149 * time.Second) // 20 of them are 49 min 40 s
			}
			if _, banned := s.Refuse(client, true); banned {
				t.Fatal("banned after 20 logins")
			}
			clock.at = begin.Add(50*time.Minute - time.Millisecond)
			b := wantBanned(t, s.Login(class))
			if want := clock.at.Add(time.Hour); !b.Until.Equal(want) {
				t.Errorf("banned until %s: expected %s", b.Until, want)
			}
			for _, login := range []bool{true, false} {
				if _, banned := s.Refuse(client, login); !banned {
					t.Errorf("not refused (login %t) during the ban", login)
				}
			}
			if _, banned := s.Refuse(other, true); banned {
				t.Error("the neighbour is refused")
			}
			// The last retry begins the hour anew.
			clock.advance(59 * time.Minute)
			if b, banned := s.Refuse(client, false); !banned || !b.Until.Equal(clock.at.Add(time.Hour)) {
				t.Errorf("a retry gives a ban until %s (%t): expected %s", b.Until, banned, clock.at.Add(time.Hour))
			}
			clock.advance(time.Hour - time.Nanosecond)
			if _, banned := s.BanOf(client); !banned {
				t.Error("not banned a moment before the end")
			}
			clock.advance(time.Nanosecond)
			if _, banned := s.Refuse(client, true); banned {
				t.Error("banned at the end")
			}
			if err := s.Login(class); err != nil {
				t.Errorf("after the ban: %v", err)
			}
		})
	}
}

func TestWindowEdge(t *testing.T) {
	clock := newClock()
	s := newService(t, Config{Now: clock.now})
	c := Client{Addr: client, Machine: "m1"}
	for range 20 {
		if err := s.Login(c); err != nil {
			t.Fatal(err)
		}
	}
	clock.advance(50 * time.Minute) // the 20 have left the window
	for i := range 20 {
		if err := s.Login(c); err != nil {
			t.Fatalf("login %d in the next window: %v", i+1, err)
		}
	}
	wantBanned(t, s.Login(c))
}

func TestPaidPlansAreExempt(t *testing.T) {
	for _, plan := range []muster.Plan{muster.SecOps, muster.Enterprise} {
		s := newService(t, Config{Now: newClock().now})
		for i := range 500 {
			if err := s.Login(Client{Addr: client, Machine: fmt.Sprint("m", i%50), Organisation: "o", Plan: plan}); err != nil {
				t.Fatalf("%s, login %d: %v", plan, i+1, err)
			}
		}
	}
}

// A /64 is one client, and a v4-mapped address the v4 one.
func TestAddressesThatAreOneClient(t *testing.T) {
	s := newService(t, Config{Now: newClock().now})
	for i := range 20 {
		addr := netip.MustParseAddr(fmt.Sprintf("2001:db8:1:2::%x", i+1))
		if err := s.Login(Client{Addr: addr, Machine: "m"}); err != nil {
			t.Fatal(err)
		}
	}
	b := wantBanned(t, s.Login(Client{Addr: netip.MustParseAddr("2001:db8:1:2:ffff::1"), Machine: "m"}))
	if b.Prefix.String() != "2001:db8:1:2::/64" {
		t.Errorf("banned %s: expected the /64", b.Prefix)
	}
	if _, banned := s.Refuse(netip.MustParseAddr("2001:db8:1:3::1"), true); banned {
		t.Error("the next /64 is banned")
	}
	for range 20 {
		if err := s.Login(Client{Addr: client, Machine: "m"}); err != nil {
			t.Fatal(err)
		}
	}
	wantBanned(t, s.Login(Client{Addr: netip.MustParseAddr("::ffff:198.51.100.7"), Machine: "m"}))
}

// Wrong passwords for a machine keep this address from logging in, and take
// nothing from the machine itself elsewhere.
func TestWrongPasswords(t *testing.T) {
	s := newService(t, Config{Now: newClock().now})
	for i := range 10 {
		if err := s.WrongPassword(client, "victim"); err != nil {
			t.Fatalf("wrong password %d: %v", i+1, err)
		}
	}
	b := wantBanned(t, s.WrongPassword(client, "victim"))
	if b.Scope != ratelimit.ScopeLogin || b.Limit != "wrong-password" {
		t.Errorf("banned with scope %s by %s: expected login by wrong-password", b.Scope, b.Limit)
	}
	if _, banned := s.Refuse(client, false); banned {
		t.Error("tokens behind that address are refused too")
	}
	if err := s.Login(Client{Addr: other, Machine: "victim"}); err != nil {
		t.Errorf("the machine at its own address: %v", err)
	}
}

// A guesser that changes the machine with each attempt is counted by its
// address.
func TestGuessingManyMachines(t *testing.T) {
	s := newService(t, Config{Now: newClock().now})
	for i := range 20 {
		if err := s.WrongPassword(client, fmt.Sprint("guess", i)); err != nil {
			t.Fatal(err)
		}
	}
	wantBanned(t, s.WrongPassword(client, "guess20"))
}

func TestScopeLoginAndNoExtension(t *testing.T) {
	limits := ratelimit.DefaultLimits()
	for i := range limits {
		limits[i].Penalty.Scope = ratelimit.ScopeLogin
		limits[i].Penalty.ExtendOnRetry = false
	}
	clock := newClock()
	s := newService(t, Config{Now: clock.now, Limits: limits})
	for range 20 {
		if err := s.Login(Client{Addr: client, Machine: "m"}); err != nil {
			t.Fatal(err)
		}
	}
	end := wantBanned(t, s.Login(Client{Addr: client, Machine: "m"})).Until
	if _, banned := s.Refuse(client, false); banned {
		t.Error("requests with a token are refused")
	}
	clock.advance(30 * time.Minute)
	if b, banned := s.Refuse(client, true); !banned || !b.Until.Equal(end) {
		t.Errorf("a retry gives a ban until %s (%t): expected %s still", b.Until, banned, end)
	}
}

func TestRoutesByChoice(t *testing.T) {
	s := newService(t, Config{Now: newClock().now})
	const kind = "POST /signals"
	if s.Counts(kind) {
		t.Fatal("signals are counted by default")
	}
	if err := s.SetLimit(ctx, ratelimit.Limit{
		Name: "signals", Counted: ratelimit.Counted{Kind: kind}, Per: ratelimit.PerMachine, Threshold: 2, Window: time.Minute,
	}, ada); err != nil {
		t.Fatal(err)
	}
	c := Client{Addr: client, Machine: "m"}
	if !s.Counts(kind) || s.Spend(kind, c) != nil || s.Spend(kind, c) != nil {
		t.Fatal("two are allowed")
	}
	err := s.Spend(kind, c)
	var limited *muster.Error
	if !errors.As(err, &limited) || limited.Code != muster.RateLimited || limited.RetryAfter != time.Minute {
		t.Fatalf("got %v: expected a rate limit with a minute to wait", err)
	}
	if err := s.Spend(kind, Client{Addr: client, Machine: "n"}); err != nil {
		t.Errorf("another machine: %v", err)
	}
}

func TestPolicyAtRunTime(t *testing.T) {
	clock, store := newClock(), newMemory()
	s := newService(t, Config{Now: clock.now, Store: store, Exempt: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	c := Client{Addr: client, Machine: "m"}
	logins := func(c Client) int {
		for i := range 100 {
			if s.Login(c) != nil {
				return i
			}
		}
		return 100
	}
	if got := logins(Client{Addr: netip.MustParseAddr("192.0.2.9"), Machine: "m"}); got != 100 {
		t.Errorf("an exempt address: %d logins", got)
	}
	o, err := s.AddOverride(ctx, ratelimit.Override{Addresses: netip.PrefixFrom(client, 32), Threshold: 30, Until: clock.at.Add(time.Hour)}, ada)
	if err != nil {
		t.Fatal(err)
	}
	if got := logins(c); got != 30 {
		t.Errorf("with an override: %d logins, expected 30", got)
	}
	if _, err := s.LiftBan(ctx, netip.PrefixFrom(client, 32), ada); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Hour) // it has ended
	if got := logins(c); got != 20 {
		t.Errorf("after its end: %d logins, expected 20", got)
	}
	if err := s.RemoveOverride(ctx, o.ID, ada); err != nil {
		t.Error(err)
	}
	if err := s.RemoveOverride(ctx, o.ID, ada); muster.CodeOf(err) != muster.NotFound {
		t.Errorf("removed again: %v", err)
	}

	off := s.Limits()[0]
	off.Off = true
	if err := s.SetLimit(ctx, off, ada); err != nil {
		t.Fatal(err)
	}
	if _, err := s.LiftBan(ctx, netip.PrefixFrom(client, 32), ada); err != nil {
		t.Fatal(err)
	}
	if got := logins(c); got != 100 {
		t.Errorf("with the limit off: %d logins", got)
	}
	again := newService(t, Config{Now: clock.now, Store: store})
	if !again.Limits()[0].Off {
		t.Error("after a restart the limit is on again")
	}
	if err := s.ResetLimit(ctx, off.Name, ada); err != nil {
		t.Fatal(err)
	}
	if got := logins(c); got != 20 {
		t.Errorf("after the reset: %d logins", got)
	}
	if err := s.ResetLimit(ctx, off.Name, ada); muster.CodeOf(err) != muster.NotFound {
		t.Errorf("reset again: %v", err)
	}
	bad := off
	bad.Threshold = 0
	if err := s.SetLimit(ctx, bad, ada); muster.CodeOf(err) != muster.Invalid {
		t.Errorf("a limit of 0: %v", err)
	}

	var actions []string
	for _, e := range store.audit {
		actions = append(actions, e.Action)
		if e.By != "ada" || e.Reason != "asked by mail" || !json.Valid(e.Detail) && e.Action != "limit.reset" {
			t.Errorf("audit entry %+v", e)
		}
	}
	if got, want := strings.Join(actions, " "), "override.add ban.lift override.remove limit.set ban.lift limit.reset"; got != want {
		t.Errorf("audited %s\nexpected %s", got, want)
	}
}

// An override whose limit left the configuration does not keep the server from
// starting.
func TestOverrideOfALimitThatIsGone(t *testing.T) {
	store := newMemory()
	store.overrides["x"] = ratelimit.Override{ID: "x", Machine: "m", Limits: []string{"gone"}, Exempt: true, Reason: "r"}
	if got := newService(t, Config{Store: store}).Overrides(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// run runs services until stop is called, in a bubble's time.
func run(t *testing.T, services ...*Service) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, len(services))
	for _, s := range services {
		go func() { done <- s.Run(ctx) }()
	}
	return func() {
		cancel()
		for range services {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}

func TestBansOutliveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		s := newService(t, Config{Store: store})
		stop := run(t, s)
		c := Client{Addr: client, Machine: "m"}
		for range 20 {
			if err := s.Login(c); err != nil {
				t.Fatal(err)
			}
		}
		want := wantBanned(t, s.Login(c))
		stop()
		again := newService(t, Config{Store: store})
		if got, banned := again.BanOf(client); !banned || !got.Until.Equal(want.Until) || got.Reason != want.Reason {
			t.Errorf("after a restart: %+v (%t), expected %+v", got, banned, want)
		}
	})
}

func TestBanByAPerson(t *testing.T) {
	clock, store := newClock(), newMemory()
	s := newService(t, Config{Now: clock.now, Store: store})
	put, err := s.AddBan(ctx, ratelimit.Ban{
		Prefix: netip.MustParsePrefix("2001:db8::1/128"), Scope: ratelimit.ScopeAll, Reason: "r", Until: clock.at.Add(time.Minute),
	}, ada)
	if err != nil || put.Prefix.String() != "2001:db8::/64" || put.By != "ada" || !put.Since.Equal(clock.at) {
		t.Fatalf("%+v, %v", put, err)
	}
	if stored, err := store.Bans(ctx, clock.at); err != nil || len(stored) != 1 || len(store.audit) != 1 || store.audit[0].Action != "ban.add" {
		t.Fatalf("stored when the call returns: %v, %v; audited: %v", stored, err, store.audit)
	}
	if _, banned := s.Refuse(netip.MustParseAddr("2001:db8::2"), false); !banned {
		t.Error("not in force")
	}
	for _, bad := range []ratelimit.Ban{
		{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Scope: ratelimit.ScopeAll, Reason: "everybody"},
		{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Scope: ratelimit.ScopeAll},
		{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Scope: "some", Reason: "r"},
	} {
		if _, err := s.AddBan(ctx, bad, ada); muster.CodeOf(err) != muster.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// What the store refuses is written later, and a lift meanwhile wins.
func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		s := newService(t, Config{Store: store})
		stop := run(t, s)
		defer stop()
		store.mu.Lock()
		store.fail = errors.New("disk full")
		store.mu.Unlock()
		for _, addr := range []netip.Addr{client, other} {
			for range 21 {
				_ = s.Login(Client{Addr: addr, Machine: "m"})
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if _, err := s.LiftBan(ctx, netip.PrefixFrom(client, 32), ada); err == nil {
			t.Error("a lift that cannot be kept is no error")
		}
		if _, banned := s.BanOf(client); !banned {
			t.Error("the ban is lifted all the same")
		}
		store.mu.Lock()
		store.fail = nil
		store.mu.Unlock()
		if _, err := s.LiftBan(ctx, netip.PrefixFrom(client, 32), ada); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		store.mu.Lock()
		defer store.mu.Unlock()
		if _, ok := store.bans[netip.PrefixFrom(other, 32)]; !ok || len(store.bans) != 1 {
			t.Errorf("stored: %v, expected the ban of %s alone", store.bans, other)
		}
	})
}

// pair returns two nodes with one store that hear each other.
func pair(t *testing.T, store Store) (a, b *Service) {
	share := func(m []byte) {
		if len(m) > 64<<10 {
			t.Errorf("a message has %d bytes: a bell carries 65,536", len(m))
		}
		for _, s := range []*Service{a, b} { // a bell is heard by its ringer too
			if err := s.Hear(ctx, m, false); err != nil {
				t.Error(err)
			}
		}
	}
	a = newService(t, Config{Store: store, Share: share})
	b = newService(t, Config{Store: store, Share: share})
	return a, b
}

func TestNodesShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, newMemory())
		stop := run(t, a, b)
		defer stop()
		c := Client{Addr: client, Machine: "m"}
		settle := func() { time.Sleep(time.Second); synctest.Wait() }

		// Ten logins at each node are twenty.
		for range 10 {
			if err := errors.Join(a.Login(c), b.Login(c)); err != nil {
				t.Fatal(err)
			}
			settle()
		}
		wantBanned(t, b.Login(c))
		settle()
		if _, banned := a.Refuse(client, true); !banned {
			t.Fatal("a second later the other node serves a banned client")
		}
		if _, err := a.LiftBan(ctx, netip.PrefixFrom(client, 32), ada); err != nil {
			t.Fatal(err)
		}
		settle()
		for name, s := range map[string]*Service{"a": a, "b": b} {
			if _, banned := s.Refuse(client, true); banned {
				t.Errorf("node %s refuses after the lift", name)
			}
		}
		for i := range 10 { // and counts anew, on both
			if err := errors.Join(a.Login(c), b.Login(c)); err != nil {
				t.Fatalf("login %d after the lift: %v", i+1, err)
			}
			settle()
		}

		off := a.Limits()[0]
		off.Off = true
		if err := a.SetLimit(ctx, off, ada); err != nil {
			t.Fatal(err)
		}
		settle()
		if !b.Limits()[0].Off {
			t.Error("the other node does not know of a changed limit")
		}
	})
}

// A node that heard nothing finds out by itself.
func TestResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		a, b := newService(t, Config{Store: store}), newService(t, Config{Store: store})
		stop := run(t, a, b)
		defer stop()
		range1 := netip.MustParsePrefix("203.0.113.0/24")
		if _, err := a.AddBan(ctx, ratelimit.Ban{Prefix: range1, Scope: ratelimit.ScopeAll, Reason: "r"}, ada); err != nil {
			t.Fatal(err)
		}
		inside := range1.Addr().Next()
		time.Sleep(resyncEvery + time.Second)
		synctest.Wait()
		if _, banned := b.BanOf(inside); !banned {
			t.Fatal("a ban is not found by comparison")
		}
		if _, err := a.LiftBan(ctx, range1, ada); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*resyncEvery + time.Second)
		synctest.Wait()
		if _, banned := b.BanOf(inside); banned {
			t.Error("a lift is not found by comparison")
		}
	})
}

func TestAnswer(t *testing.T) {
	now := newClock().at
	ban := ratelimit.Ban{
		Prefix: netip.PrefixFrom(client, 32), Scope: ratelimit.ScopeAll, Reason: `more than 20 "logins"`, Limit: "login",
		Since: now, Until: now.Add(time.Hour), Extend: time.Hour,
	}
	a := Answer{Look: "https://muster.example/api/v1/ban", Appeal: "abuse@muster.example"}
	var got struct {
		Message, Code, Address, Scope, Limit, Reason, Look, Appeal string
		Until                                                      *time.Time
		RetryAfter                                                 int  `json:"retry_after"`
		Extends                                                    bool `json:"extends_on_retry"`
		Check                                                      []string
	}
	text := a.Append(nil, "message", now, client, &ban)
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	for _, part := range []string{"banned: 198.51.100.7 is not served until 2026-03-01T13:00:00Z", ban.Reason, "Stop the engine", a.Look, a.Appeal} {
		if !strings.Contains(got.Message, part) {
			t.Errorf("the message %q lacks %q", got.Message, part)
		}
	}
	if got.Code != "banned" || !got.Until.Equal(ban.Until) || got.RetryAfter != 3600 || !got.Extends || len(got.Check) != 3 || got.Appeal != a.Appeal {
		t.Errorf("got %+v", got)
	}
	ban.Until = now.Add(time.Hour + time.Microsecond)
	if text := a.Append(nil, "message", now, client, &ban); strings.Count(string(text), "2026-03-01T13:00:01Z") != 2 {
		t.Errorf("expected an end that is not too early, got %s", text)
	}
	ban.Until, ban.Extend, ban.Scope = time.Time{}, 0, ratelimit.ScopeLogin
	text = a.Append(nil, "message", now, client, &ban)
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if got.Until != nil || strings.Contains(got.Message, "until") || !strings.Contains(got.Message, "may not log in") {
		t.Errorf("without an end: %s", text)
	}
}

func BenchmarkAnswer(b *testing.B) {
	now := newClock().at
	ban := ratelimit.Ban{Prefix: netip.PrefixFrom(client, 32), Scope: ratelimit.ScopeAll, Reason: strings.Repeat("r", 200), Since: now, Until: now.Add(time.Hour), Extend: time.Hour}
	a := Answer{Look: "https://muster.example/api/v1/ban"}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = a.Append(buf[:0], "message", now, client, &ban)
	}
}

// A proxy that is not trusted is found before, and explained when, one ban
// refuses everybody behind it.
func TestUntrustedProxy(t *testing.T) {
	clock := newClock()
	s := newService(t, Config{Now: clock.now})
	proxy := netip.MustParseAddr("10.0.0.5")
	s.SawProxy(client) // public: a client that tries
	for range 21 {
		s.SawProxy(proxy)
		_ = s.Login(Client{Addr: proxy, Machine: "m"})
	}
	found := s.Findings()
	if len(found) == 0 || found[0].Kind != muster.UntrustedProxy || found[0].Count != 21 || found[0].Address.String() != "10.0.0.5" {
		t.Fatalf("found %+v", found)
	}
	if b, banned := s.BanOf(proxy); !banned || !strings.Contains(b.Reason, "it is a proxy that the server does not trust") {
		t.Errorf("the ban says %q (%t)", b.Reason, banned)
	}
	if got := s.Explain(client); len(got) != 0 {
		t.Errorf("of the client: %+v", got)
	}
	for i := range 1000 { // bounded
		s.SawProxy(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
	}
	if n := len(s.proxies.seen); n != maxProxies {
		t.Errorf("%d proxies kept", n)
	}
	clock.advance(proxyHold + time.Second)
	if got := s.Findings(); len(got) != 0 {
		t.Errorf("a day later: %+v", got)
	}
}

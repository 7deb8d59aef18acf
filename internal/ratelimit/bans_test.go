package ratelimit

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

// samePrefix lets cmp.Diff look at bans.
var samePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

// told is a Sink that remembers.
type told struct {
	mu   sync.Mutex
	what []string
}

func (s *told) BanChanged(b Ban, what Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.what = append(s.what, fmt.Sprintf("%s %s until +%s", what, b.Prefix, b.Until.Sub(t0)))
}

// ban is one by the limiter, for an hour from t0.
func ban(prefix string) Ban {
	return Ban{
		Prefix: netip.MustParsePrefix(prefix), Scope: ScopeAll, Reason: "more than 20 logins", Limit: "logins",
		Since: t0, Until: t0.Add(time.Hour), Extend: time.Hour,
	}
}

func put(t testing.TB, b *Bans, ban Ban) Ban {
	t.Helper()
	got, err := b.Put(t0, ban)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestABanHoldsUntilItsEnd(t *testing.T) {
	for _, tt := range []struct{ prefix, in, out string }{
		{"192.0.2.7/32", "192.0.2.7", "192.0.2.8"},
		{"192.0.2.7/32", "::ffff:192.0.2.7", "::c000:207"},
		{"2001:db8::/64", "2001:db8::9", "2001:db8:0:1::9"},
		{"2001:db8::5/128", "2001:db8::9", "2001:db8:0:1::9"},
		{"192.0.2.0/24", "192.0.2.255", "192.0.3.0"},
		{"::ffff:192.0.2.0/120", "192.0.2.255", "192.0.3.0"},
		{"2001:db8::/48", "2001:db8:0:ffff::1", "2001:db8:1::1"},
		{"ffff:ffff::/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:fffe::"},
		{"255.0.0.0/8", "255.255.255.255", "254.255.255.255"},
	} {
		t.Run(tt.prefix, func(t *testing.T) {
			b := NewBans(BansConfig{})
			want := ban(tt.prefix)
			want.Extend = 0
			put(t, b, want)
			if _, refused := b.Check(t0, addr(tt.out), true); refused {
				t.Errorf("%s is refused", tt.out)
			}
			end := t0.Add(time.Hour)
			got, refused := b.Check(end.Add(-1), addr(tt.in), false)
			want.Prefix, _ = canonical(want.Prefix)
			if diff := cmp.Diff(want, got, samePrefix); !refused || diff != "" {
				t.Errorf("expected %s to be refused, got %t %s", tt.in, refused, diff)
			}
			if _, refused := b.Check(end, addr(tt.in), true); refused {
				t.Error("it is refused though the ban has ended, and retries do not prolong it")
			}
		})
	}
	if _, refused := NewBans(BansConfig{}).Check(t0, netip.Addr{}, true); refused {
		t.Error("no address at all is refused")
	}
}

func TestEachRetryStartsTheHourAgain(t *testing.T) {
	sink := &told{}
	b := NewBans(BansConfig{Sink: sink})
	put(t, b, ban("192.0.2.7/32"))
	for _, after := range []time.Duration{time.Second, 29 * time.Second, 30 * time.Second, 59 * time.Second, 59 * time.Minute, 118 * time.Minute} {
		got, refused := b.Check(t0.Add(after), addr("192.0.2.7"), false)
		if want := t0.Add(after + time.Hour); !refused || !got.Until.Equal(want) {
			t.Fatalf("after %s: expected a ban until %s, got %t %s", after, want, refused, got.Until)
		}
	}
	if _, shown := b.Lookup(t0.Add(177*time.Minute), addr("192.0.2.7")); !shown {
		t.Error("expected the ban to be shown")
	}
	if _, refused := b.Check(t0.Add(178*time.Minute), addr("192.0.2.7"), false); refused {
		t.Error("looking at the ban prolonged it")
	}
	want := []string{ // one for every 30 seconds at most
		"added 192.0.2.7/32 until +1h0m0s",
		"extended 192.0.2.7/32 until +1h0m30s",
		"extended 192.0.2.7/32 until +1h59m0s",
		"extended 192.0.2.7/32 until +2h58m0s",
	}
	if diff := cmp.Diff(want, sink.what); diff != "" {
		t.Error(diff)
	}
}

func TestABanFromLoginsLeavesTheRest(t *testing.T) {
	b := NewBans(BansConfig{})
	only := ban("192.0.2.7/32")
	only.Scope = ScopeLogin
	put(t, b, only)
	now := t0.Add(59 * time.Minute)
	if _, refused := b.Check(now, addr("192.0.2.7"), false); refused {
		t.Error("a pull is refused")
	}
	if got, _ := b.Lookup(now, addr("192.0.2.7")); !got.Until.Equal(only.Until) {
		t.Error("a pull that was served prolonged the ban")
	}
	if _, refused := b.Check(now, addr("192.0.2.7"), true); !refused {
		t.Error("a login is not refused")
	}
}

func TestOfSeveralBansTheWidestScopeThenTheNarrowestRange(t *testing.T) {
	of := func(prefix string, scope Scope, hours int) Ban {
		b := ban(prefix)
		b.Scope, b.Until, b.Extend = scope, t0.Add(time.Duration(hours)*time.Hour), 0
		return b
	}
	b := NewBans(BansConfig{})
	put(t, b, of("192.0.2.7/32", ScopeLogin, 9))
	put(t, b, of("192.0.2.0/28", ScopeAll, 1))
	put(t, b, of("192.0.2.0/24", ScopeAll, 2))
	put(t, b, of("192.0.0.0/16", ScopeLogin, 10))
	put(t, b, of("192.0.0.0/12", ScopeAll, 4))
	for _, tt := range []struct {
		addr  string
		login bool
		at    time.Duration
		want  string
	}{
		{"192.0.2.7", true, 0, "192.0.2.0/28"},
		{"192.0.2.7", false, time.Hour, "192.0.2.0/24"},
		{"192.0.2.7", false, 2 * time.Hour, "192.0.0.0/12"},
		{"192.0.2.7", true, 4 * time.Hour, "192.0.2.7/32"},
		{"192.0.2.7", false, 4 * time.Hour, ""},
		{"192.0.2.7", true, 9 * time.Hour, "192.0.0.0/16"},
		{"192.0.9.9", true, 0, "192.0.0.0/12"},
		{"192.0.2.16", false, 0, "192.0.2.0/24"},
		{"192.15.255.255", false, 0, "192.0.0.0/12"},
		{"192.16.0.0", true, 0, ""},
		{"191.255.255.255", true, 0, ""},
	} {
		got, refused := b.Check(t0.Add(tt.at), addr(tt.addr), tt.login)
		if name := got.Prefix.String(); refused != (tt.want != "") || refused && name != tt.want {
			t.Errorf("%s after %s: expected %q, got %q", tt.addr, tt.at, tt.want, name)
		}
	}
}

func TestTwoBansOfOneRangeBecomeOne(t *testing.T) {
	limiter := func(change func(*Ban)) Ban {
		b := ban("192.0.2.7/32")
		if change != nil {
			change(&b)
		}
		return b
	}
	person := func(since time.Duration, until time.Time) Ban {
		b := ban("192.0.2.7/32")
		b.By, b.Limit, b.Reason, b.Extend = "ada", "", "abuse", 0
		b.Since, b.Until = t0.Add(since), until
		return b
	}
	login := func(b *Ban) { b.Scope = ScopeLogin }
	later := func(b *Ban) {
		b.Since, b.Until, b.Limit = b.Since.Add(time.Minute), b.Until.Add(time.Minute), "other"
	}
	for _, tt := range []struct {
		name        string
		first, next Ban
		want        Ban
		change      string
	}{
		{"the same again", limiter(nil), limiter(nil), limiter(nil), ""},
		{"a wider scope", limiter(login), limiter(nil), limiter(nil), "changed"},
		{"a narrower scope", limiter(nil), limiter(login), limiter(nil), ""},
		{"a later one", limiter(nil), limiter(later), limiter(func(b *Ban) { later(b); b.Since = t0 }), "changed"},
		{"an earlier one", limiter(later), limiter(nil), limiter(func(b *Ban) { later(b); b.Since = t0 }), "changed"},
		{"one that only lasts longer", limiter(nil), limiter(func(b *Ban) { b.Until = b.Until.Add(time.Hour) }), limiter(func(b *Ban) { b.Until = b.Until.Add(time.Hour) }), "extended"},
		{"a person shortens", limiter(nil), person(1, t0.Add(time.Minute)), person(1, t0.Add(time.Minute)), "changed"},
		{"a person bans for good", limiter(nil), person(1, time.Time{}), person(1, time.Time{}), "changed"},
		{"a person is not overruled", person(1, t0.Add(time.Minute)), limiter(nil), person(1, t0.Add(time.Minute)), ""},
		{"a person thinks again", person(1, time.Time{}), person(2, t0.Add(time.Minute)), person(2, t0.Add(time.Minute)), "changed"},
		{"a person's older word comes late", person(2, t0.Add(time.Minute)), person(1, time.Time{}), person(2, t0.Add(time.Minute)), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sink := &told{}
			b := NewBans(BansConfig{Sink: sink})
			put(t, b, tt.first)
			got := put(t, b, tt.next)
			shown, _ := b.Lookup(t0, addr("192.0.2.7"))
			if diff := cmp.Diff(tt.want, got, samePrefix) + cmp.Diff(tt.want, shown, samePrefix); diff != "" {
				t.Error(diff)
			}
			var changes []string
			for _, what := range sink.what[1:] {
				changes = append(changes, strings.Fields(what)[0])
			}
			if strings.Join(changes, " ") != tt.change {
				t.Errorf("expected Sink to hear of %q, got %q", tt.change, changes)
			}
			if b.Len() != 1 {
				t.Errorf("expected one ban, got %d", b.Len())
			}
		})
	}
}

func TestLiftAndExpire(t *testing.T) {
	sink := &told{}
	b := NewBans(BansConfig{Sink: sink})
	for _, prefix := range []string{"192.0.2.7/32", "192.0.2.0/24", "2001:db8::/64", "2001:db8::/32"} {
		put(t, b, ban(prefix))
	}
	short := ban("192.0.2.9/32")
	short.Until = t0.Add(time.Minute)
	put(t, b, short)
	version := b.Version()

	if got, ok := b.Lift(t0, netip.MustParsePrefix("192.0.2.7/32")); !ok || got.Limit != "logins" {
		t.Errorf("expected the lifted ban, got %t %+v", ok, got)
	}
	if _, ok := b.Lift(t0, netip.MustParsePrefix("192.0.2.7/32")); ok {
		t.Error("lifted a second time")
	}
	if got, refused := b.Check(t0, addr("192.0.2.7"), true); !refused || got.Prefix.Bits() != 24 {
		t.Errorf("expected the range's own ban to stay, got %t %+v", refused, got)
	}
	b.Forget(t0, netip.MustParsePrefix("192.0.2.0/24"))
	if _, refused := b.Check(t0, addr("192.0.2.7"), true); refused {
		t.Error("still refused")
	}
	if n := b.Expire(t0.Add(time.Minute)); n != 1 || b.Len() != 2 {
		t.Errorf("expected one to expire and two to be left, got %d and %d", n, b.Len())
	}
	if n := b.Expire(t0.Add(time.Hour)); n != 2 || b.Len() != 0 {
		t.Errorf("expected two to expire and none to be left, got %d and %d", n, b.Len())
	}
	if got := b.Version() - version; got != 5 {
		t.Errorf("expected 5 changes, got %d", got)
	}
	slices.Sort(sink.what[5:])
	want := []string{
		"expired 192.0.2.9/32 until +1m0s", "expired 2001:db8::/32 until +1h0m0s",
		"expired 2001:db8::/64 until +1h0m0s", "lifted 192.0.2.7/32 until +1h0m0s",
	}
	if diff := cmp.Diff(want, sink.what[5:]); diff != "" {
		t.Errorf("what was forgotten for another node is not to be told: %s", diff)
	}
}

func TestBansOutliveARestart(t *testing.T) {
	b := NewBans(BansConfig{})
	forGood := ban("198.51.100.0/24")
	forGood.By, forGood.Until, forGood.Extend = "ada", time.Time{}, 0
	for _, ban := range []Ban{ban("192.0.2.7/32"), ban("2001:db8::/64"), forGood} {
		put(t, b, ban)
	}
	now := t0.Add(time.Minute)
	b.Check(now, addr("192.0.2.7"), true)
	kept, err := json.Marshal(slices.Collect(b.All(now)))
	if err != nil {
		t.Fatal(err)
	}
	var bans []Ban
	if err := json.Unmarshal(kept, &bans); err != nil {
		t.Fatal(err)
	}
	sink := &told{}
	again := NewBans(BansConfig{Sink: sink})
	bad := ban("192.0.2.1/32")
	bad.Scope = "nothing"
	ended := ban("192.0.2.2/32")
	ended.Since, ended.Until = t0.Add(-time.Hour), now
	if refused, err := again.Learn(now, append(bans, bad, ended)...); refused != 1 || muster.CodeOf(err) != muster.Invalid {
		t.Errorf("expected the one without a scope to be refused, got %d, %v", refused, err)
	}
	sorted := func(b *Bans) []Ban {
		return slices.SortedFunc(b.All(now), func(a, b Ban) int { return a.Prefix.Compare(b.Prefix) })
	}
	if diff := cmp.Diff(sorted(b), sorted(again), samePrefix); diff != "" {
		t.Error(diff)
	}
	if len(sink.what) != 0 {
		t.Errorf("expected nobody to be told, got %v", sink.what)
	}
	// What another node reports of retries moves the end, not back.
	ext := ban("192.0.2.7/32")
	for _, until := range []time.Duration{3 * time.Hour, 2 * time.Hour} {
		ext.Until = t0.Add(until)
		if _, err := again.Learn(now, ext); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := again.Lookup(now, addr("192.0.2.7")); !got.Until.Equal(t0.Add(3 * time.Hour)) {
		t.Errorf("expected the later end, got %s", got.Until)
	}
}

func TestTheTableOfBansIsBounded(t *testing.T) {
	b := NewBans(BansConfig{Max: 160})
	by := func(person string, i int) error {
		one := ban("192.0.2.0/32")
		one.Prefix, one.By = PrefixOf(floodAddr(i)), person
		_, err := b.Put(t0, one)
		return err
	}
	for i := range 150 {
		if err := by("", i); err != nil {
			t.Fatal(err)
		}
	}
	if err := by("", 150); !errors.Is(err, muster.Unavailable) {
		t.Errorf("expected the limiter's 151st ban to be refused, got %v", err)
	}
	if err := by("", 7); err != nil {
		t.Errorf("expected a ban that is there to be joined, got %v", err)
	}
	for i := range 10 {
		if err := by("ada", 1000+i); err != nil {
			t.Fatal(err)
		}
	}
	if err := by("ada", 2000); !errors.Is(err, muster.Unavailable) {
		t.Errorf("expected a person's ban over the bound to be refused, got %v", err)
	}
	for i := range 150 {
		if _, refused := b.Check(t0, floodAddr(i), false); !refused {
			t.Fatalf("ban %d was given up", i)
		}
	}
	b.Expire(t0.Add(3 * time.Hour))
	if err := by("", 3000); err != nil {
		t.Errorf("expected room after the others expired, got %v", err)
	}
}

func TestFaultyBans(t *testing.T) {
	for want, change := range map[string]func(*Ban){
		"expected an address or a range, got none":   func(b *Ban) { b.Prefix = netip.Prefix{} },
		"too wide: expected /8":                      func(b *Ban) { b.Prefix = netip.MustParsePrefix("0.0.0.0/0") },
		"too wide: expected /16":                     func(b *Ban) { b.Prefix = netip.MustParsePrefix("2000::/3") },
		`scope: expected "all" or "login", got "x"`:  func(b *Ban) { b.Scope = "x" },
		"reason is empty":                            func(b *Ban) { b.Reason = "" },
		"since is not set":                           func(b *Ban) { b.Since = time.Time{} },
		"until is not after since":                   func(b *Ban) { b.Until = b.Since },
		"none for a ban without end":                 func(b *Ban) { b.Until = time.Time{} },
		"extension: expected 0 to 8784h0m0s":         func(b *Ban) { b.Extend = -1 },
		"part v4, part v6: write the v4 part as 0.0": func(b *Ban) { b.Prefix = netip.MustParsePrefix("::ffff:0:0/90") },
	} {
		bad := ban("192.0.2.7/32")
		change(&bad)
		if _, err := NewBans(BansConfig{}).Put(t0, bad); err == nil || !strings.Contains(err.Error(), want) || muster.CodeOf(err) != muster.Invalid {
			t.Errorf("expected %q of code invalid, got %v", want, err)
		}
	}
}

// TestNodesAgree: nodes that hear of the same bans in another order agree on
// who is banned from what, by whose word, until when.
func TestNodesAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var bans []Ban
		for range rapid.IntRange(1, 12).Draw(t, "bans") {
			b := ban("192.0.2.7/32")
			b.Scope = rapid.SampledFrom([]Scope{ScopeAll, ScopeLogin}).Draw(t, "scope")
			b.By = rapid.SampledFrom([]string{"", "ada", "bob"}).Draw(t, "by")
			b.Since = t0.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "since")) * time.Second)
			b.Until = t0.Add(time.Duration(rapid.IntRange(1, 5).Draw(t, "until")) * time.Hour)
			bans = append(bans, b)
		}
		hear := func(bans []Ban) Ban {
			b := NewBans(BansConfig{})
			for _, ban := range bans {
				if _, err := b.Learn(t0, ban); err != nil {
					t.Fatal(err)
				}
			}
			got, _ := b.Lookup(t0, addr("192.0.2.7"))
			return got
		}
		a, b := hear(bans), hear(rapid.Permutation(bans).Draw(t, "order"))
		if a != b {
			t.Fatalf("one has %+v, the other %+v", a, b)
		}
	})
}

// TestBansAreAMap compares Bans with a plain list under random changes.
func TestBansAreAMap(t *testing.T) {
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		a := netip.AddrFrom4([4]byte{10, 0, byte(rapid.IntRange(0, 3).Draw(t, "c")), byte(rapid.IntRange(0, 255).Draw(t, "d"))})
		bits := rapid.SampledFrom([]int{8, 22, 23, 24, 28, 31, 32, 32}).Draw(t, "bits")
		if rapid.Bool().Draw(t, "v6") {
			b := a.As4()
			a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, b[0], b[1], b[2], b[3]})
			bits += 32
		}
		return netip.PrefixFrom(a, bits).Masked()
	})
	rapid.Check(t, func(t *rapid.T) {
		b := NewBans(BansConfig{Seed: rapid.Uint64().Draw(t, "seed")})
		model := map[netip.Prefix]Ban{}
		now := t0
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			p := prefix.Draw(t, "prefix")
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				b.Lift(now, p)
				delete(model, p)
			case 1:
				now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "minutes")) * time.Minute)
			case 2:
				b.Expire(now)
			default:
				one := Ban{Prefix: p, Scope: ScopeAll, Reason: "x", Since: now, Until: now.Add(time.Hour)}
				if _, err := b.Put(now, one); err != nil {
					t.Fatal(err)
				}
				model[p] = one
			}
			a := prefix.Draw(t, "addr").Addr()
			want := netip.Prefix{}
			for p, ban := range model {
				if p.Contains(a) && now.Before(ban.Until) && (!want.IsValid() || p.Bits() > want.Bits()) {
					want = p
				}
			}
			if got, refused := b.Check(now, a, false); refused != want.IsValid() || got.Prefix != want {
				t.Fatalf("%s: expected ban of %s, got %t %s", a, want, refused, got.Prefix)
			}
		}
		b.Expire(now.Add(time.Hour))
		if b.Len() != 0 || b.count != 0 || b.limits != 0 {
			t.Fatalf("expected no ban to be left, got %d", b.Len())
		}
	})
}

func TestBansUnderConcurrentUse(t *testing.T) {
	b := NewBans(BansConfig{Sink: &told{}, ReportEvery: time.Millisecond})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				now := t0.Add(time.Duration(i) * time.Millisecond)
				one := ban("192.0.2.0/24")
				if i%3 != 0 {
					one.Prefix = PrefixOf(floodAddr(i % 50))
				}
				if _, err := b.Put(now, one); err != nil {
					t.Error(err)
				}
				b.Check(now, one.Prefix.Addr(), false)
				if i%7 == g {
					b.Lift(now, one.Prefix)
				}
				if i%100 == 0 {
					b.Expire(now)
				}
			}
		})
	}
	wg.Wait()
	b.Expire(t0.Add(3 * time.Hour))
	if b.Len() != 0 || len(slices.Collect(b.live())) != 0 {
		t.Errorf("expected nothing to be left, got %d by count, %d kept", b.Len(), len(slices.Collect(b.live())))
	}
}

func FuzzParsePrefix(f *testing.F) {
	for _, s := range []string{"192.0.2.7", " 192.0.2.0/24", "2001:db8::1", "2001:db8::/127", "::ffff:1.2.3.4/100", "::ffff:1.2.3.4/90", "fe80::1%eth0", "1.2.3.4/33", "/", "::/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePrefix(text)
		if err != nil {
			if muster.CodeOf(err) != muster.Invalid || len(err.Error()) > 400 {
				t.Fatalf("expected a short error of code invalid, got %v", err)
			}
			return
		}
		if p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" || p.Bits() > 64 {
			t.Fatalf("%q gives %s, which is not canonical", text, p)
		}
		if again, err := ParsePrefix(p.String()); err != nil || again != p {
			t.Fatalf("%s reads back as %s, %v", p, again, err)
		}
	})
}

func benchBans(b *testing.B, ranges int) (*Bans, []netip.Addr) {
	bans := NewBans(BansConfig{Seed: 7})
	rng := rand.New(rand.NewPCG(1, 2))
	var all []Ban
	var addrs []netip.Addr
	for range 100_000 {
		a := floodAddr(int(rng.Uint32()))
		if rng.IntN(4) == 0 {
			a = netip.AddrFrom16([16]byte{0x20, 1, byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())})
		}
		one := ban("192.0.2.7/32")
		one.Prefix = PrefixOf(a)
		all, addrs = append(all, one), append(addrs, a)
	}
	for range ranges {
		one := ban("192.0.2.0/24")
		one.Prefix = netip.PrefixFrom(floodAddr(int(rng.Uint32())), 24).Masked()
		all = append(all, one)
	}
	if _, err := bans.Learn(t0, all...); err != nil {
		b.Fatal(err)
	}
	return bans, addrs
}

func BenchmarkCheck(b *testing.B) {
	for _, ranges := range []int{0, 1000} {
		bans, addrs := benchBans(b, ranges)
		free := make([]netip.Addr, len(addrs))
		for i := range free {
			free[i] = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
		}
		for name, set := range map[string][]netip.Addr{"banned": addrs, "free": free} {
			b.Run(fmt.Sprintf("%s/ranges=%d", name, ranges), func(b *testing.B) {
				b.ReportAllocs()
				now := t0
				for i := 0; b.Loop(); i++ {
					now = now.Add(time.Nanosecond)
					bans.Check(now, set[i%len(set)], false)
				}
			})
			b.Run(fmt.Sprintf("%s/ranges=%d/parallel", name, ranges), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					now := t0
					for i := 0; pb.Next(); i++ {
						now = now.Add(time.Nanosecond)
						bans.Check(now, set[i%len(set)], false)
					}
				})
			})
		}
	}
}

func BenchmarkPut(b *testing.B) {
	bans, addrs := benchBans(b, 0)
	b.ReportAllocs()
	one := ban("192.0.2.7/32")
	for i := 0; b.Loop(); i++ {
		one.Prefix = PrefixOf(addrs[i%len(addrs)])
		bans.Lift(t0, one.Prefix)
		if _, err := bans.Put(t0, one); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLearn is what a restart with 100,000 bans costs.
func BenchmarkLearn(b *testing.B) {
	bans, _ := benchBans(b, 1000)
	all := slices.Collect(bans.All(t0))
	for b.Loop() {
		if _, err := NewBans(BansConfig{}).Learn(t0, all...); err != nil {
			b.Fatal(err)
		}
	}
}

package misuse

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"muster"
	"muster/internal/ratelimit"
)

func kinds(found []muster.Finding) (k []muster.FindingKind) {
	for _, f := range found {
		k = append(k, f.Kind)
	}
	return k
}

// TestWhatFindingsSay compares with testdata/findings.txt; after a change of
// words, run it with MUSTER_UPDATE=1 and read the difference.
func TestWhatFindingsSay(t *testing.T) {
	crowd := func(n int) (all []story) {
		for i := range n {
			all = append(all, host{fmt.Sprintf("machine%02d", i), "2001:db8:0:1::9", modern}.starts(time.Duration(i)*20*second))
		}
		return all
	}
	var fleet []story
	for i := range 30 {
		fleet = append(fleet, host{"m1", fmt.Sprintf("198.51.100.%d", i+1), modern}.starts(time.Duration(i)*second))
	}
	var b strings.Builder
	for _, tt := range []struct {
		name    string
		stories []story
	}{
		{"a fresh container in a loop", []story{here.fresh(every(20*second, 0, 7*minute)...)}},
		{"a loop that lives long enough to push", []story{here.starts(every(2*minute, 0, 30*minute)...), here.does(Push, every(2*minute, 30*second, 30*minute)...)}},
		{"an old engine dies at once", []story{aged.does(Login, every(21*second, 0, 7*minute)[:5]...), aged.does(Login, irregular(21)[5:]...)}},
		{"a health check beside an engine, for two days", []story{here.starts(0), here.works(0, 48*hour, 0), here.does(Login, every(30*second, 10*second, 48*hour)...)}},
		{"a page that checks when it is opened", []story{here.does(Login, irregular(14)...)}},
		{"two busy copies", []story{here.works(0, hour, 10*second), away.works(5*second, hour, 10*second)}},
		{"thirty copies", fleet},
		{"five engines behind one address", crowd(5)},
		{"forty engines behind one address", crowd(40)},
	} {
		w := New(Config{})
		end := tell(w, tt.stories...)
		fmt.Fprintf(&b, "## %s\n", tt.name)
		for _, f := range w.Findings(end) {
			fmt.Fprintf(&b, "%s (%s), machine %q of %q, address %q, count %d, %s to %s\n  %s.\n", f.Kind, f.Severity, f.Machine, f.Organisation,
				f.Address.String(), f.Count, f.First.Format(time.DateTime), f.Last.Format(time.DateTime), f.Summary)
			for _, line := range f.Evidence {
				fmt.Fprintf(&b, "  - %s\n", line)
			}
			fmt.Fprintf(&b, "  => %s\n", f.Fix)
			if len(f.Evidence) > maxEvidence {
				t.Errorf("%s: expected at most %d lines of evidence, got %d", tt.name, maxEvidence, len(f.Evidence))
			}
		}
	}
	golden := filepath.Join("testdata", "findings.txt")
	if os.Getenv("MUSTER_UPDATE") != "" {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestAFindingEndsAWindowAfterItsLastEvidence(t *testing.T) {
	const window = 50 * minute
	var crowd []story
	for i := range 5 {
		crowd = append(crowd, host{fmt.Sprint("m", i), "192.0.2.7", modern}.does(Login, time.Duration(i)*5*minute))
	}
	for name, tt := range map[string]struct {
		stories []story
		last    time.Duration
	}{
		"loop":    {[]story{here.fresh(every(minute, 0, 20*minute)...)}, 19 * minute},
		"probe":   {[]story{here.does(Login, every(minute, 0, 20*minute)...)}, 19 * minute},
		"copies":  {[]story{here.does(Other, 0, 20*minute), away.does(Other, 10*minute, 30*minute)}, 30 * minute},
		"crowd":   {crowd, 20 * minute},
		"relapse": {[]story{here.fresh(every(minute, 0, 20*minute)...), here.does(Push, 30*minute), here.does(Login, 40*minute)}, 19 * minute},
	} {
		t.Run(name, func(t *testing.T) {
			w := New(Config{})
			tell(w, tt.stories...)
			if f := w.Findings(t0.Add(tt.last + window - time.Millisecond)); len(f) != 1 || !f[0].Last.Equal(t0.Add(tt.last)) {
				t.Errorf("expected it to hold until the window has passed, with its last evidence at %s, got %+v", tt.last, f)
			}
			if f := w.Findings(t0.Add(tt.last + window)); len(f) != 0 {
				t.Errorf("expected it to end with the window, got %+v", f)
			}
		})
	}
}

func TestCopiesThatBecomeOne(t *testing.T) {
	w := New(Config{})
	end := tell(w, here.does(Push, 0, 10*minute), away.does(Push, 5*minute, 15*minute))
	if got := w.Findings(end); len(got) != 1 {
		t.Fatalf("expected shared credentials, got %+v", got)
	}
	end = tell(w, third.does(Push, hour), host{"m1", "192.0.2.99", modern}.does(Push, 105*minute))
	if got := w.Findings(end); len(got) != 0 {
		t.Errorf("expected mere changes of address to prove nothing, got %+v", got)
	}
}

func TestThresholds(t *testing.T) {
	loop := func(n int) story { return here.fresh(every(10*second, 0, time.Duration(n)*10*second)...) }
	crowd := func(n int) (st story) {
		for i := range n {
			st = append(st, host{fmt.Sprint("m", i), "192.0.2.7", modern}.does(Login, 0)...)
		}
		return st
	}
	roam := func(n int) (st story) {
		for i := range n {
			st = append(st, host{"m1", fmt.Sprintf("192.0.2.%d", i), modern}.does(Push, time.Duration(i)*minute)...)
		}
		return st
	}
	for name, tt := range map[string]struct {
		of       func(int) story
		least    int
		critical int
		c        Config
	}{
		"loop":               {loop, 10, 20, Config{}},
		"loop as configured": {loop, 4, 6, Config{Logins: 4, Critical: 6}},
		"crowd":              {crowd, 5, 20, Config{}},
		"homes":              {roam, 5, 20, Config{}},
	} {
		t.Run(name, func(t *testing.T) {
			for n, want := range map[int]muster.Severity{tt.least - 1: "", tt.least: muster.Warning, tt.critical - 1: muster.Warning, tt.critical: muster.Critical} {
				w := New(tt.c)
				found := w.Findings(tell(w, tt.of(n)))
				if want == "" {
					if len(found) > 0 {
						t.Errorf("%d: expected none, got %+v", n, found)
					}
				} else if len(found) != 1 || found[0].Severity != want || found[0].Count != n {
					t.Errorf("%d: expected one, %s, got %+v", n, want, found)
				}
			}
		})
	}
}

func TestAbout(t *testing.T) {
	w := New(Config{})
	looper, probe := host{"looper", "192.0.2.7", modern}, host{"probe", "192.0.2.7", modern}
	elsewhere := host{"looper", "198.51.100.9", modern}
	end := tell(
		w, looper.fresh(every(20*second, 0, 10*minute)...), elsewhere.fresh(every(20*second, 5*second, 10*minute)...),
		probe.does(Login, every(30*second, 0, 10*minute)...),
		host{"a", "192.0.2.7", modern}.starts(0), host{"b", "192.0.2.7", modern}.starts(0), host{"c", "192.0.2.7", modern}.starts(0),
	)
	for name, tt := range map[string]struct {
		addr, machine string
		want          []string
	}{
		"an address":               {"192.0.2.7", "", []string{"status-probe probe 192.0.2.7", "restart-loop looper 192.0.2.7", "shared-address  192.0.2.7", "shared-credentials looper invalid source"}},
		"as v4-mapped":             {"::ffff:192.0.2.7", "probe", []string{"status-probe probe 192.0.2.7", "shared-address  192.0.2.7"}},
		"a machine":                {"", "looper", []string{"restart-loop looper 198.51.100.9", "restart-loop looper 192.0.2.7", "shared-credentials looper invalid source"}},
		"a machine at an address":  {"198.51.100.9", "looper", []string{"restart-loop looper 198.51.100.9", "shared-credentials looper invalid source"}},
		"a machine that is well":   {"192.0.2.7", "a", []string{"shared-address  192.0.2.7"}},
		"a machine not seen there": {"203.0.113.1", "probe", nil},
		"a stranger":               {"203.0.113.1", "x", nil},
		"nobody":                   {"", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var a netip.Addr
			if tt.addr != "" {
				a = netip.MustParseAddr(tt.addr)
			}
			var got []string
			for _, f := range w.About(end, a, tt.machine) {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", f.Kind, f.Machine, f.Address)))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got, want := len(w.Findings(end)), 5; got != want {
		t.Errorf("expected %d findings in all, got %d", want, got)
	}
}

func TestForget(t *testing.T) {
	for _, p := range []string{"192.0.2.7/32", "192.0.2.0/24", "::ffff:192.0.2.0/120"} {
		w := New(Config{})
		tell(w, here.fresh(every(20*second, 0, 10*minute)...))
		other := host{"m2", "198.51.100.9", modern}
		end := tell(w, other.fresh(every(20*second, 0, 10*minute)...))
		w.Forget(netip.MustParsePrefix(p))
		if got := w.Findings(end); len(got) != 1 || got[0].Machine != "m2" {
			t.Errorf("%s: expected what m2 did, got %+v", p, got)
		}
		if got, want := w.Stats(), (Stats{Machines: 1, Addresses: 1}); got != want {
			t.Errorf("%s: expected %+v, got %+v", p, want, got)
		}
	}
	w := New(Config{})
	end := tell(w, overV6.fresh(every(20*second, 0, 10*minute)...))
	w.Forget(netip.Prefix{})
	w.Forget(netip.MustParsePrefix("0.0.0.0/0"))
	if len(w.Findings(end)) != 1 {
		t.Error("expected a v6 address to stay")
	}
	w.Forget(netip.MustParsePrefix("2001:db8:1:2::7/128"))
	if len(w.Findings(end)) != 0 {
		t.Error("expected a v6 address to be forgotten with its /64")
	}
}

// TestANodeThatHearsTheNewsFindsTheSame: contacts go to two nodes by turns.
func TestANodeThatHearsTheNewsFindsTheSame(t *testing.T) {
	for name, stories := range map[string][]story{
		"loop":   {here.fresh(every(20*second, 0, 10*minute)...)},
		"pushes": {here.starts(every(minute, 0, 20*minute)...), here.does(Push, every(7*second, 0, 20*minute)...)},
		"probe":  {here.starts(0), here.works(0, 3*hour, 20*second), here.does(Login, every(31*second, 10*second, 3*hour)...)},
		"copies": {here.works(0, 2*hour, 10*second), away.works(5*second, 2*hour, 11*second)},
		"well":   {here.starts(0), here.works(0, 48*hour, 17*minute)},
	} {
		t.Run(name, func(t *testing.T) {
			all := slices.Concat(stories...)
			slices.SortStableFunc(all, func(a, b step) int { return int(a.at - b.at) })
			one, nodes := New(Config{}), [2]*Watch{New(Config{}), New(Config{})}
			var end time.Time
			told := 0
			for i, s := range all {
				end = t0.Add(s.at)
				one.See(end, s.Contact)
				if nodes[i%2].See(end, s.Contact) {
					nodes[1-i%2].See(end, s.Contact)
					told++
				}
			}
			for i, n := range nodes {
				if diff := cmp.Diff(kinds(one.Findings(end)), kinds(n.Findings(end))); diff != "" {
					t.Errorf("node %d: %s", i, diff)
				}
			}
			if name == "well" && told > len(all)/10 {
				t.Errorf("expected little to tell of a healthy engine, got %d news in %d contacts", told, len(all))
			}
		})
	}
}

func TestWhatIsNews(t *testing.T) {
	w := New(Config{})
	for i, tt := range []struct {
		story
		want bool
	}{
		{here.does(Push, 0), true}, // the first contact
		{here.does(Push, second), false},
		{here.does(Login, minute), true},
		{here.does(Other, minute+10*time.Millisecond), true}, // an engine's call, not a probe
		{here.does(Other, minute+20*time.Millisecond), false},
		{here.does(StartupPull, minute+5*second), true},
		{here.does(Push, 2*minute), true}, // work
		{here.does(Push, 3*minute), false},
		{here.does(Poll, 4*minute), true},
		{here.does(Pull, 5*minute), true},
		{here.does(Pull, 5*minute), false},
		{overV6.does(Push, 6*minute), true}, // another address
		{here.does(Push, 7*minute), false},
		{away.does(Push, 8*minute), true}, // a change of address
		{here.does(Push, 9*minute), true}, // and back
		{here.does(Push, 10*minute), false},
		{here.does(Push, 2*hour), true}, // the first contact within the window
	} {
		if got := w.See(t0.Add(tt.story[0].at), tt.story[0].Contact); got != tt.want {
			t.Errorf("contact %d, at %s: expected news %t, got %t", i, tt.story[0].at, tt.want, got)
		}
	}
}

func TestContactsOfNobodyAreIgnored(t *testing.T) {
	w := New(Config{})
	for _, c := range []Contact{
		{Addr: netip.MustParseAddr("192.0.2.7"), What: Login},
		{Machine: "m1", What: Login},
		{Machine: strings.Repeat("m", muster.MaxMachineID+1), Addr: netip.MustParseAddr("192.0.2.7"), What: Login},
	} {
		if w.See(t0, c) {
			t.Errorf("expected no news of %+v", c)
		}
	}
	if got := w.Stats(); got != (Stats{}) {
		t.Errorf("expected nothing kept, got %+v", got)
	}
}

func TestClockThatGoesBack(t *testing.T) {
	loop := here.fresh(every(20*second, 0, 10*minute)...)
	w := New(Config{})
	tell(w, loop)
	w.See(t0.Add(-minute), here.does(Login, 0)[0].Contact)
	if f := w.Findings(t0.Add(10 * minute)); len(f) != 1 || f[0].Count != 31 {
		t.Errorf("back by some minutes: expected the login to count as one now, got %+v", f)
	}
	w.See(t0.Add(-24*hour), here.does(Login, 0)[0].Contact)
	if f := w.Findings(t0.Add(-24 * hour)); len(f) != 0 {
		t.Errorf("back by a day: expected a fresh start, got %+v", f)
	}
	w = New(Config{})
	tell(w, loop)
	later := 50 * 24 * hour // more than 2^32 ms
	for i := range 9 {
		w.See(t0.Add(later+time.Duration(i)*minute), here.does(Login, 0)[0].Contact)
	}
	if f := w.Findings(t0.Add(later + 9*minute)); len(f) != 0 {
		t.Errorf("after 50 days: expected nothing of what was then, got %+v", f)
	}
}

func TestWhoIsNotHeardLongestGoes(t *testing.T) {
	w := New(Config{MaxMachines: 64, MaxAddresses: 64}) // one for each shard
	for i := range 10_000 {
		at := t0.Add(time.Duration(i) * time.Millisecond)
		w.See(at, Contact{Machine: fmt.Sprint("m", i), Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), What: Login})
	}
	got := w.Stats()
	if got.Machines != 64 || got.Addresses != 64 || got.EvictedMachines != 10_000-64 || got.EvictedAddresses != 10_000-64 {
		t.Errorf("expected 64 of each to be kept, got %+v", got)
	}
	// A day later nobody of these counts: two go with each that comes.
	for i := range 1000 {
		w.See(t0.Add(24*hour), Contact{Machine: fmt.Sprint("n", i), Addr: netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), What: Login})
	}
	w2 := New(Config{})
	for i := range 10_000 {
		w2.See(t0, Contact{Machine: fmt.Sprint("m", i), Addr: netip.MustParseAddr("192.0.2.7"), What: Push})
	}
	for i := range 6000 {
		w2.See(t0.Add(24*hour), Contact{Machine: fmt.Sprint("n", i), Addr: netip.MustParseAddr("192.0.2.7"), What: Push})
	}
	if got := w2.Stats(); got.Machines > 6100 || got.EvictedMachines != 0 {
		t.Errorf("expected those of yesterday to be gone, and none of today evicted, got %+v", got)
	}
}

func TestWhoIsHeardStays(t *testing.T) {
	w := New(Config{MaxMachines: 640})
	for i := range 5000 {
		at := time.Duration(i) * second
		tell(w, here.does(Push, at), host{fmt.Sprint("other", i), "198.51.100.9", modern}.does(Push, at))
	}
	r := w.machines.shard(hashString(0, "m1")).get("m1")
	if r == nil || r.v.homes[0].first != t0.UnixMilli() || w.Stats().EvictedMachines == 0 {
		t.Error("expected others to make room, and the one that is heard all the time to stay")
	}
}

func TestAddressesThatWereLeftAreDropped(t *testing.T) {
	w := New(Config{})
	for day := range 100 {
		tell(w, host{"m1", fmt.Sprintf("192.0.2.%d", day), modern}.does(Push, time.Duration(day)*24*hour))
	}
	if n := len(w.machines.shard(hashString(0, "m1")).get("m1").v.homes); n != 1 {
		t.Errorf("expected one address to be kept, got %d", n)
	}
}

// TestMemoryUnderAFlood: a million machines, each with an address of its own,
// and what each record takes at most.
func TestMemoryUnderAFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	machineID := func(i int) string { return fmt.Sprintf("%048d", i) }
	orgs := make([]string, 100)
	for i := range orgs {
		orgs[i] = fmt.Sprintf("%036d", i)
	}
	addrOf := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for name, tt := range map[string]struct {
		bound    int
		contacts int
		contact  func(i int) Contact
		most     uint64 // bytes for each machine and its address
	}{
		"a million that log in": {0, 1_000_000, func(i int) Contact {
			return Contact{Machine: machineID(i), Organisation: orgs[i%100], Addr: addrOf(i), What: Login, Agent: modern}
		}, 1000},
		"many that push": {8192, 50_000, func(i int) Contact {
			return Contact{Machine: machineID(i), Organisation: orgs[i%100], Addr: addrOf(i), What: Push}
		}, 500},
		"each machine at 30 addresses, each address with 30 machines": {8192, 10_000 * 30, func(i int) Contact {
			return Contact{Machine: machineID(i / 30), Addr: addrOf(i/900*30 + i%30), What: Login, Agent: modern}
		}, 4000},
	} {
		t.Run(name, func(t *testing.T) {
			before := heap()
			w := New(Config{MaxMachines: tt.bound, MaxAddresses: tt.bound, Seed: 1})
			bound := 65_536
			if tt.bound > 0 {
				bound = tt.bound
			}
			for i := range tt.contacts {
				w.See(t0.Add(time.Duration(i)*time.Millisecond), tt.contact(i))
			}
			used := heap() - before
			st := w.Stats()
			each := used / uint64(st.Machines)
			t.Logf("%d machines and %d addresses in %.1f MB: %d bytes for each", st.Machines, st.Addresses, float64(used)/(1<<20), each)
			if st.Machines > bound || st.Addresses > bound || st.Machines < bound*9/10 {
				t.Errorf("expected up to %d of each, got %+v", bound, st)
			}
			if each > tt.most {
				t.Errorf("expected at most %d bytes for each, got %d", tt.most, each)
			}
			runtime.KeepAlive(w)
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

func TestConcurrentUse(t *testing.T) {
	w := New(Config{MaxMachines: 128, MaxAddresses: 128})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				at := t0.Add(time.Duration(i) * second)
				w.See(at, Contact{Machine: fmt.Sprint("m", (i*7+g)%200), Addr: netip.AddrFrom4([4]byte{10, 0, byte(i % 3), byte(i % 11)}), What: What(i % 6)})
				switch i % 500 {
				case 0:
					w.Findings(at)
				case 100:
					w.About(at, netip.MustParseAddr("10.0.0.1"), "")
				case 200:
					w.Forget(netip.MustParsePrefix("10.0.1.0/24"))
				case 300:
					w.Stats()
				}
			}
		})
	}
	wg.Wait()
}

func TestCachesToken(t *testing.T) {
	for agent, want := range map[string]bool{
		"crowdsec/v1.7.8-linux": true, "crowdsec/v1.7.4-docker": true, "crowdsec/v1.7.3-docker": false, "crowdsec/v1.10.0": true,
		"crowdsec/v2.0.0-rc1-linux": true, "crowdsec/v1.8-linux": true, "crowdsec/v1.4.6-6~deb12u1+b1-linux-debian": false,
		"crowdsec/v1.7": false, "crowdsec/v": false, "crowdsec/v1.7.99999999999999999999": false, "csphpcapi_Test/v3.5.2": false, "": false,
	} {
		if got := cachesToken(agent); got != want {
			t.Errorf("%q: expected %t, got %t", agent, want, got)
		}
	}
}

func TestSpan(t *testing.T) {
	for ms, want := range map[int64]string{
		0: "less than a second", 499: "less than a second", 500: "1 second", 59_499: "59 seconds", 60_000: "1 minute", 425_000: "7 minutes 5 seconds",
		3_600_000: "1 hour", 3_605_000: "1 hour 5 seconds", 90_000_000: "1 day 1 hour", 176_461_000: "2 days 1 hour",
	} {
		if got := span(ms); got != want {
			t.Errorf("%d ms: expected %q, got %q", ms, want, got)
		}
	}
}

// contacts draws a history: a few machines and addresses, in the order of time.
func contacts(machines, addrs int) *rapid.Generator[story] {
	return rapid.Custom(func(t *rapid.T) (st story) {
		at := time.Duration(0)
		for range rapid.IntRange(0, 300).Draw(t, "contacts") {
			at += rapid.SampledFrom([]time.Duration{0, second, 20 * second, 20 * second, minute, hour}).Draw(t, "gap")
			ip := fmt.Sprintf("192.0.2.%d", rapid.IntRange(1, addrs).Draw(t, "addr"))
			if rapid.IntRange(0, 3).Draw(t, "v6") == 0 {
				ip = "2001:db8:0:" + strings.TrimPrefix(ip, "192.0.2.") + "::1"
			}
			h := host{fmt.Sprintf("machine%d", rapid.IntRange(1, machines).Draw(t, "machine")), ip, modern}
			c := h.does(What(rapid.IntRange(0, 5).Draw(t, "what")), at)
			c[0].NoScenarios = rapid.Bool().Draw(t, "bare")
			st = append(st, c...)
		}
		return st
	})
}

func TestStateIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := New(Config{MaxMachines: 64, MaxAddresses: 64, Logins: 3, MaxFindings: 3})
		st := contacts(200, 250).Draw(t, "history")
		end := tell(w, st)
		if s := w.Stats(); s.Machines > 64 || s.Addresses > 64 {
			t.Fatalf("expected at most 64 of each, got %+v", s)
		}
		listed := 0
		w.machines.each(func(s *shard[string, machine], r *record[string, machine]) {
			if listed++; s.records[r.key] != r || len(r.v.homes) > maxHomes {
				t.Fatalf("machine %s: its record is wrong: %+v", r.key, r.v)
			}
		})
		w.addresses.each(func(s *shard[addrKey, address], r *record[addrKey, address]) {
			if s.records[r.key] != r || len(r.v.machines) > maxNeighbours {
				t.Fatalf("address %v: its record is wrong: %+v", r.key, r.v)
			}
		})
		if n := w.Stats().Machines; listed != n {
			t.Fatalf("expected %d machines in order of age, got %d", n, listed)
		}
		if n := len(w.Findings(end)); n > 3 {
			t.Fatalf("expected at most 3 findings, got %d", n)
		}
	})
}

func TestOrderOfIndependentMachinesDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := contacts(1, 3).Draw(t, "history")
		other := contacts(1, 3).Draw(t, "other")
		for i := range other {
			other[i].Machine = "other"
			b := other[i].Addr.As16()
			b[8]++ // another v4-mapped address is no v4 address: take the one above
			if other[i].Addr.Is4() {
				other[i].Addr = netip.AddrFrom4([4]byte{198, 51, 100, b[15]})
			} else {
				b[3]++
				other[i].Addr = netip.AddrFrom16(b)
			}
		}
		c := Config{Logins: 3}
		together, first, last := New(c), New(c), New(c)
		end := tell(together, history, other)
		tell(first, history)
		tell(first, other)
		tell(last, other)
		tell(last, history)
		want := together.Findings(end)
		for name, w := range map[string]*Watch{"one first": first, "the other first": last} {
			if diff := cmp.Diff(want, w.Findings(end), cmpopts.EquateComparable(muster.Source{})); diff != "" {
				t.Fatalf("%s: %s", name, diff)
			}
		}
	})
}

// TestFindingsAgreeWithWhatHappened: whoever and whatever is cited was there,
// as often as it is said, in the stretch of time that is said.
func TestFindingsAgreeWithWhatHappened(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := New(Config{Logins: 3})
		st := contacts(4, 3).Draw(t, "history")
		end := tell(w, st)
		for _, f := range w.Findings(end) {
			logins, machines, addrs := 0, map[string]bool{}, map[netip.Prefix]bool{}
			for _, s := range st {
				p := ratelimit.PrefixOf(s.Addr)
				at := t0.Add(s.at)
				mine := f.Machine == "" && f.Address.Prefix() == p || f.Machine == s.Machine
				if !mine || at.After(f.Last) {
					continue
				}
				addrs[p] = true
				if s.What == Login && !at.Before(f.First) {
					logins++
					machines[s.Machine] = true
				}
			}
			most := map[muster.FindingKind]int{
				muster.RestartLoop: logins, muster.StatusProbe: logins,
				muster.SharedCredentials: len(addrs), muster.SharedAddress: len(machines),
			}[f.Kind]
			if f.Count > most || f.Count < 2 {
				t.Fatalf("expected a count of 2 to %d, got %+v", most, f)
			}
			if f.Kind != muster.SharedCredentials && !addrs[f.Address.Prefix()] {
				t.Fatalf("expected an address that the machine was at, got %+v", f)
			}
			if end.Sub(f.Last) >= 50*minute || f.First.After(f.Last) {
				t.Fatalf("expected evidence within the window, got %+v", f)
			}
			if f.Kind == muster.SharedAddress {
				for _, line := range f.Evidence {
					if name, _, _ := strings.Cut(strings.TrimPrefix(line, "machine "), ":"); !machines[name] {
						t.Fatalf("expected machines that logged in, got %q", line)
					}
				}
			}
		}
	})
}

func TestAddressesStandForClientsAsInRateLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes")
		for _, a := range []netip.Addr{netip.AddrFrom4([4]byte(b)), netip.AddrFrom16([16]byte(b)), netip.AddrFrom16([16]byte(b)).WithZone("eth0"), netip.AddrFrom16(netip.AddrFrom4([4]byte(b)).As16())} {
			if got, want := keyOf(a).prefix(), ratelimit.PrefixOf(a); got != want {
				t.Fatalf("%s: expected %s, got %s", a, want, got)
			}
		}
	})
}

func TestSeeDoesNotAllocateWithoutNews(t *testing.T) {
	w := New(Config{})
	end := tell(w, here.starts(0), here.does(Push, minute), overV6.does(Push, minute))
	for _, h := range []host{here, overV6} {
		c := h.does(Push, 0)[0].Contact
		if n := testing.AllocsPerRun(100, func() { w.See(end, c) }); n != 0 {
			t.Errorf("expected no allocation, got %g", n)
		}
	}
	login := here.does(Login, 0)[0].Contact
	if n := testing.AllocsPerRun(100, func() { w.See(end, login) }); n != 0 {
		t.Errorf("login: expected no allocation, got %g", n)
	}
}

// BenchmarkSee is of engines that logged in, and have been at work since. What
// a request brings stands in the order of requests, near at hand, as a request
// is; what is kept of each machine is anywhere.
func BenchmarkSee(b *testing.B) {
	const machines = 50_000
	for _, what := range []What{Push, Login} {
		b.Run(map[What]string{Push: "push", Login: "login"}[what], func(b *testing.B) {
			w := New(Config{Seed: 1})
			all := make([]Contact, machines)
			for i := range all {
				all[i] = Contact{Machine: fmt.Sprintf("%048d", i), Organisation: "o", Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Agent: modern}
			}
			for _, first := range []What{Login, Pull} {
				for i := range all {
					c := all[i*7919%machines]
					c.What = first
					w.See(t0, c)
				}
			}
			for i := range all {
				all[i].What = what
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				w.See(t0.Add(time.Duration(i)*time.Microsecond), all[i%machines])
				i++
			}
		})
	}
	b.Run("one machine", func(b *testing.B) {
		w := New(Config{Seed: 1})
		c := here.does(Push, 0)[0].Contact
		b.ReportAllocs()
		for b.Loop() {
			w.See(t0, c)
		}
	})
}

func BenchmarkFindings(b *testing.B) {
	w := New(Config{Seed: 1})
	for i := range 65_536 {
		for n := range 21 {
			w.See(t0.Add(time.Duration(n)*minute), Contact{Machine: fmt.Sprintf("%048d", i), Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), What: Login, Agent: modern})
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if n := len(w.Findings(t0.Add(hour))); n != 1000 {
			b.Fatalf("expected 1,000 findings, got %d", n)
		}
	}
}

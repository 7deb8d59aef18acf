package publish

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"muster"
)

const network = muster.Network

// example is a list with everything in it: two scenarios, addresses and ranges
// of both versions, a fleet of organisation A, withdrawals of both audiences.
func example(t testing.TB) *rig {
	r := newRig()
	r.judge(t, network, "35.188.49.176", "crowdsecurity/ssh-bf", 72, true)
	r.judge(t, network, "185.220.101.1", "crowdsecurity/ssh-bf", 24.9, true)
	r.judge(t, network, "9.9.9.0/24", "crowdsecurity/ssh-bf", 48, true)
	r.judge(t, network, "2a01:4f8:c17:b0f::2", "crowdsecurity/ssh-bf", 48, true)
	r.judge(t, network, "35.188.49.177", "crowdsecurity/http-probing", 71.5, true)
	r.judge(t, network, "45.9.20.1", "crowdsecurity/http-probing", 20, false)
	r.judge(t, network, "45.9.21.0/24", "crowdsecurity/http-probing", 20, false)
	r.judge(t, "A", "45.9.20.2", "crowdsecurity/ssh-bf", 5, true)
	r.judge(t, "A", "35.188.49.176", "crowdsecurity/ssh-slow-bf", 5, true)
	r.judge(t, "A", "45.9.20.3", "crowdsecurity/ssh-bf", 5, false)
	r.judge(t, "B", "45.9.20.4", "crowdsecurity/ssh-bf", 5, true)
	r.read(t)
	return r
}

func TestEditionGolden(t *testing.T) {
	r := example(t)
	for name, e := range map[string]*got{
		"v3.json":       r.Edition("", V3, false),
		"v2.json":       r.Edition("", V2, false),
		"v3-fleet.json": r.Edition("A", V3, false),
		"v3-empty.json": r.Edition("A", V3, true),
		"v2-empty.json": r.Edition("", V2, true),
		"v3-new.json":   newRig().Edition("", V3, false), // a network without verdicts
	} {
		golden(t, name, e.Identity)
		list, _ := sent(t, e)
		if !strings.HasPrefix(name, "v2") && e.Entries != len(list) {
			t.Errorf("%s: Entries is %d of %d", name, e.Entries, len(list))
		}
	}
}

// An organisation without a fleet list shares the edition of everybody.
func TestEditionsAreShared(t *testing.T) {
	r := example(t)
	of := func(organisation string, v Version) *edition {
		a := r.Pull(&Reader{Organisation: organisation}, Want{Version: v, Community: true})
		return a.edition
	}
	if of("C", V3) != of("", V3) {
		t.Error("organisation C, which has no fleet list, got an edition of its own")
	}
	r.cfg.Preferred = func(*Reader) ([]muster.Source, uint64) {
		return []muster.Source{muster.SourceFromPrefix(netip.MustParsePrefix("35.188.49.177/32"))}, 1
	}
	if of("C", V3) != of("", V3) {
		t.Error("what C prefers made an edition of its own, although it gets everything")
	}
	if of("A", V3) == of("", V3) || of("", V2) == of("", V3) {
		t.Error("different readers share an edition")
	}
}

func TestFleetAndNetwork(t *testing.T) {
	r := newRig()
	r.judge(t, network, "35.188.49.1", "network", 10, true)
	r.judge(t, "A", "35.188.49.1", "fleet", 20, true)
	r.judge(t, network, "35.188.49.2", "network", 20, true)
	r.judge(t, "A", "35.188.49.2", "fleet", 10, true)
	r.judge(t, network, "35.188.49.3", "network", 10, true)
	r.judge(t, "A", "35.188.49.3", "fleet", 10, true)
	r.judge(t, network, "35.188.49.4", "network", 72, true)
	r.judge(t, "A", "35.188.49.4", "fleet", 0.9, true) // must not hide the network's
	r.judge(t, "A", "35.188.49.5", "fleet", 10, true)
	r.read(t)
	r.wantSent(t, "A's engines", "A", []string{
		"35.188.49.1 19h fleet", "35.188.49.3 9h fleet", "35.188.49.5 9h fleet", "35.188.49.2 19h network", "35.188.49.4 71h network",
	}, nil)
	r.wantSent(t, "B's engines", "B", []string{
		"35.188.49.1 9h network", "35.188.49.2 19h network", "35.188.49.3 9h network", "35.188.49.4 71h network",
	}, nil)

	// Withdrawn here, listed there: it stays.
	r.judge(t, network, "35.188.49.1", "network", 10, false)
	r.judge(t, "A", "35.188.49.2", "fleet", 10, false)
	r.judge(t, "A", "35.188.49.3", "fleet", 10, false)
	r.judge(t, network, "35.188.49.3", "network", 10, false)
	r.read(t)
	r.wantSent(t, "A's engines after withdrawals", "A", []string{
		"35.188.49.1 19h fleet", "35.188.49.5 9h fleet", "35.188.49.2 19h network", "35.188.49.4 71h network",
	}, []string{"35.188.49.3"})
	r.wantSent(t, "B's engines after withdrawals", "B", []string{
		"35.188.49.2 19h network", "35.188.49.4 71h network",
	}, []string{"35.188.49.1", "35.188.49.3"})
}

func TestWithdrawal(t *testing.T) {
	r := newRig()
	const address = "35.188.49.176"
	r.judge(t, network, address, "x", 10, true)
	r.read(t)
	r.wantSent(t, "listed", "", []string{address + " 9h x"}, nil)
	r.judge(t, network, address, "x", 10, false)
	r.read(t)
	r.wantSent(t, "withdrawn", "", nil, []string{address})
	if r.Count(network) != 0 {
		t.Errorf("%d are counted", r.Count(network))
	}
	r.judge(t, network, address, "x", 20, true)
	r.read(t)
	r.wantSent(t, "listed again", "", []string{address + " 19h x"}, nil)
	r.judge(t, network, address, "x", 20, false)
	r.read(t)
	r.clock.advance(20 * time.Hour)
	r.prune()
	r.wantSent(t, "after the end that engines were told", "", nil, nil)

	// A listing that ended at its time needs no deletion: engines drop it.
	r.judge(t, network, "35.188.49.177", "x", 21, true)
	r.read(t)
	r.clock.advance(2 * time.Hour)
	r.judge(t, network, "35.188.49.177", "x", 21, false)
	r.read(t)
	r.wantSent(t, "lapsed", "", nil, nil)
}

func TestDurations(t *testing.T) {
	r := newRig()
	for i, hours := range []float64{0.5, 0.999, 1.001, 1.9, 2.001, 72.5, -1, 0} {
		r.judge(t, network, fmt.Sprintf("35.188.49.%d", i), "x", hours, true)
	}
	r.read(t)
	r.wantSent(t, "at first", "", []string{"35.188.49.2 1h x", "35.188.49.3 1h x", "35.188.49.4 2h x", "35.188.49.5 72h x"}, nil)
	r.clock.advance(44 * time.Minute)
	r.wantSent(t, "44 minutes later: not yet counted anew", "", []string{"35.188.49.2 1h x", "35.188.49.3 1h x", "35.188.49.4 2h x", "35.188.49.5 72h x"}, nil)
	r.clock.advance(17 * time.Minute)
	r.wantSent(t, "61 minutes later", "", []string{"35.188.49.5 71h x"}, nil)
	if n := r.Count(network); n != 8 {
		t.Errorf("%d are counted before the next pruning", n)
	}
	r.prune()
	if n := r.Count(network); n != 3 {
		t.Errorf("%d are counted after it, want 3", n)
	}
}

func TestNothingForbiddenIsSent(t *testing.T) {
	r := newRig()
	for _, s := range []string{"10.1.2.3", "192.168.0.0/24", "100.64.0.1", "2001:db8::1", "8.0.0.0/6", "::ffff:0:0/95", "35.188.49.1", "35.188.49.2", "35.188.49.0/24"} {
		r.judge(t, network, s, "x", 72, true)
		r.judge(t, "A", s, "x", 71, true)
	}
	for _, s := range []string{"35.188.49.2", "35.188.49.0/24"} {
		src, err := muster.ParseSource(s)
		if err != nil {
			t.Fatal(err)
		}
		r.allowed[src] = true
	}
	r.read(t)
	r.wantSent(t, "everybody", "", []string{"35.188.49.1 71h x"}, nil)
	r.wantSent(t, "A", "A", []string{"35.188.49.1 71h x"}, nil)
}

// What an engine would choke on is left out, counted, and not in Entries.
// A listed range stands for the addresses in it, as long as it is listed as long
// as they are and may itself be sent.
func TestRangesStandForTheirMembers(t *testing.T) {
	r := newRig()
	r.allowed[muster.SourceFromPrefix(netip.MustParsePrefix("45.9.22.0/24"))] = true // one address in it is
	r.judge(t, network, "45.9.20.0/24", "x", 60, true)
	r.judge(t, network, "45.9.20.1", "x", 50, true)
	r.judge(t, network, "45.9.20.2", "x", 70, true) // longer than the range
	r.judge(t, network, "45.9.21.1", "x", 50, true)
	r.judge(t, network, "45.9.22.0/24", "x", 60, true) // has an allowlisted address inside
	r.judge(t, network, "45.9.22.1", "x", 50, true)
	r.judge(t, network, "2a01:4f8:c17:b000::/56", "x", 60, true)
	r.judge(t, network, "2a01:4f8:c17:b012::/64", "x", 60, true)
	r.judge(t, "A", "45.9.20.3", "x", 5, true)
	r.read(t)
	for _, organisation := range []string{"", "A"} {
		list, _ := sent(t, r.Edition(organisation, V3, false))
		text := strings.Join(list, "\n")
		for value, want := range map[string]bool{
			"45.9.20.0/24 ": true, "45.9.20.1 ": false, "45.9.20.2 ": true, "45.9.21.1 ": true, "45.9.22.0/24 ": false, "45.9.22.1 ": true,
			"2a01:4f8:c17:b000::/56 ": true, "2a01:4f8:c17:b012::/64 ": false, "45.9.20.3 ": false,
		} {
			if strings.Contains(text, value) != want {
				t.Errorf("for %q: %s is sent: %t, want %t", organisation, value, !want, want)
			}
		}
	}
}

func TestOutboundGuard(t *testing.T) {
	r := newRig()
	r.judge(t, network, "35.188.49.1", " ", 72, true)
	r.judge(t, network, "35.188.49.2", "x", 72, true)
	r.read(t)
	r.wantSent(t, "v3", "", []string{"35.188.49.2 71h x"}, nil)
	if e := r.Edition("", V3, false); e.Entries != 1 {
		t.Errorf("Entries is %d, want 1", e.Entries)
	}
	if n := testutil.ToFloat64(r.dropped); n != 1 {
		t.Errorf("the counter says %v, want 1", n)
	}
}

func TestETag(t *testing.T) {
	r := example(t)
	etag := func() string {
		t.Helper()
		r.clock.advance(coalesce)
		return r.Edition("", V3, false).ETag
	}
	first := etag()
	if len(first) != 34 || first[0] != '"' || first[33] != '"' || strings.ContainsAny(first[1:33], `"W/ `) {
		t.Errorf("%s is no strong quoted tag", first)
	}
	if again := example(t).Edition("", V3, false).ETag; again != first {
		t.Errorf("another node with the same list has %s, this one %s", again, first)
	}
	// A change that readers cannot see makes no new tag.
	r.judge(t, network, "35.188.49.176", "crowdsecurity/ssh-bf", 71.9, true)
	r.read(t)
	if e := r.Edition("", V3, false); e.ETag != first {
		t.Errorf("an end that moved by minutes: tag %s, was %s", e.ETag, first)
	}
	r.judge(t, network, "35.188.49.178", "crowdsecurity/ssh-bf", 72, true)
	r.read(t)
	second := etag()
	if second == first {
		t.Error("the tag did not change with the content")
	}
	r.judge(t, network, "35.188.49.178", "crowdsecurity/ssh-bf", -1, false)
	r.read(t)
	if etag() != first {
		t.Error("the tag did not come back with the content")
	}
	r.clock.advance(time.Hour)
	if etag() == first {
		t.Error("the tag did not change with the durations")
	}
	tags := map[string]bool{}
	for _, e := range []*got{r.Edition("", V3, false), r.Edition("", V2, false), r.Edition("A", V3, false), r.Edition("", V3, true), r.Edition("", V2, true)} {
		tags[e.ETag] = true
	}
	if len(tags) != 5 {
		t.Errorf("%d tags of 5 editions", len(tags))
	}
}

// Several gzip members would break curl and httpx.
func TestOneGzipMember(t *testing.T) {
	r := newRig()
	for i := range 8_000 { // larger than any buffer on the way
		r.judge(t, network, fmt.Sprintf("35.%d.%d.9", i>>8, i&255), "crowdsecurity/ssh-bf", 72, true)
	}
	r.read(t)
	for name, e := range map[string]*got{"full": r.Edition("", V3, false), "empty": r.Edition("", V3, true), "v2": r.Edition("", V2, false)} {
		in := bytes.NewReader(e.Gzip) // a ByteReader: gzip reads nothing ahead
		z, err := gzip.NewReader(in)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		z.Multistream(false)
		body, err := io.ReadAll(z)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(body, e.Identity) || in.Len() != 0 {
			t.Errorf("%s: the first member holds %d of %d bytes, %d bytes follow", name, len(body), len(e.Identity), in.Len())
		}
	}
}

func TestCoalescing(t *testing.T) {
	r := newRig()
	pull := func() *edition {
		a := r.Pull(&Reader{}, Want{Version: V3, Community: true})
		return a.edition
	}
	first := pull()
	r.judge(t, network, "35.188.49.1", "x", 72, true)
	if err := r.follow(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.clock.advance(coalesce - time.Millisecond)
	if pull() != first {
		t.Error("rebuilt within the time of coalescing")
	}
	r.clock.advance(time.Millisecond)
	second := pull()
	if second == first || second.entries != 1 {
		t.Errorf("not rebuilt after it: %d entries", second.entries)
	}
	r.clock.advance(leastValid*time.Second - 2*time.Second)
	if pull() != second {
		t.Error("rebuilt although nothing changed and durations are good")
	}
	r.clock.advance(spreadValid * time.Second)
	if pull() == second {
		t.Error("not rebuilt although its durations are an hour old")
	}
	// A clock that was set back must not freeze the list.
	r.clock.advance(-24 * time.Hour)
	r.judge(t, network, "35.188.49.2", "x", 72, true)
	if err := r.follow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := pull(); e.entries != 2 {
		t.Errorf("with the clock set back: %d entries, want 2", e.entries)
	}
}

// Either list alone makes a new edition for a fleet's machines.
func TestAFleetsEditionFollowsBothLists(t *testing.T) {
	r := newRig()
	for i, a := range []muster.Audience{"A", network, "A", network} {
		r.judge(t, a, fmt.Sprintf("35.188.49.%d", i), "x", 72, true)
		r.read(t)
		if got := r.Edition("A", V3, false).Entries; got != i+1 {
			t.Errorf("after a change of the list of %q: %d entries, want %d", a, got, i+1)
		}
	}
}

func TestEditionsAreBounded(t *testing.T) {
	r := newRig()
	r.editions, r.views = newCache[editionKey, *slot](64), newCache[viewKey, *view](32)
	r.judge(t, network, "35.188.49.2", "x", 72, true)
	const organisations = 200
	for i := range organisations {
		r.judge(t, muster.Audience(fmt.Sprint("org", i)), "35.188.49.1", "x", 72, true)
	}
	r.read(t)
	pull := func(i int) *edition {
		a := r.Pull(&Reader{Organisation: fmt.Sprint("org", i)}, Want{Version: V3, Community: true})
		return a.edition
	}
	kept := pull(0)
	for i := range organisations {
		r.clock.advance(2 * time.Second)
		if e := pull(i); e.entries != 2 {
			t.Fatalf("org%d: %d entries", i, e.entries)
		}
		if pull(0) != kept {
			t.Fatalf("the edition in use was dropped for that of org%d", i)
		}
	}
	if e, v := r.editions.len(), r.views.len(); e > 64 || e < 48 || v > 32 {
		t.Errorf("%d editions and %d views are held, want about 64 and at most 32", e, v)
	}
}

func TestConcurrentPullsAndChanges(t *testing.T) {
	r := newRig()
	var wg sync.WaitGroup
	done := make(chan struct{})
	for w := range 4 {
		wg.Go(func() {
			org := []string{"", "A", "B", "C"}[w]
			for last := -1; ; {
				select {
				case <-done:
					return
				default:
				}
				e := r.Edition(org, V3, w%2 == 1)
				if list, _ := sent(t, e); len(list) != e.Entries {
					t.Errorf("Entries is %d of %d", e.Entries, len(list))
					return
				}
				if w == 0 {
					if e.Entries < last {
						t.Errorf("the list shrank from %d to %d", last, e.Entries)
						return
					}
					last = e.Entries
				}
				r.Count(network)
			}
		})
	}
	for i := range 200 {
		r.judge(t, network, fmt.Sprintf("35.188.49.%d", i), "x", 72, true)
		r.judge(t, "A", fmt.Sprintf("35.188.50.%d", i), "x", 72, i%3 > 0)
		r.read(t)
		if i%50 == 0 {
			r.prune()
		}
	}
	close(done)
	wg.Wait()
	if e := r.Edition("", V3, false); e.Entries != 200 {
		t.Errorf("%d entries at the end, want 200", e.Entries)
	}
}

// Allowed is asked when an edition is built, so an edition that was built before
// the allowlist changed must not be served again.
func TestInvalidate(t *testing.T) {
	r := newRig()
	r.judge(t, network, "35.188.49.1", "x", 72.9, true)
	r.judge(t, network, "35.188.49.2", "x", 72.9, true)
	r.read(t)
	r.wantSent(t, "before", "", []string{"35.188.49.1 72h x", "35.188.49.2 72h x"}, nil)
	source, err := muster.ParseSource("35.188.49.1")
	if err != nil {
		t.Fatal(err)
	}
	r.allowed[source] = true
	r.Invalidate()
	r.clock.advance(coalesce)
	r.wantSent(t, "after the allowlist changed", "", []string{"35.188.49.2 72h x"}, nil)
}

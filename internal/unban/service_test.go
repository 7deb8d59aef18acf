package unban

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"muster"
	"muster/internal/store"
)

var update = flag.Bool("update", false, "write testdata/story.txt anew")

// TestStory compares what people are told, from the first listing to the fourth
// round, with testdata/story.txt; after a change of words: go test -update. The
// real store tells the same as the one of these tests.
func TestStory(t *testing.T) {
	memory := story(t, newRig(t, nil))
	db, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "muster.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	stored := story(t, newRig(t, func(c *Config) { c.Store = db }))
	if *update {
		if err := os.WriteFile("testdata/story.txt", []byte(memory), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/story.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), memory); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(memory, stored); diff != "" {
		t.Errorf("with the real store (-memory +stored):\n%s", diff)
	}
}

func story(t *testing.T, r *rig) string {
	var out strings.Builder
	tell := func(what string) { fmt.Fprintf(&out, "\n%s  %s\n", r.clock.Format("Jan 02 15:04"), what) }
	look := func(from string) {
		st, err := r.Standing(t.Context(), addr(from))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "  %s looks: %s\n", from, st.Message)
		if st.CanAsk != (st.Listing != nil && st.Next.IsZero() && (st.Request == nil || st.Request.State != muster.UnbanWaiting)) {
			t.Errorf("%s: can ask is %v in %+v", r.clock, st.CanAsk, st)
		}
	}
	ask := func(from, address string) {
		answer, result := r.asked(from, address)
		fmt.Fprintf(&out, "  %s asks %s: %s\n", from, address, result)
		if answer.Message != "" {
			fmt.Fprintf(&out, "    %s\n", answer.Message)
		}
	}
	decide := func(do func(context.Context, string, By) (muster.UnbanRequest, error), ref, reason string) {
		if _, err := do(t.Context(), ref, By{"jane", reason}); err != nil {
			t.Fatal(err)
		}
	}
	tell("Nobody is listed.")
	look("1.2.3.4")
	ask("1.2.3.4", "")
	ask("9.9.9.9", "1.2.3.4")

	tell("It is listed, and a stranger asks first.")
	r.list("1.2.3.4")
	look("1.2.3.4")
	ask("9.9.9.9", "1.2.3.4")
	ask("1.2.3.4", "")
	look("1.2.3.4")

	for _, wait := range []time.Duration{time.Hour, 3 * day, time.Hour, 10 * day, time.Hour, 30 * day, time.Hour} {
		r.clock = r.clock.Add(wait)
		tell("It attacks again.")
		r.list("1.2.3.4")
		look("1.2.3.4")
		ask("1.2.3.4", "")
	}

	tell("A range is listed.")
	r.list("5.6.7.0/24")
	look("5.6.7.8")
	ask("5.6.7.8", "")
	look("5.6.7.8")
	tell("An operator refuses.")
	decide(r.Refuse, "5.6.7.8", "half of it still scans")
	look("5.6.7.8")
	r.clock = r.clock.Add(3 * day)
	tell("Three days later an operator grants.")
	look("5.6.7.9")
	ask("5.6.7.9", "")
	decide(r.Grant, "5.6.7.0/24", "cleaned up")
	look("5.6.7.9")
	look("5.6.7.8")

	return out.String()
}

func TestGrantIsDelivered(t *testing.T) {
	r := newRig(t, nil)
	r.list("1.2.3.4", "2a00::/64", "1.2.3.5")
	r.want("granted", "1.2.3.4", "")
	r.want("granted", "2a00::1", "2a00::2")
	r.want("granted", "::ffff:1.2.3.5", "1.2.3.5")
	if want := []string{"1.2.3.4 2026-11-20T12:00:00Z", "2a00::/64 2026-11-20T12:00:00Z", "1.2.3.5 2026-11-20T12:00:00Z"}; !slices.Equal(r.judge.told, want) {
		t.Errorf("the judge was told %q, want %q", r.judge.told, want)
	}
	for _, q := range r.store.requests {
		if !q.Delivered || q.GraceUntil != start.Add(7*day) || q.Round != 1 || q.By != "" {
			t.Errorf("stored as %+v", q)
		}
	}
	if len(r.store.audit) != 0 {
		t.Errorf("what rules decide is no person's change: %v", r.store.audit)
	}
}

func TestAskRefusesNonsense(t *testing.T) {
	r := newRig(t, nil)
	r.list("1.2.3.4")
	for name, c := range map[string]struct {
		ask  Ask
		want string
	}{
		"no address":      {Ask{}, "this request has no address"},
		"a long contact":  {Ask{Contact: strings.Repeat("x", 201)}, "contact: expected one line of at most 200 bytes, got 201"},
		"two lines":       {Ask{Contact: "a\nb"}, "contact: expected one line"},
		"a terminal's":    {Ask{Contact: "\x1b[2J"}, "contact: expected one line"},
		"a long text":     {Ask{Text: strings.Repeat("ö", 1001)}, "text: expected at most 2000 bytes of plain text, got 2002"},
		"no text":         {Ask{Text: "\xff"}, "text: expected"},
		"a terminal's so": {Ask{Text: "a\x07b"}, "text: expected"},
		"backwards":       {Ask{Text: "a\u202eb"}, "text: expected"},
	} {
		if name != "no address" {
			c.ask.Requester = addr("1.2.3.4")
		}
		_, err := r.Ask(t.Context(), c.ask)
		if muster.CodeOf(err) != muster.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if len(r.store.requests) != 0 {
		t.Errorf("kept %v", r.store.requests)
	}
	if _, err := r.Ask(t.Context(), Ask{Requester: addr("1.2.3.4"), Contact: " noc@example.org ", Text: "a\r\nb\n"}); err != nil {
		t.Fatal(err)
	}
	if q := r.store.requests[0]; q.Contact != "noc@example.org" || q.Text != "a\nb" {
		t.Errorf("kept %q and %q", q.Contact, q.Text)
	}
}

// Whoever does not prove that an address is theirs learns nothing about it.
func TestNoOracle(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxAsks = 100; c.Rules.MaxWaiting = 2 })
	r.list("1.2.3.4", "1.2.3.5", "1.2.3.6", "1.2.4.0/24", "1.2.5.1")
	r.want("granted", "1.2.3.5", "")
	r.list("1.2.3.5")                  // in its cool-down
	r.want("waiting", "1.2.4.1", "")   // waits with proof
	r.clock = r.clock.Add(time.Minute) //
	addresses := []string{"1.2.3.4", "1.2.3.5", "1.2.4.1", "7.7.7.7", "1.2.3.6" /* the queue is full */, "1.2.5.1", "10.0.0.1"}
	for i, from := range slices.Concat(slices.Repeat([]string{"9.9.9.9"}, 7), slices.Repeat([]string{"9.9.9.8"}, 7)) {
		address := addresses[i%7]
		answer, result := r.asked(from, address)
		want := Answer{
			Address: addr(address), State: muster.UnbanWaiting,
			Message: "If this address is on the community list, the operators will look at it. It goes faster from the address itself: a request that comes from there needs nobody.",
		}
		if diff := cmp.Diff(want, answer, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s: %s (-want +got):\n%s", address, result, diff)
		}
	}
	if got := r.states("1.2.3.4"); got != "waiting" {
		t.Errorf("kept %q of what is listed", got)
	}
	for _, not := range []string{"7.7.7.7", "10.0.0.1", "1.2.3.6"} {
		if got := r.states(not); got != "" {
			t.Errorf("%s: kept %q", not, got)
		}
	}
}

func TestOwnersDoNotWaitForStrangers(t *testing.T) {
	r := newRig(t, nil)
	r.list("1.2.3.4")
	r.want("waiting", "9.9.9.9", "1.2.3.4")
	r.want("waiting", "8.8.8.8", "1.2.3.4")
	r.want("granted", "1.2.3.4", "")
	if got := r.states("1.2.3.4"); got != "withdrawn, granted same-address" {
		t.Errorf("got %q", got)
	}
	// What is refused to a stranger does not count against the owner.
	r = newRig(t, nil)
	r.list("1.2.3.4")
	r.want("waiting", "9.9.9.9", "1.2.3.4")
	if _, err := r.Refuse(t.Context(), "1.2.3.4", By{"jane", "who are you?"}); err != nil {
		t.Fatal(err)
	}
	r.want("granted", "1.2.3.4", "")
}

func TestMassUnbans(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxAsks = 100; c.Rules.AlarmFrom = 8 })
	for i := range 12 {
		r.list(fmt.Sprintf("1.2.3.%d", i), fmt.Sprintf("1.2.%d.9", 10+i))
	}
	for i := range 5 {
		r.want("granted", fmt.Sprintf("1.2.3.%d", i), "")
	}
	r.want("rate_limited: 5 addresses of 1.2.3.0/24", "1.2.3.5", "")
	for i := range 3 {
		r.want("granted", fmt.Sprintf("1.2.%d.9", 10+i), "")
	}
	r.want("waiting", "1.2.13.9", "") // too many by all of them
	if got := r.states("1.2.13.9"); got != "waiting same-address" {
		t.Errorf("got %q", got)
	}
	r.clock = r.clock.Add(day + time.Microsecond)
	for i := range 5 {
		r.want("granted", fmt.Sprintf("1.2.3.%d", 5+i), "")
	}
	r.clock = r.clock.Add(day + time.Microsecond)
	r.want("rate_limited: there were 10 requests from 1.2.3.0/24 within a week", "1.2.3.10", "")
	r.clock = r.clock.Add(6 * day)
	r.want("granted", "1.2.3.10", "")
}

func TestTooManyAsks(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxLooks = 2 })
	r.list("1.2.3.4")
	for range 10 {
		r.want("not_found", "1.2.3.9", "")
	}
	r.want("rate_limited: your network asked too often today", "1.2.3.4", "")
	r.clock = start.Add(12*time.Hour - time.Second)
	_, err := r.Ask(t.Context(), Ask{Requester: addr("1.2.3.4")})
	var e *muster.Error
	if !errors.As(err, &e) || e.RetryAfter != time.Second {
		t.Errorf("got %v, retry after %v", err, e.RetryAfter)
	}
	r.clock = start.Add(12 * time.Hour)
	r.want("granted", "1.2.3.4", "")

	for i := range 3 {
		if _, err := r.Standing(t.Context(), addr("1.2.3.4")); (muster.CodeOf(err) == muster.RateLimited) != (i == 2) {
			t.Errorf("look %d: %v", i, err)
		}
	}
}

func TestAsks(t *testing.T) {
	allowed := func(a *asks, most int, address func(i int) string) (n int) {
		for i := range most {
			if a.spend(start, addr(address(i))) == 0 {
				n++
			}
		}
		return n
	}
	a := newAsks(3)
	for i, c := range []struct {
		of   func(i int) string
		want int
	}{
		{func(i int) string { return fmt.Sprintf("1.2.3.%d", i) }, 3},
		{func(i int) string { return fmt.Sprintf("1.2.%d.1", i+4) }, 100},
		{func(i int) string { return fmt.Sprintf("2a00::%x", i) }, 3},
		{func(i int) string { return fmt.Sprintf("2a00:0:0:%x::", i) }, 9}, // the /48's 12 less those
		{func(i int) string { return fmt.Sprintf("2a00:0:%x::", i) }, 36},  // the /32's 48 less those
	} {
		if got := allowed(a, 100, c.of); got != c.want {
			t.Errorf("%d: %d were allowed, want %d", i, got, c.want)
		}
	}
	// Another day, all over; and back to the first, which a clock can do.
	for _, at := range []time.Time{start.Add(day), start} {
		if a.spend(at, addr("1.2.3.4")) != 0 {
			t.Errorf("%s: refused", at)
		}
	}
	// A flood of networks never lets one of them ask more than it may.
	rapid.Check(t, func(t *rapid.T) {
		a, spent := newAsks(rapid.IntRange(1, 20).Draw(t, "most")), map[netip.Prefix]int{}
		for range rapid.IntRange(1, 300).Draw(t, "asks") {
			ip := netip.AddrFrom4([4]byte{1, 2, rapid.Byte().Draw(t, "c"), 1})
			network, _ := ip.Prefix(24)
			if a.spend(start, ip) == 0 {
				spent[network]++
			}
			if spent[network] > int(a.most) {
				t.Fatalf("%s asked %d times", network, spent[network])
			}
		}
	})
}

func TestOperators(t *testing.T) {
	r := newRig(t, nil)
	r.list("1.2.3.4", "5.6.7.0/24", "8.8.8.8")
	r.want("waiting", "9.9.9.9", "1.2.3.4")
	r.want("waiting", "5.6.7.8", "")
	r.want("granted", "8.8.8.8", "")
	jane := By{"jane", "looks fine"}
	id := r.store.requests[0].ID

	granted, err := r.Grant(t.Context(), id, jane)
	if err != nil {
		t.Fatal(err)
	}
	if granted.Proof != muster.ProofOperator || granted.State != muster.UnbanGranted || granted.By != "jane" || granted.Reason != "looks fine" ||
		granted.Round != 1 || granted.GraceUntil != start.Add(7*day) {
		t.Errorf("granted as %+v", granted)
	}
	// A range, and the address that would else be listed by itself.
	if _, err := r.Grant(t.Context(), "5.6.7.8", jane); err != nil {
		t.Fatal(err)
	}
	if want := []string{"8.8.8.8 2026-11-20T12:00:00Z", "1.2.3.4 2026-11-20T12:00:00Z", "5.6.7.0/24 2026-11-20T12:00:00Z", "5.6.7.8 2026-11-20T12:00:00Z"}; !slices.Equal(r.judge.told, want) {
		t.Errorf("the judge was told %q, want %q", r.judge.told, want)
	}
	for ref, code := range map[string]muster.Code{
		id: muster.Gone, "1.2.3.4": muster.Gone, "5.6.7.0/24": muster.Gone, "8.8.8.8": muster.Gone,
		"7.7.7.7": muster.NotFound, "01a1fb7c-0e50-7ac2-9f0f-9bb8d21e73b4": muster.NotFound, "web1": muster.Invalid, "": muster.Invalid,
	} {
		for what, do := range map[string]func(context.Context, string, By) (muster.UnbanRequest, error){"grant": r.Grant, "refuse": r.Refuse} {
			if _, err := do(t.Context(), ref, jane); muster.CodeOf(err) != code {
				t.Errorf("%s %q: got %v, want %s", what, ref, err, code)
			}
		}
	}
	r.list("1.2.3.4")
	r.clock = r.clock.Add(time.Minute)
	r.list("1.2.3.4")
	r.want("rate_limited", "1.2.3.4", "") // what an operator grants is a round too
	r.want("waiting", "9.9.9.9", "1.2.3.4")
	refused, err := r.Refuse(t.Context(), "1.2.3.4", By{"joe", "not again"})
	if err != nil || refused.State != muster.UnbanRefused || refused.Round != 1 || refused.By != "joe" || !refused.GraceUntil.IsZero() {
		t.Errorf("refused as %+v, %v", refused, err)
	}
	var audited []string
	for _, e := range r.store.audit {
		audited = append(audited, strings.Join([]string{e.By, e.Action, e.Subject, e.Reason}, " "))
	}
	if want := []string{"jane unban.grant 1.2.3.4 looks fine", "jane unban.grant 5.6.7.0/24 looks fine", "joe unban.refuse 1.2.3.4 not again"}; !slices.Equal(audited, want) {
		t.Errorf("audited %q, want %q", audited, want)
	}
	if detail := string(r.store.audit[2].Detail); !strings.Contains(detail, `"request":"`+refused.ID+`"`) || !strings.Contains(detail, `"requester":"9.9.9.9"`) {
		t.Errorf("the audit's detail: %s", detail)
	}

	c, err := r.Case(t.Context(), "1.2.3.4")
	if err != nil || c.Request.ID != refused.ID || len(c.Others) != 1 || c.Others[0].ID != id || c.Listing == nil || c.Listing.Source != source("1.2.3.4") {
		t.Errorf("the case: %+v, %v", c, err)
	}
	if c, err = r.Case(t.Context(), "8.8.8.8"); err != nil || c.Listing != nil {
		t.Errorf("the case of one that is off the list: %+v, %v", c, err)
	}
}

func TestFaults(t *testing.T) {
	fault := errors.New("database is away")
	for name, break_ := range map[string]func(*rig){
		"the store": func(r *rig) { r.store.fail = fault },
		"the list":  func(r *rig) { r.judge.lost = fault },
	} {
		r := newRig(t, nil)
		r.list("1.2.3.4")
		break_(r)
		_, own := r.Ask(t.Context(), Ask{Requester: addr("1.2.3.4")})
		_, foreign := r.Ask(t.Context(), Ask{Requester: addr("9.9.9.9"), Address: addr("1.2.3.4")})
		_, standing := r.Standing(t.Context(), addr("1.2.3.4"))
		for _, err := range []error{own, foreign, standing, r.sweepAfter(fault)} {
			if !errors.Is(err, fault) || muster.CodeOf(err) != "" {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
	// A prover that fails proves nothing, and the next one is asked.
	r := newRig(t, func(c *Config) { c.Provers = []Prover{brokenProver{}, SameAddress{}} })
	r.list("1.2.3.4", "1.2.3.5")
	r.want("granted", "1.2.3.4", "")
	r.want("waiting", "1.2.3.4", "1.2.3.5")
}

// sweepAfter sweeps with something in the queue.
func (r *rig) sweepAfter(fault error) error {
	r.store.fail = nil
	r.store.requests = []muster.UnbanRequest{{ID: "1", Source: source("1.2.3.4"), Address: addr("1.2.3.4"), State: muster.UnbanWaiting}}
	if r.judge.lost == nil {
		r.store.fail = fault
	}
	return r.sweep(r.t.Context())
}

type brokenProver struct{}

func (brokenProver) Prove(context.Context, netip.Addr, netip.Addr) (muster.UnbanProof, error) {
	return muster.ProofSameAddress, errors.New("no route to host")
}

// What the judge could not be told at once, it is told later; what left the list
// by itself needs nobody; what is old is forgotten.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) {
			c.Now, c.Rules.Memory = time.Now, 2*day
			c.Registerer = prometheus.NewPedanticRegistry()
		})
		r.clock = time.Now()
		r.list("1.2.3.4", "5.6.7.0/24", "6.6.6.0/24")
		r.judge.fail = errors.New("judge is away")
		r.want("granted", "1.2.3.4", "")
		r.want("waiting", "5.6.7.8", "")
		r.want("waiting", "6.6.6.6", "")
		r.want("waiting", "9.9.9.9", "6.6.6.6")

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(r.judge.told) != 0 || r.store.requests[0].Delivered {
			t.Errorf("the judge was told %q", r.judge.told)
		}
		r.judge.mu.Lock()
		r.judge.fail = nil
		delete(r.judge.listed, source("5.6.7.0/24"))
		r.judge.mu.Unlock()
		time.Sleep(deliverEvery)
		synctest.Wait()
		r.judge.mu.Lock()
		if len(r.judge.told) != 1 || !strings.HasPrefix(r.judge.told[0], "1.2.3.4 2000-01-01T00:00:00Z") {
			t.Errorf("the judge was told %q", r.judge.told)
		}
		r.judge.mu.Unlock()
		time.Sleep(sweepEvery)
		synctest.Wait()
		if got := r.states("5.6.7.8") + "; " + r.states("6.6.6.6"); got != "withdrawn same-address; waiting same-address" {
			t.Errorf("after the list changed: %s", got)
		}
		if got := r.waiting.Load(); got != 1 {
			t.Errorf("%d are said to wait", got)
		}
		if got := testutil.ToFloat64(r.outcomes.WithLabelValues("granted")) + testutil.ToFloat64(r.outcomes.WithLabelValues("queued")); got != 3 {
			t.Errorf("%v counted", got)
		}
		time.Sleep(2*day + tidyEvery)
		synctest.Wait()
		if got := r.states("1.2.3.4") + r.states("5.6.7.8"); got != "" {
			t.Errorf("when it is old: %s", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Whatever happens in whatever order: a source has one request that waits at
// most, whoever was granted has a grace and had waited their time, the judge is
// told of every grant, and what is kept is bounded by the rules.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, func(c *Config) {
			c.MaxAsks = 1000
			c.Rules = Rules{PerNetwork: 3, PerAsker: 6, MaxWaiting: 4, AlarmFrom: 5}
		})
		hosts := []string{"1.2.3.4", "1.2.3.5", "1.2.3.6", "1.2.3.7", "2.2.2.2", "3.3.3.3", "2a00::1", "2a00::2", "2a00:0:0:1::1"}
		host := rapid.SampledFrom(hosts)
		operator := func(do func(context.Context, string, By) (muster.UnbanRequest, error), ref string) {
			if _, err := do(rt.Context(), ref, By{"jane", "x"}); err != nil && muster.CodeOf(err) == "" {
				rt.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"list": func(rt *rapid.T) { r.list(host.Draw(rt, "host")) },
			"range": func(rt *rapid.T) {
				r.list(rapid.SampledFrom([]string{"1.2.3.0/24", "2a00::/64", "2a00::/48"}).Draw(rt, "range"))
			},
			"lapse": func(rt *rapid.T) { delete(r.judge.listed, source(host.Draw(rt, "host"))) },
			"ask": func(rt *rapid.T) {
				a := Ask{Requester: addr(host.Draw(rt, "from")), Address: addr(host.Draw(rt, "for"))}
				if _, err := r.Ask(rt.Context(), a); err != nil && muster.CodeOf(err) == "" {
					rt.Fatal(err)
				}
			},
			"own":    func(rt *rapid.T) { _, _ = r.Ask(rt.Context(), Ask{Requester: addr(host.Draw(rt, "host"))}) },
			"grant":  func(rt *rapid.T) { operator(r.Grant, host.Draw(rt, "host")) },
			"refuse": func(rt *rapid.T) { operator(r.Refuse, host.Draw(rt, "host")) },
			"sweep": func(rt *rapid.T) {
				if err := r.sweep(rt.Context()); err != nil {
					rt.Fatal(err)
				}
			},
			"deliver": func(rt *rapid.T) {
				err := r.deliverAll(rt.Context())
				untold := slices.ContainsFunc(r.store.requests, func(q muster.UnbanRequest) bool { return q.State == muster.UnbanGranted && !q.Delivered })
				if untold != (err != nil) || untold && r.judge.fail == nil {
					rt.Fatalf("some are not told: %v, %v", untold, err)
				}
			},
			"wait": func(rt *rapid.T) {
				r.clock = r.clock.Add(time.Duration(rapid.Int64Range(1, int64(4*day)).Draw(rt, "time")))
			},
			"judge": func(*rapid.T) { r.judge.fail = nil },
			"gone":  func(*rapid.T) { r.judge.fail = errors.New("judge is away") },
			"":      func(rt *rapid.T) { r.check(rt) },
		})
	})
}

func (r *rig) check(t *rapid.T) {
	waiting, self := map[muster.Source]bool{}, map[muster.Source][]muster.UnbanRequest{}
	for _, q := range r.store.requests {
		granted := q.State == muster.UnbanGranted
		switch {
		case q.State == muster.UnbanWaiting && waiting[q.Source]:
			t.Fatalf("two wait for %s", q.Source)
		case q.State == muster.UnbanWaiting:
			waiting[q.Source] = true
		case granted != (q.GraceUntil == q.Decided.Add(7*day)):
			t.Fatalf("the grace of %+v", q)
		case granted && q.Round < 1, granted && q.Proof == "":
			t.Fatalf("granted as %+v", q)
		}
		if granted && q.By == "" {
			self[q.Line()] = append(self[q.Line()], q)
			if !q.Own() || q.Decided != q.Requested {
				t.Fatalf("granted by rules: %+v", q)
			}
		}
		told := slices.Contains(r.judge.told, q.Source.String()+" "+q.Decided.Format(time.RFC3339Nano))
		if q.Delivered && !(told && granted) {
			t.Fatalf("the judge was told: %v of %+v", told, q)
		}
	}
	if len(waiting) > 4 {
		t.Fatalf("%d wait", len(waiting))
	}
	for line, rounds := range self {
		for i, q := range rounds[1:] {
			if q.Decided.Sub(rounds[i].Decided) < 3*day {
				t.Fatalf("%s was granted at %s and at %s", line, rounds[i].Decided, q.Decided)
			}
		}
	}
}

// Many ask at once for the same.
func TestAskConcurrently(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxAsks = 1000 })
	r.list("1.2.3.0/24", "4.4.4.4")
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			from := []string{"1.2.3.4", "4.4.4.4"}[i%2]
			if _, err := r.Ask(t.Context(), Ask{Requester: addr(from)}); err != nil && muster.CodeOf(err) == "" {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := r.states("1.2.3.4") + "; " + r.states("4.4.4.4"); got != "waiting same-address; granted same-address" {
		t.Errorf("got %s", got)
	}
}

package enroll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"muster"
)

func TestTouchIsWrittenInBatches(t *testing.T) {
	b := newRig(t)
	const machines = flushBatch + 10
	for i := range machines {
		b.register(fmt.Sprint("m", i))
	}
	for range 3 {
		for i := range machines {
			b.Touch(fmt.Sprint("m", i), ContactPush, "v1.7.8")
		}
	}
	b.Touch("nobody", ContactPush, "")
	b.Touch("m1", contactKinds, "") // no such kind
	wantError(t, b.flush(t.Context()), "", "")
	if got := len(b.store.touches); got != machines {
		t.Fatalf("%d touches written, want one for each of %d machines", got, machines)
	}
	if m := b.store.machines["m7"]; !m.Seen.Push.Equal(b.clock.now()) || !m.Seen.Pull.IsZero() || m.Version != "v1.7.8" {
		t.Fatalf("stored machine: %+v", m)
	}

	// Within a minute a contact is only remembered.
	pushed := b.clock.now()
	b.clock.advance(saveAfter - time.Second)
	b.Touch("m7", ContactPush, "v1.7.8")
	wantError(t, b.flush(t.Context()), "", "")
	if m := b.store.machines["m7"]; !m.Seen.Push.Equal(pushed) {
		t.Fatalf("a contact %v after the stored one was written", saveAfter-time.Second)
	}
	if m, _ := b.Machine("m7"); !m.Seen.Push.Equal(b.clock.now()) {
		t.Fatalf("memory has %v, want %v", m.Seen.Push, b.clock.now())
	}
	// A new kind, a new version and a minute's age go at once.
	b.Touch("m7", ContactPull, "")
	b.Touch("m8", ContactPush, "v1.7.9")
	b.clock.advance(time.Second)
	b.Touch("m9", ContactPush, "")
	wantError(t, b.flush(t.Context()), "", "")
	if b.store.machines["m7"].Seen.Pull.IsZero() || b.store.machines["m8"].Version != "v1.7.9" || b.store.machines["m9"].Seen.Push.Equal(pushed) {
		t.Fatal("a new kind, a new version or a contact after a minute was not written")
	}
}

func TestFlushKeepsWhatFailed(t *testing.T) {
	b := newRig(t)
	b.register(machineID)
	_, err := b.Login(t.Context(), Login{MachineID: machineID, Password: strongPassword, Scenarios: []string{"a/b"}, UserAgent: "crowdsec/v1"})
	wantError(t, err, "", "")
	b.store.setFail(errors.New("away"))
	if err := b.flush(t.Context()); err == nil {
		t.Fatal("the failing flush gave no error")
	}
	b.store.setFail(nil)
	wantError(t, b.flush(t.Context()), "", "")
	if m := b.store.machines[machineID]; m.Version != "v1" || !slices.Equal(m.Scenarios, []string{"a/b"}) || m.Seen.Login.IsZero() {
		t.Fatalf("stored machine: %+v", m)
	}
	touches := len(b.store.touches)
	wantError(t, b.flush(t.Context()), "", "")
	if len(b.store.touches) != touches {
		t.Fatal("what was written is written again")
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRig(t, func(c *Config) { c.Now = time.Now })
		b.register(machineID)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		stored := func() muster.Machine { m, _ := b.store.Machine(t.Context(), machineID); return m }

		first := time.Now()
		b.Touch(machineID, ContactPush, "")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := stored().Seen.Push; !got.Equal(first.Truncate(time.Microsecond)) {
			t.Fatalf("after 5 s the store has %v, want %v", got, first)
		}

		// Another node accepts; the bell is lost; the comparison finds it.
		_, err := b.store.UpdateMachine(t.Context(), machineID, func(m *muster.Machine) error {
			m.State, m.Organisation, m.TokensFrom = muster.Active, "org-a", time.Now()
			return nil
		})
		wantError(t, err, "", "")
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got := b.Counts().Active; got != 1 {
			t.Fatalf("after the comparison %d machines are active, want 1", got)
		}

		// The end writes even what is younger than a minute.
		b.Touch(machineID, ContactPush, "")
		time.Sleep(30 * time.Second)
		last := time.Now()
		b.Touch(machineID, ContactPush, "")
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := stored().Seen.Push; !got.Equal(last.Truncate(time.Microsecond)) {
			t.Fatalf("at the end the store has %v, want %v", got, last)
		}
	})
}

func TestVersionOf(t *testing.T) {
	for agent, want := range map[string]string{
		"crowdsec/v1.7.8-linux":                     "v1.7.8",
		"crowdsec/v1.4.6-6~deb12u1+b1-linux-debian": "v1.4.6",
		"pre-capi-py-sdk/0.0.3":                     "pre-capi-py-sdk/0.0.3",
		"csphpcapi_wordpress/v3.5.2":                "csphpcapi_wordpress/v3.5.2",
		"curl/8 (x)":                                "curl/8",
		"":                                          "",
		"a\x1b[31m":                                 "a",
		strings.Repeat("x", 100):                    strings.Repeat("x", 64),
	} {
		if got := versionOf(agent); got != want {
			t.Errorf("%q: got %q, want %q", agent, got, want)
		}
	}
}

// Equal footprints are held once, for as long as a machine has them, and their
// memory is bounded.
func TestFootprintsAreShared(t *testing.T) {
	b := newRig(t)
	declare := func(id string, scenarios ...string) []string {
		t.Helper()
		_, err := b.Login(t.Context(), Login{MachineID: id, Password: strongPassword, Scenarios: scenarios})
		wantError(t, err, "", "")
		m, _ := b.Machine(id)
		return m.Scenarios
	}
	b.register("one")
	b.register("two")
	one, two := declare("one", "x", "y"), declare("two", "y", "x")
	if &one[0] != &two[0] {
		t.Fatal("two machines hold one footprint twice")
	}
	declare("one", "z")
	declare("two", "z")
	if f := &b.directory.footprints; len(f.held) != 1 || f.bytes != 17 {
		t.Fatalf("%d footprints of %d bytes are held, want 1 of 17", len(f.held), f.bytes)
	}
	b.directory.footprints.bytes = maxFootprints
	if got := declare("one", "w"); len(got) != 0 {
		t.Fatalf("a footprint over the bound was taken: %v", got)
	}
	if got := declare("one", "z"); !slices.Equal(got, []string{"z"}) {
		t.Fatalf("a shared footprint was refused at the bound: %v", got)
	}
}

func TestTokenCacheIsBounded(t *testing.T) {
	c := newTokenCache(2 * 32 * 4) // 4 per generation and shard
	for i := range 10_000 {
		c.put(tokenDigest(fmt.Sprint(i)), grant{epoch: int64(i)}, c.generation())
	}
	held := 0
	for i := range c.shards {
		held += len(c.shards[i].young) + len(c.shards[i].old)
	}
	if held > 2*32*4 {
		t.Fatalf("%d tokens are held, want at most %d", held, 2*32*4)
	}
	if g, ok := c.get(tokenDigest("9999")); !ok || g.epoch != 9999 {
		t.Fatalf("the newest token: got %+v, %v", g, ok)
	}
	before := c.generation()
	c.clear()
	if _, ok := c.get(tokenDigest("9999")); ok {
		t.Fatal("a token outlived clear")
	}
	// What was verified with keys that have gone must not come in late.
	c.put(tokenDigest("late"), grant{}, before)
	if _, ok := c.get(tokenDigest("late")); ok {
		t.Fatal("a token that was verified before clear came in after it")
	}
}

func TestTokenInUseStaysCached(t *testing.T) {
	c := newTokenCache(2 * 32 * 4)
	used := tokenDigest("used")
	c.put(used, grant{epoch: 1}, c.generation())
	for i := range 10_000 {
		c.put(tokenDigest(fmt.Sprint(i)), grant{}, c.generation())
		if _, ok := c.get(used); !ok {
			t.Fatalf("the token in use was forgotten after %d others", i)
		}
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	b := newRig(t, func(c *Config) { c.Registerer = reg })
	b.activate("one", "org-a")
	b.register("two")
	token := b.login("one")
	for range 3 {
		_, err := b.Authenticate(t.Context(), token.Text)
		wantError(t, err, "", "")
	}
	wantRefused(t, b.Service, "x")
	_, err := b.Login(t.Context(), Login{MachineID: "one", Password: "wrong horse"})
	wantError(t, err, muster.Unauthorized, "")
	err = testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP muster_active_organisations Organisations that have an active machine.
# TYPE muster_active_organisations gauge
muster_active_organisations 1
# HELP muster_logins_total Logins of machines.
# TYPE muster_logins_total counter
muster_logins_total{outcome="ok"} 1
muster_logins_total{outcome="unauthorized"} 1
# HELP muster_machines Machines by state of their enrolment.
# TYPE muster_machines gauge
muster_machines{state="active"} 1
muster_machines{state="blocked"} 0
muster_machines{state="pending"} 1
# HELP muster_token_refusals_total Requests refused for their token.
# TYPE muster_token_refusals_total counter
muster_token_refusals_total 1
# HELP muster_token_verifications_total Tokens whose signature was verified because they were not remembered.
# TYPE muster_token_verifications_total counter
muster_token_verifications_total 1
`), "muster_active_organisations", "muster_logins_total", "muster_machines", "muster_token_refusals_total", "muster_token_verifications_total")
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
}

// Everything at once, for the race detector; and at the end memory and store
// agree.
func TestConcurrency(t *testing.T) {
	b := newRig(t)
	for i := range 8 {
		b.register(fmt.Sprint("m", i))
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		id := fmt.Sprint("m", worker)
		wg.Go(func() {
			for round := range 10 {
				scenarios := []string{fmt.Sprint("s", round%3)}
				token, err := b.Login(t.Context(), Login{MachineID: id, Password: strongPassword, Scenarios: scenarios, UserAgent: "crowdsec/v1"})
				if err == nil {
					_, _ = b.Authenticate(t.Context(), token.Text) // may be revoked meanwhile
				}
				b.Touch(id, ContactPush, fmt.Sprint("v", round))
				b.Machine(id)
			}
		})
		wg.Go(func() {
			for round := range 10 {
				var err error
				switch round % 5 {
				case 0:
					err = b.Accept(t.Context(), id, "org-a")
				case 1:
					err = b.flush(t.Context())
				case 2:
					err = b.Release(t.Context(), id)
				case 3:
					err = b.resync(t.Context())
				case 4:
					err = b.Rotate(t.Context())
				}
				if err != nil && muster.CodeOf(err) == "" {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantError(t, b.flush(t.Context()), "", "")
	for id, stored := range b.store.machines {
		got, _ := b.Machine(id)
		got.Seen, stored.Seen = muster.Contacts{}, muster.Contacts{}
		if diff := cmp.Diff(stored, got); diff != "" {
			t.Errorf("%s (-store +memory):\n%s", id, diff)
		}
	}
}

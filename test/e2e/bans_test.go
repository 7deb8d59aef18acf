package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/internal/testkit"
)

// allowed is how many logins a free engine's address may make.
const allowed = 20

// site is Muster with three engines that are other clients to it each:
//
//	looping  not enrolled; restarted again and again, each time without its data
//	probing  not enrolled; a health check runs cscli capi status beside it
//	good     of an organisation that is limited as those are
type site struct {
	muster                 *testkit.Muster
	looping, probing, good *testkit.Engine
	log                    string    // of looping, all its lives in one, as container hosts keep it
	until                  time.Time // looping's ban ends, as of the 21st login
}

// TestBans is what a shared Central API does about engines that log in too
// often, and what their people get to see of it. Its steps build on one another.
func TestBans(t *testing.T) {
	if testing.Short() {
		t.Skip("real engines take a minute: skipped with -short")
	}
	t.Parallel()
	hub := testkit.StartHub(t)
	kit := testkit.Crowdsec{Hub: hub, Guard: testkit.StartGuard(t)}
	s := &site{looping: kit.NewEngine(t, "looping"), probing: kit.NewEngine(t, "probing"), good: kit.NewEngine(t, "good")}
	s.log = filepath.Join(s.looping.Dir, "docker.log")
	s.muster = testkit.NewMuster(t, "MUSTER_HUB__INDEX="+hub.Index, "MUSTER_LOG__LEVEL=debug", "MUSTER_LOG__FORMAT=json",
		"MUSTER_RATELIMIT__APPEAL=abuse@muster.example")
	s.muster.Start(t)
	for e, from := range map[*testkit.Engine]string{s.looping: "127.0.0.11", s.probing: "127.0.0.12", s.good: "127.0.0.13"} {
		e.Relay = testkit.NewRelay(t, s.muster, from)
	}
	free := s.muster.Organisation(t, "Free", "--plan", "COMMUNITY")
	s.muster.Join(t, s.good, "--key", s.muster.EnrolmentKey(t, free))
	s.good.Start(t)
	s.muster.Join(t, s.looping)
	s.muster.Join(t, s.probing)

	for _, step := range []struct {
		name string
		run  func(*site, *testing.T)
	}{
		{"an engine in a restart loop is banned at the 21st login", restartLoop},
		{"an engine whose health check logs in is banned at the 21st login", healthCheck},
		{"a banned engine that runs is refused, and its log says why", running},
		{"a retry begins the ban anew", retry},
		{"cscli capi status shows the ban", bannedStatus},
		{"muster doctor explains the ban on the engine's machine", doctorThere},
		{"the server's operator sees who is banned and why", operator},
		{"a ban that is lifted is over", lifted},
		{"a well-behaved engine has noticed nothing", unnoticed},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(s, t) }) {
			return
		}
	}
}

// served returns how many requests of an engine for a route Muster has answered
// with 200.
func (s *site) served(e *testkit.Engine, route string) (n int) {
	for line := range strings.Lines(s.muster.Output()) {
		var l struct {
			Route, Peer string
			Status      int
		}
		if json.Unmarshal([]byte(line), &l) == nil && l.Route == route && l.Status == 200 && l.Peer == e.Relay.From.String() {
			n++
		}
	}
	return n
}

func (s *site) logins(e *testkit.Engine) int { return s.served(e, "POST /v3/watchers/login") }
func (s *site) pulls(e *testkit.Engine) int  { return s.served(e, "GET /v3/decisions/stream") }

// works lets good do what a well-behaved engine does now and then: it reports an
// attack, and somebody looks at its status.
func (s *site) works(t *testing.T, attacker netip.Addr) {
	t.Helper()
	s.good.Feed(t, testkit.ApacheLog, testkit.AttackLog(t, "apache-http-probing.log", attacker, time.Now()))
	expect(t, s.good.Cscli(t, "capi", "status"), "You can successfully interact with Central API (CAPI)", "Subscription type: COMMUNITY")
}

// live is one life of looping, in a fresh container: it ends when Muster has
// served one more of something, or else by itself. Its log goes where that of the
// ones before is.
func (s *site) live(t *testing.T, served func(*testkit.Engine) int) (exited string) {
	t.Helper()
	before := served(s.looping)
	s.looping.ForgetAll(t)
	s.looping.Launch(t)
	testkit.Eventually(t, 40*time.Second, "looping has been served or ended", func() string {
		exited = s.looping.Exited()
		if exited == "" && served(s.looping) == before {
			return "neither"
		}
		return ""
	})
	if exited == "" {
		s.looping.Kill()
	}
	f, err := os.OpenFile(s.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(s.looping.Output())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return exited
}

// fatal expects that looping gave up for a ban, and said so.
func (s *site) fatal(t *testing.T, exited string) {
	t.Helper()
	if exited != "ended: exit status 1" {
		t.Errorf("expected the engine to exit with status 1, got %q", exited)
	}
	for line := range strings.Lines(s.looping.Output()) {
		if strings.Contains(line, "level=fatal") {
			expect(t, line, "authenticate watcher", "banned: "+s.looping.Relay.From.String()+" is not served until ", "more than 20 logins in 50 minutes")
			return
		}
	}
	t.Errorf("expected a line at level fatal in:\n%s", s.looping.Output())
}

func restartLoop(s *site, t *testing.T) {
	for served := s.logins(s.looping); served < allowed; served++ {
		until := s.logins // most die young, some when they had the first list
		if served%9 == 1 {
			until = s.pulls
		}
		if exited := s.live(t, until); exited != "" {
			t.Fatalf("expected login %d to be served, and the engine to run; it %s", served+1, exited)
		}
		if n := s.logins(s.looping); n != served+1 {
			t.Fatalf("expected start %d to be one login, got %d", served, n-served)
		}
		if served%7 == 6 {
			s.works(t, netip.AddrFrom4([4]byte{185, 220, 102, byte(served)}))
		}
	}
	s.fatal(t, s.live(t, s.logins))
	if n := s.logins(s.looping); n != allowed {
		t.Errorf("expected %d logins to be served, got %d", allowed, n)
	}
	s.until = s.ban(t, s.looping).Until
	if in := time.Until(s.until); in < 59*time.Minute || in > time.Hour {
		t.Errorf("expected a ban for an hour, got one until %s, in %s", s.until, in)
	}
}

// banned returns when looping was banned.
func (s *site) banned() time.Time { return s.until.Add(-time.Hour) }

// ban is what `muster admin ban show` says.
type ban struct {
	Address, Reason, Limit string
	Until                  time.Time
	Findings               []struct{ Kind, Machine, Address, Summary, Fix string }
}

func (s *site) ban(t *testing.T, e *testkit.Engine) ban {
	t.Helper()
	var b ban
	s.muster.Query(t, &b, "admin", "ban", "show", e.Relay.From.String())
	return b
}

func healthCheck(s *site, t *testing.T) {
	s.probing.Start(t)
	for served := s.logins(s.probing); served < allowed; served++ {
		expect(t, s.probing.Cscli(t, "capi", "status"), "You can successfully interact with Central API (CAPI)")
		if n := s.logins(s.probing); n != served+1 {
			t.Fatalf("expected a health check to be one login, got %d", n-served)
		}
	}
	if out, err := s.probing.TryCscli(t, "capi", "status"); err == nil {
		t.Fatalf("expected login %d to be refused, got:\n%s", allowed+1, out)
	}
	if n := s.logins(s.probing); n != allowed {
		t.Errorf("expected %d logins to be served, got %d", allowed, n)
	}
	b := s.ban(t, s.probing)
	if len(b.Findings) == 0 || b.Findings[0].Kind != "status-probe" {
		t.Errorf("expected a status probe, got %+v", b)
	}
	expect(t, b.Reason, "more than 20 logins in 50 minutes", "cscli lapi status instead of cscli capi status")
	s.works(t, lateFind)
	s.probing.Feed(t, testkit.ApacheLog, testkit.AttackLog(t, "apache-http-probing.log", unheard, time.Now()))
}

var (
	lateFind = netip.MustParseAddr("185.220.102.77") // good reports it while the others are banned
	unheard  = netip.MustParseAddr("185.220.103.1")  // and probing in vain
)

// running: the ban is for all of the Central API, and the engine's log says why.
func running(s *site, t *testing.T) {
	testkit.Eventually(t, 30*time.Second, "the banned engine logs that its signals are refused", func() string {
		if strings.Contains(s.probing.Output(), "API error: banned: 127.0.0.12 is not served until ") {
			return ""
		}
		return "not yet"
	})
	if how := s.probing.Exited(); how != "" {
		t.Errorf("expected the engine to go on, it %s", how)
	}
	log := filepath.Join(s.probing.Dir, "engine.log")
	if err := os.WriteFile(log, []byte(s.probing.Output()), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, s.doctor(t, 1, "--engine-config", s.probing.Config, "--engine-log", log),
		"critical: The Central API refuses every call from this address (127.0.0.12) until ", "info: The Central API refused this address", "cscli lapi status")
}

func retry(s *site, t *testing.T) {
	// What comes at once is the engine's own repeating of a refused call.
	testkit.Eventually(t, 20*time.Second, "a while has passed", func() string {
		if time.Since(s.banned()) < 12*time.Second {
			return "not yet"
		}
		return ""
	})
	s.fatal(t, s.live(t, s.logins))
	if b := s.ban(t, s.looping); !b.Until.After(s.until) {
		t.Errorf("expected the ban to end after %s, got %s", s.until, b.Until)
	}
}

func bannedStatus(s *site, t *testing.T) {
	out, err := s.looping.TryCscli(t, "capi", "status")
	if err == nil {
		t.Fatalf("expected cscli to fail, got:\n%s", out)
	}
	expect(t, err.Error(), "failed to authenticate to Central API (CAPI)", "banned: 127.0.0.11 is not served until "+time.Now().UTC().Format("2006-"),
		"more than 20 logins in 50 minutes", "it restarts again and again", "every retry begins the time anew",
		s.muster.URL+"/api/v1/ban", "abuse@muster.example")
}

// doctor runs muster doctor, which is to end with status.
func (s *site) doctor(t *testing.T, status int, args ...string) string {
	t.Helper()
	out, err := s.muster.TryRun(t, nil, append([]string{"doctor"}, args...)...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if got != status {
		t.Errorf("expected muster doctor to end with status %d, got %d", status, got)
	}
	return out
}

func doctorThere(s *site, t *testing.T) {
	before := s.ban(t, s.looping).Until
	out := s.doctor(t, 1, "--engine-config", s.looping.Config, "--engine-log", s.log)
	expect(t, out,
		"critical: The Central API refuses every call from this address (127.0.0.11) until ", "from now): ",
		"more than 20 logins in 50 minutes", "Stop the engine (systemctl stop crowdsec, or docker stop)", "every call starts the ban again",
		"critical: The engine called again ", "it goes on",
		"The engine (v1.7.8", "was started 21 times within", "keep its data directory on a volume",
		"to see it without prolonging it: ", "to have it lifted: abuse@muster.example")
	if after := s.ban(t, s.looping).Until; !after.Equal(before) {
		t.Errorf("expected muster doctor not to prolong the ban, which ends at %s instead of %s", after, before)
	}
}

func operator(s *site, t *testing.T) {
	loop := s.ban(t, s.looping)
	if len(loop.Findings) == 0 || loop.Findings[0].Kind != "restart-loop" || loop.Findings[0].Machine == "" {
		t.Errorf("expected a restart loop, got %+v", loop)
	}
	expect(t, s.muster.Admin(t, "admin", "ban", "show", "127.0.0.11"), "more than 20 logins in 50 minutes", "restart-loop: machine ", "starts 1h anew", "muster admin ban lift 127.0.0.11")
	expect(t, s.muster.Admin(t, "admin", "ban", "list"), "127.0.0.11", "127.0.0.12", "more than 20 logins in 50 minutes", "it restarts again and again", "a health check does that")
	expect(t, s.doctor(t, 1, "--data-dir", s.muster.DataDir), "It refuses 2 addresses (muster admin ban list): 127.0.0.11, 127.0.0.12.",
		loop.Findings[0].Summary, "about every ", "cscli lapi status")
}

func lifted(s *site, t *testing.T) {
	expect(t, s.muster.Admin(t, "admin", "ban", "lift", "127.0.0.11", "--reason", "its container has a volume now"), "Ban of 127.0.0.11 lifted", "muster admin finding list")
	s.looping.ForgetAll(t) // for the last time
	s.looping.Start(t)
	expect(t, s.looping.Cscli(t, "capi", "status"), "You can successfully interact with Central API (CAPI)")
	expect(t, s.doctor(t, 1, "--engine-config", s.looping.Config, "--engine-log", s.log), "it says that this is over", "does not refuse this address (127.0.0.11)")
	var audit struct {
		Entries []struct{ Action, Subject, Reason, By string }
	}
	s.muster.Query(t, &audit, "admin", "audit", "list", "--action", "ban")
	if len(audit.Entries) != 1 || audit.Entries[0].Action != "ban.lift" || audit.Entries[0].Subject != "127.0.0.11/32" ||
		audit.Entries[0].Reason != "its container has a volume now" || audit.Entries[0].By == "" {
		t.Errorf("expected the lift with its reason, got %+v", audit)
	}
	// The other one's ban is its own.
	if _, err := s.probing.TryCscli(t, "capi", "status"); err == nil {
		t.Error("expected probing to be banned still")
	}
}

// seen returns when good made contact last.
func (s *site) seen(t *testing.T) (c struct{ Login, Pull, Push time.Time }) {
	t.Helper()
	m := struct{ Seen any }{&c}
	s.muster.Query(t, &m, "admin", "machine", "show", "good")
	return c
}

func unnoticed(s *site, t *testing.T) {
	var alerts []alert
	testkit.Eventually(t, 30*time.Second, "what good reports has arrived", func() string {
		s.muster.Query(t, &alerts, "admin", "alert", "list")
		late := slices.ContainsFunc(alerts, func(a alert) bool { return a.Source == lateFind.String() && a.Counts })
		if pushed := s.seen(t).Push; late && pushed.After(s.banned()) {
			return ""
		}
		return fmt.Sprintf("%+v", alerts)
	})
	if slices.ContainsFunc(alerts, func(a alert) bool { return a.Source == unheard.String() }) {
		t.Errorf("expected nothing from a banned engine, got %+v", alerts)
	}
	expect(t, s.good.Cscli(t, "capi", "status"), "You can successfully interact with Central API (CAPI)", "Subscription type: COMMUNITY")
	logins, output := s.logins(s.good), s.good.Output()
	s.good.Restart(t) // with its data: that takes no login
	testkit.Eventually(t, 30*time.Second, "good has pulled", func() string {
		if pulled := s.seen(t).Pull; !pulled.After(s.banned()) {
			return fmt.Sprintf("last at %s, before %s", pulled, s.banned())
		}
		return ""
	})
	if n := s.logins(s.good); n != logins {
		t.Errorf("expected no login after %d, got %d", logins, n-logins)
	}
	output += s.good.Output()
	for _, word := range []string{"code 403", "banned", "API error", "attempt "} {
		if strings.Contains(output, word) {
			t.Errorf("%q is in the log of the engine that did nothing wrong", word)
		}
	}
	var found []struct{ Kind string }
	for _, about := range [][2]string{{"--machine", "good"}, {"--address", "127.0.0.13"}} {
		if s.muster.Query(t, &found, "admin", "finding", "list", about[0], about[1]); len(found) != 0 {
			t.Errorf("expected nothing to be found about good, got %+v", found)
		}
	}
}

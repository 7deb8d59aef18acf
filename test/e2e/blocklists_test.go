package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/internal/testkit"
)

// What is on lists. All are public addresses, for Muster sends no others.
const (
	listed     = "185.220.101.90"
	listed6    = "2a0b:f4c2::90"
	listedIn   = "185.220.106.9" // in listedAll
	listedAll  = "185.220.106.0/24"
	listedToo  = "185.220.101.91"
	partner    = "185.220.101.92" // that the first organisation allows
	manyBehind = "185.220.101.93" // convicted, and many people sit behind it
	fed        = "185.220.101.94"
	fedNext    = "185.220.101.95"
	fedAll     = "185.220.107.0/24"
)

// subscribers is Muster with engines that subscribe to lists:
//
//	a   of the first organisation, tagged web, which takes orders
//	b   of the second, which takes none
//	c   as a, without the tag, and told to leave additional lists alone
type subscribers struct {
	muster  *testkit.Muster
	feed    atomic.Pointer[string] // what somebody else publishes
	feedURL string
	a, b, c *testkit.Engine
	first   string
	since   time.Time // from when on the lists are as they are
}

// TestBlocklists is what engines do with the lists that they subscribe to. Its
// steps build on one another.
func TestBlocklists(t *testing.T) {
	if testing.Short() {
		t.Skip("real engines take two minutes: skipped with -short")
	}
	t.Parallel()
	hub := testkit.StartHub(t)
	kit := testkit.Crowdsec{Hub: hub, Guard: testkit.StartGuard(t)}
	n := &subscribers{a: kit.NewEngine(t, "a"), b: kit.NewEngine(t, "b"), c: kit.NewEngine(t, "c")}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, *n.feed.Load()) // Muster hung up
	}))
	t.Cleanup(srv.Close)
	n.feedURL = srv.URL
	n.muster = testkit.NewMuster(t, "MUSTER_HUB__INDEX="+hub.Index, "MUSTER_LOG__LEVEL=debug", "MUSTER_BLOCKLISTS__PRIVATE_FEEDS=true")
	n.muster.Start(t)
	n.first = n.muster.Organisation(t, "First")
	second := n.muster.Organisation(t, "Second", "--plan", "COMMUNITY")
	key := n.muster.EnrolmentKey(t, n.first)
	n.a.Relay, n.c.Relay = testkit.NewRelay(t, n.muster, "127.0.0.2"), testkit.NewRelay(t, n.muster, "127.0.0.3")
	n.muster.Join(t, n.a, "--key", key, "--tag", "web")
	n.muster.Join(t, n.b, "--key", n.muster.EnrolmentKey(t, second))
	n.muster.Join(t, n.c, "--key", key)
	refuseLists(t, n.c)
	for _, e := range []*testkit.Engine{n.a, n.b, n.c} {
		e.Start(t)
	}
	testkit.Eventually(t, 30*time.Second, "a polls for orders", func() string {
		if status, err := n.a.TryCscli(t, "papi", "status"); err != nil || !strings.Contains(status, "management") {
			return fmt.Sprintf("%s %v", status, err)
		}
		return ""
	})
	for _, step := range []struct {
		name string
		run  func(*subscribers, *testing.T)
	}{
		{"an order brings a list of addresses and ranges", ordersBring},
		{"bouncers are told of the ranges", bouncersAreTold},
		{"a tag brings a list of captchas", tagBrings},
		{"a feed is fetched, and brought", feedBrings},
		{"without orders the next pull brings lists", pullBrings},
		{"an engine that wants no additional lists gets none", noneWanted},
		{"what changes arrives with an order", changesArrive},
		{"what has not changed is not sent again", notSentAgain},
		{"a machine that loses its tag drops the list", tagLost},
		{"who ends a subscription drops the list", unsubscribed},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(n, t) }) {
			return
		}
	}
}

// refuseLists has an engine ask for the community list alone.
func refuseLists(t *testing.T, e *testkit.Engine) {
	t.Helper()
	text, err := os.ReadFile(e.Config)
	if err != nil {
		t.Fatal(err)
	}
	const before, after = "/online_api_credentials.yaml}", "/online_api_credentials.yaml, pull: {community: true, blocklists: false}}"
	if strings.Count(string(text), before) != 1 {
		t.Fatalf("expected %q once in:\n%s", before, text)
	}
	if err := os.WriteFile(e.Config, []byte(strings.Replace(string(text), before, after, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (n *subscribers) admin(t *testing.T, args ...string) {
	t.Helper()
	n.muster.Admin(t, append([]string{"admin"}, args...)...)
}

// fromLists returns what an engine has from lists: list, remedy, scope and value.
func fromLists(t *testing.T, e *testkit.Engine) (all []string) {
	t.Helper()
	for _, d := range e.Decisions(t) {
		if d.Origin == "lists" {
			all = append(all, strings.Join([]string{d.Scenario, d.Type, d.Scope, d.Value}, " "))
		}
	}
	slices.Sort(all)
	return all
}

// holds waits until an engine has exactly this from lists.
func holds(t *testing.T, e *testkit.Engine, want ...string) {
	t.Helper()
	slices.Sort(want)
	testkit.Eventually(t, 45*time.Second, fmt.Sprintf("%s has %q from lists", e.Name, want), func() string {
		if how := e.Exited(); how != "" {
			t.Fatalf("%s %s\n%s", e.Name, how, e.Output())
		}
		if got := fromLists(t, e); !slices.Equal(got, want) {
			return fmt.Sprintf("%q", got)
		}
		return ""
	})
}

var (
	office  = []string{"office ban Ip " + listed, "office ban Ip " + listed6, "office-ranges ban Range " + listedAll}
	shared  = []string{"muster-shared-sources captcha Ip " + manyBehind}
	drop    = []string{"drop ban Ip " + fed, "drop-ranges ban Range " + fedAll}
	changed = append([]string{"office ban Ip " + listedToo}, office...)
)

func ordersBring(n *subscribers, t *testing.T) {
	n.admin(t, "blocklist", "create", "office")
	n.admin(t, "blocklist", "entries", "add", "office", listed, listed6, listedAll, partner, "--comment", "seen by the office")
	n.admin(t, "allowlist", "create", "partners", "--org", "First")
	n.admin(t, "allowlist", "add", "partners", "--org", "First", partner)
	n.admin(t, "subscription", "add", "office", "--org", "First")
	holds(t, n.a, office...)
}

// bouncersAreTold asks an engine as bouncers do, about one address and for
// everything. Many of those that fetch everything take a range only for what is
// called one.
func bouncersAreTold(n *subscribers, t *testing.T) {
	config, err := os.ReadFile(n.a.Config)
	if err != nil {
		t.Fatal(err)
	}
	listen := regexp.MustCompile(`listen_uri: (\S+)`).FindStringSubmatch(string(config))
	if listen == nil {
		t.Fatalf("expected where the local API listens in:\n%s", config)
	}
	url, key := "http://"+listen[1], strings.TrimSpace(n.a.Cscli(t, "bouncers", "add", "reader", "-o", "raw"))
	bouncer := testkit.GoBouncer(t)
	for addr, want := range map[string]string{listed: listed, listed6: listed6, listedIn: listedAll, partner: "", listedToo: ""} {
		out, err := exec.Command(bouncer, "live", url+"/", key, addr).Output()
		var d toldDecision
		if err == nil && len(out) > 0 {
			err = json.Unmarshal(out, &d)
		}
		if err != nil || d.Value != want || want != "" && (d.Type != "ban" || d.Origin != "lists") {
			t.Errorf("%s: got %s, %v", addr, out, err)
		}
	}
	text := curl(t, "--header", "X-Api-Key: "+key, url+"/v1/decisions/stream?startup=true")
	var stream struct{ New []toldDecision }
	if err := json.Unmarshal([]byte(text), &stream); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	var told []string
	for _, d := range stream.New {
		if d.Origin != "lists" {
			continue
		}
		if told = append(told, d.Value); (d.Scope == "Range") != strings.Contains(d.Value, "/") {
			t.Errorf("%s is told as %s", d.Value, d.Scope)
		}
	}
	slices.Sort(told)
	if want := []string{listed, listedAll, listed6}; !slices.Equal(told, want) {
		t.Errorf("expected that a bouncer is told of %q, got %q", want, told)
	}
}

func tagBrings(n *subscribers, t *testing.T) {
	// Whom many people share is on no list of bans.
	n.admin(t, "verdict", "set", manyBehind, "--listed", "--remedy", "captcha", "--ttl", "12h", "--reason", "a test")
	testkit.Eventually(t, 20*time.Second, "it is on the list", func() string {
		var list struct{ Size int }
		n.muster.Query(t, &list, "admin", "blocklist", "show", "muster-shared-sources")
		if list.Size == 1 {
			return ""
		}
		return fmt.Sprint(list.Size)
	})
	n.admin(t, "subscription", "add", "muster-shared-sources", "--tag", "web", "--org", "First")
	holds(t, n.a, slices.Concat(office, shared)...)
}

func (n *subscribers) publish(lines ...string) {
	text := strings.Join(lines, "\n") + "\n"
	n.feed.Store(&text)
}

func feedBrings(n *subscribers, t *testing.T) {
	n.publish("# by somebody else", fed+" ; SBL1", "127.0.0.1", partner, fedAll)
	n.admin(t, "blocklist", "feed", "add", "drop", n.feedURL)
	n.admin(t, "blocklist", "feed", "fetch-now", "drop")
	n.admin(t, "subscription", "add", "drop", "--org", "First")
	n.since = time.Now()
	holds(t, n.a, slices.Concat(office, shared, drop)...)
}

func pullBrings(n *subscribers, t *testing.T) {
	n.admin(t, "subscription", "add", "drop", "--org", "Second")
	if got := fromLists(t, n.b); len(got) > 0 {
		t.Errorf("b takes no orders, and has %q", got)
	}
	n.b.Restart(t)
	holds(t, n.b, "drop ban Ip "+fed, "drop ban Ip "+partner, "drop-ranges ban Range "+fedAll) // the second allows nobody
}

func noneWanted(n *subscribers, t *testing.T) {
	// Orders to read a list came, and were carried out: nobody asks the engine's
	// settings then. So what it has is taken away first.
	holds(t, n.c, slices.Concat(office, drop)...)
	n.c.Cscli(t, "decisions", "delete", "--all")
	before := len(pulls(t, n.c))
	n.muster.Admin(t, "order", "pull", "--machine", "c")
	testkit.Eventually(t, 20*time.Second, "c pulls", func() string {
		if len(pulls(t, n.c)) == before {
			return "not yet"
		}
		return ""
	})
	for _, links := range pulls(t, n.c) {
		if len(links) > 0 {
			t.Errorf("c asks for no additional lists, and was given %+v", links)
		}
	}
	if got := fromLists(t, n.c); len(got) > 0 {
		t.Errorf("c asks for no additional lists, and has %q", got)
	}
}

// link is a link to a list.
type link struct{ Name, URL, Remediation, Scope, Duration string }

// pulls returns the links to lists of each pull of an engine so far.
func pulls(t *testing.T, e *testkit.Engine) (all [][]link) {
	t.Helper()
	for _, x := range e.Relay.Exchanges(t) {
		if !strings.HasSuffix(x.Path, "/decisions/stream") || x.Status != http.StatusOK {
			continue
		}
		var answer struct{ Links struct{ Blocklists []link } }
		if err := json.Unmarshal(x.Body, &answer); err != nil {
			t.Fatalf("%v: %s", err, x.Body)
		}
		all = append(all, answer.Links.Blocklists)
	}
	return all
}

// served counts the lists that were sent so far.
func (n *subscribers) served(t *testing.T) float64 {
	t.Helper()
	return n.muster.Metric(t, `muster_blocklist_links_total{answer="list"}`)
}

func changesArrive(n *subscribers, t *testing.T) {
	n.admin(t, "blocklist", "entries", "add", "office", listedToo)
	n.publish(fed, fedNext, partner, fedAll)
	n.admin(t, "blocklist", "feed", "fetch-now", "drop")
	n.since = time.Now()
	n.muster.Admin(t, "order", "pull", "--machine", "a")
	holds(t, n.a, slices.Concat(changed, shared, drop, []string{"drop ban Ip " + fedNext})...)
	n.nothingAllowed(t)
	// What is taken off stays for the list's lifetime, unless it is to go at once.
	n.admin(t, "blocklist", "entries", "remove", "office", listedToo, "--at-once")
	n.since = time.Now()
	holds(t, n.a, slices.Concat(office, shared, drop, []string{"drop ban Ip " + fedNext})...)
}

// nothingAllowed reads what the links of a's last pull lead to: what the
// organisation allows is not there, though it is on both lists.
func (n *subscribers) nothingAllowed(t *testing.T) {
	t.Helper()
	all := pulls(t, n.a)
	var got []string
	for _, l := range all[len(all)-1] {
		body := curl(t, "--compressed", "--fail", l.URL)
		got = append(got, strings.Join(strings.Fields(l.Name+" "+l.Remediation+" "+l.Scope+" "+body), " "))
	}
	// Bans come last, so that they win over captchas of the same address.
	want := []string{
		"muster-shared-sources captcha ip " + manyBehind,
		"drop ban ip " + fed + " " + fedNext, "drop-ranges ban range " + fedAll,
		"office ban ip " + listed + " " + listedToo + " " + listed6, "office-ranges ban range " + listedAll,
	}
	if !slices.Equal(got, want) {
		t.Errorf("expected the links to lead to %q, got %q", want, got)
	}
}

func notSentAgain(n *subscribers, t *testing.T) {
	// Engines say when they read a list last by their own clocks, and downloads
	// take a while: within a minute after a change lists are sent again.
	testkit.Eventually(t, 90*time.Second, "the lists have been as they are for a minute", func() string {
		return map[bool]string{true: "not yet"}[time.Since(n.since) < 65*time.Second]
	})
	before := n.served(t)
	n.muster.Admin(t, "order", "pull", "--machine", "a") // all of them, whatever it has
	testkit.Eventually(t, 20*time.Second, "a reads its lists again", func() string {
		if got := n.served(t) - before; got < 5 {
			return fmt.Sprint(got)
		}
		return ""
	})
	const unchanged = `muster_blocklist_links_total{answer="unchanged"}`
	before, was := n.served(t), n.muster.Metric(t, unchanged)
	// An engine that had anything of the community list would not pull at its start.
	n.a.Restart(t)
	testkit.Eventually(t, 30*time.Second, "a asks for its lists", func() string {
		if got := n.muster.Metric(t, unchanged) - was; got != 5 {
			return fmt.Sprint(got)
		}
		return ""
	})
	if got := n.served(t) - before; got != 0 {
		t.Errorf("%v lists were sent again", got)
	}
	holds(t, n.a, slices.Concat(office, shared, drop, []string{"drop ban Ip " + fedNext})...)
}

func tagLost(n *subscribers, t *testing.T) {
	n.admin(t, "machine", "set", "a", "--tag", "db")
	holds(t, n.a, slices.Concat(office, drop, []string{"drop ban Ip " + fedNext})...)
	n.admin(t, "machine", "set", "a", "--tag", "web")
	holds(t, n.a, slices.Concat(office, shared, drop, []string{"drop ban Ip " + fedNext})...)
}

func unsubscribed(n *subscribers, t *testing.T) {
	n.admin(t, "subscription", "remove", "office", "--org", "First")
	holds(t, n.a, slices.Concat(shared, drop, []string{"drop ban Ip " + fedNext})...)
	n.admin(t, "blocklist", "delete", "drop")
	holds(t, n.a, shared...)
	n.admin(t, "subscription", "remove", "muster-shared-sources", "--tag", "web", "--org", "First")
	holds(t, n.a)
	for _, e := range []*testkit.Engine{n.a, n.b, n.c} {
		if how := e.Exited(); how != "" {
			t.Errorf("%s %s", e.Name, how)
		}
	}
}

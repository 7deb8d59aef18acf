package console

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/catalog"
	"muster/internal/catalog/feed"
	database "muster/internal/store"
)

// lot is a catalogue with its own database, behind a rig's API.
type lot struct {
	*rig
	*catalog.Service
	next feed.Answer
}

// What the catalogue asks for, in as few words as the API's tests need.
func (l *lot) Fetch(context.Context, feed.Request) (feed.Answer, error) { return l.next, nil }

func (l *lot) Each(_ muster.Audience, fn func(muster.ListEntry) bool) {
	for i := range 3 {
		fn(muster.ListEntry{
			Source: muster.SourceFromAddr(netip.AddrFrom4([4]byte{45, 85, 0, byte(i)})), Scenario: "crowdsecurity/ssh-bf", Remedy: muster.RemedyBan,
			Until: now.Add(48 * time.Hour), Score: float32(i),
		})
	}
}

func (l *lot) Version(muster.Audience) uint64 { return 1 }

func (l *lot) ReportedBy(context.Context, string, time.Time) (map[muster.Source]struct{}, error) {
	return nil, nil
}

func (l *lot) EachMachine(context.Context, func(muster.Machine) error) error { return nil }

func (l *lot) Plan(context.Context, string) (muster.Plan, error) { return muster.Community, nil }

func (l *lot) Machine(id string) (muster.Machine, bool) { return l.cfg.Machines.Machine(id) }

func (l *lot) Issue(_ context.Context, o muster.Order) (muster.Order, error) { return o, nil }

func newLot(t *testing.T) *lot {
	t.Helper()
	db, err := database.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "muster.db"), database.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	l := &lot{rig: newRig(t)}
	l.Service = catalog.New(catalog.Config{
		Store: db, Network: l, Machines: l, Orders: l, Fetch: l, Now: func() time.Time { return l.clock }, PublicURL: "https://muster.test/",
		Forbidden:        func(s muster.Source) bool { return s.String() == "45.85.9.9" },
		Behaviour:        func(string) string { return "ssh:bruteforce" },
		MaxSubscriptions: map[muster.Plan]int{muster.Community: 2},
	})
	if err := l.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.cfg.Blocklists = l.Service
	return l
}

var anID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)

// The conversation of an operator who looks after lists, as the API has it.
func TestBlocklistsGolden(t *testing.T) {
	l := newLot(t)
	l.machine("m1", "web-1", "org-a")
	var log strings.Builder
	talk := func(method, path, body string) {
		t.Helper()
		a := l.do(method, "/api/v1"+path, body)
		text := []byte(a.body)
		if len(text) > 0 {
			var b bytes.Buffer
			if err := json.Indent(&b, text, "", "  "); err != nil {
				t.Fatal(err)
			}
			text = b.Bytes()
		}
		log.WriteString(strings.TrimSpace("> "+method+" "+path+" "+body) + "\n" + anID.ReplaceAllString(string(text), "ID") + "\n\n")
	}
	talk("POST", "/blocklists", `{"name":"office","kind":"custom","label":"Kept by the office","remedy":"captcha","lifetime_seconds":43200,"shared_with":["*"]}`)
	talk("POST", "/blocklists/office/entries", `{"entries":[{"value":"45.85.0.7","comment":"scanner","ttl_seconds":3600},{"value":"45.85.9.9"},{"value":"45.85.1.0/24","until":"2027-01-01T00:00:00Z"}],"reason":"seen"}`)
	talk("GET", "/blocklists/office/entries?limit=2", "")
	talk("GET", "/blocklists/office/entries?limit=2&after=45.85.1.0/24", "")
	talk("GET", "/blocklists/office/entries?organisation=", "")
	talk("POST", "/blocklists/office/upload?replace=true", "value,comment\n45.85.2.1,again\nnonsense\n45.85.2.2\n")
	talk("DELETE", "/blocklists/office/entries?value=45.85.2.1&value=45.85.2.9", "")
	talk("GET", "/blocklists/office", "")
	talk("POST", "/blocklists", `{"name":"mine","kind":"rule","rule":{"behaviours":["ssh"],"countries":["DE"],"since_seconds":86400,"top":5}}`)
	talk("GET", "/blocklists/muster-ssh/entries?limit=2", "")
	talk("POST", "/blocklists", `{"name":"theirs","kind":"feed","feed":{"url":"https://lists.example.org/a","format":"plain"}}`)
	l.next = feed.Answer{Parsed: feed.Parsed{Format: "plain", Sources: []muster.Source{muster.SourceFromAddr(netip.MustParseAddr("45.85.3.1"))}, Skipped: 2}}
	talk("POST", "/blocklists/theirs/fetch", "")
	l.next.Sources = append(l.next.Sources, muster.SourceFromAddr(netip.MustParseAddr("45.85.3.2")), muster.SourceFromAddr(netip.MustParseAddr("45.85.3.3")))
	talk("POST", "/blocklists/theirs/fetch", "")
	talk("POST", "/blocklists/theirs/approve", `{"reason":"they told"}`)
	talk("POST", "/blocklists/theirs/discard", "")
	talk("POST", "/subscriptions", `{"blocklist":"office","kind":"machine","subscriber":"web-1","remedy":"ban"}`)
	talk("POST", "/subscriptions", `{"blocklist":"theirs","kind":"tag","subscriber":"web","organisation":"org-a"}`)
	talk("POST", "/subscriptions", `{"blocklist":"mine","kind":"organisation","subscriber":"org-a"}`)
	talk("GET", "/subscriptions?blocklist=office", "")
	talk("GET", "/blocklists/office/statistics", "")
	talk("DELETE", "/subscriptions?blocklist=office&kind=machine&subscriber=web-1", "")
	talk("DELETE", "/blocklists/theirs?reason=closed", "")
	talk("GET", "/subscriptions", "")

	golden := filepath.Join("testdata", "blocklists.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(log.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), log.String()); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

func TestBlocklistsRefuse(t *testing.T) {
	l := newLot(t)
	l.machine("m1", "web-1", "org-a")
	l.want(200, `"name":"office"`, "POST", "/api/v1/blocklists", `{"name":"office","kind":"custom"}`)
	for _, c := range []struct {
		status             int
		part               string
		method, path, body string
	}{
		{409, "exists", "POST", "/blocklists", `{"name":"office","kind":"custom"}`},
		{400, "lower-case letters", "POST", "/blocklists", `{"name":"Office","kind":"custom"}`},
		{400, "a custom list has none", "POST", "/blocklists", `{"name":"a","kind":"custom","rule":{}}`},
		{400, "a rule list has none", "POST", "/blocklists", `{"name":"a","kind":"rule","feed":{}}`},
		{400, "unknown field", "POST", "/blocklists", `{"name":"a","kind":"rule","rules":{}}`},
		{400, "url: expected", "POST", "/blocklists", `{"name":"a","kind":"feed"}`},
		{400, "lifetime: expected", "POST", "/blocklists", `{"name":"a","kind":"custom","lifetime_seconds":60}`},
		{404, "there is no organisation", "POST", "/blocklists", `{"name":"a","kind":"custom","organisation":"nobody"}`},
		{404, "there is no organisation", "POST", "/blocklists", `{"name":"a","kind":"custom","shared_with":["nobody"]}`},
		{400, "name and kind cannot be changed", "PATCH", "/blocklists/office", `{"name":"other"}`},
		{403, "comes with Muster", "PATCH", "/blocklists/muster-ssh", `{"label":"x"}`},
		{403, "comes with Muster", "DELETE", "/blocklists/community", ""},
		{404, "there is no blocklist", "GET", "/blocklists/none", ""},
		{404, "there is no blocklist", "GET", "/blocklists/none/entries", ""},
		{404, "there is no blocklist", "GET", "/blocklists/none/statistics", ""},
		{400, "entry 2: expected", "POST", "/blocklists/office/entries", `{"entries":[{"value":"45.85.0.1"},{"value":"x"}]}`},
		{400, "entry 1: expected until or ttl_seconds", "POST", "/blocklists/office/entries", `{"entries":[{"value":"45.85.0.1","until":"2027-01-01T00:00:00Z","ttl_seconds":5}]}`},
		{400, "too wide", "POST", "/blocklists/office/entries", `{"entries":[{"value":"0.0.0.0/0"}]}`},
		{400, "only custom lists", "POST", "/blocklists/muster-ssh/entries", `{"entries":[{"value":"45.85.0.1"}]}`},
		{400, "value: expected", "DELETE", "/blocklists/office/entries?value=x", ""},
		{400, "at least one entry", "DELETE", "/blocklists/office/entries", ""},
		{400, "at_once: expected true or false", "DELETE", "/blocklists/office/entries?at_once=perhaps&value=45.85.0.1", ""},
		{400, "after: expected", "GET", "/blocklists/office/entries?after=x", ""},
		{400, "lines are no address", "POST", "/blocklists/office/upload", "a\nb\n"},
		{400, "only feeds are fetched", "POST", "/blocklists/office/fetch", ""},
		{404, "there is no blocklist", "POST", "/subscriptions", `{"blocklist":"none","kind":"machine","subscriber":"m1"}`},
		{404, "no active machine", "POST", "/subscriptions", `{"blocklist":"office","kind":"machine","subscriber":"m9"}`},
		{400, "expected a machine, tag", "POST", "/subscriptions", `{"blocklist":"office","kind":"person","subscriber":"m9"}`},
		{400, "remedy: expected", "POST", "/subscriptions", `{"blocklist":"office","kind":"machine","subscriber":"m1","remedy":"x"}`},
		{400, "with every pull", "POST", "/subscriptions", `{"blocklist":"community","kind":"machine","subscriber":"m1"}`},
		{404, "does not subscribe", "DELETE", "/subscriptions?blocklist=office&kind=machine&subscriber=m1", ""},
	} {
		l.want(c.status, c.part, c.method, "/api/v1"+c.path, c.body)
	}
}

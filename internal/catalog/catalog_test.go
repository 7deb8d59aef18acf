package catalog

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
)

var jane = By{User: "jane", Reason: "a test"}

func TestLists(t *testing.T) {
	r := newRig(t)
	l := r.create(t, muster.Blocklist{Name: "mine", Kind: muster.CustomList, Organisation: "o1", SharedWith: []string{"o2"}})
	if l.ID == "" || l.Remedy != muster.RemedyBan || l.Lifetime != Lifetime || l.Label != "mine" || !l.CreatedAt.Equal(start) || l.CreatedBy != "jane" {
		t.Errorf("made %+v", l)
	}
	for _, ref := range []string{l.ID, "mine"} {
		if got, err := r.List(ref); err != nil || got.ID != l.ID {
			t.Errorf("%s: %+v, %v", ref, got, err)
		}
	}
	for organisation, reads := range map[string]bool{"": true, "o1": true, "o2": true, "o3": false} {
		if _, _, err := r.Entries(t.Context(), l.ID, organisation); (err == nil) != reads {
			t.Errorf("read by %q: %v", organisation, err)
		}
	}
	for _, c := range []struct {
		list muster.Blocklist
		code muster.Code
		says string
	}{
		{muster.Blocklist{Name: "mine", Kind: muster.CustomList}, muster.Exists, "taken"},
		{muster.Blocklist{Name: "Mine", Kind: muster.CustomList}, muster.Invalid, "lower-case letters"},
		{muster.Blocklist{Name: "", Kind: muster.CustomList}, muster.Invalid, "lower-case letters"},
		{muster.Blocklist{Name: "community", Kind: muster.CustomList}, muster.Invalid, "kept for lists"},
		{muster.Blocklist{Name: "muster-x", Kind: muster.CustomList}, muster.Invalid, "kept for lists"},
		{muster.Blocklist{Name: "mine-ranges", Kind: muster.CustomList}, muster.Invalid, "ends in -ranges"},
		{muster.Blocklist{Name: "a", Kind: "x"}, muster.Invalid, "kind: expected"},
		{muster.Blocklist{Name: "a", Kind: muster.CustomList, Remedy: "x"}, muster.Invalid, "remedy: expected"},
		{muster.Blocklist{Name: "a", Kind: muster.CustomList, Lifetime: time.Hour}, muster.Invalid, "lifetime: expected"},
		{muster.Blocklist{Name: "a", Kind: muster.CustomList, Label: "a\nb"}, muster.Invalid, "label of one line"},
		{muster.Blocklist{Name: "a", Kind: muster.RuleList, Rule: muster.ListRule{Top: -1}}, muster.Invalid, "top: expected"},
		{muster.Blocklist{Name: "a", Kind: muster.FeedList}, muster.Invalid, "url: expected"},
		{muster.Blocklist{Name: "a", Kind: muster.FeedList, Feed: muster.Feed{URL: "https://example.org", Interval: time.Minute}}, muster.Invalid, "interval: expected"},
		{muster.Blocklist{Name: "a", Kind: muster.FeedList, Feed: muster.Feed{URL: "https://example.org", Swing: 1}}, muster.Invalid, "swing: expected"},
		{muster.Blocklist{Name: "a", Kind: muster.FeedList, Feed: muster.Feed{URL: "https://example.org", Format: "x"}}, muster.Invalid, "expected a format"},
		{muster.Blocklist{Name: "a", Kind: muster.FeedList, Feed: muster.Feed{URL: "https://example.org", Max: 2_000_000}}, muster.Invalid, "max: expected"},
		{muster.Blocklist{Name: "a", Kind: muster.FeedList, Feed: muster.Feed{URL: "https://example.org", Keep: time.Hour}}, muster.Invalid, "keep: expected"},
	} {
		_, err := r.Create(t.Context(), c.list, jane)
		wantCode(t, fmt.Sprintf("%+v", c.list), err, c.code, c.says)
	}
	changed, err := r.Update(t.Context(), "mine", jane, func(l *muster.Blocklist) error {
		l.Label, l.Name, l.Kind = "another", "other", muster.RuleList // of which the last two stay
		return nil
	})
	if err != nil || changed.Label != "another" || changed.Name != "mine" || changed.Kind != muster.CustomList {
		t.Errorf("changed: %+v, %v", changed, err)
	}
	_, err = r.Update(t.Context(), "muster-ssh", jane, func(*muster.Blocklist) error { return nil })
	wantCode(t, "a list of Muster's", err, muster.Forbidden, "comes with Muster")
	_, err = r.Delete(t.Context(), "community", jane)
	wantCode(t, "the community list", err, muster.Forbidden, "comes with Muster")
	if _, err := r.Delete(t.Context(), "mine", jane); err != nil {
		t.Fatal(err)
	}
	_, err = r.List("mine")
	wantCode(t, "deleted", err, muster.NotFound, `no blocklist "mine"`)
	want := []string{"blocklist.create mine by jane", "blocklist.update mine by jane", "blocklist.delete mine by jane"}
	for _, a := range want {
		if !slices.Contains(r.store.audits, a) {
			t.Errorf("%q is not in the audit: %q", a, r.store.audits)
		}
	}
}

func TestEntriesOfCustomLists(t *testing.T) {
	r := newRig(t)
	l := r.keep(t, "mine", "11.0.0.1 11.0.0.0/24 11.0.0.9 10.0.0.1")
	r.wantEntries(t, "put", "mine", "", "11.0.0.0/24 11.0.0.1 11.0.0.9")
	r.deny("11.0.0.9")
	r.wantEntries(t, "with a canary", "mine", "", "11.0.0.0/24 11.0.0.1")
	r.deny("")
	r.wantEntries(t, "without", "mine", "", "11.0.0.0/24 11.0.0.1 11.0.0.9")
	r.allow("o1", "11.0.0.1")
	r.wantEntries(t, "for who allows one, and the range around it", "mine", "o1", "11.0.0.9")
	r.wantEntries(t, "for others", "mine", "o2", "11.0.0.0/24 11.0.0.1 11.0.0.9")

	n, err := r.RemoveEntries(t.Context(), "mine", sourcesOf("11.0.0.0/24 11.7.0.0"), false, jane)
	if err != nil || n != 1 {
		t.Errorf("%d removed, %v", n, err)
	}
	stored, err := r.PutEntries(t.Context(), l.ID, []muster.CustomEntry{{Source: source("11.0.0.2"), Until: start.Add(time.Hour)}, {Source: source("127.0.0.1")}}, false, jane)
	if diff := cmp.Diff("{2 1 [127.0.0.1]}", fmt.Sprint(stored)); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	r.wantEntries(t, "one ends", "mine", "", "11.0.0.1 11.0.0.2 11.0.0.9")
	r.advance(time.Hour)
	r.wantEntries(t, "it has ended", "mine", "", "11.0.0.1 11.0.0.9")
	if err := r.EndEntries(t.Context()); err != nil {
		t.Fatal(err)
	}
	page, err := r.CustomEntries(t.Context(), "mine", source("10.0.0.1"), 10)
	if err != nil || len(page) != 3 || page[0].AddedBy != "jane" {
		t.Errorf("%+v, %v", page, err)
	}
	if _, err := r.PutEntries(t.Context(), "mine", entriesOf("11.0.0.7"), true, jane); err != nil {
		t.Fatal(err)
	}
	r.wantEntries(t, "replaced", "mine", "", "11.0.0.7")

	for _, c := range []struct {
		entry muster.CustomEntry
		says  string
	}{
		{muster.CustomEntry{}, "expected an address"},
		{muster.CustomEntry{Source: source("11.0.0.0/7")}, "too wide"},
		{muster.CustomEntry{Source: source("::/0")}, "too wide"},
		{muster.CustomEntry{Source: source("11.0.0.1"), Comment: strings.Repeat("x", 201)}, "comment"},
		{muster.CustomEntry{Source: source("11.0.0.1"), Comment: "a\nb"}, "comment"},
		{muster.CustomEntry{Source: source("11.0.0.1"), Until: start}, "an end that is to come"},
	} {
		_, err := r.PutEntries(t.Context(), "mine", []muster.CustomEntry{c.entry}, false, jane)
		wantCode(t, fmt.Sprintf("%+v", c.entry), err, muster.Invalid, c.says)
	}
	_, err = r.PutEntries(t.Context(), "muster-ssh", entriesOf("11.0.0.1"), false, jane)
	wantCode(t, "a rule's", err, muster.Invalid, "only custom lists")
	_, err = r.PutEntries(t.Context(), "mine", nil, false, jane)
	wantCode(t, "nothing", err, muster.Invalid, "at least one")
	small := newRig(t, func(c *Config) { c.MaxEntries = 2 })
	small.keep(t, "mine", "11.0.0.1 11.0.0.2")
	_, err = small.PutEntries(t.Context(), "mine", entriesOf("11.0.0.3"), false, jane)
	wantCode(t, "one more", err, muster.TooLarge, "too many")
	_, err = small.PutEntries(t.Context(), "mine", entriesOf("11.0.0.3 11.0.0.4 11.0.0.5"), true, jane)
	wantCode(t, "three", err, muster.TooLarge, "at most 2 entries")
}

func TestReadUpload(t *testing.T) {
	r := newRig(t)
	up, err := r.ReadUpload([]byte("\ufeffvalue,comment,until\n11.0.0.1\n# all\n\n11.0.0.2 # a host\r\n\"11.0.0.0/24\",\"a, range\",2026-12-01\n" +
		"11.0.0.3;24h;scanner\n11.0.0.4\t7d\n11.0.0.5,,2026-11-21T00:00:00Z\nnonsense\n11.0.0.1,again,\n11.0.0.6,x,2020-01-01\n2a00::1\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range up.Entries {
		until := ""
		if !e.Until.IsZero() {
			until = e.Until.Format(time.RFC3339)
		}
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s|%s|%s", e.Source, e.Comment, until)))
	}
	want := []string{
		"11.0.0.1|again|", "11.0.0.2|a host|", "11.0.0.0/24|a, range|2026-12-01T00:00:00Z", "11.0.0.3|scanner|2026-11-21T12:20:00Z",
		"11.0.0.4||2026-11-27T12:20:00Z", "11.0.0.5||2026-11-21T00:00:00Z", "2a00::1||",
	}
	if diff := cmp.Diff(want, got); diff != "" || up.Skipped != 2 || up.Example != "nonsense" {
		t.Errorf("%d skipped, first %q\n%s", up.Skipped, up.Example, diff)
	}
	_, err = r.ReadUpload([]byte("a\nb\n11.0.0.1\n"))
	wantCode(t, "words", err, muster.Invalid, "2 lines are no address")
	_, err = newRig(t, func(c *Config) { c.MaxEntries = 1 }).ReadUpload([]byte("11.0.0.1\n11.0.0.2\n"))
	wantCode(t, "too many", err, muster.TooLarge, "more than 1 entries")
}

func FuzzReadUpload(f *testing.F) {
	for _, seed := range []string{"11.0.0.1,x,24h\n", "\"11.0.0.0/24\";2027-01-01\n", "a,b\n11.0.0.1\t7d\t#\n", "11.0.0.1,9999999d"} {
		f.Add([]byte(seed))
	}
	r := newRig(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		up, err := r.ReadUpload(text)
		for i := range up.Entries {
			if err != nil || checkEntry(&up.Entries[i], r.now) != nil {
				t.Fatalf("%+v, %v", up.Entries[i], err)
			}
		}
	})
}

func TestOwnAndSofter(t *testing.T) {
	r := newRig(t)
	until := start.Add(48 * time.Hour)
	ban := func(text string) muster.ListEntry {
		return muster.ListEntry{Source: source(text), Scenario: "a/ssh-bf", Remedy: muster.RemedyBan, Until: until}
	}
	soft := ban("11.0.0.4")
	soft.Remedy = muster.RemedyCaptcha
	r.network.put(muster.Network, ban("11.0.0.1"), ban("11.0.0.2"), soft)
	r.network.put("o1", ban("11.0.0.3"))
	r.network.reported["o1"] = map[muster.Source]struct{}{source("11.0.0.2"): {}, source("11.0.0.9"): {}}
	r.wantEntries(t, "seen by o1", "muster-own", "o1", "11.0.0.2 11.0.0.3")
	r.wantEntries(t, "seen by o2", "muster-own", "o2", "")
	r.wantEntries(t, "shared", "muster-shared-sources", "o1", "11.0.0.4")
	r.wantEntries(t, "the community's", muster.CommunityList, "o1", "11.0.0.1 11.0.0.2")
	r.wantEntries(t, "by family", "muster-ssh", "", "11.0.0.1 11.0.0.2")
	r.wantEntries(t, "by another", "muster-http", "", "")
	r.create(t, muster.Blocklist{Name: "gentle", Kind: muster.RuleList, Remedy: muster.RemedyCaptcha})
	r.wantEntries(t, "all, gently", "gentle", "", "11.0.0.1 11.0.0.2 11.0.0.4")
}

// A list follows the network, but not at once for everybody who asks.
func TestRuleListsCoalesce(t *testing.T) {
	r := newRig(t)
	entry := func(text string) muster.ListEntry {
		return muster.ListEntry{Source: source(text), Scenario: "a/ssh-bf", Remedy: muster.RemedyBan, Until: start.Add(time.Hour)}
	}
	versions := map[uint64]bool{}
	read := func(what, want string) {
		t.Helper()
		r.wantEntries(t, what, "muster-ssh", "", want)
		_, v, err := r.Entries(t.Context(), "muster-ssh", "")
		if err != nil {
			t.Fatal(err)
		}
		versions[v] = true
	}
	r.network.put(muster.Network, entry("11.0.0.1"))
	read("first", "11.0.0.1")
	r.network.put(muster.Network, entry("11.0.0.2"))
	read("too soon", "11.0.0.1")
	r.deny("11.0.0.1")
	read("what is forbidden goes at once", "11.0.0.2")
	r.advance(5 * time.Second)
	reads := r.network.reads
	read("nothing new", "11.0.0.2")
	if r.network.reads != reads {
		t.Error("the network was read though nothing had changed")
	}
	r.network.put(muster.Network, entry("11.0.0.3"))
	read("later", "11.0.0.3")
	r.advance(time.Hour)
	read("ended", "")
	if len(versions) != 4 {
		t.Errorf("%d versions of 4 contents", len(versions))
	}
}

// While the database is away, lists stay as they were, without what is
// forbidden by now.
func TestDatabaseAway(t *testing.T) {
	r := newRig(t)
	r.keep(t, "mine", "11.0.0.1 11.0.0.2")
	r.wantEntries(t, "before", "mine", "", "11.0.0.1 11.0.0.2")
	r.store.fail = errors.New("away")
	r.deny("11.0.0.1")
	r.wantEntries(t, "away", "mine", "", "11.0.0.2")
	r.store.fail = nil
	r.deny("")
	r.wantEntries(t, "back", "mine", "", "11.0.0.1 11.0.0.2")
}

func TestLinks(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "o1", "web", "eu")
	r.keep(t, "b", "11.0.0.1")
	r.keep(t, "a", "11.0.0.2 11.0.1.0/24")
	r.keep(t, "empty", "10.0.0.1")
	r.subscribe(t, "b", muster.SubscriberOrganisation, "o1", "")
	r.subscribe(t, "a", muster.SubscriberMachine, "m1", "")
	r.subscribe(t, "empty", muster.SubscriberTag, "web", "o1")
	if _, err := r.Subscribe(t.Context(), muster.Subscription{Blocklist: "b", Subscriber: muster.Subscriber{Kind: muster.SubscriberTag, ID: "eu", Organisation: "o1"}, Remedy: muster.RemedyCaptcha}, jane); err != nil {
		t.Fatal(err)
	}
	named := func(machine, organisation string, tags ...string) string {
		var all []string
		for _, l := range r.Links(machine, organisation, tags) {
			if (l.Scope == "range") != strings.HasSuffix(l.Name, "-ranges") || l.Duration != Lifetime {
				t.Errorf("%+v", l)
			}
			all = append(all, l.Name+" "+l.Remediation)
		}
		return strings.Join(all, ", ")
	}
	for _, c := range []struct{ got, want string }{
		{named("m1", "o1", "web", "eu"), "b captcha, a ban, a-ranges ban"}, // the hardest last
		{named("m1", "o1", "web"), "a ban, a-ranges ban, b ban"},
		{named("m2", "o1"), "b ban"},
		{named("m1", "o2", "eu"), ""},
		{named("m1", ""), ""},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	r.allow("o1", "11.0.0.0/24")
	if got := named("m2", "o1"); got != "" {
		t.Errorf("a list that is allowed as a whole: %q", got)
	}
	if got := named("m1", "o1"); got != "a-ranges ban" {
		t.Errorf("a list whose addresses are allowed: %q", got)
	}
}

func TestServeLink(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "o1")
	l := r.keep(t, "mine", "11.0.0.2 11.0.1.0/24 11.0.0.1 2a00::1")
	r.subscribe(t, "mine", muster.SubscriberOrganisation, "o1", "")
	link := func() string { return r.Links("m1", "o1", nil)[0].URL }
	url := link()
	if !strings.HasPrefix(url, "https://muster.example.org/x/lists/"+l.ID+"?") {
		t.Fatal(url)
	}
	if status, got := get(t, r.Service, r.Links("m1", "o1", nil)[1].URL, nil); status != http.StatusOK || got != "11.0.1.0/24\n" {
		t.Errorf("the ranges: %d %q", status, got)
	}
	const body = "11.0.0.1\n11.0.0.2\n2a00::1\n"
	w := serve(r.Service, http.MethodGet, url, nil)
	if w.Code != http.StatusOK || w.Body.String() != body || w.Header().Get("Content-Length") != fmt.Sprint(len(body)) || w.Header().Get("Content-Encoding") != "" {
		t.Errorf("%d %v %q", w.Code, w.Header(), w.Body)
	}
	if w = serve(r.Service, http.MethodHead, url, nil); w.Code != http.StatusOK || w.Body.Len() != 0 || w.Header().Get("Content-Length") != fmt.Sprint(len(body)) {
		t.Errorf("HEAD: %d %v %q", w.Code, w.Header(), w.Body)
	}

	// Clients say when they read it last, by their own clocks.
	since := func(at time.Time) http.Header {
		return http.Header{"If-Modified-Since": {at.UTC().Format(http.TimeFormat)}}
	}
	for _, c := range []struct {
		what   string
		after  time.Duration // the client's last read, after the list came to be so
		status int
	}{{"before", -time.Hour, 200}, {"meanwhile", 30 * time.Second, 200}, {"after", 2 * time.Minute, 304}} {
		if w = serve(r.Service, http.MethodGet, url, since(start.Add(c.after))); w.Code != c.status || c.status == 304 && w.Body.Len() != 0 {
			t.Errorf("read last %s: %d %q", c.what, w.Code, w.Body)
		}
	}
	if w = serve(r.Service, http.MethodGet, url, http.Header{"If-Modified-Since": {"yesterday"}}); w.Code != http.StatusOK {
		t.Errorf("an unreadable time: %d", w.Code)
	}
	// What is allowed no longer has to be read, as if it were new.
	r.allow("o1", "11.0.0.1")
	r.advance(time.Hour)
	if status, got := get(t, r.Service, link(), since(r.now.Add(-30*time.Minute))); status != http.StatusOK || strings.Contains(got, "11.0.0.1\n") {
		t.Errorf("with an allowlist: %d %q", status, got)
	}
	r.advance(time.Hour)
	if status, _ := get(t, r.Service, link(), since(r.now.Add(-30*time.Minute))); status != http.StatusNotModified {
		t.Errorf("the same allowlist: %d", status)
	}
	r.allow("o1", "")
	if status, got := get(t, r.Service, link(), since(r.now.Add(-30*time.Minute))); status != http.StatusOK || !strings.Contains(got, "11.0.0.1\n") {
		t.Errorf("without it again: %d %q", status, got)
	}

	url = link()
	for what, c := range map[string]struct {
		url    string
		status int
	}{
		"another list":         {strings.Replace(url, l.ID, "muster-ssh", 1), 403},
		"another organisation": {strings.Replace(url, "organisation=o1", "organisation=o2", 1), 403},
		"another scope":        {strings.Replace(url, "scope=ip", "scope=range", 1), 403},
		"another end":          {strings.Replace(url, "end=1", "end=2", 1), 403},
		"no signature":         {url[:strings.Index(url, "&signature")], 403},
	} {
		if c.url == url {
			t.Fatalf("%s: the same URL", what)
		}
		w := serve(r.Service, http.MethodGet, c.url, nil)
		if w.Code != c.status || !strings.HasPrefix(w.Body.String(), "error") {
			t.Errorf("%s: %d %q", what, w.Code, w.Body)
		}
	}
	if w := serve(r.Service, http.MethodPost, url, nil); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
	r.advance(59 * time.Minute)
	if status, _ := get(t, r.Service, url, nil); status != http.StatusOK {
		t.Errorf("within the hour: %d", status)
	}
	r.advance(62 * time.Minute)
	if status, _ := get(t, r.Service, url, nil); status != http.StatusForbidden {
		t.Errorf("after two hours: %d", status)
	}
	url = link()
	r.deny("11.0.0.1 11.0.0.2 11.0.1.0/24 2a00::1")
	if status, got := get(t, r.Service, url, nil); status != http.StatusNotFound || got == "" {
		t.Errorf("with nothing on it: %d %q", status, got)
	}
	if _, err := r.Delete(t.Context(), "mine", jane); err != nil {
		t.Fatal(err)
	}
	if status, _ := get(t, r.Service, url, nil); status != http.StatusNotFound {
		t.Errorf("deleted: %d", status)
	}
}

func TestServeLinkCompressed(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "o1")
	var list strings.Builder
	for i := range 500 {
		fmt.Fprintf(&list, "11.0.%d.%d ", i>>8, i&255)
	}
	r.keep(t, "mine", list.String())
	r.subscribe(t, "mine", muster.SubscriberMachine, "m1", "")
	url := r.Links("m1", "o1", nil)[0].URL
	want := strings.ReplaceAll(list.String(), " ", "\n")
	for accepts, zipped := range map[string]bool{"gzip": true, "deflate, GZIP;q=0.5": true, "gzip;q=0": false, "": false} {
		w := serve(r.Service, http.MethodGet, url, http.Header{"Accept-Encoding": {accepts}})
		if (w.Header().Get("Content-Encoding") == "gzip") != zipped {
			t.Errorf("%q: %v", accepts, w.Header())
		}
		if _, got := get(t, r.Service, url, http.Header{"Accept-Encoding": {accepts}}); got != want {
			t.Errorf("%q: %d bytes, want %d", accepts, len(got), len(want))
		}
	}
}

// Nobody keeps entries beyond their end, when all have one.
func TestLinkEndsWithItsEntries(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "o1")
	r.create(t, muster.Blocklist{Name: "mine", Kind: muster.CustomList})
	r.subscribe(t, "mine", muster.SubscriberMachine, "m1", "")
	for _, c := range []struct {
		entries []muster.CustomEntry
		want    time.Duration
	}{
		{[]muster.CustomEntry{{Source: source("11.0.0.1"), Until: start.Add(time.Hour)}, {Source: source("11.0.0.2"), Until: start.Add(2 * time.Hour)}}, 2 * time.Hour},
		{[]muster.CustomEntry{{Source: source("11.0.0.1"), Until: start.Add(time.Hour)}, {Source: source("11.0.0.2")}}, Lifetime},
		{[]muster.CustomEntry{{Source: source("11.0.0.1"), Until: start.Add(100 * time.Hour)}}, Lifetime},
		{[]muster.CustomEntry{{Source: source("11.0.0.1"), Until: start.Add(time.Second)}}, time.Minute},
	} {
		if _, err := r.PutEntries(t.Context(), "mine", c.entries, true, jane); err != nil {
			t.Fatal(err)
		}
		if got := r.Links("m1", "o1", nil)[0].Duration; got != c.want {
			t.Errorf("%v: %s, want %s", c.entries, got, c.want)
		}
	}
}

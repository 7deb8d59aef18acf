package catalog

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
)

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a/b", "a/b", true},
		{"a/b", "a/bc", false},
		{"*", "", true},
		{"*", "a/b", true},
		{"a/*", "a/ssh-bf", true},
		{"a/*", "b/ssh-bf", false},
		{"*ssh*", "a/ssh-bf", true},
		{"*ssh*bf", "a/ssh-slow-bf", true},
		{"*ssh*bf", "a/ssh-bfx", false},
		{"a?b", "a/b", true},
		{"a?b", "ab", false},
		{"", "", true},
		{"", "a", false},
		{"a**", "a", true},
		{"*a*a*a*", "aa", false},
	} {
		if got := glob(c.pattern, c.name); got != c.want {
			t.Errorf("%q on %q: %t", c.pattern, c.name, got)
		}
	}
}

var scenarios = []string{"a/ssh-bf", "a/ssh-cve", "a/mail-bf", "b/http-scan", "b/unknown"}

func drawEntries(t *rapid.T, label string) []muster.ListEntry {
	return rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) muster.ListEntry {
		addr := netip.AddrFrom4([4]byte{11, rapid.ByteRange(0, 4).Draw(t, "country"), rapid.ByteRange(0, 3).Draw(t, "as"), rapid.ByteRange(0, 9).Draw(t, "host")})
		bits := rapid.SampledFrom([]int{32, 32, 32, 31, 24}).Draw(t, "bits")
		return muster.ListEntry{
			Source: muster.SourceFromPrefix(netip.PrefixFrom(addr, bits)), Scenario: rapid.SampledFrom(scenarios).Draw(t, "scenario"), Remedy: muster.RemedyBan,
			Since: start.Add(-time.Duration(rapid.IntRange(0, 5).Draw(t, "since")) * time.Hour),
			Until: start.Add(time.Duration(rapid.IntRange(-1, 40).Draw(t, "hours")) * time.Hour), Score: float32(rapid.IntRange(0, 3).Draw(t, "score")),
		}
	}), 0, 60, func(e muster.ListEntry) muster.Source { return e.Source }).Draw(t, label)
}

// naive is what a rule chooses, in as many words.
func naive(r *rig, rule muster.ListRule, now time.Time) []muster.Source {
	var kept []muster.ListEntry
	for _, e := range r.network.lists[muster.Network] {
		country, as := r.cfg.Locate(e.Source.Addr())
		behaviour := r.cfg.Behaviour(e.Scenario)
		behaves := len(rule.Behaviours) == 0
		for _, want := range rule.Behaviours {
			behaves = behaves || behaviour == want || strings.HasPrefix(behaviour, want+":") || want == "imap" && behaviour == "pop3/imap:bruteforce"
		}
		fits := len(rule.Scenarios) == 0
		for _, want := range rule.Scenarios {
			prefix, _ := strings.CutSuffix(want, "*")
			fits = fits || strings.HasPrefix(e.Scenario, prefix)
		}
		recent := rule.Since == 0 || !e.Since.Before(now.Add(-rule.Since))
		here := (len(rule.Countries) == 0 || slices.Contains(rule.Countries, country)) && (len(rule.ASNs) == 0 || slices.Contains(rule.ASNs, as))
		if behaves && fits && recent && here && !r.forbid[e.Source] && e.Until.After(now) {
			kept = append(kept, e)
		}
	}
	slices.SortFunc(kept, func(a, b muster.ListEntry) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), b.Until.Compare(a.Until), a.Source.Compare(b.Source))
	})
	if rule.Top > 0 && len(kept) > rule.Top {
		kept = kept[:rule.Top]
	}
	var sources []muster.Source
	for _, e := range kept {
		sources = append(sources, e.Source)
	}
	slices.SortFunc(sources, muster.Source.Compare)
	return sources
}

func TestRulesChooseAsTheNaiveFilter(t *testing.T) {
	some := func(t *rapid.T, label string, of ...string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(of), 0, 2, func(s string) string { return s }).Draw(t, label)
	}
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t)
		entries := drawEntries(rt, "entries")
		r.network.put(muster.Network, entries...)
		for _, e := range entries {
			r.forbid[e.Source] = rapid.IntRange(0, 9).Draw(rt, "forbidden") == 0
		}
		rule := muster.ListRule{
			Behaviours: some(rt, "behaviours", "ssh", "ssh:exploit", "imap", "http:scan", "smtp"),
			Scenarios:  some(rt, "scenarios", "a/*", "b/http-scan", "*"),
			Countries:  some(rt, "countries", "DE", "FR"), Since: rapid.SampledFrom([]time.Duration{0, 0, 2 * time.Hour}).Draw(rt, "within"),
			Top: rapid.SampledFrom([]int{0, 0, 1, 5}).Draw(rt, "top"),
		}
		if rapid.Bool().Draw(rt, "by AS") {
			rule.ASNs = []uint32{1, 2}
		}
		l := r.create(t, muster.Blocklist{Name: "mine", Kind: muster.RuleList, Rule: rule})
		for range 2 {
			got, _, err := r.Entries(t.Context(), l.ID, "")
			if err != nil {
				rt.Fatal(err)
			}
			want := naive(r, rule, r.now)
			if !slices.EqualFunc(got, want, func(e muster.ListEntry, s muster.Source) bool { return e.Source == s }) {
				rt.Fatalf("%+v: got %s, want %v", rule, joined(got), want)
			}
			r.advance(time.Duration(rapid.IntRange(1, 30).Draw(rt, "passes")) * time.Hour) // some have ended
		}
	})
}

// Whatever is on lists, forbidden and allowed, now or later: no link, body or
// entry has what its reader must not be sent, every body is one that engines
// take, and there is no link to a list that has nothing.
func TestNothingForbiddenLeaves(t *testing.T) {
	odd := []string{"10.0.0.1", "192.168.0.0/16", "127.0.0.1", "fe80::1", "2001:db8::1", "11.0.0.0/8", "2a00::/32", "2a00::1"}
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t)
		entries := drawEntries(rt, "convicted")
		for _, text := range odd {
			entries = append(entries, muster.ListEntry{Source: source(text), Scenario: "a/ssh-bf", Remedy: muster.RemedyBan, Until: start.Add(48 * time.Hour)})
		}
		for i := range entries {
			if rapid.IntRange(0, 4).Draw(rt, "softer") == 0 {
				entries[i].Remedy = muster.RemedyCaptcha
			}
		}
		r.network.put(muster.Network, entries...)
		r.network.put("o1", drawEntries(rt, "fleet")...)
		r.network.reported["o1"] = map[muster.Source]struct{}{}
		for _, e := range entries {
			r.network.reported["o1"][e.Source] = struct{}{}
		}
		r.keep(t, "custom", "11.0.0.1 11.0.0.0/24 11.1.0.0/16 2a00::1 10.0.0.1 192.0.2.0/24")
		r.create(t, muster.Blocklist{Name: "feed", Kind: muster.FeedList, Feed: muster.Feed{URL: "https://example.org/", Keep: 1000 * time.Hour}})
		r.has("11.0.0.2 11.2.0.0/24 127.0.0.1 2a00::/32", "1")
		if err := r.FetchDue(t.Context()); err != nil {
			rt.Fatal(err)
		}
		r.machine("m1", "o1")
		for _, l := range r.Lists() {
			if l.ID != muster.CommunityList {
				r.subscribe(t, l.ID, muster.SubscriberOrganisation, "o1", "o1")
			}
		}
		candidates := "11.0.0.1 11.0.0.2 11.1.1.1 11.2.0.0/24 11.3.0.0/16 2a00::/48 11.0.1.0/24"
		for range 3 {
			var forbidden, allowed []string
			for _, text := range strings.Fields(candidates) {
				if rapid.IntRange(0, 3).Draw(rt, "forbid") == 0 {
					forbidden = append(forbidden, text)
				}
				if rapid.IntRange(0, 3).Draw(rt, "allow") == 0 {
					allowed = append(allowed, text)
				}
			}
			r.deny(strings.Join(forbidden, " "))
			r.allow("o1", strings.Join(allowed, " "))
			check := func(what string, s muster.Source) {
				if s.IsReserved() || r.forbid[s] {
					rt.Fatalf("%s: %s must not be sent", what, s)
				}
				if reason, ok := r.allowed["o1"].Covers(s); ok {
					rt.Fatalf("%s: %s is allowed by its reader: %s", what, s, reason)
				}
			}
			linked := map[string]bool{}
			for _, link := range r.Links("m1", "o1", nil) {
				linked[strings.TrimSuffix(link.Name, RangesSuffix)] = true
				status, body := get(t, r.Service, link.URL, nil)
				if status != http.StatusOK {
					rt.Fatalf("%s: status %d", link.Name, status)
				}
				for line := range strings.Lines(body) {
					s, err := muster.ParseSource(strings.TrimSuffix(line, "\n"))
					if err != nil || s.String()+"\n" != line || s.IsRange() != (link.Scope == "range") {
						rt.Fatalf("%s: line %q: %v", link.Name, line, err)
					}
					check(link.Name, s)
				}
			}
			for _, l := range r.Lists() {
				got, _, err := r.Entries(t.Context(), l.ID, "o1")
				if err != nil {
					rt.Fatal(err)
				}
				if l.ID != muster.CommunityList && linked[l.Name] != (len(got) > 0) {
					rt.Fatalf("%s: %d entries, linked %t", l.Name, len(got), linked[l.Name])
				}
				for i, e := range got {
					check(l.Name, e.Source)
					if e.Remedy == muster.RemedyCaptcha && l.Remedy == muster.RemedyBan || !e.Until.IsZero() && !e.Until.After(r.now) || i > 0 && got[i-1].Source.Compare(e.Source) >= 0 {
						rt.Fatalf("%s: entry %d: %+v", l.Name, i, e)
					}
				}
			}
			r.advance(time.Duration(rapid.IntRange(0, 20).Draw(rt, "passes")) * time.Hour)
		}
	})
}

// get asks for a link as an engine does.
func get(t testing.TB, s *Service, url string, header http.Header) (status int, body string) {
	t.Helper()
	w := serve(s, http.MethodGet, url, header)
	reader := io.Reader(w.Body)
	if w.Header().Get("Content-Encoding") == "gzip" {
		zr, err := gzip.NewReader(bytes.NewReader(w.Body.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		reader = zr
	}
	raw, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(raw)
}

func serve(s *Service, method, url string, header http.Header) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	mux.HandleFunc("/x"+Path+"{id}", s.ServeLink)
	r := httptest.NewRequest(method, url, nil)
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

func TestCheckRule(t *testing.T) {
	for _, c := range []struct {
		rule muster.ListRule
		want string
	}{
		{muster.ListRule{Behaviours: []string{"ssh bf"}}, "behaviours like"},
		{muster.ListRule{Scenarios: []string{""}}, "scenarios like"},
		{muster.ListRule{Countries: []string{"de"}}, "countries like DE"},
		{muster.ListRule{Countries: []string{"DEU"}}, "countries like DE"},
		{muster.ListRule{ASNs: []uint32{0}}, "from 1 on"},
		{muster.ListRule{ASNs: make([]uint32, 101)}, "at most 100"},
		{muster.ListRule{Since: -1}, "since"},
		{muster.ListRule{Top: -1}, "top"},
		{muster.ListRule{Remedy: "shout"}, "remedy"},
	} {
		wantCode(t, fmt.Sprintf("%+v", c.rule), CheckRule(c.rule), muster.Invalid, c.want)
	}
	for _, l := range builtIn {
		if err := CheckRule(l.Rule); err != nil {
			t.Errorf("%s: %v", l.Name, err)
		}
		if !nameForm.MatchString(l.Name) || l.Label == "" || l.Description == "" {
			t.Errorf("%+v", l)
		}
	}
}

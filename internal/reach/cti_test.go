package reach

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oschwald/maxminddb-golang/v2"
	"pgregory.net/rapid"

	"muster"
	"muster/internal/cti"
)

const lookupSecret = "mlk_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"

// lookupWorld is all that Lookups stand on.
type lookupWorld struct {
	*world
	keys     []muster.LookupKey
	usage    map[muster.LookupUsage]int64 // by key and day, whose Calls are 0
	days     map[netip.Addr][]cti.DatedDay
	verdicts map[muster.Source]muster.Verdict
	good     map[muster.Source]cti.Good
	wrongs   int
	computed int
}

func newLookupWorld() *lookupWorld {
	sum, spent := sha256.Sum256([]byte(lookupSecret)), sha256.Sum256([]byte("spent"))
	return &lookupWorld{
		world: newWorld(), usage: map[muster.LookupUsage]int64{}, days: map[netip.Addr][]cti.DatedDay{},
		verdicts: map[muster.Source]muster.Verdict{}, good: map[muster.Source]cti.Good{},
		keys: []muster.LookupKey{
			{ID: "k1", Name: "siem", Hash: sum[:]},
			{ID: "k2", Name: "small", Hash: spent[:], PerDay: 3, PerMonth: 5},
		},
	}
}

func (w *lookupWorld) LookupKeys(context.Context) ([]muster.LookupKey, error) { return w.keys, nil }

func (w *lookupWorld) LookupUsage(_ context.Context, since int64) (used []muster.LookupUsage, err error) {
	for u, calls := range w.usage {
		if u.Calls = calls; u.Day >= since {
			used = append(used, u)
		}
	}
	return used, nil
}

func (w *lookupWorld) AddLookupUsage(_ context.Context, used []muster.LookupUsage) error {
	for _, u := range used {
		calls := u.Calls
		u.Calls = 0
		w.usage[u] += calls
	}
	return nil
}

func (w *lookupWorld) Good(s muster.Source) (cti.Good, string) {
	if s.IsReserved() {
		return cti.Reserved, ""
	}
	for g, kind := range w.good {
		if g.Prefix().Overlaps(s.Prefix()) {
			return kind, "misp:googlebot"
		}
	}
	return cti.NotGood, ""
}

// lists puts sources on the list, with verdicts that came one after another.
func (w *lookupWorld) lists(texts ...string) {
	w.bans(muster.Network, texts...)
	for _, text := range texts {
		s := source(text)
		w.verdicts[s] = muster.Verdict{
			Source: s, Listed: true, Remedy: muster.RemedyBan, Scenario: "crowdsecurity/ssh-bf", Since: w.now, Until: w.now.Add(48 * time.Hour), Changed: w.now,
			Reasons: muster.Reasons{Support: 6, Threshold: 5, Independent: 3, Organisations: 4, First: w.now.Unix() - 7200, Last: w.now.Unix()},
		}
	}
}

// ends takes sources off the list.
func (w *lookupWorld) ends(texts ...string) {
	w.lifts(muster.Network, texts...)
	for _, text := range texts {
		v := w.verdicts[source(text)]
		v.Listed, v.Changed = false, w.now
		w.verdicts[source(text)] = v
	}
}

func (w *lookupWorld) lookups(t testing.TB) *Lookups {
	l := NewLookups(LookupConfig{
		Store: w, Community: w, Good: w.Good, PublicURL: "https://muster.example/",
		Days: func(_ context.Context, addr netip.Addr, _ time.Time) ([]cti.DatedDay, error) {
			w.computed++
			return w.days[addr], nil
		},
		Verdict: func(_ context.Context, s muster.Source) (muster.Verdict, error) {
			v, ok := w.verdicts[s]
			if !ok {
				return v, muster.Errorf(muster.NotFound, "there is no such verdict")
			}
			return v, nil
		},
		Changes: func(_ context.Context, since time.Time, limit int) (list []muster.Verdict, err error) {
			for _, v := range w.verdicts {
				if v.Changed.After(since) {
					list = append(list, v)
				}
			}
			slices.SortFunc(list, func(a, b muster.Verdict) int { return a.Changed.Compare(b.Changed) })
			for len(list) > limit && !list[len(list)-1].Changed.Equal(list[limit-1].Changed) {
				list = list[:len(list)-1]
			}
			return list, nil
		},
		Active: func() int { return 40 }, WrongKey: func(netip.Addr) error { w.wrongs++; return nil },
		Now: func() time.Time { return w.now },
	})
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

// get asks with the key that has no limit, unless headers say otherwise.
func get(l *Lookups, method, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("X-Api-Key", lookupSecret)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
		}
	}
	w := httptest.NewRecorder()
	l.ServeHTTP(w, r)
	return w
}

func into[T any](t tester, w *httptest.ResponseRecorder, status int) T {
	t.Helper()
	if w.Code != status {
		t.Fatalf("expected status %d, got %d: %s", status, w.Code, w.Body)
	}
	var v T
	if err := json.Unmarshal([]byte(text(t, w)), &v); err != nil {
		t.Fatalf("%v: %s", err, text(t, w))
	}
	return v
}

type problem struct{ Code, Message string }

func TestLookupKeys(t *testing.T) {
	w := newLookupWorld()
	w.lists("45.83.64.1", "45.83.64.2", "45.83.64.3", "45.83.64.4")
	l := w.lookups(t)
	for _, headers := range [][]string{{"X-Api-Key", ""}, {"X-Api-Key", "wrong"}, {"X-Api-Key", "", "Authorization", "Bearer wrong"}} {
		if p := into[problem](t, get(l, "GET", "/v2/smoke/45.83.64.1", headers...), http.StatusForbidden); p.Message == "" || strings.Contains(p.Message, "wrong") {
			t.Errorf("%v: %+v", headers, p)
		}
	}
	if w.wrongs != 2 {
		t.Errorf("expected two wrong keys to be counted, got %d", w.wrongs)
	}
	for _, headers := range [][]string{{"X-Api-Key", "", "Authorization", "Bearer " + lookupSecret}, {"X-Api-Key", "", "Authorization", basic("anybody", lookupSecret)}} {
		into[cti.Item](t, get(l, "GET", "/v2/smoke/45.83.64.1", headers...), http.StatusOK)
	}

	small := []string{"X-Api-Key", "spent"}
	into[any](t, get(l, "GET", "/v2/smoke?ips=45.83.64.1,45.83.64.2", small...), http.StatusOK)
	refused := get(l, "GET", "/v2/smoke?ips=45.83.64.3,45.83.64.4", small...)
	if p := into[problem](t, refused, http.StatusTooManyRequests); p.Code != "quota_spent" || refused.Header().Get("Retry-After") != strconv.Itoa(12*3600) {
		t.Errorf("%+v, Retry-After %s", p, refused.Header().Get("Retry-After"))
	}
	if got := get(l, "HEAD", "/v2/smoke/45.83.64.1", small...); got.Code != http.StatusOK {
		t.Errorf("the last call of the day: %d", got.Code)
	}
	into[problem](t, get(l, "GET", "/v2/smoke/45.83.64.1", small...), http.StatusTooManyRequests)

	// What was used is remembered, by other nodes too, and a new day begins anew.
	if err := l.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := w.lookups(t)
	into[problem](t, get(again, "GET", "/v2/smoke/45.83.64.1", small...), http.StatusTooManyRequests)
	w.now = w.now.Add(13 * time.Hour)
	into[any](t, get(again, "GET", "/v2/smoke?ips=45.83.64.1,45.83.64.2", small...), http.StatusOK)
	refused = get(again, "GET", "/v2/smoke/45.83.64.3", small...)
	if p := into[problem](t, refused, http.StatusTooManyRequests); p.Code != "quota_spent" || !strings.Contains(p.Message, "a month") {
		t.Errorf("expected the month's quota to be spent, got %+v", p)
	}

	// Too fast is another matter than too much.
	var tooFast *httptest.ResponseRecorder
	for range 300 {
		if tooFast = get(again, "GET", "/v2/smoke/45.83.64.1"); tooFast.Code != http.StatusOK {
			break
		}
	}
	if p := into[problem](t, tooFast, http.StatusTooManyRequests); p.Code != "rate_limited" || tooFast.Header().Get("Retry-After") != "1" {
		t.Errorf("%+v, Retry-After %s", p, tooFast.Header().Get("Retry-After"))
	}
	w.now = w.now.Add(time.Second)
	into[cti.Item](t, get(again, "GET", "/v2/smoke/45.83.64.1"), http.StatusOK)

	w.keys[0].RevokedAt = w.now
	if err := again.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	into[problem](t, get(again, "GET", "/v2/smoke/45.83.64.1"), http.StatusForbidden)
}

func TestSmoke(t *testing.T) {
	w := newLookupWorld()
	w.lists("45.83.64.1", "2a00:1:2:3::/64", "45.99.0.0/24")
	l := w.lookups(t)
	item := into[cti.Item](t, get(l, "GET", "/v2/smoke/45.83.64.1"), http.StatusOK)
	if item.Reputation != cti.Malicious || item.Classifications.Classifications[0].Name != "community-blocklist" || item.IPRange24Score != 1 {
		t.Errorf("%+v", item)
	}
	for _, addr := range []string{"2a00:1:2:3:4::5", "45.99.0.77", "::ffff:45.83.64.1"} {
		if item := into[cti.Item](t, get(l, "GET", "/v2/smoke/"+addr), http.StatusOK); item.Reputation != cti.Malicious {
			t.Errorf("%s: %+v", addr, item)
		}
	}
	for path, status := range map[string]int{
		"/v2/smoke/45.83.64.9": 404, "/v2/smoke/x": 400, "/v2/smoke/45.83.64.0/24": 400, "/v2/smoke?ips=": 400, "/v2/smoke": 400, "/v2/smoke?ips=1.2.3.4,x": 400,
		"/v2/smoke?ips=" + strings.Repeat("1.2.3.4,", 200): 200, "/v2/fire?page=0": 400, "/v2/fire?limit=2000": 400, "/v2/fire?since=x": 400, "/v2/dump.zip": 404,
	} {
		got := get(l, "GET", path)
		if got.Code != status || !json.Valid(got.Body.Bytes()) || status >= 400 && into[problem](t, got, status).Message == "" {
			t.Errorf("%s: %d %s", path, got.Code, got.Body)
		}
	}
	var many []string
	for i := range 101 {
		many = append(many, fmt.Sprintf("45.83.64.%d", i))
	}
	if got := get(l, "GET", "/v2/smoke?ips="+strings.Join(many, ",")); got.Code != 400 {
		t.Errorf("101 addresses: %d", got.Code)
	}
	if got := get(l, "POST", "/v2/smoke/45.83.64.1"); got.Code != 405 || got.Header().Get("Allow") == "" {
		t.Errorf("POST: %d", got.Code)
	}
	if got := get(l, "HEAD", "/v2/smoke/45.83.64.1"); got.Code != 200 || got.Body.Len() != 0 || got.Header().Get("Content-Length") == "0" {
		t.Errorf("HEAD: %d %v %s", got.Code, got.Header(), got.Body)
	}
	answer := into[struct {
		Total    int        `json:"total"`
		NotFound int        `json:"not_found"`
		Items    []cti.Item `json:"items"`
	}](t, get(l, "GET", "/v2/smoke?ips=45.83.64.1,45.83.64.9,45.83.64.1,&"), http.StatusOK)
	if answer.Total != 1 || answer.NotFound != 1 || len(answer.Items) != 1 {
		t.Errorf("%+v", answer)
	}

	// What becomes known to be good is safe at once, although the answer is kept.
	before := w.computed
	get(l, "GET", "/v2/smoke/45.83.64.1")
	if w.computed != before {
		t.Error("the same answer was computed again")
	}
	w.good[source("45.83.64.0/24")] = cti.Canary
	if item := into[cti.Item](t, get(l, "GET", "/v2/smoke/45.83.64.1"), http.StatusOK); item.Reputation != cti.Safe || item.Classifications.FalsePositives[0].Name != "seo:googlebot" || item.Scores != (cti.Scores{}) {
		t.Errorf("%+v", item)
	}
	if item := into[cti.Item](t, get(l, "GET", "/v2/smoke/10.0.0.1"), http.StatusOK); item.Reputation != cti.Safe || item.Classifications.FalsePositives[0].Name != "ip:private_range" {
		t.Errorf("%+v", item)
	}
}

type firePage struct {
	Links map[string]*struct{ Href string } `json:"_links"`
	Items []struct {
		IP, Reputation, State, Expiration string
	}
}

func TestFire(t *testing.T) {
	w := newLookupWorld()
	want := []string{"2a00:1:2:3::"}
	for i := range 25 {
		w.lists(fmt.Sprintf("45.83.64.%d", i+1))
		want = append(want, fmt.Sprintf("45.83.64.%d", i+1))
	}
	w.lists("2a00:1:2:3::/64", "45.99.0.0/24", "45.83.64.200")
	w.good[source("45.83.64.200")] = cti.Allowlisted
	l := w.lookups(t)
	read := func(path string) (addrs []string, pages int) {
		for path != "" {
			page := into[firePage](t, get(l, "GET", path), http.StatusOK)
			for _, item := range page.Items {
				if _, err := time.Parse("2006-01-02T15:04:05.999999999", item.Expiration); err != nil || item.State != "validated" || item.Reputation != "malicious" {
					t.Fatalf("%+v: %v", item, err)
				}
				addrs = append(addrs, item.IP)
			}
			path = ""
			if next := page.Links["next"]; next != nil {
				u, err := url.Parse(next.Href)
				if err != nil || u.Host != "muster.example" {
					t.Fatalf("%s: %v", next.Href, err)
				}
				path = u.RequestURI()
			}
			if pages++; pages > 20 {
				t.Fatal("the pages do not end")
			}
		}
		slices.Sort(addrs)
		return addrs, pages
	}
	slices.Sort(want)
	addrs, pages := read("/v2/fire?limit=10&")
	if diff := cmp.Diff(want, addrs); diff != "" || pages != 3 {
		t.Errorf("%d pages: %s", pages, diff)
	}
	if _, pages := read("/v2/fire?limit=13"); pages != 2 {
		t.Errorf("expected two full pages, got %d", pages)
	}
	w.now = w.now.Add(time.Hour)
	w.lists("45.83.65.1")
	if addrs, _ := read("/v2/fire?since=30m"); !slices.Equal(addrs, []string{"45.83.65.1"}) {
		t.Errorf("since 30 minutes: %v", addrs)
	}
	if page := into[firePage](t, get(l, "GET", "/v2/fire?page=9"), http.StatusOK); len(page.Items) != 0 || page.Links["next"] != nil {
		t.Errorf("beyond the end: %+v", page)
	}
}

func TestDump(t *testing.T) {
	w := newLookupWorld()
	w.lists("45.83.64.1", "45.99.0.0/24", "45.99.0.7", "2a00:1:2:3::/64", "2002:102:304::/64", "45.83.64.200")
	w.good[source("45.83.64.200")] = cti.Canary
	l := w.lookups(t)
	got := get(l, "GET", "/v2/dump.mmdb")
	db, err := maxminddb.OpenBytes(got.Body.Bytes())
	if err != nil {
		t.Fatalf("%d: %v", got.Code, err)
	}
	for addr, found := range map[string]bool{
		"45.83.64.1": true, "45.99.0.1": true, "45.99.0.7": true, "2a00:1:2:3:4::": true, "45.83.64.2": false, "45.83.64.200": false, "2a00:1:2:4::": false,
	} {
		var r struct {
			Reputation string   `maxminddb:"reputation"`
			Behaviors  []string `maxminddb:"behaviors"`
			Threat     int      `maxminddb:"threat"`
			Expiration int64    `maxminddb:"expiration"`
		}
		if err := db.Lookup(netip.MustParseAddr(addr)).Decode(&r); err != nil {
			t.Fatal(err)
		}
		if found && (r.Reputation != "malicious" || r.Threat != 3 || !slices.Equal(r.Behaviors, []string{"ssh:bruteforce"}) || r.Expiration < w.now.Unix()) || !found && r.Reputation != "" {
			t.Errorf("%s: %+v", addr, r)
		}
	}
	sum := sha256.Sum256(got.Body.Bytes())
	if got.Header().Get("X-Checksum-Sha256") != hex.EncodeToString(sum[:]) {
		t.Errorf("the digest is not that of the body: %v", got.Header())
	}
	if again := get(l, "GET", "/v2/dump.mmdb", "If-None-Match", got.Header().Get("ETag")); again.Code != http.StatusNotModified || again.Body.Len() > 0 {
		t.Errorf("expected 304, got %d", again.Code)
	}
	if head := get(l, "HEAD", "/v2/dump.mmdb"); head.Body.Len() > 0 || head.Header().Get("Content-Length") != strconv.Itoa(got.Body.Len()) {
		t.Errorf("HEAD: %v", head.Header())
	}

	var lines bytes.Buffer
	if err := l.Dump(t.Context(), "jsonl", &lines); err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(get(l, "GET", "/v2/dump.jsonl.gz").Body)
	if err != nil {
		t.Fatal(err)
	}
	var unzipped bytes.Buffer
	if _, err := unzipped.ReadFrom(zip); err != nil || unzipped.String() != lines.String() {
		t.Errorf("the two ways to get lines differ: %v", err)
	}
	var addrs []string
	for line := range strings.Lines(lines.String()) {
		var d dumpLine
		if err := json.Unmarshal([]byte(line), &d); err != nil || d.Scenario == "" || d.CVEs == nil {
			t.Errorf("%s: %v", line, err)
		}
		addrs = append(addrs, d.IP)
	}
	if diff := cmp.Diff([]string{"45.83.64.1", "45.99.0.7", "2002:102:304::/64", "2a00:1:2:3::/64", "45.99.0.0/24"}, addrs); diff != "" {
		t.Error(diff)
	}
	if err := l.Dump(t.Context(), "xml", &lines); muster.CodeOf(err) != muster.Invalid {
		t.Errorf("xml: %v", err)
	}

	w.lists("45.83.66.1")
	w.now = w.now.Add(2 * time.Minute)
	if later := get(l, "GET", "/v2/dump.mmdb", "If-None-Match", got.Header().Get("ETag")); later.Code != http.StatusOK {
		t.Errorf("a list that has changed: %d", later.Code)
	}
}

func TestMISP(t *testing.T) {
	w := newLookupWorld()
	w.lists("45.83.64.1", "45.99.0.0/24", "2a00:1:2:3::/64", "45.83.64.200")
	w.good[source("45.83.64.200")] = cti.Canary
	l := w.lookups(t)
	auth := []string{"X-Api-Key", "", "Authorization", basic("misp", lookupSecret)}
	manifest := into[map[string]mispEvent](t, get(l, "GET", "/misp/manifest.json", auth...), http.StatusOK)
	if len(manifest) != 1 {
		t.Fatalf("%v", manifest)
	}
	for id, about := range manifest {
		event := into[struct {
			Event struct {
				UUID, Info, Timestamp string
				Attribute             []struct {
					UUID, Type, Value string
					ToIDs             bool `json:"to_ids"`
				}
			}
		}](t, get(l, "GET", "/misp/"+id+".json", auth...), http.StatusOK).Event
		if event.UUID != id || event.Info != about.Info || event.Timestamp != about.Timestamp {
			t.Errorf("the manifest says %+v, the event %+v", about, event)
		}
		var values, hashes []string
		for _, a := range event.Attribute {
			values = append(values, a.Value)
			sum := md5.Sum([]byte(a.Value))
			hashes = append(hashes, hex.EncodeToString(sum[:])+","+id+"\n")
			if a.Type != "ip-src" || !a.ToIDs || a.UUID == "" {
				t.Errorf("%+v", a)
			}
		}
		if diff := cmp.Diff([]string{"45.83.64.1", "2a00:1:2:3::/64", "45.99.0.0/24"}, values); diff != "" {
			t.Error(diff)
		}
		if got := get(l, "GET", "/misp/hashes.csv", auth...).Body.String(); got != strings.Join(hashes, "") {
			t.Errorf("hashes: %s", got)
		}
	}
	if got := get(l, "GET", "/misp/other.json", auth...); got.Code != http.StatusNotFound {
		t.Errorf("another file: %d", got.Code)
	}
}

// Whatever is listed and whatever is good, nothing good and nothing reserved
// leaves by any way.
func TestNothingGoodLeaves(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newLookupWorld()
		gen := rapid.SampledFrom([]string{
			"45.83.64.1", "45.83.64.2", "45.83.64.0/24", "45.83.0.0/16", "10.0.0.1", "192.168.0.0/16", "2a00:1:2:3::/64", "2a00:1::/48", "fc00::/64", "9.9.9.9",
		})
		for _, text := range rapid.SliceOfDistinct(gen, rapid.ID).Draw(rt, "listed") {
			w.lists(text)
		}
		for _, text := range rapid.SliceOfDistinct(gen, rapid.ID).Draw(rt, "good") {
			w.good[source(text)] = cti.Good(rapid.IntRange(2, 3).Draw(rt, "kind"))
		}
		l := w.lookups(t)
		check := func(where, value string) {
			s, err := muster.ParseSource(value)
			if err != nil {
				rt.Fatalf("%s: %v", where, err)
			}
			if good, _ := w.Good(s); good != cti.NotGood {
				rt.Fatalf("%s: %s is good, and stands there", where, value)
			}
		}
		for _, item := range into[firePage](rt, get(l, "GET", "/v2/fire?limit=100"), http.StatusOK).Items {
			check("fire", item.IP)
		}
		for _, o := range into[taxiiEnvelope](rt, get(l, "GET", "/taxii2/root/collections/community/objects/"), http.StatusOK).Objects {
			if o.Type == "indicator" && !o.Revoked {
				check("TAXII", o.Name)
			}
		}
		var lines bytes.Buffer
		if err := l.Dump(t.Context(), "jsonl", &lines); err != nil {
			rt.Fatal(err)
		}
		for line := range strings.Lines(lines.String()) {
			var d dumpLine
			if err := json.Unmarshal([]byte(line), &d); err != nil {
				rt.Fatal(err)
			}
			check("dump", d.IP)
		}
		for _, addr := range []string{"45.83.64.1", "45.83.64.2", "10.0.0.1", "2a00:1:2:3::1", "9.9.9.9"} {
			got := get(l, "GET", "/v2/smoke/"+addr)
			good, _ := w.Good(source(addr))
			if good == cti.NotGood {
				continue
			}
			if item := into[cti.Item](rt, got, http.StatusOK); item.Reputation != cti.Safe || item.Scores != (cti.Scores{}) {
				rt.Fatalf("%s is good, and %s", addr, item.Reputation)
			}
		}
	})
}

func TestServesLookups(t *testing.T) {
	for path, want := range map[string]bool{
		"/v2/smoke": true, "/v2/smoke/1.2.3.4": true, "/v2/fire": true, "/v2/dump.mmdb": true, "/taxii2/": true, "/taxii2": true, "/misp/manifest.json": true, "//v2//fire/": true,
		"/v2/smokes": false, "/v2/watchers": false, "/v3/fire": false, "/mispell": false, "/": false,
	} {
		if ServesLookups(path) != want {
			t.Errorf("%s: expected %v", path, want)
		}
	}
}

func BenchmarkSmoke(b *testing.B) {
	w := newLookupWorld()
	var days []cti.DatedDay
	for n := range int64(7) {
		d := &cti.Day{}
		for o := range 6 {
			d.Add(&cti.Sighting{At: w.now.Add(-time.Duration(24*(6-n)) * time.Hour), Machine: fmt.Sprint(o), Organisation: fmt.Sprint(o), Scenario: "crowdsecurity/ssh-bf", Rank: 3, ASN: uint32(o + 1)})
		}
		days = append(days, cti.DatedDay{Number: cti.DayOf(w.now) - 6 + n, Day: d})
	}
	for i := range 250 {
		addr := fmt.Sprintf("45.83.64.%d", i)
		w.lists(addr)
		w.days[netip.MustParseAddr(addr)] = days
	}
	for _, kept := range []bool{true, false} {
		b.Run(map[bool]string{true: "from the cache", false: "computed"}[kept], func(b *testing.B) {
			l := w.lookups(b)
			l.cfg.Rate, l.cfg.Burst = 1e9, 1e9
			r := httptest.NewRequest("GET", "/v2/smoke/45.83.64.77", nil)
			r.Header.Set("X-Api-Key", lookupSecret)
			b.ReportAllocs()
			for b.Loop() {
				if !kept {
					l.cache.young, l.cache.old = nil, nil
				}
				rec := httptest.NewRecorder()
				if l.ServeHTTP(rec, r); rec.Code != 200 {
					b.Fatal(rec.Code, rec.Body)
				}
			}
		})
	}
}

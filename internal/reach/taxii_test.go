package reach

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/internal/cti"
)

type taxiiObject struct {
	Type, ID, Name, Pattern, Created, Modified string
	Revoked                                    bool
	SpecVersion                                string `json:"spec_version"`
	PatternType                                string `json:"pattern_type"`
	CreatedBy                                  string `json:"created_by_ref"`
	ValidFrom                                  string `json:"valid_from"`
	ValidUntil                                 string `json:"valid_until"`
	DateAdded                                  string `json:"date_added"`
	MediaType                                  string `json:"media_type"`
}

type taxiiEnvelope struct {
	More    bool
	Next    string
	Objects []taxiiObject
}

const taxiiObjectsPath = "/taxii2/root/collections/community/objects/"

func TestTAXIITellsWhereThingsAre(t *testing.T) {
	w := newLookupWorld()
	w.lists("45.83.64.1")
	l := w.lookups(t)
	discovery := into[struct {
		Title   string
		Default string
		Roots   []string `json:"api_roots"`
	}](t, get(l, "GET", "/taxii2/"), http.StatusOK)
	path := func(address string) string {
		u, err := url.Parse(address)
		if err != nil || u.Host != "muster.example" {
			t.Fatalf("%q: %v", address, err)
		}
		return u.Path
	}
	if discovery.Title == "" || len(discovery.Roots) != 1 || discovery.Default != discovery.Roots[0] {
		t.Fatalf("%+v", discovery)
	}
	got := get(l, "GET", path(discovery.Default))
	if root := into[struct{ Versions []string }](t, got, http.StatusOK); !slices.Contains(root.Versions, taxiiType) || got.Header().Get("Content-Type") != taxiiType {
		t.Errorf("%+v, %v", root, got.Header())
	}
	collections := into[struct {
		Collections []struct {
			ID         string
			CanRead    bool     `json:"can_read"`
			CanWrite   bool     `json:"can_write"`
			MediaTypes []string `json:"media_types"`
		}
	}](t, get(l, "GET", path(discovery.Default)+"collections/"), http.StatusOK).Collections
	if len(collections) != 1 || !collections[0].CanRead || collections[0].CanWrite || len(collections[0].ID) != 36 {
		t.Fatalf("%+v", collections)
	}
	objects := into[taxiiEnvelope](t, get(l, "GET", path(discovery.Default)+"collections/"+collections[0].ID+"/objects/"), http.StatusOK)
	if len(objects.Objects) != 2 || objects.Objects[0].Type != "identity" || objects.Objects[1].CreatedBy != objects.Objects[0].ID {
		t.Errorf("%+v", objects)
	}

	for _, accept := range []string{"application/taxii+json;version=2.1", "application/taxii+json; version=2.1", "*/*", "application/json", "text/html, application/taxii+json;version=2.1"} {
		if got := get(l, "GET", "/taxii2/", "Accept", accept); got.Code != http.StatusOK {
			t.Errorf("%s: %d", accept, got.Code)
		}
	}
	if got := get(l, "GET", "/taxii2/", "Accept", "application/vnd.oasis.taxii+json; version=2.0"); got.Code != http.StatusNotAcceptable {
		t.Errorf("version 2.0: %d", got.Code)
	}
	got = get(l, "GET", "/taxii2/", "X-Api-Key", "wrong")
	failure := into[struct {
		Title  string
		Status string `json:"http_status"`
	}](t, got, http.StatusUnauthorized)
	if failure.Title == "" || failure.Status != "401" || !strings.HasPrefix(got.Header().Get("WWW-Authenticate"), "Basic") {
		t.Errorf("%+v, %v", failure, got.Header())
	}
	for _, none := range []string{"other/", "root/collections/other/", "root/collections/community/others/", "root/collections/community/objects/indicator--0/"} {
		if got := get(l, "GET", "/taxii2/"+none); got.Code != http.StatusNotFound {
			t.Errorf("%s: %d", none, got.Code)
		}
	}
	for _, bad := range []string{"?added_after=yesterday", "?next=x", "?limit=0", "?match[version]=newest"} {
		if got := get(l, "GET", taxiiObjectsPath+bad); got.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, got.Code)
		}
	}
}

func TestIndicators(t *testing.T) {
	w := newLookupWorld()
	w.lists("45.83.64.1", "45.99.0.0/24", "2a00:1:2:3::/64")
	l := w.lookups(t)
	objects := into[taxiiEnvelope](t, get(l, "GET", taxiiObjectsPath+"?match[type]=indicator"), http.StatusOK).Objects
	var patterns []string
	for _, o := range objects {
		patterns = append(patterns, o.Pattern)
		if o.SpecVersion != "2.1" || o.PatternType != "stix" || o.Created > o.Modified || o.ValidFrom >= o.ValidUntil || o.Revoked {
			t.Errorf("%+v", o)
		}
	}
	want := []string{"[ipv4-addr:value = '45.83.64.1']", "[ipv4-addr:value ISSUBSET '45.99.0.0/24']", "[ipv6-addr:value ISSUBSET '2a00:1:2:3::/64']"}
	slices.Sort(patterns)
	if diff := cmp.Diff(want, patterns); diff != "" {
		t.Error(diff)
	}
	// The same listing is the same object, on every node and for ever.
	again := into[taxiiEnvelope](t, get(w.lookups(t), "GET", taxiiObjectsPath+"?match[type]=indicator"), http.StatusOK).Objects
	if diff := cmp.Diff(objects, again); diff != "" {
		t.Error(diff)
	}
	one := into[taxiiEnvelope](t, get(l, "GET", taxiiObjectsPath+objects[1].ID+"/"), http.StatusOK).Objects
	if diff := cmp.Diff(objects[1:2], one); diff != "" {
		t.Error(diff)
	}
	versions := into[struct{ Versions []string }](t, get(l, "GET", taxiiObjectsPath+objects[1].ID+"/versions/"), http.StatusOK).Versions
	if !slices.Equal(versions, []string{objects[1].Modified}) {
		t.Errorf("versions %v of %+v", versions, objects[1])
	}
}

// Page by page, by next and by added_after, everything comes once, however many
// changed at one moment.
func TestTAXIIPages(t *testing.T) {
	w := newLookupWorld()
	n := 0
	for _, atOnce := range []int{1, 7, 1, 1, 12, 3} {
		for range atOnce {
			n++
			w.lists(fmt.Sprintf("45.83.64.%d", n))
		}
		w.now = w.now.Add(time.Second)
	}
	l := w.lookups(t)
	for _, limit := range []int{1, 2, 5, 24, 25, 100} {
		for _, kind := range []string{"objects", "manifest"} {
			seen, next, pages := map[string]int{}, "", 0
			for {
				path := fmt.Sprintf("/taxii2/root/collections/community/%s/?limit=%d&next=%s", kind, limit, next)
				w.now = w.now.Add(time.Second)
				got := get(l, "GET", path)
				page := into[taxiiEnvelope](t, got, http.StatusOK)
				if len(page.Objects) > limit || len(page.Objects) == 0 {
					t.Fatalf("a page of %d of at most %d", len(page.Objects), limit)
				}
				for _, o := range page.Objects {
					seen[o.ID]++
					if kind == "manifest" && (o.DateAdded < got.Header().Get("X-TAXII-Date-Added-First") || o.DateAdded > got.Header().Get("X-TAXII-Date-Added-Last") || o.MediaType != stixType) {
						t.Fatalf("%+v, %v", o, got.Header())
					}
				}
				if page.More != (page.Next != "") {
					t.Fatalf("more is %v, and next %q", page.More, page.Next)
				}
				if next = page.Next; next == "" {
					break
				}
				if pages++; pages > 30 {
					t.Fatal("the pages do not end")
				}
			}
			if len(seen) != n+1 {
				t.Errorf("%s by %d: %d of %d objects", kind, limit, len(seen), n+1)
			}
			for id, times := range seen {
				if times != 1 {
					t.Errorf("%s by %d: %s came %d times", kind, limit, id, times)
				}
			}
		}
	}
}

// Whoever comes back hears of what is new, and of what has ended.
func TestTAXIIAddedAfter(t *testing.T) {
	w := newLookupWorld()
	w.lists("45.83.64.1", "45.83.64.2", "45.83.64.3")
	l := w.lookups(t)
	got := get(l, "GET", taxiiObjectsPath)
	first := into[taxiiEnvelope](t, got, http.StatusOK).Objects
	since := got.Header().Get("X-TAXII-Date-Added-Last")
	if none := into[taxiiEnvelope](t, get(l, "GET", taxiiObjectsPath+"?added_after="+since), http.StatusOK); len(none.Objects) != 0 {
		t.Errorf("nothing is new, and %+v", none)
	}
	w.now = w.now.Add(time.Minute)
	w.ends("45.83.64.1")
	w.good[source("45.83.64.2")] = cti.Allowlisted
	v := w.verdicts[source("45.83.64.2")]
	v.Changed = w.now // before the judge has taken it off the list
	w.verdicts[v.Source] = v
	w.lists("45.83.64.9")
	changes := into[taxiiEnvelope](t, get(l, "GET", taxiiObjectsPath+"?added_after="+since), http.StatusOK).Objects
	told := map[string]bool{}
	for _, o := range changes {
		told[o.Name] = o.Revoked
		was := slices.IndexFunc(first, func(f taxiiObject) bool { return f.Name == o.Name })
		if was >= 0 && (first[was].ID != o.ID || first[was].Created != o.Created || first[was].Modified >= o.Modified) {
			t.Errorf("%+v is no later version of %+v", o, first[was])
		}
	}
	if diff := cmp.Diff(map[string]bool{"45.83.64.1": true, "45.83.64.2": true, "45.83.64.9": false}, told); diff != "" {
		t.Error(diff)
	}
	// Whoever reads all is told of what stands.
	var names []string
	for _, o := range into[taxiiEnvelope](t, get(l, "GET", taxiiObjectsPath), http.StatusOK).Objects {
		if o.Type == "indicator" {
			names = append(names, o.Name)
		}
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"45.83.64.3", "45.83.64.9"}, names); diff != "" {
		t.Error(diff)
	}
}

package allow

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

func TestForWhom(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	create(t, s, "o1", "everybody", []string{"all"}, "192.0.2.0/24")
	create(t, s, "o1", "web", []string{"tag:web", "tag:dmz"}, "198.51.100.7")
	create(t, s, "o1", "one", []string{"machine:m1"}, "203.0.113.1")
	create(t, s, "o1", "wall", []string{"integration:fw1"}, "203.0.113.2")
	create(t, s, "o1", "nobody", nil, "203.0.113.3")
	create(t, s, "o2", "everybody", []string{"all"}, "203.0.113.4")
	create(t, s, "", "partners", nil, "203.0.113.5")
	for _, c := range []struct {
		reader, organisation string
		tags                 []string
		want                 string // last parts of what is covered
	}{
		{"m1", "o1", nil, "2.7 113.1"},
		{"m2", "o1", []string{"x", "dmz"}, "2.7 100.7"},
		{"m2", "o1", []string{"Web"}, "2.7"},
		{"m1", "o1", []string{"web"}, "2.7 100.7 113.1"},
		{"fw1", "o1", nil, "2.7 113.2"},
		{"m1", "o2", []string{"web"}, "113.4"},
		{"m1", "o3", nil, ""},
		{"m1", "", nil, ""},
		{"", "", nil, ""},
		{"", "o1", nil, "2.7 100.7 113.1 113.2 113.3"}, // what all share
	} {
		var got []string
		for _, a := range []string{"192.0.2.7", "198.51.100.7", "203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5"} {
			if covers(s, a, c.reader, c.organisation, c.tags...) {
				parts := strings.SplitN(a, ".", 3)
				got = append(got, parts[2])
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q of %q with %v: expected %q, got %q", c.reader, c.organisation, c.tags, c.want, got)
		}
	}
	if _, ok := s.Central().Covers(source("203.0.113.5")); !ok || s.Central().Len() != 1 {
		t.Errorf("expected the installation's list to cover 203.0.113.5 and nothing else")
	}
}

func TestContainment(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	create(t, s, "o1", "office", []string{"all"}, "192.0.2.0/24", "198.51.100.7", "2001:db8::/32")
	for value, want := range map[string]bool{
		"192.0.2.255": true, "192.0.2.0/24": true, "192.0.2.64/26": true, "192.0.0.0/16": true, // which has allowed ones in it
		"192.0.3.0": false, "198.51.100.7": true, "198.51.100.0/29": true, "198.51.100.8/29": false,
		"::ffff:192.0.2.1": true, "2001:db8:1::1": true, "2001:db9::": false,
	} {
		if got := covers(s, value, "m1", "o1"); got != want {
			t.Errorf("%s: expected %t, got %t", value, want, got)
		}
	}
}

// An item counts until the very moment of its end, without anybody running.
func TestExpiryIsExact(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	id := create(t, s, "o1", "office", []string{"all"}, "192.0.2.1")
	soon := item(t, "192.0.2.2")
	soon.ExpiresAt = start.Add(time.Minute)
	if _, err := s.Put(t.Context(), id, []muster.AllowItem{soon}); err != nil {
		t.Fatal(err)
	}
	_, before := s.For("m1", "o1", nil)
	w.changes = nil
	w.pass(time.Minute - time.Nanosecond)
	if !covers(s, "192.0.2.2", "m1", "o1") {
		t.Error("expected the item until its end")
	}
	if _, v := s.For("m1", "o1", nil); v != before {
		t.Errorf("expected version %d while nothing changed, got %d", before, v)
	}
	w.pass(time.Nanosecond)
	if covers(s, "192.0.2.2", "m1", "o1") || !covers(s, "192.0.2.1", "m1", "o1") {
		t.Error("expected the item to have ended, and the other one to hold")
	}
	if _, v := s.For("m1", "o1", nil); v == before {
		t.Error("expected another version after the end")
	}
	s.tell(t.Context())
	s.tell(t.Context())
	if !slices.Equal(w.changes, []bool{false}) {
		t.Errorf("expected to be told once, about one organisation, got %v", w.changes)
	}
	if states, err := s.Items(id); err != nil || len(states) != 1 {
		t.Errorf("expected one item, got %v, %v", states, err)
	}
}

// Equal versions mean equal content; a change to one organisation leaves the
// versions of others.
func TestVersions(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	create(t, s, "o1", "all", []string{"all"}, "192.0.2.1")
	web := create(t, s, "o1", "web", []string{"tag:web"}, "192.0.2.2")
	create(t, s, "o2", "all", []string{"all"}, "192.0.2.3")
	version := func(organisation string, tags ...string) uint64 {
		_, v := s.For("m", organisation, tags)
		return v
	}
	plain, tagged, other := version("o1"), version("o1", "web"), version("o2")
	if plain == tagged || plain == other || tagged == other || plain == 0 {
		t.Fatalf("expected three versions, got %d, %d and %d", plain, tagged, other)
	}
	if v := version("o1", "x", "y"); v != plain {
		t.Errorf("expected the same version for the same lists, got %d and %d", plain, v)
	}
	if v := version("o3"); v != 0 {
		t.Errorf("expected version 0 for nothing, got %d", v)
	}
	put(t, s, web, "192.0.2.4")
	if version("o2") != other || version("o1") != plain || version("o1", "web") == tagged {
		t.Error("expected another version where another list is in it, and nowhere else")
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := version("o1", "web")
	put(t, s, web, "192.0.2.4") // what is there already
	if version("o1", "web") != again {
		t.Error("expected the same version for the same content")
	}
	if err := s.Delete(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	if v := version("o1", "web"); v == again || v == tagged {
		t.Errorf("expected another version after a list has gone, got %d", v)
	}
	if covers(s, "192.0.2.4", "m", "o1", "web") {
		t.Error("expected the list to have gone")
	}
}

func TestForDoesNotAllocate(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	create(t, s, "o1", "web", []string{"tag:web"}, "192.0.2.1")
	create(t, s, "", "partners", nil, "192.0.2.9")
	tags := []string{"dmz", "web"}
	s.For("m1", "o1", tags)
	s.Links("m1", "o1", tags)
	if n := testing.AllocsPerRun(100, func() { s.For("m1", "o1", tags); s.Links("m1", "o1", tags) }); n != 0 {
		t.Errorf("expected no allocation, got %g", n)
	}
}

func BenchmarkFor(b *testing.B) {
	w := newWorld()
	s := w.service(b)
	for n := range 5 {
		create(b, s, "o1", fmt.Sprintf("list%d", n), []string{fmt.Sprintf("tag:t%d", n)}, "192.0.2.1")
	}
	tags := []string{"t1", "t3"}
	b.ReportAllocs()
	for b.Loop() {
		s.For("m1", "o1", tags)
	}
}

// Whatever is done to lists, what is covered is what a naive reading of the
// stored items says, at every moment, and versions tell changes.
func TestCoversWhatItemsSay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld()
		s := w.service(t)
		value := rapid.Custom(func(t *rapid.T) string {
			bits := rapid.IntRange(26, 32).Draw(t, "bits")
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, rapid.Byte().Draw(t, "last")}), bits).Masked()
			if bits == 32 {
				return p.Addr().String()
			}
			return p.String()
		})
		orgs, tags := []string{"o1", "o2"}, []string{"a", "b"}
		var ids []string
		seen := map[uint64]string{0: fmt.Sprint([]bool(nil))} // content by version
		check := func() {
			for _, org := range orgs {
				for _, tag := range [][]string{nil, {"a"}, {"b"}, {"a", "b"}} {
					list, version := s.For("m", org, tag)
					var content []bool
					anything := false
					for last := range 256 {
						a := muster.SourceFromAddr(netip.AddrFrom4([4]byte{192, 0, 2, byte(last)}))
						_, got := list.Covers(a)
						if want := w.says(a, org, tag); got != want {
							rt.Fatalf("%s for %s %v: expected %t, got %t", a, org, tag, want, got)
						}
						content, anything = append(content, got), anything || got
					}
					if !anything {
						content = nil
					}
					if was, ok := seen[version]; ok && was != fmt.Sprint(content) {
						rt.Fatalf("version %d stood for something else before", version)
					}
					seen[version] = fmt.Sprint(content)
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"create": func(t *rapid.T) {
				l := muster.Allowlist{Organisation: rapid.SampledFrom(orgs).Draw(t, "org"), Name: fmt.Sprintf("l%d", len(ids))}
				if rapid.Bool().Draw(t, "all") {
					l.Targets = append(l.Targets, muster.Subscriber{Kind: muster.SubscriberOrganisation})
				} else {
					l.Targets = append(l.Targets, muster.Subscriber{Kind: muster.SubscriberTag, ID: rapid.SampledFrom(tags).Draw(t, "tag")})
				}
				made, err := s.Create(t.Context(), l)
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, made.ID)
			},
			"put": func(t *rapid.T) {
				if len(ids) == 0 {
					t.Skip("no list")
				}
				i, err := muster.ParseAllowItem(value.Draw(t, "value"))
				if err != nil {
					t.Fatal(err)
				}
				if minutes := rapid.IntRange(0, 3).Draw(t, "minutes"); minutes > 0 {
					i.ExpiresAt = w.time().Add(time.Duration(minutes) * time.Minute)
				}
				if _, err := s.Put(t.Context(), rapid.SampledFrom(ids).Draw(t, "list"), []muster.AllowItem{i}); err != nil {
					t.Fatal(err)
				}
			},
			"pass": func(t *rapid.T) { w.pass(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second) },
			"delete": func(t *rapid.T) {
				if len(ids) == 0 {
					t.Skip("no list")
				}
				n := rapid.IntRange(0, len(ids)-1).Draw(t, "list")
				if err := s.Delete(t.Context(), ids[n]); err != nil {
					t.Fatal(err)
				}
				ids = slices.Delete(slices.Clone(ids), n, n+1)
			},
			"reload": func(t *rapid.T) {
				if err := s.Reload(t.Context()); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

// says reads the stored items naively.
func (w *world) says(a muster.Source, organisation string, tags []string) bool {
	for id, items := range w.items {
		l := w.lists[id]
		if l.Organisation != organisation || !l.For("m", organisation, tags) {
			continue
		}
		for _, i := range items {
			if (i.ExpiresAt.IsZero() || w.now.Before(i.ExpiresAt)) && i.Source().Prefix().Overlaps(a.Prefix()) {
				return true
			}
		}
	}
	return false
}

func TestExpandedItems(t *testing.T) {
	w := newWorld()
	w.as[64496] = prefixes("198.51.100.0/25", "198.51.100.128/25", "203.0.113.0/24")
	w.countries["DE"] = prefixes("192.0.2.0/24")
	w.files["aws.json"] = `{"prefixes":[{"ip_prefix":"100.0.0.0/24","region":"eu-west-1","service":"S3"},{"ip_prefix":"100.0.1.0/24","region":"us-east-1","service":"EC2"}],
		"ipv6_prefixes":[{"ipv6_prefix":"2001:db8::/32","region":"eu-west-1","service":"EC2"}]}`
	w.files["edge.txt"] = "# edge\n100.1.0.0/24\r\n\n2001:db9::/32 # v6\n"
	s := w.service(t)
	id := create(t, s, "o1", "mixed", []string{"all"}, "AS64496", "country:de", "cloud:aws/s3", "cloud:edge")
	for value, want := range map[string]bool{
		"198.51.100.200": true, "203.0.113.9": true, "192.0.2.9": true, "100.0.0.1": true, "100.0.1.1": false,
		"2001:db8::1": false, "100.1.0.1": true, "2001:db9::1": true,
	} {
		if got := covers(s, value, "m", "o1"); got != want {
			t.Errorf("%s: expected %t, got %t", value, want, got)
		}
	}
	states, err := s.Items(id)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, st := range states {
		got = append(got, fmt.Sprintf("%s %d %s", st.Value, st.Ranges, st.Problem))
	}
	if diff := cmp.Diff([]string{"AS64496 2 ", "cloud:aws/s3 1 ", "cloud:edge 2 ", "country:DE 1 "}, got); diff != "" {
		t.Errorf("items: %s", diff)
	}
	hits := s.Covering(source("198.51.100.0/22"), "o1")
	if len(hits) != 1 || hits[0].Item.Value != "AS64496" || hits[0].Prefix.String() != "198.51.100.0/24" || hits[0].List.ID != id {
		t.Errorf("expected AS64496 by 198.51.100.0/24, got %+v", hits)
	}

	// The databases change; what the list gained is told.
	w.machine("m", "o1")
	if err := s.MachineChanged(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	s.tell(t.Context())
	w.took()
	w.as[64496] = prefixes("198.51.100.0/24")
	if err := s.RangesChanged(); err != nil {
		t.Fatal(err)
	}
	if covers(s, "203.0.113.9", "m", "o1") || !covers(s, "198.51.100.1", "m", "o1") {
		t.Error("expected the AS as the new database has it")
	}
	w.pass(time.Minute)
	s.tell(t.Context())
	if got := w.took(); got != nil {
		t.Errorf("expected no order for what was lost, got %v", got)
	}
	w.as[64496] = prefixes("198.51.100.0/24", "203.0.112.0/24")
	if err := s.RangesChanged(); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	s.tell(t.Context())
	if diff := cmp.Diff([]string{"m force_pull"}, w.took()); diff != "" {
		t.Errorf("orders: %s", diff)
	}
}

func TestRefused(t *testing.T) {
	w := newWorld()
	w.as[64496] = prefixes("198.51.100.0/25", "203.0.113.0/24", "192.0.2.0/24", "100.0.0.0/24")
	w.files["aws.json"] = `{"prefixes":[{"ip_prefix":"100.0.0.0/24","region":"eu-west-1","service":"S3"}]}`
	s := w.service(t, func(c *Config) { c.MaxRanges = 3 })
	id := create(t, s, "o1", "office", []string{"all"}, "192.0.2.1")
	for value, want := range map[string]string{
		"AS64496":             "5 addresses and ranges, 4 of them for AS64496: expected 3 at most",
		"AS64497":             "enrich.asn",
		"country:DE":          "enrich.country",
		"cloud:azure":         "no ranges of cloud:azure: add them to its setting allowlists.clouds, which has aws, edge",
		"cloud:aws/x":         `no service or region "x": it has eu-west-1, s3`,
		"cloud:edge":          "could not be read now",
		"nowhere.example.org": "leads to no address now",
	} {
		_, err := s.Put(t.Context(), id, []muster.AllowItem{item(t, value)})
		if err == nil || !strings.Contains(err.Error(), want) || muster.CodeOf(err) == "" {
			t.Errorf("%s: expected %q, got %v", value, want, err)
		}
	}
	w.as, w.countries = nil, nil
	if _, err := s.Put(t.Context(), id, []muster.AllowItem{item(t, "AS1")}); err == nil || !strings.Contains(err.Error(), "set enrich.asn") {
		t.Errorf("without a database: %v", err)
	}
	past := item(t, "192.0.2.9")
	past.ExpiresAt = start
	long := item(t, "192.0.2.9")
	long.Reason = strings.Repeat("x", 501)
	wrong := item(t, "192.0.2.9")
	wrong.Value = "192.0.2.9 "
	var hosts []muster.AllowItem
	for n := range muster.MaxAllowHosts + 1 {
		hosts = append(hosts, item(t, fmt.Sprintf("h%d.example.org", n)))
	}
	for name, items := range map[string][]muster.AllowItem{"past": {past}, "long": {long}, "not canonical": {wrong}, "none": nil, "hosts": hosts} {
		if _, err := s.Put(t.Context(), id, items); muster.CodeOf(err) != muster.Invalid && muster.CodeOf(err) != muster.TooLarge {
			t.Errorf("%s: expected to be refused, got %v", name, err)
		}
	}
	if w.asked > 1 {
		t.Errorf("expected no look-up of refused names, got %d", w.asked)
	}
	states, _ := s.Items(id)
	if len(states) != 1 {
		t.Errorf("expected the one item from before, got %v", states)
	}
	for name, l := range map[string]muster.Allowlist{
		"name":        {Name: "Büro"},
		"central":     {Name: "central"},
		"description": {Name: "x", Description: strings.Repeat("x", 501)},
		"kind":        {Name: "x", Organisation: "o1", Targets: []muster.Subscriber{{Kind: "x", ID: "y"}}},
		"empty tag":   {Name: "x", Organisation: "o1", Targets: []muster.Subscriber{{Kind: muster.SubscriberTag}}},
		"targets":     {Name: "x", Targets: []muster.Subscriber{{Kind: muster.SubscriberOrganisation}}},
	} {
		if _, err := s.Create(t.Context(), l); muster.CodeOf(err) == "" {
			t.Errorf("%s: expected to be refused, got %v", name, err)
		}
	}
}

// The list that every installation has is made when something is put on it.
func TestCentralList(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	put(t, s, muster.CentralAllowlist, "192.0.2.1")
	if !slices.Equal(w.changes, []bool{true}) {
		t.Errorf("expected to be told of a change for everybody, got %v", w.changes)
	}
	if _, ok := s.Central().Covers(source("192.0.2.1")); !ok {
		t.Error("expected it to cover what is on it")
	}
	if got := s.Links("m", "o1", nil); len(got) != 0 {
		t.Errorf("expected no link to it: what engines detect themselves is their own matter, got %v", got)
	}
	remove(t, s, muster.CentralAllowlist, "192.0.2.1")
	if s.Central() != nil || s.CentralEntries() != nil {
		t.Error("expected nothing to be covered")
	}
	if _, err := s.Update(t.Context(), muster.CentralAllowlist, func(l *muster.Allowlist) error { l.Name = "x"; return nil }); muster.CodeOf(err) != muster.Invalid {
		t.Errorf("expected its name to stay, got %v", err)
	}
}

// What another node, or another way into the database, has changed is taken in,
// and told to machines.
func TestReload(t *testing.T) {
	w := newWorld()
	w.machine("m1", "o1")
	s := w.service(t)
	id := create(t, s, "o1", "office", []string{"all"}, "192.0.2.1")
	w.pass(time.Minute)
	s.tell(t.Context())
	w.took()
	i := item(t, "192.0.2.2")
	i.List = id
	if err := w.PutAllowItems(t.Context(), id, start, []muster.AllowItem{i}); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !covers(s, "192.0.2.2", "m1", "o1") {
		t.Error("expected the item")
	}
	w.pass(time.Minute)
	s.tell(t.Context())
	if diff := cmp.Diff([]string{"m1 force_pull"}, w.took()); diff != "" {
		t.Errorf("orders: %s", diff)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	s.tell(t.Context())
	if got := w.took(); got != nil {
		t.Errorf("expected no order when nothing changed, got %v", got)
	}
}

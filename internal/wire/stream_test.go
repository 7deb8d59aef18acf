package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
)

func TestTheGuardDropsWhatHurtsEngines(t *testing.T) {
	ok := Entry{Value{Source: source("23.1.1.1")}, time.Hour}
	list := BlocklistLink{Name: "n", URL: "https://h/x", Remediation: "ban", Scope: "ip", Duration: time.Hour}
	allow := AllowlistLink{ID: "i", Name: "n", URL: "https://h/x", CreatedAt: at, UpdatedAt: at}
	group := func(scenario, scope string, entries ...Entry) Stream {
		return Stream{New: []Group{{scenario, scope, entries}}}
	}
	blocklist := func(change func(*BlocklistLink)) Stream {
		l := list
		change(&l)
		return Stream{Links: Links{Blocklists: []BlocklistLink{l}}}
	}
	allowlist := func(change func(*AllowlistLink)) Stream {
		l := allow
		change(&l)
		return Stream{Links: Links{Allowlists: []AllowlistLink{l}}}
	}
	for _, tt := range []struct {
		name    string
		s       Stream
		dropped int
	}{
		{"no scenario", group("", "ip", ok, ok), 2},
		{"a blank scenario", group(" ", "ip", ok), 1},
		{"no scope", group("s", "", ok), 1},
		{"an empty group", group("s", "ip"), 0},
		{"no value", group("s", "ip", Entry{Value{}, time.Hour}), 1},
		{"no address", group("s", "ip", Entry{Value{Text: "192.0.2.300"}, time.Hour}), 1},
		{"no range", group("s", "Range", Entry{Value{Text: "192.0.2.0/33"}, time.Hour}), 1},
		{"an address with a zone", group("s", "IP", Entry{Value{Text: "fe80::1%eth0"}, time.Hour}), 1},
		{"no duration", group("s", "ip", Entry{ok.Value, 0}), 1},
		{"a negative duration", group("s", "ip", Entry{ok.Value, -time.Hour}), 1},
		{"a duration that rounds to nothing", group("s", "ip", Entry{ok.Value, 999 * time.Millisecond}), 1},
		{"no text under another scope", group("s", "Country", ok), 1},
		{"deleted without scope", Stream{Deleted: []DeletedGroup{{"", []Value{ok.Value, ok.Value}}}}, 2},
		{"deleted without values", Stream{Deleted: []DeletedGroup{{"ip", nil}}}, 0},
		{"deleted that is no address", Stream{Deleted: []DeletedGroup{{"ip", []Value{{Text: "x"}}}}}, 1},
		{"a blocklist without name", blocklist(func(l *BlocklistLink) { l.Name = "" }), 1},
		{"a blocklist without URL", blocklist(func(l *BlocklistLink) { l.URL = "" }), 1},
		{"a blocklist with a relative URL", blocklist(func(l *BlocklistLink) { l.URL = "/lists/x" }), 1},
		{"a blocklist without remediation", blocklist(func(l *BlocklistLink) { l.Remediation = "" }), 1},
		{"a blocklist without scope", blocklist(func(l *BlocklistLink) { l.Scope = "" }), 1},
		{"a blocklist without duration", blocklist(func(l *BlocklistLink) { l.Duration = 0 }), 1},
		{"an allowlist without id", allowlist(func(l *AllowlistLink) { l.ID = "" }), 1},
		{"an allowlist without name", allowlist(func(l *AllowlistLink) { l.Name = "" }), 1},
		{"an allowlist without URL", allowlist(func(l *AllowlistLink) { l.URL = "ftp://h/x" }), 1},
		{"an allowlist without dates", allowlist(func(l *AllowlistLink) { l.UpdatedAt = time.Time{} }), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, dropped := AppendStreamV3(nil, tt.s)
			want := `{"new":[],"deleted":[],"links":{"blocklists":[],"allowlists":[]}}`
			if string(got) != want || dropped != tt.dropped {
				t.Errorf("dropped %d, expected %d; got %s", dropped, tt.dropped, got)
			}
			if len(tt.s.Links.Blocklists)+len(tt.s.Links.Allowlists) > 0 {
				return // v2 has no links
			}
			if got, dropped := AppendStreamV2(nil, tt.s); string(got) != `{"new":[],"deleted":[]}` || dropped != tt.dropped {
				t.Errorf("v2: dropped %d, expected %d; got %s", dropped, tt.dropped, got)
			}
		})
	}
}

func TestWhatIsDroppedLeavesItsNeighbours(t *testing.T) {
	good, bad := Entry{Value{Source: source("23.1.1.1")}, time.Hour}, Entry{Value{Text: "bad"}, time.Hour}
	s := Stream{
		New:     []Group{{"a", "ip", []Entry{bad}}, {"b", "ip", []Entry{bad, good, bad, good}}, {"", "ip", nil}, {"c", "ip", []Entry{good}}},
		Deleted: []DeletedGroup{{"ip", []Value{bad.Value}}, {"ip", []Value{bad.Value, good.Value}}},
	}
	got, dropped := AppendStreamV3([]byte("before"), s)
	want := `before{"new":[{"scenario":"b","scope":"ip","decisions":[{"value":"23.1.1.1","duration":"1h0m0s"},{"value":"23.1.1.1","duration":"1h0m0s"}]},` +
		`{"scenario":"c","scope":"ip","decisions":[{"value":"23.1.1.1","duration":"1h0m0s"}]}],` +
		`"deleted":[{"scope":"ip","decisions":["23.1.1.1"]}],"links":{"blocklists":[],"allowlists":[]}}`
	if string(got) != want || dropped != 5 {
		t.Errorf("dropped %d\nwant %s\ngot  %s", dropped, want, got)
	}
}

// The property behind every published list: whatever a Stream holds, what is
// encoded passes the checks that crash engines or cost them the whole list, and
// nothing is lost uncounted.
func TestEverythingEncodedIsSafeForEngines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyStream(t)
		given := 0
		for _, g := range s.New {
			given += len(g.Decisions)
		}
		for _, g := range s.Deleted {
			given += len(g.Values)
		}
		out, dropped := AppendStreamV2(nil, s)
		kept, err := checkV2(out)
		if err != nil || kept+dropped != given {
			t.Fatalf("v2: %v; %d kept and %d dropped of %d\n%s", err, kept, dropped, given, out)
		}
		given += len(s.Links.Blocklists) + len(s.Links.Allowlists)
		out, dropped = AppendStreamV3(nil, s)
		kept, err = checkV3(out)
		if err != nil || kept+dropped != given {
			t.Fatalf("v3: %v; %d kept and %d dropped of %d\n%s", err, kept, dropped, given, out)
		}
	})
}

func anyStream(t *rapid.T) Stream {
	text := rapid.OneOf(
		rapid.SampledFrom([]string{
			"", " ", "ip", "Ip", "range", "RANGE", "Country", "AS", "crowdsecurity/ssh-bf", "192.0.2.1", " 192.0.2.1",
			"192.0.2.1/33", "192.0.2.1/24", "::ffff:192.0.2.1", "::ffff:0:0/90", "fe80::1%lo", "#", "\n", "0.0.0.0/0", "\xff", "https://h/x", "http://", "//h",
		}),
		rapid.String())
	duration := rapid.OneOf(
		rapid.Map(rapid.Int64(), func(n int64) time.Duration { return time.Duration(n) }),
		rapid.SampledFrom([]time.Duration{0, 1, -1, time.Second - 1, time.Second, 72 * time.Hour, 1<<63 - 1}))
	src := rapid.Custom(func(t *rapid.T) muster.Source {
		addr, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))
		if rapid.Bool().Draw(t, "v4") {
			b := addr.As16()
			addr = netip.AddrFrom4([4]byte(b[:4]))
		}
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			return muster.Source{}
		case 1:
			return muster.SourceFromAddr(addr)
		}
		return muster.SourceFromPrefix(netip.PrefixFrom(addr, rapid.IntRange(0, addr.BitLen()).Draw(t, "bits")))
	})
	value := rapid.Custom(func(t *rapid.T) Value { return Value{src.Draw(t, "source"), text.Draw(t, "text")} })
	moment := rapid.SampledFrom([]time.Time{{}, at, time.Unix(0, 0), time.Unix(1<<60, 0), time.Unix(-1<<60, 0)})
	return Stream{
		New: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Group {
			return Group{text.Draw(t, "scenario"), text.Draw(t, "scope"), rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Entry {
				return Entry{value.Draw(t, "value"), duration.Draw(t, "duration")}
			}), 0, 4).Draw(t, "decisions")}
		}), 0, 4).Draw(t, "new"),
		Deleted: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) DeletedGroup {
			return DeletedGroup{text.Draw(t, "scope"), rapid.SliceOfN(value, 0, 4).Draw(t, "values")}
		}), 0, 3).Draw(t, "deleted"),
		Links: Links{
			Blocklists: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) BlocklistLink {
				return BlocklistLink{text.Draw(t, "name"), text.Draw(t, "url"), text.Draw(t, "remediation"), text.Draw(t, "scope"), duration.Draw(t, "duration")}
			}), 0, 2).Draw(t, "blocklists"),
			Allowlists: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) AllowlistLink {
				return AllowlistLink{text.Draw(t, "id"), text.Draw(t, "name"), text.Draw(t, "description"), text.Draw(t, "url"), moment.Draw(t, "created"), moment.Draw(t, "updated")}
			}), 0, 2).Draw(t, "allowlists"),
		},
	}
}

// strictly decodes into a type whose pointers tell absent and null from empty,
// and refuses anything unexpected.
func strictly(out []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(out))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// checkV3 is what an engine of 1.5 or later does with a stream, turned into
// errors where it would crash or refuse; it counts decisions and links.
func checkV3(out []byte) (kept int, err error) {
	var s struct {
		New *[]struct {
			Scenario, Scope *string
			Decisions       []struct{ Value, Duration *string }
		}
		Deleted *[]struct {
			Scope     *string
			Decisions []*string
		}
		Links *struct {
			Blocklists *[]struct{ Name, URL, Remediation, Scope, Duration *string }
			Allowlists *[]struct {
				ID, Name, Description, URL *string
				CreatedAt                  *string `json:"created_at"`
				UpdatedAt                  *string `json:"updated_at"`
			}
		}
	}
	if err := strictly(out, &s); err != nil {
		return 0, err
	}
	if s.New == nil || s.Deleted == nil || s.Links == nil || s.Links.Blocklists == nil || s.Links.Allowlists == nil {
		return 0, fmt.Errorf("a list is missing")
	}
	c := checker{}
	for _, g := range *s.New {
		c.filled("scenario", g.Scenario)
		c.filled("scope", g.Scope)
		c.that(len(g.Decisions) > 0, "a group is empty")
		for _, d := range g.Decisions {
			c.value(g.Scope, d.Value)
			c.duration(d.Duration)
			kept++
		}
	}
	for _, g := range *s.Deleted {
		c.filled("scope", g.Scope)
		c.that(len(g.Decisions) > 0, "a deleted group is empty")
		for _, v := range g.Decisions {
			c.value(g.Scope, v)
			kept++
		}
	}
	for _, l := range *s.Links.Blocklists {
		c.filled("name", l.Name)
		c.filled("remediation", l.Remediation)
		c.filled("scope", l.Scope)
		c.url(l.URL)
		c.duration(l.Duration)
		kept++
	}
	for _, l := range *s.Links.Allowlists {
		c.filled("id", l.ID)
		c.filled("name", l.Name)
		c.filled("description", l.Description)
		c.url(l.URL)
		c.time(l.CreatedAt)
		c.time(l.UpdatedAt)
		kept++
	}
	return kept, c.err
}

// checkV2 is the same for engines up to 1.4.6.
func checkV2(out []byte) (kept int, err error) {
	type flat struct{ Duration, Origin, Scenario, Scope, Type, Value *string }
	var s struct{ New, Deleted *[]flat }
	if err := strictly(out, &s); err != nil {
		return 0, err
	}
	if s.New == nil || s.Deleted == nil {
		return 0, fmt.Errorf("a list is missing")
	}
	c := checker{}
	for _, d := range append(*s.New, *s.Deleted...) {
		c.filled("scenario", d.Scenario)
		c.filled("scope", d.Scope)
		c.that(d.Origin != nil && *d.Origin == "CAPI", "origin")
		c.that(d.Type != nil && *d.Type == "ban", "type")
		c.value(d.Scope, d.Value)
		c.duration(d.Duration)
		kept++
	}
	return kept, c.err
}

type checker struct{ err error }

func (c *checker) that(ok bool, format string, args ...any) {
	if !ok && c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

func (c *checker) filled(name string, s *string) {
	c.that(s != nil && strings.TrimSpace(*s) != "", "%s is missing or blank", name)
}

func (c *checker) value(scope, value *string) {
	c.filled("value", value)
	if scope == nil || value == nil || !strings.EqualFold(*scope, "ip") && !strings.EqualFold(*scope, "range") {
		return
	}
	_, err := netip.ParseAddr(*value)
	if strings.Contains(*value, "/") {
		_, err = netip.ParsePrefix(*value)
	}
	c.that(err == nil && !strings.Contains(*value, "%"), "value %q: %v", *value, err)
}

func (c *checker) duration(s *string) {
	c.filled("duration", s)
	if s != nil {
		d, err := time.ParseDuration(*s)
		c.that(err == nil && d > 0, "duration %q: %v", *s, err)
	}
}

func (c *checker) url(s *string) {
	c.filled("url", s)
	if s != nil {
		u, err := url.Parse(*s)
		c.that(err == nil && u.Host != "" && strings.HasPrefix(u.Scheme, "http"), "url %q", *s)
	}
}

func (c *checker) time(s *string) {
	c.filled("time", s)
	if s != nil {
		_, err := time.Parse(time.RFC3339, *s)
		c.that(err == nil, "time %q: %v", *s, err)
	}
}

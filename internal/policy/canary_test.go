package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"muster"
)

func canaries(t testing.TB, origin string, values ...string) []muster.Canary {
	t.Helper()
	var all []muster.Canary
	for _, v := range values {
		c, err := muster.NewCanary(origin, v)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

func TestCanariesMatch(t *testing.T) {
	list := NewCanaries(append(canaries(t, "operator", "8.8.8.8", "66.249.64.0/19", "66.249.66.0/24", "2001:4860::/32", "2606:4700:4700::1111", "AS64496", "*.googlebot.com"),
		canaries(t, "misp:x", "8.8.8.8", "66.249.66.0/24", "AS64496")...))
	if list.Len() != 10 || list.Names() != 1 {
		t.Errorf("%d canaries, %d names; expected 10 and 1", list.Len(), list.Names())
	}
	for in, c := range map[string]struct {
		asn    uint32
		want   string // id
		inside bool
	}{
		"8.8.8.8":              {0, "misp:x/8.8.8.8", true}, // the first id stands for both
		"8.8.8.9":              {0, "", false},
		"8.8.8.8/31":           {0, "", true}, // a range with a canary in it is none itself
		"8.0.0.0/8":            {0, "", true},
		"8.8.4.0/24":           {0, "", false},
		"66.249.66.1":          {0, "misp:x/66.249.66.0/24", true}, // the narrowest
		"66.249.66.128/25":     {0, "misp:x/66.249.66.0/24", true},
		"66.249.66.0/23":       {0, "operator/66.249.64.0/19", true},
		"66.249.64.0/18":       {0, "", true},
		"66.249.67.1":          {64496, "operator/66.249.64.0/19", true}, // the address says more than its AS
		"192.0.2.7":            {64496, "misp:x/AS64496", false},
		"198.51.0.0/16":        {64496, "misp:x/AS64496", false},
		"192.0.2.8":            {64497, "", false},
		"2001:4860:4801::1":    {0, "operator/2001:4860::/32", true},
		"2001:4860:4801::/64":  {0, "operator/2001:4860::/32", true},
		"2001:4861::1":         {0, "", false},
		"2606:4700:4700::1111": {0, "operator/2606:4700:4700::1111", true},
		"2606:4700:4700::/64":  {0, "", true},
	} {
		got, ok := list.Match(source(t, in), c.asn)
		if got.ID != c.want || ok != (c.want != "") {
			t.Errorf("%s of AS %d: got %q, %t; want %q", in, c.asn, got.ID, ok, c.want)
		}
		if inside := list.Inside(source(t, in)); inside != c.inside {
			t.Errorf("%s: canaries inside: %t, want %t", in, inside, c.inside)
		}
	}
	if _, ok := list.Match(muster.Source{}, 64496); ok || list.Inside(muster.Source{}) {
		t.Error("the zero source is a canary")
	}
}

func TestCanariesMatchName(t *testing.T) {
	list := NewCanaries(canaries(t, "operator", "*.googlebot.com", "*.example.org", "*.crawl.example.org"))
	for name, want := range map[string]string{
		"crawl-66-249-66-1.googlebot.com":  "*.googlebot.com",
		"Crawl-66-249-66-1.GoogleBot.com.": "*.googlebot.com",
		"a.b.c.googlebot.com":              "*.googlebot.com",
		"googlebot.com":                    "",
		"xgooglebot.com":                   "",
		"a.googlebot.com.evil.example":     "",
		"a.crawl.example.org":              "*.crawl.example.org",
		"crawl.example.org":                "*.example.org",
		".googlebot.com":                   "",
		"..googlebot.com":                  "",
		"com":                              "",
		".":                                "",
		"":                                 "",
		"a.googlebot.com..":                "",
		strings.Repeat("a.", 200) + "googlebot.com": "",
	} {
		got, ok := list.MatchName(name)
		if got.Value != want || ok != (want != "") {
			t.Errorf("%q: got %q, %t; want %q", name, got.Value, ok, want)
		}
	}
}

func TestNoCanaries(t *testing.T) {
	var none *Canaries
	bad := []muster.Canary{{}, {Kind: "x", Value: "1.1.1.1"}, {Kind: muster.CanaryAddress, Value: "x"}, {Kind: muster.CanaryAS, Value: "AS0"}, {Kind: muster.CanaryName, Value: "*."}}
	for name, list := range map[string]*Canaries{"nil": none, "zero": {}, "of none": NewCanaries(nil), "of nothing valid": NewCanaries(bad)} {
		_, matched := list.Match(source(t, "1.1.1.1"), 1)
		_, named := list.MatchName("a.example.org")
		if matched || named || list.Inside(source(t, "1.0.0.0/8")) || list.Len() != 0 || list.Names() != 0 {
			t.Errorf("%s: has a canary", name)
		}
	}
}

// Match and Inside agree with what the prefixes say, one by one.
func TestCanariesAgreeWithPrefixes(t *testing.T) {
	text := rapid.Custom(func(t *rapid.T) string { // few bits, so that overlaps happen
		if rapid.Bool().Draw(t, "v6") {
			return fmt.Sprintf("2a00:%x:%x::/%d", rapid.IntRange(0, 3).Draw(t, "b"), rapid.IntRange(0, 3).Draw(t, "c")<<14, rapid.IntRange(16, 128).Draw(t, "bits"))
		}
		return fmt.Sprintf("20.%d.%d.0/%d", rapid.IntRange(0, 3).Draw(t, "b"), rapid.IntRange(0, 3).Draw(t, "c")<<6, rapid.IntRange(8, 32).Draw(t, "bits"))
	})
	rapid.Check(t, func(rt *rapid.T) {
		list := canaries(t, "operator", rapid.SliceOfN(text, 0, 6).Draw(rt, "ranges")...)
		as := rapid.SliceOfN(rapid.Uint32Range(1, 4), 0, 3).Draw(rt, "as")
		for _, n := range as {
			list = append(list, canaries(t, "operator", fmt.Sprintf("AS%d", n))...)
		}
		s, asn := source(t, text.Draw(rt, "source")), rapid.Uint32Range(0, 4).Draw(rt, "asn")

		var best netip.Prefix
		inside, wantAS := false, false
		for _, c := range list {
			if p := c.Source().Prefix(); p.IsValid() {
				inside = inside || p.Overlaps(s.Prefix())
				if p.Bits() <= s.Prefix().Bits() && p.Contains(s.Addr()) && (!best.IsValid() || p.Bits() > best.Bits()) {
					best = p
				}
			} else {
				wantAS = wantAS || c.Value == fmt.Sprintf("AS%d", asn)
			}
		}
		want := ""
		switch {
		case best.IsValid():
			want = muster.SourceFromPrefix(best).String()
		case wantAS:
			want = fmt.Sprintf("AS%d", asn)
		}
		compiled := NewCanaries(list)
		if got, ok := compiled.Match(s, asn); got.Value != want || ok != (want != "") {
			rt.Fatalf("%s of AS %d: got %q, %t; want %q", s, asn, got.Value, ok, want)
		}
		if got := compiled.Inside(s); got != inside {
			rt.Fatalf("%s: canaries inside: %t, want %t", s, got, inside)
		}
	})
}

func TestBuiltInCanaries(t *testing.T) {
	all := BuiltInCanaries()
	list := NewCanaries(all)
	if len(all) != 26+16+4 {
		t.Errorf("%d canaries: was one added?", len(all))
	}
	seen := map[string]bool{}
	for _, c := range all {
		if seen[c.ID] || c.Reason == "" || c.Origin != "built-in" || c.Kind == muster.CanaryName {
			t.Errorf("%+v: expected it once and with a reason", c)
		}
		seen[c.ID] = true
		if c.Kind == muster.CanaryRange && c.Source().Prefix().Bits() < 24 {
			t.Errorf("%s is wide: is there nobody else in it?", c.Value)
		}
	}
	for in, want := range map[string]bool{"8.8.8.8": true, "8.8.8.9": false, "2001:500:9f::42": true, "192.175.48.6": true, "198.41.0.4": true, "198.41.0.5": false} {
		if _, ok := list.Match(source(t, in), 15169); ok != want {
			t.Errorf("%s: a canary: %t, want %t", in, ok, want)
		}
	}
}

func BenchmarkCanaries(b *testing.B) {
	var values []string
	for i := range 100_000 {
		values = append(values, fmt.Sprintf("%d.%d.%d.%d", 11+i%80, i>>11&255, i>>3&255, i&255))
	}
	for i := range 2_000 {
		values = append(values, fmt.Sprintf("%d.%d.0.0/20", 130+i%40, i>>4&255), fmt.Sprintf("2a00:%x::/48", i), fmt.Sprintf("AS%d", 1000+i))
	}
	list := NewCanaries(canaries(b, "operator", append(values, "*.googlebot.com", "2606:4700:4700::1111")...))
	for _, text := range []string{"35.188.49.176", "130.0.7.7", "201.7.0.0/16", "2a01:4f8:c17:b0f::2", "2606:4700:4700::1111"} {
		s := source(b, text)
		b.Run("match "+text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				list.Match(s, 64500)
			}
		})
		b.Run("inside "+text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				list.Inside(s)
			}
		})
	}
	b.Run("name", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			list.MatchName("crawl-66-249-66-1.googlebot.com.")
		}
	})
}

func BenchmarkNewCanaries(b *testing.B) {
	var values []string
	for i := range 100_000 {
		values = append(values, fmt.Sprintf("%d.%d.%d.%d", 11+i%80, i>>11&255, i>>3&255, i&255))
	}
	all := canaries(b, "misp:x", values...)
	b.ReportAllocs()
	for b.Loop() {
		NewCanaries(all)
	}
}

// Sets of patterns of names are told apart, whatever else is in them.
func TestNamesID(t *testing.T) {
	compile := func(values ...string) *Canaries {
		var list []muster.Canary
		for _, value := range values {
			c, err := muster.NewCanary(muster.OriginOperator, value)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, c)
		}
		return NewCanaries(list)
	}
	some := compile("*.a.example", "*.b.example", "AS64500", "8.8.8.8", "AS64501")
	if some.NamesID() != compile("*.b.example", "*.a.example").NamesID() {
		t.Error("the order of patterns, or what is none, matters")
	}
	if some.NamesID() == compile("*.a.example").NamesID() || some.NamesID() == compile("*.a.example", "*.c.example").NamesID() {
		t.Error("other patterns are taken for the same")
	}
	var none *Canaries
	if some.ASes() != 2 || none.ASes() != 0 || none.NamesID() != 0 {
		t.Errorf("%d AS, of none %d, and id %d", some.ASes(), none.ASes(), none.NamesID())
	}
}

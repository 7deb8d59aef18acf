package policy

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"muster"
)

func source(t testing.TB, text string) muster.Source {
	t.Helper()
	s, err := muster.ParseSource(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAllowlistCovers(t *testing.T) {
	list := NewAllowlist([]muster.AllowEntry{
		{Source: source(t, "8.8.8.8"), Reason: "resolver"},
		{Source: source(t, "35.188.0.0/16"), Reason: "cloud"},
		{Source: source(t, "35.188.49.0/24"), Reason: "office"},
		{Source: source(t, "2a01:4f8:c17::/48"), Reason: "v6 range"},
		{Source: source(t, "2606:4700:4700::1111"), Reason: "v6 address"},
		{}, // no source, covers nothing
	})
	if list.Len() != 5 {
		t.Errorf("%d entries, want 5", list.Len())
	}
	for in, want := range map[string]string{
		"8.8.8.8":              "resolver",
		"::ffff:8.8.8.8":       "resolver",
		"8.8.8.9":              "",
		"8.8.8.0/24":           "resolver", // an allowlisted address inside
		"8.8.8.8/31":           "resolver",
		"8.8.9.0/24":           "",
		"35.188.1.2":           "cloud",
		"35.188.49.176":        "office", // the closest entry gives the reason
		"35.188.49.128/25":     "office",
		"35.188.128.0/17":      "cloud",
		"35.188.0.0/16":        "cloud",
		"35.189.0.0":           "",
		"35.189.0.0/16":        "",
		"2a01:4f8:c17:b0f::2":  "v6 range",
		"2a01:4f8:c17:b::/64":  "v6 range",
		"2a01:4f8::/32":        "v6 range",
		"2a01:4f8:c18::1":      "",
		"2606:4700:4700::1111": "v6 address",
		"2606:4700:4700::1112": "",
		"2606:4700:4700::/64":  "v6 address",
		"::808:808":            "", // the bits of 8.8.8.8 in IPv6 are another address
	} {
		reason, ok := list.Covers(source(t, in))
		if reason != want || ok != (want != "") {
			t.Errorf("%s: got %q, %t; want %q", in, reason, ok, want)
		}
	}
	for _, in := range []string{"35.0.0.0/8", "0.0.0.0/0", "2000::/3"} { // several entries inside: any reason will do
		if reason, ok := list.Covers(source(t, in)); !ok || reason == "" {
			t.Errorf("%s: got %q, %t", in, reason, ok)
		}
	}
	if _, ok := list.Covers(muster.Source{}); ok {
		t.Error("the zero source is covered")
	}
}

func TestAllowlistOfEverything(t *testing.T) {
	for entry, c := range map[string]struct{ in, out string }{
		"0.0.0.0/0": {"1.1.1.1 0.0.0.0 1.0.0.0/8", "2606:4700::1 ::/0"},
		"::/0":      {"2606:4700::1 2000::/3 ::", "1.1.1.1 0.0.0.0/0"},
	} {
		list := NewAllowlist([]muster.AllowEntry{{Source: source(t, entry)}})
		for _, in := range strings.Fields(c.in) {
			if _, ok := list.Covers(source(t, in)); !ok {
				t.Errorf("%s does not cover %s", entry, in)
			}
		}
		for _, in := range strings.Fields(c.out) {
			if _, ok := list.Covers(source(t, in)); ok {
				t.Errorf("%s covers %s", entry, in)
			}
		}
	}
}

func TestEmptyAllowlists(t *testing.T) {
	var none *Allowlist
	for name, list := range map[string]*Allowlist{"nil": none, "zero": {}, "of none": NewAllowlist(nil), "of nothing valid": NewAllowlist([]muster.AllowEntry{{Reason: "x"}})} {
		if _, ok := list.Covers(source(t, "0.0.0.0/0")); ok || list.Len() != 0 {
			t.Errorf("%s: covers %t, %d entries", name, ok, list.Len())
		}
	}
}

// An entry covers exactly what it overlaps.
func TestAllowlistAgreesWithOverlap(t *testing.T) {
	text := rapid.Custom(func(t *rapid.T) string { // few bits, so that overlaps happen
		if rapid.Bool().Draw(t, "v6") {
			return fmt.Sprintf("2001:%x:%x::/%d", rapid.IntRange(0, 3).Draw(t, "b"), rapid.IntRange(0, 3).Draw(t, "c")<<14, rapid.IntRange(0, 128).Draw(t, "bits"))
		}
		return fmt.Sprintf("10.%d.%d.0/%d", rapid.IntRange(0, 3).Draw(t, "b"), rapid.IntRange(0, 3).Draw(t, "c")<<6, rapid.IntRange(0, 32).Draw(t, "bits"))
	})
	rapid.Check(t, func(rt *rapid.T) {
		var entries []muster.AllowEntry
		for _, e := range rapid.SliceOfN(text, 0, 5).Draw(rt, "entries") {
			entries = append(entries, muster.AllowEntry{Source: source(t, e)})
		}
		s := source(t, text.Draw(rt, "source"))
		want := false
		for _, e := range entries {
			want = want || e.Source.Prefix().Overlaps(s.Prefix())
		}
		if _, got := NewAllowlist(entries).Covers(s); got != want {
			rt.Fatalf("%s: covered %t, want %t", s, got, want)
		}
	})
}

const index = `{
 "parsers": {"crowdsecurity/sshd-logs": {"versions": {"0.1": {"digest": "1111111111111111111111111111111111111111111111111111111111111111"}}}},
 "scenarios": {
  "crowdsecurity/ssh-bf": {"path": "x", "version": "0.3", "versions": {
    "0.1": {"digest": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "deprecated": false},
    "0.3": {"digest": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}}},
  "crowdsecurity/odd": {"versions": {"0.1": {"digest": "short"}, "0.2": {}}},
  "crowdsecurity/none": {}
 },
 "appsec-rules": {"crowdsecurity/vpatch-CVE-2017-9841": {"versions": {"0.1": {"digest": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"}}}},
 "collections": {}
}`

func TestReadHub(t *testing.T) {
	hub, err := ReadHub(strings.NewReader(index))
	if err != nil {
		t.Fatal(err)
	}
	if hub.Len() != 4 {
		t.Errorf("%d scenarios, want 4", hub.Len())
	}
	for digest, want := range map[string]bool{
		strings.Repeat("a", 64): true,  // an old version
		strings.Repeat("b", 64): true,  // the newest
		strings.Repeat("c", 64): true,  // a rule of the web application firewall
		strings.Repeat("1", 64): false, // a parser never fires
		strings.Repeat("d", 64): false,
		strings.Repeat("A", 64): false, // admission lowers the case
		"short":                 false,
		"":                      false,
	} {
		if got := hub.Knows(digest); got != want {
			t.Errorf("%s: known %t, want %t", digest, got, want)
		}
	}
}

func TestNoHubTakesTheEnginesWord(t *testing.T) {
	var hub *Hub
	if !hub.Knows("") || hub.Len() != 0 {
		t.Error("a nil hub must know everything, and have no scenarios")
	}
}

func TestReadHubRefuses(t *testing.T) {
	broken := errors.New("connection reset")
	for name, c := range map[string]struct {
		in   io.Reader
		want string
	}{
		"nothing":             {strings.NewReader(""), "expected a hub index in JSON"},
		"HTML":                {strings.NewReader("<html>"), "expected a hub index in JSON"},
		"half an index":       {strings.NewReader(index[:200]), "expected a hub index in JSON"},
		"a list":              {strings.NewReader("[]"), "expected a hub index in JSON"},
		"an empty object":     {strings.NewReader("{}"), "names no scenario versions"},
		"parsers only":        {strings.NewReader(`{"parsers":{}}`), "names no scenario versions"},
		"unusable digests":    {strings.NewReader(`{"scenarios":{"a":{"versions":{"1":{"digest":"x"}}}}}`), "names no scenario versions"},
		"a broken transfer":   {io.MultiReader(strings.NewReader(index[:300]), iotest.ErrReader(broken)), "connection reset"},
		"a digest of numbers": {strings.NewReader(`{"scenarios":{"a":{"versions":{"1":{"digest":7}}}}}`), "expected a hub index in JSON"},
	} {
		hub, err := ReadHub(c.in)
		if err == nil || hub != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v; want %q", name, hub, err, c.want)
		}
	}
	if _, err := ReadHub(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("the cause is lost: %v", err)
	}
}

// The index of the real hub, as engines download it.
func TestReadRealHub(t *testing.T) {
	archive := filepath.Join(cmp.Or(os.Getenv("MUSTER_SHARED"), filepath.Join("..", "..", "..", "shared")), "data", "hub.tar.gz")
	f, err := os.Open(archive)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the hub's files are not here: ../shared/data/hub.tar.gz or MUSTER_SHARED")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := tar.NewReader(z)
	for {
		h, err := files.Next()
		if err != nil {
			t.Fatalf("%s has no .index.json: %v", archive, err)
		}
		if filepath.Base(h.Name) == ".index.json" {
			break
		}
	}
	hub, err := ReadHub(files)
	if err != nil {
		t.Fatal(err)
	}
	if hub.Len() < 500 {
		t.Errorf("%d scenarios: the hub has hundreds", hub.Len())
	}
	// The digest that a real engine sent for crowdsecurity/ssh-bf, see the
	// captured requests.
	if !hub.Knows("4441dcff07020f6690d998b7101e642359ba405c2abb83565bbbdcee36de280f") {
		t.Error("the digest of crowdsecurity/ssh-bf 0.1 is not known")
	}
	if hub.Knows(strings.Repeat("0", 64)) {
		t.Error("a digest of zeros is known")
	}
}

func FuzzReadHub(f *testing.F) {
	f.Add(index)
	f.Add(`{"scenarios":null,"appsec-rules":{"a":null}}`)
	f.Fuzz(func(t *testing.T, text string) {
		hub, err := ReadHub(strings.NewReader(text))
		if (hub == nil) != (err != nil) {
			t.Errorf("got %v, %v", hub, err)
		}
		if err == nil && hub.Knows("") {
			t.Error("an empty digest is known")
		}
	})
}

func BenchmarkCovers(b *testing.B) {
	var entries []muster.AllowEntry
	for i := range 10_000 {
		entries = append(entries, muster.AllowEntry{Source: source(b, fmt.Sprintf("%d.%d.%d.0/24", 1+i%200, i>>8&255, i&255)), Reason: "x"})
	}
	list := NewAllowlist(entries)
	for _, text := range []string{"35.188.49.176", "201.7.0.0/16", "2a01:4f8:c17:b0f::2"} {
		s := source(b, text)
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				list.Covers(s)
			}
		})
	}
}

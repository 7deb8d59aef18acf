package policy

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
)

func zipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// summary tells what was read in a few lines.
func summary(lists []CanaryList) string {
	var b strings.Builder
	for _, l := range lists {
		for _, c := range l.Canaries {
			fmt.Fprintf(&b, "%s (%s)\n", c.ID, c.Reason)
		}
		for _, s := range l.Skipped {
			fmt.Fprintf(&b, "%s: %d skipped, %s: %q\n", l.Origin, s.Count, s.Reason, s.Example)
		}
	}
	return b.String()
}

const misp = `{"name":"List of known Googlebot IP ranges (https://example.org/x)","version":20261120,"description":"d","type":"cidr","matching_attributes":["ip-src"],
 "list":["66.249.64.0/19","66.249.79.1","2001:4860:4801:10::/60","66.249.64.0/19","66.249.64.77/19","192.168.0.0/16","0.0.0.0/1","www.google.com","*.googlebot.com","AS15169","10.1.2.3"]}`

const mispSummary = `misp:googlebot-ip-ranges/2001:4860:4801:10::/60 (List of known Googlebot IP ranges (https://example.org/x))
misp:googlebot-ip-ranges/66.249.64.0/19 (List of known Googlebot IP ranges (https://example.org/x))
misp:googlebot-ip-ranges/66.249.79.1 (List of known Googlebot IP ranges (https://example.org/x))
misp:googlebot-ip-ranges: 3 skipped, no address or range: "www.google.com"
misp:googlebot-ip-ranges: 2 skipped, reserved space, which is never published anyway: "192.168.0.0/16"
misp:googlebot-ip-ranges: 2 skipped, there more than once: ""
misp:googlebot-ip-ranges: 1 skipped, too wide a range: "0.0.0.0/1"
`

const textList = "# crawlers\n\n66.249.64.0/19 ; SBL1\r\n  66.249.79.1   # one of them\n.googlebot.com.\n*.Search.MSN.com\nAS15169\nwww.google.com\n.com\n127.0.0.1\n"

const textSummary = `list:crawlers/*.googlebot.com (crawlers)
list:crawlers/*.search.msn.com (crawlers)
list:crawlers/66.249.64.0/19 (crawlers)
list:crawlers/66.249.79.1 (crawlers)
list:crawlers/AS15169 (crawlers)
list:crawlers: 2 skipped, no address, range, AS number or pattern of names: "www.google.com"
list:crawlers: 1 skipped, reserved space, which is never published anyway: "127.0.0.1"
`

const whitelists = `name: x
whitelist:
  reason: "public DNS server"
  ip:
    # google
    - 8.8.8.8
    - "2001:4860:4860::8888"   # v6
    - 127.0.0.1
  cidr:
  - '76.76.2.0/24'
  expression:
    - evt.Enriched.reverse_dns endsWith '.ptr.discord.com.'
    - "any(File('rdns_seo_bots.txt'), { len(#) > 0 && evt.Enriched.reverse_dns endsWith #})"
data:
  ip:
    - 9.9.9.9
`

func hubWith(contents map[string]string) string {
	items := map[string]map[string]string{}
	for name, c := range contents {
		items[name] = map[string]string{"content": base64.StdEncoding.EncodeToString([]byte(c))}
	}
	text, _ := json.Marshal(map[string]any{"parsers": map[string]any{}, "postoverflows": items, "scenarios": map[string]any{}})
	return string(text)
}

func TestReadCanaries(t *testing.T) {
	collection := `{"googlebot":["66.249.64.0/19"],"vpn-ipv4":["1.12.0.0/14"],"Apple Inc":["17.0.0.0/8","17.1.1.1"]}`
	for name, c := range map[string]struct {
		in     string
		wanted CanaryImport
		want   string
	}{
		"a warning list":              {misp, CanaryImport{}, mispSummary},
		"a warning list, zipped":      {zipped(t, misp), CanaryImport{}, mispSummary},
		"a warning list by a name":    {misp, CanaryImport{Lists: []string{"gb"}, File: "list.json"}, strings.ReplaceAll(mispSummary, "misp:googlebot-ip-ranges", "misp:gb")},
		"a warning list with a mark":  {"\xef\xbb\xbf \n" + misp, CanaryImport{}, mispSummary},
		"an old list without type":    {`{"name":"x","list":["8.8.8.8"]}`, CanaryImport{}, "misp:x/8.8.8.8 (x)\n"},
		"a nameless list":             {`{"list":["8.8.8.8"]}`, CanaryImport{File: "/tmp/Known Good.json.gz"}, "misp:known-good/8.8.8.8 (known-good)\n"},
		"names and addresses":         {`{"name":"crl-ip-hostname","type":"hostname","list":["crl.example.org","8.8.8.8"]}`, CanaryImport{}, "misp:crl-ip-hostname/8.8.8.8 (crl-ip-hostname)\nmisp:crl-ip-hostname: 1 skipped, no address or range: \"crl.example.org\"\n"},
		"a title for terminals":       {`{"name":"a\u001b[2J\nb\u0000c","type":"string","list":["8.8.8.8"]}`, CanaryImport{}, "misp:a-2j-b-c/8.8.8.8 (a [2J b c)\n"},
		"text":                        {textList, CanaryImport{File: `C:\lists\crawlers.txt`}, textSummary},
		"text, zipped":                {zipped(t, textList), CanaryImport{File: "x", Lists: []string{"crawlers"}}, textSummary},
		"one of several":              {collection, CanaryImport{Lists: []string{"googlebot"}}, "list:googlebot/66.249.64.0/19 (googlebot)\n"},
		"two of several":              {collection, CanaryImport{Lists: []string{"googlebot", "Apple Inc"}, File: "x"}, "list:googlebot/66.249.64.0/19 (googlebot)\nlist:apple-inc/17.0.0.0/8 (Apple Inc)\nlist:apple-inc/17.1.1.1 (Apple Inc)\n"},
		"the hub":                     {hubWith(map[string]string{"crowdsecurity/a": whitelists, "b": ""}), CanaryImport{File: ".index.json"}, "hub/*.ptr.discord.com (whitelist crowdsecurity/a of the hub)\nhub/2001:4860:4860::8888 (whitelist crowdsecurity/a of the hub)\nhub/76.76.2.0/24 (whitelist crowdsecurity/a of the hub)\nhub/8.8.8.8 (whitelist crowdsecurity/a of the hub)\nhub: 1 skipped, reserved space, which is never published anyway: \"127.0.0.1\"\n"},
		"an example for the terminal": {"8.8.8.8\n\x1b[2J\n", CanaryImport{File: "x"}, "list:x/8.8.8.8 (x)\nlist:x: 1 skipped, no address, range, AS number or pattern of names: \"[2J\"\n"},
	} {
		lists, err := ReadCanaries(strings.NewReader(c.in), c.wanted)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c.want, summary(lists)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestReadCanariesRefuses(t *testing.T) {
	many := strings.Repeat("8.8.8.8\n", MaxCanaryList+1)
	for name, c := range map[string]struct {
		in     string
		wanted CanaryImport
		code   muster.Code
		want   string
	}{
		"nothing":                    {"", CanaryImport{File: "x"}, muster.Invalid, "list:x can be a canary: it is empty"},
		"comments":                   {"# a\n; b\n", CanaryImport{File: "x"}, muster.Invalid, "it is empty"},
		"a page":                     {"<html>\n<body>\n", CanaryImport{File: "x"}, muster.Invalid, `2 entries like "<html>": no address, range`},
		"text without a name":        {textList, CanaryImport{}, muster.Invalid, "expected a name for the list"},
		"a file that is all dots":    {textList, CanaryImport{File: "../..txt"}, muster.Invalid, "expected a name for the list"},
		"a bad name":                 {textList, CanaryImport{Lists: []string{"My list"}}, muster.Invalid, `got "My list"`},
		"a long name":                {textList, CanaryImport{Lists: []string{strings.Repeat("x", 65)}}, muster.Invalid, "1 to 64"},
		"two names for one list":     {textList, CanaryImport{Lists: []string{"a", "b"}}, muster.Invalid, "got 2"},
		"half a list":                {misp[:200], CanaryImport{}, muster.Invalid, "expected a list in JSON"},
		"two lists in a row":         {misp + misp, CanaryImport{}, muster.Invalid, "expected a list in JSON"},
		"a list of numbers":          {`{"name":"x","list":[1,2]}`, CanaryImport{}, muster.Invalid, "expected a MISP warning list"},
		"a list of nothing":          {`{"name":"x","list":null}`, CanaryImport{}, muster.Invalid, "misp:x can be a canary: it is empty"},
		"expressions":                {`{"name":"x","type":"regex","list":["^8\\.8"]}`, CanaryImport{}, muster.Invalid, `of type "regex"`},
		"host names":                 {`{"name":"x","type":"hostname","list":["a.example.org"]}`, CanaryImport{}, muster.Invalid, `1 entries like "a.example.org": no address or range`},
		"several lists, none named":  {`{"b":["8.8.8.8"],"a":["8.8.4.4"]}`, CanaryImport{File: "x"}, muster.Invalid, "name those to take; there are a, b"},
		"a list that is not there":   {`{"a":["8.8.8.8"]}`, CanaryImport{Lists: []string{"c"}}, muster.Invalid, `no list "c"; there are a`},
		"lists of one name":          {`{"A b":["8.8.8.8"],"a b":["8.8.4.4"]}`, CanaryImport{Lists: []string{"A b", "a b"}}, muster.Invalid, "one name here"},
		"an empty one of several":    {`{"a":["8.8.8.8"],"b":[]}`, CanaryImport{Lists: []string{"a", "b"}}, muster.Invalid, "list:b can be a canary: it is empty"},
		"the hub's vocabulary":       {`{"seo:googlebot":{"label":"Googlebot"}}`, CanaryImport{}, muster.Invalid, `"seo:googlebot" is no list`},
		"the hub without contents":   {`{"parsers":{"a":{}},"scenarios":{}}`, CanaryImport{}, muster.Invalid, "no contents"},
		"the hub by a name":          {hubWith(map[string]string{"a": whitelists}), CanaryImport{Lists: []string{"x"}}, muster.Invalid, "expected no name"},
		"a hub without addresses":    {hubWith(map[string]string{"a": "whitelist:\n  expression:\n    - true\n"}), CanaryImport{}, muster.Invalid, "hub can be a canary: it is empty"},
		"a hub that is none":         {`{"parsers":[1]}`, CanaryImport{}, muster.Invalid, "expected a hub index"},
		"half a gzip file":           {zipped(t, misp)[:100], CanaryImport{}, muster.Invalid, "expected a whole gzip file"},
		"a start of gzip":            {"\x1f\x8b", CanaryImport{}, muster.Invalid, "expected a whole gzip file"},
		"a bomb":                     {zipped(t, strings.Repeat("0", MaxCanaryFile+1)), CanaryImport{}, muster.TooLarge, "at most 16 MiB"},
		"too much":                   {strings.Repeat("0", MaxCanaryFile+1), CanaryImport{}, muster.TooLarge, "at most 16 MiB"},
		"too many lines":             {many, CanaryImport{File: "x"}, muster.TooLarge, "at most 200000"},
		"too many in a warning list": {`{"name":"x","list":["` + strings.Repeat(`8.8.8.8","`, MaxCanaryList) + `8.8.8.8"]}`, CanaryImport{}, muster.TooLarge, "200001 entries"},
	} {
		lists, err := ReadCanaries(strings.NewReader(c.in), c.wanted)
		if lists != nil || muster.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: got %d lists, %v; want %q", name, len(lists), err, c.want)
		}
	}
	broken := errors.New("connection reset")
	if _, err := ReadCanaries(iotest.ErrReader(broken), CanaryImport{}); !errors.Is(err, broken) {
		t.Errorf("the cause is lost: %v", err)
	}
}

// Known networks by name, as a real file has them.
func TestReadKnownNetworks(t *testing.T) {
	var data bytes.Buffer
	if _, err := data.ReadFrom(shared(t, "data/canaries/known-good.json.gz")); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadCanaries(bytes.NewReader(data.Bytes()), CanaryImport{}); err == nil || !strings.Contains(err.Error(), "there are akamai, apple, bunny-net") {
		t.Errorf("expected to be asked which lists, got %v", err)
	}
	start := time.Now()
	lists, err := ReadCanaries(&data, CanaryImport{Lists: []string{"googlebot", "wikimedia", "public-dns-v4"}})
	if err != nil {
		t.Fatal(err)
	}
	var all []muster.Canary
	for _, l := range lists {
		t.Logf("%s: %d canaries, skipped %+v", l.Origin, len(l.Canaries), l.Skipped)
		all = append(all, l.Canaries...)
	}
	t.Logf("read in %s", time.Since(start))
	if len(lists[0].Canaries) != 65 || len(lists[1].Canaries) != 10 || len(lists[2].Canaries) < 60_000 {
		t.Error("expected 65, 10 and over 60,000 canaries")
	}
	compiled := NewCanaries(all)
	for in, want := range map[string]string{"66.249.66.1": "list:googlebot/66.249.66.0/24", "8.8.8.8": "list:public-dns-v4/8.8.8.8", "185.15.59.224": "list:wikimedia/185.15.56.0/22"} {
		if c, _ := compiled.Match(source(t, in), 0); c.ID != want {
			t.Errorf("%s: got %q, want %q", in, c.ID, want)
		}
	}
}

func TestReadHubsOwnWhitelists(t *testing.T) {
	lists, err := ReadCanaries(bytes.NewReader(hubIndex(t)), CanaryImport{})
	if err != nil {
		t.Fatal(err)
	}
	text := summary(lists)
	t.Logf("%d canaries, skipped %+v", len(lists[0].Canaries), lists[0].Skipped)
	for _, want := range []string{"hub/*.ptr.discord.com (whitelist crowdsecurity/discord-crawler-whitelist of the hub)", "hub/8.8.8.8 (", "hub/76.76.2.0/24 (", `reserved space, which is never published anyway: "::1"`} {
		if !strings.Contains(text, want) {
			t.Errorf("expected %s in\n%s", want, text)
		}
	}
}

func FuzzReadCanaries(f *testing.F) {
	for _, text := range []string{misp, textList, zipped(f, misp), hubWith(map[string]string{"a": whitelists}), `{"a":["8.8.8.8"]}`, `{"list":["8.8.8.8"]}`} {
		f.Add(text, "a")
		f.Add(text, "")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		wanted := CanaryImport{File: "x"}
		if name != "" {
			wanted.Lists = []string{name}
		}
		lists, err := ReadCanaries(strings.NewReader(text), wanted)
		if (lists == nil) != (err != nil) {
			t.Fatalf("got %d lists, %v", len(lists), err)
		}
		if code := muster.CodeOf(err); err != nil && code != muster.Invalid && code != muster.TooLarge {
			t.Errorf("an error of code %q: %v", code, err)
		}
		for _, l := range lists {
			for i, c := range l.Canaries {
				again, err := muster.NewCanary(l.Origin, c.Value)
				if again.Reason = c.Reason; err != nil || again != c || i > 0 && l.Canaries[i-1].ID >= c.ID {
					t.Errorf("%+v is no canary, or not in its place: %v", c, err)
				}
			}
		}
	})
}

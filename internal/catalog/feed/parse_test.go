package feed

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

func joined(sources []muster.Source) string {
	all := make([]string, len(sources))
	for i, s := range sources {
		all[i] = s.String()
	}
	return strings.Join(all, " ")
}

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		format, body string
		read         string // Parsed.Format
		want         string
		skipped      int
	}{
		"plain":             {"", "11.0.0.2\n11.0.0.1\r\n\n11.0.0.1\n2a00::1\n", Plain, "11.0.0.1 11.0.0.2 2a00::1", 0},
		"comments":          {"", "\xef\xbb\xbf# a list\n// of\n; what\n11.0.0.1 # a host\n11.0.0.2;x\n11.0.0.3 // y\n11.0.0.4\tsince 2026\n11.0.0.5,7,x", Plain, "11.0.0.1 11.0.0.2 11.0.0.3 11.0.0.4 11.0.0.5", 0},
		"FireHOL netset":    {"", "#\n# firehol_level1\n# Maintainer : x\n#\n0.0.0.0/8\n10.0.0.0/8\n11.0.0.0/24\n11.0.1.7\n12.0.0.0/8\n", Plain, "11.0.0.0/24 11.0.1.7 12.0.0.0/8", 2},
		"Spamhaus DROP":     {"", "; Spamhaus DROP List 2026/11/21 - (c) 2026 The Spamhaus Project\n; Last-Modified: x\n11.0.16.0/20 ; SBL256894\n11.0.32.0/20 ; SBL434604\n", Plain, "11.0.16.0/20 11.0.32.0/20", 0},
		"Spamhaus JSON":     {"", `{"cidr":"11.0.16.0/20","sblid":"SBL256894","rir":"apnic"}` + "\n" + `{"cidr":"2a00:1::/32","sblid":"SBL1","rir":"ripencc"}` + "\n" + `{"type":"metadata","timestamp":1795210734,"size":2}` + "\n", JSON, "11.0.16.0/20 2a00:1::/32", 0},
		"Emerging Threats":  {"", "# $Rev: 1 $\n# Emerging Threats fwip rules.\n\n#Feodo\n11.0.0.1\n#Spamhaus DROP Nets\n\n11.0.16.0/20\n", Plain, "11.0.0.1 11.0.16.0/20", 0},
		"ipsum":             {"", "# IPsum\n11.0.0.1\t9\n11.0.0.2\t3\n11.0.0.3\t1\n", Plain, "11.0.0.1 11.0.0.2 11.0.0.3", 0},
		"ipsum, at least 3": {"count:3", "# IPsum\n11.0.0.1\t9\n11.0.0.2\t3\n11.0.0.3\t2\n11.0.0.4\n11.0.0.5 x\n", "count:3", "11.0.0.1 11.0.0.2", 1},
		"DShield": {
			"", "#\n#   DShield.org Recommended Block List\nStart\tEnd\tNetmask\tAttacks\tName\tCountry\temail\n11.0.0.0\t11.0.0.255\t24\t5632\tX Y\tDE\tabuse@example.org\n11.0.2.0\t11.0.3.255\t23\t1\t\t\t\n11.0.4.0\t11.0.4.9\t24\t1\n",
			DShield, "11.0.0.0/24 11.0.2.0/23", 1,
		},
		"ranges":            {"", "11.0.0.1-11.0.0.4\n11.0.1.0 - 11.0.1.255\n11.0.2.7 - 11.0.2.7 # one\n2a00:: - 2a00::1\n", Plain, "11.0.0.1 11.0.0.2/31 11.0.0.4 11.0.1.0/24 11.0.2.7 2a00::/127", 0},
		"ranges the wrong":  {"", "11.0.0.4-11.0.0.1\n11.0.0.1-2a00::1\n11.0.0.1\n11.0.0.2\n", Plain, "11.0.0.1 11.0.0.2", 2},
		"ports":             {"", "11.0.0.1:8080\n[2a00::1]:53\n", Plain, "11.0.0.1 2a00::1", 0},
		"host bits":         {"", "11.0.0.77/24\n::ffff:11.0.1.1\n", Plain, "11.0.0.0/24 11.0.1.1", 0},
		"too wide":          {"", "0.0.0.0/0\n11.0.0.0/7\n::/0\n2a00::/15\n12.0.0.0/8\n", Plain, "12.0.0.0/8", 4},
		"everything":        {"", "0.0.0.0 - 255.255.255.255\n11.0.0.1\n", Plain, "11.0.0.1", 1},
		"reserved":          {"", "192.168.0.1\n127.0.0.1\n192.0.2.1\nfe80::1\n11.0.0.1\n", Plain, "11.0.0.1", 4},
		"CSV by title":      {"", "first_seen_utc,dst_ip,dst_port,c2_status\n2026-11-20 05:00:00,11.0.0.1,443,online\n2026-11-20 05:00:01,11.0.0.2,80,offline\n", "csv:dst_ip", "11.0.0.1 11.0.0.2", 0},
		"CSV in quotes":     {"", "# a tracker\n\"first,seen\";\"IP\";\"malware\"\n\"a;b\";\"11.0.0.1\";\"x\"\n", "csv:IP", "11.0.0.1", 0},
		"CSV without title": {"", "2026-11-20|11.0.0.1|x\n2026-11-20|11.0.0.2|x\n", "csv:2", "11.0.0.1 11.0.0.2", 0},
		"CSV by number":     {"csv:3", "a,b,c\n1,2,11.0.0.1\n1,2,11.0.0.2\n1,2\n", "csv:3", "11.0.0.1 11.0.0.2", 1},
		"CSV, title as comment": {
			"csv:dst_ip", "# x\n# y\n# first_seen,dst_ip,port\n2026,11.0.0.1,1\n", "csv:dst_ip", "11.0.0.1", 0,
		},
		"CSV, first column": {"", "ip,score\n11.0.0.1,9\n", "csv:ip", "11.0.0.1", 0},
		"JSON array":        {"", `["11.0.0.1", "11.0.0.0/30"]`, JSON, "11.0.0.0/30 11.0.0.1", 0},
		"JSON of clouds":    {"", `{"syncToken":"1","prefixes":[{"ip_prefix":"11.0.0.0/24","region":"x"}],"ipv6_prefixes":[{"ipv6_prefix":"2a00::/32"}]}`, JSON, "11.0.0.0/24 2a00::/32", 0},
		"JSON with more":    {"", `[{"ip":"11.0.0.1","network":"11.0.0.0/16","source":"12.0.0.1","host":"a.example"},{"ip":"bad"},{"ip":"11.0.0.2"}]`, JSON, "11.0.0.1 11.0.0.2", 1},
		"JSON, named array": {"", `{"name":"x","count":2,"ips":["11.0.0.1","11.0.0.2"]}`, JSON, "11.0.0.1 11.0.0.2", 0},
		"JSON, other name":  {"", `{"attackers":[{"where":"11.0.0.1","x":null}]}`, JSON, "11.0.0.1", 0},
		"JSON by path":      {"json:data.src.ip", `{"data":[{"src":{"ip":"11.0.0.1"},"ip":"11.0.0.9"}],"ip":"11.0.0.8"}`, "json:data.src.ip", "11.0.0.1", 0},
		"JSON by path too":  {"json:ip", `{"ipv4":"11.0.0.2","ip":"11.0.0.1"}{"ip":7}`, "json:ip", "11.0.0.1", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse([]byte(c.body), c.format, 1000)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]any{c.read, c.want, c.skipped}, []any{got.Format, joined(got.Sources), got.Skipped}); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		format, body, want string
		code               muster.Code
	}{
		"nothing":        {"", " \n", "it is empty", muster.Invalid},
		"comments alone": {"", "# nothing\n", "no address in it as plain", muster.Invalid},
		"a page":         {"", "<!DOCTYPE html><html>11.0.0.1</html>", "page in HTML", muster.Invalid},
		"words":          {"", "Not found\n", `no address in it as plain, for example "Not"`, muster.Invalid},
		"mostly words":   {"", "11.0.0.1\na\nb\n", "2 values of it are no address", muster.Invalid},
		"too many":       {"", "11.0.0.1\n11.0.0.2\n11.0.0.3\n11.0.0.4\n", "more than 3 entries", muster.TooLarge},
		"too many ranges": {
			"", "11.0.0.1 - 11.255.255.254\n", "more than 3 entries", muster.TooLarge,
		},
		"too many in JSON": {"", `["11.0.0.1","11.0.0.2","11.0.0.3","11.0.0.4"]`, "more than 3 entries", muster.TooLarge},
		"reserved alone":   {"", "10.0.0.1\n", "no address in it as plain", muster.Invalid},
		"cut JSON":         {"json:ip", `[{"ip":"11.0.0.1"`, "expected JSON", muster.Invalid},
		"no JSON":          {"json:ip", `nothing`, "expected JSON", muster.Invalid},
		"deep JSON":        {"", strings.Repeat("[", 100), "deeper than 32", muster.Invalid},
		"unclear JSON":     {"", `{"a":"11.0.0.1","b":"11.0.0.2"}`, "several fields have addresses (a, b)", muster.Invalid},
		"JSON of words":    {"", `{"error":"Forbidden"}`, "no address is in its first", muster.Invalid},
		"no such column":   {"csv:ip", "a,b\n1,11.0.0.1\n", `no column "ip"`, muster.Invalid},
		"unknown format":   {"xml", "", "expected a format like plain", muster.Invalid},
		"format's number":  {"count:x", "", "expected a format like plain", muster.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.body), c.format, 3)
			if muster.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("got %v of code %q, want %q of code %q", err, muster.CodeOf(err), c.want, c.code)
			}
		})
	}
}

// Two addresses with a hyphen become ranges that have exactly what is between
// them.
func TestBetween(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Uint16().Draw(t, "first")
		last := rapid.Uint16Min(first).Draw(t, "last")
		addr := func(n uint16) netip.Addr { return netip.AddrFrom4([4]byte{11, 0, byte(n >> 8), byte(n)}) }
		p := parser{most: 1000}
		if !p.between(addr(first), addr(last)) {
			t.Fatal("not in order")
		}
		next := addr(first)
		for _, s := range p.Sources {
			if s.Addr() != next {
				t.Fatalf("%s: expected one that begins with %s", s, next)
			}
			next = lastOf(s.Prefix()).Next()
		}
		if next != addr(last).Next() {
			t.Fatalf("ends before %s", next)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"11.0.0.1\n# x\n11.0.0.0/24 ; y\n11.0.0.1 - 11.0.0.9\n", "Start\tEnd\tNetmask\n11.0.0.0\t11.0.0.255\t24\n", "a,ip\n\"x\",\"11.0.0.1\"\n",
		`[{"ip":"11.0.0.1"},{"ip":null}]`, `{"prefixes":[{"ip_prefix":"11.0.0.0/24"}]}`, "11.0.0.1\t3\n", ":: - ffff::\n", "<html>", `{"a":{"b":["11.0.0.1"]}}`,
	} {
		for _, format := range []string{"", Plain, "count:2", DShield, CSV, "csv:ip", "csv:2", JSON, "json:a.b"} {
			f.Add([]byte(seed), format)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, format string) {
		const most = 500
		got, err := Parse(bytes.Clone(body), format, most)
		if err != nil {
			if muster.CodeOf(err) == "" {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		if len(got.Sources) == 0 || len(got.Sources) > most+130 { // the last line may have been a range
			t.Fatalf("%d entries", len(got.Sources))
		}
		for i, s := range got.Sources {
			if !s.IsValid() || s.IsReserved() || i > 0 && got.Sources[i-1].Compare(s) >= 0 {
				t.Fatalf("entry %d is %s", i, s)
			}
		}
		again, err := Parse(body, got.Format, most)
		if err != nil || !cmp.Equal(joined(got.Sources), joined(again.Sources)) {
			t.Fatalf("read as %s it differs: %v", got.Format, err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	var body bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintf(&body, "11.%d.%d.%d # seen\n", i>>16, i>>8&255, i&255)
	}
	b.SetBytes(int64(body.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(body.Bytes(), "", 200_000); err != nil {
			b.Fatal(err)
		}
	}
}

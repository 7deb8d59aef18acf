package allow

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
)

func TestParseCloud(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"AWS": {
			`{"syncToken":"1","createDate":"x","prefixes":[{"ip_prefix":"198.51.100.0/24","region":"eu-west-1","service":"AMAZON","network_border_group":"eu-west-1"}],
			"ipv6_prefixes":[{"ipv6_prefix":"2001:db8::/32","region":"GLOBAL","service":"CLOUDFRONT","network_border_group":"GLOBAL"}]}`,
			[]string{"198.51.100.0/24 amazon eu-west-1", "2001:db8::/32 cloudfront global"},
		},
		"Google": {
			`{"syncToken":"1","creationTime":"x","prefixes":[{"ipv4Prefix":"198.51.100.0/24","service":"Google Cloud","scope":"europe-west3"},{"ipv6Prefix":"2001:db8::/32"}]}`,
			[]string{"198.51.100.0/24 google-cloud europe-west3", "2001:db8::/32"},
		},
		"Azure": {
			"\ufeff" + `{"changeNumber":1,"cloud":"Public","values":[{"name":"Storage.WestEurope","id":"x","properties":{"changeNumber":1,"region":"westeurope","regionId":18,
			"platform":"Azure","systemService":"AzureStorage","addressPrefixes":["198.51.100.0/24","2001:db8::/32"]}}]}`,
			[]string{"198.51.100.0/24 storage.westeurope azurestorage westeurope", "2001:db8::/32 storage.westeurope azurestorage westeurope"},
		},
		"text": {"198.51.100.0/24\r\n# comment\n\n  2001:db8::/32 # more\n192.0.2.7", []string{"198.51.100.0/24", "2001:db8::/32", "192.0.2.7/32"}},
	} {
		ranges, err := parseCloud([]byte(c.text))
		var got []string
		for _, r := range ranges {
			got = append(got, strings.TrimSpace(r.prefix.String()+" "+strings.Join(r.parts, " ")))
		}
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
	for text, want := range map[string]string{
		"": "no ranges in it", "{}": "no ranges in it", "{": "expected the JSON of AWS", "<html>": "line 1: expected a range",
		"1.2.3.4\n0.0.0.0/0": "line 2: expected a range like 198.51.100.0/24, no wider than /8 (IPv6 /16)",
		`{"prefixes":[{"ip_prefix":"office.example.org"}]}`: `got "office.example.org"`,
		`[]`: "line 1",
	} {
		if _, err := parseCloud([]byte(text)); muster.CodeOf(err) != muster.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: expected %q, got %v", text, want, err)
		}
	}
}

// A file that changes is followed; one that breaks is not.
func TestProvidersAreFollowed(t *testing.T) {
	w := newWorld()
	w.files["edge.txt"] = "198.51.100.0/24\n"
	s := w.service(t)
	id := create(t, s, "o1", "edge", []string{"all"}, "cloud:edge")
	next := func(text string) {
		w.files["edge.txt"] = text
		w.pass(cloudEvery)
		s.fetch(t.Context())
	}
	next("198.51.100.0/24\n203.0.113.0/24\n")
	if !covers(s, "203.0.113.1", "m", "o1") {
		t.Error("expected the new range")
	}
	next("<html>503</html>")
	if !covers(s, "203.0.113.1", "m", "o1") {
		t.Error("expected what was read before to stay in force")
	}
	if states, _ := s.Items(id); len(states) != 1 || !strings.Contains(states[0].Problem, "could not be read") {
		t.Errorf("expected to be told what is wrong, got %+v", states)
	}
	next("203.0.113.0/24\n")
	if states, _ := s.Items(id); covers(s, "198.51.100.1", "m", "o1") || states[0].Problem != "" {
		t.Errorf("expected the range to be gone, and nothing to be wrong, got %+v", states)
	}
}

func FuzzParseCloud(f *testing.F) {
	f.Add([]byte("198.51.100.0/24\n"))
	f.Add([]byte(`{"prefixes":[{"ip_prefix":"198.51.100.0/24","service":"S3"}],"ipv6_prefixes":[{"ipv6_prefix":"2001:db8::/32"}]}`))
	f.Add([]byte(`{"values":[{"name":"x","properties":{"addressPrefixes":["198.51.100.0/24"]}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ranges, err := parseCloud(data)
		if (err == nil) != (len(ranges) > 0) {
			t.Fatalf("%d ranges and %v", len(ranges), err)
		}
		for _, r := range ranges {
			least := muster.MinAllowBits4
			if r.prefix.Addr().Is6() {
				least = muster.MinAllowBits6
			}
			if s := muster.SourceFromPrefix(r.prefix); !s.IsValid() || r.prefix.Bits() < least && !s.IsReserved() {
				t.Fatal(fmt.Sprint(r.prefix))
			}
		}
	})
}

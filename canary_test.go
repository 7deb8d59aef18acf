package muster

import (
	"errors"
	"strings"
	"testing"
)

func TestNewCanary(t *testing.T) {
	for value, want := range map[string]Canary{
		" 8.8.8.8 ":                {Kind: CanaryAddress, Value: "8.8.8.8"},
		"::ffff:8.8.8.8":           {Kind: CanaryAddress, Value: "8.8.8.8"},
		"8.8.8.8/32":               {Kind: CanaryAddress, Value: "8.8.8.8"},
		"2001:4860:4860:0::8888":   {Kind: CanaryAddress, Value: "2001:4860:4860::8888"},
		"66.249.64.77/19":          {Kind: CanaryRange, Value: "66.249.64.0/19"},
		"17.0.0.0/8":               {Kind: CanaryRange, Value: "17.0.0.0/8"},
		"2a06:98c0::1/29":          {Kind: CanaryRange, Value: "2a06:98c0::/29"},
		"192.0.0.0/8":              {Kind: CanaryRange, Value: "192.0.0.0/8"}, // only partly reserved
		"AS15169":                  {Kind: CanaryAS, Value: "AS15169"},
		"as0015169":                {Kind: CanaryAS, Value: "AS15169"},
		"AS4294967295":             {Kind: CanaryAS, Value: "AS4294967295"},
		"*.GoogleBot.com.":         {Kind: CanaryName, Value: "*.googlebot.com"},
		"*.crawl.yahoo_x.co-op.uk": {Kind: CanaryName, Value: "*.crawl.yahoo_x.co-op.uk"},
	} {
		want.Origin, want.ID = "misp:x", "misp:x/"+want.Value
		got, err := NewCanary("misp:x", value)
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", value, got, err, want)
			continue
		}
		if again, err := NewCanary("misp:x", got.Value); err != nil || again != got {
			t.Errorf("%q is not canonical: %+v, %v", got.Value, again, err)
		}
		if source := got.Source(); source.IsValid() != (got.Kind == CanaryAddress || got.Kind == CanaryRange) || source.IsValid() && source.String() != got.Value {
			t.Errorf("%q: source %s", value, source)
		}
	}
	for value, want := range map[string]string{
		"":                      "expected an address",
		"web1":                  "expected an address",
		"example.org":           "expected an address",
		"8.8.8.8/33":            "expected an address",
		"fe80::1%eth0":          "expected an address",
		"ASN15169":              "expected an AS number",
		"AS0":                   "expected an AS number",
		"AS4294967296":          "expected an AS number",
		"AS-1":                  "expected an AS number",
		"12.0.0.0/7":            "too wide",
		"2000::/15":             "too wide",
		"0.0.0.0/0":             "too wide",
		"192.168.1.1":           "192.168.0.0/16",
		"10.0.0.0/8":            "reserved space",
		"fd00::/16":             "reserved space",
		"*.com":                 "two labels",
		"*.":                    "two labels",
		"*.*.example.org":       "two labels",
		"*.exa mple.org":        "two labels",
		"*.exämple.org":         "two labels",
		"*.8.8.8.8":             "two labels",
		"*.-x.org":              "two labels",
		"*.x..org":              "two labels",
		"*.x." + long:           "two labels",
		"AS" + long:             "AS number",
		"*.googlebot.com/x":     "two labels",
		"*.google\x00bot.com":   "two labels",
		"*.example.org\nAS1":    "two labels",
		"crawl.*.googlebot.com": "expected an address",
	} {
		c, err := NewCanary("operator", value)
		if !errors.Is(err, Invalid) || c != (Canary{}) || !strings.Contains(err.Error(), want) || len(err.Error()) > 300 {
			t.Errorf("%q: got %+v, %v; want %q", value, c, err, want)
		}
	}
}

var long = strings.Repeat("x", 300)

func FuzzNewCanary(f *testing.F) {
	for _, seed := range []string{"8.8.8.8", "2001:4860::/32", "as1", "*.example.org.", "*.1", "::ffff:1.0.0.0/104"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		c, err := NewCanary("operator", value)
		if err != nil {
			return
		}
		if again, err := NewCanary("operator", c.Value); err != nil || again != c {
			t.Errorf("%q gives %+v, which gives %+v, %v", value, c, again, err)
		}
		if c.Source().IsValid() && c.Source().Prefix().Bits() < 8 {
			t.Errorf("%q gives the range %s", value, c.Value)
		}
	})
}

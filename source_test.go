package muster

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseSource(t *testing.T) {
	const v4, v6 = "192.0.2.7", "2001:db8::1"
	for _, c := range []struct {
		in, want string // want is scope and value
	}{
		{v4, "ip 192.0.2.7"},
		{"  192.0.2.7\t\n", "ip 192.0.2.7"},
		{"0.0.0.0", "ip 0.0.0.0"},
		{v6, "ip 2001:db8::1"},
		{"2001:0DB8:0:0:0:0:0:0001", "ip 2001:db8::1"},
		{"::", "ip ::"},
		{"::ffff:192.0.2.7", "ip 192.0.2.7"},
		{"::FFFF:c000:207", "ip 192.0.2.7"},
		{"192.0.2.7/32", "ip 192.0.2.7"},
		{"2001:db8::1/128", "ip 2001:db8::1"},
		{"::ffff:192.0.2.7/128", "ip 192.0.2.7"},
		{"198.51.100.77/24", "range 198.51.100.0/24"},
		{" 198.51.100.0/24 ", "range 198.51.100.0/24"},
		{"2001:db8:1:2:3::/48", "range 2001:db8:1::/48"},
		{"::ffff:198.51.100.77/120", "range 198.51.100.0/24"},
		{"::ffff:198.51.100.77/96", "range 0.0.0.0/0"},
		{"::ffff:198.51.100.77/95", "range ::fffe:0:0/95"}, // wider than all of IPv4: not a range of it
		{"0.0.0.0/0", "range 0.0.0.0/0"},
		{"::/0", "range ::/0"},
	} {
		s, err := ParseSource(c.in)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if got := s.Scope() + " " + s.String(); got != c.want {
			t.Errorf("%q: got %s, want %s", c.in, got, c.want)
		}
		if again, err := ParseSource(s.String()); err != nil || again != s {
			t.Errorf("%q: its text %q parses as %v, %v", c.in, s, again, err)
		}
		if s.IsRange() != strings.HasPrefix(c.want, "range") || !s.IsValid() || s.Addr() != s.Prefix().Addr() {
			t.Errorf("%q: range %t, valid %t, first address %s", c.in, s.IsRange(), s.IsValid(), s.Addr())
		}
	}
}

func TestParseSourceRefuses(t *testing.T) {
	for _, in := range []string{
		"", " ", "/", "/24", "XX", "example.org", "192.0.2", "192.0.2.256", "192.0.2.07", "192.0.2.7:80", "192.0.2.7 192.0.2.8",
		"192.0.2.0-192.0.2.9", "192.0.2.0/", "192.0.2.0/33", "192.0.2.0/-1", "192.0.2.0/024", "192.0.2.0/24/24", "192.0.2.0/255.255.255.0",
		"fe80::1%eth0", "fe80::%eth0/64", "2001:db8::/129", "2001:db8:::1", "[2001:db8::1]", "1.2.3.4\x00", strings.Repeat("9", 10_000),
	} {
		s, err := ParseSource(in)
		if CodeOf(err) != Invalid || s.IsValid() {
			t.Errorf("%.70q: got %v, %v; want code invalid", in, s, err)
			continue
		}
		if len(err.Error()) > 200 {
			t.Errorf("%.70q: the error quotes %d bytes", in, len(err.Error()))
		}
	}
}

func TestZeroSource(t *testing.T) {
	var s Source
	if s.IsValid() || s.IsRange() || !s.IsReserved() || s.String() != "invalid source" {
		t.Errorf("valid %t, range %t, reserved %t, text %q", s.IsValid(), s.IsRange(), s.IsReserved(), s)
	}
	if s != (Source{}) || SourceFromAddr(netip.Addr{}).IsValid() || SourceFromPrefix(netip.Prefix{}).IsValid() {
		t.Error("sources of no address must be the zero source")
	}
}

func source(t testing.TB, text string) Source {
	t.Helper()
	s, err := ParseSource(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGroup(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7":            "192.0.2.7/32",
		"::ffff:192.0.2.7":     "192.0.2.7/32",
		"192.0.2.0/24":         "192.0.2.0/24",
		"2001:db8::1":          "2001:db8::/64",
		"2001:db8::ffff:0:0:9": "2001:db8::/64",
		"2001:db8:0:1::1":      "2001:db8:0:1::/64",
		"2001:db8::/80":        "2001:db8::/64",
		"2001:db8::/64":        "2001:db8::/64",
		"2001:db8::/63":        "2001:db8::/63",
		"2001:db8::/32":        "2001:db8::/32",
	} {
		if got := source(t, in).Group().String(); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestIsReserved(t *testing.T) {
	for _, c := range []struct {
		want bool
		in   string
	}{
		{true, "10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 127.0.0.1 169.254.169.254 100.64.0.1 100.127.255.255 0.0.0.0"},
		{true, "192.0.2.1 198.51.100.1 203.0.113.1 198.18.0.1 198.19.255.255 192.0.0.8 192.88.99.1 224.0.0.1 239.1.2.3 240.0.0.1 255.255.255.255"},
		{true, ":: ::1 ::192.0.2.1 64:ff9b::1.2.3.4 64:ff9b:1::1 100::1 2001::1 2001:1ff::1 2001:db8::1 3fff::1 5f00::1 fc00::1 fdff::1 fe80::1 fec0::1 ff02::1"},
		{true, "::ffff:10.0.0.1 ::ffff:10.0.0.0/104"},
		// Ranges that hold, touch or lie in reserved space.
		{true, "10.0.0.0/8 10.1.0.0/16 8.0.0.0/6 172.0.0.0/8 0.0.0.0/0 203.0.112.0/23 ::/0 2000::/3 2001:db8::/48 fe00::/7 ::/80"},
		// Wider than the v4-mapped space, so none of its addresses is unmapped.
		{true, "::ffff:1.2.3.4/95 ::ffff:0:0/90 ::ffff:8.8.8.0/81"},
		{false, "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 172.15.255.255 172.32.0.0 192.0.1.1 192.167.255.255 198.17.255.255 198.20.0.0 223.255.255.255"},
		{false, "::ffff:8.8.8.8 2001:200::1 2001:4860:4860::8888 2606:4700::1111 2a00::1 2003::1 64:ff9b:2::1 2001:db7:ffff::1 2001:db9::1 fbff::1"},
		{false, "8.8.8.0/24 1.0.0.0/8 2a00::/12 2606:4700::/32 11.0.0.0/8 172.32.0.0/11"},
	} {
		for _, in := range strings.Fields(c.in) {
			if got := source(t, in).IsReserved(); got != c.want {
				t.Errorf("%s: reserved %t, want %t", in, got, c.want)
			}
		}
	}
}

// anySource draws sources of all kinds, the zero one and mapped ones among them.
var anySource = rapid.Custom(func(t *rapid.T) Source {
	raw := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))
	if rapid.Bool().Draw(t, "short") { // many zeros: ::, ::/0 and their neighbours
		clear(raw[:rapid.IntRange(8, 16).Draw(t, "zeros")])
	}
	bits := rapid.IntRange(0, 128).Draw(t, "bits")
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		return Source{}
	case 1:
		return SourceFromAddr(netip.AddrFrom16(raw))
	case 2:
		return SourceFromAddr(netip.AddrFrom4([4]byte(raw[12:])))
	case 3:
		return SourceFromPrefix(netip.PrefixFrom(netip.AddrFrom4([4]byte(raw[12:])), bits/4))
	case 4: // v4-mapped, on both sides of /96
		copy(raw[:], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff})
	}
	return SourceFromPrefix(netip.PrefixFrom(netip.AddrFrom16(raw), bits))
})

func TestSourceSurvivesItsBinaryAndTextForms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anySource.Draw(t, "source")
		b := s.AppendBinary([]byte("before"))
		if len(b) != len("before")+SourceSize || string(b[:6]) != "before" {
			t.Fatalf("%d bytes, beginning with %q", len(b), b[:6])
		}
		back, err := SourceFromBinary(b[6:])
		if err != nil || back != s {
			t.Fatalf("binary: %s became %v, %v", s, back, err)
		}
		if !s.IsValid() {
			return
		}
		if back, err = ParseSource(s.String()); err != nil || back != s {
			t.Fatalf("text: %s became %v, %v", s, back, err)
		}
		if s.Prefix() != s.Prefix().Masked() || s.Addr().Is4In6() && s.Prefix().Bits() >= 96 || s.Addr().Zone() != "" {
			t.Fatalf("%s is not canonical", s.Prefix())
		}
	})
}

// Equal bytes mean equal sources: stores and partitions use them as keys.
func TestSourceBinaryIsAKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anySource.Draw(t, "a"), anySource.Draw(t, "b")
		if same := string(a.AppendBinary(nil)) == string(b.AppendBinary(nil)); same != (a == b) {
			t.Fatalf("%s and %s: equal %t, equal bytes %t", a, b, a == b, same)
		}
	})
}

// The binary forms are in stores and streams: they never change.
func TestSourceBinaryGolden(t *testing.T) {
	got := map[string][]byte{}
	for _, text := range []string{"192.0.2.7", "198.51.100.0/24", "2001:db8::1", "2001:db8::/32", "0.0.0.0/0"} {
		got[text] = source(t, text).AppendBinary(nil)
	}
	want := map[string][]byte{
		"192.0.2.7":       {10: 0xff, 11: 0xff, 12: 192, 13: 0, 14: 2, 15: 7, 16: 128},
		"198.51.100.0/24": {10: 0xff, 11: 0xff, 12: 198, 13: 51, 14: 100, 15: 0, 16: 120},
		"2001:db8::1":     {0x20, 0x01, 0x0d, 0xb8, 15: 1, 16: 128},
		"2001:db8::/32":   {0x20, 0x01, 0x0d, 0xb8, 16: 32},
		"0.0.0.0/0":       {10: 0xff, 11: 0xff, 16: 96},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSourceFromBinaryRefuses(t *testing.T) {
	for _, b := range [][]byte{nil, {}, make([]byte, 16), make([]byte, 18), {16: 129}, {0: 1, 16: 200}} {
		if s, err := SourceFromBinary(b); err == nil {
			t.Errorf("%x: got %s, want an error", b, s)
		}
	}
}

func FuzzSourceFromBinary(f *testing.F) {
	f.Add(source(f, "192.0.2.7").AppendBinary(nil))
	f.Add(source(f, "::ffff:1.2.3.4/95").AppendBinary(nil))
	f.Add(Source{}.AppendBinary(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := SourceFromBinary(b)
		if err != nil {
			return
		}
		if again, err := SourceFromBinary(s.AppendBinary(nil)); err != nil || again != s {
			t.Errorf("%x: %s became %v, %v", b, s, again, err)
		}
	})
}

func FuzzParseSource(f *testing.F) {
	for _, s := range []string{"192.0.2.7", "::ffff:1.2.3.4/95", "2001:db8::/32", "fe80::1%lo", " 1.2.3.4/8 ", "::/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSource(text)
		if err != nil {
			return
		}
		if again, err := ParseSource(s.String()); err != nil || again != s {
			t.Errorf("%q: %s became %v, %v", text, s, again, err)
		}
	})
}

func BenchmarkParseSource(b *testing.B) {
	for _, text := range []string{"35.188.49.176", "2a01:4f8:c17:b0f::2"} {
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseSource(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkIsReserved(b *testing.B) {
	for _, text := range []string{"35.188.49.176", "2a01:4f8:c17:b0f::2"} {
		s := source(b, text)
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if s.IsReserved() {
					b.Fatal(s)
				}
			}
		})
	}
}

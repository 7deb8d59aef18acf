package peer

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"muster"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// from is a request of a connection with the lines of a header.
func from(remote string, header Header, lines ...string) *http.Request {
	r := &http.Request{RemoteAddr: remote, Header: http.Header{}}
	for _, line := range lines {
		r.Header.Add(string(header), line)
	}
	return r
}

// addrString writes the zero Addr as the tables do.
func addrString(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

var proxies = []string{"10.0.0.0/8", "192.0.2.7/32", "2001:db8:f::/48", "fe80::/10"}

func TestConnectionsOwnAddress(t *testing.T) {
	for _, c := range []struct{ remote, want string }{
		{"198.51.100.1:1234", "198.51.100.1"},
		{"[2001:db8::1]:1234", "2001:db8::1"},
		{"[::ffff:198.51.100.1]:1234", "198.51.100.1"},
		{"[fec0::1%eth0]:1234", "fec0::1"},
		{"@", ""},
		{"", ""},
		{"unix", ""},
		{"unknown", ""},
	} {
		for _, trust := range []Trust{{}, mustTrust(t, ""), mustTrust(t, "", proxies...), mustTrust(t, Forwarded, proxies...)} {
			r := from(c.remote, XForwardedFor, "203.0.113.9")
			r.Header.Set("Forwarded", "for=203.0.113.9")
			r.Header.Set("X-Real-Ip", "203.0.113.9")
			if got := addrString(trust.Addr(r)); got != c.want {
				t.Errorf("%+v: connection of %q: got client %q, want %q", trust, c.remote, got, c.want)
			}
		}
	}
}

func TestXForwardedFor(t *testing.T) {
	trust := mustTrust(t, "", proxies...)
	for name, c := range map[string]struct {
		remote string // empty is 10.0.0.1:80
		lines  []string
		want   string
	}{
		"no header":                  {want: "10.0.0.1"},
		"one hop":                    {lines: []string{"198.51.100.1"}, want: "198.51.100.1"},
		"spoofed on the left":        {lines: []string{"203.0.113.9, 198.51.100.1"}, want: "198.51.100.1"},
		"spoofed as a proxy":         {lines: []string{"10.9.9.9, 198.51.100.1"}, want: "198.51.100.1"},
		"spoofed on a line before":   {lines: []string{"203.0.113.9", "198.51.100.1"}, want: "198.51.100.1"},
		"untrusted hop ends it":      {lines: []string{"203.0.113.9, 198.51.100.1, 10.0.0.2"}, want: "198.51.100.1"},
		"chain over lines":           {lines: []string{"203.0.113.9", "198.51.100.1, 10.0.0.2", "10.0.0.3"}, want: "198.51.100.1"},
		"all trusted":                {lines: []string{"10.0.0.4, 10.0.0.3", "192.0.2.7"}, want: "10.0.0.4"},
		"neighbour of a proxy":       {lines: []string{"203.0.113.9, 192.0.2.8"}, want: "192.0.2.8"},
		"v6":                         {lines: []string{"2001:db8::1"}, want: "2001:db8::1"},
		"v6 proxies":                 {remote: "[2001:db8:f::1]:80", lines: []string{"2001:db8::1,2001:db8:f:1::2"}, want: "2001:db8::1"},
		"mapped connection and hop":  {remote: "[::ffff:10.0.0.1]:80", lines: []string{"198.51.100.1, ::ffff:10.0.0.2"}, want: "198.51.100.1"},
		"mapped client":              {lines: []string{"::ffff:198.51.100.1"}, want: "198.51.100.1"},
		"zone of the connection":     {remote: "[fe80::1%eth0]:80", lines: []string{"198.51.100.1"}, want: "198.51.100.1"},
		"zone of a hop":              {lines: []string{"198.51.100.1, fe80::2%eth0"}, want: "198.51.100.1"},
		"zone of a v4 hop":           {lines: []string{"198.51.100.1%eth0"}, want: "10.0.0.1"},
		"ports":                      {lines: []string{"198.51.100.1:4711, 10.0.0.2:80"}, want: "198.51.100.1"},
		"v6 with port":               {lines: []string{"[2001:db8::1]:4711"}, want: "2001:db8::1"},
		"v6 in brackets":             {lines: []string{"[2001:db8::1]"}, want: "2001:db8::1"},
		"v4 in brackets":             {lines: []string{"[198.51.100.1]"}, want: "10.0.0.1"},
		"bracket left open":          {lines: []string{"[2001:db8::1"}, want: "10.0.0.1"},
		"behind the bracket":         {lines: []string{"[2001:db8::1]80"}, want: "10.0.0.1"},
		"no port behind the colon":   {lines: []string{"198.51.100.1:"}, want: "10.0.0.1"},
		"port of six digits":         {lines: []string{"198.51.100.1:123456"}, want: "10.0.0.1"},
		"white space":                {lines: []string{" \t198.51.100.1\t,\t10.0.0.2 "}, want: "198.51.100.1"},
		"junk stops at the last hop": {lines: []string{"198.51.100.1, junk, 10.0.0.2"}, want: "10.0.0.2"},
		"unix: of nginx":             {lines: []string{"198.51.100.1, unix:"}, want: "10.0.0.1"},
		"empty element":              {lines: []string{"198.51.100.1, , 10.0.0.2"}, want: "10.0.0.2"},
		"empty line":                 {lines: []string{"198.51.100.1", ""}, want: "10.0.0.1"},
		"leading zeros":              {lines: []string{"198.051.100.001"}, want: "10.0.0.1"},
		"a quote is no address":      {lines: []string{`"198.51.100.1"`}, want: "10.0.0.1"},
		"a quote swallows no comma":  {lines: []string{`"x, 198.51.100.1, 10.0.0.2`}, want: "198.51.100.1"},
		"long element":               {lines: []string{strings.Repeat(" ", maxElement) + "198.51.100.1, 10.0.0.2"}, want: "10.0.0.2"},
		"long header":                {lines: []string{strings.Repeat("x", 1<<20) + ", 198.51.100.1, 10.0.0.2"}, want: "198.51.100.1"},
		"as many hops as are read":   {lines: []string{"198.51.100.1" + strings.Repeat(",10.0.0.2", maxHops-1)}, want: "198.51.100.1"},
		"one hop more":               {lines: []string{"198.51.100.1" + strings.Repeat(",10.0.0.2", maxHops)}, want: "10.0.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			r := from(c.remote, XForwardedFor, c.lines...)
			if c.remote == "" {
				r.RemoteAddr = "10.0.0.1:80"
			}
			r.Header.Set("Forwarded", "for=203.0.113.66") // the client's, passed on
			r.Header.Set("X-Real-Ip", "203.0.113.66")
			if got := addrString(trust.Addr(r)); got != c.want {
				t.Errorf("got client %s, want %s", got, c.want)
			}
		})
	}
}

func TestForwarded(t *testing.T) {
	trust := mustTrust(t, "forwarded", proxies...)
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"no header":              {want: "10.0.0.1"},
		"one hop":                {lines: []string{"for=198.51.100.1"}, want: "198.51.100.1"},
		"other parameters":       {lines: []string{`by=10.0.0.1;for=198.51.100.1 ; proto="ht;tp";host=a`}, want: "198.51.100.1"},
		"any case":               {lines: []string{"FoR=198.51.100.1"}, want: "198.51.100.1"},
		"chain":                  {lines: []string{"for=203.0.113.9, for=198.51.100.1;proto=https", "for=10.0.0.2"}, want: "198.51.100.1"},
		"all trusted":            {lines: []string{"for=10.0.0.3, for=10.0.0.2"}, want: "10.0.0.3"},
		"v6":                     {lines: []string{`for="[2001:db8::1]"`}, want: "2001:db8::1"},
		"v6 with port":           {lines: []string{`for="[2001:db8::1]:4711"`}, want: "2001:db8::1"},
		"v4 with port":           {lines: []string{`for="198.51.100.1:4711"`}, want: "198.51.100.1"},
		"obfuscated port":        {lines: []string{`for="198.51.100.1:_a.B-9"`}, want: "198.51.100.1"},
		"bad obfuscated port":    {lines: []string{`for="198.51.100.1:_a/b"`}, want: "10.0.0.1"},
		"empty obfuscated port":  {lines: []string{`for="198.51.100.1:_"`}, want: "10.0.0.1"},
		"unknown":                {lines: []string{"for=198.51.100.1, for=unknown, for=10.0.0.2"}, want: "10.0.0.2"},
		"obfuscated":             {lines: []string{"for=198.51.100.1, for=_hidden"}, want: "10.0.0.1"},
		"escapes":                {lines: []string{`for="\1\98.51.100.1"`}, want: "198.51.100.1"},
		"comma in quotes":        {lines: []string{`for=198.51.100.1;host="a,b"`}, want: "198.51.100.1"},
		"for in quotes":          {lines: []string{`for=198.51.100.1;host="a;for=203.0.113.9"`}, want: "198.51.100.1"},
		"quote in quotes":        {lines: []string{`for=203.0.113.9, host="a\",for=203.0.113.8,\\";for=198.51.100.1`}, want: "198.51.100.1"},
		"client's open quote":    {lines: []string{`for="203.0.113.9, for=198.51.100.1`}, want: "198.51.100.1"},
		"client's open escape":   {lines: []string{`for="203.0.113.9\, for="198.51.100.1"`}, want: "198.51.100.1"},
		"client's line of quote": {lines: []string{`"`, "for=198.51.100.1"}, want: "198.51.100.1"},
		"twice":                  {lines: []string{"for=198.51.100.1;for=203.0.113.9"}, want: "10.0.0.1"},
		"without for":            {lines: []string{"for=198.51.100.1, proto=https"}, want: "10.0.0.1"},
		"open quote":             {lines: []string{`for="198.51.100.1`}, want: "10.0.0.1"},
		"behind the quote":       {lines: []string{`for="198.51.100.1"1`}, want: "10.0.0.1"},
		"lone quote":             {lines: []string{`for="`}, want: "10.0.0.1"},
		"nothing":                {lines: []string{"for="}, want: "10.0.0.1"},
		"empty element":          {lines: []string{"for=198.51.100.1,"}, want: "10.0.0.1"},
		"no parameter":           {lines: []string{"198.51.100.1"}, want: "10.0.0.1"},
		"long quotes":            {lines: []string{`for=198.51.100.1;host="` + strings.Repeat(`\"`, 1<<16) + `", for=10.0.0.2`}, want: "10.0.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			r := from("10.0.0.1:80", Forwarded, c.lines...)
			r.Header.Set("X-Forwarded-For", "203.0.113.66") // the client's, passed on
			if got := addrString(trust.Addr(r)); got != c.want {
				t.Errorf("got client %s, want %s", got, c.want)
			}
		})
	}
}

func TestNewTrust(t *testing.T) {
	trust := mustTrust(t, "", "10.1.0.0/16", "::ffff:192.0.2.0/120", "10.0.0.0/8", "10.0.0.0/9", "2001:db8::/32", "11.0.0.1/32", "10.0.0.0/8")
	want := []string{"10.0.0.0/8", "11.0.0.1/32", "192.0.2.0/24", "2001:db8::/32"}
	var got []string
	for _, p := range trust.proxies {
		got = append(got, p.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ranges (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		proxies []netip.Prefix
		header  Header
		text    string
	}{
		{[]netip.Prefix{{}}, "", "invalid"},
		{ranges("0.0.0.0/0"), "", "every client"},
		{ranges("::/0"), "", "every client"},
		{ranges("::ffff:0.0.0.0/96"), "", "every client"},
		{nil, "X-Real-IP", "X-Real-IP"},
	} {
		_, err := NewTrust(c.proxies, c.header)
		if muster.CodeOf(err) != muster.Invalid || !strings.Contains(fmt.Sprint(err), c.text) {
			t.Errorf("NewTrust(%v, %q): got error %v, want an invalid one with %q", c.proxies, c.header, err, c.text)
		}
	}
}

// TestTrustsAsAScan: the search among sorted ranges finds what a scan of the
// ranges as they were given finds.
func TestTrustsAsAScan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []netip.Prefix
		for range rapid.IntRange(0, 12).Draw(t, "ranges") {
			a := drawAddr(t, "range")
			list = append(list, netip.PrefixFrom(a, rapid.IntRange(1, a.BitLen()).Draw(t, "bits")))
		}
		trust, err := NewTrust(list, "")
		if err != nil {
			t.Fatal(err)
		}
		a := drawAddr(t, "addr")
		want := false
		for _, p := range list {
			want = want || p.Contains(a)
		}
		if got := trust.trusts(a); got != want {
			t.Fatalf("%v trusts %v: got %v, want %v", list, a, got, want)
		}
	})
}

// drawAddr draws from a space so small that ranges and addresses meet.
func drawAddr(t *rapid.T, label string) netip.Addr {
	bytes := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 127, 128, 255}), 4, 4).Draw(t, label)
	if rapid.Bool().Draw(t, label+" is v6") {
		return netip.AddrFrom16([16]byte{0x20, 1, 14: bytes[0], 15: bytes[1]})
	}
	return netip.AddrFrom4([4]byte(bytes))
}

// headerText draws junk that likes the syntax of both headers.
var headerText = rapid.OneOf(
	rapid.String(),
	rapid.StringMatching(`((for|by|For|proto)=|[",;:\\ %]|\[|\]|10\.0\.0\.[0-9]|198\.51\.100\.[0-9]|2001:db8:f?::1|unknown|_x|:80){0,40}`),
)

// TestUntrustedPeerIsItself: for any headers, the client of an untrusted
// connection is that connection's address.
func TestUntrustedPeerIsItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		header := rapid.SampledFrom([]Header{XForwardedFor, Forwarded}).Draw(t, "believed")
		trust := Trust{proxies: ranges("10.0.0.0/8", "2001:db8:f::/48"), header: header}
		own := rapid.SampledFrom([]string{"198.51.100.77", "9.255.255.255", "11.0.0.0", "2001:db8:e:ffff::1"}).Draw(t, "own")
		r := from(netip.AddrPortFrom(netip.MustParseAddr(own), 1).String(), header)
		for _, name := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip"} {
			r.Header[name] = rapid.SliceOfN(headerText, 0, 4).Draw(t, name)
		}
		if got := trust.Addr(r).String(); got != own {
			t.Fatalf("got client %s, want the connection's own %s", got, own)
		}
	})
}

// TestBehindTrustedHops: behind any number of trusted hops, whatever the client
// wrote itself, it is found; the answer is a trusted proxy's only when the whole
// chain is.
func TestBehindTrustedHops(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		header := rapid.SampledFrom([]Header{XForwardedFor, Forwarded}).Draw(t, "believed")
		trust := Trust{proxies: ranges("10.0.0.0/8", "2001:db8:f::/48"), header: header}
		lines := rapid.SliceOfN(headerText, 0, 3).Draw(t, "client's own lines")
		hops := []string{}
		want := rapid.SampledFrom([]string{"198.51.100.5", "2001:db8::5", ""}).Draw(t, "client")
		if want != "" {
			hops = append(hops, want)
		} else {
			lines = nil
		}
		for range rapid.IntRange(0, 8).Draw(t, "trusted hops") {
			hops = append(hops, rapid.SampledFrom([]string{"10.0.0.2", "10.255.0.3", "2001:db8:f::4"}).Draw(t, "hop"))
		}
		if want == "" { // all are trusted: the first is the answer, or the connection's own
			want = append(hops, "10.0.0.1")[0]
		}
		for _, hop := range hops { // each proxy appends to the last line or adds one
			if header == Forwarded {
				hop = fmt.Sprintf(rapid.SampledFrom([]string{`for="[%s]:80"`, `proto="a,b";for="[%s]"`}).Draw(t, "form"), hop)
				if !strings.Contains(hop, "::") {
					hop = strings.NewReplacer("[", "", "]", "").Replace(hop)
				}
			}
			if n := len(lines); n > 0 && rapid.Bool().Draw(t, "same line") {
				lines[n-1] += ", " + hop
			} else {
				lines = append(lines, hop)
			}
		}
		if got := trust.Addr(from("10.0.0.1:80", header, lines...)).String(); got != want {
			t.Fatalf("got client %s, want %s, of %q", got, want, lines)
		}
	})
}

func FuzzForwarded(f *testing.F) {
	for _, s := range []string{
		`for=192.0.2.43, for="[2001:db8:cafe::17]:4711";by=203.0.113.60;proto=http`,
		`for="\1", for=_x;host="a\"b,c\\"`, `for="`, `"\`, `,;=,`, `for=unknown`,
	} {
		f.Add(s)
	}
	trust := mustTrust(f, Forwarded, proxies...)
	f.Fuzz(func(t *testing.T, junk string) {
		if addr, ok := parseForwarded(junk); ok != addr.IsValid() || addr.Is4In6() || addr.Zone() != "" {
			t.Errorf("parseForwarded: got %v, %v", addr, ok)
		}
		for _, c := range []struct{ remote, line, want string }{
			{"198.51.100.1:80", junk, "198.51.100.1"},
			{"10.0.0.1:80", junk + `, for="198.51.100.1:80"`, "198.51.100.1"},
			{"10.0.0.1:80", junk + `,host="a\",b";for=198.51.100.1, for=10.0.0.2`, "198.51.100.1"},
		} {
			if got := trust.Addr(from(c.remote, Forwarded, c.line)); got.String() != c.want {
				t.Errorf("connection of %s, header %q: got client %s, want %s", c.remote, c.line, got, c.want)
			}
		}
		// Behind a trusted proxy there is always an answer.
		if got := trust.Addr(from("10.0.0.1:80", Forwarded, junk)); !got.IsValid() {
			t.Errorf("header %q: got no address", junk)
		}
	})
}

func BenchmarkAddr(b *testing.B) {
	cdn := []string{}
	for i := range 22 {
		cdn = append(cdn, fmt.Sprintf("10.%d.0.0/16", i*3))
	}
	for _, c := range []struct {
		name  string
		trust Trust
		r     *http.Request
	}{
		{"no proxies", Trust{}, from("198.51.100.1:1234", XForwardedFor, "203.0.113.9")},
		{"untrusted", mustTrust(b, "", cdn...), from("198.51.100.1:1234", XForwardedFor, "203.0.113.9")},
		{"x-forwarded-for", mustTrust(b, "", cdn...), from("10.3.0.1:1234", XForwardedFor, "203.0.113.9, 198.51.100.1, 10.6.0.1")},
		{"forwarded", mustTrust(b, Forwarded, cdn...), from("10.3.0.1:1234", Forwarded, `for=203.0.113.9, for="[2001:db8::1]:80";proto=https, for=10.6.0.1`)},
		{"junk of 1 MiB", mustTrust(b, "", cdn...), from("10.3.0.1:1234", XForwardedFor, strings.Repeat("x", 1<<20))},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.trust.Addr(c.r)
			}
		})
	}
}

func TestUnheard(t *testing.T) {
	trust, err := NewTrust([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, XForwardedFor)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		remote, header string
		want           bool
	}{
		{"10.0.0.1:80", "X-Forwarded-For", false},
		{"192.168.0.1:80", "X-Forwarded-For", true},
		{"[::ffff:10.0.0.1]:80", "Forwarded", false},
		{"127.0.0.1:80", "Forwarded", true},
		{"127.0.0.1:80", "X-Other", false},
		{"@", "Forwarded", false},
	} {
		r := &http.Request{RemoteAddr: tc.remote, Header: http.Header{tc.header: {"192.0.2.1"}}}
		if got := trust.Unheard(r); got != tc.want {
			t.Errorf("%s from %s: %t", tc.header, tc.remote, got)
		}
	}
}

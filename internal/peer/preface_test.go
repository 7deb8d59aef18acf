package peer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
)

// header2 is a PROXY header of version 2.
func header2(command, family byte, body string) string {
	b := append([]byte(signature2), command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(body)))) + body
}

// body2 is the addresses and ports of a header.
func body2(src, dst string) string {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	b := append(s.Addr().AsSlice(), d.Addr().AsSlice()...)
	return string(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, s.Port()), d.Port()))
}

var (
	tcp4  = body2("198.51.100.1:4711", "10.0.0.1:443")
	tcp6  = body2("[2001:db8::1]:4711", "[2001:db8:f::1]:443")
	mixed = body2("[::ffff:198.51.100.1]:4711", "[2001:db8:f::1]:443")
	unix  = "10.0.0.1:80" + strings.Repeat("\x00", 216-11) // a path that reads like an address
	tlvs  = "\x03\x00\x04abcd\x04\x00\x01\x00"
)

func TestPreface(t *testing.T) {
	const rest = "GET / HTTP/1.1\r\n\r\n"
	for name, c := range map[string]struct {
		in     string // with rest behind it
		client string // empty is the proxy itself
		found  bool
		reason Reason // of the error
	}{
		"none":              {},
		"almost version 1":  {in: "PROX"},
		"almost version 2":  {in: signature2[:11]},
		"v2 tcp4":           {in: header2(0x21, 0x11, tcp4), found: true, client: "198.51.100.1:4711"},
		"v2 udp4":           {in: header2(0x21, 0x12, tcp4), found: true, client: "198.51.100.1:4711"},
		"v2 tcp6":           {in: header2(0x21, 0x21, tcp6), found: true, client: "[2001:db8::1]:4711"},
		"v2 mapped":         {in: header2(0x21, 0x21, mixed), found: true, client: "198.51.100.1:4711"},
		"v2 unix":           {in: header2(0x21, 0x31, unix), found: true, client: "unix"},
		"v2 unspec":         {in: header2(0x21, 0x00, ""), found: true, client: "unknown"},
		"v2 unspec, bytes":  {in: header2(0x21, 0x00, tcp4), found: true, client: "unknown"},
		"v2 local":          {in: header2(0x20, 0x00, ""), found: true},
		"v2 local, address": {in: header2(0x20, 0x11, tcp4), found: true},
		"v2 local, junk":    {in: header2(0x20, 0xff, tlvs), found: true},
		"v2 tlvs":           {in: header2(0x21, 0x11, tcp4+tlvs), found: true, client: "198.51.100.1:4711"},
		"v2 unix, tlvs":     {in: header2(0x21, 0x32, unix+tlvs), found: true, client: "unix"},
		"v2 junk in tlvs":   {in: header2(0x21, 0x11, tcp4+"\x01\xff\xff"), found: true, client: "198.51.100.1:4711"},
		"v2 longest":        {in: header2(0x21, 0x21, tcp6+strings.Repeat("x", maxBody2-36)), found: true, client: "[2001:db8::1]:4711"},
		"v2 too long":       {in: header2(0x21, 0x21, tcp6+strings.Repeat("x", maxBody2-35)), found: true, reason: TooLarge},
		"v2 local too long": {in: header2(0x20, 0x00, strings.Repeat("x", maxBody2+1)), found: true, reason: TooLarge},
		"v2 version 1":      {in: header2(0x11, 0x11, tcp4), found: true, reason: Malformed},
		"v2 version 3":      {in: header2(0x31, 0x11, tcp4), found: true, reason: Malformed},
		"v2 command":        {in: header2(0x22, 0x11, tcp4), found: true, reason: Malformed},
		"v2 family":         {in: header2(0x21, 0x41, tcp4), found: true, reason: Malformed},
		"v2 transport":      {in: header2(0x21, 0x13, tcp4), found: true, reason: Malformed},
		"v2 tcp4 short":     {in: header2(0x21, 0x11, tcp4[:11]), found: true, reason: Malformed},
		"v2 tcp6 short":     {in: header2(0x21, 0x21, tcp4), found: true, reason: Malformed},
		"v2 unix short":     {in: header2(0x21, 0x31, unix[:215]), found: true, reason: Malformed},
		"v1 tcp4":           {in: "PROXY TCP4 198.51.100.1 10.0.0.1 4711 443\r\n", found: true, client: "198.51.100.1:4711"},
		"v1 tcp6":           {in: "PROXY TCP6 2001:db8::1 2001:db8:f::1 4711 443\r\n", found: true, client: "[2001:db8::1]:4711"},
		"v1 mapped":         {in: "PROXY TCP6 ::ffff:198.51.100.1 2001:db8:f::1 4711 443\r\n", found: true, client: "198.51.100.1:4711"},
		"v1 unknown":        {in: "PROXY UNKNOWN\r\n", found: true, client: "unknown"},
		"v1 unknown, more":  {in: "PROXY UNKNOWN 10.0.0.1 10.0.0.1 1 1\r\n", found: true, client: "unknown"},
		"v1 longest":        {in: "PROXY UNKNOWN " + strings.Repeat("x", 107-16) + "\r\n", found: true, client: "unknown"},
		"v1 too long":       {in: "PROXY UNKNOWN " + strings.Repeat("x", 108-16) + "\r\n", found: true, reason: TooLarge},
		"v1 without end":    {in: "PROXY TCP4 " + strings.Repeat("x", 500), found: true, reason: TooLarge},
		"v1 family":         {in: "PROXY UDP4 198.51.100.1 10.0.0.1 4711 443\r\n", found: true, reason: Malformed},
		"v1 wrong family":   {in: "PROXY TCP4 2001:db8::1 10.0.0.1 4711 443\r\n", found: true, reason: Malformed},
		"v1 wrong target":   {in: "PROXY TCP4 198.51.100.1 2001:db8::1 4711 443\r\n", found: true, reason: Malformed},
		"v1 zone":           {in: "PROXY TCP6 fe80::1%eth0 fe80::2 4711 443\r\n", found: true, reason: Malformed},
		"v1 port":           {in: "PROXY TCP4 198.51.100.1 10.0.0.1 65536 443\r\n", found: true, reason: Malformed},
		"v1 target's port":  {in: "PROXY TCP4 198.51.100.1 10.0.0.1 4711 -1\r\n", found: true, reason: Malformed},
		"v1 few fields":     {in: "PROXY TCP4 198.51.100.1 10.0.0.1 4711\r\n", found: true, reason: Malformed},
		"v1 two blanks":     {in: "PROXY TCP4  198.51.100.1 10.0.0.1 4711 443\r\n", found: true, reason: Malformed},
		"v1 nothing":        {in: "PROXY \r\n", found: true, reason: Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			for _, chunked := range []func(io.Reader) io.Reader{
				func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader,
			} {
				var p preface
				r := chunked(strings.NewReader(c.in + rest))
				addr, found, err := p.read(r)
				var bad *headerError
				if errors.As(err, &bad) != (c.reason != "") || bad != nil && bad.reason != c.reason || bad == nil && err != nil {
					t.Fatalf("got error %v, want reason %q", err, c.reason)
				}
				if err != nil {
					continue
				}
				client := ""
				if addr != nil {
					client = addr.String()
				}
				if found != c.found || client != c.client {
					t.Errorf("got client %q, found %v; want %q, %v", client, found, c.client, c.found)
				}
				behind, _ := io.ReadAll(r)
				want := rest
				if !c.found {
					want = c.in + rest
				}
				if got := string(p.buf[p.off:p.n]) + string(behind); got != want {
					t.Errorf("behind the header: got %q, want %q", got, want)
				}
			}
		})
	}
}

// TestPrefaceEnds: a header that ends early is an error wherever it ends, and
// so is a start that could have become one.
func TestPrefaceEnds(t *testing.T) {
	for _, whole := range []string{
		header2(0x21, 0x11, tcp4+tlvs), header2(0x21, 0x31, unix+strings.Repeat(tlvs, 40)), header2(0x20, 0, tlvs),
		"PROXY TCP4 198.51.100.1 10.0.0.1 4711 443\r\n",
	} {
		for n := range whole {
			var p preface
			_, _, err := p.read(strings.NewReader(whole[:n]))
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("the first %d bytes of %q: got error %v, want an end of file", n, whole, err)
			}
		}
	}
}

func FuzzPreface(f *testing.F) {
	for _, s := range []string{
		header2(0x21, 0x11, tcp4+tlvs), header2(0x21, 0x21, tcp6), header2(0x21, 0x31, unix+tlvs),
		header2(0x20, 0, tlvs), header2(0x21, 0, ""), header2(0x21, 0x11, tcp4[:7]),
		"PROXY TCP4 198.51.100.1 10.0.0.1 4711 443\r\n", "PROXY UNKNOWN\r\n", "GET / HTTP/1.1\r\n\r\n", "",
	} {
		f.Add([]byte(s + "rest"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		type answer struct {
			client string
			found  bool
			err    string
			behind string
		}
		read := func(r io.Reader) (a answer) {
			var p preface
			client, found, err := p.read(r)
			a.found = found
			if client != nil {
				a.client = client.String()
			}
			var bad *headerError
			switch {
			case errors.As(err, &bad):
				a.err = bad.Error()
				return a
			case err != nil:
				a.err = "ended"
				return a
			}
			rest, _ := io.ReadAll(r)
			a.behind = string(p.buf[p.off:p.n]) + string(rest)
			return a
		}
		whole := read(bytes.NewReader(data))
		if slow := read(iotest.OneByteReader(bytes.NewReader(data))); slow != whole {
			t.Fatalf("byte by byte: got %+v, at once %+v", slow, whole)
		}
		if whole.err == "" && !strings.HasSuffix(string(data), whole.behind) {
			t.Fatalf("behind the header stands %q, of %q", whole.behind, data)
		}
		if !whole.found && whole.err == "" && whole.behind != string(data) {
			t.Fatalf("without header: got %q, want all of %q", whole.behind, data)
		}
		if whole.found && whole.err == "" && len(data)-len(whole.behind) > fixed2+maxBody2 {
			t.Fatalf("took %d bytes for a header", len(data)-len(whole.behind))
		}
	})
}

func BenchmarkPreface(b *testing.B) {
	for _, c := range []struct{ name, in string }{
		{"none", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"v2 tcp4", header2(0x21, 0x11, tcp4)},
		{"v2 tcp6 with tlvs", header2(0x21, 0x21, tcp6+strings.Repeat(tlvs, 50))},
		{"v1 tcp4", "PROXY TCP4 198.51.100.1 10.0.0.1 4711 443\r\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.in)))
			r := strings.NewReader(c.in)
			p := new(preface)
			for b.Loop() {
				r.Reset(c.in)
				p.off, p.n = 0, 0
				if _, _, err := p.read(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

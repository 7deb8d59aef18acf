package namecheck

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// The types of questions (RFC 1035, RFC 3596).
const (
	typeA, typePTR, typeAAAA = 1, 12, 28
)

// records are what a name server knows, by type and name in lower case.
type records map[uint16]map[string]string

// serveDNS answers over UDP on loopback until the test ends: with one record,
// else that there is none.
func serveDNS(t *testing.T, known records) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return // closed
			}
			if reply := answerDNS(buf[:n], known); reply != nil {
				_, _ = conn.WriteTo(reply, from) // else it is asked again
			}
		}
	}()
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return conn.LocalAddr().String()
}

// answerDNS answers the one question of a message (RFC 1035, section 4).
func answerDNS(query []byte, known records) []byte {
	const header = 12
	if len(query) < header || binary.BigEndian.Uint16(query[4:]) != 1 {
		return nil
	}
	var labels []string
	at := header
	for at < len(query) && query[at] != 0 {
		end := at + 1 + int(query[at])
		if end >= len(query) {
			return nil
		}
		labels = append(labels, string(query[at+1:end]))
		at = end
	}
	at += 5 // the root, type and class
	if at > len(query) {
		return nil
	}
	kind := binary.BigEndian.Uint16(query[at-4:])
	value, ok := known[kind][strings.ToLower(strings.Join(labels, "."))]
	reply := append([]byte{}, query[:at]...)
	copy(reply[2:], []byte{0x84, 0x00, 0, 1, 0, 0, 0, 0, 0, 0}) // an answer, with authority
	if !ok {
		reply[3] = 3 // there is no such name
		return reply
	}
	reply[7] = 1
	var data []byte
	if kind == typePTR {
		for _, label := range strings.Split(value, ".") {
			data = append(append(data, byte(len(label))), label...)
		}
		data = append(data, 0)
	} else {
		data = netip.MustParseAddr(value).AsSlice()
	}
	reply = append(reply, 0xc0, header) // the name of the question
	reply = binary.BigEndian.AppendUint16(reply, kind)
	reply = append(reply, 0, 1, 0, 0, 0, 60)
	reply = binary.BigEndian.AppendUint16(reply, uint16(len(data)))
	return append(reply, data...)
}

// With the resolver of the standard library and a real name server: an address
// that owns its name, one that claims another's, one without any, in v4 and v6.
func TestAgainstANameServer(t *testing.T) {
	server := serveDNS(t, records{
		typePTR: {
			"1.66.249.66.in-addr.arpa":  "crawl-66-249-66-1.googlebot.com",
			"7.100.51.198.in-addr.arpa": "crawl-66-249-66-1.googlebot.com",
			"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.8.4.0.6.8.4.1.0.0.2.ip6.arpa": "v6.googlebot.com",
		},
		typeA:    {"crawl-66-249-66-1.googlebot.com": "66.249.66.1"},
		typeAAAA: {"v6.googlebot.com": "2001:4860:4801::1"},
	})
	type found struct {
		addr netip.Addr
		name string
	}
	heard := make(chan found, 8)
	s := running(t, Config{
		Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "udp", server)
		}},
		Confirmed: func(_ context.Context, addr netip.Addr, name string) { heard <- found{addr, name} },
		Lookups:   1, // so that they come in order
		Timeout:   time.Minute,
	})
	const crawler, liar, nameless, crawler6 = "66.249.66.1", "198.51.100.7", "198.51.100.8", "2001:4860:4801::1"
	for _, addr := range []string{liar, nameless, crawler, crawler6} {
		s.Check(netip.MustParseAddr(addr))
	}
	for _, want := range []found{
		{netip.MustParseAddr(crawler), "crawl-66-249-66-1.googlebot.com"}, {netip.MustParseAddr(crawler6), "v6.googlebot.com"},
	} {
		select {
		case got := <-heard:
			if got != want {
				t.Errorf("heard of %v, want %v", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("heard nothing of %v", want)
		}
	}
	for addr, want := range map[string]State{crawler: Owns, liar: Other, nameless: Other, crawler6: Owns} {
		if _, got := s.Check(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %d, want %d", addr, got, want)
		}
	}
}

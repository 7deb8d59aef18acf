package system

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/internal/roles"
)

// loopback is where the proxies of these tests are.
var loopback = []muster.Source{muster.SourceFromPrefix(netip.MustParsePrefix("127.0.0.0/8"))}

// wantPeer waits for the log line of a refused request, which names its client.
func wantPeer(t *testing.T, s *server, agent, peer string) {
	t.Helper()
	eventually(t, "the log line of "+agent, func() string {
		for line := range strings.Lines(s.log.all()) {
			if strings.Contains(line, "agent="+agent) {
				if !strings.Contains(line, "peer="+peer+" ") {
					t.Fatalf("expected peer %s: %s", peer, line)
				}
				return ""
			}
		}
		return "it is not there"
	})
}

// refused sends a request that is refused, and so logged, with a header of its
// own; the user agent marks its line.
func refused(t *testing.T, s *server, agent, header, value string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v3/decisions/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", agent)
	req.Header.Set(header, value)
	resp, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d, want 401", resp.StatusCode)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTrustedProxysWordIsTaken(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *roles.Config) { c.Log.Level, c.Proxies.Trusted = "info", loopback })
	refused(t, s, "one", "X-Forwarded-For", "1.2.3.4, 203.0.113.9, 127.0.0.5")
	wantPeer(t, s, "one", "203.0.113.9")
	refused(t, s, "other-header", "Forwarded", "for=203.0.113.9")
	wantPeer(t, s, "other-header", "127.0.0.1")
}

func TestStrangersHeadersAreNotBelieved(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *roles.Config) { c.Log.Level = "info" })
	refused(t, s, "spoof", "X-Forwarded-For", "203.0.113.9")
	wantPeer(t, s, "spoof", "127.0.0.1")
}

func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *roles.Config) {
		c.Log.Level, c.Proxies.Trusted, c.Proxies.Protocol = "info", loopback, "optional"
	})
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(s.url, "http://"), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	header := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11")
	header = binary.BigEndian.AppendUint16(header, 12)
	header = append(header, 203, 0, 113, 9, 127, 0, 0, 1, 0x30, 0x39, 0x21, 0x98)
	if _, err := fmt.Fprintf(conn, "%sGET /v3/decisions/stream HTTP/1.1\r\nHost: muster\r\nUser-Agent: balanced\r\n\r\n", header); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d, %v", resp.StatusCode, err)
	}
	wantPeer(t, s, "balanced", "203.0.113.9")
	refused(t, s, "direct", "X-Forwarded-For", "203.0.113.10")
	wantPeer(t, s, "direct", "203.0.113.10")
}

package testkit

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"muster"
)

var (
	ipv4       = regexp.MustCompile(`\b\d{1,3}(\.\d{1,3}){3}\b`)
	syslogTime = regexp.MustCompile(`^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d`)
	clfTime    = regexp.MustCompile(`\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]`)
	caddyTime  = regexp.MustCompile(`"ts":\d+\.\d+`)
)

// AttackLog returns the lines of a recorded attack, dated now. Attackers that
// were recorded behind a private, loopback or documentation address come from
// attacker instead; public addresses stay as recorded.
func AttackLog(t testing.TB, name string, attacker netip.Addr, now time.Time) []string {
	t.Helper()
	text, err := os.ReadFile(Shared(t, "data", "logs", name))
	if err != nil {
		t.Fatal(err)
	}
	return moveAttack(string(text), attacker, now)
}

func moveAttack(text string, attacker netip.Addr, now time.Time) []string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		line = ipv4.ReplaceAllStringFunc(line, func(s string) string {
			addr, err := netip.ParseAddr(s)
			if err == nil && muster.SourceFromAddr(addr).IsReserved() {
				return attacker.String()
			}
			return s
		})
		line = syslogTime.ReplaceAllString(line, now.Local().Format(time.Stamp))
		line = clfTime.ReplaceAllString(line, now.Format("[02/Jan/2006:15:04:05 -0700]"))
		line = caddyTime.ReplaceAllString(line, fmt.Sprintf(`"ts":%d.%06d`, now.Unix(), now.Nanosecond()/1000))
		lines = append(lines, line)
	}
	return lines
}

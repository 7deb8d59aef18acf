package testkit

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMoveAttack(t *testing.T) {
	now := time.Date(2026, 11, 2, 3, 4, 5, 678000, time.Local)
	zone := now.Format("-0700")
	got := moveAttack(`Feb 12 14:10:21 host sshd[1]: Invalid user pascal from 35.188.49.176 port 53502

172.17.0.1 - - [29/Sep/2021:12:37:05 +0000] "GET /a HTTP/1.1" 404 196 "-" "Nikto/2.1.5"
{"ts":1711741827.9626286,"request":{"remote_ip":"127.0.0.1","client_ip":"127.0.0.1"}}
`, netip.MustParseAddr("185.220.101.42"), now)
	want := []string{
		`Nov  2 03:04:05 host sshd[1]: Invalid user pascal from 35.188.49.176 port 53502`,
		`185.220.101.42 - - [02/Nov/2026:03:04:05 ` + zone + `] "GET /a HTTP/1.1" 404 196 "-" "Nikto/2.1.5"`,
		`{"ts":` + strconv.FormatInt(now.Unix(), 10) + `.000678,"request":{"remote_ip":"185.220.101.42","client_ip":"185.220.101.42"}}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

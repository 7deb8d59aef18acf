package peer

import (
	"net/netip"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ranges(list ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func mustTrust(t testing.TB, header Header, list ...string) Trust {
	t.Helper()
	trust, err := NewTrust(ranges(list...), header)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

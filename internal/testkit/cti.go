package testkit

import "testing"

// CTIClient returns CrowdSec's own client of its CTI API; test/peers/cti says
// what it does.
func CTIClient(t testing.TB) string {
	t.Helper()
	return peer(t, "build", "bin", "cti")
}

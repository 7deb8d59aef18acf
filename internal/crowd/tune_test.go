package crowd

import (
	"os"
	"testing"
)

func TestTune(t *testing.T) {
	if os.Getenv("CROWD_TUNE") == "" {
		t.Skip()
	}
	base := toy{honest: 1000, sleepers: 430, honeypots: 30, networks: 200, hostile: 20, attackers: 150, benign: 3400, canaries: 200, noise: 0.02,
		warm: 6, days: 14, victims: 20, parameters: Default()}
	for _, c := range []struct {
		name           string
		hostile, liars int
	}{{"no attack", 20, 0}, {"no sleepers", 20, -1}, {"3 liars each", 20, 3}, {"10 liars each", 20, 10}, {"all", 20, 430}} {
		y := base
		y.hostile, y.liars, y.seed = c.hostile, c.liars, 1
		y.silent = c.liars < 0
		y.liars = max(0, c.liars)
		t.Logf("%-16s %s", c.name, y.run())
	}
}

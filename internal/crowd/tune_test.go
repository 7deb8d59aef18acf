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
		warm: 6, days: 14, victims: 20, liars: 3, parameters: Default()}
	for _, c := range []struct {
		name string
		set  func(y *toy)
	}{
		{"3", func(y *toy) {}},
		{"3 s0", func(y *toy) { y.parameters.Suspicion.CompanySigmas = 0 }},
		{"3 s.5", func(y *toy) { y.parameters.Suspicion.CompanySigmas = 0.5 }},
		{"8", func(y *toy) { y.liars = 8 }},
		{"8 s0", func(y *toy) { y.liars = 8; y.parameters.Suspicion.CompanySigmas = 0 }},
		{"8 s.5", func(y *toy) { y.liars = 8; y.parameters.Suspicion.CompanySigmas = 0.5 }},
	} {
		for seed := range uint64(2) {
			y := base
			y.seed = seed + 1
			c.set(&y)
			t.Logf("%-16s %s", c.name, y.run())
		}
	}
}

package jury

import (
	"fmt"
	"testing"
	"time"

	"muster"
	"muster/internal/policy"
)

const network = "35.188.90.0/24"

// convict reports n addresses of a range, each by two of four organisations in
// turns.
func (r *rig) convict(from, n int, hours float64) (listed []string) {
	for i := from; i < from+n; i++ {
		address := fmt.Sprintf("35.188.90.%d", i)
		r.log.report(said(r.t, string("abcd"[i%4])+"1", address, hours, counts), said(r.t, string("abcd"[(i+1)%4])+"1", address, hours, counts))
		listed = append(listed, address)
	}
	return listed
}

// Whoever holds a range moves within it: when many voices convict many of its
// addresses, it is listed as a whole.
func TestARangeIsListedForItsMembers(t *testing.T) {
	for _, restart := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			run := func(truth Truth) { r.run(func(c *Config) { c.Truth = truth }) }
			again := func(truth Truth) {
				if restart {
					r.stop()
					run(truth)
				} else if err := r.SetTruth(t.Context(), truth); err != nil {
					t.Fatal(err)
				}
				r.tick()
			}
			run(Truth{})
			listed := r.convict(1, 5, 0)
			r.tick()
			r.wantListed("with five members", listed...)
			again(Truth{})
			listed = append(listed, r.convict(6, 2, 0)...)
			r.tick()
			r.tick()
			r.wantListed("with seven", append(listed, network)...)
			v := r.verdict(muster.Network, network)
			if v.Reasons.Basis != "range" || v.Reasons.Machines != 7 || v.Scenario != brute || !v.Until.Equal(start.Add(72*time.Hour)) {
				t.Errorf("got %+v", v)
			}
			// Nothing is known about this address but that it is good.
			good := Truth{Allowlist: policy.NewAllowlist([]muster.AllowEntry{{Source: source(t, "35.188.90.200")}})}
			again(good)
			r.wantListed("with an address inside that is good", listed...)
			again(Truth{})
			for _, m := range []string{"a1", "c1"} {
				if err := r.Forget(t.Context(), m, ""); err != nil {
					t.Fatal(err)
				}
			}
			r.tick()
			r.wantListed("without a1 and c1", listed...)
		})
	}
}

func TestARangeLapsesWithItsMembers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		listed := r.convict(1, 8, 0)
		r.tick()
		r.tick()
		r.wantListed("at first", append(listed, network)...)
		r.convict(1, 3, 24)
		r.report(said(t, "a1", "35.188.77.7", 72.1, counts))
		r.wantListed("with three members left", listed[:3]...)
	})
}

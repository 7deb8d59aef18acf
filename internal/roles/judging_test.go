package roles

import (
	"net/netip"
	"testing"
	"time"

	"muster"
	"muster/internal/jury"
	"muster/internal/policy"
)

// What is of an AS that is a canary is kept out of every answer, by what the
// database says now; without one nothing is.
func TestTheGuardKnowsAS(t *testing.T) {
	c, err := muster.NewCanary(muster.OriginOperator, "AS64600")
	if err != nil {
		t.Fatal(err)
	}
	source, err := muster.ParseSource("45.85.1.1")
	if err != nil {
		t.Fatal(err)
	}
	asn := func(a netip.Addr) uint32 {
		if netip.MustParsePrefix("45.85.0.0/16").Contains(a) {
			return 64600
		}
		return 0
	}
	guard := &truth{now: time.Now, asn: asn}
	guard.known.Store(&jury.Truth{Canaries: policy.NewCanaries([]muster.Canary{c})})
	if !guard.covers(source) {
		t.Error("an address of it is let through")
	}
	if other, _ := muster.ParseSource("45.86.1.1"); guard.covers(other) {
		t.Error("one of another is kept out")
	}
	guard.asn = nil
	if guard.covers(source) {
		t.Error("without a database it is kept out")
	}
	if guard.due() {
		t.Error("to be read again without need")
	}
	if guard.failed.Store(true); !guard.due() {
		t.Error("what could not be read is not read again")
	}
}

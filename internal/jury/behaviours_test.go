package jury

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBehaviours(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		s := said(t, "a1", address, 0, counts)
		s.Scenario = "someone/a-new-one"
		r.report(s)
		all, err := r.Behaviours(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, b := range all {
			names = append(names, b.Scenario)
			if b.Prior != prior(b.Scenario) || b.Shots != 0 || b.Keeps != 1 || b.Twitchy {
				t.Errorf("got %+v", b)
			}
		}
		want := []string{brute, probing, "someone/a-new-one"}
		slices.Sort(want)
		if diff := cmp.Diff(want, names); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRanks(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(crowdSays(t, canary, 0)...)
		r.report(said(t, "c1", address, 0, counts))
		if err := r.SetTruth(t.Context(), truth(t)); err != nil { // a1 and b1 reported a canary
			t.Fatal(err)
		}
		ranks, err := r.Ranks(t.Context(), []string{"a1", "c1", "nobody"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]uint8{"a1": 0, "c1": 1}, ranks); diff != "" {
			t.Error(diff)
		}
		if got := r.trust("c1"); got.Trust.Bound <= 0 || got.Trust.Bound >= 0.5 {
			t.Errorf("a newcomer's word is right in %v of the cases at least", got.Trust.Bound)
		}
	})
}

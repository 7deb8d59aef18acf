package tally

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/internal/consensus"
)

// A machine that moved to another organisation takes along what it says from
// then on, and leaves nothing behind.
func TestForgetOfAnotherOrganisation(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		moved := said(t, "a1", other, 0, fleet)
		moved.Organisation = "C"
		r.report(said(t, "a1", address, 0, fleet), moved)
		r.wantListed("before", address+" for A", other+" for C")
		if err := r.Forget(t.Context(), "a1", "C"); err != nil {
			t.Fatal(err)
		}
		r.wantListed("as a member of C only", other+" for C")
		commits := r.ledger.committed()
		for _, m := range []string{"a1", "a2", "", "A"} {
			if err := r.Forget(t.Context(), m, "C"); err != nil || r.ledger.committed() != commits {
				t.Errorf("%q, who has nothing to forget: %v, %d more commits", m, err, r.ledger.committed()-commits)
			}
		}
	})
}

// While nobody ran, a machine may have moved.
func TestMembershipIsAskedForAtStart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.run()
		r.report(said(t, "a1", address, 0, fleet), said(t, "a2", other, 0, fleet))
		r.stop()
		r.run(func(c *Config) {
			c.Member = func(machine, organisation string) bool { return machine == "a2" && organisation == "A" }
		})
		r.wantListed("a1 is of another organisation now", other+" for A")
		r.report(said(t, "a1", address, 1, fleet))
		r.wantListed("after a report that it sent before it moved", other+" for A")
	})
}

func TestNames(t *testing.T) {
	set := map[string]bool{decision: true}
	for detail, want := range map[string]bool{
		`{"decisions":[{"uuid":"` + decision + `"}]}`:                  true,
		`{"decisions":[{"uuid": "x"}, {"uuid": "` + decision + `" }]}`: true,
		`{"message":"a \" quote","uuid":"` + decision + `"}`:           true,
		`{"message":"it says \\","uuid":"` + decision + `"}`:           true,
		`{"message":"of ` + decision + ` it says nothing"}`:            false,
		`{"uuid":"` + decision[:35] + `"}`:                             false,
		`{"uuid":"` + strings.ToUpper(decision) + `"}`:                 false,
		`{"uuid":"` + decision:                                         false,
		``:                                                             false,
		`"`:                                                            false,
	} {
		if got := names([]byte(detail), set); got != want {
			t.Errorf("%s: got %t, want %t", detail, got, want)
		}
	}
}

// Every string of a document is found, whatever stands around it.
func TestNamesFindsEveryString(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.SliceOf(rapid.String()).Draw(t, "before")
		doc, err := json.Marshal(map[string]any{"before": before, "uuid": decision, "zz": rapid.String().Draw(t, "after")})
		if err != nil {
			t.Fatal(err)
		}
		if !names(doc, map[string]bool{decision: true}) {
			t.Fatalf("not found in %s", doc)
		}
	})
}

// Unused names go; those that evidence holds stay, so that what their machines
// said can still be taken back.
func TestForgetNames(t *testing.T) {
	w := New(config(newLedger(), newStream()))
	w.evidence[source(t, address)] = consensus.Evidence{
		Voices: []consensus.Voice{{Machine: w.intern("a1"), Organisation: w.intern("A")}}, Scenarios: []consensus.Tally{{Scenario: w.intern("s")}},
	}
	w.forgetNames()
	for i := range 10 {
		w.intern(fmt.Sprint("gone", i))
	}
	if w.forgetNames(); len(w.names) != 13 {
		t.Errorf("%d names, want all 13 while they are few", len(w.names))
	}
	w.maxNames = 13
	w.forgetNames()
	if diff := cmp.Diff(map[string]string{"a1": "a1", "A": "A", "s": "s"}, w.names); diff != "" || w.maxNames != minNames {
		t.Errorf("next at %d (-want +got):\n%s", w.maxNames, diff)
	}
}

func FuzzNames(f *testing.F) {
	f.Add(`{"uuid":"`+decision+`"}`, decision)
	f.Add(`"a\"b"`, "b")
	f.Fuzz(func(t *testing.T, detail, word string) {
		if got := names([]byte(detail), map[string]bool{word: true}); got && !strings.Contains(detail, `"`+word+`"`) {
			t.Errorf("%q is no string of %q", word, detail)
		}
	})
}

package muster

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestValidateMachineID(t *testing.T) {
	for _, id := range []string{"a", "0", "Z", strings.Repeat("a1B", 16), strings.Repeat("x", MaxMachineID)} {
		if err := ValidateMachineID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for id, want := range map[string]string{
		"":                                   "empty",
		strings.Repeat("x", MaxMachineID+1):  "129 characters",
		"machine-1":                          "position 8",
		"ä":                                  "position 1",
		"abc\n":                              "position 4",
		"a b":                                "position 2",
		"a\x00":                              "position 2",
		"../etc/passwd":                      "position 1",
		strings.Repeat("y", 100) + "_suffix": "position 101",
	} {
		err := ValidateMachineID(id)
		if CodeOf(err) != Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want code invalid and %q", id, err, want)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("%q: the error quotes all of it", id)
		}
	}
}

func TestCanonicalScenarios(t *testing.T) {
	got := CanonicalScenarios([]string{"b", " a ", "", "b", "\t", strings.Repeat("x", 201), "a", strings.Repeat("y", 200)})
	if diff := cmp.Diff([]string{"a", "b", strings.Repeat("y", 200)}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := CanonicalScenarios(nil); got == nil || len(got) != 0 {
		t.Errorf("of none: got %#v, want an empty list", got)
	}
	many := make([]string, 6000)
	for i := range many {
		many[i] = fmt.Sprintf("author/scenario-%05d", len(many)-i)
	}
	if got := CanonicalScenarios(many); len(got) != 5000 || got[0] != "author/scenario-00001" || many[0] != "author/scenario-06000" {
		t.Errorf("of 6,000: %d are kept, from %q on, and the input begins with %q", len(got), got[0], many[0])
	}
}

func TestCanonicalScenariosProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOf(rapid.OneOf(rapid.String(), rapid.StringMatching(`[ab ]{0,3}`))).Draw(t, "declared")
		out := CanonicalScenarios(in)
		if !slices.IsSorted(out) || len(slices.Compact(slices.Clone(out))) != len(out) {
			t.Fatalf("not sorted or not unique: %q", out)
		}
		for _, s := range out {
			if s == "" || s != strings.TrimSpace(s) || len(s) > 200 {
				t.Fatalf("%q is blank, padded or too long", s)
			}
		}
		for _, s := range in {
			if s = strings.TrimSpace(s); s != "" && len(s) <= 200 && !slices.Contains(out, s) {
				t.Fatalf("%q is lost", s)
			}
		}
		if diff := cmp.Diff(out, CanonicalScenarios(out)); diff != "" {
			t.Fatalf("not stable:\n%s", diff)
		}
		slices.Reverse(in)
		if diff := cmp.Diff(out, CanonicalScenarios(in)); diff != "" {
			t.Fatalf("depends on the order:\n%s", diff)
		}
	})
}

func TestEnrolmentKeyUsable(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		key  EnrolmentKey
		want string // part of the refusal; "" = usable
	}{
		"without limits":   {EnrolmentKey{Uses: 1000}, ""},
		"before its end":   {EnrolmentKey{ExpiresAt: now.Add(time.Nanosecond)}, ""},
		"at its end":       {EnrolmentKey{ExpiresAt: now}, "expired on 2026-11-20T12:00:00Z"},
		"after its end":    {EnrolmentKey{ExpiresAt: now.Add(-time.Hour)}, "expired"},
		"with a use left":  {EnrolmentKey{MaxUses: 3, Uses: 2}, ""},
		"used up":          {EnrolmentKey{MaxUses: 3, Uses: 3}, "used 3 of 3 times"},
		"used over":        {EnrolmentKey{MaxUses: 3, Uses: 4}, "used 4 of 3 times"},
		"revoked":          {EnrolmentKey{RevokedAt: now.Add(-time.Hour)}, "revoked"},
		"revoked and more": {EnrolmentKey{RevokedAt: now, ExpiresAt: now, MaxUses: 1, Uses: 1}, "revoked"},
	} {
		switch err := c.key.Usable(now); {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (!errors.Is(err, Gone) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want code gone and %q", name, err, c.want)
		}
	}
}

func TestContactsLast(t *testing.T) {
	at := func(h int) time.Time { return time.Date(2026, 11, 20, h, 0, 0, 0, time.UTC) }
	for i, c := range []Contacts{
		{Login: at(9), Pull: at(1), Push: at(2), Metrics: at(3), Poll: at(4), Heartbeat: at(5)},
		{Login: at(1), Pull: at(9)},
		{Push: at(9)},
		{Pull: at(8), Metrics: at(9)},
		{Poll: at(9)},
		{Heartbeat: at(9), Poll: at(8)},
	} {
		if got := c.Last(); !got.Equal(at(9)) {
			t.Errorf("%d: got %s", i, got)
		}
	}
	if !(Contacts{}).Last().IsZero() {
		t.Error("never heard must be the zero time")
	}
}

func TestWords(t *testing.T) {
	for word, want := range map[string]ScenarioTrust{
		"certified": TrustCertified, "custom": TrustCustom, "tainted": TrustTainted, "manual": TrustManual,
		"unknown": TrustUnknown, "": TrustUnknown, "Certified": TrustUnknown, " certified": TrustUnknown,
	} {
		got := ParseScenarioTrust(word)
		if got != want {
			t.Errorf("%q: got %s, want %s", word, got, want)
		}
		if want != TrustUnknown && got.String() != word {
			t.Errorf("%q reads back as %q", word, got)
		}
	}
	if got := ScenarioTrust(200).String(); got != "manual" {
		t.Errorf("a trust of a newer release: got %q", got)
	}
	for plan, orders := range map[Plan]bool{Community: false, SecOps: true, Enterprise: true} {
		if !plan.Valid() || plan.Orders() != orders {
			t.Errorf("%s: valid %t, orders %t", plan, plan.Valid(), plan.Orders())
		}
	}
	if Plan("").Valid() || Plan("enterprise").Valid() || Plan("enterprise").Orders() || FleetPolicy("").Valid() || MachineState("").Valid() || MachineState("Active").Valid() {
		t.Error("words must be spelled exactly")
	}
	for _, p := range []FleetPolicy{FleetOff, FleetHub, FleetAll} {
		if !p.Valid() {
			t.Errorf("fleet policy %s is not valid", p)
		}
	}
	for _, s := range []MachineState{Pending, Active, Blocked} {
		if !s.Valid() {
			t.Errorf("state %s is not valid", s)
		}
	}
}

func TestErrors(t *testing.T) {
	cause := fmt.Errorf("disk: %w", io.ErrShortWrite)
	err := error(Errorf(Unavailable, "try later: %w", cause))
	wrapped := fmt.Errorf("commit: %w", err)
	switch {
	case !errors.Is(wrapped, Unavailable) || errors.Is(wrapped, NotFound):
		t.Error("a code is found through wrapping, and only that one")
	case !errors.Is(wrapped, io.ErrShortWrite):
		t.Error("the cause is lost")
	case wrapped.Error() != "commit: try later: disk: short write":
		t.Errorf("text: %q", wrapped)
	case CodeOf(wrapped) != Unavailable:
		t.Errorf("code: %q", CodeOf(wrapped))
	}
	for err, want := range map[error]Code{nil: "", io.EOF: "", NotFound: NotFound, fmt.Errorf("x: %w", Gone): Gone, Errorf(Invalid, "no %s", "verb"): Invalid} {
		if got := CodeOf(err); got != want {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
}

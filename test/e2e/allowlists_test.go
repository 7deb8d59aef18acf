package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/internal/testkit"
)

var (
	ours      = netip.MustParseAddr("185.220.101.80")
	colleague = netip.MustParseAddr("185.220.103.9")
)

// engineList is an allowlist as an engine shows it.
type engineList struct {
	Name  string `json:"name"`
	Items []struct {
		Value string `json:"value"`
	} `json:"items"`
	Managed bool `json:"console_managed"`
}

// allowlistsOf returns the lists that an engine has, with what is on them.
func allowlistsOf(t *testing.T, e *testkit.Engine) (out []string) {
	t.Helper()
	text, err := e.TryCscli(t, "allowlists", "list", "-o", "json")
	var lists []engineList
	if err == nil {
		err = json.Unmarshal([]byte(text), &lists)
	}
	if err != nil {
		t.Fatalf("%s: reading its allowlists: %v\n%s", e.Name, err, text)
	}
	for _, l := range lists {
		var values []string
		for _, i := range l.Items {
			values = append(values, i.Value)
		}
		slices.Sort(values)
		out = append(out, strings.TrimSpace(l.Name+" "+strings.Join(values, " ")))
		if !l.Managed {
			t.Errorf("%s: expected %s to be managed from elsewhere", e.Name, l.Name)
		}
	}
	slices.Sort(out)
	return out
}

// hasLists waits until an engine has exactly these lists.
func hasLists(t *testing.T, e *testkit.Engine, want ...string) {
	t.Helper()
	testkit.Eventually(t, 45*time.Second, fmt.Sprintf("%s has the lists %q", e.Name, want), func() string {
		if got := allowlistsOf(t, e); !slices.Equal(got, want) {
			return fmt.Sprintf("%q", got)
		}
		return ""
	})
}

// TestAllowlists is what engines do with the lists of their organisation: with
// orders at once, and without by their next pull.
func TestAllowlists(t *testing.T) {
	if testing.Short() {
		t.Skip("real engines take a minute: skipped with -short")
	}
	t.Parallel()
	hub := testkit.StartHub(t)
	kit := testkit.Crowdsec{Hub: hub, Guard: testkit.StartGuard(t)}
	n := &network{a: kit.NewEngine(t, "a"), b: kit.NewEngine(t, "b")}
	n.muster = testkit.NewMuster(t, "MUSTER_HUB__INDEX="+hub.Index, "MUSTER_LOG__LEVEL=debug")
	n.muster.Start(t)
	n.first, n.second = n.muster.Organisation(t, "First"), n.muster.Organisation(t, "Second", "--plan", "COMMUNITY")
	n.muster.Join(t, n.a, "--key", n.muster.EnrolmentKey(t, n.first), "--tag", "web")
	n.muster.Join(t, n.b, "--key", n.muster.EnrolmentKey(t, n.second))
	for _, e := range []*testkit.Engine{n.a, n.b} {
		e.Start(t)
		for _, source := range []netip.Addr{ours, colleague} {
			e.Cscli(t, "decisions", "add", "--ip", source.String(), "--duration", "1h")
		}
	}
	// The machine polls for orders before it is told anything.
	testkit.Eventually(t, 30*time.Second, "a polls for orders", func() string {
		status, err := n.a.TryCscli(t, "papi", "status")
		if err != nil || !strings.Contains(status, "Last order received") && !strings.Contains(status, "management") {
			return fmt.Sprintf("%s %v", status, err)
		}
		return ""
	})
	admin := func(args ...string) string {
		return n.muster.Admin(t, append([]string{"admin", "allowlist"}, args...)...)
	}
	banned := func(e *testkit.Engine) (out []string) {
		for _, d := range e.Decisions(t) {
			if d.Origin == "cscli" {
				out = append(out, d.Value)
			}
		}
		slices.Sort(out)
		return out
	}

	for _, step := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"an order brings the list, which lifts decisions", func(t *testing.T) {
			admin("create", "office", "--org", "First", "--tag", "web", "--description", "Branches")
			admin("add", "office", ours.String(), "185.220.103.0/28", "--reason", "ours", "--ttl", "1d")
			hasLists(t, n.a, "office 185.220.101.80 185.220.103.0/28")
			testkit.Eventually(t, 15*time.Second, "a lifts its decisions", func() string {
				if left := banned(n.a); len(left) > 0 {
					return fmt.Sprint(left)
				}
				return ""
			})
		}},
		{"what is taken off is off", func(t *testing.T) {
			admin("remove", "office", ours.String())
			hasLists(t, n.a, "office 185.220.103.0/28")
		}},
		{"without orders the next pull brings the list", func(t *testing.T) {
			admin("create", "office", "--org", "Second")
			admin("add", "office", "--org", "Second", ours.String())
			hasLists(t, n.b)
			n.b.Restart(t)
			hasLists(t, n.b, "office 185.220.101.80")
			if left := banned(n.b); !slices.Equal(left, []string{colleague.String()}) {
				t.Errorf("expected b to lift its decision on %s alone, got %v", ours, left)
			}
		}},
		{"a list for all engines", func(t *testing.T) {
			admin("create", "partners", "--central")
			admin("add", "partners", "185.220.104.0/24")
			n.muster.Admin(t, "admin", "allow", "add", "185.220.105.1", "--reason", "the list central stays here")
			hasLists(t, n.a, "office 185.220.103.0/28", "partners 185.220.104.0/24")
		}},
		{"an order takes a list back", func(t *testing.T) {
			admin("set", "office", "--org", "First", "--tag", "db")
			hasLists(t, n.a, "partners 185.220.104.0/24")
		}},
		{"without orders the next pull empties it, and frees the name", func(t *testing.T) {
			admin("delete", "office", "--org", "Second")
			admin("create", "office", "--org", "Second")
			admin("add", "office", "--org", "Second", colleague.String())
			n.b.Restart(t)
			testkit.Eventually(t, 45*time.Second, "b has the new list and nothing in the old", func() string {
				got := allowlistsOf(t, n.b)
				if len(got) != 3 || !strings.HasPrefix(got[0], "office (withdrawn ") || strings.Contains(got[0], "185.") || got[1] != "office "+colleague.String() {
					return fmt.Sprintf("%q", got)
				}
				return ""
			})
		}},
	} {
		if !t.Run(step.name, step.run) {
			return
		}
	}
}

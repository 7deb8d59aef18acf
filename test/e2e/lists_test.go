package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"muster/internal/testkit"
)

// companionScope is that of what goes with a short list: no bouncer reads it.
const companionScope = "Muster"

// TestShortListThatTheEngineAllows: the whole list is one address, which the
// engine's owner has on an allowlist that nobody else knows. An engine dies of
// such a list, and again at each start, unless something is left on it.
func TestShortListThatTheEngineAllows(t *testing.T) {
	if testing.Short() {
		t.Skip("real engines take a minute: skipped with -short")
	}
	t.Parallel()
	hub := testkit.StartHub(t)
	kit := testkit.Crowdsec{Hub: hub, Guard: testkit.StartGuard(t)}
	n := &network{a: kit.NewEngine(t, "a"), b: kit.NewEngine(t, "b")}
	n.muster = testkit.NewMuster(t, "MUSTER_HUB__INDEX="+hub.Index)
	n.muster.Start(t)
	n.first = n.muster.Organisation(t, "First")
	key := n.muster.EnrolmentKey(t, n.first)
	for _, e := range []*testkit.Engine{n.a, n.b} {
		n.muster.Join(t, e, "--key", key)
		e.Start(t)
	}
	n.b.Cscli(t, "allowlists", "create", "office", "-d", "ours")
	n.b.Cscli(t, "allowlists", "add", "office", sshAttacker.String())
	n.a.Feed(t, testkit.AuthLog, testkit.AttackLog(t, "ssh-bf.log", netip.Addr{}, time.Now()))
	n.listed(t, sshAttacker, n.first)

	n.muster.Admin(t, "order", "pull", "--machine", "b")
	testkit.Eventually(t, 60*time.Second, "b has pulled", func() string {
		if exited := n.b.Exited(); exited != "" {
			t.Fatalf("the engine ended: %s\n%s", exited, n.b.Output())
		}
		all := n.b.Decisions(t)
		if slices.ContainsFunc(all, func(d testkit.Decision) bool { return d.Scope == companionScope }) {
			return ""
		}
		return fmt.Sprintf("it has %+v", all)
	})
	lacks(t, n.b, sshAttacker)
	n.b.Restart(t) // it pulls at its start
	lacks(t, n.b, sshAttacker)
	if exited := n.b.Exited(); exited != "" {
		t.Errorf("the engine ended after its restart: %s\n%s", exited, n.b.Output())
	}
}

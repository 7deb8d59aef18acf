package system

import (
	"slices"
	"testing"
)

func TestBlockedMachinesWordIsTakenBack(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	n := newNetwork(t, s)
	block := func(c *client) { s.admin(t, "POST", "/machines/"+c.id+"/block", nil, nil) }
	listed, unripe := address(), address()
	n.report(t, listed)
	n.b1.push(t, attack(unripe))
	s.judged(t, unripe, 1)
	eventually(t, "the listing", func() string { return n.reader.pull(t, "").lacks(listed) })

	// Its fleet no longer has what it alone reported; the other fleet keeps it.
	block(n.b1)
	eventually(t, "the withdrawal from its fleet", func() string {
		got := append(s.listedFor(t, listed), s.listedFor(t, unripe)...)
		if slices.Contains(got, n.b1.org) {
			return "it is listed for the blocked machine's fleet"
		}
		if !slices.Contains(got, n.a1.org) {
			t.Fatalf("the other fleet lost it: %q", got)
		}
		return ""
	})
	n.b1.tryLogin(t).status(t, 403)
	n.b1.get(t, "/v3/decisions/stream").status(t, 401)
	n.b1.post(t, "/signals", []signal{attack(listed)}).status(t, 401)

	// What it said before is nobody's second voice.
	third := s.member(t, engine178, n.a1.org)
	n.a2.push(t, attack(unripe))
	third.push(t, attack(unripe))
	s.judged(t, unripe, 3)
	if slices.Contains(s.listedFor(t, unripe), "") {
		t.Error("a blocked machine is a voice")
	}
	s.member(t, engine178, n.b1.org).push(t, attack(unripe))
	eventually(t, "two voices without it", func() string { return n.reader.pull(t, "").lacks(unripe) })

	// With every reporter blocked, the listing goes from everybody's list.
	block(n.a1)
	block(n.a2)
	eventually(t, "the withdrawal from everybody", func() string {
		got := n.reader.pull(t, "")
		if got.deleted[listed] == "" {
			return "it is not in deleted"
		}
		return got.has(listed)
	})
}

// TestDepartedMachinesWordIsTakenBack: released by an operator, removed by one,
// or signed off by itself.
func TestDepartedMachinesWordIsTakenBack(t *testing.T) {
	t.Parallel()
	s := shared(t)
	for name, leave := range map[string]func(*testing.T, *client){
		"released": func(t *testing.T, c *client) { s.admin(t, "POST", "/machines/"+c.id+"/release", nil, nil) },
		"removed":  func(t *testing.T, c *client) { s.admin(t, "DELETE", "/machines/"+c.id, nil, nil) },
		"gone":     func(t *testing.T, c *client) { c.send(t, "DELETE", "/v3/watchers/self", nil, true).ok(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			org := s.organisation(t)
			c, sibling := s.member(t, engine178, org), s.member(t, engine178, org)
			source := address()
			c.push(t, attack(source))
			eventually(t, "the fleet list", func() string { return sibling.pull(t, "").lacks(source) })
			leave(t, c)
			c.post(t, "/signals", []signal{attack(source)}).status(t, 401)
			eventually(t, "the withdrawal", func() string {
				got := sibling.pull(t, "")
				if got.deleted[source] == "" {
					return "it is not in deleted"
				}
				return got.has(source)
			})
		})
	}
}

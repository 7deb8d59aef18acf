package system

import "testing"

// TestEveryClientGoesTheWholeWay lets each kind of client register, log in,
// enrol, report and pull, as its own code does it.
func TestEveryClientGoesTheWholeWay(t *testing.T) {
	t.Parallel()
	s := shared(t)
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			org := s.organisation(t)
			c := s.registered(t, k)
			if tok := parseToken(t, c.token); tok.enrolled {
				t.Error("a machine that is not enrolled has an organization_id")
			}
			c.enrol(t, s.key(t, org, true)).status(t, 201)
			c.get(t, k.version+"/decisions/stream").status(t, 401)
			c.login(t, "crowdsecurity/ssh-bf")
			if tok := parseToken(t, c.token); tok.organisation != org || tok.plan != "ENTERPRISE" {
				t.Errorf("the token says organisation %v, plan %q", tok.organisation, tok.plan)
			}
			source := address()
			sig := attack(source)
			if k.version == "/v2" {
				sig = sig.v2()
			}
			c.push(t, sig)
			eventually(t, "its own report on its fleet's list", func() string { return c.pull(t, "?startup=true").lacks(source) })
			c.post(t, "/metrics"+k.slash, map[string]any{"bouncers": []any{}, "machines": []any{}}).ok(t)
			m := s.machine(t, c.id)
			if m.State != "active" || m.Organisation != org || len(m.Scenarios) != 1 || m.Seen.Push == nil || m.Seen.Pull == nil || m.Seen.Metrics == nil {
				t.Errorf("the server knows %+v", m)
			}
		})
	}
}

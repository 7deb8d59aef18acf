package enroll

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

func TestEnrol(t *testing.T) {
	many := make([]string, maxTags+1)
	for i := range many {
		many[i] = fmt.Sprint("tag", i)
	}
	// Keys by what they are; each case may use any.
	keys := map[string]KeyRequest{
		"AUTO":    {Organisation: "org-a", AutoAccept: true, Tags: []string{"from key", "shared"}},
		"MANUAL":  {Organisation: "org-a"},
		"ONCE":    {Organisation: "org-a", AutoAccept: true, MaxUses: 1},
		"OTHER":   {Organisation: "org-b", AutoAccept: true},
		"EXPIRED": {Organisation: "org-a", AutoAccept: true, TTL: time.Minute},
	}
	type outcome struct {
		already      bool
		state        muster.MachineState
		organisation string
		name         string
		tags         []string
		uses         int // of the case's key, by the case
	}
	none := outcome{state: muster.Pending}
	for _, tt := range []struct {
		name  string
		first *Enrolment // made before, with success
		then  Enrolment
		code  muster.Code
		text  string
		want  outcome
	}{
		{
			"auto-accept", nil,
			Enrolment{Key: "AUTO", Name: "web 1", Tags: []string{"shared", "mine"}},
			"", "",
			outcome{state: muster.Active, organisation: "org-a", name: "web 1", tags: []string{"from key", "mine", "shared"}, uses: 1},
		},
		{
			"by hand", nil,
			Enrolment{Key: "MANUAL", Name: "web 1"},
			"", "",
			outcome{state: muster.Pending, organisation: "org-a", name: "web 1", uses: 1},
		},
		{
			"by hand, again", &Enrolment{Key: "MANUAL", Name: "old"},
			Enrolment{Key: "MANUAL", Name: "new"},
			"", "",
			outcome{state: muster.Pending, organisation: "org-a", name: "new"},
		},
		{
			"by hand, then accepted by a key", &Enrolment{Key: "MANUAL"},
			Enrolment{Key: "AUTO"},
			"", "",
			outcome{state: muster.Active, organisation: "org-a", tags: []string{"from key", "shared"}, uses: 1},
		},
		{
			"by hand, then elsewhere", &Enrolment{Key: "MANUAL"},
			Enrolment{Key: "OTHER"},
			"", "",
			outcome{state: muster.Active, organisation: "org-b", uses: 1},
		},
		{
			"already", &Enrolment{Key: "AUTO", Name: "old"},
			Enrolment{Key: "AUTO", Name: "new"},
			"", "",
			outcome{already: true, state: muster.Active, organisation: "org-a", name: "old", tags: []string{"from key", "shared"}},
		},
		{
			"already, with a key used up by itself", &Enrolment{Key: "ONCE"},
			Enrolment{Key: "ONCE"},
			"", "",
			outcome{already: true, state: muster.Active, organisation: "org-a"},
		},
		{
			"already, with a key for elsewhere", &Enrolment{Key: "AUTO"},
			Enrolment{Key: "OTHER"},
			"", "",
			outcome{already: true, state: muster.Active, organisation: "org-a", tags: []string{"from key", "shared"}},
		},
		{
			"already, without a key", &Enrolment{Key: "AUTO"},
			Enrolment{Auto: true},
			"", "",
			outcome{already: true, state: muster.Active, organisation: "org-a", tags: []string{"from key", "shared"}},
		},
		{
			"overwriting", &Enrolment{Key: "AUTO", Name: "old"},
			Enrolment{Key: "ONCE", Name: "new", Tags: []string{"x"}, Overwrite: true},
			"", "",
			outcome{state: muster.Active, organisation: "org-a", name: "new", tags: []string{"x"}},
		},
		{
			"overwriting by hand keeps the membership", &Enrolment{Key: "AUTO"},
			Enrolment{Key: "MANUAL", Overwrite: true},
			"", "",
			outcome{state: muster.Active, organisation: "org-a"},
		},
		{
			"overwriting with a key used up by itself", &Enrolment{Key: "ONCE"},
			Enrolment{Key: "ONCE", Name: "new", Overwrite: true},
			"", "",
			outcome{state: muster.Active, organisation: "org-a", name: "new"},
		},
		{
			"moving", &Enrolment{Key: "AUTO"},
			Enrolment{Key: "OTHER", Overwrite: true},
			"", "",
			outcome{state: muster.Active, organisation: "org-b", uses: 1},
		},
		{
			"moving by hand leaves at once", &Enrolment{Key: "OTHER"},
			Enrolment{Key: "MANUAL", Overwrite: true},
			"", "",
			outcome{state: muster.Pending, organisation: "org-a", uses: 1},
		},
		{"unknown key", nil, Enrolment{Key: "nosuchkey"}, muster.Forbidden, "the attachment key provided is not valid", none},
		{"endless key", nil, Enrolment{Key: strings.Repeat("k", 1000)}, muster.Forbidden, "the attachment key provided is not valid", none},
		{"expired key", nil, Enrolment{Key: "EXPIRED"}, muster.Forbidden, "attachment key provided is not valid: it expired on", none},
		{"revoked key", nil, Enrolment{Key: "REVOKED"}, muster.Forbidden, "attachment key provided is not valid: it was revoked", none},
		{
			"used key", nil,
			Enrolment{Key: "USED"},
			muster.Forbidden, "attachment key provided is not valid: it was used 1 of 1 times",
			outcome{state: muster.Pending, uses: 1},
		},
		{
			"revoked key, overwriting", &Enrolment{Key: "AUTO"},
			Enrolment{Key: "REVOKED", Name: "new", Overwrite: true},
			muster.Forbidden, "it was revoked",
			outcome{state: muster.Active, organisation: "org-a", tags: []string{"from key", "shared"}},
		},
		{"nothing", nil, Enrolment{Name: "x"}, muster.Invalid, "attachment_key is missing", none},
		{"name too long", nil, Enrolment{Key: "AUTO", Name: strings.Repeat("n", maxName+1)}, muster.Invalid, "257 bytes", none},
		{"tag too long", nil, Enrolment{Key: "AUTO", Tags: []string{strings.Repeat("t", maxTag+1)}}, muster.Invalid, "65 bytes", none},
		{"too many tags", nil, Enrolment{Key: "AUTO", Tags: many}, muster.Invalid, "at most 32 tags", none},
		{"too many tags with the key's", nil, Enrolment{Key: "AUTO", Tags: many[:maxTags-1]}, muster.Invalid, "the key's included", none},
		{
			"fooling text", nil,
			Enrolment{Key: "MANUAL", Name: "\x1b[31mweb\u202e\x00 1\n", Tags: []string{" \t", "b c", "b c\r", "\xff"}},
			"", "",
			outcome{state: muster.Pending, organisation: "org-a", name: "[31mweb 1", tags: []string{"b c"}, uses: 1},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newRig(t)
			b.register(machineID)
			text := make(map[string]string)
			for name, r := range keys {
				text[name] = b.key(r)
			}
			b.clock.advance(time.Hour)
			text["USED"], text["REVOKED"] = b.key(KeyRequest{Organisation: "org-a", MaxUses: 1}), b.key(KeyRequest{Organisation: "org-a"})
			b.register("bystander")
			_, err := b.Enrol(t.Context(), "bystander", Enrolment{Key: text["USED"]})
			wantError(t, err, "", "")
			revoked := b.store.keys[string(hashOf(text["REVOKED"]))]
			revoked.RevokedAt = b.clock.now()
			b.store.keys[string(hashOf(text["REVOKED"]))] = revoked
			enrol := func(e Enrolment) (Enrolled, error) {
				if key, ok := text[e.Key]; ok {
					e.Key = key
				}
				return b.Enrol(t.Context(), machineID, e)
			}
			if tt.first != nil {
				_, err := enrol(*tt.first)
				wantError(t, err, "", "")
			}
			uses := b.store.uses(text[tt.then.Key])
			if tt.then.Key == "USED" {
				uses = 0
			}

			got, err := enrol(tt.then)

			wantError(t, err, tt.code, tt.text)
			m, _ := b.Machine(machineID)
			if diff := cmp.Diff(b.store.machines[machineID], m); diff != "" {
				t.Errorf("memory differs from the store (-store +memory):\n%s", diff)
			}
			out := outcome{got.Already, m.State, m.Organisation, m.Name, m.Tags, b.store.uses(text[tt.then.Key]) - uses}
			if diff := cmp.Diff(tt.want, out, cmp.AllowUnexported(outcome{})); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			if err == nil && got.State != m.State {
				t.Errorf("the answer says %q, the machine is %q", got.State, m.State)
			}
			if (m.State == muster.Active) == m.EnrolledAt.IsZero() {
				t.Errorf("state %q with EnrolledAt %v", m.State, m.EnrolledAt)
			}
		})
	}
}

func TestEnrolUnknownMachine(t *testing.T) {
	b := newRig(t)
	key := b.key(KeyRequest{Organisation: "org-a", MaxUses: 1})
	_, err := b.Enrol(t.Context(), "nobody", Enrolment{Key: key})
	wantError(t, err, muster.NotFound, `no machine "nobody"`)
	_, err = b.Enrol(t.Context(), "nobody", Enrolment{Auto: true})
	wantError(t, err, muster.NotFound, "")
	if got := b.store.uses(key); got != 0 {
		t.Fatalf("the key lost %d uses", got)
	}
}

func TestCreateKey(t *testing.T) {
	b := newRig(t)
	form := regexp.MustCompile(`^[a-z0-9]{26}$`)
	text, key, err := b.CreateKey(t.Context(), KeyRequest{Organisation: "org-a", Tags: []string{"b", "a", "b"}, AutoAccept: true, MaxUses: 3, TTL: time.Hour})
	wantError(t, err, "", "")
	if !form.MatchString(text) {
		t.Fatalf("key %q does not match %v", text, form)
	}
	now := b.clock.now()
	want := muster.EnrolmentKey{
		ID: key.ID, Hash: hashOf(text), Organisation: "org-a", Tags: []string{"a", "b"}, AutoAccept: true, MaxUses: 3,
		CreatedAt: now, ExpiresAt: now.Add(time.Hour),
	}
	if diff := cmp.Diff(want, key); diff != "" {
		t.Fatalf("key (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(key, b.store.keys[string(hashOf(text))]); diff != "" {
		t.Fatalf("stored key (-want +got):\n%s", diff)
	}
	if second := b.key(KeyRequest{Organisation: "org-a"}); second == text {
		t.Fatal("two keys are the same")
	}
	for _, r := range []KeyRequest{
		{Organisation: "org-a", MaxUses: -1},
		{Organisation: "org-a", TTL: -time.Second},
		{Organisation: "org-a", Tags: []string{strings.Repeat("t", 65)}},
		{},
	} {
		_, _, err := b.CreateKey(t.Context(), r)
		wantError(t, err, muster.Invalid, "")
	}
	_, _, err = b.CreateKey(t.Context(), KeyRequest{Organisation: "org-x"})
	wantError(t, err, muster.NotFound, `no organisation "org-x"`)
}

func TestClaim(t *testing.T) {
	b := newRig(t)
	b.register(machineID)
	got, err := b.Enrol(t.Context(), machineID, Enrolment{Auto: true, Name: "vm", Tags: []string{"b", "a"}})
	wantError(t, err, "", "")
	code, ok := strings.CutPrefix(got.ClaimURL, "https://muster.test/enroll/")
	if !ok || !got.ClaimExpires.Equal(b.clock.now().Add(time.Hour)) || got.State != muster.Pending || got.Already {
		t.Fatalf("got %+v", got)
	}
	old := b.login(machineID).Text

	_, err = b.RedeemClaim(t.Context(), "nosuchcode", "org-a")
	wantError(t, err, muster.NotFound, "no such claim")
	_, err = b.RedeemClaim(t.Context(), code, "org-x")
	wantError(t, err, muster.NotFound, "no organisation")
	_, err = b.RedeemClaim(t.Context(), code, "")
	wantError(t, err, muster.Invalid, "")
	m, err := b.RedeemClaim(t.Context(), code, "org-a")
	wantError(t, err, "", "")
	if m.State != muster.Active || m.Organisation != "org-a" || m.Name != "vm" || !slices.Equal(m.Tags, []string{"a", "b"}) {
		t.Fatalf("redeemed machine: %+v", m)
	}
	wantRefused(t, b.Service, old)
	_, err = b.RedeemClaim(t.Context(), code, "org-b")
	wantError(t, err, muster.NotFound, "")
}

func TestClaimEnds(t *testing.T) {
	for _, tt := range []struct {
		name      string
		member    string // of which organisation the machine is when it asks
		meanwhile func(*rig) error
		code      muster.Code
		text      string
	}{
		{"in time", "", func(b *rig) error { b.clock.advance(time.Hour - 2*time.Second); return nil }, "", ""},
		{"expired", "", func(b *rig) error { b.clock.advance(time.Hour); return nil }, muster.Gone, "--quick again"},
		{"blocked", "", func(b *rig) error { return b.Block(t.Context(), machineID) }, muster.Forbidden, "blocked"},
		{"joined elsewhere", "", func(b *rig) error { return b.Accept(t.Context(), machineID, "org-b") }, muster.Exists, "another organisation"},
		{"joined here", "", func(b *rig) error { return b.Accept(t.Context(), machineID, "org-a") }, "", ""},
		{"moving", "org-b", func(*rig) error { return nil }, "", ""},
		{"moving, joined a third", "org-b", func(b *rig) error { return b.Accept(t.Context(), machineID, "org-c") }, muster.Exists, "another organisation"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newRig(t)
			b.store.orgs["org-c"] = muster.Organisation{ID: "org-c", Plan: muster.Community}
			b.register(machineID)
			if tt.member != "" {
				wantError(t, b.Accept(t.Context(), machineID, tt.member), "", "")
			}
			b.clock.advance(time.Minute)
			got, err := b.Enrol(t.Context(), machineID, Enrolment{Auto: true, Overwrite: tt.member != ""})
			wantError(t, err, "", "")
			code := strings.TrimPrefix(got.ClaimURL, "https://muster.test/enroll/")
			b.clock.advance(time.Second)
			wantError(t, tt.meanwhile(b), "", "")
			before, _ := b.Machine(machineID)

			_, err = b.RedeemClaim(t.Context(), code, "org-a")

			wantError(t, err, tt.code, tt.text)
			after, _ := b.Machine(machineID)
			if err != nil && !cmp.Equal(before, after) {
				t.Fatalf("a refused claim changed the machine: %s", cmp.Diff(before, after))
			}
			if err == nil && after.Organisation != "org-a" {
				t.Fatalf("machine is in %q", after.Organisation)
			}
		})
	}
	b := newRig(t, func(c *Config) { c.PublicURL = "" })
	b.register(machineID)
	_, err := b.Enrol(t.Context(), machineID, Enrolment{Auto: true})
	wantError(t, err, muster.Forbidden, "public URL")
}

// A claim works for one of two who open its link, even if it cannot be deleted
// between them.
func TestClaimWorksOnce(t *testing.T) {
	b := newRig(t)
	b.register(machineID)
	got, err := b.Enrol(t.Context(), machineID, Enrolment{Auto: true})
	wantError(t, err, "", "")
	code := strings.TrimPrefix(got.ClaimURL, "https://muster.test/enroll/")
	claim := b.store.claims[string(hashOf(code))]
	_, err = b.RedeemClaim(t.Context(), code, "org-a")
	wantError(t, err, "", "")
	b.store.claims[string(hashOf(code))] = claim
	_, err = b.RedeemClaim(t.Context(), code, "org-b")
	wantError(t, err, muster.Exists, "")
}

func TestAcceptAndFriends(t *testing.T) {
	b := newRig(t)
	b.register(machineID)
	wantError(t, b.Accept(t.Context(), machineID, ""), muster.Invalid, "asked for no organisation")
	wantError(t, b.Accept(t.Context(), machineID, "org-x"), muster.NotFound, "no organisation")
	wantError(t, b.Accept(t.Context(), "nobody", "org-a"), muster.NotFound, "no machine")
	_, err := b.Enrol(t.Context(), machineID, Enrolment{Key: b.key(KeyRequest{Organisation: "org-a"})})
	wantError(t, err, "", "")
	wantError(t, b.Accept(t.Context(), machineID, ""), "", "")
	wantError(t, b.Rename(t.Context(), machineID, " web\x07 1 "), "", "")
	wantError(t, b.Tag(t.Context(), machineID, []string{"z", "y", "z"}), "", "")
	token := b.login(machineID).Text

	// What changes nothing about the membership must not end tokens.
	wantError(t, b.Accept(t.Context(), machineID, "org-a"), "", "")
	wantError(t, b.Rename(t.Context(), machineID, "web 2"), "", "")
	wantError(t, b.Unblock(t.Context(), machineID), "", "")
	want := Identity{Machine: machineID, Organisation: "org-a", State: muster.Active, Plan: muster.Enterprise, Fleet: muster.FleetHub}
	wantIdentity(t, b.Service, token, want)
	wantError(t, b.SetHoneypot(t.Context(), machineID, true), "", "")
	want.Honeypot = true
	wantIdentity(t, b.Service, token, want)
	wantError(t, b.SetHoneypot(t.Context(), "nobody", true), muster.NotFound, "no machine")

	m, _ := b.Machine(machineID)
	if m.Name != "web 2" || !slices.Equal(m.Tags, []string{"y", "z"}) {
		t.Fatalf("machine: %+v", m)
	}
	wantError(t, b.Rename(t.Context(), machineID, strings.Repeat("n", 300)), muster.Invalid, "")
	wantError(t, b.Tag(t.Context(), machineID, []string{strings.Repeat("n", 300)}), muster.Invalid, "")
	wantError(t, b.Block(t.Context(), machineID), "", "")
	wantError(t, b.Unblock(t.Context(), machineID), "", "")
	if m, _ := b.Machine(machineID); m.State != muster.Pending || m.Organisation != "org-a" {
		t.Fatalf("unblocked machine is %s in %q, want pending in org-a", m.State, m.Organisation)
	}
	wantError(t, b.Release(t.Context(), machineID), "", "")
	if m, _ := b.Machine(machineID); m.State != muster.Pending || m.Organisation != "" {
		t.Fatalf("released machine: %+v", m)
	}
}

func TestNewOrganisationIsFound(t *testing.T) {
	b := newRig(t)
	b.store.orgs["org-new"] = muster.Organisation{ID: "org-new", Plan: muster.SecOps, Fleet: muster.FleetAll}
	b.activate(machineID, "org-new")
	wantIdentity(t, b.Service, b.login(machineID).Text,
		Identity{Machine: machineID, Organisation: "org-new", State: muster.Active, Plan: muster.SecOps, Fleet: muster.FleetAll})
}

// Whatever happens in whatever order, on two nodes: a token is good only if it
// was issued after the last change of state, organisation or plan; and only
// machines that the model calls active are.
func TestEnrolmentStateMachine(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := &rig{t: t, store: newFakeStore(), clock: newClock()}
		var rung []string
		ring := func(c *Config) { c.Notify = func(id string) { rung = append(rung, id) } }
		nodes := []*Service{b.node(ring), b.node(ring)}
		b.Service = nodes[0]
		ids := []string{"one", "two"}
		type model struct {
			state        muster.MachineState
			organisation string
			registered   bool
			tokens       []string // good ones
			dead         []string
		}
		models := map[string]*model{}
		for _, id := range ids {
			b.register(id)
			models[id] = &model{state: muster.Pending, registered: true}
			rung = append(rung, id)
		}
		keys := map[string]KeyRequest{}
		for _, org := range []string{"org-a", "org-b"} {
			for _, auto := range []bool{true, false} {
				r := KeyRequest{Organisation: org, AutoAccept: auto}
				keys[b.key(r)] = r
			}
		}
		var texts []string
		for text := range keys {
			texts = append(texts, text)
		}
		slices.Sort(texts)

		id := rapid.SampledFrom(ids)
		org := rapid.SampledFrom([]string{"org-a", "org-b"})
		node := rapid.SampledFrom(nodes)
		moved := func(m *model, state muster.MachineState, organisation string) {
			if m.state != state || (m.organisation != organisation && state == muster.Active) {
				m.dead, m.tokens = append(m.dead, m.tokens...), nil
			}
			m.state, m.organisation = state, organisation
		}
		check := func(err error) {
			if err != nil && muster.CodeOf(err) == "" {
				rt.Fatalf("an error without a code: %v", err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"time passes": func(rt *rapid.T) {
				b.clock.advance(time.Duration(rapid.IntRange(0, 3000).Draw(rt, "ms")) * time.Millisecond)
			},
			"login": func(rt *rapid.T) {
				i := id.Draw(rt, "machine")
				token, err := node.Draw(rt, "node").Login(t.Context(), Login{MachineID: i, Password: strongPassword})
				m := models[i]
				switch {
				case !m.registered && muster.CodeOf(err) != muster.Unauthorized,
					m.registered && m.state == muster.Blocked && muster.CodeOf(err) != muster.Forbidden,
					m.registered && m.state != muster.Blocked && err != nil:
					rt.Fatalf("login of a machine %+v: %v", *m, err)
				}
				if err == nil {
					m.tokens = append(m.tokens, token.Text)
				}
			},
			"enrol": func(rt *rapid.T) {
				i, text, overwrite := id.Draw(rt, "machine"), rapid.SampledFrom(texts).Draw(rt, "key"), rapid.Bool().Draw(rt, "overwrite")
				_, err := node.Draw(rt, "node").Enrol(t.Context(), i, Enrolment{Key: text, Overwrite: overwrite})
				check(err)
				m, key := models[i], keys[text]
				switch {
				case m.state == muster.Blocked, m.state == muster.Active && (!overwrite || m.organisation == key.Organisation):
				case key.AutoAccept:
					moved(m, muster.Active, key.Organisation)
				default:
					moved(m, muster.Pending, key.Organisation)
				}
			},
			"accept": func(rt *rapid.T) {
				i, o := id.Draw(rt, "machine"), org.Draw(rt, "organisation")
				check(node.Draw(rt, "node").Accept(t.Context(), i, o))
				if m := models[i]; m.state != muster.Blocked {
					moved(m, muster.Active, o)
				}
			},
			"release": func(rt *rapid.T) {
				i := id.Draw(rt, "machine")
				check(node.Draw(rt, "node").Release(t.Context(), i))
				m := models[i]
				if m.organisation != "" {
					m.dead, m.tokens = append(m.dead, m.tokens...), nil
				}
				if m.state == muster.Active {
					m.state = muster.Pending
				}
				m.organisation = ""
			},
			"block": func(rt *rapid.T) {
				i := id.Draw(rt, "machine")
				check(node.Draw(rt, "node").Block(t.Context(), i))
				moved(models[i], muster.Blocked, models[i].organisation)
			},
			"unblock": func(rt *rapid.T) {
				i := id.Draw(rt, "machine")
				check(node.Draw(rt, "node").Unblock(t.Context(), i))
				if models[i].state == muster.Blocked {
					moved(models[i], muster.Pending, models[i].organisation)
				}
			},
			"unregister": func(rt *rapid.T) {
				i := id.Draw(rt, "machine")
				check(node.Draw(rt, "node").Unregister(t.Context(), i))
				if m := models[i]; m.registered {
					m.dead, m.tokens = append(m.dead, m.tokens...), nil
					m.registered, m.organisation = false, ""
					if m.state == muster.Active {
						m.state = muster.Pending
					}
				}
			},
			"register": func(rt *rapid.T) {
				i := id.Draw(rt, "machine")
				if err := node.Draw(rt, "node").Register(t.Context(), Registration{MachineID: i, Password: strongPassword}); err != nil {
					rt.Fatal(err)
				}
				models[i].registered = true
			},
			"": func(rt *rapid.T) {
				for len(rung) > 0 {
					i := rung[0]
					rung = rung[1:]
					for _, s := range nodes {
						if err := s.Refresh(t.Context(), i); err != nil {
							rt.Fatal(err)
						}
					}
				}
				counts := Counts{}
				members := map[string]bool{}
				for i, m := range models {
					switch m.state {
					case muster.Active:
						counts.Active++
						members[m.organisation] = true
					case muster.Pending:
						counts.Pending++
					case muster.Blocked:
						counts.Blocked++
					}
					for _, s := range nodes {
						for _, token := range m.tokens {
							got, err := s.Authenticate(t.Context(), token)
							if err != nil || got.State != m.state || got.Machine != i {
								rt.Fatalf("a good token of %s %+v gave %+v, %v", i, *m, got, err)
							}
							if want := m.organisation; (m.state == muster.Active && got.Organisation != want) || (m.state != muster.Active && got.Organisation != "") {
								rt.Fatalf("%s %+v: organisation %q", i, *m, got.Organisation)
							}
						}
						for _, token := range m.dead {
							if got, err := s.Authenticate(t.Context(), token); !errors.Is(err, muster.Unauthorized) {
								rt.Fatalf("a dead token of %s %+v gave %+v, %v", i, *m, got, err)
							}
						}
					}
				}
				counts.Organisations = len(members)
				for _, s := range nodes {
					if got := s.Counts(); got != counts {
						rt.Fatalf("counts %+v, want %+v", got, counts)
					}
				}
			},
		})
	})
}

package system

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests below are numbered like protocol.md section 12, the most expensive
// gotcha first. What the server does not do yet is not tested here:
//
//	 2, 3, 19, 20  blocklist and allowlist downloads: come with the lists; until
//	               then the links are there and empty (03), and the one list that
//	               there is obeys 2
//	24             bouncers' endpoint: comes with the integrations; here only that
//	               an engine's community_pull means what it says
//	25             the hub mirror
//	28             a private CA: TLS is the reverse proxy's

// TestGotcha01NothingNullNothingMissing: one missing field crashes engines,
// again and again.
func TestGotcha01NothingNullNothingMissing(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	c := s.registered(t, engine178)
	a := c.get(t, "/v3/decisions/stream?startup=true") // nothing published yet
	if want := `{"new":[],"deleted":[],"links":{"blocklists":[],"allowlists":[]}}`; string(a.body) != want {
		t.Errorf("the empty list is\n%s, expected\n%s", a.body, want)
	}
	old := s.registered(t, engine146)
	if a := old.get(t, "/v2/decisions/stream?startup=true"); string(a.body) != `{"new":[],"deleted":[]}` {
		t.Errorf("the empty list of v2 is %s", a.body)
	}
	// Lists with entries pass checkStream, which stops at whatever crashes. Both
	// forms, and orders of every kind:
	n := newNetwork(t, s)
	n.report(t, address(), fmt.Sprintf("45.87.%d.0/24", serial.Add(1)%250))
	eventually(t, "the list", func() string {
		if len(c.pull(t, "").new) != 2 || len(old.pull(t, "").new) != 2 {
			return "it is not there"
		}
		return ""
	})
	if bytes.Contains(c.get(t, "/v3/decisions/stream").body, []byte("null")) {
		t.Error("null in a list")
	}
	for _, order := range everyOrder() {
		s.admin(t, "POST", "/machines/"+n.a1.id+"/orders", order, nil)
	}
	if got := n.a1.poll(t, firstContact, 45); len(got) != len(everyOrder()) {
		t.Errorf("%d orders came", len(got))
	}
}

// everyOrder is one order of each kind.
func everyOrder() []map[string]any {
	return []map[string]any{
		{"kind": "alert/add", "source": "45.88.1.1"},
		{"kind": "alert/add", "source": "45.88.2.0/24", "type": "captcha", "duration": "1d12h", "message": "by hand"},
		{"kind": "decision/delete", "decisions": []string{newUUID()}},
		{"kind": "management/force_pull"},
		{"kind": "management/reauth"},
		{"kind": "management/blocklist_unsubscribe", "name": "a list"},
		{"kind": "management/allowlist_unsubscribe", "id": "1", "name": "a list"},
	}
}

// TestGotcha02OneBadValueRejectsTheList: odd spellings of addresses reach the
// list in the one form that every client takes, or not at all.
func TestGotcha02OneBadValueRejectsTheList(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.member(t, engine178, s.organisation(t))
	plain, mapped, single, wide := address(), address(), address(), fmt.Sprintf("45.89.%d.77/24", serial.Add(1)%250)
	n := serial.Add(1)
	v6 := fmt.Sprintf("2A0F:5380:0:0:00%X::1", n%0x90+0x10)
	var batch []signal
	for _, spelling := range []string{" " + plain + " ", "::ffff:" + mapped, single + "/32", wide, v6} {
		batch = append(batch, attack(spelling))
	}
	for _, bad := range []string{plain + "\n# comment", "not an address", "1.2.3", "1.2.3.4.5", "45.1.1.1/33", "fe80::1%eth0", "045.1.1.1", "", "\t"} {
		batch = append(batch, attack(bad).with("uuid", newUUID()))
	}
	c.push(t, batch...) // taken, and kept for their owner
	want := []string{plain, mapped, single, strings.Replace(wide, ".77/", ".0/", 1), fmt.Sprintf("2a0f:5380:0:0:%x::1", n%0x90+0x10)}
	eventually(t, "the list", func() string {
		got := c.pull(t, "")
		if len(got.new) < len(want) {
			return fmt.Sprintf("%v", got.new)
		}
		return got.lacks(want[:4]...)
	})
	for _, d := range c.pull(t, "").new {
		if d.duration > 72*time.Hour {
			t.Errorf("a listing for %s", d.duration)
		}
	}
}

// TestGotcha03AllowlistLinks: until there are allowlists, no link leads to one,
// and no error page can be mistaken for one.
func TestGotcha03AllowlistLinks(t *testing.T) {
	t.Parallel()
	s := shared(t)
	if got := s.registered(t, engine178).pull(t, "?startup=true"); got.blocklists != 0 || got.allowlists != 0 {
		t.Errorf("%d blocklists, %d allowlists", got.blocklists, got.allowlists)
	}
}

// TestGotcha04LoginIsAlwaysThere: engines cannot start without, and restart
// loops hammer it.
func TestGotcha04LoginIsAlwaysThere(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.registered(t, engine178)
	var loops sync.WaitGroup
	for range 8 {
		loops.Go(func() {
			for range 25 {
				checkLogin(t, c.tryLogin(t))
			}
		})
	}
	loops.Wait()
	// See also TestFullMemoryKeepsLoginsAndPulls.
}

// TestGotcha05LoginAnswer: expire in RFC 3339 and a token that parses, for every
// kind of machine; checkLogin has the rules.
func TestGotcha05LoginAnswer(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.registered(t, engine178)
	tok := checkLogin(t, c.tryLogin(t))
	if tok.claims["machine_id"] != c.id {
		t.Errorf("claims %v", tok.claims)
	}
	if code := c.tryLogin(t).number(t, "code"); code != 200 {
		t.Errorf("code %d", code)
	}
}

// TestGotcha06LoginFailsFast: while an engine backs off after a 5xx it does
// nothing else, so that what is wrong for good is a 401 or 403.
func TestGotcha06LoginFailsFast(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.member(t, engine178, s.organisation(t))
	wrong := *c
	wrong.password = s.client(engine178).password
	wrong.tryLogin(t).status(t, 401)
	s.client(engine178).tryLogin(t).status(t, 401)
	s.admin(t, "POST", "/machines/"+c.id+"/block", nil, nil)
	c.tryLogin(t).status(t, 403)
	wrong.tryLogin(t).status(t, 401) // who has no password learns nothing
	s.admin(t, "POST", "/machines/"+c.id+"/unblock", nil, nil)
	c.login(t)
	c.pull(t, "")
	s.admin(t, "DELETE", "/machines/"+c.id, nil, nil)
	c.get(t, "/v3/decisions/stream").status(t, 401)
	c.tryLogin(t).status(t, 401)
	c.register(t).ok(t) // its id is free again
	c.login(t)
}

// TestGotcha07SignalsAreTakenAtOnce: a batch has five seconds, then it is lost.
func TestGotcha07SignalsAreTakenAtOnce(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.member(t, engine178, s.organisation(t))
	var engines sync.WaitGroup
	for range 10 {
		engines.Go(func() {
			var batch []signal
			for range 50 {
				batch = append(batch, attack(address()))
			}
			began := time.Now()
			c.push(t, batch...)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("a batch took %s", took)
			}
		})
	}
	engines.Wait()
	eventually(t, "all of them", func() string {
		if n := len(s.alerts(t, "machine="+c.id)); n != 500 {
			return fmt.Sprintf("%d are kept", n)
		}
		return ""
	})
}

// TestGotcha08StreamHasNoErrorButAuthentication: anything else costs the engine
// two hours without a list.
func TestGotcha08StreamHasNoErrorButAuthentication(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.registered(t, engine178)
	for _, query := range []string{
		"", "?", "?startup=true", "?startup=false", "?startup=maybe", "?startup=true&startup=true", "?community_pull=false&additional_pull=false",
		"?community_pull=maybe", "?unknown=1", "?;", "?%zz", "?=", "?startup=true&" + strings.Repeat("x=1&", 500),
	} {
		c.pull(t, query)
	}
	for _, path := range []string{"//v3//decisions//stream", "/v3/decisions/stream/", "/v3/decisions/stream/?startup=true"} {
		checkStream(t, "/v3", c.get(t, path))
	}
	// What has not changed need not be sent again, to clients that ask so.
	req := c.request(t, "GET", "/v3/decisions/stream", nil, true)
	etag := c.do(t, req).header.Get("ETag")
	req = c.request(t, "GET", "/v3/decisions/stream?community_pull=false", nil, true)
	empty := c.do(t, req).header.Get("ETag")
	req = c.request(t, "GET", "/v3/decisions/stream?community_pull=false", nil, true)
	req.Header.Set("If-None-Match", empty)
	if a := c.do(t, req); a.code != 304 || len(a.body) > 0 {
		t.Errorf("If-None-Match: %d with %d bytes", a.code, len(a.body))
	}
	if etag == "" || empty == "" {
		t.Error("no ETag")
	}
	if a := c.send(t, "HEAD", "/v3/decisions/stream", nil, true); a.code != 200 || len(a.body) > 0 {
		t.Errorf("HEAD: %d with %d bytes", a.code, len(a.body))
	}
	c.token = "x"
	c.get(t, "/v3/decisions/stream?startup=true").status(t, 401)
}

// TestGotcha09PollsAreHeld: an instant answer is asked for again a thousand
// times a second, a cut one costs a login.
func TestGotcha09PollsAreHeld(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.member(t, engine178, s.organisation(t))
	for _, query := range []string{
		"timeout=1&since_time=-62135596800000", "timeout=0&since_time=0", "timeout=-5", fmt.Sprintf("timeout=1&since_time=%d", time.Now().Add(time.Hour).UnixMilli()),
	} {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			a := c.get(t, "/v1/decisions/stream/poll?"+query)
			if events := checkPoll(t, a); len(events) > 0 {
				t.Errorf("events %v", events)
			}
			if held := time.Since(began); held < 900*time.Millisecond {
				t.Errorf("answered after %s", held)
			}
		})
	}
	// An order that an engine could not read is refused when it is made: it would
	// be asked for again for ever.
	for _, order := range []map[string]any{
		{"kind": "alert/add"},
		{"kind": "alert/add", "source": "x"},
		{"kind": "alert/add", "source": "45.88.1.1", "duration": "soon"},
		{"kind": "decision/delete"},
		{"kind": "decision/delete", "decisions": []string{}},
		{"kind": "management/blocklist_unsubscribe"},
		{"kind": "management/allowlist_unsubscribe", "name": "a"},
		{"kind": "management/reboot"},
		{"kind": ""},
		{"kind": "alert/add", "sauce": "1.2.3.4"},
	} {
		if status, text := s.tryAdmin(t, "POST", "/machines/"+c.id+"/orders", order, nil); status != 400 {
			t.Errorf("%v: %d %s", order, status, text)
		}
	}
	if got := c.poll(t, firstContact, 1); len(got) > 0 {
		t.Errorf("a refused order was kept: %v", got)
	}
}

// TestGotcha10OrdersStayUntilTheyExpire: since_time is the client's clock, in
// milliseconds, negative on first contact; what was written to a socket may not
// have arrived.
func TestGotcha10OrdersStayUntilTheyExpire(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.member(t, engine178, s.organisation(t))
	for _, name := range []string{"first", "second", "third"} {
		s.admin(t, "POST", "/machines/"+c.id+"/orders", map[string]any{"kind": "management/blocklist_unsubscribe", "name": name}, nil)
	}
	names := func(events []event) (out []string) {
		for _, e := range events {
			out = append(out, e.data["name"].(string))
		}
		return out
	}
	want := []string{"first", "second", "third"}
	first := c.poll(t, firstContact, 45)
	if got := names(first); !slices.Equal(got, want) {
		t.Fatalf("orders %q: a live engine applies them as they come", got)
	}
	for i := range first[1:] {
		if first[i+1].timestamp <= first[i].timestamp {
			t.Errorf("timestamps %d and %d", first[i].timestamp, first[i+1].timestamp)
		}
	}
	if got := names(c.poll(t, 0, 45)); !slices.Equal(got, want) {
		t.Errorf("the second time %q", got)
	}
	if got := names(c.poll(t, first[0].timestamp, 45)); !slices.Equal(got, want[1:]) {
		t.Errorf("after the first: %q", got)
	}
	if got := names(c.poll(t, first[1].timestamp/1000*1000-1000, 45)); len(got) < 2 {
		t.Errorf("whole seconds: %q", got)
	}
	if got := c.poll(t, first[2].timestamp, 1); len(got) > 0 {
		t.Errorf("after the last: %v", got)
	}
	// cscli papi sync reverses what it gets.
	slices.Reverse(want)
	if got := names(c.poll(t, firstContact, 1)); !slices.Equal(got, want) {
		t.Errorf("for cscli papi sync: %q", got)
	}
	// Nobody else's.
	if got := s.member(t, engine178, c.org).poll(t, firstContact, 1); len(got) > 0 {
		t.Errorf("another machine got %v", got)
	}
}

// TestGotcha11Enrolment: 201 switches cscli's options on, 200 says enrolled
// before; the old token would hide the acceptance.
func TestGotcha11Enrolment(t *testing.T) {
	t.Parallel()
	s := shared(t)
	org, other := s.organisation(t), s.organisation(t)
	c := s.registered(t, engine178)
	before := c.token
	c.enrol(t, s.key(t, org, true)).status(t, 201)
	for _, call := range []struct{ method, path, body string }{
		{"GET", "/v3/decisions/stream", ""},
		{"POST", "/v3/signals", "[]"},
		{"POST", "/v3/metrics/", "{}"},
		{"POST", "/v3/usage-metrics", "{}"},
		{"POST", "/v3/decisions/delete", "[]"},
		{"GET", "/v1/decisions/stream/poll", ""},
		{"GET", "/v1/permissions", ""},
		{"POST", "/v3/watchers/enroll", "{}"},
	} {
		var body []byte
		if call.body != "" {
			body = []byte(call.body)
		}
		c.send(t, call.method, call.path, body, true).status(t, 401) // never 403
	}
	c.login(t)
	if c.token == before {
		t.Error("the same token")
	}
	if text := c.enrol(t, s.key(t, org, true)).status(t, 200).message(t); !strings.Contains(text, "already enrolled") {
		t.Errorf("the second time %q", text)
	}
	c.pull(t, "") // which ended no token
	c.enrol(t, s.key(t, other, true)).status(t, 200)
	if s.machine(t, c.id).Organisation != org {
		t.Error("moved without overwrite")
	}
	a := c.post(t, "/watchers/enroll", map[string]any{"attachment_key": s.key(t, other, true), "name": "new", "tags": []string{"b c", "a"}, "overwrite": true})
	a.status(t, 201)
	c.get(t, "/v3/decisions/stream").status(t, 401)
	c.login(t)
	if m := s.machine(t, c.id); m.Organisation != other || m.Name != "new" || !slices.Equal(m.Tags, []string{"a", "b c"}) {
		t.Errorf("%+v", m)
	}
	// By a person: 201, pending, the token stays until the acceptance.
	p := s.registered(t, engine178)
	p.enrol(t, s.key(t, org, false)).status(t, 201)
	p.login(t)
	if parseToken(t, p.token).enrolled {
		t.Error("enrolled before anybody accepted")
	}
	s.admin(t, "POST", "/machines/"+p.id+"/accept", map[string]any{}, nil)
	p.get(t, "/v3/decisions/stream").status(t, 401)
	p.login(t)
	if tok := parseToken(t, p.token); tok.organisation != org {
		t.Errorf("accepted into %v", tok.organisation)
	}
	// --quick: a link, by which a person accepts.
	q := s.registered(t, engine178)
	quick := map[string]any{"name": "q", "tags": []string{}, "autoenroll": true}
	a = q.post(t, "/watchers/enroll", quick).status(t, 201)
	code := a.object(t)["url"].(string)
	code = code[strings.LastIndex(code, "/")+1:]
	s.admin(t, "POST", "/claims/"+code, map[string]any{"organisation": org}, nil)
	if status, text := s.tryAdmin(t, "POST", "/claims/"+code, map[string]any{"organisation": org}, nil); status != 404 {
		t.Errorf("a link worked twice: %d %s", status, text)
	}
	q.get(t, "/v3/decisions/stream").status(t, 401)
	q.login(t)
	q.post(t, "/watchers/enroll", quick).status(t, 200)
	// Keys that are used up, expired or revoked.
	var once struct{ ID, Key string }
	s.admin(t, "POST", "/keys", map[string]any{"organisation": org, "auto_accept": true, "max_uses": 1}, &once)
	s.registered(t, engine178).enrol(t, once.Key).status(t, 201)
	for _, why := range []string{"used 1 of 1", "revoked"} {
		a := s.registered(t, engine178).enrol(t, once.Key).status(t, 403)
		if text := a.problem(t); !strings.Contains(text, "attachment key provided is not valid") || !strings.Contains(text, why) {
			t.Errorf("expected %s, got %q", why, text)
		}
		s.admin(t, "DELETE", "/keys/"+once.ID, nil, nil)
	}
}

// TestGotcha12OrganisationMeansEnrolled: its presence alone does, and only two
// plans, spelled so, make engines poll.
func TestGotcha12OrganisationMeansEnrolled(t *testing.T) {
	t.Parallel()
	s := shared(t)
	org := s.organisation(t)
	c := s.registered(t, engine178)
	if _, there := parseToken(t, c.token).claims["organization_id"]; there {
		t.Error("organization_id before the enrolment")
	}
	c.get(t, "/v1/decisions/stream/poll?since_time=0&timeout=1").status(t, 402)
	if text := c.get(t, "/v1/permissions").status(t, 402).problem(t); text != "Forbidden for plan ''" {
		t.Errorf("PAPI says %q", text)
	}
	c = s.member(t, engine178, org)
	for _, plan := range []string{"SECOPS", "COMMUNITY", "ENTERPRISE"} {
		s.admin(t, "PATCH", "/organisations/"+org, map[string]any{"plan": plan}, nil)
		eventually(t, "the end of tokens with the old plan", func() string {
			if code := c.get(t, "/v3/decisions/stream").code; code != 401 {
				return fmt.Sprint(code)
			}
			return ""
		})
		c.login(t)
		if tok := parseToken(t, c.token); tok.plan != plan || tok.organisation != org {
			t.Errorf("plan %q, organisation %v", tok.plan, tok.organisation)
		}
		if plan == "COMMUNITY" {
			c.get(t, "/v1/permissions").status(t, 402)
		} else {
			c.get(t, "/v1/permissions").status(t, 200)
		}
	}
	if status, _ := s.tryAdmin(t, "PATCH", "/organisations/"+org, map[string]any{"plan": "Enterprise"}, nil); status != 400 {
		t.Errorf("a plan that engines do not know: %d", status)
	}
}

// TestGotcha14PythonSDK: raw token, odd times, nulls, unknown fields, long ids.
func TestGotcha14PythonSDK(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.client(python)
	if len(c.id) != 51 || !strings.Contains(c.password, "-_") {
		t.Fatalf("id of %d characters, password %q", len(c.id), c.password)
	}
	c.register(t).ok(t)
	c.register(t).ok(t) // after it lost its database
	c.login(t)
	c.enrol(t, s.key(t, s.organisation(t), true)).status(t, 201)
	c.login(t)
	now := time.Now().UTC().Format("2006-01-02T15:04:05+0000")
	source := address()
	sig := attack(source).with("start_at", now).with("stop_at", now).with("created_at", now).with("sent", false).with("alert_id", 1).
		with("context", nil).with("source", map[string]any{"scope": "ip", "value": source, "ip": nil, "range": nil, "as_number": nil, "as_name": nil, "cn": nil, "latitude": nil, "longitude": nil})
	c.push(t, sig)
	var batch []signal
	for range 250 {
		batch = append(batch, attack(address()))
	}
	c.push(t, batch...)
	eventually(t, "the fleet list", func() string { return c.pull(t, "").lacks(source) })
	// Nothing that it sends in good form is ever 4xx: it would loop without a pause.
	a := c.post(t, "/signals", []signal{attack(source).with("stop_at", "2024-02-19T12:12:21+0000").with("start_at", nil)}).status(t, 200)
	if a.number(t, "refused") != 1 {
		t.Errorf("%s", a.body)
	}
}

// TestGotcha15PHP: 500 for a taken id, 401 for a bad token, objects only.
func TestGotcha15PHP(t *testing.T) {
	t.Parallel()
	s := shared(t)
	for _, k := range []kind{phpCurl, phpStreams} {
		c := s.registered(t, k)
		taken := s.client(k)
		taken.id = c.id
		if text := taken.register(t).status(t, 500).message(t); text != "User already registered." {
			t.Errorf("a taken id: %q", text)
		}
		c.register(t).ok(t) // its own, with the same password
		for _, bad := range []string{"", "x", "a.b.c", c.token + "x", c.token[:len(c.token)-2], strings.Repeat("x", 4000)} {
			b := *c
			b.token = bad
			b.get(t, "/v3/decisions/stream").status(t, 401)
			b.post(t, "/signals", []signal{}).status(t, 401)
		}
		c.login(t, `acme/http-bf`)
		if a := c.get(t, "/v3/decisions/stream"); k.name == phpStreams.name && a.header.Get("Content-Encoding") != "" {
			t.Errorf("Content-Encoding %q for a client that asks for none", a.header.Get("Content-Encoding"))
		}
	}
}

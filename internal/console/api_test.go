package console

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
)

func TestAuthentication(t *testing.T) {
	r := newRig(t)
	const password = "correct horse"
	r.want(200, `"name":"admin"`, "POST", "/api/v1/users", `{"name":"admin","password":"`+password+`"}`)
	var made tokenView
	r.want(200, "muster_", "POST", "/api/v1/tokens", `{"name":"ci","ttl_seconds":3600}`).into(t, &made)

	bearer := func(token string) func(*http.Request) {
		return func(q *http.Request) { q.Header.Set("Authorization", "Bearer "+token) }
	}
	basic := func(name, password string) func(*http.Request) {
		return func(q *http.Request) { q.SetBasicAuth(name, password) }
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
		part   string
	}{
		"nothing":             {nil, 401, "muster admin token create"},
		"a token":             {bearer(made.Token), 200, `"state":"ok"`},
		"an unknown token":    {bearer(made.Token + "x"), 401, "not known, or has expired"},
		"an empty token":      {bearer(""), 401, "not known, or has expired"},
		"the token's id":      {bearer(made.ID), 401, "not known"},
		"another scheme":      {func(q *http.Request) { q.Header.Set("Authorization", "Digest x") }, 401, "Authorization: Bearer"},
		"a password":          {basic("admin", password), 200, `"state":"ok"`},
		"a wrong password":    {basic("admin", "wrong horse"), 401, "the name or password is incorrect"},
		"no password":         {basic("admin", ""), 401, "the name or password is incorrect"},
		"an unknown name":     {basic("eve", password), 401, "the name or password is incorrect"},
		"no name":             {basic("", ""), 401, "the name or password is incorrect"},
		"an endless password": {basic("admin", strings.Repeat("x", 10_000)), 401, "the name or password is incorrect"},
	} {
		a := send(t, r, "GET", "/api/v1/status", "", c.change)
		if a.status != c.status || !strings.Contains(a.body, c.part) {
			t.Errorf("%s: got %d %s, want %d with %q", name, a.status, a.body, c.status, c.part)
		}
		if (a.header.Get("WWW-Authenticate") != "") != (c.status == 401) {
			t.Errorf("%s: WWW-Authenticate is %q", name, a.header.Get("WWW-Authenticate"))
		}
	}
	r.clock = now.Add(time.Hour - time.Second)
	if a := send(t, r, "GET", "/api/v1/status", "", bearer(made.Token)); a.status != 200 {
		t.Errorf("a second before the token's end: got %d", a.status)
	}
	r.clock = now.Add(time.Hour)
	if a := send(t, r, "GET", "/api/v1/status", "", bearer(made.Token)); a.status != 401 {
		t.Errorf("at the token's end: got %d", a.status)
	}
	r.clock = now
	r.want(204, "", "DELETE", "/api/v1/tokens/"+made.ID, "")
	if a := send(t, r, "GET", "/api/v1/status", "", bearer(made.Token)); a.status != 401 {
		t.Errorf("a deleted token: got %d", a.status)
	}
	r.store.fail = errors.New("database is away")
	for name, change := range map[string]func(*http.Request){"a token": bearer(made.Token), "a password": basic("admin", password)} {
		if a := send(t, r, "GET", "/api/v1/status", "", change); a.status != 500 || strings.Contains(a.body, "database") {
			t.Errorf("%s without a database: got %d %s", name, a.status, a.body)
		}
	}
}

// No route is open to those who have no token, and none answers them otherwise
// than the others do.
func TestEveryRouteAsksForAToken(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "web-1", "org-a")
	for _, path := range []string{"/api/v1/status", "/api/v1/machines/m1", "/api/v1/nothing", "/api/", "/api/v1/sources/1.2.3.4"} {
		for _, method := range []string{"GET", "POST", "DELETE", "PATCH", "PUT"} {
			if a := send(t, r, method, path, `{}`, nil); a.status != 401 {
				t.Errorf("%s %s: got %d", method, path, a.status)
			}
		}
	}
	if m := r.store.machines["m1"]; m.State != muster.Active {
		t.Errorf("the machine is %s", m.State)
	}
}

func TestTrustedNeedsNoToken(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "", "org-a")
	r.want(200, `"state":"ok"`, "GET", "/api/v1/status", "")
	r.want(200, `"issued_by":"local administrator"`, "POST", "/api/v1/machines/m1/orders", `{"kind":"management/reauth"}`)
}

func TestStrictDecoding(t *testing.T) {
	r := newRig(t)
	for body, part := range map[string]string{
		`{"nam":"x"}`:            `unknown field \"nam\"`,
		`{"name":7}`:             "expected a JSON object",
		`{"name":"x"`:            "expected a JSON object",
		`["x"]`:                  "expected a JSON object",
		`"x"`:                    "expected a JSON object",
		`name=x`:                 "expected a JSON object",
		`{"name":"x"} {}`:        "after the JSON object",
		`{"name":"x"}{"plan":1}`: "after the JSON object",
		`{"name":"x"} junk`:      "after the JSON object",
		``:                       "name: expected 1 to 100 bytes",
		`{}`:                     "name: expected 1 to 100 bytes",
	} {
		r.want(400, part, "POST", "/api/v1/organisations", body)
	}
	if len(r.store.orgs) != 2 || len(r.changed) != 0 {
		t.Errorf("%d organisations; told %q", len(r.store.orgs), r.changed)
	}
	r.want(413, "larger than", "POST", "/api/v1/organisations", `{"name":"`+strings.Repeat("x", maxBody)+`"}`)
	r.want(200, `"name":"x"`, "POST", "/api/v1/organisations", " {\"name\":\"x\"}\n")
}

func TestUnknownRoutes(t *testing.T) {
	r := newRig(t)
	for _, c := range [][2]string{{"GET", "/api/v1/nothing"}, {"GET", "/api/v2/status"}, {"PUT", "/api/v1/status"}, {"GET", "/api/"}} {
		r.want(404, "there is no "+c[0]+" "+c[1]+" in this API", c[0], c[1], "")
	}
	a := r.want(404, "there is no GET /api/", "GET", "/api/"+strings.Repeat("x", 5000), "")
	if len(a.body) > 300 {
		t.Errorf("the answer quotes all of the path: %d bytes", len(a.body))
	}
}

func TestErrorsBecomeStatuses(t *testing.T) {
	for code, status := range map[muster.Code]int{
		muster.Invalid: 400, muster.Unauthorized: 401, muster.Forbidden: 403, muster.NotFound: 404, muster.Exists: 409, muster.Gone: 410,
		muster.TooLarge: 413, muster.RateLimited: 429, muster.Unavailable: 503, muster.Payment: 402, "of a newer release": 500,
	} {
		r := newRig(t)
		r.store.fail = fmt.Errorf("wrapped: %w", &muster.Error{Code: code, Message: "say <this>", Cause: errors.New("secret"), RetryAfter: 1500 * time.Millisecond})
		a := r.want(status, `{"code":"`+string(code)+`","message":"say <this>"}`, "GET", "/api/v1/machines", "")
		if a.header.Get("Retry-After") != "2" {
			t.Errorf("%s: Retry-After is %q, want whole seconds, not too early", code, a.header.Get("Retry-After"))
		}
	}
	r := newRig(t)
	r.store.fail = errors.New("SELECT failed: password=hunter2")
	for _, path := range []string{
		"organisations", "keys", "machines", "allowlist", "alerts", "sources/1.2.3.4", "users", "tokens", "machines/by-name",
	} {
		if a := r.want(500, `"code":"internal"`, "GET", "/api/v1/"+path, ""); strings.Contains(a.body, "hunter2") {
			t.Errorf("%s tells what is for the log: %s", path, a.body)
		}
	}
}

func TestEmptyListsAreLists(t *testing.T) {
	r := newRig(t)
	r.store.orgs = nil
	for path, want := range map[string]string{
		"organisations": `[]`, "keys": `[]`, "allowlist": `[]`, "users": `[]`, "tokens": `[]`,
		"machines": `{"machines":[],"next":""}`, "alerts": `{"alerts":[],"next":"next-page"}`,
		"sources/35.188.49.176": `{"source":"35.188.49.176","reserved":false,"verdicts":[]}`,
	} {
		if a := r.want(200, "", "GET", "/api/v1/"+path, ""); a.body != want {
			t.Errorf("%s: got %s, want %s", path, a.body, want)
		}
	}
}

func TestOrganisations(t *testing.T) {
	r := newRig(t)
	var made organisationView
	r.want(200, "", "POST", "/api/v1/organisations", `{"name":" Gamma "}`).into(t, &made)
	want := organisationView{made.ID, "Gamma", muster.Enterprise, muster.FleetHub, now}
	if diff := cmp.Diff(want, made); diff != "" || len(made.ID) != 36 {
		t.Errorf("(-want +got):\n%s", diff)
	}
	r.want(409, "already", "POST", "/api/v1/organisations", `{"name":"Gamma"}`)
	r.want(200, `"plan":"COMMUNITY","fleet":"all"`, "POST", "/api/v1/organisations", `{"name":"Delta","plan":"COMMUNITY","fleet":"all"}`)
	r.want(400, "expected COMMUNITY, SECOPS or ENTERPRISE", "POST", "/api/v1/organisations", `{"name":"x","plan":"enterprise"}`)
	r.want(400, "expected off, hub or all", "POST", "/api/v1/organisations", `{"name":"x","fleet":"some"}`)
	r.want(400, "got 101", "POST", "/api/v1/organisations", `{"name":"`+strings.Repeat("x", 101)+`"}`)
	if got := strings.Join(r.changed, " "); got != "organisations organisations" {
		t.Errorf("all nodes were told %q", got)
	}

	r.want(200, `"name":"Gamma","plan":"SECOPS","fleet":"hub"`, "PATCH", "/api/v1/organisations/"+made.ID, `{"plan":"SECOPS"}`)
	r.want(200, `"name":"Gam","plan":"SECOPS","fleet":"off"`, "PATCH", "/api/v1/organisations/"+made.ID, `{"name":"Gam ","fleet":"off"}`)
	r.want(400, "plan: expected", "PATCH", "/api/v1/organisations/"+made.ID, `{"plan":""}`)
	r.want(404, "no such organisation", "PATCH", "/api/v1/organisations/nothing", `{"plan":"SECOPS"}`)
	if len(r.changed) != 4 {
		t.Errorf("all nodes were told %q", r.changed)
	}
	r.want(200, `"name":"Beta"`, "GET", "/api/v1/organisations", "")
}

func TestEnrolmentKeys(t *testing.T) {
	r := newRig(t)
	var made keyView
	body := `{"organisation":"beta","tags":["dmz"],"auto_accept":true,"max_uses":3,"ttl_seconds":86400}`
	r.want(200, "", "POST", "/api/v1/keys", body).into(t, &made)
	expires := now.Add(24 * time.Hour)
	want := keyView{
		ID: made.ID, Key: made.Key, Organisation: "org-b", Tags: []string{"dmz"}, AutoAccept: true, MaxUses: 3, Usable: true,
		CreatedAt: now, ExpiresAt: &expires,
	}
	if diff := cmp.Diff(want, made); diff != "" || len(made.Key) != 26 {
		t.Errorf("key %q (-want +got):\n%s", made.Key, diff)
	}
	if a := r.want(200, made.ID, "GET", "/api/v1/keys", ""); strings.Contains(a.body, made.Key) {
		t.Error("the key's text is shown a second time")
	}
	// Without a name it is the organisation that the installation began with.
	r.want(200, `"organisation":"org-a"`, "POST", "/api/v1/keys", "")
	r.want(200, `"organisation":"org-a"`, "POST", "/api/v1/keys", `{"organisation":"org-a"}`)
	r.want(404, "muster admin org list", "POST", "/api/v1/keys", `{"organisation":"nothing"}`)
	r.want(400, "expected 0", "POST", "/api/v1/keys", `{"max_uses":-1}`)
	r.want(400, "ttl_seconds", "POST", "/api/v1/keys", `{"ttl_seconds":-1}`)
	r.want(400, "ttl_seconds", "POST", "/api/v1/keys", `{"ttl_seconds":9300000000}`) // beyond time.Duration
	if a := r.want(200, "", "GET", "/api/v1/keys?organisation=org-b", ""); strings.Count(a.body, `"id"`) != 1 {
		t.Errorf("of one organisation: %s", a.body)
	}
	r.want(204, "", "DELETE", "/api/v1/keys/"+made.ID, "")
	r.want(200, `"usable":false`, "GET", "/api/v1/keys?organisation=org-b", "")
	r.want(404, "no such key", "DELETE", "/api/v1/keys/nothing", "")

	r.store.orgs = nil
	r.want(404, "muster admin org create", "POST", "/api/v1/keys", "")
}

func TestUsers(t *testing.T) {
	r := newRig(t)
	a := r.want(200, `"name":"alice","role":"admin"`, "POST", "/api/v1/users", `{"name":" alice ","password":"correct horse"}`)
	if strings.Contains(a.body, "argon2") || strings.Contains(a.body, "horse") {
		t.Errorf("the answer tells more than it should: %s", a.body)
	}
	r.want(409, "already", "POST", "/api/v1/users", `{"name":"alice","password":"correct horse"}`)
	for _, body := range []string{`{"password":"correct horse"}`, `{"name":"a:b","password":"correct horse"}`, `{"name":"` + strings.Repeat("x", 101) + `","password":"correct horse"}`} {
		r.want(400, "1 to 100 bytes without a colon", "POST", "/api/v1/users", body)
	}
	r.want(400, "", "POST", "/api/v1/users", `{"name":"bob","password":"short"}`)
	if a := r.want(200, `"name":"alice"`, "GET", "/api/v1/users", ""); strings.Contains(a.body, "argon2") {
		t.Errorf("password hashes are listed: %s", a.body)
	}
	before := r.store.users[0].PasswordHash
	r.want(400, "", "PUT", "/api/v1/users/alice/password", `{"password":"short"}`)
	r.want(404, "no such user", "PUT", "/api/v1/users/bob/password", `{"password":"correct horse"}`)
	r.want(204, "", "PUT", "/api/v1/users/alice/password", `{"password":"battery staple"}`)
	if after := r.store.users[0].PasswordHash; after == before {
		t.Error("the password did not change")
	}
	for password, status := range map[string]int{"battery staple": 200, "correct horse": 401} {
		if a := send(t, r, "GET", "/api/v1/status", "", func(q *http.Request) { q.SetBasicAuth("alice", password) }); a.status != status {
			t.Errorf("%s: got %d, want %d", password, a.status, status)
		}
	}
}

func TestTokens(t *testing.T) {
	r := newRig(t)
	r.want(404, "no such user", "POST", "/api/v1/tokens", `{"name":"x"}`) // there is no admin yet
	r.store.users = []muster.User{{ID: "u1", Name: FirstUser, Role: muster.Admin}, {ID: "u2", Name: "alice", Role: muster.Admin}}
	var a, b tokenView
	r.want(200, `"user":"u1"`, "POST", "/api/v1/tokens", "").into(t, &a)
	r.want(200, `"user":"u2"`, "POST", "/api/v1/tokens", `{"user":"alice","name":"`+strings.Repeat("n", 100)+`"}`).into(t, &b)
	if a.Token == b.Token || !strings.HasPrefix(a.Token, tokenPrefix) || len(a.Token) != len(tokenPrefix)+26 || a.ExpiresAt != nil {
		t.Errorf("tokens %q and %q", a.Token, b.Token)
	}
	list := r.want(200, a.ID, "GET", "/api/v1/tokens", "")
	if strings.Contains(list.body, tokenPrefix) || len(list.body) > 1000 {
		t.Errorf("tokens are listed with their text, or with endless names: %s", list.body)
	}
	for _, tok := range r.store.tokens {
		if strings.Contains(string(tok.Hash), tokenPrefix) || len(tok.Hash) != 32 {
			t.Errorf("a token is stored as %q", tok.Hash)
		}
	}
	// A lifetime that is no lifetime must not become a token without end.
	r.want(400, "ttl_seconds", "POST", "/api/v1/tokens", `{"ttl_seconds":-5}`)
	r.want(400, "ttl_seconds", "POST", "/api/v1/tokens", `{"ttl_seconds":9300000000}`)
	if len(r.store.tokens) != 2 {
		t.Errorf("%d tokens, want 2", len(r.store.tokens))
	}
	r.want(404, "no such token", "DELETE", "/api/v1/tokens/nothing", "")
}

func TestRotateTokenKey(t *testing.T) {
	r := newRig(t)
	before := map[string]string{}
	for name, v := range r.store.secrets {
		before[name] = string(v)
	}
	r.want(204, "", "POST", "/api/v1/token-key/rotate", "")
	changed := 0
	for name, v := range r.store.secrets {
		if string(v) != before[name] {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("%d secrets changed, want one", changed)
	}
}

func TestAllowlist(t *testing.T) {
	r := newRig(t)
	a := r.want(200, "", "POST", "/api/v1/allowlist", `{"values":["203.0.113.77/24"," 35.188.49.176 ","2001:DB8::1"],"reason":"office <b>","ttl_seconds":60}`)
	var list []allowView
	a.into(t, &list)
	expires := now.Add(time.Minute)
	want := []allowView{}
	for _, v := range []string{"203.0.113.0/24", "35.188.49.176", "2001:db8::1"} {
		want = append(want, allowView{v, "office <b>", now, &expires})
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	r.want(200, `"value":"1.1.1.1","reason":"","created_at":"2026-11-20T12:00:00Z","expires_at":null`, "POST", "/api/v1/allowlist", `{"values":["1.1.1.1"]}`)
	if got := strings.Join(r.changed, " "); got != "allowlist allowlist" {
		t.Errorf("all nodes were told %q", got)
	}
	r.want(400, "at least one", "POST", "/api/v1/allowlist", `{"reason":"x"}`)
	r.want(400, `got \"XX\"`, "POST", "/api/v1/allowlist", `{"values":["9.9.9.9","XX"]}`)
	r.want(400, "ttl_seconds", "POST", "/api/v1/allowlist", `{"values":["9.9.9.9"],"ttl_seconds":-1}`)
	r.want(400, "ttl_seconds", "POST", "/api/v1/allowlist", `{"values":["9.9.9.9"],"ttl_seconds":9300000000}`)
	if len(r.store.allowed) != 4 || len(r.changed) != 2 {
		t.Errorf("%d entries, told %q: a request is taken whole or not at all", len(r.store.allowed), r.changed)
	}

	r.want(204, "", "DELETE", "/api/v1/allowlist/203.0.113.0/24", "")
	r.want(204, "", "DELETE", "/api/v1/allowlist/2001:db8::1", "")
	r.want(404, "no such entry", "DELETE", "/api/v1/allowlist/2001:db8::1", "")
	r.want(400, "expected an IPv4 or IPv6 address", "DELETE", "/api/v1/allowlist/XX", "")
	if a := r.want(200, "", "GET", "/api/v1/allowlist", ""); strings.Count(a.body, `"value"`) != 2 || len(r.changed) != 4 {
		t.Errorf("left: %s; told %q", a.body, r.changed)
	}
	r.clock = expires
	if a := r.want(200, "1.1.1.1", "GET", "/api/v1/allowlist", ""); strings.Count(a.body, `"value"`) != 1 {
		t.Errorf("after the end: %s", a.body)
	}
}

func TestAlerts(t *testing.T) {
	r := newRig(t)
	address := mustSource(t, "35.188.49.176")
	r.store.alerts = []muster.Signal{
		{
			ID: muster.SignalID{0xab}, Machine: "m1", Organisation: "org-a", Received: now, At: now, Source: address, Scenario: "crowdsecurity/ssh-bf",
			Trust: muster.TrustCertified, Flags: muster.Counts | muster.Decided, ASN: 15169, Detail: []byte(`{"uuid":"x"}`),
		},
		{Scope: "Country", Value: "FR", Trust: muster.TrustCustom, Flags: muster.Fleet, Detail: []byte(`not JSON`)},
	}
	var page struct {
		Alerts []alertView
		Next   string
	}
	r.want(200, "", "GET", "/api/v1/alerts", "").into(t, &page)
	want := []alertView{
		{
			ID: "ab000000000000000000000000000000", Machine: "m1", Organisation: "org-a", Received: now, At: now, Source: "35.188.49.176", Scope: "ip",
			Scenario: "crowdsecurity/ssh-bf", Trust: "certified", ASN: 15169, Counts: true, Detail: []byte(`{"uuid":"x"}`),
		},
		{ID: "00000000000000000000000000000000", Source: "FR", Scope: "Country", Trust: "custom", Fleet: true, Detail: []byte(`null`)},
	}
	if diff := cmp.Diff(want, page.Alerts); diff != "" || page.Next != "next-page" {
		t.Errorf("next %q (-want +got):\n%s", page.Next, diff)
	}
	if diff := cmp.Diff(AlertQuery{Limit: 100}, r.store.alertQuery, sources); diff != "" {
		t.Errorf("asked without a filter (-want +got):\n%s", diff)
	}
	r.want(200, "", "GET", "/api/v1/alerts?organisation=o&machine=m&scenario=s&source=35.188.49.176&since=7d&until=2026-11-20T11:00:00%2B01:00&after=x&limit=7", "")
	if diff := cmp.Diff(AlertQuery{
		Organisation: "o", Machine: "m", Scenario: "s", Source: address, Since: now.Add(-7 * 24 * time.Hour), Until: now.Add(-2 * time.Hour), After: "x", Limit: 7,
	}, r.store.alertQuery, sources); diff != "" {
		t.Errorf("asked with every filter (-want +got):\n%s", diff)
	}
	for query, part := range map[string]string{
		"source=XX": "expected an IPv4 or IPv6 address", "since=yesterday": "expected a time (2026-11-20T12:00:00Z) or an age (24h, 7d)",
		"until=2026": "expected a time", "limit=0": "from 1 to 1000", "limit=1001": "from 1 to 1000", "limit=x": `got \"x\"`, "limit=-1": "from 1 to 1000",
	} {
		r.want(400, part, "GET", "/api/v1/alerts?"+query, "")
	}
}

var sources = cmp.Comparer(func(a, b muster.Source) bool { return a == b })

func mustSource(t testing.TB, text string) muster.Source {
	t.Helper()
	s, err := muster.ParseSource(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMoment(t *testing.T) {
	r := newRig(t)
	for text, want := range map[string]time.Time{
		"24h": now.Add(-24 * time.Hour), "7d": now.Add(-7 * 24 * time.Hour), "90m": now.Add(-90 * time.Minute), "0s": now, "1d12h": now.Add(-36 * time.Hour),
		"2026-11-20T11:00:00Z": now.Add(-time.Hour), "2026-11-20T12:00:00+01:00": now.Add(-time.Hour), "2026-11-20": now.Add(-12 * time.Hour),
	} {
		if got, err := r.moment(text); err != nil || !got.Equal(want) {
			t.Errorf("%s: got %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "7", "d", "2026-13-01", "h24", strings.Repeat("9", 1000)} {
		if got, err := r.moment(text); !errors.Is(err, muster.Invalid) || len(err.Error()) > 300 {
			t.Errorf("%q: got %s, %v", text, got, err)
		}
	}
}

func TestExplain(t *testing.T) {
	r := newRig(t)
	r.store.verdicts = []muster.Verdict{{
		Source: mustSource(t, "35.188.49.0/24"), Audience: "org-a", Listed: true, Scenario: "crowdsecurity/ssh-bf", Since: now, Until: now.Add(time.Hour), Changed: now,
		Reasons: muster.Reasons{Machines: 1, Organisations: 1, Scenarios: []string{"crowdsecurity/ssh-bf"}, First: 1, Last: 2, Rule: "because"},
	}}
	a := r.want(200, "", "GET", "/api/v1/sources/35.188.49.77/24", "")
	want := `{"source":"35.188.49.0/24","reserved":false,"verdicts":[{"source":"35.188.49.0/24","audience":"org-a","listed":true,"scenario":"crowdsecurity/ssh-bf",` +
		`"since":"2026-11-20T12:00:00Z","until":"2026-11-20T13:00:00Z","changed":"2026-11-20T12:00:00Z",` +
		`"reasons":{"machines":1,"organisations":1,"scenarios":["crowdsecurity/ssh-bf"],"first":1,"last":2,"rule":"because"}}]}`
	if a.body != want {
		t.Errorf("got  %s\nwant %s", a.body, want)
	}
	r.want(200, `"source":"10.0.0.1","reserved":true`, "GET", "/api/v1/sources/10.0.0.1", "")
	r.want(200, `"source":"2001:db8::1","reserved":true`, "GET", "/api/v1/sources/2001:DB8::1", "")
	r.want(400, "expected an IPv4 or IPv6 address", "GET", "/api/v1/sources/XX", "")
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"name":"x","tags":["a"]}`)
	f.Add(`{"name":null}`)
	f.Add(`{"name":"x"} `)
	r := newRig(f)
	f.Fuzz(func(t *testing.T, body string) {
		a := send(t, r.Trusted(), "PATCH", "/api/v1/machines/nothing", body, nil)
		if !slices.Contains([]int{400, 404}, a.status) {
			t.Errorf("%q: got %d %s", body, a.status, a.body)
		}
	})
}

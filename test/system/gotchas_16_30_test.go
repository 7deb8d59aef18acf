package system

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestGotcha16OldEngine: error bodies with message, Go's times, an empty first
// login.
func TestGotcha16OldEngine(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.client(engine146)
	c.tryLogin(t).status(t, 401) // every error has been through problem
	c.register(t).ok(t)
	c.login(t)
	c.login(t, "crowdsecurity/ssh-bf", "crowdsecurity/http-probing")
	c.login(t) // a restart: it has not heard from its log processors yet
	if got := s.machine(t, c.id).Scenarios; len(got) != 2 {
		t.Errorf("an empty declaration erased the known scenarios: %q", got)
	}
	c.post(t, "/metrics/", json.RawMessage(`{"apil_version":"v1.4.6-6~deb12u1+b1-linux-debian","bouncers":[],"machines":[
		{"last_push":"0001-01-01 00:00:00 +0000 UTC","last_update":"2026-11-20 21:49:54.942228382 +0000 UTC m=+0.5","name":"lp"}]}`)).ok(t)
	if got := s.machine(t, c.id).Version; !strings.HasPrefix(got, "v1.4.6") {
		t.Errorf("version %q", got)
	}
	member := s.member(t, engine146, s.organisation(t))
	source := address()
	member.push(t, attack(source).v2())
	eventually(t, "the flat list", func() string { return member.pull(t, "?startup=true").lacks(source) })
	for path, status := range map[string]int{"/v2/nothing": 404, "/v2/signals": 405} {
		member.get(t, path).status(t, status)
	}
}

// TestGotcha17OneGzipMember: more than one breaks httpx and curl. readAnswer
// checks every answer for it; here is one that is surely compressed.
func TestGotcha17OneGzipMember(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.member(t, engine178, s.organisation(t))
	var batch []signal
	for range 500 {
		batch = append(batch, attack(address()))
	}
	c.push(t, batch...)
	eventually(t, "a long list", func() string {
		if n := len(c.pull(t, "").new); n < 500 {
			return fmt.Sprintf("%d entries", n)
		}
		return ""
	})
	for encoding, want := range map[string]string{
		"gzip": "gzip", "gzip, deflate": "gzip", "deflate, gzip, br, zstd": "gzip", "x-gzip": "gzip", "GZIP;q=0.5": "gzip",
		"": "", "identity": "", "br": "", "gzip;q=0": "", "deflate": "",
	} {
		for _, path := range []string{"/v3/decisions/stream", "/v2/decisions/stream"} {
			req := c.request(t, "GET", path, nil, true)
			req.Header.Set("Accept-Encoding", encoding)
			resp, err := s.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if got := resp.Header.Get("Content-Encoding"); got != want {
				t.Errorf("Accept-Encoding %q got %q", encoding, got)
			}
			req.Header.Set("Accept-Encoding", "gzip") // for the reader's check
			checkStream(t, path[:3], readAnswer(t, req, resp))
		}
	}
}

// TestGotcha18NoRedirect: a redirected POST comes back as a GET whose 200 the
// engine takes for success. readAnswer stops at any redirect.
func TestGotcha18NoRedirect(t *testing.T) {
	t.Parallel()
	s := shared(t)
	for _, k := range []kind{engine178, engine146} {
		c := s.member(t, k, s.organisation(t))
		for path, body := range map[string]string{
			"/metrics": "{}", "/metrics/": "{}", "//metrics": "{}", "/metrics//": "{}", "/usage-metrics/": "{}", "/signals/": "[]", "//signals//": "[]",
			"/decisions//delete": "[]", "/decisions/delete/": "[]", "/decisions/sync/": "[]",
		} {
			c.send(t, "POST", k.version+path, []byte(body), true).ok(t)
			c.send(t, "POST", "/"+k.version+path+"?", []byte(body), true).ok(t)
		}
		checkLogin(t, c.send(t, "POST", k.version+"/watchers/login/", toJSON(t, map[string]string{"machine_id": c.id, "password": c.password}), false))
		c.send(t, "POST", "/"+k.version+"//watchers/", toJSON(t, map[string]string{"machine_id": c.id, "password": c.password}), false).ok(t)
		checkStream(t, k.version, c.get(t, "/"+k.version+"//decisions/stream/?"))
		c.get(t, k.version+"/heartbeat").ok(t)
		c.get(t, k.version+"/heartbeat/").ok(t)
		c.send(t, "DELETE", k.version+"/watchers/self/", nil, true).ok(t)
		c.get(t, k.version+"/heartbeat").status(t, 401)
	}
}

// TestGotcha21TheTokenSaysWhoSends: machine_id inside a signal is a log
// processor's; sources may be empty or no address.
func TestGotcha21TheTokenSaysWhoSends(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c, other := s.member(t, engine178, s.organisation(t)), s.member(t, engine178, s.organisation(t))
	source := address()
	c.push(t,
		attack(source).with("machine_id", other.id),
		attack("x").with("source", map[string]any{"scope": "", "value": ""}),
		attack("x").with("source", map[string]any{"scope": "Country", "value": "XX", "ip": "XX"}),
		attack("x").with("source", nil),
		attack("x").with("machine_id", nil).with("source", map[string]any{"scope": "Username", "value": "root"}),
	)
	eventually(t, "all five", func() string {
		if n := len(s.alerts(t, "machine="+c.id)); n != 5 {
			return fmt.Sprintf("%d are kept", n)
		}
		return ""
	})
	if got := s.alerts(t, "machine="+other.id); len(got) > 0 {
		t.Errorf("a report in another's name: %v", got)
	}
	if got := s.listedFor(t, source); !slices.Equal(got, []string{c.org}) {
		t.Errorf("listed for %q", got)
	}
	scopes := map[string]string{}
	for _, a := range s.alerts(t, "machine="+c.id) {
		scopes[a.Scope] = a.Source
	}
	if scopes["Country"] != "XX" || scopes["Username"] != "root" || scopes["ip"] != source {
		t.Errorf("scopes %q", scopes)
	}
}

// TestGotcha22Context: null, or JSON inside of strings; AS numbers are strings.
func TestGotcha22Context(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.member(t, engine178, s.organisation(t))
	source := address()
	values := `["admin1","admin \"2\"","ü"]`
	c.push(t,
		attack(address()).with("context", json.RawMessage("null")),
		attack(address()).with("context", []any{}),
		attack(source).with("context", []any{map[string]string{"key": "target_user", "value": values}}).
			with("source", map[string]any{"scope": "Ip", "value": source, "ip": source, "as_number": "64500", "as_name": "Example", "cn": "NL", "latitude": 52.37, "longitude": 4.89, "range": "45.83.0.0/16"}),
		attack(address()).with("source", map[string]any{"scope": "Ip", "value": address(), "as_number": 64500, "latitude": "52.37"}),
	)
	s.judged(t, source, 1)
	if got := s.alertsOf(t, source)[0].Detail.Context; len(got) != 1 || got[0].Key != "target_user" || got[0].Value != values {
		t.Errorf("context %v", got)
	}
}

// TestGotcha23UsageMetrics: nulls in required fields, [""], joined options.
func TestGotcha23UsageMetrics(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.member(t, engine178, s.organisation(t))
	for _, body := range []string{
		`{}`, `{"lapi":null,"log_processors":null,"remediation_components":null}`,
		`{"lapi":{"feature_flags":[""],"metrics":null,"os":null,"utc_startup_timestamp":null,"version":"v1.7.8","console_options":["custom,tainted"]},"log_processors":[],"remediation_components":[]}`,
		`{"lapi":{"version":"v1.7.8"},"log_processors":[{"name":"lp","hub_items":{"scenarios":null},"datasources":null,"last_push":null}],"remediation_components":[{"name":"fw","type":"firewall","metrics":[{"items":[{"name":"dropped","value":1.5,"unit":"byte","labels":null}],"meta":{"window_size_seconds":1800,"utc_now_timestamp":1795210701}}]}]}`,
	} {
		c.send(t, "POST", "/v3/usage-metrics", []byte(body), true).ok(t)
	}
	if m := s.machine(t, c.id); m.Version != "v1.7.8" || len(m.Usage) == 0 {
		t.Errorf("version %q, report %s", m.Version, m.Usage)
	}
}

// TestGotcha24CommunityPull: an engine that turned the community list off gets
// none; blocklists off leaves it on.
func TestGotcha24CommunityPull(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.member(t, engine178, s.organisation(t))
	source := address()
	c.push(t, attack(source))
	eventually(t, "the list", func() string { return c.pull(t, "?additional_pull=false&startup=true").lacks(source) })
	if got := c.pull(t, "?community_pull=false&startup=true"); len(got.new)+len(got.deleted) > 0 {
		t.Errorf("%d new, %d deleted without the community list", len(got.new), len(got.deleted))
	}
	if wrong := c.pull(t, "?community_pull=true").lacks(source); wrong != "" {
		t.Error(wrong)
	}
}

// TestGotcha26WhatIsNoEvidence: acknowledgements of orders, manual decisions,
// imports, custom scenarios and simulations are kept, and count for nobody
// else.
func TestGotcha26WhatIsNoEvidence(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	n := newNetwork(t, s)
	withDecision := func(sig signal, field string, value any) signal {
		d := map[string]any{}
		for k, v := range sig["decisions"].([]any)[0].(map[string]any) {
			d[k] = v
		}
		d[field] = value
		return sig.with("decisions", []any{d})
	}
	forms := map[string]func(string) signal{
		"an acknowledged order": func(ip string) signal {
			return withDecision(attack(ip).with("kind", "papi").with("scenario_trust", "custom").with("scenario_hash", "").with("machine_id", nil), "origin", "console")
		},
		"an order that claims to be certified": func(ip string) signal { return attack(ip).with("kind", "papi") },
		"a certified one from the console":     func(ip string) signal { return withDecision(attack(ip), "origin", "console") },
		"a manual decision": func(ip string) signal {
			return withDecision(attack(ip).with("kind", "cscli").with("scenario_trust", "manual"), "origin", "cscli")
		},
		"an import": func(ip string) signal {
			return withDecision(attack(ip).with("kind", "cscli").with("scenario_trust", "custom"), "origin", "cscli-import")
		},
		"an edited scenario": func(ip string) signal { return attack(ip).with("scenario_trust", "tainted") },
		"a custom scenario":  func(ip string) signal { return attack(ip).with("scenario_trust", "custom") },
		"no claim":           func(ip string) signal { return attack(ip).with("scenario_trust", nil) },
		"a simulation":       func(ip string) signal { return withDecision(attack(ip), "simulated", true) },
	}
	sources := map[string]string{}
	control := address()
	for name, form := range forms {
		sources[name] = address()
		for _, c := range []*client{n.a1, n.a2, n.b1} {
			c.push(t, form(sources[name]))
		}
	}
	n.report(t, control)
	eventually(t, "the control", func() string { return n.reader.pull(t, "").lacks(control) })
	for name, source := range sources {
		s.judged(t, source, 3)
		if got := s.listedFor(t, source); len(got) > 0 {
			t.Errorf("%s made a listing for %q", name, got)
		}
	}
	// The same acknowledgement twice is one: orders may arrive twice.
	ack := forms["an acknowledged order"](address())
	n.a1.push(t, ack)
	n.a1.push(t, ack)
	marker := address()
	n.a1.push(t, attack(marker))
	s.judged(t, marker, 1)
	if got := s.alertsOf(t, ack["source"].(map[string]any)["value"].(string)); len(got) != 1 {
		t.Errorf("%d acknowledgements are kept", len(got))
	}
}

// TestGotcha27GzipOnEveryPost: bodies over 5 KiB come as gzip, logins included,
// and one signal may hold thousands of decisions.
func TestGotcha27GzipOnEveryPost(t *testing.T) {
	t.Parallel()
	s := shared(t)
	always := engine178
	always.gzipOver = 1
	c := s.client(always)
	c.register(t).ok(t)
	scenarios := manyWords(2000)
	c.login(t, scenarios...)
	if got := s.machine(t, c.id).Scenarios; len(got) != len(scenarios) {
		t.Errorf("%d scenarios", len(got))
	}
	c.enrol(t, s.key(t, s.organisation(t), true)).status(t, 201)
	c.login(t)
	c.post(t, "/metrics/", map[string]any{"bouncers": []any{}, "machines": []any{}}).ok(t)
	c.post(t, "/usage-metrics", map[string]any{"log_processors": []any{}, "remediation_components": []any{}}).ok(t)
	c.post(t, "/decisions/delete", []string{newUUID()}).ok(t)
	c.post(t, "/decisions/sync", []any{}).ok(t)

	var decisions []any
	for i := range 3000 {
		decisions = append(decisions, map[string]any{
			"uuid": newUUID(), "id": 0, "origin": "cscli-import", "scenario": "manual", "scope": "Ip", "type": "ban", "duration": "24h",
			"value": fmt.Sprintf("198.19.%d.%d", i/250, i%250+1),
		})
	}
	c.push(t, attack("x").with("kind", "cscli").with("scenario_trust", "custom").with("scenario", "import imp.csv: 3000 IPs").
		with("source", map[string]any{"scope": "", "value": ""}).with("decisions", decisions))
	eventually(t, "the import", func() string {
		if n := len(s.alerts(t, "machine="+c.id)); n != 1 {
			return fmt.Sprintf("%d are kept", n)
		}
		return ""
	})
	// Several members are one body in requests, whatever wrote them so.
	source := address()
	one := toJSON(t, []signal{attack(source)})
	plain := *c
	plain.kind = phpCurl // which compresses nothing by itself
	req := plain.request(t, "POST", "/v3/signals", append(zip(one[:100]), zip(one[100:])...), true)
	req.Header.Set("Content-Encoding", "GZIP")
	c.do(t, req).ok(t)
	s.judged(t, source, 1)
}

// TestGotcha29ScopesVerbatim: Ip and Range in orders are spelled so; other
// scopes are kept as sent.
func TestGotcha29ScopesVerbatim(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.member(t, engine178, s.organisation(t))
	for source, scope := range map[string]string{"45.88.9.9": "Ip", "45.88.9.0/24": "Range", "2a0f:5380::9": "Ip", "2a0f:5380:9::/48": "Range"} {
		s.admin(t, "POST", "/machines/"+c.id+"/orders", map[string]any{"kind": "alert/add", "source": source}, nil)
		events := c.poll(t, firstContact, 45)
		last := events[len(events)-1]
		d := last.data["decisions"].([]any)[0].(map[string]any)
		if d["scope"] != scope || d["value"] != source {
			t.Errorf("%s is ordered as %v %v", source, d["scope"], d["value"])
		}
	}
	for _, scope := range []string{"Country", "AS", "country", "Username"} {
		c.push(t, attack("x").with("source", map[string]any{"scope": scope, "value": "v-" + scope}))
	}
	eventually(t, "the scopes", func() string {
		got := s.alerts(t, "machine="+c.id)
		for _, a := range got {
			if a.Source != "v-"+a.Scope {
				t.Fatalf("scope %q of %q", a.Scope, a.Source)
			}
		}
		if len(got) != 4 {
			return fmt.Sprintf("%d are kept", len(got))
		}
		return ""
	})
	if got := c.pull(t, ""); len(got.new) > 0 {
		for value := range got.new {
			if strings.HasPrefix(value, "v-") {
				t.Errorf("%s is published", value)
			}
		}
	}
}

// TestGotcha30DeletedIsShort: engines run a query per value. It names what was
// withdrawn and nothing else, and forgets what is listed again.
func TestGotcha30DeletedIsShort(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	c := s.member(t, engine178, s.organisation(t))
	var batch []signal
	var sources []string
	for range 100 {
		source := address()
		sources = append(sources, source)
		batch = append(batch, attack(source))
	}
	c.push(t, batch...)
	eventually(t, "the list", func() string { return c.pull(t, "").lacks(sources...) })
	if got := c.pull(t, ""); len(got.deleted) > 0 {
		t.Errorf("deleted %v before anything was", got.deleted)
	}
	s.admin(t, "POST", "/allowlist", map[string]any{"values": sources[:3]}, nil)
	eventually(t, "the withdrawal", func() string {
		if got := c.pull(t, ""); len(got.deleted) != 3 || len(got.new) != 97 {
			return fmt.Sprintf("%d new, %d deleted", len(got.new), len(got.deleted))
		}
		return ""
	})
}

package console

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/crowd"
	"muster/internal/jury"
	"muster/internal/policy"
)

// aTrust is of a machine that has done well for a while.
func aTrust(change func(*jury.Trust)) jury.Trust {
	t := jury.Trust{
		Number: 7, Epoch: 77, Trust: crowd.Trust{Rank: 3, Weight: 2.5, Bound: 0.875},
		Record: crowd.Record{Tenure: 45, Validations: 81.5, LastHeard: now.Add(-time.Minute).Unix()},
	}
	if change != nil {
		change(&t)
	}
	return t
}

func TestTrustInWords(t *testing.T) {
	var b strings.Builder
	in := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for _, c := range []struct {
		name   string
		change func(*jury.Trust)
	}{
		{"much trust", nil},
		{"top rank", func(t *jury.Trust) { t.Trust.Rank, t.Trust.Solo = 5, true }},
		{"top rank, enough for today", func(t *jury.Trust) { t.Trust.Rank = 5 }},
		{"full trust, clouded", func(t *jury.Trust) { t.Trust.Rank, t.Trust.Clouded = 4, true }},
		{"some trust", func(t *jury.Trust) { t.Trust.Rank = 2 }},
		{"newcomer", func(t *jury.Trust) { t.Trust.Rank = 1 }},
		{"distrusted", func(t *jury.Trust) { t.Trust.Rank = 0 }},
		{"held", func(t *jury.Trust) { t.Trust.Rank, t.Trust.Paused, t.Record.HeldUntil = 0, true, in(24*time.Hour) }},
		{"struck, clouded too", func(t *jury.Trust) {
			t.Trust.Rank, t.Trust.Paused, t.Trust.Clouded, t.Record.PausedUntil = 0, true, true, in(30*24*time.Hour)
		}},
		{"paused for a moment longer", func(t *jury.Trust) { t.Trust.Rank, t.Trust.Paused, t.Record.HeldUntil = 0, true, in(0) }},
		{"a honeypot", func(t *jury.Trust) { t.Trust.Rank, t.Record.Honeypot = 5, true }},
		{"blocked", func(t *jury.Trust) { t.Trust.Rank, t.Trust.Paused, t.Record.Blocked = 0, true, true }},
	} {
		fmt.Fprintf(&b, "%s: %s\n", c.name, viewTrust(aTrust(c.change), now).Summary)
	}
	b.WriteString("\n")
	for kind := crowd.Validated; kind < crowd.Twitched; kind++ {
		v := viewTrustEvent(muster.TrustEvent{Kind: kind.String()})
		if v.What == v.Kind {
			t.Errorf("%s has no words", kind)
		}
		fmt.Fprintf(&b, "%s: %s\n", v.Kind, v.What)
	}
	fmt.Fprintf(&b, "not of this release: %s\n\n", viewTrustEvent(muster.TrustEvent{Kind: "promoted"}).What)
	for _, p := range []struct {
		crowd.Population
		newcomer float32
	}{{}, {crowd.Population{Machines: 3, Organisations: 2, AS: 2}, 3}, {crowd.Population{Machines: 300, Organisations: 80, AS: 60, Trusted: 1}, 0.25}, {crowd.Population{Machines: 3000, Organisations: 800, AS: 600, Trusted: 200}, 0}} {
		fmt.Fprintf(&b, "%+v: %s\n", p, ViewNetwork(p.Population, p.newcomer, 0, 0).Summary)
	}
	wantGolden(t, "trust.txt", b.String())
}

func TestMachineTrust(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "web-1", "org-a")
	r.machine("m2", "web-2", "org-a")
	r.machine("m3", "web-3", "")
	r.bench.trust["m1"] = aTrust(func(t *jury.Trust) {
		t.Trust = crowd.Trust{Paused: true, Clouded: true, Bound: 0.5}
		t.Record.Strikes, t.Record.LastStrike, t.Record.StruckAt = 1, now.Add(-time.Hour).Unix(), 2.5
		t.Record.HeldUntil, t.Record.PausedUntil, t.Record.CloudUntil = now.Add(-time.Hour).Unix(), now.Add(30*24*time.Hour).Unix(), now.Add(7*24*time.Hour).Unix()
	})
	r.bench.trust["m2"] = aTrust(func(t *jury.Trust) { t.Number = 8 })
	canary := mustSource(t, "8.8.8.8")
	r.store.events = []muster.TrustEvent{
		{Machine: 7, At: now.Add(-time.Hour), Kind: "struck", Amount: 0.8, Behaviour: "crowdsecurity/ssh-bf", Source: canary},
		{Machine: 8, At: now.Add(-2 * time.Hour), Kind: "validated", Amount: 1, RankBefore: 3, RankAfter: 3},
		{Machine: 7, At: now.Add(-25 * time.Hour), Kind: "held", Amount: 0.8, Behaviour: "crowdsecurity/ssh-bf", Source: canary, RankBefore: 3},
		{Machine: 7, At: now.Add(-90 * 24 * time.Hour), Kind: "validated", Amount: 31.5, RankBefore: 3, RankAfter: 3},
	}
	var b strings.Builder
	for _, path := range []string{
		"/machines/m1", "/machines/web-1/trust?since=30d&limit=1", "/machines/m2/trust?since=2026-11-20T11:00:00Z", "/machines/m3/trust", "/machines?search=web",
	} {
		fmt.Fprintf(&b, "# %s\n%s\n\n", path, indented(t, r.want(200, "", "GET", "/api/v1"+path, "").body))
	}
	wantGolden(t, "machine-trust.txt", b.String())
	r.want(404, "no machine", "GET", "/api/v1/machines/nobody/trust", "")
	r.want(400, "expected a time", "GET", "/api/v1/machines/m1/trust?since=x", "")
	r.want(400, "from 1 to 1000", "GET", "/api/v1/machines/m1/trust?limit=0", "")
	r.bench.fail = fmt.Errorf("broken")
	r.want(500, "internal", "GET", "/api/v1/machines/m1", "")
	r.want(500, "internal", "GET", "/api/v1/machines", "")
}

func TestHoneypot(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "trap", "org-a")
	r.want(200, `"honeypot":true`, "PATCH", "/api/v1/machines/trap", `{"honeypot":true,"reason":"never used before"}`)
	r.want(200, `"honeypot":true`, "PATCH", "/api/v1/machines/m1", `{"tags":["x"]}`)
	if !r.store.machines["m1"].Honeypot {
		t.Error("it is not stored")
	}
	r.want(200, `"honeypot":false`, "PATCH", "/api/v1/machines/m1", `{"honeypot":false}`)
	r.want(400, "reason: expected one line", "PATCH", "/api/v1/machines/m1", `{"honeypot":true,"reason":"two\nlines"}`)
	r.want(404, "no machine", "PATCH", "/api/v1/machines/m9", `{"honeypot":true}`)
	var audit []string
	for _, e := range r.store.audit {
		audit = append(audit, fmt.Sprintf("%s by %s: %s %s %q %s", e.At.Format("15:04"), e.By, e.Action, e.Subject, e.Reason, e.Detail))
	}
	want := []string{
		`12:00 by local administrator: machine.honeypot m1 "never used before" {"honeypot":true}`,
		`12:00 by local administrator: machine.honeypot m1 "" {"honeypot":false}`,
	}
	if diff := gocmp.Diff(want, audit); diff != "" {
		t.Error(diff)
	}
}

func TestNetwork(t *testing.T) {
	r := newRig(t)
	r.bench.population, r.bench.newcomer = crowd.Population{Machines: 4, Organisations: 3, AS: 2, Trusted: 1}, 1.5
	r.truth.Canaries = policy.NewCanaries(policy.BuiltInCanaries()[:5])
	want := `{"machines":4,"organisations":3,"as":2,"trusted":1,"newcomer":1.5,"local":true,` +
		`"summary":"Local: the word of 1 organisation has earned weight so far, which is too few, so that newcomers count with 1.5 points each. Mind who may join.","listed":123,"canaries":5}`
	if a := r.want(200, "", "GET", "/api/v1/network", ""); a.body != want {
		t.Errorf("got  %s\nwant %s", a.body, want)
	}
}

func TestBehaviours(t *testing.T) {
	r := newRig(t)
	for i, name := range []string{"a/http-probing", "b/ssh-bf", "b/ssh-slow-bf"} {
		r.bench.behaviours = append(r.bench.behaviours, jury.Behaviour{Scenario: name, Prior: crowd.Prior{Confidence: uint8(i), Spoofable: 1}, Shots: 2.5, Keeps: 0.8, Twitchy: true})
	}
	http := `{"scenario":"a/http-probing","confidence":0,"spoofable":1,"twitchiness":2.5,"keeps":0.8,"twitchy":true}`
	names := regexp.MustCompile(`"scenario":"(.*?)"|"next":"(.*?)"`)
	for query, want := range map[string]string{
		"":                         "a/http-probing b/ssh-bf b/ssh-slow-bf >",
		"?limit=2":                 "a/http-probing b/ssh-bf >b/ssh-bf",
		"?limit=2&after=b/ssh-bf":  "b/ssh-slow-bf >",
		"?limit=3":                 "a/http-probing b/ssh-bf b/ssh-slow-bf >",
		"?search=ssh":              "b/ssh-bf b/ssh-slow-bf >",
		"?search=ssh&limit=1":      "b/ssh-bf >b/ssh-bf",
		"?search=nothing":          ">",
		"?after=b/ssh-slow-bf":     ">",
		"?search=http&after=a/aaa": "a/http-probing >",
	} {
		a := r.want(200, "", "GET", "/api/v1/behaviours"+query, "")
		got := ""
		for _, m := range names.FindAllStringSubmatch(a.body, -1) {
			if strings.HasPrefix(m[0], `"next"`) {
				got += ">" + m[2]
			} else {
				got += m[1] + " "
			}
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
		if strings.HasPrefix(want, "a/") && !strings.Contains(a.body, http) {
			t.Errorf("%s: got %s", query, a.body)
		}
	}
	r.want(400, "from 1 to 1000", "GET", "/api/v1/behaviours?limit=x", "")
}

func TestOperatorsList(t *testing.T) {
	r := newRig(t)
	r.truth = jury.Truth{
		Allowlist: policy.NewAllowlist([]muster.AllowEntry{{Source: mustSource(t, "198.41.9.0/24"), Reason: "our office"}}),
		Canaries:  policy.NewCanaries([]muster.Canary{mustCanary(t, "198.41.8.7"), mustCanary(t, "AS64600")}),
	}
	set := `{"source":"198.41.0.0/24","listed":true,"remedy":"captcha","until":"2026-11-20T13:00:00Z","reason":"a flood","by":"local administrator","created_at":"2026-11-20T12:00:00Z"}`
	if a := r.want(200, "", "POST", "/api/v1/verdicts", `{"source":"198.41.0.7/24","listed":true,"remedy":"captcha","ttl_seconds":3600,"reason":"a flood"}`); a.body != set {
		t.Errorf("got %s", a.body)
	}
	r.want(200, `"source":"2001:4860::/64","listed":true,"remedy":"ban"`, "POST", "/api/v1/verdicts", `{"source":"2001:4860::1","listed":true,"ttl_seconds":3600,"reason":"a flood"}`)
	r.want(200, `[`+set+`,{"source":"2001:4860::/64",`, "GET", "/api/v1/verdicts", "")
	for body, part := range map[string]string{
		`{"source":"198.41.0.1"}`:                                  "ttl_seconds: expected how long it is listed, up to 31622400 (366 days)",
		`{"source":"198.41.0.1","ttl_seconds":4e7}`:                "ttl_seconds",
		`{"source":"198.41.0.1","ttl_seconds":31622401}`:           "ttl_seconds",
		`{"source":"198.41.0.1","ttl_seconds":60,"remedy":"jail"}`: "remedy: expected ban or captcha",
		`{"source":"198.40.0.0/15","ttl_seconds":60}`:              "too wide: expected /16 or narrower, IPv6 /32",
		`{"source":"2001:4860::/31","ttl_seconds":60}`:             "too wide",
		`{"source":"192.168.0.0/16","ttl_seconds":60}`:             "reserved",
		`{"source":"198.41.9.7","ttl_seconds":60}`:                 "is on the allowlist (our office)",
		`{"source":"198.41.8.0/23","ttl_seconds":60}`:              "is on the allowlist (our office), in whole or in part",
		`{"source":"198.41.8.7","ttl_seconds":60}`:                 "known to be good (canary 198.41.8.7)",
		`{"source":"45.85.1.1","ttl_seconds":60}`:                  "known to be good (canary AS64600)",
		`{"source":"198.41.8.0/24","ttl_seconds":60}`:              "there is an address that is known to be good",
	} {
		r.want(400, part, "POST", "/api/v1/verdicts", strings.TrimSuffix(body, "}")+`,"listed":true,"reason":"x"}`)
	}
	r.want(204, "", "DELETE", "/api/v1/verdicts/2001:4860::1", "") // as which it was asked for
	if len(r.store.words) != 1 || fmt.Sprint(r.changed) != "[allowlist allowlist allowlist]" {
		t.Errorf("left %v, told to all nodes %v", r.store.words, r.changed)
	}
	if e := r.store.audit[0]; string(e.Detail) != `{"listed":true,"remedy":"captcha","ttl_seconds":3600}` {
		t.Errorf("audited as %s", e.Detail)
	}
	r.want(400, "0.0.0.0/0 is too wide: expected /8", "POST", "/api/v1/allowlist", `{"values":["198.41.1.1","0.0.0.0/0"],"reason":"x"}`)
	if len(r.store.allowed) != 0 {
		t.Errorf("allowed %v", r.store.allowed)
	}
}

func TestOperatorVerdicts(t *testing.T) {
	r := newRig(t)
	r.want(200, `[]`, "GET", "/api/v1/verdicts", "")
	set := `{"source":"198.41.0.0/24","listed":false,"until":"2026-11-20T13:00:00Z","reason":"a partner","by":"local administrator","created_at":"2026-11-20T12:00:00Z"}`
	if a := r.want(200, "", "POST", "/api/v1/verdicts", `{"source":"198.41.0.7/24","listed":false,"ttl_seconds":3600,"reason":"a partner"}`); a.body != set {
		t.Errorf("got %s", a.body)
	}
	r.want(200, `"until":null`, "POST", "/api/v1/verdicts", `{"source":"2001:4860::1","reason":"for good"}`)
	r.want(200, `[`+set+`,{"source":"2001:4860::1",`, "GET", "/api/v1/verdicts", "")
	r.want(200, `"operator":`+set, "GET", "/api/v1/explain/198.41.0.7", "")
	for body, part := range map[string]string{
		`{"source":"0.0.0.0/7","reason":"x"}`:                      "too wide: expected /8 or narrower, IPv6 /16",
		`{"source":"198.41.0.1","remedy":"ban","reason":"x"}`:      "remedy: expected none",
		`{"source":"198.41.0.1"}`:                                  "reason: expected one line",
		`{"source":"XX","reason":"x"}`:                             "source: expected an IPv4 or IPv6 address",
		`{"source":"198.41.0.1","reason":"x","ttl_seconds":-1}`:    "ttl_seconds",
		`{"source":"198.41.0.1","reason":"x","until":"yesterday"}`: "unknown field",
	} {
		r.want(400, part, "POST", "/api/v1/verdicts", body)
	}
	r.clock = now.Add(time.Hour)
	r.want(200, `[{"source":"2001:4860::1",`, "GET", "/api/v1/verdicts", "")
	r.want(204, "", "DELETE", "/api/v1/verdicts/198.41.0.0/24?reason=over", "")
	r.want(204, "", "DELETE", "/api/v1/verdicts/2001:4860::1", "")
	r.want(404, "no such verdict", "DELETE", "/api/v1/verdicts/198.41.0.0/24", "")
	r.want(400, "expected an IPv4 or IPv6 address", "DELETE", "/api/v1/verdicts/x", "")
	var audit []string
	for _, e := range r.store.audit {
		audit = append(audit, fmt.Sprintf("%s %s %q %s", e.Action, e.Subject, e.Reason, e.Detail))
	}
	want := []string{
		`verdict.set 198.41.0.0/24 "a partner" {"listed":false,"ttl_seconds":3600}`, `verdict.set 2001:4860::1 "for good" {"listed":false,"ttl_seconds":0}`,
		`verdict.remove 198.41.0.0/24 "over" `, `verdict.remove 2001:4860::1 "" `,
	}
	if diff := gocmp.Diff(want, audit); diff != "" {
		t.Error(diff)
	}
	if got := fmt.Sprint(r.changed); got != "[allowlist allowlist allowlist allowlist]" {
		t.Errorf("told to all nodes: %s", got)
	}
	r.store.fail = fmt.Errorf("broken")
	r.want(500, "internal", "POST", "/api/v1/verdicts", `{"source":"198.41.0.7","reason":"x"}`)
	if len(r.changed) != 4 {
		t.Error("all nodes were told of what was not stored")
	}
}

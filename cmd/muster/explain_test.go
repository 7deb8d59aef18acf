package main

import (
	"strings"
	"testing"
)

func TestExplainAndTrustCommands(t *testing.T) {
	const (
		explained = `{"source":"203.0.113.9","listed":true,"lines":["203.0.113.9 is on the list.","Why: 100 % of them said so."]}`
		aVerdict  = `{"source":"203.0.113.0/24","listed":false,"until":null,"reason":"a partner","by":"jane","created_at":"2026-11-20T12:00:00Z"}`
		head      = `{"id":"m1","state":"active","organisation":"org-a","name":"web1","tags":["x","y"],"honeypot":true,"version":"v1.7.8","scenarios":["a/b"],` +
			`"registered_at":"2026-11-20T12:00:00Z","last_seen":null,`
		events = `"events":[{"at":"2026-11-20T12:00:00Z","kind":"struck","what":"a strike","amount":0.8,"scenario":"a/b","source":"8.8.8.8","rank_before":3,"rank_after":0},` +
			`{"at":"2026-11-19T12:00:00Z","kind":"validated","what":"others saw it","amount":12,"scenario":"","source":"","rank_before":3,"rank_after":3}]}`
		struck = `"trust":{"reported":true,"summary":"It lied.","rank":0,"weight":0,"bound":0.625,"tenure_days":45,"validations":81.5,"strikes":1,"last_strike":"2026-11-20T12:00:00Z",` +
			`"held_until":"2026-11-21T12:00:00Z","paused_until":"2026-12-20T12:00:00Z","clouded":true,"solo":false},`
		unknown = `"trust":{"reported":false,"summary":"It has not reported anything yet."},"events":[]}`
	)
	for _, c := range []struct {
		line, answer  string
		request, body string // what is asked last
		prints        string // lines that must be there, blanks in them as one
	}{
		{"muster admin explain 203.0.113.9", explained, "GET /explain/203.0.113.9", "", "203.0.113.9 is on the list. Why: 100 % of them said so."},
		{"muster admin explain 203.0.113.0/24", explained, "GET /explain/203.0.113.0/24", "", "Why"},
		{"muster admin explain 203.0.113.9 --json", explained, "GET /explain/203.0.113.9", "", `"listed": true, "lines": [`},
		{
			`muster admin verdict set 203.0.113.0/24 --never --reason "a partner" --ttl 1h`, aVerdict, "POST /verdicts",
			`{"listed":false,"reason":"a partner","source":"203.0.113.0/24","ttl_seconds":3600}`, "It is never listed.",
		},
		{
			`muster admin verdict set 203.0.113.7 --listed --remedy captcha --reason "a flood" --ttl 1h`, aVerdict, "POST /verdicts",
			`{"listed":true,"reason":"a flood","remedy":"captcha","source":"203.0.113.7","ttl_seconds":3600}`, "It is listed.",
		},
		{"muster admin verdict set 203.0.113.0/24 --reason x", "", "", "", "muster: missing flags: --never"},
		{"muster admin verdict set 203.0.113.0/24 --never --listed --reason x", "", "", "", "muster: --never and --listed can't be used together"},
		{"muster admin verdict set 203.0.113.0/24 --never --reason x --ttl soon", "", "", "", "muster: --ttl:"},
		{"muster admin verdict list", `[]`, "GET /verdicts", "", "Nobody has decided about any source"},
		{"muster admin verdict list", `[` + aVerdict + `]`, "GET /verdicts", "", "SOURCE LISTED ENDS BY REASON\n203.0.113.0/24 never never jane a partner"},
		{"muster admin verdict list", `[{"source":"203.0.113.7","listed":true,"remedy":"captcha","until":"2026-11-20T12:00:00Z","reason":"a flood","by":"jane"}]`, "GET /verdicts", "", "203.0.113.7 captcha 2026-11-20T12:00:00Z jane a flood"},
		{"muster admin verdict remove 203.0.113.0/24 --reason over", "", "DELETE /verdicts/203.0.113.0/24?reason=over", "", "Verdict removed."},
		{
			"muster admin machine show web1", head + struck + events, "GET /machines/web1", "",
			"machine m1\nname web1\nstate active\norganisation org-a\ntags x, y\nhoneypot yes\nversion v1.7.8\nscenarios 1\nlast seen never\ntrust It lied.\nrank 0 of 5\n" +
				"weight 0.00 points\nright in 62 % of cases\ndays with reports 45\nvalidations 81.5\nstrikes 1, the last 2026-11-20T12:00:00Z\nheld until 2026-11-21T12:00:00Z\n" +
				"paused until 2026-12-20T12:00:00Z\nsuspected yes\nlists alone no\nWHEN RANK WHAT AMOUNT SOURCE SCENARIO\n2026-11-20T12:00:00Z 3 to 0 a strike 0.8 8.8.8.8 a/b\n" +
				"2026-11-19T12:00:00Z 3 others saw it 12.0",
		},
		{"muster admin machine show web1 --since 90d", head + struck + events, "GET /machines/web1/trust?limit=1000&since=90d", "", "2026-11-19T12:00:00Z 3 others saw it"},
		{"muster admin machine show web1 --since 90d --json", head + struck + events, "GET /machines/web1/trust?limit=1000&since=90d", "", `"what": "a strike"`},
		{"muster admin machine show web1", head + unknown, "GET /machines/web1", "", "trust It has not reported anything yet."},
		{"muster admin machine show web1", head + `"trust":null,"events":[]}`, "GET /machines/web1", "", "trust the judge does not answer now"},
		{"muster admin machine show web1 --json", head + unknown, "GET /machines/web1", "", `"honeypot": true`},
		{
			"muster admin machine list", `{"machines":[` + head + `"rank":3},` + head + `"tags":null}],"next":""}`, "GET /machines?after=&limit=1000&organisation=&search=&state=", "",
			"ID NAME STATE RANK ORGANISATION VERSION LAST SEEN TAGS m1 web1 active 3 org-a v1.7.8 never x,y m1 web1 active - org-a",
		},
		{
			"muster admin machine set web1 --honeypot --reason unused", head + unknown, "PATCH /machines/web1", `{"honeypot":true,"reason":"unused"}`,
			"Machine changed.",
		},
		{"muster admin machine set web1 --no-honeypot", head + unknown, "PATCH /machines/web1", `{"honeypot":false,"reason":""}`, "Machine changed."},
		{"muster admin machine set web1 --name web2", head + unknown, "PATCH /machines/web1", `{"name":"web2"}`, "Machine changed."},
		{
			"muster admin behaviour list --search ssh",
			`{"behaviours":[{"scenario":"a/ssh-bf","confidence":3,"spoofable":0,"twitchiness":2.5,"keeps":0.8}],"next":""}`, "GET /behaviours?limit=1000&search=ssh", "",
			"SCENARIO CONFIDENCE SPOOFABLE TWITCHINESS KEEPS BROKEN a/ssh-bf 3 of 3 0 of 3 2.5 80 % no",
		},
	} {
		a := &asked{answer: c.answer}
		printed := strings.Join(strings.Fields(a.muster(t, c.line)), " ")
		for _, line := range strings.Split(c.prints, "\n") {
			if !strings.Contains(printed, line) {
				t.Errorf("%s: no %q in %s", c.line, line, printed)
			}
		}
		if a.request != c.request || strings.TrimSpace(a.body) != c.body {
			t.Errorf("%s: asked  %s %s\nwant %s %s", c.line, a.request, a.body, c.request, c.body)
		}
	}
}

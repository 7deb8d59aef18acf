package main

import (
	"strings"
	"testing"
)

const (
	waitingUnban = `{"id":"u1","source":"203.0.113.0/24","address":"203.0.113.9","requester":"203.0.113.9","contact":"","text":"","proof":"","state":"waiting",` +
		`"requested":"2026-11-20T12:00:00Z","decided":null,"by":"","reason":"in a range","round":0,"grace_until":null,"delivered":false`
	grantedUnban = `{"id":"u2","source":"203.0.113.9","address":"203.0.113.9","requester":"203.0.113.9","contact":"noc@example.org","text":"one\ntwo","proof":"same-address",` +
		`"state":"granted","requested":"2026-11-20T12:00:00Z","decided":"2026-11-20T13:00:00Z","by":"","reason":"","round":2,"grace_until":"2026-11-27T12:00:00Z","delivered":true`
)

func TestUnbanCommands(t *testing.T) {
	const list = "GET /unbans?limit=1000&source=&state="
	for _, c := range []struct {
		line, answer  string
		request, body string // what is asked
		prints        string // lines that must be there, blanks in them as one
	}{
		{"muster admin unban list", `{"requests":[],"next":""}`, list + "waiting", "", "No request waits. Those that need nobody are decided by rules: muster admin unban list --state all"},
		{"muster admin unban list --state all", `{"requests":[],"next":""}`, list, "", "Nobody has asked to be taken off the list yet."},
		{"muster admin unban list --state refused", `{"requests":[],"next":""}`, list + "refused", "", "No request is refused."},
		{"muster admin unban list --source 1.2.3.4", `{"requests":[],"next":""}`, "GET /unbans?limit=1000&source=1.2.3.4&state=waiting", "", "No request for 1.2.3.4."},
		{
			"muster admin unban list", `{"requests":[` + waitingUnban + `}],"next":""}`, list + "waiting", "",
			"ID ASKED FOR FROM PROOF STATE REASON\nago 203.0.113.0/24 (for 203.0.113.9) 203.0.113.9 none waiting in a range",
		},
		{"muster admin unban list --state open", "", "", "", "muster: --state must be one of"},
		{
			"muster admin unban show 203.0.113.0/24",
			waitingUnban + `,"listing":{"source":"203.0.113.0/24","since":"2026-11-19T12:00:00Z","until":"2026-11-22T12:00:00Z","behaviours":["a/b","c/d"]},"others":[` + grantedUnban + `}]}`,
			"GET /unbans/203.0.113.0%2F24", "",
			"for 203.0.113.0/24 (for 203.0.113.9)\nasked 2026-11-20T12:00:00Z from 203.0.113.9\nproof none\nstate waiting\ncontact not said\n" +
				"listed 203.0.113.0/24 since 2026-11-19T12:00:00Z, for a/b, c/d\nends 2026-11-22T12:00:00Z\n" +
				"Other requests for it: ASKED FROM PROOF STATE REASON 2026-11-20T12:00:00Z 203.0.113.9 same-address granted 2026-11-20T13:00:00Z by the rules\n" +
				`To decide: muster admin unban grant u1 --reason "…" (or refuse)`,
		},
		{
			"muster admin unban show u2", grantedUnban + `,"listing":null,"others":[]}`, "GET /unbans/u2", "",
			"state granted 2026-11-20T13:00:00Z by the rules\nround 2, twice as much to list it again until 2026-11-27T12:00:00Z\ncontact noc@example.org\nlisted no longer one two",
		},
		{
			`muster admin unban grant 203.0.113.9 --reason "it is mended"`, grantedUnban + "}", "POST /unbans/203.0.113.9/grant", `{"reason":"it is mended"}`,
			"203.0.113.9 is taken off the list. Engines let it in again with their next pull. Until 2026-11-27T12:00:00Z it takes twice as much",
		},
		{"muster admin unban refuse u1 --reason no", waitingUnban + "}", "POST /unbans/u1/refuse", `{"reason":"no"}`, "Refused. The source stays on the list"},
		{"muster admin unban grant u1", "", "", "", "muster: missing flags: --reason=STRING"},
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
	for line, want := range map[string]string{
		"muster admin unban list --json":                 `[ ` + waitingUnban + `}]`,
		"muster admin unban refuse u1 --reason x --json": waitingUnban + `}`,
	} {
		answer := waitingUnban + "}"
		if strings.Contains(line, "list") {
			answer = `{"requests":[` + answer + `],"next":""}`
		}
		squeeze := strings.NewReplacer(" ", "", "\n", "").Replace
		if got := (&asked{answer: answer}).muster(t, line); squeeze(got) != squeeze(want) {
			t.Errorf("%s: got %s", line, got)
		}
	}
}

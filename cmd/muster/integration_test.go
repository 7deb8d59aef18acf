package main

import (
	"strings"
	"testing"
)

const (
	aFirewall = `{"id":"i1","name":"office","kind":"firewall","organisation":"o1","format":"pfsense","budget":50000,"collateral":0.25,"ipv4":true,"ipv6":false,` +
		`"interval_seconds":600,"lists":[{"id":"community","name":"community","remedy":"ban"}],"url":"https://m.test/v1/integrations/i1/content","user":"u1",` +
		`"rotated_at":"2026-11-20T12:00:00Z","state":"ok","last_pull":"2026-11-20T12:00:00Z","last_client":"curl/8","last_address":"192.0.2.1","last_entries":7`
	aBouncer = `{"id":"i2","name":"web","kind":"bouncer","format":"","budget":0,"ipv4":true,"ipv6":true,"lists":[],"url":"https://m.test/v1/integrations/i2","user":"","state":"never","last_pull":null`
)

func TestIntegrationCommands(t *testing.T) {
	for _, c := range []struct {
		line, answer  string
		request, body string // what is asked
		prints        string // lines that must be there, blanks in them as one
	}{
		{
			"muster admin integration create office --for pfsense --budget 50000 --no-ipv6 --every 10m --collateral 0.25",
			aFirewall + `,"secret":"S1","setup":"Firewall, Aliases\n","notes":"All tables together."}`, "POST /integrations",
			`{"budget":50000,"collateral":0.25,"format":"pfsense","interval_seconds":600,"ipv6":false,"kind":"firewall","name":"office","organisation":""}`,
			"url https://m.test/v1/integrations/i1/content\nuser u1 password S1\nlists community\nIt is shown only now\nTo set it up: Firewall, Aliases All tables together.",
		},
		{
			"muster admin integration create web --for bouncer --list community --list ours --org Beta --reason x", aBouncer + `,"secret":"K1","setup":"api_key: K1\n"}`, "POST /integrations",
			`{"kind":"bouncer","lists":["community","ours"],"name":"web","organisation":"Beta","reason":"x"}`, "key K1\nbudget no limit\napi_key: K1",
		},
		{"muster admin integration create web", "", "", "", "muster: missing flags: --for"},
		{"muster admin integration create web --for f5 --every soon", "", "", "", "muster: --every: "},
		{
			"muster admin integration list", `[` + aFirewall + `},` + aBouncer + `}]`, "GET /integrations", "",
			"i1 office pfsense community 50000 entries ok\nago curl/8\ni2 web bouncer none no limit never never",
		},
		{"muster admin integration list --org Beta", `[]`, "GET /integrations?organisation=Beta", "", "No integration yet. For a firewall: muster admin integration create"},
		{
			"muster admin integration show office", aFirewall + `,"setup":"x PASSWORD\n","notes":"n","usage":[{"address":"192.0.2.9","at":"2026-11-20T12:00:00Z","report":{}}]}`,
			"GET /integrations/office", "",
			"for pfsense\nuser u1\nfamilies IPv4 collateral 0.25 of a range at most pulls every 10m0s at most credentials of 2026-11-20T12:00:00Z state ok\n7 entries, by curl/8 from 192.0.2.1\nfrom 192.0.2.9\nx PASSWORD",
		},
		{"muster admin integration show web", aBouncer + `,"setup":"y"}`, "GET /integrations/web", "", "for bouncer\nlists none budget no limit families IPv4 and IPv6\nstate never last pull never"},
		{
			"muster admin integration set office --name door --for f5 --budget 0 --every 0 --no-ipv4 --ipv6 --list ours", aFirewall + "}", "PATCH /integrations/office",
			`{"budget":0,"format":"f5","interval_seconds":0,"ipv4":false,"ipv6":true,"lists":["ours"],"name":"door"}`, "Integration changed.",
		},
		{"muster admin integration rotate i2 --reason lost", aBouncer + `,"secret":"K2","setup":"y"}`, "POST /integrations/i2/rotate?reason=lost", "", "key K2"},
		{"muster admin integration delete i2", "", "DELETE /integrations/i2?reason=", "", "Integration deleted."},
		{"muster admin integration list --json", `[` + aBouncer + `}]`, "GET /integrations", "", `"last_pull": null`},
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

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// asked is a server that answers every request alike, and what it was asked last.
type asked struct {
	answer        string
	request, body string
}

func (a *asked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.request, a.body = r.Method+" "+strings.TrimPrefix(r.URL.RequestURI(), "/api/v1"), string(body)
	if a.answer == "" {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	_, _ = io.WriteString(w, a.answer)
}

// muster runs a command line against a and returns what it printed.
func (a *asked) muster(t *testing.T, line string) string {
	t.Helper()
	s := httptest.NewServer(a)
	defer s.Close()
	t.Setenv("MUSTER_URL", s.URL)
	t.Setenv("MUSTER_TOKEN", "token")
	out, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer func(was *os.File) { os.Stdout = was }(os.Stdout)
	os.Stdout = out
	var c cli
	ctx, err := newParser(&c).Parse(arguments(line))
	if err == nil {
		err = ctx.Run(&c.globals)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	printed, readErr := os.ReadFile(out.Name())
	if readErr != nil {
		t.Fatal(readErr)
	}
	if err != nil {
		return "muster: " + err.Error()
	}
	return string(printed)
}

const (
	aBan = `{"address":"203.0.113.9","scope":"login","reason":"floods","limit":"","since":"2026-11-20T12:00:00Z","until":null,"extends_seconds":0,"by":"jane"}`
	// A ban by a limit, a retry of which extends it.
	aLimiterBan = `{"address":"203.0.113.9","scope":"all","reason":"too many","limit":"login","since":"2026-11-20T12:00:00Z","until":"2026-11-20T13:00:00Z","extends_seconds":3600,"by":""`
	aLimit      = `{"name":"login","kind":"login","sharing":false,"enrolled":true,"per":"address","threshold":20,"window":"50m","ban":"1h","scope":"all",` +
		`"extend_on_retry":true,"exempt_plans":["SECOPS"],"off":false,"set_at":null,"set_by":""}`
	anOverride = `{"id":"i","addresses":"203.0.113.0/24","organisation":"","machine":"","limits":[],"exempt":true,"threshold":0,"since":null,"until":null,"reason":"ours","by":"jane"}`
)

func TestAbuseCommands(t *testing.T) {
	for _, c := range []struct {
		line, answer  string
		request, body string // what is asked
		prints        string // lines that must be there, blanks in them as one
	}{
		{"muster admin ban list", `{"bans":[],"next":""}`, "GET /bans?limit=1000&search=", "", "Nobody is banned."},
		{"muster admin ban list --search nat", `{"bans":[],"next":""}`, "GET /bans?limit=1000&search=nat", "", `No ban matches "nat".`},
		{
			"muster admin ban list", `{"bans":[` + aBan + `],"next":""}`, "GET /bans?limit=1000&search=", "",
			"ADDRESS REFUSED UNTIL A RETRY BY REASON\n203.0.113.9 logins lifted changes nothing jane floods",
		},
		{
			"muster admin ban show 203.0.113.9",
			aLimiterBan + `,"findings":[{"kind":"restart-loop","summary":"It restarts.","evidence":["12:00 login"],"fix":"Stop it.","last":"2026-11-20T12:00:00Z"}]}`,
			"GET /bans/203.0.113.9", "",
			"refused everything\na retry starts 1h anew\nby the limit login\nrestart-loop: It restarts.\n12:00 login\nTo do: Stop it.\n" +
				`To let it in again: muster admin ban lift 203.0.113.9 --reason "…"`,
		},
		{"muster admin ban show 203.0.113.9", aLimiterBan + `,"findings":[]}`, "GET /bans/203.0.113.9", "", "Nothing is known about its cause."},
		{
			`muster admin ban lift 203.0.113.9 --reason "it is mended"`, aBan, "DELETE /bans/203.0.113.9?reason=it+is+mended", "",
			"Ban of 203.0.113.9 lifted. The address may log in again; its counts begin anew.",
		},
		{
			"muster admin ban lift 203.0.113.9 --reason x", aLimiterBan + `,"still_banned_by":"203.0.113.0/24"}`, "DELETE /bans/203.0.113.9?reason=x", "",
			"It stays banned with 203.0.113.0/24: lift that one too.\nUnless its cause is mended it will be banned again: muster admin finding list --address 203.0.113.9",
		},
		{
			"muster admin ban add 203.0.113.9 --reason floods --for 1h --scope login --extend", aBan, "POST /bans",
			`{"address":"203.0.113.9","extend_on_retry":true,"reason":"floods","scope":"login","ttl_seconds":3600}`,
			"203.0.113.9 is banned from logging in, until it is lifted.",
		},
		{"muster admin ban lift 203.0.113.9", "", "", "", "muster: missing flags: --reason=STRING"},
		{"muster admin ban add 203.0.113.9 --reason x --for soon", "", "", "", "muster: --for: expected a duration like 4h"},

		{
			"muster admin limit list", `{"limits":[` + aLimit + `],"kinds":["login","POST /signals"]}`, "GET /limits", "",
			"login login, not sharing, enrolled address 20 50m banned for 1h, again with each retry SECOPS on, as configured\nLimits can count: login, POST /signals",
		},
		{"muster admin limit list", `{"limits":[],"kinds":["login"]}`, "GET /limits", "", "Nothing is limited."},
		{
			`muster admin limit set pushes --count "POST /signals" --sharing either --enrolled no --per machine --over 600 --window 10m --ban 0 --scope login --no-extend --exempt-plan none --reason x`,
			strings.NewReplacer(`"1h"`, `"0s"`, `"off":false,"set_at":null,"set_by":""`, `"off":true,"set_at":"2026-11-20T12:00:00Z","set_by":"jane"`).Replace(aLimit), "PUT /limits/pushes",
			`{"ban":"0","enrolled":false,"exempt_plans":[],"extend_on_retry":false,"kind":"POST /signals","per":"machine","reason":"x","scope":"login","sharing":null,"threshold":600,"window":"10m"}`,
			"Limit set. It holds from now on:\nrefused, no ban\noff, set by jane 2026-11-20T12:00:00Z",
		},
		{"muster admin limit set login --over 30 --extend --exempt-plan SECOPS", aLimit, "PUT /limits/login", `{"exempt_plans":["SECOPS"],"extend_on_retry":true,"reason":"","threshold":30}`, "Limit set."},
		{"muster admin limit set login", "", "", "", "muster: nothing to change"},
		{"muster admin limit off login --reason x", aLimit, "PUT /limits/login", `{"off":true,"reason":"x"}`, "Bans that it made stay until they end or are lifted."},
		{"muster admin limit on login", aLimit, "PUT /limits/login", `{"off":false,"reason":""}`, "Limit on."},
		{"muster admin limit reset login --reason over", aLimit, "DELETE /limits/login?reason=over", "", "Limit as configured again:\nbanned for 1h"},
		{"muster admin limit reset pushes", "", "DELETE /limits/pushes?reason=", "", "Limit pushes is gone: the configuration has none of that name."},

		{"muster admin override list", `{"overrides":[],"next":""}`, "GET /overrides?limit=1000", "", "No overrides: the limits hold for everybody alike."},
		{"muster admin override list", `{"overrides":[` + anOverride + `],"next":""}`, "GET /overrides?limit=1000", "", "i 203.0.113.0/24 anything all removed jane ours"},
		{
			"muster admin override add --org org-a --threshold 200 --limit login --for 1d --reason NAT",
			`{"id":"i","organisation":"org-a","limits":["login"],"threshold":200,"until":null,"reason":"NAT"}`, "POST /overrides",
			`{"addresses":"","exempt":false,"limits":["login"],"machine":"","organisation":"org-a","reason":"NAT","threshold":200,"ttl_seconds":86400}`,
			"From now on organisation org-a may do 200 in the window (limits: login), until this is removed.",
		},
		{"muster admin override add --org a --machine m --exempt --reason x", "", "", "", "muster: --org and --machine can't be used together"},
		{"muster admin override add --exempt --reason x", "", "", "", "muster: missing flags:"},
		{"muster admin override add --org a --reason x", "", "", "", "muster: missing flags:"},
		{"muster admin override remove i --reason over", "", "DELETE /overrides/i?reason=over", "", "Override removed. The limits hold again."},

		{"muster admin finding list", `{"findings":[]}`, "GET /findings?address=&kind=&machine=", "", "Nothing found: no engine stands out."},
		{"muster admin finding list --machine web", `{"findings":[]}`, "GET /findings?address=&kind=&machine=web", "", "Nothing found that matches."},
		{
			"muster admin finding list --address 203.0.113.9",
			`{"findings":[{"severity":"critical","kind":"restart-loop","machine":"m1","address":"203.0.113.9","last":"2026-11-20T12:00:00Z","summary":"It restarts.","fix":"Stop it."}]}`,
			"GET /findings?address=203.0.113.9&kind=&machine=", "", "critical restart-loop m1 203.0.113.9\nIt restarts. Stop it.",
		},
		{"muster admin audit list", `{"entries":[],"next":""}`, "GET /audit?action=&before=&limit=100&subject=", "", "Nobody has changed anything yet."},
		{
			"muster admin audit list --action ban --limit 1", `{"entries":[{"at":"2026-11-20T12:00:00Z","by":"jane","action":"ban.lift","subject":"s","reason":"r"}],"next":"n"}`,
			"GET /audit?action=ban&before=&limit=1&subject=", "", "2026-11-20T12:00:00Z jane ban.lift s r\nOlder ones: muster admin audit list --before n",
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

func TestAbuseCommandsAsJSON(t *testing.T) {
	for line, c := range map[string]struct{ answer, want string }{
		"muster admin ban list --json":          {`{"bans":[` + aBan + `],"next":""}`, `[` + aBan + `]`},
		"muster admin ban show 1.1.1.1 --json":  {aLimiterBan + `,"findings":[]}`, aLimiterBan + `,"findings":[]}`},
		"muster admin limit list --json":        {`{"limits":[],"kinds":[]}`, `{"limits":[],"kinds":[]}`},
		"muster admin limit reset x --json":     {"", "null"},
		"muster admin override list --json":     {`{"overrides":[],"next":""}`, `[]`},
		"muster admin override remove x --json": {"", "null"},
		"muster admin finding list --json":      {`{"findings":[]}`, `[]`},
		"muster admin audit list --json":        {`{"entries":[],"next":"n"}`, `{"entries":[],"next":"n"}`},
	} {
		var got, want any
		printed := (&asked{answer: c.answer}).muster(t, line)
		if err := json.Unmarshal([]byte(printed), &got); err != nil {
			t.Errorf("%s: %v in %s", line, err, printed)
			continue
		}
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %s, want %s", line, printed, c.want)
		}
	}
}

// A list of many is gathered from all its pages.
func TestBanListOfManyPages(t *testing.T) {
	answers := map[string]string{"": `{"bans":[` + aBan + `],"next":"203.0.113.9"}`, "203.0.113.9": `{"bans":[` + aLimiterBan + `}],"next":""}`}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, answers[r.URL.Query().Get("after")])
	}))
	defer s.Close()
	all, list, err := pages[ban](server{URL: s.URL, Token: "token"}, &globals{}, "/bans", "bans", "after", url.Values{})
	if err != nil || len(all) != 2 || len(list) != 2 || list[0].By != "jane" || list[1].Limit != "login" {
		t.Errorf("got %s, %v", all, err)
	}
}

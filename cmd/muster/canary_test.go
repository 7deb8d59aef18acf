package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCanaryCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list.txt")
	if err := os.WriteFile(file, []byte("8.8.8.8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const (
		aCanary  = `{"id":"misp:x/8.8.8.8","kind":"address","value":"8.8.8.8","origin":"misp:x","reason":"resolver","created_at":"2026-11-20T12:00:00Z","by":"jane"}`
		builtIn  = `{"id":"built-in/1.1.1.1","kind":"address","value":"1.1.1.1","origin":"built-in","reason":"resolver","created_at":null,"by":""}`
		imported = `{"lists":[{"origin":"list:x","canaries":2,"skipped":[{"reason":"too wide a range","count":3,"example":"0.0.0.0/0"},{"reason":"there more than once","count":1,"example":""}]}]}`
	)
	for _, c := range []struct {
		line, answer  string
		request, body string // what is asked
		prints        string // lines that must be there, blanks in them as one
	}{
		{
			"muster admin canary list", `{"canaries":[` + builtIn + `,` + aCanary + `],"next":""}`, "GET /canaries?limit=1000&origin=&search=", "",
			"CANARY ORIGIN SINCE BY REASON\n1.1.1.1 built-in resolver\n8.8.8.8 misp:x 2026-11-20T12:00:00Z jane resolver",
		},
		{"muster admin canary list --search 8.8 --origin misp:x", `{"canaries":[],"next":""}`, "GET /canaries?limit=1000&origin=misp%3Ax&search=8.8", "", "CANARY"},
		{"muster admin canary list --json", `{"canaries":[` + builtIn + `],"next":""}`, "GET /canaries?limit=1000&origin=&search=", "", `"value": "1.1.1.1"`},
		{
			"muster admin canary add 192.0.2.0/24 --reason ours", `[]`, "POST /canaries", `{"reason":"ours","values":["192.0.2.0/24"]}`,
			"Canary added.",
		},
		{"muster admin canary add AS1 AS2 --reason ours", `[]`, "POST /canaries", `{"reason":"ours","values":["AS1","AS2"]}`, "2 canaries added."},
		{"muster admin canary add AS1", "", "", "", "muster: missing flags: --reason"},
		{"muster admin canary remove 192.0.2.0/24 --reason sold", "", "DELETE /canaries/192.0.2.0%2F24?reason=sold", "", "Canary removed."},
		{"muster admin canary remove *.example.org", "", "DELETE /canaries/%2A.example.org?reason=", "", "Canary removed."},
		{
			"muster admin canary import " + file, imported, "POST /canaries/import?dry_run=false&file=list.txt&reason=", "8.8.8.8",
			"list:x: 2 canaries imported.\n3 left out: too wide a range (0.0.0.0/0)\n1 left out: there more than once",
		},
		{
			"muster admin canary import " + file + " --list a --list b --dry-run --reason x", imported,
			"POST /canaries/import?dry_run=true&file=list.txt&list=a&list=b&reason=x", "8.8.8.8", "list:x: 2 canaries would be imported.",
		},
		{"muster admin canary import " + file + " --json", imported, "POST /canaries/import?dry_run=false&file=list.txt&reason=", "8.8.8.8", `"example": "0.0.0.0/0"`},
		{"muster admin canary import " + file + "x", "", "", "", "no such file"},
		{"muster admin canary drop --origin misp:x --reason old", `{"removed":7}`, "DELETE /canaries?origin=misp%3Ax&reason=old", "", "7 canaries removed."},
		{"muster admin canary drop", "", "", "", "muster: missing flags: --origin"},
		{"muster admin canary drop --origin=", "", "", "", "muster: --origin: expected"},
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

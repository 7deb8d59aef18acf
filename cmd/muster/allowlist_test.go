package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAllowlistCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list.txt")
	if err := os.WriteFile(file, []byte("# ours\n198.51.100.7 # Berlin\n\nAS64496\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const (
		aList = `{"id":"i","name":"office","description":"Berlin","central":false,"organisation":"o1","targets":[{"kind":"tag","id":"web"}],` +
			`"items":2,"ranges":3,"bytes":99,"machines":4,"withdrawing":0}`
		aCentral = `{"id":"central","name":"central","description":"","central":true,"organisation":"","targets":[],"items":1,"ranges":1,"bytes":9,"machines":7,"withdrawing":0}`
		items    = `[{"value":"198.51.100.7","ranges":1},{"value":"AS64496","ranges":2}]`
		aHit     = `[{"list":"i","name":"office","central":false,"organisation":"o1","value":"AS64496","range":"198.51.100.0/24","reason":"ours","until":null}]`
	)
	for _, c := range []struct {
		line, answer  string
		request, body string // what is asked
		prints        string // lines that must be there, blanks in them as one
	}{
		{"muster admin allowlist list", `[]`, "GET /allowlists?organisation=", "", "There is no allowlist yet. Make one: muster admin allowlist create office"},
		{
			"muster admin allowlist list --org o1", `[` + aCentral + `,` + aList + `]`, "GET /allowlists?organisation=o1", "",
			"ID NAME ORGANISATION FOR ITEMS RANGES MACHINES DESCRIPTION\ncentral central - no engine 1 1 7\ni office o1 tag web 2 3 4 Berlin",
		},
		{"muster admin allowlist list --json", `[` + aList + `]`, "GET /allowlists?organisation=", "", `"name": "office"`},
		{
			"muster admin allowlist create office", aList, "POST /allowlists",
			`{"central":false,"description":"","name":"office","organisation":"","reason":""}`, "Allowlist office made, for tag web.\nIts id: i",
		},
		{
			`muster admin allowlist create office --org o1 --description x --all --tag web --machine m1 --integration f --reason y`, aList, "POST /allowlists",
			`{"central":false,"description":"x","name":"office","organisation":"o1","reason":"y","targets":[{"kind":"organisation"},{"kind":"tag","id":"web"},{"kind":"machine","id":"m1"},{"kind":"integration","id":"f"}]}`,
			"made",
		},
		{"muster admin allowlist create partners --central", `{"id":"p","name":"partners","central":true}`, "POST /allowlists", `{"central":true,"description":"","name":"partners","organisation":"","reason":""}`, "for everybody"},
		{"muster admin allowlist set office", "", "", "", "muster: nothing to change"},
		{"muster admin allowlist set office --nobody --all", "", "", "", "muster: --nobody: expected no --all"},
		{"muster admin allowlist set office --nobody --org o1", aList, "PATCH /allowlists/office?organisation=o1", `{"reason":"","targets":[]}`, "Allowlist changed."},
		{"muster admin allowlist set office --name bureau --tag a --reason x", aList, "PATCH /allowlists/office", `{"name":"bureau","reason":"x","targets":[{"kind":"tag","id":"a"}]}`, "changed"},
		{
			"muster admin allowlist add office 198.51.100.7 AS64496 --reason ours --ttl 7d", items, "POST /allowlists/office/items",
			`{"reason":"ours","ttl_seconds":604800,"values":["198.51.100.7","AS64496"]}`, "2 items on allowlist office, standing for 3 addresses and ranges.",
		},
		{"muster admin allowlist add office --file " + file, items, "POST /allowlists/office/items", `{"reason":"","ttl_seconds":0,"values":["198.51.100.7","AS64496"]}`, "2 items"},
		{"muster admin allowlist add office", "", "", "", "muster: expected something to put on the list, or --file"},
		{"muster admin allowlist add office --file " + file + "x", "", "", "", "no such file"},
		{"muster admin allowlist remove office 198.51.100.0/24 --reason sold", "", "DELETE /allowlists/office/items/198.51.100.0%2F24?reason=sold", "", "Off the allowlist."},
		{"muster admin allowlist delete office --org o1", "", "DELETE /allowlists/office?organisation=o1&reason=", "", "Allowlist deleted."},
		{"muster admin allowlist check 198.51.100.7", `[]`, "GET /allowed/198.51.100.7?organisation=", "", "No allowlist lets 198.51.100.7 through."},
		{
			"muster admin allowlist check 198.51.100.7 --org o1", aHit, "GET /allowed/198.51.100.7?organisation=o1", "",
			"ALLOWLIST ORGANISATION ITEM BY RANGE UNTIL REASON\noffice o1 AS64496 198.51.100.0/24 never ours",
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

// Showing asks twice: for the list, and for what is on it.
func TestShowAllowlist(t *testing.T) {
	for answer, want := range map[string]string{
		`{"id":"i"}`: "the server's answer could not be read",
	} {
		a := &asked{answer: answer}
		if got := a.muster(t, "muster admin allowlist show office"); !strings.Contains(got, want) || a.request != "GET /allowlists/office/items" {
			t.Errorf("%s: %s after %s", answer, got, a.request)
		}
	}
}

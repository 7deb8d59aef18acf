package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLookupCommands(t *testing.T) {
	const (
		item = `{"ip":"45.83.64.1","reputation":"malicious","confidence":"high","background_noise":"low","background_noise_score":1,"ip_range":"45.83.64.0/22",` +
			`"ip_range_score":2,"ip_range_24":"45.83.64.0/24","ip_range_24_score":3,"as_name":"Example","as_num":64499,"location":{"country":"NL"},` +
			`"behaviors":[{"name":"ssh:bruteforce","label":"SSH Bruteforce"}],"attack_details":[{"name":"crowdsecurity/ssh-bf","label":"SSH Bruteforce"}],` +
			`"cves":["CVE-2017-9841"],"classifications":{"false_positives":[],"classifications":[{"name":"community-blocklist","label":"Community blocklist"}]},` +
			`"history":{"first_seen":"2026-10-30T16:30:00+00:00","last_seen":"2026-11-20T11:30:00+00:00"},"target_countries":{"DE":58,"FR":25},` +
			`"scores":{"last_day":{"total":5,"aggressiveness":4,"threat":3,"trust":2}}}`
		safe = `{"ip":"8.8.8.8","reputation":"safe","confidence":"high","classifications":{"false_positives":[{"name":"dns:public","label":"Public DNS resolver"}]}}`
		key  = `{"id":"k1","name":"siem","organisation":"o1","per_day":50,"used_today":3,"used_month":7,"key":"mlk_secret"}`
	)
	for _, c := range []struct{ line, answer, request, body, prints string }{
		{
			"muster admin lookup 45.83.64.1", item, "GET /lookup/45.83.64.1", "",
			"Address 45.83.64.1\nReputation malicious (confidence: high)\nClasses Community blocklist\nBackground noise low (1 of 10)\n" +
				"Seen 2026-10-30T16:30:00Z to 2026-11-20T11:30:00Z\nBehaviours SSH Bruteforce\nScenarios crowdsecurity/ssh-bf\nCVEs CVE-2017-9841\nTargets DE 58 %, FR 25 %\n" +
				"Network AS64499, Example, NL, 45.83.64.0/22: 2 of 5\nNeighbours 45.83.64.0/24: 3 of 5\nlast day 5 4 3 2",
		},
		{"muster admin lookup 8.8.8.8", safe, "GET /lookup/8.8.8.8", "", "Known to be Public DNS resolver"},
		{"muster admin lookup 2a00::1 --json", safe, "GET /lookup/2a00::1", "", `"reputation": "safe"`},
		{
			"muster admin lookup-key create siem --org o1 --per-day 50", key, "POST /lookup-keys",
			`{"name":"siem","organisation":"o1","per_day":50,"per_month":0}`, "The key, shown only now: mlk_secret",
		},
		{"muster admin lookup-key list", `[` + key + `]`, "GET /lookup-keys", "", "k1 siem o1 3 of 50 7 in force"},
		{"muster admin lookup-key list", `[{"id":"k1","revoked_at":"2026-11-20T12:00:00Z"}]`, "GET /lookup-keys", "", "revoked 2026-11-20T12:00:00Z"},
		{"muster admin lookup-key list", `[]`, "GET /lookup-keys", "", "There are no lookup keys. Make one: muster admin lookup-key create NAME"},
		{"muster admin lookup-key revoke k1", "", "DELETE /lookup-keys/k1", "", "Lookup key revoked."},
		{"muster admin dump", `{"ip":"45.83.64.1"}`, "GET /dump/jsonl", "", `{"ip":"45.83.64.1"}`},
		{"muster admin dump --format xml", "", "", "", "mmdb"},
	} {
		a := &asked{answer: c.answer}
		printed := strings.Join(strings.Fields(a.muster(t, c.line)), " ")
		for _, line := range strings.Split(c.prints, "\n") {
			if !strings.Contains(printed, line) {
				t.Errorf("%s: no %q in %s", c.line, line, printed)
			}
		}
		if a.request != c.request || strings.TrimSpace(a.body) != c.body {
			t.Errorf("%s: asked %s %s, expected %s %s", c.line, a.request, a.body, c.request, c.body)
		}
	}
	if printed := (&asked{answer: safe}).muster(t, "muster admin lookup 8.8.8.8"); strings.Contains(printed, "SCORES") {
		t.Errorf("scores of what is safe: %s", printed)
	}
}

// A dump takes the place of the one before when it is whole.
func TestDumpToFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "muster.mmdb")
	for _, content := range []string{"one", "two"} {
		if printed := (&asked{answer: content}).muster(t, "muster admin dump --format mmdb -o "+file); printed != "" {
			t.Fatal(printed)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != content {
			t.Errorf("%q, %v", got, err)
		}
	}
	if printed := (&asked{}).muster(t, "muster admin dump -o "+file); !strings.Contains(printed, "204") {
		t.Errorf("no dump: %s", printed)
	}
	left, err := os.ReadDir(dir)
	if got, _ := os.ReadFile(file); err != nil || len(left) != 1 || string(got) != "two" {
		t.Errorf("%v, %q, %v", left, got, err)
	}
}

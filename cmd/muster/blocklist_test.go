package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBlocklistCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list.csv")
	if err := os.WriteFile(file, []byte("198.51.100.7,scanner,7d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const (
		custom = `{"id":"i1","name":"office","label":"Kept by the office","description":"","kind":"custom","built_in":false,"organisation":"","shared_with":["*"],"remedy":"ban",` +
			`"lifetime_seconds":21600,"size":3,"subscriptions":2,"note":"","rule":null,"feed":null,"created_at":"2026-11-20T12:00:00Z","created_by":"jane"}`
		rule = `{"id":"muster-fresh","name":"muster-fresh","label":"Listed within a day","description":"x","kind":"rule","built_in":true,"shared_with":[],"remedy":"ban","lifetime_seconds":21600,` +
			`"size":null,"subscriptions":0,"note":"","rule":{"behaviours":["ssh"],"scenarios":[],"countries":["DE","FR"],"asns":[64496],"since_seconds":86400,"own":true,"remedy":"captcha","top":5},"feed":null}`
		feed = `{"id":"i2","name":"drop","label":"drop","description":"","kind":"feed","remedy":"ban","lifetime_seconds":21600,"size":2,"subscriptions":0,"note":"waits","rule":null,` +
			`"feed":{"url":"https://example.org/","format":"","interval_seconds":3600,"max":9,"swing":2,"forbidden":100,"keep_seconds":86400,"hold":false,"state":` + state + `}}`
		aSubscription = `[{"blocklist":"i1","name":"office","kind":"tag","subscriber":"web","organisation":"o1","remedy":"captcha","created_at":"2026-11-20T12:00:00Z","created_by":"jane"}]`
	)
	for _, c := range []struct {
		line, answer  string
		request, body string // what is asked
		prints        string // lines that must be there, blanks in them as one
	}{
		{
			"muster admin blocklist list", "[" + custom + "," + rule + "]", "GET /blocklists", "",
			"NAME KIND REMEDY ENTRIES SUBSCRIPTIONS LABEL NOTE office custom ban 3 2 Kept by the office muster-fresh rule ban ? 0 Listed within a day",
		},
		{"muster admin blocklist show office", custom, "GET /blocklists/office", "", "name: office id: i1 label: Kept by the office kind: custom shared with: * remedy: ban kept by engines for: 6h0m0s entries: 3 subscriptions: 2"},
		{
			"muster admin blocklist show muster-fresh", rule, "GET /blocklists/muster-fresh", "",
			"chooses: behaviours ssh; countries DE, FR; AS64496; listed within 24h0m0s; seen by the subscriber's own organisation; for which captcha is right; the best 5",
		},
		{
			"muster admin blocklist show drop", feed, "GET /blocklists/drop", "",
			"url: https://example.org/ fetched every: 1h0m0s format: plain tried: never good: never next: 2026-11-20T13:00:00Z in force: 2 entries passed over: 4 values that are no address, too wide or reserved " +
				"dropped: 5 entries that are allowlisted or canaries waits for a word: 9 entries: it grew problem: waits note: waits",
		},
		{"muster admin blocklist show office --json", custom, "GET /blocklists/office", "", `"lifetime_seconds": 21600`},
		{
			`muster admin blocklist create office --label "Kept by the office" --org A --share B --share C --remedy captcha --lifetime 12h --reason x`, custom, "POST /blocklists",
			`{"kind":"custom","label":"Kept by the office","lifetime_seconds":43200,"name":"office","organisation":"A","reason":"x","remedy":"captcha","shared_with":["B","C"]}`, "Blocklist made.",
		},
		{
			"muster admin blocklist create mine --behaviour ssh --scenario a/* --country de --as 64496 --since 7d --own --for ban --top 9", custom, "POST /blocklists",
			`{"kind":"rule","name":"mine","rule":{"behaviours":["ssh"],"scenarios":["a/*"],"countries":["DE"],"asns":[64496],"since_seconds":604800,"own":true,"remedy":"ban","top":9}}`, "Blocklist made.",
		},
		{"muster admin blocklist create all --rule", custom, "POST /blocklists", `{"kind":"rule","name":"all","rule":null}`, "Blocklist made."},
		{"muster admin blocklist create a --lifetime x", "", "", "", "muster: --lifetime: "},
		{"muster admin blocklist create a --since x", "", "", "", "muster: --since: "},
		{"muster admin blocklist set office --description= --top 5", custom, "PATCH /blocklists/office", `{"description":"","rule":{"top":5}}`, "Blocklist changed."},
		{"muster admin blocklist set office", "", "", "", "muster: nothing to change"},
		{"muster admin blocklist delete office --reason old", "", "DELETE /blocklists/office?reason=old", "", "Blocklist deleted."},
		{
			"muster admin blocklist entries list office", `{"entries":[{"value":"198.51.100.7","until":"2026-11-20T13:00:00Z","comment":"scanner","added_by":"jane"},{"value":"198.51.100.8","until":null,"scenario":"a/b"}],"next":""}`,
			"GET /blocklists/office/entries?limit=1000", "", "ENTRY UNTIL BY ABOUT 198.51.100.7 2026-11-20T13:00:00Z jane scanner 198.51.100.8 never a/b",
		},
		{"muster admin blocklist entries list office --org A", `{"entries":[],"next":""}`, "GET /blocklists/office/entries?limit=1000&organisation=A", "", "Nothing is on this list."},
		{
			"muster admin blocklist entries add office 198.51.100.7 198.51.100.0/24 --ttl 1d --comment x --reason y", `{"entries":2,"skipped":0,"example":"","withheld":1,"examples":["198.51.100.7"]}`,
			"POST /blocklists/office/entries", `{"entries":[{"comment":"x","ttl_seconds":86400,"value":"198.51.100.7"},{"comment":"x","ttl_seconds":86400,"value":"198.51.100.0/24"}],"reason":"y"}`,
			"2 entries put on the list. 1 of them nobody is sent, as long as they are reserved, allowlisted or canaries (198.51.100.7)",
		},
		{"muster admin blocklist entries add office", "", "", "", "muster: expected"},
		{
			"muster admin blocklist entries remove office 198.51.100.0/24 --at-once --reason y", `{"removed":1}`,
			"DELETE /blocklists/office/entries?at_once=true&reason=y&value=198.51.100.0%2F24", "", "1 entries taken off the list.",
		},
		{
			"muster admin blocklist entries upload office " + file + " --replace", `{"entries":1,"skipped":2,"example":"x","withheld":0,"examples":[]}`,
			"POST /blocklists/office/upload?reason=&replace=true", "198.51.100.7,scanner,7d", "1 entries put on the list. 2 lines passed over: no address or range, too wide, or ended (x)",
		},
		{"muster admin blocklist entries upload office " + file + "x", "", "", "", "no such file"},
		{
			"muster admin blocklist feed add drop https://example.org/ --format csv:ip --interval 1h --max 9 --swing 1.5 --forbidden 3 --keep 2d --hold", feed, "POST /blocklists",
			`{"feed":{"url":"https://example.org/","format":"csv:ip","interval_seconds":3600,"max":9,"swing":1.5,"forbidden":3,"keep_seconds":172800,"hold":true},"kind":"feed","name":"drop"}`,
			"Feed added; it is fetched within a minute.",
		},
		{"muster admin blocklist feed fetch-now drop", state, "POST /blocklists/drop/fetch", "", "in force: 2 entries"},
		{"muster admin blocklist feed approve drop --reason y", state, "POST /blocklists/drop/approve", `{"reason":"y"}`, "in force: 2 entries"},
		{"muster admin blocklist feed discard drop", state, "POST /blocklists/drop/discard", `{"reason":""}`, "in force: 2 entries"},
		{
			"muster admin blocklist feed hold drop", feed, "PATCH /blocklists/drop",
			`{"feed":{"url":"https://example.org/","interval_seconds":3600,"max":9,"swing":2,"forbidden":100,"keep_seconds":86400,"hold":true},"reason":""}`, "New versions wait for your word",
		},
		{"muster admin blocklist feed hold office", custom, "GET /blocklists/office", "", "muster: office is a custom list: only feeds are fetched"},
		{
			"muster admin blocklist stats office", `{"size":10,"subscriptions":1,"two_days":{"added":1,"removed":2},"thirty_days":{"added":3,"removed":4},"hits":{"packet":7},` +
				`"overlaps":[{"blocklist":"community","entries":5,"share":0.5}],"days":[]}`, "GET /blocklists/office/statistics", "",
			"entries: 10 subscriptions: 1 within 2 days: 1 came, 2 went within 30 days: 3 came, 4 went kept out: 7 packets within 30 days shares: 5 entries (50 %) with community",
		},
		{"muster admin subscription list", `[]`, "GET /subscriptions?blocklist=&organisation=", "", "Nobody subscribes."},
		{
			"muster admin subscription list --blocklist office --org A", aSubscription, "GET /subscriptions?blocklist=office&organisation=A", "",
			"BLOCKLIST KIND SUBSCRIBER ORGANISATION REMEDY SINCE BY office tag web o1 captcha 2026-11-20T12:00:00Z jane",
		},
		{
			"muster admin subscription add office --tag web --org A --remedy captcha --reason y", aSubscription, "POST /subscriptions",
			`{"blocklist":"office","kind":"tag","organisation":"A","reason":"y","remedy":"captcha","subscriber":"web"}`, "Subscribed.",
		},
		{
			"muster admin subscription add office --org A", aSubscription, "POST /subscriptions",
			`{"blocklist":"office","kind":"organisation","organisation":"","reason":"","remedy":"","subscriber":"A"}`, "Subscribed.",
		},
		{"muster admin subscription add office --machine m --tag t", "", "", "", "muster: --machine and --tag can't be used together"},
		{"muster admin subscription add office", "", "", "", "muster: expected who reads the list"},
		{
			"muster admin subscription remove office --integration i1 --org A", "",
			"DELETE /subscriptions?blocklist=office&kind=integration&organisation=A&reason=&subscriber=i1", "", "Subscription ended.",
		},
	} {
		a := &asked{answer: c.answer}
		printed := strings.Join(strings.Fields(a.muster(t, c.line)), " ")
		if !strings.Contains(printed, c.prints) {
			t.Errorf("%s: no %q in\n%s", c.line, c.prints, printed)
		}
		if a.request != c.request || strings.TrimSpace(a.body) != c.body {
			t.Errorf("%s: asked  %s %s\nwant %s %s", c.line, a.request, a.body, c.request, c.body)
		}
	}
}

const state = `{"format":"plain","tried_at":null,"good_at":null,"changed_at":null,"next_at":"2026-11-20T13:00:00Z","failures":0,"problem":"waits","size":2,"skipped":4,"forbidden":5,` +
	`"held_at":"2026-11-20T12:00:00Z","held_size":9,"held_reason":"it grew"}`

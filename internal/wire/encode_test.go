package wire

import (
	"encoding/json"
	"testing"
	"time"

	"muster"
)

var at = time.Date(2026, 11, 20, 22, 11, 55, 987654321, time.FixedZone("CET", 3600))

func TestEncodedAnswers(t *testing.T) {
	for name, got := range map[string][]byte{
		"login":             AppendLogin(nil, "eyJhbGciOiJFZERTQSJ9.e30.c2ln", at),
		"ok":                []byte(OK),
		"message":           AppendMessage(nil, "the security engine is already enrolled"),
		"error":             AppendError(nil, `no "machine_id"`, ""),
		"error-details":     AppendError(nil, "invalid body", "field machine_id: expected a string, got a number"),
		"enrol-link":        AppendEnrolLink(nil, "https://muster.example/accept?code=a&b", at),
		"permissions":       AppendPermissions(nil, muster.Enterprise),
		"papi-error":        AppendPAPIError(nil, "Forbidden for plan ''"),
		"papi-timeout":      AppendPollTimeout(nil, at),
		"papi-no-events":    AppendEvents(nil, nil),
		"stream-v3-empty":   first(AppendStreamV3(nil, Stream{})),
		"stream-v2-empty":   first(AppendStreamV2(nil, Stream{})),
		"stream-v3":         first(AppendStreamV3(nil, sampleStream())),
		"stream-v2":         first(AppendStreamV2(nil, sampleStream())),
		"force-pull":        ForcePullData(),
		"reauth":            ReauthData(),
		"decision-delete":   must(DecisionDeleteData([]string{"9424f01a-4ad4-4d93-a808-3236842a7bdf"})),
		"alert-add":         must(AlertAddData(sampleAlert())),
		"pull-blocklist":    must(ForcePullBlocklistData(sampleStream().Links.Blocklists[0])),
		"pull-allowlist":    must(ForcePullAllowlistData(sampleStream().Links.Allowlists[0])),
		"unsubscribe":       must(BlocklistUnsubscribeData("tor & friends")),
		"unsubscribe-allow": must(AllowlistUnsubscribeData("id-1", "office")),
	} {
		t.Run(name, func(t *testing.T) { golden(t, name+".golden.json", got) })
	}
}

func first(b []byte, _ int) []byte { return b }

func must(data json.RawMessage, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

func source(s string) muster.Source {
	src, err := muster.ParseSource(s)
	if err != nil {
		panic(err)
	}
	return src
}

func sampleStream() Stream {
	return Stream{
		New: []Group{
			{Scenario: "crowdsecurity/ssh-bf", Scope: "ip", Decisions: []Entry{
				{Value{Source: source("23.1.2.3")}, 72 * time.Hour},
				{Value{Source: source("2a00:1:2::3")}, 71*time.Hour + 59*time.Minute + 59*time.Second + 999*time.Millisecond},
				{Value{Text: " ::ffff:23.1.2.4 "}, time.Second},
			}},
			{Scenario: "crowdsecurity/http-probing", Scope: "range", Decisions: []Entry{
				{Value{Source: source("23.4.5.6/24")}, 24 * time.Hour},
			}},
			{Scenario: "policy/country", Scope: "Country", Decisions: []Entry{{Value{Text: "XX"}, 90 * time.Minute}}},
		},
		Deleted: []DeletedGroup{
			{Scope: "ip", Values: []Value{{Source: source("23.9.9.9")}, {Source: source("23.9.9.8")}}},
			{Scope: "Country", Values: []Value{{Text: "YY"}}},
		},
		Links: Links{
			Blocklists: []BlocklistLink{{Name: "tor", URL: "https://muster.example/b/tor?s=1&e=2", Remediation: "captcha", Scope: "ip", Duration: 24 * time.Hour}},
			Allowlists: []AllowlistLink{{ID: "0190-a", Name: "office", URL: "https://muster.example/a/office", CreatedAt: at, UpdatedAt: at.Add(time.Hour)}},
		},
	}
}

func TestAppendStringIsWhatTheStandardLibraryReads(t *testing.T) {
	for _, s := range []string{"", "plain", "q\"b\\s/", "\x00\x1f\n\r\t\x7f", "é€😀\u2028", "bad\xff\xc3(", "\xed\xa0\x80", "end\xe2\x82"} {
		var got string
		if err := json.Unmarshal(AppendString(nil, s), &got); err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		var want string
		_ = json.Unmarshal(mustJSON(t, s), &want)
		if got != want {
			t.Errorf("%q: expected %q, got %q", s, want, got)
		}
	}
}

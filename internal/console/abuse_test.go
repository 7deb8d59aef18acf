package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/abuse"
	"muster/internal/ratelimit"
)

// limiterBan is a ban as the limiter makes it.
func limiterBan(t testing.TB, address string) ratelimit.Ban {
	t.Helper()
	p, err := ratelimit.ParsePrefix(address)
	if err != nil {
		t.Fatal(err)
	}
	return ratelimit.Ban{
		Prefix: p, Scope: ratelimit.ScopeAll, Reason: "more than 20 logins in 50 minutes from one address", Limit: "login-sharing-enrolled",
		Since: now, Until: now.Add(time.Hour), Extend: time.Hour,
	}
}

func TestAddBan(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want string // or a part of the fault
	}{
		"until lifted": {
			`{"address":"203.0.113.9","reason":" floods us "}`,
			`{"address":"203.0.113.9","scope":"all","reason":"floods us","limit":"","since":"2026-11-20T12:00:00Z","until":null,"extends_seconds":0,"by":"local administrator"}`,
		},
		"a v6 address is its line": {
			`{"address":"2001:db8::9","reason":"x","scope":"login","ttl_seconds":60}`,
			`{"address":"2001:db8::/64","scope":"login","reason":"x","limit":"","since":"2026-11-20T12:00:00Z","until":"2026-11-20T12:01:00Z","extends_seconds":0,"by":"local administrator"}`,
		},
		"retries extend": {
			`{"address":"203.0.113.77/24","reason":"x","ttl_seconds":3600,"extend_on_retry":true}`,
			`{"address":"203.0.113.0/24","scope":"all","reason":"x","limit":"","since":"2026-11-20T12:00:00Z","until":"2026-11-20T13:00:00Z","extends_seconds":3600,"by":"local administrator"}`,
		},
		"nothing":                  {`{}`, "address: expected an address or a range"},
		"no address":               {`{"address":"web1","reason":"x"}`, `got \"web1\"`},
		"a range too wide":         {`{"address":"10.0.0.0/7","reason":"x"}`, "expected /8 or narrower"},
		"no reason":                {`{"address":"203.0.113.9"}`, "reason: expected one line of 1 to 500 bytes, got 0"},
		"a blank reason":           {`{"address":"203.0.113.9","reason":" "}`, "reason: expected one line"},
		"an endless reason":        {`{"address":"203.0.113.9","reason":"` + strings.Repeat("x", 501) + `"}`, "got 501 bytes"},
		"a reason of two lines":    {`{"address":"203.0.113.9","reason":"a\nb"}`, "reason: expected one line"},
		"a reason for a terminal":  {`{"address":"203.0.113.9","reason":"\u001b[2J"}`, "reason: expected one line"},
		"a scope that is none":     {`{"address":"203.0.113.9","reason":"x","scope":"pull"}`, `scope: expected \"all\" or \"login\", got \"pull\"`},
		"an empty scope":           {`{"address":"203.0.113.9","reason":"x","scope":""}`, "scope: expected"},
		"a lifetime of less":       {`{"address":"203.0.113.9","reason":"x","ttl_seconds":-1}`, "ttl_seconds: expected"},
		"no end to extend":         {`{"address":"203.0.113.9","reason":"x","extend_on_retry":true}`, "no end to move: give ttl_seconds"},
		"an extension too long":    {`{"address":"203.0.113.9","reason":"x","ttl_seconds":99999999,"extend_on_retry":true}`, "extension: expected"},
		"a fault beside another":   {`{"address":"10.0.0.0/7","reason":"x","scope":"y"}`, `narrower; ban of 10.0.0.0/7: scope: expected`},
		"a field that is unknown":  {`{"address":"203.0.113.9","reason":"x","extend":true}`, `unknown field \"extend\"`},
		"an address with its zone": {`{"address":"fe80::1%eth0","reason":"x"}`, "expected an address or a range"},
	} {
		r := newRig(t)
		if !strings.HasPrefix(c.want, "{") {
			r.want(400, c.want, "POST", "/api/v1/bans", c.body)
			if len(r.guard.bans) != 0 {
				t.Errorf("%s: banned all the same", name)
			}
			continue
		}
		if a := r.want(200, "", "POST", "/api/v1/bans", c.body); a.body != c.want {
			t.Errorf("%s: got  %s\nwant %s", name, a.body, c.want)
		}
		if len(r.guard.by) != 1 || r.guard.by[0].User != "local administrator" || !strings.Contains(c.want, r.guard.by[0].Reason) {
			t.Errorf("%s: audited as %+v", name, r.guard.by)
		}
	}
	r := newRig(t)
	r.guard.fail = muster.Errorf(muster.Unavailable, "the table of bans is full")
	r.want(503, "table of bans is full", "POST", "/api/v1/bans", `{"address":"203.0.113.9","reason":"x"}`)
}

func TestListBans(t *testing.T) {
	r := newRig(t)
	if a := r.want(200, "", "GET", "/api/v1/bans", ""); a.body != `{"bans":[],"next":""}` {
		t.Errorf("without bans: %s", a.body)
	}
	for _, address := range []string{"203.0.113.10", "203.0.113.9", "2001:db8::/64", "203.0.113.0/24", "9.9.9.9", "2001:db8::/32"} {
		r.guard.bans = append(r.guard.bans, limiterBan(t, address))
	}
	r.guard.bans[4].Reason, r.guard.bans[4].Limit, r.guard.bans[4].By = "Floods", "", "jane"
	get := func(query string) (addresses []string, next string) {
		t.Helper()
		var page struct {
			Bans []banView
			Next string
		}
		r.want(200, "", "GET", "/api/v1/bans"+query, "").into(t, &page)
		for _, b := range page.Bans {
			addresses = append(addresses, b.Address)
		}
		return addresses, page.Next
	}
	ordered := []string{"9.9.9.9", "203.0.113.0/24", "203.0.113.9", "203.0.113.10", "2001:db8::/32", "2001:db8::/64"}
	if all, next := get(""); !slices.Equal(all, ordered) || next != "" {
		t.Errorf("got %q, next %q; want %q", all, next, ordered)
	}
	for _, size := range []int{1, 2, 3, 4, 6} {
		var all []string
		after, pages := "", 0
		for done := false; !done && pages < 10; pages++ {
			page, next := get(fmt.Sprintf("?limit=%d&after=%s", size, after))
			all, after, done = append(all, page...), next, next == ""
		}
		if !slices.Equal(all, ordered) || pages != (len(ordered)+size-1)/size {
			t.Errorf("in pages of %d: %d pages of %q", size, pages, all)
		}
	}
	for search, want := range map[string][]string{
		"203.0.113.9":     {"203.0.113.0/24", "203.0.113.9"}, // what refuses it
		"203.0.113.0/28":  {"203.0.113.0/24", "203.0.113.9", "203.0.113.10"},
		"2001:db8::77":    {"2001:db8::/32", "2001:db8::/64"},
		"2001:db8:1::/48": {"2001:db8::/32"},
		"198.51.100.1":    nil,
		"113.1":           {"203.0.113.10"}, // a part of the text
		"FLOODS":          {"9.9.9.9"},
		"jane":            {"9.9.9.9"},
		"login-sharing":   ordered[1:],
	} {
		if got, _ := get("?search=" + search); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", search, got, want)
		}
	}
	r.want(400, "after: expected the next of an earlier page", "GET", "/api/v1/bans?after=x", "")
	r.want(400, "limit: expected a number", "GET", "/api/v1/bans?limit=0", "")
}

func TestShowBan(t *testing.T) {
	r := newRig(t)
	r.guard.bans = []ratelimit.Ban{limiterBan(t, "203.0.113.0/24"), limiterBan(t, "198.51.100.7")}
	r.guard.findings = []muster.Finding{
		{
			Kind: muster.RestartLoop, Severity: muster.Critical, Machine: "m1", Organisation: "org-a", Address: source("203.0.113.9"),
			Summary: "21 logins of m1", Evidence: []string{"12:00:00 login"}, Fix: "stop it", Count: 21, First: now, Last: now,
		},
		{Kind: muster.StatusProbe, Severity: muster.Warning, Address: source("198.51.100.7"), Summary: "another", First: now, Last: now},
	}
	ofRange := `{"address":"203.0.113.0/24","scope":"all","reason":"more than 20 logins in 50 minutes from one address","limit":"login-sharing-enrolled",` +
		`"since":"2026-11-20T12:00:00Z","until":"2026-11-20T13:00:00Z","extends_seconds":3600,"by":"","findings":[` +
		`{"kind":"restart-loop","severity":"critical","machine":"m1","organisation":"org-a","address":"203.0.113.9","summary":"21 logins of m1",` +
		`"evidence":["12:00:00 login"],"fix":"stop it","count":21,"first":"2026-11-20T12:00:00Z","last":"2026-11-20T12:00:00Z"}]}`
	for _, value := range []string{"203.0.113.9", "203.0.113.0/24", "::ffff:203.0.113.9"} {
		if a := r.want(200, "", "GET", "/api/v1/bans/"+value, ""); a.body != ofRange {
			t.Errorf("%s: got  %s\nwant %s", value, a.body, ofRange)
		}
	}
	r.want(200, `"address":"203.0.113.0/24"`, "GET", "/api/v1/bans/203.0.113.200", "")
	if a := r.want(200, "", "GET", "/api/v1/bans/203.0.113.200", ""); !strings.Contains(a.body, `"findings":[]`) {
		t.Errorf("another's findings: %s", a.body)
	}
	for _, value := range []string{"192.0.2.1", "203.0.113.0/25", "203.0.0.0/16"} {
		r.want(404, value+" is not banned: muster admin ban list shows who is", "GET", "/api/v1/bans/"+value, "")
	}
	r.want(400, "expected an address or a range", "GET", "/api/v1/bans/web1", "")
	r.want(400, "expected an address or a range", "GET", "/api/v1/bans/", "")
}

func TestLiftBan(t *testing.T) {
	r := newRig(t)
	r.guard.bans = []ratelimit.Ban{limiterBan(t, "203.0.113.9"), limiterBan(t, "203.0.113.0/24"), limiterBan(t, "2001:db8::/64")}
	r.want(400, "reason: expected one line", "DELETE", "/api/v1/bans/203.0.113.9", "")
	r.want(404, "192.0.2.1 is not banned", "DELETE", "/api/v1/bans/192.0.2.1?reason=x", "")
	r.want(404, "203.0.113.8 has no ban of its own, it is banned with 203.0.113.0/24: lift that one", "DELETE", "/api/v1/bans/203.0.113.8?reason=x", "")
	r.want(404, "203.0.0.0/16 is not banned", "DELETE", "/api/v1/bans/203.0.113.9/16?reason=x", "") // a narrower one does not make it so
	r.want(400, "expected an address or a range", "DELETE", "/api/v1/bans/web1?reason=x", "")
	if len(r.guard.bans) != 3 || len(r.guard.by) != 0 {
		t.Fatalf("%d bans, changed by %v", len(r.guard.bans), r.guard.by)
	}
	a := r.want(200, `"still_banned_by":"203.0.113.0/24"`, "DELETE", "/api/v1/bans/203.0.113.9?reason=it+is+mended", "")
	var was banView
	a.into(t, &was)
	if diff := cmp.Diff(viewBan(limiterBan(t, "203.0.113.9")), was); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if a := r.want(200, `"address":"203.0.113.0/24"`, "DELETE", "/api/v1/bans/203.0.113.0/24?reason=x", ""); strings.Contains(a.body, "still") {
		t.Errorf("it is let in: %s", a.body)
	}
	r.want(200, `"address":"2001:db8::/64"`, "DELETE", "/api/v1/bans/2001:db8::77?reason=x", "")
	want := []abuse.By{{User: "local administrator", Reason: "it is mended"}, {User: "local administrator", Reason: "x"}, {User: "local administrator", Reason: "x"}}
	if diff := cmp.Diff(want, r.guard.by); diff != "" || len(r.guard.bans) != 0 {
		t.Errorf("%d bans (-want +got):\n%s", len(r.guard.bans), diff)
	}
}

func TestLimits(t *testing.T) {
	r := newRig(t)
	var list struct {
		Limits []limitView
		Kinds  []string
	}
	a := r.want(200, `"kinds":["login","wrong-password","POST /signals"]`, "GET", "/api/v1/limits", "")
	first := `{"limits":[{"name":"login-not-sharing-not-enrolled","kind":"login","sharing":false,"enrolled":false,"per":"address","threshold":20,"window":"50m",` +
		`"ban":"1h","scope":"all","extend_on_retry":true,"exempt_plans":["SECOPS","ENTERPRISE"],"off":false,"set_at":null,"set_by":""},`
	if a.into(t, &list); !strings.HasPrefix(a.body, first) || len(list.Limits) != 5 || list.Limits[4].Sharing != nil {
		t.Errorf("got  %s\nwant %s", a.body, first)
	}

	// What is not named stays as it is in force.
	const path = "/api/v1/limits/login-sharing-enrolled"
	want, _ := r.limit("login-sharing-enrolled")
	set := func(body string, change func(*ratelimit.Limit)) {
		t.Helper()
		r.want(200, `"name":"login-sharing-enrolled"`, "PUT", path, body)
		change(&want)
		want.SetAt, want.SetBy = now, "local administrator"
		if got, _ := r.limit("login-sharing-enrolled"); !cmp.Equal(want, got) {
			t.Errorf("%s (-want +got):\n%s", body, cmp.Diff(want, got))
		}
	}
	set(`{"threshold":100,"reason":"a busy week"}`, func(l *ratelimit.Limit) { l.Threshold = 100 })
	set(`{"off":true}`, func(l *ratelimit.Limit) { l.Off = true })
	set(`{"off":false,"window":"1d12h"}`, func(l *ratelimit.Limit) { l.Off, l.Window = false, 36*time.Hour })
	set(`{"sharing":null}`, func(l *ratelimit.Limit) { l.Counted.Sharing = nil })
	no := false
	set(`{"enrolled":false,"exempt_plans":[]}`, func(l *ratelimit.Limit) { l.Counted.Enrolled, l.ExemptPlans = &no, []muster.Plan{} })
	set(`{"extend_on_retry":false,"scope":"login"}`, func(l *ratelimit.Limit) { l.Penalty.ExtendOnRetry, l.Penalty.Scope = false, ratelimit.ScopeLogin })
	set(`{"extend_on_retry":true,"ban":"90m"}`, func(l *ratelimit.Limit) { l.Penalty.ExtendOnRetry, l.Penalty.Ban = true, 90*time.Minute })
	set(`{"ban":"0"}`, func(l *ratelimit.Limit) { l.Penalty.ExtendOnRetry, l.Penalty.Ban = false, 0 })
	set(`{"kind":"POST /signals","per":"machine"}`, func(l *ratelimit.Limit) { l.Counted.Kind, l.Per = "POST /signals", ratelimit.PerMachine })
	set(`{}`, func(*ratelimit.Limit) {})
	if by := r.guard.by[0]; by != (abuse.By{User: "local administrator", Reason: "a busy week"}) {
		t.Errorf("audited as %+v", by)
	}

	// What the API gave may be sent back.
	sent, err := json.Marshal(list.Limits[3])
	if err != nil {
		t.Fatal(err)
	}
	r.want(200, `"threshold":20,"window":"50m","ban":"1h","scope":"all","extend_on_retry":true,"exempt_plans":["SECOPS","ENTERPRISE"]`, "PUT", path, string(sent))

	r.want(200, `"threshold":20,"window":"50m"`, "DELETE", path+"?reason=over", "")
	r.want(404, "was not changed", "DELETE", path, "")
	r.want(404, "was not changed", "DELETE", "/api/v1/limits/nothing", "")
	r.want(400, "reason: expected one line", "DELETE", path+"?reason=a%0ab", "")
}

func TestNewLimit(t *testing.T) {
	r := newRig(t)
	a := r.want(200, "", "PUT", "/api/v1/limits/pushes", `{"kind":"POST /signals","threshold":600,"window":"10m","ban":"1h"}`)
	want := `{"name":"pushes","kind":"POST /signals","sharing":null,"enrolled":null,"per":"address","threshold":600,"window":"10m","ban":"1h","scope":"all",` +
		`"extend_on_retry":true,"exempt_plans":[],"off":false,"set_at":"2026-11-20T12:00:00Z","set_by":"local administrator"}`
	if a.body != want {
		t.Errorf("got  %s\nwant %s", a.body, want)
	}
	r.want(200, `"ban":"0s","scope":"","extend_on_retry":false`, "PUT", "/api/v1/limits/gentle", `{"kind":"login","threshold":5,"window":"1m"}`)
	if a := r.want(204, "", "DELETE", "/api/v1/limits/pushes", ""); a.body != "" {
		t.Errorf("a limit that the configuration does not have: %s", a.body)
	}
	before := len(r.guard.limits)
	for body, part := range map[string]string{
		`{}`:                                `there is no limit \"new\" to change: a new one needs kind, threshold and window`,
		`{"off":true}`:                      "a new one needs kind",
		`{"kind":"login","window":"1m"}`:    "a new one needs",
		`{"kind":"login","threshold":1}`:    "a new one needs",
		`{"threshold":1,"window":"1m"}`:     "a new one needs",
		newLimit(`"name":"other"`):          `name: expected \"new\", as in the path, got \"other\"`,
		newLimit(`"kind":"logins"`):         `kind: expected one of login, wrong-password, POST /signals; got \"logins\"`,
		newLimit(`"window":"50"`):           "window: expected a duration like 4h",
		newLimit(`"window":"-1m"`):          "window: expected 1 second to 7 days",
		newLimit(`"window":"8d"`):           "window: expected 1 second to 7 days",
		newLimit(`"ban":"soon"`):            "ban: expected a duration like 4h",
		newLimit(`"ban":"-1h"`):             "ban: expected 0 (none) to",
		newLimit(`"ban":60`):                "expected a JSON object",
		newLimit(`"threshold":0`):           "threshold: expected 1 to 1000000 events, got 0",
		newLimit(`"per":"city"`):            `per: expected \"address\"`,
		newLimit(`"ban":"1h","scope":"x"`):  `ban scope: expected \"all\" or \"login\", got \"x\"`,
		newLimit(`"extend_on_retry":true`):  "extend_on_retry without a ban has no effect",
		newLimit(`"exempt_plans":["FREE"]`): `exempt plan: expected COMMUNITY, SECOPS or ENTERPRISE, got \"FREE\"`,
		newLimit(`"sharing":"yes"`):         "expected a JSON object",
		newLimit(`"treshold":5`):            `unknown field \"treshold\"`,
		newLimit(`"reason":"a\nb"`):         "reason: expected one line",
		newLimit(`"per":"x","threshold":0`): `machine+address\", got \"x\"; limit \"new\": threshold: expected`,
	} {
		r.want(400, part, "PUT", "/api/v1/limits/new", body)
	}
	r.want(400, "name: expected at most 64 lower-case letters", "PUT", "/api/v1/limits/New%20One", newLimit(`"per":"address"`))
	if len(r.guard.limits) != before {
		t.Errorf("%d limits, want %d", len(r.guard.limits), before)
	}
	r.guard.fail = muster.Errorf(muster.Invalid, "expected at most 64 limits, got 65")
	r.want(400, "at most 64 limits", "PUT", "/api/v1/limits/new", newLimit(`"per":"address"`))
}

// newLimit is a good new limit but for what fields say; of two fields of one
// name the later one counts.
func newLimit(fields string) string {
	return `{"kind":"login","threshold":5,"window":"1m",` + fields + `}`
}

func TestDurationText(t *testing.T) {
	for text, d := range map[string]time.Duration{
		"0s": 0, "1s": time.Second, "1m": time.Minute, "1m10s": 70 * time.Second, "50m": 50 * time.Minute, "1h": time.Hour, "1h10m": 70 * time.Minute,
		"10h0m10s": 10*time.Hour + 10*time.Second, "20h": 20 * time.Hour, "1d": 24 * time.Hour, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour,
		"2d1m": 48*time.Hour + time.Minute, "366d": ratelimit.MaxBan, "1.5s": 1500 * time.Millisecond,
	} {
		got := durationText(d)
		var back limitChange
		back.Window = &got
		var l ratelimit.Limit
		if err := back.apply(&l); err != nil || got != text || l.Window != d {
			t.Errorf("%s: got %q, read back as %s, %v; want %q", d, got, l.Window, err, text)
		}
	}
}

func TestOverrides(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "web", "org-a")
	if a := r.want(200, "", "GET", "/api/v1/overrides", ""); a.body != `{"overrides":[],"next":""}` {
		t.Errorf("without overrides: %s", a.body)
	}
	a := r.want(200, "", "POST", "/api/v1/overrides", `{"organisation":"beta","threshold":200,"limits":["wrong-password"],"ttl_seconds":3600,"reason":" one NAT "}`)
	want := `{"id":"override-000","addresses":"","organisation":"org-b","machine":"","limits":["wrong-password"],"exempt":false,"threshold":200,` +
		`"since":"2026-11-20T12:00:00Z","until":"2026-11-20T13:00:00Z","reason":"one NAT","by":"local administrator"}`
	if a.body != want {
		t.Errorf("got  %s\nwant %s", a.body, want)
	}
	r.want(200, `"machine":"m1","limits":[],"exempt":true,"threshold":0`, "POST", "/api/v1/overrides", `{"machine":"web","exempt":true,"reason":"x"}`)
	r.want(200, `"addresses":"203.0.113.0/24"`, "POST", "/api/v1/overrides", `{"addresses":"203.0.113.9/24","exempt":true,"reason":"x"}`)
	r.want(200, `"addresses":"203.0.113.9","organisation":"","machine":"","limits":[],"exempt":true,"threshold":0,"since":"2026-11-20T12:00:00Z","until":null`,
		"POST", "/api/v1/overrides", `{"addresses":"203.0.113.9","exempt":true,"reason":"x"}`)
	for body, c := range map[string]struct {
		status int
		part   string
	}{
		`{"exempt":true,"reason":"x"}`:                                             {400, "expected exactly one of a range of addresses, an organisation, a machine; got 0"},
		`{"exempt":true,"reason":"x","machine":"m1","organisation":"org-a"}`:       {400, "a machine; got 2"},
		`{"reason":"x","machine":"m1"}`:                                            {400, "expected either exempt or a threshold"},
		`{"reason":"x","machine":"m1","exempt":true,"threshold":5}`:                {400, "expected either exempt or a threshold"},
		`{"reason":"x","machine":"m1","threshold":-5}`:                             {400, "threshold: expected 1 to"},
		`{"machine":"m1","exempt":true}`:                                           {400, "reason: expected one line"},
		`{"reason":"x","machine":"m1","exempt":true,"ttl_seconds":-1}`:             {400, "ttl_seconds"},
		`{"reason":"x","machine":"m1","exempt":true,"limits":["login","nothing"]}`: {400, `limits: there is no limit \"login\": muster admin limit list`},
		`{"reason":"x","addresses":"web1","exempt":true}`:                          {400, "addresses: expected an address or a range"},
		`{"reason":"x","machine":"nothing","exempt":true}`:                         {404, "muster admin machine list"},
		`{"reason":"x","organisation":"nothing","exempt":true}`:                    {404, "muster admin org list"},
		`{"reason":"x","org":"org-a","exempt":true}`:                               {400, "unknown field"},
	} {
		r.want(c.status, c.part, "POST", "/api/v1/overrides", body)
	}
	if len(r.guard.overrides) != 4 {
		t.Errorf("%d overrides, want 4", len(r.guard.overrides))
	}
	r.want(204, "", "DELETE", "/api/v1/overrides/override-001?reason=over", "")
	r.want(404, "no such override", "DELETE", "/api/v1/overrides/override-001", "")
	if by := r.guard.by[len(r.guard.by)-1]; by.Reason != "over" {
		t.Errorf("audited as %+v", by)
	}
}

func TestOverridesInPages(t *testing.T) {
	r := newRig(t)
	var want []string
	for i := range 5 {
		id := fmt.Sprintf("id-%d", 4-i)
		r.guard.overrides = append(r.guard.overrides, ratelimit.Override{ID: id, Machine: id})
		want = append(want, fmt.Sprintf("id-%d", i))
	}
	for i := range 3 {
		r.guard.overrides = append(r.guard.overrides, ratelimit.Override{Machine: fmt.Sprintf("configured-%d", i)})
	}
	want = append([]string{"configured-0", "configured-1", "configured-2"}, want...)
	for _, size := range []int{1, 2, 4, 5, 6} {
		var got []string
		after := ""
		for range 10 {
			var page struct {
				Overrides []overrideView
				Next      string
			}
			r.want(200, "", "GET", fmt.Sprintf("/api/v1/overrides?limit=%d&after=%s", size, after), "").into(t, &page)
			for _, o := range page.Overrides {
				got = append(got, o.Machine)
			}
			if after = page.Next; after == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %q, want %q", size, got, want)
		}
	}
	r.guard.overrides = r.guard.overrides[5:]
	r.want(200, `"next":""`, "GET", "/api/v1/overrides?limit=1", "")
}

func TestFindings(t *testing.T) {
	r := newRig(t)
	r.machine("m2", "web", "")
	if a := r.want(200, "", "GET", "/api/v1/findings", ""); a.body != `{"findings":[]}` {
		t.Errorf("without findings: %s", a.body)
	}
	r.guard.findings = []muster.Finding{
		{Kind: muster.RestartLoop, Machine: "m1", Address: source("203.0.113.9"), Summary: "a"},
		{Kind: muster.SharedCredentials, Machine: "m2", Summary: "b"},
		{Kind: muster.SharedAddress, Address: source("2001:db8::/64"), Summary: "c"},
	}
	for query, want := range map[string]string{
		"": "a b c", "?kind=restart-loop": "a", "?kind=nothing": "", "?address=203.0.113.9": "a", "?address=203.0.113.0/24": "a", "?address=2001:db8::77": "c",
		"?address=192.0.2.1": "", "?machine=m1": "a", "?machine=m2": "b", "?machine=web": "b", "?kind=restart-loop&machine=web": "",
		"?kind=restart-loop&address=203.0.113.9&machine=m1": "a",
	} {
		var list struct{ Findings []findingView }
		r.want(200, "", "GET", "/api/v1/findings"+query, "").into(t, &list)
		got := make([]string, len(list.Findings))
		for i, f := range list.Findings {
			got[i] = f.Summary
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
	r.want(400, "address: expected an address or a range", "GET", "/api/v1/findings?address=x", "")
	r.want(404, "muster admin machine list", "GET", "/api/v1/findings?machine=x", "")
}

func TestAudit(t *testing.T) {
	r := newRig(t)
	if a := r.want(200, "", "GET", "/api/v1/audit", ""); a.body != `{"entries":[],"next":""}` {
		t.Errorf("without entries: %s", a.body)
	}
	const id = "01a1fb7c-0e50-7ac2-9f0f-9bb8d21e73b4"
	r.store.audit = []muster.AuditEntry{
		{ID: "newer", At: now, By: "jane", Action: "ban.lift", Subject: "203.0.113.9/32", Reason: "mended", Detail: []byte(`{"scope":"all"}`)},
		{ID: id, At: now, By: "jane", Action: "limit.reset", Subject: "pushes", Detail: []byte(`no JSON`)},
	}
	want := `{"entries":[{"id":"newer","at":"2026-11-20T12:00:00Z","by":"jane","action":"ban.lift","subject":"203.0.113.9/32","reason":"mended","detail":{"scope":"all"}},` +
		`{"id":"` + id + `","at":"2026-11-20T12:00:00Z","by":"jane","action":"limit.reset","subject":"pushes","reason":"","detail":null}],"next":"` + id + `"}`
	if a := r.want(200, "", "GET", "/api/v1/audit?limit=2", ""); a.body != want {
		t.Errorf("got  %s\nwant %s", a.body, want)
	}
	r.want(200, `"next":""`, "GET", "/api/v1/audit?limit=3", "")
	for query, want := range map[string]AuditQuery{
		"": {Limit: 100},
		"?action=ban.&subject=203.0.113.9&before=" + id + "&limit=7": {Action: "ban.", Subject: "203.0.113.9/32", Before: id, Limit: 7},
		"?subject=203.0.113.0/24":                                    {Subject: "203.0.113.0/24", Limit: 100},
		"?subject=2001:db8::7":                                       {Subject: "2001:db8::/64", Limit: 100},
		"?subject=wrong-password":                                    {Subject: "wrong-password", Limit: 100},
	} {
		r.want(200, "", "GET", "/api/v1/audit"+query, "")
		if diff := cmp.Diff(want, r.store.auditQuery); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	r.want(400, "before: expected the next of an earlier page", "GET", "/api/v1/audit?before=x", "")
	r.want(400, "limit: expected", "GET", "/api/v1/audit?limit=x", "")
	r.store.fail = errors.New("database is away")
	r.want(500, `"code":"internal"`, "GET", "/api/v1/audit", "")
}

// from sends a request as a stranger at addr.
func from(addr string) func(*http.Request) {
	return func(q *http.Request) { q.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(addr), 4711).String() }
}

func TestStanding(t *testing.T) {
	r := newRig(t)
	a := send(t, r, "GET", "/api/v1/ban", "", from("203.0.113.9"))
	if want := `{"address":"203.0.113.9","banned":false,"findings":[],"server":"muster"}`; a.status != 200 || a.body != want {
		t.Errorf("got  %d %s\nwant %s", a.status, a.body, want)
	}
	r.guard.bans = []ratelimit.Ban{limiterBan(t, "203.0.113.9")}
	a = send(t, r, "GET", "/api/v1/ban", "", from("::ffff:203.0.113.9"))
	general, err := json.Marshal(abuse.Checks)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"address":"203.0.113.9","banned":true,"until":"2026-11-20T13:00:00Z","reason":"more than 20 logins in 50 minutes from one address","scope":"all",` +
		`"extends_on_retry":true,"limit":"login-sharing-enrolled","check":` + string(general) + `,` +
		`"look":"https://muster.test/api/v1/ban","appeal":"noc@muster.test","findings":[],"server":"muster"}`
	if a.status != 200 || a.body != want {
		t.Errorf("got  %d %s\nwant %s", a.status, a.body, want)
	}
	r.guard.bans = []ratelimit.Ban{{Prefix: netip.MustParsePrefix("2001:db8::/32"), Scope: ratelimit.ScopeLogin, Reason: "floods", Since: now, By: "jane"}}
	a = send(t, r, "GET", "/api/v1/ban", "", from("2001:db8:7::9"))
	if part := `{"address":"2001:db8:7::9","banned":true,"until":null,"reason":"floods","scope":"login","extends_on_retry":false,"limit":"",`; !strings.HasPrefix(a.body, part) || strings.Contains(a.body, "jane") {
		t.Errorf("by a person: %s", a.body)
	}
	for _, addr := range []string{"203.0.113.9", "2001:db9::1"} {
		if a := send(t, r, "GET", "/api/v1/ban", "", from(addr)); !strings.Contains(a.body, `"banned":false`) {
			t.Errorf("%s: %s", addr, a.body)
		}
	}
	if a := send(t, r.Trusted(), "GET", "/api/v1/ban", "", func(q *http.Request) { q.RemoteAddr = "@" }); a.status != 400 || !strings.Contains(a.body, "no address to tell about") {
		t.Errorf("over the socket: %d %s", a.status, a.body)
	}
}

// It is open to anybody, and nothing else is.
func TestStandingIsAllThatIsPublic(t *testing.T) {
	r := newRig(t)
	for _, c := range [][2]string{
		{"POST", "/api/v1/ban"},
		{"DELETE", "/api/v1/ban"},
		{"GET", "/api/v1/ban/"},
		{"GET", "/api/v1/ban/203.0.113.9"},
		{"GET", "/api/v1/bans"},
		{"GET", "/api/v1/bans/203.0.113.9"},
		{"POST", "/api/v1/bans"},
		{"DELETE", "/api/v1/bans/203.0.113.9"},
		{"GET", "/api/v1/limits"},
		{"PUT", "/api/v1/limits/x"},
		{"GET", "/api/v1/overrides"},
		{"POST", "/api/v1/overrides"},
		{"GET", "/api/v1/findings"},
		{"GET", "/api/v1/audit"},
		{"GET", "/api/v1/ban%2f..%2fstatus"},
	} {
		if a := send(t, r, c[0], c[1], `{}`, from("203.0.113.9")); a.status != 401 {
			t.Errorf("%s %s: got %d", c[0], c[1], a.status)
		}
	}
	if a := send(t, r, "HEAD", "/api/v1/ban", "", from("203.0.113.9")); a.status != 200 {
		t.Errorf("HEAD: got %d", a.status)
	}
	// It reads memory alone: a database that is away makes no difference.
	r.store.fail = errors.New("database is away")
	if a := send(t, r, "GET", "/api/v1/ban", "", from("203.0.113.9")); a.status != 200 {
		t.Errorf("without a database: got %d", a.status)
	}
	if len(r.guard.by) != 0 {
		t.Errorf("strangers made changes: %v", r.guard.by)
	}
}

// Whoever asks from behind a shared address must not learn who else is there.
func TestStandingNamesNobody(t *testing.T) {
	r := newRig(t)
	secrets := []string{"0cd9a1machine", "org-secret", "198.51.100.99", "Customer A", "/root/secret"}
	all := strings.Join(secrets, " ")
	kinds := []muster.FindingKind{muster.SharedCredentials, muster.RestartLoop, muster.StatusProbe, muster.SharedAddress, muster.UntrustedProxy}
	for _, kind := range append(kinds, "of a newer release") {
		r.guard.findings = append(r.guard.findings, muster.Finding{
			Kind: kind, Severity: muster.Critical, Machine: secrets[0], Organisation: secrets[1],
			Summary: "it is " + all, Evidence: secrets, Fix: "tell " + all, Count: 42, First: now, Last: now,
		})
	}
	r.guard.findings = append(r.guard.findings, r.guard.findings...)
	r.guard.bans = []ratelimit.Ban{limiterBan(t, "203.0.113.9")}
	a := send(t, r, "GET", "/api/v1/ban", "", from("203.0.113.9"))
	for _, secret := range secrets {
		if strings.Contains(a.body, secret) {
			t.Errorf("it tells %q: %s", secret, a.body)
		}
	}
	var s Standing
	a.into(t, &s)
	if len(s.Findings) != maxHints || s.Refusal == nil || len(s.Check) != len(kinds) {
		t.Fatalf("got %s", a.body)
	}
	for i, kind := range kinds {
		h := s.Findings[i]
		if h.Kind != kind || h.Severity != muster.Critical || strings.Count(h.Summary, "42") != 1 || h.Fix == "" || s.Check[i] != h.Fix {
			t.Errorf("%s: got %+v, check %q", kind, h, s.Check[i])
		}
	}
}

func source(text string) muster.Source {
	s, err := muster.ParseSource(text)
	if err != nil {
		panic(err)
	}
	return s
}

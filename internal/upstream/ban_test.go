package upstream

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// musterBan is what a Muster answers to a banned client, word for word.
const musterBan = `{"message":"banned: 203.0.113.9 is not served until 2026-11-21T04:00:00Z: more than 20 logins in 50 minutes from one address. Stop the engine until then: every retry begins the time anew. More: https://muster.example.org/api/v1/ban. Appeal: abuse@muster.example.org",` +
	`"code":"banned","address":"203.0.113.9","scope":"all","until":"2026-11-21T04:00:00Z","retry_after":3600,"extends_on_retry":true,"limit":"login-not-sharing-enrolled",` +
	`"reason":"more than 20 logins in 50 minutes from one address","check":["Is the engine in a restart loop?"],"look":"https://muster.example.org/api/v1/ban","appeal":"abuse@muster.example.org"}`

func answer(status int, body string, header ...string) *Response {
	r := &Response{Status: status, Header: http.Header{}, Body: []byte(body)}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func TestBanIn(t *testing.T) {
	told := Ban{
		Until: t0.Add(time.Hour), Reason: "more than 20 logins in 50 minutes from one address", Address: "203.0.113.9",
		Extends: true, Limit: "login-not-sharing-enrolled", Check: []string{"Is the engine in a restart loop?"},
		Look: "https://muster.example.org/api/v1/ban", Appeal: "abuse@muster.example.org",
	}
	assumed := Ban{
		Until: t0.Add(time.Hour), Extends: true, Assumed: true,
		Reason: "the login was refused with status 403 and no explanation, as after too many logins from one address",
	}
	with := func(b Ban, change func(*Ban)) *Ban { change(&b); return &b }
	for _, test := range []struct {
		name  string
		r     *Response
		login bool
		want  *Ban
	}{
		{"Muster's, to a login", answer(403, musterBan), true, &told},
		{"Muster's, to another call", answer(403, musterBan), false, &told},
		{"the clock here is a day behind", answer(403, strings.ReplaceAll(musterBan, "2026-11-21T04", "2026-11-22T04")), true, &told},
		{
			"no retry_after", answer(403, strings.ReplaceAll(musterBan, `"retry_after":3600,`, "")), true,
			&told,
		},
		{
			"no retry_after, and the clock there is two hours ahead",
			answer(403, strings.ReplaceAll(musterBan, `"retry_after":3600,`, ""), "Date", "Sat, 21 Nov 2026 03:30:00 GMT"), true,
			with(told, func(b *Ban) { b.Until = t0.Add(30 * time.Minute) }),
		},
		{
			"for logins only, without end", answer(403, `{"code":"banned","scope":"login","until":null,"extends_on_retry":false,"reason":"by hand"}`, "Retry-After", "86400"), true,
			&Ban{Reason: "by hand", LoginsOnly: true},
		},
		{
			"another server that says code banned", answer(429, `{"code":"banned","message":"go away"}`, "Retry-After", "60"), false,
			&Ban{Reason: "go away", Extends: true, Until: t0.Add(time.Minute)},
		},
		{
			"too long", answer(403, `{"code":"banned","retry_after":9223372036854775807}`), false,
			&Ban{Reason: "no reason given", Extends: true, Until: t0.Add(maxBan)},
		},
		{"CrowdSec's", answer(403, `{"message":"Forbidden"}`), true, &assumed},
		{"a page", answer(403, "<html>403 Forbidden</html>"), true, &assumed},
		{"nothing", answer(403, ""), true, &assumed},
		{"with a time", answer(403, "", "Retry-After", "7200"), true, with(assumed, func(b *Ban) { b.Until = t0.Add(2 * time.Hour) })},
		{"a wrong password", answer(403, `{"message":"The machine_id or password is incorrect"}`), true, nil},
		{"an old token", answer(403, `{"message":"Forbidden"}`), false, nil},
		{"no token", answer(401, musterBan), true, nil},
		{"busy", answer(429, `{"message":"slow down"}`), true, nil},
		{"well", answer(200, musterBan), true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, banned := BanIn(test.r, test.login, t0)
			if banned != (test.want != nil) {
				t.Fatalf("expected banned %v, got %v", test.want != nil, banned)
			}
			if test.want == nil {
				test.want = &Ban{}
			}
			if diff := cmp.Diff(*test.want, got); diff != "" {
				t.Errorf("ban (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBanExplainsItself(t *testing.T) {
	b, _ := BanIn(answer(403, musterBan), true, t0)
	text := (&BannedError{Ban: b}).Error()
	for _, want := range []string{"2026-11-21T04:00:00Z", "more than 20 logins", "every retry starts the ban again", "abuse@muster.example.org"} {
		if !strings.Contains(text, want) {
			t.Errorf("expected %q in %q", want, text)
		}
	}
	b.Extends, b.Until = false, time.Time{}
	if text = (&BannedError{Ban: b}).Error(); strings.Contains(text, "retry") || !strings.Contains(text, "until somebody lifts it") {
		t.Errorf("a ban without end that retries do not prolong: got %q", text)
	}
}

func FuzzBanIn(f *testing.F) {
	f.Add(403, musterBan, "3600", true)
	f.Add(429, `{"code":"banned","until":"0001-01-01T00:00:00Z","check":["\u001b[31mred","",""]}`, "", false)
	f.Add(403, `{"code":"banned","until":"9999-12-31T23:59:59Z","retry_after":-1}`, "x", true)
	f.Add(403, "", "", true)
	f.Fuzz(func(t *testing.T, status int, body, retryAfter string, login bool) {
		b, banned := BanIn(answer(status, body, "Retry-After", retryAfter), login, t0)
		if !banned {
			return
		}
		if !b.Until.IsZero() && (b.Until.Before(t0) || b.Until.After(t0.Add(maxBan))) {
			t.Errorf("expected an end within %s from now, got %s", maxBan, b.Until)
		}
		if b.Reason == "" || len(b.Check) > 8 {
			t.Errorf("expected a reason and at most 8 checks, got %+v", b)
		}
		for _, text := range append([]string{b.Reason, b.Look, b.Appeal, b.Limit, b.Address}, b.Check...) {
			if len(text) > 510 || strings.ContainsFunc(text, unicode.IsControl) {
				t.Errorf("a stranger's text is shown as it came: %q", text)
			}
		}
	})
}

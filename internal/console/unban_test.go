package console

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/unban"
)

// desk is the Unbans of this package: it answers what it was given, and keeps
// what it was asked.
type desk struct {
	answer   unban.Answer
	standing unban.Standing
	requests []muster.UnbanRequest
	found    unban.Case
	fail     error

	asked  []unban.Ask
	looked []netip.Addr
	query  muster.UnbanQuery
	done   []string
}

func (d *desk) Ask(_ context.Context, a unban.Ask) (unban.Answer, error) {
	d.asked = append(d.asked, a)
	return d.answer, d.fail
}

func (d *desk) Standing(_ context.Context, addr netip.Addr) (unban.Standing, error) {
	d.looked = append(d.looked, addr)
	return d.standing, d.fail
}

func (d *desk) Requests(_ context.Context, q muster.UnbanQuery) ([]muster.UnbanRequest, error) {
	d.query = q
	return d.requests, d.fail
}

func (d *desk) Case(_ context.Context, ref string) (unban.Case, error) {
	d.done = append(d.done, "show "+ref)
	return d.found, d.fail
}

func (d *desk) Grant(_ context.Context, ref string, by unban.By) (muster.UnbanRequest, error) {
	d.done = append(d.done, strings.Join([]string{"grant", ref, by.User, by.Reason}, " "))
	return d.found.Request, d.fail
}

func (d *desk) Refuse(_ context.Context, ref string, by unban.By) (muster.UnbanRequest, error) {
	d.done = append(d.done, strings.Join([]string{"refuse", ref, by.User, by.Reason}, " "))
	return d.found.Request, d.fail
}

// newDesk is an API with a desk.
func newDesk(t testing.TB) (*rig, *desk) {
	r, d := newRig(t), &desk{}
	r.cfg.Unbans = d
	return r, d
}

func anUnban() muster.UnbanRequest {
	return muster.UnbanRequest{
		ID: "01a1fb7c-0e50-7ac2-9f0f-9bb8d21e73b4", Source: source("203.0.113.0/24"), Address: netip.MustParseAddr("203.0.113.9"),
		Requester: netip.MustParseAddr("203.0.113.8"), Contact: "noc@example.org", Text: "we mended it", Proof: muster.ProofSameAddress,
		State: muster.UnbanGranted, Requested: now, Decided: now.Add(time.Hour), By: "jane", Reason: "fine", Round: 2, GraceUntil: now.Add(7 * 24 * time.Hour), Delivered: true,
	}
}

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestUnbanStanding(t *testing.T) {
	r, d := newDesk(t)
	d.standing = unban.Standing{Address: netip.MustParseAddr("203.0.113.9"), Message: "not listed"}
	if a := send(t, r, "GET", "/api/v1/unban", "", from("203.0.113.9")); a.status != 200 ||
		a.body != `{"address":"203.0.113.9","listed":false,"listing":null,"can_ask":false,"next":null,"message":"not listed","request":null}` {
		t.Errorf("not listed: got %d %s", a.status, a.body)
	}
	request := anUnban()
	d.standing = unban.Standing{
		Address: request.Address, Message: "listed", Next: now.Add(time.Hour), Request: &request,
		Listing: &muster.Verdict{
			Source: request.Source, Listed: true, Scenario: "a/b", Since: now, Until: now.Add(time.Hour),
			Reasons: muster.Reasons{Machines: 77, Organisations: 66, Scenarios: []string{"a/b", "c/d"}, Rule: "enough independent voices"},
		},
	}
	a := send(t, r, "GET", "/api/v1/unban", "", from("203.0.113.9"))
	want := `{"address":"203.0.113.9","listed":true,"listing":{"source":"203.0.113.0/24","range":true,"since":"2026-11-20T12:00:00Z",` +
		`"until":"2026-11-20T13:00:00Z","behaviours":["a/b","c/d"]},"can_ask":false,"next":"2026-11-20T13:00:00Z","message":"listed",` +
		`"request":{"source":"203.0.113.0/24","state":"granted","requested":"2026-11-20T12:00:00Z","decided":"2026-11-20T13:00:00Z","reason":"fine","round":2,"grace_until":"2026-11-27T12:00:00Z"}}`
	if a.status != 200 || a.body != want {
		t.Errorf("listed: got %d %s\nwant %s", a.status, a.body, want)
	}
	for _, secret := range []string{"noc@example.org", "mended", "203.0.113.8", "jane", "77", "66"} {
		if strings.Contains(a.body, secret) {
			t.Errorf("strangers are told %q: %s", secret, a.body)
		}
	}
	d.standing.Listing.Reasons.Scenarios = nil
	if a := send(t, r, "GET", "/api/v1/unban", "", from("203.0.113.9")); !strings.Contains(a.body, `"behaviours":["a/b"]`) {
		t.Errorf("with one behaviour: %s", a.body)
	}
	if diff := cmp.Diff([]netip.Addr{request.Address, request.Address, request.Address}, d.looked, sameAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	d.fail = &muster.Error{Code: muster.RateLimited, Message: "ask tomorrow", RetryAfter: time.Hour}
	if a := send(t, r, "GET", "/api/v1/unban", "", nil); a.status != 429 || a.header.Get("Retry-After") != "3601" {
		t.Errorf("too often: got %d, Retry-After %q", a.status, a.header.Get("Retry-After"))
	}
}

func TestAskUnban(t *testing.T) {
	request := anUnban()
	request.State, request.Decided, request.GraceUntil, request.Round = muster.UnbanWaiting, time.Time{}, time.Time{}, 0
	own := unban.Ask{Requester: netip.MustParseAddr("203.0.113.9")}
	other := unban.Ask{Requester: own.Requester, Address: netip.MustParseAddr("2001:db8::1"), Contact: "a@b", Text: "l1\nl2"}
	for name, c := range map[string]struct {
		body   string
		header http.Header
		status int
		want   string
		ask    *unban.Ask
	}{
		"for the own address": {"", nil, 200, `{"address":"203.0.113.9","state":"waiting","message":"wait","request":{"source":"203.0.113.0/24","state":"waiting",` +
			`"requested":"2026-11-20T12:00:00Z","decided":null,"reason":"fine","round":0,"grace_until":null}}`, &own},
		"an empty object":       {"{}", nil, 200, `"state":"waiting"`, &own},
		"for another":           {`{"address":"2001:db8::1","contact":"a@b","text":"l1\nl2"}`, nil, 200, `"state":"waiting"`, &other},
		"for a range":           {`{"address":"203.0.113.0/24"}`, nil, 400, "address: expected an IPv4 or IPv6 address", nil},
		"for a name":            {`{"address":"web1"}`, nil, 400, "address: expected an IPv4 or IPv6 address", nil},
		"an unknown field":      {`{"adress":"203.0.113.9"}`, nil, 400, "unknown field", nil},
		"too much":              {`{"text":"` + strings.Repeat("x", maxAsk) + `"}`, nil, 413, "larger than 16384 bytes", nil},
		"by another site":       {"", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403, "another site's page", nil},
		"by this site":          {"", http.Header{"Sec-Fetch-Site": {"same-origin"}}, 200, "waiting", &own},
		"by an older browser":   {"", http.Header{"Origin": {"https://evil.test"}}, 403, "another site's page", nil},
		"by one behind proxies": {"", http.Header{"Origin": {"https://muster.test"}}, 200, "waiting", &own},
	} {
		r, d := newDesk(t)
		d.answer = unban.Answer{Address: own.Requester, State: muster.UnbanWaiting, Message: "wait", Request: &request}
		a := send(t, r, "POST", "/api/v1/unban", c.body, func(q *http.Request) {
			from("203.0.113.9")(q)
			q.Host = "10.0.0.1:8080"
			for k, v := range c.header {
				q.Header[k] = v
			}
		})
		if a.status != c.status || !strings.Contains(a.body, c.want) {
			t.Errorf("%s: got %d %s, want %d with %s", name, a.status, a.body, c.status, c.want)
		}
		var asked []unban.Ask
		if c.ask != nil {
			asked = []unban.Ask{*c.ask}
		}
		if diff := cmp.Diff(asked, d.asked, sameAddr); diff != "" {
			t.Errorf("%s: asked (-want +got):\n%s", name, diff)
		}
	}
	r, d := newDesk(t)
	d.answer = unban.Answer{Address: other.Address, State: muster.UnbanWaiting, Message: "maybe"}
	if a := send(t, r, "POST", "/api/v1/unban", `{"address":"2001:db8::1"}`, from("203.0.113.9")); a.body != `{"address":"2001:db8::1","state":"waiting","message":"maybe","request":null}` {
		t.Errorf("without proof: %s", a.body)
	}
}

// Two routes are public, and none beside them.
func TestPublicUnbanRoutes(t *testing.T) {
	r, d := newDesk(t)
	for route, public := range map[string]bool{
		"GET /api/v1/unban": true, "HEAD /api/v1/unban": true, "POST /api/v1/unban": true,
		"PUT /api/v1/unban": false, "DELETE /api/v1/unban": false, "GET /api/v1/unban/": false, "GET /api/v1/unban/x": false, "POST /api/v1/unban/x/grant": false,
		"GET /api/v1/unbans": false, "GET /api/v1/unbans/x": false, "POST /api/v1/unbans/x/grant": false, "POST /api/v1/unbans/x/refuse": false,
	} {
		method, path, _ := strings.Cut(route, " ")
		if a := send(t, r, method, path, `{"reason":"x"}`, nil); (a.status != 401) != public {
			t.Errorf("%s: got %d %s", route, a.status, a.body)
		}
	}
	if len(d.done) != 0 {
		t.Errorf("strangers did %q", d.done)
	}
}

func TestListUnbans(t *testing.T) {
	r, d := newDesk(t)
	if a := r.want(200, "", "GET", "/api/v1/unbans", ""); a.body != `{"requests":[],"next":""}` {
		t.Errorf("without requests: %s", a.body)
	}
	d.requests = []muster.UnbanRequest{anUnban()}
	one := `{"id":"01a1fb7c-0e50-7ac2-9f0f-9bb8d21e73b4","source":"203.0.113.0/24","address":"203.0.113.9","requester":"203.0.113.8","contact":"noc@example.org",` +
		`"text":"we mended it","proof":"same-address","state":"granted","requested":"2026-11-20T12:00:00Z","decided":"2026-11-20T13:00:00Z","by":"jane","reason":"fine",` +
		`"round":2,"grace_until":"2026-11-27T12:00:00Z","delivered":true}`
	if a := r.want(200, "", "GET", "/api/v1/unbans?limit=1&state=granted&source=203.0.113.0/24&after=x", ""); a.body != `{"requests":[`+one+`],"next":"01a1fb7c-0e50-7ac2-9f0f-9bb8d21e73b4"}` {
		t.Errorf("got %s", a.body)
	}
	if want := (muster.UnbanQuery{State: muster.UnbanGranted, Source: source("203.0.113.0/24"), After: "x", Limit: 1}); d.query != want {
		t.Errorf("asked for %+v", d.query)
	}
	r.want(400, "state: expected waiting, granted, refused or withdrawn", "GET", "/api/v1/unbans?state=open", "")
	r.want(400, "source: expected", "GET", "/api/v1/unbans?source=web1", "")
	r.want(400, "limit: expected", "GET", "/api/v1/unbans?limit=x", "")
}

func TestDecideUnban(t *testing.T) {
	r, d := newDesk(t)
	d.found = unban.Case{Request: anUnban(), Others: []muster.UnbanRequest{anUnban()}, Listing: &muster.Verdict{Source: source("203.0.113.9"), Since: now, Until: now}}
	r.want(200, `"listing":{"source":"203.0.113.9","range":false,`, "GET", "/api/v1/unbans/203.0.113.0%2F24", "")
	r.want(200, `"others":[{"id":"01a1fb7c`, "GET", "/api/v1/unbans/2001:db8::1", "")
	d.found.Listing, d.found.Others = nil, nil
	r.want(200, `"listing":null,"others":[]`, "GET", "/api/v1/unbans/x", "")
	r.want(200, `"state":"granted"`, "POST", "/api/v1/unbans/x/grant", `{"reason":" it is mended "}`)
	r.want(200, `"state":"granted"`, "POST", "/api/v1/unbans/203.0.113.0%2F24/refuse", `{"reason":"no"}`)
	r.want(400, "reason: expected one line of 1 to 500 bytes, got 0 bytes: who asked gets to read it", "POST", "/api/v1/unbans/x/grant", "")
	r.want(400, "reason: expected", "POST", "/api/v1/unbans/x/refuse", `{"reason":"a\nb"}`)
	want := []string{
		"show 203.0.113.0/24", "show 2001:db8::1", "show x",
		"grant x local administrator it is mended", "refuse 203.0.113.0/24 local administrator no",
	}
	if diff := cmp.Diff(want, d.done); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	d.fail = muster.Errorf(muster.Gone, "it is decided")
	r.want(410, "it is decided", "POST", "/api/v1/unbans/x/grant", `{"reason":"x"}`)
	d.fail = muster.Errorf(muster.NotFound, "nobody asked")
	r.want(404, "nobody asked", "GET", "/api/v1/unbans/x", "")
}

func TestUnbansWithoutAJudge(t *testing.T) {
	r := newRig(t)
	for _, route := range []string{"GET unban", "POST unban", "GET unbans", "GET unbans/x", "POST unbans/x/grant"} {
		method, path, _ := strings.Cut(route, " ")
		r.want(503, "this server does not judge", method, "/api/v1/"+path, "")
	}
}

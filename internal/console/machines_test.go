package console

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/enroll"
)

func TestMachineList(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		r.machine(fmt.Sprint("m", i), fmt.Sprint("web-", i), []string{"", "org-a"}[i%2])
	}
	var page struct {
		Machines []machineView
		Next     string
	}
	ids := func(query string) (ids string) {
		t.Helper()
		page.Machines, page.Next = nil, ""
		r.want(200, "", "GET", "/api/v1/machines"+query, "").into(t, &page)
		for _, m := range page.Machines {
			ids += " " + m.ID
		}
		return ids
	}
	if got := ids(""); got != " m0 m1 m2 m3 m4" || page.Next != "" {
		t.Errorf("all: got%s, next %q", got, page.Next)
	}
	if got := ids("?limit=2"); got != " m0 m1" || page.Next != "m1" {
		t.Errorf("first page: got%s, next %q", got, page.Next)
	}
	if got := ids("?limit=2&after=m3"); got != " m4" || page.Next != "" {
		t.Errorf("last page: got%s, next %q", got, page.Next)
	}
	if got := ids("?state=active&organisation=org-a&search=web-3"); got != " m3" {
		t.Errorf("filtered: got%s", got)
	}
	r.want(400, "expected pending, active or blocked", "GET", "/api/v1/machines?state=Active", "")
	r.want(400, "from 1 to 1000", "GET", "/api/v1/machines?limit=5000", "")
}

func TestMachine(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "web-1", "")
	r.cfg.Machines.Touch("m1", enroll.ContactPush, "v1.7.8")
	r.store.reports["m1 metrics"] = `{"machines":[]}`
	r.store.reports["m1 usage"] = `{"broken`
	a := r.want(200, "", "GET", "/api/v1/machines/m1", "")
	want := `{"id":"m1","state":"pending","organisation":"","name":"web-1","tags":[],"honeypot":false,"version":"v1.7.8","scenarios":[],"registered_at":"2026-11-20T11:00:00Z",` +
		`"enrolled_at":null,"last_seen":"2026-11-20T12:00:00Z","seen":{"login":null,"pull":null,"push":"2026-11-20T12:00:00Z","metrics":null,"poll":null,"heartbeat":null},` +
		`"metrics":{"machines":[]},"trust":{"reported":false,"summary":"It has not reported anything yet that may be evidence.","rank":0,"weight":0,"bound":0,"tenure_days":0,` +
		`"validations":0,"strikes":0,"last_strike":null,"held_until":null,"paused_until":null,"clouded":false,"clouded_until":null,"solo":false,"honeypot":false,"blocked":false,` +
		`"last_heard":null,"epoch":0},"events":[]}`
	if diff := cmp.Diff(want, a.body); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if strings.Contains(a.body, "secret") {
		t.Error("the credential left the server")
	}
}

// Operators know their machines by name.
func TestMachinesByName(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "web", "")
	r.machine("m2", "web-2", "")
	r.machine("m3", "twin", "")
	r.machine("m4", "twin", "")
	r.machine("m5", "m1", "") // a name that is another's id
	for ref, id := range map[string]string{"m1": "m1", "web": "m1", "web-2": "m2", "m5": "m5"} {
		r.want(200, `"id":"`+id+`"`, "GET", "/api/v1/machines/"+ref, "")
	}
	r.want(400, `2 machines are named \"twin\": use the id`, "GET", "/api/v1/machines/twin", "")
	for _, ref := range []string{"we", "WEB", "nothing"} {
		r.want(404, "muster admin machine list", "GET", "/api/v1/machines/"+ref, "")
	}
	for _, c := range [][2]string{
		{"PATCH", ""}, {"POST", "/accept"}, {"POST", "/block"}, {"POST", "/unblock"}, {"POST", "/release"}, {"DELETE", ""}, {"GET", "/orders"}, {"POST", "/orders"},
	} {
		r.want(404, `there is no machine \"nothing\"`, c[0], "/api/v1/machines/nothing"+c[1], "")
		r.want(400, "use the id", c[0], "/api/v1/machines/twin"+c[1], "")
	}
}

func TestMachineLifecycle(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "web", "")
	const path = "/api/v1/machines/web"
	is := func(state muster.MachineState, organisation string) {
		t.Helper()
		if m := r.store.machines["m1"]; m.State != state || m.Organisation != organisation {
			t.Errorf("it is %s in %q, want %s in %q", m.State, m.Organisation, state, organisation)
		}
	}
	r.want(200, `"name":"front","tags":["a","b"]`, "PATCH", path, `{"name":"front","tags":["a","b"]}`)
	r.want(200, `"name":"web","tags":["a","b"]`, "PATCH", "/api/v1/machines/front", `{"name":"web"}`)
	r.want(200, `"name":"web","tags":[]`, "PATCH", path, `{"tags":[]}`)
	r.want(400, "", "PATCH", path, `{"name":"`+strings.Repeat("x", 300)+`"}`)

	r.want(404, "muster admin org list", "POST", path+"/accept", `{"organisation":"nothing"}`)
	is(muster.Pending, "")
	r.want(200, `"state":"active","organisation":"org-b"`, "POST", path+"/accept", `{"organisation":"Beta"}`)
	r.want(200, `"organisation":"org-b"`, "POST", path+"/accept", "") // where it is
	r.want(200, `"organisation":"org-a"`, "POST", path+"/accept", `{"organisation":"org-a"}`)
	r.want(200, `"state":"blocked"`, "POST", path+"/block", "")
	r.want(403, "unblock it first", "POST", path+"/accept", "")
	r.want(200, `"state":"pending"`, "POST", path+"/unblock", "")
	is(muster.Pending, "org-a")
	r.want(200, `"state":"pending","organisation":""`, "POST", path+"/release", "")
	r.want(200, `"organisation":"org-a"`, "POST", path+"/accept", "") // asked for none: the first one
	is(muster.Active, "org-a")
	r.want(204, "", "DELETE", path, "")
	if m := r.store.machines["m1"]; m.State == muster.Active {
		t.Errorf("after its removal it is %s in %q", m.State, m.Organisation)
	}
}

func TestClaims(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "", "")
	e, err := r.cfg.Machines.Enrol(t.Context(), "m1", enroll.Enrolment{Name: "web", Auto: true})
	if err != nil {
		t.Fatal(err)
	}
	code := strings.TrimPrefix(e.ClaimURL, "https://muster.test/enroll/")
	if code == e.ClaimURL {
		t.Fatalf("no link: %+v", e)
	}
	r.want(404, "", "POST", "/api/v1/claims/nothing", "")
	r.want(404, "muster admin org list", "POST", "/api/v1/claims/"+code, `{"organisation":"nothing"}`)
	r.want(200, `"state":"active","organisation":"org-b","name":"web"`, "POST", "/api/v1/claims/"+code, `{"organisation":"beta"}`)
	r.want(404, "used already", "POST", "/api/v1/claims/"+code, "")
}

func TestOrders(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "web", "org-a")
	r.machine("m2", "waits", "")
	const uuid = "0d5b2b6c-6a3c-4f0e-9a6f-1d2c3b4a5968"
	ids := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	for _, c := range []struct{ name, body, message, data string }{
		{
			"a ban", `{"kind":"alert/add","source":"35.188.49.176"}`, "manual 'ban' from Muster",
			`{"uuid":"ID","created_at":"2026-11-20T12:00:00Z","start_at":"2026-11-20T12:00:00Z","stop_at":"2026-11-20T12:00:00Z","decisions":[` +
				`{"uuid":"ID","origin":"console","scenario":"manual 'ban' from Muster","scope":"Ip","type":"ban","value":"35.188.49.176","duration":"4h0m0s"}]}`,
		},
		{
			"a captcha for a range", `{"kind":"alert/add","source":"35.188.49.77/24","type":"captcha","duration":"7d","message":"spam"}`, "spam",
			`{"uuid":"ID","created_at":"2026-11-20T12:00:00Z","start_at":"2026-11-20T12:00:00Z","stop_at":"2026-11-20T12:00:00Z","decisions":[` +
				`{"uuid":"ID","origin":"console","scenario":"spam","scope":"Range","type":"captcha","value":"35.188.49.0/24","duration":"168h0m0s"}]}`,
		},
		{"an unban", `{"kind":"decision/delete","decisions":["` + uuid + `"]}`, "", `{"decisions":["ID"]}`},
		{"a pull", `{"kind":"management/force_pull"}`, "", `{}`},
		{"a login", `{"kind":"management/reauth"}`, "", `{}`},
		{"a blocklist's end", `{"kind":"management/blocklist_unsubscribe","name":"tor"}`, "", `{"name":"tor"}`},
		{"an allowlist's end", `{"kind":"management/allowlist_unsubscribe","id":"7","name":"ours"}`, "", `{"id":"7","name":"ours"}`},
	} {
		var o orderView
		r.want(200, "", "POST", "/api/v1/machines/web/orders", c.body).into(t, &o)
		if got := ids.ReplaceAllString(string(o.Data), "ID"); got != c.data || o.Message != c.message || o.Machine != "m1" || !o.IssuedAt.Equal(now) || !ids.MatchString(o.ID) {
			t.Errorf("%s: got %s, message %q, of %s for %s\nwant %s, message %q", c.name, got, o.Message, o.IssuedAt, o.Machine, c.data, c.message)
		}
		if c.name == "an unban" && !strings.Contains(string(o.Data), uuid) {
			t.Errorf("%s: of another decision: %s", c.name, o.Data)
		}
		if got := string(r.store.orders[len(r.store.orders)-1].Data); got != string(o.Data) {
			t.Errorf("%s: stored is %s", c.name, got)
		}
	}
	stored := len(r.store.orders)

	for _, c := range []struct{ name, body, part string }{
		{"no kind", `{}`, "kind: expected alert/add"},
		{"an unknown kind", `{"kind":"management/explode"}`, `got \"management/explode\"`},
		{"a bad address", `{"kind":"alert/add","source":"XX"}`, "expected an IPv4 or IPv6 address"},
		{"no address", `{"kind":"alert/add"}`, "expected an IPv4 or IPv6 address"},
		{"a bad duration", `{"kind":"alert/add","source":"1.2.3.4","duration":"soon"}`, "expected a duration like 4h"},
		{"a duration of nothing", `{"kind":"alert/add","source":"1.2.3.4","duration":"0s"}`, "expected a second or more"},
		{"a duration that has passed", `{"kind":"alert/add","source":"1.2.3.4","duration":"-4h"}`, "expected a second or more"},
		{"a blank type", `{"kind":"alert/add","source":"1.2.3.4","type":" "}`, "type"},
		{"no decisions", `{"kind":"decision/delete"}`, "at least one"},
		{"a decision that is none", `{"kind":"decision/delete","decisions":["` + uuid + `","x"]}`, "no UUID"},
		{"a blocklist without a name", `{"kind":"management/blocklist_unsubscribe"}`, "name"},
		{"an allowlist without an id", `{"kind":"management/allowlist_unsubscribe","name":"ours"}`, "id"},
		{"an unknown field", `{"kind":"management/reauth","at":"once"}`, "unknown field"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.want(400, c.part, "POST", "/api/v1/machines/m1/orders", c.body)
		})
	}
	r.want(400, "m2 is pending: only an active one takes orders", "POST", "/api/v1/machines/waits/orders", `{"kind":"management/reauth"}`)
	if len(r.store.orders) != stored {
		t.Errorf("%d orders that were refused are stored", len(r.store.orders)-stored)
	}

	var list []orderView
	r.want(200, "", "GET", "/api/v1/machines/web/orders", "").into(t, &list)
	if len(list) != stored || !json.Valid(list[0].Data) || list[0].IssuedBy != "local administrator" {
		t.Errorf("%d orders are listed: %+v", len(list), list)
	}
	r.clock = now.Add(24*time.Hour + time.Second)
	if a := r.want(200, "", "GET", "/api/v1/machines/web/orders", ""); a.body != "[]" {
		t.Errorf("after their end: %s", a.body)
	}
}

package console

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/allow"
)

// gate is the Allowlists of this package: it keeps what it is told.
type gate struct {
	lists []muster.Allowlist
	items []allow.ItemState
	hits  []allow.Hit
	audit []muster.AuditEntry
	fail  error // of every change

	asked string // the organisation that was asked about last
}

func (g *gate) overview(l muster.Allowlist) allow.Overview {
	return allow.Overview{Allowlist: l, Items: len(g.items), Ranges: 7, Bytes: 99, Machines: 3, Withdrawing: 1}
}

func (g *gate) Lists(organisation string) (out []allow.Overview) {
	g.asked = organisation
	for _, l := range g.lists {
		if organisation == "*" || l.Central() || l.Organisation == organisation {
			out = append(out, g.overview(l))
		}
	}
	return out
}

func (g *gate) List(ref, organisation string) (allow.Overview, error) {
	for _, o := range g.Lists(organisation) {
		if o.ID == ref || o.Name == ref {
			return o, nil
		}
	}
	return allow.Overview{}, missing("allowlist")
}

func (g *gate) Items(string) ([]allow.ItemState, error) { return g.items, nil }

func (g *gate) Covering(_ muster.Source, organisation string) []allow.Hit {
	g.asked = organisation
	return g.hits
}

func (g *gate) changed(audit []muster.AuditEntry) error {
	if g.fail == nil {
		g.audit = append(g.audit, audit...)
	}
	return g.fail
}

func (g *gate) Create(_ context.Context, l muster.Allowlist, audit ...muster.AuditEntry) (allow.Overview, error) {
	l.ID, l.CreatedAt, l.UpdatedAt = "new", now, now
	g.lists = append(g.lists, l)
	return g.overview(l), g.changed(audit)
}

func (g *gate) Update(_ context.Context, id string, change func(*muster.Allowlist) error, audit ...muster.AuditEntry) (allow.Overview, error) {
	n := slices.IndexFunc(g.lists, func(l muster.Allowlist) bool { return l.ID == id })
	err := cmp.Or(change(&g.lists[n]), g.changed(audit))
	return g.overview(g.lists[n]), err
}

func (g *gate) Delete(_ context.Context, id string, audit ...muster.AuditEntry) error {
	g.lists = slices.DeleteFunc(g.lists, func(l muster.Allowlist) bool { return l.ID == id })
	return g.changed(audit)
}

func (g *gate) Put(_ context.Context, id string, items []muster.AllowItem, audit ...muster.AuditEntry) (out []allow.ItemState, err error) {
	for _, i := range items {
		i.List, i.CreatedAt = id, now
		out = append(out, allow.ItemState{AllowItem: i, Ranges: 1})
	}
	g.items = append(g.items, out...)
	return out, g.changed(audit)
}

func (g *gate) Remove(_ context.Context, _ string, items []muster.AllowItem, audit ...muster.AuditEntry) error {
	before := len(g.items)
	g.items = slices.DeleteFunc(g.items, func(i allow.ItemState) bool { return i.Value == items[0].Value })
	if len(g.items) == before {
		return missing("item")
	}
	return g.changed(audit)
}

func newGateRig(t testing.TB) (*rig, *gate) {
	t.Helper()
	r, g := newRig(t), &gate{}
	g.lists = []muster.Allowlist{
		{ID: "c", Name: "partners", CreatedAt: now, UpdatedAt: now},
		{ID: "a", Name: "office", Organisation: "org-a", Targets: []muster.Subscriber{{Kind: muster.SubscriberTag, ID: "web", Organisation: "org-a"}}, CreatedAt: now, UpdatedAt: now, CreatedBy: "jane"},
		{ID: "b", Name: "vpn", Organisation: "org-b", CreatedAt: now, UpdatedAt: now},
	}
	r.cfg.Allowlists = g
	return r, g
}

func TestShowAllowlists(t *testing.T) {
	r, g := newGateRig(t)
	names := func(query string) (out []string) {
		var list []struct{ Name string }
		r.want(200, "", "GET", "/api/v1/allowlists"+query, "").into(t, &list)
		for _, l := range list {
			out = append(out, l.Name)
		}
		return out
	}
	if got := names(""); !slices.Equal(got, []string{"partners", "office", "vpn"}) {
		t.Errorf("all: %v", got)
	}
	if got := names("?organisation=alpha"); !slices.Equal(got, []string{"partners", "office"}) {
		t.Errorf("of one organisation: %v", got)
	}
	r.want(404, "there is no organisation", "GET", "/api/v1/allowlists?organisation=x", "")
	r.want(200, `{"id":"a","name":"office","description":"","central":false,"organisation":"org-a","targets":[{"kind":"tag","id":"web"}],"items":0,"ranges":7,"bytes":99,`+
		`"machines":3,"withdrawing":1,"created_at":"2026-11-20T12:00:00Z","updated_at":"2026-11-20T12:00:00Z","created_by":"jane"}`, "GET", "/api/v1/allowlists/office", "")
	r.want(200, `"central":true`, "GET", "/api/v1/allowlists/c", "")
	r.want(404, "there is no such allowlist", "GET", "/api/v1/allowlists/x", "")
	r.want(200, "[]", "GET", "/api/v1/allowlists/a/items", "")
	g.items = []allow.ItemState{
		{
			AllowItem: muster.AllowItem{Kind: muster.AllowHost, Value: "home.example.org", Reason: "ada", By: "jane", CreatedAt: now, ExpiresAt: now.Add(time.Hour)}, Ranges: 1,
			Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7")}, Problem: "it is late",
		},
	}
	r.want(200, `[{"kind":"host","value":"home.example.org","reason":"ada","created_at":"2026-11-20T12:00:00Z","expires_at":"2026-11-20T13:00:00Z","by":"jane","ranges":1,`+
		`"addresses":["192.0.2.7"],"problem":"it is late"}]`, "GET", "/api/v1/allowlists/a/items", "")

	r.want(200, "[]", "GET", "/api/v1/allowed/192.0.2.7", "")
	g.hits = []allow.Hit{{List: g.lists[1], Item: muster.AllowItem{Kind: muster.AllowAS, Value: "AS64496", Reason: "ours"}, Prefix: netip.MustParsePrefix("192.0.2.0/24")}}
	r.want(200, `[{"list":"a","name":"office","central":false,"organisation":"org-a","value":"AS64496","range":"192.0.2.0/24","reason":"ours","until":null}]`,
		"GET", "/api/v1/allowed/192.0.2.0/30?organisation=Alpha", "")
	if g.asked != "org-a" {
		t.Errorf("expected to be asked about org-a, got %q", g.asked)
	}
	r.want(400, "expected an IPv4 or IPv6 address", "GET", "/api/v1/allowed/x", "")
}

func TestChangeAllowlists(t *testing.T) {
	r, g := newGateRig(t)
	r.machine("m1", "web1", "org-a")
	r.machine("m2", "web2", "org-b")
	last := func() muster.Allowlist { return g.lists[len(g.lists)-1] }
	for _, c := range []struct {
		body    string
		org     string
		targets string
	}{
		{`{"name":"x"}`, "org-a", "organisation:"},
		{`{"name":"x","organisation":"Beta","description":" mine ","targets":[{"kind":"tag","id":"web"},{"kind":"integration","id":"fw"}]}`, "org-b", "tag:web integration:fw"},
		{`{"name":"x","organisation":"org-a","targets":[{"kind":"machine","id":"web1"}]}`, "org-a", "machine:m1"},
		{`{"name":"x","targets":[]}`, "org-a", ""},
		{`{"name":"x","central":true}`, "", ""},
	} {
		r.want(200, `"id":"new"`, "POST", "/api/v1/allowlists", c.body)
		var targets []string
		for _, s := range last().Targets {
			targets = append(targets, string(s.Kind)+":"+s.ID)
		}
		if last().Organisation != c.org || strings.Join(targets, " ") != c.targets || last().CreatedBy != "local administrator" {
			t.Errorf("%s: %+v", c.body, last())
		}
	}
	for body, want := range map[string]string{
		`{"name":"x","central":true,"organisation":"Alpha"}`:      "got both",
		`{"name":"x","organisation":"y"}`:                         "there is no organisation",
		`{"name":"x","targets":[{"kind":"machine","id":"web2"}]}`: `machine \"web2\" is not of this organisation`,
		`{"name":"x","targets":[{"kind":"machine","id":"web9"}]}`: "there is no machine",
		`{"name":"x","target":[]}`:                                "unknown field",
		`{"name":"x","reason":"a\nb"}`:                            "reason: expected one line",
	} {
		if a := r.do("POST", "/api/v1/allowlists", body); a.status < 400 || !strings.Contains(a.body, want) {
			t.Errorf("%s: expected %q, got %d %s", body, want, a.status, a.body)
		}
	}
	g.audit = nil
	r.want(200, `"name":"bureau"`, "PATCH", "/api/v1/allowlists/office", `{"name":"bureau","targets":[{"kind":"organisation"}],"reason":"moved"}`)
	r.want(200, `"name":"bureau","description":"d"`, "PATCH", "/api/v1/allowlists/a", `{"description":" d "}`)
	r.want(404, "", "PATCH", "/api/v1/allowlists/zzz", `{}`)

	r.want(200, `"value":"AS64496"`, "POST", "/api/v1/allowlists/bureau/items", `{"values":["as64496","192.0.2.0/24"],"reason":"ours","ttl_seconds":3600}`)
	if i := g.items[0]; i.List != "a" || i.Kind != muster.AllowAS || i.Reason != "ours" || i.By != "local administrator" || !i.ExpiresAt.Equal(now.Add(time.Hour)) {
		t.Errorf("the item: %+v", i)
	}
	for body, want := range map[string]string{
		`{"values":[]}`: "values: expected 1 to 10000", `{"values":["nonsense"]}`: "expected an address, a range", `{"values":["0.0.0.0/0"]}`: "too wide",
		`{"values":["192.0.2.1"],"ttl_seconds":-1}`: "ttl_seconds", `{"values":["192.0.2.1"],"reason":"a\u0007"}`: "reason",
	} {
		r.want(400, want, "POST", "/api/v1/allowlists/a/items", body)
	}
	r.want(404, "", "POST", "/api/v1/allowlists/zzz/items", `{"values":["192.0.2.1"]}`)
	r.want(200, "192.0.2.9", "POST", "/api/v1/allowlists/central/items", `{"values":["192.0.2.9"]}`) // not there yet
	if i := g.items[len(g.items)-1]; i.List != "central" {
		t.Errorf("the item: %+v", i)
	}
	r.want(204, "", "DELETE", "/api/v1/allowlists/a/items/192.0.2.0%2F24?reason=sold", "")
	r.want(204, "", "DELETE", "/api/v1/allowlists/a/items/AS64496", "")
	r.want(404, "", "DELETE", "/api/v1/allowlists/a/items/AS64496", "")
	r.want(400, "", "DELETE", "/api/v1/allowlists/a/items/nonsense", "")
	r.want(204, "", "DELETE", "/api/v1/allowlists/a?reason=closed", "")
	r.want(404, "", "DELETE", "/api/v1/allowlists/a", "")

	var audit []string
	for _, e := range g.audit {
		audit = append(audit, strings.TrimSpace(e.Action+" "+e.Subject+" "+e.Reason))
	}
	want := []string{
		"allowlist.set office moved", "allowlist.set bureau", "allowlist.add bureau ours", "allowlist.add central",
		"allowlist.remove bureau sold", "allowlist.remove bureau", "allowlist.delete bureau closed",
	}
	if diff := gocmp.Diff(want, audit); diff != "" {
		t.Errorf("the audit: %s", diff)
	}
	g.fail = muster.Errorf(muster.TooLarge, "the list would stand for too much")
	r.want(413, "too much", "POST", "/api/v1/allowlists/c/items", `{"values":["192.0.2.1"]}`)
}
